//! Room for what an upgrade moves.

use std::collections::HashMap;

use super::packing::{self, Misfit};
use super::quantity::milli;
use super::{Look, of};
use crate::object::Node;
use crate::report::{Finding, Outcome, Subject};
use crate::snapshot::Read;

/// A node that keeps nothing back for the system should use no more of its CPU and memory, in per cent.
const USE_PERCENT_MAX: (i64, i64) = (50, 70);
/// What the kubelet keeps free before it evicts, where nothing else is configured: 100 MiB, in thousandths of a byte.
const EVICTION_MEMORY: i64 = 100 * 1_048_576 * 1000;
/// A node that is younger came while the check ran, or just before.
const NEW_NODE_SECONDS: i64 = 600;
/// The taint of an instance that a cloud has stopped.
const SHUTDOWN: &str = "node.cloudprovider.kubernetes.io/shutdown";
/// Taints of nodes that an autoscaler is about to remove.
const LEAVING: [&str; 3] =
    ["ToBeDeletedByClusterAutoscaler", "DeletionCandidateOfClusterAutoscaler", "karpenter.sh/disrupted"];

/// Judges; `misfits` are those of all batches.
pub(super) fn judge(look: &mut Look<'_>, misfits: impl FnOnce() -> Option<Vec<Misfit>>) {
    let objects = look.objects;
    if let Some(nodes) = look.need(&objects.nodes, &["CAP-001", "CAP-002", "CAP-005", "RUN-001"]) {
        usage(look, nodes);
        for node in nodes {
            let has = |key: &str| node.spec.taints.iter().any(|taint| taint.key == key);
            if has(SHUTDOWN) {
                look.say(Finding::new("CAP-005", "stopped", Outcome::Warn, of("Node", &node.metadata)));
            }
            let leaves = node.metadata.deletion_timestamp.is_some() || LEAVING.iter().any(|key| has(key));
            if leaves {
                look.say(Finding::new("RUN-001", "leaves", Outcome::Warn, of("Node", &node.metadata)));
            }
        }
        arrivals(look, nodes);
    }
    batches(look, misfits);
}

/// Nodes that came just now, where others were there before: a cluster that is just born has no such.
fn arrivals(look: &mut Look<'_>, nodes: &[Node]) {
    let is_new = |node: &&Node| {
        let since = node.metadata.creation_timestamp;
        since.is_some() && look.age_seconds(since) < NEW_NODE_SECONDS
    };
    let new: Vec<&Node> = nodes.iter().filter(is_new).collect();
    if new.len() < nodes.len() {
        for node in new {
            look.say(Finding::new("RUN-001", "came", Outcome::Warn, of("Node", &node.metadata)));
        }
    }
}

/// Whether a node keeps something back for the system: what pods may use is less than what there is, beyond what the
/// kubelet always keeps free.
fn reserves(node: &Node) -> Option<bool> {
    let of = |list: &crate::object::Labels, name: &str| list.get(name).and_then(|text| milli(text));
    let (capacity, allocatable) = (&node.status.capacity, &node.status.allocatable);
    let cpu = of(capacity, "cpu")? > of(allocatable, "cpu")?;
    let memory = of(capacity, "memory")? - of(allocatable, "memory")? > EVICTION_MEMORY;
    Some(cpu || memory)
}

fn usage(look: &mut Look<'_>, nodes: &[Node]) {
    let objects = look.objects;
    let measured: HashMap<&str, (i64, i64)> = objects
        .node_usage
        .seen()
        .into_iter()
        .flatten()
        .filter_map(|node| {
            let of = |name: &str| node.usage.get(name).and_then(|text| milli(text));
            Some((node.metadata.name.as_str(), (of("cpu")?, of("memory")?)))
        })
        .collect();
    let requested = packing::requested(objects);
    let bare: Vec<&Node> = nodes.iter().filter(|node| reserves(node) == Some(false)).collect();
    if !bare.is_empty() && bare.len() * 2 >= nodes.len() {
        let finding = Finding::new("CAP-002", "none", Outcome::Warn, Subject::cluster());
        look.say(finding.with("count", bare.len()).with("all", nodes.len()));
    }
    if matches!(objects.pods, Read::NotSeen(_)) && measured.is_empty() {
        look.need(&objects.pods, &["CAP-001"]);
        return;
    }
    for node in bare {
        let name = node.metadata.name.as_str();
        let uses = measured.get(name).or(requested.get(name)).copied().unwrap_or_default();
        let share = |part: i64, resource: &str| {
            let whole =
                node.status.allocatable.get(resource).and_then(|text| milli(text)).filter(|whole| *whole > 0)?;
            Some(i64::try_from(i128::from(part) * 100 / i128::from(whole)).unwrap_or(i64::MAX))
        };
        let (Some(cpu), Some(memory)) = (share(uses.0, "cpu"), share(uses.1, "memory")) else { continue };
        if cpu > USE_PERCENT_MAX.0 || memory > USE_PERCENT_MAX.1 {
            let sentence = if measured.contains_key(name) { "used" } else { "requested" };
            let finding = Finding::new("CAP-001", sentence, Outcome::Warn, of("Node", &node.metadata));
            look.say(finding.with("cpu", cpu).with("memory", memory));
        }
    }
}

fn batches(look: &mut Look<'_>, misfits: impl FnOnce() -> Option<Vec<Misfit>>) {
    let objects = look.objects;
    // Without either list nothing can be packed; without volumes it is not known what binds a pod to its node.
    for list in [objects.nodes.judged().map(|read| read.err()), objects.pods.judged().map(|read| read.err())] {
        match list {
            None => return,
            Some(Some(why)) => return look.say(Finding::unknown("CAP-003", why)),
            Some(None) => {}
        }
    }
    look.need(&objects.volumes, &["CAP-003"]);
    look.need(&objects.claims, &["CAP-003"]);
    look.need(&objects.budgets, &["CAP-003"]);
    let are_budgets_hidden = matches!(objects.budgets, Read::NotSeen(_));
    for misfit in misfits().into_iter().flatten() {
        let Misfit { pool, batch, nodes, pods, example, fits, is_only_node, is_guarded } = misfit;
        // Nodes come back empty: a budget makes the drain wait until one is. Where budgets are not seen there may be one.
        let outcome = if is_guarded || are_budgets_hidden { Outcome::Warn } else { Outcome::Fail };
        let (sentence, outcome) = match (is_only_node, fits) {
            (true, _) => ("only-node", Outcome::Warn),
            (false, Some(_)) => ("no-room", outcome),
            (false, None) => ("no-room-at-all", outcome),
        };
        let finding = Finding::new("CAP-003", sentence, outcome, Subject::new("NodePool", "", &pool));
        look.say(
            finding
                .with("batch", batch)
                .with("nodes", nodes)
                .with("pods", pods)
                .with("example", format!("{}/{}", example.0, example.1))
                .with("fits", fits.map_or_else(|| "-".to_owned(), |fits| fits.to_string())),
        );
    }
}
