//! The shell around a [`StepMachine`]: sends what it asks to the cluster, and lets it rest between looks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use shiplock_cluster::port::Cluster;
use shiplock_core::facts::MachineFacts;
use shiplock_core::id::{NodeName, StepNumber};
use shiplock_core::upgrade::WaitingOn;
use tokio::time::Instant;

use super::machine::StepResult;
use super::step::{Answer, Outside, Request, RequestNumber, SeenNode, StepInput, StepMachine, StepOutput, StepTime};

/// What the steps in work wait for.
#[derive(Debug, Default)]
pub(super) struct Progress {
    waits: Mutex<BTreeMap<StepNumber, Vec<WaitingOn>>>,
    changed: tokio::sync::Notify,
}

impl Progress {
    /// Sets what a step waits for; nothing when empty.
    pub(super) fn set(&self, step: StepNumber, waits: Vec<WaitingOn>) {
        let mut all = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if waits.is_empty() { all.remove(&step) } else { all.insert(step, waits.clone()) };
        let keys = |waits: &[WaitingOn]| waits.iter().map(WaitingOn::key).collect::<Vec<_>>();
        if keys(before.as_deref().unwrap_or_default()) != keys(&waits) {
            self.changed.notify_one();
        }
    }

    pub(super) fn all(&self) -> BTreeMap<StepNumber, Vec<WaitingOn>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns when something else is waited for.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// What a step reaches.
pub(super) struct StepShell<'a> {
    pub(super) cluster: &'a dyn Cluster,
    pub(super) agent: &'a (dyn Fn(&NodeName) -> Option<MachineFacts> + Send + Sync),
    /// Whether the lease still lets this process send a request.
    pub(super) may_act: &'a (dyn Fn() -> bool + Send + Sync),
    pub(super) progress: &'a (dyn Fn(Vec<WaitingOn>) + Send + Sync),
}

impl StepShell<'_> {
    /// Does a step to its end.
    pub(super) async fn run(&self, mut machine: StepMachine) -> StepResult {
        let begun = Instant::now();
        let mut inputs = vec![StepInput::Begin];
        loop {
            let mut asks = Vec::new();
            let mut rest = None;
            for input in inputs.drain(..) {
                for output in self.feed(&mut machine, input, begun) {
                    match output {
                        StepOutput::Ask(number, request) => asks.push((number, request)),
                        StepOutput::Waits(waits) => (self.progress)(waits),
                        StepOutput::Rest { at_least, at_most } => rest = Some((at_least, at_most)),
                        StepOutput::Ended(result) => {
                            (self.progress)(Vec::new());
                            return result;
                        }
                    }
                }
            }
            if !asks.is_empty() {
                // The machine bounds how much it asks at once.
                let count = asks.len();
                let answers: Vec<(RequestNumber, Answer)> = stream::iter(asks)
                    .map(|(number, request)| async move { (number, self.answer(request).await) })
                    .buffer_unordered(count)
                    .collect()
                    .await;
                inputs
                    .extend(answers.into_iter().map(|(number, answer)| StepInput::Answered(number, Box::new(answer))));
            } else if let Some((at_least, at_most)) = rest {
                let changed = tokio::time::timeout(at_most, self.cluster.changed());
                // In vain or not: the cluster is looked at again.
                let _ = tokio::join!(tokio::time::sleep(at_least), changed);
                inputs.push(StepInput::Rested);
            }
        }
    }

    fn feed(&self, machine: &mut StepMachine, input: StepInput, begun: Instant) -> Vec<StepOutput> {
        let budget_allows = |budget: &str| self.cluster.budget_allows(budget);
        let node = |node: &NodeName| self.cluster.seen_node(node).map(SeenNode::from);
        let outside = Outside { agent: self.agent, budget_allows: &budget_allows, node: &node };
        machine.on(input, StepTime { now: Timestamp::now(), elapsed: begun.elapsed() }, &outside)
    }

    async fn answer(&self, request: Request) -> Answer {
        if request.acts() && !(self.may_act)() {
            return Answer::HeldBack;
        }
        carry_out(self.cluster, request).await
    }
}

/// Asks a cluster what a step asks of it, once.
pub async fn carry_out(cluster: &dyn Cluster, request: Request) -> Answer {
    match request {
        Request::Facts => Answer::Facts(cluster.facts().await.map(Arc::new)),
        Request::Node(node) => Answer::Node(cluster.node(&node).await),
        Request::PodsOn(node) => {
            let pods = cluster.pods_on(&node).await;
            Answer::PodsOn(pods.map(|pods| pods.into_iter().map(Arc::new).collect()))
        }
        Request::Cordon { node, uid, owner } => Answer::Cordon(cluster.cordon(&node, &uid, &owner).await),
        Request::Uncordon { node, uid, owner } => Answer::Uncordon(cluster.uncordon(&node, &uid, &owner).await),
        Request::Evict(pod) => Answer::Eviction(cluster.evict(&pod).await),
        Request::Delete(pod) => Answer::Eviction(cluster.delete_pod(&pod).await),
    }
}
