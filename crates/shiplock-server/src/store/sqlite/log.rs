//! Upgrades and their events: created, appended to, read.

use futures::TryStreamExt;
use jiff::Timestamp;
use shiplock_core::id::{ClusterUid, Epoch, UpgradeId};
use shiplock_core::problem::Problem;
use shiplock_core::upgrade::{Event, EventRecord};
use sqlx::{SqliteConnection, SqliteExecutor};

use super::super::record::{StoredEvent, unreadable};
use super::super::rule::{self, Author, LogHead};
use super::super::{NewUpgrade, UpgradeFilter, UpgradeLog, UpgradeRow};
use super::file::Database;
use super::{Fault, lease, stored_number, stored_time};

/// The columns of an upgrade.
type UpgradeColumns = (String, String, i64, Option<String>, String);
/// The columns of an event.
type EventColumns = (String, i64, i64, String, Option<i64>, i64, String, String);

pub(super) async fn create_upgrade(database: &Database, new: &NewUpgrade) -> Result<EventRecord, Fault> {
    let mut change = database.change().await?;
    if let Some(key) = &new.idempotency_key {
        let known: Option<EventColumns> = sqlx::query_as(
            "SELECT e.upgrade, e.number, e.position, e.at, e.epoch, e.v, e.kind, e.data FROM upgrades u \
             JOIN events e ON e.upgrade = u.id AND e.number = 1 WHERE u.idempotency_key = $1",
        )
        .bind(key)
        .fetch_optional(&mut *change)
        .await?;
        if let Some(columns) = known {
            return Ok(event_record(columns)??);
        }
    }
    rule::check_first_event(new)?;
    if let Some(head) = find_head(&mut change, &new.id).await? {
        return Err(head.conflict(0).into());
    }
    let cluster_uid: Option<String> = sqlx::query_scalar("SELECT uid FROM clusters WHERE name = $1")
        .bind(new.cluster.as_str())
        .fetch_optional(&mut *change)
        .await?;
    let cluster_uid = cluster_uid.ok_or_else(|| rule::cluster_unknown(&new.cluster))?;
    if let Some(other) = active_upgrade(&mut change, &cluster_uid).await? {
        return Err(rule::upgrade_active(&other).into());
    }
    let position = next_position(&mut change, 1).await?;
    let first = EventRecord {
        upgrade: new.id.clone(),
        number: 1,
        position,
        at: new.now,
        epoch: None,
        event: new.event.clone(),
    };
    sqlx::query(
        "INSERT INTO upgrades (id, cluster, cluster_uid, first_position, len, created_at, newest_at, idempotency_key) \
         VALUES ($1, $2, $3, $4, 1, $5, $5, $6)",
    )
    .bind(new.id.as_str())
    .bind(new.cluster.as_str())
    .bind(cluster_uid)
    .bind(stored_number(position))
    .bind(stored_time(new.now))
    .bind(&new.idempotency_key)
    .execute(&mut *change)
    .await?;
    insert(&mut change, &first).await?;
    change.commit().await?;
    Ok(first)
}

pub(super) async fn append(
    database: &Database,
    upgrade: &UpgradeId,
    author: Author,
    expected_len: u64,
    now: Timestamp,
    events: &[Event],
) -> Result<Vec<EventRecord>, Fault> {
    let mut change = database.change().await?;
    let head = head(&mut change, upgrade).await?;
    let records = append_in(&mut change, &head, author, expected_len, now, events).await?;
    change.commit().await?;
    Ok(records)
}

/// Appends inside a change that has read the head of the log.
pub(super) async fn append_in(
    change: &mut SqliteConnection,
    head: &LogHead,
    author: Author,
    expected_len: u64,
    now: Timestamp,
    events: &[Event],
) -> Result<Vec<EventRecord>, Fault> {
    head.admit(author, expected_len, events)?;
    let Some(newest) = events.last() else { return Ok(Vec::new()) };
    let at = head.event_time(now);
    let first_position = next_position(change, events.len() as u64).await?;
    let records: Vec<EventRecord> = (0u64..)
        .zip(events)
        .map(|(index, event)| EventRecord {
            upgrade: head.upgrade.clone(),
            number: head.len + 1 + index,
            position: first_position + index,
            at,
            epoch: author.epoch(),
            event: event.clone(),
        })
        .collect();
    for record in &records {
        insert(change, record).await?;
    }
    let swapped = sqlx::query("UPDATE upgrades SET len = $1, newest_at = $2, ended_as = $3 WHERE id = $4 AND len = $5")
        .bind(stored_number(head.len + records.len() as u64))
        .bind(stored_time(at))
        .bind(rule::ending(newest))
        .bind(head.upgrade.as_str())
        .bind(stored_number(head.len))
        .execute(&mut *change)
        .await?;
    if swapped.rows_affected() != 1 {
        return Err(head.conflict(expected_len).into());
    }
    Ok(records)
}

/// Reserves positions and returns the first.
async fn next_position(change: &mut SqliteConnection, count: u64) -> Result<u64, Fault> {
    let newest: i64 =
        sqlx::query_scalar("UPDATE counters SET value = value + $1 WHERE name = 'position' RETURNING value")
            .bind(stored_number(count))
            .fetch_one(change)
            .await?;
    Ok(u64::try_from(newest)?.saturating_sub(count) + 1)
}

async fn insert(change: &mut SqliteConnection, record: &EventRecord) -> Result<(), Fault> {
    let stored = StoredEvent::encode(&record.event)?;
    sqlx::query(
        "INSERT INTO events (upgrade, number, position, at, epoch, v, kind, data) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(record.upgrade.as_str())
    .bind(stored_number(record.number))
    .bind(stored_number(record.position))
    .bind(stored_time(record.at))
    .bind(record.epoch.map(|epoch| stored_number(epoch.0)))
    .bind(stored.v)
    .bind(stored.kind)
    .bind(stored.data)
    .execute(change)
    .await?;
    Ok(())
}

/// The active upgrade of a cluster.
pub(super) async fn active_upgrade(
    change: &mut SqliteConnection,
    cluster_uid: &str,
) -> Result<Option<UpgradeId>, Fault> {
    let id: Option<String> = sqlx::query_scalar("SELECT id FROM upgrades WHERE cluster_uid = $1 AND ended_as IS NULL")
        .bind(cluster_uid)
        .fetch_optional(change)
        .await?;
    Ok(id.map(UpgradeId::from))
}

/// What decides on an append to a log and on its lease.
pub(super) async fn head(change: &mut SqliteConnection, upgrade: &UpgradeId) -> Result<LogHead, Fault> {
    find_head(change, upgrade).await?.ok_or_else(|| rule::upgrade_unknown(upgrade).into())
}

async fn find_head(change: &mut SqliteConnection, upgrade: &UpgradeId) -> Result<Option<LogHead>, Fault> {
    let columns: Option<(String, i64, String, Option<String>)> =
        sqlx::query_as("SELECT cluster_uid, len, newest_at, ended_as FROM upgrades WHERE id = $1")
            .bind(upgrade.as_str())
            .fetch_optional(&mut *change)
            .await?;
    let Some((cluster_uid, len, newest_at, ended_as)) = columns else { return Ok(None) };
    Ok(Some(LogHead {
        upgrade: upgrade.clone(),
        cluster_uid: ClusterUid::from(cluster_uid),
        len: u64::try_from(len)?,
        newest_at: newest_at.parse()?,
        ended_as,
        lease: lease::find(change, upgrade).await?,
    }))
}

pub(super) async fn upgrade(database: &Database, id: &UpgradeId) -> Result<Option<UpgradeRow>, Fault> {
    let columns: Option<UpgradeColumns> =
        sqlx::query_as("SELECT id, cluster, len, ended_as, created_at FROM upgrades WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(database.readers())
            .await?;
    columns.map(upgrade_row).transpose()
}

pub(super) async fn upgrades(database: &Database, filter: &UpgradeFilter) -> Result<Vec<UpgradeRow>, Fault> {
    let before = match &filter.after {
        None => i64::MAX,
        Some(after) => sqlx::query_scalar("SELECT first_position FROM upgrades WHERE id = $1")
            .bind(after.as_str())
            .fetch_optional(database.readers())
            .await?
            .ok_or_else(|| rule::upgrade_unknown(after))?,
    };
    // Spelled out, since an index serves none of them in one statement.
    let statement = match (&filter.cluster, filter.active) {
        (None, false) => {
            "SELECT id, cluster, len, ended_as, created_at FROM upgrades \
             WHERE first_position < $1 AND $2 IS NULL ORDER BY first_position DESC LIMIT $3"
        }
        (None, true) => {
            "SELECT id, cluster, len, ended_as, created_at FROM upgrades \
             WHERE first_position < $1 AND $2 IS NULL AND ended_as IS NULL ORDER BY first_position DESC LIMIT $3"
        }
        (Some(_), false) => {
            "SELECT id, cluster, len, ended_as, created_at FROM upgrades \
             WHERE first_position < $1 AND cluster = $2 ORDER BY first_position DESC LIMIT $3"
        }
        (Some(_), true) => {
            "SELECT id, cluster, len, ended_as, created_at FROM upgrades \
             WHERE first_position < $1 AND cluster = $2 AND ended_as IS NULL ORDER BY first_position DESC LIMIT $3"
        }
    };
    let rows: Vec<UpgradeColumns> = sqlx::query_as(statement)
        .bind(before)
        .bind(filter.cluster.as_ref().map(|cluster| cluster.as_str()))
        .bind(rule::page(filter.limit))
        .fetch_all(database.readers())
        .await?;
    rows.into_iter().map(upgrade_row).collect()
}

fn upgrade_row((id, cluster, len, ended_as, created_at): UpgradeColumns) -> Result<UpgradeRow, Fault> {
    Ok(UpgradeRow {
        id: id.into(),
        cluster: cluster.into(),
        len: u64::try_from(len)?,
        active: ended_as.is_none(),
        created_at: created_at.parse()?,
    })
}

pub(super) async fn events(
    database: &Database,
    upgrade: &UpgradeId,
    after: u64,
    limit: u32,
) -> Result<Vec<EventRecord>, Fault> {
    let rows: Vec<EventColumns> = sqlx::query_as(
        "SELECT upgrade, number, position, at, epoch, v, kind, data FROM events \
         WHERE upgrade = $1 AND number > $2 ORDER BY number LIMIT $3",
    )
    .bind(upgrade.as_str())
    .bind(stored_number(after))
    .bind(rule::page(limit))
    .fetch_all(database.readers())
    .await?;
    rows.into_iter().map(|columns| Ok(event_record(columns)??)).collect()
}

/// Events that this version cannot read are left out: one log of a newer version must not end the feed of all the
/// others. Whoever reads that log itself is told.
pub(super) async fn events_since(database: &Database, after: u64, limit: u32) -> Result<Vec<EventRecord>, Fault> {
    let mut after = stored_number(after);
    loop {
        let rows: Vec<EventColumns> = sqlx::query_as(
            "SELECT upgrade, number, position, at, epoch, v, kind, data FROM events \
             WHERE position > $1 ORDER BY position LIMIT $2",
        )
        .bind(after)
        .bind(rule::page(limit))
        .fetch_all(database.readers())
        .await?;
        let Some(&(_, _, newest, ..)) = rows.last() else { return Ok(Vec::new()) };
        let mut records = Vec::with_capacity(rows.len());
        for columns in rows {
            match event_record(columns)? {
                Ok(record) => records.push(record),
                Err(problem) => tracing::warn!(%problem, "an event is left out of the feed"),
            }
        }
        if !records.is_empty() {
            return Ok(records);
        }
        // An empty page would tell the reader that there is nothing more.
        after = newest;
    }
}

pub(super) async fn active_logs(database: &Database) -> Result<Vec<UpgradeLog>, Fault> {
    // Both statements see the same moment.
    let mut view = database.readers().begin().await?;
    let rows: Vec<UpgradeColumns> = sqlx::query_as(
        "SELECT id, cluster, len, ended_as, created_at FROM upgrades WHERE ended_as IS NULL ORDER BY first_position DESC",
    )
    .fetch_all(&mut *view)
    .await?;
    let logs: Result<Vec<UpgradeLog>, Fault> = rows
        .into_iter()
        .map(|columns| Ok(UpgradeLog { upgrade: upgrade_row(columns)?, events: Ok(Vec::new()) }))
        .collect();
    let mut logs = logs?;
    read_active_events(&mut *view, &mut logs).await?;
    view.commit().await?;
    Ok(logs)
}

/// Reads the events of all active upgrades in one pass, upgrade after upgrade in the order of `logs`.
async fn read_active_events(view: impl SqliteExecutor<'_>, logs: &mut [UpgradeLog]) -> Result<(), Fault> {
    let mut rows = sqlx::query_as::<_, EventColumns>(
        "SELECT e.upgrade, e.number, e.position, e.at, e.epoch, e.v, e.kind, e.data FROM upgrades u \
         JOIN events e ON e.upgrade = u.id WHERE u.ended_as IS NULL ORDER BY u.first_position DESC, e.number",
    )
    .fetch(view);
    let mut logs = logs.iter_mut();
    let mut current: Option<&mut UpgradeLog> = None;
    while let Some(columns) = rows.try_next().await? {
        while current.as_ref().is_none_or(|log| log.upgrade.id.as_str() != columns.0) {
            current = Some(logs.next().ok_or_else(|| Fault::broken("an event belongs to no active upgrade"))?);
        }
        if let Some(UpgradeLog { events: events @ Ok(_), .. }) = &mut current {
            match (event_record(columns)?, events) {
                (Ok(record), Ok(events)) => events.push(record),
                (Err(problem), events) => *events = Err(problem),
                (Ok(_), Err(_)) => {}
            }
        }
    }
    Ok(())
}

/// The outer error: the row is damaged. The inner one: this version cannot read the event.
fn event_record(
    (upgrade, number, position, at, epoch, v, kind, data): EventColumns,
) -> Result<Result<EventRecord, Problem>, Fault> {
    let upgrade = UpgradeId::from(upgrade);
    let number = u64::try_from(number)?;
    let event = match (StoredEvent { v: u32::try_from(v)?, kind, data }).decode() {
        Ok(event) => event,
        Err(why) => return Ok(Err(unreadable(&upgrade, number, why))),
    };
    let epoch = epoch.map(u64::try_from).transpose()?.map(Epoch);
    Ok(Ok(EventRecord { upgrade, number, position: u64::try_from(position)?, at: at.parse()?, epoch, event }))
}
