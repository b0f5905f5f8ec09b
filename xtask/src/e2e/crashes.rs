//! Scenarios `crashes` and `agent-lost`: kill -9 of the server in every phase of a node, of an agent in the middle of a
//! step, a power cut of the node; and an agent that stays down.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::controls::{step_of, until_step_begins};
use super::installation::Installation;
use super::pools::{marked, mixed_cluster, versions, workers_are_upgraded};
use crate::lab::{Lab, Stop};

const BOUND: Duration = Duration::from_secs(600);

/// How often systemd has started a unit on a node since it booted, from its journal.
pub(crate) fn starts(lab: &Lab, node: &str, unit: &str) -> Result<usize> {
    let pattern = format!("journalctl -u {unit} -o cat --no-pager | grep -c '^Started {unit}'");
    lab.exec_text(node, &["sh", "-c", &format!("{pattern} || true")])?.trim().parse().context("a count")
}

/// How often a service was started in one boot, from its journal, without those that systemd did by itself because it
/// had ended: a kubelet that boots beside its runtime may come too early for it.
fn starts_in_boot(journal: &str, unit: &str) -> usize {
    let started = journal.lines().filter(|line| line.starts_with(&format!("Started {unit}"))).count();
    let by_itself = journal.lines().filter(|line| line.contains(&format!("{unit}.service: Scheduled restart job")));
    started.saturating_sub(by_itself.count())
}

/// Evictions that the API server accepted, from its metrics.
fn evictions(lab: &Lab) -> Result<u64> {
    let metrics = lab.kubectl(&["get", "--raw", "/metrics"])?;
    let is_accepted = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && line.contains("subresource=\"eviction\"")
            && line.contains("code=\"201\"")
    };
    let count = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    Ok(metrics.lines().filter(is_accepted).map(count).sum::<f64>() as u64)
}

/// A watch on all pods from outside, for as long as it lives: every pod that a drain may evict is noted.
struct PodWatch {
    child: Child,
    path: PathBuf,
}

impl PodWatch {
    fn start(lab: &Lab) -> Result<Self> {
        let path = lab.folder().join("pods");
        let columns = "custom-columns=U:.metadata.uid,N:.spec.nodeName,O:.metadata.ownerReferences[0].kind";
        let words = ["get", "pods", "-A", "--watch", "--no-headers", "-o", columns];
        let kubectl = lab.kubectl_command(&words)?;
        let noted = File::create(&path)?;
        // A watch that ends is begun again, with a list of all that there is, for as long as the lab has its folder.
        let mut command = Command::new("sh");
        command.args(["-c", "while [ -e \"$0\" ]; do \"$@\"; sleep 0.2; done"]).arg(&path);
        command.arg(kubectl.get_program()).args(kubectl.get_args()).process_group(0).stdout(noted);
        for (name, value) in kubectl.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command.spawn().context("kubectl")?;
        Ok(Self { child, path })
    }

    /// The UIDs of the pods on workers that something controls and that a drain evicts, as far as they were ever seen.
    fn evictable(&self) -> Result<BTreeSet<String>> {
        Ok(evictable(&fs::read_to_string(&self.path)?))
    }
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

fn evictable(listed: &str) -> BTreeSet<String> {
    let uid = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [uid, node, owner] = words.as_slice() else { return None };
        (node.starts_with('w') && !["DaemonSet", "Node"].contains(owner)).then(|| (*uid).to_owned())
    };
    listed.lines().filter_map(uid).collect()
}

/// The transient units of steps that systemd has started on a node in this boot, in order.
fn step_units(lab: &Lab, node: &str) -> Result<Vec<String>> {
    let text =
        lab.exec_text(node, &["journalctl", "--boot", "-o", "cat", "--no-pager", "SYSLOG_IDENTIFIER=systemd"])?;
    let unit = |line: &str| {
        let name = line.strip_prefix("Started shiplock-")?.split_whitespace().next()?.trim_end_matches('.');
        (!name.starts_with("agent.service")).then(|| name.to_owned())
    };
    Ok(text.lines().filter_map(unit).collect())
}

/// Has the agent of a node killed in the middle of its kubelet step: right when the new kubelet lies in its place.
fn kill_agent_in_kubelet_step(lab: &Lab, node: &str) -> Result<()> {
    let script = "old=$(stat -c %i /usr/bin/kubelet); \
        while [ \"$(stat -c %i /usr/bin/kubelet)\" = \"$old\" ]; do sleep 0.01; done; \
        systemctl kill -s KILL shiplock-agent; echo killed";
    lab.exec_text(node, &["systemd-run", "--quiet", "--unit=kill-agent", "sh", "-c", script]).map(drop)
}

/// Kills the server once for each intent and each outcome on a node that the log shows, one after the other, until the
/// node is done. Hands back around which steps.
pub(crate) fn kill_server_around(
    installation: &mut Installation<'_>,
    id: &str,
    node: &str,
    bound: Duration,
) -> Result<Vec<String>> {
    let mut seen = 0;
    let mut kills = Vec::new();
    installation.until(
        &format!("{node} is done under a server that is killed at every step"),
        bound,
        |installation| {
            let events = installation.events_going_on(id)?;
            let of_node = |event: &&Value| step_of(&events, event).is_some_and(|(_, found)| found == node);
            let news = events.iter().filter(of_node).find(|event| event["number"].as_u64().unwrap_or(0) > seen);
            let Some(event) = news else { return Ok(false) };
            seen = event["number"].as_u64().unwrap_or(0);
            let kind = step_of(&events, event).map(|(kind, _)| kind).unwrap_or_default();
            kills.push(format!("{kind} {}", event["kind"].as_str().unwrap_or_default()));
            let done = kind == "uncordon" && event["kind"] == "step_succeeded";
            installation.kill_server()?;
            installation.start_server()?;
            Ok(done)
        },
    )?;
    eprintln!("  the server was killed {} times: {}", kills.len(), kills.join(", "));
    Ok(kills)
}

/// Scenario `crashes`.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 3, &[])?;
    lab.deploy_web()?;
    let mut installation = Installation::ready(lab)?;
    let kubelet_before: Vec<usize> =
        ["w1", "w2"].iter().map(|node| starts(lab, node, "kubelet")).collect::<Result<_>>()?;
    let runtime_before: Vec<usize> =
        ["w1", "w2"].iter().map(|node| starts(lab, node, "containerd")).collect::<Result<_>>()?;
    let pods = PodWatch::start(lab)?;
    kill_agent_in_kubelet_step(lab, "w2")?;
    let id = installation.begin_pools(&["--max-parallel", "1"])?;

    let kills = kill_server_around(&mut installation, &id, "w1", BOUND)?;
    for phase in
        ["prefetch", "cordon", "drain", "upgrade_container_runtime", "upgrade_kubelet", "verify_node", "uncordon"]
    {
        for moment in ["step_started", "step_succeeded"] {
            let kill = format!("{phase} {moment}");
            ensure!(kills.contains(&kill), "never killed at {kill}: {kills:?}");
        }
    }

    // The agent of w2 is killed in the middle of its kubelet step; the machine of w3 loses its power in the middle of its runtime step.
    until_step_begins(&mut installation, &id, "upgrade_container_runtime", "w3")?;
    lab.stop("w3", Stop::PowerCut)?;
    lab.start("w3")?;
    installation.until_state(&id, "succeeded", BOUND)?;
    workers_are_upgraded(lab, &["w1", "w2", "w3"])?;
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);

    for (index, node) in ["w1", "w2"].iter().enumerate() {
        let kubelet = starts(lab, node, "kubelet")? - kubelet_before[index];
        let runtime = starts(lab, node, "containerd")? - runtime_before[index];
        eprintln!("  {node}: kubelet started {kubelet} time, containerd {runtime} time");
        ensure!(kubelet == 1 && runtime == 1, "{node}: kubelet {kubelet}, containerd {runtime}");
    }
    let killed = lab.exec_text("w2", &["journalctl", "-u", "kill-agent", "-o", "cat", "--no-pager"])?;
    let restarts = lab.exec_text("w2", &["systemctl", "show", "shiplock-agent", "-p", "NRestarts", "--value"])?;
    ensure!(killed.contains("killed") && restarts.trim() == "1", "w2's agent was killed: {killed}, {restarts}");
    for service in ["kubelet", "containerd"] {
        // Once by the boot after the power cut, and once by its step at most.
        let journal = lab.exec_text("w3", &["journalctl", "--boot", "-u", service, "-o", "cat", "--no-pager"])?;
        let starts = starts_in_boot(&journal, service);
        ensure!((1..=2).contains(&starts), "{service} of w3 started {starts} times since it booted:\n{journal}");
    }
    for node in ["w1", "w2", "w3"] {
        let units = step_units(lab, node)?;
        let different: BTreeSet<_> = units.iter().collect();
        eprintln!("  {node}: units {}", units.join(", "));
        ensure!(different.len() == units.len(), "a unit ran twice on {node}: {units:?}");
        ensure!(node == "w3" || !units.is_empty(), "{node} ran no unit");
    }

    // Whatever was evicted is gone, so with no pod evicted twice there are at most as many evictions as pods that went.
    let accepted = evictions(lab)?;
    let there = lab.kubectl(&["get", "pods", "-A", "-o", "custom-columns=U:.metadata.uid", "--no-headers"])?;
    let there: BTreeSet<String> = there.lines().map(|line| line.trim().to_owned()).collect();
    let ever = pods.evictable()?;
    let gone = ever.difference(&there).count();
    eprintln!("  {accepted} evictions accepted, {gone} of {} pods that could be evicted are gone", ever.len());
    ensure!(accepted > 0 && accepted <= gone as u64, "a pod was evicted twice");
    Ok(())
}

/// Scenario `agent-lost`.
pub(crate) fn agent_lost(lab: &Lab) -> Result<()> {
    mixed_cluster(lab, 2, &[])?;
    let mut installation = Installation::ready(lab)?;
    let paused_by_silence = |installation: &mut Installation<'_>, node: &str| -> Result<String> {
        let id = installation.begin_pools(&["--node", node, "--contact-timeout", "15s"])?;
        until_step_begins(installation, &id, "cordon", node)?;
        lab.exec_text(node, &["systemctl", "stop", "shiplock-agent"])?;
        let paused = installation.until_state(&id, "paused", BOUND)?;
        ensure!(paused["because"]["reason"] == "contact_lost" && paused["because"]["node"] == node, "{paused}");
        let shown = installation.ok(&["upgrades", "show", &id])?;
        eprintln!("{shown}");
        ensure!(shown.contains("systemctl restart shiplock-agent") && shown.contains(node), "the fix is shown");
        Ok(id)
    };
    let id = paused_by_silence(&mut installation, "w1")?;
    lab.exec_text("w1", &["systemctl", "start", "shiplock-agent"])?;
    installation.ok(&["continue", &id])?;
    installation.until_state(&id, "succeeded", BOUND)?;
    ensure!(versions(lab)?["w1"].0 == "v1.36.3", "w1 is upgraded");

    let id = paused_by_silence(&mut installation, "w2")?;
    eprintln!("{}", installation.ok(&["cancel", &id, "--abandon", "w2", "--yes"])?);
    let cancelled = installation.until_state(&id, "cancelled", BOUND)?;
    ensure!(cancelled["abandoned"][0] == "w2", "{cancelled}");
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);
    full_disk_is_named(lab, &mut installation)
}

/// The disk of the agent's folder fills up in the middle of the node: its journal has a reserve, so that the upgrade says what
/// is full, and where, and does not wait for an agent that cannot write.
fn full_disk_is_named(lab: &Lab, installation: &mut Installation<'_>) -> Result<()> {
    const SMALL_DISK: &str = "cp -a /var/lib/shiplock-agent /root/agent && mount -t tmpfs -o size=2g tmpfs /var/lib/shiplock-agent && \
        cp -a /root/agent/. /var/lib/shiplock-agent/ && systemctl start shiplock-agent";
    const FILL: &str = "cd /var/lib/shiplock-agent && test -s journal.reserve && { cat /dev/zero > fill || true; }";
    const REFILL: &str = "cd /var/lib/shiplock-agent && rm -f journal.reserve && { cat /dev/zero >> fill || true; }";
    lab.exec_text("w2", &["sh", "-c", SMALL_DISK])?;
    lab.deploy_web()?;
    lab.kubectl(&["patch", "pdb", "web", "-p", r#"{"spec":{"maxUnavailable":0}}"#])?;
    installation.until_heard()?;
    let id = installation.begin_pools(&["--node", "w2", "--accept", "WL-001", "--accept", "CAP-003"])?;
    installation.until("the drain waits for the budget", BOUND, |installation| {
        let upgrade = installation.upgrade(&id)?;
        let waits = upgrade["waiting_on"].as_array().into_iter().flatten();
        Ok(waits.map(|wait| &wait["waiting_on"]).any(|kind| kind == "pod_disruption_budget"))
    })?;
    lab.exec_text("w2", &["sh", "-c", FILL])?;
    lab.kubectl(&["patch", "pdb", "web", "-p", r#"{"spec":{"maxUnavailable":1}}"#])?;
    let paused = installation.until_state(&id, "paused", BOUND)?;
    ensure!(paused.to_string().contains("UPG0504"), "{paused}");
    let shown = installation.ok(&["upgrades", "show", &id])?;
    eprintln!("{shown}");
    ensure!(shown.contains("/var/lib/shiplock-agent") && shown.contains("w2"), "the disk is named");
    // Nor does it where the reserve was given up and the disk filled up again.
    lab.exec_text("w2", &["sh", "-c", REFILL])?;
    installation.ok(&["continue", &id])?;
    installation.until("it stands still again for the same reason", BOUND, |installation| {
        let told = |event: &Value| event["kind"] == "step_failed" && event.to_string().contains("UPG0504");
        let times = installation.events(&id)?.iter().filter(|event| told(event)).count();
        Ok(times >= 2 && installation.upgrade(&id)?["state"] == "paused")
    })?;
    eprintln!("{}", installation.ok(&["upgrades", "show", &id])?);
    lab.exec_text("w2", &["rm", "/var/lib/shiplock-agent/fill"])?;
    installation.ok(&["continue", &id])?;
    installation.until_state(&id, "succeeded", BOUND)?;
    ensure!(versions(lab)?["w2"].0 == "v1.36.3" && marked(lab)?.is_empty(), "w2 is upgraded and free");
    lab.exec_text("w2", &["test", "-s", "/var/lib/shiplock-agent/journal.reserve"]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::{evictable, starts_in_boot};

    #[test]
    fn starts_that_systemd_did_because_a_service_had_ended_are_not_counted() {
        let journal = "Started kubelet - agent.\nkubelet.service: Main process exited\n\
            kubelet.service: Scheduled restart job, restart counter is at 1.\nStopped kubelet.\nStarted kubelet.\n";
        assert_eq!(starts_in_boot(journal, "kubelet"), 1);
        assert_eq!(starts_in_boot(&format!("{journal}Started kubelet.\n"), "kubelet"), 2);
    }

    #[test]
    fn pods_that_a_drain_evicts_are_told_from_the_others() {
        let listed = "a w1 ReplicaSet\na w1 ReplicaSet\nb w2 DaemonSet\nc m1 ReplicaSet\nd <none> ReplicaSet\ne w2 Node\nf w2 <none>\n";
        assert_eq!(evictable(listed).into_iter().collect::<Vec<_>>(), ["a", "f"]);
    }
}
