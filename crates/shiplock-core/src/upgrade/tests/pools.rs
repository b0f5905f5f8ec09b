//! Batches, pools and prefetch.

use super::*;
use crate::upgrade::older_outside_plan;

#[test]
fn nodes_that_joined_after_the_plan_and_are_older_or_of_an_unknown_version_are_named() {
    let mut world = World::new(&[("blue", 2)], options());
    let (planned, to) = (world.cluster.nodes["blue-01"].clone(), world.upgrade.plan.to);
    let named = |world: &World| older_outside_plan(&world.upgrade.plan, to, &world.cluster);
    assert_eq!(named(&world), [], "what the plan holds is told by its progress");
    // One joined under a new name, one under the name of a planned node.
    let joined = crate::facts::NodeFacts { uid: "joined".into(), ..planned };
    world.cluster.nodes.insert("blue-09".into(), joined.clone());
    world.cluster.nodes.insert("blue-02".into(), joined);
    assert_eq!(named(&world), ["blue-02".into(), "blue-09".into()]);
    world.cluster.nodes.get_mut("blue-02").unwrap().kubelet_version = to.to_string();
    world.cluster.nodes.get_mut("blue-09").unwrap().kubelet_version = "?".to_owned();
    assert_eq!(named(&world), ["blue-09".into()]);
}

#[test]
fn an_undisturbed_upgrade_goes_one_two_four_through_each_pool_and_succeeds() {
    let mut world = World::new(&[("blue", 8), ("green", 3)], options());
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
    let sizes = |stage| world.batches(stage).iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(1), [1, 2, 4, 1]);
    assert_eq!(sizes(2), [1, 2]);
}

#[test]
fn everything_is_fetched_before_the_first_node_is_touched() {
    let mut world = World::new(&[("blue", 3)], options());
    let _ = world.run_out();
    let position = |wanted: &dyn Fn(&Action) -> bool, last: bool| {
        let mut hits = world.log.iter().enumerate().filter(|(_, record)| match &record.event {
            Event::StepStarted { step, .. } => wanted(&world.upgrade.plan.step(*step).unwrap().action),
            _ => false,
        });
        if last { hits.next_back().unwrap().0 } else { hits.next().unwrap().0 }
    };
    assert!(
        position(&|action| matches!(action, Action::Prefetch { .. }), true)
            < position(&|action| *action == Action::Cordon, false)
    );
}

#[test]
fn the_pause_policy_pauses_after_the_first_batch_only() {
    let mut world = World::new(&[("blue", 4)], PlanOptions { pause_policy: PausePolicy::AfterFirstBatch, ..options() });
    let _ = world.run_out();
    assert!(matches!(&world.upgrade.state, State::Paused { because: PauseReason::PausePolicy, .. }));
    assert_eq!(world.batches(1).len(), 1);
    world.append(Event::Continued { by: "tester".into() });
    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
}

#[test]
fn a_lower_bound_acts_from_the_next_batch() {
    let mut world = World::new(&[("blue", 8)], PlanOptions { pause_policy: PausePolicy::AfterFirstBatch, ..options() });
    let _ = world.run_out();
    world.append(Event::MaxParallelChanged { max_parallel: 1, by: "tester".into() });
    world.append(Event::Continued { by: "tester".into() });
    let _ = world.run_out();
    assert!(world.batches(1).iter().all(|batch| batch.len() == 1));
}

#[test]
fn masters_fetch_one_after_the_other_while_workers_fetch_together() {
    let mut world = World::with_masters(3, 3, options());
    while world.in_flight().is_empty() || world.upgrade.stages_started.is_empty() {
        let _ = world.settle();
    }
    let mut most = [0, 0];
    while !world.upgrade.stages_finished.contains(&0) {
        let fetching = world.in_flight();
        let nodes = fetching.iter().filter_map(|number| world.upgrade.plan.step(*number)?.target.node());
        let (masters, workers): (Vec<_>, Vec<_>) = nodes.partition(|node| node.as_str().starts_with('m'));
        most = [most[0].max(masters.len()), most[1].max(workers.len())];
        world.succeed(fetching[0]);
        let _ = world.settle();
    }
    assert_eq!(most, [1, 3]);
}
