//! What one run of the checks found, and what follows from it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use shiplock_core::language::Language;
use shiplock_core::version::MinorVersion;

use crate::catalogue::{self, Check};
use crate::run::Acceptance;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All is well.
    Pass,
    /// It was not asked for, or cannot be reached by design; this changes no verdict.
    Skipped,
    /// It should be looked at; the upgrade may start.
    Warn,
    /// It could not be seen. Unknown is not OK.
    Unknown,
    /// The upgrade must not start.
    Fail,
}

/// What a finding is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// The kind of object, or `File`, `HelmRelease`, `Client`, `Cluster`.
    pub kind: String,
    /// The namespace; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// Where in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The path as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: u32,
}

/// One thing that was seen and supports a finding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Evidence {
    /// The check that reads this kind of evidence, such as `API-005`.
    pub source: String,
    /// What was seen; names and versions, never content.
    pub seen: String,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The id of the check, such as `API-002`.
    pub check: String,
    /// Which of the check's sentences this is.
    pub sentence: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What it is about.
    pub subject: Subject,
    /// Where it is written, if in a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// The parameters of the sentence and of the fix.
    pub parameters: BTreeMap<String, String>,
    /// What supports it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// Who accepted it and why, or the ignore rule or baseline that holds it; it then changes no verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<String>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.namespace.as_str(), self.name.as_str()) {
            (_, "") => write!(f, "{}", self.kind),
            ("", name) => write!(f, "{} {name}", self.kind),
            (namespace, name) => write!(f, "{} {namespace}/{name}", self.kind),
        }
    }
}

impl Subject {
    /// An object in a namespace; the namespace may be empty.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        Self { kind: kind.to_owned(), namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The cluster as a whole.
    pub fn cluster() -> Self {
        Self::new("Cluster", "", "")
    }
}

/// The check of the target itself: beyond what is known of Kubernetes nothing else is known either.
pub const HORIZON: &str = "API-014";

/// The sentence of what a check of a plan found: it brings its texts in both languages as parameters.
pub const OF_THE_PLAN: &str = "of-the-plan";

impl Finding {
    /// What a check of a plan found; the texts and the fixes are English, Chinese.
    pub fn of_the_plan(check: &str, outcome: Outcome, subject: Subject, text: [String; 2], fix: [String; 2]) -> Self {
        let parameters = ["text", "text_zh", "fix", "fix_zh"].map(str::to_owned).into_iter();
        Self {
            check: check.to_owned(),
            sentence: OF_THE_PLAN.to_owned(),
            outcome,
            subject,
            place: None,
            parameters: parameters.zip(text.into_iter().chain(fix)).collect(),
            evidence: Vec::new(),
            accepted: None,
        }
    }

    /// A finding with one of the sentences of its check.
    pub fn new(check: &'static str, sentence: &'static str, outcome: Outcome, subject: Subject) -> Self {
        debug_assert!(
            catalogue::find(check).is_some_and(|check| check.sentence(sentence).is_some()),
            "{check} {sentence}"
        );
        Self {
            check: check.to_owned(),
            sentence: sentence.to_owned(),
            outcome,
            subject,
            place: None,
            parameters: BTreeMap::new(),
            evidence: Vec::new(),
            accepted: None,
        }
    }

    /// A check whose input could not be read.
    pub fn unknown(check: &'static str, why: impl fmt::Display) -> Self {
        Self::new(check, catalogue::NOT_SEEN, Outcome::Unknown, Subject::cluster()).with("why", why)
    }

    /// A check that has nothing to look at by design; the report counts it among those that did not run.
    pub fn skipped(check: &'static str, reason: impl fmt::Display) -> Self {
        Self::new(check, catalogue::NOT_SEEN, Outcome::Skipped, Subject::cluster()).with("why", reason)
    }

    /// The same with a parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.parameters.insert(name.to_owned(), value.to_string());
        self
    }

    /// The same with something that supports it.
    #[must_use]
    pub fn seen(mut self, source: &str, seen: impl fmt::Display) -> Self {
        self.evidence.push(Evidence { source: source.to_owned(), seen: seen.to_string() });
        self
    }

    /// What stays the same between two runs as long as the finding is the same: no counts, no times, no lines.
    pub fn key(&self) -> String {
        let api = self.parameters.get("api").map_or("", String::as_str);
        let file = self.place.as_ref().map_or("", |place| place.file.as_str());
        [&self.check, &self.sentence, &self.subject.to_string(), api, file].join("|")
    }

    /// The sentence in a language.
    pub fn text(&self, language: Language) -> String {
        match self.brought(language.pick("text", "text_zh")) {
            Some(text) => text,
            None => self.fill(language, |check| check.sentence(&self.sentence)),
        }
    }

    /// What to do, in a language.
    pub fn fix(&self, language: Language) -> String {
        match self.brought(language.pick("fix", "fix_zh")) {
            Some(fix) => fix,
            None => self.fill(language, |check| check.fix_of(&self.sentence)),
        }
    }

    fn brought(&self, name: &str) -> Option<String> {
        (self.sentence == OF_THE_PLAN).then(|| self.parameters.get(name).cloned().unwrap_or_default())
    }

    fn fill(&self, language: Language, pick: impl Fn(&'static Check) -> Option<[&'static str; 2]>) -> String {
        let Some([english, chinese]) = catalogue::find(&self.check).and_then(pick) else {
            return self.sentence.clone();
        };
        fill(language.pick(english, chinese), &self.parameters)
    }

    /// Whether somebody may let it pass. What a person can look at may be accepted, also where it could not be seen from
    /// here; of a target that is not known nobody can look at anything.
    pub fn may_pass(&self) -> bool {
        self.check != HORIZON
    }

    /// Whether what it is about was not seen, so that nothing is known of what rests on that.
    pub fn leaves_open(&self) -> bool {
        // Where nobody is there or speaks TLS, no certificate was shown.
        let shows_none = match self.check.as_str() {
            "WHK-001" => self.sentence == "no-handshake",
            check => ["WHK-006", "WHK-011"].contains(&check),
        };
        self.outcome == Outcome::Unknown || shows_none
    }

    /// Whether it changes the verdict.
    pub fn counts(&self) -> bool {
        self.accepted.is_none()
    }
}

/// Puts parameters into a text; unknown ones stay as they are. `{count:object|objects}` is a number with its word.
fn fill(text: &str, parameters: &BTreeMap<String, String>) -> String {
    let mut filled = String::with_capacity(text.len() + 32);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        filled.push_str(before);
        let placed = after.split_once('}').and_then(|(inner, after)| {
            let (name, words) =
                inner.split_once(':').map_or((inner, None), |(name, words)| (name, words.split_once('|')));
            Some((parameters.get(name)?, words, after))
        });
        match placed {
            Some((value, words, after)) => {
                filled.push_str(value);
                if let Some((one, many)) = words {
                    filled.push(' ');
                    filled.push_str(if value == "1" { one } else { many });
                }
                rest = after;
            }
            None => {
                filled.push('{');
                rest = after;
            }
        }
    }
    filled + rest
}

/// What the findings mean for a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Nothing that was seen stops an upgrade.
    Ready,
    /// Findings stop it.
    Blocked,
    /// What must be known could not be seen.
    Undecided,
}

/// One run of the checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The schema of this form.
    pub schema: u32,
    /// The target that was asked about.
    pub target: MinorVersion,
    /// The version that runs, where a cluster was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// The verdict.
    pub verdict: Verdict,
    /// The ids of the checks that ran, in order.
    pub ran: Vec<String>,
    /// The ids of the checks that did not run, each with the reason.
    pub skipped: BTreeMap<String, String>,
    /// Everything but passes.
    pub findings: Vec<Finding>,
    /// Acceptances that have ended and would otherwise let a finding pass.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expired: Vec<Acceptance>,
    /// What was read: names and numbers.
    pub read: BTreeMap<String, u64>,
}

/// The schema of [`Report`].
pub const REPORT_SCHEMA: u32 = 1;

impl Report {
    /// The verdict over findings.
    pub fn verdict_of<'a>(findings: impl Iterator<Item = &'a Finding>, blocks_on: Outcome) -> Verdict {
        let worst = findings.filter(|finding| finding.counts()).map(|finding| match finding.outcome {
            Outcome::Warn if blocks_on == Outcome::Warn => Outcome::Fail,
            outcome => outcome,
        });
        match worst.max() {
            Some(Outcome::Fail) => Verdict::Blocked,
            Some(Outcome::Unknown) => Verdict::Undecided,
            _ => Verdict::Ready,
        }
    }

    /// How many findings came out so, without accepted ones.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.findings.iter().filter(|finding| finding.outcome == outcome && finding.counts()).count()
    }

    /// How many checks ran and found nothing.
    pub fn passed(&self) -> usize {
        let found: std::collections::BTreeSet<&str> =
            self.findings.iter().map(|finding| finding.check.as_str()).collect();
        self.ran.iter().filter(|id| !found.contains(id.as_str())).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_filled_and_a_brace_that_is_none_stays() {
        let parameters = BTreeMap::from([("a".to_owned(), "x".to_owned())]);
        for (text, expected) in [("{a} b", "x b"), ("{b} {a}", "{b} x"), ("{", "{"), ("jsonpath={.a}", "jsonpath={.a}")]
        {
            assert_eq!(fill(text, &parameters), expected);
        }
    }

    #[test]
    fn a_number_is_followed_by_the_word_that_fits_it() {
        for (count, expected) in [("1", "1 day ago"), ("2", "2 days ago"), ("0", "0 days ago"), ("21", "21 days ago")] {
            let parameters = BTreeMap::from([("days".to_owned(), count.to_owned())]);
            assert_eq!(fill("{days:day|days} ago", &parameters), expected);
        }
        let patch = r#"'[{"op":"replace","value":[{}]}]'"#;
        assert_eq!(fill(patch, &BTreeMap::new()), patch);
    }

    #[test]
    fn a_failure_outranks_what_is_unknown_and_warnings_block_only_where_that_is_asked() {
        let finding = |outcome| Finding::new("API-001", "deprecated", outcome, Subject::cluster());
        let verdict = |outcomes: &[Outcome], blocks_on| {
            let findings: Vec<Finding> = outcomes.iter().map(|outcome| finding(*outcome)).collect();
            Report::verdict_of(findings.iter(), blocks_on)
        };
        for (outcomes, normal, careful) in [
            (&[][..], Verdict::Ready, Verdict::Ready),
            (&[Outcome::Skipped], Verdict::Ready, Verdict::Ready),
            (&[Outcome::Warn], Verdict::Ready, Verdict::Blocked),
            (&[Outcome::Unknown, Outcome::Warn], Verdict::Undecided, Verdict::Blocked),
            (&[Outcome::Unknown, Outcome::Fail], Verdict::Blocked, Verdict::Blocked),
        ] {
            assert_eq!(verdict(outcomes, Outcome::Fail), normal, "{outcomes:?}");
            assert_eq!(verdict(outcomes, Outcome::Warn), careful, "{outcomes:?}");
        }
        let accepted = Finding { accepted: Some("li: known".into()), ..finding(Outcome::Fail) };
        assert_eq!(Report::verdict_of([accepted].iter(), Outcome::Fail), Verdict::Ready);
    }
}
