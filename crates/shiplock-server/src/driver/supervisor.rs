//! Finds active upgrades and keeps one driver task for each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shiplock_core::id::UpgradeId;
use shiplock_core::upgrade::{EventRecord, Policy, Waiting, WaitingOn};
use tokio::sync::{Notify, watch};

use super::shell::{Ended, drive};
use crate::clusters::Connector;
use crate::hub::AgentHub;
use crate::store::{Store, UpgradeFilter, UpgradeRow};

/// What every driver of a server shares.
#[derive(Clone, Debug)]
pub struct DriverSettings {
    /// Names this process in leases.
    pub holder: String,
    /// Names the installation in clusters.
    pub installation: String,
    /// Bounds for all upgrades.
    pub policy: Policy,
}

/// Looks for active upgrades at least this often: another server may have stopped driving one.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Upgrades listed at once.
const UPGRADES_PAGE: u32 = 500;

/// Keeps a driver for each active upgrade.
pub struct Supervisor {
    shared: Arc<Shared>,
    drivers: Mutex<HashMap<UpgradeId, Arc<Handle>>>,
    changed: Notify,
}

pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) hub: Arc<AgentHub>,
    pub(super) clusters: Arc<dyn Connector>,
    pub(super) settings: DriverSettings,
    pub(super) started_at: Instant,
    appended: watch::Sender<u64>,
}

impl Shared {
    /// Wakes whoever reads feeds.
    pub(super) fn note_appended(&self, records: &[EventRecord]) {
        if let Some(last) = records.last() {
            self.appended.send_modify(|position| *position = (*position).max(last.position));
        }
    }
}

/// What the rest of the server may see of a driver.
#[derive(Debug, Default)]
pub(super) struct Handle {
    waits: Mutex<Vec<WaitingOn>>,
    wake: Notify,
}

impl Handle {
    pub(super) fn set_waits(&self, waits: Vec<WaitingOn>) {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = waits;
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl Supervisor {
    /// A supervisor that drives nothing yet.
    pub fn new(
        store: Arc<dyn Store>,
        hub: Arc<AgentHub>,
        clusters: Arc<dyn Connector>,
        settings: DriverSettings,
    ) -> Arc<Self> {
        let shared =
            Shared { store, hub, clusters, settings, started_at: Instant::now(), appended: watch::Sender::new(0) };
        Arc::new(Self { shared: Arc::new(shared), drivers: Mutex::default(), changed: Notify::new() })
    }

    fn drivers(&self) -> MutexGuard<'_, HashMap<UpgradeId, Arc<Handle>>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drives every active upgrade for as long as it is polled.
    pub async fn run(self: &Arc<Self>) {
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            match self.active().await {
                Ok(rows) => {
                    for row in rows {
                        self.start(&mut tasks, row);
                    }
                }
                Err(error) => tracing::error!(%error, "active upgrades cannot be listed"),
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    async fn active(&self) -> Result<Vec<UpgradeRow>, crate::store::StoreError> {
        let mut rows: Vec<UpgradeRow> = Vec::new();
        loop {
            let after = rows.last().map(|row| row.id.clone());
            let filter = UpgradeFilter { cluster: None, active: true, after, limit: UPGRADES_PAGE };
            let page = self.shared.store.upgrades(&filter).await?;
            let full = page.len() == UPGRADES_PAGE as usize;
            rows.extend(page);
            if !full {
                return Ok(rows);
            }
        }
    }

    fn start(self: &Arc<Self>, tasks: &mut tokio::task::JoinSet<()>, row: UpgradeRow) {
        let handle = {
            let mut drivers = self.drivers();
            if drivers.contains_key(&row.id) {
                return;
            }
            let handle = Arc::new(Handle::default());
            drivers.insert(row.id.clone(), handle.clone());
            handle
        };
        let supervisor = self.clone();
        tasks.spawn(async move {
            let guard = DriverGuard { supervisor: &supervisor, id: &row.id };
            match drive(&supervisor.shared, &handle, &row.id, &row.cluster).await {
                Ended::Finished => {}
                // The lease of another server is looked at again after a while.
                Ended::Later => tokio::time::sleep(LOOK_AGAIN / 2).await,
                Ended::Unreadable(problem) => {
                    tracing::error!(upgrade = %row.id, %problem, "the log cannot be read; the upgrade stays as it is");
                    let wait = WaitingOn::new(Waiting::Gate { problem }, jiff::Timestamp::now());
                    handle.set_waits(vec![wait]);
                    // Only another version of the server helps; the task keeps the place so that it is shown.
                    std::future::pending::<()>().await;
                }
            }
            drop(guard);
        });
    }

    /// Looks at an upgrade at once: a request was appended to it, or it was created.
    pub fn wake(&self, upgrade: &UpgradeId) {
        if let Some(handle) = self.drivers().get(upgrade) {
            handle.wake.notify_one();
        }
        self.changed.notify_one();
    }

    /// Tells readers of feeds that something was appended by a request.
    pub fn note_appended(&self, records: &[EventRecord]) {
        self.shared.note_appended(records);
    }

    /// Why an upgrade does not move now.
    pub fn waiting_on(&self, upgrade: &UpgradeId) -> Vec<WaitingOn> {
        let waits = |handle: &Arc<Handle>| handle.waits.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.drivers().get(upgrade).map(waits).unwrap_or_default()
    }

    /// The position of the newest event that this process appended; changes wake readers of feeds.
    pub fn appended(&self) -> watch::Receiver<u64> {
        self.shared.appended.subscribe()
    }
}

/// Gives the place of a driver free, whatever ended it.
struct DriverGuard<'a> {
    supervisor: &'a Supervisor,
    id: &'a UpgradeId,
}

impl Drop for DriverGuard<'_> {
    fn drop(&mut self) {
        self.supervisor.drivers().remove(self.id);
    }
}
