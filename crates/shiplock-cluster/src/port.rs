//! The port: everything that Shiplock asks of a cluster.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shiplock_check::snapshot::Snapshot;
use shiplock_core::facts::{ClusterFacts, NodeFacts, NodeOwner};
use shiplock_core::id::{NodeName, ObjectUid, UpgradeId};
use shiplock_core::plan::NewApiObjects;
use shiplock_core::problem::Problem;
use shiplock_core::version::MinorVersion;

use crate::collect::Collection;

/// A cluster that can be read and, with fences, changed.
///
/// Every method makes one bounded attempt: it does not retry, so that each retry is visible to the driver.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// The cluster as it is, from caches that watches keep fresh, or an error when they are not fresh.
    async fn facts(&self) -> Result<ClusterFacts, Problem>;

    /// The same, with what no watch tells asked for now: the versions of the API servers, which [`Cluster::facts`] may
    /// give up to ten seconds late. For decisions that are made once, such as a plan.
    async fn facts_anew(&self) -> Result<ClusterFacts, Problem> {
        self.facts().await
    }

    /// Returns when the facts have changed since the last call, at the latest after some seconds.
    async fn changed(&self);

    /// One node, read from the API server now; none when it is not there.
    async fn node(&self, node: &NodeName) -> Result<Option<NodeFacts>, Problem>;

    /// Marks a node unschedulable and ours, by a JSON patch that tests its UID and that nobody else owns it.
    /// A node that is unschedulable without being ours is left as it is.
    async fn cordon(&self, node: &NodeName, uid: &ObjectUid, owner: &NodeOwner) -> Result<Cordon, Problem>;

    /// Takes our mark and, with it, our cordon off. A node that is not ours is left as it is.
    async fn uncordon(&self, node: &NodeName, uid: &ObjectUid, owner: &NodeOwner) -> Result<Uncordon, Problem>;

    /// The pods on a node, read from the API server now, finished ones left out.
    async fn pods_on(&self, node: &NodeName) -> Result<Vec<DrainPod>, Problem>;

    /// Asks for the eviction of a pod, with its UID as precondition.
    async fn evict(&self, pod: &DrainPod) -> Result<Eviction, Problem>;

    /// Deletes a pod, budgets notwithstanding, with its UID as precondition. Only where the operator chose force.
    async fn delete_pod(&self, pod: &DrainPod) -> Result<Eviction, Problem>;

    /// Whether a budget (`namespace/name`) allows a disruption now, as far as caches tell; none where they do not.
    /// Only a hint when to ask again: the API server decides.
    fn budget_allows(&self, budget: &str) -> Option<bool> {
        let _ = budget;
        None
    }

    /// A node as far as caches tell; none where they do not. It may be some moments old: what acts on the node itself
    /// carries its UID and our mark as preconditions.
    fn seen_node(&self, node: &NodeName) -> Option<NodeFacts> {
        let _ = node;
        None
    }

    /// Writes or refreshes the Lease `kube-upgrade/shiplock`, which tells other installations that this upgrade is
    /// at work here, and how far its log is.
    async fn claim(&self, claim: &Claim) -> Result<ClaimOutcome, Problem>;

    /// Takes the claim of an upgrade off the Lease.
    async fn release(&self, upgrade: &UpgradeId) -> Result<(), Problem>;

    /// The objects of APIs that an older minor does not serve, with counts and the first names. What cannot be read is
    /// an error.
    async fn objects_of_new_apis(&self, old: MinorVersion) -> Result<Vec<NewApiObjects>, Problem>;

    /// Everything that the pre-check reads of the cluster; none where there is nothing to read besides its facts.
    async fn precheck(&self, collection: &Collection<'_>) -> Result<Option<Snapshot>, Problem> {
        let _ = collection;
        Ok(None)
    }

    /// Ends the watches and drops what they hold, until facts are asked for again. One without watches has none to end.
    fn rest(&self) {}
}

/// How a cordon came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cordon {
    /// It is unschedulable and ours now.
    Done,
    /// It was ours already (an earlier attempt, or an earlier epoch, which is replaced by this one).
    AlreadyOurs,
    /// Somebody else had cordoned it; it stays theirs.
    CordonedByOthers,
    /// Another upgrade owns it.
    OwnedByAnotherUpgrade,
    /// The node is gone or another one has its name.
    NodeGone,
}

/// How an uncordon came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uncordon {
    /// Our cordon and mark are gone.
    Done,
    /// It was not ours; nothing was changed.
    NotOurs,
    /// The node is gone or another one has its name.
    NodeGone,
}

/// A pod on a node that is to be emptied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainPod {
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// `metadata.uid`.
    pub uid: ObjectUid,
    /// The top controller, as `Deployment web`, resolved through ReplicaSets.
    pub owner: Option<String>,
    /// A static pod's mirror: only its kubelet ends it.
    pub is_mirror: bool,
    /// A DaemonSet's pod: it would come back at once.
    pub is_daemon: bool,
    /// It tolerates a cordoned node and may be bound to it again.
    pub tolerates_unschedulable: bool,
    /// It was told to end.
    pub is_terminating: bool,
    /// `spec.terminationGracePeriodSeconds`.
    pub grace_seconds: i64,
    /// The budgets that select it, as `namespace/name`.
    pub budgets: Vec<String>,
    /// When an eviction of it was admitted that its budget still remembers: the newest of `status.disruptedPods`. While it
    /// is not told to end that eviction broke off, for example since whoever asked for it ended.
    pub admitted_at: Option<Timestamp>,
}

impl DrainPod {
    /// `namespace/name`.
    pub fn label(&self) -> String {
        [&*self.namespace, "/", &self.name].concat()
    }

    /// Its top controller with its namespace, as `Deployment shop/web`.
    pub fn workload(&self) -> Option<String> {
        let (kind, name) = self.owner.as_ref()?.split_once(' ')?;
        Some([kind, " ", &self.namespace, "/", name].concat())
    }
}

/// How an eviction came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// The pod was told to end.
    Accepted,
    /// The pod is gone, or another one has its name.
    Gone,
    /// A PodDisruptionBudget allows no disruption now (429).
    RefusedByBudget,
    /// It is refused for another reason; trying again may help.
    Refused(Problem),
}

/// Who upgrades a cluster and how far the log is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Names the installation (one store), not the process.
    pub installation: String,
    /// The upgrade.
    pub upgrade: UpgradeId,
    /// The number of the newest event in the store.
    pub event_number: u64,
    /// The mark of that event, see [`shiplock_core::upgrade::EventRecord::mark`]; none where it is not known.
    pub event_mark: Option<String>,
    /// An event of the store, by number and mark, that the cluster has been told of before: asked for by
    /// [`ClaimOutcome::Prove`].
    pub proof: Option<(u64, String)>,
    /// An upgrade that the store knows as ended, whatever the cluster was told: asked for by
    /// [`ClaimOutcome::Unfinished`].
    pub ended: Option<UpgradeId>,
}

/// How a claim came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimOutcome {
    /// The cluster is ours for this upgrade.
    Ours,
    /// Another installation's upgrade is at work here.
    HeldByOther {
        /// That installation.
        installation: String,
        /// Its upgrade.
        upgrade: UpgradeId,
        /// Since when it holds the Lease, at the latest.
        since: Timestamp,
    },
    /// The cluster has seen another upgrade of this installation that did not end: claim again if the store knows that it
    /// did. A store that does not know it is an older copy.
    Unfinished {
        /// That upgrade.
        upgrade: UpgradeId,
        /// The newest event of it that the cluster has seen.
        event_number: u64,
    },
    /// The cluster has seen this event of the upgrade: claim again with its mark in the store as the proof that the
    /// store holds the same.
    Prove {
        /// Its number.
        event_number: u64,
    },
    /// The cluster has seen a later event of this upgrade than the store holds, or another one of the same number: the
    /// store is an older copy.
    StoreOlder {
        /// The newest event that the cluster has seen.
        cluster_event: u64,
    },
}
