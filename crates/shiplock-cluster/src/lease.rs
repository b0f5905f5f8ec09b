//! The Lease `kube-upgrade/shiplock`: which installation upgrades this cluster, and how far its log is.
//!
//! It keeps a second installation away, and it tells a server whose store is an older copy that it is one. It fences
//! nothing by itself: that is done by the marks on nodes, the UIDs and the generations.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::PostParams;
use shiplock_core::id::UpgradeId;
use shiplock_core::problem::Problem;

use crate::answer::{Ask, Failure, unreadable};
use crate::connection::Connection;
use crate::fence::{HeldClaim, claim_refused};
use crate::port::{Claim, ClaimOutcome};

/// The namespace of everything that Shiplock keeps in a cluster.
pub(crate) const NAMESPACE: &str = "kube-upgrade";
/// The name of the Lease.
pub(crate) const NAME: &str = "shiplock";
const UPGRADE_ANNOTATION: &str = "shiplock.dev/upgrade";
const EVENT_ANNOTATION: &str = "shiplock.dev/event";
const MARK_ANNOTATION: &str = "shiplock.dev/event-mark";
/// Says that the upgrade has ended: the cluster is free, and whoever still claims it for that upgrade has an old log.
const ENDED_ANNOTATION: &str = "shiplock.dev/ended";
/// What the Lease promises: its holder renews it more often than this.
const DURATION_SECONDS: i32 = 60;
/// A write that meets another one is tried once more, on what is there then.
const ROUNDS_MAX: usize = 2;

/// What a Lease means for a claim.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It may be written.
    Free,
    /// It may not.
    Refused(ClaimOutcome),
}

/// Claims the cluster for an upgrade, or renews the claim.
pub(crate) async fn claim(connection: &Connection, claim: &Claim, now: Timestamp) -> Result<ClaimOutcome, Problem> {
    let leases: Api<Lease> = Api::namespaced(connection.client.clone(), NAMESPACE);
    for _ in 0..ROUNDS_MAX {
        let found = connection.act(Ask::new("get", "leases.coordination.k8s.io"), leases.get_opt(NAME)).await?;
        let written = match found {
            None => create(connection, &leases, claimed(None, claim, now)).await,
            Some(lease) => match verdict(&lease, claim, now) {
                Verdict::Refused(outcome) => return Ok(outcome),
                Verdict::Free => replace(connection, &leases, &claimed(Some(lease), claim, now)).await,
            },
        };
        match written {
            Ok(()) => return Ok(ClaimOutcome::Ours),
            Err(failure) if failure.code() == 409 => {}
            Err(failure) => return Err(failure.problem),
        }
    }
    Err(written_by_others())
}

/// Gives the cluster free after an upgrade. Which one it was stays: a server that was frozen meanwhile, or whose store
/// is an older copy, must not take it up again.
pub(crate) async fn release(connection: &Connection, upgrade: &UpgradeId) -> Result<(), Problem> {
    let leases: Api<Lease> = Api::namespaced(connection.client.clone(), NAMESPACE);
    for _ in 0..ROUNDS_MAX {
        let found = connection.act(Ask::new("get", "leases.coordination.k8s.io"), leases.get_opt(NAME)).await?;
        let Some(mut lease) = found.filter(|lease| annotation(lease, UPGRADE_ANNOTATION) == Some(upgrade.as_str()))
        else {
            return Ok(());
        };
        if let Some(annotations) = &mut lease.metadata.annotations {
            annotations.insert(ENDED_ANNOTATION.to_owned(), "true".to_owned());
        }
        match replace(connection, &leases, &lease).await {
            Ok(()) => return Ok(()),
            Err(failure) if failure.code() == 409 => {}
            Err(failure) if failure.code() == 404 => return Ok(()),
            Err(failure) => return Err(failure.problem),
        }
    }
    Err(written_by_others())
}

fn written_by_others() -> Problem {
    unreadable(Ask::new("update", "leases.coordination.k8s.io"))
        .cause("it was written by others at the same time, twice")
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some("shiplock".to_owned()), ..PostParams::default() }
}

async fn replace(connection: &Connection, leases: &Api<Lease>, lease: &Lease) -> Result<(), Failure> {
    let ask = Ask::new("update", "leases.coordination.k8s.io");
    connection.act(ask, leases.replace(NAME, &parameters(), lease)).await.map(|_| ())
}

async fn create(connection: &Connection, leases: &Api<Lease>, lease: Lease) -> Result<(), Failure> {
    let ask = Ask::new("create", "leases.coordination.k8s.io");
    match connection.act(ask, leases.create(&parameters(), &lease)).await {
        Ok(_) => Ok(()),
        // The Lease was not there to be read, so what is missing now is the namespace.
        Err(failure) if failure.code() == 404 => {
            create_namespace(connection).await?;
            connection.act(ask, leases.create(&parameters(), &lease)).await.map(|_| ())
        }
        Err(failure) => Err(failure),
    }
}

async fn create_namespace(connection: &Connection) -> Result<(), Failure> {
    let namespaces: Api<Namespace> = Api::all(connection.client.clone());
    let metadata = ObjectMeta { name: Some(NAMESPACE.to_owned()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    match connection.act(Ask::new("create", "namespaces"), namespaces.create(&parameters(), &namespace)).await {
        Err(failure) if failure.code() != 409 => Err(failure),
        _ => Ok(()),
    }
}

fn annotation<'a>(lease: &'a Lease, key: &str) -> Option<&'a str> {
    lease.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn verdict(lease: &Lease, claim: &Claim, now: Timestamp) -> Verdict {
    let Some(upgrade) = annotation(lease, UPGRADE_ANNOTATION) else {
        return Verdict::Free;
    };
    let spec = lease.spec.clone().unwrap_or_default();
    let held = HeldClaim {
        upgrade: UpgradeId::from(upgrade),
        installation: spec.holder_identity.unwrap_or_default(),
        has_ended: annotation(lease, ENDED_ANNOTATION).is_some(),
        event_number: annotation(lease, EVENT_ANNOTATION).and_then(|number| number.parse().ok()).unwrap_or(0),
        event_mark: annotation(lease, MARK_ANNOTATION).map(str::to_owned),
        acquired_at: spec.acquire_time.map(|time| time.0),
        renewed_at: spec.renew_time.map(|time| time.0),
    };
    claim_refused(&held, claim, now).map_or(Verdict::Free, Verdict::Refused)
}

/// The Lease as it is to be; on an existing one its version stays, so that the write fails if it has changed.
fn claimed(lease: Option<Lease>, claim: &Claim, now: Timestamp) -> Lease {
    let mut lease = lease.unwrap_or_else(|| Lease {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: None,
    });
    // Kubernetes reads and writes this with microseconds.
    let now = MicroTime(Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now));
    let before = lease.spec.take().unwrap_or_default();
    let is_new_holder = before.holder_identity.as_deref() != Some(claim.installation.as_str());
    let goes_on = !is_new_holder && annotation(&lease, UPGRADE_ANNOTATION) == Some(claim.upgrade.as_str());
    let transitions = before.lease_transitions.unwrap_or(0);
    lease.spec = Some(LeaseSpec {
        acquire_time: if goes_on { before.acquire_time } else { Some(now.clone()) },
        holder_identity: Some(claim.installation.clone()),
        lease_duration_seconds: Some(DURATION_SECONDS),
        lease_transitions: Some(if is_new_holder { transitions.saturating_add(1) } else { transitions }),
        renew_time: Some(now),
        ..LeaseSpec::default()
    });
    let annotations = lease.metadata.annotations.get_or_insert_with(BTreeMap::new);
    annotations.remove(ENDED_ANNOTATION);
    annotations.insert(UPGRADE_ANNOTATION.to_owned(), claim.upgrade.to_string());
    annotations.insert(EVENT_ANNOTATION.to_owned(), claim.event_number.to_string());
    match &claim.event_mark {
        Some(mark) => annotations.insert(MARK_ANNOTATION.to_owned(), mark.clone()),
        None => annotations.remove(MARK_ANNOTATION),
    };
    lease
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
