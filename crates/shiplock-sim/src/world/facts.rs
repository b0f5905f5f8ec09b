//! The world as Shiplock's server sees it through the API: the stand-in for translation and caches.

use std::collections::BTreeMap;
use std::sync::Arc;

use shiplock_cluster::fence::MarkWrite;
use shiplock_cluster::port::{DrainPod, Eviction};
use shiplock_core::facts::{
    AddonFacts, ApiServerFacts, BudgetFacts, CONTROL_PLANE_LABEL, ClusterFacts, ControlPlaneComponent,
    ControlPlanePodFacts, NodeFacts, NodeOwner, PodFacts, Readiness, WorkloadFacts,
};
use shiplock_core::id::{ClusterUid, NodeName, ObjectUid};
use shiplock_core::version::KubernetesVersion;

use super::object::{Effect, Node, Pod, Workload, WorkloadId, WorkloadKind, uuid_number, uuid_text};
use super::{EvictAnswer, World};

/// The annotation that marks a node as ours.
pub const OWNER_ANNOTATION: &str = "shiplock.dev/owner";

/// Pods as a drain saw them, by id.
pub type DrainPods = BTreeMap<u32, SeenPod>;

/// A pod as a drain saw it.
#[derive(Clone, Debug)]
pub struct SeenPod {
    /// The pod, as it was when it was seen first.
    pub pod: Arc<DrainPod>,
    /// The drain itself had it end, and need not be told so.
    pub ended: bool,
}

/// The UID of an object as the API tells it.
pub fn object_uid(uid: u128) -> ObjectUid {
    ObjectUid::new(uuid_text(uid))
}

impl World {
    /// Facts of a node.
    pub fn node_facts(&self, node: &Node) -> NodeFacts {
        let owner =
            node.meta.annotations.get(OWNER_ANNOTATION).and_then(|text| serde_json::from_str::<NodeOwner>(text).ok());
        let hard = node.all_taints().filter(|(.., effect)| *effect != Effect::PreferNoSchedule);
        NodeFacts {
            uid: object_uid(node.meta.uid),
            machine_id: node.info.machine_id.clone(),
            boot_id: node.info.boot_id.to_string(),
            architecture: node.info.architecture.to_string(),
            kubelet_version: node.info.kubelet_version.to_string(),
            container_runtime_version: node.info.container_runtime_version.to_string(),
            ready: if node.is_ready() {
                Readiness::Ready
            } else {
                Readiness::NotReady { why: node.not_ready_why.to_string() }
            },
            unschedulable: node.unschedulable,
            owner,
            taints: hard.map(|(key, ..)| key.to_owned()).collect(),
            labels: node.meta.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        }
    }

    /// The name of the controller of a pod, as its owner reference has it.
    fn controller(&self, pod: &Pod) -> Option<(&'static str, &Arc<Workload>)> {
        let owner = pod.owner?;
        Some((owner.kind.word(), self.workload(owner)?))
    }

    /// The cluster as a watch-fed cache shows it at this moment. Pods only where `with_pods`: nothing that decides looks
    /// at them.
    pub fn cluster_facts(&self, with_pods: bool) -> ClusterFacts {
        let nodes = self.nodes().iter().map(|(_, node)| (NodeName::new(node.meta.name.clone()), self.node_facts(node)));
        let (workloads, addons) = (self.workload_facts(), self.addons());
        let budgets = self.budgets().iter().map(|(_, budget)| BudgetFacts {
            namespace: budget.meta.namespace.to_string(),
            name: budget.meta.name.to_string(),
            disruptions_allowed: i64::from(budget.allowed),
            expected_pods: i64::from(budget.expected),
        });
        let pods = with_pods.then(|| self.pods().iter()).into_iter().flatten().filter(|(_, pod)| !pod.is_finished());
        let pods = pods.map(|(_, pod)| PodFacts {
            namespace: pod.meta.namespace.to_string(),
            name: pod.meta.name.to_string(),
            uid: object_uid(pod.meta.uid),
            node: pod.node.and_then(|node| self.nodes().get(node)).map(|node| NodeName::new(node.meta.name.clone())),
            controller: self.controller(pod).map(|(kind, owner)| format!("{kind}/{}", owner.meta.name)).or_else(|| {
                // A kubelet names its node as the controller of a mirror.
                let node = pod.node.filter(|_| pod.mirror.is_some()).and_then(|node| self.nodes().get(node));
                node.map(|node| format!("Node/{}", node.meta.name))
            }),
            is_mirror: pod.mirror.is_some(),
            tolerates_unschedulable: pod.template.tolerates_cordon(),
        });
        ClusterFacts {
            uid: ClusterUid::new(uuid_text(self.cluster_uid())),
            observed_at: self.now().timestamp(),
            api_servers: self.api_servers(),
            nodes: nodes.collect(),
            pods: pods.collect(),
            budgets: budgets.collect(),
            workloads,
            control_plane_pods: self.control_plane_pods(),
            addons,
        }
    }

    /// kube-proxy and CoreDNS, where kubeadm put them.
    pub fn addons(&self) -> Vec<AddonFacts> {
        self.addon_workloads().map(addon_facts).collect()
    }

    fn addon_workloads(&self) -> impl Iterator<Item = &Workload> {
        let places = [(WorkloadKind::Deployment, "coredns"), (WorkloadKind::DaemonSet, "kube-proxy")].into_iter();
        places.filter_map(|(kind, name)| self.workloads(kind).find("kube-system", name).map(|workload| &**workload))
    }

    /// How far add-ons are rolled out: more with each pod of the newest template that is ready.
    pub fn addon_progress(&self) -> u32 {
        self.addon_workloads().map(|workload| workload.status.updated + workload.status.ready).sum()
    }

    /// Deployments, StatefulSets and DaemonSets, always in the same order.
    pub fn workload_facts(&self) -> Vec<WorkloadFacts> {
        let all = [WorkloadKind::Deployment, WorkloadKind::StatefulSet, WorkloadKind::DaemonSet].into_iter();
        all.flat_map(|kind| self.workloads(kind).iter()).map(|(_, workload)| workload_facts(workload)).collect()
    }

    /// Where each workload is among [`World::workload_facts`].
    pub fn workload_places(&self) -> BTreeMap<WorkloadId, usize> {
        let all = [WorkloadKind::Deployment, WorkloadKind::StatefulSet, WorkloadKind::DaemonSet].into_iter();
        let ids = all.flat_map(|kind| self.workloads(kind).iter().map(move |(id, _)| WorkloadId { kind, id }));
        ids.enumerate().map(|(place, id)| (id, place)).collect()
    }

    /// Brings one workload that was read before up to date.
    pub fn refresh_workload_fact(&self, workload: WorkloadId, fact: &mut WorkloadFacts) {
        if let Some(workload) = self.workload(workload) {
            (fact.desired, fact.ready) = counts(workload);
        }
    }

    /// The mirrors of the static pods of masters.
    pub fn control_plane_pods(&self) -> Vec<ControlPlanePodFacts> {
        let mut found = Vec::new();
        let masters = self.masters().filter_map(|id| self.nodes().get(id));
        for node in masters.filter(|node| node.meta.labels.contains_key(CONTROL_PLANE_LABEL)) {
            for component in ControlPlaneComponent::ALL {
                if let Some(pod) = self.pods().find("kube-system", &format!("{}-{}", component.name(), node.meta.name))
                {
                    found.push(ControlPlanePodFacts {
                        node: NodeName::new(node.meta.name.clone()),
                        component,
                        image: pod.template.containers.first().map(|(_, image)| image.to_string()).unwrap_or_default(),
                        ready: pod.ready,
                        restarts: i64::from(pod.restarts),
                    });
                }
            }
        }
        found
    }

    /// The API servers that answer; where none does, those that are there.
    pub fn api_servers(&self) -> Vec<ApiServerFacts> {
        let mut found = Vec::new();
        for id in self.masters() {
            let (Some(node), Some(machine)) = (self.nodes().get(id), self.machine(id)) else { continue };
            let Some(pod) = machine.static_pods.get(&ControlPlaneComponent::KubeApiserver) else { continue };
            let image = pod.running.as_ref().unwrap_or(&pod.image);
            if let Some(version) = image.rsplit_once(':').and_then(|(_, tag)| tag.parse::<KubernetesVersion>().ok()) {
                found.push(ApiServerFacts {
                    address: format!("{}:6443", node.meta.name),
                    version,
                    emulates: machine.emulates,
                });
            }
        }
        if found.is_empty()
            && let Some(version) = self.api_version_elsewhere()
        {
            found.push(ApiServerFacts { address: "api:6443".to_owned(), version, emulates: None });
        }
        found
    }

    /// Where no master is a node, the API server runs what was set, else the newest kubelet's version.
    fn api_version_elsewhere(&self) -> Option<KubernetesVersion> {
        self.api_elsewhere.or_else(|| self.newest_kubelet())
    }

    fn newest_kubelet(&self) -> Option<KubernetesVersion> {
        self.nodes()
            .iter()
            .filter_map(|(_, node)| KubernetesVersion::parse_reported(&node.info.kubelet_version).ok())
            .max()
    }

    /// Evicts or, where it is `forced`, deletes a pod, and answers as the port does.
    pub fn take_pod(&mut self, pod: &DrainPod, forced: bool) -> Eviction {
        let uid = uuid_number(pod.uid.as_str());
        let id = self.pods.id(&pod.namespace, &pod.name);
        match id.filter(|id| uid.is_none() || self.pods.get(*id).map(|pod| pod.meta.uid) == uid) {
            Some(id) => self.take_pod_by_id(id, forced),
            None => Eviction::Gone,
        }
    }

    /// As [`World::take_pod`], of the pod with an id: names of very many are dear to compare.
    pub fn take_pod_by_id(&mut self, id: u32, forced: bool) -> Eviction {
        if forced {
            if self.pods.get(id).is_none() {
                return Eviction::Gone;
            }
            self.end_pod(id, None);
            return Eviction::Accepted;
        }
        match self.evict_pod(id) {
            EvictAnswer::Accepted => Eviction::Accepted,
            EvictAnswer::NotFound | EvictAnswer::WrongUid => Eviction::Gone,
            EvictAnswer::Refused { .. } | EvictAnswer::SeveralBudgets => Eviction::RefusedByBudget,
        }
    }

    /// Writes mark and cordon of a node; what the write tests was tested before.
    pub fn write_mark(&mut self, node: u32, write: &MarkWrite) {
        self.change_node(node, |node| {
            node.unschedulable = write.unschedulable;
            let annotations = Arc::make_mut(&mut node.meta.annotations);
            match &write.mark {
                Some(text) => annotations.insert(OWNER_ANNOTATION.into(), text.as_str().into()),
                None => annotations.remove(OWNER_ANNOTATION),
            };
        });
    }

    /// The pods of a node as a drain sees them.
    pub fn drain_pods(&self, node: u32) -> Vec<Arc<DrainPod>> {
        self.drain_pods_again(node, &mut DrainPods::new())
    }

    /// As [`World::drain_pods`], where those that were seen before are known: all that may change in between is whether
    /// somebody else told them to end.
    pub fn drain_pods_again(&self, node: u32, known: &mut DrainPods) -> Vec<Arc<DrainPod>> {
        let pods = self.pods_on(node).filter_map(|id| Some((id, self.pods().get(id)?)));
        pods.filter(|(_, pod)| !pod.is_finished())
            .map(|(id, pod)| {
                let first = || SeenPod { pod: Arc::new(self.drain_pod(id, pod)), ended: false };
                let seen = known.entry(id).or_insert_with(first);
                if !seen.ended && seen.pod.is_terminating != pod.deletion.is_some() {
                    Arc::make_mut(&mut seen.pod).is_terminating = pod.deletion.is_some();
                }
                seen.pod.clone()
            })
            .collect()
    }

    /// A pod as a drain sees it.
    pub fn drain_pod(&self, id: u32, pod: &Pod) -> DrainPod {
        let owner =
            self.controller(pod).map(|(kind, owner)| match owner.owner.and_then(|above| self.workload(above)) {
                Some(above) => ["Deployment ", &above.meta.name].concat(),
                None => [kind, " ", &owner.meta.name].concat(),
            });
        let budgets = self.budgets_of(id).iter().filter_map(|budget| self.budgets().get(*budget));
        DrainPod {
            namespace: pod.meta.namespace.clone(),
            name: pod.meta.name.clone(),
            uid: object_uid(pod.meta.uid),
            owner,
            is_mirror: pod.mirror.is_some(),
            is_daemon: pod.owner.is_some_and(|owner| owner.kind == WorkloadKind::DaemonSet),
            tolerates_unschedulable: pod.template.tolerates_cordon(),
            is_terminating: pod.deletion.is_some(),
            grace_seconds: pod.template.grace_seconds,
            budgets: budgets.map(|budget| [&*budget.meta.namespace, "/", &budget.meta.name].concat()).collect(),
            // An eviction is one act here: it does not break off.
            admitted_at: None,
        }
    }
}

/// Pods wanted and pods ready.
fn counts(workload: &Workload) -> (i64, i64) {
    let desired = if workload.kind == WorkloadKind::DaemonSet { workload.status.desired } else { workload.replicas };
    (i64::from(desired), i64::from(workload.status.ready))
}

fn workload_facts(workload: &Workload) -> WorkloadFacts {
    let (desired, ready) = counts(workload);
    WorkloadFacts {
        kind: workload.kind.word().into(),
        namespace: workload.meta.namespace.clone(),
        name: workload.meta.name.clone(),
        desired,
        ready,
    }
}

fn addon_facts(workload: &Workload) -> AddonFacts {
    let status = workload.status;
    let desired = if workload.kind == WorkloadKind::DaemonSet { status.desired } else { workload.replicas };
    let image = workload.template.containers.first().map(|(_, image)| image.to_string()).unwrap_or_default();
    let rolled_out = status.observed_generation >= workload.meta.generation
        && [status.updated, status.ready, status.replicas].iter().all(|count| *count == desired);
    AddonFacts { name: workload.meta.name.to_string(), image, rolled_out, edits: Vec::new() }
}
