//! Live objects: who writes them through a version that goes away, judged over a snapshot.

use super::authorship::{Authorship, Written, authorship, is_by_hand};
use super::{Author, Usage, flagged, helm, metrics, succeeded_by};
use crate::lifecycle::{KindLifecycle, Standing, Table, split};
use crate::question::{Profile, Question};
use crate::report::{Evidence, Finding, Outcome, Subject};
use crate::snapshot::{Read, Snapshot, WrittenKind};

/// Where the ways out are told.
const GUIDE: &str = "https://kubernetes.io/docs/reference/using-api/deprecation-guide/";

/// All that a snapshot says of APIs that go away.
pub fn judge(snapshot: &Snapshot, question: &Question) -> (Vec<Usage>, Vec<Finding>) {
    let (mut usages, mut findings) = (Vec::new(), Vec::new());
    if let Some(Err(why)) = snapshot.served.judged() {
        for check in ["API-001", "API-002", "API-003", "API-004", "API-010", "API-011"] {
            findings.push(Finding::unknown(check, why));
        }
    }
    let stored_of = |kind: &WrittenKind| stored(snapshot, &kind.group, &kind.resource);
    for kind in &snapshot.written {
        match kind.objects.judged() {
            Some(Ok(objects)) => {
                written(kind, objects, question, &mut usages, &mut findings);
            }
            // It is not asked for, since that would be a use of it; API servers count what is stored.
            Some(Err(_)) if kind.listed_through.is_empty() && stored_of(kind).is_some() => {
                let count = stored_of(kind).unwrap_or_default();
                for version in &kind.versions {
                    let api_version = joined(&kind.group, version);
                    let life = flagged(&api_version, &kind.kind, question.target);
                    let standing = life.map(|life| (life, life.standing(question.target)));
                    if let Some((life, Standing::Removed { since })) = standing {
                        findings.extend(going_away(kind, life, since, &Stored::Counted(count), question));
                    }
                }
            }
            Some(Err(why)) => {
                let why = format!("{} {}: {why}", kind.group, kind.resource);
                findings
                    .push(Finding { subject: Subject::new(&kind.kind, "", ""), ..Finding::unknown("API-003", why) });
            }
            None => {}
        }
    }
    match &snapshot.releases {
        Read::Seen(releases) => {
            let (more_usages, more_findings) = helm::judge(releases, question);
            usages.extend(more_usages);
            findings.extend(more_findings);
        }
        Read::NotSeen(why) => {
            findings.extend(["API-005", "API-006"].map(|check| Finding::unknown(check, why)));
        }
        Read::NotAsked => {}
    }
    for instance in &snapshot.metrics {
        match &instance.metrics {
            Read::Seen(read) => findings.extend(metrics::judge(read, question)),
            Read::NotSeen(why) => {
                let subject = Subject::new("ApiServer", "", &instance.address);
                findings.push(Finding { subject, ..Finding::unknown("API-008", why) });
            }
            Read::NotAsked => {}
        }
    }
    (usages, findings)
}

/// How many objects of a resource the API servers say that they store.
pub(crate) fn stored(snapshot: &Snapshot, group: &str, resource: &str) -> Option<usize> {
    let all = snapshot.metrics.iter().filter_map(|instance| instance.metrics.seen());
    let counts = all.flat_map(|metrics| {
        let older = metrics.of_resource("apiserver_storage_objects", group, resource);
        older.chain(metrics.of_resource("apiserver_resource_objects", group, resource))
    });
    // A count that failed is below nothing.
    let counts = counts.filter(|sample| sample.value >= 0.0).map(|sample| sample.value);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, not negative")]
    counts.reduce(f64::max).map(|count| count as usize)
}

fn joined(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn written(
    kind: &WrittenKind,
    objects: &[Written],
    question: &Question,
    usages: &mut Vec<Usage>,
    findings: &mut Vec<Finding>,
) {
    let api_versions = kind.versions.iter().map(|version| joined(&kind.group, version));
    let mut lives: Vec<_> = api_versions.filter_map(|name| flagged(&name, &kind.kind, question.target)).collect();
    lives.retain(|life| {
        let is_only_version = kind.listed_through == life.api_version();
        let Standing::Removed { since } = life.standing(question.target) else { return true };
        if !is_only_version {
            return true;
        }
        findings.extend(going_away(kind, life, since, &Stored::Listed(objects), question));
        // Who writes them breaks; that blocks under the strict profile alone.
        question.profile != Profile::Default
    });
    for object in objects {
        let subject = || Subject::new(&kind.kind, &object.namespace, &object.name);
        for life in &lives {
            let api_version = life.api_version();
            match authorship(object, &api_version) {
                Authorship::Writes { manager, operation, time } => {
                    let when = time.map(|time| format!(" at {time}")).unwrap_or_default();
                    let seen = format!("field manager {manager} ({operation}){when}");
                    let evidence = Evidence { source: "API-003".to_owned(), seen };
                    let author = if is_by_hand(&manager, &operation) { Author::ByHand } else { Author::Any };
                    usages.push(Usage { life, subject: subject(), place: None, evidence, author });
                }
                Authorship::OnlyAnnotation => {
                    let successor = Table::shipped().successor(life, question.target);
                    let finding = Finding::new("API-004", "only-trace", Outcome::Warn, subject());
                    let finding = finding.with("api", format!("{api_version} {}", kind.kind));
                    findings.push(succeeded_by(finding, successor.map(|found| found.api_version)));
                }
                Authorship::Unknown => {
                    let namespace = match object.namespace.as_str() {
                        "" => String::new(),
                        namespace => format!(" -n {namespace}"),
                    };
                    let finding = Finding::new("API-003", "nobody", Outcome::Unknown, subject());
                    let finding = finding.with("subject", subject()).with("api", &api_version);
                    let finding = finding.with("resource", kubectl_name(&kind.resource, &kind.listed_through));
                    findings.push(finding.with("object", format!("{}{namespace}", shell_word(&object.name))));
                    // That is so of every version.
                    break;
                }
                Authorship::Other => {}
            }
        }
    }
}

/// A resource of one version as kubectl takes it: `volumeattributesclasses.v1.storage.k8s.io`.
pub(super) fn kubectl_name(resource: &str, api_version: &str) -> String {
    let (group, version) = split(api_version);
    format!("{resource}.{version}.{group}")
}

/// A word that a shell takes as it is: names of objects may hold almost anything.
fn shell_word(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    if text.bytes().all(is_plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// What is known of the objects that are stored.
enum Stored<'a> {
    /// They were listed.
    Listed(&'a [Written]),
    /// API servers count so many.
    Counted(usize),
}

/// So many objects are named.
const NAMED_MAX: usize = 5;

/// Objects of a kind that has no other version now.
fn going_away(
    kind: &WrittenKind,
    life: &KindLifecycle<'_>,
    since: shiplock_core::version::MinorVersion,
    stored: &Stored<'_>,
    question: &Question,
) -> Option<Finding> {
    let (count, names) = match stored {
        Stored::Listed(objects) => {
            let named = objects.iter().take(NAMED_MAX).map(|object| match object.namespace.as_str() {
                "" => object.name.clone(),
                namespace => format!("{namespace}/{}", object.name),
            });
            (objects.len(), Some(named.collect::<Vec<_>>().join(", ")))
        }
        Stored::Counted(count) => (*count, None),
    };
    if count == 0 {
        return None;
    }
    let successor = Table::shipped().successor(life, question.target);
    let (check, outcome) = match successor {
        None if !life.version.contains("alpha") => ("API-010", Outcome::Fail),
        _ => ("API-011", Outcome::Warn),
    };
    let sentence = if names.is_some() { "objects" } else { "counted" };
    let resource = kubectl_name(&kind.resource, &life.api_version());
    let finding = Finding::new(check, sentence, outcome, Subject::new(life.kind, "", &resource))
        .with("api", format!("{} {}", life.api_version(), life.kind))
        .with("resource", resource)
        .with("count", count)
        .with("since", since)
        .with("guide", GUIDE);
    let finding = succeeded_by(finding, successor.map(|next| format!("{} {}", next.api_version, next.kind)));
    Some(names.into_iter().fold(finding, |finding, names| finding.with("names", names)))
}

/// Kinds whose objects must be looked at: those that are served now and that the target deprecates or removes, and
/// through which version to list them without asking for one that is deprecated.
pub fn to_list(
    served: &[crate::snapshot::ServedResource],
    current: Option<shiplock_core::version::MinorVersion>,
    target: shiplock_core::version::MinorVersion,
) -> Vec<WrittenKind> {
    let table = Table::shipped();
    let mut kinds: Vec<WrittenKind> = Vec::new();
    for one in served.iter().filter(|one| one.is_listable && one.kind != "Event") {
        let api_version = joined(&one.group, &one.version);
        let Some(life) = flagged(&api_version, &one.kind, target).filter(|life| life.removed.is_some()) else {
            continue;
        };
        if let Some(known) = kinds.iter_mut().find(|kind| kind.group == one.group && kind.resource == one.resource) {
            known.versions.push(one.version.clone());
            continue;
        }
        let is_quiet = |group: &str, version: &str, kind: &str| {
            let name = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
            let standing = table.find(&name, kind).map(|life| life.standing(current.unwrap_or(target)));
            standing.is_none_or(|standing| standing == Standing::Served)
        };
        let stays = |other: &&crate::snapshot::ServedResource| {
            let name = format!("{}/{}", other.group, other.version);
            other.group == one.group
                && other.resource == one.resource
                && is_quiet(&other.group, &other.version, &other.kind)
                && flagged(&name, &other.kind, target).is_none()
        };
        let successor = table.successor(life, target);
        let elsewhere = successor.filter(|found| {
            served.iter().any(|other| {
                format!("{}/{}", other.group, other.version) == found.api_version && other.kind == found.kind
            })
        });
        let listed_through = match (served.iter().find(stays), elsewhere) {
            (Some(other), _) => format!("{}/{}", other.group, other.version),
            (None, Some(found)) => found.api_version,
            // It is not deprecated now: asking for it leaves no trace that would be taken for a client's.
            (None, None) if is_quiet(&one.group, &one.version, &one.kind) => api_version,
            (None, None) => String::new(),
        };
        kinds.push(WrittenKind {
            group: one.group.clone(),
            kind: one.kind.clone(),
            resource: one.resource.clone(),
            versions: vec![one.version.clone()],
            listed_through,
            objects: Read::NotAsked,
        });
    }
    kinds
}

#[cfg(test)]
mod tests {
    //! The vectors of live authorship: who counts as a writer of an object, and what is said of it.

    use jiff::Timestamp;
    use shiplock_core::language::Language;
    use shiplock_core::version::MinorVersion;

    use super::*;
    use crate::api::authorship::FieldEntry;
    use crate::object::Objects;
    use crate::snapshot::{Effort, SNAPSHOT_SCHEMA, ServedResource};

    fn entry(manager: &str, operation: &str, api_version: &str, second: i64) -> FieldEntry {
        FieldEntry {
            manager: manager.into(),
            operation: operation.into(),
            api_version: api_version.into(),
            time: Timestamp::from_second(second).ok(),
            subresource: String::new(),
        }
    }

    fn object(entries: Vec<FieldEntry>, annotations: &[&str]) -> Written {
        let annotations = annotations.iter().map(|text| (*text).to_owned()).collect();
        Written { namespace: String::new(), name: "x".into(), entries, annotations }
    }

    fn served(group: &str, version: &str, kind: &str, resource: &str) -> ServedResource {
        ServedResource {
            group: group.into(),
            version: version.into(),
            kind: kind.into(),
            resource: resource.into(),
            is_listable: true,
        }
    }

    fn minor(text: &str) -> MinorVersion {
        text.parse().unwrap()
    }

    /// What is said of one object of a kind that a cluster serves in some versions.
    fn said(served: &[ServedResource], object: &Written, current: &str, target: &str) -> Vec<String> {
        said_under(Profile::Default, served, object, (current, target), None)
    }

    fn instance(line: &str) -> crate::snapshot::Instance {
        let mut metrics = metrics::Metrics::default();
        metrics.take(line);
        let address = "10.0.0.1:6443".to_owned();
        crate::snapshot::Instance {
            address,
            metrics: Read::Seen(metrics),
            version: Read::NotAsked,
            not_ready: Read::NotAsked,
        }
    }

    /// The same, with a line of an API server's metrics.
    fn said_with(
        served: &[ServedResource],
        object: &Written,
        current: &str,
        target: &str,
        counted: Option<&str>,
    ) -> Vec<String> {
        said_under(Profile::Default, served, object, (current, target), counted)
    }

    /// The same under a profile.
    fn said_under(
        profile: Profile,
        served: &[ServedResource],
        object: &Written,
        (current, target): (&str, &str),
        counted: Option<&str>,
    ) -> Vec<String> {
        let objects = std::slice::from_ref(object);
        let findings = findings_under(profile, served, objects, (current, target), counted);
        findings.iter().map(|found| format!("{:?} {} {}", found.outcome, found.check, found.sentence)).collect()
    }

    fn findings_under(
        profile: Profile,
        served: &[ServedResource],
        objects: &[Written],
        (current, target): (&str, &str),
        counted: Option<&str>,
    ) -> Vec<Finding> {
        let mut written = to_list(served, Some(minor(current)), minor(target));
        for kind in &mut written {
            let is_asked = !kind.listed_through.is_empty();
            kind.objects = if is_asked { Read::Seen(objects.to_vec()) } else { Read::NotSeen("deprecated".into()) };
        }
        let snapshot = Snapshot {
            schema: SNAPSHOT_SCHEMA,
            taken_at: Timestamp::UNIX_EPOCH,
            server: String::new(),
            version: format!("v{current}.0"),
            asked: crate::run::Selection::default(),
            served: Read::Seen(served.to_vec()),
            written,
            releases: Read::NotAsked,
            metrics: counted.map_or_else(Vec::new, |line| vec![instance(line)]),
            objects: Objects::default(),
            nodes: Vec::new(),
            nodes_unseen: None,
            dialled: Vec::new(),
            permissions: Vec::new(),
            copy: Read::NotAsked,
            effort: Effort::default(),
        };
        let question = Question {
            target: minor(target),
            current: Some(minor(current)),
            profile,
            now: Timestamp::UNIX_EPOCH,
            max_parallel: 10,
        };
        let (usages, mut findings) = judge(&snapshot, &question);
        findings.extend(crate::api::judge(usages, &question));
        findings
    }

    /// The findings on objects of a kind that is served in these versions, or of which API servers count some.
    fn found(served: &[ServedResource], objects: Vec<Written>, current: &str, target: &str) -> Vec<Finding> {
        findings_under(Profile::Default, served, &objects, (current, target), None)
    }

    #[test]
    fn an_object_that_nobody_is_known_to_write_is_told_once_with_what_makes_its_writer_known() {
        let candidates = ["v1beta1", "v1alpha2"]
            .map(|version| served("coordination.k8s.io", version, "LeaseCandidate", "leasecandidates"));
        let lease = Written { namespace: "kube-system".into(), ..object(vec![], &[]) };
        let [finding] = &found(&candidates, vec![lease], "1.35", "1.37")[..] else { panic!() };
        let fix = finding.fix(Language::En);
        let name = "leasecandidates.v1beta1.coordination.k8s.io x -n kube-system";
        assert!(fix.contains(&format!("kubectl get {name} -o yaml > FILE && kubectl apply --server-side")), "{fix}");
        let quoted = Written { name: "a;b'c".into(), ..object(vec![], &[]) };
        let [finding] = &found(&candidates, vec![quoted], "1.35", "1.37")[..] else { panic!() };
        assert!(finding.fix(Language::Zh).contains(r"coordination.k8s.io 'a;b'\''c' -o yaml"));
    }

    #[test]
    fn objects_that_go_away_are_named_and_can_be_saved_by_the_command_that_is_given() {
        let workloads = [served("scheduling.k8s.io", "v1alpha1", "Workload", "workloads")];
        let of = |count: usize| -> Vec<Written> {
            let name = |at| Written { namespace: "n".into(), name: format!("w{at}"), ..object(vec![], &[]) };
            (0..count).map(name).collect()
        };
        let said = |count| {
            let [finding] = &found(&workloads, of(count), "1.35", "1.36")[..] else { panic!("{count}") };
            (finding.subject.to_string(), finding.text(Language::En), finding.fix(Language::En))
        };
        let (subject, text, fix) = said(1);
        assert_eq!(subject, "Workload workloads.v1alpha1.scheduling.k8s.io");
        assert!(text.contains("holds 1 object of scheduling.k8s.io/v1alpha1 Workload, such as n/w0;"), "{text}");
        assert!(fix.contains("kubectl get workloads.v1alpha1.scheduling.k8s.io -A -o yaml > FILE"), "{fix}");
        let (_, text, _) = said(7);
        assert!(text.contains("holds 7 objects of"), "{text}");
        assert!(text.contains("such as n/w0, n/w1, n/w2, n/w3, n/w4;"), "{text}");
    }

    #[test]
    fn what_was_written_by_hand_has_a_way_out_that_clears_its_record() {
        let both = ["v1", "v1beta1"]
            .map(|version| served("storage.k8s.io", version, "VolumeAttributesClass", "volumeattributesclasses"));
        let old = "storage.k8s.io/v1beta1";
        for (manager, operation, is_cleared) in [
            ("kubectl-create", "Update", true),
            ("kubectl-edit", "Update", true),
            ("kubectl-client-side-apply", "Update", false),
            ("argocd", "Apply", false),
            ("kubectl", "Apply", false),
        ] {
            let [finding] =
                &found(&both, vec![object(vec![entry(manager, operation, old, 1)], &[])], "1.36", "1.37")[..]
            else {
                panic!("{manager}")
            };
            for language in [Language::En, Language::Zh] {
                let clears = r#"kubectl patch volumeattributesclasses.v1.storage.k8s.io NAME --type=json -p '[{"op":"replace","path":"/metadata/managedFields","value":[{}]}]' && kubectl get volumeattributesclasses.v1.storage.k8s.io NAME -o yaml > FILE && kubectl apply --server-side --field-manager=kubectl -f FILE"#;
                let fix = finding.fix(language);
                assert_eq!(fix.contains(clears), is_cleared, "{manager}: {fix}");
            }
        }
    }

    #[test]
    fn every_vector_of_authorship_is_judged_as_it_is() {
        let (old, new) = ("storage.k8s.io/v1beta1", "storage.k8s.io/v1");
        let kind = "VolumeAttributesClass";
        let both: Vec<ServedResource> =
            ["v1", "v1beta1"].map(|version| served("storage.k8s.io", version, kind, "volumeattributesclasses")).into();
        let kubectl = "kubectl-client-side-apply";
        let in_status = FieldEntry { subresource: "status".into(), ..entry("x", "Update", old, 9) };
        let (found, by_hand): (&[&str], &[&str]) = (&["Warn API-002 removed"], &["Warn API-002 removed-by-hand"]);
        for (name, object, expected) in [
            ("S1 client-side apply", object(vec![entry(kubectl, "Update", old, 1)], &[old]), found),
            ("S2 server-side apply", object(vec![entry("argocd", "Apply", old, 1)], &[]), found),
            ("S3 migrated, stale annotation", object(vec![entry(kubectl, "Update", new, 2)], &[old]), &[]),
            (
                "S4 the same manager, later through the new one",
                object(vec![entry("x", "Update", old, 1), entry("x", "Update", new, 2)], &[]),
                &[],
            ),
            ("kubectl create", object(vec![entry("kubectl-create", "Update", old, 1)], &[]), by_hand),
            ("kubectl edit", object(vec![entry("kubectl-edit", "Update", old, 1)], &[]), by_hand),
            ("S5 the status alone", object(vec![in_status, entry("x", "Update", new, 1)], &[]), &[]),
            ("S6 the API server itself", object(vec![entry("kube-apiserver", "Update", old, 1)], &[]), &[]),
            ("S8 an annotation of kapp alone", object(vec![], &[old]), &["Warn API-004 only-trace"]),
            ("S9 nothing at all", object(vec![], &[]), &["Unknown API-003 nobody"]),
            (
                "two managers, one of them through the old one",
                object(vec![entry("x", "Apply", old, 1), entry("y", "Apply", new, 2)], &[]),
                found,
            ),
        ] {
            assert_eq!(said(&both, &object, "1.36", "1.37"), expected, "{name}");
        }
    }

    #[test]
    fn an_annotation_of_another_kind_is_not_taken_for_the_object_s() {
        // S7: a ControllerRevision carries the annotation of its DaemonSet.
        let revisions = [served("apps", "v1", "ControllerRevision", "controllerrevisions")];
        let object = object(vec![], &["extensions/v1beta1"]);
        assert_eq!(said(&revisions, &object, "1.15", "1.16"), [""; 0]);
    }

    #[test]
    fn objects_of_a_kind_without_a_successor_block_whoever_wrote_them() {
        // S10: PodSecurityPolicy goes with 1.25.
        let policies = [served("policy", "v1beta1", "PodSecurityPolicy", "podsecuritypolicies")];
        let object = object(vec![entry("anybody", "Update", "policy/v1beta1", 1)], &[]);
        assert_eq!(said(&policies, &object, "1.20", "1.25"), ["Fail API-010 objects"]);
        // It is deprecated from 1.21 on and served by no other version: it is not asked for, and what is stored is counted.
        let count = |count: i32| {
            let line = format!("apiserver_storage_objects{{resource=\"podsecuritypolicies.policy\"}} {count}");
            said_with(&policies, &object, "1.24", "1.25", Some(&line))
        };
        assert_eq!(count(3), ["Fail API-010 counted"]);
        assert_eq!(count(0), [""; 0]);
        assert_eq!(count(-1), ["Unknown API-003 not-seen"]);
        let newer = "apiserver_resource_objects{group=\"policy\",resource=\"podsecuritypolicies\"} 2";
        assert_eq!(said_with(&policies, &object, "1.24", "1.25", Some(newer)), ["Fail API-010 counted"]);
    }

    #[test]
    fn a_cluster_that_is_too_old_for_the_successor_is_told_the_order() {
        // S19: 1.20 serves CronJobs as v1beta1 only; v1 came with 1.21.
        let jobs = [served("batch", "v1beta1", "CronJob", "cronjobs")];
        let object = object(vec![entry("ci", "Apply", "batch/v1beta1", 1)], &[]);
        let said = said(&jobs, &object, "1.20", "1.25");
        assert_eq!(said, ["Warn API-011 objects"]);
    }

    #[test]
    fn who_writes_through_the_only_version_that_is_served_blocks_its_removal_under_the_strict_profile() {
        let jobs = [served("batch", "v1beta1", "CronJob", "cronjobs")];
        let strict = |manager: &str| {
            let object = object(vec![entry(manager, "Apply", "batch/v1beta1", 1)], &[]);
            said_under(Profile::Strict, &jobs, &object, ("1.20", "1.25"), None)
        };
        assert_eq!(strict("ci"), ["Warn API-011 objects", "Fail API-002 removed-too-early"]);
        assert_eq!(strict("kube-controller-manager"), ["Warn API-011 objects"], "nobody but Kubernetes itself");
    }

    #[test]
    fn where_no_minor_serves_a_version_and_its_successor_the_way_out_leads_over_the_upgrade_itself() {
        // 1.36 drops Workload v1alpha1 and brings v1alpha2.
        let workloads = [served("scheduling.k8s.io", "v1alpha1", "Workload", "workloads")];
        let object = object(vec![entry("ci", "Apply", "scheduling.k8s.io/v1alpha1", 1)], &[]);
        let found = findings_under(Profile::Strict, &workloads, &[object], ("1.35", "1.36"), None);
        let [_, finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!((finding.sentence.as_str(), finding.outcome), ("removed-in-one-step", Outcome::Fail));
        for language in [Language::En, Language::Zh] {
            let fix = finding.fix(language);
            assert!(!fix.contains("1.36") && fix.contains("scheduling.k8s.io/v1alpha2 Workload"), "{fix}");
        }
    }

    #[test]
    fn what_the_target_does_not_serve_is_never_recommended() {
        // S20: PodCertificateRequest v1 comes with 1.37.
        let table = Table::shipped();
        for target in 16..=37 {
            let target = MinorVersion { major: 1, minor: target };
            for life in table.kinds() {
                if let Some(successor) = table.successor(life, target) {
                    let standing =
                        table.find(&successor.api_version, &successor.kind).map(|found| found.standing(target));
                    assert!(!matches!(standing, Some(Standing::Removed { .. })), "{life:?} at {target}");
                    assert!(successor.served_from.is_none_or(|from| from <= target), "{life:?} at {target}");
                }
            }
        }
    }
}
