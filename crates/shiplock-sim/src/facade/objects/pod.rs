//! Pods.

use std::sync::Arc;

use serde_json::{Value, json};

use super::metadata::{envelope, owner, put, read_strings, time, write};
use super::node::address;
use super::template;
use crate::world::{Behaviour, Phase, Pod, World, uuid_text};

/// The address of a pod.
pub(super) fn pod_address(id: u32) -> String {
    let [_, a, b, c] = id.to_be_bytes();
    format!("10.{}.{b}.{}", 64 + a % 64, c)
}

/// Renders a pod.
pub(super) fn render(world: &World, id: u32, pod: &Pod) -> Value {
    let mut object = envelope("v1", "Pod", &pod.meta);
    let node = pod.node.and_then(|id| world.nodes().get(id));
    let metadata = &mut object["metadata"];
    if let Some(deletion) = &pod.deletion {
        metadata["deletionTimestamp"] = time(deletion.at);
        metadata["deletionGracePeriodSeconds"] = deletion.at.since(deletion.asked_at).as_secs().into();
    }
    if pod.template.behaviour.finalizer {
        metadata["finalizers"] = json!(["simulated.shiplock.dev/keeps"]);
    }
    match (pod.owner, pod.mirror, node) {
        (Some(id), _, _) => put(metadata, "ownerReferences", owner(world, id)),
        (None, Some(_), Some(node)) => {
            metadata["annotations"]["kubernetes.io/config.mirror"] = pod.life.to_string().into();
            metadata["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "Node", "name": &*node.meta.name,
                "uid": uuid_text(node.meta.uid), "controller": true}]);
        }
        _ => {}
    }
    let mut spec = template::spec(&pod.template);
    if let Some(node) = node {
        spec["nodeName"] = (&*node.meta.name).into();
    }
    spec["enableServiceLinks"] = true.into();
    object["spec"] = spec;
    object["status"] = status(id, pod);
    object
}

fn status(id: u32, pod: &Pod) -> Value {
    let since = time(pod.ready_since);
    let created = time(pod.meta.created_at);
    let condition = |kind: &str, holds: bool, since: &Value| json!({"type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": since});
    let mut scheduled = condition("PodScheduled", pod.node.is_some(), &created);
    if let Some(why) = &pod.unschedulable_why {
        scheduled["reason"] = "Unschedulable".into();
        scheduled["message"] = (&**why).into();
    }
    let mut status = json!({
        "phase": pod.phase.word(),
        "qosClass": "Burstable",
        "conditions": [
            scheduled,
            condition("Initialized", pod.node.is_some(), &created),
            condition("ContainersReady", pod.ready, &since),
            condition("Ready", pod.ready, &since),
        ],
    });
    let Some(node) = pod.node else { return status };
    status["hostIP"] = address(node).into();
    status["startTime"] = created;
    if pod.phase == Phase::Running {
        let ip = if pod.mirror.is_some() { address(node) } else { pod_address(id) };
        status["podIP"] = ip.as_str().into();
        status["podIPs"] = json!([{"ip": ip}]);
    }
    let state = match (pod.phase, pod.started_at) {
        (Phase::Running, Some(started)) => json!({"running": {"startedAt": time(started)}}),
        (Phase::Succeeded, _) => json!({"terminated": {"exitCode": 0, "reason": "Completed"}}),
        (Phase::Failed, _) => json!({"terminated": {"exitCode": 1, "reason": "Error"}}),
        _ if pod.template.behaviour.crashes => json!({"waiting": {"reason": "CrashLoopBackOff"}}),
        _ => json!({"waiting": {"reason": "ContainerCreating"}}),
    };
    let container = |(name, image): &(crate::world::Text, crate::world::Text)| {
        json!({
            "name": &**name,
            "image": &**image,
            "imageID": "",
            "ready": pod.ready,
            "started": pod.phase == Phase::Running,
            "restartCount": pod.restarts,
            "state": state,
            "lastState": {},
        })
    };
    status["containerStatuses"] = pod.template.containers.iter().map(container).collect();
    status
}

/// Makes a pod that nothing controls; none where the name is taken.
pub(super) fn create(world: &mut World, object: &Value) -> Option<u32> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let template = Arc::new(template::read(object, Behaviour::default()));
    let node = object["spec"]["nodeName"].as_str().and_then(|node| world.nodes().id("", node));
    let id = world.add_pod(text("namespace"), text("name"), &template, None, node)?;
    world.change_pod(id, |pod| write(&mut pod.meta, object));
    Some(id)
}

/// Takes what may be changed of a pod: labels and annotations.
pub(super) fn replace(world: &mut World, id: u32, object: &Value) {
    let labels = read_strings(&object["metadata"]["labels"]);
    let mut annotations = read_strings(&object["metadata"]["annotations"]);
    Arc::make_mut(&mut annotations).remove("kubernetes.io/config.mirror");
    let same = world.pods().get(id).is_some_and(|pod| pod.meta.labels == labels && pod.meta.annotations == annotations);
    if !same {
        world.change_pod(id, |pod| {
            write(&mut pod.meta, object);
            pod.meta.annotations = annotations;
        });
    }
}
