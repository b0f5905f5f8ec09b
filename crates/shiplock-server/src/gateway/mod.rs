//! The gateway for agents: mutual TLS on a port of its own, and the questions of the agent protocol.
//!
//! An agent is who its certificate says, and only while that certificate is the enrolled one; what a request says
//! of itself must agree with it. Nothing here decides: permits and reports are answered by the driver.

mod backup;
mod enrolled;
mod entrance;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::routing::post;
use axum::{Extension, Json, Router, middleware};
use jiff::Timestamp;
use rustls::crypto::CryptoProvider;
use serde::Deserialize;
use shiplock_api::agent::{
    BACKUP_PATH, ENROL_PATH, EXAMINATION_PATH, EnrolRequest, EnrolResponse, ExaminationReport, PERMIT_PATH, POLL_PATH,
    PROTOCOL, PermitRequest, PermitResponse, PollRequest, PollResponse, RENEW_PATH, REPORT_PATH, RenewRequest,
    RenewResponse, Report, ReportKind, ReportResponse,
};
use shiplock_core::facts::MachineFacts;
use shiplock_core::id::{ClusterName, NodeName, UpgradeId};
use shiplock_core::problem::{Code, Problem};
use tokio::sync::watch;

pub use self::enrolled::Enrolled;
pub(crate) use self::entrance::{AgentEntrance, AgentPeer};
use crate::authority::{AgentIdentity, AgentSigningRequest, Authority};
use crate::backup::Backups;
use crate::clusters::Connector;
use crate::http::access::token_hash;
use crate::http::connection::closed;
use crate::http::failure::{Failure, name_requests, nothing_for_method, nothing_here, unreadable};
use crate::http::input::{Input, parse, read_json};
use crate::http::name::is_subdomain;
use crate::hub::{AgentHub, Offered};
use crate::store::{AgentRecord, Store, StoreError};

/// The oldest protocol that is still spoken: the one before ours.
const PROTOCOL_OLDEST: u32 = if PROTOCOL > 1 { PROTOCOL - 1 } else { 1 };

/// How long an enrolment waits for the cluster's word on the node.
const NODE_WITHIN: Duration = Duration::from_secs(10);

/// The cryptography of every TLS connection that the server takes.
pub(crate) fn tls_provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Makes the same cryptography known to the process, for libraries that ask the process for it.
pub(crate) fn install_tls_provider() {
    // An error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// All that the handlers share.
pub(crate) struct Gateway {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) hub: Arc<AgentHub>,
    pub(crate) enrolled: Arc<Enrolled>,
    pub(crate) authority: Arc<Authority>,
    /// The connections to clusters: an enrolment asks which machine a node is.
    pub(crate) clusters: Arc<dyn Connector>,
    pub(crate) backups: Arc<Backups>,
    /// Turns true when the server stops: polls are answered then.
    pub(crate) closing: watch::Receiver<bool>,
}

/// The routes.
pub(crate) fn router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route(ENROL_PATH, post(enrol))
        .route(RENEW_PATH, post(renew))
        .route(POLL_PATH, post(poll))
        .route(PERMIT_PATH, post(permit))
        .route(REPORT_PATH, post(report))
        .route(EXAMINATION_PATH, post(examined))
        .route(BACKUP_PATH, post(backup::ask).put(backup::take))
        .fallback(nothing_here)
        .method_not_allowed_fallback(nothing_for_method)
        .layer(middleware::from_fn(name_requests))
        .with_state(gateway)
}

/// An agent whose certificate is the enrolled one.
struct Agent(AgentIdentity);

impl FromRequestParts<Arc<Gateway>> for Agent {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, gateway: &Arc<Gateway>) -> Result<Self, Failure> {
        let unknown = || Failure(Problem::new(Code::CertificateUnknown));
        let Extension(peer) =
            Extension::<AgentPeer>::from_request_parts(parts, gateway).await.map_err(|_| unknown())?;
        let identity = peer.identity.as_deref().ok_or_else(unknown)?;
        if identity.ends_at <= Timestamp::now() {
            return Err(Failure(Problem::new(Code::CertificateUnknown).cause("it has expired")));
        }
        if !gateway.enrolled.is_enrolled(&*gateway.store, identity).await? {
            return Err(unknown());
        }
        Ok(Self(identity.clone()))
    }
}

impl Agent {
    /// A request may speak only for the node of the certificate.
    fn speaks_for(&self, claimed: &NodeName) -> Result<(), Problem> {
        if self.0.node == *claimed {
            return Ok(());
        }
        let claimed = claimed.as_str().chars().take(253).collect::<String>();
        Err(Problem::new(Code::WrongCertificate).with("certificate", &self.0.node).with("claimed", claimed))
    }

    /// A certificate is good on the machine that it was enrolled for: a copy of it elsewhere is refused.
    fn speaks_from(&self, gateway: &Gateway, machine: &MachineFacts) -> Result<(), Problem> {
        match gateway.enrolled.machine_id(&self.0) {
            Some(known) if known != machine.machine_id => {
                Err(machine_differs(&self.0.node, &machine.machine_id, &known))
            }
            _ => Ok(()),
        }
    }

    /// Whether an upgrade is one of the agent's cluster, since nodes of two clusters may share a name, and goes on: one that
    /// has ended waits for nothing, and nobody drives it who could say so.
    async fn takes_part(&self, gateway: &Gateway, upgrade: &UpgradeId) -> Result<bool, StoreError> {
        Ok(gateway.store.upgrade(upgrade).await?.is_some_and(|row| row.active && row.cluster == self.0.cluster))
    }
}

/// The part of a request that every protocol has.
#[derive(Deserialize)]
struct Spoken {
    protocol: u32,
}

/// Refuses a protocol that is not spoken before the rest is read, which may have another form.
fn check_protocol(body: &[u8]) -> Result<(), Failure> {
    let Spoken { protocol } = parse(body)?;
    if (PROTOCOL_OLDEST..=PROTOCOL).contains(&protocol) {
        return Ok(());
    }
    Err(Failure(Problem::new(Code::ProtocolUnsupported).with("agent", protocol).with("server", PROTOCOL)))
}

async fn enrol(State(gateway): State<Arc<Gateway>>, request: Request) -> Result<Json<EnrolResponse>, Failure> {
    let body = read_json(request).await?;
    check_protocol(&body)?;
    let asked: EnrolRequest = parse(&body)?;
    if !is_subdomain(asked.node.as_str()) {
        return Err(unreadable("node is not the name of a Kubernetes node"));
    }
    // All that can be wrong is looked at before the token is used up.
    let signing_request = AgentSigningRequest::parse(&asked.csr_pem)?;
    let now = Timestamp::now();
    let (hash, refused) = (token_hash(&asked.token), || Problem::new(Code::TokenRefused));
    let cluster = gateway.store.join_token(&hash, now).await?.ok_or_else(refused)?;
    let cluster_has_node = check_machine(&gateway, &cluster, &asked.node, &asked.machine).await?;
    if cluster_has_node != Some(true) {
        // The cluster has no such node, or cannot be asked: then a machine that is known under another name has mistaken its own.
        let agents = gateway.store.agents(&cluster).await?;
        let mut others = agents.iter().filter(|agent| agent.node != asked.node);
        if let Some(known) = others.find(|agent| agent.machine.machine_id == asked.machine.machine_id) {
            let problem = machine_differs(&asked.node, &asked.machine.machine_id, "none");
            let why = format!("the cluster has no such node, and this machine is enrolled as node {}", known.node);
            return Err(problem.cause(why).into());
        }
    }
    // Another may have used it meanwhile.
    let cluster = gateway.store.use_join_token(&hash, Timestamp::now()).await?.ok_or_else(refused)?;
    let certificate = gateway.authority.sign_agent(&signing_request, &cluster, &asked.node, now)?;
    let record = AgentRecord {
        cluster: cluster.clone(),
        node: asked.node,
        serial: certificate.serial,
        machine: asked.machine,
        enrolled_at: now,
    };
    gateway.enrolled.enrol(&*gateway.store, &record).await?;
    tracing::info!(%cluster, node = %record.node, serial = record.serial, "an agent was enrolled");
    let ca_pem = gateway.authority.certificate_pem().to_owned();
    Ok(Json(EnrolResponse { cluster, certificate_pem: certificate.pem, ca_pem, cluster_has_node }))
}

/// Compares the machine with what the kubelet of the node has told its cluster, and says whether the cluster has that node;
/// none where it cannot be read. Where there is nothing to compare with, the check before each upgrade asks again.
async fn check_machine(
    gateway: &Gateway,
    cluster: &ClusterName,
    node: &NodeName,
    machine: &MachineFacts,
) -> Result<Option<bool>, Problem> {
    let asked = async { gateway.clusters.connect(cluster).await?.node(node).await };
    match tokio::time::timeout(NODE_WITHIN, asked).await {
        Ok(Ok(Some(known))) if known.machine_id != machine.machine_id => {
            Err(machine_differs(node, &machine.machine_id, &known.machine_id))
        }
        Ok(Ok(Some(_))) => Ok(Some(true)),
        Ok(Ok(None)) => {
            tracing::warn!(%cluster, %node, "an agent enrols for a node that the cluster does not have");
            Ok(Some(false))
        }
        Ok(Err(problem)) => {
            tracing::warn!(%cluster, %node, %problem, "the machine of an enrolling agent was not compared");
            Ok(None)
        }
        Err(_) => {
            tracing::warn!(%cluster, %node, "the machine of an enrolling agent was not compared: no answer");
            Ok(None)
        }
    }
}

fn machine_differs(node: &NodeName, claimed: &str, known: &str) -> Problem {
    let claimed = claimed.chars().take(64).collect::<String>();
    Problem::new(Code::MachineDiffers).with("node", node).with("claimed", claimed).with("known", known)
}

/// Signs a certificate that takes over from the one in force when it is first used.
async fn renew(
    State(gateway): State<Arc<Gateway>>,
    agent: Agent,
    request: Request,
) -> Result<Json<RenewResponse>, Failure> {
    let body = read_json(request).await?;
    check_protocol(&body)?;
    let asked: RenewRequest = parse(&body)?;
    agent.speaks_for(&asked.node)?;
    let signing_request = AgentSigningRequest::parse(&asked.csr_pem)?;
    let certificate = gateway.authority.renew_agent(&signing_request, &agent.0, Timestamp::now())?;
    tracing::info!(cluster = %agent.0.cluster, node = %agent.0.node, serial = certificate.serial,
        "an agent's certificate was renewed");
    Ok(Json(RenewResponse { certificate_pem: certificate.pem }))
}

async fn poll(
    State(gateway): State<Arc<Gateway>>,
    agent: Agent,
    request: Request,
) -> Result<Json<PollResponse>, Failure> {
    let body = read_json(request).await?;
    check_protocol(&body)?;
    let asked: PollRequest = parse(&body)?;
    agent.speaks_for(&asked.node)?;
    let AgentIdentity { cluster, node, .. } = &agent.0;
    if let Some(machine) = &asked.machine {
        agent.speaks_from(&gateway, machine)?;
        gateway.enrolled.keep_machine(&*gateway.store, &agent.0, machine).await?;
    }
    let send_machine = gateway.hub.heard(cluster, node, asked.machine, Timestamp::now());
    if send_machine {
        // The machine is needed first; the agent asks again at once.
        return Ok(Json(PollResponse { assignment: None, send_machine, examine: None }));
    }
    let mut closing = gateway.closing.clone();
    let Offered { assignment, examine } = tokio::select! {
        offered = gateway.hub.offered_to(cluster, node, asked.in_work.as_ref()) => offered,
        () = closed(&mut closing) => Offered::default(),
    };
    Ok(Json(PollResponse { assignment, send_machine, examine }))
}

/// What an agent found on its node goes to whoever asked.
async fn examined(
    State(gateway): State<Arc<Gateway>>,
    agent: Agent,
    Input(report): Input<ExaminationReport>,
) -> Result<Json<ReportResponse>, Failure> {
    agent.speaks_for(&report.node)?;
    let taken = gateway.hub.examined(&agent.0.cluster, report);
    Ok(Json(if taken { ReportResponse::Taken } else { ReportResponse::NotWanted }))
}

async fn permit(
    State(gateway): State<Arc<Gateway>>,
    agent: Agent,
    Input(asked): Input<PermitRequest>,
) -> Result<Json<PermitResponse>, Failure> {
    agent.speaks_for(&asked.node)?;
    if !agent.takes_part(&gateway, &asked.id.upgrade).await? {
        let problem = Problem::new(Code::PermitRefused)
            .with("why", "the upgrade is not one of the agent's cluster, or has ended");
        return Ok(Json(PermitResponse::Refused { problem }));
    }
    Ok(Json(gateway.hub.permit(asked).await))
}

async fn report(
    State(gateway): State<Arc<Gateway>>,
    agent: Agent,
    Input(report): Input<Report>,
) -> Result<Json<ReportResponse>, Failure> {
    agent.speaks_for(&report.node)?;
    if !agent.takes_part(&gateway, &report.id.upgrade).await? {
        return Ok(Json(ReportResponse::NotWanted));
    }
    if let ReportKind::Succeeded { machine, .. } = &report.kind {
        agent.speaks_from(&gateway, machine)?;
        gateway.enrolled.keep_machine(&*gateway.store, &agent.0, machine).await?;
    }
    let not_recorded = || Problem::new(Code::ReportNotRecorded);
    Ok(Json(gateway.hub.report(report).await.ok_or_else(not_recorded)?))
}

#[cfg(test)]
mod tests;
