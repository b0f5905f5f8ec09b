//! A cache of one kind of object, kept fresh by a watch, and the honest word on how fresh it is.
//!
//! The library's watcher hides when a stream is connected again after a failure, and without that nobody can say until
//! when a cache is current. So list and watch are done here. Objects are turned into facts at once; none is kept.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, pin_mut};
use jiff::Timestamp;
use kube::api::{ListParams, WatchParams};
use kube::core::WatchEvent;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use shiplock_core::problem::Problem;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::answer::{Ask, failure, refused, unreachable_server, unreadable};
use crate::connection::Connection;

/// The most objects of one page.
const PAGE_SIZE: u32 = 500;
/// No list has more pages than this.
const PAGES_MAX: usize = 2_000;
/// A broken cache is still given out for this long, with the time until which it is good.
pub(crate) const BROKEN_TOLERANCE: Duration = Duration::from_secs(15);
/// A watch is asked for anew after this time, which proves that it can be had.
const WATCH_SECONDS: u32 = 60;
/// The server ends a watch in time; where its end does not arrive, the connection is dead.
const WATCH_MARGIN: Duration = Duration::from_secs(5);
/// How long the server may take to begin a watch.
const WATCH_BEGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Waits after failures: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// After this many failures in a row the objects are listed anew.
const WATCH_FAILURES_MAX: u32 = 5;

/// Tells that something has changed.
#[derive(Debug)]
pub(crate) struct Changes {
    count: watch::Sender<u64>,
}

impl Changes {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { count: watch::Sender::new(0) })
    }

    pub(crate) fn tell(&self) {
        self.count.send_modify(|count| *count += 1);
    }

    pub(crate) fn count(&self) -> u64 {
        *self.count.borrow()
    }

    /// Returns when there has been another change than the first `count` ones.
    pub(crate) async fn after(&self, count: u64) {
        // The sender lives as long as `self`, so this ends with a change only.
        let _ = self.count.subscribe().wait_for(|now| *now != count).await;
    }
}

/// How fresh something is.
#[derive(Debug, Default)]
pub(crate) struct Health {
    good_until: Option<Timestamp>,
    connected: bool,
    trouble: Option<(Instant, Problem)>,
}

impl Health {
    /// It was whole at this time.
    pub(crate) fn good(&mut self, at: Timestamp) {
        self.good_until = Some(at);
    }

    /// It follows every change from now on.
    pub(crate) fn connect(&mut self) {
        self.connected = true;
        self.trouble = None;
    }

    /// It follows no more.
    pub(crate) fn lose(&mut self, problem: Problem) {
        self.connected = false;
        let since = self.trouble.take().map_or_else(Instant::now, |(since, _)| since);
        self.trouble = Some((since, problem));
    }

    /// Until when it is known to be current, or why nobody may build on it. None before the first time it was whole.
    pub(crate) fn judge(&self, now: Timestamp) -> Option<Result<Timestamp, Problem>> {
        match (&self.trouble, self.good_until) {
            (Some((since, problem)), good) if good.is_none() || since.elapsed() > BROKEN_TOLERANCE => {
                Some(Err(problem.clone()))
            }
            (_, None) => None,
            (_, Some(_)) if self.connected => Some(Ok(now)),
            (_, Some(good)) => Some(Ok(good)),
        }
    }
}

/// The facts of one kind of object.
#[derive(Debug)]
pub(crate) struct Cache<T> {
    state: Mutex<State<T>>,
    changes: Arc<Changes>,
}

#[derive(Debug)]
struct State<T> {
    items: BTreeMap<String, T>,
    health: Health,
}

impl<T: Clone + PartialEq> Cache<T> {
    pub(crate) fn new(changes: &Arc<Changes>) -> Arc<Self> {
        let state = State { items: BTreeMap::new(), health: Health::default() };
        Arc::new(Self { state: Mutex::new(state), changes: changes.clone() })
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn judge(&self, now: Timestamp) -> Option<Result<Timestamp, Problem>> {
        self.state().health.judge(now)
    }

    /// Looks at what is kept, by `namespace/name` or `name`.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&BTreeMap<String, T>) -> R) -> R {
        look(&self.state().items)
    }

    fn replace(&self, items: BTreeMap<String, T>, at: Timestamp) {
        let mut state = self.state();
        state.items = items;
        state.health.good(at);
        drop(state);
        self.changes.tell();
    }

    fn connect(&self) {
        let mut state = self.state();
        let news = !state.health.connected;
        state.health.connect();
        drop(state);
        if news {
            self.changes.tell();
        }
    }

    fn lose(&self, problem: Problem, at: Timestamp) {
        let mut state = self.state();
        if state.health.connected {
            state.health.good(at);
        }
        state.health.lose(problem);
        drop(state);
        self.changes.tell();
    }

    /// Keeps or forgets one; a change of the object that changes no fact is no change.
    fn set(&self, key: String, item: Option<T>) {
        let mut state = self.state();
        let changed = match item {
            Some(item) if state.items.get(&key) == Some(&item) => false,
            Some(item) => {
                state.items.insert(key, item);
                true
            }
            None => state.items.remove(&key).is_some(),
        };
        drop(state);
        if changed {
            self.changes.tell();
        }
    }
}

/// What is watched, and what of each object is kept.
pub(crate) struct Source<K, T> {
    pub(crate) connection: Connection,
    pub(crate) api: Api<K>,
    /// The plural with its group, as in a ClusterRole.
    pub(crate) resource: &'static str,
    pub(crate) keep: fn(K) -> Option<T>,
}

/// How one watch ended.
enum Ended {
    /// As it should.
    InTime,
    /// The server does not know any more what came after our version.
    Expired,
    /// It broke.
    Broken(Problem),
}

impl<K, T> Source<K, T>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Clone + PartialEq,
{
    /// Every object, in pages, and the version that the list is of.
    pub(crate) async fn list(&self) -> Result<(BTreeMap<String, T>, String), Problem> {
        let ask = Ask::new("list", self.resource);
        let mut items = BTreeMap::new();
        let mut parameters = ListParams::default().limit(PAGE_SIZE);
        for _ in 0..PAGES_MAX {
            let page = self.connection.read(ask, self.api.list(&parameters)).await?;
            for object in page.items {
                let key = key(&object);
                if let Some(item) = (self.keep)(object) {
                    items.insert(key, item);
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters = parameters.continue_token(&token),
                None => return Ok((items, page.metadata.resource_version.unwrap_or_default())),
            }
        }
        Err(unreadable(ask).cause(format!("the list has more than {PAGES_MAX} pages")))
    }

    /// Keeps a cache fresh until the task is aborted.
    pub(crate) async fn follow(self, cache: Arc<Cache<T>>) {
        let mut backoff = BACKOFF.0;
        let clock = self.connection.clock;
        loop {
            let asked_at = clock.now();
            let mut version = match self.list().await {
                Ok((items, version)) => {
                    cache.replace(items, asked_at);
                    version
                }
                Err(problem) => {
                    cache.lose(problem, clock.now());
                    pause(&mut backoff).await;
                    continue;
                }
            };
            let mut failures = 0;
            while failures < WATCH_FAILURES_MAX {
                let begun = Instant::now();
                match self.watch(&cache, &mut version).await {
                    Ended::InTime => {
                        failures = 0;
                        backoff = BACKOFF.0;
                        // A server that ends every watch at once is not asked in a loop.
                        tokio::time::sleep_until(begun + BACKOFF.0).await;
                    }
                    Ended::Expired => {
                        let ask = Ask::new("watch", self.resource);
                        cache.lose(
                            unreadable(ask).cause("the watch cannot go on where it stopped; everything is listed anew"),
                            clock.now(),
                        );
                        break;
                    }
                    Ended::Broken(problem) => {
                        failures += 1;
                        if begun.elapsed() > BACKOFF.1 {
                            backoff = BACKOFF.0;
                        }
                        cache.lose(problem, clock.now());
                        pause(&mut backoff).await;
                    }
                }
            }
        }
    }

    async fn watch(&self, cache: &Cache<T>, version: &mut String) -> Ended {
        let ask = Ask::new("watch", self.resource);
        let server = &self.connection.server;
        let parameters = WatchParams::default().timeout(WATCH_SECONDS);
        let begun = tokio::time::timeout(WATCH_BEGIN_TIMEOUT, self.api.watch(&parameters, version)).await;
        let stream = match begun {
            Ok(Ok(stream)) => stream,
            Ok(Err(kube::Error::Api(status))) if status.code == 410 => return Ended::Expired,
            Ok(Err(error)) => return Ended::Broken(failure(server, ask, error).problem),
            Err(_) => {
                return Ended::Broken(
                    unreachable_server(server)
                        .cause(format!("no watch of {} within {WATCH_BEGIN_TIMEOUT:?}", self.resource)),
                );
            }
        };
        cache.connect();
        pin_mut!(stream);
        let quiet_max = Duration::from_secs(u64::from(WATCH_SECONDS)) + WATCH_MARGIN;
        loop {
            match tokio::time::timeout(quiet_max, stream.next()).await {
                Ok(Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)))) => {
                    *version = object.resource_version().unwrap_or_default();
                    let key = key(&object);
                    cache.set(key, (self.keep)(object));
                }
                Ok(Some(Ok(WatchEvent::Deleted(object)))) => {
                    *version = object.resource_version().unwrap_or_default();
                    cache.set(key(&object), None);
                }
                Ok(Some(Ok(WatchEvent::Bookmark(bookmark)))) => *version = bookmark.metadata.resource_version,
                Ok(Some(Ok(WatchEvent::Error(status)))) if status.code == 410 => return Ended::Expired,
                Ok(Some(Ok(WatchEvent::Error(status)))) => return Ended::Broken(refused(server, ask, &status)),
                Ok(Some(Err(kube::Error::Api(status)))) if status.code == 410 => return Ended::Expired,
                Ok(Some(Err(error))) => return Ended::Broken(failure(server, ask, error).problem),
                Ok(None) => return Ended::InTime,
                Err(_) => {
                    return Ended::Broken(
                        unreachable_server(server).cause(format!("the watch of {} fell silent", self.resource)),
                    );
                }
            }
        }
    }
}

async fn pause(backoff: &mut Duration) {
    tokio::time::sleep(*backoff).await;
    *backoff = (*backoff * 2).min(BACKOFF.1);
}

fn key<K: Resource>(object: &K) -> String {
    let meta = object.meta();
    let name = meta.name.as_deref().unwrap_or_default();
    match meta.namespace.as_deref() {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
