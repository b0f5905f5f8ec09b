//! Scenarios `rollback`, `rollback-late` and `rollback-three`: an upgrade of the control plane is taken back, and is not once that is no
//! longer safe.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::control_plane::{LAB_OPTIONS, old_cluster, only_master};
use super::controls::until_step_begins;
use super::installation::Installation;
use super::pools::{marked, versions};
use super::samples::Sampler;
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(600);
/// What every component runs before an upgrade, and after it was taken back.
const OLD: &[(&str, &str)] = &[
    ("etcd", "registry.k8s.io/etcd:3.6.6-0"),
    ("kube-apiserver", "registry.k8s.io/kube-apiserver:v1.35.4"),
    ("kube-controller-manager", "registry.k8s.io/kube-controller-manager:v1.35.4"),
    ("kube-scheduler", "registry.k8s.io/kube-scheduler:v1.35.4"),
];
/// An object of an API that 1.35 does not serve.
const NEW_OBJECT: &str = r#"{"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingAdmissionPolicy","metadata":{"name":"only-new"},"spec":{"reinvocationPolicy":"Never","failurePolicy":"Ignore","matchConstraints":{"resourceRules":[{"apiGroups":["example.com"],"apiVersions":["v1"],"operations":["CREATE"],"resources":["nothing"]}]},"mutations":[{"patchType":"JSONPatch","jsonPatch":{"expression":"[JSONPatch{op: \"test\", path: \"/kind\", value: \"x\"}]"}}]}}"#;

/// Everything on the masters is old, runs and is well; nothing carries our mark.
pub(crate) fn masters_are_old(lab: &Lab, masters: &[&str]) -> Result<()> {
    masters_run_old(lab, masters)?;
    ensure!(marked(lab)?.is_empty(), "still marked: {:?}", marked(lab)?);
    Ok(())
}

fn masters_run_old(lab: &Lab, masters: &[&str]) -> Result<()> {
    let pods: Value = serde_json::from_str(&lab.kubectl(&["--namespace=kube-system", "get", "pods", "-o", "json"])?)?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    let versions = versions(lab)?;
    for master in masters {
        for (component, image) in OLD {
            let name = format!("{component}-{master}");
            let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name.as_str());
            let status = pod.map(|pod| &pod["status"]["containerStatuses"][0]).unwrap_or(&Value::Null);
            ensure!(status["image"] == *image && status["ready"] == true, "{name}: {status}");
        }
        let answered = lab.exec_text(master, &["curl", "-sk", "https://127.0.0.1:6443/version"])?;
        ensure!(answered.contains("\"gitVersion\": \"v1.35.4\""), "{master}: {answered}");
        ensure!(versions[*master].0 == "v1.35.4", "{master}: {:?}", versions[*master]);
        for program in ["kubelet", "kubeadm"] {
            let words: &[&str] =
                if program == "kubelet" { &["kubelet", "--version"] } else { &["kubeadm", "version", "-o", "short"] };
            let said = lab.exec_text(master, words)?;
            ensure!(said.contains("v1.35.4"), "{program} on {master} says {said}");
        }
    }
    Ok(())
}

pub(crate) fn rolled_back(installation: &Installation<'_>, id: &str, options: &[&str]) -> Result<String> {
    installation.begin_with(&[&["rollback", id], options].concat())
}

pub(crate) fn how_long(installation: &Installation<'_>, id: &str) -> Result<()> {
    let events = installation.events(id)?;
    let of = |event: &Value| event["data"]["outcome"]["interrupted_milliseconds"].as_u64();
    let away: Vec<u64> = events.iter().filter_map(of).collect();
    eprintln!("{}", installation.ok(&["upgrades", "show", id, "--events"])?);
    eprintln!("  masters away for {away:?} ms");
    Ok(())
}

/// One master: from the pause after its swap; objects of the new version are named; nothing is lost; later it is refused.
pub(crate) fn one_master(lab: &Lab) -> Result<()> {
    old_cluster(lab, 1, 1)?;
    let mut installation = Installation::ready(lab)?;
    let options = [LAB_OPTIONS, &["--accept", "CP-003"]].concat();
    let id = installation.begin(&options)?;
    until_step_begins(&mut installation, &id, "upgrade_control_plane", "m1")?;
    installation.ok(&["pause", &id])?;
    installation.until_state(&id, "paused", BOUND)?;
    ensure!(versions(lab)?["m1"].0 == "v1.36.3", "m1 was swapped: {:?}", versions(lab)?);
    lab.kubectl(&["create", "configmap", "written-meanwhile", "--from-literal=by=1.36"])?;
    let manifest = format!("printf '%s' '{NEW_OBJECT}' | kubectl --kubeconfig /etc/kubernetes/admin.conf create -f -");
    lab.exec_text("m1", &["sh", "-c", &manifest])?;

    let preview = installation.ok(&["rollback", &id, "--dry-run"])?;
    eprintln!("{preview}");
    for told in ["etcd 3.6.8-0 → 3.6.6-0", "kubelet v1.36.3 → v1.35.4", "CP-003", "MutatingAdmissionPolicy", "only-new"]
    {
        ensure!(preview.contains(told), "the preview does not tell of {told}");
    }
    ensure!(installation.upgrade(&id)?["state"] == "paused", "a preview changes nothing");

    // What was not accepted stops the way back before the upgrade is ended for it.
    installation.refused(&["rollback", &id, "--yes", "--accept", "CP-003"], "UPG0126")?;
    ensure!(installation.upgrade(&id)?["state"] == "paused", "the upgrade was not ended");
    ensure!(versions(lab)?["m1"].0 == "v1.36.3", "nothing was touched");

    // Its pods have nowhere to go now: it goes back without a drain.
    lab.kubectl(&["cordon", "w1"])?;
    let back = rolled_back(&installation, &id, &["--accept", "CP-003", "--accept", "CP-015"])?;
    installation.until_state(&back, "succeeded", BOUND)?;
    how_long(&installation, &back)?;
    let cordoned = lab.kubectl(&["get", "node", "w1", "-o", "jsonpath={.spec.unschedulable}"])?;
    ensure!(cordoned == "true", "w1 is the operator's to uncordon");
    lab.kubectl(&["uncordon", "w1"])?;
    masters_are_old(lab, &["m1"])?;
    let written = lab.kubectl(&["get", "configmap", "written-meanwhile", "-o", "jsonpath={.data.by}"])?;
    ensure!(written == "1.36", "what was written meanwhile is gone: {written}");

    // Asked for while the master is in work: it is paused, finished, and goes back.
    let cut = installation.begin(&options)?;
    until_step_begins(&mut installation, &cut, "upgrade_control_plane", "m1")?;
    let back_again = rolled_back(&installation, &cut, &["--accept", "CP-003", "--accept", "CP-015"])?;
    installation.until_state(&back_again, "succeeded", BOUND)?;
    masters_are_old(lab, &["m1"])?;

    // The way forward is open again, and when it has touched the add-ons there is no way back.
    let again = installation.begin(&options)?;
    installation.until_state(&again, "succeeded", BOUND)?;
    let seen = lab.exec_text(
        "m1",
        &["kubectl", "--kubeconfig", "/etc/kubernetes/admin.conf", "get", "mutatingadmissionpolicies", "-o", "name"],
    )?;
    ensure!(seen.contains("only-new"), "the newer version shows its objects again: {seen}");
    installation.refused(&["rollback", &again, "--yes"], "UPG0118")?;
    installation.refused(&["rollback", &id, "--yes"], "UPG0120")?;
    installation.refused(&["rollback", &back, "--yes"], "UPG0119")?;
    Ok(())
}

/// What the cluster keeps for all nodes: the data of both ConfigMaps.
fn configuration(lab: &Lab) -> Result<[String; 2]> {
    let data =
        |name: &str| lab.kubectl(&["--namespace=kube-system", "get", "configmap", name, "-o", "jsonpath={.data}"]);
    Ok([data("kubeadm-config")?, data("kubelet-config")?])
}

/// One master, as late as there is a way back, on a day on which the API does not answer any more: nothing can be planned,
/// the master is put back by hand, and the rest from the server.
pub(crate) fn late_and_by_hand(lab: &Lab) -> Result<()> {
    old_cluster(lab, 1, 1)?;
    let before = configuration(lab)?;
    let mut installation = Installation::ready(lab)?;
    let id = installation.begin(&only_master())?;
    until_step_begins(&mut installation, &id, "upload_configuration", "m1")?;
    installation.ok(&["pause", &id])?;
    installation.until_state(&id, "paused", BOUND)?;
    let uploaded = configuration(lab)?;
    ensure!(uploaded[0].contains("v1.36.3"), "{uploaded:?}");

    let broken = r"sed -i 's/^    - kube-apiserver$/    - kube-apiserver\n    - --not-known/' /etc/kubernetes/manifests/kube-apiserver.yaml";
    lab.exec_text("m1", &["sh", "-c", broken])?;
    let ready = ["curl", "-skf", "--max-time", "2", "https://127.0.0.1:6443/readyz"];
    installation.until("the API does not answer", BOUND, |_| Ok(lab.exec_text("m1", &ready).is_err()))?;
    installation.refused(&["rollback", &id, "--yes"], "UPG0123")?;

    let by_hand = |options: &str| {
        let command = format!("shiplock-agent restore-control-plane --upgrade {id} {options} 2>&1");
        lab.exec_text("m1", &["sh", "-c", &command])
    };
    ensure!(by_hand("--yes").is_err(), "nothing is done beside the agent");
    lab.exec_text("m1", &["systemctl", "stop", "shiplock-agent"])?;
    let shown = by_hand("")?;
    eprintln!("{shown}");
    ensure!(shown.contains("v1.36.3 → v1.35.4") && shown.contains("Nothing was changed"), "{shown}");
    let done = by_hand("--yes")?;
    eprintln!("{done}");
    ensure!(done.contains("Put back and read back"), "{done}");
    lab.exec_text("m1", &["systemctl", "start", "shiplock-agent"])?;
    installation.until("the old master is well", BOUND, |_| Ok(masters_run_old(lab, &["m1"]).is_ok()))?;
    ensure!(configuration(lab)? == uploaded, "the cluster's configuration is not the agent's to put back alone");

    installation.until_heard()?;
    let back = rolled_back(&installation, &id, &["--accept", "CP-003"])?;
    installation.until_state(&back, "succeeded", BOUND)?;
    how_long(&installation, &back)?;
    masters_are_old(lab, &["m1"])?;
    let after = configuration(lab)?;
    ensure!(after == before, "before {before:?}, after {after:?}");
    // And from the server alone, to the end.
    let again = installation.begin(&only_master())?;
    until_step_begins(&mut installation, &again, "upload_configuration", "m1")?;
    let back = rolled_back(&installation, &again, &["--accept", "CP-003"])?;
    installation.until_state(&back, "succeeded", BOUND)?;
    how_long(&installation, &back)?;
    masters_are_old(lab, &["m1"])?;
    ensure!(configuration(lab)? == before, "after the second way back: {:?}", configuration(lab)?);
    Ok(())
}

/// Three masters: from the middle of their stage, while server and agent are killed.
pub(crate) fn three_masters(lab: &Lab) -> Result<()> {
    old_cluster(lab, 3, 1)?;
    let mut installation = Installation::ready(lab)?;
    let id = installation.begin(LAB_OPTIONS)?;
    let order = until_second_swap(&mut installation, &id)?;
    let sampler = Sampler::start(lab, &["m1", "m2", "m3"])?;
    // It pauses and cancels the upgrade itself; the master in work is finished first.
    let back = rolled_back(&installation, &id, &[])?;
    ensure!(installation.upgrade(&id)?["state"] == "cancelled", "the upgrade was ended first");
    let last = &order[1];
    until_step_begins(&mut installation, &back, "restore_control_plane", last)?;
    lab.exec_text(last, &["systemctl", "kill", "-s", "KILL", "shiplock-agent"])?;
    installation.kill_server()?;
    installation.start_server()?;
    let first = &order[0];
    until_step_begins(&mut installation, &back, "restore_control_plane", first)?;
    installation.kill_server()?;
    installation.start_server()?;
    installation.until_state(&back, "succeeded", BOUND)?;
    let samples = sampler.stop()?;
    how_long(&installation, &back)?;
    eprintln!("  {samples:?}");
    masters_are_old(lab, &["m1", "m2", "m3"])?;
    ensure!(samples.etcd_members_away_max <= 1, "etcd members away at once: {samples:?}");
    ensure!(samples.api_servers_away_max <= 1, "API servers away at once: {samples:?}");
    ensure!(samples.api_failed <= 10, "the API did not answer too often: {samples:?}");
    let events = installation.events(&back)?;
    let restored: Vec<&str> = events
        .iter()
        .filter(|event| event["kind"] == "batch_started")
        .filter_map(|event| event["data"]["nodes"][0].as_str())
        .collect();
    ensure!(restored == [last.as_str(), first.as_str()], "in order {restored:?}");
    Ok(())
}

/// Waits until the second master is being swapped; the two in their order.
fn until_second_swap(installation: &mut Installation<'_>, id: &str) -> Result<[String; 2]> {
    let mut order = Vec::new();
    installation.until("the second master is being swapped", BOUND, |installation| {
        let events = installation.events(id)?;
        let step = |event: &Value| super::controls::step_of(&events, event);
        let begun = events.iter().filter(|event| event["kind"] == "step_started").filter_map(step);
        order = begun.filter(|(kind, _)| kind == "upgrade_control_plane").map(|(_, node)| node).collect();
        order.dedup();
        Ok(order.len() >= 2)
    })?;
    order.truncate(2);
    let [first, second] = order.try_into().map_err(|order| anyhow::anyhow!("two masters: {order:?}"))?;
    Ok([first, second])
}
