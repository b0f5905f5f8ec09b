//! Scenario `controls`: pause in the middle of a batch and continue; pause and cancel; a cordon of the operator stays.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::installation::Installation;
use super::pools::{KUBELET, batch_sizes, marked, mixed_cluster, versions};
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(600);

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
        Ok(events.iter().any(begun))
    })
}

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 5, &[])?;
    lab.kubectl(&["cordon", "w4"])?;
    let mut installation = Installation::ready(lab)?;

    // The plan's pause policy stops it after the first batch; cancel leaves everything else as it is.
    let id = installation.begin_pools(&["--pause-policy", "after-first-batch"])?;
    let paused = installation.until_state(&id, "paused", BOUND)?;
    ensure!(paused["because"]["reason"] == "pause_policy", "{paused}");
    eprintln!("{}", installation.ok(&["cancel", &id, "--yes"])?);
    installation.until_state(&id, "cancelled", BOUND)?;
    ensure!(upgraded(lab)? == set(&["w1"]), "upgraded: {:?}", upgraded(lab)?);
    ensure!(marked(lab)? == ["w4"], "marked: {:?}", marked(lab)?);

    // A pause in the middle of the second batch: its nodes finish, nothing new starts.
    let id = installation.begin_pools(&[])?;
    until_step_begins(&mut installation, &id, "drain", "w3")?;
    installation.ok(&["pause", &id])?;
    let paused = installation.until_state(&id, "paused", BOUND)?;
    ensure!(paused["because"]["reason"] == "operator", "{paused}");
    let after_pause = upgraded(lab)?;
    ensure!(after_pause == set(&["w1", "w2", "w3", "w4"]), "upgraded: {after_pause:?}");
    ensure!(marked(lab)? == ["w4"], "marked: {:?}", marked(lab)?);
    ensure!(
        installation.refused(&["pause", &id], "UPG0305").is_ok() || installation.upgrade(&id)?["state"] == "paused",
        "still paused"
    );
    let len = paused["len"].clone();
    installation.ok(&["continue", &id])?;
    installation.until_state(&id, "succeeded", BOUND)?;
    let sizes: Vec<_> = batch_sizes(&installation.events(&id)?).into_values().collect();
    ensure!(sizes == [vec![1, 2, 1]], "batches of {sizes:?}");
    ensure!(
        upgraded(lab)?.len() == 5 && marked(lab)? == ["w4"],
        "the operator's cordon stays, ours are gone: {:?}",
        marked(lab)?
    );
    eprintln!("  paused at event {len}; batches {sizes:?}; w4 is still cordoned by the operator");
    Ok(())
}
