use jiff::Timestamp;

use super::*;

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn printed(group: &str, plural: &str, object: Value) -> Vec<(String, Value)> {
    let printer = Printer::new(Resource::find(group, "v1", plural).unwrap(), Include::Metadata);
    let table = printer.table(&[object], json!({}), true, now());
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    let names =
        columns.filter(|column| column["priority"] == 0).map(|column| column["name"].as_str().unwrap().to_owned());
    names.zip(table["rows"][0]["cells"].as_array().unwrap().iter().cloned()).collect()
}

#[test]
fn the_form_is_the_first_that_a_client_names() {
    let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
    for (accept, expected) in [
        (kubectl, Form::Table),
        ("application/json", Form::Plain),
        ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Form::Metadata),
        ("application/vnd.kubernetes.protobuf,application/json", Form::Plain),
        ("*/*", Form::Plain),
        ("", Form::Plain),
    ] {
        assert_eq!(Form::of(accept), expected, "{accept}");
    }
}

#[test]
fn nodes_pods_and_budgets_are_printed_in_the_columns_of_kubectl() {
    let metadata = |name: &str| json!({"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"});
    let mut node = json!({
        "metadata": metadata("m-1"),
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.35.4"}},
    });
    node["metadata"]["labels"] = json!({"node-role.kubernetes.io/control-plane": ""});
    let cells = |pairs: &[(&str, Value)]| -> Vec<(String, Value)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    };
    assert_eq!(
        printed("", "nodes", node),
        cells(&[
            ("Name", json!("m-1")),
            ("Status", json!("Ready,SchedulingDisabled")),
            ("Roles", json!("control-plane")),
            ("Age", json!("60m")),
            ("Version", json!("v1.35.4")),
        ])
    );
    let mut pod = json!({
        "metadata": metadata("web-1"),
        "spec": {"containers": [{"name": "a"}, {"name": "b"}]},
        "status": {"phase": "Running", "containerStatuses": [
            {"ready": true, "restartCount": 2, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:57:00Z"}}},
            {"ready": false, "restartCount": 0},
        ]},
    });
    assert_eq!(
        printed("", "pods", pod.clone()),
        cells(&[
            ("Name", json!("web-1")),
            ("Ready", json!("1/2")),
            ("Status", json!("Running")),
            ("Restarts", json!("2 (3m ago)")),
            ("Age", json!("60m")),
        ])
    );
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:59:00Z");
    assert_eq!(printed("", "pods", pod)[2].1, "Terminating");
    let budget =
        json!({"metadata": metadata("web"), "spec": {"maxUnavailable": "30%"}, "status": {"disruptionsAllowed": 1}});
    let expected = [("Name", json!("web")), ("Min Available", json!("N/A")), ("Max Unavailable", json!("30%"))];
    assert_eq!(printed("policy", "poddisruptionbudgets", budget)[..3], cells(&expected));
    assert_eq!(printed("storage.k8s.io", "csidrivers", json!({"metadata": metadata("d")}))[1].0, "Created At");
}

#[test]
fn a_row_carries_as_much_of_its_object_as_is_asked_for() {
    let object = json!({"kind": "Node", "metadata": {"name": "n"}, "spec": {"x": 1}});
    for (text, expected) in [
        (Some("None"), Value::Null),
        (None, partial(&object)),
        (Some("Metadata"), partial(&object)),
        (Some("Object"), object.clone()),
    ] {
        let printer = Printer::new(Resource::find("", "v1", "nodes").unwrap(), Include::of(text));
        let table = printer.table(std::slice::from_ref(&object), json!({}), false, now());
        assert_eq!(table["rows"][0]["object"], expected);
        assert!(table["columnDefinitions"].is_null());
    }
}
