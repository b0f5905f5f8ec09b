//! Who writes objects of versions that go away, and what Helm keeps.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use serde::Deserialize;
use shiplock_check::api::authorship::{FieldEntry, Written};
use shiplock_check::api::helm::{Reader, Release, Revision, wanted};
use shiplock_check::object::Labels;
use shiplock_check::snapshot::{Read, WrittenKind};

use super::Progress;
use super::request::{List, Requests, items};

/// Helm's own label, without revisions that newer ones took the place of.
const OF_HELM: &str = "labelSelector=owner%3Dhelm%2Cstatus%21%3Dsuperseded";
/// How the names of what Helm keeps begin.
const NAME_OF_HELM: &str = "sh.helm.release.";
/// Releases are large: few on a page keep the memory small.
const RELEASES_ON_A_PAGE: u32 = 100;
/// Metadata is small: a few more requests would take longer.
const METADATA_ON_A_PAGE: u32 = 2_000;
/// So many that changed are got one by one; for more a whole list is less work for the API server.
const CHANGED_ONE_BY_ONE_MAX: usize = 100;
/// Of so many releases that are not deployed it is asked whether a superseded revision is newer.
const NOT_DEPLOYED_ASKED_MAX: usize = 50;
/// Where kubectl and kapp keep what they applied.
const ANNOTATIONS: [&str; 2] = ["kubectl.kubernetes.io/last-applied-configuration", "kapp.k14s.io/original"];

/// An object, of which its metadata alone is read.
#[derive(Deserialize)]
pub(super) struct Partial {
    metadata: PartialMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PartialMetadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    managed_fields: Vec<FieldEntry>,
}

/// Lists that other checks read too: what they say of who wrote the objects, by path, so that none is asked for twice.
pub(super) struct Shared(Mutex<BTreeMap<String, Read<Vec<Written>>>>);

impl Shared {
    /// Of kinds that go away those whose list is read anyway.
    pub(super) fn of(kinds: &[WrittenKind], is_read: impl Fn(&str) -> bool) -> Self {
        let paths = kinds.iter().filter_map(path_of).filter(|path| is_read(path));
        let unread = || Read::NotSeen("its list was not read".to_owned());
        Self(Mutex::new(paths.map(|path| (path, unread())).collect()))
    }

    /// Whether the answer to a list is wanted here too.
    pub(super) fn awaits(&self, path: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(path)
    }

    /// Takes what a list says.
    pub(super) fn put(&self, path: &str, objects: Read<Vec<Partial>>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), all_kept(objects));
    }

    /// Gives each kind what its list said.
    pub(super) fn give(self, kinds: &mut [WrittenKind]) {
        let read = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        for kind in kinds {
            if let Some(objects) = path_of(kind).and_then(|path| read.get(&path)) {
                kind.objects = objects.clone();
            }
        }
    }
}

/// Where the objects of a kind are listed; nowhere where asking would itself be a use of a version that is deprecated.
fn path_of(kind: &WrittenKind) -> Option<String> {
    let root = if kind.listed_through.contains('/') { "/apis" } else { "/api" };
    // The successor of a kind in another group has the same plural name, but for a few.
    (!kind.listed_through.is_empty()).then(|| format!("{root}/{}/{}", kind.listed_through, kind.resource))
}

/// Lists the objects of kinds that go away, through versions that stay, but for those that come with `shared`.
pub(super) async fn written(
    requests: &Requests<'_>,
    kinds: Vec<WrittenKind>,
    shared: &Shared,
    progress: Progress<'_>,
) -> Vec<WrittenKind> {
    futures::stream::iter(kinds)
        .map(|mut kind| async move {
            match path_of(&kind) {
                Some(path) if shared.awaits(&path) => {}
                Some(path) => {
                    progress(&kind.resource);
                    let list = List { metadata_only: true, ..List::of(&path) };
                    kind.objects = all_kept(requests.list(list).await);
                }
                None => {
                    let why = format!("{} {} is served only by a version that is deprecated, and asking for it would itself be a use of it; see it with `kubectl get {}`", kind.group, kind.resource, kind.resource);
                    kind.objects = Read::NotSeen(why);
                }
            }
            kind
        })
        .buffered(4)
        .collect()
        .await
}

fn all_kept(objects: Read<Vec<Partial>>) -> Read<Vec<Written>> {
    match objects {
        Read::Seen(objects) => Read::Seen(objects.into_iter().map(kept).collect()),
        Read::NotSeen(why) => Read::NotSeen(why),
        Read::NotAsked => Read::NotAsked,
    }
}

/// What is kept of an object's metadata: no content of annotations but the version in them.
fn kept(object: Partial) -> Written {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Applied {
        api_version: String,
    }
    let metadata = object.metadata;
    let applied = ANNOTATIONS.iter().filter_map(|name| metadata.annotations.get(*name));
    let versions = applied.filter_map(|text| serde_json::from_str::<Applied>(text).ok());
    Written {
        annotations: versions.map(|applied| applied.api_version).collect(),
        namespace: metadata.namespace,
        name: metadata.name,
        entries: metadata.managed_fields,
    }
}

/// A Secret or ConfigMap of Helm.
#[derive(Deserialize)]
struct Stored {
    metadata: StoredMetadata,
    #[serde(default)]
    data: StoredData,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredMetadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    labels: Labels,
}

#[derive(Default, Deserialize)]
struct StoredData {
    #[serde(default)]
    release: String,
}

/// Reads the releases that count. Without any that is known, every revision that is not superseded is got once, and
/// unpacked while the next page is fetched; with some, only what changed since is got. What no rule wants is dropped.
pub(super) async fn releases(requests: &Requests<'_>, known: &[Release]) -> Read<Vec<Release>> {
    let known: HashMap<&(String, String), &Release> =
        known.iter().filter(|release| !release.origin.1.is_empty()).map(|release| (&release.origin, release)).collect();
    let known = &known;
    // Where Helm keeps its releases.
    let stores = (stored(requests, "secrets", true, known), stored(requests, "configmaps", false, known));
    match futures::join!(stores.0, stores.1) {
        (Ok(mut releases), Ok(more)) => {
            releases.extend(more);
            releases.sort_by(|one: &Release, other: &Release| one.id.cmp(&other.id));
            Read::Seen(releases)
        }
        // Of two causes always the same is told, whichever comes first.
        (Err(why), _) | (_, Err(why)) => Read::NotSeen(why),
    }
}

/// The releases that count of those that are kept in one kind of object.
async fn stored(
    requests: &Requests<'_>,
    resource: &str,
    is_secret: bool,
    known: &HashMap<&(String, String), &Release>,
) -> Result<Vec<Release>, String> {
    let read = if known.is_empty() {
        current_revisions(requests, &format!("/api/v1/{resource}"), is_secret).await?
    } else {
        changed_revisions(requests, resource, is_secret, known).await?
    };
    let mut revisions: Vec<Revision> = read.iter().map(|release| release.id.clone()).collect();
    let unsettled = wanted(&revisions).into_iter().filter(|one| one.status != "deployed");
    let unsettled: Vec<Revision> = unsettled.take(NOT_DEPLOYED_ASKED_MAX).cloned().collect();
    let asked = unsettled.iter().map(|one| superseded(requests, resource, one));
    for more in futures::future::try_join_all(asked).await? {
        revisions.extend(more);
    }
    let wanted: BTreeSet<Revision> = wanted(&revisions).into_iter().cloned().collect();
    Ok(read.into_iter().filter(|release| wanted.contains(&release.id)).collect())
}

/// The revisions that are not superseded, of which those that are known are not got again.
async fn changed_revisions(
    requests: &Requests<'_>,
    resource: &str,
    is_secret: bool,
    known: &HashMap<&(String, String), &Release>,
) -> Result<Vec<Release>, String> {
    let list_path = format!("/api/v1/{resource}");
    let list = List { query: OF_HELM, metadata_only: true, page: METADATA_ON_A_PAGE, ..List::of(&list_path) };
    let found = match requests.list::<Partial>(list).await {
        Read::Seen(found) => found,
        Read::NotSeen(why) => return Err(why),
        Read::NotAsked => return Ok(Vec::new()),
    };
    let mut releases = Vec::new();
    let mut all = Vec::new();
    let mut identified = Vec::new();
    for Partial { metadata } in found {
        match identify(&metadata.namespace, &metadata.labels) {
            Some(id) => {
                all.push(id.clone());
                identified.push((metadata, id));
            }
            None => releases.extend(unidentified(&metadata.namespace, &metadata.name, &metadata.labels)),
        }
    }
    let wanted: BTreeSet<&Revision> = wanted(&all);
    let mut changed = Vec::new();
    for (metadata, id) in identified.into_iter().filter(|(_, id)| wanted.contains(id)) {
        match known.get(&(metadata.uid, metadata.resource_version)) {
            Some(release) if release.id == id => releases.push((*release).clone()),
            _ => changed.push((metadata.name, id)),
        }
    }
    if changed.len() > CHANGED_ONE_BY_ONE_MAX {
        return current_revisions(requests, &list_path, is_secret).await;
    }
    let mut reader = Reader::default();
    for (name, id) in changed {
        let path = format!("/api/v1/namespaces/{}/{resource}/{name}", id.namespace);
        let body = match requests.get(&path, "application/json").await {
            Ok(body) => body,
            // It went between the list and now.
            Err(failure) if failure.status == 404 => continue,
            // Who may list may not be allowed to get.
            Err(failure) if failure.status == 403 => return current_revisions(requests, &list_path, is_secret).await,
            Err(failure) => return Err(failure.why),
        };
        let stored: Stored =
            serde_json::from_slice(&body).map_err(|error| format!("{path}: column {}", error.column()))?;
        releases.push(unpack(&mut reader, id, stored, is_secret));
    }
    Ok(releases)
}

/// The superseded revisions of a release, which may be newer than one that failed.
async fn superseded(requests: &Requests<'_>, resource: &str, of: &Revision) -> Result<Vec<Revision>, String> {
    let path = format!("/api/v1/namespaces/{}/{resource}", of.namespace);
    let query = format!("labelSelector=owner%3Dhelm%2Cstatus%3Dsuperseded%2Cname%3D{}", of.release);
    let list = List { query: &query, metadata_only: true, ..List::of(&path) };
    match requests.list::<Partial>(list).await {
        Read::Seen(found) => Ok(found
            .iter()
            .filter_map(|object| identify(&object.metadata.namespace, &object.metadata.labels))
            .collect()),
        Read::NotSeen(why) => Err(why),
        Read::NotAsked => Ok(Vec::new()),
    }
}

fn identify(namespace: &str, labels: &Labels) -> Option<Revision> {
    Some(Revision {
        namespace: namespace.to_owned(),
        release: labels.get("name")?.clone(),
        revision: labels.get("version")?.parse().ok()?,
        status: labels.get("status")?.clone(),
    })
}

/// A revision whose labels do not say which one it is, by the name of what holds it; none where that is not Helm's.
fn unidentified(namespace: &str, name: &str, labels: &Labels) -> Option<Release> {
    if !name.starts_with(NAME_OF_HELM) {
        return None;
    }
    let id = Revision {
        namespace: namespace.to_owned(),
        release: name.to_owned(),
        revision: 0,
        status: labels.get("status").cloned().unwrap_or_else(|| "-".to_owned()),
    };
    Some(Release::unreadable(id, "its labels name, version and status do not say which one it is".to_owned()))
}

async fn current_revisions(requests: &Requests<'_>, path: &str, is_secret: bool) -> Result<Vec<Release>, String> {
    let list = List { query: OF_HELM, page: RELEASES_ON_A_PAGE, ..List::of(path) };
    for attempt in 0..2 {
        // One page is unpacked while the next one is fetched; no more are held.
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
        let unpacking = tokio::task::spawn_blocking(move || {
            let mut reader = Reader::default();
            let mut releases = Vec::new();
            while let Some(body) = receiver.blocking_recv() {
                for stored in items::<Stored>(&body)? {
                    let StoredMetadata { name, namespace, labels, .. } = &stored.metadata;
                    match identify(namespace, labels) {
                        Some(id) => releases.push(unpack(&mut reader, id, stored, is_secret)),
                        None => releases.extend(unidentified(namespace, name, labels)),
                    }
                }
            }
            Ok::<_, String>(releases)
        });
        let fetched = requests.pages(list, async |body| sender.send(body).await.is_ok()).await;
        drop(sender);
        let unpacked = unpacking.await.map_err(|error| format!("a release could not be unpacked: {error}"))??;
        match fetched {
            Ok(()) => return Ok(unpacked),
            Err(failure) if failure.status == 410 && attempt == 0 => {}
            Err(failure) => return Err(failure.why),
        }
    }
    Err("its pages expired twice while they were read".to_owned())
}

fn unpack(reader: &mut Reader, id: Revision, stored: Stored, is_secret: bool) -> Release {
    let text = stored.data.release.as_str();
    // The API server adds a base64 of its own around what Helm put into a Secret.
    let payload = if is_secret { STANDARD.decode(text).map(Cow::Owned) } else { Ok(Cow::Borrowed(text.as_bytes())) };
    let release = reader.read(id, &payload.unwrap_or_default());
    Release { origin: (stored.metadata.uid, stored.metadata.resource_version), ..release }
}
