//! Reports of the pre-check, and findings that somebody lets pass.

use shiplock_core::problem::Code;

use super::super::rule::REPORTS_KEPT;
use super::super::sample::{at, cluster};
use super::super::{AcceptanceRecord, ReportRecord};
use super::{Fixture, refused};

fn report(number: usize, of: &str) -> ReportRecord {
    let made_at = at(i64::try_from(number).unwrap());
    ReportRecord { id: format!("{of}-{number:03}"), cluster: of.into(), made_at, data: format!("{{\"n\":{number}}}") }
}

pub(in crate::store) async fn the_newest_reports_of_a_cluster_are_kept(store: Fixture) {
    assert_eq!(refused(store.add_report(&report(0, "prod")).await).0, Code::ClusterUnknown);
    for name in ["prod", "test"] {
        store.add_cluster(&cluster(name, &format!("uid-{name}"))).await.unwrap();
    }
    store.add_report(&report(1, "test")).await.unwrap();
    for number in 0..REPORTS_KEPT + 2 {
        store.add_report(&report(number, "prod")).await.unwrap();
    }
    let kept = store.reports(&"prod".into()).await.unwrap();
    assert_eq!(kept.len(), REPORTS_KEPT);
    assert_eq!(kept.first(), Some(&report(REPORTS_KEPT + 1, "prod")), "newest first");
    assert_eq!(kept.last(), Some(&report(2, "prod")), "the oldest went");
    assert_eq!(store.report("prod-001").await.unwrap(), None);
    assert_eq!(store.report("test-001").await.unwrap(), Some(report(1, "test")));
    store.remove_cluster(&"prod".into()).await.unwrap();
    assert_eq!(store.reports(&"prod".into()).await.unwrap(), []);
}

pub(in crate::store) async fn an_acceptance_is_kept_until_it_is_taken_back(store: Fixture) {
    let acceptance = |id: &str, of: &str| AcceptanceRecord { id: id.into(), cluster: of.into(), data: "{}".into() };
    assert_eq!(refused(store.add_acceptance(&acceptance("a1", "prod")).await).0, Code::ClusterUnknown);
    for name in ["prod", "test"] {
        store.add_cluster(&cluster(name, &format!("uid-{name}"))).await.unwrap();
    }
    for (id, of) in [("a2", "prod"), ("a1", "prod"), ("a3", "test")] {
        store.add_acceptance(&acceptance(id, of)).await.unwrap();
    }
    let of_prod = [acceptance("a1", "prod"), acceptance("a2", "prod")];
    assert_eq!(store.acceptances(&"prod".into()).await.unwrap(), of_prod);
    assert!(!store.remove_acceptance(&"test".into(), "a1").await.unwrap(), "it is another cluster's");
    assert!(store.remove_acceptance(&"prod".into(), "a1").await.unwrap());
    assert!(!store.remove_acceptance(&"prod".into(), "a1").await.unwrap());
    assert_eq!(store.acceptances(&"prod".into()).await.unwrap(), of_prod[1..]);
    store.remove_cluster(&"prod".into()).await.unwrap();
    assert_eq!(store.acceptances(&"prod".into()).await.unwrap(), []);
}
