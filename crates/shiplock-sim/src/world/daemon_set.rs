//! DaemonSets. There may be thousands of nodes, and each change of a pod has a set look: what it goes by is kept from one
//! look to the next, and only what has changed since is read.

use std::sync::Arc;

use super::object::{Labels, Pod, Workload, WorkloadId, WorkloadKind, WorkloadStatus};
use super::schedule::{daemon_belongs, daemon_stays};
use super::table::Text;
use super::{Node, World};

/// The label of a pod that tells of which template it is.
const TEMPLATE_LABEL: &str = "pod-template-generation";

/// What a DaemonSet goes by.
#[derive(Clone, Debug, Default)]
pub(super) struct DaemonSetNodes {
    /// The generation of the set that all of this is of.
    generation: Option<u64>,
    /// The newest change of any node that `eligible` knows of.
    nodes_as_of: u64,
    /// The nodes that it wants a pod on, by id.
    eligible: Arc<Vec<u32>>,
    /// Its newest pod on each node, by the id of the node.
    held: Arc<Vec<Option<Held>>>,
    /// Where a pod of it came, changed or went since `held` was brought up to date.
    moved: Vec<u32>,
}

/// A pod of a set on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    pod: u32,
    is_new: bool,
    is_healthy: bool,
    is_ready: bool,
    is_ending: bool,
}

impl Held {
    fn of(id: u32, pod: &Pod, revision: &Text) -> Self {
        Self {
            pod: id,
            is_new: pod.meta.labels.get(TEMPLATE_LABEL) == Some(revision),
            is_healthy: pod.is_healthy(),
            is_ready: pod.ready,
            is_ending: pod.deletion.is_some(),
        }
    }
}

impl World {
    pub(super) fn reconcile_daemon_sets(&mut self) {
        let all: Vec<u32> = self.daemon_sets.iter().map(|(id, _)| id).collect();
        for id in all {
            self.due(WorkloadId { kind: WorkloadKind::DaemonSet, id });
        }
    }

    /// Where a node was opened: those DaemonSets alone that belong there and have no pod there. Of thousands of nodes one
    /// after another is opened, and each look of a DaemonSet at all of them is dear.
    pub(super) fn reconcile_daemon_sets_that_miss(&mut self, node: u32, held: &super::Node) {
        let has_pod = |set: u32| {
            self.pods_on(node)
                .filter_map(|pod| self.pods.get(pod)?.owner)
                .any(|owner| owner == WorkloadId { kind: WorkloadKind::DaemonSet, id: set })
        };
        let missing: Vec<u32> = self
            .daemon_sets
            .iter()
            .filter(|(id, set)| super::schedule::daemon_belongs(&set.template, held) && !has_pod(*id))
            .map(|(id, _)| id)
            .collect();
        for id in missing {
            self.due(WorkloadId { kind: WorkloadKind::DaemonSet, id });
        }
    }

    /// Notes for its DaemonSet that a pod on a node came, changed or went.
    pub(super) fn note_daemon(&mut self, owner: Option<WorkloadId>, node: Option<u32>) {
        if let (Some(WorkloadId { kind: WorkloadKind::DaemonSet, id }), Some(node)) = (owner, node) {
            self.daemon_set_nodes.entry(id).or_default().moved.push(node);
        }
    }

    /// Brings up to date what a set goes by.
    fn look_at_nodes(&mut self, id: u32, set: &Workload, revision: &Text) -> DaemonSetNodes {
        let mut known = self.daemon_set_nodes.remove(&id).unwrap_or_default();
        let is_same = known.generation.replace(set.meta.generation) == Some(set.meta.generation);
        let nodes_as_of = self.nodes.newest();
        if !is_same || known.nodes_as_of != nodes_as_of {
            let belongs = |node: &Node| daemon_belongs(&set.template, node);
            let ids = self.nodes.iter().filter(|(_, node)| belongs(node)).map(|(id, _)| id);
            (known.nodes_as_of, known.eligible) = (nodes_as_of, Arc::new(ids.collect()));
        }
        let owner = WorkloadId { kind: WorkloadKind::DaemonSet, id };
        let moved = std::mem::take(&mut known.moved);
        let held = Arc::make_mut(&mut known.held);
        if is_same {
            for node in moved {
                let pods = self.pods_on(node).filter_map(|pod| Some((pod, self.pods.get(pod)?)));
                let its = pods.filter(|(_, pod)| pod.owner == Some(owner)).last();
                put(held, node, its.map(|(pod, its)| Held::of(pod, its, revision)));
            }
        } else {
            held.clear();
            for pod in self.pods_of(owner) {
                let Some((its, node)) = self.pods.get(pod).and_then(|its| Some((its, its.node?))) else { continue };
                put(held, node, Some(Held::of(pod, its, revision)));
            }
        }
        known
    }

    pub(super) fn reconcile_daemon_set(&mut self, id: WorkloadId, set: &Workload) {
        let revision: Text = set.revision.to_string().into();
        let known = self.look_at_nodes(id.id, set, &revision);
        self.daemon_set_nodes.insert(id.id, known.clone());
        let (eligible, by_node) = (known.eligible, known.held);
        let desired = u32::try_from(eligible.len()).unwrap_or(u32::MAX);
        let mut belongs = vec![false; by_node.len()];
        let mut made = 0;
        // Pods that were made alike share their labels.
        let mut newest: Option<Labels> = None;
        for node in eligible.iter() {
            if let Some(Some(_)) = by_node.get(*node as usize) {
                belongs[*node as usize] = true;
                continue;
            }
            let alike = || {
                let new = by_node.iter().flatten().find(|held| held.is_new)?;
                self.pods.get(new.pod).map(|pod| pod.meta.labels.clone())
            };
            newest = newest.or_else(alike);
            let name = self.new_pod_name(set);
            let mut pod = self.pod_from(set, id, &name, &set.template);
            let mut labels = (*pod.meta.labels).clone();
            labels.insert(TEMPLATE_LABEL.into(), revision.clone());
            let labels = newest.clone().filter(|newest| **newest == labels).unwrap_or_else(|| Arc::new(labels));
            pod.meta.labels = newest.insert(labels).clone();
            if let Some(pod) = self.insert_pod(pod) {
                self.bind(pod, *node);
                made += 1;
            }
        }
        let held = || (0_u32..).zip(&*by_node).filter_map(|(node, held)| Some((node, (*held)?)));
        // What was made just now is not ready yet.
        let unavailable = held().filter(|(_, held)| !held.is_healthy).count() + made as usize;
        let mut may_go = (set.surge_and_unavailable.1.max(1) as usize).saturating_sub(unavailable);
        let mut ends = Vec::new();
        for (node, held) in held() {
            if !belongs[node as usize] && !self.nodes.get(node).is_some_and(|node| daemon_stays(&set.template, node)) {
                ends.push(held.pod);
            } else if !held.is_new && !held.is_ending && (may_go > 0 || !held.is_ready) {
                may_go = may_go.saturating_sub(usize::from(held.is_ready));
                ends.push(held.pod);
            }
        }
        for pod in ends {
            self.end_pod(pod, None);
        }
        let updated = held().filter(|(_, held)| held.is_new && !held.is_ending).count();
        let status = WorkloadStatus {
            replicas: u32::try_from(held().count()).unwrap_or(u32::MAX) + made,
            updated: u32::try_from(updated).unwrap_or(u32::MAX) + made,
            desired,
            observed_generation: set.meta.generation,
            ..self.workload(id).map(|set| set.status).unwrap_or_default()
        };
        self.set_status(id, status);
    }
}

fn put(by_node: &mut Vec<Option<Held>>, node: u32, held: Option<Held>) {
    let place = node as usize;
    if by_node.len() <= place {
        by_node.resize(place + 1, None);
    }
    by_node[place] = held;
}
