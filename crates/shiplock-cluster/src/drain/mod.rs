//! Emptying a node: every pod that is there at the begin is asked to go, and waited for.
//!
//! What to ask and what to wait for is decided by [`DrainMachine`]; here its wishes are carried out. Nothing is sent
//! while the caller may not act, and a PodDisruptionBudget is passed over only where the operator chose force.

mod machine;

use std::time::Duration;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use shiplock_core::id::{NodeName, ObjectUid};
use shiplock_core::problem::{Code, Problem};
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
/// `may_act` is asked right before each eviction; `progress` is told what is waited for. The error says whether a
/// further attempt may help without a person.
pub async fn drain(
    cluster: &dyn Cluster,
    node: &NodeName,
    timeout: Duration,
    on_timeout: OnDrainTimeout,
    may_act: &(dyn Fn() -> bool + Send + Sync),
    progress: &(dyn Fn(Vec<WaitingOn>) + Send + Sync),
) -> Result<StepOutcome, (Problem, bool)> {
    let begun = Instant::now();
    let mut machine = DrainMachine::new(node.clone(), Timestamp::now(), timeout, on_timeout);
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
        if !carry_out(cluster, &mut machine, acts, may_act, begun).await {
            return Err((Problem::new(Code::LeaseLost), false));
        }
        progress(machine.waits(begun.elapsed()));
        tokio::time::sleep(LOOK_AGAIN[0]).await;
        tokio::select! {
            () = cluster.changed() => {}
            () = tokio::time::sleep(LOOK_AGAIN[1]) => {}
        }
    }
}

/// Sends what the machine wants; false as soon as one of them may not be sent.
async fn carry_out(
    cluster: &dyn Cluster,
    machine: &mut DrainMachine,
    acts: Vec<Act>,
    may_act: &(dyn Fn() -> bool + Send + Sync),
    begun: Instant,
) -> bool {
    let answers: Vec<Option<(ObjectUid, Result<Eviction, Problem>)>> = stream::iter(acts)
        .map(|act| async move {
            if !may_act() {
                return None;
            }
            Some(match act {
                Act::Evict(pod) => (pod.uid.clone(), cluster.evict(&pod).await),
                Act::Delete(pod) => (pod.uid.clone(), cluster.delete_pod(&pod).await),
            })
        })
        .buffer_unordered(EVICTIONS_AT_ONCE)
        .collect()
        .await;
    let all_sent = answers.iter().all(Option::is_some);
    for (uid, answer) in answers.into_iter().flatten() {
        machine.answered(&uid, answer, begun.elapsed());
    }
    all_sent
}

#[cfg(test)]
mod tests;
