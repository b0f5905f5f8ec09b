//! What people ask for: pause, cancel, continue, and what time ends.

use super::*;

/// What is decided by facts that were read a moment before the newest event.
fn decide_by_older_facts(world: &World) -> Decision {
    let mut facts = world.facts();
    let Observed::Known(cluster) = &mut facts.cluster else { panic!("it is known") };
    std::sync::Arc::make_mut(cluster).observed_at = world.upgrade.updated_at - jiff::SignedDuration::from_millis(1);
    decide(&world.upgrade, &facts, &Policy::default(), at(world.now))
}

#[test]
fn a_start_that_a_person_continues_is_not_judged_by_facts_that_are_older() {
    let mut world = World::new(&[("blue", 2)], options());
    for node in world.cluster.nodes.values_mut() {
        node.unschedulable = true;
    }
    let _ = world.settle();
    assert_eq!(world.upgrade.state, State::Blocked);
    world.now += 60;
    world.append(Event::Continued { by: "tester".into() });
    world.append(Event::CheckStarted);
    assert!(matches!(waited_on(&decide_by_older_facts(&world)), Waiting::ClusterFacts { .. }));
    for node in world.cluster.nodes.values_mut() {
        node.unschedulable = false;
    }
    let _ = world.settle();
    assert_eq!(world.upgrade.state, State::Running);
}

#[test]
fn an_upgrade_that_a_person_continues_is_not_judged_by_facts_that_are_older() {
    // Between the nodes of a pool, and between masters.
    for masters in [0, 3] {
        let mut world =
            if masters == 0 { World::new(&[("blue", 2)], options()) } else { World::with_masters(3, 1, options()) };
        while world.started_nodes().is_empty() {
            let _ = world.settle();
            for number in world.in_flight() {
                world.succeed(number);
            }
        }
        world.append(Event::PauseRequested { reason: PauseReason::Operator, by: "tester".into() });
        let _ = world.run_out();
        assert!(matches!(world.upgrade.state, State::Paused { .. }), "{:?}", world.upgrade.state);
        world.now += 60;
        world.append(Event::Continued { by: "tester".into() });
        assert!(matches!(waited_on(&decide_by_older_facts(&world)), Waiting::ClusterFacts { .. }));
        assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
    }
}

/// What has started is finished, not left half done.
fn are_finished(world: &World, started: &BTreeSet<NodeName>) {
    let nodes = world.upgrade.plan.nodes().filter(|node| started.contains(&node.node));
    let unfinished: Vec<_> = nodes.filter(|node| world.upgrade.node_progress(node) != NodeProgress::Done).collect();
    assert!(unfinished.is_empty(), "{unfinished:?}");
}

#[test]
fn a_pause_lets_started_nodes_finish_and_starts_none_and_the_law_goes_on_after_it() {
    let mut world = World::new(&[("blue", 8)], options());
    while world.upgrade.open_batch(1).is_none_or(|batch| batch.ordinal < 2) || world.started_nodes().len() < 3 {
        let _ = world.settle();
        let number = world.in_flight()[0];
        world.succeed(number);
    }
    let _ = world.settle();
    let started = world.started_nodes();
    world.append(Event::PauseRequested { reason: PauseReason::Operator, by: "tester".into() });
    let _ = world.run_out();
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::Operator, .. }));
    assert_eq!(world.started_nodes(), started);
    assert!(world.upgrade.plan.nodes().all(|node| !world.upgrade.holds_cordon(node)));
    are_finished(&world, &started);
    world.append(Event::Continued { by: "tester".into() });
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
    assert_eq!(world.batches(1).iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 4, 1]);
}

/// Two nodes of the second batch in work, and a wish to pause.
fn pausing() -> World {
    let mut world = World::new(&[("blue", 8)], options());
    while world.upgrade.open_batch(1).is_none_or(|batch| batch.ordinal < 2) || world.started_nodes().len() < 3 {
        let _ = world.settle();
        let number = world.in_flight()[0];
        world.succeed(number);
    }
    world.append(Event::PauseRequested { reason: PauseReason::Operator, by: "tester".into() });
    let _ = world.settle();
    assert!(matches!(world.upgrade.state, State::Pausing { .. }));
    world
}

#[test]
fn a_pause_is_taken_back_before_what_has_started_is_finished() {
    let mut world = pausing();
    world.append(Event::Continued { by: "tester".into() });
    assert_eq!(world.upgrade.state, State::Running);
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
    assert_eq!(world.batches(1).iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 4, 1]);
}

#[test]
fn a_cancel_while_it_pauses_lets_started_nodes_finish_and_starts_none() {
    let mut world = pausing();
    let started = world.started_nodes();
    world.append(Event::CancelRequested { by: "tester".into(), abandon: Vec::new() });
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Cancelled));
    assert_eq!(world.started_nodes(), started);
    assert!(world.upgrade.plan.nodes().all(|node| !world.upgrade.holds_cordon(node)));
    are_finished(&world, &started);
}

#[test]
fn cancel_gives_back_what_failed_and_leaves_alone_what_was_not_started() {
    let mut world = World::new(&[("blue", 4)], options());
    while !world
        .in_flight()
        .iter()
        .any(|number| matches!(world.upgrade.plan.step(*number).unwrap().action, Action::Drain { .. }))
    {
        let _ = world.settle();
        for number in world.in_flight() {
            if !matches!(world.upgrade.plan.step(number).unwrap().action, Action::Drain { .. }) {
                world.succeed(number);
            }
        }
    }
    let drain = world.in_flight()[0];
    world.fail(drain, false);
    let _ = world.run_out();
    world.append(Event::CancelRequested { by: "tester".into(), abandon: Vec::new() });
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Cancelled));
    assert_eq!(world.started_nodes().len(), 1);
    assert!(world.upgrade.plan.nodes().all(|node| !world.upgrade.holds_cordon(node)), "the failed node is given back");
    world.append(Event::Cancelled);
    assert_eq!(world.upgrade.state, State::Cancelled);
}

#[test]
fn an_abandoned_node_is_not_waited_for_and_its_cordon_is_given_back() {
    let mut world = World::new(&[("blue", 2)], options());
    while !world.in_flight().iter().any(|number| {
        world.upgrade.plan.step(*number).unwrap().action.executor() == Executor::Agent
            && world.upgrade.open_batch(1).is_some()
    }) {
        let _ = world.settle();
        let in_flight = world.in_flight();
        for number in in_flight {
            let step = world.upgrade.plan.step(number).unwrap();
            if world.upgrade.open_batch(1).is_none() || step.action.executor() == Executor::Server {
                world.succeed(number);
            }
        }
    }
    world.silent.insert("blue-01".into());
    world.now += 1_000;
    let _ = world.settle();
    world.append(Event::CancelRequested { by: "tester".into(), abandon: vec!["blue-01".into()] });
    let _ = world.settle();
    let uncordon = world
        .in_flight()
        .into_iter()
        .find(|number| world.upgrade.plan.step(*number).unwrap().action == Action::Uncordon)
        .unwrap();
    world.succeed(uncordon);
    assert_eq!(world.settle(), Decision::Finish(Outcome::Cancelled));
}

#[test]
fn a_paused_upgrade_expires_only_after_the_deadline_was_seen_twice_ten_minutes_of_uptime_apart() {
    let mut world = World::new(&[("blue", 4)], PlanOptions { pause_policy: PausePolicy::AfterFirstBatch, ..options() });
    let _ = world.run_out();
    world.now += 7 * 24 * 3600 + 1;
    let _ = world.settle();
    assert!(matches!(world.upgrade.state, State::Paused { .. }), "a clock that jumped expires nothing");
    world.now += 601;
    world.uptime_seconds = 30;
    let _ = world.settle();
    assert!(matches!(world.upgrade.state, State::Paused { .. }), "a server that was just started expires nothing");
    world.uptime_seconds = 601;
    assert_eq!(world.settle(), Decision::Finish(Outcome::Expired));
}

#[test]
fn a_blocked_start_touches_nothing_and_is_checked_again_on_continue() {
    let mut world = World::new(&[("blue", 2)], options());
    world.silent.insert("blue-02".into());
    world.now = 200;
    let _ = world.settle();
    assert_eq!(world.upgrade.state, State::Blocked);
    assert!(world.upgrade.steps.is_empty());
    world.silent.clear();
    world.append(Event::Continued { by: "tester".into() });
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
}

#[test]
fn events_that_do_not_fit_are_refused_and_name_state_and_event() {
    let world = World::new(&[("blue", 2)], options());
    let next = world.upgrade.len + 1;
    for event in [Event::Paused, Event::Succeeded, Event::Started, Event::StageStarted { stage: 1 }, Event::Expired] {
        let error = world.upgrade.clone().apply(&record(next, 0, event)).unwrap_err();
        assert!(error.why.contains("planned"), "{error}");
    }
    assert!(world.upgrade.clone().apply(&record(next + 1, 0, Event::CheckStarted)).is_err(), "a gap");
    let mut old = record(next, 0, Event::CheckStarted);
    old.epoch = Some(Epoch(0));
    let taken = record(next, 0, Event::LeaseTaken { epoch: Epoch(2), holder: "b".into() });
    let upgrade = world.upgrade.apply(&taken).unwrap();
    let mut stale = record(next + 1, 0, Event::CheckStarted);
    stale.epoch = Some(Epoch(1));
    assert!(upgrade.apply(&stale).is_err(), "a stale epoch");
}

#[test]
fn while_it_pauses_a_step_that_may_be_tried_again_is_tried_again_and_the_wish_stays_the_reason() {
    let mut world = pausing();
    let step = world.in_flight()[0];
    world.fail(step, true);
    let _ = world.settle();
    assert!(matches!(&world.upgrade.state, State::Pausing { because: PauseReason::Operator, .. }));
    assert!(matches!(world.run_out(), Decision::Wait { .. }));
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::Operator, .. }));
    assert_eq!(world.upgrade.steps[&step].attempts, 2);
    are_finished(&world, &world.started_nodes());
}

#[test]
fn while_it_pauses_a_node_that_is_left_out_gives_its_cordon_back() {
    let (mut world, drain, node) = cordons::until("drain");
    world.append(Event::PauseRequested { reason: PauseReason::Operator, by: "tester".into() });
    let outcome = StepOutcome::DrainSkipped { blockers: vec!["pod default/web-0".to_owned()] };
    world.append(Event::StepSucceeded { step: drain, attempt: 1, outcome });
    let _ = world.run_out();
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::Operator, .. }));
    assert!(world.upgrade.skipped.contains_key(&node));
    assert!(world.upgrade.plan.nodes().all(|node| !world.upgrade.holds_cordon(node)));
}

#[test]
fn a_failure_that_a_person_continued_after_is_neither_tried_again_nor_named_by_a_pause_right_after() {
    for retryable in [false, true] {
        let (mut world, step, _) = with_a_step_in_flight();
        while matches!(world.upgrade.state, State::Running) {
            if world.in_flight().contains(&step) {
                world.fail(step, retryable);
            }
            world.now += 60;
            let _ = world.settle();
        }
        let _ = world.run_out();
        let attempts = world.upgrade.steps[&step].attempts;
        world.append(Event::Continued { by: "tester".into() });
        world.append(Event::PauseRequested { reason: PauseReason::Operator, by: "tester".into() });
        let _ = world.settle();
        assert!(
            matches!(&world.upgrade.state, State::Paused { because: PauseReason::Operator, .. }),
            "retryable {retryable}: {:?}",
            world.upgrade.state
        );
        assert_eq!(world.upgrade.steps[&step].attempts, attempts, "retryable {retryable}");
    }
}

#[test]
fn a_cancel_waits_for_what_is_being_fetched() {
    let (mut world, fetch, _) = cordons::until("prefetch");
    world.append(Event::PauseRequested { reason: PauseReason::Operator, by: "tester".into() });
    world.append(Event::CancelRequested { by: "tester".into(), abandon: Vec::new() });
    let decision = world.settle();
    let Decision::Wait { on, .. } = &decision else { panic!("it waits: {decision:?}") };
    assert!(on.iter().any(|wait| matches!(wait.what, Waiting::Step { step, .. } if step == fetch)), "{on:?}");
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Cancelled));
}

#[test]
fn a_cancel_takes_no_cordon_off_that_is_not_ours() {
    for fails in [true, false] {
        let (mut world, cordon, node) = cordons::until("cordon");
        world.cluster.nodes.get_mut(&node).unwrap().unschedulable = true;
        world.append(Event::StepSucceeded { step: cordon, attempt: 1, outcome: StepOutcome::Cordoned { ours: false } });
        let _ = world.settle();
        let drain = world.in_flight()[0];
        // It failed, or is another machine by now.
        if fails {
            world.fail(drain, false);
        } else {
            world.succeed(drain);
            world.cluster.nodes.get_mut(&node).unwrap().uid = "another".into();
        }
        let _ = world.run_out();
        assert!(matches!(world.upgrade.state, State::Paused { .. }));
        world.append(Event::CancelRequested { by: "tester".into(), abandon: Vec::new() });
        assert_eq!(world.settle(), Decision::Finish(Outcome::Cancelled), "fails: {fails}");
        assert_eq!(world.in_flight(), []);
    }
}
