use shiplock_core::id::ObjectUid;
use shiplock_core::problem::Code;

use super::*;
use crate::mock::{Answer, Asked, api, status};

fn pod() -> DrainPod {
    DrainPod {
        namespace: "shop".into(),
        name: "cart-0".into(),
        uid: ObjectUid::from("uid-1"),
        owner: None,
        is_mirror: false,
        is_daemon: false,
        tolerates_unschedulable: false,
        is_terminating: false,
        grace_seconds: 30,
        budgets: vec!["shop/cart".to_owned()],
        admitted_at: None,
    }
}

fn refusal(code: u16, reason: &str, cause: Option<&str>) -> Answer {
    let Answer::Json(code, mut body) = status(code, reason, "no") else { panic!("a status is JSON") };
    if let Some(cause) = cause {
        body["details"] = json!({"causes": [{"reason": cause, "message": "why"}]});
    }
    Answer::Json(code, body)
}

#[tokio::test]
async fn an_eviction_names_the_uid_under_the_name_that_api_servers_know() {
    let (connection, log) = api(|_| Answer::Json(201, json!({"kind": "Status", "status": "Success"})));
    assert_eq!(evict(&connection, &pod()).await, Ok(Eviction::Accepted));
    let asked = log.lock().unwrap().remove(0);
    assert_eq!(asked.line(), "POST /api/v1/namespaces/shop/pods/cart-0/eviction");
    assert_eq!(asked.query, "fieldManager=shiplock&timeout=5s");
    let expected = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"namespace": "shop", "name": "cart-0"},
        "deleteOptions": {"preconditions": {"uid": "uid-1"}},
    });
    assert_eq!(asked.body, expected);
}

#[tokio::test]
async fn a_forced_delete_names_the_uid_and_keeps_the_grace_period() {
    let (connection, log) = api(|_| Answer::Json(200, json!({"kind": "Pod", "metadata": {"name": "cart-0"}})));
    assert_eq!(delete(&connection, &pod()).await, Ok(Eviction::Accepted));
    let asked = log.lock().unwrap().remove(0);
    assert_eq!(asked.line(), "DELETE /api/v1/namespaces/shop/pods/cart-0");
    assert_eq!(asked.body, json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": "uid-1"}}));
}

#[tokio::test]
async fn refusals_of_an_eviction_are_told_apart() {
    let cases: [(Answer, &str); 9] = [
        (refusal(429, "TooManyRequests", Some("DisruptionBudget")), "RefusedByBudget"),
        (refusal(429, "TooManyRequests", None), "Refused UPG0205"),
        (refusal(404, "NotFound", None), "Gone"),
        (refusal(403, "Forbidden", None), "Refused UPG0204"),
        (refusal(403, "Forbidden", Some("NamespaceTerminating")), "Refused UPG0205"),
        (refusal(500, "InternalError", None), "Refused UPG0205"),
        (refusal(503, "ServiceUnavailable", None), "Refused UPG0205"),
        (refusal(401, "Unauthorized", None), "error UPG0207"),
        (Answer::Broken, "error UPG0203"),
    ];
    for (answer, expected) in cases {
        let told = format!("{answer:?}");
        let (connection, log) = api(move |_| answer.clone());
        let found = match evict(&connection, &pod()).await {
            Ok(Eviction::Refused(problem)) => format!("Refused {}", problem.code),
            Ok(other) => format!("{other:?}"),
            Err(problem) => format!("error {}", problem.code),
        };
        assert_eq!(found, expected, "{told}");
        assert_eq!(log.lock().unwrap().len(), 1, "{told}");
    }
}

#[tokio::test]
async fn a_pod_that_two_budgets_select_is_named_with_both() {
    let two = DrainPod { budgets: vec!["shop/one".to_owned(), "shop/two".to_owned()], ..pod() };
    let (connection, _) = api(|_| refusal(500, "InternalError", None));
    assert_eq!(evict(&connection, &two).await, Ok(Eviction::RefusedByBudget));
}

#[tokio::test]
async fn a_conflict_means_gone_only_if_another_pod_has_the_name() {
    let with_uid = |uid: &str| Answer::Json(200, json!({"kind": "Pod", "metadata": {"name": "cart-0", "uid": uid}}));
    let cases = [(with_uid("uid-2"), true), (status(404, "NotFound", "gone"), true), (with_uid("uid-1"), false)];
    for (found, gone) in cases {
        let (connection, _) = api(move |asked: &Asked| match asked.method.as_str() {
            "POST" => refusal(409, "Conflict", None),
            _ => found.clone(),
        });
        let eviction = evict(&connection, &pod()).await.unwrap();
        assert_eq!(eviction == Eviction::Gone, gone);
        if !gone {
            assert!(matches!(eviction, Eviction::Refused(problem) if problem.code == Code::ClusterAnswer));
        }
    }
}

#[tokio::test]
async fn the_pods_of_a_node_come_in_pages_and_without_finished_ones() {
    let item = |name: &str, phase: &str| json!({"metadata": {"namespace": "shop", "name": name, "uid": name}, "status": {"phase": phase}});
    let (connection, log) = api(move |asked: &Asked| {
        let (items, token) = if asked.query.contains("continue=more") {
            (json!([item("c", "Pending"), item("d", "Failed")]), "")
        } else {
            (json!([item("a", "Running"), item("b", "Succeeded")]), "more")
        };
        Answer::Json(
            200,
            json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "9", "continue": token}, "items": items}),
        )
    });
    let found = pods_on(&connection, &NodeName::from("w1"), &[]).await.unwrap();
    assert_eq!(found.iter().map(|pod| &*pod.name).collect::<Vec<_>>(), ["a", "c"]);
    assert!(log.lock().unwrap()[0].query.contains("fieldSelector=spec.nodeName%3Dw1"));
}
