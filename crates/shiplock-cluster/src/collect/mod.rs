//! The collector of the pre-check: one paged list for each resource, metadata alone where that is enough, few requests
//! at once, and never a request to a version that the API server calls deprecated.
//!
//! What is forbidden, fails or is too large makes only itself unseen. It changes nothing, and keeps nothing that is
//! secret: of a Helm release only what identifies its objects.

mod api;
mod copy;
mod dial;
mod instance;
mod kept;
pub(crate) mod newer;
mod permission;
mod request;
mod resource;

use std::collections::BTreeSet;
use std::time::Instant;

use jiff::Timestamp;
use shiplock_check::api::live::to_list;
use shiplock_check::object::Definition;
use shiplock_check::run::Selection;
use shiplock_check::snapshot::{Effort, Instance, Read, SNAPSHOT_SCHEMA, Snapshot};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::version::{KubernetesVersion, MinorVersion};

use self::kept::Caches;
pub use self::kept::{Known, KnownLists, Marks};
use self::request::Requests;
use self::resource::Lists;
pub use self::resource::parts;
use crate::connection::Connection;
use crate::kubeconfig::InlinedKubeconfig;

/// What is collected.
#[derive(Clone, Debug)]
pub struct Collection<'a> {
    /// The target; without it the minor after the one that runs.
    pub target: Option<MinorVersion>,
    /// Which checks are wanted: only what they read is asked for.
    pub selection: &'a Selection,
    /// Whether an upgrade is about to start, so that it is asked what its driver may do.
    pub for_start: bool,
    /// Whether the copy for a rehearsal is read too.
    pub with_copy: bool,
}

/// Told what is being read.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);

/// Reads a cluster. Fails only where the cluster cannot be reached at all.
pub async fn collect(
    kubeconfig: &InlinedKubeconfig,
    collection: &Collection<'_>,
    progress: Progress<'_>,
) -> Result<Snapshot, Problem> {
    over(&Connection::open(kubeconfig).await?, collection, progress).await
}

/// Reads a cluster again: of Helm releases and lists that did not change since they were read nothing is read but whether
/// they did. Gives with the snapshot the marks of its lists, for a later run, where there is anything new to be kept.
pub async fn collect_again(
    kubeconfig: &InlinedKubeconfig,
    collection: &Collection<'_>,
    known: Known,
    progress: Progress<'_>,
) -> Result<(Snapshot, Option<Marks>), Problem> {
    let connection = Connection::open(kubeconfig).await?;
    let (releases, before) = (known.releases.clone(), known.marks.clone());
    let (snapshot, marks) = again(&connection, collection, Some(known), progress).await?;
    let is_new = marks.iter().any(|(path, marks)| before.get(path) != Some(marks))
        || snapshot.releases.seen().is_some_and(|seen| *seen != releases);
    Ok((snapshot, is_new.then_some(marks)))
}

/// Reads a cluster over a connection.
pub(crate) async fn over(
    connection: &Connection,
    collection: &Collection<'_>,
    progress: Progress<'_>,
) -> Result<Snapshot, Problem> {
    Ok(again(connection, collection, None, progress).await?.0)
}

/// Reads a cluster over a connection; with what is known, lists that can be followed are.
async fn again(
    connection: &Connection,
    collection: &Collection<'_>,
    known: Option<Known>,
    progress: Progress<'_>,
) -> Result<(Snapshot, Marks), Problem> {
    let begun = Instant::now();
    let requests = Requests::new(connection);
    progress("version");
    let version = requests.version().await?;
    let current = KubernetesVersion::parse_reported(&version).ok().map(|version| version.release);
    let Some(target) = collection.target.or(current.map(MinorVersion::next)) else {
        return Err(Problem::new(Code::NotAVersion).with("text", version));
    };
    let wants = |ids: &[&str]| ids.iter().any(|id| collection.selection.wants_id(id));
    let is_read = |path: &str| resource::is_read(path, collection.selection);
    let follows = known.is_some() && wants(instance::CHECKS) && kept::tells(&version);
    let Known { releases: known, lists: kept, marks } = known.unwrap_or_default();
    let is_followed = |list: &str| follows && resource::is_followed(list, collection.selection);
    let large = marks.iter().filter(|(_, marks)| !marks.is_empty()).map(|(list, _)| list);
    let followed: Vec<String> = large.filter(|list| is_followed(list)).cloned().collect();
    let caches = Caches::new(marks);
    kept.prepare(&followed);

    // What is served decides which lists are asked for; all else need not wait for it.
    let of_served = async {
        progress("APIs");
        let served = requests.served().await;
        let kinds = match served.seen() {
            Some(served) if wants(&["API-001", "API-002", "API-003", "API-004", "API-010", "API-011"]) => {
                to_list(served, current, target)
            }
            _ => Vec::new(),
        };
        let shared = api::Shared::of(&kinds, is_read);
        let lists = Lists {
            requests: &requests,
            served: served.seen().map(Vec::as_slice),
            selection: collection.selection,
            with_copy: collection.with_copy,
            shared: &shared,
            caches: follows.then_some(&caches),
            kept: &kept,
            progress,
        };
        let lists = resource::all(&lists);
        let (mut written, (objects, copy)) = futures::join!(api::written(&requests, kinds, &shared, progress), lists);
        shared.give(&mut written);
        (served, written, objects, copy)
    };
    let releases = async {
        if !wants(&["API-001", "API-002", "API-005", "API-006"]) {
            return Read::NotAsked;
        }
        progress("Helm releases");
        api::releases(&requests, &known).await
    };
    let instances = async {
        if !wants(instance::CHECKS) {
            return Vec::new();
        }
        let paths: Vec<&str> = followed.iter().map(|list| kept::path_of(list)).collect();
        let counted = instance::all(&requests, connection, &paths).await;
        let instances: Vec<Instance> = counted.iter().map(|counted| counted.instance.clone()).collect();
        caches.put(counted);
        instances
    };
    let ((served, written, objects, copy), releases, mut metrics) = futures::join!(of_served, releases, instances);
    // Of what is not listed, and of what a webhook converts, it matters how many objects there are.
    let mut converters = objects.definitions.seen().into_iter().flatten().filter_map(Definition::converter);
    let asks_counts = (wants(&["WHK-013"]) && converters.next().is_some())
        || (wants(&["API-003", "API-010", "API-011"]) && written.iter().any(|kind| kind.listed_through.is_empty()));
    if metrics.is_empty() && asks_counts {
        let counted = instance::all(&requests, connection, &[]).await;
        metrics = counted.into_iter().map(|counted| counted.instance).collect();
    }
    let (sent, bytes, in_flight_max) = requests.effort();
    let mut snapshot = Snapshot {
        schema: SNAPSHOT_SCHEMA,
        taken_at: Timestamp::now(),
        server: connection.server.clone(),
        version,
        asked: collection.selection.clone(),
        served,
        written,
        releases,
        metrics,
        objects,
        nodes: Vec::new(),
        nodes_unseen: None,
        dialled: Vec::new(),
        permissions: Vec::new(),
        copy,
        effort: Effort {
            requests: sent,
            bytes,
            in_flight_max,
            milliseconds: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        },
    };
    if collection.for_start && wants(&["RUN-003"]) {
        snapshot.permissions = permission::all(connection).await;
        snapshot.effort.requests += snapshot.permissions.len() as u64;
    }
    if wants(dial::CHECKS) {
        progress("certificates of webhooks");
        let (dialled, sent) = dial::all(connection, &snapshot).await;
        snapshot.dialled = dialled;
        snapshot.effort.requests += sent;
    }
    Ok((snapshot, caches.marks()))
}

/// The scopes that a snapshot of a cluster reaches.
pub fn scopes(snapshot: &Snapshot) -> BTreeSet<&'static str> {
    let mut scopes = BTreeSet::from(["cluster"]);
    if !snapshot.metrics.is_empty() {
        scopes.insert("control-plane");
    }
    if !snapshot.nodes.is_empty() || snapshot.nodes_unseen.is_some() {
        scopes.insert("node");
    }
    if !snapshot.permissions.is_empty() {
        scopes.insert("plan");
    }
    scopes
}

#[cfg(test)]
mod tests;
