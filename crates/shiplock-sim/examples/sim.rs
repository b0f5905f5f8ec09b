//! Runs simulations: `cargo xtask sim` and `cargo xtask soak` call it in an optimised profile.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shiplock_core::problem::Problem;
use shiplock_sim::facade::Seam;
use shiplock_sim::run::everywhere::{Fork, crash_everywhere, fork};
use shiplock_sim::run::fault::Drawn;
use shiplock_sim::run::{Setup, Simulation};
use shiplock_sim::story;

/// No run takes longer in virtual time: what was broken is mended long before.
const VIRTUAL_MAX: Duration = Duration::from_secs(3 * 3600);

/// How servers reach the API.
#[derive(Clone, Copy)]
enum Through {
    /// Straight to the world.
    World,
    /// As HTTP, with the production client and its watches.
    Facade,
}

impl Through {
    fn drawn(self, seed: u64) -> Drawn {
        match self {
            Self::World => Drawn::of(seed),
            Self::Facade => Drawn::through_facade(seed),
        }
    }

    fn simulation(self, drawn: &Drawn, seed: u64) -> Result<Simulation, Problem> {
        let mut simulation = drawn.simulation(seed)?;
        self.put_before(&mut simulation, seed);
        Ok(simulation)
    }

    fn put_before(self, simulation: &mut Simulation, seed: u64) {
        if matches!(self, Self::Facade) {
            Seam::put_before(simulation, seed);
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::World => "World seam",
            Self::Facade => "façade",
        }
    }

    fn flag(self) -> &'static str {
        match self {
            Self::World => "",
            Self::Facade => "--facade ",
        }
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let at = arguments.iter().position(|word| word == name)?;
        arguments.get(at + 1)?.parse::<u64>().ok()
    };
    let has = |name: &str| arguments.iter().any(|word| word == name);
    let seam = if has("--facade") { Through::Facade } else { Through::World };
    let good = if let Some(fork) = number("--fork") {
        one_fork(fork)
    } else if let Some(seed) = number("--seed") {
        one(seed, has("--trace"), seam)
    } else if has("--speed") {
        speed(number("--runs").unwrap_or(200), seam)
    } else if let Some(minutes) = number("--minutes") {
        let begin = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |since| since.as_nanos() as u64);
        seeds(begin >> 8, u64::MAX, Some(Duration::from_secs(minutes * 60)), seam)
    } else {
        let everywhere = !has("--everywhere") || everywhere();
        let seeds = number("--seeds").is_none_or(|count| seeds(number("--from").unwrap_or(1), count, None, seam));
        everywhere && seeds
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One seed, with what it drew and, with `--trace`, everything that happened.
fn one(seed: u64, trace: bool, seam: Through) -> bool {
    let drawn = seam.drawn(seed);
    println!("{drawn:#?}");
    match seam.simulation(&drawn, seed) {
        Ok(simulation) => told(&format!("seed {seed}"), simulation, trace),
        Err(problem) => {
            println!("seed {seed}: there is no plan: {problem}");
            true
        }
    }
}

/// One fork of `--everywhere`, with everything that happened.
fn one_fork(number: u64) -> bool {
    let base = story::standard(1).map_err(|problem| problem.to_string());
    let fork = base.and_then(|base| {
        let wanted = usize::try_from(number).unwrap_or(usize::MAX);
        fork(base, VIRTUAL_MAX, wanted).ok_or_else(|| "there are not so many".to_owned())
    });
    match fork {
        Ok(fork) => told(&format!("fork {number}"), fork, true),
        Err(why) => {
            println!("fork {number}: {why}");
            false
        }
    }
}

/// Runs a simulation to its end and tells how it went.
fn told(name: &str, mut simulation: Simulation, trace: bool) -> bool {
    if trace {
        simulation.keep_transcript();
    }
    let result = simulation.run(VIRTUAL_MAX);
    for line in simulation.transcript() {
        println!("{line}");
    }
    println!(
        "{name}: {} after {} s, {} events, fingerprint {:016x}",
        result.state.word(),
        result.took.as_secs(),
        result.events,
        result.fingerprint
    );
    match &result.violation {
        None => true,
        Some(violation) => {
            println!("FAILED {name}: {violation}");
            false
        }
    }
}

/// Seeds from `from` on, on every core. Each failure prints one line that reproduces it.
fn seeds(from: u64, count: u64, limit: Option<Duration>, seam: Through) -> bool {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let failed = AtomicU64::new(0);
    let states: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let (killed_pods, appends_on_full_disk) = (AtomicU64::new(0), AtomicU64::new(0));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::SeqCst);
                    if index >= count || limit.is_some_and(|limit| begun.elapsed() > limit) {
                        return;
                    }
                    let seed = from.wrapping_add(index);
                    let word = match seam.simulation(&seam.drawn(seed), seed) {
                        Err(_) => "no plan".to_owned(),
                        Ok(mut simulation) => {
                            let result = simulation.run(VIRTUAL_MAX);
                            killed_pods.fetch_add(result.killed_pods, Ordering::SeqCst);
                            appends_on_full_disk.fetch_add(result.appends_on_full_disk, Ordering::SeqCst);
                            if let Some(violation) = &result.violation {
                                failed.fetch_add(1, Ordering::SeqCst);
                                println!(
                                    "FAILED {violation}: reproduce with `cargo xtask sim {}--seed {seed} --trace`",
                                    seam.flag()
                                );
                            }
                            result.state.word().to_owned()
                        }
                    };
                    *states.lock().expect("no thread panics with it").entry(word).or_default() += 1;
                }
            });
        }
    });
    let states = states.into_inner().expect("no thread panics with it");
    let runs: u64 = states.values().sum();
    let seconds = begun.elapsed().as_secs_f64();
    let failed = failed.into_inner();
    println!(
        "{runs} seeds in {seconds:.1} s ({:.1}/s, {}), {failed} failed; ended {states:?}; {} pods ended by SIGKILL alone, {} appends met a full disk",
        runs as f64 / seconds,
        seam.word(),
        killed_pods.into_inner(),
        appends_on_full_disk.into_inner()
    );
    failed == 0
}

/// How many whole upgrades of 3 masters and 20 nodes there are in a second.
fn speed(runs: u64, seam: Through) -> bool {
    let begun = Instant::now();
    let next = AtomicU64::new(0);
    let events = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while next.fetch_add(1, Ordering::SeqCst) < runs {
                    let seed = next.load(Ordering::SeqCst);
                    let mut simulation = Simulation::new(&Setup::new(3, 20), seed, 1).expect("there is a plan");
                    seam.put_before(&mut simulation, seed);
                    let result = simulation.run(VIRTUAL_MAX);
                    assert!(result.violation.is_none(), "{:?}", result.violation);
                    events.fetch_add(result.events, Ordering::SeqCst);
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{runs} upgrades of 3 masters and 20 nodes in {seconds:.1} s: {:.1}/s on {threads} cores, {} events each ({})",
        runs as f64 / seconds,
        events.into_inner() / runs.max(1),
        seam.word()
    );
    true
}

/// Every point of the standard upgrade, once before and once after.
fn everywhere() -> bool {
    let begun = Instant::now();
    let base = match story::standard(1) {
        Ok(base) => base,
        Err(problem) => {
            println!("there is no plan: {problem}");
            return false;
        }
    };
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut failed = 0;
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let result = crash_everywhere(base, VIRTUAL_MAX, threads, &mut |fork| {
        *counts.entry(format!("{:?}", fork.point)).or_default() += 1;
        if let Some(violation) = &fork.result.violation {
            failed += 1;
            let side = if fork.before { "before" } else { "after" };
            let Fork { number, point, process, .. } = &fork;
            println!(
                "FAILED fork {number} ({point:?}, {side}, {process:?}): {violation}: reproduce with `cargo xtask sim --fork {number}`"
            );
        }
    });
    let forks: u64 = counts.values().sum();
    println!(
        "{forks} forks in {:.1} s, {failed} failed; base run {}; {counts:?}",
        begun.elapsed().as_secs_f64(),
        result.state.word()
    );
    failed == 0 && result.violation.is_none()
}
