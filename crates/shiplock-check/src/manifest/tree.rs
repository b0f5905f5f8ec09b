//! Documents through the YAML library: any style, anchors, aliases, merge keys, lists at any depth.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};

use super::{
    CREDENTIAL, DEPTH_MAX, KUBECONFIG, KUBECONFIG_LISTS, OBJECTS_MAX, Object, Role, Sink, Trouble, TroubleKind,
    has_template_mark, is_kubeconfig, is_list, is_miswritten, is_null, is_number_or_bool, is_placeholder, item_kind,
    no_text,
};

/// Longer scalars identify nothing; they are not kept.
const SCALAR_KEPT_MAX: usize = 512;
/// No document has more nodes that may matter, which take some 40 bytes each: a list of 40,000 objects has as many.
const NODES_MAX: usize = 1_000_000;
const _: () = assert!(NODES_MAX * (size_of::<Node<'_>>() + size_of::<usize>()) <= 48 << 20);
/// The keys of which more than the kind of their value matters.
const KEYS_KEPT: [&str; 7] = ["metadata", "items", "objects", "<<", "users", "user", "exec"];
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
    /// Whether there is a quotation mark in text without quotes within brackets, as in JSON that was damaged.
    pub(super) has_stray_quote: bool,
}

impl Found {
    /// Whether there is neither an object nor anything that is wrong.
    pub(super) fn is_nothing(&self) -> bool {
        self.objects.is_empty() && self.troubles.is_empty()
    }

    /// Whether there is an object.
    pub(super) fn has_objects(&self) -> bool {
        !self.objects.is_empty()
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

/// A collection whose end was not read yet.
struct OpenNode {
    index: usize,
    style: StructureStyle,
    /// How many anchors there were before it.
    anchors: usize,
}

/// Reads the documents of a text that begins at this line.
pub(super) fn documents(text: &str, first_line: u32, found: &mut Found) -> Result<(), Trouble> {
    let mut parser = Parser::new_from_str(text);
    let mut tree = Tree { nodes: Vec::new(), anchors: HashMap::new(), flaw: None, visited: 0, steps: Cell::new(0) };
    let mut open: Vec<OpenNode> = Vec::new();
    let mut root = None;
    let offset = first_line.saturating_sub(1);
    let has_tab = memchr::memchr(b'\t', text.as_bytes()).is_some();
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| {
            let line = offset + line_number(error.marker().line());
            Trouble { line, kind: TroubleKind::Syntax(brief(&error.info())) }
        })?;
        let line = offset + line_number(span.start.line());
        let in_flow = open.last().is_some_and(|parent| parent.style == StructureStyle::Flow);
        let (mut flaw, mut is_question) = (None, false);
        let (node, anchor, style) = match event {
            Event::Scalar(text_read, style, anchor, tag) => {
                let is_plain = style == ScalarStyle::Plain && tag.is_none();
                let is_block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                if is_block && has_tab && !text_read.trim().is_empty() && has_tab_in_indentation(text, &span) {
                    flaw = Some("it has a tab where a block of text is indented");
                } else if is_plain && in_flow {
                    is_question = text_read.starts_with('?');
                    let is_cut = text_read.starts_with(':') || text_read.chars().skip(1).any(|one| one == '?');
                    flaw = is_cut.then_some(BARE_SIGN);
                }
                found.has_stray_quote |= is_plain && in_flow && text_read.contains('"');
                let text = if text_read.len() > SCALAR_KEPT_MAX { Cow::Borrowed("…") } else { text_read };
                (Node::Scalar { text, line, is_plain }, anchor, None)
            }
            Event::SequenceStart(style, anchor, _) => (Node::Sequence(Vec::new()), anchor, Some(style)),
            Event::MappingStart(style, anchor, _) => (Node::Mapping { entries: Vec::new(), line }, anchor, Some(style)),
            Event::Alias(anchor) => (Node::Alias(anchor), 0, None),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(ended) = open.pop() {
                    tree.end(&ended, open.last());
                }
                continue;
            }
            Event::DocumentEnd => {
                if let Some(root) = root.take() {
                    tree.visit_document(root, text, found);
                }
                tree.nodes.clear();
                tree.anchors.clear();
                tree.flaw = None;
                continue;
            }
            _ => continue,
        };
        let index = tree.nodes.len();
        if index >= NODES_MAX || open.len() > DEPTH_MAX * 4 {
            return Err(Trouble { line, kind: TroubleKind::Bounds });
        }
        tree.nodes.push(node);
        let anchors = tree.anchors.len();
        if anchor > 0 {
            tree.anchors.insert(anchor, index);
        }
        match open.last().map(|parent| &mut tree.nodes[parent.index]) {
            Some(Node::Sequence(entries)) => {
                entries.push(index);
                if has_tab && !in_flow && is_after_tab(text, &span) {
                    flaw = Some("it has a tab after a dash");
                }
            }
            Some(Node::Mapping { entries, .. }) => {
                entries.push(index);
                if !entries.len().is_multiple_of(2) {
                    flaw = flaw.or(tree.flaw_of_key(index));
                } else if is_question {
                    flaw = Some(BARE_SIGN);
                }
            }
            _ => root = Some(index),
        }
        if let (None, Some(why)) = (&tree.flaw, flaw) {
            tree.flaw = Some((line, why));
        }
        if let Some(style) = style {
            open.push(OpenNode { index, style, anchors });
        }
    }
    Ok(())
}

/// Whether Kubernetes' parser finds a tab where it looks for the spaces before a block scalar, which spans from its first
/// letter on: it takes none there as long as the indentation is not known, and none within it.
fn has_tab_in_indentation(text: &str, span: &Span) -> bool {
    let begin = span.start.byte_offset().unwrap_or_default();
    let (Some(before), Some(block)) = (text.get(..begin), text.get(begin..)) else { return false };
    // The column may be said behind the sign that begins it.
    let header = before.trim_end().rsplit(['\n', '|', '>']).next().unwrap_or_default();
    let is_said = header.split(' ').next().is_some_and(|signs| signs.bytes().any(|sign| sign.is_ascii_digit()));
    if block.starts_with('\t') && !is_said {
        return true;
    }
    for line in block.split('\n').skip(1) {
        let column = line.len() - line.trim_start_matches(' ').len();
        match line.as_bytes().get(column) {
            None | Some(b'\r') => {}
            Some(_) if column >= span.start.col() => {}
            Some(sign) => return *sign == b'\t',
        }
    }
    false
}

/// Whether an item follows its dash after a tab, which Kubernetes' parser does not take.
fn is_after_tab(text: &str, span: &Span) -> bool {
    let Some(before) = span.start.byte_offset().and_then(|begin| text.get(..begin)) else { return false };
    let trimmed = before.trim_end_matches([' ', '\t']);
    trimmed.ends_with('-') && before[trimmed.len()..].contains('\t')
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
    /// The first thing for which Kubernetes' parser does not take the document though it is YAML.
    flaw: Option<(u32, &'static str)>,
    visited: usize,
    steps: Cell<usize>,
}

/// What Kubernetes' parser takes for a part of the syntax, where other parsers take it for text.
const BARE_SIGN: &str = "it has a question mark or a colon without quotes within brackets";

/// What a key is where it is none: also what a template that was not rendered makes of a value.
const KEY_IS_COLLECTION: &str = "a key is a mapping or a list";

impl Tree<'_> {
    /// Why Kubernetes' parser does not take a key; none where it does.
    fn flaw_of_key(&self, key: usize) -> Option<&'static str> {
        match self.resolve(key)? {
            Node::Sequence(_) | Node::Mapping { .. } => Some(KEY_IS_COLLECTION),
            Node::Scalar { text, is_plain: true, .. } if is_null(text) => Some("a key is null"),
            _ => None,
        }
    }

    /// Ends a collection: judges what it merges, and drops its content where that cannot matter.
    fn end(&mut self, ended: &OpenNode, parent: Option<&OpenNode>) {
        if let Node::Mapping { entries, line } = &self.nodes[ended.index] {
            let is_mapping = |node: &usize| matches!(self.resolve(*node), Some(Node::Mapping { .. }));
            let merges = |[key, value]: &[usize; 2]| match &self.nodes[*value] {
                _ if !self.is_merge(*key) => true,
                Node::Sequence(entries) => entries.iter().all(is_mapping),
                _ => is_mapping(value),
            };
            if self.flaw.is_none() && !entries.as_chunks::<2>().0.iter().all(merges) {
                self.flaw = Some((*line, "it merges (<<) what is no mapping"));
            }
        }
        let Some(Node::Mapping { entries, .. }) = parent.map(|parent| &self.nodes[parent.index]) else { return };
        let is_kept = match entries.as_slice() {
            [.., key, value] if *value == ended.index && entries.len().is_multiple_of(2) => match &self.nodes[*key] {
                Node::Scalar { text, .. } => KEYS_KEPT.contains(&text.as_ref()),
                _ => true,
            },
            _ => true,
        };
        // What an anchor names may be referred to from elsewhere.
        if is_kept || self.anchors.len() > ended.anchors {
            return;
        }
        self.nodes.truncate(ended.index + 1);
        if let Node::Sequence(entries) | Node::Mapping { entries, .. } = &mut self.nodes[ended.index] {
            *entries = Vec::new();
        }
    }

    fn is_merge(&self, key: usize) -> bool {
        matches!(&self.nodes[key], Node::Scalar { text, is_plain: true, .. } if text == "<<")
    }

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
            Node::Scalar { text, is_plain: true, .. } if is_null(text) => None,
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
        let merged = pairs().filter(|[name, _]| depth < 8 && self.is_merge(*name));
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

    fn visit_document(&mut self, root: usize, document: &str, found: &mut Found) {
        self.visited = 0;
        self.steps.set(0);
        found.is_text |= matches!(self.nodes.get(root), Some(Node::Scalar { is_plain: true, .. }));
        let (objects, troubles) = (found.objects.len(), found.troubles.len());
        self.visit(root, Role::Whole, 0, found);
        if self.is_spent() {
            self.is_too_much(DEPTH_MAX, found);
        }
        // Other tools may take what Kubernetes' parser does not.
        if let (true, Some((line, why))) = (found.objects.len() > objects, self.flaw) {
            let is_template = why == KEY_IS_COLLECTION && has_template_mark(document);
            let kind = if is_template { TroubleKind::Template } else { TroubleKind::Shape(why.to_owned()) };
            found.troubles.push(Trouble { line, kind });
        }
        if found.objects.len() + found.troubles.len() > objects + troubles {
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

    fn visit(&mut self, index: usize, role: Role<'_>, depth: usize, found: &mut Found) {
        self.visited += 1;
        let line = match self.resolve(index) {
            Some(Node::Mapping { line, .. }) => *line,
            Some(Node::Sequence(entries)) if role.inherited().is_none() => {
                return self.visit_all(entries.clone(), Role::Whole, depth, found);
            }
            Some(Node::Scalar { line, .. }) if self.scalar(index).is_some() => {
                return found.troubles.extend(role.must_be_object().map(|kind| Trouble { line: *line, kind }));
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
        let inherit = |own: Option<(String, u32)>, taken: fn((&str, &str)) -> String| {
            own.or_else(|| role.inherited().map(|inherited| (taken(inherited), line)))
        };
        let (api_version, kind) = (
            inherit(api_version, |(api_version, _)| api_version.to_owned()),
            inherit(kind, |(_, kind)| kind.to_owned()),
        );
        if api_version.is_none() || kind.is_none() {
            let is_there = |key: &&str| self.sequence(index, key).is_some();
            let said = [&api_version, &kind].map(|found| found.as_ref().map(|(text, _)| text.as_str()));
            let (version, of_kind) = KUBECONFIG;
            if matches!(role, Role::Whole)
                && is_kubeconfig(said[0].unwrap_or(version), said[1].unwrap_or(of_kind))
                && KUBECONFIG_LISTS.iter().all(is_there)
            {
                found.objects.push((version.to_owned(), of_kind.to_owned(), String::new(), String::new(), line));
                return found.objects.extend(self.logins(index));
            }
            let [api_version, kind] = said;
            let list = kind.filter(|kind| is_list(kind)).and_then(|_| self.sequence(index, "items"));
            let has = |key: &str| self.get(index, key).is_some();
            if list.is_some() || role.is_meant(api_version, kind, has, || self.has_miswritten_key(index)) {
                let key = if api_version.is_none() { "apiVersion" } else { "kind" };
                found.troubles.push(Trouble { line, kind: TroubleKind::Incomplete(key) });
            }
            return self.visit_all(list.unwrap_or_default(), Role::Item, depth, found);
        }
        let (Some((api_version, line)), Some((kind, _))) = (api_version, kind) else { return };
        let (key, item) = match (item_kind(&kind), kind.as_str()) {
            (Some(item), _) => ("items", Some(item)),
            (None, "List") => ("items", None),
            (None, "Template") => ("objects", None),
            _ => ("", None),
        };
        if let Some(entries) = self.sequence(index, key) {
            let role = item.map_or(Role::Item, |kind| Role::ItemOf(&api_version, kind));
            return self.visit_all(entries, role, depth, found);
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
        let generated = || name("generateName").map(|begin| format!("{begin}*"));
        let (namespace, name) =
            (name("namespace").unwrap_or_default(), name("name").or_else(generated).unwrap_or_default());
        let logins = if is_kubeconfig(&api_version, &kind) { self.logins(index) } else { Vec::new() };
        found.objects.push((api_version, kind, namespace, name, line));
        found.objects.extend(logins);
    }

    /// What the users of a kubeconfig log in by.
    fn logins(&self, kubeconfig: usize) -> Vec<(String, String, String, String, u32)> {
        let login = |user: usize| {
            let exec = self.get(self.get(user, "user")?, "exec")?;
            let (version, line) = self.scalar(self.get(exec, "apiVersion")?)?;
            let name = self.get(user, "name").and_then(|name| self.scalar(name)).map_or("", |(name, _)| name);
            Some((version.to_owned(), CREDENTIAL.to_owned(), String::new(), name.to_owned(), line))
        };
        self.sequence(kubeconfig, "users").into_iter().flatten().filter_map(login).collect()
    }

    fn visit_all(&mut self, entries: Vec<usize>, role: Role<'_>, depth: usize, found: &mut Found) {
        for entry in entries {
            if self.is_too_much(depth, found) {
                return;
            }
            self.visit(entry, role, depth + 1, found);
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
