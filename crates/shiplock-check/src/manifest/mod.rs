//! Kubernetes objects in text: YAML of several documents, JSON, lists at any depth.
//!
//! Nothing is passed over in silence: what cannot be read is told as [`Trouble`], and the good objects beside it are
//! found all the same. A scanner takes the documents that it can prove simple ([`simple`]); every other one goes to the
//! YAML library ([`tree`]). A test holds that both say the same.

mod json;
mod simple;
mod tree;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::lifecycle::{self, Table};

/// One object, as the text has it. A kubeconfig is followed by an `ExecCredential` for each of its users that logs in by a
/// plugin: of the version in which that is asked, and with the user's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object<'a> {
    /// Such as `apps/v1`.
    pub api_version: &'a str,
    /// Such as `Deployment`.
    pub kind: &'a str,
    /// Empty where the text names none.
    pub namespace: &'a str,
    /// Where the API server ends the name, its beginning and `*`; empty where the text names none.
    pub name: &'a str,
    /// The line of the `apiVersion`, from 1.
    pub line: u32,
}

/// What cannot be read, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The line, from 1.
    pub line: u32,
    /// Why.
    pub kind: TroubleKind,
}

/// Why something cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TroubleKind {
    /// It is neither YAML nor JSON; what the parser says.
    Syntax(String),
    /// It reads as YAML or JSON, but no API server takes an object that is made so; what is wrong with it.
    Shape(String),
    /// It is a template that must be rendered first.
    Template,
    /// It is not text in UTF-8 or UTF-16.
    Encoding,
    /// It is an object without `apiVersion` or without `kind`; the missing key.
    Incomplete(&'static str),
    /// It is nested, or refers to itself, deeper or wider than anything that is meant.
    Bounds,
    /// It cannot be opened or unpacked, or is larger than the bound; what the system says.
    Unreadable(String),
    /// Objects were expected and there is none.
    Nothing,
}

/// Takes what is found.
pub trait Sink {
    /// An object was found.
    fn object(&mut self, object: Object<'_>);
    /// Something cannot be read.
    fn trouble(&mut self, trouble: Trouble);
    /// A document that is no Kubernetes object, such as a file of settings, was passed over.
    fn other(&mut self) {}
}

/// Reads a text of any supported form.
pub fn read(bytes: &[u8], sink: &mut impl Sink) {
    let Some(text) = decode(bytes) else {
        let good = std::str::from_utf8(bytes).err().map_or(0, |error| error.valid_up_to());
        let line = u32::try_from(memchr::memchr_iter(b'\n', &bytes[..good]).count()).unwrap_or(u32::MAX);
        sink.trouble(Trouble { line: line.saturating_add(1), kind: TroubleKind::Encoding });
        // Text of another encoding, not something that is no text: what it holds besides is found.
        if !bytes.contains(&0) {
            read_text(&String::from_utf8_lossy(bytes), sink);
        }
        return;
    };
    read_text(&text, sink);
}

/// Text of UTF-8 or UTF-16, by its mark or, as YAML has it, by the zero beside the first letter; without the mark.
fn decode(bytes: &[u8]) -> Option<Cow<'_, str>> {
    let wide = |bytes: &[u8], read: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        if !rest.is_empty() {
            return None;
        }
        let units: Vec<u16> = pairs.iter().map(|pair| read(*pair)).collect();
        String::from_utf16(&units).ok().map(Cow::Owned)
    };
    match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => std::str::from_utf8(rest).ok().map(Cow::Borrowed),
        [0xFF, 0xFE, rest @ ..] => wide(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => wide(rest, u16::from_be_bytes),
        [first, 0, ..] if *first > 0 => wide(bytes, u16::from_le_bytes),
        [0, second, ..] if *second > 0 => wide(bytes, u16::from_be_bytes),
        _ => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
    }
}

/// Reads text.
pub fn read_text(text: &str, sink: &mut impl Sink) {
    if !text.bytes().any(|byte| byte == b'\n') && text.bytes().any(|byte| byte == b'\r') {
        // Line ends of old systems: the splitting below needs to see them.
        return read_lines(&text.replace('\r', "\n"), sink);
    }
    // Files that were put one behind the other have marks at the begin of lines; YAML lets them be there.
    if memchr::memmem::find(text.as_bytes(), "\n\u{feff}".as_bytes()).is_some() {
        return read_lines(&text.replace("\n\u{feff}", "\n"), sink);
    }
    read_lines(text, sink);
}

fn read_lines(text: &str, sink: &mut impl Sink) {
    let mut rest = text;
    let mut line = 1;
    while !rest.is_empty() {
        // The end of a document is no part of the next one, which may begin with directives.
        if let Some(length) = end_mark_length(rest) {
            rest = &rest[length..];
            line += 1;
            continue;
        }
        if let Some(read) = simple::document(rest, line) {
            if let Some(object) = read.object {
                sink.object(object);
            } else if read.has_content {
                sink.other();
            }
            rest = &rest[read.length..];
            line += read.lines;
            continue;
        }
        let length = document_length(rest);
        let (document, next) = rest.split_at(length);
        any_document(document, line, sink);
        line += lines_of(document);
        rest = next;
    }
}

/// The length of the line, where the text begins with one that only ends a document.
fn end_mark_length(text: &str) -> Option<usize> {
    let after = text.strip_prefix("...")?;
    let end = after.find('\n').map_or(after.len(), |at| at + 1);
    let rest = after[..end].trim();
    let is_mark = rest.is_empty() || (rest.starts_with('#') && after.starts_with([' ', '\t']));
    is_mark.then_some("...".len() + end)
}

/// The length of the first document with its directives: up to the next line that begins one.
fn document_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut only_directives = true;
    let mut at = 0;
    while at < bytes.len() {
        let end = memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |offset| at + offset + 1);
        let line = bytes[at..end].trim_ascii_end();
        if at > 0 && !only_directives && simple::is_marker(line) {
            return at;
        }
        if !(line.is_empty() || line[0] == b'%' || line[0] == b'#') {
            only_directives = false;
        }
        at = end;
    }
    bytes.len()
}

fn lines_of(text: &str) -> u32 {
    u32::try_from(memchr::memchr_iter(b'\n', text.as_bytes()).count()).unwrap_or(u32::MAX)
}

/// What stands where a manifest should be, by how it begins.
const STAND_INS: [(&str, &str); 5] = [
    ("version https://git-lfs.github.com/", "it is a pointer of Git LFS, the file itself was not fetched"),
    ("$ANSIBLE_VAULT;", "it is encrypted by Ansible Vault"),
    ("<!doctype html", "it is a page in HTML"),
    ("<html", "it is a page in HTML"),
    ("<?xml", "it is XML"),
];

/// Reads a document that is not simple.
fn any_document(document: &str, line: u32, sink: &mut impl Sink) {
    let body = document.strip_prefix("---").unwrap_or(document).trim_start_matches(['\u{feff}', ' ', '\t', '\r', '\n']);
    let begins = |with: &str| body.get(..with.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(with));
    if let Some((_, why)) = STAND_INS.iter().find(|(with, _)| begins(with)) {
        return sink.trouble(Trouble { line, kind: TroubleKind::Unreadable((*why).to_owned()) });
    }
    let mut not_json = None;
    if body.starts_with(['{', '[']) {
        let begin = line + lines_of(&document[..document.len() - body.len()]);
        match json::documents(body, begin, sink) {
            Ok(()) => return,
            Err(trouble) => not_json = Some(trouble),
        }
    }
    let mut found = tree::Found::default();
    match tree::documents(document, line, &mut found) {
        // Broken JSON, and such with remarks before it, may be YAML of some other sense: its keys are no keys then.
        Ok(())
            if found.is_nothing() && document.contains("\"apiVersion\"") && (not_json.is_some() || found.is_text) =>
        {
            let why = || TroubleKind::Syntax("it reads as text".to_owned());
            sink.trouble(not_json.unwrap_or_else(|| Trouble { line, kind: why() }));
        }
        Ok(()) => {
            let damage = not_json.filter(|_| found.has_objects() && found.has_stray_quote);
            found.replay(sink);
            if let Some(damage) = damage {
                sink.trouble(damage);
            }
        }
        Err(trouble) => {
            // What the library read before the error belongs to the same document: it is not trusted.
            let is_template = has_template_mark(document) && matches!(trouble.kind, TroubleKind::Syntax(_));
            sink.trouble(if is_template { Trouble { kind: TroubleKind::Template, ..trouble } } else { trouble });
        }
    }
}

/// What a value is within its document.
#[derive(Clone, Copy)]
enum Role<'a> {
    /// The whole, or an entry of a sequence that is no list of Kubernetes.
    Whole,
    /// An item of a list.
    Item,
    /// An item of a list of one version and kind, which it takes from the list.
    ItemOf(&'a str, &'a str),
}

impl<'a> Role<'a> {
    /// The version and kind that it takes from its list.
    fn inherited(self) -> Option<(&'a str, &'a str)> {
        match self {
            Self::ItemOf(api_version, kind) => Some((api_version, kind)),
            Self::Whole | Self::Item => None,
        }
    }

    /// Why no API server takes it where it is no object; none where it need not be one.
    fn must_be_object(self) -> Option<TroubleKind> {
        let is_item = !matches!(self, Self::Whole);
        is_item.then(|| TroubleKind::Shape("an item of its list is no object".to_owned()))
    }

    /// Whether what lacks its version or its kind was meant as an object of Kubernetes: other tools have files with the
    /// same keys.
    fn is_meant(
        self,
        api_version: Option<&str>,
        kind: Option<&str>,
        has: impl Fn(&str) -> bool,
        is_miswritten: impl Fn() -> bool,
    ) -> bool {
        match (self, api_version, kind) {
            (Self::Item | Self::ItemOf(..), ..) => true,
            // Kustomize needs no version.
            (_, None, Some("Kustomization" | "Component")) => false,
            (_, None, Some(kind)) => has("metadata") || (has("spec") && Table::shipped().has_kind(kind)),
            (_, Some(api_version), None) => {
                let is_own = lifecycle::is_own_group(lifecycle::split(api_version).0);
                (has("metadata") && (is_own || has("spec"))) || (is_own && has("spec"))
            }
            _ => is_miswritten() && (has("metadata") || has("spec")),
        }
    }
}

/// Whether YAML, as kubectl reads it, makes nothing of a scalar without quotes.
fn is_null(plain: &str) -> bool {
    matches!(plain, "" | "~" | "null" | "Null" | "NULL")
}

/// The items of lists are of the list's version and kind where they do not say themselves.
fn item_kind(list_kind: &str) -> Option<&str> {
    list_kind.strip_suffix("List").filter(|kind| !kind.is_empty())
}

/// The version and kind of a kubeconfig, which it need not say.
/// Source: `latest.Codec` of k8s.io/client-go/tools/clientcmd, which decodes with these as defaults.
const KUBECONFIG: (&str, &str) = ("v1", "Config");

/// The lists by which a document that does not say so is told to be a kubeconfig.
const KUBECONFIG_LISTS: [&str; 3] = ["clusters", "contexts", "users"];

/// Whether an object is a kubeconfig.
fn is_kubeconfig(api_version: &str, kind: &str) -> bool {
    (api_version, kind) == KUBECONFIG
}

/// What client-go asks of a plugin by which a user logs in.
const CREDENTIAL: &str = "ExecCredential";

/// Nothing that people write is nested deeper.
const DEPTH_MAX: usize = 64;
/// No document refers to more objects.
const OBJECTS_MAX: usize = 200_000;

/// Whether a text has what a template engine fills in.
fn has_template_mark(text: &str) -> bool {
    ["{{", "{%", "<%"].iter().any(|mark| text.contains(mark))
}

/// Whether the value of `apiVersion` or `kind` was to be filled in by a template: no real one has these.
fn is_placeholder(value: &str) -> bool {
    value.bytes().any(|byte| matches!(byte, b'{' | b'}' | b'$' | b'<' | b'>' | b'%' | b'@')) || value.starts_with("__")
}

/// Whether YAML, as kubectl reads it, makes a number or a truth value of a scalar without quotes. No version and no kind
/// is one, and an API server refuses an object that has one there.
fn is_number_or_bool(plain: &str) -> bool {
    let is_word = ["true", "false", "yes", "no", "on", "off", ".inf", "-.inf", "+.inf", ".nan"]
        .iter()
        .any(|word| plain.eq_ignore_ascii_case(word));
    let begins = plain.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.'));
    let in_base = |prefix: &str, base: u32| {
        let digits = plain.strip_prefix(prefix).unwrap_or_default();
        !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(base))
    };
    is_word || (begins && plain.parse::<f64>().is_ok()) || in_base("0x", 16) || in_base("0o", 8) || in_base("0b", 2)
}

/// What is said of an object whose `apiVersion` or `kind` is of another type.
fn no_text(key: &str) -> TroubleKind {
    TroubleKind::Shape(format!("its {key} is a number or a truth value, not text"))
}

/// Whether a key is meant to be one that identifies the object and is written otherwise.
fn is_miswritten(key: &str) -> bool {
    ["apiVersion", "kind"].iter().any(|meant| key.eq_ignore_ascii_case(meant) && key != *meant)
}

/// Whether an object is a list in Kubernetes' eyes even where it names no version.
fn is_list(kind: &str) -> bool {
    kind.ends_with("List") && kind.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests;
