//! The lists that a copy for rehearsal needs.

use serde::de::DeserializeOwned;
use shiplock_check::copy::ClusterCopy;
use shiplock_check::copy::item::{Items, Namespace, cluster_copy};
use shiplock_check::snapshot::Read;

use super::Progress;
use super::request::{List, Requests};

/// Reads everything that a copy needs. Without one of its lists there is no copy: a rehearsal must not take what it
/// could not see for what is not there.
pub(super) async fn read(requests: &Requests<'_>, progress: Progress<'_>) -> Read<ClusterCopy> {
    match items(requests, progress).await {
        Ok(items) => Read::Seen(cluster_copy(items)),
        Err(why) => Read::NotSeen(why),
    }
}

async fn items(requests: &Requests<'_>, progress: Progress<'_>) -> Result<Items, String> {
    progress("copy");
    let (nodes, pods, deployments, replica_sets, stateful_sets, daemon_sets) = futures::try_join!(
        list(requests, "/api/v1/nodes"),
        list(requests, "/api/v1/pods"),
        list(requests, "/apis/apps/v1/deployments"),
        list(requests, "/apis/apps/v1/replicasets"),
        list(requests, "/apis/apps/v1/statefulsets"),
        list(requests, "/apis/apps/v1/daemonsets"),
    )?;
    let (budgets, claims, volumes, namespaces) = futures::try_join!(
        list(requests, "/apis/policy/v1/poddisruptionbudgets"),
        list(requests, "/api/v1/persistentvolumeclaims"),
        list(requests, "/api/v1/persistentvolumes"),
        list::<Namespace>(requests, "/api/v1/namespaces"),
    )?;
    let system = namespaces.iter().find(|namespace| namespace.name() == "kube-system");
    Ok(Items {
        cluster_uid: system.map(|namespace| namespace.uid().to_owned()).unwrap_or_default(),
        nodes,
        pods,
        deployments,
        replica_sets,
        stateful_sets,
        daemon_sets,
        budgets,
        claims,
        volumes,
    })
}

async fn list<T: DeserializeOwned>(requests: &Requests<'_>, path: &str) -> Result<Vec<T>, String> {
    match requests.list(List::of(path)).await {
        Read::Seen(items) => Ok(items),
        Read::NotSeen(why) => Err(format!("{}: {why}", path.rsplit('/').next().unwrap_or(path))),
        Read::NotAsked => Err(format!("{path} was not read")),
    }
}
