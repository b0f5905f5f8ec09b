//! The command line of the lab. stdout is the result, stderr is progress.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use serde_json::json;

use super::build::build;
use super::cluster::{Lab, UpOptions};
use super::layer::Containerd;
use super::node::Stop;
use super::versions::DEFAULT_MINORS;
use super::{janitor, mirror_server};

/// Options of every lab command.
#[derive(Debug, Args)]
pub struct LabArguments {
    /// Number of the lab, 0 to 31; labs of different numbers run side by side
    #[arg(long, global = true, env = "SHIPLOCK_LAB_ID", default_value_t = 0)]
    id: u8,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Build Kubernetes, its images, the mirror and the nodes' system (once; about 20 minutes)
    Build {
        /// Minor versions
        #[arg(long, value_delimiter = ',', default_values_t = DEFAULT_MINORS.iter().map(|minor| (*minor).to_owned()))]
        kubernetes: Vec<String>,
    },
    /// Make a cluster
    Up(UpArguments),
    /// Remove the cluster and every trace of it
    Down,
    /// Show the nodes
    Status {
        /// JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Run a command in a node, with its exit code
    Exec {
        /// m1, w1, …
        node: String,
        /// The command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Run kubectl as the cluster's administrator
    Kubectl {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Print the path of the administrator's kubeconfig
    Kubeconfig,
    /// Print the URL of the mirror as the nodes see it
    Mirror,
    /// Copy a file into a node
    Copy {
        /// m1, w1, …
        node: String,
        /// File here
        from: PathBuf,
        /// Absolute path there
        to: String,
        /// Octal mode
        #[arg(long, default_value = "644")]
        mode: String,
    },
    /// Start a stopped node
    Start {
        /// m1, w1, …
        node: String,
    },
    /// Stop a node; its disk stays
    Stop {
        /// m1, w1, …
        node: String,
        /// Kill it instead of shutting it down
        #[arg(long)]
        power_cut: bool,
    },
    /// Give a worker a fresh system disk of a version, and boot it
    ReplaceDisk {
        /// w1, …
        node: String,
        /// Kubernetes version of the disk
        #[arg(long)]
        version: String,
    },
    /// Join a booted node to the cluster
    Join {
        /// w1, …
        node: String,
    },
    /// Wait until a node is Ready in its present boot
    Wait {
        /// m1, w1, …
        node: String,
        /// Bound in seconds
        #[arg(long, default_value_t = 120)]
        timeout: u64,
    },
    /// Deploy the test application and ask it from every node and by its name
    Smoke,
    /// Serve a folder over HTTP (used by `up`)
    #[command(hide = true)]
    ServeMirror {
        /// Address and port
        #[arg(long)]
        address: String,
        /// Folder
        #[arg(long)]
        root: PathBuf,
    },
    /// Clean up after an interrupted `up` (used by `up`)
    #[command(hide = true)]
    Janitor {
        /// The cluster it watches over
        #[arg(long)]
        birth: String,
    },
}

#[derive(Debug, Args)]
struct UpArguments {
    /// 1, 3 or 5
    #[arg(long, default_value_t = 1)]
    masters: u8,
    /// 0 to 9
    #[arg(long, default_value_t = 1)]
    workers: u8,
    /// Version of the cluster
    #[arg(long, default_value = "1.35")]
    from: String,
    /// Version of the workers' kubelets, where it is another one
    #[arg(long)]
    workers_at: Option<String>,
    /// Container runtime of all nodes
    #[arg(long, value_enum, default_value_t)]
    containerd: Containerd,
    /// Label nodes as a pool: NAME=w1,w2
    #[arg(long, value_parser = parse_pool)]
    pool: Vec<(String, Vec<String>)>,
    /// Give a node a small real disk for images and containers: NODE=GIB
    #[arg(long, value_parser = parse_disk)]
    small_disk: Vec<(String, u32)>,
    /// Leave a cluster that fails to come up as it is
    #[arg(long)]
    keep_failed: bool,
}

fn parse_pool(text: &str) -> Result<(String, Vec<String>), String> {
    match text.split_once('=') {
        Some((name, nodes)) if !name.is_empty() && !nodes.is_empty() => {
            Ok((name.to_owned(), nodes.split(',').map(str::to_owned).collect()))
        }
        _ => Err("a pool is NAME=NODE,NODE".to_owned()),
    }
}

fn parse_disk(text: &str) -> Result<(String, u32), String> {
    match text.split_once('=').map(|(node, size)| (node, size.parse::<u32>())) {
        Some((node, Ok(size @ 3..))) => Ok((node.to_owned(), size)),
        _ => Err("a small disk is NODE=GIB, with 3 GiB or more".to_owned()),
    }
}

/// Runs one lab command.
pub fn run(arguments: LabArguments) -> Result<ExitCode> {
    super::process::elapsed(); // Progress counts from here.
    let lab = || Lab::open(arguments.id);
    match arguments.action {
        Action::Build { kubernetes } => build(&kubernetes)?,
        Action::Up(up) => {
            let lab = lab()?;
            lab.up(&UpOptions {
                masters: up.masters,
                workers: up.workers,
                from: up.from,
                workers_at: up.workers_at,
                containerd: up.containerd,
                pools: merge(up.pool),
                small_disks: up.small_disk.into_iter().collect(),
                keep_failed: up.keep_failed,
            })?;
            println!("{}", lab.kubeconfig_path().display());
        }
        Action::Down => lab()?.down()?,
        Action::Status { json } => return status(&lab()?, json),
        Action::Exec { node, command } => {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            return inherit(lab()?.command(&node, &words)?);
        }
        Action::Kubectl { arguments } => {
            let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
            return inherit(lab()?.kubectl_command(&words)?);
        }
        Action::Kubeconfig => println!("{}", lab()?.kubeconfig_path().display()),
        Action::Mirror => println!("{}", lab()?.mirror_url()),
        Action::Copy { node, from, to, mode } => {
            let mode = u32::from_str_radix(&mode, 8).with_context(|| format!("{mode:?} is no octal mode"))?;
            lab()?.copy_into(&node, &from, &to, mode)?;
        }
        Action::Start { node } => lab()?.start(&node)?,
        Action::Stop { node, power_cut } => {
            lab()?.stop(&node, if power_cut { Stop::PowerCut } else { Stop::Clean })?;
        }
        Action::ReplaceDisk { node, version } => lab()?.replace_disk(&node, &version)?,
        Action::Join { node } => lab()?.join(&node)?,
        Action::Wait { node, timeout } => lab()?.wait_ready(&node, Duration::from_secs(timeout))?,
        Action::Smoke => {
            let lab = lab()?;
            lab.deploy_web()?;
            for answer in lab.check_web()? {
                println!("{answer}");
            }
        }
        Action::ServeMirror { address, root } => mirror_server::serve(&address, &root)?,
        Action::Janitor { birth } => janitor::watch(&lab()?, &birth)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn merge(pools: Vec<(String, Vec<String>)>) -> BTreeMap<String, Vec<String>> {
    let mut merged: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, nodes) in pools {
        merged.entry(name).or_default().extend(nodes);
    }
    merged
}

/// Runs with this terminal and hands on the exit code.
fn inherit(mut command: std::process::Command) -> Result<ExitCode> {
    let status = command.stdin(Stdio::inherit()).status()?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// Exit code 0: up; 1: not up.
fn status(lab: &Lab, as_json: bool) -> Result<ExitCode> {
    let nodes = lab.nodes()?;
    let (balancer, mirror) = lab.services();
    if as_json {
        let kubeconfig = lab.kubeconfig_path();
        println!(
            "{}",
            json!({
                "id": lab.id(), "up": lab.is_up(), "nodes": nodes, "balancer": balancer, "mirror": mirror,
                "kubeconfig": kubeconfig, "bridge_address": lab.bridge_address(), "mirror_url": lab.mirror_url(),
            })
        );
    } else {
        println!("lab {}: {}", lab.id(), if lab.is_up() { "up" } else { "not up" });
        for node in &nodes {
            let state = if node.running { "running" } else { "stopped" };
            println!("{:4} {:12} {state:8} born as {}", node.name, node.address, node.disk.kubelet);
        }
        if lab.is_up() && !(balancer && mirror) {
            println!("API balancer runs: {balancer}, mirror is served: {mirror}");
        }
    }
    Ok(if lab.is_up() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_and_disks_are_read() {
        assert_eq!(parse_pool("a=w1,w2").unwrap(), ("a".into(), vec!["w1".into(), "w2".into()]));
        assert!(parse_pool("a=").is_err() && parse_pool("a").is_err());
        assert_eq!(parse_disk("w1=4").unwrap(), ("w1".into(), 4));
        assert!(parse_disk("w1=2").is_err());
        let merged = merge(vec![("a".into(), vec!["w1".into()]), ("a".into(), vec!["w2".into()])]);
        assert_eq!(merged["a"], ["w1", "w2"]);
    }
}
