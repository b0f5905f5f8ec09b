//! Whether the pods of each planned batch find a place on the nodes that stay: bin-packing by what pods ask for.
//!
//! Batches of a pool grow 1, 2, 4 … up to the bound, as the plan has them. Pods that are evicted are placed on nodes that
//! are ready, not cordoned and not in the batch, by requests, slots, taints, node selectors, required node affinity, the
//! nodes of their volumes and required anti-affinity between nodes. Nodes of a batch come back empty.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use shiplock_core::facts::{CONTROL_PLANE_LABEL, DEFAULT_POOL, POOL_LABELS};
use shiplock_core::upgrade::batch::size_limit;

use super::node::is_ready;
use super::quantity::milli;
use crate::object::{Labels, Node, NodeSelector, Objects, Pod, Taint, Toleration};

/// The label that tells nodes apart.
const HOST: &str = "kubernetes.io/hostname";

/// The first batch that does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Misfit {
    pub(super) pool: String,
    /// From 1.
    pub(super) batch: usize,
    pub(super) nodes: usize,
    /// How many pods find no place.
    pub(super) pods: usize,
    /// One of them: namespace and name.
    pub(super) example: (String, String),
    /// The largest bound under which all batches fit; none where not even one node may go.
    pub(super) fits: Option<u32>,
    /// Whether there is no other node that pods could ever go to.
    pub(super) is_only_node: bool,
    /// Whether each of these pods is under a budget: the drain waits for a node to be back then.
    pub(super) is_guarded: bool,
}

/// A pod that must find a place.
struct Load<'a> {
    pod: &'a Pod,
    cpu: i64,
    memory: i64,
    other: Vec<(&'a str, i64)>,
    /// The nodes that its volumes can be used on.
    volumes: Vec<&'a NodeSelector>,
    /// Whether it must not be with others.
    repels: bool,
}

/// A node with what is free on it.
#[derive(Clone)]
struct Room<'a> {
    node: &'a Node,
    is_open: bool,
    cpu: i64,
    memory: i64,
    slots: i64,
    other: HashMap<&'a str, i64>,
    /// Pods that can be moved, by their position.
    movable: Vec<usize>,
}

/// How a room is chosen among those that fit.
#[derive(Clone, Copy)]
enum Choice {
    /// The first one after the one that was chosen before.
    Next,
    Fullest,
    Emptiest,
}

/// Packs all batches of all pools.
pub(super) fn misfits(objects: &Objects, max_parallel: u32) -> Option<Vec<Misfit>> {
    let (nodes, pods) = (objects.nodes.seen()?, objects.pods.seen()?);
    let volumes = volumes_of(objects);
    let mut loads = Vec::new();
    let mut rooms: Vec<Room<'_>> = nodes.iter().map(room).collect();
    let positions: HashMap<&str, usize> =
        nodes.iter().enumerate().map(|(position, node)| (node.metadata.name.as_str(), position)).collect();
    for pod in pods.iter().filter(|pod| !pod.has_ended()) {
        let Some(&position) = positions.get(pod.spec.node_name.as_str()) else { continue };
        let load = load(pod, &volumes);
        let room = &mut rooms[position];
        room.take(&load);
        let stays = pod.is_static() || pod.controller().is_some_and(|owner| owner.kind == "DaemonSet");
        if !stays && pod.metadata.deletion_timestamp.is_none() {
            room.movable.push(loads.len());
            loads.push(load);
        }
    }
    let mut misfits = Vec::new();
    for (pool, members) in pools(nodes) {
        let all = |bound: u32| pack_pool(&rooms, &loads, &members, bound);
        if let Err((batch, size, missing)) = all(max_parallel) {
            let fits = (0..7).map(|power| 1 << power).take_while(|bound| *bound < max_parallel);
            let fits = fits.collect::<Vec<u32>>().into_iter().rev().find(|bound| all(*bound).is_ok());
            let Some(first) = missing.first().map(|position| &loads[*position].pod.metadata) else { continue };
            let others = rooms.iter().enumerate().filter(|(at, room)| room.is_open && !members.contains(at)).count();
            misfits.push(Misfit {
                pool: pool.to_owned(),
                batch,
                nodes: size,
                pods: missing.len(),
                example: (first.namespace.clone(), first.name.clone()),
                fits,
                is_only_node: members.len() == 1 && others == 0,
                is_guarded: missing.iter().all(|position| is_guarded(loads[*position].pod, objects)),
            });
        }
    }
    Some(misfits)
}

/// The nodes of each pool, by their positions, in the order in which they are upgraded.
fn pools(nodes: &[Node]) -> BTreeMap<&str, Vec<usize>> {
    let mut pools: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (position, node) in nodes.iter().enumerate() {
        let labels = &node.metadata.labels;
        if !labels.contains_key(CONTROL_PLANE_LABEL) {
            let pool = POOL_LABELS.iter().find_map(|label| labels.get(*label)).map_or(DEFAULT_POOL, String::as_str);
            pools.entry(pool).or_default().push(position);
        }
    }
    for members in pools.values_mut() {
        members.sort_by(|one, other| nodes[*one].metadata.name.cmp(&nodes[*other].metadata.name));
    }
    pools
}

/// The batches of all pools: the names of their nodes.
pub(super) fn batches(nodes: &[Node], max_parallel: u32) -> Vec<BTreeSet<&str>> {
    let mut batches: Vec<BTreeSet<&str>> = Vec::new();
    for members in pools(nodes).values() {
        let (mut rest, mut batch) = (members.as_slice(), 1);
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(size_limit(batch, max_parallel) as usize));
            batches.push(now.iter().map(|position| nodes[*position].metadata.name.as_str()).collect());
            (rest, batch) = (later, batch + 1);
        }
    }
    batches
}

/// Whether one of the batches takes all of these nodes at once.
pub(super) fn go_at_once(batches: Option<&[BTreeSet<&str>]>, nodes: &BTreeSet<&str>) -> bool {
    !nodes.is_empty() && batches.into_iter().flatten().any(|batch| nodes.is_subset(batch))
}

/// Whether a budget holds a pod back that must not go now. That it lets none go at all is said by WL-001 and WL-002.
fn is_guarded(pod: &Pod, objects: &Objects) -> bool {
    objects.budgets.seen().into_iter().flatten().any(|budget| {
        budget.metadata.namespace == pod.metadata.namespace
            && budget.spec.selector.as_ref().is_some_and(|selector| selector.fits(&pod.metadata.labels))
    })
}

/// Packs the batches of one pool; the number, the size and the pods without a place of the first that does not fit.
fn pack_pool(
    rooms: &[Room<'_>],
    loads: &[Load<'_>],
    members: &[usize],
    bound: u32,
) -> Result<(), (usize, usize, Vec<usize>)> {
    let mut failure = None;
    // A scheduler may find a place where one way to choose does not: all must fail.
    for choice in [Choice::Next, Choice::Emptiest, Choice::Fullest] {
        match pack_pool_by(choice, rooms, loads, members, bound) {
            Ok(()) => return Ok(()),
            Err(found) => failure = failure.or(Some(found)),
        }
    }
    failure.map_or(Ok(()), Err)
}

fn pack_pool_by(
    choice: Choice,
    rooms: &[Room<'_>],
    loads: &[Load<'_>],
    members: &[usize],
    bound: u32,
) -> Result<(), (usize, usize, Vec<usize>)> {
    let mut rooms = rooms.to_vec();
    let (mut at, mut batch, mut last) = (0, 0_u32, 0);
    while at < members.len() {
        let size = size_limit(batch + 1, bound) as usize;
        let gone: BTreeSet<usize> = members[at..members.len().min(at + size)].iter().copied().collect();
        let mut evicted = Vec::new();
        for &position in &gone {
            let room = &mut rooms[position];
            for pod in std::mem::take(&mut room.movable) {
                room.give_back(&loads[pod]);
                evicted.push(pod);
            }
        }
        evicted.sort_by_key(|pod| std::cmp::Reverse((loads[*pod].cpu.max(loads[*pod].memory >> 32), *pod)));
        let mut missing = Vec::new();
        for pod in evicted {
            let load = &loads[pod];
            let fits = |at: &usize| rooms[*at].fits(load) && !gone.contains(at) && !rooms[*at].is_refused(load, loads);
            let mut candidates = (last..rooms.len()).chain(0..last).filter(fits);
            let chosen = match choice {
                Choice::Next => candidates.next(),
                Choice::Fullest => candidates.min_by_key(|at| rooms[*at].cpu),
                Choice::Emptiest => candidates.max_by_key(|at| rooms[*at].cpu),
            };
            match chosen {
                Some(position) => {
                    last = position;
                    rooms[position].take(load);
                    rooms[position].movable.push(pod);
                }
                None if can_go_elsewhere(&rooms, &gone, load) => missing.push(pod),
                // Its volume or its selector binds it to the nodes that are upgraded: it waits until they are back.
                None => {}
            }
        }
        if !missing.is_empty() {
            return Err((batch as usize + 1, gone.len(), missing));
        }
        at += gone.len();
        batch += 1;
    }
    Ok(())
}

/// Whether some node outside a batch could ever run it, if there were room.
fn can_go_elsewhere(rooms: &[Room<'_>], gone: &BTreeSet<usize>, load: &Load<'_>) -> bool {
    let is_bound = load.volumes.iter().any(|selector| {
        let outside = rooms.iter().enumerate().filter(|(at, _)| !gone.contains(at));
        outside.into_iter().all(|(_, room)| !selector.fits(&room.node.metadata))
    });
    !is_bound
}

fn room(node: &Node) -> Room<'_> {
    let allocatable = &node.status.allocatable;
    let of = |name: &str| allocatable.get(name).and_then(|text| milli(text)).unwrap_or_default();
    let others = allocatable.iter().filter(|(name, _)| !matches!(name.as_str(), "cpu" | "memory" | "pods"));
    Room {
        node,
        is_open: is_ready(node) && !node.spec.unschedulable,
        cpu: of("cpu"),
        memory: of("memory"),
        slots: of("pods") / 1000,
        other: others.filter_map(|(name, text)| Some((name.as_str(), milli(text)?))).collect(),
        movable: Vec::new(),
    }
}

impl<'a> Room<'a> {
    fn take(&mut self, load: &Load<'a>) {
        self.change(load, -1);
    }

    fn give_back(&mut self, load: &Load<'a>) {
        self.change(load, 1);
    }

    fn change(&mut self, load: &Load<'a>, sign: i64) {
        self.cpu += sign * load.cpu;
        self.memory += sign * load.memory;
        self.slots += sign;
        for (name, amount) in &load.other {
            *self.other.entry(name).or_default() += sign * amount;
        }
    }

    fn fits(&self, load: &Load<'_>) -> bool {
        let spec = &load.pod.spec;
        self.is_open
            && self.slots > 0
            && self.cpu >= load.cpu
            && self.memory >= load.memory
            && load.other.iter().all(|(name, amount)| self.other.get(name).is_some_and(|free| free >= amount))
            && spec.node_selector.iter().all(|(key, value)| self.node.metadata.labels.get(key) == Some(value))
            && spec.affinity.node_affinity.required.as_ref().is_none_or(|terms| terms.fits(&self.node.metadata))
            && load.volumes.iter().all(|selector| selector.fits(&self.node.metadata))
            && self.node.spec.taints.iter().all(|taint| is_tolerated(taint, &spec.tolerations))
    }

    /// Whether required anti-affinity over single nodes keeps it away from what is on this one.
    fn is_refused(&self, load: &Load<'_>, loads: &[Load<'_>]) -> bool {
        let mut others = self.movable.iter().map(|other| &loads[*other]);
        others
            .any(|other| (load.repels && repels(load.pod, other.pod)) || (other.repels && repels(other.pod, load.pod)))
    }
}

fn repels(one: &Pod, other: &Pod) -> bool {
    one.spec.affinity.pod_anti_affinity.required.iter().any(|term| {
        let is_same_space = if term.namespaces.is_empty() {
            one.metadata.namespace == other.metadata.namespace
        } else {
            term.namespaces.contains(&other.metadata.namespace)
        };
        term.topology_key == HOST
            && is_same_space
            && term.label_selector.as_ref().is_some_and(|selector| selector.fits(&other.metadata.labels))
    })
}

fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    // A taint of ours or of the node's own state goes with the upgrade.
    if taint.effect == "PreferNoSchedule" || taint.key == "node.kubernetes.io/unschedulable" {
        return true;
    }
    tolerations.iter().any(|toleration| {
        let same_key = toleration.key.is_empty() || toleration.key == taint.key;
        let same_value = toleration.operator == "Exists" || toleration.value == taint.value;
        same_key && same_value && (toleration.effect.is_empty() || toleration.effect == taint.effect)
    })
}

/// The nodes that persistent volumes can be used on, by namespace and name of their claims.
fn volumes_of(objects: &Objects) -> HashMap<(&str, &str), &NodeSelector> {
    let volumes: HashMap<&str, &NodeSelector> = objects
        .volumes
        .seen()
        .into_iter()
        .flatten()
        .filter_map(|volume| Some((volume.metadata.name.as_str(), volume.spec.nodes.as_ref()?)))
        .collect();
    let claims = objects.claims.seen().into_iter().flatten();
    claims
        .filter_map(|claim| {
            let nodes = volumes.get(claim.spec.volume_name.as_str())?;
            Some(((claim.metadata.namespace.as_str(), claim.metadata.name.as_str()), *nodes))
        })
        .collect()
}

fn load<'a>(pod: &'a Pod, volumes: &HashMap<(&str, &str), &'a NodeSelector>) -> Load<'a> {
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    let mut add = |requests: &'a Labels| {
        for (name, text) in requests {
            *sums.entry(name).or_default() += milli(text).unwrap_or_default();
        }
    };
    let spec = &pod.spec;
    spec.containers.iter().for_each(|container| add(&container.resources.requests));
    let (beside, before): (Vec<_>, Vec<_>) =
        spec.init_containers.iter().partition(|one| one.restart_policy == "Always");
    beside.iter().for_each(|container| add(&container.resources.requests));
    add(&spec.overhead);
    // Those that run before, one by one, need no more than the largest of them.
    for container in before {
        for (name, text) in &container.resources.requests {
            let sum = sums.entry(name).or_default();
            *sum = (*sum).max(milli(text).unwrap_or_default());
        }
    }
    let claims = spec.volumes.iter().filter(|volume| volume.source == "persistentVolumeClaim");
    Load {
        pod,
        cpu: sums.remove("cpu").unwrap_or_default(),
        memory: sums.remove("memory").unwrap_or_default(),
        repels: !spec.affinity.pod_anti_affinity.required.is_empty(),
        other: sums.into_iter().filter(|(_, amount)| *amount > 0).collect(),
        volumes: claims
            .filter_map(|volume| volumes.get(&(pod.metadata.namespace.as_str(), volume.detail.as_str())).copied())
            .collect(),
    }
}

/// CPU and memory that pods on each node ask for, in thousandths.
pub(super) fn requested(objects: &Objects) -> HashMap<&str, (i64, i64)> {
    let mut sums: HashMap<&str, (i64, i64)> = HashMap::new();
    let none = HashMap::new();
    for pod in objects.pods.seen().into_iter().flatten().filter(|pod| !pod.has_ended()) {
        let load = load(pod, &none);
        let sum = sums.entry(&pod.spec.node_name).or_default();
        sum.0 += load.cpu;
        sum.1 += load.memory;
    }
    sums
}
