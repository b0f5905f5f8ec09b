//! Scenario `blockers`: what holds up a drain is named with its owner and remedy, and the upgrade goes on by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::installation::Installation;
use super::pools::{mixed_cluster, workers_are_upgraded};
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(600);

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 2, &[])?;
    lab.deploy_web()?;
    lab.deploy_tolerant()?;
    lab.deploy_stubborn()?;
    lab.kubectl(&["patch", "pdb", "web", "-p", r#"{"spec":{"maxUnavailable":0}}"#])?;
    let mut installation = Installation::ready(lab)?;
    let id = installation.begin_pools(&["--max-parallel", "1"])?;
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
    let mut was_stubborn = false;
    lab.kubectl(&["patch", "pdb", "web", "-p", r#"{"spec":{"maxUnavailable":1}}"#])?;
    installation.until("it goes on by itself to its end", BOUND, |installation| {
        if let Some(wait) = waits_for(installation, "pod_termination")? {
            was_stubborn |= wait["pod"].as_str().is_some_and(|pod| pod.starts_with("default/stubborn"));
        }
        let upgrade = installation.upgrade(&id)?;
        ensure!(upgrade["state"] != "paused", "{upgrade}");
        Ok(upgrade["state"] == "succeeded")
    })?;
    ensure!(was_stubborn, "the pod that ignores SIGTERM was named");
    workers_are_upgraded(lab, &["w1", "w2"])?;
    let events = installation.events(&id)?;
    let relanded = |event: &Value| event["data"]["outcome"]["relanded"].as_array().map_or(0, Vec::len);
    let relanded: usize = events.iter().map(relanded).sum();
    eprintln!("  pods that tolerate a cordon and came back to their node: {relanded}");
    let noticed = events.iter().filter(|event| event["kind"] == "waiting_began").count();
    ensure!(noticed >= 2, "the feed tells what was waited for: {noticed}");
    Ok(())
}
