//! Who writes objects of versions that go away, and what Helm keeps.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use serde::Deserialize;
use shiplock_check::api::authorship::{FieldEntry, Written};
use shiplock_check::api::helm::{Reader, Release, Revision, wanted};
use shiplock_check::api::live::to_list;
use shiplock_check::object::Labels;
use shiplock_check::snapshot::{Read, ServedResource, WrittenKind};
use shiplock_core::version::MinorVersion;

use super::Progress;
use super::request::{List, Requests, items};

/// Helm's own label.
const OF_HELM: &str = "labelSelector=owner%3Dhelm";
/// The same without revisions that have no say any more.
const OF_HELM_NOT_PAST: &str =
    "labelSelector=owner%3Dhelm%2Cstatus%21%3Dsuperseded%2Cstatus%21%3Duninstalled%2Cstatus%21%3Duninstalling";
/// Releases are large: few on a page keep the memory small.
const RELEASES_ON_A_PAGE: u32 = 100;
/// So few releases are got one by one.
const RELEASES_ONE_BY_ONE_MAX: usize = 8;
/// Where kubectl and kapp keep what they applied.
const ANNOTATIONS: [&str; 2] = ["kubectl.kubernetes.io/last-applied-configuration", "kapp.k14s.io/original"];

#[derive(Deserialize)]
struct Partial {
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
    labels: Labels,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    managed_fields: Vec<FieldEntry>,
}

/// Lists the objects of all kinds that go away, through versions that stay.
pub(super) async fn written(
    requests: &Requests<'_>,
    served: &[ServedResource],
    current: Option<MinorVersion>,
    target: MinorVersion,
    progress: Progress<'_>,
) -> Vec<WrittenKind> {
    let kinds = to_list(served, current, target);
    futures::stream::iter(kinds)
        .map(|mut kind| async move {
            progress(&kind.resource);
            kind.objects = if kind.listed_through.is_empty() {
                let why = format!("{} {} is served only by a version that is deprecated, and asking for it would itself be a use of it; see it with `kubectl get {}`", kind.group, kind.resource, kind.resource);
                Read::NotSeen(why)
            } else {
                let root = if kind.listed_through.contains('/') { "/apis" } else { "/api" };
                // The successor of a kind in another group has the same plural name, but for a few.
                let path = format!("{root}/{}/{}", kind.listed_through, kind.resource);
                let list = List { metadata_only: true, ..List::of(&path) };
                match requests.list::<Partial>(list).await {
                    Read::Seen(objects) => Read::Seen(objects.into_iter().map(kept).collect()),
                    Read::NotSeen(why) => Read::NotSeen(why),
                    Read::NotAsked => Read::NotAsked,
                }
            };
            kind
        })
        .buffered(4)
        .collect()
        .await
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
struct StoredMetadata {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: Labels,
}

#[derive(Default, Deserialize)]
struct StoredData {
    #[serde(default)]
    release: String,
}

/// Where Helm keeps its releases.
const STORES: [(&str, bool); 2] = [("secrets", true), ("configmaps", false)];

/// Reads the releases that count.
pub(super) async fn releases(requests: &Requests<'_>) -> Read<Vec<Release>> {
    let mut releases = Vec::new();
    for (resource, is_secret) in STORES {
        let path = format!("/api/v1/{resource}");
        let list = List { query: OF_HELM, metadata_only: true, ..List::of(&path) };
        let revisions: Vec<(String, Revision)> = match requests.list::<Partial>(list).await {
            Read::Seen(found) => found.into_iter().filter_map(|object| revision(&object)).collect(),
            Read::NotSeen(why) => return Read::NotSeen(why),
            Read::NotAsked => return Read::NotAsked,
        };
        let all: Vec<Revision> = revisions.iter().map(|(_, revision)| revision.clone()).collect();
        let wanted: BTreeSet<Revision> = wanted(&all).into_iter().cloned().collect();
        let read = if wanted.len() <= RELEASES_ONE_BY_ONE_MAX {
            let names = revisions.iter().filter(|(_, revision)| wanted.contains(revision));
            one_by_one(requests, resource, is_secret, names).await
        } else {
            all_at_once(requests, &path, is_secret, &wanted).await
        };
        match read {
            Ok(read) => releases.extend(read),
            Err(why) => return Read::NotSeen(why),
        }
    }
    releases.sort_by(|one: &Release, other: &Release| one.id.cmp(&other.id));
    Read::Seen(releases)
}

fn revision(object: &Partial) -> Option<(String, Revision)> {
    let metadata = &object.metadata;
    let id = identify(&metadata.namespace, &metadata.labels)?;
    Some((metadata.name.clone(), id))
}

fn identify(namespace: &str, labels: &Labels) -> Option<Revision> {
    Some(Revision {
        namespace: namespace.to_owned(),
        release: labels.get("name")?.clone(),
        revision: labels.get("version")?.parse().ok()?,
        status: labels.get("status")?.clone(),
    })
}

async fn all_at_once(
    requests: &Requests<'_>,
    path: &str,
    is_secret: bool,
    wanted: &BTreeSet<Revision>,
) -> Result<Vec<Release>, String> {
    let list = List { query: OF_HELM_NOT_PAST, page: RELEASES_ON_A_PAGE, ..List::of(path) };
    for attempt in 0..2 {
        // One page is unpacked while the next one is fetched; no more are held.
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
        let wanted = wanted.clone();
        let unpacking = tokio::task::spawn_blocking(move || {
            let mut reader = Reader::default();
            let mut releases = Vec::new();
            while let Some(body) = receiver.blocking_recv() {
                for stored in items::<Stored>(&body)? {
                    let id = identify(&stored.metadata.namespace, &stored.metadata.labels);
                    if let Some(id) = id.filter(|id| wanted.contains(id)) {
                        releases.push(unpack(&mut reader, id, &stored.data.release, is_secret));
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

async fn one_by_one(
    requests: &Requests<'_>,
    resource: &str,
    is_secret: bool,
    names: impl Iterator<Item = &(String, Revision)>,
) -> Result<Vec<Release>, String> {
    let mut reader = Reader::default();
    let mut releases = Vec::new();
    for (name, id) in names {
        let path = format!("/api/v1/namespaces/{}/{resource}/{name}", id.namespace);
        let body = requests.get(&path, "application/json").await.map_err(|failure| failure.why)?;
        let stored: Stored =
            serde_json::from_slice(&body).map_err(|error| format!("{path}: column {}", error.column()))?;
        releases.push(unpack(&mut reader, id.clone(), &stored.data.release, is_secret));
    }
    Ok(releases)
}

fn unpack(reader: &mut Reader, id: Revision, text: &str, is_secret: bool) -> Release {
    // The API server adds a base64 of its own around what Helm put into a Secret.
    let payload = if is_secret { STANDARD.decode(text).map(Cow::Owned) } else { Ok(Cow::Borrowed(text.as_bytes())) };
    reader.read(id, &payload.unwrap_or_default())
}
