//! A small made-up cluster, its plan and a server around it, for tests.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use shiplock_cluster::port::{Claim, ClaimOutcome, Cluster, Cordon, DrainPod, Eviction, Uncordon};
use shiplock_core::catalogue::Catalogue;
use shiplock_core::check::CheckReport;
use shiplock_core::facts::{ClusterFacts, MachineFacts, NodeFacts, NodeOwner};
use shiplock_core::id::{ClusterName, NodeName, ObjectUid, UpgradeId};
use shiplock_core::plan::NewApiObjects;
use shiplock_core::plan::{Plan, PlanOptions, PlanRequest};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::sample;
use shiplock_core::upgrade::{Event, EventRecord, Upgrade, WaitingOn};
use shiplock_core::version::MinorVersion;
use tokio::sync::watch;

use super::{ApiToken, Drivers, Folds, Site, router};
use crate::authority::Authority;
use crate::backup::Backups;
use crate::clusters::{ClusterPool, Dialer, Dialled};
use crate::gateway::Enrolled;
use crate::hub::AgentHub;
use crate::precheck::Precheck;
use crate::seal::Seal;
use crate::store::{ClusterRecord, MemoryStore, NewUpgrade, Store};

/// A cluster with this identity: a control plane at v1.36.3 and two workers at v1.35.4.
pub(crate) fn facts(uid: &str) -> ClusterFacts {
    ClusterFacts { uid: uid.into(), ..sample::cluster(&[("blue", 2)]) }
}

/// A machine as an agent of this version tells it.
pub(crate) fn machine(agent_version: &str) -> MachineFacts {
    let agents = sample::agents(&facts("uid-lab"), sample::at(0));
    let agent = agents.into_values().next().unwrap();
    MachineFacts { agent_version: agent_version.to_owned(), ..(*agent.machine).clone() }
}

pub(crate) fn request() -> PlanRequest {
    sample::request("v1.36.3", PlanOptions::default())
}

fn plan() -> Plan {
    sample::plan_of(&facts("uid-lab"), &request()).unwrap()
}

fn fold(events: Vec<Event>) -> Upgrade {
    let planned = Event::Planned { plan: Box::new(plan()), by: "somebody".into() };
    let records: Vec<EventRecord> = std::iter::once(planned)
        .chain(events)
        .zip(1..)
        .map(|(event, number)| EventRecord {
            upgrade: "usample".into(),
            number,
            position: number,
            at: sample::at(0),
            epoch: None,
            event,
        })
        .collect();
    Upgrade::fold(&records).unwrap()
}

/// An upgrade that was just created.
pub(crate) fn upgrade() -> Upgrade {
    fold(Vec::new())
}

/// The events that bring an upgrade to work.
pub(crate) fn events_to_running() -> Vec<Event> {
    let report = CheckReport { findings: Vec::new() };
    vec![Event::CheckStarted, Event::CheckFinished { report }, Event::Started]
}

/// A store with active upgrades, each of a cluster of its own that has the upgrade's name, whose logs go on with these
/// events.
pub(crate) async fn store_with(upgrades: &[(&str, Vec<Event>)]) -> MemoryStore {
    let (store, now) = (MemoryStore::new(), Timestamp::now());
    for (id, events) in upgrades {
        let name = ClusterName::from(*id);
        let cluster = ClusterRecord {
            name: name.clone(),
            uid: (*id).into(),
            server: "https://192.0.2.10:6443".to_owned(),
            sealed_kubeconfig: Vec::new(),
            mirror: None,
            added_at: now,
        };
        store.add_cluster(&cluster).await.unwrap();
        let event = planned(&name);
        let new = NewUpgrade { id: (*id).into(), cluster: name, event, now, idempotency_key: None };
        store.create_upgrade(&new).await.unwrap();
        store.append_request(&new.id, 1, now, events).await.unwrap();
    }
    store
}

/// The first event of an upgrade of this cluster.
pub(crate) fn planned(cluster: &ClusterName) -> Event {
    let plan = Plan { cluster: cluster.clone(), ..plan() };
    Event::Planned { plan: Box::new(plan), by: "somebody".into() }
}

/// An upgrade with a node's step in flight.
pub(crate) fn upgrade_in_work() -> Upgrade {
    let plan = plan();
    let step = plan.stages[0].steps.iter().find(|step| step.target.node().is_some()).unwrap().number;
    let mut events = events_to_running();
    events.extend([Event::StageStarted { stage: 0 }, Event::StepStarted { step, attempt: 1 }]);
    fold(events)
}

/// A cluster that answers with its facts and does nothing.
pub(crate) struct FakeCluster {
    pub(crate) facts: ClusterFacts,
    /// How often it was told to rest.
    pub(crate) rests: Arc<AtomicU32>,
}

#[async_trait]
impl Cluster for FakeCluster {
    async fn objects_of_new_apis(&self, _: MinorVersion) -> Result<Vec<NewApiObjects>, Problem> {
        Ok(Vec::new())
    }
    async fn facts(&self) -> Result<ClusterFacts, Problem> {
        Ok(self.facts.clone())
    }
    async fn changed(&self) {
        std::future::pending().await
    }
    async fn node(&self, node: &NodeName) -> Result<Option<NodeFacts>, Problem> {
        Ok(self.facts.nodes.get(node).cloned())
    }
    async fn cordon(&self, _: &NodeName, _: &ObjectUid, _: &NodeOwner) -> Result<Cordon, Problem> {
        Ok(Cordon::Done)
    }
    async fn uncordon(&self, _: &NodeName, _: &ObjectUid, _: &NodeOwner) -> Result<Uncordon, Problem> {
        Ok(Uncordon::Done)
    }
    async fn pods_on(&self, _: &NodeName) -> Result<Vec<DrainPod>, Problem> {
        Ok(Vec::new())
    }
    async fn evict(&self, _: &DrainPod) -> Result<Eviction, Problem> {
        Ok(Eviction::Gone)
    }
    async fn delete_pod(&self, _: &DrainPod) -> Result<Eviction, Problem> {
        Ok(Eviction::Gone)
    }
    async fn claim(&self, _: &Claim) -> Result<ClaimOutcome, Problem> {
        Ok(ClaimOutcome::Ours)
    }
    async fn release(&self, _: &UpgradeId) -> Result<(), Problem> {
        Ok(())
    }
    fn rest(&self) {
        self.rests.fetch_add(1, Ordering::SeqCst);
    }
}

/// Takes the text of a kubeconfig as the identity of the cluster. `down` is one that cannot be reached.
#[derive(Debug, Default)]
pub(crate) struct FakeDialer {
    pub(crate) dials: Mutex<Vec<String>>,
    /// How often any of its clusters was told to rest.
    pub(crate) rests: Arc<AtomicU32>,
}

#[async_trait]
impl Dialer for FakeDialer {
    async fn dial(&self, kubeconfig: &str, _allow: &[String]) -> Result<Dialled, Problem> {
        self.dials.lock().unwrap().push(kubeconfig.to_owned());
        if kubeconfig == "down" {
            return Err(Problem::new(Code::ClusterUnreachable).with("server", "https://down:6443"));
        }
        let server = format!("https://{kubeconfig}:6443");
        Ok(Dialled { cluster: Arc::new(FakeCluster { facts: facts(kubeconfig), rests: self.rests.clone() }), server })
    }
}

/// Drivers that only note what they are told.
#[derive(Debug)]
pub(crate) struct FakeDrivers {
    pub(crate) woken: Mutex<Vec<UpgradeId>>,
    pub(crate) appended: watch::Sender<u64>,
}

impl Drivers for FakeDrivers {
    fn wake(&self, upgrade: &UpgradeId, appended: &[EventRecord]) {
        self.woken.lock().unwrap().push(upgrade.clone());
        self.appended.send_modify(|position| *position = appended.last().map_or(*position, |last| last.position));
    }
    fn waiting_on(&self, _: &UpgradeId) -> Vec<WaitingOn> {
        Vec::new()
    }
    fn appended(&self) -> watch::Receiver<u64> {
        self.appended.subscribe()
    }
}

/// A server without listeners.
pub(crate) struct Bench {
    pub(crate) site: Arc<Site>,
    pub(crate) router: axum::Router,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) drivers: Arc<FakeDrivers>,
    pub(crate) dialer: Arc<FakeDialer>,
    pub(crate) closing: watch::Sender<bool>,
    pub(crate) mirror: tempfile::TempDir,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let store = Arc::new(MemoryStore::new());
        let seal = Arc::new(Seal::ephemeral());
        let authority = Arc::new(Authority::open(&*store, &seal, Timestamp::now()).await.unwrap());
        let (closing, closed) = watch::channel(false);
        let drivers = Arc::new(FakeDrivers { woken: Mutex::default(), appended: watch::Sender::new(0) });
        let dialer = Arc::new(FakeDialer::default());
        let shared: Arc<dyn Store> = store.clone();
        let clusters = Arc::new(ClusterPool::new(shared.clone(), seal.clone(), dialer.clone()));
        let hub = Arc::new(AgentHub::default());
        let site = Arc::new(Site {
            precheck: Arc::new(Precheck::new(shared.clone(), hub.clone(), clusters.clone())),
            clusters,
            store: shared,
            hub,
            drivers: drivers.clone(),
            enrolled: Arc::new(Enrolled::default()),
            authority,
            backups: Arc::new(Backups::temporary(&std::env::temp_dir(), seal).unwrap()),
            catalogue: Catalogue::shipped(),
            holder: "bench".to_owned(),
            agent_url: "https://shiplock.example:7443".to_owned(),
            closing: closed,
            folds: Folds::default(),
        });
        let router = router(site.clone(), &[ApiToken::new("ci", "the-secret-of-ci")]);
        let mirror = tempfile::tempdir().unwrap();
        std::fs::write(mirror.path().join("artefacts.json"), serde_json::to_vec(&sample::artefacts()).unwrap())
            .unwrap();
        Self { site, router, store, drivers, dialer, closing, mirror }
    }

    /// Appends as people do, which needs no lease.
    pub(crate) async fn append(&self, id: &UpgradeId, events: &[Event]) -> Vec<EventRecord> {
        let len = self.store.upgrade(id).await.unwrap().unwrap().len;
        let records = self.store.append_request(id, len, Timestamp::now(), events).await.unwrap();
        self.drivers.wake(id, &records);
        records
    }

    pub(crate) fn mirror_root(&self) -> String {
        self.mirror.path().to_str().unwrap().to_owned()
    }

    pub(crate) fn cluster(&self) -> ClusterName {
        "lab".into()
    }
}
