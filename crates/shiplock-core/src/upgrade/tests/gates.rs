//! What is held before the next batch or stage, and for how long.

use super::*;

/// A pool of four right after its first batch, with a workload that is worse than before.
pub(super) fn held_by_a_gate() -> World {
    held_by_a_gate_in(&[("blue", 4)])
}

/// The same in the first of these pools.
pub(super) fn held_by_a_gate_in(pools: &[(&str, usize)]) -> World {
    let mut world = World::new(pools, options());
    while world.upgrade.batch_finished_at.is_none() {
        let _ = world.settle();
        for number in world.in_flight() {
            world.succeed(number);
        }
        if world.upgrade.batches.contains_key(&1) {
            world.cluster.workloads[0].ready = 1;
        }
    }
    world
}

#[test]
fn a_gate_that_has_only_older_facts_says_since_when_it_waits_for_newer_ones() {
    let mut world = held_by_a_gate();
    world.cluster.workloads[0].ready = 2;
    let finished_at = world.upgrade.batch_finished_at.unwrap();
    let mut facts = world.facts();
    let Observed::Known(cluster) = &mut facts.cluster else { panic!("it is known") };
    std::sync::Arc::make_mut(cluster).observed_at = finished_at - jiff::SignedDuration::from_millis(1);
    let Decision::Wait { on, .. } = decide(&world.upgrade, &facts, &Policy::default(), at(world.now)) else {
        panic!("the gate holds");
    };
    let problem = Problem::new(Code::ClusterNotRead).with("cluster", "prod").with("since", finished_at);
    assert_eq!(on[0].what, Waiting::Gate { problem });
    assert_eq!(on[0].since, finished_at);
}

#[test]
fn a_workload_that_is_worse_than_before_holds_the_next_batch_and_then_pauses() {
    let mut world = held_by_a_gate();
    let Decision::Wait { on, .. } = world.settle() else { panic!("the gate holds") };
    assert!(matches!(on[0].what, Waiting::Gate { .. }));
    world.now += i64::from(PlanOptions::default().gate_timeout_seconds);
    let _ = world.settle();
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::Gate { .. }, .. }));
    world.cluster.workloads[0].ready = 2;
    world.append(Event::Continued { by: "tester".into() });
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
}

#[test]
fn a_gate_pauses_after_its_time_though_another_server_took_over_in_the_end_of_it() {
    let mut world = held_by_a_gate();
    let _ = world.settle();
    world.now += i64::from(PlanOptions::default().gate_timeout_seconds);
    let epoch = Epoch(world.upgrade.epoch.0 + 1);
    world.append(Event::LeaseTaken { epoch, holder: "another".into() });
    let _ = world.settle();
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::Gate { .. }, .. }));
}

#[test]
fn a_gate_that_a_person_continues_holds_for_its_whole_time_again() {
    let mut world = held_by_a_gate();
    let _ = world.settle();
    let limit = i64::from(PlanOptions::default().gate_timeout_seconds);
    world.now += limit;
    let _ = world.settle();
    world.now += 3600;
    world.append(Event::Continued { by: "tester".into() });
    let Decision::Wait { on, .. } = world.settle() else { panic!("the gate holds") };
    assert_eq!(on[0].deadline, Some(at(world.now + limit)));
    world.now += limit;
    let _ = world.settle();
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::Gate { .. }, .. }));
}

#[test]
fn a_gate_over_pods_that_are_not_ready_names_the_nodes_that_are_short_of_something() {
    let mut world = held_by_a_gate();
    world.cluster.nodes.get_mut("blue-03").unwrap().taints.push("node.kubernetes.io/disk-pressure".to_owned());
    let Decision::Wait { on, .. } = world.settle() else { panic!("the gate holds") };
    let said = on[0].sentence(crate::language::Language::En);
    assert!(said.contains("fewer than before the upgrade; node blue-03 has DiskPressure"), "{said}");
}

#[test]
fn a_gate_over_pods_that_are_not_ready_names_the_nodes_that_are_not_ready() {
    let mut world = held_by_a_gate();
    let why = "Kubelet stopped posting node status.".to_owned();
    world.cluster.nodes.get_mut("blue-02").unwrap().ready = Readiness::NotReady { why };
    let Decision::Wait { on, .. } = world.settle() else { panic!("the gate holds") };
    let said = on[0].sentence(crate::language::Language::En);
    assert!(said.contains("fewer than before the upgrade; node blue-02 is not Ready"), "{said}");
}

#[test]
fn of_finished_nodes_of_several_pools_that_are_ill_the_first_of_the_plan_is_named_whoever_wrote_the_names() {
    let mut world = World::new(&[("blue", 2), ("green", 12)], options());
    while world.batches(2).is_empty() || world.upgrade.open_batch(2).is_some() {
        let _ = world.settle();
        for number in world.in_flight() {
            world.succeed(number);
        }
        if !world.batches(2).is_empty() {
            world.cluster.workloads[0].ready = 1;
        }
    }
    let first: Vec<NodeName> = [1, 2].map(|stage| NodeName::from(world.batches(stage)[0][0])).into();
    let named = |world: &World| match world.clone().settle() {
        Decision::Wait { on, .. } => match &on[0].what {
            Waiting::Gate { problem } => problem.parameters["node"].clone(),
            what => panic!("{what:?}"),
        },
        decision => panic!("the gate holds: {decision:?}"),
    };
    for is_shared in [true, false] {
        let mut world = world.clone();
        if !is_shared {
            let nodes = std::mem::take(&mut world.cluster.nodes);
            world.cluster.nodes = nodes.into_iter().map(|(name, node)| (NodeName::from(name.as_str()), node)).collect();
        }
        for name in &first {
            world.cluster.nodes.get_mut(name).unwrap().ready = Readiness::NotReady { why: "ill".to_owned() };
        }
        assert_eq!(named(&world), first[0].as_str());
        world.cluster.nodes.get_mut(&first[0]).unwrap().ready = Readiness::Ready;
        assert_eq!(named(&world), first[1].as_str());
        world.cluster.nodes.remove(&first[0]);
        assert_eq!(named(&world), first[0].as_str(), "one that is gone");
    }
}

#[test]
fn what_cannot_be_read_lets_no_batch_begin() {
    let mut world = World::new(&[("blue", 4)], PlanOptions { pause_policy: PausePolicy::AfterFirstBatch, ..options() });
    let _ = world.run_out();
    world.cluster_known = false;
    world.append(Event::Continued { by: "tester".into() });
    let Decision::Wait { on, .. } = world.settle() else { panic!("it waits") };
    assert!(matches!(on[0].what, Waiting::ClusterFacts { .. }));
    assert_eq!(world.batches(1).len(), 1);
}

#[test]
fn what_cannot_be_read_lets_no_stage_begin_before_the_first_batch_either() {
    let mut world = World::with_masters(3, 1, options());
    let _ = world.settle();
    world.cluster_known = false;
    let decision = loop {
        let decision = world.settle();
        match world.in_flight().first().copied() {
            Some(step) => world.succeed(step),
            None => break decision,
        }
    };
    assert!(matches!(waited_on(&decision), Waiting::ClusterFacts { .. }), "{decision:?}");
    assert_eq!(world.upgrade.stages_started.len(), 1);
}

#[test]
fn a_started_node_of_a_pool_waits_for_its_next_step_while_the_cluster_cannot_be_read() {
    let (mut world, step, _) = with_a_step_in_flight();
    world.succeed(step);
    world.cluster_known = false;
    let decision = world.settle();
    assert!(matches!(waited_on(&decision), Waiting::ClusterFacts { .. }));
    assert_eq!(world.in_flight(), []);
    world.cluster_known = true;
    assert!(matches!(world.run_out(), Decision::Finish(Outcome::Succeeded)));
}

#[test]
fn no_worker_is_begun_with_while_an_api_server_is_older_than_its_kubelet_would_be() {
    let mut world = World::with_masters(3, 3, options());
    while world.upgrade.current_stage().is_none_or(|(_, stage)| stage.kind != StageKind::AddOns) {
        let _ = world.settle();
        let Some(number) = world.in_flight().first().copied() else {
            world.now += 60;
            continue;
        };
        world.succeed(number);
    }
    // Somebody puts a master back by hand, and forward again.
    world.cluster.api_servers[1].version = "v1.35.4".parse().unwrap();
    let workers = |world: &World| world.started_nodes().iter().filter(|node| !node.as_str().starts_with('m')).count();
    let _ = world.run_out();
    assert_eq!(workers(&world), 0);
    let State::Paused { because: PauseReason::InvariantBroken { problem }, .. } = &world.upgrade.state else {
        panic!("paused by the broken rule, not {:?}", world.upgrade.state)
    };
    assert_eq!((problem.code, &*problem.parameters["api_server"]), (Code::KubeletNewerThanApiServer, "v1.35.4"));
    world.cluster.api_servers[1].version = "v1.36.3".parse().unwrap();
    world.append(Event::Continued { by: "tester".into() });
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
}
