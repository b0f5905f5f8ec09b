//! The options of `demo`.

use std::path::PathBuf;

use clap::Args;

/// How the demo is started.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shiplock demo                          # in another terminal: run the export line that it prints, then
  shiplock cluster list                  #   what there is
  shiplock watch                         #   the upgrade that is in work
  shiplock upgrade bakery --to 1.36      #   the cluster that is ready, live
  shiplock demo --speed 50               # a kubelet that takes 10 s to come up takes 0.2 s here
  shiplock demo --data-dir ./demo        # keep store and log to look at afterwards

What is real: the server with SQLite, its REST API and drivers, the gateway with mutual TLS, the loop of each agent, the
Kubernetes client. What is simulated: the clusters, their machines, and what a step does on a machine. Each cluster has a
kubeconfig that kubectl takes. Nothing leaves this machine, no port is fixed, and Ctrl-C leaves nothing behind.")]
pub struct DemoArguments {
    /// How many times as fast everything is in the simulated clusters. Waits of the server itself take their own time.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub speed: u32,
    /// Keep everything in this directory, which must be new or empty, and leave it there at the end [default: a temporary
    /// directory that is removed].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The luck of the simulated clusters: the same seed draws the same.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}
