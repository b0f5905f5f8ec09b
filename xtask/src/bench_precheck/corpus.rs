//! The labelled corpus: every kind × every target × every way to write it, and what cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Said, check};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/shiplock-check/data/api-lifecycle.json");
const TARGETS: std::ops::RangeInclusive<u32> = 16..=37;

#[derive(Deserialize)]
struct Table {
    kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    group: String,
    version: String,
    kind: String,
    introduced: Option<String>,
    deprecated: Option<String>,
    removed: Option<String>,
}

impl Kind {
    fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// What a check must say at a target: nothing, deprecated, removed; none where the kind is not there yet.
    fn label(&self, target: u32) -> Option<Option<&'static str>> {
        let minor = |text: &Option<String>| -> Option<u32> { text.as_ref()?.split('.').nth(1)?.parse().ok() };
        if minor(&self.introduced).is_some_and(|introduced| introduced > target) {
            return None;
        }
        Some(if minor(&self.removed).is_some_and(|removed| removed <= target) {
            Some("API-002")
        } else if minor(&self.deprecated).is_some_and(|deprecated| deprecated <= target) {
            Some("API-001")
        } else {
            None
        })
    }
}

/// A way to write an object: the file's name, and its bytes from version, kind and name. `@` stands for the version,
/// `#` for the kind, `%` for the name.
const WAYS: &[(&str, &str)] = &[
    ("plain.yaml", "apiVersion: @\nkind: #\nmetadata:\n  name: %\n"),
    ("late.yaml", "metadata:\n  name: %\n  annotations:\n    note: |\n$filler\nkind: #\napiVersion: @\n"),
    ("quoted.yaml", "\"apiVersion\": \"@\"\n'kind': '#' # c\nmetadata: {name: \"%\"}\n"),
    ("flow.yaml", "{apiVersion: @, kind: #, metadata: {name: %}}\n"),
    ("folded.yaml", "apiVersion: >-\n  @\nkind: |-\n  #\nmetadata:\n  name: %\n"),
    ("anchor.yaml", "x: &v @\ny: &k #\napiVersion: *v\nkind: *k\nmetadata:\n  name: %\n"),
    ("merge.yaml", "x: &base\n  apiVersion: @\n  kind: #\n<<: *base\nmetadata:\n  name: %\n"),
    ("tags.yaml", "--- !!map\napiVersion: !!str @\nkind: !!str #\nmetadata:\n  name: %\n"),
    ("directive.yaml", "%YAML 1.2\n---\napiVersion: @\nkind: #\nmetadata:\n  name: %\n...\n"),
    (
        "comments.yaml",
        "# apiVersion: v1\n# kind: Pod\n---\n# c\napiVersion: @ # apiVersion: v1\nkind: # # v1\nmetadata:\n  name: %\n",
    ),
    ("list.yaml", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: @\n  kind: #\n  metadata:\n    name: %\n"),
    (
        "list2.yaml",
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n  items:\n  - apiVersion: @\n    kind: #\n    metadata: {name: %}\n",
    ),
    (
        "list3.json",
        "{\"kind\":\"List\",\"apiVersion\":\"v1\",\"items\":[{\"kind\":\"List\",\"apiVersion\":\"v1\",\"items\":[{\"kind\":\"List\",\"apiVersion\":\"v1\",\"items\":[{\"apiVersion\":\"@\",\"kind\":\"#\",\"metadata\":{\"name\":\"%\"}}]}]}]}",
    ),
    ("typed.yaml", "apiVersion: @\nkind: #List\nitems:\n- metadata:\n    name: %\n"),
    ("sequence.yaml", "- apiVersion: @\n  kind: #\n  metadata:\n    name: %\n"),
    ("json.json", "{\n\t\"kind\": \"#\",\n\t\"metadata\": {\"name\": \"%\"},\n\t\"apiVersion\": \"@\"\n}\n"),
    (
        "lines.json",
        "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\"}\n{\"apiVersion\":\"@\",\"kind\":\"#\",\"metadata\":{\"name\":\"%\"}}\n",
    ),
    ("escaped.json", "{\"apiVersion\":\"$escaped\",\"kind\":\"#\",\"metadata\":{\"name\":\"%\"}}\n"),
    (
        "pem.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ca\ndata:\n  ca: |\n    -----BEGIN CERTIFICATE-----\n    eA==\n    -----END CERTIFICATE-----\n---\napiVersion: @\nkind: #\nmetadata:\n  name: %\n",
    ),
    ("twice.yaml", "apiVersion: v1\nkind: #\nmetadata:\n  name: %\napiVersion: @\n"),
    ("question.yaml", "? apiVersion\n: @\n? kind\n: #\n? metadata\n: name: %\n"),
    ("beside-bad.yaml", "a: b\n  c: d\n---\napiVersion: @\nkind: #\nmetadata:\n  name: %\n"),
    ("before-bad.yaml", "apiVersion: @\nkind: #\nmetadata:\n  name: %\n---\nx: [\n"),
    ("noext", "apiVersion: @\nkind: #\nmetadata:\n  name: %\n"),
    ("indented.yaml", "  apiVersion: @\n  kind: #\n  metadata:\n     name: %\n"),
    ("spaced.yaml", "apiVersion : @   \nkind :   #\t# c\nmetadata :\n  name :   %\n"),
    ("tabs.yaml", "apiVersion:\t@\nkind:\t#\nmetadata:\n  name:\t%\t\n"),
    ("anchored.yaml", "apiVersion: &v @\nkind: &k #\nmetadata: &m\n  name: &n %\n"),
    ("verbatim.yaml", "apiVersion: !<tag:yaml.org,2002:str> @\nkind: !!str \"#\"\nmetadata: !!map\n  name: %\n"),
    ("merges.yaml", "a: &a {apiVersion: v1, kind: #}\nb: &b {apiVersion: @}\n<<: [*b, *a]\nmetadata: {name: %}\n"),
    ("wrapped.yaml", "apiVersion:\n  \"@\"\nkind:\n  # c\n  '#'\nmetadata:\n  name:\n    %\n"),
    (
        "end-marker.yaml",
        "# only a comment\n...\n---\n---\nnull\n---\napiVersion: @\nkind: #\nmetadata:\n  name: %\n...\n# end\n",
    ),
    ("after-end.yaml", "a: 1\n...\napiVersion: @\nkind: #\nmetadata:\n  name: %\n"),
    ("nested.yaml", "- - apiVersion: @\n    kind: #\n    metadata:\n      name: %\n- []\n- [[], {}]\n"),
    (
        "array.json",
        "[[{\"apiVersion\":\"v1\",\"kind\":\"Pod\"}],[{\"apiVersion\":\"@\",\"kind\":\"#\",\"metadata\":{\"name\":\"%\"}}]]",
    ),
    ("unicode.json", "{\"\\u0061piVersion\":\"@\",\"\\u006bind\":\"#\",\"metadata\":{\"name\":\"%\"}}"),
    (
        "unicode.yaml",
        "\"\\x61piVersion\": \"@\"\n\"k\\u0069nd\": \"#\"\nmetadata: {name: %, annotations: {o: 运维 🚢}}\n",
    ),
    (
        "typed-in-list.yaml",
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: @\n  kind: #List\n  items:\n  - metadata: {name: %}\n- apiVersion: v1\n  kind: List\n  items: []\n- apiVersion: v1\n  kind: List\n",
    ),
    ("list-late.yaml", "items:\n- metadata:\n    name: %\n  kind: #\n  apiVersion: @\nkind: List\napiVersion: v1\n"),
    ("block-key.yaml", "? |-\n  apiVersion\n: @\n? >-\n  kind\n: #\nmetadata:\n  ? name\n  : %\n"),
    (
        "huge.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: huge\ndata:\n  x: \"$huge\"\n---\napiVersion: @\nkind: #\nmetadata:\n  name: %\n",
    ),
    ("folded-quotes.yaml", "apiVersion: \"\\\n  @\"\nkind: '#'\nmetadata: {\n  name: %\n  }\n"),
    (
        "kustomize.yaml",
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\n---\n# a patch\napiVersion: @\nkind: #\nmetadata:\n  name: %\n  $patch: delete\n",
    ),
    (
        "openshift.yaml",
        "apiVersion: template.openshift.io/v1\nkind: Template\nobjects:\n- apiVersion: @\n  kind: #\n  metadata: {name: %}\nparameters: []\n",
    ),
    (
        "values-in-text.yaml",
        "apiVersion: @\nkind: #\nmetadata:\n  name: %\n  annotations:\n    a: 'see {{ .Values.x }} and ${Y}'\n    b: \"--- # not a marker\"\n",
    ),
    ("UPPER.YAML", "apiVersion: @\nkind: #\nmetadata:\n  name: %\n"),
    (
        "many-bad.yaml",
        "a: [\n---\n\tb\n---\n'open\n---\napiVersion: @\nkind: #\nmetadata:\n  name: %\n---\n{{ end }}\n",
    ),
    (
        "template-beside.yaml",
        "{{- if .Values.x }}\napiVersion: v1\n{{- end }}\n---\napiVersion: @\nkind: #\nmetadata:\n  name: %\n",
    ),
];
/// The ways that hold something unreadable beside the object.
const BESIDE_BAD: [&str; 4] = ["beside-bad.yaml", "before-bad.yaml", "many-bad.yaml", "template-beside.yaml"];
/// The same text in other bytes: what is done to a plain one.
const BYTES: [&str; 8] = [
    "crlf.yaml",
    "cr.yaml",
    "bom.yaml",
    "utf16le.yaml",
    "utf16be.yaml",
    "no-mark16.yaml",
    "mixed.yaml",
    "packed.yaml.gz",
];
/// Texts that hold such an object and must give no finding.
const NOT_OBJECTS: &[(&str, &str)] = &[
    (
        "string.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %\ndata:\n  x.yaml: |\n    apiVersion: @\n    kind: #\n",
    ),
    ("comment.yaml", "# apiVersion: @\n# kind: #\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %\n"),
    (
        "annotation.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %\n  annotations:\n    kubectl.kubernetes.io/last-applied-configuration: '{\"apiVersion\":\"@\",\"kind\":\"#\"}'\n",
    ),
    (
        "reference.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %\n  ownerReferences:\n  - apiVersion: @\n    kind: #\n",
    ),
    (
        "inline-patch.yaml",
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nmetadata:\n  name: %\npatches:\n- patch: |-\n    apiVersion: @\n    kind: #\n    metadata:\n      name: %\n- target:\n    kind: #\n",
    ),
    (
        "embedded.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: %\nstringData:\n  a: \"apiVersion: @\\nkind: #\\n\"\n  b: >\n    apiVersion: @\n\n    kind: #\n  c: 'apiVersion: @'\n",
    ),
    ("values.yaml", "image:\n  apiVersion: @\n  kind: #\n  name: %\nreplicas: 2\n"),
    (
        "reference2.yaml",
        "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata:\n  name: %\nspec:\n  scaleTargetRef:\n    apiVersion: @\n    kind: #\n    name: %\n",
    ),
    ("other-group.yaml", "apiVersion: example.com/v1beta1\nkind: #\nmetadata:\n  name: %\n"),
];
/// What cannot be read, and must be told.
const UNREADABLE: &[(&str, &[u8])] = &[
    ("tab.yaml", b"apiVersion: v1\nkind: Pod\nmetadata:\n\tname: x\n"),
    ("indent.yaml", b"apiVersion: v1\n  kind: Pod\n"),
    ("quote.yaml", b"apiVersion: \"v1\nkind: Pod\n"),
    ("flow.yaml", b"apiVersion: v1\nkind: Pod\nmetadata: {name: x\n"),
    ("alias.yaml", b"apiVersion: *none\nkind: Pod\n"),
    ("template.yaml", b"apiVersion: {{ .Values.api }}\nkind: Pod\n"),
    ("template2.yaml", b"{{- if .Values.on }}\napiVersion: v1\nkind: Pod\n{{- end }}\n"),
    ("template3.yaml", b"apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    {{- include \"x\" . | nindent 4 }}\n"),
    ("cut.json", b"{\"apiVersion\":\"v1\",\"kind\":\"Po"),
    ("garbage.json", b"{\"apiVersion\":\"v1\",\"kind\":\"Pod\"} trailing"),
    ("latin1.yaml", b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: caf\xe9\n"),
    ("noversion.yaml", b"kind: Deployment\nmetadata:\n  name: x\n"),
    ("nokind.yaml", b"apiVersion: apps/v1\nmetadata:\n  name: x\n"),
    ("variable.yaml", b"apiVersion: ${API}\nkind: Pod\n"),
    ("broken.yaml.gz", b"\x1f\x8b\x08\x00\x00"),
];

fn write(way: &str, kind: &Kind, name: &str) -> String {
    let api_version = kind.api_version();
    let filler = "      filler of a long note\n".repeat(500);
    let huge = "x ".repeat(200_000);
    // The marks of a way are replaced in one go, since a kind may hold one of them.
    let mut text = String::new();
    let mut rest = way;
    while let Some(character) = rest.chars().next() {
        let (put, length) = match character {
            '@' => (api_version.as_str(), 1),
            // ` # ` begins a comment.
            '#' if !rest.starts_with("# ") || text.ends_with("kind: ") => (kind.kind.as_str(), 1),
            '%' if !rest.starts_with("%YAML") => (name, 1),
            '$' if rest.starts_with("$filler") => (filler.trim_end(), 7),
            '$' if rest.starts_with("$huge") => (huge.as_str(), 5),
            '$' if rest.starts_with("$escaped") => ("", 8),
            _ => (&rest[..character.len_utf8()], character.len_utf8()),
        };
        if rest.starts_with("$escaped") {
            text.push_str(&api_version.replace('/', "\\/"));
        }
        text.push_str(put);
        rest = &rest[length..];
    }
    text
}

fn bytes(way: &str, kind: &Kind, name: &str) -> Vec<u8> {
    let text = write(WAYS[0].1, kind, name);
    match way {
        "crlf.yaml" => text.replace('\n', "\r\n").into_bytes(),
        "cr.yaml" => text.replace('\n', "\r").into_bytes(),
        "bom.yaml" => format!("\u{feff}{text}").into_bytes(),
        "mixed.yaml" => text.replacen('\n', "\r\n", 2).into_bytes(),
        "no-mark16.yaml" => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        "packed.yaml.gz" => {
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            // A buffer in memory takes everything.
            let _ = packed.write_all(text.as_bytes());
            packed.finish().unwrap_or_default()
        }
        "utf16le.yaml" => format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect(),
        _ => format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_be_bytes).collect(),
    }
}

#[derive(Default)]
struct Score {
    pairs: usize,
    right: usize,
    missed: Vec<String>,
    false_alarms: Vec<String>,
}

/// Writes the corpus, asks for every target, compares.
pub(super) fn measure(shiplock: &Path, folder: &Path) -> Result<()> {
    let table: Table = serde_json::from_str(&std::fs::read_to_string(TABLE)?).context("the table")?;
    let root = folder.join("corpus");
    for (index, kind) in table.kinds.iter().enumerate() {
        let name = format!("n{index}");
        for (way, text) in WAYS.iter().chain(NOT_OBJECTS) {
            put(&root.join(way).join(format!("{index}.{way}")), write(text, kind, &name).as_bytes())?;
        }
        for way in BYTES {
            put(&root.join(way).join(format!("{index}.{way}")), &bytes(way, kind, &name))?;
        }
    }
    // Where nothing is an object at all that is told: beside these there is one.
    for (way, _) in NOT_OBJECTS {
        put(&root.join(way).join("beside.yaml"), b"apiVersion: v1\nkind: Pod\nmetadata:\n  name: beside\n")?;
    }
    let mut removed = Score::default();
    let mut deprecated = Score::default();
    let ways = WAYS.iter().map(|(way, _)| *way).chain(BYTES);
    for way in ways.chain(NOT_OBJECTS.iter().map(|(way, _)| *way)) {
        let must_be_silent = NOT_OBJECTS.iter().any(|(other, _)| *other == way);
        for target in TARGETS {
            let path = root.join(way);
            let said = check(shiplock, &["-f", &path.to_string_lossy(), "--to", &format!("1.{target}")])?;
            let found = by_name(&said)?;
            let wrong_exit = (said.exit == 4) != BESIDE_BAD.contains(&way);
            ensure!(!wrong_exit, "{way} at 1.{target}: exit code {}", said.exit);
            for (index, kind) in table.kinds.iter().enumerate() {
                let Some(label) = kind.label(target) else { continue };
                let label = label.filter(|_| !must_be_silent);
                let found = found.get(&format!("n{index}")).map(String::as_str);
                let place =
                    || format!("{way} {} {} at 1.{target}: {found:?}, not {label:?}", kind.api_version(), kind.kind);
                for (check, score) in [("API-002", &mut removed), ("API-001", &mut deprecated)] {
                    match (label == Some(check), found == Some(check)) {
                        (true, true) => {
                            score.pairs += 1;
                            score.right += 1;
                        }
                        (true, false) => {
                            score.pairs += 1;
                            score.missed.push(place());
                        }
                        (false, true) => score.false_alarms.push(place()),
                        (false, false) => {}
                    }
                }
            }
        }
    }
    println!(
        "accuracy: {} kinds, {} ways to write them, targets 1.16 … 1.37",
        table.kinds.len(),
        WAYS.len() + BYTES.len()
    );
    show("removed", &removed);
    show("deprecated", &deprecated);
    unreadable(shiplock, folder)?;
    exit_codes(shiplock, folder)?;
    ensure!(
        removed.missed.is_empty()
            && removed.false_alarms.is_empty()
            && deprecated.missed.is_empty()
            && deprecated.false_alarms.is_empty(),
        "the check is not exact"
    );
    Ok(())
}

fn put(path: &Path, content: &[u8]) -> Result<()> {
    std::fs::create_dir_all(path.parent().context("a folder")?)?;
    Ok(std::fs::write(path, content)?)
}

/// The check of each object by its name.
fn by_name(said: &Said) -> Result<BTreeMap<String, String>> {
    let findings = said.report["findings"].as_array().context("findings")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let of_objects = findings.iter().filter(|finding| finding["check"] != "API-007");
    Ok(of_objects.map(|finding| (text(&finding["subject"]["name"]), text(&finding["check"]))).collect())
}

fn show(what: &str, score: &Score) {
    #[expect(clippy::cast_precision_loss, reason = "small numbers for people")]
    let share = |part: usize, whole: usize| if whole == 0 { 1.0 } else { part as f64 / whole as f64 };
    println!(
        "  {what}: {} pairs, recall {:.3}, precision {:.3}",
        score.pairs,
        share(score.right, score.pairs),
        share(score.right, score.right + score.false_alarms.len())
    );
    for wrong in score.missed.iter().chain(&score.false_alarms).take(10) {
        println!("    wrong: {wrong}");
    }
}

fn unreadable(shiplock: &Path, folder: &Path) -> Result<()> {
    let root = folder.join("unreadable");
    for (name, content) in UNREADABLE {
        put(&root.join(name), content)?;
    }
    let mut silent = String::new();
    for (name, _) in UNREADABLE {
        let said = check(shiplock, &["-f", &root.join(name).to_string_lossy(), "--to", "1.37"])?;
        let told: BTreeSet<&str> = said.report["findings"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|finding| finding["check"].as_str())
            .collect();
        if said.exit != 4 || !told.contains("API-007") {
            let _ = write!(silent, " {name} (exit {})", said.exit);
        }
    }
    println!(
        "  unreadable: {} files, passed over in silence:{}",
        UNREADABLE.len(),
        if silent.is_empty() { " none" } else { &silent }
    );
    ensure!(silent.is_empty(), "unreadable files are passed over");
    Ok(())
}

fn exit_codes(shiplock: &Path, folder: &Path) -> Result<()> {
    let removed = folder.join("removed.yaml");
    put(&removed, b"apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata:\n  name: x\n")?;
    let clean = folder.join("clean.yaml");
    put(&clean, b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n")?;
    let (removed, clean) = (removed.to_string_lossy(), clean.to_string_lossy());
    for (arguments, expected) in [
        (vec!["-f", &removed, "--to", "1.37"], 0),
        (vec!["-f", &removed, "--to", "1.37", "--policy", "strict"], 3),
        (vec!["-f", &removed, "--to", "1.37", "--fail-on", "warn"], 3),
        (vec!["-f", &removed, "--to", "1.37", "--fail-on", "warn", "--accept", "API-002"], 0),
        (vec!["-f", &removed, "--to", "1.21", "--policy", "strict"], 0),
        (vec!["-f", &clean, "--to", "1.37", "--policy", "strict", "--fail-on", "warn"], 0),
        (vec!["-f", &clean, "--to", "1.38"], 4),
        (vec!["-f", &clean, "--to", "1.37", "--require", "node"], 4),
    ] {
        let said = check(shiplock, &arguments)?;
        ensure!(said.exit == expected, "{arguments:?}: exit code {}, not {expected}", said.exit);
    }
    println!("  exit codes: right");
    Ok(())
}
