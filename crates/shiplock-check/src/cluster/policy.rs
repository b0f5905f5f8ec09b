//! What network policies keep from webhooks, and how many addresses Services have left.

use serde_json::Value;

use super::{Look, of};
use crate::object::{NetworkPolicy, Pod, PolicyPort, Service, ServiceReference};
use crate::report::{Finding, Outcome, Subject};

/// A range of Services should have more free than this share.
const FREE_PERCENT_MIN: u128 = 5;

pub(super) fn judge(look: &mut Look<'_>) {
    webhooks(look);
    addresses(look);
}

/// Webhooks whose pods a NetworkPolicy closes to the API server, which comes from a node's address and no pod's.
fn webhooks(look: &mut Look<'_>) {
    let objects = look.objects;
    let check = ["NET-008"];
    let Some(policies) = look.need(&objects.network_policies, &check) else { return };
    if policies.is_empty() {
        return;
    }
    let lists = (look.need(&objects.services, &check), look.need(&objects.pods, &check));
    let (Some(services), Some(pods)) = lists else { return };
    let kinds =
        [("ValidatingWebhookConfiguration", &objects.validating), ("MutatingWebhookConfiguration", &objects.mutating)];
    for (kind, list) in kinds {
        for configuration in look.need(list, &check).into_iter().flatten() {
            for webhook in &configuration.webhooks {
                let Some(reference) = &webhook.client_config.service else { continue };
                let is_named = |service: &&Service| {
                    service.metadata.namespace == reference.namespace && service.metadata.name == reference.name
                };
                let Some(service) = services.iter().find(is_named) else { continue };
                let closed = pods.iter().filter(|pod| is_behind(pod, service) && !pod.has_ended());
                let by =
                    closed.filter_map(|pod| closing(pod, policies, target_port(service, reference).as_ref())).next();
                if let Some(policy) = by {
                    let subject = Subject::new(kind, "", &configuration.metadata.name);
                    let finding =
                        Finding::new("NET-008", "closed", Outcome::Warn, subject).with("webhook", &webhook.name);
                    let named = format!("{}/{}", policy.metadata.namespace, policy.metadata.name);
                    look.say(finding.with("policy", named));
                }
            }
        }
    }
}

fn is_behind(pod: &Pod, service: &Service) -> bool {
    let selector = &service.spec.selector;
    pod.metadata.namespace == service.metadata.namespace
        && !selector.is_empty()
        && selector.iter().all(|(key, value)| pod.metadata.labels.get(key) == Some(value))
}

/// The port of the pods that a webhook is called on.
fn target_port(service: &Service, reference: &ServiceReference) -> Option<Value> {
    let wanted = reference.port.unwrap_or(443);
    let port = service.spec.ports.iter().find(|port| port.port == wanted)?;
    port.target_port.clone().or(Some(Value::from(port.port)))
}

/// A policy that selects a pod for what comes in, where none of those that do lets a node in.
fn closing<'a>(pod: &Pod, policies: &'a [NetworkPolicy], port: Option<&Value>) -> Option<&'a NetworkPolicy> {
    let selects = |policy: &&NetworkPolicy| {
        let types = &policy.spec.policy_types;
        policy.metadata.namespace == pod.metadata.namespace
            && policy.spec.pod_selector.fits(&pod.metadata.labels)
            && (types.is_empty() || types.iter().any(|kind| kind == "Ingress"))
    };
    let mut selecting = policies.iter().filter(selects).peekable();
    let first = selecting.peek().copied()?;
    let opens = |policy: &NetworkPolicy| {
        policy.spec.ingress.iter().any(|rule| {
            let from = rule.from.is_empty() || rule.from.iter().any(|peer| peer.ip_block.is_some());
            from && (rule.ports.is_empty() || rule.ports.iter().any(|allowed| admits(allowed, port)))
        })
    };
    (!selecting.any(opens)).then_some(first)
}

fn admits(allowed: &PolicyPort, port: Option<&Value>) -> bool {
    let (Some(first), Some(port)) = (&allowed.port, port) else { return true };
    match (first.as_i64(), allowed.end_port, port.as_i64()) {
        (Some(first), Some(last), Some(port)) => (first..=last).contains(&port),
        // A name on one side and a number on the other cannot be compared from here.
        (None, _, Some(_)) | (Some(_), _, None) => true,
        _ => first == port,
    }
}

/// Ranges of Services that are nearly used up.
fn addresses(look: &mut Look<'_>) {
    let objects = look.objects;
    let Some(services) = look.need(&objects.services, &["NET-009"]) else { return };
    let mut ranges: Vec<(Subject, String)> = Vec::new();
    for range in look.need(&objects.service_ranges, &["NET-009"]).into_iter().flatten() {
        ranges.extend(range.spec.cidrs.iter().map(|cidr| (of("ServiceCIDR", &range.metadata), cidr.clone())));
    }
    // Before there were such objects kubeadm's configuration says it.
    if ranges.is_empty()
        && let Some(configuration) = look.need(&objects.configuration, &["NET-009"])
        && let Some(cluster) = &configuration.cluster
    {
        let subnets = cluster.networking.service_subnet.split(',').map(str::trim).filter(|text| !text.is_empty());
        ranges.extend(subnets.map(|cidr| (Subject::cluster(), cidr.to_owned())));
    }
    for (subject, cidr) in ranges {
        let Some((base, bits)) = network(&cidr) else { continue };
        let size = 1_u128.checked_shl(bits).unwrap_or(u128::MAX).saturating_sub(2);
        let within = |address: &&String| {
            let parsed = address.parse::<std::net::IpAddr>().ok();
            parsed.is_some_and(|address| {
                address.is_ipv4() == base.is_ipv4()
                    && (number(address) ^ number(base)).checked_shr(bits).unwrap_or(0) == 0
            })
        };
        let used = services.iter().flat_map(|service| &service.spec.cluster_ips).filter(within).count() as u128;
        let free = size.saturating_sub(used);
        if size > 0 && free * 100 < size.saturating_mul(FREE_PERCENT_MIN) {
            let finding = Finding::new("NET-009", "few", Outcome::Warn, subject);
            look.say(finding.with("range", &cidr).with("free", free));
        }
    }
}

/// The first address of a range, and how many bits are free in it.
fn network(cidr: &str) -> Option<(std::net::IpAddr, u32)> {
    let (address, prefix) = cidr.split_once('/')?;
    let address: std::net::IpAddr = address.parse().ok()?;
    let bits = if address.is_ipv4() { 32_u32 } else { 128 };
    Some((address, bits.checked_sub(prefix.parse().ok()?)?))
}

fn number(address: std::net::IpAddr) -> u128 {
    match address {
        std::net::IpAddr::V4(address) => u128::from(u32::from(address)),
        std::net::IpAddr::V6(address) => u128::from(address),
    }
}
