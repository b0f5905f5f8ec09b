//! Reports as they go over the wire and into the store, with their texts in both languages.

use jiff::Timestamp;
use shiplock_api::check::{
    BothLanguages, CheckEvidence, CheckFinding, CheckReportView, CheckSubject, ExpiredAcceptance,
};
use shiplock_check::report::{Finding, Outcome, Report, Verdict};
use shiplock_check::run::Acceptance;
use shiplock_core::language::Language;

use super::Asked;

pub(super) fn report(id: String, asked: &Asked<'_>, report: &Report, made_at: Timestamp) -> CheckReportView {
    CheckReportView {
        id,
        cluster: asked.cluster.clone(),
        made_at,
        by: asked.by.clone(),
        upgrade: asked.upgrade.cloned(),
        plan: asked.plan.map(|plan| plan.id.clone()),
        policy: asked.policy,
        schema: report.schema,
        target: report.target,
        current: report.current.clone(),
        verdict: match report.verdict {
            Verdict::Ready => "ready",
            Verdict::Blocked => "blocked",
            Verdict::Undecided => "undecided",
        }
        .to_owned(),
        ran: report.ran.clone(),
        skipped: report.skipped.clone(),
        findings: report.findings.iter().map(finding).collect(),
        expired: report.expired.iter().map(expired).collect(),
        read: report.read.clone(),
        compared_with: None,
        gone: Vec::new(),
    }
}

fn expired(acceptance: &Acceptance) -> ExpiredAcceptance {
    ExpiredAcceptance {
        check: acceptance.check.clone(),
        subject: acceptance.subject.clone(),
        reason: acceptance.reason.clone(),
        author: acceptance.author.clone(),
        until: acceptance.until,
    }
}

fn finding(found: &Finding) -> CheckFinding {
    let both = |text: fn(&Finding, Language) -> String| BothLanguages {
        en: text(found, Language::En),
        zh: text(found, Language::Zh),
    };
    let seen = |evidence: &shiplock_check::report::Evidence| CheckEvidence {
        source: evidence.source.clone(),
        seen: evidence.seen.clone(),
    };
    CheckFinding {
        check: found.check.clone(),
        sentence: found.sentence.clone(),
        outcome: match found.outcome {
            Outcome::Pass => "pass",
            Outcome::Skipped => "skipped",
            Outcome::Warn => "warn",
            Outcome::Unknown => "unknown",
            Outcome::Fail => "fail",
        }
        .to_owned(),
        subject: CheckSubject {
            kind: found.subject.kind.clone(),
            namespace: found.subject.namespace.clone(),
            name: found.subject.name.clone(),
        },
        parameters: found.parameters.clone(),
        evidence: found.evidence.iter().map(seen).collect(),
        accepted: found.accepted.clone(),
        text: both(Finding::text),
        fix: both(Finding::fix),
        key: found.key(),
        known: None,
    }
}
