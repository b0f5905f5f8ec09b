//! Between the checks and the first act, and when `decide` wants to look again.

use super::*;
use crate::facts::NodeFacts;

/// Checked, and not started yet.
fn ready() -> World {
    let mut world = World::new(&[("blue", 2)], options());
    while !matches!(world.upgrade.state, State::Ready { .. }) {
        let Decision::Issue(commands) = world.decide() else { panic!("nothing holds the checks") };
        for command in commands {
            let Command::Record(event) = command else { panic!("nothing begins before the start") };
            world.append(event);
        }
    }
    world
}

fn records(event: Event) -> Decision {
    Decision::Issue(vec![Command::Record(event)])
}

#[test]
fn checks_that_passed_are_made_again_before_the_start_once_they_are_too_old() {
    let mut world = ready();
    let valid = i64::from(Policy::default().check_valid_seconds);
    world.now += valid - 1;
    assert_eq!(world.decide(), records(Event::Started));
    world.now += 1;
    assert_eq!(world.decide(), records(Event::CheckStarted));
}

#[test]
fn what_changed_since_the_checks_and_would_block_is_checked_again_and_not_started() {
    let mut world = ready();
    world.unheard.insert("blue-01".into());
    assert_eq!(world.decide(), records(Event::CheckStarted));
    let _ = world.settle();
    assert_eq!(world.upgrade.state, State::Blocked);
}

#[test]
fn the_next_look_is_at_the_first_deadline_to_come_and_never_later_than_the_poll() {
    let poll = i64::from(Policy::default().poll_seconds);
    let gate = i64::from(PlanOptions::default().gate_timeout_seconds);
    let mut world = gates::held_by_a_gate();
    let finished = world.upgrade.batch_finished_at.unwrap().as_second() - at(0).as_second();
    for (before_the_deadline, expected) in [(poll + 1, poll), (poll - 1, poll - 1), (1, 1)] {
        world.now = finished + gate - before_the_deadline;
        let Decision::Wait { wake_at, .. } = world.decide() else { panic!("the gate holds") };
        assert_eq!(wake_at, at(world.now + expected), "{before_the_deadline} s before the deadline");
    }
    // A deadline that has passed wakes nobody: who continued after it wants it to wait on.
    world.now = finished + gate;
    let _ = world.settle();
    world.append(Event::Continued { by: "tester".into() });
    world.now += 1;
    let Decision::Wait { wake_at, .. } = world.settle() else { panic!("the gate holds") };
    assert_eq!(wake_at, at(world.now + poll));
}

#[test]
fn a_node_that_is_done_and_falls_ill_holds_the_next_batch_and_one_that_waits_does_not() {
    let mut world = gates::held_by_a_gate();
    world.cluster.workloads[0].ready = 2;
    let batch: Vec<String> = world.batches(1)[0].iter().map(|&name| name.to_owned()).collect();
    let ill = |world: &mut World, name: &str| {
        let ready = &mut world.cluster.nodes.get_mut(name).unwrap().ready;
        *ready = Readiness::NotReady { why: "KubeletNotReady".to_owned() };
    };
    let waiting = world.upgrade.plan.nodes().map(|node| node.node.to_string()).find(|name| !batch.contains(name));
    let mut other = world.clone();
    ill(&mut world, &batch[0]);
    let decision = world.settle();
    let Waiting::Gate { problem } = waited_on(&decision) else { panic!("the gate holds: {decision:?}") };
    assert_eq!((problem.code, problem.parameters["node"].as_str()), (Code::NodeNotReady, batch[0].as_str()));
    world.cluster.nodes.remove(batch[0].as_str());
    let decision = world.settle();
    let Waiting::Gate { problem } = waited_on(&decision) else { panic!("the gate holds: {decision:?}") };
    assert_eq!((problem.code, problem.parameters["node"].as_str()), (Code::NodeGone, batch[0].as_str()));
    // Another machine under the name of one that is done is none that was upgraded, however well it is.
    let replacements: [fn(&mut NodeFacts); 2] =
        [|node| node.uid = "another".into(), |node| node.machine_id = "another".into()];
    for replace in replacements {
        let mut replaced = other.clone();
        replace(replaced.cluster.nodes.get_mut(batch[0].as_str()).unwrap());
        let decision = replaced.settle();
        let Waiting::Gate { problem } = waited_on(&decision) else { panic!("the gate holds: {decision:?}") };
        assert_eq!((problem.code, problem.parameters["node"].as_str()), (Code::WrongMachine, batch[0].as_str()));
    }
    ill(&mut other, &waiting.unwrap());
    let _ = other.settle();
    assert_eq!(other.batches(1).len(), 2);
}
