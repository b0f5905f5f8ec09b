//! Holds every dependency against `deny.toml`: licences, banned crates, wildcards, sources.
//!
//! It reads what `cargo metadata` tells and needs neither network nor a further tool, see
//! docs/adr/0004-rules-of-dependencies.md. A key of `deny.toml` that is not known here is an error.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

/// What `cargo metadata` calls the public registry.
const PUBLIC_REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// The rules, in the form of cargo-deny.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    graph: Graph,
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Graph {
    targets: Vec<String>,
    all_features: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Bans {
    multiple_versions: Allowed,
    wildcards: Denied,
    allow_wildcard_paths: bool,
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sources {
    unknown_registry: Denied,
    unknown_git: Denied,
}

/// The one value that is implemented.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Allowed {
    Allow,
}

/// The one value that is implemented.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Denied {
    Deny,
}

/// What `cargo metadata` tells.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Clone, Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None for a package of the workspace.
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Clone, Debug, Deserialize)]
struct Dependency {
    name: String,
    req: String,
    /// None for a path.
    source: Option<String>,
}

/// Checks the whole workspace with all features, for every target that is shipped.
pub(super) fn check(workspace: &Path) -> Result<()> {
    let path = workspace.join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let rules: Rules = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let mut packages = BTreeMap::new();
    for target in &rules.graph.targets {
        for package in packages_for(target, rules.graph.all_features)? {
            packages.insert((package.name.clone(), package.version.clone()), package);
        }
    }
    let packages: Vec<Package> = packages.into_values().collect();
    let complaints = judge(&rules, &packages)?;
    ensure!(complaints.is_empty(), "deny.toml is not kept:\n  {}", complaints.join("\n  "));
    eprintln!("xtask: licences, bans and sources of {} packages hold", packages.len());
    Ok(())
}

fn packages_for(target: &str, all_features: bool) -> Result<Vec<Package>> {
    let mut command = super::cargo_command();
    command.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", target]);
    if all_features {
        command.arg("--all-features");
    }
    let output = command.output().context("cargo metadata cannot be started")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("what cargo metadata prints")?;
    Ok(metadata.packages)
}

/// Everything that breaks a rule, one line each.
fn judge(rules: &Rules, packages: &[Package]) -> Result<Vec<String>> {
    let Bans { multiple_versions: Allowed::Allow, wildcards: Denied::Deny, allow_wildcard_paths, deny } = &rules.bans;
    let Sources { unknown_registry: Denied::Deny, unknown_git: Denied::Deny } = &rules.sources;
    let allowed: Vec<Licensee> = rules
        .licenses
        .allow
        .iter()
        .map(|licence| Licensee::parse(licence).with_context(|| format!("licence {licence} of deny.toml")))
        .collect::<Result<_>>()?;
    let mut complaints = Vec::new();
    for package in packages {
        let name = format!("{} {}", package.name, package.version);
        if let Some(why) = licence_trouble(package.license.as_deref(), &allowed) {
            complaints.push(format!("{name}: {why}"));
        }
        if let Some(ban) = deny.iter().find(|ban| ban.name == package.name) {
            complaints.push(format!("{name} is banned: {}", ban.reason));
        }
        if let Some(source) = package.source.as_deref().filter(|source| *source != PUBLIC_REGISTRY) {
            complaints.push(format!("{name} comes from {source}"));
        }
        // What others wrote into their manifests is theirs; the lock file pins it.
        let wild = |used: &&Dependency| used.req == "*" && !(*allow_wildcard_paths && used.source.is_none());
        for used in package.dependencies.iter().filter(wild).filter(|_| package.source.is_none()) {
            complaints.push(format!("{name} takes any version of {}", used.name));
        }
    }
    Ok(complaints)
}

fn licence_trouble(licence: Option<&str>, allowed: &[Licensee]) -> Option<String> {
    let Some(licence) = licence else { return Some("it names no licence".to_owned()) };
    // Lax: older crates write `MIT/Apache-2.0`.
    let expression = match Expression::parse_mode(licence, ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("its licence `{licence}` cannot be read: {}", error.reason)),
    };
    let holds = expression.evaluate(|asked| allowed.iter().any(|licence| licence.satisfies(asked)));
    (!holds).then(|| format!("its licence `{licence}` is not allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        toml::from_str(include_str!("../../../deny.toml")).unwrap()
    }

    fn package(name: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: Some("MIT OR Apache-2.0".to_owned()),
            source: Some(PUBLIC_REGISTRY.to_owned()),
            dependencies: Vec::new(),
        }
    }

    #[test]
    fn licences_are_read_as_expressions_and_each_that_is_not_allowed_is_named() {
        for (licence, allowed) in [
            (Some("MIT"), true),
            (Some("MIT/Apache-2.0"), true),
            (Some("Apache-2.0 / MIT"), true),
            (Some("GPL-3.0-only OR MIT"), true),
            (Some("(MIT OR Apache-2.0) AND Unicode-3.0"), true),
            (Some("Apache-2.0 WITH LLVM-exception"), true),
            (Some("GPL-3.0-only"), false),
            (Some("MIT AND GPL-3.0-only"), false),
            (Some("Custom"), false),
            (Some(""), false),
            (None, false),
        ] {
            let found = judge(&rules(), &[Package { license: licence.map(str::to_owned), ..package("a") }]).unwrap();
            assert_eq!(found.is_empty(), allowed, "{licence:?}: {found:?}");
            assert!(found.iter().all(|line| line.starts_with("a 1.0.0: ")), "{found:?}");
        }
    }

    #[test]
    fn banned_crates_foreign_sources_and_wildcards_are_each_named() {
        let used = |req: &str, source: Option<&str>| Dependency {
            name: "b".to_owned(),
            req: req.to_owned(),
            source: source.map(str::to_owned),
        };
        let ours = |used| Package { source: None, dependencies: vec![used], ..package("ours") };
        let git = Some("git+https://example.org/a?rev=1#1".to_owned());
        let registry = Some("registry+https://example.org/index".to_owned());
        for (package, expected) in [
            (package("openssl-sys"), "is banned"),
            (Package { source: git, ..package("a") }, "comes from git+"),
            (Package { source: registry, ..package("a") }, "comes from registry+"),
            (ours(used("*", Some(PUBLIC_REGISTRY))), "takes any version of b"),
        ] {
            let found = judge(&rules(), &[package]).unwrap();
            assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
        }
        for package in [ours(used("*", None)), ours(used("^1", Some(PUBLIC_REGISTRY)))] {
            assert_eq!(judge(&rules(), &[package]).unwrap(), Vec::<String>::new());
        }
    }

    #[test]
    fn a_rule_that_is_not_known_here_is_an_error_and_no_silence() {
        let more = include_str!("../../../deny.toml").replace("[sources]", "[sources]\nallow-git = []");
        assert!(toml::from_str::<Rules>(&more).unwrap_err().to_string().contains("allow-git"));
    }
}
