//! Reports of the pre-check, and findings that somebody lets pass.

use shiplock_core::id::ClusterName;

use super::super::rule::{self, REPORTS_KEPT};
use super::super::{AcceptanceRecord, ReportRecord};
use super::file::Database;
use super::{Fault, stored_time};

/// The columns of a report.
type ReportColumns = (String, String, String, String);

pub(super) async fn add_report(database: &Database, report: &ReportRecord) -> Result<(), Fault> {
    let mut change = database.change().await?;
    if super::registry::cluster_uid(&mut change, &report.cluster).await?.is_none() {
        return Err(rule::cluster_unknown(&report.cluster).into());
    }
    sqlx::query("INSERT INTO reports (id, cluster, made_at, data) VALUES ($1, $2, $3, $4)")
        .bind(&report.id)
        .bind(report.cluster.as_str())
        .bind(stored_time(report.made_at))
        .bind(&report.data)
        .execute(&mut *change)
        .await?;
    sqlx::query(
        "DELETE FROM reports WHERE cluster = $1 AND id NOT IN \
         (SELECT id FROM reports WHERE cluster = $1 ORDER BY made_at DESC, id DESC LIMIT $2)",
    )
    .bind(report.cluster.as_str())
    .bind(i64::try_from(REPORTS_KEPT).unwrap_or(i64::MAX))
    .execute(&mut *change)
    .await?;
    Ok(change.commit().await?)
}

pub(super) async fn reports(database: &Database, cluster: &ClusterName) -> Result<Vec<ReportRecord>, Fault> {
    let rows: Vec<ReportColumns> = sqlx::query_as(
        "SELECT id, cluster, made_at, data FROM reports WHERE cluster = $1 ORDER BY made_at DESC, id DESC",
    )
    .bind(cluster.as_str())
    .fetch_all(database.readers())
    .await?;
    rows.into_iter().map(report_record).collect()
}

pub(super) async fn report(database: &Database, id: &str) -> Result<Option<ReportRecord>, Fault> {
    let columns: Option<ReportColumns> = sqlx::query_as("SELECT id, cluster, made_at, data FROM reports WHERE id = $1")
        .bind(id)
        .fetch_optional(database.readers())
        .await?;
    columns.map(report_record).transpose()
}

fn report_record((id, cluster, made_at, data): ReportColumns) -> Result<ReportRecord, Fault> {
    Ok(ReportRecord { id, cluster: cluster.into(), made_at: made_at.parse()?, data })
}

pub(super) async fn add_acceptance(database: &Database, acceptance: &AcceptanceRecord) -> Result<(), Fault> {
    let mut change = database.change().await?;
    if super::registry::cluster_uid(&mut change, &acceptance.cluster).await?.is_none() {
        return Err(rule::cluster_unknown(&acceptance.cluster).into());
    }
    sqlx::query("INSERT INTO acceptances (id, cluster, data) VALUES ($1, $2, $3)")
        .bind(&acceptance.id)
        .bind(acceptance.cluster.as_str())
        .bind(&acceptance.data)
        .execute(&mut *change)
        .await?;
    Ok(change.commit().await?)
}

pub(super) async fn acceptances(database: &Database, cluster: &ClusterName) -> Result<Vec<AcceptanceRecord>, Fault> {
    let rows: Vec<(String, String, String)> =
        sqlx::query_as("SELECT id, cluster, data FROM acceptances WHERE cluster = $1 ORDER BY id")
            .bind(cluster.as_str())
            .fetch_all(database.readers())
            .await?;
    let record = |(id, cluster, data): (String, String, String)| AcceptanceRecord { id, cluster: cluster.into(), data };
    Ok(rows.into_iter().map(record).collect())
}

pub(super) async fn remove_acceptance(database: &Database, cluster: &ClusterName, id: &str) -> Result<bool, Fault> {
    let mut change = database.change().await?;
    let removed = sqlx::query("DELETE FROM acceptances WHERE cluster = $1 AND id = $2")
        .bind(cluster.as_str())
        .bind(id)
        .execute(&mut *change)
        .await?;
    change.commit().await?;
    Ok(removed.rows_affected() > 0)
}
