//! Backups as they lie on the disk.

use std::os::unix::fs::PermissionsExt;

use jiff::Timestamp;
use shiplock_api::agent::EtcdSnapshot;
use tempfile::TempDir;

use super::*;

const CONTENT: &[u8] = &[7; 3 * file::CHUNK_BYTES + 5];

struct Bench {
    folder: TempDir,
    backups: Arc<Backups>,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let backups = Backups::open(folder.path().join("backups"), Arc::new(Seal::ephemeral())).unwrap();
    Bench { folder, backups: Arc::new(backups) }
}

fn view(id: &str, content: &[u8]) -> BackupView {
    let snapshot = EtcdSnapshot {
        sha256: hexadecimal(&Sha256::digest(content)),
        size_bytes: content.len() as u64,
        hash: 1,
        revision: 42,
        keys: 7,
        etcd_version: "3.6.4".to_owned(),
    };
    let (upgrade, number) = id.split_once('-').unwrap();
    let created_at = Timestamp::from_second(number.split_once('-').unwrap().1.parse().unwrap()).unwrap();
    BackupView {
        id: id.to_owned(),
        cluster: "lab".into(),
        upgrade: upgrade.into(),
        node: "m1".into(),
        created_at,
        snapshot,
    }
}

fn pieces(content: &[u8], size: usize) -> impl Stream<Item = Result<Bytes, Problem>> {
    let pieces: Vec<_> = content.chunks(size).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    futures::stream::iter(pieces)
}

impl Bench {
    async fn keep(&self, view: BackupView, content: &[u8]) -> Result<BackupView, Problem> {
        self.backups.receive(view, pieces(content, 10_000)).await?.keep().await
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("backups")).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn path(&self, id: &str) -> PathBuf {
        self.folder.path().join("backups").join(format!("{id}{SUFFIX}"))
    }

    async fn content(&self, id: &str) -> io::Result<Vec<u8>> {
        let (_, pieces) = self.backups.content(id).await.unwrap();
        let pieces: Vec<_> = pieces.collect().await;
        Ok(pieces.into_iter().collect::<io::Result<Vec<Bytes>>>()?.concat())
    }
}

#[tokio::test]
async fn a_backup_is_kept_sealed_and_comes_out_as_it_went_in() {
    let bench = bench();
    let kept = bench.keep(view("u1-2-3", CONTENT), CONTENT).await.unwrap();
    assert_eq!(kept, view("u1-2-3", CONTENT));
    assert_eq!(bench.backups.find("u1-2-3").await.unwrap(), Some(kept.clone()));
    assert_eq!(bench.backups.verify("u1-2-3").await.unwrap(), kept);
    assert!(bench.content("u1-2-3").await.unwrap() == CONTENT);
    let file = fs::read(bench.path("u1-2-3")).unwrap();
    assert!(!file.windows(32).any(|window| window == [7; 32]), "the content is nowhere in the file");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&bench.path("u1-2-3")), 0o600);
    assert_eq!(mode(&bench.folder.path().join("backups")), 0o700);
}

#[tokio::test]
async fn what_is_not_what_was_announced_is_not_kept_and_leaves_nothing_behind() {
    let bench = bench();
    let broken = || Problem::new(Code::BadRequest).with("what", "the connection broke");
    let whole = || pieces(CONTENT, 10_000).collect::<Vec<_>>();
    let mut changed = CONTENT.to_vec();
    changed[100] ^= 1;
    let mut interrupted = whole().await;
    interrupted.truncate(2);
    interrupted.push(Err(broken()));
    let table = [
        ("nothing comes", vec![], Code::DigestMismatch),
        ("it ends early", vec![Ok(Bytes::from_static(b"short"))], Code::DigestMismatch),
        ("it is too long", [whole().await, whole().await].concat(), Code::DigestMismatch),
        ("it is something else", vec![Ok(changed.into())], Code::DigestMismatch),
        ("the connection breaks", interrupted, Code::BadRequest),
    ];
    for (what, pieces, code) in table {
        let refused = bench.backups.receive(view("u1-2-3", CONTENT), futures::stream::iter(pieces)).await;
        assert_eq!(refused.unwrap_err().code, code, "{what}");
        assert_eq!(bench.files(), [""; 0], "{what}");
    }
    let written = bench.backups.receive(view("u1-2-3", CONTENT), pieces(CONTENT, 10_000)).await.unwrap();
    assert_eq!(bench.files(), ["u1-2-3.part"]);
    let second = bench.backups.receive(view("u1-2-3", CONTENT), pieces(CONTENT, 10_000)).await;
    assert_eq!(second.unwrap_err().code, Code::PermitRefused, "one at a time under one name");
    drop(written);
    assert_eq!(bench.files(), [""; 0], "whole, and yet not wanted any more");
    bench.keep(view("u1-2-3", CONTENT), CONTENT).await.unwrap();
}

#[tokio::test]
async fn the_first_backup_of_an_attempt_stays_when_it_is_sent_again() {
    let bench = bench();
    let first = bench.keep(view("u1-2-3", b"first"), b"first").await.unwrap();
    let again = bench.keep(view("u1-2-3", b"second"), b"second").await.unwrap();
    assert_eq!(again, first);
    assert_eq!(bench.content("u1-2-3").await.unwrap(), b"first");
}

#[tokio::test]
async fn three_are_kept_for_each_cluster_and_none_of_an_active_upgrade_is_removed() {
    let bench = bench();
    let elsewhere = BackupView { cluster: "other".into(), ..view("u0-1-1", b"x") };
    bench.keep(elsewhere, b"x").await.unwrap();
    for id in ["u1-1-10", "u2-1-20", "u3-1-30", "u4-1-40", "u5-1-50"] {
        bench.keep(view(id, b"x"), b"x").await.unwrap();
    }
    let ids = |backups: Vec<BackupView>| backups.into_iter().map(|backup| backup.id).collect::<Vec<_>>();
    let active = || BTreeSet::from(["u1".into(), "u5".into()]);
    let removed = bench.backups.prune("lab".into(), active()).await.unwrap();
    assert_eq!(ids(removed), ["u2-1-20"]);
    let left = bench.backups.list(Some("lab".into())).await.unwrap();
    assert_eq!(ids(left), ["u5-1-50", "u4-1-40", "u3-1-30", "u1-1-10"], "newest first");
    assert_eq!(ids(bench.backups.list(None).await.unwrap()).len(), 5, "the other cluster's is as it was");
    let removed = bench.backups.prune("lab".into(), BTreeSet::new()).await.unwrap();
    assert_eq!(ids(removed), ["u1-1-10"], "once the upgrade has ended");
}

#[tokio::test]
async fn a_full_disk_is_said_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let backups = Backups::open(folder.path().to_owned(), Arc::new(Seal::ephemeral())).unwrap();
    let backups = Arc::new(Backups { reserve_bytes: u64::MAX, ..backups });
    assert_eq!(backups.check_room(0).await.unwrap_err().code, Code::DiskFull);
    let refused = backups.receive(view("u1-2-3", CONTENT), pieces(CONTENT, 10_000)).await;
    assert_eq!(refused.unwrap_err().code, Code::DiskFull);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    // And a disk that is full all of a sudden is told as what it is.
    let problem = unusable(&folder.path().join("x"), "written", &io::ErrorKind::StorageFull.into());
    assert_eq!(problem.code, Code::DiskFull);
}

#[tokio::test]
async fn a_damaged_backup_is_found_and_breaks_off_when_it_is_handed_out() {
    let bench = bench();
    let path = bench.path("u1-2-3");
    bench.keep(view("u1-2-3", CONTENT), CONTENT).await.unwrap();
    let whole = fs::read(&path).unwrap();
    let flipped = |at: usize| {
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        changed
    };
    let table = [
        ("a bit of its last chunk", flipped(whole.len() - 1)),
        ("a bit of its second chunk", flipped(whole.len() - 2 * file::CHUNK_BYTES)),
        ("its recorded revision", String::from_utf8_lossy(&whole[..600]).find("42").map(flipped).unwrap()),
        ("its end", whole[..whole.len() - 100].to_vec()),
        ("everything", Vec::new()),
    ];
    for (what, content) in table {
        fs::write(&path, content).unwrap();
        assert_eq!(bench.backups.verify("u1-2-3").await.unwrap_err().code, Code::BackupDamaged, "{what}");
        if what.starts_with("a bit of its") {
            let error = bench.content("u1-2-3").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}");
        }
    }
    fs::write(&path, &whole).unwrap();
    assert!(bench.backups.verify("u1-2-3").await.is_ok());

    fs::rename(&path, bench.path("u9-2-3")).unwrap();
    assert_eq!(bench.backups.verify("u9-2-3").await.unwrap_err().code, Code::BackupDamaged, "under another name");
    fs::rename(bench.path("u9-2-3"), &path).unwrap();
    let elsewhere = Backups::open(bench.folder.path().join("backups"), Arc::new(Seal::ephemeral())).unwrap();
    let damaged = Arc::new(elsewhere).verify("u1-2-3").await.unwrap_err();
    assert_eq!(damaged.code, Code::BackupDamaged, "another key");
}

#[tokio::test]
async fn what_is_not_there_has_no_name_and_no_way_out_of_the_folder() {
    let bench = bench();
    fs::write(bench.folder.path().join("outside.backup"), "x").unwrap();
    for id in ["", "u1-2-3", "../outside", "..", "/etc/passwd", "U1", "a.b", &"a".repeat(200)] {
        assert_eq!(bench.backups.find(id).await.unwrap(), None, "{id}");
        assert_eq!(bench.backups.verify(id).await.unwrap_err().code, Code::BackupUnknown, "{id}");
        assert!(bench.backups.content(id).await.is_err(), "{id}");
    }
}

#[tokio::test]
async fn what_a_crash_left_half_is_removed_at_the_next_start_and_what_is_kept_stays() {
    let folder = tempfile::tempdir().unwrap();
    let seal = Arc::new(Seal::ephemeral());
    let open = || Arc::new(Backups::open(folder.path().to_owned(), seal.clone()).unwrap());
    open().receive(view("u1-2-3", CONTENT), pieces(CONTENT, 999)).await.unwrap().keep().await.unwrap();
    fs::write(folder.path().join("u1-2-4.part"), "half").unwrap();
    fs::write(folder.path().join("u8-1-1.backup"), "not one of ours").unwrap();
    let backups = open();
    assert!(!folder.path().join("u1-2-4.part").exists());
    let listed = backups.list(None).await.unwrap();
    assert_eq!(listed, [view("u1-2-3", CONTENT)], "one that cannot be read hides no other");
    backups.verify("u1-2-3").await.unwrap();
}

#[tokio::test]
async fn backups_of_a_store_in_memory_go_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let backups = Arc::new(Backups::temporary(folder.path(), Arc::new(Seal::ephemeral())).unwrap());
    backups.receive(view("u1-2-3", b"x"), pieces(b"x", 1)).await.unwrap().keep().await.unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    drop(backups);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
