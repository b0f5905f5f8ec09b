//! What a run of scenarios leaves on this machine, and who removes it: servers, views, redirections, the lab itself.
//!
//! A run may be ended at any moment, by Ctrl-C or by a kill that no handler sees. So a second process watches it, as one
//! watches `lab up`: when its pipe closes without the word that all went well, it cleans up. What is still there when
//! the next run begins is removed first. Everything is recognised by the lab's folder and address, never by name alone.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::lab::process::{Recorded, command, run, say};

const WELL: &str = "well";
/// How long a process may take to end before it is killed. A frozen one does not end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// A run of scenarios on one lab. Nobody else runs scenarios on it meanwhile.
pub(crate) struct Custody {
    watcher: Child,
    pipe: ChildStdin,
    _lock: crate::lab::Lock,
}

impl Custody {
    /// Takes the lab over: removes what an earlier run left, and has this one watched.
    pub(crate) fn begin(lab: &Lab) -> Result<Self> {
        let lock = lab.home().lock(&lock_name(lab))?;
        clean(lab).context("what an earlier run left cannot be removed")?;
        let run_id = format!("{} {:?}", std::process::id(), std::time::SystemTime::now());
        fs::write(run_file(lab), &run_id).context("the run cannot be noted")?;
        // Of a session of its own: Ctrl-C reaches the run and not its watcher.
        let mut watcher = command("setsid", &[]);
        watcher.arg(crate::lab::own_program()?).args(["e2e", "--id", &lab.id().to_string(), "--watch-run", &run_id]);
        watcher.env("SHIPLOCK_LAB_HOME", lab.home().root()).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut watcher = watcher.spawn().context("the watcher cannot be started")?;
        let pipe = watcher.stdin.take().context("the watcher has no pipe")?;
        Ok(Self { watcher, pipe, _lock: lock })
    }

    /// The run ended by itself and left what it meant to leave.
    pub(crate) fn end(mut self) {
        let _ = self.pipe.write_all(WELL.as_bytes());
        drop(self.pipe);
        let _ = self.watcher.wait();
    }
}

/// The watcher's own side.
pub(crate) fn watch(lab: &Lab, run_id: &str) -> Result<()> {
    let mut text = String::new();
    let _ = std::io::stdin().read_to_string(&mut text);
    if text == WELL {
        return Ok(());
    }
    // Another run may have been faster; it has cleaned up then, and what is there is its own.
    let _lock = lab.home().lock(&lock_name(lab))?;
    if fs::read_to_string(run_file(lab)).is_ok_and(|newest| newest == run_id) {
        say(format!("lab {}: the run was interrupted, what it had made is being removed", lab.id()));
        clean(lab)?;
        say(format!("lab {}: removed", lab.id()));
    }
    Ok(())
}

fn lock_name(lab: &Lab) -> String {
    format!("e2e-{}", lab.id())
}

/// Beside the locks: the lab's own folder goes with the lab.
fn run_file(lab: &Lab) -> std::path::PathBuf {
    lab.home().root().join("locks").join(format!("e2e-{}.run", lab.id()))
}

/// Removes everything of a lab and of what was tested on it.
pub(crate) fn clean(lab: &Lab) -> Result<()> {
    for process in processes_of(lab)? {
        say(format!("lab {}: ending shiplock, process {}", lab.id(), process.pid()));
        process.end(GRACE);
    }
    for rule in redirections(&lab.bridge_address())? {
        say(format!("lab {}: removing the redirection {}", lab.id(), rule.join(" ")));
        run(command("iptables", &["-t", "nat", "-D"]).args(&rule))?;
    }
    lab.down()
}

/// Processes of `shiplock` whose command line speaks of this lab's folder: servers by their data directory, views by
/// their socket.
fn processes_of(lab: &Lab) -> Result<Vec<Recorded>> {
    let folder = format!("{}/", lab.folder().display());
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        if is_ours(&line, &folder) {
            found.push(Recorded::new(pid, &folder));
        }
    }
    Ok(found)
}

fn is_ours(command_line: &[u8], folder: &str) -> bool {
    let text = String::from_utf8_lossy(command_line);
    let mut words = text.split('\0');
    let program = words.next().and_then(|program| Path::new(program).file_name());
    program.is_some_and(|name| name == "shiplock") && words.any(|word| word.starts_with(folder))
}

/// The rules that lead away from a port of the bridge address, as `-D` takes them.
fn redirections(address: &str) -> Result<Vec<Vec<String>>> {
    let listed = match Command::new("iptables").args(["-t", "nat", "-S", "PREROUTING"]).output() {
        Ok(output) => output,
        // Without the program there was never a rule of ours.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("iptables cannot be run"),
    };
    Ok(redirections_in(&String::from_utf8_lossy(&listed.stdout), address))
}

fn redirections_in(rules: &str, address: &str) -> Vec<Vec<String>> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    rules
        .lines()
        .filter_map(|line| line.strip_prefix("-A "))
        .filter(|line| line.contains(&format!("-d {address}/32 ")) && line.contains("-j REDIRECT"))
        .map(words)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shiplock_that_works_on_this_labs_folder_is_ours() {
        let folder = "/var/cache/lab/labs/2/";
        for (line, ours) in [
            ("/t/debug/shiplock\0serve\0--data-dir\0/var/cache/lab/labs/2/shiplock\0", true),
            ("shiplock\0--server\0/var/cache/lab/labs/2/shiplock/shiplock.sock\0watch\0u1\0", true),
            ("/t/debug/shiplock\0serve\0--data-dir\0/var/cache/lab/labs/21/shiplock\0", false),
            ("/t/debug/shiplock\0serve\0--data-dir\0/var/lib/shiplock\0", false),
            ("/usr/bin/less\0/var/cache/lab/labs/2/server.log\0", false),
            ("", false),
        ] {
            assert_eq!(is_ours(line.as_bytes(), folder), ours, "{line:?}");
        }
    }

    #[test]
    fn only_redirections_of_this_labs_address_are_found() {
        let rules = "-P PREROUTING ACCEPT\n\
            -A PREROUTING -d 10.92.0.1/32 -p tcp -m tcp --dport 7443 -j REDIRECT --to-ports 7444\n\
            -A PREROUTING -d 10.93.0.1/32 -p tcp -m tcp --dport 7443 -j REDIRECT --to-ports 7444\n\
            -A PREROUTING -d 10.92.0.1/32 -j KUBE-SERVICES\n";
        let found = redirections_in(rules, "10.92.0.1");
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].join(" "),
            "PREROUTING -d 10.92.0.1/32 -p tcp -m tcp --dport 7443 -j REDIRECT --to-ports 7444"
        );
    }
}
