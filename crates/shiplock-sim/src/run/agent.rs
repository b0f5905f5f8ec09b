//! An agent in the simulation: the production machine and journal format, over a stand-in for executors.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use shiplock_agent::journal::{Record, encoded, read_records};
use shiplock_agent::machine::{Input, Machine, Monotonic, Output};
use shiplock_agent::steps::unit_prefix;
use shiplock_api::agent::{
    Assignment, AssignmentId, PermitRequest, PermitResponse, Report, ReportKind, ReportResponse,
};
use shiplock_core::facts::MachineFacts;
use shiplock_core::id::NodeName;

use super::executor::{Executing, Next, Phase};
use crate::machine::machine_facts;
use crate::world::{Moment, World};

/// Seconds between two reports, permits or polls that did not arrive.
pub(super) const BACK_OFF: Duration = Duration::from_secs(2);
/// A request without an answer is given up after this time, as the agent's client does.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Machine facts are read again this often without work.
const FACTS_EVERY: Duration = Duration::from_secs(60);
/// The same on a master.
const CONTROL_PLANE_EVERY: Duration = Duration::from_secs(2);

/// What an agent sends.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Poll { machine: Option<Arc<MachineFacts>>, in_work: Option<AssignmentId> },
    Permit(PermitRequest),
    Report(Report),
}

/// What comes back.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    Poll { assignment: Option<Box<Assignment>>, send_machine: bool },
    Permit { request: PermitRequest, response: PermitResponse },
    Report { id: AssignmentId, response: Option<ReportResponse> },
}

/// Which request an agent waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    Poll,
    Permit,
    Report,
    Tell,
}

/// What an agent wants of the simulation.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Send(Line, Message),
    /// Bytes go to disk; nothing else is done until they are there.
    Journal(Vec<u8>),
    /// Look at the executor after this time.
    Work(Duration),
    /// Try a line again after this time.
    Again(Line, Duration),
    /// Feed a tick at this time.
    Tick(Moment),
}

/// The process.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    pub(super) name: NodeName,
    pub(super) up: bool,
    /// Messages and timers of an earlier process are void.
    pub(super) life: u32,
    pub(super) machine: Machine,
    began_at: Moment,
    /// Outputs that wait for a record to be on disk.
    held: VecDeque<Output>,
    inbox: VecDeque<Input>,
    writing: bool,
    pub(super) reports: Vec<Report>,
    /// The exchange that each line waits for.
    pub(super) open: BTreeMap<Line, u64>,
    reporting: Option<AssignmentId>,
    told: Option<Arc<MachineFacts>>,
    known: Option<Arc<MachineFacts>>,
    known_at: Moment,
    pub(super) work: Option<Executing>,
}

impl Agent {
    pub(super) fn new(world: &World, id: u32, life: u32) -> Option<Self> {
        let machine = world.machine(id).filter(|machine| machine.on)?;
        let name = NodeName::new(machine.name.clone());
        let (records, _) = read_records(&machine.journal);
        let recovered =
            Machine::recover(name.clone(), machine.machine_id.to_string(), machine.boot_id.to_string(), records);
        Some(Self {
            name,
            up: true,
            life,
            machine: recovered,
            began_at: world.now(),
            held: VecDeque::new(),
            inbox: VecDeque::new(),
            writing: false,
            reports: Vec::new(),
            open: BTreeMap::new(),
            reporting: None,
            told: None,
            known: machine_facts(world, id).map(Arc::new),
            known_at: world.now(),
            work: None,
        })
    }

    /// Begins: the journal was read.
    pub(super) fn start(&mut self, world: &mut World, id: u32) -> Vec<Wish> {
        let mut wishes = Vec::new();
        self.input(Input::Started, world, id, &mut wishes);
        wishes.push(Wish::Again(Line::Poll, Duration::ZERO));
        wishes
    }

    pub(super) fn input(&mut self, input: Input, world: &mut World, id: u32, wishes: &mut Vec<Wish>) {
        self.inbox.push_back(input);
        self.turn(world, id, wishes);
    }

    /// A record is on disk.
    pub(super) fn written(&mut self, world: &mut World, id: u32) -> Vec<Wish> {
        let mut wishes = Vec::new();
        self.writing = false;
        self.turn(world, id, &mut wishes);
        wishes
    }

    /// Carries outputs out in order, and then takes the next input.
    fn turn(&mut self, world: &mut World, id: u32, wishes: &mut Vec<Wish>) {
        loop {
            while !self.writing
                && let Some(output) = self.held.pop_front()
            {
                self.carry_out(output, world, id, wishes);
            }
            if self.writing {
                return;
            }
            let Some(input) = self.inbox.pop_front() else { break };
            let now = Monotonic(world.now().since(self.began_at));
            self.held.extend(self.machine.on(input, now));
        }
        if let Some(at) = self.machine.wake_at() {
            wishes.push(Wish::Tick(self.began_at + at.0));
        }
        self.report(wishes);
    }

    fn carry_out(&mut self, output: Output, world: &mut World, id: u32, wishes: &mut Vec<Wish>) {
        match output {
            Output::Write(record) => {
                self.writing = true;
                wishes.push(Wish::Journal(bytes_of(&record)));
            }
            Output::Start { assignment, rolling_back } => {
                let run = self.work.as_ref().map_or(0, |work| work.run) + 1;
                let phase = rolling_back.map_or(Phase::Examining, Phase::Back);
                self.work = Some(Executing { assignment, phase, run, looks: 0 });
                wishes.push(Wish::Work(Duration::from_millis(20)));
            }
            Output::Drop => {
                if let Some(work) = &mut self.work {
                    work.run += 1;
                    work.phase = Phase::Permit;
                }
            }
            Output::Clean(attempt) => world.clear_units(id, &unit_prefix(&attempt)),
            Output::AskPermit(request) => wishes.push(Wish::Send(Line::Permit, Message::Permit(request))),
            Output::Go => {
                if let Some(work) = &mut self.work {
                    work.looks = 0;
                    let wish = work.act(world, id);
                    wishes.push(wish.unwrap_or(Wish::Work(Duration::ZERO)));
                }
            }
            Output::RollBack => {
                if let Some(work) = &mut self.work
                    && let Phase::GoingBack(problem) = work.phase.clone()
                {
                    work.phase = Phase::Back(problem);
                    wishes.push(Wish::Work(Duration::ZERO));
                }
            }
            Output::Tell(report) => wishes.push(Wish::Send(Line::Tell, Message::Report(report))),
            Output::Report(report) => {
                let replaced = |other: &Report| {
                    other.id.upgrade == report.id.upgrade
                        && other.id.step == report.id.step
                        && other.id.generation.intent == report.id.generation.intent
                };
                if self
                    .reporting
                    .as_ref()
                    .is_some_and(|id| self.reports.iter().any(|other| other.id == *id && replaced(other)))
                {
                    self.reporting = None;
                }
                self.reports.retain(|other| !replaced(other));
                self.reports.push(report);
            }
            Output::Note(_) => {}
        }
    }

    fn report(&mut self, wishes: &mut Vec<Wish>) {
        if self.reporting.is_none()
            && let Some(report) = self.reports.first()
        {
            self.reporting = Some(report.id.clone());
            wishes.push(Wish::Send(Line::Report, Message::Report(report.clone())));
        }
    }

    /// What a line that is free sends next.
    pub(super) fn again(&mut self, line: Line, world: &World, id: u32) -> Option<Message> {
        match line {
            Line::Poll => {
                let age = world.now().since(self.known_at);
                let is_master = self.known.as_ref().is_some_and(|known| known.control_plane.is_some());
                let every = if is_master { CONTROL_PLANE_EVERY } else { FACTS_EVERY };
                if self.work.is_none() && age >= every {
                    self.read_facts(world, id);
                }
                let machine = self.known.clone().filter(|known| self.told.as_ref() != Some(known));
                Some(Message::Poll { machine, in_work: self.machine.in_work().cloned() })
            }
            Line::Report => {
                let report = self.reports.first()?.clone();
                self.reporting = Some(report.id.clone());
                Some(Message::Report(report))
            }
            Line::Permit | Line::Tell => None,
        }
    }

    fn read_facts(&mut self, world: &World, id: u32) {
        let known = machine_facts(world, id).map(Arc::new);
        if known != self.known {
            self.known = known;
        }
        self.known_at = world.now();
    }

    /// A reply came.
    pub(super) fn reply(&mut self, reply: Reply, sent_machine: bool, world: &mut World, id: u32) -> Vec<Wish> {
        let mut wishes = Vec::new();
        match reply {
            Reply::Poll { assignment, send_machine } => {
                if sent_machine {
                    self.told = self.known.clone();
                }
                let mut after = Duration::ZERO;
                if send_machine {
                    self.told = None;
                    after = Duration::from_secs(1);
                }
                if let Some(assignment) = assignment {
                    let before = self.machine.in_work().cloned();
                    self.input(Input::Offered { assignment, no_room: None }, world, id, &mut wishes);
                    if self.machine.in_work() == before.as_ref() {
                        after = Duration::from_secs(1);
                    }
                }
                wishes.push(Wish::Again(Line::Poll, after));
            }
            Reply::Permit { request, response } => {
                self.input(Input::PermitAnswered { request, response }, world, id, &mut wishes);
            }
            Reply::Report { id: attempt, response } => match response {
                Some(response) => {
                    if self.reporting.as_ref() == Some(&attempt) {
                        self.reporting = None;
                    }
                    self.reports.retain(|report| report.id != attempt);
                    self.input(Input::ReportAnswered { id: attempt, response }, world, id, &mut wishes);
                }
                None => wishes.push(Wish::Again(Line::Report, BACK_OFF)),
            },
        }
        wishes
    }

    /// A request was not answered.
    pub(super) fn unanswered(&mut self, line: Line, message: &Message, world: &mut World, id: u32) -> Vec<Wish> {
        let mut wishes = Vec::new();
        match (line, message) {
            (Line::Permit, Message::Permit(request)) => {
                // The shell asks until it has an answer, as long as this question is not void.
                let _ = (world, id);
                if self.machine.attempt() == Some(&request.id) {
                    wishes.push(Wish::Send(Line::Permit, message.clone()));
                }
            }
            (Line::Tell, _) => {}
            _ => wishes.push(Wish::Again(line, BACK_OFF)),
        }
        wishes
    }

    /// Time for the executor.
    pub(super) fn work(&mut self, world: &mut World, id: u32) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let Some(work) = &mut self.work else { return wishes };
        match work.go_on(world, id) {
            Next::Nothing => {}
            Next::After(after) => wishes.push(Wish::Work(after)),
            Next::Permit(phase) => {
                self.input(Input::PermitWanted { phase: phase.to_owned() }, world, id, &mut wishes);
            }
            Next::RollingBack(problem) => self.input(Input::RollingBack { problem }, world, id, &mut wishes),
            Next::Ended(result) => {
                self.work = None;
                self.read_facts(world, id);
                if let Some(known) = self.known.clone() {
                    let machine = Box::new((*known).clone());
                    self.input(Input::Ended { result: *result, machine }, world, id, &mut wishes);
                }
            }
        }
        wishes
    }
}

fn bytes_of(record: &Record) -> Vec<u8> {
    encoded(record).unwrap_or_default()
}

/// How a report reads in a trace.
pub(super) fn word(kind: &ReportKind) -> &'static str {
    match kind {
        ReportKind::Progress { .. } => "progress",
        ReportKind::Succeeded { .. } => "succeeded",
        ReportKind::Failed { .. } => "failed",
    }
}
