//! From findings to a report: which checks were asked, what is accepted, what follows.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use shiplock_core::version::MinorVersion;

use crate::catalogue::{self, Category, Check, Scope};
use crate::question::Question;
use crate::report::{Finding, HORIZON, OF_THE_PLAN, Outcome, REPORT_SCHEMA, Report};
use crate::snapshot::Snapshot;
use crate::{api, cluster, node, tls};

/// Which checks are wanted: ids such as `API-005`, or prefixes such as `API`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Only these; all where it is empty.
    pub only: Vec<String>,
    /// Not these.
    pub skip: Vec<String>,
}

impl Selection {
    /// The first word that names no check and no category.
    pub fn unknown_word(&self) -> Option<&str> {
        let names = |word: &str| catalogue::all().iter().any(|check| is_named(check, word));
        self.only.iter().chain(&self.skip).map(String::as_str).find(|word| !names(word))
    }

    /// Whether a check is wanted.
    pub fn wants(&self, check: &Check) -> bool {
        let named = |words: &[String]| words.iter().any(|word| is_named(check, word));
        (self.only.is_empty() || named(&self.only)) && !named(&self.skip)
    }

    /// Whether a finding belongs into the report: one of a check that is wanted, or the reason why nothing is known of
    /// one, where that was not left out by name. A target of which nothing is known cannot be left out.
    fn wants_finding(&self, finding: &Finding) -> bool {
        if finding.check == HORIZON || self.wants_id(&finding.check) {
            return true;
        }
        let rests_on_it = |check: &Check| sources(check.id).contains(&finding.check.as_str());
        let decides = catalogue::all().iter().any(|check| rests_on_it(check) && self.wants(check));
        let left_out =
            catalogue::find(&finding.check).is_some_and(|check| self.skip.iter().any(|word| is_named(check, word)));
        finding.leaves_open() && decides && !left_out
    }

    /// A finding by the check that was asked for: what a release holds is told by the check of releases where the one that
    /// merges all sources is not wanted.
    fn as_asked(&self, finding: Finding) -> Finding {
        let of_release = api::of_release(&finding).filter(|other| self.wants_id(&other.check));
        of_release.filter(|_| !self.wants_id(&finding.check)).unwrap_or(finding)
    }

    /// Whether the check with this id is wanted, which may be one of a plan.
    pub fn wants_id(&self, id: &str) -> bool {
        if let Some(check) = catalogue::find(id) {
            return self.wants(check);
        }
        let category = Category::of(id).prefix();
        let named = |words: &[String]| {
            words.iter().any(|word| word.eq_ignore_ascii_case(id) || word.eq_ignore_ascii_case(category))
        };
        (self.only.is_empty() || named(&self.only)) && !named(&self.skip)
    }
}

/// What a check rests on, by their own checks: as long as one of them was not seen nothing is known of it.
fn sources(id: &str) -> &'static [&'static str] {
    match id {
        "API-001" | "API-002" => &["API-003", "API-005", "API-006", "API-007", HORIZON],
        "API-004" | "API-010" | "API-011" => &["API-003", HORIZON],
        "API-012" => &["API-007", HORIZON],
        // Of a certificate that was not seen no name, no end, no authority and no signature is known.
        "WHK-001" => &["WHK-006"],
        "WHK-002" | "WHK-003" | "WHK-004" => &["WHK-001", "WHK-006"],
        "WHK-012" => &["WHK-011"],
        _ => &[],
    }
}

fn is_named(check: &Check, word: &str) -> bool {
    check.id.eq_ignore_ascii_case(word)
        || check.category().prefix().eq_ignore_ascii_case(word)
        || check.name.eq_ignore_ascii_case(word)
}

/// Findings that somebody lets pass, with a reason and an end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acceptance {
    /// The id of the check.
    pub check: String,
    /// What it is about, as reports print it, with `*` for any text; all of the check's findings without it.
    pub subject: Option<String>,
    /// Why.
    pub reason: String,
    /// Who.
    #[serde(default)]
    pub author: String,
    /// The last day on which it holds.
    pub until: Option<Date>,
}

impl Acceptance {
    fn is_over(&self, today: Date) -> bool {
        self.until.is_some_and(|until| until < today)
    }

    /// Whether it is of this finding, which may pass at all.
    pub fn covers(&self, finding: &Finding) -> bool {
        finding.may_pass()
            && self.check.eq_ignore_ascii_case(&finding.check)
            && self.subject.as_ref().is_none_or(|pattern| matches(pattern, &finding.subject.to_string()))
    }
}

/// Whether a text fits a pattern with `*`.
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    if !pattern.contains('*') {
        return rest.is_empty();
    }
    let parts: Vec<&str> = parts.collect();
    let (last, middle) = parts.split_last().map_or(("", &parts[..]), |(last, middle)| (*last, middle));
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// The keys of findings that were there before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// See [`Finding::key`], each as often as it was found; with each file by one name, however it was given.
    pub findings: Vec<String>,
    /// That one name of each file, by how it was given; others are taken as they were given.
    #[serde(skip)]
    pub names: BTreeMap<String, String>,
}

impl Baseline {
    /// What a report finds now.
    pub fn of(report: &Report, names: BTreeMap<String, String>) -> Self {
        let empty = Self { findings: Vec::new(), names };
        let known = report.findings.iter().filter(|finding| finding.may_pass());
        let mut findings: Vec<String> = known.map(|one| empty.key(one)).collect();
        findings.sort_unstable();
        Self { findings, ..empty }
    }

    /// How many findings were there before, by key.
    fn numbers(&self) -> BTreeMap<&str, usize> {
        let mut numbers = BTreeMap::new();
        for key in &self.findings {
            *numbers.entry(key.as_str()).or_default() += 1;
        }
        numbers
    }

    /// Whether a finding is one of as many as were there before and are left.
    fn takes(&self, finding: &Finding, left: &mut BTreeMap<&str, usize>) -> bool {
        let left = left.get_mut(self.key(finding).as_str()).filter(|left| finding.may_pass() && **left > 0);
        left.map(|left| *left -= 1).is_some()
    }

    fn key(&self, finding: &Finding) -> String {
        let mut named = finding.clone();
        let file = named.place.as_mut().map(|place| &mut place.file);
        let subject =
            Some(&mut named.subject).filter(|subject| subject.kind == "File").map(|subject| &mut subject.name);
        for given in file.into_iter().chain(subject) {
            if let Some(name) = self.names.get(given) {
                name.clone_into(given);
            }
        }
        named.key()
    }
}

/// Judges a snapshot by every check: what a program does that reads no files besides.
pub fn judge(snapshot: &Snapshot, question: &Question) -> Vec<Finding> {
    let mut findings: Vec<Finding> = api::horizon(question).into_iter().collect();
    let (usages, of_apis) = api::live::judge(snapshot, question);
    findings.extend(of_apis);
    findings.extend(cluster::judge(snapshot, question));
    findings.extend(node::judge(snapshot, question));
    findings.extend(tls::judge(snapshot, question));
    findings.extend(api::judge(usages, question));
    findings
}

/// All that makes a report of findings.
#[derive(Clone, Debug)]
pub struct Assembly<'a> {
    /// The target that was asked about.
    pub target: MinorVersion,
    /// The version that runs.
    pub current: Option<String>,
    /// Which checks are wanted.
    pub selection: &'a Selection,
    /// What can be reached.
    pub scopes: &'a BTreeSet<&'static str>,
    /// Which checks a snapshot was read for, where nothing else is looked at: of others it holds nothing.
    pub collected: Option<&'a Selection>,
    /// Scopes that must be reached.
    pub required: &'a [String],
    /// Findings that may pass.
    pub acceptances: &'a [Acceptance],
    /// Findings that were there before.
    pub baseline: Option<&'a Baseline>,
    /// From which outcome on findings block.
    pub blocks_on: Outcome,
    /// The time of the run.
    pub now: Timestamp,
    /// What was read.
    pub read: BTreeMap<String, u64>,
    /// The ids of checks that a plan was asked by: what they say outranks what the catalogue says under the same id.
    pub of_the_plan: &'a [String],
}

impl Assembly<'_> {
    /// Makes the report.
    pub fn report(self, findings: Vec<Finding>) -> Report {
        let mut ran = Vec::new();
        let mut skipped = BTreeMap::new();
        for check in catalogue::all() {
            if !self.selection.wants(check) {
                continue;
            }
            if check.not_built.is_some() {
                skipped.insert(check.id.to_owned(), "not-built".to_owned());
            } else if self.collected.is_some_and(|collected| !collected.wants(check)) {
                skipped.insert(check.id.to_owned(), "not-collected".to_owned());
            } else if is_reached(check.scope, self.scopes) {
                ran.push(check.id.to_owned());
            } else {
                skipped.insert(check.id.to_owned(), format!("scope:{}", check.scope.word()));
            }
        }
        for id in self.of_the_plan {
            if self.selection.wants_id(id) && !ran.contains(id) {
                ran.push(id.clone());
                skipped.remove(id);
            }
        }
        let today = self.now.to_zoned(TimeZone::UTC).date();
        let of_the_plan: BTreeSet<&str> = self.of_the_plan.iter().map(String::as_str).collect();
        let outranked = |finding: &Finding| finding.sentence != OF_THE_PLAN && of_the_plan.contains(&*finding.check);
        // Also what was left out by name was not seen.
        let unseen: BTreeSet<String> =
            findings.iter().filter(|finding| finding.leaves_open()).map(|finding| finding.check.clone()).collect();
        let mut findings: Vec<Finding> = findings
            .into_iter()
            .map(|finding| self.selection.as_asked(finding))
            .filter(|finding| self.selection.wants_finding(finding) && !outranked(finding))
            .collect();
        findings.retain(|finding| {
            let is_skipped = finding.outcome == Outcome::Skipped;
            if is_skipped {
                let why = finding.parameters.get("why").cloned().unwrap_or_default();
                ran.retain(|id| *id != finding.check);
                skipped.insert(finding.check.clone(), why);
            }
            !is_skipped
        });
        ran.retain(|id| {
            if findings.iter().any(|finding| finding.check == *id) {
                return true;
            }
            let source = sources(id).iter().find(|source| unseen.contains(**source));
            source.inspect(|source| drop(skipped.insert(id.clone(), format!("unseen:{source}")))).is_none()
        });
        let (over, holding): (Vec<&Acceptance>, Vec<&Acceptance>) =
            self.acceptances.iter().partition(|acceptance| acceptance.is_over(today));
        let mut expired: Vec<Acceptance> = Vec::new();
        let mut left = self.baseline.map(Baseline::numbers).unwrap_or_default();
        for finding in &mut findings {
            // A check of the plan says itself what nobody may let pass, and what the plan lets pass.
            if finding.sentence == OF_THE_PLAN && (finding.accepted.is_some() || finding.outcome != Outcome::Fail) {
                continue;
            }
            let acceptance = holding.iter().find(|acceptance| acceptance.covers(finding));
            finding.accepted = match acceptance {
                Some(Acceptance { author, reason, .. }) if author.is_empty() => Some(reason.clone()),
                Some(Acceptance { author, reason, .. }) => Some(format!("{author}: {reason}")),
                None if self.baseline.is_some_and(|known| known.takes(finding, &mut left)) => {
                    Some("baseline".to_owned())
                }
                None => None,
            };
            if finding.counts() {
                for acceptance in over.iter().filter(|acceptance| acceptance.covers(finding)) {
                    if !expired.contains(acceptance) {
                        expired.push((*acceptance).clone());
                    }
                }
            }
        }
        let place = |finding: &Finding| {
            catalogue::all().iter().position(|check| check.id == finding.check).unwrap_or(usize::MAX)
        };
        findings.sort_by_cached_key(|finding| {
            (place(finding), finding.sentence.clone(), finding.subject.clone(), finding.place.clone(), finding.key())
        });
        let mut verdict = Report::verdict_of(findings.iter(), self.blocks_on);
        let is_missing = self.required.iter().any(|scope| !self.scopes.contains(scope.as_str()));
        // Where no check ran nothing is known.
        if (is_missing || ran.is_empty()) && verdict == crate::report::Verdict::Ready {
            verdict = crate::report::Verdict::Undecided;
        }
        Report {
            schema: REPORT_SCHEMA,
            target: self.target,
            current: self.current,
            verdict,
            ran,
            skipped,
            findings,
            expired,
            read: self.read,
        }
    }
}

fn is_reached(scope: Scope, scopes: &BTreeSet<&'static str>) -> bool {
    match scope {
        Scope::Any => [Scope::File, Scope::Cluster].iter().any(|one| scopes.contains(one.word())),
        one => scopes.contains(one.word()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Subject, Verdict};

    #[test]
    fn an_audit_log_answers_its_own_checks_alone() {
        let (selection, scopes) = (Selection::default(), BTreeSet::from(["audit-log"]));
        let report = bare(&selection, &scopes).report(Vec::new());
        assert_eq!(report.ran, ["API-009", "VER-011", "CP-010"]);
        assert_eq!((&*report.skipped["API-001"], &*report.skipped["API-007"]), ("scope:any", "scope:file"));
    }

    #[test]
    fn patterns_fit_whole_texts() {
        for (pattern, text, expected) in [
            ("Pod a/b", "Pod a/b", true),
            ("Pod a/b", "Pod a/bc", false),
            ("Pod a/*", "Pod a/bc", true),
            ("*", "", true),
            ("* a/*-x", "Pod a/b-x", true),
            ("* a/*-x", "Pod a/b-y", false),
            ("a*b*c", "abbbc", true),
            ("a*b*c", "ac", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    /// What is judged on its own: nothing is required, accepted or known from before.
    fn bare<'a>(selection: &'a Selection, scopes: &'a BTreeSet<&'static str>) -> Assembly<'a> {
        Assembly {
            target: MinorVersion { major: 1, minor: 37 },
            current: None,
            selection,
            scopes,
            collected: None,
            required: &[],
            acceptances: &[],
            baseline: None,
            blocks_on: Outcome::Fail,
            now: Timestamp::UNIX_EPOCH,
            read: BTreeMap::new(),
            of_the_plan: &[],
        }
    }

    #[test]
    fn what_is_accepted_or_was_there_before_changes_no_verdict_until_it_expires() {
        let finding = || {
            Finding::new("API-010", "objects", Outcome::Fail, Subject::new("PodPreset", "", "x")).with("api", "a/v1 K")
        };
        let acceptance = |until: &str| Acceptance {
            check: "api-010".into(),
            subject: Some("PodPreset *".into()),
            reason: "known".into(),
            author: "li".into(),
            until: Some(until.parse().unwrap()),
        };
        let known = Baseline { findings: [finding().key()].into(), ..Baseline::default() };
        let verdict = |acceptances: &[Acceptance], baseline: Option<&Baseline>| {
            let (selection, scopes) = (Selection::default(), BTreeSet::from(["cluster"]));
            let now = "2026-11-24T00:00:00Z".parse().unwrap();
            let assembly = Assembly { acceptances, baseline, now, ..bare(&selection, &scopes) };
            assembly.report(vec![finding()]).verdict
        };
        assert_eq!(verdict(&[], None), Verdict::Blocked);
        assert_eq!(verdict(&[acceptance("2026-11-24")], None), Verdict::Ready);
        assert_eq!(verdict(&[acceptance("2026-11-23")], None), Verdict::Blocked);
        assert_eq!(verdict(&[], Some(&known)), Verdict::Ready);
        let expired = |acceptances: &[Acceptance]| {
            let (selection, scopes) = (Selection::default(), BTreeSet::from(["cluster"]));
            let now = "2026-11-24T00:00:00Z".parse().unwrap();
            Assembly { acceptances, now, ..bare(&selection, &scopes) }.report(vec![finding()]).expired
        };
        let (ended, holding) = (acceptance("2026-11-23"), acceptance("2026-11-24"));
        let of_nothing = Acceptance { subject: Some("Pod *".into()), ..ended.clone() };
        // Each is told once, and only where it would still let something pass.
        assert_eq!(expired(&[ended.clone(), of_nothing, ended.clone()]), std::slice::from_ref(&ended));
        assert_eq!(expired(&[ended, holding]), []);
    }

    #[test]
    fn a_baseline_lets_no_more_of_the_same_pass_than_were_there_before() {
        let finding = || Finding::new("API-010", "objects", Outcome::Fail, Subject::new("Ingress", "", ""));
        let (selection, scopes) = (Selection::default(), BTreeSet::from(["cluster"]));
        let report = |findings: Vec<Finding>, baseline: Option<&Baseline>| {
            Assembly { baseline, ..bare(&selection, &scopes) }.report(findings)
        };
        let known = Baseline::of(&report(vec![finding(), finding()], None), BTreeMap::new());
        for (found, new) in [(1, 0), (2, 0), (3, 1)] {
            let report = report(vec![finding(); found], Some(&known));
            assert_eq!(report.count(Outcome::Fail), new, "{found}");
        }
    }

    #[test]
    fn what_a_release_holds_is_told_once_by_the_check_that_was_asked_for() {
        let finding = || {
            let finding =
                Finding::new("API-002", "removed-in-release", Outcome::Warn, Subject::new("Ingress", "n", "x"));
            finding.with("release", "r").with("namespace", "n").with("successor", "networking.k8s.io/v1 Ingress")
        };
        let told = |only: &[&str], skip: &[&str], finding: Finding| {
            let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
            let selection = Selection { only: words(only), skip: words(skip) };
            let report = bare(&selection, &BTreeSet::from(["cluster"])).report(vec![finding]);
            report.findings.into_iter().map(|found| format!("{} {}", found.check, found.sentence)).collect::<Vec<_>>()
        };
        assert_eq!(told(&[], &[], finding()), ["API-002 removed-in-release"]);
        assert_eq!(told(&["API-005"], &[], finding()), ["API-005 deployed"]);
        assert_eq!(told(&["API"], &["API-002"], finding()), ["API-005 deployed"]);
        assert_eq!(told(&["API-006"], &[], finding()), [""; 0]);
        let elsewhere = Finding::new("API-002", "removed", Outcome::Warn, Subject::new("Ingress", "n", "x"));
        assert_eq!(told(&["API-005"], &[], elsewhere), [""; 0]);
    }

    #[test]
    fn of_a_target_that_is_not_known_nothing_can_be_accepted() {
        let beyond = || Finding::new(HORIZON, "beyond", Outcome::Unknown, Subject::cluster());
        let acceptance = |check: &str| Acceptance {
            check: check.into(),
            subject: None,
            reason: "known".into(),
            author: "li".into(),
            until: None,
        };
        let (selection, scopes) = (Selection::default(), BTreeSet::from(["cluster"]));
        let acceptances = [acceptance(HORIZON), acceptance("API-005")];
        let known = Baseline { findings: [beyond().key()].into(), ..Baseline::default() };
        let assembly = || Assembly { acceptances: &acceptances, baseline: Some(&known), ..bare(&selection, &scopes) };
        let report = assembly().report(vec![beyond()]);
        assert_eq!(report.verdict, Verdict::Undecided);
        assert_eq!(Baseline::of(&report, BTreeMap::new()), Baseline::default());
        // What could not be seen from here a person can look at.
        assert_eq!(assembly().report(vec![Finding::unknown("API-005", "forbidden")]).verdict, Verdict::Ready);
    }

    #[test]
    fn what_was_not_seen_is_no_ready_whichever_checks_are_asked_for() {
        let verdict = |only: &str, skip: &[&str], finding: Finding| {
            let skip = skip.iter().map(|&word| word.to_owned()).collect();
            let selection = Selection { only: vec![only.into()], skip };
            let report = bare(&selection, &BTreeSet::from(["cluster", "file"])).report(vec![finding]);
            (report.verdict, report.ran.len())
        };
        let secrets = || Finding::unknown("API-005", "forbidden");
        let file = || Finding::new("API-007", "encoding", Outcome::Unknown, Subject::new("File", "", "x"));
        let beyond = || Finding::new("API-014", "beyond", Outcome::Unknown, Subject::cluster());
        for (only, finding) in [
            ("API-001", secrets()),
            ("API-002", secrets()),
            ("API-002", file()),
            ("removed-api", file()),
            ("API-012", file()),
            ("API-010", Finding::unknown("API-003", "forbidden")),
            ("API-002", beyond()),
            ("WHK-002", Finding::unknown("WHK-001", "forbidden")),
            ("WHK-003", Finding::unknown("WHK-001", "forbidden")),
            ("WHK-004", Finding::unknown("WHK-001", "forbidden")),
        ] {
            assert_eq!(verdict(only, &[], finding).0, Verdict::Undecided, "{only}");
        }
        // It is not counted among the checks that are well either.
        assert_eq!(verdict("API-002", &[], secrets()).1, 0);
        // Of other checks it says nothing.
        assert_eq!(verdict("WL-001", &[], secrets()), (Verdict::Ready, 1));
        // Whoever leaves it out by name lets the rest be judged, and what rests on it is not called well.
        assert_eq!(verdict("API-002", &["API-005"], secrets()), (Verdict::Undecided, 0));
        let without = verdict("API", &["API-005"], secrets());
        assert_eq!(without.0, Verdict::Ready);
        assert_eq!(without.1 + 2, verdict("API", &["API-005"], Finding::unknown("WL-001", "forbidden")).1);
        // Where nobody speaks TLS, or nobody is there, there is no certificate: that is told with its own weight.
        let cluster = Subject::cluster;
        for (only, check, sentence) in [
            ("WHK-003", "WHK-001", "no-handshake"),
            ("WHK-003", "WHK-006", "none"),
            ("WHK-001", "WHK-006", "none"),
            ("WHK-012", "WHK-011", "unavailable"),
        ] {
            let finding = |outcome| Finding::new(check, sentence, outcome, cluster());
            assert_eq!(verdict(only, &[], finding(Outcome::Fail)), (Verdict::Blocked, 0), "{only} {sentence}");
            assert_eq!(verdict(only, &[], finding(Outcome::Warn)), (Verdict::Undecided, 0), "{only} {sentence}");
        }
        // Of a target nothing is known, whatever is left out.
        assert_eq!(verdict("API", &["API-014"], beyond()).0, Verdict::Undecided);
    }

    #[test]
    fn a_scope_that_is_required_and_not_reached_leaves_the_verdict_open() {
        let report = |required: &[String], collected: Option<&Selection>| {
            let selection = Selection { only: vec!["API".into()], skip: Vec::new() };
            let scopes = BTreeSet::from(["file"]);
            Assembly { collected, required, ..bare(&selection, &scopes) }.report(Vec::new())
        };
        assert_eq!(report(&[], None).verdict, Verdict::Ready);
        assert_eq!(report(&["cluster".to_owned()], None).verdict, Verdict::Undecided);
        assert!(report(&[], None).ran.contains(&"API-007".to_owned()));
        assert_eq!(report(&[], None).skipped["API-003"], "scope:cluster");
        assert_eq!(report(&[], None).skipped["API-009"], "scope:audit-log", "files are no audit log");
        // A snapshot that was read for other checks says nothing of these, and a report of nothing is no "ready".
        let nodes = Selection { only: vec!["NODE".into()], skip: Vec::new() };
        let of_another = report(&[], Some(&nodes));
        assert_eq!((of_another.verdict, of_another.ran.len()), (Verdict::Undecided, 0));
        assert_eq!(of_another.skipped["API-007"], "not-collected");
    }
}
