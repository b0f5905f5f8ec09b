//! Custom resources.

use super::{Look, of};
use crate::report::{Finding, Outcome};

pub(super) fn judge(look: &mut Look<'_>) {
    let objects = look.objects;
    let checks = ["ADD-003", "ADD-004", "ADD-005", "ADD-006"];
    for definition in look.need(&objects.definitions, &checks).into_iter().flatten() {
        let subject = || of("CustomResourceDefinition", &definition.metadata);
        let versions = &definition.spec.versions;
        // The version of definitions that bears no schema without structure goes away.
        let is_crossed = look.question.target.minor >= 22 && look.question.current.is_some_and(|now| now.minor < 22);
        let unstructured = if is_crossed { Outcome::Fail } else { Outcome::Warn };
        let gone: Vec<&str> = definition
            .status
            .stored_versions
            .iter()
            .map(String::as_str)
            .filter(|stored| !versions.iter().any(|version| version.name == **stored))
            .collect();
        if !gone.is_empty() {
            look.say(Finding::new("ADD-003", "gone", Outcome::Fail, subject()).with("versions", gone.join(", ")));
        }
        let deprecated: Vec<&str> = versions
            .iter()
            .filter(|version| version.served && version.deprecated)
            .map(|version| version.name.as_str())
            .collect();
        if !deprecated.is_empty() {
            let finding = Finding::new("ADD-004", "deprecated", Outcome::Warn, subject());
            look.say(finding.with("versions", deprecated.join(", ")).with("kind", &definition.spec.names.kind));
        }
        for condition in &definition.status.conditions {
            let is = |name: &str, status: &str| condition.r#type == name && condition.status == status;
            let message: String = condition.message.chars().take(200).collect();
            if is("NonStructuralSchema", "True") {
                look.say(Finding::new("ADD-005", "schema", unstructured, subject()).with("message", message));
            } else if is("Established", "False") || is("NamesAccepted", "False") {
                look.say(Finding::new("ADD-006", "not-served", Outcome::Fail, subject()).with("message", message));
            }
        }
        if definition.spec.preserve_unknown_fields {
            let finding = Finding::new("ADD-005", "schema", unstructured, subject());
            look.say(finding.with("message", "preserveUnknownFields is true"));
        }
    }
}
