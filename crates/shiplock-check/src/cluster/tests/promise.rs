//! Every check that is built keeps its promise: it says nothing where all is well, says what is wrong, and is unknown
//! where what it reads cannot be read. The last test holds the catalogue and its tests together.

use std::collections::BTreeSet;

use super::*;
use crate::api::metrics::Metrics;
use crate::node::{Answer, ExaminedNode};
use crate::snapshot::Instance;

/// What makes a snapshot of one in which nothing was asked for.
type Given = fn(&mut Snapshot);
/// A check, what is so, and what it says then: the outcome and the sentence.
type Case = (&'static str, &'static str, Given, &'static [&'static str]);

fn deployment(containers: Value) -> Value {
    json!([{ "metadata": { "name": "a", "namespace": "n" },
        "spec": { "replicas": 1, "template": { "metadata": { "labels": { "app": "a" } }, "spec": { "containers": containers } } } }])
}

fn runs(image: &str, name: &str, on: &str) -> Value {
    pod(name, json!({ "spec": { "nodeName": on, "containers": [{ "name": "c", "image": image }] } }))
}

/// A pod of the name server.
fn dns(name: &str, on: &str, ready: &str) -> Value {
    pod(
        name,
        json!({ "metadata": { "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } }, "spec": { "nodeName": on },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] } }),
    )
}

fn name_server(replicas: i64) -> Value {
    let template = json!({ "metadata": { "labels": { "k8s-app": "kube-dns" } } });
    json!({ "metadata": { "name": "coredns", "namespace": "kube-system" },
        "spec": { "replicas": replicas, "template": template } })
}

fn mounts(path: &str) -> Value {
    pod("m", json!({ "spec": { "volumes": [{ "name": "s", "hostPath": { "path": path } }] } }))
}

/// A node with a runtime.
fn with_runtime(runtime: &str) -> Value {
    node("w1", json!({ "status": { "nodeInfo": { "containerRuntimeVersion": runtime } } }))
}

fn at_versions(kubelets: &[&str]) -> Read<Vec<crate::object::Node>> {
    let node = |(at, kubelet): (usize, &&str)| {
        node(&format!("w{at}"), json!({ "status": { "nodeInfo": { "kubeletVersion": kubelet } } }))
    };
    seen(Value::Array(kubelets.iter().enumerate().map(node).collect()))
}

fn instance(version: Read<String>, not_ready: Read<Vec<String>>, lines: &[&str]) -> Instance {
    let mut metrics = Metrics::default();
    lines.iter().for_each(|line| metrics.take(line));
    Instance { address: "10.0.0.1:6443".into(), metrics: Read::Seen(metrics), version, not_ready }
}

fn ready(failing: &[&str]) -> Instance {
    instance(Read::NotAsked, Read::Seen(failing.iter().map(|&name| name.to_owned()).collect()), &[])
}

fn definition(more: Value) -> Value {
    let mut definition = json!({ "metadata": { "name": "a.x" }, "spec": { "group": "x", "names": { "kind": "A" },
        "versions": [{ "name": "v1", "served": true, "storage": true }] }, "status": { "storedVersions": ["v1"] } });
    merge(&mut definition, more);
    json!([definition])
}

fn stateful(grace: i64) -> Value {
    json!([{ "metadata": { "name": "s", "namespace": "n" },
        "spec": { "replicas": 0, "template": { "spec": { "terminationGracePeriodSeconds": grace } } } }])
}

/// The Lease of an upgrade, renewed on the evening before the snapshot.
fn lease(renewed: &str, has_ended: bool) -> Read<Option<crate::object::UpgradeLease>> {
    let mut lease = json!({ "metadata": { "name": "shiplock", "annotations": { "shiplock.dev/upgrade": "u-1", "shiplock.dev/event": "7" } },
        "spec": { "holderIdentity": "i-1", "renewTime": format!("2026-11-23T{renewed}.000000Z") } });
    if has_ended {
        merge(&mut lease, json!({ "metadata": { "annotations": { "shiplock.dev/ended": "true" } } }));
    }
    Read::Seen(serde_json::from_value(lease).unwrap())
}

/// A cordoned node with the mark of an upgrade.
fn cordoned_by(mark: &str) -> Read<Vec<crate::object::Node>> {
    let more =
        json!({ "metadata": { "annotations": { "shiplock.dev/owner": mark } }, "spec": { "unschedulable": true } });
    seen(json!([node("w1", more)]))
}

fn ingress<T: serde::de::DeserializeOwned>(annotation: &str) -> Read<Vec<T>> {
    seen(json!([{ "metadata": { "name": "i", "namespace": "n", "annotations": { annotation: "nginx" } } }]))
}

fn attachment(more: Value) -> Value {
    let mut attachment = json!({ "metadata": { "name": "v" }, "status": { "attached": true } });
    merge(&mut attachment, more);
    json!([attachment])
}

fn claim(phase: &str, since: &str) -> Value {
    json!([{ "metadata": { "name": "c", "namespace": "n", "creationTimestamp": since }, "status": { "phase": phase } }])
}

const CASES: &[Case] = &[
    ("ADD-005", "a structural definition", |it| it.objects.definitions = seen(definition(json!({}))), &[]),
    (
        "ADD-005",
        "a condition says that it has no structure",
        |it| {
            let condition = json!({ "type": "NonStructuralSchema", "status": "True", "message": "x" });
            it.objects.definitions = seen(definition(json!({ "status": { "conditions": [condition] } })));
        },
        &["Warn schema"],
    ),
    (
        "ADD-005",
        "unknown fields are kept",
        |it| it.objects.definitions = seen(definition(json!({ "spec": { "preserveUnknownFields": true } }))),
        &["Warn schema"],
    ),
    (
        "CAP-004",
        "the autoscaler of the target",
        |it| it.objects.pods = seen(json!([runs("x/cluster-autoscaler:v1.37.0", "a", "w1")])),
        &[],
    ),
    (
        "CAP-004",
        "one of another minor, in two pods",
        |it| {
            let image = "x/cluster-autoscaler:v1.36.1";
            it.objects.pods = seen(json!([runs(image, "a", "w1"), runs(image, "b", "w2")]));
        },
        &["Warn differs"],
    ),
    (
        "CAP-004",
        "one without a version",
        |it| it.objects.pods = seen(json!([runs("x/cluster-autoscaler@sha256:00", "a", "w1")])),
        &["Warn differs"],
    ),
    ("CAP-006", "no autoscaler", |it| it.objects.pods = seen(json!([runs("x/y:v1", "a", "w1")])), &[]),
    (
        "CAP-006",
        "an autoscaler at work",
        |it| it.objects.pods = seen(json!([runs("x/cluster-autoscaler:v1.37.0", "a", "w1")])),
        &["Warn runs"],
    ),
    ("CAP-009", "a pod that runs", |it| it.objects.pods = seen(json!([pod("a", json!({}))])), &[]),
    (
        "CAP-009",
        "a pod that has waited for a minute",
        |it| {
            let more = json!({ "metadata": { "creationTimestamp": "2026-11-23T23:59:00Z" }, "status": { "phase": "Pending" } });
            it.objects.pods = seen(json!([pod("a", more)]));
        },
        &[],
    ),
    (
        "CAP-009",
        "a pod that has waited for ten minutes",
        |it| {
            let more = json!({ "metadata": { "creationTimestamp": "2026-11-23T23:50:00Z" }, "status": { "phase": "Pending" } });
            it.objects.pods = seen(json!([pod("a", more)]));
        },
        &["Warn pending"],
    ),
    ("CP-001", "every part is ready", |it| it.metrics = vec![ready(&[])], &[]),
    ("CP-001", "one part is not", |it| it.metrics = vec![ready(&["etcd"])], &["Fail not-ready"]),
    (
        "CP-001",
        "two parts are not",
        |it| it.metrics = vec![ready(&["etcd", "ping"])],
        &["Fail not-ready", "Fail not-ready"],
    ),
    ("CP-002", "a master that is ready", |it| it.objects.nodes = seen(json!([master("m1", "True")])), &[]),
    ("CP-002", "one that is not", |it| it.objects.nodes = seen(json!([master("m1", "False")])), &["Fail not-ready"]),
    (
        "CP-003",
        "three masters",
        |it| it.objects.nodes = seen(json!([master("m1", "True"), master("m2", "True"), master("m3", "True")])),
        &[],
    ),
    ("CP-003", "one master", |it| it.objects.nodes = seen(json!([master("m1", "True")])), &["Warn one"]),
    (
        "CP-003",
        "two masters",
        |it| it.objects.nodes = seen(json!([master("m1", "True"), master("m2", "True")])),
        &["Warn even"],
    ),
    (
        "CP-011",
        "no request was turned away",
        |it| {
            let line = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"x\"} 0";
            it.metrics = vec![instance(Read::NotAsked, Read::NotAsked, &[line])];
        },
        &[],
    ),
    (
        "CP-011",
        "some were",
        |it| {
            let line = "apiserver_flowcontrol_rejected_requests_total{flow_schema=\"x\"} 2";
            it.metrics = vec![instance(Read::NotAsked, Read::NotAsked, &[line])];
        },
        &["Warn rejected"],
    ),
    (
        "NET-003",
        "two pods on two nodes",
        |it| it.objects.pods = seen(json!([dns("a", "w1", "True"), dns("b", "w2", "True")])),
        &[],
    ),
    ("NET-003", "another name server", |it| it.objects.pods = seen(json!([])), &[]),
    (
        "NET-003",
        "its Deployment has no pod",
        |it| {
            it.objects.pods = seen(json!([]));
            it.objects.deployments = seen(json!([name_server(0)]));
        },
        &["Fail no-pod"],
    ),
    (
        "NET-003",
        "whether there is another name server was not seen",
        |it| {
            it.objects.pods = seen(json!([]));
            it.objects.deployments = Read::NotSeen("forbidden".into());
        },
        &["Unknown not-seen"],
    ),
    (
        "NET-003",
        "two pods on one node",
        |it| it.objects.pods = seen(json!([dns("a", "w1", "True"), dns("b", "w1", "True")])),
        &["Warn one-node"],
    ),
    (
        "NET-003",
        "one of two pods is ready",
        |it| it.objects.pods = seen(json!([dns("a", "w1", "True"), dns("b", "w2", "False")])),
        &["Warn few-ready"],
    ),
    ("NET-003", "there is one pod", |it| it.objects.pods = seen(json!([dns("a", "w1", "True")])), &["Warn single"]),
    ("NET-003", "no pod is ready", |it| it.objects.pods = seen(json!([dns("a", "w1", "False")])), &["Fail none"]),
    (
        "NET-007",
        "another controller",
        |it| {
            it.objects.pods =
                seen(json!([runs("docker.io/traefik:v3.1", "a", "w1"), runs("x/controller:v1", "b", "w1")]))
        },
        &[],
    ),
    (
        "NET-007",
        "two pods of ingress-nginx",
        |it| {
            let image = "registry.k8s.io/ingress-nginx/controller:v1.12.0@sha256:00";
            it.objects.pods = seen(json!([runs(image, "a", "w1"), runs(image, "b", "w2")]));
        },
        &["Warn ended"],
    ),
    ("NODE-011", "no pressure", |it| it.objects.nodes = seen(json!([node("w1", json!({}))])), &[]),
    (
        "NODE-011",
        "each pressure",
        |it| {
            let on = |name: &str| json!({ "type": name, "status": "True" });
            let conditions = json!([{ "type": "Ready", "status": "True" }, on("MemoryPressure"), on("DiskPressure"), on("PIDPressure")]);
            it.objects.nodes = seen(json!([node("w1", json!({ "status": { "conditions": conditions } }))]));
        },
        &["Fail pressure", "Fail pressure", "Fail pressure"],
    ),
    ("NODE-025", "another path", |it| it.objects.pods = seen(json!([mounts("/run/containerd/containerd.sock")])), &[]),
    (
        "NODE-025",
        "Docker's socket",
        |it| it.objects.pods = seen(json!([mounts("/var/run/docker.sock")])),
        &["Warn mounts"],
    ),
    (
        "NODE-025",
        "by its other name",
        |it| it.objects.pods = seen(json!([mounts("/run/docker.sock/")])),
        &["Warn mounts"],
    ),
    (
        "NODE-025",
        "the shim's",
        |it| it.objects.pods = seen(json!([mounts("/var/run/dockershim.sock")])),
        &["Warn mounts"],
    ),
    (
        "NODE-025",
        "by its other name too",
        |it| it.objects.pods = seen(json!([mounts("/run/dockershim.sock")])),
        &["Warn mounts"],
    ),
    (
        "NODE-025",
        "on a node of containerd, in two pods",
        |it| {
            it.objects.nodes = seen(json!([with_runtime("containerd://2.2.9")]));
            it.objects.pods = seen(json!([mounts("/run/docker.sock"), mounts("/run/docker.sock")]));
        },
        &["Warn mounts"],
    ),
    (
        "NODE-025",
        "on a node that leaves Docker",
        |it| {
            it.objects.nodes = seen(json!([with_runtime("docker://20.10.7")]));
            it.objects.pods = seen(json!([mounts("/run/docker.sock")]));
        },
        &["Fail mounts"],
    ),
    ("STO-005", "an attached volume", |it| it.objects.attachments = seen(attachment(json!({}))), &[]),
    (
        "STO-005",
        "one that is being detached for a minute",
        |it| {
            let more = json!({ "metadata": { "deletionTimestamp": "2026-11-23T23:59:00Z" } });
            it.objects.attachments = seen(attachment(more));
        },
        &[],
    ),
    (
        "STO-005",
        "one that is being detached for ten",
        |it| {
            let more = json!({ "metadata": { "deletionTimestamp": "2026-11-23T23:50:00Z" } });
            it.objects.attachments = seen(attachment(more));
        },
        &["Fail stuck"],
    ),
    (
        "STO-005",
        "one that cannot be attached",
        |it| it.objects.attachments = seen(attachment(json!({ "status": { "attachError": { "message": "no" } } }))),
        &["Fail stuck"],
    ),
    (
        "STO-005",
        "one that cannot be detached",
        |it| it.objects.attachments = seen(attachment(json!({ "status": { "detachError": { "message": "no" } } }))),
        &["Fail stuck"],
    ),
    ("STO-006", "a bound claim", |it| it.objects.claims = seen(claim("Bound", "2026-11-01T00:00:00Z")), &[]),
    ("STO-006", "a claim of just now", |it| it.objects.claims = seen(claim("Pending", "2026-11-23T23:59:00Z")), &[]),
    (
        "STO-006",
        "a claim that waits",
        |it| it.objects.claims = seen(claim("Pending", "2026-11-01T00:00:00Z")),
        &["Warn pending"],
    ),
    (
        "STO-006",
        "a claim that waits since when nobody told",
        |it| {
            it.objects.claims =
                seen(json!([{ "metadata": { "name": "c", "namespace": "n" }, "status": { "phase": "Pending" } }]))
        },
        &["Warn pending"],
    ),
    ("STO-006", "a lost volume", |it| it.objects.claims = seen(claim("Lost", "2026-11-01T00:00:00Z")), &["Warn lost"]),
    (
        "STO-007",
        "a volume of a driver",
        |it| it.objects.volumes = seen(json!([{ "metadata": { "name": "v" }, "spec": { "csi": { "driver": "d" } } }])),
        &[],
    ),
    (
        "STO-007",
        "a local volume",
        |it| it.objects.volumes = seen(json!([{ "metadata": { "name": "v" }, "spec": { "local": { "path": "/d" } } }])),
        &["Warn local"],
    ),
    (
        "NODE-001",
        "the cordon of an upgrade that runs or is paused",
        |it| {
            it.objects.nodes = cordoned_by(r#"{"upgrade":"u-1","epoch":7,"attempt":1}"#);
            it.objects.upgrade_lease = lease("23:59:30", false);
        },
        &["Warn in-work"],
    ),
    (
        "NODE-001",
        "the cordon of an upgrade of which no Lease could be seen",
        |it| it.objects.nodes = cordoned_by(r#"{"upgrade":"u-1","epoch":7,"attempt":1}"#),
        &["Warn in-work"],
    ),
    (
        "NODE-001",
        "the cordon of an upgrade that ended",
        |it| {
            it.objects.nodes = cordoned_by(r#"{"upgrade":"u-1","epoch":7,"attempt":1}"#);
            it.objects.upgrade_lease = lease("23:59:30", true);
        },
        &["Warn left"],
    ),
    (
        "NODE-001",
        "the cordon of an upgrade before another one",
        |it| {
            it.objects.nodes = cordoned_by(r#"{"upgrade":"u-0","epoch":7}"#);
            it.objects.upgrade_lease = lease("23:59:30", false);
        },
        &["Warn left"],
    ),
    (
        "NODE-001",
        "a mark that is none of Shiplock's",
        |it| {
            it.objects.nodes = cordoned_by("u-1");
            it.objects.upgrade_lease = lease("23:59:30", false);
        },
        &["Warn cordoned"],
    ),
    ("VER-012", "two minors", |it| it.objects.nodes = at_versions(&["v1.36.1", "v1.36.3", "v1.35.0"]), &[]),
    (
        "VER-012",
        "three minors",
        |it| it.objects.nodes = at_versions(&["v1.36.1", "v1.35.3", "v1.34.0"]),
        &["Warn mixed"],
    ),
    ("VER-012", "the Lease of an upgrade that ended", |it| it.objects.upgrade_lease = lease("23:59:30", true), &[]),
    ("VER-012", "no Lease", |it| it.objects.upgrade_lease = Read::Seen(None), &[]),
    (
        "VER-012",
        "the Lease of another program",
        |it| it.objects.upgrade_lease = Read::Seen(serde_json::from_value(json!({ "metadata": {} })).unwrap()),
        &[],
    ),
    (
        "VER-012",
        "the Lease of an upgrade that runs or is paused",
        |it| it.objects.upgrade_lease = lease("23:59:30", false),
        &["Fail under-way"],
    ),
    (
        "VER-012",
        "the Lease of an upgrade whose server went away",
        |it| it.objects.upgrade_lease = lease("23:00:00", false),
        &["Warn left"],
    ),
    (
        "API-015",
        "an Ingress with a class in its specification",
        |it| it.objects.ingresses = ingress("nginx.ingress.kubernetes.io/rewrite-target"),
        &[],
    ),
    (
        "API-015",
        "an Ingress with its class in an annotation",
        |it| it.objects.ingresses = ingress("kubernetes.io/ingress.class"),
        &["Warn ingress-class"],
    ),
    (
        "WL-006",
        "one replica without a probe",
        |it| it.objects.deployments = seen(deployment(json!([{ "name": "c" }]))),
        &[],
    ),
    (
        "WL-006",
        "one replica with a readiness probe",
        |it| {
            it.objects.deployments =
                seen(deployment(json!([{ "name": "c", "readinessProbe": { "periodSeconds": 5 } }])))
        },
        &["Warn single"],
    ),
    (
        "WL-011",
        "a short time to end",
        |it| it.objects.pods = seen(json!([pod("a", json!({ "spec": { "terminationGracePeriodSeconds": 600 } }))])),
        &[],
    ),
    (
        "WL-011",
        "a long one",
        |it| it.objects.pods = seen(json!([pod("a", json!({ "spec": { "terminationGracePeriodSeconds": 3600 } }))])),
        &["Warn long"],
    ),
    ("WL-012", "a StatefulSet with grace", |it| it.objects.stateful_sets = seen(stateful(30)), &[]),
    ("WL-012", "one without", |it| it.objects.stateful_sets = seen(stateful(0)), &["Warn no-grace"]),
    ("WL-014", "a pod that runs", |it| it.objects.pods = seen(json!([pod("a", json!({}))])), &[]),
    (
        "WL-014",
        "one whose container crashes",
        |it| {
            let waits = json!([{ "name": "c", "state": { "waiting": { "reason": "CrashLoopBackOff" } } }]);
            it.objects.pods = seen(json!([pod("a", json!({ "status": { "containerStatuses": waits } }))]));
        },
        &["Warn broken"],
    ),
    ("WL-016", "a DaemonSet that rolls", |it| it.objects.daemon_sets = seen(json!([daemon("RollingUpdate")])), &[]),
    (
        "WL-016",
        "one renewed by hand",
        |it| it.objects.daemon_sets = seen(json!([daemon("OnDelete")])),
        &["Warn on-delete"],
    ),
    (
        "WL-017",
        "a Job that has ended",
        |it| {
            it.objects.jobs =
                seen(json!([{ "metadata": { "name": "j", "namespace": "n" }, "status": { "active": 0 } }]))
        },
        &[],
    ),
    (
        "WL-017",
        "a Job that runs",
        |it| {
            it.objects.jobs =
                seen(json!([{ "metadata": { "name": "j", "namespace": "n" }, "status": { "active": 2 } }]))
        },
        &["Warn running"],
    ),
];

fn master(name: &str, ready: &str) -> Value {
    node(
        name,
        json!({ "metadata": { "labels": { "node-role.kubernetes.io/control-plane": "" } },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] } }),
    )
}

fn daemon(strategy: &str) -> Value {
    json!({ "metadata": { "name": "d", "namespace": "kube-system" }, "spec": { "updateStrategy": { "type": strategy } } })
}

/// Outcome and sentence of all that one check says.
fn said(snapshot: &Snapshot, check: &str) -> Vec<String> {
    found(snapshot)
        .iter()
        .map(|text| text.split(' ').collect::<Vec<_>>())
        .filter(|words| words[1] == check)
        .map(|words| format!("{} {}", words[0], words[2]))
        .collect()
}

#[test]
fn each_check_says_nothing_where_all_is_well_and_says_what_is_wrong() {
    for (check, what, given, expected) in CASES {
        let mut snapshot = snapshot();
        given(&mut snapshot);
        assert_eq!(said(&snapshot, check), *expected, "{check}: {what}");
    }
}

#[test]
fn what_to_do_about_the_name_server_is_a_command_that_works_for_what_was_found() {
    let of_set =
        json!({ "metadata": { "ownerReferences": [{ "kind": "DaemonSet", "name": "dns", "controller": true }] } });
    let mut on_each = dns("a", "w1", "True");
    merge(&mut on_each, of_set);
    let bare = |name: &str| {
        let mut pod = dns(name, "w1", "True");
        merge(&mut pod, json!({ "metadata": { "ownerReferences": [] } }));
        pod
    };
    let by_deployment = "nothing adds to a pod without an owner, or makes it anew elsewhere";
    let describe = "kubectl -n kube-system describe pods -l k8s-app=kube-dns";
    for (pods, command) in [
        (vec![dns("a", "w1", "False")], describe),
        (vec![dns("a", "w1", "True"), dns("b", "w2", "False")], describe),
        (vec![dns("a", "w1", "True")], "kubectl -n kube-system scale deployment a --replicas=2"),
        (vec![on_each], "kubectl -n kube-system edit daemonset dns"),
        (vec![bare("a")], by_deployment),
        (vec![bare("a"), bare("b")], by_deployment),
        (vec![], "kubectl -n kube-system scale deployment coredns --replicas=2"),
        (vec![dns("a", "w1", "True"), dns("b", "w1", "True")], "kubectl -n kube-system rollout restart deployment a"),
    ] {
        let mut snapshot = snapshot();
        snapshot.objects.pods = seen(json!(pods));
        snapshot.objects.deployments = seen(json!([name_server(0)]));
        let findings = judge(&snapshot, &question(&snapshot, "1.36", "1.37"));
        let fixes: Vec<String> =
            findings.iter().filter(|found| found.check == "NET-003").map(|found| found.fix(Language::En)).collect();
        let [fix] = &fixes[..] else { panic!("{command}: {fixes:?}") };
        assert!(fix.ends_with(command), "{fix}");
    }
}

#[test]
fn a_definition_without_structure_stops_the_hop_on_which_its_version_goes() {
    let mut snapshot = snapshot();
    snapshot.objects.definitions = seen(definition(json!({ "spec": { "preserveUnknownFields": true } })));
    for (current, target, expected) in [
        ("1.21", "1.22", "Fail ADD-005 schema"),
        ("1.22", "1.23", "Warn ADD-005 schema"),
        ("1.20", "1.21", "Warn ADD-005 schema"),
    ] {
        let found = found_at(&snapshot, current, target);
        assert!(found.iter().any(|text| text.starts_with(expected)), "{current} to {target}: {found:?}");
    }
}

#[test]
fn fields_that_a_release_lost_are_told_from_that_release_on() {
    let mut snapshot = snapshot();
    snapshot.objects.services = seen(
        json!([{ "metadata": { "name": "s", "namespace": "n" }, "spec": { "topologyKeys": ["kubernetes.io/hostname"] } }]),
    );
    for (current, target, expected) in [("1.21", "1.22", true), ("1.20", "1.21", false)] {
        let found = found_at(&snapshot, current, target);
        let is_told = found.iter().any(|text| text == "Warn API-015 topology-keys Service n/s");
        assert_eq!(is_told, expected, "{current} to {target}: {found:?}");
    }
}

#[test]
fn kubectl_of_this_machine_may_be_one_minor_from_the_target() {
    let snapshot = snapshot();
    let question = question(&snapshot, "1.36", "1.37");
    for (reported, expected) in [
        ("v1.37.0", None),
        ("v1.36.2", None),
        ("v1.38.0", None),
        ("v1.35.9", Some("Warn VER-007 far")),
        ("v1.39.0", Some("Warn VER-007 far")),
        ("garbage", Some("Unknown VER-007 not-seen")),
        ("", Some("Unknown VER-007 not-seen")),
    ] {
        let found = client(reported, &question);
        let found = found.map(|found| format!("{:?} {} {}", found.outcome, found.check, found.sentence));
        assert_eq!(found.as_deref(), expected, "{reported}");
    }
}

/// A cluster of which nothing could be read.
fn unreadable() -> Snapshot {
    let why = || "forbidden".to_owned();
    let mut objects = serde_json::to_value(Objects::default()).unwrap();
    for list in objects.as_object_mut().unwrap().values_mut() {
        *list = json!({ "not_seen": "forbidden" });
    }
    let mut blind = snapshot();
    blind.objects = serde_json::from_value(objects).unwrap();
    (blind.served, blind.releases) = (Read::NotSeen(why()), Read::NotSeen(why()));
    blind.metrics = vec![Instance {
        address: "10.0.0.1:6443".into(),
        metrics: Read::NotSeen(why()),
        version: Read::NotSeen(why()),
        not_ready: Read::NotSeen(why()),
    }];
    let answer = Answer::NoAnswer { why: why() };
    blind.nodes = vec![ExaminedNode { node: "w1".into(), answer, machine: None }];
    let act = "patch nodes".to_owned();
    blind.permissions = vec![permission::Permission { act, is_spared: false, allowed: Read::NotSeen(why()) }];
    blind
}

/// The ids of checks that say something of a snapshot, with this outcome or any.
fn speaking(snapshot: &Snapshot, outcome: Option<Outcome>) -> BTreeSet<String> {
    let findings = crate::run::judge(snapshot, &question(snapshot, "1.36", "1.37")).into_iter();
    let findings = findings.filter(|found| outcome.is_none_or(|outcome| found.outcome == outcome));
    findings.filter(|found| found.outcome != Outcome::Skipped).map(|found| found.check).collect()
}

/// A cluster in which every list was read and holds what is well.
fn well() -> Snapshot {
    let mut objects = serde_json::to_value(Objects::default()).unwrap();
    for (name, list) in objects.as_object_mut().unwrap() {
        *list = match name.as_str() {
            "configuration" => json!({ "seen": {} }),
            "upgrade_lease" => json!({ "seen": null }),
            _ => json!({ "seen": [] }),
        };
    }
    let mut well = snapshot();
    well.objects = serde_json::from_value(objects).unwrap();
    let workers = (1..=3).map(|index| node(&format!("w{index}"), json!({})));
    well.objects.nodes =
        seen(Value::Array((1..=3).map(|index| master(&format!("m{index}"), "True")).chain(workers).collect()));
    well.objects.pods = seen(json!([
        pod("a-1", json!({})),
        pod("a-2", json!({ "spec": { "nodeName": "w2" } })),
        dns("d-1", "m1", "True"),
        dns("d-2", "m2", "True"),
        component("kube-scheduler", "v1.36.3", &[]),
        component("kube-apiserver", "v1.36.3", &[]),
        component("etcd", "3.6.8-0", &[]),
    ]));
    well.objects.definitions = seen(definition(json!({})));
    well.objects.daemon_sets = seen(json!([daemon("RollingUpdate")]));
    well.objects.claims = seen(claim("Bound", "2026-11-01T00:00:00Z"));
    well.objects.attachments = seen(attachment(json!({})));
    well.objects.volumes = seen(json!([{ "metadata": { "name": "v" }, "spec": { "csi": { "driver": "d" } } }]));
    (well.served, well.releases) = (Read::Seen(Vec::new()), Read::Seen(Vec::new()));
    well.metrics = vec![instance(Read::Seen("v1.36.3".into()), Read::Seen(Vec::new()), &[])];
    well.permissions = vec![permission::Permission { act: "x".into(), is_spared: false, allowed: Read::Seen(true) }];
    well
}

/// The tests of nodes, as their agents found them: well, ill, not read.
const OF_NODES: [&str; 3] = [
    "a_node_that_is_well_gives_no_finding",
    "each_fault_has_its_finding_and_nothing_else_is_said",
    "what_could_not_be_read_is_unknown_and_nothing_else_is",
];
const OF_AUDIT: [&str; 3] = [
    "callers_old_kubectls_and_programs_that_watch_are_named_and_kubernetes_own_are_not",
    "callers_old_kubectls_and_programs_that_watch_are_named_and_kubernetes_own_are_not",
    "a_line_that_is_no_event_is_unknown_and_the_good_ones_beside_it_count",
];
const AUTHORSHIP: &str = "every_vector_of_authorship_is_judged_as_it_is";
const DIALLED: &str = "each_fault_of_a_certificate_has_its_finding";
const WEBHOOKS: &str = "webhooks_that_stop_the_cluster_are_found";
const NODES: &str = "nodes_in_trouble_are_found";
const WORKLOADS: &str = "workloads_that_an_upgrade_interrupts_are_found";
const BUDGETS: &str = "budgets_that_refuse_a_drain_are_found";
const DEFINITIONS: &str = "definitions_and_apis_in_trouble_are_found";
const VOLUMES: &str = "traffic_and_volumes_that_an_upgrade_cuts_are_found";
const KUBEADM: &str = "the_configuration_of_kubelets_and_kube_proxy_is_judged_too";
const ADD_ONS: &str = "add_ons_that_were_not_tested_with_the_target_or_that_have_ended_are_found";
const BUSY: &str = "nodes_that_reserve_nothing_are_found_and_more_so_when_they_are_busy";
const ETCD: &str = "a_full_or_slow_etcd_is_found_in_the_metrics_of_api_servers";
const COUNTED: &str = "certificates_that_were_counted_hold_an_upgrade_unless_every_one_of_now_was_seen";
const OTHERS: &str = "encryption_with_the_first_kms_stored_versions_and_bursts_of_warnings_are_found";
const PROBE: &str = "a_probe_is_judged_by_what_it_looks_at_and_a_pod_that_does_not_run_is_told";
const HOPS: &str = "one_hop_is_the_way_to_a_target_and_several_or_a_step_back_stop_the_start";
const SUPPORT: &str = "a_target_that_is_not_mended_any_more_is_told_and_one_that_is_is_not";
const UNREAD: &str = "a_node_that_does_not_tell_its_versions_or_its_room_is_unknown_by_name";
const NO_VERSION: &str = "where_the_version_of_the_cluster_cannot_be_read_all_that_rests_on_it_is_unknown";

/// The tests by name that show what no case above shows: that a check passes, that it says what is wrong, that it is
/// unknown. Nothing where the snapshots of here do: one that is well, and one of which nothing could be read.
const ELSEWHERE: &[(&str, [&str; 3])] = &[
    ("ADD-001", ["", ADD_ONS, ""]),
    ("ADD-002", ["", ADD_ONS, ""]),
    ("ADD-003", ["", DEFINITIONS, ""]),
    ("ADD-004", ["", DEFINITIONS, ""]),
    ("ADD-006", ["", DEFINITIONS, ""]),
    ("ADD-007", ["", "operators_that_say_no_are_heard", ""]),
    ("API-002", ["", AUTHORSHIP, ""]),
    ("API-003", ["", AUTHORSHIP, ""]),
    ("API-004", ["", AUTHORSHIP, ""]),
    ("API-006", ["", "a_release_is_read_with_its_hooks_and_no_value_of_it_is_kept", ""]),
    ("API-009", OF_AUDIT),
    ("API-010", ["", "objects_of_a_kind_without_a_successor_block_whoever_wrote_them", ""]),
    ("API-011", ["", "a_cluster_that_is_too_old_for_the_successor_is_told_the_order", ""]),
    ("API-012", ["", KUBEADM, ""]),
    ("API-013", ["", "what_components_refuse_to_start_with_is_found_with_the_release_that_lost_it", ""]),
    ("API-015", ["", "fields_that_a_release_lost_are_told_from_that_release_on", ""]),
    ("CAP-001", ["", BUSY, ""]),
    ("CAP-002", ["", BUSY, ""]),
    ("CAP-003", ["", "pods_of_a_batch_that_find_no_place_are_found_before_it_begins", ""]),
    ("CAP-005", ["", NODES, ""]),
    ("CAP-010", ["", "a_quota_is_used_up_by_amounts_and_not_by_how_they_are_written", ""]),
    ("CP-004", ["", "members_of_etcd_that_are_ill_or_too_old_for_the_target_are_found", ""]),
    ("CP-005", ["", ETCD, ""]),
    ("CP-006", ["", ETCD, ""]),
    (
        "CP-008",
        [
            OF_NODES[0],
            "on_masters_etcd_and_manifests_are_judged_and_their_clocks_compared",
            "on_masters_etcd_and_manifests_are_judged_and_their_clocks_compared",
        ],
    ),
    ("CP-009", [PROBE, PROBE, ""]),
    ("CP-010", [OF_AUDIT[0], OF_AUDIT[1], ""]),
    ("CP-012", ["", OTHERS, ""]),
    ("CP-013", ["", OTHERS, ""]),
    ("CP-014", ["", OTHERS, ""]),
    ("NET-001", ["", VOLUMES, ""]),
    ("NET-004", ["", KUBEADM, ""]),
    ("NET-005", ["", ADD_ONS, ""]),
    ("NET-006", ["", KUBEADM, ""]),
    ("NET-008", ["", "a_policy_that_closes_a_webhook_to_the_nodes_is_found", ""]),
    ("NET-009", ["", "ranges_of_services_that_are_nearly_used_up_are_found", ""]),
    ("NODE-001", ["", NODES, ""]),
    ("NODE-002", ["", NODES, ""]),
    ("NODE-003", [OF_NODES[0], "a_node_that_nobody_could_look_at_is_told_once", ""]),
    ("NODE-004", OF_NODES),
    ("NODE-005", ["", NODES, ""]),
    ("NODE-006", OF_NODES),
    ("NODE-007", OF_NODES),
    ("NODE-008", OF_NODES),
    ("NODE-009", OF_NODES),
    ("NODE-010", OF_NODES),
    ("NODE-012", OF_NODES),
    ("NODE-013", OF_NODES),
    ("NODE-014", OF_NODES),
    ("NODE-015", OF_NODES),
    ("NODE-016", OF_NODES),
    ("NODE-017", [OF_NODES[0], OF_NODES[1], ""]),
    ("NODE-018", OF_NODES),
    ("NODE-019", [OF_NODES[0], OF_NODES[1], ""]),
    ("NODE-020", OF_NODES),
    ("NODE-021", [OF_NODES[0], OF_NODES[1], ""]),
    ("NODE-022", OF_NODES),
    ("NODE-023", [OF_NODES[0], OF_NODES[1], ""]),
    ("NODE-024", ["", NODES, UNREAD]),
    ("RUN-001", ["", "nodes_that_come_while_others_are_there_are_found", ""]),
    ("RUN-003", ["", "what_the_account_of_an_upgrade_may_not_do_is_named_and_what_was_not_answered_is_unknown", ""]),
    ("STO-001", ["", VOLUMES, ""]),
    ("STO-002", ["", VOLUMES, ""]),
    ("STO-003", ["", VOLUMES, ""]),
    ("STO-004", ["", "a_driver_that_does_not_run_where_a_pod_needs_it_is_found", ""]),
    ("VER-001", [HOPS, HOPS, NO_VERSION]),
    ("VER-002", ["", NODES, NO_VERSION]),
    ("VER-003", ["", "kubelets_are_judged_at_every_state_on_the_way", UNREAD]),
    ("VER-004", ["", "components_are_judged_by_their_tag_and_one_without_a_version_is_unknown_by_name", ""]),
    ("VER-005", ["", "components_are_judged_by_their_tag_and_one_without_a_version_is_unknown_by_name", ""]),
    ("VER-006", ["", "api_servers_that_are_apart_or_do_not_tell_their_version_are_found", ""]),
    ("VER-007", ["kubectl_of_this_machine_may_be_one_minor_from_the_target"; 3]),
    ("VER-008", [SUPPORT, SUPPORT, ""]),
    ("VER-009", ["", "members_of_etcd_that_are_ill_or_too_old_for_the_target_are_found", ""]),
    ("VER-010", ["", NODES, UNREAD]),
    ("VER-011", [OF_AUDIT[0], OF_AUDIT[1], ""]),
    ("WHK-001", ["", DIALLED, "a_backend_without_a_handshake_fails_and_one_that_nobody_reached_is_unknown"]),
    ("WHK-002", ["", DIALLED, "a_backend_without_a_handshake_fails_and_one_that_nobody_reached_is_unknown"]),
    ("WHK-003", ["", DIALLED, "a_chain_with_ways_without_number_is_given_up"]),
    ("WHK-004", ["", COUNTED, ""]),
    ("WHK-005", ["", COUNTED, ""]),
    ("WHK-006", ["", WEBHOOKS, ""]),
    ("WHK-007", ["", WEBHOOKS, ""]),
    ("WHK-008", ["", WEBHOOKS, ""]),
    ("WHK-009", ["", WEBHOOKS, ""]),
    ("WHK-010", ["", WEBHOOKS, ""]),
    ("WHK-011", ["", DEFINITIONS, ""]),
    ("WHK-012", ["", "conversion_webhooks_and_aggregated_apis_are_judged_alike", ""]),
    ("WHK-013", ["", "conversion_webhooks_and_aggregated_apis_are_judged_alike", ""]),
    ("WHK-014", [OF_NODES[0], OF_NODES[1], ""]),
    ("WHK-015", ["", OF_NODES[1], ""]),
    ("WL-001", ["", BUDGETS, ""]),
    ("WL-002", ["", BUDGETS, ""]),
    ("WL-003", ["", BUDGETS, ""]),
    ("WL-004", ["", WORKLOADS, ""]),
    ("WL-005", ["", WORKLOADS, ""]),
    ("WL-007", ["", WORKLOADS, ""]),
    ("WL-008", ["", WORKLOADS, ""]),
    ("WL-009", ["", WORKLOADS, ""]),
    ("WL-010", ["", WORKLOADS, ""]),
    ("WL-013", ["", WORKLOADS, ""]),
    ("WL-015", ["", WORKLOADS, ""]),
];

/// Checks that lack one of the three, each with the reason.
const LACKING: &[(&str, &str)] = &[
    ("API-001", "it merges what API-003 to API-008 found, and is unknown where they are; its files are in manifest/"),
    (
        "API-005",
        "what it finds is an API-001 or API-002 with evidence; a payload that is none is tested in api/helm.rs",
    ),
    ("API-007", "what no parser reads is its finding: manifest/tests.rs, and the program itself in shiplock-cli"),
    ("API-008", "its findings come from real API servers; the lines that it reads are tested in api/metrics.rs"),
    ("API-014", "beyond the table it is unknown and nothing else; the program itself is asked in shiplock-cli"),
    ("CP-009", "a pod that does not come to its end is its failure; there is nothing besides that could be unread"),
    ("CP-010", "it reads the audit log as API-009 does, which tells what could not be read"),
    ("NODE-017", "a runtime that does not answer is its failure"),
    ("NODE-019", "an image or a mirror that does not answer is its failure"),
    ("NODE-021", "an agent always knows its host's name"),
    ("NODE-023", "an agent that cannot ask sees none"),
    ("VER-008", "it reads the shipped catalogue alone, which is always there"),
    ("VER-011", "it reads the audit log as API-009 does, which tells what could not be read"),
    ("WHK-014", "a certificate that an agent cannot read is missing where masters look: CP-008 and the plan tell"),
];

/// The bodies of all tests of this crate, by name.
fn tests_by_name(folder: &std::path::Path, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_by_name(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            for part in text.split("#[test]").skip(1) {
                let name = part.split_once("fn ").and_then(|(_, rest)| rest.split_once("()")).map(|(name, _)| name);
                found.insert(name.unwrap_or_default().to_owned(), part.to_owned());
            }
        }
    }
}

#[test]
fn every_check_that_is_built_has_tests_in_which_it_passes_says_what_is_wrong_and_is_unknown() {
    let mut tests = BTreeMap::new();
    tests_by_name(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut tests);
    let (well, unknown) = (speaking(&well(), None), speaking(&unreadable(), Some(Outcome::Unknown)));
    let cases =
        |id: &str, is_ill: bool| CASES.iter().any(|(check, .., gives)| *check == id && gives.is_empty() != is_ill);
    let mut missing = Vec::new();
    for check in crate::catalogue::all().iter().filter(|check| check.not_built.is_none()) {
        let listed = ELSEWHERE.iter().find(|(id, _)| *id == check.id).map_or([""; 3], |(_, names)| *names);
        for name in listed.iter().filter(|name| !name.is_empty()) {
            let body = tests.get(*name);
            assert!(body.is_some(), "{}: there is no test {name}", check.id);
            // That a node is well is said of all its checks together.
            let is_of_all = *name == OF_NODES[0];
            assert!(is_of_all || body.is_some_and(|body| body.contains(check.id)), "{name} does not name {}", check.id);
        }
        let is_read = READS.iter().any(|(_, checks)| checks.contains(&check.id));
        let shown = [
            cases(check.id, false)
                || !listed[0].is_empty()
                || (is_read || unknown.contains(check.id)) && !well.contains(check.id),
            cases(check.id, true) || !listed[1].is_empty(),
            !listed[2].is_empty() || unknown.contains(check.id),
        ];
        let lacks: Vec<&str> = ["pass", "warn or fail", "unknown"]
            .into_iter()
            .zip(shown)
            .filter(|(_, is_shown)| !is_shown)
            .map(|(what, _)| what)
            .collect();
        match LACKING.iter().find(|(id, _)| *id == check.id) {
            None if !lacks.is_empty() => missing.push(format!("{}: {}", check.id, lacks.join(", "))),
            Some(_) if lacks.is_empty() => missing.push(format!("{}: it lacks nothing any more", check.id)),
            _ => {}
        }
    }
    assert!(missing.is_empty(), "write a case for each, or the reason why there is none:\n{}", missing.join("\n"));
}
