//! What whoever drives an upgrade must be allowed in the cluster.

use serde::{Deserialize, Serialize};

use super::Look;
use crate::report::{Finding, Outcome, Subject};
use crate::snapshot::Read;

/// Something that an upgrade does in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    /// The verb.
    pub verb: &'static str,
    /// The group; empty for the core group.
    pub group: &'static str,
    /// The plural name in paths.
    pub resource: &'static str,
    /// The part of an object, such as `eviction`; empty for the whole.
    pub subresource: &'static str,
    /// The namespace; empty for all.
    pub namespace: &'static str,
    /// Whether an upgrade can go without it, unless its plan says otherwise.
    pub is_spared: bool,
}

const fn act(verb: &'static str, group: &'static str, resource: &'static str) -> Act {
    Act { verb, group, resource, subresource: "", namespace: "", is_spared: false }
}

/// What an upgrade does in the cluster, besides the lists that the checks themselves read.
pub const ACTS: [Act; 9] = [
    act("watch", "", "nodes"),
    act("patch", "", "nodes"),
    act("watch", "", "pods"),
    Act { subresource: "eviction", ..act("create", "", "pods") },
    // Only drains with --on-drain-timeout force delete.
    Act { is_spared: true, ..act("delete", "", "pods") },
    act("watch", "policy", "poddisruptionbudgets"),
    Act { namespace: "kube-upgrade", ..act("create", "coordination.k8s.io", "leases") },
    Act { namespace: "kube-upgrade", ..act("get", "coordination.k8s.io", "leases") },
    Act { namespace: "kube-upgrade", ..act("update", "coordination.k8s.io", "leases") },
];

/// The name of the Lease that is asked about.
pub const LEASE: &str = "shiplock";

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.subresource.is_empty() {
            write!(f, "/{}", self.subresource)?;
        }
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if !self.namespace.is_empty() {
            write!(f, " in {}", self.namespace)?;
        }
        Ok(())
    }
}

/// Whether an act is allowed, as the API server says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Permission {
    /// The act, as people read it.
    pub act: String,
    /// Whether an upgrade can go without it.
    pub is_spared: bool,
    /// The answer.
    pub allowed: Read<bool>,
}

pub(super) fn judge(look: &mut Look<'_>) {
    let snapshot = look.snapshot;
    for permission in &snapshot.permissions {
        match permission.allowed.judged() {
            Some(Ok(false)) => {
                let (sentence, outcome) =
                    if permission.is_spared { ("spared", Outcome::Warn) } else { ("missing", Outcome::Fail) };
                let finding =
                    Finding::new("RUN-003", sentence, outcome, Subject::new("Permission", "", &permission.act));
                look.say(finding.with("act", &permission.act));
            }
            Some(Err(why)) => {
                let subject = Subject::new("Permission", "", &permission.act);
                look.say(Finding { subject, ..Finding::unknown("RUN-003", why) });
            }
            Some(Ok(true)) | None => {}
        }
    }
}
