//! A control group per node, in every hierarchy, before the node starts.
//!
//! nspawn makes a cgroup namespace whose root is the group that it is started in. Without a group
//! of its own each kubelet would see the same `/kubepods` and take the others' pods for orphans.
//! A group also names every process of a node, which is how a crashed lab is cleaned up.
//!
//! Proved on cgroup v1 (hybrid). A machine with v2 only is handled by the same code with the
//! v2 rules (controllers handed down, commands join the group of the node's init); that way is
//! not proved yet, and `up` says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::process::{send, wait_until};

/// The groups of one node, or of a whole lab where the path has one part only.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    /// Path below each hierarchy: `shiplock-lab0/m1`.
    path: PathBuf,
}

/// Mount points of all hierarchies.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let kind = after.split(' ').next()?;
            matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(before.split(' ').nth(4).unwrap_or_default()))
        })
        // systemd-nspawn mounts hierarchies under /tmp for a moment while it starts a machine: those are not the host's.
        .filter(|path| path.starts_with("/sys/fs/cgroup"))
        .collect();
    found.sort();
    found.dedup();
    if found.is_empty() {
        bail!("no cgroup hierarchy is mounted; mount /sys/fs/cgroup and try again");
    }
    Ok(found)
}

/// Whether the only hierarchy is v2.
pub(crate) fn unified_only() -> Result<bool> {
    Ok(hierarchies()?.iter().all(|root| root.join("cgroup.controllers").exists()))
}

impl Cgroup {
    /// The group of a whole lab.
    pub(crate) fn of_lab(lab: u8) -> Self {
        Self { path: format!("shiplock-lab{lab}").into() }
    }

    /// The group of one node.
    pub(crate) fn of_node(lab: u8, node: &str) -> Self {
        Self { path: Self::of_lab(lab).path.join(node) }
    }

    fn folders(&self) -> Result<Vec<PathBuf>> {
        Ok(hierarchies()?.into_iter().map(|root| root.join(&self.path)).collect())
    }

    /// Makes the groups, ready to take processes.
    pub(crate) fn create(&self) -> Result<()> {
        let unified = unified_only()?;
        for root in hierarchies()? {
            let mut folder = root.clone();
            for part in &self.path {
                if unified {
                    hand_down_controllers(&folder);
                }
                let parent = folder.clone();
                folder.push(part);
                fs::create_dir_all(&folder).with_context(|| format!("cannot make the group {}", folder.display()))?;
                // A new v1 cpuset is empty, and an empty one takes no process.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if !unified && folder.join(file).exists() {
                        fs::write(folder.join(file), fs::read(parent.join(file))?)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The files to write a process id to before nspawn is started.
    pub(crate) fn entrances(&self) -> Result<Vec<PathBuf>> {
        Ok(self.folders()?.into_iter().map(|folder| folder.join("cgroup.procs")).collect())
    }

    /// The files to write a process id to before a command enters the running node.
    pub(crate) fn entrances_beside(&self, leader: i32) -> Result<Vec<PathBuf>> {
        if !unified_only()? {
            return self.entrances();
        }
        let text = fs::read_to_string(format!("/proc/{leader}/cgroup"))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::/")).context("the node's init has no group")?;
        Ok(hierarchies()?.into_iter().map(|root| root.join(path).join("cgroup.procs")).collect())
    }

    /// All processes in the groups.
    pub(crate) fn processes(&self) -> Result<Vec<i32>> {
        let mut found = Vec::new();
        for folder in self.folders()? {
            collect(&folder, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// Kills every process in the groups and removes them.
    pub(crate) fn destroy(&self) -> Result<()> {
        wait_until("the last processes of a node end", Duration::from_secs(30), || {
            let left = self.processes()?;
            for pid in &left {
                send(*pid, Signal::KILL);
            }
            Ok(left.is_empty())
        })?;
        for folder in self.folders()? {
            // A group stays busy for a moment after its last process.
            let gone = wait_until("group", Duration::from_secs(5), || {
                remove_tree(&folder);
                Ok(!folder.exists())
            });
            gone.with_context(|| format!("cannot remove the group {}", folder.display()))?;
        }
        Ok(())
    }
}

fn hand_down_controllers(folder: &Path) {
    let Ok(controllers) = fs::read_to_string(folder.join("cgroup.controllers")) else { return };
    for controller in controllers.split_whitespace() {
        // One by one: a controller that cannot be handed down must not keep the others back.
        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn collect(folder: &Path, found: &mut Vec<i32>) {
    if let Ok(text) = fs::read_to_string(folder.join("cgroup.procs")) {
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    for below in subfolders(folder) {
        collect(&below, found);
    }
}

fn remove_tree(folder: &Path) {
    for below in subfolders(folder) {
        remove_tree(&below);
    }
    let _ = fs::remove_dir(folder);
}
