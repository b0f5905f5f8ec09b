//! What a run goes through, as its report tells it.

use std::collections::BTreeMap;
use std::time::Duration;

use shiplock_core::check::Finding;
use shiplock_core::id::{NodeName, StepNumber};
use shiplock_core::problem::Problem;
use shiplock_core::upgrade::{Event, PauseReason, Upgrade, WaitingOn};

use crate::rehearsal::report::HeldUntil;
use crate::world::WorkloadId;

/// From when to when something went, since the begin of the upgrade. What waited for a person is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::rehearsal) struct Span {
    pub(in crate::rehearsal) begin: Duration,
    pub(in crate::rehearsal) end: Duration,
}

/// A pod that holds up a drain.
#[derive(Clone, Debug)]
pub(in crate::rehearsal) struct Held {
    pub(in crate::rehearsal) node: NodeName,
    pub(in crate::rehearsal) wait: WaitingOn,
    pub(in crate::rehearsal) began: Duration,
    pub(in crate::rehearsal) lasted: Duration,
    pub(in crate::rehearsal) until: HeldUntil,
}

/// A pod that finds no place.
#[derive(Clone, Debug)]
pub(in crate::rehearsal) struct Unplaced {
    pub(in crate::rehearsal) pod: String,
    pub(in crate::rehearsal) owner: Option<String>,
    pub(in crate::rehearsal) why: String,
    pub(in crate::rehearsal) since: Duration,
    /// None where it found none until the end.
    pub(in crate::rehearsal) until: Option<Duration>,
}

/// What a run went through.
#[derive(Debug, Default)]
pub(in crate::rehearsal) struct Trace {
    pub(in crate::rehearsal) stages: BTreeMap<usize, Span>,
    pub(in crate::rehearsal) batches: Vec<(usize, u32, Vec<NodeName>, Span)>,
    pub(in crate::rehearsal) steps: BTreeMap<StepNumber, Span>,
    pub(in crate::rehearsal) held: Vec<Held>,
    pub(in crate::rehearsal) unplaced: Vec<Unplaced>,
    pub(in crate::rehearsal) findings: Vec<Finding>,
    pub(in crate::rehearsal) pauses: Vec<(Duration, PauseReason)>,
    pub(in crate::rehearsal) skipped: BTreeMap<NodeName, Problem>,
    pub(in crate::rehearsal) readiness: Vec<(Duration, WorkloadId, u32)>,
    pub(in crate::rehearsal) total: Duration,
    /// Why it ended before everything was done.
    pub(in crate::rehearsal) ended_early: Option<Problem>,
}

impl Trace {
    /// Notes an event of the log.
    pub(in crate::rehearsal) fn note(&mut self, event: &Event, at: Duration) {
        let from_here = Span { begin: at, end: at };
        match event {
            Event::StageStarted { stage } => {
                self.stages.insert(*stage, from_here);
            }
            Event::StageFinished { stage } => {
                if let Some(span) = self.stages.get_mut(stage) {
                    span.end = at;
                }
            }
            Event::BatchStarted { stage, batch, nodes, .. } => {
                self.batches.push((*stage, *batch, nodes.clone(), from_here));
            }
            Event::BatchFinished { .. } => {
                if let Some((.., span)) = self.batches.last_mut() {
                    span.end = at;
                }
            }
            Event::StepStarted { step, .. } => {
                self.steps.entry(*step).or_insert(from_here);
            }
            Event::StepSucceeded { step, .. } | Event::StepFailed { step, .. } => {
                if let Some(span) = self.steps.get_mut(step) {
                    span.end = at;
                }
            }
            Event::NodeSkipped { node, problem } => {
                self.skipped.insert(node.clone(), problem.clone());
            }
            // What a person continues and meets again is one thing.
            Event::PauseRequested { reason, .. } if self.pauses.last().is_some_and(|(_, last)| last == reason) => {}
            Event::PauseRequested { reason, .. } => self.pauses.push((at, reason.clone())),
            _ => {}
        }
    }

    /// What is in work when the run ends early lasts until then.
    pub(in crate::rehearsal) fn break_off(&mut self, upgrade: &Upgrade) {
        let end = self.total;
        let stage = upgrade.current_stage().map(|(stage, _)| stage);
        if let Some(span) = stage.and_then(|stage| self.stages.get_mut(&stage)) {
            span.end = end;
        }
        if stage.is_some_and(|stage| upgrade.open_batch(stage).is_some())
            && let Some((.., span)) = self.batches.last_mut()
        {
            span.end = end;
        }
        for (step, ..) in upgrade.in_flight() {
            if let Some(span) = self.steps.get_mut(&step.number) {
                span.end = end;
            }
        }
    }
}
