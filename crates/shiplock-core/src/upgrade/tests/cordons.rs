//! Nodes in work that somebody else uncordons.

use super::*;

/// What began on a node since an event, as `cordon 2`.
fn began(world: &World, node: &NodeName, since: u64) -> Vec<String> {
    let told = |record: &EventRecord| match &record.event {
        Event::StepStarted { step, attempt } => {
            let step = world.upgrade.plan.step(*step).unwrap();
            (step.target.node() == Some(node)).then(|| format!("{} {attempt}", step.action.kind()))
        }
        Event::InterferenceNoticed { problem } => Some(format!("{} {}", problem.code.id(), problem.parameters["node"])),
        _ => None,
    };
    world.log.iter().filter(|record| record.number > since).filter_map(told).collect()
}

/// Goes on until a step of this kind is in flight, on the first node.
pub(super) fn until(kind: &str) -> (World, StepNumber, NodeName) {
    let mut world = World::new(&[("blue", 2)], options());
    loop {
        let _ = world.settle();
        let found = world.upgrade.in_flight().find(|(step, ..)| step.action.kind() == kind);
        if let Some((step, node)) = found.map(|(step, ..)| (step.number, step.target.node().unwrap().clone())) {
            return (world, step, node);
        }
        for number in world.in_flight() {
            world.succeed(number);
        }
    }
}

/// The world as a cache shows it that is older than the cordon.
fn stale(world: &World, node: &NodeName, owner: Option<NodeOwner>) -> World {
    let mut stale = world.clone();
    let seen = stale.cluster.nodes.get_mut(node).unwrap();
    (seen.unschedulable, seen.owner) = (false, owner);
    stale
}

fn uncordon(world: &mut World, node: &NodeName) {
    world.cluster.nodes.get_mut(node).unwrap().unschedulable = false;
}

fn uncordoned(world: &mut World, step: StepNumber, node: &NodeName) {
    let attempt = world.upgrade.steps[&step].attempts;
    let problem = Problem::new(Code::Uncordoned).with("node", node);
    world.append(Event::StepFailed { step, attempt, problem, retryable: true });
}

#[test]
fn a_node_that_somebody_uncordons_in_mid_drain_is_cordoned_and_emptied_again_before_anything_else() {
    let (mut world, drain, node) = until("drain");
    let since = world.upgrade.len;
    // The drain found it; caches still show the node cordoned.
    uncordoned(&mut world, drain, &node);
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
    let began = began(&world, &node, since);
    let expected = ["UPG0525 blue-01", "cordon 2", "drain 2", "upgrade_container_runtime 1", "upgrade_kubelet 1"];
    assert_eq!(began[..5], expected, "{began:?}");
}

#[test]
fn what_was_emptied_before_somebody_uncordoned_is_emptied_again_before_the_runtime_or_the_kubelet_is_changed() {
    for (kind, before) in [("drain", "upgrade_container_runtime 1"), ("upgrade_container_runtime", "upgrade_kubelet 1")]
    {
        let (mut world, step, node) = until(kind);
        let since = world.upgrade.len;
        uncordon(&mut world, &node);
        world.succeed(step);
        assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
        let began = began(&world, &node, since);
        assert_eq!(began[..4], ["UPG0525 blue-01", "cordon 2", "drain 2", before], "{began:?}");
    }
}

#[test]
fn after_the_last_change_nothing_is_cordoned_again() {
    let (mut world, step, node) = until("upgrade_kubelet");
    let since = world.upgrade.len;
    uncordon(&mut world, &node);
    world.succeed(step);
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
    assert_eq!(began(&world, &node, since), ["verify_node 1", "uncordon 1"]);
}

#[test]
fn an_act_that_an_agent_did_not_begin_since_the_node_takes_pods_is_begun_once_it_is_empty_again() {
    let (mut world, step, node) = until("upgrade_kubelet");
    let since = world.upgrade.len;
    uncordon(&mut world, &node);
    uncordoned(&mut world, step, &node);
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
    let began = began(&world, &node, since);
    assert_eq!(began[..4], ["UPG0525 blue-01", "cordon 2", "drain 2", "upgrade_kubelet 2"], "{began:?}");
}

#[test]
fn a_cache_that_does_not_show_the_cordon_yet_is_no_interference_and_holds_the_agent_back() {
    let (world, drain, node) = until("drain");
    let cordoned = world.cluster.nodes[&node].clone();
    // As it was before the cordon, and as it was before the second of two.
    let of_the_first = cordoned.owner.clone().map(|owner| NodeOwner { attempt: owner.attempt - 1, ..owner });
    for owner in [None, of_the_first] {
        let mut stale = stale(&world, &node, owner);
        stale.succeed(drain);
        let Decision::Wait { on, .. } = stale.settle() else { panic!("it waits to see the node cordoned") };
        let Waiting::Gate { problem } = &on[0].what else { panic!("{on:?}") };
        assert_eq!(problem.code, Code::ClusterNotRead);
        stale.cluster.nodes.insert(node.clone(), cordoned.clone());
        let since = stale.upgrade.len;
        let _ = stale.settle();
        assert_eq!(began(&stale, &node, since), ["upgrade_container_runtime 1"]);
    }
    // Where it still is so much later, the mark was taken off with the cordon.
    let mut wiped = stale(&world, &node, None);
    wiped.succeed(drain);
    let _ = wiped.settle();
    wiped.now += 30;
    let since = wiped.upgrade.len;
    let _ = wiped.settle();
    assert_eq!(began(&wiped, &node, since), ["UPG0525 blue-01", "cordon 2"]);
}

#[test]
fn a_cordon_that_somebody_takes_off_time_and_again_pauses_and_continue_cordons_again() {
    let (mut world, mut drain, node) = until("drain");
    let rounds = Policy::default().step_attempts_max;
    for round in 1..=rounds {
        uncordon(&mut world, &node);
        uncordoned(&mut world, drain, &node);
        let _ = world.settle();
        if round < rounds {
            for _ in 0..2 {
                drain = world.in_flight()[0];
                if world.upgrade.plan.step(drain).unwrap().action == Action::Cordon {
                    world.succeed(drain);
                    let _ = world.settle();
                }
            }
        }
    }
    let State::Paused { because: PauseReason::Interference { problem }, .. } = &world.upgrade.state else {
        panic!("{:?}", world.upgrade.state)
    };
    assert_eq!((problem.code, problem.parameters["node"].as_str()), (Code::Uncordoned, node.as_str()));
    world.append(Event::Continued { by: "tester".into() });
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
}

#[test]
fn a_cordon_of_somebody_else_that_is_taken_off_pauses_first_and_is_ours_after_continue() {
    let (mut world, cordon, node) = until("cordon");
    let seen = world.cluster.nodes.get_mut(&node).unwrap();
    seen.unschedulable = true;
    world.append(Event::StepSucceeded { step: cordon, attempt: 1, outcome: StepOutcome::Cordoned { ours: false } });
    let _ = world.settle();
    let drain = world.in_flight()[0];
    uncordon(&mut world, &node);
    uncordoned(&mut world, drain, &node);
    let _ = world.settle();
    assert!(matches!(world.upgrade.state, State::Paused { because: PauseReason::Interference { .. }, .. }));
    let since = world.upgrade.len;
    world.append(Event::Continued { by: "tester".into() });
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
    assert_eq!(began(&world, &node, since)[..3], ["UPG0525 blue-01", "cordon 2", "drain 2"]);
}

#[test]
fn a_cancelled_or_expiring_upgrade_does_not_fight_for_a_node() {
    let (mut world, drain, node) = until("drain");
    for round in 1..=3 {
        uncordon(&mut world, &node);
        let step = if round == 1 { drain } else { world.in_flight()[0] };
        uncordoned(&mut world, step, &node);
        let _ = world.settle();
        if let Some(cordon) = world.in_flight().first().copied() {
            world.succeed(cordon);
            let _ = world.settle();
        }
    }
    assert!(matches!(world.upgrade.state, State::Paused { .. }));
    world.append(Event::CancelRequested { by: "tester".into(), abandon: Vec::new() });
    let since = world.upgrade.len;
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Cancelled));
    assert_eq!(began(&world, &node, since), ["uncordon 1"]);
}

#[test]
fn a_cordon_of_ours_that_a_restored_store_forgot_is_named_where_pods_are_missing_and_its_node_goes_first() {
    let mut world = World::new(&[("blue", 4)], options());
    let ready = world.cluster.workloads[0].ready;
    while world.upgrade.batch_finished_at.is_none() {
        let _ = world.settle();
        for number in world.in_flight() {
            world.succeed(number);
        }
        if world.upgrade.batches.contains_key(&1) {
            let owner = Some(NodeOwner { upgrade: world.upgrade.id.clone(), epoch: world.upgrade.epoch, attempt: 1 });
            let forgotten = world.cluster.nodes.get_mut("blue-04").unwrap();
            (forgotten.unschedulable, forgotten.owner) = (true, owner);
            world.cluster.workloads[0].ready = 1;
        }
    }
    let Decision::Wait { on, .. } = world.settle() else { panic!("the gate holds") };
    let Waiting::Gate { problem } = &on[0].what else { panic!("{on:?}") };
    assert_eq!((problem.code, problem.parameters["node"].as_str()), (Code::CordonForgotten, "blue-04"));
    world.cluster.workloads[0].ready = ready;
    let _ = world.settle();
    assert_eq!(world.batches(1)[1], ["blue-04", "blue-02"]);
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
}
