//! From Kubernetes objects to facts. Pure; what is not a fact is dropped here, so that whole objects are never kept.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Node, Pod, PodTemplateSpec, Toleration};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::core::{Selector, SelectorExt as _};
use shiplock_core::facts::{
    AddonEdit, AddonFacts, BudgetFacts, ControlPlaneComponent, ControlPlanePodFacts, NodeFacts, NodeOwner, PodFacts,
    Readiness, WorkloadFacts,
};
use shiplock_core::id::{NodeName, ObjectUid};

use crate::port::DrainPod;

/// The annotation that marks a node as ours.
pub(crate) const OWNER_ANNOTATION: &str = "shiplock.dev/owner";
/// The kubelet writes this annotation on the mirrors of static pods.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";
/// The taint that a cordon brings.
const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";
/// A Deployment names its ReplicaSets after itself and this label.
const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";
/// No reason of a node's condition is kept longer than this many characters.
const REASON_CHARACTERS_MAX: usize = 300;
/// So many fields of an edit are named.
const ADDON_FIELDS_MAX: usize = 20;
/// Set by `kubectl rollout restart`.
const RESTARTED_ANNOTATION: &str = "kubectl.kubernetes.io/restartedAt";

/// Facts of a node. An unreadable mark is not ours and shows as none.
pub(crate) fn node_facts(node: Node) -> NodeFacts {
    let owner =
        node.metadata.annotations.as_ref().and_then(|all| all.get(OWNER_ANNOTATION)).and_then(|text| owner(text));
    let status = node.status.unwrap_or_default();
    let spec = node.spec.unwrap_or_default();
    let info = status.node_info.unwrap_or_default();
    let ready = status.conditions.unwrap_or_default().into_iter().find(|condition| condition.type_ == "Ready");
    let ready = match ready {
        Some(condition) if condition.status == "True" => Readiness::Ready,
        Some(condition) => {
            let why = condition.message.filter(|text| !text.is_empty()).or(condition.reason).unwrap_or_default();
            Readiness::NotReady { why: why.chars().take(REASON_CHARACTERS_MAX).collect() }
        }
        None => Readiness::NotReady { why: "it has no Ready condition yet".to_owned() },
    };
    let taints = spec.taints.unwrap_or_default().into_iter();
    NodeFacts {
        uid: uid(&node.metadata),
        machine_id: info.machine_id.into(),
        boot_id: info.boot_id,
        architecture: info.architecture,
        kubelet_version: info.kubelet_version,
        container_runtime_version: info.container_runtime_version,
        ready,
        unschedulable: spec.unschedulable.unwrap_or(false),
        owner,
        taints: taints
            .filter(|taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute")
            .map(|taint| taint.key)
            .collect(),
        labels: node.metadata.labels.unwrap_or_default(),
    }
}

/// Reads a mark.
pub(crate) fn owner(text: &str) -> Option<NodeOwner> {
    serde_json::from_str(text).ok()
}

/// Whether a pod has run to its end: it holds nothing on its node any more.
pub(crate) fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Facts of a pod that is not finished.
pub(crate) fn pod_facts(pod: Pod) -> PodFacts {
    let controller = controller(&pod.metadata).map(|owner| format!("{}/{}", owner.kind, owner.name));
    let is_mirror = is_mirror(&pod.metadata);
    let uid = uid(&pod.metadata);
    let spec = pod.spec.unwrap_or_default();
    PodFacts {
        namespace: pod.metadata.namespace.unwrap_or_default(),
        name: pod.metadata.name.unwrap_or_default(),
        uid,
        node: spec.node_name.filter(|name| !name.is_empty()).map(NodeName::from),
        controller,
        is_mirror,
        tolerates_unschedulable: tolerates_unschedulable(spec.tolerations.as_deref().unwrap_or_default()),
    }
}

/// A pod, and what it tells of the control plane where it is the mirror of one of its static pods.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeenPod {
    pub(crate) facts: PodFacts,
    pub(crate) control_plane: Option<Box<ControlPlanePodFacts>>,
}

impl SeenPod {
    pub(crate) fn new(pod: Pod) -> Self {
        let control_plane = control_plane_pod(&pod).map(Box::new);
        Self { facts: pod_facts(pod), control_plane }
    }
}

/// kubeadm labels its static pods `tier=control-plane` and `component=NAME`.
fn control_plane_pod(pod: &Pod) -> Option<ControlPlanePodFacts> {
    if pod.metadata.namespace.as_deref() != Some("kube-system") || !is_mirror(&pod.metadata) {
        return None;
    }
    let labels = pod.metadata.labels.as_ref()?;
    let component = ControlPlaneComponent::from_name(labels.get("component")?)?;
    let spec = pod.spec.as_ref()?;
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    Some(ControlPlanePodFacts {
        node: NodeName::from(spec.node_name.as_deref()?),
        component,
        image: spec.containers.first().and_then(|container| container.image.clone()).unwrap_or_default(),
        ready: conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        restarts: containers.iter().map(|container| i64::from(container.restart_count)).sum(),
    })
}

/// A pod as a drain sees it; `budgets` are those of the whole cluster.
pub(crate) fn drain_pod<'a>(pod: Pod, budgets: impl IntoIterator<Item = &'a Budget>) -> DrainPod {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let none = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    let selecting = budgets.into_iter().filter(|budget| budget.facts.namespace == namespace && budget.selects(labels));
    let selecting: Vec<&Budget> = selecting.collect();
    let budgets = selecting.iter().map(|budget| format!("{}/{}", budget.facts.namespace, budget.facts.name)).collect();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let admitted_at = selecting.iter().filter_map(|budget| budget.disrupted.get(&name).copied()).max();
    let controller = controller(&pod.metadata);
    let owner = controller.map(|owner| top_controller(owner, labels));
    let is_daemon = controller.is_some_and(|owner| owner.kind == "DaemonSet");
    let is_mirror = is_mirror(&pod.metadata);
    let uid = uid(&pod.metadata);
    let is_terminating = pod.metadata.deletion_timestamp.is_some();
    let spec = pod.spec.unwrap_or_default();
    DrainPod {
        namespace: namespace.into(),
        name: pod.metadata.name.unwrap_or_default().into(),
        uid,
        owner,
        is_mirror,
        is_daemon,
        tolerates_unschedulable: tolerates_unschedulable(spec.tolerations.as_deref().unwrap_or_default()),
        is_terminating,
        grace_seconds: spec.termination_grace_period_seconds.unwrap_or(30),
        budgets,
        admitted_at,
    }
}

/// A budget with what it selects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Budget {
    pub(crate) facts: BudgetFacts,
    /// None selects nothing, an empty one selects everything in the namespace.
    selector: Option<Selector>,
    /// `status.disruptedPods`: pods whose eviction was admitted and which are not gone, with the time.
    disrupted: BTreeMap<String, Timestamp>,
}

impl Budget {
    /// Reads a budget. A selector that cannot be read selects nothing here; the API server judges for itself.
    pub(crate) fn new(budget: PodDisruptionBudget) -> Self {
        let status = budget.status.unwrap_or_default();
        let facts = BudgetFacts {
            namespace: budget.metadata.namespace.unwrap_or_default(),
            name: budget.metadata.name.unwrap_or_default(),
            disruptions_allowed: i64::from(status.disruptions_allowed),
            expected_pods: i64::from(status.expected_pods),
        };
        let selector = budget.spec.unwrap_or_default().selector.and_then(|selector| Selector::try_from(selector).ok());
        let disrupted = status.disrupted_pods.unwrap_or_default().into_iter().map(|(pod, at)| (pod, at.0)).collect();
        Self { facts, selector, disrupted }
    }

    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}

/// A workload, and what it tells of an add-on where it is one that kubeadm makes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SeenWorkload {
    pub(crate) facts: WorkloadFacts,
    pub(crate) addon: Option<Box<AddonFacts>>,
}

fn addon(
    metadata: &ObjectMeta,
    name: &str,
    template: Option<&PodTemplateSpec>,
    rolled_out: bool,
) -> Option<Box<AddonFacts>> {
    if metadata.namespace.as_deref() != Some("kube-system") || metadata.name.as_deref() != Some(name) {
        return None;
    }
    let container = template.and_then(|template| template.spec.as_ref()?.containers.first());
    let image = container.and_then(|container| container.image.clone()).unwrap_or_default();
    Some(Box::new(AddonFacts { name: name.to_owned(), image, rolled_out, edits: addon_edits(metadata) }))
}

/// What others than kubeadm have set. A number of replicas is kept by kubeadm, and a restart is no setting.
fn addon_edits(metadata: &ObjectMeta) -> Vec<AddonEdit> {
    let mut edits = Vec::new();
    for entry in metadata.managed_fields.iter().flatten() {
        let by = entry.manager.as_deref().unwrap_or("unknown");
        if by == "kubeadm" || entry.subresource.as_deref().is_some_and(|name| !name.is_empty()) {
            continue;
        }
        let mut fields = Vec::new();
        if let Some(spec) = entry.fields_v1.as_ref().and_then(|fields| fields.0.get("f:spec")) {
            leaves("spec", spec, &mut fields);
        }
        fields.retain(|field| field != "spec.replicas" && !field.ends_with(RESTARTED_ANNOTATION));
        fields.truncate(ADDON_FIELDS_MAX);
        if !fields.is_empty() {
            edits.push(AddonEdit { by: by.to_owned(), fields });
        }
    }
    edits
}

/// The paths of a `fieldsV1`, see <https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>.
fn leaves(path: &str, fields: &serde_json::Value, found: &mut Vec<String>) {
    let below: Vec<_> = fields.as_object().into_iter().flatten().filter(|(key, _)| *key != ".").collect();
    if below.is_empty() && found.len() <= ADDON_FIELDS_MAX {
        found.push(path.to_owned());
    }
    for (key, value) in below {
        let name = key.split_once(':').map_or(key.as_str(), |(_, name)| name);
        leaves(&format!("{path}.{name}"), value, found);
    }
}

/// Facts of a Deployment.
pub(crate) fn deployment_facts(object: Deployment) -> SeenWorkload {
    let (spec, status) = (object.spec.unwrap_or_default(), object.status.unwrap_or_default());
    let desired = spec.replicas.unwrap_or(1);
    let newest = status.observed_generation >= object.metadata.generation;
    let counts = [status.updated_replicas, status.available_replicas, status.replicas];
    let rolled_out = newest && counts.iter().all(|count| count.unwrap_or(0) == desired);
    let addon = addon(&object.metadata, "coredns", Some(&spec.template), rolled_out);
    let ready = status.ready_replicas.unwrap_or(0);
    SeenWorkload { facts: workload("Deployment", object.metadata, desired, ready), addon }
}

/// Facts of a StatefulSet.
pub(crate) fn stateful_set_facts(object: StatefulSet) -> SeenWorkload {
    let ready = object.status.unwrap_or_default().ready_replicas.unwrap_or(0);
    let desired = object.spec.and_then(|spec| spec.replicas).unwrap_or(1);
    SeenWorkload { facts: workload("StatefulSet", object.metadata, desired, ready), addon: None }
}

/// Facts of a DaemonSet.
pub(crate) fn daemon_set_facts(object: DaemonSet) -> SeenWorkload {
    let status = object.status.unwrap_or_default();
    let desired = status.desired_number_scheduled;
    let newest = status.observed_generation >= object.metadata.generation;
    let counts = [status.updated_number_scheduled, status.number_available];
    let rolled_out = newest && counts.iter().all(|count| count.unwrap_or(0) == desired);
    let template = object.spec.as_ref().map(|spec| &spec.template);
    let addon = addon(&object.metadata, "kube-proxy", template, rolled_out);
    SeenWorkload { facts: workload("DaemonSet", object.metadata, desired, status.number_ready), addon }
}

fn workload(kind: &str, metadata: ObjectMeta, desired: i32, ready: i32) -> WorkloadFacts {
    WorkloadFacts {
        kind: kind.into(),
        namespace: metadata.namespace.unwrap_or_default().into(),
        name: metadata.name.unwrap_or_default().into(),
        desired: i64::from(desired),
        ready: i64::from(ready),
    }
}

fn uid(metadata: &ObjectMeta) -> ObjectUid {
    ObjectUid::new(metadata.uid.clone().unwrap_or_default())
}

fn is_mirror(metadata: &ObjectMeta) -> bool {
    metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR_ANNOTATION))
}

fn controller(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// The controller above a ReplicaSet is told by the ReplicaSet's name, which saves a request for each pod.
fn top_controller(owner: &OwnerReference, labels: &BTreeMap<String, String>) -> String {
    let deployment = labels
        .get(TEMPLATE_HASH_LABEL)
        .filter(|_| owner.kind == "ReplicaSet")
        .and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    match deployment {
        Some(name) => format!("Deployment {name}"),
        None => format!("{} {}", owner.kind, owner.name),
    }
}

/// Whether the taint of a cordon keeps such a pod away.
fn tolerates_unschedulable(tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let same_key = (key.is_empty() && exists) || key == UNSCHEDULABLE_TAINT;
        let same_value = exists || toleration.value.as_deref().unwrap_or_default().is_empty();
        same_key && same_value && (effect.is_empty() || effect == "NoSchedule")
    })
}

#[cfg(test)]
#[path = "translation_tests.rs"]
mod tests;
