//! Strategic merge patch, see
//! <https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md>.
//!
//! Which lists are merged, and by which key, stands in the tags of the API's types. The names of those fields are
//! unambiguous among the kinds that are served, but for `ports`, whose key is seen from its elements.

use serde_json::{Map, Value};

use crate::facade::status::Refusal;

/// The key by which the elements of a list are told apart; none for a list that is replaced as a whole.
pub(super) fn merge_key(field: &str, elements: &[Value]) -> Option<&'static str> {
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "secrets"
        | "webhooks"
        | "validations"
        | "matchConditions" => Some("name"),
        "ownerReferences" => Some("uid"),
        "conditions" | "addresses" => Some("type"),
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
        "hostAliases" | "podIPs" | "hostIPs" => Some("ip"),
        "topologySpreadConstraints" => Some("topologyKey"),
        "ports" if elements.iter().any(|element| element.get("containerPort").is_some()) => Some("containerPort"),
        "ports" => Some("port"),
        _ => None,
    }
}

/// Lists of plain values that are united.
fn is_set(field: &str) -> bool {
    field == "finalizers"
}

/// Merges a patch into a value.
pub(super) fn merge(target: &mut Value, patch: &Value) -> Result<(), Refusal> {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match changes.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            *target = without_directives(patch);
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(Refusal::bad_request(format!("Unknown patch type: {other}"))),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return Ok(()) };
    if let Some(kept) = changes.get("$retainKeys").and_then(Value::as_array) {
        fields.retain(|name, _| kept.iter().any(|keep| keep == name));
    }
    for (name, change) in changes {
        if let Some(field) = name.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(list)), Some(gone)) = (fields.get_mut(field), change.as_array()) {
                list.retain(|element| !gone.contains(element));
            }
            continue;
        }
        if name.starts_with('$') {
            continue;
        }
        match (change, fields.get_mut(name)) {
            (Value::Null, _) => {
                fields.remove(name);
            }
            (Value::Array(elements), found) => {
                let before = found.and_then(|found| found.as_array_mut()).map(std::mem::take).unwrap_or_default();
                fields.insert(name.clone(), Value::Array(merge_list(name, before, elements)?));
            }
            (Value::Object(_), Some(found)) => merge(found, change)?,
            (Value::Object(_), None) => {
                let mut made = Value::Object(Map::new());
                merge(&mut made, change)?;
                fields.insert(name.clone(), made);
            }
            (plain, _) => {
                fields.insert(name.clone(), plain.clone());
            }
        }
    }
    for (name, order) in changes {
        if let (Some(field), Some(order)) = (name.strip_prefix("$setElementOrder/"), order.as_array())
            && let Some(Value::Array(list)) = fields.get_mut(field)
        {
            set_order(field, list, order);
        }
    }
    Ok(())
}

fn merge_list(field: &str, before: Vec<Value>, changes: &[Value]) -> Result<Vec<Value>, Refusal> {
    if is_set(field) {
        let mut list = before;
        for change in changes {
            if !list.contains(change) {
                list.push(change.clone());
            }
        }
        return Ok(list);
    }
    let is_replaced = changes.iter().any(|change| change["$patch"] == "replace");
    let key = merge_key(field, changes).or_else(|| merge_key(field, &before));
    let (Some(key), false) = (key, is_replaced) else {
        return Ok(changes.iter().filter(|change| change["$patch"] != "replace").map(without_directives).collect());
    };
    let mut list = before;
    for change in changes {
        let Some(wanted) = change.get(key) else {
            return Err(Refusal::bad_request(format!("map: {change} does not contain declared merge key: {key}")));
        };
        let at = list.iter().position(|element| element.get(key) == Some(wanted));
        match (change["$patch"].as_str(), at) {
            (Some("delete"), Some(at)) => {
                list.remove(at);
            }
            (Some("delete"), None) => {}
            (_, Some(at)) => merge(&mut list[at], change)?,
            (_, None) => {
                let mut made = Value::Object(Map::new());
                merge(&mut made, change)?;
                list.push(made);
            }
        }
    }
    Ok(list)
}

/// Puts the named elements into the given order; others stay behind them, in theirs.
fn set_order(field: &str, list: &mut [Value], order: &[Value]) {
    let key = merge_key(field, list);
    let place = |element: &Value| {
        let same = |wanted: &Value| match key {
            Some(key) => wanted.get(key).is_some() && wanted.get(key) == element.get(key),
            None => wanted == element,
        };
        order.iter().position(same).unwrap_or(usize::MAX)
    };
    list.sort_by_key(place);
}

fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| !name.starts_with('$'));
            Value::Object(kept.map(|(name, value)| (name.clone(), without_directives(value))).collect())
        }
        other => other.clone(),
    }
}
