use serde_json::{Value, json};

use super::*;

fn node(value: Value) -> NodeFacts {
    node_facts(serde_json::from_value(value).unwrap())
}

fn pod(value: Value) -> Pod {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_node_becomes_facts() {
    let facts = node(json!({
        "metadata": {"name": "w1", "uid": "u1", "labels": {"a": "b"}, "annotations": {OWNER_ANNOTATION: r#"{"upgrade":"up1","epoch":3}"#}},
        "spec": {"unschedulable": true, "taints": [
            {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"},
            {"key": "soft", "effect": "PreferNoSchedule"},
            {"key": "gpu", "value": "yes", "effect": "NoExecute"},
        ]},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}],
            "nodeInfo": {"machineID": "m", "bootID": "b", "architecture": "arm64", "kubeletVersion": "v1.35.4",
                "containerRuntimeVersion": "containerd://1.6.20", "kernelVersion": "", "kubeProxyVersion": "",
                "operatingSystem": "linux", "osImage": "", "systemUUID": ""},
        },
    }));
    assert_eq!((facts.uid.as_str(), &*facts.machine_id, facts.boot_id.as_str()), ("u1", "m", "b"));
    assert_eq!((facts.architecture.as_str(), facts.kubelet_version.as_str()), ("arm64", "v1.35.4"));
    assert_eq!(facts.container_runtime_version, "containerd://1.6.20");
    assert_eq!(facts.taints, ["node.kubernetes.io/unschedulable", "gpu"]);
    assert!(facts.unschedulable && facts.ready == Readiness::Ready);
    assert_eq!(facts.owner.unwrap().epoch.0, 3);
    assert_eq!(facts.labels["a"], "b");
}

#[test]
fn a_node_is_ready_only_if_it_says_so() {
    let cases = [
        (json!({"conditions": [{"type": "Ready", "status": "True", "message": "fine"}]}), None),
        (
            json!({"conditions": [{"type": "Ready", "status": "False", "message": "PLEG is not healthy"}]}),
            Some("PLEG is not healthy"),
        ),
        (
            json!({"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}),
            Some("NodeStatusUnknown"),
        ),
        (json!({}), Some("it has no Ready condition yet")),
    ];
    for (status, why) in cases {
        let expected = why.map_or(Readiness::Ready, |why| Readiness::NotReady { why: why.to_owned() });
        assert_eq!(node(json!({"metadata": {"name": "w1"}, "status": status})).ready, expected);
    }
}

#[test]
fn a_mark_that_cannot_be_read_is_not_ours() {
    for text in ["", "x", "{}", r#"{"upgrade":"up1"}"#, r#"{"upgrade":"up1","epoch":-1}"#] {
        assert_eq!(owner(text), None, "{text}");
    }
}

#[test]
fn tolerations_are_judged_as_the_scheduler_does() {
    let unschedulable = "node.kubernetes.io/unschedulable";
    let cases = [
        (json!({"operator": "Exists"}), true),
        (json!({"operator": "Exists", "effect": "NoSchedule"}), true),
        (json!({"operator": "Exists", "effect": "NoExecute"}), false),
        (json!({"key": unschedulable, "operator": "Exists"}), true),
        (json!({"key": unschedulable, "operator": "Exists", "effect": "NoSchedule"}), true),
        (json!({"key": unschedulable}), true),
        (json!({"key": unschedulable, "operator": "Equal", "value": "x"}), false),
        (json!({"key": "other", "operator": "Exists"}), false),
        (json!({"key": "", "operator": "Equal"}), false),
    ];
    for (toleration, expected) in cases {
        let text = toleration.to_string();
        assert_eq!(tolerates_unschedulable(&[serde_json::from_value(toleration).unwrap()]), expected, "{text}");
    }
    assert!(!tolerates_unschedulable(&[]));
}

#[test]
fn a_pod_becomes_facts_and_finished_ones_are_known() {
    let running = json!({
        "metadata": {"namespace": "shop", "name": "web-7c9-x", "uid": "p1",
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7c9", "uid": "r", "controller": true}]},
        "spec": {"nodeName": "w1", "containers": []}, "status": {"phase": "Running"},
    });
    let facts = pod_facts(pod(running.clone()));
    assert_eq!((facts.namespace.as_str(), facts.name.as_str(), facts.uid.as_str()), ("shop", "web-7c9-x", "p1"));
    assert_eq!((facts.node, facts.controller.as_deref()), (Some(NodeName::from("w1")), Some("ReplicaSet/web-7c9")));
    assert!(!facts.is_mirror && !facts.tolerates_unschedulable);
    for (phase, finished) in
        [("Running", false), ("Pending", false), ("Unknown", false), ("Succeeded", true), ("Failed", true)]
    {
        let mut changed = running.clone();
        changed["status"]["phase"] = json!(phase);
        assert_eq!(is_finished(&pod(changed)), finished, "{phase}");
    }
}

fn owned(kind: &str, name: &str, labels: Value) -> DrainPod {
    let metadata = json!({"namespace": "shop", "name": "p", "uid": "u", "labels": labels,
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "r", "controller": true}]});
    drain_pod(pod(json!({"metadata": metadata, "spec": {"containers": []}})), [])
}

#[test]
fn the_owner_of_a_pod_is_the_one_that_people_know() {
    let cases = [
        ("ReplicaSet", "web-7c9", json!({"pod-template-hash": "7c9"}), "Deployment web"),
        ("ReplicaSet", "web-front-7c9", json!({"pod-template-hash": "7c9"}), "Deployment web-front"),
        ("ReplicaSet", "alone", json!({}), "ReplicaSet alone"),
        ("ReplicaSet", "roll-5d", json!({"rollouts-pod-template-hash": "5d"}), "ReplicaSet roll-5d"),
        ("StatefulSet", "db", json!({"pod-template-hash": "b"}), "StatefulSet db"),
    ];
    for (kind, name, labels, expected) in cases {
        assert_eq!(owned(kind, name, labels).owner.as_deref(), Some(expected));
    }
    assert!(owned("DaemonSet", "agent", json!({})).is_daemon);
    assert!(!owned("StatefulSet", "db", json!({})).is_daemon);
}

#[test]
fn a_mirror_and_a_terminating_pod_are_seen_as_such() {
    let metadata = json!({"namespace": "kube-system", "name": "etcd-m1", "annotations": {MIRROR_ANNOTATION: "x"}});
    assert!(drain_pod(pod(json!({"metadata": metadata})), []).is_mirror);
    let metadata = json!({"namespace": "shop", "name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"});
    let ending = drain_pod(
        pod(json!({"metadata": metadata, "spec": {"containers": [], "terminationGracePeriodSeconds": 5}})),
        [],
    );
    assert!(ending.is_terminating && ending.grace_seconds == 5);
}

fn budget(namespace: &str, name: &str, selector: Option<Value>) -> Budget {
    let mut spec = json!({});
    if let Some(selector) = selector {
        spec["selector"] = selector;
    }
    let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec,
        "status": {"disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}});
    Budget::new(serde_json::from_value(object).unwrap())
}

#[test]
fn budgets_select_pods_of_their_namespace_by_label() {
    let expressions = json!({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "x", "operator": "DoesNotExist"}]});
    let budgets = [
        budget("shop", "exact", Some(json!({"matchLabels": {"app": "cart"}}))),
        budget("shop", "other", Some(json!({"matchLabels": {"app": "web"}}))),
        budget("shop", "expressions", Some(expressions)),
        budget("shop", "everything", Some(json!({}))),
        budget("shop", "nothing", None),
        budget("bank", "elsewhere", Some(json!({}))),
    ];
    let metadata = json!({"namespace": "shop", "name": "p", "labels": {"app": "cart", "tier": "b"}});
    assert_eq!(
        drain_pod(pod(json!({"metadata": metadata})), &budgets).budgets,
        ["shop/exact", "shop/expressions", "shop/everything"]
    );
    assert_eq!((budgets[0].facts.disruptions_allowed, budgets[0].facts.expected_pods), (1, 2));
}

#[test]
fn an_eviction_that_a_budget_remembers_is_known_of_its_pod() {
    let object = json!({"metadata": {"namespace": "shop", "name": "b"}, "spec": {"selector": {}},
        "status": {"disruptionsAllowed": 0, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2,
            "disruptedPods": {"p": "2026-01-01T00:00:00Z"}}});
    let budgets = [Budget::new(serde_json::from_value(object).unwrap())];
    let admitted_at =
        |name: &str| drain_pod(pod(json!({"metadata": {"namespace": "shop", "name": name}})), &budgets).admitted_at;
    assert_eq!(admitted_at("p"), Some("2026-01-01T00:00:00Z".parse().unwrap()));
    assert_eq!(admitted_at("q"), None);
}

#[test]
fn workloads_count_what_is_wanted_and_what_is_ready() {
    let metadata = json!({"namespace": "shop", "name": "web"});
    let selector = json!({"matchLabels": {}});
    let deployment =
        json!({"metadata": metadata, "spec": {"selector": selector, "template": {}}, "status": {"readyReplicas": 1}});
    let facts = deployment_facts(serde_json::from_value(deployment).unwrap()).facts;
    assert_eq!((facts.label().as_str(), facts.desired, facts.ready), ("Deployment shop/web", 1, 1));
    let set = json!({"metadata": metadata, "spec": {"replicas": 3, "selector": selector, "template": {}, "serviceName": "s"}, "status": {"replicas": 3}});
    let facts = stateful_set_facts(serde_json::from_value(set).unwrap()).facts;
    assert_eq!((facts.label().as_str(), facts.desired, facts.ready), ("StatefulSet shop/web", 3, 0));
    let set = json!({"metadata": metadata, "status": {"currentNumberScheduled": 4, "desiredNumberScheduled": 5, "numberMisscheduled": 0, "numberReady": 2}});
    let facts = daemon_set_facts(serde_json::from_value(set).unwrap()).facts;
    assert_eq!((facts.label().as_str(), facts.desired, facts.ready), ("DaemonSet shop/web", 5, 2));
}

#[test]
fn mirrors_of_the_control_plane_are_told_apart_from_other_pods() {
    let mirror = |namespace: &str, component: &str, ready: &str| {
        SeenPod::new(pod(json!({
            "metadata": {"namespace": namespace, "name": "kube-apiserver-m1", "labels": {"component": component},
                "annotations": {MIRROR_ANNOTATION: "hash"}},
            "spec": {"nodeName": "m1", "containers": [{"name": "kube-apiserver", "image": "registry.k8s.io/kube-apiserver:v1.36.3"}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}], "containerStatuses": [
                {"name": "kube-apiserver", "image": "", "imageID": "", "ready": true, "restartCount": 2}]},
        })))
        .control_plane
    };
    let found = *mirror("kube-system", "kube-apiserver", "True").unwrap();
    assert_eq!((found.node.as_str(), found.component), ("m1", ControlPlaneComponent::KubeApiserver));
    assert_eq!(
        (found.image.as_str(), found.ready, found.restarts),
        ("registry.k8s.io/kube-apiserver:v1.36.3", true, 2)
    );
    assert!(!mirror("kube-system", "etcd", "False").unwrap().ready);
    assert_eq!(mirror("shop", "kube-apiserver", "True"), None);
    assert_eq!(mirror("kube-system", "kube-vip", "True"), None);
}

#[test]
fn what_others_than_kubeadm_set_in_an_add_on_is_an_edit() {
    let edits = |manager: &str, subresource: Option<&str>, fields: Value| {
        let entry = json!({"manager": manager, "operation": "Update", "subresource": subresource, "fieldsV1": fields});
        let metadata = json!({"namespace": "kube-system", "name": "coredns", "managedFields": [entry]});
        let object = json!({"metadata": metadata, "spec": {"selector": {}, "template": {}}});
        let edits = deployment_facts(serde_json::from_value(object).unwrap()).addon.unwrap().edits;
        edits.into_iter().flat_map(|edit| edit.fields).collect::<Vec<_>>()
    };
    let tolerations = json!({"f:spec": {"f:template": {"f:spec": {"f:tolerations": {}}}}});
    assert_eq!(edits("kubectl-edit", None, tolerations.clone()), ["spec.template.spec.tolerations"]);
    assert!(edits("kubeadm", None, tolerations).is_empty());
    let restarted = json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {".": {},
        "f:kubectl.kubernetes.io/restartedAt": {}}}}}});
    assert!(edits("kubectl-rollout", None, restarted).is_empty());
    assert!(edits("kubectl", Some("scale"), json!({"f:spec": {"f:replicas": {}}})).is_empty());
    assert!(edits("kube-controller-manager", Some("status"), json!({"f:status": {}})).is_empty());
    let resources = json!({"f:spec": {"f:template": {"f:spec": {"f:containers":
        {"k:{\"name\":\"coredns\"}": {"f:resources": {"f:limits": {"f:memory": {}}}}}}}}});
    let named = edits("kubectl-patch", None, resources);
    assert_eq!(named, [r#"spec.template.spec.containers.{"name":"coredns"}.resources.limits.memory"#]);
}

#[test]
fn an_add_on_is_rolled_out_when_every_pod_is_of_the_newest_template_and_there() {
    let metadata = json!({"namespace": "kube-system", "name": "coredns", "generation": 4});
    let template =
        json!({"spec": {"containers": [{"name": "coredns", "image": "registry.k8s.io/coredns/coredns:v1.14.2"}]}});
    let coredns = |status: Value| {
        let spec = json!({"replicas": 2, "selector": {}, "template": template});
        deployment_facts(serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap())
            .addon
            .unwrap()
    };
    let whole = json!({"observedGeneration": 4, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2});
    assert_eq!(coredns(whole.clone()).image, "registry.k8s.io/coredns/coredns:v1.14.2");
    assert!(coredns(whole.clone()).rolled_out);
    for (field, value) in [("observedGeneration", 3), ("replicas", 3), ("updatedReplicas", 1), ("availableReplicas", 1)]
    {
        let mut status = whole.clone();
        status[field] = json!(value);
        assert!(!coredns(status).rolled_out, "{field}");
    }
    let proxy = |updated: i32| {
        let metadata = json!({"namespace": "kube-system", "name": "kube-proxy", "generation": 1});
        let status = json!({"observedGeneration": 1, "currentNumberScheduled": 2, "desiredNumberScheduled": 2,
            "numberMisscheduled": 0, "numberReady": 2, "updatedNumberScheduled": updated, "numberAvailable": 2});
        let object = json!({"metadata": metadata, "spec": {"selector": {}, "template": {}}, "status": status});
        daemon_set_facts(serde_json::from_value(object).unwrap()).addon.unwrap().rolled_out
    };
    assert!(proxy(2) && !proxy(1));
}
