//! What a copy may hold: whoever wrote the file, reading it is safe.

use std::collections::HashSet;

use super::{ClusterCopy, CopyResources, CopySelector, CopyTemplate};

/// Why a copy is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which part, such as `pod shop/cart-1`.
    pub what: String,
    /// What is wrong with it.
    pub why: String,
}

const NODES_MAX: usize = 20_000;
const PODS_MAX: usize = 1_000_000;
const WORKLOADS_MAX: usize = 500_000;
/// Pods that all workloads together want. A Deployment and its ReplicaSet want the same ones and count both.
const WANTED_MAX: u64 = 2_000_000;
/// So many of them may be missing, beside three for each that is there: more is no cluster, and would be work without an end
/// for a rehearsal.
const MISSING_MAX: u64 = 10_000;
/// Lists within one object.
const LIST_MAX: usize = 10_000;
const TEXT_BYTES_MAX: usize = 8_192;
/// An exabyte; a million cores in thousandths is far less.
const AMOUNT_MAX: i64 = 1 << 60;
const SECONDS_MAX: i64 = 366 * 86_400;

impl ClusterCopy {
    /// Refuses what cannot be a cluster.
    pub fn check(&self) -> Result<(), Refusal> {
        let counts = [
            ("nodes", self.nodes.len(), NODES_MAX),
            ("pods", self.pods.len(), PODS_MAX),
            ("templates", self.templates.len(), PODS_MAX),
            ("workloads", self.workloads.len(), WORKLOADS_MAX),
            ("budgets", self.budgets.len(), WORKLOADS_MAX),
            ("claims", self.claims.len(), PODS_MAX),
        ];
        for (what, found, most) in counts {
            if found > most {
                return refuse(what, format!("there are {found}, more than {most}"));
            }
        }
        self.check_nodes()?;
        for (index, template) in self.templates.iter().enumerate() {
            check_template(template).map_err(|why| Refusal { what: format!("template {index}"), why })?;
        }
        self.check_workloads()?;
        self.check_pods()?;
        for budget in &self.budgets {
            let what = || format!("budget {}/{}", short(&budget.namespace), short(&budget.name));
            names(&[&budget.namespace, &budget.name]).map_err(|why| Refusal { what: what(), why })?;
            budget.selector.as_ref().map_or(Ok(()), check_selector).map_err(|why| Refusal { what: what(), why })?;
            for share in [&budget.min_available, &budget.max_unavailable].into_iter().flatten() {
                let number = share.strip_suffix('%').unwrap_or(share);
                if !number.parse::<u32>().is_ok_and(|number| number <= 1_000_000) {
                    return refuse(what(), format!("`{}` is neither a number nor a percentage", short(share)));
                }
            }
        }
        for claim in &self.claims {
            let what = || format!("claim {}/{}", short(&claim.namespace), short(&claim.name));
            names(&[&claim.namespace, &claim.name]).map_err(|why| Refusal { what: what(), why })?;
        }
        Ok(())
    }

    fn check_nodes(&self) -> Result<(), Refusal> {
        let mut seen = HashSet::new();
        for node in &self.nodes {
            let what = || format!("node {}", short(&node.name));
            names(&[&node.name]).map_err(|why| Refusal { what: what(), why })?;
            if !seen.insert(&node.name) {
                return refuse(what(), "there are two of the name".to_owned());
            }
            check_resources(&node.allocatable).map_err(|why| Refusal { what: what(), why })?;
            let long = [&node.uid, &node.machine_id, &node.architecture, &node.kubelet, &node.runtime];
            if long.iter().any(|text| text.len() > TEXT_BYTES_MAX) || node.labels.len() + node.taints.len() > LIST_MAX {
                return refuse(what(), "it is too large".to_owned());
            }
        }
        Ok(())
    }

    fn check_workloads(&self) -> Result<(), Refusal> {
        let mut seen = HashSet::new();
        let mut wanted = 0_u64;
        for workload in &self.workloads {
            let what = || format!("{} {}/{}", short(&workload.kind), short(&workload.namespace), short(&workload.name));
            names(&[&workload.namespace, &workload.name]).map_err(|why| Refusal { what: what(), why })?;
            check_selector(&workload.selector).map_err(|why| Refusal { what: what(), why })?;
            if !["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"].contains(&workload.kind.as_str()) {
                return refuse(what(), "it is of a kind that is not known".to_owned());
            }
            if !seen.insert((&workload.kind, &workload.namespace, &workload.name)) {
                return refuse(what(), "there are two of the name".to_owned());
            }
            if !(0..=1_000_000).contains(&workload.replicas) {
                return refuse(what(), format!("it wants {} pods", workload.replicas));
            }
            // Each alone may be a cluster's: all together would fill the memory of whoever makes their pods.
            wanted = wanted.saturating_add(match workload.kind.as_str() {
                "DaemonSet" => self.nodes.len() as u64,
                _ => workload.replicas.unsigned_abs(),
            });
            let there = self.pods.len() as u64;
            if wanted > WANTED_MAX.min(there * 4 + MISSING_MAX) {
                return refuse(what(), format!("with those before it, it wants {wanted} pods, and {there} are there"));
            }
            if workload.template >= self.templates.len() {
                return refuse(what(), format!("its template {} is not there", workload.template));
            }
            // An owner is always a Deployment and owned by none, so owners cannot form a circle.
            if let Some(owner) = workload.owner {
                let is_deployment = self.workloads.get(owner).is_some_and(|owner| owner.kind == "Deployment");
                if workload.kind != "ReplicaSet" || !is_deployment {
                    return refuse(
                        what(),
                        format!("workload {owner} cannot be its owner: owners would go in a circle"),
                    );
                }
            }
        }
        Ok(())
    }

    fn check_pods(&self) -> Result<(), Refusal> {
        let mut seen = HashSet::new();
        for pod in &self.pods {
            let what = || format!("pod {}/{}", short(&pod.namespace), short(&pod.name));
            names(&[&pod.namespace, &pod.name]).map_err(|why| Refusal { what: what(), why })?;
            if !seen.insert((&pod.namespace, &pod.name)) {
                return refuse(what(), "there are two of the name".to_owned());
            }
            for (found, count, kind) in [
                (Some(pod.template), self.templates.len(), "template"),
                (pod.owner, self.workloads.len(), "owner"),
                (pod.node, self.nodes.len(), "node"),
            ] {
                if let Some(found) = found.filter(|found| *found >= count) {
                    return refuse(what(), format!("its {kind} {found} is not there"));
                }
            }
            if pod.owner.and_then(|owner| self.workloads.get(owner)).is_some_and(|owner| owner.kind == "Deployment") {
                return refuse(what(), "a Deployment owns ReplicaSets, not pods".to_owned());
            }
        }
        Ok(())
    }
}

fn refuse<T>(what: impl Into<String>, why: String) -> Result<T, Refusal> {
    Err(Refusal { what: what.into(), why })
}

/// As much of a text as a message may hold.
fn short(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(80).collect()
}

fn names(names: &[&str]) -> Result<(), String> {
    let is_name = |name: &&&str| {
        !name.is_empty()
            && name.len() <= 253
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
    };
    match names.iter().find(|name| !is_name(name)) {
        None => Ok(()),
        Some(name) => Err(format!("`{}` is no name", short(name))),
    }
}

fn check_resources(resources: &CopyResources) -> Result<(), String> {
    let amounts = [resources.cpu_millis, resources.memory_bytes, resources.pods];
    match amounts.into_iter().find(|amount| !(0..=AMOUNT_MAX).contains(amount)) {
        None => Ok(()),
        Some(amount) => Err(format!("{amount} is no amount of CPU, memory or pods")),
    }
}

fn check_selector(selector: &CopySelector) -> Result<(), String> {
    if selector.labels.len() + selector.expressions.len() > LIST_MAX {
        return Err("its selector is too large".to_owned());
    }
    Ok(())
}

fn check_template(template: &CopyTemplate) -> Result<(), String> {
    check_resources(&template.requests)?;
    let lists = [
        template.labels.len(),
        template.containers.len(),
        template.node_affinity.len(),
        template.pod_affinity.len(),
        template.pod_anti_affinity.len(),
        template.spread.len(),
        template.tolerations.len(),
        template.host_ports.len(),
        template.claims.len(),
    ];
    if lists.into_iter().any(|length| length > LIST_MAX) {
        return Err("it is too large".to_owned());
    }
    for seconds in [template.grace_seconds.unwrap_or(30), template.ready_delay_seconds] {
        if !(0..=SECONDS_MAX).contains(&seconds) {
            return Err(format!("{seconds} s is no time that a pod takes"));
        }
    }
    if i32::try_from(template.priority).is_err() {
        return Err(format!("{} is no priority", template.priority));
    }
    if template.spread.iter().any(|spread| !(1..=1_000_000).contains(&spread.max_skew)) {
        return Err("a spread constraint has a skew that is none".to_owned());
    }
    Ok(())
}
