//! Plans: made from the cluster as it is, and shown again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use shiplock_api::rest::PlanCreate;
use shiplock_core::artefact::ArtefactIndex;
use shiplock_core::estimate::MeasuredTimes;
use shiplock_core::facts::{AgentFacts, ClusterFacts};
use shiplock_core::id::{ClusterName, NodeName, PlanId};
use shiplock_core::plan::{Plan, PlanInput, make_plan};
use shiplock_core::problem::{Code, Problem};

use super::Site;
use super::access::By;
use super::check::acceptable;
use super::cluster::known;
use super::failure::Failure;
use super::input::{Input, Named};
use super::name::random_name;
use crate::clusters::{Connector, changed, facts_within};
use crate::store::{ClusterRecord, StoreError, UpgradeFilter};

/// How long the facts of the cluster may take.
pub(super) const FACTS_WITHIN: Duration = Duration::from_secs(15);

/// `POST /api/v1/clusters/{name}/plans`.
pub(super) async fn make(
    State(site): State<Arc<Site>>,
    By(by): By,
    Named(name): Named<ClusterName>,
    Input(mut asked): Input<PlanCreate>,
) -> Result<(StatusCode, Json<Plan>), Failure> {
    accept_by_id(&mut asked.request.options.accept)?;
    let record = known(&site, &name).await?;
    let mirror = mirror_of(&record)?;
    let (facts, artefacts) = facts_and_artefacts(&site, &record, mirror).await?;
    let agents = agents(&site, &name).await?;
    let measured = measured(&site, &name).await?;
    let id = PlanId::new(random_name("p", 8));
    let plan = make_plan(&PlanInput {
        id: &id,
        now: Timestamp::now(),
        by: &by,
        cluster: &name,
        request: &asked.request,
        catalogue: &site.catalogue,
        facts: &facts,
        agents: &agents,
        mirror,
        artefacts: &artefacts,
        measured: &measured,
    })?;
    if asked.dry_run {
        return Ok((StatusCode::OK, Json(plan)));
    }
    site.store.add_plan(&plan).await?;
    tracing::info!(cluster = %name, plan = %plan.id, to = %plan.to, %by, "a plan was made");
    Ok((StatusCode::CREATED, Json(plan)))
}

/// Turns the words of `accept` into ids of checks. One that names none accepts nothing, which a person must hear.
pub(super) fn accept_by_id(accept: &mut [String]) -> Result<(), Problem> {
    for word in accept {
        *word = acceptable("accept", word)?;
    }
    Ok(())
}

/// What a cluster and its mirror hold now, read at once; the cluster is still the one that was registered.
pub(super) async fn facts_and_artefacts(
    site: &Site,
    record: &ClusterRecord,
    mirror: &str,
) -> Result<(ClusterFacts, ArtefactIndex), Failure> {
    let read_facts = async {
        let cluster = site.clusters.connect(&record.name).await?;
        facts_within(&*cluster, FACTS_WITHIN).await
    };
    let (facts, artefacts) = tokio::try_join!(read_facts, crate::mirror::read_artefacts(mirror))?;
    if facts.uid != record.uid {
        return Err(Failure(changed(record, &facts.uid)));
    }
    Ok((facts, artefacts))
}

/// The mirror of a cluster, or the problem that it was registered without one.
pub(super) fn mirror_of(record: &ClusterRecord) -> Result<&str, Problem> {
    record.mirror.as_deref().ok_or_else(|| {
        Problem::new(Code::ArtefactIndexUnreadable)
            .with("location", format!("of cluster {}", record.name))
            .cause("the cluster was registered without --mirror")
    })
}

/// How many of a cluster's newest upgrades tell how long its steps take.
const MEASURED_UPGRADES: u32 = 5;

/// What the cluster's own upgrades measured. One whose log cannot be read tells nothing.
pub(super) async fn measured(site: &Site, name: &ClusterName) -> Result<MeasuredTimes, StoreError> {
    let filter = UpgradeFilter { cluster: Some(name.clone()), active: false, after: None, limit: MEASURED_UPGRADES };
    let mut times = MeasuredTimes::default();
    for row in site.store.upgrades(&filter).await? {
        if let Ok(upgrade) = site.folds.upgrade(&*site.store, &row.id).await {
            times.add(&upgrade);
        }
    }
    Ok(times)
}

/// The enrolled agents. One that was not heard of since the server was started is as it was when it was recorded.
pub(super) async fn agents(site: &Site, name: &ClusterName) -> Result<BTreeMap<NodeName, AgentFacts>, StoreError> {
    let mut heard = site.hub.agents(name);
    let stored = site.store.agents(name).await?;
    Ok(stored
        .into_iter()
        .map(|agent| {
            let recorded = AgentFacts { last_heard_at: agent.enrolled_at, machine: Arc::new(agent.machine) };
            (agent.node.clone(), heard.remove(&agent.node).unwrap_or(recorded))
        })
        .collect())
}

/// `GET /api/v1/plans/{id}`.
pub(super) async fn show(State(site): State<Arc<Site>>, Named(id): Named<PlanId>) -> Result<Json<Plan>, Failure> {
    Ok(Json(kept(&site, &id).await?))
}

/// A plan that was kept, or the problem that there is none.
pub(super) async fn kept(site: &Site, id: &PlanId) -> Result<Plan, Problem> {
    let plan = site.store.plan(id).await.map_err(StoreError::into_problem)?;
    plan.ok_or_else(|| Problem::new(Code::PlanUnknown).with("plan", id))
}
