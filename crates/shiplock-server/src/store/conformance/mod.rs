//! One suite for every store. A store that passes it may be put in place of any other.
//!
//! [`suite`] makes one test of each check for one way to make a store. A new rule of the trait gets its check here,
//! never in the tests of one implementation.

mod check;
mod lease;
mod log;
mod race;
mod registry;

use std::any::Any;
use std::ops::Deref;
use std::sync::Arc;

use jiff::Timestamp;
use shiplock_core::id::{Epoch, UpgradeId};
use shiplock_core::problem::Code;
use shiplock_core::upgrade::{Event, EventRecord};

pub(super) use self::check::*;
pub(super) use self::lease::*;
pub(super) use self::log::*;
pub(super) use self::race::*;
pub(super) use self::registry::*;
use super::sample::{at, cluster, new_upgrade};
use super::{Lease, LeaseTaken, LeaseWanted, Store, StoreError};

/// A store with what must live as long as it, such as its directory.
pub(super) struct Fixture {
    store: Arc<dyn Store>,
    _keep: Option<Box<dyn Any + Send + Sync>>,
}

impl Fixture {
    pub(super) fn new(store: impl Store + 'static) -> Self {
        Self { store: Arc::new(store), _keep: None }
    }

    pub(super) fn keeping(store: impl Store + 'static, keep: impl Any + Send + Sync) -> Self {
        Self { store: Arc::new(store), _keep: Some(Box::new(keep)) }
    }
}

impl Deref for Fixture {
    type Target = dyn Store;
    fn deref(&self) -> &Self::Target {
        self.store.as_ref()
    }
}

/// Makes a test of each check. `$make` is an async function without arguments that returns a [`Fixture`].
macro_rules! suite {
    ($make:ident) => {
        $crate::store::conformance::suite! { $make:
            a_setting_keeps_its_first_value
            a_cluster_is_read_back_as_it_was_registered
            clusters_are_listed_by_name
            a_name_and_an_identity_are_registered_once
            a_cluster_changes_its_access_and_never_its_identity
            a_forgotten_agent_is_gone_and_no_other
            a_cluster_with_an_active_upgrade_is_not_removed
            a_removed_cluster_takes_its_agents_and_tokens_along_and_leaves_its_logs
            a_plan_is_kept_and_never_changed
            the_newest_reports_of_a_cluster_are_kept
            an_acceptance_is_kept_until_it_is_taken_back
            an_upgrade_begins_with_its_first_event
            an_upgrade_needs_a_cluster_and_a_plan
            a_cluster_has_at_most_one_active_upgrade_whatever_its_name
            an_idempotency_key_returns_the_upgrade_that_it_made
            upgrades_are_listed_newest_first_in_pages
            upgrades_are_filtered_by_cluster_and_by_whether_they_are_active
            a_limit_is_taken_as_one_to_a_thousand
            numbers_have_no_gaps_and_positions_rise_over_all_upgrades
            an_append_with_another_length_changes_nothing
            an_append_is_kept_whole_or_not_at_all
            too_many_events_at_once_are_refused
            an_append_of_nothing_appends_nothing
            an_event_is_never_older_than_the_one_ahead_of_it
            a_driver_appends_only_under_the_epoch_in_force
            a_lost_lease_is_told_before_a_conflict
            a_person_appends_without_a_lease
            an_upgrade_that_ended_is_inactive_and_closed
            nothing_can_be_appended_to_what_does_not_exist
            a_lease_is_taken_by_one_holder_until_it_is_over
            a_renewed_lease_lasts_longer_under_its_epoch
            a_lease_that_was_given_back_is_free_and_fences_its_epoch
            a_lease_of_an_ended_upgrade_is_not_given
            many_leases_are_taken_at_once_and_each_log_tells_of_its_own
            a_lease_is_not_given_to_who_folded_another_log
            many_leases_are_taken_all_or_none
            a_lost_lease_does_not_keep_others_from_being_renewed
            an_epoch_never_goes_back_over_upgrades_and_registrations_of_a_cluster
            clusters_have_epochs_of_their_own
            a_store_that_lost_epochs_gives_higher_ones
            a_join_token_is_used_once_and_in_time
            an_agent_takes_the_place_of_the_earlier_one_of_its_node
            of_many_who_append_at_once_one_wins_each_length
            of_many_who_begin_an_upgrade_at_once_one_wins
            of_many_who_take_a_lease_at_once_one_gets_it
            of_many_who_use_a_join_token_at_once_one_gets_in
            a_reader_that_resumes_from_a_position_loses_and_repeats_nothing
            active_logs_are_whole_and_leave_out_what_has_ended
        }
    };
    ($make:ident: $($check:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            $crate::store::conformance::$check($make().await).await;
        }
    )*};
}
pub(super) use suite;

fn id(text: &str) -> UpgradeId {
    text.into()
}

fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>) -> (Code, Vec<String>) {
    match result {
        Err(StoreError::Refused(problem)) => (problem.code, problem.parameters.into_values().collect()),
        other => panic!("a refusal was expected: {other:?}"),
    }
}

fn conflict<T: std::fmt::Debug>(result: Result<T, StoreError>) -> (u64, u64) {
    match result {
        Err(StoreError::Conflict { expected, found, .. }) => (expected, found),
        other => panic!("a conflict was expected: {other:?}"),
    }
}

fn lost<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Epoch {
    match result {
        Err(StoreError::LeaseLost { epoch, .. }) => epoch,
        other => panic!("a lost lease was expected: {other:?}"),
    }
}

/// A store with cluster `prod` and its active upgrade `u1`.
async fn begin(store: &dyn Store) -> EventRecord {
    store.add_cluster(&cluster("prod", "uid-prod")).await.unwrap();
    store.create_upgrade(&new_upgrade("u1", "prod")).await.unwrap()
}

/// Takes the lease of one upgrade as a holder that has folded its whole log.
pub(super) async fn take(
    store: &dyn Store,
    upgrade: &UpgradeId,
    holder: &str,
    now: Timestamp,
    seconds: u32,
) -> Option<Lease> {
    let expected_len = store.upgrade(upgrade).await.unwrap().unwrap().len;
    let wanted = [LeaseWanted { upgrade: upgrade.clone(), expected_len }];
    let answers: [_; 1] = store.take_leases(&wanted, holder, now, seconds).await.unwrap().try_into().unwrap();
    answers.into_iter().flatten().map(|taken: LeaseTaken| taken.lease).next()
}

/// Renews one lease.
async fn renew(
    store: &dyn Store,
    upgrade: &UpgradeId,
    epoch: Epoch,
    now: Timestamp,
    seconds: u32,
) -> Result<Lease, StoreError> {
    let answers = store.renew_leases(&[(upgrade.clone(), epoch)], now, seconds).await?;
    let [answer] = answers.try_into().unwrap();
    answer
}

async fn end(store: &dyn Store, upgrade: &str) {
    let len = store.upgrade(&id(upgrade)).await.unwrap().unwrap().len;
    store.append_request(&id(upgrade), len, at(5), &[Event::Cancelled]).await.unwrap();
}

async fn feed(store: &dyn Store) -> Vec<EventRecord> {
    store.events_since(0, 1_000).await.unwrap()
}
