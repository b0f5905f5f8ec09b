//! Whether the API takes the static pods of this master, asked before anything is touched.
//!
//! A webhook that fails for pods keeps mirror pods out: the components would run, and the cluster would not know. The
//! question is a dry run, as the kubelet's own identity, of the very pod that runs already; it changes nothing.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::problem::{Code, Problem};

use super::ground::Ground;
use crate::control_plane::kubeconfig::{self, Kubeconfig};
use crate::control_plane::manifest;
use crate::endpoint::{Answer, Question};
use crate::host::Host;
use crate::steps::Failure;

/// API servers wait up to 30 s for a webhook.
const ANSWER_LIMIT: Duration = Duration::from_secs(35);
/// A mirror pod has them: `pkg/kubelet/types/constants.go` of Kubernetes.
const MIRROR_ANNOTATIONS: [&str; 2] = ["kubernetes.io/config.mirror", "kubernetes.io/config.hash"];

impl<H: Host> Ground<'_, H> {
    /// Refuses where a webhook would. An API that does not answer, or that refuses for another reason, refuses nothing
    /// here: other gates look after that.
    pub(super) async fn check_admission(&self) -> Result<(), Failure> {
        let host = &*self.step.host;
        let component = ControlPlaneComponent::KubeScheduler;
        let Ok(own) = kubeconfig::read(host, kubeconfig::KUBELET) else { return Ok(()) };
        let Ok(text) = fs::read_to_string(host.at(&manifest::path(component))) else { return Ok(()) };
        let Ok(mut pod) = serde_saphyr::from_str::<Value>(&text) else { return Ok(()) };
        let node = self.step.assignment.node.as_str();
        let Some(uid) = self.node_uid(&own, node).await else { return Ok(()) };
        pod["metadata"]["name"] = format!("{}-{node}", component.name()).into();
        pod["metadata"]["namespace"] = "kube-system".into();
        for annotation in MIRROR_ANNOTATIONS {
            pod["metadata"]["annotations"][annotation] = "shiplock".into();
        }
        // The kubelet's identity may make mirror pods only, and only those of its own node.
        pod["metadata"]["ownerReferences"] =
            json!([{ "apiVersion": "v1", "kind": "Node", "name": node, "uid": uid, "controller": true }]);
        pod["spec"]["nodeName"] = node.into();
        let url = format!("{}/api/v1/namespaces/kube-system/pods?dryRun=All", own.server);
        let question = Question { url: &url, trust: &own.trust, body: Some(&pod), limit: ANSWER_LIMIT };
        let Ok(answer) = host.ask(&question).await else { return Ok(()) };
        match refusal(&answer) {
            Some((webhook, why)) => Err(Failure::retryable(
                Problem::new(Code::WebhookRefuses).with("webhook", webhook).with("node", node).with("why", why),
            )),
            None => Ok(()),
        }
    }

    async fn node_uid(&self, own: &Kubeconfig, node: &str) -> Option<String> {
        let url = format!("{}/api/v1/nodes/{node}", own.server);
        let question = Question { url: &url, trust: &own.trust, body: None, limit: ANSWER_LIMIT };
        let answer = self.step.host.ask(&question).await.ok().filter(|answer| answer.status == 200)?;
        let found: Value = serde_json::from_str(&answer.body).ok()?;
        found.pointer("/metadata/uid").and_then(Value::as_str).map(str::to_owned)
    }
}

/// The webhook that refused and why, by the texts of
/// <https://github.com/kubernetes/kubernetes/blob/v1.36.3/staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/errors/statuserror.go>
/// and of `ErrCallingWebhook` beside it.
fn refusal(answer: &Answer) -> Option<(String, String)> {
    if answer.status < 400 {
        return None;
    }
    let status: Value = serde_json::from_str(&answer.body).ok()?;
    let message = status.get("message")?.as_str()?;
    for before in ["failed calling webhook \"", "admission webhook \""] {
        if let Some((_, rest)) = message.split_once(before)
            && let Some((webhook, why)) = rest.split_once('"')
        {
            // One that cannot be asked without consequences says nothing of how it would answer.
            if why.contains("does not support dry run") {
                return None;
            }
            return Some((webhook.to_owned(), why.trim_start_matches([':', ' ']).to_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_that_fails_or_denies_is_named_and_nothing_else_is() {
        let answer = |status: u16, message: &str| Answer { status, body: json!({ "message": message }).to_string() };
        let failing = "Internal error occurred: failed calling webhook \"h.example.com\": failed to call webhook: Post \
                       \"https://h.default.svc:443/\": tls: failed to verify certificate: x509: certificate relies on \
                       legacy Common Name field, use SANs instead";
        let (webhook, why) = refusal(&answer(500, failing)).unwrap();
        assert_eq!(webhook, "h.example.com");
        assert!(why.starts_with("failed to call webhook") && why.contains("use SANs instead"), "{why}");
        let denied = refusal(&answer(403, "admission webhook \"p.example.com\" denied the request: no")).unwrap();
        assert_eq!(denied, ("p.example.com".to_owned(), "denied the request: no".to_owned()));
        let dry = "admission webhook \"h\" does not support dry run";
        for (status, message) in [(201, failing), (409, "pods \"x\" already exists"), (400, dry), (403, "forbidden")] {
            assert_eq!(refusal(&answer(status, message)), None, "{message}");
        }
    }
}
