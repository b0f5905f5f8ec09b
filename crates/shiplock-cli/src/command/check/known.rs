//! What the last check of a cluster read: Helm releases and lists that did not change are not read again.
//!
//! Nothing is kept but what a snapshot holds, readable by its owner alone. It is a cache: what cannot be read or written
//! is as if it was not there.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::OFlags;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use shiplock_check::api::helm::Release;
use shiplock_check::object::Objects;
use shiplock_check::snapshot::{Read, Snapshot};
use shiplock_cluster::collect::{Known, KnownLists, Marks};

/// A larger file is not ours.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// What the file ends with: a line of this, and one with its length. Before it are the parts of the lists that have marks.
#[derive(Serialize, Deserialize)]
struct Index<S, R, M> {
    build: S,
    server: S,
    releases: R,
    marks: M,
    /// The lists of the parts, and how many bytes each has, in their order.
    parts: Vec<(String, u64)>,
}

/// The digits and the end of the line with the length of the index.
const LENGTH_BYTES: u64 = 21;

/// Which program this is: another build of the same version may look for other objects.
fn build() -> Option<String> {
    Some(format!("{} of {}", env!("CARGO_PKG_VERSION"), state(&std::env::current_exe().ok()?)?))
}

/// What changes with the content of a program file.
pub(super) fn state(program: &Path) -> Option<String> {
    let program = std::fs::metadata(program).ok()?;
    let changed = program.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{} bytes at {}", program.len(), changed.as_nanos()))
}

/// Opens a file that was written by [`replace`]: one of this user alone. Another's may tell anything, and what is no file may
/// never end.
pub(super) fn open(path: &Path) -> Option<File> {
    // A pipe is opened without waiting for who writes to it, and then refused.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(i32::try_from(flags).ok()?).open(path).ok()?;
    let found = file.metadata().ok()?;
    let is_ours = found.is_file() && found.uid() == geteuid().as_raw() && found.mode() & 0o077 == 0;
    is_ours.then_some(file)
}

/// Writes a file anew, for its owner alone: two checks at once do not leave half of each. It is only a cache: what cannot be
/// written is as it was.
pub(super) fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<&mut File>) -> std::io::Result<()>) {
    let written = || -> Option<()> {
        let mut draft = tempfile::Builder::new().prefix(DRAFT).tempfile_in(path.parent()?).ok()?;
        let mut file = BufWriter::new(draft.as_file_mut());
        write(&mut file).and_then(|()| file.flush()).ok()?;
        drop(file);
        draft.persist(path).ok().map(drop)
    };
    let _ = written();
}

/// What a file that is being written is called.
const DRAFT: &str = ".draft-";

/// Deletes what was left of a check that was killed while it wrote, and of clusters that nobody checks any more.
fn tidy(folder: &Path) {
    let is_old = |entry: &std::fs::DirEntry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kept_for = match () {
            () if name.starts_with(DRAFT) => DRAFT_KEPT,
            () if name.starts_with("check-") => KEPT_UNUSED,
            () => return false,
        };
        entry.metadata().and_then(|found| found.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|age| age > kept_for))
    };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten().filter(is_old) {
        let _ = std::fs::remove_file(entry.path());
    }
}

/// No check writes for so long.
const DRAFT_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// What no check has written anew for so long is of a cluster that is gone.
const KEPT_UNUSED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Where checks keep what the next one may use; none where there is no home.
pub(super) fn folder() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let root = absolute("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache")));
    root.map(|root| root.join("shiplock"))
}

/// Where that of a server is kept; nowhere where there is no home or everything shall be read anew.
pub(super) struct Kept {
    build: String,
    server: String,
    path: Option<PathBuf>,
}

impl Kept {
    /// What is kept of a server.
    pub(super) fn of(server: &str, fresh: bool) -> Self {
        let name: String =
            server.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '-' }).collect();
        let build = build();
        let folder = folder().filter(|_| !fresh && build.is_some());
        let path = folder.map(|folder| folder.join(format!("check-{name}.json")));
        Self { build: build.unwrap_or_default(), server: server.to_owned(), path }
    }

    /// What is known; nothing where it is of another build or server, none where nothing shall be. Lists are read once they
    /// are asked for.
    pub(super) fn read(&self) -> Option<Known> {
        let path = self.path.as_ref()?;
        let read = || {
            let file = open(path)?;
            let length = file.metadata().ok()?.len();
            if length > FILE_BYTES_MAX {
                return None;
            }
            // What is cut off does not end so.
            let end_of_index = length.checked_sub(LENGTH_BYTES)?;
            let of_index = read_at(&file, end_of_index, LENGTH_BYTES)?;
            let of_index: u64 = std::str::from_utf8(&of_index).ok()?.strip_suffix('\n')?.parse().ok()?;
            let end_of_parts = end_of_index.checked_sub(of_index)?;
            let index = read_at(&file, end_of_parts, of_index)?;
            let index: Index<String, Vec<Release>, Marks> = serde_json::from_slice(&index).ok()?;
            let Index { build, server, releases, marks, parts } = index;
            if build != self.build || server != self.server {
                return None;
            }
            let file = Arc::new(file);
            let mut lists = KnownLists::default();
            let mut begin = 0_u64;
            for (list, bytes) in parts {
                let (file, from) = (file.clone(), begin);
                begin = begin.checked_add(bytes).filter(|end| *end <= end_of_parts)?;
                let read = move || serde_json::from_slice::<Objects>(&read_at(&file, from, bytes)?).ok();
                // What cannot be read holds no list.
                let read = async { tokio::task::spawn_blocking(read).await.ok().flatten().unwrap_or_default() };
                lists.add(&list, read);
            }
            Some(Known { releases, lists, marks })
        };
        Some(read().unwrap_or_default())
    }

    /// Keeps what a check read, and the marks of its lists; where there is nothing to keep, nothing is left of a cluster.
    pub(super) fn write(&self, snapshot: &Snapshot, marks: &Marks) {
        let (Some(path), Read::Seen(releases)) = (&self.path, &snapshot.releases) else { return };
        let mut lists = marks.iter().filter(|(_, marks)| !marks.is_empty()).map(|(list, _)| list).peekable();
        if releases.is_empty() && lists.peek().is_none() {
            let _ = std::fs::remove_file(path);
            return;
        }
        if let Some(folder) = path.parent() {
            let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
            tidy(folder);
        }
        replace(path, |file| {
            let mut parts = Vec::new();
            let mut bytes = 0;
            for list in lists {
                shiplock_cluster::collect::parts(list, &snapshot.objects, |part| {
                    parts.push((list.clone(), part.len() as u64));
                    bytes += part.len() as u64;
                    if bytes > FILE_BYTES_MAX {
                        return Err(std::io::ErrorKind::FileTooLarge.into());
                    }
                    file.write_all(part)
                })?;
            }
            let index = Index { build: &self.build, server: &self.server, releases, marks, parts };
            let index = serde_json::to_vec(&index)?;
            file.write_all(&index)?;
            writeln!(file, "{:020}", index.len())
        });
    }
}

/// Bytes of a file from a place on; none where it has not so many.
fn read_at(file: &File, from: u64, bytes: u64) -> Option<Vec<u8>> {
    let mut read = vec![0; usize::try_from(bytes).ok()?];
    file.read_exact_at(&mut read, from).ok()?;
    Some(read)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn what_is_kept_is_for_its_owner_alone_and_is_nothing_where_it_is_cut_off_or_of_another_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shiplock").join("check-x.json");
        let kept = |server: &str| Kept { build: "b".to_owned(), server: server.to_owned(), path: Some(path.clone()) };
        let marks =
            Marks::from([("/api/v1/pods".to_owned(), [("10.0.0.1:6443".to_owned(), "1 1 7".to_owned())].into())]);
        let mut snapshot = Snapshot::blank("https://a", "v1.36.3", Timestamp::UNIX_EPOCH);
        snapshot.releases = Read::Seen(Vec::new());
        snapshot.objects.pods = Read::Seen(
            serde_json::from_value(json!([{ "metadata": { "name": "p", "labels": { "a": "b" } } }])).unwrap(),
        );
        assert!(kept("https://a").read().unwrap().marks.is_empty(), "there is nothing yet");
        kept("https://a").write(&snapshot, &marks);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let known = kept("https://a").read().unwrap();
        assert_eq!(known.marks, marks);
        let pods = |known: Known| async move { known.lists.take("/api/v1/pods", |objects| &mut objects.pods).await };
        assert_eq!(pods(known).await.as_ref(), snapshot.objects.pods.seen());
        assert!(kept("https://b").read().unwrap().marks.is_empty(), "another server");
        let text = std::fs::read(&path).unwrap();
        for end in [0, 1, 10, 21, 22, text.len() / 2, text.len() - 21, text.len() - 1] {
            std::fs::write(&path, &text[..end]).unwrap();
            let known = kept("https://a").read().unwrap();
            assert_eq!(pods(known).await, None, "cut off after {end} of {} bytes", text.len());
        }
        // A part that is no JSON, and an index that tells of more than there is.
        std::fs::write(&path, [b"!", &text[1..]].concat()).unwrap();
        assert_eq!(pods(kept("https://a").read().unwrap()).await, None);
        let told = String::from_utf8(text).unwrap().replace("pods\",", "pods\",9");
        std::fs::write(&path, told).unwrap();
        assert_eq!(pods(kept("https://a").read().unwrap()).await, None);
        // Without a list that is followed no object is kept; without releases nothing.
        for marks in [Marks::new(), Marks::from([("/api/v1/pods".to_owned(), [].into())])] {
            kept("https://a").write(&snapshot, &marks);
            assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0, "no draft is left either");
        }
        assert!(Kept::of("https://a", true).read().is_none(), "nothing is known where all shall be read");
    }

    #[test]
    fn what_others_may_write_is_not_believed_and_what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        replace(&at("ours"), |file| file.write_all(b"x"));
        assert!(open(&at("ours")).is_some());
        std::fs::set_permissions(at("ours"), std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(open(&at("ours")).is_none(), "others may write it");
        replace(&at("ours"), |file| file.write_all(b"y"));
        assert!(open(&at("ours")).is_some(), "written anew it is ours alone");
        std::os::unix::fs::symlink(at("ours"), at("link")).unwrap();
        assert!(open(&at("link")).is_none(), "a link");
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(open(&at("pipe")).is_none(), "a pipe");
        assert!(open(folder.path()).is_none(), "a folder");
        replace(&at("link"), |file| file.write_all(b"z"));
        assert_eq!(std::fs::read(at("ours")).unwrap(), b"y", "what a link leads to stays");
        replace(&at("ours"), |_| Err(std::io::ErrorKind::StorageFull.into()));
        assert_eq!(std::fs::read(at("ours")).unwrap(), b"y", "what cannot be written is as it was");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3, "no draft is left");
    }

    #[test]
    fn what_nobody_has_used_for_long_is_deleted_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let age = |days: u64| std::time::SystemTime::now() - Duration::from_secs(days * 24 * 60 * 60);
        for (name, days) in
            [("check-a.json", 31), ("check-b.json", 29), (".draft-1", 2), (".draft-2", 0), ("kubectl.json", 99)]
        {
            File::create(folder.path().join(name)).unwrap().set_modified(age(days)).unwrap();
        }
        tidy(folder.path());
        let left: std::collections::BTreeSet<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [".draft-2", "check-b.json", "kubectl.json"].map(Into::into).into());
    }
}
