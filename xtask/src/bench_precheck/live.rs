//! The pre-check on a real API server that is filled like a large cluster, with planted findings whose truth is known.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::server::Server;
use super::speed::{Cost, cost_with, is_on_path, median_of};
use super::{Said, check};

const OLD: &str = "storage.k8s.io/v1beta1";
const NEW: &str = "storage.k8s.io/v1";
const TEAMS: usize = 40;
/// A check of APIs alone, where no whole check was before.
const STEADY_ALONE: &str = "  steady, nothing else ran";

/// Fills a server, checks it, and compares with the truth and with the rivals that are on the PATH.
pub(super) fn measure(shiplock: &Path, folder: &Path, runs: u32, scale: f64) -> Result<()> {
    let server = Server::start(&folder.join("server"), "1.36", &["--runtime-config=storage.k8s.io/v1beta1=true"])?;
    println!("live: kube-apiserver 1.36.3, filled to {scale} of the whole, target 1.37");
    fill(&server, scale)?;
    plant(&server)?;
    let kubeconfig = server.kubeconfig();
    let kubeconfig = kubeconfig.to_string_lossy();
    let api_only = ["--kubeconfig", &kubeconfig, "--to", "1.37", "--only", "API", "--skip", "API-008"];
    judge(&check(shiplock, &api_only)?)?;
    // What the scanner itself asked must leave no trace that the next run takes for a client's.
    judge(&check(shiplock, &api_only)?)?;

    let shiplock = shiplock.to_string_lossy();
    let ours = |more: &[&str]| -> Vec<String> {
        [&[&*shiplock, "check", "--kubeconfig", &kubeconfig, "--to", "1.37", "-o", "json", "--progress", "none"], more]
            .concat()
            .iter()
            .map(|word| (*word).to_owned())
            .collect()
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let rivals: Vec<(&str, &str, Vec<String>)> = vec![
        ("shiplock, APIs only", "", ours(&["--only", "API", "--fresh"])),
        (STEADY_ALONE, "", ours(&["--only", "API"])),
        ("  steady, after whole ones", "", ours(&["--only", "API"])),
        ("shiplock, everything", "", ours(&["--fresh"])),
        ("  steady", "", ours(&[])),
        (
            "pluto detect-all",
            "pluto",
            words(&["pluto", "detect-all-in-cluster", "-o", "json", "--target-versions", "k8s=v1.37.0"]),
        ),
        (
            "pluto detect-helm",
            "pluto",
            words(&["pluto", "detect-helm", "-o", "json", "--target-versions", "k8s=v1.37.0"]),
        ),
        ("kubent", "kubent", words(&["kubent", "-t", "1.37.0", "-o", "json"])),
    ];
    // What is kept for the next check lies beside the server, and is there before anything is timed: of whole checks, and
    // elsewhere of checks of APIs that none was before.
    let cache = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (of_whole, of_apis) = (cache("cache"), cache("cache-of-apis"));
    let environment = [("KUBECONFIG", &*kubeconfig), ("XDG_CACHE_HOME", &*of_whole)];
    let alone = [("KUBECONFIG", &*kubeconfig), ("XDG_CACHE_HOME", &*of_apis)];
    cost_with(&ours(&[]), &environment)?;
    cost_with(&ours(&["--only", "API"]), &alone)?;
    println!("  wall s / CPU s / peak MiB / API server's CPU s");
    for (name, program, command) in rivals {
        if !program.is_empty() && !is_on_path(program) {
            continue;
        }
        let mut costs = Vec::new();
        for _ in 0..runs.max(1) {
            let before = server.cpu_seconds()?;
            let cost = cost_with(&command, if name == STEADY_ALONE { &alone } else { &environment })?;
            std::thread::sleep(Duration::from_millis(500));
            costs.push((cost, server.cpu_seconds()? - before));
        }
        let of_server = costs.iter().map(|(_, seconds)| *seconds).fold(f64::INFINITY, f64::min);
        let Cost { wall_seconds, cpu_seconds, peak_kibibytes } =
            median_of(costs.into_iter().map(|(cost, _)| cost).collect())?;
        #[expect(clippy::cast_precision_loss, reason = "small numbers for people")]
        let mebibytes = peak_kibibytes as f64 / 1024.0;
        println!("    {name:<26} {wall_seconds:.2} / {cpu_seconds:.2} / {mebibytes:.0} / {of_server:.2}");
    }
    for more in [&["--only", "API"][..], &[]] {
        let said = check(Path::new(&*shiplock), &[&["--kubeconfig", &kubeconfig, "--to", "1.37"], more].concat())?;
        println!(
            "  effort {more:?}: {}, {} findings",
            said.report["read"],
            said.report["findings"].as_array().map_or(0, Vec::len)
        );
    }
    Ok(())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a count")]
fn fill(server: &Server, scale: f64) -> Result<()> {
    let count = |whole: usize| (whole as f64 * scale) as usize;
    let team = |index: usize| format!("team-{}", index % TEAMS);
    let spaces: Vec<Value> = (0..TEAMS)
        .map(|index| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": team(index) } }))
        .collect();
    server.create("/api/v1/namespaces", &spaces)?;
    let nodes: Vec<Value> = (0..count(2000)).map(node).collect();
    server.create("/api/v1/nodes", &nodes)?;
    let container = |index: usize| {
        json!({ "name": "main", "image": format!("registry.example.com/team/app:{}", index % 50),
            "args": ["--port", "8080"], "env": [{ "name": "MODE", "value": "production" }],
            "resources": { "requests": { "cpu": "100m", "memory": "128Mi" } },
            "readinessProbe": { "httpGet": { "path": "/ready", "port": 8080 } } })
    };
    let deployments: Vec<Value> = (0..count(4000))
        .map(|index| {
            let name = format!("app-{index}");
            let mut deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": { "name": name, "namespace": team(index), "labels": { "app": name } },
                "spec": { "replicas": 3, "selector": { "matchLabels": { "app": name } },
                    "template": { "metadata": { "labels": { "app": name } }, "spec": { "containers": [container(index)] } } } });
            if index < 100 {
                let stale = json!({ "apiVersion": "extensions/v1beta1", "kind": "Deployment", "metadata": { "name": name } });
                deployment["metadata"]["annotations"] =
                    json!({ "kubectl.kubernetes.io/last-applied-configuration": stale.to_string() });
            }
            deployment
        })
        .collect();
    server.create("/apis/apps/v1/deployments", &deployments)?;
    let pods: Vec<Value> = (0..count(14_000))
        .map(|index| {
            let app = format!("app-{}", index % count(4000).max(1));
            json!({ "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": format!("{app}-5d4f7-{index}"), "namespace": team(index % count(4000).max(1)), "labels": { "app": app },
                    "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-5d4f7"), "uid": "6a0e5ab2-2dd0-4b65-9a1b-000000000000", "controller": true }] },
                "spec": { "nodeName": format!("node-{}", index % count(2000).max(1)), "containers": [container(index)] } })
        })
        .collect();
    server.create("/api/v1/pods", &pods)?;
    // Without a kubelet they would wait for ever.
    let running: Vec<Value> = pods.iter().map(running).collect();
    server.set_status("/api/v1/pods", &running)?;
    let maps: Vec<Value> = (0..count(6000))
        .map(|index| {
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": format!("map-{index}"), "namespace": team(index) },
                "data": { "a.yaml": "apiVersion: extensions/v1beta1\nkind: Ingress\n", "b": noise(index, 1500) } })
        })
        .collect();
    server.create("/api/v1/configmaps", &maps)?;
    let mut secrets = Vec::new();
    for index in 0..count(1000).max(100) {
        let name = format!("release-{index}");
        let manifest = |old: bool| manifest(index, old);
        match index {
            // The removed API is in what is deployed.
            0..40 => secrets.push(release(&team(index), &name, 1, "deployed", &manifest(true))?),
            // It was in a revision before.
            40..60 => {
                secrets.push(release(&team(index), &name, 1, "superseded", &manifest(true))?);
                secrets.push(release(&team(index), &name, 2, "deployed", &manifest(false))?);
            }
            // It came with a revision that failed.
            60..65 => {
                secrets.push(release(&team(index), &name, 1, "deployed", &manifest(false))?);
                secrets.push(release(&team(index), &name, 2, "failed", &manifest(true))?);
            }
            _ => secrets.push(release(&team(index), &name, 1, "deployed", &manifest(false))?),
        }
    }
    server.create("/api/v1/secrets", &secrets)
}

/// The status of a pod that runs well.
fn running(pod: &Value) -> Value {
    let condition =
        |kind: &str| json!({ "type": kind, "status": "True", "lastTransitionTime": "2026-11-27T00:00:00Z" });
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
    json!({ "metadata": { "namespace": pod["metadata"]["namespace"], "name": pod["metadata"]["name"] },
        "status": { "phase": "Running", "podIP": "10.100.0.9", "startTime": "2026-11-27T00:00:00Z",
            "conditions": conditions,
            "containerStatuses": [{ "name": "main", "ready": true, "started": true, "restartCount": 0,
                "image": pod["spec"]["containers"][0]["image"], "imageID": "sha256:aa",
                "state": { "running": { "startedAt": "2026-11-27T00:00:00Z" } } }] } })
}

fn node(index: usize) -> Value {
    let room = json!({ "cpu": "8", "memory": "32Gi", "pods": "110" });
    json!({ "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": format!("node-{index}"), "labels": { "kubernetes.io/hostname": format!("node-{index}"), "shiplock.dev/pool": format!("pool-{}", index % 5) } },
        "spec": { "podCIDR": format!("10.{}.{}.0/24", 100 + index / 256, index % 256) },
        "status": { "capacity": room, "allocatable": { "cpu": "7800m", "memory": "30Gi", "pods": "110" },
            "conditions": [{ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status", "lastHeartbeatTime": "2026-11-27T00:00:00Z", "lastTransitionTime": "2026-11-27T00:00:00Z" }],
            "nodeInfo": { "kubeletVersion": "v1.36.3", "containerRuntimeVersion": "containerd://2.2.9", "osImage": "Debian GNU/Linux 12 (bookworm)", "kernelVersion": "6.1.0", "machineID": "", "systemUUID": "", "bootID": "", "architecture": "amd64", "operatingSystem": "linux", "kubeProxyVersion": "" } } })
}

/// Text that packs about as well as charts do.
fn noise(seed: usize, length: usize) -> String {
    let mut state = (seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::with_capacity(length + 24);
    while text.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let _ = write!(text, "{:x} value of a setting ", state % 0xFFFF_FFFF);
    }
    text
}

fn manifest(index: usize, old: bool) -> String {
    let mut text = String::new();
    for part in 0..12 {
        let _ = write!(
            text,
            "---\n# Source: chart/templates/part-{part}.yaml\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c-{index}-{part}\ndata:\n  settings: |\n    {}\n",
            noise(index * 100 + part, 2500)
        );
    }
    let version = if old { OLD } else { NEW };
    let _ = write!(
        text,
        "---\napiVersion: {version}\nkind: VolumeAttributesClass\nmetadata:\n  name: of-release-{index}\ndriverName: x\nparameters:\n  a: b\n"
    );
    text
}

/// A revision as Helm stores it: JSON, gzip, base64.
pub(super) fn release(namespace: &str, name: &str, revision: u32, status: &str, manifest: &str) -> Result<Value> {
    let template = STANDARD.encode(noise(revision as usize + name.len() * 31, 30_000));
    let stored = json!({ "name": name, "namespace": namespace, "version": revision, "info": { "status": status, "notes": "done" },
        "chart": { "metadata": { "name": "chart", "version": "1.2.3", "apiVersion": "v2" }, "templates": [{ "name": "templates/a.yaml", "data": template }], "values": { "password": "never shown" } },
        "config": {}, "manifest": manifest, "hooks": [] });
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(stored.to_string().as_bytes())?;
    let helm = STANDARD.encode(packed.finish()?);
    Ok(json!({ "apiVersion": "v1", "kind": "Secret", "type": "helm.sh/release.v1",
        "metadata": { "name": format!("sh.helm.release.v1.{name}.v{revision}"), "namespace": namespace,
            "labels": { "owner": "helm", "name": name, "status": status, "version": revision.to_string() } },
        "data": { "release": STANDARD.encode(helm) } }))
}

fn classes(prefix: &str, api_version: &str, round: &str) -> Value {
    let items: Vec<Value> = (0..10)
        .map(|index| {
            json!({ "apiVersion": api_version, "kind": "VolumeAttributesClass",
                "metadata": { "name": format!("{prefix}-{index}"), "labels": { "round": round } }, "driverName": "x", "parameters": { "a": "b" } })
        })
        .collect();
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

fn plant(server: &Server) -> Result<()> {
    server.kubectl_with(&["apply", "-f", "-"], &classes("csa", OLD, "1"))?;
    server.kubectl_with(&["apply", "--server-side", "--field-manager=argocd", "-f", "-"], &classes("ssa", OLD, "1"))?;
    server.kubectl_with(&["apply", "-f", "-"], &classes("migrated", OLD, "1"))?;
    server.kubectl_with(&["apply", "-f", "-"], &classes("new", NEW, "1"))?;
    // Times in managedFields have whole seconds.
    std::thread::sleep(Duration::from_millis(1500));
    let mut migrated: Value = serde_json::from_str(&server.kubectl(&["get", "vac", "-l", "round=1", "-o", "json"])?)?;
    let items = migrated["items"].as_array_mut().context("items")?;
    items.retain(|item| item["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("migrated")));
    for item in items.iter_mut() {
        item["metadata"]["labels"]["round"] = json!("2");
    }
    // The annotation stays as it was applied through the old version.
    server.kubectl_with(&["replace", "--field-manager=kubectl-client-side-apply", "-f", "-"], &migrated)
}

/// Compares with what was planted.
fn judge(said: &Said) -> Result<()> {
    let findings = said.report["findings"].as_array().context("findings")?;
    let named = |check: &str| -> BTreeSet<String> {
        let of_check = findings.iter().filter(|finding| finding["check"] == check);
        of_check.filter_map(|finding| finding["subject"]["name"].as_str().map(str::to_owned)).collect()
    };
    let planted: BTreeSet<String> = (0..40)
        .map(|index| format!("of-release-{index}"))
        .chain((0..10).flat_map(|index| [format!("csa-{index}"), format!("ssa-{index}")]))
        .collect();
    let warned: BTreeSet<String> = (60..65).map(|index| format!("release-{index}")).collect();
    let (found, failed) = (named("API-002"), named("API-005"));
    let others = findings.len() - found.len() - failed.len();
    let right = found.intersection(&planted).count();
    println!(
        "  planted: {right} of {} found, {} false; {} of {} warnings, {} false; {others} other findings",
        planted.len(),
        found.difference(&planted).count(),
        failed.intersection(&warned).count(),
        warned.len(),
        failed.difference(&warned).count(),
    );
    for finding in
        findings.iter().filter(|finding| finding["check"] != "API-002" && finding["check"] != "API-005").take(5)
    {
        println!("    other: {finding}");
    }
    ensure!(found == planted && failed == warned && others == 0, "the live check is not exact");
    Ok(())
}

/// Where the kubeconfig of a server lies that is kept running, for work by hand.
pub(super) fn keep(folder: &Path, scale: f64) -> Result<PathBuf> {
    let server = Server::start(&folder.join("server"), "1.36", &["--runtime-config=storage.k8s.io/v1beta1=true"])?;
    fill(&server, scale)?;
    plant(&server)?;
    println!("KUBECONFIG={}; end of input ends it", server.kubeconfig().display());
    let _ = std::io::stdin().read_line(&mut String::new());
    Ok(server.kubeconfig())
}
