//! Backups of etcd: listed, read back and handed out. They are made by upgrades only.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use shiplock_api::rest::{BackupView, Page};
use shiplock_core::id::ClusterName;
use shiplock_core::problem::{Code, Problem};

use super::Site;
use super::access::By;
use super::failure::Failure;
use super::input::{Asked, Named};

/// Which backups are wanted.
#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    /// Only those of this cluster. It need not be registered any more.
    cluster: Option<ClusterName>,
}

/// `GET /api/v1/backups`, newest first.
pub(super) async fn list(
    State(site): State<Arc<Site>>,
    Asked(query): Asked<ListQuery>,
) -> Result<Json<Page<BackupView>>, Failure> {
    let items = site.backups.list(query.cluster).await?;
    Ok(Json(Page { items, next: None }))
}

/// `GET /api/v1/backups/{id}`.
pub(super) async fn show(State(site): State<Arc<Site>>, Named(id): Named<String>) -> Result<Json<BackupView>, Failure> {
    let found = site.backups.find(&id).await?;
    let shown: String = id.chars().take(128).collect();
    Ok(Json(found.ok_or_else(|| Problem::new(Code::BackupUnknown).with("backup", shown))?))
}

/// `POST /api/v1/backups/{id}/verify`: the whole backup is read back.
pub(super) async fn verify(
    State(site): State<Arc<Site>>,
    Named(id): Named<String>,
) -> Result<Json<BackupView>, Failure> {
    Ok(Json(site.backups.verify(&id).await?))
}

/// `GET /api/v1/backups/{id}/content`: the snapshot, opened. What breaks off is not whole, and neither is what has
/// another SHA-256 than the backup.
pub(super) async fn content(
    State(site): State<Arc<Site>>,
    By(by): By,
    Named(id): Named<String>,
) -> Result<Response, Failure> {
    // Read whole before the first byte is handed out: damage is told as what it is, not as a connection that broke.
    site.backups.verify(&id).await?;
    let (view, pieces) = site.backups.content(&id).await?;
    tracing::info!(backup = view.id, cluster = %view.cluster, %by, "a backup was handed out");
    let headers =
        [(CONTENT_TYPE, "application/octet-stream".to_owned()), (CONTENT_LENGTH, view.snapshot.size_bytes.to_string())];
    Ok((headers, Body::from_stream(pieces)).into_response())
}
