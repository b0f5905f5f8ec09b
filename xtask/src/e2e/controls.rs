//! Scenario `controls`: pause in the middle of a batch and continue; pause and cancel; a cordon of the operator stays; a
//! node that somebody uncordons in the middle of its drain is cordoned and emptied again.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::installation::{CLUSTER, Installation};
use super::pools::{KUBELET, batch_sizes, marked, mixed_cluster, versions};
use crate::lab::Lab;
use crate::lab::workload::STUBBORN;

const BOUND: Duration = Duration::from_secs(600);
/// A server begins with no node whose agent is silent for longer than 30 s.
const SILENT: jiff::SignedDuration = jiff::SignedDuration::from_secs(31);

/// Workers that run the target's kubelet.
fn upgraded(lab: &Lab) -> Result<BTreeSet<String>> {
    let is_new = |(name, (kubelet, _)): (String, (String, String))| {
        (name.starts_with('w') && kubelet == KUBELET).then_some(name)
    };
    Ok(versions(lab)?.into_iter().filter_map(is_new).collect())
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The kind of the step that an event speaks of, and its node.
pub(crate) fn step_of(events: &[Value], event: &Value) -> Option<(String, String)> {
    let number = event["data"]["step"].as_u64()?;
    let plan = &events.first()?["data"]["plan"];
    let stages = plan["stages"].as_array()?;
    let steps = stages.iter().flat_map(|stage| {
        let own = stage["steps"].as_array().into_iter().flatten();
        own.chain(
            stage["nodes"]
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(|node| node["steps"].as_array().into_iter().flatten()),
        )
    });
    let step = steps.into_iter().find(|step| step["number"].as_u64() == Some(number))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Some((text(&step["action"]["kind"]), text(&step["target"]["name"])))
}

/// Waits until a step of a kind was begun on a node.
pub(crate) fn until_step_begins(installation: &mut Installation<'_>, id: &str, kind: &str, node: &str) -> Result<()> {
    installation.until(&format!("step {kind} of {node} begins"), BOUND, |installation| {
        let events = installation.events(id)?;
        let begun = |event: &Value| {
            event["kind"] == "step_started"
                && step_of(&events, event).is_some_and(|step| step == (kind.to_owned(), node.to_owned()))
        };
        if events.iter().any(begun) {
            return Ok(true);
        }
        installation.events_going_on(id).map(|_| false)
    })
}

/// Waits until the server has not heard of an agent for so long that it does not begin with its node.
fn until_silent(installation: &mut Installation<'_>, node: &str) -> Result<()> {
    installation.until(&format!("the agent of {node} is silent"), BOUND, |installation| {
        let agents = installation.json(&["agent", "list", CLUSTER])?;
        let heard = |agent: &Value| agent["last_heard_at"].as_str()?.parse::<jiff::Timestamp>().ok();
        let is_silent = |agent: &Value| {
            agent["node"] == node && heard(agent).is_some_and(|at| at.duration_until(jiff::Timestamp::now()) > SILENT)
        };
        Ok(agents["agents"].as_array().into_iter().flatten().any(is_silent))
    })
}

/// A pause in the middle of the first node, then cancel: the node that has started is finished, all others stay.
fn pause_and_cancel(lab: &Lab, installation: &mut Installation<'_>) -> Result<()> {
    let id = installation.begin_pools(&[])?;
    until_step_begins(installation, &id, "drain", "w1")?;
    installation.ok(&["pause", &id])?;
    let paused = installation.until_state(&id, "paused", BOUND)?;
    ensure!(paused["because"]["reason"] == "operator", "{paused}");
    ensure!(upgraded(lab)? == set(&["w1"]), "what has started is finished: {:?}", upgraded(lab)?);
    eprintln!("{}", installation.ok(&["cancel", &id, "--yes"])?);
    installation.until_state(&id, "cancelled", BOUND)?;
    ensure!(upgraded(lab)? == set(&["w1"]), "the others stay: {:?}", upgraded(lab)?);
    ensure!(marked(lab)? == ["w4"], "marked: {:?}", marked(lab)?);
    installation.refused(&["continue", &id], "UPG0305").map(drop)
}

/// Somebody uncordons a node while a pod on it takes its time to end: what lands there is gone again before anything is
/// changed under it, and it is told.
fn uncordon_in_mid_drain(lab: &Lab, installation: &mut Installation<'_>, id: &str, node: &str) -> Result<()> {
    until_step_begins(installation, id, "drain", node)?;
    lab.kubectl(&["uncordon", node])?;
    eprintln!("  {node} was uncordoned in the middle of its drain");
    let runtime = |events: &[Value]| {
        let begins = |event: &&Value| {
            let step = (event["kind"] == "step_started").then(|| step_of(events, event)).flatten();
            step == Some(("upgrade_container_runtime".to_owned(), node.to_owned()))
        };
        events.iter().find(begins).and_then(|event| event["number"].as_u64())
    };
    until_step_begins(installation, id, "upgrade_container_runtime", node)?;
    // A pod that has ended is no pod for a drain, though its object may be there for a moment more.
    let on_node = format!("spec.nodeName={node},status.phase!=Failed,status.phase!=Succeeded");
    let stubborn = lab.kubectl(&["get", "pods", "-l", "app=stubborn", "--field-selector", &on_node, "-o", "name"])?;
    let unschedulable = lab.kubectl(&["get", "node", node, "-o", "jsonpath={.spec.unschedulable}"])?;
    let events = installation.events(id)?;
    let changed_at = runtime(&events);
    let told = |kind: &str, number: &str| {
        let of_node = |event: &&Value| {
            event["kind"] == kind
                && event["number"].as_u64() < changed_at
                && event.to_string().contains(number)
                && (kind == "interference_noticed" || step_of(&events, event).is_some_and(|(_, of)| of == node))
        };
        events.iter().filter(of_node).count()
    };
    ensure!(told("interference_noticed", "UPG0525") == 1, "it is told before the runtime is changed: {events:#?}");
    ensure!(told("step_started", "\"attempt\":2") == 2, "cordoned and emptied a second time: {events:#?}");
    ensure!(stubborn.is_empty() && unschedulable == "true", "{node}: {stubborn}, unschedulable {unschedulable}");
    Ok(())
}

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 5, &[])?;
    lab.kubectl(&["cordon", "w4"])?;
    let mut installation = Installation::ready(lab)?;
    pause_and_cancel(lab, &mut installation)?;

    // The plan's pause policy stops the next one after its first batch.
    let id = installation.begin_pools(&["--pause-policy", "after-first-batch"])?;
    let paused = installation.until_state(&id, "paused", BOUND)?;
    ensure!(paused["because"]["reason"] == "pause_policy", "{paused}");
    ensure!(upgraded(lab)? == set(&["w1", "w2"]), "upgraded: {:?}", upgraded(lab)?);

    // The second batch is cut: w4 waits for its agent when the pause comes, so only w3 has started, and is finished.
    lab.exec_text("w4", &["systemctl", "stop", "shiplock-agent"])?;
    until_silent(&mut installation, "w4")?;
    installation.ok(&["continue", &id])?;
    until_step_begins(&mut installation, &id, "drain", "w3")?;
    installation.ok(&["pause", &id])?;
    let paused = installation.until_state(&id, "paused", BOUND)?;
    ensure!(paused["because"]["reason"] == "operator", "{paused}");
    ensure!(upgraded(lab)? == set(&["w1", "w2", "w3"]), "upgraded: {:?}", upgraded(lab)?);
    ensure!(marked(lab)? == ["w4"], "marked: {:?}", marked(lab)?);

    // Its pod takes 30 s to end and has no other place, so a new one waits for this node.
    let to_w5 = "    spec:\n      nodeSelector: { kubernetes.io/hostname: w5 }\n      terminationGracePeriodSeconds";
    lab.apply(&STUBBORN.replace("    spec:\n      terminationGracePeriodSeconds", to_w5))?;
    lab.kubectl(&["rollout", "status", "deployment/stubborn", "--timeout=180s"])?;

    // Continue: the cut batch is finished first, then comes the next size.
    lab.exec_text("w4", &["systemctl", "start", "shiplock-agent"])?;
    installation.ok(&["continue", &id])?;
    until_step_begins(&mut installation, &id, "cordon", "w5")?;
    ensure!(upgraded(lab)? == set(&["w1", "w2", "w3", "w4"]), "w5 comes after the cut batch: {:?}", upgraded(lab)?);
    uncordon_in_mid_drain(lab, &mut installation, &id, "w5")?;
    installation.until_state(&id, "succeeded", BOUND)?;
    let sizes: Vec<_> = batch_sizes(&installation.events(&id)?).into_values().collect();
    ensure!(sizes == [vec![1, 2, 1]], "batches of {sizes:?}");
    ensure!(
        upgraded(lab)?.len() == 5 && marked(lab)? == ["w4"],
        "the operator's cordon stays, ours are gone: {:?}",
        marked(lab)?
    );
    eprintln!("  batches {sizes:?}, the second one cut by a pause; w4 is still cordoned by the operator");
    Ok(())
}
