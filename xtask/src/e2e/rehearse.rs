//! Scenarios `rehearse` and `rehearse-whole`: what a rehearsal says is what then happens.
//!
//! Of a whole cluster with one master: the same stages, and in each the same steps in the same order, from the baseline over
//! backup, masters, configuration and add-ons to the verification.
//!
//! Pool `blue` is rehearsed and upgraded with a budget that blocks and a workload of one pod: the same steps in the same
//! order, the same blockers, the same workloads at zero, a time within the stated range. Its times are measured by that,
//! so for pool `green` the nominal time must be near.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::control_plane::{old_cluster, only_master};
use super::controls::step_of;
use super::installation::Installation;
use super::pools::{mixed_cluster, workers_are_upgraded};
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(900);
/// How far the nominal time may be off after one measured upgrade, in hundredths.
const OFF_PERCENT_MAX: u64 = 30;

/// Everything of a cluster with one master.
pub(crate) fn whole(lab: &Lab) -> Result<()> {
    old_cluster(lab, 1, 2)?;
    lab.deploy_web()?;
    let mut installation = Installation::ready(lab)?;
    // One worker after another: of two at once the steps begin as fast as each machine is.
    let options = [only_master().as_slice(), &["--max-parallel", "1"]].concat();
    let rehearsed = rehearse(lab, &installation, &options)?;
    let real = upgrade(lab, &mut installation, &options)?;
    compare(&rehearsed, &real)?;
    workers_are_upgraded(lab, &["m1", "w1", "w2"])
}

/// A pool with a budget that blocks, then another with the times of the first.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 4, &[("blue", &["w1", "w2"]), ("green", &["w3", "w4"])])?;
    deploy_on_blue(lab)?;
    let mut installation = Installation::ready(lab)?;

    lab.kubectl(&["patch", "pdb", "web", "-p", r#"{"spec":{"maxUnavailable":0}}"#])?;
    let rehearsed = rehearse(lab, &installation, &options("blue"))?;
    let real = upgrade(lab, &mut installation, &options("blue"))?;
    compare(&rehearsed, &real)?;
    workers_are_upgraded(lab, &["w1", "w2"])?;

    lab.kubectl(&["patch", "pdb", "web", "-p", r#"{"spec":{"maxUnavailable":1}}"#])?;
    let rehearsed = rehearse(lab, &installation, &options("green"))?;
    let real = upgrade(lab, &mut installation, &options("green"))?;
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
fn options(pool: &str) -> [&str; 7] {
    ["--node-pools-only", "--max-parallel", "1", "--pool", pool, "--accept", "WL-001"]
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("{value} is no number"))
}

/// What a rehearsal says, with the server's plan and the times that it measured.
fn rehearse(lab: &Lab, installation: &Installation<'_>, options: &[&str]) -> Result<Value> {
    let kubeconfig = lab.kubeconfig_path();
    let kubeconfig = kubeconfig.to_string_lossy();
    let words = ["rehearse", "--cluster", "lab", "--to", "1.36", "--kubeconfig", &kubeconfig];
    let output = installation.shiplock(&[&words[..], options].concat())?;
    eprintln!("{}", String::from_utf8_lossy(&output.stdout));
    let output = installation.shiplock(&[&words[..], options, &["-o", "json"]].concat())?;
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
    /// Its stage, its kind and its node.
    name: String,
    begin: u64,
    end: u64,
}

/// What really happened.
struct Real {
    /// The stages in the order in which they began.
    stages: Vec<String>,
    steps: Vec<Step>,
    blockers: BTreeSet<String>,
    at_zero: BTreeSet<String>,
    /// From the end of the pre-check, without what waited for a person.
    milliseconds: u64,
}

/// Upgrades. A budget that holds for good is loosened, as its remedy says.
fn upgrade(lab: &Lab, installation: &mut Installation<'_>, options: &[&str]) -> Result<Real> {
    let id = installation.begin(options)?;
    let (mut blockers, mut at_zero) = (BTreeSet::new(), BTreeSet::new());
    let mut blocked = 0;
    installation.until("it ends well", BOUND, |installation| {
        // The API of the only master is away for a while.
        at_zero.extend(without_a_ready_pod(lab).unwrap_or_default());
        let upgrade = installation.upgrade(&id)?;
        ensure!(upgrade["state"] != "paused", "{upgrade}");
        for wait in upgrade["waiting_on"].as_array().into_iter().flatten() {
            let held = age(wait)?;
            // A budget that only waits for another pod to be ready opens by itself.
            if wait["waiting_on"] == "pod_disruption_budget" && held > 15_000 {
                blockers.insert(blocker(wait));
                blocked += held;
                let budget = wait["budgets"][0].as_str().context("a budget")?;
                let (namespace, name) = budget.split_once('/').context("namespace/name")?;
                lab.kubectl(&["-n", namespace, "patch", "pdb", name, "-p", r#"{"spec":{"maxUnavailable":1}}"#])?;
                std::thread::sleep(Duration::from_secs(3));
            }
        }
        Ok(upgrade["state"] == "succeeded")
    })?;
    let events = installation.events(&id)?;
    let (stages, steps, took) = told(&events)?;
    Ok(Real { stages, steps, blockers, at_zero, milliseconds: took.saturating_sub(blocked) })
}

/// A stage of a plan or of a rehearsal: its word, and its pool where it is of one.
fn stage_label(stage: &Value) -> String {
    let word = stage["stage"].as_str().unwrap_or_default();
    stage["pool"].as_str().map_or_else(|| word.to_owned(), |pool| format!("{word} {pool}"))
}

/// What the events of an upgrade tell: its stages and its steps in the order in which they began, and how long all took.
fn told(events: &[Value]) -> Result<(Vec<String>, Vec<Step>, u64)> {
    let at = |event: Option<&Value>| -> Result<i64> {
        let at = event.and_then(|event| event["at"].as_str()).context("an event with a time")?;
        Ok(at.parse::<jiff::Timestamp>()?.as_millisecond())
    };
    let began = at(events.iter().find(|event| event["kind"] == "started"))?;
    let since = |event: Option<&Value>| -> Result<u64> { Ok(u64::try_from(at(event)? - began)?) };
    let plan = &events.first().context("the first event")?["data"]["plan"]["stages"];
    let (mut stages, mut steps) = (Vec::new(), Vec::new());
    for event in events {
        if event["kind"] == "stage_started" {
            stages.push(stage_label(&plan[usize::try_from(number(&event["data"]["stage"])?)?]));
        }
        if event["kind"] != "step_started" || event["data"]["attempt"] != 1 {
            continue;
        }
        let Some((kind, node)) = step_of(events, event) else { continue };
        let end = events
            .iter()
            .find(|ended| ended["kind"] == "step_succeeded" && ended["data"]["step"] == event["data"]["step"]);
        // One stage is in work at a time.
        let stage = stages.last().cloned().unwrap_or_default();
        steps.push(Step { name: format!("{stage}: {kind} {node}"), begin: since(Some(event))?, end: since(end)? });
    }
    Ok((stages, steps, since(events.last())?))
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
            name: format!("{}: {} {}", stage_label(&step), text(&step["kind"]), text(&step["node"])),
            begin: number(&step["begin_milliseconds"])?,
            end: number(&step["end_milliseconds"])?,
        });
    }
    eprintln!("  {:<48} {:>9} {:>7}   {:<48} {:>9} {:>7}", "rehearsed", "at ms", "took", "real", "at ms", "took");
    for place in 0..steps.len().max(real.steps.len()) {
        let cells = |step: Option<&Step>| match step {
            Some(Step { name, begin, end }) => format!("{name:<48} {begin:>9} {:>7}", end.saturating_sub(*begin)),
            None => format!("{:<48} {:>9} {:>7}", "-", "", ""),
        };
        eprintln!("  {}   {}", cells(steps.get(place)), cells(real.steps.get(place)));
    }
    let stages: Vec<String> = lines("stages").iter().map(stage_label).collect();
    ensure!(stages == real.stages, "rehearsed {stages:?}, really {:?}", real.stages);
    let names = |steps: &[Step]| steps.iter().map(|step| step.name.clone()).collect::<Vec<_>>();
    ensure!(names(&steps) == names(&real.steps), "the steps are not the same");
    let blockers: BTreeSet<String> = lines("blockers").iter().map(|held| blocker(&held["waiting_on"])).collect();
    ensure!(blockers == real.blockers, "rehearsed {blockers:?}, really {:?}", real.blockers);
    // Where CoreDNS goes is a matter of the scheduler's preferences, which a rehearsal does not know.
    let is_ours = |workload: &&String| !workload.contains(" kube-system/");
    let rehearsed_at_zero: Vec<String> =
        lines("workloads").iter().filter(|line| line["lowest"] == 0).map(|line| text(&line["workload"])).collect();
    let at_zero: BTreeSet<&String> = rehearsed_at_zero.iter().filter(is_ours).collect();
    let really: BTreeSet<&String> = real.at_zero.iter().filter(is_ours).collect();
    ensure!(at_zero == really, "rehearsed {at_zero:?}, really {really:?}");
    let total = &rehearsed["total"];
    let (lower, upper) = (number(&total["lower_milliseconds"])?, number(&total["upper_milliseconds"])?);
    eprintln!(
        "  {} stages and {} steps in the same order, {} blockers, {} workloads at zero; {} ms in {lower} to {upper} ms",
        stages.len(),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of an upgrade as `shiplock upgrades show --events -o json` prints them, with what is read of each.
    fn events() -> Vec<Value> {
        let node_step = |number: u32, kind: &str, name: &str| json!({"number": number, "action": {"kind": kind}, "target": {"kind": "node", "name": name}});
        let stages = json!([
            {"stage": "preparation", "steps": [
                {"number": 1, "action": {"kind": "capture_baseline"}, "target": {"kind": "cluster"}},
                node_step(2, "prefetch", "m1")], "nodes": []},
            {"stage": "node_pool", "pool": "blue", "steps": [],
                "nodes": [{"node": "w1", "steps": [node_step(3, "cordon", "w1")]}]},
        ]);
        let event = |second: u32, kind: &str, data: Value| json!({"at": format!("2026-11-27T08:00:{second:02}Z"), "kind": kind, "data": data});
        let step = |second, kind: &str, number: u32| event(second, kind, json!({"step": number, "attempt": 1}));
        vec![
            event(0, "planned", json!({"plan": {"stages": stages}})),
            event(10, "started", json!({})),
            event(10, "stage_started", json!({"stage": 0})),
            step(10, "step_started", 1),
            step(10, "step_started", 2),
            step(11, "step_succeeded", 1),
            step(12, "step_failed", 2),
            event(13, "step_started", json!({"step": 2, "attempt": 2})),
            step(14, "step_succeeded", 2),
            event(14, "stage_finished", json!({"stage": 0})),
            event(15, "stage_started", json!({"stage": 1})),
            step(15, "step_started", 3),
            step(16, "step_succeeded", 3),
            event(17, "succeeded", json!({})),
        ]
    }

    /// The same as a rehearsal tells it.
    fn rehearsed(last: &str) -> Value {
        json!({
            "stages": [{"stage": "preparation", "pool": null}, {"stage": "node_pool", "pool": "blue"}],
            "steps": [
                {"stage": "preparation", "pool": null, "kind": "capture_baseline", "node": null,
                    "begin_milliseconds": 0, "end_milliseconds": 1_000},
                {"stage": "preparation", "pool": null, "kind": "prefetch", "node": "m1",
                    "begin_milliseconds": 0, "end_milliseconds": 2_000},
                {"stage": "node_pool", "pool": "blue", "kind": last, "node": "w1",
                    "begin_milliseconds": 2_000, "end_milliseconds": 3_000},
            ],
            "blockers": [], "workloads": [], "total": {"lower_milliseconds": 3_000, "upper_milliseconds": 9_000},
        })
    }

    #[test]
    fn stages_and_steps_of_a_log_are_compared_in_whole_and_in_order() {
        let (stages, steps, milliseconds) = told(&events()).unwrap();
        assert_eq!((stages.len(), steps.len(), milliseconds), (2, 3, 7_000));
        assert_eq!((steps[1].begin, steps[1].end), (0, 4_000), "from the first attempt to the end");
        let real = Real { stages, steps, blockers: BTreeSet::new(), at_zero: BTreeSet::new(), milliseconds };
        compare(&rehearsed("cordon"), &real).unwrap();
        let differs = compare(&rehearsed("drain"), &real).unwrap_err();
        assert!(differs.to_string().contains("not the same"), "{differs}");
        let mut other = rehearsed("cordon");
        other["stages"].as_array_mut().unwrap().pop();
        assert!(compare(&other, &real).unwrap_err().to_string().contains("really"));
    }
}
