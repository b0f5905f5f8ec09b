//! The words of `snapshot`.

use std::path::PathBuf;

use clap::Args;

/// How a cluster is reached without a server.
#[derive(Debug, Args)]
pub struct ClusterAccess {
    /// The kubeconfig; without it KUBECONFIG, then ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; without it the current one.
    #[arg(long, value_name = "CONTEXT")]
    pub context: Option<String>,
    /// Allow what a kubeconfig may ask for and is refused: exec, auth-provider, insecure-skip-tls-verify.
    #[arg(long, value_name = "FEATURE")]
    pub allow: Vec<String>,
}

/// What is written.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shiplock snapshot --kubeconfig prod.kubeconfig -o prod.snapshot
  shiplock rehearse --snapshot prod.snapshot --to 1.36
  shiplock check --snapshot prod.snapshot --to 1.36

In the file are names, labels, images, requests, budgets, affinities and states of objects, and what the pre-check reads.
Never in it: values of Secrets, environments, commands of containers but Kubernetes' own, and of ConfigMaps anything
but what kubeadm keeps in kube-system.
Exit codes: 0 written whole, 4 written but something could not be read, 1 failed, 2 usage")]
pub struct SnapshotArguments {
    /// The file to write, also as -o FILE, or - for standard output; its folder must be there. Readable by its owner alone.
    #[arg(long, value_name = "FILE")]
    pub file: PathBuf,
    /// How the cluster is reached.
    #[command(flatten)]
    pub access: ClusterAccess,
}
