//! Scenario `pools`: two pools of a live cluster are upgraded while an application on them goes on answering.

use std::collections::BTreeMap;
use std::fs;
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

/// All workers run the target: by what the API server tells, and by the bytes of the processes, which are the mirror's.
pub(crate) fn workers_are_upgraded(lab: &Lab, workers: &[&str]) -> Result<()> {
    let index: Value = serde_json::from_str(&fs::read_to_string(lab.home().mirror().join("artefacts.json"))?)?;
    let release = index["releases"].as_array().into_iter().flatten().find(|release| release["kubernetes"] == KUBELET);
    let release = release.with_context(|| format!("the mirror has no {KUBELET}"))?;
    let versions = versions(lab)?;
    for worker in workers {
        let found = versions.get(*worker).with_context(|| format!("node {worker} is gone"))?;
        ensure!(found.0 == KUBELET && found.1 == RUNTIME, "{worker} runs {found:?}");
        for service in ["kubelet", "containerd"] {
            let script = format!("sha256sum < /proc/$(systemctl show {service} -p MainPID --value)/exe");
            let running = lab.exec_text(worker, &["sh", "-c", &script])?;
            let file = release["files"].as_array().into_iter().flatten().find(|file| file["role"] == service);
            let expected = file.and_then(|file| file["sha256"].as_str());
            ensure!(running.split(' ').next() == expected, "{service} on {worker} runs {running}, not {expected:?}");
        }
    }
    Ok(())
}

/// containerd's configuration has the new form and says what the old one said, which is kept beside it.
fn configuration_is_migrated(lab: &Lab, workers: &[&str]) -> Result<()> {
    for worker in workers {
        let script = "cd /etc/containerd; cat config.toml; echo =====; cat config.toml.shiplock-*";
        let text = lab.exec_text(worker, &["sh", "-c", script])?;
        let (new, old) = text.split_once("=====").context("both are printed")?;
        let says = |text: &str, line: &str| text.lines().any(|found| found.trim() == line);
        for (which, text, version) in [("new", new, "version = 3"), ("old", old, "version = 2")] {
            let holds = says(text, version) && says(text, "restrict_oom_score_adj = true");
            ensure!(holds, "the {which} configuration of {worker} is {text}");
        }
    }
    Ok(())
}

/// One pool after the other: all nodes of one are done before any of the next is touched.
fn pools_go_one_by_one(events: &[Value]) -> Result<()> {
    let mut open = None;
    for event in events {
        let stage = event["data"]["stage"].as_u64();
        match event["kind"].as_str() {
            Some("batch_started") => {
                ensure!(open.is_none_or(|open| Some(open) == stage), "stage {stage:?} began before {open:?} had ended");
                open = stage;
            }
            Some("stage_finished") if stage == open => open = None,
            _ => {}
        }
    }
    Ok(())
}

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 4, &[("blue", &["w1", "w2", "w3"]), ("green", &["w4"])])?;
    lab.deploy_web()?;
    let mut installation = Installation::ready(lab)?;
    eprintln!("{}", installation.ok(&["plan", "lab", "--to", "1.36", "--node-pools-only", "--dry-run"])?);
    // From inside the cluster: a pod, and a node beside it. By address: DNS has its own pods on the nodes that go.
    let url = format!("http://{}/", lab.service_address("web")?);
    lab.start_pod_probe(&url)?;
    lab.start_probe("m1", "pools", &url, 20)?;
    let id = installation.begin_pools(&[])?;
    let view = installation.watch(&id)?;
    installation.until_state(&id, "succeeded", Duration::from_secs(600))?;
    view.ended()?;
    let probes = [("a pod", lab.pod_probe_report()?), ("a node", lab.stop_probe("m1", "pools")?)];
    let events = installation.events(&id)?;
    let sizes: Vec<_> = batch_sizes(&events).into_values().collect();
    ensure!(sizes == [vec![1, 2], vec![1]], "batches of {sizes:?}");
    pools_go_one_by_one(&events)?;
    workers_are_upgraded(lab, &["w1", "w2", "w3", "w4"])?;
    ensure!(marked(lab)?.is_empty(), "still marked: {:?}", marked(lab)?);
    configuration_is_migrated(lab, &["w1", "w2", "w3", "w4"])?;
    for (from, probe) in probes {
        eprintln!(
            "  {} requests from {from} on new connections, {} failed, longest gap {} ms",
            probe.ok + probe.failed,
            probe.failed,
            probe.longest_gap_ms
        );
        ensure!(probe.failed == 0 && probe.ok > 0, "requests from {from} failed: {:?}", probe.failures);
        ensure!(probe.backends.len() >= 3, "the application moved: {:?}", probe.backends);
    }
    Ok(())
}
