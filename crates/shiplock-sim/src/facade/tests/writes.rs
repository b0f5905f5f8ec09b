//! What kubectl writes, and what is refused of it.

use super::*;
use crate::facade::protobuf::tests::{DEPLOYMENT, body, deletion};

const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const MERGE: &str = "application/merge-patch+json";

fn message(status: &Value) -> &str {
    status["message"].as_str().unwrap()
}

#[tokio::test]
async fn what_typed_clients_send_in_protobuf_is_made_answered_in_json_and_deleted() {
    let shared = shared(world());
    let path = "/apis/apps/v1/namespaces/shop/deployments";
    let accept = "application/vnd.kubernetes.protobuf,application/json";
    let (code, made) = send(&shared, Method::POST, path, accept, PROTOBUF, body(DEPLOYMENT).into()).await;
    assert_eq!((code, &made["spec"]["replicas"]), (201, &json!(2)), "{made}");
    shared.with(|world| world.settle(Duration::from_secs(60)));
    let (_, found) = ask(&shared, Method::GET, &format!("{path}/d1"), Value::Null).await;
    assert_eq!(found["status"]["readyReplicas"], 2);
    let uid = found["metadata"]["uid"].as_str().unwrap();
    for (uid, code) in [("another", 409), (uid, 200)] {
        let options = deletion("DeleteOptions", uid);
        let one = format!("{path}/d1");
        assert_eq!(send(&shared, Method::DELETE, &one, accept, PROTOBUF, options.into()).await.0, code);
    }
    let broken = body(DEPLOYMENT)[..40].to_vec();
    assert_eq!(send(&shared, Method::POST, path, accept, PROTOBUF, broken.into()).await.0, 400);
    // Clients that speak CBOR go on in JSON where they are told so.
    assert_eq!(send(&shared, Method::POST, path, accept, "application/cbor", vec![0xa0].into()).await.0, 415);
}

#[tokio::test]
async fn what_no_api_server_would_take_is_refused_with_its_field() {
    let shared = shared(world());
    let (maps, pods, budgets, deployments, services, leases, namespaces) = (
        "/api/v1/namespaces/shop/configmaps",
        "/api/v1/namespaces/shop/pods",
        "/apis/policy/v1/namespaces/shop/poddisruptionbudgets",
        "/apis/apps/v1/namespaces/shop/deployments",
        "/api/v1/namespaces/shop/services",
        "/apis/coordination.k8s.io/v1/namespaces/shop/leases",
        "/api/v1/namespaces",
    );
    let deployment = |labels: Value, containers: Value| {
        json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"app": "d"}},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}}}})
    };
    let container = json!([{"name": "main", "image": "web:1"}]);
    let budget = |spec: Value| json!({"metadata": {"name": "b"}, "spec": spec});
    for (path, object, code, said) in [
        (maps, json!({"metadata": {"name": "Big_Name"}}), 422, "metadata.name: Invalid value"),
        (maps, json!({"metadata": {"name": "a", "labels": {"a b": "c"}}}), 422, "metadata.labels: Invalid value"),
        (maps, json!({"metadata": {"name": "a", "labels": {"a": "b c"}}}), 422, "metadata.labels: Invalid value"),
        (maps, json!({"metadata": {"name": "a"}, "data": {"a/b": "c"}}), 422, "data[a/b]: Invalid value"),
        (maps, json!({"metadata": {"name": "a"}, "data": {"a": 1}}), 400, "ConfigMap.data.a of type string"),
        (maps, json!({"metadata": {"name": 7}}), 400, "ConfigMap.metadata.name of type string"),
        (namespaces, json!({"metadata": {"name": "a.b"}}), 422, "metadata.name: Invalid value"),
        (pods, json!({"metadata": {"name": "a"}, "spec": {}}), 422, "spec.containers: Required value"),
        (
            pods,
            json!({"metadata": {"name": "a"}, "spec": {"containers": [{}]}}),
            422,
            "spec.containers[0].image: Required",
        ),
        (deployments, json!({"metadata": {"name": "d"}}), 422, "spec.selector: Required value"),
        (deployments, deployment(json!({"app": "e"}), container.clone()), 422, "does not match template `labels`"),
        (deployments, deployment(json!({"app": "d"}), json!([])), 422, "spec.template.spec.containers: Required value"),
        (
            deployments,
            json!({"metadata": {"name": "d"}, "spec": {"replicas": "3"}}),
            400,
            "Deployment.spec.replicas of type int32",
        ),
        (budgets, budget(json!({"minAvailable": "150%"})), 422, "spec.minAvailable: Invalid value"),
        (budgets, budget(json!({"minAvailable": -1})), 422, "spec.minAvailable: Invalid value"),
        (budgets, budget(json!({"minAvailable": "half"})), 422, "spec.minAvailable: Invalid value"),
        (budgets, budget(json!({"minAvailable": 1, "maxUnavailable": 1})), 422, "cannot be both set"),
        (
            budgets,
            budget(json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}})),
            422,
            "operator",
        ),
        (
            services,
            json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 70_000}]}}),
            422,
            "spec.ports[0].port",
        ),
        (leases, json!({"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 0}}), 422, "leaseDurationSeconds"),
        (leases, json!({"metadata": {"name": "l"}, "spec": {"renewTime": "noon"}}), 400, "Lease.spec.renewTime"),
        (maps, json!([]), 400, "ConfigMap in version \"v1\" cannot be handled as a ConfigMap"),
    ] {
        let (found, status) = ask(&shared, Method::POST, path, object.clone()).await;
        assert_eq!(found, code, "{object}: {status}");
        assert!(message(&status).contains(said), "{said}: {status}");
    }
    let all = json!({"metadata": {"name": "d", "labels": {"a": "-"}}, "spec": {"replicas": -1}});
    let (_, status) = ask(&shared, Method::POST, deployments, all).await;
    assert!(message(&status).starts_with("Deployment.apps \"d\" is invalid: [metadata.labels:"), "{status}");
    assert!(status["details"]["causes"].as_array().unwrap().len() >= 4, "{status}");
    assert_eq!(status["details"]["group"], "apps");
}

#[tokio::test]
async fn what_is_fixed_cannot_be_patched_and_what_is_unknown_is_told_to_who_is_strict() {
    let shared = shared(world());
    let cart = "/apis/apps/v1/namespaces/shop/deployments/cart";
    let pod = shared.look(|world| {
        let mut pods = world.pods().in_namespace("shop");
        format!("/api/v1/namespaces/shop/pods/{}", pods.next().unwrap().1.meta.name)
    });
    let other = json!({"spec": {"selector": {"matchLabels": {"app": "other"}}}});
    for (path, patch, said) in [
        (cart, other, "field is immutable"),
        (cart, json!({"spec": {"paused": true}}), "spec.paused: Forbidden"),
        (cart, json!({"spec": {"paused": "no"}}), "Deployment.spec.paused of type bool"),
        (&pod, json!({"spec": {"nodeName": "w-9"}}), "spec: Forbidden"),
        ("/api/v1/nodes/w-1", json!({"spec": {"taints": [{"key": "a", "effect": "Never"}]}}), "Unsupported value"),
        ("/api/v1/nodes/w-1", json!({"spec": {"unschedulable": "yes"}}), "Node.spec.unschedulable of type bool"),
        (
            "/apis/policy/v1/namespaces/shop/poddisruptionbudgets/cart",
            json!({"spec": {"minAvailable": "200%"}}),
            "100%",
        ),
    ] {
        let (code, status) = ask_as(&shared, Method::PATCH, path, JSON, MERGE, patch).await;
        assert_eq!((code, status["reason"].as_str()), (422, Some("Invalid")), "{status}");
        assert!(message(&status).contains(said), "{said}: {status}");
    }
    let map = json!({"metadata": {"name": "odd"}, "moon": 1});
    let maps = "/api/v1/namespaces/shop/configmaps";
    let (code, status) = ask(&shared, Method::POST, &format!("{maps}?fieldValidation=Strict"), map.clone()).await;
    assert_eq!(code, 400);
    assert!(message(&status).contains("strict decoding error: unknown field \"moon\""), "{status}");
    let (code, made) = ask(&shared, Method::POST, maps, map).await;
    assert_eq!((code, &made["moon"]), (201, &Value::Null));
    for (query, options, code) in [
        ("?dryRun=Maybe", Value::Null, 422),
        ("", json!({"dryRun": ["Maybe"]}), 422),
        ("?dryRun=All", Value::Null, 200),
        ("", json!({"dryRun": ["All"]}), 200),
    ] {
        assert_eq!(ask(&shared, Method::DELETE, &format!("{maps}/odd{query}"), options).await.0, code);
        assert_eq!(ask(&shared, Method::GET, &format!("{maps}/odd"), Value::Null).await.0, 200);
    }
    let orphan = json!({"propagationPolicy": "Orphan"});
    let (code, status) = ask(&shared, Method::DELETE, &format!("{maps}/odd"), orphan).await;
    assert_eq!(code, 422);
    assert!(message(&status).contains("always deleted with it"), "{status}");
    // A dry run is looked at as closely.
    let map = json!({"metadata": {"name": "Not_a_name"}});
    assert_eq!(ask(&shared, Method::POST, &format!("{maps}?dryRun=All"), map).await.0, 422);
}

#[tokio::test]
async fn a_query_that_is_no_number_a_version_to_come_and_a_body_beyond_the_bound_are_refused() {
    let shared = shared(world());
    let newest = shared.look(World::version);
    for (query, code) in [
        ("limit=abc".to_owned(), 400),
        ("watch=1&timeoutSeconds=soon".to_owned(), 400),
        ("watch=1&resourceVersion=abc".to_owned(), 400),
        ("resourceVersion=abc".to_owned(), 400),
        (format!("resourceVersion={}", newest + 1), 504),
        (format!("resourceVersion={newest}&resourceVersionMatch=Exact"), 200),
        ("resourceVersion=1&resourceVersionMatch=Exact".to_owned(), 410),
        ("resourceVersion=1&resourceVersionMatch=NotOlderThan".to_owned(), 200),
        ("resourceVersion=1&resourceVersionMatch=Moon".to_owned(), 400),
        ("limit=-1".to_owned(), 200),
    ] {
        let (found, status) = ask(&shared, Method::GET, &format!("/api/v1/nodes?{query}"), Value::Null).await;
        assert_eq!(found, code, "{query}: {status}");
    }
    let large = json!({"metadata": {"name": "large"}, "data": {"a": "x".repeat(3 << 20)}});
    let maps = "/api/v1/namespaces/shop/configmaps";
    let (code, status) = ask(&shared, Method::POST, maps, large).await;
    assert_eq!((code, status["reason"].as_str()), (413, Some("RequestEntityTooLarge")));
    // Within the bound of a body, beyond that of a ConfigMap.
    let large = json!({"metadata": {"name": "large"}, "data": {"a": "x".repeat(2 << 20)}});
    assert_eq!(ask(&shared, Method::POST, maps, large).await.0, 422);
}

#[tokio::test]
async fn pages_of_a_list_are_of_one_version_while_objects_come_and_go() {
    let shared = shared(world());
    let first = ask(&shared, Method::GET, "/api/v1/nodes?limit=2", Value::Null).await.1;
    let gone = json!({"preconditions": {}});
    assert_eq!(ask(&shared, Method::DELETE, "/api/v1/nodes/w-3", gone).await.0, 200);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let next = ask(&shared, Method::GET, &format!("/api/v1/nodes?limit=2&continue={token}"), Value::Null).await.1;
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|one| one["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!([names(&first), names(&next)].concat(), ["m-1", "w-1", "w-2", "w-3"]);
    assert_eq!(next["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_namespace_is_active_when_it_is_made_and_goes_with_all_that_is_in_it() {
    let shared = shared(world());
    let path = "/api/v1/namespaces";
    let (_, made) = ask(&shared, Method::POST, path, json!({"metadata": {"name": "moon"}})).await;
    assert_eq!(made["status"]["phase"], "Active");
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "moon");
    let map = json!({"metadata": {"name": "a"}});
    assert_eq!(ask(&shared, Method::POST, "/api/v1/namespaces/moon/configmaps", map).await.0, 201);
    // One that is there because something is in it can be written like any other.
    let before = ask(&shared, Method::GET, &format!("{path}/shop"), Value::Null).await.1;
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let (code, after) = ask_as(&shared, Method::PATCH, &format!("{path}/shop"), JSON, MERGE, label).await;
    assert_eq!((code, &after["metadata"]["labels"]["a"]), (200, &json!("b")));
    for field in ["uid", "creationTimestamp"] {
        assert_eq!(after["metadata"][field], before["metadata"][field]);
    }
    for name in ["moon", "shop"] {
        assert_eq!(ask(&shared, Method::DELETE, &format!("{path}/{name}"), Value::Null).await.0, 200);
    }
    shared.with(|world| world.settle(Duration::from_secs(120)));
    for gone in ["moon", "shop", "moon/configmaps/a", "shop/services/cart"] {
        assert_eq!(ask(&shared, Method::GET, &format!("{path}/{gone}"), Value::Null).await.0, 404, "{gone}");
    }
    assert_eq!(ask(&shared, Method::DELETE, &format!("{path}/kube-system"), Value::Null).await.0, 403);
}

#[tokio::test]
async fn leases_of_kubelets_are_listed_nodes_tell_their_system_and_what_runs_in_pods_is_refused_by_name() {
    let shared = shared(world());
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let listed = ask(&shared, Method::GET, leases, Value::Null).await.1;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(4));
    let one = ask(&shared, Method::GET, &format!("{leases}/w-1"), Value::Null).await.1;
    assert_eq!(listed["items"][1], one);
    let node = ask(&shared, Method::GET, "/api/v1/nodes/w-1", Value::Null).await.1;
    assert_ne!(one["metadata"]["uid"], node["metadata"]["uid"]);
    let labels = &node["metadata"]["labels"];
    for (label, value) in [("os", "linux"), ("arch", "amd64"), ("hostname", "w-1")] {
        assert_eq!(labels[format!("kubernetes.io/{label}")], value);
    }
    for path in
        ["pods/any/log", "pods/any/exec", "pods/any/attach", "pods/any/portforward", "serviceaccounts/any/token"]
    {
        let path = format!("/api/v1/namespaces/shop/{path}");
        let (code, status) = ask(&shared, Method::GET, &path, Value::Null).await;
        assert_eq!(code, 405);
        assert!(message(&status).contains("is simulated"), "{status}");
    }
}

#[tokio::test]
async fn a_service_is_changed_and_deleted_as_it_was_made() {
    let shared = shared(world());
    let services = "/api/v1/namespaces/shop/services";
    let made = json!({"metadata": {"name": "web", "labels": {"a": "b"}}, "spec": {"ports": [{"port": 80}], "selector": {"app": "cart"}}});
    assert_eq!(ask(&shared, Method::POST, services, made).await.1["metadata"]["labels"]["a"], "b");
    let one = format!("{services}/web");
    let patch = json!({"spec": {"ports": [{"port": 81}]}});
    let (code, changed) = ask_as(&shared, Method::PATCH, &one, JSON, MERGE, patch).await;
    assert_eq!((code, &changed["spec"]["ports"][0]["port"]), (200, &json!(81)));
    assert_eq!(ask(&shared, Method::DELETE, &one, Value::Null).await.0, 200);
    assert_eq!(ask(&shared, Method::GET, &one, Value::Null).await.0, 404);
}

#[tokio::test]
async fn fields_have_managers_whatever_the_kind_and_who_applies_what_another_has_set_must_force_it() {
    let shared = shared(world());
    let node = "/api/v1/nodes/w-1";
    let label = json!({"metadata": {"labels": {"disk": "ssd"}}});
    let (_, labelled) =
        ask_as(&shared, Method::PATCH, &format!("{node}?fieldManager=person"), JSON, MERGE, label).await;
    let entry = &labelled["metadata"]["managedFields"][0];
    assert_eq!((&entry["manager"], &entry["operation"]), (&json!("person"), &json!("Update")));
    assert_eq!(entry["fieldsV1"], json!({"f:metadata": {"f:labels": {"f:disk": {}}}}));

    let apply = |value: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "w-1", "labels": {"disk": value}}});
    let applying = "application/apply-patch+yaml";
    let url = format!("{node}?fieldManager=robot");
    let (code, refused) = ask_as(&shared, Method::PATCH, &url, JSON, applying, apply("hdd")).await;
    assert_eq!(code, 409);
    assert!(message(&refused).contains("conflict with \"person\""), "{refused}");
    let (code, _) = ask_as(&shared, Method::PATCH, &format!("{url}&force=true"), JSON, applying, apply("hdd")).await;
    assert_eq!(code, 200);
    let found = ask(&shared, Method::GET, node, Value::Null).await.1;
    assert_eq!(found["metadata"]["labels"]["disk"], "hdd");
    let managers: Vec<&Value> =
        found["metadata"]["managedFields"].as_array().unwrap().iter().map(|entry| &entry["manager"]).collect();
    assert_eq!(managers, ["robot"]);
    // A write that changes nothing is none.
    let again = ask_as(&shared, Method::PATCH, &url, JSON, applying, apply("hdd")).await.1;
    assert_eq!(again["metadata"]["resourceVersion"], found["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn a_rollout_is_undone_as_kubectl_undoes_it_and_its_revisions_are_told() {
    const REVISION: &str = "deployment.kubernetes.io/revision";
    let shared = shared(world());
    let cart = "/apis/apps/v1/namespaces/shop/deployments/cart";
    let before = ask(&shared, Method::GET, cart, Value::Null).await.1;
    let strategic = "application/strategic-merge-patch+json";
    let name = &before["spec"]["template"]["spec"]["containers"][0]["name"];
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": name, "image": "cart:2"}]}}}});
    assert_eq!(ask_as(&shared, Method::PATCH, cart, JSON, strategic, image).await.0, 200);
    shared.with(|world| world.settle(Duration::from_secs(300)));
    let sets = async || {
        let path = "/apis/apps/v1/namespaces/shop/replicasets?labelSelector=app%3Dcart";
        let mut sets = ask(&shared, Method::GET, path, Value::Null).await.1["items"].as_array().unwrap().clone();
        sets.sort_by_key(|set| set["metadata"]["annotations"][REVISION].to_string());
        sets
    };
    let [old, new] = sets().await.try_into().unwrap();
    let of = |set: &Value| (set["metadata"]["annotations"][REVISION].clone(), set["spec"]["replicas"].clone());
    assert_eq!((of(&old), of(&new)), ((json!("1"), json!(0)), (json!("2"), json!(3))));

    // What kubectl sends: the template without the label of its ReplicaSet, and the annotations.
    let mut template = old["spec"]["template"].clone();
    template["metadata"]["labels"].as_object_mut().unwrap().remove("pod-template-hash");
    let annotations = json!({REVISION: "2", "note": "back"});
    let undo = json!([{"op": "replace", "path": "/spec/template", "value": template},
        {"op": "replace", "path": "/metadata/annotations", "value": annotations}]);
    let (code, status) = ask_as(&shared, Method::PATCH, cart, JSON, "application/json-patch+json", undo).await;
    assert_eq!(code, 200, "{status}");
    shared.with(|world| world.settle(Duration::from_secs(300)));
    let [left, back] = sets().await.try_into().unwrap();
    assert_eq!((of(&left), of(&back)), ((json!("2"), json!(0)), (json!("3"), json!(3))));
    assert_eq!(back["metadata"]["name"], old["metadata"]["name"]);
    let after = ask(&shared, Method::GET, cart, Value::Null).await.1;
    assert_eq!(after["metadata"]["annotations"], json!({REVISION: "3", "note": "back"}));
    assert_eq!(after["spec"]["template"], before["spec"]["template"]);
    assert_eq!(after["status"]["updatedReplicas"], 3);
}
