//! The steps that the server does itself, through the Kubernetes API: examine, act, verify. Each is safe to repeat
//! and carries its fence: the node's UID, our mark with the epoch, the lease.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use shiplock_cluster::port::{Cluster, Cordon, Uncordon};
use shiplock_core::artefact::ArtefactImage;
use shiplock_core::facts::{
    ClusterFacts, ControlPlaneFacts, EtcdFacts, NodeFacts, NodeOwner, Observed, Readiness, not_ready,
};
use shiplock_core::id::{ClusterName, NodeName, StepNumber};
use shiplock_core::plan::{NodePlan, Plan};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::{Action, Step};
use shiplock_core::upgrade::{StepOutcome, Waiting, WaitingOn, worse_than_baseline};
use shiplock_core::version::KubernetesVersion;

use super::machine::StepResult;
use crate::hub::AgentHub;

/// What the steps in work wait for.
#[derive(Debug, Default)]
pub(super) struct Progress {
    waits: Mutex<BTreeMap<StepNumber, Vec<WaitingOn>>>,
    changed: tokio::sync::Notify,
}

impl Progress {
    /// Sets what a step waits for; nothing when empty.
    pub(super) fn set(&self, step: StepNumber, waits: Vec<WaitingOn>) {
        let mut all = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if waits.is_empty() { all.remove(&step) } else { all.insert(step, waits.clone()) };
        let keys = |waits: &[WaitingOn]| waits.iter().map(WaitingOn::key).collect::<Vec<_>>();
        if keys(before.as_deref().unwrap_or_default()) != keys(&waits) {
            self.changed.notify_one();
        }
    }

    pub(super) fn all(&self) -> BTreeMap<StepNumber, Vec<WaitingOn>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns when something else is waited for.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// All that a step of the server needs.
pub(super) struct StepContext {
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) cluster_name: ClusterName,
    pub(super) hub: Arc<AgentHub>,
    pub(super) plan: Arc<Plan>,
    pub(super) owner: NodeOwner,
    pub(super) progress: Arc<Progress>,
    /// Workloads before anything was touched, and nodes that are not claimed to be upgraded.
    pub(super) baseline: Vec<shiplock_core::facts::WorkloadFacts>,
    pub(super) left_out: Vec<NodeName>,
    /// Whether the lease still holds for long enough to send a request.
    pub(super) may_act: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// How often something that a watch may not tell is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

impl StepContext {
    /// Does a step to its end. `since` is when its intent was recorded.
    pub(super) async fn run(&self, step: &Step, since: Timestamp) -> StepResult {
        let result = match (&step.action, self.plan.node_of_step(step.number)) {
            (Action::CaptureBaseline, _) => self.capture_baseline(step).await,
            (Action::Cordon, Some(node)) => self.cordon(node).await,
            (Action::Drain { timeout_seconds, on_timeout }, Some(node)) => {
                let limit = (Duration::from_secs(u64::from(*timeout_seconds)), *on_timeout);
                let progress = |waits: Vec<WaitingOn>| self.progress.set(step.number, waits);
                shiplock_cluster::drain::drain(
                    self.cluster.as_ref(),
                    &node.node,
                    since,
                    limit,
                    &|| self.fence(),
                    &progress,
                )
                .await
            }
            (Action::VerifyAddons { images }, _) => self.verify_addons(step, images).await,
            (Action::VerifyNode { .. }, Some(node)) => self.verify_node(step, node).await,
            (Action::Uncordon, Some(node)) => self.uncordon(node).await,
            (Action::VerifyCluster { kubelet }, _) => self.verify_cluster(step, *kubelet).await,
            (action, _) => {
                let what = format!("step {} of kind {} is not the server's", step.number, action.kind());
                Err((Problem::new(Code::Internal).with("what", what), false))
            }
        };
        self.progress.set(step.number, Vec::new());
        result
    }

    fn fence(&self) -> Result<(), Problem> {
        if (self.may_act)() {
            return Ok(());
        }
        let NodeOwner { upgrade, epoch } = &self.owner;
        Err(Problem::new(Code::LeaseEnding).with("upgrade", upgrade).with("epoch", epoch))
    }

    async fn capture_baseline(&self, step: &Step) -> StepResult {
        self.until(step, |context| async move {
            match context.cluster.facts().await {
                Ok(facts) => Ok(StepOutcome::Baseline { workloads: facts.workloads }),
                Err(problem) => Err(problem),
            }
        })
        .await
    }

    async fn cordon(&self, node: &NodePlan) -> StepResult {
        self.fence().map_err(|problem| (problem, true))?;
        match self.cluster.cordon(&node.node, &node.uid, &self.owner).await.map_err(retryable)? {
            Cordon::Done | Cordon::AlreadyOurs => Ok(StepOutcome::Cordoned { ours: true }),
            Cordon::CordonedByOthers => Ok(StepOutcome::Cordoned { ours: false }),
            Cordon::OwnedByAnotherUpgrade => {
                let problem = Problem::new(Code::Interference).with("object", format!("node {}", node.node));
                Err((problem.with("what", "it carries the mark of another upgrade"), false))
            }
            Cordon::NodeGone => Err((gone(node), false)),
        }
    }

    async fn uncordon(&self, node: &NodePlan) -> StepResult {
        self.fence().map_err(|problem| (problem, true))?;
        match self.cluster.uncordon(&node.node, &node.uid, &self.owner).await.map_err(retryable)? {
            Uncordon::Done => Ok(StepOutcome::Done),
            // Somebody else's cordon stays; a node that is gone carries nothing of ours.
            Uncordon::NotOurs | Uncordon::NodeGone => Ok(StepOutcome::AlreadyDone),
        }
    }

    /// The node must be Ready and report what is claimed, and its agent must have read the digests of the
    /// executables that run.
    async fn verify_node(&self, step: &Step, planned: &NodePlan) -> StepResult {
        let Action::VerifyNode {
            kubelet,
            kubelet_sha256,
            container_runtime,
            container_runtime_sha256,
            control_plane_images,
        } = &step.action
        else {
            return Err((Problem::new(Code::Internal).with("what", "not a verification"), false));
        };
        self.until(step, |context| async move {
            let node = context.cluster.node(&planned.node).await?.ok_or_else(|| gone(planned))?;
            if node.uid != planned.uid {
                return Err(gone(planned));
            }
            check_node(&planned.node, &node, *kubelet)?;
            let mut components = vec![format!("kubelet {kubelet}")];
            if let Some(runtime) = container_runtime {
                let expected = format!("containerd://{}", runtime.trim_start_matches('v'));
                read_back(&planned.node, "container runtime", &expected, &node.container_runtime_version)?;
                components.push(format!("containerd {runtime}"));
            }
            let agents = context.hub.agents(&context.cluster_name);
            let machine = agents.get(&planned.node).map(|agent| &agent.machine);
            let running = |component: Option<&Observed<shiplock_core::facts::ComponentFacts>>| match component {
                Some(Observed::Known(component)) => {
                    component.running_sha256.clone().unwrap_or_else(|| "nothing".to_owned())
                }
                _ => "unknown".to_owned(),
            };
            if let Some(expected) = kubelet_sha256 {
                let found = running(machine.map(|machine| &machine.kubelet));
                read_back(&planned.node, "kubelet executable", expected, &found)?;
            }
            if let Some(expected) = container_runtime_sha256 {
                let found = running(machine.map(|machine| &machine.container_runtime));
                read_back(&planned.node, "containerd executable", expected, &found)?;
            }
            if !control_plane_images.is_empty() {
                let facts = context.cluster.facts().await?;
                let control_plane = machine.and_then(|machine| machine.control_plane.as_deref());
                check_master(&planned.node, control_plane_images, control_plane, &facts)?;
                components.extend(control_plane_images.iter().map(|image| image.reference.clone()));
            }
            Ok(StepOutcome::Verified { components })
        })
        .await
    }

    /// kube-proxy and CoreDNS run the target's images on every pod.
    async fn verify_addons(&self, step: &Step, images: &[ArtefactImage]) -> StepResult {
        self.until(step, |context| async move {
            let facts = context.cluster.facts().await?;
            let subject = format!("cluster {}", context.cluster_name);
            for image in images {
                let differs = |found: &str| {
                    let problem = Problem::new(Code::ReadBackMismatch).with("component", &image.role);
                    problem.with("subject", &subject).with("expected", &image.reference).with("found", found)
                };
                match facts.addons.iter().find(|addon| addon.name == image.role) {
                    None => return Err(differs("nothing")),
                    Some(addon) if addon.image != image.reference => return Err(differs(&addon.image)),
                    Some(addon) if !addon.rolled_out => return Err(differs("pods of an older template, or not ready")),
                    Some(_) => {}
                }
            }
            Ok(StepOutcome::Verified { components: images.iter().map(|image| image.reference.clone()).collect() })
        })
        .await
    }

    /// Every node of the plan that was not left out is Ready at the target, and no workload is worse than before.
    /// Nodes must hold; a workload that is still worse at the end is named in the outcome.
    async fn verify_cluster(&self, step: &Step, kubelet: KubernetesVersion) -> StepResult {
        let worse_at_last = Mutex::new(None);
        let result = self
            .until(step, |context| {
                let worse_at_last = &worse_at_last;
                async move {
                    let facts = context.cluster.facts().await?;
                    let planned = context.plan.nodes_in_the_end();
                    for planned in planned.into_iter().filter(|node| !context.left_out.contains(&node.node)) {
                        let node = facts.nodes.get(&planned.node).ok_or_else(|| gone(planned))?;
                        check_node(&planned.node, node, kubelet_after(planned).unwrap_or(kubelet))?;
                    }
                    let worse = worse_than_baseline(&context.baseline, &facts.workloads);
                    let set = |value| *worse_at_last.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
                    if let Some(first) = worse.first() {
                        let problem = Problem::new(Code::ReadBackMismatch).with("component", first);
                        let problem = problem.with("subject", format!("cluster {}", context.cluster_name));
                        set(worse.clone());
                        return Err(problem
                            .with("found", "fewer ready pods than before")
                            .with("expected", "as many as before"));
                    }
                    Ok(StepOutcome::Compared { worse: Vec::new() })
                }
            })
            .await;
        match (result, worse_at_last.into_inner().unwrap_or_else(PoisonError::into_inner)) {
            (Err((problem, _)), Some(worse)) if problem.code == Code::ReadBackMismatch => {
                Ok(StepOutcome::Compared { worse })
            }
            (result, _) => result,
        }
    }

    /// Looks until it is as wanted or the step's time is over; what is not yet as wanted is shown.
    async fn until<'a, F, R>(&'a self, step: &Step, mut look: F) -> StepResult
    where
        F: FnMut(&'a Self) -> R,
        R: Future<Output = Result<StepOutcome, Problem>>,
    {
        let since = Timestamp::now();
        let limit = Duration::from_secs(u64::from(step.timeout_seconds));
        let deadline = tokio::time::Instant::now() + limit;
        let node = step.target.node().cloned().unwrap_or_else(|| NodeName::from("cluster"));
        loop {
            let problem = match look(self).await {
                Ok(outcome) => return Ok(outcome),
                Err(problem) => problem,
            };
            if tokio::time::Instant::now() >= deadline || problem.code == Code::WrongMachine {
                return Err((problem, false));
            }
            let wait = WaitingOn::new(Waiting::NodeReadBack { node: node.clone(), problem }, since);
            let until =
                since.checked_add(jiff::SignedDuration::try_from(limit).unwrap_or_default()).unwrap_or(Timestamp::MAX);
            self.progress.set(step.number, vec![wait.until(until)]);
            tokio::select! {
                () = self.cluster.changed() => tokio::time::sleep(LOOK_AGAIN / 6).await,
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }
}

/// What the node's own steps claim of its kubelet. After a rollback masters may differ, as they did before.
fn kubelet_after(planned: &NodePlan) -> Option<KubernetesVersion> {
    planned.steps.iter().find_map(|step| match &step.action {
        Action::VerifyNode { kubelet, .. } => Some(*kubelet),
        _ => None,
    })
}

fn retryable(problem: Problem) -> (Problem, bool) {
    let temporary = matches!(problem.code, Code::ClusterUnreachable | Code::ClusterAnswer);
    (problem, temporary)
}

fn gone(node: &NodePlan) -> Problem {
    let problem = Problem::new(Code::WrongMachine).with("node", &node.node).with("what", "uid");
    problem.with("expected", &node.uid).with("found", "no such node")
}

fn check_node(name: &NodeName, node: &NodeFacts, kubelet: KubernetesVersion) -> Result<(), Problem> {
    read_back(name, "kubelet", &kubelet.to_string(), &node.kubelet_version)?;
    match &node.ready {
        Readiness::Ready => Ok(()),
        Readiness::NotReady { why } => Err(not_ready(name, why)),
    }
}

/// Each component on a master runs the planned image by the runtime's word, its own endpoint answers, its mirror pod is
/// Ready with that image, and etcd is well as a whole: a kubelet of a new version starts the static pods anew after the
/// node is Ready, so the node alone proves nothing.
fn check_master(
    node: &NodeName,
    images: &[ArtefactImage],
    control_plane: Option<&ControlPlaneFacts>,
    cluster: &ClusterFacts,
) -> Result<(), Problem> {
    let Some(control_plane) = control_plane else {
        return read_back(node, "control plane", "static pods", "unknown");
    };
    for image in images {
        let found = control_plane.components.iter().find(|found| found.component.name() == image.role);
        let running = found.and_then(|found| found.running.as_ref());
        let reference = running.map_or("nothing", |running| running.image.as_str());
        read_back(node, &image.role, &image.reference, reference)?;
        // Without the id in the index, the agent's own comparison of manifest and running image stands.
        if let Some(expected) = &image.image_id {
            let found = running.map_or("", |running| &running.image_id);
            read_back(node, &format!("{} image id", image.role), expected, found)?;
        }
        if !found.is_some_and(|found| found.healthy) {
            return read_back(node, &image.role, "healthy", "no good answer from its own endpoint");
        }
        let mirror =
            cluster.control_plane_pods.iter().find(|pod| pod.node == *node && pod.component.name() == image.role);
        read_back(
            node,
            &format!("pod {}-{node}", image.role),
            &image.reference,
            mirror.map_or("no pod", |pod| &pod.image),
        )?;
        if !mirror.is_some_and(|pod| pod.ready) {
            return read_back(node, &format!("pod {}-{node}", image.role), "Ready", "not Ready");
        }
    }
    match &control_plane.etcd {
        EtcdFacts::External { .. } => Ok(()),
        EtcdFacts::Stacked { cluster: Observed::Unknown { problem, .. } } => Err(problem.clone()),
        EtcdFacts::Stacked { cluster: Observed::Known(etcd) } => {
            match etcd.members.iter().find(|member| member.healthy_version.is_none()) {
                None => Ok(()),
                Some(ill) => read_back(node, &format!("etcd member {}", ill.name), "healthy", "no good answer"),
            }
        }
    }
}

fn read_back(node: &NodeName, component: &str, expected: &str, found: &str) -> Result<(), Problem> {
    if expected == found {
        return Ok(());
    }
    let problem =
        Problem::new(Code::ReadBackMismatch).with("component", component).with("subject", format!("node {node}"));
    Err(problem.with("expected", expected).with("found", found))
}
