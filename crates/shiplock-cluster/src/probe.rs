//! Probes: a short-lived pod on each node where there is no agent, for `check --probe`.
//!
//! A probe only reads: the node's root is mounted read-only, it has no capability, no account and no network of the node,
//! and runs one fixed script with the node's own shell. It goes the way of any workload, by the scheduler and through
//! the network plugin, so that a node that takes no pod any more is found too. Whatever comes of it, [`sweep`] takes all
//! pods of a run away.

use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, LogParams, PostParams};
use serde_json::{Value, json};
use shiplock_check::node::probe::{SCRIPT, read};
use shiplock_check::node::{Answer, ExaminedNode};
use shiplock_core::problem::Problem;
use tokio::time::Instant;

use crate::answer::Ask;
use crate::connection::Connection;
use crate::kubeconfig::InlinedKubeconfig;

/// Where probes run: what is there is never held up by policies for users.
pub const NAMESPACE: &str = "kube-system";
/// The label that all probes of a run have, with the run's name.
pub const LABEL: &str = "shiplock.dev/probe";
/// Nodes that are probed at once.
const AT_ONCE: usize = 10;
/// How long a probe may take until it has ended.
const WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The most that is read of what a probe prints.
const PRINTED_BYTES_MAX: i64 = 1 << 20;

/// Probes every node of a cluster. `run` names the pods; it must be a value of a label. Fails only where the nodes cannot be
/// listed, before any pod is made.
pub async fn probe(kubeconfig: &InlinedKubeconfig, run: &str) -> Result<Vec<ExaminedNode>, Problem> {
    probe_over(&Connection::open(kubeconfig).await?, run).await
}

async fn probe_over(connection: &Connection, run: &str) -> Result<Vec<ExaminedNode>, Problem> {
    let nodes: Api<Node> = Api::all(connection.client.clone());
    let nodes = connection.read(Ask::new("list", "nodes"), nodes.list(&ListParams::default())).await?;
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), NAMESPACE);
    let pods = &pods;
    let probed = futures::stream::iter(nodes.items)
        .map(|node| async move {
            let name = node.metadata.name.clone().unwrap_or_default();
            let answer = match one(connection, pods, &node, run).await {
                Ok(Ok(text)) => match read(&text) {
                    Ok(found) => Answer::Probed { examination: Box::new(found), at: Timestamp::now() },
                    Err(why) => Answer::Unseen { why },
                },
                Ok(Err(why)) => Answer::NotProbed { why },
                // The cluster took no pod, or did not answer: that says nothing of the node.
                Err(problem) => Answer::Unseen { why: problem.to_string() },
            };
            ExaminedNode { node: name, answer, machine: None }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    Ok(probed)
}

/// Takes all probes of a run away. Fails where it may not and some may be left.
pub async fn sweep(kubeconfig: &InlinedKubeconfig, run: &str) -> Result<(), Problem> {
    sweep_over(&Connection::open(kubeconfig).await?, run).await
}

async fn sweep_over(connection: &Connection, run: &str) -> Result<(), Problem> {
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), NAMESPACE);
    let of_run = ListParams::default().labels(&format!("{LABEL}={run}"));
    let at_once = DeleteParams::default().grace_period(0);
    let ask = Ask::new("deletecollection", "pods");
    let Err(failure) = connection.read(ask, pods.delete_collection(&at_once, &of_run)).await else { return Ok(()) };
    // Where no probe could be made none is left.
    match connection.read(Ask::new("list", "pods"), pods.list(&of_run)).await {
        Ok(left) if left.items.is_empty() => Ok(()),
        _ => Err(failure.into()),
    }
}

/// What a probe printed; else why its pod did not come to its end.
async fn one(
    connection: &Connection,
    pods: &Api<Pod>,
    node: &Node,
    run: &str,
) -> Result<Result<String, String>, Problem> {
    let Some(image) = image(node) else { return Ok(Err("the node names no image that it has".to_owned())) };
    let body: Pod = serde_json::from_value(pod(node, &image, run)).map_err(|error| {
        Problem::new(shiplock_core::problem::Code::Internal).with("what", "a probe is no pod").because(&error)
    })?;
    let created = connection.read(Ask::new("create", "pods"), pods.create(&PostParams::default(), &body)).await?;
    let name = created.metadata.name.unwrap_or_default();
    let begun = Instant::now();
    loop {
        let found = connection.read(Ask::new("get", "pods"), pods.get(&name)).await?;
        let phase = found.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
        if phase == "Succeeded" || phase == "Failed" {
            let limits = LogParams { limit_bytes: Some(PRINTED_BYTES_MAX), ..LogParams::default() };
            let text = connection.read(Ask::new("get", "pods/log"), pods.logs(&name, &limits)).await?;
            // A part that could not be read ends the script with an error and is told by what is missing.
            return Ok(Ok(text));
        }
        if begun.elapsed() > WITHIN {
            return Ok(Err(format!("it had not run after {} s: {}", WITHIN.as_secs(), why_not(&found, &phase))));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What the pod says of why it does not run.
fn why_not(pod: &Pod, phase: &str) -> String {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let waiting = containers.filter_map(|status| status.state.as_ref()?.waiting.clone()).next();
    let waiting = waiting
        .map(|waiting| format!("{}: {}", waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default()));
    let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
    let unmet =
        conditions.filter(|condition| condition.status != "True").find_map(|condition| condition.message.clone());
    let text = waiting.or(unmet).unwrap_or_else(|| format!("it is {phase}"));
    text.chars().take(300).collect()
}

/// An image that is on the node already: the pause image, else its smallest.
fn image(node: &Node) -> Option<String> {
    let images = node.status.as_ref()?.images.as_ref()?;
    let names = || images.iter().flat_map(|image| image.names.iter().flatten().map(|name| (image.size_bytes, name)));
    let pause = names().find(|(_, name)| name.contains("/pause:"));
    pause.or_else(|| names().min_by_key(|(size, _)| *size)).map(|(_, name)| name.clone())
}

fn pod(node: &Node, image: &str, run: &str) -> Value {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let architecture = node.status.as_ref().and_then(|status| status.node_info.as_ref()).map(|info| &info.architecture);
    // The loader of programs is in /lib64 on amd64 alone. What is not there would be made, were it not asked for as a
    // directory.
    let mut folders = vec![("root", "/", "/host"), ("usr", "/usr", "/usr"), ("lib", "/lib", "/lib")];
    if architecture.is_some_and(|architecture| architecture == "amd64") {
        folders.push(("lib64", "/lib64", "/lib64"));
    }
    let volumes: Vec<Value> = folders
        .iter()
        .map(|(name, path, _)| json!({ "name": name, "hostPath": { "path": path, "type": "Directory" } }))
        .collect();
    let mounts: Vec<Value> =
        folders.iter().map(|(name, _, at)| json!({ "name": name, "mountPath": at, "readOnly": true })).collect();
    let on_node = json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "shiplock-probe-",
            "labels": { LABEL: run, "app.kubernetes.io/name": "shiplock-probe" },
            "annotations": { "shiplock.dev/what": "shiplock check --probe looks at this node; it only reads and goes by itself" },
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": WITHIN.as_secs(),
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "tolerations": [{ "operator": "Exists" }],
            "affinity": { "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [on_node] },
            } },
            "volumes": volumes,
            "containers": [{
                "name": "probe",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["/usr/bin/sh", "-c", SCRIPT],
                "volumeMounts": mounts,
                "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
                "securityContext": {
                    "runAsUser": 0,
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": { "drop": ["ALL"] },
                },
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use shiplock_core::problem::Code;

    use super::*;
    use crate::mock::{Answer as Answered, api, status};

    #[tokio::test]
    async fn a_pod_that_may_not_be_made_leaves_its_node_unseen_and_is_not_held_against_it() {
        let listed = |kind: &str, items: Value| {
            Answered::Json(200, json!({ "kind": kind, "apiVersion": "v1", "metadata": {}, "items": items }))
        };
        let w1 = || json!(node(json!([{ "names": ["registry.k8s.io/pause:3.10"], "sizeBytes": 1 }])));
        for left in [false, true] {
            let (connection, _) = api(move |asked| match (asked.method.as_str(), asked.path.as_str()) {
                ("GET", "/api/v1/nodes") => listed("NodeList", json!([w1()])),
                ("GET", _) if left => listed("PodList", json!([{ "metadata": { "name": "shiplock-probe-a" } }])),
                ("GET", _) => listed("PodList", json!([])),
                _ => status(403, "Forbidden", "pods is forbidden"),
            });
            let probed = probe_over(&connection, "r1").await.unwrap();
            assert!(
                matches!(&probed[..], [ExaminedNode { node, answer: Answer::Unseen { why }, .. }]
                    if node == "w1" && why.contains("pods is forbidden")),
                "{probed:?}"
            );
            let swept = sweep_over(&connection, "r1").await.map_err(|problem| problem.code);
            assert_eq!(swept, if left { Err(Code::ClusterForbidden) } else { Ok(()) });
        }
    }

    fn node(images: Value) -> Node {
        serde_json::from_value(json!({ "metadata": { "name": "w1" }, "status": {
            "images": images,
            "nodeInfo": { "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
                "systemUUID": "" } } }))
        .unwrap()
    }

    #[test]
    fn a_probe_runs_an_image_that_its_node_has_and_only_reads() {
        let images = json!([
            { "names": ["registry.k8s.io/etcd:3.6.6-0"], "sizeBytes": 9 },
            { "names": ["registry.k8s.io/pause@sha256:aa", "registry.k8s.io/pause:3.10"], "sizeBytes": 100 },
        ]);
        let node = node(images);
        let image = image(&node).unwrap();
        assert_eq!(image, "registry.k8s.io/pause:3.10");
        let made = pod(&node, &image, "r1");
        let typed: Pod = serde_json::from_value(made.clone()).unwrap();
        let container = &typed.spec.unwrap().containers[0];
        assert!(container.volume_mounts.iter().flatten().all(|mount| mount.read_only == Some(true)));
        for volume in made["spec"]["volumes"].as_array().unwrap() {
            assert_eq!(volume["hostPath"]["type"], "Directory", "nothing is made on the node");
        }
        assert_eq!(made["spec"]["automountServiceAccountToken"], false);
        assert!(super::image(&super::tests::node(json!([]))).is_none());
    }
}
