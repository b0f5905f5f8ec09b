//! Lists that an earlier run read and that did not change since: they are not read again.
//!
//! An API server answers lists from a cache of its own for each resource, which follows etcd, and counts what that cache
//! takes in. A list that was read after these counters is as it was where one instance is still the same process, has
//! not filled the cache anew, and has taken in nothing. So that what etcd holds by now has been counted, the cache is
//! made to catch up before the counters are read: the instance is asked for a list that is not older than the newest
//! revision. From 1.34 on such a list always comes from the cache: <https://kep.k8s.io/4988>.
//!
//! Where any of this is missing lists are read again.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use serde::Deserialize;
use shiplock_check::api::helm::Release;
use shiplock_check::object::Objects;
use shiplock_check::snapshot::{Instance, Read};
use shiplock_core::version::{KubernetesVersion, MinorVersion};
use tokio::sync::SetOnce;

use super::request::{METADATA, Requests};
use crate::connection::Connection;

/// From this minor on a list that is not older than a revision comes from the cache, also page by page.
const FROM_CACHE: MinorVersion = MinorVersion { major: 1, minor: 34 };

/// Lists wait for so long until the instances have answered; then they are read, and not kept.
const WITHIN: Duration = Duration::from_secs(2);

/// Where the caches of a list stood before it was read: by the list, then by the address of the instance. A list is named by
/// its path; one of which only a part is held by its path and, after a question mark, which part.
pub type Marks = BTreeMap<String, BTreeMap<String, String>>;

/// The path of a list by its name among marks.
pub(super) fn path_of(list: &str) -> &str {
    list.split_once('?').map_or(list, |(path, _)| path)
}

/// What an earlier run read of the same server.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Helm releases.
    pub releases: Vec<Release>,
    /// The lists that have marks.
    pub lists: KnownLists,
    /// Their marks.
    pub marks: Marks,
}

/// A part of a list, once it has come.
type Part = Shared<BoxFuture<'static, Arc<Mutex<Objects>>>>;

/// Lists that an earlier run read, by their names among marks, in parts. They are read from where they are kept while the
/// server is asked what changed: only a list that did not change waits for them, and one that is not wanted is not read.
#[derive(Clone, Debug, Default)]
pub struct KnownLists(BTreeMap<String, Vec<Part>>);

impl KnownLists {
    /// Adds the next part of a list, which comes once it is asked for: objects of which that list counts.
    pub fn add(&mut self, list: &str, part: impl Future<Output = Objects> + Send + 'static) {
        let part = part.map(|objects| Arc::new(Mutex::new(objects))).boxed().shared();
        self.0.entry(list.to_owned()).or_default().push(part);
    }

    /// Has the parts of these lists come, all at once.
    pub(super) fn prepare(&self, lists: &[String]) {
        for part in lists.iter().filter_map(|list| self.0.get(list)).flatten() {
            tokio::spawn(part.clone());
        }
    }

    /// Takes a list, once. It is not seen where it is not held whole.
    pub async fn take<T>(&self, list: &str, of: impl Fn(&mut Objects) -> &mut Read<Vec<T>>) -> Option<Vec<T>> {
        let mut all = Vec::new();
        for part in self.0.get(list)? {
            let part = part.clone().await;
            let part = take(of(&mut part.lock().unwrap_or_else(PoisonError::into_inner)));
            let Read::Seen(mut part) = part else { return None };
            all.append(&mut part);
        }
        Some(all)
    }
}

/// An instance, and the lists whose cache had caught up with etcd before its counters were read.
pub(super) struct Counted {
    pub(super) instance: Instance,
    pub(super) caught_up: BTreeSet<String>,
}

/// Which lists did not change.
pub(super) struct Caches {
    counted: SetOnce<Vec<Counted>>,
    before: Marks,
    now: Mutex<Marks>,
}

impl Caches {
    /// Caches of which nothing is known now but how they stood before.
    pub(super) fn new(before: Marks) -> Self {
        Self { counted: SetOnce::new(), before, now: Mutex::default() }
    }

    /// Takes what the instances say, for all lists that wait for it.
    pub(super) fn put(&self, counted: Vec<Counted>) {
        // They answer once.
        let _ = self.counted.set(counted);
    }

    /// Where the caches of a list stand, and whether one says that the list is still what it was. To be asked for before
    /// the list is read; waits until the instances have answered.
    pub(super) async fn of(&self, list: &str) -> (BTreeMap<String, String>, bool) {
        let mut marks = BTreeMap::new();
        let mut is_as_it_was = false;
        let (before, path) = (self.before.get(list), path_of(list));
        if before.is_some_and(BTreeMap::is_empty) {
            return (marks, is_as_it_was);
        }
        let Ok(counted) = tokio::time::timeout(WITHIN, self.counted.wait()).await else { return (marks, is_as_it_was) };
        for Counted { instance, caught_up } in counted {
            let is_well = instance.not_ready.seen().is_some_and(Vec::is_empty)
                && instance.version.seen().is_some_and(|version| tells(version));
            let mark = instance.metrics.seen().filter(|_| is_well).and_then(|metrics| {
                let (group, resource) = resource_of(path)?;
                metrics.cache_mark(group, resource)
            });
            let Some(mark) = mark else { continue };
            let was = before.and_then(|before| before.get(&instance.address));
            is_as_it_was |= caught_up.contains(path) && was == Some(&mark);
            marks.insert(instance.address.clone(), mark);
        }
        (marks, is_as_it_was)
    }

    /// Takes the marks of a list that was read, or that it is small.
    pub(super) fn keep(&self, list: &str, marks: BTreeMap<String, String>, is_large: bool) {
        // One that has become large has no marks yet.
        let marks = if is_large { marks } else { BTreeMap::new() };
        if !is_large || !marks.is_empty() {
            self.now.lock().unwrap_or_else(PoisonError::into_inner).insert(list.to_owned(), marks);
        }
    }

    /// The marks of all lists that were read.
    pub(super) fn marks(self) -> Marks {
        self.now.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an API server of this version tells whether a list changed.
pub(super) fn tells(version: &str) -> bool {
    KubernetesVersion::parse_reported(version).is_ok_and(|version| version.release >= FROM_CACHE)
}

/// Group and resource in the path of a list.
fn resource_of(path: &str) -> Option<(&str, &str)> {
    let group = match path.strip_prefix("/apis/") {
        Some(rest) => rest.split('/').next()?,
        None => "",
    };
    Some((group, path.rsplit('/').next()?))
}

/// Of these lists those whose cache in an instance has caught up with what etcd holds by now.
pub(super) async fn catch_up(requests: &Requests<'_>, instance: &Connection, paths: &[&str]) -> BTreeSet<String> {
    let asked = paths.iter().map(|&path| async move {
        let body = requests.get_from(instance, &format!("{path}?limit=1"), METADATA).await.ok()?;
        let revision = revision(&body)?;
        let caught_up = format!("{path}?limit=1&resourceVersion={revision}&resourceVersionMatch=NotOlderThan");
        requests.get_from(instance, &caught_up, METADATA).await.ok()?;
        Some(path.to_owned())
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

/// The revision of a list.
fn revision(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct List {
        metadata: Revision,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Revision {
        resource_version: String,
    }
    let list: List = serde_json::from_slice(body).ok()?;
    let revision = list.metadata.resource_version;
    (!revision.is_empty() && revision.bytes().all(|byte| byte.is_ascii_digit())).then_some(revision)
}
