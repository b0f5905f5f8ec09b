//! Markdown, for tickets and summaries of CI systems.

use std::fmt::Write as _;

use shiplock_core::language::{Language, misleads};

use super::{expired, groups, outcome_word, summary, verdict_word, whereabouts};
use crate::report::Report;

/// Groups show so many objects each; the rest is counted.
const SHOWN_MAX: usize = 20;

/// The report as Markdown.
pub fn markdown(report: &Report, language: Language) -> String {
    let mut text = format!(
        "# {} {}: {}\n\n{}\n",
        language.pick("Check for Kubernetes", "升级预检：Kubernetes"),
        report.target,
        verdict_word(report.verdict, language),
        summary(report, language)
    );
    for line in expired(report, language) {
        let _ = write!(text, "\n{}\n", inert(&line));
    }
    for (category, groups) in groups(report, language) {
        let [english, chinese] = category.title();
        let _ = write!(text, "\n## {}\n", language.pick(english, chinese));
        for group in groups {
            let first = group.first();
            let _ = write!(
                text,
                "\n**{}** `{}` {}\n\n",
                outcome_word(first.outcome, language),
                first.check,
                inert(&group.text)
            );
            for finding in group.findings.iter().take(SHOWN_MAX) {
                let _ = writeln!(text, "- {}", inert(&whereabouts(finding)));
            }
            if let Some(more) = group.findings.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
                let _ = writeln!(text, "- … {} {more}", language.pick("and more:", "以及更多："));
            }
            if let Some(reason) = &first.accepted {
                let _ = write!(text, "\n{}: {}\n", language.pick("Accepted", "已接受"), inert(reason));
            }
            let _ = write!(text, "\n{}: {}\n", language.pick("Fix", "处理"), inert(&group.fix));
        }
    }
    text
}

/// Text that Markdown shows as it is.
fn inert(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\\' | '*' | '_' | '[' | ']' | '#' | '|' | '`' => escaped.extend(['\\', character]),
            '<' => escaped.push_str("&lt;"),
            other if misleads(other) => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
