//! Scenarios `master-crashes` and `masters-crashes`: kill -9 of server, agent and machine in every phase of a master.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{LAB_OPTIONS, components_are_upgraded, old_cluster, only_master};
use crate::e2e::controls::until_step_begins;
use crate::e2e::crashes::{kill_server_around, starts};
use crate::e2e::installation::Installation;
use crate::e2e::pools::{marked, workers_are_upgraded};
use crate::e2e::samples::Sampler;
use crate::lab::{Lab, Stop};

const BOUND: Duration = Duration::from_secs(900);

fn check_kills(kills: &[String]) -> Result<()> {
    let phases = ["cordon", "drain", "upgrade_container_runtime", "upgrade_control_plane", "verify_node", "uncordon"];
    for phase in phases {
        ensure!(kills.iter().any(|kill| kill.starts_with(phase)), "never killed around {phase}: {kills:?}");
    }
    Ok(())
}

/// Waits until the kubelet of a master is stopped for the swap.
fn until_swapping(installation: &mut Installation<'_>, id: &str, node: &str) -> Result<()> {
    until_step_begins(installation, id, "upgrade_control_plane", node)?;
    installation.until(&format!("the kubelet of {node} is stopped"), BOUND, |installation| {
        let lab = installation.lab;
        Ok(lab.exec_text(node, &["sh", "-c", "systemctl is-active kubelet || true"])?.trim() != "active")
    })
}

/// One master and one worker: the server is killed around every step of the master, and the agent in the middle of the
/// swap.
pub(crate) fn one_master(lab: &Lab) -> Result<()> {
    old_cluster(lab, 1, 1)?;
    let mut installation = Installation::ready(lab)?;
    let before = starts(lab, "m1", "kubelet")?;
    let id = installation.begin(&only_master())?;
    let kills = kill_server_around(&mut installation, &id, "m1", BOUND)?;
    check_kills(&kills)?;
    installation.until_state(&id, "succeeded", BOUND)?;
    components_are_upgraded(lab, &["m1"])?;
    workers_are_upgraded(lab, &["m1", "w1"])?;
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);
    let kubelet = starts(lab, "m1", "kubelet")? - before;
    ensure!(kubelet == 1, "the kubelet of m1 was started {kubelet} times");
    Ok(())
}

/// Three masters: the server is killed around every step of the first, the agent of the second and the machine of the
/// third in the middle of their swaps; never two members or API servers away at once.
pub(crate) fn three_masters(lab: &Lab) -> Result<()> {
    old_cluster(lab, 3, 1)?;
    let mut installation = Installation::ready(lab)?;
    let order = ["m2", "m3", "m1"];
    let before: Vec<usize> = order.iter().map(|node| starts(lab, node, "kubelet")).collect::<Result<_>>()?;
    let sampler = Sampler::start(lab, &order)?;
    let id = installation.begin(LAB_OPTIONS)?;

    let kills = kill_server_around(&mut installation, &id, order[0], BOUND)?;
    check_kills(&kills)?;
    until_swapping(&mut installation, &id, order[1])?;
    lab.exec_text(order[1], &["systemctl", "kill", "-s", "KILL", "shiplock-agent"])?;
    until_swapping(&mut installation, &id, order[2])?;
    lab.stop(order[2], Stop::PowerCut)?;
    lab.start(order[2])?;
    installation.until_state(&id, "succeeded", BOUND)?;
    let samples = sampler.stop()?;
    eprintln!("  {samples:?}");

    components_are_upgraded(lab, &order)?;
    workers_are_upgraded(lab, &["m1", "m2", "m3", "w1"])?;
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);
    for (index, node) in order[..2].iter().enumerate() {
        let kubelet = starts(lab, node, "kubelet")? - before[index];
        ensure!(kubelet == 1, "the kubelet of {node} was started {kubelet} times");
    }
    ensure!(samples.etcd_members_away_max <= 1, "etcd members away at once: {samples:?}");
    ensure!(samples.api_servers_away_max <= 1, "API servers away at once: {samples:?}");
    Ok(())
}
