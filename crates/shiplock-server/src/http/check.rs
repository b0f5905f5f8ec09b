//! Pre-checks: run, listed, shown beside the one before; and findings that somebody lets pass.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use serde::Deserialize;
use shiplock_api::check::{AcceptanceCreate, AcceptanceView, CheckCreate, CheckReportRow, CheckReportView};
use shiplock_api::rest::Page;
use shiplock_check::named;
use shiplock_check::run::Selection;
use shiplock_core::id::ClusterName;
use shiplock_core::problem::{Code, Problem};

use super::Site;
use super::access::By;
use super::cluster::known;
use super::failure::{Failure, unreadable};
use super::input::{Asked, Input, Named};
use super::name::random_name;
use super::plan::kept;
use crate::precheck;
use crate::store::{AcceptanceRecord, StoreError};

/// Days that an acceptance holds where none is given, and at most.
const DAYS: i64 = 30;
const DAYS_MAX: i64 = 366;
/// The most characters of a reason or a subject.
const TEXT_LENGTH_MAX: usize = 500;

/// `POST /api/v1/clusters/{name}/checks`.
pub(super) async fn run(
    State(site): State<Arc<Site>>,
    By(by): By,
    Named(name): Named<ClusterName>,
    Input(asked): Input<CheckCreate>,
) -> Result<(StatusCode, Json<CheckReportView>), Failure> {
    known(&site, &name).await?;
    let selection = Selection { only: asked.only, skip: asked.skip };
    if let Some(word) = selection.unknown_word() {
        let word: String = word.chars().take(40).collect();
        return Err(unreadable(format!("{word}: {}", named::no_such(&word))));
    }
    let plan = match &asked.plan {
        Some(id) => Some(kept(&site, id).await?),
        None => None,
    };
    if plan.as_ref().is_some_and(|plan| plan.cluster != name) {
        return Err(unreadable("the plan is one of another cluster"));
    }
    let asked = precheck::Asked {
        cluster: &name,
        target: asked.to,
        policy: asked.policy,
        selection: &selection,
        plan: plan.as_ref(),
        upgrade: None,
        by: &by,
    };
    let report = site.precheck.run(&asked).await?;
    let view = site.precheck.keep(&asked, &report).await?;
    tracing::info!(cluster = %name, report = view.id, verdict = view.verdict, %by, "a pre-check was run");
    Ok((StatusCode::CREATED, Json(view)))
}

/// `GET /api/v1/clusters/{name}/checks`, newest first.
pub(super) async fn list(
    State(site): State<Arc<Site>>,
    Named(name): Named<ClusterName>,
) -> Result<Json<Page<CheckReportRow>>, Failure> {
    known(&site, &name).await?;
    let kept = site.store.reports(&name).await?;
    let read = |data: &str| serde_json::from_str::<CheckReportView>(data).ok();
    let items = kept.iter().filter_map(|record| read(&record.data)).map(|view| CheckReportRow::from(&view)).collect();
    Ok(Json(Page { items, next: None }))
}

/// The query of `GET /api/v1/checks/{id}`.
#[derive(Debug, Deserialize)]
pub(super) struct ShowQuery {
    with: Option<String>,
}

/// `GET /api/v1/checks/{id}`.
pub(super) async fn show(
    State(site): State<Arc<Site>>,
    Named(id): Named<String>,
    Asked(query): Asked<ShowQuery>,
) -> Result<Json<CheckReportView>, Failure> {
    let view = report(&site, &id).await?;
    if let Some(other) = &query.with
        && report(&site, other).await?.cluster != view.cluster
    {
        return Err(unreadable("the two reports are of different clusters"));
    }
    Ok(Json(site.precheck.beside(view, query.with.as_deref()).await?))
}

async fn report(site: &Site, id: &str) -> Result<CheckReportView, Failure> {
    let unknown = || Problem::new(Code::ReportUnknown).with("report", id.chars().take(64).collect::<String>());
    let record = site.store.report(id).await?.ok_or_else(unknown)?;
    let view = serde_json::from_str(&record.data);
    Ok(view.map_err(|error| StoreError::Failed { operation: "read a report", source: error.into() })?)
}

/// The id of a check whose findings may be accepted.
pub(super) fn acceptable(option: &str, word: &str) -> Result<String, Problem> {
    named::acceptable(word).map(str::to_owned).map_err(|why| {
        let word: String = word.chars().take(40).collect();
        Problem::new(Code::BadOption).with("option", option).with("value", word).with("why", why)
    })
}

/// `POST /api/v1/clusters/{name}/acceptances`.
pub(super) async fn accept(
    State(site): State<Arc<Site>>,
    By(by): By,
    Named(name): Named<ClusterName>,
    Input(asked): Input<AcceptanceCreate>,
) -> Result<(StatusCode, Json<AcceptanceView>), Failure> {
    known(&site, &name).await?;
    let now = Timestamp::now();
    // By name only: nothing lets a whole category pass, or all of them.
    let check = acceptable("check", &asked.check)?;
    let reason = asked.reason.trim().to_owned();
    let is_long = |text: &str| text.chars().count() > TEXT_LENGTH_MAX || text.chars().any(char::is_control);
    if reason.is_empty() || is_long(&reason) || asked.subject.as_deref().is_some_and(is_long) {
        return Err(unreadable(format!("reason must have 1 to {TEXT_LENGTH_MAX} characters, subject at most as many")));
    }
    let today = now.to_zoned(TimeZone::UTC).date();
    let after = |days: i64| today.checked_add(Span::new().days(days)).unwrap_or(today);
    let until = asked.until.unwrap_or_else(|| after(DAYS));
    if until < today || until > after(DAYS_MAX) {
        return Err(unreadable(format!("until must be a day from today to {}", after(DAYS_MAX))));
    }
    let subject = asked.subject.filter(|subject| !subject.is_empty());
    let view = AcceptanceView { id: random_name("a", 8), check, subject, reason, by, given_at: now, until };
    let failed =
        |error: serde_json::Error| StoreError::Failed { operation: "keep an acceptance", source: error.into() };
    let data = serde_json::to_string(&view).map_err(failed)?;
    site.store.add_acceptance(&AcceptanceRecord { id: view.id.clone(), cluster: name.clone(), data }).await?;
    tracing::info!(cluster = %name, check = view.check, by = %view.by, until = %view.until, "findings are accepted");
    Ok((StatusCode::CREATED, Json(view)))
}

/// `GET /api/v1/clusters/{name}/acceptances`; those that are over are among them.
pub(super) async fn acceptances(
    State(site): State<Arc<Site>>,
    Named(name): Named<ClusterName>,
) -> Result<Json<Page<AcceptanceView>>, Failure> {
    known(&site, &name).await?;
    Ok(Json(Page { items: site.precheck.acceptances(&name).await?, next: None }))
}

/// `DELETE /api/v1/clusters/{name}/acceptances/{id}`.
pub(super) async fn remove_acceptance(
    State(site): State<Arc<Site>>,
    By(by): By,
    Named((name, id)): Named<(ClusterName, String)>,
) -> Result<StatusCode, Failure> {
    known(&site, &name).await?;
    if !site.store.remove_acceptance(&name, &id).await? {
        let id: String = id.chars().take(64).collect();
        return Err(Failure(Problem::new(Code::AcceptanceUnknown).with("cluster", &name).with("acceptance", id)));
    }
    tracing::info!(cluster = %name, acceptance = id, %by, "an acceptance was taken back");
    Ok(StatusCode::NO_CONTENT)
}
