//! Which cluster it is, and what each instance of its API server runs.
//!
//! Behind a balancer one address answers for many instances, and the skew rules count the oldest. So the instances are
//! asked one by one, at the addresses that they publish themselves. Where one cannot be asked, the address says so.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;
use shiplock_core::facts::ApiServerFacts;
use shiplock_core::id::ClusterUid;
use shiplock_core::problem::Problem;
use shiplock_core::version::{KubernetesVersion, MinorVersion};

use crate::answer::{Ask, bounded, unreadable};
use crate::cache::{Changes, Health};
use crate::connection::Connection;

/// How long a question of the survey may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How often the cluster is asked, which also bounds how old the versions of its API servers may get.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How often the cluster is asked again after it did not answer.
const HEARTBEAT_AFTER_FAILURE: Duration = Duration::from_secs(2);
/// No cluster has more instances of its API server.
pub(crate) const INSTANCES_MAX: usize = 32;

/// What a survey found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Surveyed {
    pub(crate) uid: ClusterUid,
    pub(crate) api_servers: Vec<ApiServerFacts>,
}

/// Asks everything once.
pub(crate) async fn survey(connection: &Connection) -> Result<Surveyed, Problem> {
    let (uid, api_servers) = futures::try_join!(cluster_uid(connection), api_servers(connection))?;
    Ok(Surveyed { uid, api_servers })
}

/// The UID of namespace kube-system.
pub(crate) async fn cluster_uid(connection: &Connection) -> Result<ClusterUid, Problem> {
    let ask = Ask::new("get", "namespaces");
    let namespaces: Api<Namespace> = Api::all(connection.client.clone());
    let namespace = bounded(&connection.server, ask, LIMIT, namespaces.get("kube-system")).await?;
    let uid = namespace.metadata.uid.filter(|uid| !uid.is_empty());
    uid.map(ClusterUid::new).ok_or_else(|| unreadable(ask).cause("namespace kube-system has no UID"))
}

async fn api_servers(connection: &Connection) -> Result<Vec<ApiServerFacts>, Problem> {
    let addresses = instance_addresses(connection).await.unwrap_or_else(|problem| {
        tracing::debug!(%problem, "the instances of the API server cannot be listed");
        BTreeSet::new()
    });
    let answers: Vec<(String, Option<Answered>)> = stream::iter(addresses)
        .map(|address| async move {
            let version = match connection.to_instance(&address) {
                Some(Ok(instance)) => version(&instance).await,
                Some(Err(problem)) => Err(problem),
                None => return (address, None),
            };
            if let Err(problem) = &version {
                tracing::debug!(%problem, address, "an instance of the API server cannot be asked");
            }
            (address, version.ok())
        })
        .buffer_unordered(INSTANCES_MAX)
        .collect()
        .await;
    combine(connection, answers).await
}

/// Instances that answered stand for themselves; for the others the configured address answers.
async fn combine(
    connection: &Connection,
    answers: Vec<(String, Option<Answered>)>,
) -> Result<Vec<ApiServerFacts>, Problem> {
    let (known, silent): (Vec<_>, Vec<_>) = answers.into_iter().partition(|(_, version)| version.is_some());
    let mut found: Vec<ApiServerFacts> =
        known.into_iter().filter_map(|(address, answered)| Some(facts(address, answered?))).collect();
    if found.is_empty() || !silent.is_empty() {
        let mut silent: Vec<String> = silent.into_iter().map(|(address, _)| address).collect();
        silent.sort();
        let instead = if silent.is_empty() {
            "its instances are not known".to_owned()
        } else {
            format!("in place of {}", silent.join(", "))
        };
        let address = format!("{} ({instead})", connection.server);
        found.push(facts(address, version(connection).await?));
    }
    found.sort_by(|one, other| one.address.cmp(&other.address));
    Ok(found)
}

/// What an API server says of itself: its version, and the older minor version that it emulates.
type Answered = (KubernetesVersion, Option<MinorVersion>);

fn facts(address: String, (version, emulates): Answered) -> ApiServerFacts {
    ApiServerFacts { address, version, emulates }
}

async fn version(connection: &Connection) -> Result<Answered, Problem> {
    let ask = Ask::new("get", "/version");
    let info = bounded(&connection.server, ask, LIMIT, connection.client.apiserver_version()).await?;
    let version =
        KubernetesVersion::parse_reported(&info.git_version).map_err(|error| unreadable(ask).because(&error))?;
    let emulates = match (info.emulation_major, info.emulation_minor) {
        (Some(major), Some(minor)) => format!("{major}.{minor}").parse().ok(),
        // Before 1.33 it does not say so, and emulates nothing.
        _ => None,
    };
    Ok((version, emulates.filter(|emulated| *emulated < version.release)))
}

/// `address:port` of each instance, from the EndpointSlices of the Service `kubernetes`.
pub(crate) async fn instance_addresses(connection: &Connection) -> Result<BTreeSet<String>, Problem> {
    let slices: Api<EndpointSlice> = Api::namespaced(connection.client.clone(), "default");
    let parameters = ListParams::default().labels("kubernetes.io/service-name=kubernetes").limit(100);
    let ask = Ask::new("list", "endpointslices.discovery.k8s.io");
    let slices = bounded(&connection.server, ask, LIMIT, slices.list(&parameters)).await?;
    Ok(slices.items.iter().flat_map(slice_addresses).take(INSTANCES_MAX).collect())
}

fn slice_addresses(slice: &EndpointSlice) -> Vec<String> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let port =
        ports.iter().find(|port| port.name.as_deref() == Some("https")).or(ports.first()).and_then(|port| port.port);
    let Some(port) = port else { return Vec::new() };
    let written = |address: &String| {
        if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
    };
    slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses).map(written).collect()
}

/// The newest survey, kept by a task.
#[derive(Debug)]
pub(crate) struct Survey {
    state: Mutex<State>,
    changes: Arc<Changes>,
}

#[derive(Debug, Default)]
struct State {
    found: Option<Surveyed>,
    health: Health,
    /// When the newest question whose answer counts was sent.
    asked_at: Option<Timestamp>,
}

impl Survey {
    pub(crate) fn new(changes: &Arc<Changes>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changes: changes.clone() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn judge(&self, now: Timestamp) -> Option<Result<Timestamp, Problem>> {
        self.state().health.judge(now)
    }

    pub(crate) fn newest(&self) -> Option<Surveyed> {
        self.state().found.clone()
    }

    /// Asks again and again until the task is aborted: a watch over a cut wire only looks quiet, and no watch tells
    /// what an API server runs.
    pub(crate) async fn follow(self: Arc<Self>, connection: Connection) {
        loop {
            let pause = match self.ask(&connection).await {
                Ok(()) => HEARTBEAT,
                Err(_) => HEARTBEAT_AFTER_FAILURE,
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks once, now.
    pub(crate) async fn ask(&self, connection: &Connection) -> Result<(), Problem> {
        let asked_at = connection.clock.now();
        let found = survey(connection).await;
        let outcome = found.as_ref().map(|_| ()).map_err(Clone::clone);
        self.note(found, asked_at);
        outcome
    }

    fn note(&self, found: Result<Surveyed, Problem>, asked_at: Timestamp) {
        let mut state = self.state();
        let judged = |health: &Health| health.judge(asked_at).map(|judged| judged.is_ok());
        let before = (state.found.clone(), judged(&state.health));
        if state.asked_at.is_some_and(|newest| asked_at < newest) {
            // Another question was sent after this one and was answered first.
            return;
        }
        state.asked_at = Some(asked_at);
        match found {
            Ok(found) => {
                state.found = Some(found);
                state.health.good(asked_at);
                state.health.connect();
            }
            Err(problem) => state.health.lose(problem),
        }
        let after = (state.found.clone(), judged(&state.health));
        drop(state);
        if before != after {
            self.changes.tell();
        }
    }
}

#[cfg(test)]
#[path = "survey_tests.rs"]
mod tests;
