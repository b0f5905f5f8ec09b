//! Scenario `rehearse`: what a rehearsal says is what then happens.
//!
//! Pool `blue` is rehearsed and upgraded with a budget that blocks and a workload of one pod: the same steps in the same
//! order, the same blockers, the same workloads at zero, a time within the stated range. Its times are measured by that,
//! so for pool `green` the nominal time must be near.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::controls::step_of;
use super::installation::Installation;
use super::pools::{mixed_cluster, workers_are_upgraded};
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(900);
/// How far the nominal time may be off after one measured upgrade, in hundredths.
const OFF_PERCENT_MAX: u64 = 30;

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 4, &[("blue", &["w1", "w2"]), ("green", &["w3", "w4"])])?;
    deploy_on_blue(lab)?;
    let mut installation = Installation::ready(lab)?;

    lab.kubectl(&["patch", "pdb", "web", "-p", r#"{"spec":{"maxUnavailable":0}}"#])?;
    let rehearsed = rehearse(lab, &installation, "blue")?;
    let real = upgrade(lab, &mut installation, "blue")?;
    compare(&rehearsed, &real)?;
    workers_are_upgraded(lab, &["w1", "w2"])?;

    lab.kubectl(&["patch", "pdb", "web", "-p", r#"{"spec":{"maxUnavailable":1}}"#])?;
    let rehearsed = rehearse(lab, &installation, "green")?;
    let real = upgrade(lab, &mut installation, "green")?;
    compare(&rehearsed, &real)?;
    let nominal = number(&rehearsed["total"]["nominal_milliseconds"])?;
    let off = nominal.abs_diff(real.milliseconds) * 100 / real.milliseconds.max(1);
    eprintln!("  after one measured upgrade: nominal {nominal} ms, real {} ms, {off} % off", real.milliseconds);
    ensure!(off <= OFF_PERCENT_MAX, "the nominal time is {off} % off");
    Ok(())
}

/// Both applications begin on pool `blue`, so that its upgrade measures them; the one that takes its whole grace period
/// may be on `w1` and `w3` alone, so that it is on the way again when `green` is upgraded, and not by chance.
fn deploy_on_blue(lab: &Lab) -> Result<()> {
    let green = ["w3", "w4"];
    for node in green {
        lab.kubectl(&["cordon", node])?;
    }
    lab.deploy_web()?;
    lab.deploy_stubborn()?;
    let affinity = json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}, "template": {"spec":
        {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["w1", "w3"]}]}]}}}}}}});
    lab.kubectl(&["patch", "deployment", "stubborn", "-p", &affinity.to_string()])?;
    lab.kubectl(&["rollout", "status", "deployment/stubborn", "--timeout=180s"])?;
    for node in green {
        lab.kubectl(&["uncordon", node])?;
    }
    Ok(())
}

/// The budget that blocks is known and accepted: what is compared is what comes of it.
fn options(pool: &str) -> [&str; 6] {
    ["--max-parallel", "1", "--pool", pool, "--accept", "WL-001"]
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("{value} is no number"))
}

/// What a rehearsal says, with the server's plan and the times that it measured.
fn rehearse(lab: &Lab, installation: &Installation<'_>, pool: &str) -> Result<Value> {
    let kubeconfig = lab.kubeconfig_path();
    let kubeconfig = kubeconfig.to_string_lossy();
    let words = ["rehearse", "--cluster", "lab", "--to", "1.36", "--kubeconfig", &kubeconfig];
    let output = installation.shiplock(&[&words[..], &["--node-pools-only"], &options(pool)].concat())?;
    eprintln!("{}", String::from_utf8_lossy(&output.stdout));
    let output =
        installation.shiplock(&[&words[..], &["--node-pools-only"], &options(pool), &["-o", "json"]].concat())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text)
        .with_context(|| format!("no report: {text}{}", String::from_utf8_lossy(&output.stderr)))?;
    let rehearsal = report["rehearsal"].clone();
    let blocks = rehearsal["blockers"].as_array().is_some_and(|blockers| !blockers.is_empty());
    ensure!(output.status.code() == Some(if blocks { 3 } else { 0 }), "{}: {text}", output.status);
    Ok(rehearsal)
}

/// A step, and from when to when it went, in milliseconds since the work began.
struct Step {
    name: String,
    begin: u64,
    end: u64,
}

/// What really happened.
struct Real {
    steps: Vec<Step>,
    blockers: BTreeSet<String>,
    at_zero: BTreeSet<String>,
    /// From the end of the pre-check, without what waited for a person.
    milliseconds: u64,
}

/// Upgrades a pool. Whatever a budget holds for good is deleted, as its owner would have to.
fn upgrade(lab: &Lab, installation: &mut Installation<'_>, pool: &str) -> Result<Real> {
    let id = installation.begin_pools(&options(pool))?;
    let (mut blockers, mut at_zero) = (BTreeSet::new(), BTreeSet::new());
    let mut blocked = 0;
    installation.until("it ends well", BOUND, |installation| {
        at_zero.extend(without_a_ready_pod(lab)?);
        let upgrade = installation.upgrade(&id)?;
        ensure!(upgrade["state"] != "paused", "{upgrade}");
        for wait in upgrade["waiting_on"].as_array().into_iter().flatten() {
            let held = age(wait)?;
            // A budget that only waits for another pod to be ready opens by itself.
            if wait["waiting_on"] == "pod_disruption_budget" && held > 15_000 {
                blockers.insert(blocker(wait));
                blocked += held;
                let pod = wait["pod"].as_str().context("a pod")?;
                let (namespace, name) = pod.split_once('/').context("namespace/name")?;
                lab.kubectl(&["-n", namespace, "delete", "pod", name, "--wait=false"])?;
                std::thread::sleep(Duration::from_secs(3));
            }
        }
        Ok(upgrade["state"] == "succeeded")
    })?;
    let events = installation.events(&id)?;
    let at = |event: Option<&Value>| -> Result<i64> {
        let at = event.and_then(|event| event["at"].as_str()).context("an event with a time")?;
        Ok(at.parse::<jiff::Timestamp>()?.as_millisecond())
    };
    let began = at(events.iter().find(|event| event["kind"] == "started"))?;
    let since = |event: Option<&Value>| -> Result<u64> { Ok(u64::try_from(at(event)? - began)?) };
    let mut steps = Vec::new();
    for event in events.iter().filter(|event| event["kind"] == "step_started" && event["data"]["attempt"] == 1) {
        let Some((kind, node)) = step_of(&events, event) else { continue };
        let end = events
            .iter()
            .find(|ended| ended["kind"] == "step_succeeded" && ended["data"]["step"] == event["data"]["step"]);
        steps.push(Step { name: format!("{kind} {node}"), begin: since(Some(event))?, end: since(end)? });
    }
    let took = since(events.last())?;
    Ok(Real { steps, blockers, at_zero, milliseconds: took.saturating_sub(blocked) })
}

fn age(wait: &Value) -> Result<u64> {
    let since: jiff::Timestamp = wait["since"].as_str().context("since when")?.parse()?;
    Ok(u64::try_from(jiff::Timestamp::now().as_millisecond() - since.as_millisecond()).unwrap_or(0))
}

fn blocker(wait: &Value) -> String {
    format!("{} {}", wait["budgets"], wait["owner"])
}

/// Deployments without a ready pod.
fn without_a_ready_pod(lab: &Lab) -> Result<Vec<String>> {
    let list: Value = serde_json::from_str(&lab.kubectl(&["get", "deployments", "-A", "-o", "json"])?)?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    let is_at_zero = |item: &&Value| item["status"]["readyReplicas"].as_u64().unwrap_or(0) == 0;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let label = |item: &Value| {
        format!("Deployment {}/{}", text(&item["metadata"]["namespace"]), text(&item["metadata"]["name"]))
    };
    Ok(items.iter().filter(is_at_zero).map(label).collect())
}

fn compare(rehearsed: &Value, real: &Real) -> Result<()> {
    let lines = |name: &str| rehearsed[name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut steps = Vec::new();
    for step in lines("steps") {
        steps.push(Step {
            name: format!("{} {}", text(&step["kind"]), text(&step["node"])),
            begin: number(&step["begin_milliseconds"])?,
            end: number(&step["end_milliseconds"])?,
        });
    }
    eprintln!("  {:<34} {:>9} {:>7}   {:<34} {:>9} {:>7}", "rehearsed", "at ms", "took", "real", "at ms", "took");
    for place in 0..steps.len().max(real.steps.len()) {
        let cells = |step: Option<&Step>| match step {
            Some(Step { name, begin, end }) => format!("{name:<34} {begin:>9} {:>7}", end.saturating_sub(*begin)),
            None => format!("{:<34} {:>9} {:>7}", "-", "", ""),
        };
        eprintln!("  {}   {}", cells(steps.get(place)), cells(real.steps.get(place)));
    }
    let names = |steps: &[Step]| steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>();
    ensure!(names(&steps) == names(&real.steps), "the steps are not the same");
    let blockers: BTreeSet<String> = lines("blockers").iter().map(|held| blocker(&held["waiting_on"])).collect();
    ensure!(blockers == real.blockers, "rehearsed {blockers:?}, really {:?}", real.blockers);
    let at_zero: BTreeSet<String> =
        lines("workloads").iter().filter(|line| line["lowest"] == 0).map(|line| text(&line["workload"])).collect();
    ensure!(at_zero == real.at_zero, "rehearsed {at_zero:?}, really {:?}", real.at_zero);
    let total = &rehearsed["total"];
    let (lower, upper) = (number(&total["lower_milliseconds"])?, number(&total["upper_milliseconds"])?);
    eprintln!(
        "  {} steps in the same order, {} blockers, {} workloads at zero; {} ms in {lower} to {upper} ms",
        steps.len(),
        blockers.len(),
        at_zero.len(),
        real.milliseconds
    );
    ensure!(
        (lower..=upper).contains(&real.milliseconds),
        "{} ms is not within {lower} to {upper} ms",
        real.milliseconds
    );
    Ok(())
}
