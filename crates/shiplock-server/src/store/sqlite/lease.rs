//! Leases: who drives an upgrade, and under which epoch.

use jiff::Timestamp;
use shiplock_core::id::{ClusterUid, Epoch, UpgradeId};
use shiplock_core::upgrade::Event;
use sqlx::{SqliteConnection, SqliteExecutor};

use super::super::rule::{self, Author, LeaseRow};
use super::super::{Lease, LeaseTaken, LeaseWanted, StoreError};
use super::file::Database;
use super::{Fault, log, stored_number, stored_time};

pub(super) async fn take(
    database: &Database,
    wanted: &[LeaseWanted],
    holder: &str,
    now: Timestamp,
    seconds: u32,
) -> Result<Vec<Option<LeaseTaken>>, Fault> {
    rule::check_leases_at_once(wanted.len())?;
    let mut change = database.change().await?;
    let mut answers = Vec::with_capacity(wanted.len());
    for LeaseWanted { upgrade, expected_len } in wanted {
        let mut head = log::head(&mut change, upgrade).await?;
        if !head.may_take(holder, *expected_len, now) {
            answers.push(None);
            continue;
        }
        let epoch = next_epoch(&mut change, &head.cluster_uid, now).await?;
        let lease = Lease { holder: holder.to_owned(), epoch, expires_at: rule::lease_end(now, seconds) };
        let row = LeaseRow { lease: lease.clone(), released: false };
        write(&mut change, upgrade, &row).await?;
        head.lease = Some(row);
        let taken = [Event::LeaseTaken { epoch, holder: holder.to_owned() }];
        let records = log::append_in(&mut change, &head, Author::Driver(epoch), *expected_len, now, &taken).await?;
        answers.push(records.into_iter().next().map(|record| LeaseTaken { lease, record }));
    }
    change.commit().await?;
    Ok(answers)
}

async fn next_epoch(change: &mut SqliteConnection, cluster_uid: &ClusterUid, now: Timestamp) -> Result<Epoch, Fault> {
    let newest: Option<i64> = sqlx::query_scalar("SELECT epoch FROM epochs WHERE cluster_uid = $1")
        .bind(cluster_uid.as_str())
        .fetch_optional(&mut *change)
        .await?;
    let epoch = rule::next_epoch(Epoch(u64::try_from(newest.unwrap_or_default())?), now);
    sqlx::query(
        "INSERT INTO epochs (cluster_uid, epoch) VALUES ($1, $2) \
         ON CONFLICT (cluster_uid) DO UPDATE SET epoch = excluded.epoch",
    )
    .bind(cluster_uid.as_str())
    .bind(stored_number(epoch.0))
    .execute(change)
    .await?;
    Ok(epoch)
}

pub(super) async fn renew(
    database: &Database,
    held: &[(UpgradeId, Epoch)],
    now: Timestamp,
    seconds: u32,
) -> Result<Vec<Result<Lease, StoreError>>, Fault> {
    rule::check_leases_at_once(held.len())?;
    let mut change = database.change().await?;
    let mut answers = Vec::with_capacity(held.len());
    for (upgrade, epoch) in held {
        let renewed = log::head(&mut change, upgrade).await?.renewed(*epoch, now, seconds);
        if let Ok(lease) = &renewed {
            write(&mut change, upgrade, &LeaseRow { lease: lease.clone(), released: false }).await?;
        }
        answers.push(renewed);
    }
    change.commit().await?;
    Ok(answers)
}

pub(super) async fn release(database: &Database, upgrade: &UpgradeId, epoch: Epoch) -> Result<(), Fault> {
    let mut change = database.change().await?;
    if let Some(row) = log::head(&mut change, upgrade).await?.given_back(epoch)? {
        write(&mut change, upgrade, &row).await?;
        change.commit().await?;
    }
    Ok(())
}

pub(super) async fn read(database: &Database, upgrade: &UpgradeId) -> Result<Option<Lease>, Fault> {
    Ok(find(database.readers(), upgrade).await?.map(|row| row.lease))
}

pub(super) async fn find(from: impl SqliteExecutor<'_>, upgrade: &UpgradeId) -> Result<Option<LeaseRow>, Fault> {
    let columns: Option<(String, i64, String, i64)> =
        sqlx::query_as("SELECT holder, epoch, expires_at, released FROM leases WHERE upgrade = $1")
            .bind(upgrade.as_str())
            .fetch_optional(from)
            .await?;
    let Some((holder, epoch, expires_at, released)) = columns else { return Ok(None) };
    let lease = Lease { holder, epoch: Epoch(u64::try_from(epoch)?), expires_at: expires_at.parse()? };
    Ok(Some(LeaseRow { lease, released: released != 0 }))
}

async fn write(change: &mut SqliteConnection, upgrade: &UpgradeId, row: &LeaseRow) -> Result<(), Fault> {
    sqlx::query(
        "INSERT INTO leases (upgrade, holder, epoch, expires_at, released) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (upgrade) DO UPDATE SET holder = excluded.holder, epoch = excluded.epoch, \
         expires_at = excluded.expires_at, released = excluded.released",
    )
    .bind(upgrade.as_str())
    .bind(&row.lease.holder)
    .bind(stored_number(row.lease.epoch.0))
    .bind(stored_time(row.lease.expires_at))
    .bind(i64::from(row.released))
    .execute(change)
    .await?;
    Ok(())
}
