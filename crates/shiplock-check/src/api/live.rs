//! Live objects: who writes them through a version that goes away, judged over a snapshot.

use super::authorship::{Authorship, authorship};
use super::{Usage, flagged, helm, metrics};
use crate::lifecycle::{KindLifecycle, Standing, Table};
use crate::question::Question;
use crate::report::{Evidence, Finding, Outcome, Subject};
use crate::snapshot::{Read, Snapshot, WrittenKind};

/// Where the ways out are told.
const GUIDE: &str = "https://kubernetes.io/docs/reference/using-api/deprecation-guide/";

/// All that a snapshot says of APIs that go away.
pub fn judge(snapshot: &Snapshot, question: &Question) -> (Vec<Usage>, Vec<Finding>) {
    let (mut usages, mut findings) = (Vec::new(), Vec::new());
    if let Some(Err(why)) = snapshot.served.judged() {
        for check in ["API-001", "API-002", "API-003", "API-004", "API-010", "API-011"] {
            findings.push(Finding::unknown(check, why));
        }
    }
    for kind in &snapshot.written {
        match kind.objects.judged() {
            Some(Ok(objects)) => {
                for version in &kind.versions {
                    written(kind, version, objects, question, &mut usages, &mut findings);
                }
            }
            Some(Err(why)) => {
                let why = format!("{} {}: {why}", kind.group, kind.resource);
                findings
                    .push(Finding { subject: Subject::new(&kind.kind, "", ""), ..Finding::unknown("API-003", why) });
            }
            None => {}
        }
    }
    match &snapshot.releases {
        Read::Seen(releases) => {
            let (more_usages, more_findings) = helm::judge(releases, question);
            usages.extend(more_usages);
            findings.extend(more_findings);
        }
        Read::NotSeen(why) => {
            findings.extend(["API-005", "API-006"].map(|check| Finding::unknown(check, why)));
        }
        Read::NotAsked => {}
    }
    for instance in &snapshot.metrics {
        match &instance.metrics {
            Read::Seen(read) => findings.extend(metrics::judge(read, question)),
            Read::NotSeen(why) => {
                let subject = Subject::new("ApiServer", "", &instance.address);
                findings.push(Finding { subject, ..Finding::unknown("API-008", why) });
            }
            Read::NotAsked => {}
        }
    }
    (usages, findings)
}

fn written(
    kind: &WrittenKind,
    version: &str,
    objects: &[super::authorship::Written],
    question: &Question,
    usages: &mut Vec<Usage>,
    findings: &mut Vec<Finding>,
) {
    let api_version = if kind.group.is_empty() { version.to_owned() } else { format!("{}/{version}", kind.group) };
    let Some(life) = flagged(&api_version, &kind.kind, question.target) else { return };
    let is_only_version = kind.listed_through == api_version;
    if let (true, Standing::Removed { since }) = (is_only_version, life.standing(question.target)) {
        findings.extend(going_away(life, since, objects.len(), question));
        return;
    }
    for object in objects {
        let subject = || Subject::new(&kind.kind, &object.namespace, &object.name);
        match authorship(object, &api_version) {
            Authorship::Writes { manager, operation, time } => {
                let when = time.map(|time| format!(" at {time}")).unwrap_or_default();
                let seen = format!("field manager {manager} ({operation}){when}");
                let evidence = Evidence { source: "API-003".to_owned(), seen };
                usages.push(Usage { life, subject: subject(), place: None, evidence });
            }
            Authorship::OnlyAnnotation => {
                let successor = Table::shipped().successor(life, question.target);
                let successor = successor.map_or_else(|| "-".to_owned(), |found| found.api_version);
                let finding = Finding::new("API-004", "only-trace", Outcome::Warn, subject());
                findings.push(finding.with("api", format!("{api_version} {}", kind.kind)).with("successor", successor));
            }
            Authorship::Unknown => {
                let finding = Finding::new("API-003", "nobody", Outcome::Unknown, subject());
                let finding = finding.with("subject", subject()).with("resource", &kind.resource);
                findings.push(finding.with("name", &object.name).with("api", &api_version));
            }
            Authorship::Other => {}
        }
    }
}

/// Objects of a kind that has no other version now.
fn going_away(
    life: &KindLifecycle<'_>,
    since: shiplock_core::version::MinorVersion,
    count: usize,
    question: &Question,
) -> Option<Finding> {
    if count == 0 {
        return None;
    }
    let successor = Table::shipped().successor(life, question.target);
    let api = format!("{} {}", life.api_version(), life.kind);
    let subject = Subject::new(life.kind, "", "");
    let finding = match successor {
        Some(successor) => Finding::new("API-011", "objects", Outcome::Warn, subject)
            .with("successor", format!("{} {}", successor.api_version, successor.kind)),
        None if life.version.contains("alpha") => {
            Finding::new("API-011", "objects", Outcome::Warn, subject).with("successor", "-")
        }
        None => Finding::new("API-010", "objects", Outcome::Fail, subject).with("guide", GUIDE),
    };
    Some(finding.with("api", api).with("count", count).with("since", since))
}

/// Kinds whose objects must be looked at: those that are served now and that the target deprecates or removes, and
/// through which version to list them without asking for one that is deprecated.
pub fn to_list(
    served: &[crate::snapshot::ServedResource],
    current: Option<shiplock_core::version::MinorVersion>,
    target: shiplock_core::version::MinorVersion,
) -> Vec<WrittenKind> {
    let table = Table::shipped();
    let mut kinds: Vec<WrittenKind> = Vec::new();
    for one in served.iter().filter(|one| one.is_listable && one.kind != "Event") {
        let api_version =
            if one.group.is_empty() { one.version.clone() } else { format!("{}/{}", one.group, one.version) };
        let Some(life) = flagged(&api_version, &one.kind, target).filter(|life| life.removed.is_some()) else {
            continue;
        };
        if let Some(known) = kinds.iter_mut().find(|kind| kind.group == one.group && kind.resource == one.resource) {
            known.versions.push(one.version.clone());
            continue;
        }
        let is_quiet = |group: &str, version: &str, kind: &str| {
            let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
            let standing = table.find(&name, kind).map(|life| life.standing(current.unwrap_or(target)));
            standing.is_none_or(|standing| standing == Standing::Served)
        };
        let stays = |other: &&crate::snapshot::ServedResource| {
            let name = format!("{}/{}", other.group, other.version);
            other.group == one.group
                && other.resource == one.resource
                && is_quiet(&other.group, &other.version, &other.kind)
                && flagged(&name, &other.kind, target).is_none()
        };
        let successor = table.successor(life, target);
        let elsewhere = successor.filter(|found| {
            served.iter().any(|other| {
                format!("{}/{}", other.group, other.version) == found.api_version && other.kind == found.kind
            })
        });
        let listed_through = match (served.iter().find(stays), elsewhere) {
            (Some(other), _) => format!("{}/{}", other.group, other.version),
            (None, Some(found)) => found.api_version,
            // It is not deprecated now: asking for it leaves no trace that would be taken for a client's.
            (None, None) if is_quiet(&one.group, &one.version, &one.kind) => api_version,
            (None, None) => String::new(),
        };
        kinds.push(WrittenKind {
            group: one.group.clone(),
            kind: one.kind.clone(),
            resource: one.resource.clone(),
            versions: vec![one.version.clone()],
            listed_through,
            objects: Read::NotAsked,
        });
    }
    kinds
}
