//! The columns of each kind.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::duration::{age, human};

/// How a cell is made of an object.
pub(super) type Cell = fn(&Value, Timestamp) -> Value;

/// One column.
pub(super) struct Column {
    pub(super) name: &'static str,
    /// `string` or `integer`.
    pub(super) form: &'static str,
    /// 0 is shown always, 1 with `-o wide` only.
    pub(super) priority: u8,
    pub(super) cell: Cell,
}

const fn text(name: &'static str, cell: Cell) -> Column {
    Column { name, form: "string", priority: 0, cell }
}

const fn number(name: &'static str, cell: Cell) -> Column {
    Column { name, form: "integer", priority: 0, cell }
}

const fn wide(name: &'static str, cell: Cell) -> Column {
    Column { name, form: "string", priority: 1, cell }
}

fn name(object: &Value, _: Timestamp) -> Value {
    object["metadata"]["name"].clone()
}

fn since_creation(object: &Value, now: Timestamp) -> Value {
    age(object["metadata"]["creationTimestamp"].as_str(), now).into()
}

fn creation_time(object: &Value, _: Timestamp) -> Value {
    object["metadata"]["creationTimestamp"].clone()
}

/// A text of the object, or what stands in its place.
fn at<'a>(object: &'a Value, pointer: &str, otherwise: &'a str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty()).unwrap_or(otherwise)
}

fn count(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

fn list<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn joined(texts: impl Iterator<Item = String>, otherwise: &str) -> Value {
    let texts: Vec<String> = texts.collect();
    if texts.is_empty() { otherwise.into() } else { texts.join(",").into() }
}

fn containers(object: &Value, field: &str) -> Value {
    joined(list(object, "/spec/template/spec/containers").map(|one| at(one, &format!("/{field}"), "").to_owned()), "")
}

fn container_names(object: &Value, _: Timestamp) -> Value {
    containers(object, "name")
}

fn container_images(object: &Value, _: Timestamp) -> Value {
    containers(object, "image")
}

fn pairs(labels: Option<&Value>) -> Value {
    let fields = labels.and_then(Value::as_object).into_iter().flatten();
    joined(fields.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())), "<none>")
}

fn match_labels(object: &Value, _: Timestamp) -> Value {
    pairs(object.pointer("/spec/selector/matchLabels"))
}

fn size(object: &Value, pointer: &str) -> Value {
    object.pointer(pointer).and_then(Value::as_object).map_or(0, serde_json::Map::len).into()
}

/// The columns of a kind; those of one without a printer are its name and when it was made.
pub(super) fn columns(kind: &str) -> Vec<Column> {
    match kind {
        "Node" => vec![
            text("Name", name),
            text("Status", node_status),
            text("Roles", node_roles),
            text("Age", since_creation),
            text("Version", |node, _| at(node, "/status/nodeInfo/kubeletVersion", "").into()),
            wide("Internal-IP", |node, _| node_address(node, "InternalIP")),
            wide("External-IP", |node, _| node_address(node, "ExternalIP")),
            wide("OS-Image", |node, _| at(node, "/status/nodeInfo/osImage", "<unknown>").into()),
            wide("Kernel-Version", |node, _| at(node, "/status/nodeInfo/kernelVersion", "<unknown>").into()),
            wide("Container-Runtime", |node, _| {
                at(node, "/status/nodeInfo/containerRuntimeVersion", "<unknown>").into()
            }),
        ],
        "Pod" => vec![
            text("Name", name),
            text("Ready", |pod, _| {
                let ready = list(pod, "/status/containerStatuses").filter(|one| one["ready"] == true).count();
                format!("{ready}/{}", list(pod, "/spec/containers").count()).into()
            }),
            text("Status", pod_status),
            text("Restarts", pod_restarts),
            text("Age", since_creation),
            wide("IP", |pod, _| at(pod, "/status/podIP", "<none>").into()),
            wide("Node", |pod, _| at(pod, "/spec/nodeName", "<none>").into()),
            wide("Nominated Node", |pod, _| at(pod, "/status/nominatedNodeName", "<none>").into()),
            wide("Readiness Gates", |_, _| "<none>".into()),
        ],
        "Deployment" => vec![
            text("Name", name),
            text("Ready", |one, _| {
                format!("{}/{}", count(one, "/status/readyReplicas"), count(one, "/spec/replicas")).into()
            }),
            number("Up-to-date", |one, _| count(one, "/status/updatedReplicas").into()),
            number("Available", |one, _| count(one, "/status/availableReplicas").into()),
            text("Age", since_creation),
            wide("Containers", container_names),
            wide("Images", container_images),
            wide("Selector", match_labels),
        ],
        "ReplicaSet" => vec![
            text("Name", name),
            number("Desired", |one, _| count(one, "/spec/replicas").into()),
            number("Current", |one, _| count(one, "/status/replicas").into()),
            number("Ready", |one, _| count(one, "/status/readyReplicas").into()),
            text("Age", since_creation),
            wide("Containers", container_names),
            wide("Images", container_images),
            wide("Selector", match_labels),
        ],
        "StatefulSet" => vec![
            text("Name", name),
            text("Ready", |one, _| {
                format!("{}/{}", count(one, "/status/readyReplicas"), count(one, "/spec/replicas")).into()
            }),
            text("Age", since_creation),
            wide("Containers", container_names),
            wide("Images", container_images),
        ],
        "DaemonSet" => vec![
            text("Name", name),
            number("Desired", |one, _| count(one, "/status/desiredNumberScheduled").into()),
            number("Current", |one, _| count(one, "/status/currentNumberScheduled").into()),
            number("Ready", |one, _| count(one, "/status/numberReady").into()),
            number("Up-to-date", |one, _| count(one, "/status/updatedNumberScheduled").into()),
            number("Available", |one, _| count(one, "/status/numberAvailable").into()),
            text("Node Selector", |one, _| pairs(one.pointer("/spec/template/spec/nodeSelector"))),
            text("Age", since_creation),
            wide("Containers", container_names),
            wide("Images", container_images),
            wide("Selector", match_labels),
        ],
        "PodDisruptionBudget" => vec![
            text("Name", name),
            text("Min Available", |one, _| number_or_text(one.pointer("/spec/minAvailable"))),
            text("Max Unavailable", |one, _| number_or_text(one.pointer("/spec/maxUnavailable"))),
            number("Allowed Disruptions", |one, _| count(one, "/status/disruptionsAllowed").into()),
            text("Age", since_creation),
        ],
        "Namespace" => vec![
            text("Name", name),
            text("Status", |one, _| at(one, "/status/phase", "").into()),
            text("Age", since_creation),
        ],
        "Service" => vec![
            text("Name", name),
            text("Type", |one, _| at(one, "/spec/type", "ClusterIP").into()),
            text("Cluster-IP", |one, _| at(one, "/spec/clusterIP", "<none>").into()),
            text("External-IP", |_, _| "<none>".into()),
            text("Port(s)", |one, _| joined(list(one, "/spec/ports").map(service_port), "<none>")),
            text("Age", since_creation),
            wide("Selector", |one, _| pairs(one.pointer("/spec/selector"))),
        ],
        "EndpointSlice" => vec![
            text("Name", name),
            text("AddressType", |one, _| at(one, "/addressType", "").into()),
            text("Ports", |one, _| joined(list(one, "/ports").map(|port| port["port"].to_string()), "<unset>")),
            text("Endpoints", |one, _| {
                joined(
                    list(one, "/endpoints")
                        .flat_map(|endpoint| list(endpoint, "/addresses"))
                        .map(|address| address.as_str().unwrap_or_default().to_owned()),
                    "<unset>",
                )
            }),
            text("Age", since_creation),
        ],
        "Lease" => vec![
            text("Name", name),
            text("Holder", |one, _| at(one, "/spec/holderIdentity", "").into()),
            text("Age", since_creation),
        ],
        "Event" => vec![
            text("Last Seen", |one, now| age(one["lastTimestamp"].as_str().or(one["eventTime"].as_str()), now).into()),
            text("Type", |one, _| at(one, "/type", "").into()),
            text("Reason", |one, _| at(one, "/reason", "").into()),
            text("Object", |one, _| {
                format!(
                    "{}/{}",
                    at(one, "/involvedObject/kind", "").to_lowercase(),
                    at(one, "/involvedObject/name", "")
                )
                .into()
            }),
            text("Message", |one, _| at(one, "/message", "").trim().into()),
        ],
        "ConfigMap" => {
            vec![text("Name", name), number("Data", |one, _| size(one, "/data")), text("Age", since_creation)]
        }
        "Secret" => vec![
            text("Name", name),
            text("Type", |one, _| at(one, "/type", "Opaque").into()),
            number("Data", |one, _| size(one, "/data")),
            text("Age", since_creation),
        ],
        "ServiceAccount" => vec![
            text("Name", name),
            number("Secrets", |one, _| list(one, "/secrets").count().into()),
            text("Age", since_creation),
        ],
        "PersistentVolumeClaim" => vec![
            text("Name", name),
            text("Status", |one, _| at(one, "/status/phase", "Pending").into()),
            text("Volume", |one, _| at(one, "/spec/volumeName", "").into()),
            text("Capacity", |one, _| at(one, "/status/capacity/storage", "").into()),
            text("Access Modes", |one, _| joined(list(one, "/spec/accessModes").map(access_mode), "")),
            text("StorageClass", |one, _| at(one, "/spec/storageClassName", "").into()),
            text("Age", since_creation),
        ],
        "PersistentVolume" => vec![
            text("Name", name),
            text("Capacity", |one, _| at(one, "/spec/capacity/storage", "").into()),
            text("Access Modes", |one, _| joined(list(one, "/spec/accessModes").map(access_mode), "")),
            text("Reclaim Policy", |one, _| at(one, "/spec/persistentVolumeReclaimPolicy", "").into()),
            text("Status", |one, _| at(one, "/status/phase", "").into()),
            text("Claim", |one, _| match at(one, "/spec/claimRef/name", "") {
                "" => "".into(),
                claim => format!("{}/{claim}", at(one, "/spec/claimRef/namespace", "")).into(),
            }),
            text("StorageClass", |one, _| at(one, "/spec/storageClassName", "").into()),
            text("Age", since_creation),
        ],
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => vec![
            text("Name", name),
            number("Webhooks", |one, _| list(one, "/webhooks").count().into()),
            text("Age", since_creation),
        ],
        _ => vec![text("Name", name), text("Created At", creation_time)],
    }
}

fn number_or_text(value: Option<&Value>) -> Value {
    match value {
        Some(Value::String(text)) => text.as_str().into(),
        Some(Value::Number(number)) => number.to_string().into(),
        _ => "N/A".into(),
    }
}

fn service_port(port: &Value) -> String {
    let protocol = at(port, "/protocol", "TCP");
    match port["nodePort"].as_i64() {
        Some(node_port) if node_port > 0 => format!("{}:{node_port}/{protocol}", port["port"]),
        _ => format!("{}/{protocol}", port["port"]),
    }
}

fn access_mode(mode: &Value) -> String {
    match mode.as_str().unwrap_or_default() {
        "ReadWriteOnce" => "RWO",
        "ReadOnlyMany" => "ROX",
        "ReadWriteMany" => "RWX",
        "ReadWriteOncePod" => "RWOP",
        other => other,
    }
    .to_owned()
}

fn node_status(node: &Value, _: Timestamp) -> Value {
    let ready = list(node, "/status/conditions").find(|one| one["type"] == "Ready");
    let mut words = vec![match ready {
        Some(ready) if ready["status"] == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if node["spec"]["unschedulable"] == true {
        words.push("SchedulingDisabled");
    }
    words.join(",").into()
}

fn node_roles(node: &Value, _: Timestamp) -> Value {
    const PREFIX: &str = "node-role.kubernetes.io/";
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    joined(labels.filter_map(|(key, _)| key.strip_prefix(PREFIX)).map(str::to_owned), "<none>")
}

fn node_address(node: &Value, wanted: &str) -> Value {
    let found = list(node, "/status/addresses").find(|one| one["type"] == wanted);
    found.map_or("<none>", |one| at(one, "/address", "<none>")).into()
}

/// Why a pod has ended, if it has.
pub(super) fn end_of_pod(pod: &Value) -> Option<&'static str> {
    match at(pod, "/status/phase", "") {
        "Succeeded" => Some("Succeeded"),
        "Failed" => Some("Failed"),
        _ => None,
    }
}

fn pod_status(pod: &Value, _: Timestamp) -> Value {
    let mut reason = at(pod, "/status/reason", at(pod, "/status/phase", "Unknown"));
    for container in list(pod, "/status/containerStatuses") {
        let waiting = at(container, "/state/waiting/reason", "");
        let terminated = at(container, "/state/terminated/reason", "");
        if !waiting.is_empty() {
            reason = waiting;
        } else if !terminated.is_empty() {
            reason = terminated;
        }
    }
    if pod["metadata"]["deletionTimestamp"].is_string() {
        reason = if at(pod, "/status/reason", "") == "NodeLost" { "Unknown" } else { "Terminating" };
    }
    reason.into()
}

fn pod_restarts(pod: &Value, now: Timestamp) -> Value {
    let restarts: i64 = list(pod, "/status/containerStatuses").map(|one| count(one, "/restartCount")).sum();
    let ended = list(pod, "/status/containerStatuses")
        .filter_map(|one| one.pointer("/lastState/terminated/finishedAt")?.as_str()?.parse::<Timestamp>().ok())
        .max();
    match ended {
        Some(ended) if restarts > 0 => {
            format!("{restarts} ({} ago)", human(now.duration_since(ended).as_secs())).into()
        }
        _ => json!(restarts.to_string()),
    }
}
