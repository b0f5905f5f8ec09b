//! The production code of `shiplock-cluster` against the façade, with the outcomes that its own tests and real API servers
//! give; and what clients are told that it does not use.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use http::{Method, Request};
use jiff::Timestamp;
use serde_json::{Value, json};
use shiplock_cluster::KubernetesCluster;
use shiplock_cluster::drain::{Act, DrainMachine};
use shiplock_cluster::port::{Claim, ClaimOutcome, Cluster as _, Cordon, Eviction, Uncordon};
use shiplock_core::facts::{ControlPlaneComponent, NodeOwner};
use shiplock_core::id::{NodeName, ObjectUid};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::OnDrainTimeout;
use shiplock_core::upgrade::{StepOutcome, Waiting, WaitingOn};

use super::{DeprecatedRequests, Facade, Settings, Shared};
use crate::world::{Keep, NodeSpec, Pace, Selector, Share, WorkloadKind, WorkloadSpec, World, labels};

mod writes;

const IMAGES: [(ControlPlaneComponent, &str); 4] = [
    (ControlPlaneComponent::Etcd, "registry.k8s.io/etcd:3.6.6-0"),
    (ControlPlaneComponent::KubeApiserver, "registry.k8s.io/kube-apiserver:v1.35.4"),
    (ControlPlaneComponent::KubeControllerManager, "registry.k8s.io/kube-controller-manager:v1.35.4"),
    (ControlPlaneComponent::KubeScheduler, "registry.k8s.io/kube-scheduler:v1.35.4"),
];

/// A master, three workers, a Deployment of three pods with a budget that keeps two, a DaemonSet.
fn world() -> World {
    let mut world = World::new(7, Timestamp::now().into(), Pace::default(), 1_000);
    world.add_node(&NodeSpec::master("m-1", "v1.35.4", "v1.6.20", &IMAGES)).unwrap();
    for name in ["w-1", "w-2", "w-3"] {
        world.add_node(&NodeSpec::worker(name, "v1.35.4", "v1.6.20")).unwrap();
    }
    world.add_workload(&WorkloadSpec::new(WorkloadKind::Deployment, "shop", "cart", 3)).unwrap();
    world.add_workload(&WorkloadSpec::new(WorkloadKind::DaemonSet, "kube-system", "kube-proxy", 0)).unwrap();
    world.add_service("shop", "cart", Some(labels([("app", "cart")])), &[80]).unwrap();
    let keep = Keep::MinAvailable(Share::Count(2));
    world.add_budget("shop", "cart", Some(Selector::of([("app", "cart")])), keep).unwrap();
    world.settle(Duration::from_secs(60));
    world
}

fn shared(world: World) -> Arc<Shared> {
    let deprecated = vec![DeprecatedRequests {
        group: "example.dev".to_owned(),
        version: "v1beta1".to_owned(),
        resource: "things".to_owned(),
        removed_release: "1.37".to_owned(),
    }];
    Arc::new(Shared::new(world, Settings { deprecated }))
}

fn cluster(shared: &Arc<Shared>) -> KubernetesCluster {
    KubernetesCluster::with_client(Facade::new(shared.clone(), None).client(), "simulated")
}

/// Lets the world's time go as tokio's does.
fn run_clock(shared: &Arc<Shared>) -> tokio::task::JoinHandle<()> {
    let (shared, begun) = (shared.clone(), tokio::time::Instant::now());
    let from = shared.look(World::now);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            shared.with(|world| world.advance(from + begun.elapsed()));
        }
    })
}

async fn ask(shared: &Arc<Shared>, method: Method, path: &str, body: Value) -> (u16, Value) {
    ask_as(shared, method, path, "application/json", "application/json", body).await
}

async fn ask_as(
    shared: &Arc<Shared>,
    method: Method,
    path: &str,
    accept: &str,
    content_type: &str,
    body: Value,
) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    send(shared, method, path, accept, content_type, body.into()).await
}

async fn send(
    shared: &Arc<Shared>,
    method: Method,
    path: &str,
    accept: &str,
    content_type: &str,
    body: bytes::Bytes,
) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).header("accept", accept);
    let request = request.header("content-type", content_type).body(http_body_util::Full::new(body)).unwrap();
    let request: Request<http_body_util::Full<bytes::Bytes>> = request;
    let response = tower::ServiceExt::oneshot(Facade::new(shared.clone(), None), request).await.unwrap();
    let code = response.status().as_u16();
    let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8_lossy(&bytes).into()))
}

fn owner(upgrade: &str, epoch: u64) -> NodeOwner {
    serde_json::from_value(json!({"upgrade": upgrade, "epoch": epoch})).unwrap()
}

fn uid(shared: &Arc<Shared>, node: &str) -> ObjectUid {
    shared.look(|world| crate::world::object_uid(world.nodes().find("", node).unwrap().meta.uid))
}

#[tokio::test]
async fn the_production_collector_sees_exactly_what_the_world_tells_of_itself() {
    let shared = shared(world());
    let seen = cluster(&shared).snapshot().await.unwrap();
    let mut told = shared.look(|world| world.cluster_facts(true));
    // Behind a client that is given, instances cannot be told apart, and observation times differ.
    assert_eq!(seen.api_servers[0].version, told.api_servers[0].version);
    told.api_servers.clone_from(&seen.api_servers);
    told.observed_at = seen.observed_at;
    // The order of lists is nobody's promise.
    let sorted = |mut facts: shiplock_core::facts::ClusterFacts| {
        facts.pods.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        facts.workloads.sort_by_key(shiplock_core::facts::WorkloadFacts::label);
        facts.control_plane_pods.sort_by_key(|pod| (pod.node.clone(), pod.component));
        facts
    };
    assert_eq!(sorted(seen), sorted(told));
}

#[tokio::test]
async fn cordons_are_fenced_by_owner_epoch_and_uid() {
    let shared = shared(world());
    let (cluster, node) = (cluster(&shared), NodeName::from("w-1"));
    let w1 = uid(&shared, "w-1");
    assert_eq!(cluster.cordon(&node, &w1, &owner("u1", 3)).await.unwrap(), Cordon::Done);
    assert!(shared.look(|world| world.nodes().find("", "w-1").unwrap().unschedulable));
    assert_eq!(cluster.cordon(&node, &w1, &owner("u1", 4)).await.unwrap(), Cordon::AlreadyOurs);
    assert_eq!(cluster.cordon(&node, &w1, &owner("u1", 3)).await.unwrap_err().code, Code::LeaseLost);
    assert_eq!(cluster.cordon(&node, &w1, &owner("u2", 9)).await.unwrap(), Cordon::OwnedByAnotherUpgrade);
    assert_eq!(cluster.cordon(&node, &ObjectUid::new("other"), &owner("u1", 5)).await.unwrap(), Cordon::NodeGone);
    assert_eq!(cluster.uncordon(&node, &w1, &owner("u2", 9)).await.unwrap(), Uncordon::NotOurs);
    assert_eq!(cluster.uncordon(&node, &w1, &owner("u1", 4)).await.unwrap(), Uncordon::Done);
    assert!(!shared.look(|world| world.nodes().find("", "w-1").unwrap().unschedulable));

    shared.with(|world| {
        let id = world.nodes().id("", "w-2").unwrap();
        world.change_node(id, |node| node.unschedulable = true);
    });
    let w2 = uid(&shared, "w-2");
    assert_eq!(cluster.cordon(&"w-2".into(), &w2, &owner("u1", 1)).await.unwrap(), Cordon::CordonedByOthers);
    assert_eq!(cluster.cordon(&"gone".into(), &w2, &owner("u1", 1)).await.unwrap(), Cordon::NodeGone);
}

#[tokio::test]
async fn evictions_are_answered_by_budget_uid_and_number_of_budgets() {
    let shared = shared(world());
    let cluster = cluster(&shared);
    let mut pods = Vec::new();
    for node in ["w-1", "w-2", "w-3"] {
        pods.extend(cluster.pods_on(&node.into()).await.unwrap().into_iter().filter(|pod| !pod.is_daemon));
    }
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().all(|pod| pod.budgets == ["shop/cart"] && pod.owner.as_deref() == Some("Deployment cart")));
    let mut stranger = pods[0].clone();
    stranger.uid = ObjectUid::new("another");
    assert_eq!(cluster.evict(&stranger).await.unwrap(), Eviction::Gone);
    assert_eq!(cluster.evict(&pods[0]).await.unwrap(), Eviction::Accepted);
    assert_eq!(cluster.evict(&pods[1]).await.unwrap(), Eviction::RefusedByBudget);

    let more = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "second"},
        "spec": {"maxUnavailable": "50%", "selector": {"matchLabels": {"app": "cart"}}}});
    let path = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets";
    assert_eq!(ask(&shared, Method::POST, path, more).await.0, 201);
    let eviction = json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": pods[1].name}});
    let evict = format!("/api/v1/namespaces/shop/pods/{}/eviction", pods[1].name);
    assert_eq!(ask(&shared, Method::POST, &evict, eviction).await.0, 500);
    let selected =
        cluster.pods_on(&"w-1".into()).await.unwrap().into_iter().chain(cluster.pods_on(&"w-2".into()).await.unwrap());
    let both: Vec<_> =
        selected.chain(cluster.pods_on(&"w-3".into()).await.unwrap()).filter(|pod| pod.uid == pods[1].uid).collect();
    assert_eq!(both[0].budgets.len(), 2);
    assert_eq!(cluster.evict(&both[0]).await.unwrap(), Eviction::RefusedByBudget);
    // The operator's force passes every budget.
    assert_eq!(cluster.delete_pod(&both[0]).await.unwrap(), Eviction::Accepted);
}

#[tokio::test]
async fn a_dry_run_of_an_eviction_asks_the_budget_and_charges_nothing() {
    let shared = shared(world());
    let name = shared.look(|world| {
        let pods = world.pods().in_namespace("shop");
        pods.map(|(_, pod)| pod.meta.name.to_string()).next().unwrap()
    });
    let path = format!("/api/v1/namespaces/shop/pods/{name}/eviction");
    let body = json!({"metadata": {"name": name}, "deleteOptions": {"dryRun": ["All"]}});
    for _ in 0..3 {
        assert_eq!(ask(&shared, Method::POST, &path, body.clone()).await.0, 201);
    }
    let budget = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/cart";
    let (_, held) = ask(&shared, Method::GET, budget, Value::Null).await;
    assert_eq!(held["status"]["disruptionsAllowed"], 1);
    let strict = json!({"spec": {"minAvailable": null, "maxUnavailable": 0}});
    let (code, _) =
        ask_as(&shared, Method::PATCH, budget, "application/json", "application/merge-patch+json", strict).await;
    assert_eq!(code, 200);
    shared.with(|world| world.settle(Duration::from_secs(5)));
    let (code, refused) = ask(&shared, Method::POST, &path, body).await;
    assert_eq!(code, 429);
    assert_eq!(refused["details"]["causes"][0]["reason"], "DisruptionBudget");
    assert_eq!(refused["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
}

#[tokio::test]
async fn the_lease_keeps_a_second_installation_and_an_older_store_away() {
    let shared = shared(world());
    let cluster = cluster(&shared);
    let claim = |installation: &str, upgrade: &str, event_number: u64| Claim {
        installation: installation.to_owned(),
        upgrade: upgrade.into(),
        event_number,
        event_mark: None,
        proof: None,
        ended: None,
    };
    assert_eq!(cluster.claim(&claim("a", "u1", 5)).await.unwrap(), ClaimOutcome::Ours);
    assert_eq!(cluster.claim(&claim("a", "u1", 9)).await.unwrap(), ClaimOutcome::Ours);
    let older = cluster.claim(&claim("a", "u1", 7)).await.unwrap();
    assert_eq!(older, ClaimOutcome::StoreOlder { cluster_event: 9 });
    let other = cluster.claim(&claim("b", "u2", 1)).await.unwrap();
    let ClaimOutcome::HeldByOther { installation, upgrade, .. } = other else { panic!("{other:?}") };
    assert_eq!((installation.as_str(), upgrade.as_str()), ("a", "u1"));
    cluster.release(&"u1".into()).await.unwrap();
    assert_eq!(cluster.claim(&claim("b", "u2", 1)).await.unwrap(), ClaimOutcome::Ours);

    // Who writes what it read before another write is told so.
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-upgrade/leases/shiplock";
    let (_, read) = ask(&shared, Method::GET, path, Value::Null).await;
    assert_eq!(cluster.claim(&claim("b", "u2", 2)).await.unwrap(), ClaimOutcome::Ours);
    let (code, refused) = ask(&shared, Method::PUT, path, read).await;
    assert_eq!((code, &refused["reason"]), (409, &json!("Conflict")));
}

/// Empties a node as the server's step does: whatever the machine wants is asked, and what it waits for is told.
async fn drain(
    cluster: &KubernetesCluster,
    node: &NodeName,
    told: &Mutex<Vec<WaitingOn>>,
) -> Result<StepOutcome, (Problem, bool)> {
    let begun = tokio::time::Instant::now();
    let limit = Duration::from_secs(3_600);
    let mut machine = DrainMachine::new(node.clone(), Timestamp::now(), limit, OnDrainTimeout::Pause);
    loop {
        machine.seen(cluster.pods_on(node).await.unwrap().into_iter().map(Arc::new).collect(), begun.elapsed());
        if let Some(verdict) = machine.verdict(begun.elapsed()) {
            return verdict;
        }
        for act in machine.acts(begun.elapsed(), &|budget| cluster.budget_allows(budget)) {
            let Act::Evict(pod) = act else { panic!("{act:?} passes over a budget") };
            machine.answered(&pod.uid, cluster.evict(&pod).await, begun.elapsed());
        }
        *told.lock().unwrap() = machine.waits(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_its_budget_names_it_and_goes_on_by_itself() {
    let shared = shared(world());
    let clock = run_clock(&shared);
    let cluster = cluster(&shared);
    // All three pods on one node, and none may go.
    shared.with(|world| {
        let ids: Vec<u32> = ["w-2", "w-3"].iter().map(|name| world.nodes().id("", name).unwrap()).collect();
        for id in &ids {
            world.change_node(*id, |node| node.unschedulable = true);
            let pods: Vec<_> =
                world.drain_pods(*id).into_iter().filter(|pod| !pod.is_daemon).map(|pod| pod.name.clone()).collect();
            for pod in pods {
                world.delete_pod("shop", &pod, None, Some(0));
            }
        }
        world.settle(Duration::from_secs(60));
        for id in ids {
            world.change_node(id, |node| node.unschedulable = false);
        }
        let budget = world.budgets().id("shop", "cart").unwrap();
        world.change_budget(budget, |budget| budget.keep = Keep::MaxUnavailable(Share::Count(0)));
        world.settle(Duration::from_secs(5));
    });
    cluster.facts().await.unwrap();
    let node = NodeName::from("w-1");
    cluster.cordon(&node, &uid(&shared, "w-1"), &owner("u1", 1)).await.unwrap();
    let waits = Arc::new(Mutex::new(Vec::new()));
    let told = waits.clone();
    let draining = drain(&cluster, &node, &told);
    let lifting = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let named = waits.lock().unwrap().iter().any(
                |wait| matches!(&wait.what, Waiting::PodDisruptionBudget { budgets, .. } if budgets == &["shop/cart"]),
            );
            if named {
                break;
            }
        }
        shared.with(|world| {
            let budget = world.budgets().id("shop", "cart").unwrap();
            world.change_budget(budget, |budget| budget.keep = Keep::MaxUnavailable(Share::Count(1)));
        });
    };
    let (outcome, ()) = tokio::join!(draining, lifting);
    let StepOutcome::Drained { evicted, relanded, ended, .. } = outcome.unwrap() else { panic!("not drained") };
    assert_eq!((evicted, relanded.len(), ended.is_empty()), (3, 0, false));
    let left = cluster.pods_on(&node).await.unwrap();
    assert!(left.iter().all(|pod| pod.is_daemon), "{left:?}");
    clock.abort();
}

#[tokio::test(start_paused = true)]
async fn facts_follow_watches_through_compaction_and_an_api_server_that_was_away() {
    let shared = shared(world());
    let clock = run_clock(&shared);
    let cluster = cluster(&shared);
    let unschedulable = |facts: &shiplock_core::facts::ClusterFacts| facts.nodes[&NodeName::from("w-1")].unschedulable;
    assert!(!unschedulable(&cluster.facts().await.unwrap()));
    let set = |value: bool| {
        shared.with(|world| {
            let id = world.nodes().id("", "w-1").unwrap();
            world.change_node(id, |node| node.unschedulable = value);
        });
    };
    let until = async |value: bool| {
        while cluster.facts().await.map(|facts| unschedulable(&facts)) != Ok(value) {
            cluster.changed().await;
        }
    };
    set(true);
    until(true).await;
    shared.with(World::compact);
    set(false);
    until(false).await;

    let master = shared.look(|world| world.nodes().id("", "m-1").unwrap());
    shared.with(|world| world.power_off(master));
    shared.wake();
    while cluster.facts().await.is_ok() {
        cluster.changed().await;
    }
    assert_eq!(cluster.facts().await.unwrap_err().code, Code::ClusterUnreachable);
    shared.with(|world| world.power_on(master));
    set(true);
    until(true).await;
    clock.abort();
}

#[tokio::test]
async fn tables_versions_health_and_metrics_are_given_as_clients_ask() {
    let shared = shared(world());
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let (_, nodes) = ask_as(&shared, Method::GET, "/api/v1/nodes", table, "", Value::Null).await;
    assert_eq!((nodes["kind"].as_str(), nodes["rows"].as_array().map(Vec::len)), (Some("Table"), Some(4)));
    assert_eq!(nodes["rows"][0]["cells"][2], "control-plane");
    let (_, version) = ask(&shared, Method::GET, "/version", Value::Null).await;
    assert_eq!((&version["gitVersion"], &version["minor"]), (&json!("v1.35.4"), &json!("35")));
    assert_eq!(ask(&shared, Method::GET, "/readyz", Value::Null).await, (200, json!("ok")));
    let (_, metrics) = ask(&shared, Method::GET, "/metrics", Value::Null).await;
    let line = r#"apiserver_requested_deprecated_apis{group="example.dev",removed_release="1.37",resource="things",subresource="",version="v1beta1"} 1"#;
    assert!(metrics.as_str().unwrap().contains(line), "{metrics}");
    let review = json!({"spec": {"resourceAttributes": {"verb": "patch", "resource": "nodes"}}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(ask(&shared, Method::POST, path, review).await.1["status"]["allowed"], true);
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let (code, rules) = ask(&shared, Method::POST, path, json!({"spec": {"namespace": "shop"}})).await;
    assert_eq!((code, &rules["kind"]), (201, &json!("SelfSubjectRulesReview")));
    let everything = json!({
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        "incomplete": false,
    });
    assert_eq!(rules["status"], everything);
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_the_codes_and_reasons_of_an_api_server() {
    let shared = shared(world());
    let map =
        |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}});
    let maps = "/api/v1/namespaces/shop/configmaps";
    assert_eq!(ask(&shared, Method::POST, maps, map("one")).await.0, 201);
    for (method, path, body, code, reason) in [
        (Method::GET, "/api/v1/nodes/gone", Value::Null, 404, "NotFound"),
        (Method::GET, "/apis/moon/v1/things", Value::Null, 404, "NotFound"),
        (Method::POST, maps, map("one"), 409, "AlreadyExists"),
        (Method::POST, "/api/v1/namespaces/nowhere/configmaps", map("one"), 404, "NotFound"),
        (Method::POST, maps, json!({"kind": "Pod", "metadata": {"name": "x"}}), 400, "BadRequest"),
        (Method::POST, maps, json!({"metadata": {}}), 422, "Invalid"),
        (Method::POST, maps, json!({"metadata": {"name": "odd", "labels": ["a"]}}), 400, "BadRequest"),
        (Method::PUT, "/api/v1/namespaces/shop/configmaps/one", map("two"), 400, "BadRequest"),
        (Method::PATCH, "/api/v1/namespaces/shop/configmaps/one", json!({}), 415, "UnsupportedMediaType"),
        (Method::DELETE, maps, Value::Null, 405, "MethodNotAllowed"),
        (Method::GET, "/api/v1/pods?fieldSelector=spec.moon%3D1", Value::Null, 400, "BadRequest"),
        (
            Method::DELETE,
            "/api/v1/namespaces/shop/configmaps/one",
            json!({"preconditions": {"uid": "x"}}),
            409,
            "Conflict",
        ),
    ] {
        let (found, status) = ask(&shared, method.clone(), path, body).await;
        assert_eq!((found, status["reason"].as_str()), (code, Some(reason)), "{method} {path}: {status}");
    }
    shared.with(World::compact);
    shared.with(|world| world.change_node(0, |node| node.unschedulable = true));
    let (code, status) = ask(&shared, Method::GET, "/api/v1/nodes?watch=1&resourceVersion=2", Value::Null).await;
    assert_eq!((code, status["reason"].as_str()), (410, Some("Expired")));
}

#[tokio::test]
async fn objects_of_unknown_depth_are_kept_applied_and_watched_with_initial_events() {
    let shared = shared(world());
    let maps = "/api/v1/namespaces/shop/configmaps";
    let path = format!("{maps}/one");
    let apply =
        |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}, "data": data});
    let applying = "application/apply-patch+yaml";
    let url = format!("{path}?fieldManager=test");
    let (code, _) = ask_as(&shared, Method::PATCH, &url, "", applying, apply(json!({"a": "1", "b": "2"}))).await;
    assert_eq!(code, 201);
    let (code, less) = ask_as(&shared, Method::PATCH, &url, "", applying, apply(json!({"a": "1"}))).await;
    assert_eq!((code, &less["data"]), (200, &json!({"a": "1"})));
    let watch = format!(
        "{maps}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&timeoutSeconds=1&resourceVersionMatch=NotOlderThan"
    );
    let (code, events) = ask(&shared, Method::GET, &watch, Value::Null).await;
    let events: Vec<Value> = events.as_str().unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(code, 200);
    assert_eq!((&events[0]["type"], &events[0]["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("one")));
    assert_eq!(events[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(ask(&shared, Method::DELETE, &path, Value::Null).await.1["status"], "Success");
    assert_eq!(ask(&shared, Method::GET, &path, Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_workload_is_made_scaled_and_changed_through_the_api() {
    let shared = shared(world());
    let path = "/apis/apps/v1/namespaces/shop/deployments";
    let made = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "main", "image": "web:1"}]}},
    }});
    assert_eq!(ask(&shared, Method::POST, path, made).await.0, 201);
    let scale = json!({"spec": {"replicas": 3}});
    let merging = "application/merge-patch+json";
    let one = format!("{path}/web");
    assert_eq!(ask_as(&shared, Method::PATCH, &format!("{one}/scale"), "", merging, scale).await.0, 200);
    // Nothing that could never be, or that would hold up everything else.
    for odd in [json!(-1), json!(2_000_000), json!("3")] {
        let scale = json!({"spec": {"replicas": odd}});
        assert_eq!(ask_as(&shared, Method::PATCH, &format!("{one}/scale"), "", merging, scale.clone()).await.0, 422);
        assert_eq!(ask_as(&shared, Method::PATCH, &one, "", merging, scale).await.0, 422);
    }
    shared.with(|world| world.settle(Duration::from_secs(60)));
    let (_, found) = ask(&shared, Method::GET, &one, Value::Null).await;
    assert_eq!((&found["spec"]["replicas"], &found["status"]["readyReplicas"]), (&json!(3), &json!(3)));
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": "web:2"}]}}}});
    let strategic = "application/strategic-merge-patch+json";
    assert_eq!(ask_as(&shared, Method::PATCH, &one, "", strategic, image).await.0, 200);
    shared.with(|world| world.settle(Duration::from_secs(120)));
    let (_, pods) =
        ask(&shared, Method::GET, "/api/v1/namespaces/shop/pods?labelSelector=app%3Dweb", Value::Null).await;
    let images: Vec<&Value> =
        pods["items"].as_array().unwrap().iter().map(|pod| &pod["spec"]["containers"][0]["image"]).collect();
    assert_eq!(images, vec!["web:2"; 3]);
    assert_eq!(ask(&shared, Method::DELETE, &one, Value::Null).await.0, 200);
    let (_, slices) =
        ask(&shared, Method::GET, "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices", Value::Null).await;
    assert_eq!(slices["items"][0]["endpoints"].as_array().map(Vec::len), Some(3));
}
