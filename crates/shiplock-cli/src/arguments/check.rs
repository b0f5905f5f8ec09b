//! The words of `check`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use shiplock_core::version::MinorVersion;

use super::WrongValue;
use super::snapshot::ClusterAccess;

/// What is checked, and how strictly.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shiplock check                                   # the cluster of your kubeconfig, for its next minor
  shiplock check --to 1.37 --context prod
  shiplock check prod --to 1.37                    # a registered cluster: nodes are looked at by their agents
  shiplock check -f manifests/ --to 1.37           # files alone: no cluster is asked
  helm template CHART | shiplock check -f - --to 1.37
  shiplock check --probe --require node            # nodes too, by a short-lived pod on each
  shiplock check -f . --to 1.37 -o sarif --fail-on warn > shiplock.sarif
  shiplock explain API-002                         # what a finding means, offline

Exit codes: 0 ready, 1 failed, 2 usage, 3 blocked, 4 undecided (something could not be seen)")]
pub struct CheckArguments {
    /// A cluster that is registered with the server: it asks every agent about its node too, and keeps the report.
    /// Without it the cluster of your kubeconfig is checked, without a server.
    #[arg(value_name = "CLUSTER", conflicts_with_all = ["files", "audit_log", "kubeconfig", "context", "snapshot", "save_snapshot", "baseline", "write_baseline", "accept", "accept_file", "probe"])]
    pub cluster: Option<String>,
    /// Ask against this plan: only its nodes, with its mirror and images.
    #[arg(long, value_name = "PLAN", requires = "cluster")]
    pub plan: Option<String>,
    /// Show only what must be handled before an upgrade can start.
    #[arg(long, requires = "cluster")]
    pub todo: bool,
    /// The minor to upgrade to; without it the one after the cluster's.
    #[arg(long, value_name = "MINOR", value_parser = parse_minor)]
    pub to: Option<MinorVersion>,
    /// Files or folders to read; `-` is standard input. Folders named .git or node_modules are not gone into. Without
    /// --kubeconfig or --context no cluster is asked then.
    #[arg(short = 'f', long = "filename", value_name = "PATH", num_args = 1..)]
    pub files: Vec<PathBuf>,
    /// Audit logs (JSON lines) to read callers from.
    #[arg(long, value_name = "FILE")]
    pub audit_log: Vec<PathBuf>,
    /// Read everything again, also Helm releases and lists that did not change since the last check of this machine.
    #[arg(long)]
    pub fresh: bool,
    /// How the cluster is reached.
    #[command(flatten)]
    pub access: ClusterAccess,
    /// Only these checks: ids, names or categories such as API.
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Not these checks.
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    pub skip: Vec<String>,
    /// Leave out files whose path contains this.
    #[arg(long, value_name = "TEXT")]
    pub exclude: Vec<String>,
    /// Scopes that must be reached: cluster, control-plane, node; what is not reached is undecided then.
    #[arg(long, value_name = "SCOPE", value_delimiter = ',', value_parser = ["file", "audit-log", "cluster", "control-plane", "node", "plan", "client"])]
    pub require: Vec<String>,
    /// Look at nodes without an agent too: makes a short-lived pod on each node, in kube-system, that only reads, and
    /// deletes it again.
    #[arg(long, conflicts_with = "snapshot")]
    pub probe: bool,
    /// The policy: strict lets removed APIs block.
    #[arg(long, value_enum, default_value = "default", value_name = "POLICY")]
    pub policy: Policy,
    /// From what on the exit code is 3.
    #[arg(long, value_enum, default_value = "fail", value_name = "OUTCOME")]
    pub fail_on: FailOn,
    /// A TOML file of accepted findings: tables `accept` with check, subject, reason, author and until.
    #[arg(long, value_name = "FILE")]
    pub accept_file: Option<PathBuf>,
    /// Accept the findings of this check, by its id.
    #[arg(long, value_name = "CHECK", value_delimiter = ',')]
    pub accept: Vec<String>,
    /// Findings in this file, written by --write-baseline, change no verdict.
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Write what is found now as a baseline.
    #[arg(long, value_name = "FILE")]
    pub write_baseline: Option<PathBuf>,
    /// Check a snapshot that `shiplock snapshot` or --save-snapshot wrote instead of a cluster.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kubeconfig", "context"])]
    pub snapshot: Option<PathBuf>,
    /// Write what was read of the cluster, for a check later or elsewhere. It holds no content of Secrets.
    #[arg(long, value_name = "FILE")]
    pub save_snapshot: Option<PathBuf>,
}

/// The policy for checks whose severity a policy may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// Removed and deprecated APIs advise.
    Default,
    /// Removed APIs block.
    Strict,
}

/// From what on a check is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// What blocks an upgrade.
    Fail,
    /// Warnings too.
    Warn,
}

/// `1.37`, `v1.37` or a full version, of which the minor counts.
fn parse_minor(text: &str) -> Result<MinorVersion, WrongValue> {
    let full = text.parse::<shiplock_core::version::KubernetesVersion>().map(|version| version.release);
    full.or_else(|_| text.parse::<MinorVersion>())
        .map_err(|error| WrongValue {
            english: error.to_string(), chinese: format!("`{text}` 不是 Kubernetes 版本号")
        })
}
