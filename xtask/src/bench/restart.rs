//! `cargo xtask bench restart`: a server that was killed in the midst of many running upgrades is started again.
//!
//! The clock runs from the start of the process until every lease is held, every log is folded and a first decision is
//! made for each upgrade. No cluster answers, so that decision is what each upgrade waits for.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::e2e::installation::{Programs, built, executable};

/// How long a start may take before the measurement is given up.
const BOUND: Duration = Duration::from_secs(120);

/// Fills a store, then starts the server on it again and again.
pub(super) fn run(runs: u32, upgrades: usize) -> Result<()> {
    let programs = Programs::released()?;
    let filler = built(&["--package", "shiplock-server", "--example", "fill_store"])?;
    let directory = std::path::absolute("target/bench-restart")?;
    let _ = fs::remove_dir_all(&directory);
    let filled = Command::new(executable(&filler, "fill_store")?).arg(&directory).arg(upgrades.to_string()).output()?;
    ensure!(filled.status.success(), "the store cannot be filled: {}", String::from_utf8_lossy(&filled.stderr));
    print!("{}", String::from_utf8_lossy(&filled.stdout));

    let mut all = Vec::new();
    for run in 1..=runs {
        let mut server = Server::start(programs.shiplock(), &directory)?;
        let seconds = server.until_taken_over(upgrades)?.as_secs_f64();
        if run == runs {
            every_upgrade_waits(programs.shiplock(), &directory, upgrades)?;
        }
        let peak = server.peak_kib()?;
        println!("run {run}: {seconds:.2} s, {} MiB resident at most", peak / 1024);
        all.push(seconds);
        // Killed, so that the next start finds leases that nobody gave back.
        drop(server);
    }
    all.sort_by(f64::total_cmp);
    let median = all.get(all.len() / 2).context("no run")?;
    let max = all.last().context("no run")?;
    println!(
        "{upgrades} running upgrades: median {median:.2} s, max {max:.2} s from process start to the last first decision"
    );
    fs::remove_dir_all(&directory).context("the store cannot be removed")
}

struct Server {
    child: Child,
    begun: Instant,
}

impl Server {
    fn start(program: &Path, directory: &Path) -> Result<Self> {
        let begun = Instant::now();
        let child = Command::new(program)
            .args(["serve", "--agent-listen", "127.0.0.1:0", "--agent-url", "https://127.0.0.1:7443", "--data-dir"])
            .arg(directory)
            .env("SHIPLOCK_LOG", "shiplock_server::driver::supervisor=info,error")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("the server cannot be started")?;
        Ok(Self { child, begun })
    }

    /// The time until the server says that it has taken all upgrades over. It is read as soon as it is written.
    fn until_taken_over(&mut self, upgrades: usize) -> Result<Duration> {
        let bound = self.begun + BOUND;
        let mut lines = BufReader::new(self.child.stderr.take().context("a pipe")?).lines();
        let count = format!("upgrades={upgrades} ");
        for line in &mut lines {
            let line = line?;
            if line.contains("were taken over") {
                let took = self.begun.elapsed();
                ensure!(line.contains(&count), "not all were taken over: {line}");
                // What else it says is of no interest, but it must not stand still because nobody reads it.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(took);
            }
            ensure!(Instant::now() < bound, "after {} s it still has not: {line}", BOUND.as_secs());
        }
        anyhow::bail!("the server ended before it had taken the upgrades over")
    }

    fn peak_kib(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
        Ok(peak.trim().trim_end_matches(" kB").parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks the server as a person does: all are running and each says what it waits for.
fn every_upgrade_waits(program: &Path, directory: &Path, upgrades: usize) -> Result<()> {
    let output = Command::new(program)
        .args(["upgrades", "list", "--active", "--limit", "10000", "-o", "json"])
        .env("SHIPLOCK_SERVER", directory.join("shiplock.sock"))
        .output()?;
    let listed: Value = serde_json::from_slice(&output.stdout).context("the list is JSON")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let listed = listed["upgrades"].as_array().with_context(|| format!("no upgrades are listed: {listed} {said}"))?;
    let waits = |upgrade: &&Value| {
        upgrade["state"] == "running" && upgrade["waiting_on"].as_array().is_some_and(|waits| !waits.is_empty())
    };
    let waiting = listed.iter().filter(waits).count();
    ensure!(
        waiting == upgrades,
        "{waiting} of {} listed upgrades are running and say what they wait for",
        listed.len()
    );
    Ok(())
}
