//! Many at once: exactly one wins, and a reader misses nothing of it.

use std::sync::Arc;

use shiplock_core::problem::Code;
use shiplock_core::upgrade::{Event, EventRecord};

use super::super::Store;
use super::super::sample::{at, cluster, new_upgrade};
use super::{Fixture, begin, conflict, feed, id, refused, take};

/// Runs many tasks at once and gathers what they return.
async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    store: &Fixture,
    tasks: usize,
    task: impl Fn(Arc<dyn Store>, usize) -> F,
) -> Vec<T> {
    let tasks: Vec<_> = (0..tasks).map(|index| tokio::spawn(task(store.store.clone(), index))).collect();
    futures::future::join_all(tasks).await.into_iter().map(Result::unwrap).collect()
}

pub(in crate::store) async fn of_many_who_append_at_once_one_wins_each_length(store: Fixture) {
    begin(&*store).await;
    let lease = take(&*store, &id("u1"), "one", at(0), 30).await.unwrap();
    for len in 2..=6u64 {
        let results = at_once(&store, 8, |store, index| async move {
            let event = [Event::StageStarted { stage: index }];
            // Persons and the driver race for the same length.
            match index % 2 {
                0 => store.append_request(&id("u1"), len, at(1), &event).await,
                _ => store.append(&id("u1"), len, lease.epoch, at(1), &event).await,
            }
        });
        let mut winners = 0;
        for result in results.await {
            match result {
                Ok(records) => {
                    winners += 1;
                    assert_eq!(store.events(&id("u1"), len, 10).await.unwrap(), records, "the winner's event is kept");
                }
                Err(error) => assert_eq!(conflict::<()>(Err(error)), (len, len + 1)),
            }
        }
        assert_eq!(winners, 1, "length {len}");
    }
    assert_eq!(feed(&*store).await.len(), 7);
}

pub(in crate::store) async fn of_many_who_begin_an_upgrade_at_once_one_wins(store: Fixture) {
    store.add_cluster(&cluster("prod", "uid-prod")).await.unwrap();
    let results = at_once(&store, 8, |store, index| async move {
        store.create_upgrade(&new_upgrade(&format!("u{index}"), "prod")).await
    });
    let (won, lost): (Vec<_>, Vec<_>) = results.await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for result in lost {
        assert_eq!(refused(result).0, Code::UpgradeActive);
    }
    assert_eq!(feed(&*store).await.len(), 1);
}

pub(in crate::store) async fn of_many_who_take_a_lease_at_once_one_gets_it(store: Fixture) {
    begin(&*store).await;
    let results = at_once(&store, 8, |store, index| async move {
        take(&*store, &id("u1"), &format!("server-{index}"), at(0), 30).await
    });
    let leases: Vec<_> = results.await.into_iter().flatten().collect();
    assert_eq!(leases.len(), 1);
    assert_eq!(store.lease(&id("u1")).await.unwrap().as_ref(), leases.first());
}

pub(in crate::store) async fn of_many_who_use_a_join_token_at_once_one_gets_in(store: Fixture) {
    store.add_cluster(&cluster("prod", "uid-prod")).await.unwrap();
    store.add_join_token("h1", &"prod".into(), at(60)).await.unwrap();
    let results = at_once(&store, 8, |store, _| async move { store.use_join_token("h1", at(0)).await.unwrap() });
    assert_eq!(results.await.into_iter().flatten().count(), 1);
}

pub(in crate::store) async fn a_reader_that_resumes_from_a_position_loses_and_repeats_nothing(store: Fixture) {
    const WRITERS: usize = 4;
    const EVENTS: usize = 12;
    for index in 0..WRITERS {
        store.add_cluster(&cluster(&format!("c{index}"), &format!("uid-{index}"))).await.unwrap();
    }
    let writers = {
        let store = store.store.clone();
        async move {
            let tasks = (0..WRITERS).map(|index| {
                let store = store.clone();
                tokio::spawn(async move {
                    let upgrade = format!("u{index}");
                    store.create_upgrade(&new_upgrade(&upgrade, &format!("c{index}"))).await.unwrap();
                    for len in 1..EVENTS as u64 {
                        store.append_request(&id(&upgrade), len, at(1), &[Event::Started]).await.unwrap();
                    }
                })
            });
            for writer in futures::future::join_all(tasks).await {
                writer.unwrap();
            }
        }
    };
    let reader = async {
        let mut read: Vec<EventRecord> = Vec::new();
        while read.len() < WRITERS * EVENTS {
            // Each page is asked for by a reader that knows nothing but where it was.
            let after = read.last().map_or(0, |record| record.position);
            read.extend(store.events_since(after, 3).await.unwrap());
            tokio::task::yield_now().await;
        }
        read
    };
    let limit = std::time::Duration::from_secs(120);
    let ((), read) = tokio::time::timeout(limit, async { tokio::join!(writers, reader) }).await.unwrap();
    assert_eq!(read, feed(&*store).await);
    for index in 0..WRITERS {
        let of_upgrade = |record: &&EventRecord| record.upgrade == id(&format!("u{index}"));
        let numbers: Vec<_> = read.iter().filter(of_upgrade).map(|record| record.number).collect();
        assert_eq!(numbers, (1..=EVENTS as u64).collect::<Vec<_>>());
    }
}
