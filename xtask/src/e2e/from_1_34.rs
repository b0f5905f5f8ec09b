//! Scenario `from-1.34`: the oldest cluster that is supported. Its kubelets are started with a flag that kubelets of 1.35
//! do not know any more.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::control_plane::only_master;
use super::controls::until_step_begins;
use super::installation::Installation;
use super::pools::{marked, versions};
use super::rollback::{how_long, rolled_back};
use crate::lab::{Lab, UpOptions};

const BOUND: Duration = Duration::from_secs(900);
/// Removed from the kubelet in 1.35; kubeadm of 1.34 writes it.
const REMOVED_FLAG: &str = "--pod-infra-container-image";

/// Whether the kubelet of a node is told the flag.
fn has_flag(lab: &Lab, node: &str) -> Result<bool> {
    Ok(lab.exec_text(node, &["cat", "/var/lib/kubelet/kubeadm-flags.env"])?.contains(REMOVED_FLAG))
}

fn kubelets(lab: &Lab) -> Result<Vec<String>> {
    Ok(versions(lab)?.into_values().map(|(kubelet, _)| kubelet).collect())
}

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    lab.up(&UpOptions { masters: 1, workers: 1, from: "1.34".to_owned(), ..UpOptions::default() })?;
    let mut installation = Installation::ready(lab)?;
    ensure!(has_flag(lab, "m1")? && has_flag(lab, "w1")?, "kubeadm of 1.34 writes {REMOVED_FLAG}");

    let id = installation.begin_to("1.35", &only_master())?;
    until_step_begins(&mut installation, &id, "verify_node", "m1")?;
    installation.ok(&["pause", &id])?;
    installation.until_state(&id, "paused", BOUND)?;
    ensure!(kubelets(lab)? == ["v1.35.4", "v1.34.4"] && !has_flag(lab, "m1")?, "m1 was swapped: {:?}", kubelets(lab)?);

    let back = rolled_back(&installation, &id, &["--accept", "CP-003", "--accept", "CP-015"])?;
    installation.until_state(&back, "succeeded", BOUND)?;
    how_long(&installation, &back)?;
    ensure!(kubelets(lab)? == ["v1.34.4", "v1.34.4"] && has_flag(lab, "m1")?, "m1 is back: {:?}", kubelets(lab)?);

    let again = installation.begin_to("1.35", &only_master())?;
    installation.until_state(&again, "succeeded", BOUND)?;
    how_long(&installation, &again)?;
    ensure!(kubelets(lab)? == ["v1.35.4", "v1.35.4"], "{:?}", versions(lab)?);
    ensure!(!has_flag(lab, "m1")? && !has_flag(lab, "w1")?, "{REMOVED_FLAG} is still there");
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);
    Ok(())
}
