//! Lists that an earlier run read and that did not change since: they are not read again.
//!
//! An API server answers lists from a cache of its own for each resource, which follows etcd, and counts what that cache
//! takes in. A list that was read after these counters is as it was where one instance is still the same process, has
//! not filled the cache anew, and has taken in nothing, and none says otherwise. So that what etcd holds by now has been
//! counted, the cache is made to catch up before the counters are read: the instance is asked for a list that is not
//! older than the newest revision. From 1.34 on such a list comes from the cache (<https://kep.k8s.io/4988>), and where it
//! selects anything also while the cache is not filled: then it is refused, and not answered by etcd
//! (`shouldDelegateListOnNotReadyCache` in Kubernetes' `apiserver/pkg/storage/cacher`, <https://kep.k8s.io/4568>).
//!
//! An instance that did not vouch for a list may have counted a change that the list does not show: its mark is not kept
//! with it.
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

/// Selects every object, since none has this name: `metadata.name!=-`.
const SELECTS_ALL: &str = "fieldSelector=metadata.name%21%3D-";

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

    /// Where the caches of a list stand, and whether one says that the list is still what it was, and none that it is not.
    /// To be asked for before the list is read; waits until the instances have answered.
    pub(super) async fn of(&self, list: &str) -> (BTreeMap<String, String>, bool) {
        let mut marks = BTreeMap::new();
        let (before, path) = (self.before.get(list), path_of(list));
        if before.is_some_and(BTreeMap::is_empty) {
            return (marks, false);
        }
        let Ok(counted) = tokio::time::timeout(WITHIN, self.counted.wait()).await else { return (marks, false) };
        let was = |address: &str| before.and_then(|before| before.get(address));
        let (mut any_vouches, mut any_differs) = (false, false);
        for Counted { instance, caught_up } in counted {
            let is_well = instance.not_ready.seen().is_some_and(Vec::is_empty)
                && instance.version.seen().is_some_and(|version| tells(version));
            let mark = instance.metrics.seen().filter(|_| is_well).and_then(|metrics| {
                let (group, resource) = resource_of(path)?;
                metrics.cache_mark(group, resource)
            });
            let Some(mark) = mark else { continue };
            any_vouches |= caught_up.contains(path) && was(&instance.address) == Some(&mark);
            any_differs |= was(&instance.address).is_some_and(|was| *was != mark);
            marks.insert(instance.address.clone(), mark);
        }
        let is_as_it_was = any_vouches && !any_differs;
        if is_as_it_was {
            marks.retain(|address, mark| was(address) == Some(&*mark));
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
        let newest = format!("resourceVersion={revision}&resourceVersionMatch=NotOlderThan");
        let caught_up = format!("{path}?limit=1&{SELECTS_ALL}&{newest}");
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

#[cfg(test)]
mod tests {
    use shiplock_check::api::metrics::Metrics;

    use super::*;

    const LIST: &str = "/api/v1/pods";

    /// An instance whose cache of pods has counted so many changes.
    fn counted(address: &str, changes: u32) -> Counted {
        let mut metrics = Metrics { address: address.to_owned(), samples: Vec::new() };
        metrics.take("process_start_time_seconds 1");
        metrics.take(r#"apiserver_watch_cache_initializations_total{group="",resource="pods"} 1"#);
        metrics.take(&format!(r#"apiserver_watch_cache_events_received_total{{group="",resource="pods"}} {changes}"#));
        let instance = Instance {
            address: address.to_owned(),
            metrics: Read::Seen(metrics),
            version: Read::Seen("v1.36.3".to_owned()),
            not_ready: Read::Seen(Vec::new()),
        };
        Counted { instance, caught_up: BTreeSet::from([LIST.to_owned()]) }
    }

    async fn of(before: &[(&str, u32)], now: &[(&str, u32)]) -> (Vec<String>, bool) {
        let marks = |counted: &[(&str, u32)]| counted.iter().map(|(at, changes)| self::counted(at, *changes)).collect();
        let caches = Caches::new(Marks::new());
        caches.put(marks(before));
        let (before, _) = caches.of(LIST).await;
        let caches = Caches::new(Marks::from([(LIST.to_owned(), before)]));
        caches.put(marks(now));
        let (marks, is_as_it_was) = caches.of(LIST).await;
        (marks.into_keys().collect(), is_as_it_was)
    }

    #[tokio::test]
    async fn a_list_is_as_it_was_where_an_instance_vouches_and_none_differs_and_only_who_vouched_is_believed_later() {
        for (what, before, now, kept, expected) in [
            ("both vouch", &[("a", 1), ("b", 7)][..], &[("a", 1), ("b", 7)][..], &["a", "b"][..], true),
            ("one is away", &[("a", 1), ("b", 7)], &[("a", 1)], &["a"], true),
            ("one has counted a change", &[("a", 1), ("b", 7)], &[("a", 1), ("b", 8)], &["a", "b"], false),
            ("one is new, and may have counted a change", &[("a", 1)], &[("a", 1), ("b", 8)], &["a"], true),
            ("none is known", &[("a", 1)], &[("b", 8)], &["b"], false),
        ] {
            let kept = kept.iter().map(|&address| address.to_owned()).collect();
            assert_eq!(of(before, now).await, (kept, expected), "{what}");
        }
    }
}
