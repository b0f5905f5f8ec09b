//! The steps: each one examines whether its goal is reached, acts only where it is not, and reads the goal back.
//!
//! A step must never act without a permit for the phase, and must be safe to begin again at any point.

pub mod backup_etcd;
pub mod cluster_phases;
pub mod control_plane;
pub mod kubelet;
pub mod logs;
pub mod prefetch;
pub mod runtime;

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use shiplock_api::agent::Assignment;
use shiplock_core::artefact::ArtefactFile;
use shiplock_core::facts::examination::EXAMINE_KIND;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::size::readable_bytes;
use shiplock_core::step::Action;
use shiplock_core::upgrade::StepOutcome;
use tokio::sync::{mpsc, oneshot};

use self::backup_etcd::{BackupMessage, BackupReply};
use crate::backup::Backup;
use crate::files;
use crate::host::{Host, UnitState};

/// The kinds of steps that this agent can do.
pub const KINDS: &[&str] = &[
    "prefetch",
    "upgrade_container_runtime",
    "upgrade_kubelet",
    "backup_etcd",
    "upgrade_control_plane",
    "restore_control_plane",
    "upload_configuration",
    "restore_configuration",
    "upgrade_addons",
    "collect_logs",
    // No step: it answers questions of the pre-check.
    EXAMINE_KIND,
];

/// Why a step ended without its goal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What happened.
    pub problem: Box<Problem>,
    /// Whether a further attempt may help without a person.
    pub retryable: bool,
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), retryable: false }
    }
}

impl Failure {
    /// A failure that a further attempt may not have.
    pub fn retryable(problem: Problem) -> Self {
        Self { problem: Box::new(problem), retryable: true }
    }
}

/// What a step tells and asks while it works.
#[derive(Debug)]
pub enum StepEvent {
    /// It is about to act and waits for the answer. Without one it is dropped.
    PermitWanted {
        /// The phase.
        phase: &'static str,
        /// Where the answer goes.
        go: oneshot::Sender<()>,
    },
    /// It is about to put the old back and waits until that is on disk.
    RollingBack {
        /// Why.
        problem: Problem,
        /// Where the answer goes.
        go: oneshot::Sender<()>,
    },
    /// It asks the server about its backup, or hands it over, and waits for the answer.
    Backup {
        /// What it asks.
        message: BackupMessage,
        /// Where the answer goes.
        answer: oneshot::Sender<BackupReply>,
    },
    /// It goes on.
    Progress(&'static str),
}

/// A step in work.
#[derive(Debug)]
pub struct Step<H> {
    /// The node.
    pub host: Rc<H>,
    /// What to do.
    pub assignment: Assignment,
    /// The agent's folder.
    pub data_folder: PathBuf,
    /// Where events go.
    pub events: mpsc::UnboundedSender<StepEvent>,
    /// A roll back was begun before a restart, for this reason.
    pub rolling_back: Option<Problem>,
}

/// The part of the names of transient units that names the step.
pub fn unit_prefix(id: &shiplock_api::agent::AssignmentId) -> String {
    format!("shiplock-{}-{}-", id.upgrade, id.step)
}

/// A service that was started again is looked at so often: the node waits for it without its pods.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Most programs end at once; those that do not are looked at as seldom as a service.
const PROGRAM_LOOKED_AT_FIRST: Duration = Duration::from_millis(25);
/// A kubelet may end some times before containerd answers; one that ends so often will go on so.
const RESTARTS_MAX: u32 = 20;
/// A service that is `failed` for so long is not started by the service manager any more; it may be for a moment before a
/// restart that was asked for begins.
const FAILED_MAX: Duration = Duration::from_secs(5);
const LINES_OF_CAUSE: u32 = 20;
/// Commands that only read are quick; a node where they are not has other troubles.
pub(crate) const READ_LIMIT: Duration = Duration::from_secs(30);

impl<H: Host> Step<H> {
    /// Does the step.
    pub async fn run(self) -> Result<StepOutcome, Failure> {
        match self.assignment.action.clone() {
            Action::Prefetch { mirror, files, images } => prefetch::run(&self, &mirror, &files, &images).await,
            Action::UpgradeContainerRuntime { version, files, sandbox_image } => {
                runtime::run(&self, &version, &files, sandbox_image.as_deref()).await
            }
            Action::UpgradeKubelet { version, files } => kubelet::run(&self, &version.to_string(), &files).await,
            Action::BackupEtcd { files } => backup_etcd::run(&self, &files).await,
            Action::UpgradeControlPlane(upgrade) => control_plane::run(&self, &upgrade).await,
            Action::RestoreControlPlane(restore) => control_plane::restore::run(&self, &restore).await,
            Action::UploadConfiguration { version, kubeadm } => {
                cluster_phases::upload_configuration(&self, &version.to_string(), &kubeadm).await
            }
            Action::RestoreConfiguration { upgrade, step } => {
                cluster_phases::restore_configuration(&self, &upgrade, step).await
            }
            Action::UpgradeAddons { version, kubeadm } => {
                cluster_phases::upgrade_addons(&self, &version.to_string(), &kubeadm).await
            }
            Action::CollectLogs => logs::run(&self).await,
            other => Err(Problem::new(Code::StepKindMissing)
                .with("node", &self.assignment.node)
                .with("version", env!("CARGO_PKG_VERSION"))
                .with("kind", other.kind())
                .into()),
        }
    }

    /// Tells that a phase began.
    pub fn progress(&self, phase: &'static str) {
        // Nobody listens any more when the step is being dropped.
        let _ = self.events.send(StepEvent::Progress(phase));
    }

    /// Waits for the permit of a phase. Where it is refused, this never returns: the step is dropped.
    pub async fn permit(&self, phase: &'static str) {
        let (go, answered) = oneshot::channel();
        let _ = self.events.send(StepEvent::PermitWanted { phase, go });
        if answered.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Writes down that the old is about to be put back.
    pub async fn begin_roll_back(&self, problem: &Problem) {
        let (go, answered) = oneshot::channel();
        let _ = self.events.send(StepEvent::RollingBack { problem: problem.clone(), go });
        if answered.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Runs a program that changes the node: as a transient unit, at most once in an attempt, however often this
    /// agent is restarted meanwhile.
    pub async fn program(&self, phase: &str, command: &[&str]) -> Result<(), Problem> {
        let unit = format!("{}{phase}", unit_prefix(&self.assignment.id));
        if self.host.unit(&unit).await? == UnitState::Absent {
            let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
            self.host.start_unit(&unit, &command).await?;
        }
        // No bound of its own: the unit has one (RuntimeMaxSec), so it ends.
        let mut pause = PROGRAM_LOOKED_AT_FIRST;
        loop {
            let result = match self.host.unit(&unit).await? {
                UnitState::Succeeded => return Ok(()),
                UnitState::Running => {
                    self.host.wait(pause).await;
                    pause = (pause * 2).min(LOOK_EVERY);
                    continue;
                }
                UnitState::Failed { result } => result,
                UnitState::Absent => "no result".to_owned(),
            };
            let name = command.first().map_or("", |path| path.rsplit('/').next().unwrap_or(path));
            let lines = self.host.journal(&[&unit], LINES_OF_CAUSE).await;
            return Err(Problem::new(Code::ProgramFailed)
                .with("program", if name.len() == 64 { phase } else { name })
                .with("node", &self.assignment.node)
                .with("result", result)
                .cause(lines));
        }
    }

    /// Has the service manager start a service again. One that reached its start limit would be refused, whatever is in place
    /// now; so that is forgotten first.
    pub async fn restart(&self, phase: &str, service: &str) -> Result<(), Problem> {
        self.host.forget_failures(service).await?;
        self.program(phase, &["systemctl", "restart", "--no-block", service]).await
    }

    /// Looks every [`LOOK_EVERY`] until `look` finds nothing wrong with a service, for so long at most; else what was wrong in
    /// the last look. A service that ends again and again, or that the service manager gave up, is not waited for to the end:
    /// meanwhile the node is without it.
    pub async fn wait_until<F: Future<Output = Result<(), String>>>(
        &self,
        service: &str,
        at_most: Duration,
        mut look: impl FnMut() -> F,
    ) -> Result<(), String> {
        let mut wrong = String::new();
        let mut fewest = u32::MAX;
        let (mut waited, mut failed_for) = (Duration::ZERO, Duration::ZERO);
        while waited < at_most {
            match look().await {
                Ok(()) => return Ok(()),
                Err(why) => wrong = why,
            }
            if let Ok(found) = self.host.service(service).await {
                // Counted from the fewest: our own restart sets the counter back, and may not have yet.
                fewest = fewest.min(found.restarts);
                let ended = found.restarts - fewest;
                if ended >= RESTARTS_MAX {
                    return Err(format!("it ended {ended} times; {wrong}"));
                }
                failed_for = if found.state == "failed" { failed_for + LOOK_EVERY } else { Duration::ZERO };
                if failed_for > FAILED_MAX {
                    return Err(format!("the service manager does not start it again; {wrong}"));
                }
            }
            self.host.wait(LOOK_EVERY).await;
            waited += LOOK_EVERY;
        }
        Err(wrong)
    }

    /// The problem of a service that did not come up, with the last lines of its journal.
    pub async fn not_up(&self, service: &str, state: &str) -> Problem {
        Problem::new(Code::ServiceNotUp)
            .with("service", service)
            .with("node", &self.assignment.node)
            .with("state", state)
            .cause(self.host.journal(&[service], LINES_OF_CAUSE).await)
    }

    /// The problem of a file.
    pub fn unusable(&self, path: &Path, operation: &str, error: &io::Error) -> Problem {
        if files::is_full(error) {
            return self.no_room(path).because(error);
        }
        files::unusable(Path::new(&self.host.node_path(path)), self.assignment.node.as_str(), operation, error)
    }

    /// The problem of a disk that took no more: its bytes or its inodes are used up.
    fn no_room(&self, path: &Path) -> Problem {
        let space = self.host.space(path.parent().unwrap_or(path)).ok().map(|(_, space)| space);
        let inodes_are_used_up = space.as_ref().is_some_and(|space| space.inodes > 0 && space.free_inodes == 0);
        let free = space.map_or(0, |space| space.free_bytes);
        let problem = self.disk_full(path, free, "more".to_owned()).with("needed_zh", "更多空间");
        if inodes_are_used_up {
            return problem.with("free", "0 inodes").with("free_zh", "0 个 inode").with("needed_zh", "更多 inode");
        }
        problem
    }

    /// The problem of a full disk.
    pub fn disk_full(&self, path: &Path, free: u64, needed: String) -> Problem {
        Problem::new(Code::DiskFull)
            .with("path", self.host.node_path(path))
            .with("subject", &self.assignment.node)
            .with("free", readable_bytes(free))
            .with("needed", needed)
    }

    /// The folder of downloaded files.
    pub fn staging(&self) -> PathBuf {
        self.data_folder.join("staging")
    }

    /// Where this step keeps what it replaces, in whatever attempt.
    pub fn backup_folder(&self) -> PathBuf {
        let id = &self.assignment.id;
        self.data_folder.join("previous").join(format!("{}-{}", id.upgrade, id.step))
    }

    /// A staged file, its digest checked again.
    pub async fn staged(&self, file: &ArtefactFile) -> Result<PathBuf, Problem> {
        let path = self.staging().join(&file.sha256);
        match self.host.file_digest(&path).await? {
            Some(digest) if digest == file.sha256 => Ok(path),
            Some(digest) => {
                files::remove(&path).map_err(|error| self.unusable(&path, "removed", &error))?;
                Err(mismatch(&file.path, &digest, &file.sha256))
            }
            None => Err(self.unusable(&path, "read", &io::ErrorKind::NotFound.into()).cause("it was not prefetched")),
        }
    }

    /// A program of the plan: staged, or in place already. It is run under its own name: by that it writes down in the
    /// cluster which program owns a field.
    pub(crate) async fn tool(&self, file: &ArtefactFile) -> Result<PathBuf, Problem> {
        let staged = self.staged(file).await;
        if staged.is_err()
            && let Some(path) = self.host.find_program(&file.role)
        {
            let path = self.host.at(&path);
            if self.host.file_digest(&path).await?.as_ref() == Some(&file.sha256) {
                return Ok(path);
            }
        }
        let named = self.data_folder.join("tools").join(&file.role);
        files::link(&staged?, &named).map_err(|error| self.unusable(&named, "written", &error))?;
        Ok(named)
    }

    /// Puts what a step replaced back from its backup, as far as it was replaced, and has the old `component` started.
    pub(crate) async fn roll_back(
        &self,
        component: &str,
        problem: Problem,
        restart_old: impl Future<Output = Result<(), String>>,
    ) -> Failure {
        self.begin_roll_back(&problem).await;
        self.progress("rolling_back");
        let restored = Backup::find(&self.backup_folder()).map(|backup| backup.restore());
        let state = match restored {
            None => format!("there is no copy of the old {component}"),
            Some(Err(error)) => format!("the old {component} cannot be put back: {error}"),
            Some(Ok(())) => match restart_old.await {
                Ok(()) => format!("the old {component} was put back and runs"),
                Err(why) => format!("the old {component} was put back and does not run: {why}"),
            },
        };
        problem.cause(state).into()
    }

    /// Removes staged files that are in place now.
    pub(crate) fn clean_staging(&self, artefacts: &[ArtefactFile]) {
        for artefact in artefacts {
            // A file that stays costs space and nothing else.
            let _ = files::remove(&self.staging().join(&artefact.sha256));
        }
    }
}

/// The file with a role.
pub(crate) fn with_role<'a>(files: &'a [ArtefactFile], role: &str) -> Result<&'a ArtefactFile, Problem> {
    let found = files.iter().find(|file| file.role == role);
    found.ok_or_else(|| {
        Problem::new(Code::ArtefactMissing)
            .with("role", role)
            .with("version", "the plan")
            .with("architecture", "this node")
    })
}

/// The problem of content that is not what was planned.
pub(crate) fn mismatch(path: &str, found: &str, expected: &str) -> Problem {
    Problem::new(Code::DigestMismatch).with("path", path).with("found", found).with("expected", expected)
}

/// Whether two spellings name one version: `v2.2.9` and `2.2.9`.
pub(crate) fn same_version(one: &str, other: &str) -> bool {
    one.trim_start_matches('v') == other.trim_start_matches('v')
}
