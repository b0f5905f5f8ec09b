//! The database file: who may open it, how it is set up, and the connections to it.
//!
//! The lock is a file of its own, `<file>.lock`, and never the database itself: closing any handle of the database
//! would end SQLite's own locks on it. For the same reason nothing is opened before the lock is held.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use shiplock_core::problem::{Code, Problem};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection, SqlSafeStr, SqliteConnection, SqliteTransaction};

use super::Fault;

/// The schema's steps, oldest first: version, name, statements.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "begin", include_str!("../../../migrations/sqlite/0001_begin.sql")),
    (2, "checks", include_str!("../../../migrations/sqlite/0002_checks.sql")),
];

/// Connections for reading. Reads are short; more would only fight for the processor.
const READERS: u32 = 4;
/// How long SQLite itself waits for a lock. Only a checkpoint or a backup tool can hold one.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// How long a caller waits for a connection before it is told that the store failed.
const CONNECTION_WAIT: Duration = Duration::from_secs(30);

/// The connections to an open file.
#[derive(Debug)]
pub(super) struct Database {
    /// One connection: whoever writes waits for whoever wrote before.
    writer: SqlitePool,
    readers: SqlitePool,
    /// Held for the life of the store. Last, so that it is let go last.
    _lock: File,
}

impl Database {
    pub(super) async fn open(path: &Path) -> Result<Self, Fault> {
        let path = path.to_owned();
        let prepared = tokio::task::spawn_blocking(move || prepare(&path)).await;
        let (path, lock) = prepared.map_err(Fault::broken)??;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .foreign_keys(true)
            .busy_timeout(BUSY_WAIT)
            .synchronous(SqliteSynchronous::Full);
        // Looked at before anything is changed: a newer version's file stays as it is.
        let mut looker = SqliteConnection::connect_with(&options.clone().read_only(true)).await?;
        let looked = check_schema(&mut looker).await;
        looker.close().await?;
        looked?;
        let pool = || {
            SqlitePoolOptions::new()
                .acquire_timeout(CONNECTION_WAIT)
                .idle_timeout(None)
                .max_lifetime(None)
                .after_release(|connection, _| {
                    Box::pin(async move {
                        // SQLite ends a transaction by itself when the disk is full or an operation failed, which the
                        // connection's own count misses. Such a connection would refuse every later one.
                        connection.ping().await?;
                        Ok(!connection.is_in_transaction())
                    })
                })
        };
        let writing = options.clone().journal_mode(SqliteJournalMode::Wal);
        let writer = pool().max_connections(1).connect_with(writing).await?;
        migrator().run(&writer).await?;
        let readers = pool().max_connections(READERS).connect_with(options.pragma("query_only", "ON")).await?;
        Ok(Self { writer, readers, _lock: lock })
    }

    /// Begins a change. Whatever is read inside stays true until it is committed.
    pub(super) async fn change(&self) -> Result<SqliteTransaction<'static>, Fault> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Where to read.
    pub(super) fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    pub(super) async fn close(self) {
        self.readers.close().await;
        // The last connection that closes brings the write-ahead log into the file.
        self.writer.close().await;
    }

    #[cfg(test)]
    pub(super) fn writer(&self) -> &SqlitePool {
        &self.writer
    }
}

/// Takes the lock and makes the file, for the owner's eyes only.
fn prepare(path: &Path) -> Result<(PathBuf, File), Fault> {
    let path = real_path(path)?;
    let mut lock_path = path.clone().into_os_string();
    lock_path.push(".lock");
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock_path)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            return Err(Problem::new(Code::StoreInUse).with("path", path.display()).into());
        }
        Err(error) => return Err(io::Error::from(error).into()),
    }
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path) {
        Ok(file) => {
            file.sync_all()?;
            if let Some(directory) = path.parent() {
                File::open(directory)?.sync_all()?;
            }
        }
        // SQLite gives the files beside it the mode of this one.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_file() => {
            std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok((path, lock))
}

/// The path without links, so that two names of a file have one lock.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let name = path.file_name().ok_or(error)?;
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            Ok(directory.canonicalize()?.join(name))
        }
        found => found,
    }
}

fn migrator() -> Migrator {
    let migration = |(version, name, statements): &(i64, &'static str, &'static str)| {
        let statements = SqlSafeStr::into_sql_str(*statements);
        Migration::new(*version, (*name).into(), MigrationType::Simple, statements, false)
    };
    Migrator::with_migrations(MIGRATIONS.iter().map(migration).collect())
}

/// Refuses a file of a newer version, and one that another program wrote.
async fn check_schema(connection: &mut SqliteConnection) -> Result<(), Fault> {
    let (tables, ours): (i64, i64) = sqlx::query_as(
        "SELECT COUNT(*), COUNT(CASE WHEN name = '_sqlx_migrations' THEN 1 END) FROM sqlite_schema WHERE type = 'table'",
    )
    .fetch_one(&mut *connection)
    .await?;
    if tables == 0 {
        return Ok(());
    }
    if ours == 0 {
        return Err(Fault::broken("the file is the database of another program"));
    }
    let found: Option<i64> =
        sqlx::query_scalar("SELECT MAX(version) FROM _sqlx_migrations").fetch_one(connection).await?;
    let known = MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or_default();
    match found {
        Some(found) if found > known => {
            Err(Problem::new(Code::StoreNewer).with("found", found).with("known", known).into())
        }
        _ => Ok(()),
    }
}
