//! REST under `/api/v1`: nouns, problem bodies, pages.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shiplock_core::catalogue::{Catalogue, Release};
use shiplock_core::facts::MachineFacts;
use shiplock_core::id::{Actor, ClusterName, ClusterUid, NodeName, PlanId, PoolName, UpgradeId};
use shiplock_core::language::Language;
use shiplock_core::plan::{NodePlan, Plan, PlanRequest};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::Step;
use shiplock_core::upgrade::{Batch, EventRecord, NodeProgress, State, StepOutcome, StepStatus, Upgrade, WaitingOn};
use shiplock_core::version::{KubernetesVersion, MinorVersion};

use crate::agent::EtcdSnapshot;

/// The body of every answer that is an error.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ProblemBody {
    /// The stable code.
    pub code: Code,
    /// The sentence, English.
    pub message: String,
    /// What lies beneath.
    pub causes: Vec<String>,
    /// What to do next, English.
    pub hints: Vec<String>,
    /// Names the request in the server's log.
    pub request_id: String,
    /// The typed problem, from which any language is rendered.
    pub problem: Problem,
}

impl ProblemBody {
    /// Renders a problem.
    pub fn new(problem: Problem, request_id: String) -> Self {
        Self {
            code: problem.code,
            message: problem.sentence(Language::En),
            causes: problem.causes.clone(),
            hints: vec![problem.fix(Language::En)],
            request_id,
            problem,
        }
    }
}

/// A page of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "PageOf{T}"))]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Give this as `after` to get the next page; none at the end.
    pub next: Option<String>,
}

/// What the server says of itself: `GET /api/v1/server`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ServerView {
    /// The server's version.
    pub version: String,
    /// The catalogue's edition.
    pub catalogue: String,
    /// Names this server process.
    pub holder: String,
    /// The URL under which agents reach the gateway.
    pub agent_url: String,
}

/// A minor version of the catalogue: `GET /api/v1/versions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct VersionView {
    /// The minor.
    pub minor: MinorVersion,
    /// Its newest known patch.
    pub newest: KubernetesVersion,
    /// Whether new clusters are best made with it: it is one of the newest three.
    pub creatable: bool,
    /// The day of its first release, as `2026-04-22`.
    pub released: Option<String>,
    /// The last day of its support, as `2027-06-28`.
    pub end_of_support: Option<String>,
    /// The minors that a cluster of this minor may go to; a newer patch is always allowed.
    pub upgrades_to: Vec<MinorVersion>,
    /// The etcd that goes with it.
    pub etcd: String,
    /// The CoreDNS that goes with it.
    pub coredns: String,
    /// The pause image that goes with it.
    pub pause: String,
}

impl VersionView {
    /// All minors of a catalogue, newest first.
    pub fn of_catalogue(catalogue: &Catalogue) -> Vec<Self> {
        let creatable: Vec<_> = catalogue.creatable().collect();
        let view = |release: &Release| Self {
            minor: release.minor,
            newest: KubernetesVersion {
                release: release.minor,
                patch: release.patches.last().copied().unwrap_or_default(),
            },
            creatable: creatable.contains(&release.minor),
            released: release.released.map(|day| day.to_string()),
            end_of_support: release.end_of_support.map(|day| day.to_string()),
            upgrades_to: release.upgrades_to.clone(),
            etcd: release.components.etcd.clone(),
            coredns: release.components.coredns.clone(),
            pause: release.components.pause.clone(),
        };
        catalogue.releases.iter().rev().map(view).collect()
    }
}

/// Registers a cluster: `POST /api/v1/clusters`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClusterAdd {
    /// The name in this installation.
    pub name: ClusterName,
    /// A kubeconfig whose files are inlined, with one context.
    pub kubeconfig: String,
    /// Features of kubeconfigs that are refused unless named here: `exec`, `auth-provider`, `insecure-skip-tls-verify`.
    #[serde(default)]
    pub allow: Vec<String>,
    /// The artefact mirror's root: `http(s)://…`, or a directory that server and nodes both have.
    pub mirror: Option<String>,
}

/// Changes how a cluster is reached, or its mirror: `PATCH /api/v1/clusters/{name}`. What is left out stays.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ClusterChange {
    /// A kubeconfig in place of the one that is kept, as in [`ClusterAdd`]. It must lead to the same cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<String>,
    /// What the kubeconfig may use, as in [`ClusterAdd`]; only with one.
    #[serde(default)]
    pub allow: Vec<String>,
    /// The artefact mirror's root, for plans from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
}

/// A registered cluster: `GET /api/v1/clusters/{name}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClusterView {
    /// The name in this installation.
    pub name: ClusterName,
    /// The identity.
    pub uid: ClusterUid,
    /// The address of the API server.
    pub server: String,
    /// The artefact mirror's root.
    pub mirror: Option<String>,
    /// The oldest API server's version; none while the cluster cannot be read.
    pub version: Option<KubernetesVersion>,
    /// The versions that one hop leads to and that the mirror holds; all of them where there is no mirror.
    pub next_versions: Vec<KubernetesVersion>,
    /// Days to the end of support; negative when it is over.
    pub support_days_left: Option<i64>,
    /// The nodes of the control plane.
    #[serde(default)]
    pub control_plane: Vec<NodeView>,
    /// The pools with their nodes.
    pub pools: Vec<PoolView>,
    /// The active upgrade.
    pub upgrade: Option<UpgradeId>,
    /// Why the cluster, or its mirror, cannot be read.
    pub problem: Option<Problem>,
}

/// A node pool.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PoolView {
    /// Its name.
    pub name: PoolName,
    /// Its nodes.
    pub nodes: Vec<NodeView>,
}

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// The kubelet version that it reports.
    pub kubelet: String,
    /// The runtime that it reports.
    pub container_runtime: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether it is cordoned.
    pub cordoned: bool,
    /// Whether an enrolled agent was heard of in the last minute.
    pub agent: bool,
}

/// An enrolled agent: `GET /api/v1/clusters/{name}/agents`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AgentView {
    /// Its node.
    pub node: NodeName,
    /// When the server last heard of it; none since the server was started.
    pub last_heard_at: Option<Timestamp>,
    /// What it told.
    pub machine: MachineFacts,
}

/// The answer to `POST /api/v1/clusters/{name}/join-tokens`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct JoinToken {
    /// The one-time token. Shown once, stored as a hash.
    pub token: String,
    /// `sha256:…` of the certificate authority's public key.
    pub ca_pin: String,
    /// The URL of the agent gateway.
    pub server: String,
    /// When the token ends.
    pub expires_at: Timestamp,
    /// The whole command for the node.
    pub command: String,
}

/// A backup of etcd that the server keeps: `GET /api/v1/backups/{id}`. `POST …/verify` reads it back and answers the
/// same where nothing is wrong; `GET …/content` is the snapshot itself, for `etcdutl snapshot restore`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BackupView {
    /// Names it: upgrade, step and attempt that made it.
    pub id: String,
    /// The cluster.
    pub cluster: ClusterName,
    /// The upgrade that made it.
    pub upgrade: UpgradeId,
    /// The master that it was taken on.
    pub node: NodeName,
    /// When the server began to take it.
    pub created_at: Timestamp,
    /// The snapshot.
    pub snapshot: EtcdSnapshot,
}

/// Makes a plan: `POST /api/v1/clusters/{name}/plans`. With `dry_run` it is not kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PlanCreate {
    /// What is asked.
    #[serde(flatten)]
    pub request: PlanRequest,
    /// Makes the plan and forgets it.
    #[serde(default)]
    pub dry_run: bool,
}

/// Starts an upgrade: `POST /api/v1/upgrades`. Header `Idempotency-Key` makes a repeat harmless.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UpgradeCreate {
    /// The plan.
    pub plan: PlanId,
    /// Its hash, so that nobody starts what they have not seen.
    pub plan_hash: String,
}

/// Makes the plan that takes an upgrade back: `POST /api/v1/upgrades/{id}/rollback`. It is started like any other plan.
/// With `dry_run` it is not kept, and the upgrade may still be in work: then it is a preview.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RollbackCreate {
    /// The checks whose findings may pass, by id, such as `CP-003`.
    #[serde(default)]
    pub accept: Vec<String>,
    /// Makes the plan and forgets it.
    #[serde(default)]
    pub dry_run: bool,
    /// Refuses a plan whose own checks would stop its start: asked before the upgrade is ended for it.
    #[serde(default)]
    pub must_start: bool,
}

/// Cancels: `POST /api/v1/upgrades/{id}/cancel`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CancelRequest {
    /// Nodes that are not waited for any more.
    #[serde(default)]
    pub abandon: Vec<NodeName>,
}

/// Changes an upgrade in work: `PATCH /api/v1/upgrades/{id}`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UpgradeChange {
    /// The new bound on batches.
    pub max_parallel: Option<u32>,
}

/// An upgrade: `GET /api/v1/upgrades/{id}`. The header `ETag` holds `len`; controls take it as `If-Match`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UpgradeView {
    /// Its id.
    pub id: UpgradeId,
    /// The cluster.
    pub cluster: ClusterName,
    /// The target.
    pub to: KubernetesVersion,
    /// Where it stands.
    #[serde(flatten)]
    pub state: State,
    /// How many events there are.
    pub len: u64,
    /// Who accepted the plan.
    pub by: Actor,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the newest event was appended.
    pub updated_at: Timestamp,
    /// The bound on batches in force.
    pub max_parallel: u32,
    /// Nodes done, nodes of the plan.
    pub nodes_done: usize,
    /// Nodes of the plan.
    pub nodes_total: usize,
    /// The stages.
    pub stages: Vec<StageView>,
    /// Why nothing moves now; empty while acts are begun.
    pub waiting_on: Vec<WaitingOn>,
    /// Nodes that were left out, with the reason.
    pub skipped: Vec<SkippedView>,
    /// Nodes whose state is unknown.
    pub abandoned: Vec<NodeName>,
    /// Nodes outside the plan whose kubelet was not seen at the target or newer in the end: they joined since, or were
    /// never in the plan. Empty until that was looked at.
    #[serde(default)]
    pub older_outside_plan: Vec<NodeName>,
    /// What the pre-check found.
    pub findings: Vec<shiplock_core::check::Finding>,
    /// How long it will still take while nothing blocks it; none when it is paused or has ended.
    #[serde(default)]
    pub remaining: Option<shiplock_core::estimate::Remaining>,
    /// How the workloads compare with the baseline; none until that was looked at, at the end.
    #[serde(default)]
    pub workloads: Option<WorkloadComparison>,
}

/// The workloads at the end beside those at the begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkloadComparison {
    /// How many there were at the begin.
    pub compared: usize,
    /// Those with fewer ready pods than before, as `Deployment shop/cart 1/2`.
    pub worse: Vec<String>,
}

/// The upgrades, newest first: `GET /api/v1/upgrades`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct UpgradePage {
    /// Those that can be read.
    pub items: Vec<UpgradeView>,
    /// Those of the same page whose logs this version cannot read. They stay as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<UnreadableUpgrade>,
    /// Give this as `after` to get the next page; none at the end.
    pub next: Option<String>,
}

/// An upgrade whose log this version cannot read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadableUpgrade {
    /// Its id.
    pub id: UpgradeId,
    /// The cluster.
    pub cluster: ClusterName,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// How many events there are.
    pub len: u64,
    /// Why it cannot be read.
    pub problem: Problem,
}

/// A stage of an upgrade.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StageView {
    /// Its kind: `preparation`, `node_pool`, `verification`.
    pub stage: String,
    /// The pool, for node pools.
    pub pool: Option<PoolName>,
    /// Whether it began.
    pub started: bool,
    /// Whether it ended.
    pub finished: bool,
    /// The batches so far.
    pub batches: Vec<Batch>,
    /// The nodes.
    pub nodes: Vec<NodeProgressView>,
}

/// A node of an upgrade.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeProgressView {
    /// Its name.
    pub node: NodeName,
    /// Where it stands.
    pub progress: NodeProgress,
    /// The kind of the step in work or next; none when done.
    pub step: Option<String>,
    /// What was read back from its running processes, as `kubelet v1.36.3`; empty until then.
    #[serde(default)]
    pub read_back: Vec<String>,
}

/// A node that was left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SkippedView {
    /// Its name.
    pub node: NodeName,
    /// Why.
    pub problem: Problem,
}

impl UpgradeView {
    /// The view of a folded upgrade, of what it waits for, and of what is left at this moment.
    pub fn new(upgrade: &Upgrade, waiting_on: Vec<WaitingOn>, now: Timestamp) -> Self {
        let (nodes_done, nodes_total) = upgrade.node_counts();
        let stages = upgrade.plan.stages.iter().enumerate();
        Self {
            id: upgrade.id.clone(),
            cluster: upgrade.plan.cluster.clone(),
            to: upgrade.plan.to,
            state: upgrade.state.clone(),
            len: upgrade.len,
            by: upgrade.by.clone(),
            created_at: upgrade.created_at,
            updated_at: upgrade.updated_at,
            max_parallel: upgrade.max_parallel,
            nodes_done,
            nodes_total,
            stages: stages.map(|(index, _)| StageView::new(upgrade, &upgrade.plan, index)).collect(),
            // What a driver last waited for outlives the end by a moment.
            waiting_on: if upgrade.state.is_terminal() { Vec::new() } else { waiting_on },
            skipped: upgrade
                .skipped
                .iter()
                .map(|(node, problem)| SkippedView { node: node.clone(), problem: problem.clone() })
                .collect(),
            abandoned: upgrade.abandoned.iter().cloned().collect(),
            older_outside_plan: compared(upgrade).map(|(_, older)| older.to_vec()).unwrap_or_default(),
            findings: upgrade.report.iter().flat_map(|report| report.blocking().cloned()).collect(),
            remaining: shiplock_core::estimate::remaining(upgrade, now),
            workloads: WorkloadComparison::of(upgrade),
        }
    }
}

impl WorkloadComparison {
    fn of(upgrade: &Upgrade) -> Option<Self> {
        let baseline = upgrade.baseline.as_ref()?;
        let (worse, _) = compared(upgrade)?;
        Some(Self { compared: baseline.len(), worse: worse.to_vec() })
    }
}

/// What the end of an upgrade found: workloads that are worse than before, and older nodes outside the plan.
fn compared(upgrade: &Upgrade) -> Option<(&[String], &[NodeName])> {
    let own = upgrade.plan.stages.iter().flat_map(|stage| &stage.steps);
    own.filter_map(|step| outcome_of(upgrade, step)).find_map(|outcome| match outcome {
        StepOutcome::Compared { worse, older_outside_plan } => Some((worse.as_slice(), older_outside_plan.as_slice())),
        _ => None,
    })
}

/// How a step that succeeded ended.
fn outcome_of<'a>(upgrade: &'a Upgrade, step: &Step) -> Option<&'a StepOutcome> {
    match upgrade.step_status(step)? {
        StepStatus::Succeeded { outcome, .. } => Some(outcome),
        _ => None,
    }
}

fn read_back(upgrade: &Upgrade, node: &NodePlan) -> Vec<String> {
    let outcomes = node.steps.iter().filter_map(|step| outcome_of(upgrade, step));
    let mut verified = outcomes.filter_map(|outcome| match outcome {
        StepOutcome::Verified { components } => Some(components.clone()),
        _ => None,
    });
    verified.next_back().unwrap_or_default()
}

impl StageView {
    fn new(upgrade: &Upgrade, plan: &Plan, index: usize) -> Self {
        let stage = &plan.stages[index];
        let nodes = stage.nodes.iter().map(|node| NodeProgressView {
            node: node.node.clone(),
            progress: upgrade.node_progress(node),
            step: node.steps.iter().find(|step| !upgrade.has_succeeded(step)).map(|step| step.action.kind().to_owned()),
            read_back: read_back(upgrade, node),
        });
        Self {
            stage: stage.kind.word().to_owned(),
            pool: stage.kind.pool().cloned(),
            started: upgrade.stages_started.contains(&index),
            finished: upgrade.stages_finished.contains(&index),
            batches: upgrade.batches.get(&index).cloned().unwrap_or_default(),
            nodes: nodes.collect(),
        }
    }
}

/// The events of an upgrade: `GET /api/v1/upgrades/{id}/events?after=N`; with `Accept: text/event-stream` each as
/// one server-sent event whose id is the event's number, and `Last-Event-ID` as `after`.
pub type EventPage = Page<EventRecord>;
