//! The words of `rehearse`.

use std::path::PathBuf;

use clap::Args;
use shiplock_core::catalogue::VersionRequest;

use super::plan::{PlanOptionArguments, parse_version};
use super::snapshot::ClusterAccess;

/// What is rehearsed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shiplock rehearse --snapshot prod.snapshot --to 1.36
  shiplock rehearse --to 1.36 --max-parallel 20 --compare     # the cluster of your kubeconfig
  shiplock rehearse --cluster prod --to 1.36                  # with the server's plan and its measured times
  shiplock rehearse --snapshot prod.snapshot --to 1.36 --svg prod.svg -o json > prod.json

The engine is the one that upgrades clusters; the cluster is a copy in memory, and time is virtual.
Exit codes: 0 rehearsed, 3 rehearsed and something blocks until a person acts, 1 failed, 2 usage")]
pub struct RehearseArguments {
    /// The target: a minor such as 1.36 (its newest patch) or a version such as v1.36.3.
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    pub to: VersionRequest,
    /// The snapshot to rehearse on, - for standard input; without it the cluster of the kubeconfig is read.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kubeconfig", "context"])]
    pub snapshot: Option<PathBuf>,
    /// A registered cluster: the server makes the plan, with the artefacts of the cluster's mirror and the times that its
    /// earlier upgrades took. Nodes and pods are read by the kubeconfig or from the snapshot.
    #[arg(long, value_name = "CLUSTER", conflicts_with = "mirror")]
    pub cluster: Option<String>,
    /// A mirror whose index tells sizes and runtimes: http(s)://… or a folder.
    #[arg(long, value_name = "ROOT")]
    pub mirror: Option<String>,
    /// Runs with drawn times beside the nominal one; without it 20, and fewer where the cluster is large: the report says so.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub runs: Option<u32>,
    /// Try other bounds on batches too, to find better ones; done by itself where the cluster is small.
    #[arg(long)]
    pub compare: bool,
    /// Tell workloads with fewer ready pods than this share of before, in per cent; those without any always are.
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub floor: u32,
    /// Where drawn times begin: the same seed gives the same report.
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub seed: u64,
    /// Write a picture of the timeline.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// How the cluster is reached.
    #[command(flatten)]
    pub access: ClusterAccess,
    /// The options of the plan.
    #[command(flatten)]
    pub options: PlanOptionArguments,
}
