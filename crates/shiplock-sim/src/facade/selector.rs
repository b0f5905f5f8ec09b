//! Label and field selectors, as clients write them into a query.

use serde_json::Value;

use super::status::Refusal;

/// All of these hold for an object that is selected.
#[derive(Clone, Debug, Default)]
pub(super) struct Selectors {
    labels: Vec<Requirement>,
    fields: Vec<FieldTerm>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    NotExists(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldTerm {
    path: String,
    value: String,
    is_equal: bool,
}

/// Fields by which every kind can be selected.
const COMMON_FIELDS: &[&str] = &["metadata.name", "metadata.namespace"];

/// Further fields by which a kind can be selected, see each kind's conversion functions upstream.
fn fields_of(kind: &str) -> &'static [&'static str] {
    match kind {
        "Pod" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "Node" => &["spec.unschedulable"],
        "Namespace" => &["status.phase"],
        "ReplicaSet" => &["status.replicas"],
        "Job" => &["status.successful"],
        "Secret" => &["type"],
        "Event" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        _ => &[],
    }
}

impl Selectors {
    /// Reads both selectors of a query for objects of a kind.
    pub(super) fn parse(kind: &str, labels: Option<&str>, fields: Option<&str>) -> Result<Self, Refusal> {
        let labels = match labels {
            Some(text) => label_requirements(text)
                .ok_or_else(|| Refusal::bad_request(format!("unable to parse requirement: {text}")))?,
            None => Vec::new(),
        };
        let fields = match fields {
            Some(text) => field_terms(kind, text)?,
            None => Vec::new(),
        };
        Ok(Self { labels, fields })
    }

    /// Whether everything is selected.
    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The value that a field must have, where one is asked for.
    pub(super) fn field(&self, path: &str) -> Option<&str> {
        self.fields.iter().find(|term| term.is_equal && term.path == path).map(|term| term.value.as_str())
    }

    /// Whether an object is selected.
    pub(super) fn matches(&self, object: &Value) -> bool {
        let label = |key: &str| object["metadata"]["labels"].get(key).and_then(Value::as_str);
        self.labels.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => label(key).is_some_and(|found| values.iter().any(|value| value == found)),
            Requirement::NotIn(key, values) => label(key).is_none_or(|found| values.iter().all(|value| value != found)),
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::NotExists(key) => label(key).is_none(),
        }) && self.fields.iter().all(|term| (field(object, &term.path) == term.value) == term.is_equal)
    }
}

/// The text of a field; absent is empty, and a flag that is absent is `false`.
fn field(object: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(object, |value, key| value.get(key));
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None if path.ends_with("unschedulable") || path.ends_with("hostNetwork") => {
            "false".to_owned()
        }
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

fn field_terms(kind: &str, text: &str) -> Result<Vec<FieldTerm>, Refusal> {
    let mut terms = Vec::new();
    for term in text.split(',').map(str::trim).filter(|term| !term.is_empty()) {
        let parsed = term
            .split_once("!=")
            .map(|(path, value)| (path, value, false))
            .or_else(|| term.split_once("==").map(|(path, value)| (path, value, true)))
            .or_else(|| term.split_once('=').map(|(path, value)| (path, value, true)));
        let Some((path, value, is_equal)) = parsed else {
            return Err(Refusal::bad_request(format!("invalid selector: '{text}'; can't understand '{term}'")));
        };
        if !COMMON_FIELDS.contains(&path) && !fields_of(kind).contains(&path) {
            return Err(Refusal::bad_request(format!("field label not supported: {path}")));
        }
        terms.push(FieldTerm { path: path.to_owned(), value: value.to_owned(), is_equal });
    }
    Ok(terms)
}

/// Splits at commas that are not within parentheses.
fn requirements(text: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut depth) = (Vec::new(), 0, 0_u32);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

fn label_requirements(text: &str) -> Option<Vec<Requirement>> {
    requirements(text).into_iter().map(str::trim).filter(|part| !part.is_empty()).map(label_requirement).collect()
}

fn label_requirement(text: &str) -> Option<Requirement> {
    let key = |text: &str| {
        let text = text.trim();
        let good = |character: char| character.is_ascii_alphanumeric() || "-_./".contains(character);
        (!text.is_empty() && text.chars().all(good)).then(|| text.to_owned())
    };
    let values = |text: &str| -> Option<Vec<String>> {
        let inner = text.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    if let Some(absent) = text.strip_prefix('!') {
        return Some(Requirement::NotExists(key(absent)?));
    }
    if let Some((name, rest)) = text.split_once(" notin ") {
        return Some(Requirement::NotIn(key(name)?, values(rest)?));
    }
    if let Some((name, rest)) = text.split_once(" in ") {
        return Some(Requirement::In(key(name)?, values(rest)?));
    }
    if let Some((name, value)) = text.split_once("!=") {
        return Some(Requirement::NotIn(key(name)?, vec![value.trim().to_owned()]));
    }
    if let Some((name, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Some(Requirement::In(key(name)?, vec![value.trim().to_owned()]));
    }
    Some(Requirement::Exists(key(text)?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "a", "namespace": "shop", "labels": {"app": "web", "tier": "front"}},
            "spec": {"nodeName": "w-1"}, "status": {"phase": "Running"}})
    }

    #[test]
    fn labels_are_selected_by_every_form_of_requirement() {
        for (text, expected) in [
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app=web,tier!=front", false),
            ("moon!=full", true),
            ("app in (db, web)", true),
            ("app notin (db,web),tier", false),
            ("tier,!moon", true),
            ("!tier", false),
            ("", true),
        ] {
            let selectors = Selectors::parse("Pod", Some(text), None).unwrap();
            assert_eq!(selectors.matches(&pod()), expected, "{text}");
        }
        for text in ["a b=c", "app in web", "=x"] {
            assert_eq!(Selectors::parse("Pod", Some(text), None).unwrap_err().code, 400, "{text}");
        }
    }

    #[test]
    fn fields_are_selected_as_their_kind_allows_and_others_are_refused() {
        for (kind, text, expected) in [
            ("Pod", "spec.nodeName=w-1", Some(true)),
            ("Pod", "spec.nodeName=w-1,status.phase!=Failed,status.phase!=Succeeded", Some(true)),
            ("Pod", "status.phase!=Running", Some(false)),
            ("Pod", "metadata.name=a,metadata.namespace==shop", Some(true)),
            ("Pod", "spec.containers=x", None),
            ("Deployment", "spec.nodeName=w-1", None),
            ("Pod", "spec.nodeName", None),
            ("Node", "spec.unschedulable=false", Some(true)),
        ] {
            let found = Selectors::parse(kind, None, Some(text)).map(|selectors| selectors.matches(&pod())).ok();
            assert_eq!(found, expected, "{text}");
        }
    }
}
