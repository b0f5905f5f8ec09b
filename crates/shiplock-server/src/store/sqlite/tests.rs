//! What only a store in a file can get wrong: durability, the lock, damage, versions.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use shiplock_core::problem::Code;
use shiplock_core::upgrade::Event;
use tempfile::TempDir;

use super::super::conformance::{Fixture, suite, take};
use super::super::sample::{at, cluster, new_upgrade};
use super::*;

async fn fresh() -> Fixture {
    let (directory, path) = place();
    Fixture::keeping(SqliteStore::open(&path).await.unwrap(), directory)
}

suite!(fresh);

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shiplock.db");
    (directory, path)
}

/// A store with cluster `prod` and its active upgrade `u1`.
async fn begun(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(path).await.unwrap();
    store.add_cluster(&cluster("prod", "uid-prod")).await.unwrap();
    store.create_upgrade(&new_upgrade("u1", "prod")).await.unwrap();
    store
}

fn u1() -> UpgradeId {
    "u1".into()
}

fn refusal(result: Result<SqliteStore, StoreError>) -> Code {
    match result {
        Err(StoreError::Refused(problem)) => problem.code,
        other => panic!("a refusal was expected: {other:?}"),
    }
}

async fn change(store: &SqliteStore, statement: &'static str) {
    sqlx::raw_sql(statement).execute(store.database.writer()).await.unwrap();
}

#[tokio::test]
async fn a_kill_at_any_moment_loses_nothing_that_was_acknowledged() {
    let (directory, path) = place();
    let store = begun(&path).await;
    let lease = take(&store, &u1(), "one", at(0), 30).await.unwrap();
    for len in 2..=21u64 {
        let acknowledged = store.append(&u1(), len, lease.epoch, at(1), &[Event::Started]).await.unwrap();
        // What a kill right after the answer leaves behind: the file and its log, with the store still open.
        let killed = directory.path().join(format!("killed-{len}.db"));
        for suffix in ["", "-wal"] {
            let copy = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
            std::fs::copy(copy(&path), copy(&killed)).unwrap();
        }
        let restarted = SqliteStore::open(&killed).await.unwrap();
        assert_eq!(restarted.events(&u1(), len, 10).await.unwrap(), acknowledged);
        assert_eq!(restarted.upgrade(&u1()).await.unwrap().unwrap().len, len + 1);
        let taken = take(&restarted, &u1(), "two", at(60), 30).await.unwrap();
        assert!(taken.epoch > lease.epoch);
    }
}

#[tokio::test]
async fn a_change_that_was_not_committed_is_gone_and_blocks_nobody() {
    let (_directory, path) = place();
    let store = begun(&path).await;
    let mut half = store.database.change().await.unwrap();
    sqlx::query("UPDATE upgrades SET len = 7").execute(&mut *half).await.unwrap();
    drop(half);
    store.append_request(&u1(), 1, at(1), &[Event::Started]).await.unwrap();
}

#[tokio::test]
async fn what_was_closed_is_there_when_it_is_opened_again() {
    let (_directory, path) = place();
    let store = begun(&path).await;
    let events = store.events(&u1(), 0, 10).await.unwrap();
    store.close().await;
    assert!(!path.with_extension("db-wal").exists(), "the file is whole by itself");
    let store = SqliteStore::open(&path).await.unwrap();
    assert_eq!(store.events(&u1(), 0, 10).await.unwrap(), events);
}

#[tokio::test]
async fn a_store_that_was_dropped_can_be_opened_again_at_once() {
    let (_directory, path) = place();
    drop(begun(&path).await);
    let store = SqliteStore::open(&path).await.unwrap();
    store.append_request(&u1(), 1, at(1), &[Event::Started]).await.unwrap();
}

#[tokio::test]
async fn a_second_store_on_the_file_is_refused_whatever_name_it_uses() {
    let (directory, path) = place();
    let store = begun(&path).await;
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let dotted = directory.path().join(".").join("shiplock.db");
    for other in [&path, &link, &dotted] {
        assert_eq!(refusal(SqliteStore::open(other).await), Code::StoreInUse, "{}", other.display());
    }
    // The refused ones must not have ended the locks of the first.
    store.append_request(&u1(), 1, at(1), &[Event::Started]).await.unwrap();
    store.close().await;
    SqliteStore::open(&link).await.unwrap();
}

#[tokio::test]
async fn its_files_are_for_the_owner_alone() {
    let (directory, path) = place();
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _store = begun(&path).await;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", entry.path().display());
        names.push(entry.file_name().into_string().unwrap());
    }
    names.sort();
    assert_eq!(names, ["shiplock.db", "shiplock.db-shm", "shiplock.db-wal", "shiplock.db.lock"]);
}

#[tokio::test]
async fn connections_are_set_up_as_promised() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).await.unwrap();
    let pragma = async |name: &str| -> String {
        let statement = sqlx::AssertSqlSafe(format!("SELECT CAST({name} AS TEXT) FROM pragma_{name}"));
        sqlx::query_scalar(statement).fetch_one(store.database.writer()).await.unwrap()
    };
    assert_eq!(pragma("journal_mode").await, "wal");
    assert_eq!(pragma("synchronous").await, "2", "2 is FULL");
    assert_eq!(pragma("foreign_keys").await, "1");
    let written = sqlx::query("DELETE FROM settings").execute(store.database.readers()).await;
    assert!(written.is_err(), "readers cannot write");
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_left_as_it_is() {
    let (_directory, path) = place();
    let store = begun(&path).await;
    change(
        &store,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99, 'later', TRUE, x'00', 0)",
    )
    .await;
    store.close().await;
    let before = std::fs::read(&path).unwrap();
    let problem = match SqliteStore::open(&path).await {
        Err(StoreError::Refused(problem)) => problem,
        other => panic!("a refusal was expected: {other:?}"),
    };
    assert_eq!(problem.code, Code::StoreNewer);
    assert_eq!(problem.parameters["found"], "99");
    assert_eq!(problem.parameters["known"], "2");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn what_is_no_store_is_told_and_never_a_panic() {
    let (directory, path) = place();
    std::fs::write(&path, "this is no database, and long enough to look like one".repeat(100)).unwrap();
    let foreign = directory.path().join("foreign.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&foreign).create_if_missing(true);
    let connection = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("CREATE TABLE photos (name TEXT)").execute(&connection).await.unwrap();
    connection.close().await;
    let missing = directory.path().join("missing").join("shiplock.db");
    for bad in [path.as_path(), &foreign, directory.path(), &missing, Path::new("/")] {
        let result = SqliteStore::open(bad).await;
        assert!(matches!(result, Err(StoreError::Failed { .. })), "{}: {result:?}", bad.display());
    }
}

#[tokio::test]
async fn damage_anywhere_in_the_file_is_told_and_never_a_panic() {
    let (directory, path) = place();
    let store = begun(&path).await;
    for len in 1..=30u64 {
        store.append_request(&u1(), len, at(1), &[Event::Started]).await.unwrap();
    }
    store.close().await;
    let whole = std::fs::read(&path).unwrap();
    let page = 4_096;
    let mut told = 0;
    for index in 0..whole.len() / page {
        let mut damaged = whole.clone();
        damaged[index * page..(index + 1) * page].fill(0xa5);
        let copy = directory.path().join(format!("damaged-{index}.db"));
        std::fs::write(&copy, damaged).unwrap();
        let result = async {
            let store = SqliteStore::open(&copy).await?;
            store.clusters().await?;
            store.events(&u1(), 0, 1_000).await?;
            store.events_since(0, 1_000).await?;
            store.active_logs().await?;
            store.append_request(&u1(), 31, at(1), &[Event::Started]).await
        };
        match result.await {
            // Pages that this passes by, such as those of other tables.
            Ok(_) => {}
            Err(StoreError::Failed { .. }) => told += 1,
            Err(other) => panic!("page {index}: {other}"),
        }
    }
    assert!(told >= 5, "{told} of {} damages were told", whole.len() / page);
}

#[tokio::test]
async fn damaged_values_are_told_and_never_a_panic() {
    let cases = [
        "UPDATE events SET at = 'yesterday'",
        "UPDATE events SET number = -1",
        "UPDATE events SET v = -1",
        "UPDATE events SET epoch = -1",
        "UPDATE events SET kind = CAST(x'ff' AS TEXT)",
    ];
    for statement in cases {
        let (_directory, path) = place();
        let store = begun(&path).await;
        change(&store, statement).await;
        let read = store.events_since(0, 10).await;
        assert!(matches!(read, Err(StoreError::Failed { .. })), "{statement}: {read:?}");
    }
}

#[tokio::test]
async fn an_event_of_a_newer_version_closes_its_log_and_no_other() {
    let (_directory, path) = place();
    let store = begun(&path).await;
    store.append_request(&u1(), 1, at(1), &[Event::CheckStarted, Event::Started]).await.unwrap();
    store.add_cluster(&cluster("test", "uid-test")).await.unwrap();
    let other = store.create_upgrade(&new_upgrade("u2", "test")).await.unwrap();
    change(&store, "UPDATE events SET kind = 'node_replaced' WHERE upgrade = 'u1' AND number = 2").await;

    let refused = match store.events(&u1(), 0, 10).await {
        Err(StoreError::Refused(problem)) => problem,
        other => panic!("a refusal was expected: {other:?}"),
    };
    assert_eq!(refused.code, Code::LogUnreadable);
    assert_eq!(refused.parameters["upgrade"], "u1");
    assert_eq!(refused.parameters["number"], "2");
    assert_eq!(refused.parameters["why"], "unknown kind `node_replaced`");

    let logs = store.active_logs().await.unwrap();
    let found: Vec<_> = logs.into_iter().map(|log| (log.upgrade.id.to_string(), log.events)).collect();
    assert_eq!(found, [("u2".to_owned(), Ok(vec![other])), ("u1".to_owned(), Err(refused))]);

    // The feed goes on past it, whatever the size of its pages.
    let mut positions = Vec::new();
    while let Some(record) = store.events_since(positions.last().copied().unwrap_or(0), 1).await.unwrap().pop() {
        positions.push(record.position);
    }
    assert_eq!(positions, [1, 3, 4]);
}

#[tokio::test]
async fn a_full_disk_is_told_and_once_there_is_room_the_store_goes_on() {
    let (_directory, path) = place();
    let store = begun(&path).await;
    change(&store, "PRAGMA max_page_count = 1").await;
    let large = Event::StepSucceeded {
        step: shiplock_core::id::StepNumber(1),
        attempt: 1,
        outcome: shiplock_core::upgrade::StepOutcome::Logs { text: "x".repeat(100_000) },
    };
    for _ in 0..3 {
        let failed = store.append_request(&u1(), 1, at(1), std::slice::from_ref(&large)).await;
        assert!(matches!(failed, Err(StoreError::Failed { .. })), "{failed:?}");
        // The bound belongs to a connection, and the store may have replaced a broken one.
        change(&store, "PRAGMA max_page_count = 1").await;
    }
    assert_eq!(store.events(&u1(), 0, 10).await.unwrap().len(), 1);
    change(&store, "PRAGMA max_page_count = 1000000").await;
    let records = store.append_request(&u1(), 1, at(1), &[large]).await.unwrap();
    assert_eq!((records[0].number, records[0].position), (2, 2));
}

#[tokio::test]
async fn every_look_up_is_served_by_an_index() {
    let (_directory, path) = place();
    let store = SqliteStore::open(&path).await.unwrap();
    let statements = [
        "SELECT * FROM upgrades WHERE first_position < 9 ORDER BY first_position DESC LIMIT 9",
        "SELECT * FROM upgrades WHERE first_position < 9 AND ended_as IS NULL ORDER BY first_position DESC LIMIT 9",
        "SELECT * FROM upgrades WHERE first_position < 9 AND cluster = 'c' ORDER BY first_position DESC LIMIT 9",
        "SELECT * FROM upgrades WHERE cluster_uid = 'c' AND ended_as IS NULL",
        "SELECT * FROM upgrades WHERE idempotency_key = 'k'",
        "SELECT * FROM events WHERE upgrade = 'u' AND number > 5 ORDER BY number LIMIT 9",
        "SELECT * FROM events WHERE position > 5 ORDER BY position LIMIT 9",
        "SELECT e.* FROM upgrades u JOIN events e ON e.upgrade = u.id WHERE u.ended_as IS NULL ORDER BY u.first_position DESC, e.number",
        "SELECT * FROM leases WHERE upgrade = 'u'",
        "SELECT * FROM clusters WHERE uid = 'u'",
        "DELETE FROM join_tokens WHERE expires_at <= 'x'",
        "DELETE FROM join_tokens WHERE cluster = 'c'",
        "SELECT * FROM agents WHERE cluster = 'c' ORDER BY node",
    ];
    for statement in statements {
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let steps: Vec<(i64, i64, i64, String)> =
            sqlx::query_as(explain).fetch_all(store.database.readers()).await.unwrap();
        for (.., step) in steps {
            let walks_an_index = step.contains("USING") && !step.contains("TEMP B-TREE");
            assert!(walks_an_index, "{statement}: {step}");
            let reads_what_ended = statement.contains("ended_as IS NULL") && step.contains("sqlite_autoindex_upgrades");
            assert!(!reads_what_ended, "{statement}: {step}");
        }
    }
}
