use std::sync::{Arc, Mutex};

use shiplock_core::id::UpgradeId;

use super::*;
use crate::mock::{Answer, Asked, api, status};

fn owner(upgrade: &str, epoch: u64) -> NodeOwner {
    NodeOwner { upgrade: UpgradeId::from(upgrade), epoch: Epoch(epoch), attempt: 1 }
}

fn node(mark: Option<&str>, unschedulable: bool) -> Value {
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "w1", "uid": "uid-1", "resourceVersion": "41", "annotations": {"other": "1"}},
        "spec": {},
    });
    if let Some(mark) = mark {
        node["metadata"]["annotations"][OWNER_ANNOTATION] = json!(mark);
    }
    if unschedulable {
        node["spec"]["unschedulable"] = json!(true);
    }
    node
}

fn typed(value: Value) -> Node {
    serde_json::from_value(value).unwrap()
}

const OURS: &str = r#"{"upgrade":"up1","epoch":7,"attempt":1}"#;
const OLDER: &str = r#"{"upgrade":"up1","epoch":6}"#;
const NEWER: &str = r#"{"upgrade":"up1","epoch":8}"#;
const FOREIGN: &str = r#"{"upgrade":"up2","epoch":1}"#;

#[test]
fn a_further_attempt_of_a_cordon_writes_its_own_mark() {
    let again = NodeOwner { attempt: 2, ..owner("up1", 7) };
    for (mark, unschedulable, expected) in [
        (OURS, true, "patch, then AlreadyOurs"),
        (OURS, false, "patch, then Done"),
        (r#"{"upgrade":"up1","epoch":7,"attempt":2}"#, true, "AlreadyOurs"),
    ] {
        assert_eq!(outcome(&cordon_move(&typed(node(Some(mark), unschedulable)), &again)), expected);
    }
    // Marks of before attempts were written are of the first.
    let plain = typed(node(Some(r#"{"upgrade":"up1","epoch":7}"#), true));
    assert_eq!(outcome(&cordon_move(&plain, &owner("up1", 7))), "AlreadyOurs");
}

fn outcome<T: std::fmt::Debug>(next: &Move<T>) -> String {
    match next {
        Move::Nothing(result) => format!("{result:?}"),
        Move::Patch(_, result) => format!("patch, then {result:?}"),
        Move::Overtaken(epoch) => format!("overtaken by {epoch}"),
    }
}

#[test]
fn a_cordon_depends_on_whose_the_node_is() {
    let cases = [
        (None, false, "patch, then Done"),
        (None, true, "CordonedByOthers"),
        (Some(OURS), true, "AlreadyOurs"),
        (Some(OURS), false, "patch, then Done"),
        (Some(OLDER), true, "patch, then AlreadyOurs"),
        (Some(OLDER), false, "patch, then Done"),
        (Some(NEWER), true, "overtaken by 8"),
        (Some(FOREIGN), true, "OwnedByAnotherUpgrade"),
        (Some(FOREIGN), false, "OwnedByAnotherUpgrade"),
        (Some("nonsense"), true, "OwnedByAnotherUpgrade"),
    ];
    for (mark, unschedulable, expected) in cases {
        let next = cordon_move(&typed(node(mark, unschedulable)), &owner("up1", 7));
        assert_eq!(outcome(&next), expected, "mark {mark:?}, unschedulable {unschedulable}");
    }
}

#[test]
fn an_uncordon_touches_only_what_is_ours() {
    let cases = [
        (None, true, "NotOurs"),
        (Some(FOREIGN), true, "NotOurs"),
        (Some("nonsense"), true, "NotOurs"),
        (Some(OURS), true, "patch, then Done"),
        (Some(OURS), false, "patch, then Done"),
        (Some(OLDER), true, "patch, then Done"),
        (Some(NEWER), true, "overtaken by 8"),
    ];
    for (mark, unschedulable, expected) in cases {
        let next = uncordon_move(&typed(node(mark, unschedulable)), &owner("up1", 7));
        assert_eq!(outcome(&next), expected, "mark {mark:?}, unschedulable {unschedulable}");
    }
}

#[test]
fn every_patch_tests_the_uid_and_the_mark_or_the_version() {
    let path = "/metadata/annotations/shiplock.dev~1owner";
    let uid = json!({"op": "test", "path": "/metadata/uid", "value": "uid-1"});
    let set_mark = json!({"op": "add", "path": path, "value": OURS});
    let set = json!({"op": "add", "path": "/spec/unschedulable", "value": true});
    let fresh = cordon_move(&typed(node(None, false)), &owner("up1", 7));
    let version = json!({"op": "test", "path": "/metadata/resourceVersion", "value": "41"});
    assert_eq!(fresh, Move::Patch(json!([uid, version, set_mark, set]), Cordon::Done));

    let replaced = cordon_move(&typed(node(Some(OLDER), true)), &owner("up1", 7));
    let mark = json!({"op": "test", "path": path, "value": OLDER});
    assert_eq!(replaced, Move::Patch(json!([uid, mark, set_mark, set]), Cordon::AlreadyOurs));

    let taken_off = uncordon_move(&typed(node(Some(OURS), true)), &owner("up1", 7));
    let mark = json!({"op": "test", "path": path, "value": OURS});
    let clear = json!({"op": "add", "path": "/spec/unschedulable", "value": false});
    let remove = json!({"op": "remove", "path": path});
    assert_eq!(taken_off, Move::Patch(json!([uid, mark, clear, remove]), Uncordon::Done));
}

#[test]
fn a_node_without_any_annotation_gets_the_map_first() {
    let mut bare = node(None, false);
    bare["metadata"].as_object_mut().unwrap().remove("annotations");
    let Move::Patch(patch, _) = cordon_move(&typed(bare), &owner("up1", 7)) else { panic!("a patch was expected") };
    assert_eq!(patch[2], json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
}

/// An API server with these nodes, one for each read, and these answers to patches.
fn server(reads: Vec<Answer>, patches: Vec<Answer>) -> (Connection, crate::mock::Log) {
    let (reads, patches) = (Arc::new(Mutex::new(reads)), Arc::new(Mutex::new(patches)));
    api(move |asked: &Asked| match asked.method.as_str() {
        "GET" => reads.lock().unwrap().remove(0),
        "PATCH" => patches.lock().unwrap().remove(0),
        other => panic!("unexpected {other}"),
    })
}

async fn cordon_w1(connection: &Connection) -> Result<Cordon, Problem> {
    cordon(connection, &NodeName::from("w1"), &ObjectUid::from("uid-1"), &owner("up1", 7)).await
}

#[tokio::test]
async fn a_failed_test_is_followed_by_another_look() {
    let found = |mark: Option<&str>, cordoned| Answer::Json(200, node(mark, cordoned));
    let failed = || status(422, "Invalid", "testing path failed");
    let cases = [
        // Somebody cordoned it in between: it stays theirs.
        (vec![found(None, false), found(None, true)], vec![failed()], "Ok(CordonedByOthers)", 1),
        // Only the version had moved: the second patch passes.
        (vec![found(None, false), found(None, false)], vec![failed(), found(Some(OURS), true)], "Ok(Done)", 2),
        (
            vec![found(None, false), found(None, false)],
            vec![status(409, "Conflict", "moved"), found(Some(OURS), true)],
            "Ok(Done)",
            2,
        ),
        // The node went away.
        (vec![found(None, false), status(404, "NotFound", "gone")], vec![failed()], "Ok(NodeGone)", 1),
        (vec![found(None, false)], vec![status(404, "NotFound", "gone")], "Ok(NodeGone)", 1),
    ];
    for (reads, patches, expected, patches_sent) in cases {
        let (connection, log) = server(reads, patches);
        assert_eq!(format!("{:?}", cordon_w1(&connection).await), expected);
        let log = log.lock().unwrap();
        let patches: Vec<_> = log.iter().filter(|asked| asked.method == "PATCH").collect();
        assert_eq!(patches.len(), patches_sent, "{expected}");
        assert!(
            patches
                .iter()
                .all(|asked| asked.path == "/api/v1/nodes/w1" && asked.query == "fieldManager=shiplock&timeout=5s")
        );
    }
}

#[tokio::test]
async fn a_newer_epoch_stops_the_older_one() {
    let reads = vec![Answer::Json(200, node(Some(OLDER), true)), Answer::Json(200, node(Some(NEWER), true))];
    let (connection, _) = server(reads, vec![status(422, "Invalid", "testing path failed")]);
    let problem = cordon_w1(&connection).await.unwrap_err();
    assert_eq!((problem.code, problem.parameters["epoch"].as_str()), (Code::LeaseLost, "8"));
}

#[tokio::test]
async fn another_machine_of_the_same_name_is_never_patched() {
    let mut other = node(None, false);
    other["metadata"]["uid"] = json!("uid-2");
    let (connection, log) = server(vec![Answer::Json(200, other)], Vec::new());
    assert_eq!(cordon_w1(&connection).await, Ok(Cordon::NodeGone));
    assert_eq!(log.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_endless_race_ends_in_a_problem() {
    let reads = (0..ROUNDS_MAX).map(|_| Answer::Json(200, node(None, false))).collect();
    let patches = (0..ROUNDS_MAX).map(|_| status(409, "Conflict", "moved")).collect();
    let (connection, _) = server(reads, patches);
    assert_eq!(cordon_w1(&connection).await.unwrap_err().code, Code::ClusterAnswer);
}

#[tokio::test]
async fn refusals_name_what_is_missing_and_nothing_is_retried_behind_the_back() {
    let cases = [
        (status(403, "Forbidden", "no"), Code::ClusterForbidden),
        (status(401, "Unauthorized", "who"), Code::ClusterUnauthorized),
        (status(503, "ServiceUnavailable", "later"), Code::ClusterAnswer),
        (status(429, "TooManyRequests", "slow down"), Code::ClusterAnswer),
        (Answer::Broken, Code::ClusterUnreachable),
    ];
    for (answer, code) in cases {
        let (connection, log) = server(vec![Answer::Json(200, node(None, false))], vec![answer]);
        let problem = cordon_w1(&connection).await.unwrap_err();
        assert_eq!(problem.code, code);
        if code == Code::ClusterForbidden {
            assert_eq!(
                (problem.parameters["verb"].as_str(), problem.parameters["resource"].as_str()),
                ("patch", "nodes")
            );
        }
        assert_eq!(log.lock().unwrap().len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_given_up_in_time() {
    let (connection, _) = server(vec![Answer::Json(200, node(None, false))], vec![Answer::Silence]);
    assert_eq!(cordon_w1(&connection).await.unwrap_err().code, Code::ClusterUnreachable);
}
