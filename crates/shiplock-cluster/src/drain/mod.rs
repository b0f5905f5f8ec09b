//! Emptying a node: every pod that is there at the begin is asked to go, and waited for.
//!
//! What to ask and what to wait for is decided by [`DrainMachine`]; here its wishes are carried out. Nothing is sent
//! while the caller may not act, and a PodDisruptionBudget is passed over only where the operator chose force.

mod machine;

use std::time::Duration;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use shiplock_core::id::{NodeName, ObjectUid};
use shiplock_core::problem::Problem;
use shiplock_core::step::OnDrainTimeout;
use shiplock_core::upgrade::{StepOutcome, WaitingOn};
use tokio::time::Instant;

pub use machine::{Act, DrainMachine};

use crate::port::{Cluster, Eviction};

/// Two looks are at most this far apart while something may change, in two halves: the first is always waited for,
/// the second is cut short by news from the cluster.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(120), Duration::from_millis(130)];
/// So many evictions are asked for at once.
const EVICTIONS_AT_ONCE: usize = 16;

/// Empties a node of the pods that are found there at the begin.
///
/// The time counts from `began_at`, when it was begun for the first time: one that goes on after a crash gets no new
/// time. `fence` is asked right before each eviction and says why none may be sent; `progress` is told what is waited
/// for. The error says whether a further attempt may help without a person.
pub async fn drain(
    cluster: &dyn Cluster,
    node: &NodeName,
    began_at: Timestamp,
    (timeout, on_timeout): (Duration, OnDrainTimeout),
    fence: &(dyn Fn() -> Result<(), Problem> + Send + Sync),
    progress: &(dyn Fn(Vec<WaitingOn>) + Send + Sync),
) -> Result<StepOutcome, (Problem, bool)> {
    let before = Duration::try_from(Timestamp::now().duration_since(began_at)).unwrap_or_default();
    let begun = Begun { here: Instant::now(), before };
    let mut machine = DrainMachine::new(node.clone(), began_at, timeout, on_timeout);
    loop {
        if machine.wants_look(begun.elapsed()) {
            match cluster.pods_on(node).await {
                Ok(pods) => machine.seen(pods, begun.elapsed()),
                Err(problem) => machine.not_seen(problem, begun.elapsed()),
            }
        }
        if let Some(verdict) = machine.verdict(begun.elapsed()) {
            return verdict;
        }
        let acts = machine.acts(begun.elapsed(), &|budget| cluster.budget_allows(budget));
        if let Err(problem) = carry_out(cluster, &mut machine, acts, fence, begun).await {
            return Err((problem, true));
        }
        progress(machine.waits(begun.elapsed()));
        tokio::time::sleep(LOOK_AGAIN[0]).await;
        tokio::select! {
            () = cluster.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN[1]) => {}
        }
    }
}

/// When a drain was begun: on the clock of this process, and how long before that for the first time.
#[derive(Clone, Copy)]
struct Begun {
    here: Instant,
    before: Duration,
}

impl Begun {
    fn elapsed(self) -> Duration {
        self.before + self.here.elapsed()
    }
}

/// How the eviction or deletion of a pod came out.
type Answer = (ObjectUid, Result<Eviction, Problem>);

/// Sends what the machine wants; an error as soon as one of them may not be sent.
async fn carry_out(
    cluster: &dyn Cluster,
    machine: &mut DrainMachine,
    acts: Vec<Act>,
    fence: &(dyn Fn() -> Result<(), Problem> + Send + Sync),
    begun: Begun,
) -> Result<(), Problem> {
    let answers: Vec<Result<Answer, Problem>> = stream::iter(acts)
        .map(|act| async move {
            fence()?;
            Ok(match act {
                Act::Evict(pod) => (pod.uid.clone(), cluster.evict(&pod).await),
                Act::Delete(pod) => (pod.uid.clone(), cluster.delete_pod(&pod).await),
            })
        })
        .buffer_unordered(EVICTIONS_AT_ONCE)
        .collect()
        .await;
    let mut held_back = Ok(());
    for sent in answers {
        match sent {
            Ok((uid, answer)) => machine.answered(&uid, answer, begun.elapsed()),
            Err(problem) => held_back = Err(problem),
        }
    }
    held_back
}

#[cfg(test)]
mod tests;
