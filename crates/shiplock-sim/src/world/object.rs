//! The objects of a cluster, as far as the world models them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use shiplock_core::facts::ControlPlaneComponent;

use super::moment::Moment;
use super::table::{Object, Text};

/// Labels, annotations or selectors that many objects share.
pub type Labels = Arc<BTreeMap<Text, Text>>;

/// Labels from pairs.
pub fn labels<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Labels {
    Arc::new(pairs.into_iter().map(|(key, value)| (Text::from(key), Text::from(value))).collect())
}

/// What every object has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// `metadata.namespace`; empty for objects of the whole cluster.
    pub namespace: Text,
    /// `metadata.name`.
    pub name: Text,
    /// `metadata.uid`, a UUID.
    pub uid: u128,
    /// `metadata.resourceVersion`.
    pub version: u64,
    /// `metadata.generation`: grows with each change of the spec.
    pub generation: u64,
    /// `metadata.creationTimestamp`.
    pub created_at: Moment,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `metadata.annotations`.
    pub annotations: Labels,
    /// `metadata.managedFields`: which client has set which fields; none where no client has written.
    pub managed_fields: Option<Arc<Value>>,
}

/// A UUID as text.
pub fn uuid_text(uid: u128) -> String {
    let mut text = String::with_capacity(36);
    for (place, byte) in uid.to_be_bytes().into_iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.extend([byte >> 4, byte & 0xf].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])));
    }
    text
}

/// The number of a UUID; none where the text is not one.
pub fn uuid_number(text: &str) -> Option<u128> {
    u128::from_str_radix(&text.replace('-', ""), 16).ok()
}

macro_rules! objects {
    ($($name:ident)*) => {$(
        impl Object for $name {
            fn namespace(&self) -> &Text { &self.meta.namespace }
            fn name(&self) -> &Text { &self.meta.name }
            fn version(&self) -> u64 { self.meta.version }
            fn set_version(&mut self, version: u64) { self.meta.version = version; }
        }
    )*};
}
objects!(Node Pod Workload Budget Lease VolumeClaim Service JsonObject);

/// An amount of what pods ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths of a core.
    pub cpu_millis: i64,
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// Pods: 1 in a request, the most in a capacity.
    pub pods: i64,
}

impl Resources {
    /// Whether a further amount fits under a capacity.
    pub fn fits(self, more: Self, capacity: Self) -> bool {
        let with = self.plus(more, 1);
        (more.cpu_millis == 0 || with.cpu_millis <= capacity.cpu_millis)
            && (more.memory_bytes == 0 || with.memory_bytes <= capacity.memory_bytes)
            && with.pods <= capacity.pods
    }

    /// Adds, or with −1 takes away.
    #[must_use]
    pub fn plus(self, more: Self, times: i64) -> Self {
        Self {
            cpu_millis: self.cpu_millis.saturating_add(times.saturating_mul(more.cpu_millis)),
            memory_bytes: self.memory_bytes.saturating_add(times.saturating_mul(more.memory_bytes)),
            pods: self.pods.saturating_add(times.saturating_mul(more.pods)),
        }
    }
}

/// The effect of a taint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// New pods are kept away.
    NoSchedule,
    /// New pods are kept away where there is another place.
    PreferNoSchedule,
    /// Pods are evicted too.
    NoExecute,
}

impl Effect {
    /// As in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

/// A taint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// The key.
    pub key: Text,
    /// The value.
    pub value: Text,
    /// The effect.
    pub effect: Effect,
}

impl Taint {
    /// Key, value and effect.
    pub(super) fn parts(&self) -> (&str, &str, Effect) {
        (&self.key, &self.value, self.effect)
    }
}

/// A toleration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toleration {
    /// The key; empty matches every one.
    pub key: Text,
    /// The value; none stands for the operator `Exists`.
    pub value: Option<Text>,
    /// The effect; none matches every one.
    pub effect: Option<Effect>,
    /// How long a pod stays under a taint with effect `NoExecute`; none for ever.
    pub seconds: Option<i64>,
}

impl Toleration {
    /// Whether it tolerates a taint, given by key, value and effect.
    fn tolerates(&self, (key, value, effect): (&str, &str, Effect)) -> bool {
        (self.key.is_empty() || &*self.key == key)
            && self.value.as_ref().is_none_or(|own| &**own == value)
            && self.effect.is_none_or(|own| own == effect)
    }
}

/// The key of the taint that a cordon brings.
pub(super) const CORDON_TAINT: &str = "node.kubernetes.io/unschedulable";

/// A Node.
#[derive(Clone, Debug)]
pub struct Node {
    /// What every object has.
    pub meta: Meta,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// `spec.taints`, without the ones of the node lifecycle controller.
    pub taints: Arc<Vec<Taint>>,
    /// `status.capacity`.
    pub capacity: Resources,
    /// `status.allocatable`.
    pub allocatable: Resources,
    /// `status.nodeInfo` as its kubelet last told it.
    pub info: NodeInfo,
    /// The Ready condition: none is Unknown, the kubelet is not heard of.
    pub ready: Option<bool>,
    /// Since when the Ready condition is as it is.
    pub ready_since: Moment,
    /// Why it is not Ready.
    pub not_ready_why: Text,
}

/// What a kubelet tells of its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// `machineID`.
    pub machine_id: Text,
    /// `bootID`.
    pub boot_id: Text,
    /// `architecture`.
    pub architecture: Text,
    /// `kubeletVersion`.
    pub kubelet_version: Text,
    /// `containerRuntimeVersion`.
    pub container_runtime_version: Text,
}

impl Node {
    /// Whether it is Ready.
    pub fn is_ready(&self) -> bool {
        self.ready == Some(true)
    }

    /// The zone label.
    pub fn zone(&self) -> Option<&Text> {
        self.meta.labels.get("topology.kubernetes.io/zone")
    }

    /// Key, value and effect of every taint, also of those that a cordon and the node lifecycle controller bring.
    pub fn all_taints(&self) -> impl Iterator<Item = (&str, &str, Effect)> {
        let cordon = self.unschedulable.then_some((CORDON_TAINT, "", Effect::NoSchedule));
        let of_lifecycle = match self.ready {
            Some(true) => None,
            Some(false) => Some("node.kubernetes.io/not-ready"),
            None => Some("node.kubernetes.io/unreachable"),
        };
        let both = |key| [(key, "", Effect::NoSchedule), (key, "", Effect::NoExecute)];
        self.taints.iter().map(Taint::parts).chain(cordon).chain(of_lifecycle.into_iter().flat_map(both))
    }
}

/// One requirement of a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: Text,
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    pub values: Vec<Text>,
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The label is one of the values.
    In,
    /// It is not there or none of the values.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
    /// It is a greater number.
    Greater,
    /// It is a smaller number.
    Less,
}

impl Requirement {
    /// Whether labels meet it.
    pub fn matches(&self, labels: &BTreeMap<Text, Text>) -> bool {
        let found = labels.get(&self.key);
        let number = |text: Option<&Text>| text.and_then(|text| text.parse::<i64>().ok());
        match self.operator {
            Operator::In => found.is_some_and(|value| self.values.contains(value)),
            Operator::NotIn => found.is_none_or(|value| !self.values.contains(value)),
            Operator::Exists => found.is_some(),
            Operator::DoesNotExist => found.is_none(),
            Operator::Greater => number(found).zip(number(self.values.first())).is_some_and(|(a, b)| a > b),
            Operator::Less => number(found).zip(number(self.values.first())).is_some_and(|(a, b)| a < b),
        }
    }
}

/// A label selector. One without terms selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// `matchLabels`.
    pub labels: BTreeMap<Text, Text>,
    /// `matchExpressions`.
    pub expressions: Vec<Requirement>,
}

impl Selector {
    /// One of labels alone.
    pub fn of<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let labels = pairs.into_iter().map(|(key, value)| (Text::from(key), Text::from(value))).collect();
        Self { labels, expressions: Vec::new() }
    }

    /// Whether it selects labels.
    pub fn matches(&self, labels: &BTreeMap<Text, Text>) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.expressions.iter().all(|requirement| requirement.matches(labels))
    }
}

/// A required affinity or anti-affinity to pods of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTerm {
    /// Which pods.
    pub selector: Selector,
    /// The label that says which nodes are one place.
    pub topology_key: Text,
}

/// A topology spread constraint with `DoNotSchedule`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// Which pods.
    pub selector: Selector,
    /// The label that says which nodes are one place.
    pub topology_key: Text,
    /// `maxSkew`.
    pub max_skew: i64,
}

/// What pods of one template are, shared by all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct PodTemplate {
    /// The labels.
    pub labels: Labels,
    /// The annotations.
    pub annotations: Labels,
    /// The containers with their images.
    pub containers: Vec<(Text, Text)>,
    /// The sum of requests.
    pub requests: Resources,
    /// `nodeSelector`.
    pub node_selector: Labels,
    /// Required node affinity: one of these must hold whole. Empty: anywhere.
    pub node_affinity: Vec<Vec<Requirement>>,
    /// Required affinity to pods.
    pub pod_affinity: Vec<PodTerm>,
    /// Required anti-affinity to pods.
    pub pod_anti_affinity: Vec<PodTerm>,
    /// Topology spread with `DoNotSchedule`.
    pub spread: Vec<Spread>,
    /// The tolerations.
    pub tolerations: Vec<Toleration>,
    /// Ports of the node that it takes.
    pub host_ports: Vec<u16>,
    /// Claims of volumes, in the pod's namespace.
    pub claims: Vec<Text>,
    /// It uses a directory of its node (`emptyDir`, `hostPath`): `kubectl drain` asks before it deletes such pods.
    pub local_storage: bool,
    /// `terminationGracePeriodSeconds`.
    pub grace_seconds: i64,
    /// `priority`.
    pub priority: i32,
    /// How it behaves.
    pub behaviour: Behaviour,
}

impl PodTemplate {
    /// Whether its pods tolerate a cordoned node.
    pub fn tolerates_cordon(&self) -> bool {
        self.tolerates((CORDON_TAINT, "", Effect::NoSchedule))
    }

    /// Whether its pods tolerate a taint, given by key, value and effect.
    pub(super) fn tolerates(&self, taint: (&str, &str, Effect)) -> bool {
        self.tolerations.iter().any(|toleration| toleration.tolerates(taint))
    }

    /// How long its pods stay under a taint with effect `NoExecute`; none for ever. Of several tolerations the shortest counts.
    pub(super) fn tolerates_for(&self, taint: (&str, &str, Effect)) -> Option<Duration> {
        if !self.tolerates(taint) {
            return Some(Duration::ZERO);
        }
        let tolerating = self.tolerations.iter().filter(|toleration| toleration.tolerates(taint));
        let seconds = tolerating.filter_map(|toleration| toleration.seconds).min()?;
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }
}

impl Default for PodTemplate {
    fn default() -> Self {
        Self {
            labels: Labels::default(),
            annotations: Labels::default(),
            containers: vec![(Text::from("main"), Text::from("registry.example/app:1"))],
            requests: Resources { cpu_millis: 100, memory_bytes: 128 << 20, pods: 1 },
            node_selector: Labels::default(),
            node_affinity: Vec::new(),
            pod_affinity: Vec::new(),
            pod_anti_affinity: Vec::new(),
            spread: Vec::new(),
            tolerations: Vec::new(),
            host_ports: Vec::new(),
            claims: Vec::new(),
            local_storage: false,
            grace_seconds: 30,
            priority: 0,
            behaviour: Behaviour::default(),
        }
    }
}

/// How pods of a template behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// From the binding to running, where the image is there.
    pub start: Duration,
    /// How much longer where the image is pulled first.
    pub pull: Duration,
    /// From running to ready.
    pub ready: Duration,
    /// From SIGTERM to the end.
    pub stop: Duration,
    /// SIGTERM does nothing: it takes the whole grace period.
    pub ignores_sigterm: bool,
    /// It never becomes ready.
    pub crashes: bool,
    /// A finalizer keeps the object for ever.
    pub finalizer: bool,
    /// A startup probe makes it unready for a moment when its kubelet starts again.
    pub flaps: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            start: Duration::from_millis(1_500),
            pull: Duration::from_secs(4),
            ready: Duration::from_secs(3),
            stop: Duration::from_secs(1),
            ignores_sigterm: false,
            crashes: false,
            finalizer: false,
            flaps: false,
        }
    }
}

/// A pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// What every object has; labels and annotations are the template's unless changed.
    pub meta: Meta,
    /// Its spec.
    pub template: Arc<PodTemplate>,
    /// Its controller.
    pub owner: Option<WorkloadId>,
    /// The mirror of a static pod.
    pub mirror: Option<ControlPlaneComponent>,
    /// Where it is bound, by the id of the node.
    pub node: Option<u32>,
    /// `status.phase`.
    pub phase: Phase,
    /// The Ready condition.
    pub ready: bool,
    /// Since when the Ready condition is as it is.
    pub ready_since: Moment,
    /// When its containers were started.
    pub started_at: Option<Moment>,
    /// How often a container was started again.
    pub restarts: u32,
    /// It was told to end: when it is killed at the latest.
    pub deletion: Option<Deletion>,
    /// Why it is not bound, as the scheduler says.
    pub unschedulable_why: Option<Text>,
    /// Events of the world for an earlier life of it are void.
    pub(crate) life: u32,
}

/// A pod that was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// When.
    pub asked_at: Moment,
    /// `metadata.deletionTimestamp`.
    pub at: Moment,
}

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not bound, or not started.
    Pending,
    /// Started.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
}

impl Phase {
    /// As in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }
}

impl Pod {
    /// Whether it has run to its end.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Whether its controller counts it: it was not told to end and has not run to its end.
    pub fn is_live(&self) -> bool {
        self.deletion.is_none() && !self.is_finished()
    }

    /// Whether it counts as healthy for a budget.
    pub fn is_healthy(&self) -> bool {
        self.ready && self.deletion.is_none()
    }
}

/// The kinds of controllers of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkloadKind {
    /// Keeps ReplicaSets.
    Deployment,
    /// Keeps so many pods.
    ReplicaSet,
    /// Keeps numbered pods.
    StatefulSet,
    /// Keeps a pod on each node.
    DaemonSet,
}

impl WorkloadKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Deployment, Self::ReplicaSet, Self::StatefulSet, Self::DaemonSet];

    /// As in the API.
    pub fn word(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
        }
    }
}

/// Names a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkloadId {
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its id in the table of its kind.
    pub id: u32,
}

/// A controller of pods.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What every object has.
    pub meta: Meta,
    /// The kind.
    pub kind: WorkloadKind,
    /// `spec.replicas`; without meaning for a DaemonSet.
    pub replicas: u32,
    /// `spec.selector`.
    pub selector: Selector,
    /// `spec.template`.
    pub template: Arc<PodTemplate>,
    /// Grows with each change of the template.
    pub revision: u32,
    /// The Deployment of a ReplicaSet.
    pub owner: Option<WorkloadId>,
    /// The most pods beyond the wanted ones, and the most that are missing, during a roll-out.
    pub surge_and_unavailable: (u32, u32),
    /// Pods of a StatefulSet are made and ended all at once.
    pub parallel: bool,
    /// Its status.
    pub status: WorkloadStatus,
}

/// The status of a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkloadStatus {
    /// Pods there are.
    pub replicas: u32,
    /// Ready pods.
    pub ready: u32,
    /// Pods of the newest template.
    pub updated: u32,
    /// Pods wanted: for a DaemonSet the nodes that it belongs on.
    pub desired: u32,
    /// `observedGeneration`.
    pub observed_generation: u64,
}

/// A number or a percentage of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// So many.
    Count(u32),
    /// So many of a hundred.
    Percent(u32),
}

impl Share {
    /// Of a total, rounded up as upstream does.
    pub fn of(self, total: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => {
                (u64::from(total) * u64::from(percent)).div_ceil(100).try_into().unwrap_or(u32::MAX)
            }
        }
    }
}

/// What a budget keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// `minAvailable`.
    MinAvailable(Share),
    /// `maxUnavailable`.
    MaxUnavailable(Share),
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug)]
pub struct Budget {
    /// What every object has.
    pub meta: Meta,
    /// `spec.selector`; none selects nothing.
    pub selector: Option<Selector>,
    /// What is kept.
    pub keep: Keep,
    /// `unhealthyPodEvictionPolicy: AlwaysAllow`.
    pub always_allow_unhealthy: bool,
    /// `status.currentHealthy`.
    pub healthy: u32,
    /// `status.desiredHealthy`.
    pub desired_healthy: u32,
    /// `status.expectedPods`.
    pub expected: u32,
    /// `status.disruptionsAllowed`.
    pub allowed: u32,
    /// `status.disruptedPods`: evictions whose end the controller has not seen yet.
    pub disrupted: BTreeMap<Text, Moment>,
}

/// A Lease of `coordination.k8s.io/v1`.
#[derive(Clone, Debug)]
pub struct Lease {
    /// What every object has.
    pub meta: Meta,
    /// `spec.holderIdentity`.
    pub holder: Option<Text>,
    /// `spec.leaseDurationSeconds`.
    pub duration_seconds: Option<i32>,
    /// `spec.acquireTime`.
    pub acquired_at: Option<Moment>,
    /// `spec.renewTime`.
    pub renewed_at: Option<Moment>,
    /// `spec.leaseTransitions`.
    pub transitions: Option<i32>,
}

/// A PersistentVolumeClaim with the volume that is bound to it.
#[derive(Clone, Debug)]
pub struct VolumeClaim {
    /// What every object has.
    pub meta: Meta,
    /// The zone of the volume; none: any.
    pub zone: Option<Text>,
    /// The node of a local volume, by name.
    pub node: Option<Text>,
    /// Where it is attached, by the id of the node, and until when a detach takes.
    pub attached: Option<u32>,
}

/// A Service. Its endpoints are computed when they are asked for.
#[derive(Clone, Debug)]
pub struct Service {
    /// What every object has.
    pub meta: Meta,
    /// `spec.selector`; none has no endpoints.
    pub selector: Option<Labels>,
    /// `spec.clusterIP`.
    pub cluster_ip: Text,
    /// The ports.
    pub ports: Vec<u16>,
}

/// An object that the world keeps and does not model.
#[derive(Clone, Debug)]
pub struct JsonObject {
    /// What every object has.
    pub meta: Meta,
    /// The object; `metadata.resourceVersion`, `uid` and `creationTimestamp` are rendered from [`JsonObject::meta`].
    pub value: Arc<Value>,
}
