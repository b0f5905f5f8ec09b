//! How time and memory of a rehearsal grow with the cluster.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::e2e::installation::Programs;

const SIZES: [usize; 6] = [100, 250, 500, 1_000, 2_500, 5_000];
const MASTERS: usize = 3;
/// DaemonSets, with kube-proxy.
const DAEMON_SETS: usize = 3;
const CORE_DNS_PODS: usize = 2;
/// Pods of Deployments on each worker; with those of DaemonSets 30.
const PODS_ON_A_WORKER: usize = 27;
/// Deployments have so many pods in turn.
const REPLICAS: [usize; 5] = [1, 3, 5, 10, 26];
const NAMESPACES: usize = 400;

/// Measures all sizes, one run each of the engine (`--runs 0`: nominal, best and worst).
pub(super) fn run(runs: u32) -> Result<()> {
    let programs = Programs::released()?;
    let folder = std::env::temp_dir().join(format!("shiplock-bench-rehearse-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    println!("{:>6} {:>8} {:>10} {:>8} {:>8} {:>10}", "nodes", "pods", "file MB", "wall s", "CPU s", "peak MiB");
    for nodes in SIZES {
        let path = folder.join(format!("{nodes}.snapshot"));
        let pods = write(&path, nodes)?;
        let bytes = std::fs::metadata(&path)?.len();
        for _ in 0..runs {
            let (wall, cpu, peak) = measure(programs.shiplock(), &path)?;
            println!("{nodes:>6} {pods:>8} {:>10} {wall:>8} {cpu:>8} {:>10}", bytes / 1_000_000, peak / 1024);
        }
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn measure(shiplock: &Path, snapshot: &Path) -> Result<(String, String, u64)> {
    let output = Command::new("/usr/bin/time")
        .args(["-f", "%e %U %S %M"])
        .arg(shiplock)
        .args(["rehearse", "--to", "1.36", "--runs", "0", "--max-parallel", "10", "-o", "json", "--snapshot"])
        .arg(snapshot)
        .env("SHIPLOCK_LANG", "en")
        .stdin(Stdio::null())
        .output()
        .context("/usr/bin/time cannot be started")?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| told.clone())?;
    let report = &report["rehearsal"];
    ensure!(report["ended_early"].is_null(), "{}", report["ended_early"]);
    let numbers = told.lines().last().context("no times")?;
    let numbers: Vec<&str> = numbers.split(' ').collect();
    let [wall, user, system, peak] = numbers[..] else { anyhow::bail!("{told}") };
    let cpu = user.parse::<f64>()? + system.parse::<f64>()?;
    Ok((wall.to_owned(), format!("{cpu:.2}"), peak.parse()?))
}

/// Writes the snapshot of a cluster with so many nodes, and says how many pods it has.
fn write(path: &Path, nodes: usize) -> Result<usize> {
    let workers = nodes - MASTERS;
    let mut templates: Vec<Value> = Vec::new();
    let mut workloads: Vec<Value> = Vec::new();
    let mut pods: Vec<Value> = Vec::new();
    let mut budgets: Vec<Value> = Vec::new();
    let mut uids = 0u64;
    let mut uid = || {
        uids += 1;
        format!("00000000-0000-4000-8000-{uids:012x}")
    };
    let requests = json!({"cpu_millis": 200, "memory_bytes": 256 << 20, "pods": 1});
    let mut all_nodes = Vec::new();
    for index in 0..nodes {
        let is_master = index < MASTERS;
        let name = if is_master { format!("m{index}") } else { format!("w{index:05}") };
        let mut labels = BTreeMap::from([
            ("kubernetes.io/hostname".to_owned(), name.clone()),
            ("topology.kubernetes.io/zone".to_owned(), format!("z{}", index % 3)),
            ("shiplock.dev/pool".to_owned(), format!("pool-{}", index % 5)),
        ]);
        if is_master {
            labels = BTreeMap::from([("node-role.kubernetes.io/control-plane".to_owned(), String::new())]);
        }
        let taints = if is_master {
            json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}])
        } else {
            json!([])
        };
        all_nodes.push(
            json!({"name": name, "uid": uid(), "machine_id": format!("{index:032x}"), "architecture": "amd64",
            "kubelet": "v1.35.4", "runtime": "containerd://2.1.4", "labels": labels, "taints": taints,
            "allocatable": {"cpu_millis": 16_000, "memory_bytes": 64_i64 << 30, "pods": 110}}),
        );
        for component in
            ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"].iter().filter(|_| is_master)
        {
            let tag = if *component == "etcd" { "3.6.6-0" } else { "v1.35.4" };
            templates.push(json!({"containers": [[component, format!("registry.k8s.io/{component}:{tag}")]]}));
            pods.push(json!({"namespace": "kube-system", "name": format!("{component}-{name}"), "uid": uid(),
                "node": index, "template": templates.len() - 1, "ready": true, "is_mirror": true}));
        }
    }
    for set in 0..DAEMON_SETS {
        let (namespace, name, image) = match set {
            0 => ("kube-system", "kube-proxy".to_owned(), "registry.k8s.io/kube-proxy:v1.35.4"),
            _ => ("system", format!("agent-{set}"), "registry.example/agent:1"),
        };
        let labels = json!({"k8s-app": name});
        templates.push(json!({"labels": labels, "containers": [["main", image]], "requests": requests,
            "tolerations": [{}]}));
        let template = templates.len() - 1;
        workloads.push(json!({"kind": "DaemonSet", "namespace": namespace, "name": name, "uid": uid(),
            "template": template, "selector": {"labels": labels}}));
        for node in 0..nodes {
            pods.push(json!({"namespace": namespace, "name": format!("{name}-{node}"), "uid": uid(),
                "owner": workloads.len() - 1, "node": node, "template": template, "ready": true}));
        }
    }
    let of_dns = json!({"k8s-app": "kube-dns"});
    templates.push(json!({"labels": of_dns, "containers": [["coredns", "registry.k8s.io/coredns/coredns:v1.13.1"]],
        "requests": requests}));
    let selector = json!({"labels": of_dns});
    for (kind, name) in [("Deployment", "coredns"), ("ReplicaSet", "coredns-7c9")] {
        let mut workload = json!({"kind": kind, "namespace": "kube-system", "name": name, "uid": uid(),
            "replicas": CORE_DNS_PODS, "template": templates.len() - 1, "selector": selector});
        if kind == "ReplicaSet" {
            workload["owner"] = json!(workloads.len() - 1);
        }
        workloads.push(workload);
    }
    for pod in 0..CORE_DNS_PODS {
        pods.push(json!({"namespace": "kube-system", "name": format!("coredns-7c9-{pod}"), "uid": uid(),
            "owner": workloads.len() - 1, "node": MASTERS + pod, "template": templates.len() - 1, "ready": true}));
    }
    let (mut placed, wanted) = (0, workers * PODS_ON_A_WORKER);
    for app in 0.. {
        if placed >= wanted {
            break;
        }
        let replicas = REPLICAS[app % REPLICAS.len()].min(wanted - placed);
        let (namespace, name) = (format!("team-{}", app % NAMESPACES), format!("app-{app}"));
        let selector = json!({"labels": {"app": name}});
        templates.push(json!({"labels": {"app": name, "pod-template-hash": "7c9"},
            "containers": [["main", "registry.example/app:1"]], "requests": requests}));
        let template = templates.len() - 1;
        workloads.push(json!({"kind": "Deployment", "namespace": namespace, "name": name, "uid": uid(),
            "replicas": replicas, "template": template, "selector": selector}));
        let deployment = workloads.len() - 1;
        workloads
            .push(json!({"kind": "ReplicaSet", "namespace": namespace, "name": format!("{name}-7c9"), "uid": uid(),
            "replicas": replicas, "template": template, "selector": selector, "owner": deployment}));
        if replicas > 1 && app % 2 == 0 {
            budgets.push(json!({"namespace": namespace, "name": name, "selector": selector, "max_unavailable": "1"}));
        }
        for pod in 0..replicas {
            // Spread over the nodes as a scheduler would.
            let node = MASTERS + (placed * 7_919 + pod) % workers;
            pods.push(json!({"namespace": namespace, "name": format!("{name}-7c9-{pod:05}"), "uid": uid(),
                "owner": deployment + 1, "node": node, "template": template, "ready": true}));
            placed += 1;
        }
    }
    let count = pods.len();
    let copy = json!({"cluster_uid": uid(), "nodes": all_nodes, "templates": templates, "workloads": workloads,
        "pods": pods, "budgets": budgets});
    let snapshot = json!({"schema": 1, "taken_at": "2026-11-27T08:00:00Z", "server": "https://x:6443", "version": "v1.35.4",
        "served": "not_asked", "written": [], "releases": "not_asked", "metrics": [], "objects": {},
        "copy": {"seen": copy}, "effort": {"requests": 0, "bytes": 0, "in_flight_max": 0, "milliseconds": 0}});
    std::fs::write(path, serde_json::to_vec(&snapshot)?)?;
    Ok(count)
}
