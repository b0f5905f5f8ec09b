//! The world: a Kubernetes cluster and its machines under virtual time.
//!
//! All change goes through methods of [`World`], which keep what is derived (pods of a node, requests in use, budgets)
//! and queue what follows (controllers, kubelets, probes). [`World::advance`] lets time pass; nothing is looked at that
//! did not change. A clone is a world of its own that goes on from the same moment with the same luck.

mod build;
mod control;
mod daemon_set;
mod disruption;
mod event;
mod facts;
mod index;
mod kubelet;
mod machine;
mod moment;
mod object;
mod schedule;
mod table;
#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use shiplock_core::version::KubernetesVersion;

pub use self::build::{NodeSpec, WorkloadSpec};
use self::daemon_set::DaemonSetNodes;
pub use self::disruption::{DeleteAnswer, EvictAnswer};
use self::event::{Event, Queued};
pub use self::facts::{DrainPods, OWNER_ANNOTATION, SeenPod, object_uid};
use self::index::{ByWorkload, Counts, Ids};
pub use self::machine::{
    Etcd, EtcdMember, Executable, Installed, Machine, MachineFaults, StaticPod, Unit, UnitState, Work,
};
pub use self::moment::Moment;
pub use self::object::{
    Behaviour, Budget, Deletion, Effect, JsonObject, Keep, Labels, Lease, Meta, Node, NodeInfo, Operator, Phase, Pod,
    PodTemplate, PodTerm, Requirement, Resources, Selector, Service, Share, Spread, Taint, Toleration, VolumeClaim,
    Workload, WorkloadId, WorkloadKind, WorkloadStatus, labels, uuid_number, uuid_text,
};
pub use self::table::{Change, ChangeKind, Object, Table, Text, TooOld};

/// How long things take that no template says, and how fast everything is.
#[derive(Clone, Debug)]
pub struct Pace {
    /// So many times as fast as told is everything; time goes as ever. At least 1.
    pub speed: u32,
    /// From a change to what a controller does about it.
    pub controller: Duration,
    /// From a pod without a node to the attempt to bind it.
    pub scheduler: Duration,
    /// From the start of a kubelet to its first words to the API server.
    pub kubelet_start: Duration,
    /// From there to a Ready node.
    pub node_ready: Duration,
    /// So long without a word from a kubelet its node stays Ready.
    pub node_monitor_grace: Duration,
    /// From the start of a static pod to its health.
    pub static_pod: Duration,
    /// From power to running services.
    pub boot: Duration,
    /// How far each of these is drawn longer or shorter, in hundredths; 0 takes no luck.
    pub jitter_percent: u32,
    /// Nodes that the scheduler finds before it stops looking for better ones.
    pub scheduler_candidates: usize,
    /// How much longer pods take to end than their templates say, in hundredths; never longer than their grace.
    pub pod_stop_percent: u32,
    /// How much longer pods take to start and to be ready than their templates say, in hundredths.
    pub pod_start_percent: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            speed: 1,
            controller: Duration::from_millis(50),
            scheduler: Duration::from_millis(30),
            kubelet_start: Duration::from_millis(1_500),
            node_ready: Duration::from_secs(2),
            node_monitor_grace: Duration::from_secs(40),
            static_pod: Duration::from_secs(3),
            boot: Duration::from_secs(35),
            jitter_percent: 20,
            scheduler_candidates: 16,
            pod_stop_percent: 100,
            pod_start_percent: 100,
        }
    }
}

/// The world.
#[derive(Clone, Debug)]
pub struct World {
    now: Moment,
    version: u64,
    uids: u64,
    luck: ChaCha8Rng,
    sequence: u64,
    queue: BinaryHeap<Reverse<Queued>>,
    pace: Arc<Pace>,
    cluster_uid: u128,
    nodes: Table<Node>,
    pods: Table<Pod>,
    deployments: Table<Workload>,
    replica_sets: Table<Workload>,
    stateful_sets: Table<Workload>,
    daemon_sets: Table<Workload>,
    budgets: Table<Budget>,
    leases: Table<Lease>,
    claims: Table<VolumeClaim>,
    services: Table<Service>,
    others: BTreeMap<Text, Table<JsonObject>>,
    changes_kept_max: usize,
    machines: Vec<Option<Arc<Machine>>>,
    /// The machines with static pods of a control plane, by name.
    masters: BTreeMap<Text, u32>,
    /// When the first node was added.
    made_at: Option<Moment>,
    /// Counts changes of machines.
    machines_version: u64,
    etcd: Etcd,
    /// What API servers run that are on no node of the cluster.
    api_elsewhere: Option<KubernetesVersion>,
    /// Pods bound to each node, by the id of the node.
    pods_on: Vec<Ids>,
    /// Requests of the pods bound to each node.
    used: Vec<Resources>,
    /// How often pods of each node came, were told to end, or went.
    moves: Vec<u64>,
    /// How many of the pods bound to each node keep others away by anti-affinity.
    repelling: Vec<u32>,
    /// Pods of each workload.
    pods_of: ByWorkload<Controlled>,
    /// ReplicaSets of each Deployment.
    sets_of: ByWorkload<Ids>,
    /// How long pods take to end that do not do so as their templates say, by the controller that no other owns.
    ends: BTreeMap<WorkloadId, Duration>,
    unbound: BTreeSet<u32>,
    /// What each DaemonSet goes by, by its id.
    daemon_set_nodes: BTreeMap<u32, DaemonSetNodes>,
    scheduling: bool,
    /// Reconciliations that are queued.
    due: BTreeSet<WorkloadId>,
    budgets_due: BTreeSet<u32>,
    /// Pods that each budget selects, by the id of the budget.
    pods_in: Vec<Selected>,
    /// Budgets that select each pod, in order of their names, by the id of the pod.
    budgets_of: Vec<Vec<u32>>,
    /// Where the scheduler goes on looking.
    scheduler_at: u32,
    /// What programs of agents were started, where that is recorded.
    started: Option<Vec<(u32, Text, Work)>>,
    /// How the ready pods of workloads changed; none where nobody wants to know.
    readiness: Option<Vec<ReadinessChange>>,
    /// Pods that ignored SIGTERM until SIGKILL.
    killed_pods: u64,
    /// Workloads whose wanted or ready pods may have changed since this was last asked, where readiness is recorded.
    changed: BTreeSet<WorkloadId>,
}

/// The pods of a workload.
#[derive(Clone, Debug, Default)]
struct Controlled {
    pods: Ids,
    /// How many of them are live: a ReplicaSet is looked at with each change of a pod.
    live: u32,
    /// How many of them are bound to each node: the scheduler spreads them.
    on: Counts<u32>,
}

/// The pods that a budget selects, with what its status is made of.
#[derive(Clone, Debug, Default)]
struct Selected {
    pods: Ids,
    healthy: u32,
    /// How many of them each workload has.
    owners: Counts<WorkloadId>,
}

/// The ready pods of a workload became more or fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadinessChange {
    /// When.
    pub at: Moment,
    /// A workload that no other workload owns.
    pub workload: WorkloadId,
    /// How many are ready now.
    pub ready: u32,
}

impl World {
    /// An empty cluster. Tables keep `changes_kept_max` changes each for watches; 0 where nobody watches.
    pub fn new(seed: u64, begin: Moment, pace: Pace, changes_kept_max: usize) -> Self {
        let mut luck = ChaCha8Rng::seed_from_u64(seed);
        let cluster_uid = u128::from(luck.next_u64()) << 64 | u128::from(luck.next_u64());
        Self {
            now: begin,
            version: 1,
            uids: 0,
            luck,
            sequence: 0,
            queue: BinaryHeap::new(),
            pace: Arc::new(pace),
            cluster_uid,
            nodes: Table::new(changes_kept_max),
            pods: Table::new(changes_kept_max),
            deployments: Table::new(changes_kept_max),
            replica_sets: Table::new(changes_kept_max),
            stateful_sets: Table::new(changes_kept_max),
            daemon_sets: Table::new(changes_kept_max),
            budgets: Table::new(changes_kept_max),
            leases: Table::new(changes_kept_max),
            claims: Table::new(changes_kept_max),
            services: Table::new(changes_kept_max),
            others: BTreeMap::new(),
            changes_kept_max,
            machines: Vec::new(),
            masters: BTreeMap::new(),
            made_at: None,
            machines_version: 0,
            etcd: Etcd::default(),
            api_elsewhere: None,
            pods_on: Vec::new(),
            used: Vec::new(),
            moves: Vec::new(),
            repelling: Vec::new(),
            pods_of: ByWorkload::default(),
            sets_of: ByWorkload::default(),
            ends: BTreeMap::new(),
            unbound: BTreeSet::new(),
            daemon_set_nodes: BTreeMap::new(),
            scheduling: false,
            due: BTreeSet::new(),
            budgets_due: BTreeSet::new(),
            pods_in: Vec::new(),
            budgets_of: Vec::new(),
            scheduler_at: 0,
            started: None,
            readiness: None,
            killed_pods: 0,
            changed: BTreeSet::new(),
        }
    }

    /// The time.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// The newest resource version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// How long things take.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// From now on every change of the ready pods of a workload is kept.
    pub fn record_readiness(&mut self) {
        self.readiness.get_or_insert_default();
    }

    /// The changes that were kept, oldest first.
    pub fn readiness_changes(&self) -> &[ReadinessChange] {
        self.readiness.as_deref().unwrap_or_default()
    }

    /// The workloads whose wanted or ready pods may have changed since this was last asked, from the time on when
    /// readiness is recorded.
    pub fn take_changed_workloads(&mut self) -> BTreeSet<WorkloadId> {
        std::mem::take(&mut self.changed)
    }

    /// The same, without taking note that it was asked.
    pub fn changed_workloads(&self) -> impl Iterator<Item = WorkloadId> + '_ {
        self.changed.iter().copied()
    }

    /// Whether there are any such workloads.
    pub fn workloads_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    fn note_changed(&mut self, workload: WorkloadId) {
        if self.readiness.is_some() && workload.kind != WorkloadKind::ReplicaSet {
            self.changed.insert(workload);
        }
    }

    /// Sets how long things take from now on.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = Arc::new(pace);
    }

    /// From now on the pods of a workload that no other workload owns take so long to end, and never longer than their
    /// grace.
    pub fn set_end(&mut self, workload: WorkloadId, takes: Duration) {
        self.ends.insert(workload, takes);
    }

    /// The UID of namespace `kube-system`.
    pub fn cluster_uid(&self) -> u128 {
        self.cluster_uid
    }

    /// Sets the UID of namespace `kube-system`, as read from elsewhere.
    pub fn set_cluster_uid(&mut self, uid: u128) {
        self.cluster_uid = uid;
    }

    /// Nodes.
    pub fn nodes(&self) -> &Table<Node> {
        &self.nodes
    }

    /// Pods.
    pub fn pods(&self) -> &Table<Pod> {
        &self.pods
    }

    /// Controllers of a kind.
    pub fn workloads(&self, kind: WorkloadKind) -> &Table<Workload> {
        match kind {
            WorkloadKind::Deployment => &self.deployments,
            WorkloadKind::ReplicaSet => &self.replica_sets,
            WorkloadKind::StatefulSet => &self.stateful_sets,
            WorkloadKind::DaemonSet => &self.daemon_sets,
        }
    }

    fn workloads_mut(&mut self, kind: WorkloadKind) -> &mut Table<Workload> {
        match kind {
            WorkloadKind::Deployment => &mut self.deployments,
            WorkloadKind::ReplicaSet => &mut self.replica_sets,
            WorkloadKind::StatefulSet => &mut self.stateful_sets,
            WorkloadKind::DaemonSet => &mut self.daemon_sets,
        }
    }

    /// One controller.
    pub fn workload(&self, id: WorkloadId) -> Option<&Arc<Workload>> {
        self.workloads(id.kind).get(id.id)
    }

    /// PodDisruptionBudgets.
    pub fn budgets(&self) -> &Table<Budget> {
        &self.budgets
    }

    /// Leases.
    pub fn leases(&self) -> &Table<Lease> {
        &self.leases
    }

    /// PersistentVolumeClaims.
    pub fn claims(&self) -> &Table<VolumeClaim> {
        &self.claims
    }

    /// Services.
    pub fn services(&self) -> &Table<Service> {
        &self.services
    }

    /// Objects that are kept and not modelled, by resource such as `configmaps` or `deployments.example.com`.
    pub fn others(&self, resource: &str) -> Option<&Table<JsonObject>> {
        self.others.get(resource)
    }

    /// The resources of which such objects were ever kept.
    pub fn other_resources(&self) -> impl Iterator<Item = &Text> {
        self.others.keys()
    }

    /// The machine under a node, by the id of the node.
    pub fn machine(&self, node: u32) -> Option<&Arc<Machine>> {
        self.machines.get(node as usize)?.as_ref()
    }

    /// The ids of the nodes that static pods of a control plane run on, by name.
    pub(crate) fn masters(&self) -> impl Iterator<Item = u32> + '_ {
        self.masters.values().copied()
    }

    /// When the cluster was made.
    pub(crate) fn made_at(&self) -> Moment {
        self.made_at.unwrap_or_default()
    }

    /// etcd.
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// The ids of the pods that are bound to a node.
    pub fn pods_on(&self, node: u32) -> impl Iterator<Item = u32> + '_ {
        self.pods_on.get(node as usize).into_iter().flat_map(|pods| pods.iter().copied())
    }

    /// Another number after a pod of a node came, was told to end, or went.
    pub fn moves_on(&self, node: u32) -> u64 {
        self.moves.get(node as usize).copied().unwrap_or_default()
    }

    fn note_move(&mut self, node: Option<u32>) {
        if let Some(moves) = node.and_then(|node| self.moves.get_mut(node as usize)) {
            *moves += 1;
        }
    }

    /// The ids of the pods of a controller.
    pub fn pods_of(&self, workload: WorkloadId) -> impl Iterator<Item = u32> + '_ {
        self.pods_of.get(workload).into_iter().flat_map(|controlled| controlled.pods.iter().copied())
    }

    /// The ids of pods that found no place yet.
    pub fn unbound(&self) -> impl Iterator<Item = u32> + '_ {
        self.unbound.iter().copied()
    }

    /// The requests of the pods that are bound to a node.
    pub fn used(&self, node: u32) -> Resources {
        self.used.get(node as usize).copied().unwrap_or_default()
    }

    /// Records from now on which units are started.
    pub fn record_units(&mut self) {
        self.started.get_or_insert_default();
    }

    /// The units that were started since this was last asked: node, name, work.
    pub fn take_started(&mut self) -> Vec<(u32, Text, Work)> {
        self.started.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// How many pods ignored SIGTERM until SIGKILL.
    pub fn killed_pods(&self) -> u64 {
        self.killed_pods
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// A UID that nobody has.
    pub fn new_uid(&mut self) -> u128 {
        self.uids += 1;
        (self.cluster_uid & !0xffff_ffff_ffff_ffff) | u128::from(self.uids)
    }

    /// What a new object has.
    pub fn new_meta(&mut self, namespace: impl Into<Text>, name: &str, labels: &Labels) -> Meta {
        Meta {
            namespace: namespace.into(),
            name: Text::from(name),
            uid: self.new_uid(),
            version: 0,
            generation: 1,
            created_at: self.now,
            labels: labels.clone(),
            annotations: Labels::default(),
            managed_fields: None,
        }
    }

    // ---- change of objects ----

    /// Changes a Node: labels, annotations, taints, cordon. False where there is none with the id.
    pub fn change_node(&mut self, id: u32, change: impl FnOnce(&mut Node)) -> bool {
        let version = self.next_version();
        let before = self.nodes.get(id).cloned();
        if !self.nodes.change(id, version, change) {
            return false;
        }
        if let (Some(before), Some(after)) = (before, self.nodes.get(id).cloned()) {
            let opened = (before.unschedulable && !after.unschedulable) || (!before.is_ready() && after.is_ready());
            if before.taints != after.taints || before.meta.labels != after.meta.labels {
                self.wake_scheduler();
                for pod in self.pods_on(id).collect::<Vec<_>>() {
                    self.evict_by_taint(id, pod);
                }
                self.reconcile_daemon_sets();
            } else if opened {
                self.wake_scheduler();
                self.reconcile_daemon_sets_that_miss(id, &after);
            }
        }
        true
    }

    /// A pod ends that does not tolerate the taints of its node: at once, or after the time that it tolerates one. Those of
    /// the node lifecycle controller have their own way.
    fn evict_by_taint(&mut self, node: u32, pod: u32) {
        match self.tolerated_for(node, pod) {
            Some(time) if time.is_zero() => self.end_pod(pod, None),
            Some(time) => self.queue(time, Event::TaintEvicts { node, pod }),
            None => {}
        }
    }

    /// The time is over; a taint that was taken off meanwhile is no reason any more.
    fn taint_evicts(&mut self, node: u32, pod: u32) {
        if self.tolerated_for(node, pod).is_some() {
            self.end_pod(pod, None);
        }
    }

    /// How long a pod tolerates the taints of its node that evict; none where it may stay, or is not there.
    fn tolerated_for(&self, node: u32, pod: u32) -> Option<Duration> {
        let (held, pod) = (self.nodes.get(node)?, self.pods.get(pod).filter(|pod| pod.node == Some(node))?);
        let evicting = held.taints.iter().filter(|taint| taint.effect == Effect::NoExecute);
        evicting.filter_map(|taint| pod.template.tolerates_for(taint.parts())).min()
    }

    /// Deletes a Node object. Its machine stays.
    pub fn delete_node(&mut self, id: u32) -> bool {
        let version = self.next_version();
        if self.nodes.remove(id, version).is_none() {
            return false;
        }
        // Its pods are collected.
        let pods: Vec<u32> = self.pods_on(id).collect();
        for pod in pods {
            self.remove_pod(pod);
        }
        self.reconcile_daemon_sets();
        true
    }

    /// Another number after each change of a machine.
    pub fn machines_version(&self) -> u64 {
        self.machines_version
    }

    /// Changes a machine.
    pub fn change_machine(&mut self, node: u32, change: impl FnOnce(&mut Machine)) {
        self.machines_version += 1;
        if let Some(Some(machine)) = self.machines.get_mut(node as usize) {
            change(Arc::make_mut(machine));
        }
    }

    /// The API servers are on no node of the cluster and run this version.
    pub fn set_api_elsewhere(&mut self, version: KubernetesVersion) {
        self.api_elsewhere = Some(version);
    }

    /// Changes etcd: alarms, learners.
    pub fn change_etcd(&mut self, change: impl FnOnce(&mut Etcd)) {
        change(&mut self.etcd);
    }

    /// Changes a pod as nobody but a test or an operator would; its binding must stay.
    pub fn change_pod(&mut self, id: u32, change: impl FnOnce(&mut Pod)) -> bool {
        let version = self.next_version();
        let Some(before) = self.pods.get(id).cloned() else { return false };
        self.pods.change(id, version, change);
        self.note_repelling(before.node, &before.template, -1);
        self.note_live(before.owner.filter(|_| before.is_live()), -1);
        if let Some(after) = self.pods.get(id).cloned() {
            self.note_repelling(after.node, &after.template, 1);
            self.note_live(after.owner.filter(|_| after.is_live()), 1);
            self.note_daemon(before.owner, before.node);
            self.note_health(id, before.is_healthy(), after.is_healthy());
            if before.meta.labels != after.meta.labels {
                self.forget_budgets_of(id, &after);
                self.find_budgets_of(id, &after);
            }
        }
        true
    }

    /// Changes the spec of a workload: replicas, template. Controllers follow.
    pub fn change_workload(&mut self, id: WorkloadId, change: impl FnOnce(&mut Workload)) -> bool {
        let version = self.next_version();
        let changed = self.workloads_mut(id.kind).change(id.id, version, |workload| {
            let template = workload.template.clone();
            change(workload);
            workload.meta.generation += 1;
            if *workload.template != *template {
                workload.revision += 1;
            }
        });
        self.due(id);
        self.note_changed(id);
        changed
    }

    /// Deletes a workload with its pods.
    pub fn delete_workload(&mut self, id: WorkloadId) -> bool {
        let version = self.next_version();
        if self.workloads_mut(id.kind).remove(id.id, version).is_none() {
            return false;
        }
        for (set, _) in self.replica_sets_of(id) {
            self.delete_workload(WorkloadId { kind: WorkloadKind::ReplicaSet, id: set });
        }
        *self.sets_of.entry(id) = Ids::default();
        let pods: Vec<u32> = self.pods_of(id).collect();
        for pod in pods {
            self.end_pod(pod, None);
        }
        true
    }

    /// Changes the spec of a budget; its status follows.
    pub fn change_budget(&mut self, id: u32, change: impl FnOnce(&mut Budget)) -> bool {
        let version = self.next_version();
        let changed = self.budgets.change(id, version, |budget| {
            change(budget);
            budget.meta.generation += 1;
        });
        self.gather_budget(id);
        self.budget_due(id);
        changed
    }

    /// Deletes a budget.
    pub fn delete_budget(&mut self, id: u32) -> bool {
        let version = self.next_version();
        for pod in std::mem::take(index::entry(&mut self.pods_in, id)).pods.iter() {
            index::entry(&mut self.budgets_of, *pod).retain(|budget| *budget != id);
        }
        self.budgets.remove(id, version).is_some()
    }

    /// Creates a Lease; none where there is one of the name.
    pub fn create_lease(&mut self, lease: Lease) -> Option<u32> {
        let version = self.next_version();
        self.leases.insert(lease, version)
    }

    /// Replaces a Lease if it still has the version; else false (409).
    pub fn replace_lease(&mut self, id: u32, expected_version: Option<u64>, change: impl FnOnce(&mut Lease)) -> bool {
        match self.leases.get(id) {
            Some(found) if expected_version.is_none_or(|version| version == found.meta.version) => {}
            _ => return false,
        }
        let version = self.next_version();
        self.leases.change(id, version, change)
    }

    /// Deletes a Lease.
    pub fn delete_lease(&mut self, id: u32) -> bool {
        let version = self.next_version();
        self.leases.remove(id, version).is_some()
    }

    /// Changes a Service.
    pub fn change_service(&mut self, id: u32, change: impl FnOnce(&mut Service)) -> bool {
        let version = self.next_version();
        self.services.change(id, version, change)
    }

    /// Deletes a Service.
    pub fn delete_service(&mut self, id: u32) -> bool {
        let version = self.next_version();
        self.services.remove(id, version).is_some()
    }

    /// Deletes a claim, and its volume with it. Pods that have it go on.
    pub fn delete_claim(&mut self, id: u32) -> bool {
        let version = self.next_version();
        self.claims.remove(id, version).is_some()
    }

    /// Keeps an object that is not modelled; none where there is one of the name.
    pub fn create_other(&mut self, resource: &str, object: JsonObject) -> Option<u32> {
        let version = self.next_version();
        let kept = self.changes_kept_max;
        self.others.entry(Text::from(resource)).or_insert_with(|| Table::new(kept)).insert(object, version)
    }

    /// Changes an object that is not modelled.
    pub fn change_other(&mut self, resource: &str, id: u32, change: impl FnOnce(&mut JsonObject)) -> bool {
        let version = self.next_version();
        self.others.get_mut(resource).is_some_and(|table| table.change(id, version, change))
    }

    /// Deletes an object that is not modelled.
    pub fn delete_other(&mut self, resource: &str, id: u32) -> bool {
        let version = self.next_version();
        self.others.get_mut(resource).is_some_and(|table| table.remove(id, version).is_some())
    }

    /// The addresses behind a Service: the ids of its ready pods.
    pub fn endpoints(&self, service: &Service) -> Vec<u32> {
        let Some(selector) = &service.selector else { return Vec::new() };
        let matches = |pod: &Pod| selector.iter().all(|(key, value)| pod.meta.labels.get(key) == Some(value));
        let pods = self.pods.in_namespace(&service.meta.namespace);
        pods.filter(|(_, pod)| pod.ready && pod.deletion.is_none() && matches(pod)).map(|(id, _)| id).collect()
    }

    /// Drops the changes that are kept for watches, as a compaction of etcd does: each watch begins anew (410).
    pub fn compact(&mut self) {
        self.nodes.compact();
        self.pods.compact();
        for kind in WorkloadKind::ALL {
            self.workloads_mut(kind).compact();
        }
        self.budgets.compact();
        self.leases.compact();
        self.claims.compact();
        self.services.compact();
        self.others.values_mut().for_each(Table::compact);
    }
}
