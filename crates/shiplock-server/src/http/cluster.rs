//! Clusters: registered, shown and forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use futures::StreamExt;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use shiplock_api::rest::{ClusterAdd, ClusterChange, ClusterView, NodeView, Page, PoolView};
use shiplock_core::artefact::ArtefactIndex;
use shiplock_core::catalogue::{Catalogue, VersionRequest};
use shiplock_core::facts::{AgentFacts, ClusterFacts, NodeFacts, Readiness};
use shiplock_core::id::{ClusterName, NodeName, PoolName, UpgradeId};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::version::KubernetesVersion;

use super::Site;
use super::access::By;
use super::failure::Failure;
use super::input::{Input, Named};
use super::name::check_cluster_name;
use crate::clusters::{Connector, changed, facts_within};
use crate::store::{ClusterRecord, StoreError, UpgradeFilter};

/// How long a look at one cluster may take before it is shown as unreadable.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// Clusters that are looked at side by side.
const LOOKS_AT_ONCE: usize = 16;
/// An agent that spoke within this time is shown as there.
const AGENT_LIVE_SECONDS: i64 = 60;

/// The registration of a cluster, or the problem that there is none.
pub(super) async fn known(site: &Site, name: &ClusterName) -> Result<ClusterRecord, Problem> {
    let record = site.store.cluster(name).await.map_err(StoreError::into_problem)?;
    record.ok_or_else(|| Problem::new(Code::ClusterUnknown).with("cluster", name))
}

/// `POST /api/v1/clusters`.
pub(super) async fn add(
    State(site): State<Arc<Site>>,
    By(by): By,
    Input(asked): Input<ClusterAdd>,
) -> Result<(StatusCode, Json<ClusterView>), Failure> {
    check_cluster_name(asked.name.as_str())?;
    if let Some(mirror) = &asked.mirror {
        crate::mirror::check_root(mirror)?;
    }
    let record = site.clusters.add(&asked, Timestamp::now()).await?;
    tracing::info!(cluster = %record.name, uid = %record.uid, %by, "a cluster was registered");
    Ok((StatusCode::CREATED, Json(view(&site, record).await?)))
}

/// `GET /api/v1/clusters`.
pub(super) async fn list(State(site): State<Arc<Site>>) -> Result<Json<Page<ClusterView>>, Failure> {
    let records = site.store.clusters().await?;
    let site = &site;
    let views = futures::stream::iter(records).map(|record| view(site, record)).buffered(LOOKS_AT_ONCE);
    let items = views.collect::<Vec<_>>().await.into_iter().collect::<Result<_, _>>()?;
    Ok(Json(Page { items, next: None }))
}

/// `GET /api/v1/clusters/{name}`.
pub(super) async fn show(
    State(site): State<Arc<Site>>,
    Named(name): Named<ClusterName>,
) -> Result<Json<ClusterView>, Failure> {
    let record = known(&site, &name).await?;
    Ok(Json(view(&site, record).await?))
}

/// `PATCH /api/v1/clusters/{name}`.
pub(super) async fn change(
    State(site): State<Arc<Site>>,
    By(by): By,
    Named(name): Named<ClusterName>,
    Input(asked): Input<ClusterChange>,
) -> Result<Json<ClusterView>, Failure> {
    let record = known(&site, &name).await?;
    if let Some(mirror) = &asked.mirror {
        // A mirror that works is not given up for one that does not.
        crate::mirror::read_artefacts(mirror).await?;
    }
    let record = site.clusters.change(&record, &asked).await?;
    let (kubeconfig, mirror) = (asked.kubeconfig.is_some(), asked.mirror.is_some());
    tracing::info!(cluster = %name, kubeconfig, mirror, %by, "a cluster was changed");
    Ok(Json(view(&site, record).await?))
}

/// `DELETE /api/v1/clusters/{name}`.
pub(super) async fn remove(
    State(site): State<Arc<Site>>,
    By(by): By,
    Named(name): Named<ClusterName>,
) -> Result<StatusCode, Failure> {
    site.store.remove_cluster(&name).await?;
    site.clusters.forget(&name);
    site.enrolled.forget(&name).await;
    tracing::info!(cluster = %name, %by, "a cluster was forgotten");
    Ok(StatusCode::NO_CONTENT)
}

async fn view(site: &Site, record: ClusterRecord) -> Result<ClusterView, Failure> {
    let upgrade = active_upgrade(site, &record.name).await?;
    let looked = tokio::time::timeout(LOOK_WITHIN, async {
        let cluster = site.clusters.connect(&record.name).await?;
        facts_within(&*cluster, LOOK_WITHIN).await
    });
    let held = async {
        match &record.mirror {
            Some(mirror) => tokio::time::timeout(LOOK_WITHIN, crate::mirror::read_artefacts(mirror)).await.map(Some),
            None => Ok(None),
        }
    };
    let (looked, held) = tokio::join!(looked, held);
    let unreachable = |_| Err(Problem::new(Code::ClusterUnreachable).with("server", &record.server));
    let held = held.unwrap_or_else(|elapsed| {
        let location = record.mirror.as_deref().unwrap_or_default();
        Some(Err(Problem::new(Code::ArtefactIndexUnreadable).with("location", location).because(&elapsed)))
    });
    let looked = looked
        .unwrap_or_else(unreachable)
        .and_then(|facts| if facts.uid == record.uid { Ok(facts) } else { Err(changed(&record, &facts.uid)) });
    let mut view = ClusterView {
        name: record.name,
        uid: record.uid,
        server: record.server,
        mirror: record.mirror,
        version: None,
        next_versions: Vec::new(),
        support_days_left: None,
        control_plane: Vec::new(),
        pools: Vec::new(),
        upgrade,
        problem: None,
    };
    match looked {
        Ok(facts) => {
            let now = Timestamp::now();
            view.version = facts.api_servers.iter().map(|server| server.version).min();
            view.support_days_left = view.version.and_then(|version| support_days_left(&site.catalogue, version, now));
            match (view.version, held.transpose()) {
                (Some(version), Ok(held)) => {
                    view.next_versions = next_versions(&site.catalogue, version, held.as_ref());
                }
                (_, Err(problem)) => view.problem = Some(problem),
                (None, _) => {}
            }
            let agents = site.hub.agents(&view.name);
            view.control_plane = control_plane(&facts, &agents, now);
            view.pools = pools(&facts, &agents, now);
        }
        Err(problem) => view.problem = Some(problem),
    }
    Ok(view)
}

/// The active upgrade of a cluster.
pub(super) async fn active_upgrade(site: &Site, name: &ClusterName) -> Result<Option<UpgradeId>, Failure> {
    let filter = UpgradeFilter { cluster: Some(name.clone()), active: true, after: None, limit: 1 };
    Ok(site.store.upgrades(&filter).await?.into_iter().next().map(|row| row.id))
}

/// A newer patch of the same minor, then the newest patch of each minor that an edge leads to; of those that the mirror
/// holds, where there is one.
fn next_versions(
    catalogue: &Catalogue,
    version: KubernetesVersion,
    held: Option<&ArtefactIndex>,
) -> Vec<KubernetesVersion> {
    let Some(release) = catalogue.release(version.release) else { return Vec::new() };
    std::iter::once(&release.minor)
        .chain(&release.upgrades_to)
        .filter_map(|minor| match held {
            Some(held) => catalogue.newest_held(*minor, held),
            None => catalogue.resolve(VersionRequest::Newest(*minor)).ok(),
        })
        .filter(|next| *next > version)
        .collect()
}

fn support_days_left(catalogue: &Catalogue, version: KubernetesVersion, now: Timestamp) -> Option<i64> {
    let end = catalogue.release(version.release)?.end_of_support?;
    let today = now.to_zoned(TimeZone::UTC).date();
    Some(i64::from(today.until(end).ok()?.get_days()))
}

fn node_view(name: &NodeName, node: &NodeFacts, agents: &BTreeMap<NodeName, AgentFacts>, now: Timestamp) -> NodeView {
    let live = |agent: &AgentFacts| now.as_second() - agent.last_heard_at.as_second() <= AGENT_LIVE_SECONDS;
    NodeView {
        name: name.clone(),
        kubelet: node.kubelet_version.clone(),
        container_runtime: node.container_runtime_version.clone(),
        ready: node.ready == Readiness::Ready,
        cordoned: node.unschedulable,
        agent: agents.get(name).is_some_and(live),
    }
}

fn control_plane(facts: &ClusterFacts, agents: &BTreeMap<NodeName, AgentFacts>, now: Timestamp) -> Vec<NodeView> {
    let masters = facts.nodes.iter().filter(|(_, node)| node.is_control_plane());
    masters.map(|(name, node)| node_view(name, node, agents, now)).collect()
}

fn pools(facts: &ClusterFacts, agents: &BTreeMap<NodeName, AgentFacts>, now: Timestamp) -> Vec<PoolView> {
    let mut pools: BTreeMap<PoolName, Vec<NodeView>> = BTreeMap::new();
    for (name, node) in facts.nodes.iter().filter(|(_, node)| !node.is_control_plane()) {
        pools.entry(node.pool()).or_default().push(node_view(name, node, agents, now));
    }
    pools.into_iter().map(|(name, nodes)| PoolView { name, nodes }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_versions_are_the_newest_patches_that_one_hop_leads_to() {
        let catalogue = Catalogue::shipped();
        let newest = |minor: &str| catalogue.resolve(VersionRequest::parse(minor).unwrap()).unwrap();
        let next = |version| next_versions(&catalogue, version, None);
        assert_eq!(next(KubernetesVersion::new(1, 35, 0)), [newest("1.35"), newest("1.36")]);
        assert_eq!(next(newest("1.35")), [newest("1.36")]);
        assert!(next(KubernetesVersion::new(1, 99, 0)).is_empty());
        let mut held = shiplock_core::sample::artefacts();
        held.releases.truncate(1);
        held.releases[0].kubernetes = KubernetesVersion::new(1, 36, 1);
        let of_mirror = next_versions(&catalogue, newest("1.35"), Some(&held));
        assert_eq!(of_mirror, [KubernetesVersion::new(1, 36, 1)], "what the mirror does not hold is not offered");
    }

    #[test]
    fn days_of_support_count_down_through_zero() {
        let catalogue = Catalogue::shipped();
        let version = KubernetesVersion::new(1, 35, 0);
        let end = catalogue.release(version.release).unwrap().end_of_support.unwrap();
        let at = |days: i64| {
            let day = end.checked_add(jiff::Span::new().days(days)).unwrap();
            support_days_left(&catalogue, version, day.at(23, 59, 0, 0).to_zoned(TimeZone::UTC).unwrap().timestamp())
        };
        assert_eq!((at(-100), at(0), at(3)), (Some(100), Some(0), Some(-3)));
    }
}
