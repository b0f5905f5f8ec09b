//! Backups of etcd: taken from agents piece by piece, sealed on their way to the disk, kept three for each cluster.
//!
//! A backup is everything that a cluster holds, its Secrets too: nothing of it is ever on the disk unsealed, and a
//! file is there under its name only when it is whole and synced. The folder is the only record: what it does not
//! have is not kept.

mod file;

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use futures::{Stream, StreamExt};
use sha2::{Digest, Sha256};
use shiplock_api::agent::AssignmentId;
use shiplock_api::rest::BackupView;
use shiplock_core::id::{ClusterName, UpgradeId};
use shiplock_core::plan::hexadecimal;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::size::readable_bytes;
use tokio::sync::mpsc;

use self::file::{Reader, Writer};
use crate::seal::Seal;

/// Backups that are kept for each cluster.
const KEPT: usize = 3;
/// Left free besides a backup: the store is on the same file system.
const RESERVE_BYTES: u64 = 256 << 20;
/// Pieces that may wait for the disk or for the reader; each has some ten KiB.
const PIECES_MAX: usize = 4;
/// After so many bytes the disk is waited for, so that the last sync is a short one.
const SYNC_BYTES: u64 = 64 << 20;
const SUFFIX: &str = ".backup";

/// The backups of one server.
#[derive(Debug)]
pub struct Backups {
    folder: PathBuf,
    seal: Arc<Seal>,
    /// Those that are being taken.
    incoming: Mutex<BTreeSet<String>>,
    reserve_bytes: u64,
    /// The folder goes with the process, where the key does.
    _temporary: Option<tempfile::TempDir>,
}

/// The name of what an attempt makes. A server that took over asks for the same attempt under a higher epoch, so the
/// epoch has no part in it.
pub fn backup_id(id: &AssignmentId) -> String {
    format!("{}-{}-{}", id.upgrade, id.step, id.generation.intent)
}

impl Backups {
    /// Opens the folder, makes it where there is none, and removes what a crash left half.
    pub fn open(folder: PathBuf, seal: Arc<Seal>) -> Result<Self, Problem> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|error| unusable(&folder, "made", &error))?;
        let backups = Self { folder, seal, incoming: Mutex::default(), reserve_bytes: RESERVE_BYTES, _temporary: None };
        for path in backups.files()?.into_iter().filter(|path| path.extension().is_some_and(|end| end == "part")) {
            fs::remove_file(&path).map_err(|error| unusable(&path, "removed", &error))?;
        }
        Ok(backups)
    }

    /// A folder below another one that is gone with the process, as the key of a store in memory is.
    pub fn temporary(below: &Path, seal: Arc<Seal>) -> Result<Self, Problem> {
        let folder = tempfile::Builder::new().prefix("backups-").tempdir_in(below);
        let folder = folder.map_err(|error| unusable(below, "written", &error))?;
        let backups = Self::open(folder.path().to_owned(), seal)?;
        Ok(Self { _temporary: Some(folder), ..backups })
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All backups, or those of one cluster, newest first. A file that cannot be read is logged and left out.
    pub async fn list(self: &Arc<Self>, cluster: Option<ClusterName>) -> Result<Vec<BackupView>, Problem> {
        self.blocking(move |backups| backups.list_now(cluster.as_ref())).await
    }

    /// One backup, by what its file says of itself.
    pub async fn find(self: &Arc<Self>, id: &str) -> Result<Option<BackupView>, Problem> {
        let Some(path) = self.path(id) else { return Ok(None) };
        self.blocking(move |_| describe(&path)).await
    }

    /// Reads a backup back: every chunk must open, and the content must have its size and SHA-256.
    pub async fn verify(self: &Arc<Self>, id: &str) -> Result<BackupView, Problem> {
        let path = self.existing(id).await?;
        self.blocking(move |backups| {
            let mut content = backups.read(&path)?;
            let (mut digest, mut length) = (Sha256::new(), 0);
            while let Some(chunk) = content.next_chunk().map_err(|error| unusable(&path, "read", &error))? {
                digest.update(chunk);
                length += chunk.len() as u64;
            }
            let view = parse(&path, content.description())?;
            let found = (hexadecimal(&digest.finalize()), length);
            if found != (view.snapshot.sha256.clone(), view.snapshot.size_bytes) {
                let why = format!(
                    "its content has SHA-256 {} and {} bytes, {} and {} were recorded",
                    found.0, found.1, view.snapshot.sha256, view.snapshot.size_bytes
                );
                return Err(damaged(&path, why));
            }
            Ok(view)
        })
        .await
    }

    /// A backup with its content, piece by piece. An error in the middle says that the content is not whole.
    pub async fn content(
        self: &Arc<Self>,
        id: &str,
    ) -> Result<(BackupView, impl Stream<Item = io::Result<Bytes>> + use<>), Problem> {
        let path = self.existing(id).await?;
        let (view, mut content) = self
            .blocking(move |backups| {
                let content = backups.read(&path)?;
                Ok((parse(&path, content.description())?, content))
            })
            .await?;
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        tokio::task::spawn_blocking(move || {
            loop {
                let piece = match content.next_chunk() {
                    Ok(Some(chunk)) => Ok(Bytes::copy_from_slice(chunk)),
                    Ok(None) => return,
                    Err(error) => Err(error),
                };
                let failed = piece.is_err();
                // A reader that is gone wants nothing more.
                if sender.blocking_send(piece).is_err() || failed {
                    return;
                }
            }
        });
        let pieces = futures::stream::unfold(receiver, |mut receiver| async {
            let piece = receiver.recv().await?;
            Some((piece, receiver))
        });
        Ok((view, pieces))
    }

    /// Refuses what there is no room for.
    pub async fn check_room(self: &Arc<Self>, size_bytes: u64) -> Result<(), Problem> {
        self.blocking(move |backups| backups.check_room_now(size_bytes)).await
    }

    /// Takes a backup: seals what comes and compares size and SHA-256 at the end. It has its name once it is
    /// [kept](Written::keep), and leaves nothing behind where it is not.
    pub async fn receive(
        self: &Arc<Self>,
        view: BackupView,
        pieces: impl Stream<Item = Result<Bytes, Problem>>,
    ) -> Result<Written, Problem> {
        let claim = Claim::take(self, &view.id)?;
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        let writing = self.blocking(move |_| claim.backups.clone().write(view, claim, receiver));
        let sending = async move {
            let mut pieces = std::pin::pin!(pieces);
            while let Some(piece) = pieces.next().await {
                // Where the writer has ended, its end says why.
                if sender.send(piece?).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        let (written, sent) = tokio::join!(writing, sending);
        sent.and(written)
    }

    /// Removes the oldest ones of a cluster, but none that an active upgrade made.
    pub(crate) async fn prune(
        self: &Arc<Self>,
        cluster: ClusterName,
        active: BTreeSet<UpgradeId>,
    ) -> Result<Vec<BackupView>, Problem> {
        self.blocking(move |backups| {
            let mut surplus: Vec<_> = backups.list_now(Some(&cluster))?.into_iter().skip(KEPT).collect();
            surplus.retain(|backup| !active.contains(&backup.upgrade));
            for backup in &surplus {
                let path = backups.folder.join(format!("{}{SUFFIX}", backup.id));
                fs::remove_file(&path).map_err(|error| unusable(&path, "removed", &error))?;
            }
            Ok(surplus)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let backups = self.clone();
        tokio::task::spawn_blocking(move || work(&backups)).await.unwrap_or_else(|error| {
            Err(Problem::new(Code::Internal).with("what", "a task for backups did not end").because(&error))
        })
    }

    fn files(&self) -> Result<Vec<PathBuf>, Problem> {
        let listed = fs::read_dir(&self.folder)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>());
        listed.map_err(|error| unusable(&self.folder, "read", &error))
    }

    /// Where a backup is; none for what could not be the id of one.
    fn path(&self, id: &str) -> Option<PathBuf> {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let good = !id.is_empty() && id.len() <= 128 && id.bytes().all(letter);
        good.then(|| self.folder.join(format!("{id}{SUFFIX}")))
    }

    async fn existing(self: &Arc<Self>, id: &str) -> Result<PathBuf, Problem> {
        let unknown = || {
            let shown: String = id.chars().take(128).collect();
            Problem::new(Code::BackupUnknown).with("backup", shown)
        };
        let path = self.path(id).ok_or_else(unknown)?;
        let there = tokio::fs::try_exists(&path).await.map_err(|error| unusable(&path, "read", &error))?;
        if there { Ok(path) } else { Err(unknown()) }
    }

    fn list_now(&self, cluster: Option<&ClusterName>) -> Result<Vec<BackupView>, Problem> {
        let mut backups = Vec::new();
        for path in self.files()?.into_iter().filter(|path| path.to_string_lossy().ends_with(SUFFIX)) {
            match describe(&path) {
                Ok(Some(view)) if cluster.is_none_or(|cluster| *cluster == view.cluster) => backups.push(view),
                // Of another cluster, or removed meanwhile.
                Ok(_) => {}
                Err(problem) => tracing::warn!(path = %path.display(), %problem, "a backup cannot be read"),
            }
        }
        backups.sort_by(|one, other| (other.created_at, &other.id).cmp(&(one.created_at, &one.id)));
        Ok(backups)
    }

    fn read(&self, path: &Path) -> Result<Reader<File>, Problem> {
        let open = || {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            Reader::open(file, length, &self.seal)
        };
        open().map_err(|error| unusable(path, "read", &error))
    }

    fn check_room_now(&self, size_bytes: u64) -> Result<(), Problem> {
        let found = rustix::fs::statvfs(&self.folder);
        let found = found.map_err(|error| unusable(&self.folder, "looked at", &error.into()))?;
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        // Tags and headers add less than a thousandth.
        let needed = size_bytes.saturating_add(size_bytes / 1_000).saturating_add(self.reserve_bytes);
        if free >= needed { Ok(()) } else { Err(disk_full(&self.folder, free, readable_bytes(needed))) }
    }

    fn write(&self, view: BackupView, claim: Claim, mut pieces: mpsc::Receiver<Bytes>) -> Result<Written, Problem> {
        self.check_room_now(view.snapshot.size_bytes)?;
        let part = Part(self.folder.join(format!("{}.part", view.id)));
        let unwritable = |error: io::Error| unusable(&part.0, "written", &error);
        let description = serde_json::to_vec(&view).map_err(|error| unwritable(error.into()))?;
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&part.0).map_err(unwritable)?;
        let mut writer = Writer::begin(file, &self.seal, &description).map_err(unwritable)?;
        let (mut digest, mut length, mut synced) = (Sha256::new(), 0, 0);
        while let Some(piece) = pieces.blocking_recv() {
            length += piece.len() as u64;
            if length > view.snapshot.size_bytes {
                break;
            }
            digest.update(&piece);
            writer.write(&piece).map_err(unwritable)?;
            if length - synced >= SYNC_BYTES {
                writer.out().sync_data().map_err(unwritable)?;
                synced = length;
            }
        }
        let subject = format!("the snapshot of {}", view.node);
        let mismatch = |found: String, expected: String| {
            Problem::new(Code::DigestMismatch).with("path", &subject).with("found", found).with("expected", expected)
        };
        if length != view.snapshot.size_bytes {
            return Err(mismatch(format!("{length} bytes"), format!("{} bytes", view.snapshot.size_bytes)));
        }
        let found = hexadecimal(&digest.finalize());
        if found != view.snapshot.sha256 {
            return Err(mismatch(found, view.snapshot.sha256));
        }
        writer.finish().and_then(|file| file.sync_all()).map_err(unwritable)?;
        Ok(Written { part, view, claim })
    }

    fn incoming(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to take one backup: one at a time under one name.
#[derive(Debug)]
struct Claim {
    backups: Arc<Backups>,
    id: String,
}

impl Claim {
    fn take(backups: &Arc<Backups>, id: &str) -> Result<Self, Problem> {
        let refused = |why: &str| Problem::new(Code::PermitRefused).with("why", why);
        if backups.path(id).is_none() {
            return Err(refused("a backup cannot have this name"));
        }
        if !backups.incoming().insert(id.to_owned()) {
            return Err(refused("this backup is being taken already"));
        }
        Ok(Self { backups: backups.clone(), id: id.to_owned() })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.backups.incoming().remove(&self.id);
    }
}

/// A file that is gone with this value.
#[derive(Debug)]
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // Renamed, or a rest that the next start removes.
        let _ = fs::remove_file(&self.0);
    }
}

/// A backup that is whole and on disk, and has no name yet.
#[derive(Debug)]
pub struct Written {
    // Dropped in this order: the file is gone before another may be taken under its name.
    part: Part,
    view: BackupView,
    claim: Claim,
}

impl Written {
    /// Gives it its name. What was kept under it before stays and is answered.
    pub async fn keep(self) -> Result<BackupView, Problem> {
        let backups = self.claim.backups.clone();
        let named = move |backups: &Backups| {
            let path = backups.folder.join(format!("{}{SUFFIX}", self.view.id));
            if let Some(before) = describe(&path)? {
                return Ok(before);
            }
            fs::rename(&self.part.0, &path)
                .and_then(|()| File::open(&backups.folder)?.sync_all())
                .map_err(|error| unusable(&path, "written", &error))?;
            Ok(self.view)
        };
        backups.blocking(named).await
    }
}

fn describe(path: &Path) -> Result<Option<BackupView>, Problem> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unusable(path, "read", &error)),
    };
    let description = file::read_description(&mut file).map_err(|error| unusable(path, "read", &error))?;
    parse(path, &description).map(Some)
}

fn parse(path: &Path, description: &[u8]) -> Result<BackupView, Problem> {
    let view: BackupView = serde_json::from_slice(description).map_err(|error| damaged(path, error.to_string()))?;
    if path.file_name().is_none_or(|name| *name != *format!("{}{SUFFIX}", view.id)) {
        return Err(damaged(path, format!("it is backup {}", view.id)));
    }
    Ok(view)
}

fn damaged(path: &Path, why: String) -> Problem {
    let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Problem::new(Code::BackupDamaged).with("backup", name).with("why", why)
}

fn disk_full(folder: &Path, free: u64, needed: String) -> Problem {
    let problem = Problem::new(Code::DiskFull).with("path", folder.display()).with("subject", "the Shiplock server");
    problem.with("free", readable_bytes(free)).with("needed", needed)
}

fn unusable(path: &Path, operation: &str, error: &io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::InvalidData => damaged(path, error.to_string()),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let folder = path.parent().unwrap_or(path);
            let free = rustix::fs::statvfs(folder).map_or(0, |found| found.f_bavail.saturating_mul(found.f_frsize));
            disk_full(folder, free, "more".to_owned()).because(error)
        }
        _ => {
            let problem = Problem::new(Code::FileUnusable).with("path", path.display());
            problem.with("subject", "this server").with("operation", operation).because(error)
        }
    }
}

#[cfg(test)]
mod tests;
