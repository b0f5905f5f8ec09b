//! From the copy in a snapshot to a world.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use shiplock_check::copy::{
    ClusterCopy, CopyBudget, CopyNode, CopyRequirement, CopyResources, CopySelector, CopyTaint, CopyTemplate,
};
use shiplock_core::facts::ControlPlaneComponent;

use crate::world::{
    Behaviour, Effect, Executable, Keep, Labels, Moment, NodeSpec, Operator, Pace, PodTemplate, PodTerm, Requirement,
    Resources, Selector, Share, Spread, Taint, Text, Toleration, WorkloadId, WorkloadKind, WorkloadSpec, World,
    uuid_number,
};

/// So long everything that is missing in the copy, such as a pod of a DaemonSet, has to come before the rehearsal begins.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

/// A world that is as the copy says, at the time when it was taken.
pub fn world_of(copy: &ClusterCopy, taken_at: Timestamp) -> World {
    let pace = Pace { jitter_percent: 0, node_ready: Duration::from_millis(500), ..Pace::default() };
    let mut world = World::new(1, Moment::from(taken_at), pace, 0);
    world.set_cluster_uid(uid(&copy.cluster_uid));
    let nodes = add_nodes(&mut world, copy);
    let mut templates = Templates { copy, kept: HashMap::new() };
    let workloads = add_workloads(&mut world, copy, &mut templates);
    for budget in &copy.budgets {
        add_budget(&mut world, budget);
    }
    for claim in &copy.claims {
        world.add_claim(&claim.namespace, &claim.name, claim.zone.as_deref(), claim.node.as_deref());
    }
    for pod in &copy.pods {
        if pod.is_mirror {
            // The static pods of a control plane came with their machines; others are no concern of an upgrade.
            continue;
        }
        let owner = pod.owner.and_then(|owner| workloads.get(owner).copied().flatten());
        let node = pod.node.and_then(|node| nodes.get(node).copied().flatten());
        let template = templates.of_pod(pod.template, pod.owner, pod.ready || node.is_none());
        if let Some(id) = world.add_pod(&pod.namespace, &pod.name, &template, owner, node) {
            world.set_pod_uid(id, uid(&pod.uid));
        }
    }
    world.settle(SETTLES_WITHIN);
    world
}

/// The number of a UID; a text that is no UUID has one of its own.
pub(super) fn uid(text: &str) -> u128 {
    uuid_number(text).unwrap_or_else(|| {
        // FNV-1a over 128 bits.
        text.bytes().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash: u128, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
        })
    })
}

fn add_nodes(world: &mut World, copy: &ClusterCopy) -> Vec<Option<u32>> {
    let mut control_plane: HashMap<usize, BTreeMap<ControlPlaneComponent, String>> = HashMap::new();
    for pod in copy.pods.iter().filter(|pod| pod.is_mirror && pod.namespace == "kube-system") {
        let Some(node) = pod.node else { continue };
        let component = copy.nodes.get(node).and_then(|node| pod.name.strip_suffix(&format!("-{}", node.name)));
        let image = copy.templates.get(pod.template).and_then(|template| template.containers.first());
        if let (Some(component), Some((_, image))) = (component.and_then(ControlPlaneComponent::from_name), image) {
            control_plane.entry(node).or_default().insert(component, image.clone());
        }
    }
    let mut ids = Vec::new();
    for (place, node) in copy.nodes.iter().enumerate() {
        let executable = |version: &str| Executable { version: version.into(), sha256: "0".repeat(64).into() };
        let id = world.add_node(&NodeSpec {
            name: node.name.clone(),
            labels: node.labels.clone(),
            taints: node.taints.iter().map(taint).collect(),
            unschedulable: node.unschedulable,
            allocatable: resources(&node.allocatable),
            kubelet: executable(&node.kubelet),
            runtime: executable(node.runtime.split_once("://").map_or(node.runtime.as_str(), |(_, version)| version)),
            architecture: node.architecture.clone(),
            control_plane: control_plane.remove(&place).unwrap_or_default(),
            uid: Some(uid(&node.uid)),
            machine_id: Some(node.machine_id.clone()),
            ready: node.not_ready.is_none(),
        });
        if let Some(id) = id {
            keep_as_told(world, id, node);
        }
        ids.push(id);
    }
    ids
}

fn keep_as_told(world: &mut World, id: u32, node: &CopyNode) {
    world.change_node(id, |held| {
        held.info.container_runtime_version = node.runtime.as_str().into();
        if let Some(why) = &node.not_ready {
            held.not_ready_why = why.as_str().into();
        }
    });
}

fn add_workloads(world: &mut World, copy: &ClusterCopy, templates: &mut Templates<'_>) -> Vec<Option<WorkloadId>> {
    // Of the ReplicaSets of one Deployment the one with the most pods counts as the newest.
    let mut newest: HashMap<usize, usize> = HashMap::new();
    for (place, set) in copy.workloads.iter().enumerate() {
        if let Some(owner) = set.owner {
            let best = newest.entry(owner).or_insert(place);
            if copy.workloads[*best].replicas < set.replicas {
                *best = place;
            }
        }
    }
    let newest: HashSet<usize> = newest.into_values().collect();
    let mut ids: Vec<Option<WorkloadId>> = Vec::new();
    for (place, workload) in copy.workloads.iter().enumerate() {
        let kind = match workload.kind.as_str() {
            "Deployment" => WorkloadKind::Deployment,
            "ReplicaSet" => WorkloadKind::ReplicaSet,
            "StatefulSet" => WorkloadKind::StatefulSet,
            _ => WorkloadKind::DaemonSet,
        };
        let spec = WorkloadSpec {
            kind,
            namespace: workload.namespace.clone(),
            name: workload.name.clone(),
            replicas: u32::try_from(workload.replicas).unwrap_or(0),
            template: (*templates.of_workload(workload.template)).clone(),
            selector: Some(selector(&workload.selector)),
            uid: Some(uid(&workload.uid)),
        };
        let deployment = workload.owner.and_then(|owner| ids.get(owner).copied().flatten());
        let id = match deployment {
            Some(deployment) => world.add_replica_set_of(deployment, &spec, newest.contains(&place)),
            None => world.add_workload(&spec),
        };
        if let Some(id) = id.filter(|_| workload.parallel) {
            world.set_parallel(id);
        }
        ids.push(id);
    }
    ids
}

fn add_budget(world: &mut World, budget: &CopyBudget) {
    let share = |text: &String| match text.strip_suffix('%') {
        Some(percent) => Share::Percent(percent.parse().unwrap_or(100)),
        None => Share::Count(text.parse().unwrap_or(0)),
    };
    let keep = match (&budget.min_available, &budget.max_unavailable) {
        (Some(least), _) => Keep::MinAvailable(share(least)),
        (None, Some(most)) => Keep::MaxUnavailable(share(most)),
        // As the disruption controller has it.
        (None, None) => Keep::MinAvailable(Share::Count(1)),
    };
    let id = world.add_budget(&budget.namespace, &budget.name, budget.selector.as_ref().map(selector), keep);
    if let Some(id) = id.filter(|_| budget.always_allow_unhealthy) {
        world.change_budget(id, |budget| budget.always_allow_unhealthy = true);
    }
}

/// Templates of the world, each made once.
struct Templates<'a> {
    copy: &'a ClusterCopy,
    kept: HashMap<(usize, Option<usize>, bool), Arc<PodTemplate>>,
}

impl Templates<'_> {
    fn of_workload(&mut self, template: usize) -> Arc<PodTemplate> {
        self.of_pod(template, None, true)
    }

    /// What a pod is. One that is not ready does not become so by itself.
    fn of_pod(&mut self, template: usize, owner: Option<usize>, ready: bool) -> Arc<PodTemplate> {
        let workload = owner.and_then(|owner| self.copy.workloads.get(owner));
        // The controllers of the world know pods of the present template by these labels.
        let mark = workload.and_then(|workload| match workload.kind.as_str() {
            "DaemonSet" => Some(("pod-template-generation", "1".to_owned())),
            "StatefulSet" => Some(("controller-revision-hash", format!("{}-1", workload.name))),
            _ => None,
        });
        let key = (template, owner.filter(|_| mark.is_some()), ready);
        let copy = self.copy;
        self.kept
            .entry(key)
            .or_insert_with(|| {
                let mut made = copy.templates.get(template).map(pod_template).unwrap_or_default();
                made.behaviour.crashes = !ready;
                if let Some((key, value)) = mark {
                    Arc::make_mut(&mut made.labels).insert(key.into(), value.into());
                }
                Arc::new(made)
            })
            .clone()
    }
}

fn text(text: &str) -> Text {
    Text::from(text)
}

fn labels(labels: &BTreeMap<String, String>) -> Labels {
    Arc::new(labels.iter().map(|(key, value)| (text(key), text(value))).collect())
}

fn resources(resources: &CopyResources) -> Resources {
    let CopyResources { cpu_millis, memory_bytes, pods } = *resources;
    Resources { cpu_millis, memory_bytes, pods }
}

fn effect(effect: &str) -> Effect {
    match effect {
        "NoExecute" => Effect::NoExecute,
        "PreferNoSchedule" => Effect::PreferNoSchedule,
        _ => Effect::NoSchedule,
    }
}

fn taint(taint: &CopyTaint) -> Taint {
    Taint { key: text(&taint.key), value: text(&taint.value), effect: effect(&taint.effect) }
}

fn requirement(requirement: &CopyRequirement) -> Requirement {
    let operator = match requirement.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::Greater,
        "Lt" => Operator::Less,
        _ => Operator::Exists,
    };
    let values = requirement.values.iter().map(|value| text(value)).collect();
    Requirement { key: text(&requirement.key), operator, values }
}

fn selector(selector: &CopySelector) -> Selector {
    Selector {
        labels: selector.labels.iter().map(|(key, value)| (text(key), text(value))).collect(),
        expressions: selector.expressions.iter().map(requirement).collect(),
    }
}

fn pod_template(template: &CopyTemplate) -> PodTemplate {
    let term = |term: &shiplock_check::copy::CopyPodTerm| PodTerm {
        selector: selector(&term.selector),
        topology_key: text(&term.topology_key),
    };
    let delay = Duration::from_secs(u64::try_from(template.ready_delay_seconds).unwrap_or(0));
    PodTemplate {
        labels: labels(&template.labels),
        annotations: Labels::default(),
        containers: template.containers.iter().map(|(name, image)| (text(name), text(image))).collect(),
        requests: resources(&template.requests),
        node_selector: labels(&template.node_selector),
        node_affinity: template.node_affinity.iter().map(|term| term.iter().map(requirement).collect()).collect(),
        pod_affinity: template.pod_affinity.iter().map(term).collect(),
        pod_anti_affinity: template.pod_anti_affinity.iter().map(term).collect(),
        spread: template
            .spread
            .iter()
            .map(|spread| Spread {
                selector: selector(&spread.selector),
                topology_key: text(&spread.topology_key),
                max_skew: spread.max_skew,
            })
            .collect(),
        tolerations: template
            .tolerations
            .iter()
            .map(|toleration| Toleration {
                key: text(&toleration.key),
                value: toleration.value.as_deref().map(text),
                effect: toleration.effect.as_deref().map(effect),
                seconds: toleration.seconds,
            })
            .collect(),
        host_ports: template.host_ports.clone(),
        claims: template.claims.iter().map(|claim| text(claim)).collect(),
        local_storage: template.local_storage,
        grace_seconds: template.grace_seconds.unwrap_or(30),
        priority: i32::try_from(template.priority).unwrap_or(0),
        behaviour: Behaviour { ready: Behaviour::default().ready + delay, ..Behaviour::default() },
    }
}
