//! The copy of a cluster on which an upgrade can be rehearsed: nodes, pods, workloads, budgets, claims.
//!
//! It holds what decides where pods may run and whether they may be evicted, and nothing else: no value of a Secret or
//! ConfigMap, no environment, command or annotation. Pods that are alike share one template, so that a cluster of 150,000
//! pods is a file of some megabytes.

mod bounds;
pub mod item;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::bounds::Refusal;

/// Text by text, as labels are.
pub type Labels = BTreeMap<String, String>;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

macro_rules! saved {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name { $($(#[$field_doc])* #[serde(skip_serializing_if = "is_default")] pub $field: $type,)* }
    )*};
}

saved! {
    /// The copy.
    ClusterCopy {
        /// The UID of namespace `kube-system`.
        cluster_uid: String,
        /// Nodes.
        nodes: Vec<CopyNode>,
        /// What pods are; pods and workloads name them by their place here.
        templates: Vec<CopyTemplate>,
        /// Deployments, ReplicaSets, StatefulSets, DaemonSets; pods name them by their place here.
        workloads: Vec<CopyWorkload>,
        /// Pods that have not ended.
        pods: Vec<CopyPod>,
        /// PodDisruptionBudgets.
        budgets: Vec<CopyBudget>,
        /// PersistentVolumeClaims that are bound to a place.
        claims: Vec<CopyClaim>,
    }
    /// A node.
    CopyNode {
        /// The name.
        name: String,
        /// The UID.
        uid: String,
        /// `machineID`.
        machine_id: String,
        /// The architecture.
        architecture: String,
        /// `kubeletVersion`.
        kubelet: String,
        /// `containerRuntimeVersion`.
        runtime: String,
        /// Why it is not Ready; none where it is.
        not_ready: Option<String>,
        /// Whether it is cordoned.
        unschedulable: bool,
        /// The taints that somebody set.
        taints: Vec<CopyTaint>,
        /// The labels.
        labels: Labels,
        /// What pods may use.
        allocatable: CopyResources,
    }
    /// A taint.
    CopyTaint {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// The effect.
        effect: String,
    }
    /// An amount.
    CopyResources {
        /// CPU in thousandths of a core.
        cpu_millis: i64,
        /// Memory in bytes.
        memory_bytes: i64,
        /// Pods.
        pods: i64,
    }
    /// What pods are.
    CopyTemplate {
        /// The labels.
        labels: Labels,
        /// The containers: name and image.
        containers: Vec<(String, String)>,
        /// The sum of requests.
        requests: CopyResources,
        /// `nodeSelector`.
        node_selector: Labels,
        /// Required node affinity: one of these must hold whole.
        node_affinity: Vec<Vec<CopyRequirement>>,
        /// Required affinity to pods of the same namespace.
        pod_affinity: Vec<CopyPodTerm>,
        /// Required anti-affinity to pods of the same namespace.
        pod_anti_affinity: Vec<CopyPodTerm>,
        /// Topology spread with `DoNotSchedule`.
        spread: Vec<CopySpread>,
        /// The tolerations.
        tolerations: Vec<CopyToleration>,
        /// Ports of the node.
        host_ports: Vec<u16>,
        /// Claims of volumes; those of a StatefulSet by the name of their template.
        claims: Vec<String>,
        /// It uses a directory of its node.
        local_storage: bool,
        /// `terminationGracePeriodSeconds`; 30 where it does not say.
        grace_seconds: Option<i64>,
        /// `priority`.
        priority: i64,
        /// The longest first delay of a readiness or startup probe, in seconds.
        ready_delay_seconds: i64,
    }
    /// A requirement of a selector.
    CopyRequirement {
        /// The label.
        key: String,
        /// `In`, `NotIn`, `Exists`, `DoesNotExist`, `Gt`, `Lt`.
        operator: String,
        /// With what.
        values: Vec<String>,
    }
    /// A label selector.
    CopySelector {
        /// `matchLabels`.
        labels: Labels,
        /// `matchExpressions`.
        expressions: Vec<CopyRequirement>,
    }
    /// Affinity to pods.
    CopyPodTerm {
        /// Which pods.
        selector: CopySelector,
        /// Which nodes are one place.
        topology_key: String,
    }
    /// A topology spread constraint.
    CopySpread {
        /// Which pods.
        selector: CopySelector,
        /// Which nodes are one place.
        topology_key: String,
        /// `maxSkew`.
        max_skew: i64,
    }
    /// A toleration.
    CopyToleration {
        /// The key; empty for any.
        key: String,
        /// The value; none for `Exists`.
        value: Option<String>,
        /// The effect; none for any.
        effect: Option<String>,
        /// For how long.
        seconds: Option<i64>,
    }
    /// A controller of pods.
    CopyWorkload {
        /// `Deployment`, `ReplicaSet`, `StatefulSet` or `DaemonSet`.
        kind: String,
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// The UID.
        uid: String,
        /// How many pods it wants; without meaning for a DaemonSet.
        replicas: i64,
        /// What its pods are.
        template: usize,
        /// Which pods are its own.
        selector: CopySelector,
        /// The Deployment of a ReplicaSet.
        owner: Option<usize>,
        /// Whether a StatefulSet starts its pods all at once.
        parallel: bool,
    }
    /// A pod.
    CopyPod {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// The UID.
        uid: String,
        /// Its controller among the workloads.
        owner: Option<usize>,
        /// A controller of another kind, such as `Job backup-1`.
        other_owner: Option<String>,
        /// Its node.
        node: Option<usize>,
        /// What it is.
        template: usize,
        /// Whether it is ready.
        ready: bool,
        /// It is the mirror of a static pod.
        is_mirror: bool,
    }
    /// A PodDisruptionBudget.
    CopyBudget {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// Which pods; none selects nothing.
        selector: Option<CopySelector>,
        /// How many must stay: a number, or a share such as `50%`.
        min_available: Option<String>,
        /// How many may be away.
        max_unavailable: Option<String>,
        /// `AlwaysAllow`: pods that are not ready may always go.
        always_allow_unhealthy: bool,
    }
    /// A claim that is bound to a place.
    CopyClaim {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// The zone of its volume.
        zone: Option<String>,
        /// The node of its volume.
        node: Option<String>,
    }
}

impl CopyNode {
    /// Whether it is a master.
    pub fn is_master(&self) -> bool {
        self.labels.contains_key(shiplock_core::facts::CONTROL_PLANE_LABEL)
    }
}
