//! Scenario `fencing`: a server that was frozen while another one took over changes nothing once it thaws; a store that
//! was restored from an older copy is refused.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

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
    until_step_begins(&mut first, &id, "cordon", "w1")?;
    let older = lab.folder().join("older-copy");
    copy(first.data_directory(), &older)?;
    until_step_begins(&mut first, &id, "drain", "w1")?;
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
    Ok(())
}
