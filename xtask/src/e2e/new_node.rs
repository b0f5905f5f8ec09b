//! Scenario `new-node`: a machine that comes after the control plane was upgraded is born at the control plane's version.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::installation::{CLUSTER, Installation};
use super::pools::{KUBELET, mixed_cluster, versions};
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(180);
const SCRIPT: &str = "/root/join.sh";

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 2, &[])?;
    let installation = Installation::ready(lab)?;
    // w2 becomes a machine as its owner has it ready: the system of the old version, in no cluster.
    lab.kubectl(&["delete", "node", "w2"])?;
    lab.replace_disk("w2", "1.35")?;

    let script = installation.ok(&["cluster", "join-instructions", CLUSTER])?;
    eprintln!("{script}");
    let told = installation.json(&["cluster", "join-instructions", CLUSTER])?;
    ensure!(told["join_instructions"]["version"] == KUBELET && told["script"] == script.as_str(), "{told}");
    let command = lab.exec_text("m1", &["kubeadm", "token", "create", "--print-join-command"])?;
    let command = format!("{} --ignore-preflight-errors=SystemVerification", command.trim());

    // A file that is not the one of the index is put nowhere.
    let digest = told["join_instructions"]["files"][0]["sha256"].as_str().context("a digest")?;
    put(lab, &script.replace(digest, &"0".repeat(64)))?;
    let refused = lab.exec("w2", &["sh", SCRIPT, &command])?;
    ensure!(!refused.status.success(), "a file of another digest was taken");
    let kubeadm = lab.exec_text("w2", &["kubeadm", "version", "-o", "short"])?;
    ensure!(kubeadm.trim() == "v1.35.4", "kubeadm is {kubeadm}");

    put(lab, &script)?;
    eprintln!("{}", lab.exec_text("w2", &["sh", SCRIPT, &command])?);
    lab.set_pod_net("w2")?;
    lab.wait_ready("w2", BOUND)?;
    let found = versions(lab)?;
    ensure!(found["w2"].0 == KUBELET && found["w1"].0 == "v1.35.4", "{found:?}");

    // It gets its agent, and an upgrade has nothing to do on its kubelet.
    installation.join("w2")?;
    let words = ["plan", CLUSTER, "--to", "1.36", "--node-pools-only", "--node", "w2", "--dry-run"];
    let plan = installation.json(&words)?.to_string();
    ensure!(!plan.contains("\"upgrade_kubelet\""), "the plan upgrades the kubelet of a new node: {plan}");
    Ok(())
}

fn put(lab: &Lab, script: &str) -> Result<()> {
    let file = lab.folder().join("join.sh");
    fs::write(&file, script)?;
    lab.copy_into("w2", &file, SCRIPT, 0o755)
}
