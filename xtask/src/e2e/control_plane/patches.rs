//! Scenario `master-patches`: edits by hand that are given as kubeadm patches are kept, those that are not covered stop
//! the master before it is touched, and certificates stay where the plan says so.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{COMPONENTS, components_are_upgraded, old_cluster, only_master};
use crate::e2e::installation::Installation;
use crate::e2e::pools::{marked, versions, workers_are_upgraded};
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(600);
const FOLDER: &str = "/etc/kubernetes/patches";

/// The serial numbers of certificates that kubeadm would renew.
pub(super) fn serials(lab: &Lab, master: &str) -> Result<String> {
    let script = "for file in apiserver apiserver-etcd-client etcd/server etcd/peer front-proxy-client; do \
                  openssl x509 -noout -serial -in /etc/kubernetes/pki/$file.crt; done";
    lab.exec_text(master, &["sh", "-c", script])
}

/// Adds a flag at the end of a component's command, as an editor does and as a patch does.
fn edit(lab: &Lab, component: &str, flag: &str) -> Result<()> {
    let file = format!("/etc/kubernetes/manifests/{component}.yaml");
    let script = format!(
        "awk '{{ if (flags && $0 !~ /^    - /) {{ print \"    - {flag}\"; flags = 0 }} \
         if ($0 ~ /^    - {component}$/) flags = 1; print }}' {file} > /root/edited.yaml && mv /root/edited.yaml {file}"
    );
    lab.exec_text("m1", &["sh", "-c", &script]).map(drop)
}

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    old_cluster(lab, 1, 1)?;
    let patch = format!(
        "mkdir -p {FOLDER} && echo '[{{\"op\":\"add\",\"path\":\"/spec/containers/0/command/-\",\"value\":\"--v=1\"}}]' \
         > {FOLDER}/kube-scheduler0+json.json && printf 'apiVersion: kubelet.config.k8s.io/v1beta1\\nkind: \
         KubeletConfiguration\\nmaxPods: 99\\n' > {FOLDER}/kubeletconfiguration0+merge.yaml"
    );
    lab.exec_text("m1", &["sh", "-c", &patch])?;
    edit(lab, "kube-scheduler", "--v=1")?;
    edit(lab, "kube-controller-manager", "--v=3")?;
    let before = serials(lab, "m1")?;
    let mut installation = Installation::ready(lab)?;
    let options =
        [only_master().as_slice(), &["--kubeadm-patches", FOLDER, "--keep-certificates", "--accept", "NODE-007"]]
            .concat();
    let id = installation.begin(&options)?;
    let paused = installation.until_state(&id, "paused", BOUND)?;
    let shown = installation.ok(&["upgrades", "show", &id])?;
    eprintln!("{shown}");
    ensure!(paused.to_string().contains("UPG0117"), "the edit that no patch covers is not named: {paused}");
    ensure!(shown.contains("+    - --v=3") && !shown.contains("--v=1"), "its difference is not shown alone: {shown}");
    ensure!(versions(lab)?["m1"].0 == "v1.35.4", "m1 was touched: {:?}", versions(lab)?);

    let take_out = "sed -i '/^    - --v=3$/d' /etc/kubernetes/manifests/kube-controller-manager.yaml";
    lab.exec_text("m1", &["sh", "-c", take_out])?;
    installation.ok(&["continue", &id])?;
    installation.until_state(&id, "succeeded", BOUND)?;
    components_are_upgraded(lab, &["m1"])?;
    workers_are_upgraded(lab, &["m1", "w1"])?;
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);
    let manifest = lab.exec_text("m1", &["cat", "/etc/kubernetes/manifests/kube-scheduler.yaml"])?;
    ensure!(manifest.contains("    - --v=1\n"), "what was given as a patch is lost: {manifest}");
    let kubelet = lab.exec_text("m1", &["cat", "/var/lib/kubelet/config.yaml"])?;
    ensure!(kubelet.contains("maxPods: 99"), "what was given as a patch is lost: {kubelet}");
    ensure!(serials(lab, "m1")? == before, "certificates were renewed against the plan");

    let words = ["kubeadm", "upgrade", "apply", "v1.36.3", "--yes", "--ignore-preflight-errors=SystemVerification"];
    let judged = lab.exec("m1", &[words.as_slice(), &["--certificate-renewal=false", "--patches", FOLDER]].concat())?;
    let said = format!("{}{}", String::from_utf8_lossy(&judged.stdout), String::from_utf8_lossy(&judged.stderr));
    for (component, _) in COMPONENTS {
        let equal = format!("Current and new manifests of {component} are equal");
        ensure!(said.contains(&equal), "kubeadm finds something left to do for {component}: {said}");
    }
    Ok(())
}
