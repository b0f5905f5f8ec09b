//! Controllers of pods: Deployment, ReplicaSet, StatefulSet, DaemonSet; and the table of pods with what hangs on it.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::moment::Moment;
use super::object::{Deletion, Phase, Pod, PodTemplate, Workload, WorkloadId, WorkloadKind, WorkloadStatus};
use super::table::Text;
use super::{Event, World};

/// What of a pod is counted elsewhere.
#[derive(Clone, Copy)]
struct Counted {
    owner: Option<WorkloadId>,
    is_live: bool,
    is_ready: bool,
    is_healthy: bool,
}

impl Counted {
    fn of(pod: &Pod) -> Self {
        let (is_ready, is_healthy) = (counts_as_ready(pod), pod.is_healthy());
        Self { owner: pod.owner, is_live: pod.is_live(), is_ready, is_healthy }
    }
}

/// Whether a pod is one of `readyReplicas`: ReplicaSets leave out what was told to end, the others do not.
fn counts_as_ready(pod: &Pod) -> bool {
    let is_of_replica_set = pod.owner.is_some_and(|owner| owner.kind == WorkloadKind::ReplicaSet);
    pod.ready && !(is_of_replica_set && pod.deletion.is_some())
}

impl World {
    // ---- pods ----

    pub(super) fn insert_pod(&mut self, pod: Pod) -> Option<u32> {
        let version = self.next_version();
        let (owner, bound) = (pod.owner, pod.node.is_some());
        let id = self.pods.insert(pod, version)?;
        let sibling = owner.and_then(|owner| self.pods_of.get(owner)?.pods.last().copied());
        if let Some(owner) = owner {
            self.pods_of.entry(owner).pods.insert(id);
            self.due(owner);
        }
        if !bound {
            self.unbound.insert(id);
        }
        if let Some(pod) = self.pods.get(id).cloned() {
            self.note_live(owner.filter(|_| pod.is_live()), 1);
            // What selects a pod goes by its labels, and pods of one controller mostly have the same.
            match sibling
                .filter(|sibling| self.pods.get(*sibling).is_some_and(|held| held.meta.labels == pod.meta.labels))
            {
                Some(sibling) => self.select_pod(id, &pod, self.budgets_of(sibling).to_vec()),
                None => self.find_budgets_of(id, &pod),
            }
        }
        Some(id)
    }

    /// The pod is gone, whatever kept it.
    pub fn remove_pod(&mut self, id: u32) {
        let version = self.next_version();
        let Some(pod) = self.pods.remove(id, version) else { return };
        self.note_move(pod.node);
        self.unbound.remove(&id);
        if let Some(node) = pod.node
            && let Some(pods) = self.pods_on.get_mut(node as usize)
        {
            pods.remove(id);
            let used = &mut self.used[node as usize];
            *used = used.plus(requests(&pod.template), -1);
            self.note_repelling(pod.node, &pod.template, -1);
        }
        self.note_daemon(pod.owner, pod.node);
        if let Some(owner) = pod.owner {
            if let Some(controlled) = self.pods_of.get_mut(owner) {
                controlled.pods.remove(id);
                if let Some(node) = pod.node {
                    controlled.on.down(node);
                }
            }
            self.note_live(pod.owner.filter(|_| pod.is_live()), -1);
            self.count_ready(owner, counts_as_ready(&pod), false);
            self.due(owner);
        }
        self.forget_budgets_of(id, &pod);
        if !self.unbound.is_empty() {
            self.wake_scheduler();
        }
    }

    pub(super) fn set_ready(&mut self, id: u32, ready: bool) {
        let Some(before) = self.pods.get(id).filter(|pod| pod.ready != ready).map(|pod| Counted::of(pod)) else {
            return;
        };
        let (version, now) = (self.next_version(), self.now);
        self.pods.change(id, version, |pod| {
            pod.ready = ready;
            pod.ready_since = now;
        });
        self.count(id, before);
        self.budgets_due_for(id);
    }

    /// Counts a pod anew that has changed, for its controller and its budgets.
    fn count(&mut self, id: u32, before: Counted) {
        let Some((after, node)) = self.pods.get(id).map(|pod| (Counted::of(pod), pod.node)) else { return };
        if let Some(owner) = before.owner {
            self.note_daemon(before.owner, node);
            self.count_ready(owner, before.is_ready, after.is_ready);
            self.due(owner);
        }
        self.note_health(id, before.is_healthy, after.is_healthy);
    }

    /// Counts a live pod for its controller; `by` is 1 or -1.
    pub(super) fn note_live(&mut self, owner: Option<WorkloadId>, by: i32) {
        if let Some(controlled) = owner.and_then(|owner| self.pods_of.get_mut(owner)) {
            controlled.live = controlled.live.saturating_add_signed(by);
        }
    }

    /// Counts at once, up to the Deployment, so that nobody has to look at all pods for it.
    fn count_ready(&mut self, owner: WorkloadId, before: bool, after: bool) {
        if before == after {
            return;
        }
        let mut next = Some(owner);
        while let Some(id) = next {
            let version = self.next_version();
            self.workloads_mut(id.kind).change(id.id, version, |workload| {
                let ready = workload.status.ready;
                workload.status.ready = if after { ready + 1 } else { ready.saturating_sub(1) };
            });
            self.note_changed(id);
            if id != owner {
                // A roll-out that may miss no pod goes on with each new one that is ready.
                self.due(id);
            }
            let Some(workload) = self.workload(id) else { return };
            next = workload.owner;
            let ready = workload.status.ready;
            if let (Some(changes), None) = (&mut self.readiness, next) {
                changes.push(super::ReadinessChange { at: self.now, workload: id, ready });
            }
        }
    }

    /// Tells a pod to end; `grace_seconds` in place of its own. One without a node or with no grace goes at once.
    pub(super) fn end_pod(&mut self, id: u32, grace_seconds: Option<i64>) {
        let Some(pod) = self.pods.get(id) else { return };
        if pod.mirror.is_some() {
            return;
        }
        let grace = grace_seconds.unwrap_or(pod.template.grace_seconds).max(0);
        if (pod.node.is_none() || pod.is_finished() || grace == 0) && !pod.template.behaviour.finalizer {
            return self.remove_pod(id);
        }
        if pod.deletion.is_some() {
            return;
        }
        let (before, node) = (Counted::of(pod), pod.node);
        let (version, now) = (self.next_version(), self.now);
        let at = Moment(now.0 + grace * 1000);
        self.pods.change(id, version, |pod| {
            pod.deletion = Some(Deletion { asked_at: now, at });
            pod.life += 1;
        });
        self.note_live(before.owner.filter(|_| before.is_live), -1);
        self.note_move(node);
        self.queue_end(id);
        self.count(id, before);
        self.budgets_due_for(id);
    }

    // ---- controllers ----

    pub(super) fn due(&mut self, workload: WorkloadId) {
        if self.due.insert(workload) {
            let after = self.pace.controller;
            self.queue(after, Event::Reconcile(workload));
        }
    }

    pub(super) fn reconcile(&mut self, id: WorkloadId) {
        self.due.remove(&id);
        let Some(workload) = self.workload(id).cloned() else { return };
        match id.kind {
            WorkloadKind::Deployment => self.reconcile_deployment(id, &workload),
            WorkloadKind::ReplicaSet => self.reconcile_replica_set(id, &workload),
            WorkloadKind::StatefulSet => self.reconcile_stateful_set(id, &workload),
            WorkloadKind::DaemonSet => self.reconcile_daemon_set(id, &workload),
        }
    }

    pub(super) fn set_status(&mut self, id: WorkloadId, status: WorkloadStatus) {
        let Some(before) = self.workload(id).filter(|before| before.status != status) else { return };
        let owner = before.owner;
        let version = self.next_version();
        self.workloads_mut(id.kind).change(id.id, version, |workload| workload.status = status);
        self.note_changed(id);
        if let Some(owner) = owner {
            self.due(owner);
        }
    }

    /// The ReplicaSets of a Deployment, by name.
    pub(super) fn replica_sets_of(&self, deployment: WorkloadId) -> Vec<(u32, Arc<Workload>)> {
        let ids = self.sets_of.get(deployment).into_iter().flat_map(|sets| sets.iter());
        let mut sets: Vec<(u32, Arc<Workload>)> =
            ids.filter_map(|set| Some((*set, self.replica_sets.get(*set)?.clone()))).collect();
        sets.sort_by(|(_, one), (_, other)| one.meta.name.cmp(&other.meta.name));
        sets
    }

    /// The suffix of a new ReplicaSet and of its pods: the same in every run, and of no ReplicaSet that is there. A copied
    /// cluster may hold one that was named in an earlier life of the Deployment.
    fn new_suffix(&self, deployment: &Workload) -> String {
        let mut collisions = 0_u64;
        loop {
            let uid = (deployment.meta.uid as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let number = uid ^ u64::from(deployment.revision) ^ (collisions << 32);
            let suffix: String = name_digits(number, 9).collect();
            let name = format!("{}-{suffix}", deployment.meta.name);
            if self.replica_sets.id(&deployment.meta.namespace, &name).is_none() {
                return suffix;
            }
            collisions += 1;
        }
    }

    fn reconcile_deployment(&mut self, id: WorkloadId, deployment: &Workload) {
        let sets = self.replica_sets_of(id);
        // A template that goes back to an earlier one has its ReplicaSet already, which becomes the newest.
        let has_template = |set: &Workload| {
            let hash = set.meta.labels.get(TEMPLATE_HASH);
            hash.is_some_and(|hash| with_hash(&deployment.template, hash) == *set.template)
        };
        let newest = sets.iter().find(|(_, set)| set.revision == deployment.revision);
        let newest = newest.or_else(|| sets.iter().find(|(_, set)| has_template(set))).cloned();
        let (newest_id, newest) = match newest {
            Some((set, held)) => {
                if held.revision != deployment.revision {
                    let version = self.next_version();
                    self.replica_sets.change(set, version, |set| set.revision = deployment.revision);
                }
                (set, held)
            }
            None => {
                let hash = self.new_suffix(deployment);
                let template = with_hash(&deployment.template, &hash);
                let mut meta = self.new_meta(
                    deployment.meta.namespace.clone(),
                    &format!("{}-{hash}", deployment.meta.name),
                    &template.labels.clone(),
                );
                meta.annotations = deployment.meta.annotations.clone();
                let mut selector = deployment.selector.clone();
                selector.labels.insert(TEMPLATE_HASH.into(), hash.as_str().into());
                let set = Workload {
                    meta,
                    kind: WorkloadKind::ReplicaSet,
                    replicas: 0,
                    selector,
                    template: Arc::new(template),
                    revision: deployment.revision,
                    owner: Some(id),
                    surge_and_unavailable: (0, 0),
                    parallel: true,
                    status: WorkloadStatus::default(),
                };
                let version = self.next_version();
                let Some(set) = self.replica_sets.insert(set, version) else { return };
                self.pods_of.entry(WorkloadId { kind: WorkloadKind::ReplicaSet, id: set });
                self.sets_of.entry(id).insert(set);
                let Some(held) = self.replica_sets.get(set).cloned() else { return };
                (set, held)
            }
        };
        let old: Vec<&(u32, Arc<Workload>)> = sets.iter().filter(|(set, _)| *set != newest_id).collect();
        let old_wanted: u32 = old.iter().map(|(_, set)| set.replicas).sum();
        let (surge, unavailable) = deployment.surge_and_unavailable;
        let wanted = deployment.replicas;
        let total = newest.replicas + old_wanted;
        let scaled = if old_wanted == 0 {
            wanted
        } else {
            (newest.replicas + (wanted + surge).saturating_sub(total)).min(wanted)
        };
        if scaled != newest.replicas {
            self.scale(newest_id, scaled);
        }
        // Old pods go as far as enough are ready; those that are not ready go first anyway.
        let ready: u32 = sets.iter().map(|(_, set)| set.status.ready).sum();
        let mut may_go = ready.saturating_sub(wanted.saturating_sub(unavailable));
        for (set, held) in &old {
            let unready = held.replicas.saturating_sub(held.status.ready);
            let go = held.replicas.min(unready + may_go);
            may_go = may_go.saturating_sub(go.saturating_sub(unready));
            if go > 0 {
                self.scale(*set, held.replicas - go);
            }
        }
        let status = WorkloadStatus {
            replicas: sets.iter().map(|(_, set)| set.status.replicas).sum(),
            updated: newest.status.replicas,
            desired: wanted,
            observed_generation: deployment.meta.generation,
            ..deployment.status
        };
        self.set_status(id, status);
    }

    fn scale(&mut self, set: u32, replicas: u32) {
        let version = self.next_version();
        self.replica_sets.change(set, version, |set| {
            set.replicas = replicas;
            set.meta.generation += 1;
        });
        self.due(WorkloadId { kind: WorkloadKind::ReplicaSet, id: set });
    }

    pub(super) fn pod_from(
        &mut self,
        workload: &Workload,
        id: WorkloadId,
        name: &str,
        template: &Arc<PodTemplate>,
    ) -> Pod {
        Pod {
            meta: self.new_meta(workload.meta.namespace.clone(), name, &template.labels),
            template: template.clone(),
            owner: Some(id),
            mirror: None,
            node: None,
            phase: Phase::Pending,
            ready: false,
            ready_since: self.now,
            started_at: None,
            restarts: 0,
            deletion: None,
            unschedulable_why: None,
            life: 0,
        }
    }

    /// The name of a new pod of a ReplicaSet or a DaemonSet.
    pub(super) fn new_pod_name(&mut self, set: &Workload) -> String {
        let number = (self.new_uid() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut name = String::with_capacity(set.meta.name.len() + 6);
        name.push_str(&set.meta.name);
        name.push('-');
        name.extend(name_digits(number, 5));
        name
    }

    /// The live pods of a controller; in order, those that go first: without a node, then those that are not ready, then
    /// the youngest.
    fn live_pods_of(&self, id: WorkloadId) -> impl Iterator<Item = (bool, bool, Reverse<u32>)> + '_ {
        self.pods_of(id)
            .filter_map(|pod| Some((pod, self.pods.get(pod)?)))
            .filter(|(_, pod)| pod.is_live())
            .map(|(pod, held)| (held.node.is_some(), held.ready, Reverse(pod)))
    }

    fn reconcile_replica_set(&mut self, id: WorkloadId, set: &Workload) {
        let found = self.pods_of.get(id).map_or(0, |controlled| controlled.live as usize);
        let wanted = set.replicas as usize;
        let mut made = 0;
        for _ in found..wanted {
            let name = self.new_pod_name(set);
            let pod = self.pod_from(set, id, &name, &set.template);
            made += u32::from(self.insert_pod(pod).is_some());
        }
        if found > wanted {
            let mut live: Vec<_> = self.live_pods_of(id).collect();
            live.sort_unstable();
            for (.., Reverse(pod)) in live.into_iter().take(found - wanted) {
                self.end_pod(pod, None);
            }
        }
        if made > 0 {
            self.wake_scheduler();
        }
        let replicas = u32::try_from(found.min(wanted)).unwrap_or(u32::MAX) + made;
        let status = WorkloadStatus {
            replicas,
            updated: replicas,
            desired: set.replicas,
            observed_generation: set.meta.generation,
            ..self.workload(id).map(|set| set.status).unwrap_or_default()
        };
        self.set_status(id, status);
    }

    fn reconcile_stateful_set(&mut self, id: WorkloadId, set: &Workload) {
        let mut by_name: BTreeMap<Text, (u32, Arc<Pod>)> = BTreeMap::new();
        for pod in self.pods_of(id) {
            if let Some(held) = self.pods.get(pod) {
                by_name.insert(held.meta.name.clone(), (pod, held.clone()));
            }
        }
        let name = |ordinal: u32| format!("{}-{ordinal}", set.meta.name);
        let mut made = 0;
        let mut all_ready = true;
        for ordinal in 0..set.replicas {
            match by_name.get(name(ordinal).as_str()) {
                None => {
                    let mut template = (*set.template).clone();
                    template.claims =
                        template.claims.iter().map(|claim| format!("{claim}-{}", name(ordinal)).into()).collect();
                    let mut labels = (*template.labels).clone();
                    labels.insert("statefulset.kubernetes.io/pod-name".into(), name(ordinal).into());
                    labels.insert(
                        "controller-revision-hash".into(),
                        format!("{}-{}", set.meta.name, set.revision).into(),
                    );
                    template.labels = Arc::new(labels);
                    let pod = self.pod_from(set, id, &name(ordinal), &Arc::new(template));
                    made += u32::from(self.insert_pod(pod).is_some());
                    all_ready = false;
                }
                Some((_, pod)) => all_ready &= pod.is_healthy(),
            }
            if !all_ready && !set.parallel {
                break;
            }
        }
        let revision = format!("{}-{}", set.meta.name, set.revision);
        let is_new =
            |pod: &Pod| pod.meta.labels.get("controller-revision-hash").map(AsRef::as_ref) == Some(revision.as_str());
        if all_ready {
            let over =
                by_name.iter().filter(|(found, _)| (0..set.replicas).all(|ordinal| name(ordinal) != found.as_ref()));
            let old = (0..set.replicas).rev().filter_map(|ordinal| by_name.get(name(ordinal).as_str()));
            let next =
                over.map(|(_, found)| found).next_back().or_else(|| old.into_iter().find(|(_, pod)| !is_new(pod)));
            if let Some((pod, _)) = next.cloned() {
                self.end_pod(pod, None);
            }
        }
        if made > 0 {
            self.wake_scheduler();
        }
        let status = WorkloadStatus {
            replicas: u32::try_from(by_name.len()).unwrap_or(u32::MAX) + made,
            updated: u32::try_from(by_name.values().filter(|(_, pod)| is_new(pod)).count()).unwrap_or(0) + made,
            desired: set.replicas,
            observed_generation: set.meta.generation,
            ..self.workload(id).map(|set| set.status).unwrap_or_default()
        };
        self.set_status(id, status);
    }
}

/// The label that tells the pods of one ReplicaSet of a Deployment from those of another.
const TEMPLATE_HASH: &str = "pod-template-hash";

/// The template of a Deployment as its ReplicaSet of that hash has it.
fn with_hash(template: &PodTemplate, hash: &str) -> PodTemplate {
    let mut template = template.clone();
    Arc::make_mut(&mut template.labels).insert(TEMPLATE_HASH.into(), hash.into());
    template
}

/// What a pod takes of its node.
pub(super) fn requests(template: &PodTemplate) -> super::object::Resources {
    super::object::Resources { pods: 1, ..template.requests }
}

/// Characters as Kubernetes draws them for names.
fn name_digits(mut number: u64, count: usize) -> impl Iterator<Item = char> {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    number ^= number >> 29;
    number = number.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number ^= number >> 32;
    (0..count).map(move |_| {
        let digit = ALPHABET[(number % ALPHABET.len() as u64) as usize];
        number = number / ALPHABET.len() as u64 + 0x5851_f42d;
        char::from(digit)
    })
}
