//! What is kept beside the logs: settings, clusters, plans, join tokens, agents.

use jiff::Timestamp;
use shiplock_core::id::{ClusterName, NodeName, PlanId};
use shiplock_core::plan::Plan;
use sqlx::SqliteConnection;

use super::super::rule;
use super::super::{AgentRecord, ClusterRecord};
use super::file::Database;
use super::{Fault, log, stored_time};

/// The columns of a cluster.
type ClusterColumns = (String, String, String, Vec<u8>, Option<String>, String);

pub(super) async fn setting(database: &Database, key: &str, value: Vec<u8>) -> Result<Vec<u8>, Fault> {
    let mut change = database.change().await?;
    sqlx::query("INSERT INTO settings (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING")
        .bind(key)
        .bind(value)
        .execute(&mut *change)
        .await?;
    let kept =
        sqlx::query_scalar("SELECT value FROM settings WHERE key = $1").bind(key).fetch_one(&mut *change).await?;
    change.commit().await?;
    Ok(kept)
}

pub(super) async fn add_cluster(database: &Database, cluster: &ClusterRecord) -> Result<(), Fault> {
    let mut change = database.change().await?;
    if cluster_uid(&mut change, &cluster.name).await?.is_some() {
        return Err(rule::name_taken(&cluster.name).into());
    }
    let other: Option<String> = sqlx::query_scalar("SELECT name FROM clusters WHERE uid = $1")
        .bind(cluster.uid.as_str())
        .fetch_optional(&mut *change)
        .await?;
    if let Some(other) = other {
        return Err(rule::registered_twice(&other.into()).into());
    }
    sqlx::query(
        "INSERT INTO clusters (name, uid, server, sealed_kubeconfig, mirror, added_at) VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(cluster.name.as_str())
    .bind(cluster.uid.as_str())
    .bind(&cluster.server)
    .bind(&cluster.sealed_kubeconfig)
    .bind(&cluster.mirror)
    .bind(stored_time(cluster.added_at))
    .execute(&mut *change)
    .await?;
    Ok(change.commit().await?)
}

pub(super) async fn change_cluster(database: &Database, cluster: &ClusterRecord) -> Result<(), Fault> {
    let mut change = database.change().await?;
    let changed = sqlx::query(
        "UPDATE clusters SET server = $3, sealed_kubeconfig = $4, mirror = $5 WHERE name = $1 AND uid = $2",
    )
    .bind(cluster.name.as_str())
    .bind(cluster.uid.as_str())
    .bind(&cluster.server)
    .bind(&cluster.sealed_kubeconfig)
    .bind(&cluster.mirror)
    .execute(&mut *change)
    .await?;
    if changed.rows_affected() == 0 {
        return Err(rule::cluster_unknown(&cluster.name).into());
    }
    Ok(change.commit().await?)
}

pub(super) async fn cluster_uid(change: &mut SqliteConnection, name: &ClusterName) -> Result<Option<String>, Fault> {
    let uid = sqlx::query_scalar("SELECT uid FROM clusters WHERE name = $1").bind(name.as_str()).fetch_optional(change);
    Ok(uid.await?)
}

pub(super) async fn clusters(database: &Database) -> Result<Vec<ClusterRecord>, Fault> {
    let rows: Vec<ClusterColumns> =
        sqlx::query_as("SELECT name, uid, server, sealed_kubeconfig, mirror, added_at FROM clusters ORDER BY name")
            .fetch_all(database.readers())
            .await?;
    rows.into_iter().map(cluster_record).collect()
}

pub(super) async fn cluster(database: &Database, name: &ClusterName) -> Result<Option<ClusterRecord>, Fault> {
    let columns: Option<ClusterColumns> =
        sqlx::query_as("SELECT name, uid, server, sealed_kubeconfig, mirror, added_at FROM clusters WHERE name = $1")
            .bind(name.as_str())
            .fetch_optional(database.readers())
            .await?;
    columns.map(cluster_record).transpose()
}

fn cluster_record(
    (name, uid, server, sealed_kubeconfig, mirror, added_at): ClusterColumns,
) -> Result<ClusterRecord, Fault> {
    let added_at = added_at.parse()?;
    Ok(ClusterRecord { name: name.into(), uid: uid.into(), server, sealed_kubeconfig, mirror, added_at })
}

pub(super) async fn remove_cluster(database: &Database, name: &ClusterName) -> Result<(), Fault> {
    let mut change = database.change().await?;
    let uid = cluster_uid(&mut change, name).await?.ok_or_else(|| rule::cluster_unknown(name))?;
    if let Some(upgrade) = log::active_upgrade(&mut change, &uid).await? {
        return Err(rule::cluster_in_use(name, &upgrade).into());
    }
    for statement in [
        "DELETE FROM agents WHERE cluster = $1",
        "DELETE FROM join_tokens WHERE cluster = $1",
        "DELETE FROM reports WHERE cluster = $1",
        "DELETE FROM acceptances WHERE cluster = $1",
        "DELETE FROM clusters WHERE name = $1",
    ] {
        sqlx::query(statement).bind(name.as_str()).execute(&mut *change).await?;
    }
    Ok(change.commit().await?)
}

pub(super) async fn add_plan(database: &Database, plan: &Plan) -> Result<(), Fault> {
    let data = serde_json::to_string(plan)?;
    let mut change = database.change().await?;
    sqlx::query("INSERT INTO plans (id, data) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING")
        .bind(plan.id.as_str())
        .bind(&data)
        .execute(&mut *change)
        .await?;
    let kept: String = sqlx::query_scalar("SELECT data FROM plans WHERE id = $1")
        .bind(plan.id.as_str())
        .fetch_one(&mut *change)
        .await?;
    if kept != data {
        return Err(rule::made_twice("a plan").into());
    }
    Ok(change.commit().await?)
}

pub(super) async fn plan(database: &Database, id: &PlanId) -> Result<Option<Plan>, Fault> {
    let data: Option<String> = sqlx::query_scalar("SELECT data FROM plans WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(database.readers())
        .await?;
    Ok(data.map(|data| serde_json::from_str(&data)).transpose()?)
}

pub(super) async fn add_join_token(
    database: &Database,
    hash: &str,
    cluster: &ClusterName,
    expires_at: Timestamp,
) -> Result<(), Fault> {
    let mut change = database.change().await?;
    if cluster_uid(&mut change, cluster).await?.is_none() {
        return Err(rule::cluster_unknown(cluster).into());
    }
    let added = sqlx::query(
        "INSERT INTO join_tokens (hash, cluster, expires_at) VALUES ($1, $2, $3) ON CONFLICT (hash) DO NOTHING",
    )
    .bind(hash)
    .bind(cluster.as_str())
    .bind(stored_time(expires_at))
    .execute(&mut *change)
    .await?;
    if added.rows_affected() != 1 {
        return Err(rule::made_twice("a join token").into());
    }
    Ok(change.commit().await?)
}

pub(super) async fn join_token(database: &Database, hash: &str, now: Timestamp) -> Result<Option<ClusterName>, Fault> {
    let cluster: Option<String> =
        sqlx::query_scalar("SELECT cluster FROM join_tokens WHERE hash = $1 AND expires_at > $2")
            .bind(hash)
            .bind(stored_time(now))
            .fetch_optional(database.readers())
            .await?;
    Ok(cluster.map(ClusterName::from))
}

pub(super) async fn use_join_token(
    database: &Database,
    hash: &str,
    now: Timestamp,
) -> Result<Option<ClusterName>, Fault> {
    let mut change = database.change().await?;
    // Tokens that are over go first, so that what is left is good.
    sqlx::query("DELETE FROM join_tokens WHERE expires_at <= $1").bind(stored_time(now)).execute(&mut *change).await?;
    let cluster: Option<String> = sqlx::query_scalar("DELETE FROM join_tokens WHERE hash = $1 RETURNING cluster")
        .bind(hash)
        .fetch_optional(&mut *change)
        .await?;
    change.commit().await?;
    Ok(cluster.map(ClusterName::from))
}

pub(super) async fn put_agent(database: &Database, agent: &AgentRecord) -> Result<(), Fault> {
    let machine = serde_json::to_string(&agent.machine)?;
    let mut change = database.change().await?;
    if cluster_uid(&mut change, &agent.cluster).await?.is_none() {
        return Err(rule::cluster_unknown(&agent.cluster).into());
    }
    sqlx::query(
        "INSERT INTO agents (cluster, node, serial, machine, enrolled_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (cluster, node) DO UPDATE SET serial = excluded.serial, machine = excluded.machine, \
         enrolled_at = excluded.enrolled_at",
    )
    .bind(agent.cluster.as_str())
    .bind(agent.node.as_str())
    .bind(&agent.serial)
    .bind(machine)
    .bind(stored_time(agent.enrolled_at))
    .execute(&mut *change)
    .await?;
    Ok(change.commit().await?)
}

pub(super) async fn remove_agent(database: &Database, cluster: &ClusterName, node: &NodeName) -> Result<bool, Fault> {
    let mut change = database.change().await?;
    let removed = sqlx::query("DELETE FROM agents WHERE cluster = $1 AND node = $2")
        .bind(cluster.as_str())
        .bind(node.as_str())
        .execute(&mut *change)
        .await?;
    change.commit().await?;
    Ok(removed.rows_affected() > 0)
}

pub(super) async fn agents(database: &Database, cluster: &ClusterName) -> Result<Vec<AgentRecord>, Fault> {
    let rows: Vec<(String, String, String, String, String)> = sqlx::query_as(
        "SELECT cluster, node, serial, machine, enrolled_at FROM agents WHERE cluster = $1 ORDER BY node",
    )
    .bind(cluster.as_str())
    .fetch_all(database.readers())
    .await?;
    rows.into_iter()
        .map(|(cluster, node, serial, machine, enrolled_at)| {
            let machine = serde_json::from_str(&machine)?;
            Ok(AgentRecord {
                cluster: cluster.into(),
                node: node.into(),
                serial,
                machine,
                enrolled_at: enrolled_at.parse()?,
            })
        })
        .collect()
}
