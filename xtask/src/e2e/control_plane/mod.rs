//! Scenarios of the control plane: everything of a cluster goes from 1.35 to 1.36 as one upgrade.

pub(crate) mod crashes;
pub(crate) mod faults;
pub(crate) mod guards;
pub(crate) mod lies;
pub(crate) mod obstacles;
pub(crate) mod patches;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::backup;
use super::controls::step_of;
use super::installation::Installation;
use super::pools::{marked, workers_are_upgraded};
use super::samples::Sampler;
use crate::lab::{Lab, UpOptions};

/// What kubeadm must be told to ignore on the lab's cgroup v1.
pub(crate) const LAB_OPTIONS: &[&str] = &["--ignore-preflight-errors", "SystemVerification"];
/// What every component must run afterwards.
const COMPONENTS: &[(&str, &str)] = &[
    ("etcd", "registry.k8s.io/etcd:3.6.8-0"),
    ("kube-apiserver", "registry.k8s.io/kube-apiserver:v1.36.3"),
    ("kube-controller-manager", "registry.k8s.io/kube-controller-manager:v1.36.3"),
    ("kube-scheduler", "registry.k8s.io/kube-scheduler:v1.36.3"),
];

pub(crate) fn old_cluster(lab: &Lab, masters: u8, workers: u8) -> Result<()> {
    lab.up(&UpOptions { masters, workers, from: "1.35".to_owned(), ..UpOptions::default() })
}

/// Every component on every master runs the target's image and is ready, and kube-proxy and CoreDNS too.
pub(crate) fn components_are_upgraded(lab: &Lab, masters: &[&str]) -> Result<()> {
    let pods: Value = serde_json::from_str(&lab.kubectl(&["--namespace=kube-system", "get", "pods", "-o", "json"])?)?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    for master in masters {
        for (component, image) in COMPONENTS {
            let name = format!("{component}-{master}");
            let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name.as_str());
            let status = pod.map(|pod| &pod["status"]["containerStatuses"][0]).unwrap_or(&Value::Null);
            ensure!(status["image"] == *image && status["ready"] == true, "{name}: {status}");
        }
        let version = lab.exec_text(master, &["curl", "-sk", "https://127.0.0.1:6443/version"])?;
        ensure!(version.contains("\"gitVersion\": \"v1.36.3\""), "{master}: {version}");
    }
    for (object, image) in [
        ("daemonset/kube-proxy", "registry.k8s.io/kube-proxy:v1.36.3"),
        ("deployment/coredns", "registry.k8s.io/coredns/coredns:v1.14.2"),
    ] {
        let found = lab.kubectl(&[
            "--namespace=kube-system",
            "get",
            object,
            "-o",
            "jsonpath={.spec.template.spec.containers[0].image}",
        ])?;
        ensure!(found == image, "{object}: {found}");
    }
    let configuration =
        lab.kubectl(&["--namespace=kube-system", "get", "configmap", "kubeadm-config", "-o", "yaml"])?;
    ensure!(configuration.contains("kubernetesVersion: v1.36.3"), "kubeadm-config: {configuration}");
    Ok(())
}

/// No static pod of a master is started after the master was called done: a kubelet of a new version starts them anew
/// when the node is Ready again already, so that a gate on the node alone would let the next master begin too early.
pub(crate) fn nothing_starts_after_read_back(lab: &Lab, masters: &[&str], events: &[Value]) -> Result<()> {
    let pods: Value = serde_json::from_str(&lab.kubectl(&["--namespace=kube-system", "get", "pods", "-o", "json"])?)?;
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    for master in masters {
        let done = events.iter().find(|event| {
            event["kind"] == "step_succeeded"
                && step_of(events, event).is_some_and(|step| step == ("verify_node".to_owned(), (*master).to_owned()))
        });
        let done = done.and_then(|event| event["at"].as_str()).unwrap_or_default();
        let done: jiff::Timestamp = done.parse().with_context(|| format!("{master} was never read back"))?;
        for (component, _) in COMPONENTS {
            let name = format!("{component}-{master}");
            let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name.as_str()).unwrap_or(&Value::Null);
            let started = &pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"];
            let started: jiff::Timestamp =
                started.as_str().unwrap_or_default().parse().with_context(|| name.clone())?;
            ensure!(started <= done, "{name} was started at {started}, after {master} was called done at {done}");
        }
    }
    Ok(())
}

/// How long each master was away, by Shiplock's own measure.
pub(crate) fn interruptions(events: &[Value]) -> Vec<u64> {
    let outcome = |event: &Value| event["data"]["outcome"]["interrupted_milliseconds"].as_u64();
    events.iter().filter(|event| event["kind"] == "step_succeeded").filter_map(outcome).collect()
}

/// What the upgrade of a cluster with one master is begun with.
pub(crate) fn only_master() -> Vec<&'static str> {
    [LAB_OPTIONS, &["--accept", "CP-003"]].concat()
}

/// One master and two workers: everything, while an application is asked all the time.
pub(crate) fn whole(lab: &Lab) -> Result<()> {
    old_cluster(lab, 1, 2)?;
    upgrade_whole(lab, &["m1"], &["w1", "w2"], &["--accept", "CP-003"])
}

/// Three masters and three workers.
pub(crate) fn three_masters(lab: &Lab) -> Result<()> {
    old_cluster(lab, 3, 3)?;
    upgrade_whole(lab, &["m1", "m2", "m3"], &["w1", "w2", "w3"], &[])
}

fn upgrade_whole(lab: &Lab, masters: &[&str], workers: &[&str], options: &[&str]) -> Result<()> {
    lab.deploy_web()?;
    let mut installation = Installation::ready(lab)?;
    let options = [LAB_OPTIONS, options].concat();
    // From 1.35 there is no way to 1.37 that leaves 1.36 out.
    installation.refused(&["plan", "lab", "--to", "1.37", "--dry-run"], "UPG0104")?;
    eprintln!("{}", installation.ok(&[&["plan", "lab", "--to", "1.36", "--dry-run"], options.as_slice()].concat())?);
    let url = format!("http://{}/", lab.service_address("web")?);
    lab.start_probe(workers[0], "whole", &url, 20)?;
    let certificates = patches::serials(lab, masters[0])?;
    let sampler = Sampler::start(lab, masters)?;
    let id = installation.begin(&options)?;
    let view = installation.watch(&id)?;
    installation.until_state(&id, "succeeded", Duration::from_secs(900))?;
    view.ended()?;
    let samples = sampler.stop()?;
    let probe = lab.stop_probe(workers[0], "whole")?;
    eprintln!("{}", installation.ok(&["upgrades", "show", &id, "--events"])?);
    eprintln!(
        "  {} requests to the Service, {} failed, longest gap {} ms; {samples:?}",
        probe.ok, probe.failed, probe.longest_gap_ms
    );
    eprintln!("  masters away for {:?} ms", interruptions(&installation.events(&id)?));
    components_are_upgraded(lab, masters)?;
    nothing_starts_after_read_back(lab, masters, &installation.events(&id)?)?;
    workers_are_upgraded(lab, &[masters, workers].concat())?;
    ensure!(marked(lab)?.is_empty(), "still marked: {:?}", marked(lab)?);
    let renewed = patches::serials(lab, masters[0])?;
    let kept = certificates.lines().find(|line| renewed.lines().any(|other| other == *line));
    ensure!(kept.is_none(), "not renewed: {kept:?}");
    backup::restores(&installation, "1.36")?;
    ensure!(probe.failed == 0, "requests failed: {:?}", probe.failures);
    if masters.len() > 1 {
        ensure!(samples.etcd_members_away_max <= 1, "etcd members away at once: {samples:?}");
        ensure!(samples.api_servers_away_max <= 1, "API servers away at once: {samples:?}");
        ensure!(samples.api_failed <= 10, "the API did not answer too often: {samples:?}");
        ensure!(samples.api_longest_gap <= Duration::from_secs(2), "the API was away too long: {samples:?}");
    }
    kubeadm_finds_nothing_left(lab, masters[0])
}

/// kubeadm is the judge: its own whole upgrade to the version that was reached says that nothing is left to do.
pub(crate) fn kubeadm_finds_nothing_left(lab: &Lab, master: &str) -> Result<()> {
    let judged = lab.exec(
        master,
        &["kubeadm", "upgrade", "apply", "v1.36.3", "--yes", "--ignore-preflight-errors=SystemVerification"],
    )?;
    let said = format!("{}{}", String::from_utf8_lossy(&judged.stdout), String::from_utf8_lossy(&judged.stderr));
    ensure!(judged.status.success(), "kubeadm's own upgrade fails afterwards: {said}");
    for (component, _) in COMPONENTS {
        ensure!(
            said.contains(&format!("Current and new manifests of {component} are equal")),
            "kubeadm finds something left to do for {component}: {said}"
        );
    }
    Ok(())
}
