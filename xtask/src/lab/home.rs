//! Where the lab keeps what it builds and what it runs.
//!
//! It lies outside the clone, because a build is 20 minutes and a clone is thrown away often:
//! `SHIPLOCK_LAB_HOME`, else `/var/cache/shiplock-lab`. Whatever is built is made under a
//! temporary name beside its place and renamed when it is whole, so that an interrupted build
//! leaves nothing that looks finished.
//!
//! ```text
//! bin/NAME-VERSION/        programs          rootfs-…/   the nodes' Debian system
//! images/                  OCI archives      layers/     what lies over it on a system disk
//! mirror/                  the artefacts     stores/     preloaded /var/lib/containerd
//! labs/ID/                 running clusters  locks/
//! ```

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, flock};

use super::process::{command, run, say};

const DEFAULT: &str = "/var/cache/shiplock-lab";
const TEMPORARY: &str = ".tmp-";

/// The folder that holds the builds and the labs.
#[derive(Debug, Clone)]
pub struct Home {
    root: PathBuf,
}

/// An exclusive lock, given back when it is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Home {
    /// `SHIPLOCK_LAB_HOME`, else the default; made where it is missing.
    pub fn open() -> Result<Self> {
        let root = match std::env::var_os("SHIPLOCK_LAB_HOME") {
            Some(path) if !path.is_empty() => PathBuf::from(path),
            _ => PathBuf::from(DEFAULT),
        };
        if !root.is_absolute() {
            bail!("SHIPLOCK_LAB_HOME must be an absolute path, not {}", root.display());
        }
        for folder in ["bin", "images", "layers", "stores", "labs", "locks", "mirror"] {
            fs::create_dir_all(root.join(folder)).with_context(|| {
                format!(
                    "cannot make the lab's folder {}; run as root, or set SHIPLOCK_LAB_HOME to a folder on a local disk",
                    root.display()
                )
            })?;
        }
        Ok(Self { root })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Programs of one build, e.g. `kubernetes`, `1.36.3`.
    pub fn bin(&self, name: &str, version: &str) -> PathBuf {
        self.root.join("bin").join(format!("{name}-{version}"))
    }

    /// The mirror of artefacts, as a directory.
    pub fn mirror(&self) -> PathBuf {
        self.root.join("mirror")
    }

    /// The folder of one lab.
    pub(crate) fn lab(&self, id: u8) -> PathBuf {
        self.root.join("labs").join(id.to_string())
    }

    /// Takes a lock, and says so if somebody else has it.
    pub(crate) fn lock(&self, name: &str) -> Result<Lock> {
        let path = self.root.join("locks").join(name);
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            say(format!("waiting: another process works on {name}"));
            flock(&file, FlockOperation::LockExclusive).with_context(|| format!("cannot lock {}", path.display()))?;
        }
        Ok(Lock { _file: file })
    }

    /// Makes `place` (a folder or file) whole or not at all: `make` gets a temporary name.
    pub(crate) fn make(&self, place: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        if place.exists() {
            return Ok(());
        }
        let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
            bail!("{} is no place to build", place.display());
        };
        fs::create_dir_all(parent)?;
        let temporary = temporary(parent, &name.to_string_lossy());
        let made = make(&temporary).and_then(|()| {
            fs::rename(&temporary, place).with_context(|| format!("cannot put {} in place", place.display()))
        });
        if made.is_err() {
            let _ = remove(&temporary);
        }
        // Another process may have been faster with the same thing.
        if place.exists() { Ok(()) } else { made }
    }

    /// Removes what processes left that were interrupted. What a living one works on stays.
    pub(crate) fn sweep(&self) -> Result<()> {
        for folder in ["", "bin", "images", "layers", "stores", "mirror"] {
            let Ok(entries) = fs::read_dir(self.root.join(folder)) else { continue };
            for entry in entries.flatten() {
                if is_left_over(&entry.file_name().to_string_lossy()) {
                    remove(&entry.path())?;
                }
            }
        }
        Ok(())
    }
}

/// A name that no other process or thread uses, and that tells whose it is.
pub(crate) fn temporary(parent: &Path, name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    parent.join(format!("{TEMPORARY}{}-{count}-{name}", std::process::id()))
}

fn is_left_over(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(TEMPORARY) else { return false };
    let owner = rest.split('-').next().unwrap_or_default();
    owner == std::process::id().to_string() || !Path::new("/proc").join(owner).exists() || owner.is_empty()
}

/// Unmounts everything at and below a path, the last mounted first.
pub(crate) fn unmount_below(path: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| point.replace("\\040", " "));
    let mut below: Vec<String> = points.filter(|point| Path::new(point).starts_with(path)).collect();
    below.reverse();
    for point in below {
        if run(&mut command("umount", &[&point])).is_err() {
            run(&mut command("umount", &["--lazy", &point]))?;
        }
    }
    Ok(())
}

/// Removes a file or tree, after unmounting what is mounted in it. Absent is fine.
pub(crate) fn remove(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_err() {
        return Ok(());
    }
    unmount_below(path)?;
    // rm and not remove_dir_all: it stays on one file system whatever happens.
    run(command("rm", &["-rf", "--one-file-system", "--"]).arg(path))?;
    Ok(())
}

/// Hard link, or a copy where the file systems differ. What is at `to` is replaced.
pub(crate) fn link(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    let _ = fs::remove_file(to);
    if fs::hard_link(from, to).is_err() {
        fs::copy(from, to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// Writes a small file with its folders and mode.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok(())
}

/// Length and time of change: enough to see that a built file is another one.
pub(crate) fn stamp(path: &Path) -> Result<String> {
    let metadata = fs::metadata(path).with_context(|| format!("{} is not built", path.display()))?;
    Ok(format!("{} {} {}", path.display(), metadata.len(), metadata.mtime()))
}

/// SHA-256 as hex. `sha256sum`, because a debug build of a Rust one takes minutes for these files.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let text = run(command("sha256sum", &["--"]).arg(path))?;
    let digest = text.split_whitespace().next().unwrap_or_default().trim_start_matches('\\');
    Ok(digest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_build_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home { root: folder.path().to_owned() };
        let place = home.bin("thing", "1");
        assert!(
            home.make(&place, |temporary| {
                fs::create_dir(temporary)?;
                bail!("cut")
            })
            .is_err()
        );
        assert_eq!(fs::read_dir(folder.path().join("bin")).unwrap().count(), 0);
        home.make(&place, |temporary| Ok(fs::create_dir(temporary)?)).unwrap();
        assert!(place.is_dir());
    }

    #[test]
    fn a_sweep_takes_what_no_living_process_works_on() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home { root: folder.path().to_owned() };
        fs::create_dir_all(home.bin("thing", "1")).unwrap();
        let (dead, living) =
            (folder.path().join("bin/.tmp-999999999-0-thing"), folder.path().join("bin/.tmp-1-0-thing"));
        fs::create_dir_all(&dead).unwrap();
        fs::create_dir_all(&living).unwrap();
        home.sweep().unwrap();
        assert!(home.bin("thing", "1").exists() && living.exists() && !dead.exists());
    }

    #[test]
    fn the_digest_is_hex() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("empty");
        fs::write(&file, "").unwrap();
        assert!(sha256(&file).unwrap().starts_with("e3b0c44298fc1c14"));
    }
}
