use std::sync::Mutex;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};
use shiplock_core::problem::Code;

use super::*;
use crate::mock::{Answer, Asked, Log, api, status};

fn map(name: &str, data: &str, version: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"value": data},
        "metadata": {"namespace": "shop", "name": name, "resourceVersion": version.to_string()}})
}

fn page(items: Vec<Value>, version: u32, more: &str) -> Answer {
    let metadata = json!({"resourceVersion": version.to_string(), "continue": more});
    Answer::Json(200, json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": items}))
}

fn change(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn source(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Source<ConfigMap, String>, Log) {
    let (connection, log) = api(answer);
    let keep = |map: ConfigMap| map.data?.remove("value").filter(|value| value != "drop");
    let api = Api::all(connection.client.clone());
    (Source { connection, api, resource: "configmaps", keep }, log)
}

fn is_watch(asked: &Asked) -> bool {
    asked.query.contains("watch=true")
}

/// A server that gives these answers to lists and watches in turn, and holds the last watch open.
fn script(lists: Vec<Answer>, watches: Vec<Answer>) -> (Source<ConfigMap, String>, Log) {
    let (lists, watches) = (Mutex::new(lists), Mutex::new(watches));
    source(move |asked| {
        let mut answers = if is_watch(asked) { watches.lock().unwrap() } else { lists.lock().unwrap() };
        if answers.is_empty() { Answer::Open(Vec::new()) } else { answers.remove(0) }
    })
}

fn values(cache: &Cache<String>) -> Vec<String> {
    cache.look(|items| items.iter().map(|(key, value)| format!("{key}={value}")).collect())
}

/// Waits until the cache is as wanted; time is paused, so that a wait that never ends fails at once.
async fn until(cache: &Cache<String>, wanted: impl Fn(&Cache<String>) -> bool) {
    let wait = async {
        while !wanted(cache) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(600), wait).await.expect("the cache never became as wanted");
}

fn is_current(cache: &Cache<String>) -> bool {
    matches!(cache.judge(Timestamp::MAX), Some(Ok(until)) if until == Timestamp::MAX)
}

fn follow(source: Source<ConfigMap, String>) -> (Arc<Cache<String>>, Arc<Changes>, tokio::task::JoinSet<()>) {
    let changes = Changes::new();
    let cache = Cache::new(&changes);
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(source.follow(cache.clone()));
    (cache, changes, tasks)
}

#[tokio::test(start_paused = true)]
async fn a_list_in_pages_is_followed_by_its_changes() {
    let lists =
        vec![page(vec![map("a", "1", 5), map("x", "drop", 6)], 10, "next"), page(vec![map("b", "1", 7)], 10, "")];
    let watch = Answer::Open(vec![
        change("ADDED", map("c", "1", 11)),
        change("MODIFIED", map("a", "2", 12)),
        change("MODIFIED", map("b", "drop", 13)),
        change("DELETED", map("c", "1", 14)),
        change("ADDED", map("d", "1", 15)),
    ]);
    let (source, log) = script(lists, vec![watch]);
    let (cache, _, _tasks) = follow(source);
    assert!(cache.judge(Timestamp::MAX).is_none(), "nothing is known before the first list");
    until(&cache, |cache| values(cache) == ["shop/a=2", "shop/d=1"]).await;
    assert!(is_current(&cache));
    let log = log.lock().unwrap();
    assert!(log[0].query.contains("limit=500") && log[1].query.contains("continue=next"));
    assert!(is_watch(&log[2]) && log[2].query.contains("resourceVersion=10"), "{}", log[2].query);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_in_time_goes_on_from_its_last_version() {
    let bookmark = json!({"type": "BOOKMARK", "object": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": "40"}}});
    let watches = vec![Answer::Lines(vec![change("ADDED", map("b", "1", 12)), bookmark])];
    let (source, log) = script(vec![page(vec![map("a", "1", 5)], 10, "")], watches);
    let (cache, _, _tasks) = follow(source);
    until(&cache, |_| log.lock().unwrap().len() == 3).await;
    until(&cache, is_current).await;
    assert!(log.lock().unwrap()[2].query.contains("resourceVersion=40"));
    assert_eq!(values(&cache), ["shop/a=1", "shop/b=1"]);
}

#[tokio::test(start_paused = true)]
async fn an_expired_watch_lists_anew_and_forgets_what_is_gone() {
    let gone = json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"}});
    for expired in [Answer::Lines(vec![gone]), status(410, "Expired", "too old")] {
        let lists = vec![page(vec![map("a", "1", 5), map("b", "1", 6)], 10, ""), page(vec![map("b", "2", 60)], 70, "")];
        let (source, _) = script(lists, vec![expired]);
        let (cache, _, _tasks) = follow(source);
        until(&cache, |cache| values(cache) == ["shop/b=2"] && is_current(cache)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_cache_says_until_when_it_is_good_and_after_a_while_why_it_is_not() {
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = broken.clone();
    let (source, _) = source(move |asked| match (switch.load(std::sync::atomic::Ordering::SeqCst), is_watch(asked)) {
        (true, _) => Answer::Broken,
        (false, true) => Answer::Lines(Vec::new()),
        (false, false) => page(vec![map("a", "1", 5)], 10, ""),
    });
    let (cache, changes, _tasks) = follow(source);
    until(&cache, is_current).await;
    let before = changes.count();
    broken.store(true, std::sync::atomic::Ordering::SeqCst);
    until(&cache, |cache| !is_current(cache)).await;
    assert!(
        matches!(cache.judge(Timestamp::MAX), Some(Ok(until)) if until < Timestamp::MAX),
        "it is tolerated for a while"
    );
    assert!(changes.count() > before);
    let begun = Instant::now();
    until(&cache, |cache| matches!(cache.judge(Timestamp::MAX), Some(Err(_)))).await;
    assert!(begun.elapsed() >= BROKEN_TOLERANCE - Duration::from_millis(20));
    assert_eq!(cache.judge(Timestamp::MAX).unwrap().unwrap_err().code, Code::ClusterUnreachable);
    broken.store(false, std::sync::atomic::Ordering::SeqCst);
    until(&cache, is_current).await;
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_refused_is_told_at_once() {
    let (source, _) = source(|_| status(403, "Forbidden", "no"));
    let (cache, _, _tasks) = follow(source);
    until(&cache, |cache| cache.judge(Timestamp::MAX).is_some()).await;
    let problem = cache.judge(Timestamp::MAX).unwrap().unwrap_err();
    let parameters = (problem.parameters["verb"].as_str(), problem.parameters["resource"].as_str());
    assert_eq!((problem.code, parameters), (Code::ClusterForbidden, ("list", "configmaps")));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_falls_silent_is_not_taken_for_quiet() {
    let (source, log) = script(vec![page(Vec::new(), 10, "")], Vec::new());
    let (cache, _, _tasks) = follow(source);
    until(&cache, |_| log.lock().unwrap().iter().filter(|asked| is_watch(asked)).count() >= 2).await;
    assert!(log.lock().unwrap()[1].query.contains("timeoutSeconds=60"));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_changes_no_fact_wakes_nobody() {
    let watch = Answer::Open(vec![
        change("MODIFIED", map("a", "1", 11)),
        change("ADDED", map("x", "drop", 12)),
        change("ADDED", map("b", "1", 13)),
    ]);
    let (source, _) = script(vec![page(vec![map("a", "1", 5)], 10, "")], vec![watch]);
    let (cache, changes, _tasks) = follow(source);
    until(&cache, |cache| values(cache).len() == 2).await;
    assert_eq!(changes.count(), 3, "the list, the connection, and one new item");
}
