//! The directory of a demo: a temporary one that is gone with it, or a given one that stays.
//!
//! A temporary one holds a lock for as long as its demo lives, also where that is killed: so the next demo can tell what
//! was left behind, and removes it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use shiplock_core::problem::{Code, Problem};

const PREFIX: &str = "shiplock-demo-";
const LOCK: &str = ".lock";
/// A directory without a lock is somebody's who is just making it, up to this age.
const UNLOCKED_AGE_MAX: Duration = Duration::from_secs(60);

/// The directory.
#[derive(Debug)]
pub(super) enum Folder {
    /// Removed when it is dropped; the lock after it.
    Temporary(tempfile::TempDir, #[expect(dead_code, reason = "held, not read")] File),
    /// Stays.
    Given {
        path: PathBuf,
        /// The first directory on the way to it that was made for it.
        made: Option<PathBuf>,
    },
}

fn unusable(path: &Path, operation: &str, error: &io::Error) -> Problem {
    let problem = Problem::new(Code::FileUnusable).with("path", path.display()).with("subject", "this machine");
    problem.with("operation", operation).because(error)
}

impl Folder {
    /// Makes the directory of a demo.
    pub(super) fn open(given: Option<PathBuf>) -> Result<Self, Problem> {
        match given {
            None => Self::temporary(&std::env::temp_dir()),
            Some(path) => {
                let missing = path.ancestors().filter(|path| !path.as_os_str().is_empty() && !path.exists());
                let made = missing.last().map(Path::to_owned);
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&path)
                    .map_err(|error| unusable(&path, "made", &error))?;
                // Relative paths would mean another place to the server and to other terminals.
                let canonical = |path: &Path| path.canonicalize().map_err(|error| unusable(path, "read", &error));
                let (path, made) = (canonical(&path)?, made.as_deref().map(canonical).transpose()?);
                let mut entries = fs::read_dir(&path).map_err(|error| unusable(&path, "read", &error))?;
                if entries.next().is_some() {
                    let problem =
                        Problem::new(Code::BadOption).with("option", "--data-dir").with("value", path.display());
                    return Err(problem.with("why", "it is not empty; a demo begins with nothing"));
                }
                Ok(Self::Given { path, made })
            }
        }
    }

    fn temporary(below: &Path) -> Result<Self, Problem> {
        clean(below);
        let made = tempfile::Builder::new().prefix(PREFIX).tempdir_in(below);
        let folder = made.map_err(|error| unusable(below, "written", &error))?;
        let path = folder.path().join(LOCK);
        let locked = File::create(&path)
            .and_then(|file| Ok(flock(&file, FlockOperation::NonBlockingLockExclusive).map(|()| file)?));
        Ok(Self::Temporary(folder, locked.map_err(|error| unusable(&path, "locked", &error))?))
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder, _) => folder.path(),
            Self::Given { path, .. } => path,
        }
    }

    /// Whether it stays when the demo ends.
    pub(super) fn stays(&self) -> bool {
        matches!(self, Self::Given { .. })
    }

    /// Removes what a demo that did not begin has put down. A given directory was empty: all in it is of the demo.
    pub(super) fn give_up(self) {
        let Self::Given { path, made } = self else { return };
        // What cannot be removed costs space and nothing else.
        if let Some(made) = made {
            let _ = fs::remove_dir_all(made);
            return;
        }
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}

/// Removes what demos of this user left that were killed.
fn clean(below: &Path) {
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        let is_demo = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let Ok(metadata) = fs::symlink_metadata(entry.path()) else { continue };
        if is_demo && metadata.is_dir() && metadata.uid() == own && is_left(&entry.path(), metadata.modified().ok()) {
            // What cannot be removed costs space and nothing else.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_left(folder: &Path, modified: Option<SystemTime>) -> bool {
    match File::open(folder.join(LOCK)) {
        Ok(lock) => flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            modified.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > UNLOCKED_AGE_MAX)
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_folder_is_gone_with_its_demo_and_the_next_one_removes_what_was_left_by_a_kill() {
        let below = tempfile::tempdir().unwrap();
        let first = Folder::temporary(below.path()).unwrap();
        let (kept, gone) = (first.path().to_owned(), below.path().join("shiplock-demo-killed"));
        fs::create_dir_all(gone.join("server")).unwrap();
        File::create(gone.join(LOCK)).unwrap();
        let other = below.path().join("other");
        fs::create_dir(&other).unwrap();
        let second = Folder::temporary(below.path()).unwrap();
        assert!(kept.is_dir() && second.path().is_dir() && other.is_dir(), "two demos go side by side");
        assert!(!gone.exists());
        drop(first);
        assert!(!kept.exists());
    }

    #[test]
    fn a_given_folder_must_be_empty_and_stays() {
        let below = tempfile::tempdir().unwrap();
        let path = below.path().join("a/b");
        let given = Folder::open(Some(path.clone())).unwrap();
        assert!(given.stays());
        fs::write(path.join("x"), "x").unwrap();
        drop(given);
        assert!(path.join("x").exists());
        assert_eq!(Folder::open(Some(path)).unwrap_err().code, Code::BadOption);
    }

    #[test]
    fn of_a_demo_that_did_not_begin_no_folder_is_left_and_what_was_there_before_stays() {
        let below = tempfile::tempdir().unwrap();
        let (made, there) = (below.path().join("a/b"), below.path().join("there"));
        fs::create_dir(&there).unwrap();
        for path in [&made, &there] {
            let given = Folder::open(Some(path.clone())).unwrap();
            fs::create_dir(path.join("server")).unwrap();
            fs::write(path.join("x"), "x").unwrap();
            given.give_up();
        }
        assert!(!below.path().join("a").exists());
        assert_eq!(fs::read_dir(there).unwrap().count(), 0);
    }
}
