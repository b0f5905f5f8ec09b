//! Which version of which kind Kubernetes serves from when to when, and what takes its place.
//!
//! The table is made by `cargo xtask lifecycle` from Kubernetes' own sources. It must never present a date after the
//! newest release that it knows as a fact, and never recommend a version that the target does not serve.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;
use shiplock_core::version::MinorVersion;

/// The table that is compiled in.
static SHIPPED: LazyLock<Table> = LazyLock::new(|| {
    let stored: Stored = serde_json::from_str(include_str!("../data/api-lifecycle.json")).expect("a test reads it");
    Table::index(stored)
});

#[derive(Deserialize)]
struct Stored {
    newest_release: MinorVersion,
    #[serde(borrow)]
    kinds: Vec<KindLifecycle<'static>>,
}

/// The life of one kind in one version.
#[derive(Clone, Debug, Deserialize)]
pub struct KindLifecycle<'a> {
    /// The group; empty for the core group.
    pub group: &'a str,
    /// The version, such as `v1beta1`.
    pub version: &'a str,
    /// The kind.
    pub kind: &'a str,
    /// How objects of it come to be.
    pub category: Category,
    /// The plural name in paths; none where there is no such path.
    pub resource: Option<&'a str>,
    /// Whether its objects are in namespaces.
    pub namespaced: Option<bool>,
    /// The first minor that has it; none where that is before all records.
    pub introduced: Option<MinorVersion>,
    /// The first minor that calls it deprecated.
    pub deprecated: Option<MinorVersion>,
    /// The first minor that does not serve it any more.
    pub removed: Option<MinorVersion>,
    /// What upstream names as its replacement: `apps/v1 Deployment`.
    pub replacement: Option<&'a str>,
}

/// How objects of a kind come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// Stored, listed and watched.
    Resource,
    /// Answered on creation and never stored, such as a review.
    Virtual,
    /// A part of another resource.
    Subresource,
    /// The body of a request or of a file.
    Payload,
}

/// What a kind is at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Served, and not called deprecated.
    Served,
    /// Served, called deprecated since then; removed in a later release if one is declared.
    Deprecated {
        /// The first minor that calls it deprecated.
        since: MinorVersion,
        /// The minor that will not serve it, as declared; a plan where it is after the newest release.
        removed: Option<MinorVersion>,
    },
    /// Not served any more.
    Removed {
        /// The first minor that does not serve it.
        since: MinorVersion,
    },
}

/// What takes the place of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Successor {
    /// `apps/v1`
    pub api_version: String,
    /// `Deployment`
    pub kind: String,
    /// The first minor that serves it; none where that is before all records.
    pub served_from: Option<MinorVersion>,
}

/// The table, indexed.
#[derive(Debug)]
pub struct Table {
    /// The newest release that the table knows; nothing is known of targets after it.
    pub newest_release: MinorVersion,
    kinds: Vec<KindLifecycle<'static>>,
    /// From kind to the positions of its versions.
    by_kind: HashMap<&'static str, Vec<usize>>,
}

impl Table {
    /// The table that is compiled in.
    pub fn shipped() -> &'static Self {
        &SHIPPED
    }

    fn index(stored: Stored) -> Self {
        let mut by_kind: HashMap<&'static str, Vec<usize>> = HashMap::new();
        for (position, kind) in stored.kinds.iter().enumerate() {
            by_kind.entry(kind.kind).or_default().push(position);
        }
        Self { newest_release: stored.newest_release, kinds: stored.kinds, by_kind }
    }

    /// All kinds, by group, version and kind.
    pub fn kinds(&self) -> &[KindLifecycle<'static>] {
        &self.kinds
    }

    /// The life of a kind; none for kinds that are not Kubernetes' own.
    pub fn find(&self, api_version: &str, kind: &str) -> Option<&KindLifecycle<'static>> {
        let (group, version) = split(api_version);
        self.versions(kind).find(|found| found.version == version && found.group == group)
    }

    /// Whether any version of Kubernetes has a kind of this name.
    pub fn has_kind(&self, kind: &str) -> bool {
        self.by_kind.contains_key(kind)
    }

    /// Whether a kind is none that Kubernetes ever had, of one of its own groups and of a version of which the target
    /// serves nothing. Not of the core group: other tools have versions without a group.
    pub fn is_dead(&self, api_version: &str, kind: &str, target: MinorVersion) -> bool {
        let (group, version) = split(api_version);
        if group.is_empty() || !is_own_group(group) || self.find(api_version, kind).is_some() {
            return false;
        }
        let mut own = self.kinds.iter().filter(|found| found.group == group).peekable();
        let is_served = |found: &KindLifecycle<'_>| {
            found.version == version && !matches!(found.standing(target), Standing::Removed { .. })
        };
        own.peek().is_some() && !own.any(is_served)
    }

    /// The life of a resource by its plural name.
    pub fn find_resource(&self, group: &str, version: &str, resource: &str) -> Option<&KindLifecycle<'static>> {
        let same = |kind: &&KindLifecycle<'static>| {
            kind.group == group && kind.version == version && kind.resource == Some(resource)
        };
        self.kinds.iter().find(same)
    }

    fn versions(&self, kind: &str) -> impl Iterator<Item = &KindLifecycle<'static>> {
        self.by_kind.get(kind).into_iter().flatten().map(|position| &self.kinds[*position])
    }

    /// What takes the place of a kind at a target: the surviving end of the chain of replacements, else the best other
    /// version of the same kind. None where nothing that the target serves does: what goes away sooner than the kind, or
    /// is less mature, is no way out of it.
    pub fn successor(&self, of: &KindLifecycle<'_>, target: MinorVersion) -> Option<Successor> {
        let mut candidates: Vec<&KindLifecycle<'static>> = Vec::new();
        let mut next = of.replacement;
        while let Some((api_version, kind)) = next.and_then(|text| text.split_once(' ')) {
            let Some(found) = self.find(api_version, kind) else { break };
            if candidates.iter().any(|seen| std::ptr::eq(*seen, found)) {
                break;
            }
            candidates.push(found);
            next = found.replacement;
        }
        let (group, kind) = candidates.last().map_or((of.group, of.kind), |last| (last.group, last.kind));
        candidates.extend(self.versions(kind).filter(|other| other.group == group));
        let outlives = |found: &KindLifecycle<'_>| {
            found.removed.is_none_or(|removed| of.removed.is_some_and(|sooner| sooner <= removed))
        };
        let fits = |found: &&KindLifecycle<'static>| {
            (found.group != of.group || found.version != of.version)
                && found.introduced.is_none_or(|introduced| introduced <= target)
                && !matches!(found.standing(target), Standing::Removed { .. })
                && outlives(found)
                && version_rank(found.version) >= version_rank(of.version)
        };
        let best = candidates.into_iter().filter(fits).max_by_key(|found| found.rank(target))?;
        Some(Successor { api_version: best.api_version(), kind: best.kind.to_owned(), served_from: best.introduced })
    }
}

impl KindLifecycle<'_> {
    /// `apps/v1`, or `v1` in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// What this kind is at a target.
    pub fn standing(&self, target: MinorVersion) -> Standing {
        match (self.removed, self.deprecated) {
            (Some(since), _) if since <= target => Standing::Removed { since },
            (removed, Some(since)) if since <= target => Standing::Deprecated { since, removed },
            _ => Standing::Served,
        }
    }

    /// How well a version is recommended at a target: not deprecated first, then stability, then the newest.
    fn rank(&self, target: MinorVersion) -> (bool, u8, u32, u32) {
        let (stability, major, minor) = version_rank(self.version);
        (self.standing(target) == Standing::Served, stability, major, minor)
    }
}

/// `v1` before `v2beta1` before `v1alpha1`: stability, then the numbers.
fn version_rank(version: &str) -> (u8, u32, u32) {
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    let rest = version.strip_prefix('v').unwrap_or(version);
    let major = digits(rest);
    match (rest.split_once("beta"), rest.split_once("alpha")) {
        (Some((_, minor)), _) => (1, major, digits(minor)),
        (_, Some((_, minor))) => (0, major, digits(minor)),
        _ => (2, major, 0),
    }
}

/// Whether no other project may have a group of this name. Source: `validateCustomResourceDefinitionSpec` of
/// k8s.io/apiextensions-apiserver asks for a dot; names under `k8s.io` are given by Kubernetes.
pub fn is_own_group(group: &str) -> bool {
    !group.contains('.') || group.ends_with(".k8s.io")
}

/// Group and version of an `apiVersion`.
pub fn split(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minor(minor: u32) -> MinorVersion {
        MinorVersion { major: 1, minor }
    }

    #[test]
    fn what_is_recommended_is_served_by_the_target_and_follows_the_whole_chain() {
        let table = Table::shipped();
        for (api_version, kind, target, expected) in [
            ("flowcontrol.apiserver.k8s.io/v1beta1", "FlowSchema", 27, "flowcontrol.apiserver.k8s.io/v1beta3"),
            ("flowcontrol.apiserver.k8s.io/v1beta1", "FlowSchema", 32, "flowcontrol.apiserver.k8s.io/v1"),
            ("extensions/v1beta1", "Ingress", 16, "networking.k8s.io/v1beta1"),
            ("extensions/v1beta1", "Ingress", 22, "networking.k8s.io/v1"),
            ("networking.k8s.io/v1beta1", "IngressClass", 22, "networking.k8s.io/v1"),
            ("extensions/v1beta1", "PodSecurityPolicy", 16, "policy/v1beta1"),
            ("extensions/v1beta1", "PodSecurityPolicy", 25, ""),
            ("policy/v1beta1", "PodSecurityPolicy", 25, ""),
            ("certificates.k8s.io/v1alpha1", "PodCertificateRequest", 35, "certificates.k8s.io/v1beta1"),
            ("certificates.k8s.io/v1alpha1", "PodCertificateRequest", 37, "certificates.k8s.io/v1"),
            ("storage.k8s.io/v1beta1", "VolumeAttributesClass", 37, "storage.k8s.io/v1"),
            ("v1", "ComponentStatus", 37, ""),
            ("coordination.k8s.io/v1alpha2", "LeaseCandidate", 37, "coordination.k8s.io/v1beta1"),
            ("coordination.k8s.io/v1beta1", "LeaseCandidate", 37, ""),
            ("v1", "Endpoints", 37, "discovery.k8s.io/v1"),
        ] {
            let life = table.find(api_version, kind).unwrap();
            let found = table.successor(life, minor(target)).map(|found| found.api_version).unwrap_or_default();
            assert_eq!(found, expected, "{api_version} {kind} at 1.{target}");
        }
    }

    #[test]
    fn nothing_is_ever_recommended_that_the_target_does_not_serve() {
        let table = Table::shipped();
        for life in table.kinds() {
            for target in (8..=table.newest_release.minor).map(minor) {
                let Some(successor) = table.successor(life, target) else { continue };
                let found = table.find(&successor.api_version, &successor.kind).unwrap();
                assert!(found.introduced.is_none_or(|introduced| introduced <= target), "{life:?} at {target}");
                assert!(!matches!(found.standing(target), Standing::Removed { .. }), "{life:?} at {target}");
            }
        }
    }

    #[test]
    fn no_advice_leads_to_what_goes_sooner_or_is_less_mature_and_none_leads_back() {
        let table = Table::shipped();
        for life in table.kinds() {
            for target in (8..=table.newest_release.minor).map(minor) {
                let (mut from, mut seen) = (life, vec![life.api_version()]);
                while let Some(advised) = table.successor(from, target) {
                    let next = table.find(&advised.api_version, &advised.kind).unwrap();
                    let goes = |life: &KindLifecycle<'_>| life.removed.unwrap_or(minor(u32::MAX));
                    assert!(goes(next) >= goes(from), "{from:?} to {next:?} at {target}");
                    assert!(
                        version_rank(next.version) >= version_rank(from.version),
                        "{from:?} to {next:?} at {target}"
                    );
                    assert!(next.rank(target) >= from.rank(target), "{from:?} to {next:?} at {target}");
                    assert!(!seen.contains(&advised.api_version), "{seen:?} to {next:?} at {target}");
                    seen.push(advised.api_version);
                    from = next;
                }
            }
        }
    }

    #[test]
    fn the_table_knows_what_other_tables_miss() {
        let table = Table::shipped();
        assert_eq!(table.newest_release, minor(37));
        assert!(table.kinds().len() > 200);
        for (api_version, kind, removed) in [
            ("autoscaling/v2beta2", "HorizontalPodAutoscaler", 26),
            ("policy/v1beta1", "PodSecurityPolicy", 25),
            ("authentication.k8s.io/v1beta1", "SelfSubjectReview", 33),
            ("admissionregistration.k8s.io/v1beta1", "ValidatingAdmissionPolicyBinding", 34),
            ("coordination.k8s.io/v1alpha1", "LeaseCandidate", 32),
            ("storage.k8s.io/v1beta1", "VolumeAttributesClass", 37),
            ("scheduling.k8s.io/v1alpha2", "Workload", 37),
        ] {
            let life = table.find(api_version, kind).unwrap();
            assert_eq!(life.standing(minor(removed)), Standing::Removed { since: minor(removed) }, "{kind}");
            assert!(!matches!(life.standing(minor(removed - 1)), Standing::Removed { .. }), "{kind}");
        }
        assert!(table.find("example.com/v1beta1", "Ingress").is_none());
    }
}
