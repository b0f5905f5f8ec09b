//! OpenAPI v3, as far as clients read it before they write: which kinds are served, and that a server looks at their fields.
//! No kind has a schema: `kubectl explain` says that it is not found.
//!
//! Source: <https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v3>; kubectl looks in the document of a
//! group's version for a PATCH of the kind with the parameter `fieldValidation`, and without one asks for OpenAPI v2.

use serde_json::{Map, Value, json};

use super::resource::Resource;
use super::status::Refusal;

/// `api/v1` or `apis/GROUP/VERSION`.
fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `/openapi/v3`: where the document of each group's version is.
pub(super) fn index() -> Value {
    let groups = Resource::groups();
    let roots = groups.iter().flat_map(|(group, versions)| versions.iter().map(|version| root(group, version)));
    let paths: Map<String, Value> = roots
        .map(|root| {
            let at = json!({"serverRelativeURL": format!("/openapi/v3/{root}")});
            (root, at)
        })
        .collect();
    json!({"paths": paths})
}

/// `/openapi/v3/api/v1` and `/openapi/v3/apis/GROUP/VERSION`.
pub(super) fn document(group: &str, version: &str) -> Result<Value, Refusal> {
    if Resource::of(group, version).next().is_none() {
        return Err(Refusal::no_such_path());
    }
    let mut paths = Map::new();
    for one in Resource::of(group, version) {
        let kind = json!({"group": one.group, "version": one.version, "kind": one.kind});
        if one.verbs().contains(&"patch") {
            let within = if one.namespaced { "/namespaces/{namespace}" } else { "" };
            let path = format!("/{}{within}/{}/{{name}}", root(group, version), one.plural);
            let parameter = json!({"name": "fieldValidation", "in": "query", "schema": {"type": "string"}});
            let patch = json!({"x-kubernetes-group-version-kind": kind, "parameters": [parameter], "responses": {}});
            paths.insert(path, json!({"patch": patch}));
        }
    }
    let info = json!({"title": "Kubernetes", "version": "unversioned"});
    Ok(json!({"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": {}}}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_a_document_in_which_kubectl_finds_that_fields_are_looked_at_and_no_kind_is_explained() {
        let index = index();
        let roots: Vec<&String> = index["paths"].as_object().unwrap().keys().collect();
        assert!(roots.iter().any(|root| *root == "api/v1") && roots.iter().any(|root| *root == "apis/policy/v1"));
        let policy = document("policy", "v1").unwrap();
        let patch = &policy["paths"]["/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/{name}"]["patch"];
        let kind = json!({"group": "policy", "version": "v1", "kind": "PodDisruptionBudget"});
        assert_eq!(patch["x-kubernetes-group-version-kind"], kind);
        assert_eq!(patch["parameters"][0]["name"], "fieldValidation");
        assert_eq!(policy["components"]["schemas"], json!({}), "a kind without its fields would be explained wrongly");
        assert!(document("moon", "v1").is_err());
    }
}
