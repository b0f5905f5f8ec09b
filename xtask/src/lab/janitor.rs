//! Cleaning up after an interrupted `up`.
//!
//! `up` may be ended at any moment, by Ctrl-C or by a kill that no handler sees. So a second
//! process watches it: it holds the reading end of a pipe, and when the pipe closes without the
//! word that all went well, it takes the half-made lab down. It acts only on the lab that it was
//! started for: if another `up` has been faster, the birth number is another one.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};

use anyhow::{Context as _, Result, bail};

use super::cluster::Lab;
use super::process::{command, say};

const WELL: &str = "well";

/// The program `xtask` itself, also when called from a test's own binary.
pub(crate) fn own_program() -> Result<PathBuf> {
    let current = std::env::current_exe()?;
    if current.file_stem().is_some_and(|name| name == "xtask") {
        return Ok(current);
    }
    // target/debug/deps/some_test-0123 → target/debug/xtask
    let beside = current.ancestors().skip(1).take(2).map(|folder| folder.join("xtask"));
    match beside.into_iter().find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => {
            bail!("the lab needs the built program `xtask` beside {}; run `cargo build -p xtask`", current.display())
        }
    }
}

/// Watches the process that made it.
#[derive(Debug)]
pub(crate) struct Janitor {
    child: Child,
    pipe: ChildStdin,
}

impl Janitor {
    /// Starts the watcher for one birth of one lab.
    pub(crate) fn start(lab: &Lab, birth: &str) -> Result<Self> {
        let mut watch = command("setsid", &[]);
        watch.arg(own_program()?).args(["lab", "--id", &lab.id().to_string(), "janitor", "--birth", birth]);
        watch.env("SHIPLOCK_LAB_HOME", lab.home().root()).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = watch.spawn().context("cannot start the janitor")?;
        let pipe = child.stdin.take().context("the janitor has no pipe")?;
        Ok(Self { child, pipe })
    }

    /// Tells it that there is nothing to clean up.
    pub(crate) fn dismiss(mut self) {
        let _ = self.pipe.write_all(WELL.as_bytes());
        drop(self.pipe);
        let _ = self.child.wait();
    }
}

/// The watcher's own side.
pub(crate) fn watch(lab: &Lab, birth: &str) -> Result<()> {
    let mut text = String::new();
    let _ = std::io::stdin().read_to_string(&mut text);
    if text == WELL {
        return Ok(());
    }
    if lab.take_down_if_born(birth)? {
        say(format!("lab {}: up was interrupted, what it had made is removed", lab.id()));
    }
    Ok(())
}
