//! One execution of one accepted plan.
//!
//! [`Upgrade`] is the fold of its event log by [`Upgrade::apply`]; [`decide()`] says what to do next. The pattern:
//! load the log, fold it, gather facts, decide, append the intent, act, append the outcome. A crash at any point
//! loses nothing: an intent without an outcome is examined and then recorded or done again.

pub mod batch;
mod decide;
pub mod event;
mod state;
pub mod waiting;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::HashMap;

use crate::facts::{ClusterFacts, WorkloadFacts};
use crate::id::{ClusterName, NodeName, ObjectUid};
use crate::plan::Plan;
use crate::problem::{Code, Problem};
use crate::version::KubernetesVersion;

pub use self::decide::{Command, Decision, Outcome, Policy, decide};
pub use self::event::{Event, EventRecord, PauseReason, StepOutcome};
pub use self::state::{Batch, IllegalEvent, NodeProgress, SoakProgress, State, StepProgress, StepStatus, Upgrade};
pub use self::waiting::{Waiting, WaitingOn};

/// What a workload that [`worse_than_baseline`] names is told as.
pub fn fewer_ready_pods(workload: &str, cluster: &ClusterName, facts: &ClusterFacts) -> Problem {
    let problem = Problem::new(Code::FewerReadyPods).with("workload", workload).with("cluster", cluster);
    problem.with("pressure", facts.pressure())
}

/// Nodes that a plan does not touch, by name and UID, and whose kubelet is not seen at a version or newer: they joined since,
/// or were never in the plan.
pub fn older_outside_plan(plan: &Plan, kubelet: KubernetesVersion, facts: &ClusterFacts) -> Vec<NodeName> {
    let planned: HashMap<&NodeName, &ObjectUid> = plan.nodes().map(|node| (&node.node, &node.uid)).collect();
    let outside = facts.nodes.iter().filter(|(name, node)| planned.get(name) != Some(&&node.uid));
    let older = outside.filter(|(_, node)| node.kubelet().is_none_or(|found| found < kubelet));
    older.map(|(name, _)| name.clone()).collect()
}

/// Workloads that have fewer ready pods than before, as `Deployment shop/cart 1/2`. A workload that was scaled
/// down or deleted by its owner is not worse; one that was ill before is measured by what it had.
pub fn worse_than_baseline(baseline: &[WorkloadFacts], now: &[WorkloadFacts]) -> Vec<String> {
    fn name(of: &WorkloadFacts) -> (&str, &str, &str) {
        (&of.kind, &of.namespace, &of.name)
    }
    // Both are read in the same order: where one was neither added nor deleted it has its old place.
    let mut by_name = None;
    let mut worse = Vec::new();
    for (place, before) in baseline.iter().enumerate() {
        let found = now.get(place).filter(|after| after.is_of(before));
        let found = found.or_else(|| {
            let by_name =
                by_name.get_or_insert_with(|| now.iter().map(|after| (name(after), after)).collect::<HashMap<_, _>>());
            by_name.get(&name(before)).copied()
        });
        let Some(after) = found else { continue };
        let wanted = after.ready_wanted(before);
        if after.ready < wanted {
            worse.push(format!("{} {}/{wanted}", after.label(), after.ready));
        }
    }
    worse
}
