//! The leases that this server holds: how long each still lets act, and one task that renews all of them together.
//!
//! Renewed together they cost the disk one write, however many upgrades are driven. A lease that may have ended is never
//! made to last longer: its driver ends and begins anew.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use shiplock_core::id::{Epoch, UpgradeId};
use shiplock_core::planted::{self, Bug};
use tokio::sync::Notify;

use crate::store::{LEASES_AT_ONCE_MAX, Store, StoreError};

/// A lease lasts this long unless renewed; a server that is gone is replaced after it.
pub const LEASE_SECONDS: u32 = 15;
/// Leases are renewed this often.
pub const LEASE_RENEWAL: Duration = Duration::from_secs(4);
/// Nothing is sent when the lease ends sooner than a request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Until when a lease holds that was asked for then, on a clock that never jumps: the store's own cannot have been
/// earlier.
pub fn holds_until(asked_at: Duration) -> Duration {
    asked_at + Duration::from_secs(u64::from(LEASE_SECONDS))
}

/// Whether a request sent now is answered before a lease may end.
pub fn outlasts_a_request(until: Duration, now: Duration) -> bool {
    now + REQUEST_TIMEOUT < until || planted::is(Bug::LeaseIgnored)
}

/// The lease of one upgrade, as far as this process knows.
#[derive(Debug)]
pub(super) struct HeldLease {
    /// Its fencing number.
    pub(super) epoch: Epoch,
    origin: Instant,
    /// Until when it holds, on the monotonic clock, in milliseconds since `origin`.
    until_milliseconds: AtomicU64,
    ended: Notify,
}

impl HeldLease {
    /// `asked_at` is when the request for the lease was sent: the store's clock cannot have been earlier.
    fn new(epoch: Epoch, asked_at: Instant) -> Self {
        let lease = Self { epoch, origin: asked_at, until_milliseconds: AtomicU64::new(0), ended: Notify::new() };
        lease.extend(asked_at);
        lease
    }

    fn extend(&self, asked_at: Instant) {
        let until = holds_until(asked_at.duration_since(self.origin));
        self.until_milliseconds.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Whether a request sent now is answered before the lease may end.
    pub(super) fn may_act(&self) -> bool {
        let until = Duration::from_millis(self.until_milliseconds.load(Ordering::SeqCst));
        outlasts_a_request(until, self.origin.elapsed())
    }

    /// Returns when the lease is not renewed any more. For one waiter.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }
}

/// All leases of a server.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// A lease that no driver holds any more is not renewed.
    held: Mutex<HashMap<UpgradeId, Weak<HeldLease>>>,
}

impl Leases {
    /// Keeps a lease for as long as the value lives.
    pub(super) fn hold(&self, upgrade: &UpgradeId, epoch: Epoch, asked_at: Instant) -> Arc<HeldLease> {
        let lease = Arc::new(HeldLease::new(epoch, asked_at));
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(upgrade.clone(), Arc::downgrade(&lease));
        lease
    }

    fn all(&self) -> Vec<(UpgradeId, Arc<HeldLease>)> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|_, lease| lease.strong_count() > 0);
        held.iter().filter_map(|(upgrade, lease)| Some((upgrade.clone(), lease.upgrade()?))).collect()
    }

    /// Renews for as long as it is polled.
    pub(super) async fn keep(&self, store: &dyn Store) {
        let mut ticks = tokio::time::interval(LEASE_RENEWAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for some in self.all().chunks(LEASES_AT_ONCE_MAX) {
                renew(store, some).await;
            }
        }
    }
}

async fn renew(store: &dyn Store, leases: &[(UpgradeId, Arc<HeldLease>)]) {
    // A process that stood still for longer than its leases knows what is old: its drivers begin anew, and ask their
    // clusters before they do anything.
    let (live, stale): (Vec<_>, Vec<_>) = leases.iter().partition(|(_, lease)| lease.may_act());
    for (upgrade, lease) in stale {
        tracing::warn!(%upgrade, "the lease ended before it was renewed; this server begins anew");
        lease.ended.notify_one();
    }
    if live.is_empty() {
        return;
    }
    let held: Vec<(UpgradeId, Epoch)> = live.iter().map(|(upgrade, lease)| (upgrade.clone(), lease.epoch)).collect();
    let asked_at = Instant::now();
    match store.renew_leases(&held, Timestamp::now(), LEASE_SECONDS).await {
        Ok(answers) => {
            for ((upgrade, lease), answer) in live.into_iter().zip(answers) {
                match answer {
                    Ok(_) => lease.extend(asked_at),
                    Err(StoreError::LeaseLost { epoch, .. }) => {
                        tracing::warn!(%upgrade, ours = %lease.epoch, theirs = %epoch, "the lease was taken by another server; this one stops");
                        lease.ended.notify_one();
                    }
                    Err(error) => tracing::warn!(%upgrade, %error, "the lease was not renewed"),
                }
            }
        }
        // Without the store nothing can be recorded. Each driver stops by itself when its lease is about to end.
        Err(error) => tracing::warn!(leases = held.len(), %error, "the leases were not renewed"),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::http::sample::{events_to_running, store_with};
    use crate::store::{LeaseWanted, MemoryStore};

    /// A store with the running upgrade `u`, whose lease `holder` takes for [`LEASE_SECONDS`] at `now`.
    async fn take(store: &MemoryStore, holder: &str, now: Timestamp) -> Epoch {
        let upgrade = UpgradeId::from("u");
        let expected_len = store.upgrade(&upgrade).await.unwrap().unwrap().len;
        let wanted = [LeaseWanted { upgrade, expected_len }];
        let taken = store.take_leases(&wanted, holder, now, LEASE_SECONDS).await.unwrap().remove(0);
        taken.unwrap().lease.epoch
    }

    /// The lease of `u`, which `one` took ten seconds ago.
    async fn held(store: &MemoryStore) -> (Leases, Arc<HeldLease>) {
        let begun = Timestamp::now() - jiff::SignedDuration::from_secs(10);
        let leases = Leases::default();
        let lease = leases.hold(&"u".into(), take(store, "one", begun).await, Instant::now());
        (leases, lease)
    }

    async fn expires_at(store: &MemoryStore) -> Timestamp {
        store.lease(&"u".into()).await.unwrap().unwrap().expires_at
    }

    #[tokio::test]
    async fn a_lease_is_renewed_while_its_driver_lives_and_ends_when_another_server_took_it() {
        let store = store_with(&[("u", events_to_running())]).await;
        let (leases, lease) = held(&store).await;
        let before = expires_at(&store).await;
        renew(&store, &leases.all()).await;
        let renewed = expires_at(&store).await;
        assert!(renewed > before && lease.may_act());
        assert_eq!(lease.ended().now_or_never(), None);

        take(&store, "two", renewed).await;
        renew(&store, &leases.all()).await;
        assert_eq!(lease.ended().now_or_never(), Some(()));
        drop(lease);
        assert!(leases.all().is_empty(), "nobody drives under it");
        assert!(leases.held.lock().unwrap().is_empty(), "nothing of it stays in memory");
    }

    #[tokio::test(start_paused = true)]
    async fn leases_are_renewed_at_once_and_again_for_as_long_as_the_server_runs() {
        let store = store_with(&[("u", events_to_running())]).await;
        let (leases, lease) = held(&store).await;
        let before = expires_at(&store).await;
        let mut kept = std::pin::pin!(leases.keep(&store));
        assert!(tokio::time::timeout(LEASE_RENEWAL / 2, kept.as_mut()).await.is_err(), "it never ends");
        let renewed = expires_at(&store).await;
        assert!(renewed > before);

        take(&store, "two", renewed).await;
        assert!(tokio::time::timeout(LEASE_RENEWAL, kept).await.is_err(), "it never ends");
        assert_eq!(lease.ended().now_or_never(), Some(()), "it is told of what came between");
    }

    #[test]
    fn a_request_that_could_be_answered_only_as_the_lease_ends_is_not_sent() {
        let until = holds_until(Duration::ZERO);
        assert!(outlasts_a_request(until, until - REQUEST_TIMEOUT - Duration::from_millis(1)));
        assert!(!outlasts_a_request(until, until - REQUEST_TIMEOUT));
    }

    #[tokio::test]
    async fn a_lease_that_may_have_ended_is_not_renewed_and_its_driver_ends() {
        let store = store_with(&[("u", events_to_running())]).await;
        let (Some(asked_at), now) = (Instant::now().checked_sub(Duration::from_secs(11)), Timestamp::now()) else {
            return;
        };
        let leases = Leases::default();
        let lease = leases.hold(&"u".into(), take(&store, "one", now).await, asked_at);
        assert!(!lease.may_act(), "a request could outlast it");
        let before = store.lease(&"u".into()).await.unwrap();
        renew(&store, &leases.all()).await;
        assert_eq!(store.lease(&"u".into()).await.unwrap(), before);
        assert_eq!(lease.ended().now_or_never(), Some(()));
    }
}
