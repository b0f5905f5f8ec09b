//! Part of scenario `refusals`: agents that are not whom they claim to be, and attempts that are over. Real agents and
//! real certificates, copied between real nodes.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::installation::{CLUSTER, Installation};
use super::pools::world;
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(60);
const AGENT: &str = "/usr/local/bin/shiplock-agent";

/// Who is enrolled on which machine, as the server tells.
fn enrolled(installation: &Installation<'_>) -> Result<Vec<(String, String)>> {
    let agents = installation.json(&["agent", "list", CLUSTER])?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let agents = agents["agents"].as_array().context("agents are listed")?.iter();
    Ok(agents.map(|agent| (text(&agent["node"]), text(&agent["machine"]["machine_id"]))).collect())
}

/// An agent with another node's certificate, a copied agent, and an agent that enrols for another node.
pub(crate) fn impostors_are_refused(lab: &Lab, installation: &mut Installation<'_>) -> Result<()> {
    let (agents, before) = (enrolled(installation)?, world(lab)?);
    let identity = lab.exec_text("w1", &["cat", "/var/lib/shiplock-agent/identity.json"])?;
    ensure!(identity.contains(r#""node": "w1""#), "the identity names its node");
    let as_w2 = identity.replace(r#""node": "w1""#, r#""node": "w2""#);
    for (name, identity, code) in [("another-node", as_w2, "UPG0402"), ("copied", identity, "UPG0412")] {
        let (folder, unit) = (format!("/root/{name}"), format!("agent-{name}"));
        let file = lab.folder().join(name);
        fs::write(&file, &identity)?;
        lab.exec_text("w2", &["mkdir", "-p", &folder])?;
        lab.copy_into("w2", &file, &format!("{folder}/identity.json"), 0o600)?;
        lab.exec_text("w2", &["systemd-run", "--quiet", "--unit", &unit, AGENT, "run", "--data-dir", &folder])?;
        let mut told = String::new();
        installation.until(&format!("the agent with the identity {name} is refused"), BOUND, |_| {
            told = lab.exec_text("w2", &["journalctl", "-u", &unit, "-o", "cat", "--no-pager"])?;
            Ok(told.contains(code))
        })?;
        lab.exec_text("w2", &["systemctl", "stop", &unit])?;
        let line = told.lines().find(|line| line.contains(code)).unwrap_or_default();
        eprintln!("  {code}  {line}");
    }

    let token = installation.json(&["agent", "join-command", CLUSTER])?;
    let command = token["join_token"]["command"].as_str().context("the join command is printed")?;
    let command = format!("{command} --node w1 --data-dir /root/another-name --no-service 2>&1 || echo refused");
    let told = lab.exec_text("w2", &["sh", "-c", &command])?;
    eprintln!("  {}", told.trim().replace('\n', "\n  "));
    ensure!(told.contains("UPG0412") && told.ends_with("refused\n"), "enrolled for another node: {told}");

    ensure!(enrolled(installation)? == agents, "who is enrolled has changed: {:?}", enrolled(installation)?);
    ensure!(world(lab)? == before, "the cluster has changed");
    Ok(())
}

/// Says, with w1's own certificate, what an earlier attempt on w1 would say now that a later step is in work.
pub(crate) fn old_generations_are_refused(lab: &Lab, installation: &Installation<'_>, upgrade: &str) -> Result<()> {
    let identity: Value =
        serde_json::from_str(&lab.exec_text("w1", &["cat", "/var/lib/shiplock-agent/identity.json"])?)?;
    let folder = "/root/old-attempt";
    lab.exec_text("w1", &["mkdir", "-p", folder])?;
    for part in ["certificate_pem", "key_pem", "ca_pem"] {
        let file = lab.folder().join(part);
        fs::write(&file, identity[part].as_str().context("a PEM")?)?;
        lab.copy_into("w1", &file, &format!("{folder}/{part}"), 0o600)?;
    }
    let ask = |path: &str, body: &Value| -> Result<Value> {
        let url = format!("{}/agent/v1/{path}", identity["server"].as_str().unwrap_or_default());
        let (cert, key, ca) =
            (format!("{folder}/certificate_pem"), format!("{folder}/key_pem"), format!("{folder}/ca_pem"));
        let body = body.to_string();
        let words = ["curl", "-sS", "--cert", &cert, "--key", &key, "--cacert", &ca, "-d", &body, &url];
        let header = ["-H", "content-type: application/json"];
        let answer = lab.exec_text("w1", &[&words[..], &header].concat())?;
        serde_json::from_str(&answer).with_context(|| format!("{path} answers {answer}"))
    };
    let events = installation.events(upgrade)?;
    let started = |event: &&Value| event["kind"] == "step_started";
    let first = events.iter().find(started).context("a step was begun")?;
    let newest = events.iter().rev().find(started).context("a step was begun")?;
    let epochs = events.iter().filter(|event| event["kind"] == "lease_taken");
    let epoch = epochs.filter_map(|event| event["data"]["epoch"].as_u64()).max().context("a lease was taken")?;
    let step = &newest["data"]["step"];
    let of = |epoch: u64, intent: &Value, more: Value| {
        let mut body = json!({
            "upgrade": upgrade, "step": step, "node": "w1", "generation": { "epoch": epoch, "intent": intent },
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        body
    };
    let failed = json!({
        "report": "failed", "retryable": false, "problem": { "code": "UPG0705", "parameters": { "what": "made up" } },
    });
    // The number of an earlier intent; and the one in work, under the epoch of an earlier driver.
    for (what, epoch, intent) in [("intent", epoch, &first["number"]), ("epoch", epoch - 1, &newest["number"])] {
        let permit = ask("permit", &of(epoch, intent, json!({ "phase": "installing" })))?;
        ensure!(permit["permit"] == "refused" && permit["problem"]["code"] == "UPG0409", "older {what}: {permit}");
        eprintln!("  UPG0409  a permit under an older {what}: {}", permit["problem"]["parameters"]["why"]);
    }
    let report = ask("report", &of(epoch, &first["number"], failed))?;
    ensure!(report == "not_wanted", "a report of an older intent: {report}");
    eprintln!("  not wanted  a report that an older attempt failed");
    let after = installation.events(upgrade)?;
    let made_up = |event: &&Value| event["kind"] == "step_failed" && event.to_string().contains("made up");
    ensure!(after.iter().find(made_up).is_none(), "the made-up report is in the log");
    Ok(())
}
