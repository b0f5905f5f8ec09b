//! Leases and epochs: who may drive, and what a stale driver can still do (nothing).

use shiplock_core::id::Epoch;
use shiplock_core::upgrade::Event;

use super::super::sample::{at, cluster, new_upgrade};
use super::{Fixture, begin, conflict, end, id, lost};

pub(in crate::store) async fn a_driver_appends_only_under_the_epoch_in_force(store: Fixture) {
    begin(&*store).await;
    assert_eq!(lost(store.append(&id("u1"), 1, Epoch(0), at(1), &[Event::Started]).await), Epoch(0));
    let first = store.take_lease(&id("u1"), "one", at(0), 30).await.unwrap().unwrap();
    let records = store.append(&id("u1"), 1, first.epoch, at(1), &[Event::Started]).await.unwrap();
    assert_eq!(records[0].epoch, Some(first.epoch));
    let second = store.take_lease(&id("u1"), "two", at(30), 30).await.unwrap().unwrap();
    for stale in [first.epoch, Epoch(second.epoch.0 + 1), Epoch(u64::MAX)] {
        assert_eq!(lost(store.append(&id("u1"), 2, stale, at(31), &[Event::Paused]).await), second.epoch);
    }
    store.append(&id("u1"), 2, second.epoch, at(31), &[Event::Paused]).await.unwrap();
    // Nobody took it since, so the epoch still fences.
    store.append(&id("u1"), 3, second.epoch, at(3_600), &[Event::Paused]).await.unwrap();
}

pub(in crate::store) async fn a_lost_lease_is_told_before_a_conflict(store: Fixture) {
    begin(&*store).await;
    let first = store.take_lease(&id("u1"), "one", at(0), 30).await.unwrap().unwrap();
    let second = store.take_lease(&id("u1"), "two", at(30), 30).await.unwrap().unwrap();
    store.append(&id("u1"), 1, second.epoch, at(31), &[Event::Started]).await.unwrap();
    assert_eq!(lost(store.append(&id("u1"), 1, first.epoch, at(31), &[Event::Paused]).await), second.epoch);
    assert_eq!(conflict(store.append(&id("u1"), 1, second.epoch, at(31), &[Event::Paused]).await), (1, 2));
}

pub(in crate::store) async fn a_lease_is_taken_by_one_holder_until_it_is_over(store: Fixture) {
    begin(&*store).await;
    let u1 = id("u1");
    assert_eq!(store.lease(&u1).await.unwrap(), None);
    let first = store.take_lease(&u1, "one", at(0), 30).await.unwrap().unwrap();
    assert_eq!((first.holder.as_str(), first.expires_at), ("one", at(30)));
    assert_eq!(store.take_lease(&u1, "two", at(29), 30).await.unwrap(), None);
    assert_eq!(store.lease(&u1).await.unwrap(), Some(first.clone()));
    let again = store.take_lease(&u1, "one", at(10), 30).await.unwrap().unwrap();
    assert!(again.epoch > first.epoch, "a holder that was started again fences its former self");
    let second = store.take_lease(&u1, "two", at(40), 30).await.unwrap().unwrap();
    assert!(second.epoch > again.epoch);
    assert_eq!(store.lease(&u1).await.unwrap(), Some(second));
}

pub(in crate::store) async fn a_renewed_lease_lasts_longer_under_its_epoch(store: Fixture) {
    begin(&*store).await;
    let u1 = id("u1");
    assert_eq!(lost(store.renew_lease(&u1, Epoch(1), at(0), 30).await), Epoch(0));
    let first = store.take_lease(&u1, "one", at(0), 30).await.unwrap().unwrap();
    let renewed = store.renew_lease(&u1, first.epoch, at(20), 30).await.unwrap();
    assert_eq!((renewed.epoch, renewed.expires_at), (first.epoch, at(50)));
    assert_eq!(store.take_lease(&u1, "two", at(49), 30).await.unwrap(), None);
    // Late, but nobody took it since.
    store.renew_lease(&u1, first.epoch, at(60), 30).await.unwrap();
    let second = store.take_lease(&u1, "two", at(90), 30).await.unwrap().unwrap();
    assert_eq!(lost(store.renew_lease(&u1, first.epoch, at(90), 30).await), second.epoch);
    assert_eq!(store.lease(&u1).await.unwrap(), Some(second));
}

pub(in crate::store) async fn a_lease_that_was_given_back_is_free_and_fences_its_epoch(store: Fixture) {
    begin(&*store).await;
    let u1 = id("u1");
    let first = store.take_lease(&u1, "one", at(0), 30).await.unwrap().unwrap();
    for _ in 0..2 {
        store.release_lease(&u1, first.epoch).await.unwrap();
    }
    assert!(store.lease(&u1).await.unwrap().unwrap().expires_at <= at(0));
    assert_eq!(lost(store.append(&u1, 1, first.epoch, at(1), &[Event::Started]).await), first.epoch);
    assert_eq!(lost(store.renew_lease(&u1, first.epoch, at(1), 30).await), first.epoch);
    let second = store.take_lease(&u1, "two", at(1), 30).await.unwrap().unwrap();
    assert!(second.epoch > first.epoch);
    assert_eq!(lost(store.release_lease(&u1, first.epoch).await), second.epoch);
    assert_eq!(store.lease(&u1).await.unwrap(), Some(second));
}

pub(in crate::store) async fn a_lease_of_an_ended_upgrade_is_not_given(store: Fixture) {
    begin(&*store).await;
    end(&*store, "u1").await;
    assert_eq!(store.take_lease(&id("u1"), "one", at(9), 30).await.unwrap(), None);
}

pub(in crate::store) async fn an_epoch_never_goes_back_over_upgrades_and_registrations_of_a_cluster(store: Fixture) {
    begin(&*store).await;
    let mut newest = Epoch(0);
    for (upgrade, name) in [("u1", "prod"), ("u2", "prod"), ("u3", "again")] {
        if upgrade != "u1" {
            store.create_upgrade(&new_upgrade(upgrade, name)).await.unwrap();
        }
        let lease = store.take_lease(&id(upgrade), "one", at(0), 30).await.unwrap().unwrap();
        assert!(lease.epoch > newest, "{upgrade}");
        newest = lease.epoch;
        end(&*store, upgrade).await;
        if upgrade == "u2" {
            store.remove_cluster(&"prod".into()).await.unwrap();
            store.add_cluster(&cluster("again", "uid-prod")).await.unwrap();
        }
    }
}

pub(in crate::store) async fn clusters_have_epochs_of_their_own(store: Fixture) {
    begin(&*store).await;
    store.add_cluster(&cluster("test", "uid-test")).await.unwrap();
    store.create_upgrade(&new_upgrade("u2", "test")).await.unwrap();
    for (upgrade, epoch) in [("u1", 1), ("u1", 2), ("u2", 1)] {
        let lease = store.take_lease(&id(upgrade), "one", at(0), 30).await.unwrap().unwrap();
        assert_eq!(lease.epoch, Epoch(epoch));
    }
}
