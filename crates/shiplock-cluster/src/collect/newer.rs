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
        let api = format!("{api_version} {kind}");
        if let Some(objects) = of_people(kind, &api, page) {
            found.insert(api, objects);
        }
    }
    Ok(())
}

/// Those of a first page, and of the pages after it, that Kubernetes did not make for itself.
fn of_people(kind: &str, api: &str, page: Page) -> Option<NewApiObjects> {
    let objects = page.items.unwrap_or_default().into_iter().map(|object| object.metadata);
    let names: Vec<String> = objects
        .filter(|object| !is_of_kubernetes(kind, &object.name))
        .map(
            |NamedMetadata { name, namespace }| if namespace.is_empty() { name } else { format!("{namespace}/{name}") },
        )
        .collect();
    let count = names.len() as u64 + page.metadata.remaining_item_count.unwrap_or(0);
    (count > 0).then(|| NewApiObjects { api: api.to_owned(), count, names })
}

/// Bundles of signers under `kubernetes.io/` are published by the control plane, which makes them anew; such a signer is
/// the beginning of the name, with a colon in place of the slash.
/// <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#ctb-signer-linked>
fn is_of_kubernetes(kind: &str, name: &str) -> bool {
    kind == "ClusterTrustBundle" && name.starts_with("kubernetes.io:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_publishes_itself_is_not_lost_by_going_back() {
        let bundles =
            |text: &str| of_people("ClusterTrustBundle", "v1 ClusterTrustBundle", serde_json::from_str(text).unwrap());
        let own = r#"{"metadata":{"name":"kubernetes.io:kube-apiserver-serving:aa"}}"#;
        assert_eq!(bundles(&format!(r#"{{"metadata":{{}},"items":[{own}]}}"#)), None);
        let other = r#"{"metadata":{"name":"example.org:web:bb"}}"#;
        let found = bundles(&format!(r#"{{"metadata":{{}},"items":[{own},{other}]}}"#)).unwrap();
        assert_eq!((found.count, found.names), (1, vec!["example.org:web:bb".to_owned()]));
        // What comes after the first page was not seen: it counts.
        let more = bundles(&format!(r#"{{"metadata":{{"remainingItemCount":3}},"items":[{own}]}}"#)).unwrap();
        assert_eq!(more.count, 3);
    }

    #[test]
    fn an_empty_list_of_metadata_is_no_object() {
        assert_eq!(of_people("PodGroup", "v1 PodGroup", serde_json::from_str("{}").unwrap()), None);
    }
}
