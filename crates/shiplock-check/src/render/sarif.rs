//! SARIF 2.1.0, as code scanners read it.
//!
//! GitHub refuses a whole file of which one result has no physical location or a rule no help, and takes relative paths
//! alone: <https://docs.github.com/en/code-security/reference/code-scanning/sarif-files/sarif-support>. An object of a
//! cluster is in no file, so that its name stands as a path: `cluster/shop/Ingress/cart`.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use shiplock_core::language::Language;

use super::left_out;
use crate::catalogue;
use crate::report::{Finding, Outcome, Report};

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
                "help": { "text": language.pick(check.why[0], check.why[1]) },
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
            let subject = &finding.subject;
            let name = if subject.name.is_empty() { &subject.kind } else { &subject.name };
            let (path, line) = physical_place(finding);
            let location = json!({
                "physicalLocation": {
                    "artifactLocation": { "uri": uri(&path) },
                    "region": { "startLine": line },
                },
                "logicalLocations": [
                    { "name": name, "fullyQualifiedName": subject.to_string(), "kind": "resource" },
                ],
            });
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
            "properties": { "skipped": report.skipped, "folders_left_out": left_out::folders(report) },
        }],
    })
}

/// The file and line of a finding; of an object of a cluster its name as a path.
fn physical_place(finding: &Finding) -> (String, u32) {
    if let Some(place) = &finding.place {
        return (place.file.clone(), place.line.max(1));
    }
    let subject = &finding.subject;
    let parts = ["cluster", &subject.namespace, &subject.kind, &subject.name];
    (parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/"), 1)
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
