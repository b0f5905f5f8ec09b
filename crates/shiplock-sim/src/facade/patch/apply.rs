//! Server-side apply, see <https://kubernetes.io/docs/reference/using-api/server-side-apply/>, as deep as its users
//! here go: fields have managers, a manager's field that is left out goes away unless another owns it too, and a value
//! that another manager has set is a conflict unless forced. Ownership is kept by leaf, lists with keys by element.

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
    others.retain(|other| other["fieldsV1"].as_object().is_some_and(|fields| !fields.is_empty()));
    let mut own = entry(applied, &wanted["apiVersion"], &ours);
    // What was applied before is no write.
    let is_same = had == ours && ours.iter().all(|path| look(object, path) == look(&wanted, path));
    if let Some(entry) = before.first().filter(|_| is_same) {
        own["time"] = entry["time"].clone();
    }
    others.push(own);
    set_managers(&mut next, others);
    Ok(next)
}

/// Who wrote an object otherwise than by an apply.
#[derive(Clone, Copy)]
pub(in crate::facade) struct Writer<'a> {
    pub(in crate::facade) manager: &'a str,
    /// RFC 3339, for `managedFields`.
    pub(in crate::facade) time: &'a str,
}

/// Books who has set the fields that a write changed; `before` is none where it made the object. What a client says of
/// `managedFields` itself is not taken.
pub(in crate::facade) fn book(before: Option<&Value>, after: &mut Value, writer: Writer<'_>) {
    let (mut left, mut changed) = (BTreeSet::new(), BTreeSet::new());
    owned(after, &mut Vec::new(), &mut left);
    let is_changed = |path: &&Vec<String>| before.is_none_or(|before| look(before, path) != look(after, path));
    changed.extend(left.iter().filter(is_changed).cloned());
    let entries = before.and_then(|before| before["metadata"]["managedFields"].as_array()).cloned().unwrap_or_default();
    let (mut kept, mut time) = (Vec::new(), Value::from(writer.time));
    for mut entry in entries {
        let mut fields = BTreeSet::new();
        read_fields(&entry["fieldsV1"], &mut Vec::new(), &mut fields);
        fields.retain(|path| left.contains(path) && !changed.contains(path));
        if entry["manager"] == writer.manager && entry["operation"] == "Update" {
            if changed.is_empty() {
                time = entry["time"].clone();
            }
            changed.extend(fields);
        } else if !fields.is_empty() {
            entry["fieldsV1"] = write_fields(&fields);
            kept.push(entry);
        }
    }
    if !changed.is_empty() {
        kept.push(json!({
            "manager": writer.manager,
            "operation": "Update",
            "apiVersion": after["apiVersion"],
            "time": time,
            "fieldsType": "FieldsV1",
            "fieldsV1": write_fields(&changed),
        }));
    }
    set_managers(after, kept);
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

fn set_managers(object: &mut Value, mut entries: Vec<Value>) {
    // One order, whoever wrote last.
    let key =
        |entry: &Value| ["manager", "operation"].map(|field| entry[field].as_str().unwrap_or_default().to_owned());
    entries.sort_by_cached_key(key);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("managedFields".to_owned(), Value::Array(entries));
    }
}

/// The leaves of a configuration, as steps of `fieldsV1`. What names an object and what the API server says of it belong to
/// nobody.
fn owned(value: &Value, path: &mut Vec<String>, found: &mut BTreeSet<Vec<String>>) {
    const OF_NOBODY: [&str; 11] = [
        "f:apiVersion",
        "f:kind",
        "f:metadata.f:creationTimestamp",
        "f:metadata.f:generateName",
        "f:metadata.f:generation",
        "f:metadata.f:managedFields",
        "f:metadata.f:name",
        "f:metadata.f:namespace",
        "f:metadata.f:resourceVersion",
        "f:metadata.f:uid",
        "f:status",
    ];
    if OF_NOBODY.contains(&path.join(".").as_str()) {
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
