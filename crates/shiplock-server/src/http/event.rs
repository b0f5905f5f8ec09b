//! Events: in pages, or as server-sent events that a reader resumes without losing or repeating one.
//!
//! What is sent is read from the store in order; a notice that something was appended only says when to read. So a
//! lost notice costs time and never an event.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;
use serde::Deserialize;
use shiplock_api::rest::Page;
use shiplock_core::id::UpgradeId;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{Event, EventRecord};
use tokio::sync::watch;

use super::Site;
use super::connection::closed;
use super::failure::{Failure, unreadable};
use super::input::{Asked, Named};
use super::upgrade::wants_stream;
use crate::store::{PAGE_MAX, StoreError};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Events of a page when nothing is asked.
const EVENTS: u32 = 200;
/// Events that a stream reads at once.
const EVENTS_AT_ONCE: u32 = 100;
/// A stream looks at least this often: another server may append.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// A silent stream sends a comment this often.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The query of both feeds.
#[derive(Debug, Deserialize)]
pub(super) struct EventQuery {
    after: Option<u64>,
    limit: Option<u32>,
}

/// `GET /api/v1/upgrades/{id}/events`.
pub(super) async fn of_upgrade(
    State(site): State<Arc<Site>>,
    Named(id): Named<UpgradeId>,
    headers: HeaderMap,
    Asked(query): Asked<EventQuery>,
) -> Result<Response, Failure> {
    if site.store.upgrade(&id).await?.is_none() {
        return Err(Failure(Problem::new(Code::UpgradeUnknown).with("upgrade", &id)));
    }
    answer(&site, Source::Upgrade(id), &headers, &query).await
}

/// `GET /api/v1/events`: those of all upgrades by their position in the store.
pub(super) async fn of_all(
    State(site): State<Arc<Site>>,
    headers: HeaderMap,
    Asked(query): Asked<EventQuery>,
) -> Result<Response, Failure> {
    answer(&site, Source::All, &headers, &query).await
}

async fn answer(
    site: &Arc<Site>,
    source: Source,
    headers: &HeaderMap,
    query: &EventQuery,
) -> Result<Response, Failure> {
    if !wants_stream(headers) {
        let limit = query.limit.unwrap_or(EVENTS).clamp(1, PAGE_MAX);
        let items = source.read(site, query.after.unwrap_or(0), limit).await?;
        let full = items.len() >= limit as usize;
        let next = items.last().filter(|_| full).map(|last| source.mark(last).to_string());
        return Ok(Json(Page { items, next }).into_response());
    }
    let after = last_event_id(headers)?.or(query.after).unwrap_or(0);
    let mut feed = Feed::new(site.clone(), source, after);
    feed.fill().await?;
    if feed.ready.is_empty() && feed.ended {
        // The status that tells a browser not to come back.
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(feed.into_stream()).keep_alive(keep_alive).into_response();
    // Proxies must neither keep nor gather what is sent.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.headers_mut().insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let Some(id) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let id = id.to_str().ok().and_then(|id| id.trim().parse().ok());
    id.map(Some).ok_or_else(|| unreadable("Last-Event-ID is not the id of an event"))
}

/// Which events are read.
enum Source {
    Upgrade(UpgradeId),
    All,
}

impl Source {
    async fn read(&self, site: &Site, after: u64, limit: u32) -> Result<Vec<EventRecord>, StoreError> {
        match self {
            Self::Upgrade(id) => site.store.events(id, after, limit).await,
            Self::All => site.store.events_since(after, limit).await,
        }
    }

    /// What a reader resumes from.
    fn mark(&self, record: &EventRecord) -> u64 {
        match self {
            Self::Upgrade(_) => record.number,
            Self::All => record.position,
        }
    }

    /// Whether nothing can follow.
    async fn has_ended(&self, site: &Site) -> Result<bool, StoreError> {
        match self {
            Self::Upgrade(id) => Ok(site.store.upgrade(id).await?.is_none_or(|row| !row.active)),
            Self::All => Ok(false),
        }
    }
}

/// A reader's place in a log.
struct Feed {
    site: Arc<Site>,
    source: Source,
    after: u64,
    ready: VecDeque<EventRecord>,
    appended: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    ended: bool,
}

impl Feed {
    fn new(site: Arc<Site>, source: Source, after: u64) -> Self {
        let (appended, closing) = (site.drivers.appended(), site.closing.clone());
        Self { site, source, after, ready: VecDeque::new(), appended, closing, ended: false }
    }

    /// Reads on. Notices are marked as seen before the store is read, so that none falls between.
    async fn fill(&mut self) -> Result<(), StoreError> {
        self.appended.borrow_and_update();
        // Asked before reading: what was appended up to the end is then read.
        let ended = self.source.has_ended(&self.site).await?;
        let records = self.source.read(&self.site, self.after, EVENTS_AT_ONCE).await?;
        self.ended = ended && records.is_empty();
        if let Some(last) = records.last() {
            self.after = self.source.mark(last);
        }
        self.ready.extend(records);
        Ok(())
    }

    async fn next(&mut self) -> Option<EventRecord> {
        loop {
            if *self.closing.borrow() {
                return None;
            }
            if let Some(record) = self.ready.pop_front() {
                // Nothing of use follows an event that ends the upgrade.
                self.ended |= matches!(self.source, Source::Upgrade(_)) && is_end(&record.event);
                return Some(record);
            }
            if self.ended {
                return None;
            }
            if let Err(error) = self.fill().await {
                // The reader comes back and resumes.
                tracing::warn!(%error, "a feed of events is cut");
                return None;
            }
            if !self.ready.is_empty() || self.ended {
                continue;
            }
            tokio::select! {
                () = closed(&mut self.closing) => return None,
                news = self.appended.changed() => {
                    if news.is_err() {
                        return None;
                    }
                }
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }

    fn into_stream(self) -> impl Stream<Item = Result<sse::Event, Infallible>> + Send {
        futures::stream::unfold(self, async |mut feed| {
            let record = feed.next().await?;
            let event = sent(&record, feed.source.mark(&record));
            Some((Ok(event), feed))
        })
    }
}

fn is_end(event: &Event) -> bool {
    matches!(event, Event::Cancelled | Event::Expired | Event::Succeeded)
}

fn sent(record: &EventRecord, mark: u64) -> sse::Event {
    let value = serde_json::to_value(record).unwrap_or_default();
    let kind = value.get("kind").and_then(|kind| kind.as_str()).unwrap_or("event");
    // JSON escapes line ends, so the data is one line.
    sse::Event::default().id(mark.to_string()).event(kind).data(value.to_string())
}
