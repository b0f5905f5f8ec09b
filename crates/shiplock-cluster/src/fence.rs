//! What a mark on a node and a claim on a cluster let us do: decided on what was read, without I/O, so that whoever
//! stands behind the port decides alike.

use jiff::{SignedDuration, Timestamp};
use shiplock_core::facts::NodeOwner;
use shiplock_core::id::{Epoch, UpgradeId};

use crate::port::{Claim, ClaimOutcome, Cordon, Uncordon};

/// What is to be done about a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted<T> {
    /// Nothing; this is how it is.
    Nothing(T),
    /// Write this; if its tests pass, this is how it is.
    Write(MarkWrite, T),
    /// A newer epoch of our upgrade has been here.
    Overtaken(Epoch),
}

/// A write of mark and cordon that tests the node's UID and what it was decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkWrite {
    /// The mark that must still be there; none: the node must still have the version that was read, for there is no test
    /// for "absent".
    pub test_mark: Option<String>,
    /// The mark afterwards; none: it is taken off.
    pub mark: Option<String>,
    /// `spec.unschedulable` afterwards.
    pub unschedulable: bool,
}

fn owner(text: &str) -> Option<NodeOwner> {
    serde_json::from_str(text).ok()
}

/// What a cordon by `ours` does to a node that carries this mark.
pub fn cordon(mark: Option<&str>, unschedulable: bool, ours: &NodeOwner) -> Wanted<Cordon> {
    // A struct of two plain fields always becomes JSON.
    let text = serde_json::to_string(ours).unwrap_or_default();
    let write = |test_mark: Option<&str>, result| {
        let test_mark = test_mark.map(str::to_owned);
        Wanted::Write(MarkWrite { test_mark, mark: Some(text.clone()), unschedulable: true }, result)
    };
    match mark.map(|mark| (mark, owner(mark))) {
        Some((_, Some(found))) if found.upgrade == ours.upgrade && found.epoch > ours.epoch => {
            Wanted::Overtaken(found.epoch)
        }
        Some((_, Some(found))) if found == *ours && unschedulable => Wanted::Nothing(Cordon::AlreadyOurs),
        Some((before, Some(found))) if found.upgrade == ours.upgrade => {
            write(Some(before), if unschedulable { Cordon::AlreadyOurs } else { Cordon::Done })
        }
        // A mark that cannot be read is somebody's, and not ours.
        Some(_) => Wanted::Nothing(Cordon::OwnedByAnotherUpgrade),
        None if unschedulable => Wanted::Nothing(Cordon::CordonedByOthers),
        None => write(None, Cordon::Done),
    }
}

/// What an uncordon by `ours` does to a node that carries this mark.
pub fn uncordon(mark: Option<&str>, ours: &NodeOwner) -> Wanted<Uncordon> {
    match mark.map(|mark| (mark, owner(mark))) {
        Some((_, Some(found))) if found.upgrade == ours.upgrade && found.epoch > ours.epoch => {
            Wanted::Overtaken(found.epoch)
        }
        Some((text, Some(found))) if found.upgrade == ours.upgrade => {
            let write = MarkWrite { test_mark: Some(text.to_owned()), mark: None, unschedulable: false };
            Wanted::Write(write, Uncordon::Done)
        }
        _ => Wanted::Nothing(Uncordon::NotOurs),
    }
}

/// The Lease in the cluster as it was read, where it names an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldClaim {
    /// The upgrade.
    pub upgrade: UpgradeId,
    /// The installation.
    pub installation: String,
    /// Whether the upgrade has ended.
    pub has_ended: bool,
    /// The newest event that the cluster has seen.
    pub event_number: u64,
    /// Its mark; none where it was written without one.
    pub event_mark: Option<String>,
    /// Since when it is held for the upgrade; none where it does not say.
    pub acquired_at: Option<Timestamp>,
    /// When it was last renewed.
    pub renewed_at: Option<Timestamp>,
}

/// A holder that has been silent for this long is gone for good. Paused upgrades renew too.
const GONE_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// Why a claim may not be written over what is there; none where it may.
pub fn claim_refused(held: &HeldClaim, claim: &Claim, now: Timestamp) -> Option<ClaimOutcome> {
    if held.has_ended && held.upgrade != claim.upgrade {
        return None;
    }
    if held.installation != claim.installation {
        let renewed_at = held.renewed_at?;
        let gone = now.duration_since(renewed_at) > GONE_AFTER;
        let (installation, upgrade) = (held.installation.clone(), held.upgrade.clone());
        let since = held.acquired_at.unwrap_or(renewed_at);
        return (!gone).then_some(ClaimOutcome::HeldByOther { installation, upgrade, since });
    }
    if held.upgrade != claim.upgrade {
        let (upgrade, event_number) = (held.upgrade.clone(), held.event_number);
        let has_ended = claim.ended.as_ref() == Some(&held.upgrade);
        return (!has_ended).then_some(ClaimOutcome::Unfinished { upgrade, event_number });
    }
    let older = Some(ClaimOutcome::StoreOlder { cluster_event: held.event_number });
    if held.has_ended || held.event_number > claim.event_number {
        return older;
    }
    // A copy that went on by itself may hold more events, and yet not those that the cluster has seen.
    let seen = held.event_mark.as_ref()?;
    let newest = claim.event_mark.as_ref().map(|mark| (claim.event_number, mark));
    let proofs = newest.into_iter().chain(claim.proof.as_ref().map(|(number, mark)| (*number, mark)));
    match proofs.into_iter().find(|(number, _)| *number == held.event_number) {
        Some((_, mark)) if mark == seen => None,
        Some(_) => older,
        None => Some(ClaimOutcome::Prove { event_number: held.event_number }),
    }
}
