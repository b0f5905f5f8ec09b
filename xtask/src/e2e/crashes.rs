//! Scenarios `crashes` and `agent-lost`: kill -9 of the server in every phase of a node, of an agent in the middle of a
//! step, a power cut of the node; and an agent that stays down.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::controls::{step_of, until_step_begins};
use super::installation::Installation;
use super::pools::{marked, mixed_cluster, versions, workers_are_upgraded};
use crate::lab::{Lab, Stop};

const BOUND: Duration = Duration::from_secs(600);

/// How often systemd has started a unit on a node since it booted, from its journal.
pub(crate) fn starts(lab: &Lab, node: &str, unit: &str) -> Result<usize> {
    let pattern = format!("journalctl -u {unit} -o cat --no-pager | grep -c '^Started {unit}'");
    lab.exec_text(node, &["sh", "-c", &format!("{pattern} || true")])?.trim().parse().context("a count")
}

/// Evictions that the API server accepted, from its metrics.
fn evictions(lab: &Lab) -> Result<u64> {
    let metrics = lab.kubectl(&["get", "--raw", "/metrics"])?;
    let is_accepted = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && line.contains("subresource=\"eviction\"")
            && line.contains("code=\"201\"")
    };
    let count = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    Ok(metrics.lines().filter(is_accepted).map(count).sum::<f64>() as u64)
}

/// The UIDs of the pods on workers that something controls and that a drain evicts.
fn evictable_pods(lab: &Lab) -> Result<BTreeSet<String>> {
    let pods: Value = serde_json::from_str(&lab.kubectl(&["get", "pods", "-A", "-o", "json"])?)?;
    let evictable = |pod: &&Value| {
        let owner = &pod["metadata"]["ownerReferences"][0]["kind"];
        pod["spec"]["nodeName"].as_str().is_some_and(|node| node.starts_with('w'))
            && owner != "DaemonSet"
            && owner != "Node"
    };
    let uid = |pod: &Value| pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    Ok(pods["items"].as_array().into_iter().flatten().filter(evictable).map(uid).collect())
}

/// Scenario `crashes`.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 3, &[])?;
    lab.deploy_web()?;
    let mut installation = Installation::ready(lab)?;
    let kubelet_before: Vec<usize> =
        ["w1", "w2"].iter().map(|node| starts(lab, node, "kubelet")).collect::<Result<_>>()?;
    let runtime_before: Vec<usize> =
        ["w1", "w2"].iter().map(|node| starts(lab, node, "containerd")).collect::<Result<_>>()?;
    let mut pods = evictable_pods(lab)?;
    let id = installation.begin_pools(&["--max-parallel", "1"])?;

    // The server is killed once for each intent and each outcome of w1 that the log shows, one after the other.
    let mut seen = 0;
    let mut kills = Vec::new();
    installation.until("w1 is done under a server that is killed at every step", BOUND, |installation| {
        pods.extend(evictable_pods(lab)?);
        let events = installation.events(&id)?;
        let of_w1 = |event: &&Value| step_of(&events, event).is_some_and(|(_, node)| node == "w1");
        let news: Vec<&Value> =
            events.iter().filter(of_w1).filter(|event| event["number"].as_u64().unwrap_or(0) > seen).collect();
        if let Some(event) = news.first() {
            seen = event["number"].as_u64().unwrap_or(0);
            let kind = step_of(&events, event).map(|(kind, _)| kind).unwrap_or_default();
            kills.push(format!("{kind} {}", event["kind"].as_str().unwrap_or_default()));
            let done = kind == "uncordon" && event["kind"] == "step_succeeded";
            installation.kill_server()?;
            installation.start_server()?;
            return Ok(done);
        }
        Ok(false)
    })?;
    eprintln!("  the server was killed {} times: {}", kills.len(), kills.join(", "));
    for phase in ["cordon", "drain", "upgrade_container_runtime", "upgrade_kubelet", "verify_node", "uncordon"] {
        ensure!(kills.iter().any(|kill| kill.starts_with(phase)), "never killed around {phase}: {kills:?}");
    }

    // The agent of w2 is killed in the middle of its kubelet step.
    until_step_begins(&mut installation, &id, "upgrade_kubelet", "w2")?;
    lab.exec_text("w2", &["systemctl", "kill", "-s", "KILL", "shiplock-agent"])?;
    // The machine of w3 loses its power in the middle of its runtime step.
    until_step_begins(&mut installation, &id, "upgrade_container_runtime", "w3")?;
    lab.stop("w3", Stop::PowerCut)?;
    lab.start("w3")?;
    pods.extend(evictable_pods(lab)?);
    installation.until_state(&id, "succeeded", BOUND)?;
    workers_are_upgraded(lab, &["w1", "w2", "w3"])?;
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);

    for (index, node) in ["w1", "w2"].iter().enumerate() {
        let kubelet = starts(lab, node, "kubelet")? - kubelet_before[index];
        let runtime = starts(lab, node, "containerd")? - runtime_before[index];
        eprintln!("  {node}: kubelet started {kubelet} time, containerd {runtime} time");
        ensure!(kubelet == 1 && runtime == 1, "{node}: kubelet {kubelet}, containerd {runtime}");
    }
    let evictions = evictions(lab)?;
    pods.extend(evictable_pods(lab)?);
    eprintln!("  {evictions} evictions accepted, {} pods were ever there", pods.len());
    ensure!(evictions <= pods.len() as u64, "a pod was evicted twice");
    Ok(())
}

/// Scenario `agent-lost`.
pub(crate) fn agent_lost(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 2, &[])?;
    let mut installation = Installation::ready(lab)?;
    let paused_by_silence = |installation: &mut Installation<'_>, node: &str| -> Result<String> {
        let id = installation.begin_pools(&["--node", node, "--contact-timeout", "15s"])?;
        until_step_begins(installation, &id, "cordon", node)?;
        lab.exec_text(node, &["systemctl", "stop", "shiplock-agent"])?;
        let paused = installation.until_state(&id, "paused", BOUND)?;
        ensure!(paused["because"]["reason"] == "contact_lost" && paused["because"]["node"] == node, "{paused}");
        let shown = installation.ok(&["upgrades", "show", &id])?;
        eprintln!("{shown}");
        ensure!(shown.contains("systemctl restart shiplock-agent") && shown.contains(node), "the fix is shown");
        Ok(id)
    };
    let id = paused_by_silence(&mut installation, "w1")?;
    lab.exec_text("w1", &["systemctl", "start", "shiplock-agent"])?;
    installation.ok(&["continue", &id])?;
    installation.until_state(&id, "succeeded", BOUND)?;
    ensure!(versions(lab)?["w1"].0 == "v1.36.3", "w1 is upgraded");

    let id = paused_by_silence(&mut installation, "w2")?;
    eprintln!("{}", installation.ok(&["cancel", &id, "--abandon", "w2", "--yes"])?);
    let cancelled = installation.until_state(&id, "cancelled", BOUND)?;
    ensure!(cancelled["abandoned"][0] == "w2", "{cancelled}");
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);
    Ok(())
}
