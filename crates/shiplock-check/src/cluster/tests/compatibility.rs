//! Add-ons, drivers and network settings against the target, and the support of the target itself.

use super::*;
use crate::object::Configuration;

fn runs(image: &str) -> Snapshot {
    let mut snapshot = snapshot();
    snapshot.objects.pods =
        seen(json!([pod("a", json!({ "spec": { "containers": [{ "name": "c", "image": image }] } }))]));
    snapshot
}

#[test]
fn add_ons_that_were_not_tested_with_the_target_or_that_have_ended_are_found() {
    for (image, current, target, expected) in [
        ("docker.io/calico/node:v3.31.3", "1.36", "1.37", Some("Warn NET-005 untested")),
        ("docker.io/calico/node:v3.33.0", "1.36", "1.37", None),
        ("docker.io/calico/node:v3.20.0", "1.36", "1.37", Some("Warn NET-005 untested")),
        ("docker.io/calico/node:v3.99.0", "1.36", "1.37", None),
        ("docker.io/calico/node:master", "1.36", "1.37", None),
        ("example.com/other/node:v1.0.0", "1.36", "1.37", None),
        ("quay.io/cilium/cilium:v1.18.2@sha256:00", "1.36", "1.37", Some("Warn NET-005 untested")),
        ("quay.io/jetstack/cert-manager-controller:v1.21.2", "1.36", "1.37", Some("Warn ADD-001 untested")),
        ("quay.io/jetstack/cert-manager-controller:v1.21.2", "1.35", "1.36", None),
        (
            "registry:5000/provider-aws/cloud-controller-manager:v1.37.0",
            "1.36",
            "1.37",
            Some("Fail ADD-001 cloud-newer"),
        ),
        (
            "registry:5000/provider-aws/cloud-controller-manager:v1.35.1",
            "1.36",
            "1.37",
            Some("Fail ADD-001 cloud-too-old"),
        ),
        ("registry:5000/provider-aws/cloud-controller-manager:v1.36.1", "1.36", "1.37", None),
        ("k8s.gcr.io/pause:3.6", "1.36", "1.37", Some("Warn ADD-002 ended")),
        ("gcr.io/kubernetes-helm/tiller:v2.17.0", "1.36", "1.37", Some("Warn ADD-002 ended")),
    ] {
        let expected: Vec<String> = expected.into_iter().map(|text| format!("{text} Deployment n/a")).collect();
        assert_eq!(found_at(&runs(image), current, target), expected, "{image}");
    }
}

#[test]
fn a_target_that_is_not_mended_any_more_is_told_and_one_that_is_is_not() {
    let support = |current, target| {
        let found = found_at(&snapshot(), current, target);
        found.into_iter().filter(|text| text.contains("VER-008")).collect::<Vec<_>>()
    };
    assert_eq!(support("1.33", "1.34"), ["Warn VER-008 ended-on Cluster"]);
    assert_eq!(support("1.31", "1.32"), ["Warn VER-008 ended Cluster"]);
    assert_eq!(support("1.36", "1.37"), [""; 0]);
}

#[test]
fn kubelets_are_judged_at_every_state_on_the_way() {
    let at = |kubelet: &str, current: &str, target: &str| {
        let mut snapshot = snapshot();
        snapshot.objects.pods = seen(json!([]));
        snapshot.objects.nodes =
            seen(json!([node("w1", json!({ "status": { "nodeInfo": { "kubeletVersion": kubelet } } }))]));
        let found = found_at(&snapshot, current, target);
        found.into_iter().filter(|text| text.contains("VER-003")).collect::<Vec<_>>()
    };
    assert_eq!(at("v1.33.4", "1.36", "1.37"), ["Fail VER-003 too-old Node w1"]);
    assert_eq!(at("v1.34.4", "1.36", "1.37"), [""; 0]);
    // Two hops: the first is fine, and the second only after the pool went with the first.
    assert_eq!(at("v1.33.4", "1.35", "1.37"), ["Warn VER-003 between Node w1"]);
    assert_eq!(at("v1.32.4", "1.35", "1.37"), ["Fail VER-003 too-old Node w1"]);
}

#[test]
fn operators_that_say_no_are_heard() {
    let mut snapshot = snapshot();
    let says = |status: &str| json!([{ "metadata": { "name": "o", "namespace": "n" }, "status": { "conditions": [{ "type": "Upgradeable", "status": status, "message": "migrating" }] } }]);
    snapshot.objects.operators = seen(says("False"));
    assert_eq!(found(&snapshot), ["Fail ADD-007 no Operator n/o"]);
    snapshot.objects.operators = seen(says("True"));
    assert_eq!(found(&snapshot), [""; 0]);
}

#[test]
fn a_driver_that_does_not_run_where_a_pod_needs_it_is_found() {
    let uses = json!({ "spec": { "nodeName": "w1", "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "c" } }] } });
    let mut snapshot = snapshot();
    snapshot.objects.pods = seen(json!([pod("a", uses)]));
    snapshot.objects.claims =
        seen(json!([{ "metadata": { "name": "c", "namespace": "n" }, "spec": { "volumeName": "v" } }]));
    snapshot.objects.volumes =
        seen(json!([{ "metadata": { "name": "v" }, "spec": { "csi": { "driver": "ebs.csi.aws.com" } } }]));
    let on = |drivers: Value| json!([{ "metadata": { "name": "w1" }, "spec": { "drivers": drivers } }]);
    snapshot.objects.csi_nodes = seen(on(json!(null)));
    assert_eq!(found(&snapshot), ["Fail STO-004 missing Node w1"]);
    snapshot.objects.csi_nodes = seen(on(json!([{ "name": "ebs.csi.aws.com" }])));
    assert_eq!(found(&snapshot), [""; 0]);
}

#[test]
fn a_policy_that_closes_a_webhook_to_the_nodes_is_found() {
    let policy = |ingress: Value| json!([{ "metadata": { "name": "p", "namespace": "n" }, "spec": { "podSelector": {}, "policyTypes": ["Ingress"], "ingress": ingress } }]);
    let mut snapshot = snapshot();
    snapshot.objects.pods = seen(json!([pod("a", json!({}))]));
    snapshot.objects.services = seen(json!([{ "metadata": { "name": "s", "namespace": "n" },
        "spec": { "selector": { "app": "a" }, "ports": [{ "port": 443, "targetPort": 8443 }] } }]));
    snapshot.objects.validating =
        seen(json!([{ "metadata": { "name": "c" }, "webhooks": [{ "name": "w", "admissionReviewVersions": ["v1"],
        "clientConfig": { "service": { "namespace": "n", "name": "s" } } }] }]));
    for (ingress, is_closed) in [
        (json!([]), true),
        (json!(null), true),
        (json!([{ "from": [{ "podSelector": {} }] }]), true),
        (json!([{ "ports": [{ "port": 9000 }] }]), true),
        (json!([{ "ports": [{ "port": 8000, "endPort": 9000 }] }]), false),
        (json!([{ "ports": [{ "port": 8443 }] }]), false),
        (json!([{ "from": [{ "ipBlock": { "cidr": "0.0.0.0/0" } }] }]), false),
        (json!([{}]), false),
    ] {
        snapshot.objects.network_policies = seen(policy(ingress.clone()));
        let expected: &[&str] = if is_closed { &["Warn NET-008 closed ValidatingWebhookConfiguration c"] } else { &[] };
        assert_eq!(found(&snapshot), expected, "{ingress}");
    }
}

#[test]
fn ranges_of_services_that_are_nearly_used_up_are_found() {
    let services = |count: u32| -> Vec<Value> {
        (1..=count).map(|index| json!({ "metadata": { "name": format!("s{index}") }, "spec": { "clusterIPs": [format!("10.96.0.{index}")] } })).collect()
    };
    let mut snapshot = snapshot();
    snapshot.objects.service_ranges =
        seen(json!([{ "metadata": { "name": "kubernetes" }, "spec": { "cidrs": ["10.96.0.0/26", "fd00::/108"] } }]));
    snapshot.objects.services = seen(json!(services(58)));
    assert_eq!(found(&snapshot), [""; 0]);
    snapshot.objects.services = seen(json!(services(59)));
    assert_eq!(found(&snapshot), ["Warn NET-009 few ServiceCIDR kubernetes"]);
    // A cluster that is too old for ServiceCIDRs has what kubeadm wrote down.
    let mut configuration = Configuration::default();
    let text = "networking:\n  serviceSubnet: 10.96.0.0/26\n".to_owned();
    configuration.take("kubeadm-config", &[("ClusterConfiguration".to_owned(), text)].into());
    snapshot.objects.service_ranges = seen(json!([]));
    snapshot.objects.configuration = Read::Seen(configuration);
    assert_eq!(found(&snapshot), ["Warn NET-009 few Cluster"]);
}
