//! How an upgrade comes to rest: what has started finishes or is given back, nothing new starts, and while it rests a person
//! is waited for.

use jiff::Timestamp;

use super::{AGENT_LIVE_SECONDS, Command, Decision, Outcome, View, Work, pause_for, record};
use crate::id::Actor;
use crate::plan::NodePlan;
use crate::planted::{self, Bug};
use crate::step::{Action, Executor, Step};

use super::super::event::{Event, PauseReason};
use super::super::state::{NodeProgress, State, StepStatus};
use super::super::waiting::{Waiting, WaitingOn};

impl View<'_> {
    /// What has started finishes; nothing new starts; then it is paused.
    pub(super) fn pause(&self) -> Decision {
        let mut work = Work::default();
        let mut lost = Vec::new();
        for (step, _, since) in self.upgrade.in_flight() {
            let silent = step.action.executor() == Executor::Agent
                && step.target.node().is_some_and(|node| self.silent(node, since).is_some());
            if silent {
                lost.push(step.number);
            }
        }
        for (step, _, since) in self.upgrade.in_flight().filter(|(step, ..)| !lost.contains(&step.number)) {
            self.wait_for(step, since, &mut work.waits);
        }
        for node in self.upgrade.plan.nodes() {
            let in_flight = node.steps.iter().any(|step| self.is_in_flight(step));
            let progress = self.upgrade.node_progress(node);
            let gives_back = progress == NodeProgress::Skipped && self.upgrade.holds_cordon(node);
            let starts = planted::is(Bug::PauseStartsNodes)
                && progress == NodeProgress::Waiting
                && self
                    .upgrade
                    .batches
                    .values()
                    .flatten()
                    .any(|batch| !batch.finished && batch.nodes.contains(&node.node));
            if !in_flight && (progress == NodeProgress::InWork || gives_back || self.may_retry(node) || starts) {
                self.node(node, &mut work);
            } else if let Some(step) = self.evidence_wanted(node) {
                let attempts = self.upgrade.steps.get(&step.number).map_or(0, |progress| progress.attempts);
                work.commands.push(Command::Run { step: step.number, attempt: attempts + 1 });
            }
        }
        if let Some((index, stage)) = self.upgrade.current_stage()
            && let Some(open) = self.upgrade.open_batch(index)
            && open
                .nodes
                .iter()
                .filter_map(|node| stage.node(node))
                .all(|node| matches!(self.upgrade.node_progress(node), NodeProgress::Done | NodeProgress::Abandoned))
            && work.commands.is_empty()
        {
            return record(Event::BatchFinished { stage: index, batch: open.ordinal });
        }
        // Of several failures the first stays the reason, but a wish to pause hides none.
        if let State::Pausing { because: PauseReason::Operator | PauseReason::PausePolicy, .. } = &self.upgrade.state
            && let Some(reason) = work.failed.take().or_else(|| self.failed_for_good())
        {
            work.commands.push(Command::Record(Event::PauseRequested { reason, by: Actor::from("shiplock") }));
        }
        if !work.commands.is_empty() {
            return Decision::Issue(work.commands);
        }
        if work.waits.is_empty() { record(Event::Paused) } else { self.wait(work.waits) }
    }

    /// The first step that failed and is not tried again.
    pub(super) fn failed_for_good(&self) -> Option<PauseReason> {
        let failed =
            |node: &&NodePlan| self.upgrade.node_progress(node) == NodeProgress::Failed && !self.may_retry(node);
        let mut steps = self.upgrade.plan.nodes().filter(failed).flat_map(|node| &node.steps);
        steps.find_map(|step| match self.upgrade.steps.get(&step.number) {
            // What a person continued after is known to them.
            Some(progress) if progress.attempts_since_continue > 0 => match &progress.status {
                StepStatus::Failed { problem, .. } => {
                    Some(PauseReason::StepFailed { step: step.number, problem: problem.clone() })
                }
                _ => None,
            },
            _ => None,
        })
    }

    /// The step that collects the logs of a node, where a step on it failed for good after they were last collected.
    /// It is tried once: an upgrade never waits long for evidence, and never for an agent that is silent.
    pub(super) fn evidence_wanted<'node>(&self, node: &'node NodePlan) -> Option<&'node Step> {
        let evidence = node.evidence.as_ref()?;
        if self.upgrade.node_progress(node) != NodeProgress::Failed || self.may_retry(node) {
            return None;
        }
        let on_the_node = |step: &&Step| {
            step.action.executor() == Executor::Agent || matches!(step.action, Action::VerifyNode { .. })
        };
        let failed_at =
            node.steps.iter().filter(on_the_node).find_map(|step| match self.upgrade.step_status(step) {
                Some(StepStatus::Failed { at, .. }) => Some(*at),
                _ => None,
            })?;
        let is_due = match self.upgrade.step_status(evidence) {
            None => true,
            Some(StepStatus::InFlight { .. }) => false,
            Some(StepStatus::Succeeded { at, .. } | StepStatus::Failed { at, .. } | StepStatus::Undone { at }) => {
                *at < failed_at
            }
        };
        let agent = self.facts.agents.get(&node.node)?;
        (is_due && !self.older_than(agent.last_heard_at, AGENT_LIVE_SECONDS)).then_some(evidence)
    }

    /// Whether the failed step of a started node has attempts left.
    pub(super) fn may_retry(&self, node: &NodePlan) -> bool {
        self.upgrade.is_started(node)
            && node.steps.iter().any(|step| {
                let attempts =
                    self.upgrade.steps.get(&step.number).map_or(0, |progress| progress.attempts_since_continue);
                let Some(StepStatus::Failed { retryable: true, problem, .. }) = self.upgrade.step_status(step) else {
                    return false;
                };
                attempts > 0 && attempts < self.policy.attempts_max(problem)
            })
    }

    pub(super) fn paused(&self, because: &PauseReason, since: Timestamp, expires_at: Timestamp) -> Decision {
        if self.now >= expires_at {
            let confirm = self.policy.expiry_confirm_seconds;
            match self.upgrade.expiry_noticed_at {
                None => return record(Event::ExpiryNoticed),
                Some(noticed)
                    if self.older_than(noticed, confirm) && self.facts.uptime_seconds >= u64::from(confirm) =>
                {
                    return record(Event::ExpiryBegan);
                }
                Some(_) => {}
            }
        }
        let is_over = match because {
            PauseReason::ContactLost { node, .. } => {
                self.facts.agents.get(node).is_some_and(|agent| agent.last_heard_at > since)
            }
            _ => false,
        };
        let what = Waiting::Continue { reason: because.clone(), is_over };
        self.wait(vec![WaitingOn::new(what, since).until(expires_at)])
    }

    /// Cancel and expiry: started nodes that did not fail finish, failed ones are given back, the others stay.
    pub(super) fn give_back(&self, outcome: Outcome) -> Decision {
        let mut work = Work::default();
        for node in self.upgrade.plan.nodes() {
            match self.upgrade.node_progress(node) {
                NodeProgress::Waiting | NodeProgress::Done => {}
                NodeProgress::InWork => match node.steps.iter().find(|step| self.is_in_flight(step)) {
                    Some(step) => _ = self.advance(step, &mut work),
                    None if !self.is_another_machine(node) && !self.is_taken_from_us(node) => {
                        self.node(node, &mut work);
                    }
                    // Another machine is not finished, and neither is one that somebody uncordons time and again: what
                    // is ours on the planned one is given back.
                    None if self.upgrade.holds_cordon(node) => self.advance_give_back(node, &mut work),
                    None => {}
                },
                NodeProgress::Failed | NodeProgress::Skipped | NodeProgress::Abandoned => {
                    if self.upgrade.holds_cordon(node) && !planted::is(Bug::CancelKeepsCordons) {
                        self.advance_give_back(node, &mut work);
                    }
                }
            }
        }
        for stage in &self.upgrade.plan.stages {
            for step in stage.steps.iter().filter(|step| self.is_in_flight(step) && !self.is_left_out(step)) {
                self.advance(step, &mut work);
            }
        }
        if !work.commands.is_empty() {
            return Decision::Issue(work.commands);
        }
        if let Some(reason) = work.failed.filter(|_| outcome == Outcome::Cancelled) {
            return pause_for(reason);
        }
        if let Some(reason) = self.lost_contact().filter(|_| outcome == Outcome::Cancelled) {
            return pause_for(reason);
        }
        if work.waits.is_empty() { Decision::Finish(outcome) } else { self.wait(work.waits) }
    }

    /// The last step of a node, which takes our cordon off, out of turn.
    pub(super) fn advance_give_back(&self, node: &NodePlan, work: &mut Work) {
        if let Some(step) = node.steps.iter().rfind(|step| step.action == Action::Uncordon) {
            self.advance(step, work);
        }
    }
}
