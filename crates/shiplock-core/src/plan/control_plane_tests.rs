//! What a plan that holds the control plane promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Mode, Note, PlanOptions, PlanRequest, StageKind};
use crate::artefact::ArtefactImage;
use crate::check::{CheckResult, check_plan};
use crate::facts::{AddonEdit, AgentFacts, ClusterFacts, ControlPlaneFacts, EtcdFacts, HandEdit, Observed, Readiness};
use crate::id::NodeName;
use crate::problem::{Code, Problem};
use crate::sample::{agents, at, cluster_with_masters, plan_of, plan_with, request_for_all};
use crate::step::{Action, Target};

fn asked() -> PlanRequest {
    request_for_all("1.36", PlanOptions::default())
}

fn edit<'a>(agents: &'a mut BTreeMap<NodeName, AgentFacts>, node: &str) -> &'a mut ControlPlaneFacts {
    Arc::make_mut(&mut agents.get_mut(&NodeName::from(node)).unwrap().machine).control_plane.as_deref_mut().unwrap()
}

#[test]
fn everything_goes_in_the_order_that_version_skew_asks_for() {
    let plan = plan_of(&cluster_with_masters(3, 2), &asked()).unwrap();
    let stages: Vec<_> = plan.stages.iter().map(|stage| stage.kind.word()).collect();
    let expected =
        ["preparation", "backup", "control_plane", "cluster_configuration", "add_ons", "node_pool", "verification"];
    assert_eq!(stages, expected);
    let masters: Vec<_> = plan.stages[2].nodes.iter().map(|node| node.node.as_str()).collect();
    assert_eq!(masters, ["m2", "m3", "m1"], "the leader of etcd goes last, so that it moves once");
    let kinds: Vec<_> = plan.stages[2].nodes[0].steps.iter().map(|step| step.action.kind()).collect();
    let steps = ["cordon", "drain", "upgrade_container_runtime", "upgrade_control_plane", "verify_node", "uncordon"];
    assert_eq!(kinds, steps);
    assert_eq!(plan.stages[2].max_parallel(10), 1);
    assert!(plan.notes.iter().all(|note| !matches!(note, Note::ApiAway { .. })));
    let kinds: Vec<_> = plan.stages[4].steps.iter().map(|step| step.action.kind()).collect();
    assert_eq!(kinds, ["upgrade_addons", "verify_addons"]);
    assert_eq!(plan.to.to_string(), "v1.36.3", "the newest patch that the mirror holds");
}

#[test]
fn one_master_costs_an_outage_that_is_named_and_must_be_accepted() {
    let facts = cluster_with_masters(1, 2);
    let blocked = |options: PlanOptions| {
        let plan = plan_of(&facts, &request_for_all("1.36", options)).unwrap();
        assert!(plan.notes.iter().any(|note| matches!(note, Note::ApiAway { node, .. } if node.as_str() == "m1")));
        let report = check_plan(&plan, &facts, &agents(&facts, at(0)), at(0));
        report.blocking().map(|finding| finding.check.clone()).collect::<Vec<_>>()
    };
    assert_eq!(blocked(PlanOptions::default()), ["CP-003"]);
    assert!(blocked(PlanOptions { accept: vec!["CP-003".to_owned()], ..PlanOptions::default() }).is_empty());
}

#[test]
fn a_control_plane_alone_leaves_the_pools_and_pools_follow_later() {
    let facts = cluster_with_masters(3, 2);
    let plan = plan_of(&facts, &PlanRequest { mode: Mode::ControlPlane, ..asked() }).unwrap();
    assert!(plan.stages.iter().all(|stage| !matches!(stage.kind, StageKind::NodePool { .. })));
    assert_eq!(plan.nodes().count(), 3);
    let pools = plan_of(&facts, &PlanRequest { mode: Mode::NodePools, ..asked() }).unwrap_err();
    assert_eq!(pools.code, Code::ControlPlaneNotSupported);
    let second_hop = plan_of(&facts, &request_for_all("1.37", PlanOptions::default())).unwrap_err();
    assert_eq!(second_hop.code, Code::NoEdge);
}

#[test]
fn every_node_has_the_images_of_the_add_ons_before_they_are_upgraded() {
    let facts = cluster_with_masters(3, 2);
    for mode in [Mode::Cluster, Mode::ControlPlane] {
        let plan = plan_of(&facts, &PlanRequest { mode, ..asked() }).unwrap();
        let fetches = plan.stages[0].steps.iter().filter_map(|step| match (&step.action, &step.target) {
            (Action::Prefetch { images, .. }, Target::Node(node)) => Some((node, images)),
            _ => None,
        });
        let holds =
            |images: &[ArtefactImage], role: &str| images.iter().filter(|image| image.role == role).count() == 1;
        let ready = fetches.filter(|(_, images)| holds(images, "coredns") && holds(images, "kube-proxy"));
        let ready: Vec<_> = ready.map(|(node, _)| node.as_str()).collect();
        assert_eq!(ready.len(), facts.nodes.len(), "{mode:?}: {ready:?}");
    }
}

#[test]
fn a_kubelet_that_would_be_too_old_for_the_new_api_servers_stops_the_plan_by_name() {
    let mut facts = cluster_with_masters(1, 2);
    facts.nodes.get_mut(&NodeName::from("blue-02")).unwrap().kubelet_version = "v1.32.9".to_owned();
    let request = PlanRequest { mode: Mode::ControlPlane, ..asked() };
    let problem = plan_of(&facts, &request).unwrap_err();
    assert_eq!(problem.code, Code::SkewTooWide);
    assert_eq!(problem.parameters["nodes"], "blue-02");
}

#[test]
fn what_is_at_the_target_already_is_left_out() {
    let mut facts = cluster_with_masters(3, 1);
    let mut told = agents(&facts, at(0));
    for component in &mut edit(&mut told, "m2").components {
        let tag = if component.image.contains("etcd") { "3.6.8-0" } else { "v1.36.3" };
        component.image = format!("registry.k8s.io/{}:{tag}", component.component.name());
    }
    let node = facts.nodes.get_mut(&NodeName::from("m2")).unwrap();
    node.kubelet_version = "v1.36.3".to_owned();
    node.container_runtime_version = "containerd://2.2.9".to_owned();
    let plan = plan_with(&facts, &told, &asked()).unwrap();
    let masters: Vec<_> = plan.stages[2].nodes.iter().map(|node| node.node.as_str()).collect();
    assert_eq!(masters, ["m3", "m1"]);
}

type Change = fn(&mut ControlPlaneFacts);

#[test]
fn what_cannot_be_upgraded_in_place_is_refused_by_name() {
    let facts = cluster_with_masters(3, 1);
    let unknown =
        || Observed::Unknown { problem: Problem::new(Code::Internal).with("what", "no answer"), since: at(0) };
    let cases: [(&str, Change); 5] = [
        ("ConfigMap kubeadm-config", |facts| {
            let problem = Problem::new(Code::ClusterAnswer).cause("it answers 404");
            facts.configured_version = Some(Observed::Unknown { problem, since: at(0) });
        }),
        ("external", |facts| facts.etcd = EtcdFacts::External { endpoints: vec!["https://10.9.9.9:2379".to_owned()] }),
        ("comes from", |facts| facts.components[1].image = "mirror.example/k8s/kube-apiserver:v1.35.4".to_owned()),
        ("no manifest of kube-scheduler", |facts| drop(facts.components.pop())),
        ("may meet an API server that is older", |facts| facts.kubelet_server_is_local = false),
    ];
    for (words, change) in cases {
        let mut told = agents(&facts, at(0));
        change(edit(&mut told, "m2"));
        let problem = plan_with(&facts, &told, &asked()).unwrap_err();
        assert_eq!(problem.code, Code::ControlPlaneRefused, "{words}");
        assert!(problem.parameters["why"].contains(words), "{words}: {problem}");
    }
    let mut told = agents(&facts, at(0));
    edit(&mut told, "m2").etcd = EtcdFacts::Stacked { cluster: unknown() };
    assert_eq!(plan_with(&facts, &told, &asked()).unwrap_err().code, Code::ControlPlaneRefused, "unknown is not OK");
    // A time without an API server passes.
    let mut away = agents(&facts, at(0));
    let problem = Problem::new(Code::ClusterUnreachable).cause("connection refused");
    edit(&mut away, "m2").configured_version = Some(Observed::Unknown { problem, since: at(0) });
    assert_eq!(plan_with(&facts, &away, &asked()).unwrap_err().code, Code::ClusterUnreachable);
    told.remove(&NodeName::from("m3"));
    edit(&mut told, "m2").etcd = edit(&mut agents(&facts, at(0)), "m2").etcd.clone();
    assert_eq!(plan_with(&facts, &told, &asked()).unwrap_err().code, Code::AgentMissing);
}

#[test]
fn over_a_minor_version_etcd_goes_alone_and_first_and_that_is_said() {
    let facts = cluster_with_masters(1, 0);
    let mut told = agents(&facts, at(0));
    edit(&mut told, "m1").components[0].image = "registry.k8s.io/etcd:3.5.26-0".to_owned();
    let plan = plan_with(&facts, &told, &asked()).unwrap();
    assert!(
        plan.notes
            .iter()
            .any(|note| matches!(note, Note::EtcdMinorChanges { from, to } if from == "3.5.26-0" && to == "3.6.8-0"))
    );
    let swaps: Vec<_> = plan
        .steps()
        .filter_map(|step| match &step.action {
            Action::UpgradeControlPlane(upgrade) => Some((upgrade.components.len(), upgrade.files.len())),
            _ => None,
        })
        .collect();
    assert_eq!(swaps, [(1, 1), (3, 3)], "etcd with kubeadm alone, then the others with the kubelet");
}

#[test]
fn an_ill_etcd_a_master_that_is_not_ready_and_edits_by_hand_block_the_start() {
    let facts = cluster_with_masters(3, 1);
    let plan = plan_of(&facts, &asked()).unwrap();
    let blocking = |facts: &ClusterFacts, told: &_| {
        let report = check_plan(&plan, facts, told, at(0));
        let found = report.blocking().map(|finding| (finding.check.clone(), finding.result, finding.subject.clone()));
        found.collect::<Vec<_>>()
    };
    assert!(blocking(&facts, &agents(&facts, at(0))).is_empty());

    let mut told = agents(&facts, at(0));
    let EtcdFacts::Stacked { cluster: Observed::Known(etcd) } = &mut edit(&mut told, "m1").etcd else { panic!() };
    etcd.members[2].healthy_version = None;
    assert_eq!(blocking(&facts, &told), [("CP-004".to_owned(), CheckResult::Fail, "node m1".to_owned())]);

    let mut told = agents(&facts, at(0));
    let difference = "+    - --v=4".to_owned();
    let path = "/etc/kubernetes/manifests/kube-apiserver.yaml".to_owned();
    edit(&mut told, "m3").hand_edits = Observed::Known(vec![HandEdit { path, difference }]);
    assert_eq!(blocking(&facts, &told), [("CP-008".to_owned(), CheckResult::Fail, "node m3".to_owned())]);

    let mut ill = facts.clone();
    ill.nodes.get_mut(&NodeName::from("m2")).unwrap().ready = Readiness::NotReady { why: "stopped".to_owned() };
    assert_eq!(
        blocking(&ill, &agents(&facts, at(0))),
        [("CP-002".to_owned(), CheckResult::Fail, "node m2".to_owned())]
    );
}

#[test]
fn what_an_upgrade_would_lose_on_kubelets_and_add_ons_blocks_until_it_is_accepted_by_name() {
    let mut facts = cluster_with_masters(3, 2);
    let fields = vec!["spec.template.spec.tolerations".to_owned()];
    facts.addons[1].edits = vec![AddonEdit { by: "kubectl-edit".to_owned(), fields }];
    let mut told = agents(&facts, at(0));
    let edit = HandEdit { path: "/var/lib/kubelet/config.yaml".to_owned(), difference: "+maxPods: 250".to_owned() };
    Arc::make_mut(&mut told.get_mut(&NodeName::from("blue-01")).unwrap().machine).kubelet_edits =
        Some(Observed::Known(vec![edit]));
    let blocked = |accept: &[&str]| {
        let accept = accept.iter().map(|&id| id.to_owned()).collect();
        let request = request_for_all("1.36", PlanOptions { accept, ..PlanOptions::default() });
        let plan = plan_with(&facts, &told, &request).unwrap();
        let report = check_plan(&plan, &facts, &told, at(0));
        report.blocking().map(|finding| format!("{} {}", finding.check, finding.subject)).collect::<Vec<_>>()
    };
    assert_eq!(blocked(&[]), ["NODE-007 node blue-01", "ADD-008 Deployment kube-system/coredns"]);
    assert!(blocked(&["NODE-007", "ADD-008"]).is_empty());
}

#[test]
fn edits_that_could_not_be_seen_are_not_told_as_edits_and_stop_the_start_all_the_same() {
    let facts = cluster_with_masters(3, 2);
    let mut told = agents(&facts, at(0));
    let unread = || Observed::Unknown { problem: Problem::new(Code::Internal).with("what", "x"), since: at(0) };
    edit(&mut told, "m2").hand_edits = unread();
    Arc::make_mut(&mut told.get_mut(&NodeName::from("blue-01")).unwrap().machine).kubelet_edits = Some(unread());
    let plan = plan_of(&facts, &asked()).unwrap();
    let report = check_plan(&plan, &facts, &told, at(0));
    let found = report.blocking().map(|finding| (finding.check.as_str(), finding.problem.as_ref().unwrap().code));
    let found: Vec<_> = found.collect();
    assert_eq!(found, [("NODE-007", Code::EditsUnknown), ("CP-008", Code::EditsUnknown)]);
}

#[test]
fn a_configuration_of_another_version_is_told_of() {
    let facts = cluster_with_masters(1, 1);
    let mut told = agents(&facts, at(0));
    edit(&mut told, "m1").configured_version = Some(Observed::Known("v1.34.2".to_owned()));
    let plan = plan_with(&facts, &told, &asked()).unwrap();
    let running = "v1.35.4".parse().unwrap();
    assert!(plan.notes.contains(&Note::ConfigurationStale { named: "v1.34.2".to_owned(), running }));
    assert!(
        plan_of(&facts, &asked()).unwrap().notes.iter().all(|note| !matches!(note, Note::ConfigurationStale { .. }))
    );
}
