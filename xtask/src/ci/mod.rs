//! `cargo xtask test` and `cargo xtask ci`: the hermetic gate, which needs neither root nor network beyond crates.

mod dependencies;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::simulation;

/// Cargo as if it were called from a shell. What `cargo run` tells this program of itself would make build scripts
/// that look at it run again, and everything behind them.
pub(crate) fn cargo_command() -> Command {
    // By name, as a shell would find it: the path that cargo was started with may be another name of the toolchain, and
    // then everything would be built once for each name.
    let mut command = Command::new("cargo");
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|prefix| text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs the hermetic tests of the whole workspace.
pub fn test() -> Result<()> {
    cargo("tests", &["test", "--workspace", "--features", GENERATED])
}

/// The features that only generate: tests of theirs hold the generated files against the code.
const GENERATED: &str = "shiplock-api/schema";

/// Writes the files that are generated from the code. A test fails when one is out of date.
pub fn codegen() -> Result<()> {
    let path = workspace().join("openapi/v1.json");
    let mut command = cargo_command();
    command.args(["run", "--quiet", "--package", "shiplock-api", "--features", "schema", "--example", "openapi"]);
    let output = command.stderr(Stdio::inherit()).output().context("cargo cannot be started")?;
    ensure!(output.status.success(), "the OpenAPI document is not made ({})", output.status);
    std::fs::write(&path, output.stdout).with_context(|| format!("{} cannot be written", path.display()))?;
    eprintln!("xtask: {} is written", path.display());
    Ok(())
}

/// Runs everything that must hold before a change lands, but the end-to-end tests.
pub fn ci() -> Result<()> {
    cargo("format", &["fmt", "--all", "--check"])?;
    dependency_direction()?;
    dependencies::check(&workspace())?;
    cargo("clippy", &["clippy", "--workspace", "--all-targets", "--features", GENERATED, "--", "-D", "warnings"])?;
    test()?;
    let begun = Instant::now();
    eprintln!("xtask: simulations");
    simulation::gate()?;
    eprintln!("xtask: simulations took {} s", begun.elapsed().as_secs());
    documentation()
}

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace").to_owned()
}

fn documentation() -> Result<()> {
    let mut command = cargo_command();
    command
        .args(["doc", "--workspace", "--no-deps", "--document-private-items", "--features", GENERATED])
        .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links");
    run("docs", command)
}

fn cargo(what: &str, arguments: &[&str]) -> Result<()> {
    let mut command = cargo_command();
    command.args(arguments);
    run(what, command)
}

fn run(what: &str, mut command: Command) -> Result<()> {
    let begun = Instant::now();
    eprintln!("xtask: {what}");
    let status = command.status().with_context(|| format!("{what} cannot be started"))?;
    ensure!(status.success(), "{what} failed ({status})");
    eprintln!("xtask: {what} took {} s", begun.elapsed().as_secs());
    Ok(())
}

/// Which crates of the workspace a crate may use, see ARCHITECTURE.md.
const MAY_USE: &[(&str, &[&str])] = &[
    ("shiplock-core", &[]),
    ("shiplock-api", &["shiplock-core"]),
    ("shiplock-check", &["shiplock-core"]),
    ("shiplock-handshake", &["shiplock-core"]),
    ("shiplock-cluster", &["shiplock-check", "shiplock-core", "shiplock-handshake"]),
    ("shiplock-agent", &["shiplock-api", "shiplock-core", "shiplock-handshake"]),
    ("shiplock-server", &["shiplock-api", "shiplock-check", "shiplock-cluster", "shiplock-core"]),
    (
        "shiplock-cli",
        &["shiplock-api", "shiplock-check", "shiplock-cluster", "shiplock-core", "shiplock-server", "shiplock-sim"],
    ),
    (
        "shiplock-sim",
        &["shiplock-agent", "shiplock-api", "shiplock-check", "shiplock-cluster", "shiplock-core", "shiplock-server"],
    ),
    ("xtask", &[]),
];

/// Crates that must not be anywhere in the tree of a crate.
const MUST_NOT_REACH: &[(&str, &[&str])] = &[
    ("shiplock-core", &["tokio", "kube", "sqlx", "reqwest", "axum", "rand"]),
    ("shiplock-agent", &["kube", "sqlx", "axum", "schemars", "openssl-sys", "aws-lc-sys"]),
    ("shiplock-check", &["tokio", "kube", "sqlx", "reqwest", "axum", "rand"]),
    ("shiplock-cli", &["openssl-sys", "aws-lc-sys"]),
];

/// Checks who uses whom.
fn dependency_direction() -> Result<()> {
    for (name, allowed) in MAY_USE {
        let direct = tree(name, &["--depth", "1"])?;
        for used in direct.keys().filter(|used| used.starts_with("shiplock-") && used.as_str() != *name) {
            ensure!(
                allowed.contains(&used.as_str()),
                "{name} must not use {used}: see the crate map in ARCHITECTURE.md"
            );
        }
    }
    planted_bugs_are_in_tests_alone()?;
    for (name, banned) in MUST_NOT_REACH {
        let all = tree(name, &[])?;
        if let Some(found) = banned.iter().find(|banned| all.contains_key(**banned)) {
            bail!("{found} is in the tree of {name}: `cargo tree -p {name} -i {found}` shows by whom");
        }
    }
    eprintln!("xtask: dependency direction holds");
    Ok(())
}

/// The bugs that tests of the simulator plant are in no program that is built to be used.
fn planted_bugs_are_in_tests_alone() -> Result<()> {
    for name in ["shiplock-cli", "shiplock-agent"] {
        let arguments = ["tree", "--package", name, "--edges", "normal,build,features", "--prefix", "none"];
        let output = cargo_command().args(arguments).output().context("cargo tree cannot be started")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success() && text.contains("shiplock-core"), "cargo tree -p {name} failed");
        ensure!(!text.contains("\"planted\""), "{name} is built with planted bugs");
    }
    Ok(())
}

/// The packages that a crate links, without those of tests, with their versions.
fn tree(name: &str, more: &[&str]) -> Result<BTreeMap<String, String>> {
    let output = cargo_command()
        .args(["tree", "--package", name, "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(more)
        .output()
        .context("cargo tree cannot be started")?;
    ensure!(output.status.success(), "cargo tree -p {name} failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).context("cargo tree prints text")?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, version)| (name.to_owned(), version.to_owned()))
        .collect())
}
