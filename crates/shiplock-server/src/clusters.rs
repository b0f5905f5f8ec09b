//! Connections to the registered clusters, made when they are first needed and kept.
//!
//! It must never hand a connection of one cluster out under the name of another: a connection belongs to one
//! registration, and is forgotten with it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shiplock_api::rest::{ClusterAdd, ClusterChange};
use shiplock_cluster::KubernetesCluster;
use shiplock_cluster::port::Cluster;
use shiplock_core::facts::ClusterFacts;
use shiplock_core::id::{ClusterName, ClusterUid};
use shiplock_core::problem::{Code, Problem};

use crate::seal::Seal;
use crate::store::{ClusterRecord, Store, StoreError};

/// Gives connections to registered clusters.
#[async_trait]
pub trait Connector: Send + Sync {
    /// The connection to a cluster, made now if there is none yet.
    async fn connect(&self, cluster: &ClusterName) -> Result<Arc<dyn Cluster>, Problem>;
}

/// Makes connections from kubeconfigs.
#[async_trait]
pub trait Dialer: Send + Sync {
    /// Connects. `allow` names what is otherwise refused in a kubeconfig.
    async fn dial(&self, kubeconfig: &str, allow: &[String]) -> Result<Dialled, Problem>;
}

/// A new connection.
pub struct Dialled {
    /// The connection.
    pub cluster: Arc<dyn Cluster>,
    /// The address of the API server, for showing.
    pub server: String,
}

/// How long making a connection may take.
const DIAL_WITHIN: Duration = Duration::from_secs(20);
/// How long the first facts of a new cluster may take.
const FIRST_FACTS_WITHIN: Duration = Duration::from_secs(20);

/// How long failures of a new cluster are tried again: a moment without an answer is no reason to refuse it.
const FIRST_FAILURES_WITHIN: Duration = Duration::from_secs(3);

/// The connections of a server.
pub struct ClusterPool {
    store: Arc<dyn Store>,
    seal: Arc<Seal>,
    dialer: Arc<dyn Dialer>,
    places: Mutex<HashMap<ClusterName, Arc<tokio::sync::Mutex<Option<Connection>>>>>,
}

/// A connection and the registration that it belongs to.
struct Connection {
    registration: ClusterRecord,
    cluster: Arc<dyn Cluster>,
    /// Whether nobody used it when [`ClusterPool::rest_unused`] looked last.
    unused: bool,
}

impl Connection {
    fn is_of(&self, record: &ClusterRecord) -> bool {
        let ours = &self.registration;
        (&ours.uid, ours.added_at, &ours.sealed_kubeconfig) == (&record.uid, record.added_at, &record.sealed_kubeconfig)
    }
}

/// What the store keeps of a kubeconfig, sealed.
#[derive(Serialize, Deserialize)]
struct Access {
    kubeconfig: String,
    allow: Vec<String>,
}

impl fmt::Debug for ClusterPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterPool")
    }
}

impl ClusterPool {
    /// A pool without connections yet.
    pub fn new(store: Arc<dyn Store>, seal: Arc<Seal>, dialer: Arc<dyn Dialer>) -> Self {
        Self { store, seal, dialer, places: Mutex::default() }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<ClusterName, Arc<tokio::sync::Mutex<Option<Connection>>>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Verifies and registers a cluster: it is reached and its identity is read before anything is kept.
    pub async fn add(&self, asked: &ClusterAdd, now: Timestamp) -> Result<ClusterRecord, Problem> {
        let name = &asked.name;
        if self.store.cluster(name).await.map_err(StoreError::into_problem)?.is_some() {
            return Err(Problem::new(Code::ClusterNameTaken).with("cluster", name));
        }
        let Dialled { cluster, server } = self.dial(&asked.kubeconfig, &asked.allow).await?;
        let uid = first_facts(&*cluster, &server).await?.uid;
        let others = self.store.clusters().await.map_err(StoreError::into_problem)?;
        if let Some(other) = others.iter().find(|other| other.uid == uid) {
            return Err(Problem::new(Code::ClusterRegisteredTwice).with("other", &other.name));
        }
        let record = ClusterRecord {
            name: name.clone(),
            uid,
            server,
            sealed_kubeconfig: sealed_access(&self.seal, name, &asked.kubeconfig, &asked.allow)?,
            mirror: asked.mirror.clone(),
            added_at: now,
        };
        self.store.add_cluster(&record).await.map_err(StoreError::into_problem)?;
        self.keep(record.clone(), cluster);
        Ok(record)
    }

    fn keep(&self, registration: ClusterRecord, cluster: Arc<dyn Cluster>) {
        let name = registration.name.clone();
        let connection = Connection { registration, cluster, unused: false };
        self.places().insert(name, Arc::new(tokio::sync::Mutex::new(Some(connection))));
    }

    /// Changes how a cluster is reached, or its mirror. New credentials are tried first: they must lead to the cluster that
    /// was registered. An upgrade in work goes over to them when those that it uses fail.
    pub async fn change(&self, record: &ClusterRecord, asked: &ClusterChange) -> Result<ClusterRecord, Problem> {
        let mut new = record.clone();
        if let Some(mirror) = &asked.mirror {
            new.mirror = Some(mirror.clone());
        }
        let mut dialled = None;
        if let Some(kubeconfig) = &asked.kubeconfig {
            let Dialled { cluster, server } = self.dial(kubeconfig, &asked.allow).await?;
            let found = first_facts(&*cluster, &server).await?.uid;
            if found != record.uid {
                return Err(changed(record, &found));
            }
            new.server = server;
            new.sealed_kubeconfig = sealed_access(&self.seal, &record.name, kubeconfig, &asked.allow)?;
            dialled = Some(cluster);
        }
        self.store.change_cluster(&new).await.map_err(StoreError::into_problem)?;
        if let Some(cluster) = dialled {
            self.keep(new.clone(), cluster);
        }
        Ok(new)
    }

    /// Lets clusters rest that nobody used since the last call: neither an upgrade nor a reader. Their watches end, which
    /// frees memory here and connections there; the next who asks for facts begins them again.
    pub fn rest_unused(&self) {
        let places: Vec<_> = self.places().values().cloned().collect();
        for place in places {
            // Where the place is taken somebody connects just now.
            let Ok(mut place) = place.try_lock() else { continue };
            let Some(connection) = &mut *place else { continue };
            // Whoever uses a connection holds a reference of its own.
            let in_use = Arc::strong_count(&connection.cluster) > 1;
            if connection.unused && !in_use {
                connection.cluster.rest();
            }
            connection.unused = !in_use;
        }
    }

    /// Drops the connection of a cluster that is not registered any more.
    pub fn forget(&self, cluster: &ClusterName) {
        self.places().remove(cluster);
    }

    async fn dial(&self, kubeconfig: &str, allow: &[String]) -> Result<Dialled, Problem> {
        match tokio::time::timeout(DIAL_WITHIN, self.dialer.dial(kubeconfig, allow)).await {
            Ok(dialled) => dialled,
            Err(elapsed) => Err(Problem::new(Code::ClusterUnreachable)
                .with("server", "of the kubeconfig")
                .because(&elapsed)
                .cause(format!("no connection after {} s", DIAL_WITHIN.as_secs()))),
        }
    }
}

#[async_trait]
impl Connector for ClusterPool {
    async fn connect(&self, name: &ClusterName) -> Result<Arc<dyn Cluster>, Problem> {
        let record = self.store.cluster(name).await.map_err(StoreError::into_problem)?;
        let record = record.ok_or_else(|| Problem::new(Code::ClusterUnknown).with("cluster", name))?;
        let place = self.places().entry(name.clone()).or_default().clone();
        // One task connects, the others wait for it.
        let mut connection = place.lock().await;
        if let Some(connection) = &mut *connection
            && connection.is_of(&record)
        {
            connection.unused = false;
            return Ok(connection.cluster.clone());
        }
        let access = self.seal.open_sealed(&purpose(name), &record.sealed_kubeconfig)?;
        let access: Access = serde_json::from_slice(&access).map_err(|error| {
            Problem::new(Code::KubeconfigUnreadable).with("path", format!("of cluster {name}")).because(&error)
        })?;
        let cluster = self.dial(&access.kubeconfig, &access.allow).await?.cluster;
        *connection = Some(Connection { registration: record, cluster: cluster.clone(), unused: false });
        Ok(cluster)
    }
}

/// What the store keeps of the access to a cluster: the kubeconfig and what it is allowed to use.
pub fn sealed_access(
    seal: &Seal,
    cluster: &ClusterName,
    kubeconfig: &str,
    allow: &[String],
) -> Result<Vec<u8>, Problem> {
    let access = Access { kubeconfig: kubeconfig.to_owned(), allow: allow.to_vec() };
    seal.seal(&purpose(cluster), &serde_json::to_vec(&access).expect("texts serialise"))
}

fn purpose(cluster: &ClusterName) -> String {
    format!("the kubeconfig of cluster {cluster}")
}

/// What was registered is not what answers now.
pub(crate) fn changed(record: &ClusterRecord, found: &ClusterUid) -> Problem {
    let problem = Problem::new(Code::ClusterChanged).with("cluster", &record.name);
    problem.with("expected", &record.uid).with("found", found)
}

/// The facts of a cluster for somebody who decides by them once; a new connection may need some seconds to have them.
pub async fn facts_within(cluster: &dyn Cluster, limit: Duration) -> Result<ClusterFacts, Problem> {
    facts_or_failure(cluster, limit, limit).await
}

/// The facts of a cluster that is told of for the first time, under a kubeconfig that may be wrong: it may answer slowly,
/// but what fails, fails soon.
async fn first_facts(cluster: &dyn Cluster, server: &str) -> Result<ClusterFacts, Problem> {
    let found = facts_or_failure(cluster, FIRST_FACTS_WITHIN, FIRST_FAILURES_WITHIN).await;
    found.map_err(|problem| match problem.code {
        Code::ClusterUnreachable => problem.with("server", server),
        _ => problem,
    })
}

/// Facts, where no answer is waited for beyond the first limit and no failure tried again beyond the second.
async fn facts_or_failure(
    cluster: &dyn Cluster,
    limit: Duration,
    failures_within: Duration,
) -> Result<ClusterFacts, Problem> {
    /// The least time between two looks.
    const PAUSE: Duration = Duration::from_millis(50);
    let begun = tokio::time::Instant::now();
    loop {
        let problem = match tokio::time::timeout_at(begun + limit, cluster.facts_anew()).await {
            Ok(Ok(facts)) => return Ok(facts),
            Ok(Err(problem)) => problem,
            Err(elapsed) => {
                return Err(Problem::new(Code::ClusterUnreachable).with("server", "of the cluster").because(&elapsed));
            }
        };
        // These do not get better by waiting.
        let lasting = matches!(problem.code, Code::ClusterUnauthorized | Code::ClusterForbidden);
        let news = async {
            tokio::time::sleep(PAUSE).await;
            // What changes may come late where the API server is away: look again all the same.
            let _ = tokio::time::timeout(Duration::from_secs(1), cluster.changed()).await;
        };
        if lasting || tokio::time::timeout_at(begun + failures_within, news).await.is_err() {
            return Err(problem);
        }
    }
}

/// Connects to real clusters.
#[derive(Clone, Copy, Debug, Default)]
pub struct KubernetesDialer;

#[async_trait]
impl Dialer for KubernetesDialer {
    async fn dial(&self, kubeconfig: &str, allow: &[String]) -> Result<Dialled, Problem> {
        let cluster = KubernetesCluster::connect(kubeconfig, allow).await?;
        let server = cluster.server().to_owned();
        Ok(Dialled { cluster: Arc::new(cluster), server })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::sample::FakeDialer;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn a_cluster_rests_when_nobody_has_used_it_for_a_while_and_not_before() {
        let dialer = Arc::new(FakeDialer::default());
        let pool = ClusterPool::new(Arc::new(MemoryStore::new()), Arc::new(Seal::ephemeral()), dialer.clone());
        let name = ClusterName::from("lab");
        let asked =
            ClusterAdd { name: name.clone(), kubeconfig: "uid-lab".to_owned(), allow: Vec::new(), mirror: None };
        pool.add(&asked, Timestamp::now()).await.unwrap();
        let rests = || dialer.rests.load(std::sync::atomic::Ordering::SeqCst);

        let used = pool.connect(&name).await.unwrap();
        for _ in 0..3 {
            pool.rest_unused();
        }
        assert_eq!(rests(), 0, "an upgrade or a reader uses it");
        drop(used);
        pool.rest_unused();
        assert_eq!(rests(), 0, "it was used until just now");
        drop(pool.connect(&name).await.unwrap());
        pool.rest_unused();
        assert_eq!(rests(), 0, "it was used since the last look");
        pool.rest_unused();
        assert_eq!(rests(), 1);
        // The connection itself stays.
        drop(pool.connect(&name).await.unwrap());
        assert_eq!(dialer.dials.lock().unwrap().len(), 1);
    }
}
