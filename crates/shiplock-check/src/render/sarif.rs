//! SARIF 2.1.0, as code scanners read it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use shiplock_core::language::Language;

use crate::catalogue;
use crate::report::{Outcome, Report};

/// The report as SARIF.
pub fn sarif(report: &Report, version: &str, language: Language) -> Value {
    let ids: BTreeSet<&str> = report.findings.iter().map(|finding| finding.check.as_str()).collect();
    let rules: Vec<Value> = ids
        .iter()
        .filter_map(|id| catalogue::find(id))
        .map(|check| {
            json!({
                "id": check.id,
                "name": check.name,
                "shortDescription": { "text": language.pick(check.title[0], check.title[1]) },
                "fullDescription": { "text": language.pick(check.why[0], check.why[1]) },
                "helpUri": format!("https://github.com/shiplock/shiplock/blob/main/docs/checks/{}.md", check.id),
            })
        })
        .collect();
    let results: Vec<Value> = report
        .findings
        .iter()
        .map(|finding| {
            let level = match finding.outcome {
                Outcome::Fail | Outcome::Unknown => "error",
                Outcome::Warn => "warning",
                Outcome::Pass | Outcome::Skipped => "note",
            };
            let message = format!("{}: {} → {}", finding.subject, finding.text(language), finding.fix(language));
            let mut location = json!({ "logicalLocations": [{ "fullyQualifiedName": finding.subject.to_string() }] });
            if let Some(place) = &finding.place {
                location["physicalLocation"] = json!({
                    "artifactLocation": { "uri": uri(&place.file) },
                    "region": { "startLine": place.line },
                });
            }
            let mut result = json!({
                "ruleId": finding.check,
                "level": level,
                "message": { "text": message },
                "locations": [location],
                "partialFingerprints": { "shiplock/v1": finding.key() },
            });
            if let Some(reason) = &finding.accepted {
                result["suppressions"] = json!([{ "kind": "external", "justification": reason }]);
            }
            result
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "shiplock", "version": version, "rules": rules } },
            "results": results,
        }],
    })
}

/// A path as a relative or absolute reference.
fn uri(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    if escaped.starts_with('/') { format!("file://{escaped}") } else { escaped }
}
