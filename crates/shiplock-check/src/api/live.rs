//! Live objects: who writes them through a version that goes away, judged over a snapshot.

use super::authorship::{Authorship, authorship};
use super::{Usage, flagged, helm, metrics};
use crate::lifecycle::{KindLifecycle, Standing, Table};
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
                for version in &kind.versions {
                    written(kind, version, objects, question, &mut usages, &mut findings);
                }
            }
            // It is not asked for, since that would be a use of it; API servers count what is stored.
            Some(Err(_)) if kind.listed_through.is_empty() && stored_of(kind).is_some() => {
                let count = stored_of(kind).unwrap_or_default();
                for version in &kind.versions {
                    let api_version = joined(&kind.group, version);
                    let life = flagged(&api_version, &kind.kind, question.target);
                    let standing = life.map(|life| (life, life.standing(question.target)));
                    if let Some((life, Standing::Removed { since })) = standing {
                        findings.extend(going_away(life, since, count, question));
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
    version: &str,
    objects: &[super::authorship::Written],
    question: &Question,
    usages: &mut Vec<Usage>,
    findings: &mut Vec<Finding>,
) {
    let api_version = joined(&kind.group, version);
    let Some(life) = flagged(&api_version, &kind.kind, question.target) else { return };
    let is_only_version = kind.listed_through == api_version;
    if let (true, Standing::Removed { since }) = (is_only_version, life.standing(question.target)) {
        findings.extend(going_away(life, since, objects.len(), question));
        // Who writes them breaks; that blocks under the strict profile alone.
        if question.profile == Profile::Default {
            return;
        }
    }
    for object in objects {
        let subject = || Subject::new(&kind.kind, &object.namespace, &object.name);
        match authorship(object, &api_version) {
            Authorship::Writes { manager, operation, time } => {
                let when = time.map(|time| format!(" at {time}")).unwrap_or_default();
                let seen = format!("field manager {manager} ({operation}){when}");
                let evidence = Evidence { source: "API-003".to_owned(), seen };
                usages.push(Usage { life, subject: subject(), place: None, evidence });
            }
            Authorship::OnlyAnnotation => {
                let successor = Table::shipped().successor(life, question.target);
                let sentence = if successor.is_some() { "only-trace" } else { "only-trace-no-successor" };
                let successor = successor.map_or_else(|| "-".to_owned(), |found| found.api_version);
                let finding = Finding::new("API-004", sentence, Outcome::Warn, subject());
                findings.push(finding.with("api", format!("{api_version} {}", kind.kind)).with("successor", successor));
            }
            Authorship::Unknown => {
                let finding = Finding::new("API-003", "nobody", Outcome::Unknown, subject());
                let finding = finding.with("subject", subject()).with("resource", &kind.resource);
                findings.push(finding.with("name", &object.name).with("api", &api_version));
            }
            Authorship::Other => {}
        }
    }
}

/// Objects of a kind that has no other version now.
fn going_away(
    life: &KindLifecycle<'_>,
    since: shiplock_core::version::MinorVersion,
    count: usize,
    question: &Question,
) -> Option<Finding> {
    if count == 0 {
        return None;
    }
    let successor = Table::shipped().successor(life, question.target);
    let api = format!("{} {}", life.api_version(), life.kind);
    let subject = Subject::new(life.kind, "", "");
    let finding = match successor {
        Some(successor) => Finding::new("API-011", "objects", Outcome::Warn, subject)
            .with("successor", format!("{} {}", successor.api_version, successor.kind)),
        None if life.version.contains("alpha") => {
            Finding::new("API-011", "objects", Outcome::Warn, subject).with("successor", "-")
        }
        None => Finding::new("API-010", "objects", Outcome::Fail, subject).with("guide", GUIDE),
    };
    Some(finding.with("api", api).with("count", count).with("since", since))
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
    use shiplock_core::version::MinorVersion;

    use super::*;
    use crate::api::authorship::{FieldEntry, Written};
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
        let mut written = to_list(served, Some(minor(current)), minor(target));
        for kind in &mut written {
            let is_asked = !kind.listed_through.is_empty();
            kind.objects = if is_asked { Read::Seen(vec![object.clone()]) } else { Read::NotSeen("deprecated".into()) };
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
        findings.iter().map(|found| format!("{:?} {} {}", found.outcome, found.check, found.sentence)).collect()
    }

    #[test]
    fn every_vector_of_authorship_is_judged_as_it_is() {
        let (old, new) = ("storage.k8s.io/v1beta1", "storage.k8s.io/v1");
        let kind = "VolumeAttributesClass";
        let both: Vec<ServedResource> =
            ["v1", "v1beta1"].map(|version| served("storage.k8s.io", version, kind, "volumeattributesclasses")).into();
        let kubectl = "kubectl-client-side-apply";
        let in_status = FieldEntry { subresource: "status".into(), ..entry("x", "Update", old, 9) };
        let found: &[&str] = &["Warn API-002 removed"];
        for (name, object, expected) in [
            ("S1 client-side apply", object(vec![entry(kubectl, "Update", old, 1)], &[old]), found),
            ("S2 server-side apply", object(vec![entry("argocd", "Apply", old, 1)], &[]), found),
            ("S3 migrated, stale annotation", object(vec![entry(kubectl, "Update", new, 2)], &[old]), &[]),
            (
                "S4 the same manager, later through the new one",
                object(vec![entry("x", "Update", old, 1), entry("x", "Update", new, 2)], &[]),
                &[],
            ),
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
        assert_eq!(count(3), ["Fail API-010 objects"]);
        assert_eq!(count(0), [""; 0]);
        assert_eq!(count(-1), ["Unknown API-003 not-seen"]);
        let newer = "apiserver_resource_objects{group=\"policy\",resource=\"podsecuritypolicies\"} 2";
        assert_eq!(said_with(&policies, &object, "1.24", "1.25", Some(newer)), ["Fail API-010 objects"]);
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
