//! What happens by itself: events, and the queue in which they wait for their time.

use std::cmp::{Ordering, Reverse};
use std::time::Duration;

use rand::Rng as _;

use super::World;
use super::moment::Moment;
use super::object::WorkloadId;
use super::table::Text;

/// What happens by itself.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Schedule,
    Reconcile(WorkloadId),
    ReconcileBudget(u32),
    PodStarts { pod: u32, life: u32 },
    PodReady { pod: u32, life: u32 },
    PodEnds { pod: u32, life: u32 },
    KubeletSpeaks { node: u32, run: u32 },
    KubeletReady { node: u32, run: u32 },
    NodeSilent { node: u32, run: u32 },
    NodeEvicts { node: u32, run: u32 },
    TaintEvicts { node: u32, pod: u32 },
    StaticPodUp { node: u32, component: shiplock_core::facts::ControlPlaneComponent, run: u32 },
    Booted { node: u32, boot: u32 },
    UnitEnds { node: u32, unit: Text, boot: u32 },
}

#[derive(Clone, Debug)]
pub(super) struct Queued {
    at: Moment,
    sequence: u64,
    event: Event,
}

impl Queued {
    /// What comes first: no two have the same.
    fn turn(&self) -> (Moment, u64) {
        (self.at, self.sequence)
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.turn() == other.turn()
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        self.turn().cmp(&other.turn())
    }
}

impl World {
    /// When something happens next by itself.
    pub fn next_at(&self) -> Option<Moment> {
        self.queue.peek().map(|queued| queued.0.at)
    }

    /// Lets time pass, with everything that happens until then.
    pub fn advance(&mut self, to: Moment) {
        while self.next_at().is_some_and(|at| at <= to) {
            self.step();
        }
        self.now = self.now.max(to);
    }

    /// Lets the next thing happen; false where nothing ever does.
    pub fn step(&mut self) -> bool {
        let Some(Reverse(Queued { at, event, .. })) = self.queue.pop() else { return false };
        self.now = self.now.max(at);
        match event {
            Event::Schedule => self.schedule(),
            Event::Reconcile(workload) => self.reconcile(workload),
            Event::ReconcileBudget(budget) => self.reconcile_budget(budget),
            Event::PodStarts { pod, life } => self.pod_starts(pod, life),
            Event::PodReady { pod, life } => self.pod_ready(pod, life),
            Event::PodEnds { pod, life } => self.pod_ends(pod, life),
            Event::KubeletSpeaks { node, run } => self.kubelet_speaks(node, run),
            Event::KubeletReady { node, run } => self.kubelet_ready(node, run),
            Event::NodeSilent { node, run } => self.node_silent(node, run),
            Event::NodeEvicts { node, run } => self.node_evicts(node, run),
            Event::TaintEvicts { node, pod } => self.taint_evicts(node, pod),
            Event::StaticPodUp { node, component, run } => self.static_pod_up(node, component, run),
            Event::Booted { node, boot } => self.booted(node, boot),
            Event::UnitEnds { node, unit, boot } => self.unit_ends(node, &unit, boot),
        }
        true
    }

    pub(super) fn queue(&mut self, after: Duration, event: Event) {
        let percent = self.pace.jitter_percent;
        let after = if percent == 0 || after.is_zero() {
            after
        } else {
            let factor = self.luck.random_range(100 - percent.min(99)..=100 + percent);
            after * factor / 100
        };
        self.sequence += 1;
        self.queue.push(Reverse(Queued { at: self.now + after / self.pace.speed, sequence: self.sequence, event }));
    }
}
