//! Each rule passes, warns or fails, and is unknown, over snapshots that are written as Kubernetes writes objects.

use serde_json::{Value, json};
use shiplock_core::language::Language;

use super::*;
use crate::question::Profile;
use crate::report::Outcome;
use crate::run::Selection;
use crate::snapshot::{Effort, SNAPSHOT_SCHEMA};

mod capacity;
mod compatibility;
mod control_plane;
mod promise;
mod selection;
mod version;
mod workload;

fn snapshot() -> Snapshot {
    Snapshot {
        schema: SNAPSHOT_SCHEMA,
        taken_at: "2026-11-24T00:00:00Z".parse().unwrap(),
        server: "https://x".into(),
        version: "v1.36.3".into(),
        asked: Selection::default(),
        served: Read::NotAsked,
        written: Vec::new(),
        releases: Read::NotAsked,
        metrics: Vec::new(),
        objects: Objects::default(),
        nodes: Vec::new(),
        nodes_unseen: None,
        dialled: Vec::new(),
        permissions: Vec::new(),
        copy: Read::NotAsked,
        effort: Effort::default(),
    }
}

fn seen<T: serde::de::DeserializeOwned>(objects: Value) -> Read<Vec<T>> {
    Read::Seen(serde_json::from_value(objects).unwrap())
}

fn found(snapshot: &Snapshot) -> Vec<String> {
    found_at(snapshot, "1.36", "1.37")
}

fn question(snapshot: &Snapshot, current: &str, target: &str) -> Question {
    Question {
        target: target.parse().unwrap(),
        current: current.parse().ok(),
        profile: Profile::Default,
        now: snapshot.taken_at,
        max_parallel: 10,
    }
}

/// What is found on the way from one minor to another, without what has nothing to look at.
fn found_at(snapshot: &Snapshot, current: &str, target: &str) -> Vec<String> {
    let mut findings = judge(snapshot, &question(snapshot, current, target));
    findings.retain(|finding| finding.outcome != Outcome::Skipped);
    for finding in &findings {
        // Every sentence is filled.
        for language in [Language::En, Language::Zh] {
            let said = [finding.text(language), finding.fix(language)].map(|text| text.replace("jsonpath={", ""));
            assert!(!said.iter().any(|text| text.contains('{')), "{finding:?}");
        }
    }
    findings
        .iter()
        .map(|found| format!("{:?} {} {} {}", found.outcome, found.check, found.sentence, found.subject))
        .collect()
}

/// A static pod of a component of the control plane, with flags.
fn component(name: &str, tag: &str, flags: &[&str]) -> Value {
    let command: Vec<&str> = std::iter::once(name).chain(flags.iter().copied()).collect();
    pod(
        &format!("{name}-m1"),
        json!({
            "metadata": { "namespace": "kube-system", "ownerReferences": [{ "kind": "Node", "name": "m1", "controller": true }] },
            "spec": { "nodeName": "m1", "containers": [{ "name": name, "image": format!("registry.k8s.io/{name}:{tag}"), "command": command }] },
        }),
    )
}

fn pod(name: &str, more: Value) -> Value {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "n", "labels": { "app": "a" }, "ownerReferences": [{ "kind": "ReplicaSet", "name": "a-5d", "controller": true }] },
        "spec": { "nodeName": "w1", "containers": [{ "name": "c", "image": "reg:5000/x/y:v1@sha256:00" }] },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] }
    });
    merge(&mut pod, more);
    pod
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

fn node(name: &str, more: Value) -> Value {
    let mut node = json!({
        "metadata": { "name": name },
        "status": {
            "allocatable": { "pods": "110", "cpu": "3900m", "memory": "7Gi" },
            "capacity": { "pods": "110", "cpu": "4", "memory": "8Gi" },
            "conditions": [{ "type": "Ready", "status": "True" }, { "type": "DiskPressure", "status": "False" }],
            "nodeInfo": { "kubeletVersion": "v1.36.3", "containerRuntimeVersion": "containerd://2.2.9", "osImage": "Debian GNU/Linux 12 (bookworm)" }
        }
    });
    merge(&mut node, more);
    node
}

#[test]
fn a_cluster_that_is_well_gives_no_finding() {
    let mut well = snapshot();
    well.objects.nodes = seen(json!([node("w1", json!({})), node("w2", json!({}))]));
    well.objects.pods = seen(json!([pod("a-1", json!({})), pod("a-2", json!({ "spec": { "nodeName": "w2" } }))]));
    well.objects.budgets = seen(json!([{
        "metadata": { "name": "b", "namespace": "n" },
        "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "app": "a" } } },
        "status": { "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2 }
    }]));
    well.objects.deployments = seen(json!([{
        "metadata": { "name": "a", "namespace": "n" },
        "spec": { "replicas": 2, "template": { "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [] } } }
    }]));
    assert_eq!(found(&well), [""; 0]);
}

#[test]
fn what_was_not_seen_is_unknown_and_what_was_not_asked_says_nothing() {
    let mut blind = snapshot();
    assert_eq!(found(&blind), [""; 0]);
    blind.objects.budgets = Read::NotSeen("poddisruptionbudgets is forbidden".into());
    assert_eq!(
        found(&blind),
        ["WL-001", "WL-002", "WL-003", "WL-004", "WL-008"].map(|check| format!("Unknown {check} not-seen Cluster"))
    );
}

#[test]
fn every_list_that_is_forbidden_makes_exactly_its_own_checks_unknown() {
    // A list at a time, by the name of its field.
    let whole = serde_json::to_value(Objects::default()).unwrap();
    let mut unknown = std::collections::BTreeSet::new();
    for field in whole.as_object().unwrap().keys() {
        let mut blind = snapshot();
        let mut objects = whole.clone();
        objects[field] = json!({ "not_seen": "forbidden" });
        // What other lists must be there for the list to be asked at all.
        for other in ["nodes", "pods", "claims", "volumes", "services", "network_policies"] {
            if other != field {
                objects[other] = json!({ "seen": [] });
            }
        }
        if field != "network_policies" {
            objects["network_policies"] = json!({ "seen": [{ "metadata": { "name": "p" } }] });
        }
        blind.objects = serde_json::from_value(objects).unwrap();
        let found = found(&blind);
        assert!(found.iter().all(|text| text.starts_with("Unknown ")), "{field}: {found:?}");
        // Usage is a better measure of what requests tell too; what operators say is asked for where they are.
        if !matches!(field.as_str(), "node_usage") {
            assert!(!found.is_empty(), "{field} is not seen, and no check says so");
        }
        unknown.extend(found.iter().filter_map(|text| text.split(' ').nth(1).map(str::to_owned)));
    }
    let read: std::collections::BTreeSet<&str> = READS.iter().flat_map(|(_, checks)| checks.iter().copied()).collect();
    // What API servers have counted is theirs to tell; lists only weigh it.
    let silent: Vec<_> = read.iter().filter(|id| **id != "WHK-005" && !unknown.contains(**id)).collect();
    assert!(silent.is_empty(), "never unknown: {silent:?}");
}

#[test]
fn what_the_account_of_an_upgrade_may_not_do_is_named_and_what_was_not_answered_is_unknown() {
    let ask = |is_spared: bool, allowed: Read<bool>| {
        let act = "patch nodes".to_owned();
        let permissions = vec![permission::Permission { act, is_spared, allowed }];
        found(&Snapshot { permissions, ..snapshot() })
    };
    for (is_spared, allowed, expected) in [
        (false, Read::Seen(true), None),
        (false, Read::Seen(false), Some("Fail RUN-003 missing Permission patch nodes")),
        (true, Read::Seen(false), Some("Warn RUN-003 spared Permission patch nodes")),
        (false, Read::NotSeen("away".into()), Some("Unknown RUN-003 not-seen Permission patch nodes")),
    ] {
        let found = ask(is_spared, allowed.clone());
        assert_eq!(found.first().map(String::as_str), expected, "{allowed:?} {found:?}");
    }
}

#[test]
fn budgets_that_refuse_a_drain_are_found() {
    let budget = |spec: Value, allowed: i64| {
        let mut spec = spec;
        merge(&mut spec, json!({ "selector": { "matchLabels": { "app": "a" } } }));
        json!([{ "metadata": { "name": "b", "namespace": "n" }, "spec": spec,
            "status": { "disruptionsAllowed": allowed, "currentHealthy": 3, "desiredHealthy": 3, "expectedPods": 3 } }])
    };
    for (spec, allowed, expected) in [
        (json!({ "maxUnavailable": 0 }), 0, Some("Fail WL-001 never")),
        (json!({ "maxUnavailable": "0%" }), 0, Some("Fail WL-001 never")),
        (json!({ "maxUnavailable": "1%" }), 1, None),
        (json!({ "minAvailable": 3 }), 0, Some("Fail WL-001 never")),
        (json!({ "minAvailable": "100%" }), 0, Some("Fail WL-001 never")),
        (json!({ "minAvailable": "67%" }), 0, Some("Fail WL-001 never")),
        (json!({ "minAvailable": "66%" }), 1, None),
        (json!({ "minAvailable": 2 }), 0, Some("Warn WL-002 none-now")),
    ] {
        let mut snapshot = snapshot();
        snapshot.objects.budgets = seen(budget(spec.clone(), allowed));
        let found = found(&snapshot);
        let expected: Vec<String> =
            expected.into_iter().map(|text| format!("{text} PodDisruptionBudget n/b")).collect();
        assert_eq!(found, expected, "{spec}");
    }
    let mut overlap = snapshot();
    let mut two = budget(json!({ "maxUnavailable": 1 }), 1);
    two.as_array_mut().unwrap().push(
        json!({ "metadata": { "name": "all", "namespace": "n" }, "spec": { "maxUnavailable": 1, "selector": {} },
        "status": { "disruptionsAllowed": 1, "expectedPods": 3 } }),
    );
    overlap.objects.budgets = seen(two);
    overlap.objects.pods = seen(json!([pod("a-1", json!({}))]));
    assert_eq!(found(&overlap), ["Fail WL-003 overlap Deployment n/a"]);
}

#[test]
fn a_budget_that_broken_pods_hold_for_ever_blocks_and_one_that_nobody_has_counted_is_counted_here() {
    let budget = |policy: &str, status: Value| {
        json!([{ "metadata": { "name": "b", "namespace": "n" },
            "spec": { "minAvailable": 1, "unhealthyPodEvictionPolicy": policy, "selector": { "matchLabels": { "app": "a" } } },
            "status": status }])
    };
    let status = json!({ "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 1, "expectedPods": 2, "observedGeneration": 1 });
    let crashes = json!({ "status": {
        "conditions": [{ "type": "Ready", "status": "False" }],
        "containerStatuses": [{ "name": "c", "state": { "waiting": { "reason": "CrashLoopBackOff" } } }]
    } });
    let budgets = |list: Vec<String>| list.into_iter().filter(|text| text.contains("WL-00")).collect::<Vec<_>>();
    let mut held = snapshot();
    held.objects.pods = seen(json!([pod("a-1", crashes.clone()), pod("a-2", crashes)]));
    for (policy, expected) in [
        ("", "Fail WL-002 broken PodDisruptionBudget n/b"),
        ("IfHealthyBudget", "Fail WL-002 broken PodDisruptionBudget n/b"),
        ("AlwaysAllow", "Warn WL-002 none-now PodDisruptionBudget n/b"),
    ] {
        held.objects.budgets = seen(budget(policy, status.clone()));
        assert_eq!(budgets(found(&held)), [expected], "{policy}");
    }
    let mut uncounted = snapshot();
    uncounted.objects.budgets = seen(budget("", json!({})));
    uncounted.objects.pods = seen(json!([pod("a-1", json!({}))]));
    assert_eq!(budgets(found(&uncounted)), ["Fail WL-001 never PodDisruptionBudget n/b"]);
    uncounted.objects.pods = seen(json!([pod("a-1", json!({})), pod("a-2", json!({}))]));
    assert_eq!(budgets(found(&uncounted)), [""; 0]);
}

#[test]
fn nodes_in_trouble_are_found() {
    let ready = |status: &str, message: &str| json!({ "status": { "conditions": [{ "type": "Ready", "status": status, "message": message }] } });
    for (more, expected) in [
        (ready("False", "PLEG is not healthy: pleg was last seen active 5m0s ago"), vec!["Fail NODE-002 pleg Node w1"]),
        (ready("Unknown", "Kubelet stopped posting node status."), vec!["Fail NODE-001 not-ready Node w1"]),
        (json!({ "spec": { "unschedulable": true } }), vec!["Warn NODE-001 cordoned Node w1"]),
        (json!({ "status": { "nodeInfo": { "kubeletVersion": "v1.33.1" } } }), vec!["Fail VER-003 too-old Node w1"]),
        (json!({ "metadata": { "deletionTimestamp": "2026-11-23T23:59:00Z" } }), vec!["Warn RUN-001 leaves Node w1"]),
        (
            json!({ "spec": { "taints": [{ "key": "node.cloudprovider.kubernetes.io/shutdown", "effect": "NoSchedule" }] } }),
            vec!["Warn CAP-005 stopped Node w1"],
        ),
        (json!({ "status": { "nodeInfo": { "kubeletVersion": "v1.34.1-vendor.2" } } }), vec![]),
        (json!({ "status": { "nodeInfo": { "kubeletVersion": "v1.37.0" } } }), vec!["Fail VER-002 newer Node w1"]),
        (
            json!({ "status": { "nodeInfo": { "containerRuntimeVersion": "containerd://1.6.20" } } }),
            vec!["Warn VER-010 containerd-1 Node w1"],
        ),
        (
            json!({ "status": { "nodeInfo": { "containerRuntimeVersion": "docker://20.10.7" } } }),
            vec!["Fail VER-010 docker Node w1"],
        ),
        (
            json!({ "status": { "nodeInfo": { "osImage": "CentOS Linux 7 (Core)" } } }),
            vec!["Warn NODE-005 old Node w1"],
        ),
        (json!({ "status": { "allocatable": { "pods": "2" } } }), vec!["Fail NODE-024 full Node w1"]),
    ] {
        let mut snapshot = snapshot();
        snapshot.objects.nodes = seen(json!([node("w1", more.clone())]));
        snapshot.objects.pods = seen(json!([]));
        assert_eq!(found(&snapshot), expected, "{more}");
    }
}

#[test]
fn workloads_that_an_upgrade_interrupts_are_found() {
    let deployment = |replicas: i64, container: Value| {
        json!([{ "metadata": { "name": "a", "namespace": "n" },
            "spec": { "replicas": replicas, "template": { "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [container] } } } }])
    };
    let mut single = snapshot();
    single.objects.deployments = seen(deployment(1, json!({ "startupProbe": { "initialDelaySeconds": 30 } })));
    single.objects.services =
        seen(json!([{ "metadata": { "name": "s", "namespace": "n" }, "spec": { "selector": { "app": "a" } } }]));
    single.objects.pods = seen(json!([pod("a-1", json!({}))]));
    assert_eq!(found(&single), ["Warn WL-005 single Deployment n/a", "Warn WL-007 single Deployment n/a"]);

    let mut together = snapshot();
    together.objects.deployments = seen(deployment(2, json!({})));
    together.objects.budgets = seen(json!([]));
    together.objects.pods = seen(json!([pod("a-1", json!({})), pod("a-2", json!({}))]));
    assert_eq!(found(&together), ["Warn WL-004 none Deployment n/a", "Warn WL-008 one-node Deployment n/a"]);

    let mut fields = snapshot();
    let marked = |name: &str| json!({ "metadata": { "annotations": { name: "x", "other/y": "secret" } } });
    fields.objects.pods = seen(json!([
        pod("s", marked("seccomp.security.alpha.kubernetes.io/pod")),
        pod(
            "m",
            json!({ "metadata": { "ownerReferences": [] }, "spec": { "nodeSelector": { "node-role.kubernetes.io/master": "" }, "containers": [{ "name": "c", "image": "x", "imagePullPolicy": "Never" }] } })
        ),
        pod(
            "memory",
            json!({ "metadata": { "namespace": "o" }, "spec": { "volumes": [{ "name": "d", "emptyDir": { "medium": "Memory" } }] } })
        ),
    ]));
    assert_eq!(
        found(&fields),
        [
            "Warn API-015 seccomp Deployment n/a",
            "Fail WL-009 naked Pod n/m",
            "Warn WL-015 never Pod n/m",
            "Warn API-015 master-label Pod n/m"
        ]
    );
    let saved = serde_json::to_string(&fields).unwrap();
    assert!(saved.contains("seccomp.security") && !saved.contains("secret"), "{saved}");

    let mut pods = snapshot();
    pods.objects.pods = seen(json!([
        pod("naked", json!({ "metadata": { "ownerReferences": [] } })),
        pod(
            "static",
            json!({ "metadata": { "ownerReferences": [{ "kind": "Node", "name": "m1", "controller": true }] } })
        ),
        pod("data", json!({ "spec": { "volumes": [{ "name": "d", "emptyDir": {} }] } })),
        pod("gone", json!({ "metadata": { "deletionTimestamp": "2026-11-23T00:00:00Z", "finalizers": ["x/y"] } })),
        pod("ends", json!({ "metadata": { "deletionTimestamp": "2026-11-23T23:59:00Z" } })),
    ]));
    assert_eq!(
        found(&pods),
        ["Fail WL-009 naked Pod n/naked", "Warn WL-010 local Deployment n/a", "Fail WL-013 stuck Pod n/gone"]
    );
}

#[test]
fn traffic_and_volumes_that_an_upgrade_cuts_are_found() {
    let mut local = snapshot();
    let service = |name: &str, policy: &str| {
        json!({ "metadata": { "name": name, "namespace": "n" },
            "spec": { "type": "NodePort", "externalTrafficPolicy": policy, "selector": { "app": name } } })
    };
    local.objects.services = seen(json!([
        service("one", "Local"),
        service("none", "Local"),
        service("two", "Local"),
        service("any", "Cluster")
    ]));
    let slice = |name: &str, nodes: &[&str]| {
        let endpoints: Vec<Value> =
            nodes.iter().map(|node| json!({ "nodeName": node, "conditions": { "ready": null } })).collect();
        json!({ "metadata": { "namespace": "n", "labels": { "kubernetes.io/service-name": name } }, "endpoints": endpoints })
    };
    local.objects.slices = seen(json!([slice("one", &["w1", "w1"]), slice("two", &["w1", "w2"]), slice("none", &[])]));
    assert_eq!(found(&local), ["Warn NET-001 one-node Service n/one", "Fail NET-001 none Service n/none"]);
    let ill = json!([{ "metadata": { "namespace": "n", "labels": { "kubernetes.io/service-name": "none" } },
        "endpoints": [{ "nodeName": "w1", "conditions": { "ready": false } }] }]);
    local.objects.services = seen(json!([service("none", "Local")]));
    for slices in [ill, json!([])] {
        local.objects.slices = seen(slices);
        assert_eq!(found(&local), ["Fail NET-001 none Service n/none"]);
    }

    // Who is in the cluster and calls a load balancer by its address may come from a node without a ready pod.
    let mut balanced = service("two", "Local");
    merge(
        &mut balanced,
        json!({ "spec": { "type": "LoadBalancer" }, "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.7" }, { "hostname": "lb.example.com" }] } } }),
    );
    let stands_for = json!({ "metadata": { "name": "alias", "namespace": "m" }, "spec": { "type": "ExternalName", "externalName": "LB.example.com" } });
    let mut by_hand = slice("by-hand", &[]);
    merge(&mut by_hand, json!({ "metadata": { "name": "by-hand" }, "endpoints": [{ "addresses": ["203.0.113.7"] }] }));
    let hook = |name: &str, url: &str| json!({ "metadata": { "name": name }, "webhooks": [{ "name": "x.y.z", "timeoutSeconds": 5, "admissionReviewVersions": ["v1"], "clientConfig": { "url": url } }] });
    let knows =
        |name: &str, ip: &str| pod(name, json!({ "spec": { "hostAliases": [{ "ip": ip, "hostnames": ["shop"] }] } }));
    local.objects.services = seen(json!([balanced, stands_for]));
    local.objects.slices = seen(json!([slice("two", &["w1", "w2"]), by_hand]));
    local.objects.pods = seen(json!([knows("near", "203.0.113.7"), knows("far", "203.0.113.70")]));
    local.objects.validating = seen(json!([
        hook("inward", "https://203.0.113.7:8443/x"),
        hook("outward", "https://lb.example.com.example.org/203.0.113.7")
    ]));
    local.objects.mutating = seen(json!([hook("by-name", "https://lb.example.com")]));
    let findings = judge(&local, &question(&local, "1.36", "1.37"));
    let users = findings.iter().filter(|found| found.check == "NET-001" && found.sentence == "by-address");
    let users: Vec<String> =
        users.map(|found| format!("{} {}", found.parameters["user"], found.parameters["address"])).collect();
    assert_eq!(
        users,
        [
            "Deployment n/a 203.0.113.7",
            "EndpointSlice n/by-hand 203.0.113.7",
            "MutatingWebhookConfiguration by-name lb.example.com",
            "Service m/alias lb.example.com",
            "ValidatingWebhookConfiguration inward 203.0.113.7",
        ]
    );
    local.objects.pods = Read::NotSeen("forbidden".into());
    assert!(found(&local).contains(&"Unknown NET-001 not-seen Cluster".to_owned()));

    let mut volumes = snapshot();
    volumes.objects.volumes = seen(json!([
        { "metadata": { "name": "flex" }, "spec": { "capacity": {}, "flexVolume": { "driver": "alicloud/oss" } } },
        { "metadata": { "name": "rbd" }, "spec": { "rbd": { "image": "x" } } },
        { "metadata": { "name": "aws" }, "spec": { "awsElasticBlockStore": { "volumeID": "x" }, "nodeAffinity": {} } },
        { "metadata": { "name": "csi" }, "spec": { "csi": { "driver": "ebs.csi.aws.com" } } },
    ]));
    volumes.objects.csi_drivers = seen(json!([]));
    assert_eq!(
        found(&volumes),
        [
            "Warn STO-001 flex PersistentVolume flex",
            "Fail STO-002 removed PersistentVolume rbd",
            "Fail STO-003 no-driver PersistentVolume aws"
        ]
    );
    volumes.objects.csi_drivers = seen(json!([{ "metadata": { "name": "ebs.csi.aws.com" } }]));
    assert_eq!(found(&volumes).len(), 2);
}

#[test]
fn webhooks_that_stop_the_cluster_are_found() {
    let configuration = |policy: &str, more: Value| {
        let mut webhook = json!({
            "name": "w.x", "failurePolicy": policy, "admissionReviewVersions": ["v1"],
            "clientConfig": { "service": { "namespace": "n", "name": "s" } },
            "rules": [{ "apiGroups": [""], "resources": ["configmaps"] }]
        });
        merge(&mut webhook, more);
        json!([{ "metadata": { "name": "c" }, "webhooks": [webhook] }])
    };
    let rules = |group: &str, resource: &str, more: Value| {
        let mut rule = json!({ "apiGroups": [group], "resources": [resource] });
        merge(&mut rule, more);
        json!({ "rules": [rule] })
    };
    let slices = |count: usize| {
        let endpoints: Vec<Value> = (0..count).map(|index| json!({ "nodeName": format!("w{index}") })).collect();
        json!([{ "metadata": { "namespace": "n", "labels": { "kubernetes.io/service-name": "s" } }, "endpoints": endpoints }])
    };
    for (policy, more, endpoints, expected) in [
        ("Fail", json!({}), 2, vec![]),
        ("Fail", json!({}), 0, vec!["Fail WHK-006 none"]),
        ("Ignore", json!({}), 0, vec!["Warn WHK-006 none-ignored"]),
        ("Fail", json!({}), 1, vec!["Warn WHK-008 single"]),
        ("Fail", json!({ "rules": [{ "apiGroups": ["*"], "resources": ["*"] }] }), 2, vec!["Fail WHK-007 system"]),
        ("Fail", json!({ "rules": [{ "apiGroups": [""], "resources": ["pods"] }] }), 2, vec!["Fail WHK-007 system"]),
        ("Ignore", json!({ "rules": [{ "apiGroups": [""], "resources": ["pods"] }] }), 2, vec![]),
        (
            "Fail",
            json!({ "rules": [{ "apiGroups": [""], "resources": ["pods"], "operations": ["CONNECT"] }] }),
            2,
            vec![],
        ),
        (
            "Fail",
            json!({ "rules": [{ "apiGroups": [""], "resources": ["nodes"], "operations": ["CREATE"] }] }),
            2,
            vec![],
        ),
        (
            "Fail",
            json!({ "rules": [{ "apiGroups": ["*"], "resources": ["*"] }], "namespaceSelector": { "matchExpressions": [{ "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"] }] } }),
            2,
            vec!["Warn WHK-007 drain"],
        ),
        (
            "Fail",
            json!({ "rules": [{ "apiGroups": [""], "resources": ["pods/eviction"] }] }),
            2,
            vec!["Warn WHK-007 drain"],
        ),
        (
            "Fail",
            json!({ "rules": [{ "apiGroups": [""], "resources": ["pods"] }], "namespaceSelector": { "matchExpressions": [{ "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"] }] } }),
            2,
            vec![],
        ),
        ("Fail", rules("", "pods/*", json!({})), 2, vec!["Fail WHK-007 system"]),
        ("Fail", rules("", "pods/status", json!({})), 2, vec![]),
        ("Fail", rules("", "*", json!({ "operations": ["CREATE"] })), 2, vec!["Fail WHK-007 system"]),
        ("Fail", rules("", "nodes/*", json!({})), 2, vec!["Warn WHK-007 drain"]),
        ("Fail", rules("", "*/eviction", json!({})), 2, vec!["Warn WHK-007 drain"]),
        ("Fail", rules("", "nodes", json!({ "scope": "Namespaced" })), 2, vec![]),
        ("Fail", rules("", "pods", json!({ "scope": "Cluster" })), 2, vec![]),
        ("Fail", rules("", "pods", json!({ "scope": "Namespaced" })), 2, vec!["Fail WHK-007 system"]),
        ("Fail", rules("coordination.k8s.io", "leases", json!({})), 2, vec!["Fail WHK-007 system"]),
        ("Fail", json!({ "rules": [] }), 0, vec![]),
        ("Fail", json!({ "rules": [] }), 1, vec![]),
        ("Fail", json!({ "rules": [], "clientConfig": { "caBundle": "?" } }), 2, vec![]),
        ("Fail", json!({ "timeoutSeconds": 30 }), 2, vec!["Warn WHK-009 slow"]),
        ("Fail", json!({ "admissionReviewVersions": ["v1beta1"] }), 2, vec!["Warn WHK-010 no-v1"]),
        ("Fail", json!({ "clientConfig": { "caBundle": "AAAA" } }), 2, vec!["Fail WHK-003 bundle"]),
        ("Fail", json!({ "clientConfig": { "caBundle": "?" } }), 2, vec!["Fail WHK-003 bundle"]),
        ("Ignore", json!({ "clientConfig": { "caBundle": "?" } }), 2, vec!["Warn WHK-003 bundle"]),
    ] {
        let mut snapshot = snapshot();
        snapshot.objects.validating = seen(configuration(policy, more.clone()));
        snapshot.objects.slices = seen(slices(endpoints));
        let expected: Vec<String> =
            expected.iter().map(|text| format!("{text} ValidatingWebhookConfiguration c")).collect();
        assert_eq!(found(&snapshot), expected, "{policy} {more} {endpoints}");
    }
}

#[test]
fn a_webhook_is_asked_about_those_objects_that_its_selector_and_its_conditions_do_not_leave_out() {
    let expression = |operator: &str, values: Value| json!({ "objectSelector": { "matchExpressions": [{ "key": "app", "operator": operator, "values": values }] } });
    let conditions = |texts: &[&str]| {
        let conditions: Vec<Value> = texts.iter().map(|text| json!({ "name": "c", "expression": text })).collect();
        json!({ "matchConditions": conditions })
    };
    let system = Some("Fail WHK-007 system");
    let perhaps = Some("Warn WHK-007 system-perhaps");
    let drain = Some("Warn WHK-007 drain");
    for (resource, more, expected) in [
        ("pods", expression("DoesNotExist", json!([])), None),
        ("pods", expression("NotIn", json!(["b"])), system),
        ("pods", expression("NotIn", json!(["a"])), None),
        ("pods", expression("In", json!(["a"])), system),
        // A pod with this label is in another namespace.
        ("pods", expression("In", json!(["shop"])), None),
        ("leases", expression("DoesNotExist", json!([])), system),
        ("leases", expression("Exists", json!([])), None),
        ("pods/eviction", expression("NotIn", json!(["b"])), drain),
        ("pods/eviction", expression("In", json!(["a"])), None),
        ("nodes", expression("In", json!(["w"])), drain),
        ("nodes", expression("In", json!(["a"])), None),
        ("pods", conditions(&["true"]), system),
        ("pods", conditions(&["true", "object.spec.hostNetwork"]), perhaps),
        ("pods", conditions(&["request.namespace != 'kube-system'"]), None),
        ("pods", conditions(&["has(object.spec)", "request.namespace!=\"kube-system\""]), None),
        ("pods", conditions(&["request.namespace != 'shop'"]), perhaps),
        ("nodes", conditions(&["request.namespace != 'kube-system'"]), drain),
    ] {
        let mut webhook = json!({ "name": "w.x", "failurePolicy": "Fail", "admissionReviewVersions": ["v1"],
            "clientConfig": { "service": { "namespace": "n", "name": "s" } },
            "rules": [{ "apiGroups": ["*"], "resources": [resource] }] });
        merge(&mut webhook, more.clone());
        let mut snapshot = snapshot();
        snapshot.objects.validating = seen(json!([{ "metadata": { "name": "c" }, "webhooks": [webhook] }]));
        let of_controller = json!({ "metadata": { "namespace": "kube-system" } });
        let elsewhere = json!({ "metadata": { "labels": { "app": "shop" } } });
        snapshot.objects.pods = seen(json!([pod("a", of_controller), pod("shop", elsewhere)]));
        snapshot.objects.nodes = seen(json!([node("w1", json!({ "metadata": { "labels": { "app": "w" } } }))]));
        let said: Vec<String> = found(&snapshot).into_iter().filter(|text| text.contains("WHK-")).collect();
        let expected: Vec<String> =
            expected.iter().map(|text| format!("{text} ValidatingWebhookConfiguration c")).collect();
        assert_eq!(said, expected, "{resource} {more}");
    }
}

#[test]
fn a_converter_that_is_away_stops_an_upgrade_where_something_is_converted() {
    let away = |versions: &[&str], stored: &[&str], count: Option<u32>| {
        let versions: Vec<Value> = versions.iter().map(|name| json!({ "name": name, "served": true })).collect();
        let client = json!({ "service": { "namespace": "n", "name": "s" } });
        let conversion = json!({ "strategy": "Webhook", "webhook": { "clientConfig": client } });
        let mut snapshot = snapshot();
        snapshot.objects.slices = seen(json!([]));
        snapshot.objects.definitions =
            seen(json!([{ "metadata": { "name": "as.x" }, "status": { "storedVersions": stored },
            "spec": { "group": "x", "names": { "plural": "as" }, "versions": versions, "conversion": conversion } }]));
        let mut metrics = crate::api::metrics::Metrics::default();
        if let Some(count) = count {
            metrics.take(&format!("apiserver_resource_objects{{group=\"x\",resource=\"as\"}} {count}"));
        }
        let metrics = Read::Seen(metrics);
        let instance = crate::snapshot::Instance {
            address: "x".into(),
            metrics,
            version: Read::NotAsked,
            not_ready: Read::NotAsked,
        };
        snapshot.metrics = vec![instance];
        found(&snapshot).into_iter().filter(|text| text.contains("WHK-013")).collect::<Vec<_>>()
    };
    let fail = ["Fail WHK-013 none CustomResourceDefinition as.x"];
    assert_eq!(away(&["v1", "v1beta1"], &["v1"], None), fail);
    assert_eq!(away(&["v1", "v1beta1"], &["v1"], Some(2)), fail);
    assert_eq!(away(&["v1"], &["v1beta1", "v1"], None), fail, "what is stored is older");
    assert_eq!(away(&["v1", "v1beta1"], &["v1"], Some(0)), ["Warn WHK-013 none CustomResourceDefinition as.x"]);
    assert_eq!(away(&["v1"], &["v1"], Some(2)), [""; 0], "there is nothing to convert");
}

#[test]
fn nobody_is_told_to_set_a_failure_policy_that_is_set_already() {
    for (policy, is_told) in [("Fail", true), ("Ignore", false)] {
        let mut snapshot = snapshot();
        let client = json!({ "service": { "namespace": "n", "name": "s" } });
        let webhook = json!({ "name": "w.x", "failurePolicy": policy, "admissionReviewVersions": ["v1"], "clientConfig": client, "rules": [{}] });
        snapshot.objects.mutating = seen(json!([{ "metadata": { "name": "c" }, "webhooks": [webhook] }]));
        snapshot.objects.slices = seen(json!([]));
        let found = judge(&snapshot, &question(&snapshot, "1.36", "1.37"));
        let finding = found.iter().find(|finding| finding.check == "WHK-006").unwrap();
        for (language, word) in [(Language::En, "to Ignore"), (Language::Zh, "设为 Ignore")] {
            assert_eq!(finding.fix(language).contains(word), is_told, "{policy} {}", finding.fix(language));
        }
    }
}

#[test]
fn definitions_and_apis_in_trouble_are_found() {
    let mut snapshot = snapshot();
    snapshot.objects.definitions = seen(json!([
        { "metadata": { "name": "a.x" }, "spec": { "versions": [{ "name": "v1", "served": true, "storage": true }] }, "status": { "storedVersions": ["v1alpha1", "v1"] } },
        { "metadata": { "name": "b.x" }, "spec": { "names": { "kind": "B" }, "versions": [{ "name": "v1beta1", "served": true, "deprecated": true }] } },
        { "metadata": { "name": "c.x" }, "status": { "conditions": [{ "type": "Established", "status": "False" }] } },
    ]));
    snapshot.objects.api_services = seen(
        json!([{ "metadata": { "name": "v1.m" }, "status": { "conditions": [{ "type": "Available", "status": "False", "message": "no" }] } }]),
    );
    assert_eq!(
        found(&snapshot),
        [
            "Fail WHK-011 unavailable APIService v1.m",
            "Fail ADD-003 gone CustomResourceDefinition a.x",
            "Warn ADD-004 deprecated CustomResourceDefinition b.x",
            "Fail ADD-006 not-served CustomResourceDefinition c.x"
        ]
    );
}

#[test]
fn every_check_that_reads_the_cluster_is_built_and_every_built_one_reads_something() {
    for (path, checks) in READS {
        for id in *checks {
            let check = crate::catalogue::find(id);
            assert!(check.is_some_and(|check| check.not_built.is_none()), "{path}: {id}");
        }
    }
    let read: std::collections::BTreeSet<&str> = READS.iter().flat_map(|(_, checks)| checks.iter().copied()).collect();
    for check in crate::catalogue::all() {
        let is_of_cluster = check.scope == crate::catalogue::Scope::Cluster && check.not_built.is_none();
        let needs_no_list = ["VER-001", "VER-008"].contains(&check.id);
        if is_of_cluster && check.category() != crate::catalogue::Category::Api && !needs_no_list {
            assert!(read.contains(check.id), "{} reads nothing", check.id);
        }
    }
    assert_eq!(crate::catalogue::all().len(), 136);
    assert!(Outcome::Fail > Outcome::Unknown);
}

#[test]
fn a_snapshot_can_be_saved_and_read_again_and_says_the_same() {
    let mut before = snapshot();
    before.objects.volumes =
        seen(json!([{ "metadata": { "name": "flex" }, "spec": { "flexVolume": { "driver": "d" } } }]));
    before.objects.pods = seen(json!([pod(
        "a-1",
        json!({ "spec": { "volumes": [{ "name": "d", "hostPath": { "path": "/var/run/docker.sock" } }] } })
    )]));
    let after: Snapshot = serde_json::from_str(&serde_json::to_string(&before).unwrap()).unwrap();
    assert_eq!(found(&before), found(&after));
    assert_eq!(found(&before).len(), 3);
}
