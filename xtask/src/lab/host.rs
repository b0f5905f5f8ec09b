//! What this machine must be before a lab can run on it: root, programs, space, kernel.
//!
//! Everything missing is either put right here, with a line that says so, or is an error that
//! says what, why and what to do. Nothing is skipped.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::home::Home;
use super::process::{command, run, say, succeeds};

/// Programs and the Debian packages that bring them.
const BUILD_PROGRAMS: &[(&str, &str)] = &[
    ("debootstrap", "debootstrap"),
    ("gcc", "gcc"),
    ("busybox", "busybox-static"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("curl", "curl"),
    ("unshare", "util-linux"),
    ("sha256sum", "coreutils"),
];
const RUN_PROGRAMS: &[(&str, &str)] = &[
    ("systemd-nspawn", "systemd-container"),
    ("haproxy", "haproxy"),
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("setsid", "util-linux"),
    ("sysctl", "procps"),
    ("kill", "procps"),
];
/// Not a program, but gcc without it cannot link.
const LIBC_HEADERS: (&str, &str) = ("/usr/include/stdio.h", "libc6-dev");

/// Free space that a whole build needs.
const BUILD_GIB: u64 = 12;
/// Free space that a running lab needs: system disks grow by logs and images.
const RUN_GIB: u64 = 3;

/// Refuses anybody but root.
pub(crate) fn require_root() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("the lab needs root: it mounts, makes network bridges and starts whole systems; run it with sudo");
    }
    Ok(())
}

/// Everything that `lab build` needs beyond its own folder. Where all is built (`is_whole`), it needs no room to build.
pub(crate) fn prepare_build(home: &Home, is_whole: bool) -> Result<()> {
    require_root()?;
    install(BUILD_PROGRAMS)?;
    install(RUN_PROGRAMS)?;
    if !Path::new(LIBC_HEADERS.0).exists() {
        install_packages(&[LIBC_HEADERS.1])?;
    }
    require_static_busybox()?;
    require_go()?;
    require_disk(home, if is_whole { RUN_GIB } else { BUILD_GIB })
}

/// Everything that a running lab needs.
pub(crate) fn prepare_run(home: &Home) -> Result<()> {
    require_root()?;
    install(RUN_PROGRAMS)?;
    require_disk(home, RUN_GIB)?;
    require_local_disk(home)?;
    if !fs::read_to_string("/proc/filesystems").is_ok_and(|text| text.contains("overlay")) {
        let _ = succeeds(&mut command("modprobe", &["overlay"]));
    }
    // One kubelet takes a few hundred watches, and all nodes are one user to the kernel.
    for (key, least) in [("fs.inotify.max_user_instances", 8192_u64), ("fs.inotify.max_user_watches", 1_048_576)] {
        let now: u64 = run(&mut command("sysctl", &["-n", key]))?.trim().parse().unwrap_or(0);
        if now < least {
            run(&mut command("sysctl", &["-qw", &format!("{key}={least}")]))?;
        }
    }
    run(&mut command("sysctl", &["-qw", "net.ipv4.ip_forward=1"]))?;
    Ok(())
}

fn on_path(program: &str) -> bool {
    std::env::split_paths(&super::process::search_path()).any(|folder| folder.join(program).is_file())
}

fn install(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<_> = programs.iter().filter(|(program, _)| !on_path(program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    install_packages(&packages)?;
    match missing.iter().find(|(program, _)| !on_path(program)) {
        Some((program, package)) => bail!("`{program}` is still missing after installing the package {package}"),
        None => Ok(()),
    }
}

fn install_packages(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if !on_path("apt-get") {
        bail!(
            "programs of these Debian packages are missing: {list}; install what your system calls them and try again"
        );
    }
    say(format!("installing the Debian packages {list}"));
    let mut install = command("apt-get", &["install", "-y", "--no-install-recommends"]);
    install.args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    if run(&mut install).is_ok() {
        return Ok(());
    }
    run(&mut command("apt-get", &["update", "-qq"]))
        .and_then(|_| run(&mut install))
        .with_context(|| format!("cannot install {list}; install them by hand and try again"))?;
    Ok(())
}

/// The busybox in the test image has no libraries beside it.
fn require_static_busybox() -> Result<()> {
    if succeeds(&mut command("ldd", &["/bin/busybox"])) {
        bail!("/bin/busybox is linked dynamically, but the test image needs a static one: install busybox-static");
    }
    Ok(())
}

fn require_go() -> Result<()> {
    let text = run(&mut command("go", &["env", "GOVERSION"])).context(
        "Go is needed to build Kubernetes from its published modules: install Go 1.26 or newer and try again",
    )?;
    let minor = text.trim().strip_prefix("go1.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    match minor {
        Some(minor) if minor < 26 => bail!("Go 1.{minor} is too old for Kubernetes 1.36: install Go 1.26 or newer"),
        _ => Ok(()),
    }
}

fn require_disk(home: &Home, gib: u64) -> Result<()> {
    let root = home.root();
    let space = rustix::fs::statvfs(root)?;
    let free = space.f_bavail * space.f_frsize / (1 << 30);
    if free < gib {
        bail!(
            "{} has {free} GiB free and {gib} GiB are needed: free some, or set SHIPLOCK_LAB_HOME to a larger disk",
            root.display()
        );
    }
    Ok(())
}

/// An overlay cannot lie on an overlay, which is what a container's own disk usually is.
fn require_local_disk(home: &Home) -> Result<()> {
    let root = home.root();
    let kind = run(command("stat", &["-f", "-c", "%T"]).arg(root))?;
    if kind.trim() == "overlayfs" {
        bail!(
            "{} lies on an overlay file system, where a node's disk cannot be made: set SHIPLOCK_LAB_HOME to a volume",
            root.display()
        );
    }
    Ok(())
}
