//! Settings, clusters, plans, join tokens and agents.

use super::super::ClusterRecord;
use shiplock_core::id::ClusterName;
use shiplock_core::problem::Code;

use super::super::sample::{agent, at, cluster, plan};
use super::{Fixture, begin, end, id, refused};

pub(in crate::store) async fn a_setting_keeps_its_first_value(store: Fixture) {
    assert_eq!(store.setting("installation", vec![1, 0, 255]).await.unwrap(), [1, 0, 255]);
    assert_eq!(store.setting("installation", vec![2]).await.unwrap(), [1, 0, 255]);
    assert_eq!(store.setting("authority", vec![]).await.unwrap(), [] as [u8; 0]);
}

pub(in crate::store) async fn a_cluster_is_read_back_as_it_was_registered(store: Fixture) {
    let mut record = cluster("prod", "uid-prod");
    record.added_at = "2026-07-01T08:09:10.123456789Z".parse().unwrap();
    store.add_cluster(&record).await.unwrap();
    assert_eq!(store.cluster(&record.name).await.unwrap(), Some(record));
    assert_eq!(store.cluster(&"other".into()).await.unwrap(), None);
}

pub(in crate::store) async fn clusters_are_listed_by_name(store: Fixture) {
    for name in ["b", "a", "B", "é"] {
        store.add_cluster(&cluster(name, &format!("uid-{name}"))).await.unwrap();
    }
    let names: Vec<_> = store.clusters().await.unwrap().into_iter().map(|record| record.name.to_string()).collect();
    assert_eq!(names, ["B", "a", "b", "é"]);
}

pub(in crate::store) async fn a_name_and_an_identity_are_registered_once(store: Fixture) {
    store.add_cluster(&cluster("prod", "uid-prod")).await.unwrap();
    let cases = [
        (cluster("prod", "uid-prod"), Code::ClusterNameTaken, "prod"),
        (cluster("prod", "uid-other"), Code::ClusterNameTaken, "prod"),
        (cluster("copy", "uid-prod"), Code::ClusterRegisteredTwice, "prod"),
    ];
    for (record, code, parameter) in cases {
        assert_eq!(refused(store.add_cluster(&record).await), (code, vec![parameter.to_owned()]));
    }
    assert_eq!(store.clusters().await.unwrap().len(), 1);
}

pub(in crate::store) async fn a_cluster_changes_its_access_and_never_its_identity(store: Fixture) {
    begin(&*store).await;
    let before = store.cluster(&"prod".into()).await.unwrap().unwrap();
    let changed = ClusterRecord {
        server: "https://new:6443".to_owned(),
        sealed_kubeconfig: b"new".to_vec(),
        mirror: Some("https://mirror.example".to_owned()),
        ..before.clone()
    };
    store.change_cluster(&ClusterRecord { added_at: at(99), ..changed.clone() }).await.unwrap();
    assert_eq!(store.cluster(&"prod".into()).await.unwrap(), Some(changed.clone()), "also while it is upgraded");
    for stranger in [cluster("other", "uid-other"), cluster("prod", "uid-other")] {
        assert_eq!(refused(store.change_cluster(&stranger).await).0, Code::ClusterUnknown);
    }
    assert_eq!(store.clusters().await.unwrap(), [changed]);
}

pub(in crate::store) async fn a_forgotten_agent_is_gone_and_no_other(store: Fixture) {
    store.add_cluster(&cluster("prod", "uid-prod")).await.unwrap();
    for node in ["node-a", "node-b"] {
        store.put_agent(&agent("prod", node, "0a")).await.unwrap();
    }
    assert!(store.remove_agent(&"prod".into(), &"node-a".into()).await.unwrap());
    assert!(!store.remove_agent(&"prod".into(), &"node-a".into()).await.unwrap());
    assert!(!store.remove_agent(&"other".into(), &"node-b".into()).await.unwrap());
    let left: Vec<_> = store.agents(&"prod".into()).await.unwrap().into_iter().map(|agent| agent.node).collect();
    assert_eq!(left, ["node-b".into()]);
}

pub(in crate::store) async fn a_cluster_with_an_active_upgrade_is_not_removed(store: Fixture) {
    begin(&*store).await;
    let (code, parameters) = refused(store.remove_cluster(&"prod".into()).await);
    assert_eq!((code, parameters), (Code::ClusterInUse, vec!["prod".to_owned(), "u1".to_owned()]));
    assert_eq!(refused(store.remove_cluster(&"other".into()).await).0, Code::ClusterUnknown);
    end(&*store, "u1").await;
    store.remove_cluster(&"prod".into()).await.unwrap();
    assert_eq!(store.cluster(&"prod".into()).await.unwrap(), None);
}

pub(in crate::store) async fn a_removed_cluster_takes_its_agents_and_tokens_along_and_leaves_its_logs(store: Fixture) {
    begin(&*store).await;
    store.add_cluster(&cluster("test", "uid-test")).await.unwrap();
    for name in ["prod", "test"] {
        store.put_agent(&agent(name, "node-a", "0a")).await.unwrap();
        store.add_join_token(&format!("hash-{name}"), &name.into(), at(600)).await.unwrap();
    }
    end(&*store, "u1").await;
    store.remove_cluster(&"prod".into()).await.unwrap();
    assert_eq!(store.agents(&"prod".into()).await.unwrap(), []);
    assert_eq!(store.use_join_token("hash-prod", at(1)).await.unwrap(), None);
    assert_eq!(store.agents(&"test".into()).await.unwrap().len(), 1);
    assert_eq!(store.use_join_token("hash-test", at(1)).await.unwrap(), Some("test".into()));
    assert_eq!(store.events(&id("u1"), 0, 10).await.unwrap().len(), 2);
    assert!(!store.upgrade(&id("u1")).await.unwrap().unwrap().active);
}

pub(in crate::store) async fn a_plan_is_kept_and_never_changed(store: Fixture) {
    let first = plan("p1");
    store.add_plan(&first).await.unwrap();
    store.add_plan(&first).await.unwrap();
    let mut changed = first.clone();
    changed.options.max_parallel = 3;
    assert_eq!(refused(store.add_plan(&changed).await).0, Code::Internal);
    assert_eq!(store.plan(&first.id).await.unwrap(), Some(first));
    assert_eq!(store.plan(&"p2".into()).await.unwrap(), None);
}

pub(in crate::store) async fn a_join_token_is_used_once_and_in_time(store: Fixture) {
    assert_eq!(refused(store.add_join_token("h1", &"prod".into(), at(60)).await).0, Code::ClusterUnknown);
    store.add_cluster(&cluster("prod", "uid-prod")).await.unwrap();
    for (hash, expires_at) in [("h1", at(60)), ("h2", at(60)), ("h3", at(61))] {
        store.add_join_token(hash, &"prod".into(), expires_at).await.unwrap();
    }
    assert_eq!(refused(store.add_join_token("h1", &"prod".into(), at(90)).await).0, Code::Internal);
    let prod = Some(ClusterName::from("prod"));
    let cases = [
        ("h1", at(59), &prod),
        ("h1", at(59), &None),
        ("h2", at(60), &None),
        ("h3", at(60), &prod),
        ("h4", at(0), &None),
    ];
    for (hash, now, expected) in cases {
        // To look at it uses nothing up.
        for _ in 0..2 {
            assert_eq!(store.join_token(hash, now).await.unwrap(), *expected, "{hash} {now}");
        }
        assert_eq!(store.use_join_token(hash, now).await.unwrap(), *expected, "{hash} {now}");
    }
}

pub(in crate::store) async fn an_agent_takes_the_place_of_the_earlier_one_of_its_node(store: Fixture) {
    assert_eq!(refused(store.put_agent(&agent("prod", "node-a", "0a")).await).0, Code::ClusterUnknown);
    store.add_cluster(&cluster("prod", "uid-prod")).await.unwrap();
    for (node, serial) in [("node-b", "0b"), ("node-a", "0a"), ("node-b", "1b")] {
        store.put_agent(&agent("prod", node, serial)).await.unwrap();
    }
    let expected = [agent("prod", "node-a", "0a"), agent("prod", "node-b", "1b")];
    assert_eq!(store.agents(&"prod".into()).await.unwrap(), expected);
    assert_eq!(store.agents(&"other".into()).await.unwrap(), []);
}
