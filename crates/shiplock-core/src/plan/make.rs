//! Makes a plan from facts. Refuses with a [`Problem`] what would be wrong before anything is touched.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::control_plane::{self, Master};
use super::elsewhere::drained_where_possible;
use super::soak;
use super::{
    ContainerRuntimePolicy, DrainDecision, DrainPolicy, Mode, NodePlan, Note, Plan, PlanRequest, Stage, StageKind,
};
use crate::artefact::{ArtefactFile, ArtefactIndex};
use crate::catalogue::{Catalogue, Hop, VersionRequest};
use crate::estimate::MeasuredTimes;
use crate::facts::{AgentFacts, ClusterFacts, InstallMethod, NodeFacts, Observed, PodFacts, Readiness};
use crate::id::{Actor, ClusterName, NodeName, PlanId, PoolName, StepNumber};
use crate::planted::{self, Bug};
use crate::problem::{Code, Problem};
use crate::step::{Action, Step, Target};
use crate::version::{KubernetesVersion, MinorVersion};

/// A note names so many objects.
const NAMES_MAX: usize = 10;

/// All that a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct PlanInput<'a> {
    /// The id of the new plan.
    pub id: &'a PlanId,
    /// The time.
    pub now: Timestamp,
    /// Who asks.
    pub by: &'a Actor,
    /// The registered cluster.
    pub cluster: &'a ClusterName,
    /// What was asked.
    pub request: &'a PlanRequest,
    /// The catalogue.
    pub catalogue: &'a Catalogue,
    /// The cluster as it is.
    pub facts: &'a ClusterFacts,
    /// The agents by node.
    pub agents: &'a BTreeMap<NodeName, AgentFacts>,
    /// The mirror's root as agents reach it.
    pub mirror: &'a str,
    /// What the mirror holds.
    pub artefacts: &'a ArtefactIndex,
    /// How long steps took in this cluster's earlier upgrades.
    pub measured: &'a MeasuredTimes,
}

/// Executables that go onto a node with a kubelet.
pub(super) const KUBELET_ROLES: &[&str] = &["kubeadm", "kubectl", "kubelet"];
/// Executables that go onto a node with containerd.
pub(super) const CONTAINERD_ROLES: &[&str] = &["containerd", "containerd-shim-runc-v2", "ctr"];

pub(super) const CORDON_TIMEOUT_SECONDS: u32 = 60;
pub(super) const BASELINE_TIMEOUT_SECONDS: u32 = 120;
const PREFETCH_TIMEOUT_SECONDS: u32 = 30 * 60;
pub(super) const COMPONENT_TIMEOUT_SECONDS: u32 = 10 * 60;

/// Makes a plan, or says why there is none.
pub fn make_plan(input: &PlanInput<'_>) -> Result<Plan, Problem> {
    let PlanInput { request, catalogue, facts, .. } = *input;
    request.options.check()?;
    if request.mode == Mode::Rollback {
        let problem = Problem::new(Code::BadOption).with("option", "mode").with("value", "rollback");
        return Err(problem.with("why", "an upgrade is taken back by its own request, `shiplock rollback UPGRADE`"));
    }
    let control_plane = facts.control_plane_version()?;
    if let Some(oldest) = catalogue.oldest().filter(|oldest| control_plane.release < *oldest) {
        return Err(Problem::new(Code::BelowSupportedRange).with("version", control_plane).with("oldest", oldest));
    }
    let to = target(input, control_plane)?;
    let masters = match request.mode {
        Mode::NodePools | Mode::Rollback => Vec::new(),
        Mode::Cluster | Mode::ControlPlane => control_plane::select(input, control_plane, to)?,
    };
    let addons_behind = request.mode != Mode::NodePools && control_plane::addons_behind(input, to)?;
    let soak = soak::emulated(input, control_plane, to, &masters)?;
    let control_plane_works = !masters.is_empty() || addons_behind;
    let mut selection = match request.mode {
        Mode::ControlPlane | Mode::Rollback => Selection::default(),
        Mode::Cluster | Mode::NodePools => select(input, to)?,
    };
    if !selection.selected_any && request.mode == Mode::NodePools {
        return Err(Problem::new(Code::NoWorkers));
    }
    if selection.pools.is_empty() && !control_plane_works {
        return Err(nothing_to_do(&selection, to));
    }
    if masters.is_empty() {
        check_skew(input, to, &selection)?;
    } else {
        control_plane::check_skew_after(input, to)?;
        let hop = Hop { from: control_plane, to };
        if control_plane != to && !selection.hops.contains(&hop) {
            selection.hops.insert(0, hop);
        }
    }

    let mut builder = Builder { input, to, numbers: 0, notes: selection.notes };
    builder.notes.extend(control_plane::notes(input, to, &masters, soak));
    let stages = builder.stages(&selection.pools, &masters, addons_behind, soak)?;
    let mut notes = builder.notes;
    let drains = stages.iter().flat_map(|stage| &stage.nodes).any(|node| node.drain == DrainDecision::Drain);
    notes.extend(
        facts
            .budgets
            .iter()
            .filter(|budget| drains && budget.disruptions_allowed <= 0 && budget.expected_pods > 0)
            .map(|budget| Note::BudgetAllowsNothing { budget: format!("{}/{}", budget.namespace, budget.name) }),
    );
    notes.extend(pods_not_made_anew(facts, &stages));
    let mut plan = Plan {
        id: input.id.clone(),
        hash: String::new(),
        created_at: input.now,
        created_by: input.by.clone(),
        cluster: input.cluster.clone(),
        cluster_uid: facts.uid.clone(),
        catalogue: catalogue.edition.clone(),
        mode: request.mode,
        control_plane,
        to,
        hops: selection.hops,
        stages,
        options: request.options.clone(),
        notes,
        measured: input.measured.ranges(),
    };
    plan.provide_evidence();
    plan.hash = plan.content_hash();
    Ok(plan)
}

/// Settles what the operator asked against what the control plane runs.
fn target(input: &PlanInput<'_>, control_plane: KubernetesVersion) -> Result<KubernetesVersion, Problem> {
    let catalogue = input.catalogue;
    // New nodes and pools follow the control plane: asking for its minor means its very version, which the
    // catalogue may be too old to know.
    let to = match input.request.to {
        VersionRequest::Newest(minor) if minor == control_plane.release => control_plane,
        VersionRequest::Exact(version) if version == control_plane => control_plane,
        VersionRequest::Newest(minor) => catalogue.newest_installable(minor, input.artefacts)?,
        exact @ VersionRequest::Exact(_) => catalogue.resolve(exact)?,
    };
    if input.request.mode != Mode::NodePools && to < control_plane {
        let problem = Problem::new(Code::Downgrade).with("subject", "the control plane").with("subject_zh", "控制面");
        return Err(problem.with("from", control_plane).with("to", to));
    }
    if to > control_plane {
        let hops = catalogue.hops(control_plane, to, input.artefacts)?;
        if to.release != control_plane.release && hops.len() > 1 {
            let path = std::iter::once(control_plane.to_string()).chain(hops.iter().map(|hop| hop.to.to_string()));
            return Err(Problem::new(Code::NoEdge)
                .with("from", control_plane)
                .with("to", to)
                .with("path", path.collect::<Vec<_>>().join(" → "))
                .with("next", hops[0].to.release));
        }
        if input.request.mode != Mode::NodePools {
            return Ok(to);
        }
        if to.release != control_plane.release {
            return Err(Problem::new(Code::ControlPlaneNotSupported).with("from", control_plane).with("to", to));
        }
        let nodes =
            input.facts.nodes.iter().filter(|(_, node)| !node.is_control_plane()).map(|(name, _)| name.as_str());
        return Err(Problem::new(Code::KubeletNewerThanApiServer)
            .with("kubelet", to)
            .with("nodes", nodes.collect::<Vec<_>>().join(", "))
            .with("api_server", control_plane));
    }
    Ok(to)
}

#[derive(Default)]
struct Selection<'a> {
    selected_any: bool,
    pools: BTreeMap<PoolName, Vec<(&'a NodeName, &'a NodeFacts, KubernetesVersion)>>,
    hops: Vec<Hop>,
    notes: Vec<Note>,
}

/// Picks the nodes that will be touched and refuses what may not be.
fn select<'a>(input: &PlanInput<'a>, to: KubernetesVersion) -> Result<Selection<'a>, Problem> {
    let PlanInput { request, facts, .. } = *input;
    let workers: BTreeMap<&NodeName, &NodeFacts> =
        facts.nodes.iter().filter(|(_, node)| !node.is_control_plane()).collect();
    let known_pools: BTreeSet<PoolName> = workers.values().map(|node| node.pool()).collect();
    if let Some(pool) = request.pools.iter().find(|pool| !known_pools.contains(*pool)) {
        let known = known_pools.iter().map(PoolName::as_str).collect::<Vec<_>>().join(", ");
        return Err(Problem::new(Code::PoolUnknown)
            .with("cluster", input.cluster)
            .with("pool", pool)
            .with("known", known));
    }
    if let Some(node) = request.nodes.iter().chain(&request.exclude_nodes).find(|node| !workers.contains_key(*node)) {
        return Err(Problem::new(Code::NodeUnknown).with("cluster", input.cluster).with("node", node));
    }
    let mut selection = Selection::default();
    for (name, node) in workers {
        let pool = node.pool();
        let selected = (request.pools.is_empty() || request.pools.contains(&pool))
            && (request.nodes.is_empty() || request.nodes.contains(name))
            && !request.exclude_nodes.contains(name);
        if !selected {
            continue;
        }
        selection.selected_any = true;
        let kubelet = node.kubelet().ok_or_else(|| {
            Problem::new(Code::NotAVersion).with("text", &node.kubelet_version).cause(format!("kubelet of node {name}"))
        })?;
        if kubelet > to {
            return Err(Problem::new(Code::Downgrade)
                .with("subject", format!("node {name}"))
                .with("from", kubelet)
                .with("to", to));
        }
        if kubelet == to && !runtime_needs_work(input, node, to)? {
            selection.notes.push(Note::NodeUpToDate { node: name.clone() });
            continue;
        }
        if let Readiness::NotReady { why } = &node.ready
            && !agent_is_live(input, name)
        {
            selection.notes.push(Note::NodeNotReady { node: name.clone(), why: why.clone() });
            continue;
        }
        if node.unschedulable && node.owner.is_none() {
            selection.notes.push(Note::NodeCordonedByOthers { node: name.clone() });
        }
        let hop = Hop { from: kubelet, to };
        if kubelet != to && !selection.hops.contains(&hop) {
            selection.hops.push(hop);
        }
        selection.pools.entry(pool).or_default().push((name, node, kubelet));
    }
    Ok(selection)
}

fn nothing_to_do(selection: &Selection<'_>, to: KubernetesVersion) -> Problem {
    let problem = Problem::new(Code::NothingToDo).with("subject", "everything that was chosen").with("version", to);
    selection.notes.iter().fold(problem, |problem, note| match note {
        Note::NodeNotReady { node, why } => problem.cause(format!("node {node} is left out, it is not Ready: {why}")),
        _ => problem,
    })
}

/// The target must be legal against every API server, also where instances differ: a kubelet may meet any.
fn check_skew(input: &PlanInput<'_>, to: KubernetesVersion, selection: &Selection<'_>) -> Result<(), Problem> {
    for server in &input.facts.api_servers {
        let api_server = server.version;
        for (pool, nodes) in &selection.pools {
            let names = || nodes.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", ");
            if to > api_server || to.release > server.behaves_like() {
                return Err(Problem::new(Code::KubeletNewerThanApiServer)
                    .with("kubelet", to)
                    .with("nodes", names())
                    .with("api_server", server.described()));
            }
            if !input.catalogue.kubelet_skew_legal(to, api_server) {
                return Err(Problem::new(Code::SkewTooWide)
                    .with("kubelet", to)
                    .with("nodes", names())
                    .with("pool", pool)
                    .with("allowed", input.catalogue.kubelet_minors_older_max(to.release))
                    .with("api_server", api_server));
            }
        }
    }
    Ok(())
}

/// An agent that spoke within this time is live; polls come every few seconds.
const LIVE_SECONDS: i64 = 60;

pub(super) fn agent_is_live(input: &PlanInput<'_>, node: &NodeName) -> bool {
    input.agents.get(node).is_some_and(|agent| input.now.as_second() - agent.last_heard_at.as_second() <= LIVE_SECONDS)
}

/// The containerd version that the mirror holds for the node, where it is newer than what runs.
/// The pods without a controller on nodes that are drained.
fn pods_not_made_anew(facts: &ClusterFacts, stages: &[Stage]) -> Option<Note> {
    let drained: BTreeSet<&NodeName> = stages
        .iter()
        .flat_map(|stage| &stage.nodes)
        .filter(|node| node.drain == DrainDecision::Drain)
        .map(|node| &node.node)
        .collect();
    let is_lost = |pod: &&PodFacts| {
        pod.controller.is_none() && !pod.is_mirror && pod.node.as_ref().is_some_and(|node| drained.contains(node))
    };
    let mut names: Vec<String> =
        facts.pods.iter().filter(is_lost).map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    names.sort_unstable();
    let count = names.len();
    names.truncate(NAMES_MAX);
    (count > 0).then_some(Note::PodsNotMadeAnew { count, names })
}

pub(super) fn runtime_target<'a>(
    input: &PlanInput<'a>,
    node: &NodeFacts,
    to: KubernetesVersion,
) -> Result<Option<&'a ArtefactFile>, Problem> {
    if input.request.options.container_runtime == ContainerRuntimePolicy::Keep {
        return Ok(None);
    }
    let Some(current) = node.container_runtime_version.strip_prefix("containerd://") else { return Ok(None) };
    let file = input.artefacts.file(to, "containerd", &node.architecture)?;
    Ok((version_key(&file.version) > version_key(current)).then_some(file))
}

/// Whether the runtime goes to another major version, which counts as another runtime: a node is drained before, see
/// <https://kubernetes.io/docs/tasks/administer-cluster/migrating-from-dockershim/change-runtime-containerd/>.
fn is_other_major(node: &NodeFacts, runtime: Option<&ArtefactFile>) -> bool {
    let current = node.container_runtime_version.strip_prefix("containerd://").unwrap_or_default();
    runtime.is_some_and(|file| version_key(&file.version).first() != version_key(current).first())
}

pub(super) fn runtime_needs_work(
    input: &PlanInput<'_>,
    node: &NodeFacts,
    to: KubernetesVersion,
) -> Result<bool, Problem> {
    runtime_target(input, node, to).map(|target| target.is_some())
}

/// The numbers of a version like `v2.2.9` or `1.6.20~ds1`, for comparison.
fn version_key(text: &str) -> Vec<u64> {
    text.trim_start_matches('v')
        .split(['-', '+', '~'])
        .next()
        .unwrap_or_default()
        .split('.')
        .map(|part| part.parse().unwrap_or(0))
        .collect()
}

pub(super) struct Builder<'a> {
    pub(super) input: &'a PlanInput<'a>,
    pub(super) to: KubernetesVersion,
    numbers: u32,
    notes: Vec<Note>,
}

impl Builder<'_> {
    pub(super) fn step(&mut self, action: Action, target: Target, timeout_seconds: u32) -> Step {
        self.numbers += 1;
        Step { number: StepNumber(self.numbers), action, target, timeout_seconds }
    }

    fn stages(
        &mut self,
        pools: &BTreeMap<PoolName, Vec<(&NodeName, &NodeFacts, KubernetesVersion)>>,
        masters: &[Master<'_>],
        addons_behind: bool,
        soak: Option<MinorVersion>,
    ) -> Result<Vec<Stage>, Problem> {
        let mut preparation = vec![self.step(Action::CaptureBaseline, Target::Cluster, BASELINE_TIMEOUT_SECONDS)];
        for (master, action) in self.prefetch_to_masters(masters)? {
            preparation.push(self.step(action, Target::Node(master), PREFETCH_TIMEOUT_SECONDS));
        }
        let with_addons = !masters.is_empty() || addons_behind;
        for (name, node, kubelet) in pools.values().flatten() {
            let action = self.prefetch(name, node, *kubelet, with_addons)?;
            preparation.push(self.step(action, Target::Node((*name).clone()), PREFETCH_TIMEOUT_SECONDS));
        }
        if with_addons {
            let planned: BTreeSet<&NodeName> = masters.iter().map(|master| master.name).collect();
            let planned = pools.values().flatten().map(|(name, ..)| *name).chain(planned).collect();
            for (name, action) in self.prefetch_to_others(&planned, masters.is_empty())? {
                preparation.push(self.step(action, Target::Node(name), PREFETCH_TIMEOUT_SECONDS));
            }
        }
        let mut stages = vec![Stage { kind: StageKind::Preparation, steps: preparation, nodes: Vec::new() }];
        stages.extend(self.control_plane_stages(masters, addons_behind, soak)?);
        for (pool, nodes) in pools {
            let nodes =
                nodes.iter().map(|(name, node, kubelet)| self.node(name, node, *kubelet)).collect::<Result<_, _>>()?;
            stages.push(Stage { kind: StageKind::NodePool { pool: pool.clone() }, steps: Vec::new(), nodes });
        }
        if planted::is(Bug::PoolsFirst) {
            stages.sort_by_key(|stage| match stage.kind {
                StageKind::Preparation => 0,
                StageKind::NodePool { .. } => 1,
                _ => 2,
            });
        }
        let verify = Action::VerifyCluster { kubelet: self.to };
        let verify = self.step(verify, Target::Cluster, self.input.request.options.gate_timeout_seconds);
        stages.push(Stage { kind: StageKind::Verification, steps: vec![verify], nodes: Vec::new() });
        Ok(stages)
    }

    pub(super) fn files(&self, roles: &[&str], architecture: &str) -> Result<Vec<ArtefactFile>, Problem> {
        roles.iter().map(|role| self.input.artefacts.file(self.to, role, architecture).cloned()).collect()
    }

    fn prefetch(
        &self,
        name: &NodeName,
        node: &NodeFacts,
        kubelet: KubernetesVersion,
        with_addons: bool,
    ) -> Result<Action, Problem> {
        self.check_install(name, kubelet)?;
        let mut files = Vec::new();
        let mut images = if with_addons { self.addon_images(&node.architecture)? } else { Vec::new() };
        if kubelet != self.to {
            files.extend(self.files(KUBELET_ROLES, &node.architecture)?);
            // What a node at the new version starts by itself: its pause container and kube-proxy.
            for role in ["kube-proxy", "pause"] {
                let image = self.input.artefacts.image(self.to, role, &node.architecture)?;
                if !images.contains(image) {
                    images.push(image.clone());
                }
            }
        }
        if runtime_target(self.input, node, self.to)?.is_some() {
            files.extend(self.files(CONTAINERD_ROLES, &node.architecture)?);
        }
        Ok(Action::Prefetch { mirror: self.input.mirror.to_owned(), files, images })
    }

    /// What the agent would refuse on the node is refused here, before anything is touched.
    pub(super) fn check_install(&self, name: &NodeName, kubelet: KubernetesVersion) -> Result<(), Problem> {
        let Some(agent) = self.input.agents.get(name) else { return Ok(()) };
        if kubelet != self.to
            && let Observed::Known(component) = &agent.machine.kubelet
            && component.install != InstallMethod::Binary
        {
            return Err(Problem::new(Code::InstallNotSupported)
                .with("component", "kubelet")
                .with("node", name)
                .with("method", component.install.label()));
        }
        Ok(())
    }

    fn node(&mut self, name: &NodeName, node: &NodeFacts, kubelet: KubernetesVersion) -> Result<NodePlan, Problem> {
        let options = &self.input.request.options;
        let target = Target::Node(name.clone());
        let (drain, runtime, mut steps) = self.emptied_with_runtime(name, node, kubelet)?;
        let mut kubelet_sha256 = None;
        if kubelet != self.to {
            let files = self.files(KUBELET_ROLES, &node.architecture)?;
            kubelet_sha256 = files.iter().find(|file| file.role == "kubelet").map(|file| file.sha256.clone());
            let action = Action::UpgradeKubelet { version: self.to, files };
            steps.push(self.step(action, target.clone(), COMPONENT_TIMEOUT_SECONDS));
        }
        let verify = Action::VerifyNode {
            kubelet: self.to,
            kubelet_sha256,
            container_runtime: runtime.as_ref().map(|file| file.version.clone()),
            container_runtime_sha256: runtime.map(|file| file.sha256),
            control_plane_images: Vec::new(),
        };
        steps.push(self.step(verify, target.clone(), options.node_ready_timeout_seconds));
        steps.push(self.step(Action::Uncordon, target, CORDON_TIMEOUT_SECONDS));
        Ok(NodePlan {
            node: name.clone(),
            uid: node.uid.clone(),
            machine_id: node.machine_id.clone(),
            kubelet_from: kubelet,
            container_runtime_from: node.container_runtime_version.clone(),
            cordoned_before: node.unschedulable && node.owner.is_none(),
            drain,
            steps,
            evidence: None,
        })
    }

    /// The first steps of any node: it is emptied, and its container runtime is upgraded where that is due.
    pub(super) fn emptied_with_runtime(
        &mut self,
        name: &NodeName,
        node: &NodeFacts,
        kubelet: KubernetesVersion,
    ) -> Result<(DrainDecision, Option<ArtefactFile>, Vec<Step>), Problem> {
        let options = &self.input.request.options;
        let runtime = runtime_target(self.input, node, self.to)?.cloned();
        let drain = self.drain_decision(name, kubelet, is_other_major(node, runtime.as_ref()));
        if drain == DrainDecision::SkippedNowhereToGo {
            self.notes.push(Note::DrainSkipped { node: name.clone() });
        }
        let target = Target::Node(name.clone());
        let mut steps = vec![self.step(Action::Cordon, target.clone(), CORDON_TIMEOUT_SECONDS)];
        if drain == DrainDecision::Drain {
            let (action, timeout_seconds) = options.drain_action();
            steps.push(self.step(action, target.clone(), timeout_seconds));
        }
        if let Some(containerd) = &runtime {
            let pause = self.input.artefacts.image(self.to, "pause", &node.architecture)?;
            let action = Action::UpgradeContainerRuntime {
                version: containerd.version.clone(),
                files: self.files(CONTAINERD_ROLES, &node.architecture)?,
                sandbox_image: (kubelet != self.to).then(|| pause.reference.clone()),
            };
            steps.push(self.step(action, target, COMPONENT_TIMEOUT_SECONDS));
        }
        Ok((drain, runtime, steps))
    }

    fn drain_decision(&self, name: &NodeName, kubelet: KubernetesVersion, other_runtime: bool) -> DrainDecision {
        match self.input.request.options.drain {
            DrainPolicy::Never => DrainDecision::SkippedByOption,
            DrainPolicy::Auto if kubelet.release == self.to.release && !other_runtime => DrainDecision::SkippedForPatch,
            DrainPolicy::Auto | DrainPolicy::Always => drained_where_possible(&self.input.facts.nodes, name),
        }
    }
}
