//! The node, as steps see it: programs, transient units, services and a few facts.
//!
//! [`System`](crate::system::System) is the real one; tests have a fake. Files are touched directly, below
//! [`Host::root`], since a folder is as good a fake as any.

use std::path::{Path, PathBuf};
use std::time::Duration;

use shiplock_core::facts::examination::{FileSystem, RuntimeHealth, TlsOutcome, TlsTarget};
use shiplock_core::problem::Problem;

use crate::cri::{Container, ContainerDetails};
use crate::endpoint::{Answer, Question};

/// The folders in which programs are looked for, as systemd has them.
pub const PROGRAM_FOLDERS: &[&str] = &["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What a program said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgramOutput {
    /// Whether it ended with 0.
    pub success: bool,
    /// What it wrote to its standard output.
    pub text: String,
    /// What it wrote to its standard error, the end of it.
    pub error: String,
}

/// A service unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `ActiveState`: `active`, `activating`, `failed` …
    pub state: String,
    /// `MainPID`, 0 when it does not run.
    pub main_pid: u32,
    /// `NRestarts`: how often the service manager started it again after it had ended by itself.
    pub restarts: u32,
    /// The program of `ExecStart` and its arguments; empty when there is no such unit.
    pub command: Vec<String>,
}

/// A transient unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitState {
    /// There is none of this name.
    Absent,
    /// It runs.
    Running,
    /// It ended well and is kept for its result.
    Succeeded,
    /// It ended badly.
    Failed {
        /// Such as `exit-code 1`.
        result: String,
    },
}

/// The node.
pub trait Host {
    /// What stands before every absolute path: `/` but in tests.
    fn root(&self) -> &Path;
    /// Runs a program that changes nothing. Bounded in time and output.
    async fn output(&self, program: &str, arguments: &[&str], limit: Duration) -> Result<ProgramOutput, Problem>;
    /// Starts a program as a transient unit, unless there is one of this name.
    async fn start_unit(&self, unit: &str, command: &[String]) -> Result<(), Problem>;
    /// How a transient unit is.
    async fn unit(&self, unit: &str) -> Result<UnitState, Problem>;
    /// Stops and forgets every transient unit whose name begins so.
    async fn clear_units(&self, prefix: &str) -> Result<(), Problem>;
    /// Has the service manager read its files again.
    async fn reload_units(&self) -> Result<(), Problem>;
    /// Has the service manager forget how often a service failed: past its limit it starts it for nobody.
    async fn forget_failures(&self, service: &str) -> Result<(), Problem>;
    /// A service unit.
    async fn service(&self, name: &str) -> Result<Service, Problem>;
    /// The last lines of the journals of units.
    async fn journal(&self, units: &[&str], lines: u32) -> String;
    /// The SHA-256 of a file; `None` when it is not there. `path` has the root in it.
    async fn file_digest(&self, path: &Path) -> Result<Option<String>, Problem>;
    /// The SHA-256 of the executable that a process runs; `None` when there is no such process.
    async fn running_digest(&self, pid: u32) -> Result<Option<String>, Problem>;
    /// The version that the container runtime answers over CRI; an error while it does not answer.
    async fn runtime_version(&self) -> Result<String, Problem>;
    /// The containers of pods in namespace `kube-system`, as the container runtime tells them.
    async fn containers(&self) -> Result<Vec<Container>, Problem>;
    /// What there is to know of one container.
    async fn container_details(&self, id: &str) -> Result<ContainerDetails, Problem>;
    /// Ends a container: asks it to, and kills it after `grace`.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Problem>;
    /// The digest of the configuration of the image with a reference; none where the runtime does not have it.
    async fn image_id(&self, reference: &str) -> Result<Option<String>, Problem>;
    /// Asks over HTTP. The error is in words.
    async fn ask(&self, question: &Question<'_>) -> Result<Answer, String>;
    /// Whether `http://127.0.0.1:PORT/healthz` answers `ok`.
    async fn is_healthy(&self, port: u16) -> bool;
    /// Free bytes for us on the file system of a path that has the root in it.
    fn free_bytes(&self, path: &Path) -> Result<u64, Problem>;
    /// The file system of a path that has the root in it, and what tells it from others.
    fn space(&self, path: &Path) -> Result<(u64, FileSystem), Problem>;
    /// How the container runtime says that it is; an error while it does not answer.
    async fn runtime_health(&self) -> Result<RuntimeHealth, Problem>;
    /// Whether a host and port can be connected to from here. The error is in words.
    async fn reaches(&self, host: &str, port: u16) -> Result<(), String>;
    /// Shakes hands with a TLS server, without verifying what it shows.
    async fn dial(&self, target: &TlsTarget) -> TlsOutcome;
    /// Whether the file system of a path is mounted read-only.
    fn is_read_only(&self, path: &Path) -> bool;
    /// Waits.
    async fn wait(&self, time: Duration);

    /// A path of the node as this process reaches it.
    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// The path of the node of one that this process reaches.
    fn node_path(&self, path: &Path) -> String {
        match path.strip_prefix(self.root()) {
            Ok(inner) => format!("/{}", inner.display()),
            Err(_) => path.display().to_string(),
        }
    }

    /// The first program of this name in the usual folders, as a path of the node.
    fn find_program(&self, name: &str) -> Option<String> {
        PROGRAM_FOLDERS.iter().map(|folder| format!("{folder}/{name}")).find(|path| self.at(path).is_file())
    }
}
