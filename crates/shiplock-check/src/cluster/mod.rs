//! Checks of everything but APIs, as pure functions over a snapshot.
//!
//! A check whose list was not seen is unknown; one whose list was not asked for says nothing. What Kubernetes itself
//! and the plan put right by themselves is no finding.

mod addon;
mod node;
mod traffic;
mod version;
mod webhook;
mod workload;

use std::collections::BTreeMap;

use crate::object::{Objects, Pod};
use crate::question::Question;
use crate::report::{Finding, Subject};
use crate::snapshot::{Read, Snapshot};

/// Which checks read which resource, by the path of its list. The collector asks for nothing else.
pub const READS: &[(&str, &[&str])] = &[
    (
        "/api/v1/nodes",
        &[
            "VER-002", "VER-003", "VER-010", "VER-012", "CP-002", "CP-003", "NODE-001", "NODE-002", "NODE-005",
            "NODE-011", "NODE-024", "NET-001", "WL-008",
        ],
    ),
    (
        "/api/v1/pods",
        &[
            "VER-004", "VER-005", "NODE-024", "NODE-025", "CAP-004", "CAP-006", "CAP-009", "WL-001", "WL-002",
            "WL-003", "WL-005", "WL-006", "WL-007", "WL-008", "WL-009", "WL-010", "WL-011", "WL-013", "WL-014",
            "NET-003", "NET-007", "STO-001", "STO-002", "STO-003", "WHK-008",
        ],
    ),
    ("/apis/apps/v1/deployments", &["WL-004", "WL-005", "WL-006", "WL-007", "WHK-008", "CAP-004"]),
    ("/apis/apps/v1/statefulsets", &["WL-004", "WL-005", "WL-006", "WL-007", "WL-012"]),
    ("/apis/apps/v1/daemonsets", &["WL-016"]),
    ("/apis/policy/v1/poddisruptionbudgets", &["WL-001", "WL-002", "WL-003", "WL-004"]),
    ("/api/v1/services", &["NET-001", "WL-007", "API-015", "WHK-008"]),
    ("/apis/discovery.k8s.io/v1/endpointslices", &["NET-001", "WHK-006", "WHK-013", "WHK-008"]),
    ("/api/v1/namespaces", &["WL-013", "WHK-007"]),
    (
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        &["WHK-003", "WHK-006", "WHK-007", "WHK-008", "WHK-009", "WHK-010"],
    ),
    (
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        &["WHK-003", "WHK-006", "WHK-007", "WHK-008", "WHK-009", "WHK-010"],
    ),
    ("/apis/apiregistration.k8s.io/v1/apiservices", &["WHK-011"]),
    (
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        &["WHK-013", "ADD-003", "ADD-004", "ADD-005", "ADD-006"],
    ),
    ("/api/v1/persistentvolumes", &["STO-001", "STO-002", "STO-003", "STO-007"]),
    ("/api/v1/persistentvolumeclaims", &["STO-006"]),
    ("/apis/storage.k8s.io/v1/storageclasses", &["STO-002", "STO-003"]),
    ("/apis/storage.k8s.io/v1/csidrivers", &["STO-003"]),
    ("/apis/storage.k8s.io/v1/volumeattachments", &["STO-005"]),
    ("/apis/certificates.k8s.io/v1/certificatesigningrequests", &["WHK-015"]),
    ("/apis/batch/v1/jobs", &["WL-017"]),
    ("/api/v1/resourcequotas", &["CAP-010"]),
];

/// Judges a snapshot.
pub fn judge(snapshot: &Snapshot, question: &Question) -> Vec<Finding> {
    let mut look = Look { snapshot, objects: &snapshot.objects, question, findings: Vec::new() };
    version::judge(&mut look);
    node::judge(&mut look);
    workload::judge(&mut look);
    traffic::judge(&mut look);
    webhook::judge(&mut look);
    addon::judge(&mut look);
    look.findings
}

/// One look at a snapshot.
struct Look<'a> {
    snapshot: &'a Snapshot,
    objects: &'a Objects,
    question: &'a Question,
    findings: Vec<Finding>,
}

impl<'a> Look<'a> {
    /// A list, for these checks; where it was not seen they are unknown.
    fn need<T>(&mut self, list: &'a Read<T>, checks: &[&'static str]) -> Option<&'a T> {
        match list {
            Read::Seen(value) => Some(value),
            Read::NotAsked => None,
            Read::NotSeen(why) => {
                for check in checks {
                    // Two lists of one check may be missing; it is unknown once.
                    if !self
                        .findings
                        .iter()
                        .any(|found| found.check == *check && found.sentence == crate::catalogue::NOT_SEEN)
                    {
                        self.findings.push(Finding::unknown(check, why));
                    }
                }
                None
            }
        }
    }

    fn say(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Seconds from a time to the snapshot.
    fn age_seconds(&self, since: Option<jiff::Timestamp>) -> i64 {
        since.map_or(0, |since| self.snapshot.taken_at.as_second() - since.as_second())
    }
}

/// The subject of an object.
fn of(kind: &str, metadata: &crate::object::Metadata) -> Subject {
    Subject::new(kind, &metadata.namespace, &metadata.name)
}

/// A pod by its controller, so that replicas are one subject.
fn owner_of(pod: &Pod) -> Subject {
    match pod.controller() {
        Some(owner) if owner.kind == "ReplicaSet" => {
            // Pods of a Deployment: its name is the ReplicaSet's without the hash.
            let name = owner.name.rsplit_once('-').map_or(owner.name.as_str(), |(name, _)| name);
            Subject::new("Deployment", &pod.metadata.namespace, name)
        }
        Some(owner) => Subject::new(&owner.kind, &pod.metadata.namespace, &owner.name),
        None => of("Pod", &pod.metadata),
    }
}

/// Pods by namespace.
fn by_namespace<'a>(pods: impl Iterator<Item = &'a Pod>) -> BTreeMap<&'a str, Vec<&'a Pod>> {
    let mut found: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        found.entry(&pod.metadata.namespace).or_default().push(pod);
    }
    found
}

/// The tag of an image: no port of a registry, no digest.
fn image_tag(image: &str) -> Option<&str> {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split_once(':').map(|(_, tag)| tag)
}

/// The last part of an image's name.
fn image_name(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split(':').next().unwrap_or(last)
}

#[cfg(test)]
mod tests;
