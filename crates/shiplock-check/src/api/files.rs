//! Manifests in files, folders and standard input.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use shiplock_core::version::MinorVersion;

use super::{Usage, flagged};
use crate::manifest::{self, Object, Sink, Trouble, TroubleKind};
use crate::question::Question;
use crate::report::{Evidence, Finding, Outcome, Place, Subject};

/// Configuration files of components: group, version, the minor that does not read it, what takes its place.
/// Sources: KEP-785; kubernetes#117649, #114540, #108616; the changelogs of 1.21, 1.23 and 1.24.
const COMPONENT_CONFIGURATIONS: &[(&str, &str, u32, &str)] = &[
    ("kubescheduler.config.k8s.io", "v1alpha1", 19, "kubescheduler.config.k8s.io/v1"),
    ("kubescheduler.config.k8s.io", "v1beta1", 23, "kubescheduler.config.k8s.io/v1"),
    ("kubescheduler.config.k8s.io", "v1beta2", 28, "kubescheduler.config.k8s.io/v1"),
    ("kubescheduler.config.k8s.io", "v1beta3", 29, "kubescheduler.config.k8s.io/v1"),
    ("kubeadm.k8s.io", "v1beta2", 27, "kubeadm.k8s.io/v1beta3"),
    ("audit.k8s.io", "v1alpha1", 24, "audit.k8s.io/v1"),
    ("audit.k8s.io", "v1beta1", 24, "audit.k8s.io/v1"),
    ("client.authentication.k8s.io", "v1alpha1", 24, "client.authentication.k8s.io/v1"),
];

/// What was read of one file or of many.
#[derive(Debug, Default)]
pub struct FilesRead {
    /// Uses of versions that the target deprecates or removes.
    pub usages: Vec<Usage>,
    /// What cannot be read, and configurations of components that are not read any more.
    pub findings: Vec<Finding>,
    /// How many objects there were.
    pub objects: u64,
    /// How many documents held no object.
    pub others: u64,
    /// How many files there were.
    pub files: u64,
}

impl FilesRead {
    /// Puts what another reader found beside it.
    pub fn merge(&mut self, other: Self) {
        self.usages.extend(other.usages);
        self.findings.extend(other.findings);
        self.objects += other.objects;
        self.others += other.others;
        self.files += other.files;
    }

    /// Reads the content of a file, packed with gzip or not. `unpacked_bytes_max` bounds what is unpacked.
    pub fn read(&mut self, file: &str, content: &[u8], unpacked_bytes_max: u64, question: &Question) {
        if content.starts_with(&[0x1F, 0x8B]) {
            let mut unpacked = Vec::new();
            let outcome = MultiGzDecoder::new(content).take(unpacked_bytes_max + 1).read_to_end(&mut unpacked);
            let trouble = match outcome {
                Err(error) => Some(error.to_string()),
                Ok(_) if unpacked.len() as u64 > unpacked_bytes_max => {
                    Some(format!("it unpacks to more than {unpacked_bytes_max} bytes"))
                }
                Ok(_) if unpacked.get(257..262) == Some(b"ustar") => {
                    // A packed chart or an archive: what is in it must be rendered or unpacked.
                    self.files += 1;
                    self.trouble(file, &Trouble { line: 1, kind: TroubleKind::Template }, question);
                    return;
                }
                Ok(_) => None,
            };
            // What came out before it broke off is judged all the same.
            match trouble {
                None => self.text(file, &unpacked, question),
                Some(why) => {
                    let is_bounded = unpacked.len() as u64 <= unpacked_bytes_max;
                    if is_bounded && !unpacked.is_empty() {
                        manifest::read(&unpacked, &mut OneFile { read: self, file, question });
                    }
                    self.unreadable(file, why, question);
                }
            }
        } else {
            self.text(file, content, question);
        }
    }

    /// Notes a file that cannot be opened, or is too large.
    pub fn unreadable(&mut self, file: &str, why: String, question: &Question) {
        self.files += 1;
        self.trouble(file, &Trouble { line: 1, kind: TroubleKind::Unreadable(why) }, question);
    }

    /// Notes that nothing that could be judged was in what was named.
    pub fn nothing(&mut self, name: &str, question: &Question) {
        self.trouble(name, &Trouble { line: 1, kind: TroubleKind::Nothing }, question);
    }

    fn text(&mut self, file: &str, content: &[u8], question: &Question) {
        self.files += 1;
        manifest::read(content, &mut OneFile { read: self, file, question });
    }

    fn trouble(&mut self, file: &str, trouble: &Trouble, question: &Question) {
        let finding = |sentence| Finding::new("API-007", sentence, Outcome::Unknown, Subject::new("File", "", file));
        let finding = match &trouble.kind {
            TroubleKind::Syntax(why) => finding("syntax").with("why", why),
            TroubleKind::Shape(why) => finding("shape").with("why", why),
            TroubleKind::Template => finding("template").with("target", question.target),
            TroubleKind::Encoding => finding("encoding"),
            TroubleKind::Incomplete(key) => finding("incomplete").with("key", key),
            TroubleKind::Bounds => finding("bounds"),
            TroubleKind::Unreadable(why) => finding("unreadable").with("why", why),
            TroubleKind::Nothing => finding("nothing"),
        };
        let place = Place { file: file.to_owned(), line: trouble.line };
        self.findings.push(Finding { place: Some(place), ..finding });
    }
}

struct OneFile<'a> {
    read: &'a mut FilesRead,
    file: &'a str,
    question: &'a Question,
}

impl Sink for OneFile<'_> {
    fn object(&mut self, object: Object<'_>) {
        self.read.objects += 1;
        let Object { api_version, kind, namespace, name, line } = object;
        if let Some(why) = no_server_takes(api_version, kind) {
            return self.trouble(Trouble { line, kind: why });
        }
        let place = || Some(Place { file: self.file.to_owned(), line });
        if let Some(life) = flagged(api_version, kind, self.question.target) {
            let evidence = Evidence { source: "API-007".to_owned(), seen: format!("{}:{line}", self.file) };
            let subject = Subject::new(kind, namespace, name);
            self.read.usages.push(Usage { life, subject, place: place(), evidence });
        } else if let Some((removed, successor)) = removed_configuration(api_version, self.question.target) {
            let finding = Finding::new("API-012", "removed", Outcome::Fail, Subject::new(kind, namespace, name));
            let finding = finding.with("api", format!("{api_version} {kind}")).with("since", removed);
            self.read.findings.push(Finding { place: place(), ..finding.with("successor", successor) });
        }
    }

    fn trouble(&mut self, trouble: Trouble) {
        self.read.trouble(self.file, &trouble, self.question);
    }

    fn other(&mut self) {
        self.read.others += 1;
    }
}

/// Why no API server takes an object that says so of itself; none where one may.
/// Source: `ParseGroupVersion` of k8s.io/apimachinery: at most one slash; kinds are told apart by case.
fn no_server_takes(api_version: &str, kind: &str) -> Option<TroubleKind> {
    if api_version.is_empty() || kind.is_empty() {
        return Some(TroubleKind::Incomplete(if api_version.is_empty() { "apiVersion" } else { "kind" }));
    }
    let (group, version) = crate::lifecycle::split(api_version);
    if version.is_empty() || version.contains('/') || api_version.starts_with('/') {
        return Some(TroubleKind::Shape("its apiVersion is not GROUP/VERSION".to_owned()));
    }
    // Custom kinds may be written so.
    let is_own = !group.contains('.') || group.ends_with(".k8s.io");
    (is_own && kind.starts_with(|first: char| first.is_ascii_lowercase()))
        .then(|| TroubleKind::Shape(format!("kinds of Kubernetes begin with a capital letter, not `{kind}`")))
}

/// Whether a configuration file of a component is of a version that a minor does not read any more; since when, and what
/// takes its place.
pub(crate) fn removed_configuration(api_version: &str, target: MinorVersion) -> Option<(MinorVersion, &'static str)> {
    let (group, version) = crate::lifecycle::split(api_version);
    let found = COMPONENT_CONFIGURATIONS.iter().find(|(of, name, ..)| *of == group && *name == version)?;
    let removed = MinorVersion { major: 1, minor: found.2 };
    (removed <= target).then_some((removed, found.3))
}
