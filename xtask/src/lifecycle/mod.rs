//! `cargo xtask lifecycle`: the table of API lifecycles, from Kubernetes' own sources.
//!
//! Types are deleted from the sources some releases after they are no longer served, so the newest sources alone do
//! not tell which kinds there ever were. The committed table is therefore carried forward: what the newest release
//! declares replaces what was known of a kind, and a kind that its sources no longer have is kept as a tombstone.

mod components;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// Where the table lies.
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/shiplock-check/data/api-lifecycle.json");
/// Kinds of these modules are in the table.
const MODULES: [(&str, &str); 3] = [
    ("k8s.io/api", ""),
    ("k8s.io/apiextensions-apiserver", "pkg/apis/apiextensions"),
    ("k8s.io/kube-aggregator", "pkg/apis/apiregistration"),
];
/// Folders of `k8s.io/api` that are no groups.
const NO_GROUPS: [&str; 1] = ["testdata"];

/// Arguments of `cargo xtask lifecycle`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The release of Kubernetes whose sources are read, as the Go modules number it
    #[arg(long, default_value = "0.37.2")]
    release: String,
    /// The table of feature gates, flags, admission plugins and API versions that components refuse instead
    #[arg(long)]
    components: bool,
    /// Write the table; without it a difference is an error
    #[arg(long)]
    write: bool,
}

/// The table as it is stored.
#[derive(Debug, Serialize, Deserialize)]
struct Table {
    newest_release: String,
    sources: Vec<String>,
    kinds: Vec<Kind>,
}

/// One kind in one version.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kind {
    group: String,
    version: String,
    kind: String,
    category: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespaced: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    introduced: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deprecated: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    removed_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replacement: Option<String>,
}

/// What the sources declare of a kind.
#[derive(Debug, Default)]
struct Declared {
    introduced: Option<String>,
    deprecated: Option<String>,
    removed: Option<String>,
    replacement: Option<String>,
    resource: String,
    namespaced: bool,
}

type Name = (String, String, String);

/// Writes the table, or says that it is not what the sources say.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.components {
        return components::run(arguments.write);
    }
    let text = std::fs::read_to_string(TABLE).context("the table cannot be read")?;
    let table: Table = serde_json::from_str(&text).context("the table is not what this program writes")?;
    let minor = arguments.release.split('.').nth(1).context("a release such as 0.37.2")?;
    let release = format!("1.{minor}");
    ensure!(
        number(&release) >= number(&table.newest_release),
        "the table already knows {}; older sources would take that away",
        table.newest_release
    );
    let (mut declared, mut sources) = (BTreeMap::new(), Vec::new());
    for (module, folder) in MODULES {
        let (path, sum) = download(&format!("{module}@v{}", arguments.release))?;
        sources.push(format!("{module} v{} {sum}", arguments.release));
        read_module(&path.join(folder), folder.is_empty(), &mut declared)?;
    }
    ensure!(declared.len() > 100, "only {} kinds were found in the sources", declared.len());
    let merged = Table { kinds: merge(table.kinds, &declared, &release), newest_release: release, sources };
    let written = written(&merged)?;
    if written == text {
        println!("{} kinds, as the sources of {} say", merged.kinds.len(), merged.newest_release);
    } else if arguments.write {
        std::fs::write(TABLE, written)?;
        println!("{} kinds written", merged.kinds.len());
    } else {
        bail!("the table differs from the sources of {}: cargo xtask lifecycle --write", merged.newest_release);
    }
    Ok(())
}

/// One line for each kind, so that a change of the table can be reviewed.
fn written(table: &Table) -> Result<String> {
    let kinds: Result<Vec<String>, _> = table.kinds.iter().map(serde_json::to_string).collect();
    Ok(format!(
        "{{\n  \"newest_release\": {},\n  \"sources\": {},\n  \"kinds\": [\n    {}\n  ]\n}}\n",
        serde_json::to_string(&table.newest_release)?,
        serde_json::to_string(&table.sources)?,
        kinds?.join(",\n    ")
    ))
}

fn number(release: &str) -> u32 {
    release.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or_default()
}

fn merge(known: Vec<Kind>, declared: &BTreeMap<Name, Declared>, release: &str) -> Vec<Kind> {
    let mut kinds: BTreeMap<Name, Kind> =
        known.into_iter().map(|kind| ((kind.group.clone(), kind.version.clone(), kind.kind.clone()), kind)).collect();
    let is_fact = |removed: &str| number(removed) <= number(release);
    for (name, kind) in &mut kinds {
        if declared.contains_key(name) {
            continue;
        }
        // A date that was only planned has come true, or the kind went before it.
        if kind.removed_by.as_deref() == Some("projected") || kind.removed.is_none() {
            kind.removed = Some(release.to_owned());
            kind.removed_by = Some("types-deleted".to_owned());
        }
    }
    for (name, found) in declared {
        // Parameters of requests are no objects that anybody writes into a file.
        if name.2.ends_with("Options") && !kinds.contains_key(name) {
            continue;
        }
        let kind = kinds.entry(name.clone()).or_insert_with(|| Kind {
            group: name.0.clone(),
            version: name.1.clone(),
            kind: name.2.clone(),
            category: "resource".to_owned(),
            resource: Some(found.resource.clone()),
            namespaced: Some(found.namespaced),
            ..Kind::default()
        });
        // The release that first carried the type is known better from the releases themselves than from its tag.
        kind.introduced = kind.introduced.take().or(found.introduced.clone());
        kind.deprecated = found.deprecated.clone().or(kind.deprecated.take());
        kind.replacement = kind.replacement.take().or(found.replacement.clone());
        let settled = kind.removed.as_deref().is_some_and(is_fact) && kind.removed_by.as_deref() != Some("projected");
        if let (Some(removed), false) = (&found.removed, settled) {
            kind.removed = Some(removed.clone());
            kind.removed_by = Some(if is_fact(removed) { "declared" } else { "projected" }.to_owned());
        }
    }
    kinds.into_values().collect()
}

/// Fetches a module through Go and says where it lies and what its checksum is.
pub(crate) fn download(module: &str) -> Result<(PathBuf, String)> {
    #[derive(Deserialize)]
    struct Downloaded {
        #[serde(rename = "Dir")]
        folder: PathBuf,
        #[serde(rename = "Sum")]
        sum: String,
    }
    let output = Command::new("go")
        .args(["mod", "download", "-json", module])
        .current_dir(std::env::temp_dir())
        .output()
        .context("go cannot be started")?;
    ensure!(output.status.success(), "go mod download {module}: {}", String::from_utf8_lossy(&output.stdout));
    let found: Downloaded = serde_json::from_slice(&output.stdout).context("the answer of go mod download")?;
    Ok((found.folder, found.sum))
}

fn read_module(root: &Path, has_groups: bool, declared: &mut BTreeMap<Name, Declared>) -> Result<()> {
    let groups = if has_groups { folders(root)? } else { vec![root.to_owned()] };
    for group in groups.iter().filter(|path| !NO_GROUPS.iter().any(|name| path.ends_with(name))) {
        for version in folders(group)?.iter().filter(|path| path.join("register.go").exists()) {
            read_package(version, declared).with_context(|| version.display().to_string())?;
        }
    }
    Ok(())
}

pub(crate) fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn read_package(path: &Path, declared: &mut BTreeMap<Name, Declared>) -> Result<()> {
    let version = path.file_name().and_then(|name| name.to_str()).context("a folder name")?;
    if !version.starts_with('v') {
        return Ok(());
    }
    let register = std::fs::read_to_string(path.join("register.go"))?;
    let group_line = register.lines().find(|line| line.contains("GroupName") && line.contains('"'));
    let group = group_line.and_then(|line| line.split('"').nth(1)).context("GroupName")?;
    let types = std::fs::read_to_string(path.join("types.go")).unwrap_or_default();
    let lifecycle = std::fs::read_to_string(path.join("zz_generated.prerelease-lifecycle.go")).unwrap_or_default();
    for kind in registered(&register) {
        let mut found = Declared { resource: plural(&kind), ..Declared::default() };
        found.namespaced = !comments_above(&types, &kind).contains("+genclient:nonNamespaced");
        for (what, value) in methods(&lifecycle, &kind) {
            match what {
                "Introduced" => found.introduced = minor_of(value),
                "Deprecated" => found.deprecated = minor_of(value),
                "Removed" => found.removed = minor_of(value),
                "Replacement" => found.replacement = Some(replacement_of(value)?),
                other => bail!("an unknown method APILifecycle{other}"),
            }
        }
        // IngressClass v1beta1 names the list of its successor.
        found.replacement = found.replacement.map(|text| text.strip_suffix("List").unwrap_or(&text).to_owned());
        declared.insert((group.to_owned(), version.to_owned(), kind), found);
    }
    Ok(())
}

/// The kinds that a package registers, without lists.
fn registered(register: &str) -> BTreeSet<String> {
    let names = register.lines().filter_map(|line| line.trim().strip_prefix('&')?.split('{').next());
    names.filter(|name| !name.ends_with("List")).map(str::to_owned).collect()
}

fn plural(kind: &str) -> String {
    let lower = kind.to_lowercase();
    match lower.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ if lower.ends_with('s') => format!("{lower}es"),
        _ => format!("{lower}s"),
    }
}

fn comments_above(types: &str, kind: &str) -> String {
    let Some(position) = types.find(&format!("\ntype {kind} struct")) else { return String::new() };
    let above: Vec<&str> =
        types[..position].lines().rev().take_while(|line| line.starts_with("//") || line.is_empty()).collect();
    above.join("\n")
}

/// The lifecycle methods of a kind: what, and the value that is returned.
fn methods<'a>(source: &'a str, kind: &str) -> Vec<(&'a str, &'a str)> {
    let start = format!("func (in *{kind}) APILifecycle");
    let of_one = |text: &'a str| {
        let (what, rest) = text.split_once('(')?;
        let value = rest.split_once("return ")?.1.lines().next()?;
        Some((what, value))
    };
    source.match_indices(&start).filter_map(|(at, found)| of_one(&source[at + found.len()..])).collect()
}

fn minor_of(value: &str) -> Option<String> {
    let (major, minor) = value.split_once(", ")?;
    Some(format!("{}.{}", major.trim(), minor.trim()))
}

fn replacement_of(value: &str) -> Result<String> {
    let mut texts = value.split('"').skip(1).step_by(2);
    let (Some(group), Some(version), Some(kind)) = (texts.next(), texts.next(), texts.next()) else {
        bail!("not a replacement: {value}")
    };
    Ok(if group.is_empty() { format!("{version} {kind}") } else { format!("{group}/{version} {kind}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(name: &str, removed: Option<(&str, &str)>) -> Kind {
        Kind {
            group: "g".into(),
            version: "v1beta1".into(),
            kind: name.into(),
            category: "resource".into(),
            removed: removed.map(|(at, _)| at.into()),
            removed_by: removed.map(|(_, by)| by.into()),
            ..Kind::default()
        }
    }

    #[test]
    fn a_kind_that_left_the_sources_becomes_a_tombstone_and_a_planned_date_that_came_becomes_a_fact() {
        let name = |kind: &str| ("g".to_owned(), "v1beta1".to_owned(), kind.to_owned());
        let known = vec![
            kind("Old", Some(("1.22", "declared"))),
            kind("Gone", Some(("1.39", "projected"))),
            kind("Untagged", None),
            kind("Due", Some(("1.37", "projected"))),
            kind("Later", Some(("1.38", "projected"))),
        ];
        let declared = [("Due", "1.37"), ("Later", "1.40"), ("New", "1.43")]
            .map(|(kind, removed)| (name(kind), Declared { removed: Some(removed.into()), ..Declared::default() }));
        let merged = merge(known, &declared.into(), "1.37");
        let shown: Vec<String> = merged
            .iter()
            .map(|kind| {
                let text = |value: &Option<String>| value.clone().unwrap_or_default();
                format!("{} {} {}", kind.kind, text(&kind.removed), text(&kind.removed_by))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "Due 1.37 declared",
                "Gone 1.37 types-deleted",
                "Later 1.40 projected",
                "New 1.43 projected",
                "Old 1.22 declared",
                "Untagged 1.37 types-deleted"
            ]
        );
    }

    #[test]
    fn go_sources_are_read() {
        let source = "func (in *A) APILifecycleDeprecated() (major, minor int) {\n\treturn 1, 19\n}\nfunc (in *A) APILifecycleReplacement() schema.GroupVersionKind {\n\treturn schema.GroupVersionKind{Group: \"g\", Version: \"v1\", Kind: \"A\"}\n}\n";
        assert_eq!(methods(source, "A")[0], ("Deprecated", "1, 19"));
        assert_eq!(replacement_of(methods(source, "A")[1].1).unwrap(), "g/v1 A");
        assert_eq!(plural("IngressClass"), "ingressclasses");
        assert_eq!(plural("NetworkPolicy"), "networkpolicies");
        assert_eq!(plural("Lease"), "leases");
    }
}
