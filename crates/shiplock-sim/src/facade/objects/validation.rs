//! What an API server refuses of an object that is well formed, as far as the world has what it speaks of.
//!
//! Sources: `pkg/apis/*/validation` of Kubernetes, and <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>.

use std::collections::BTreeSet;

use serde_json::Value;

use super::metadata::{read_selector, read_strings};
use super::{Place, place};
use crate::facade::resource::Resource;
use crate::facade::status::{Cause, Refusal};
use crate::world::Selector;

/// A workload of more pods holds up everything else in the simulated cluster.
const REPLICAS_MAX: i64 = 10_000;
/// All annotations of an object together, upstream's bound.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;
/// The data of a ConfigMap or Secret, upstream's bound.
const DATA_BYTES_MAX: usize = 1 << 20;

/// What is wrong, all of it.
#[derive(Default)]
struct Found(Vec<Cause>);

impl Found {
    fn invalid(&mut self, field: &str, value: &Value, why: &str) {
        let shown: String = value.to_string().chars().take(80).collect();
        self.0.push(Cause::new("FieldValueInvalid", field, format!("Invalid value: {shown}: {why}")));
    }

    fn required(&mut self, field: &str, why: &str) {
        let text = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        self.0.push(Cause::new("FieldValueRequired", field, text));
    }

    fn forbidden(&mut self, field: &str, why: &str) {
        self.0.push(Cause::new("FieldValueForbidden", field, format!("Forbidden: {why}")));
    }

    fn unsupported(&mut self, field: &str, value: &Value, supported: &[&str]) {
        let all: Vec<String> = supported.iter().map(|word| format!("{word:?}")).collect();
        let text = format!("Unsupported value: {value}: supported values: {}", all.join(", "));
        self.0.push(Cause::new("FieldValueNotSupported", field, text));
    }
}

/// Looks at an object that is to be kept; `before` is what it takes the place of.
pub(super) fn check(resource: &Resource, object: &Value, before: Option<&Value>) -> Result<(), Refusal> {
    let mut found = Found::default();
    metadata(resource, object, &mut found);
    let spec = &object["spec"];
    match place(resource) {
        Place::Workloads(_) => workload(object, before, &mut found),
        Place::Pods => match before {
            Some(before) if before["spec"] != *spec => {
                found.forbidden("spec", "pod updates may not change fields of a simulated pod");
            }
            Some(_) => {}
            None => containers(spec, "spec", &mut found),
        },
        Place::Budgets => budget(spec, &mut found),
        Place::Leases => {
            let is_below = |field: &str, least: i64| spec[field].as_i64().is_some_and(|number| number < least);
            if is_below("leaseDurationSeconds", 1) {
                found.invalid("spec.leaseDurationSeconds", &spec["leaseDurationSeconds"], "must be greater than 0");
            }
            if is_below("leaseTransitions", 0) {
                found.invalid("spec.leaseTransitions", &spec["leaseTransitions"], "must be greater than or equal to 0");
            }
        }
        Place::Nodes => taints(&spec["taints"], &mut found),
        Place::Services => ports(spec, &mut found),
        Place::Claims if before.is_none() => claim(spec, &mut found),
        Place::Kept if ["ConfigMap", "Secret"].contains(&resource.kind) => data(object, &mut found),
        Place::Claims | Place::Volumes | Place::Slices | Place::Namespaces | Place::Kept => {}
    }
    if found.0.is_empty() {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    Err(Refusal::invalid(resource, name, found.0))
}

fn metadata(resource: &Resource, object: &Value, found: &mut Found) {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let is_path = !name.contains(['/', '%']) && name != "." && name != "..";
    let (is_name, why) = match (resource.group, resource.kind) {
        ("rbac.authorization.k8s.io", _) => (is_path, "may not be '.' or '..', or contain '/' or '%'"),
        ("", "Namespace" | "Service") => (is_label(name), LABEL),
        _ => (is_subdomain(name), SUBDOMAIN),
    };
    if !is_name {
        found.invalid("metadata.name", &metadata["name"], why);
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if !is_qualified(key) {
            found.invalid("metadata.labels", &key.as_str().into(), QUALIFIED);
        }
        if !value.as_str().is_some_and(is_label_value) {
            found.invalid("metadata.labels", value, LABEL_VALUE);
        }
    }
    let mut bytes = 0;
    for (key, value) in metadata["annotations"].as_object().into_iter().flatten() {
        bytes += key.len() + value.as_str().map_or(0, str::len);
        if !is_qualified(&key.to_ascii_lowercase()) {
            found.invalid("metadata.annotations", &key.as_str().into(), QUALIFIED);
        }
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        let text = format!("Too long: may not be more than {ANNOTATIONS_BYTES_MAX} bytes");
        found.0.push(Cause::new("FieldValueTooLong", "metadata.annotations", text));
    }
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character, 63 at most";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character, 253 at most";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character, with an optional DNS subdomain prefix and '/'";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character, 63 at most";

fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    let is_part = |part: &str| {
        let ends = |at: Option<char>| at.is_some_and(|character| character != '-');
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        part.bytes().all(is_inner) && ends(part.chars().next()) && ends(part.chars().next_back())
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

fn is_label_value(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_end = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && text.bytes().all(is_inner) && is_end(bytes.first()) && is_end(bytes.last())
}

fn is_qualified(text: &str) -> bool {
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name)
}

fn workload(object: &Value, before: Option<&Value>, found: &mut Found) {
    let spec = &object["spec"];
    let replicas = &spec["replicas"];
    if !replicas.is_null() && replicas.as_i64().is_none_or(|count| !(0..=REPLICAS_MAX).contains(&count)) {
        let why = format!("must be greater than or equal to 0; a simulated cluster takes {REPLICAS_MAX} at most");
        found.invalid("spec.replicas", replicas, &why);
    }
    if spec["paused"] == true {
        found.forbidden("spec.paused", "a rollout cannot be paused in a simulated cluster");
    }
    let selector = &spec["selector"];
    label_selector(selector, "spec.selector", found);
    match read_selector(selector) {
        None => found.required("spec.selector", ""),
        Some(read) if read == Selector::default() => {
            found.invalid("spec.selector", selector, "empty selector is invalid for a workload");
        }
        Some(read) => {
            let labels = &spec["template"]["metadata"]["labels"];
            if !read.matches(&read_strings(labels)) {
                found.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`");
            }
        }
    }
    if let Some(before) = before
        && read_selector(&before["spec"]["selector"]) != read_selector(selector)
    {
        found.invalid("spec.selector", selector, "field is immutable");
    }
    let template = &spec["template"]["spec"];
    let policy = &template["restartPolicy"];
    if !policy.is_null() && policy != "Always" {
        found.unsupported("spec.template.spec.restartPolicy", policy, &["Always"]);
    }
    containers(template, "spec.template.spec", found);
}

fn containers(spec: &Value, path: &str, found: &mut Found) {
    let all = spec["containers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        found.required(&format!("{path}.containers"), "");
    }
    let mut names = BTreeSet::new();
    for (index, container) in all.iter().enumerate() {
        let path = format!("{path}.containers[{index}]");
        let text = |field: &str| container[field].as_str().unwrap_or_default();
        let name = text("name");
        if name.is_empty() {
            found.required(&format!("{path}.name"), "");
        } else if !is_label(name) {
            found.invalid(&format!("{path}.name"), &container["name"], LABEL);
        } else if !names.insert(name) {
            let text = format!("Duplicate value: {name:?}");
            found.0.push(Cause::new("FieldValueDuplicate", &format!("{path}.name"), text));
        }
        if text("image").is_empty() {
            found.required(&format!("{path}.image"), "");
        }
        let requests = container["resources"]["requests"].as_object().into_iter().flatten();
        for (what, amount) in requests.filter(|(_, amount)| amount.to_string().trim_matches('"').starts_with('-')) {
            let path = format!("{path}.resources.requests[{what}]");
            found.invalid(&path, amount, "must be greater than or equal to 0");
        }
    }
    let grace = &spec["terminationGracePeriodSeconds"];
    if grace.as_i64().is_some_and(|seconds| seconds < 0) {
        let path = format!("{path}.terminationGracePeriodSeconds");
        found.invalid(&path, grace, "must be greater than or equal to 0");
    }
}

fn label_selector(selector: &Value, path: &str, found: &mut Found) {
    for (index, expression) in selector["matchExpressions"].as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        let has_values = expression["values"].as_array().is_some_and(|values| !values.is_empty());
        match expression["operator"].as_str() {
            Some("In" | "NotIn") if !has_values => {
                found.required(&format!("{path}.values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            Some("Exists" | "DoesNotExist") if has_values => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                found.forbidden(&format!("{path}.values"), why);
            }
            Some("In" | "NotIn" | "Exists" | "DoesNotExist") => {}
            _ => found.invalid(&format!("{path}.operator"), &expression["operator"], "not a valid selector operator"),
        }
        if !expression["key"].as_str().is_some_and(is_qualified) {
            found.invalid(&format!("{path}.key"), &expression["key"], QUALIFIED);
        }
    }
}

fn budget(spec: &Value, found: &mut Found) {
    label_selector(&spec["selector"], "spec.selector", found);
    for field in ["minAvailable", "maxUnavailable"] {
        let (path, value) = (format!("spec.{field}"), &spec[field]);
        let percent = |text: &str| text.strip_suffix('%')?.parse::<u32>().ok();
        match value {
            Value::String(text) => match percent(text) {
                Some(percent) if percent > 100 => found.invalid(&path, value, "must not be greater than 100%"),
                Some(_) => {}
                None => {
                    let why = "a valid percent string must be a numeric string followed by an ending '%'";
                    found.invalid(&path, value, why);
                }
            },
            value if value.as_i64().is_some_and(|count| count < 0) => {
                found.invalid(&path, value, "must be greater than or equal to 0");
            }
            _ => {}
        }
    }
    if !spec["minAvailable"].is_null() && !spec["maxUnavailable"].is_null() {
        found.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set");
    }
    let policy = &spec["unhealthyPodEvictionPolicy"];
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    if policy.as_str().is_some_and(|word| !policies.contains(&word)) {
        found.unsupported("spec.unhealthyPodEvictionPolicy", policy, &policies);
    }
}

fn taints(taints: &Value, found: &mut Found) {
    const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.as_array().into_iter().flatten().enumerate() {
        let path = format!("spec.taints[{index}]");
        let (key, effect) = (taint["key"].as_str().unwrap_or_default(), &taint["effect"]);
        if !is_qualified(key) {
            found.invalid(&format!("{path}.key"), &taint["key"], QUALIFIED);
        }
        if !effect.as_str().is_some_and(|effect| EFFECTS.contains(&effect)) {
            found.unsupported(&format!("{path}.effect"), effect, &EFFECTS);
        }
        if !seen.insert((key, effect.as_str())) {
            let text = format!("Duplicate value: {taint}: taints must be unique by key and effect pair");
            found.0.push(Cause::new("FieldValueDuplicate", &path, text));
        }
    }
}

fn ports(spec: &Value, found: &mut Found) {
    let all = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() && spec["type"] != "ExternalName" && spec["clusterIP"] != "None" {
        found.required("spec.ports", "");
    }
    for (index, port) in all.iter().enumerate() {
        if !port["port"].as_i64().is_some_and(|port| (1..=65_535).contains(&port)) {
            found.invalid(
                &format!("spec.ports[{index}].port"),
                &port["port"],
                "must be between 1 and 65535, inclusive",
            );
        }
    }
}

fn claim(spec: &Value, found: &mut Found) {
    if spec["accessModes"].as_array().is_none_or(Vec::is_empty) {
        found.required("spec.accessModes", "at least 1 access mode is required");
    }
    if spec["resources"]["requests"]["storage"].is_null() {
        found.required("spec.resources[storage]", "");
    }
}

fn data(object: &Value, found: &mut Found) {
    let is_key = |key: &str| {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !key.is_empty() && key.len() <= 253 && key.bytes().all(is_inner) && key != "." && !key.starts_with("..")
    };
    let mut bytes = 0;
    for field in ["data", "binaryData"] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            bytes += value.as_str().map_or(0, str::len);
            if !is_key(key) {
                let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
                found.invalid(&format!("{field}[{key}]"), &key.as_str().into(), why);
            }
        }
    }
    if bytes > DATA_BYTES_MAX {
        let text = format!("Too long: may not be more than {DATA_BYTES_MAX} bytes");
        found.0.push(Cause::new("FieldValueTooLong", "data", text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_those_that_upstream_takes() {
        for good in ["a", "a-1", "a.b.c", &"a".repeat(63)] {
            assert!(is_subdomain(good), "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", "a b", &"a".repeat(254)] {
            assert!(!is_subdomain(bad), "{bad}");
        }
        assert!(is_label("a-1") && !is_label("a.b") && !is_label(&"a".repeat(64)));
        assert!(
            is_qualified("a.b/C_d")
                && is_qualified("x")
                && !is_qualified("/a")
                && !is_qualified("a/")
                && !is_qualified("A/b")
        );
        assert!(is_label_value("") && is_label_value("A.b_c-1") && !is_label_value("-a") && !is_label_value("a b"));
    }
}
