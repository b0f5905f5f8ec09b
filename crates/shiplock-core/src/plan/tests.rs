//! What a plan promises.

use super::{DrainDecision, DrainPolicy, Note, PlanOptions, StageKind};
use crate::facts::{BudgetFacts, ClusterFacts, PodFacts, Readiness};
use crate::id::{NodeName, PoolName};
use crate::problem::Code;
use crate::sample::{artefacts, cluster, node, plan_of, request};
use crate::step::Action;
use crate::version::KubernetesVersion;

#[test]
fn a_plan_prepares_everything_then_takes_one_pool_after_the_other_and_verifies() {
    let plan = plan_of(&cluster(&[("blue", 2), ("green", 1)]), &request("1.36", PlanOptions::default())).unwrap();
    let stages: Vec<_> = plan.stages.iter().map(|stage| &stage.kind).collect();
    let pool = |name: &str| StageKind::NodePool { pool: PoolName::from(name) };
    assert_eq!(stages, [&StageKind::Preparation, &pool("blue"), &pool("green"), &StageKind::Verification]);
    let kinds =
        |index: usize| plan.stages[1].nodes[index].steps.iter().map(|step| step.action.kind()).collect::<Vec<_>>();
    let expected = ["cordon", "drain", "upgrade_container_runtime", "upgrade_kubelet", "verify_node", "uncordon"];
    assert_eq!(kinds(0), expected);
    assert_eq!(kinds(1), expected);
}

#[test]
fn step_numbers_rise_without_gaps_over_all_stages() {
    let plan = plan_of(&cluster(&[("blue", 3), ("green", 2)]), &request("1.36", PlanOptions::default())).unwrap();
    let mut numbers: Vec<u32> = plan.steps().map(|step| step.number.0).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=u32::try_from(numbers.len()).unwrap()).collect::<Vec<_>>());
}

#[test]
fn equal_plans_have_equal_hashes_and_another_digest_gives_another_hash() {
    let facts = cluster(&[("blue", 2)]);
    let request = request("1.36", PlanOptions::default());
    let plan = plan_of(&facts, &request).unwrap();
    let mut renamed = plan.clone();
    renamed.id = "p2".into();
    assert_eq!(plan.hash, renamed.content_hash());
    let mut changed = plan.clone();
    let Action::Prefetch { files, .. } = &mut changed.stages[0].steps[1].action else { panic!("a prefetch") };
    files[0].sha256 = "5".repeat(64);
    assert_ne!(plan.hash, changed.content_hash());
}

#[test]
fn bad_requests_are_refused_with_their_code_before_anything_is_touched() {
    let mut facts = cluster(&[("blue", 2)]);
    let code = |facts: &_, to: &str| plan_of(facts, &request(to, PlanOptions::default())).unwrap_err().code;
    assert_eq!(code(&facts, "1.99"), Code::VersionNotInCatalogue);
    assert_eq!(code(&facts, "1.34"), Code::Downgrade, "a downgrade of the pool");
    assert_eq!(code(&facts, "1.37"), Code::ControlPlaneNotSupported);
    assert_eq!(code(&facts, "v1.36.4"), Code::KubeletNewerThanApiServer);
    facts.api_servers[0].version = KubernetesVersion::new(1, 35, 4);
    assert_eq!(code(&facts, "1.37"), Code::NoEdge, "a skipped minor names the way");
    facts.api_servers[0].version = KubernetesVersion::new(1, 33, 1);
    assert_eq!(code(&facts, "1.36"), Code::BelowSupportedRange);
    facts.api_servers.clear();
    assert_eq!(code(&facts, "1.36"), Code::ClusterAnswer, "unknown is not fine");
}

#[test]
fn the_oldest_api_server_bounds_the_kubelets() {
    let mut facts = cluster(&[("blue", 1)]);
    let mut older = facts.api_servers[0].clone();
    older.version = KubernetesVersion::new(1, 35, 4);
    facts.api_servers.push(older);
    let problem = plan_of(&facts, &request("v1.36.3", PlanOptions::default())).unwrap_err();
    assert_eq!(problem.code, Code::ControlPlaneNotSupported);
}

#[test]
fn unknown_pools_and_nodes_are_named_and_options_out_of_bounds_are_refused() {
    let facts = cluster(&[("blue", 1)]);
    let mut asked = request("1.36", PlanOptions::default());
    asked.pools = vec!["red".into()];
    assert_eq!(plan_of(&facts, &asked).unwrap_err().code, Code::PoolUnknown);
    let mut asked = request("1.36", PlanOptions::default());
    asked.nodes = vec!["blue-09".into()];
    assert_eq!(plan_of(&facts, &asked).unwrap_err().code, Code::NodeUnknown);
    let none_at_once = PlanOptions { max_parallel: 0, ..PlanOptions::default() };
    let shorter_than_a_poll = PlanOptions { contact_timeout_seconds: 14, ..PlanOptions::default() };
    for options in [none_at_once, shorter_than_a_poll] {
        assert_eq!(plan_of(&facts, &request("1.36", options)).unwrap_err().code, Code::BadOption);
    }
}

#[test]
fn what_is_left_out_or_waits_is_noted() {
    let mut facts = cluster(&[("blue", 4)]);
    let name = |index: usize| NodeName::from(format!("blue-0{index}").as_str());
    facts.nodes.insert(name(1), {
        let mut done = node("blue-01", "blue", "v1.36.3");
        done.container_runtime_version = "containerd://2.2.9".to_owned();
        done
    });
    facts.nodes.get_mut(&name(2)).unwrap().unschedulable = true;
    facts.budgets.push(BudgetFacts {
        namespace: "shop".into(),
        name: "cart".into(),
        disruptions_allowed: 0,
        expected_pods: 2,
    });
    let plan = plan_of(&facts, &request("1.36", PlanOptions::default())).unwrap();
    assert!(plan.notes.contains(&Note::NodeUpToDate { node: name(1) }));
    assert!(plan.notes.contains(&Note::NodeCordonedByOthers { node: name(2) }));
    assert!(plan.notes.contains(&Note::BudgetAllowsNothing { budget: "shop/cart".into() }));
    assert_eq!(plan.nodes().count(), 3);
    assert!(plan.nodes().find(|node| node.node == name(2)).unwrap().cordoned_before);
    let never = PlanOptions { drain: DrainPolicy::Never, ..PlanOptions::default() };
    let undrained = plan_of(&facts, &request("1.36", never)).unwrap();
    let waits = |note: &Note| matches!(note, Note::BudgetAllowsNothing { .. });
    assert!(!undrained.notes.iter().any(waits), "where nothing is drained nothing waits for a budget");
}

#[test]
fn a_node_whose_pods_have_nowhere_to_go_is_not_drained_and_the_plan_says_so() {
    let plan = plan_of(&cluster(&[("blue", 1)]), &request("1.36", PlanOptions::default())).unwrap();
    let only = plan.nodes().next().unwrap();
    assert_eq!(only.drain, DrainDecision::SkippedNowhereToGo);
    assert!(only.steps.iter().all(|step| !matches!(step.action, Action::Drain { .. })));
    assert!(plan.notes.contains(&Note::DrainSkipped { node: only.node.clone() }));
    let mut facts = cluster(&[("blue", 2)]);
    facts.nodes.get_mut("blue-02").unwrap().ready = Readiness::NotReady { why: "powered off".into() };
    let plan = plan_of(&facts, &request("1.36", PlanOptions::default())).unwrap();
    assert_eq!(
        plan.nodes().find(|node| node.node.as_str() == "blue-01").unwrap().drain,
        DrainDecision::SkippedNowhereToGo
    );
}

#[test]
fn a_taint_keeps_the_pods_of_nodes_without_it_off_and_those_of_its_own_pool_not() {
    let mut facts = cluster(&[("blue", 1), ("gpu", 2)]);
    for node in ["gpu-01", "gpu-02"] {
        facts.nodes.get_mut(node).unwrap().taints.push("example.com/gpu".to_owned());
    }
    let plan = plan_of(&facts, &request("1.36", PlanOptions::default())).unwrap();
    let decisions: Vec<_> = plan.nodes().map(|node| (node.node.as_str(), node.drain)).collect();
    assert!(decisions.contains(&("blue-01", DrainDecision::SkippedNowhereToGo)), "{decisions:?}");
    assert!(decisions.contains(&("gpu-01", DrainDecision::Drain)), "{decisions:?}");
}

#[test]
fn another_major_of_the_runtime_is_not_put_under_running_pods_though_the_minor_stays() {
    for (kubelet, runtime, drain) in [
        ("v1.36.1", "containerd://2.1.0", DrainDecision::SkippedForPatch),
        ("v1.36.1", "containerd://1.6.20~ds1", DrainDecision::Drain),
        ("v1.36.3", "containerd://1.7.2", DrainDecision::Drain),
        ("v1.35.4", "containerd://2.2.9", DrainDecision::Drain),
    ] {
        let mut facts = cluster(&[("blue", 2)]);
        for (name, planned) in &mut facts.nodes {
            *planned = node(name.as_str(), "blue", kubelet);
            planned.container_runtime_version = runtime.to_owned();
        }
        let plan = plan_of(&facts, &request("1.36", PlanOptions::default())).unwrap();
        assert_eq!(plan.nodes().map(|node| node.drain).collect::<Vec<_>>(), [drain, drain], "{kubelet} {runtime}");
        let never = PlanOptions { drain: DrainPolicy::Never, ..PlanOptions::default() };
        let plan = plan_of(&facts, &request("1.36", never)).unwrap();
        assert_eq!(plan.nodes().next().unwrap().drain, DrainDecision::SkippedByOption);
    }
}

#[test]
fn pods_that_a_drain_ends_and_nobody_makes_anew_are_told_by_name() {
    let mut facts = cluster(&[("blue", 2)]);
    let pod = |name: &str, node: &str, controller: Option<&str>| PodFacts {
        namespace: "dev".into(),
        name: name.into(),
        uid: name.into(),
        node: Some(node.into()),
        controller: controller.map(str::to_owned),
        is_mirror: false,
        tolerates_unschedulable: false,
    };
    facts.pods = vec![
        pod("shell", "blue-02", None),
        pod("debug", "blue-01", None),
        pod("web", "blue-01", Some("ReplicaSet/web")),
        pod("elsewhere", "green-01", None),
        PodFacts { is_mirror: true, ..pod("proxy", "blue-01", None) },
    ];
    let note = |facts: &ClusterFacts, options| {
        let plan = plan_of(facts, &request("1.36", options)).unwrap();
        plan.notes.into_iter().find(|note| matches!(note, Note::PodsNotMadeAnew { .. }))
    };
    let names = vec!["dev/debug".to_owned(), "dev/shell".to_owned()];
    assert_eq!(note(&facts, PlanOptions::default()), Some(Note::PodsNotMadeAnew { count: 2, names }));
    let never = PlanOptions { drain: DrainPolicy::Never, ..PlanOptions::default() };
    assert_eq!(note(&facts, never), None, "without a drain they go on");
    facts.pods.retain(|pod| pod.controller.is_some());
    assert_eq!(note(&facts, PlanOptions::default()), None);
}

#[test]
fn an_artefact_that_the_mirror_lacks_stops_the_plan() {
    let facts = cluster(&[("blue", 2)]);
    let mut index = artefacts();
    index.releases[0].images.retain(|image| image.role != "pause");
    let input = super::PlanInput {
        id: &"p1".into(),
        now: crate::sample::at(0),
        by: &"tester".into(),
        cluster: &"prod".into(),
        request: &request("1.36", PlanOptions::default()),
        catalogue: &crate::catalogue::Catalogue::shipped(),
        facts: &facts,
        agents: &std::collections::BTreeMap::new(),
        mirror: "http://mirror",
        artefacts: &index,
        measured: &crate::estimate::MeasuredTimes::default(),
    };
    assert_eq!(super::make_plan(&input).unwrap_err().code, Code::ArtefactMissing);
}
