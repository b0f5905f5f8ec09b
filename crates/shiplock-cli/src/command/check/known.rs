//! Helm releases that the last check of a cluster read: those that did not change are not read again.
//!
//! Only what identifies objects is kept, as in a snapshot, readable by its owner alone. It is a cache: what cannot be read
//! or written is as if it was not there.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shiplock_check::api::helm::Release;
use shiplock_check::snapshot::{Read, Snapshot};

/// Another build may look for other objects in a release.
const BUILD: &str = env!("CARGO_PKG_VERSION");
/// A larger file is not ours.
const FILE_BYTES_MAX: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
struct Stored<R> {
    build: String,
    server: String,
    releases: R,
}

/// Where the releases of a server are kept; nowhere where there is no home or everything shall be read anew.
pub(super) struct Known {
    server: String,
    path: Option<PathBuf>,
}

impl Known {
    /// The releases of a server.
    pub(super) fn of(server: &str, fresh: bool) -> Self {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let root = absolute("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache")));
        let name: String =
            server.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '-' }).collect();
        let path = root.filter(|_| !fresh).map(|root| root.join("shiplock").join(format!("releases-{name}.json")));
        Self { server: server.to_owned(), path }
    }

    /// What is known; nothing where it is of another build or server.
    pub(super) fn read(&self) -> Vec<Release> {
        let read = || {
            let path = self.path.as_ref()?;
            let length = std::fs::metadata(path).ok()?.len();
            let text = (length <= FILE_BYTES_MAX).then(|| std::fs::read(path).ok())??;
            let stored: Stored<Vec<Release>> = serde_json::from_slice(&text).ok()?;
            (stored.build == BUILD && stored.server == self.server).then_some(stored.releases)
        };
        read().unwrap_or_default()
    }

    /// Keeps what a check read; where there are no releases, nothing is left of a cluster.
    pub(super) fn write(&self, snapshot: &Snapshot) {
        let (Some(path), Read::Seen(releases)) = (&self.path, &snapshot.releases) else { return };
        if releases.is_empty() {
            let _ = std::fs::remove_file(path);
            return;
        }
        let write = || -> std::io::Result<()> {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            // Two checks at once must not leave half of each.
            let draft = path.with_extension(format!("{}.tmp", std::process::id()));
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            let stored = Stored { build: BUILD.to_owned(), server: self.server.clone(), releases };
            file.write_all(&serde_json::to_vec(&stored)?)?;
            std::fs::rename(&draft, path)
        };
        // It is only a cache.
        let _ = write();
    }
}
