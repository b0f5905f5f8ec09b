//! The command line.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;

use clap::{Args, Parser, Subcommand};
use shiplock_api::agent::Assignment;
use shiplock_core::facts::examination::NodeQuestion;
use shiplock_core::id::{NodeName, UpgradeId};
use shiplock_core::language::Language;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::StepOutcome;
use shiplock_core::upgrade::waiting::phase_name;
use tokio::sync::mpsc;

use crate::enrolment::{Join, join};
use crate::examination::examine;
use crate::facts::FactsReader;
use crate::files;
use crate::gateway::{GatewayError, HttpsGateway, parse_pin};
use crate::identity::{DEFAULT_DATA_FOLDER, Identity, journal_path};
use crate::journal::Journal;
use crate::machine::Machine;
use crate::node_loop::{HostWorkplace, NodeLoop};
use crate::put_back::{self, Wanted};
use crate::renewal::keep_certificate;
use crate::steps::backup_etcd::{self, BackupMessage};
use crate::steps::{Step, StepEvent, unit_prefix};
use crate::swap;
use crate::system::System;

/// The node agent of Shiplock.
///
/// It runs as root on a node, asks its server for work over HTTPS, and does a closed set of typed steps: fetch
/// artefacts, upgrade containerd, upgrade the kubelet, collect logs. It opens no port and runs no scripts. Every act is
/// written to its journal first, needs the server's permit, and is examined again after a restart.
#[derive(Debug, Parser)]
#[command(
    name = "shiplock-agent",
    version,
    after_help = "Begin with the command that `shiplock agent join-command CLUSTER` prints on your workstation; run it as root on the node.\nThen watch the agent with: journalctl -u shiplock-agent -f"
)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enrol this node with a one-time token and install the service. A second join to the same installation replaces the
    /// first.
    Join(JoinOptions),
    /// Work for the server. This is what the service does.
    Run {
        #[command(flatten)]
        data: DataFolder,
    },
    /// Print what the agent tells its server of this machine, as JSON. For diagnosis; changes nothing.
    Facts {
        #[command(flatten)]
        data: DataFolder,
    },
    /// Look at this machine as the pre-check does and print what is found, as JSON. For diagnosis; changes nothing.
    Examine {
        /// An artefact mirror to reach, https://… or an absolute path.
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// Look at the system in this folder instead, such as the host's root in a container.
        #[arg(long, value_name = "PATH", hide = true)]
        root: Option<PathBuf>,
        #[command(flatten)]
        data: DataFolder,
    },
    /// Put the control plane of this master back by hand, from the copies that an upgrade kept.
    ///
    /// For the day on which the cluster's API is away, so that `shiplock rollback` cannot plan a way back: it does the
    /// same step, here and now, without the server. Stop the service first (systemctl stop shiplock-agent) and start it
    /// again afterwards. Without --yes it only shows what would go back.
    RestoreControlPlane {
        /// The upgrade whose copies go back, where several have kept some.
        #[arg(long, value_name = "ID")]
        upgrade: Option<UpgradeId>,
        /// The cluster has no other master; asked for only where etcd cannot say so itself.
        #[arg(long)]
        only_master: bool,
        /// Do it.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        data: DataFolder,
    },
    /// Do one assignment from a file here and now, without a server, a journal or permits. For diagnosis only.
    #[command(hide = true)]
    Step {
        /// The assignment, JSON.
        file: PathBuf,
        #[command(flatten)]
        data: DataFolder,
    },
    /// Carry out the swap of a control plane that a step has prepared. Started by that step as a unit of its own.
    #[command(hide = true)]
    Swap {
        /// The folder with its plan.
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
struct DataFolder {
    /// Where the agent keeps its identity, its journal and staged files.
    #[arg(long = "data-dir", value_name = "PATH", default_value = DEFAULT_DATA_FOLDER)]
    path: PathBuf,
}

#[derive(Debug, Args)]
struct JoinOptions {
    /// The server's gateway for agents, https://HOST:PORT.
    #[arg(long, value_name = "URL")]
    server: String,
    /// The one-time token.
    #[arg(long, value_name = "TOKEN", env = "SHIPLOCK_JOIN_TOKEN", hide_env_values = true)]
    token: String,
    /// The certificate authority to trust, by the SHA-256 of its public key.
    #[arg(long, value_name = "sha256:HEX", value_parser = parse_pin)]
    ca_pin: Pin,
    /// The node's name in Kubernetes; the host name in lower case unless given.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    data: DataFolder,
    /// Enrol only; neither install nor start the service.
    #[arg(long)]
    no_service: bool,
    /// Take over an agent that belongs to another installation; it works for that one no more.
    #[arg(long)]
    replace: bool,
}

/// clap would take a bare array for a list of values.
type Pin = [u8; 32];

/// Carries the command out.
pub async fn carry_out(line: CommandLine) -> ExitCode {
    let result = match line.command {
        Command::Join(options) => {
            let node = options.node.map_or_else(host_name, NodeName::new);
            join(&Join {
                server: options.server,
                token: options.token,
                pin: options.ca_pin,
                node,
                data_folder: options.data.path,
                install_service: !options.no_service,
                replace: options.replace,
            })
            .await
        }
        Command::Run { data } => run(&data.path).await,
        Command::Facts { data } => facts(&data.path).await,
        Command::Examine { mirror, root, data } => look(mirror, root, &data.path).await,
        Command::RestoreControlPlane { upgrade, only_master, yes, data } => {
            restore(upgrade, only_master, yes, &data.path).await
        }
        Command::Step { file, data } => step(&file, &data.path).await,
        Command::Swap { folder } => swap::perform(&System::default(), &folder).await.map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|problem| {
        eprintln!("error: {problem}\n  fix: {}", problem.fix(Language::En));
        ExitCode::FAILURE
    })
}

fn host_name() -> NodeName {
    NodeName::new(rustix::system::uname().nodename().to_string_lossy().to_lowercase())
}

async fn run(data_folder: &Path) -> Result<ExitCode, Problem> {
    let identity = Identity::load(data_folder)?;
    let gateway = Rc::new(HttpsGateway::enrolled(&identity)?);
    let line = |path: &str| {
        let text = std::fs::read_to_string(path);
        text.map(|text| text.trim().to_owned())
            .map_err(|error| files::unusable(Path::new(path), "this node", "read", &error))
    };
    let (machine_id, boot_id) = (line("/etc/machine-id")?, line("/proc/sys/kernel/random/boot_id")?);
    let machine = |records| Machine::recover(identity.node.clone(), machine_id.clone(), boot_id.clone(), records);
    let path = journal_path(data_folder);
    let (journal, records) = Journal::open(&path, |records| machine(records).essence())
        .map_err(|error| files::unusable(&path, "this node", "read", &error))?;
    eprintln!("agent {} of {identity:?} begins", env!("CARGO_PKG_VERSION"));
    let place = Rc::new(HostWorkplace::new(Rc::new(System::default()), data_folder.to_owned()));
    let agent = NodeLoop::new(place, gateway.clone(), journal, machine(records), identity.node.clone());
    let stop = || Problem::new(Code::Internal).with("what", "waiting for signals");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| stop().because(&error))?;
    tokio::select! {
        problem = agent.run() => Err(problem),
        never = keep_certificate(identity, gateway, data_folder.to_owned()) => match never {},
        _ = terminate.recv() => Ok(ExitCode::SUCCESS),
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
    }
}

async fn facts(data_folder: &Path) -> Result<ExitCode, Problem> {
    // The folder is not there before the first join; its file system is.
    let folder = data_folder.ancestors().find(|folder| folder.exists()).unwrap_or(data_folder);
    let facts = FactsReader::default().read(&System::default(), folder).await;
    print_json(&facts)
}

async fn look(mirror: Option<String>, root: Option<PathBuf>, data_folder: &Path) -> Result<ExitCode, Problem> {
    if let Some(root) = root {
        let unusable = |error: std::io::Error| files::unusable(&root, "this node", "entered", &error);
        rustix::process::chroot(&root).map_err(|error| unusable(error.into()))?;
        std::env::set_current_dir("/").map_err(unusable)?;
    }
    let folder = data_folder.ancestors().find(|folder| folder.exists()).unwrap_or(data_folder);
    let question = NodeQuestion { mirror, ..NodeQuestion::default() };
    print_json(&examine(&System::default(), folder, &question).await)
}

async fn step(file: &Path, data_folder: &Path) -> Result<ExitCode, Problem> {
    let unreadable = |error: std::io::Error| files::unusable(file, "this node", "read", &error);
    let text = std::fs::read_to_string(file).map_err(unreadable)?;
    let assignment: Assignment = serde_json::from_str(&text).map_err(|error| unreadable(error.into()))?;
    std::fs::create_dir_all(data_folder).map_err(unreadable)?;
    print_json(&perform(&Rc::new(System::default()), assignment, data_folder).await?)
}

/// Puts the control plane of this master back, or shows what that would do.
async fn restore(
    upgrade: Option<UpgradeId>,
    only_master: bool,
    yes: bool,
    data_folder: &Path,
) -> Result<ExitCode, Problem> {
    let host = Rc::new(System::default());
    if !rustix::process::geteuid().is_root() {
        let node = host_name();
        return Err(Problem::new(Code::RestoreRefused).with("node", node).with("why", "this needs root (sudo)"));
    }
    let node = Identity::load(data_folder)?.node;
    let back = put_back::prepare(&*host, data_folder, &Wanted { node, upgrade, only_master }).await?;
    let id = &back.assignment.id;
    println!("What upgrade {} replaced on {} goes back:", id.upgrade, back.assignment.node);
    for (component, now, after) in &back.changes {
        let change = if now == after { format!("{now} stays") } else { format!("{now} → {after}") };
        println!("  {:<24} {change}", component.name());
    }
    println!("  {:<24} as it was before, with its configuration", "kubelet");
    println!("Its API server does not answer meanwhile, about 10 s. Workloads go on running.");
    if !yes {
        println!("Nothing was changed. Do it with --yes.");
        return Ok(ExitCode::SUCCESS);
    }
    let interrupt = || Problem::new(Code::Internal).with("what", "waiting for signals");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(|error| interrupt().because(&error))?;
    let outcome = tokio::select! {
        outcome = perform(&host, back.assignment.clone(), data_folder) => outcome?,
        _ = tokio::signal::ctrl_c() => return Ok(interrupted()),
        _ = terminate.recv() => return Ok(interrupted()),
    };
    back.forget(data_folder);
    let StepOutcome::Swapped { components, .. } = outcome else {
        println!("All of it was back already.");
        return Ok(ExitCode::SUCCESS);
    };
    println!("Put back and read back: {}", components.join(", "));
    println!(
        "Start the agent again: systemctl start shiplock-agent. Then take the rest back: shiplock rollback {}",
        id.upgrade
    );
    Ok(ExitCode::SUCCESS)
}

/// A swap that has begun is a unit of its own, which a signal to this program does not reach.
fn interrupted() -> ExitCode {
    eprintln!(
        "Interrupted. A swap that has begun goes on by itself, for about 10 s. Run the same command again after that: it reads back what is there, and does what is left."
    );
    ExitCode::from(130)
}

/// Does an assignment without a server: permits are taken for granted.
async fn perform(host: &Rc<System>, assignment: Assignment, data_folder: &Path) -> Result<StepOutcome, Problem> {
    let (events, mut received) = mpsc::unbounded_channel();
    let (id, node) = (assignment.id.clone(), assignment.node.clone());
    let step = Step { host: host.clone(), assignment, data_folder: data_folder.to_owned(), events, rolling_back: None };
    let permits = async {
        while let Some(event) = received.recv().await {
            match event {
                StepEvent::PermitWanted { go, .. } => {
                    let _ = go.send(());
                }
                StepEvent::RollingBack { problem, go } => {
                    eprintln!("rolling back: {problem}");
                    let _ = go.send(());
                }
                StepEvent::Backup { message: BackupMessage::Find { .. }, answer } => {
                    let _ = answer.send(Ok(None));
                }
                StepEvent::Backup { message: BackupMessage::Send { snapshot, .. }, answer } => {
                    eprintln!("there is no server to take {snapshot:?}");
                    let nobody = Problem::new(Code::BackupFailed).with("node", &node);
                    let nobody = nobody.with("why", "it was saved and checked, and there is no server to take it");
                    let _ = answer.send(Err(GatewayError::Refused(Box::new(nobody))));
                }
                StepEvent::Progress(phase) => eprintln!("  {}", phase_name(phase, Language::En)),
            }
        }
        std::future::pending::<Infallible>().await
    };
    let result = tokio::select! {
        result = step.run() => result,
        never = permits => match never {},
    };
    crate::host::Host::clear_units(&**host, &unit_prefix(&id)).await?;
    backup_etcd::remove(data_folder, &id)
        .map_err(|error| files::unusable(data_folder, "this node", "cleaned", &error))?;
    result.map_err(|failure| *failure.problem)
}

fn print_json(value: &impl serde::Serialize) -> Result<ExitCode, Problem> {
    let internal = || Problem::new(Code::Internal).with("what", "printing JSON");
    println!("{}", serde_json::to_string_pretty(value).map_err(|error| internal().because(&error))?);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }
}
