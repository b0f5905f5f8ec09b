//! Pre-checks: run, kept, compared; and findings that somebody lets pass.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use shiplock_core::id::{Actor, ClusterName, PlanId, UpgradeId};
use shiplock_core::version::MinorVersion;

/// Runs the pre-check: `POST /api/v1/clusters/{name}/checks`. It changes nothing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct CheckCreate {
    /// The minor to upgrade to; without it the plan's, or the one after the cluster's.
    pub to: Option<MinorVersion>,
    /// The policy.
    pub policy: CheckPolicy,
    /// Only these checks: ids, names or categories such as `API`.
    pub only: Vec<String>,
    /// Not these checks.
    pub skip: Vec<String>,
    /// Asks against this plan: only its nodes, with its mirror and images.
    pub plan: Option<PlanId>,
}

/// The policy for checks whose severity a policy may choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CheckPolicy {
    /// Deprecated and removed APIs advise.
    #[default]
    Default,
    /// Removed APIs block.
    Strict,
}

/// A text in both languages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct BothLanguages {
    /// English.
    pub en: String,
    /// Chinese.
    pub zh: String,
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CheckSubject {
    /// The kind of object, or `Cluster`, `HelmRelease`, `Client`.
    pub kind: String,
    /// The namespace; empty where there is none.
    #[serde(default)]
    pub namespace: String,
    /// The name.
    pub name: String,
}

/// One thing that supports a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CheckEvidence {
    /// The check that reads this kind of evidence.
    pub source: String,
    /// What was seen.
    pub seen: String,
}

/// One finding of a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CheckFinding {
    /// The id of the check.
    pub check: String,
    /// Which of the check's sentences this is.
    pub sentence: String,
    /// `warn`, `fail`, `unknown` or `skipped`.
    pub outcome: String,
    /// What it is about.
    pub subject: CheckSubject,
    /// The parameters of its sentence.
    pub parameters: BTreeMap<String, String>,
    /// What supports it.
    #[serde(default)]
    pub evidence: Vec<CheckEvidence>,
    /// Who accepted it and why; it then changes no verdict.
    #[serde(default)]
    pub accepted: Option<String>,
    /// What was found.
    pub text: BothLanguages,
    /// What to do.
    pub fix: BothLanguages,
    /// Names the finding over reports: no counts, no times.
    pub key: String,
    /// Whether the report before had it already; none where there was no report before.
    #[serde(default)]
    pub known: Option<bool>,
}

/// An acceptance that lets nothing pass any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ExpiredAcceptance {
    /// The id of the check.
    pub check: String,
    /// What it was about; none for all of the check's findings.
    pub subject: Option<String>,
    /// Why it was given.
    pub reason: String,
    /// Who gave it.
    pub author: String,
    /// The last day on which it held.
    pub until: Option<Date>,
}

/// A report: `GET /api/v1/checks/{id}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CheckReportView {
    /// Its id.
    pub id: String,
    /// Its cluster.
    pub cluster: ClusterName,
    /// When it was made.
    pub made_at: Timestamp,
    /// Who asked for it.
    pub by: Actor,
    /// The upgrade whose start it guarded, if it did.
    #[serde(default)]
    pub upgrade: Option<UpgradeId>,
    /// The plan that it was asked against, if it was.
    #[serde(default)]
    pub plan: Option<PlanId>,
    /// The policy.
    pub policy: CheckPolicy,
    /// The schema of this form.
    pub schema: u32,
    /// The target.
    pub target: MinorVersion,
    /// The version that runs.
    #[serde(default)]
    pub current: Option<String>,
    /// `ready`, `blocked` or `undecided`.
    pub verdict: String,
    /// The ids of the checks that ran.
    pub ran: Vec<String>,
    /// The ids of the checks that did not run, each with the reason.
    pub skipped: BTreeMap<String, String>,
    /// Everything but passes.
    pub findings: Vec<CheckFinding>,
    /// Acceptances that had ended and would otherwise have let a finding pass.
    #[serde(default)]
    pub expired: Vec<ExpiredAcceptance>,
    /// What was read: names and numbers.
    pub read: BTreeMap<String, u64>,
    /// The report before, if there is one.
    #[serde(default)]
    pub compared_with: Option<String>,
    /// Findings of the report before that are gone.
    #[serde(default)]
    pub gone: Vec<CheckFinding>,
}

impl CheckReportView {
    /// Says of each finding whether another report had it, and which of that report's are gone. Checks that did not run
    /// this time are not compared: what nobody looked at is not gone.
    pub fn compare(&mut self, before: &Self) {
        let had = Told::of(&before.findings);
        let known: Vec<bool> = self.findings.iter().map(|found| had.tells(found)).collect();
        let now = Told::of(&self.findings);
        let is_gone = |found: &&CheckFinding| !now.tells(found) && self.ran.contains(&found.check);
        self.gone = before.findings.iter().filter(is_gone).cloned().collect();
        for (finding, known) in self.findings.iter_mut().zip(known) {
            finding.known = Some(known);
        }
        self.compared_with = Some(before.id.clone());
    }

    /// How many findings came out so, without accepted ones.
    pub fn count(&self, outcome: &str) -> usize {
        self.findings.iter().filter(|found| found.outcome == outcome && found.accepted.is_none()).count()
    }
}

/// The sentence of what a check of a plan found, which asks the same as the catalogue's check of its id.
const OF_THE_PLAN: &str = "of-the-plan";

/// What a report tells, for comparison with another one.
struct Told<'a> {
    keys: BTreeSet<&'a str>,
    places: BTreeSet<(&'a str, &'a CheckSubject)>,
    places_of_the_plan: BTreeSet<(&'a str, &'a CheckSubject)>,
}

impl<'a> Told<'a> {
    fn of(findings: &'a [CheckFinding]) -> Self {
        let of_the_plan = findings.iter().filter(|found| found.sentence == OF_THE_PLAN);
        Self {
            keys: findings.iter().map(|found| found.key.as_str()).collect(),
            places: findings.iter().map(CheckFinding::place).collect(),
            places_of_the_plan: of_the_plan.map(CheckFinding::place).collect(),
        }
    }

    /// Whether it tells a finding too. A check of a plan says in words of its own what the catalogue's says.
    fn tells(&self, found: &CheckFinding) -> bool {
        let places = if found.sentence == OF_THE_PLAN { &self.places } else { &self.places_of_the_plan };
        self.keys.contains(found.key.as_str()) || places.contains(&found.place())
    }
}

impl CheckFinding {
    fn place(&self) -> (&str, &CheckSubject) {
        (&self.check, &self.subject)
    }
}

/// A row of `GET /api/v1/clusters/{name}/checks`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CheckReportRow {
    /// Its id.
    pub id: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// Who asked for it.
    pub by: Actor,
    /// The upgrade whose start it guarded, if it did.
    pub upgrade: Option<UpgradeId>,
    /// The target.
    pub target: MinorVersion,
    /// `ready`, `blocked` or `undecided`.
    pub verdict: String,
    /// Failures that are not accepted.
    pub failed: usize,
    /// What could not be seen.
    pub unknown: usize,
    /// Warnings.
    pub warned: usize,
    /// Findings that are accepted.
    pub accepted: usize,
}

impl From<&CheckReportView> for CheckReportRow {
    fn from(report: &CheckReportView) -> Self {
        Self {
            id: report.id.clone(),
            made_at: report.made_at,
            by: report.by.clone(),
            upgrade: report.upgrade.clone(),
            target: report.target,
            verdict: report.verdict.clone(),
            failed: report.count("fail"),
            unknown: report.count("unknown"),
            warned: report.count("warn"),
            accepted: report.findings.iter().filter(|found| found.accepted.is_some()).count(),
        }
    }
}

/// Lets findings of one check pass: `POST /api/v1/clusters/{name}/acceptances`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct AcceptanceCreate {
    /// The id of the check.
    pub check: String,
    /// What it is about, as reports print it, such as `Node w-1`, with `*` for any text; without it all of the check's
    /// findings.
    #[serde(default)]
    pub subject: Option<String>,
    /// Why.
    pub reason: String,
    /// The last day on which it holds; 30 days from now without it.
    #[serde(default)]
    pub until: Option<Date>,
}

/// What lets findings pass: `GET /api/v1/clusters/{name}/acceptances`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct AcceptanceView {
    /// Its id.
    pub id: String,
    /// The id of the check.
    pub check: String,
    /// What it is about; none for all of the check's findings.
    pub subject: Option<String>,
    /// Why.
    pub reason: String,
    /// Who.
    pub by: Actor,
    /// When it was given.
    pub given_at: Timestamp,
    /// The last day on which it holds.
    pub until: Date,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: &[(&str, &str, &str)]) -> CheckReportView {
        let both = || BothLanguages { en: String::new(), zh: String::new() };
        let finding = |&(check, sentence, name): &(&str, &str, &str)| CheckFinding {
            check: check.to_owned(),
            sentence: sentence.to_owned(),
            outcome: "warn".to_owned(),
            subject: CheckSubject { kind: "Node".to_owned(), namespace: String::new(), name: name.to_owned() },
            parameters: BTreeMap::new(),
            evidence: Vec::new(),
            accepted: None,
            text: both(),
            fix: both(),
            key: [check, sentence, name].join("|"),
            known: None,
        };
        CheckReportView {
            id: "r".to_owned(),
            cluster: "lab".into(),
            made_at: Timestamp::UNIX_EPOCH,
            by: "li".into(),
            upgrade: None,
            plan: None,
            policy: CheckPolicy::default(),
            schema: 1,
            target: "1.37".parse().unwrap(),
            current: None,
            verdict: "ready".to_owned(),
            ran: findings.iter().map(|(check, ..)| (*check).to_owned()).chain(["NODE-009".to_owned()]).collect(),
            skipped: BTreeMap::new(),
            findings: findings.iter().map(finding).collect(),
            expired: Vec::new(),
            read: BTreeMap::new(),
            compared_with: None,
            gone: Vec::new(),
        }
    }

    #[test]
    fn what_the_catalogue_and_a_plan_say_of_one_thing_is_neither_new_nor_gone() {
        let plain = [("CP-008", "edited", "m1"), ("NODE-009", "full", "w1"), ("NODE-011", "pressure", "w1")];
        let of_a_plan = [("CP-008", OF_THE_PLAN, "m1"), ("CP-008", OF_THE_PLAN, "m2"), ("NODE-011", "other", "w1")];
        for (before, now, known, gone) in [
            (plain, of_a_plan, [true, false, false], vec!["NODE-009", "NODE-011"]),
            (of_a_plan, plain, [true, false, false], vec!["CP-008", "NODE-011"]),
            (plain, plain, [true; 3], vec![]),
        ] {
            let mut shown = report(&now);
            shown.compare(&report(&before));
            let told: Vec<bool> = shown.findings.iter().map(|found| found.known.unwrap()).collect();
            assert_eq!(told, known, "{now:?}");
            let told: Vec<&str> = shown.gone.iter().map(|found| found.check.as_str()).collect();
            assert_eq!(told, gone, "{now:?}");
        }
    }
}
