//! Discovery: what is served, in the old form of one document per group and version, and in the aggregated form.

use serde_json::{Value, json};

use super::resource::Resource;
use super::status::Refusal;

/// Whether a client asks for the aggregated form, and for which version of it; the newest that it names.
pub(super) fn aggregated(accept: &str) -> Option<&'static str> {
    let wants = |version: &str| {
        accept.split(',').any(|form| {
            form.contains("as=APIGroupDiscoveryList") && form.contains("g=apidiscovery.k8s.io") && {
                form.split(';').any(|parameter| parameter.trim() == format!("v={version}"))
            }
        })
    };
    ["v2", "v2beta1"].into_iter().find(|version| wants(version))
}

/// `/api`.
pub(super) fn core_versions(server: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}],
    })
}

fn group_body(group: &str, versions: &[&str]) -> Value {
    let one = |version: &&str| json!({"groupVersion": format!("{group}/{version}"), "version": version});
    let versions: Vec<Value> = versions.iter().map(one).collect();
    json!({"name": group, "preferredVersion": versions[0], "versions": versions})
}

/// `/apis`.
pub(super) fn groups() -> Value {
    let groups = Resource::groups();
    let named = groups.iter().filter(|(group, _)| !group.is_empty());
    let groups: Vec<Value> = named.map(|(group, versions)| group_body(group, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`.
pub(super) fn group(name: &str) -> Result<Value, Refusal> {
    let groups = Resource::groups();
    let found = groups.iter().find(|(group, _)| *group == name).ok_or_else(Refusal::no_such_path)?;
    let mut body = group_body(found.0, &found.1);
    body["kind"] = "APIGroup".into();
    body["apiVersion"] = "v1".into();
    Ok(body)
}

/// What is known of a subresource: its kind, its group and version, its verbs.
fn subresource(resource: &Resource, name: &str) -> (&'static str, &'static str, &'static str, &'static [&'static str]) {
    match name {
        "eviction" => ("policy", "v1", "Eviction", &["create"]),
        "scale" => ("autoscaling", "v1", "Scale", &["get", "patch", "update"]),
        _ => (resource.group, resource.version, resource.kind, &["get", "patch", "update"]),
    }
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub(super) fn resources(group: &str, version: &str) -> Result<Value, Refusal> {
    let mut resources = Vec::new();
    for one in Resource::of(group, version) {
        let mut body = json!({
            "name": one.plural,
            "singularName": one.singular,
            "namespaced": one.namespaced,
            "kind": one.kind,
            "verbs": one.verbs(),
        });
        if !one.short_names.is_empty() {
            body["shortNames"] = one.short_names.into();
        }
        if one.in_all {
            body["categories"] = json!(["all"]);
        }
        resources.push(body);
        for name in one.subresources {
            let (group, version, kind, verbs) = subresource(one, name);
            let mut body = json!({
                "name": format!("{}/{name}", one.plural),
                "singularName": "",
                "namespaced": one.namespaced,
                "kind": kind,
                "verbs": verbs,
            });
            if kind != one.kind {
                body["group"] = group.into();
                body["version"] = version.into();
            }
            resources.push(body);
        }
    }
    if resources.is_empty() {
        return Err(Refusal::no_such_path());
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}))
}

/// `/api` and `/apis` in the aggregated form.
pub(super) fn aggregate(is_core: bool, form: &str) -> Value {
    let of_group = |(group, versions): &(&str, Vec<&str>)| {
        let of_version = |version: &&str| {
            let resources: Vec<Value> = Resource::of(group, version).map(aggregated_resource).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        };
        let mut body = json!({"metadata": {}, "versions": versions.iter().map(of_version).collect::<Vec<_>>()});
        if !group.is_empty() {
            body["metadata"]["name"] = (*group).into();
        }
        body
    };
    let groups = Resource::groups();
    let items: Vec<Value> = groups.iter().filter(|(group, _)| group.is_empty() == is_core).map(of_group).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{form}"), "metadata": {}, "items": items})
}

fn aggregated_resource(one: &'static Resource) -> Value {
    let of_subresource = |name: &&str| {
        let (group, version, kind, verbs) = subresource(one, name);
        json!({
            "subresource": name,
            "responseKind": {"group": group, "version": version, "kind": kind},
            "verbs": verbs,
        })
    };
    let mut body = json!({
        "resource": one.plural,
        "responseKind": {"group": one.group, "version": one.version, "kind": one.kind},
        "scope": if one.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": one.singular,
        "verbs": one.verbs(),
    });
    if !one.short_names.is_empty() {
        body["shortNames"] = one.short_names.into();
    }
    if one.in_all {
        body["categories"] = json!(["all"]);
    }
    if !one.subresources.is_empty() {
        body["subresources"] = one.subresources.iter().map(of_subresource).collect();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_aggregated_form_is_given_where_a_client_asks_for_it_and_in_its_newest_version() {
        let one =
            |version: &str| format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        for (accept, expected) in [
            (format!("{},{},application/json", one("v2"), one("v2beta1")), Some("v2")),
            (format!("{},application/json", one("v2beta1")), Some("v2beta1")),
            ("application/json".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(aggregated(&accept), expected, "{accept}");
        }
    }

    #[test]
    fn both_forms_tell_the_same_resources_and_pods_can_be_evicted() {
        let listed = |group: &str, version: &str| -> Vec<String> {
            let body = resources(group, version).unwrap();
            let names = body["resources"].as_array().unwrap().iter();
            names.map(|one| one["name"].as_str().unwrap().to_owned()).filter(|name| !name.contains('/')).collect()
        };
        let mut counted = 0;
        for is_core in [true, false] {
            for group in aggregate(is_core, "v2")["items"].as_array().unwrap() {
                let name = group["metadata"]["name"].as_str().unwrap_or_default();
                for version in group["versions"].as_array().unwrap() {
                    let resources = version["resources"].as_array().unwrap();
                    let names: Vec<_> = resources.iter().map(|one| one["resource"].as_str().unwrap()).collect();
                    assert_eq!(listed(name, version["version"].as_str().unwrap()), names);
                    counted += names.len();
                }
            }
        }
        assert!(counted > 40, "{counted}");
        let core = resources("", "v1").unwrap();
        let eviction = core["resources"].as_array().unwrap().iter().find(|one| one["name"] == "pods/eviction").unwrap();
        assert_eq!((&eviction["group"], &eviction["kind"]), (&json!("policy"), &json!("Eviction")));
        assert!(resources("moon", "v1").is_err());
        assert!(group("moon").is_err());
    }
}
