//! The control plane as pods, metrics, events and ConfigMaps show it.

use super::*;
use crate::api::metrics::Metrics;
use crate::object::Configuration;
use crate::snapshot::Instance;

fn components(pods: Vec<Value>) -> Snapshot {
    let mut snapshot = snapshot();
    snapshot.objects.pods = seen(Value::Array(pods));
    snapshot
}

#[test]
fn what_components_refuse_to_start_with_is_found_with_the_release_that_lost_it() {
    let server = |flags: &[&str]| components(vec![component("kube-apiserver", "v1.36.3", flags)]);
    let pod = "Pod kube-system/kube-apiserver-m1";
    for (flags, current, target, expected) in [
        (vec!["--etcd-servers=https://127.0.0.1:2379", "--v", "2"], "1.36", "1.37", None),
        (vec!["--feature-gates=SidecarContainers=true"], "1.36", "1.37", Some("Fail API-013 gate-gone")),
        (vec!["--feature-gates=SidecarContainers=true"], "1.35", "1.36", None),
        (vec!["--feature-gates=SidecarContainers=false"], "1.35", "1.36", Some("Fail API-013 gate-locked")),
        (
            vec!["--feature-gates", "AllBeta=false,SidecarContainers=true"],
            "1.36",
            "1.37",
            Some("Fail API-013 gate-gone"),
        ),
        (vec!["--feature-gates=kube:SidecarContainers=true"], "1.36", "1.37", Some("Fail API-013 gate-gone")),
        (vec!["--feature-gates=VendorOnly=true"], "1.36", "1.37", Some("Unknown API-013 gate-unheard")),
        (vec!["--cloud-provider=external"], "1.32", "1.33", Some("Fail API-013 flag-gone")),
        (
            vec!["--enable-admission-plugins=NodeRestriction,PodSecurityPolicy"],
            "1.24",
            "1.25",
            Some("Fail API-013 plugin-gone"),
        ),
        (vec!["--enable-admission-plugins=NodeRestriction"], "1.36", "1.37", None),
        (vec!["--runtime-config=scheduling.k8s.io/v1alpha2=true"], "1.36", "1.37", Some("Fail API-013 version-gone")),
        (vec!["--runtime-config=api/all=true,storage.k8s.io/v1beta1=true"], "1.36", "1.37", None),
    ] {
        let found: Vec<String> =
            found_at(&server(&flags), current, target).into_iter().filter(|text| text.contains("API-013")).collect();
        let expected: Vec<String> = expected.into_iter().map(|text| format!("{text} {pod}")).collect();
        assert_eq!(found, expected, "{flags:?} at {target}");
    }
    // A program of somebody else may have flags of the same names.
    let other = components(vec![crate::cluster::tests::pod(
        "x",
        json!({ "spec": { "containers": [{ "name": "kube-apiserver", "image": "registry.k8s.io/kube-apiserver:v1", "args": ["--insecure-port=0"] }] } }),
    )]);
    assert_eq!(found(&other), [""; 0]);
}

#[test]
fn the_configuration_of_kubelets_and_kube_proxy_is_judged_too() {
    let mut snapshot = snapshot();
    let mut configuration = Configuration::default();
    let map = |key: &str, text: &str| [(key.to_owned(), text.to_owned())].into();
    configuration.take("kubelet-config", &map("kubelet", "featureGates:\n  SidecarContainers: true\n"));
    configuration.take("kube-proxy", &map("config.conf", "mode: ipvs\n"));
    configuration.take("coredns", &map("Corefile", ".:53 {\n  errors\n  federation x.y\n}\n"));
    configuration.take("kubeadm-config", &map("ClusterConfiguration", "apiVersion: kubeadm.k8s.io/v1beta2\n"));
    snapshot.objects.configuration = Read::Seen(configuration.clone());
    assert_eq!(
        found(&snapshot),
        [
            "Fail API-013 gate-gone ConfigMap kube-system/kubelet-config",
            "Warn NET-006 ipvs ConfigMap kube-system/kube-proxy",
            "Warn NET-004 gone ConfigMap kube-system/coredns",
            "Fail API-012 kubeadm-uploaded ConfigMap kube-system/kubeadm-config",
        ]
    );
    configuration = Configuration::default();
    configuration.take("kubelet-config", &map("kubelet", "a: [\n"));
    snapshot.objects.configuration = Read::Seen(configuration);
    assert_eq!(found(&snapshot), ["Unknown API-013 not-seen ConfigMap kube-system/kubelet-config"]);
}

#[test]
fn members_of_etcd_that_are_ill_or_too_old_for_the_target_are_found() {
    let ill = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    let member = "Pod kube-system/etcd-m1";
    for (tag, more, current, target, expected) in [
        ("3.6.8-0", json!({}), "1.36", "1.37", None),
        ("3.6.8-0", ill, "1.36", "1.37", Some("Fail CP-004 not-ready")),
        ("3.5.25-0", json!({}), "1.33", "1.34", Some("Fail VER-009 patch")),
        ("3.5.26-0", json!({}), "1.33", "1.34", None),
        ("3.4.13-0", json!({}), "1.33", "1.34", Some("Fail VER-009 several")),
        ("latest", json!({}), "1.36", "1.37", Some("Unknown VER-009 not-seen")),
        ("3.5.21-0", json!({}), "1.32", "1.33", None),
    ] {
        let mut etcd = component("etcd", tag, &[]);
        merge(&mut etcd, more);
        let expected: Vec<String> = expected.into_iter().map(|text| format!("{text} {member}")).collect();
        let mut found = found_at(&components(vec![etcd]), current, target);
        found.retain(|text| !text.contains("VER-008"));
        assert_eq!(found, expected, "{tag} to {target}");
    }
}

fn measured(lines: &[&str]) -> Snapshot {
    let mut metrics = Metrics::default();
    lines.iter().for_each(|line| metrics.take(line));
    let mut snapshot = components(vec![component("etcd", "3.6.8-0", &["--quota-backend-bytes=1000"])]);
    snapshot.metrics = vec![Instance {
        address: "10.0.0.1:6443".into(),
        metrics: Read::Seen(metrics),
        version: Read::NotAsked,
        not_ready: Read::NotAsked,
    }];
    snapshot
}

#[test]
fn certificates_that_were_counted_hold_an_upgrade_unless_every_one_of_now_was_seen() {
    for check in ["WHK-005 apiserver_webhooks_x509_missing_san", "WHK-004 apiserver_kube_aggregator_x509_insecure_sha1"]
    {
        let (check, metric) = check.split_once(' ').unwrap();
        let mut counted = measured(&[&format!("{metric}_total 2")]);
        let server = "ApiServer 10.0.0.1:6443";
        let of_check =
            |snapshot: &Snapshot| found(snapshot).into_iter().filter(|text| text.contains(check)).collect::<Vec<_>>();
        assert_eq!(of_check(&counted), [format!("Fail {check} counted {server}")], "lists were not read");
        counted.objects.validating = seen(json!([]));
        counted.objects.mutating = seen(json!([]));
        counted.objects.definitions = seen(json!([]));
        counted.objects.api_services = seen(json!([]));
        assert_eq!(of_check(&counted), [format!("Warn {check} counted-before {server}")], "nothing is called any more");
        let client = json!({ "service": { "namespace": "shop", "name": "hook" } });
        let webhook = json!({ "name": "check.shop", "clientConfig": client, "rules": [{}] });
        counted.objects.validating = seen(json!([{ "metadata": { "name": "shop" }, "webhooks": [webhook] }]));
        assert_eq!(of_check(&counted), [format!("Fail {check} counted {server}")], "one was not dialled");
    }
}

#[test]
fn a_full_or_slow_etcd_is_found_in_the_metrics_of_api_servers() {
    let server = "ApiServer 10.0.0.1:6443";
    let size = |bytes: u32| format!("apiserver_storage_size_bytes{{storage_cluster_id=\"etcd-0\"}} {bytes}");
    for (bytes, expected) in [(700, None), (800, Some("Warn CP-005 large")), (950, Some("Fail CP-005 large"))] {
        let expected: Vec<String> = expected.into_iter().map(|text| format!("{text} {server}")).collect();
        assert_eq!(found(&measured(&[&size(bytes)])), expected, "{bytes}");
    }
    let bucket = |operation: &str, kind: &str, bound: &str, count: u32| {
        format!(
            "etcd_request_duration_seconds_bucket{{operation=\"{operation}\",type=\"{kind}\",le=\"{bound}\"}} {count}"
        )
    };
    let slow = [
        bucket("create", "pods", "0.1", 1900),
        bucket("create", "pods", "0.5", 2000),
        bucket("create", "pods", "+Inf", 2000),
        bucket("update", "leases", "0.1", 100),
        bucket("update", "leases", "0.5", 100),
        bucket("update", "leases", "+Inf", 100),
        bucket("list", "pods", "+Inf", 100_000),
    ];
    let lines: Vec<&str> = slow.iter().map(String::as_str).collect();
    assert_eq!(found(&measured(&lines)), [format!("Warn CP-006 slow {server}")]);
    let few = [bucket("create", "pods", "0.1", 1), bucket("create", "pods", "+Inf", 10)];
    assert_eq!(found(&measured(&[&few[0], &few[1]])), [""; 0]);
    let mut blind = measured(&[]);
    blind.metrics[0].metrics = Read::NotSeen("forbidden".into());
    let found = found(&blind);
    for check in ["CP-005", "CP-006", "CP-011", "WHK-004", "WHK-005"] {
        assert!(found.iter().any(|text| text.starts_with(&format!("Unknown {check} "))), "{check}: {found:?}");
    }
}

#[test]
fn encryption_with_the_first_kms_stored_versions_and_bursts_of_warnings_are_found() {
    let encrypts = "--encryption-provider-config=/x";
    let server = |flags: &[&str]| components(vec![component("kube-apiserver", "v1.28.0", flags)]);
    let kms = |list: Vec<String>| list.into_iter().filter(|text| text.contains("CP-012")).collect::<Vec<_>>();
    let pod = "Pod kube-system/kube-apiserver-m1";
    assert_eq!(kms(found_at(&server(&[encrypts]), "1.28", "1.29")), [format!("Warn CP-012 kms-1-off {pod}")]);
    assert_eq!(kms(found_at(&server(&[encrypts]), "1.36", "1.37")), [""; 0]);
    let allowed = server(&[encrypts, "--feature-gates=KMSv1=true"]);
    assert_eq!(kms(found_at(&allowed, "1.35", "1.36")), [format!("Warn CP-012 kms-1 {pod}")]);

    let mut others = snapshot();
    others.objects.definitions = seen(json!([
        { "metadata": { "name": "a.x" }, "spec": { "versions": [{ "name": "v1", "storage": true }, { "name": "v1beta1" }] }, "status": { "storedVersions": ["v1beta1", "v1"] } },
        { "metadata": { "name": "b.x" }, "spec": { "versions": [{ "name": "v1", "storage": true }] }, "status": { "storedVersions": ["v1"] } },
    ]));
    let event = |name: &str, count: i64, last: &str| json!({ "involvedObject": { "kind": "Pod", "name": name }, "reason": "BackOff", "count": count, "lastTimestamp": last });
    others.objects.warnings = seen(json!([
        event("often", 30, "2026-11-23T23:30:00Z"),
        event("seldom", 3, "2026-11-23T23:30:00Z"),
        event("past", 500, "2026-11-23T20:00:00Z"),
        { "involvedObject": { "kind": "Pod", "name": "series" }, "reason": "Unhealthy", "series": { "count": 40, "lastObservedTime": "2026-11-23T23:59:00.123456Z" } },
    ]));
    assert_eq!(
        found(&others),
        [
            "Warn CP-013 old CustomResourceDefinition a.x",
            "Warn CP-014 many Pod kube-system/often",
            "Warn CP-014 many Pod kube-system/series",
        ]
    );
}

#[test]
fn what_is_not_there_by_design_is_skipped_and_not_passed() {
    let hosted = components(Vec::new());
    let question = Question {
        target: "1.37".parse().unwrap(),
        current: None,
        profile: Profile::Default,
        now: hosted.taken_at,
        max_parallel: 10,
    };
    let skipped: Vec<String> = judge(&hosted, &question)
        .into_iter()
        .filter(|finding| finding.outcome == Outcome::Skipped)
        .map(|finding| format!("{} {}", finding.check, finding.parameters["why"]))
        .collect();
    assert_eq!(skipped, ["CP-004 absent:etcd", "VER-009 absent:etcd", "CP-012 absent:API server"]);
}

#[test]
fn only_words_of_kubernetes_own_components_are_kept() {
    let mut snapshot = components(vec![
        component("kube-apiserver", "v1.36.3", &["--v=2"]),
        pod(
            "a",
            json!({ "spec": { "containers": [{ "name": "c", "image": "kube-proxy", "command": ["x", "--password=secret"], "args": ["secret"] }] } }),
        ),
    ]);
    snapshot.objects = snapshot.objects.without_commands();
    let saved = serde_json::to_string(&snapshot).unwrap();
    assert!(saved.contains("--v=2") && !saved.contains("secret"), "{saved}");
}
