//! What to do next: a pure function of the upgrade, the facts, the policy and the time.
//!
//! It never acts and remembers nothing. Whatever it wants is a [`Command`]; whatever it cannot do yet is a
//! [`WaitingOn`] that says why. What could not be read lets nothing through.

mod cordon;
mod gate;
mod identity;
mod rest;
mod soak;
mod start;

use jiff::{SignedDuration, Timestamp};

use crate::check::{self, CheckReport, check_plan};
use crate::facts::{ClusterFacts, Facts, Observed};
use crate::id::{Actor, NodeName, StepNumber};
use crate::plan::{NodePlan, PausePolicy, Stage, StageKind};
use crate::planted::{self, Bug};
use crate::problem::{Code, Problem};
use crate::step::{Action, Executor, Step};

use self::gate::Hold;
use super::event::{Event, PauseReason, StepOutcome};
use super::state::{NodeProgress, State, StepStatus, Upgrade};
use super::waiting::{Waiting, WaitingOn};

/// Bounds that hold for every upgrade of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How many nodes fetch artefacts at once.
    pub prefetch_parallel_max: usize,
    /// How often a step is tried before the upgrade pauses.
    pub step_attempts_max: u32,
    /// How often it is tried where all that fails is the way to the API server, which comes back by itself: a master
    /// that is swapped, a balancer that moves on.
    pub unreachable_attempts_max: u32,
    /// The wait before the second attempt; it doubles with each further one.
    pub retry_backoff_seconds: u32,
    /// The longest wait before an attempt.
    pub retry_backoff_max_seconds: u32,
    /// After this time a passed pre-check must be repeated before the start.
    pub check_valid_seconds: u32,
    /// How long this server must be up before an expiry is believed.
    pub expiry_confirm_seconds: u32,
    /// When to look again if nothing wakes the driver before.
    pub poll_seconds: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            prefetch_parallel_max: 10,
            step_attempts_max: 3,
            unreachable_attempts_max: 12,
            retry_backoff_seconds: 5,
            retry_backoff_max_seconds: 60,
            check_valid_seconds: 60 * 60,
            expiry_confirm_seconds: 10 * 60,
            poll_seconds: 5,
        }
    }
}

impl Policy {
    /// How often a step is tried that failed with this.
    fn attempts_max(&self, problem: &Problem) -> u32 {
        match problem.code {
            Code::ClusterUnreachable => self.unreachable_attempts_max,
            _ => self.step_attempts_max,
        }
    }

    /// The wait after this many attempts.
    fn backoff_seconds(&self, attempts: u32) -> i64 {
        let doublings = attempts.saturating_sub(1).min(10);
        (i64::from(self.retry_backoff_seconds) << doublings).min(i64::from(self.retry_backoff_max_seconds))
    }
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Do these, in order, then decide again.
    Issue(Vec<Command>),
    /// Nothing can be done: why, and when to look again at the latest.
    Wait {
        /// At least one reason.
        on: Vec<WaitingOn>,
        /// When to look again.
        wake_at: Timestamp,
    },
    /// The upgrade ends.
    Finish(Outcome),
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Append an event that has no act.
    Record(Event),
    /// Append the intent of a step's next attempt, then have it done.
    Run {
        /// The step.
        step: StepNumber,
        /// The attempt.
        attempt: u32,
    },
}

/// How an upgrade ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is at the target, read back.
    Succeeded,
    /// A person cancelled it.
    Cancelled,
    /// Nobody continued it in time.
    Expired,
}

impl Outcome {
    /// The event that records it.
    pub fn event(self) -> Event {
        match self {
            Self::Succeeded => Event::Succeeded,
            Self::Cancelled => Event::Cancelled,
            Self::Expired => Event::Expired,
        }
    }
}

/// Decides what to do next.
pub fn decide(upgrade: &Upgrade, facts: &Facts, policy: &Policy, now: Timestamp) -> Decision {
    let view = View { upgrade, facts, policy, now };
    match &upgrade.state {
        State::Planned => record(Event::CheckStarted),
        State::Checking => view.check(),
        State::Blocked => {
            let findings = || upgrade.report.iter().flat_map(CheckReport::blocking);
            let acceptable = findings().filter(|finding| check::is_acceptable(&finding.check)).count();
            let waiting = Waiting::Findings { blocking: findings().count(), acceptable };
            view.wait(vec![WaitingOn::new(waiting, upgrade.updated_at)])
        }
        State::Ready { checked_at } if view.older_than(*checked_at, policy.check_valid_seconds) => {
            record(Event::CheckStarted)
        }
        State::Ready { .. } if view.would_block() => record(Event::CheckStarted),
        State::Ready { .. } => record(Event::Started),
        State::Running => view.run(),
        State::Pausing { .. } => view.pause(),
        State::Paused { because, since, expires_at } => view.paused(because, *since, *expires_at),
        State::Cancelling => view.give_back(Outcome::Cancelled),
        State::Expiring => view.give_back(Outcome::Expired),
        State::Cancelled => Decision::Finish(Outcome::Cancelled),
        State::Expired => Decision::Finish(Outcome::Expired),
        State::Succeeded => Decision::Finish(Outcome::Succeeded),
    }
}

fn record(event: Event) -> Decision {
    Decision::Issue(vec![Command::Record(event)])
}

fn pause_for(reason: PauseReason) -> Decision {
    record(Event::PauseRequested { reason, by: Actor::from("shiplock") })
}

fn later(time: Timestamp, seconds: impl Into<i64>) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds.into())).unwrap_or(Timestamp::MAX)
}

struct View<'a> {
    upgrade: &'a Upgrade,
    facts: &'a Facts,
    policy: &'a Policy,
    now: Timestamp,
}

/// What can be done for a set of steps, gathered before it is weighed.
#[derive(Default)]
struct Work {
    commands: Vec<Command>,
    waits: Vec<WaitingOn>,
    /// A step that failed for good.
    failed: Option<PauseReason>,
}

impl View<'_> {
    fn older_than(&self, time: Timestamp, seconds: u32) -> bool {
        self.now >= later(time, seconds)
    }

    fn wait(&self, on: Vec<WaitingOn>) -> Decision {
        let latest = later(self.now, self.policy.poll_seconds);
        let wake_at = on
            .iter()
            .flat_map(|wait| wait.deadline.into_iter().chain(wait.retry.map(|retry| retry.next_at)))
            .filter(|time| *time > self.now)
            .fold(latest, Timestamp::min);
        Decision::Wait { on, wake_at }
    }

    /// The cluster, where it was read since a person last continued the upgrade: older facts do not show the remedy.
    fn cluster(&self) -> Result<&ClusterFacts, Box<WaitingOn>> {
        match &self.facts.cluster {
            Observed::Known(cluster) => match self.upgrade.continued_at.filter(|at| cluster.observed_at < *at) {
                None => Ok(cluster),
                Some(continued_at) => {
                    let problem = self.not_read_since(continued_at);
                    Err(Box::new(WaitingOn::new(Waiting::ClusterFacts { problem }, continued_at)))
                }
            },
            Observed::Unknown { problem, since } => {
                Err(Box::new(WaitingOn::new(Waiting::ClusterFacts { problem: problem.clone() }, *since)))
            }
        }
    }

    /// That the cluster was not read since a time.
    fn not_read_since(&self, time: Timestamp) -> Problem {
        Problem::new(Code::ClusterNotRead).with("cluster", &self.upgrade.plan.cluster).with("since", time)
    }

    fn check(&self) -> Decision {
        match self.cluster() {
            Ok(cluster) => {
                let Some(found) = &self.facts.precheck else {
                    return self.wait(vec![WaitingOn::new(Waiting::Checks, self.upgrade.updated_at)]);
                };
                let mut report = check_plan(&self.upgrade.plan, cluster, &self.facts.agents, self.now);
                report.join(found.iter().cloned());
                record(Event::CheckFinished { report })
            }
            Err(wait) => self.wait(vec![*wait]),
        }
    }

    /// Whether what a plan is checked against has changed since, so that it must not start as it is.
    fn would_block(&self) -> bool {
        let Observed::Known(cluster) = &self.facts.cluster else { return false };
        let mut report = check_plan(&self.upgrade.plan, cluster, &self.facts.agents, self.now);
        let accepted = self.upgrade.report.iter().flat_map(|report| &report.findings);
        report.join(accepted.filter(|finding| finding.accepted).cloned());
        report.blocking().next().is_some()
    }

    fn run(&self) -> Decision {
        let Some((index, stage)) = self.upgrade.current_stage() else {
            return Decision::Finish(Outcome::Succeeded);
        };
        if !self.upgrade.stages_started.contains(&index) {
            return match self.gate_before_stage() {
                Ok(()) => record(Event::StageStarted { stage: index }),
                Err(held) => self.held(held),
            };
        }
        if let StageKind::Soak { seconds, emulates } = stage.kind {
            return self.soak(index, seconds, emulates);
        }
        if let Some(reason) = self.lost_contact() {
            return pause_for(reason);
        }
        let mut work = Work::default();
        let steps_done = self.stage_steps(stage, &mut work);
        if steps_done && work.failed.is_none() {
            let finished = match self.upgrade.open_batch(index) {
                Some(open) => self.batch(index, open.ordinal, &open.nodes, &mut work),
                None => self.next_batch(index, stage, &mut work),
            };
            if finished && work.commands.is_empty() && work.waits.is_empty() && work.failed.is_none() {
                return record(Event::StageFinished { stage: index });
            }
        }
        self.conclude(work)
    }

    fn conclude(&self, work: Work) -> Decision {
        match work {
            Work { failed: Some(reason), .. } => pause_for(reason),
            Work { commands, .. } if !commands.is_empty() => Decision::Issue(commands),
            Work { waits, .. } => self.wait(waits),
        }
    }

    /// The stage's own steps; true when all succeeded.
    fn stage_steps(&self, stage: &Stage, work: &mut Work) -> bool {
        let own: Vec<&Step> =
            self.upgrade.in_flight().map(|(step, ..)| step).filter(|step| is_own(stage, step)).collect();
        let mut in_flight = own.len();
        // Those in flight that the loop did not come to yet: they are waited for, however many others may not begin.
        let mut ahead = own.len();
        // Fetching works the disk that an etcd member writes to: where one member may get slow, the others carry the
        // cluster; where two do, its writes wait.
        let mut master_at_work = own.iter().any(|step| self.is_on_master(step));
        let mut all_done = true;
        for step in self.upgrade.own_steps_left(stage) {
            let is_in_flight = self.is_in_flight(step);
            ahead = ahead.saturating_sub(usize::from(is_in_flight));
            if self.is_left_out(step) {
                continue;
            }
            all_done = false;
            if !is_in_flight && in_flight >= self.policy.prefetch_parallel_max {
                if ahead == 0 {
                    break;
                }
                continue;
            }
            let on_master = self.is_on_master(step);
            if !is_in_flight && on_master && master_at_work {
                continue;
            }
            if self.advance(step, work) {
                in_flight += 1;
                master_at_work |= on_master;
            }
        }
        all_done
    }

    fn is_on_master(&self, step: &Step) -> bool {
        let of_masters = |stage: &&Stage| stage.kind == StageKind::ControlPlane;
        let mut masters = self.upgrade.plan.stages.iter().filter(of_masters);
        step.target.node().is_some_and(|name| masters.any(|stage| stage.node(name).is_some()))
    }

    fn is_left_out(&self, step: &Step) -> bool {
        step.target
            .node()
            .is_some_and(|node| self.upgrade.skipped.contains_key(node) || self.upgrade.abandoned.contains(node))
    }

    fn is_in_flight(&self, step: &Step) -> bool {
        matches!(self.upgrade.step_status(step), Some(StepStatus::InFlight { .. }))
    }

    /// Begins a step, waits for it or names its failure. True when it was begun now.
    fn advance(&self, step: &Step, work: &mut Work) -> bool {
        let Some(progress) = self.upgrade.steps.get(&step.number) else {
            work.commands.push(Command::Run { step: step.number, attempt: 1 });
            return true;
        };
        match &progress.status {
            StepStatus::Succeeded { .. } => {}
            StepStatus::Undone { .. } => {
                work.commands.push(Command::Run { step: step.number, attempt: progress.attempts + 1 });
                return true;
            }
            // Where something is to be done nothing is waited for.
            StepStatus::InFlight { .. } if !work.commands.is_empty() => {}
            StepStatus::InFlight { since, .. } => self.wait_for(step, *since, &mut work.waits),
            StepStatus::Failed { at, problem, retryable } => {
                let attempt = progress.attempts + 1;
                if progress.attempts_since_continue == 0 {
                    // A person continued: the failure was handled, so the step is tried again at once.
                    work.commands.push(Command::Run { step: step.number, attempt });
                    return true;
                }
                if !*retryable || progress.attempts_since_continue >= self.policy.attempts_max(problem) {
                    work.failed.get_or_insert(PauseReason::StepFailed { step: step.number, problem: problem.clone() });
                    return false;
                }
                let next_at = later(*at, self.policy.backoff_seconds(progress.attempts_since_continue));
                if self.now >= next_at {
                    work.commands.push(Command::Run { step: step.number, attempt });
                    return true;
                }
                let subject = subject(step);
                let what = Waiting::StepRetry { step: step.number, subject, problem: problem.clone() };
                work.waits.push(WaitingOn::new(what, *at).retrying(progress.attempts, next_at));
            }
        }
        false
    }

    /// What a step in work waits for.
    fn wait_for(&self, step: &Step, since: Timestamp, waits: &mut Vec<WaitingOn>) {
        waits.extend(self.contact_wait(step, since));
        if let Some(told) = self.facts.progress.get(&step.number).filter(|told| !told.is_empty()) {
            waits.extend(told.iter().cloned());
            return;
        }
        let kind = step.action.kind().to_owned();
        let what = Waiting::Step { step: step.number, kind, subject: subject(step), phase: None };
        waits.push(WaitingOn::new(what, since).until(later(since, step.timeout_seconds)));
    }

    /// That the agent of a step in work is silent: what the step says of itself is as old as that.
    fn contact_wait(&self, step: &Step, since: Timestamp) -> Option<WaitingOn> {
        let node = step.target.node().filter(|_| step.action.executor() == Executor::Agent)?;
        let silent_since = self.silent_since(node, since);
        let deadline = later(silent_since, self.upgrade.plan.options.contact_timeout_seconds);
        let wait = || WaitingOn::new(Waiting::AgentContact { node: node.clone() }, silent_since).until(deadline);
        self.older_than(silent_since, AGENT_LIVE_SECONDS).then(wait)
    }

    /// An agent step in flight whose agent is silent for too long: never failed, but a person must look.
    fn lost_contact(&self) -> Option<PauseReason> {
        self.upgrade
            .in_flight()
            .filter(|(step, ..)| step.action.executor() == Executor::Agent && !self.is_left_out(step))
            .find_map(|(step, _, since)| self.silent(step.target.node()?, since))
    }

    /// Whether the agent of a node is silent for longer than the plan allows, counted from `needed_since` at the earliest.
    fn silent(&self, node: &NodeName, needed_since: Timestamp) -> Option<PauseReason> {
        let silent_since = self.silent_since(node, needed_since);
        self.older_than(silent_since, self.upgrade.plan.options.contact_timeout_seconds).then(|| {
            let last_heard_at = self.facts.agents.get(node).map(|agent| agent.last_heard_at);
            let problem = Problem::new(Code::ContactLost)
                .with("node", node)
                .with("since", last_heard_at.unwrap_or(needed_since))
                .with("upgrade", &self.upgrade.id);
            PauseReason::ContactLost { node: node.clone(), problem }
        })
    }

    /// From when the silence of a node's agent counts.
    fn silent_since(&self, node: &NodeName, needed_since: Timestamp) -> Timestamp {
        let last_heard_at = self.facts.agents.get(node).map(|agent| agent.last_heard_at);
        // A person who continues has just seen to the agent; it gets its time to be heard of.
        let counted_from = self.upgrade.continued_at.map_or(needed_since, |continued| continued.max(needed_since));
        last_heard_at.map_or(counted_from, |heard| heard.max(counted_from))
    }

    /// Works on the open batch; true when it ended (and that was recorded).
    fn batch(&self, index: usize, ordinal: u32, nodes: &[NodeName], work: &mut Work) -> bool {
        let stage = &self.upgrade.plan.stages[index];
        let unfinished = |node: &&NodePlan| {
            !matches!(
                self.upgrade.node_progress(node),
                NodeProgress::Done | NodeProgress::Abandoned | NodeProgress::Skipped
            ) || (self.upgrade.skipped.contains_key(&node.node)
                && self.upgrade.holds_cordon(node)
                && !planted::is(Bug::CordonLeftBehind))
        };
        let unfinished: Vec<&NodePlan> = nodes.iter().filter_map(|node| stage.node(node)).filter(unfinished).collect();
        // After a continue the nodes that failed go first, one by one, before anything else of the cut batch. A
        // node that is in flight is looked after all the same.
        let first = unfinished.iter().find(|node| self.upgrade.retry_first.contains(&node.node));
        for node in &unfinished {
            let in_flight = || node.steps.iter().any(|step| self.is_in_flight(step));
            if first.is_none_or(|first| first.node == node.node) || in_flight() {
                self.node(node, work);
            }
        }
        if !unfinished.is_empty() {
            return false;
        }
        work.commands.push(Command::Record(Event::BatchFinished { stage: index, batch: ordinal }));
        // The policy speaks of batches of node pools; masters go one by one as it is.
        let pools = self.upgrade.batches.iter().filter(|(stage, _)| self.upgrade.is_pool(**stage));
        let batches: usize = pools.map(|(_, batches)| batches.len()).sum();
        let pause = match self.upgrade.plan.options.pause_policy {
            PausePolicy::Never => false,
            PausePolicy::AfterFirstBatch => self.upgrade.is_pool(index) && batches == 1,
            PausePolicy::AfterEveryBatch => self.upgrade.is_pool(index),
        };
        if pause && self.upgrade.state == State::Running && self.anything_left(index) {
            let by = Actor::from("shiplock");
            work.commands.push(Command::Record(Event::PauseRequested { reason: PauseReason::PausePolicy, by }));
        }
        true
    }

    /// Whether any node of this or a later stage was not taken yet.
    fn anything_left(&self, index: usize) -> bool {
        let stages = self.upgrade.plan.stages.iter().enumerate().skip(index);
        stages.flat_map(|(_, stage)| &stage.nodes).any(|node| self.upgrade.node_progress(node) == NodeProgress::Waiting)
    }

    /// The next step of a node of the open batch.
    fn node(&self, node: &NodePlan, work: &mut Work) {
        if self.upgrade.skipped.contains_key(&node.node) {
            self.advance_give_back(node, work);
            return;
        }
        let Some(step) = node.steps.iter().find(|step| !self.upgrade.has_succeeded(step)) else { return };
        if let Some(skip) = self.skipped_by_drain(node) {
            work.commands.push(Command::Record(Event::NodeSkipped { node: node.node.clone(), problem: skip }));
            return;
        }
        let may_act = match self.upgrade.is_started(node) {
            false => self.may_start(node),
            // What is in flight is waited for, whatever became of the node.
            true if self.is_in_flight(step) => Ok(()),
            true => self.may_go_on(node),
        };
        match may_act {
            Ok(()) => {}
            Err(Hold::Wait(wait)) => return work.waits.push(*wait),
            Err(Hold::Pause(reason)) => {
                work.failed.get_or_insert(*reason);
                return;
            }
            Err(Hold::Skip(problem)) => {
                return work
                    .commands
                    .push(Command::Record(Event::NodeSkipped { node: node.node.clone(), problem: *problem }));
            }
        }
        if !self.is_in_flight(step) && self.keeps_from(node, step, work) {
            return;
        }
        self.advance(step, work);
    }

    /// A drain that ended with "skip and return" leaves the node out.
    fn skipped_by_drain(&self, node: &NodePlan) -> Option<Problem> {
        node.steps.iter().find_map(|step| {
            let Action::Drain { timeout_seconds, .. } = &step.action else { return None };
            let Some(StepStatus::Succeeded { outcome: StepOutcome::DrainSkipped { blockers }, .. }) =
                self.upgrade.step_status(step)
            else {
                return None;
            };
            let problem = Problem::new(Code::DrainTimedOut).with("node", &node.node);
            Some(problem.with("limit", format!("{timeout_seconds} s")).with("blockers", blockers.join(", ")))
        })
    }

    /// Opens the next batch of a pool; true when the pool has no node left.
    fn next_batch(&self, index: usize, stage: &Stage, work: &mut Work) -> bool {
        let (ordinal, size_limit) = self.upgrade.next_batch(index, stage);
        let waits = |node: &&NodePlan| self.upgrade.node_progress(node) == NodeProgress::Waiting;
        if !self.upgrade.nodes_left(stage).any(|node| waits(&node)) {
            return true;
        }
        // The gate is asked time and again; who is next matters once it holds.
        if ordinal > 1
            && let Err(held) = self.gate_before_batch()
        {
            match held {
                Hold::Wait(wait) => work.waits.push(*wait),
                Hold::Pause(reason) => work.failed = Some(*reason),
                Hold::Skip(_) => {}
            }
            return false;
        }
        // Those that were begun with in a log that a restored store has lost keep nobody waiting.
        let forgotten = self.forgotten_cordons();
        let first = self.upgrade.nodes_left(stage).filter(|node| forgotten(node)).filter(waits);
        let then = self.upgrade.nodes_left(stage).filter(waits).filter(|node| !forgotten(node));
        let nodes = first.chain(then).take(size_limit as usize).map(|node| node.node.clone()).collect();
        work.commands.push(Command::Record(Event::BatchStarted { stage: index, batch: ordinal, size_limit, nodes }));
        false
    }
}

/// An agent polls every few seconds; one that was silent for longer is not begun with.
const AGENT_LIVE_SECONDS: u32 = 30;

/// Whether a step is one of the stage itself.
fn is_own(stage: &Stage, step: &Step) -> bool {
    stage.place_of_own_step(step.number).is_some()
}

fn subject(step: &Step) -> String {
    step.target.node().map_or_else(|| "cluster".to_owned(), |node| ["node ", node.as_str()].concat())
}
