//! The version catalogue: which versions exist, what goes with them and which may follow which.
//!
//! It is data: the shipped one is compiled in ([`Catalogue::shipped`]) and a file can replace it. An edge is
//! declared, never computed: a vendor may declare a hop across a minor that upstream does not have.

use std::collections::{BTreeMap, VecDeque};

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::artefact::ArtefactIndex;
use crate::problem::{Code, Problem};
use crate::version::{KubernetesVersion, MinorVersion};

/// The catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// Names the edition, shown in plans.
    pub edition: String,
    /// The minors, oldest first.
    pub releases: Vec<Release>,
    /// How many minors a kubelet may be older than an API server, by the kubelet's minor.
    /// See <https://kubernetes.io/releases/version-skew-policy/#kubelet>.
    pub kubelet_skew: Vec<KubeletSkew>,
}

/// One minor release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// The minor.
    pub minor: MinorVersion,
    /// The day of the first release.
    pub released: Option<Date>,
    /// The last day of support.
    pub end_of_support: Option<Date>,
    /// The known patches, oldest first.
    pub patches: Vec<u32>,
    /// The minors that a cluster of this minor may go to. A newer patch of the same minor is always allowed.
    pub upgrades_to: Vec<MinorVersion>,
    /// The versions of what goes with it.
    pub components: Components,
}

/// What kubeadm of a minor installs beside Kubernetes itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Components {
    /// etcd, such as `3.6.8`.
    pub etcd: String,
    /// CoreDNS, such as `1.14.2`.
    pub coredns: String,
    /// pause, such as `3.10.2`.
    pub pause: String,
}

/// One line of the kubelet skew rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubeletSkew {
    /// From this kubelet minor on …
    pub from_kubelet: MinorVersion,
    /// … a kubelet may be this many minors older than an API server.
    pub minors_older_max: u32,
}

/// One edge of the upgrade graph, taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hop {
    /// Where it begins.
    pub from: KubernetesVersion,
    /// Where it ends.
    pub to: KubernetesVersion,
}

/// A version as an operator asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum VersionRequest {
    /// Exactly this one.
    Exact(KubernetesVersion),
    /// The newest patch of a minor.
    Newest(MinorVersion),
}

impl VersionRequest {
    /// Reads `1.36` or `v1.36.3`.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        text.parse()
            .map(Self::Exact)
            .or_else(|_| text.parse().map(Self::Newest))
            .map_err(|_| Problem::new(Code::NotAVersion).with("text", text.chars().take(64).collect::<String>()))
    }
}

/// As many minors as upstream patches at a time: <https://kubernetes.io/releases/>.
const CREATABLE_MINORS: usize = 3;

impl Catalogue {
    /// The catalogue that is compiled in.
    ///
    /// # Panics
    /// Never: a test reads it.
    pub fn shipped() -> Self {
        serde_json::from_str(include_str!("../data/catalogue.json")).expect("the shipped catalogue is tested")
    }

    /// Reads a catalogue from a file's text.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let bad = |why: String| {
            Problem::new(Code::BadOption).with("option", "--catalogue").with("value", "FILE").with("why", why)
        };
        let catalogue: Self = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        for release in &catalogue.releases {
            if release.patches.is_empty() || !release.patches.is_sorted() {
                return Err(bad(format!("the patches of {} are empty or not in order", release.minor)));
            }
            if let Some(backwards) = release.upgrades_to.iter().find(|to| **to <= release.minor) {
                return Err(bad(format!("the edge {} to {backwards} does not lead to a newer version", release.minor)));
            }
        }
        Ok(catalogue)
    }

    /// The release of a minor.
    pub fn release(&self, minor: MinorVersion) -> Option<&Release> {
        self.releases.iter().find(|release| release.minor == minor)
    }

    /// The minors that a new cluster is best made with: the newest ones, newest first. Older ones can be upgraded still.
    pub fn creatable(&self) -> impl Iterator<Item = MinorVersion> {
        self.releases.iter().rev().take(CREATABLE_MINORS).map(|release| release.minor)
    }

    /// Turns a request into a version of the catalogue. `at_least` bounds the choice of a newest patch from below,
    /// for a cluster that runs a patch which the catalogue does not know yet.
    pub fn resolve(&self, request: VersionRequest) -> Result<KubernetesVersion, Problem> {
        let (minor, exact) = match request {
            VersionRequest::Exact(version) => (version.release, Some(version.patch)),
            VersionRequest::Newest(minor) => (minor, None),
        };
        self.release(minor)
            .and_then(|release| match exact {
                Some(patch) => release.patches.contains(&patch).then_some(patch),
                None => release.patches.last().copied(),
            })
            .map(|patch| KubernetesVersion { release: minor, patch })
            .ok_or_else(|| {
                let asked = exact
                    .map_or_else(|| minor.to_string(), |patch| KubernetesVersion { release: minor, patch }.to_string());
                Problem::new(Code::VersionNotInCatalogue).with("version", asked).with("known", self.known())
            })
    }

    /// The newest patch of a minor that the catalogue knows and the mirror holds; none where the mirror holds none.
    pub fn newest_held(&self, minor: MinorVersion, held: &ArtefactIndex) -> Option<KubernetesVersion> {
        let patches = self.release(minor)?.patches.iter().rev();
        patches.map(|patch| KubernetesVersion { release: minor, patch: *patch }).find(|version| held.holds(*version))
    }

    /// The newest patch of a minor that can be installed: the catalogue may know newer ones than the mirror holds. Where the
    /// mirror holds none, the newest that is known, so that what is missing can be named.
    pub fn newest_installable(&self, minor: MinorVersion, held: &ArtefactIndex) -> Result<KubernetesVersion, Problem> {
        let newest = self.resolve(VersionRequest::Newest(minor))?;
        Ok(self.newest_held(minor, held).unwrap_or(newest))
    }

    /// The versions held, for messages: `1.34 (.0–.8), 1.35 (…)`.
    fn known(&self) -> String {
        let one = |release: &Release| match (release.patches.first(), release.patches.last()) {
            (Some(first), Some(last)) => format!("{0}.{first} … {0}.{last}", release.minor),
            _ => release.minor.to_string(),
        };
        self.releases.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// The hops from one version to another, along declared edges only.
    ///
    /// Intermediate stops are the newest patch of their minor that can be installed. An empty list means that both are equal.
    pub fn hops(
        &self,
        from: KubernetesVersion,
        to: KubernetesVersion,
        held: &ArtefactIndex,
    ) -> Result<Vec<Hop>, Problem> {
        if to < from {
            return Err(Problem::new(Code::Downgrade).with("subject", "the cluster").with("from", from).with("to", to));
        }
        if to == from {
            return Ok(Vec::new());
        }
        if to.release == from.release {
            return Ok(vec![Hop { from, to }]);
        }
        let no_way =
            || Problem::new(Code::NoEdge).with("from", from).with("to", to).with("path", "none").with("next", "?");
        // Breadth first, so that the shortest declared way is taken.
        let mut came_from: BTreeMap<MinorVersion, MinorVersion> = BTreeMap::new();
        let mut queue = VecDeque::from([from.release]);
        while let Some(minor) = queue.pop_front() {
            let Some(release) = self.release(minor) else { continue };
            for next in release.upgrades_to.iter().filter(|next| **next <= to.release) {
                if *next != from.release && !came_from.contains_key(next) {
                    came_from.insert(*next, minor);
                    queue.push_back(*next);
                }
            }
        }
        let mut minors = vec![to.release];
        while let Some(previous) = minors.last().and_then(|minor| came_from.get(minor)) {
            minors.push(*previous);
        }
        minors.reverse();
        if minors.first() != Some(&from.release) {
            return Err(no_way());
        }
        let mut hops = Vec::new();
        let mut here = from;
        for minor in minors.into_iter().skip(1) {
            let there = if minor == to.release { to } else { self.newest_installable(minor, held)? };
            hops.push(Hop { from: here, to: there });
            here = there;
        }
        Ok(hops)
    }

    /// How many minors a kubelet of this minor may be older than an API server.
    pub fn kubelet_minors_older_max(&self, kubelet: MinorVersion) -> u32 {
        self.kubelet_skew
            .iter()
            .filter(|rule| rule.from_kubelet <= kubelet)
            .max_by_key(|rule| rule.from_kubelet)
            .map_or(0, |rule| rule.minors_older_max)
    }

    /// Whether a kubelet may talk to an API server.
    pub fn kubelet_skew_legal(&self, kubelet: KubernetesVersion, api_server: KubernetesVersion) -> bool {
        kubelet.release <= api_server.release
            && kubelet.release.minors_behind(api_server.release) <= self.kubelet_minors_older_max(kubelet.release)
    }

    /// The oldest minor that a cluster may have.
    pub fn oldest(&self) -> Option<MinorVersion> {
        self.releases.iter().map(|release| release.minor).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v(text: &str) -> KubernetesVersion {
        text.parse().unwrap()
    }

    fn mirror(held: &[&str]) -> ArtefactIndex {
        let release = |version: &&str| crate::artefact::ReleaseArtefacts {
            kubernetes: v(version),
            files: Vec::new(),
            images: Vec::new(),
        };
        ArtefactIndex { schema: crate::artefact::SCHEMA.to_owned(), releases: held.iter().map(release).collect() }
    }

    #[test]
    fn the_shipped_catalogue_reads_and_is_in_order() {
        let catalogue = Catalogue::shipped();
        assert_eq!(Catalogue::parse(include_str!("../data/catalogue.json")), Ok(catalogue.clone()));
        assert!(catalogue.releases.is_sorted_by_key(|release| release.minor));
        assert_eq!(catalogue.oldest(), Some(MinorVersion { major: 1, minor: 34 }));
    }

    #[test]
    fn two_minors_are_two_hops_along_the_newest_patch() {
        let hops = Catalogue::shipped().hops(v("v1.35.4"), v("v1.37.2"), &mirror(&[])).unwrap();
        assert_eq!(hops.len(), 2);
        assert_eq!((hops[0].from, hops[0].to.release.minor, hops[1].to), (v("v1.35.4"), 36, v("v1.37.2")));
    }

    #[test]
    fn a_stop_on_the_way_is_a_patch_that_the_mirror_holds() {
        let hops = Catalogue::shipped().hops(v("v1.35.4"), v("v1.37.2"), &mirror(&["v1.36.3"])).unwrap();
        assert_eq!(hops[0].to, v("v1.36.3"));
    }

    #[test]
    fn a_vendor_may_declare_a_hop_across_a_minor_and_it_is_taken() {
        let mut catalogue = Catalogue::shipped();
        catalogue.releases[0].upgrades_to = vec![MinorVersion { major: 1, minor: 36 }];
        let hops = catalogue.hops(v("v1.34.4"), v("v1.36.3"), &mirror(&[])).unwrap();
        assert_eq!(hops, vec![Hop { from: v("v1.34.4"), to: v("v1.36.3") }]);
        assert_eq!(catalogue.hops(v("v1.34.4"), v("v1.35.4"), &mirror(&[])).unwrap_err().code, Code::NoEdge);
    }

    #[test]
    fn no_hop_leads_back_or_out_of_the_catalogue() {
        let catalogue = Catalogue::shipped();
        assert_eq!(catalogue.hops(v("v1.36.3"), v("v1.35.4"), &mirror(&[])).unwrap_err().code, Code::Downgrade);
        assert_eq!(
            catalogue.resolve(VersionRequest::parse("1.99").unwrap()).unwrap_err().code,
            Code::VersionNotInCatalogue
        );
        assert_eq!(
            catalogue.resolve(VersionRequest::parse("v1.36.99").unwrap()).unwrap_err().code,
            Code::VersionNotInCatalogue
        );
    }

    #[test]
    fn a_kubelet_is_never_newer_and_at_most_three_minors_older() {
        let catalogue = Catalogue::shipped();
        for (kubelet, api_server, legal) in [
            ("v1.36.3", "v1.36.1", true),
            ("v1.36.0", "v1.35.9", false),
            ("v1.34.4", "v1.37.2", true),
            ("v1.33.0", "v1.37.2", false),
            ("v1.24.0", "v1.26.0", true),
            ("v1.24.0", "v1.27.0", false),
        ] {
            assert_eq!(catalogue.kubelet_skew_legal(v(kubelet), v(api_server)), legal, "{kubelet} {api_server}");
        }
    }

    #[test]
    fn a_catalogue_with_an_edge_backwards_is_refused() {
        let text = include_str!("../data/catalogue.json").replacen(
            r#""upgrades_to": ["1.35"]"#,
            r#""upgrades_to": ["1.33"]"#,
            1,
        );
        assert!(Catalogue::parse(&text).is_err());
        assert!(Catalogue::parse("{}").is_err());
    }

    proptest! {
        #[test]
        fn hops_form_an_unbroken_rising_way_of_declared_edges(from in 34u32..38, to in 34u32..38, a in 0u32..5, b in 0u32..5) {
            let catalogue = Catalogue::shipped();
            let (from, to) = (KubernetesVersion::new(1, from, a), KubernetesVersion::new(1, to, b));
            if let Ok(hops) = catalogue.hops(from, to, &mirror(&[])) {
                let mut here = from;
                for hop in &hops {
                    prop_assert_eq!(hop.from, here);
                    prop_assert!(hop.to > hop.from);
                    let declared = &catalogue.release(hop.from.release).unwrap().upgrades_to;
                    prop_assert!(hop.to.release == hop.from.release || declared.contains(&hop.to.release));
                    here = hop.to;
                }
                prop_assert_eq!(here, to);
            } else {
                prop_assert!(to < from);
            }
        }
    }
}
