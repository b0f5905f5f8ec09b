//! What all objects have.

use jiff::Timestamp;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use shiplock_core::facts::{NodeOwner, OWNER_ANNOTATION};

use super::{Field, Labels, PodStatus, is_default, null_is_default};

objects! {
    /// What every object says of itself.
    Metadata {
        /// The name.
        name: String,
        /// The namespace; empty where there is none.
        namespace: String,
        /// The UID.
        uid: String,
        /// The labels.
        labels: Labels,
        /// Those annotations that a check asks for.
        annotations: Marks,
        /// When it came to be.
        creation_timestamp: Option<Timestamp>,
        /// When its deletion was asked for.
        deletion_timestamp: Option<Timestamp>,
        /// What keeps it from being deleted.
        finalizers: Vec<String>,
        /// What owns it.
        owner_references: Vec<Owner>,
    }
    /// What owns an object.
    Owner {
        /// The kind.
        kind: String,
        /// The name.
        name: String,
        /// Whether it controls it.
        controller: bool,
    }
    /// An object of which only its existence is of interest.
    Named {
        /// What it says of itself.
        metadata: Metadata,
    }
    /// A condition.
    Condition {
        /// Which one.
        r#type: String,
        /// `True`, `False` or `Unknown`.
        status: String,
        /// Why, as a word.
        reason: String,
        /// Why, as a sentence.
        message: String,
        /// Since when.
        last_transition_time: Option<Timestamp>,
    }
    /// A selector.
    Selector {
        /// Labels that must be so.
        match_labels: Labels,
        /// Further conditions.
        match_expressions: Vec<Expression>,
    }
    /// A condition of a selector.
    Expression {
        /// The label.
        key: String,
        /// `In`, `NotIn`, `Exists`, `DoesNotExist`.
        operator: String,
        /// The values.
        values: Vec<String>,
    }
    /// A Namespace.
    Namespace {
        /// What it says of itself.
        metadata: Metadata,
        /// Its status.
        status: PodStatus,
    }
    /// A status of conditions alone.
    ConditionStatus {
        /// The conditions.
        conditions: Vec<Condition>,
    }
}

/// The names of those annotations that a check asks for, never their values; but of the mark of a cordon by Shiplock,
/// which upgrade it is of, after `=`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Marks(pub Vec<String>);

/// The beginnings of the names of annotations that checks ask for.
const MARKS: [&str; 4] = [
    "kubernetes.io/ingress.class",
    "seccomp.security.alpha.kubernetes.io/",
    "container.seccomp.security.alpha.kubernetes.io/",
    "container.apparmor.security.beta.kubernetes.io/",
];

impl Marks {
    /// The upgrade by Shiplock whose cordon a node carries.
    pub fn owner(&self) -> Option<&str> {
        self.0.iter().find_map(|mark| mark.strip_prefix(OWNER_ANNOTATION)?.strip_prefix('='))
    }
}

impl<'de> Deserialize<'de> for Marks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Marks;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("annotations")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Marks, A::Error> {
                let mut marks = Marks::default();
                while let Some(name) = map.next_key::<std::borrow::Cow<'de, str>>()? {
                    if name == OWNER_ANNOTATION {
                        // An unreadable mark is none of Shiplock's.
                        let owner = serde_json::from_str::<NodeOwner>(&map.next_value::<String>()?);
                        marks.0.extend(owner.map(|owner| format!("{OWNER_ANNOTATION}={}", owner.upgrade)));
                        continue;
                    }
                    map.next_value::<serde::de::IgnoredAny>()?;
                    if MARKS.iter().any(|begin| name.starts_with(begin)) {
                        marks.0.push(name.into_owned());
                    }
                }
                Ok(marks)
            }
            // The saved form.
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Marks, A::Error> {
                let mut marks = Marks::default();
                while let Some(name) = seq.next_element()? {
                    marks.0.push(name);
                }
                Ok(marks)
            }
        }
        deserializer.deserialize_any(Names)
    }
}

impl Selector {
    /// Whether labels fit; an empty selector fits everything.
    pub fn fits(&self, labels: &Labels) -> bool {
        let expression = |one: &Expression| {
            let value = labels.get(&one.key);
            match one.operator.as_str() {
                "In" => value.is_some_and(|value| one.values.contains(value)),
                "NotIn" => value.is_none_or(|value| !one.values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                "Gt" | "Lt" => one.compares(value),
                _ => false,
            }
        };
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(expression)
    }

    /// Whether it fits everything.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

impl ConditionStatus {
    /// The status of a condition.
    pub fn of(conditions: &[Condition], name: &str) -> Option<Condition> {
        conditions.iter().find(|condition| condition.r#type == name).cloned()
    }
}

impl Expression {
    /// `Gt` and `Lt` of node affinity.
    fn compares(&self, value: Option<&String>) -> bool {
        let number = |text: &str| text.parse::<i64>().ok();
        let (Some(value), Some(bound)) =
            (value.and_then(|text| number(text)), self.values.first().and_then(|text| number(text)))
        else {
            return false;
        };
        if self.operator == "Gt" { value > bound } else { value < bound }
    }
}
