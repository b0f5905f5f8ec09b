//! Scenario `demo`: the demo as a newcomer uses it, from outside: its begin, kubectl against its clusters, an upgrade of
//! the one that is ready, and that nothing is left. No cluster of the lab is booted; its kubectl is used.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::installation::Programs;
use crate::lab::Lab;
use crate::lab::process::{command, last_lines, output, run as run_program, say, wait_until};

const BOUND: Duration = Duration::from_secs(180);

/// The scenario.
pub(super) fn run(lab: &Lab) -> Result<()> {
    let programs = Programs::released()?;
    let kubectls = kubectls(lab)?;
    let before = left_behind()?;
    let demo = Demo::start(programs.shiplock(), &["--speed", "100"])?;
    let second = Demo::start(programs.shiplock(), &["--speed", "100"])?;
    ensure!(demo.server != second.server, "two demos share a socket");
    second.stop(Signal::INT)?;
    for kubectl in &kubectls {
        demo.look_with(kubectl)?;
        demo.write_with(kubectl)?;
    }
    demo.drain_with(kubectls.last().context("the lab has no kubectl")?)?;
    demo.upgrade_the_ready_one()?;
    demo.see_what_blocks()?;
    demo.stop(Signal::TERM)?;
    let after = left_behind()?;
    let left: Vec<_> = after.difference(&before).collect();
    ensure!(left.is_empty(), "the demos left {left:?}");

    // What a kill leaves is removed by the next one.
    let killed = Demo::start(programs.shiplock(), &[])?;
    let left = killed.folder.clone();
    killed.stop(Signal::KILL)?;
    ensure!(left.exists(), "a killed demo cannot clean up");
    Demo::start(programs.shiplock(), &[])?.stop(Signal::INT)?;
    ensure!(!left.exists() && left_behind()?.is_subset(&before), "the next demo left {}", left.display());
    Ok(())
}

/// kubectl of each version that the lab has built.
fn kubectls(lab: &Lab) -> Result<Vec<PathBuf>> {
    let found: Vec<PathBuf> = crate::lab::kubernetes_versions()
        .map(|version| lab.home().bin("kubernetes", version).join("kubectl"))
        .filter(|path| path.is_file())
        .collect();
    ensure!(!found.is_empty(), "the lab has built no kubectl: `cargo xtask lab build`");
    Ok(found)
}

fn left_behind() -> Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(std::env::temp_dir())?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    Ok(names.filter(|name| name.starts_with("shiplock-demo-")).collect())
}

struct Demo {
    child: Option<Child>,
    program: PathBuf,
    server: String,
    folder: PathBuf,
    told: Value,
}

impl Demo {
    fn start(program: &Path, options: &[&str]) -> Result<Self> {
        let begun = Instant::now();
        let mut starting = command(program, &["demo", "-o", "ndjson"]);
        let mut child = starting.args(options).stdout(Stdio::piped()).spawn().context("the demo cannot be started")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("the demo has no stdout")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
        let took = begun.elapsed();
        let told: Value = serde_json::from_str(&line).with_context(|| format!("the demo said `{line}`"))?;
        let text = |key: &str| told[key].as_str().map(str::to_owned).with_context(|| format!("{key} is not told"));
        // Two seconds are promised; a busy machine may take longer, so it is told and fails nothing.
        say(format!("the demo is up after {} ms", took.as_millis()));
        let (server, folder) = (text("server")?, text("folder")?.into());
        Ok(Self { child: Some(child), program: program.to_owned(), server, folder, told })
    }

    fn cluster(&self, standing: &str) -> Result<&Value> {
        let clusters = self.told["clusters"].as_array().into_iter().flatten();
        clusters
            .into_iter()
            .find(|cluster| cluster["standing"] == standing)
            .with_context(|| format!("no cluster is {standing}"))
    }

    fn kubectl(&self, program: &Path, standing: &str, words: &[&str]) -> Result<Command> {
        let kubeconfig = self.cluster(standing)?["kubeconfig"].as_str().context("no kubeconfig is told")?;
        let mut kubectl = command(program, words);
        // Discovery is cached in the home directory otherwise.
        kubectl.env("KUBECONFIG", kubeconfig).env("KUBECACHEDIR", self.folder.join("kubectl-cache"));
        Ok(kubectl)
    }

    fn shiplock(&self, words: &[&str]) -> Command {
        let mut shiplock = command(&self.program, words);
        shiplock.env("SHIPLOCK_SERVER", &self.server);
        shiplock
    }

    fn json(&self, words: &[&str]) -> Result<Value> {
        let output = output(self.shiplock(words).args(["-o", "json"]))?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("{words:?}: {}", last_lines(&output)))
    }

    /// What people look at first, with an unmodified kubectl.
    fn look_with(&self, program: &Path) -> Result<()> {
        say(format!("kubectl {}", program.display()));
        let ask = |words: &[&str]| run_program(&mut self.kubectl(program, "ready", words)?);
        let nodes = ask(&["get", "nodes", "-o", "wide"])?;
        for wanted in ["NAME", "STATUS", "ROLES", "VERSION", "CONTAINER-RUNTIME", "control-plane", "bakery-w06"] {
            ensure!(nodes.contains(wanted), "no {wanted} in\n{nodes}");
        }
        let pods = ask(&["get", "pods", "-A"])?;
        ensure!(
            pods.contains("NAMESPACE") && pods.contains("RESTARTS") && pods.contains("kube-apiserver-bakery-m1"),
            "{pods}"
        );
        let described = ask(&["describe", "node", "bakery-w01"])?;
        for wanted in
            ["Unschedulable:", "KubeletReady", "Kubelet Version:", "Non-terminated Pods:", "Allocated resources:"]
        {
            ensure!(described.contains(wanted), "no {wanted} in\n{described}");
        }
        ensure!(ask(&["get", "deploy,ds,sts,pdb,svc,rs", "-A"])?.contains("ALLOWED DISRUPTIONS"), "no budgets");
        ensure!(ask(&["version"])?.contains("Server Version: v1.3"), "no server version");
        ensure!(ask(&["auth", "can-i", "patch", "nodes"])?.trim() == "yes", "patch nodes");
        ensure!(ask(&["api-resources"])?.contains("poddisruptionbudgets"), "no api-resources");
        ask(&["label", "node", "bakery-w01", "tried=yes", "--overwrite"])?;
        ensure!(ask(&["get", "nodes", "-l", "tried=yes", "-o", "name"])?.trim() == "node/bakery-w01", "labels select");
        Ok(())
    }

    /// What kubectl makes by its own commands, which newer ones send in protobuf; what is nonsense; what nothing simulated has.
    fn write_with(&self, program: &Path) -> Result<()> {
        let ask = |words: &[&str]| run_program(&mut self.kubectl(program, "ready", words)?);
        let refused = |words: &[&str], why: &str| {
            let output = self.kubectl(program, "ready", words)?.output()?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(!output.status.success() && said.contains(why), "{words:?} said\n{said}");
            Ok(())
        };
        ask(&["create", "namespace", "moon"])?;
        ensure!(ask(&["get", "namespace", "moon"])?.contains("Active"), "a new namespace is not active");
        ask(&["create", "configmap", "-n", "moon", "one", "--from-literal=a=1"])?;
        ask(&["create", "secret", "generic", "-n", "moon", "one", "--from-literal=a=1"])?;
        ask(&["create", "job", "-n", "moon", "one", "--image=busybox"])?;
        ask(&["create", "pdb", "-n", "moon", "one", "--selector=app=web", "--min-available=50%"])?;
        ask(&["create", "deployment", "-n", "moon", "web", "--image=nginx", "--replicas=2"])?;
        ask(&["rollout", "status", "-n", "moon", "deployment/web", "--timeout=60s"])?;
        ask(&["expose", "-n", "moon", "deployment", "web", "--port=80"])?;
        let pods = ask(&["get", "pods", "-A", "--chunk-size=5", "-o", "name"])?;
        ensure!(pods == ask(&["get", "pods", "-A", "-o", "name"])?, "pages and the whole list differ");
        refused(&["create", "configmap", "-n", "moon", "Not_a_name"], "metadata.name: Invalid value")?;
        refused(&["create", "configmap", "-n", "moon", "one"], "already exists")?;
        refused(&["scale", "-n", "moon", "deployment", "web", "--replicas=20000"], "spec.replicas: Invalid value")?;
        refused(&["logs", "-n", "moon", "deployment/web"], "is simulated")?;
        refused(&["exec", "-n", "moon", "deployment/web", "--", "true"], "is simulated")?;
        ensure!(ask(&["get", "leases", "-n", "kube-node-lease"])?.contains("bakery-w06"), "no leases of kubelets");
        ask(&["delete", "namespace", "moon", "--timeout=60s"])?;
        Ok(())
    }

    /// `kubectl drain` is held by a budget, told so, and goes on when the budget is lifted; `get nodes -w` shows it.
    fn drain_with(&self, program: &Path) -> Result<()> {
        let ask = |words: &[&str]| run_program(&mut self.kubectl(program, "blocked", words)?);
        let node = ask(&["get", "pods", "-n", "shop", "-l", "app=ledger", "-o", "jsonpath={.items[0].spec.nodeName}"])?;
        let mut watching = self.kubectl(program, "blocked", &["get", "nodes", "-w"])?;
        let mut watching = watching.stdout(Stdio::piped()).spawn()?;
        let options = ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"];
        let mut draining = self.kubectl(program, "blocked", &[&["drain", node.as_str()], &options[..]].concat())?;
        let draining = draining.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        std::thread::sleep(Duration::from_secs(3));
        ensure!(ask(&["get", "node", &node])?.contains("Ready,SchedulingDisabled"), "the node is not cordoned");
        let held = ask(&["get", "pods", "-n", "shop", "-l", "app=ledger", "-o", "name"])?;
        ensure!(held.lines().count() == 2, "the budget did not hold:\n{held}");
        ask(&["delete", "pdb", "-n", "shop", "ledger"])?;
        let drained = draining.wait_with_output()?;
        let said = String::from_utf8_lossy(&drained.stdout).into_owned() + &String::from_utf8_lossy(&drained.stderr);
        ensure!(drained.status.success(), "{said}");
        ensure!(said.contains("Cannot evict pod as it would violate the pod's disruption budget"), "{said}");
        ensure!(said.contains("evicted") && said.contains(&format!("node/{node} drained")), "{said}");
        ask(&["uncordon", &node])?;
        std::thread::sleep(Duration::from_secs(1));
        watching.kill()?;
        let seen = String::from_utf8_lossy(&watching.wait_with_output()?.stdout).into_owned();
        ensure!(seen.contains("SchedulingDisabled"), "the watch saw\n{seen}");
        ensure!(seen.matches("NAME").count() == 1, "the watch printed its head again:\n{seen}");
        Ok(())
    }

    fn upgrade_the_ready_one(&self) -> Result<()> {
        let begun = Instant::now();
        let ended = output(
            self.shiplock(&["upgrade", "bakery", "--to", "1.36", "--yes", "-o", "json"]).arg("--progress").arg("none"),
        )?;
        let result: Value = serde_json::from_slice(&ended.stdout).with_context(|| last_lines(&ended))?;
        ensure!(result["upgrade"]["state"] == "succeeded", "{result:#}");
        say(format!("the ready cluster was upgraded in {} s", begun.elapsed().as_secs()));
        // Versions of API servers are read again twice a minute.
        wait_until("the new version of the API servers", BOUND, || {
            Ok(self.json(&["cluster", "show", "bakery"])?["cluster"]["version"] == "v1.36.3")
        })?;
        ensure!(
            self.json(&["backup", "list", "bakery"])?["backups"].as_array().is_some_and(|all| all.len() == 1),
            "no backup"
        );
        let next = self.json(&["plan", "bakery", "--to", "1.37"])?;
        ensure!(next["plan"]["to"] == "v1.37.2", "no way on from there: {next:#}");
        Ok(())
    }

    /// What the pre-check stops says why, and nothing else does.
    fn see_what_blocks(&self) -> Result<()> {
        let blocked = self.cluster("blocked")?["upgrade"].as_str().context("it has no upgrade")?.to_owned();
        wait_until("the checks before the start", BOUND, || {
            Ok(self.json(&["upgrades", "show", &blocked])?["upgrade"]["state"] == "blocked")
        })?;
        let shown = self.json(&["upgrades", "show", &blocked])?;
        let findings = shown["upgrade"]["findings"].as_array().into_iter().flatten();
        let checks: BTreeSet<&str> = findings.filter_map(|finding| finding["check"].as_str()).collect();
        ensure!(checks == BTreeSet::from(["CP-003", "CP-008", "WHK-006", "WL-001"]), "{shown:#}");
        Ok(())
    }

    fn stop(mut self, signal: Signal) -> Result<()> {
        let mut child = self.child.take().context("it was stopped already")?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("it has no process id")?;
        kill_process(pid, signal)?;
        wait_until("the end of the demo", Duration::from_secs(20), || Ok(child.try_wait()?.is_some()))?;
        let status = child.wait()?;
        if signal != Signal::KILL && !status.success() {
            bail!("the demo ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
