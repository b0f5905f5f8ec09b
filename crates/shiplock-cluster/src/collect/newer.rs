//! Objects of APIs that an older version does not serve: what a way back would put out of sight.

use std::collections::BTreeMap;

use serde::Deserialize;
use shiplock_check::api::newer::only_newer;
use shiplock_check::snapshot::{Read, ServedResource};
use shiplock_core::plan::NewApiObjects;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::version::MinorVersion;

use super::request::{METADATA, Requests};
use crate::connection::Connection;
use crate::survey::instance_addresses;

/// So many names are told of each API.
const NAMES_MAX: usize = 5;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMetadata,
    // An empty list of metadata has none.
    items: Option<Vec<Named>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMetadata {
    remaining_item_count: Option<u64>,
}

#[derive(Deserialize)]
struct Named {
    metadata: NamedMetadata,
}

#[derive(Deserialize)]
struct NamedMetadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
}

/// Lists them, through every instance of the API server: in the middle of an upgrade they do not serve the same. What
/// one of them does not tell is an error, never nothing.
pub(crate) async fn objects_of_new_apis(
    connection: &Connection,
    old: MinorVersion,
) -> Result<Vec<NewApiObjects>, Problem> {
    let mut found = BTreeMap::new();
    let mut asked = false;
    for address in instance_addresses(connection).await? {
        if let Some(instance) = connection.to_instance(&address) {
            asked = true;
            through(&instance?, old, &mut found).await?;
        }
    }
    if !asked {
        through(connection, old, &mut found).await?;
    }
    Ok(found.into_values().collect())
}

async fn through(
    connection: &Connection,
    old: MinorVersion,
    found: &mut BTreeMap<String, NewApiObjects>,
) -> Result<(), Problem> {
    let unread = |resource: &str, why: String| {
        Problem::new(Code::ClusterAnswer).with("verb", "list").with("resource", resource).cause(why)
    };
    let requests = Requests::new(connection);
    let served = match requests.served().await {
        Read::Seen(served) => served,
        Read::NotSeen(why) => return Err(unread("APIs", why)),
        Read::NotAsked => return Ok(()),
    };
    for ServedResource { group, version, kind, resource, .. } in only_newer(&served, old) {
        let (root, api_version) =
            if group.is_empty() { ("/api", version.clone()) } else { ("/apis", format!("{group}/{version}")) };
        // The first page tells how many there are after it.
        let path = format!("{root}/{api_version}/{resource}?limit={NAMES_MAX}");
        let page: Page = match requests.get(&path, METADATA).await {
            Ok(body) => serde_json::from_slice(&body).map_err(|error| unread(resource, error.to_string()))?,
            // The API is not there, so there are no objects.
            Err(failure) if failure.status == 404 => continue,
            Err(failure) => return Err(unread(resource, failure.why)),
        };
        let objects = page.items.unwrap_or_default();
        if objects.is_empty() {
            continue;
        }
        let name = |object: &Named| {
            let NamedMetadata { name, namespace } = &object.metadata;
            if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") }
        };
        let api = format!("{api_version} {kind}");
        let names: Vec<String> = objects.iter().take(NAMES_MAX).map(name).collect();
        let count = objects.len() as u64 + page.metadata.remaining_item_count.unwrap_or(0);
        found.insert(api.clone(), NewApiObjects { api, count, names });
    }
    Ok(())
}
