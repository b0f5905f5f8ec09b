//! Checks of everything but APIs, as pure functions over a snapshot.
//!
//! A check whose list was not seen is unknown; one whose list was not asked for says nothing. What Kubernetes itself
//! and the plan put right by themselves is no finding.

mod addon;
mod capacity;
mod compatibility;
mod components;
mod control_plane;
mod node;
mod packing;
pub mod permission;
mod policy;
pub(crate) mod quantity;
mod storage;
mod traffic;
mod version;
mod webhook;
mod workload;

use std::collections::BTreeMap;

use crate::object::{Objects, Pod, image_name, image_tag};
use crate::question::Question;
use crate::report::{Finding, Subject};
use crate::snapshot::{Read, Snapshot};

/// Ingresses, whose metadata are enough.
pub const INGRESSES: &str = "/apis/networking.k8s.io/v1/ingresses";

/// The Lease of an installation of Shiplock, which is no list.
pub const UPGRADE_LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-upgrade/leases/shiplock";

/// Which checks read which resource, by the path of its list. The collector asks for nothing else.
pub const READS: &[(&str, &[&str])] = &[
    (
        "/api/v1/nodes",
        &[
            "VER-002", "VER-003", "VER-010", "VER-012", "CP-002", "CP-003", "NODE-001", "NODE-002", "NODE-005",
            "NODE-011", "NODE-024", "NODE-025", "CAP-001", "CAP-002", "CAP-003", "CAP-005", "WL-008", "NET-001",
            "RUN-001", "WHK-007",
        ],
    ),
    (
        "/api/v1/pods",
        &[
            "VER-004", "VER-005", "VER-009", "NODE-024", "NODE-025", "CAP-001", "CAP-003", "CAP-004", "CAP-006",
            "CAP-009", "CP-004", "CP-005", "CP-012", "WL-001", "WL-002", "WL-003", "WL-005", "WL-006", "WL-008",
            "WL-009", "WL-010", "WL-011", "WL-013", "WL-014", "WL-015", "NET-003", "NET-005", "NET-007", "NET-008",
            "NET-001", "STO-001", "STO-002", "STO-003", "STO-004", "ADD-001", "ADD-002", "API-013", "API-015",
            "WHK-007",
        ],
    ),
    ("/apis/apps/v1/deployments", &["WL-004", "WL-005", "WL-006", "WL-007", "WL-008", "NET-003"]),
    ("/apis/apps/v1/statefulsets", &["WL-004", "WL-005", "WL-006", "WL-007", "WL-008", "WL-012"]),
    ("/apis/apps/v1/daemonsets", &["WL-016"]),
    ("/apis/policy/v1/poddisruptionbudgets", &["WL-001", "WL-002", "WL-003", "WL-004", "WL-008", "CAP-003"]),
    ("/api/v1/services", &["NET-001", "NET-008", "NET-009", "WL-007", "API-015"]),
    (
        "/apis/discovery.k8s.io/v1/endpointslices",
        &["NET-001", "WHK-001", "WHK-002", "WHK-003", "WHK-004", "WHK-006", "WHK-008", "WHK-012", "WHK-013"],
    ),
    ("/api/v1/namespaces", &["WL-013", "WHK-007"]),
    (
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
        &[
            "WHK-001", "WHK-002", "WHK-003", "WHK-004", "WHK-005", "WHK-006", "WHK-007", "WHK-008", "WHK-009",
            "WHK-010", "NET-001", "NET-008",
        ],
    ),
    (
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
        &[
            "WHK-001", "WHK-002", "WHK-003", "WHK-004", "WHK-005", "WHK-006", "WHK-007", "WHK-008", "WHK-009",
            "WHK-010", "NET-001", "NET-008",
        ],
    ),
    ("/apis/apiregistration.k8s.io/v1/apiservices", &["WHK-004", "WHK-005", "WHK-011", "WHK-012"]),
    (
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        &["WHK-004", "WHK-005", "WHK-013", "ADD-003", "ADD-004", "ADD-005", "ADD-006", "CP-013"],
    ),
    ("/api/v1/persistentvolumes", &["STO-001", "STO-002", "STO-003", "STO-004", "STO-007", "CAP-003"]),
    ("/api/v1/persistentvolumeclaims", &["STO-004", "STO-006", "CAP-003"]),
    ("/apis/storage.k8s.io/v1/storageclasses", &["STO-002", "STO-003"]),
    ("/apis/storage.k8s.io/v1/csidrivers", &["STO-003"]),
    ("/apis/storage.k8s.io/v1/csinodes", &["STO-004"]),
    ("/apis/storage.k8s.io/v1/volumeattachments", &["STO-005"]),
    ("/apis/certificates.k8s.io/v1/certificatesigningrequests", &["WHK-015"]),
    ("/apis/batch/v1/jobs", &["WL-017"]),
    ("/api/v1/resourcequotas", &["CAP-010"]),
    ("/apis/networking.k8s.io/v1/networkpolicies", &["NET-008"]),
    ("/apis/networking.k8s.io/v1/servicecidrs", &["NET-009"]),
    (INGRESSES, &["API-015"]),
    (UPGRADE_LEASE, &["VER-012", "NODE-001"]),
    ("/api/v1/namespaces/kube-system/events", &["CP-014"]),
    ("/apis/metrics.k8s.io/v1beta1/nodes", &["CAP-001"]),
    ("/apis/operators.coreos.com/v2/operatorconditions", &["ADD-007"]),
    ("/apis/config.openshift.io/v1/clusteroperators", &["ADD-007"]),
    ("/api/v1/namespaces/kube-system/configmaps", &["API-012", "API-013", "NET-004", "NET-006", "NET-009"]),
];

/// The checks of APIs that read pods, and of pods only those that [`is_of_apis`] says.
pub const OF_APIS: [&str; 2] = ["API-013", "API-015"];

/// Whether a check of APIs reads this pod: a component of Kubernetes, or one with fields that lost their meaning.
pub fn is_of_apis(pod: &Pod) -> bool {
    components::may_be_component(pod) || workload::has_old_fields(pod)
}

pub(crate) use self::traffic::ready_nodes;
pub use self::version::client;

/// Judges a snapshot.
pub fn judge(snapshot: &Snapshot, question: &Question) -> Vec<Finding> {
    // To pack thousands of pods takes as long as all else that is judged: it is done beside it.
    std::thread::scope(|scope| {
        let misfits = scope.spawn(|| packing::misfits(&snapshot.objects, question.max_parallel));
        let misfits = || misfits.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        judge_beside(misfits, snapshot, question)
    })
}

fn judge_beside(
    misfits: impl FnOnce() -> Option<Vec<packing::Misfit>>,
    snapshot: &Snapshot,
    question: &Question,
) -> Vec<Finding> {
    let mut look = Look { snapshot, objects: &snapshot.objects, question, findings: Vec::new() };
    version::judge(&mut look);
    node::judge(&mut look);
    workload::judge(&mut look);
    traffic::judge(&mut look);
    webhook::judge(&mut look);
    addon::judge(&mut look);
    components::judge(&mut look);
    control_plane::judge(&mut look);
    capacity::judge(&mut look, misfits);
    storage::judge(&mut look);
    compatibility::judge(&mut look);
    permission::judge(&mut look);
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

    /// A check that has nothing to look at here by design, with the reason.
    fn skip(&mut self, check: &'static str, reason: &str) {
        self.findings.push(Finding::skipped(check, reason));
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
        // A static pod is owned by its node, which says nothing of which one it is.
        Some(owner) if owner.kind != "Node" => Subject::new(&owner.kind, &pod.metadata.namespace, &owner.name),
        _ => of("Pod", &pod.metadata),
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

#[cfg(test)]
mod tests;
