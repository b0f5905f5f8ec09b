//! What components of Kubernetes refuse to start with: feature gates, flags, admission plugins and API versions that
//! their release does not know.
//!
//! The table is made by `cargo xtask lifecycle --components` from Kubernetes' own sources. What went before the oldest
//! release that it compares is listed here by hand.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde::Deserialize;
use shiplock_core::version::MinorVersion;

static SHIPPED: LazyLock<Components> = LazyLock::new(|| {
    let stored: Stored = serde_json::from_str(include_str!("../data/components.json")).expect("a test reads it");
    let gates = stored.gates.into_iter().map(|gate| (gate.name, gate)).collect();
    Components { oldest: stored.oldest, newest: stored.newest, gates, gone: stored.gone }
});

/// What went before the oldest release of the table: component, what, name, the minor without it. Sources: the
/// changelogs of 1.24, 1.25 and 1.27.
const OLDER: &[(&str, &str, &str, u32)] = &[
    ("kube-apiserver", "flag", "insecure-port", 24),
    ("kube-apiserver", "flag", "insecure-bind-address", 24),
    ("kube-apiserver", "plugin", "PodSecurityPolicy", 25),
    ("kube-controller-manager", "flag", "pod-eviction-timeout", 27),
    ("kube-controller-manager", "flag", "enable-taint-manager", 27),
    ("kubelet", "flag", "container-runtime", 27),
    ("kubelet", "flag", "network-plugin", 24),
];

#[derive(Deserialize)]
struct Stored {
    oldest: MinorVersion,
    newest: MinorVersion,
    #[serde(borrow)]
    gates: Vec<Gate<'static>>,
    #[serde(borrow)]
    gone: Vec<Gone<'static>>,
}

#[derive(Debug, Deserialize)]
struct Gate<'a> {
    name: &'a str,
    gone: Option<MinorVersion>,
    locked: Option<(MinorVersion, bool)>,
}

#[derive(Debug, Deserialize)]
struct Gone<'a> {
    component: &'a str,
    what: &'a str,
    name: &'a str,
    gone: MinorVersion,
}

/// The table.
#[derive(Debug)]
pub struct Components {
    oldest: MinorVersion,
    newest: MinorVersion,
    gates: BTreeMap<&'static str, Gate<'static>>,
    gone: Vec<Gone<'static>>,
}

/// What a release makes of a feature gate that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateFate {
    /// It takes it.
    Taken,
    /// It does not know it, from this minor on.
    Gone(MinorVersion),
    /// It can only have the other value, from this minor on.
    Locked(MinorVersion),
    /// No release that the table compares has it.
    Unheard,
}

impl Components {
    /// The table that is compiled in.
    pub fn shipped() -> &'static Self {
        &SHIPPED
    }

    /// The oldest and newest minor whose sources were compared.
    pub fn span(&self) -> (MinorVersion, MinorVersion) {
        (self.oldest, self.newest)
    }

    /// What a minor makes of a feature gate with a value.
    pub fn gate(&self, name: &str, value: bool, target: MinorVersion) -> GateFate {
        // Groups of gates.
        if matches!(name, "AllAlpha" | "AllBeta") {
            return GateFate::Taken;
        }
        let Some(gate) = self.gates.get(name) else { return GateFate::Unheard };
        match (gate.gone, gate.locked) {
            (Some(gone), _) if gone <= target => GateFate::Gone(gone),
            (_, Some((since, locked))) if since <= target && locked != value => GateFate::Locked(since),
            _ => GateFate::Taken,
        }
    }

    /// From which minor on a component does not know a `flag`, `plugin` or `version`, if that is so at a target.
    pub fn gone(&self, component: &str, what: &str, name: &str, target: MinorVersion) -> Option<MinorVersion> {
        let older = OLDER.iter().filter(|(of, kind, known, _)| (*of, *kind, *known) == (component, what, name));
        let older = older.map(|(.., minor)| MinorVersion { major: 1, minor: *minor });
        let newer = self.gone.iter().filter(|one| (one.component, one.what, one.name) == (component, what, name));
        older.chain(newer.map(|one| one.gone)).min().filter(|gone| *gone <= target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minor(minor: u32) -> MinorVersion {
        MinorVersion { major: 1, minor }
    }

    #[test]
    fn gates_and_flags_that_left_are_known_with_the_release_that_lost_them() {
        let table = Components::shipped();
        assert_eq!(table.span(), (minor(29), minor(37)));
        assert_eq!(table.gate("SidecarContainers", true, minor(37)), GateFate::Gone(minor(37)));
        assert_eq!(table.gate("SidecarContainers", true, minor(36)), GateFate::Taken);
        assert_eq!(table.gate("NoSuchGate", true, minor(37)), GateFate::Unheard);
        assert_eq!(table.gate("AllAlpha", false, minor(37)), GateFate::Taken);
        assert!(matches!(table.gate("SidecarContainers", false, minor(36)), GateFate::Locked(_)));
        let gone = |component, what, name, target| table.gone(component, what, name, minor(target));
        assert_eq!(gone("kubelet", "flag", "pod-infra-container-image", 35), Some(minor(35)));
        assert_eq!(gone("kubelet", "flag", "pod-infra-container-image", 34), None);
        assert_eq!(gone("kube-apiserver", "plugin", "PodSecurityPolicy", 25), Some(minor(25)));
        assert_eq!(gone("kube-apiserver", "plugin", "SecurityContextDeny", 30), Some(minor(30)));
        assert_eq!(gone("kube-apiserver", "flag", "etcd-servers", 37), None);
        assert_eq!(gone("kube-apiserver", "version", "scheduling.k8s.io/v1alpha2", 37), Some(minor(37)));
    }
}
