//! The scanner for documents that are provably simple YAML.
//!
//! It accepts a narrow subset, line by line, and keeps the nesting, so that a document that it accepts is valid YAML
//! that means what it says. Anything else (anchors, tags, flow over several lines, odd indentation, bytes beyond ASCII
//! …) makes it step back, and the YAML library reads the document. It must never accept what the library refuses.

use super::Object;

/// What was read of one document.
#[derive(Debug)]
pub(super) struct Read<'a> {
    /// The object, if the document is one.
    pub(super) object: Option<Object<'a>>,
    /// Whether there was anything but comments.
    pub(super) has_content: bool,
    /// Bytes up to the next document's marker.
    pub(super) length: usize,
    /// Lines up to there.
    pub(super) lines: u32,
}

/// Whether a line begins or ends a document.
pub(super) fn is_marker(line: &[u8]) -> bool {
    let marker = line.starts_with(b"---") || line.starts_with(b"...");
    marker && matches!(line.get(3), None | Some(b' ' | b'\t'))
}

const LEVELS_MAX: usize = 48;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Mapping,
    Sequence,
}

/// An open collection and the column of its entries.
#[derive(Clone, Copy)]
struct Level {
    column: usize,
    shape: Shape,
}

/// What the last entry left open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    /// Nothing: it has its value.
    Nothing,
    /// A key or an item without a value so far, at the innermost level.
    Value,
    /// A block scalar that belongs to an entry at this column; its own column once it is known, the longest blank line
    /// before.
    Block { parent: usize, column: Option<usize>, blank: usize },
}

/// The top-level key that the scanner is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Metadata,
    Other,
}

struct Scan<'a> {
    levels: [Level; LEVELS_MAX],
    depth: usize,
    open: Open,
    within: Within,
    api_version: Option<(&'a str, u32)>,
    kind: Option<&'a str>,
    has_metadata: bool,
    name: Option<&'a str>,
    namespace: Option<&'a str>,
    has_content: bool,
}

/// Reads the first document of a text, which begins at this line; none where it is not provably simple.
pub(super) fn document(text: &str, first_line: u32) -> Option<Read<'_>> {
    let bytes = text.as_bytes();
    let mut scan = Scan {
        levels: [Level { column: 0, shape: Shape::Mapping }; LEVELS_MAX],
        depth: 0,
        open: Open::Nothing,
        within: Within::Other,
        api_version: None,
        kind: None,
        has_metadata: false,
        name: None,
        namespace: None,
        has_content: false,
    };
    let (mut at, mut lines) = (0, 0);
    while at < bytes.len() {
        let (end, next) = match memchr::memchr(b'\n', &bytes[at..]) {
            Some(offset) => (at + offset, at + offset + 1),
            None => (bytes.len(), bytes.len()),
        };
        let stop = if end > at && bytes[end - 1] == b'\r' { end - 1 } else { end };
        let line = &text[at..stop];
        if is_marker(line.as_bytes()) {
            if at > 0 {
                break;
            }
            // What follows the marker on its line is part of the document.
            let rest = line[3..].trim_start_matches(' ');
            if !(rest.is_empty() || is_comment(rest)) {
                return None;
            }
        } else {
            scan.line(line, first_line + lines)?;
        }
        at = next;
        lines += u32::from(next > end);
    }
    let object = scan.object()?;
    Some(Read { object, has_content: scan.has_content, length: at, lines })
}

fn is_comment(text: &str) -> bool {
    text.starts_with('#') && is_plain_ascii(text.as_bytes())
}

fn is_plain_ascii(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
}

impl<'a> Scan<'a> {
    /// What the document is; none where that must be judged by the library.
    #[expect(clippy::option_option, reason = "no verdict, no object, an object")]
    fn object(&self) -> Option<Option<Object<'a>>> {
        match (self.api_version, self.kind) {
            (Some((api_version, line)), Some(kind)) => {
                let has_more = kind.ends_with("List") || kind == "Template" || super::is_kubeconfig(api_version, kind);
                if has_more || kind.is_empty() || api_version.is_empty() {
                    return None;
                }
                let (namespace, name) = (self.namespace.unwrap_or_default(), self.name.unwrap_or_default());
                Some(Some(Object { api_version, kind, namespace, name, line }))
            }
            (None, None) => Some(None),
            _ => None,
        }
    }

    /// Takes a line; none where it is not simple.
    fn line(&mut self, line: &'a str, number: u32) -> Option<()> {
        let bytes = line.as_bytes();
        let column = bytes.iter().position(|byte| *byte != b' ').unwrap_or(bytes.len());
        if let Open::Block { parent, column: before, blank } = self.open {
            if column == bytes.len() {
                let blank = if before.is_none() { blank.max(column) } else { blank };
                self.open = Open::Block { parent, column: before, blank };
                return Some(());
            }
            if column > parent {
                let own = before.unwrap_or(column);
                let is_text = bytes[column..].iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
                // Kubernetes' parser takes no tab before the indentation is known.
                let is_indented = column >= own && blank <= own && (before.is_some() || bytes[column] != b'\t');
                if !is_indented || !is_text {
                    return None;
                }
                self.open = Open::Block { parent, column: Some(own), blank };
                return Some(());
            }
            self.open = Open::Nothing;
        }
        if column == bytes.len() {
            return Some(());
        }
        if !is_plain_ascii(&bytes[column..]) {
            return None;
        }
        if bytes[column] == b'#' {
            return Some(());
        }
        self.has_content = true;
        self.entry(line, column, number)
    }

    fn top(&self) -> Option<Level> {
        self.depth.checked_sub(1).map(|index| self.levels[index])
    }

    fn push(&mut self, column: usize, shape: Shape) -> Option<()> {
        *self.levels.get_mut(self.depth)? = Level { column, shape };
        self.depth += 1;
        self.open = Open::Nothing;
        Some(())
    }

    /// Leaves the levels that a line at this column ends.
    fn leave(&mut self, column: usize, is_item: bool) {
        while let Some(top) = self.top() {
            let ends = top.column > column || (top.column == column && !is_item && top.shape == Shape::Sequence);
            if !ends {
                return;
            }
            self.depth -= 1;
            self.open = Open::Nothing;
        }
    }

    fn entry(&mut self, line: &'a str, first: usize, number: u32) -> Option<()> {
        let bytes = line.as_bytes();
        let mut column = first;
        let mut is_first = true;
        // Items: `- `, possibly several on one line.
        while bytes[column] == b'-' && matches!(bytes.get(column + 1), None | Some(b' ')) {
            if is_first {
                self.leave(column, true);
                match self.top()? {
                    Level { column: at, shape: Shape::Sequence } if at == column => {}
                    Level { column: at, .. } if self.open == Open::Value && column >= at => {
                        self.push(column, Shape::Sequence)?;
                    }
                    _ => return None,
                }
            } else {
                self.push(column, Shape::Sequence)?;
            }
            is_first = false;
            let rest = bytes[column + 1..].iter().position(|byte| *byte != b' ');
            let Some(rest) = rest else {
                self.open = Open::Value;
                return Some(());
            };
            column += 1 + rest;
            if bytes[column] == b'#' {
                return None;
            }
        }
        match key_length(&bytes[column..]) {
            Some((length, quotes)) => {
                if is_first {
                    self.leave(column, false);
                    match self.top() {
                        Some(Level { column: at, shape: Shape::Mapping }) if at == column => {}
                        Some(Level { column: at, .. }) if self.open == Open::Value && column > at => {
                            self.push(column, Shape::Mapping)?;
                        }
                        None if column == 0 && self.depth == 0 => self.push(0, Shape::Mapping)?,
                        _ => return None,
                    }
                } else {
                    self.push(column, Shape::Mapping)?;
                }
                let key = &line[column + quotes..column + length - quotes];
                let after = column + length + 1;
                let value = self.value(&line[after.min(line.len())..], column)?;
                self.note(key, value, number)
            }
            None if is_first => None,
            None => {
                let parent = self.top()?.column;
                self.value(&line[column..], parent).map(|_| ())
            }
        }
    }

    /// Judges a value; its text where it is a scalar on this line.
    fn value(&mut self, text: &'a str, parent: usize) -> Option<Value<'a>> {
        let text = text.trim_matches(' ');
        self.open = Open::Nothing;
        let Some(first) = text.bytes().next() else {
            self.open = Open::Value;
            return Some(Value::None);
        };
        match first {
            b'#' => {
                self.open = Open::Value;
                Some(Value::None)
            }
            b'|' | b'>' => {
                if !matches!(&text.as_bytes()[1..], [] | [b'-' | b'+']) {
                    return None;
                }
                self.open = Open::Block { parent, column: None, blank: 0 };
                Some(Value::Other)
            }
            b'"' | b'\'' => {
                let (inner, rest) = quoted(text)?;
                is_end(rest).then_some(Value::Scalar(inner))
            }
            b'{' | b'[' => {
                let rest = flow(text)?;
                is_end(rest).then_some(Value::Other)
            }
            _ => plain(text).map(Value::Scalar),
        }
    }

    /// Keeps what identifies the object.
    fn note(&mut self, key: &'a str, value: Value<'a>, number: u32) -> Option<()> {
        let scalar = match value {
            Value::Scalar(text) => Some(text),
            Value::None | Value::Other => None,
        };
        match self.depth {
            1 => {
                self.within = Within::Other;
                match key {
                    "apiVersion" => {
                        if self.api_version.is_some() {
                            return None;
                        }
                        self.api_version = Some((certain(scalar?)?, number));
                    }
                    "kind" => {
                        if self.kind.is_some() {
                            return None;
                        }
                        self.kind = Some(certain(scalar?)?);
                    }
                    "metadata" => {
                        if self.has_metadata || !matches!(value, Value::None) {
                            return None;
                        }
                        self.has_metadata = true;
                        self.within = Within::Metadata;
                    }
                    // What says neither may be a kubeconfig by its lists.
                    "items" | "objects" | "contexts" => return None,
                    _ if super::is_miswritten(key) => return None,
                    _ => {}
                }
            }
            2 if self.within == Within::Metadata => {
                let place = match key {
                    "name" => &mut self.name,
                    "namespace" => &mut self.namespace,
                    // What it is called is not in the text as it stands.
                    "generateName" => return None,
                    _ => return Some(()),
                };
                if place.is_some() {
                    return None;
                }
                *place = Some(certain(scalar?)?);
            }
            _ => {}
        }
        Some(())
    }
}

/// The text of a scalar that no schema could make something else of.
fn certain(text: &str) -> Option<&str> {
    let is_text = !super::is_null(text) && !super::is_number_or_bool(text);
    (is_text && !super::is_placeholder(text)).then_some(text)
}

#[derive(Clone, Copy)]
enum Value<'a> {
    None,
    Scalar(&'a str),
    Other,
}

/// Whether nothing but a comment follows.
fn is_end(rest: &str) -> bool {
    let trimmed = rest.trim_start_matches(' ');
    trimmed.is_empty() || (trimmed.starts_with('#') && trimmed.len() < rest.len())
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'-')
}

/// The length of a key before its colon, and the length of its quotes.
fn key_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let quotes = usize::from(matches!(bytes.first(), Some(b'"' | b'\'')));
    let inner = bytes[quotes..].iter().position(|byte| !is_key_byte(*byte))?;
    let begin = bytes.get(quotes)?;
    let length = inner + 2 * quotes;
    if inner == 0 || length > 512 || !(begin.is_ascii_alphanumeric() || matches!(begin, b'_' | b'.' | b'/')) {
        return None;
    }
    if quotes == 1 && bytes.get(1 + inner) != Some(&bytes[0]) {
        return None;
    }
    // No text in YAML's eyes, and then no key.
    if quotes == 0 && matches!(&bytes[..inner], b"null" | b"Null" | b"NULL") {
        return None;
    }
    let colon = bytes.get(length) == Some(&b':') && matches!(bytes.get(length + 1), None | Some(b' '));
    colon.then_some((length, quotes))
}

/// The inside of a quoted scalar without escapes, and what follows it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next()?;
    let (inner, rest) = text[1..].split_once(quote)?;
    let is_simple = !inner.contains('\\') && !rest.starts_with(quote);
    is_simple.then_some((inner, rest))
}

/// A plain scalar on one line.
fn plain(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let begins = match bytes[0] {
        b'-' => matches!(bytes.get(1), Some(byte) if *byte != b' '),
        byte => {
            byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b'$' | b'(' | b'<' | b'~' | b'+' | b'=')
        }
    };
    if !begins {
        return None;
    }
    for colon in memchr::memchr_iter(b':', bytes) {
        if matches!(bytes.get(colon + 1), None | Some(b' ')) {
            return None;
        }
    }
    match memchr::memmem::find(bytes, b" #") {
        Some(comment) => Some(text[..comment].trim_end_matches(' ')),
        None => Some(text),
    }
}

/// A flow collection of simple scalars on one line; what follows it.
fn flow(text: &str) -> Option<&str> {
    let (is_mapping, close) = if text.starts_with('{') { (true, '}') } else { (false, ']') };
    let mut rest = text[1..].trim_start_matches(' ');
    if let Some(after) = rest.strip_prefix(close) {
        return Some(after);
    }
    loop {
        if is_mapping {
            let (length, _) = key_length(rest.as_bytes())?;
            rest = rest.get(length + 2..)?.trim_start_matches(' ');
        }
        rest = flow_scalar(rest)?.trim_start_matches(' ');
        if let Some(after) = rest.strip_prefix(close) {
            return Some(after);
        }
        rest = rest.strip_prefix(',')?.trim_start_matches(' ');
    }
}

fn flow_scalar(text: &str) -> Option<&str> {
    if text.starts_with(['"', '\'']) {
        return quoted(text).map(|(_, rest)| rest).filter(|rest| rest.starts_with([' ', ',', '}', ']']));
    }
    let bytes = text.as_bytes();
    let length = bytes.iter().position(|byte| !(is_key_byte(*byte) || *byte == b'='))?;
    let begins =
        bytes[0].is_ascii_alphanumeric() || matches!(bytes[0], b'_' | b'.' | b'/') || (bytes[0] == b'-' && length > 1);
    (length > 0 && begins && matches!(bytes[length], b',' | b'}' | b']')).then(|| &text[length..])
}
