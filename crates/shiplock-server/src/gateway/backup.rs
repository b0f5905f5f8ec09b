//! The way of a backup from an agent to the disk: taken from the node that is asked for it, for the attempt that is in
//! flight, and from nobody else.
//!
//! Never more than some hundred KiB of a backup are in memory, and a sender that falls silent is let go.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::HeaderName;
use axum::http::header::CONTENT_LENGTH;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use shiplock_api::agent::{
    AssignmentId, BACKUP_HEADER, BackupAnswer, BackupOffer, BackupQuestion, EtcdSnapshot, KeptBackup,
};
use shiplock_api::rest::BackupView;
use shiplock_core::id::{ClusterName, NodeName};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::size::readable_bytes;
use shiplock_core::step::Action;

use super::{Agent, Gateway};
use crate::backup::backup_id;
use crate::http::failure::{Failure, unreadable};
use crate::http::input::{Input, header, parse};
use crate::store::{StoreError, UpgradeFilter};

/// The largest backup. etcd itself warns of more than 8 GiB: <https://etcd.io/docs/v3.6/dev-guide/limit/>.
const BACKUP_BYTES_MAX: u64 = 16 << 30;
/// How long the next piece of a body may take.
const PIECE_WITHIN: Duration = Duration::from_secs(30);
/// At most one upgrade of a cluster is active; more rows would be a broken rule and are all kept.
const ACTIVE_MAX: u32 = 100;

/// `POST` of [`shiplock_api::agent::BACKUP_PATH`].
pub(super) async fn ask(
    State(gateway): State<Arc<Gateway>>,
    agent: Agent,
    Input(asked): Input<BackupQuestion>,
) -> Result<Json<BackupAnswer>, Failure> {
    check_in_flight(&gateway, &agent, &asked.node, &asked.id).await?;
    check_size(asked.size_bytes)?;
    let kept = gateway.backups.find(&backup_id(&asked.id)).await?.map(kept);
    if kept.is_none() {
        gateway.backups.check_room(asked.size_bytes).await?;
    }
    Ok(Json(BackupAnswer { kept }))
}

/// `PUT` of [`shiplock_api::agent::BACKUP_PATH`].
pub(super) async fn take(
    State(gateway): State<Arc<Gateway>>,
    agent: Agent,
    request: Request,
) -> Result<Json<KeptBackup>, Failure> {
    let (parts, body) = request.into_parts();
    let described = header(&parts.headers, HeaderName::from_static(BACKUP_HEADER));
    let described = described.ok_or_else(|| unreadable(format!("the header {BACKUP_HEADER} is missing")))?;
    let BackupOffer { id, node, snapshot } = parse(described.as_bytes())?;
    check_in_flight(&gateway, &agent, &node, &id).await?;
    let name = backup_id(&id);
    if let Some(view) = gateway.backups.find(&name).await? {
        // The answer was lost on its way.
        return Ok(Json(kept(view)));
    }
    check_snapshot(&snapshot)?;
    let announced = header(&parts.headers, CONTENT_LENGTH).and_then(|length| length.parse().ok());
    if announced != Some(snapshot.size_bytes) {
        return Err(unreadable("its Content-Length is not the size of the snapshot"));
    }
    let cluster = agent.0.cluster.clone();
    let (upgrade, created_at) = (id.upgrade.clone(), Timestamp::now());
    let view = BackupView { id: name, cluster: cluster.clone(), upgrade, node: node.clone(), created_at, snapshot };
    let written = gateway.backups.receive(view, pieces(body.into_data_stream())).await?;
    // What was in flight when the first byte came may not be any more.
    check_in_flight(&gateway, &agent, &node, &id).await?;
    let view = written.keep().await?;
    tracing::info!(backup = view.id, %cluster, %node, bytes = view.snapshot.size_bytes, "a backup of etcd was taken");
    if let Err(problem) = prune(&gateway, cluster).await {
        // The backup is there; what is too much goes with the next one.
        tracing::warn!(%problem, "old backups cannot be removed");
    }
    Ok(Json(kept(view)))
}

/// Only the node of the certificate, only for the attempt that it is offered now.
async fn check_in_flight(gateway: &Gateway, agent: &Agent, node: &NodeName, id: &AssignmentId) -> Result<(), Problem> {
    agent.speaks_for(node)?;
    let refused = |why: &str| Problem::new(Code::PermitRefused).with("why", why);
    if !agent.takes_part(gateway, &id.upgrade).await.map_err(StoreError::into_problem)? {
        return Err(refused("the upgrade is not one of the agent's cluster"));
    }
    let offered = gateway.hub.offered(&agent.0.cluster, &agent.0.node);
    let offered = offered.filter(|offered| matches!(offered.action, Action::BackupEtcd { .. }));
    let offered = offered.ok_or_else(|| refused("the server does not wait for a backup of this node"))?;
    if offered.id == *id {
        return Ok(());
    }
    if offered.id.generation > id.generation {
        let stale = Problem::new(Code::StaleGeneration).with("found", id.generation);
        return Err(stale.with("newest", offered.id.generation));
    }
    Err(refused("the server waits for another attempt"))
}

fn check_size(size_bytes: u64) -> Result<(), Problem> {
    if size_bytes <= BACKUP_BYTES_MAX {
        return Ok(());
    }
    Err(Problem::new(Code::TooLarge).with("limit", readable_bytes(BACKUP_BYTES_MAX)))
}

/// What is told of a snapshot is shown to people later, so it must be what it claims to be in form at least.
fn check_snapshot(snapshot: &EtcdSnapshot) -> Result<(), Failure> {
    check_size(snapshot.size_bytes)?;
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if snapshot.sha256.len() != 64 || !snapshot.sha256.bytes().all(digit) {
        return Err(unreadable("sha256 is not 64 hexadecimal digits in lower case"));
    }
    let version = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'+');
    if snapshot.etcd_version.len() > 64 || !snapshot.etcd_version.bytes().all(version) {
        return Err(unreadable("etcd_version is not a version"));
    }
    Ok(())
}

fn pieces(body: axum::body::BodyDataStream) -> impl Stream<Item = Result<Bytes, Problem>> {
    futures::stream::unfold(Some(body), |body| async {
        let mut body = body?;
        let broken = |what: String| Problem::new(Code::BadRequest).with("what", what);
        match tokio::time::timeout(PIECE_WITHIN, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(piece))) => Some((Ok(piece), Some(body))),
            Ok(Some(Err(_))) => Some((Err(broken("the connection broke while the body was sent".to_owned())), None)),
            Err(_) => Some((Err(broken(format!("no byte came within {} s", PIECE_WITHIN.as_secs()))), None)),
        }
    })
}

async fn prune(gateway: &Gateway, cluster: ClusterName) -> Result<(), Problem> {
    let filter = UpgradeFilter { cluster: Some(cluster.clone()), active: true, after: None, limit: ACTIVE_MAX };
    let active = gateway.store.upgrades(&filter).await.map_err(StoreError::into_problem)?;
    let active = active.into_iter().map(|row| row.id).collect();
    for backup in gateway.backups.prune(cluster, active).await? {
        tracing::info!(backup = backup.id, "an old backup was removed");
    }
    Ok(())
}

fn kept(view: BackupView) -> KeptBackup {
    KeptBackup { backup: view.id, snapshot: view.snapshot }
}
