//! Scenario `refusals`: bad input of any kind gets its own error, and nothing is changed.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::controls::until_step_begins;
use super::credentials::{impostors_are_refused, old_generations_are_refused};
use super::installation::{CLUSTER, Installation};
use super::pools::{marked, mixed_cluster};
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(600);

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 2, &[])?;
    let mut installation = Installation::ready(lab)?;
    let files = lab.folder().join("refusals");
    fs::create_dir_all(&files)?;
    let good = fs::read_to_string(lab.kubeconfig_path())?;
    let write = |name: &str, text: &str| -> Result<String> {
        let path = files.join(name);
        fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    };

    let plan = |to: &str, more: &[&str], code: &str| {
        installation.refused(&[&["plan", CLUSTER, "--to", to, "--node-pools-only"], more].concat(), code).map(drop)
    };
    plan("1.99", &[], "UPG0102")?;
    plan("v1.36.99", &[], "UPG0102")?;
    plan("1.37", &[], "UPG0110")?;
    plan("1.34", &[], "UPG0103")?;
    plan("v1.36.4", &[], "UPG0105")?;
    plan("1.36", &["--pool", "red"], "UPG0108")?;
    plan("1.36", &["--node", "w9"], "UPG0109")?;

    let add = |name: &str, kubeconfig: &str, code: &str| {
        installation.refused(&["cluster", "add", name, "--kubeconfig", kubeconfig], code).map(drop)
    };
    add("other", &write("garbage", "{{{")?, "UPG0201")?;
    add("other", &files.join("none").to_string_lossy(), "UPG0201")?;
    add("other", &write("unreachable", &good.replace(":6443", ":6444"))?, "UPG0203")?;
    let with_exec = good.lines().map(|line| match line.trim_start().starts_with("client-certificate-data:") {
        true => {
            "    exec: {apiVersion: client.authentication.k8s.io/v1, command: evil, interactiveMode: Never}".to_owned()
        }
        false if line.trim_start().starts_with("client-key-data:") => String::new(),
        false => line.to_owned(),
    });
    add("other", &write("exec", &with_exec.collect::<Vec<_>>().join("\n"))?, "UPG0202")?;
    let token = lab.kubectl(&["create", "token", "default"])?;
    let weak = good.lines().map(|line| match line.trim_start().starts_with("client-certificate-data:") {
        true => format!("    token: {token}"),
        false if line.trim_start().starts_with("client-key-data:") => String::new(),
        false => line.to_owned(),
    });
    add("other", &write("forbidden", &weak.collect::<Vec<_>>().join("\n"))?, "UPG0204")?;
    add("again", &lab.kubeconfig_path().to_string_lossy(), "UPG0303")?;
    add(CLUSTER, &lab.kubeconfig_path().to_string_lossy(), "UPG0302")?;

    // An artefact that is missing, and one of another digest, in a mirror that is a copy of the lab's.
    let index = lab.exec_text("w1", &["curl", "-sf", &format!("{}/artefacts.json", lab.mirror_url())])?;
    let mirror = files.join("mirror");
    fs::create_dir_all(&mirror)?;
    fs::write(
        mirror.join("artefacts.json"),
        index
            .replace("\"role\": \"kubelet\"", "\"role\": \"gone\"")
            .replace("\"role\":\"kubelet\"", "\"role\":\"gone\""),
    )?;
    installation.ok(&["cluster", "remove", CLUSTER, "--yes"])?;
    let kubeconfig = lab.kubeconfig_path();
    let kubeconfig = kubeconfig.to_string_lossy();
    installation.ok(&[
        "cluster",
        "add",
        "broken",
        "--kubeconfig",
        &kubeconfig,
        "--mirror",
        &mirror.to_string_lossy(),
    ])?;
    installation.refused(&["plan", "broken", "--to", "1.36", "--node-pools-only"], "UPG0502")?;
    fs::write(mirror.join("artefacts.json"), "{")?;
    installation.refused(&["plan", "broken", "--to", "1.36", "--node-pools-only"], "UPG0501")?;
    installation.ok(&["cluster", "remove", "broken", "--yes"])?;
    installation.add_cluster(CLUSTER)?;
    for node in ["w1", "w2"] {
        installation.join(node)?;
    }
    installation.until("the agents are heard of", BOUND, |installation| {
        let agents = installation.json(&["agent", "list", CLUSTER])?;
        Ok(agents["agents"].as_array().into_iter().flatten().filter(|agent| !agent["last_heard_at"].is_null()).count()
            == 2)
    })?;

    impostors_are_refused(lab, &mut installation)?;

    // A node that was replaced by another machine of its name after the plan.
    let plan = installation.json(&["plan", CLUSTER, "--to", "1.36", "--node-pools-only", "--node", "w2"])?;
    let plan = plan["plan"]["id"].as_str().context("a plan id")?.to_owned();
    lab.kubectl(&["delete", "node", "w2"])?;
    lab.replace_disk("w2", "1.35")?;
    lab.join("w2")?;
    lab.wait_ready("w2", BOUND)?;
    let output = installation.shiplock(&["upgrade", "--plan", &plan, "--yes", "--progress", "none"])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.code() == Some(3) && text.contains("NOD-001") && text.contains("another machine"),
        "blocked with the machine named: {text}"
    );
    eprintln!("{text}");
    let blocked = installation.json(&["upgrades", "list", "--active"])?["upgrades"][0]["id"]
        .as_str()
        .context("an id")?
        .to_owned();
    // A second upgrade on the same cluster.
    installation.refused(
        &["upgrade", CLUSTER, "--to", "1.36", "--node-pools-only", "--node", "w1", "--yes", "--detach"],
        "UPG0304",
    )?;
    installation.ok(&["cancel", &blocked, "--yes"])?;
    installation.until_state(&blocked, "cancelled", BOUND)?;

    // A disk that fills up stops the fetch, names it, and after the remedy it goes on.
    installation.join("w2")?;
    lab.exec_text("w1", &["sh", "-c", "mkdir -p /var/lib/shiplock-agent/staging && mount -t tmpfs -o size=300m tmpfs /var/lib/shiplock-agent/staging"])?;
    let id = installation.begin_pools(&["--node", "w1"])?;
    let mut stopped = serde_json::Value::Null;
    installation.until("the full disk is named", BOUND, |installation| {
        stopped = installation.upgrade(&id)?;
        Ok(stopped["state"] == "paused" || stopped["state"] == "blocked")
    })?;
    ensure!(stopped.to_string().contains("UPG0504"), "{stopped}");
    eprintln!("{}", installation.ok(&["upgrades", "show", &id])?);
    lab.exec_text("w1", &["umount", "/var/lib/shiplock-agent/staging"])?;
    installation.until("the agent has seen the space", BOUND, |installation| {
        let agents = installation.json(&["agent", "list", CLUSTER])?;
        Ok(agents["agents"].as_array().into_iter().flatten().any(|agent| {
            agent["node"] == "w1" && agent["machine"]["staging_free_bytes"].as_u64().unwrap_or(0) > 1 << 30
        }))
    })?;
    installation.ok(&["continue", &id])?;
    until_step_begins(&mut installation, &id, "upgrade_container_runtime", "w1")?;
    old_generations_are_refused(lab, &installation, &id)?;
    installation.until_state(&id, "succeeded", BOUND)?;
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);
    Ok(())
}
