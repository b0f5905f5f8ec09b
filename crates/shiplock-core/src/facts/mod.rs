//! What was seen: of the cluster through its API, of nodes through their agents, and how steps in flight go.
//!
//! Facts may be old or missing. What could not be read is [`Observed::Unknown`] and never taken for good.

mod control_plane;
pub mod examination;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::control_plane::{
    CertificateFacts, ControlPlaneComponent, ControlPlaneFacts, EtcdClusterFacts, EtcdFacts, EtcdMemberFacts, HandEdit,
    KeptControlPlane, KeptImage, RunningContainerFacts, StaticPodFacts,
};
use crate::check::Finding;
use crate::id::{ClusterUid, Epoch, NodeName, ObjectUid, PoolName, StepNumber, UpgradeId, same_text};
use crate::problem::{Code, Problem};
use crate::upgrade::waiting::WaitingOn;
use crate::version::{KubernetesVersion, MinorVersion};

/// Something that was read, or why it could not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Observed<T> {
    /// It was read.
    Known(T),
    /// It could not be read.
    Unknown {
        /// Why.
        problem: Problem,
        /// Since when.
        since: Timestamp,
    },
}

/// All that [`decide`](crate::upgrade::decide) may look at besides the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The cluster, as its API server tells it: shared with whoever observed it, since it may be of thousands of nodes.
    pub cluster: Observed<Arc<ClusterFacts>>,
    /// The agents, by node. A node without an entry has no enrolled agent.
    pub agents: BTreeMap<NodeName, AgentFacts>,
    /// What steps in flight wait for, as their executors tell. Not stored; gone with a restart.
    pub progress: BTreeMap<StepNumber, Vec<WaitingOn>>,
    /// How long this server has been up, in seconds.
    pub uptime_seconds: u64,
    /// What the catalogue of checks found for the check of the plan that is under way; none while it is being asked.
    pub precheck: Option<Vec<Finding>>,
}

/// A cluster at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClusterFacts {
    /// The UID of namespace `kube-system`.
    pub uid: ClusterUid,
    /// When it was read.
    pub observed_at: Timestamp,
    /// Every API server instance that was found. No watch tells what one runs: that may have been asked some seconds
    /// before the rest.
    pub api_servers: Vec<ApiServerFacts>,
    /// The nodes by name.
    pub nodes: BTreeMap<NodeName, NodeFacts>,
    /// The pods that are not finished.
    pub pods: Vec<PodFacts>,
    /// The PodDisruptionBudgets.
    pub budgets: Vec<BudgetFacts>,
    /// Deployments, StatefulSets and DaemonSets.
    pub workloads: Vec<WorkloadFacts>,
    /// The mirror pods of the control plane's components, which kubelets on masters keep.
    #[serde(default)]
    pub control_plane_pods: Vec<ControlPlanePodFacts>,
    /// kube-proxy and CoreDNS, where kubeadm put them.
    #[serde(default)]
    pub addons: Vec<AddonFacts>,
}

impl ClusterFacts {
    /// The nodes that are not Ready or short of something, which may be why pods are not ready: `; node w1 is not Ready; node
    /// w2 has DiskPressure`. Empty where none is.
    pub fn pressure(&self) -> String {
        let conditions = [
            ("node.kubernetes.io/disk-pressure", "DiskPressure"),
            ("node.kubernetes.io/memory-pressure", "MemoryPressure"),
            ("node.kubernetes.io/pid-pressure", "PIDPressure"),
        ];
        let short = self.nodes.iter().flat_map(|(name, node)| {
            let carried = conditions.iter().filter(|(taint, _)| node.taints.iter().any(|carried| carried == taint));
            carried.map(move |(_, condition)| format!("; node {name} has {condition}"))
        });
        let not_ready = self.nodes.iter().filter(|(_, node)| node.ready != Readiness::Ready);
        let not_ready = not_ready.map(|(name, _)| format!("; node {name} is not Ready"));
        not_ready.chain(short).take(PRESSURE_NAMED_MAX).collect()
    }

    /// The version that counts for skew: the oldest API server's, since a kubelet may meet any of them.
    pub fn control_plane_version(&self) -> Result<KubernetesVersion, Problem> {
        self.api_servers.iter().map(|server| server.version).min().ok_or_else(|| {
            Problem::new(Code::ClusterAnswer)
                .with("verb", "get")
                .with("resource", "/version")
                .cause("no API server was read")
        })
    }
}

/// So many nodes that are not Ready or short of something are named.
const PRESSURE_NAMED_MAX: usize = 3;

/// One API server instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ApiServerFacts {
    /// Its own address, or the address of the endpoint where instances cannot be told apart.
    pub address: String,
    /// What its `/version` says.
    pub version: KubernetesVersion,
    /// The older minor version that it emulates, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulates: Option<MinorVersion>,
}

impl ApiServerFacts {
    /// The minor version that clients meet: no kubelet may be newer than it.
    pub fn behaves_like(&self) -> MinorVersion {
        self.emulates.unwrap_or(self.version.release)
    }

    /// `v1.36.3`, or `v1.36.3 that emulates 1.35`.
    pub fn described(&self) -> String {
        match self.emulates {
            Some(emulates) => format!("{} that emulates {emulates}", self.version),
            None => self.version.to_string(),
        }
    }
}

/// The label by which nodes name their pool.
pub const POOL_LABEL: &str = "shiplock.dev/pool";
/// The pool of workers that carry no pool label at all.
pub const DEFAULT_POOL: &str = "default";
/// Labels that name a pool, ours first, then those of well-known vendors.
pub const POOL_LABELS: &[&str] = &[
    POOL_LABEL,
    "alibabacloud.com/nodepool-id",
    "eks.amazonaws.com/nodegroup",
    "cloud.google.com/gke-nodepool",
    "kubernetes.azure.com/agentpool",
    "karpenter.sh/nodepool",
    "kops.k8s.io/instancegroup",
    "doks.digitalocean.com/node-pool",
];
/// The label of a master, see <https://kubernetes.io/docs/reference/labels-annotations-taints/>.
pub const CONTROL_PLANE_LABEL: &str = "node-role.kubernetes.io/control-plane";

/// A Node object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeFacts {
    /// Its UID, another one when the node was deleted and joined again.
    pub uid: ObjectUid,
    /// `status.nodeInfo.machineID`.
    pub machine_id: Arc<str>,
    /// `status.nodeInfo.bootID`, another one after each boot.
    pub boot_id: String,
    /// `status.nodeInfo.architecture`.
    pub architecture: String,
    /// `status.nodeInfo.kubeletVersion` as it stands there.
    pub kubelet_version: String,
    /// `status.nodeInfo.containerRuntimeVersion`, such as `containerd://1.6.20`.
    pub container_runtime_version: String,
    /// The Ready condition.
    pub ready: Readiness,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// Our mark, where there is one.
    pub owner: Option<NodeOwner>,
    /// The keys of taints with effect `NoSchedule` or `NoExecute`.
    pub taints: Vec<String>,
    /// The labels.
    pub labels: BTreeMap<String, String>,
}

/// The Ready condition of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Readiness {
    /// Ready.
    Ready,
    /// Not Ready, or not heard of.
    NotReady {
        /// The condition's message.
        why: String,
    },
}

/// The problem of a node that is not Ready. A runtime that hangs is told by its name, since only a person can help it.
pub fn not_ready(node: &NodeName, why: &str) -> Problem {
    let code = if why.contains("PLEG is not healthy") { Code::PlegNotHealthy } else { Code::NodeNotReady };
    Problem::new(code).with("node", node).with("why", why)
}

/// The annotation by which a cordon of ours names its upgrade; its value is a [`NodeOwner`] in JSON.
pub const OWNER_ANNOTATION: &str = "shiplock.dev/owner";

/// The annotation `shiplock.dev/owner` on a node: whose cordon it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct NodeOwner {
    /// The upgrade that cordoned the node.
    pub upgrade: UpgradeId,
    /// The epoch under which it did.
    pub epoch: Epoch,
    /// The attempt of its cordon that did. A node that is schedulable and carries the mark of the newest attempt was
    /// uncordoned by somebody else since then, however old a cache is. Marks of before this was written are of the first.
    #[serde(default = "first_attempt")]
    pub attempt: u32,
}

fn first_attempt() -> u32 {
    1
}

impl NodeFacts {
    /// Whether the node is a master.
    pub fn is_control_plane(&self) -> bool {
        self.labels.contains_key(CONTROL_PLANE_LABEL)
    }

    /// The pool that the node's labels name.
    pub fn pool(&self) -> PoolName {
        POOL_LABELS
            .iter()
            .find_map(|label| self.labels.get(*label))
            .map_or_else(|| PoolName::from(DEFAULT_POOL), |name| PoolName::new(name.clone()))
    }

    /// The kubelet version, where it reads as one.
    pub fn kubelet(&self) -> Option<KubernetesVersion> {
        KubernetesVersion::parse_reported(&self.kubelet_version).ok()
    }
}

/// A pod that is not finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PodFacts {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: ObjectUid,
    /// The node that it is bound to.
    pub node: Option<NodeName>,
    /// The controller, as `ReplicaSet/web-7c9`.
    pub controller: Option<String>,
    /// A static pod's mirror, which only its kubelet can end.
    pub is_mirror: bool,
    /// Whether it may be bound to a cordoned node.
    pub tolerates_unschedulable: bool,
}

/// The mirror of a static pod of the control plane, in namespace `kube-system`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ControlPlanePodFacts {
    /// The master.
    pub node: NodeName,
    /// The component, by label `component`.
    pub component: ControlPlaneComponent,
    /// The image of its spec.
    pub image: String,
    /// The Ready condition.
    pub ready: bool,
    /// How often its container was started again.
    pub restarts: i64,
}

/// An add-on that kubeadm puts into namespace `kube-system`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AddonFacts {
    /// `kube-proxy` (a DaemonSet) or `coredns` (a Deployment): also the role of its image.
    pub name: String,
    /// The image of its template.
    pub image: String,
    /// Whether every pod is of the newest template and ready.
    pub rolled_out: bool,
    /// What others than kubeadm have set in it, which kubeadm's next upgrade takes back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<AddonEdit>,
}

/// Fields of an add-on that somebody has set, by the object's `managedFields`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AddonEdit {
    /// The field manager, such as `kubectl-edit`.
    pub by: String,
    /// The fields, such as `spec.template.spec.tolerations`.
    pub fields: Vec<String>,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BudgetFacts {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `status.disruptionsAllowed`.
    pub disruptions_allowed: i64,
    /// How many pods it expects.
    pub expected_pods: i64,
}

/// A Deployment, StatefulSet or DaemonSet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WorkloadFacts {
    /// `Deployment`, `StatefulSet` or `DaemonSet`.
    pub kind: Arc<str>,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `metadata.name`.
    pub name: Arc<str>,
    /// How many pods are wanted.
    pub desired: i64,
    /// How many pods are ready.
    pub ready: i64,
}

impl WorkloadFacts {
    /// `Deployment shop/cart`.
    pub fn label(&self) -> String {
        format!("{} {}/{}", self.kind, self.namespace, self.name)
    }

    /// Whether both are of one workload.
    pub fn is_of(&self, other: &Self) -> bool {
        same_text(&self.name, &other.name)
            && same_text(&self.namespace, &other.namespace)
            && same_text(&self.kind, &other.kind)
    }

    /// How many pods must be ready now for it not to be worse than it was before: as many as then, but for those that its
    /// owner does not want any more.
    pub fn ready_wanted(&self, before: &Self) -> i64 {
        before.ready.min(self.desired)
    }
}

/// What the server knows of an enrolled agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFacts {
    /// When the server last heard of it, by the server's clock.
    pub last_heard_at: Timestamp,
    /// What it told of its node, shared with where it was heard.
    pub machine: Arc<MachineFacts>,
}

/// What an agent tells of its node and of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MachineFacts {
    /// The agent's own version.
    pub agent_version: String,
    /// The kinds of steps that it can do.
    pub step_kinds: Vec<String>,
    /// `/etc/machine-id`.
    pub machine_id: Arc<str>,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The architecture as Kubernetes names it.
    pub architecture: String,
    /// The kubelet.
    pub kubelet: Observed<ComponentFacts>,
    /// The container runtime, containerd.
    pub container_runtime: Observed<ComponentFacts>,
    /// What the kubelet's configuration has here besides the cluster's; none where the agent does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubelet_edits: Option<Observed<Vec<HandEdit>>>,
    /// Free bytes where artefacts are staged.
    pub staging_free_bytes: u64,
    /// The control plane on this machine; none where no static pod of a control plane has a manifest.
    #[serde(default)]
    pub control_plane: Option<Box<ControlPlaneFacts>>,
}

/// One installed component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ComponentFacts {
    /// The path of the executable.
    pub path: String,
    /// How it came onto the node.
    pub install: InstallMethod,
    /// What the executable on disk says of its version.
    pub version: String,
    /// The SHA-256 of the executable on disk.
    pub sha256: String,
    /// The SHA-256 of the executable that runs now; none when the unit is not running.
    pub running_sha256: Option<String>,
}

/// How a component came onto a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "method", rename_all = "snake_case")]
pub enum InstallMethod {
    /// A file that belongs to no package.
    Binary,
    /// A file that a package manager owns.
    Package {
        /// `dpkg` or `rpm`.
        manager: String,
        /// The package's name.
        package: String,
    },
    /// On a file system that is mounted read-only.
    ReadOnly,
}

impl InstallMethod {
    /// The words for messages.
    pub fn label(&self) -> String {
        match self {
            Self::Binary => "binary".to_owned(),
            Self::Package { manager, package } => format!("{manager} package {package}"),
            Self::ReadOnly => "read-only file system".to_owned(),
        }
    }
}
