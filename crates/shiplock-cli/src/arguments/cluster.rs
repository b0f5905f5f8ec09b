//! The options of `cluster` and `agent`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// What to do with clusters.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Register a cluster with this server.
    Add(ClusterAddArguments),
    /// List clusters: version, next versions, end of support, active upgrade.
    List,
    /// Show one cluster with its pools and nodes.
    Show {
        /// The cluster.
        cluster: String,
    },
    /// Print the script by which a new machine joins, at the version that the control plane runs.
    #[command(after_help = "\
Example:
  shiplock cluster join-instructions prod > join.sh    # fetches from the mirror, compares digests, joins
  # on a master:           kubeadm token create --print-join-command
  # on the new machine:    sh join.sh \"kubeadm join …\"")]
    JoinInstructions {
        /// The cluster.
        cluster: String,
        /// The architecture of the new machine, as Kubernetes names it.
        #[arg(long, value_name = "NAME", default_value = "amd64")]
        architecture: String,
    },
    /// Change the credentials or the mirror of a cluster.
    Update(ClusterUpdateArguments),
    /// Forget a cluster. Nothing in the cluster changes; logs of its upgrades stay.
    Remove {
        /// The cluster.
        cluster: String,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
    /// Print the ServiceAccount and the permissions that Shiplock needs, as YAML.
    #[command(after_help = "\
Example:
  shiplock cluster role | kubectl apply -f -
  kubectl -n kube-upgrade create token shiplock --duration 2160h     # for the user of a kubeconfig")]
    Role,
}

/// How a cluster is registered.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shiplock cluster add prod --mirror https://mirror.example
  shiplock cluster add prod --kubeconfig admin.conf --context prod --mirror /srv/mirror

Files that the kubeconfig names are put into it before it is sent; the server keeps it sealed. `exec`,
`auth-provider` and `insecure-skip-tls-verify` are refused unless each is named with --allow.")]
pub struct ClusterAddArguments {
    /// Its name here: lower-case letters, digits, `-` and `.`.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The kubeconfig [default: KUBECONFIG, else ~/.kube/config, as kubectl has it].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context [default: the current one].
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Where artefacts come from: a URL, or a directory that server and nodes both have. Plans need it.
    #[arg(long, value_name = "URL|DIR")]
    pub mirror: Option<String>,
    /// Allow a feature of kubeconfigs that is refused otherwise.
    #[arg(long, value_name = "FEATURE", value_parser = ["exec", "auth-provider", "insecure-skip-tls-verify"])]
    pub allow: Vec<String>,
}

/// What is changed of a cluster.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["kubeconfig", "mirror"]))]
#[command(after_help = "\
Examples:
  shiplock cluster update prod --mirror https://mirror.example     # for plans from now on
  shiplock cluster update prod --kubeconfig new.conf               # before the old credentials end

New credentials are tried first and must lead to the same cluster. An upgrade in work goes over to them when
those that it uses are refused.")]
pub struct ClusterUpdateArguments {
    /// The cluster.
    #[arg(value_name = "CLUSTER")]
    pub cluster: String,
    /// The kubeconfig with the new credentials.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context [default: the current one].
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    pub context: Option<String>,
    /// Where artefacts come from: a URL, or a directory that server and nodes both have.
    #[arg(long, value_name = "URL|DIR")]
    pub mirror: Option<String>,
    /// Allow a feature of kubeconfigs that is refused otherwise.
    #[arg(long, value_name = "FEATURE", requires = "kubeconfig", value_parser = ["exec", "auth-provider", "insecure-skip-tls-verify"])]
    pub allow: Vec<String>,
}

/// What to do with agents.
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// Print the command that enrols the agent of one node.
    JoinCommand {
        /// The cluster.
        cluster: String,
    },
    /// List the enrolled agents of a cluster.
    List {
        /// The cluster.
        cluster: String,
    },
    /// Forget an agent: its certificate is refused from now on. For nodes that are gone or that nobody trusts any more.
    Remove {
        /// The cluster.
        cluster: String,
        /// The node.
        node: String,
        /// Do not ask.
        #[arg(short, long)]
        yes: bool,
    },
}
