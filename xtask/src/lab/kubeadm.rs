//! Making a cluster of booted nodes with kubeadm.
//!
//! Token and certificate key are fixed, so that a node can join without anything from the first
//! master's output: a lab is reachable from its own bridge only. Preflight's `SystemVerification`
//! is ignored because cgroup v1 is an error there from 1.35 on.

use std::fs;
use std::time::Duration;

use anyhow::{Result, bail};

use super::network::{API_PORT, Network, POD_NET};
use super::node::Node;
use super::process::{last_lines, output, say, succeeds, wait_until};

const TOKEN: &str = "abcdef.0123456789abcdef";
const CERTIFICATE_KEY: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const IGNORED: &str = "SystemVerification,FileContent--proc-sys-net-bridge-bridge-nf-call-iptables";
const ATTEMPTS: u32 = 4;

fn registration(node: &str) -> String {
    format!(
        "nodeRegistration:\n  name: {node}\n  criSocket: unix:///run/containerd/containerd.sock\n  \
         imagePullPolicy: IfNotPresent\n  ignorePreflightErrors: [{IGNORED}]\n"
    )
}

/// The configuration of the first master: cluster, kubelet and kube-proxy.
fn init_configuration(network: Network, node: &str, kubernetes: &str) -> Result<String> {
    let (gateway, address) = (network.gateway(), network.address(node)?);
    Ok(format!(
        r#"apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
bootstrapTokens:
  - token: {TOKEN}
    ttl: 0s
    usages: [signing, authentication]
    groups: ["system:bootstrappers:kubeadm:default-node-token"]
certificateKey: "{CERTIFICATE_KEY}"
localAPIEndpoint:
  advertiseAddress: {address}
  bindPort: {API_PORT}
{registration}---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: v{kubernetes}
controlPlaneEndpoint: {gateway}:{API_PORT}
networking:
  podSubnet: {POD_NET}
  serviceSubnet: 10.96.0.0/16
controllerManager:
  extraArgs:
    # Pod networks are fixed by node, see the CNI configuration.
    - name: allocate-node-cidrs
      value: "false"
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: cgroupfs
failCgroupV1: false
oomScoreAdj: 0
evictionHard:
  memory.available: 100Mi
  nodefs.available: 2%
  imagefs.available: 2%
imageGCHighThresholdPercent: 98
imageGCLowThresholdPercent: 97
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
oomScoreAdj: 0
conntrack:
  maxPerCore: 0
  min: 0
  tcpEstablishedTimeout: 0s
  tcpCloseWaitTimeout: 0s
"#,
        registration = registration(node)
    ))
}

fn join_configuration(network: Network, node: &str, ca_digest: &str) -> Result<String> {
    let (gateway, address) = (network.gateway(), network.address(node)?);
    let mut text = format!(
        "apiVersion: kubeadm.k8s.io/v1beta4\nkind: JoinConfiguration\ndiscovery:\n  bootstrapToken:\n    \
         token: {TOKEN}\n    apiServerEndpoint: \"{gateway}:{API_PORT}\"\n    caCertHashes: [\"sha256:{ca_digest}\"]\n{}",
        registration(node)
    );
    if node.starts_with('m') {
        text.push_str(&format!(
            "controlPlane:\n  certificateKey: \"{CERTIFICATE_KEY}\"\n  localAPIEndpoint:\n    \
             advertiseAddress: {address}\n    bindPort: {API_PORT}\n"
        ));
    }
    Ok(text)
}

fn put(node: &Node, text: &str, place: &str) -> Result<()> {
    let file = node.log("configuration");
    fs::write(&file, text)?;
    node.copy_into(&file, place, 0o600)
}

/// Runs kubeadm with a configuration, again where it fails; what a failed one left is reset first.
///
/// Under load a first try may fail for reasons of the moment: containerd is active before its CRI
/// answers, an API call takes too long.
fn kubeadm(node: &Node, what: &str, configuration: &str, more: &[&str]) -> Result<()> {
    let place = format!("/etc/kubernetes/lab-{what}.yaml");
    let mut attempt = 1;
    loop {
        wait_for_cri(node)?;
        put(node, configuration, &place)?;
        let words = ["timeout", "300", "kubeadm", what, "--config", &place];
        let output = output(node.command(&words)?.args(more))?;
        fs::write(node.log(&format!("{what}-{attempt}")), [&output.stdout[..], &output.stderr].concat())?;
        if output.status.success() {
            return Ok(());
        }
        let said = last_lines(&output);
        if attempt == ATTEMPTS || said.contains("already exists in the cluster") {
            bail!("kubeadm {what} of {} failed {attempt} times ({}):\n{said}", node.name(), output.status);
        }
        let reason = said.lines().find(|line| line.contains("ERROR") || line.contains("error")).unwrap_or(&said);
        say(format!("{}: kubeadm {what} failed, once more after a reset: {}", node.name(), reason.trim()));
        let _ = succeeds(&mut node.command(&["timeout", "60", "kubeadm", "reset", "-f"])?);
        attempt += 1;
    }
}

/// containerd is active before it has loaded its CRI.
fn wait_for_cri(node: &Node) -> Result<()> {
    wait_until(&format!("the CRI of {} is loaded", node.name()), Duration::from_secs(60), || {
        let loaded = r#"ctr plugins list | awk '$2 == "cri" && $NF == "ok" { ok = 1 } END { exit !ok }'"#;
        Ok(succeeds(&mut node.command(&["sh", "-c", loaded])?))
    })
}

/// `kubeadm init` on the first master.
pub(crate) fn init(network: Network, node: &Node, kubernetes: &str, more_masters: bool) -> Result<()> {
    let more: &[&str] = if more_masters { &["--upload-certs"] } else { &[] };
    kubeadm(node, "init", &init_configuration(network, node.name(), kubernetes)?, more)
}

/// `kubeadm join`.
pub(crate) fn join(network: Network, node: &Node, ca_digest: &str) -> Result<()> {
    kubeadm(node, "join", &join_configuration(network, node.name(), ca_digest)?, &[])
}

/// Digest of the cluster's CA key, by which a joining node knows the cluster.
pub(crate) fn ca_digest(first_master: &Node) -> Result<String> {
    let script = "openssl x509 -in /etc/kubernetes/pki/ca.crt -pubkey -noout | \
                  openssl pkey -pubin -outform der | sha256sum | cut -d' ' -f1";
    let text = first_master.run(&["sh", "-c", script])?;
    match text.trim() {
        digest if digest.len() == 64 => Ok(digest.to_owned()),
        other => bail!("no digest of the cluster's CA: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_joins_with_the_certificate_key_and_a_worker_without() {
        let network = Network::of(2);
        assert!(join_configuration(network, "m2", "ab").unwrap().contains("certificateKey"));
        let worker = join_configuration(network, "w1", "ab").unwrap();
        assert!(!worker.contains("certificateKey") && worker.contains("10.102.0.1:6443"));
    }

    #[test]
    fn the_kubelet_keeps_its_own_frequencies() {
        let text = init_configuration(Network::of(0), "m1", "1.36.3").unwrap();
        assert!(!text.contains("syncFrequency") && !text.contains("fileCheckFrequency"));
        assert!(text.contains("kubernetesVersion: v1.36.3"));
    }
}
