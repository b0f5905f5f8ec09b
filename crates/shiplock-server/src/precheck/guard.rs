//! What a report of the pre-check means for the start of an upgrade: pure rules over the report and its plan.
//!
//! A finding stops the start only where it concerns the plan, and not where the plan itself repairs it before it
//! matters. An unknown stops the start on a check that could stop it.

use shiplock_check::catalogue::{self, Severity};
use shiplock_check::report::{Finding, OF_THE_PLAN, Outcome, Report, Subject, Verdict};
use shiplock_core::check::{CheckReport, CheckResult, Finding as PlanFinding};
use shiplock_core::language::Language;
use shiplock_core::plan::{NodePlan, Plan, Stage, StageKind};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::Action;

/// Checks of the catalogue that a check of the plan asks better: about agents, and about what runs on masters.
const ASKED_BY_THE_PLAN: [(&str, &str); 2] = [("NODE-003", "missing"), ("NODE-003", "silent")];
/// Checks about masters alone: where the plan does not touch the control plane they stop nothing.
const OF_MASTERS: [&str; 2] = ["CP-008", "WHK-014"];

/// The parameter that keeps the subject as a check of the plan has it.
const SUBJECT: &str = "subject";

/// What a report says of the start of its plan.
pub(crate) fn verdict(report: &Report, plan: &Plan) -> Verdict {
    let own = report.findings.iter().filter_map(as_of_the_plan);
    let stops = CheckReport { findings: findings(report, plan).into_iter().chain(own).collect() };
    match stops.blocking().map(|found| found.result).collect::<Vec<_>>().as_slice() {
        [] => Verdict::Ready,
        stopping if stopping.contains(&CheckResult::Fail) => Verdict::Blocked,
        _ => Verdict::Undecided,
    }
}

/// The findings of a report, as the log of an upgrade keeps them.
pub(crate) fn findings(report: &Report, plan: &Plan) -> Vec<PlanFinding> {
    report.findings.iter().filter_map(|found| finding(found, plan)).collect()
}

/// What a check of the plan itself found, for a report; none for a pass.
pub(crate) fn of_the_plan(found: &PlanFinding) -> Option<Finding> {
    let outcome = match found.result {
        CheckResult::Pass => return None,
        CheckResult::Warn => Outcome::Warn,
        CheckResult::Fail => Outcome::Fail,
        CheckResult::Unknown => Outcome::Unknown,
    };
    let (kind, name) = found.subject.split_once(' ').unwrap_or((&found.subject, ""));
    let subject = match kind {
        "cluster" => Subject::cluster(),
        "node" => Subject::new("Node", "", name),
        _ => match name.split_once('/') {
            Some((namespace, name)) => Subject::new(kind, namespace, name),
            None => Subject::new(kind, "", name),
        },
    };
    let problem = found.problem.as_ref()?;
    let both = |text: &dyn Fn(Language) -> String| [text(Language::En), text(Language::Zh)];
    let (text, fix) = (both(&|language| problem.sentence(language)), both(&|language| problem.fix(language)));
    let mut shown = Finding::of_the_plan(&found.check, outcome, subject, text, fix).with(SUBJECT, &found.subject);
    for cause in &problem.causes {
        shown = shown.seen(&found.check, cause);
    }
    if found.accepted {
        shown.accepted = Some(found.accepted_by.clone().unwrap_or_else(|| "--accept".to_owned()));
    }
    Some(shown)
}

/// Of what checks of the plan found, what somebody lets pass; as the log of an upgrade keeps it.
pub(crate) fn accepted_of_the_plan(report: &Report) -> impl Iterator<Item = PlanFinding> {
    report.findings.iter().filter_map(as_of_the_plan).filter(|found| found.accepted)
}

/// What [`of_the_plan`] took into a report, without its texts.
fn as_of_the_plan(found: &Finding) -> Option<PlanFinding> {
    let result = match found.outcome {
        _ if found.sentence != OF_THE_PLAN => return None,
        Outcome::Pass | Outcome::Skipped => CheckResult::Pass,
        Outcome::Warn => CheckResult::Warn,
        Outcome::Unknown => CheckResult::Unknown,
        Outcome::Fail => CheckResult::Fail,
    };
    Some(PlanFinding {
        check: found.check.clone(),
        result,
        subject: found.parameters.get(SUBJECT)?.clone(),
        problem: None,
        accepted: found.accepted.is_some(),
        accepted_by: found.accepted.clone(),
        repaired_by_stage: None,
    })
}

/// The pre-check itself failed: nothing is known, which is not OK.
pub(crate) fn not_checked(plan: &Plan, problem: Problem) -> Vec<PlanFinding> {
    vec![PlanFinding {
        check: "CP-001".to_owned(),
        result: CheckResult::Unknown,
        subject: format!("cluster {}", plan.cluster),
        problem: Some(problem),
        accepted: false,
        accepted_by: None,
        repaired_by_stage: None,
    }]
}

fn finding(found: &Finding, plan: &Plan) -> Option<PlanFinding> {
    if found.sentence == OF_THE_PLAN {
        return None;
    }
    let check = catalogue::find(&found.check)?;
    if ASKED_BY_THE_PLAN.contains(&(check.id, found.sentence.as_str())) {
        return None;
    }
    let repaired_by_stage = repaired_by(found, plan);
    let result = match found.outcome {
        _ if repaired_by_stage.is_some() => CheckResult::Pass,
        Outcome::Pass | Outcome::Skipped => return None,
        Outcome::Warn => CheckResult::Warn,
        Outcome::Fail if concerns(found, plan) => CheckResult::Fail,
        Outcome::Fail => CheckResult::Warn,
        Outcome::Unknown if check.severity == Severity::Blocking && concerns(found, plan) => CheckResult::Unknown,
        Outcome::Unknown => CheckResult::Warn,
    };
    let in_plan = found.may_pass() && plan.options.accepts(&found.check);
    Some(PlanFinding {
        check: found.check.clone(),
        result,
        subject: found.subject.to_string(),
        problem: Some(problem(found)),
        accepted: found.accepted.is_some() || in_plan,
        accepted_by: found.accepted.clone().or_else(|| in_plan.then(|| format!("{}: --accept", plan.created_by))),
        repaired_by_stage,
    })
}

/// The texts as they were when it was found, in both languages: a log says for ever what it said then.
fn problem(found: &Finding) -> Problem {
    Problem::new(Code::CheckFinding)
        .with("check", &found.check)
        .with("text", found.text(Language::En))
        .with("text_zh", found.text(Language::Zh))
        .with("fix", found.fix(Language::En))
        .with("fix_zh", found.fix(Language::Zh))
}

/// Whether a finding is about what the plan touches. A node that it leaves alone stops nothing.
fn concerns(found: &Finding, plan: &Plan) -> bool {
    let with_masters = plan.stages.iter().any(|stage| stage.kind == StageKind::ControlPlane);
    if found.subject.kind == "Node" && node(found, plan).is_none() {
        return false;
    }
    // The drain of an upgrade needs no force for what nobody makes anew: the plan itself tells what it ends.
    if found.check == "WL-009" {
        return false;
    }
    let holds = |name: &String| plan.nodes().any(|node| node.node.as_str() == name);
    if found.check == "WL-013" && found.parameters.get("node").is_some_and(|name| !holds(name)) {
        return false;
    }
    let has_pool = |stage: &Stage| stage.kind.pool().is_some_and(|pool| pool.as_str() == found.subject.name);
    if found.subject.kind == "NodePool" && !plan.stages.iter().any(has_pool) {
        return false;
    }
    with_masters || !OF_MASTERS.contains(&found.check.as_str())
}

fn node<'a>(found: &Finding, plan: &'a Plan) -> Option<&'a NodePlan> {
    plan.nodes().find(|node| node.node.as_str() == found.subject.name)
}

/// The stage, from 1, that repairs what was found before it matters.
fn repaired_by(found: &Finding, plan: &Plan) -> Option<usize> {
    let does: fn(&Action, &Plan) -> bool = match (found.check.as_str(), found.sentence.as_str()) {
        // The node gets the runtime that its new kubelet needs, ahead of the kubelet.
        ("VER-010", "containerd-1") => |action, _| matches!(action, Action::UpgradeContainerRuntime { .. }),
        // kubeadm renews what has not ended yet while it writes the manifests.
        ("WHK-014", "soon") => {
            |action, plan| matches!(action, Action::UpgradeControlPlane(_)) && plan.options.renew_certificates
        }
        _ => return None,
    };
    let steps = &node(found, plan)?.steps;
    let renewed_elsewhere = found.check == "WHK-014"
        && found.parameters.get("path").is_none_or(|path| {
            // Authorities are not renewed, and neither is the kubelet's.
            path.ends_with("/ca.crt") || path.ends_with("-ca.crt") || path.ends_with("kubelet.conf")
        });
    if renewed_elsewhere || !steps.iter().any(|step| does(&step.action, plan)) {
        return None;
    }
    let number = steps.first()?.number;
    let holds = |stage: &Stage| stage.nodes.iter().any(|node| node.steps.iter().any(|step| step.number == number));
    plan.stages.iter().position(holds).map(|index| index + 1)
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
