//! Whether an object has the fields of its kind, and in them values of their types: what an API server finds while it decodes
//! JSON.

use serde_json::{Map, Value};

use super::fields::{Field, Kind, Shape, message};

/// Fields that a kind does not have, by their paths, in an object that is otherwise well formed.
pub(super) type Unknown = Vec<String>;

/// Drops what a message does not have, and names it. What is of another type is an error, in the words of Go's decoder.
pub(super) fn conform(name: &'static str, object: &mut Value) -> Result<Unknown, String> {
    let root = name.rsplit('.').next().unwrap_or(name);
    let mut unknown = Vec::new();
    let fields = object.as_object_mut().ok_or_else(|| format!("json: the object is no {root}"))?;
    Walk { root, unknown: &mut unknown }.object(name, fields, "")?;
    Ok(unknown)
}

/// The field of a message, or of one whose fields stand among its own.
fn find(name: &str, field: &str) -> Option<&'static Field> {
    message(name)?.iter().find_map(|one| match one.kind {
        Kind::Message(inner) if one.is_inline => find(inner, field),
        _ => (one.name == field).then_some(one),
    })
}

struct Walk<'a> {
    root: &'a str,
    unknown: &'a mut Unknown,
}

fn joined(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

impl Walk<'_> {
    fn object(&mut self, name: &'static str, fields: &mut Map<String, Value>, path: &str) -> Result<(), String> {
        let (mut foreign, mut wrong) = (Vec::new(), Ok(()));
        for (key, value) in fields.iter_mut() {
            let path = joined(path, key);
            match find(name, key) {
                Some(field) => wrong = wrong.and_then(|()| self.field(field, value, &path)),
                None => {
                    self.unknown.push(path);
                    foreign.push(key.clone());
                }
            }
        }
        for key in foreign {
            fields.remove(&key);
        }
        wrong
    }

    fn field(&mut self, field: &Field, value: &mut Value, path: &str) -> Result<(), String> {
        match (field.shape, value) {
            (_, Value::Null) => Ok(()),
            (Shape::One, value) => self.value(field.kind, value, path),
            (Shape::Many, Value::Array(all)) => {
                let mut all = all.iter_mut().enumerate();
                all.try_for_each(|(index, value)| self.value(field.kind, value, &format!("{path}[{index}]")))
            }
            (Shape::Map, Value::Object(all)) => {
                all.iter_mut().try_for_each(|(key, value)| self.value(field.kind, value, &joined(path, key)))
            }
            (Shape::Many, other) => Err(self.unlike(other, path, &format!("[]{}", word(field.kind)))),
            (Shape::Map, other) => Err(self.unlike(other, path, &format!("map[string]{}", word(field.kind)))),
        }
    }

    fn value(&mut self, kind: Kind, value: &mut Value, path: &str) -> Result<(), String> {
        let is_like = match (kind, &mut *value) {
            (_, Value::Null) | (Kind::Raw, _) => true,
            (Kind::Message(name), Value::Object(fields)) => return self.object(name, fields, path),
            (Kind::Text, Value::String(_)) | (Kind::Truth, Value::Bool(_)) => true,
            (Kind::Integer("int32"), Value::Number(number)) => {
                number.as_i64().is_some_and(|number| i32::try_from(number).is_ok())
            }
            (Kind::Integer(_) | Kind::IntegerOrText, Value::Number(number)) => number.as_i64().is_some(),
            (Kind::IntegerOrText, Value::String(_)) | (Kind::Quantity, Value::Number(_)) => true,
            (Kind::Bytes, Value::String(text)) => is_base64(text),
            (Kind::Quantity, Value::String(text)) => is_quantity(text),
            (Kind::Time | Kind::MicroTime, Value::String(text)) => text.parse::<jiff::Timestamp>().is_ok(),
            _ => false,
        };
        if is_like { Ok(()) } else { Err(self.unlike(value, path, &word(kind))) }
    }

    fn unlike(&self, value: &Value, path: &str, kind: &str) -> String {
        let found = match value {
            Value::Null => "null".to_owned(),
            Value::Bool(_) => "bool".to_owned(),
            Value::Number(number) => format!("number {number}"),
            Value::String(text) => format!("string {:?}", text.chars().take(64).collect::<String>()),
            Value::Array(_) => "array".to_owned(),
            Value::Object(_) => "object".to_owned(),
        };
        format!("json: cannot unmarshal {found} into Go struct field {}.{path} of type {kind}", self.root)
    }
}

/// A type as Go names it.
fn word(kind: Kind) -> String {
    match kind {
        Kind::Text => "string",
        Kind::Bytes => "[]byte",
        Kind::Truth => "bool",
        Kind::Integer(word) => word,
        Kind::IntegerOrText => "intstr.IntOrString",
        Kind::Quantity => "resource.Quantity",
        Kind::Time => "v1.Time",
        Kind::MicroTime => "v1.MicroTime",
        Kind::Raw => "runtime.RawExtension",
        Kind::Message(name) => name.split_once('.').map_or(name, |(_, name)| name),
    }
    .to_owned()
}

fn is_base64(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).is_ok()
}

/// A number with a sign, a point, and a suffix or an exponent:
/// <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
fn is_quantity(text: &str) -> bool {
    const SUFFIXES: [&str; 16] = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let number = text.strip_prefix(['+', '-']).unwrap_or(text);
    let end = number.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(number.len());
    let (digits, suffix) = number.split_at(end);
    let is_number = digits.bytes().any(|byte| byte.is_ascii_digit()) && digits.matches('.').count() <= 1;
    let is_exponent = suffix.strip_prefix(['e', 'E']).is_some_and(|rest| rest.parse::<i8>().is_ok());
    is_number && (SUFFIXES.contains(&suffix) || is_exponent)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_of_another_type_is_named_with_its_place() {
        for (name, object, expected) in [
            ("apps.v1.Deployment", json!({"spec": {"replicas": "3"}}), "Deployment.spec.replicas of type int32"),
            ("apps.v1.Deployment", json!({"spec": {"replicas": 3_000_000_000_u32}}), "Deployment.spec.replicas of"),
            (
                "apps.v1.Deployment",
                json!({"spec": []}),
                "array into Go struct field Deployment.spec of type v1.DeploymentSpec",
            ),
            (
                "core.v1.ConfigMap",
                json!({"data": {"a": 1}}),
                "number 1 into Go struct field ConfigMap.data.a of type string",
            ),
            ("core.v1.ConfigMap", json!({"metadata": {"labels": ["a"]}}), "metadata.labels of type map[string]string"),
            ("core.v1.Secret", json!({"data": {"a": "%"}}), "Secret.data.a of type []byte"),
            (
                "core.v1.Pod",
                json!({"spec": {"containers": [{"name": 7}]}}),
                "Pod.spec.containers[0].name of type string",
            ),
            ("core.v1.Pod", json!({"spec": {"containers": {}}}), "Pod.spec.containers of type []v1.Container"),
            (
                "coordination.v1.Lease",
                json!({"spec": {"renewTime": "noon"}}),
                "Lease.spec.renewTime of type v1.MicroTime",
            ),
            (
                "core.v1.Node",
                json!({"spec": {"unschedulable": "yes"}}),
                "string \"yes\" into Go struct field Node.spec.unschedulable",
            ),
        ] {
            let error = conform(name, &mut object.clone()).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_a_kind_does_not_have_is_named_and_dropped_and_inline_fields_are_its_own() {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "managedFields": [{"fieldsV1": {"f:x": {}}}]},
            "spec": {"moon": 1, "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{"name": "a", "livenessProbe": {"httpGet": {"port": "web"}}, "resources": {"limits": {"cpu": 1, "memory": "1.5Gi"}}}]}});
        assert_eq!(conform("core.v1.Pod", &mut pod), Ok(vec!["spec.moon".to_owned()]));
        assert!(pod["spec"]["moon"].is_null() && pod["spec"]["volumes"][0]["emptyDir"].is_object());
    }

    #[test]
    fn quantities_are_numbers_with_a_suffix() {
        for text in ["1", "-1.5", "100m", "1e3", "1E", "2Ki", ".5"] {
            assert!(is_quantity(text), "{text}");
        }
        for text in ["", "m", "1 Gi", "1.2.3", "one", "1KiB", "."] {
            assert!(!is_quantity(text), "{text}");
        }
    }
}
