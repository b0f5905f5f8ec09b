//! One HTML file without scripts and without anything from elsewhere.

use std::fmt::Write as _;

use shiplock_core::language::Language;

use super::{escape, expired, left_out, outcome_word, sections, summary, verdict_word, whereabouts};
use crate::report::{Outcome, Report, Verdict};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem;border-bottom:1px solid #d0d7de}\
.f{margin:1rem 0;padding-left:.8rem;border-left:4px solid #d0d7de}.fail{border-color:#b42318}.warn{border-color:#9a6700}.unknown{border-color:#6639ba}\
.o{font-weight:700}code{font-size:.95em}ul{margin:.3rem 0}.x{color:#57606a}\
@media (prefers-color-scheme:dark){body{color:#e6edf3;background:#0d1117}h2{border-color:#30363d}.x{color:#9198a1}}";

/// The report as one HTML file.
pub fn html(report: &Report, language: Language) -> String {
    let title = format!(
        "{} {}: {}",
        language.pick("Check for Kubernetes", "升级预检：Kubernetes"),
        report.target,
        verdict_word(report.verdict, language)
    );
    let sign = match report.verdict {
        Verdict::Ready => "✔",
        Verdict::Blocked => "✖",
        Verdict::Undecided => "?",
    };
    let mut text = format!(
        "<!doctype html><html lang=\"{}\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{}</title><style>{STYLE}</style></head><body><h1>{sign} {}</h1><p>{}</p>\n",
        language.pick("en", "zh"),
        escape(&title),
        escape(&title),
        escape(&summary(report, language))
    );
    for line in left_out(report, language).into_iter().chain(expired(report, language)) {
        let _ = writeln!(text, "<p>{}</p>", escape(&line));
    }
    for section in sections(report, language) {
        let _ = writeln!(text, "<h2>{}</h2>", escape(section.title(language)));
        for group in section.groups {
            let first = group.first();
            let class = match first.outcome {
                Outcome::Fail => "fail",
                Outcome::Warn => "warn",
                Outcome::Unknown => "unknown",
                Outcome::Pass | Outcome::Skipped => "",
            };
            let _ = writeln!(
                text,
                "<div class=\"f {class}\"><span class=\"o\">{}</span> <code>{}</code> {}<ul>",
                outcome_word(first.outcome, language),
                escape(&group.checks.join(" ")),
                escape(&group.text)
            );
            for finding in &group.findings {
                let _ = writeln!(text, "<li>{}", escape(&whereabouts(finding)));
                for evidence in &finding.evidence {
                    let _ = write!(
                        text,
                        "<br><span class=\"x\">{} {}</span>",
                        escape(&evidence.source),
                        escape(&evidence.seen)
                    );
                }
                text.push_str("</li>");
            }
            let fix = group.fix.map_or(String::new(), |fix| format!("<p>→ {}</p>", escape(&fix)));
            let _ = writeln!(text, "</ul>{fix}</div>");
        }
    }
    text + "</body></html>\n"
}
