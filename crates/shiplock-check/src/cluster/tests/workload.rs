//! Workloads that are ill, that are held, and that are in one place.

use super::*;

fn of_check(snapshot: &Snapshot, check: &str) -> Vec<String> {
    found(snapshot).into_iter().filter(|text| text.contains(check)).collect()
}

#[test]
fn a_container_that_does_not_get_well_by_itself_holds_its_budget_and_is_told_before() {
    let waits = |reason: &str| json!({ "waiting": { "reason": reason } });
    let ended = |reason: &str, code: i64| json!({ "terminated": { "reason": reason, "exitCode": code } });
    let broken = |reason: &'static str| Some(reason);
    for (list, state, reason) in [
        ("containerStatuses", waits("CrashLoopBackOff"), broken("CrashLoopBackOff")),
        ("initContainerStatuses", waits("CrashLoopBackOff"), broken("CrashLoopBackOff")),
        ("initContainerStatuses", waits("ImagePullBackOff"), broken("ImagePullBackOff")),
        ("containerStatuses", waits("CreateContainerError"), broken("CreateContainerError")),
        ("containerStatuses", waits("CreateContainerConfigError"), broken("CreateContainerConfigError")),
        ("containerStatuses", waits("InvalidImageName"), broken("InvalidImageName")),
        ("containerStatuses", waits("ErrImageNeverPull"), broken("ErrImageNeverPull")),
        ("containerStatuses", waits("RunContainerError"), broken("RunContainerError")),
        ("containerStatuses", ended("Error", 1), broken("Error")),
        ("containerStatuses", ended("OOMKilled", 137), broken("OOMKilled")),
        ("containerStatuses", ended("", 2), broken("Error")),
        ("initContainerStatuses", ended("Error", 1), broken("Error")),
        ("initContainerStatuses", ended("Completed", 0), None),
        ("containerStatuses", waits("ContainerCreating"), None),
        ("containerStatuses", waits("PodInitializing"), None),
        ("containerStatuses", json!({ "running": {} }), None),
    ] {
        let mut snapshot = snapshot();
        let mut ill = pod("a-1", json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } }));
        ill["status"][list] = json!([{ "name": "c", "state": state }]);
        snapshot.objects.pods = seen(json!([ill]));
        snapshot.objects.budgets = seen(json!([{ "metadata": { "name": "b", "namespace": "n" },
            "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "a" } } },
            "status": { "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 1, "expectedPods": 2, "observedGeneration": 1 } }]));
        let held = if reason.is_some() { "Fail WL-002 broken" } else { "Warn WL-002 none-now" };
        assert_eq!(of_check(&snapshot, "WL-002"), [format!("{held} PodDisruptionBudget n/b")], "{list} {state}");
        let findings = judge(&snapshot, &question(&snapshot, "1.36", "1.37"));
        let told = findings.iter().find(|finding| finding.check == "WL-014");
        assert_eq!(told.map(|finding| finding.parameters["reason"].as_str()), reason, "{list} {state}");
        // What is being deleted may end as it likes.
        let mut leaving = snapshot.clone();
        if let Read::Seen(pods) = &mut leaving.objects.pods {
            pods[0].metadata.deletion_timestamp = Some(snapshot.taken_at);
        }
        let is_told = !of_check(&leaving, "WL-014").is_empty();
        assert_eq!(is_told, reason.is_some() && state.get("waiting").is_some(), "{list} {state}");
    }
}

#[test]
fn a_pod_that_runs_and_does_not_become_ready_holds_its_budget() {
    for (since, expected) in [
        (json!("2026-11-23T23:00:00Z"), "Fail WL-002 broken"),
        (json!("2026-11-23T23:55:00Z"), "Warn WL-002 none-now"),
        (json!(null), "Warn WL-002 none-now"),
    ] {
        let mut snapshot = snapshot();
        let ready = json!({ "type": "Ready", "status": "False", "lastTransitionTime": since });
        snapshot.objects.pods = seen(json!([pod("a-1", json!({ "status": { "conditions": [ready] } }))]));
        snapshot.objects.budgets = seen(json!([{ "metadata": { "name": "b", "namespace": "n" },
            "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": "a" } } },
            "status": { "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 1, "expectedPods": 2, "observedGeneration": 1 } }]));
        assert_eq!(of_check(&snapshot, "WL-002"), [format!("{expected} PodDisruptionBudget n/b")], "{since}");
    }
}

#[test]
fn what_a_batch_takes_whole_is_found_though_it_is_on_several_nodes() {
    // The batches of eight nodes are w1, then w2 and w3, then w4 to w7, then w8.
    let nodes: Vec<Value> = (1..=8).map(|index| node(&format!("w{index}"), json!({}))).collect();
    for (hosts, expected) in [
        (&["w1", "w1"][..], Some("one-node")),
        (&["w2", "w3"], Some("one-batch")),
        (&["w4", "w5", "w7"], Some("one-batch")),
        (&["w1", "w2"], None),
        (&["w3", "w4"], None),
    ] {
        let mut snapshot = snapshot();
        snapshot.objects.nodes = seen(json!(nodes));
        snapshot.objects.budgets = seen(json!([]));
        let endpoints: Vec<Value> = hosts.iter().map(|host| json!({ "nodeName": host })).collect();
        snapshot.objects.slices = seen(
            json!([{ "metadata": { "namespace": "n", "labels": { "kubernetes.io/service-name": "s" } }, "endpoints": endpoints }]),
        );
        snapshot.objects.services = seen(json!([{ "metadata": { "name": "s", "namespace": "n" },
            "spec": { "type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": { "app": "x" } } }]));
        snapshot.objects.deployments = seen(json!([{ "metadata": { "name": "a", "namespace": "n" },
            "spec": { "replicas": hosts.len(), "template": { "metadata": { "labels": { "app": "a" } } } } }]));
        let on = |(at, host): (usize, &&str)| pod(&format!("a-{at}"), json!({ "spec": { "nodeName": host } }));
        snapshot.objects.pods = seen(Value::Array(hosts.iter().enumerate().map(on).collect()));
        for (check, subject) in [("NET-001", "Service n/s"), ("WL-008", "Deployment n/a")] {
            let expected: Vec<String> = expected.iter().map(|word| format!("Warn {check} {word} {subject}")).collect();
            assert_eq!(of_check(&snapshot, check), expected, "{hosts:?}");
        }
        // Under a budget the drains of a batch wait for each other.
        snapshot.objects.budgets = seen(json!([{ "metadata": { "name": "b", "namespace": "n" },
            "spec": { "maxUnavailable": 1, "selector": { "matchLabels": { "app": "a" } } } }]));
        let expected: Vec<&str> = expected
            .iter()
            .filter(|word| **word == "one-node")
            .map(|_| "Warn WL-008 one-node Deployment n/a")
            .collect();
        assert_eq!(of_check(&snapshot, "WL-008"), expected, "{hosts:?}");
    }
}

#[test]
fn each_probe_of_a_workload_on_one_node_has_its_finding_also_that_of_a_container_that_goes_on() {
    let probe = json!({ "periodSeconds": 5 });
    let beside = |policy: &str, name: &str| json!({ "initContainers": [{ "restartPolicy": policy, name: probe }] });
    for (spec, expected) in [
        (json!({ "containers": [{ "startupProbe": probe, "readinessProbe": probe }] }), &["WL-005", "WL-006"][..]),
        (json!({ "containers": [{ "startupProbe": probe }] }), &["WL-005"]),
        (json!({ "containers": [{ "readinessProbe": probe }] }), &["WL-006"]),
        (beside("Always", "startupProbe"), &["WL-005"]),
        (beside("Always", "readinessProbe"), &["WL-006"]),
        (beside("", "startupProbe"), &[]),
        (json!({ "containers": [{}] }), &[]),
    ] {
        let mut snapshot = snapshot();
        snapshot.objects.deployments = seen(json!([{ "metadata": { "name": "a", "namespace": "n" },
            "spec": { "replicas": 1, "template": { "spec": spec } } }]));
        let expected: Vec<String> =
            expected.iter().map(|check| format!("Warn {check} single Deployment n/a")).collect();
        assert_eq!(found(&snapshot), expected, "{spec}");
    }
}

#[test]
fn pods_that_a_drain_would_need_force_for_or_wait_for_stop_the_start_and_others_do_not() {
    let naked = |node: &str| pod("x", json!({ "metadata": { "ownerReferences": [] }, "spec": { "nodeName": node } }));
    let ends = |node: &str, finalizers: &[&str]| {
        pod(
            "x",
            json!({ "metadata": { "deletionTimestamp": "2026-11-23T23:00:00Z", "finalizers": finalizers }, "spec": { "nodeName": node } }),
        )
    };
    for (pod, expected) in [
        (naked("w1"), "Fail WL-009 naked Pod n/x"),
        (naked(""), "Warn WL-009 naked Pod n/x"),
        (ends("w1", &["a/b"]), "Fail WL-013 stuck Pod n/x"),
        (ends("", &["a/b"]), "Warn WL-013 stuck Pod n/x"),
        (ends("w1", &[]), "Fail WL-013 unended Pod n/x"),
    ] {
        let mut snapshot = snapshot();
        snapshot.objects.pods = seen(json!([pod]));
        assert_eq!(found(&snapshot), [expected]);
    }
    let mut snapshot = snapshot();
    let condition =
        |name: &str, status: &str, message: &str| json!({ "type": name, "status": status, "message": message });
    snapshot.objects.namespaces =
        seen(json!([{ "metadata": { "name": "old", "deletionTimestamp": "2026-11-23T23:00:00Z" },
        "status": { "phase": "Terminating", "conditions": [
            condition("NamespaceDeletionDiscoveryFailure", "False", "All resources successfully discovered"),
            condition("NamespaceFinalizersRemaining", "True", "x/y in 1 resource instances") ] } }]));
    assert_eq!(found(&snapshot), ["Warn WL-013 held Namespace old"]);
    let held = &judge(&snapshot, &question(&snapshot, "1.36", "1.37"))[0];
    assert_eq!(held.parameters["why"], "x/y in 1 resource instances");
}
