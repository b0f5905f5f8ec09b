//! JUnit's XML, as CI systems read it: one test case for each check that ran.

use std::fmt::Write as _;

use shiplock_core::language::Language;

use super::{escape, left_out, whereabouts};
use crate::catalogue;
use crate::report::{Finding, Outcome, Report};

/// The report as JUnit XML. What blocks is a failure, which warnings are too where `blocks_on` says so; what is unknown is
/// an error; other warnings are told in the output.
pub fn junit(report: &Report, blocks_on: Outcome, language: Language) -> String {
    let outcome_of = |finding: &Finding| match finding.outcome {
        Outcome::Warn if blocks_on == Outcome::Warn => Outcome::Fail,
        outcome => outcome,
    };
    let is = |outcome: Outcome| {
        move |id: &&String| {
            report.findings.iter().any(|found| found.check == **id && outcome_of(found) == outcome && found.counts())
        }
    };
    let failures = report.ran.iter().filter(is(Outcome::Fail)).count();
    let errors = report.ran.iter().filter(is(Outcome::Unknown)).filter(|id| !is(Outcome::Fail)(id)).count();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"shiplock check {}\" tests=\"{}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{}\">\n",
        report.target,
        report.ran.len() + report.skipped.len(),
        report.skipped.len()
    );
    let folders = left_out::folders(report);
    if folders > 0 {
        let _ = writeln!(text, "<properties><property name=\"folders_left_out\" value=\"{folders}\"/></properties>");
    }
    let title = |id: &str| catalogue::find(id).map_or("", |check| language.pick(check.title[0], check.title[1]));
    for id in &report.ran {
        let found: Vec<&Finding> = report.findings.iter().filter(|finding| finding.check == *id).collect();
        let _ = write!(text, "<testcase classname=\"{}\" name=\"{id} {}\">", escape(id), escape(title(id)));
        let lines = |outcome: Outcome| -> String {
            let of_it = found.iter().filter(|finding| outcome_of(finding) == outcome && finding.counts());
            of_it
                .map(|one| format!("{}: {}\n→ {}\n", whereabouts(one), one.text(language), one.fix(language)))
                .collect()
        };
        let (failed, unknown, warned) = (lines(Outcome::Fail), lines(Outcome::Unknown), lines(Outcome::Warn));
        if !failed.is_empty() {
            let _ = write!(text, "<failure message=\"{}\">{}</failure>", escape(title(id)), escape(&failed));
        } else if !unknown.is_empty() {
            let _ = write!(text, "<error message=\"{}\">{}</error>", escape(title(id)), escape(&unknown));
        }
        if !warned.is_empty() {
            let _ = write!(text, "<system-out>{}</system-out>", escape(&warned));
        }
        text.push_str("</testcase>\n");
    }
    for (id, reason) in &report.skipped {
        let _ = writeln!(
            text,
            "<testcase classname=\"{}\" name=\"{} {}\"><skipped message=\"{}\"/></testcase>",
            escape(id),
            escape(id),
            escape(title(id)),
            escape(reason)
        );
    }
    text + "</testsuite>\n</testsuites>\n"
}
