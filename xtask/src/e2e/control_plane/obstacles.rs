//! Scenario `master-obstacles`: a webhook whose certificate has no subject alternative name, and edits by hand, are
//! found before anything is touched; what is let go is let go by name, and kubeadm's own method does the rest.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    components_are_upgraded, kubeadm_finds_nothing_left, nothing_starts_after_read_back, old_cluster, only_master,
};
use crate::e2e::installation::{CLUSTER, Installation};
use crate::e2e::pools::{marked, workers_are_upgraded};
use crate::lab::Lab;

const BOUND: Duration = Duration::from_secs(900);
const WEBHOOK_PORT: u16 = 9443;
const WEBHOOK: &str = "hook.example.com";

/// A TLS listener whose certificate has a common name only, until it is dropped.
pub(crate) struct Listener(Child);

impl Listener {
    pub(crate) fn start(lab: &Lab) -> Result<(Self, String)> {
        let file = |name: &str| lab.folder().join(name).display().to_string();
        let (certificate, key) = (file("hook.crt"), file("hook.key"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=hook.default.svc"])
            .args(["-keyout", &key, "-out", &certificate])
            .stderr(Stdio::null())
            .status()?;
        ensure!(made.success(), "openssl makes no certificate");
        let address = format!("{}:{WEBHOOK_PORT}", lab.bridge_address());
        let child = Command::new("openssl")
            .args(["s_server", "-accept", &address, "-cert", &certificate, "-key", &key, "-www", "-quiet"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("openssl s_server cannot be started")?;
        Ok((Self(child), std::fs::read_to_string(certificate)?))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Applies a manifest.
pub(crate) fn apply(lab: &Lab, manifest: &Value) -> Result<()> {
    let path = lab.folder().join("apply.json");
    std::fs::write(&path, manifest.to_string())?;
    lab.kubectl(&["apply", "-f", &path.to_string_lossy()]).map(drop)
}

/// Registers the listener as a webhook for new pods.
pub(crate) fn register_webhook(lab: &Lab, authority: &str) -> Result<()> {
    use serde_json::json;
    let authority = lab.exec_text("m1", &["sh", "-c", "printf %s \"$1\" | base64 -w0", "sh", authority])?;
    let items = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "hook", "namespace": "default" },
          "spec": { "ports": [{ "name": "https", "port": 443, "targetPort": WEBHOOK_PORT }] } },
        { "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
          "metadata": { "name": "hook-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "hook" } },
          "addressType": "IPv4", "ports": [{ "name": "https", "port": WEBHOOK_PORT }],
          "endpoints": [{ "addresses": [lab.bridge_address()] }] },
        { "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
          "metadata": { "name": "hook" },
          "webhooks": [{
              "name": WEBHOOK, "sideEffects": "None", "admissionReviewVersions": ["v1"], "failurePolicy": "Fail",
              "clientConfig": { "caBundle": authority.trim(),
                                "service": { "name": "hook", "namespace": "default", "path": "/" } },
              "rules": [{ "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"] }],
          }] },
    ] });
    apply(lab, &items)
}

/// What the agents tell, by a pointer into the facts of a machine.
fn until_told(installation: &mut Installation<'_>, node: &str, what: &str, holds: fn(&Value) -> bool) -> Result<()> {
    installation.until(&format!("the agent of {node} tells {what}"), BOUND, |installation| {
        let agents = installation.json(&["agent", "list", CLUSTER])?;
        let agent = agents["agents"].as_array().into_iter().flatten().find(|agent| agent["node"] == node);
        Ok(agent.is_some_and(|agent| holds(&agent["machine"])))
    })
}

/// An upgrade is blocked by checks, and what it prints names all of it.
fn is_blocked(installation: &mut Installation<'_>, options: &[&str], words: &[&str]) -> Result<()> {
    let output = installation
        .shiplock(&[&["upgrade", CLUSTER, "--to", "1.36", "--yes", "--progress", "none"], options].concat())?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{text}");
    ensure!(output.status.code() == Some(3), "not blocked: {text}");
    for word in words {
        ensure!(text.contains(word), "{word} is not named: {text}");
    }
    let active = installation.json(&["upgrades", "list", "--active"])?;
    let id = active["upgrades"][0]["id"].as_str().context("the blocked upgrade is listed")?.to_owned();
    installation.ok(&["cancel", &id, "--yes"])?;
    installation.until_state(&id, "cancelled", BOUND).map(drop)
}

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    old_cluster(lab, 1, 1)?;
    let (listener, authority) = Listener::start(lab)?;
    register_webhook(lab, &authority)?;
    let mut installation = Installation::ready(lab)?;
    until_told(&mut installation, "m1", "of the webhook", |machine| {
        !machine["control_plane"]["refusing_webhook"].is_null()
    })?;
    is_blocked(&mut installation, &only_master(), &["WHK-016", WEBHOOK, "SANs"])?;
    lab.kubectl(&["delete", "validatingwebhookconfiguration", "hook"])?;
    drop(listener);

    let edit = r#"sed -i 's/^    - kube-scheduler$/    - kube-scheduler\n    - --v=1/' /etc/kubernetes/manifests/kube-scheduler.yaml"#;
    lab.exec_text("m1", &["sh", "-c", edit])?;
    lab.exec_text("w1", &["sh", "-c", "echo 'maxPods: 99' >> /var/lib/kubelet/config.yaml"])?;
    let patch = r#"{"spec":{"template":{"spec":{"priorityClassName":"system-node-critical"}}}}"#;
    lab.kubectl(&["--namespace=kube-system", "patch", "deployment", "coredns", "--patch", patch])?;
    until_told(&mut installation, "m1", "that the webhook is gone", |machine| {
        machine["control_plane"]["refusing_webhook"].is_null()
            && machine["control_plane"]["hand_edits"].to_string().contains("--v=1")
    })?;
    until_told(&mut installation, "w1", "of the edited configuration", |machine| {
        machine["kubelet_edits"].to_string().contains("maxPods")
    })?;
    let words =
        ["CP-008", "+    - --v=1", "NODE-007", "+maxPods: 99", "ADD-008", "spec.template.spec.priorityClassName"];
    is_blocked(&mut installation, &only_master(), &words)?;

    let accepted =
        ["--accept", "CP-008", "--accept", "NODE-007", "--accept", "ADD-008", "--control-plane-method", "kubeadm"];
    let id = installation.begin(&[only_master().as_slice(), &accepted].concat())?;
    installation.until_state(&id, "succeeded", BOUND)?;
    components_are_upgraded(lab, &["m1"])?;
    workers_are_upgraded(lab, &["m1", "w1"])?;
    ensure!(marked(lab)?.is_empty(), "marked: {:?}", marked(lab)?);
    let manifest = lab.exec_text("m1", &["cat", "/etc/kubernetes/manifests/kube-scheduler.yaml"])?;
    ensure!(!manifest.contains("--v=1"), "what was let go is still there: {manifest}");
    // The new kubelet of kubeadm's own way starts all static pods anew, after the node is Ready.
    nothing_starts_after_read_back(lab, &["m1"], &installation.events(&id)?)?;
    kubeadm_finds_nothing_left(lab, "m1")
}
