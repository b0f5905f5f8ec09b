use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use shiplock_core::problem::Code;

use super::*;
use crate::mock::{Answer, Asked, Log, api, status};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-upgrade/leases";

fn now() -> Timestamp {
    "2026-01-01T12:00:00.5Z".parse().unwrap()
}

fn our_claim(event: u64) -> Claim {
    Claim {
        installation: "inst-a".to_owned(),
        upgrade: UpgradeId::from("up1"),
        event_number: event,
        event_mark: Some(format!("mark-{event}")),
        proof: None,
        ended: None,
    }
}

fn lease(holder: &str, upgrade: Option<&str>, event: &str, renewed: &str) -> Value {
    let mut annotations = json!({"kept": "yes"});
    if let Some(upgrade) = upgrade {
        annotations[UPGRADE_ANNOTATION] = json!(upgrade);
        annotations[EVENT_ANNOTATION] = json!(event);
    }
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "resourceVersion": "5", "annotations": annotations},
        "spec": {"holderIdentity": holder, "renewTime": renewed, "leaseTransitions": 3, "acquireTime": "2026-01-01T11:00:00.000000Z"},
    })
}

fn ended(mut lease: Value) -> Value {
    lease["metadata"]["annotations"][ENDED_ANNOTATION] = json!("true");
    lease
}

#[test]
fn a_copy_of_the_store_that_went_on_by_itself_is_refused_however_long_its_log_is() {
    let mut seen = lease("inst-a", Some("up1"), "7", "2026-01-01T11:59:00.000000Z");
    seen["metadata"]["annotations"][MARK_ANNOTATION] = json!("mark-7");
    let seen: Lease = serde_json::from_value(seen).unwrap();
    let judged = |number: u64, proof: Option<(u64, &str)>| {
        let proof = proof.map(|(number, mark)| (number, mark.to_owned()));
        verdict(&seen, &Claim { proof, ..our_claim(number) }, now())
    };
    let older = Verdict::Refused(ClaimOutcome::StoreOlder { cluster_event: 7 });
    assert_eq!(judged(7, None), Verdict::Free, "the newest event proves itself");
    assert_eq!(judged(9, None), Verdict::Refused(ClaimOutcome::Prove { event_number: 7 }));
    assert_eq!(judged(9, Some((7, "mark-7"))), Verdict::Free);
    assert_eq!(judged(9, Some((7, "another"))), older);
    assert_eq!(judged(9, Some((6, "mark-7"))), Verdict::Refused(ClaimOutcome::Prove { event_number: 7 }));
    let other_way = Claim { event_mark: Some("another".to_owned()), ..our_claim(7) };
    assert_eq!(verdict(&seen, &other_way, now()), older);
    // A restarted server of an earlier version wrote no mark.
    let unmarked: Lease =
        serde_json::from_value(lease("inst-a", Some("up1"), "7", "2026-01-01T11:59:00.000000Z")).unwrap();
    assert_eq!(verdict(&unmarked, &our_claim(9), now()), Verdict::Free);
    let written = claimed(Some(seen), &our_claim(9), now());
    assert_eq!(annotation(&written, MARK_ANNOTATION), Some("mark-9"));
}

#[test]
fn an_upgrade_whose_end_the_cluster_was_not_told_keeps_nobody_away_who_knows_of_it() {
    let held = lease("inst-a", Some("up0"), "9", "2026-01-01T11:59:00.000000Z");
    let held: Lease = serde_json::from_value(held).unwrap();
    let knowing = |id: &str| Claim { ended: Some(UpgradeId::from(id)), ..our_claim(1) };
    assert_eq!(verdict(&held, &knowing("up0"), now()), Verdict::Free);
    assert_ne!(verdict(&held, &knowing("up7"), now()), Verdict::Free);
}

#[test]
fn a_claim_is_refused_by_a_living_other_and_by_a_later_log_only() {
    let recent = "2026-01-01T11:59:00.000000Z";
    let old = "2026-01-01T11:49:00.000000Z";
    let ten_minutes_ago = "2026-01-01T11:50:00.500000Z";
    let future = "2026-01-01T13:00:00.000000Z";
    let other = || {
        Verdict::Refused(ClaimOutcome::HeldByOther {
            installation: "inst-b".to_owned(),
            upgrade: UpgradeId::from("up9"),
            since: "2026-01-01T11:00:00Z".parse().unwrap(),
        })
    };
    let cases = [
        ("free", lease("inst-b", None, "", recent), Verdict::Free),
        ("ours", lease("inst-a", Some("up1"), "10", recent), Verdict::Free),
        ("our last upgrade", ended(lease("inst-a", Some("up0"), "900", recent)), Verdict::Free),
        (
            "an upgrade of ours that did not end",
            lease("inst-a", Some("up0"), "9", recent),
            Verdict::Refused(ClaimOutcome::Unfinished { upgrade: UpgradeId::from("up0"), event_number: 9 }),
        ),
        (
            "our later log",
            lease("inst-a", Some("up1"), "11", recent),
            Verdict::Refused(ClaimOutcome::StoreOlder { cluster_event: 11 }),
        ),
        ("another upgrade has ended", ended(lease("inst-b", Some("up9"), "1", recent)), Verdict::Free),
        (
            "our upgrade has ended",
            ended(lease("inst-a", Some("up1"), "9", recent)),
            Verdict::Refused(ClaimOutcome::StoreOlder { cluster_event: 9 }),
        ),
        ("a living other", lease("inst-b", Some("up9"), "1", recent), other()),
        ("another just before it is gone", lease("inst-b", Some("up9"), "1", ten_minutes_ago), other()),
        ("a gone other", lease("inst-b", Some("up9"), "1", old), Verdict::Free),
    ];
    for (case, found, expected) in cases {
        assert_eq!(verdict(&serde_json::from_value(found).unwrap(), &our_claim(10), now()), expected, "{case}");
    }
    let ahead = serde_json::from_value(lease("inst-b", Some("up9"), "1", future)).unwrap();
    assert!(
        matches!(verdict(&ahead, &our_claim(10), now()), Verdict::Refused(_)),
        "a clock that is ahead is no reason to take it"
    );
}

fn server(answers: Vec<(&'static str, Answer)>) -> (Connection, Log) {
    let answers = Arc::new(Mutex::new(answers));
    api(move |asked: &Asked| {
        let (method, answer) = answers.lock().unwrap().remove(0);
        assert_eq!(asked.method, method, "{}", asked.line());
        answer
    })
}

fn namespace() -> Answer {
    Answer::Json(201, json!({"kind": "Namespace", "metadata": {"name": NAMESPACE}}))
}

#[tokio::test]
async fn a_first_claim_makes_namespace_and_lease() {
    let made = || Answer::Json(201, lease("inst-a", Some("up1"), "3", "2026-01-01T12:00:00.500000Z"));
    let (connection, log) = server(vec![
        ("GET", status(404, "NotFound", "no lease")),
        ("POST", status(404, "NotFound", "no namespace")),
        ("POST", namespace()),
        ("POST", made()),
    ]);
    assert_eq!(claim(&connection, &our_claim(3), now()).await, Ok(ClaimOutcome::Ours));
    let log = log.lock().unwrap();
    assert_eq!((log[2].path.as_str(), &log[2].body["metadata"]["name"]), ("/api/v1/namespaces", &json!(NAMESPACE)));
    assert_eq!((log[3].path.as_str(), &log[3].body["metadata"]["name"]), (LEASES, &json!(NAME)));
    assert!(log[1..].iter().all(|asked| asked.query.contains("fieldManager=shiplock")), "{log:?}");
    let body = &log[3].body;
    let annotations = json!({UPGRADE_ANNOTATION: "up1", EVENT_ANNOTATION: "3", MARK_ANNOTATION: "mark-3"});
    assert_eq!(body["metadata"]["annotations"], annotations);
    assert_eq!(body["spec"]["holderIdentity"], "inst-a");
    assert_eq!(body["spec"]["renewTime"], "2026-01-01T12:00:00.500000Z");
    assert_eq!(body["spec"]["leaseDurationSeconds"], 60);
}

#[tokio::test]
async fn a_renewal_tests_the_version_and_is_tried_again_once() {
    let found = || Answer::Json(200, lease("inst-a", Some("up1"), "3", "2026-01-01T11:59:59.000000Z"));
    let conflict = || status(409, "Conflict", "moved");
    let (connection, log) = server(vec![("GET", found()), ("PUT", conflict()), ("GET", found()), ("PUT", found())]);
    assert_eq!(claim(&connection, &our_claim(4), now()).await, Ok(ClaimOutcome::Ours));
    let body = log.lock().unwrap()[3].body.clone();
    assert_eq!(body["metadata"]["resourceVersion"], "5");
    assert_eq!(body["metadata"]["annotations"]["kept"], "yes");
    assert_eq!(body["metadata"]["annotations"][EVENT_ANNOTATION], "4");
    assert_eq!(
        (&body["spec"]["leaseTransitions"], &body["spec"]["acquireTime"]),
        (&json!(3), &json!("2026-01-01T11:00:00.000000Z"))
    );

    let (connection, _) = server(vec![("GET", found()), ("PUT", conflict()), ("GET", found()), ("PUT", conflict())]);
    assert_eq!(claim(&connection, &our_claim(4), now()).await.unwrap_err().code, Code::ClusterAnswer);
}

#[test]
fn the_lease_says_since_when_its_holder_has_it_for_this_upgrade() {
    let recent = "2026-01-01T11:59:00.000000Z";
    let acquired = |found: Value| {
        let lease = claimed(Some(serde_json::from_value(found).unwrap()), &our_claim(4), now());
        lease.spec.unwrap().acquire_time.unwrap().0
    };
    let before: Timestamp = "2026-01-01T11:00:00Z".parse().unwrap();
    assert_eq!(acquired(lease("inst-a", Some("up1"), "3", recent)), before);
    assert_eq!(acquired(ended(lease("inst-a", Some("up0"), "3", recent))), now(), "another upgrade of ours");
    assert_eq!(acquired(ended(lease("inst-b", Some("up9"), "3", recent))), now(), "another installation");
}

#[tokio::test]
async fn a_second_installation_writes_nothing() {
    let found = Answer::Json(200, lease("inst-b", Some("up9"), "1", "2026-01-01T11:59:59.000000Z"));
    let (connection, log) = server(vec![("GET", found)]);
    let expected = ClaimOutcome::HeldByOther {
        installation: "inst-b".to_owned(),
        upgrade: UpgradeId::from("up9"),
        since: "2026-01-01T11:00:00Z".parse().unwrap(),
    };
    assert_eq!(claim(&connection, &our_claim(1), now()).await, Ok(expected));
    assert_eq!(log.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_release_marks_our_upgrade_as_ended_and_no_other() {
    let renewed = "2026-01-01T11:59:59.000000Z";
    let ours = || Answer::Json(200, lease("inst-a", Some("up1"), "3", renewed));
    let (connection, log) = server(vec![("GET", ours()), ("PUT", ours())]);
    assert_eq!(release(&connection, &UpgradeId::from("up1")).await, Ok(()));
    let expected = ended(lease("inst-a", Some("up1"), "3", renewed));
    assert_eq!(log.lock().unwrap()[1].body["metadata"]["annotations"], expected["metadata"]["annotations"]);

    for found in [Answer::Json(200, lease("inst-b", Some("up9"), "1", renewed)), status(404, "NotFound", "none")] {
        let (connection, log) = server(vec![("GET", found)]);
        assert_eq!(release(&connection, &UpgradeId::from("up1")).await, Ok(()));
        assert_eq!(log.lock().unwrap().len(), 1);
    }
}

/// What a problem says of a request.
fn told(problem: &Problem) -> (Code, &str, &str) {
    (problem.code, &problem.parameters["verb"], &problem.parameters["resource"])
}

#[tokio::test]
async fn a_claim_that_cannot_be_written_says_so_at_once_unless_another_write_came_first() {
    let ours = || Answer::Json(200, lease("inst-a", Some("up1"), "3", "2026-01-01T11:59:59.000000Z"));
    let (absent, forbidden) = (|| status(404, "NotFound", "none"), || status(403, "Forbidden", "no"));
    let exists = || status(409, "AlreadyExists", "there");
    let leases = "leases.coordination.k8s.io";
    let cases = [
        (
            "a renewal that is forbidden",
            vec![("GET", ours()), ("PUT", forbidden())],
            Err((Code::ClusterForbidden, "update", leases)),
        ),
        (
            "a renewal of a Lease that was deleted meanwhile",
            vec![("GET", ours()), ("PUT", absent())],
            Err((Code::ClusterAnswer, "update", leases)),
        ),
        (
            "a first claim that is forbidden",
            vec![("GET", absent()), ("POST", forbidden())],
            Err((Code::ClusterForbidden, "create", leases)),
        ),
        (
            "a Lease that another made meanwhile",
            vec![("GET", absent()), ("POST", exists()), ("GET", ours()), ("PUT", ours())],
            Ok(ClaimOutcome::Ours),
        ),
        (
            "a namespace that may not be made",
            vec![("GET", absent()), ("POST", absent()), ("POST", forbidden())],
            Err((Code::ClusterForbidden, "create", "namespaces")),
        ),
        (
            "a namespace that another made meanwhile",
            vec![("GET", absent()), ("POST", absent()), ("POST", exists()), ("POST", ours())],
            Ok(ClaimOutcome::Ours),
        ),
        (
            "a namespace that is gone again",
            vec![("GET", absent()), ("POST", absent()), ("POST", namespace()), ("POST", absent())],
            Err((Code::ClusterAnswer, "create", leases)),
        ),
    ];
    for (case, answers, expected) in cases {
        let requests = answers.len();
        let (connection, log) = server(answers);
        let outcome = claim(&connection, &our_claim(4), now()).await;
        assert_eq!(outcome.as_ref().map_err(told), expected.as_ref().map_err(|told| *told), "{case}");
        assert_eq!(log.lock().unwrap().len(), requests, "{case}");
    }
}

#[tokio::test]
async fn a_release_is_tried_again_once_and_a_lease_that_is_gone_needs_none() {
    let ours = || Answer::Json(200, lease("inst-a", Some("up1"), "3", "2026-01-01T11:59:59.000000Z"));
    let conflict = || status(409, "Conflict", "moved");
    let update = |code| Err((code, "update", "leases.coordination.k8s.io"));
    let cases = [
        (
            "another write came first",
            vec![("GET", ours()), ("PUT", conflict()), ("GET", ours()), ("PUT", ours())],
            Ok(()),
        ),
        (
            "other writes came first, twice",
            vec![("GET", ours()), ("PUT", conflict()), ("GET", ours()), ("PUT", conflict())],
            update(Code::ClusterAnswer),
        ),
        ("deleted meanwhile", vec![("GET", ours()), ("PUT", status(404, "NotFound", "none"))], Ok(())),
        ("forbidden", vec![("GET", ours()), ("PUT", status(403, "Forbidden", "no"))], update(Code::ClusterForbidden)),
    ];
    for (case, answers, expected) in cases {
        let requests = answers.len();
        let (connection, log) = server(answers);
        let outcome = release(&connection, &UpgradeId::from("up1")).await;
        assert_eq!(outcome.as_ref().map_err(told), expected.as_ref().map_err(|told| *told), "{case}");
        assert_eq!(log.lock().unwrap().len(), requests, "{case}");
    }
}
