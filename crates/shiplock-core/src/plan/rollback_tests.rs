//! What a plan that takes an upgrade back promises.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::{Mode, NewApiObjects, Note, Plan, PlanOptions, RollbackInput, make_rollback};
use crate::check::check_plan;
use crate::estimate::MeasuredTimes;
use crate::facts::{AgentFacts, ClusterFacts, ControlPlaneComponent, KeptControlPlane, KeptImage};
use crate::id::{Actor, NodeName, PlanId, UpgradeId};
use crate::problem::{Code, Problem};
use crate::sample::{agents, artefacts, at};
use crate::step::{Action, ControlPlaneRestore, ControlPlaneUpgrade};
use crate::upgrade::tests::{World, seed};
use crate::upgrade::{Decision, Event, Outcome, PauseReason, State, StepOutcome, StepStatus, Upgrade};

/// The cluster as an upgrade has left it: masters whose swap succeeded run the target, and all that were begun with keep
/// copies.
struct Left {
    cluster: ClusterFacts,
    agents: BTreeMap<NodeName, AgentFacts>,
    newer: Option<UpgradeId>,
    new_apis: Result<Vec<NewApiObjects>, Problem>,
    accept: Vec<String>,
}

impl Left {
    fn by(world: &World) -> Self {
        let mut cluster = world.cluster.clone();
        let mut told = agents(&cluster, at(world.now));
        for node in world.upgrade.plan.nodes() {
            for step in &node.steps {
                let Action::UpgradeControlPlane(swap) = &step.action else { continue };
                let Some(status) = world.upgrade.step_status(step) else { continue };
                let agent = told.get_mut(&node.node).unwrap();
                let control_plane = Arc::make_mut(&mut agent.machine).control_plane.as_deref_mut().unwrap();
                let images = control_plane.components.iter().filter(|pod| swap.components.contains(&pod.component));
                let image = |pod: &crate::facts::StaticPodFacts| KeptImage {
                    component: pod.component,
                    reference: pod.image.clone(),
                };
                let images = images.map(image).collect();
                let intents = world.log.iter().filter(
                    |record| matches!(&record.event, Event::StepStarted { step: begun, .. } if *begun == step.number),
                );
                let intent = intents.map(|record| record.number).max().unwrap();
                let upgrade = world.upgrade.id.clone();
                control_plane.kept.push(KeptControlPlane { upgrade, step: step.number, intent, images });
                if matches!(status, StepStatus::Succeeded { .. }) {
                    for pod in &mut control_plane.components {
                        if let Some(image) = swap.images.iter().find(|image| image.role == pod.component.name()) {
                            pod.image = image.reference.clone();
                        }
                    }
                    if swap.files.iter().any(|file| file.role == "kubelet") {
                        cluster.nodes.get_mut(&node.node).unwrap().kubelet_version = swap.version.to_string();
                    }
                }
            }
        }
        Self { cluster, agents: told, newer: None, new_apis: Ok(Vec::new()), accept: vec!["CP-003".to_owned()] }
    }

    fn plan(&self, upgrade: &Upgrade) -> Result<Plan, Problem> {
        make_rollback(&RollbackInput {
            id: &PlanId::from("p2"),
            now: at(0),
            by: &Actor::from("tester"),
            upgrade,
            newer: self.newer.as_ref(),
            accept: &self.accept,
            facts: &self.cluster,
            agents: &self.agents,
            mirror: Some(("http://mirror", &artefacts())),
            new_apis: &self.new_apis,
            measured: &MeasuredTimes::default(),
        })
    }
}

type Change<'a> = &'a dyn Fn(&mut Left, &mut Upgrade);

fn masters_begun(upgrade: &Upgrade) -> Vec<NodeName> {
    let batches = upgrade.batches.get(&2).into_iter().flatten().flat_map(|batch| &batch.nodes);
    let begun = |name: &&NodeName| {
        let node = upgrade.plan.stages[2].node(name).unwrap();
        node.steps
            .iter()
            .any(|step| matches!(step.action, Action::UpgradeControlPlane(_)) && upgrade.has_succeeded(step))
    };
    batches.filter(begun).cloned().collect()
}

/// An upgrade of three masters (or one) that was cancelled after so many masters.
fn cancelled_after(masters: u64, done: usize) -> World {
    let mut world = World::with_masters(masters, 2, PlanOptions::default());
    while masters_begun(&world.upgrade).len() < done {
        let _ = world.settle();
        let number = world.in_flight()[0];
        world.succeed(number);
    }
    world.append(Event::PauseRequested { reason: PauseReason::Operator, by: "p".into() });
    let _ = world.run_out();
    world.append(Event::CancelRequested { by: "p".into(), abandon: Vec::new() });
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Cancelled));
    world.append(Event::Cancelled);
    world
}

fn restores(plan: &Plan) -> Vec<&ControlPlaneRestore> {
    plan.steps()
        .filter_map(|step| match &step.action {
            Action::RestoreControlPlane(restore) => Some(&**restore),
            _ => None,
        })
        .collect()
}

#[test]
fn the_masters_that_were_swapped_go_back_the_last_one_first() {
    let world = cancelled_after(3, 2);
    let left = Left::by(&world);
    let plan = left.plan(&world.upgrade).unwrap();
    assert_eq!((plan.mode, plan.to.to_string()), (Mode::Rollback, "v1.35.4".to_owned()));
    assert_eq!(plan.takes_back(), Some(&world.upgrade.id));
    let stages: Vec<_> = plan.stages.iter().map(|stage| stage.kind.word()).collect();
    assert_eq!(stages, ["preparation", "control_plane", "verification"]);
    let nodes: Vec<_> = plan.nodes().map(|node| node.node.as_str()).collect();
    assert_eq!(nodes, ["m3", "m2"], "m2 was swapped first");
    let kinds: Vec<_> = plan.stages[1].nodes[0].steps.iter().map(|step| step.action.kind()).collect();
    assert_eq!(kinds, ["cordon", "drain", "restore_control_plane", "verify_node", "uncordon"]);
    let Action::VerifyNode { kubelet, control_plane_images, .. } = &plan.stages[1].nodes[0].steps[3].action else {
        panic!("{plan:?}")
    };
    assert_eq!(kubelet.to_string(), "v1.35.4");
    let images: Vec<_> = control_plane_images.iter().map(|image| image.reference.as_str()).collect();
    assert_eq!(images[..2], ["registry.k8s.io/etcd:3.6.6-0", "registry.k8s.io/kube-apiserver:v1.35.4"]);
    let restore = restores(&plan)[0];
    assert_eq!(
        (restore.is_only, restore.etcd_stays, restore.version.to_string()),
        (false, false, "v1.35.4".to_owned())
    );
    assert!(plan.notes.iter().any(|note| matches!(note,
        Note::MasterGoesBack { node, changes } if node.as_str() == "m3"
            && changes.contains(&"kubelet v1.36.3 → v1.35.4".to_owned())
            && changes.contains(&"etcd 3.6.8-0 → 3.6.6-0".to_owned()))));
    let report = check_plan(&plan, &left.cluster, &left.agents, at(world.now));
    assert_eq!(report.blocking().map(|finding| &finding.check).collect::<Vec<_>>(), [""; 0]);
    assert_eq!(World::over(left.cluster, plan).run_out(), Decision::Finish(Outcome::Succeeded));
}

#[test]
fn what_is_no_longer_safe_or_makes_no_sense_is_refused_by_name() {
    let world = cancelled_after(3, 1);
    let refusal = |change: &dyn Fn(&mut Left, &mut Upgrade)| {
        let (mut left, mut upgrade) = (Left::by(&world), world.upgrade.clone());
        change(&mut left, &mut upgrade);
        left.plan(&upgrade).unwrap_err()
    };
    let worker = |left: &mut Left| {
        left.cluster.nodes.get_mut(&NodeName::from("blue-01")).unwrap().kubelet_version = "v1.36.3".to_owned();
    };
    let cases: [(Code, &str, Change<'_>); 7] = [
        (Code::RollbackTooLate, "add-ons", &|_, upgrade| upgrade.stages_started.extend([4])),
        (Code::RollbackNotNewest, "u9", &|left, _| left.newer = Some("u9".into())),
        (Code::RollbackRefused, "itself a way back", &|_, upgrade| {
            Arc::make_mut(&mut upgrade.plan).mode = Mode::Rollback;
        }),
        (Code::RollbackRefused, "does not touch", &|_, upgrade| {
            std::sync::Arc::make_mut(&mut upgrade.plan).stages.truncate(1);
        }),
        (Code::RollbackRefused, "keeps no copy", &|left, _| {
            for agent in left
                .agents
                .values_mut()
                .filter_map(|agent| Arc::make_mut(&mut agent.machine).control_plane.as_deref_mut())
            {
                agent.kept.clear();
            }
        }),
        (Code::KubeletNewerThanApiServer, "blue-01", &|left, _| worker(left)),
        (Code::AgentMissing, "m2", &|left, _| drop(left.agents.remove(&NodeName::from("m2")))),
    ];
    for (code, words, change) in cases {
        let problem = refusal(change);
        assert_eq!(problem.code, code, "{problem}");
        assert!(problem.to_string().contains(words), "{words}: {problem}");
    }
    let untouched = World::with_masters(3, 1, PlanOptions::default());
    assert_eq!(Left::by(&untouched).plan(&untouched.upgrade).unwrap_err().code, Code::NothingToTakeBack);
}

#[test]
fn from_the_soak_every_master_goes_back_and_from_the_step_up_none() {
    let mut world = World::with_masters(3, 1, PlanOptions { soak_seconds: 3_600, ..PlanOptions::default() });
    while world.upgrade.soak.is_none() {
        let _ = world.settle();
        for number in world.in_flight() {
            world.succeed(number);
        }
    }
    world.append(Event::PauseRequested { reason: PauseReason::Operator, by: "p".into() });
    let _ = world.run_out();
    let left = Left::by(&world);
    let plan = left.plan(&world.upgrade).unwrap();
    assert_eq!(plan.nodes().map(|node| node.node.as_str()).collect::<Vec<_>>(), ["m1", "m3", "m2"]);
    let kinds: Vec<_> = plan.stages[1].nodes[0].steps.iter().map(|step| step.action.kind()).collect();
    assert_eq!(kinds, ["cordon", "restore_control_plane", "verify_node", "uncordon"], "the kubelet was never touched");
    assert_eq!(World::over(left.cluster, plan).run_out(), Decision::Finish(Outcome::Succeeded));
    let mut stepping = world.upgrade.clone();
    stepping.stages_started.insert(4);
    let problem = Left::by(&world).plan(&stepping).unwrap_err();
    assert_eq!((problem.code, &*problem.parameters["stage"]), (Code::RollbackTooLate, "step up"));
}

#[test]
fn what_the_cluster_keeps_for_all_nodes_goes_back_first() {
    let mut world = World::with_masters(3, 2, PlanOptions::default());
    let uploads = |world: &World| {
        let is_upload = |step: &&crate::step::Step| matches!(step.action, Action::UploadConfiguration { .. });
        let upload = world.upgrade.plan.steps().find(is_upload).unwrap();
        (world.upgrade.step_status(upload).is_some(), upload.number, upload.target.clone())
    };
    while !uploads(&world).0 {
        let _ = world.settle();
        let number = world.in_flight()[0];
        if number != uploads(&world).1 {
            world.succeed(number);
        }
    }
    world.append(Event::PauseRequested { reason: PauseReason::Operator, by: "p".into() });
    let _ = world.run_out();
    let left = Left::by(&world);
    let plan = left.plan(&world.upgrade).unwrap();
    let stages: Vec<_> = plan.stages.iter().map(|stage| stage.kind.word()).collect();
    assert_eq!(stages, ["preparation", "cluster_configuration", "control_plane", "verification"]);
    let [restore] = plan.stages[1].steps.as_slice() else { panic!("{plan:?}") };
    let (_, number, target) = uploads(&world);
    let expected = Action::RestoreConfiguration { upgrade: world.upgrade.id.clone(), step: number };
    assert_eq!((&restore.action, &restore.target), (&expected, &target), "its copies are on that master");
    assert_eq!(plan.nodes().count(), 3);
    assert_eq!(World::over(left.cluster, plan).run_out(), Decision::Finish(Outcome::Succeeded));
}

#[test]
fn a_master_that_is_as_before_is_left_out() {
    let world = cancelled_after(3, 2);
    let mut left = Left::by(&world);
    let fresh = agents(&world.cluster, at(world.now));
    let (m3, old) = (NodeName::from("m3"), &fresh[&NodeName::from("m3")]);
    let machine = Arc::make_mut(&mut left.agents.get_mut(&m3).unwrap().machine);
    let control_plane = machine.control_plane.as_deref_mut().unwrap();
    control_plane.components = old.machine.control_plane.as_deref().unwrap().components.clone();
    left.cluster.nodes.get_mut(&m3).unwrap().kubelet_version = "v1.35.4".to_owned();
    let plan = left.plan(&world.upgrade).unwrap();
    assert_eq!(plan.nodes().map(|node| node.node.as_str()).collect::<Vec<_>>(), ["m2"]);
}

#[test]
fn a_master_goes_back_without_a_drain_where_no_other_node_takes_its_pods_any_more() {
    let world = cancelled_after(1, 1);
    let mut left = Left::by(&world);
    let drains = |left: &Left| {
        let plan = left.plan(&world.upgrade).unwrap();
        let report = check_plan(&plan, &left.cluster, &left.agents, at(world.now));
        assert_eq!(report.blocking().map(|finding| &finding.check).collect::<Vec<_>>(), [""; 0]);
        plan.steps().any(|step| matches!(step.action, Action::Drain { .. }))
    };
    assert!(drains(&left));
    for (_, node) in left.cluster.nodes.iter_mut().filter(|(_, node)| !node.is_control_plane()) {
        node.unschedulable = true;
    }
    assert!(!drains(&left));
}

#[test]
fn etcd_stays_where_its_minor_version_changed_and_that_is_said() {
    let mut world = cancelled_after(3, 1);
    let plan = std::sync::Arc::make_mut(&mut world.upgrade.plan);
    for step in plan.stages[2].nodes.iter_mut().flat_map(|node| &mut node.steps) {
        if let Action::UpgradeControlPlane(swap) = &mut step.action {
            **swap = ControlPlaneUpgrade { etcd_minor_changes: true, ..(**swap).clone() };
        }
    }
    let plan = Left::by(&world).plan(&world.upgrade).unwrap();
    assert!(plan.notes.contains(&Note::EtcdStays { version: "3.6.8-0".to_owned() }), "{:?}", plan.notes);
    assert!(restores(&plan)[0].etcd_stays);
    let verified = plan.steps().find_map(|step| match &step.action {
        Action::VerifyNode { control_plane_images, .. } => Some(control_plane_images[0].reference.clone()),
        _ => None,
    });
    assert_eq!(verified.as_deref(), Some("registry.k8s.io/etcd:3.6.8-0"));
    let etcd = ControlPlaneComponent::Etcd.name();
    assert!(!plan.notes.iter().any(|note| matches!(note, Note::MasterGoesBack { changes, .. } if changes.iter().any(|change| change.starts_with(etcd)))));
}

#[test]
fn an_outage_hidden_objects_and_what_is_not_known_hold_until_they_are_accepted() {
    let world = cancelled_after(1, 1);
    let objects = NewApiObjects { api: "a/v1 B".to_owned(), count: 7, names: vec!["one".to_owned()] };
    for (new_apis, code) in
        [(Ok(vec![objects]), Code::ObjectsOfNewApis), (Err(Problem::new(Code::ClusterForbidden)), Code::NewApisUnknown)]
    {
        let mut left = Left::by(&world);
        left.new_apis = new_apis;
        for (accept, blocked) in [(vec![], vec!["CP-003", "CP-015"]), (vec!["CP-003", "CP-015"], vec![])] {
            left.accept = accept.into_iter().map(str::to_owned).collect();
            let plan = left.plan(&world.upgrade).unwrap();
            let report = check_plan(&plan, &left.cluster, &left.agents, at(world.now));
            let blocking: Vec<_> = report.blocking().map(|finding| finding.check.as_str()).collect();
            assert_eq!(blocking, blocked);
            assert!(
                report
                    .findings
                    .iter()
                    .any(|finding| finding.problem.as_ref().is_some_and(|problem| problem.code == code))
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, rng_seed: seed(), ..ProptestConfig::default() })]
    #[test]
    fn whenever_an_upgrade_is_ended_it_is_taken_back_whole_or_refused_with_the_reason(
        masters in prop_oneof![Just(1u64), Just(3)], steps in 0usize..60, failing in any::<bool>(), pick in any::<usize>(),
    ) {
        let mut world = World::with_masters(masters, 2, PlanOptions::default());
        for _ in 0..steps {
            let _ = world.settle();
            let in_flight = world.in_flight();
            if in_flight.is_empty() { break; }
            world.succeed(in_flight[pick % in_flight.len()]);
        }
        let _ = world.settle();
        if let (true, Some(number)) = (failing, world.in_flight().first()) {
            world.fail(*number, false);
            let _ = world.settle();
        }
        if world.upgrade.state == State::Running {
            world.append(Event::PauseRequested { reason: PauseReason::Operator, by: "p".into() });
        }
        let _ = world.run_out();
        if matches!(world.upgrade.state, State::Paused { .. }) {
            world.append(Event::CancelRequested { by: "p".into(), abandon: Vec::new() });
            let _ = world.run_out();
        }
        let swapped = masters_begun(&world.upgrade);
        let too_far = world.upgrade.stages_started.iter().any(|stage| *stage > 3);
        let left = Left::by(&world);
        match left.plan(&world.upgrade) {
            Err(problem) if too_far => prop_assert_eq!(problem.code, Code::RollbackTooLate),
            Err(problem) => {
                prop_assert!(swapped.is_empty(), "{}", problem);
                prop_assert_eq!(problem.code, Code::NothingToTakeBack);
            }
            Ok(plan) => {
                prop_assert!(!too_far);
                let back: Vec<NodeName> = plan.nodes().map(|node| node.node.clone()).collect();
                let mut expected = swapped;
                expected.reverse();
                prop_assert_eq!(back, expected);
                let mut world = World::over(left.cluster, plan);
                prop_assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
                let restored = world.upgrade.plan.steps().filter(|step| step.action.kind() == "restore_control_plane");
                for step in restored {
                    let done = matches!(world.upgrade.step_status(step), Some(StepStatus::Succeeded { outcome: StepOutcome::Done, .. }));
                    prop_assert!(done);
                }
            }
        }
    }
}
