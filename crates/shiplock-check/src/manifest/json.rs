//! JSON: one value after the other, lists at any depth, the same rules as for YAML.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    DEPTH_MAX, OBJECTS_MAX, Object, Sink, Trouble, TroubleKind, is_list, is_miswritten, is_placeholder, item_kind,
    lines_of, no_text,
};

/// Reads all values of a text that begins at this line. An error where it is not JSON at all and nothing was handed on.
pub(super) fn documents(text: &str, first_line: u32, sink: &mut impl Sink) -> Result<(), Trouble> {
    let mut reader = Reader { text, newest_line: Cell::new((0, first_line)), sink, visited: 0, found: 0 };
    let (mut at, mut is_first) = (0, true);
    while at < text.len() {
        let mut values = serde_json::Deserializer::from_str(&text[at..]).into_iter::<&RawValue>();
        let failure = loop {
            match values.next() {
                None => return Ok(()),
                Some(Ok(value)) => {
                    is_first = false;
                    let before = reader.found;
                    reader.visit(value.get(), None, 0);
                    if reader.found == before {
                        reader.sink.other();
                    }
                }
                Some(Err(error)) => break error,
            }
        };
        let begin = at + values.byte_offset();
        let line = reader.line_at(at) + u32::try_from(failure.line().saturating_sub(1)).unwrap_or_default();
        let what = failure.to_string().split(" at line").next().unwrap_or_default().to_owned();
        let trouble = Trouble { line, kind: TroubleKind::Syntax(what) };
        if is_first {
            return Err(trouble);
        }
        reader.sink.trouble(trouble);
        // The next line that begins a value may begin a good one.
        match text[begin..].find("\n{").or_else(|| text[begin..].find("\n[")) {
            Some(offset) => at = begin + offset + 1,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// A key whose value identifies something, as text; other values are none.
struct Text<'a>(Option<(Cow<'a, str>, &'a str)>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?.get();
        let text: Option<Cow<'a, str>> = match raw.as_bytes().first() {
            Some(b'"') => match raw.get(1..raw.len() - 1) {
                Some(inner) if !inner.contains('\\') => Some(Cow::Borrowed(inner)),
                _ => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
            },
            Some(b'0'..=b'9' | b'-' | b't' | b'f') => Some(Cow::Borrowed(raw)),
            _ => None,
        };
        Ok(Self(text.filter(|text| !text.is_empty()).map(|text| (text, raw))))
    }
}

#[derive(Default)]
struct Parts<'a> {
    api_version: Option<(Cow<'a, str>, &'a str)>,
    kind: Option<(Cow<'a, str>, &'a str)>,
    metadata: Option<&'a RawValue>,
    items: Option<&'a RawValue>,
    objects: Option<&'a RawValue>,
    has_spec: bool,
    is_miswritten: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Parts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Parts<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parts<'de>, A::Error> {
                let mut parts = Parts::default();
                // Where a key is written twice the last one counts, as kubectl reads it.
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    match key.as_ref() {
                        "apiVersion" => parts.api_version = map.next_value::<Text<'de>>()?.0,
                        "kind" => parts.kind = map.next_value::<Text<'de>>()?.0,
                        "metadata" => parts.metadata = Some(map.next_value()?),
                        "items" => parts.items = Some(map.next_value()?),
                        "objects" => parts.objects = Some(map.next_value()?),
                        other => {
                            parts.has_spec |= other == "spec";
                            parts.is_miswritten |= is_miswritten(other);
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(parts)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

#[derive(Default, Deserialize)]
struct Name<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    namespace: Option<Cow<'a, str>>,
}

struct Reader<'t, 's, S> {
    text: &'t str,
    /// The part that was asked for last, and its line: the next one is near, and lines are counted from there.
    newest_line: Cell<(usize, u32)>,
    sink: &'s mut S,
    visited: usize,
    found: usize,
}

impl<S: Sink> Reader<'_, '_, S> {
    /// The line of a part of the text.
    fn line_of(&self, part: &str) -> u32 {
        let offset = (part.as_ptr() as usize).checked_sub(self.text.as_ptr() as usize);
        self.line_at(offset.unwrap_or_default().min(self.text.len()))
    }

    fn line_at(&self, offset: usize) -> u32 {
        let (known, line) = self.newest_line.get();
        let between = |from: usize, to: usize| self.text.get(from..to).map_or(0, lines_of);
        let line =
            if offset < known { line.saturating_sub(between(offset, known)) } else { line + between(known, offset) };
        self.newest_line.set((offset, line));
        line
    }

    fn trouble(&mut self, part: &str, kind: TroubleKind) {
        self.found += 1;
        let line = self.line_of(part);
        self.sink.trouble(Trouble { line, kind });
    }

    fn visit(&mut self, value: &str, inherited: Option<(&str, &str)>, depth: usize) {
        self.visited += 1;
        if depth >= DEPTH_MAX || self.visited >= OBJECTS_MAX {
            return self.trouble(value, TroubleKind::Bounds);
        }
        if value.starts_with('[') {
            if inherited.is_none() {
                self.visit_all(value, None, depth);
            }
            return;
        }
        let Ok(parts) = serde_json::from_str::<Parts<'_>>(value) else { return };
        if let Some((_, at)) =
            [&parts.api_version, &parts.kind].into_iter().flatten().find(|(text, _)| is_placeholder(text))
        {
            return self.trouble(at, TroubleKind::Template);
        }
        if let (Some((_, version)), Some((_, kind))) = (&parts.api_version, &parts.kind) {
            let of_other_type =
                [("apiVersion", *version), ("kind", *kind)].into_iter().find(|(_, raw)| !raw.starts_with('"'));
            if let Some((key, raw)) = of_other_type {
                return self.trouble(raw, no_text(key));
            }
        }
        let api_version = parts.api_version.as_ref().map(|(text, at)| (text.as_ref(), *at));
        let kind = parts.kind.as_ref().map(|(text, _)| text.as_ref());
        let (Some((api_version, at)), Some(kind)) = (
            api_version.or(inherited.map(|(api_version, _)| (api_version, value))),
            kind.or(inherited.map(|(_, kind)| kind)),
        ) else {
            let list = kind.filter(|kind| is_list(kind)).and(parts.items.filter(|items| items.get().starts_with('[')));
            let looks_meant = parts.metadata.is_some() || parts.has_spec || list.is_some();
            if (api_version.is_some() || kind.is_some() || parts.is_miswritten) && looks_meant {
                let key = if api_version.is_none() { "apiVersion" } else { "kind" };
                self.trouble(value, TroubleKind::Incomplete(key));
            }
            if let Some(items) = list {
                self.visit_all(items.get(), None, depth);
            }
            return;
        };
        let items = match (item_kind(kind), kind) {
            (Some(item), _) => parts.items.map(|items| (items, Some((api_version, item)))),
            (None, "List") => parts.items.map(|items| (items, None)),
            (None, "Template") => parts.objects.map(|items| (items, None)),
            _ => None,
        };
        match items {
            Some((items, inherited)) if items.get().starts_with('[') => {
                return self.visit_all(items.get(), inherited, depth);
            }
            Some((items, _)) if kind == "List" && items.get() != "null" => {
                return self.trouble(items.get(), TroubleKind::Shape("its items are no list".to_owned()));
            }
            _ if kind == "List" => return,
            _ => {}
        }
        let name: Name<'_> = parts.metadata.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        let (namespace, name) = (name.namespace.unwrap_or_default(), name.name.unwrap_or_default());
        let line = self.line_of(at);
        self.found += 1;
        self.sink.object(Object { api_version, kind, namespace: &namespace, name: &name, line });
    }

    fn visit_all(&mut self, values: &str, inherited: Option<(&str, &str)>, depth: usize) {
        if let Ok(values) = serde_json::from_str::<Vec<&RawValue>>(values) {
            for value in values {
                self.visit(value.get(), inherited, depth + 1);
            }
        }
    }
}
