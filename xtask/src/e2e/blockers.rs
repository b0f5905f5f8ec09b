//! Scenario `blockers`: what holds up a drain is named with its owner and remedy, and the upgrade goes on by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::installation::Installation;
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

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 2, &[])?;
    lab.deploy_web()?;
    lab.deploy_tolerant()?;
    pin_tolerant(lab, "w1")?;
    lab.deploy_stubborn()?;
    lab.kubectl(&["patch", "pdb", "web", "-p", r#"{"spec":{"maxUnavailable":0}}"#])?;
    let mut installation = Installation::ready(lab)?;
    let id = installation.begin_pools(&["--max-parallel", "1"])?;
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
