//! The driver of one upgrade as a machine without I/O: `on(input, now)` gives the outputs.
//!
//! It holds the fold of the log and advances it by each appended event. At most one append is outstanding; what
//! comes in meanwhile waits in order. What is in flight is derived from the log: after a crash the new machine finds
//! intents without outcomes and has them examined again, under its own, higher epoch.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use shiplock_api::agent::{Assignment, AssignmentId, PermitResponse, ReportKind, ReportResponse};
use shiplock_core::facts::{ClusterFacts, Facts, Observed};
use shiplock_core::id::{Actor, Epoch, Generation, NodeName, StepNumber};
use shiplock_core::planted::{self, Bug};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::{Executor, Step};
use shiplock_core::upgrade::{
    Command, Decision, Event, EventRecord, IllegalEvent, PauseReason, Policy, State, StepOutcome, StepStatus, Upgrade,
    Waiting, WaitingOn, decide,
};

use super::read_back::joined_again;

/// How a step of the server ended: the outcome, or the problem and whether trying again may help.
pub type StepResult = Result<StepOutcome, (Problem, bool)>;

/// Names a question whose answer the shell holds.
pub type Ticket = u64;

/// What goes into the machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// Facts were gathered.
    Facts(Box<Facts>),
    /// The append that was asked for is on disk.
    Appended(Vec<EventRecord>),
    /// The append lost against another one: here is what the log holds beyond the fold.
    Overtaken(Vec<EventRecord>),
    /// The log may have grown by requests of people: here is what it holds beyond the fold.
    Grown(Vec<EventRecord>),
    /// The store failed; the append may be asked for again.
    AppendFailed,
    /// A step of the server ended.
    StepEnded {
        /// The step.
        step: StepNumber,
        /// The attempt.
        attempt: u32,
        /// How.
        result: StepResult,
    },
    /// An agent asks for a permit.
    Permit {
        /// Which attempt.
        id: AssignmentId,
        /// Whether the lease holds long enough for the agent to begin.
        lease_holds: bool,
        /// Where the answer goes.
        ticket: Ticket,
    },
    /// An agent reports.
    Report {
        /// Which attempt.
        id: AssignmentId,
        /// Its node.
        node: NodeName,
        /// How it goes.
        kind: ReportKind,
        /// Where the answer goes.
        ticket: Ticket,
    },
    /// Whether the cluster accepts us: none, or why not. While it does not, nothing is done.
    Claim(Option<Problem>),
    /// Time has passed.
    Tick,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Append these at this length, then feed [`Input::Appended`], [`Input::Overtaken`] or [`Input::AppendFailed`].
    Append {
        /// The length of the log that they were decided on.
        expected_len: u64,
        /// The events.
        events: Vec<Event>,
    },
    /// Do a step of the server: examine, act, verify.
    RunStep {
        /// The step.
        step: Box<Step>,
        /// The attempt.
        attempt: u32,
        /// When its intent was recorded.
        since: Timestamp,
    },
    /// Offer a step to an agent.
    Offer(Box<Assignment>),
    /// Take the offer back.
    Withdraw(NodeName),
    /// Answer a permit.
    AnswerPermit(Ticket, PermitResponse),
    /// Answer a report; none lets the agent repeat it.
    AnswerReport(Ticket, Option<ReportResponse>),
    /// Show why nothing moves.
    Waits(Vec<WaitingOn>),
    /// Feed [`Input::Tick`] at this time at the latest.
    WakeAt(Timestamp),
    /// The upgrade ended, or its log cannot be folded: stop driving it.
    Stop(Option<IllegalEvent>),
}

/// What is waited for shorter than this is not told in the feed.
const NOTICED_AFTER_SECONDS: i64 = 3;

/// The machine.
#[derive(Clone, Debug)]
pub struct Machine {
    upgrade: Upgrade,
    epoch: Epoch,
    policy: Policy,
    facts: Option<Facts>,
    claim: Option<Option<Problem>>,
    /// Since when it is as it is: the code of the problem, or none.
    claim_since: Timestamp,
    /// The append that is outstanding, with the outcome that it records, if it records one.
    appending: Option<Option<Input>>,
    queue: VecDeque<Input>,
    /// Steps that this process has begun or offered, by attempt.
    dispatched: BTreeMap<StepNumber, u32>,
    phases: BTreeMap<StepNumber, String>,
    noticed: BTreeSet<String>,
    stopped: bool,
}

impl Machine {
    /// A machine for a folded log whose newest lease is ours.
    pub fn new(upgrade: Upgrade, policy: Policy) -> Self {
        Self {
            epoch: upgrade.epoch,
            claim_since: upgrade.updated_at,
            upgrade,
            policy,
            facts: None,
            claim: None,
            appending: None,
            queue: VecDeque::new(),
            dispatched: BTreeMap::new(),
            phases: BTreeMap::new(),
            noticed: BTreeSet::new(),
            stopped: false,
        }
    }

    /// The fold.
    pub fn upgrade(&self) -> &Upgrade {
        &self.upgrade
    }

    /// The facts that were fed last, for whoever brings them up to date in place: of thousands of nodes few change.
    pub fn facts_mut(&mut self) -> Option<&mut Facts> {
        self.facts.as_mut()
    }

    /// Whether facts cannot tell how the newest batch left the cluster, or what a person did before the upgrade was last
    /// continued. What is decided next waits for newer ones, and a cluster in which nothing changes any more would not give
    /// any by itself.
    pub fn wants_newer(&self, facts: &ClusterFacts) -> bool {
        let told = self.upgrade.batch_finished_at.max(self.upgrade.continued_at);
        told.is_some_and(|told_at| facts.observed_at < told_at)
    }

    /// Takes one input and gives what is to be done, in order.
    pub fn on(&mut self, input: Input, now: Timestamp) -> Vec<Output> {
        let mut outputs = Vec::new();
        self.take(input, now, &mut outputs);
        while self.appending.is_none() && !self.stopped {
            let Some(next) = self.queue.pop_front() else {
                self.proceed(now, &mut outputs);
                break;
            };
            self.take(next, now, &mut outputs);
        }
        outputs
    }

    fn take(&mut self, input: Input, now: Timestamp, outputs: &mut Vec<Output>) {
        match input {
            Input::Facts(facts) => self.facts = Some(*facts),
            Input::Claim(claim) => {
                let code = |claim: &Option<Problem>| claim.as_ref().map(|problem| problem.code);
                if self.claim.as_ref().map(code) != Some(code(&claim)) {
                    self.claim_since = now;
                }
                self.claim = Some(claim);
            }
            Input::Tick => {}
            Input::Appended(records) => {
                let origin = self.appending.take().flatten();
                self.fold(&records, outputs);
                if let Some(Input::Report { ticket, .. }) = origin {
                    outputs.push(Output::AnswerReport(ticket, Some(ReportResponse::Taken)));
                }
            }
            Input::Overtaken(records) => {
                // Whatever was decided was decided on an older log: it is dropped, and decided again.
                self.drop_append();
                self.fold(&records, outputs);
            }
            Input::AppendFailed if planted::is(Bug::OutcomeForgotten) => self.appending = None,
            Input::AppendFailed => self.drop_append(),
            Input::Permit { id, lease_holds, ticket } => {
                let permit = self.permit(&id, lease_holds);
                if let PermitResponse::Refused { problem } = &permit
                    && matches!(problem.code, Code::WrongMachine | Code::Uncordoned)
                    && let Some(attempt) = self.attempt_of(&id)
                {
                    // Who asks for a permit is between two acts, and without it forgets the attempt: so it ends here.
                    let result = Err((problem.clone(), problem.code == Code::Uncordoned));
                    self.queue.push_back(Input::StepEnded { step: id.step, attempt, result });
                }
                outputs.push(Output::AnswerPermit(ticket, permit));
            }
            Input::Report { kind: ReportKind::Progress { phase }, id, ticket, .. } => {
                if self.attempt_of(&id).is_some() {
                    self.phases.insert(id.step, phase);
                }
                outputs.push(Output::AnswerReport(ticket, Some(ReportResponse::Taken)));
            }
            // All that appends waits its turn.
            input if self.appending.is_some() => self.queue.push_back(input),
            Input::Grown(records) => self.fold(&records, outputs),
            Input::StepEnded { step, attempt, result } => self.step_ended(step, attempt, result, outputs),
            Input::Report { id, node, kind, ticket } => self.report(&id, &node, kind, ticket, now, outputs),
        }
    }

    fn append(&mut self, events: Vec<Event>, origin: Option<Input>, outputs: &mut Vec<Output>) {
        self.appending = Some(origin);
        outputs.push(Output::Append { expected_len: self.upgrade.len, events });
    }

    /// An outcome must not be lost with the append that was to record it: it is looked at again, first.
    fn drop_append(&mut self) {
        if let Some(origin) = self.appending.take().flatten() {
            self.queue.push_front(origin);
        }
    }

    fn fold(&mut self, records: &[EventRecord], outputs: &mut Vec<Output>) {
        let known = self.upgrade.len;
        for record in records.iter().filter(|record| record.number > known) {
            if let Err(illegal) = self.upgrade.advance(record) {
                self.stopped = true;
                outputs.push(Output::Stop(Some(illegal)));
                return;
            }
        }
    }

    fn permit(&self, id: &AssignmentId, lease_holds: bool) -> PermitResponse {
        let refused =
            |why: String| PermitResponse::Refused { problem: Problem::new(Code::PermitRefused).with("why", why) };
        if !lease_holds {
            return refused("the server's lease is about to end".to_owned());
        }
        if self.attempt_of(id).is_none() || id.generation.epoch != self.epoch {
            return refused(format!("generation {} is not the one in force", id.generation));
        }
        if !self.acts() {
            return refused(format!("the upgrade is {}", self.upgrade.state.word()));
        }
        match self.another_machine(id.step).or_else(|| self.takes_new_pods(id.step)) {
            Some(problem) => PermitResponse::Refused { problem },
            None => PermitResponse::Granted,
        }
    }

    /// Why the node of a step is not the machine that was planned any more, as far as the newest facts tell.
    fn another_machine(&self, step: StepNumber) -> Option<Problem> {
        let node = self.upgrade.plan.step(step)?.target.node()?;
        let planned = self.upgrade.plan.node(node)?;
        let Observed::Known(cluster) = &self.facts.as_ref()?.cluster else { return None };
        let seen = cluster.nodes.get(node).filter(|_| !planted::is(Bug::UidNotCompared))?;
        (seen.uid != planned.uid).then(|| joined_again(planned, &seen.uid))
    }

    /// That the node of a step takes new pods, as far as the newest facts tell, though the plan cordons it for the step.
    fn takes_new_pods(&self, step: StepNumber) -> Option<Problem> {
        let node = self.upgrade.plan.node_of_step(step)?;
        let wants = self.upgrade.plan.step(step)?.action.wants_cordon() && self.upgrade.cordon_of(node).is_some();
        let Observed::Known(cluster) = &self.facts.as_ref()?.cluster else { return None };
        let seen = cluster.nodes.get(&node.node).filter(|_| wants && !planted::is(Bug::UncordonNotNoticed))?;
        (!seen.unschedulable).then(|| Problem::new(Code::Uncordoned).with("node", &node.node))
    }

    /// Whether steps may act in the present state.
    fn acts(&self) -> bool {
        matches!(self.claim, Some(None))
            && matches!(
                self.upgrade.state,
                State::Running | State::Pausing { .. } | State::Cancelling | State::Expiring
            )
    }

    /// The attempt that an assignment names, if it is in flight. The intent identifies it under any epoch.
    fn attempt_of(&self, id: &AssignmentId) -> Option<u32> {
        let progress = self.upgrade.steps.get(&id.step).filter(|_| id.upgrade == self.upgrade.id)?;
        matches!(progress.status, StepStatus::InFlight { intent, .. } if intent == id.generation.intent)
            .then_some(progress.attempts)
    }

    fn step_ended(&mut self, step: StepNumber, attempt: u32, result: StepResult, outputs: &mut Vec<Output>) {
        let current = self.upgrade.steps.get(&step);
        let in_flight = current.is_some_and(|progress| {
            progress.attempts == attempt && matches!(progress.status, StepStatus::InFlight { .. })
        });
        if in_flight {
            let origin = Input::StepEnded { step, attempt, result: result.clone() };
            let event = match result {
                Ok(outcome) => Event::StepSucceeded { step, attempt, outcome },
                Err((problem, retryable)) => Event::StepFailed { step, attempt, problem, retryable },
            };
            self.append(vec![event], Some(origin), outputs);
        }
    }

    fn report(
        &mut self,
        id: &AssignmentId,
        node: &NodeName,
        kind: ReportKind,
        ticket: Ticket,
        now: Timestamp,
        outputs: &mut Vec<Output>,
    ) {
        if id.generation.epoch > self.epoch {
            // Whoever took over knows what became of the attempt: this log ends before it.
            outputs.push(Output::AnswerReport(ticket, None));
            return;
        }
        let step = self.upgrade.plan.step(id.step).filter(|step| step.target.node() == Some(node));
        let attempt = self.attempt_of(id).filter(|_| step.is_some());
        let step = id.step;
        // Most reports are wanted; one of an attempt that is not in flight was recorded before or is stale.
        let (Some(attempt), false) = (attempt, self.upgrade.abandoned.contains(node)) else {
            outputs.push(Output::AnswerReport(ticket, Some(ReportResponse::NotWanted)));
            return;
        };
        let origin = Input::Report { id: id.clone(), node: node.clone(), kind: kind.clone(), ticket };
        let event = match kind {
            ReportKind::Progress { .. } => return,
            ReportKind::Succeeded { outcome, machine } => {
                if let Some(agent) = self.facts.as_mut().and_then(|facts| facts.agents.get_mut(node)) {
                    agent.machine = machine.into();
                    agent.last_heard_at = now;
                }
                Event::StepSucceeded { step, attempt, outcome }
            }
            ReportKind::Failed { problem, retryable } => Event::StepFailed { step, attempt, problem, retryable },
        };
        self.forget_phase(step);
        self.append(vec![event], Some(origin), outputs);
    }

    /// The planted bug: steps are begun, and their intents are stored after that.
    fn run_early(&self, commands: &[Command], now: Timestamp, outputs: &mut Vec<Output>) {
        for command in commands {
            let Command::Run { step, attempt } = command else { continue };
            let step = self.upgrade.plan.step(*step).filter(|step| step.action.executor() == Executor::Server);
            if let Some(step) = step {
                outputs.push(Output::RunStep { step: Box::new(step.clone()), attempt: *attempt, since: now });
            }
        }
    }

    fn forget_phase(&mut self, step: StepNumber) {
        if self.phases.remove(&step).is_some()
            && let Some(facts) = &mut self.facts
        {
            facts.progress.remove(&step);
        }
    }

    /// Decides before the cluster has said whether it accepts us: what is waited for is told, nothing is begun. What
    /// would be begun waits for the cluster too.
    fn look(&self, now: Timestamp, outputs: &mut Vec<Output>) {
        let Some(facts) = &self.facts else { return };
        match (decide(&self.upgrade, facts, &self.policy, now), &facts.cluster) {
            (Decision::Wait { on, .. }, _) => outputs.push(Output::Waits(on)),
            (Decision::Issue(_) | Decision::Finish(_), Observed::Unknown { problem, since }) => {
                let wait = WaitingOn::new(Waiting::ClusterFacts { problem: problem.clone() }, *since);
                outputs.push(Output::Waits(vec![wait]));
            }
            // The answer is on its way.
            (Decision::Issue(_) | Decision::Finish(_), Observed::Known(_)) => {}
        }
    }

    /// Has what is in flight worked on, then decides.
    fn proceed(&mut self, now: Timestamp, outputs: &mut Vec<Output>) {
        self.dispatch(outputs);
        if self.upgrade.state.is_terminal() {
            self.stopped = true;
            outputs.push(Output::Stop(None));
            return;
        }
        match &self.claim {
            None => return self.look(now, outputs),
            // It does not go on by itself, and everybody who looks must see that: what the cluster has seen is not here.
            Some(Some(problem))
                if problem.code == Code::StoreOlderThanCluster && self.upgrade.state == State::Running =>
            {
                let reason = PauseReason::InvariantBroken { problem: problem.clone() };
                let pause = Event::PauseRequested { reason, by: Actor::from("shiplock") };
                return self.append(vec![pause], None, outputs);
            }
            // Nothing was ever begun, so nothing is to be given back in a cluster that another installation upgrades.
            Some(Some(problem))
                if problem.code == Code::OtherInstallation
                    && self.upgrade.state == State::Cancelling
                    && self.upgrade.steps.is_empty() =>
            {
                return self.append(vec![Event::Cancelled], None, outputs);
            }
            Some(Some(problem)) => {
                let wait = WaitingOn::new(Waiting::Gate { problem: problem.clone() }, self.claim_since);
                // A store that may be older than the cluster is not written to for this: its log may be another's.
                let is_told = problem.code == Code::OtherInstallation;
                let fresh = if is_told { self.notice(std::slice::from_ref(&wait), now) } else { Vec::new() };
                outputs.push(Output::Waits(vec![wait]));
                if !fresh.is_empty() {
                    self.append(fresh, None, outputs);
                }
                return;
            }
            // The person has settled which store is the newest: what is asked of them now is another thing.
            Some(None) if matches!(&self.upgrade.state, State::Pausing { because, .. } if because.is_older_store()) => {
                let problem = Problem::new(Code::StoreSettled)
                    .with("upgrade", &self.upgrade.id)
                    .with("store_event", self.upgrade.len);
                let reason = PauseReason::InvariantBroken { problem };
                let pause = Event::PauseRequested { reason, by: Actor::from("shiplock") };
                return self.append(vec![pause], None, outputs);
            }
            Some(None) => {}
        }
        let Some(facts) = &mut self.facts else { return };
        for (step, phase) in &self.phases {
            if let (Some(planned), Some(progress)) = (self.upgrade.plan.step(*step), self.upgrade.steps.get(step))
                && let StepStatus::InFlight { since, .. } = &progress.status
            {
                let what = Waiting::Step {
                    step: *step,
                    kind: planned.action.kind().to_owned(),
                    subject: planned.target.node().map_or_else(String::new, |node| format!("node {node}")),
                    phase: Some(phase.clone()),
                };
                facts.progress.insert(*step, vec![WaitingOn::new(what, *since)]);
            }
        }
        match decide(&self.upgrade, facts, &self.policy, now) {
            Decision::Issue(commands) => {
                let event = |command: Command| match command {
                    Command::Record(event) => event,
                    Command::Run { step, attempt } => Event::StepStarted { step, attempt },
                };
                outputs.push(Output::Waits(Vec::new()));
                if planted::is(Bug::IntentAfterEffect) {
                    self.run_early(&commands, now, outputs);
                }
                self.append(commands.into_iter().map(event).collect(), None, outputs);
            }
            Decision::Wait { on, wake_at } => {
                let fresh = self.notice(&on, now);
                outputs.push(Output::WakeAt(wake_at));
                outputs.push(Output::Waits(on));
                if !fresh.is_empty() {
                    self.append(fresh, None, outputs);
                }
            }
            Decision::Finish(outcome) => self.append(vec![outcome.event()], None, outputs),
        }
    }

    /// What the feed is told of what is waited for, once for each thing. A step that is at work is no news, and neither is
    /// what passes within moments.
    fn notice(&mut self, on: &[WaitingOn], now: Timestamp) -> Vec<Event> {
        let worth = |wait: &&WaitingOn| {
            // An upgrade of another installation does not end within moments.
            let is_another = matches!(&wait.what, Waiting::Gate { problem } if problem.code == Code::OtherInstallation);
            let lasts = now.as_second() - wait.since.as_second() >= NOTICED_AFTER_SECONDS;
            (lasts || is_another)
                && !matches!(
                    wait.what,
                    Waiting::Step { .. }
                        | Waiting::StepRetry { .. }
                        | Waiting::NodeReadBack { .. }
                        | Waiting::BatchInterval
                        | Waiting::Checks
                        // The decision itself records these.
                        | Waiting::Soak { .. }
                        | Waiting::SoakUnwell { .. }
                        | Waiting::Continue { .. }
                        | Waiting::Findings { .. }
                )
        };
        let keys: BTreeSet<String> = on.iter().filter(worth).map(WaitingOn::key).collect();
        let fresh: Vec<Event> = on
            .iter()
            .filter(worth)
            .filter(|wait| !self.noticed.contains(&wait.key()))
            .map(|wait| Event::WaitingBegan { on: wait.clone() })
            .collect();
        self.noticed = keys;
        fresh
    }

    /// The machine that a node is: that of the plan, and for a node that only fetches, that which the cluster tells.
    fn machine_id(&self, node: &NodeName) -> Option<Arc<str>> {
        if let Some(planned) = self.upgrade.plan.node(node) {
            return Some(planned.machine_id.clone());
        }
        match &self.facts.as_ref()?.cluster {
            Observed::Known(cluster) => cluster.nodes.get(node).map(|node| node.machine_id.clone()),
            Observed::Unknown { .. } => None,
        }
    }

    /// Begins or offers every step that is in flight and that this process does not have in work; takes back offers
    /// of what is not in flight any more.
    fn dispatch(&mut self, outputs: &mut Vec<Output>) {
        let acts = self.acts();
        let abandoned = |step: &Step| step.target.node().is_some_and(|node| self.upgrade.abandoned.contains(node));
        let wanted: Vec<(&Step, u32, u64, Timestamp)> = self
            .upgrade
            .in_flight()
            .filter(|(step, ..)| acts && (step.action.executor() == Executor::Server || !abandoned(step)))
            .filter_map(|(step, intent, since)| {
                Some((step, self.upgrade.steps.get(&step.number)?.attempts, intent, since))
            })
            .collect();
        let gone: Vec<StepNumber> = self
            .dispatched
            .keys()
            .copied()
            .filter(|number| !wanted.iter().any(|(step, ..)| step.number == *number))
            .collect();
        let fresh = wanted.into_iter().filter(|(step, attempt, ..)| self.dispatched.get(&step.number) != Some(attempt));
        let fresh: Vec<(Step, u32, u64, Timestamp)> =
            fresh.map(|(step, attempt, intent, since)| (step.clone(), attempt, intent, since)).collect();
        for number in gone {
            let in_flight = self
                .upgrade
                .steps
                .get(&number)
                .is_some_and(|progress| matches!(progress.status, StepStatus::InFlight { .. }));
            let step = self.upgrade.plan.step(number);
            match step.map(|step| (step.action.executor(), step.target.node().cloned())) {
                Some((Executor::Agent, Some(node))) => outputs.push(Output::Withdraw(node)),
                // A step of the server goes on to its end, whatever is asked meanwhile.
                Some((Executor::Server, _)) if in_flight => continue,
                _ => {}
            }
            self.forget_phase(number);
            self.dispatched.remove(&number);
        }
        for (step, attempt, intent, since) in fresh {
            let offered = match (step.action.executor(), step.target.node()) {
                (Executor::Agent, Some(node)) => match self.machine_id(node) {
                    Some(machine_id) => Some((node.clone(), machine_id)),
                    // It is offered once the cluster has told which machine the node is.
                    None => continue,
                },
                _ => None,
            };
            self.dispatched.insert(step.number, attempt);
            match offered {
                Some((node, machine_id)) => outputs.push(Output::Offer(Box::new(Assignment {
                    id: AssignmentId {
                        upgrade: self.upgrade.id.clone(),
                        step: if planted::is(Bug::StepInvented) { StepNumber(9_000) } else { step.number },
                        generation: Generation { epoch: self.epoch, intent },
                    },
                    node,
                    machine_id: machine_id.to_string(),
                    timeout_seconds: step.timeout_seconds,
                    action: step.action,
                }))),
                None => outputs.push(Output::RunStep { step: Box::new(step), attempt, since }),
            }
        }
    }
}
