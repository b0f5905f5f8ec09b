//! TLS servers that the API server calls, dialled from here: those behind Services through `pods/portforward`, those at
//! addresses directly. Never through the service proxy, whose answer would be the API server's own view of them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;
use shiplock_check::snapshot::Snapshot;
use shiplock_check::tls::{Dialled, backends};
use shiplock_core::facts::examination::{TlsOutcome, TlsTarget};
use shiplock_handshake::handshake;
use tokio::net::TcpStream;

use crate::connection::Connection;

/// The checks that need it.
pub(super) const CHECKS: &[&str] = &["WHK-001", "WHK-002", "WHK-003", "WHK-004", "WHK-005", "WHK-012", "WHK-013"];
/// So many at once.
const AT_ONCE: usize = 4;
/// No cluster has more; further ones are not seen.
const BACKENDS_MAX: usize = 200;
/// How long finding and reaching one may take, without its handshake.
const REACH_LIMIT: Duration = Duration::from_secs(10);
/// How long after a handshake broke off the reason may still come.
const REASON_LIMIT: Duration = Duration::from_secs(1);

/// Dials every backend of a snapshot once, and says how many requests the API server was sent for that.
pub(super) async fn all(connection: &Connection, snapshot: &Snapshot) -> (Vec<Dialled>, u64) {
    let sent = &AtomicU64::new(0);
    let dialled = futures::stream::iter(backends(snapshot).into_iter().enumerate())
        .map(|(index, target)| async move {
            if index >= BACKENDS_MAX {
                let why = format!("there are more than {BACKENDS_MAX}");
                return not_seen(target, why, None);
            }
            match service_of(&target) {
                Some((namespace, name)) => {
                    let (namespace, name) = (namespace.to_owned(), name.to_owned());
                    behind_service(connection, sent, target, &namespace, &name).await
                }
                None => directly(target).await,
            }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    (dialled, sent.load(Ordering::Relaxed))
}

/// `NAME.NAMESPACE.svc` as namespace and name.
fn service_of(target: &TlsTarget) -> Option<(&str, &str)> {
    let (name, namespace) = target.host.strip_suffix(".svc")?.split_once('.')?;
    (!namespace.contains('.')).then_some((namespace, name))
}

fn not_seen(target: TlsTarget, why: String, address: Option<String>) -> Dialled {
    Dialled { target, via: "nothing".to_owned(), address, outcome: TlsOutcome::NotSeen { why } }
}

async fn directly(target: TlsTarget) -> Dialled {
    let address = (target.host.as_str(), target.port);
    let stream = match tokio::time::timeout(REACH_LIMIT, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        // It may be in reach of the API server all the same.
        Ok(Err(error)) => {
            let host = Some(target.host.clone());
            return not_seen(target, format!("it is not in reach from here: {error}"), host);
        }
        Err(_) => {
            let host = Some(target.host.clone());
            return not_seen(target, "it is not in reach from here: no answer".to_owned(), host);
        }
    };
    let outcome = handshake(stream, &target.server_name).await;
    Dialled { target, via: "this machine".to_owned(), address: None, outcome }
}

/// Where the port of a Service is in a pod.
enum Place {
    Pod {
        name: String,
        port: u16,
        /// The address of the Service, which a node reaches where the pod is not reached from here.
        service: Option<String>,
    },
    /// No pod, but an address that nodes reach.
    Elsewhere(String),
}

async fn behind_service(
    connection: &Connection,
    sent: &AtomicU64,
    target: TlsTarget,
    namespace: &str,
    name: &str,
) -> Dialled {
    let found = tokio::time::timeout(REACH_LIMIT, place(connection, sent, namespace, name, target.port)).await;
    match found.unwrap_or_else(|_| Err("the API server does not answer".to_owned())) {
        Err(why) => not_seen(target, why, None),
        Ok(Place::Elsewhere(address)) => {
            not_seen(target, "its endpoints are no pods, so that only an agent reaches them".to_owned(), Some(address))
        }
        Ok(Place::Pod { name, port, service }) => {
            sent.fetch_add(1, Ordering::Relaxed);
            let outcome = through_pod(connection, namespace, &name, port, &target.server_name).await;
            let address = service.filter(|_| matches!(outcome, TlsOutcome::NotSeen { .. }));
            Dialled { target, via: format!("pod {namespace}/{name}"), address, outcome }
        }
    }
}

async fn place(
    connection: &Connection,
    sent: &AtomicU64,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<Place, String> {
    let services: Api<Service> = Api::namespaced(connection.client.clone(), namespace);
    sent.fetch_add(1, Ordering::Relaxed);
    let service = services.get_opt(name).await.map_err(|error| said(&error))?;
    let spec =
        service.and_then(|service| service.spec).ok_or_else(|| format!("there is no Service {namespace}/{name}"))?;
    if let Some(host) = spec.external_name.filter(|host| !host.is_empty()) {
        return Ok(Place::Elsewhere(host));
    }
    let wanted = spec.ports.unwrap_or_default().into_iter().find(|known| known.port == i32::from(port));
    let wanted = wanted.ok_or_else(|| format!("Service {namespace}/{name} has no port {port}"))?;
    let slices: Api<EndpointSlice> = Api::namespaced(connection.client.clone(), namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={name}")).limit(100);
    sent.fetch_add(1, Ordering::Relaxed);
    let slices = slices.list(&of_service).await.map_err(|error| said(&error))?;
    for slice in &slices.items {
        let ports = slice.ports.as_deref().unwrap_or_default();
        let same = |known: &&k8s_openapi::api::discovery::v1::EndpointPort| {
            known.name.as_deref().unwrap_or_default() == wanted.name.as_deref().unwrap_or_default()
        };
        let Some(port) = ports.iter().find(same).and_then(|known| u16::try_from(known.port?).ok()) else { continue };
        let ready = |endpoint: &&k8s_openapi::api::discovery::v1::Endpoint| {
            endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true)
        };
        let Some(endpoint) = slice.endpoints.iter().find(ready) else { continue };
        let service = spec.cluster_ip.clone().filter(|address| !address.is_empty() && address != "None");
        let pod = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
        if let Some(name) = pod.and_then(|pod| pod.name.clone()) {
            return Ok(Place::Pod { name, port, service });
        }
        if let Some(address) = service {
            return Ok(Place::Elsewhere(address));
        }
    }
    Err(format!("Service {namespace}/{name} has no ready endpoint"))
}

/// Shakes hands with a port of a pod. What the pod itself refuses is a failure; what the API refuses is not seen.
async fn through_pod(connection: &Connection, namespace: &str, pod: &str, port: u16, server_name: &str) -> TlsOutcome {
    let pods: Api<Pod> = Api::namespaced(connection.client.clone(), namespace);
    let mut forwarder = match tokio::time::timeout(REACH_LIMIT, pods.portforward(pod, &[port])).await {
        Ok(Ok(forwarder)) => forwarder,
        Ok(Err(error)) => return TlsOutcome::NotSeen { why: format!("pods/portforward: {}", said(&error)) },
        Err(_) => return TlsOutcome::NotSeen { why: "pods/portforward does not answer".to_owned() },
    };
    let reason = forwarder.take_error(port);
    let Some(stream) = forwarder.take_stream(port) else {
        return TlsOutcome::NotSeen { why: "pods/portforward gives no stream".to_owned() };
    };
    let outcome = handshake(stream, server_name).await;
    let outcome = match (outcome, reason) {
        (TlsOutcome::Failed { why }, Some(reason)) => {
            // The kubelet says beside the stream why it cannot connect.
            match tokio::time::timeout(REASON_LIMIT, reason).await {
                Ok(Some(reason)) if !reason.trim().is_empty() => {
                    TlsOutcome::Failed { why: reason.trim().chars().take(300).collect() }
                }
                _ => TlsOutcome::Failed { why },
            }
        }
        (outcome, _) => outcome,
    };
    forwarder.abort();
    outcome
}

fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.chars().take(300).collect(),
        other => other.to_string().chars().take(300).collect(),
    }
}
