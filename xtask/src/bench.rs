//! `cargo xtask bench`: numbers with a peer or a limit beside them, for `docs/benchmarks.md`.
//!
//! These are measurements, not tests: nothing here fails because a machine was slow.

mod rehearse;
mod restart;
mod script;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::e2e::control_plane::{components_are_upgraded, interruptions, old_cluster, only_master};
use crate::e2e::custody::{self, Custody};
use crate::e2e::installation::{CLUSTER, Installation, Programs};
use crate::e2e::pools::{mixed_cluster, workers_are_upgraded};
use crate::e2e::samples::Sampler;
use crate::lab::{self, Lab};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
    /// How often, alternating between the rivals
    #[arg(long, default_value_t = 1, global = true)]
    runs: u32,
    /// The lab to use, where one is needed
    #[arg(long, default_value_t = 0, env = "SHIPLOCK_LAB_ID", global = true)]
    id: u8,
}

/// What to measure.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// The pool stage: Shiplock against a shell script of the documented steps
    Pools {
        /// The workers of the cluster
        #[arg(long, default_value_t = 3)]
        workers: u8,
    },
    /// A whole cluster: Shiplock against a shell script of the documented steps
    Whole {
        /// The masters of the cluster
        #[arg(long, default_value_t = 1)]
        masters: u8,
        /// The workers of the cluster
        #[arg(long, default_value_t = 2)]
        workers: u8,
        /// One rival alone, where both together take too long
        #[arg(long, value_enum)]
        only: Option<Rival>,
    },
    /// Memory and processor time of an idle agent and an idle server
    Idle {
        /// How long both are left idle before they are measured, in seconds
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
    /// A server that is started again with many running upgrades in its store; needs no lab
    Restart {
        /// The running upgrades in the store
        #[arg(long, default_value_t = 1000)]
        upgrades: usize,
    },
    /// What the pre-check finds of what is there, and how fast it is on files; needs no cluster
    Precheck(crate::bench_precheck::PrecheckArguments),
    /// A rehearsal of 100 to 5,000 nodes: time and memory; needs no cluster
    Rehearse,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Rival {
    /// The documented steps as a shell script
    Script,
    /// Shiplock
    Shiplock,
}

/// Runs one benchmark.
pub fn run(arguments: &Arguments) -> Result<()> {
    let runs = arguments.runs;
    match &arguments.what {
        What::Pools { workers } => on_lab(arguments.id, |lab| pools(lab, runs, *workers)),
        What::Whole { masters, workers, only } => {
            on_lab(arguments.id, |lab| whole(lab, runs, *masters, *workers, *only))
        }
        What::Idle { seconds } => on_lab(arguments.id, |lab| idle(lab, *seconds)),
        What::Restart { upgrades } => restart::run(runs, *upgrades),
        What::Rehearse => rehearse::run(runs),
        What::Precheck(precheck) => crate::bench_precheck::run(precheck, runs),
    }
}

/// Measures on a lab, and leaves nothing of it.
fn on_lab(id: u8, measure: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    lab::build_where_missing()?;
    let lab = Lab::open(id)?;
    let custody = Custody::begin(&lab)?;
    let result = measure(&lab);
    let cleaned = custody::clean(&lab);
    custody.end();
    result.and(cleaned)
}

const BOUND: Duration = Duration::from_secs(1800);

fn pools(lab: &Lab, runs: u32, workers: u8) -> Result<()> {
    let programs = Programs::released()?;
    let named = named('w', workers);
    let names: Vec<&str> = named.iter().map(String::as_str).collect();
    for run in 1..=runs {
        mixed_cluster(lab, workers, &[])?;
        deploy_web_placed(lab, run, &names)?;
        let script = script::upgrade_workers(lab, &names)?;
        workers_are_upgraded(lab, &names)?;
        lab.down()?;

        mixed_cluster(lab, workers, &[])?;
        deploy_web_placed(lab, run, &names)?;
        let installation = Installation::ready_with(lab, programs.clone())?;
        let (id, shiplock) = timed_upgrade(&installation, &["--node-pools-only"])?;
        workers_are_upgraded(lab, &names)?;
        show(run, &format!("{workers} workers"), Some(script), shiplock, &installation, &id)?;
        drop(installation);
        lab.down()?;
    }
    Ok(())
}

/// Deploys the application so that both rivals find its two pods on the same nodes: on the first workers in odd runs, on
/// the last in even ones. Where they are decides how many drains wait for them.
fn deploy_web_placed(lab: &Lab, run: u32, workers: &[&str]) -> Result<()> {
    let others = if run % 2 == 1 { workers.get(2..) } else { workers.get(..workers.len().saturating_sub(2)) };
    let others = others.unwrap_or_default();
    for node in others {
        lab.kubectl(&["cordon", node])?;
    }
    lab.deploy_web()?;
    for node in others {
        lab.kubectl(&["uncordon", node])?;
    }
    Ok(())
}

/// The nodes of a lab: `w1`, `w2` and so on.
fn named(letter: char, count: u8) -> Vec<String> {
    (1..=count).map(|index| format!("{letter}{index}")).collect()
}

fn whole(lab: &Lab, runs: u32, masters: u8, workers: u8, only: Option<Rival>) -> Result<()> {
    let programs = Programs::released()?;
    let (masters_named, workers_named) = (named('m', masters), named('w', workers));
    let master_names: Vec<&str> = masters_named.iter().map(String::as_str).collect();
    let worker_names: Vec<&str> = workers_named.iter().map(String::as_str).collect();
    for run in 1..=runs {
        let mut script = None;
        if only != Some(Rival::Shiplock) {
            old_cluster(lab, masters, workers)?;
            deploy_web_placed(lab, run, &worker_names)?;
            let took = script::upgrade_whole(lab, &master_names, &worker_names)?;
            println!("run {run}: script {:.1} s", took.as_secs_f64());
            script = Some(took);
            lab.down()?;
        }
        if only == Some(Rival::Script) {
            continue;
        }

        old_cluster(lab, masters, workers)?;
        deploy_web_placed(lab, run, &worker_names)?;
        let installation = Installation::ready_with(lab, programs.clone())?;
        let sampler = Sampler::start(lab, &master_names)?;
        let (id, shiplock) = timed_upgrade(&installation, &only_master())?;
        components_are_upgraded(lab, &master_names)?;
        let what = format!("{masters} masters and {workers} workers");
        show(run, &what, script, shiplock, &installation, &id)?;
        println!("masters away for {:?} ms", interruptions(&installation.events(&id)?));
        println!("{:?}", sampler.stop()?);
        drop(installation);
        lab.down()?;
    }
    Ok(())
}

fn show(
    run: u32,
    what: &str,
    script: Option<Duration>,
    shiplock: Duration,
    installation: &Installation<'_>,
    id: &str,
) -> Result<()> {
    let shiplock = shiplock.as_secs_f64();
    match script.map(|script| script.as_secs_f64()) {
        Some(script) => {
            let ratio = shiplock / script;
            println!("run {run}: {what}: script {script:.1} s, shiplock {shiplock:.1} s, ratio {ratio:.2}");
        }
        None => println!("run {run}: {what}: shiplock {shiplock:.1} s"),
    }
    println!("critical path of shiplock:");
    for line in critical_path(installation, id)? {
        println!("  {line}");
    }
    Ok(())
}

/// Runs an upgrade as a person does, from the command to its end: plan, pre-check, work and read-back.
fn timed_upgrade(installation: &Installation<'_>, options: &[&str]) -> Result<(String, Duration)> {
    let begun = Instant::now();
    let words = ["upgrade", CLUSTER, "--to", "1.36", "--yes", "--progress", "none"];
    let ended = installation.json(&[&words, options].concat())?;
    let took = begun.elapsed();
    ensure!(ended["upgrade"]["state"] == "succeeded", "the upgrade ended otherwise: {ended}");
    Ok((ended["upgrade"]["id"].as_str().context("an id")?.to_owned(), took))
}

/// A step at work, in seconds since the upgrade was made.
#[derive(Debug, PartialEq)]
struct Span {
    begin: f64,
    end: f64,
    what: String,
}

/// The steps that the whole took as long as: each is the one whose end the next one waited for.
fn critical_path(installation: &Installation<'_>, id: &str) -> Result<Vec<String>> {
    let events = installation.events(id)?;
    let at = |event: &serde_json::Value| -> Result<jiff::Timestamp> {
        event["at"].as_str().context("every event has a time")?.parse().context("a time")
    };
    let begin = at(events.first().context("an upgrade has events")?)?;
    let since = |event: &serde_json::Value| Ok::<f64, anyhow::Error>(at(event)?.duration_since(begin).as_secs_f64());
    let mut spans = Vec::new();
    for started in events.iter().filter(|event| event["kind"] == "step_started") {
        let step = &started["data"]["step"];
        let ended = events.iter().find(|event| event["kind"] == "step_succeeded" && event["data"]["step"] == *step);
        let (kind, node) = crate::e2e::controls::step_of(&events, started).unwrap_or_default();
        if let Some(ended) = ended {
            spans.push(Span { begin: since(started)?, end: since(ended)?, what: format!("{node} {kind}") });
        }
    }
    let end = since(events.last().context("an upgrade has events")?)?;
    let mut lines = Vec::new();
    let mut cursor = 0.0;
    for span in chain(spans, end) {
        if span.begin - cursor >= 0.05 {
            lines.push(format!("{cursor:>7.2} s  +{:>6.2} s  (between)", span.begin - cursor));
        }
        lines.push(format!("{:>7.2} s  +{:>6.2} s  {}", span.begin, span.end - span.begin, span.what));
        cursor = span.end;
    }
    lines.push(format!("{cursor:>7.2} s  +{:>6.2} s  (until it is said to have succeeded)", end - cursor));
    Ok(lines)
}

/// Goes back from the end: what was in work last before each begin is what it waited for.
fn chain(mut spans: Vec<Span>, end: f64) -> Vec<Span> {
    spans.sort_by(|a, b| b.end.total_cmp(&a.end));
    let mut cursor = end;
    let mut chain = Vec::new();
    for span in spans {
        if span.end <= cursor {
            cursor = span.begin;
            chain.push(span);
        }
    }
    chain.reverse();
    chain
}

fn idle(lab: &Lab, seconds: u64) -> Result<()> {
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
    let pid = lab.exec_text("w1", &["systemctl", "show", "shiplock-agent", "-p", "MainPID", "--value"])?;
    let text = |name: &str| lab.exec_text("w1", &["cat", &format!("/proc/{}/{name}", pid.trim())]);
    Ok(Usage { cpu_seconds: processor_seconds(&text("stat")?)?, ..Usage::of(&text("status")?)? })
}

/// The processor time of a process from `/proc/PID/stat`, in ticks of 10 ms.
fn processor_seconds(stat: &str) -> Result<f64> {
    let fields: Vec<&str> = stat.rsplit(") ").next().context("stat")?.split(' ').collect();
    let tick = |index: usize| -> Result<u32> { Ok(fields.get(index).context("a field of stat")?.parse()?) };
    Ok(f64::from(tick(11)? + tick(12)?) / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_critical_path_leaves_out_what_nobody_waited_for() {
        let span = |begin: f64, end: f64, what: &str| Span { begin, end, what: what.to_owned() };
        let all = vec![span(0.0, 2.0, "fetch a"), span(0.0, 5.0, "fetch b"), span(5.0, 6.0, "a"), span(5.0, 9.0, "b")];
        let path: Vec<String> = chain(all, 9.5).into_iter().map(|span| span.what).collect();
        assert_eq!(path, ["fetch b", "b"]);
    }
}
