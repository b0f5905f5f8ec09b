use serde_json::json;

use super::*;

fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "w-1", "uid": "u-1", "labels": {"a": "1"}, "finalizers": ["x"]},
        "spec": {"taints": [{"key": "old", "effect": "NoSchedule"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "False"}]},
    })
}

fn nodes() -> &'static Resource {
    Resource::find("", "v1", "nodes").unwrap()
}

#[test]
fn a_content_type_names_the_form_of_a_patch() {
    for (text, expected) in [
        ("application/json-patch+json", Some(Form::Json)),
        ("application/merge-patch+json; charset=utf-8", Some(Form::Merge)),
        ("application/strategic-merge-patch+json", Some(Form::Strategic)),
        ("application/apply-patch+yaml", Some(Form::Apply)),
        ("application/json", None),
        ("", None),
    ] {
        assert_eq!(Form::of(text), expected, "{text}");
    }
}

#[test]
fn a_json_patch_whose_test_fails_changes_nothing() {
    let cordon = |uid: &str| {
        json!([{"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/spec/unschedulable", "value": true}])
    };
    let done = patched(nodes(), &node(), Form::Json, &cordon("u-1")).unwrap();
    assert_eq!(done["spec"]["unschedulable"], true);
    for body in [cordon("u-2"), json!([{"op": "remove", "path": "/spec/moon"}])] {
        assert_eq!(patched(nodes(), &node(), Form::Json, &body).unwrap_err().code, 422, "{body}");
    }
    assert_eq!(patched(nodes(), &node(), Form::Json, &json!({"op": "x"})).unwrap_err().code, 400);
}

#[test]
fn a_merge_patch_replaces_lists_and_takes_away_what_is_null() {
    let body = json!({"metadata": {"labels": {"a": null, "b": "2"}}, "spec": {"taints": []}});
    let done = patched(nodes(), &node(), Form::Merge, &body).unwrap();
    assert_eq!(done["metadata"]["labels"], json!({"b": "2"}));
    assert_eq!(done["spec"]["taints"], json!([]));
}

#[test]
fn a_strategic_merge_patch_merges_lists_by_their_keys_and_obeys_its_directives() {
    let pod = json!({"spec": {
        "containers": [{"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "b:1"}],
        "tolerations": [{"key": "k"}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }, "metadata": {"finalizers": ["x", "y"]}});
    for (patch, path, expected) in [
        (
            json!({"spec": {"containers": [{"name": "a", "image": "a:2"}]}}),
            "/spec/containers",
            json!([{"name": "a", "image": "a:2", "env": [{"name": "X", "value": "1"}]}, {"name": "b", "image": "b:1"}]),
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
            "/spec/containers",
            json!([{"name": "b", "image": "b:1"}]),
        ),
        (
            json!({"spec": {"containers": [{"name": "c"}], "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}]}}),
            "/spec/containers",
            json!([{"name": "c"}, {"name": "b", "image": "b:1"}, {"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]}]),
        ),
        (
            json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "z"}]}}),
            "/spec/containers",
            json!([{"name": "z"}]),
        ),
        (json!({"spec": {"tolerations": [{"key": "n"}]}}), "/spec/tolerations", json!([{"key": "n"}])),
        (
            json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "configMap"], "configMap": {"name": "c"}}]}}),
            "/spec/volumes",
            json!([{"name": "v", "configMap": {"name": "c"}}]),
        ),
        (json!({"metadata": {"finalizers": ["z", "x"]}}), "/metadata/finalizers", json!(["x", "y", "z"])),
        (json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x"]}}), "/metadata/finalizers", json!(["y"])),
        (json!({"spec": {"$patch": "replace", "containers": []}}), "/spec", json!({"containers": []})),
        (json!({"spec": {"volumes": null}}), "/spec/volumes", Value::Null),
    ] {
        let done = patched(nodes(), &pod, Form::Strategic, &patch).unwrap();
        assert_eq!(done.pointer(path).cloned().unwrap_or_default(), expected, "{patch}");
    }
    let keyless = json!({"spec": {"containers": [{"image": "x"}]}});
    assert_eq!(patched(nodes(), &pod, Form::Strategic, &keyless).unwrap_err().code, 400);
}

fn applied(object: Option<&Value>, manager: &str, force: bool, configuration: Value) -> Result<Value, Refusal> {
    apply(object, &Applied { manager, force, configuration: &configuration, time: "2026-01-01T00:00:00Z" })
}

#[test]
fn who_applies_owns_the_fields_and_takes_them_back_by_leaving_them_out() {
    let base = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data});
    let first = applied(None, "one", false, base(json!({"a": "1", "b": "2"}))).unwrap();
    assert_eq!(first["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:data": {"f:a": {}, "f:b": {}}}));

    let less = applied(Some(&first), "one", false, base(json!({"a": "1"}))).unwrap();
    assert_eq!(less["data"], json!({"a": "1"}));

    let shared = applied(Some(&first), "two", false, base(json!({"a": "1", "c": "3"}))).unwrap();
    assert_eq!(shared["data"], json!({"a": "1", "b": "2", "c": "3"}));
    let kept = applied(Some(&shared), "one", false, base(json!({"b": "2"}))).unwrap();
    assert_eq!(kept["data"], json!({"a": "1", "b": "2", "c": "3"}), "the other one owns it, too");

    let refused = applied(Some(&first), "two", false, base(json!({"a": "9"}))).unwrap_err();
    assert_eq!(refused.code, 409);
    assert!(refused.body()["message"].as_str().unwrap().contains("conflict with \"one\""), "{refused:?}");
    let forced = applied(Some(&first), "two", true, base(json!({"a": "9"}))).unwrap();
    assert_eq!(forced["data"], json!({"a": "9", "b": "2"}));
    assert_eq!(forced["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:data": {"f:b": {}}}));
}

#[test]
fn elements_of_lists_with_keys_are_owned_one_by_one() {
    let base = |containers: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": containers}});
    let first = applied(None, "one", false, base(json!([{"name": "a", "image": "a:1"}]))).unwrap();
    let second = applied(Some(&first), "two", false, base(json!([{"name": "b", "image": "b:1"}]))).unwrap();
    assert_eq!(second["spec"]["containers"].as_array().unwrap().len(), 2);
    let gone =
        applied(Some(&second), "two", false, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}))
            .unwrap();
    assert_eq!(gone["spec"]["containers"], json!([{"name": "a", "image": "a:1"}]));
}
