//! Scenario `refusals`: bad input of any kind gets its own error, and nothing is changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::controls::until_step_begins;
use super::credentials::{impostors_are_refused, old_generations_are_refused};
use super::installation::{CLUSTER, Installation};
use super::pools::{marked, mixed_cluster, versions, world};
use crate::lab::{Lab, serve_beside};

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

    let before = world(lab)?;
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
    ensure!(world(lab)? == before, "a refusal has changed the cluster");
    ensure!(
        installation.json(&["upgrades", "list"])?["upgrades"] == serde_json::json!([]),
        "a refusal began an upgrade"
    );

    // From here on the mirror is one whose kubelet was changed behind its index.
    let tampered = TamperedMirror::serve(lab, &files)?;
    installation.add_cluster_with_mirror(CLUSTER, &tampered.url)?;
    for node in ["w1", "w2"] {
        installation.join(node)?;
    }
    installation.until("the agents are heard of", BOUND, |installation| {
        let agents = installation.json(&["agent", "list", CLUSTER])?;
        Ok(agents["agents"].as_array().into_iter().flatten().filter(|agent| !agent["last_heard_at"].is_null()).count()
            == 2)
    })?;

    packaged_kubelet_is_refused(lab, &mut installation)?;
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

    // Whatever is wrong with the artefacts stops the fetch, before anything is touched; after the remedy it goes on.
    installation.join("w2")?;
    let versions_before = versions(lab)?;
    lab.exec_text("w1", &["sh", "-c", "mkdir -p /var/lib/shiplock-agent/staging && mount -t tmpfs -o size=300m tmpfs /var/lib/shiplock-agent/staging"])?;
    let id = installation.begin_pools(&["--node", "w1"])?;
    stopped_with(&mut installation, &id, "UPG0504")?;
    lab.exec_text("w1", &["umount", "/var/lib/shiplock-agent/staging"])?;
    installation.until("the agent has seen the space", BOUND, |installation| {
        let agents = installation.json(&["agent", "list", CLUSTER])?;
        Ok(agents["agents"].as_array().into_iter().flatten().any(|agent| {
            agent["node"] == "w1" && agent["machine"]["staging_free_bytes"].as_u64().unwrap_or(0) > 1 << 30
        }))
    })?;
    installation.ok(&["continue", &id])?;
    stopped_with(&mut installation, &id, "UPG0503")?;
    tampered.remove()?;
    installation.ok(&["continue", &id])?;
    stopped_with(&mut installation, &id, "UPG0505")?;
    ensure!(
        marked(lab)?.is_empty() && versions(lab)? == versions_before,
        "something was touched before all artefacts were there"
    );
    tampered.mend()?;
    installation.ok(&["continue", &id])?;
    until_step_begins(&mut installation, &id, "upgrade_container_runtime", "w1")?;
    old_generations_are_refused(lab, &installation, &id)?;
    installation.until_state(&id, "succeeded", BOUND)?;
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);
    Ok(())
}

/// A kubelet that a package manager owns is refused by name: another one in its place would be undone by the next package.
fn packaged_kubelet_is_refused(lab: &Lab, installation: &mut Installation<'_>) -> Result<()> {
    const OWN: &str = "cp /var/lib/dpkg/status /root/dpkg-status; printf 'Package: kubelet\\nStatus: install ok installed\\n\
        Maintainer: lab\\nArchitecture: amd64\\nVersion: 1.35.4\\nDescription: kubelet\\n\\n' >> /var/lib/dpkg/status; \
        echo /usr/bin/kubelet > /var/lib/dpkg/info/kubelet.list; systemctl restart shiplock-agent";
    const DISOWN: &str = "mv /root/dpkg-status /var/lib/dpkg/status; rm /var/lib/dpkg/info/kubelet.list; \
        systemctl restart shiplock-agent";
    let until_method = |installation: &mut Installation<'_>, method: &str| {
        installation.until(&format!("w1 tells that its kubelet is installed as {method}"), BOUND, |installation| {
            let agents = installation.json(&["agent", "list", CLUSTER])?;
            let told = |agent: &serde_json::Value| {
                agent["node"] == "w1" && agent["machine"]["kubelet"].to_string().contains(&format!("\"{method}\""))
            };
            Ok(agents["agents"].as_array().into_iter().flatten().any(told))
        })
    };
    lab.exec_text("w1", &["sh", "-c", OWN])?;
    until_method(installation, "package")?;
    installation.refused(&["plan", CLUSTER, "--to", "1.36", "--node-pools-only"], "UPG0113")?;
    lab.exec_text("w1", &["sh", "-c", DISOWN])?;
    until_method(installation, "binary")
}

/// Waits until an upgrade stands still with a code, and shows what its operator sees.
fn stopped_with(installation: &mut Installation<'_>, id: &str, code: &str) -> Result<()> {
    let mut stopped = serde_json::Value::Null;
    installation.until(&format!("{code} is named"), BOUND, |installation| {
        stopped = installation.upgrade(id)?;
        Ok(stopped["state"] == "paused" || stopped["state"] == "blocked")
    })?;
    ensure!(stopped.to_string().contains(code), "{code} is not named: {stopped}");
    eprintln!("{}", installation.ok(&["upgrades", "show", id])?);
    Ok(())
}

/// A copy of the lab's mirror, beside it, whose kubelet has another last byte than the index says.
struct TamperedMirror {
    url: String,
    kubelet: PathBuf,
    right: PathBuf,
}

impl TamperedMirror {
    const KUBELET: &str = "release/v1.36.3/bin/linux/amd64/kubelet";
    const PORT: u16 = 8099;

    fn serve(lab: &Lab, folder: &Path) -> Result<Self> {
        let (whole, copy) = (lab.home().mirror(), folder.join("tampered"));
        // Hard links: the files are gigabytes.
        let status = Command::new("cp").arg("-al").args([&whole, &copy]).status().context("cp")?;
        ensure!(status.success(), "the mirror cannot be copied to {}", copy.display());
        let address = format!("{}:{}", lab.bridge_address(), Self::PORT);
        let url = format!("http://{address}");
        let mirror = Self { url, kubelet: copy.join(Self::KUBELET), right: whole.join(Self::KUBELET) };
        let mut bytes = fs::read(&mirror.right)?;
        *bytes.last_mut().context("a kubelet has bytes")? ^= 1;
        mirror.remove()?;
        fs::write(&mirror.kubelet, bytes)?;
        serve_beside(&address, &copy)?;
        Ok(mirror)
    }

    fn remove(&self) -> Result<()> {
        fs::remove_file(&self.kubelet).with_context(|| self.kubelet.display().to_string())
    }

    fn mend(&self) -> Result<()> {
        fs::hard_link(&self.right, &self.kubelet).with_context(|| self.kubelet.display().to_string())
    }
}
