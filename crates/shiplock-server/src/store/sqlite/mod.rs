//! The store in one SQLite file.
//!
//! - [`mod@file`]: the file, its lock, its schema and the connections.
//! - [`log`]: upgrades and their events. [`lease`]: who drives.
//! - [`registry`]: settings, clusters, plans, tokens, agents.
//!
//! There is one connection for writing; every compare-and-swap is a `BEGIN IMMEDIATE` on it, so that writers queue
//! in order and none ever reads what another is about to change. Readers have connections of their own and are never
//! held up. A commit is on disk before it is answered (`synchronous=FULL`).
//!
//! Where PostgreSQL will differ, since the statements are kept plain otherwise:
//! - It has many writers: each change must first lock the rows that it decides on (`SELECT … FOR UPDATE` on the
//!   upgrade or cluster; where a change decides on many, always in the order of their ids). The counter of positions is a row and no sequence on purpose: its row lock, held until the
//!   commit, makes positions become visible in order, so that a reader that resumes loses nothing.
//! - Two writers may both find nothing and both insert: a violated unique index is then the refusal.
//! - `STRICT`, `BLOB` and `INTEGER` are `BYTEA` and `BIGINT` there; texts that are compared or sorted need
//!   `COLLATE "C"`.
//! - The lock file and the migrations' directory are SQLite's alone.

mod check;
mod file;
mod lease;
mod log;
mod registry;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::path::Path;

use async_trait::async_trait;
use jiff::Timestamp;
use shiplock_core::id::{ClusterName, Epoch, NodeName, PlanId, UpgradeId};
use shiplock_core::plan::Plan;
use shiplock_core::problem::Problem;
use shiplock_core::upgrade::{Event, EventRecord};

use self::file::Database;
use super::rule::Author;
use super::{
    AcceptanceRecord, AgentRecord, ClusterRecord, Lease, LeaseTaken, LeaseWanted, NewUpgrade, ReportRecord, Store,
    StoreError, UpgradeFilter, UpgradeLog, UpgradeRow,
};

/// A store in one SQLite file.
#[derive(Debug)]
pub struct SqliteStore {
    database: Database,
}

impl SqliteStore {
    /// Opens the file, or makes it. Refused while another store has it open, here or in another process (UPG0601),
    /// and when a newer version wrote it (UPG0603).
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::open(path).await.map_err(|fault| fault.during("open its file"))?;
        Ok(Self { database })
    }

    /// Ends all work on the file and lets it go. Without it nothing is lost; only the write-ahead log stays beside
    /// the file until it is opened again.
    pub async fn close(self) {
        self.database.close().await;
    }
}

/// Why something could not be done, before it is known what it was.
#[derive(Debug)]
enum Fault {
    /// An answer for the caller.
    Store(StoreError),
    /// The database failed, or what it holds cannot be read.
    Broken(Box<dyn Error + Send + Sync>),
}

impl Fault {
    fn broken(why: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Broken(why.into())
    }

    fn during(self, operation: &'static str) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Broken(source) => StoreError::Failed { operation, source },
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
impl From<Problem> for Fault {
    fn from(problem: Problem) -> Self {
        Self::Store(problem.into())
    }
}

macro_rules! broken_by {
    ($($error:ty),*) => {$(
        impl From<$error> for Fault {
            fn from(error: $error) -> Self { Self::broken(error) }
        }
    )*};
}
broken_by!(
    sqlx::Error,
    sqlx::migrate::MigrateError,
    serde_json::Error,
    jiff::Error,
    std::num::TryFromIntError,
    std::io::Error
);

/// A time as it is stored: of a fixed width, so that texts sort as times do.
fn stored_time(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// A number as it is stored. One beyond what is stored is beyond every row as well.
fn stored_number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[async_trait]
impl Store for SqliteStore {
    async fn setting(&self, key: &str, value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        registry::setting(&self.database, key, value).await.map_err(|fault| fault.during("keep a setting"))
    }

    async fn add_cluster(&self, cluster: &ClusterRecord) -> Result<(), StoreError> {
        registry::add_cluster(&self.database, cluster).await.map_err(|fault| fault.during("register a cluster"))
    }

    async fn change_cluster(&self, cluster: &ClusterRecord) -> Result<(), StoreError> {
        registry::change_cluster(&self.database, cluster).await.map_err(|fault| fault.during("change a cluster"))
    }

    async fn clusters(&self) -> Result<Vec<ClusterRecord>, StoreError> {
        registry::clusters(&self.database).await.map_err(|fault| fault.during("list clusters"))
    }

    async fn cluster(&self, name: &ClusterName) -> Result<Option<ClusterRecord>, StoreError> {
        registry::cluster(&self.database, name).await.map_err(|fault| fault.during("read a cluster"))
    }

    async fn remove_cluster(&self, name: &ClusterName) -> Result<(), StoreError> {
        registry::remove_cluster(&self.database, name).await.map_err(|fault| fault.during("remove a cluster"))
    }

    async fn add_plan(&self, plan: &Plan) -> Result<(), StoreError> {
        registry::add_plan(&self.database, plan).await.map_err(|fault| fault.during("keep a plan"))
    }

    async fn plan(&self, id: &PlanId) -> Result<Option<Plan>, StoreError> {
        registry::plan(&self.database, id).await.map_err(|fault| fault.during("read a plan"))
    }

    async fn create_upgrade(&self, new: &NewUpgrade) -> Result<EventRecord, StoreError> {
        log::create_upgrade(&self.database, new).await.map_err(|fault| fault.during("create an upgrade"))
    }

    async fn upgrades(&self, filter: &UpgradeFilter) -> Result<Vec<UpgradeRow>, StoreError> {
        log::upgrades(&self.database, filter).await.map_err(|fault| fault.during("list upgrades"))
    }

    async fn upgrade(&self, id: &UpgradeId) -> Result<Option<UpgradeRow>, StoreError> {
        log::upgrade(&self.database, id).await.map_err(|fault| fault.during("read an upgrade"))
    }

    async fn events(&self, upgrade: &UpgradeId, after: u64, limit: u32) -> Result<Vec<EventRecord>, StoreError> {
        log::events(&self.database, upgrade, after, limit).await.map_err(|fault| fault.during("read a log"))
    }

    async fn events_since(&self, after: u64, limit: u32) -> Result<Vec<EventRecord>, StoreError> {
        log::events_since(&self.database, after, limit).await.map_err(|fault| fault.during("read the feed"))
    }

    async fn active_logs(&self) -> Result<Vec<UpgradeLog>, StoreError> {
        log::active_logs(&self.database).await.map_err(|fault| fault.during("read the active logs"))
    }

    async fn append_request(
        &self,
        upgrade: &UpgradeId,
        expected_len: u64,
        now: Timestamp,
        events: &[Event],
    ) -> Result<Vec<EventRecord>, StoreError> {
        let appended = log::append(&self.database, upgrade, Author::Person, expected_len, now, events).await;
        appended.map_err(|fault| fault.during("append a request"))
    }

    async fn append(
        &self,
        upgrade: &UpgradeId,
        expected_len: u64,
        epoch: Epoch,
        now: Timestamp,
        events: &[Event],
    ) -> Result<Vec<EventRecord>, StoreError> {
        let appended = log::append(&self.database, upgrade, Author::Driver(epoch), expected_len, now, events).await;
        appended.map_err(|fault| fault.during("append to a log"))
    }

    async fn take_leases(
        &self,
        wanted: &[LeaseWanted],
        holder: &str,
        now: Timestamp,
        seconds: u32,
    ) -> Result<Vec<Option<LeaseTaken>>, StoreError> {
        let taken = lease::take(&self.database, wanted, holder, now, seconds).await;
        taken.map_err(|fault| fault.during("take leases"))
    }

    async fn renew_leases(
        &self,
        held: &[(UpgradeId, Epoch)],
        now: Timestamp,
        seconds: u32,
    ) -> Result<Vec<Result<Lease, StoreError>>, StoreError> {
        let renewed = lease::renew(&self.database, held, now, seconds).await;
        renewed.map_err(|fault| fault.during("renew leases"))
    }

    async fn release_lease(&self, upgrade: &UpgradeId, epoch: Epoch) -> Result<(), StoreError> {
        lease::release(&self.database, upgrade, epoch).await.map_err(|fault| fault.during("give a lease back"))
    }

    async fn lease(&self, upgrade: &UpgradeId) -> Result<Option<Lease>, StoreError> {
        lease::read(&self.database, upgrade).await.map_err(|fault| fault.during("read a lease"))
    }

    async fn add_join_token(&self, hash: &str, cluster: &ClusterName, expires_at: Timestamp) -> Result<(), StoreError> {
        let added = registry::add_join_token(&self.database, hash, cluster, expires_at).await;
        added.map_err(|fault| fault.during("keep a join token"))
    }

    async fn join_token(&self, hash: &str, now: Timestamp) -> Result<Option<ClusterName>, StoreError> {
        registry::join_token(&self.database, hash, now).await.map_err(|fault| fault.during("read a join token"))
    }

    async fn use_join_token(&self, hash: &str, now: Timestamp) -> Result<Option<ClusterName>, StoreError> {
        registry::use_join_token(&self.database, hash, now).await.map_err(|fault| fault.during("use a join token"))
    }

    async fn put_agent(&self, agent: &AgentRecord) -> Result<(), StoreError> {
        registry::put_agent(&self.database, agent).await.map_err(|fault| fault.during("keep an agent"))
    }

    async fn remove_agent(&self, cluster: &ClusterName, node: &NodeName) -> Result<bool, StoreError> {
        registry::remove_agent(&self.database, cluster, node).await.map_err(|fault| fault.during("forget an agent"))
    }

    async fn agents(&self, cluster: &ClusterName) -> Result<Vec<AgentRecord>, StoreError> {
        registry::agents(&self.database, cluster).await.map_err(|fault| fault.during("list agents"))
    }

    async fn add_report(&self, report: &ReportRecord) -> Result<(), StoreError> {
        check::add_report(&self.database, report).await.map_err(|fault| fault.during("keep a report"))
    }

    async fn reports(&self, cluster: &ClusterName) -> Result<Vec<ReportRecord>, StoreError> {
        check::reports(&self.database, cluster).await.map_err(|fault| fault.during("list reports"))
    }

    async fn report(&self, id: &str) -> Result<Option<ReportRecord>, StoreError> {
        check::report(&self.database, id).await.map_err(|fault| fault.during("read a report"))
    }

    async fn add_acceptance(&self, acceptance: &AcceptanceRecord) -> Result<(), StoreError> {
        check::add_acceptance(&self.database, acceptance).await.map_err(|fault| fault.during("keep an acceptance"))
    }

    async fn acceptances(&self, cluster: &ClusterName) -> Result<Vec<AcceptanceRecord>, StoreError> {
        check::acceptances(&self.database, cluster).await.map_err(|fault| fault.during("list acceptances"))
    }

    async fn remove_acceptance(&self, cluster: &ClusterName, id: &str) -> Result<bool, StoreError> {
        let removed = check::remove_acceptance(&self.database, cluster, id).await;
        removed.map_err(|fault| fault.during("remove an acceptance"))
    }
}
