//! What a copy promises.

use proptest::prelude::*;
use serde_json::json;

use super::item::{self, Items};
use super::*;
use crate::snapshot::Snapshot;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/snapshot");

fn items() -> Items {
    fn list<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).unwrap()
    }
    let pod = |name: &str, node: &str| {
        json!({
            "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"), "labels": {"app": "cart"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "cart-7c9", "controller": true}]},
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "app:1",
                "env": [{"name": "PASSWORD", "value": "hunter2"}], "command": ["run", "--token=hunter2"],
                "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}}}]},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        })
    };
    let template = json!({"metadata": {"labels": {"app": "cart"}}, "spec": {"containers": []}});
    Items {
        cluster_uid: "c".to_owned(),
        nodes: list(json!([{
            "metadata": {"name": "w-1", "uid": "u", "labels": {}, "annotations": {"note": "hunter2"}},
            "spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"cpu": "3920m", "memory": "16Gi", "pods": "110"},
                "conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.35.4"}}
        }])),
        pods: list(json!([pod("cart-7c9-a", "w-1"), pod("cart-7c9-b", "w-1")])),
        deployments: list(json!([{"metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"replicas": 2, "template": template}}])),
        replica_sets: list(json!([
            {"metadata": {"name": "cart-7c9", "namespace": "shop",
                "ownerReferences": [{"kind": "Deployment", "name": "cart", "controller": true}]},
             "spec": {"replicas": 2, "template": template}},
            {"metadata": {"name": "cart-old", "namespace": "shop"}, "spec": {"replicas": 0, "template": template}}
        ])),
        budgets: list(json!([{"metadata": {"name": "cart", "namespace": "shop"}, "spec": {"minAvailable": "50%"}}])),
        ..Items::default()
    }
}

#[test]
fn pods_that_are_alike_share_a_template_and_owners_are_resolved() {
    let copy = item::cluster_copy(items());
    assert_eq!(copy.check(), Ok(()));
    assert_eq!((copy.pods.len(), copy.pods[0].template), (2, copy.pods[1].template));
    let set = &copy.workloads[copy.pods[0].owner.unwrap()];
    assert_eq!((set.name.as_str(), set.owner), ("cart-7c9", Some(0)));
    assert_eq!(copy.workloads.len(), 2, "history is left out");
    assert_eq!(copy.templates[copy.pods[0].template].requests.cpu_millis, 250);
    assert_eq!(copy.nodes[0].allocatable, CopyResources { cpu_millis: 3920, memory_bytes: 16 << 30, pods: 110 });
    assert!(copy.nodes[0].taints.is_empty(), "a taint of state is not set by anybody");
}

#[test]
fn no_environment_command_or_annotation_is_kept() {
    let text = serde_json::to_string(&item::cluster_copy(items())).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
}

#[test]
fn what_cannot_be_a_cluster_is_refused_by_name() {
    let good = item::cluster_copy(items());
    type Harm = fn(&mut ClusterCopy);
    let cases: &[(Harm, &str, &str)] = &[
        (|copy| copy.workloads[1].owner = Some(1), "ReplicaSet shop/cart-7c9", "circle"),
        (|copy| copy.workloads[0].owner = Some(0), "Deployment shop/cart", "circle"),
        (|copy| copy.workloads[0].replicas = i64::MAX, "Deployment shop/cart", "wants"),
        (|copy| copy.workloads[0].replicas = 1_000_000, "Deployment shop/cart", "1000000 pods"),
        (
            |copy| {
                let mut more = copy.workloads[1].clone();
                more.name = "cart-8d0".into();
                copy.workloads.push(more);
                copy.workloads.iter_mut().for_each(|workload| workload.replicas = 4_000);
            },
            "ReplicaSet shop/cart-8d0",
            "12000 pods",
        ),
        (|copy| copy.pods[0].template = usize::MAX, "pod shop/cart-7c9-a", "template"),
        (|copy| copy.pods[0].node = Some(7), "pod shop/cart-7c9-a", "node 7"),
        (|copy| copy.pods[0].owner = Some(0), "pod shop/cart-7c9-a", "Deployment"),
        (|copy| copy.pods[1].name = "cart-7c9-a".into(), "pod shop/cart-7c9-a", "two"),
        (|copy| copy.nodes[0].allocatable.cpu_millis = i64::MAX, "node w-1", "amount"),
        (|copy| copy.nodes[0].name = "\u{1b}[31m".into(), "node [31m", "no name"),
        (|copy| copy.budgets[0].min_available = Some("-1".into()), "budget shop/cart", "percentage"),
        (|copy| copy.templates[0].grace_seconds = Some(i64::MAX), "template 0", "time"),
        (|copy| copy.templates[0].priority = i64::MIN, "template 0", "priority"),
    ];
    for (harm, what, why) in cases {
        let mut bad = good.clone();
        harm(&mut bad);
        let refusal = bad.check().unwrap_err();
        assert!(refusal.what == *what && refusal.why.contains(why), "{refusal:?}, expected {what}: {why}");
    }
}

/// Files that are named after the code with which they are refused, and good ones.
#[test]
fn every_file_of_the_corpus_is_read_or_refused_with_the_code_in_its_name() {
    let mut seen = 0;
    for entry in std::fs::read_dir(CORPUS).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let found = Snapshot::parse(&name, &std::fs::read(&path).unwrap()).map_err(|problem| problem.code.id());
        match name.split_once('-').filter(|(code, _)| code.starts_with("UPG")) {
            Some((code, _)) => assert_eq!(found.map(|_| ()), Err(code), "{name}"),
            None => assert!(found.is_ok(), "{name}: {found:?}"),
        }
        seen += 1;
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn a_snapshot_that_is_cut_off_at_any_byte_is_refused_as_unreadable() {
    let bytes = std::fs::read(format!("{CORPUS}/good.json")).unwrap();
    for cut in 0..bytes.trim_ascii_end().len() {
        let problem = Snapshot::parse("x", &bytes[..cut]).unwrap_err();
        assert_eq!(problem.code.id(), "UPG0841", "cut off at byte {cut}");
    }
}

proptest! {
    #[test]
    fn a_damaged_snapshot_is_read_or_refused_and_never_a_panic(
        cut in 0usize..2_000, harms in proptest::collection::vec((0usize..2_000, any::<u8>()), 0..8)
    ) {
        let mut bytes = std::fs::read(format!("{CORPUS}/good.json")).unwrap();
        for (place, byte) in harms {
            let place = place % bytes.len();
            bytes[place] = byte;
        }
        bytes.truncate(bytes.len().saturating_sub(cut % 700));
        if let Err(problem) = Snapshot::parse("x", &bytes) {
            prop_assert!(problem.code.id().starts_with("UPG084"), "{problem}");
        }
    }

    #[test]
    fn a_copy_of_any_numbers_is_accepted_or_refused_and_never_a_panic(
        numbers in proptest::collection::vec(any::<i64>(), 8), places in proptest::collection::vec(any::<usize>(), 4)
    ) {
        let mut copy = item::cluster_copy(items());
        copy.workloads[0].replicas = numbers[0];
        copy.templates[0].grace_seconds = Some(numbers[1]);
        copy.templates[0].priority = numbers[2];
        copy.nodes[0].allocatable.memory_bytes = numbers[3];
        copy.templates[0].ready_delay_seconds = numbers[4];
        copy.pods[0].owner = Some(places[0] % 4);
        copy.pods[0].node = Some(places[1] % 3);
        copy.workloads[1].owner = Some(places[2] % 3);
        let _ = copy.check();
    }
}
