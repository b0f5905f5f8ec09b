//! REST under `/api/v1` for people and programs: the CLI and the console are clients of it and of nothing else.
//!
//! Nothing here decides what an upgrade does next: a request becomes an event in the log ([`control`]), and the
//! driver acts on it. Every error has the same body ([`failure`]).

pub(crate) mod access;
mod agents;
mod backup;
mod check;
mod cluster;
pub(crate) mod connection;
pub mod control;
pub(crate) mod entrance;
mod event;
pub(crate) mod failure;
pub(crate) mod fold;
pub(crate) mod input;
pub(crate) mod name;
mod plan;
mod rollback;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
mod upgrade;

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Json, Router, middleware};
use shiplock_api::operation::{self, Method, Operation};
use shiplock_api::rest::{Page, ServerView, VersionView};
use shiplock_core::catalogue::Catalogue;
use shiplock_core::id::UpgradeId;
use shiplock_core::upgrade::{EventRecord, WaitingOn};
use tokio::sync::watch;

pub use self::access::ApiToken;
pub use self::entrance::NetworkOptions;
pub use self::fold::Folds;
use crate::authority::Authority;
use crate::backup::Backups;
use crate::clusters::ClusterPool;
use crate::gateway::Enrolled;
use crate::hub::AgentHub;
use crate::precheck::Precheck;
use crate::store::Store;

/// What REST needs to know of the drivers.
pub trait Drivers: Send + Sync {
    /// Something was appended to an upgrade by a request, or it was created.
    fn wake(&self, upgrade: &UpgradeId, appended: &[EventRecord]);
    /// Why an upgrade does not move now.
    fn waiting_on(&self, upgrade: &UpgradeId) -> Vec<WaitingOn>;
    /// Changes whenever an event was appended.
    fn appended(&self) -> watch::Receiver<u64>;
}

impl Drivers for Arc<crate::driver::Supervisor> {
    fn wake(&self, upgrade: &UpgradeId, appended: &[EventRecord]) {
        self.note_appended(appended);
        crate::driver::Supervisor::wake(self, upgrade);
    }
    fn waiting_on(&self, upgrade: &UpgradeId) -> Vec<WaitingOn> {
        crate::driver::Supervisor::waiting_on(self, upgrade)
    }
    fn appended(&self) -> watch::Receiver<u64> {
        crate::driver::Supervisor::appended(self)
    }
}

/// All that the handlers share.
pub struct Site {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The agents that are heard of.
    pub hub: Arc<AgentHub>,
    /// The connections to clusters.
    pub clusters: Arc<ClusterPool>,
    /// The drivers.
    pub drivers: Arc<dyn Drivers>,
    /// The enrolled agents.
    pub enrolled: Arc<Enrolled>,
    /// The certificate authority.
    pub authority: Arc<Authority>,
    /// The backups of etcd.
    pub backups: Arc<Backups>,
    /// The pre-check.
    pub precheck: Arc<Precheck>,
    /// The version catalogue.
    pub catalogue: Catalogue,
    /// Names this server process.
    pub holder: String,
    /// The URL under which agents reach the gateway.
    pub agent_url: String,
    /// Turns true when the server stops: feeds end then.
    pub closing: watch::Receiver<bool>,
    /// The folds of upgrades that were looked at.
    pub folds: Folds,
}

/// The routes; `tokens` are let in over the network.
pub(crate) fn router(site: Arc<Site>, tokens: &[ApiToken]) -> Router {
    let api =
        Operation::ALL.iter().fold(Router::new(), |api, operation| api.route(operation.path(), route(*operation)));
    let access = access::Access(tokens.into());
    Router::new()
        .nest(operation::ROOT, api)
        .fallback(failure::nothing_here)
        .method_not_allowed_fallback(failure::nothing_for_method)
        .layer(middleware::from_fn_with_state(access, access::admit))
        .layer(middleware::from_fn(failure::name_requests))
        .with_state(site)
}

/// What serves an operation. The list of operations is also that of the OpenAPI document, so nothing is served that is
/// not in it, and nothing is in it that is not served.
fn route(operation: Operation) -> MethodRouter<Arc<Site>> {
    let method = match operation.method() {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
    };
    match operation {
        Operation::ShowServer => on(method, server),
        Operation::ListVersions => on(method, versions),
        Operation::ListClusters => on(method, cluster::list),
        Operation::AddCluster => on(method, cluster::add),
        Operation::ShowCluster => on(method, cluster::show),
        Operation::ChangeCluster => on(method, cluster::change),
        Operation::RemoveCluster => on(method, cluster::remove),
        Operation::ListAgents => on(method, agents::list),
        Operation::RemoveAgent => on(method, agents::remove),
        Operation::MakeJoinToken => on(method, agents::join_token),
        Operation::ShowJoinInstructions => on(method, agents::join_instructions),
        Operation::RunChecks => on(method, check::run),
        Operation::ListReports => on(method, check::list),
        Operation::ShowReport => on(method, check::show),
        Operation::AddAcceptance => on(method, check::accept),
        Operation::ListAcceptances => on(method, check::acceptances),
        Operation::RemoveAcceptance => on(method, check::remove_acceptance),
        Operation::ListBackups => on(method, backup::list),
        Operation::ShowBackup => on(method, backup::show),
        Operation::VerifyBackup => on(method, backup::verify),
        Operation::ReadBackup => on(method, backup::content),
        Operation::MakePlan => on(method, plan::make),
        Operation::ShowPlan => on(method, plan::show),
        Operation::ListUpgrades => on(method, upgrade::list),
        Operation::CreateUpgrade => on(method, upgrade::create),
        Operation::ShowUpgrade => on(method, upgrade::show),
        Operation::ChangeUpgrade => on(method, upgrade::change),
        Operation::PauseUpgrade => on(method, upgrade::pause),
        Operation::ContinueUpgrade => on(method, upgrade::go_on),
        Operation::CancelUpgrade => on(method, upgrade::cancel),
        Operation::RollBackUpgrade => on(method, rollback::make),
        Operation::ListUpgradeEvents => on(method, event::of_upgrade),
        Operation::ListEvents => on(method, event::of_all),
    }
}

async fn versions(State(site): State<Arc<Site>>) -> Json<Page<VersionView>> {
    Json(Page { items: VersionView::of_catalogue(&site.catalogue), next: None })
}

async fn server(State(site): State<Arc<Site>>) -> Json<ServerView> {
    Json(ServerView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        catalogue: site.catalogue.edition.clone(),
        holder: site.holder.clone(),
        agent_url: site.agent_url.clone(),
    })
}
