//! What the last check of a cluster read: Helm releases and lists that did not change are not read again.
//!
//! Nothing is kept but what a snapshot holds, readable by its owner alone. It is a cache: what cannot be read or written
//! is as if it was not there.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

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

/// Writes a file anew, for its owner alone: two checks at once do not leave half of each. It is only a cache: what cannot be
/// written is as it was.
pub(super) fn replace(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) {
    let draft = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = || -> std::io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        let mut file = BufWriter::new(file);
        write(&mut file)?;
        file.flush()?;
        std::fs::rename(&draft, path)
    };
    if written().is_err() {
        let _ = std::fs::remove_file(&draft);
    }
}

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
            let file = File::open(path).ok()?;
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
            let _ = std::fs::create_dir_all(folder);
        }
        replace(path, |file| {
            let mut parts = Vec::new();
            for list in lists {
                shiplock_cluster::collect::parts(list, &snapshot.objects, |part| {
                    parts.push((list.clone(), part.len() as u64));
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
}
