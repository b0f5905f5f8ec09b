//! A real cluster behind the port, over its API server.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use shiplock_check::snapshot::Snapshot;
use shiplock_core::facts::{ClusterFacts, NodeFacts, NodeOwner};
use shiplock_core::id::{ClusterUid, NodeName, ObjectUid, UpgradeId};
use shiplock_core::plan::NewApiObjects;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::version::MinorVersion;

use crate::answer::Ask;
use crate::cache::Changes;
use crate::clock::Clock;
use crate::collect::{Collection, newer, over};
use crate::connection::Connection;
use crate::kubeconfig::Kubeconfig;
use crate::port::{Claim, ClaimOutcome, Cluster, Cordon, DrainPod, Eviction, Uncordon};
use crate::translation::{Budget, node_facts};
use crate::watching::{Watching, budgets, snapshot};
use crate::{lease, ownership, pods, survey};

/// After this time a wait for changes ends, whether there were any or not.
const CHANGED_TIMEOUT: Duration = Duration::from_secs(5);
/// Changes come in bursts: what follows the first within this time is told together with it.
const CHANGES_GATHERED: Duration = Duration::from_millis(50);

/// A Kubernetes cluster. Watches begin with the first [`Cluster::facts`] or [`Cluster::facts_anew`] and end with
/// [`Cluster::rest`] or with the value.
#[derive(Debug)]
pub struct KubernetesCluster {
    connection: Connection,
    changes: Arc<Changes>,
    /// How many changes there were when facts were last given out.
    seen: AtomicU64,
    watching: Mutex<Option<Arc<Watching>>>,
}

impl KubernetesCluster {
    /// Prepares a connection with a kubeconfig that stands alone, see [`Kubeconfig::inline`]; one that names files is
    /// refused, and so is what `allow` would have to name. Nothing is sent yet.
    pub async fn connect(kubeconfig: &str, allow: &[String]) -> Result<Self, Problem> {
        let kubeconfig = Kubeconfig::standing_alone(kubeconfig, allow)?;
        Ok(Self::over(Connection::open(&kubeconfig).await?))
    }

    /// A cluster behind a client that is there already, such as one over a simulated API server. Instances of the API
    /// server cannot be told apart then.
    pub fn with_client(client: kube::Client, server: &str) -> Self {
        Self::over(Connection::over(client, server))
    }

    /// The same, by another clock than this machine's.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.connection.clock = clock;
        self
    }

    fn over(connection: Connection) -> Self {
        Self { connection, changes: Changes::new(), seen: AtomicU64::new(0), watching: Mutex::new(None) }
    }

    /// The address of the API server.
    pub fn server(&self) -> &str {
        &self.connection.server
    }

    /// The identity of the cluster, read now.
    pub async fn uid(&self) -> Result<ClusterUid, Problem> {
        survey::cluster_uid(&self.connection).await
    }

    /// The cluster by listing everything once: no watch is begun and nothing is kept.
    pub async fn snapshot(&self) -> Result<ClusterFacts, Problem> {
        snapshot(&self.connection).await
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Watching>>> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is watched; watches begin with the first call.
    fn watched(&self) -> Arc<Watching> {
        self.slot().get_or_insert_with(|| Arc::new(Watching::start(&self.connection, &self.changes))).clone()
    }

    fn watching(&self) -> Option<Arc<Watching>> {
        self.slot().clone()
    }

    /// Budgets serve to name what blocks; where they cannot be had the drain goes on without their names.
    async fn budgets(&self) -> Vec<Budget> {
        if let Some(budgets) = self.watching().and_then(|watching| watching.budgets()) {
            return budgets;
        }
        match budgets(&self.connection).list().await {
            Ok((budgets, _)) => budgets.into_values().collect(),
            Err(problem) => {
                tracing::debug!(%problem, "budgets cannot be read");
                Vec::new()
            }
        }
    }
}

#[async_trait]
impl Cluster for KubernetesCluster {
    async fn facts(&self) -> Result<ClusterFacts, Problem> {
        let watching = self.watched();
        let seen = self.changes.count();
        let facts = watching.facts(&self.changes).await;
        self.seen.fetch_max(seen, Ordering::SeqCst);
        facts
    }

    async fn facts_anew(&self) -> Result<ClusterFacts, Problem> {
        self.watched().facts_anew(&self.changes, &self.connection).await
    }

    async fn changed(&self) {
        // What changed since facts were last given out counts, so that nothing is missed between the two calls.
        let seen = self.seen.load(Ordering::SeqCst);
        let _ = tokio::time::timeout(CHANGED_TIMEOUT, self.changes.after(seen)).await;
        tokio::time::sleep(CHANGES_GATHERED).await;
    }

    async fn node(&self, node: &NodeName) -> Result<Option<NodeFacts>, Problem> {
        let nodes: Api<Node> = Api::all(self.connection.client.clone());
        let found = self.connection.read(Ask::new("get", "nodes"), nodes.get_opt(node.as_str())).await?;
        Ok(found.map(node_facts))
    }

    async fn cordon(&self, node: &NodeName, uid: &ObjectUid, owner: &NodeOwner) -> Result<Cordon, Problem> {
        ownership::cordon(&self.connection, node, uid, owner).await
    }

    async fn uncordon(&self, node: &NodeName, uid: &ObjectUid, owner: &NodeOwner) -> Result<Uncordon, Problem> {
        ownership::uncordon(&self.connection, node, uid, owner).await
    }

    async fn pods_on(&self, node: &NodeName) -> Result<Vec<DrainPod>, Problem> {
        let budgets = self.budgets().await;
        pods::pods_on(&self.connection, node, &budgets).await
    }

    async fn evict(&self, pod: &DrainPod) -> Result<Eviction, Problem> {
        pods::evict(&self.connection, pod).await
    }

    async fn delete_pod(&self, pod: &DrainPod) -> Result<Eviction, Problem> {
        pods::delete(&self.connection, pod).await
    }

    fn budget_allows(&self, budget: &str) -> Option<bool> {
        self.watching()?.budget_allows(budget)
    }

    fn seen_node(&self, node: &NodeName) -> Option<NodeFacts> {
        self.watching()?.seen_node(node)
    }

    async fn claim(&self, claim: &Claim) -> Result<ClaimOutcome, Problem> {
        lease::claim(&self.connection, claim, self.connection.clock.now()).await
    }

    async fn release(&self, upgrade: &UpgradeId) -> Result<(), Problem> {
        lease::release(&self.connection, upgrade).await
    }

    async fn objects_of_new_apis(&self, old: MinorVersion) -> Result<Vec<NewApiObjects>, Problem> {
        newer::objects_of_new_apis(&self.connection, old).await
    }

    async fn precheck(&self, collection: &Collection<'_>) -> Result<Option<Snapshot>, Problem> {
        let (connection, selection) = (self.connection.clone(), collection.selection.clone());
        let (target, for_start) = (collection.target, collection.for_start);
        // Lists of thousands of objects are taken apart there: a thread of its own keeps that from holding up drivers.
        let runtime = tokio::runtime::Handle::current();
        let collecting = tokio::task::spawn_blocking(move || {
            let collection = Collection { target, selection: &selection, for_start, with_copy: false };
            runtime.block_on(over(&connection, &collection, &|_| {}))
        });
        match collecting.await {
            Ok(collected) => collected.map(Some),
            Err(error) => Err(Problem::new(Code::Internal).with("what", "reading the cluster ended").because(&error)),
        }
    }

    fn rest(&self) {
        *self.slot() = None;
    }
}

#[cfg(test)]
#[path = "kubernetes_tests.rs"]
mod tests;
