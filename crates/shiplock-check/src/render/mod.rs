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

/// How many there are of each outcome, in words.
pub fn summary(report: &Report, language: Language) -> String {
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
            // XML has no way to write other control characters.
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
