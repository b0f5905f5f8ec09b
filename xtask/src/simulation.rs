//! `cargo xtask sim` and `cargo xtask soak`: the simulator in an optimised profile.

use anyhow::{Result, ensure};
use clap::Args;

use crate::ci::cargo_command;

/// What to simulate.
#[derive(Debug, Args)]
pub struct SimArguments {
    /// One seed alone: what it draws and how it ends
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: everything that happens
    #[arg(long, requires = "seed")]
    trace: bool,
    /// One fork of --everywhere alone, with everything that happens
    #[arg(long, conflicts_with_all = ["seed", "facade"])]
    fork: Option<u64>,
    /// So many seeds; 2,000 where nothing else is asked for
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// A crash at every point of the standard upgrade, before any seeds
    #[arg(long)]
    everywhere: bool,
    /// Servers reach the API through the façade, with the production client, and not straight through the world
    #[arg(long, conflicts_with = "everywhere")]
    facade: bool,
    /// How many whole upgrades there are in a second
    #[arg(long)]
    speed: bool,
}

/// Seeds unless told.
const SEEDS: u64 = 2_000;

/// How long to go on.
#[derive(Debug, Args)]
pub struct SoakArguments {
    /// Minutes of random seeds
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Servers reach the API through the façade
    #[arg(long)]
    facade: bool,
}

/// Simulates what was asked for.
pub fn sim(arguments: &SimArguments) -> Result<()> {
    let mut words = facade(arguments.facade);
    match arguments {
        SimArguments { seed: Some(seed), trace, .. } => {
            words.extend(["--seed".to_owned(), seed.to_string()]);
            words.extend(trace.then(|| "--trace".to_owned()));
        }
        SimArguments { fork: Some(fork), .. } => words.extend(["--fork".to_owned(), fork.to_string()]),
        SimArguments { speed: true, .. } => words.push("--speed".to_owned()),
        SimArguments { everywhere, seeds, from, .. } => {
            words.extend(everywhere.then(|| "--everywhere".to_owned()));
            if let Some(seeds) = seeds.or((!everywhere).then_some(SEEDS)) {
                words.extend(["--seeds".to_owned(), seeds.to_string(), "--from".to_owned(), from.to_string()]);
            }
        }
    }
    run(&words)
}

fn facade(wanted: bool) -> Vec<String> {
    wanted.then(|| "--facade".to_owned()).into_iter().collect()
}

/// Seeds of the gate: through the world, and through the façade.
const GATE_SEEDS: (u64, u64) = (1_500, 500);

/// What the gate simulates: a crash at every point of the standard upgrade, and 2,000 seeds. How fast whole upgrades go is
/// told, and fails nothing.
pub fn gate() -> Result<()> {
    let (world, through_facade) = GATE_SEEDS;
    run(&["--everywhere".to_owned(), "--seeds".to_owned(), world.to_string()])?;
    run(&["--facade".to_owned(), "--seeds".to_owned(), through_facade.to_string()])?;
    run(&["--speed".to_owned()])
}

/// Goes on from random seeds.
pub fn soak(arguments: &SoakArguments) -> Result<()> {
    run(&[facade(arguments.facade), vec!["--minutes".to_owned(), arguments.minutes.to_string()]].concat())
}

fn run(words: &[String]) -> Result<()> {
    let mut command = cargo_command();
    command.args(["run", "--quiet", "--profile", "sim", "--package", "shiplock-sim", "--example", "sim", "--"]);
    let status = command.args(words).status()?;
    ensure!(status.success(), "the simulation failed ({status})");
    Ok(())
}
