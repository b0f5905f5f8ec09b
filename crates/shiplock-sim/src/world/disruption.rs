//! Evictions and budgets, with the accounting of upstream.
//!
//! As in `pkg/registry/core/pod/storage/eviction.go` and `pkg/controller/disruption/disruption.go` of Kubernetes 1.36.

use std::collections::{BTreeMap, BTreeSet};

use super::index::entry;
use super::moment::Moment;
use super::object::{Keep, Phase, Pod, Selector, Share, WorkloadId};
use super::table::Text;
use super::{Event, Selected, World};

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

impl Selected {
    fn add(&mut self, id: u32, pod: &Pod) {
        if !self.pods.insert(id) {
            return;
        }
        self.healthy += u32::from(pod.is_healthy());
        if let Some(owner) = pod.owner {
            self.owners.up(owner);
        }
    }

    fn take(&mut self, id: u32, pod: &Pod) {
        if !self.pods.remove(id) {
            return;
        }
        self.healthy = self.healthy.saturating_sub(u32::from(pod.is_healthy()));
        if let Some(owner) = pod.owner {
            self.owners.down(owner);
        }
    }
}

impl World {
    /// The budgets that select a pod, by name.
    pub fn budgets_of(&self, pod: u32) -> &[u32] {
        self.budgets_of.get(pod as usize).map_or(&[], Vec::as_slice)
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
        self.select_pod(id, pod, found);
    }

    /// These budgets select the pod, in order of their names.
    pub(super) fn select_pod(&mut self, id: u32, pod: &Pod, budgets: Vec<u32>) {
        if budgets.is_empty() {
            return;
        }
        for budget in &budgets {
            entry(&mut self.pods_in, *budget).add(id, pod);
        }
        *entry(&mut self.budgets_of, id) = budgets;
        self.budgets_due_for(id);
    }

    /// No budget selects the pod any more, which is as it was last.
    pub(super) fn forget_budgets_of(&mut self, id: u32, pod: &Pod) {
        for budget in self.budgets_of.get_mut(id as usize).map(std::mem::take).unwrap_or_default() {
            entry(&mut self.pods_in, budget).take(id, pod);
            self.budget_due(budget);
        }
    }

    /// Counts a pod for its budgets that became healthy or ceased to be.
    pub(super) fn note_health(&mut self, pod: u32, before: bool, after: bool) {
        let by = i32::from(after) - i32::from(before);
        for budget in self.budgets_of.get(pod as usize).into_iter().flatten() {
            let selected = entry(&mut self.pods_in, *budget);
            selected.healthy = selected.healthy.saturating_add_signed(by);
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
        if uid.is_some() && self.pods.get(id).map(|pod| pod.meta.uid) != uid {
            return EvictAnswer::WrongUid;
        }
        self.evict_pod(id)
    }

    /// As [`World::evict`], of the pod with an id.
    pub(super) fn evict_pod(&mut self, id: u32) -> EvictAnswer {
        let Some(pod) = self.pods.get(id) else { return EvictAnswer::NotFound };
        if pod.deletion.is_some() || pod.phase != Phase::Running {
            self.end_pod(id, None);
            return EvictAnswer::Accepted;
        }
        let budgets = self.budgets_of(id);
        if budgets.len() > 1 {
            return EvictAnswer::SeveralBudgets;
        }
        if let Some(budget) = budgets.first().copied()
            && let Some(held) = self.budgets.get(budget)
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
                let name = pod.meta.name.clone();
                let (version, now) = (self.next_version(), self.now);
                self.budgets.change(budget, version, |budget| {
                    budget.allowed -= 1;
                    budget.disrupted.insert(name, now);
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
        let mut selected = Selected::default();
        if let Some(selector) = &budget.selector {
            let pods = self.pods.all_in_namespace(&budget.meta.namespace);
            pods.filter(|(_, pod)| selector.matches(&pod.meta.labels)).for_each(|(id, pod)| selected.add(id, pod));
        }
        let now = selected.pods.clone();
        let before = std::mem::replace(entry(&mut self.pods_in, id), selected);
        for pod in before.pods.iter() {
            entry(&mut self.budgets_of, *pod).retain(|budget| *budget != id);
        }
        for pod in now.iter() {
            let budgets = entry(&mut self.budgets_of, *pod);
            budgets.push(id);
            let name = |budget: &u32| self.budgets.get(*budget).map(|budget| budget.meta.name.clone());
            budgets.sort_by_cached_key(name);
        }
    }

    pub(super) fn reconcile_budget(&mut self, id: u32) {
        self.budgets_due.remove(&id);
        let Some(budget) = self.budgets.get(id) else { return };
        let Some(selected) = self.pods_in.get(id as usize) else { return };
        let of_name = |name: &Text| {
            let pod = self.pods.id(&budget.meta.namespace, name).filter(|pod| selected.pods.holds(*pod))?;
            self.pods.get(pod)
        };
        let fresh = |at: Moment| self.now.0 - at.0 < DISRUPTED_SECONDS * 1000;
        let mut healthy = selected.healthy;
        let mut disrupted: BTreeMap<Text, Moment> = BTreeMap::new();
        for (name, at) in budget.disrupted.iter().filter(|(_, at)| fresh(**at)) {
            if let Some(pod) = of_name(name).filter(|pod| pod.deletion.is_none()) {
                healthy = healthy.saturating_sub(u32::from(pod.is_healthy()));
                disrupted.insert(name.clone(), *at);
            }
        }
        let by_controllers = || {
            let top = |owner: WorkloadId| self.workload(owner).and_then(|set| set.owner).unwrap_or(owner);
            let owners: BTreeSet<WorkloadId> = selected.owners.keys().map(top).collect();
            owners.iter().filter_map(|owner| self.workload(*owner)).map(|owner| owner.replicas).sum::<u32>()
        };
        let (expected, desired) = match budget.keep {
            Keep::MaxUnavailable(share) => {
                let expected = by_controllers();
                (expected, expected.saturating_sub(share.of(expected)))
            }
            Keep::MinAvailable(Share::Count(count)) => (u32::try_from(selected.pods.len()).unwrap_or(u32::MAX), count),
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
