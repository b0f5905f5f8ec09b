//! What is kept: the event logs of upgrades, and clusters, plans, leases and agents beside them.
//!
//! There are two ways to append. [`Store::append_request`] is for people: it needs no lease, so that a pause can
//! not be overtaken. [`Store::append`] is for the driver: it needs the epoch of the lease in force. Both compare the
//! length of the log and swap; a caller that loses folds and decides again, and never repeats the same intent.
//!
//! Lists come in pages: a limit is taken as 1 to [`PAGE_MAX`]. Times come as arguments; no store reads a clock.
//!
//! Every implementation passes the conformance suite in `conformance.rs`. An answer of success means: on disk.

#[cfg(test)]
mod conformance;
mod memory;
pub mod record;
mod rule;
#[cfg(test)]
mod sample;
mod sqlite;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shiplock_core::facts::MachineFacts;
use shiplock_core::id::{ClusterName, ClusterUid, Epoch, NodeName, PlanId, UpgradeId};
use shiplock_core::plan::Plan;
use shiplock_core::problem::Problem;
use shiplock_core::upgrade::{Event, EventRecord};

pub use self::memory::MemoryStore;
pub use self::rule::{EVENTS_PER_APPEND_MAX, LEASES_AT_ONCE_MAX, PAGE_MAX, REPORTS_KEPT};
pub use self::sqlite::SqliteStore;

/// A store. All methods are safe to call from many tasks at once.
#[async_trait]
pub trait Store: Send + Sync {
    /// A value that is made once in the life of the store (installation id, certificate authority): keeps and
    /// returns `value` when the key has none yet, else returns what is there.
    async fn setting(&self, key: &str, value: Vec<u8>) -> Result<Vec<u8>, StoreError>;

    /// Registers a cluster; refused when the name or the identity is taken.
    async fn add_cluster(&self, cluster: &ClusterRecord) -> Result<(), StoreError>;
    /// Changes address, credentials and mirror of a registered cluster; refused when it is not registered with this
    /// identity.
    async fn change_cluster(&self, cluster: &ClusterRecord) -> Result<(), StoreError>;
    /// All registered clusters by name.
    async fn clusters(&self) -> Result<Vec<ClusterRecord>, StoreError>;
    /// One registered cluster.
    async fn cluster(&self, name: &ClusterName) -> Result<Option<ClusterRecord>, StoreError>;
    /// Forgets a cluster with its agents and tokens; refused while it has an active upgrade. Logs stay.
    async fn remove_cluster(&self, name: &ClusterName) -> Result<(), StoreError>;

    /// Keeps a plan.
    async fn add_plan(&self, plan: &Plan) -> Result<(), StoreError>;
    /// One plan.
    async fn plan(&self, id: &PlanId) -> Result<Option<Plan>, StoreError>;

    /// Begins an upgrade with its first event. Refused while the cluster has an active one. The same idempotency
    /// key returns the upgrade that it made before.
    async fn create_upgrade(&self, new: &NewUpgrade) -> Result<EventRecord, StoreError>;
    /// Upgrades, newest first.
    async fn upgrades(&self, filter: &UpgradeFilter) -> Result<Vec<UpgradeRow>, StoreError>;
    /// One upgrade's row.
    async fn upgrade(&self, id: &UpgradeId) -> Result<Option<UpgradeRow>, StoreError>;

    /// Events of an upgrade with a number above `after`, in order, at most `limit`.
    async fn events(&self, upgrade: &UpgradeId, after: u64, limit: u32) -> Result<Vec<EventRecord>, StoreError>;
    /// Events of all upgrades with a position above `after`, in order, at most `limit`.
    async fn events_since(&self, after: u64, limit: u32) -> Result<Vec<EventRecord>, StoreError>;
    /// The logs of all active upgrades, newest upgrade first, for the begin of a server. One log that cannot be read
    /// does not keep the others from being read.
    async fn active_logs(&self) -> Result<Vec<UpgradeLog>, StoreError> {
        let mut logs = Vec::new();
        let mut filter = UpgradeFilter { active: true, limit: PAGE_MAX, ..UpgradeFilter::default() };
        loop {
            let rows = self.upgrades(&filter).await?;
            let Some(last) = rows.last() else { return Ok(logs) };
            filter.after = Some(last.id.clone());
            for upgrade in rows {
                let events = match rule::whole_log(self, &upgrade.id).await {
                    Ok(events) => Ok(events),
                    Err(StoreError::Refused(problem)) => Err(problem),
                    Err(error) => return Err(error),
                };
                logs.push(UpgradeLog { upgrade, events });
            }
        }
    }
    /// Appends a request by a person. `expected_len` is the length of the log that the request was made for.
    async fn append_request(
        &self,
        upgrade: &UpgradeId,
        expected_len: u64,
        now: Timestamp,
        events: &[Event],
    ) -> Result<Vec<EventRecord>, StoreError>;
    /// Appends as the holder of the lease with this epoch.
    async fn append(
        &self,
        upgrade: &UpgradeId,
        expected_len: u64,
        epoch: Epoch,
        now: Timestamp,
        events: &[Event],
    ) -> Result<Vec<EventRecord>, StoreError>;

    /// Takes the leases of upgrades, at most [`LEASES_AT_ONCE_MAX`], and records each in its log: all in one change,
    /// so that a server that begins with many upgrades waits for the disk once. Answers in the order asked.
    ///
    /// A lease is given when it is free or over and the log has the length that was folded, with an epoch higher than
    /// every one that any upgrade of the cluster ever had, and not below the time in seconds since 1970: a store that was
    /// restored from an older copy still gives higher ones than those it lost. None while another holder has it, when the upgrade has ended
    /// or when its log has moved on: fold again, then ask again.
    async fn take_leases(
        &self,
        wanted: &[LeaseWanted],
        holder: &str,
        now: Timestamp,
        seconds: u32,
    ) -> Result<Vec<Option<LeaseTaken>>, StoreError>;
    /// Makes leases last longer, at most [`LEASES_AT_ONCE_MAX`], all in one change. Answers in the order asked; one
    /// whose epoch is not in force any more does not keep the others from being renewed.
    async fn renew_leases(
        &self,
        held: &[(UpgradeId, Epoch)],
        now: Timestamp,
        seconds: u32,
    ) -> Result<Vec<Result<Lease, StoreError>>, StoreError>;
    /// Gives the lease back.
    async fn release_lease(&self, upgrade: &UpgradeId, epoch: Epoch) -> Result<(), StoreError>;
    /// The lease in force or last in force.
    async fn lease(&self, upgrade: &UpgradeId) -> Result<Option<Lease>, StoreError>;

    /// Keeps the hash of a one-time join token.
    async fn add_join_token(&self, hash: &str, cluster: &ClusterName, expires_at: Timestamp) -> Result<(), StoreError>;
    /// The cluster that a join token is for, without using it up; none when it is unknown, used or over.
    async fn join_token(&self, hash: &str, now: Timestamp) -> Result<Option<ClusterName>, StoreError>;
    /// Uses a join token up: its cluster, or none when it is unknown, used or over.
    async fn use_join_token(&self, hash: &str, now: Timestamp) -> Result<Option<ClusterName>, StoreError>;
    /// Keeps an enrolled agent, in place of an earlier one of the node.
    async fn put_agent(&self, agent: &AgentRecord) -> Result<(), StoreError>;
    /// Forgets an agent; false when there is none.
    async fn remove_agent(&self, cluster: &ClusterName, node: &NodeName) -> Result<bool, StoreError>;
    /// The agents of a cluster by node.
    async fn agents(&self, cluster: &ClusterName) -> Result<Vec<AgentRecord>, StoreError>;

    /// Keeps a report of the pre-check; of each cluster only the newest [`REPORTS_KEPT`] stay.
    async fn add_report(&self, report: &ReportRecord) -> Result<(), StoreError>;
    /// The reports of a cluster, newest first.
    async fn reports(&self, cluster: &ClusterName) -> Result<Vec<ReportRecord>, StoreError>;
    /// One report.
    async fn report(&self, id: &str) -> Result<Option<ReportRecord>, StoreError>;
    /// Keeps what lets findings of a cluster pass.
    async fn add_acceptance(&self, acceptance: &AcceptanceRecord) -> Result<(), StoreError>;
    /// What lets findings of a cluster pass, by id; also what is over.
    async fn acceptances(&self, cluster: &ClusterName) -> Result<Vec<AcceptanceRecord>, StoreError>;
    /// Takes an acceptance back. False: there is none.
    async fn remove_acceptance(&self, cluster: &ClusterName, id: &str) -> Result<bool, StoreError>;
}

/// A report of the pre-check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportRecord {
    /// Its id.
    pub id: String,
    /// Its cluster.
    pub cluster: ClusterName,
    /// When it was made.
    pub made_at: Timestamp,
    /// The report, JSON.
    pub data: String,
}

/// What lets findings of a cluster pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptanceRecord {
    /// Its id.
    pub id: String,
    /// Its cluster.
    pub cluster: ClusterName,
    /// The acceptance, JSON.
    pub data: String,
}

/// A registered cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Its name.
    pub name: ClusterName,
    /// Its identity.
    pub uid: ClusterUid,
    /// The address of the API server, for showing.
    pub server: String,
    /// The kubeconfig, sealed by the caller.
    pub sealed_kubeconfig: Vec<u8>,
    /// The artefact mirror's root.
    pub mirror: Option<String>,
    /// When it was registered.
    pub added_at: Timestamp,
}

/// A new upgrade.
#[derive(Clone, Debug)]
pub struct NewUpgrade {
    /// Its id.
    pub id: UpgradeId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// The first event.
    pub event: Event,
    /// The time.
    pub now: Timestamp,
    /// Makes a repeat harmless.
    pub idempotency_key: Option<String>,
}

/// Which upgrades to list.
#[derive(Clone, Debug, Default)]
pub struct UpgradeFilter {
    /// Only of this cluster.
    pub cluster: Option<ClusterName>,
    /// Only those that have not ended.
    pub active: bool,
    /// Only those listed after this one.
    pub after: Option<UpgradeId>,
    /// At most this many.
    pub limit: u32,
}

/// An upgrade without its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeRow {
    /// Its id.
    pub id: UpgradeId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// How many events there are.
    pub len: u64,
    /// Whether it has not ended.
    pub active: bool,
    /// When it was created.
    pub created_at: Timestamp,
}

/// An upgrade with its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeLog {
    /// The upgrade.
    pub upgrade: UpgradeRow,
    /// All its events in order, or why this version cannot read them.
    pub events: Result<Vec<EventRecord>, Problem>,
}

/// A lease to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseWanted {
    /// The upgrade.
    pub upgrade: UpgradeId,
    /// How many events of its log were folded.
    pub expected_len: u64,
}

/// A lease that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseTaken {
    /// The lease.
    pub lease: Lease,
    /// The event in the log that tells of it.
    pub record: EventRecord,
}

/// Who may drive an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The server process.
    pub holder: String,
    /// The fencing number.
    pub epoch: Epoch,
    /// When it is over unless renewed.
    pub expires_at: Timestamp,
}

/// An enrolled agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// Its cluster.
    pub cluster: ClusterName,
    /// Its node.
    pub node: NodeName,
    /// The serial number of its certificate in lower-case hexadecimal digits.
    pub serial: String,
    /// What it told when it was last recorded.
    pub machine: MachineFacts,
    /// When it was enrolled.
    pub enrolled_at: Timestamp,
}

/// Why the store did not do something.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The log has another length than expected: fold and decide again.
    #[error("the log of upgrade {upgrade} has {found} events, {expected} were expected")]
    Conflict {
        /// The upgrade.
        upgrade: UpgradeId,
        /// What the caller expected.
        expected: u64,
        /// What there is.
        found: u64,
    },
    /// The epoch is not in force any more.
    #[error("the lease of upgrade {upgrade} is held under epoch {epoch}")]
    LeaseLost {
        /// The upgrade.
        upgrade: UpgradeId,
        /// The epoch in force.
        epoch: Epoch,
    },
    /// A person's request that cannot be met, with its code.
    #[error(transparent)]
    Refused(#[from] Problem),
    /// The store itself failed; nothing was changed, or it is not known whether something was.
    #[error("the store failed to {operation}")]
    Failed {
        /// What it was asked.
        operation: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
