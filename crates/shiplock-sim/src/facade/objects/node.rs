//! Nodes.

use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::metadata::{envelope, put, read_strings, time, write};
use crate::world::{Effect, Node, Resources, Taint, Text, World, uuid_text};

/// What the node lifecycle controller and a cordon bring; it is no setting of anybody.
const BROUGHT: [&str; 3] =
    ["node.kubernetes.io/unschedulable", "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// The address of the machine with an id.
pub(super) fn address(id: u32) -> String {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 0, 0, 1)) + id).to_string()
}

fn amounts(resources: Resources) -> Value {
    let cpu = if resources.cpu_millis % 1000 == 0 {
        (resources.cpu_millis / 1000).to_string()
    } else {
        format!("{}m", resources.cpu_millis)
    };
    json!({"cpu": cpu, "memory": format!("{}Ki", resources.memory_bytes >> 10), "pods": resources.pods.to_string()})
}

/// Renders a node.
pub(super) fn render(_: &World, id: u32, node: &Node) -> Value {
    let mut object = envelope("v1", "Node", &node.meta);
    let mut spec = json!({});
    if node.unschedulable {
        spec["unschedulable"] = true.into();
    }
    let taint = |(key, value, effect): (&str, &str, Effect)| {
        let mut taint = json!({"key": key, "effect": effect.word()});
        if !value.is_empty() {
            taint["value"] = value.into();
        }
        taint
    };
    let taints: Vec<Value> = node.all_taints().map(taint).collect();
    if !taints.is_empty() {
        spec["taints"] = taints.into();
    }
    object["spec"] = spec;
    let since = time(node.ready_since);
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": since,
            "lastTransitionTime": since,
        })
    };
    let pressure = |kind: &str, reason: &str, message: &str| match node.ready {
        Some(_) => condition(kind, "False", reason, message),
        None => condition(kind, "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status."),
    };
    let why = &*node.not_ready_why;
    let ready = match node.ready {
        Some(true) => condition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        Some(false) => {
            condition("Ready", "False", "KubeletNotReady", if why.is_empty() { "kubelet is not ready" } else { why })
        }
        None => condition("Ready", "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status."),
    };
    object["status"] = json!({
        "capacity": amounts(node.capacity),
        "allocatable": amounts(node.allocatable),
        "conditions": [
            pressure("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            pressure("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            pressure("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ready,
        ],
        "addresses": [
            {"type": "InternalIP", "address": address(id)},
            {"type": "Hostname", "address": &*node.meta.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": {
            "machineID": &*node.info.machine_id,
            "systemUUID": &*node.info.machine_id,
            "bootID": &*node.info.boot_id,
            "kernelVersion": "6.1.0-simulated",
            "osImage": "Simulated Linux",
            "containerRuntimeVersion": &*node.info.container_runtime_version,
            "kubeletVersion": &*node.info.kubelet_version,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": &*node.info.architecture,
        },
    });
    object
}

fn read_taints(value: &Value) -> Vec<Taint> {
    let one = |value: &Value| {
        let key = value["key"].as_str()?;
        let word = value["effect"].as_str()?;
        let effects = [Effect::NoSchedule, Effect::PreferNoSchedule, Effect::NoExecute];
        let effect = effects.into_iter().find(|effect| effect.word() == word)?;
        let value = Text::from(value["value"].as_str().unwrap_or_default());
        (!BROUGHT.contains(&key)).then(|| Taint { key: key.into(), value, effect })
    };
    value.as_array().into_iter().flatten().filter_map(one).collect()
}

/// Takes what may be changed of a node: labels, annotations, taints, cordon.
pub(super) fn replace(world: &mut World, id: u32, object: &Value) {
    let labels = read_strings(&object["metadata"]["labels"]);
    let annotations = read_strings(&object["metadata"]["annotations"]);
    let unschedulable = object["spec"]["unschedulable"] == true;
    let taints = read_taints(&object["spec"]["taints"]);
    let same = world.nodes().get(id).is_some_and(|node| {
        node.meta.labels == labels
            && node.meta.annotations == annotations
            && node.unschedulable == unschedulable
            && *node.taints == taints
    });
    if same {
        return;
    }
    world.change_node(id, |node| {
        write(&mut node.meta, object);
        node.unschedulable = unschedulable;
        node.taints = Arc::new(taints);
    });
}

/// The part of a Lease in `kube-node-lease` that a kubelet renews.
pub(super) fn lease(world: &World, name: &str) -> Option<Value> {
    let id = world.nodes().id("", name)?;
    let node = world.nodes().get(id)?;
    let runs = world.machine(id).is_some_and(|machine| machine.kubelet_runs());
    let renewed = if runs { world.now() } else { node.ready_since };
    let mut object = envelope("coordination.k8s.io/v1", "Lease", &node.meta);
    object["metadata"] = json!({
        "name": name,
        "namespace": "kube-node-lease",
        // Unlike that of the node.
        "uid": uuid_text(!node.meta.uid),
        "resourceVersion": object["metadata"]["resourceVersion"],
        "creationTimestamp": object["metadata"]["creationTimestamp"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uuid_text(node.meta.uid)}],
    });
    put(
        &mut object,
        "spec",
        json!({
            "holderIdentity": name,
            "leaseDurationSeconds": 40,
            "renewTime": super::metadata::micro_time(renewed),
        }),
    );
    Some(object)
}
