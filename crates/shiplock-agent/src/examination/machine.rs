//! The machine itself: system, kernel, disks, swap, time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use shiplock_core::facts::examination::{FileSystem, Kernel, Look, OperatingSystem, TimeService};

use super::in_words;
use crate::host::Host;
use crate::steps::READ_LIMIT;

/// Folders that an upgrade writes to, and those that the node cannot do without.
const FOLDERS: [&str; 5] = ["/", "/var/lib/kubelet", "/var/lib/containerd", "/var/lib/etcd", "/etc/kubernetes"];
/// What containers and kube-proxy need, see
/// <https://kubernetes.io/docs/setup/production-environment/container-runtimes/#network-configuration>.
/// With each stands what the kernel shows of it where it is built in: then no module of that name need be listed.
const MODULES: [(&str, &str); 3] = [
    ("overlay", "/sys/module/overlay"),
    ("br_netfilter", "/proc/sys/net/bridge/bridge-nf-call-iptables"),
    ("nf_conntrack", "/proc/sys/net/netfilter/nf_conntrack_count"),
];
/// Words of the kernel when a file system is ill.
const ILL: [&str; 6] = [
    "EXT4-fs error",
    "XFS: Corruption",
    "xfs_do_force_shutdown",
    "Remounting filesystem read-only",
    "BTRFS error",
    "metadata I/O error",
];
/// The newest lines of the kernel that are shown.
const LINES_MAX: usize = 3;

pub(super) struct Reader<'a, H> {
    pub(super) host: &'a H,
    pub(super) data_folder: &'a Path,
}

impl<H: Host> Reader<'_, H> {
    fn read(&self, path: &str) -> Result<String, String> {
        fs::read_to_string(self.host.at(path)).map_err(|error| format!("{path}: {error}"))
    }

    pub(super) fn operating_system(&self) -> Look<OperatingSystem> {
        let text = self.read("/etc/os-release").or_else(|_| self.read("/usr/lib/os-release"))?;
        Ok(OperatingSystem::of_os_release(&text))
    }

    pub(super) async fn kernel(&self) -> Kernel {
        let release = self.read("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let mut missing_modules = Vec::new();
        for (module, shown) in MODULES {
            let loaded = [&format!("/sys/module/{module}"), shown].into_iter().any(|path| self.host.at(path).exists());
            let known =
                self.read("/proc/filesystems").is_ok_and(|text| text.lines().any(|line| line.ends_with(module)));
            let loadable = async {
                let Some(program) = self.host.find_program("modprobe") else { return false };
                let tried = self.host.output(&program, &["--dry-run", "--quiet", module], READ_LIMIT).await;
                tried.is_ok_and(|output| output.success)
            };
            if !loaded && !known && !loadable.await {
                missing_modules.push(module.to_owned());
            }
        }
        Kernel { release, missing_modules }
    }

    pub(super) async fn systemd_version(&self) -> Look<String> {
        let output = self.host.output("systemctl", &["--version"], READ_LIMIT).await.map_err(in_words)?;
        // `systemd 252 (252.39-1~deb12u1)`, `systemd 219`
        let line = output.text.lines().next().unwrap_or_default();
        let detail = line.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(detail, _)| detail);
        let version = detail.or_else(|| line.split_whitespace().nth(1));
        version.map(str::to_owned).ok_or_else(|| "systemctl does not say its version".to_owned())
    }

    /// The unified hierarchy has this file at its root.
    pub(super) fn cgroup_version(&self) -> Look<u8> {
        if self.host.at("/sys/fs/cgroup/cgroup.controllers").exists() {
            Ok(2)
        } else if self.host.at("/sys/fs/cgroup").is_dir() {
            Ok(1)
        } else {
            Err("/sys/fs/cgroup is not there".to_owned())
        }
    }

    pub(super) fn file_systems(&self) -> Vec<FileSystem> {
        let mut found: BTreeMap<u64, FileSystem> = BTreeMap::new();
        let folders = FOLDERS.iter().map(|path| self.host.at(path)).chain([self.data_folder.to_owned()]);
        for folder in folders.filter(|folder| folder.exists()) {
            let Ok((device, space)) = self.host.space(&folder) else { continue };
            let path = self.host.node_path(&folder);
            found
                .entry(device)
                .and_modify(|known| known.path.push_str(&format!(", {path}")))
                .or_insert(FileSystem { path, ..space });
        }
        found.into_values().collect()
    }

    pub(super) async fn file_system_errors(&self) -> Look<Vec<String>> {
        let arguments = ["--dmesg", "--no-pager", "--quiet", "--since=-1day", "--priority=err", "--output=cat"];
        let output = self.host.output("journalctl", &arguments, READ_LIMIT).await.map_err(in_words)?;
        let mut lines: Vec<String> =
            output.text.lines().filter(|line| ILL.iter().any(|word| line.contains(word))).map(str::to_owned).collect();
        lines.drain(..lines.len().saturating_sub(LINES_MAX));
        Ok(lines)
    }

    /// The first line of `/proc/swaps` is a heading.
    pub(super) fn swaps(&self) -> Look<Vec<String>> {
        let text = self.read("/proc/swaps")?;
        Ok(text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    pub(super) async fn time(&self) -> Look<TimeService> {
        let told =
            self.host.output("timedatectl", &["show", "--property=NTPSynchronized", "--value"], READ_LIMIT).await;
        if let Ok(output) = told
            && let word @ ("yes" | "no") = output.text.trim()
        {
            return Ok(TimeService { is_synchronized: word == "yes", told_by: "timedatectl".to_owned() });
        }
        let Some(program) = self.host.find_program("chronyc") else {
            // Neither service is there, so nothing keeps the clock that could tell.
            let by = "neither timedatectl nor chronyc answers".to_owned();
            return Ok(TimeService { is_synchronized: false, told_by: by });
        };
        let output = self.host.output(&program, &["tracking"], READ_LIMIT).await.map_err(in_words)?;
        let leap = output.text.lines().find_map(|line| line.strip_prefix("Leap status")).unwrap_or_default();
        let is_synchronized = output.success && leap.trim_start_matches([' ', ':']).trim() == "Normal";
        Ok(TimeService { is_synchronized, told_by: "chronyc".to_owned() })
    }
}
