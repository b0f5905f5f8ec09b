//! The plan of an upgrade: what will be done, in which order, with which bytes. Made before anything is touched
//! and never changed afterwards; only its steps may run.

mod control_plane;
#[cfg(test)]
mod control_plane_tests;
mod elsewhere;
mod make;
mod rollback;
#[cfg(test)]
mod rollback_tests;
mod soak;
#[cfg(test)]
mod soak_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(crate) use self::elsewhere::another_node_takes_pods;
pub use self::make::{PlanInput, make_plan};
pub use self::rollback::{NewApiObjects, RollbackInput, make_rollback};
use crate::catalogue::{Hop, VersionRequest};
use crate::estimate::Estimate;
use crate::facts::{ClusterFacts, NodeFacts};
use crate::id::{
    Actor, ClusterName, ClusterUid, NodeName, ObjectUid, PlanId, PoolName, StepNumber, UpgradeId, same_text,
};
use crate::language::Language;
use crate::planted::{self, Bug};
use crate::problem::{Code, Problem};
use crate::step::{Action, ControlPlaneMethod, OnDrainTimeout, Step, Target};
use crate::version::{KubernetesVersion, MinorVersion};

/// A plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Plan {
    /// Names the plan.
    pub id: PlanId,
    /// The SHA-256 over all of the plan but `id`, `created_at`, `created_by` and `measured`: equal plans have equal hashes.
    pub hash: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: Actor,
    /// The registered cluster.
    pub cluster: ClusterName,
    /// The identity of the cluster.
    pub cluster_uid: ClusterUid,
    /// The edition of the catalogue that was used.
    pub catalogue: String,
    /// What is upgraded.
    pub mode: Mode,
    /// The version of the control plane when the plan was made.
    pub control_plane: KubernetesVersion,
    /// The version that everything in scope has afterwards.
    pub to: KubernetesVersion,
    /// The edges of the graph that are taken.
    pub hops: Vec<Hop>,
    /// The stages in order.
    pub stages: Vec<Stage>,
    /// The options that the plan was made with.
    pub options: PlanOptions,
    /// What a person should know before accepting.
    pub notes: Vec<Note>,
    /// How long steps took on this cluster before, by kind; the estimate is made of it. And how long the pods of a
    /// workload took to end, as `pod_end Deployment shop/cart`. Not part of the hash.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measured: BTreeMap<String, Estimate>,
}

/// What an upgrade covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The control plane, where it is not at the target yet, and then the chosen node pools.
    #[default]
    Cluster,
    /// The control plane alone.
    ControlPlane,
    /// Node pools alone.
    NodePools,
    /// The masters that an upgrade has swapped, back to what they were.
    Rollback,
}

/// One stage of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Stage {
    /// What kind of stage it is.
    #[serde(flatten)]
    pub kind: StageKind,
    /// Steps of the stage itself, which do not belong to a batch.
    pub steps: Vec<Step>,
    /// The nodes that go in batches, in order. Empty but for node pools and the control plane.
    pub nodes: Vec<NodePlan>,
}

impl Stage {
    /// The most nodes of this stage that go together: masters go one by one, whatever the bound for pools is.
    pub fn max_parallel(&self, pools: u32) -> u32 {
        let one_by_one = matches!(self.kind, StageKind::ControlPlane | StageKind::StepUp);
        if one_by_one && !planted::is(Bug::MastersTogether) { 1 } else { pools }
    }

    /// The node that a step with a number belongs to. Numbers grow from node to node, those of evidence too, so that of
    /// thousands of nodes few are looked at; none where they do not.
    fn node_of_step(&self, number: StepNumber) -> Option<&NodePlan> {
        let steps = |node: &NodePlan| Some((node.steps.first()?.number, node.steps.last()?.number));
        let evidence = |node: &NodePlan| node.evidence.as_ref().map(|step| (step.number, step.number));
        self.node_of_span(number, steps).or_else(|| self.node_of_span(number, evidence))
    }

    /// The node between whose first and last number one lies. None is looked for where all are lower, or all higher.
    fn node_of_span(
        &self,
        number: StepNumber,
        span: impl Fn(&NodePlan) -> Option<(StepNumber, StepNumber)>,
    ) -> Option<&NodePlan> {
        let begins = |node: &NodePlan| span(node).is_some_and(|(first, _)| first <= number);
        let is_over = |node: &NodePlan| span(node).is_some_and(|(_, last)| last < number);
        if !self.nodes.first().is_some_and(begins) || self.nodes.last().is_none_or(is_over) {
            return None;
        }
        let after = self.nodes.partition_point(begins);
        self.nodes.get(after.checked_sub(1)?).filter(|node| node.step(number).is_some())
    }

    /// What this stage does to a node.
    pub fn node(&self, name: &NodeName) -> Option<&NodePlan> {
        self.nodes.get(self.place(name)?)
    }

    /// The place of a node. Pools are planned by name, so that of thousands of nodes few are looked at.
    pub(crate) fn place(&self, name: &NodeName) -> Option<usize> {
        self.place_by_name(name).or_else(|| self.nodes.iter().position(|node| node.node == *name))
    }

    fn place_by_name(&self, name: &NodeName) -> Option<usize> {
        self.nodes.binary_search_by(|node| node.node.cmp(name)).ok()
    }

    /// The place of a step among those of the stage itself, which are numbered in order.
    pub(crate) fn place_of_own_step(&self, number: StepNumber) -> Option<usize> {
        let found = self.steps.binary_search_by_key(&number, |step| step.number).ok();
        found.or_else(|| self.steps.iter().position(|step| step.number == number))
    }
}

/// The kinds of stages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "stage", rename_all = "snake_case")]
pub enum StageKind {
    /// The baseline is recorded and artefacts are fetched to all nodes, before anything is touched.
    Preparation,
    /// etcd is saved, the copy checked and kept off the cluster.
    Backup,
    /// The masters, one after another: etcd, components and kubelet.
    ControlPlane,
    /// The masters run the target and behave like the version before: nothing is done, everything is looked at. From
    /// here the way back loses nothing.
    Soak {
        /// How long, in seconds.
        seconds: u32,
        /// The minor version that they emulate.
        emulates: MinorVersion,
    },
    /// The masters, one after another: they stop to emulate, and their kubelets follow.
    StepUp,
    /// What kubeadm keeps in the cluster for all nodes.
    ClusterConfiguration,
    /// kube-proxy and CoreDNS.
    AddOns,
    /// One node pool.
    NodePool {
        /// Its name.
        pool: PoolName,
    },
    /// Everything is read back and compared with the baseline.
    Verification,
}

/// The name of a kind of stage by its word, as people read it; a word of a newer server reads as it is.
pub fn stage_name(word: &str, language: Language) -> &str {
    match word {
        "preparation" => language.pick("preparation", "准备"),
        "backup" => language.pick("backup", "备份"),
        "control_plane" => language.pick("control plane", "控制面"),
        "soak" => language.pick("soak", "试运行"),
        "step_up" => language.pick("step up", "切换到新版本"),
        "cluster_configuration" => language.pick("cluster configuration", "集群配置"),
        "add_ons" => language.pick("add-ons", "附加组件"),
        "node_pool" => language.pick("pool", "节点池"),
        "verification" => language.pick("verification", "验证"),
        other => other,
    }
}

impl StageKind {
    /// The stable word, as in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Preparation => "preparation",
            Self::Backup => "backup",
            Self::ControlPlane => "control_plane",
            Self::Soak { .. } => "soak",
            Self::StepUp => "step_up",
            Self::ClusterConfiguration => "cluster_configuration",
            Self::AddOns => "add_ons",
            Self::NodePool { .. } => "node_pool",
            Self::Verification => "verification",
        }
    }

    /// The pool, where it is one.
    pub fn pool(&self) -> Option<&PoolName> {
        match self {
            Self::NodePool { pool } => Some(pool),
            _ => None,
        }
    }
}

/// What will be done to one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodePlan {
    /// The node.
    pub node: NodeName,
    /// Its UID when the plan was made; the node is not touched under another one.
    pub uid: ObjectUid,
    /// Its machine id when the plan was made; the node is not touched under another one.
    pub machine_id: Arc<str>,
    /// The kubelet version before.
    pub kubelet_from: KubernetesVersion,
    /// The runtime before, as the node reports it.
    pub container_runtime_from: String,
    /// Whether somebody else had cordoned it; it stays so.
    pub cordoned_before: bool,
    /// Whether it is drained, and why not.
    pub drain: DrainDecision,
    /// The steps in order. The last one gives the node back.
    pub steps: Vec<Step>,
    /// What is done only where one of the steps failed for good: the logs of the node are collected, as evidence. None
    /// in plans of older releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Step>,
}

impl NodePlan {
    /// The step with a number, evidence too.
    fn step(&self, number: StepNumber) -> Option<&Step> {
        self.steps.iter().chain(&self.evidence).find(|step| step.number == number)
    }

    /// The machine of the plan as the cluster has it under its name; else why it is not there.
    pub fn machine_in<'a>(&self, cluster: &'a ClusterFacts) -> Result<&'a NodeFacts, Problem> {
        self.machine(cluster.nodes.get(&self.node))
    }

    /// The same of what has the node's name now.
    pub(crate) fn machine<'a>(&self, seen: Option<&'a NodeFacts>) -> Result<&'a NodeFacts, Problem> {
        let seen = seen.ok_or_else(|| self.gone())?;
        if seen.uid != self.uid && !planted::is(Bug::UidNotCompared) {
            return Err(self.wrong_machine("uid", &self.uid, &seen.uid));
        }
        if !same_text(&seen.machine_id, &self.machine_id) {
            return Err(self.wrong_machine("machine id", &self.machine_id, &seen.machine_id));
        }
        Ok(seen)
    }

    /// That nothing has the node's name any more.
    pub fn gone(&self) -> Problem {
        Problem::new(Code::NodeGone).with("node", &self.node)
    }

    /// That what has the node's name is not the machine of the plan: in what it differs, what was planned and what is there.
    pub fn wrong_machine(
        &self,
        what: &str,
        expected: impl std::fmt::Display,
        found: impl std::fmt::Display,
    ) -> Problem {
        let problem = Problem::new(Code::WrongMachine).with("node", &self.node).with("what", what);
        problem.with("expected", expected).with("found", found)
    }
}

/// Whether a node is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DrainDecision {
    /// It is drained.
    Drain,
    /// It is not: the operator said never.
    SkippedByOption,
    /// It is not: a patch upgrade leaves running containers alone.
    SkippedForPatch,
    /// It is not: kubelet and runtime stay as they are until the soak is over.
    SkippedKubeletStays,
    /// It is not: no other node could take the pods.
    SkippedNowhereToGo,
}

/// Something to know about a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum Note {
    /// The node runs the target already and is left out.
    NodeUpToDate {
        /// The node.
        node: NodeName,
    },
    /// The node is not Ready and its agent is silent (powered off, say): it is left out and stays at its version.
    NodeNotReady {
        /// The node.
        node: NodeName,
        /// What the Ready condition says.
        why: String,
    },
    /// The cluster has one master: its API does not answer while that master is upgraded.
    ApiAway {
        /// The master.
        node: NodeName,
        /// About how long, in seconds.
        seconds: u32,
    },
    /// The masters soak: they are swapped twice, and until the second swap the way back loses nothing.
    Soak {
        /// The minor version that they emulate meanwhile.
        emulates: MinorVersion,
        /// How long, in seconds.
        seconds: u32,
    },
    /// etcd goes to another minor version. A later way back leaves it there.
    EtcdMinorChanges {
        /// The version before, such as `3.6.8-0`.
        from: String,
        /// The version after.
        to: String,
    },
    /// ConfigMap `kubeadm-config` names another version than runs: it is brought up to date.
    ConfigurationStale {
        /// The version that it names.
        named: String,
        /// The version that runs.
        running: KubernetesVersion,
    },
    /// The key of the cluster's CA is not on the masters: certificates are not renewed.
    CertificatesNotRenewed {
        /// When the first one ends.
        ends_at: Timestamp,
    },
    /// A master is put back: what changes on it.
    MasterGoesBack {
        /// The master.
        node: NodeName,
        /// One line for each component: `kube-apiserver v1.36.3 → v1.35.4`.
        changes: Vec<String>,
    },
    /// etcd stays at the newer minor version: an older one refuses its data.
    EtcdStays {
        /// The version that stays, such as `3.7.0-0`.
        version: String,
    },
    /// Objects of an API that only the newer version serves: the older one does not show them, and nothing acts on them.
    NewApiObjects(NewApiObjects),
    /// Whether there are such objects could not be read.
    NewApisUnknown {
        /// Why.
        problem: Problem,
    },
    /// The node is cordoned by somebody else; it is upgraded and stays cordoned.
    NodeCordonedByOthers {
        /// The node.
        node: NodeName,
    },
    /// A budget allows no disruption now; a drain will wait for it.
    BudgetAllowsNothing {
        /// The budget as `namespace/name`.
        budget: String,
    },
    /// Pods without a controller on nodes that are drained: a drain ends them, and nothing makes them anew.
    PodsNotMadeAnew {
        /// How many there are.
        count: usize,
        /// The first of them, as `namespace/name`.
        names: Vec<String>,
    },
    /// The node is not drained since no other node could take its pods; they restart only if the runtime does.
    DrainSkipped {
        /// The node.
        node: NodeName,
    },
}

/// The options of a plan. All have defaults that suit production.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct PlanOptions {
    /// The most nodes in one batch, 1 to [`MAX_PARALLEL_LIMIT`].
    pub max_parallel: u32,
    /// When nodes are drained.
    pub drain: DrainPolicy,
    /// How long a drain may take, in seconds.
    pub drain_timeout_seconds: u32,
    /// What happens when a drain takes longer.
    pub on_drain_timeout: OnDrainTimeout,
    /// When the upgrade pauses by itself.
    pub pause_policy: PausePolicy,
    /// The least time between the end of a batch and the begin of the next, in seconds.
    pub batch_interval_seconds: u32,
    /// Whether the container runtime is upgraded too.
    pub container_runtime: ContainerRuntimePolicy,
    /// After how many seconds of silence of a needed agent the upgrade pauses.
    pub contact_timeout_seconds: u32,
    /// How long a node may take to be Ready and read back after its steps, in seconds.
    pub node_ready_timeout_seconds: u32,
    /// How long a gate between batches may hold before the upgrade pauses, in seconds.
    pub gate_timeout_seconds: u32,
    /// After how many seconds a paused upgrade is closed.
    pub expiry_seconds: u32,
    /// How the control plane on a master is changed.
    pub control_plane_method: ControlPlaneMethod,
    /// Whether kubeadm renews the certificates that it manages, as its own upgrade does.
    pub renew_certificates: bool,
    /// A folder with kubeadm patches, the same on each master, see
    /// <https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/control-plane-flags/#patches>.
    pub kubeadm_patches: Option<String>,
    /// Preflight errors that kubeadm is told to ignore, such as `SystemVerification`.
    pub ignore_preflight_errors: Vec<String>,
    /// The checks whose findings may pass, by id, such as `CP-003`.
    pub accept: Vec<String>,
    /// How long the masters run the target while they emulate the minor version before, in seconds; 0 for no soak.
    pub soak_seconds: u32,
}

/// The upper bound of `max_parallel`.
pub const MAX_PARALLEL_LIMIT: u32 = 100;

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            max_parallel: 10,
            drain: DrainPolicy::default(),
            drain_timeout_seconds: 30 * 60,
            on_drain_timeout: OnDrainTimeout::default(),
            pause_policy: PausePolicy::default(),
            batch_interval_seconds: 0,
            container_runtime: ContainerRuntimePolicy::default(),
            contact_timeout_seconds: 120,
            node_ready_timeout_seconds: 10 * 60,
            gate_timeout_seconds: 15 * 60,
            expiry_seconds: 7 * 24 * 60 * 60,
            control_plane_method: ControlPlaneMethod::default(),
            renew_certificates: true,
            kubeadm_patches: None,
            ignore_preflight_errors: Vec::new(),
            accept: Vec::new(),
            soak_seconds: 0,
        }
    }
}

impl PlanOptions {
    /// The drain of a node, and the limit of its step in seconds: the step outlives the drain's own limit, so that the drain
    /// itself says what blocked it.
    fn drain_action(&self) -> (Action, u32) {
        let timeout_seconds = self.drain_timeout_seconds;
        (Action::Drain { timeout_seconds, on_timeout: self.on_drain_timeout }, timeout_seconds.saturating_add(60))
    }

    /// Refuses values out of bounds.
    pub fn check(&self) -> Result<(), Problem> {
        let bounds = [
            ("max_parallel", self.max_parallel, 1, MAX_PARALLEL_LIMIT),
            ("drain_timeout_seconds", self.drain_timeout_seconds, 1, 86_400),
            ("batch_interval_seconds", self.batch_interval_seconds, 0, 604_800),
            // An agent with nothing to say is heard of every ten seconds, when its poll ends: less would be silence too.
            ("contact_timeout_seconds", self.contact_timeout_seconds, 15, 86_400),
            ("node_ready_timeout_seconds", self.node_ready_timeout_seconds, 10, 86_400),
            ("gate_timeout_seconds", self.gate_timeout_seconds, 10, 86_400),
            ("expiry_seconds", self.expiry_seconds, 60, 30 * 86_400),
            ("soak_seconds", self.soak_seconds, 0, 30 * 86_400),
        ];
        for (option, value, least, most) in bounds {
            if value < least || value > most {
                return Err(Problem::new(Code::BadOption)
                    .with("option", option)
                    .with("value", value)
                    .with("why", format!("it must be {least} to {most}")));
            }
        }
        // They become words of a command line on a master.
        let is_word = |text: &str| {
            !text.is_empty()
                && text.len() <= 63
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        let lists = [("ignore_preflight_errors", &self.ignore_preflight_errors), ("accept", &self.accept)];
        for (option, words) in lists {
            if let Some(wrong) = words.iter().find(|word| !is_word(word)) {
                let why = "each must be a name of letters, digits and dashes";
                return Err(Problem::new(Code::BadOption).with("option", option).with("value", wrong).with("why", why));
            }
        }
        if let Some(folder) = &self.kubeadm_patches
            && (!folder.starts_with('/') || folder.len() > 255 || folder.chars().any(char::is_control))
        {
            let problem = Problem::new(Code::BadOption).with("option", "kubeadm_patches").with("value", folder);
            return Err(problem.with("why", "it must be an absolute path on the masters"));
        }
        Ok(())
    }

    /// Whether a finding of a check may pass.
    pub fn accepts(&self, check: &str) -> bool {
        self.accept.iter().any(|accepted| accepted == check)
    }
}

/// When nodes are drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DrainPolicy {
    /// For a new minor yes, as <https://kubernetes.io/releases/version-skew-policy/#kubelet> asks, and for a new major of
    /// the container runtime; for a patch no.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// When an upgrade pauses by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PausePolicy {
    /// It does not.
    #[default]
    Never,
    /// After the first batch of the upgrade.
    AfterFirstBatch,
    /// After every batch.
    AfterEveryBatch,
}

/// Whether the container runtime is upgraded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ContainerRuntimePolicy {
    /// To the version that the mirror holds, where that is newer.
    #[default]
    Upgrade,
    /// It stays as it is.
    Keep,
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct PlanRequest {
    /// The target.
    pub to: VersionRequest,
    /// What is upgraded.
    #[serde(default)]
    pub mode: Mode,
    /// The pools, all when empty.
    #[serde(default)]
    pub pools: Vec<PoolName>,
    /// Only these nodes of the pools, all when empty.
    #[serde(default)]
    pub nodes: Vec<NodeName>,
    /// Nodes to leave out.
    #[serde(default)]
    pub exclude_nodes: Vec<NodeName>,
    /// The options.
    #[serde(default)]
    pub options: PlanOptions,
}

/// Evidence is soon there or not at all.
const EVIDENCE_TIMEOUT_SECONDS: u32 = 60;

impl Plan {
    /// Every step, those of a failure too.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.stages.iter().flat_map(|stage| {
            let of_nodes = stage.nodes.iter().flat_map(|node| node.steps.iter().chain(&node.evidence));
            stage.steps.iter().chain(of_nodes)
        })
    }

    /// The step with a number.
    pub fn step(&self, number: StepNumber) -> Option<&Step> {
        let found = self.stages.iter().find_map(|stage| {
            let own = stage.steps.binary_search_by_key(&number, |step| step.number).ok();
            let own = own.and_then(|at| stage.steps.get(at));
            own.or_else(|| stage.node_of_step(number)?.step(number))
        });
        found.or_else(|| self.steps().find(|step| step.number == number))
    }

    /// Gives each node the step that collects its logs where another one fails, numbered behind all others.
    pub(crate) fn provide_evidence(&mut self) {
        let last = self.steps().map(|step| step.number.0).max().unwrap_or_default();
        let nodes = self.stages.iter_mut().flat_map(|stage| &mut stage.nodes);
        for (number, node) in (last.saturating_add(1)..).zip(nodes) {
            node.evidence = Some(Step {
                number: StepNumber(number),
                action: Action::CollectLogs,
                target: Target::Node(node.node.clone()),
                timeout_seconds: EVIDENCE_TIMEOUT_SECONDS,
            });
        }
    }

    /// The upgrade that this plan takes back, where it is a rollback.
    pub fn takes_back(&self) -> Option<&UpgradeId> {
        self.steps().find_map(|step| match &step.action {
            Action::RestoreControlPlane(restore) => Some(&restore.upgrade),
            Action::RestoreConfiguration { upgrade, .. } => Some(upgrade),
            _ => None,
        })
    }

    /// The master that is swapped while the cluster has no other, where this plan swaps one.
    pub fn only_master(&self) -> Option<&NodeName> {
        let is_only = |step: &&Step| matches!(&step.action, Action::UpgradeControlPlane(swap) if swap.is_only);
        self.steps().find(is_only).and_then(|step| step.target.node())
    }

    /// The plans of all nodes, masters first, in order.
    pub fn nodes(&self) -> impl Iterator<Item = &NodePlan> {
        self.stages.iter().flat_map(|stage| &stage.nodes)
    }

    /// Each node once: masters that soak are in two stages, and the later one says what they are in the end.
    pub fn nodes_in_the_end(&self) -> Vec<&NodePlan> {
        let mut seen = BTreeSet::new();
        let all: Vec<&NodePlan> = self.nodes().collect();
        let mut last: Vec<&NodePlan> = all.into_iter().rev().filter(|node| seen.insert(&node.node)).collect();
        last.reverse();
        last
    }

    /// Whether anything is done to a node.
    pub fn holds(&self, name: &NodeName) -> bool {
        self.node(name).is_some()
    }

    /// What is done to a node by the stage that a step of it belongs to; none for a step of no node.
    pub fn node_of_step(&self, number: StepNumber) -> Option<&NodePlan> {
        let is_own = |stage: &Stage| stage.steps.binary_search_by_key(&number, |step| step.number).is_ok();
        if self.stages.iter().any(is_own) {
            return None;
        }
        let found = self.stages.iter().find_map(|stage| stage.node_of_step(number));
        found.or_else(|| self.nodes().find(|node| node.step(number).is_some()))
    }

    /// What is done to a node by the first stage that it is in.
    pub fn node(&self, name: &NodeName) -> Option<&NodePlan> {
        // Pools are planned by name; each node is in one of them, and masters are few.
        let found = self.stages.iter().find_map(|stage| match stage.kind {
            StageKind::NodePool { .. } => stage.nodes.get(stage.place_by_name(name)?),
            _ => stage.node(name),
        });
        found.or_else(|| self.nodes().find(|node| node.node == *name))
    }

    /// Computes the hash over the content.
    pub fn content_hash(&self) -> String {
        let Self {
            id: _,
            hash: _,
            created_at: _,
            created_by: _,
            measured: _,
            cluster,
            cluster_uid,
            catalogue,
            mode,
            control_plane,
            to,
            hops,
            stages,
            options,
            notes,
        } = self;
        let content = serde_json::to_vec(&(
            cluster,
            cluster_uid,
            catalogue,
            mode,
            control_plane,
            to,
            hops,
            stages,
            options,
            notes,
        ))
        .unwrap_or_default();
        hexadecimal(&Sha256::digest(content))
    }
}

/// Lower-case hexadecimal digits of bytes.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
