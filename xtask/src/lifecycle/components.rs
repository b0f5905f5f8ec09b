//! `cargo xtask lifecycle --components`: what components of Kubernetes refuse to start with, from their own sources.
//!
//! A component that is given a feature gate, a flag, an admission plugin or an API version that its release does not
//! know ends at once, and so does one whose gate is locked to the other value. The sources of one patch of each minor
//! are compared: what an older one has and a newer one has not is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::{download, folders};

/// Where the table lies.
const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/shiplock-check/data/components.json");
/// The patches whose sources the module proxy has.
const RELEASES: [&str; 9] = ["29.6", "30.14", "31.14", "32.13", "33.13", "34.4", "35.4", "36.3", "37.2"];
/// Folders with feature gates: module and folder in it.
const GATES: [(&str, &str); 7] = [
    ("k8s.io/kubernetes", "pkg/features"),
    ("k8s.io/apiserver", "pkg/features"),
    ("k8s.io/apiextensions-apiserver", "pkg/features"),
    ("k8s.io/client-go", "features"),
    ("k8s.io/component-base", "logs"),
    ("k8s.io/component-base", "metrics"),
    ("k8s.io/controller-manager", "pkg/features"),
];
/// Folders with flags, by component.
const FLAGS: [(&str, &[(&str, &str)]); 5] = [
    (
        "kube-apiserver",
        &[
            ("k8s.io/kubernetes", "cmd/kube-apiserver"),
            ("k8s.io/kubernetes", "pkg/controlplane"),
            ("k8s.io/kubernetes", "pkg/kubeapiserver"),
            ("k8s.io/kubernetes", "pkg/serviceaccount"),
            ("k8s.io/apiserver", "pkg"),
            ("k8s.io/kube-aggregator", "pkg"),
            ("k8s.io/component-base", ""),
        ],
    ),
    (
        "kube-controller-manager",
        &[
            ("k8s.io/kubernetes", "cmd/kube-controller-manager"),
            ("k8s.io/kubernetes", "pkg/controller"),
            ("k8s.io/controller-manager", ""),
            ("k8s.io/cloud-provider", ""),
            ("k8s.io/apiserver", "pkg/server/options"),
            ("k8s.io/component-base", ""),
        ],
    ),
    (
        "kube-scheduler",
        &[
            ("k8s.io/kubernetes", "cmd/kube-scheduler"),
            ("k8s.io/kubernetes", "pkg/scheduler"),
            ("k8s.io/controller-manager", ""),
            ("k8s.io/apiserver", "pkg/server/options"),
            ("k8s.io/component-base", ""),
        ],
    ),
    (
        "kubelet",
        &[
            ("k8s.io/kubernetes", "cmd/kubelet"),
            ("k8s.io/kubernetes", "pkg/kubelet"),
            ("k8s.io/kubernetes", "pkg/credentialprovider"),
            ("k8s.io/component-base", ""),
        ],
    ),
    (
        "kube-proxy",
        &[("k8s.io/kubernetes", "cmd/kube-proxy"), ("k8s.io/kubernetes", "pkg/proxy"), ("k8s.io/component-base", "")],
    ),
];

#[derive(Serialize)]
struct Table {
    oldest: String,
    newest: String,
    gates: Vec<Gate>,
    gone: Vec<Gone>,
}

/// A feature gate.
#[derive(Clone, Serialize)]
struct Gate {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gone: Option<String>,
    /// From which minor on it can only have this value.
    #[serde(skip_serializing_if = "Option::is_none")]
    locked: Option<(String, bool)>,
}

/// A flag, admission plugin or API version that is not known any more.
#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Gone {
    component: &'static str,
    what: &'static str,
    name: String,
    gone: String,
}

/// What one release knows.
#[derive(Default)]
struct Known {
    /// With the value that each is locked to, if it is.
    gates: BTreeMap<String, Option<bool>>,
    /// Component, `flag`, `plugin` or `version`, name.
    names: BTreeSet<(&'static str, &'static str, String)>,
    /// Every text in quotes in the sources of a component's flags: what is among them may still be a flag.
    texts: BTreeMap<&'static str, BTreeSet<String>>,
}

/// Writes the table, or says that it is not what the sources say.
pub(super) fn run(write: bool) -> Result<()> {
    let mut releases = Vec::new();
    for release in RELEASES {
        let minor = release.split('.').next().context("a release")?;
        println!("1.{release}");
        releases.push((format!("1.{minor}"), read(release)?));
    }
    let table = compare(&releases)?;
    let text = written(&table)?;
    let known = std::fs::read_to_string(TABLE).unwrap_or_default();
    if text == known {
        println!("{} gates and {} other names, as the sources say", table.gates.len(), table.gone.len());
    } else if write {
        std::fs::write(TABLE, text)?;
        println!("{} gates and {} other names written", table.gates.len(), table.gone.len());
    } else {
        bail!("the table differs from the sources: cargo xtask lifecycle --components --write");
    }
    Ok(())
}

fn written(table: &Table) -> Result<String> {
    let lines = |values: Result<Vec<String>, serde_json::Error>| values.map(|lines| lines.join(",\n    "));
    Ok(format!(
        "{{\n  \"oldest\": {:?},\n  \"newest\": {:?},\n  \"gates\": [\n    {}\n  ],\n  \"gone\": [\n    {}\n  ]\n}}\n",
        table.oldest,
        table.newest,
        lines(table.gates.iter().map(serde_json::to_string).collect())?,
        lines(table.gone.iter().map(serde_json::to_string).collect())?,
    ))
}

fn read(release: &str) -> Result<Known> {
    let mut modules: BTreeMap<&str, PathBuf> = BTreeMap::new();
    let mut folder = |module: &'static str, inner: &str| -> Result<PathBuf> {
        if !modules.contains_key(module) {
            let major = if module == "k8s.io/kubernetes" { 1 } else { 0 };
            modules.insert(module, download(&format!("{module}@v{major}.{release}"))?.0);
        }
        Ok(modules[module].join(inner))
    };
    let mut known = Known::default();
    let mut sources = String::new();
    for (module, inner) in GATES {
        for file in go_files(&folder(module, inner)?)? {
            sources.push_str(&std::fs::read_to_string(file)?);
        }
    }
    known.gates = gates(&sources);
    ensure!(known.gates.len() > 100, "only {} gates were found", known.gates.len());
    for (component, places) in FLAGS {
        for (module, inner) in places {
            for file in go_files(&folder(module, inner)?)? {
                let source = std::fs::read_to_string(file)?;
                let texts = known.texts.entry(component).or_default();
                texts.extend(quoted(&source).filter(|text| is_flag_name(text)).map(str::to_owned));
                known.names.extend(flags(&source).map(|flag| (component, "flag", flag.to_owned())));
            }
        }
    }
    let kubernetes = folder("k8s.io/kubernetes", "")?;
    for name in admission_plugins(&kubernetes, &folder("k8s.io/apiserver", "pkg/admission/plugin")?)? {
        known.names.insert(("kube-apiserver", "plugin", name));
    }
    for version in api_versions(&kubernetes.join("pkg/apis"))? {
        known.names.insert(("kube-apiserver", "version", version));
    }
    Ok(known)
}

/// The sources under a folder, without tests.
fn go_files(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut waiting) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = waiting.pop() {
        // A folder that a release does not have.
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !matches!(name.as_str(), "testing" | "testdata" | "test") {
                waiting.push(path);
            } else if name.ends_with(".go") && !name.ends_with("_test.go") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Feature gates of sources, with the value that the newest of their specifications locks them to.
fn gates(sources: &str) -> BTreeMap<String, Option<bool>> {
    let mut found = BTreeMap::new();
    for line in sources.lines() {
        let Some((before, after)) = line.split_once("Feature = \"") else { continue };
        let Some(constant) = before.split_whitespace().find(|word| *word != "const") else { continue };
        let Some(name) = after.split('"').next().filter(|_| before.split_whitespace().count() <= 3) else { continue };
        found.insert(name.to_owned(), locked(sources, constant));
    }
    found
}

fn locked(sources: &str, constant: &str) -> Option<bool> {
    let key = format!("{constant}:");
    let mut last = None;
    for (at, _) in sources.match_indices(&key) {
        if !sources[..at].ends_with(['\t', '.']) {
            continue;
        }
        let rest = sources[at + key.len()..].trim_start();
        if !rest.starts_with('{') {
            continue;
        }
        let first = rest.lines().next().unwrap_or_default();
        // Elsewhere the same gates are listed with what they depend on.
        if first.trim_end() != "{" && !first.contains("Default:") {
            continue;
        }
        let whole = if first.contains("Default:") { first } else { rest.split("\n\t}").next().unwrap_or_default() };
        last = whole.lines().rfind(|line| line.contains("Default:")).or(last);
    }
    let line = last?;
    line.contains("LockToDefault: true").then(|| line.contains("Default: true,"))
}

/// Every text in quotes.
fn quoted(source: &str) -> impl Iterator<Item = &str> {
    source.lines().flat_map(|line| line.split('"').skip(1).step_by(2))
}

fn is_flag_name(text: &str) -> bool {
    let words = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    words && text.starts_with(|first: char| first.is_ascii_lowercase()) && !text.ends_with('-')
}

/// The names of flags that are defined: the first text in a call such as `fs.StringVar(&x, "name", …)`.
fn flags(source: &str) -> impl Iterator<Item = &str> {
    let sets = ["fs.", "flags.", "flagSet.", "flagset.", "globalflags.", "local.", "pfs."];
    source.lines().filter_map(move |line| {
        let line = line.trim_start();
        let call = sets.iter().find_map(|set| line.strip_prefix(set))?;
        let (method, arguments) = call.split_once('(')?;
        let defines = method.contains("Var") || ["Bool", "String", "Duration", "Int", "Float"].contains(&method);
        let name = arguments.split('"').nth(1)?;
        (defines && name.contains('-') && is_flag_name(name)).then_some(name)
    })
}

/// The admission plugins that an API server registers, by their names.
fn admission_plugins(kubernetes: &Path, of_apiserver: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for folder in [&kubernetes.join("plugin/pkg/admission"), of_apiserver] {
        for file in go_files(folder)? {
            let source = std::fs::read_to_string(file)?;
            let named = |line: &str| {
                let line = line.trim().trim_start_matches("const ");
                line.strip_prefix("PluginName")?.trim_start().strip_prefix('=')?.split('"').nth(1).map(str::to_owned)
            };
            found.extend(source.lines().filter_map(named));
        }
    }
    ensure!(found.len() > 20, "only {} admission plugins were found", found.len());
    Ok(found)
}

/// The versions of APIs that an API server can be told to serve.
fn api_versions(root: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for group in folders(root)? {
        for version in folders(&group)? {
            let name = version.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let Ok(register) = std::fs::read_to_string(version.join("register.go")) else { continue };
            let line = register.lines().find(|line| line.contains("GroupName") && line.contains('"'));
            if let Some(group) = line.and_then(|line| line.split('"').nth(1)).filter(|_| name.starts_with('v')) {
                found.insert(format!("{group}/{name}"));
            }
        }
    }
    ensure!(found.len() > 30, "only {} API versions were found", found.len());
    Ok(found)
}

fn compare(releases: &[(String, Known)]) -> Result<Table> {
    let (Some((oldest, _)), Some((newest, _))) = (releases.first(), releases.last()) else { bail!("no releases") };
    let mut gates: BTreeMap<String, Gate> = BTreeMap::new();
    let mut gone = BTreeSet::new();
    for (index, (minor, known)) in releases.iter().enumerate() {
        for (name, locked) in &known.gates {
            let gate =
                gates.entry(name.clone()).or_insert_with(|| Gate { name: name.clone(), gone: None, locked: None });
            gate.gone = None;
            match (locked, &gate.locked) {
                (Some(value), Some((_, before))) if value == before => {}
                (Some(value), _) => gate.locked = Some((minor.clone(), *value)),
                (None, _) => gate.locked = None,
            }
        }
        let Some((_, before)) = index.checked_sub(1).map(|index| &releases[index]) else { continue };
        for name in before.gates.keys().filter(|name| !known.gates.contains_key(*name)) {
            if let Some(gate) = gates.get_mut(name) {
                gate.gone = Some(minor.clone());
            }
        }
        for (component, what, name) in before.names.difference(&known.names) {
            let is_still_there = *what == "flag" && known.texts[component].contains(name);
            if !is_still_there {
                gone.insert(Gone { component, what, name: name.clone(), gone: minor.clone() });
            }
        }
    }
    let gates = gates.into_values().collect();
    Ok(Table { oldest: oldest.clone(), newest: newest.clone(), gates, gone: gone.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_read_with_what_they_are_locked_to() {
        let source = "const (\n\tA featuregate.Feature = \"A\"\n\tB featuregate.Feature = \"Bee\"\n\tC featuregate.Feature = \"C\"\n)\nvar x = map{\n\tA: {Default: true, PreRelease: featuregate.GA, LockToDefault: true}, // c\n\tB: {\n\t\t{Version: version.MustParse(\"1.1\"), Default: false, PreRelease: featuregate.Alpha},\n\t\t{Version: version.MustParse(\"1.2\"), Default: false, PreRelease: featuregate.Deprecated, LockToDefault: true},\n\t},\n\tC: {Default: true, PreRelease: featuregate.Beta},\n}\nvar dependencies = x{\n\tA: {},\n\tB: {A},\n}\n";
        let found = gates(source);
        assert_eq!(found["A"], Some(true));
        assert_eq!(found["Bee"], Some(false));
        assert_eq!(found["C"], None);
    }

    #[test]
    fn what_a_newer_release_does_not_have_is_gone_and_what_came_back_is_not() {
        let known = |gates: &[&str], flags: &[&str], texts: &[&str]| Known {
            gates: gates.iter().map(|name| ((*name).to_owned(), None)).collect(),
            names: flags.iter().map(|name| ("kubelet", "flag", (*name).to_owned())).collect(),
            texts: [("kubelet", texts.iter().map(|text| (*text).to_owned()).collect())].into(),
        };
        let releases = [
            ("1.1".to_owned(), known(&["A", "B"], &["x-y", "z-z"], &[])),
            ("1.2".to_owned(), known(&["B"], &[], &["z-z"])),
            ("1.3".to_owned(), known(&["A", "B"], &[], &[])),
        ];
        let table = compare(&releases).unwrap();
        assert!(table.gates.iter().all(|gate| gate.gone.is_none()));
        let gone: Vec<_> = table.gone.iter().map(|one| (one.name.as_str(), one.gone.as_str())).collect();
        assert_eq!(gone, [("x-y", "1.2")]);
        assert_eq!(flags("\tfs.StringVar(&o.X, \"pod-infra\", o.X, \"says\")\n").collect::<Vec<_>>(), ["pod-infra"]);
    }
}
