//! Upgrades: begun, shown and controlled.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use jiff::Timestamp;
use serde::Deserialize;
use shiplock_api::rest::{CancelRequest, UnreadableUpgrade, UpgradeChange, UpgradeCreate, UpgradePage, UpgradeView};
use shiplock_core::id::{Actor, ClusterName, UpgradeId};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{Event, Upgrade};

use super::Site;
use super::access::By;
use super::cluster::known;
use super::control::{Control, judge};
use super::failure::{Failure, unreadable};
use super::input::{Asked, Input, Named, header};
use super::name::random_name;
use super::plan::kept;
use super::rollback::check_newest;
use crate::store::{NewUpgrade, StoreError, UpgradeFilter, UpgradeRow};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The most characters of an idempotency key.
const KEY_LENGTH_MAX: usize = 128;
/// How often a control is judged anew because the log moved on meanwhile.
const CONTROL_ATTEMPTS_MAX: usize = 16;
/// Rows of a page when nothing is asked, and at most. Each is folded from its log.
const ROWS: u32 = 50;
const ROWS_MAX: u32 = 200;
/// Logs that are read side by side.
const FOLDS_AT_ONCE: usize = 8;

/// `POST /api/v1/upgrades`.
pub(super) async fn create(
    State(site): State<Arc<Site>>,
    By(by): By,
    headers: HeaderMap,
    Input(asked): Input<UpgradeCreate>,
) -> Result<Response, Failure> {
    let idempotency_key = idempotency_key(&headers)?;
    let plan = kept(&site, &asked.plan).await?;
    let stale = |what: &str| Problem::new(Code::PlanStale).with("plan", &asked.plan).with("what", what);
    if plan.hash != asked.plan_hash {
        return Err(Failure(stale("its hash is another one than was accepted")));
    }
    let record = known(&site, &plan.cluster).await?;
    if record.uid != plan.cluster_uid {
        return Err(Failure(stale("another cluster is registered under its name")));
    }
    check_newest(&site, &plan).await?;
    let id = UpgradeId::new(random_name("u", 8));
    let event = Event::Planned { plan: Box::new(plan), by: by.clone() };
    let new = NewUpgrade { id: id.clone(), cluster: record.name, event, now: Timestamp::now(), idempotency_key };
    let first = site.store.create_upgrade(&new).await?;
    if first.upgrade != id {
        // The key was used before. A repeat is harmless, the same key for something else is a mistake.
        let same = matches!(&first.event, Event::Planned { plan, .. } if plan.id == asked.plan);
        if !same {
            return Err(unreadable("the Idempotency-Key was used for another plan"));
        }
        let upgrade = site.folds.upgrade(&*site.store, &first.upgrade).await?;
        return Ok(shown(&site, &upgrade));
    }
    tracing::info!(upgrade = %id, cluster = %new.cluster, plan = %asked.plan, %by, "an upgrade was created");
    site.drivers.wake(&id, std::slice::from_ref(&first));
    let upgrade = site.folds.upgrade(&*site.store, &id).await?;
    Ok((StatusCode::CREATED, shown(&site, &upgrade)).into_response())
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let visible =
        |key: &&str| (1..=KEY_LENGTH_MAX).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    let key = key.to_str().ok().filter(visible);
    let key =
        key.ok_or_else(|| unreadable(format!("Idempotency-Key must be 1 to {KEY_LENGTH_MAX} visible characters")))?;
    Ok(Some(key.to_owned()))
}

/// The query of `GET /api/v1/upgrades`.
#[derive(Debug, Deserialize)]
pub(super) struct UpgradeQuery {
    cluster: Option<ClusterName>,
    active: Option<bool>,
    after: Option<UpgradeId>,
    limit: Option<u32>,
}

/// `GET /api/v1/upgrades`, newest first.
pub(super) async fn list(
    State(site): State<Arc<Site>>,
    Asked(query): Asked<UpgradeQuery>,
) -> Result<Json<UpgradePage>, Failure> {
    let limit = query.limit.unwrap_or(ROWS).clamp(1, ROWS_MAX);
    let filter =
        UpgradeFilter { cluster: query.cluster, active: query.active == Some(true), after: query.after, limit };
    let rows = site.store.upgrades(&filter).await?;
    let full = rows.len() >= limit as usize;
    let next = rows.last().filter(|_| full).map(|row| row.id.to_string());
    let site = &site;
    let views = futures::stream::iter(rows.into_iter().filter(|row| query.active != Some(false) || !row.active))
        .map(async |row| {
            let upgrade = site.folds.upgrade(&*site.store, &row.id).await;
            let view =
                upgrade.map(|upgrade| UpgradeView::new(&upgrade, site.drivers.waiting_on(&row.id), Timestamp::now()));
            (row, view)
        })
        .buffered(FOLDS_AT_ONCE);
    let mut page = UpgradePage { items: Vec::new(), unreadable: Vec::new(), next };
    for (row, view) in views.collect::<Vec<_>>().await {
        match view {
            Ok(view) => page.items.push(view),
            // One log that a newer version wrote hides no other upgrade.
            Err(problem) if problem.code == Code::LogUnreadable => {
                let UpgradeRow { id, cluster, created_at, len, .. } = row;
                page.unreadable.push(UnreadableUpgrade { id, cluster, created_at, len, problem });
            }
            Err(problem) => return Err(problem.into()),
        }
    }
    Ok(Json(page))
}

/// `GET /api/v1/upgrades/{id}`.
pub(super) async fn show(State(site): State<Arc<Site>>, Named(id): Named<UpgradeId>) -> Result<Response, Failure> {
    let upgrade = site.folds.upgrade(&*site.store, &id).await?;
    Ok(shown(&site, &upgrade))
}

/// `PATCH /api/v1/upgrades/{id}`.
pub(super) async fn change(
    State(site): State<Arc<Site>>,
    By(by): By,
    Named(id): Named<UpgradeId>,
    headers: HeaderMap,
    Input(asked): Input<UpgradeChange>,
) -> Result<Response, Failure> {
    let max_parallel = asked.max_parallel.ok_or_else(|| unreadable("it changes nothing: max_parallel is missing"))?;
    control(&site, &id, &headers, &Control::ChangeMaxParallel { max_parallel }, &by).await
}

/// `POST /api/v1/upgrades/{id}/pause`.
pub(super) async fn pause(
    State(site): State<Arc<Site>>,
    By(by): By,
    Named(id): Named<UpgradeId>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    control(&site, &id, &headers, &Control::Pause, &by).await
}

/// `POST /api/v1/upgrades/{id}/continue`.
pub(super) async fn go_on(
    State(site): State<Arc<Site>>,
    By(by): By,
    Named(id): Named<UpgradeId>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    control(&site, &id, &headers, &Control::Continue, &by).await
}

/// `POST /api/v1/upgrades/{id}/cancel`.
pub(super) async fn cancel(
    State(site): State<Arc<Site>>,
    By(by): By,
    Named(id): Named<UpgradeId>,
    headers: HeaderMap,
    Input(asked): Input<CancelRequest>,
) -> Result<Response, Failure> {
    control(&site, &id, &headers, &Control::Cancel { abandon: asked.abandon }, &by).await
}

/// Judges a control on the newest state and appends its event; when the log moved on meanwhile, judges again.
async fn control(
    site: &Site,
    id: &UpgradeId,
    headers: &HeaderMap,
    control: &Control,
    by: &Actor,
) -> Result<Response, Failure> {
    let seen = if_match(headers)?;
    let mut lost = None;
    for _ in 0..CONTROL_ATTEMPTS_MAX {
        let upgrade = site.folds.upgrade(&*site.store, id).await?;
        if let Some(seen) = seen.filter(|seen| *seen != upgrade.len) {
            let problem = Problem::new(Code::Conflict).with("upgrade", id);
            return Err(Failure(problem.with("expected", seen).with("found", upgrade.len)));
        }
        let Some(event) = judge(&upgrade, control, by)? else { return Ok(shown(site, &upgrade)) };
        match site.store.append_request(id, upgrade.len, Timestamp::now(), &[event]).await {
            Ok(records) => {
                tracing::info!(upgrade = %id, ?control, %by, "a control was recorded");
                site.drivers.wake(id, &records);
                return Ok(shown(site, &*site.folds.advance(&upgrade, &records)?));
            }
            Err(error @ StoreError::Conflict { .. }) => lost = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    Err(lost.map_or_else(|| unreadable("it could not be recorded"), Failure::from))
}

/// The `len` of `If-Match: "len"`.
fn if_match(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let Some(tag) = headers.get(IF_MATCH) else { return Ok(None) };
    let tag = tag.to_str().unwrap_or_default().trim();
    if tag == "*" {
        return Ok(None);
    }
    let len = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|len| len.parse().ok());
    len.map(Some).ok_or_else(|| unreadable("If-Match is not an ETag of an upgrade, such as \"12\""))
}

fn shown(site: &Site, upgrade: &Upgrade) -> Response {
    let view = UpgradeView::new(upgrade, site.drivers.waiting_on(&upgrade.id), Timestamp::now());
    ([(ETAG, format!("\"{}\"", upgrade.len))], Json(view)).into_response()
}

/// Whether a header asks for server-sent events.
pub(super) fn wants_stream(headers: &HeaderMap) -> bool {
    header(headers, axum::http::header::ACCEPT).is_some_and(|kinds| kinds.contains("text/event-stream"))
}
