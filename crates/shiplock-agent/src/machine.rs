//! What the agent may do: accepts and refuses assignments, holds the fence, asks for permits, and repeats reports.
//!
//! It does no I/O and reads no clock. Its outputs are carried out in order, and an output after a
//! [`Output::Write`] only when the record is on disk. It must never let an act begin without a journaled permit.

use std::time::Duration;

use shiplock_api::agent::{
    Assignment, AssignmentId, PermitRequest, PermitResponse, Report, ReportKind, ReportResponse,
};
use shiplock_core::facts::MachineFacts;
use shiplock_core::id::{Generation, NodeName};
use shiplock_core::planted::{self, Bug};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::StepOutcome;

use crate::journal::Record;
use crate::steps::Failure;

/// Time since some fixed moment of this process; it never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Monotonic(pub Duration);

/// What comes in.
#[derive(Clone, Debug)]
pub enum Input {
    /// The process was started; the journal has been read.
    Started,
    /// The server offers work.
    Offered {
        /// The work.
        assignment: Box<Assignment>,
        /// Why nothing new can be taken on: there would be no room to write down how it ends.
        no_room: Option<Problem>,
    },
    /// The step is about to act.
    PermitWanted {
        /// The phase.
        phase: String,
    },
    /// The server answered.
    PermitAnswered {
        /// The question.
        request: PermitRequest,
        /// The answer.
        response: PermitResponse,
    },
    /// The step is about to put the old back.
    RollingBack {
        /// Why.
        problem: Problem,
    },
    /// The step goes on.
    Progress {
        /// A stable word.
        phase: String,
    },
    /// The step ended.
    Ended {
        /// How.
        result: Result<StepOutcome, Failure>,
        /// The machine after it.
        machine: Box<MachineFacts>,
    },
    /// The server answered a final report.
    ReportAnswered {
        /// The attempt.
        id: AssignmentId,
        /// The answer.
        response: ReportResponse,
    },
    /// Time has passed.
    Tick,
}

/// What goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Put this on disk before anything that follows.
    Write(Record),
    /// Begin the step, with its examination.
    Start {
        /// What to do.
        assignment: Box<Assignment>,
        /// A roll back was begun before a restart and is to be finished.
        rolling_back: Option<Problem>,
    },
    /// Stop the step where it stands; it is between acts.
    Drop,
    /// Stop and forget the transient units of the step.
    Clean(AssignmentId),
    /// Ask the server; an earlier question is void.
    AskPermit(PermitRequest),
    /// The answer for the step.
    Go,
    /// The roll back is written down.
    RollBack,
    /// Send this once, or not at all.
    Tell(Report),
    /// Send this until it is answered.
    Report(Report),
    /// For the agent's log.
    Note(Problem),
}

/// The agent's state.
#[derive(Clone, Debug)]
pub struct Machine {
    node: NodeName,
    machine_id: String,
    boot_id: String,
    highest: Option<Generation>,
    settled: Option<AssignmentId>,
    work: Option<Work>,
    queued: Option<Box<Assignment>>,
    unreported: Vec<Unreported>,
}

#[derive(Clone, Debug)]
struct Unreported {
    report: Report,
    /// Refusals are not: they can be made again.
    journaled: bool,
}

#[derive(Clone, Debug)]
struct Work {
    assignment: Box<Assignment>,
    deadline: Option<Monotonic>,
    phase: Phase,
    rolling_back: Option<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Looking, or fetching: it may be stopped at any moment.
    Harmless,
    /// Waiting for a permit.
    Asking(String),
    /// Acting: it is left to end, which it does in bounded time.
    Acting,
}

/// Reports that wait at the same time: one of the step before, refusals beside it.
const UNREPORTED_MAX: usize = 8;

fn same_attempt(a: &AssignmentId, b: &AssignmentId) -> bool {
    a.upgrade == b.upgrade && a.step == b.step && a.generation.intent == b.generation.intent
}

impl Machine {
    /// The state that the journal tells.
    pub fn recover(node: NodeName, machine_id: String, boot_id: String, records: Vec<Record>) -> Self {
        let (highest, settled, work, queued, unreported) = (None, None, None, None, Vec::new());
        let mut machine = Self { node, machine_id, boot_id, highest, settled, work, queued, unreported };
        records.into_iter().for_each(|record| machine.fold(record));
        machine
    }

    fn raise(&mut self, generation: Generation) {
        self.highest = self.highest.max(Some(generation));
    }

    fn fold(&mut self, record: Record) {
        match record {
            Record::Fenced { generation } => self.raise(generation),
            Record::Accepted { assignment, boot_id: _ } => {
                self.raise(assignment.id.generation);
                self.work = Some(Work { assignment, deadline: None, phase: Phase::Harmless, rolling_back: None });
            }
            Record::Adopted { id } => {
                self.raise(id.generation);
                if let Some(work) = &mut self.work {
                    work.assignment.id = id;
                }
            }
            Record::PhaseBegan { .. } => {}
            Record::RollBackBegan { problem, .. } => {
                if let Some(work) = &mut self.work {
                    work.rolling_back = Some(problem);
                }
            }
            Record::Finished { report } => {
                // A second record of one attempt is the same outcome under the epoch that took over.
                self.raise(report.id.generation);
                self.work.take_if(|work| same_attempt(&work.assignment.id, &report.id));
                self.unreported.retain(|other| !same_attempt(&other.report.id, &report.id));
                self.unreported.push(Unreported { report: *report, journaled: true });
            }
            Record::Settled { id } => {
                self.unreported.retain(|other| !same_attempt(&other.report.id, &id));
                self.settled = Some(id);
            }
            Record::Dropped { .. } => self.work = None,
        }
    }

    /// The fewest records that recover this state.
    pub fn essence(&self) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        records.extend(self.highest.map(|generation| Record::Fenced { generation }));
        records.extend(self.settled.clone().map(|id| Record::Settled { id }));
        let finished = self.unreported.iter().filter(|other| other.journaled);
        records.extend(finished.map(|other| Record::Finished { report: Box::new(other.report.clone()) }));
        if let Some(work) = &self.work {
            let assignment = work.assignment.clone();
            let id = assignment.id.clone();
            records.push(Record::Accepted { assignment, boot_id: self.boot_id.clone() });
            records.extend(work.rolling_back.clone().map(|problem| Record::RollBackBegan { id, problem }));
        }
        records
    }

    /// The attempt that the server need not offer again.
    pub fn in_work(&self) -> Option<&AssignmentId> {
        let accepted = self.queued.as_ref().or(self.work.as_ref().map(|work| &work.assignment));
        accepted.map(|assignment| &assignment.id).or(self.unreported.last().map(|other| &other.report.id))
    }

    /// The id that the attempt in work has now; a server that took over gave it another one.
    pub fn attempt(&self) -> Option<&AssignmentId> {
        self.work.as_ref().map(|work| &work.assignment.id)
    }

    /// When a [`Input::Tick`] is wanted.
    pub fn wake_at(&self) -> Option<Monotonic> {
        let work = self.work.as_ref().filter(|work| work.phase != Phase::Acting)?;
        work.deadline
    }

    /// Takes one input and says what is to be done, in order.
    pub fn on(&mut self, input: Input, now: Monotonic) -> Vec<Output> {
        let mut outputs = Vec::new();
        match input {
            Input::Started => self.started(now, &mut outputs),
            Input::Offered { assignment, no_room } => self.offered(assignment, no_room, now, &mut outputs),
            Input::PermitWanted { phase } => self.permit_wanted(phase, now, &mut outputs),
            Input::PermitAnswered { request, response } => self.permit_answered(&request, response, now, &mut outputs),
            Input::RollingBack { problem } => {
                if let Some(work) = &mut self.work {
                    // Putting the old back needs no permit: it ends the act that was permitted.
                    work.phase = Phase::Acting;
                    let id = work.assignment.id.clone();
                    outputs.push(Output::Write(Record::RollBackBegan { id, problem: problem.clone() }));
                    work.rolling_back = Some(problem);
                    outputs.push(Output::RollBack);
                }
            }
            Input::Progress { phase } => {
                if let Some(work) = &self.work {
                    outputs.push(Output::Tell(self.report(&work.assignment.id, ReportKind::Progress { phase })));
                }
            }
            Input::Ended { result, machine } => self.ended(result, machine, now, &mut outputs),
            Input::ReportAnswered { id, response: ReportResponse::Taken | ReportResponse::NotWanted } => {
                if let Some(at) = self.unreported.iter().position(|other| other.report.id == id)
                    && self.unreported.remove(at).journaled
                {
                    self.settled = Some(id.clone());
                    outputs.push(Output::Write(Record::Settled { id }));
                }
            }
            Input::Tick => {
                let late = self.wake_at().is_some_and(|at| at <= now);
                if late {
                    self.timed_out(now, &mut outputs);
                }
            }
        }
        outputs
    }

    fn report(&self, id: &AssignmentId, kind: ReportKind) -> Report {
        Report { id: id.clone(), node: self.node.clone(), kind }
    }

    fn started(&mut self, now: Monotonic, outputs: &mut Vec<Output>) {
        for Unreported { report, .. } in &self.unreported {
            // The crash may have come between the outcome and the cleaning.
            if self.work.as_ref().is_none_or(|work| !same_attempt(&work.assignment.id, &report.id)) {
                outputs.push(Output::Clean(report.id.clone()));
            }
            outputs.push(Output::Report(report.clone()));
        }
        if let Some(work) = &mut self.work {
            work.deadline = Some(deadline(&work.assignment, now));
            outputs
                .push(Output::Start { assignment: work.assignment.clone(), rolling_back: work.rolling_back.clone() });
        }
    }

    fn offered(&mut self, offer: Box<Assignment>, no_room: Option<Problem>, now: Monotonic, outputs: &mut Vec<Output>) {
        let wrong = |what: &str, expected: &str, found: &str| {
            Problem::new(Code::WrongMachine)
                .with("node", &offer.node)
                .with("what", what)
                .with("expected", expected)
                .with("found", found)
        };
        if offer.node != self.node {
            return self.refuse(&offer.id, wrong("name", offer.node.as_str(), self.node.as_str()), outputs);
        }
        if offer.machine_id != self.machine_id {
            return self.refuse(&offer.id, wrong("machine id", &offer.machine_id, &self.machine_id), outputs);
        }
        let generation = offer.id.generation;
        if let Some(highest) = self.highest.filter(|highest| generation < *highest)
            && !planted::is(Bug::StaleGenerationAccepted)
        {
            let stale = Problem::new(Code::StaleGeneration).with("found", generation).with("newest", highest);
            return self.refuse(&offer.id, stale, outputs);
        }
        let is_its_end = |other: &&mut Unreported| other.journaled && same_attempt(&other.report.id, &offer.id);
        if let Some(ended) = self.unreported.iter_mut().find(is_its_end) {
            // It has ended already. Under a higher epoch the report goes to the server that took over.
            if ended.report.id != offer.id {
                ended.report.id = offer.id.clone();
                let report = ended.report.clone();
                self.raise(generation);
                outputs.push(Output::Write(Record::Finished { report: Box::new(report.clone()) }));
                outputs.push(Output::Report(report));
            }
            return;
        }
        if self.settled.as_ref().is_some_and(|settled| same_attempt(settled, &offer.id)) {
            if self.highest < Some(generation) {
                outputs.push(Output::Write(Record::Fenced { generation }));
                self.raise(generation);
            }
            return;
        }
        match &mut self.work {
            Some(work) if work.assignment.id == offer.id => {}
            Some(work) if same_attempt(&work.assignment.id, &offer.id) => {
                work.assignment.id = offer.id.clone();
                outputs.push(Output::Write(Record::Adopted { id: offer.id.clone() }));
                if let Phase::Asking(phase) = &work.phase {
                    let phase = phase.clone();
                    outputs.push(Output::AskPermit(PermitRequest { id: offer.id, node: self.node.clone(), phase }));
                }
                self.raise(generation);
            }
            Some(work) => {
                let acting = work.phase == Phase::Acting;
                outputs.push(Output::Write(Record::Fenced { generation }));
                self.raise(generation);
                self.queued = Some(offer);
                if !acting {
                    self.give_up(now, outputs);
                }
            }
            None => match no_room {
                Some(problem) => self.refuse(&offer.id, problem, outputs),
                None => self.accept(offer, now, outputs),
            },
        }
    }

    fn refuse(&mut self, id: &AssignmentId, problem: Problem, outputs: &mut Vec<Output>) {
        outputs.push(Output::Note(problem.clone()));
        if self.unreported.iter().any(|other| other.report.id == *id) || self.unreported.len() >= UNREPORTED_MAX {
            return;
        }
        let report = self.report(id, ReportKind::Failed { problem, retryable: false });
        self.unreported.insert(0, Unreported { report: report.clone(), journaled: false });
        outputs.push(Output::Report(report));
    }

    fn accept(&mut self, assignment: Box<Assignment>, now: Monotonic, outputs: &mut Vec<Output>) {
        self.raise(assignment.id.generation);
        // The results of an earlier attempt's programs are not this one's.
        outputs.push(Output::Clean(assignment.id.clone()));
        outputs.push(Output::Write(Record::Accepted { assignment: assignment.clone(), boot_id: self.boot_id.clone() }));
        outputs.push(Output::Start { assignment: assignment.clone(), rolling_back: None });
        let deadline = Some(deadline(&assignment, now));
        self.work = Some(Work { assignment, deadline, phase: Phase::Harmless, rolling_back: None });
    }

    fn permit_wanted(&mut self, phase: String, now: Monotonic, outputs: &mut Vec<Output>) {
        if self.queued.is_some() || self.is_fenced_out() {
            return self.give_up(now, outputs);
        }
        let Some(work) = &mut self.work else { return };
        if work.deadline.is_some_and(|deadline| deadline <= now) {
            work.phase = Phase::Harmless;
            return self.timed_out(now, outputs);
        }
        work.phase = Phase::Asking(phase.clone());
        outputs.push(Output::AskPermit(PermitRequest {
            id: work.assignment.id.clone(),
            node: self.node.clone(),
            phase,
        }));
    }

    /// A higher generation was seen after the one in work: an act of it may end, and none may begin.
    fn is_fenced_out(&self) -> bool {
        !planted::is(Bug::StaleGenerationAccepted)
            && self.work.as_ref().is_some_and(|work| Some(work.assignment.id.generation) < self.highest)
    }

    fn permit_answered(
        &mut self,
        request: &PermitRequest,
        response: PermitResponse,
        now: Monotonic,
        outputs: &mut Vec<Output>,
    ) {
        let fenced_out = self.is_fenced_out();
        let Some(work) = &mut self.work else { return };
        // The answer to a question under another id or for another phase says nothing: the right one is on its way.
        if work.assignment.id != request.id || work.phase != Phase::Asking(request.phase.clone()) {
            return;
        }
        match response {
            PermitResponse::Granted if fenced_out => self.give_up(now, outputs),
            PermitResponse::Granted => {
                work.phase = Phase::Acting;
                let (id, phase) = (request.id.clone(), request.phase.clone());
                outputs.push(Output::Write(Record::PhaseBegan { id, phase }));
                outputs.push(Output::Go);
            }
            PermitResponse::Refused { problem } => {
                outputs.push(Output::Note(problem));
                self.give_up(now, outputs);
            }
        }
    }

    /// Forgets the attempt between two acts, without a report, and takes the queued one.
    fn give_up(&mut self, now: Monotonic, outputs: &mut Vec<Output>) {
        if let Some(work) = self.work.take() {
            outputs.push(Output::Drop);
            outputs.push(Output::Clean(work.assignment.id.clone()));
            outputs.push(Output::Write(Record::Dropped { id: work.assignment.id }));
        }
        self.take_queued(now, outputs);
    }

    fn take_queued(&mut self, now: Monotonic, outputs: &mut Vec<Output>) {
        if let Some(next) = self.queued.take() {
            self.accept(next, now, outputs);
        }
    }

    fn ended(
        &mut self,
        result: Result<StepOutcome, Failure>,
        machine: Box<MachineFacts>,
        now: Monotonic,
        outputs: &mut Vec<Output>,
    ) {
        let kind = match result {
            Ok(outcome) => ReportKind::Succeeded { outcome, machine },
            Err(Failure { problem, retryable }) => ReportKind::Failed { problem: *problem, retryable },
        };
        self.finish(kind, now, outputs);
    }

    fn timed_out(&mut self, now: Monotonic, outputs: &mut Vec<Output>) {
        let Some(work) = &self.work else { return };
        let problem = Problem::new(Code::StepTimedOut)
            .with("step", work.assignment.action.kind())
            .with("subject", &self.node)
            .with("limit", format!("{} s", work.assignment.timeout_seconds));
        outputs.push(Output::Drop);
        self.finish(ReportKind::Failed { problem, retryable: true }, now, outputs);
    }

    fn finish(&mut self, kind: ReportKind, now: Monotonic, outputs: &mut Vec<Output>) {
        let Some(work) = self.work.take() else { return };
        let report = self.report(&work.assignment.id, kind);
        outputs.push(Output::Write(Record::Finished { report: Box::new(report.clone()) }));
        // Units are read back until the outcome is on disk, and only then forgotten.
        outputs.push(Output::Clean(report.id.clone()));
        if self.unreported.len() >= UNREPORTED_MAX {
            self.unreported.remove(0);
        }
        self.unreported.push(Unreported { report: report.clone(), journaled: true });
        outputs.push(Output::Report(report));
        self.take_queued(now, outputs);
    }
}

fn deadline(assignment: &Assignment, now: Monotonic) -> Monotonic {
    Monotonic(now.0 + Duration::from_secs(assignment.timeout_seconds.into()))
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
