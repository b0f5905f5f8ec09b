//! Markdown, for tickets and summaries of CI systems.

use std::fmt::Write as _;

use shiplock_core::language::{Language, misleads};

use super::{expired, left_out, outcome_word, sections, summary, verdict_word, whereabouts};
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
    for line in left_out(report, language).into_iter().chain(expired(report, language)) {
        let _ = write!(text, "\n{}\n", inert(&line));
    }
    for section in sections(report, language) {
        let _ = write!(text, "\n## {}\n", section.title(language));
        for group in section.groups {
            let first = group.first();
            let _ = write!(
                text,
                "\n**{}** `{}` {}\n\n",
                outcome_word(first.outcome, language),
                group.checks.join("` `"),
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
            if let Some(fix) = &group.fix {
                let _ = write!(text, "\n{}: {}\n", language.pick("Fix", "处理"), inert(fix));
            }
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
