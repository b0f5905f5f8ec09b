//! Webhooks and aggregated APIs, as far as objects tell; their certificates are dialled elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::traffic::ready_nodes;
use super::{Look, of};
use crate::api::live::stored;
use crate::object::{Labels, ServiceReference, Webhook, WebhookClient};
use crate::report::{Finding, Outcome, Subject};

/// A webhook that may take longer than this holds up every request that it is asked about.
const TIMEOUT_SECONDS_MAX: i64 = 10;
/// An authority that ends within so many seconds may end within the upgrade.
const EXPIRY_SECONDS_MIN: i64 = 30 * 24 * 3600;
/// Where the control plane is.
const SYSTEM: &str = "kube-system";
/// A signing request may wait for so long.
const PENDING_SECONDS_MAX: i64 = 600;

type Endpoints<'a> = BTreeMap<(&'a str, &'a str), Vec<&'a str>>;

pub(super) fn judge(look: &mut Look<'_>) {
    let objects = look.objects;
    let endpoints = look.need(&objects.slices, &["WHK-006", "WHK-008", "WHK-013"]).map(|slices| ready_nodes(slices));
    // Which webhooks are asked about kube-system and nodes depends on their labels.
    look.need(&objects.namespaces, &["WHK-007"]);
    look.need(&objects.pods, &["WHK-007"]);
    look.need(&objects.nodes, &["WHK-007"]);
    let checks = ["WHK-001", "WHK-002", "WHK-003", "WHK-004", "WHK-006", "WHK-007", "WHK-008", "WHK-009", "WHK-010"];
    let kinds =
        [("ValidatingWebhookConfiguration", &objects.validating), ("MutatingWebhookConfiguration", &objects.mutating)];
    for (kind, list) in kinds {
        for configuration in look.need(list, &checks).into_iter().flatten() {
            for webhook in &configuration.webhooks {
                let subject = Subject::new(kind, "", &configuration.metadata.name);
                judge_webhook(look, &subject, webhook, endpoints.as_ref());
            }
        }
    }
    for definition in look.need(&objects.definitions, &["WHK-013"]).into_iter().flatten() {
        let service = definition.converter().and_then(|client| client.service.as_ref());
        if let (Some(service), Some(endpoints)) = (service, &endpoints)
            && count(endpoints, service) == 0
        {
            // What is not stored is not converted.
            let stored = stored(look.snapshot, &definition.spec.group, &definition.spec.names.plural);
            let outcome = if stored == Some(0) { Outcome::Warn } else { Outcome::Fail };
            let subject = of("CustomResourceDefinition", &definition.metadata);
            look.say(with_service(Finding::new("WHK-013", "none", outcome, subject), service));
        }
    }
    for service in look.need(&objects.api_services, &["WHK-011", "WHK-012"]).into_iter().flatten() {
        let available = service.status.conditions.iter().find(|condition| condition.r#type == "Available");
        if let Some(condition) = available.filter(|condition| condition.status != "True") {
            let message: String = condition.message.chars().take(200).collect();
            look.say(
                Finding::new("WHK-011", "unavailable", Outcome::Fail, of("APIService", &service.metadata))
                    .with("message", message),
            );
        }
    }
    for request in look.need(&objects.signing_requests, &["WHK-015"]).into_iter().flatten() {
        let is_kubelet = request.spec.signer_name.starts_with("kubernetes.io/kubelet")
            || request.spec.signer_name == "kubernetes.io/kube-apiserver-client-kubelet";
        let waits = request.status.conditions.is_empty();
        if is_kubelet && waits && look.age_seconds(request.metadata.creation_timestamp) > PENDING_SECONDS_MAX {
            let finding =
                Finding::new("WHK-015", "pending", Outcome::Warn, of("CertificateSigningRequest", &request.metadata));
            look.say(finding.with("user", &request.spec.username));
        }
    }
}

fn count(endpoints: &Endpoints<'_>, service: &ServiceReference) -> usize {
    endpoints.get(&(service.namespace.as_str(), service.name.as_str())).map_or(0, Vec::len)
}

fn with_service(finding: Finding, service: &ServiceReference) -> Finding {
    finding.with("service", format!("{}/{}", service.namespace, service.name))
}

fn judge_webhook(look: &mut Look<'_>, subject: &Subject, webhook: &Webhook, endpoints: Option<&Endpoints<'_>>) {
    let new = |check, sentence, outcome| {
        Finding::new(check, sentence, outcome, subject.clone()).with("webhook", &webhook.name)
    };
    let is_strict = webhook.failure_policy != "Ignore";
    // A call that fails is passed over where the webhook may fail.
    let outcome = if is_strict { Outcome::Fail } else { Outcome::Warn };
    // Without rules it is never called.
    let service = webhook.client_config.service.as_ref().filter(|_| !webhook.rules.is_empty());
    if let (Some(service), Some(endpoints)) = (service, endpoints) {
        let nodes: BTreeSet<&str> = endpoints
            .get(&(service.namespace.as_str(), service.name.as_str()))
            .into_iter()
            .flatten()
            .copied()
            .collect();
        match count(endpoints, service) {
            0 => {
                let sentence = if is_strict { "none" } else { "none-ignored" };
                look.say(with_service(new("WHK-006", sentence, outcome), service));
            }
            1 if is_strict => look.say(with_service(new("WHK-008", "single", Outcome::Warn), service)),
            _ if nodes.len() == 1 && is_strict => {
                look.say(with_service(new("WHK-008", "one-node", Outcome::Warn), service));
            }
            _ => {}
        }
    }
    if let Some(service) = service.filter(|_| is_strict)
        && let Some((sentence, outcome)) = interception(look, webhook)
    {
        look.say(with_service(new("WHK-007", sentence, outcome), service));
    }
    let timeout = webhook.timeout_seconds.unwrap_or(10);
    if timeout > TIMEOUT_SECONDS_MAX {
        look.say(new("WHK-009", "slow", Outcome::Warn).with("seconds", timeout));
    }
    if !webhook.admission_review_versions.iter().any(|version| version == "v1") {
        look.say(new("WHK-010", "no-v1", Outcome::Warn));
    }
    if !webhook.rules.is_empty() {
        authority(look, &webhook.client_config, &new("WHK-003", "bundle", outcome));
    }
}

/// What a webhook is asked about of all that an upgrade itself needs, and how bad that is: without pods and leases of
/// kube-system the control plane does not come back, without nodes and evictions nothing is drained.
fn interception(look: &Look<'_>, webhook: &Webhook) -> Option<(&'static str, Outcome)> {
    let objects = look.objects;
    let is_asked_for = |group: &str, resource: &str, operations: &[&str]| {
        let scope = if resource == "nodes" { "Cluster" } else { "Namespaced" };
        let any = |values: &[String], wanted: &[&str]| {
            values.iter().any(|value| value == "*" || wanted.contains(&value.as_str()))
        };
        webhook.rules.iter().any(|rule| {
            any(&rule.api_groups, &[group])
                && rule.resources.iter().any(|pattern| covers(pattern, resource))
                && (rule.operations.is_empty() || any(&rule.operations, operations))
                && ["", "*", scope].contains(&rule.scope.as_str())
        })
    };
    let known = objects.namespaces.seen().into_iter().flatten().find(|space| space.metadata.name == SYSTEM);
    let named = [("kubernetes.io/metadata.name".to_owned(), SYSTEM.to_owned())].into();
    let asks_system = webhook.namespace_selector.fits(known.map_or(&named, |space| &space.metadata.labels))
        && !webhook.match_conditions.iter().any(|condition| leaves_system_out(&condition.expression));
    // Leases and evictions have no labels.
    let selector = &webhook.object_selector;
    let takes_bare = selector.fits(&Labels::new());
    let takes_pods = selector.is_empty() || {
        let mut pods = objects.pods.seen().into_iter().flatten().filter(|pod| pod.metadata.namespace == SYSTEM);
        pods.any(|pod| selector.fits(&pod.metadata.labels))
    };
    let takes_nodes = selector.is_empty() || {
        let mut nodes = objects.nodes.seen().into_iter().flatten();
        nodes.any(|node| selector.fits(&node.metadata.labels))
    };
    let asks_for_pods = takes_pods && is_asked_for("", "pods", &["CREATE", "UPDATE", "DELETE"]);
    let asks_for_leases = takes_bare && is_asked_for("coordination.k8s.io", "leases", &["CREATE", "UPDATE"]);
    let asks_for_nodes = takes_nodes && is_asked_for("", "nodes", &["UPDATE"]);
    let asks_for_evictions = takes_bare && is_asked_for("", "pods/eviction", &["CREATE"]);
    if asks_system && (asks_for_pods || asks_for_leases) {
        // What else conditions leave out cannot be told from here.
        let is_certain = webhook.match_conditions.iter().all(|condition| condition.expression.trim() == "true");
        Some(if is_certain { ("system", Outcome::Fail) } else { ("system-perhaps", Outcome::Warn) })
    } else if asks_for_nodes || (asks_system && asks_for_evictions) {
        // Nodes have no namespace: a selector of namespaces never leaves them out.
        Some(("drain", Outcome::Warn))
    } else {
        None
    }
}

/// Whether a rule's `resource` or `resource/subresource` covers another one, as an API server compares them: `*` is no
/// subresource, and `pods/*` is pods too.
fn covers(pattern: &str, resource: &str) -> bool {
    let (name, sub) = pattern.split_once('/').unwrap_or((pattern, ""));
    let (wanted, wanted_sub) = resource.split_once('/').unwrap_or((resource, ""));
    (name == "*" || name == wanted) && (sub == "*" || sub == wanted_sub)
}

/// Whether a condition says in plain words that requests about kube-system are not for this webhook.
fn leaves_system_out(expression: &str) -> bool {
    let plain: String = expression.chars().filter(|letter| !letter.is_whitespace()).collect();
    plain.replace('\'', "\"") == "request.namespace!=\"kube-system\""
}

/// The authorities that a certificate is verified with must be there and last.
fn authority(look: &mut Look<'_>, client: &WebhookClient, finding: &Finding) {
    if client.ca_bundle.is_empty() {
        return;
    }
    let broken = |why: &str| finding.clone().with("why", why);
    let Ok(pem) = STANDARD.decode(&client.ca_bundle) else { return look.say(broken("caBundle is not base64")) };
    let mut ends = Vec::new();
    for block in x509_parser::pem::Pem::iter_from_buffer(&pem) {
        let Ok(block) = block else { return look.say(broken("caBundle is no PEM")) };
        let Ok(certificate) = block.parse_x509() else { return look.say(broken("caBundle holds no certificate")) };
        ends.push(certificate.validity().not_after.timestamp());
    }
    let now = look.snapshot.taken_at.as_second();
    match ends.iter().max() {
        None => look.say(broken("caBundle holds no certificate")),
        Some(end) if *end < now => look.say(broken("every certificate in caBundle has expired")),
        Some(end) if *end < now + EXPIRY_SECONDS_MIN => {
            let days = (end - now) / 86400;
            let days = if days == 1 { "1 day".to_owned() } else { format!("{days} days") };
            let finding = Finding {
                outcome: Outcome::Warn,
                ..broken(&format!("the last certificate in caBundle ends in {days}"))
            };
            look.say(finding);
        }
        Some(_) => {}
    }
}
