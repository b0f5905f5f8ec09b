//! An agent in the simulation: the production machine and journal format, and a stand-in for executors.
//!
//! A step is modelled as phases: examine, fetch, permit, act as a transient unit that outlives the agent, verify, and where
//! what was put in place does not come up, back. The executors themselves are tested at every call of their host in
//! `crates/shiplock-agent/tests`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use shiplock_agent::journal::{Record, encoded, read_records};
use shiplock_agent::machine::{Input, Machine, Monotonic, Output};
use shiplock_agent::steps::{Failure, unit_prefix};
use shiplock_api::agent::{
    Assignment, AssignmentId, PermitRequest, PermitResponse, Report, ReportKind, ReportResponse,
};
use shiplock_core::facts::{ControlPlaneComponent, MachineFacts};
use shiplock_core::id::NodeName;
use shiplock_core::planted::{self, Bug};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::{Action, ControlPlaneUpgrade};
use shiplock_core::upgrade::StepOutcome;

use crate::machine::{etcd_facts, machine_facts};
use crate::release::addon_images;
use crate::world::{Executable, Moment, Text, UnitState, Work, World};

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

/// An executor at work.
#[derive(Clone, Debug)]
pub(super) struct Executing {
    assignment: Box<Assignment>,
    phase: Phase,
    pub(super) run: u32,
    looks: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    Examining,
    Fetching,
    Permit,
    /// The guard found why the act may not begin.
    HeldBack(Problem),
    Unit,
    Verifying,
    /// Asked to write down that the old is put back.
    GoingBack(Problem),
    Back(Problem),
    BackUp(Problem),
}

impl Agent {
    pub(super) fn new(world: &World, id: u32, life: u32) -> Option<Self> {
        let machine = world.machine(id).filter(|machine| machine.on)?;
        let name = NodeName::new(machine.name.to_string());
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
                    self.input(Input::Offered(assignment), world, id, &mut wishes);
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

enum Next {
    Nothing,
    After(Duration),
    Permit(&'static str),
    RollingBack(Problem),
    Ended(Box<Result<StepOutcome, Failure>>),
}

fn ended(result: Result<StepOutcome, Failure>) -> Next {
    Next::Ended(Box::new(result))
}

impl Executing {
    fn unit(&self, phase: &str) -> String {
        format!("{}{phase}", unit_prefix(&self.assignment.id))
    }

    /// Where this attempt keeps what it replaces.
    fn kept(&self) -> String {
        let id = &self.assignment.id;
        format!("{}-{}-{}", id.upgrade, id.step, id.generation.intent)
    }

    /// What its program does; none for steps that only fetch or read.
    fn program(&self) -> Option<Work> {
        let executable = |files: &[shiplock_core::artefact::ArtefactFile], role: &str| {
            let file = files.iter().find(|file| file.role == role)?;
            let sha256 =
                if planted::is(Bug::DigestNotCompared) { "f".repeat(64).into() } else { file.sha256.as_str().into() };
            Some(Executable { version: file.version.as_str().into(), sha256 })
        };
        match &self.assignment.action {
            Action::UpgradeContainerRuntime { files, .. } => Some(Work::Runtime(executable(files, "containerd")?)),
            Action::UpgradeKubelet { files, .. } => Some(Work::Kubelet(executable(files, "kubelet")?)),
            Action::UpgradeControlPlane(upgrade) => {
                Some(Work::Swap { images: images_of(upgrade), kubelet: executable(&upgrade.files, "kubelet") })
            }
            Action::UploadConfiguration { .. } => Some(Work::UploadConfiguration),
            Action::UpgradeAddons { .. } => Some(Work::AddOns(addon_images())),
            _ => None,
        }
    }

    /// Whether its goal is reached, read from what runs.
    fn is_reached(&self, world: &World, id: u32, program: &Work) -> bool {
        let Some(machine) = world.machine(id) else { return false };
        match program {
            Work::Runtime(executable) => machine.runtime.running.as_ref() == Some(executable),
            Work::Kubelet(executable) => machine.kubelet.running.as_ref() == Some(executable),
            Work::Swap { images, kubelet } => {
                images.iter().all(|(component, image)| {
                    machine
                        .static_pods
                        .get(component)
                        .is_some_and(|pod| pod.running.as_ref() == Some(image) && pod.healthy && pod.image == *image)
                }) && kubelet.as_ref().is_none_or(|kubelet| machine.kubelet.running.as_ref() == Some(kubelet))
            }
            // kubeadm writes the same again without harm.
            Work::UploadConfiguration => false,
            Work::AddOns(images) => images.iter().all(|(name, image)| {
                crate::world::WorkloadKind::ALL
                    .iter()
                    .filter_map(|kind| world.workloads(*kind).find("kube-system", name))
                    .all(|workload| workload.template.containers.first().is_none_or(|(_, held)| held == image))
            }),
        }
    }

    /// The program is started, at most once in an attempt.
    fn act(&mut self, world: &mut World, id: u32) -> Option<Wish> {
        let program = self.program()?;
        if let Some(why) = self.guard(world, id) {
            self.phase = Phase::HeldBack(why);
            return None;
        }
        let takes = match &program {
            Work::Runtime(_) => Duration::from_secs(6),
            Work::Kubelet(_) => Duration::from_secs(4),
            Work::Swap { .. } => Duration::from_secs(3),
            Work::UploadConfiguration | Work::AddOns(_) => Duration::from_secs(5),
        };
        if let Some(old) = before(world, id, &program) {
            let kept = Text::from(self.kept());
            world.change_machine(id, |machine| {
                if !machine.kept.iter().any(|(name, _)| *name == kept) {
                    machine.kept.push((kept, old));
                }
            });
        }
        world.start_unit(id, &self.unit("act"), program, takes);
        self.phase = Phase::Unit;
        Some(Wish::Work(Duration::from_millis(250)))
    }

    /// Why a master may not be touched now, looked at right before the act.
    fn guard(&self, world: &World, id: u32) -> Option<Problem> {
        let Action::UpgradeControlPlane(upgrade) = &self.assignment.action else { return None };
        if planted::is(Bug::QuorumNotRead) {
            return None;
        }
        let node = self.assignment.node.clone();
        let not_well = |why: String| Problem::new(Code::EtcdNotWell).with("node", &node).with("why", why);
        match etcd_facts(world, id) {
            shiplock_core::facts::Observed::Known(etcd) => {
                if let Some(why) = etcd.why_untouchable() {
                    return Some(not_well(why));
                }
            }
            shiplock_core::facts::Observed::Unknown { problem, .. } => {
                return Some(not_well("unknown".to_owned()).because(&problem));
            }
        }
        let another = world.nodes().iter().any(|(other, _)| {
            other != id
                && world.machine(other).is_some_and(|machine| !machine.static_pods.is_empty())
                && world.api_server_answers(other)
        });
        (!upgrade.is_only && !another).then(|| Problem::new(Code::NoOtherApiServer).with("node", &node))
    }

    fn go_on(&mut self, world: &mut World, id: u32) -> Next {
        let Some(machine) = world.machine(id).cloned() else { return Next::Nothing };
        if !machine.on {
            return Next::Nothing;
        }
        match self.phase.clone() {
            Phase::Examining => self.examine(world, id),
            Phase::Fetching => self.fetched(world, id),
            Phase::Permit | Phase::GoingBack(_) => Next::Nothing,
            Phase::HeldBack(problem) => ended(Err(Failure::retryable(problem))),
            Phase::Unit => match unit_state(&machine, &self.unit("act")) {
                Some(UnitState::Running) => Next::After(Duration::from_millis(250)),
                _ => {
                    self.phase = Phase::Verifying;
                    self.looks = 0;
                    Next::After(Duration::from_secs(1))
                }
            },
            Phase::Verifying => self.verify(world, id),
            Phase::Back(problem) => {
                let name = self.unit("roll-back");
                match unit_state(&machine, &name) {
                    None => {
                        let kept = self.kept();
                        let Some(old) =
                            machine.kept.iter().find(|(name, _)| **name == *kept).map(|(_, old)| old.clone())
                        else {
                            return ended(Err(Failure::from(problem)));
                        };
                        world.start_unit(id, &name, old, Duration::from_secs(2));
                        Next::After(Duration::from_millis(500))
                    }
                    Some(UnitState::Running) => Next::After(Duration::from_millis(250)),
                    Some(_) => {
                        self.phase = Phase::BackUp(problem);
                        Next::After(Duration::from_secs(5))
                    }
                }
            }
            Phase::BackUp(problem) => ended(Err(Failure::from(problem))),
        }
    }

    fn examine(&mut self, world: &mut World, id: u32) -> Next {
        let Some(program) = self.program() else {
            self.phase = Phase::Fetching;
            let takes = if matches!(self.assignment.action, Action::Prefetch { .. }) { 8 } else { 3 };
            return Next::After(Duration::from_secs(takes));
        };
        let started = world.machine(id).is_some_and(|machine| unit_state(machine, &self.unit("act")).is_some());
        if started {
            // The agent was restarted meanwhile: its result is read back.
            self.phase = Phase::Unit;
            return Next::After(Duration::ZERO);
        }
        if self.is_reached(world, id, &program) {
            return ended(Ok(StepOutcome::AlreadyDone));
        }
        self.phase = Phase::Permit;
        Next::Permit("swap")
    }

    fn fetched(&mut self, world: &mut World, id: u32) -> Next {
        let outcome = match &self.assignment.action {
            Action::Prefetch { files, images, .. } => {
                if world.machine(id).is_some_and(|machine| machine.faults.disk_full) {
                    let problem = Problem::new(Code::DiskFull)
                        .with("path", "/var/lib/shiplock")
                        .with("subject", &self.assignment.node);
                    return ended(Err(Failure::from(problem)));
                }
                if world.machine(id).is_some_and(|machine| machine.faults.pulls_fail) {
                    let problem = Problem::new(Code::DownloadFailed).with("node", &self.assignment.node);
                    return ended(Err(Failure::retryable(problem)));
                }
                let text = |text: &String| Text::from(text.as_str());
                let images: Vec<Text> = images.iter().map(|image| text(&image.reference)).collect();
                let files: Vec<Text> = files.iter().map(|file| text(&file.sha256)).collect();
                world.stage(id, images, files);
                StepOutcome::Done
            }
            Action::BackupEtcd { .. } => StepOutcome::BackedUp {
                backup: "b1".to_owned(),
                sha256: "d".repeat(64),
                revision: world.version(),
                keys: 100,
                size_bytes: 1 << 20,
            },
            Action::CollectLogs => StepOutcome::Logs { text: String::new() },
            other => {
                let problem =
                    Problem::new(Code::StepKindMissing).with("node", &self.assignment.node).with("kind", other.kind());
                return ended(Err(Failure::from(problem)));
            }
        };
        ended(Ok(outcome))
    }

    fn verify(&mut self, world: &mut World, id: u32) -> Next {
        let Some(program) = self.program() else { return ended(Ok(StepOutcome::Done)) };
        let machine = world.machine(id).cloned();
        let state = machine.as_ref().and_then(|machine| unit_state(machine, &self.unit("act")));
        let done = match program {
            Work::UploadConfiguration => state == Some(UnitState::Succeeded),
            _ => self.is_reached(world, id, &program),
        };
        if done {
            let outcome = match &self.assignment.action {
                Action::UpgradeControlPlane(upgrade) => StepOutcome::Swapped {
                    interrupted_milliseconds: 3_000,
                    components: upgrade.images.iter().map(|image| image.reference.clone()).collect(),
                    difference: String::new(),
                },
                _ => StepOutcome::Done,
            };
            return ended(Ok(outcome));
        }
        self.looks += 1;
        if self.looks < 30
            && state != Some(UnitState::Failed)
            && matches!(program, Work::Kubelet(_) | Work::Swap { .. } | Work::Runtime(_))
        {
            return Next::After(Duration::from_secs(1));
        }
        let problem = Problem::new(Code::ServiceNotUp)
            .with("service", self.assignment.action.kind())
            .with("node", &self.assignment.node);
        if matches!(program, Work::UploadConfiguration | Work::AddOns(_)) {
            return ended(Err(Failure::retryable(problem)));
        }
        self.phase = Phase::GoingBack(problem.clone());
        Next::RollingBack(problem)
    }
}

fn unit_state(machine: &crate::world::Machine, name: &str) -> Option<UnitState> {
    machine.units.iter().find(|unit| &*unit.name == name).map(|unit| unit.state)
}

fn images_of(upgrade: &ControlPlaneUpgrade) -> Vec<(ControlPlaneComponent, Text)> {
    let image = |component: &ControlPlaneComponent| {
        let found = upgrade.images.iter().find(|image| image.role == component.name())?;
        Some((*component, Text::from(found.reference.as_str())))
    };
    upgrade.components.iter().filter_map(image).collect()
}

/// The work that puts back what is there now.
fn before(world: &World, id: u32, program: &Work) -> Option<Work> {
    let machine = world.machine(id)?;
    Some(match program {
        Work::Runtime(_) => Work::Runtime(machine.runtime.disk.clone()),
        Work::Kubelet(_) => Work::Kubelet(machine.kubelet.disk.clone()),
        Work::Swap { images, kubelet } => Work::Swap {
            images: images
                .iter()
                .filter_map(|(component, _)| Some((*component, machine.static_pods.get(component)?.image.clone())))
                .collect(),
            kubelet: kubelet.as_ref().map(|_| machine.kubelet.disk.clone()),
        },
        Work::UploadConfiguration | Work::AddOns(_) => return None,
    })
}

/// How a report reads in a trace.
pub(super) fn word(kind: &ReportKind) -> &'static str {
    match kind {
        ReportKind::Progress { .. } => "progress",
        ReportKind::Succeeded { .. } => "succeeded",
        ReportKind::Failed { .. } => "failed",
    }
}
