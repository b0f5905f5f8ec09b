//! Helm releases: what the stored manifests hold, and what that means.
//!
//! Helm keeps each revision in a Secret or ConfigMap: JSON, packed with gzip, in base64. Only what identifies objects
//! is kept of it: values and rendered Secrets never leave this module.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::bufread::GzDecoder;
use serde::{Deserialize, Serialize};

use super::{Author, Usage, constraint, flagged, judge_one, succeeded_by};
use crate::lifecycle::Table;
use crate::manifest::{self, Object, Sink, Trouble};
use crate::question::Question;
use crate::report::{Evidence, Finding, Outcome, Subject};

/// No release unpacks to more; what does is no release that Helm could load.
const UNPACKED_BYTES_MAX: u64 = 128 << 20;
/// No release has more objects of flagged kinds.
const OBJECTS_MAX: usize = 20_000;

/// A revision, by the labels of its Secret or ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revision {
    /// The namespace.
    pub namespace: String,
    /// The name of the release.
    pub release: String,
    /// The number of the revision.
    pub revision: u64,
    /// Such as `deployed` or `failed`.
    pub status: String,
}

/// What is kept of a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Which one.
    #[serde(flatten)]
    pub id: Revision,
    /// The chart and its version.
    pub chart: String,
    /// The versions of Kubernetes that the chart asks for.
    pub kube_version: Option<String>,
    /// The objects whose version some release of Kubernetes deprecates or removes.
    pub objects: Vec<ReleaseObject>,
    /// Why it cannot be read, or not all of it, if so.
    pub unreadable: Option<String>,
    /// The UID and the resource version of what it was read from: as long as both are the same, so is the release.
    #[serde(default)]
    pub origin: (String, String),
}

/// An object in a release's manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReleaseObject {
    /// The version.
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The namespace; empty where the manifest leaves it to the release.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Release {
    /// A revision of which nothing can be read, and why.
    pub fn unreadable(id: Revision, why: String) -> Self {
        let (chart, kube_version, objects, origin) = Default::default();
        Self { id, chart, kube_version, objects, unreadable: Some(why), origin }
    }
}

#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(borrow, default)]
    manifest: Cow<'a, str>,
    #[serde(borrow, default)]
    hooks: Option<Vec<Hook<'a>>>,
    #[serde(borrow)]
    chart: Option<Chart<'a>>,
}

#[derive(Deserialize)]
struct Hook<'a> {
    #[serde(borrow, default)]
    manifest: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Chart<'a> {
    #[serde(borrow)]
    metadata: Option<ChartMetadata<'a>>,
}

#[derive(Deserialize)]
struct ChartMetadata<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Cow<'a, str>,
    #[serde(borrow, default, rename = "kubeVersion")]
    kube_version: Option<Cow<'a, str>>,
}

/// Reads releases one after the other, with buffers that are used again.
#[derive(Debug, Default)]
pub struct Reader {
    packed: Vec<u8>,
    unpacked: Vec<u8>,
}

impl Reader {
    /// Reads what Helm stored: `payload` is the text of a ConfigMap, or of a Secret after one base64 is taken off.
    pub fn read(&mut self, id: Revision, payload: &[u8]) -> Release {
        let outcome = self.unpack(payload).and_then(|()| interpret(&self.unpacked));
        // One large release must not keep its memory for all that follow.
        for buffer in [&mut self.packed, &mut self.unpacked] {
            buffer.clear();
            buffer.shrink_to(4 << 20);
        }
        match outcome {
            Ok((chart, kube_version, objects, unreadable)) => {
                Release { id, chart, kube_version, objects, unreadable, origin: Default::default() }
            }
            Err(why) => Release::unreadable(id, why),
        }
    }

    fn unpack(&mut self, payload: &[u8]) -> Result<(), String> {
        self.packed.clear();
        self.unpacked.clear();
        STANDARD.decode_vec(payload.trim_ascii(), &mut self.packed).map_err(|_| "it is not base64".to_owned())?;
        if !self.packed.starts_with(&[0x1F, 0x8B]) {
            // Helm reads plain JSON too.
            std::mem::swap(&mut self.packed, &mut self.unpacked);
            return Ok(());
        }
        let mut decoder = GzDecoder::new(self.packed.as_slice()).take(UNPACKED_BYTES_MAX + 1);
        decoder.read_to_end(&mut self.unpacked).map_err(|error| format!("it cannot be unpacked: {error}"))?;
        if self.unpacked.len() as u64 > UNPACKED_BYTES_MAX {
            return Err(format!("it unpacks to more than {UNPACKED_BYTES_MAX} bytes"));
        }
        Ok(())
    }
}

/// The chart, its `kubeVersion`, the objects, and what of the manifest cannot be read.
type Interpreted = (String, Option<String>, Vec<ReleaseObject>, Option<String>);

fn interpret(json: &[u8]) -> Result<Interpreted, String> {
    // The parser's message could quote what is secret; its place does not.
    let stored: Stored<'_> = serde_json::from_slice(json)
        .map_err(|error| format!("it is not a release: line {}, column {}", error.line(), error.column()))?;
    let mut kept = Kept::default();
    manifest::read_text(&stored.manifest, &mut kept);
    for hook in stored.hooks.iter().flatten() {
        manifest::read_text(&hook.manifest, &mut kept);
    }
    // The good documents beside a bad one are judged all the same.
    let unreadable = kept.trouble.map(|trouble| format!("line {} of its manifest cannot be read", trouble.line));
    let metadata = stored.chart.and_then(|chart| chart.metadata);
    let (chart, kube_version) = metadata.map_or_else(Default::default, |metadata| {
        let kube_version = metadata.kube_version.filter(|text| !text.is_empty()).map(Cow::into_owned);
        (format!("{} {}", metadata.name, metadata.version).trim().to_owned(), kube_version)
    });
    Ok((chart, kube_version, kept.objects.into_iter().collect(), unreadable))
}

#[derive(Default)]
struct Kept {
    objects: BTreeSet<ReleaseObject>,
    trouble: Option<Trouble>,
}

impl Sink for Kept {
    fn object(&mut self, object: Object<'_>) {
        let life = Table::shipped().find(object.api_version, object.kind);
        let is_of_interest = life.is_some_and(|life| life.deprecated.is_some() || life.removed.is_some());
        if is_of_interest && self.objects.len() < OBJECTS_MAX {
            self.objects.insert(ReleaseObject {
                api_version: object.api_version.to_owned(),
                kind: object.kind.to_owned(),
                namespace: object.namespace.to_owned(),
                name: object.name.to_owned(),
            });
        }
    }
    fn trouble(&mut self, trouble: Trouble) {
        self.trouble.get_or_insert(trouble);
    }
}

/// Whether a status means that Helm works from this revision.
fn is_deployed(status: &str) -> bool {
    status == "deployed"
}

/// Whether a status means that the revision has no say any more.
fn is_past(status: &str) -> bool {
    matches!(status, "superseded" | "uninstalled" | "uninstalling")
}

/// Of all revisions, those that must be read: the newest deployed one of each release, and the newest one where it
/// failed or is pending.
pub fn wanted(revisions: &[Revision]) -> BTreeSet<&Revision> {
    let mut releases: BTreeMap<(&str, &str), Vec<&Revision>> = BTreeMap::new();
    for revision in revisions {
        releases.entry((&revision.namespace, &revision.release)).or_default().push(revision);
    }
    let mut wanted = BTreeSet::new();
    for revisions in releases.values() {
        let newest = revisions.iter().max_by_key(|revision| revision.revision);
        let deployed = revisions.iter().filter(|one| is_deployed(&one.status)).max_by_key(|one| one.revision);
        wanted.extend(deployed);
        wanted.extend(newest.filter(|newest| !is_past(&newest.status)));
    }
    wanted
}

/// What the releases that were read mean.
pub fn judge(releases: &[Release], question: &Question) -> (Vec<Usage>, Vec<Finding>) {
    let (mut usages, mut findings) = (Vec::new(), Vec::new());
    for release in releases {
        let Revision { namespace, release: name, revision, status } = &release.id;
        let subject = || Subject::new("HelmRelease", namespace, name);
        let identified = |finding: Finding| {
            finding.with("revision", revision).with("status", status).with("release", name).with("namespace", namespace)
        };
        if let Some(why) = &release.unreadable {
            let finding = Finding::new("API-005", "unreadable", Outcome::Unknown, subject()).with("why", why);
            findings.push(identified(finding));
        }
        for object in &release.objects {
            let Some(life) = flagged(&object.api_version, &object.kind, question.target) else { continue };
            let seen = format!("release {namespace}/{name} revision {revision} ({}), status {status}", release.chart);
            let evidence = Evidence { source: "API-005".to_owned(), seen };
            if is_deployed(status) {
                let home = if object.namespace.is_empty() && life.namespaced == Some(true) {
                    namespace
                } else {
                    &object.namespace
                };
                let subject = Subject::new(&object.kind, home, &object.name);
                let author = Author::Release { namespace: namespace.clone(), name: name.clone() };
                usages.push(Usage { life, subject, place: None, evidence, author });
            } else if let Some(judged) = judge_one(life, subject(), question) {
                let successor = Table::shipped().successor(life, question.target);
                let finding = Finding::new("API-005", "not-deployed", Outcome::Warn, subject());
                let finding = Finding { parameters: judged.parameters, ..finding };
                let finding =
                    succeeded_by(finding, successor.map(|next| format!("{} {}", next.api_version, next.kind)));
                findings.push(Finding { evidence: vec![evidence], ..identified(finding) });
            }
        }
        let constraint = release.kube_version.as_deref().filter(|_| is_deployed(status));
        let sentence = |text: &str| match constraint::admits(text, question.target.minor) {
            Some(true) => None,
            Some(false) => Some("excluded"),
            None => Some("no-constraint"),
        };
        if let Some((constraint, sentence)) = constraint.and_then(|text| Some((text, sentence(text)?))) {
            let finding = Finding::new("API-006", sentence, Outcome::Warn, subject());
            let finding = finding.with("chart", &release.chart).with("constraint", constraint);
            findings.push(identified(finding.with("target", question.target)));
        }
    }
    (usages, findings)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;
    use crate::question::Profile;

    fn id(revision: u64, status: &str) -> Revision {
        Revision { namespace: "n".into(), release: "r".into(), revision, status: status.into() }
    }

    fn question() -> Question {
        Question {
            target: shiplock_core::version::MinorVersion { major: 1, minor: 37 },
            current: None,
            profile: Profile::Default,
            now: jiff::Timestamp::UNIX_EPOCH,
            max_parallel: 10,
        }
    }

    fn packed(json: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(json).unwrap();
        STANDARD.encode(encoder.finish().unwrap()).into_bytes()
    }

    fn stored(manifest: &str) -> Vec<u8> {
        let json = serde_json::json!({
            "manifest": manifest,
            "chart": { "metadata": { "name": "c", "version": "1.0", "kubeVersion": "<1.37-0" }, "values": { "password": "secret-value" } },
            "config": { "token": "secret-token" },
            "hooks": [{ "manifest": "apiVersion: policy/v1beta1\nkind: PodDisruptionBudget\nmetadata: {name: hook}\n" }],
        });
        packed(json.to_string().as_bytes())
    }

    #[test]
    fn the_newest_deployed_revision_counts_and_a_newer_one_that_failed_counts_as_such() {
        for (revisions, expected) in [
            (vec![id(1, "superseded"), id(2, "deployed")], vec![2]),
            (vec![id(1, "deployed"), id(2, "deployed")], vec![2]),
            (vec![id(1, "deployed"), id(2, "failed")], vec![1, 2]),
            (vec![id(1, "superseded"), id(2, "failed"), id(3, "deployed")], vec![3]),
            (vec![id(1, "deployed"), id(2, "pending-upgrade")], vec![1, 2]),
            (vec![id(1, "failed"), id(2, "uninstalled")], vec![]),
            (vec![id(1, "failed"), id(2, "superseded")], vec![]),
            (vec![id(9, "deployed"), id(10, "superseded")], vec![9]),
        ] {
            let found: Vec<u64> = wanted(&revisions).iter().map(|one| one.revision).collect();
            assert_eq!(found, expected, "{revisions:?}");
        }
    }

    #[test]
    fn a_release_is_read_with_its_hooks_and_no_value_of_it_is_kept() {
        let manifest = "---\n# Source: c/templates/a.yaml\napiVersion: extensions/v1beta1\nkind: Ingress\nmetadata:\n  name: web\n---\napiVersion: v1\nkind: Secret\nstringData:\n  a: secret-value\n";
        let release = Reader::default().read(id(1, "deployed"), &stored(manifest));
        assert_eq!(release.unreadable, None);
        let names: Vec<&str> = release.objects.iter().map(|object| object.name.as_str()).collect();
        assert_eq!(names, ["web", "hook"]);
        assert!(!serde_json::to_string(&release).unwrap().contains("secret"));
        let (usages, findings) = judge(&[release], &question());
        assert_eq!(usages.len(), 2);
        assert_eq!(findings.iter().map(|finding| finding.check.as_str()).collect::<Vec<_>>(), ["API-006"]);
    }

    #[test]
    fn what_a_deployed_release_holds_is_mended_by_a_command_for_that_release() {
        use shiplock_core::language::Language;
        let document = |api_version: &str, kind: &str, name: &str| {
            format!("---\napiVersion: {api_version}\nkind: {kind}\nmetadata:\n  name: {name}\n")
        };
        let manifest = document("storage.k8s.io/v1beta1", "VolumeAttributesClass", "gone")
            + &document("policy/v1beta1", "PodSecurityPolicy", "for-good");
        let release = Reader::default().read(id(1, "deployed"), &stored(&manifest));
        let (mut usages, _) = judge(&[release], &question());
        // Whoever else writes the object takes nothing from that.
        let of_helm = usages.iter().find(|usage| usage.subject.name == "gone").unwrap().clone();
        usages.insert(0, Usage { author: Author::Any, ..of_helm });
        let found = crate::api::judge(usages, &question());
        let told: Vec<(&str, &str)> =
            found.iter().map(|finding| (finding.subject.name.as_str(), finding.sentence.as_str())).collect();
        assert_eq!(
            told,
            [
                ("hook", "removed-in-release"),
                ("for-good", "removed-for-good-in-release"),
                ("gone", "removed-in-release")
            ]
        );
        for finding in &found {
            let of_release = crate::api::of_release(finding).unwrap();
            assert_eq!(of_release.check, "API-005");
            for language in [Language::En, Language::Zh] {
                for fix in [finding.fix(language), of_release.fix(language)] {
                    assert!(fix.contains("`helm mapkubeapis r --namespace n`"), "{fix}");
                    assert!(!fix.contains('{'), "{fix}");
                }
                assert!(!of_release.text(language).contains('{'), "{}", of_release.text(language));
            }
        }
    }

    #[test]
    fn one_document_that_cannot_be_read_hides_no_other_of_its_release() {
        let ingress =
            |name: &str| format!("---\napiVersion: extensions/v1beta1\nkind: Ingress\nmetadata:\n  name: {name}\n");
        let manifest = format!("{}---\na: [\n{}", ingress("first"), ingress("last"));
        let release = Reader::default().read(id(1, "deployed"), &stored(&manifest));
        let (usages, findings) = judge(&[release], &question());
        let names: Vec<&str> = usages.iter().map(|usage| usage.subject.name.as_str()).collect();
        assert_eq!(names, ["first", "last", "hook"]);
        let said: Vec<String> = findings.iter().map(|found| format!("{} {}", found.check, found.sentence)).collect();
        assert_eq!(said, ["API-005 unreadable", "API-006 excluded"]);
    }

    #[test]
    fn a_chart_that_excludes_the_target_or_says_what_nobody_understands_is_named() {
        for (kube_version, status, expected) in [
            (Some(">=1.30.0-0"), "deployed", None),
            (Some("<1.37-0"), "deployed", Some("excluded")),
            (Some("garbage!!"), "deployed", Some("no-constraint")),
            (Some("garbage!!"), "failed", None),
            (None, "deployed", None),
        ] {
            let mut release = Release::unreadable(id(1, status), String::new());
            release.unreadable = None;
            release.kube_version = kube_version.map(str::to_owned);
            let said: Vec<String> = judge(&[release], &question()).1.into_iter().map(|found| found.sentence).collect();
            assert_eq!(said, expected.into_iter().collect::<Vec<_>>(), "{kube_version:?} {status}");
        }
    }

    #[test]
    fn what_is_no_release_is_told_and_a_bomb_is_not_unpacked() {
        let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
        for _ in 0..200 {
            bomb.write_all(&[b' '; 1 << 20]).unwrap();
        }
        let bomb = STANDARD.encode(bomb.finish().unwrap()).into_bytes();
        let mut reader = Reader::default();
        for (name, payload) in [
            ("nothing", Vec::new()),
            ("no base64", b"%%%".to_vec()),
            ("no JSON", packed(b"{\"manifest\": \"secret")),
            ("another shape", packed(b"[1, 2]")),
            ("cut off", stored("a: b\n")[..40].to_vec()),
            ("a bomb", bomb),
            ("a manifest that cannot be read", stored("a: [\n")),
        ] {
            let release = reader.read(id(1, "deployed"), &payload);
            let why = release.unreadable.unwrap_or_else(|| panic!("{name} was read"));
            assert!(!why.contains("secret"), "{name}: {why}");
        }
        assert!(reader.unpacked.capacity() <= 4 << 20 && reader.packed.capacity() <= 4 << 20);
        // Plain JSON is what Helm reads too, and one bad release does not spoil the next.
        let plain = STANDARD.encode(b"{\"manifest\":\"apiVersion: extensions/v1beta1\\nkind: Ingress\\n\"}");
        assert_eq!(reader.read(id(1, "deployed"), plain.as_bytes()).objects.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn no_payload_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0_usize..200, wraps in any::<bool>()) {
            let mut reader = Reader::default();
            reader.read(id(1, "deployed"), &bytes);
            let whole = if wraps { packed(&bytes) } else { stored("a: b\n") };
            let mut damaged = whole.clone();
            let at = cut.min(damaged.len() - 1);
            damaged[at] = damaged[at].wrapping_add(1);
            reader.read(id(1, "deployed"), &damaged);
            reader.read(id(1, "deployed"), &whole[..at]);
        }
    }
}
