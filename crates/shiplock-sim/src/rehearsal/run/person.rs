//! What stands in for people: what waits for them is told, takes no time, and is then as if it had been seen to.

use std::time::Duration;

use shiplock_core::id::{Actor, StepNumber};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::{Action, OnDrainTimeout};
use shiplock_core::upgrade::{Event, PauseReason, Waiting};
use shiplock_server::driver::machine::Input;

use super::Run;
use crate::rehearsal::report::HeldUntil;
use crate::rehearsal::work::Work;
use crate::world::{Keep, Moment, Share, WorkloadId};

/// Who continues what pauses.
pub(super) const PERSON: &str = "rehearsal";
/// Nothing is continued more often than this.
const PAUSES_MAX: usize = 10_000;
/// Nor is the read-back of add-ons without one more pod being as it shall be: then it does not come true by waiting.
const ADD_ON_FAILURES_MAX: u32 = 8;

impl Run {
    /// When the time of the first step in work is over; none where that is past, as after force.
    fn first_deadline(&self) -> Option<Moment> {
        self.work.values().map(Work::deadline).min().filter(|deadline| *deadline > self.world.now())
    }

    /// Everything in work waits for pods.
    pub(super) fn is_held(&self) -> bool {
        !self.work.is_empty() && self.work.values().all(Work::is_held_by_pods)
    }

    /// The same, and nothing will happen by itself before their time is over.
    pub(super) fn is_stuck(&self) -> bool {
        let Some(first) = self.first_deadline() else { return false };
        self.is_held() && self.world.next_at().is_none_or(|next| next > first)
    }

    /// Lets the time run out in which nothing will happen. Where the plan says what is done then, it is time that the
    /// upgrade takes; else it would pause, and a person is waited for since the last change of any pod.
    pub(super) fn run_out(&mut self) {
        let Some(deadline) = self.first_deadline() else { return };
        match self.plan().options.on_drain_timeout {
            OnDrainTimeout::Pause => {
                let since = self.quiet.map_or_else(|| self.world.now(), |(_, since)| since);
                self.jump(since, deadline);
            }
            OnDrainTimeout::Skip | OnDrainTimeout::Force => self.world.advance(deadline),
        }
        for work in self.work.values_mut() {
            work.look_at = deadline;
        }
    }

    /// Between two moments, in which no pod changes, people were waited for.
    pub(super) fn jump(&mut self, since: Moment, until: Moment) {
        self.world.advance(until);
        let now = self.world.now();
        self.blocked += now.since(since);
        self.jumps.push((now, self.blocked));
        // What waits on, as another drain of the batch, is not counted again.
        if let Some((_, since)) = &mut self.quiet {
            *since = now;
        }
    }

    /// A pause is what a person would have to end. The rehearsal does what is least, tells it, and goes on.
    pub(super) fn go_on(&mut self, because: &PauseReason) -> Result<(), Problem> {
        self.pauses += 1;
        if self.pauses > PAUSES_MAX {
            return Err(Problem::new(Code::Internal).with("what", "the rehearsal pauses again and again"));
        }
        match because {
            PauseReason::Operator | PauseReason::PausePolicy => {}
            PauseReason::StepFailed { step, problem } => {
                let found = self.plan().step(*step).map(|step| (step.action.clone(), step.timeout_seconds));
                match found {
                    Some((Action::Drain { .. }, _)) => self.see_to_what_holds(*step),
                    // Large clusters take longer than a step may; where there is no room, or nothing will happen in all the
                    // attempts that are left, waiting does not help.
                    Some((Action::VerifyAddons { .. }, seconds)) => {
                        let progress = self.world.addon_progress();
                        if progress > self.add_on_progress {
                            (self.add_on_progress, self.add_ons_failed) = (progress, 0);
                        }
                        let left = ADD_ON_FAILURES_MAX.saturating_sub(self.add_ons_failed);
                        self.add_ons_failed += 1;
                        let until = self.world.now() + Duration::from_secs(seconds.into()) * left;
                        let is_still = self.world.next_at().is_none_or(|next| next > until);
                        if (!self.give_up_unplaced() && is_still) || left == 0 {
                            return Err(problem.clone());
                        }
                    }
                    _ => return Err(problem.clone()),
                }
            }
            PauseReason::Gate { problem } => {
                if !self.give_up_unplaced() {
                    return Err(problem.clone());
                }
            }
            PauseReason::Window
            | PauseReason::ContactLost { .. }
            | PauseReason::Interference { .. }
            | PauseReason::InvariantBroken { .. } => {
                let problem = because.problem().cloned();
                return Err(problem.unwrap_or_else(|| Problem::new(Code::Internal).with("what", "paused")));
            }
        }
        let continued = self.records(vec![Event::Continued { by: Actor::from(PERSON) }]);
        self.inputs.push_back(Input::Grown(continued));
        Ok(())
    }

    /// What holds a node is seen to, as the remedy that the report names has it.
    fn see_to_what_holds(&mut self, step: StepNumber) {
        let Some(node) = self.plan().step(step).and_then(|step| step.target.node().cloned()) else { return };
        let held = self.trace.held.iter().filter(|held| held.until == HeldUntil::PersonActs && held.node == node);
        for what in held.map(|held| held.wait.what.clone()).collect::<Vec<_>>() {
            match what {
                Waiting::PodDisruptionBudget { budgets, .. } => match &budgets[..] {
                    [budget] => self.loosen(budget),
                    // No pod of several budgets is ever evicted: one is kept.
                    several => several.iter().skip(1).for_each(|budget| self.delete_budget(budget)),
                },
                Waiting::PodTermination { pod, .. } => {
                    if let Some(pod) = named(&pod, |namespace, name| self.world.pods().id(namespace, name)) {
                        self.world.remove_pod(pod);
                    }
                }
                _ => {}
            }
        }
    }

    /// A budget allows one disruption more than now: that is the least that helps, and goes on to help where the pod comes
    /// to a node that is yet to be drained.
    fn loosen(&mut self, budget: &str) {
        if let Some(budget) = named(budget, |namespace, name| self.world.budgets().id(namespace, name)) {
            self.world.change_budget(budget, |budget| {
                budget.keep = Keep::MinAvailable(Share::Count(budget.healthy.saturating_sub(1)));
                budget.always_allow_unhealthy = true;
            });
        }
    }

    fn delete_budget(&mut self, budget: &str) {
        if let Some(budget) = named(budget, |namespace, name| self.world.budgets().id(namespace, name)) {
            self.world.delete_budget(budget);
        }
    }

    /// Pods that find no place are not waited for any more: their workloads want as many fewer. False where there are
    /// none.
    fn give_up_unplaced(&mut self) -> bool {
        let stuck: Vec<(u32, WorkloadId)> =
            self.world.unbound().filter_map(|id| Some((id, self.world.pods().get(id)?.owner?))).collect();
        for (pod, owner) in &stuck {
            let top = self.world.workload(*owner).and_then(|workload| workload.owner).unwrap_or(*owner);
            self.world.change_workload(top, |workload| workload.replicas = workload.replicas.saturating_sub(1));
            self.world.remove_pod(*pod);
        }
        !stuck.is_empty()
    }
}

/// Finds what is named `namespace/name`.
fn named(label: &str, find: impl FnOnce(&str, &str) -> Option<u32>) -> Option<u32> {
    let (namespace, name) = label.split_once('/')?;
    find(namespace, name)
}
