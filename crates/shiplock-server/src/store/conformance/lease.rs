//! Leases and epochs: who may drive, and what a stale driver can still do (nothing).

use shiplock_core::id::Epoch;
use shiplock_core::problem::Code;
use shiplock_core::upgrade::Event;

use super::super::sample::{at, cluster, new_upgrade};
use super::super::{LEASES_AT_ONCE_MAX, LeaseWanted};
use super::{Fixture, begin, conflict, end, id, lost, refused, renew, take};

pub(in crate::store) async fn a_driver_appends_only_under_the_epoch_in_force(store: Fixture) {
    begin(&*store).await;
    assert_eq!(lost(store.append(&id("u1"), 1, Epoch(0), at(1), &[Event::Started]).await), Epoch(0));
    let first = take(&*store, &id("u1"), "one", at(0), 30).await.unwrap();
    let records = store.append(&id("u1"), 2, first.epoch, at(1), &[Event::Started]).await.unwrap();
    assert_eq!(records[0].epoch, Some(first.epoch));
    let second = take(&*store, &id("u1"), "two", at(30), 30).await.unwrap();
    for stale in [first.epoch, Epoch(second.epoch.0 + 1), Epoch(u64::MAX)] {
        assert_eq!(lost(store.append(&id("u1"), 4, stale, at(31), &[Event::Paused]).await), second.epoch);
    }
    store.append(&id("u1"), 4, second.epoch, at(31), &[Event::Paused]).await.unwrap();
    // Nobody took it since, so the epoch still fences.
    store.append(&id("u1"), 5, second.epoch, at(3_600), &[Event::Paused]).await.unwrap();
}

pub(in crate::store) async fn a_lost_lease_is_told_before_a_conflict(store: Fixture) {
    begin(&*store).await;
    let first = take(&*store, &id("u1"), "one", at(0), 30).await.unwrap();
    let second = take(&*store, &id("u1"), "two", at(30), 30).await.unwrap();
    store.append(&id("u1"), 3, second.epoch, at(31), &[Event::Started]).await.unwrap();
    assert_eq!(lost(store.append(&id("u1"), 3, first.epoch, at(31), &[Event::Paused]).await), second.epoch);
    assert_eq!(conflict(store.append(&id("u1"), 3, second.epoch, at(31), &[Event::Paused]).await), (3, 4));
}

pub(in crate::store) async fn a_lease_is_taken_by_one_holder_until_it_is_over(store: Fixture) {
    begin(&*store).await;
    let u1 = id("u1");
    assert_eq!(store.lease(&u1).await.unwrap(), None);
    let first = take(&*store, &u1, "one", at(0), 30).await.unwrap();
    assert_eq!((first.holder.as_str(), first.expires_at), ("one", at(30)));
    assert_eq!(take(&*store, &u1, "two", at(29), 30).await, None);
    assert_eq!(store.lease(&u1).await.unwrap(), Some(first.clone()));
    let again = take(&*store, &u1, "one", at(10), 30).await.unwrap();
    assert!(again.epoch > first.epoch, "a holder that was started again fences its former self");
    let second = take(&*store, &u1, "two", at(40), 30).await.unwrap();
    assert!(second.epoch > again.epoch);
    assert_eq!(store.lease(&u1).await.unwrap(), Some(second));
}

pub(in crate::store) async fn a_renewed_lease_lasts_longer_under_its_epoch(store: Fixture) {
    begin(&*store).await;
    let u1 = id("u1");
    assert_eq!(lost(renew(&*store, &u1, Epoch(1), at(0), 30).await), Epoch(0));
    let first = take(&*store, &u1, "one", at(0), 30).await.unwrap();
    let renewed = renew(&*store, &u1, first.epoch, at(20), 30).await.unwrap();
    assert_eq!((renewed.epoch, renewed.expires_at), (first.epoch, at(50)));
    assert_eq!(take(&*store, &u1, "two", at(49), 30).await, None);
    // Late, but nobody took it since.
    renew(&*store, &u1, first.epoch, at(60), 30).await.unwrap();
    let second = take(&*store, &u1, "two", at(90), 30).await.unwrap();
    assert_eq!(lost(renew(&*store, &u1, first.epoch, at(90), 30).await), second.epoch);
    assert_eq!(store.lease(&u1).await.unwrap(), Some(second));
}

pub(in crate::store) async fn a_lease_that_was_given_back_is_free_and_fences_its_epoch(store: Fixture) {
    begin(&*store).await;
    let u1 = id("u1");
    let first = take(&*store, &u1, "one", at(0), 30).await.unwrap();
    for _ in 0..2 {
        store.release_lease(&u1, first.epoch).await.unwrap();
    }
    assert!(store.lease(&u1).await.unwrap().unwrap().expires_at <= at(0));
    assert_eq!(lost(store.append(&u1, 2, first.epoch, at(1), &[Event::Started]).await), first.epoch);
    assert_eq!(lost(renew(&*store, &u1, first.epoch, at(1), 30).await), first.epoch);
    let second = take(&*store, &u1, "two", at(1), 30).await.unwrap();
    assert!(second.epoch > first.epoch);
    assert_eq!(lost(store.release_lease(&u1, first.epoch).await), second.epoch);
    assert_eq!(store.lease(&u1).await.unwrap(), Some(second));
}

pub(in crate::store) async fn a_lease_of_an_ended_upgrade_is_not_given(store: Fixture) {
    begin(&*store).await;
    end(&*store, "u1").await;
    assert_eq!(take(&*store, &id("u1"), "one", at(9), 30).await, None);
}

pub(in crate::store) async fn an_epoch_never_goes_back_over_upgrades_and_registrations_of_a_cluster(store: Fixture) {
    begin(&*store).await;
    let mut newest = Epoch(0);
    for (upgrade, name) in [("u1", "prod"), ("u2", "prod"), ("u3", "again")] {
        if upgrade != "u1" {
            store.create_upgrade(&new_upgrade(upgrade, name)).await.unwrap();
        }
        let lease = take(&*store, &id(upgrade), "one", at(0), 30).await.unwrap();
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
    let first = u64::try_from(at(0).as_second()).unwrap();
    for (upgrade, epoch) in [("u1", first), ("u1", first + 1), ("u2", first)] {
        let lease = take(&*store, &id(upgrade), "one", at(0), 30).await.unwrap();
        assert_eq!(lease.epoch, Epoch(epoch));
    }
}

pub(in crate::store) async fn a_store_that_lost_epochs_gives_higher_ones(store: Fixture) {
    begin(&*store).await;
    // What the lost store gave before this one, which never heard of it, gives its first.
    let lost = crate::store::rule::next_epoch(Epoch(0), at(0));
    let lease = take(&*store, &id("u1"), "one", at(1), 30).await.unwrap();
    assert!(lease.epoch > lost, "{} after {lost}", lease.epoch);
    // A clock that was put back does not make it go back.
    let again = take(&*store, &id("u1"), "one", at(0), 30).await.unwrap();
    assert!(again.epoch > lease.epoch);
}

fn wanted(upgrade: &str, expected_len: u64) -> LeaseWanted {
    LeaseWanted { upgrade: id(upgrade), expected_len }
}

/// Three clusters with an active upgrade each, `u1` to `u3`.
async fn three(store: &Fixture) {
    begin(&**store).await;
    for (upgrade, name) in [("u2", "test"), ("u3", "stage")] {
        store.add_cluster(&cluster(name, &format!("uid-{name}"))).await.unwrap();
        store.create_upgrade(&new_upgrade(upgrade, name)).await.unwrap();
    }
}

pub(in crate::store) async fn many_leases_are_taken_at_once_and_each_log_tells_of_its_own(store: Fixture) {
    three(&store).await;
    take(&*store, &id("u2"), "two", at(0), 30).await.unwrap();
    // One is free, one is another's, one comes twice.
    let asked = [wanted("u3", 1), wanted("u2", 2), wanted("u1", 1), wanted("u1", 1)];
    let answers = store.take_leases(&asked, "one", at(1), 30).await.unwrap();
    let taken: Vec<bool> = answers.iter().map(Option::is_some).collect();
    assert_eq!(taken, [true, false, true, false], "in the order asked");
    for (answer, LeaseWanted { upgrade, .. }) in answers.iter().zip(&asked) {
        let Some(taken) = answer else { continue };
        let epoch = taken.lease.epoch;
        assert_eq!(store.lease(upgrade).await.unwrap().as_ref(), Some(&taken.lease));
        assert_eq!(taken.record.event, Event::LeaseTaken { epoch, holder: "one".to_owned() });
        assert_eq!((taken.record.number, taken.record.epoch), (2, Some(epoch)));
        assert_eq!(store.events(upgrade, 1, 10).await.unwrap(), *std::slice::from_ref(&taken.record), "{upgrade}");
        store.append(upgrade, 2, epoch, at(2), &[Event::Started]).await.unwrap();
    }
    assert_eq!(store.lease(&id("u2")).await.unwrap().unwrap().holder, "two");
    assert_eq!(store.take_leases(&[], "one", at(1), 30).await.unwrap(), []);
}

pub(in crate::store) async fn a_lease_is_not_given_to_who_folded_another_log(store: Fixture) {
    three(&store).await;
    store.append_request(&id("u2"), 1, at(0), &[Event::CheckStarted]).await.unwrap();
    let asked = [wanted("u1", 1), wanted("u2", 1), wanted("u3", 2)];
    let answers = store.take_leases(&asked, "one", at(1), 30).await.unwrap();
    assert_eq!(answers.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!(store.lease(&id("u2")).await.unwrap(), None, "nothing was changed");
    assert_eq!(store.events(&id("u2"), 2, 10).await.unwrap(), []);
    let epoch = take(&*store, &id("u2"), "one", at(1), 30).await.unwrap().epoch;
    let first = u64::try_from(at(1).as_second()).unwrap();
    assert_eq!(epoch, Epoch(first), "an epoch is used up by a lease only");
}

pub(in crate::store) async fn many_leases_are_taken_all_or_none(store: Fixture) {
    three(&store).await;
    let unknown = store.take_leases(&[wanted("u1", 1), wanted("nobody", 0)], "one", at(1), 30).await;
    assert_eq!(refused(unknown).0, Code::UpgradeUnknown);
    let too_many = vec![wanted("u1", 1); LEASES_AT_ONCE_MAX + 1];
    assert_eq!(refused(store.take_leases(&too_many, "one", at(1), 30).await).0, Code::TooLarge);
    let too_many = vec![(id("u1"), Epoch(1)); LEASES_AT_ONCE_MAX + 1];
    assert_eq!(refused(store.renew_leases(&too_many, at(1), 30).await).0, Code::TooLarge);
    assert_eq!(store.lease(&id("u1")).await.unwrap(), None);
    assert_eq!(store.upgrade(&id("u1")).await.unwrap().unwrap().len, 1);
}

pub(in crate::store) async fn a_lost_lease_does_not_keep_others_from_being_renewed(store: Fixture) {
    three(&store).await;
    let mut held = Vec::new();
    for upgrade in ["u1", "u2", "u3"] {
        held.push((id(upgrade), take(&*store, &id(upgrade), "one", at(0), 30).await.unwrap().epoch));
    }
    let other = take(&*store, &id("u2"), "two", at(30), 30).await.unwrap();
    let mut answers = store.renew_leases(&held, at(31), 30).await.unwrap();
    assert_eq!(lost(answers.remove(1)), other.epoch);
    assert_eq!(answers.len(), 2);
    for (answer, (upgrade, epoch)) in answers.into_iter().zip([&held[0], &held[2]]) {
        let lease = answer.unwrap();
        assert_eq!((lease.epoch, lease.expires_at), (*epoch, at(61)));
        assert_eq!(store.lease(upgrade).await.unwrap(), Some(lease));
    }
    assert_eq!(store.lease(&id("u2")).await.unwrap(), Some(other));
}
