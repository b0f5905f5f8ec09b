//! REST under `/api/v1` for people and programs: the CLI and the console are clients of it and of nothing else.
//!
//! Nothing here decides what an upgrade does next: a request becomes an event in the log ([`control`]), and the
//! driver acts on it. Every error has the same body ([`failure`]).

pub(crate) mod access;
mod agents;
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
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
mod upgrade;

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use shiplock_api::rest::ServerView;
use shiplock_core::catalogue::Catalogue;
use shiplock_core::id::UpgradeId;
use shiplock_core::upgrade::{EventRecord, WaitingOn};
use tokio::sync::watch;

pub use self::access::ApiToken;
pub use self::entrance::NetworkOptions;
pub use self::fold::Folds;
use crate::authority::Authority;
use crate::clusters::ClusterPool;
use crate::gateway::Enrolled;
use crate::hub::AgentHub;
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
    let api = Router::new()
        .route("/server", get(server))
        .route("/clusters", get(cluster::list).post(cluster::add))
        .route("/clusters/{name}", get(cluster::show).delete(cluster::remove))
        .route("/clusters/{name}/agents", get(agents::list))
        .route("/clusters/{name}/join-tokens", post(agents::join_token))
        .route("/clusters/{name}/plans", post(plan::make))
        .route("/plans/{id}", get(plan::show))
        .route("/upgrades", get(upgrade::list).post(upgrade::create))
        .route("/upgrades/{id}", get(upgrade::show).patch(upgrade::change))
        .route("/upgrades/{id}/pause", post(upgrade::pause))
        .route("/upgrades/{id}/continue", post(upgrade::go_on))
        .route("/upgrades/{id}/cancel", post(upgrade::cancel))
        .route("/upgrades/{id}/events", get(event::of_upgrade))
        .route("/events", get(event::of_all));
    let access = access::Access(tokens.into());
    Router::new()
        .nest("/api/v1", api)
        .fallback(failure::nothing_here)
        .method_not_allowed_fallback(failure::nothing_for_method)
        .layer(middleware::from_fn_with_state(access, access::admit))
        .layer(middleware::from_fn(failure::name_requests))
        .with_state(site)
}

async fn server(State(site): State<Arc<Site>>) -> Json<ServerView> {
    Json(ServerView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        catalogue: site.catalogue.edition.clone(),
        holder: site.holder.clone(),
        agent_url: site.agent_url.clone(),
    })
}
