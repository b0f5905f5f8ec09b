//! Running programs and waiting for states, with errors that name the program and what it said.
//!
//! The lab is glue around `ip`, `mount`, `nsenter`, `go`, … Each failure must say which of them
//! failed and why, so nothing in the lab calls `Command::status` by itself.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a state is looked at while it is waited for.
const POLL: Duration = Duration::from_millis(100);

static STARTED: OnceLock<Instant> = OnceLock::new();

/// Time since the first progress line of this process.
pub(crate) fn elapsed() -> Duration {
    STARTED.get_or_init(Instant::now).elapsed()
}

/// One progress line on stderr, with the time since the start.
pub(crate) fn say(message: impl AsRef<str>) {
    let seconds = elapsed().as_secs_f32();
    // A closed stderr is no reason to stop half-way.
    let _ = writeln!(std::io::stderr().lock(), "[{seconds:7.1}s] {}", message.as_ref());
}

/// Where programs are looked for: also where those of an administrator are, which `su` may leave out.
pub(crate) fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    std::env::join_paths(folders).unwrap_or(path)
}

/// A command with nothing on its stdin.
pub(crate) fn command<S: AsRef<OsStr>>(program: S, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).env("PATH", search_path());
    command
}

/// The command as one would type it, for messages.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs to the end and hands back everything, whatever the exit code.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("cannot run `{}`", shown(command)))
}

/// Runs to the end; stdout as text if it succeeded, else an error with the last lines it wrote.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("`{}` failed ({}): {}", shown(command), output.status, last_lines(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs to the end and says only whether it succeeded.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// What a failed program said last: stderr, or stdout where stderr is empty.
pub(crate) fn last_lines(output: &Output) -> String {
    let text = if output.stderr.trim_ascii().is_empty() { &output.stdout } else { &output.stderr };
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Looks at a state until it holds. `Err` from `holds` ends the wait at once.
pub(crate) fn wait_until(what: &str, bound: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !holds()? {
        if start.elapsed() > bound {
            bail!("{what}: not within {} s", bound.as_secs());
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// A process that outlives the command that started it, by its recorded id.
///
/// Ids are used again after a crash or a reboot, so the recorded one counts only while the
/// command line of that process contains `marker`.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pid: i32,
    marker: String,
}

impl Recorded {
    /// Reads a pid file. `None`: no file, not running, or the id now belongs to something else.
    pub(crate) fn read(pid_file: &Path, marker: &str) -> Option<Self> {
        let pid = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
        Some(Self { pid, marker: marker.to_owned() }).filter(Self::runs)
    }

    /// A process whose command line was just seen to contain the marker.
    pub(crate) fn new(pid: i32, marker: &str) -> Self {
        Self { pid, marker: marker.to_owned() }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it still runs (a zombie does not).
    pub(crate) fn runs(&self) -> bool {
        fs::read(format!("/proc/{}/cmdline", self.pid))
            .is_ok_and(|line| String::from_utf8_lossy(&line).replace('\0', " ").contains(&self.marker))
    }

    /// SIGTERM, and SIGKILL where that is not enough within `grace`.
    pub(crate) fn end(&self, grace: Duration) {
        if self.runs() {
            send(self.pid, Signal::TERM);
        }
        if wait_until("end", grace, || Ok(!self.runs())).is_err() {
            send(self.pid, Signal::KILL);
        }
    }
}

/// Sends a signal; a process that has just gone is no error.
pub(crate) fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Ids and names of the direct children of a process.
pub(crate) fn children(parent: i32) -> Vec<(i32, String)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // pid (name) state ppid …; the name may contain spaces and brackets.
        let (Some(open), Some(close)) = (stat.find('('), stat.rfind(')')) else { continue };
        if stat[close + 1..].split_whitespace().nth(1) == Some(&parent.to_string()) {
            found.push((pid, stat[open + 1..close].to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_is_named_with_its_words() {
        let error = run(&mut command("sh", &["-c", "echo no luck >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("no luck") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_wait_ends_with_the_bound() {
        let error = wait_until("the moon", Duration::from_millis(1), || Ok(false)).unwrap_err();
        assert!(error.to_string().contains("the moon"));
    }

    #[test]
    fn a_recorded_id_counts_only_with_its_marker() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        fs::write(&file, std::process::id().to_string()).unwrap();
        assert!(Recorded::read(&file, "no such words on any command line").is_none());
        assert!(Recorded::read(&folder.path().join("absent"), "").is_none());
    }

    #[test]
    fn children_are_found_by_parent() {
        let mut child = command("sleep", &["60"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        wait_until("sleep", Duration::from_secs(5), || Ok(children(own).contains(&(pid, "sleep".into())))).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
