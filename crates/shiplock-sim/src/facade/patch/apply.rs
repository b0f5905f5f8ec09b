//! Server-side apply, see <https://kubernetes.io/docs/reference/using-api/server-side-apply/>, as deep as its users
//! here go: fields have managers, a manager's field that is left out goes away unless another owns it too, and a value
//! that another manager has applied is a conflict unless forced. Ownership is kept by leaf, lists with keys by element.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::strategic::{merge, merge_key};
use crate::facade::status::Refusal;

/// What to apply.
pub(in crate::facade) struct Applied<'a> {
    pub(in crate::facade) manager: &'a str,
    pub(in crate::facade) force: bool,
    pub(in crate::facade) configuration: &'a Value,
    /// RFC 3339, for `managedFields`.
    pub(in crate::facade) time: &'a str,
}

/// The object after an apply; `object` is none where it is made by it.
pub(in crate::facade) fn apply(object: Option<&Value>, applied: &Applied<'_>) -> Result<Value, Refusal> {
    let mut wanted = applied.configuration.clone();
    if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
        if metadata.get("managedFields").is_some_and(|fields| !fields.is_null()) {
            return Err(Refusal::bad_request("metadata.managedFields must be nil"));
        }
        metadata.remove("managedFields");
    }
    let mut ours = BTreeSet::new();
    owned(&wanted, &mut Vec::new(), &mut ours);
    let Some(object) = object else {
        let entry = entry(applied, &wanted["apiVersion"], &ours);
        set_managers(&mut wanted, vec![entry]);
        return Ok(wanted);
    };
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let (before, mut others): (Vec<Value>, Vec<Value>) = entries.into_iter().partition(|entry| {
        entry["manager"] == applied.manager && entry["operation"] == "Apply" && entry["subresource"].is_null()
    });
    let (mut conflicts, mut of_others) = (Vec::new(), BTreeSet::new());
    for other in &mut others {
        let mut fields = BTreeSet::new();
        read_fields(&other["fieldsV1"], &mut Vec::new(), &mut fields);
        for path in ours.intersection(&fields) {
            if look(object, path) != look(&wanted, path) {
                conflicts.push(format!(
                    "conflict with \"{}\": .{}",
                    other["manager"].as_str().unwrap_or("?"),
                    path.join(".")
                ));
            }
        }
        if applied.force {
            fields.retain(|path| !ours.contains(path) || look(object, path) == look(&wanted, path));
            other["fieldsV1"] = write_fields(&fields);
        }
        of_others.extend(fields);
    }
    if !conflicts.is_empty() && !applied.force {
        let message = format!("Apply failed with {} conflict(s): {}", conflicts.len(), conflicts.join(", "));
        return Err(Refusal::new(409, "Conflict", message));
    }
    let mut next = object.clone();
    merge(&mut next, &wanted)?;
    let mut had = BTreeSet::new();
    for entry in &before {
        read_fields(&entry["fieldsV1"], &mut Vec::new(), &mut had);
    }
    for path in had.difference(&ours).filter(|path| !of_others.contains(*path)) {
        remove(&mut next, path);
    }
    others.push(entry(applied, &wanted["apiVersion"], &ours));
    set_managers(&mut next, others);
    Ok(next)
}

fn entry(applied: &Applied<'_>, api_version: &Value, fields: &BTreeSet<Vec<String>>) -> Value {
    json!({
        "manager": applied.manager,
        "operation": "Apply",
        "apiVersion": api_version,
        "time": applied.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": write_fields(fields),
    })
}

fn set_managers(object: &mut Value, entries: Vec<Value>) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("managedFields".to_owned(), Value::Array(entries));
    }
}

/// The leaves of a configuration, as steps of `fieldsV1`. What names an object belongs to nobody.
fn owned(value: &Value, path: &mut Vec<String>, found: &mut BTreeSet<Vec<String>>) {
    const NAMING: [&str; 4] = ["f:apiVersion", "f:kind", "f:metadata.f:name", "f:metadata.f:namespace"];
    if NAMING.contains(&path.join(".").as_str()) {
        return;
    }
    let field = path.last().and_then(|step| step.strip_prefix("f:")).unwrap_or_default();
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                path.push(format!("f:{name}"));
                owned(value, path, found);
                path.pop();
            }
        }
        Value::Array(elements) if let Some(key) = merge_key(field, elements) => {
            for element in elements {
                path.push(format!("k:{}", json!({key: element[key]})));
                owned(element, path, found);
                path.pop();
            }
        }
        _ => {
            found.insert(path.clone());
        }
    }
}

fn read_fields(fields: &Value, path: &mut Vec<String>, found: &mut BTreeSet<Vec<String>>) {
    let below = fields.as_object().into_iter().flatten().filter(|(name, _)| *name != ".");
    let mut is_leaf = true;
    for (name, fields) in below {
        is_leaf = false;
        path.push(name.clone());
        read_fields(fields, path, found);
        path.pop();
    }
    if is_leaf && !path.is_empty() {
        found.insert(path.clone());
    }
}

fn write_fields(fields: &BTreeSet<Vec<String>>) -> Value {
    let mut root = Value::Object(Map::new());
    for path in fields {
        let mut at = &mut root;
        for step in path {
            at = &mut at[step.as_str()];
            if at.is_null() {
                *at = Value::Object(Map::new());
            }
        }
    }
    root
}

/// The place of an element that a step names.
fn element(list: &[Value], step: &str) -> Option<usize> {
    let key: Map<String, Value> = serde_json::from_str(step.strip_prefix("k:")?).ok()?;
    list.iter().position(|element| key.iter().all(|(name, value)| element.get(name) == Some(value)))
}

fn look<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| match value {
        Value::Array(list) => list.get(element(list, step)?),
        _ => value.get(step.strip_prefix("f:")?),
    })
}

/// Removes a leaf, and what it leaves empty.
fn remove(object: &mut Value, path: &[String]) {
    let Some((step, rest)) = path.split_first() else { return };
    match object {
        Value::Array(list) => {
            if let Some(at) = element(list, step) {
                remove(&mut list[at], rest);
                // Its key alone is no element any more.
                if rest.is_empty() || list[at].as_object().is_some_and(|fields| fields.len() <= 1) {
                    list.remove(at);
                }
            }
        }
        Value::Object(fields) => {
            let Some(name) = step.strip_prefix("f:") else { return };
            if rest.is_empty() {
                fields.remove(name);
            } else if let Some(inner) = fields.get_mut(name) {
                remove(inner, rest);
                let is_empty = match inner {
                    Value::Object(fields) => fields.is_empty(),
                    Value::Array(list) => list.is_empty(),
                    _ => false,
                };
                if is_empty {
                    fields.remove(name);
                }
            }
        }
        _ => {}
    }
}
