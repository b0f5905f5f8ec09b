//! Finds active upgrades and keeps one driver task for each.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use shiplock_core::id::{ClusterName, UpgradeId};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{EventRecord, Policy, Upgrade, Waiting, WaitingOn};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::lease::Leases;
use super::shell::{Ended, drive};
use super::takeover::{Taken, fold_on, take};
use crate::clusters::Connector;
use crate::hub::AgentHub;
use crate::precheck::Precheck;
use crate::store::{LEASES_AT_ONCE_MAX, Store, StoreError, UpgradeFilter, UpgradeLog, UpgradeRow};

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
/// One whose driver broke down is taken up again after so long.
const AFTER_BREAKDOWN: Duration = Duration::from_secs(60);
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
    pub(super) precheck: Arc<Precheck>,
    pub(super) settings: DriverSettings,
    pub(super) started_at: Instant,
    pub(super) leases: Leases,
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
        let precheck = Arc::new(Precheck::new(store.clone(), hub.clone(), clusters.clone()));
        let shared = Shared {
            store,
            hub,
            clusters,
            precheck,
            settings,
            started_at: Instant::now(),
            leases: Leases::default(),
            appended: watch::Sender::new(0),
        };
        Arc::new(Self { shared: Arc::new(shared), drivers: Mutex::default(), changed: Notify::new() })
    }

    /// The pre-check that guards every start; it is run by hand too.
    pub(crate) fn precheck(&self) -> Arc<Precheck> {
        self.shared.precheck.clone()
    }

    fn drivers(&self) -> MutexGuard<'_, HashMap<UpgradeId, Arc<Handle>>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drives every active upgrade for as long as it is polled.
    pub async fn run(self: &Arc<Self>) {
        tokio::join!(self.shared.leases.keep(&*self.shared.store), self.supervise());
    }

    async fn supervise(self: &Arc<Self>) {
        let mut tasks = JoinSet::new();
        if let Err(error) = self.take_over(&mut tasks).await {
            tracing::error!(%error, "active upgrades cannot be read");
        }
        loop {
            match self.active().await {
                Ok(rows) => {
                    for row in rows {
                        self.start(&mut tasks, row.id, row.cluster, None);
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

    /// Begins to drive all that is active, at the start of the server: each log is read once, and all leases are taken
    /// together. What cannot be taken over now is left to the next look.
    async fn take_over(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Result<(), StoreError> {
        let begun = Instant::now();
        let logs = self.shared.store.active_logs().await?;
        let (mut folded, mut driven) = (Vec::new(), 0_usize);
        for UpgradeLog { upgrade, events } in logs {
            // One that is unreadable is read again by its own driver, which says why.
            let fold = events.and_then(|events| fold_on(&upgrade.id, None, &events));
            folded.extend(fold.ok().flatten());
        }
        while !folded.is_empty() {
            let some: Vec<Upgrade> = folded.drain(..folded.len().min(LEASES_AT_ONCE_MAX)).collect();
            for taken in take(&self.shared, some).await.into_iter().flatten() {
                let upgrade = taken.machine.upgrade();
                let (id, cluster) = (upgrade.id.clone(), upgrade.plan.cluster.clone());
                driven += usize::from(self.start(tasks, id, cluster, Some(taken)));
            }
        }
        let milliseconds = begun.elapsed().as_millis();
        tracing::info!(
            upgrades = driven,
            milliseconds,
            "active upgrades were taken over: leases held, first decisions made"
        );
        Ok(())
    }

    async fn active(&self) -> Result<Vec<UpgradeRow>, StoreError> {
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

    /// Starts a driver unless there is one. Returns whether it did.
    fn start(
        self: &Arc<Self>,
        tasks: &mut JoinSet<()>,
        id: UpgradeId,
        cluster: ClusterName,
        taken: Option<Box<Taken>>,
    ) -> bool {
        let handle = {
            let mut drivers = self.drivers();
            if drivers.contains_key(&id) {
                return false;
            }
            let handle = Arc::new(Handle::default());
            if let Some(taken) = &taken {
                handle.set_waits(taken.waits.clone());
            }
            drivers.insert(id.clone(), handle.clone());
            handle
        };
        let supervisor = self.clone();
        tasks.spawn(async move {
            let guard = DriverGuard { supervisor: &supervisor, id: &id };
            let driven = AssertUnwindSafe(drive(&supervisor.shared, &handle, &id, &cluster, taken)).catch_unwind();
            match driven.await {
                Ok(Ended::Finished) => {}
                // The lease of another server is looked at again after a while.
                Ok(Ended::Later) => tokio::time::sleep(LOOK_AGAIN / 2).await,
                Err(_) => {
                    // A defect of ours: the others go on, and this one is not taken up again and again at once.
                    tracing::error!(upgrade = %id, "its driver broke down; it is taken up again in a minute");
                    let problem = Problem::new(Code::Internal).with("what", "the driver of this upgrade broke down");
                    handle.set_waits(vec![WaitingOn::new(Waiting::Gate { problem }, jiff::Timestamp::now())]);
                    tokio::time::sleep(AFTER_BREAKDOWN).await;
                }
                Ok(Ended::Unreadable(problem)) => {
                    tracing::error!(upgrade = %id, %problem, "the log cannot be read; the upgrade stays as it is");
                    let wait = WaitingOn::new(Waiting::Gate { problem }, jiff::Timestamp::now());
                    handle.set_waits(vec![wait]);
                    // Only another version of the server helps; the task keeps the place so that it is shown.
                    std::future::pending::<()>().await;
                }
            }
            drop(guard);
        });
        true
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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use shiplock_cluster::port::{Claim, ClaimOutcome, Cluster, Cordon, DrainPod, Eviction, Uncordon};
    use shiplock_core::facts::{ClusterFacts, NodeFacts, NodeOwner};
    use shiplock_core::id::{NodeName, ObjectUid};
    use shiplock_core::plan::NewApiObjects;
    use shiplock_core::upgrade::{Event, PauseReason};
    use shiplock_core::version::MinorVersion;

    use super::super::takeover::load;
    use super::*;
    use crate::http::sample::{events_to_running, planned, store_with};

    /// Clusters that do not answer for as long as anybody waits.
    struct Away;

    #[async_trait]
    impl Connector for Away {
        async fn connect(&self, _: &ClusterName) -> Result<Arc<dyn Cluster>, Problem> {
            std::future::pending().await
        }
    }

    /// What nobody has thought of.
    struct Breaking;

    #[async_trait]
    impl Connector for Breaking {
        async fn connect(&self, _: &ClusterName) -> Result<Arc<dyn Cluster>, Problem> {
            panic!("a defect")
        }
    }

    #[tokio::test]
    async fn a_driver_that_breaks_down_says_so_and_is_not_taken_up_again_at_once() {
        let store = Arc::new(store_with(&[("running", events_to_running())]).await);
        let settings =
            DriverSettings { holder: "one".to_owned(), installation: "one".to_owned(), policy: Policy::default() };
        let supervisor = Supervisor::new(store.clone(), Arc::default(), Arc::new(Breaking), settings);
        let events_when_broken = async {
            let mut looks_after = 0;
            loop {
                let waits = supervisor.waiting_on(&"running".into());
                let broken = |wait: &WaitingOn| matches!(&wait.what, Waiting::Gate { problem } if problem.code == Code::Internal);
                looks_after += u32::from(waits.iter().any(broken));
                if looks_after == 20 {
                    break;
                }
                // A hot loop would append an event for each time it is taken up.
                supervisor.wake(&"running".into());
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            store.events(&"running".into(), 0, 1000).await.unwrap().len()
        };
        tokio::select! {
            events = events_when_broken => assert!(events <= events_to_running().len() + 2, "{events} events"),
            () = supervisor.run() => unreachable!("it drives for as long as it is polled"),
        }
    }

    /// Can be read, and takes nothing: as with an etcd that is full.
    struct Full;

    #[async_trait]
    impl Connector for Full {
        async fn connect(&self, _: &ClusterName) -> Result<Arc<dyn Cluster>, Problem> {
            Ok(Arc::new(Self))
        }
    }

    #[async_trait]
    impl Cluster for Full {
        async fn facts(&self) -> Result<ClusterFacts, Problem> {
            Ok(shiplock_core::sample::cluster(&[("blue", 3)]))
        }
        async fn changed(&self) {
            std::future::pending().await
        }
        async fn claim(&self, _: &Claim) -> Result<ClaimOutcome, Problem> {
            Err(Problem::new(Code::ClusterAnswer).cause("etcdserver: mvcc: database space exceeded"))
        }
        async fn release(&self, _: &UpgradeId) -> Result<(), Problem> {
            unreachable!("nothing was claimed")
        }
        async fn node(&self, _: &NodeName) -> Result<Option<NodeFacts>, Problem> {
            unreachable!("nothing is done before the claim")
        }
        async fn cordon(&self, _: &NodeName, _: &ObjectUid, _: &NodeOwner) -> Result<Cordon, Problem> {
            unreachable!("nothing is done before the claim")
        }
        async fn uncordon(&self, _: &NodeName, _: &ObjectUid, _: &NodeOwner) -> Result<Uncordon, Problem> {
            unreachable!("nothing is done before the claim")
        }
        async fn pods_on(&self, _: &NodeName) -> Result<Vec<DrainPod>, Problem> {
            unreachable!("nothing is done before the claim")
        }
        async fn evict(&self, _: &DrainPod) -> Result<Eviction, Problem> {
            unreachable!("nothing is done before the claim")
        }
        async fn delete_pod(&self, _: &DrainPod) -> Result<Eviction, Problem> {
            unreachable!("nothing is done before the claim")
        }
        async fn objects_of_new_apis(&self, _: MinorVersion) -> Result<Vec<NewApiObjects>, Problem> {
            unreachable!("nothing is done before the claim")
        }
    }

    #[tokio::test]
    async fn a_cluster_that_takes_no_claim_is_said_to_and_nothing_is_done() {
        let store = Arc::new(store_with(&[("running", events_to_running())]).await);
        let settings =
            DriverSettings { holder: "one".to_owned(), installation: "one".to_owned(), policy: Policy::default() };
        let supervisor = Supervisor::new(store, Arc::default(), Arc::new(Full), settings);
        let said = async {
            let says = |wait: &WaitingOn| matches!(&wait.what, Waiting::Gate { problem } if problem.causes.iter().any(|why| why.contains("space")));
            while !supervisor.waiting_on(&"running".into()).iter().any(says) {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = said => {}
            () = supervisor.run() => unreachable!("it drives for as long as it is polled"),
            () = tokio::time::sleep(std::time::Duration::from_secs(60)) => panic!("it never says why it waits"),
        }
    }

    #[tokio::test]
    async fn a_log_is_folded_whole_however_many_pages_it_has_and_an_unknown_one_is_said_to_be() {
        let pause = Event::PauseRequested { reason: PauseReason::Operator, by: "t".into() };
        let log = |len: usize| [events_to_running(), vec![pause.clone(); len - 4]].concat();
        let store = Arc::new(store_with(&[("longer", log(1001)), ("full", log(1000)), ("short", log(4))]).await);
        let settings =
            DriverSettings { holder: "one".to_owned(), installation: "one".to_owned(), policy: Policy::default() };
        let supervisor = Supervisor::new(store, Arc::default(), Arc::new(Away), settings);
        for (id, len) in [("longer", 1001), ("full", 1000), ("short", 4)] {
            assert_eq!(load(&supervisor.shared, &id.into()).await.unwrap().len, len, "{id}");
        }
        let StoreError::Refused(problem) = load(&supervisor.shared, &"none".into()).await.unwrap_err() else {
            panic!("it is refused")
        };
        assert_eq!((problem.code, problem.parameters["upgrade"].as_str()), (Code::UpgradeUnknown, "none"));
    }

    #[tokio::test]
    async fn a_started_server_takes_over_what_is_active_and_says_what_each_upgrade_waits_for() {
        let running = events_to_running();
        let pause = vec![Event::PauseRequested { reason: PauseReason::Operator, by: "t".into() }, Event::Paused];
        let paused = [running.clone(), pause].concat();
        // No version can fold a second begin.
        let unreadable = vec![planned(&"unreadable".into())];
        let store = store_with(&[("running", running), ("paused", paused), ("unreadable", unreadable)]).await;
        let store = Arc::new(store);
        let settings =
            DriverSettings { holder: "one".to_owned(), installation: "one".to_owned(), policy: Policy::default() };
        let supervisor = Supervisor::new(store.clone(), Arc::default(), Arc::new(Away), settings);
        let waits = async {
            loop {
                let keys = ["running", "paused", "unreadable"].map(|id| {
                    let waits = supervisor.waiting_on(&id.into());
                    waits.into_iter().map(|wait| wait.key()).collect::<Vec<_>>()
                });
                if keys.iter().all(|keys| !keys.is_empty()) {
                    return keys;
                }
                tokio::task::yield_now().await;
            }
        };
        let keys = tokio::select! {
            () = supervisor.run() => unreachable!("it drives for as long as it is polled"),
            keys = waits => keys,
        };
        assert_eq!(keys.map(|keys| keys.join(" ")), ["facts UPG0208", "continue operator", "gate UPG0314"]);
        for (id, len, held) in [("running", 5, true), ("paused", 7, true), ("unreadable", 2, false)] {
            let id = UpgradeId::from(id);
            assert_eq!(store.lease(&id).await.unwrap().is_some(), held, "{id}");
            assert_eq!(store.upgrade(&id).await.unwrap().unwrap().len, len, "{id}: what is unreadable stays as it is");
        }
    }
}
