//! Manifests in files, folders and standard input.

use std::io::Read as _;

use flate2::read::MultiGzDecoder;
use shiplock_core::version::MinorVersion;

use super::{Author, Usage, flagged};
use crate::lifecycle::{self, Table};
use crate::manifest::{self, Object, Sink, Trouble, TroubleKind};
use crate::question::Question;
use crate::report::{Evidence, Finding, Outcome, Place, Subject};

/// Configuration files of components: group, version, the first minor that reads it, the first that does not any more.
/// Later ones of a group are newer. Sources: KEP-785; kubernetes#117649, #114540, #108616, #101129, #91420, #69055, #65891,
/// #65628; kubeadm#1296; the changelogs of 1.19, 1.21 to 1.25, 1.31 and 1.37.
const COMPONENT_CONFIGURATIONS: &[(&str, &str, u32, Option<u32>)] = &[
    ("kubescheduler.config.k8s.io", "v1alpha1", 10, Some(19)),
    ("kubescheduler.config.k8s.io", "v1alpha2", 18, Some(19)),
    ("kubescheduler.config.k8s.io", "v1beta1", 19, Some(23)),
    ("kubescheduler.config.k8s.io", "v1beta2", 22, Some(28)),
    ("kubescheduler.config.k8s.io", "v1beta3", 23, Some(29)),
    ("kubescheduler.config.k8s.io", "v1", 25, None),
    ("kubeadm.k8s.io", "v1alpha1", 8, Some(12)),
    ("kubeadm.k8s.io", "v1alpha2", 11, Some(13)),
    ("kubeadm.k8s.io", "v1alpha3", 12, Some(15)),
    ("kubeadm.k8s.io", "v1beta1", 13, Some(22)),
    ("kubeadm.k8s.io", "v1beta2", 15, Some(27)),
    ("kubeadm.k8s.io", "v1beta3", 22, Some(37)),
    ("kubeadm.k8s.io", "v1beta4", 31, None),
    ("audit.k8s.io", "v1alpha1", 7, Some(24)),
    ("audit.k8s.io", "v1beta1", 8, Some(24)),
    ("audit.k8s.io", "v1", 12, None),
    ("client.authentication.k8s.io", "v1alpha1", 10, Some(24)),
    ("client.authentication.k8s.io", "v1beta1", 11, None),
    ("client.authentication.k8s.io", "v1", 22, None),
];

/// What is read of a file in an archive to see whether it is a manifest.
const MEMBER_BYTES_READ: u64 = 64 << 10;

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
    /// How many folders were not gone into, by their names.
    pub folders_left_out: u64,
}

impl FilesRead {
    /// Puts what another reader found beside it.
    pub fn merge(&mut self, other: Self) {
        self.usages.extend(other.usages);
        self.findings.extend(other.findings);
        self.objects += other.objects;
        self.others += other.others;
        self.files += other.files;
        self.folders_left_out += other.folders_left_out;
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
                Ok(_) if is_tape(&unpacked) => {
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
        } else if is_tape(content) || content.starts_with(b"PK\x03\x04") {
            self.unreadable(file, "it is an archive that must be unpacked".to_owned(), question);
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

/// Whether this is an archive of `tar`.
fn is_tape(content: &[u8]) -> bool {
    content.get(257..262) == Some(b"ustar")
}

/// Whether an archive of `tar`, packed with gzip or not, or of `zip` seems to hold manifests: by the names of its files,
/// in one of `tar` also by what they begin with. It is read up to the first one, and up to `bytes_max`.
pub fn archive_has_manifests(content: &[u8], bytes_max: u64) -> bool {
    if content.starts_with(b"PK\x03\x04") {
        // In each entry of its directory the length of a name comes before the name.
        return memchr::memmem::find_iter(content, b"PK\x01\x02").any(|at| {
            let length =
                content.get(at + 28..at + 30).map_or(0, |two| usize::from(two[0]) | (usize::from(two[1]) << 8));
            content.get(at + 46..at + 46 + length).is_some_and(has_manifest_name)
        });
    }
    let mut tape: Box<dyn std::io::Read> = match content {
        [0x1F, 0x8B, ..] => Box::new(MultiGzDecoder::new(content).take(bytes_max)),
        _ => Box::new(content),
    };
    let mut head = [0; 512];
    while tape.read_exact(&mut head).is_ok() && is_tape(&head) {
        let digits = std::str::from_utf8(&head[124..135]).unwrap_or_default().trim_matches([' ', '\0']);
        let Ok(size) = u64::from_str_radix(digits, 8) else { return false };
        let mut member = tape.by_ref().take(size.div_ceil(512) * 512);
        if has_manifest_name(head[..100].split(|byte| *byte == 0).next().unwrap_or_default()) {
            let mut begin = Vec::new();
            let read = member.by_ref().take(MEMBER_BYTES_READ).read_to_end(&mut begin);
            if read.is_ok() && memchr::memmem::find(&begin, b"apiVersion:").is_some() {
                return true;
            }
        }
        if std::io::copy(&mut member, &mut std::io::sink()).is_err() {
            return false;
        }
    }
    false
}

fn has_manifest_name(path: &[u8]) -> bool {
    path.ends_with(b".yaml") || path.ends_with(b".yml")
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
        let evidence = || Evidence { source: "API-007".to_owned(), seen: format!("{}:{line}", self.file) };
        if let Some(life) = flagged(api_version, kind, self.question.target) {
            let subject = Subject::new(kind, namespace, name);
            self.read.usages.push(Usage { life, subject, place: place(), evidence: evidence(), author: Author::Any });
        } else if Table::shipped().is_dead(api_version, kind, self.question.target) {
            let why = format!("Kubernetes {} serves nothing of {api_version}", self.question.target);
            self.trouble(Trouble { line, kind: TroubleKind::Shape(why) });
        } else if let Some((removed, successor)) = removed_configuration(api_version, self.question.target)
            && is_configuration(api_version, kind)
        {
            let sentence = match lifecycle::split(api_version).0 {
                "client.authentication.k8s.io" => "login",
                "kubeadm.k8s.io" => "kubeadm-file",
                _ => "removed",
            };
            let finding = Finding::new("API-012", sentence, Outcome::Fail, Subject::new(kind, namespace, name));
            let finding = finding.with("api", format!("{api_version} {kind}")).with("since", removed);
            let finding = finding.with("successor", successor).with("file", self.file);
            self.read.findings.push(Finding { place: place(), evidence: vec![evidence()], ..finding });
        }
    }

    fn trouble(&mut self, trouble: Trouble) {
        self.read.trouble(self.file, &trouble, self.question);
    }

    fn other(&mut self) {
        self.read.others += 1;
    }
}

/// Whether a kind of a component's group is a file that the component reads: of what it writes, such as the events of an
/// audit log, old versions may be read for ever.
fn is_configuration(api_version: &str, kind: &str) -> bool {
    lifecycle::split(api_version).0 != "audit.k8s.io" || kind == "Policy"
}

/// Why no API server takes an object that says so of itself; none where one may.
/// Sources: `ParseGroupVersion` of k8s.io/apimachinery: at most one slash; kinds are told apart by case.
/// `ValidateAPIService` of k8s.io/kube-aggregator: a group is a name of DNS, a version a label of it; as is, but for its
/// case, the kind of a CustomResourceDefinition.
fn no_server_takes(api_version: &str, kind: &str) -> Option<TroubleKind> {
    if api_version.is_empty() || kind.is_empty() {
        return Some(TroubleKind::Incomplete(if api_version.is_empty() { "apiVersion" } else { "kind" }));
    }
    let (group, version) = lifecycle::split(api_version);
    let is_version = is_label(version) && version.starts_with(|first: char| first.is_ascii_lowercase());
    let is_group = !api_version.contains('/') || group.split('.').all(is_label);
    if !is_version || !is_group {
        return Some(TroubleKind::Shape("its apiVersion is not GROUP/VERSION".to_owned()));
    }
    let is_kind = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if !kind.starts_with(|first: char| first.is_ascii_alphabetic()) || !kind.bytes().all(is_kind) {
        return Some(TroubleKind::Shape("its kind is no name of a kind".to_owned()));
    }
    // Custom kinds may be written so.
    if lifecycle::is_own_group(group) && kind.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Some(TroubleKind::Shape(format!("kinds of Kubernetes begin with a capital letter, not `{kind}`")));
    }
    None
}

/// Whether this is a label of DNS.
fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Whether a configuration file of a component is of a version that a minor does not read any more; since when, and the
/// newest version that it reads.
pub(crate) fn removed_configuration(api_version: &str, target: MinorVersion) -> Option<(MinorVersion, String)> {
    let (group, version) = lifecycle::split(api_version);
    let of_group = || COMPONENT_CONFIGURATIONS.iter().filter(|(of, ..)| *of == group);
    let (.., removed) = of_group().find(|(_, name, ..)| *name == version)?;
    let since = MinorVersion { major: 1, minor: (*removed)? };
    let is_read =
        |from: u32, removed: Option<u32>| from <= target.minor && removed.is_none_or(|removed| target.minor < removed);
    let newest = of_group().rfind(|(_, _, from, removed)| is_read(*from, *removed))?;
    (since <= target).then(|| (since, format!("{group}/{}", newest.1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::Profile;

    fn read(text: &str) -> FilesRead {
        let question = Question {
            target: MinorVersion { major: 1, minor: 37 },
            current: None,
            profile: Profile::Default,
            now: jiff::Timestamp::UNIX_EPOCH,
            max_parallel: 10,
        };
        let mut read = FilesRead::default();
        read.read("a.yaml", text.as_bytes(), 1024, &question);
        read
    }

    #[test]
    fn a_configuration_that_the_target_does_not_read_is_told_with_its_file_and_line() {
        let found = read("# remark\napiVersion: kubeadm.k8s.io/v1beta1\nkind: ClusterConfiguration\n");
        let [finding] = &found.findings[..] else { panic!("{:?}", found.findings) };
        assert_eq!((finding.check.as_str(), finding.evidence[0].seen.as_str()), ("API-012", "a.yaml:2"));
    }

    #[test]
    fn what_to_do_about_a_configuration_is_what_works_for_its_component() {
        use shiplock_core::language::Language;
        for (version, works) in [
            ("kubeadm.k8s.io/v1beta3", "kubeadm config migrate --old-config a.yaml"),
            ("kubescheduler.config.k8s.io/v1beta3", "write it as kubescheduler.config.k8s.io/v1 before"),
            ("audit.k8s.io/v1beta1", "write it as audit.k8s.io/v1 before"),
        ] {
            let found = read(&format!("apiVersion: {version}\nkind: Policy\n"));
            let [finding] = &found.findings[..] else { panic!("{version}: {:?}", found.findings) };
            let fix = finding.fix(Language::En);
            assert!(fix.contains(works) && fix.contains("kubeadm") == version.contains("kubeadm"), "{version}: {fix}");
        }
    }

    #[test]
    fn what_is_named_for_a_configuration_is_the_newest_version_that_the_target_reads() {
        for (version, target, expected) in [
            ("kubescheduler.config.k8s.io/v1alpha2", 19, "v1beta1"),
            ("kubescheduler.config.k8s.io/v1alpha2", 22, "v1beta2"),
            ("kubescheduler.config.k8s.io/v1beta1", 22, ""),
            ("kubescheduler.config.k8s.io/v1beta1", 23, "v1beta3"),
            ("kubescheduler.config.k8s.io/v1beta1", 24, "v1beta3"),
            ("kubescheduler.config.k8s.io/v1beta1", 25, "v1"),
            ("kubescheduler.config.k8s.io/v1beta3", 29, "v1"),
            ("kubeadm.k8s.io/v1beta1", 22, "v1beta3"),
            ("kubeadm.k8s.io/v1beta2", 27, "v1beta3"),
            ("kubeadm.k8s.io/v1beta2", 31, "v1beta4"),
            ("kubeadm.k8s.io/v1beta3", 36, ""),
            ("kubeadm.k8s.io/v1beta3", 37, "v1beta4"),
            ("audit.k8s.io/v1beta1", 24, "v1"),
            ("client.authentication.k8s.io/v1alpha1", 24, "v1"),
        ] {
            let found = removed_configuration(version, MinorVersion { major: 1, minor: target });
            let named = found.map(|(_, successor)| lifecycle::split(&successor).1.to_owned()).unwrap_or_default();
            assert_eq!(named, expected, "{version} at 1.{target}");
        }
        // Each one that goes leaves another that is read from then on.
        for (group, version, _, removed) in COMPONENT_CONFIGURATIONS {
            for target in removed.iter().flat_map(|removed| *removed..=37) {
                let found =
                    removed_configuration(&format!("{group}/{version}"), MinorVersion { major: 1, minor: target });
                assert!(found.is_some(), "{group}/{version} at 1.{target}");
            }
        }
    }

    #[test]
    fn an_event_of_an_audit_log_is_no_configuration() {
        let of = |kind: &str| read(&format!("apiVersion: audit.k8s.io/v1beta1\nkind: {kind}\n")).findings.len();
        assert_eq!((of("Policy"), of("Event"), of("EventList")), (1, 0, 0));
    }

    #[test]
    fn a_user_of_a_kubeconfig_who_logs_in_by_a_plugin_of_a_version_that_was_removed_is_named() {
        let version = |minor: &str| format!("client.authentication.k8s.io/{minor}");
        let kubeconfig = |of_ci: &str| {
            format!(
                "apiVersion: v1\nkind: Config\nusers:\n- name: li\n  user:\n    token: x\n- name: ci\n  user:\n    exec:\n      apiVersion: {of_ci}\n      command: login\n"
            )
        };
        let found = read(&kubeconfig(&version("v1alpha1")));
        let [finding] = &found.findings[..] else { panic!("{:?}", found.findings) };
        assert_eq!((finding.check.as_str(), finding.sentence.as_str()), ("API-012", "login"));
        assert_eq!((finding.subject.name.as_str(), finding.evidence[0].seen.as_str()), ("ci", "a.yaml:10"));
        for served in ["v1beta1", "v1"] {
            assert_eq!(read(&kubeconfig(&version(served))).findings, [], "{served}");
        }
    }
}
