//! Workloads: what a drain will be refused, and what will be interrupted.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Look, by_namespace, of, owner_of, packing};
use crate::object::{Budget, Labels, Pod, Probe, Volume, Workload};
use crate::report::{Finding, Outcome, Subject};

/// A pod may be terminating for so long beyond its own time.
const TERMINATING_SECONDS_MAX: i64 = 600;
/// A pod that may take longer than this to end holds a batch.
const GRACE_SECONDS_MAX: i64 = 600;
/// A pod that is not ready for so long does not get well by itself.
const NOT_READY_SECONDS_MAX: i64 = 600;
/// Why a container waits that does not get well by itself.
const BROKEN: [&str; 9] = [
    "CrashLoopBackOff",
    "ImagePullBackOff",
    "ErrImagePull",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];
/// Namespaces of Kubernetes itself; its own parts are upgraded by the plan.
const OWN_NAMESPACES: [&str; 2] = ["kube-system", "kube-upgrade"];

pub(super) fn judge(look: &mut Look<'_>) {
    budgets(look);
    workloads(look);
    pods(look);
    namespaces(look);
    let objects = look.objects;
    for set in look.need(&objects.daemon_sets, &["WL-016"]).into_iter().flatten() {
        if set.spec.update_strategy.r#type == "OnDelete" {
            look.say(Finding::new("WL-016", "on-delete", Outcome::Warn, of("DaemonSet", &set.metadata)));
        }
    }
    for set in look.need(&objects.stateful_sets, &["WL-012"]).into_iter().flatten() {
        if set.spec.template.spec.termination_grace_period_seconds == Some(0) {
            look.say(Finding::new("WL-012", "no-grace", Outcome::Warn, of("StatefulSet", &set.metadata)));
        }
    }
    for job in look.need(&objects.jobs, &["WL-017"]).into_iter().flatten().filter(|job| job.status.active > 0) {
        let subject = of("Job", &job.metadata);
        look.say(Finding::new("WL-017", "running", Outcome::Warn, subject).with("count", job.status.active));
    }
}

/// A number, or a share of the expected pods, rounded up as the disruption controller does.
fn share(value: &Value, expected: i64) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            Some((percent.checked_mul(expected)?.checked_add(99)?).div_euclid(100))
        }
        _ => None,
    }
}

/// Whether a budget lets no pod go even when all are healthy; what it says. An amount that is none is an error.
fn never_allows(budget: &Budget, expected: i64) -> Result<Option<String>, String> {
    let amount =
        |name: &str, value: &Value| share(value, expected).ok_or_else(|| format!("its {name} is {}", plain(value)));
    if expected <= 0 {
        return Ok(None);
    }
    if let Some(value) = &budget.spec.max_unavailable {
        let never = amount("maxUnavailable", value)? <= 0;
        return Ok(never.then(|| format!("maxUnavailable {}", plain(value))));
    }
    let Some(value) = &budget.spec.min_available else { return Ok(None) };
    let never = amount("minAvailable", value)? >= expected;
    Ok(never.then(|| format!("minAvailable {} of {expected}", plain(value))))
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether a budget is about a pod: an empty selector is about all, none about none.
fn covers(budget: &Budget, labels: &Labels) -> bool {
    budget.spec.selector.as_ref().is_some_and(|selector| selector.fits(labels))
}

fn budgets(look: &mut Look<'_>) {
    let objects = look.objects;
    let Some(budgets) = look.need(&objects.budgets, &["WL-001", "WL-002", "WL-003", "WL-004"]) else { return };
    let read = look.need(&objects.pods, &["WL-001", "WL-002", "WL-003"]);
    let pods = by_namespace(read.into_iter().flatten().filter(|pod| !pod.has_ended()));
    for budget in budgets {
        let subject = || of("PodDisruptionBudget", &budget.metadata);
        let status = &budget.status;
        let of_space = pods.get(budget.metadata.namespace.as_str()).map(Vec::as_slice).unwrap_or_default();
        let covered: Vec<&&Pod> = of_space.iter().filter(|pod| covers(budget, &pod.metadata.labels)).collect();
        // A budget that the controller has not seen yet has no numbers of its own.
        let is_seen = status.observed_generation > 0 || status.expected_pods > 0;
        let expected = if is_seen { status.expected_pods } else { i64::try_from(covered.len()).unwrap_or(i64::MAX) };
        let never = never_allows(budget, expected).unwrap_or_else(|why| {
            look.say(Finding { subject: subject(), ..Finding::unknown("WL-001", why) });
            None
        });
        if let Some(says) = never {
            let finding = Finding::new("WL-001", "never", Outcome::Fail, subject());
            look.say(finding.with("says", says).with("expected", expected));
        } else if is_seen && expected > 0 && status.disruptions_allowed <= 0 {
            let broken = covered.iter().find(|pod| {
                !pod.is_ready()
                    && (broken_reason(pod).is_some() || not_ready_seconds(look, pod) > NOT_READY_SECONDS_MAX)
            });
            let is_held = budget.spec.unhealthy_pod_eviction_policy != "AlwaysAllow";
            let finding = match broken.filter(|_| is_held) {
                // Pods that do not get well by themselves hold the budget for ever.
                Some(pod) => Finding::new("WL-002", "broken", Outcome::Fail, subject()).with("pod", &pod.metadata.name),
                None => Finding::new("WL-002", "none-now", Outcome::Warn, subject()),
            };
            look.say(finding.with("healthy", status.current_healthy).with("desired", status.desired_healthy));
        }
    }
    if read.is_none() {
        return;
    }
    let mut overlapping: BTreeMap<Subject, BTreeSet<&str>> = BTreeMap::new();
    let mut by_space: BTreeMap<&str, Vec<&Budget>> = BTreeMap::new();
    for budget in budgets {
        by_space.entry(&budget.metadata.namespace).or_default().push(budget);
    }
    for (namespace, budgets) in by_space.iter().filter(|(_, budgets)| budgets.len() > 1) {
        for pod in pods.get(namespace).into_iter().flatten() {
            let names: BTreeSet<&str> = budgets
                .iter()
                .filter(|budget| covers(budget, &pod.metadata.labels))
                .map(|budget| budget.metadata.name.as_str())
                .collect();
            if names.len() > 1 {
                overlapping.entry(owner_of(pod)).or_default().extend(names);
            }
        }
    }
    for (subject, names) in overlapping {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        look.say(Finding::new("WL-003", "overlap", Outcome::Fail, subject).with("budgets", names));
    }
}

fn workloads(look: &mut Look<'_>) {
    let objects = look.objects;
    let checks = ["WL-004", "WL-005", "WL-006", "WL-007", "WL-008"];
    let deployments = look.need(&objects.deployments, &checks);
    let sets = look.need(&objects.stateful_sets, &checks);
    let budgets = look.need(&objects.budgets, &["WL-008"]);
    let services = look.need(&objects.services, &["WL-007"]);
    let pods = look.need(&objects.pods, &["WL-005", "WL-006", "WL-008"]);
    let bound = look.question.max_parallel;
    let batches = look.need(&objects.nodes, &["WL-008"]).map(|nodes| packing::batches(nodes, bound));
    let mut nodes_of: BTreeMap<Subject, Vec<&Pod>> = BTreeMap::new();
    for pod in pods.into_iter().flatten().filter(|pod| pod.is_ready() && !pod.has_ended()) {
        nodes_of.entry(owner_of(pod)).or_default().push(pod);
    }
    let kinds = [("Deployment", deployments), ("StatefulSet", sets)];
    for (kind, workloads) in kinds {
        for workload in workloads.into_iter().flatten() {
            let namespace = workload.metadata.namespace.as_str();
            if OWN_NAMESPACES.contains(&namespace) {
                continue;
            }
            let replicas = workload.spec.replicas.unwrap_or(1);
            let labels = &workload.spec.template.metadata.labels;
            let subject = || of(kind, &workload.metadata);
            let has_budget = budgets.is_none_or(|budgets| {
                budgets.iter().any(|budget| budget.metadata.namespace == namespace && covers(budget, labels))
            });
            if replicas > 1 && !has_budget {
                look.say(Finding::new("WL-004", "none", Outcome::Warn, subject()).with("replicas", replicas));
            }
            let ready = nodes_of.get(&subject()).map(Vec::as_slice).unwrap_or_default();
            let hosts: BTreeSet<&str> = ready.iter().map(|pod| pod.spec.node_name.as_str()).collect();
            let on_one_node = ready.len() > 1 && hosts.len() == 1;
            if on_one_node {
                let node = hosts.first().copied().unwrap_or_default();
                look.say(Finding::new("WL-008", "one-node", Outcome::Warn, subject()).with("node", node));
            } else if ready.len() > 1 && !has_budget && packing::go_at_once(batches.as_deref(), &hosts) {
                // Under a budget the drains of a batch wait for each other.
                let nodes = hosts.iter().copied().collect::<Vec<_>>().join(", ");
                look.say(Finding::new("WL-008", "one-batch", Outcome::Warn, subject()).with("nodes", nodes));
            }
            if replicas == 1 || on_one_node {
                probes(look, workload, &subject());
            }
            if replicas == 1 {
                let is_served = services.into_iter().flatten().find(|service| {
                    service.metadata.namespace == namespace
                        && !service.spec.selector.is_empty()
                        && service.spec.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
                });
                if let Some(service) = is_served {
                    let finding = Finding::new("WL-007", "single", Outcome::Warn, subject());
                    look.say(finding.with("service", &service.metadata.name));
                }
            }
        }
    }
}

/// A restarted kubelet takes pods with startup probes as not ready until the probe holds again.
fn probes(look: &mut Look<'_>, workload: &Workload, subject: &Subject) {
    let wait = |probe: &Probe| probe.initial_delay_seconds.unwrap_or(0) + probe.period_seconds.unwrap_or(10);
    let spec = &workload.spec.template.spec;
    let beside = || spec.init_containers.iter().filter(|container| container.restart_policy == "Always");
    let startup = spec.containers.iter().map(|container| &container.startup_probe);
    let startup = startup.chain(beside().map(|container| &container.startup_probe));
    let readiness = spec.containers.iter().map(|container| &container.readiness_probe);
    let readiness = readiness.chain(beside().map(|container| &container.readiness_probe));
    let longest = [("WL-005", startup.flatten().map(wait).max()), ("WL-006", readiness.flatten().map(wait).max())];
    for (check, seconds) in longest {
        if let Some(seconds) = seconds {
            look.say(Finding::new(check, "single", Outcome::Warn, subject.clone()).with("seconds", seconds));
        }
    }
}

fn pods(look: &mut Look<'_>) {
    let objects = look.objects;
    let Some(pods) = look.need(&objects.pods, &["WL-009", "WL-010", "WL-011", "WL-013", "WL-014", "WL-015", "API-015"])
    else {
        return;
    };
    let mut said: BTreeSet<(&str, Subject)> = BTreeSet::new();
    for pod in pods.iter().filter(|pod| !pod.has_ended()) {
        let owner = pod.controller();
        // Static pods are the node's own.
        if owner.is_some_and(|owner| owner.kind == "Node") {
            continue;
        }
        let mut once = |check: &'static str, finding: Finding| {
            if said.insert((check, finding.subject.clone())) {
                look.findings.push(finding);
            }
        };
        if owner.is_none() {
            // A drain meets only what is on a node.
            let outcome = if pod.spec.node_name.is_empty() { Outcome::Warn } else { Outcome::Fail };
            once("WL-009", Finding::new("WL-009", "naked", outcome, of("Pod", &pod.metadata)));
        }
        let is_daemon = owner.is_some_and(|owner| owner.kind == "DaemonSet");
        let is_own = OWN_NAMESPACES.contains(&pod.metadata.namespace.as_str());
        if !is_daemon && !is_own && pod.spec.volumes.iter().any(holds_data) {
            once("WL-010", Finding::new("WL-010", "local", Outcome::Warn, owner_of(pod)));
        }
        let grace = pod.spec.termination_grace_period_seconds.unwrap_or(30);
        if !is_daemon && grace > GRACE_SECONDS_MAX {
            once("WL-011", Finding::new("WL-011", "long", Outcome::Warn, owner_of(pod)).with("seconds", grace));
        }
        if let Some(reason) = broken_reason(pod) {
            let finding = Finding::new("WL-014", "broken", Outcome::Warn, owner_of(pod));
            once("WL-014", finding.with("reason", reason));
        }
        let never = pod.spec.containers.iter().find(|container| container.image_pull_policy == "Never");
        if let Some(container) = never {
            let finding = Finding::new("WL-015", "never", Outcome::Warn, owner_of(pod));
            once("WL-015", finding.with("image", &container.image));
        }
        fields(&mut once, pod, look.question.target.minor);
    }
    for pod in pods {
        // The deletion timestamp is when the grace period ends.
        if pod.metadata.deletion_timestamp.is_some()
            && look.age_seconds(pod.metadata.deletion_timestamp) > TERMINATING_SECONDS_MAX
        {
            // The drain of its node waits for it.
            let outcome = if pod.spec.node_name.is_empty() { Outcome::Warn } else { Outcome::Fail };
            // Without finalizers it is its kubelet that does not say that it has ended.
            let sentence = if pod.metadata.finalizers.is_empty() { "unended" } else { "stuck" };
            let finding = Finding::new("WL-013", sentence, outcome, of("Pod", &pod.metadata));
            let finding = finding.with("finalizers", pod.metadata.finalizers.join(", "));
            look.say(finding.with("node", &pod.spec.node_name));
        }
    }
}

/// Why a container of a pod does not get well by itself: it waits for what does not come, or it crashed just now.
fn broken_reason(pod: &Pod) -> Option<&str> {
    let status = &pod.status;
    status.init_container_statuses.iter().chain(&status.container_statuses).find_map(|container| {
        let waits = container.state.waiting.as_ref().map(|waiting| waiting.reason.as_str());
        // What is being deleted may end as it likes.
        let crashed = container.state.terminated.as_ref().filter(|ended| ended.exit_code != 0);
        let crashed = crashed.filter(|_| pod.metadata.deletion_timestamp.is_none());
        let crashed = crashed.map(|ended| if ended.reason.is_empty() { "Error" } else { ended.reason.as_str() });
        waits.filter(|reason| BROKEN.contains(reason)).or(crashed)
    })
}

/// How long a pod that runs has not been ready; 0 where that is not told.
fn not_ready_seconds(look: &Look<'_>, pod: &Pod) -> i64 {
    let ready = pod.status.conditions.iter().find(|condition| condition.r#type == "Ready");
    look.age_seconds(ready.and_then(|condition| condition.last_transition_time))
}

/// Whether a volume holds data that stay behind or go with the pod; one in memory is lost at every restart anyway.
fn holds_data(volume: &Volume) -> bool {
    volume.source == "hostPath" || (volume.source == "emptyDir" && volume.detail != "Memory")
}

/// The label of masters until 1.24.
const MASTER: &str = "node-role.kubernetes.io/master";

/// Annotations and labels that a minor does not heed any more.
fn fields(once: &mut impl FnMut(&'static str, Finding), pod: &Pod, target: u32) {
    let marks = &pod.metadata.annotations.0;
    let mut say = |sentence, name: &str| {
        once("API-015", Finding::new("API-015", sentence, Outcome::Warn, owner_of(pod)).with("name", name));
    };
    if let Some(name) = marks.iter().find(|name| name.contains("seccomp.security.alpha")).filter(|_| target >= 27) {
        say("seccomp", name);
    }
    if let Some(name) = marks.iter().find(|name| name.contains("apparmor.security.beta")).filter(|_| target >= 30) {
        say("apparmor", name);
    }
    if target >= 24 && pod.spec.node_selector.contains_key(MASTER) {
        say("master-label", MASTER);
    }
}

/// Whether it has annotations or labels that some minor does not heed any more.
pub(super) fn has_old_fields(pod: &Pod) -> bool {
    !pod.metadata.annotations.0.is_empty() || pod.spec.node_selector.contains_key(MASTER)
}

fn namespaces(look: &mut Look<'_>) {
    let objects = look.objects;
    for namespace in look.need(&objects.namespaces, &["WL-013"]).into_iter().flatten() {
        let since = namespace.metadata.deletion_timestamp;
        if since.is_none() || look.age_seconds(since) <= TERMINATING_SECONDS_MAX {
            continue;
        }
        let conditions = namespace.status.conditions.iter();
        let holding = conditions.filter(|condition| condition.status == "True" && !condition.message.is_empty());
        let holding: Vec<String> = holding.map(|condition| condition.message.chars().take(200).collect()).collect();
        let why = if holding.is_empty() { "-".to_owned() } else { holding.join("; ") };
        let subject = of("Namespace", &namespace.metadata);
        let finding = Finding::new("WL-013", "held", Outcome::Warn, subject);
        look.say(finding.with("why", why).with("namespace", &namespace.metadata.name));
    }
}
