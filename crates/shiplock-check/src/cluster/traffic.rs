//! The network.

use std::collections::{BTreeMap, BTreeSet};

use super::{Look, image_name, of, owner_of, packing};
use crate::object::{Metadata, Pod, Service, Slice};
use crate::report::{Finding, Outcome, Subject};

pub(super) fn judge(look: &mut Look<'_>) {
    local_traffic(look);
    dns_and_ingress(look);
    ingress_classes(look);
    super::policy::judge(look);
}

/// The nodes with ready endpoints of each Service, by namespace and name.
pub(crate) fn ready_nodes(slices: &[Slice]) -> BTreeMap<(&str, &str), Vec<&str>> {
    let mut found: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for slice in slices {
        let Some(service) = slice.metadata.labels.get("kubernetes.io/service-name") else { continue };
        let nodes = found.entry((&slice.metadata.namespace, service)).or_default();
        // Not said means ready.
        let ready = slice.endpoints.iter().filter(|endpoint| endpoint.conditions.ready != Some(false));
        nodes.extend(ready.map(|endpoint| endpoint.node_name.as_str()));
    }
    found
}

fn local_traffic(look: &mut Look<'_>) {
    let objects = look.objects;
    let Some(services) = look.need(&objects.services, &["NET-001", "API-015"]) else { return };
    if look.question.target.minor >= 36 {
        for service in services.iter().filter(|service| !service.spec.external_ips.is_empty()) {
            look.say(Finding::new("API-015", "external-ips", Outcome::Warn, of("Service", &service.metadata)));
        }
    }
    if look.question.target.minor >= 22 {
        for service in services.iter().filter(|service| !service.spec.topology_keys.is_empty()) {
            look.say(Finding::new("API-015", "topology-keys", Outcome::Warn, of("Service", &service.metadata)));
        }
    }
    let bound = look.question.max_parallel;
    let batches = look.need(&objects.nodes, &["NET-001"]).map(|nodes| packing::batches(nodes, bound));
    let Some(slices) = look.need(&objects.slices, &["NET-001"]) else { return };
    let ready = ready_nodes(slices);
    let is_local = |kind: &str, policy: &str| matches!(kind, "LoadBalancer" | "NodePort") && policy == "Local";
    for service in
        services.iter().filter(|service| is_local(&service.spec.r#type, &service.spec.external_traffic_policy))
    {
        if service.spec.selector.is_empty() {
            continue;
        }
        let metadata = &service.metadata;
        for (user, address) in users_by_address(look, service, slices) {
            let finding = Finding::new("NET-001", "by-address", Outcome::Warn, of("Service", metadata));
            look.say(finding.with("user", user).with("address", address));
        }
        let nodes =
            ready.get(&(metadata.namespace.as_str(), metadata.name.as_str())).map(Vec::as_slice).unwrap_or_default();
        let distinct: BTreeSet<&str> = nodes.iter().copied().collect();
        match distinct.len() {
            0 => look.say(Finding::new("NET-001", "none", Outcome::Fail, of("Service", metadata))),
            1 => {
                let node = distinct.first().copied().unwrap_or_default();
                look.say(
                    Finding::new("NET-001", "one-node", Outcome::Warn, of("Service", metadata)).with("node", node),
                );
            }
            _ if packing::go_at_once(batches.as_deref(), &distinct) => {
                let nodes = distinct.iter().copied().collect::<Vec<_>>().join(", ");
                let finding = Finding::new("NET-001", "one-batch", Outcome::Warn, of("Service", metadata));
                look.say(finding.with("nodes", nodes));
            }
            _ => {}
        }
    }
}

/// Who in the cluster reaches a Service by an address of its load balancer, as far as objects say so, with that address.
fn users_by_address<'a>(look: &mut Look<'a>, service: &'a Service, slices: &'a [Slice]) -> Vec<(Subject, &'a str)> {
    let addresses: Vec<&str> = service
        .status
        .load_balancer
        .ingress
        .iter()
        .flat_map(|one| [one.ip.as_str(), one.hostname.as_str()])
        .filter(|address| !address.is_empty())
        .collect();
    if addresses.is_empty() {
        return Vec::new();
    }
    let find = |name: &str| addresses.iter().copied().find(|address| address.eq_ignore_ascii_case(name));
    let mut users = BTreeMap::new();
    let objects = look.objects;
    for other in objects.services.seen().into_iter().flatten() {
        users.extend(find(&other.spec.external_name).map(|address| (of("Service", &other.metadata), address)));
    }
    for slice in slices {
        let mut called = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        users.extend(
            called.find_map(|address| find(address)).map(|found| (of("EndpointSlice", &slice.metadata), found)),
        );
    }
    for pod in look.need(&objects.pods, &["NET-001"]).into_iter().flatten().filter(|pod| !pod.has_ended()) {
        let known = pod.spec.host_aliases.iter().find_map(|alias| find(&alias.ip));
        users.extend(known.map(|address| (owner_of(pod), address)));
    }
    let kinds =
        [("ValidatingWebhookConfiguration", &objects.validating), ("MutatingWebhookConfiguration", &objects.mutating)];
    for (kind, list) in kinds {
        for configuration in look.need(list, &["NET-001"]).into_iter().flatten() {
            let urls = configuration.webhooks.iter().map(|webhook| webhook.client_config.url.as_str());
            let called = urls.filter_map(host_of).find_map(find);
            users.extend(called.map(|address| (Subject::new(kind, "", &configuration.metadata.name), address)));
        }
    }
    users.into_iter().collect()
}

/// The host of a URL.
fn host_of(url: &str) -> Option<&str> {
    let authority = url.strip_prefix("https://")?.split(['/', '?', '#']).next()?;
    match authority.strip_prefix('[') {
        Some(address) => address.split(']').next(),
        None => authority.split(':').next(),
    }
}

/// Ingresses that name their class in the annotation of before 1.18.
fn ingress_classes(look: &mut Look<'_>) {
    let objects = look.objects;
    for ingress in look.need(&objects.ingresses, &["API-015"]).into_iter().flatten() {
        if ingress.metadata.annotations.0.iter().any(|name| name == "kubernetes.io/ingress.class") {
            look.say(Finding::new("API-015", "ingress-class", Outcome::Warn, of("Ingress", &ingress.metadata)));
        }
    }
}

fn dns_and_ingress(look: &mut Look<'_>) {
    let objects = look.objects;
    let Some(pods) = look.need(&objects.pods, &["NET-003", "NET-007"]) else { return };
    name_server(look, pods);
    let mut said = BTreeSet::new();
    for pod in pods {
        let is_ingress = |image: &str| image_name(image) == "controller" && image.contains("ingress-nginx");
        if pod.spec.containers.iter().any(|container| is_ingress(&container.image)) && said.insert(owner_of(pod)) {
            look.say(Finding::new("NET-007", "ended", Outcome::Warn, owner_of(pod)));
        }
    }
}

fn name_server(look: &mut Look<'_>, pods: &[Pod]) {
    let dns: Vec<&Pod> = pods.iter().filter(|pod| is_name_server(&pod.metadata) && !pod.has_ended()).collect();
    let Some(first) = dns.first() else { return name_server_without_pods(look) };
    let ready: Vec<&str> = dns.iter().filter(|pod| pod.is_ready()).map(|pod| pod.spec.node_name.as_str()).collect();
    let others = dns.len() - ready.len();
    let owner = owner_of(first);
    let is_bare = owner.kind == "Pod";
    let (sentence, outcome) = match (ready.len(), others, ready.iter().collect::<BTreeSet<_>>().len()) {
        (0, ..) => ("none", Outcome::Fail),
        (1, 0, _) if is_bare => ("single-bare", Outcome::Warn),
        (_, 0, 1) if is_bare => ("one-node-bare", Outcome::Warn),
        (1, 0, _) => ("single", Outcome::Warn),
        (_, 0, 1) => ("one-node", Outcome::Warn),
        (.., 1) => ("few-ready", Outcome::Warn),
        _ => return,
    };
    let (kind, namespace) = (owner.kind.to_ascii_lowercase(), owner.namespace.clone());
    let command = match (kind.as_str(), sentence) {
        ("deployment", "single") => format!("kubectl -n {namespace} scale deployment {} --replicas=2", owner.name),
        // As kubeadm's own guide has it: each new pod prefers a node without another one.
        ("deployment", _) => format!("kubectl -n {namespace} rollout restart deployment {}", owner.name),
        _ => format!("kubectl -n {namespace} edit {kind} {}", owner.name),
    };
    let finding = Finding::new("NET-003", sentence, outcome, owner).with("others", others);
    look.say(finding.with("namespace", namespace).with("command", command));
}

/// A name server that is there and has no pod. Of another one that may be at work nothing is known.
fn name_server_without_pods(look: &mut Look<'_>) {
    let objects = look.objects;
    let deployments = look.need(&objects.deployments, &["NET-003"]).into_iter().flatten();
    for deployment in deployments.filter(|it| is_name_server(&it.spec.template.metadata)) {
        let Metadata { namespace, name, .. } = &deployment.metadata;
        let command = match deployment.spec.replicas {
            Some(0) => format!("kubectl -n {namespace} scale deployment {name} --replicas=2"),
            _ => format!("kubectl -n {namespace} describe deployment {name}"),
        };
        let finding = Finding::new("NET-003", "no-pod", Outcome::Fail, of("Deployment", &deployment.metadata));
        look.say(finding.with("command", command));
    }
}

fn is_name_server(metadata: &Metadata) -> bool {
    metadata.labels.get("k8s-app").is_some_and(|app| app == "kube-dns")
}
