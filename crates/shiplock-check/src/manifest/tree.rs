//! Documents through the YAML library: any style, anchors, aliases, merge keys, lists at any depth.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle};

use super::{
    DEPTH_MAX, OBJECTS_MAX, Object, Sink, Trouble, TroubleKind, has_template_mark, is_list, is_miswritten,
    is_number_or_bool, is_placeholder, item_kind, no_text,
};

/// Longer scalars identify nothing; they are not kept.
const SCALAR_KEPT_MAX: usize = 512;
/// No document has more nodes.
const NODES_MAX: usize = 20_000_000;
/// Keys that are compared for each node of a document, and besides; only references that multiply need more.
const STEPS_PER_NODE_MAX: usize = 64;
const STEPS_MAX: usize = 20_000_000;

/// What was found, kept until the whole document is known to be good.
#[derive(Debug, Default)]
pub(super) struct Found {
    objects: Vec<(String, String, String, String, u32)>,
    troubles: Vec<Trouble>,
    others: usize,
    /// Whether a whole document is text without quotes.
    pub(super) is_text: bool,
}

impl Found {
    /// Whether there is neither an object nor anything that is wrong.
    pub(super) fn is_nothing(&self) -> bool {
        self.objects.is_empty() && self.troubles.is_empty()
    }

    /// Hands everything on.
    pub(super) fn replay(self, sink: &mut impl Sink) {
        for (api_version, kind, namespace, name, line) in &self.objects {
            sink.object(Object { api_version, kind, namespace, name, line: *line });
        }
        for trouble in self.troubles {
            sink.trouble(trouble);
        }
        for _ in 0..self.others {
            sink.other();
        }
    }
}

enum Node<'a> {
    Scalar {
        text: Cow<'a, str>,
        line: u32,
        is_plain: bool,
    },
    Sequence(Vec<usize>),
    /// Keys and values in turn.
    Mapping {
        entries: Vec<usize>,
        line: u32,
    },
    Alias(usize),
}

/// Reads the documents of a text that begins at this line.
pub(super) fn documents(text: &str, first_line: u32, found: &mut Found) -> Result<(), Trouble> {
    let mut parser = Parser::new_from_str(text);
    let mut tree = Tree { nodes: Vec::new(), anchors: HashMap::new(), visited: 0, steps: Cell::new(0) };
    let mut open: Vec<usize> = Vec::new();
    let mut root = None;
    let offset = first_line.saturating_sub(1);
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| {
            let line = offset + line_number(error.marker().line());
            Trouble { line, kind: TroubleKind::Syntax(brief(&error.info())) }
        })?;
        let line = offset + line_number(span.start.line());
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let is_plain = style == ScalarStyle::Plain;
                let text = if text.len() > SCALAR_KEPT_MAX { Cow::Borrowed("…") } else { text };
                (Node::Scalar { text, line, is_plain }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (Node::Sequence(Vec::new()), anchor),
            Event::MappingStart(_, anchor, _) => (Node::Mapping { entries: Vec::new(), line }, anchor),
            Event::Alias(anchor) => (Node::Alias(anchor), 0),
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                continue;
            }
            Event::DocumentEnd => {
                if let Some(root) = root.take() {
                    tree.visit_document(root, found);
                }
                tree.nodes.clear();
                tree.anchors.clear();
                continue;
            }
            _ => continue,
        };
        let is_collection = matches!(node, Node::Sequence(_) | Node::Mapping { .. });
        let index = tree.nodes.len();
        if index >= NODES_MAX || open.len() > DEPTH_MAX * 4 {
            return Err(Trouble { line, kind: TroubleKind::Bounds });
        }
        tree.nodes.push(node);
        if anchor > 0 {
            tree.anchors.insert(anchor, index);
        }
        match open.last().map(|parent| &mut tree.nodes[*parent]) {
            Some(Node::Sequence(entries) | Node::Mapping { entries, .. }) => entries.push(index),
            _ => root = Some(index),
        }
        if is_collection {
            open.push(index);
        }
    }
    Ok(())
}

fn line_number(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

/// A parser's message on one line.
fn brief(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(160).collect()
}

struct Tree<'a> {
    nodes: Vec<Node<'a>>,
    anchors: HashMap<usize, usize>,
    visited: usize,
    steps: Cell<usize>,
}

impl Tree<'_> {
    fn resolve(&self, mut index: usize) -> Option<&Node<'_>> {
        for _ in 0..DEPTH_MAX {
            match self.nodes.get(index)? {
                Node::Alias(anchor) => index = *self.anchors.get(anchor)?,
                node => return Some(node),
            }
        }
        None
    }

    fn scalar(&self, index: usize) -> Option<(&str, u32)> {
        match self.resolve(index)? {
            Node::Scalar { text, is_plain: true, .. } if matches!(text.as_ref(), "" | "~" | "null") => None,
            Node::Scalar { text, line, .. } => Some((text, *line)),
            _ => None,
        }
    }

    /// The value of a key: the last one where it is written twice, as kubectl reads it; merged ones come after all.
    /// With the line of the key.
    fn entry(&self, mapping: usize, key: &str, depth: usize) -> Option<(usize, u32)> {
        let Some(Node::Mapping { entries, .. }) = self.resolve(mapping) else { return None };
        self.steps.set(self.steps.get() + entries.len() + 1);
        if self.is_spent() {
            return None;
        }
        let is = |index: usize, wanted: &str| matches!(self.resolve(index), Some(Node::Scalar { text, .. }) if text == wanted);
        let pairs = || entries.as_chunks::<2>().0.iter().rev();
        if let Some([name, value]) = pairs().find(|[name, _]| is(*name, key)) {
            return Some((*value, self.scalar(*name).map_or(0, |(_, line)| line)));
        }
        let merged = pairs().filter(|[name, _]| depth < 8 && is(*name, "<<"));
        let sources = merged.flat_map(|[_, value]| match self.resolve(*value) {
            Some(Node::Sequence(entries)) => entries.clone(),
            _ => vec![*value],
        });
        sources.into_iter().find_map(|source| self.entry(source, key, depth + 1))
    }

    /// Whether more was compared than any document needs that is meant.
    fn is_spent(&self) -> bool {
        self.steps.get() > STEPS_MAX + STEPS_PER_NODE_MAX * self.nodes.len()
    }

    fn get(&self, mapping: usize, key: &str) -> Option<usize> {
        self.entry(mapping, key, 0).map(|(value, _)| value)
    }

    fn visit_document(&mut self, root: usize, found: &mut Found) {
        self.visited = 0;
        self.steps.set(0);
        found.is_text |= matches!(self.nodes.get(root), Some(Node::Scalar { is_plain: true, .. }));
        let before = found.objects.len() + found.troubles.len();
        self.visit(root, None, 0, found);
        if self.is_spent() {
            self.is_too_much(DEPTH_MAX, found);
        }
        if found.objects.len() + found.troubles.len() > before {
            return;
        }
        match self.resolve(root) {
            Some(Node::Scalar { text, line, .. }) if has_template_mark(text) => {
                found.troubles.push(Trouble { line: *line, kind: TroubleKind::Template });
            }
            // `{{ include "x" . }}` is a mapping in YAML's eyes, whose key is one.
            Some(Node::Mapping { entries, line })
                if entries.first().is_some_and(|key| matches!(self.resolve(*key), Some(Node::Mapping { .. }))) =>
            {
                found.troubles.push(Trouble { line: *line, kind: TroubleKind::Template });
            }
            // Text or a number is not even a file of settings.
            Some(Node::Scalar { .. }) | None => {}
            Some(_) => found.others += 1,
        }
    }

    fn visit(&mut self, index: usize, inherited: Option<(&str, &str, u32)>, depth: usize, found: &mut Found) {
        self.visited += 1;
        let line = match self.resolve(index) {
            Some(Node::Mapping { line, .. }) => *line,
            Some(Node::Sequence(entries)) if inherited.is_none() => {
                return self.visit_all(entries.clone(), None, depth, found);
            }
            _ => return,
        };
        // `apiVersion: {{ … }}` is a mapping in YAML's eyes.
        let is_mapping = |key: &str| {
            let (value, line) = self.entry(index, key, 0)?;
            matches!(self.resolve(value), Some(Node::Mapping { .. })).then_some(line)
        };
        if let Some(line) = is_mapping("apiVersion").or_else(|| is_mapping("kind")) {
            found.troubles.push(Trouble { line, kind: TroubleKind::Template });
            return;
        }
        let text = |key: &str| {
            let (value, line) = self.entry(index, key, 0)?;
            self.scalar(value).map(|(text, _)| (text.to_owned(), line))
        };
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if let Some((_, line)) = [&api_version, &kind].into_iter().flatten().find(|(text, _)| is_placeholder(text)) {
            found.troubles.push(Trouble { line: *line, kind: TroubleKind::Template });
            return;
        }
        let of_other_type = |key: &'static str| {
            let (value, line) = self.entry(index, key, 0)?;
            let Some(Node::Scalar { text, is_plain: true, .. }) = self.resolve(value) else { return None };
            is_number_or_bool(text).then(|| Trouble { line, kind: no_text(key) })
        };
        if let (Some(_), Some(_), Some(trouble)) =
            (&api_version, &kind, of_other_type("apiVersion").or_else(|| of_other_type("kind")))
        {
            found.troubles.push(trouble);
            return;
        }
        let inherit = |own: Option<(String, u32)>, taken: fn((&str, &str, u32)) -> String| {
            own.or_else(|| inherited.map(|inherited| (taken(inherited), line)))
        };
        let missing = (api_version.is_none(), kind.is_none());
        let (Some((api_version, line)), Some((kind, _))) =
            (inherit(api_version, |(gv, _, _)| gv.to_owned()), inherit(kind, |(_, kind, _)| kind.to_owned()))
        else {
            let list = text("kind").filter(|(kind, _)| is_list(kind)).and_then(|_| self.sequence(index, "items"));
            let has = |key: &str| self.get(index, key).is_some();
            let looks_meant = has("metadata") || has("spec") || list.is_some();
            if (missing != (true, true) || self.has_miswritten_key(index)) && looks_meant {
                let key = if missing.0 { "apiVersion" } else { "kind" };
                found.troubles.push(Trouble { line, kind: TroubleKind::Incomplete(key) });
            }
            self.visit_all(list.unwrap_or_default(), None, depth, found);
            return;
        };
        let (key, item) = match (item_kind(&kind), kind.as_str()) {
            (Some(item), _) => ("items", Some(item)),
            (None, "List") => ("items", None),
            (None, "Template") => ("objects", None),
            _ => ("", None),
        };
        if let Some(entries) = self.sequence(index, key) {
            let inherited = item.map(|kind| (api_version.as_str(), kind, line));
            return self.visit_all(entries, inherited, depth, found);
        }
        if kind == "List" {
            if let Some((items, line)) = self.entry(index, "items", 0)
                && matches!(self.resolve(items), Some(Node::Mapping { .. }))
            {
                let why = "its items are no list".to_owned();
                found.troubles.push(Trouble { line, kind: TroubleKind::Shape(why) });
            }
            return;
        }
        let metadata = self.get(index, "metadata");
        let name = |key| metadata.and_then(|at| self.scalar(self.get(at, key)?)).map(|(text, _)| text.to_owned());
        let (namespace, name) = (name("namespace").unwrap_or_default(), name("name").unwrap_or_default());
        found.objects.push((api_version, kind, namespace, name, line));
    }

    fn visit_all(
        &mut self,
        entries: Vec<usize>,
        inherited: Option<(&str, &str, u32)>,
        depth: usize,
        found: &mut Found,
    ) {
        for entry in entries {
            if self.is_too_much(depth, found) {
                return;
            }
            self.visit(entry, inherited, depth + 1, found);
        }
    }

    /// The entries of a sequence under a key.
    fn sequence(&self, mapping: usize, key: &str) -> Option<Vec<usize>> {
        match self.resolve(self.get(mapping, key)?)? {
            Node::Sequence(entries) => Some(entries.clone()),
            _ => None,
        }
    }

    fn has_miswritten_key(&self, mapping: usize) -> bool {
        let Some(Node::Mapping { entries, .. }) = self.resolve(mapping) else { return false };
        entries.as_chunks::<2>().0.iter().any(|[key, _]| self.scalar(*key).is_some_and(|(key, _)| is_miswritten(key)))
    }

    fn is_too_much(&self, depth: usize, found: &mut Found) -> bool {
        let too_much = depth >= DEPTH_MAX || self.visited >= OBJECTS_MAX || self.is_spent();
        if too_much && !found.troubles.iter().any(|trouble| trouble.kind == TroubleKind::Bounds) {
            found.troubles.push(Trouble { line: 1, kind: TroubleKind::Bounds });
        }
        too_much
    }
}
