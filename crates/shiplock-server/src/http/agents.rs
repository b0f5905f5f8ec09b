//! Agents of a cluster: who is enrolled, tokens for those to come, and how a new node joins.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use shiplock_api::rest::{AgentView, JoinToken, Page};
use shiplock_core::id::{ClusterName, NodeName};
use shiplock_core::join::JoinInstructions;
use shiplock_core::problem::{Code, Problem};

use super::Site;
use super::access::{By, token_hash};
use super::cluster::{active_upgrade, known};
use super::failure::Failure;
use super::input::{Asked, Named};
use super::name::random_name;
use super::plan::{facts_and_artefacts, mirror_of};

/// How long a join token may be used.
const TOKEN_VALID: SignedDuration = SignedDuration::from_hours(24);
/// Random digits of a token, of 5 bits each.
const TOKEN_DIGITS: usize = 40;

/// `GET /api/v1/clusters/{name}/agents`.
pub(super) async fn list(
    State(site): State<Arc<Site>>,
    Named(name): Named<ClusterName>,
) -> Result<Json<Page<AgentView>>, Failure> {
    known(&site, &name).await?;
    let heard = site.hub.agents(&name);
    let agents = site.store.agents(&name).await?.into_iter().map(|agent| {
        let heard = heard.get(&agent.node);
        AgentView {
            last_heard_at: heard.map(|heard| heard.last_heard_at),
            machine: heard.map_or(agent.machine, |heard| (*heard.machine).clone()),
            node: agent.node,
        }
    });
    Ok(Json(Page { items: agents.collect(), next: None }))
}

/// `DELETE /api/v1/clusters/{name}/agents/{node}`.
pub(super) async fn remove(
    State(site): State<Arc<Site>>,
    By(by): By,
    Named((name, node)): Named<(ClusterName, NodeName)>,
) -> Result<StatusCode, Failure> {
    known(&site, &name).await?;
    if let Some(upgrade) = active_upgrade(&site, &name).await? {
        let problem = Problem::new(Code::ClusterInUse).with("cluster", &name).with("upgrade", upgrade);
        return Err(Failure(problem));
    }
    if !site.enrolled.remove(&*site.store, &name, &node).await? {
        return Err(Failure(Problem::new(Code::AgentUnknown).with("node", &node).with("cluster", &name)));
    }
    site.hub.forget(&name, &node);
    tracing::info!(cluster = %name, %node, %by, "an agent was forgotten");
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/clusters/{name}/join-tokens`.
pub(super) async fn join_token(
    State(site): State<Arc<Site>>,
    By(by): By,
    Named(name): Named<ClusterName>,
) -> Result<(StatusCode, Json<JoinToken>), Failure> {
    known(&site, &name).await?;
    let token = random_name("", TOKEN_DIGITS);
    let now = Timestamp::now();
    let expires_at = now.checked_add(TOKEN_VALID).unwrap_or(now);
    site.store.add_join_token(&token_hash(&token), &name, expires_at).await?;
    tracing::info!(cluster = %name, %by, "a join token was made");
    let (server, ca_pin) = (site.agent_url.clone(), site.authority.ca_pin().to_owned());
    let command = format!("shiplock-agent join --server {server} --token {token} --ca-pin {ca_pin}");
    Ok((StatusCode::CREATED, Json(JoinToken { token, ca_pin, server, expires_at, command })))
}

/// The query of [`join_instructions`].
#[derive(Debug, Deserialize)]
pub(super) struct JoinQuery {
    architecture: Option<String>,
}

/// `GET /api/v1/clusters/{name}/join-instructions`.
pub(super) async fn join_instructions(
    State(site): State<Arc<Site>>,
    Named(name): Named<ClusterName>,
    Asked(query): Asked<JoinQuery>,
) -> Result<Json<JoinInstructions>, Failure> {
    let record = known(&site, &name).await?;
    let mirror = mirror_of(&record)?;
    let (facts, artefacts) = facts_and_artefacts(&site, &record, mirror).await?;
    let architecture = query.architecture.as_deref().unwrap_or("amd64");
    Ok(Json(JoinInstructions::of(&name, &facts, mirror, &artefacts, architecture)?))
}
