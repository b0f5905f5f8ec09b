//! What an agent finds when it is asked to look at its node closely, before an upgrade.
//!
//! A question is a closed set of things to look at. Looking changes nothing on the node, and every part is bounded in
//! time; what cannot be read says why, and is never taken for good.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::HandEdit;

/// What was seen, or why it could not be seen, in words.
pub type Look<T> = Result<T, String>;

/// The word by which an agent says, among its kinds of steps, that it answers a [`NodeQuestion`].
pub const EXAMINE_KIND: &str = "examine";

/// What an agent is to look at besides its node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeQuestion {
    /// The artefact mirror's root from which a plan fetches.
    pub mirror: Option<String>,
    /// The images that a plan needs on this node.
    pub images: Vec<WantedImage>,
    /// TLS servers to shake hands with, such as webhooks that are no pods.
    pub dial: Vec<TlsTarget>,
}

/// A TLS server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TlsTarget {
    /// The address or host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The name under which the API server knows it.
    pub server_name: String,
}

/// What came of a handshake. Nothing is verified by whoever shakes hands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TlsOutcome {
    /// It showed certificates.
    Presented {
        /// DER in base64, its own first.
        chain: Vec<String>,
    },
    /// It was reached, or should have been, and there was no handshake.
    Failed {
        /// Why.
        why: String,
    },
    /// There was no way to it from here.
    NotSeen {
        /// Why.
        why: String,
    },
}

/// A TLS server that was dialled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsDialled {
    /// The server.
    pub target: TlsTarget,
    /// What came of it.
    pub outcome: TlsOutcome,
}

/// An image that a plan needs on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct WantedImage {
    /// Its reference.
    pub reference: String,
    /// Its archive below the mirror's root.
    pub path: String,
}

/// A node, as its agent found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeExamination {
    /// What the node's clock showed. It is compared and shown; nothing is ordered by it.
    pub clock: Timestamp,
    /// The host name.
    pub host_name: String,
    /// Whether the host name can be resolved on the node.
    pub host_name_resolves: bool,
    /// `/etc/os-release`.
    pub operating_system: Look<OperatingSystem>,
    /// The kernel.
    pub kernel: Kernel,
    /// The version of the service manager, such as `252`, and the package's where it says more.
    pub systemd_version: Look<String>,
    /// 1 or 2.
    pub cgroup_version: Look<u8>,
    /// The file systems that an upgrade writes to, each once.
    pub file_systems: Vec<FileSystem>,
    /// Errors of file systems in the kernel's log.
    pub file_system_errors: Look<Vec<String>>,
    /// Swap in use: devices and files.
    pub swaps: Look<Vec<String>>,
    /// Whether the clock is kept in time.
    pub time: Look<TimeService>,
    /// The container runtime.
    pub runtime: Look<RuntimeHealth>,
    /// The kubelet.
    pub kubelet: Look<KubeletHealth>,
    /// The package manager's sources.
    pub package_source: Look<PackageSource>,
    /// The rules of the packet filter.
    pub packet_filter: Look<PacketFilter>,
    /// Whether SELinux enforces.
    pub selinux_enforces: bool,
    /// A firewall service that is active, such as `firewalld`.
    pub firewall: Option<String>,
    /// Who listens on the ports of Kubernetes' components.
    pub ports: Look<Vec<PortOwner>>,
    /// Proxies that kubelet and runtime are told to use.
    pub proxies: Vec<ProxySetting>,
    /// Certificates of this node, with their ends.
    pub certificates: Vec<CertificateEnd>,
    /// The artefact mirror: how many artefacts its index names; none where no mirror was asked about.
    pub mirror: Option<Look<u64>>,
    /// The images that were asked about.
    pub images: Vec<ImageFound>,
    /// The TLS servers that were to be dialled.
    #[serde(default)]
    pub dialled: Vec<TlsDialled>,
}

/// The operating system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatingSystem {
    /// `ID`, such as `debian`.
    pub id: String,
    /// `VERSION_ID`, such as `12`.
    pub version_id: String,
    /// `PRETTY_NAME`.
    pub name: String,
    /// What says that the image was made by somebody else than the distribution, such as `IMAGE_ID=ours`.
    pub custom_marks: Vec<String>,
}

impl OperatingSystem {
    /// Reads the text of `/etc/os-release`, see os-release(5). What it does not name is empty.
    pub fn of_os_release(text: &str) -> Self {
        let value = |key: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            found.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
        };
        let marks = ["IMAGE_ID", "VARIANT_ID"].map(|key| (key, value(key)));
        Self {
            id: value("ID"),
            version_id: value("VERSION_ID"),
            name: value("PRETTY_NAME"),
            custom_marks: marks
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| format!("{key}={value}"))
                .collect(),
        }
    }
}

/// The kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// Of the modules that containers and kube-proxy need: those that are neither there nor can be loaded.
    pub missing_modules: Vec<String>,
}

/// A file system that an upgrade writes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystem {
    /// The folder that was looked at; all of those that share the file system, parted by commas.
    pub path: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Free bytes.
    pub free_bytes: u64,
    /// How many inodes it has; 0 where it makes them as needed.
    pub inodes: u64,
    /// How many of them are free.
    pub free_inodes: u64,
    /// Whether it is mounted read-only.
    pub is_read_only: bool,
}

impl FileSystem {
    /// Free bytes in per cent of the size, rounded down.
    pub fn free_per_cent(&self) -> u64 {
        per_cent(self.free_bytes, self.size_bytes)
    }

    /// Free inodes in per cent, rounded down; 100 where there is no bound.
    pub fn free_inodes_per_cent(&self) -> u64 {
        per_cent(self.free_inodes, self.inodes)
    }
}

fn per_cent(part: u64, whole: u64) -> u64 {
    if whole == 0 { 100 } else { u64::try_from(u128::from(part) * 100 / u128::from(whole)).unwrap_or(100) }
}

/// Who keeps the clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeService {
    /// Whether the kernel's clock is synchronised.
    pub is_synchronized: bool,
    /// Who says so, such as `timedatectl`.
    pub told_by: String,
}

/// The container runtime, by its own word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeHealth {
    /// Its version.
    pub version: String,
    /// Conditions that do not hold, such as `RuntimeReady: …`.
    pub not_ready: Vec<String>,
    /// How long it took to list every pod and container, as PLEG does, in milliseconds.
    pub list_milliseconds: u64,
    /// Whether it tells the kubelet its cgroup driver (`RuntimeConfig` of CRI); newer kubelets rely on it.
    pub tells_cgroup_driver: bool,
}

/// The kubelet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeletHealth {
    /// What its own health endpoint says where that is not `ok`.
    pub ill: Option<String>,
    /// What it has said of PLEG in the last minutes, where it complained.
    pub pleg: Option<String>,
    /// How often the service manager had to start it again, since it had ended, in the last 20 minutes.
    pub starts: u32,
    /// The `apiVersion` of its configuration.
    pub api_version: String,
    /// `failSwapOn`, which is true unless it says otherwise.
    pub fails_on_swap: bool,
    /// `memorySwap.swapBehavior`.
    pub swap_behavior: Option<String>,
    /// `failCgroupV1`, where it is set.
    pub fails_on_cgroup_v1: Option<bool>,
    /// `kubeReserved` and `systemReserved` and `reservedSystemCPUs`, such as `kubeReserved.memory`.
    pub reserved: BTreeMap<String, String>,
    /// Feature gates.
    pub feature_gates: BTreeMap<String, bool>,
    /// The names of its flags.
    pub flags: Vec<String>,
    /// What its configuration has here besides the cluster's.
    pub edits: Look<Vec<HandEdit>>,
    /// The host of the API server that it uses.
    pub api_server_host: String,
}

/// The sources of the package manager.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageSource {
    /// `apt-get`, `dnf`, `yum` or `zypper`.
    pub manager: String,
    /// How many sources are configured.
    pub sources: u32,
    /// Why the sources cannot be used, where they cannot.
    pub failure: Option<String>,
}

/// The packet filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketFilter {
    /// `nf_tables`, `legacy` or empty where there is no iptables on the host.
    pub backend: String,
    /// Tables of the other backend that are in use.
    pub other_tables: Vec<String>,
}

/// Who listens on a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortOwner {
    /// The port.
    pub port: u16,
    /// The name of the process.
    pub process: String,
}

/// A proxy that a service is told to use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxySetting {
    /// `kubelet` or `containerd`.
    pub service: String,
    /// The name of the variable.
    pub variable: String,
    /// What goes around the proxy.
    pub except: String,
}

/// When a certificate ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateEnd {
    /// The file.
    pub path: String,
    /// When it ends.
    pub ends_at: Timestamp,
}

/// Whether an image can be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFound {
    /// Its reference.
    pub reference: String,
    /// True: the runtime has it, or the mirror has its archive. Else why neither.
    pub available: Look<()>,
}
