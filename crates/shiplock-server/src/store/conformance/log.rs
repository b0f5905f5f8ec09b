//! Upgrades and their events.

use shiplock_core::id::{ClusterName, Epoch};
use shiplock_core::problem::Code;
use shiplock_core::upgrade::{Event, Upgrade};

use super::super::sample::{at, cluster, new_upgrade, planned};
use super::super::{EVENTS_PER_APPEND_MAX, LeaseWanted, NewUpgrade, UpgradeFilter};
use super::{Fixture, begin, conflict, end, feed, id, refused, renew, take};

pub(in crate::store) async fn an_upgrade_begins_with_its_first_event(store: Fixture) {
    let first = begin(&*store).await;
    assert_eq!((first.upgrade.as_str(), first.number, first.at, first.epoch), ("u1", 1, at(0), None));
    assert_eq!(first.event, planned());
    assert_eq!(store.events(&id("u1"), 0, 10).await.unwrap(), [first]);
    let row = store.upgrade(&id("u1")).await.unwrap().unwrap();
    assert_eq!((row.id, row.cluster, row.len, row.active, row.created_at), (id("u1"), "prod".into(), 1, true, at(0)));
    assert_eq!(store.upgrade(&id("u2")).await.unwrap(), None);
}

pub(in crate::store) async fn an_upgrade_needs_a_cluster_and_a_plan(store: Fixture) {
    assert_eq!(refused(store.create_upgrade(&new_upgrade("u1", "prod")).await).0, Code::ClusterUnknown);
    store.add_cluster(&cluster("prod", "uid-prod")).await.unwrap();
    let unplanned = NewUpgrade { event: Event::Started, ..new_upgrade("u1", "prod") };
    assert_eq!(refused(store.create_upgrade(&unplanned).await).0, Code::Internal);
    assert_eq!(store.upgrades(&UpgradeFilter::default()).await.unwrap(), []);
    assert_eq!(feed(&*store).await, []);
}

pub(in crate::store) async fn a_cluster_has_at_most_one_active_upgrade_whatever_its_name(store: Fixture) {
    begin(&*store).await;
    let (code, parameters) = refused(store.create_upgrade(&new_upgrade("u2", "prod")).await);
    assert_eq!((code, parameters), (Code::UpgradeActive, vec!["active".to_owned(), "u1".to_owned()]));
    assert_eq!(conflict(store.create_upgrade(&new_upgrade("u1", "prod")).await), (0, 1));
    assert_eq!(feed(&*store).await.len(), 1);
    end(&*store, "u1").await;
    assert_eq!(conflict(store.create_upgrade(&new_upgrade("u1", "prod")).await), (0, 2));
    store.create_upgrade(&new_upgrade("u2", "prod")).await.unwrap();
}

pub(in crate::store) async fn an_idempotency_key_returns_the_upgrade_that_it_made(store: Fixture) {
    store.add_cluster(&cluster("prod", "uid-prod")).await.unwrap();
    let with_key =
        |upgrade: &str| NewUpgrade { idempotency_key: Some("k1".to_owned()), ..new_upgrade(upgrade, "prod") };
    let first = store.create_upgrade(&with_key("u1")).await.unwrap();
    assert_eq!(store.create_upgrade(&with_key("u2")).await.unwrap(), first);
    end(&*store, "u1").await;
    assert_eq!(store.create_upgrade(&with_key("u2")).await.unwrap(), first);
    store.remove_cluster(&"prod".into()).await.unwrap();
    assert_eq!(store.create_upgrade(&with_key("u2")).await.unwrap(), first);
    assert_eq!(store.upgrade(&id("u2")).await.unwrap(), None);
}

pub(in crate::store) async fn upgrades_are_listed_newest_first_in_pages(store: Fixture) {
    store.add_cluster(&cluster("prod", "uid-prod")).await.unwrap();
    // Neither ids nor clocks tell the order.
    let made = ["u3", "u1", "u5", "u2", "u4"];
    for (seconds, upgrade) in (0..).zip(made) {
        store.create_upgrade(&NewUpgrade { now: at(-seconds), ..new_upgrade(upgrade, "prod") }).await.unwrap();
        end(&*store, upgrade).await;
    }
    let mut listed = Vec::new();
    let mut filter = UpgradeFilter { limit: 2, ..UpgradeFilter::default() };
    loop {
        let page = store.upgrades(&filter).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        filter.after = Some(last.id.clone());
        listed.extend(page.into_iter().map(|row| row.id.to_string()));
    }
    assert_eq!(listed, ["u4", "u2", "u5", "u1", "u3"]);
    filter.after = Some(id("nobody"));
    assert_eq!(refused(store.upgrades(&filter).await).0, Code::UpgradeUnknown);
}

pub(in crate::store) async fn upgrades_are_filtered_by_cluster_and_by_whether_they_are_active(store: Fixture) {
    begin(&*store).await;
    end(&*store, "u1").await;
    store.add_cluster(&cluster("test", "uid-test")).await.unwrap();
    for (upgrade, cluster) in [("u2", "prod"), ("u3", "test")] {
        store.create_upgrade(&new_upgrade(upgrade, cluster)).await.unwrap();
    }
    let cases: [(Option<&str>, bool, &[&str]); 5] = [
        (None, false, &["u3", "u2", "u1"]),
        (None, true, &["u3", "u2"]),
        (Some("prod"), false, &["u2", "u1"]),
        (Some("prod"), true, &["u2"]),
        (Some("other"), false, &[]),
    ];
    for (cluster, active, expected) in cases {
        let filter = UpgradeFilter { cluster: cluster.map(ClusterName::from), active, after: None, limit: 10 };
        let listed: Vec<_> = store.upgrades(&filter).await.unwrap().into_iter().map(|row| row.id.to_string()).collect();
        assert_eq!(listed, expected, "{filter:?}");
    }
    let filter = UpgradeFilter { active: true, after: Some(id("u3")), limit: 10, cluster: None };
    assert_eq!(store.upgrades(&filter).await.unwrap().len(), 1);
}

pub(in crate::store) async fn a_limit_is_taken_as_one_to_a_thousand(store: Fixture) {
    begin(&*store).await;
    let events: Vec<_> = (0..EVENTS_PER_APPEND_MAX).map(|stage| Event::StageStarted { stage }).collect();
    store.append_request(&id("u1"), 1, at(0), &events).await.unwrap();
    for (limit, expected) in [(0, 1), (1, 1), (7, 7), (1_000, 1_000), (u32::MAX, 1_000)] {
        assert_eq!(store.events(&id("u1"), 0, limit).await.unwrap().len(), expected, "events, {limit}");
        assert_eq!(store.events_since(0, limit).await.unwrap().len(), expected, "feed, {limit}");
    }
    let none = UpgradeFilter::default();
    assert_eq!(store.upgrades(&none).await.unwrap().len(), 1);
    for after in [1_001, i64::MAX as u64, u64::MAX] {
        assert_eq!(store.events(&id("u1"), after, 10).await.unwrap(), [], "after {after}");
        assert_eq!(store.events_since(u64::MAX, 10).await.unwrap(), [], "after {after}");
    }
}

pub(in crate::store) async fn numbers_have_no_gaps_and_positions_rise_over_all_upgrades(store: Fixture) {
    begin(&*store).await;
    store.add_cluster(&cluster("test", "uid-test")).await.unwrap();
    store.create_upgrade(&new_upgrade("u2", "test")).await.unwrap();
    for (upgrade, len) in [("u1", 1), ("u2", 1), ("u1", 3), ("u2", 3)] {
        let records = store.append_request(&id(upgrade), len, at(1), &[Event::Started, Event::Paused]).await.unwrap();
        assert_eq!(records, store.events(&id(upgrade), len, 10).await.unwrap(), "what is returned is what is kept");
    }
    for upgrade in ["u1", "u2"] {
        let numbers: Vec<_> =
            store.events(&id(upgrade), 0, 10).await.unwrap().iter().map(|record| record.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4, 5]);
    }
    let feed = feed(&*store).await;
    assert_eq!(feed.len(), 10);
    assert!(feed.is_sorted_by(|one, next| one.position < next.position));
    assert!(feed[0].position >= 1, "a reader that begins at 0 sees the first event");
}

pub(in crate::store) async fn an_append_with_another_length_changes_nothing(store: Fixture) {
    begin(&*store).await;
    for expected in [0, 2, u64::MAX] {
        let result = store.append_request(&id("u1"), expected, at(1), &[Event::Started]).await;
        assert_eq!(conflict(result), (expected, 1));
    }
    assert_eq!(feed(&*store).await.len(), 1);
}

pub(in crate::store) async fn an_append_is_kept_whole_or_not_at_all(store: Fixture) {
    begin(&*store).await;
    let (code, _) = refused(store.append_request(&id("u1"), 1, at(1), &[Event::Cancelled, Event::Started]).await);
    assert_eq!(code, Code::Internal, "nothing follows the end");
    assert_eq!(feed(&*store).await.len(), 1);
    let events = [Event::CheckStarted, Event::Started, Event::Succeeded];
    let records = store.append_request(&id("u1"), 1, at(1), &events).await.unwrap();
    assert_eq!(records.iter().map(|record| record.event.clone()).collect::<Vec<_>>(), events);
    assert_eq!(feed(&*store).await.len(), 4);
}

pub(in crate::store) async fn too_many_events_at_once_are_refused(store: Fixture) {
    begin(&*store).await;
    let events = vec![Event::Started; EVENTS_PER_APPEND_MAX + 1];
    assert_eq!(refused(store.append_request(&id("u1"), 1, at(1), &events).await).0, Code::TooLarge);
    assert_eq!(feed(&*store).await.len(), 1);
}

pub(in crate::store) async fn an_append_of_nothing_appends_nothing(store: Fixture) {
    begin(&*store).await;
    assert_eq!(store.append_request(&id("u1"), 1, at(1), &[]).await.unwrap(), []);
    assert_eq!(conflict(store.append_request(&id("u1"), 2, at(1), &[]).await), (2, 1));
    let row = store.upgrade(&id("u1")).await.unwrap().unwrap();
    assert!(row.active && row.len == 1);
}

pub(in crate::store) async fn an_event_is_never_older_than_the_one_ahead_of_it(store: Fixture) {
    begin(&*store).await;
    let nanosecond = "2026-12-01T00:00:00.000000001Z".parse().unwrap();
    for (len, now, expected) in [(1, at(-3_600), at(0)), (2, nanosecond, nanosecond), (3, at(10), nanosecond)] {
        let records = store.append_request(&id("u1"), len, now, &[Event::Started]).await.unwrap();
        assert_eq!(records[0].at, expected);
        assert_eq!(store.events(&id("u1"), len, 1).await.unwrap(), records);
    }
}

pub(in crate::store) async fn a_person_appends_without_a_lease(store: Fixture) {
    begin(&*store).await;
    let lease = take(&*store, &id("u1"), "one", at(0), 30).await.unwrap();
    let records = store.append_request(&id("u1"), 2, at(1), &[Event::Paused]).await.unwrap();
    assert_eq!(records[0].epoch, None);
    // The driver is overtaken, not fenced: it folds again and goes on under its epoch.
    assert_eq!(conflict(store.append(&id("u1"), 2, lease.epoch, at(1), &[Event::Started]).await), (2, 3));
    store.append(&id("u1"), 3, lease.epoch, at(1), &[Event::Started]).await.unwrap();
}

pub(in crate::store) async fn an_upgrade_that_ended_is_inactive_and_closed(store: Fixture) {
    store.add_cluster(&cluster("prod", "uid-prod")).await.unwrap();
    let cases = [
        ("u1", Event::Cancelled, "cancelled"),
        ("u2", Event::Expired, "expired"),
        ("u3", Event::Succeeded, "succeeded"),
    ];
    for (upgrade, event, state) in cases {
        let upgrade = id(upgrade);
        store.create_upgrade(&new_upgrade(upgrade.as_str(), "prod")).await.unwrap();
        let lease = take(&*store, &upgrade, "one", at(0), 30).await.unwrap();
        store.append(&upgrade, 2, lease.epoch, at(1), &[Event::Started, event]).await.unwrap();
        assert!(!store.upgrade(&upgrade).await.unwrap().unwrap().active);
        let (code, parameters) = refused(store.append_request(&upgrade, 4, at(2), &[Event::Started]).await);
        assert_eq!(code, Code::ControlNotAllowed);
        assert!(parameters.contains(&state.to_owned()), "{parameters:?}");
        let (code, _) = refused(store.append(&upgrade, 4, lease.epoch, at(2), &[Event::Started]).await);
        assert_eq!(code, Code::ControlNotAllowed);
        assert_eq!(conflict(store.append_request(&upgrade, 3, at(2), &[Event::Started]).await), (3, 4));
        assert_eq!(store.upgrade(&upgrade).await.unwrap().unwrap().len, 4);
    }
}

pub(in crate::store) async fn nothing_can_be_appended_to_what_does_not_exist(store: Fixture) {
    let nobody = id("nobody");
    assert_eq!(refused(store.append_request(&nobody, 0, at(0), &[Event::Started]).await).0, Code::UpgradeUnknown);
    assert_eq!(refused(store.append(&nobody, 0, Epoch(1), at(0), &[Event::Started]).await).0, Code::UpgradeUnknown);
    let wanted = [LeaseWanted { upgrade: nobody.clone(), expected_len: 0 }];
    assert_eq!(refused(store.take_leases(&wanted, "one", at(0), 30).await).0, Code::UpgradeUnknown);
    assert_eq!(refused(renew(&*store, &nobody, Epoch(1), at(0), 30).await).0, Code::UpgradeUnknown);
    assert_eq!(refused(store.release_lease(&nobody, Epoch(1)).await).0, Code::UpgradeUnknown);
    assert_eq!(store.lease(&nobody).await.unwrap(), None);
    assert_eq!(store.events(&nobody, 0, 10).await.unwrap(), []);
}

pub(in crate::store) async fn active_logs_are_whole_and_leave_out_what_has_ended(store: Fixture) {
    assert_eq!(store.active_logs().await.unwrap(), []);
    begin(&*store).await;
    end(&*store, "u1").await;
    store.add_cluster(&cluster("test", "uid-test")).await.unwrap();
    for (upgrade, cluster) in [("u2", "prod"), ("u3", "test")] {
        store.create_upgrade(&new_upgrade(upgrade, cluster)).await.unwrap();
        store.append_request(&id(upgrade), 1, at(1), &[Event::CheckStarted]).await.unwrap();
    }
    let logs = store.active_logs().await.unwrap();
    assert_eq!(logs.iter().map(|log| log.upgrade.id.as_str()).collect::<Vec<_>>(), ["u3", "u2"]);
    for log in logs {
        let events = log.events.unwrap();
        assert_eq!(events, store.events(&log.upgrade.id, 0, 10).await.unwrap());
        assert_eq!(Upgrade::fold(&events).unwrap().len, log.upgrade.len);
    }
}
