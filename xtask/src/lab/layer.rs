//! A node's system disk: small layers over one Debian system, put together by overlayfs.
//!
//! A fresh disk of any version takes less than a second and no space. A layer is built once; its
//! name carries its version, or a digest of the files that it is made of.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::archive::{short_digest, web_program};
use super::home::{Home, link, write};
use super::process::{command, run, say};
use super::versions::{CNI, CONTAINERD, PACKAGES, RELEASES, Release, SYSTEM};

const FILES: &[(&str, u32, &str)] = &[
    ("etc/systemd/system/lab-prep.service", 0o644, include_str!("../../lab-files/node/lab-prep.service")),
    ("usr/local/sbin/lab-prep", 0o755, include_str!("../../lab-files/node/lab-prep.sh")),
    ("etc/systemd/system/kubelet.service", 0o644, include_str!("../../lab-files/node/kubelet.service")),
    (
        "etc/systemd/system/kubelet.service.d/10-kubeadm.conf",
        0o644,
        include_str!("../../lab-files/node/10-kubeadm.conf"),
    ),
    ("etc/systemd/journald.conf.d/lab.conf", 0o644, include_str!("../../lab-files/node/journald.conf")),
];
const CONTAINERD_1_6: &str = include_str!("../../lab-files/node/containerd-1.6.toml");
const CONTAINERD_2_2: &str = include_str!("../../lab-files/node/containerd-2.2.toml");

/// Units that have no meaning in a node, or would wait for hardware.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "fstrim.timer",
    "e2scrub_reap.service",
    "logrotate.timer",
    "getty.target",
    "console-getty.service",
    "systemd-udevd.service",
    "systemd-udev-trigger.service",
    "systemd-logind.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "nftables.service",
    "ebtables.service",
];

/// Which containerd a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum, Default)]
pub enum Containerd {
    /// Debian's 1.6, the default.
    #[default]
    #[value(name = "1.6")]
    #[serde(rename = "1.6")]
    V1_6,
    /// The one in the mirror.
    #[value(name = "2.2")]
    #[serde(rename = "2.2")]
    V2_2,
}

/// What a system disk has on it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Disk {
    /// Version of kubelet and kubectl.
    pub kubelet: String,
    /// Version of kubeadm; it differs where an older worker joins a newer control plane.
    pub kubeadm: String,
    /// The container runtime.
    pub containerd: Containerd,
    /// Version of the control plane whose images are preloaded.
    pub images: String,
    /// Whether it is a master's disk.
    pub master: bool,
}

/// The Debian system below all disks.
pub(crate) fn system_disk(home: &Home) -> PathBuf {
    home.root().join(format!("rootfs-{}-{}", SYSTEM.0, SYSTEM.1))
}

/// Makes the Debian system.
pub(crate) fn build_system(home: &Home) -> Result<()> {
    home.make(&system_disk(home), |folder| {
        say("the nodes' Debian system: debootstrap, about a minute");
        // A mount namespace of its own: what debootstrap mounts goes with it, however it ends.
        let mut debootstrap = command("unshare", &["--mount", "--propagation", "private", "debootstrap"]);
        debootstrap.args(["--variant=minbase", &format!("--include={}", PACKAGES.join(",")), SYSTEM.0]).arg(folder);
        run(&mut debootstrap)?;
        run(command("sh", &["-c", "rm -rf \"$1\"/var/cache/apt/archives/*.deb \"$1\"/var/lib/apt/lists/*", "sh"])
            .arg(folder))?;
        Ok(())
    })
}

/// What all nodes have: units, CNI plugins, the test program.
fn common_layer(home: &Home) -> Result<PathBuf> {
    let text: String = FILES.iter().map(|(_, _, text)| *text).chain(MASKED.iter().copied()).collect();
    let web = web_program(home);
    let place =
        home.root().join("layers").join(format!("common-{}", short_digest(&format!("{text}{}", web.display()))));
    home.make(&place, |folder| {
        for (path, mode, text) in FILES {
            write(&folder.join(path), text, *mode)?;
        }
        let units = folder.join("etc/systemd/system");
        let wanted = units.join("multi-user.target.wants");
        fs::create_dir_all(&wanted)?;
        symlink("/lib/systemd/system/containerd.service", wanted.join("containerd.service"))?;
        for unit in ["kubelet.service", "lab-prep.service"] {
            symlink(format!("/etc/systemd/system/{unit}"), wanted.join(unit))?;
        }
        for unit in MASKED {
            symlink("/dev/null", units.join(unit))?;
        }
        for path in ["etc/cni/net.d", "etc/kubernetes", "usr/lib/modules", "var/lib/containerd"] {
            fs::create_dir_all(folder.join(path))?;
        }
        link_programs(&home.bin("cni-plugins", CNI), &folder.join("opt/cni/bin"), None)?;
        link(&web, &folder.join("usr/local/bin/web"))
    })?;
    Ok(place)
}

fn link_programs(from: &Path, to: &Path, names: Option<&[&str]>) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if names.is_none_or(|names| names.iter().any(|name| entry.file_name() == **name)) {
            link(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// A layer with some programs of one build in /usr/bin.
fn program_layer(home: &Home, layer: &str, build: &str, version: &str, names: &[&str]) -> Result<PathBuf> {
    let built = home.bin(build, version);
    if !built.exists() {
        let release = RELEASES.iter().find(|release| [release.kubernetes, release.etcd].contains(&version));
        let minor = release.map_or("VERSION", |release| release.minor);
        bail!("{build} {version} is not built; run `cargo xtask lab build --kubernetes {minor}` first");
    }
    let place = home.root().join("layers").join(format!("{layer}-{version}"));
    home.make(&place, |folder| link_programs(&built, &folder.join("usr/bin"), Some(names)))?;
    Ok(place)
}

fn containerd_layer(home: &Home, version: Containerd) -> Result<PathBuf> {
    let (name, config) = match version {
        Containerd::V1_6 => ("1.6", CONTAINERD_1_6),
        Containerd::V2_2 => (CONTAINERD, CONTAINERD_2_2),
    };
    let place = home.root().join("layers").join(format!("containerd-{name}-{}", short_digest(config)));
    home.make(&place, |folder| {
        write(&folder.join("etc/containerd/config.toml"), config, 0o644)?;
        match version {
            Containerd::V1_6 => Ok(()),
            Containerd::V2_2 => link_programs(&home.bin("containerd", CONTAINERD), &folder.join("usr/bin"), None),
        }
    })?;
    Ok(place)
}

/// All layers of a disk, the uppermost first, built where they are missing.
pub(crate) fn layers_of(home: &Home, disk: &Disk) -> Result<Vec<PathBuf>> {
    let mut layers = Vec::new();
    layers.push(program_layer(home, "kubeadm", "kubernetes", &disk.kubeadm, &["kubeadm"])?);
    layers.push(program_layer(home, "kubelet", "kubernetes", &disk.kubelet, &["kubelet", "kubectl"])?);
    if disk.master {
        let etcd = Release::find(&disk.images)?.etcd;
        layers.push(program_layer(home, "etcd", "etcd", etcd, &["etcdctl", "etcdutl"])?);
    }
    layers.push(containerd_layer(home, disk.containerd)?);
    layers.push(common_layer(home)?);
    let system = system_disk(home);
    if !system.exists() {
        bail!("the nodes' Debian system is not built; run `cargo xtask lab build` first");
    }
    layers.push(system);
    Ok(layers)
}
