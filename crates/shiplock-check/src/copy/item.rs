//! From objects of the API to a copy.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::cluster::quantity::milli;

use super::{
    ClusterCopy, CopyBudget, CopyClaim, CopyNode, CopyPod, CopyPodTerm, CopyRequirement, CopyResources, CopySelector,
    CopySpread, CopyTaint, CopyTemplate, CopyToleration, CopyWorkload, Labels,
};

macro_rules! items {
    ($($name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),* $(,)? })*) => {$(
        #[doc = "Read from the API, with the fields that a copy needs."]
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $(#[serde(deserialize_with = "or_default")] $(#[$attribute])* $field: $type,)* }
    )*};
}

/// Kubernetes writes `null` for what is empty in places.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

items! {
    Metadata { name: String, namespace: String, uid: String, labels: Labels, owner_references: Vec<Owner> }
    Owner { kind: String, name: String, controller: bool }
    Node { metadata: Metadata, spec: NodeSpec, status: NodeStatus }
    NodeSpec { unschedulable: bool, taints: Vec<Taint> }
    Taint { key: String, value: String, effect: String }
    NodeStatus { allocatable: BTreeMap<String, String>, conditions: Vec<Condition>, node_info: NodeInfo }
    Condition { r#type: String, status: String, message: String }
    NodeInfo {
        #[serde(rename = "machineID")] machine_id: String,
        architecture: String, kubelet_version: String, container_runtime_version: String,
    }
    Pod { metadata: Metadata, spec: PodSpec, status: PodStatus }
    PodStatus { phase: String, conditions: Vec<Condition> }
    PodSpec {
        node_name: String, containers: Vec<Container>, init_containers: Vec<Container>, volumes: Vec<Volume>,
        termination_grace_period_seconds: Option<i64>, node_selector: Labels, tolerations: Vec<Toleration>,
        affinity: Affinity, overhead: BTreeMap<String, String>, priority: Option<i64>,
        topology_spread_constraints: Vec<Spread>,
    }
    Container {
        name: String, image: String, resources: Requests, ports: Vec<Port>, restart_policy: String,
        readiness_probe: Option<Probe>, startup_probe: Option<Probe>,
    }
    Requests { requests: BTreeMap<String, Value> }
    Port { host_port: Option<u16> }
    Probe { initial_delay_seconds: Option<i64> }
    Volume { empty_dir: Option<Value>, host_path: Option<Value>, persistent_volume_claim: Option<ClaimSource> }
    ClaimSource { claim_name: String }
    Toleration { key: String, operator: String, value: String, effect: String, toleration_seconds: Option<i64> }
    Affinity { node_affinity: NodeAffinity, pod_affinity: PodTerms, pod_anti_affinity: PodTerms }
    NodeAffinity {
        #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")] required: Option<NodeSelector>,
    }
    NodeSelector { node_selector_terms: Vec<NodeTerm> }
    NodeTerm { match_expressions: Vec<Requirement> }
    Requirement { key: String, operator: String, values: Vec<String> }
    PodTerms { #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")] required: Vec<PodTerm> }
    PodTerm { label_selector: Selector, topology_key: String }
    Selector { match_labels: Labels, match_expressions: Vec<Requirement> }
    Spread { label_selector: Selector, topology_key: String, max_skew: i64, when_unsatisfiable: String }
    Workload { metadata: Metadata, spec: WorkloadSpec }
    WorkloadSpec {
        replicas: Option<i64>, selector: Selector, template: Template, pod_management_policy: String,
        volume_claim_templates: Vec<Named>,
    }
    Template { metadata: Metadata, spec: PodSpec }
    Namespace { metadata: Metadata }
    Named { metadata: Metadata }
    Budget { metadata: Metadata, spec: BudgetSpec }
    BudgetSpec {
        min_available: Option<Value>, max_unavailable: Option<Value>, selector: Option<Selector>,
        unhealthy_pod_eviction_policy: String,
    }
    Claim { metadata: Metadata, spec: ClaimSpec }
    ClaimSpec { volume_name: String }
    PersistentVolume { metadata: Metadata, spec: VolumeSpec }
    VolumeSpec { node_affinity: VolumeNodeAffinity }
    VolumeNodeAffinity { required: Option<NodeSelector> }
}

impl Namespace {
    /// The name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The UID.
    pub fn uid(&self) -> &str {
        &self.metadata.uid
    }
}

/// Everything that is listed for a copy.
#[derive(Clone, Debug, Default)]
pub struct Items {
    /// The UID of namespace `kube-system`.
    pub cluster_uid: String,
    /// Nodes.
    pub nodes: Vec<Node>,
    /// Pods.
    pub pods: Vec<Pod>,
    /// Deployments.
    pub deployments: Vec<Workload>,
    /// ReplicaSets.
    pub replica_sets: Vec<Workload>,
    /// StatefulSets.
    pub stateful_sets: Vec<Workload>,
    /// DaemonSets.
    pub daemon_sets: Vec<Workload>,
    /// PodDisruptionBudgets.
    pub budgets: Vec<Budget>,
    /// PersistentVolumeClaims.
    pub claims: Vec<Claim>,
    /// PersistentVolumes.
    pub volumes: Vec<PersistentVolume>,
}

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";
/// Taints that come and go with the state of a node.
const TAINTS_OF_STATE: &[&str] = &[
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/memory-pressure",
    "node.kubernetes.io/disk-pressure",
    "node.kubernetes.io/pid-pressure",
];

/// Templates that are alike are kept once.
#[derive(Default)]
struct Templates {
    all: Vec<CopyTemplate>,
    places: HashMap<CopyTemplate, usize>,
}

impl Templates {
    fn keep(&mut self, template: CopyTemplate) -> usize {
        *self.places.entry(template).or_insert_with_key(|template| {
            self.all.push(template.clone());
            self.all.len() - 1
        })
    }
}

/// Makes a copy.
pub fn cluster_copy(items: Items) -> ClusterCopy {
    let mut templates = Templates::default();
    let mut workloads: Vec<CopyWorkload> = Vec::new();
    let mut places: HashMap<(&'static str, String, String), usize> = HashMap::new();
    let kinds = [
        ("Deployment", items.deployments),
        ("ReplicaSet", items.replica_sets),
        ("StatefulSet", items.stateful_sets),
        ("DaemonSet", items.daemon_sets),
    ];
    for (kind, list) in kinds {
        for item in list {
            let Metadata { name, namespace, uid, owner_references, .. } = item.metadata;
            let owner = owner_references.iter().find(|owner| owner.controller);
            let owner = owner.and_then(|owner| places.get(&("Deployment", namespace.clone(), owner.name.clone())));
            let owner = owner.copied().filter(|_| kind == "ReplicaSet");
            let replicas = item.spec.replicas.unwrap_or(1);
            // Old ReplicaSets are history.
            if kind == "ReplicaSet" && replicas == 0 {
                continue;
            }
            let mut template = template(&item.spec.template.spec, &item.spec.template.metadata.labels);
            if kind == "StatefulSet" {
                template.claims =
                    item.spec.volume_claim_templates.into_iter().map(|claim| claim.metadata.name).collect();
            }
            places.insert((kind, namespace.clone(), name.clone()), workloads.len());
            workloads.push(CopyWorkload {
                kind: kind.to_owned(),
                namespace,
                name,
                uid,
                replicas,
                template: templates.keep(template),
                selector: selector(item.spec.selector),
                owner,
                parallel: item.spec.pod_management_policy == "Parallel",
            });
        }
    }
    let nodes: Vec<CopyNode> = items.nodes.into_iter().map(node).collect();
    let node_places: HashMap<String, usize> =
        nodes.iter().enumerate().map(|(place, node)| (node.name.clone(), place)).collect();
    let mut pods = Vec::new();
    for pod in items.pods {
        if matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
            continue;
        }
        let mut template = template(&pod.spec, &pod.metadata.labels);
        let Metadata { name, namespace, uid, owner_references, .. } = pod.metadata;
        let controller = owner_references.into_iter().find(|owner| owner.controller);
        let is_mirror = controller.as_ref().is_some_and(|owner| owner.kind == "Node");
        let kind = controller
            .as_ref()
            .and_then(|owner| ["ReplicaSet", "StatefulSet", "DaemonSet"].into_iter().find(|kind| *kind == owner.kind));
        let owner = kind.zip(controller.as_ref());
        let owner = owner.and_then(|(kind, owner)| places.get(&(kind, namespace.clone(), owner.name.clone())).copied());
        if kind == Some("DaemonSet") {
            // Each names its own node, and all are alike but for that.
            template.node_affinity.retain(|term| !term.is_empty());
        }
        let other_owner = controller.filter(|_| owner.is_none() && !is_mirror);
        pods.push(CopyPod {
            owner,
            other_owner: other_owner.map(|owner| format!("{} {}", owner.kind, owner.name)),
            node: node_places.get(&pod.spec.node_name).copied(),
            template: templates.keep(template),
            ready: condition(&pod.status.conditions, "Ready").is_some_and(|ready| ready.status == "True"),
            is_mirror,
            namespace,
            name,
            uid,
        });
    }
    let volumes: HashMap<String, VolumeSpec> =
        items.volumes.into_iter().map(|volume| (volume.metadata.name, volume.spec)).collect();
    ClusterCopy {
        cluster_uid: items.cluster_uid,
        nodes,
        templates: templates.all,
        workloads,
        pods,
        budgets: items.budgets.into_iter().map(budget).collect(),
        claims: items.claims.into_iter().filter_map(|claim| claim_place(claim, &volumes)).collect(),
    }
}

fn condition<'a>(conditions: &'a [Condition], name: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.r#type == name)
}

fn node(node: Node) -> CopyNode {
    let amount = |name: &str| node.status.allocatable.get(name).map_or(0, |text| milli(text).unwrap_or(0));
    let ready = condition(&node.status.conditions, "Ready");
    let not_ready = match ready {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(ready.message.clone()),
        None => Some("no condition Ready".to_owned()),
    };
    let taints = node.spec.taints.into_iter().filter(|taint| !TAINTS_OF_STATE.contains(&taint.key.as_str()));
    CopyNode {
        allocatable: CopyResources {
            cpu_millis: amount("cpu"),
            memory_bytes: amount("memory") / 1000,
            pods: amount("pods") / 1000,
        },
        not_ready,
        unschedulable: node.spec.unschedulable,
        taints: taints.map(|taint| CopyTaint { key: taint.key, value: taint.value, effect: taint.effect }).collect(),
        labels: node.metadata.labels,
        name: node.metadata.name,
        uid: node.metadata.uid,
        machine_id: node.status.node_info.machine_id,
        architecture: node.status.node_info.architecture,
        kubelet: node.status.node_info.kubelet_version,
        runtime: node.status.node_info.container_runtime_version,
    }
}

fn template(spec: &PodSpec, labels: &Labels) -> CopyTemplate {
    let delays = spec.containers.iter().flat_map(|container| [&container.readiness_probe, &container.startup_probe]);
    let delays = delays.flatten().filter_map(|probe| probe.initial_delay_seconds);
    let claims = spec.volumes.iter().filter_map(|volume| volume.persistent_volume_claim.as_ref());
    let affinity = &spec.affinity;
    CopyTemplate {
        labels: labels.clone(),
        containers: spec.containers.iter().map(|container| (container.name.clone(), container.image.clone())).collect(),
        requests: requests(spec),
        node_selector: spec.node_selector.clone(),
        node_affinity: affinity.node_affinity.required.as_ref().map_or_else(Vec::new, |required| {
            required
                .node_selector_terms
                .iter()
                .map(|term| term.match_expressions.iter().map(requirement).collect())
                .collect()
        }),
        pod_affinity: affinity.pod_affinity.required.iter().map(pod_term).collect(),
        pod_anti_affinity: affinity.pod_anti_affinity.required.iter().map(pod_term).collect(),
        spread: spec
            .topology_spread_constraints
            .iter()
            .filter(|spread| spread.when_unsatisfiable == "DoNotSchedule")
            .map(|spread| CopySpread {
                selector: selector(spread.label_selector.clone()),
                topology_key: spread.topology_key.clone(),
                max_skew: spread.max_skew,
            })
            .collect(),
        tolerations: spec.tolerations.iter().map(toleration).collect(),
        host_ports: spec
            .containers
            .iter()
            .flat_map(|container| &container.ports)
            .filter_map(|port| port.host_port)
            .filter(|port| *port > 0)
            .collect(),
        claims: claims.map(|claim| claim.claim_name.clone()).collect(),
        local_storage: spec.volumes.iter().any(|volume| volume.empty_dir.is_some() || volume.host_path.is_some()),
        grace_seconds: spec.termination_grace_period_seconds,
        priority: spec.priority.unwrap_or(0),
        ready_delay_seconds: delays.max().unwrap_or(0),
    }
}

/// What the scheduler counts: the containers and sidecars together, or the largest other init container where that is more.
fn requests(spec: &PodSpec) -> CopyResources {
    let of = |container: &Container, name: &str| {
        let text = match container.resources.requests.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => return 0,
        };
        milli(&text).unwrap_or(0)
    };
    let sum = |name: &str| {
        let is_sidecar = |container: &&Container| container.restart_policy == "Always";
        let sidecars: i64 = spec.init_containers.iter().filter(is_sidecar).map(|container| of(container, name)).sum();
        let main: i64 = spec.containers.iter().map(|container| of(container, name)).sum();
        let first = spec.init_containers.iter().filter(|container| !is_sidecar(container));
        let first = first.map(|container| of(container, name)).max().unwrap_or(0);
        let overhead = spec.overhead.get(name).and_then(|text| milli(text)).unwrap_or(0);
        (main.saturating_add(sidecars)).max(first.saturating_add(sidecars)).saturating_add(overhead)
    };
    CopyResources { cpu_millis: sum("cpu"), memory_bytes: sum("memory") / 1000, pods: 1 }
}

fn requirement(requirement: &Requirement) -> CopyRequirement {
    let Requirement { key, operator, values } = requirement.clone();
    CopyRequirement { key, operator, values }
}

fn selector(selector: Selector) -> CopySelector {
    let expressions = selector.match_expressions.iter().map(requirement).collect();
    CopySelector { labels: selector.match_labels, expressions }
}

fn pod_term(term: &PodTerm) -> CopyPodTerm {
    CopyPodTerm { selector: selector(term.label_selector.clone()), topology_key: term.topology_key.clone() }
}

fn toleration(toleration: &Toleration) -> CopyToleration {
    CopyToleration {
        key: toleration.key.clone(),
        value: (toleration.operator != "Exists").then(|| toleration.value.clone()),
        effect: Some(toleration.effect.clone()).filter(|effect| !effect.is_empty()),
        seconds: toleration.toleration_seconds,
    }
}

fn budget(budget: Budget) -> CopyBudget {
    let share = |value: Option<Value>| match value {
        Some(Value::Number(number)) => Some(number.to_string()),
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    CopyBudget {
        namespace: budget.metadata.namespace,
        name: budget.metadata.name,
        selector: budget.spec.selector.map(selector),
        min_available: share(budget.spec.min_available),
        max_unavailable: share(budget.spec.max_unavailable),
        always_allow_unhealthy: budget.spec.unhealthy_pod_eviction_policy == "AlwaysAllow",
    }
}

fn claim_place(claim: Claim, volumes: &HashMap<String, VolumeSpec>) -> Option<CopyClaim> {
    let required = volumes.get(&claim.spec.volume_name)?.node_affinity.required.as_ref()?;
    let value = |wanted: &str| {
        let expressions = required.node_selector_terms.iter().flat_map(|term| &term.match_expressions);
        let mut found = expressions.filter(|expression| expression.key == wanted && expression.operator == "In");
        found.next().and_then(|expression| expression.values.first().cloned())
    };
    let (zone, node) = (value(ZONE), value(HOST));
    let is_bound = zone.is_some() || node.is_some();
    is_bound.then_some(CopyClaim { namespace: claim.metadata.namespace, name: claim.metadata.name, zone, node })
}
