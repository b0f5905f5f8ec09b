//! Logs that no upgrade can have written: refused by the fold, whoever hands them in.

use super::*;

/// Why the fold refuses one more event.
fn refusal(world: &World, event: Event) -> Option<String> {
    let record = record(world.upgrade.len + 1, world.now, event);
    world.upgrade.clone().apply(&record).err().map(|error| error.to_string())
}

#[test]
fn a_batch_that_breaks_the_batch_law_is_no_part_of_a_log() {
    let mut world = gates::held_by_a_gate_in(&[("blue", 4), ("green", 2)]);
    let first = world.batches(1)[0][0].to_owned();
    let names: Vec<NodeName> = world.upgrade.plan.stages[1].nodes.iter().map(|node| node.node.clone()).collect();
    let left: Vec<NodeName> = names.iter().filter(|name| name.as_str() != first).cloned().collect();
    let of = |stage: usize, batch: u32, size_limit: u32, nodes: &[NodeName]| Event::BatchStarted {
        stage,
        batch,
        size_limit,
        nodes: nodes.to_vec(),
    };
    for (what, event, why) in [
        ("another ordinal", of(1, 3, 2, &left[..2]), "breaks the batch law"),
        ("the ordinal of the first", of(1, 1, 1, &left[..1]), "breaks the batch law"),
        ("a larger limit", of(1, 2, 4, &left[..2]), "breaks the batch law"),
        ("a smaller limit", of(1, 2, 1, &left[..1]), "breaks the batch law"),
        ("no nodes", of(1, 2, 2, &[]), "breaks the batch law"),
        ("more nodes than the limit", of(1, 2, 2, &left), "breaks the batch law"),
        ("a node that was begun with", of(1, 2, 2, &[first.as_str().into()]), "is not to be taken in stage 1"),
        ("a node twice", of(1, 2, 2, &[left[0].clone(), left[0].clone()]), "is not to be taken in stage 1"),
        ("a node of another pool", of(1, 2, 2, &["green-01".into()]), "is not to be taken in stage 1"),
        ("a stage that has not begun", of(2, 1, 1, &["green-01".into()]), "is not ready for a batch"),
        ("a stage that is over", of(0, 1, 1, &left[..1]), "is not ready for a batch"),
        ("no stage of the plan", of(9, 1, 1, &left[..1]), "no such stage"),
    ] {
        let found = refusal(&world, event).unwrap_or_default();
        assert!(found.contains(why), "{what}: {found:?}");
    }
    assert_eq!(refusal(&world, of(1, 2, 2, &left[..2])), None);
    world.append(of(1, 2, 2, &left[..2]));
    let third = refusal(&world, of(1, 3, 4, &left[2..])).unwrap();
    assert!(third.contains("is not ready for a batch"), "one batch at a time: {third}");
}

#[test]
fn nothing_follows_the_end_and_no_event_is_older_than_the_one_before() {
    let mut world = World::new(&[("blue", 1)], options());
    assert!(!world.upgrade.state.is_terminal());
    let early = record(world.upgrade.len + 1, world.now - 1, Event::CheckStarted);
    assert!(world.upgrade.clone().apply(&early).unwrap_err().to_string().contains("older than the event ahead"));
    let skipping = record(world.upgrade.len + 2, world.now, Event::CheckStarted);
    assert!(world.upgrade.clone().apply(&skipping).unwrap_err().to_string().contains("was expected"));

    assert_eq!(world.run_out(), Decision::Finish(Outcome::Succeeded));
    world.append(Outcome::Succeeded.event());
    assert!(world.upgrade.state.is_terminal());
    for event in [
        Event::InterferenceNoticed { problem: Problem::new(Code::Internal) },
        Event::CheckStarted,
        Event::Continued { by: "tester".into() },
    ] {
        let why = refusal(&world, event).unwrap();
        assert!(why.contains("in state succeeded"), "{why}");
    }
}

#[test]
fn what_broke_is_never_taken_back_by_a_continue_before_it_came_to_rest() {
    let pausing = |reason: PauseReason| {
        let (mut world, ..) = with_a_step_in_flight();
        world.append(Event::PauseRequested { reason, by: "tester".into() });
        refusal(&world, Event::Continued { by: "tester".into() })
    };
    assert_eq!(pausing(PauseReason::Operator), None);
    let why = pausing(PauseReason::Interference { problem: Problem::new(Code::Interference) }).unwrap();
    assert!(why.contains("in state pausing"), "{why}");
}
