//! What the agent tells of its machine. Read cheaply: what costs much is remembered until the file changes.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use shiplock_core::facts::{ComponentFacts, ControlPlaneFacts, InstallMethod, MachineFacts, Observed};
use shiplock_core::problem::{Code, Problem};

use crate::control_plane::ControlPlaneReader;
use crate::host::Host;
use crate::kubelet_configuration::KubeletConfigurationReader;
use crate::steps::runtime::containerd_version;
use crate::steps::{KINDS, READ_LIMIT};

/// Free space is told in steps, so that it is no news with every poll.
const FREE_STEP_BYTES: u64 = 256 << 20;

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileKey {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl FileKey {
    /// The key of open metadata.
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// Since when what is unknown has been so.
#[derive(Debug, Default)]
pub struct Since(HashMap<&'static str, (Problem, Timestamp)>);

impl Since {
    /// What was read of a subject, or since when it cannot be. The same trouble keeps its begin, or every poll would
    /// carry news.
    pub fn observed<T>(&mut self, subject: &'static str, read: Result<T, Problem>) -> Observed<T> {
        match read {
            Ok(known) => {
                self.0.remove(subject);
                Observed::Known(known)
            }
            Err(problem) => {
                let entry = self.0.entry(subject).or_insert_with(|| (problem.clone(), Timestamp::now()));
                if entry.0 != problem {
                    *entry = (problem, Timestamp::now());
                }
                Observed::Unknown { problem: entry.0.clone(), since: entry.1 }
            }
        }
    }
}

/// Reads the facts, and remembers versions and install methods by file.
#[derive(Debug, Default)]
pub struct FactsReader {
    known: HashMap<PathBuf, (FileKey, InstallMethod, String)>,
    since: Since,
    control_plane: ControlPlaneReader,
    kubelet_configuration: KubeletConfigurationReader,
}

impl FactsReader {
    /// The facts now.
    pub async fn read<H: Host>(&mut self, host: &H, data_folder: &Path) -> MachineFacts {
        let line = |path: &str| fs::read_to_string(host.at(path)).unwrap_or_default().trim().to_owned();
        let free = host.free_bytes(data_folder).unwrap_or(0);
        self.control_plane.ask_webhooks(host).await;
        self.control_plane.ask_configuration_again();
        let kubelet_edits = self.kubelet_configuration.edits(host).await;
        MachineFacts {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            step_kinds: KINDS.iter().map(|&kind| kind.to_owned()).collect(),
            machine_id: line("/etc/machine-id").into(),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            architecture: architecture().to_owned(),
            kubelet: self.component(host, "kubelet").await,
            container_runtime: self.component(host, "containerd").await,
            kubelet_edits: Some(self.since.observed("the kubelet's configuration", kubelet_edits)),
            staging_free_bytes: free - free % FREE_STEP_BYTES,
            control_plane: self.read_control_plane(host, data_folder).await,
        }
    }

    /// The part of the facts that may change while nobody works on the node: the control plane's.
    pub async fn read_control_plane<H: Host>(
        &mut self,
        host: &H,
        data_folder: &Path,
    ) -> Option<Box<ControlPlaneFacts>> {
        self.control_plane.read(host, data_folder, &mut self.since).await.map(Box::new)
    }

    async fn component<H: Host>(&mut self, host: &H, service: &'static str) -> Observed<ComponentFacts> {
        let read = self.look(host, service).await;
        self.since.observed(service, read)
    }

    async fn look<H: Host>(&mut self, host: &H, name: &'static str) -> Result<ComponentFacts, Problem> {
        let service = host.service(name).await?;
        let missing = || {
            Problem::new(Code::FileUnusable).with("path", name).with("subject", "this node").with("operation", "found")
        };
        let path = service.command.first().cloned().or_else(|| host.find_program(name)).ok_or_else(missing)?;
        let real = fs::canonicalize(host.at(&path)).unwrap_or_else(|_| host.at(&path));
        let metadata = fs::metadata(&real).map_err(|error| missing().because(&error))?;
        let key = FileKey::of(&metadata);
        let known = self.known.get(&real).filter(|(old, ..)| *old == key).cloned();
        let (_, install, version) = match known {
            Some(known) => known,
            None => {
                let output = host.output(&path, &["--version"], READ_LIMIT).await?;
                let version = if name == "kubelet" {
                    output.text.split_whitespace().last().map(str::to_owned)
                } else {
                    containerd_version(&output.text)
                };
                let version = version.ok_or_else(|| missing().cause("it does not say its version"))?;
                let fresh = (key, install_method(host, &real).await, version);
                self.known.insert(real.clone(), fresh.clone());
                fresh
            }
        };
        let sha256 = host.file_digest(&real).await?.ok_or_else(missing)?;
        let running_sha256 =
            if service.main_pid == 0 { None } else { host.running_digest(service.main_pid).await.unwrap_or(None) };
        Ok(ComponentFacts { path, install, version, sha256, running_sha256 })
    }
}

/// How a file came onto the node. `real` has the root in it and no symbolic links.
pub async fn install_method<H: Host>(host: &H, real: &Path) -> InstallMethod {
    if host.is_read_only(real) {
        return InstallMethod::ReadOnly;
    }
    let path = host.node_path(real);
    // A package may name the file by its place before /usr was merged.
    let before_merge = path.strip_prefix("/usr").filter(|path| path.starts_with("/bin/") || path.starts_with("/sbin/"));
    for path in std::iter::once(path.as_str()).chain(before_merge) {
        for (manager, program, query) in [("dpkg", "dpkg", "-S"), ("rpm", "rpm", "-qf")] {
            let Some(program) = host.find_program(program) else { continue };
            let Ok(output) = host.output(&program, &[query, path], READ_LIMIT).await else { continue };
            if let Some(package) = output.text.lines().next().filter(|_| output.success) {
                let package = package.split(": ").next().unwrap_or(package).to_owned();
                return InstallMethod::Package { manager: manager.to_owned(), package };
            }
        }
    }
    InstallMethod::Binary
}

/// The architecture as Kubernetes names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
