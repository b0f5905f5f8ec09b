//! Whether a started node still takes no new pods: asked before each further step that wants it so.
//!
//! Our cordon and our mark are written and taken off together. So a node that carries the mark of our newest cordon and
//! is schedulable was uncordoned by somebody else: no cache can be too old to show that. Where there is no such mark
//! (the cordon was somebody else's, or the mark was taken off too), only what is still seen well after the cordon counts.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::{Command, View, Work, later};
use crate::facts::{NodeFacts, NodeOwner};
use crate::id::NodeName;
use crate::plan::NodePlan;
use crate::planted::{self, Bug};
use crate::problem::{Code, Problem};
use crate::step::{Action, Step};

use super::super::event::{Event, PauseReason, StepOutcome};
use super::super::state::{StepProgress, StepStatus};
use super::super::waiting::{Waiting, WaitingOn};

/// What caches are given out for current facts show what was written so many seconds ago: they are broken for at most
/// fifteen.
const SHOWN_AFTER_SECONDS: u32 = 30;

/// Whether a node is still cordoned, as far as is known.
enum Kept {
    /// It is, or nothing was seen that tells otherwise and the next step can find out itself.
    Yes,
    /// It was not seen since it was cordoned.
    Unseen,
    /// Somebody else uncordoned it.
    TakenOff,
}

impl View<'_> {
    /// Keeps a node from a step that must not begin on it while it takes new pods: true where that step is not begun
    /// now. A cordon that somebody took off is put on again, as far as it is ours and that is not a fight without an end.
    pub(super) fn keeps_from(&self, node: &NodePlan, step: &Step, work: &mut Work) -> bool {
        let Some((cordon, progress, seen, at)) = self.cordoned(node).filter(|_| step.action.wants_cordon()) else {
            return false;
        };
        match self.kept(node, step, progress, seen, at) {
            Kept::Yes => false,
            Kept::Unseen => {
                let problem = Problem::new(Code::ClusterNotRead).with("cluster", &self.upgrade.plan.cluster);
                let wait = WaitingOn::new(Waiting::Gate { problem: problem.with("since", at) }, at);
                work.waits.push(wait.until(later(at, SHOWN_AFTER_SECONDS)));
                true
            }
            Kept::TakenOff => {
                let problem = Problem::new(Code::Uncordoned).with("node", &node.node);
                if self.may_cordon_again(progress) {
                    work.commands.push(Command::Record(Event::InterferenceNoticed { problem }));
                    work.commands.push(Command::Run { step: cordon.number, attempt: progress.attempts + 1 });
                } else {
                    work.failed.get_or_insert(PauseReason::Interference { problem });
                }
                true
            }
        }
    }

    /// Tells of nodes that were not begun with whether they carry our cordon: the log that told of it was lost with the
    /// store. Of thousands of nodes few carry it, so those are looked for once.
    pub(super) fn forgotten_cordons(&self) -> impl Fn(&NodePlan) -> bool {
        let is_ours = |seen: &NodeFacts| {
            seen.unschedulable && seen.owner.as_ref().is_some_and(|owner| owner.upgrade == self.upgrade.id)
        };
        let seen = self.cluster().into_iter().flat_map(|cluster| &cluster.nodes);
        let ours: BTreeSet<&NodeName> = seen.filter(|(_, seen)| is_ours(seen)).map(|(name, _)| name).collect();
        move |node| ours.contains(&node.node) && !self.upgrade.is_started(node)
    }

    /// Whether a node in work was uncordoned by somebody and is not cordoned again without a person.
    pub(super) fn is_taken_from_us(&self, node: &NodePlan) -> bool {
        let Some((_, progress, seen, at)) = self.cordoned(node) else { return false };
        let next = node.steps.iter().find(|step| !self.upgrade.has_succeeded(step));
        next.is_some_and(|step| {
            step.action.wants_cordon()
                && !self.may_cordon_again(progress)
                && matches!(self.kept(node, step, progress, seen, at), Kept::TakenOff)
        })
    }

    /// The cordon of a node, the node as it is seen, and when it was cordoned.
    fn cordoned<'a>(&'a self, node: &'a NodePlan) -> Option<(&'a Step, &'a StepProgress, &'a NodeFacts, Timestamp)> {
        if planted::is(Bug::UncordonNotNoticed) {
            return None;
        }
        let (cordon, progress) = self.upgrade.cordon_of(node)?;
        let StepStatus::Succeeded { at, .. } = &progress.status else { return None };
        // Without the cluster a pool's node waits anyway; a master goes on, since its own step may keep the API away.
        let seen = self.cluster().ok()?.nodes.get(&node.node)?;
        Some((cordon, progress, seen, *at))
    }

    fn kept(&self, node: &NodePlan, step: &Step, progress: &StepProgress, seen: &NodeFacts, at: Timestamp) -> Kept {
        if self.was_found_uncordoned(node) {
            return Kept::TakenOff;
        }
        if seen.unschedulable {
            return Kept::Yes;
        }
        let mark = seen.owner.as_ref().filter(|owner| owner.upgrade == self.upgrade.id);
        // An older mark with the same number may be of a log that a restored store has lost.
        let of_newest = |owner: &NodeOwner| owner.attempt == progress.attempts && owner.epoch == self.upgrade.epoch;
        let is_newest = mark.is_some_and(of_newest);
        if is_newest || self.older_than(at, SHOWN_AFTER_SECONDS) {
            return Kept::TakenOff;
        }
        // A drain looks at the node itself before it ends.
        if matches!(step.action, Action::Drain { .. }) { Kept::Yes } else { Kept::Unseen }
    }

    /// Whether a step found that the node takes new pods, and it was not cordoned again since.
    fn was_found_uncordoned(&self, node: &NodePlan) -> bool {
        let found = |step: &Step| self.upgrade.step_status(step).is_some_and(StepStatus::is_uncordoned);
        node.steps.iter().any(found)
    }

    /// A cordon that is ours is put on again a bounded number of times; any other is a person's matter first.
    fn may_cordon_again(&self, progress: &StepProgress) -> bool {
        let is_ours =
            !matches!(progress.status, StepStatus::Succeeded { outcome: StepOutcome::Cordoned { ours: false }, .. });
        let tries = progress.attempts_since_continue;
        tries == 0 || (is_ours && tries < self.policy.step_attempts_max)
    }
}
