//! Whether what an upgrade moves finds a place.

use super::*;

fn worker(name: &str, cpu: &str, more: Value) -> Value {
    let mut worker = node(
        name,
        json!({ "status": { "allocatable": { "cpu": cpu, "memory": "8Gi" }, "capacity": { "cpu": "16", "memory": "16Gi" } } }),
    );
    merge(&mut worker, more);
    worker
}

fn asks(name: &str, on: &str, cpu: &str, more: Value) -> Value {
    let mut asks = pod(
        name,
        json!({ "metadata": { "ownerReferences": [{ "kind": "ReplicaSet", "name": format!("{name}-5d"), "controller": true }] },
            "spec": { "nodeName": on, "containers": [{ "name": "c", "image": "x", "resources": { "requests": { "cpu": cpu } } }] } }),
    );
    merge(&mut asks, more);
    asks
}

fn cluster(nodes: Value, pods: Value) -> Snapshot {
    let mut snapshot = snapshot();
    snapshot.objects.nodes = seen(nodes);
    snapshot.objects.pods = seen(pods);
    snapshot.objects.volumes = seen(json!([]));
    snapshot.objects.claims = seen(json!([]));
    snapshot
}

fn packed(snapshot: &Snapshot) -> Vec<String> {
    found(snapshot).into_iter().filter(|text| text.contains("CAP-003")).collect()
}

#[test]
fn pods_of_a_batch_that_find_no_place_are_found_before_it_begins() {
    let plain = json!({});
    let three = || json!([worker("w1", "4", json!({})), worker("w2", "4", json!({})), worker("w3", "4", json!({}))]);
    let refuses = json!({ "spec": { "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
        { "topologyKey": "kubernetes.io/hostname", "labelSelector": { "matchLabels": { "app": "a" } } }] } } } });
    let wants = |key: &str| {
        json!({ "spec": { "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{ "matchExpressions": [{ "key": key, "operator": "Exists" }] }] } } } } })
    };
    let tainted = json!({ "spec": { "taints": [{ "key": "gpu", "value": "1", "effect": "NoSchedule" }] } });
    for (name, nodes, pods, expected) in [
        (
            "there is room",
            three(),
            json!([asks("a", "w1", "3", plain.clone()), asks("b", "w2", "1", plain.clone())]),
            vec![],
        ),
        (
            "one at a time fits and two do not",
            three(),
            json!([
                asks("a", "w1", "2", plain.clone()),
                asks("b", "w2", "2", plain.clone()),
                asks("c", "w3", "2", plain.clone())
            ]),
            // After the first batch two nodes with 2 CPUs each go to one that has 4 free or less.
            vec!["Fail CAP-003 no-room NodePool default"],
        ),
        (
            "not even one",
            three(),
            json!([
                asks("a", "w1", "4", plain.clone()),
                asks("b", "w2", "4", plain.clone()),
                asks("c", "w3", "4", plain.clone())
            ]),
            vec!["Fail CAP-003 no-room-at-all NodePool default"],
        ),
        (
            "the only node",
            json!([worker("w1", "4", json!({}))]),
            json!([asks("a", "w1", "1", plain.clone())]),
            vec!["Warn CAP-003 only-node NodePool default"],
        ),
        (
            "what a DaemonSet and a file run stays",
            json!([worker("w1", "4", json!({})), worker("w2", "1", json!({}))]),
            json!([
                asks(
                    "d",
                    "w1",
                    "3",
                    json!({ "metadata": { "ownerReferences": [{ "kind": "DaemonSet", "name": "d", "controller": true }] } })
                ),
                asks(
                    "s",
                    "w1",
                    "1",
                    json!({ "metadata": { "ownerReferences": [{ "kind": "Node", "name": "w1", "controller": true }] } })
                ),
            ]),
            vec![],
        ),
        (
            "anti-affinity over nodes",
            json!([worker("w1", "4", json!({})), worker("w2", "4", json!({}))]),
            json!([asks("a", "w1", "1", refuses.clone()), asks("b", "w2", "1", refuses.clone())]),
            vec!["Fail CAP-003 no-room-at-all NodePool default"],
        ),
        (
            "a label that one node alone has",
            json!([
                worker("w1", "4", json!({ "metadata": { "labels": { "disk": "ssd" } } })),
                worker("w2", "4", json!({}))
            ]),
            json!([asks("a", "w1", "1", wants("disk"))]),
            vec!["Fail CAP-003 no-room-at-all NodePool default"],
        ),
        (
            "a taint that is not tolerated",
            json!([worker("w1", "4", json!({})), worker("w2", "4", tainted.clone())]),
            json!([asks("a", "w1", "1", plain.clone())]),
            vec!["Fail CAP-003 no-room-at-all NodePool default"],
        ),
        (
            "a taint that is tolerated",
            json!([worker("w1", "4", json!({})), worker("w2", "4", tainted)]),
            json!([asks(
                "a",
                "w1",
                "1",
                json!({ "spec": { "tolerations": [{ "key": "gpu", "operator": "Exists" }] } })
            )]),
            vec![],
        ),
        (
            "a cordoned node takes nothing",
            json!([worker("w1", "4", json!({})), worker("w2", "4", json!({ "spec": { "unschedulable": true } }))]),
            json!([asks("a", "w1", "1", plain.clone())]),
            vec!["Fail CAP-003 no-room-at-all NodePool default"],
        ),
        (
            "pools go one by one",
            json!([
                worker("a1", "4", json!({ "metadata": { "labels": { "shiplock.dev/pool": "a" } } })),
                worker("b1", "4", json!({ "metadata": { "labels": { "shiplock.dev/pool": "b" } } })),
            ]),
            json!([asks("a", "a1", "2", plain.clone()), asks("b", "b1", "2", plain)]),
            vec![],
        ),
    ] {
        assert_eq!(packed(&cluster(nodes, pods)), expected, "{name}");
    }
}

#[test]
fn a_pod_that_its_volume_binds_to_the_batch_waits_and_is_no_lack_of_room() {
    let on = |name: &str| json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": [name] }] }] } });
    let labelled =
        |name: &str| worker(name, "4", json!({ "metadata": { "labels": { "kubernetes.io/hostname": name } } }));
    let uses = json!({ "spec": { "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "c" } }] } });
    let mut snapshot = cluster(json!([labelled("w1"), labelled("w2")]), json!([asks("a", "w1", "1", uses)]));
    snapshot.objects.claims =
        seen(json!([{ "metadata": { "name": "c", "namespace": "n" }, "spec": { "volumeName": "v" } }]));
    snapshot.objects.volumes =
        seen(json!([{ "metadata": { "name": "v" }, "spec": { "local": { "path": "/d" }, "nodeAffinity": on("w1") } }]));
    assert_eq!(packed(&snapshot), [""; 0]);
    let again: Snapshot = serde_json::from_str(&serde_json::to_string(&snapshot).unwrap()).unwrap();
    assert_eq!(packed(&again), [""; 0], "the nodes of a volume are saved with it");
}

#[test]
fn the_drain_of_pods_under_a_budget_waits_until_a_node_is_back() {
    let nodes: Vec<Value> = (1..=3).map(|index| worker(&format!("w{index}"), "4", json!({}))).collect();
    let pods: Vec<Value> =
        (1..=3).map(|index| asks(&format!("p{index}"), &format!("w{index}"), "4", json!({}))).collect();
    for (app, expected) in [("a", "Warn CAP-003 no-room-at-all"), ("other", "Fail CAP-003 no-room-at-all")] {
        let mut snapshot = cluster(json!(nodes), json!(pods));
        snapshot.objects.budgets = seen(json!([{ "metadata": { "name": "a", "namespace": "n" },
            "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "app": app } } },
            "status": { "disruptionsAllowed": 1, "currentHealthy": 3, "desiredHealthy": 2, "expectedPods": 3 } }]));
        let found = packed(&snapshot);
        assert!(found.iter().all(|text| text.starts_with(expected)) && !found.is_empty(), "{app}: {found:?}");
    }
    // Fewer rights make nothing worse: there may be a budget that nobody may see here.
    let mut snapshot = cluster(json!(nodes), json!(pods));
    snapshot.objects.budgets = Read::NotSeen("poddisruptionbudgets is forbidden".to_owned());
    let found = packed(&snapshot);
    assert!(found.iter().any(|text| text.starts_with("Unknown CAP-003")), "{found:?}");
    assert!(!found.iter().any(|text| text.starts_with("Fail")), "{found:?}");
}

#[test]
fn a_batch_that_is_too_large_is_told_with_the_size_that_fits() {
    let nodes: Vec<Value> = (1..=8).map(|index| worker(&format!("w{index}"), "4", json!({}))).collect();
    let pods: Vec<Value> =
        (1..=8).map(|index| asks(&format!("p{index}"), &format!("w{index}"), "3", json!({}))).collect();
    let mut roomy = nodes.clone();
    roomy.push(worker("x1", "8", json!({ "metadata": { "labels": { "shiplock.dev/pool": "spare" } } })));
    let snapshot = cluster(json!(roomy), json!(pods));
    let question = Question {
        target: "1.37".parse().unwrap(),
        current: "1.36".parse().ok(),
        profile: Profile::Default,
        now: snapshot.taken_at,
        max_parallel: 10,
    };
    let findings = judge(&snapshot, &question);
    let finding = findings.iter().find(|finding| finding.check == "CAP-003").unwrap();
    assert_eq!(finding.sentence, "no-room");
    assert_eq!(finding.parameters["fits"], "2", "{finding:?}");
    assert_eq!(finding.parameters["batch"], "3");
}

#[test]
fn nodes_that_reserve_nothing_are_found_and_more_so_when_they_are_busy() {
    let bare = |name: &str| {
        node(
            name,
            json!({ "status": { "allocatable": { "cpu": "4", "memory": "8089948Ki" }, "capacity": { "cpu": "4", "memory": "8192348Ki" } } }),
        )
    };
    let mut idle = snapshot();
    idle.objects.nodes = seen(json!([bare("w1")]));
    idle.objects.pods = seen(json!([]));
    assert_eq!(found(&idle), ["Warn CAP-002 none Cluster"]);
    let mut busy = idle.clone();
    busy.objects.pods = seen(json!([asks("a", "w1", "2100m", json!({}))]));
    let of_use = |snapshot: &Snapshot| {
        found(snapshot)
            .into_iter()
            .filter(|text| text.contains("CAP-00") && !text.contains("CAP-003"))
            .collect::<Vec<_>>()
    };
    assert_eq!(of_use(&busy), ["Warn CAP-002 none Cluster", "Warn CAP-001 requested Node w1"]);
    // What is measured counts before what is asked for.
    busy.objects.node_usage =
        seen(json!([{ "metadata": { "name": "w1" }, "usage": { "cpu": "100m", "memory": "1Gi" } }]));
    assert_eq!(of_use(&busy), ["Warn CAP-002 none Cluster"]);
    busy.objects.node_usage =
        seen(json!([{ "metadata": { "name": "w1" }, "usage": { "cpu": "100m", "memory": "6Gi" } }]));
    assert_eq!(of_use(&busy), ["Warn CAP-002 none Cluster", "Warn CAP-001 used Node w1"]);
}

#[test]
fn nodes_that_come_while_others_are_there_are_found() {
    let born = |name: &str, time: &str| node(name, json!({ "metadata": { "creationTimestamp": time } }));
    let mut growing = snapshot();
    growing.objects.pods = seen(json!([]));
    growing.objects.nodes = seen(json!([born("w1", "2026-11-01T00:00:00Z"), born("w2", "2026-11-23T23:55:00Z")]));
    assert_eq!(found(&growing), ["Warn RUN-001 came Node w2"]);
    growing.objects.nodes = seen(json!([born("w1", "2026-11-23T23:55:00Z"), born("w2", "2026-11-23T23:55:00Z")]));
    assert_eq!(found(&growing), [""; 0], "a cluster that is just born");
}

#[test]
fn a_quota_is_used_up_by_amounts_and_not_by_how_they_are_written() {
    for (resource, used, hard, expected) in [
        ("pods", "5", "5", Some("Warn CAP-010 used-up")),
        ("pods", "6", "5", Some("Warn CAP-010 used-up")),
        ("pods", "4", "5", None),
        ("count/pods", "1000", "1k", Some("Warn CAP-010 used-up")),
        ("requests.cpu", "4", "4", Some("Warn CAP-010 used-up")),
        ("requests.cpu", "4000m", "4", Some("Warn CAP-010 used-up")),
        ("requests.cpu", "3900m", "4", None),
        ("cpu", "4", "4", Some("Warn CAP-010 used-up")),
        ("limits.memory", "1024Mi", "1Gi", Some("Warn CAP-010 used-up")),
        ("memory", "1Gi", "2Gi", None),
        ("requests.nvidia.com/gpu", "2", "2", Some("Warn CAP-010 used-up")),
        // Nothing may run there, and somebody meant that.
        ("pods", "0", "0", None),
        // Volumes, Services and the like are kept while a pod moves.
        ("requests.storage", "1Ti", "1Ti", None),
        ("services", "5", "5", None),
        ("pods", "many", "5", Some("Unknown CAP-010 not-seen")),
        ("pods", "5", "", Some("Unknown CAP-010 not-seen")),
    ] {
        let mut snapshot = snapshot();
        snapshot.objects.quotas = seen(json!([{ "metadata": { "name": "q", "namespace": "n" },
            "status": { "used": { resource: used }, "hard": { resource: hard } } }]));
        let expected: Vec<String> = expected.into_iter().map(|text| format!("{text} ResourceQuota n/q")).collect();
        assert_eq!(found(&snapshot), expected, "{resource} {used} of {hard}");
    }
}
