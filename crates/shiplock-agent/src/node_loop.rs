//! The shell around the machine: carries its outputs out, in order, and brings everything that happens back in.
//!
//! It must never carry out what follows a record that is not on disk: a journal that cannot be written ends the agent.

use std::cell::RefCell;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use shiplock_api::agent::{
    Assignment, AssignmentId, BackupOffer, BackupQuestion, ExaminationReport, ExaminationRequest, PROTOCOL,
    PermitRequest, PermitResponse, PollRequest, PollResponse, Report, ReportResponse,
};
use shiplock_core::facts::examination::{NodeExamination, NodeQuestion};
use shiplock_core::facts::{ControlPlaneFacts, MachineFacts};
use shiplock_core::id::NodeName;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::StepOutcome;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::examination::examine;
use crate::facts::FactsReader;
use crate::gateway::{Gateway, GatewayError};
use crate::host::Host;
use crate::journal::RecordLog;
use crate::machine::{Input, Machine, Monotonic, Output};
use crate::steps::backup_etcd::{self, BackupMessage, BackupReply};
use crate::steps::{Failure, Step, StepEvent, unit_prefix};

/// Facts are read again after so long without work.
const FACTS_EVERY: Duration = Duration::from_secs(60);
/// On a master, health and etcd are read again ahead of each poll, but not sooner than this.
const CONTROL_PLANE_EVERY: Duration = Duration::from_secs(2);
/// A server that refuses is asked again after so long: a person has to act first.
const ASK_REFUSING_AGAIN: Duration = Duration::from_secs(30);
/// An answer that changed nothing is not asked for again at once.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const BACK_OFF_MAX_SECONDS: u32 = 5;

type Slot<T> = Option<Pin<Box<dyn Future<Output = T>>>>;

/// The result of a slot, whose work is then over; one without work waits for ever.
async fn next<T>(slot: &mut Slot<T>) -> T {
    match slot {
        Some(work) => {
            let result = work.as_mut().await;
            *slot = None;
            result
        }
        None => std::future::pending().await,
    }
}

/// What an agent works on: a machine whose facts are read and on which steps are done. [`HostWorkplace`] is the real
/// one; a simulator has its own.
pub trait Workplace {
    /// The facts now.
    async fn facts(&self) -> MachineFacts;
    /// The part of the facts that may change while nobody works on the node: the control plane's.
    async fn control_plane(&self) -> Option<Box<ControlPlaneFacts>>;
    /// Does a step. It asks for permits and tells its progress through `events`; dropped, it stops between two acts.
    async fn work(
        &self,
        assignment: Assignment,
        events: mpsc::UnboundedSender<StepEvent>,
        rolling_back: Option<Problem>,
    ) -> Result<StepOutcome, Failure>;
    /// Looks at the machine for the pre-check, changing nothing. None where it is not looked at: whoever asked hears
    /// nothing, and says so.
    async fn examine(&self, question: &NodeQuestion) -> Option<NodeExamination>;
    /// Forgets what the programs of an attempt left.
    async fn clean(&self, id: &AssignmentId);
    /// Waits.
    async fn wait(&self, time: Duration);
    /// A line for the agent's log.
    fn note(&self, text: &dyn std::fmt::Display);
}

/// The machine behind a [`Host`].
#[derive(Debug)]
pub struct HostWorkplace<H> {
    host: Rc<H>,
    data_folder: PathBuf,
    facts: RefCell<FactsReader>,
}

impl<H: Host> HostWorkplace<H> {
    /// A machine, and the agent's folder on it.
    pub fn new(host: Rc<H>, data_folder: PathBuf) -> Self {
        Self { host, data_folder, facts: RefCell::default() }
    }
}

impl<H: Host> Workplace for HostWorkplace<H> {
    async fn facts(&self) -> MachineFacts {
        // Taken for the time of the reading: nobody else reads meanwhile.
        let mut reader = self.facts.take();
        let facts = reader.read(&*self.host, &self.data_folder).await;
        self.facts.replace(reader);
        facts
    }

    async fn control_plane(&self) -> Option<Box<ControlPlaneFacts>> {
        let mut reader = self.facts.take();
        let facts = reader.read_control_plane(&*self.host, &self.data_folder).await;
        self.facts.replace(reader);
        facts
    }

    async fn work(
        &self,
        assignment: Assignment,
        events: mpsc::UnboundedSender<StepEvent>,
        rolling_back: Option<Problem>,
    ) -> Result<StepOutcome, Failure> {
        let (host, data_folder) = (self.host.clone(), self.data_folder.clone());
        Step { host, assignment, data_folder, events, rolling_back }.run().await
    }

    async fn examine(&self, question: &NodeQuestion) -> Option<NodeExamination> {
        Some(examine(&*self.host, &self.data_folder, question).await)
    }

    async fn clean(&self, id: &AssignmentId) {
        if let Err(problem) = self.host.clear_units(&unit_prefix(id)).await {
            self.note(&problem);
        }
        // After its programs, which would write it anew.
        if let Err(error) = backup_etcd::remove(&self.data_folder, id) {
            self.note(&format!("the snapshot of etcd of step {} cannot be removed: {error}", id.step));
        }
    }

    async fn wait(&self, time: Duration) {
        self.host.wait(time).await;
    }

    fn note(&self, text: &dyn std::fmt::Display) {
        // The service manager keeps it.
        eprintln!("{text}");
    }
}

/// An agent at work.
pub struct NodeLoop<W, G, L> {
    place: Rc<W>,
    gateway: Rc<G>,
    log: L,
    machine: Machine,
    node: NodeName,
    began: Instant,
    known: Option<MachineFacts>,
    facts_read_at: Option<Instant>,
    control_plane_read_at: Instant,
    /// What the server has been told.
    told: Option<MachineFacts>,
    poll: Slot<(Option<MachineFacts>, Result<PollResponse, GatewayError>)>,
    /// Not before this moment.
    poll_at: Instant,
    poll_failures: u32,
    permit: Slot<(PermitRequest, PermitResponse)>,
    report: Slot<(AssignmentId, ReportResponse)>,
    reports: Vec<Report>,
    tell: Slot<()>,
    /// A look at the node for the pre-check, and its way to the server. It goes on beside any work.
    examination: Slot<()>,
    /// The answer goes to the step from here.
    backup: Slot<()>,
    step: Slot<Result<StepOutcome, Failure>>,
    events: Option<mpsc::UnboundedReceiver<StepEvent>>,
    /// The step waits for this.
    go: Option<oneshot::Sender<()>>,
}

impl<W, G, L> std::fmt::Debug for NodeLoop<W, G, L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeLoop").field("machine", &self.machine).finish_non_exhaustive()
    }
}

/// 1 to 5 s, more with each failure, never the same for all agents.
fn back_off(failures: u32) -> Duration {
    let base = Duration::from_secs(failures.clamp(1, BACK_OFF_MAX_SECONDS).into());
    // The hasher's seed is random for each process; that is all the randomness that is needed.
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), failures);
    base.mul_f64(0.5 + (random % 1000) as f64 / 2000.0).max(Duration::from_secs(1))
}

impl<W: Workplace + 'static, G: Gateway + 'static, L: RecordLog> NodeLoop<W, G, L> {
    /// An agent whose machine has read its journal.
    pub fn new(place: Rc<W>, gateway: Rc<G>, log: L, machine: Machine, node: NodeName) -> Self {
        let now = Instant::now();
        Self {
            place,
            gateway,
            log,
            machine,
            node,
            began: now,
            known: None,
            facts_read_at: None,
            control_plane_read_at: now,
            told: None,
            poll: None,
            poll_at: now,
            poll_failures: 0,
            permit: None,
            report: None,
            reports: Vec::new(),
            tell: None,
            examination: None,
            backup: None,
            step: None,
            events: None,
            go: None,
        }
    }

    /// Works until the journal cannot be written or the future is dropped.
    pub async fn run(mut self) -> Problem {
        // Journal and units first, then the server: what was begun is known before anything new is taken.
        if let Err(problem) = self.input(Input::Started).await {
            return problem;
        }
        loop {
            if let Err(problem) = self.turn().await {
                return problem;
            }
        }
    }

    async fn turn(&mut self) -> Result<(), Problem> {
        if self.step.is_none() && self.facts_read_at.is_none_or(|at| at.elapsed() >= FACTS_EVERY) {
            self.read_facts().await;
        }
        self.refresh_control_plane().await;
        self.begin_poll();
        self.begin_report();
        let wake = self.machine.wake_at().map(|at| self.began + at.0);
        let poll_at = self.poll_at;
        let poll_is_idle = self.poll.is_none();
        tokio::select! {
            // Events of a step come before its result.
            biased;
            Some(event) = async { match &mut self.events { Some(events) => events.recv().await, None => None } } => {
                self.step_event(event).await
            }
            result = next(&mut self.step) => {
                self.events = None;
                self.read_facts().await;
                if self.known != self.told {
                    // What the step changed is told at once: a poll under way is answered only when its hold ends. An
                    // offer that is lost with it is made again.
                    self.poll = None;
                    self.poll_at = Instant::now();
                }
                let machine = Box::new(self.known.clone().expect("the facts were read one line above"));
                self.input(Input::Ended { result, machine }).await
            }
            (request, response) = next(&mut self.permit) => {
                self.input(Input::PermitAnswered { request, response }).await
            }
            (id, response) = next(&mut self.report) => {
                self.reports.retain(|report| report.id != id);
                self.input(Input::ReportAnswered { id, response }).await
            }
            () = next(&mut self.tell) => Ok(()),
            () = next(&mut self.backup) => Ok(()),
            () = next(&mut self.examination) => Ok(()),
            (told, answer) = next(&mut self.poll) => self.polled(told, answer).await,
            () = tokio::time::sleep_until(poll_at), if poll_is_idle => Ok(()),
            () = async { match wake { Some(at) => tokio::time::sleep_until(at).await, None => std::future::pending().await } } => {
                self.input(Input::Tick).await
            }
        }
    }

    async fn read_facts(&mut self) {
        self.known = Some(self.place.facts().await);
        self.facts_read_at = Some(Instant::now());
        self.control_plane_read_at = Instant::now();
    }

    async fn refresh_control_plane(&mut self) {
        let due =
            self.step.is_none() && self.poll.is_none() && self.control_plane_read_at.elapsed() >= CONTROL_PLANE_EVERY;
        if let Some(known) = self.known.as_mut().filter(|known| due && known.control_plane.is_some()) {
            known.control_plane = self.place.control_plane().await;
            self.control_plane_read_at = Instant::now();
        }
    }

    fn begin_poll(&mut self) {
        if self.poll.is_some() || Instant::now() < self.poll_at {
            return;
        }
        let machine = self.known.clone().filter(|known| self.told.as_ref() != Some(known));
        let in_work = self.machine.in_work().cloned();
        let request = PollRequest { protocol: PROTOCOL, node: self.node.clone(), machine, in_work };
        let gateway = self.gateway.clone();
        self.poll = Some(Box::pin(async move {
            let answer = gateway.poll(&request).await;
            (request.machine, answer)
        }));
    }

    async fn polled(
        &mut self,
        told: Option<MachineFacts>,
        answer: Result<PollResponse, GatewayError>,
    ) -> Result<(), Problem> {
        let now = Instant::now();
        match answer {
            Ok(answer) => {
                if self.poll_failures > 0 {
                    self.place.note(&"the server answers again");
                }
                self.poll_failures = 0;
                if told.is_some() {
                    self.told = told;
                }
                if answer.send_machine {
                    self.told = None;
                    self.poll_at = now + ASK_AGAIN;
                }
                if let Some(request) = answer.examine {
                    // What is judged beside the answer must not be older than it.
                    self.facts_read_at = None;
                    self.begin_examination(request);
                }
                if let Some(assignment) = answer.assignment {
                    let before = self.machine.in_work().cloned();
                    let no_room = self.log.room().err().map(|problem| problem.with("subject", &self.node));
                    self.input(Input::Offered { assignment: Box::new(assignment), no_room }).await?;
                    if self.machine.in_work() == before.as_ref() {
                        self.poll_at = now + ASK_AGAIN;
                    }
                }
            }
            Err(GatewayError::Unreachable(why)) => {
                self.poll_failures = self.poll_failures.saturating_add(1);
                if self.poll_failures == 1 {
                    self.place.note(&format!("the server does not answer: {why}"));
                }
                self.poll_at = now + back_off(self.poll_failures);
            }
            Err(GatewayError::Refused(problem)) => {
                self.poll_failures = self.poll_failures.saturating_add(1);
                self.place.note(&format!("the server refuses: {problem}"));
                self.poll_at = now + ASK_REFUSING_AGAIN;
            }
        }
        Ok(())
    }

    fn begin_report(&mut self) {
        if self.report.is_some() {
            return;
        }
        let Some(report) = self.reports.first().cloned() else { return };
        let gateway = self.gateway.clone();
        let place = self.place.clone();
        self.report = Some(Box::pin(async move {
            let mut failures = 0;
            loop {
                match gateway.report(&report).await {
                    Ok(response) => return (report.id, response),
                    Err(GatewayError::Unreachable(_)) => {
                        failures += 1;
                        place.wait(back_off(failures)).await;
                    }
                    Err(GatewayError::Refused(problem)) => {
                        place.note(&format!("the server refuses a report: {problem}"));
                        place.wait(ASK_REFUSING_AGAIN).await;
                    }
                }
            }
        }));
    }

    /// Looks at the node and tells what was found, once: whoever asked may have given up, and asks anew.
    fn begin_examination(&mut self, request: ExaminationRequest) {
        let (place, gateway, node) = (self.place.clone(), self.gateway.clone(), self.node.clone());
        self.examination = Some(Box::pin(async move {
            let Some(examination) = place.examine(&request.question).await else { return };
            let report = ExaminationReport { number: request.number, node, examination: Box::new(examination) };
            if let Err(error) = gateway.examined(&report).await {
                place.note(&format!("what was found on the node did not get through: {error:?}"));
            }
        }));
    }

    async fn step_event(&mut self, event: StepEvent) -> Result<(), Problem> {
        let input = match event {
            StepEvent::Backup { message, answer } => {
                self.ask_about_backup(message, answer);
                return Ok(());
            }
            StepEvent::PermitWanted { phase, go } => {
                self.go = Some(go);
                Input::PermitWanted { phase: phase.to_owned() }
            }
            StepEvent::RollingBack { problem, go } => {
                self.go = Some(go);
                Input::RollingBack { problem }
            }
            StepEvent::Progress(phase) => Input::Progress { phase: phase.to_owned() },
        };
        self.input(input).await
    }

    async fn input(&mut self, input: Input) -> Result<(), Problem> {
        let now = Monotonic(self.began.elapsed());
        for output in self.machine.on(input, now) {
            self.carry_out(output).await?;
        }
        Ok(())
    }

    async fn carry_out(&mut self, output: Output) -> Result<(), Problem> {
        match output {
            Output::Write(record) => self.log.append(&record).map_err(|error| {
                Problem::new(Code::StoreFailed).with("operation", "write the agent's journal").because(&error)
            })?,
            Output::Start { assignment, rolling_back } => self.start(*assignment, rolling_back),
            Output::Drop => {
                self.step = None;
                self.events = None;
                self.go = None;
                self.permit = None;
                self.backup = None;
            }
            Output::Clean(id) => self.place.clean(&id).await,
            Output::AskPermit(request) => self.ask_permit(request),
            Output::Go | Output::RollBack => {
                if let Some(go) = self.go.take() {
                    // The step may have been dropped meanwhile.
                    let _ = go.send(());
                }
            }
            Output::Tell(report) => {
                let gateway = self.gateway.clone();
                self.tell = Some(Box::pin(async move {
                    // Progress may be lost.
                    let _ = gateway.report(&report).await;
                }));
            }
            Output::Report(report) => {
                // Under a higher epoch the same outcome goes out with the new id only.
                let replaced = |other: &Report| {
                    other.id.upgrade == report.id.upgrade
                        && other.id.step == report.id.step
                        && other.id.generation.intent == report.id.generation.intent
                };
                if self.reports.first().is_some_and(replaced) {
                    self.report = None;
                }
                self.reports.retain(|other| !replaced(other));
                self.place.note(&format!(
                    "step {} of upgrade {} ended: {}",
                    report.id.step,
                    report.id.upgrade,
                    ending(&report)
                ));
                self.reports.push(report);
            }
            Output::Note(problem) => self.place.note(&problem),
        }
        Ok(())
    }

    fn start(&mut self, assignment: Assignment, rolling_back: Option<Problem>) {
        self.place.note(&format!(
            "step {} of upgrade {}: {}",
            assignment.id.step,
            assignment.id.upgrade,
            assignment.action.kind()
        ));
        let (events, received) = mpsc::unbounded_channel();
        let place = self.place.clone();
        self.events = Some(received);
        self.step = Some(Box::pin(async move { place.work(assignment, events, rolling_back).await }));
    }

    fn ask_about_backup(&mut self, message: BackupMessage, answer: oneshot::Sender<BackupReply>) {
        // Without an attempt in work nobody waits for an answer.
        let Some(id) = self.machine.attempt().cloned() else { return };
        let (gateway, node, place) = (self.gateway.clone(), self.node.clone(), self.place.clone());
        self.backup = Some(Box::pin(async move {
            let size_bytes = match &message {
                BackupMessage::Find { size_bytes } => *size_bytes,
                BackupMessage::Send { snapshot, .. } => snapshot.size_bytes,
            };
            // Asked before it is sent, too: a refusal is heard before gigabytes go out, and an answer that was lost
            // costs no second way.
            let question = BackupQuestion { id: id.clone(), node: node.clone(), size_bytes };
            let found = gateway.find_backup(&question).await.map(|answer| answer.kept);
            let reply = match (found, message) {
                (Ok(None), BackupMessage::Send { snapshot, path }) => {
                    let sent = gateway.send_backup(&BackupOffer { id, node, snapshot }, &path).await;
                    if let Err(GatewayError::Unreachable(why)) = &sent {
                        place.note(&format!("the backup did not get through: {why}"));
                    }
                    sent.map(Some)
                }
                (found, _) => found,
            };
            // The step may have been dropped meanwhile.
            let _ = answer.send(reply);
        }));
    }

    fn ask_permit(&mut self, request: PermitRequest) {
        let gateway = self.gateway.clone();
        let place = self.place.clone();
        self.permit = Some(Box::pin(async move {
            let mut failures = 0;
            loop {
                match gateway.permit(&request).await {
                    Ok(response) => return (request, response),
                    Err(GatewayError::Unreachable(_)) => {
                        failures += 1;
                        place.wait(back_off(failures)).await;
                    }
                    Err(GatewayError::Refused(problem)) => {
                        return (request, PermitResponse::Refused { problem: *problem });
                    }
                }
            }
        }));
    }
}

fn ending(report: &Report) -> String {
    use shiplock_api::agent::ReportKind;
    match &report.kind {
        ReportKind::Progress { phase } => phase.clone(),
        ReportKind::Succeeded { outcome: StepOutcome::AlreadyDone, .. } => "nothing had to be done".to_owned(),
        ReportKind::Succeeded { .. } => "done".to_owned(),
        ReportKind::Failed { problem, .. } => problem.to_string(),
    }
}
