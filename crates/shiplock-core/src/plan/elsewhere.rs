//! Whether the pods of a node have another node to go to when it is emptied: asked when a plan is made, and again before
//! it starts.

use std::collections::BTreeMap;

use super::DrainDecision;
use crate::facts::{CONTROL_PLANE_LABEL, NodeFacts, Readiness};
use crate::id::NodeName;

/// Whether a node is drained that may be: only where its pods have another node to go to.
pub(super) fn drained_where_possible(nodes: &BTreeMap<NodeName, NodeFacts>, name: &NodeName) -> DrainDecision {
    match another_node_takes_pods(nodes, name) {
        Ok(()) => DrainDecision::Drain,
        Err(_) => DrainDecision::SkippedNowhereToGo,
    }
}

/// Why no other node takes the pods of a node, one line for each of them; fine where one does.
///
/// A taint that the node itself does not have keeps its pods off, since what runs on it need not tolerate it; those of
/// Kubernetes itself, such as that of a cordon, come and go.
pub(crate) fn another_node_takes_pods(
    nodes: &BTreeMap<NodeName, NodeFacts>,
    name: &NodeName,
) -> Result<(), Vec<String>> {
    let own = nodes.get(name).map_or(&[][..], |node| &node.taints);
    let keeps_off = |taint: &&String| {
        *taint == CONTROL_PLANE_LABEL || !(own.contains(taint) || taint.starts_with("node.kubernetes.io/"))
    };
    let mut refused = Vec::new();
    for (other, node) in nodes.iter().filter(|(other, _)| *other != name) {
        let why = match (&node.ready, node.taints.iter().find(keeps_off)) {
            (Readiness::NotReady { .. }, _) => "is not Ready".to_owned(),
            _ if node.unschedulable && node.owner.is_none() => "is cordoned".to_owned(),
            (_, Some(taint)) => format!("has the taint {taint}"),
            _ => return Ok(()),
        };
        refused.push(format!("{other} {why}"));
    }
    Err(refused)
}
