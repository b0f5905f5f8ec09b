//! Samples of a control plane from outside, all the while an upgrade runs: whether the API answers, and which masters'
//! API servers and etcd members take connections. What Shiplock says of itself plays no part here.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::lab::Lab;

/// How often a sample is taken.
const PERIOD: Duration = Duration::from_millis(200);
/// A connection over the lab's bridge takes far less, unless nobody answers.
const CONNECT_LIMIT: Duration = Duration::from_millis(150);

/// What the samples say.
#[derive(Debug, Default, Clone)]
pub(crate) struct ControlPlaneSamples {
    /// How many samples were taken.
    pub(crate) samples: u32,
    /// How many times the API did not answer `/readyz` with 200.
    pub(crate) api_failed: u32,
    /// The longest time without an answer of the API.
    pub(crate) api_longest_gap: Duration,
    /// When the API began not to answer, for how many samples, and what was said to the first of them; at most so many
    /// as samples failed.
    pub(crate) api_outages: Vec<(String, u32, String)>,
    /// The most API servers that took no connection at the same time.
    pub(crate) api_servers_away_max: usize,
    /// The most etcd members that took no connection at the same time.
    pub(crate) etcd_members_away_max: usize,
}

/// Takes samples in a thread until it is stopped.
pub(crate) struct Sampler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<ControlPlaneSamples>>,
}

impl Sampler {
    /// Begins to take samples of these masters.
    pub(crate) fn start(lab: &Lab, masters: &[&str]) -> Result<Self> {
        let addresses = |port: u16| {
            let address = |master: &&str| Ok(SocketAddr::new(lab.node_ip(master)?.parse()?, port));
            masters.iter().map(address).collect::<Result<Vec<_>>>()
        };
        let (api_servers, members) = (addresses(6443)?, addresses(2379)?);
        // With one master its own address is the API's; with more the balancer on the bridge answers.
        let api = match api_servers.as_slice() {
            [only] => format!("https://{only}/readyz"),
            _ => format!("https://{}:6443/readyz", lab.bridge_address()),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut found = ControlPlaneSamples::default();
            let mut answered_at = Instant::now();
            let mut answered = true;
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let away = |all: &[SocketAddr]| {
                    all.iter().filter(|address| TcpStream::connect_timeout(address, CONNECT_LIMIT).is_err()).count()
                };
                found.samples += 1;
                found.api_servers_away_max = found.api_servers_away_max.max(away(&api_servers));
                found.etcd_members_away_max = found.etcd_members_away_max.max(away(&members));
                match is_ready(&api) {
                    Ok(()) => {
                        answered_at = Instant::now();
                        answered = true;
                    }
                    Err(said) => {
                        found.api_failed += 1;
                        match found.api_outages.last_mut().filter(|_| !answered) {
                            Some((_, samples, _)) => *samples += 1,
                            None => found.api_outages.push((jiff::Timestamp::now().to_string(), 1, said)),
                        }
                        answered = false;
                    }
                }
                found.api_longest_gap = found.api_longest_gap.max(answered_at.elapsed());
                std::thread::sleep(PERIOD.saturating_sub(begun.elapsed()));
            }
            found
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Ends the samples and hands them back.
    pub(crate) fn stop(mut self) -> Result<ControlPlaneSamples> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("samples are taken")?;
        thread.join().map_err(|_| anyhow::anyhow!("the thread that takes samples ended early"))
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// `/readyz` is open to everybody, see <https://kubernetes.io/docs/reference/using-api/health-checks/>. The error is what
/// curl makes of it.
fn is_ready(url: &str) -> Result<(), String> {
    let asked = Command::new("curl")
        .args(["--silent", "--show-error", "--insecure", "--fail", "--max-time", "1", "--output", "/dev/null", url])
        .stdin(Stdio::null())
        .output();
    match asked {
        Ok(answer) if answer.status.success() => Ok(()),
        Ok(answer) => Err(String::from_utf8_lossy(&answer.stderr).trim().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
