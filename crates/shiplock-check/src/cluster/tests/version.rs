//! Versions: what cannot be read is unknown, by its object.

use super::*;

/// A pod of kube-system with one container of a component.
fn of_system(name: &str, owner: &str, image: &str) -> Value {
    pod(
        &format!("{name}-m1"),
        json!({
            "metadata": { "namespace": "kube-system", "ownerReferences": [{ "kind": owner, "name": name, "controller": true }] },
            "spec": { "nodeName": "m1", "containers": [{ "name": name, "image": image }] },
        }),
    )
}

#[test]
fn components_are_judged_by_their_tag_and_one_without_a_version_is_unknown_by_name() {
    let proxy = "DaemonSet kube-system/kube-proxy";
    let scheduler = "Pod kube-system/kube-scheduler-m1";
    let manager = "Pod kube-system/kube-controller-manager-m1";
    for (name, owner, tag, expected) in [
        ("kube-proxy", "DaemonSet", ":v1.36.3", None),
        ("kube-proxy", "DaemonSet", ":v1.34.0-eksbuild.3@sha256:00", None),
        ("kube-proxy", "DaemonSet", ":v1.37.0", Some(format!("Fail VER-004 newer {proxy}"))),
        ("kube-proxy", "DaemonSet", ":v1.33.1", Some(format!("Fail VER-004 too-old {proxy}"))),
        ("kube-proxy", "DaemonSet", "@sha256:00", Some(format!("Unknown VER-004 not-seen {proxy}"))),
        ("kube-proxy", "DaemonSet", ":custom", Some(format!("Unknown VER-004 not-seen {proxy}"))),
        ("kube-proxy", "DaemonSet", "", Some(format!("Unknown VER-004 not-seen {proxy}"))),
        ("kube-scheduler", "Node", ":v1.36.3", None),
        ("kube-scheduler", "Node", ":v1.35.3", None),
        ("kube-scheduler", "Node", ":v1.37.0", Some(format!("Fail VER-005 newer {scheduler}"))),
        ("kube-scheduler", "Node", ":v1.34.3", Some(format!("Warn VER-005 too-old {scheduler}"))),
        ("kube-scheduler", "Node", "@sha256:00", Some(format!("Unknown VER-005 not-seen {scheduler}"))),
        ("kube-controller-manager", "Node", ":custom", Some(format!("Unknown VER-005 not-seen {manager}"))),
        ("kube-controller-manager", "Node", ":v1.37.0", Some(format!("Fail VER-005 newer {manager}"))),
    ] {
        for image in [format!("registry.k8s.io/{name}{tag}"), format!("reg:5000/mirror/{name}-amd64{tag}")] {
            let mut snapshot = snapshot();
            snapshot.objects.pods = seen(json!([of_system(name, owner, &image)]));
            let found: Vec<String> = found(&snapshot).into_iter().filter(|text| text.contains("VER-00")).collect();
            assert_eq!(found, expected.iter().cloned().collect::<Vec<_>>(), "{image}");
        }
    }
    // What has ended is not at work any more, and what others name so is not Kubernetes' own.
    let mut ended = of_system("kube-proxy", "DaemonSet", "kube-proxy:custom");
    merge(&mut ended, json!({ "status": { "phase": "Failed" } }));
    let other = pod("x", json!({ "spec": { "containers": [{ "name": "kube-proxy", "image": "kube-proxy:custom" }] } }));
    let mut snapshot = snapshot();
    snapshot.objects.pods = seen(json!([ended, other]));
    assert_eq!(found(&snapshot), [""; 0]);
}

#[test]
fn a_node_that_does_not_tell_its_versions_or_its_room_is_unknown_by_name() {
    for (more, expected) in [
        (
            json!({ "status": { "nodeInfo": { "kubeletVersion": "?" } } }),
            vec!["Unknown VER-002 not-seen Node w1", "Unknown VER-003 not-seen Node w1"],
        ),
        (
            json!({ "status": { "nodeInfo": { "containerRuntimeVersion": "" } } }),
            vec!["Unknown VER-010 not-seen Node w1"],
        ),
        (
            json!({ "status": { "nodeInfo": { "containerRuntimeVersion": "2.2.9" } } }),
            vec!["Unknown VER-010 not-seen Node w1"],
        ),
        (
            json!({ "status": { "nodeInfo": { "containerRuntimeVersion": "containerd://" } } }),
            vec!["Unknown VER-010 not-seen Node w1"],
        ),
        (json!({ "status": { "nodeInfo": { "containerRuntimeVersion": "cri-o://1.33.0" } } }), vec![]),
        (json!({ "status": { "nodeInfo": { "containerRuntimeVersion": "containerd://v2.0.5-k3s1" } } }), vec![]),
        (json!({ "status": { "allocatable": { "pods": null } } }), vec!["Unknown NODE-024 not-seen Node w1"]),
        (json!({ "status": { "allocatable": { "pods": "many" } } }), vec!["Unknown NODE-024 not-seen Node w1"]),
        (json!({ "status": { "allocatable": { "pods": "1k" } } }), vec![]),
    ] {
        let mut node = node("w1", more.clone());
        if node["status"]["allocatable"]["pods"].is_null() {
            node["status"]["allocatable"].as_object_mut().unwrap().remove("pods");
        }
        let mut snapshot = snapshot();
        snapshot.objects.nodes = seen(json!([node]));
        snapshot.objects.pods = seen(json!([]));
        assert_eq!(found(&snapshot), expected, "{more}");
    }
}

#[test]
fn where_the_version_of_the_cluster_cannot_be_read_all_that_rests_on_it_is_unknown() {
    let mut snapshot = snapshot();
    snapshot.version = "garbage".into();
    let cloud = "registry/provider-aws/cloud-controller-manager:v1.36.1";
    snapshot.objects.pods = seen(json!([
        of_system("kube-proxy", "DaemonSet", "kube-proxy:v1.36.3"),
        component("kube-apiserver", "v1.36.3", &["--encryption-provider-config=/x"]),
        of_system("ccm", "DaemonSet", cloud),
    ]));
    snapshot.objects.nodes = seen(json!([node("w1", json!({}))]));
    let found = found_at(&snapshot, "garbage", "1.37");
    for expected in [
        "Unknown VER-001 not-seen Cluster",
        "Unknown VER-002 not-seen Cluster",
        "Unknown VER-004 not-seen Cluster",
        "Unknown VER-005 not-seen Cluster",
        "Unknown ADD-001 not-seen DaemonSet kube-system/ccm",
        "Unknown CP-012 not-seen Pod kube-system/kube-apiserver-m1",
    ] {
        assert!(found.iter().any(|text| text == expected), "{expected}: {found:#?}");
    }
}

#[test]
fn a_budget_or_a_cloud_manager_that_cannot_be_read_is_unknown_by_name() {
    for (spec, expected) in [
        (json!({ "maxUnavailable": "some" }), Some("Unknown WL-001 not-seen PodDisruptionBudget n/b")),
        (json!({ "minAvailable": "%" }), Some("Unknown WL-001 not-seen PodDisruptionBudget n/b")),
        (json!({ "maxUnavailable": 1 }), None),
        (json!({}), None),
    ] {
        let mut snapshot = snapshot();
        snapshot.objects.budgets = seen(json!([{ "metadata": { "name": "b", "namespace": "n" }, "spec": spec,
            "status": { "disruptionsAllowed": 1, "currentHealthy": 3, "desiredHealthy": 2, "expectedPods": 3 } }]));
        assert_eq!(found(&snapshot), expected.into_iter().collect::<Vec<_>>(), "{spec}");
    }
    for (tag, expected) in [
        ("@sha256:00", Some("Unknown ADD-001 not-seen DaemonSet kube-system/ccm")),
        (":latest", Some("Unknown ADD-001 not-seen DaemonSet kube-system/ccm")),
        (":v1.36.0", None),
    ] {
        let mut snapshot = snapshot();
        let image = format!("registry/cloud-controller-manager{tag}");
        snapshot.objects.pods = seen(json!([of_system("ccm", "DaemonSet", &image)]));
        assert_eq!(found(&snapshot), expected.into_iter().collect::<Vec<_>>(), "{tag}");
    }
}

#[test]
fn one_hop_is_the_way_to_a_target_and_several_or_a_step_back_stop_the_start() {
    for (current, target, expected) in [
        ("1.36", "1.37", None),
        // A newer patch.
        ("1.36", "1.36", None),
        ("1.35", "1.37", Some("Fail VER-001 several Cluster")),
        ("1.37", "1.36", Some("Fail VER-001 backwards Cluster")),
    ] {
        let mut found = found_at(&snapshot(), current, target);
        found.retain(|text| text.contains("VER-001"));
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{current} to {target}");
    }
}

#[test]
fn api_servers_that_are_apart_or_do_not_tell_their_version_are_found() {
    let instance = |address: &str, version: Read<String>| crate::snapshot::Instance {
        address: address.into(),
        metrics: Read::NotAsked,
        version,
        not_ready: Read::NotAsked,
    };
    let seen = |text: &str| Read::Seen(text.to_owned());
    for (one, other, expected) in [
        (seen("v1.36.3"), seen("v1.36.4"), None),
        (seen("v1.36.3"), seen("v1.35.1"), None),
        (seen("v1.36.3"), seen("v1.34.1"), Some("Fail VER-006 apart Cluster")),
        (seen("v1.36.3"), seen("garbage"), Some("Unknown VER-006 not-seen ApiServer b")),
        (seen("v1.36.3"), Read::NotSeen("away".into()), Some("Unknown VER-006 not-seen ApiServer b")),
    ] {
        let mut snapshot = snapshot();
        snapshot.metrics = vec![instance("a", one.clone()), instance("b", other.clone())];
        assert_eq!(found(&snapshot), expected.into_iter().collect::<Vec<_>>(), "{one:?} {other:?}");
    }
}
