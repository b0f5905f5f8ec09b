//! Scenario `blockers`: what holds up a drain is named with its owner and remedy, and the upgrade goes on by itself.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::installation::{CLUSTER, Installation};
use super::pools::{mixed_cluster, workers_are_upgraded};
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(600);

/// Gives every pod of the tolerant Deployment the node that it starts on: it comes back as often as it is evicted.
fn pin_tolerant(lab: &Lab, node: &str) -> Result<()> {
    let patch =
        format!(r#"{{"spec":{{"template":{{"spec":{{"nodeSelector":{{"kubernetes.io/hostname":"{node}"}}}}}}}}}}"#);
    lab.kubectl(&["patch", "deployment", "tolerant", "-p", &patch])?;
    lab.kubectl(&["rollout", "status", "deployment/tolerant", "--timeout=180s"]).map(drop)
}

/// What would hold the drain stops the start already, by name; a word that names no check lets nothing pass.
fn held_by_name(installation: &mut Installation<'_>) -> Result<()> {
    let id = installation.begin_pools(&["--max-parallel", "1"])?;
    let mut held = Value::Null;
    installation.until("the start is held", BOUND, |installation| {
        held = installation.upgrade(&id)?;
        Ok(held["state"] == "blocked")
    })?;
    let findings = held["findings"].as_array().context("findings")?;
    let checks: Vec<&str> = findings.iter().filter_map(|finding| finding["check"].as_str()).collect();
    // One pod is bound to its node by name, and so finds no other.
    ensure!(checks == ["CAP-003", "WL-001"], "{findings:#?}");
    let shown = installation.ok(&["upgrades", "show", &id])?;
    ensure!(shown.contains("WL-001") && shown.contains("shiplock acceptances add"), "{shown}");
    installation.ok(&["cancel", &id, "--yes"])?;
    let wrong = installation.shiplock(&["upgrade", CLUSTER, "--to", "1.36", "--yes", "--accept", "WL001"])?;
    let text = String::from_utf8_lossy(&wrong.stderr);
    ensure!(!wrong.status.success() && text.contains("did you mean WL-001?"), "{text}");
    eprintln!("  the start was held by WL-001; `--accept WL001` was refused and WL-001 offered");
    Ok(())
}

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 2, &[])?;
    lab.deploy_web()?;
    lab.deploy_tolerant()?;
    pin_tolerant(lab, "w1")?;
    lab.deploy_stubborn()?;
    lab.kubectl(&["patch", "pdb", "web", "-p", r#"{"spec":{"maxUnavailable":0}}"#])?;
    let mut installation = Installation::ready(lab)?;
    held_by_name(&mut installation)?;
    let id = installation.begin_pools(&["--max-parallel", "1", "--accept", "WL-001", "--accept", "CAP-003"])?;
    // What a person sees who watches from the begin to the end.
    let watched = installation.watch_in_text(&id)?;
    let waits_for = |installation: &Installation<'_>, what: &str| -> Result<Option<Value>> {
        let upgrade = installation.upgrade(&id)?;
        Ok(upgrade["waiting_on"].as_array().into_iter().flatten().find(|wait| wait["waiting_on"] == what).cloned())
    };
    let mut budget = Value::Null;
    installation.until("the budget is named", BOUND, |installation| {
        budget = waits_for(installation, "pod_disruption_budget")?.unwrap_or_default();
        Ok(!budget.is_null())
    })?;
    ensure!(budget["budgets"][0] == "default/web" && budget["owner"] == "Deployment web", "{budget}");
    let shown = installation.ok(&["upgrades", "show", &id])?;
    eprintln!("{shown}");
    for word in ["default/web", "Deployment web", "kubectl -n default edit pdb web"] {
        ensure!(shown.contains(word), "`{word}` is shown");
    }
    installation.until("the feed has told of the budget", BOUND, |installation| {
        let told = |event: &Value| {
            event["kind"] == "waiting_began" && event["data"]["on"]["waiting_on"] == "pod_disruption_budget"
        };
        Ok(installation.events(&id)?.iter().any(told))
    })?;
    lab.kubectl(&["patch", "pdb", "web", "-p", r#"{"spec":{"maxUnavailable":1}}"#])?;
    installation.until("it goes on by itself to its end", BOUND, |installation| {
        let upgrade = installation.upgrade(&id)?;
        ensure!(upgrade["state"] != "paused", "{upgrade}");
        Ok(upgrade["state"] == "succeeded")
    })?;
    workers_are_upgraded(lab, &["w1", "w2"])?;
    let watched = watched.ended()?;
    eprintln!("{watched}");
    let line_with = |words: &[&str]| {
        let found = watched.lines().any(|line| words.iter().all(|word| line.contains(word)));
        ensure!(found, "no line that was watched has {words:?}");
        anyhow::Ok(())
    };
    line_with(&[
        "default/web-",
        "Deployment web",
        "PodDisruptionBudget default/web",
        "kubectl -n default edit pdb web",
    ])?;
    line_with(&[
        "default/stubborn-",
        "Deployment stubborn",
        "grace period 30 s",
        "kubectl -n default delete pod stubborn-",
    ])?;
    line_with(&["default/tolerant-", "Deployment tolerant", "came back"])
}
