//! What the driver's machine promises, shown without store, cluster or agents: a log in a vector, executors that reach
//! their goal at once and count their effects, and a crash after any output.

use std::collections::{BTreeMap, BTreeSet};

use shiplock_api::agent::{AssignmentId, PermitResponse, ReportKind, ReportResponse};
use shiplock_cluster::port::ClaimOutcome;
use shiplock_core::facts::{Facts, Observed};
use shiplock_core::id::{Epoch, Generation, NodeName, StepNumber};
use shiplock_core::language::Language;
use shiplock_core::plan::{Mode, PlanOptions, PlanRequest};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::sample::{agents, at, cluster, cluster_with_masters, plan_of, request};
use shiplock_core::step::Action;
use shiplock_core::upgrade::{Event, EventRecord, PauseReason, Policy, State, StepOutcome, Upgrade};

use super::claim_problem;
use super::machine::{Input, Machine, Output};

/// A log and a world whose steps have effects.
struct World {
    log: Vec<EventRecord>,
    epoch: u64,
    now: i64,
    effects: BTreeMap<StepNumber, u32>,
    /// Outputs carried out so far, and the one after which everything stops.
    carried_out: usize,
    crash_after: usize,
}

impl World {
    fn new(pools: &[(&str, usize)]) -> Self {
        let plan = plan_of(&cluster(pools), &request("1.36", PlanOptions::default())).unwrap();
        let mut world = Self {
            log: Vec::new(),
            epoch: 0,
            now: 0,
            effects: BTreeMap::new(),
            carried_out: 0,
            crash_after: usize::MAX,
        };
        world.append(None, vec![Event::Planned { plan: Box::new(plan), by: "tester".into() }]);
        world
    }

    fn append(&mut self, epoch: Option<Epoch>, events: Vec<Event>) -> Vec<EventRecord> {
        let first = self.log.len() as u64 + 1;
        let records = events.into_iter().zip(first..).map(|(event, number)| EventRecord {
            upgrade: "u1".into(),
            number,
            position: number,
            at: at(self.now),
            epoch,
            event,
        });
        let records: Vec<_> = records.collect();
        self.log.extend(records.iter().cloned());
        records
    }

    fn facts(&self) -> Input {
        let mut facts = cluster(&[("blue", 3)]);
        facts.observed_at = at(self.now);
        let upgrade = Upgrade::fold(&self.log).unwrap();
        for cordoned in upgrade.plan.nodes().filter(|node| upgrade.holds_cordon(node)) {
            facts.nodes.get_mut(&cordoned.node).unwrap().unschedulable = true;
        }
        let agents = agents(&facts, at(self.now));
        Input::Facts(Box::new(Facts {
            cluster: Observed::Known(facts.into()),
            agents,
            progress: BTreeMap::new(),
            uptime_seconds: 1,
            precheck: Some(Vec::new()),
        }))
    }

    /// A machine that has just taken the lease.
    fn machine(&mut self) -> Machine {
        self.epoch += 1;
        self.append(
            None,
            vec![Event::LeaseTaken { epoch: Epoch(self.epoch), holder: format!("server-{}", self.epoch) }],
        );
        Machine::new(Upgrade::fold(&self.log).unwrap(), Policy::default())
    }

    /// Feeds a machine until it waits without anything in flight, it stops, or the crash comes. True when it stopped.
    fn drive(&mut self, machine: &mut Machine) -> bool {
        let mut inputs = std::collections::VecDeque::from([Input::Claim(None), self.facts()]);
        let mut idle = 0;
        loop {
            let input = match inputs.pop_front() {
                Some(input) => input,
                None if idle > 3 => return false,
                None => {
                    idle += 1;
                    self.now += 6;
                    inputs.push_back(Input::Tick);
                    self.facts()
                }
            };
            for output in machine.on(input, at(self.now)) {
                if self.carried_out == self.crash_after {
                    return false;
                }
                self.carried_out += 1;
                match output {
                    Output::Append { expected_len, events } => {
                        idle = 0;
                        assert_eq!(expected_len, self.log.len() as u64, "one appender at a time");
                        let records = self.append(Some(Epoch(self.epoch)), events);
                        inputs.push_back(Input::Appended(records));
                    }
                    Output::RunStep { step, attempt, .. } => {
                        let result = Ok(self.reach_goal(step.number, &step.action));
                        inputs.push_back(Input::StepEnded { step: step.number, attempt, result });
                    }
                    Output::Offer(assignment) => {
                        assert_eq!(assignment.id.generation.epoch, Epoch(self.epoch));
                        let outcome = self.reach_goal(assignment.id.step, &assignment.action);
                        let facts = agents(&cluster(&[("blue", 3)]), at(self.now));
                        let machine = Box::new((*facts[&assignment.node].machine).clone());
                        let kind = ReportKind::Succeeded { outcome, machine };
                        inputs.push_back(Input::Report { id: assignment.id, node: assignment.node, kind, ticket: 1 });
                    }
                    Output::Stop(None) => return true,
                    Output::Stop(Some(illegal)) => panic!("{illegal}"),
                    _ => {}
                }
            }
        }
    }

    /// Examine, then act: the effect comes once, however often the step is run.
    fn reach_goal(&mut self, step: StepNumber, action: &Action) -> StepOutcome {
        let known = self
            .log
            .iter()
            .any(|record| matches!(record.event, Event::StepStarted { step: begun, .. } if begun == step));
        assert!(known, "step {step} acts without an intent in the log");
        self.effects.entry(step).or_insert(1);
        match action {
            Action::CaptureBaseline => StepOutcome::Baseline { workloads: Vec::new() },
            Action::Cordon => StepOutcome::Cordoned { ours: true },
            _ => StepOutcome::Done,
        }
    }

    fn state(&self) -> State {
        Upgrade::fold(&self.log).unwrap().state
    }
}

#[test]
fn a_crash_after_any_output_is_survived_and_every_step_is_done_in_the_end() {
    let mut whole = World::new(&[("blue", 3)]);
    let mut machine = whole.machine();
    assert!(whole.drive(&mut machine));
    assert_eq!(whole.state(), State::Succeeded);
    for crash_after in 0..whole.carried_out {
        let mut world = World::new(&[("blue", 3)]);
        world.crash_after = crash_after;
        let mut machine = world.machine();
        assert!(!world.drive(&mut machine), "the crash after output {crash_after} came");
        drop(machine);
        world.crash_after = usize::MAX;
        let mut successor = world.machine();
        assert!(world.drive(&mut successor), "it ends after a crash at output {crash_after}");
        assert_eq!(world.state(), State::Succeeded);
        assert_eq!(world.effects, whole.effects);
        let mut ended = BTreeSet::new();
        for record in &world.log {
            if let Event::StepSucceeded { step, .. } = record.event {
                assert!(ended.insert(step), "step {step} ended twice");
            }
        }
    }
}

#[test]
fn a_node_that_only_fetches_is_offered_its_step_under_the_machine_id_that_the_cluster_tells() {
    let cluster = cluster_with_masters(1, 2);
    let options = PlanOptions { accept: vec!["CP-003".to_owned()], ..PlanOptions::default() };
    let asked = PlanRequest { mode: Mode::ControlPlane, ..request("1.36", options) };
    let plan = plan_of(&cluster, &asked).unwrap();
    let mut world = World::new(&[("blue", 1)]);
    world.log.clear();
    world.append(None, vec![Event::Planned { plan: Box::new(plan), by: "tester".into() }]);
    let mut machine = world.machine();
    let facts = || Facts {
        cluster: Observed::Known(cluster.clone().into()),
        agents: agents(&cluster, at(0)),
        progress: BTreeMap::new(),
        uptime_seconds: 1,
        precheck: Some(Vec::new()),
    };
    let mut inputs = std::collections::VecDeque::from([Input::Claim(None), Input::Facts(Box::new(facts()))]);
    let mut offered = BTreeMap::new();
    while let Some(input) = inputs.pop_front() {
        for output in machine.on(input, at(0)) {
            match output {
                Output::Append { events, .. } => {
                    let records = world.append(Some(Epoch(1)), events);
                    inputs.push_back(Input::Appended(records));
                }
                Output::Offer(assignment) => drop(offered.insert(assignment.node.to_string(), assignment.machine_id)),
                Output::RunStep { step, .. } => assert_eq!(step.action, Action::CaptureBaseline),
                _ => {}
            }
        }
    }
    let expected = ["blue-01", "blue-02", "m1"].map(|node| (node.to_owned(), format!("machine-{node}")));
    assert_eq!(offered, BTreeMap::from(expected));
}

/// Drives until the first offer and hands it back with the machine that made it.
fn until_offer() -> (World, Machine, shiplock_api::agent::Assignment) {
    let mut world = World::new(&[("blue", 3)]);
    let mut machine = world.machine();
    let mut inputs = std::collections::VecDeque::from([Input::Claim(None), world.facts()]);
    loop {
        let input = inputs.pop_front().unwrap_or(Input::Tick);
        for output in machine.on(input, at(0)) {
            match output {
                Output::Append { events, .. } => {
                    let records = world.append(Some(Epoch(1)), events);
                    inputs.push_back(Input::Appended(records));
                }
                Output::Offer(assignment) => return (world, machine, *assignment),
                _ => {}
            }
        }
    }
}

fn permit(machine: &mut Machine, id: &AssignmentId, lease_holds: bool) -> bool {
    let outputs = machine.on(Input::Permit { id: id.clone(), lease_holds, ticket: 7 }, at(1));
    outputs.iter().any(|output| matches!(output, Output::AnswerPermit(7, PermitResponse::Granted)))
}

#[test]
fn a_permit_needs_the_lease_the_epoch_in_force_and_an_attempt_in_flight() {
    let (_, mut machine, offer) = until_offer();
    assert!(permit(&mut machine, &offer.id, true));
    assert!(!permit(&mut machine, &offer.id, false), "a lease about to end");
    let with = |generation| AssignmentId { generation, ..offer.id.clone() };
    let Generation { epoch, intent } = offer.id.generation;
    assert!(!permit(&mut machine, &with(Generation { epoch: Epoch(epoch.0 - 1), intent }), true), "an older epoch");
    assert!(!permit(&mut machine, &with(Generation { epoch, intent: intent - 1 }), true), "another attempt");
}

#[test]
fn an_agent_whose_node_joined_again_under_another_uid_gets_no_permit_and_its_attempt_ends() {
    let (world, mut machine, offer) = until_offer();
    let Input::Facts(mut facts) = world.facts() else { unreachable!("facts are facts") };
    let Observed::Known(cluster) = &mut facts.cluster else { unreachable!("the cluster is known") };
    std::sync::Arc::make_mut(cluster).nodes.get_mut(&offer.node).unwrap().uid = "another".into();
    let _ = machine.on(Input::Facts(facts), at(1));
    let outputs = machine.on(Input::Permit { id: offer.id.clone(), lease_holds: true, ticket: 7 }, at(1));
    let refused = |output: &Output| match output {
        Output::AnswerPermit(7, PermitResponse::Refused { problem }) => problem.code == Code::WrongMachine,
        _ => false,
    };
    assert!(outputs.iter().any(refused), "{outputs:?}");
    let failed = outputs.iter().find_map(|output| match output {
        Output::Append { events, .. } => events.iter().find_map(|event| match event {
            Event::StepFailed { step, problem, retryable, .. } => Some((*step, problem.clone(), *retryable)),
            _ => None,
        }),
        _ => None,
    });
    let (step, problem, retryable) = failed.expect("the attempt ends");
    assert_eq!((step, problem.code, retryable), (offer.id.step, Code::WrongMachine, false));
    assert_eq!(
        (problem.parameters["node"].as_str(), problem.parameters["found"].as_str()),
        (offer.node.as_str(), "another")
    );
}

#[test]
fn a_driver_that_was_overtaken_while_it_stood_still_settles_no_report_of_a_newer_epoch() {
    let (_, mut machine, offer) = until_offer();
    let Generation { epoch, intent } = offer.id.generation;
    let id = AssignmentId { generation: Generation { epoch: Epoch(epoch.0 + 1), intent: intent + 20 }, ..offer.id };
    let kind = ReportKind::Failed { problem: Problem::new(Code::DownloadFailed), retryable: true };
    let outputs = machine.on(Input::Report { id, node: offer.node, kind, ticket: 9 }, at(1));
    assert!(outputs.contains(&Output::AnswerReport(9, None)), "it is to be repeated: {outputs:?}");
}

#[test]
fn a_paused_upgrade_gives_no_permit() {
    let (mut world, mut machine, offer) = until_offer();
    let by = "tester";
    let events = vec![Event::PauseRequested { reason: PauseReason::Operator, by: by.into() }, Event::Paused];
    let records = world.append(None, events);
    let _ = machine.on(Input::Overtaken(records), at(1));
    assert!(matches!(machine.upgrade().state, State::Paused { .. }));
    assert!(!permit(&mut machine, &offer.id, true));
}

#[test]
fn an_outcome_whose_append_was_overtaken_is_recorded_and_not_lost() {
    let (mut world, mut machine, offer) = until_offer();
    let kind = ReportKind::Failed { problem: Problem::new(Code::DownloadFailed), retryable: true };
    let report = |kind| Input::Report { id: offer.id.clone(), node: offer.node.clone(), kind, ticket: 9 };
    let outputs = machine.on(report(kind.clone()), at(1));
    assert!(outputs.iter().any(|output| matches!(output, Output::Append { .. })));
    // A person pauses at this very moment.
    let records = world.append(None, vec![Event::PauseRequested { reason: PauseReason::Operator, by: "p".into() }]);
    let outputs = machine.on(Input::Overtaken(records), at(1));
    let again = outputs.iter().find_map(|output| match output {
        Output::Append { events, expected_len } => Some((events.clone(), *expected_len)),
        _ => None,
    });
    let (events, expected_len) = again.expect("the outcome is appended again");
    assert_eq!(expected_len, world.log.len() as u64);
    assert!(matches!(events[..], [Event::StepFailed { .. }]));
    let records = world.append(Some(Epoch(1)), events);
    let outputs = machine.on(Input::Appended(records), at(1));
    assert!(outputs.contains(&Output::AnswerReport(9, Some(ReportResponse::Taken))));
    // The same report once more is not wanted: the agent may forget it.
    let outputs = machine.on(report(kind), at(1));
    assert!(outputs.contains(&Output::AnswerReport(9, Some(ReportResponse::NotWanted))));
}

#[test]
fn a_report_of_another_node_is_not_wanted() {
    let (_, mut machine, offer) = until_offer();
    let kind = ReportKind::Failed { problem: Problem::new(Code::DownloadFailed), retryable: true };
    let node = NodeName::from("blue-03");
    assert_ne!(node, offer.node);
    let outputs = machine.on(Input::Report { id: offer.id, node, kind, ticket: 3 }, at(1));
    assert!(outputs.contains(&Output::AnswerReport(3, Some(ReportResponse::NotWanted))));
}

#[test]
fn while_another_installation_holds_the_cluster_nothing_is_begun_and_the_log_says_so_once_and_at_once() {
    let mut world = World::new(&[("blue", 3)]);
    let mut machine = world.machine();
    let facts = world.facts();
    assert!(machine.on(facts, at(0)).is_empty(), "before the claim is answered");
    let outputs = machine.on(Input::Claim(Some(held_by_other(&machine))), at(1));
    let [Output::Waits(waits), Output::Append { events, .. }] = &outputs[..] else { panic!("{outputs:?}") };
    let [Event::WaitingBegan { on }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(&waits[..], std::slice::from_ref(on));
    assert_eq!((on.key().as_str(), on.since), ("gate UPG0311", at(1)));
    for (language, words) in [
        (Language::En, ["inst-b", "up9", "since 2026-01-01T11:00:00Z", "shiplock cancel u1", "delete lease shiplock"]),
        (Language::Zh, ["inst-b", "up9", "自 2026-01-01T11:00:00Z 起", "shiplock cancel u1", "delete lease shiplock"]),
    ] {
        let said = format!("{} {}", on.sentence(language), on.fix(language).unwrap());
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
    let records = world.append(Some(Epoch(1)), events.clone());
    let mut outputs = machine.on(Input::Appended(records), at(1));
    outputs.extend(machine.on(Input::Claim(Some(held_by_other(&machine))), at(60)));
    for output in outputs {
        let Output::Waits(waits) = output else { panic!("told again: {output:?}") };
        assert_eq!(waits[0].since, at(1));
    }

    // The other has ended: the upgrade begins.
    let outputs = machine.on(Input::Claim(None), at(61));
    assert!(
        outputs
            .iter()
            .any(|output| matches!(output, Output::Append { events, .. } if *events == [Event::CheckStarted]))
    );
}

#[test]
fn what_waits_for_another_installation_and_has_begun_nothing_is_cancelled_at_once() {
    let mut world = World::new(&[("blue", 3)]);
    let mut machine = world.machine();
    let facts = world.facts();
    machine.on(facts, at(0));
    let mut inputs = std::collections::VecDeque::from([Input::Claim(Some(held_by_other(&machine)))]);
    let mut cancel = Some(Event::CancelRequested { by: "somebody".into(), abandon: Vec::new() });
    loop {
        let Some(input) = inputs.pop_front() else {
            let cancel = cancel.take().expect("it ends once it is cancelled");
            inputs.push_back(Input::Grown(world.append(None, vec![cancel])));
            continue;
        };
        for output in machine.on(input, at(1)) {
            match output {
                Output::Append { events, .. } => {
                    inputs.push_back(Input::Appended(world.append(Some(Epoch(1)), events)));
                }
                Output::Waits(_) => {}
                Output::Stop(None) => {
                    assert_eq!((world.state(), cancel), (State::Cancelled, None));
                    return;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn what_has_begun_a_node_and_is_cancelled_while_another_installation_holds_the_cluster_says_what_it_waits_for() {
    let (mut world, ..) = until_offer();
    let mut machine = world.machine();
    let by = "somebody";
    let asked = vec![
        Event::PauseRequested { reason: PauseReason::Operator, by: by.into() },
        Event::CancelRequested { by: by.into(), abandon: Vec::new() },
    ];
    machine.on(Input::Grown(world.append(None, asked)), at(1));
    let outputs = machine.on(Input::Claim(Some(held_by_other(&machine))), at(1));
    let [Output::Waits(waits), Output::Append { events, .. }] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(waits[0].key(), "gate UPG0311");
    assert!(matches!(events[..], [Event::WaitingBegan { .. }]), "{events:?}");
    assert_eq!(machine.upgrade().state, State::Cancelling);
}

/// That another installation upgrades the cluster.
fn held_by_other(machine: &Machine) -> Problem {
    let (installation, upgrade) = ("inst-b".to_owned(), "up9".into());
    let since = "2026-01-01T11:00:00Z".parse().unwrap();
    claim_problem(ClaimOutcome::HeldByOther { installation, upgrade, since }, machine.upgrade()).unwrap()
}

#[test]
fn a_store_that_is_older_than_the_cluster_pauses_what_runs_and_touches_nothing() {
    let (mut world, ..) = until_offer();
    let mut machine = world.machine();
    let facts = world.facts();
    machine.on(facts, at(2));
    let outputs = machine.on(Input::Claim(Some(Problem::new(Code::StoreOlderThanCluster))), at(2));
    let [Output::Append { expected_len, events }] = &outputs[..] else { panic!("{outputs:?}") };
    let [Event::PauseRequested { reason: PauseReason::InvariantBroken { problem }, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((problem.code, *expected_len), (Code::StoreOlderThanCluster, world.log.len() as u64));
    let records = world.append(Some(Epoch(2)), events.clone());
    let outputs = machine.on(Input::Appended(records), at(2));
    assert!(matches!(&outputs[..], [Output::Waits(waits)] if waits.len() == 1), "{outputs:?}");
    assert!(matches!(machine.upgrade().state, State::Pausing { .. }));

    // Once a person has settled it, the reason to wait is another one, and it is told once.
    let outputs = machine.on(Input::Claim(None), at(3));
    let told = outputs.into_iter().find_map(|output| match output {
        Output::Append { events, .. } => Some(events),
        _ => None,
    });
    let records = world.append(Some(Epoch(2)), told.expect("the new reason is told"));
    for output in machine.on(Input::Appended(records), at(3)) {
        let Output::Append { events, .. } = output else { continue };
        assert!(!events.iter().any(|event| matches!(event, Event::PauseRequested { .. })), "{events:?}");
    }
    let State::Pausing { because, .. } = &machine.upgrade().state else { panic!("{:?}", machine.upgrade().state) };
    assert_eq!(because.problem().map(|problem| problem.code), Some(Code::StoreSettled));
}

#[test]
fn before_the_cluster_was_read_what_is_waited_for_shows_and_nothing_is_begun() {
    let problem = Problem::new(Code::ClusterNotRead);
    let unseen = || {
        let cluster = Observed::Unknown { problem: problem.clone(), since: at(0) };
        Input::Facts(Box::new(Facts {
            cluster,
            agents: BTreeMap::new(),
            progress: BTreeMap::new(),
            uptime_seconds: 1,
            precheck: Some(Vec::new()),
        }))
    };
    let waits = |outputs: Vec<Output>| match <[Output; 1]>::try_from(outputs) {
        Ok([Output::Waits(waits)]) => waits.into_iter().map(|wait| wait.key()).collect::<Vec<_>>(),
        other => panic!("waits and nothing else were expected: {other:?}"),
    };
    // It would begin its pre-check.
    let mut machine = World::new(&[("blue", 3)]).machine();
    assert_eq!(waits(machine.on(unseen(), at(0))), ["facts UPG0208"]);
    // It is in the middle of a step of an agent, whose outcome it can take without the cluster.
    let (mut world, _, _) = until_offer();
    let mut machine = world.machine();
    assert!(waits(machine.on(unseen(), at(0)))[0].starts_with("step "));
    // It waits for a person, whatever the cluster says.
    let by = "tester";
    let events = vec![Event::PauseRequested { reason: PauseReason::Operator, by: by.into() }, Event::Paused];
    world.append(None, events);
    let mut machine = world.machine();
    assert_eq!(waits(machine.on(unseen(), at(0))), ["continue operator"]);
}

#[test]
fn a_step_of_the_server_that_goes_on_after_a_crash_keeps_the_time_of_its_intent() {
    let mut world = World::new(&[("blue", 3)]);
    let mut since = Vec::new();
    for now in [0, 500] {
        world.now = now;
        let mut machine = world.machine();
        let mut inputs = std::collections::VecDeque::from([Input::Claim(None), world.facts()]);
        'until_a_step: while let Some(input) = inputs.pop_front() {
            for output in machine.on(input, at(now)) {
                match output {
                    Output::Append { events, .. } => {
                        let records = world.append(Some(Epoch(world.epoch)), events);
                        inputs.push_back(Input::Appended(records));
                    }
                    Output::RunStep { step, attempt, since: begun } => {
                        since.push((step.number, attempt, begun));
                        break 'until_a_step;
                    }
                    _ => {}
                }
            }
        }
    }
    assert_eq!(since.len(), 2);
    assert_eq!(since[0], since[1]);
    assert_eq!(since[0].2, at(0));
}
