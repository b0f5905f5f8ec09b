//! One node: a whole Debian system in a systemd-nspawn container with a disk of its own.
//!
//! The disk is an overlay that survives a stop and a power cut; `/var/lib/containerd` is a folder
//! of the real file system, because an overlay cannot lie on an overlay.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use super::cgroup::{Cgroup, unified_only};
use super::home::{Home, remove, unmount_below, write};
use super::layer::{Disk, layers_of};
use super::network::Network;
use super::process::{Recorded, children, command, last_lines, output, run, send, succeeds, wait_until};
use super::store::{copy_store, copy_store_in_full, store_for};
use super::versions::Release;

const CNI_TEMPLATE: &str = include_str!("../../lab-files/node/cni.conflist");
const BOOT: Duration = Duration::from_secs(90);
const SHUTDOWN: Duration = Duration::from_secs(45);
/// Runs a program after joining groups: `FILE… -- PROGRAM …`.
const JOIN_AND_RUN: &str = r#"while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec "$@""#;
/// As above, with the file for the process id first.
const RECORD_JOIN_AND_RUN: &str =
    r#"echo $$ > "$1"; shift; while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec "$@""#;

/// How a node is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Its system shuts down.
    Clean,
    /// All its processes are killed at once.
    PowerCut,
}

/// A node as `status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeStatus {
    /// m1, w1, …
    pub name: String,
    /// Its address on the bridge.
    pub address: String,
    /// Whether its init runs.
    pub running: bool,
    /// What it was born with.
    pub disk: Disk,
}

/// Handle of one node; the state is in its folder.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    home: Home,
    lab: u8,
    name: String,
    folder: PathBuf,
}

impl Node {
    /// The handle, whether the node exists or not.
    pub(crate) fn of(home: &Home, lab: u8, name: &str) -> Result<Self> {
        Network::index(name)?;
        let folder = home.lab(lab).join("nodes").join(name);
        Ok(Self { home: home.clone(), lab, name: name.to_owned(), folder })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn network(&self) -> Network {
        Network::of(self.lab)
    }

    fn cgroup(&self) -> Cgroup {
        Cgroup::of_node(self.lab, &self.name)
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Where the text of `what` is kept for a post-mortem.
    pub(crate) fn log(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{what}.log"))
    }

    /// Whether it has a disk.
    pub(crate) fn exists(&self) -> bool {
        self.folder.join("disk.json").exists()
    }

    pub(crate) fn disk(&self) -> Result<Disk> {
        let text = fs::read_to_string(self.folder.join("disk.json"))
            .with_context(|| format!("lab {} has no node {}; see `cargo xtask lab status`", self.lab, self.name))?;
        Ok(serde_json::from_str(&text)?)
    }

    pub(crate) fn status(&self) -> Result<NodeStatus> {
        Ok(NodeStatus {
            name: self.name.clone(),
            address: self.network().address(&self.name)?,
            running: self.leader().is_some(),
            disk: self.disk()?,
        })
    }

    /// Gives it a fresh disk. `small` puts `/var/lib/containerd` on a real file system of so many GiB.
    pub(crate) fn prepare(&self, disk: &Disk, small: Option<u32>) -> Result<()> {
        let layers = layers_of(&self.home, disk)?;
        let store = store_for(&self.home, Release::find(&disk.images)?, disk.master)?;
        let network = self.network();
        for folder in ["upper", "work", "root", "containerd"] {
            fs::create_dir_all(self.folder.join(folder))?;
        }
        let containerd = self.folder.join("containerd");
        match small {
            None => copy_store(&store, &containerd)?,
            Some(gib) => {
                let image = self.folder.join("containerd.img");
                run(command("truncate", &["--size", &format!("{gib}G")]).arg(&image))?;
                run(command("mkfs.ext4", &["-q", "-F"]).arg(&image))?;
                self.mount_small_disk()?;
                copy_store_in_full(&store, &containerd)?;
            }
        }

        let upper = self.folder.join("upper");
        let machine_id = fs::read_to_string("/proc/sys/kernel/random/uuid")?.replace('-', "");
        let cni = CNI_TEMPLATE.replace("@SUBNET@", &Network::pod_net(&self.name)?);
        let kubelet = format!("KUBELET_EXTRA_ARGS=--node-ip={}\n", network.address(&self.name)?);
        for (path, text) in [
            ("etc/hostname", format!("{}\n", self.name)),
            ("etc/machine-id", machine_id),
            // Not a loopback address, or CoreDNS would ask itself. Nobody answers there.
            ("etc/resolv.conf", format!("nameserver {}\n", network.gateway())),
            ("etc/hosts", network.hosts()?),
            ("etc/lab-node", network.node_settings(&self.name)?),
            ("etc/cni/net.d/10-lab.conflist", cni),
            ("etc/default/kubelet", kubelet),
        ] {
            write(&upper.join(path), &text, 0o644)?;
        }
        let lower: Vec<String> = layers.iter().map(|layer| layer.to_string_lossy().into_owned()).collect();
        fs::write(self.folder.join("lower"), lower.join(":"))?;
        // Written last: a folder with it is a node.
        fs::write(self.folder.join("disk.json"), serde_json::to_vec(disk)?)?;
        Ok(())
    }

    fn mount_small_disk(&self) -> Result<()> {
        let containerd = self.folder.join("containerd");
        if !succeeds(command("mountpoint", &["-q"]).arg(&containerd)) {
            run(command("mount", &["-o", "loop"]).arg(self.folder.join("containerd.img")).arg(containerd))?;
        }
        Ok(())
    }

    /// Mounts the disk where it is not (after a reboot of the machine it is not).
    fn mount(&self) -> Result<()> {
        if self.folder.join("containerd.img").exists() {
            self.mount_small_disk()?;
        }
        if succeeds(command("mountpoint", &["-q"]).arg(self.root())) {
            return Ok(());
        }
        let lower = fs::read_to_string(self.folder.join("lower"))?;
        let (upper, work) = (self.folder.join("upper"), self.folder.join("work"));
        let options = format!("lowerdir={lower},upperdir={},workdir={}", upper.display(), work.display());
        run(command("mount", &["-t", "overlay", "overlay", "-o", &options]).arg(self.root()))?;
        Ok(())
    }

    /// Boots it. Use [`Self::wait_booted`] to know when it is up.
    pub(crate) fn boot(&self) -> Result<()> {
        self.disk()?;
        if self.nspawn().is_some() {
            bail!("{} runs already", self.name);
        }
        self.clear();
        self.mount()?;
        let cgroup = self.cgroup();
        cgroup.create()?;
        let console = fs::File::create(self.log("console"))?;
        let containerd = format!("{}:/var/lib/containerd", self.folder.join("containerd").display());
        let mut start = command("setsid", &["sh", "-c", RECORD_JOIN_AND_RUN, "lab-node"]);
        start.arg(self.folder.join("pid")).args(cgroup.entrances()?).args(["--", "systemd-nspawn", "-q", "-D"]);
        start.arg(self.root()).args(["-M", &self.network().machine(&self.name), "--boot", "--register=no"]);
        start.args(["--keep-unit", &format!("--network-bridge={}", self.network().bridge()), "--capability=all"]);
        start.arg("--system-call-filter=@keyring @mount bpf perf_event_open kexec_load init_module");
        start.args(["--bind=/dev/kmsg", &format!("--bind={containerd}"), "--console=read-only"]);
        start.args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"]);
        start.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", if unified_only()? { "1" } else { "0" });
        start.env("SYSTEMD_NSPAWN_LOCK", "0").stdout(console.try_clone()?).stderr(console);
        let mut child = start.spawn().context("cannot start systemd-nspawn")?;
        // Somebody must take its exit code while this process lives.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    /// Waits until its first unit is done and its containerd runs.
    pub(crate) fn wait_booted(&self) -> Result<()> {
        let booted = wait_until(&format!("{} boots", self.name), BOOT, || {
            let ready = "test -e /run/lab-ready && systemctl -q is-active containerd";
            Ok(self.leader().is_some()
                && self.command(&["sh", "-c", ready]).is_ok_and(|mut command| succeeds(&mut command)))
        });
        booted.with_context(|| {
            let text = fs::read_to_string(self.log("console")).unwrap_or_default();
            format!("its console said last: {}", text.lines().rev().take(5).collect::<Vec<_>>().join(" | "))
        })
    }

    fn nspawn(&self) -> Option<Recorded> {
        Recorded::read(&self.folder.join("pid"), &self.root().to_string_lossy())
    }

    /// Process id of the node's init, seen from this machine.
    pub(crate) fn leader(&self) -> Option<i32> {
        let nspawn = self.nspawn()?;
        children(nspawn.pid()).into_iter().find(|(_, name)| name == "systemd").map(|(pid, _)| pid)
    }

    /// A command in the node, ready to run, to spawn or to get a stdin.
    pub(crate) fn command(&self, words: &[&str]) -> Result<Command> {
        let Some(leader) = self.leader() else {
            self.disk()?;
            bail!("{} does not run; start it with `cargo xtask lab start {}`", self.name, self.name);
        };
        let mut enter = command("sh", &["-c", JOIN_AND_RUN, "lab-exec"]);
        enter.args(self.cgroup().entrances_beside(leader)?);
        enter.args(["--", "nsenter", "-t", &leader.to_string(), "-m", "-u", "-i", "-n", "-p", "-C"]);
        enter.args(["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
        enter.args(["HOME=/root", "TERM=dumb", "LANG=C.UTF-8"]).args(words);
        Ok(enter)
    }

    /// Runs a command that must succeed; its stdout. The error names the words, not how they get there.
    pub(crate) fn run(&self, words: &[&str]) -> Result<String> {
        let output = output(&mut self.command(words)?)?;
        if !output.status.success() {
            bail!("`{}` on {} failed ({}): {}", words.join(" "), self.name, output.status, last_lines(&output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Copies a file into the node: written beside its place and renamed, so that a running
    /// program can be replaced. A stopped node gets it on its disk.
    pub(crate) fn copy_into(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        if !to.starts_with('/') {
            bail!("the target {to:?} in {} must be an absolute path", self.name);
        }
        let source = fs::File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
        if self.leader().is_some() {
            let script = r#"set -e; mkdir -p "$(dirname "$1")"; cat > "$1.incoming"; chmod "$2" "$1.incoming"; mv -f "$1.incoming" "$1""#;
            let mut copy = self.command(&["sh", "-c", script, "copy", to, &format!("{mode:o}")])?;
            run(copy.stdin(Stdio::from(source)))?;
            return Ok(());
        }
        self.disk()?;
        self.mount()?;
        let place = self.root().join(to.trim_start_matches('/'));
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        let incoming = place.with_extension("incoming");
        fs::copy(from, &incoming)?;
        fs::set_permissions(&incoming, fs::Permissions::from_mode(mode))?;
        Ok(fs::rename(incoming, place)?)
    }

    /// Stops it. Its disk stays.
    pub(crate) fn stop(&self, how: Stop) -> Result<()> {
        if let Some(nspawn) = self.nspawn() {
            match (how, self.leader()) {
                (Stop::Clean, Some(leader)) => {
                    // To systemd in a container this signal means: power off.
                    run(&mut command("kill", &["-s", "RTMIN+4", &leader.to_string()]))?;
                    let ended = wait_until(&format!("{} shuts down", self.name), SHUTDOWN, || Ok(!nspawn.runs()));
                    if ended.is_err() {
                        super::process::say(format!("{} does not shut down by itself: killed", self.name));
                    }
                }
                (Stop::PowerCut | Stop::Clean, _) => {}
            }
            send(nspawn.pid(), Signal::KILL);
        }
        self.cgroup().destroy()?;
        self.clear();
        Ok(())
    }

    /// Removes what a killed nspawn leaves.
    fn clear(&self) {
        let _ = fs::remove_file(self.folder.join("pid"));
        self.network().remove_cable(&self.name);
    }

    /// Removes its disk. It must be stopped.
    pub(crate) fn wipe(&self) -> Result<()> {
        unmount_below(&self.folder)?;
        remove(&self.folder)
    }
}
