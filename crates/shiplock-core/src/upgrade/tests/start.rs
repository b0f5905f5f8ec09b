//! Between the checks and the first act, and when `decide` wants to look again.

use super::*;
use crate::facts::{ControlPlaneComponent, NodeFacts};

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

/// The first batch of a stage is open, and none of its nodes is begun with.
fn with_an_open_batch(mut world: World, stage: usize) -> World {
    while world.upgrade.open_batch(stage).is_none() {
        let Decision::Issue(commands) = world.decide() else {
            for number in world.in_flight() {
                world.succeed(number);
            }
            continue;
        };
        for command in commands {
            world.append(match command {
                Command::Record(event) => event,
                Command::Run { step, attempt } => Event::StepStarted { step, attempt },
            });
        }
    }
    assert!(world.started_nodes().is_empty());
    world
}

fn begins(decision: &Decision) -> bool {
    matches!(decision, Decision::Issue(commands) if matches!(commands[..], [Command::Run { .. }]))
}

#[test]
fn a_node_of_an_open_batch_is_not_begun_with_while_the_cluster_cannot_be_read() {
    let mut world = with_an_open_batch(World::new(&[("blue", 2)], options()), 1);
    assert!(begins(&world.decide()));
    world.cluster_known = false;
    assert!(matches!(waited_on(&world.decide()), Waiting::ClusterFacts { .. }));
}

#[test]
fn a_node_whose_agent_is_silent_is_not_begun_with() {
    for (silent_seconds, expected) in [(29, true), (30, false), (31, false)] {
        let mut world = with_an_open_batch(World::new(&[("blue", 2)], options()), 1);
        world.silent.insert("blue-01".into());
        world.now = silent_seconds;
        let decision = world.decide();
        assert_eq!(begins(&decision), expected, "silent for {silent_seconds} s: {decision:?}");
        if !expected {
            assert_eq!(*waited_on(&decision), Waiting::AgentContact { node: "blue-01".into() });
        }
    }
}

#[test]
fn a_kubelet_becomes_newer_than_no_api_server_by_its_patch_or_by_the_version_that_it_emulates() {
    for (version, emulates, expected) in [
        ("v1.36.3", None, true),
        ("v1.36.3", Some("1.36"), true),
        ("v1.37.0", None, true),
        ("v1.37.0", Some("1.36"), true),
        ("v1.36.2", None, false),
        ("v1.36.3", Some("1.35"), false),
        ("v1.37.0", Some("1.35"), false),
    ] {
        let mut world = with_an_open_batch(World::new(&[("blue", 2)], options()), 1);
        let server = &mut world.cluster.api_servers[0];
        server.version = version.parse().unwrap();
        server.emulates = emulates.map(|minor| minor.parse().unwrap());
        let described = server.described();
        let decision = world.decide();
        assert_eq!(begins(&decision), expected, "{described}: {decision:?}");
        if !expected {
            let Waiting::Gate { problem } = waited_on(&decision) else { panic!("a gate: {decision:?}") };
            assert_eq!(
                (problem.code, problem.parameters["api_server"].as_str()),
                (Code::KubeletNewerThanApiServer, described.as_str())
            );
        }
    }
}

#[test]
fn a_master_is_begun_with_while_the_other_masters_are_ready_and_one_of_their_api_servers_answers() {
    use ControlPlaneComponent::KubeApiserver;
    type Silent = Vec<(&'static str, ControlPlaneComponent)>;
    let world = with_an_open_batch(World::with_masters(3, 2, options()), 2);
    assert_eq!(world.batches(2), [["m2"]]);
    let all_but = |left: ControlPlaneComponent| ControlPlaneComponent::ALL.into_iter().filter(move |one| *one != left);
    let cases: [(&str, &[&str], Silent, Option<Code>); 8] = [
        ("all is well", &[], vec![], None),
        ("a worker is not Ready", &["blue-01"], vec![], None),
        ("the master itself is not Ready", &["m2"], vec![], None),
        ("another master is not Ready", &["m3"], vec![], Some(Code::NodeNotReady)),
        ("one other API server answers", &[], vec![("m1", KubeApiserver)], None),
        (
            "no other API server answers",
            &[],
            vec![("m1", KubeApiserver), ("m3", KubeApiserver)],
            Some(Code::NoOtherApiServer),
        ),
        ("its own API server does not answer", &[], vec![("m2", KubeApiserver)], None),
        (
            "nothing but the other API servers answers",
            &[],
            ["m1", "m3"].into_iter().flat_map(|name| all_but(KubeApiserver).map(move |one| (name, one))).collect(),
            None,
        ),
    ];
    for (what, not_ready, silent_components, expected) in cases {
        let mut world = world.clone();
        for name in not_ready {
            world.cluster.nodes.get_mut(*name).unwrap().ready = Readiness::NotReady { why: "drawn".into() };
        }
        let mut facts = world.facts();
        for (name, component) in silent_components {
            let machine = std::sync::Arc::make_mut(&mut facts.agents.get_mut(name).unwrap().machine);
            let pods = &mut machine.control_plane.as_deref_mut().unwrap().components;
            pods.iter_mut().find(|pod| pod.component == component).unwrap().healthy = false;
        }
        let decision = decide(&world.upgrade, &facts, &Policy::default(), at(world.now));
        assert_eq!(begins(&decision), expected.is_none(), "{what}: {decision:?}");
        if expected.is_some() {
            let Waiting::Gate { problem } = waited_on(&decision) else { panic!("a gate: {decision:?}") };
            assert_eq!(Some(problem.code), expected, "{what}");
        }
    }
}
