//! What every object has, and how its parts are written: times, labels, owners, selectors.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::world::{
    Labels, Meta, Moment, Operator, Requirement, Selector, Text, Workload, WorkloadId, World, uuid_text,
};

/// A time as the API writes it, in whole seconds.
pub(super) fn time(at: Moment) -> Value {
    at.timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into()
}

/// A time as Leases write it, with microseconds.
pub(super) fn micro_time(at: Moment) -> Value {
    at.timestamp().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string().into()
}

/// Reads a time of either form.
pub(super) fn read_time(value: &Value) -> Option<Moment> {
    value.as_str()?.parse::<Timestamp>().ok().map(Moment::from)
}

/// Labels or annotations; nothing where there are none, as the API leaves it out.
pub(super) fn strings(all: &BTreeMap<Text, Text>) -> Value {
    if all.is_empty() {
        return Value::Null;
    }
    Value::Object(all.iter().map(|(key, value)| (key.to_string(), Value::from(&**value))).collect())
}

/// Reads labels or annotations.
pub(super) fn read_strings(value: &Value) -> Labels {
    let pairs = value.as_object().into_iter().flatten();
    Arc::new(pairs.filter_map(|(key, value)| Some((Text::from(key.as_str()), Text::from(value.as_str()?)))).collect())
}

/// An object with its metadata and nothing else.
pub(super) fn envelope(api_version: &str, kind: &str, meta: &Meta) -> Value {
    let mut metadata = json!({
        "name": &*meta.name,
        "uid": uuid_text(meta.uid),
        "resourceVersion": meta.version.to_string(),
        "creationTimestamp": time(meta.created_at),
    });
    let optional = [
        ("namespace", if meta.namespace.is_empty() { Value::Null } else { (&*meta.namespace).into() }),
        ("labels", strings(&meta.labels)),
        ("annotations", strings(&meta.annotations)),
        ("managedFields", meta.managed_fields.as_deref().map_or(Value::Null, Value::clone)),
    ];
    for (name, value) in optional {
        put(&mut metadata, name, value);
    }
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata})
}

/// Takes of an object what its writer may say of its metadata.
pub(super) fn write(meta: &mut Meta, object: &Value) {
    let metadata = &object["metadata"];
    meta.labels = read_strings(&metadata["labels"]);
    meta.annotations = read_strings(&metadata["annotations"]);
    meta.managed_fields = metadata["managedFields"].is_array().then(|| Arc::new(metadata["managedFields"].clone()));
}

/// Sets a field unless the value is nothing.
pub(super) fn put(object: &mut Value, field: &str, value: Value) {
    if !value.is_null() {
        object[field] = value;
    }
}

/// The reference to the controller of an object.
pub(super) fn owner(world: &World, id: WorkloadId) -> Value {
    let Some(owner) = world.workload(id) else { return Value::Null };
    let Workload { meta, .. } = &**owner;
    json!([{
        "apiVersion": "apps/v1",
        "kind": id.kind.word(),
        "name": &*meta.name,
        "uid": uuid_text(meta.uid),
        "controller": true,
        "blockOwnerDeletion": true,
    }])
}

fn operator_word(operator: Operator) -> &'static str {
    match operator {
        Operator::In => "In",
        Operator::NotIn => "NotIn",
        Operator::Exists => "Exists",
        Operator::DoesNotExist => "DoesNotExist",
        Operator::Greater => "Gt",
        Operator::Less => "Lt",
    }
}

/// Requirements of a selector.
pub(super) fn requirements(all: &[Requirement]) -> Value {
    let one = |requirement: &Requirement| {
        let mut value = json!({"key": &*requirement.key, "operator": operator_word(requirement.operator)});
        if !requirement.values.is_empty() {
            value["values"] = requirement.values.iter().map(|text| Value::from(&**text)).collect();
        }
        value
    };
    all.iter().map(one).collect()
}

/// Reads requirements; one of another operator is left out.
pub(super) fn read_requirements(value: &Value) -> Vec<Requirement> {
    let one = |value: &Value| {
        let word = value["operator"].as_str()?;
        let all = [
            Operator::In,
            Operator::NotIn,
            Operator::Exists,
            Operator::DoesNotExist,
            Operator::Greater,
            Operator::Less,
        ];
        let operator = all.into_iter().find(|operator| operator_word(*operator) == word)?;
        let values = value["values"].as_array().into_iter().flatten();
        let values = values.filter_map(|value| value.as_str().map(Text::from)).collect();
        Some(Requirement { key: Text::from(value["key"].as_str()?), operator, values })
    };
    value.as_array().into_iter().flatten().filter_map(one).collect()
}

/// A label selector.
pub(super) fn selector(selector: &Selector) -> Value {
    let mut value = Value::Object(Map::new());
    put(&mut value, "matchLabels", strings(&selector.labels));
    if !selector.expressions.is_empty() {
        value["matchExpressions"] = requirements(&selector.expressions);
    }
    value
}

/// Reads a label selector; none where there is none.
pub(super) fn read_selector(value: &Value) -> Option<Selector> {
    value.is_object().then(|| Selector {
        labels: (*read_strings(&value["matchLabels"])).clone(),
        expressions: read_requirements(&value["matchExpressions"]),
    })
}
