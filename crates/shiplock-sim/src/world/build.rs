//! How a world comes to be: nodes with machines, workloads, budgets, volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shiplock_core::facts::{CONTROL_PLANE_LABEL, ControlPlaneComponent};

use super::World;
use super::index::Ids;
use super::machine::{EtcdMember, Executable, Installed, Machine, MachineFaults, StaticPod};
use super::object::{
    Budget, Effect, Keep, Labels, Node, NodeInfo, Phase, Pod, PodTemplate, Resources, Selector, Service, Taint,
    Toleration, VolumeClaim, Workload, WorkloadId, WorkloadKind, WorkloadStatus, labels,
};
use super::table::Text;

/// A node that is Ready from the begin, with its machine.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// The name.
    pub name: String,
    /// The labels; those of host name, architecture and system come by themselves.
    pub labels: BTreeMap<String, String>,
    /// The taints.
    pub taints: Vec<Taint>,
    /// Whether it was cordoned before.
    pub unschedulable: bool,
    /// `status.allocatable`.
    pub allocatable: Resources,
    /// The kubelet.
    pub kubelet: Executable,
    /// containerd.
    pub runtime: Executable,
    /// As Kubernetes names it.
    pub architecture: String,
    /// The images of the static pods of a master; empty on a worker.
    pub control_plane: BTreeMap<ControlPlaneComponent, String>,
    /// The UID of the Node; none: a new one.
    pub uid: Option<u128>,
    /// The machine id; none: a new one.
    pub machine_id: Option<String>,
    /// Whether it is Ready.
    pub ready: bool,
}

impl NodeSpec {
    /// A worker with room for 110 pods, 4 cores and 16 GiB, at a kubelet's and containerd's version.
    pub fn worker(name: &str, kubelet: &str, runtime: &str) -> Self {
        Self {
            name: name.to_owned(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            unschedulable: false,
            allocatable: Resources { cpu_millis: 4_000, memory_bytes: 16 << 30, pods: 110 },
            kubelet: Executable { version: kubelet.into(), sha256: "1".repeat(64).into() },
            runtime: Executable { version: runtime.into(), sha256: "1".repeat(64).into() },
            architecture: "amd64".to_owned(),
            control_plane: BTreeMap::new(),
            uid: None,
            machine_id: None,
            ready: true,
        }
    }

    /// A master: a node with the taint, the label and the static pods of a control plane.
    pub fn master(name: &str, kubelet: &str, runtime: &str, images: &[(ControlPlaneComponent, &str)]) -> Self {
        let mut spec = Self::worker(name, kubelet, runtime);
        spec.labels.insert(CONTROL_PLANE_LABEL.to_owned(), String::new());
        spec.taints.push(Taint { key: CONTROL_PLANE_LABEL.into(), value: "".into(), effect: Effect::NoSchedule });
        spec.control_plane = images.iter().map(|(component, image)| (*component, (*image).to_owned())).collect();
        spec
    }
}

/// A workload.
#[derive(Clone, Debug)]
pub struct WorkloadSpec {
    /// The kind.
    pub kind: WorkloadKind,
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// Pods wanted; without meaning for a DaemonSet.
    pub replicas: u32,
    /// What its pods are. Label `app` with the name is added where there are no labels.
    pub template: PodTemplate,
    /// What it selects; none: the labels of the template.
    pub selector: Option<Selector>,
    /// The UID; none: a new one.
    pub uid: Option<u128>,
}

impl WorkloadSpec {
    /// A workload of plain pods.
    pub fn new(kind: WorkloadKind, namespace: &str, name: &str, replicas: u32) -> Self {
        let template = PodTemplate { labels: labels([("app", name)]), ..PodTemplate::default() };
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self { kind, namespace, name, replicas, template, selector: None, uid: None }
    }
}

impl World {
    /// Adds a node with its machine, and the mirrors of its static pods; none where the name is taken.
    pub fn add_node(&mut self, spec: &NodeSpec) -> Option<u32> {
        let mut all: BTreeMap<Text, Text> =
            spec.labels.iter().map(|(key, value)| (Text::from(key.as_str()), Text::from(value.as_str()))).collect();
        // What a kubelet says of its machine.
        for (key, value) in [
            ("kubernetes.io/arch", spec.architecture.as_str()),
            ("kubernetes.io/hostname", &spec.name),
            ("kubernetes.io/os", "linux"),
        ] {
            all.entry(key.into()).or_insert_with(|| value.into());
        }
        let mut meta = self.new_meta("", &spec.name, &Arc::new(all));
        if let Some(uid) = spec.uid {
            meta.uid = uid;
        }
        let machine_id: Text = match &spec.machine_id {
            Some(id) => id.as_str().into(),
            None => format!("{:032x}", self.new_uid()).into(),
        };
        let boot_id: Text = super::uuid_text(self.new_uid()).into();
        let node = Node {
            meta,
            unschedulable: spec.unschedulable,
            taints: Arc::new(spec.taints.clone()),
            capacity: spec.allocatable,
            allocatable: spec.allocatable,
            info: NodeInfo {
                machine_id: machine_id.clone(),
                boot_id: boot_id.clone(),
                architecture: spec.architecture.as_str().into(),
                kubelet_version: spec.kubelet.version.clone(),
                container_runtime_version: runtime_version(&spec.runtime.version),
            },
            ready: if spec.ready { Some(true) } else { None },
            ready_since: self.now,
            not_ready_why: if spec.ready { "".into() } else { "Kubelet stopped posting node status.".into() },
        };
        let version = self.next_version();
        let id = self.nodes.insert(node, version)?;
        let installed = |executable: &Executable| Installed {
            disk: executable.clone(),
            running: spec.ready.then(|| executable.clone()),
        };
        let static_pods = spec.control_plane.iter().map(|(component, image)| {
            let image = Text::from(image.as_str());
            let pod =
                StaticPod { running: Some(image.clone()), image, started_at: self.now, healthy: true, broken: false };
            (*component, pod)
        });
        let machine = Machine {
            name: spec.name.as_str().into(),
            machine_id,
            boot_id,
            architecture: spec.architecture.as_str().into(),
            on: spec.ready,
            kubelet: installed(&spec.kubelet),
            runtime: installed(&spec.runtime),
            static_pods: static_pods.collect(),
            emulates: None,
            images: Arc::new(spec.control_plane.values().map(|image| Text::from(image.as_str())).collect()),
            staged: Arc::default(),
            units: Vec::new(),
            kept: Vec::new(),
            journal: Arc::default(),
            disk_free_bytes: 64 << 30,
            disk_sync: Duration::from_millis(4),
            faults: MachineFaults::default(),
            boot: 0,
            kubelet_run: 0,
        };
        let slots = id as usize + 1;
        self.machines.resize(slots, None);
        self.machines[id as usize] = Some(Arc::new(machine));
        self.pods_on.resize(slots, Ids::default());
        self.used.resize(slots, Resources::default());
        self.moves.resize(slots, 0);
        self.repelling.resize(slots, 0);
        if spec.control_plane.contains_key(&ControlPlaneComponent::Etcd) {
            let member = self.etcd.members.len() as u64 + 1;
            self.etcd.members.push(EtcdMember { id: member, machine: id, is_learner: false });
            if self.etcd.leader == 0 {
                self.etcd.leader = member;
            }
        }
        self.made_at.get_or_insert(self.now);
        if !spec.control_plane.is_empty() {
            self.masters.insert(spec.name.as_str().into(), id);
        }
        for component in spec.control_plane.keys() {
            self.put_mirror(id, *component);
        }
        self.reconcile_daemon_sets();
        self.wake_scheduler();
        Some(id)
    }

    /// Adds a workload; its pods come by its controller. None where the name is taken.
    pub fn add_workload(&mut self, spec: &WorkloadSpec) -> Option<WorkloadId> {
        let mut template = spec.template.clone();
        if template.labels.is_empty() {
            template.labels = labels([("app", spec.name.as_str())]);
        }
        if spec.kind == WorkloadKind::DaemonSet {
            daemon_tolerations(&mut template.tolerations);
        }
        let selector = spec
            .selector
            .clone()
            .unwrap_or_else(|| Selector { labels: (*template.labels).clone(), expressions: Vec::new() });
        let mut meta = self.new_meta(spec.namespace.as_str(), &spec.name, &template.labels.clone());
        if let Some(uid) = spec.uid {
            meta.uid = uid;
        }
        let quarter = (spec.replicas.div_ceil(4).max(1), spec.replicas / 4);
        let workload = Workload {
            meta,
            kind: spec.kind,
            replicas: spec.replicas,
            selector,
            template: Arc::new(template),
            revision: 1,
            owner: None,
            surge_and_unavailable: if spec.kind == WorkloadKind::DaemonSet { (0, 1) } else { quarter },
            parallel: false,
            status: WorkloadStatus::default(),
        };
        let version = self.next_version();
        let id = WorkloadId { kind: spec.kind, id: self.workloads_mut(spec.kind).insert(workload, version)? };
        self.pods_of.entry(id);
        self.due(id);
        Some(id)
    }

    /// Adds the ReplicaSet of a Deployment as it is: of the Deployment's template where it is the newest, else an old one.
    pub fn add_replica_set_of(
        &mut self,
        deployment: WorkloadId,
        spec: &WorkloadSpec,
        is_newest: bool,
    ) -> Option<WorkloadId> {
        let id = self.add_workload(spec)?;
        self.workloads_mut(id.kind).change_quietly(id.id, |set| {
            set.owner = Some(deployment);
            set.revision = u32::from(is_newest);
        });
        self.sets_of.entry(deployment).insert(id.id);
        Some(id)
    }

    /// Adds a pod as it is, bound and ready where a node is given: for worlds that are read from elsewhere, and for pods
    /// without a controller. None where the name is taken.
    pub fn add_pod(
        &mut self,
        namespace: &str,
        name: &str,
        template: &Arc<PodTemplate>,
        owner: Option<WorkloadId>,
        node: Option<u32>,
    ) -> Option<u32> {
        let meta = self.new_meta(namespace, name, &template.labels);
        let pod = Pod {
            meta,
            template: template.clone(),
            owner,
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
        };
        let id = self.insert_pod(pod)?;
        match node {
            Some(node) => {
                self.bind(id, node);
                let version = self.next_version();
                let now = self.now;
                self.pods.change(id, version, |pod| {
                    pod.phase = Phase::Running;
                    pod.started_at = Some(now);
                    // It does not start any more. What a taint of its node told to end does not either, and ends.
                    pod.life += u32::from(pod.deletion.is_none());
                });
                if !template.behaviour.crashes {
                    self.set_ready(id, true);
                }
            }
            None => self.wake_scheduler(),
        }
        Some(id)
    }

    /// Gives a pod the UID that it has elsewhere.
    pub fn set_pod_uid(&mut self, pod: u32, uid: u128) {
        self.pods.change_quietly(pod, |pod| pod.meta.uid = uid);
    }

    /// Lets a StatefulSet start and end its pods all at once.
    pub fn set_parallel(&mut self, set: WorkloadId) {
        self.workloads_mut(set.kind).change_quietly(set.id, |set| set.parallel = true);
    }

    /// Adds a budget.
    pub fn add_budget(&mut self, namespace: &str, name: &str, selector: Option<Selector>, keep: Keep) -> Option<u32> {
        let meta = self.new_meta(namespace, name, &Labels::default());
        let budget = Budget {
            meta,
            selector,
            keep,
            always_allow_unhealthy: false,
            healthy: 0,
            desired_healthy: 0,
            expected: 0,
            allowed: 0,
            disrupted: BTreeMap::new(),
        };
        let version = self.next_version();
        let id = self.budgets.insert(budget, version)?;
        self.gather_budget(id);
        self.budget_due(id);
        Some(id)
    }

    /// Adds a claim with its volume: in a zone, or on one node, or anywhere.
    pub fn add_claim(&mut self, namespace: &str, name: &str, zone: Option<&str>, node: Option<&str>) -> Option<u32> {
        let meta = self.new_meta(namespace, name, &Labels::default());
        let claim = VolumeClaim { meta, zone: zone.map(Text::from), node: node.map(Text::from), attached: None };
        let version = self.next_version();
        self.claims.insert(claim, version)
    }

    /// Adds a Service.
    pub fn add_service(&mut self, namespace: &str, name: &str, selector: Option<Labels>, ports: &[u16]) -> Option<u32> {
        let meta = self.new_meta(namespace, name, &Labels::default());
        let cluster_ip = format!("10.96.{}.{}", self.uids / 250 % 250, self.uids % 250 + 1).into();
        let service = Service { meta, selector, cluster_ip, ports: ports.to_vec() };
        let version = self.next_version();
        self.services.insert(service, version)
    }

    /// Lets everything settle: until nothing happens any more, at most so long.
    pub fn settle(&mut self, at_most: Duration) {
        let limit = self.now + at_most;
        while self.next_at().is_some_and(|at| at <= limit) {
            self.step();
        }
    }

    /// The machines' names of images and files that are there, as after a prefetch.
    pub fn stage(&mut self, node: u32, images: impl IntoIterator<Item = Text>, files: impl IntoIterator<Item = Text>) {
        self.change_machine(node, |machine| {
            let add = |set: &mut Arc<BTreeSet<Text>>, more: &mut dyn Iterator<Item = Text>| {
                let held = Arc::make_mut(set);
                held.extend(more);
            };
            add(&mut machine.images, &mut images.into_iter());
            add(&mut machine.staged, &mut files.into_iter());
        });
    }
}

/// As a kubelet tells it.
pub(super) fn runtime_version(version: &str) -> Text {
    format!("containerd://{}", version.trim_start_matches('v')).into()
}

/// What the DaemonSet controller adds to each pod.
fn daemon_tolerations(tolerations: &mut Vec<Toleration>) {
    for (key, effect) in [
        ("node.kubernetes.io/not-ready", Effect::NoExecute),
        ("node.kubernetes.io/unreachable", Effect::NoExecute),
        ("node.kubernetes.io/not-ready", Effect::NoSchedule),
        ("node.kubernetes.io/unreachable", Effect::NoSchedule),
        ("node.kubernetes.io/unschedulable", Effect::NoSchedule),
    ] {
        let toleration = Toleration { key: key.into(), value: None, effect: Some(effect), seconds: None };
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
}
