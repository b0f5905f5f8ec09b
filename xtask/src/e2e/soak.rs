//! Scenarios `soak` and `soak-three`: masters that run the new version and behave like the old one go back without a
//! loss, or step up when the time is over; after the step up there is no way back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::control_plane::{
    LAB_OPTIONS, components_are_upgraded, kubeadm_finds_nothing_left, old_cluster, only_master,
};
use super::controls::{step_of, until_step_begins};
use super::installation::Installation;
use super::pools::{marked, versions, workers_are_upgraded};
use super::rollback::{how_long, masters_are_old, rolled_back};
use super::samples::Sampler;
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(900);

/// Every master runs the components of 1.36, behaves like 1.35 in every respect that clients can see, and has its old
/// kubelet.
fn masters_emulate(lab: &Lab, masters: &[&str]) -> Result<()> {
    let versions = versions(lab)?;
    for master in masters {
        let said = lab.exec_text(master, &["curl", "-sk", "https://127.0.0.1:6443/version"])?;
        let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
        let found = (said["gitVersion"].as_str(), said["emulationMajor"].as_str(), said["emulationMinor"].as_str());
        ensure!(found == (Some("v1.36.3"), Some("1"), Some("35")), "{master}: {said}");
        for (port, component) in [(10257, "kube-controller-manager"), (10259, "kube-scheduler")] {
            let told = metric(lab, master, port)?;
            ensure!(told.contains("binary=\"1.36.3\"") && told.contains("emulation=\"1.35\""), "{component}: {told}");
        }
        ensure!(versions[*master].0 == "v1.35.4", "the kubelet of {master} is {:?}", versions[*master]);
    }
    let served = lab.kubectl(&["get", "--raw", "/apis/admissionregistration.k8s.io/v1"])?;
    ensure!(!served.contains("mutatingadmissionpolicies"), "an API that 1.35 does not have is served: {served}");
    Ok(())
}

/// What a running component says of its version, by its own metrics.
fn metric(lab: &Lab, master: &str, port: u16) -> Result<String> {
    let script = format!(
        "cd /root && for part in certificate key; do kubectl --kubeconfig /etc/kubernetes/admin.conf config view --raw \
         -o jsonpath=\"{{.users[0].user.client-$part-data}}\" | base64 -d > admin-$part; done; \
         curl -sk --cert admin-certificate --key admin-key https://127.0.0.1:{port}/metrics | grep '^version_info'; \
         rm -f admin-certificate admin-key"
    );
    lab.exec_text(master, &["sh", "-c", &script])
}

fn until_soaking(installation: &mut Installation<'_>, id: &str) -> Result<()> {
    installation.until("the masters soak", BOUND, |installation| {
        let upgrade = installation.upgrade(id)?;
        let rests = ["blocked", "paused", "cancelled", "succeeded"].iter().any(|state| upgrade["state"] == *state);
        ensure!(!rests, "it is {upgrade}");
        let waits = upgrade["waiting_on"].as_array().cloned().unwrap_or_default();
        Ok(waits.iter().any(|wait| wait["waiting_on"] == "soak"))
    })?;
    eprintln!("{}", installation.ok(&["upgrades", "show", id])?);
    Ok(())
}

/// One master: back from the soak with nothing lost; then up, with a soak that ends by itself; then no way back.
pub(crate) fn one_master(lab: &Lab) -> Result<()> {
    old_cluster(lab, 1, 1)?;
    let mut installation = Installation::ready(lab)?;
    let asked = |time: &'static str| [only_master().as_slice(), &["--soak", time]].concat();
    eprintln!(
        "{}",
        installation.ok(&[&["plan", "lab", "--to", "1.36", "--dry-run"], asked("1h").as_slice()].concat())?
    );
    let id = installation.begin(&asked("1h"))?;
    until_soaking(&mut installation, &id)?;
    masters_emulate(lab, &["m1"])?;
    lab.kubectl(&["create", "configmap", "written-meanwhile", "--from-literal=by=soak"])?;
    // Pools would be newer than what the API server behaves like.
    installation.refused(&["plan", "lab", "--to", "1.36", "--node-pools-only"], "UPG0105")?;

    let preview = installation.ok(&["rollback", &id, "--dry-run"])?;
    eprintln!("{preview}");
    ensure!(preview.contains("kube-apiserver v1.36.3 → v1.35.4") && !preview.contains("kubelet v1."), "{preview}");
    let back = rolled_back(&installation, &id, &["--accept", "CP-003"])?;
    installation.until_state(&back, "succeeded", BOUND)?;
    how_long(&installation, &back)?;
    masters_are_old(lab, &["m1"])?;
    let written = lab.kubectl(&["get", "configmap", "written-meanwhile", "-o", "jsonpath={.data.by}"])?;
    ensure!(written == "soak", "what was written meanwhile is gone: {written}");

    let again = installation.begin(&asked("20s"))?;
    until_step_ends(&mut installation, &again, "upgrade_control_plane", 2)?;
    installation.ok(&["pause", &again])?;
    installation.until_state(&again, "paused", BOUND)?;
    installation.refused(&["rollback", &again, "--yes"], "UPG0118")?;
    installation.ok(&["continue", &again])?;
    installation.until_state(&again, "succeeded", BOUND)?;
    how_long(&installation, &again)?;
    components_are_upgraded(lab, &["m1"])?;
    workers_are_upgraded(lab, &["m1", "w1"])?;
    nothing_emulates(lab, &["m1"])?;
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);
    kubeadm_finds_nothing_left(lab, "m1")
}

/// Three masters: back from the soak while server and agent are killed; then up, while the API answers.
pub(crate) fn three_masters(lab: &Lab) -> Result<()> {
    old_cluster(lab, 3, 1)?;
    let masters = ["m1", "m2", "m3"];
    let mut installation = Installation::ready(lab)?;
    let sampler = Sampler::start(lab, &masters)?;
    let id = installation.begin(&[LAB_OPTIONS, &["--soak", "1h"]].concat())?;
    until_soaking(&mut installation, &id)?;
    masters_emulate(lab, &masters)?;
    let back = rolled_back(&installation, &id, &[])?;
    let first = installation.upgrade(&back)?["stages"][1]["nodes"][0]["node"].as_str().map(str::to_owned);
    let first = first.context("the first master")?;
    until_step_begins(&mut installation, &back, "restore_control_plane", &first)?;
    installation.kill_server()?;
    lab.exec_text(&first, &["systemctl", "kill", "-s", "KILL", "shiplock-agent"])?;
    installation.start_server()?;
    installation.until_state(&back, "succeeded", BOUND)?;
    how_long(&installation, &back)?;
    masters_are_old(lab, &masters)?;

    let again = installation.begin(&[LAB_OPTIONS, &["--soak", "20s"]].concat())?;
    installation.until_state(&again, "succeeded", BOUND)?;
    how_long(&installation, &again)?;
    let samples = sampler.stop()?;
    eprintln!("  {samples:?}");
    components_are_upgraded(lab, &masters)?;
    workers_are_upgraded(lab, &["m1", "m2", "m3", "w1"])?;
    nothing_emulates(lab, &masters)?;
    ensure!(samples.etcd_members_away_max <= 1, "etcd members away at once: {samples:?}");
    ensure!(samples.api_servers_away_max <= 1, "API servers away at once: {samples:?}");
    Ok(())
}

fn nothing_emulates(lab: &Lab, masters: &[&str]) -> Result<()> {
    for master in masters {
        let said = lab.exec_text(master, &["curl", "-sk", "https://127.0.0.1:6443/version"])?;
        ensure!(said.contains("\"emulationMinor\": \"36\""), "{master}: {said}");
        let files =
            lab.exec_text(master, &["sh", "-c", "grep -l emulated-version /etc/kubernetes/manifests/* || true"])?;
        ensure!(files.trim().is_empty(), "{master} still has the flag in {files}");
    }
    let configuration =
        lab.kubectl(&["--namespace=kube-system", "get", "configmap", "kubeadm-config", "-o", "yaml"])?;
    ensure!(!configuration.contains("emulated"), "the flag is in kubeadm-config: {configuration}");
    Ok(())
}

/// Waits until so many steps of a kind have succeeded.
fn until_step_ends(installation: &mut Installation<'_>, id: &str, kind: &str, count: usize) -> Result<()> {
    installation.until(&format!("{count} steps {kind} have succeeded"), BOUND, |installation| {
        let events = installation.events(id)?;
        let of_kind = |event: &&Value| {
            event["kind"] == "step_succeeded" && step_of(&events, event).is_some_and(|(found, _)| found == kind)
        };
        Ok(events.iter().filter(of_kind).count() >= count)
    })
}
