//! Scenario `pools`: two pools of a live cluster are upgraded while an application on them goes on answering.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::installation::Installation;
use crate::lab::{Lab, UpOptions};

/// What the workers must run afterwards.
pub(crate) const KUBELET: &str = "v1.36.3";
/// What the workers must run afterwards.
pub(crate) const RUNTIME: &str = "containerd://2.2.9";

/// Boots a 1.36 cluster whose workers are at 1.35.
pub(crate) fn mixed_cluster(lab: &Lab, workers: u8, pools: &[(&str, &[&str])]) -> Result<()> {
    let pools =
        pools.iter().map(|(name, nodes)| ((*name).to_owned(), nodes.iter().map(|node| (*node).to_owned()).collect()));
    lab.up(&UpOptions {
        workers,
        from: "1.36".to_owned(),
        workers_at: Some("1.35".to_owned()),
        pools: pools.collect(),
        ..UpOptions::default()
    })
}

/// Kubelet and runtime of each node, as the API server tells.
pub(crate) fn versions(lab: &Lab) -> Result<BTreeMap<String, (String, String)>> {
    let nodes: Value = serde_json::from_str(&lab.kubectl(&["get", "nodes", "-o", "json"])?)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let info = |node: &Value| {
        let info = &node["status"]["nodeInfo"];
        (text(&node["metadata"]["name"]), (text(&info["kubeletVersion"]), text(&info["containerRuntimeVersion"])))
    };
    Ok(nodes["items"].as_array().context("nodes are listed")?.iter().map(info).collect())
}

/// Nodes that are cordoned or carry our mark, as the API server tells.
pub(crate) fn marked(lab: &Lab) -> Result<Vec<String>> {
    let nodes: Value = serde_json::from_str(&lab.kubectl(&["get", "nodes", "-o", "json"])?)?;
    let is_marked = |node: &&Value| {
        node["spec"]["unschedulable"] == true || !node["metadata"]["annotations"]["shiplock.dev/owner"].is_null()
    };
    let name = |node: &Value| node["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    Ok(nodes["items"].as_array().into_iter().flatten().filter(is_marked).map(name).collect())
}

/// What must not change where nothing may act: nodes and pods with their identities, cordons and marks.
pub(crate) fn world(lab: &Lab) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for kind in ["nodes", "pods"] {
        let list: Value = serde_json::from_str(&lab.kubectl(&["get", kind, "-A", "-o", "json"])?)?;
        for item in list["items"].as_array().into_iter().flatten() {
            let annotation = &item["metadata"]["annotations"]["shiplock.dev/owner"];
            lines.push(format!(
                "{kind} {} {} {} {annotation}",
                item["metadata"]["name"], item["metadata"]["uid"], item["spec"]["unschedulable"]
            ));
        }
    }
    Ok(lines)
}

/// The sizes of the batches of each stage, from the events.
pub(crate) fn batch_sizes(events: &[Value]) -> BTreeMap<u64, Vec<usize>> {
    let mut sizes: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["kind"] == "batch_started") {
        let stage = event["data"]["stage"].as_u64().unwrap_or_default();
        sizes.entry(stage).or_default().push(event["data"]["nodes"].as_array().map_or(0, Vec::len));
    }
    sizes
}

/// The versions of all workers are the target's.
pub(crate) fn workers_are_upgraded(lab: &Lab, workers: &[&str]) -> Result<()> {
    let versions = versions(lab)?;
    for worker in workers {
        let found = versions.get(*worker).with_context(|| format!("node {worker} is gone"))?;
        ensure!(found.0 == KUBELET && found.1 == RUNTIME, "{worker} runs {found:?}");
        let running =
            lab.exec_text(worker, &["sh", "-c", "sha256sum < /proc/$(systemctl show kubelet -p MainPID --value)/exe"])?;
        let planned = lab.exec_text(worker, &["sha256sum", "/usr/bin/kubelet"])?;
        ensure!(
            running.split(' ').next() == planned.split(' ').next(),
            "the kubelet that runs on {worker} is not the one on its disk"
        );
    }
    Ok(())
}

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 4, &[("blue", &["w1", "w2", "w3"]), ("green", &["w4"])])?;
    lab.deploy_web()?;
    let mut installation = Installation::ready(lab)?;
    eprintln!("{}", installation.ok(&["plan", "lab", "--to", "1.36", "--node-pools-only", "--dry-run"])?);
    let url = format!("http://{}/", lab.service_address("web")?);
    lab.start_probe("m1", "pools", &url, 20)?;
    let id = installation.begin_pools(&[])?;
    let view = installation.watch(&id)?;
    installation.until_state(&id, "succeeded", Duration::from_secs(600))?;
    view.ended()?;
    let probe = lab.stop_probe("m1", "pools")?;
    let events = installation.events(&id)?;
    let sizes: Vec<_> = batch_sizes(&events).into_values().collect();
    ensure!(sizes == [vec![1, 2], vec![1]], "batches of {sizes:?}");
    workers_are_upgraded(lab, &["w1", "w2", "w3", "w4"])?;
    ensure!(marked(lab)?.is_empty(), "still marked: {:?}", marked(lab)?);
    eprintln!(
        "  {} requests on new connections, {} failed, longest gap {} ms",
        probe.ok, probe.failed, probe.longest_gap_ms
    );
    ensure!(probe.failed == 0, "requests failed: {:?}", probe.failures);
    ensure!(probe.backends.len() >= 3, "the application moved: {:?}", probe.backends);
    Ok(())
}
