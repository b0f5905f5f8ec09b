//! Deprecated and removed APIs, from five sources, merged for each object and caller.
//!
//! Sources say what they saw as [`Usage`]; [`judge`] says what it means at the target. A version in an answer of the
//! API server is never taken for the version that somebody writes.

pub mod audit;
pub mod authorship;
pub mod constraint;
pub mod files;
pub mod helm;
pub mod live;
pub mod metrics;
pub mod newer;

use std::collections::BTreeMap;

use shiplock_core::version::MinorVersion;

use crate::catalogue;
use crate::lifecycle::{KindLifecycle, Standing, Table};
use crate::question::{Profile, Question};
use crate::report::{Evidence, Finding, Outcome, Place, Subject};

/// Where the reasons and ways out of removals are told.
const GUIDE: &str = "https://kubernetes.io/docs/reference/using-api/deprecation-guide/";

/// The oldest release of which the table is held against Kubernetes' own words.
const OLDEST_TARGET: MinorVersion = MinorVersion { major: 1, minor: 16 };

/// One use of a version of a kind that some release deprecates or removes.
#[derive(Clone, Debug)]
pub struct Usage {
    /// The life of that version.
    pub life: &'static KindLifecycle<'static>,
    /// The object.
    pub subject: Subject,
    /// Where it is written, if in a file.
    pub place: Option<Place>,
    /// What was seen, by which source.
    pub evidence: Evidence,
    /// Who must write it otherwise, where that asks for more than another version.
    pub author: Author,
}

/// Who wrote an object through a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Author {
    /// Whoever the evidence names.
    Any,
    /// A person, by a command of kubectl, which leaves a record that no later writing takes away.
    ByHand,
    /// Helm: what it stored of a deployed release must change besides what its chart writes.
    Release {
        /// The namespace of the release.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// The life of a kind that the target deprecates or removes.
pub fn flagged(api_version: &str, kind: &str, target: MinorVersion) -> Option<&'static KindLifecycle<'static>> {
    let life = Table::shipped().find(api_version, kind)?;
    (life.standing(target) != Standing::Served).then_some(life)
}

/// What the uses mean at the target: one finding for each object, with all that supports it.
pub fn judge(usages: Vec<Usage>, question: &Question) -> Vec<Finding> {
    let mut merged: BTreeMap<(String, Subject, Option<Place>), Finding> = BTreeMap::new();
    for Usage { life, subject, place, evidence, author } in usages {
        let key = (life.api_version(), subject.clone(), place.clone());
        if let Some(known) = merged.get_mut(&key) {
            if !known.evidence.contains(&evidence) {
                known.evidence.push(evidence);
            }
            if let Author::Release { namespace, name } = &author {
                in_release(known, namespace, name);
            }
        } else if let Some(mut finding) = judge_one(life, subject, question) {
            finding.place = place;
            match &author {
                Author::Any => {}
                Author::ByHand => finding = by_hand(finding, life, question),
                Author::Release { namespace, name } => in_release(&mut finding, namespace, name),
            }
            finding.evidence.push(evidence);
            merged.insert(key, finding);
        }
    }
    merged.into_values().collect()
}

/// The same for an object that was written by hand, where the version that takes its place is served now: its record
/// must be cleared besides.
fn by_hand(finding: Finding, life: &KindLifecycle<'_>, question: &Question) -> Finding {
    let table = Table::shipped();
    let sentence = match finding.sentence.as_str() {
        "deprecated" => "deprecated-by-hand",
        "removed" => "removed-by-hand",
        _ => return finding,
    };
    let is_served_now = |from: MinorVersion| question.current.is_none_or(|current| from <= current);
    let successor = table.successor(life, question.target).filter(|next| next.served_from.is_none_or(is_served_now));
    let next =
        successor.and_then(|next| table.find(&next.api_version, &next.kind)).filter(|next| next.kind == life.kind);
    let Some((next, resource)) = next.and_then(|next| Some((next, next.resource?))) else { return finding };
    let object = if finding.subject.namespace.is_empty() { "NAME" } else { "NAME -n NAMESPACE" };
    Finding { sentence: sentence.to_owned(), ..finding }
        .with("resource", live::kubectl_name(resource, &next.api_version()))
        .with("object", object)
}

/// Says of an object that a deployed release holds what changes the release.
fn in_release(finding: &mut Finding, namespace: &str, release: &str) {
    if finding.parameters.contains_key("release") {
        return;
    }
    let named =
        [("release", release), ("namespace", namespace)].map(|(name, value)| (name.to_owned(), value.to_owned()));
    finding.parameters.extend(named);
    say_more(finding, "in-release");
}

/// Takes the form of a finding's sentence that says this too, if its check has such a one.
fn say_more(finding: &mut Finding, what: &str) {
    let sentence = format!("{}-{what}", finding.sentence);
    if catalogue::find(&finding.check).is_some_and(|check| check.sentence(&sentence).is_some()) {
        finding.sentence = sentence;
    }
}

/// What a deployed release holds, told by the check of releases: for those who ask for that one and not for the one that
/// merges all sources. None of a finding that no release supports.
pub(crate) fn of_release(finding: &Finding) -> Option<Finding> {
    let is_merged = ["API-001", "API-002"].contains(&finding.check.as_str());
    if !is_merged || !finding.parameters.contains_key("release") {
        return None;
    }
    let is_succeeded = finding.parameters.get("successor").is_some_and(|successor| successor != "-");
    let sentence = if is_succeeded { "deployed" } else { "deployed-no-successor" };
    Some(Finding { check: "API-005".to_owned(), sentence: sentence.to_owned(), ..finding.clone() })
}

/// What the use of a version means at the target; none where it is served and not deprecated.
pub fn judge_one(life: &KindLifecycle<'_>, subject: Subject, question: &Question) -> Option<Finding> {
    let target = question.target;
    let successor = Table::shipped().successor(life, target);
    let named = successor.as_ref().map(|found| format!("{} {}", found.api_version, found.kind));
    let api = format!("{} {}", life.api_version(), life.kind);
    let finding = match life.standing(target) {
        Standing::Served => return None,
        Standing::Deprecated { since, removed } => {
            let sentence = if removed.is_some() { "deprecated" } else { "deprecated-for-good" };
            let finding = Finding::new("API-001", sentence, Outcome::Warn, subject).with("since", since);
            removed.into_iter().fold(finding, |finding, removed| finding.with("removed", removed))
        }
        Standing::Removed { since } => {
            let outcome = if question.profile == Profile::Strict { Outcome::Fail } else { Outcome::Warn };
            // The cluster that runs may be too old for the successor: then there is a version where both are served.
            let served_from = successor.as_ref().and_then(|found| found.served_from);
            let too_early = served_from.filter(|from| question.current.is_some_and(|current| *from > current));
            match (&named, too_early) {
                (None, _) => Finding::new("API-002", "removed-for-good", outcome, subject).with("guide", GUIDE),
                (_, Some(from)) => {
                    let sentence = if from < since { "removed-too-early" } else { "removed-in-one-step" };
                    Finding::new("API-002", sentence, outcome, subject).with("served_from", from)
                }
                _ => Finding::new("API-002", "removed", outcome, subject),
            }
            .with("since", since)
        }
    };
    Some(succeeded_by(finding.with("api", api).with("target", target), named))
}

/// Says in a finding about a version what takes its place. Where nothing does, its sentence is the one without a successor,
/// if its check has such a one.
fn succeeded_by(mut finding: Finding, successor: Option<String>) -> Finding {
    if successor.is_none() {
        say_more(&mut finding, "no-successor");
    }
    finding.with("successor", successor.as_deref().unwrap_or("-"))
}

/// A finding if the target is beyond what the table knows, or before it.
pub fn horizon(question: &Question) -> Option<Finding> {
    let newest = Table::shipped().newest_release;
    let finding = |sentence| {
        Finding::new("API-014", sentence, Outcome::Unknown, Subject::cluster()).with("target", question.target)
    };
    if question.target > newest {
        return Some(finding("beyond").with("newest", newest));
    }
    (question.target < OLDEST_TARGET).then(|| finding("before").with("oldest", OLDEST_TARGET))
}

#[cfg(test)]
mod tests {
    use shiplock_core::language::Language;

    use super::*;

    fn question(target: &str, current: &str) -> Question {
        Question {
            target: target.parse().unwrap(),
            current: current.parse().ok(),
            profile: Profile::Default,
            now: jiff::Timestamp::UNIX_EPOCH,
            max_parallel: 10,
        }
    }

    #[test]
    fn where_nothing_takes_the_place_of_a_version_the_way_out_says_so_and_names_none() {
        let table = Table::shipped();
        for target in 16..=37 {
            for life in table.kinds() {
                let found =
                    judge_one(life, Subject::new(life.kind, "", "x"), &question(&format!("1.{target}"), "1.15"));
                let Some(found) = found else { continue };
                for language in [Language::En, Language::Zh] {
                    let fix = found.fix(language);
                    let is_alone = table.successor(life, found.parameters["target"].parse().unwrap()).is_none();
                    assert!(!is_alone || !fix.contains(" - ") && !fix.ends_with(" -"), "{life:?}: {fix}");
                    assert!(!is_alone || !fix.contains("written as"), "{life:?}: {fix}");
                }
            }
        }
    }
}
