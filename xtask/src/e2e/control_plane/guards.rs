//! Scenario `masters-guards`: a master is never touched while etcd is ill, before the start and in the middle.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{LAB_OPTIONS, components_are_upgraded, old_cluster};
use crate::e2e::controls::step_of;
use crate::e2e::installation::{CLUSTER, Installation};
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(600);
const MASTERS: &[&str] = &["m1", "m2", "m3"];
const ETCD: &str = "https://127.0.0.1:2379";

fn stop_etcd(lab: &Lab, node: &str) -> Result<()> {
    lab.exec_text(node, &["mv", "/etc/kubernetes/manifests/etcd.yaml", "/root/etcd.yaml"])?;
    until_etcd(lab, node, false)
}

fn start_etcd(lab: &Lab, node: &str) -> Result<()> {
    lab.exec_text(node, &["mv", "/root/etcd.yaml", "/etc/kubernetes/manifests/etcd.yaml"])?;
    until_etcd(lab, node, true)
}

fn until_etcd(lab: &Lab, node: &str, up: bool) -> Result<()> {
    for _ in 0..600 {
        let health = lab.exec(node, &["curl", "-sf", "--max-time", "1", "http://127.0.0.1:2381/health"])?;
        if health.status.success() == up {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    anyhow::bail!("etcd of {node} does not {}", if up { "start" } else { "end" })
}

/// Asks etcd on a master by its JSON gateway.
fn ask_etcd(lab: &Lab, node: &str, path: &str, body: &str) -> Result<Value> {
    let pki = "/etc/kubernetes/pki/etcd";
    let script = format!(
        "curl -sf --max-time 5 --cacert {pki}/ca.crt --cert {pki}/healthcheck-client.crt \
         --key {pki}/healthcheck-client.key {ETCD}{path} -d '{body}'"
    );
    serde_json::from_str(&lab.exec_text(node, &["sh", "-c", &script])?).with_context(|| path.to_owned())
}

/// What runs on the masters: containers of the control plane by id.
fn running(lab: &Lab) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for master in MASTERS {
        let version = lab.kubectl(&["get", "node", master, "-o", "jsonpath={.status.nodeInfo.kubeletVersion}"])?;
        let files = lab.exec_text(
            master,
            &["sh", "-c", "sha256sum /etc/kubernetes/manifests/* /root/etcd.yaml 2>/dev/null || true"],
        )?;
        found.push(format!("{master} {version} {files}"));
    }
    Ok(found)
}

/// Waits until the agents of all masters tell of their control plane that it is as wanted, as far as they can read it.
fn until_agents_see(installation: &mut Installation<'_>, what: &str, is_so: fn(&Value) -> bool) -> Result<()> {
    installation.until(&format!("the agents see {what}"), BOUND, |installation| {
        let agents = installation.json(&["agent", "list", CLUSTER])?;
        let mut found = agents["agents"].as_array().into_iter().flatten();
        Ok(found.all(|agent| is_so(&agent["machine"]["control_plane"])))
    })
}

/// etcd is whole, and the API server beside it answers.
fn is_well(control_plane: &Value) -> bool {
    let cluster = &control_plane["etcd"]["cluster"];
    let answers = !control_plane["configured_version"]["known"].is_null();
    let members = cluster["known"]["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    answers
        && members.len() == MASTERS.len()
        && members.iter().all(|member| !member["healthy_version"].is_null() && member["is_learner"] == false)
        && cluster["known"]["alarms"].as_array().is_none_or(Vec::is_empty)
}

fn is_ill(control_plane: &Value) -> bool {
    !is_well(control_plane)
}

/// An upgrade does not start, says why, and nothing is changed.
fn is_refused(installation: &mut Installation<'_>, what: &str, words: &[&str]) -> Result<()> {
    until_agents_see(installation, what, is_ill)?;
    let before = running(installation.lab)?;
    let output = installation
        .shiplock(&[&["upgrade", CLUSTER, "--to", "1.36", "--yes", "--progress", "none"], LAB_OPTIONS].concat())?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("  {what}:\n{text}");
    for word in words {
        ensure!(text.contains(word), "{what}: {word} is not named: {text}");
    }
    ensure!(running(installation.lab)? == before, "{what}: something was changed");
    // What no agent can read cannot even be planned with.
    if text.contains("UPG0115") {
        return Ok(());
    }
    ensure!(output.status.code() == Some(3) && text.contains("CP-004"), "{what}: not blocked: {text}");
    let active = installation.json(&["upgrades", "list", "--active"])?;
    let id = active["upgrades"][0]["id"].as_str().context("the blocked upgrade is listed")?.to_owned();
    installation.ok(&["cancel", &id, "--yes"])?;
    installation.until_state(&id, "cancelled", BOUND).map(drop)
}

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    old_cluster(lab, 3, 0)?;
    let mut installation = Installation::ready(lab)?;

    stop_etcd(lab, "m3")?;
    is_refused(&mut installation, "a member that is down", &["m3"])?;
    start_etcd(lab, "m3")?;
    until_agents_see(&mut installation, "etcd well again", is_well)?;

    let learner = ask_etcd(
        lab,
        "m1",
        "/v3/cluster/member/add",
        r#"{"peerURLs":["https://10.255.255.254:2380"],"isLearner":true}"#,
    )?;
    is_refused(&mut installation, "a learner", &["learner"])?;
    let id = learner["member"]["ID"].as_str().context("the learner has an id")?;
    ask_etcd(lab, "m1", "/v3/cluster/member/remove", &format!(r#"{{"ID":"{id}"}}"#))?;
    until_agents_see(&mut installation, "etcd well again", is_well)?;

    let status = ask_etcd(lab, "m1", "/v3/maintenance/status", "{}")?;
    let member = status["header"]["member_id"].as_str().context("m1 has an id")?;
    let alarm = |action: &str| {
        let body = format!(r#"{{"action":"{action}","memberID":"{member}","alarm":"NOSPACE"}}"#);
        ask_etcd(lab, "m1", "/v3/maintenance/alarm", &body).map(drop)
    };
    alarm("ACTIVATE")?;
    // etcd takes nothing, not even the claim of an upgrade: it stands before its first check, and says so.
    let before = running(lab)?;
    let id = installation.begin(LAB_OPTIONS)?;
    installation.until("it says that etcd is full", BOUND, |installation| {
        let shown = installation.ok(&["upgrades", "show", &id])?;
        let named = shown.contains("space exceeded") || shown.contains("NOSPACE");
        if named {
            eprintln!("{shown}");
        }
        Ok(named)
    })?;
    ensure!(running(lab)? == before, "something was changed under an alarm");
    installation.ok(&["cancel", &id, "--yes"])?;
    alarm("DEACTIVATE")?;
    installation.until_state(&id, "cancelled", BOUND)?;

    // Two of three are ill: the API does not answer, and nobody makes it worse.
    stop_etcd(lab, "m2")?;
    stop_etcd(lab, "m3")?;
    let output = installation.shiplock(&["plan", CLUSTER, "--to", "1.36"])?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    eprintln!("  two members of three that are down:\n{text}");
    ensure!(!output.status.success() && text.contains("UPG0"), "it was planned: {text}");
    for node in ["m2", "m3"] {
        lab.exec_text(node, &["mv", "/root/etcd.yaml", "/etc/kubernetes/manifests/etcd.yaml"])?;
    }
    for node in MASTERS {
        until_etcd(lab, node, true)?;
        lab.wait_ready(node, BOUND)?;
    }

    // In the middle: the first master is done, and then the member of another falls ill.
    until_agents_see(&mut installation, "etcd well again", is_well)?;
    let id = installation.begin(LAB_OPTIONS)?;
    let swapped = |events: &[Value], node: &str, kind: &str| {
        events.iter().any(|event| {
            event["kind"] == kind
                && step_of(events, event)
                    .is_some_and(|step| step == ("upgrade_control_plane".to_owned(), node.to_owned()))
        })
    };
    installation.until("m2 is swapped", BOUND, |installation| {
        // What is still coming back after the outage stops the start by name, as it should; a person looks again.
        if installation.upgrade(&id)?["state"] == "blocked" {
            eprintln!("{}", installation.ok(&["upgrades", "show", &id])?);
            installation.ok(&["continue", &id])?;
        }
        Ok(swapped(&installation.events(&id)?, "m2", "step_succeeded"))
    })?;
    stop_etcd(lab, "m1")?;
    let mut shown = String::new();
    installation.until("it says that etcd is not well", BOUND, |installation| {
        shown = installation.ok(&["upgrades", "show", &id])?;
        // Said by the server, or by the agent that looks again right before the act, or by the reading back of m2.
        let held = ["may not be touched", "etcd member m1 on node m2 reports no good answer"];
        Ok(held.iter().any(|said| shown.contains(said)) && shown.contains("m1"))
    })?;
    eprintln!("{shown}");
    ensure!(!swapped(&installation.events(&id)?, "m3", "step_succeeded"), "m3 was swapped with a member down");
    start_etcd(lab, "m1")?;
    let state = installation.upgrade(&id)?["state"].clone();
    if state == "paused" {
        installation.ok(&["continue", &id])?;
    }
    installation.until_state(&id, "succeeded", BOUND)?;
    components_are_upgraded(lab, MASTERS)
}
