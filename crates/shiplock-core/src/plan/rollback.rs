//! Makes the plan that takes an upgrade back: the masters that it has swapped get their old kubelet and manifests again.
//!
//! It is offered only until the upgrade has touched add-ons; from then on the way is forward. etcd never goes back over a
//! minor version, and nothing is planned for a master whose copies are not there.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::control_plane::{API_AWAY_SECONDS, tag};
use super::elsewhere::drained_where_possible;
use super::make::{BASELINE_TIMEOUT_SECONDS, COMPONENT_TIMEOUT_SECONDS, CORDON_TIMEOUT_SECONDS};
use super::{DrainDecision, Mode, NodePlan, Note, Plan, PlanOptions, Stage, StageKind, stage_name};
use crate::artefact::{ArtefactImage, ArtefactIndex};
use crate::estimate::MeasuredTimes;
use crate::facts::{AgentFacts, ClusterFacts, ControlPlaneComponent, ControlPlaneFacts, KeptControlPlane, NodeFacts};
use crate::id::{Actor, NodeName, PlanId, StepNumber, UpgradeId};
use crate::language::Language;
use crate::problem::{Code, Problem};
use crate::step::{Action, ControlPlaneRestore, ControlPlaneUpgrade, Step, Target};
use crate::upgrade::Upgrade;
use crate::version::KubernetesVersion;

/// Objects of an API that only the newer version serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NewApiObjects {
    /// `admissionregistration.k8s.io/v1 MutatingAdmissionPolicy`
    pub api: String,
    /// How many there are.
    pub count: u64,
    /// The first of them, `namespace/name` or `name`.
    pub names: Vec<String>,
}

/// All that a rollback is planned from.
#[derive(Clone, Copy, Debug)]
pub struct RollbackInput<'a> {
    /// The id of the new plan.
    pub id: &'a PlanId,
    /// The time.
    pub now: Timestamp,
    /// Who asks.
    pub by: &'a Actor,
    /// The upgrade that is to be taken back, folded from its log.
    pub upgrade: &'a Upgrade,
    /// An upgrade of the cluster that came after it and does not take it back.
    pub newer: Option<&'a UpgradeId>,
    /// The checks whose findings may pass.
    pub accept: &'a [String],
    /// The cluster as it is.
    pub facts: &'a ClusterFacts,
    /// The agents by node.
    pub agents: &'a BTreeMap<NodeName, AgentFacts>,
    /// The mirror's root as agents reach it, and what it holds; none where it cannot be read: then old images must
    /// still be on the nodes.
    pub mirror: Option<(&'a str, &'a ArtefactIndex)>,
    /// The objects of APIs that the older version does not serve, or why they could not be read.
    pub new_apis: &'a Result<Vec<NewApiObjects>, Problem>,
    /// How long steps took in this cluster's earlier upgrades.
    pub measured: &'a MeasuredTimes,
}

/// Makes the plan, or says why there is none.
pub fn make_rollback(input: &RollbackInput<'_>) -> Result<Plan, Problem> {
    let RollbackInput { upgrade, facts, .. } = *input;
    let before = &upgrade.plan;
    may_be_taken_back(input)?;
    let options = PlanOptions { accept: input.accept.to_vec(), ..before.options.clone() };
    options.check()?;
    let to = before.control_plane;
    let control_plane = facts.api_servers.iter().map(|server| server.version).min().ok_or_else(|| {
        let problem = Problem::new(Code::ClusterAnswer).with("verb", "get").with("resource", "/version");
        problem.cause("no API server was read")
    })?;

    let mut work = Work { input, options: &options, numbers: 0, notes: Vec::new() };
    let baseline = work.step(Action::CaptureBaseline, Target::Cluster, BASELINE_TIMEOUT_SECONDS);
    let configuration = work.configuration();
    let mut back = Vec::new();
    for planned in touched(upgrade) {
        back.extend(work.master(planned)?);
    }
    if back.is_empty() && configuration.is_none() {
        let nothing = Problem::new(Code::NothingToTakeBack).with("upgrade", &upgrade.id);
        let nothing = nothing.with("cluster", &before.cluster).with("version", to);
        return Err(match upgrade.in_flight().next() {
            Some(_) => {
                nothing.cause("the upgrade is in work: pause it and ask again when what has started is finished")
            }
            None => nothing,
        });
    }
    check_kubelets_after(facts, &back, to)?;
    let verify = Action::VerifyCluster { kubelet: to };
    let verify = work.step(verify, Target::Cluster, options.gate_timeout_seconds);
    let mut notes = work.notes;
    if let ([only], 1) = (back.as_slice(), masters(facts)) {
        notes.push(Note::ApiAway { node: only.node.clone(), seconds: API_AWAY_SECONDS });
    }
    match input.new_apis {
        Ok(found) => notes.extend(found.iter().cloned().map(Note::NewApiObjects)),
        Err(problem) => notes.push(Note::NewApisUnknown { problem: problem.clone() }),
    }
    let stage = |kind, steps, nodes| Stage { kind, steps, nodes };
    let mut plan = Plan {
        id: input.id.clone(),
        hash: String::new(),
        created_at: input.now,
        created_by: input.by.clone(),
        cluster: before.cluster.clone(),
        cluster_uid: facts.uid.clone(),
        catalogue: before.catalogue.clone(),
        mode: Mode::Rollback,
        control_plane,
        to,
        // The graph leads forward only.
        hops: Vec::new(),
        stages: [
            Some(stage(StageKind::Preparation, vec![baseline], Vec::new())),
            // In the opposite order of the way there: a kubeadm that joins a node meanwhile takes the older version.
            configuration.map(|step| stage(StageKind::ClusterConfiguration, vec![step], Vec::new())),
            (!back.is_empty()).then(|| stage(StageKind::ControlPlane, Vec::new(), back)),
            Some(stage(StageKind::Verification, vec![verify], Vec::new())),
        ]
        .into_iter()
        .flatten()
        .collect(),
        options,
        notes,
        measured: input.measured.ranges(),
    };
    plan.provide_evidence();
    plan.hash = plan.content_hash();
    Ok(plan)
}

/// Whether the upgrade is one that can be taken back, and has not gone too far.
fn may_be_taken_back(input: &RollbackInput<'_>) -> Result<(), Problem> {
    let upgrade = input.upgrade;
    let refused = |why: &str| Problem::new(Code::RollbackRefused).with("upgrade", &upgrade.id).with("why", why);
    if upgrade.plan.mode == Mode::Rollback {
        return Err(refused("it is itself a way back; upgrade again instead"));
    }
    if let Some(newest) = input.newer {
        let problem = Problem::new(Code::RollbackNotNewest).with("upgrade", &upgrade.id);
        return Err(problem.with("newest", newest));
    }
    let mut stages = upgrade.plan.stages.iter().enumerate();
    let beyond = |kind: &StageKind| {
        !matches!(
            kind,
            StageKind::Preparation
                | StageKind::Backup
                | StageKind::ControlPlane
                | StageKind::ClusterConfiguration
                | StageKind::Soak { .. }
        )
    };
    if let Some((_, stage)) =
        stages.find(|(index, stage)| upgrade.stages_started.contains(index) && beyond(&stage.kind))
    {
        let problem = Problem::new(Code::RollbackTooLate).with("upgrade", &upgrade.id);
        let name = |language| stage_name(stage.kind.word(), language);
        return Err(problem.with("stage", name(Language::En)).with("stage_zh", name(Language::Zh)));
    }
    if !upgrade.plan.stages.iter().any(|stage| stage.kind == StageKind::ControlPlane) {
        return Err(refused("it does not touch the control plane"));
    }
    Ok(())
}

/// The masters that the upgrade has begun to swap, the last one first.
fn touched(upgrade: &Upgrade) -> Vec<&NodePlan> {
    let stages = upgrade.plan.stages.iter().enumerate().filter(|(_, stage)| stage.kind == StageKind::ControlPlane);
    let mut touched = Vec::new();
    for (index, stage) in stages {
        let taken = upgrade.batches.get(&index).into_iter().flatten().flat_map(|batch| &batch.nodes);
        let nodes = taken.filter_map(|name| stage.nodes.iter().find(|node| node.node == *name));
        touched.extend(nodes.filter(|node| swaps(upgrade, node).next().is_some()));
    }
    touched.reverse();
    touched
}

/// The swaps of a master that have begun.
fn swaps<'a>(
    upgrade: &'a Upgrade,
    node: &'a NodePlan,
) -> impl DoubleEndedIterator<Item = (StepNumber, &'a ControlPlaneUpgrade)> {
    node.steps.iter().filter_map(|step| match &step.action {
        Action::UpgradeControlPlane(swap) if upgrade.step_status(step).is_some() => Some((step.number, &**swap)),
        _ => None,
    })
}

/// etcd alone over a minor version is all that a swap did: there is nothing to put back.
fn is_only_staying_etcd(swap: &ControlPlaneUpgrade) -> bool {
    swap.etcd_minor_changes && swap.components == [ControlPlaneComponent::Etcd]
}

fn masters(facts: &ClusterFacts) -> usize {
    facts.nodes.values().filter(|node| node.is_control_plane()).count()
}

/// No kubelet may be newer than the API servers afterwards,
/// see <https://kubernetes.io/releases/version-skew-policy/#kubelet>.
fn check_kubelets_after(facts: &ClusterFacts, nodes: &[NodePlan], to: KubernetesVersion) -> Result<(), Problem> {
    let back: BTreeSet<&NodeName> = nodes.iter().map(|node| &node.node).collect();
    for (name, node) in facts.nodes.iter().filter(|(name, _)| !back.contains(name)) {
        let kubelet = kubelet_of(name, node)?;
        if kubelet > to {
            let problem = Problem::new(Code::KubeletNewerThanApiServer).with("kubelet", kubelet).with("nodes", name);
            return Err(problem.with("api_server", to));
        }
    }
    Ok(())
}

fn kubelet_of(name: &NodeName, node: &NodeFacts) -> Result<KubernetesVersion, Problem> {
    node.kubelet().ok_or_else(|| {
        Problem::new(Code::NotAVersion).with("text", &node.kubelet_version).cause(format!("kubelet of node {name}"))
    })
}

struct Work<'a> {
    input: &'a RollbackInput<'a>,
    options: &'a PlanOptions,
    numbers: u32,
    notes: Vec<Note>,
}

impl Work<'_> {
    fn step(&mut self, action: Action, target: Target, timeout_seconds: u32) -> Step {
        self.numbers += 1;
        Step { number: StepNumber(self.numbers), action, target, timeout_seconds }
    }

    /// The way back of what the cluster keeps for all nodes; none where the upgrade has not come to it.
    fn configuration(&mut self) -> Option<Step> {
        let upgrade = self.input.upgrade;
        let is_upload = |step: &&Step| matches!(step.action, Action::UploadConfiguration { .. });
        let uploaded = upgrade.plan.steps().find(is_upload).filter(|step| upgrade.step_status(step).is_some())?;
        let action = Action::RestoreConfiguration { upgrade: upgrade.id.clone(), step: uploaded.number };
        Some(self.step(action, uploaded.target.clone(), uploaded.timeout_seconds))
    }

    /// The way back of one master; none where it is as it was before.
    fn master(&mut self, planned: &NodePlan) -> Result<Option<NodePlan>, Problem> {
        let RollbackInput { upgrade, facts, agents, .. } = *self.input;
        let name = &planned.node;
        let refused = |why: String| Problem::new(Code::RollbackRefused).with("upgrade", &upgrade.id).with("why", why);
        let node = facts.nodes.get(name).ok_or_else(|| refused(format!("master {name} is gone")))?;
        let cluster = &upgrade.plan.cluster;
        let agent = agents
            .get(name)
            .ok_or_else(|| Problem::new(Code::AgentMissing).with("node", name).with("cluster", cluster))?;
        let Some(now) = agent.machine.control_plane.as_deref() else {
            return Err(refused(format!("master {name} has no static pods of a control plane now")));
        };
        if let Some((_, swap)) = swaps(upgrade, planned).find(|(_, swap)| swap.etcd_minor_changes)
            && let Some(etcd) = swap.images.iter().find(|image| image.role == ControlPlaneComponent::Etcd.name())
            && !self.notes.iter().any(|note| matches!(note, Note::EtcdStays { .. }))
        {
            self.notes.push(Note::EtcdStays { version: tag(&etcd.reference).to_owned() });
        }
        let Some((number, swap)) = swaps(upgrade, planned).rfind(|(_, swap)| !is_only_staying_etcd(swap)) else {
            return Ok(None);
        };
        let kubelet = kubelet_of(name, node)?;
        if is_as_before(now, swap) && kubelet == planned.kubelet_from {
            return Ok(None);
        }
        let kept = now.kept.iter().rfind(|kept| kept.upgrade == upgrade.id && kept.step == number);
        let kept =
            kept.ok_or_else(|| refused(format!("master {name} keeps no copy of what the upgrade replaced there")))?;
        let etcd_stays = swap.etcd_minor_changes;
        let images = images_after(now, kept, etcd_stays);
        self.notes.push(changes(name, now, &images, (kubelet, planned.kubelet_from)));
        self.steps(planned, node, (number, kept), images, etcd_stays).map(Some)
    }

    fn steps(
        &mut self,
        planned: &NodePlan,
        node: &NodeFacts,
        (number, kept): (StepNumber, &KeptControlPlane),
        images: Vec<(ControlPlaneComponent, String)>,
        etcd_stays: bool,
    ) -> Result<NodePlan, Problem> {
        let RollbackInput { upgrade, facts, mirror, .. } = *self.input;
        let target = Target::Node(planned.node.clone());
        let held = |reference: &str| {
            let releases = mirror.into_iter().flat_map(|(_, index)| &index.releases);
            let mut images = releases.flat_map(|release| &release.images);
            images.find(|image| image.reference == reference && image.architecture == node.architecture).cloned()
        };
        let version = kept.images.iter().find(|image| image.component == ControlPlaneComponent::KubeApiserver);
        let version =
            version.and_then(|image| tag(&image.reference).parse().ok()).unwrap_or(upgrade.plan.control_plane);
        let restore = ControlPlaneRestore {
            upgrade: upgrade.id.clone(),
            step: number,
            intent: kept.intent,
            version,
            is_only: masters(facts) == 1,
            etcd_stays,
            mirror: mirror.map(|(root, _)| root.to_owned()),
            images: images.iter().filter_map(|(_, reference)| held(reference)).collect(),
        };
        let verify = Action::VerifyNode {
            kubelet: planned.kubelet_from,
            // The agent compares what runs with its copies; the plan knows no digests of them.
            kubelet_sha256: None,
            container_runtime: None,
            container_runtime_sha256: None,
            control_plane_images: images
                .into_iter()
                .map(|(component, reference)| named(component, reference))
                .collect(),
        };
        let mut steps = vec![self.step(Action::Cordon, target.clone(), CORDON_TIMEOUT_SECONDS)];
        let drain = match planned.drain {
            // What the other nodes take may have changed since.
            DrainDecision::Drain | DrainDecision::SkippedNowhereToGo => {
                drained_where_possible(&facts.nodes, &planned.node)
            }
            decided => decided,
        };
        if drain == DrainDecision::SkippedNowhereToGo {
            self.notes.push(Note::DrainSkipped { node: planned.node.clone() });
        }
        if drain == DrainDecision::Drain {
            let (action, timeout_seconds) = self.options.drain_action();
            steps.push(self.step(action, target.clone(), timeout_seconds));
        }
        let restore = Action::RestoreControlPlane(Box::new(restore));
        steps.push(self.step(restore, target.clone(), COMPONENT_TIMEOUT_SECONDS));
        steps.push(self.step(verify, target.clone(), self.options.node_ready_timeout_seconds));
        steps.push(self.step(Action::Uncordon, target, CORDON_TIMEOUT_SECONDS));
        Ok(NodePlan {
            node: planned.node.clone(),
            uid: node.uid.clone(),
            machine_id: node.machine_id.clone(),
            kubelet_from: kubelet_of(&planned.node, node)?,
            container_runtime_from: node.container_runtime_version.clone(),
            cordoned_before: node.unschedulable && node.owner.is_none(),
            drain,
            steps,
            evidence: None,
        })
    }
}

/// Whether none of the Kubernetes components on a master has the image that the swap brought.
fn is_as_before(now: &ControlPlaneFacts, swap: &ControlPlaneUpgrade) -> bool {
    let brought = |component: ControlPlaneComponent, reference: &str| {
        component != ControlPlaneComponent::Etcd
            && swap.images.iter().any(|image| image.role == component.name() && image.reference == reference)
    };
    !now.components.iter().any(|pod| {
        let runs = pod.running.as_ref().is_some_and(|running| brought(pod.component, &running.image));
        brought(pod.component, &pod.image) || runs
    })
}

/// What each component runs afterwards: the kept manifest's image, and where nothing was replaced, that of now.
fn images_after(
    now: &ControlPlaneFacts,
    kept: &KeptControlPlane,
    etcd_stays: bool,
) -> Vec<(ControlPlaneComponent, String)> {
    let after = |component: ControlPlaneComponent| {
        let stays = etcd_stays && component == ControlPlaneComponent::Etcd;
        let old = kept.images.iter().find(|image| image.component == component).filter(|_| !stays);
        let current = || now.components.iter().find(|pod| pod.component == component).map(|pod| pod.image.clone());
        Some((component, old.map(|image| image.reference.clone()).or_else(current)?))
    };
    ControlPlaneComponent::ALL.into_iter().filter_map(after).collect()
}

fn changes(
    node: &NodeName,
    now: &ControlPlaneFacts,
    after: &[(ControlPlaneComponent, String)],
    (kubelet, kubelet_after): (KubernetesVersion, KubernetesVersion),
) -> Note {
    let mut changes = Vec::new();
    if kubelet != kubelet_after {
        changes.push(format!("kubelet {kubelet} → {kubelet_after}"));
    }
    for (component, reference) in after {
        let current = now.components.iter().find(|pod| pod.component == *component).map_or("", |pod| &pod.image);
        if current != reference {
            changes.push(format!("{} {} → {}", component.name(), tag(current), tag(reference)));
        }
    }
    Note::MasterGoesBack { node: node.clone(), changes }
}

/// An image that is only named: what runs is compared with the copies, not with a mirror.
fn named(component: ControlPlaneComponent, reference: String) -> ArtefactImage {
    ArtefactImage {
        role: component.name().to_owned(),
        reference,
        architecture: String::new(),
        path: String::new(),
        size_bytes: 0,
        sha256: String::new(),
        digest: String::new(),
        image_id: None,
    }
}
