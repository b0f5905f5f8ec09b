//! What a plan with a soak promises.

use std::sync::Arc;

use super::{DrainDecision, Mode, Note, Plan, PlanOptions, PlanRequest, StageKind};
use crate::check::check_plan;
use crate::facts::ClusterFacts;
use crate::id::NodeName;
use crate::problem::Code;
use crate::sample::{agents, at, cluster_with_masters, plan_of, request, request_for_all};
use crate::step::{Action, ControlPlaneMethod, ControlPlaneUpgrade, Emulation};
use crate::version::MinorVersion;

const OLD: MinorVersion = MinorVersion { major: 1, minor: 35 };

fn options() -> PlanOptions {
    PlanOptions { soak_seconds: 3_600, ..PlanOptions::default() }
}

fn swaps(plan: &Plan) -> Vec<&ControlPlaneUpgrade> {
    plan.steps()
        .filter_map(|step| match &step.action {
            Action::UpgradeControlPlane(swap) => Some(&**swap),
            _ => None,
        })
        .collect()
}

#[test]
fn the_masters_are_swapped_they_soak_and_then_they_step_up_with_their_kubelets() {
    let facts = cluster_with_masters(3, 1);
    let plan = plan_of(&facts, &request_for_all("1.36", options())).unwrap();
    let stages: Vec<_> = plan.stages.iter().map(|stage| stage.kind.word()).collect();
    assert_eq!(
        stages,
        [
            "preparation",
            "backup",
            "control_plane",
            "soak",
            "step_up",
            "cluster_configuration",
            "add_ons",
            "node_pool",
            "verification"
        ]
    );
    let kinds =
        |stage: usize| plan.stages[stage].nodes[0].steps.iter().map(|step| step.action.kind()).collect::<Vec<_>>();
    assert_eq!(kinds(2), ["cordon", "upgrade_control_plane", "verify_node", "uncordon"]);
    assert_eq!(
        kinds(4),
        ["cordon", "drain", "upgrade_container_runtime", "upgrade_control_plane", "verify_node", "uncordon"]
    );
    assert_eq!((plan.stages[2].max_parallel(10), plan.stages[4].max_parallel(10)), (1, 1));
    assert_eq!(plan.stages[2].nodes[0].drain, DrainDecision::SkippedKubeletStays);
    assert!(plan.notes.contains(&Note::Soak { emulates: OLD, seconds: 3_600 }));

    let found = swaps(&plan);
    let (first, second) = (found[0], found[3]);
    assert_eq!(
        (first.emulation, second.emulation),
        (Some(Emulation::Begins { of: OLD }), Some(Emulation::Ends { of: OLD }))
    );
    let roles = |swap: &ControlPlaneUpgrade| swap.files.iter().map(|file| file.role.clone()).collect::<Vec<_>>();
    assert_eq!(roles(first), ["kubeadm"], "the kubelet stays behind while the API servers behave like the old ones");
    assert_eq!(roles(second), ["kubeadm", "kubectl", "kubelet"]);
    assert_eq!((first.components.len(), second.components.len()), (4, 3), "etcd is at its target already");
    assert_eq!((first.renew_certificates, second.renew_certificates), (true, false), "renewed once");
    assert_eq!(plan.nodes_in_the_end().len(), facts.nodes.len());
    let report = check_plan(&plan, &facts, &agents(&facts, at(0)), at(0));
    assert_eq!(report.blocking().count(), 0);
    let of_m1 = report.findings.iter().filter(|finding| finding.check == "NOD-001" && finding.subject == "node m1");
    assert_eq!(of_m1.count(), 1, "each node is checked once");
}

#[test]
fn etcd_over_a_minor_version_goes_alone_and_first_and_only_once() {
    let facts = cluster_with_masters(1, 1);
    let mut told = agents(&facts, at(0));
    let m1 =
        Arc::make_mut(&mut told.get_mut(&NodeName::from("m1")).unwrap().machine).control_plane.as_deref_mut().unwrap();
    m1.components[0].image = "registry.k8s.io/etcd:3.5.9-0".to_owned();
    let plan = crate::sample::plan_with(&facts, &told, &request_for_all("1.36", options())).unwrap();
    let found: Vec<_> = swaps(&plan).iter().map(|swap| (swap.components.len(), swap.emulation.is_some())).collect();
    assert_eq!(found, [(1, false), (3, true), (3, true)]);
}

type Case<'a> = (&'a str, PlanRequest, fn(&mut ClusterFacts));

#[test]
fn a_soak_that_cannot_be_is_refused_with_the_reason() {
    let by_kubeadm = PlanOptions { control_plane_method: ControlPlaneMethod::Kubeadm, ..options() };
    let pools = PlanRequest { mode: Mode::NodePools, ..request("1.36", options()) };
    let cases: [Case<'_>; 4] = [
        ("staged swap", request_for_all("1.36", by_kubeadm), |_| {}),
        ("does not touch", pools, |facts| {
            for server in &mut facts.api_servers {
                server.version = "v1.36.3".parse().unwrap();
            }
        }),
        ("emulates 1.34 already", request_for_all("1.36", options()), |facts| {
            facts.api_servers[0].emulates = "1.34".parse().ok();
        }),
        ("master m2 is ahead", request_for_all("1.36", options()), |facts| {
            facts.nodes.get_mut(&NodeName::from("m2")).unwrap().kubelet_version = "v1.36.3".to_owned();
        }),
    ];
    for (words, asked, change) in cases {
        let mut facts = cluster_with_masters(3, 1);
        change(&mut facts);
        let problem = plan_of(&facts, &asked).unwrap_err();
        assert!(problem.to_string().contains(words), "{words}: {problem}");
    }
}

#[test]
fn no_kubelet_goes_past_what_the_api_servers_emulate() {
    let mut facts = crate::sample::cluster(&[("blue", 2)]);
    facts.api_servers[0].emulates = Some(OLD);
    let problem = plan_of(&facts, &request("1.36", PlanOptions::default())).unwrap_err();
    assert_eq!(problem.code, Code::KubeletNewerThanApiServer);
    assert_eq!(problem.parameters["api_server"], "v1.36.3 that emulates 1.35");
}

#[test]
fn what_a_cancelled_soak_leaves_is_finished_by_an_upgrade_without_one() {
    let mut facts = cluster_with_masters(3, 1);
    let mut told = agents(&facts, at(0));
    for server in &mut facts.api_servers {
        (server.version, server.emulates) = ("v1.36.3".parse().unwrap(), Some(OLD));
    }
    for pod in &mut facts.control_plane_pods {
        pod.image = pod.image.replace("v1.35.4", "v1.36.3").replace("3.6.6", "3.6.8");
    }
    for agent in told.values_mut().filter_map(|agent| Arc::make_mut(&mut agent.machine).control_plane.as_deref_mut()) {
        for pod in &mut agent.components {
            pod.image = pod.image.replace("v1.35.4", "v1.36.3").replace("3.6.6", "3.6.8");
        }
    }
    let plan = crate::sample::plan_with(&facts, &told, &request_for_all("1.36", PlanOptions::default())).unwrap();
    let masters = plan.stages.iter().find(|stage| stage.kind == StageKind::ControlPlane).unwrap();
    assert_eq!(masters.nodes.len(), 3);
    assert!(swaps(&plan).iter().all(|swap| swap.emulation.is_none()));
}
