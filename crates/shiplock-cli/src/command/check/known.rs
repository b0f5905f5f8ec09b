//! What the last check of a cluster read: Helm releases and lists that did not change are not read again.
//!
//! Nothing is kept but what a snapshot holds, readable by its owner alone. It is a cache: what cannot be read or written
//! is as if it was not there.

use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use shiplock_check::api::helm::Release;
use shiplock_check::object::Objects;
use shiplock_check::snapshot::{Read, Snapshot};
use shiplock_cluster::collect::{Known, KnownObjects, Marks};

/// A larger file is not ours.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// The first line of the file. The second holds the objects, of which those lists count that have marks; none where no list
/// has.
#[derive(Serialize, Deserialize)]
struct Head<S, R, M> {
    build: S,
    server: S,
    releases: R,
    marks: M,
}

/// Which program this is: another build of the same version may look for other objects.
fn build() -> Option<String> {
    let program = std::fs::metadata(std::env::current_exe().ok()?).ok()?;
    let changed = program.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(format!("{} of {} bytes at {}", env!("CARGO_PKG_VERSION"), program.len(), changed.as_nanos()))
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
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let root = absolute("XDG_CACHE_HOME").or_else(|| Some(std::env::home_dir()?.join(".cache")));
        let name: String =
            server.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '-' }).collect();
        let build = build();
        let root = root.filter(|_| !fresh && build.is_some());
        let path = root.map(|root| root.join("shiplock").join(format!("check-{name}.json")));
        Self { build: build.unwrap_or_default(), server: server.to_owned(), path }
    }

    /// What is known; nothing where it is of another build or server, none where nothing shall be. The objects are read once
    /// they are asked for.
    pub(super) fn read(&self) -> Option<Known> {
        let path = self.path.as_ref()?;
        let read = || {
            let file = std::fs::File::open(path).ok()?;
            let length = file.metadata().ok()?.len();
            if length > FILE_BYTES_MAX {
                return None;
            }
            // What is cut off ends within a line.
            let mut last = [0];
            file.read_exact_at(&mut last, length.checked_sub(1)?).ok()?;
            if last != *b"\n" {
                return None;
            }
            let mut file = BufReader::new(file);
            let mut line = Vec::new();
            file.read_until(b'\n', &mut line).ok()?;
            let head: Head<String, Vec<Release>, Marks> = serde_json::from_slice(&line).ok()?;
            let Head { build, server, releases, marks } = head;
            if build != self.build || server != self.server {
                return None;
            }
            let objects = move || {
                let mut line = Vec::new();
                file.read_to_end(&mut line).ok()?;
                serde_json::from_slice::<Option<Objects>>(&line).ok()?
            };
            let read = async { tokio::task::spawn_blocking(objects).await.ok().flatten().unwrap_or_default() };
            let objects = KnownObjects::coming(read);
            Some(Known { releases, objects, marks })
        };
        Some(read().unwrap_or_default())
    }

    /// Keeps what a check read, and the marks of its lists; where there is nothing to keep, nothing is left of a cluster.
    pub(super) fn write(&self, snapshot: &Snapshot, marks: &Marks) {
        let (Some(path), Read::Seen(releases)) = (&self.path, &snapshot.releases) else { return };
        if releases.is_empty() && marks.is_empty() {
            let _ = std::fs::remove_file(path);
            return;
        }
        // Two checks at once must not leave half of each.
        let draft = path.with_extension(format!("{}.tmp", std::process::id()));
        let write = || -> std::io::Result<()> {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            let objects = (!marks.is_empty()).then_some(&snapshot.objects);
            let mut file = BufWriter::new(file);
            serde_json::to_writer(&mut file, &Head { build: &self.build, server: &self.server, releases, marks })?;
            file.write_all(b"\n")?;
            serde_json::to_writer(&mut file, &objects)?;
            file.write_all(b"\n")?;
            file.flush()?;
            std::fs::rename(&draft, path)
        };
        // It is only a cache.
        if write().is_err() {
            let _ = std::fs::remove_file(&draft);
        }
    }
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
        assert_eq!(known.objects.take(|objects| &mut objects.pods).await, snapshot.objects.pods);
        assert!(kept("https://b").read().unwrap().marks.is_empty(), "another server");
        let text = std::fs::read(&path).unwrap();
        let head = text.iter().position(|byte| *byte == b'\n').unwrap();
        for end in [head / 2, head, head + 1, head + 10, text.len() - 1] {
            std::fs::write(&path, &text[..end]).unwrap();
            let known = kept("https://a").read().unwrap();
            let pods = known.objects.take(|objects| &mut objects.pods).await;
            assert_eq!(pods, Read::NotAsked, "cut off after {end} of {} bytes", text.len());
        }
        // Without a list that is followed no object is kept; without releases nothing.
        kept("https://a").write(&snapshot, &Marks::new());
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0, "no draft is left either");
        assert!(Kept::of("https://a", true).read().is_none(), "nothing is known where all shall be read");
    }
}
