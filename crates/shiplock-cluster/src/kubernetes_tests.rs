use serde_json::{Value, json};
use shiplock_core::facts::Readiness;
use shiplock_core::problem::Code;

use super::*;
use crate::mock::{Answer, Asked, Log, api, status};

const NODE: &str = r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"w1","uid":"n1","resourceVersion":"3"},
    "status":{"conditions":[{"type":"Ready","status":"True"}]}}"#;

/// A small cluster: one node, one pod that runs and one that has finished, one of each workload.
fn answer(asked: &Asked, watch: Answer) -> Answer {
    if asked.query.contains("watch=true") {
        return if asked.path.ends_with("/pods") { watch } else { Answer::Open(Vec::new()) };
    }
    let meta = |name: &str| json!({"namespace": "shop", "name": name, "uid": name, "resourceVersion": "3"});
    let list = |items: Vec<Value>| {
        Answer::Json(
            200,
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "10"}, "items": items}),
        )
    };
    let selector = json!({"matchLabels": {"app": "web"}});
    let running = pod_object("web-1", "Running");
    match asked.path.as_str() {
        "/api/v1/namespaces/kube-system" => {
            Answer::Json(200, json!({"kind": "Namespace", "metadata": {"name": "kube-system", "uid": "cluster-1"}}))
        }
        "/version" => Answer::Json(
            200,
            json!({"major": "1", "minor": "36", "gitVersion": "v1.36.3", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
        ),
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices" => list(vec![]),
        "/api/v1/nodes" => list(vec![serde_json::from_str(NODE).unwrap()]),
        "/api/v1/pods" => list(vec![running, pod_object("job-1", "Succeeded")]),
        "/apis/policy/v1/poddisruptionbudgets" => {
            list(vec![json!({"metadata": meta("web"), "spec": {"selector": selector},
            "status": {"disruptionsAllowed": 1, "currentHealthy": 1, "desiredHealthy": 0, "expectedPods": 1}})])
        }
        "/apis/apps/v1/deployments" => {
            list(vec![json!({"metadata": meta("web"), "spec": {"replicas": 1, "selector": selector, "template": {}}})])
        }
        "/apis/apps/v1/statefulsets" | "/apis/apps/v1/daemonsets" => list(vec![]),
        "/api/v1/nodes/w1" => Answer::Json(200, serde_json::from_str(NODE).unwrap()),
        _ => status(404, "NotFound", "no such thing"),
    }
}

fn pod_object(name: &str, phase: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": "11", "labels": {"app": "web"}},
        "spec": {"nodeName": "w1", "containers": []}, "status": {"phase": phase}})
}

fn cluster(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (KubernetesCluster, Log) {
    let (connection, log) = api(answer);
    (KubernetesCluster::over(connection), log)
}

fn watches(log: &Log) -> usize {
    log.lock().unwrap().iter().filter(|asked| asked.query.contains("watch=true")).count()
}

#[tokio::test]
async fn facts_come_from_watches_that_begin_when_they_are_first_needed() {
    let (cluster, log) = cluster(|asked| {
        answer(asked, Answer::Open(vec![json!({"type": "ADDED", "object": pod_object("web-2", "Running")})]))
    });
    assert!(log.lock().unwrap().is_empty(), "connecting asks nothing");
    let mut facts = cluster.facts().await.unwrap();
    while facts.pods.len() < 2 {
        cluster.changed().await;
        facts = cluster.facts().await.unwrap();
    }
    assert_eq!(facts.uid.as_str(), "cluster-1");
    assert_eq!(facts.nodes[&NodeName::from("w1")].ready, Readiness::Ready);
    assert_eq!(facts.pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["web-1", "web-2"]);
    assert_eq!(facts.budgets[0].disruptions_allowed, 1);
    assert_eq!(facts.workloads[0].label(), "Deployment shop/web");
    assert_eq!(facts.api_servers[0].version.to_string(), "v1.36.3");
    assert_eq!(cluster.budget_allows("shop/web"), Some(true));
    assert_eq!(cluster.budget_allows("shop/none"), None);
    cluster.rest();
    assert_eq!(cluster.budget_allows("shop/web"), None);
}

#[tokio::test]
async fn a_snapshot_begins_no_watch_and_sees_the_same() {
    let (cluster, log) = cluster(|asked| answer(asked, Answer::Open(Vec::new())));
    let snapshot = cluster.snapshot().await.unwrap();
    assert_eq!(watches(&log), 0);
    let facts = cluster.facts().await.unwrap();
    assert!(snapshot.observed_at <= facts.observed_at);
    assert_eq!(ClusterFacts { observed_at: facts.observed_at, ..snapshot }, facts);
}

#[tokio::test]
async fn facts_that_are_read_anew_tell_what_the_api_server_runs_now() {
    let swapped = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let runs = swapped.clone();
    let (cluster, _) = cluster(move |asked| {
        let mut told = answer(asked, Answer::Open(Vec::new()));
        if let ("/version", false, Answer::Json(_, body)) =
            (asked.path.as_str(), runs.load(Ordering::SeqCst), &mut told)
        {
            body["gitVersion"] = json!("v1.35.4");
        }
        told
    });
    let version = |facts: ClusterFacts| facts.api_servers[0].version.to_string();
    assert_eq!(version(cluster.facts().await.unwrap()), "v1.35.4");
    swapped.store(true, Ordering::SeqCst);
    assert_eq!(version(cluster.facts_anew().await.unwrap()), "v1.36.3");
    assert_eq!(version(cluster.facts().await.unwrap()), "v1.36.3", "what was read anew is kept");
}

#[tokio::test]
async fn what_may_not_be_read_is_a_problem_and_never_an_empty_cluster() {
    let (cluster, _) = cluster(|asked| match asked.path.as_str() {
        "/apis/policy/v1/poddisruptionbudgets" => status(403, "Forbidden", "no"),
        _ => answer(asked, Answer::Open(Vec::new())),
    });
    for problem in [cluster.facts().await.unwrap_err(), cluster.snapshot().await.unwrap_err()] {
        assert_eq!(
            (problem.code, problem.parameters["resource"].as_str()),
            (Code::ClusterForbidden, "poddisruptionbudgets.policy")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn facts_that_never_come_are_not_waited_for_without_end() {
    let (cluster, _) = cluster(|asked| match asked.path.as_str() {
        "/api/v1/pods" => Answer::Silence,
        _ => answer(asked, Answer::Open(Vec::new())),
    });
    assert_eq!(cluster.facts().await.unwrap_err().code, Code::ClusterUnreachable);
}

#[tokio::test]
async fn pods_are_named_with_their_budgets_watched_or_not() {
    let (cluster, _) = cluster(|asked| answer(asked, Answer::Open(Vec::new())));
    let pods = cluster.pods_on(&NodeName::from("w1")).await.unwrap();
    assert_eq!((pods.len(), pods[0].budgets.as_slice()), (1, ["shop/web".to_owned()].as_slice()));
    cluster.facts().await.unwrap();
    assert_eq!(cluster.pods_on(&NodeName::from("w1")).await.unwrap(), pods);
}

#[tokio::test]
async fn a_node_that_is_not_there_is_none() {
    let (cluster, _) = cluster(|asked| answer(asked, Answer::Open(Vec::new())));
    assert!(cluster.node(&NodeName::from("w1")).await.unwrap().is_some());
    assert!(cluster.node(&NodeName::from("w2")).await.unwrap().is_none());
}

#[tokio::test]
async fn connecting_refuses_files_of_this_machine() {
    let kubeconfig = r#"{"current-context":"c","contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
        "clusters":[{"name":"c","cluster":{"server":"https://api.test:6443"}}],
        "users":[{"name":"u","user":{"tokenFile":"/etc/hostname"}}]}"#;
    assert_eq!(KubernetesCluster::connect(kubeconfig, &[]).await.unwrap_err().code, Code::KubeconfigUnreadable);
    let harmless = kubeconfig.replace(r#""tokenFile":"/etc/hostname""#, r#""token":"t""#);
    assert_eq!(KubernetesCluster::connect(&harmless, &[]).await.unwrap().server(), "https://api.test:6443");
}
