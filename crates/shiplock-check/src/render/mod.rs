//! Reports for programs and pages: markdown, HTML in one file, SARIF for code scanners, JUnit for CI systems.
//!
//! All come from the typed report. What people and clusters named is escaped; no form can be broken by a name.

mod html;
mod junit;
mod markdown;
mod page;
mod sarif;

use std::collections::BTreeMap;

use shiplock_core::language::{Language, misleads};

pub use self::html::html;
pub use self::junit::junit;
pub use self::markdown::markdown;
pub use self::page::{index, page};
pub use self::sarif::sarif;

use crate::catalogue::Category;
use crate::report::{Finding, Outcome, Report, Verdict};
use crate::run::Acceptance;

/// Findings that say the same of several objects.
#[derive(Debug)]
pub struct Group<'a> {
    /// The findings; at least one.
    pub findings: Vec<&'a Finding>,
    /// What they say.
    pub text: String,
    /// What to do.
    pub fix: String,
}

impl<'a> Group<'a> {
    /// The first of the findings, which stands for all.
    pub fn first(&self) -> &'a Finding {
        self.findings[0]
    }
}

/// The findings by category, and within it those together that say the same.
pub fn groups(report: &Report, language: Language) -> Vec<(Category, Vec<Group<'_>>)> {
    let mut found: Vec<(Category, Vec<Group<'_>>)> = Vec::new();
    let mut positions: BTreeMap<_, (usize, usize)> = BTreeMap::new();
    for finding in &report.findings {
        let (text, fix) = (finding.text(language), finding.fix(language));
        let key = (finding.check.clone(), finding.outcome, finding.accepted.is_some(), text.clone(), fix.clone());
        if let Some(&(category, group)) = positions.get(&key) {
            found[category].1[group].findings.push(finding);
            continue;
        }
        let category = Category::of(&finding.check);
        let at = found.iter().position(|(known, _)| *known == category).unwrap_or_else(|| {
            found.push((category, Vec::new()));
            found.len() - 1
        });
        positions.insert(key, (at, found[at].1.len()));
        found[at].1.push(Group { findings: vec![finding], text, fix });
    }
    found
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
            let accepted = if accepted > 0 { format!(", {accepted} accepted") } else { String::new() };
            format!("{blocked} blocking, {warned} {warnings}, {unknown} unknown{accepted}, {passed} checks ok")
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
