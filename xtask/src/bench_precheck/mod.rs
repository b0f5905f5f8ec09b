//! `cargo xtask bench precheck`: how much the pre-check finds of what is there, and how fast it is on files.
//!
//! The corpus is generated from the table of API lifecycles, with labels that come from the table alone: every kind,
//! every target, every way to write it. Rivals that are on the PATH are timed on the same files.

mod corpus;
mod speed;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// PrecheckArguments of `cargo xtask bench precheck`.
#[derive(Debug, clap::Args)]
pub struct PrecheckArguments {
    /// Of the pre-check, measure only this
    #[arg(long, value_enum)]
    only: Option<What>,
    /// The `shiplock` whose pre-check is measured; without it the release build, which is made first
    #[arg(long)]
    shiplock: Option<PathBuf>,
}

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// Recall and precision on the labelled corpus
    Accuracy,
    /// Time and memory on files
    Speed,
}

/// Measures.
pub fn run(arguments: &PrecheckArguments, runs: u32) -> Result<()> {
    let shiplock = match &arguments.shiplock {
        Some(path) => path.clone(),
        None => {
            let status = crate::ci::cargo_command().args(["build", "--release", "-p", "shiplock-cli"]).status()?;
            ensure!(status.success(), "the release build failed");
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/shiplock")
        }
    };
    let folder = std::env::temp_dir().join(format!("shiplock-precheck-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let outcome = measure(arguments, runs, &shiplock, &folder);
    std::fs::remove_dir_all(&folder)?;
    outcome
}

fn measure(arguments: &PrecheckArguments, runs: u32, shiplock: &Path, folder: &Path) -> Result<()> {
    if arguments.only != Some(What::Speed) {
        corpus::measure(shiplock, folder)?;
    }
    if arguments.only != Some(What::Accuracy) {
        speed::measure(shiplock, folder, runs)?;
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
