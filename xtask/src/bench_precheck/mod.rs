//! `cargo xtask bench precheck`: how much the pre-check finds of what is there, and how fast it is on files.
//!
//! The corpus is generated from the table of API lifecycles, with labels that come from the table alone: every kind,
//! every target, every way to write it. Rivals that are on the PATH are timed on the same files.

mod corpus;
mod helm;
mod live;
mod server;
mod speed;
mod vectors;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::e2e::installation::Programs;

/// Arguments of `cargo xtask bench precheck`.
#[derive(Debug, clap::Args)]
pub struct PrecheckArguments {
    /// Measure only this
    #[arg(long, value_enum)]
    only: Option<What>,
    /// The `shiplock` whose pre-check is measured; without it the release build, which is made first
    #[arg(long)]
    shiplock: Option<PathBuf>,
    /// How much of the large cluster is filled in for the live measurement
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Keep the filled API server running for work by hand instead of measuring
    #[arg(long)]
    keep: bool,
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Recall and precision on the labelled corpus
    Accuracy,
    /// Time and memory on files
    Speed,
    /// Findings, time and memory on a real API server that is filled like a large cluster
    Live,
    /// Releases that real Helm 3 and 4 made
    Helm,
    /// Vectors of authorship and of certificates, planted on a real API server
    Vectors,
}

/// Measures.
pub fn run(arguments: &PrecheckArguments, runs: u32) -> Result<()> {
    let shiplock = match &arguments.shiplock {
        Some(path) => path.clone(),
        None => Programs::released()?.shiplock().to_owned(),
    };
    let folder = std::env::temp_dir().join(format!("shiplock-precheck-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = measure(arguments, runs, &shiplock, &folder);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn measure(arguments: &PrecheckArguments, runs: u32, shiplock: &Path, folder: &Path) -> Result<()> {
    let wants = |what: What| arguments.only.is_none_or(|only| only == what);
    if arguments.keep {
        live::keep(folder, arguments.scale)?;
        return Ok(());
    }
    if wants(What::Accuracy) {
        corpus::measure(shiplock, folder)?;
    }
    if wants(What::Speed) {
        speed::measure(shiplock, folder, runs)?;
    }
    if wants(What::Helm) {
        helm::measure(shiplock, folder)?;
    }
    if wants(What::Vectors) {
        vectors::measure(shiplock, folder)?;
    }
    if wants(What::Live) {
        live::measure(shiplock, folder, runs, arguments.scale)?;
    }
    Ok(())
}

/// What one run of the check said.
struct Said {
    exit: i32,
    report: Value,
}

fn check(shiplock: &Path, arguments: &[&str]) -> Result<Said> {
    let output: Output = Command::new(shiplock)
        .arg("check")
        .args(arguments)
        .args(["-o", "json", "--progress", "none"])
        .output()
        .with_context(|| format!("{} cannot be started", shiplock.display()))?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok(Said { exit: output.status.code().unwrap_or(-1), report: report["report"].clone() })
}
