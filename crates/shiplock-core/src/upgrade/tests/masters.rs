//! The control plane: one by one, in quorum, and soaking.

use super::*;

#[test]
fn masters_go_one_by_one_whatever_the_bound_for_pools_is_and_the_pools_follow() {
    let mut world = World::with_masters(3, 3, options());
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
    assert_eq!(world.batches(2), [["m2"], ["m3"], ["m1"]]);
    assert_eq!(world.batches(5).iter().map(Vec::len).collect::<Vec<_>>(), [1, 2]);
    let begun = |kind: &str| {
        world.log.iter().position(|record| match &record.event {
            Event::StepStarted { step, .. } => world.upgrade.plan.step(*step).unwrap().action.kind() == kind,
            _ => false,
        })
    };
    let order: Vec<_> =
        ["backup_etcd", "upgrade_control_plane", "upload_configuration", "upgrade_addons", "upgrade_kubelet"]
            .iter()
            .map(|kind| begun(kind).unwrap())
            .collect();
    assert!(order.is_sorted(), "{order:?}");
}

#[test]
fn a_master_is_not_begun_with_while_etcd_could_lose_its_quorum_and_the_wait_names_the_member() {
    let mut world = World::with_masters(3, 0, options());
    while world.batches(2).len() < 2 {
        let _ = world.settle();
        if world.upgrade.batches.get(&2).is_some_and(|batches| batches[0].finished) {
            break;
        }
        world.ill_members.extend((world.batches(2).len() == 1).then(|| NodeName::from("m1")));
        let number = world.in_flight()[0];
        world.succeed(number);
    }
    let waits = world.settle();
    assert_eq!(world.started_nodes().len(), 1, "the second master is not touched");
    let Decision::Wait { on, .. } = waits else { panic!("it waits") };
    let Waiting::Gate { problem } = &on[0].what else { panic!("a gate: {on:?}") };
    assert_eq!(problem.code, Code::EtcdNotWell);
    assert!(problem.parameters["why"].contains("m1"), "{problem}");
    world.now += 16 * 60;
    let _ = world.settle();
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::Gate { .. }, .. }));
    world.append(Event::Continued { by: "tester".into() });
    let _ = world.settle();
    assert_eq!(world.started_nodes().len(), 1, "to continue does not make etcd well");
    world.ill_members.clear();
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
}

/// Three masters that are swapped and soak.
fn soaking() -> World {
    let mut world = World::with_masters(3, 1, PlanOptions { soak_seconds: 3_600, ..options() });
    while world.upgrade.soak.is_none() {
        let _ = world.settle();
        for number in world.in_flight() {
            world.succeed(number);
        }
    }
    world
}

#[test]
fn a_soak_ends_when_its_time_is_over_and_the_masters_step_up_one_by_one() {
    let mut world = soaking();
    let begun = world.now;
    assert!(matches!(waited_on(&world.settle()), Waiting::Soak { .. }));
    world.now = begun + 3_599;
    assert!(matches!(waited_on(&world.settle()), Waiting::Soak { .. }));
    assert_eq!(world.started_nodes().len(), 3, "nothing is begun meanwhile");
    world.now = begun + 3_600;
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
    assert_eq!(world.batches(4), [["m2"], ["m3"], ["m1"]]);
    let told = |record: &&EventRecord| matches!(&record.event, Event::WaitingBegan { on } if matches!(on.what, Waiting::Soak { .. }));
    assert_eq!(world.log.iter().filter(told).count(), 1, "the log tells of it once");
    assert_eq!(world.upgrade.node_counts(), (4, 4), "a master counts once");
}

#[test]
fn a_soak_does_not_end_while_something_is_not_well_and_pauses_when_that_lasts() {
    let mut world = soaking();
    let begun = world.now;
    let _ = world.settle();
    world.ill_members.insert("m2".into());
    world.now = begun + 3_590;
    assert!(matches!(waited_on(&world.settle()), Waiting::SoakUnwell { problem } if problem.code == Code::EtcdNotWell));
    world.now = begun + 3_700;
    assert!(matches!(waited_on(&world.settle()), Waiting::SoakUnwell { .. }), "its time is over, and it is not well");
    world.now += 16 * 60;
    let _ = world.settle();
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::Gate { .. }, .. }));
    world.ill_members.clear();
    world.append(Event::Continued { by: "tester".into() });
    assert!(matches!(waited_on(&world.settle()), Waiting::Soak { .. }), "its time counts anew");
    world.now += 3_600;
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
}

#[test]
fn an_api_server_that_does_not_emulate_holds_the_soak() {
    let mut world = soaking();
    let new = "v1.36.3".parse().unwrap();
    for server in &mut world.cluster.api_servers {
        (server.version, server.emulates) = (new, "1.35".parse().ok());
    }
    assert!(matches!(waited_on(&world.settle()), Waiting::Soak { .. }));
    world.cluster.api_servers[1].emulates = None;
    let waits = world.settle();
    let Waiting::SoakUnwell { problem } = waited_on(&waits) else { panic!("{waits:?}") };
    assert_eq!((problem.code, &*problem.parameters["found"]), (Code::ReadBackMismatch, "v1.36.3"));
}

#[test]
fn a_started_master_goes_on_while_the_cluster_cannot_be_read() {
    let mut world = World::with_masters(3, 0, options());
    while world.started_nodes().is_empty() {
        let _ = world.settle();
        let number = world.in_flight()[0];
        world.succeed(number);
    }
    // The API may be away because of the very step, whether that failed or succeeded.
    for fails in [true, false] {
        let mut world = world.clone();
        let _ = world.settle();
        let step = world.in_flight()[0];
        if fails {
            world.fail(step, true);
        } else {
            world.succeed(step);
        }
        world.cluster_known = false;
        world.now += 60;
        let _ = world.settle();
        let begun = world.in_flight();
        assert_eq!(begun.len(), 1, "fails: {fails}");
        assert_eq!(begun[0] == step, fails);
    }
}
