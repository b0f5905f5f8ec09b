//! One installation of Shiplock beside a lab: the server as a process of this machine, agents on the nodes, and the
//! command line as a person has it.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lab::Lab;

/// The port on which the server serves agents.
const AGENT_PORT: u16 = 7443;
/// The name under which the lab's cluster is registered.
pub(crate) const CLUSTER: &str = "lab";

/// The programs under test.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// `shiplock`.
    shiplock: PathBuf,
    /// `shiplock-agent`.
    agent: PathBuf,
}

impl Programs {
    /// Builds both, so that what is tested is what is in the tree; or takes those of the directory that
    /// `SHIPLOCK_E2E_PROGRAMS` names, for a build that is about to be released.
    pub(crate) fn find() -> Result<Self> {
        if let Some(given) = Self::given()? {
            return Ok(given);
        }
        let built = built(&["--package", "shiplock-cli", "--package", "shiplock-agent"])?;
        Ok(Self { shiplock: executable(&built, "shiplock")?, agent: executable(&built, "shiplock-agent")? })
    }

    /// Builds both as they are released, for measurements; or takes those that are given.
    pub(crate) fn released() -> Result<Self> {
        if let Some(given) = Self::given()? {
            return Ok(given);
        }
        let shiplock = built(&["--package", "shiplock-cli", "--release"])?;
        let agent = built(&["--package", "shiplock-agent", "--profile", "agent"])?;
        Ok(Self { shiplock: executable(&shiplock, "shiplock")?, agent: executable(&agent, "shiplock-agent")? })
    }

    fn given() -> Result<Option<Self>> {
        let Some(directory) = std::env::var_os("SHIPLOCK_E2E_PROGRAMS").map(PathBuf::from) else { return Ok(None) };
        let programs = Self { shiplock: directory.join("shiplock"), agent: directory.join("shiplock-agent") };
        for program in [&programs.shiplock, &programs.agent] {
            ensure!(program.is_file(), "{} is not there", program.display());
        }
        Ok(Some(programs))
    }

    /// `shiplock`.
    pub(crate) fn shiplock(&self) -> &Path {
        &self.shiplock
    }

    /// `shiplock-agent`.
    pub(crate) fn agent(&self) -> &Path {
        &self.agent
    }
}

/// Runs `cargo build` and hands back what it tells of it.
pub(crate) fn built(arguments: &[&str]) -> Result<String> {
    let output = crate::ci::cargo_command()
        .args([&["build", "--message-format", "json"], arguments].concat())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo build cannot be started")?;
    ensure!(output.status.success(), "`cargo build {}` failed", arguments.join(" "));
    String::from_utf8(output.stdout).context("cargo prints text")
}

/// Where an executable is that was built.
pub(crate) fn executable(built: &str, name: &str) -> Result<PathBuf> {
    built
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo built no {name}"))
}

/// A server, its data directory, and the lab that it works on.
pub(crate) struct Installation<'a> {
    /// The lab.
    pub(crate) lab: &'a Lab,
    programs: Programs,
    data_directory: PathBuf,
    agent_port: u16,
    server: Option<Child>,
}

impl<'a> Installation<'a> {
    /// An installation with an empty data directory; its server is not started yet.
    pub(crate) fn new(lab: &'a Lab, name: &str, agent_port_offset: u16) -> Result<Self> {
        Self::with_programs(lab, name, agent_port_offset, Programs::find()?)
    }

    fn with_programs(lab: &'a Lab, name: &str, agent_port_offset: u16, programs: Programs) -> Result<Self> {
        let data_directory = lab.folder().join(name);
        let _ = fs::remove_dir_all(&data_directory);
        fs::create_dir_all(&data_directory).with_context(|| format!("{} cannot be made", data_directory.display()))?;
        Ok(Self { lab, programs, data_directory, agent_port: AGENT_PORT + agent_port_offset, server: None })
    }

    /// A server with the lab's cluster registered and an agent on each node.
    pub(crate) fn ready(lab: &'a Lab) -> Result<Self> {
        Self::ready_with(lab, Programs::find()?)
    }

    /// The same with programs that were built before.
    pub(crate) fn ready_with(lab: &'a Lab, programs: Programs) -> Result<Self> {
        let mut installation = Self::with_programs(lab, "shiplock", 0, programs)?;
        installation.start_server()?;
        installation.add_cluster(CLUSTER)?;
        let nodes = lab.node_names()?;
        for node in &nodes {
            installation.join(node)?;
        }
        installation.until_heard()?;
        Ok(installation)
    }

    /// Waits until the server that runs has heard of the agent of every node.
    pub(crate) fn until_heard(&mut self) -> Result<()> {
        let nodes = self.lab.node_names()?.len();
        self.until("every agent is heard of", Duration::from_secs(60), |installation| {
            let agents = installation.json(&["agent", "list", CLUSTER])?;
            let heard =
                agents["agents"].as_array().into_iter().flatten().filter(|agent| !agent["last_heard_at"].is_null());
            Ok(heard.count() == nodes)
        })
    }

    /// The data directory.
    pub(crate) fn data_directory(&self) -> &Path {
        &self.data_directory
    }

    /// Uses another data directory of a stopped server.
    pub(crate) fn use_data_directory(&mut self, directory: PathBuf) {
        self.data_directory = directory;
    }

    /// Starts the server and waits until it answers.
    pub(crate) fn start_server(&mut self) -> Result<()> {
        self.start_server_with(&[])
    }

    /// The same with further options of `serve`.
    pub(crate) fn start_server_with(&mut self, options: &[&str]) -> Result<()> {
        let log = self.lab.folder().join("server.log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("{} cannot be written", log.display()))?;
        let address = self.lab.bridge_address();
        let (listen, url) =
            (format!("{address}:{}", self.agent_port), format!("https://{address}:{}", self.agent_port));
        let child = Command::new(&self.programs.shiplock)
            .args(["serve", "--agent-listen", &listen, "--agent-url", &url, "--data-dir"])
            .arg(&self.data_directory)
            .args(options)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("the server cannot be started")?;
        self.server = Some(child);
        self.until("the server answers", Duration::from_secs(30), |installation| {
            if let Some(status) = installation.server.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                bail!("the server ended with {status}");
            }
            Ok(installation.shiplock(&["cluster", "list"])?.status.success())
        })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.server.as_ref().context("the server does not run")?.id();
        let pid = Pid::from_raw(i32::try_from(id)?).context("a process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// The process id of the server.
    pub(crate) fn server_pid(&self) -> Result<u32> {
        Ok(self.server.as_ref().context("the server does not run")?.id())
    }

    /// Ends the server without a chance to do anything.
    pub(crate) fn kill_server(&mut self) -> Result<()> {
        let mut child = self.server.take().context("the server does not run")?;
        child.kill().context("the server cannot be killed")?;
        child.wait().map(drop).context("the server does not end")
    }

    /// Freezes the server.
    pub(crate) fn freeze_server(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Thaws the server.
    pub(crate) fn thaw_server(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Registers the lab's cluster.
    pub(crate) fn add_cluster(&self, name: &str) -> Result<()> {
        self.add_cluster_with_mirror(name, &self.lab.mirror_url())
    }

    /// Registers the lab's cluster with another mirror than the lab's.
    pub(crate) fn add_cluster_with_mirror(&self, name: &str, mirror: &str) -> Result<()> {
        let kubeconfig = self.lab.kubeconfig_path();
        let kubeconfig = kubeconfig.to_string_lossy();
        self.ok(&["cluster", "add", name, "--kubeconfig", &kubeconfig, "--mirror", mirror]).map(drop)
    }

    /// Puts an agent onto a node and enrols it, by the command that the product prints. An installation before, of which
    /// nothing but its agents is left, may have had the node.
    pub(crate) fn join(&self, node: &str) -> Result<()> {
        self.lab.copy_into(node, &self.programs.agent, "/usr/local/bin/shiplock-agent", 0o755)?;
        let token = self.json(&["agent", "join-command", CLUSTER])?;
        let command = token["join_token"]["command"].as_str().context("the join command is printed")?.to_owned();
        self.lab
            .exec_text(node, &["sh", "-c", &format!("{command} --replace")])
            .with_context(|| format!("the agent of {node} does not enrol"))
            .map(drop)
    }

    /// Runs the command line.
    pub(crate) fn shiplock(&self, words: &[&str]) -> Result<Output> {
        Command::new(&self.programs.shiplock)
            .args(words)
            .env("SHIPLOCK_SERVER", self.data_directory.join("shiplock.sock"))
            .env("SHIPLOCK_LANG", "en")
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .output()
            .context("shiplock cannot be started")
    }

    /// Runs the command line, which must succeed, and hands back what it prints.
    pub(crate) fn ok(&self, words: &[&str]) -> Result<String> {
        let output = self.shiplock(words)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            output.status.success(),
            "`shiplock {}` ended with {}: {text}{}",
            words.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(text)
    }

    /// Runs the command line for a result that programs read.
    pub(crate) fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.ok(&[words, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("`shiplock {}` prints no JSON: {text}", words.join(" ")))
    }

    /// Runs a command line that must be refused with a code, and hands back its exit code.
    pub(crate) fn refused(&self, words: &[&str], code: &str) -> Result<i32> {
        let output = self.shiplock(&[words, &["-o", "json"]].concat())?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words = words.join(" ");
        ensure!(!output.status.success(), "`shiplock {words}` was not refused: {text}");
        let value: Value =
            serde_json::from_str(&text).with_context(|| format!("`shiplock {words}` prints no JSON: {text}"))?;
        let found = value["error"]["code"].as_str().unwrap_or_default();
        ensure!(found == code, "`shiplock {words}` was refused with {found} instead of {code}: {text}");
        eprintln!("  {code}  shiplock {words}\n         {}", value["error"]["message"].as_str().unwrap_or_default());
        output.status.code().context("an exit code")
    }

    /// Starts an upgrade of the node pools alone, see [`Self::begin`].
    pub(crate) fn begin_pools(&self, options: &[&str]) -> Result<String> {
        self.begin(&[&["--node-pools-only"], options].concat())
    }

    /// Starts an upgrade without staying attached, and hands back its id.
    pub(crate) fn begin(&self, options: &[&str]) -> Result<String> {
        self.begin_to("1.36", options)
    }

    /// The same to another version than the usual one.
    pub(crate) fn begin_to(&self, to: &str, options: &[&str]) -> Result<String> {
        self.begin_with(&[&["upgrade", CLUSTER, "--to", to], options].concat())
    }

    /// Has a command line start an upgrade without staying attached: its id, also where checks then block the start.
    pub(crate) fn begin_with(&self, words: &[&str]) -> Result<String> {
        let output = self.shiplock(&[words, &["--yes", "--detach", "-o", "json"]].concat())?;
        let text = String::from_utf8_lossy(&output.stdout);
        let started: Value = serde_json::from_str(&text)
            .with_context(|| format!("`shiplock {}` prints no JSON: {text}", words.join(" ")))?;
        started["upgrade"]["id"].as_str().map(str::to_owned).with_context(|| format!("no id in {started}"))
    }

    /// Shows an upgrade as its operator sees it, on this terminal, until it ends or the view is dropped. Ctrl-C is not for
    /// the view: it ends the whole run, so the view is of a process group of its own.
    pub(crate) fn watch(&self, id: &str) -> Result<View> {
        eprintln!("Ctrl-C ends this run and removes its cluster.");
        Command::new(&self.programs.shiplock)
            .arg("--server")
            .arg(self.data_directory.join("shiplock.sock"))
            .args(["watch", id, "--after", "0", "--embedded"])
            .process_group(0)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .spawn()
            .map(View)
            .context("shiplock cannot be started")
    }

    /// Watches an upgrade from its begin and keeps what is said, line by line.
    pub(crate) fn watch_in_text(&self, id: &str) -> Result<Watched> {
        let path = self.lab.folder().join(format!("watched-{id}"));
        let child = Command::new(&self.programs.shiplock)
            .arg("--server")
            .arg(self.data_directory.join("shiplock.sock"))
            .args(["watch", id, "--after", "0", "--stay", "--progress", "plain"])
            .env("SHIPLOCK_LANG", "en")
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&path)?)
            .spawn()
            .context("shiplock cannot be started")?;
        Ok(Watched { view: View(child), path })
    }

    /// An upgrade as programs see it.
    pub(crate) fn upgrade(&self, id: &str) -> Result<Value> {
        Ok(self.json(&["upgrades", "show", id])?["upgrade"].clone())
    }

    /// The events of an upgrade.
    pub(crate) fn events(&self, id: &str) -> Result<Vec<Value>> {
        let shown = self.json(&["upgrades", "show", id, "--events"])?;
        shown["events"].as_array().cloned().context("events are shown")
    }

    /// Waits until an upgrade is in a state. Ends early where it came to rest in another one.
    pub(crate) fn until_state(&mut self, id: &str, state: &str, bound: Duration) -> Result<Value> {
        let mut last = Value::Null;
        let result = self.until(&format!("upgrade {id} is {state}"), bound, |installation| {
            last = installation.upgrade(id)?;
            let now = last["state"].as_str().unwrap_or_default().to_owned();
            let rests = matches!(now.as_str(), "blocked" | "paused" | "cancelled" | "expired" | "succeeded");
            ensure!(
                !rests || now == state || (now == "paused" && state != "succeeded"),
                "upgrade {id} is {now}: {last}"
            );
            Ok(now == state)
        });
        result.with_context(|| format!("it stands at {last}")).map(|()| last)
    }

    /// The events of an upgrade that nobody has to come for.
    pub(crate) fn events_going_on(&self, id: &str) -> Result<Vec<Value>> {
        let upgrade = self.upgrade(id)?;
        let state = upgrade["state"].as_str().unwrap_or_default();
        ensure!(!matches!(state, "blocked" | "paused"), "it rests: {}", self.standing());
        self.events(id)
    }

    /// How every upgrade stands, with its newest events: what a person asks first when something does not go on.
    fn standing(&self) -> String {
        const NEWEST_EVENTS: usize = 15;
        let Ok(list) = self.json(&["upgrades", "list"]) else { return "the server does not answer".to_owned() };
        let ids = list["upgrades"].as_array().into_iter().flatten().filter_map(|upgrade| upgrade["id"].as_str());
        let shown = ids.map(|id| {
            let text = self.ok(&["upgrades", "show", id]).unwrap_or_else(|error| format!("{id}: {error:#}"));
            let events = self.events(id).unwrap_or_default();
            let newest = events.iter().skip(events.len().saturating_sub(NEWEST_EVENTS)).map(Value::to_string);
            format!("{text}\n{}", newest.collect::<Vec<_>>().join("\n"))
        });
        shown.collect::<Vec<_>>().join("\n")
    }

    /// Waits until something holds.
    pub(crate) fn until(
        &mut self,
        what: &str,
        bound: Duration,
        mut holds: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let begun = Instant::now();
        while !holds(self).with_context(|| format!("while waiting until {what}"))? {
            if begun.elapsed() >= bound {
                bail!("after {} s it did not come true that {what}\n{}", bound.as_secs(), self.standing());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// `shiplock watch` at work.
pub(crate) struct View(Child);

impl View {
    /// Waits until it has shown the end.
    pub(crate) fn ended(mut self) -> Result<()> {
        let status = self.0.wait().context("the view cannot be waited for")?;
        ensure!(status.success(), "shiplock watch ended with {status}");
        Ok(())
    }
}

/// `shiplock watch` whose lines are kept.
pub(crate) struct Watched {
    view: View,
    path: PathBuf,
}

impl Watched {
    /// Waits until it has shown the end, and hands back what it said.
    pub(crate) fn ended(self) -> Result<String> {
        self.view.ended()?;
        fs::read_to_string(&self.path).with_context(|| self.path.display().to_string())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Installation<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.server.take() {
            // A frozen server ends too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
