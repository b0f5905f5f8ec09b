//! The plan that takes an upgrade back: made from its log and the cluster as it is now.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use shiplock_api::rest::RollbackCreate;
use shiplock_core::check::{CheckReport, check_plan};
use shiplock_core::id::{PlanId, UpgradeId};
use shiplock_core::plan::{Plan, RollbackInput, make_rollback};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::Upgrade;

use super::Site;
use super::access::By;
use super::cluster::known;
use super::failure::Failure;
use super::input::{Input, Named};
use super::name::random_name;
use super::plan::{FACTS_WITHIN, accept_by_id, agents, measured};
use crate::clusters::{Connector, changed, facts_within};
use crate::store::{PAGE_MAX, UpgradeFilter};

/// `POST /api/v1/upgrades/{id}/rollback`.
pub(super) async fn make(
    State(site): State<Arc<Site>>,
    By(by): By,
    Named(id): Named<UpgradeId>,
    Input(mut asked): Input<RollbackCreate>,
) -> Result<(StatusCode, Json<Plan>), Failure> {
    accept_by_id(&mut asked.accept)?;
    let upgrade = site.folds.upgrade(&*site.store, &id).await?;
    if !asked.dry_run && !upgrade.state.is_terminal() {
        let problem = Problem::new(Code::UpgradeActive).with("upgrade", &id).with("state", upgrade.state.word());
        return Err(Failure(problem));
    }
    let name = &upgrade.plan.cluster;
    let record = known(&site, name).await?;
    let newer = newer(&site, &upgrade).await?;
    let read = async {
        let cluster = site.clusters.connect(name).await?;
        let facts = facts_within(&*cluster, FACTS_WITHIN).await?;
        Ok((cluster, facts))
    };
    let (cluster, facts) = read.await.map_err(|problem| without_api(&upgrade.plan, &upgrade.id, problem))?;
    if facts.uid != record.uid || facts.uid != upgrade.plan.cluster_uid {
        return Err(Failure(changed(&record, &facts.uid)));
    }
    let new_apis = cluster.objects_of_new_apis(upgrade.plan.control_plane.release).await;
    // The mirror only helps out where a node has lost an old image.
    let artefacts = match &record.mirror {
        Some(mirror) => crate::mirror::read_artefacts(mirror).await.ok().map(|index| (mirror, index)),
        None => None,
    };
    // What was accepted for the way there holds for the way back, or one who goes back in need is stopped by a question
    // that was answered already.
    let mut accept = asked.accept;
    for id in &upgrade.plan.options.accept {
        if !accept.contains(id) {
            accept.push(id.clone());
        }
    }
    let agents = agents(&site, name).await?;
    let plan = make_rollback(&RollbackInput {
        id: &PlanId::new(random_name("p", 8)),
        now: Timestamp::now(),
        by: &by,
        upgrade: &upgrade,
        newer: newer.as_ref(),
        accept: &accept,
        facts: &facts,
        agents: &agents,
        mirror: artefacts.as_ref().map(|(mirror, index)| (mirror.as_str(), index)),
        new_apis: &new_apis,
        measured: &measured(&site, name).await?,
    })?;
    if asked.must_start {
        check_start(&upgrade.id, &check_plan(&plan, &facts, &agents, Timestamp::now()))?;
    }
    if asked.dry_run {
        return Ok((StatusCode::OK, Json(plan)));
    }
    site.store.add_plan(&plan).await?;
    tracing::info!(cluster = %name, plan = %plan.id, upgrade = %id, %by, "a plan was made that takes an upgrade back");
    Ok((StatusCode::CREATED, Json(plan)))
}

/// Refuses a way back that its own checks would not let start, with what blocks it.
fn check_start(upgrade: &UpgradeId, report: &CheckReport) -> Result<(), Problem> {
    let mut blocking = report.blocking().peekable();
    if blocking.peek().is_none() {
        return Ok(());
    }
    Err(blocking.fold(Problem::new(Code::RollbackBlocked).with("upgrade", upgrade), |refused, finding| {
        let what = finding.problem.as_ref().map_or_else(String::new, |problem| format!(": {problem}"));
        refused.cause(format!("{} {}{what}", finding.check, finding.subject))
    }))
}

/// An API that is away on the only master, which would go back: what can still be done there is told.
fn without_api(plan: &Plan, upgrade: &UpgradeId, problem: Problem) -> Problem {
    let is_away = matches!(problem.code, Code::ClusterUnreachable | Code::ClusterAnswer | Code::ClusterNotRead);
    let Some(node) = plan.only_master().filter(|_| is_away) else { return problem };
    let needs = Problem::new(Code::RollbackNeedsCluster).with("upgrade", upgrade).with("node", node);
    needs.with("cluster", &plan.cluster).because(&problem)
}

/// Refuses the start of a rollback that was planned before a newer upgrade: that one may have touched what masters share.
pub(super) async fn check_newest(site: &Site, plan: &Plan) -> Result<(), Failure> {
    let Some(id) = plan.takes_back() else { return Ok(()) };
    let upgrade = site.folds.upgrade(&*site.store, id).await?;
    match newer(site, &upgrade).await? {
        Some(newest) => Err(Failure(Problem::new(Code::RollbackNotNewest).with("upgrade", id).with("newest", newest))),
        None => Ok(()),
    }
}

/// The newest upgrade of the cluster that came after this one and does not take it back.
async fn newer(site: &Site, upgrade: &Upgrade) -> Result<Option<UpgradeId>, Failure> {
    let cluster = Some(upgrade.plan.cluster.clone());
    let filter = UpgradeFilter { cluster, active: false, after: None, limit: PAGE_MAX };
    for row in site.store.upgrades(&filter).await? {
        if row.id == upgrade.id {
            break;
        }
        // One whose log cannot be read may have done anything.
        let other = site.folds.upgrade(&*site.store, &row.id).await;
        if !other.is_ok_and(|other| other.plan.takes_back() == Some(&upgrade.id)) {
            return Ok(Some(row.id));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use shiplock_core::plan::PlanOptions;
    use shiplock_core::sample;

    use super::*;

    #[test]
    fn where_the_only_master_cannot_be_asked_the_way_back_by_hand_is_told() {
        let away = || Problem::new(Code::ClusterUnreachable).with("server", "https://down:6443");
        for (masters, problem, code) in [
            (1, away(), Code::RollbackNeedsCluster),
            (3, away(), Code::ClusterUnreachable),
            (1, Problem::new(Code::ClusterForbidden), Code::ClusterForbidden),
        ] {
            let options = PlanOptions { accept: vec!["CP-003".to_owned()], ..PlanOptions::default() };
            let cluster = sample::cluster_with_masters(masters, 1);
            let plan = sample::plan_of(&cluster, &sample::request_for_all("1.36", options)).unwrap();
            let told = without_api(&plan, &"u1".into(), problem);
            assert_eq!(told.code, code, "{masters} masters: {told}");
            assert_eq!(
                told.parameters.get("node").map(String::as_str),
                (masters == 1 && code == Code::RollbackNeedsCluster).then_some("m1")
            );
        }
    }

    #[test]
    fn a_way_back_that_its_own_checks_would_stop_is_refused_before_anything_is_ended_for_it() {
        let cluster = sample::cluster_with_masters(1, 1);
        let agents = sample::agents(&cluster, sample::at(0));
        for (accept, stops) in [(vec![], Some("CP-003")), (vec!["CP-003".to_owned()], None)] {
            let options = PlanOptions { accept, ..PlanOptions::default() };
            let plan = sample::plan_of(&cluster, &sample::request_for_all("1.36", options)).unwrap();
            let refused = check_start(&"u1".into(), &check_plan(&plan, &cluster, &agents, sample::at(0))).err();
            assert_eq!(refused.as_ref().map(|refused| refused.code), stops.map(|_| Code::RollbackBlocked));
            let causes = refused.map_or_else(Vec::new, |refused| refused.causes);
            assert_eq!(causes.iter().any(|cause| cause.starts_with("CP-003")), stops.is_some(), "{causes:?}");
        }
    }
}
