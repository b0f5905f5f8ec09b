//! The rival of the benchmarks: the steps of Kubernetes' own documentation as a plain shell script, one node after the
//! other, without a check, a gate or a read-back but that the node is Ready at the new version.
//! <https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-upgrade/>

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::BOUND;
use crate::lab::Lab;

/// What a lab's cgroup v1 must be told.
const IGNORED: &str = "--ignore-preflight-errors=SystemVerification";

/// The workers of a cluster whose control plane is at the target.
pub(super) fn upgrade_workers(lab: &Lab, workers: &[&str]) -> Result<Duration> {
    let begun = Instant::now();
    for node in workers {
        fetch(lab, node, &[])?;
        run_kubeadm(lab, node, "upgrade node")?;
        replace(lab, node)?;
    }
    Ok(begun.elapsed())
}

/// Everything: masters, add-ons, workers.
pub(super) fn upgrade_whole(lab: &Lab, masters: &[&str], workers: &[&str]) -> Result<Duration> {
    let begun = Instant::now();
    let on_all = ["kube-proxy-v1.36.3", "coredns-v1.14.2", "pause-3.10.2"];
    let on_masters =
        ["etcd-3.6.8-0", "kube-apiserver-v1.36.3", "kube-controller-manager-v1.36.3", "kube-scheduler-v1.36.3"];
    // The first upgrade of kubeadm rolls the add-ons out everywhere, and there is no registry to pull from.
    for node in workers {
        fetch(lab, node, &on_all)?;
    }
    for node in masters {
        fetch(lab, node, &[on_all.as_slice(), on_masters.as_slice()].concat())?;
    }
    for (index, node) in masters.iter().enumerate() {
        run_kubeadm(lab, node, if index == 0 { "upgrade apply v1.36.3 --yes" } else { "upgrade node" })?;
        replace(lab, node)?;
    }
    for node in workers {
        run_kubeadm(lab, node, "upgrade node")?;
        replace(lab, node)?;
    }
    Ok(begun.elapsed())
}

fn fetch(lab: &Lab, node: &str, images: &[&str]) -> Result<()> {
    let mirror = lab.mirror_url();
    let script = format!(
        "set -e; mkdir -p /tmp/new; cd /tmp/new
         for f in kubeadm kubelet kubectl; do curl -sfo $f {mirror}/release/v1.36.3/bin/linux/amd64/$f; done
         for f in containerd containerd-shim-runc-v2 ctr; do curl -sfo $f {mirror}/containerd/v2.2.9/linux/amd64/$f; done
         for f in {}; do curl -sfo image.tar {mirror}/images/$f-amd64.tar; ctr -n k8s.io images import image.tar >/dev/null; done
         rm -f image.tar; chmod 755 *; mv kubeadm /usr/bin/kubeadm",
        images.join(" ")
    );
    lab.exec_text(node, &["sh", "-c", &script]).map(drop)
}

fn run_kubeadm(lab: &Lab, node: &str, words: &str) -> Result<()> {
    lab.exec_text(node, &["sh", "-c", &format!("kubeadm {words} {IGNORED}")]).map(drop)
}

/// Drain, containerd with its configuration, kubelet, until the node is Ready at the new versions.
fn replace(lab: &Lab, node: &str) -> Result<()> {
    let deadline = Instant::now() + BOUND;
    // The new kubelet of the only master restarts its API server when the node is Ready again already: a drain breaks off.
    persistently(lab, &["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=300s"], deadline)?;
    let replace = "set -e; cd /tmp/new
         ./containerd config migrate > /tmp/config.toml; mv /tmp/config.toml /etc/containerd/config.toml
         for f in containerd containerd-shim-runc-v2 ctr; do mv $f /usr/bin/$f; done; systemctl restart containerd
         systemctl stop kubelet; mv kubelet kubectl /usr/bin/; systemctl start kubelet";
    lab.exec_text(node, &["sh", "-c", replace])?;
    loop {
        let path = "jsonpath={.status.nodeInfo.kubeletVersion} {.status.nodeInfo.containerRuntimeVersion} {.status.conditions[?(@.type==\"Ready\")].status}";
        let state = lab.kubectl(&["get", "node", node, "-o", path]).unwrap_or_default();
        if state == "v1.36.3 containerd://2.2.9 True" {
            break;
        }
        ensure!(Instant::now() < deadline, "{node} stays at {state}");
        std::thread::sleep(Duration::from_millis(200));
    }
    persistently(lab, &["uncordon", node], deadline)
}

/// Repeats a command as a person would, until it succeeds.
fn persistently(lab: &Lab, words: &[&str], deadline: Instant) -> Result<()> {
    while let Err(error) = lab.kubectl(words) {
        ensure!(Instant::now() < deadline, "{} fails: {error:#}", words.join(" "));
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
