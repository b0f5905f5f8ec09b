//! Tables for the machine: one assignment or record in, the exact outputs out.

use proptest::prelude::*;
use shiplock_core::facts::Observed;
use shiplock_core::id::{Epoch, StepNumber, UpgradeId};
use shiplock_core::step::Action;

use super::*;

fn id(epoch: u64, intent: u64) -> AssignmentId {
    AssignmentId {
        upgrade: UpgradeId::from("u1"),
        step: StepNumber(5),
        generation: Generation { epoch: Epoch(epoch), intent },
    }
}

fn assignment(epoch: u64, intent: u64) -> Box<Assignment> {
    Box::new(Assignment {
        id: id(epoch, intent),
        node: NodeName::from("w1"),
        machine_id: "m1".to_owned(),
        action: Action::CollectLogs,
        timeout_seconds: 60,
    })
}

fn offered(assignment: Box<Assignment>) -> Input {
    Input::Offered { assignment, no_room: None }
}

fn facts() -> Box<MachineFacts> {
    let unknown = || Observed::Unknown { problem: Problem::new(Code::Internal), since: jiff::Timestamp::UNIX_EPOCH };
    Box::new(MachineFacts {
        agent_version: "0".to_owned(),
        step_kinds: Vec::new(),
        machine_id: "m1".into(),
        boot_id: "b1".to_owned(),
        architecture: "amd64".to_owned(),
        kubelet: unknown(),
        container_runtime: unknown(),
        kubelet_edits: None,
        staging_free_bytes: 0,
        control_plane: None,
    })
}

fn machine(records: Vec<Record>) -> Machine {
    Machine::recover(NodeName::from("w1"), "m1".to_owned(), "b1".to_owned(), records)
}

fn at(seconds: u64) -> Monotonic {
    Monotonic(Duration::from_secs(seconds))
}

/// Feeds inputs and keeps what was written, as a crash would find it.
struct Bench {
    machine: Machine,
    written: Vec<Record>,
    outputs: Vec<Output>,
}

impl Bench {
    fn new() -> Self {
        Self { machine: machine(Vec::new()), written: Vec::new(), outputs: Vec::new() }
    }

    fn on(&mut self, input: Input) -> &[Output] {
        self.at(input, 0)
    }

    fn at(&mut self, input: Input, seconds: u64) -> &[Output] {
        self.outputs = self.machine.on(input, at(seconds));
        self.written.extend(self.outputs.iter().filter_map(|output| match output {
            Output::Write(record) => Some(record.clone()),
            _ => None,
        }));
        &self.outputs
    }

    fn crash(&mut self) -> &[Output] {
        self.machine = machine(self.written.clone());
        self.on(Input::Started)
    }

    fn offer(&mut self, epoch: u64, intent: u64) -> &[Output] {
        self.on(offered(assignment(epoch, intent)))
    }

    fn wants(&mut self) -> PermitRequest {
        let outputs = self.on(Input::PermitWanted { phase: "swap".to_owned() });
        let asked = outputs.iter().find_map(|output| match output {
            Output::AskPermit(request) => Some(request.clone()),
            _ => None,
        });
        asked.unwrap()
    }

    fn granted(&mut self, request: PermitRequest) -> &[Output] {
        self.on(Input::PermitAnswered { request, response: PermitResponse::Granted })
    }

    fn refused(&mut self, request: PermitRequest) -> &[Output] {
        let problem = Problem::new(Code::PermitRefused).with("why", "paused");
        self.on(Input::PermitAnswered { request, response: PermitResponse::Refused { problem } })
    }

    fn ended(&mut self) -> &[Output] {
        self.on(Input::Ended { result: Ok(StepOutcome::Done), machine: facts() })
    }

    fn reported(&self) -> Vec<&Report> {
        let reports = self.outputs.iter().filter_map(|output| match output {
            Output::Report(report) => Some(report),
            _ => None,
        });
        reports.collect()
    }

    fn started(&self) -> bool {
        self.outputs.iter().any(|output| matches!(output, Output::Start { .. }))
    }
}

fn failed_with(reports: &[&Report]) -> Option<Code> {
    match reports {
        [Report { kind: ReportKind::Failed { problem, retryable: false }, .. }] => Some(problem.code),
        _ => None,
    }
}

#[test]
fn an_assignment_is_on_disk_before_it_starts() {
    let mut bench = Bench::new();
    let outputs = bench.offer(1, 7);
    assert!(
        matches!(outputs, [Output::Clean(_), Output::Write(Record::Accepted { .. }), Output::Start { .. }]),
        "{outputs:?}"
    );
    assert_eq!(bench.machine.in_work(), Some(&id(1, 7)));
    assert!(bench.offer(1, 7).is_empty(), "an offer that was accepted is no news");
}

#[test]
fn what_is_not_for_this_machine_is_refused_by_name_and_nothing_is_written() {
    let other_node = Assignment { node: NodeName::from("w2"), ..*assignment(1, 7) };
    let other_machine = Assignment { machine_id: "m2".to_owned(), ..*assignment(1, 7) };
    for wrong in [other_node, other_machine] {
        let mut bench = Bench::new();
        bench.on(offered(Box::new(wrong)));
        assert_eq!(failed_with(&bench.reported()), Some(Code::WrongMachine));
        assert!(!bench.started() && bench.written.is_empty());
    }
}

#[test]
fn without_room_for_its_end_nothing_new_is_taken_on_and_what_is_in_work_goes_on() {
    let full = || Some(Problem::new(Code::DiskFull).with("path", "/x"));
    let mut bench = Bench::new();
    bench.on(Input::Offered { assignment: assignment(1, 7), no_room: full() });
    assert_eq!(failed_with(&bench.reported()), Some(Code::DiskFull));
    assert!(!bench.started() && bench.written.is_empty(), "what cannot be written down is not done");
    bench.on(Input::ReportAnswered { id: id(1, 7), response: ReportResponse::Taken });

    bench.offer(1, 8);
    assert_eq!(bench.machine.in_work(), Some(&id(1, 8)), "after room was made the next attempt is taken on");
    bench.on(Input::Offered { assignment: assignment(2, 8), no_room: full() });
    assert_eq!(bench.machine.in_work(), Some(&id(2, 8)), "it goes on for the server that took over");
}

#[test]
fn a_lower_generation_is_refused_also_after_a_crash_and_whatever_happened_to_the_higher_one() {
    for settle in ["in work", "refused", "ended", "taken"] {
        let mut bench = Bench::new();
        bench.offer(2, 7);
        match settle {
            "refused" => {
                let request = bench.wants();
                bench.refused(request);
            }
            "ended" => {
                bench.ended();
            }
            "taken" => {
                bench.ended();
                bench.on(Input::ReportAnswered { id: id(2, 7), response: ReportResponse::Taken });
            }
            _ => {}
        }
        bench.crash();
        for (epoch, intent) in [(1, 9), (2, 6)] {
            bench.offer(epoch, intent);
            assert_eq!(failed_with(&bench.reported()), Some(Code::StaleGeneration), "{settle}");
            assert!(!bench.started(), "{settle}");
        }
    }
}

#[test]
fn an_act_waits_for_the_permit_on_disk() {
    let mut bench = Bench::new();
    bench.offer(1, 7);
    let request = bench.wants();
    let outputs = bench.granted(request.clone());
    assert!(matches!(outputs, [Output::Write(Record::PhaseBegan { .. }), Output::Go]), "{outputs:?}");
    assert!(bench.granted(request).is_empty(), "an answer counts once");
}

#[test]
fn a_refused_permit_ends_the_attempt_without_a_report_and_the_same_offer_may_come_again() {
    let mut bench = Bench::new();
    bench.offer(1, 7);
    let request = bench.wants();
    let outputs = bench.refused(request);
    assert!(outputs.contains(&Output::Drop) && !outputs.contains(&Output::Go), "{outputs:?}");
    assert!(bench.reported().is_empty());
    assert_eq!(bench.machine.in_work(), None);
    bench.offer(1, 7);
    assert!(bench.started());
}

#[test]
fn a_server_that_took_over_goes_on_with_the_same_attempt_under_its_own_epoch() {
    let mut bench = Bench::new();
    bench.offer(1, 7);
    let old = bench.wants();
    let outputs = bench.offer(2, 7);
    assert!(matches!(outputs, [Output::Write(Record::Adopted { .. }), Output::AskPermit(new)] if new.id == id(2, 7)));
    assert!(!bench.started(), "the same attempt goes on");
    assert!(bench.refused(old).is_empty(), "the old server's answer says nothing");
    bench.crash();
    assert!(matches!(&bench.outputs[..], [Output::Start { assignment, .. }] if assignment.id == id(2, 7)));
    bench.ended();
    assert_eq!(bench.reported()[0].id, id(2, 7));
}

#[test]
fn another_attempt_replaces_one_that_only_looks_and_waits_for_one_that_acts() {
    let mut bench = Bench::new();
    bench.offer(1, 7);
    bench.offer(1, 9);
    assert!(bench.outputs.contains(&Output::Drop) && bench.started());

    let mut bench = Bench::new();
    bench.offer(1, 7);
    let request = bench.wants();
    bench.granted(request);
    bench.offer(1, 9);
    assert!(!bench.started() && !bench.outputs.contains(&Output::Drop));
    assert_eq!(bench.machine.in_work(), Some(&id(1, 9)));
    bench.on(Input::PermitWanted { phase: "next".to_owned() });
    assert!(bench.outputs.contains(&Output::Drop) && bench.started(), "the old gets no further permit");
}

#[test]
fn an_ended_attempt_that_is_offered_again_higher_fences_out_the_one_in_work() {
    for taken in [false, true] {
        for asked_before in [false, true] {
            let mut bench = Bench::new();
            bench.offer(1, 3);
            bench.ended();
            if taken {
                bench.on(Input::ReportAnswered { id: id(1, 3), response: ReportResponse::Taken });
            }
            bench.offer(2, 1);
            let request = asked_before.then(|| bench.wants());
            bench.offer(2, 3);
            match request {
                Some(request) => bench.granted(request),
                None => bench.on(Input::PermitWanted { phase: "swap".to_owned() }),
            };
            assert!(bench.outputs.contains(&Output::Drop) && !bench.outputs.contains(&Output::Go), "{taken}");
            bench.crash();
            assert!(!bench.started(), "{taken}");
        }
    }
}

#[test]
fn a_result_is_reported_until_it_is_taken_and_then_forgotten() {
    let mut bench = Bench::new();
    bench.offer(1, 7);
    let outputs = bench.ended();
    assert!(
        matches!(outputs, [Output::Write(Record::Finished { .. }), Output::Clean(_), Output::Report(_)]),
        "units are forgotten only when the outcome is on disk: {outputs:?}"
    );
    for _ in 0..3 {
        bench.crash();
        assert_eq!(bench.reported().len(), 1);
        assert!(bench.offer(1, 7).is_empty(), "it ended already");
        assert_eq!(bench.machine.in_work(), Some(&id(1, 7)));
    }
    bench.offer(3, 7);
    assert_eq!(bench.reported()[0].id, id(3, 7), "the server that took over gets it under its own epoch");
    bench.on(Input::ReportAnswered { id: id(3, 7), response: ReportResponse::Taken });
    assert!(bench.crash().is_empty());
    assert!(bench.offer(3, 7).is_empty(), "what was taken is never done again");
    bench.offer(3, 9);
    assert!(bench.started());
}

#[test]
fn a_refusal_that_is_taken_does_not_hide_the_own_attempt() {
    let mut bench = Bench::new();
    bench.offer(2, 7);
    bench.offer(1, 7);
    assert!(bench.offer(2, 7).is_empty(), "a refusal of the same intent is not its end");
    bench.on(Input::ReportAnswered { id: id(1, 7), response: ReportResponse::NotWanted });
    assert_eq!(bench.machine.in_work(), Some(&id(2, 7)));
    let request = bench.wants();
    bench.refused(request);
    bench.offer(2, 7);
    assert!(bench.started());
}

#[test]
fn time_ends_a_step_between_acts_and_never_in_one() {
    let mut bench = Bench::new();
    bench.offer(1, 7);
    assert!(bench.at(Input::Tick, 59).is_empty());
    bench.at(Input::Tick, 60);
    assert!(bench.outputs.contains(&Output::Drop));
    assert!(matches!(
        &bench.reported()[..],
        [Report { kind: ReportKind::Failed { problem, retryable: true }, .. }] if problem.code == Code::StepTimedOut
    ));

    let mut bench = Bench::new();
    bench.offer(1, 7);
    let request = bench.wants();
    bench.granted(request);
    assert_eq!(bench.machine.wake_at(), None);
    assert!(bench.at(Input::Tick, 1000).is_empty(), "an act is left to end");
    bench.at(Input::PermitWanted { phase: "next".to_owned() }, 1000);
    assert!(bench.outputs.contains(&Output::Drop), "but none follows");
}

#[test]
fn a_roll_back_goes_on_after_a_crash() {
    let mut bench = Bench::new();
    bench.offer(1, 7);
    let request = bench.wants();
    bench.granted(request);
    let problem = Problem::new(Code::ServiceNotUp);
    let outputs = bench.on(Input::RollingBack { problem: problem.clone() });
    assert!(matches!(outputs, [Output::Write(_), Output::RollBack]));
    bench.crash();
    assert!(matches!(&bench.outputs[..], [Output::Start { rolling_back: Some(why), .. }] if *why == problem));
}

#[test]
fn what_a_crash_kept_from_the_server_is_reported_once_and_its_units_are_forgotten_beside_the_next_attempt() {
    let mut bench = Bench::new();
    bench.offer(1, 7);
    bench.ended();
    bench.offer(1, 8);
    bench.ended();
    bench.offer(2, 8);
    bench.crash();
    let reported: Vec<_> = bench.reported().into_iter().map(|report| report.id.clone()).collect();
    assert_eq!(reported, [id(1, 7), id(2, 8)], "an outcome that was written down under two epochs counts once");

    bench.offer(2, 9);
    let outputs = bench.crash();
    assert!(
        matches!(
            outputs,
            [
                Output::Clean(first),
                Output::Report(_),
                Output::Clean(second),
                Output::Report(_),
                Output::Start { assignment, .. },
            ] if *first == id(1, 7) && *second == id(2, 8) && assignment.id == id(2, 9)
        ),
        "{outputs:?}"
    );
}

#[test]
fn an_attempt_is_known_by_the_id_that_it_has_now_and_only_while_it_is_in_work() {
    let mut bench = Bench::new();
    assert_eq!(bench.machine.attempt(), None);
    bench.offer(1, 7);
    assert_eq!(bench.machine.attempt(), Some(&id(1, 7)));
    bench.offer(2, 7);
    assert_eq!(bench.machine.attempt(), Some(&id(2, 7)), "a server took over");
    bench.crash();
    assert_eq!(bench.machine.attempt(), Some(&id(2, 7)), "the journal tells it");
    bench.ended();
    assert_eq!(bench.machine.attempt(), None, "its end is still to be reported");
}

#[test]
fn a_refusal_is_reported_once_and_no_more_of_them_wait_than_may() {
    let mut bench = Bench::new();
    let wrong = |intent| offered(Box::new(Assignment { node: NodeName::from("w2"), ..*assignment(1, intent) }));
    bench.on(wrong(1));
    assert_eq!(bench.reported().len(), 1);
    assert!(matches!(bench.on(wrong(1)), [Output::Note(_)]), "its report waits already");
    for intent in 2..=UNREPORTED_MAX as u64 {
        bench.on(wrong(intent));
        assert_eq!(bench.reported().len(), 1);
    }
    let one_more = UNREPORTED_MAX as u64 + 1;
    assert!(matches!(bench.on(wrong(one_more)), [Output::Note(_)]), "as many wait as may");
    bench.on(Input::ReportAnswered { id: id(1, 1), response: ReportResponse::NotWanted });
    bench.on(wrong(one_more));
    assert_eq!(bench.reported().len(), 1, "there is room again");
}

#[derive(Clone, Debug)]
enum Event {
    Offer(u64, u64),
    Want,
    Grant,
    Refuse,
    End,
    Take,
    Crash,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let one = prop_oneof![
        4 => (1..4_u64, 1..5_u64).prop_map(|(epoch, intent)| Event::Offer(epoch, intent)),
        2 => Just(Event::Want),
        2 => Just(Event::Grant),
        1 => Just(Event::Refuse),
        2 => Just(Event::End),
        2 => Just(Event::Take),
        1 => Just(Event::Crash),
    ];
    prop::collection::vec(one, 0..40)
}

fn seed() -> proptest::test_runner::RngSeed {
    let given = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|text| text.parse().ok());
    proptest::test_runner::RngSeed::Fixed(given.unwrap_or(20_261_123))
}

proptest! {
    // The gate draws the same cases each time, so that it never fails by chance; PROPTEST_RNG_SEED draws others.
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: seed(), ..ProptestConfig::default() })]
    #[test]
    fn whatever_comes_no_act_begins_below_the_highest_generation_or_without_a_permit_and_nothing_settled_starts(
        events in events()
    ) {
        let mut bench = Bench::new();
        let (mut highest, mut asked, mut taken) = (None, None::<PermitRequest>, Vec::new());
        for event in events {
            let may_go = matches!(event, Event::Grant);
            match event {
                Event::Offer(epoch, intent) => { bench.offer(epoch, intent); }
                Event::Want if bench.machine.work.is_some() => {
                    bench.on(Input::PermitWanted { phase: "swap".to_owned() });
                }
                Event::Grant => if let Some(request) = asked.clone() { bench.granted(request); } else { continue },
                Event::Refuse => if let Some(request) = asked.clone() { bench.refused(request); } else { continue },
                Event::End if bench.machine.work.is_some() => { bench.ended(); }
                Event::Take => {
                    let Some(id) = bench.machine.unreported.first().map(|other| other.report.id.clone()) else { continue };
                    if bench.machine.unreported[0].journaled { taken.push(id.clone()); }
                    bench.on(Input::ReportAnswered { id, response: ReportResponse::Taken });
                }
                Event::Crash => { bench.crash(); }
                Event::Want | Event::End => continue,
            }
            for output in &bench.outputs {
                match output {
                    Output::Go => {
                        prop_assert!(may_go);
                        let id = &asked.as_ref().unwrap().id;
                        prop_assert_eq!(Some(id.generation), bench.machine.highest);
                    }
                    Output::AskPermit(request) => asked = Some(request.clone()),
                    Output::Start { assignment, .. } => {
                        prop_assert!(taken.last().is_none_or(|last| !same_attempt(last, &assignment.id)));
                    }
                    _ => {}
                }
            }
            prop_assert!(bench.machine.highest >= highest, "the fence never falls");
            highest = bench.machine.highest;
            let essence = machine(bench.machine.essence());
            let recovered = machine(bench.written.clone());
            prop_assert_eq!(essence.highest, recovered.highest);
            prop_assert_eq!(essence.work.map(|work| work.assignment), recovered.work.map(|work| work.assignment));
            prop_assert_eq!(essence.settled, recovered.settled);
        }
    }
}
