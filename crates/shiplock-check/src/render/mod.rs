//! Reports for programs and pages: markdown, HTML in one file, SARIF for code scanners, JUnit for CI systems.
//!
//! All come from the typed report. What people and clusters named is escaped; no form can be broken by a name.

mod html;
mod junit;
mod left_out;
mod markdown;
mod page;
mod sarif;

use std::collections::BTreeMap;

use shiplock_core::language::{Language, misleads};

pub use self::html::html;
pub use self::junit::junit;
pub use self::left_out::left_out;
pub use self::markdown::markdown;
pub use self::page::{index, page};
pub use self::sarif::sarif;

use crate::catalogue::{Category, NOT_SEEN};
use crate::report::{Finding, Outcome, Report, Verdict};
use crate::run::Acceptance;

/// Findings that say the same of several objects.
#[derive(Debug)]
pub struct Group<'a> {
    /// The ids of the checks that say so; at least one, and more only where they could not see the same.
    pub checks: Vec<&'a str>,
    /// The findings of the first of these checks; at least one. Those of the others are about the same objects.
    pub findings: Vec<&'a Finding>,
    /// What they say.
    pub text: String,
    /// What to do; none where the next group of the section says it too.
    pub fix: Option<String>,
}

impl<'a> Group<'a> {
    /// The first of the findings, which stands for all.
    pub fn first(&self) -> &'a Finding {
        self.findings[0]
    }
}

/// A part of a report.
#[derive(Debug)]
pub struct Section<'a> {
    /// What it is about; none where it is what could not be seen.
    pub category: Option<Category>,
    /// What was found.
    pub groups: Vec<Group<'a>>,
}

impl Section<'_> {
    /// Its title.
    pub fn title(&self, language: Language) -> &'static str {
        let [english, chinese] = self.category.map_or(["What could not be seen", "无法得知的内容"], Category::title);
        language.pick(english, chinese)
    }
}

/// The findings by category, and within it those together that say the same; then what could not be seen, each cause once
/// with all the checks that it blinds.
pub fn sections(report: &Report, language: Language) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut unseen = Vec::new();
    let mut positions: BTreeMap<_, usize> = BTreeMap::new();
    for finding in &report.findings {
        let (text, fix) = words(finding, language);
        let key = (finding.check.clone(), finding.outcome, finding.accepted.is_some(), text.clone(), fix.clone());
        let section = (finding.sentence != NOT_SEEN).then(|| {
            let category = Some(Category::of(&finding.check));
            sections.iter().position(|section| section.category == category).unwrap_or_else(|| {
                sections.push(Section { category, groups: Vec::new() });
                sections.len() - 1
            })
        });
        let groups = section.map_or(&mut unseen, |at| &mut sections[at].groups);
        if let Some(&group) = positions.get(&key) {
            groups[group].findings.push(finding);
            continue;
        }
        positions.insert(key, groups.len());
        groups.push(Group { checks: vec![&finding.check], findings: vec![finding], text, fix: Some(fix) });
    }
    let unseen = by_cause(unseen);
    if !unseen.is_empty() {
        sections.push(Section { category: None, groups: unseen });
    }
    sections
}

/// Puts groups together that could not see the same of the same objects, what is forbidden first; of several that one fix
/// puts right, the last tells it.
fn by_cause(groups: Vec<Group<'_>>) -> Vec<Group<'_>> {
    let mut causes: Vec<Group<'_>> = Vec::new();
    let mut positions: BTreeMap<_, usize> = BTreeMap::new();
    for group in groups {
        let objects: Vec<String> = group.findings.iter().map(|finding| whereabouts(finding)).collect();
        let key = (group.text.clone(), group.first().accepted.clone(), objects);
        match positions.get(&key) {
            Some(&at) => causes[at].checks.extend(group.checks),
            None => {
                positions.insert(key, causes.len());
                causes.push(group);
            }
        }
    }
    let is_granted = |group: &Group<'_>| Forbidden::of(group.first()).is_some();
    causes.sort_by_key(|group| !is_granted(group));
    for at in 1..causes.len() {
        if causes[at - 1].fix == causes[at].fix {
            causes[at - 1].fix = None;
        }
    }
    causes
}

/// What a finding says, and what to do. What is forbidden is said once, however each check came upon it.
fn words(finding: &Finding, language: Language) -> (String, String) {
    match Forbidden::of(finding) {
        Some(forbidden) => (forbidden.text(language), language.pick(GRANT[0], GRANT[1]).to_owned()),
        None => (finding.text(language), finding.fix(language)),
    }
}

/// What to do about all that is forbidden.
const GRANT: [&str; 2] = [
    "have an administrator of the cluster run shiplock cluster role | kubectl apply -f -, and check as the account of that role (shiplock cluster role --help) or with its roles bound to yours; what it leaves out, such as secrets and what --probe makes, is granted apart",
    "请集群管理员执行 shiplock cluster role | kubectl apply -f -，并用该角色的账号检查（见 shiplock cluster role --help），或将其角色绑定到您的账号；其中未包含的内容（如 secrets 与 --probe 创建的对象）需另行授权",
];

/// What an API server forbade, by its own words.
struct Forbidden<'a> {
    user: &'a str,
    verb: &'a str,
    /// A resource with its group, or a path.
    what: String,
    /// Empty where it is in none.
    namespace: &'a str,
}

impl<'a> Forbidden<'a> {
    /// Reads the cause of what could not be seen; none where it is another one.
    fn of(finding: &'a Finding) -> Option<Self> {
        let why = finding.parameters.get("why").filter(|_| finding.sentence == NOT_SEEN)?;
        let (_, said) = why.split_once("forbidden: User \"")?;
        let (user, said) = said.split_once("\" cannot ")?;
        let (verb, said) = said.split_once(' ')?;
        if let Some(path) = said.strip_prefix("path \"") {
            let (path, _) = path.split_once('"')?;
            return Some(Self { user, verb, what: path.to_owned(), namespace: "" });
        }
        let (resource, said) = said.strip_prefix("resource \"")?.split_once("\" in API group \"")?;
        let (group, said) = said.split_once('"')?;
        let what = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
        let namespace = said.strip_prefix(" in the namespace \"").and_then(|said| said.split_once('"'));
        Some(Self { user, verb, what, namespace: namespace.map_or("", |(namespace, _)| namespace) })
    }

    fn text(&self, language: Language) -> String {
        let Self { user, verb, what, namespace } = self;
        match (language, namespace.is_empty()) {
            (Language::En, true) => format!("{user} may not {verb} {what}"),
            (Language::En, false) => format!("{user} may not {verb} {what} in {namespace}"),
            (Language::Zh, true) => format!("{user} 无权 {verb} {what}"),
            (Language::Zh, false) => format!("{user} 无权在 {namespace} 中 {verb} {what}"),
        }
    }
}

/// The word for an outcome.
pub fn outcome_word(outcome: Outcome, language: Language) -> &'static str {
    match outcome {
        Outcome::Pass => language.pick("ok", "通过"),
        Outcome::Skipped => language.pick("skip", "跳过"),
        Outcome::Warn => language.pick("warn", "警告"),
        Outcome::Unknown => language.pick("?", "未知"),
        Outcome::Fail => language.pick("BLOCK", "阻止"),
    }
}

/// The word for a verdict.
pub fn verdict_word(verdict: Verdict, language: Language) -> &'static str {
    match verdict {
        Verdict::Ready => language.pick("ready", "就绪"),
        Verdict::Blocked => language.pick("blocked", "被阻止"),
        Verdict::Undecided => language.pick("undecided", "无法判定"),
    }
}

/// Why a verdict is what the numbers of findings alone do not say.
fn because(report: &Report, language: Language) -> &'static str {
    let none = |outcome| report.count(outcome) == 0;
    match report.verdict {
        Verdict::Blocked if none(Outcome::Fail) => {
            language.pick("warnings block: --fail-on warn", "警告也阻止：--fail-on warn")
        }
        Verdict::Undecided if none(Outcome::Unknown) && report.ran.is_empty() => {
            language.pick("no check ran", "没有运行任何检查")
        }
        Verdict::Undecided if none(Outcome::Unknown) => {
            language.pick("what --require asks for was not reached", "未能检查 --require 要求的范围")
        }
        Verdict::Ready if !none(Outcome::Fail) || !none(Outcome::Unknown) => {
            language.pick("none of it stops this plan", "均不影响此计划")
        }
        _ => "",
    }
}

/// How many there are of each outcome, in words, and why the verdict follows where they do not say.
pub fn summary(report: &Report, language: Language) -> String {
    let because = because(report, language);
    match (because.is_empty(), language) {
        (true, _) => numbers(report, language),
        (false, Language::En) => format!("{} ({because})", numbers(report, language)),
        (false, Language::Zh) => format!("{}（{because}）", numbers(report, language)),
    }
}

fn numbers(report: &Report, language: Language) -> String {
    let count = |outcome| report.count(outcome);
    let accepted = report.findings.iter().filter(|finding| !finding.counts()).count();
    let (blocked, warned, unknown) = (count(Outcome::Fail), count(Outcome::Warn), count(Outcome::Unknown));
    let passed = report.passed();
    match language {
        Language::En => {
            let warnings = if warned == 1 { "warning" } else { "warnings" };
            let checks = if passed == 1 { "check" } else { "checks" };
            let accepted = if accepted > 0 { format!(", {accepted} accepted") } else { String::new() };
            format!("{blocked} blocking, {warned} {warnings}, {unknown} unknown{accepted}, {passed} {checks} ok")
        }
        Language::Zh => {
            let accepted = if accepted > 0 { format!("，{accepted} 项已接受") } else { String::new() };
            format!("{blocked} 项阻止，{warned} 项警告，{unknown} 项未知{accepted}，{passed} 项检查通过")
        }
    }
}

/// A line for each acceptance that has ended and lets nothing pass any more. What people wrote in them is in it as it is.
pub fn expired(report: &Report, language: Language) -> Vec<String> {
    let line = |acceptance: &Acceptance| {
        let subject = acceptance.subject.as_ref().map_or(String::new(), |subject| format!(" ({subject})"));
        let until = acceptance.until.map_or(String::new(), |until| until.to_string());
        let (check, author) = (&acceptance.check, &acceptance.author);
        match (language, author.is_empty()) {
            (Language::En, true) => format!("the acceptance of {check}{subject} expired: it held until {until}"),
            (Language::En, false) => {
                format!("the acceptance of {check}{subject} by {author} expired: it held until {until}")
            }
            (Language::Zh, true) => format!("对 {check}{subject} 的接受已过期：有效期至 {until}"),
            (Language::Zh, false) => format!("{author} 对 {check}{subject} 的接受已过期：有效期至 {until}"),
        }
    };
    report.expired.iter().map(line).collect()
}

/// Text that is safe within HTML and XML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // XML has no way to write other control characters, and these two.
            '\u{FFFE}' | '\u{FFFF}' => escaped.push('\u{FFFD}'),
            other if misleads(other) && !matches!(other, '\n' | '\t') => escaped.push('\u{FFFD}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Where a finding is: the file and line, or the object.
fn whereabouts(finding: &Finding) -> String {
    match &finding.place {
        Some(place) if finding.subject.kind == "File" => format!("{}:{}", place.file, place.line),
        Some(place) => format!("{} ({}:{})", finding.subject, place.file, place.line),
        None => finding.subject.to_string(),
    }
}

#[cfg(test)]
mod tests;
