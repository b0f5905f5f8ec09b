//! Nodes that are not the machines of the plan any more.

use super::*;

#[test]
fn a_node_that_became_another_machine_is_not_touched() {
    let mut world = World::new(&[("blue", 2)], options());
    while world.upgrade.open_batch(1).is_none() {
        if world.batches(0).is_empty() && world.upgrade.stages_finished.contains(&0) {
            world.cluster.nodes.get_mut("blue-01").unwrap().uid = "another".into();
        }
        if let Decision::Issue(commands) = world.decide() {
            for command in commands {
                world.append(match command {
                    Command::Record(event) => event,
                    Command::Run { step, attempt } => Event::StepStarted { step, attempt },
                });
            }
        }
        for number in world.in_flight() {
            world.succeed(number);
        }
    }
    let _ = world.settle();
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::Interference { .. }, .. }));
    assert!(world.started_nodes().is_empty());
}

#[test]
fn a_node_that_was_deleted_before_its_turn_is_left_out_as_gone_and_the_others_succeed() {
    let mut world = World::new(&[("blue", 2)], options());
    while !world.upgrade.stages_finished.contains(&0) {
        let _ = world.settle();
        for number in world.in_flight() {
            world.succeed(number);
        }
    }
    world.cluster.nodes.remove("blue-02");
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
    let left_out: Vec<_> = world.upgrade.skipped.iter().map(|(node, problem)| (node.as_str(), problem.code)).collect();
    assert_eq!(left_out, [("blue-02", Code::NodeGone)]);
}

#[test]
fn a_node_that_was_deleted_while_it_was_in_work_pauses_the_upgrade_as_gone() {
    let (mut world, step, node) = with_a_step_in_flight();
    world.cluster.nodes.remove(&node);
    world.succeed(step);
    let _ = world.settle();
    let State::Paused { because: PauseReason::Interference { problem }, .. } = &world.upgrade.state else {
        panic!("{:?}", world.upgrade.state)
    };
    assert_eq!((problem.code, problem.parameters["node"].as_str()), (Code::NodeGone, node.as_str()));
}

#[test]
fn a_node_that_joins_again_under_another_uid_in_mid_step_gets_no_second_try_and_no_further_step() {
    for fails in [true, false] {
        let (mut world, step, node) = with_a_step_in_flight();
        let planned = world.cluster.nodes[&node].uid.to_string();
        world.cluster.nodes.get_mut(&node).unwrap().uid = "another".into();
        if fails {
            world.fail(step, true);
        } else {
            world.succeed(step);
        }
        world.now += 120;
        let _ = world.settle();
        let State::Paused { because: PauseReason::Interference { problem }, .. } = &world.upgrade.state else {
            panic!("{:?}", world.upgrade.state)
        };
        for (parameter, value) in [("node", node.as_str()), ("expected", &planned), ("found", "another")] {
            assert_eq!(problem.parameters[parameter], value);
        }
        world.append(Event::Continued { by: "tester".into() });
        let _ = world.settle();
        for logs in world.in_flight() {
            assert_eq!(
                world.upgrade.plan.step(logs).unwrap().action,
                Action::CollectLogs,
                "nothing else is begun on it"
            );
            world.succeed(logs);
        }
        let _ = world.settle();
        assert!(matches!(world.upgrade.state, State::Paused { because: PauseReason::Interference { .. }, .. }));
        // What is ours on the planned node is given back, and no more.
        world.append(Event::CancelRequested { abandon: Vec::new(), by: "tester".into() });
        let _ = world.settle();
        let [give_back] = world.in_flight()[..] else { panic!("{:?}", world.in_flight()) };
        assert_eq!(world.upgrade.plan.step(give_back).unwrap().action, Action::Uncordon);
        world.succeed(give_back);
        assert_eq!(world.settle(), Decision::Finish(Outcome::Cancelled));
    }
}

#[test]
fn a_pause_by_a_person_does_not_hide_that_a_started_node_became_another_machine() {
    let (mut world, step, node) = with_a_step_in_flight();
    world.append(Event::PauseRequested { reason: PauseReason::Operator, by: "tester".into() });
    world.cluster.nodes.get_mut(&node).unwrap().uid = "another".into();
    world.succeed(step);
    let _ = world.settle();
    assert!(matches!(world.upgrade.state, State::Paused { because: PauseReason::Interference { .. }, .. }));
}
