//! The closed set of typed steps. Nothing acts on a node, a component or a cluster but one of these.
//!
//! Each step is safe to repeat: its executor first *examines* whether the goal is reached, and only then acts.

use serde::{Deserialize, Serialize};

use crate::artefact::{ArtefactFile, ArtefactImage};
use crate::facts::ControlPlaneComponent;
use crate::id::{NodeName, StepNumber, UpgradeId};
use crate::version::{KubernetesVersion, MinorVersion};

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Step {
    /// Unique in the plan, growing in the order of work.
    pub number: StepNumber,
    /// What is done.
    pub action: Action,
    /// On what it is done.
    pub target: Target,
    /// After this many seconds the step is called late, and its executor gives up.
    pub timeout_seconds: u32,
}

/// What a step acts on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", content = "name", rename_all = "snake_case")]
pub enum Target {
    /// A node.
    Node(NodeName),
    /// The cluster as a whole.
    Cluster,
}

impl Target {
    /// The node, where there is one.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Node(node) => Some(node),
            Self::Cluster => None,
        }
    }
}

/// Who does a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Executor {
    /// The agent on the node.
    Agent,
    /// The server, through the Kubernetes API.
    Server,
}

/// What a step does, with everything that it needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Action {
    /// Server: records the workloads and nodes as they are before anything is touched. Changes nothing.
    CaptureBaseline,
    /// Agent: fetches files and images to the node and checks their digests. Changes nothing that runs.
    Prefetch {
        /// The mirror's root, `http(s)://…` or an absolute path on the node.
        mirror: String,
        /// Files to stage.
        files: Vec<ArtefactFile>,
        /// Images to import into the runtime.
        images: Vec<ArtefactImage>,
    },
    /// Server: marks the node unschedulable, as ours, unless it is so already. Goal: unschedulable.
    Cordon,
    /// Server: evicts the pods of the node. Goal: none of the pods found at its begin is left.
    Drain {
        /// How long pods may take before `on_timeout` applies.
        timeout_seconds: u32,
        /// What happens when the time is over.
        on_timeout: OnDrainTimeout,
    },
    /// Agent: replaces containerd's executables, migrates its configuration (the old one is kept) and restarts it.
    UpgradeContainerRuntime {
        /// The target version, such as `v2.2.9`.
        version: String,
        /// The executables.
        files: Vec<ArtefactFile>,
        /// The pause image to pin, where the old configuration pinned an upstream one.
        sandbox_image: Option<String>,
    },
    /// Agent: writes the kubelet configuration of the target, replaces kubelet, kubeadm and kubectl and restarts the kubelet.
    UpgradeKubelet {
        /// The target version.
        version: KubernetesVersion,
        /// The executables.
        files: Vec<ArtefactFile>,
    },
    /// Agent on a master: takes a snapshot of etcd through the member there, checks it with the target's `etcdutl` and
    /// hands it to the server. Changes nothing that runs.
    BackupEtcd {
        /// `etcdctl` and `etcdutl`.
        files: Vec<ArtefactFile>,
    },
    /// Agent on a master: the target's kubeadm renders manifests beside the ones in force, and then kubelet and manifests
    /// are swapped with one restart. What does not come up is swapped back.
    UpgradeControlPlane(Box<ControlPlaneUpgrade>),
    /// Agent on a master: kubelet and manifests that an earlier upgrade replaced are put back from the copies that it
    /// kept there, by the same swap.
    RestoreControlPlane(Box<ControlPlaneRestore>),
    /// Agent on a master: the parts of the configuration that the cluster keeps for all nodes (ConfigMaps
    /// `kubeadm-config` and `kubelet-config`, roles of bootstrap tokens), by the target's kubeadm.
    UploadConfiguration {
        /// The target version.
        version: KubernetesVersion,
        /// The target's `kubeadm`.
        kubeadm: ArtefactFile,
    },
    /// Agent on the master that uploaded it: the ConfigMaps that a step of an earlier upgrade replaced are put back from
    /// the copies that it kept there.
    RestoreConfiguration {
        /// The upgrade that kept the copies.
        upgrade: UpgradeId,
        /// Its step.
        step: StepNumber,
    },
    /// Agent on a master: kube-proxy and CoreDNS with its configuration migrated, by the target's kubeadm.
    UpgradeAddons {
        /// The target version.
        version: KubernetesVersion,
        /// The target's `kubeadm`.
        kubeadm: ArtefactFile,
    },
    /// Server: waits until every pod of kube-proxy and CoreDNS runs the target's image and is ready.
    VerifyAddons {
        /// The images that they must run.
        images: Vec<ArtefactImage>,
    },
    /// Server: reads the node back until it is Ready and everything claimed runs.
    VerifyNode {
        /// The kubelet version that the node must report.
        kubelet: KubernetesVersion,
        /// The SHA-256 that the running kubelet's executable must have, as its agent reads it.
        kubelet_sha256: Option<String>,
        /// The runtime version that the node must report, such as `v2.2.9`; none where it is not changed.
        container_runtime: Option<String>,
        /// The SHA-256 that the running containerd's executable must have.
        container_runtime_sha256: Option<String>,
        /// The images that the components on a master must run; empty on other nodes, and where they are not changed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        control_plane_images: Vec<ArtefactImage>,
    },
    /// Server: takes our cordon off. Goal: our cordon is gone; a cordon of somebody else stays.
    Uncordon,
    /// Server: reads every node and every workload and compares with the baseline.
    VerifyCluster {
        /// The kubelet version that each node of the plan must report.
        kubelet: KubernetesVersion,
    },
    /// Agent: gathers the journals of kubelet and containerd after a failure. Changes nothing.
    CollectLogs,
}

/// What is done to the control plane on one master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of the plan, each named on the wire")]
pub struct ControlPlaneUpgrade {
    /// The target version.
    pub version: KubernetesVersion,
    /// The components whose manifests are swapped; etcd alone where its minor version changes, ahead of the others.
    pub components: Vec<ControlPlaneComponent>,
    /// The target's images: of the components and of the pause container.
    pub images: Vec<ArtefactImage>,
    /// `kubeadm`, and where the kubelet is swapped with the manifests, `kubelet` and `kubectl`.
    pub files: Vec<ArtefactFile>,
    /// How.
    pub method: ControlPlaneMethod,
    /// The first master of this upgrade: kubeadm's own method has another command for it.
    pub is_first: bool,
    /// The only master: no other member and no other API server are asked for, and the outage was accepted.
    pub is_only: bool,
    /// Whether etcd goes to another minor version: then it is never put back.
    pub etcd_minor_changes: bool,
    /// Whether kubeadm renews the certificates that it manages.
    pub renew_certificates: bool,
    /// A folder with kubeadm patches on the master.
    pub patches_folder: Option<String>,
    /// Whether edits made by hand may be lost.
    pub hand_edits_accepted: bool,
    /// Preflight errors that kubeadm is told to ignore.
    pub ignore_preflight_errors: Vec<String>,
    /// Whether the components begin or end to behave like an older minor version; none in an upgrade without a soak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulation: Option<Emulation>,
}

/// How a swap changes what API server, controller manager and scheduler emulate by `--emulated-version`,
/// see <https://kubernetes.io/docs/concepts/cluster-administration/compatibility-version/>.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "emulation", rename_all = "snake_case")]
pub enum Emulation {
    /// Afterwards they emulate this minor version.
    Begins {
        /// Which.
        of: MinorVersion,
    },
    /// An earlier swap of the plan made them emulate this minor version; afterwards they are what they are.
    Ends {
        /// Which.
        of: MinorVersion,
    },
}

/// What is put back on one master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ControlPlaneRestore {
    /// The upgrade that kept the copies.
    pub upgrade: UpgradeId,
    /// Its step.
    pub step: StepNumber,
    /// The number of the event that began the attempt which kept them.
    pub intent: u64,
    /// The version of the API server afterwards.
    pub version: KubernetesVersion,
    /// The only master: no other member and no other API server are asked for, and the outage was accepted.
    pub is_only: bool,
    /// Whether etcd stays as it is: an older minor version refuses the data of a newer one.
    pub etcd_stays: bool,
    /// Where old images are fetched from that the node does not have any more; none where there is no mirror.
    pub mirror: Option<String>,
    /// Those that the mirror has.
    pub images: Vec<ArtefactImage>,
}

/// How the control plane on a master is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ControlPlaneMethod {
    /// kubeadm renders, the agent swaps everything with one restart of the kubelet.
    #[default]
    StagedSwap,
    /// `kubeadm upgrade apply` on the first master and `kubeadm upgrade node` on the others.
    Kubeadm,
}

/// What happens to a node whose drain takes too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OnDrainTimeout {
    /// The upgrade pauses with the blockers named.
    #[default]
    Pause,
    /// The node is given back as it was and skipped; it is listed at the end.
    Skip,
    /// What is left is deleted, PodDisruptionBudgets notwithstanding.
    Force,
}

impl Action {
    /// Whether it writes the kubelet's configuration anew.
    pub fn writes_kubelet_configuration(&self) -> bool {
        match self {
            Self::UpgradeKubelet { .. } => true,
            Self::UpgradeControlPlane(upgrade) => upgrade.files.iter().any(|file| file.role == "kubelet"),
            _ => false,
        }
    }

    /// The stable name of the kind, as in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CaptureBaseline => "capture_baseline",
            Self::Prefetch { .. } => "prefetch",
            Self::Cordon => "cordon",
            Self::Drain { .. } => "drain",
            Self::UpgradeContainerRuntime { .. } => "upgrade_container_runtime",
            Self::UpgradeKubelet { .. } => "upgrade_kubelet",
            Self::BackupEtcd { .. } => "backup_etcd",
            Self::UpgradeControlPlane(_) => "upgrade_control_plane",
            Self::RestoreControlPlane(_) => "restore_control_plane",
            Self::UploadConfiguration { .. } => "upload_configuration",
            Self::RestoreConfiguration { .. } => "restore_configuration",
            Self::UpgradeAddons { .. } => "upgrade_addons",
            Self::VerifyAddons { .. } => "verify_addons",
            Self::VerifyNode { .. } => "verify_node",
            Self::Uncordon => "uncordon",
            Self::VerifyCluster { .. } => "verify_cluster",
            Self::CollectLogs => "collect_logs",
        }
    }

    /// Who does it.
    pub fn executor(&self) -> Executor {
        match self {
            Self::Prefetch { .. }
            | Self::UpgradeContainerRuntime { .. }
            | Self::UpgradeKubelet { .. }
            | Self::BackupEtcd { .. }
            | Self::UpgradeControlPlane(_)
            | Self::RestoreControlPlane(_)
            | Self::UploadConfiguration { .. }
            | Self::RestoreConfiguration { .. }
            | Self::UpgradeAddons { .. }
            | Self::CollectLogs => Executor::Agent,
            Self::CaptureBaseline
            | Self::Cordon
            | Self::Drain { .. }
            | Self::VerifyAddons { .. }
            | Self::VerifyNode { .. }
            | Self::Uncordon
            | Self::VerifyCluster { .. } => Executor::Server,
        }
    }

    /// Whether a node counts as started once this step has an intent: it changes what runs or may run there.
    pub fn is_acting(&self) -> bool {
        match self {
            Self::Cordon
            | Self::Drain { .. }
            | Self::UpgradeContainerRuntime { .. }
            | Self::UpgradeKubelet { .. }
            | Self::UpgradeControlPlane(_)
            | Self::RestoreControlPlane(_)
            | Self::VerifyNode { .. }
            | Self::Uncordon => true,
            // Configuration and add-ons belong to the cluster: the master on which kubeadm runs is not changed.
            Self::CaptureBaseline
            | Self::Prefetch { .. }
            | Self::BackupEtcd { .. }
            | Self::UploadConfiguration { .. }
            | Self::RestoreConfiguration { .. }
            | Self::UpgradeAddons { .. }
            | Self::VerifyAddons { .. }
            | Self::VerifyCluster { .. }
            | Self::CollectLogs => false,
        }
    }

    /// Whether it empties a node or changes what pods on it stand on: where the plan cordons the node, it must be so.
    pub fn wants_cordon(&self) -> bool {
        matches!(
            self,
            Self::Drain { .. }
                | Self::UpgradeContainerRuntime { .. }
                | Self::UpgradeKubelet { .. }
                | Self::UpgradeControlPlane(_)
                | Self::RestoreControlPlane(_)
        )
    }
}
