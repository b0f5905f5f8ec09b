//! Test applications and the probe that measures whether they stay reachable.
//!
//! The well-behaved one is what an upgrade must not hurt; the tolerant and the stubborn one are
//! traps, and each is worth a test of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::cluster::Lab;
use super::home::write;
use super::process::{say, wait_until};

/// Deployment `web` of two replicas on different nodes, its Service and its PodDisruptionBudget.
pub const WEB: &str = include_str!("../../lab-files/workload/web.yaml");
/// Deployment `tolerant`: its pod tolerates every taint.
pub const TOLERANT: &str = include_str!("../../lab-files/workload/tolerant.yaml");
/// Deployment `stubborn`: its pod ignores SIGTERM.
pub const STUBBORN: &str = include_str!("../../lab-files/workload/stubborn.yaml");
/// Pod `probe` on a master: asks the Service `web`, by its DNS name unless another address is put in its place.
pub const PROBE: &str = include_str!("../../lab-files/workload/probe.yaml");

/// What `web probe` reports.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProbeReport {
    /// What was asked.
    pub url: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// How long it ran.
    pub seconds: f64,
    /// Answers with status 200.
    pub ok: u64,
    /// Everything else.
    pub failed: u64,
    /// Longest time between two successes.
    pub longest_gap_ms: u64,
    /// When that began.
    #[serde(default)]
    pub longest_gap_at: String,
    /// Answers by pod.
    pub backends: BTreeMap<String, u64>,
    /// The first 50 failures.
    pub failures: Vec<ProbeFailure>,
}

/// A request that was not answered well.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ProbeFailure {
    /// When, RFC 3339.
    pub at: String,
    /// Why.
    pub error: String,
}

impl Lab {
    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) -> Result<()> {
        let file = self.folder().join(format!("manifest-{}.yaml", super::archive::short_digest(manifest)));
        write(&file, manifest, 0o644)?;
        self.kubectl(&["apply", "-f", &file.to_string_lossy()])?;
        Ok(fs::remove_file(file)?)
    }

    /// Deploys the well-behaved application and waits until it is available: two replicas, or
    /// one where the cluster has only one worker.
    pub fn deploy_web(&self) -> Result<()> {
        let replicas = match self.nodes()?.iter().filter(|node| !node.disk.master).count() {
            0 => bail!("the test application needs a worker, and lab {} has none", self.id()),
            1 => {
                say("one worker: the test application gets one replica instead of two");
                1
            }
            _ => 2,
        };
        self.apply(&WEB.replace("replicas: 2", &format!("replicas: {replicas}")))?;
        self.wait_for_deployment("web")
    }

    /// Deploys the one that tolerates every taint.
    pub fn deploy_tolerant(&self) -> Result<()> {
        self.apply(TOLERANT)?;
        self.wait_for_deployment("tolerant")
    }

    /// Deploys the one that ignores SIGTERM.
    pub fn deploy_stubborn(&self) -> Result<()> {
        self.apply(STUBBORN)?;
        self.wait_for_deployment("stubborn")
    }

    fn wait_for_deployment(&self, name: &str) -> Result<()> {
        self.kubectl(&["rollout", "status", &format!("deployment/{name}"), "--timeout=180s"]).map(drop)
    }

    /// The ClusterIP of a Service in the namespace `default`.
    pub fn service_address(&self, name: &str) -> Result<String> {
        let text = self.kubectl(&["get", "service", name, "-o", "jsonpath={.spec.clusterIP}"])?;
        if text.is_empty() { bail!("the Service {name} has no ClusterIP") } else { Ok(text) }
    }

    /// Starts the probe on a node, as a transient unit that outlives this process.
    pub fn start_probe(&self, node: &str, name: &str, url: &str, rate: u32) -> Result<()> {
        let unit = format!("--unit=probe-{name}");
        let (rate, report) = (rate.to_string(), report_file(name));
        let words =
            ["systemd-run", "-q", "--collect", &unit, "web", "probe", url, "--rate", &rate, "--report", &report];
        self.exec_text(node, &words).map(drop)
    }

    /// Ends a probe and hands back what it saw.
    pub fn stop_probe(&self, node: &str, name: &str) -> Result<ProbeReport> {
        self.exec_text(node, &["systemctl", "stop", &format!("probe-{name}")])?;
        let text = self.exec_text(node, &["cat", &report_file(name)])?;
        serde_json::from_str(&text).with_context(|| format!("the probe {name} on {node} left no report: {text}"))
    }

    /// Starts the probe as a pod on a master.
    pub fn start_pod_probe(&self, url: &str) -> Result<()> {
        self.apply(&PROBE.replace("http://web.default.svc.cluster.local/", url))?;
        self.kubectl(&["wait", "pod/probe", "--for=condition=Ready", "--timeout=120s"]).map(drop)
    }

    /// What the pod has seen so far; it goes on.
    pub fn pod_probe_report(&self) -> Result<ProbeReport> {
        let text = self.kubectl(&["exec", "probe", "--", "/web", "get", "http://127.0.0.1:8080/"])?;
        serde_json::from_str(&text).with_context(|| format!("not a report: {text}"))
    }

    /// Asks the web Service from every running node by address and from a pod by name.
    /// The answers, as proof: "node: answer".
    pub fn check_web(&self) -> Result<Vec<String>> {
        let url = format!("http://{}/", self.service_address("web")?);
        let replicas =
            self.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"])?.parse::<usize>()?;
        let by_name = "http://web.default.svc.cluster.local/";
        let mut answers = Vec::new();
        for node in self.nodes()?.into_iter().filter(|node| node.running) {
            let ask = || self.exec_text(&node.name, &["web", "get", &url]);
            // Every replica must be seen: with one endpoint only, half of kube-proxy's rules are not needed.
            let mut seen = BTreeSet::new();
            let mut last = Ok(());
            let what = format!("all replicas of web answer on {}", node.name);
            let both = wait_until(&what, Duration::from_secs(30), || {
                match ask() {
                    Ok(answer) => drop(seen.insert(answer.trim().to_owned())),
                    Err(error) => last = Err(error),
                }
                Ok(seen.len() >= replicas)
            });
            if let Err(bound) = both {
                return Err(last.err().unwrap_or_else(|| anyhow::anyhow!("seen: {seen:?}")).context(bound.to_string()));
            }
            for _ in 0..4 {
                ask()?;
            }
            answers.extend(seen.iter().map(|answer| format!("{}: {answer}", node.name)));
        }
        let ask = || self.kubectl(&["exec", "deployment/web", "--", "/web", "get", by_name]);
        answers.push(format!("by name: {}", first_answer("the Service web answers by its name", ask)?.trim()));
        Ok(answers)
    }
}

/// kube-proxy takes a moment for a new endpoint; after the first answer none may fail.
fn first_answer(what: &str, ask: impl Fn() -> Result<String>) -> Result<String> {
    let mut last = Ok(String::new());
    let answered = wait_until(what, Duration::from_secs(30), || {
        last = ask();
        Ok(last.is_ok())
    });
    match (answered, last) {
        (Err(bound), Err(reason)) => Err(reason.context(bound.to_string())),
        (_, last) => last,
    }
}

fn report_file(name: &str) -> String {
    format!("/run/probe-{name}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_of_the_probe_is_read() {
        let text = r#"{"url":"http://x/","started":"2026-01-01T00:00:00Z","seconds":1.5,"ok":29,"failed":1,
            "longest_gap_ms":120,"longest_gap_at":"2026-01-01T00:00:00Z","backends":{"web-1":29},
            "failures":[{"at":"2026-01-01T00:00:01Z","error":"refused"}]}"#;
        let report: ProbeReport = serde_json::from_str(text).unwrap();
        assert_eq!((report.ok, report.failed, report.failures.len()), (29, 1, 1));
    }

    #[test]
    fn the_manifests_use_the_preloaded_image() {
        for manifest in [WEB, TOLERANT, STUBBORN, PROBE] {
            assert!(manifest.contains(crate::lab::versions::WEB_IMAGE));
        }
    }
}
