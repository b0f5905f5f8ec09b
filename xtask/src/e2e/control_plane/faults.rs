//! Scenario `master-faults`: what goes wrong while a master is swapped is put back, paused on and named, and goes on
//! after the remedy.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{components_are_upgraded, old_cluster, only_master};
use crate::e2e::installation::Installation;
use crate::e2e::pools::{marked, workers_are_upgraded};
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(600);
/// A feature gate that Kubernetes 1.35 knows and 1.36 does not.
const GONE_GATE: &str = "InTreePluginPortworxUnregister=true";
const SCHEDULER: &str = "registry.k8s.io/kube-scheduler:v1.36.3";

/// Changes the arguments of the scheduler as kubeadm's documentation says: in the cluster's configuration, and by
/// kubeadm on the master.
fn set_scheduler_gates(lab: &Lab, gates: Option<&str>) -> Result<()> {
    let arguments = gates.map(|gates| format!("  extraArgs: [{{name: feature-gates, value: {gates}}}]\n"));
    let script = r#"set -e
export KUBECONFIG=/etc/kubernetes/admin.conf
kubectl -n kube-system get configmap kubeadm-config -o jsonpath={.data.ClusterConfiguration} \
  | awk '/^[a-zA-Z]/ {skip = /^scheduler:/} !skip' > /root/cluster.yaml
printf 'scheduler:\n%s' "$1" >> /root/cluster.yaml
[ -n "$1" ] || sed -i 's/^scheduler:$/scheduler: {}/' /root/cluster.yaml
kubectl -n kube-system create configmap kubeadm-config --from-file=ClusterConfiguration=/root/cluster.yaml \
  --dry-run=client -o yaml | kubectl apply --server-side --force-conflicts -f - >/dev/null
kubeadm init phase control-plane scheduler --config /root/cluster.yaml >/dev/null"#;
    lab.exec_text("m1", &["sh", "-c", script, "sh", arguments.as_deref().unwrap_or("")])?;
    let wanted = gates.unwrap_or("gates that are not there");
    for _ in 0..600 {
        // Between two mirror pods of a static pod there is none.
        let name = "--field-selector=metadata.name=kube-scheduler-m1";
        let pods: Value =
            serde_json::from_str(&lab.kubectl(&["--namespace=kube-system", "get", "pods", name, "-o", "json"])?)?;
        let pod = &pods["items"][0];
        let ready = pod["status"]["containerStatuses"][0]["ready"] == true;
        if ready && pod["spec"].to_string().contains(wanted) == gates.is_some() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    anyhow::bail!("the scheduler does not follow its manifest")
}

/// Waits until an upgrade is paused with a code, and shows it as its operator sees it.
fn until_paused_with(installation: &mut Installation<'_>, id: &str, code: &str, words: &[&str]) -> Result<()> {
    let paused = installation.until_state(id, "paused", BOUND)?;
    let shown = installation.ok(&["upgrades", "show", id])?;
    eprintln!("{shown}");
    ensure!(paused.to_string().contains(code), "{code} is not named: {paused}");
    for word in words {
        ensure!(shown.contains(word), "{word} is not named");
    }
    Ok(())
}

/// Waits until the cluster knows that the control plane runs the old version, all of it: a kubelet tells of static pods
/// that were replaced up to 34 s late.
fn until_as_before(installation: &mut Installation<'_>, lab: &Lab) -> Result<()> {
    let mut seen = Ok(());
    let awaited = installation.until("the old control plane is seen", BOUND, |_| {
        seen = is_as_before(lab);
        Ok(seen.is_ok())
    });
    awaited.and(seen)
}

fn is_as_before(lab: &Lab) -> Result<()> {
    let pods = lab.kubectl(&["--namespace=kube-system", "get", "pods", "-o", "json"])?;
    let pods: Value = serde_json::from_str(&pods)?;
    let all = pods["items"].as_array().cloned().unwrap_or_default();
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let name = format!("{component}-m1");
        let pod = all.iter().find(|pod| pod["metadata"]["name"] == name.as_str()).with_context(|| name.clone())?;
        let status = &pod["status"]["containerStatuses"][0];
        let image = status["image"].as_str().unwrap_or_default();
        ensure!(image.ends_with(":v1.35.4"), "{name} runs {image}");
    }
    let kubelet = lab.kubectl(&["get", "node", "m1", "-o", "jsonpath={.status.nodeInfo.kubeletVersion}"])?;
    ensure!(kubelet == "v1.35.4", "the kubelet of m1 is {kubelet}");
    Ok(())
}

/// A flag that the new version does not know, an image that vanished, and a full disk, one after the other on the only
/// master: each is named, the old control plane runs, and after the remedy it goes on.
pub(crate) fn faults(lab: &Lab) -> Result<()> {
    old_cluster(lab, 1, 1)?;
    set_scheduler_gates(lab, Some(GONE_GATE))?;
    let mut installation = Installation::ready(lab)?;
    // The pre-check names the gate; let go by name, it shows what a swap does that does not come up.
    let id = installation.begin(&[only_master().as_slice(), &["--accept", "API-013"]].concat())?;
    let named = ["kube-scheduler", "unrecognized feature gate", "put back and runs"];
    until_paused_with(&mut installation, &id, "UPG0518", &named)?;
    until_as_before(&mut installation, lab)?;

    // The remedy, and then the next fault: the image is away.
    set_scheduler_gates(lab, None)?;
    lab.exec_text("m1", &["ctr", "-n", "k8s.io", "images", "rm", "--sync", SCHEDULER])?;
    installation.ok(&["continue", &id])?;
    until_paused_with(&mut installation, &id, "UPG0529", &[SCHEDULER, "m1"])?;
    until_as_before(&mut installation, lab)?;
    let image = format!("{}/images/kube-scheduler-v1.36.3-amd64.tar", lab.mirror_url());
    lab.exec_text(
        "m1",
        &["sh", "-c", &format!("curl -sfo /root/image.tar {image} && ctr -n k8s.io images import /root/image.tar")],
    )?;

    // The next: no room for the copies of what is replaced.
    lab.exec_text(
        "m1",
        &["sh", "-c", "mkdir -p /etc/kubernetes/tmp && mount -t tmpfs -o size=1m tmpfs /etc/kubernetes/tmp"],
    )?;
    installation.ok(&["continue", &id])?;
    until_paused_with(&mut installation, &id, "UPG0504", &["/etc/kubernetes/tmp"])?;
    until_as_before(&mut installation, lab)?;
    lab.exec_text("m1", &["umount", "/etc/kubernetes/tmp"])?;
    installation.ok(&["continue", &id])?;
    installation.until_state(&id, "succeeded", BOUND)?;
    components_are_upgraded(lab, &["m1"])?;
    workers_are_upgraded(lab, &["m1", "w1"])?;
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);
    Ok(())
}
