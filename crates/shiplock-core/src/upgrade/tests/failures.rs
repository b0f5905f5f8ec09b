//! Steps that fail: tried again in bounds, or paused for with the evidence.

use super::*;

#[test]
fn a_failed_step_pauses_with_its_reason_and_the_failed_node_goes_first_and_alone_after_continue() {
    let mut world = World::new(&[("blue", 4)], options());
    while world.batches(1).len() < 2 || world.in_flight().len() < 2 {
        let _ = world.settle();
        let number = world.in_flight()[0];
        world.succeed(number);
        let _ = world.settle();
    }
    let victim = world.in_flight()[0];
    world.fail(victim, false);
    let _ = world.run_out();
    let State::Paused { because: PauseReason::StepFailed { step, .. }, .. } = &world.upgrade.state else {
        panic!("paused by the failure, not {:?}", world.upgrade.state)
    };
    assert_eq!(*step, victim);
    world.append(Event::Continued { by: "tester".into() });
    let _ = world.settle();
    assert_eq!(world.in_flight(), [victim], "the failed node alone");
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
}

/// Goes on until a kubelet is being upgraded, and lets that fail for good.
fn fail_a_kubelet(world: &mut World) -> NodeName {
    loop {
        let _ = world.settle();
        let number = world.in_flight()[0];
        let step = world.upgrade.plan.step(number).unwrap().clone();
        if matches!(step.action, Action::UpgradeKubelet { .. }) {
            world.fail(number, false);
            return step.target.node().unwrap().clone();
        }
        world.succeed(number);
    }
}

fn collections_of_logs(world: &World) -> usize {
    let begins = |record: &&EventRecord| match &record.event {
        Event::StepStarted { step, .. } => world.upgrade.plan.step(*step).unwrap().action == Action::CollectLogs,
        _ => false,
    };
    world.log.iter().filter(begins).count()
}

#[test]
fn the_logs_of_a_node_are_collected_once_for_each_step_that_fails_there_for_good() {
    let mut world = World::new(&[("blue", 2)], options());
    fail_a_kubelet(&mut world);
    for failures in 1..=2 {
        let _ = world.run_out();
        assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::StepFailed { .. }, .. }));
        assert_eq!(collections_of_logs(&world), failures);
        world.now += 1;
        world.append(Event::Continued { by: "tester".into() });
        if failures == 1 {
            fail_a_kubelet(&mut world);
        }
    }
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
    assert_eq!(collections_of_logs(&world), 2);
}

#[test]
fn a_step_that_fails_while_a_person_pauses_is_the_reason_that_is_shown() {
    let mut world = World::new(&[("blue", 2)], options());
    let kubelet = |world: &World| {
        let in_work = world.in_flight();
        in_work
            .into_iter()
            .find(|number| matches!(world.upgrade.plan.step(*number).unwrap().action, Action::UpgradeKubelet { .. }))
    };
    while kubelet(&world).is_none() {
        let _ = world.settle();
        if kubelet(&world).is_none() {
            let number = world.in_flight()[0];
            world.succeed(number);
        }
    }
    world.append(Event::PauseRequested { reason: PauseReason::Operator, by: "tester".into() });
    let number = kubelet(&world).unwrap();
    world.fail(number, false);
    let _ = world.run_out();
    assert!(
        matches!(&world.upgrade.state, State::Paused { because: PauseReason::StepFailed { step, .. }, .. } if *step == number),
        "{:?}",
        world.upgrade.state
    );
}

#[test]
fn a_pause_for_a_failure_waits_for_no_logs_of_an_agent_that_is_silent() {
    let mut world = World::new(&[("blue", 2)], options());
    world.now = 1_000;
    let node = fail_a_kubelet(&mut world);
    world.silent.insert(node);
    let _ = world.run_out();
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::StepFailed { .. }, .. }));
    assert_eq!(collections_of_logs(&world), 0);
}

/// Fails every kubelet that can be tried again until the upgrade pauses: how often, how many seconds that took, and how
/// often logs were collected.
fn fail_until_it_pauses(code: Code) -> (u32, i64, usize) {
    let mut world = World::new(&[("blue", 2)], options());
    let (mut failures, mut first_at) = (0, None);
    loop {
        let decision = world.settle();
        if matches!(world.upgrade.state, State::Paused { .. }) {
            return (failures, world.now - first_at.unwrap(), collections_of_logs(&world));
        }
        for number in world.in_flight() {
            if matches!(world.upgrade.plan.step(number).unwrap().action, Action::UpgradeKubelet { .. }) {
                failures += 1;
                first_at.get_or_insert(world.now);
                world.fail_with(number, true, code);
            } else {
                world.succeed(number);
            }
        }
        if let Decision::Wait { wake_at, .. } = decision {
            world.now = world.now.max(wake_at.as_second() - at(0).as_second());
        }
    }
}

#[test]
fn a_retryable_failure_is_tried_again_a_bounded_number_of_times() {
    assert_eq!(fail_until_it_pauses(Code::ProgramFailed).0, Policy::default().step_attempts_max);
}

#[test]
fn an_api_server_that_is_away_for_minutes_fails_no_step_and_one_that_stays_away_pauses() {
    let (failures, seconds, _) = fail_until_it_pauses(Code::ClusterUnreachable);
    assert_eq!(failures, Policy::default().unreachable_attempts_max);
    assert!((300..1_200).contains(&seconds), "{seconds} s");
}

#[test]
fn a_give_back_that_fails_pauses_only_when_nothing_is_in_flight_and_continue_goes_on_cancelling() {
    let mut world = World::new(&[("blue", 4)], options());
    let is_kubelet = |world: &World, number: &StepNumber| {
        matches!(world.upgrade.plan.step(*number).unwrap().action, Action::UpgradeKubelet { .. })
    };
    // Both nodes of the second batch fail in their kubelet step.
    while world.batches(1).len() < 2
        || world.in_flight().len() < 2
        || !world.in_flight().iter().all(|number| is_kubelet(&world, number))
    {
        let _ = world.settle();
        let second = world.batches(1).len() == 2;
        for number in
            world.in_flight().into_iter().filter(|number| !second || !is_kubelet(&world, number)).collect::<Vec<_>>()
        {
            world.succeed(number);
        }
        let _ = world.settle();
    }
    for number in world.in_flight() {
        world.fail(number, false);
    }
    let _ = world.run_out();
    world.append(Event::CancelRequested { by: "tester".into(), abandon: Vec::new() });
    let _ = world.settle();
    let give_backs = world.in_flight();
    assert_eq!(give_backs.len(), 2);
    world.fail(give_backs[0], false);
    let _ = world.settle();
    assert!(matches!(world.upgrade.state, State::Pausing { .. }), "the other give-back is still in flight");
    world.succeed(give_backs[1]);
    let _ = world.settle();
    assert!(matches!(world.upgrade.state, State::Paused { .. }));
    world.append(Event::Continued { by: "tester".into() });
    assert_eq!(world.upgrade.state, State::Cancelling, "a cancelled upgrade never goes on with its work");
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Cancelled));
}

#[test]
fn a_node_whose_drain_ended_with_skip_and_return_is_left_out_by_name_and_keeps_no_cordon() {
    let (mut world, drain, node) = cordons::until("drain");
    let outcome = StepOutcome::DrainSkipped { blockers: vec!["pod default/web-0".to_owned()] };
    world.append(Event::StepSucceeded { step: drain, attempt: 1, outcome });
    let _ = world.settle();
    let problem = world.upgrade.skipped[&node].clone();
    assert_eq!((problem.code, problem.parameters["blockers"].as_str()), (Code::DrainTimedOut, "pod default/web-0"));
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
    assert!(world.upgrade.plan.nodes().all(|node| !world.upgrade.holds_cordon(node)));
    let begun = world.log.iter().filter(|record| match &record.event {
        Event::StepStarted { step, .. } => {
            let step = world.upgrade.plan.step(*step).unwrap();
            step.target.node() == Some(&node) && matches!(step.action, Action::UpgradeKubelet { .. })
        }
        _ => false,
    });
    assert_eq!(begun.count(), 0, "what was not emptied is not changed");
}

#[test]
fn the_logs_of_one_failure_are_not_collected_again_however_soon_that_ended() {
    for seconds in [0, 1] {
        let mut world = World::new(&[("blue", 2)], options());
        fail_a_kubelet(&mut world);
        let _ = world.settle();
        let logs = world.in_flight()[0];
        world.now += seconds;
        world.succeed(logs);
        let begun = match world.decide() {
            Decision::Issue(commands) => commands.iter().any(|command| matches!(command, Command::Run { .. })),
            _ => false,
        };
        assert!(!begun, "after {seconds} s");
    }
}

#[test]
fn no_logs_are_collected_from_a_node_that_a_person_gave_up() {
    let mut world = World::new(&[("blue", 2)], options());
    world.now = 1_000;
    let node = fail_a_kubelet(&mut world);
    world.silent.insert(node.clone());
    let _ = world.run_out();
    world.append(Event::CancelRequested { by: "tester".into(), abandon: vec![node] });
    let _ = world.settle();
    let give_back = world.in_flight()[0];
    world.silent.clear();
    world.fail(give_back, false);
    let _ = world.run_out();
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::StepFailed { .. }, .. }));
    assert_eq!(collections_of_logs(&world), 0);
}

#[test]
fn the_logs_of_a_node_are_collected_where_a_step_was_tried_as_often_as_it_may() {
    assert_eq!(fail_until_it_pauses(Code::ProgramFailed).2, 1);
}
