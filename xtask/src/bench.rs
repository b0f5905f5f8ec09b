//! `cargo xtask bench`: numbers with a peer or a limit beside them, for `docs/benchmarks.md`.
//!
//! These are measurements, not tests: nothing here fails because a machine was slow.

mod restart;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::e2e::custody::{self, Custody};
use crate::e2e::installation::{Installation, Programs};
use crate::e2e::pools::{mixed_cluster, workers_are_upgraded};
use crate::lab::Lab;

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// What to measure
    #[arg(value_enum)]
    what: What,
    /// How often, alternating between the rivals
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// The workers of the cluster
    #[arg(long, default_value_t = 3)]
    workers: u8,
    /// The running upgrades in the store of a server that is started again
    #[arg(long, default_value_t = 1000)]
    upgrades: usize,
    /// How long something is left idle before it is measured, in seconds
    #[arg(long, default_value_t = 600)]
    idle_seconds: u64,
    /// The lab to use
    #[arg(long, default_value_t = 0, env = "SHIPLOCK_LAB_ID")]
    id: u8,
    #[command(flatten)]
    precheck: crate::bench_precheck::PrecheckArguments,
}

/// What to measure.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum What {
    /// The pool stage: Shiplock against a shell script of the documented steps
    Pools,
    /// Memory and processor time of an idle agent and an idle server
    Idle,
    /// A server that is started again with many running upgrades in its store; needs no lab
    Restart,
    /// What the pre-check finds of what is there, and how fast it is on files; needs no cluster
    Precheck,
}

/// Runs one benchmark.
pub fn run(arguments: &Arguments) -> Result<()> {
    let measure = match arguments.what {
        What::Pools => pools,
        What::Idle => idle,
        What::Restart => return restart::run(arguments.runs, arguments.upgrades),
        What::Precheck => return crate::bench_precheck::run(&arguments.precheck, arguments.runs),
    };
    let lab = Lab::open(arguments.id)?;
    let custody = Custody::begin(&lab)?;
    let result = measure(&lab, arguments);
    let cleaned = custody::clean(&lab);
    custody.end();
    result.and(cleaned)
}

const BOUND: Duration = Duration::from_secs(1800);

fn pools(lab: &Lab, arguments: &Arguments) -> Result<()> {
    let programs = Programs::released()?;
    let workers: Vec<String> = (1..=arguments.workers).map(|index| format!("w{index}")).collect();
    let names: Vec<&str> = workers.iter().map(String::as_str).collect();
    for run in 1..=arguments.runs {
        mixed_cluster(lab, arguments.workers, &[])?;
        lab.deploy_web()?;
        let script = by_script(lab, &names)?;
        workers_are_upgraded(lab, &names)?;
        lab.down()?;

        mixed_cluster(lab, arguments.workers, &[])?;
        lab.deploy_web()?;
        let mut installation = Installation::ready_with(lab, programs.clone())?;
        let begun = Instant::now();
        let id = installation.begin_pools(&[])?;
        installation.until_state(&id, "succeeded", BOUND)?;
        let shiplock = begun.elapsed();
        workers_are_upgraded(lab, &names)?;
        println!(
            "run {run}: {} workers: script {:.1} s, shiplock {:.1} s, ratio {:.2}",
            arguments.workers,
            script.as_secs_f64(),
            shiplock.as_secs_f64(),
            shiplock.as_secs_f64() / script.as_secs_f64()
        );
        println!("critical path of shiplock:");
        for line in critical_path(&installation, &id)? {
            println!("  {line}");
        }
        drop(installation);
        lab.down()?;
    }
    Ok(())
}

/// How long each step of each node took, in order of its beginning.
fn critical_path(installation: &Installation<'_>, id: &str) -> Result<Vec<String>> {
    let events = installation.events(id)?;
    let at = |event: &serde_json::Value| -> f64 {
        let text = event["at"].as_str().unwrap_or_default();
        // RFC 3339 of one day: the seconds since midnight are enough for a difference.
        let clock = text.split('T').nth(1).unwrap_or_default().trim_end_matches('Z');
        clock.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap_or_default())
    };
    let begin = events.first().map(at).unwrap_or_default();
    let mut lines = Vec::new();
    for started in events.iter().filter(|event| event["kind"] == "step_started") {
        let step = &started["data"]["step"];
        let ended = events.iter().find(|event| event["kind"] == "step_succeeded" && event["data"]["step"] == *step);
        let (kind, node) = crate::e2e::controls::step_of(&events, started).unwrap_or_default();
        if let Some(ended) = ended {
            lines.push(format!("{:>7.1} s  +{:>5.1} s  {node} {kind}", at(started) - begin, at(ended) - at(started)));
        }
    }
    Ok(lines)
}

/// The documented steps, one node after the other: fetch, `kubeadm upgrade node`, drain, containerd, kubelet, uncordon.
fn by_script(lab: &Lab, workers: &[&str]) -> Result<Duration> {
    let mirror = lab.mirror_url();
    let begun = Instant::now();
    for node in workers {
        let fetch = format!(
            "set -e; mkdir -p /tmp/new; cd /tmp/new
             for f in kubeadm kubelet kubectl; do curl -sfo $f {mirror}/release/v1.36.3/bin/linux/amd64/$f; done
             for f in containerd containerd-shim-runc-v2 ctr; do curl -sfo $f {mirror}/containerd/v2.2.9/linux/amd64/$f; done
             chmod 755 *; mv kubeadm /usr/bin/kubeadm; kubeadm upgrade node --ignore-preflight-errors=SystemVerification"
        );
        lab.exec_text(node, &["sh", "-c", &fetch])?;
        lab.kubectl(&["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s"])?;
        let replace = "set -e; cd /tmp/new
             ./containerd config migrate > /tmp/config.toml; mv /tmp/config.toml /etc/containerd/config.toml
             for f in containerd containerd-shim-runc-v2 ctr; do mv $f /usr/bin/$f; done; systemctl restart containerd
             systemctl stop kubelet; mv kubelet kubectl /usr/bin/; systemctl start kubelet";
        lab.exec_text(node, &["sh", "-c", replace])?;
        let deadline = Instant::now() + BOUND;
        loop {
            let path = "jsonpath={.status.nodeInfo.kubeletVersion} {.status.nodeInfo.containerRuntimeVersion} {.status.conditions[?(@.type==\"Ready\")].status}";
            let state = lab.kubectl(&["get", "node", node, "-o", path]).unwrap_or_default();
            if state == "v1.36.3 containerd://2.2.9 True" {
                break;
            }
            ensure!(Instant::now() < deadline, "{node} stays at {state}");
            std::thread::sleep(Duration::from_millis(200));
        }
        lab.kubectl(&["uncordon", node])?;
    }
    Ok(begun.elapsed())
}

fn idle(lab: &Lab, arguments: &Arguments) -> Result<()> {
    let programs = Programs::released()?;
    let stripped = std::fs::metadata(programs.agent())?.len();
    mixed_cluster(lab, 1, &[])?;
    let mut installation = Installation::ready_with(lab, programs)?;
    let pid = installation.server_pid()?;
    let server = || -> Result<Usage> {
        let text = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}"));
        Ok(Usage { cpu_seconds: processor_seconds(&text("stat")?)?, ..Usage::of(&text("status")?)? })
    };
    let (agent_before, server_before) = (agent(lab)?, server()?);
    let seconds = arguments.idle_seconds;
    std::thread::sleep(Duration::from_secs(seconds));
    let (agent_after, server_after) = (agent(lab)?, server()?);
    #[expect(clippy::cast_precision_loss, reason = "small numbers for people")]
    let share = |before: &Usage, after: &Usage| (after.cpu_seconds - before.cpu_seconds) / seconds as f64 * 100.0;
    println!("idle for {seconds} s");
    println!(
        "agent:  {} KiB resident, {:.4} % of a core",
        agent_after.resident_kib,
        share(&agent_before, &agent_after)
    );
    println!(
        "server: {} KiB resident, {:.4} % of a core",
        server_after.resident_kib,
        share(&server_before, &server_after)
    );

    // The same processes at work: fetching artefacts is the most that an agent ever holds.
    let id = installation.begin_pools(&[])?;
    installation.until_state(&id, "succeeded", BOUND)?;
    let (agent_worked, server_worked) = (agent(lab)?, server()?);
    println!("agent:  {} KiB resident at most over a whole upgrade of its node", agent_worked.peak_kib);
    println!("server: {} KiB resident at most over it", server_worked.peak_kib);
    println!("agent:  {stripped} bytes, stripped");
    Ok(())
}

/// What a process has used.
struct Usage {
    resident_kib: u64,
    peak_kib: u64,
    cpu_seconds: f64,
}

impl Usage {
    /// Memory from `/proc/PID/status`.
    fn of(status: &str) -> Result<Self> {
        let kib = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context("a line of status")?;
            Ok(line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?)
        };
        Ok(Self { resident_kib: kib("VmRSS")?, peak_kib: kib("VmHWM")?, cpu_seconds: 0.0 })
    }
}

/// The agent of the first worker. Its processor time is that of its unit, counted by the kernel in nanoseconds, so that
/// neither the load of others nor the length of a tick matters.
fn agent(lab: &Lab) -> Result<Usage> {
    let property = |name: &str| -> Result<String> {
        let value = lab.exec_text("w1", &["systemctl", "show", "shiplock-agent", "-p", name, "--value"])?;
        Ok(value.trim().to_owned())
    };
    let status = lab.exec_text("w1", &["cat", &format!("/proc/{}/status", property("MainPID")?)])?;
    let used = property("CPUUsageNSec")?;
    let nanoseconds: u64 = used.parse().with_context(|| format!("the processor time of the agent's unit: {used}"))?;
    Ok(Usage { cpu_seconds: Duration::from_nanos(nanoseconds).as_secs_f64(), ..Usage::of(&status)? })
}

/// The processor time of a process from `/proc/PID/stat`, in ticks of 10 ms.
fn processor_seconds(stat: &str) -> Result<f64> {
    let fields: Vec<&str> = stat.rsplit(") ").next().context("stat")?.split(' ').collect();
    let tick = |index: usize| -> Result<u32> { Ok(fields.get(index).context("a field of stat")?.parse()?) };
    Ok(f64::from(tick(11)? + tick(12)?) / 100.0)
}
