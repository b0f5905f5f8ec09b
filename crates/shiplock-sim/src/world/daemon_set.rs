//! DaemonSets. There may be thousands of nodes, and each change of a pod has a set look: what it goes by is kept from one
//! look to the next, and only what has changed since is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::World;
use super::object::{Labels, Pod, Workload, WorkloadId, WorkloadKind, WorkloadStatus};
use super::schedule::{daemon_belongs, daemon_stays};
use super::table::Text;

/// The label of a pod that tells of which template it is.
const TEMPLATE_LABEL: &str = "pod-template-generation";

/// What a DaemonSet goes by.
#[derive(Clone, Debug, Default)]
pub(super) struct DaemonSetNodes {
    /// The generation of the set that all of this is of.
    generation: Option<u64>,
    /// The newest change of any node that `eligible` knows of.
    nodes_as_of: u64,
    /// Whether it wants a pod on a node, by the id of the node.
    eligible: Arc<Vec<bool>>,
    /// On so many nodes it wants one.
    desired: u32,
    /// Its newest pod on each node, by the id of the node.
    held: Arc<Vec<Option<Held>>>,
    /// What of them its status is made of.
    tally: Tally,
    /// Nodes on which it wants a pod and has none.
    missing: BTreeSet<u32>,
    /// Nodes on which it has a pod and wants none.
    stray: BTreeSet<u32>,
    /// Nodes with a pod of an earlier template that was not told to end: where it is ready, and where it is not.
    old_ready: BTreeSet<u32>,
    old_unready: BTreeSet<u32>,
    /// Where a pod of it came, changed or went since `held` was brought up to date.
    moved: Vec<u32>,
}

/// Counts of pods of a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    pods: u32,
    healthy: u32,
    /// Of the newest template, and not told to end.
    updated: u32,
}

impl DaemonSetNodes {
    fn is_eligible(&self, node: u32) -> bool {
        self.eligible.get(node as usize).copied().unwrap_or_default()
    }

    /// Forgets all pods.
    fn clear(&mut self) {
        Arc::make_mut(&mut self.held).clear();
        self.tally = Tally::default();
        for nodes in [&mut self.stray, &mut self.old_ready, &mut self.old_unready] {
            nodes.clear();
        }
    }

    /// What it has on a node is this now.
    fn put(&mut self, node: u32, held: Option<Held>) {
        let by_node = Arc::make_mut(&mut self.held);
        let place = node as usize;
        if by_node.len() <= place {
            by_node.resize(place + 1, None);
        }
        let before = std::mem::replace(&mut by_node[place], held);
        if let Some(before) = before {
            self.tally.pods -= 1;
            self.tally.healthy -= u32::from(before.is_healthy);
            self.tally.updated -= u32::from(before.is_updated());
        }
        if let Some(held) = held {
            self.tally.pods += 1;
            self.tally.healthy += u32::from(held.is_healthy);
            self.tally.updated += u32::from(held.is_updated());
        }
        let is_old = |held: &Held| !held.is_new && !held.is_ending;
        set(&mut self.old_ready, node, held.is_some_and(|held| is_old(&held) && held.is_ready));
        set(&mut self.old_unready, node, held.is_some_and(|held| is_old(&held) && !held.is_ready));
        self.compare(node);
    }

    /// Compares what it has on a node with what it wants there.
    fn compare(&mut self, node: u32) {
        let is_held = self.held.get(node as usize).is_some_and(Option::is_some);
        let is_eligible = self.is_eligible(node);
        set(&mut self.missing, node, is_eligible && !is_held);
        set(&mut self.stray, node, is_held && !is_eligible);
    }
}

/// Has a node among these or not.
fn set(nodes: &mut BTreeSet<u32>, node: u32, is_among: bool) {
    if is_among {
        nodes.insert(node);
    } else {
        nodes.remove(&node);
    }
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

    fn is_updated(&self) -> bool {
        self.is_new && !self.is_ending
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

    /// What a set goes by, brought up to date. It is put back after the look.
    fn look_at_nodes(&mut self, id: u32, set: &Workload, revision: &Text) -> DaemonSetNodes {
        let mut known = self.daemon_set_nodes.remove(&id).unwrap_or_default();
        let is_same = known.generation.replace(set.meta.generation) == Some(set.meta.generation);
        let owner = WorkloadId { kind: WorkloadKind::DaemonSet, id };
        let moved = std::mem::take(&mut known.moved);
        if is_same {
            for node in moved {
                let pods = self.pods_on(node).filter_map(|pod| Some((pod, self.pods.get(pod)?)));
                let its = pods.filter(|(_, pod)| pod.owner == Some(owner)).last();
                known.put(node, its.map(|(pod, its)| Held::of(pod, its, revision)));
            }
        } else {
            known.clear();
            for pod in self.pods_of(owner) {
                let Some((its, node)) = self.pods.get(pod).and_then(|its| Some((its, its.node?))) else { continue };
                known.put(node, Some(Held::of(pod, its, revision)));
            }
        }
        let nodes_as_of = self.nodes.newest();
        if !is_same || known.nodes_as_of != nodes_as_of {
            known.nodes_as_of = nodes_as_of;
            let mut eligible = vec![false; self.nodes.ids_end() as usize];
            let mut desired = 0;
            for (id, _) in self.nodes.iter().filter(|(_, node)| daemon_belongs(&set.template, node)) {
                eligible[id as usize] = true;
                desired += 1;
            }
            (known.eligible, known.desired) = (Arc::new(eligible), desired);
            for node in 0..self.nodes.ids_end() {
                known.compare(node);
            }
        }
        known
    }

    pub(super) fn reconcile_daemon_set(&mut self, id: WorkloadId, set: &Workload) {
        let revision: Text = set.revision.to_string().into();
        let mut known = self.look_at_nodes(id.id, set, &revision);
        let made = self.make_missing(id, set, &revision, &known);
        // What was made just now is not ready yet.
        let unavailable = known.tally.pods - known.tally.healthy + made;
        let may_go = set.surge_and_unavailable.1.max(1).saturating_sub(unavailable);
        for pod in self.those_to_end(set, &known, may_go as usize) {
            self.end_pod(pod, None);
        }
        let status = WorkloadStatus {
            replicas: known.tally.pods + made,
            updated: known.tally.updated + made,
            desired: known.desired,
            observed_generation: set.meta.generation,
            ..self.workload(id).map(|set| set.status).unwrap_or_default()
        };
        // What was done to its pods meanwhile was noted beside.
        known.moved = self.daemon_set_nodes.remove(&id.id).unwrap_or_default().moved;
        self.daemon_set_nodes.insert(id.id, known);
        self.set_status(id, status);
    }

    /// Makes the pods that miss; gives how many.
    fn make_missing(&mut self, id: WorkloadId, set: &Workload, revision: &Text, known: &DaemonSetNodes) -> u32 {
        let mut missing: Vec<(Text, u32)> =
            known.missing.iter().filter_map(|node| Some((self.nodes.get(*node)?.meta.name.clone(), *node))).collect();
        missing.sort_unstable();
        let mut made = 0;
        // Pods that were made alike share their labels.
        let mut newest: Option<Labels> = None;
        for (_, node) in missing {
            let alike = || {
                let new = known.held.iter().flatten().find(|held| held.is_new)?;
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
                self.bind(pod, node);
                made += 1;
            }
        }
        made
    }

    /// The pods that end, in order of their nodes: where they may not stay, old ones that are not ready, and of those that
    /// are as many as may go.
    fn those_to_end(&self, set: &Workload, known: &DaemonSetNodes, may_go: usize) -> Vec<u32> {
        let may_stay = |node: u32| self.nodes.get(node).is_some_and(|node| daemon_stays(&set.template, node));
        let leave: BTreeSet<u32> = known.stray.iter().copied().filter(|node| !may_stay(*node)).collect();
        let go = known.old_ready.iter().copied().filter(|node| !leave.contains(node)).take(may_go);
        let nodes: BTreeSet<u32> = go.chain(known.old_unready.iter().copied()).chain(leave.iter().copied()).collect();
        nodes.into_iter().filter_map(|node| Some((*known.held.get(node as usize)?)?.pod)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::Rng as _;

    use super::super::tests::world;
    use super::super::{Effect, Taint, WorkloadSpec, labels};
    use super::*;

    /// What is kept must be what would be counted without it.
    fn check(world: &World, id: WorkloadId) {
        let set = world.workload(id).unwrap();
        let look = |mut world: World| {
            let known = world.look_at_nodes(id.id, set, &set.revision.to_string().into());
            let held: Vec<Held> = known.held.iter().flatten().copied().collect();
            let nodes = [known.missing, known.stray, known.old_ready, known.old_unready];
            (known.eligible, known.desired, known.tally, nodes, held)
        };
        let mut without = world.clone();
        without.daemon_set_nodes.clear();
        assert_eq!(look(world.clone()), look(without));
    }

    #[test]
    fn what_a_daemon_set_goes_by_is_what_it_would_count_anew_whatever_happens() {
        for seed in 0..20 {
            let mut world = world(seed, 6);
            let id = world.add_workload(&WorkloadSpec::new(WorkloadKind::DaemonSet, "shop", "agent", 1)).unwrap();
            world.settle(Duration::from_secs(300));
            let mut nodes: Vec<u32> = (0..6).collect();
            for round in 0..60 {
                let place = world.luck.random_range(0..nodes.len());
                let node = nodes[place];
                match world.luck.random_range(0..9) {
                    0 => {
                        let pod = world.pods_on(node).next();
                        pod.into_iter().for_each(|pod| world.remove_pod(pod));
                    }
                    1 => {
                        let pod = world.pods_on(node).next();
                        pod.into_iter().for_each(|pod| world.end_pod(pod, None));
                    }
                    2 | 3 => {
                        let effect = if world.luck.random_bool(0.5) { Effect::NoExecute } else { Effect::NoSchedule };
                        let taint = Taint { key: "spot".into(), value: "".into(), effect };
                        let taints = if world.luck.random_bool(0.5) { vec![taint] } else { Vec::new() };
                        world.change_node(node, |node| node.taints = Arc::new(taints));
                    }
                    4 => {
                        _ = world.change_node(node, |node| {
                            node.meta.labels = labels([("round", round.to_string().as_str())])
                        })
                    }
                    5 => {
                        let image = format!("agent:{round}").into();
                        world.change_workload(id, |set| {
                            Arc::make_mut(&mut set.template).containers = vec![("main".into(), image)];
                        });
                    }
                    6 => world.stop_kubelet(node),
                    7 => world.reboot(node),
                    _ => {
                        world.delete_node(node);
                        check(&world, id);
                        nodes[place] = world.rejoin(node).unwrap();
                    }
                }
                check(&world, id);
                for _ in 0..world.luck.random_range(0..40) {
                    world.step();
                    check(&world, id);
                }
            }
        }
    }
}
