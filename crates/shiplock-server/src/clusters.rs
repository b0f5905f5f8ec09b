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
use shiplock_api::rest::ClusterAdd;
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

/// The connections of a server.
pub struct ClusterPool {
    store: Arc<dyn Store>,
    seal: Arc<Seal>,
    dialer: Arc<dyn Dialer>,
    places: Mutex<HashMap<ClusterName, Arc<tokio::sync::Mutex<Option<Connection>>>>>,
}

/// A connection and the registration that it belongs to.
#[derive(Clone)]
struct Connection {
    uid: ClusterUid,
    added_at: Timestamp,
    cluster: Arc<dyn Cluster>,
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
        let uid = facts_within(&*cluster, FIRST_FACTS_WITHIN).await?.uid;
        let others = self.store.clusters().await.map_err(StoreError::into_problem)?;
        if let Some(other) = others.iter().find(|other| other.uid == uid) {
            return Err(Problem::new(Code::ClusterRegisteredTwice).with("other", &other.name));
        }
        let access = Access { kubeconfig: asked.kubeconfig.clone(), allow: asked.allow.clone() };
        let access = serde_json::to_vec(&access).expect("texts serialise");
        let record = ClusterRecord {
            name: name.clone(),
            uid: uid.clone(),
            server,
            sealed_kubeconfig: self.seal.seal(&purpose(name), &access)?,
            mirror: asked.mirror.clone(),
            added_at: now,
        };
        self.store.add_cluster(&record).await.map_err(StoreError::into_problem)?;
        let connection = Connection { uid, added_at: record.added_at, cluster };
        self.places().insert(name.clone(), Arc::new(tokio::sync::Mutex::new(Some(connection))));
        Ok(record)
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
        if let Some(connection) = &*connection
            && (&connection.uid, connection.added_at) == (&record.uid, record.added_at)
        {
            return Ok(connection.cluster.clone());
        }
        let access = self.seal.open_sealed(&purpose(name), &record.sealed_kubeconfig)?;
        let access: Access = serde_json::from_slice(&access).map_err(|error| {
            Problem::new(Code::KubeconfigUnreadable).with("path", format!("of cluster {name}")).because(&error)
        })?;
        let cluster = self.dial(&access.kubeconfig, &access.allow).await?.cluster;
        *connection = Some(Connection { uid: record.uid, added_at: record.added_at, cluster: cluster.clone() });
        Ok(cluster)
    }
}

fn purpose(cluster: &ClusterName) -> String {
    format!("the kubeconfig of cluster {cluster}")
}

/// The facts of a cluster; a new connection may need some seconds to have them.
pub async fn facts_within(cluster: &dyn Cluster, limit: Duration) -> Result<ClusterFacts, Problem> {
    /// The least time between two looks.
    const PAUSE: Duration = Duration::from_millis(50);
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let problem = match tokio::time::timeout_at(deadline, cluster.facts()).await {
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
        if lasting || tokio::time::timeout_at(deadline, news).await.is_err() {
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
