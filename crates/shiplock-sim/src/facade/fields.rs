//! What fields each kind has: their names, types, and numbers in Kubernetes' protobuf form. The table is made of upstream's
//! sources by `cargo xtask fields`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// One line for each message: its name, then `NUMBER:NAME:TYPE` of each field, the type with marks as [`Field`] has them.
const TABLE: &str = include_str!("../../data/fields.txt");

static MESSAGES: LazyLock<BTreeMap<&'static str, Vec<Field>>> = LazyLock::new(|| {
    let lines = TABLE.lines().filter(|line| !line.starts_with('#'));
    let message = |line: &'static str| {
        let (name, fields) = line.split_once(' ').unwrap_or((line, ""));
        (name, fields.split_whitespace().filter_map(Field::read).collect())
    };
    lines.map(message).collect()
});

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    /// Its number in the protobuf form; 0 where that form has it elsewhere.
    pub(super) number: u32,
    /// Its name in JSON.
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) kind: Kind,
    /// In JSON its own fields stand among those of the message.
    pub(super) is_inline: bool,
    /// Left out of JSON where it has its zero value.
    pub(super) is_left_out: bool,
}

/// How many values a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    Many,
    /// Many by a text.
    Map,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// Base64 in JSON.
    Bytes,
    Truth,
    /// `int32` or `int64`.
    Integer(&'static str),
    IntegerOrText,
    Quantity,
    /// RFC 3339, in whole seconds.
    Time,
    /// RFC 3339, with microseconds.
    MicroTime,
    /// JSON of any form.
    Raw,
    Message(&'static str),
}

impl Field {
    fn read(text: &'static str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let (number, name, marked) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
        let kind = marked.trim_start_matches(['^', '?', '*', '%']);
        let marks = &marked[..marked.len() - kind.len()];
        let shape = if marks.contains('*') {
            Shape::Many
        } else if marks.contains('%') {
            Shape::Map
        } else {
            Shape::One
        };
        let kind = match kind {
            "string" => Kind::Text,
            "bytes" => Kind::Bytes,
            "bool" => Kind::Truth,
            "int32" | "int64" => Kind::Integer(kind),
            "IntOrString" => Kind::IntegerOrText,
            "Quantity" => Kind::Quantity,
            "meta.v1.Time" => Kind::Time,
            "meta.v1.MicroTime" => Kind::MicroTime,
            "meta.v1.FieldsV1" | "RawExtension" => Kind::Raw,
            _ => Kind::Message(kind),
        };
        Some(Self { number, name, shape, kind, is_inline: marks.contains('^'), is_left_out: marks.contains('?') })
    }
}

/// The fields of a message of the table.
pub(super) fn message(name: &str) -> Option<&'static [Field]> {
    MESSAGES.get(name).map(Vec::as_slice)
}

/// The name of the message of a kind; none where the table has none, as for kinds that have no protobuf form.
pub(super) fn of_kind(api_version: &str, kind: &str) -> Option<&'static str> {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    // Every group has it.
    let package = if kind == "DeleteOptions" { "meta" } else { group.split('.').next().unwrap_or_default() };
    let version = if kind == "DeleteOptions" { "v1" } else { version };
    MESSAGES.get_key_value(format!("{package}.{version}.{kind}").as_str()).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facade::resource::RESOURCES;

    #[test]
    fn every_kind_that_upstream_has_in_protobuf_is_in_the_table_and_so_is_every_part() {
        let absent: Vec<&str> = RESOURCES
            .iter()
            .filter(|one| of_kind(&one.api_version(), one.kind).is_none())
            .map(|one| one.kind)
            .collect();
        assert_eq!(absent, ["APIService", "CustomResourceDefinition"], "their types are in modules of their own");
        for (name, fields) in MESSAGES.iter() {
            let marked = TABLE.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
            assert_eq!(fields.len(), marked.split(' ').filter(|field| field.contains(':')).count(), "{name}");
            for field in fields {
                if let Kind::Message(part) = field.kind {
                    assert!(message(part).is_some(), "{name}: {field:?}");
                }
            }
        }
    }
}
