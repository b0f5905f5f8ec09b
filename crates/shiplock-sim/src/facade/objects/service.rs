//! Services, and the EndpointSlices that are computed from their pods when they are asked for.

use serde_json::{Value, json};

use super::metadata::{envelope, put, read_strings, strings, write};
use super::pod::pod_address;
use crate::world::{Labels, Service, World};

/// Renders a Service.
pub(super) fn render(_: &World, _: u32, service: &Service) -> Value {
    let mut object = envelope("v1", "Service", &service.meta);
    let port =
        |port: &u16| json!({"name": format!("port-{port}"), "port": port, "targetPort": port, "protocol": "TCP"});
    let mut spec = json!({
        "type": "ClusterIP",
        "clusterIP": &*service.cluster_ip,
        "clusterIPs": [&*service.cluster_ip],
        "ports": service.ports.iter().map(port).collect::<Vec<_>>(),
        "sessionAffinity": "None",
    });
    put(&mut spec, "selector", service.selector.as_ref().map_or(Value::Null, |labels| strings(labels)));
    object["spec"] = spec;
    object["status"] = json!({"loadBalancer": {}});
    object
}

fn read_selector(spec: &Value) -> Option<Labels> {
    spec["selector"].is_object().then(|| read_strings(&spec["selector"]))
}

fn read_ports(spec: &Value) -> Vec<u16> {
    let ports = spec["ports"].as_array().into_iter().flatten();
    ports.filter_map(|port| u16::try_from(port["port"].as_u64()?).ok()).collect()
}

/// Makes a Service; none where the name is taken.
pub(super) fn create(world: &mut World, object: &Value) -> Option<u32> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let spec = &object["spec"];
    let id = world.add_service(text("namespace"), text("name"), read_selector(spec), &read_ports(spec))?;
    replace(world, id, object);
    Some(id)
}

/// Takes what may be changed of a Service: labels, annotations, selector, ports.
pub(super) fn replace(world: &mut World, id: u32, object: &Value) {
    let (selector, ports) = (read_selector(&object["spec"]), read_ports(&object["spec"]));
    world.change_service(id, |service| {
        service.selector = selector;
        service.ports = ports;
        write(&mut service.meta, object);
    });
}

/// The EndpointSlice of a Service.
pub(super) fn slice(world: &World, service: &Service) -> Value {
    let mut object = envelope("discovery.k8s.io/v1", "EndpointSlice", &service.meta);
    object["metadata"]["labels"]["kubernetes.io/service-name"] = (&*service.meta.name).into();
    object["metadata"]["resourceVersion"] = world.version().to_string().into();
    let endpoint = |id: u32| {
        let pod = world.pods().get(id)?;
        let node = world.nodes().get(pod.node?)?;
        Some(json!({
            "addresses": [pod_address(id)],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": &*node.meta.name,
            "targetRef": {"kind": "Pod", "namespace": &*pod.meta.namespace, "name": &*pod.meta.name},
        }))
    };
    let port = |port: &u16| json!({"name": format!("port-{port}"), "port": port, "protocol": "TCP"});
    object["addressType"] = "IPv4".into();
    object["endpoints"] = world.endpoints(service).into_iter().filter_map(endpoint).collect();
    object["ports"] = service.ports.iter().map(port).collect();
    object
}
