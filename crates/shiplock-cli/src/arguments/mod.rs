//! The command line: what can be typed, and the help that teaches it.

mod backup;
mod check;
pub(crate) mod chinese;
mod cluster;
mod demo;
mod plan;
mod rehearse;
mod report;
mod serve;
mod snapshot;
mod wrong_value;

use std::ffi::OsString;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use shiplock_core::language::Language;

pub use self::backup::{BackupCommand, BackupExportArguments};
pub use self::check::{CheckArguments, FailOn, Policy};
pub use self::cluster::{AgentCommand, ClusterAddArguments, ClusterCommand, ClusterUpdateArguments};
pub use self::demo::DemoArguments;
pub use self::plan::{PlanArguments, PlanOptionArguments, UpgradeArguments};
pub use self::rehearse::RehearseArguments;
pub use self::report::{AcceptancesCommand, ReportsCommand};
pub use self::serve::ServeArguments;
pub use self::snapshot::{ClusterAccess, SnapshotArguments};
pub(crate) use self::wrong_value::WrongValue;

/// What is wrong with a form that only `check` has.
const FORM_OF_CHECK: &str = "this command prints text, json or ndjson; the other forms are of `check`";

const EXAMPLES: &str = "\
See it work, without a cluster:
  shiplock demo

Begin here:
  shiplock serve                      # a server on this machine, in another terminal
  shiplock cluster add prod --mirror https://mirror.example
  shiplock agent join-command prod    # run what it prints on each node, as root
  shiplock plan prod --to 1.36        # nothing is touched
  shiplock upgrade prod --to 1.36     # shows the plan, asks, stays attached

While it runs, from anywhere:
  shiplock watch        shiplock pause        shiplock continue        shiplock cancel

Exit codes: 0 done, 1 failed, 2 usage, 3 blocked by findings, 4 undecided,
            5 paused (a person is needed), 6 cancelled or expired,
            130 detached (the upgrade goes on)";

/// Upgrades Kubernetes clusters: planned, in batches, with a reason for every wait.
#[derive(Debug, Parser)]
#[command(name = "shiplock", version, after_help = EXAMPLES, max_term_width = 120, disable_help_subcommand = true)]
pub struct Arguments {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalArguments,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The same with `check` alone.
#[derive(Debug, Parser)]
#[command(name = "shiplock", version, disable_help_subcommand = true)]
struct CheckAlone {
    #[command(flatten)]
    global: GlobalArguments,
    #[command(subcommand)]
    command: OnlyCheck,
}

#[derive(Debug, Subcommand)]
enum OnlyCheck {
    Check(CheckArguments),
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct GlobalArguments {
    /// The server: https://HOST:PORT, http://… on this machine, or the path of its socket. A token is taken from
    /// SHIPLOCK_TOKEN, a certificate to trust from the file in SHIPLOCK_CA_FILE.
    #[arg(long, global = true, env = "SHIPLOCK_SERVER", value_name = "SERVER", hide_env_values = true)]
    pub server: Option<String>,
    /// The form of the result on stdout. ndjson has one line for each event of a feed.
    #[arg(short, long, global = true, value_enum, default_value = "text", value_name = "FORM")]
    pub output: Format,
    /// The language; without it LC_ALL, LC_MESSAGES or LANG decide.
    #[arg(long, global = true, value_parser = parse_language, value_name = "en|zh", env = "SHIPLOCK_LANG", hide_env = true)]
    pub lang: Option<Language>,
    /// The form of progress on stderr; auto is tty on a terminal and plain elsewhere.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        value_name = "FORM",
        env = "SHIPLOCK_PROGRESS",
        hide_env = true
    )]
    pub progress: ProgressChoice,
}

pub(crate) fn parse_language(text: &str) -> Result<Language, WrongValue> {
    match text {
        "en" => Ok(Language::En),
        "zh" => Ok(Language::Zh),
        _ => Err(WrongValue {
            english: "the languages are en and zh".to_owned(),
            chinese: "可用的语言为 en 和 zh".to_owned(),
        }),
    }
}

/// The form of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One object, for programs.
    Json,
    /// One object in each line, for programs that read feeds.
    Ndjson,
    /// Of `check` only: YAML.
    Yaml,
    /// Of `check` only: Markdown.
    Markdown,
    /// Of `check` only: one HTML file.
    Html,
    /// Of `check` only: SARIF for code scanners.
    Sarif,
    /// Of `check` only: JUnit for CI systems.
    Junit,
}

impl Format {
    /// Whether only `check` has this form.
    fn is_of_check(self) -> bool {
        matches!(self, Self::Yaml | Self::Markdown | Self::Html | Self::Sarif | Self::Junit)
    }
}

/// The form of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProgressChoice {
    /// As it fits.
    Auto,
    /// Redrawn in place.
    Tty,
    /// One line for each event.
    Plain,
    /// One JSON object for each event.
    Json,
    /// None.
    None,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show everything on three simulated clusters: a real server, real controls, no cluster needed.
    Demo(DemoArguments),
    /// Be the server: keep the log, drive upgrades, serve agents.
    Serve(ServeArguments),
    /// Register, show and forget clusters.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Enrol and list the agents of nodes.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Find what an upgrade will break, in a cluster or in files. Changes nothing; needs no server.
    Check(CheckArguments),
    /// Write a snapshot of a cluster to a file, to rehearse on or to check later. Changes nothing; needs no server.
    Snapshot(SnapshotArguments),
    /// Rehearse an upgrade on a copy of the cluster: how long, what blocks, what is hurt. Nothing is touched.
    Rehearse(Box<RehearseArguments>),
    /// Make a plan and show it. Nothing is touched.
    Plan(PlanArguments),
    /// Upgrade: make a plan or take one, show it, ask, start, stay attached.
    Upgrade(UpgradeArguments),
    /// Watch an upgrade until it ends or needs a person.
    #[command(after_help = "\
Examples:
  shiplock watch                       # the one active upgrade
  shiplock watch u3fx9 --stay          # also through pauses
  shiplock watch u3fx9 -o ndjson       # each event as a line of JSON on stdout
Keys at a terminal: p pause or c continue (asked about first), e events, n nodes, q leave.
Leaving, with q or Ctrl-C, never touches the upgrade.")]
    Watch(WatchArguments),
    /// Pause: what has started finishes, nothing new starts.
    Pause(ControlArguments),
    /// Continue a paused upgrade, or check a blocked one again.
    #[command(after_help = "Example:\n  shiplock continue u3fx9 --watch")]
    Continue(ContinueArguments),
    /// Cancel a paused upgrade for good. Says first what will happen, and asks.
    #[command(after_help = "\
Examples:
  shiplock pause u3fx9 && shiplock cancel u3fx9
  shiplock cancel u3fx9 --abandon w-7      # do not wait for a machine that is gone")]
    Cancel(CancelArguments),
    /// Take an upgrade back: the masters that it has swapped get their old version again. Shows first what that means,
    /// and asks. Offered until the upgrade touches what the masters share (cluster configuration, add-ons).
    #[command(after_help = "\
Examples:
  shiplock rollback u3fx9 --dry-run                # what goes back to what, and what stays
  shiplock rollback u3fx9                          # ends the upgrade where it is in work, then goes back
  shiplock rollback u3fx9 --accept CP-003 --yes    # one master: its API is away for some seconds")]
    Rollback(RollbackArguments),
    /// Change an upgrade in work.
    #[command(after_help = "Example:\n  shiplock set u3fx9 --max-parallel 3      # from the next batch")]
    Set(SetArguments),
    /// List and show upgrades.
    #[command(subcommand)]
    Upgrades(UpgradesCommand),
    /// List and show the reports of pre-checks that the server keeps.
    #[command(subcommand)]
    Reports(ReportsCommand),
    /// Let findings of a check pass by name, with a reason and an end.
    #[command(subcommand)]
    Acceptances(AcceptancesCommand),
    /// List, verify and export the backups of etcd that upgrades made.
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Explain a code such as UPG0407 or a check such as NOD-001, offline.
    Explain {
        /// The code or check; all are listed without one.
        code: Option<String>,
    },
    /// List the Kubernetes versions that the server knows: end of support, what goes with them, which follows which.
    Catalogue,
    /// Show the versions of this command and of the server.
    Version,
    /// Print a completion script.
    #[command(after_help = "Example:\n  shiplock completions bash > /etc/bash_completion.d/shiplock")]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What is watched.
#[derive(Debug, Args)]
pub struct WatchArguments {
    /// The upgrade; may be left out where exactly one is active.
    #[arg(value_name = "UPGRADE")]
    pub upgrade: Option<String>,
    /// Stay while it is paused or blocked; without it that ends the command.
    #[arg(long)]
    pub stay: bool,
    /// Show events with a number above this; without it the newest ones.
    #[arg(long, value_name = "NUMBER")]
    pub after: Option<u64>,
    /// Say nothing of Ctrl-C: the program that shows this view does.
    #[arg(long, hide = true)]
    pub embedded: bool,
}

/// Which upgrade is meant.
#[derive(Debug, Args)]
pub struct ControlArguments {
    /// The upgrade; may be left out where exactly one is active.
    #[arg(value_name = "UPGRADE")]
    pub upgrade: Option<String>,
}

/// What is continued.
#[derive(Debug, Args)]
pub struct ContinueArguments {
    /// The upgrade; may be left out where exactly one is active.
    #[arg(value_name = "UPGRADE")]
    pub upgrade: Option<String>,
    /// Stay attached.
    #[arg(long)]
    pub watch: bool,
}

/// What is cancelled.
#[derive(Debug, Args)]
pub struct CancelArguments {
    /// The upgrade; may be left out where exactly one is active.
    #[arg(value_name = "UPGRADE")]
    pub upgrade: Option<String>,
    /// Do not wait for this node any more; it is listed as state unknown.
    #[arg(long, value_name = "NODE")]
    pub abandon: Vec<String>,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
}

/// What is taken back.
#[derive(Debug, Args)]
pub struct RollbackArguments {
    /// The upgrade; may be left out where exactly one is active.
    #[arg(value_name = "UPGRADE")]
    pub upgrade: Option<String>,
    /// Let the findings of this check pass, such as CP-003 (one master) or CP-015 (objects that the old version does
    /// not serve); may be given more than once.
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    pub accept: Vec<String>,
    /// Show what it means and change nothing, also while the upgrade goes on.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Return once it is started, or blocked by the checks before the start.
    #[arg(long)]
    pub detach: bool,
}

/// What is changed.
#[derive(Debug, Args)]
pub struct SetArguments {
    /// The upgrade; may be left out where exactly one is active.
    #[arg(value_name = "UPGRADE")]
    pub upgrade: Option<String>,
    /// The most nodes in one batch, 1 to 100; it holds from the next batch.
    #[arg(long, value_name = "N")]
    pub max_parallel: u32,
}

/// What to do with upgrades.
#[derive(Debug, Subcommand)]
pub enum UpgradesCommand {
    /// List upgrades, newest first.
    List {
        /// Only those of this cluster.
        #[arg(long, value_name = "CLUSTER")]
        cluster: Option<String>,
        /// Only those that have not ended.
        #[arg(long)]
        active: bool,
        /// At most this many.
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// Show one upgrade.
    Show {
        /// The upgrade; may be left out where exactly one is active.
        #[arg(value_name = "UPGRADE")]
        upgrade: Option<String>,
        /// Show its events too.
        #[arg(long)]
        events: bool,
    },
    /// Print what kubelet and containerd of a node logged when a step failed there.
    Logs {
        /// The upgrade.
        #[arg(value_name = "UPGRADE")]
        upgrade: String,
        /// The node; may be left out where logs of exactly one were collected.
        #[arg(value_name = "NODE")]
        node: Option<String>,
    },
}

/// `snapshot -o FILE` is what people type: what is no form of a result is the file there.
fn with_snapshot_file(given: &[OsString]) -> Vec<OsString> {
    let mut words = given.to_vec();
    if words.iter().skip(1).find(|word| !word.to_string_lossy().starts_with('-')).is_some_and(|word| word == "snapshot")
    {
        for at in 1..words.len().saturating_sub(1) {
            let is_form = words[at + 1].to_str().is_some_and(|word| Format::from_str(word, true).is_ok());
            if words[at] == "-o" && !is_form {
                words[at] = OsString::from("--file");
            }
        }
    }
    words
}

/// Reads a command line.
pub fn parse(given: &[OsString]) -> Result<Arguments, clap::Error> {
    // What a scan of a few files costs is mostly the definition of all that it is not. Whatever is wrong or asks for help is
    // said by the whole definition.
    if given.get(1).is_some_and(|word| word == "check")
        && let Ok(CheckAlone { global, command: OnlyCheck::Check(options) }) = CheckAlone::try_parse_from(given)
    {
        return Ok(Arguments { global, command: Command::Check(options) });
    }
    let matches = Arguments::command().try_get_matches_from(with_snapshot_file(given))?;
    let arguments = Arguments::from_arg_matches(&matches)?;
    if arguments.global.output.is_of_check() && !matches!(arguments.command, Command::Check(_)) {
        return Err(Arguments::command().error(clap::error::ErrorKind::InvalidValue, FORM_OF_CHECK));
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Arguments, clap::Error> {
        let given: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        parse(&given)
    }

    #[test]
    fn the_definition_is_sound_and_every_command_has_help_with_a_first_line() {
        let mut definition = Arguments::command();
        definition.clone().debug_assert();
        definition.build();
        let mut waiting = vec![definition];
        let mut seen = 0;
        while let Some(mut command) = waiting.pop() {
            let help = command.render_long_help().to_string();
            assert!(help.lines().next().is_some_and(|line| line.len() > 10), "{}", command.get_name());
            seen += 1;
            waiting.extend(command.get_subcommands().cloned());
        }
        assert!(seen > 20, "{seen}");
    }

    #[test]
    fn check_reads_the_same_alone_as_among_all_commands() {
        for line in [
            "shiplock check",
            "shiplock check -f a b --to 1.37 -o sarif --fail-on warn --lang zh",
            "shiplock check prod --plan p1 --todo --only API,NODE-006 --server http://127.0.0.1:1",
        ] {
            let given: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let matches = Arguments::command().try_get_matches_from(&given).unwrap();
            let whole = Arguments::from_arg_matches(&matches).unwrap();
            assert_eq!(format!("{:?}", parse(&given).unwrap()), format!("{whole:?}"), "{line}");
        }
        let refused = parsed("shiplock check --no-such").unwrap_err().to_string();
        assert!(refused.contains("shiplock check"), "{refused}");
    }

    #[test]
    fn command_lines_are_read_or_refused() {
        for (line, good) in [
            ("shiplock plan prod --to 1.36", true),
            ("shiplock plan prod --to v1.36.3 --pool web --pool db --drain-timeout 1h30m -o json", true),
            ("shiplock plan prod", false),
            ("shiplock plan prod --to x", false),
            ("shiplock plan prod --to 1.36 --drain sometimes", false),
            ("shiplock plan prod --to 1.36 --batch-interval 5", false),
            ("shiplock upgrade prod --to 1.36 --yes --detach", true),
            ("shiplock upgrade --plan p1", true),
            ("shiplock upgrade --plan p1 --to 1.36", false),
            ("shiplock upgrade --plan p1 --max-parallel 3", false),
            ("shiplock upgrade prod --plan p1", false),
            ("shiplock upgrade prod", false),
            ("shiplock upgrade", false),
            ("shiplock check", true),
            ("shiplock snapshot -o json --file a", true),
            ("shiplock snapshot --kubeconfig k -o cluster.snapshot", true),
            ("shiplock snapshot", false),
            ("shiplock rehearse --snapshot a --to 1.36 --max-parallel 3 --runs 5 --svg b -o json", true),
            ("shiplock rehearse --cluster prod --to 1.36", true),
            ("shiplock rehearse --snapshot a", false),
            ("shiplock rehearse --snapshot a --to 1.36 --runs 1001", false),
            ("shiplock check -f a b - --to v1.37.2 -o sarif --only API,WHK-001 --fail-on warn", true),
            ("shiplock check --to 1", false),
            ("shiplock check --require moon", false),
            ("shiplock plan prod --to 1.36 -o html", false),
            ("shiplock watch", true),
            ("shiplock watch u1 --after 7 --progress json --lang zh", true),
            ("shiplock watch u1 --lang fr", false),
            ("shiplock pause", true),
            ("shiplock continue u1 --watch", true),
            ("shiplock cancel u1 --abandon w-1 --abandon w-2 --yes", true),
            ("shiplock rollback u1 --accept CP-003 --yes --detach", true),
            ("shiplock rollback --dry-run", true),
            ("shiplock rollback u1 --abandon w-1", false),
            ("shiplock set --max-parallel 3", true),
            ("shiplock set", false),
            ("shiplock upgrades list --active --cluster prod", true),
            ("shiplock upgrades show --events", true),
            ("shiplock backup list", true),
            ("shiplock backup list prod -o json", true),
            ("shiplock backup verify u1-2-3", true),
            ("shiplock backup verify", false),
            ("shiplock backup export u1-2-3 --file etcd.db --force -o json", true),
            ("shiplock backup export u1-2-3", false),
            ("shiplock explain UPG0407", true),
            ("shiplock explain", true),
            ("shiplock completions zsh", true),
            ("shiplock completions tcsh", false),
            ("shiplock cluster add prod --context c --allow exec", true),
            ("shiplock cluster add", false),
            ("shiplock cluster join-instructions prod --architecture arm64", true),
            ("shiplock agent join-command prod", true),
            ("shiplock serve --agent-listen 0.0.0.0:7443", true),
            ("shiplock serve --agent-listen nowhere", false),
            ("shiplock serve --listen 127.0.0.1:8080", false),
            ("shiplock demo", true),
            ("shiplock demo --speed 50 --data-dir d --seed 7", true),
            ("shiplock demo --speed 0", false),
            ("shiplock run", false),
            ("shiplock", false),
        ] {
            assert_eq!(parsed(line).is_ok(), good, "{line}: {:?}", parsed(line).err().map(|error| error.to_string()));
        }
    }

    #[test]
    fn the_help_of_the_whole_command_and_of_upgrade_teach_by_example() {
        // The width of the terminal that the test runs on must not matter.
        let mut definition = Arguments::command().term_width(100);
        definition.build();
        insta::assert_snapshot!("help", definition.render_help().to_string());
        let upgrade = definition.find_subcommand_mut("upgrade").unwrap();
        insta::assert_snapshot!("help_upgrade", upgrade.render_help().to_string());
    }
}
