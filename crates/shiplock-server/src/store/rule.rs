//! The rules that every store keeps, as functions of what a store has read: who may append, who may take a lease,
//! which time an event gets.
//!
//! They stand here once, so that no store has rules of its own. Nothing here may do I/O: a store calls them inside
//! the transaction that they decide on.

use jiff::{SignedDuration, Timestamp};
use shiplock_core::id::{ClusterName, ClusterUid, Epoch, UpgradeId};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{Event, EventRecord};

use super::{Lease, NewUpgrade, Store, StoreError};

/// Reports of the pre-check that are kept of each cluster; the oldest goes first.
pub const REPORTS_KEPT: usize = 50;
/// The most rows of one page of a list.
pub const PAGE_MAX: u32 = 1_000;
/// The most events of one append.
pub const EVENTS_PER_APPEND_MAX: usize = 1_000;
/// The most leases that are taken or renewed at once.
pub const LEASES_AT_ONCE_MAX: usize = 1_000;

/// Refuses to take or renew more leases at once than fit in one change.
pub(super) fn check_leases_at_once(count: usize) -> Result<(), Problem> {
    if count > LEASES_AT_ONCE_MAX {
        return Err(Problem::new(Code::TooLarge).with("limit", format!("{LEASES_AT_ONCE_MAX} leases")));
    }
    Ok(())
}

/// The length of a page that was asked for.
pub(super) fn page(limit: u32) -> u32 {
    limit.clamp(1, PAGE_MAX)
}

/// Who appends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Author {
    /// A person, who needs no lease.
    Person,
    /// The driver, under an epoch.
    Driver(Epoch),
}

impl Author {
    /// The epoch that is kept with the events.
    pub(super) fn epoch(self) -> Option<Epoch> {
        match self {
            Self::Person => None,
            Self::Driver(epoch) => Some(epoch),
        }
    }
}

/// What decides on an append to a log and on its lease.
#[derive(Clone, Debug)]
pub(super) struct LogHead {
    pub(super) upgrade: UpgradeId,
    pub(super) cluster_uid: ClusterUid,
    /// How many events there are.
    pub(super) len: u64,
    /// When the newest event was appended.
    pub(super) newest_at: Timestamp,
    /// The state that it ended in, none while it is active.
    pub(super) ended_as: Option<String>,
    pub(super) lease: Option<LeaseRow>,
}

/// The epoch after this one. It is the time in seconds where that is higher, so that a store that was restored from an
/// older copy, or made anew, gives higher ones than agents have seen before it.
pub(super) fn next_epoch(newest: Epoch, now: Timestamp) -> Epoch {
    Epoch((newest.0 + 1).max(u64::try_from(now.as_second()).unwrap_or_default()))
}

/// A lease as it is kept.
#[derive(Clone, Debug)]
pub(super) struct LeaseRow {
    pub(super) lease: Lease,
    /// Whether its holder gave it back.
    pub(super) released: bool,
}

impl LogHead {
    /// Decides on an append. The lease comes first: a driver that lost it must stop, not fold again.
    pub(super) fn admit(&self, author: Author, expected_len: u64, events: &[Event]) -> Result<(), StoreError> {
        if let Author::Driver(epoch) = author {
            self.held(epoch)?;
        }
        if self.len != expected_len {
            return Err(self.conflict(expected_len));
        }
        if let Some(state) = &self.ended_as {
            let problem = Problem::new(Code::ControlNotAllowed).with("state", state);
            let problem = problem.with("control", "changed").with("control_zh", "更改");
            return Err(problem.with("next", "shiplock plan").into());
        }
        if events.len() > EVENTS_PER_APPEND_MAX {
            let limit = format!("{EVENTS_PER_APPEND_MAX} events");
            return Err(Problem::new(Code::TooLarge).with("limit", limit).into());
        }
        let before_last = events.len().saturating_sub(1);
        if events.iter().take(before_last).any(|event| ending(event).is_some()) {
            return Err(Problem::new(Code::Internal).with("what", "an event follows the end of an upgrade").into());
        }
        Ok(())
    }

    /// The log has moved on.
    pub(super) fn conflict(&self, expected: u64) -> StoreError {
        StoreError::Conflict { upgrade: self.upgrade.clone(), expected, found: self.len }
    }

    /// The time that the next event gets.
    pub(super) fn event_time(&self, now: Timestamp) -> Timestamp {
        now.max(self.newest_at)
    }

    /// The lease, if this epoch still holds it. A lease that is over and that nobody took since still belongs to its
    /// epoch: no other can have acted.
    pub(super) fn held(&self, epoch: Epoch) -> Result<&Lease, StoreError> {
        match &self.lease {
            Some(row) if row.lease.epoch == epoch && !row.released => Ok(&row.lease),
            _ => Err(self.lost()),
        }
    }

    fn lost(&self) -> StoreError {
        let epoch = self.lease.as_ref().map_or(Epoch(0), |row| row.lease.epoch);
        StoreError::LeaseLost { upgrade: self.upgrade.clone(), epoch }
    }

    /// Whether a holder who has folded so many events may take the lease. Nobody may where the upgrade has ended: there
    /// is nothing to drive.
    pub(super) fn may_take(&self, holder: &str, expected_len: u64, now: Timestamp) -> bool {
        let free = self
            .lease
            .as_ref()
            .is_none_or(|row| row.released || row.lease.holder == holder || row.lease.expires_at <= now);
        free && self.ended_as.is_none() && self.len == expected_len
    }

    /// The lease renewed.
    pub(super) fn renewed(&self, epoch: Epoch, now: Timestamp, seconds: u32) -> Result<Lease, StoreError> {
        let lease = self.held(epoch)?;
        Ok(Lease { expires_at: lease_end(now, seconds), ..lease.clone() })
    }

    /// The lease given back; none where that was done before.
    pub(super) fn given_back(&self, epoch: Epoch) -> Result<Option<LeaseRow>, StoreError> {
        match &self.lease {
            Some(row) if row.lease.epoch == epoch && row.released => Ok(None),
            // Over since the beginning of time, whatever clock looks at it.
            Some(row) if row.lease.epoch == epoch => {
                let lease = Lease { expires_at: Timestamp::UNIX_EPOCH, ..row.lease.clone() };
                Ok(Some(LeaseRow { lease, released: true }))
            }
            _ => Err(self.lost()),
        }
    }
}

/// When a lease of so many seconds is over.
pub(super) fn lease_end(now: Timestamp, seconds: u32) -> Timestamp {
    now.checked_add(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MAX)
}

/// The state that an event ends an upgrade in, none where it does not end it.
pub(super) fn ending(event: &Event) -> Option<&'static str> {
    match event {
        Event::Cancelled => Some("cancelled"),
        Event::Expired => Some("expired"),
        Event::Succeeded => Some("succeeded"),
        _ => None,
    }
}

/// Refuses a first event that no log can begin with: it would block its cluster for good.
pub(super) fn check_first_event(new: &NewUpgrade) -> Result<(), Problem> {
    match new.event {
        Event::Planned { .. } => Ok(()),
        _ => Err(Problem::new(Code::Internal).with("what", "an upgrade begins with an event other than `planned`")),
    }
}

/// There is no such cluster.
pub(super) fn cluster_unknown(cluster: &ClusterName) -> Problem {
    Problem::new(Code::ClusterUnknown).with("cluster", cluster)
}

/// There is no such upgrade.
pub(super) fn upgrade_unknown(upgrade: &UpgradeId) -> Problem {
    Problem::new(Code::UpgradeUnknown).with("upgrade", upgrade)
}

/// The cluster has an active upgrade, so another is refused.
pub(super) fn upgrade_active(upgrade: &UpgradeId) -> Problem {
    Problem::new(Code::UpgradeActive).with("upgrade", upgrade).with("state", "active")
}

/// The cluster has an active upgrade, so its removal is refused.
pub(super) fn cluster_in_use(cluster: &ClusterName, upgrade: &UpgradeId) -> Problem {
    Problem::new(Code::ClusterInUse).with("cluster", cluster).with("upgrade", upgrade)
}

/// The name is taken.
pub(super) fn name_taken(cluster: &ClusterName) -> Problem {
    Problem::new(Code::ClusterNameTaken).with("cluster", cluster)
}

/// The identity is registered under another name.
pub(super) fn registered_twice(other: &ClusterName) -> Problem {
    Problem::new(Code::ClusterRegisteredTwice).with("other", other)
}

/// A plan is never changed, and neither is a token.
pub(super) fn made_twice(what: &str) -> Problem {
    Problem::new(Code::Internal).with("what", format!("{what} was made twice"))
}

/// Reads a log page after page.
pub(super) async fn whole_log<S: Store + ?Sized>(
    store: &S,
    upgrade: &UpgradeId,
) -> Result<Vec<EventRecord>, StoreError> {
    let mut events: Vec<EventRecord> = Vec::new();
    loop {
        let after = events.last().map_or(0, |newest| newest.number);
        let page = store.events(upgrade, after, PAGE_MAX).await?;
        if page.is_empty() {
            return Ok(events);
        }
        events.extend(page);
    }
}
