use serde_json::json;
use shiplock_core::problem::Code;

use super::*;
use crate::mock::{Answer, Asked, api, status};

fn slice(addresses: &[&str], port: Option<i32>) -> EndpointSlice {
    let ports = port.map(|port| json!([{"name": "other", "port": 1}, {"name": "https", "port": port}]));
    let endpoints: Vec<_> = addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    serde_json::from_value(json!({"addressType": "IPv4", "endpoints": endpoints, "ports": ports, "metadata": {}}))
        .unwrap()
}

#[test]
fn instances_are_read_from_the_endpoint_slice() {
    assert_eq!(slice_addresses(&slice(&["10.0.0.1", "10.0.0.2"], Some(6443))), ["10.0.0.1:6443", "10.0.0.2:6443"]);
    assert_eq!(slice_addresses(&slice(&["fd00::1"], Some(443))), ["[fd00::1]:443"]);
    assert!(slice_addresses(&slice(&["10.0.0.1"], None)).is_empty());
}

fn version_server() -> Connection {
    let body = json!({"major": "1", "minor": "36", "gitVersion": "v1.36.3", "gitCommit": "", "gitTreeState": "", "buildDate": "",
        "goVersion": "", "compiler": "", "platform": ""});
    api(move |_| Answer::Json(200, body.clone())).0
}

#[tokio::test]
async fn instances_that_do_not_answer_are_named_beside_the_address_that_answers_for_them() {
    let at = |minor| Some((KubernetesVersion::new(1, minor, 0), None));
    let named = |address: &str, version| (address.to_owned(), version);
    let connection = version_server();
    let cases = [
        (vec![], vec!["https://api.test:6443 (its instances are not known) v1.36.3"]),
        (vec![named("b:1", at(36)), named("a:1", at(35))], vec!["a:1 v1.35.0", "b:1 v1.36.0"]),
        (
            vec![named("c:1", None), named("a:1", at(35)), named("b:1", None)],
            vec!["a:1 v1.35.0", "https://api.test:6443 (in place of b:1, c:1) v1.36.3"],
        ),
    ];
    for (answers, expected) in cases {
        let found = combine(&connection, answers).await.unwrap();
        assert_eq!(
            found.iter().map(|found| format!("{} {}", found.address, found.version)).collect::<Vec<_>>(),
            expected
        );
    }
}

#[tokio::test]
async fn a_cluster_without_an_identity_is_none() {
    for (answer, code) in [
        (Answer::Json(200, json!({"kind": "Namespace", "metadata": {"name": "kube-system"}})), Code::ClusterAnswer),
        (status(403, "Forbidden", "no"), Code::ClusterForbidden),
        (Answer::Broken, Code::ClusterUnreachable),
    ] {
        let (connection, log) = api(move |_: &Asked| answer.clone());
        assert_eq!(cluster_uid(&connection).await.unwrap_err().code, code);
        assert_eq!(log.lock().unwrap()[0].line(), "GET /api/v1/namespaces/kube-system");
    }
}
