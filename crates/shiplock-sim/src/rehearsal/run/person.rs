//! What stands in for people: what waits for them is told, takes no time, and is then as if it had been seen to.

use shiplock_core::id::{Actor, StepNumber};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::Action;
use shiplock_core::upgrade::{Event, PauseReason, Waiting};
use shiplock_server::driver::machine::Input;

use super::Run;
use crate::rehearsal::work::Work;
use crate::world::{Moment, WorkloadId};

/// Who continues what pauses.
pub(super) const PERSON: &str = "rehearsal";
/// Nothing is continued more often than this.
const PAUSES_MAX: usize = 10_000;
/// Nor is the read-back of add-ons, which then does not come true by waiting.
const ADD_ON_FAILURES_MAX: usize = 8;

impl Run {
    /// When the time of the first step in work is over; none where that is past, as after force.
    fn first_deadline(&self) -> Option<Moment> {
        self.work.values().map(Work::deadline).min().filter(|deadline| *deadline > self.world.now())
    }

    /// Everything in work waits for pods, and nothing will happen by itself before their time is over.
    pub(super) fn only_people_can_help(&self) -> bool {
        let Some(first) = self.first_deadline() else { return false };
        self.held_since.is_some() && self.world.next_at().is_none_or(|next| next > first)
    }

    pub(super) fn jump_over(&mut self) {
        let Some(deadline) = self.first_deadline() else { return };
        let since = self.held_since.take().unwrap_or_else(|| self.world.now());
        self.jump(since, deadline);
        for work in self.work.values_mut() {
            work.look_at = deadline;
        }
    }

    /// What was waited since a moment, and until another, was for people.
    pub(super) fn jump(&mut self, since: Moment, until: Moment) {
        self.world.advance(until);
        self.blocked += self.world.now().since(since);
        self.jumps.push((since, self.world.now()));
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
                let action = self.plan().step(*step).map(|step| step.action.clone());
                match action {
                    Some(Action::Drain { .. }) => self.take_away_what_holds(*step),
                    // Large clusters take longer than a step may; where there is no room, waiting does not help.
                    Some(Action::VerifyAddons { .. }) => {
                        self.give_up_unplaced();
                        self.add_ons_failed += 1;
                        if self.add_ons_failed > ADD_ON_FAILURES_MAX {
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

    /// The pods that hold a node are deleted, as their owners would have to see to it.
    fn take_away_what_holds(&mut self, step: StepNumber) {
        let Some(node) = self.plan().step(step).and_then(|step| step.target.node().cloned()) else { return };
        let held: Vec<String> = self
            .trace
            .held
            .iter()
            .filter(|held| held.is_for_ever && held.node == node)
            .filter_map(|held| match &held.wait.what {
                Waiting::PodDisruptionBudget { pod, .. } | Waiting::PodTermination { pod, .. } => Some(pod.clone()),
                _ => None,
            })
            .collect();
        for pod in held {
            if let Some((namespace, name)) = pod.split_once('/')
                && let Some(id) = self.world.pods().id(namespace, name)
            {
                self.world.remove_pod(id);
            }
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
