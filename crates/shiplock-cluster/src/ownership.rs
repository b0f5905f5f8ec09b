//! Cordon and uncordon: whose a node is, and the patches that change that only if it is still so.
//!
//! The mark is the annotation `shiplock.dev/owner`. A newer epoch of the same upgrade replaces an older one; an older
//! epoch finds the newer mark and stops. What carries no mark of ours is never touched.

use http::Method;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use serde_json::{Value, json};
use shiplock_core::facts::NodeOwner;
use shiplock_core::id::{Epoch, NodeName, ObjectUid};
use shiplock_core::problem::{Code, Problem};

use crate::answer::{Ask, unreadable};
use crate::connection::Connection;
use crate::fence::{self, Wanted};
use crate::port::{Cordon, Uncordon};
use crate::request::{JSON_PATCH, node_path, write};
use crate::translation::OWNER_ANNOTATION;

/// A patch may find the node changed this often before the attempt is given up.
const ROUNDS_MAX: usize = 5;

/// What is to be done about a node.
#[derive(Debug, PartialEq)]
enum Move<T> {
    /// Nothing; this is how it is.
    Nothing(T),
    /// Send this patch; if it passes, this is how it is.
    Patch(Value, T),
    /// A newer epoch of our upgrade has been here.
    Overtaken(Epoch),
}

/// Cordons a node as ours.
pub(crate) async fn cordon(
    connection: &Connection,
    node: &NodeName,
    uid: &ObjectUid,
    owner: &NodeOwner,
) -> Result<Cordon, Problem> {
    change(connection, node, uid, owner, Cordon::NodeGone, cordon_move).await
}

/// Takes our cordon off a node.
pub(crate) async fn uncordon(
    connection: &Connection,
    node: &NodeName,
    uid: &ObjectUid,
    owner: &NodeOwner,
) -> Result<Uncordon, Problem> {
    change(connection, node, uid, owner, Uncordon::NodeGone, uncordon_move).await
}

async fn change<T: Copy>(
    connection: &Connection,
    name: &NodeName,
    uid: &ObjectUid,
    owner: &NodeOwner,
    gone: T,
    next: fn(&Node, &NodeOwner) -> Move<T>,
) -> Result<T, Problem> {
    let nodes: Api<Node> = Api::all(connection.client.clone());
    let ask = Ask::new("patch", "nodes");
    for _ in 0..ROUNDS_MAX {
        let Some(node) = connection.act(Ask::new("get", "nodes"), nodes.get_opt(name.as_str())).await? else {
            return Ok(gone);
        };
        if node.metadata.uid.as_deref() != Some(uid.as_str()) {
            return Ok(gone);
        }
        let (patch, result) = match next(&node, owner) {
            Move::Nothing(result) => return Ok(result),
            Move::Overtaken(epoch) => {
                return Err(Problem::new(Code::LeaseLost).with("upgrade", &owner.upgrade).with("epoch", epoch));
            }
            Move::Patch(patch, result) => (patch, result),
        };
        let request = async {
            let request = write(Method::PATCH, &node_path(name.as_str()), JSON_PATCH, &patch)?;
            connection.client.request::<Node>(request).await
        };
        match connection.act(ask, request).await {
            Ok(_) => return Ok(result),
            // A test of the patch failed, or another write came between: look again.
            Err(failure) if matches!(failure.code(), 409 | 422) => {}
            Err(failure) if failure.code() == 404 => return Ok(gone),
            Err(failure) => return Err(failure.problem),
        }
    }
    Err(unreadable(ask).cause(format!("node {name} was changed by others {ROUNDS_MAX} times in a row")))
}

/// The text of the mark on a node.
fn mark(node: &Node) -> Option<&str> {
    node.metadata.annotations.as_ref()?.get(OWNER_ANNOTATION).map(String::as_str)
}

fn is_unschedulable(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

fn mark_path() -> String {
    format!("/metadata/annotations/{}", OWNER_ANNOTATION.replace('/', "~1"))
}

fn cordon_move(node: &Node, ours: &NodeOwner) -> Move<Cordon> {
    as_patch(node, fence::cordon(mark(node), is_unschedulable(node), ours))
}

fn uncordon_move(node: &Node, ours: &NodeOwner) -> Move<Uncordon> {
    as_patch(node, fence::uncordon(mark(node), ours))
}

fn as_patch<T>(node: &Node, wanted: Wanted<T>) -> Move<T> {
    let (write, result) = match wanted {
        Wanted::Nothing(result) => return Move::Nothing(result),
        Wanted::Overtaken(epoch) => return Move::Overtaken(epoch),
        Wanted::Write(write, result) => (write, result),
    };
    let mut patch = vec![json!({"op": "test", "path": "/metadata/uid", "value": node.metadata.uid})];
    match &write.test_mark {
        Some(text) => patch.push(json!({"op": "test", "path": mark_path(), "value": text})),
        None => {
            // JSON patch has no test for "absent", and neither mark nor cordon may have come since: only the version
            // of the whole object tells that.
            let version = &node.metadata.resource_version;
            patch.push(json!({"op": "test", "path": "/metadata/resourceVersion", "value": version}));
            if node.metadata.annotations.is_none() {
                patch.push(json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
            }
        }
    }
    let set = json!({"op": "add", "path": "/spec/unschedulable", "value": write.unschedulable});
    patch.extend(match &write.mark {
        Some(text) => [json!({"op": "add", "path": mark_path(), "value": text}), set],
        None => [set, json!({"op": "remove", "path": mark_path()})],
    });
    Move::Patch(Value::Array(patch), result)
}

#[cfg(test)]
#[path = "ownership_tests.rs"]
mod tests;
