//! A check that is asked for alone says what it says among all others: its lists are enough for it.

use std::collections::BTreeSet;

use super::*;
use crate::api::metrics::Metrics;
use crate::catalogue::{self, Scope};
use crate::snapshot::Instance;
use crate::tls;
use shiplock_core::facts::examination::TlsOutcome;

/// The lists, by the field of [`Objects`] and the path that [`READS`] names.
const FIELDS: [(&str, &str); 31] = [
    ("nodes", "/nodes"),
    ("pods", "/pods"),
    ("deployments", "/deployments"),
    ("stateful_sets", "/statefulsets"),
    ("daemon_sets", "/daemonsets"),
    ("budgets", "/poddisruptionbudgets"),
    ("services", "/services"),
    ("slices", "/endpointslices"),
    ("namespaces", "/namespaces"),
    ("validating", "/validatingwebhookconfigurations"),
    ("mutating", "/mutatingwebhookconfigurations"),
    ("api_services", "/apiservices"),
    ("definitions", "/customresourcedefinitions"),
    ("volumes", "/persistentvolumes"),
    ("claims", "/persistentvolumeclaims"),
    ("storage_classes", "/storageclasses"),
    ("csi_drivers", "/csidrivers"),
    ("csi_nodes", "/csinodes"),
    ("attachments", "/volumeattachments"),
    ("signing_requests", "/certificatesigningrequests"),
    ("jobs", "/jobs"),
    ("quotas", "/resourcequotas"),
    ("network_policies", "/networkpolicies"),
    ("service_ranges", "/servicecidrs"),
    ("ingresses", "/ingresses"),
    ("upgrade_lease", "/leases/shiplock"),
    ("warnings", "/events"),
    ("node_usage", "/apis/metrics.k8s.io/v1beta1/nodes"),
    ("operators", "/operatorconditions"),
    ("operators", "/clusteroperators"),
    ("configuration", "/configmaps"),
];

/// A cluster in which as many checks as can be find something.
fn troubled() -> Snapshot {
    let gone = "2026-11-23T00:00:00Z";
    let claims = json!({ "spec": { "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "c" } }, { "name": "e", "emptyDir": {} }, { "name": "s", "hostPath": { "path": "/run/docker.sock" } }] } });
    let probed = json!({ "name": "c", "startupProbe": {} });
    let workload = |name: &str, replicas: i64, more: Value| {
        let mut workload = json!({ "metadata": { "name": name, "namespace": "n" },
            "spec": { "replicas": replicas, "template": { "metadata": { "labels": { "app": name } }, "spec": { "containers": [probed] } } } });
        merge(&mut workload, more);
        workload
    };
    let owned = |name: &str, kind: &str, owner: &str, more: Value| {
        let mut pod = pod(
            name,
            json!({ "metadata": { "labels": { "app": owner },
            "ownerReferences": [{ "kind": kind, "name": if kind == "ReplicaSet" { format!("{owner}-5d") } else { owner.to_owned() }, "controller": true }] } }),
        );
        merge(&mut pod, more);
        pod
    };
    let image = |image: &str| json!({ "spec": { "containers": [{ "name": "c", "image": image, "imagePullPolicy": "Never" }] } });
    let webhook = |name: &str, resource: &str, more: Value| {
        let mut webhook = json!({ "name": name, "failurePolicy": "Fail", "timeoutSeconds": 30, "admissionReviewVersions": ["v1beta1"],
            "clientConfig": { "service": { "namespace": "n", "name": name }, "caBundle": "AAAA" },
            "rules": [{ "apiGroups": [""], "resources": [resource] }] });
        merge(&mut webhook, more);
        webhook
    };
    let condition = |name: &str, status: &str| json!({ "type": name, "status": status, "message": "no" });
    let ill = json!({ "status": { "conditions": [condition("Ready", "False"), condition("DiskPressure", "True")],
        "nodeInfo": { "kubeletVersion": "v1.33.0", "containerRuntimeVersion": "docker://20.10.7", "osImage": "CentOS Linux 7 (Core)" } },
        "metadata": { "labels": { "node-role.kubernetes.io/control-plane": "", "app": "n" }, "deletionTimestamp": gone,
            "annotations": { "shiplock.dev/owner": r#"{"upgrade":"before","epoch":1}"# } },
        "spec": { "unschedulable": true, "taints": [{ "key": "node.cloudprovider.kubernetes.io/shutdown", "effect": "NoSchedule" }] } });
    let bare = json!({ "status": { "allocatable": { "cpu": "4", "memory": "8Gi", "pods": "3" }, "conditions": [] } });
    let pleg = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False", "message": "PLEG is not healthy" }] } });
    let mut nodes = vec![node("m1", ill), node("p1", pleg), node("w1", bare.clone())];
    nodes.push(node("w2", json!({ "status": { "nodeInfo": { "kubeletVersion": "v1.37.0" } } })));
    nodes.push(node("w3", bare.clone()));
    nodes.push(node("w4", bare));
    let big = json!({ "spec": { "nodeName": "w3", "containers": [{ "name": "c", "image": "x", "resources": { "requests": { "cpu": "3900m" } } }] } });
    let mut pods = vec![
        owned("a-1", "ReplicaSet", "a", claims),
        owned("a-2", "ReplicaSet", "a", json!({})),
        owned("s-0", "StatefulSet", "s", json!({ "spec": { "terminationGracePeriodSeconds": 4000 } })),
        owned("s-1", "StatefulSet", "s", json!({})),
        owned("big-1", "ReplicaSet", "big", big),
        pod(
            "naked",
            json!({ "metadata": { "ownerReferences": [], "labels": {}, "deletionTimestamp": gone, "finalizers": ["x/y"], "annotations": { "seccomp.security.alpha.kubernetes.io/pod": "x" } } }),
        ),
        owned(
            "broken-1",
            "ReplicaSet",
            "broken",
            json!({ "status": { "conditions": [condition("Ready", "False")], "containerStatuses": [{ "name": "c", "state": { "waiting": { "reason": "CrashLoopBackOff" } } }] } }),
        ),
        owned(
            "wait-1",
            "ReplicaSet",
            "wait",
            json!({ "metadata": { "creationTimestamp": gone }, "status": { "phase": "Pending", "conditions": [] } }),
        ),
        owned(
            "dns-1",
            "ReplicaSet",
            "dns",
            json!({ "metadata": { "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } } }),
        ),
        component("etcd", "3.4.13-0", &["--quota-backend-bytes=1000"]),
        component("kube-scheduler", "v1.33.0", &["--feature-gates=SidecarContainers=true"]),
        component("kube-proxy", "v1.30.0", &[]),
        component("kube-apiserver", "v1.36.0", &["--encryption-provider-config=/x", "--feature-gates=KMSv1=true"]),
    ];
    merge(&mut pods[9], json!({ "status": { "conditions": [condition("Ready", "False")] } }));
    for (index, name) in [
        "calico/node:v3.20.0",
        "x/cluster-autoscaler:v1.30.0",
        "ingress-nginx/controller:v1.0.0",
        "k8s.gcr.io/pause:3.6",
        "jetstack/cert-manager-controller:v1.18.0",
    ]
    .iter()
    .enumerate()
    {
        pods.push(owned(&format!("i{index}-1"), "ReplicaSet", &format!("i{index}"), image(name)));
    }
    let budget = |name: &str, app: &str, spec: Value| {
        let mut spec = spec;
        merge(&mut spec, json!({ "selector": { "matchLabels": { "app": app } } }));
        json!({ "metadata": { "name": name, "namespace": "n" }, "spec": spec,
            "status": { "disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 2, "observedGeneration": 1 } })
    };
    let service = |name: &str, app: &str| {
        json!({ "metadata": { "name": name, "namespace": "n" }, "spec": { "type": "NodePort", "externalTrafficPolicy": "Local", "selector": { "app": app },
            "externalIPs": ["1.2.3.4"], "clusterIPs": ["10.96.0.1"], "ports": [{ "port": 443 }] } })
    };
    let slice = |name: &str, nodes: &[&str]| {
        let endpoints: Vec<Value> = nodes.iter().map(|node| json!({ "nodeName": node })).collect();
        json!({ "metadata": { "namespace": "n", "labels": { "kubernetes.io/service-name": name } }, "endpoints": endpoints })
    };
    let definition = |name: &str, service: &str, more: Value| {
        let mut definition = json!({ "metadata": { "name": name }, "spec": { "group": "x", "names": { "kind": "A", "plural": "as" }, "preserveUnknownFields": true,
                "versions": [{ "name": "v1", "storage": true, "served": true }, { "name": "v1beta1", "served": true, "deprecated": true }],
                "conversion": { "strategy": "Webhook", "webhook": { "clientConfig": { "service": { "namespace": "n", "name": service } } } } },
            "status": { "storedVersions": ["v1alpha1", "v1beta1", "v1"], "conditions": [condition("Established", "False")] } });
        merge(&mut definition, more);
        definition
    };
    let aggregated = |name: &str, service: &str| json!({ "metadata": { "name": name }, "spec": { "service": { "namespace": "n", "name": service } }, "status": { "conditions": [condition("Available", "False")] } });
    let named = |name: &str, spec: Value| json!({ "metadata": { "name": name }, "spec": spec });
    let objects = json!({
        "nodes": nodes,
        "pods": pods,
        "deployments": [workload("a", 2, json!({})), workload("one", 1, json!({})), workload("b", 2, json!({}))],
        "stateful_sets": [workload("s", 2, json!({ "spec": { "template": { "spec": { "terminationGracePeriodSeconds": 0 } } } })),
            workload("read", 1, json!({ "spec": { "template": { "spec": { "containers": [{ "name": "c", "readinessProbe": {}, "startupProbe": null }] } } } }))],
        "daemon_sets": [named("d", json!({ "updateStrategy": { "type": "OnDelete" } }))],
        "budgets": [budget("never", "a", json!({ "maxUnavailable": 0 })), budget("other", "a", json!({ "maxUnavailable": 1 })), budget("ill", "broken", json!({ "minAvailable": 1 }))],
        "services": [service("one", "one"), service("none", "none"), service("hook", "a")],
        "slices": [slice("one", &["w1"]), slice("hook", &["w1", "w1"]), slice("well", &["w1", "w2"])],
        "namespaces": [{ "metadata": { "name": "kube-system", "labels": { "own": "yes" } } }, { "metadata": { "name": "old", "deletionTimestamp": gone } }],
        "validating": [{ "metadata": { "name": "v" }, "webhooks": [
            webhook("hook", "pods", json!({ "namespaceSelector": { "matchLabels": { "own": "yes" } } })),
            webhook("away", "nodes", json!({})),
            webhook("of-nodes", "nodes", json!({ "objectSelector": { "matchLabels": { "app": "n" } } })) ] }],
        "mutating": [{ "metadata": { "name": "m" }, "webhooks": [
            webhook("well", "pods", json!({ "objectSelector": { "matchLabels": { "k8s-app": "kube-dns" } } })) ] }],
        "api_services": [aggregated("v1.m", "away"), aggregated("v1.n", "hook")],
        "definitions": [definition("as.x", "away", json!({})), definition("bs.x", "hook", json!({ "status": { "conditions": [condition("NonStructuralSchema", "True")] } }))],
        "volumes": [named("flex", json!({ "flexVolume": { "driver": "d" } })), named("rbd", json!({ "rbd": {} })), named("aws", json!({ "awsElasticBlockStore": {} })), named("local", json!({ "local": {} })), named("v", json!({ "csi": { "driver": "e" } }))],
        "claims": [{ "metadata": { "name": "c", "namespace": "n" }, "spec": { "volumeName": "v" } }, { "metadata": { "name": "l", "namespace": "n" }, "status": { "phase": "Lost" } }],
        "storage_classes": [{ "metadata": { "name": "old" }, "provisioner": "kubernetes.io/rbd" }, { "metadata": { "name": "aws" }, "provisioner": "kubernetes.io/aws-ebs" }],
        "csi_drivers": [],
        "csi_nodes": [],
        "attachments": [{ "metadata": { "name": "a" }, "status": { "attachError": { "message": "no" } } }],
        "signing_requests": [{ "metadata": { "name": "r", "creationTimestamp": gone }, "spec": { "signerName": "kubernetes.io/kubelet-serving", "username": "u" } }],
        "jobs": [{ "metadata": { "name": "j", "namespace": "n" }, "status": { "active": 1 } }],
        "quotas": [{ "metadata": { "name": "q", "namespace": "n" }, "status": { "hard": { "pods": "5" }, "used": { "pods": "5" } } }],
        "ingresses": [{ "metadata": { "name": "i", "namespace": "n", "annotations": { "kubernetes.io/ingress.class": "x" } } }],
        "upgrade_lease": { "metadata": { "annotations": { "shiplock.dev/upgrade": "u" } }, "spec": { "renewTime": "2026-11-24T00:00:00Z" } },
        "network_policies": [{ "metadata": { "name": "p", "namespace": "n" }, "spec": { "podSelector": {}, "policyTypes": ["Ingress"] } }],
        "service_ranges": [named("r", json!({ "cidrs": ["10.96.0.0/31", "10.96.0.0/30"] }))],
        "warnings": [{ "involvedObject": { "kind": "Pod", "name": "x" }, "reason": "Failed", "count": 99, "lastTimestamp": "2026-11-23T23:59:00Z" }],
        "node_usage": [{ "metadata": { "name": "w1" }, "usage": { "cpu": "3900m", "memory": "1Gi" } }],
        "operators": [{ "metadata": { "name": "o", "namespace": "n" }, "status": { "conditions": [condition("Upgradeable", "False")] } }],
    });
    let lists = objects.as_object().unwrap().iter().map(|(field, list)| (field.clone(), json!({ "seen": list })));
    let mut configuration = crate::object::Configuration::default();
    for (name, key, text) in [
        ("kubelet-config", "kubelet", "featureGates:\n  SidecarContainers: true\n"),
        ("kube-proxy", "config.conf", "mode: ipvs\n"),
        ("coredns", "Corefile", ".:53 {\n  federation x.y\n}\n"),
        ("kubeadm-config", "ClusterConfiguration", "apiVersion: kubeadm.k8s.io/v1beta2\n"),
    ] {
        configuration.take(name, &[(key.to_owned(), text.to_owned())].into());
    }
    let mut troubled = snapshot();
    troubled.objects = serde_json::from_value(Value::Object(lists.collect())).unwrap();
    troubled.objects.configuration = Read::Seen(configuration);
    let mut metrics = Metrics::default();
    for line in [
        "apiserver_webhooks_x509_missing_san_total 2",
        "apiserver_webhooks_x509_insecure_sha1_total 2",
        "apiserver_flowcontrol_rejected_requests_total 2",
        "apiserver_storage_size_bytes 990",
        "apiserver_storage_objects{resource=\"as.x\"} 3",
    ] {
        metrics.take(line);
    }
    let instance = |version: &str| Instance {
        address: version.to_owned(),
        metrics: Read::Seen(metrics.clone()),
        version: Read::Seen(version.to_owned()),
        not_ready: Read::Seen(vec!["etcd failed".to_owned()]),
    };
    troubled.metrics = vec![instance("v1.36.1"), instance("v1.34.1")];
    let outcome = |target: &str| {
        if target.starts_with("hook") {
            TlsOutcome::NotSeen { why: "forbidden".to_owned() }
        } else {
            TlsOutcome::Presented { chain: Vec::new() }
        }
    };
    troubled.dialled = tls::backends(&troubled)
        .into_iter()
        .map(|target| tls::Dialled { outcome: outcome(&target.host), via: "x".to_owned(), address: None, target })
        .collect();
    troubled
}

/// Of a snapshot the lists that are read for one check.
fn narrowed(whole: &Snapshot, check: &str) -> Snapshot {
    let mut objects = serde_json::to_value(&whole.objects).unwrap();
    for (field, path) in FIELDS {
        let is_it = |known: &&(&str, &[&str])| {
            known.0 == path || (known.0.ends_with(path) && !known.0.contains("metrics.k8s.io"))
        };
        let (_, readers) = READS.iter().find(is_it).unwrap();
        if !readers.contains(&check) {
            objects[field] = json!("not_asked");
        }
    }
    Snapshot { objects: serde_json::from_value(objects).unwrap(), ..whole.clone() }
}

#[test]
fn a_check_that_is_asked_for_alone_says_what_it_says_among_all_others() {
    let whole = troubled();
    let said = |snapshot: &Snapshot, check: &str| {
        let all = crate::run::judge(snapshot, &question(snapshot, "1.36", "1.37"));
        let of_check = all.iter().filter(|found| found.check == check && found.outcome != Outcome::Skipped);
        let shown = |found: &crate::report::Finding| {
            format!("{:?} {} {} {:?}", found.outcome, found.sentence, found.subject, found.parameters)
        };
        of_check.map(shown).collect::<BTreeSet<String>>()
    };
    let (mut silent, mut differ) = (Vec::new(), Vec::new());
    for check in catalogue::all().iter().filter(|check| check.not_built.is_none()) {
        let among_all = said(&whole, check.id);
        if among_all.is_empty() && matches!(check.scope, Scope::Cluster | Scope::ControlPlane) {
            silent.push(check.id);
        }
        let alone = said(&narrowed(&whole, check.id), check.id);
        if alone != among_all {
            differ.push((check.id, alone, among_all));
        }
    }
    assert!(differ.is_empty(), "{differ:#?}");
    // These read no list.
    let without_lists =
        ["API-003", "API-004", "API-005", "API-006", "API-008", "API-010", "API-011", "VER-001", "VER-008"];
    assert_eq!(silent, [&without_lists[..], &["CP-006"]].concat());
}
