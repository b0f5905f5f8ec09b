//! Evictions and budgets, with the accounting of upstream.
//!
//! As in `pkg/registry/core/pod/storage/eviction.go` and `pkg/controller/disruption/disruption.go` of Kubernetes 1.36.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::moment::Moment;
use super::object::{Keep, Phase, Pod, Selector, Share, WorkloadId};
use super::table::Text;
use super::{Event, World};

/// How an eviction is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvictAnswer {
    /// 201: the pod was told to end.
    Accepted,
    /// 404.
    NotFound,
    /// 409: another pod has its name.
    WrongUid,
    /// 429 with cause `DisruptionBudget`: the budget, and what it needs.
    Refused {
        /// The budget.
        budget: Text,
        /// `status.desiredHealthy`.
        desired: u32,
        /// `status.currentHealthy`.
        healthy: u32,
    },
    /// 500: several budgets select it.
    SeveralBudgets,
}

/// How a deletion is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteAnswer {
    /// 200: the pod was told to end.
    Accepted,
    /// 404.
    NotFound,
    /// 409: another pod has its name.
    WrongUid,
}

/// After this time an eviction whose end was not seen does not count any more.
const DISRUPTED_SECONDS: i64 = 120;

impl World {
    /// The budgets that select a pod, by name.
    pub fn budgets_of(&self, pod: u32) -> &[u32] {
        self.budgets_of.get(&pod).map_or(&[], Vec::as_slice)
    }

    /// Looks for the budgets that select a pod.
    pub(super) fn find_budgets_of(&mut self, id: u32, pod: &Pod) {
        let selects = |selector: &Selector| selector.matches(&pod.meta.labels);
        let found: Vec<u32> = self
            .budgets
            .in_namespace(&pod.meta.namespace)
            .filter(|(_, budget)| budget.selector.as_ref().is_some_and(selects))
            .map(|(budget, _)| budget)
            .collect();
        if found.is_empty() {
            return;
        }
        for budget in &found {
            Arc::make_mut(self.pods_in.entry(*budget).or_default()).insert(id);
        }
        self.budgets_of.insert(id, found);
        self.budgets_due_for(id);
    }

    /// No budget selects the pod any more.
    pub(super) fn forget_budgets_of(&mut self, pod: u32) {
        for budget in self.budgets_of.remove(&pod).unwrap_or_default() {
            if let Some(pods) = self.pods_in.get_mut(&budget) {
                Arc::make_mut(pods).remove(&pod);
            }
            self.budget_due(budget);
        }
    }

    pub(super) fn budgets_due_for(&mut self, pod: u32) {
        let mut place = 0;
        while let Some(budget) = self.budgets_of(pod).get(place).copied() {
            self.budget_due(budget);
            place += 1;
        }
    }

    /// Asks for the eviction of a pod, with its UID as precondition where one is given.
    pub fn evict(&mut self, namespace: &str, name: &str, uid: Option<u128>) -> EvictAnswer {
        let Some(id) = self.pods.id(namespace, name) else { return EvictAnswer::NotFound };
        let Some(pod) = self.pods.get(id).cloned() else { return EvictAnswer::NotFound };
        if uid.is_some_and(|uid| uid != pod.meta.uid) {
            return EvictAnswer::WrongUid;
        }
        if pod.deletion.is_some() || pod.phase != Phase::Running {
            self.end_pod(id, None);
            return EvictAnswer::Accepted;
        }
        let budgets = self.budgets_of(id);
        if budgets.len() > 1 {
            return EvictAnswer::SeveralBudgets;
        }
        if let Some(budget) = budgets.first().copied()
            && let Some(held) = self.budgets.get(budget).cloned()
        {
            let enough = held.healthy >= held.desired_healthy && held.desired_healthy > 0;
            let free = !pod.ready && (held.always_allow_unhealthy || enough);
            if !free {
                // A status that is not of the newest spec allows nothing.
                if held.allowed == 0
                    || self.budgets_due.contains(&budget) && held.meta.generation > 1 && held.expected == 0
                {
                    let budget = held.meta.name.clone();
                    return EvictAnswer::Refused { budget, desired: held.desired_healthy, healthy: held.healthy };
                }
                let (version, now) = (self.next_version(), self.now);
                self.budgets.change(budget, version, |budget| {
                    budget.allowed -= 1;
                    budget.disrupted.insert(pod.meta.name.clone(), now);
                });
            }
        }
        self.end_pod(id, None);
        EvictAnswer::Accepted
    }

    /// Deletes a pod, budgets notwithstanding. `grace_seconds` in place of its own.
    pub fn delete_pod(
        &mut self,
        namespace: &str,
        name: &str,
        uid: Option<u128>,
        grace_seconds: Option<i64>,
    ) -> DeleteAnswer {
        let Some(id) = self.pods.id(namespace, name) else { return DeleteAnswer::NotFound };
        if uid.is_some() && self.pods.get(id).map(|pod| pod.meta.uid) != uid {
            return DeleteAnswer::WrongUid;
        }
        self.end_pod(id, grace_seconds);
        DeleteAnswer::Accepted
    }

    pub(super) fn budget_due(&mut self, budget: u32) {
        if self.budgets_due.insert(budget) {
            let after = self.pace.controller;
            self.queue(after, Event::ReconcileBudget(budget));
        }
    }

    /// Which pods a budget selects, looked up anew.
    pub(super) fn gather_budget(&mut self, id: u32) {
        let Some(budget) = self.budgets.get(id) else { return };
        let selected: BTreeSet<u32> = match &budget.selector {
            None => BTreeSet::new(),
            Some(selector) => self
                .pods
                .in_namespace(&budget.meta.namespace)
                .filter(|(_, pod)| selector.matches(&pod.meta.labels))
                .map(|(pod, _)| pod)
                .collect(),
        };
        let before = self.pods_in.insert(id, Arc::new(selected)).unwrap_or_default();
        for pod in before.iter() {
            if let Some(budgets) = self.budgets_of.get_mut(pod) {
                budgets.retain(|budget| *budget != id);
            }
        }
        let now = self.pods_in.get(&id).cloned().unwrap_or_default();
        for pod in now.iter() {
            let budgets = self.budgets_of.entry(*pod).or_default();
            budgets.push(id);
            let name = |budget: &u32| self.budgets.get(*budget).map(|budget| budget.meta.name.clone());
            budgets.sort_by_cached_key(name);
        }
    }

    pub(super) fn reconcile_budget(&mut self, id: u32) {
        self.budgets_due.remove(&id);
        let Some(budget) = self.budgets.get(id).cloned() else { return };
        let selected = self.pods_in.get(&id).cloned().unwrap_or_default();
        let pods: Vec<&Arc<Pod>> = selected.iter().filter_map(|pod| self.pods.get(*pod)).collect();
        let fresh = |at: Moment| self.now.0 - at.0 < DISRUPTED_SECONDS * 1000;
        let disrupted: BTreeMap<Text, Moment> = budget
            .disrupted
            .iter()
            .filter(|(name, at)| {
                fresh(**at) && pods.iter().any(|pod| pod.meta.name == **name && pod.deletion.is_none())
            })
            .map(|(name, at)| (name.clone(), *at))
            .collect();
        let healthy = pods.iter().filter(|pod| pod.is_healthy() && !disrupted.contains_key(&pod.meta.name)).count();
        let healthy = u32::try_from(healthy).unwrap_or(u32::MAX);
        let by_controllers = || {
            let mut owners: BTreeSet<WorkloadId> = BTreeSet::new();
            for owner in pods.iter().filter_map(|pod| pod.owner) {
                owners.insert(self.workload(owner).and_then(|set| set.owner).unwrap_or(owner));
            }
            owners.iter().filter_map(|owner| self.workload(*owner)).map(|owner| owner.replicas).sum::<u32>()
        };
        let (expected, desired) = match budget.keep {
            Keep::MaxUnavailable(share) => {
                let expected = by_controllers();
                (expected, expected.saturating_sub(share.of(expected)))
            }
            Keep::MinAvailable(Share::Count(count)) => (u32::try_from(pods.len()).unwrap_or(u32::MAX), count),
            Keep::MinAvailable(share) => {
                let expected = by_controllers();
                (expected, share.of(expected))
            }
        };
        let allowed = if expected == 0 { 0 } else { healthy.saturating_sub(desired) };
        let same = (budget.healthy, budget.desired_healthy, budget.expected, budget.allowed)
            == (healthy, desired, expected, allowed)
            && budget.disrupted == disrupted;
        if same {
            return;
        }
        let version = self.next_version();
        self.budgets.change(id, version, |budget| {
            budget.healthy = healthy;
            budget.desired_healthy = desired;
            budget.expected = expected;
            budget.allowed = allowed;
            budget.disrupted = disrupted;
        });
    }
}
