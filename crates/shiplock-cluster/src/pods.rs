//! The pods on a node, and how each is told to go. Every such request names the UID, so that a pod of the same name
//! that has come since is never hit.

use http::Method;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};
use shiplock_core::id::NodeName;
use shiplock_core::problem::Problem;

use crate::answer::{Ask, Failure, unreadable};
use crate::connection::Connection;
use crate::port::{DrainPod, Eviction};
use crate::request::{JSON, pod_path, write};
use crate::translation::{Budget, drain_pod, is_finished};

/// The cause that an API server gives where a budget stands against an eviction.
const BUDGET_CAUSE: &str = "DisruptionBudget";
/// No node carries more pages of pods than this.
const PAGES_MAX: usize = 20;

/// The pods on a node, finished ones left out.
pub(crate) async fn pods_on(
    connection: &Connection,
    node: &NodeName,
    budgets: &[Budget],
) -> Result<Vec<DrainPod>, Problem> {
    let ask = Ask::new("list", "pods");
    let pods: Api<Pod> = Api::all(connection.client.clone());
    let mut parameters = ListParams::default().fields(&format!("spec.nodeName={node}")).limit(500);
    let mut found = Vec::new();
    for _ in 0..PAGES_MAX {
        let page = connection.read(ask, pods.list(&parameters)).await?;
        found.extend(page.items.into_iter().filter(|pod| !is_finished(pod)).map(|pod| drain_pod(pod, budgets)));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(found),
        }
    }
    Err(unreadable(ask).cause(format!("node {node} has more than {PAGES_MAX} pages of pods")))
}

/// Asks for an eviction.
pub(crate) async fn evict(connection: &Connection, pod: &DrainPod) -> Result<Eviction, Problem> {
    let body = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"namespace": pod.namespace, "name": pod.name},
        "deleteOptions": {"preconditions": {"uid": pod.uid}},
    });
    let path = format!("{}/eviction", pod_path(&pod.namespace, &pod.name));
    let ask = Ask::new("create", "pods/eviction");
    let request = async { connection.client.request::<Value>(write(Method::POST, &path, JSON, &body)?).await };
    match connection.act(ask, request).await {
        Ok(_) => Ok(Eviction::Accepted),
        Err(failure) => refusal(connection, pod, failure).await,
    }
}

/// Deletes a pod, whatever its budgets say, with its own grace period.
pub(crate) async fn delete(connection: &Connection, pod: &DrainPod) -> Result<Eviction, Problem> {
    let body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": pod.uid}});
    let path = pod_path(&pod.namespace, &pod.name);
    let ask = Ask::new("delete", "pods");
    let request = async { connection.client.request::<Value>(write(Method::DELETE, &path, JSON, &body)?).await };
    match connection.act(ask, request).await {
        Ok(_) => Ok(Eviction::Accepted),
        Err(failure) => refusal(connection, pod, failure).await,
    }
}

/// What a refusal means. No answer is an error; a refusal is an answer.
async fn refusal(connection: &Connection, pod: &DrainPod, failure: Failure) -> Result<Eviction, Problem> {
    match failure.code() {
        0 => Err(failure.problem),
        404 => Ok(Eviction::Gone),
        // The precondition failed, or another write came between. Only a look tells which.
        409 if is_gone(connection, pod).await? => Ok(Eviction::Gone),
        429 if failure.has_cause(BUDGET_CAUSE) => Ok(Eviction::RefusedByBudget),
        // An API server evicts no pod that two budgets select; its answer has no cause to tell it by.
        500 if pod.budgets.len() > 1 => Ok(Eviction::RefusedByBudget),
        // Its namespace is going away and takes the pod along: no permission is missing.
        403 if failure.has_cause("NamespaceTerminating") => {
            let problem = unreadable(Ask::new("create", "pods/eviction"));
            Ok(Eviction::Refused(problem.cause(format!("namespace {} is being deleted", pod.namespace))))
        }
        401 => Err(failure.problem),
        _ => Ok(Eviction::Refused(failure.problem)),
    }
}

async fn is_gone(connection: &Connection, pod: &DrainPod) -> Result<bool, Problem> {
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), &pod.namespace);
    let found = connection.act(Ask::new("get", "pods"), pods.get_opt(&pod.name)).await?;
    Ok(found.is_none_or(|found| found.metadata.uid.as_deref() != Some(pod.uid.as_str())))
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
