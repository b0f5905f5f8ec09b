//! Agents that are silent.

use super::*;

#[test]
fn an_agent_that_a_restarted_server_never_hears_of_pauses_in_time_whatever_is_recorded_meanwhile() {
    let mut world = World::new(&[("blue", 1)], options());
    world.uptime_seconds = 100_000;
    let _ = world.settle();
    while let Some(number) = world.in_flight().first().copied() {
        let step = world.upgrade.plan.step(number).unwrap();
        if matches!(step.action, Action::Prefetch { .. }) {
            world.unheard.insert("blue-01".into());
        }
        world.succeed(number);
        let _ = world.settle();
    }
    assert_eq!(world.upgrade.state, State::Running);
    let wait = || WaitingOn::new(Waiting::AgentContact { node: "blue-01".into() }, at(0));
    for _ in 0..=PlanOptions::default().contact_timeout_seconds / 10 {
        world.now += 10;
        world.append(Event::WaitingBegan { on: wait() });
        let _ = world.settle();
    }
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::ContactLost { .. }, .. }));
}

#[test]
fn a_silent_agent_in_the_middle_of_a_step_pauses_with_contact_lost_and_the_step_is_never_failed() {
    let mut world = World::new(&[("blue", 2)], options());
    let is_kubelet = |world: &World, number: &StepNumber| {
        matches!(world.upgrade.plan.step(*number).unwrap().action, Action::UpgradeKubelet { .. })
    };
    while !world.in_flight().iter().any(|number| is_kubelet(&world, number)) {
        let _ = world.settle();
        for number in world.in_flight().into_iter().filter(|number| !is_kubelet(&world, number)).collect::<Vec<_>>() {
            world.succeed(number);
        }
    }
    let lost = world.in_flight()[0];
    world.silent.insert("blue-01".into());
    let mut waits = |seconds| {
        world.now += seconds;
        let Decision::Wait { on, .. } = world.settle() else { panic!("the step goes on") };
        on.into_iter().map(|wait| wait.what).collect::<Vec<_>>()
    };
    assert!(matches!(&waits(20)[..], [Waiting::Step { .. }]));
    assert!(
        matches!(&waits(20)[..], [Waiting::AgentContact { .. }, Waiting::Step { .. }]),
        "its silence is told early"
    );
    world.now += i64::from(PlanOptions::default().contact_timeout_seconds);
    let _ = world.settle();
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::ContactLost { .. }, .. }));
    assert_eq!(world.in_flight(), [lost]);
    // A person who continues gives the agent its time to be heard of again.
    world.append(Event::Continued { by: "tester".into() });
    let _ = world.settle();
    assert_eq!(world.upgrade.state, State::Running, "not paused again before the agent could speak");
    world.now += i64::from(PlanOptions::default().contact_timeout_seconds) + 1;
    let _ = world.settle();
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::ContactLost { .. }, .. }));
    let is_over = |world: &mut World| {
        world.now += 1;
        let Decision::Wait { on, .. } = world.settle() else { panic!("it is paused") };
        on.iter().any(|wait| matches!(wait.what, Waiting::Continue { is_over: true, .. }))
    };
    assert!(!is_over(&mut world));
    // The report may come while it is paused; a person then continues.
    world.succeed(lost);
    world.silent.clear();
    assert!(is_over(&mut world), "that the agent is back is told");
    world.append(Event::Continued { by: "tester".into() });
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
}

#[test]
fn a_cancel_that_waits_for_a_silent_agent_pauses_with_contact_lost() {
    let (mut world, _, node) = with_a_step_in_flight();
    world.append(Event::PauseRequested { reason: PauseReason::Operator, by: "tester".into() });
    world.append(Event::CancelRequested { by: "tester".into(), abandon: Vec::new() });
    world.silent.insert(node);
    world.now += i64::from(PlanOptions::default().contact_timeout_seconds) - 1;
    let _ = world.settle();
    assert_eq!(world.upgrade.state, State::Cancelling);
    world.now += 1;
    let _ = world.settle();
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::ContactLost { .. }, .. }));
}

#[test]
fn an_agent_is_back_only_where_it_was_heard_of_after_the_pause_began() {
    let (mut world, _, node) = with_a_step_in_flight();
    world.silent.insert(node);
    world.now += i64::from(PlanOptions::default().contact_timeout_seconds);
    let _ = world.settle();
    world.silent.clear();
    for expected in [false, true] {
        let decision = world.decide();
        assert!(matches!(waited_on(&decision), Waiting::Continue { is_over, .. } if *is_over == expected));
        world.now += 1;
    }
}
