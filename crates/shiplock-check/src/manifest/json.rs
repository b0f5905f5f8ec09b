//! JSON: one value after the other, lists at any depth, the same rules as for YAML.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    CREDENTIAL, DEPTH_MAX, KUBECONFIG, KUBECONFIG_LISTS, OBJECTS_MAX, Object, Role, Sink, Trouble, TroubleKind,
    is_kubeconfig, is_list, is_miswritten, is_placeholder, item_kind, lines_of, no_text,
};

/// Reads all values of a text that begins at this line. An error where it is not JSON at all and nothing was handed on.
pub(super) fn documents(text: &str, first_line: u32, sink: &mut impl Sink) -> Result<(), Trouble> {
    let text = &*whole_characters(text);
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
                    reader.visited = 0;
                    reader.visit(value.get(), Role::Whole, 0);
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

/// The text with U+FFFD for each half of a character that is written without the other, as Kubernetes' parser reads it.
/// It is as long as before.
fn whole_characters(text: &str) -> Cow<'_, str> {
    if !["\\ud", "\\uD"].iter().any(|begin| memchr::memmem::find(text.as_bytes(), begin.as_bytes()).is_some()) {
        return Cow::Borrowed(text);
    }
    let code = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    let mut whole = Cow::Borrowed(text);
    let mut at = 0;
    while let Some(offset) = text.get(at..).and_then(|rest| memchr::memchr(b'\\', rest.as_bytes())) {
        at += offset;
        at += match (code(at), code(at + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => 12,
            (Some(0xD800..=0xDFFF), _) => {
                whole.to_mut().replace_range(at..at + 6, "\\ufffd");
                6
            }
            _ => 2,
        };
    }
    whole
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
    users: Option<&'a RawValue>,
    /// Which of the lists of a kubeconfig are there.
    kubeconfig_lists: BTreeSet<&'static str>,
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
                    if let Some(name) = KUBECONFIG_LISTS.iter().find(|name| **name == key) {
                        let value: &RawValue = map.next_value()?;
                        if value.get().starts_with('[') {
                            parts.kubeconfig_lists.insert(name);
                        }
                        if key == "users" {
                            parts.users = Some(value);
                        }
                        continue;
                    }
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

/// The values of a list, up to one more than may be.
struct Values<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Values<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Values<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Values<'de>, A::Error> {
                let mut values = Vec::new();
                while let Some(value) = list.next_element()? {
                    if values.len() <= OBJECTS_MAX {
                        values.push(value);
                    }
                }
                Ok(Values(values))
            }
        }
        deserializer.deserialize_seq(All)
    }
}

/// A user of a kubeconfig.
#[derive(Deserialize)]
struct User<'a> {
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user: Login<'a>,
}

#[derive(Deserialize)]
struct Login<'a> {
    #[serde(borrow)]
    exec: Plugin<'a>,
}

#[derive(Deserialize)]
struct Plugin<'a> {
    #[serde(borrow, rename = "apiVersion")]
    api_version: Text<'a>,
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

    fn visit(&mut self, value: &str, role: Role<'_>, depth: usize) {
        self.visited += 1;
        if depth >= DEPTH_MAX || self.visited >= OBJECTS_MAX {
            return self.trouble(value, TroubleKind::Bounds);
        }
        if value.starts_with('[') {
            if role.inherited().is_none() {
                self.visit_all(value, Role::Whole, depth);
            }
            return;
        }
        let Ok(parts) = serde_json::from_str::<Parts<'_>>(value) else {
            if let (Some(why), true) = (role.must_be_object(), value != "null") {
                self.trouble(value, why);
            }
            return;
        };
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
        let mut api_version = parts.api_version.as_ref().map(|(text, at)| (text.as_ref(), *at));
        let mut kind = parts.kind.as_ref().map(|(text, _)| text.as_ref());
        if matches!(role, Role::Whole)
            && parts.kubeconfig_lists.len() == KUBECONFIG_LISTS.len()
            && is_kubeconfig(api_version.map_or(KUBECONFIG.0, |(text, _)| text), kind.unwrap_or(KUBECONFIG.1))
        {
            api_version = api_version.or(Some((KUBECONFIG.0, value)));
            kind = kind.or(Some(KUBECONFIG.1));
        }
        let (Some((api_version, at)), Some(kind)) = (
            api_version.or(role.inherited().map(|(api_version, _)| (api_version, value))),
            kind.or(role.inherited().map(|(_, kind)| kind)),
        ) else {
            let list = kind.filter(|kind| is_list(kind)).and(parts.items.filter(|items| items.get().starts_with('[')));
            let has = |key: &str| if key == "spec" { parts.has_spec } else { parts.metadata.is_some() };
            let version = api_version.map(|(api_version, _)| api_version);
            if list.is_some() || role.is_meant(version, kind, has, || parts.is_miswritten) {
                let key = if api_version.is_none() { "apiVersion" } else { "kind" };
                self.trouble(value, TroubleKind::Incomplete(key));
            }
            if let Some(items) = list {
                self.visit_all(items.get(), Role::Item, depth);
            }
            return;
        };
        let items = match (item_kind(kind), kind) {
            (Some(item), _) => parts.items.map(|items| (items, Role::ItemOf(api_version, item))),
            (None, "List") => parts.items.map(|items| (items, Role::Item)),
            (None, "Template") => parts.objects.map(|items| (items, Role::Item)),
            _ => None,
        };
        match items {
            Some((items, role)) if items.get().starts_with('[') => {
                return self.visit_all(items.get(), role, depth);
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
        if let (true, Some(users)) = (is_kubeconfig(api_version, kind), parts.users) {
            self.logins(users.get());
        }
    }

    /// Hands on what the users of a kubeconfig log in by.
    fn logins(&mut self, users: &str) {
        let Ok(Values(users)) = serde_json::from_str(users) else { return };
        for user in users {
            let Ok(User { name, user: Login { exec } }) = serde_json::from_str::<User<'_>>(user.get()) else {
                continue;
            };
            let Plugin { api_version: Text(Some((api_version, at))) } = exec else { continue };
            let (name, line) = (name.unwrap_or_default(), self.line_of(at));
            self.sink.object(Object { api_version: &api_version, kind: CREDENTIAL, namespace: "", name: &name, line });
        }
    }

    fn visit_all(&mut self, values: &str, role: Role<'_>, depth: usize) {
        if let Ok(Values(values)) = serde_json::from_str(values) {
            for value in values {
                // That was told once.
                if self.visited >= OBJECTS_MAX {
                    return;
                }
                self.visit(value.get(), role, depth + 1);
            }
        }
    }
}
