//! What stops a start and what does not, over plans of a whole cluster.

use std::collections::BTreeMap;

use shiplock_check::report::REPORT_SCHEMA;
use shiplock_core::plan::PlanOptions;
use shiplock_core::sample;

use super::*;

fn plan(options: PlanOptions) -> Plan {
    let cluster = sample::cluster_with_masters(1, 2);
    sample::plan_of(&cluster, &sample::request_for_all("1.36", options)).unwrap()
}

fn report(findings: Vec<Finding>) -> Report {
    Report {
        schema: REPORT_SCHEMA,
        target: "1.36".parse().unwrap(),
        current: Some("v1.35.4".to_owned()),
        verdict: Verdict::Ready,
        ran: Vec::new(),
        skipped: BTreeMap::new(),
        findings,
        expired: Vec::new(),
        read: BTreeMap::new(),
    }
}

fn on_node(check: &'static str, sentence: &'static str, outcome: Outcome, node: &str) -> Finding {
    Finding::new(check, sentence, outcome, Subject::new("Node", "", node)).with("node", node)
}

/// The one finding as the log keeps it.
fn kept(found: Finding, plan: &Plan) -> Option<PlanFinding> {
    findings(&report(vec![found]), plan).pop()
}

fn node_of(plan: &Plan, kind: fn(&StageKind) -> bool) -> String {
    let stage = plan.stages.iter().find(|stage| kind(&stage.kind)).unwrap();
    stage.nodes[0].node.to_string()
}

#[test]
fn what_fails_on_a_node_of_the_plan_stops_the_start_and_elsewhere_it_only_warns() {
    let plan = plan(PlanOptions::default());
    let node = node_of(&plan, |kind| matches!(kind, StageKind::NodePool { .. }));
    for (name, outcome, expected) in [
        (node.as_str(), Outcome::Fail, CheckResult::Fail),
        (node.as_str(), Outcome::Unknown, CheckResult::Unknown),
        (node.as_str(), Outcome::Warn, CheckResult::Warn),
        ("elsewhere", Outcome::Fail, CheckResult::Warn),
        ("elsewhere", Outcome::Unknown, CheckResult::Warn),
    ] {
        let found = kept(on_node("NODE-006", "refused", outcome, name), &plan).unwrap();
        assert_eq!(found.result, expected, "{name} {outcome:?}");
        assert_eq!(found.check, "NODE-006");
    }
    let advice = kept(on_node("NODE-021", "unresolved", Outcome::Unknown, &node), &plan).unwrap();
    assert_eq!(advice.result, CheckResult::Warn, "what only advises stops nothing, seen or not");
    assert_eq!(kept(on_node("NODE-003", "silent", Outcome::Fail, &node), &plan), None, "AGT-001 says it");
}

#[test]
fn a_pod_that_does_not_end_stops_the_plan_of_its_node_and_one_that_nobody_makes_anew_stops_none() {
    let plan = plan(PlanOptions::default());
    let node = node_of(&plan, |kind| matches!(kind, StageKind::NodePool { .. }));
    for (check, sentence, name, expected) in [
        ("WL-013", "stuck", node.as_str(), CheckResult::Fail),
        ("WL-013", "stuck", "elsewhere", CheckResult::Warn),
        ("WL-009", "naked", node.as_str(), CheckResult::Warn),
    ] {
        let found = Finding::new(check, sentence, Outcome::Fail, Subject::new("Pod", "shop", "a"));
        let found = kept(found.with("node", name).with("finalizers", "-"), &plan).unwrap();
        assert_eq!(found.result, expected, "{check} on {name}");
    }
}

#[test]
fn what_a_stage_repairs_before_it_matters_is_a_pass_and_names_the_stage() {
    let plan = plan(PlanOptions::default());
    let node = node_of(&plan, |kind| matches!(kind, StageKind::NodePool { .. }));
    let found = kept(on_node("VER-010", "containerd-1", Outcome::Warn, &node), &plan).unwrap();
    let stage = found.repaired_by_stage.unwrap();
    assert_eq!(found.result, CheckResult::Pass);
    assert!(plan.stages[stage - 1].nodes.iter().any(|planned| planned.node.as_str() == node), "stage {stage}");
    let master = node_of(&plan, |kind| *kind == StageKind::ControlPlane);
    for (path, repaired) in [("/etc/kubernetes/pki/apiserver.crt", true), ("/etc/kubernetes/pki/ca.crt", false)] {
        let ending = on_node("WHK-014", "soon", Outcome::Fail, &master).with("path", path).with("days", 1);
        assert_eq!(kept(ending, &plan).unwrap().repaired_by_stage.is_some(), repaired, "{path}");
    }
}

#[test]
fn an_accepted_finding_stops_nothing_and_says_who_let_it_pass() {
    let plan = plan(PlanOptions { accept: vec!["NODE-008".to_owned()], ..PlanOptions::default() });
    let node = node_of(&plan, |kind| matches!(kind, StageKind::NodePool { .. }));
    let by_plan = kept(on_node("NODE-008", "full", Outcome::Fail, &node), &plan).unwrap();
    assert!(by_plan.accepted && by_plan.accepted_by.is_some());
    let by_hand =
        Finding { accepted: Some("li: known".to_owned()), ..on_node("NODE-009", "full", Outcome::Fail, &node) };
    let by_hand = kept(by_hand, &plan).unwrap();
    assert_eq!((by_hand.accepted, by_hand.accepted_by.as_deref()), (true, Some("li: known")));
    let report = shiplock_core::check::CheckReport { findings: vec![by_plan, by_hand] };
    assert_eq!(report.blocking().count(), 0);
}

#[test]
fn what_a_check_of_the_plan_found_counts_in_the_report_and_passes_where_it_is_accepted() {
    let cluster = sample::cluster_with_masters(1, 2);
    let plan = plan(PlanOptions::default());
    let agents = sample::agents(&cluster, sample::at(0));
    let own = shiplock_core::check::check_plan(&plan, &cluster, &agents, sample::at(0)).findings;
    let shown: Vec<Finding> = own.iter().filter_map(of_the_plan).collect();
    let [only] = shown.as_slice() else { panic!("{shown:?}") };
    assert_eq!((only.check.as_str(), only.outcome), ("CP-003", Outcome::Fail));
    let problem = own.iter().find(|found| found.check == "CP-003").unwrap().problem.as_ref().unwrap();
    for language in [Language::En, Language::Zh] {
        assert_eq!(only.text(language), problem.sentence(language));
        assert_eq!(only.fix(language), problem.fix(language));
    }
    assert_eq!(verdict(&report(shown.clone()), &plan), Verdict::Blocked);
    assert_eq!(accepted_of_the_plan(&report(shown.clone())).count(), 0);
    let let_pass = report(vec![Finding { accepted: Some("li: at night".to_owned()), ..only.clone() }]);
    assert_eq!(verdict(&let_pass, &plan), Verdict::Ready);
    // With it the check of the plan lets the start pass too.
    let mut joined = CheckReport { findings: own.clone() };
    assert_eq!(joined.blocking().count(), 1);
    joined.join(accepted_of_the_plan(&let_pass));
    assert_eq!((joined.blocking().count(), joined.findings.len()), (0, own.len()));
    let agentless =
        shiplock_core::check::check_plan(&plan, &cluster, &std::collections::BTreeMap::new(), sample::at(0));
    let missing = agentless.findings.iter().find(|found| found.check == "AGT-001").unwrap();
    let unheard = report(vec![Finding { accepted: Some("li: no".to_owned()), ..of_the_plan(missing).unwrap() }]);
    let mut held = agentless.clone();
    held.join(accepted_of_the_plan(&unheard));
    assert_eq!(held.blocking().count(), agentless.blocking().count(), "what nobody may let pass does not pass");
}

#[test]
fn the_texts_are_kept_in_both_languages_and_the_verdict_is_of_the_plan() {
    let plan = plan(PlanOptions::default());
    let node = node_of(&plan, |kind| matches!(kind, StageKind::NodePool { .. }));
    let found = on_node("NODE-006", "refused", Outcome::Fail, &node).with("devices", "/swapfile");
    let problem = kept(found.clone(), &plan).unwrap().problem.unwrap();
    for language in [Language::En, Language::Zh] {
        assert_eq!(problem.sentence(language), found.text(language));
        assert_eq!(problem.fix(language), found.fix(language));
    }
    let verdict_of = |found: Finding| verdict(&report(vec![found]), &plan);
    assert_eq!(verdict_of(found), Verdict::Blocked);
    assert_eq!(verdict_of(on_node("NODE-006", "refused", Outcome::Unknown, &node)), Verdict::Undecided);
    assert_eq!(verdict_of(on_node("NODE-006", "refused", Outcome::Fail, "elsewhere")), Verdict::Ready);
}
