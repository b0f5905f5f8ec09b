//! Machines under nodes: what is installed and runs, static pods, transient units, the agent's journal, disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::version::MinorVersion;

use super::moment::Moment;
use super::table::Text;

/// An executable: its version and digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    /// The version as it says it, such as `v1.36.3`.
    pub version: Text,
    /// The SHA-256.
    pub sha256: Text,
}

/// A component on a machine: what is on disk and what runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// On disk.
    pub disk: Executable,
    /// Running; none where the service does not run.
    pub running: Option<Executable>,
}

/// A static pod of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticPod {
    /// The image that its manifest names.
    pub image: Text,
    /// The image that runs; none while nothing does.
    pub running: Option<Text>,
    /// When it was started.
    pub started_at: Moment,
    /// Its own endpoint answers.
    pub healthy: bool,
    /// It does not come up, whatever is done.
    pub broken: bool,
}

/// What a transient unit does when it has run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Replaces containerd and restarts it.
    Runtime(Executable),
    /// Replaces the kubelet and restarts it.
    Kubelet(Executable),
    /// Swaps manifests, and the kubelet where there is one, with one restart.
    Swap {
        /// Component and image.
        images: Vec<(ControlPlaneComponent, Text)>,
        /// The kubelet.
        kubelet: Option<Executable>,
        /// The minor version that API server, controller manager and scheduler emulate afterwards.
        emulates: Option<MinorVersion>,
    },
    /// Writes kubeadm's configuration in the cluster.
    UploadConfiguration,
    /// Sets images of add-ons: workload name and image.
    AddOns(Vec<(Text, Text)>),
}

/// How a unit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitState {
    /// It runs.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
}

/// A transient unit: it outlives the agent and its result is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Its name.
    pub name: Text,
    /// What it does.
    pub work: Work,
    /// How it stands.
    pub state: UnitState,
}

/// Faults of a machine that are on now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineFaults {
    /// The next kubelet that is put in place does not come up.
    pub kubelet_will_not_start: bool,
    /// Units end badly, so many times.
    pub units_fail: u32,
    /// Writes fail: the disk is full.
    pub disk_full: bool,
    /// Images cannot be pulled.
    pub pulls_fail: bool,
    /// The machine does not come back when it is booted.
    pub boot_hangs: bool,
    /// The etcd member here is ill.
    pub etcd_ill: bool,
}

/// A machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its name, that of its node.
    pub name: Text,
    /// `/etc/machine-id`.
    pub machine_id: Text,
    /// Another one after each boot.
    pub boot_id: Text,
    /// As Kubernetes names it.
    pub architecture: Text,
    /// It has power and runs.
    pub on: bool,
    /// The kubelet.
    pub kubelet: Installed,
    /// containerd.
    pub runtime: Installed,
    /// The control plane; empty on a worker.
    pub static_pods: BTreeMap<ControlPlaneComponent, StaticPod>,
    /// The minor version that API server, controller manager and scheduler are told to emulate.
    pub emulates: Option<MinorVersion>,
    /// Images that are there.
    pub images: Arc<BTreeSet<Text>>,
    /// Files that are staged, by SHA-256.
    pub staged: Arc<BTreeSet<Text>>,
    /// Transient units.
    pub units: Vec<Unit>,
    /// What steps replaced here and kept, by attempt.
    pub kept: Vec<(Text, Work)>,
    /// The bytes of the agent's journal that are on disk.
    pub journal: Arc<Vec<u8>>,
    /// Free bytes on disk.
    pub disk_free_bytes: u64,
    /// How long a write to disk takes.
    pub disk_sync: Duration,
    /// What is wrong with it now.
    pub faults: MachineFaults,
    /// Events of the world for an earlier boot are void.
    pub(crate) boot: u32,
    /// Events of the world for an earlier start of the kubelet are void.
    pub(crate) kubelet_run: u32,
}

impl Machine {
    /// Whether the kubelet runs.
    pub fn kubelet_runs(&self) -> bool {
        self.on && self.kubelet.running.is_some()
    }
}

/// A member of etcd, on a master.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdMember {
    /// Its id.
    pub id: u64,
    /// Its machine, by the id of the node.
    pub machine: u32,
    /// It has no vote.
    pub is_learner: bool,
}

/// etcd as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Etcd {
    /// The members.
    pub members: Vec<EtcdMember>,
    /// The leader; 0 where there is none.
    pub leader: u64,
    /// Raised alarms.
    pub alarms: Vec<Text>,
}
