//! All caches of one cluster and the tasks that keep them fresh. Dropping it ends the tasks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use shiplock_core::facts::{ClusterFacts, NodeFacts};
use shiplock_core::id::NodeName;
use shiplock_core::problem::Problem;
use tokio::task::JoinSet;

use crate::answer::unreachable_server;
use crate::cache::{Cache, Changes, Source};
use crate::clock::Clock;
use crate::connection::Connection;
use crate::survey::{Survey, Surveyed, survey};
use crate::translation::{
    Budget, SeenPod, SeenWorkload, daemon_set_facts, deployment_facts, is_finished, node_facts, stateful_set_facts,
};

/// How long the first facts may take before the caller gets an answer that they are not there yet.
const FIRST_FACTS_TIMEOUT: Duration = Duration::from_secs(20);

/// The caches and their tasks.
#[derive(Debug)]
pub(crate) struct Watching {
    nodes: Arc<Cache<NodeFacts>>,
    pods: Arc<Cache<SeenPod>>,
    budgets: Arc<Cache<Budget>>,
    deployments: Arc<Cache<SeenWorkload>>,
    stateful_sets: Arc<Cache<SeenWorkload>>,
    daemon_sets: Arc<Cache<SeenWorkload>>,
    survey: Arc<Survey>,
    server: String,
    clock: Clock,
    /// Aborted when this is dropped.
    _tasks: JoinSet<()>,
}

fn nodes(connection: &Connection) -> Source<Node, NodeFacts> {
    let api = Api::all(connection.client.clone());
    Source { connection: connection.clone(), api, resource: "nodes", keep: |node| Some(node_facts(node)) }
}

fn pods(connection: &Connection) -> Source<Pod, SeenPod> {
    let api = Api::all(connection.client.clone());
    let keep = |pod: Pod| (!is_finished(&pod)).then(|| SeenPod::new(pod));
    Source { connection: connection.clone(), api, resource: "pods", keep }
}

pub(crate) fn budgets(connection: &Connection) -> Source<PodDisruptionBudget, Budget> {
    let api = Api::all(connection.client.clone());
    let resource = "poddisruptionbudgets.policy";
    Source { connection: connection.clone(), api, resource, keep: |budget| Some(Budget::new(budget)) }
}

fn deployments(connection: &Connection) -> Source<Deployment, SeenWorkload> {
    let api = Api::all(connection.client.clone());
    Source {
        connection: connection.clone(),
        api,
        resource: "deployments.apps",
        keep: |object| Some(deployment_facts(object)),
    }
}

fn stateful_sets(connection: &Connection) -> Source<StatefulSet, SeenWorkload> {
    let api = Api::all(connection.client.clone());
    Source {
        connection: connection.clone(),
        api,
        resource: "statefulsets.apps",
        keep: |object| Some(stateful_set_facts(object)),
    }
}

fn daemon_sets(connection: &Connection) -> Source<DaemonSet, SeenWorkload> {
    let api = Api::all(connection.client.clone());
    Source {
        connection: connection.clone(),
        api,
        resource: "daemonsets.apps",
        keep: |object| Some(daemon_set_facts(object)),
    }
}

impl Watching {
    /// Starts to watch.
    pub(crate) fn start(connection: &Connection, changes: &Arc<Changes>) -> Self {
        let mut tasks = JoinSet::new();
        let watching = Self {
            nodes: Cache::new(changes),
            pods: Cache::new(changes),
            budgets: Cache::new(changes),
            deployments: Cache::new(changes),
            stateful_sets: Cache::new(changes),
            daemon_sets: Cache::new(changes),
            survey: Survey::new(changes),
            server: connection.server.clone(),
            clock: connection.clock,
            _tasks: JoinSet::new(),
        };
        tasks.spawn(nodes(connection).follow(watching.nodes.clone()));
        tasks.spawn(pods(connection).follow(watching.pods.clone()));
        tasks.spawn(budgets(connection).follow(watching.budgets.clone()));
        tasks.spawn(deployments(connection).follow(watching.deployments.clone()));
        tasks.spawn(stateful_sets(connection).follow(watching.stateful_sets.clone()));
        tasks.spawn(daemon_sets(connection).follow(watching.daemon_sets.clone()));
        tasks.spawn(watching.survey.clone().follow(connection.clone()));
        Self { _tasks: tasks, ..watching }
    }

    /// The facts, waited for if they were never there, or why there are none that anybody may build on.
    pub(crate) async fn facts(&self, changes: &Changes) -> Result<ClusterFacts, Problem> {
        let look = async {
            loop {
                let count = changes.count();
                if let Some(judged) = self.judge() {
                    return judged;
                }
                changes.after(count).await;
            }
        };
        match tokio::time::timeout(FIRST_FACTS_TIMEOUT, look).await {
            Ok(judged) => self.assemble(judged?),
            Err(_) => Err(self.not_yet()),
        }
    }

    /// The same after the cluster has been asked for what no watch tells.
    pub(crate) async fn facts_anew(&self, changes: &Changes, connection: &Connection) -> Result<ClusterFacts, Problem> {
        self.survey.ask(connection).await?;
        self.facts(changes).await
    }

    /// The budgets, where they are fresh.
    pub(crate) fn budgets(&self) -> Option<Vec<Budget>> {
        self.budgets.judge(self.clock.now())?.ok()?;
        Some(self.budgets.look(|budgets| budgets.values().cloned().collect()))
    }

    /// Whether a budget allows a disruption, where that is known.
    pub(crate) fn budget_allows(&self, budget: &str) -> Option<bool> {
        self.budgets.judge(self.clock.now())?.ok()?;
        self.budgets.look(|budgets| Some(budgets.get(budget)?.facts.disruptions_allowed > 0))
    }

    /// A node, where that is known.
    pub(crate) fn seen_node(&self, node: &NodeName) -> Option<NodeFacts> {
        self.nodes.judge(self.clock.now())?.ok()?;
        self.nodes.look(|nodes| nodes.get(node.as_str()).cloned())
    }

    /// The worst of all: none while something was never there.
    fn judge(&self) -> Option<Result<Timestamp, Problem>> {
        let now = self.clock.now();
        let judged = [
            self.nodes.judge(now),
            self.pods.judge(now),
            self.budgets.judge(now),
            self.deployments.judge(now),
            self.stateful_sets.judge(now),
            self.daemon_sets.judge(now),
            self.survey.judge(now),
        ];
        if let Some(problem) = judged.iter().flatten().find_map(|judged| judged.as_ref().err()) {
            return Some(Err(problem.clone()));
        }
        let mut until = now;
        for judged in judged {
            until = until.min(judged?.unwrap_or(now));
        }
        Some(Ok(until))
    }

    fn not_yet(&self) -> Problem {
        unreachable_server(&self.server).cause(format!("not everything was listed within {FIRST_FACTS_TIMEOUT:?}"))
    }

    fn assemble(&self, observed_at: Timestamp) -> Result<ClusterFacts, Problem> {
        let found = self.survey.newest().ok_or_else(|| self.not_yet())?;
        let all = |cache: &Cache<SeenWorkload>| cache.look(|items| items.values().cloned().collect::<Vec<_>>());
        let nodes = self
            .nodes
            .look(|nodes| nodes.iter().map(|(name, node)| (NodeName::from(name.as_str()), node.clone())).collect());
        let pods = self.pods.look(|pods| pods.values().cloned().collect());
        let budgets = self.budgets.look(|budgets| budgets.values().cloned().collect());
        let workloads = [all(&self.deployments), all(&self.stateful_sets), all(&self.daemon_sets)].concat();
        Ok(gather(found, observed_at, nodes, pods, budgets, workloads))
    }
}

/// Puts the parts together.
fn gather(
    found: Surveyed,
    observed_at: Timestamp,
    nodes: BTreeMap<NodeName, NodeFacts>,
    pods: Vec<SeenPod>,
    budgets: Vec<Budget>,
    workloads: Vec<SeenWorkload>,
) -> ClusterFacts {
    let (pods, control_plane_pods): (Vec<_>, Vec<_>) =
        pods.into_iter().map(|pod| (pod.facts, pod.control_plane.map(|boxed| *boxed))).unzip();
    let (workloads, addons): (Vec<_>, Vec<_>) =
        workloads.into_iter().map(|workload| (workload.facts, workload.addon.map(|boxed| *boxed))).unzip();
    ClusterFacts {
        uid: found.uid,
        observed_at,
        api_servers: found.api_servers,
        nodes,
        pods,
        budgets: budgets.into_iter().map(|budget| budget.facts).collect(),
        workloads,
        control_plane_pods: control_plane_pods.into_iter().flatten().collect(),
        addons: addons.into_iter().flatten().collect(),
    }
}

/// The facts by listing everything once; nothing is kept.
pub(crate) async fn snapshot(connection: &Connection) -> Result<ClusterFacts, Problem> {
    let observed_at = connection.clock.now();
    let (nodes, pods, budgets, deployments, stateful_sets, daemon_sets) = (
        nodes(connection),
        pods(connection),
        budgets(connection),
        deployments(connection),
        stateful_sets(connection),
        daemon_sets(connection),
    );
    let (found, nodes, pods, budgets, deployments, stateful_sets, daemon_sets) = futures::try_join!(
        survey(connection),
        nodes.list(),
        pods.list(),
        budgets.list(),
        deployments.list(),
        stateful_sets.list(),
        daemon_sets.list(),
    )?;
    let workloads = [deployments.0, stateful_sets.0, daemon_sets.0];
    Ok(gather(
        found,
        observed_at,
        nodes.0.into_iter().map(|(name, node)| (NodeName::from(name), node)).collect(),
        pods.0.into_values().collect(),
        budgets.0.into_values().collect(),
        workloads.into_iter().flat_map(|items| items.into_values()).collect(),
    ))
}
