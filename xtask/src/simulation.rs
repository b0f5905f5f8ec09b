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
    /// So many seeds; 2,000 where nothing else is asked for
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// A crash at every point of the standard upgrade, before any seeds
    #[arg(long)]
    everywhere: bool,
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
}

/// Simulates what was asked for.
pub fn sim(arguments: &SimArguments) -> Result<()> {
    let mut words = Vec::new();
    match arguments {
        SimArguments { seed: Some(seed), trace, .. } => {
            words.extend(["--seed".to_owned(), seed.to_string()]);
            words.extend(trace.then(|| "--trace".to_owned()));
        }
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

/// What the gate simulates: a crash at every point of the standard upgrade.
pub fn gate() -> Result<()> {
    run(&["--everywhere".to_owned()])
}

/// Goes on from random seeds.
pub fn soak(arguments: &SoakArguments) -> Result<()> {
    run(&["--minutes".to_owned(), arguments.minutes.to_string()])
}

fn run(words: &[String]) -> Result<()> {
    let mut command = cargo_command();
    command.args(["run", "--quiet", "--profile", "sim", "--package", "shiplock-sim", "--example", "sim", "--"]);
    let status = command.args(words).status()?;
    ensure!(status.success(), "the simulation failed ({status})");
    Ok(())
}
