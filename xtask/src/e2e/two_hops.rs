//! Scenario `two-hops`: the control plane today, the pools another day, and then the next minor version, in which etcd
//! goes from 3.6 to 3.7 and never back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::control_plane::{components_are_upgraded, old_cluster, only_master};
use super::controls::until_step_begins;
use super::installation::Installation;
use super::pools::{marked, versions, workers_are_upgraded};
use super::rollback::{how_long, rolled_back};
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(900);

/// The images of the components on the only master, all of which are ready.
fn components(lab: &Lab) -> Result<Vec<String>> {
    let pods: Value = serde_json::from_str(&lab.kubectl(&["--namespace=kube-system", "get", "pods", "-o", "json"])?)?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
        .iter()
        .map(|component| {
            let name = format!("{component}-m1");
            let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name.as_str()).with_context(|| name.clone())?;
            let status = &pod["status"]["containerStatuses"][0];
            ensure!(status["ready"] == true, "{name}: {status}");
            Ok(status["image"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned())
        })
        .collect()
}

/// The catalogue of a vendor whose kubelets may be one minor older than the API server.
fn strict_catalogue(installation: &Installation<'_>) -> Result<std::path::PathBuf> {
    let mut catalogue: Value = serde_json::from_str(include_str!("../../../crates/shiplock-core/data/catalogue.json"))?;
    for rule in catalogue["kubelet_skew"].as_array_mut().context("rules")? {
        rule["minors_older_max"] = 1.into();
    }
    let path = installation.data_directory().join("catalogue.json");
    std::fs::write(&path, catalogue.to_string())?;
    Ok(path)
}

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    old_cluster(lab, 1, 1)?;
    let mut installation = Installation::ready(lab)?;
    let catalogue = strict_catalogue(&installation)?;
    installation.kill_server()?;
    installation.start_server_with(&["--catalogue", &catalogue.to_string_lossy()])?;
    installation.until_heard()?;

    let alone = installation.begin(&[only_master().as_slice(), &["--control-plane-only"]].concat())?;
    installation.until_state(&alone, "succeeded", BOUND)?;
    components_are_upgraded(lab, &["m1"])?;
    ensure!(versions(lab)?["w1"].0 == "v1.35.4", "the pool was not touched: {:?}", versions(lab)?);
    let next = [&["plan", "lab", "--to", "1.37"], only_master().as_slice()].concat();
    installation.refused(&[next.as_slice(), &["--control-plane-only"]].concat(), "UPG0106")?;
    let pools = installation.begin_pools(&[])?;
    installation.until_state(&pools, "succeeded", BOUND)?;
    workers_are_upgraded(lab, &["m1", "w1"])?;
    eprintln!("{}", installation.ok(&[next.as_slice(), &["--dry-run"]].concat())?);

    // The next minor version, taken back from its middle: etcd stays.
    let id = installation.begin_to("1.37", &only_master())?;
    until_swapped(&mut installation, &id)?;
    installation.ok(&["pause", &id])?;
    installation.until_state(&id, "paused", BOUND)?;
    ensure!(components(lab)?[..2] == ["etcd:3.7.0-0", "kube-apiserver:v1.37.2"], "{:?}", components(lab)?);
    lab.kubectl(&["create", "configmap", "written-meanwhile", "--from-literal=by=1.37"])?;
    let preview = installation.ok(&["rollback", &id, "--dry-run"])?;
    eprintln!("{preview}");
    ensure!(preview.contains("etcd stays at 3.7.0-0"), "the preview does not tell of etcd: {preview}");
    let back = rolled_back(&installation, &id, &["--accept", "CP-003", "--accept", "CP-015"])?;
    installation.until_state(&back, "succeeded", BOUND)?;
    how_long(&installation, &back)?;
    let old = ["etcd:3.7.0-0", "kube-apiserver:v1.36.3", "kube-controller-manager:v1.36.3", "kube-scheduler:v1.36.3"];
    ensure!(components(lab)? == old, "{:?}", components(lab)?);
    ensure!(versions(lab)?["m1"].0 == "v1.36.3", "{:?}", versions(lab)?);
    let written = lab.kubectl(&["get", "configmap", "written-meanwhile", "-o", "jsonpath={.data.by}"])?;
    ensure!(written == "1.37", "what was written meanwhile is gone: {written}");

    let again = installation.begin_to("1.37", &only_master())?;
    installation.until_state(&again, "succeeded", BOUND)?;
    how_long(&installation, &again)?;
    let new = ["etcd:3.7.0-0", "kube-apiserver:v1.37.2", "kube-controller-manager:v1.37.2", "kube-scheduler:v1.37.2"];
    ensure!(components(lab)? == new, "{:?}", components(lab)?);
    let versions = versions(lab)?;
    ensure!(versions.values().all(|(kubelet, _)| kubelet == "v1.37.2"), "{versions:?}");
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);
    Ok(())
}

/// Waits until everything of the only master was swapped: etcd alone, and then the rest.
fn until_swapped(installation: &mut Installation<'_>, id: &str) -> Result<()> {
    until_step_begins(installation, id, "verify_node", "m1")
}
