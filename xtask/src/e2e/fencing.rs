//! Scenario `fencing`: a server that was frozen while another one took over changes nothing once it thaws; a store that
//! was restored from an older copy is refused.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::controls::until_step_begins;
use super::installation::Installation;
use super::pools::{marked, mixed_cluster, workers_are_upgraded, world};
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(600);
/// Each restart of a server makes the log of what it drives longer by one event.
const RESTARTS_MAX: u32 = 200;

/// Copies the files of a data directory, as a backup of the file system would.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Leads agents to another port of the bridge while it lives.
struct Redirect(Vec<String>);

impl Redirect {
    fn new(address: &str, from: u16, to: u16) -> Result<Self> {
        let (from, to) = (from.to_string(), to.to_string());
        let words = ["PREROUTING", "-d", address, "-p", "tcp", "--dport", &from, "-j", "REDIRECT", "--to-ports", &to];
        let rule = Self(words.map(str::to_owned).to_vec());
        rule.iptables("-I")?;
        Ok(rule)
    }

    fn iptables(&self, act: &str) -> Result<()> {
        let status = Command::new("iptables").args(["-t", "nat", act]).args(&self.0).status().context("iptables")?;
        ensure!(status.success(), "iptables {act} failed");
        Ok(())
    }
}

impl Drop for Redirect {
    fn drop(&mut self) {
        let _ = self.iptables("-D");
    }
}

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 2, &[])?;
    lab.deploy_web()?;
    let mut first = Installation::ready(lab)?;
    let id = first.begin_pools(&["--max-parallel", "1"])?;
    until_step_begins(&mut first, &id, "drain", "w1")?;
    let older = lab.folder().join("older-copy");
    copy(first.data_directory(), &older)?;
    first.freeze_server()?;

    // Another server goes on from a copy of the store, as after a failover; agents reach it under the same address.
    let mut second = Installation::new(lab, "second", 1)?;
    copy(first.data_directory(), second.data_directory())?;
    let redirect = Redirect::new(&lab.bridge_address(), 7443, 7444)?;
    second.start_server()?;
    second.until_state(&id, "succeeded", BOUND)?;
    workers_are_upgraded(lab, &["w1", "w2"])?;
    let before = world(lab)?;
    let len = second.upgrade(&id)?["len"].as_u64().unwrap_or_default();
    first.thaw_server()?;
    first.until("the thawed server says that its store is older than the cluster", BOUND, |first| {
        let upgrade = first.upgrade(&id)?;
        let waits = upgrade["waiting_on"].to_string();
        Ok(waits.contains("UPG0312") || waits.contains("UPG0311"))
    })?;
    let shown = first.ok(&["upgrades", "show", &id])?;
    eprintln!("{shown}");
    ensure!(world(lab)? == before, "the thawed server changed something");
    ensure!(second.upgrade(&id)?["len"].as_u64() == Some(len), "the log of the second server did not move");
    first.kill_server()?;
    drop(second);
    drop(redirect);

    // A store restored from an older copy is refused, and nothing acts.
    first.use_data_directory(older);
    first.start_server()?;
    first.until("the older store is refused", BOUND, |first| {
        Ok(first.upgrade(&id)?["waiting_on"].to_string().contains("UPG0312"))
    })?;
    eprintln!("{}", first.ok(&["upgrades", "show", &id])?);
    // A log that ordinary commands and restarts have made longer than the cluster's mark is another log all the same.
    ensure!(first.upgrade(&id)?["state"] == "pausing", "it does not look as if it went on");
    first.shiplock(&["pause", &id])?;
    for _ in 0..RESTARTS_MAX {
        if first.upgrade(&id)?["len"].as_u64() > Some(len) {
            break;
        }
        first.kill_server()?;
        first.start_server()?;
        first.until("the older store is refused again", BOUND, |first| {
            Ok(first.upgrade(&id)?["waiting_on"].to_string().contains("UPG0312"))
        })?;
    }
    let grown = first.upgrade(&id)?["len"].as_u64();
    ensure!(grown > Some(len), "the older log has {grown:?} events, the cluster's {len}");
    first.kill_server()?;
    first.start_server()?;
    first.until("the longer log is refused too", BOUND, |first| {
        Ok(first.upgrade(&id)?["waiting_on"].to_string().contains("UPG0312"))
    })?;
    eprintln!("  refused with {grown:?} events where the cluster knows of {len}");
    ensure!(world(lab)? == before, "the server with the older store changed something");
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);
    an_older_store_is_let_go_on(lab, &mut first, &id)
}

/// The newest store is lost, and a person lets the older one go on: it has the drain of a node in flight that was finished
/// and takes pods since.
fn an_older_store_is_let_go_on(lab: &Lab, first: &mut Installation<'_>, id: &str) -> Result<()> {
    let kubelets =
        || ["w1", "w2"].map(|node| lab.exec_text(node, &["systemctl", "show", "kubelet", "-p", "MainPID"]).ok());
    let before = kubelets();
    lab.kubectl(&["--namespace=kube-upgrade", "delete", "lease", "shiplock"])?;
    first.until("what had begun is finished, and the upgrade waits for a person", BOUND, |first| {
        nothing_ends_on_a_node_that_takes_pods(lab)?;
        let upgrade = first.upgrade(id)?;
        Ok(upgrade["state"] == "paused" && upgrade["waiting_on"].to_string().contains("UPG0318"))
    })?;
    eprintln!("{}", first.ok(&["upgrades", "show", id, "--events"])?);
    first.ok(&["continue", id])?;
    first.until("the older store has ended its upgrade", BOUND, |first| {
        nothing_ends_on_a_node_that_takes_pods(lab)?;
        Ok(first.upgrade(id)?["state"] == "succeeded")
    })?;
    eprintln!("{}", first.ok(&["upgrades", "show", id, "--events"])?);
    workers_are_upgraded(lab, &["w1", "w2"])?;
    ensure!(kubelets() == before, "a kubelet was started again: {before:?} became {:?}", kubelets());
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);
    Ok(())
}

/// No pod of the application is told to end on a node on which it could be started anew.
fn nothing_ends_on_a_node_that_takes_pods(lab: &Lab) -> Result<()> {
    let list = |kind: &str| -> Result<Vec<Value>> {
        let list: Value = serde_json::from_str(&lab.kubectl(&["get", kind, "-o", "json"])?)?;
        list["items"].as_array().cloned().context("a list")
    };
    let taking_pods = || -> Result<BTreeSet<String>> {
        let nodes = list("nodes")?.into_iter().filter(|node| node["spec"]["unschedulable"] != true);
        Ok(nodes.filter_map(|node| node["metadata"]["name"].as_str().map(str::to_owned)).collect())
    };
    // A node may be cordoned or uncordoned between two lists: only what holds before and after is held against it.
    let before = taking_pods()?;
    let pods = list("pods")?;
    let after = taking_pods()?;
    // What has ended is there until its kubelet has cleaned up behind it.
    let has_ended = |pod: &&Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let ending = pods.iter().filter(|pod| !pod["metadata"]["deletionTimestamp"].is_null() && !has_ended(pod));
    for node in ending.filter_map(|pod| pod["spec"]["nodeName"].as_str()) {
        ensure!(!before.contains(node) || !after.contains(node), "a pod was evicted from {node}, which takes pods");
    }
    Ok(())
}
