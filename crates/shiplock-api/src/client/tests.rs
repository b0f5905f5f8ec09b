//! The client against a stand-in for the server: a Unix socket that gives canned answers, one after the other.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use shiplock_core::id::{ClusterName, UpgradeId};
use shiplock_core::problem::{Code, Problem};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

use super::{Client, Endpoint, EventFeed, FeedOptions, UpgradeQuery};
use crate::rest::{ProblemBody, UpgradeCreate};

/// One canned answer. An empty one closes the connection without a word.
type Canned = String;

struct StandIn {
    path: PathBuf,
    requests: Arc<Mutex<Vec<String>>>,
    _directory: tempfile::TempDir,
}

impl StandIn {
    /// Answers connections in order; each carries one exchange.
    fn answering(answers: Vec<Canned>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let heard = requests.clone();
        tokio::spawn(async move {
            for answer in answers {
                let (mut connection, _) = listener.accept().await.unwrap();
                let request = read_request(&mut connection).await;
                heard.lock().unwrap().push(request);
                let _ = connection.write_all(answer.as_bytes()).await;
            }
            // Later connections are refused: the listener is dropped.
        });
        Self { path, requests, _directory: directory }
    }

    fn client(&self) -> Client {
        Client::new(Endpoint::Socket(self.path.clone()), None, None).unwrap()
    }

    fn feed(&self, after: u64) -> EventFeed {
        let options = FeedOptions {
            first_wait: Duration::from_millis(1),
            longest_wait: Duration::from_millis(2),
            patience: Duration::from_secs(60),
            poll_every: Duration::from_millis(1),
            silence: Duration::from_secs(60),
        };
        self.client().follow(&UpgradeId::from("u1"), after, options)
    }

    fn heard(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

async fn read_request(connection: &mut UnixStream) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&request).to_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.trim().parse().unwrap()) {
                return String::from_utf8(request).unwrap();
            }
        }
        match connection.read(&mut buffer).await.unwrap() {
            0 => return String::from_utf8(request).unwrap(),
            read => request.extend_from_slice(&buffer[..read]),
        }
    }
}

fn answer(status: &str, kind: &str, body: &str) -> Canned {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}")
}

fn ok(body: &serde_json::Value) -> Canned {
    answer("200 OK", "application/json", &body.to_string())
}

fn refusal(problem: Problem) -> Canned {
    let body = ProblemBody::new(problem, "r-1".to_owned());
    answer(&format!("{} X", body.code.text().http_status), "application/json", &serde_json::to_string(&body).unwrap())
}

/// A stream that is cut after what it says: its length promises more.
fn stream(events: &str) -> Canned {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 99999\r\n\r\n{events}")
}

fn event(number: u64, kind: &str) -> serde_json::Value {
    let data = match kind {
        "stage_started" => json!({"stage": 0}),
        _ => serde_json::Value::Null,
    };
    json!({"upgrade": "u1", "number": number, "position": number * 3, "at": "2026-11-23T14:00:00Z", "epoch": 1,
        "kind": kind, "data": data})
}

fn sse(number: u64, kind: &str) -> String {
    format!("id: {number}\nevent: {kind}\ndata: {}\n\n", event(number, kind))
}

fn page(numbers: std::ops::RangeInclusive<u64>) -> Canned {
    let items: Vec<_> = numbers.map(|number| event(number, "stage_started")).collect();
    ok(&json!({"items": items, "next": null}))
}

async fn numbers(mut feed: EventFeed) -> Result<Vec<u64>, Problem> {
    let mut numbers = Vec::new();
    while let Some(record) = feed.next().await {
        numbers.push(record?.number);
    }
    Ok(numbers)
}

#[tokio::test]
async fn a_problem_of_the_server_comes_back_with_its_code_and_parameters() {
    let problem = Problem::new(Code::ClusterUnknown).with("cluster", "prod");
    let server = StandIn::answering(vec![refusal(problem.clone())]);
    assert_eq!(server.client().cluster(&ClusterName::from("prod")).await.unwrap_err(), problem);
    assert!(server.heard()[0].starts_with("GET /api/v1/clusters/prod HTTP/1.1\r\n"), "{:?}", server.heard());
}

#[tokio::test]
async fn answers_that_make_no_sense_are_told_apart() {
    let newer = json!({"code": "UPG9999", "message": "something new", "causes": [], "hints": [], "request_id": "r",
        "problem": {"code": "UPG9999"}});
    let cases = [
        (answer("200 OK", "text/html", "<html>"), Code::AnswerUnreadable, "expected value"),
        (answer("409 Conflict", "application/json", &newer.to_string()), Code::AnswerUnreadable, "something new"),
        (answer("502 Bad Gateway", "text/html", "<html>nginx"), Code::ServerUnreachable, "502 Bad Gateway"),
        (answer("401 Unauthorized", "text/plain", "no"), Code::Unauthorized, "HTTP 401"),
        (String::new(), Code::ServerUnreachable, ""),
    ];
    for (canned, code, cause) in cases {
        let problem = StandIn::answering(vec![canned.clone()]).client().server().await.unwrap_err();
        assert_eq!(problem.code, code, "{canned}");
        assert!(problem.causes.join(" ").contains(cause), "{problem}");
    }
}

#[tokio::test]
async fn no_server_is_said_with_its_address() {
    let client = Client::new(Endpoint::parse("/nowhere/shiplock.sock").unwrap(), None, None).unwrap();
    let problem = client.server().await.unwrap_err();
    assert_eq!(problem.code, Code::ServerUnreachable);
    assert_eq!(problem.parameters["server"], "unix:///nowhere/shiplock.sock");
}

#[tokio::test]
async fn names_are_escaped_and_queries_are_built() {
    let empty = || ok(&json!({"items": [], "next": null}));
    let server = StandIn::answering(vec![empty(), empty()]);
    server.client().agents(&ClusterName::from("a/../b c?d")).await.unwrap();
    let query = UpgradeQuery { cluster: Some("a&b".into()), active: Some(true), limit: Some(2), after: None };
    server.client().upgrades(&query).await.unwrap();
    let heard = server.heard();
    assert!(heard[0].starts_with("GET /api/v1/clusters/a%2F..%2Fb%20c%3Fd/agents HTTP"), "{}", heard[0]);
    assert!(heard[1].starts_with("GET /api/v1/upgrades?cluster=a%26b&active=true&limit=2 HTTP"), "{}", heard[1]);
}

#[tokio::test]
async fn a_lost_answer_to_a_start_is_asked_for_again_under_the_same_key() {
    let problem = Problem::new(Code::PlanUnknown).with("plan", "p1");
    let server = StandIn::answering(vec![String::new(), refusal(problem.clone())]);
    let create = UpgradeCreate { plan: "p1".into(), plan_hash: "h".to_owned() };
    assert_eq!(server.client().start_upgrade(&create, "key-7").await.unwrap_err(), problem);
    let heard = server.heard();
    assert_eq!(heard.len(), 2);
    assert!(heard.iter().all(|request| request.to_lowercase().contains("idempotency-key: key-7")), "{heard:?}");
}

#[tokio::test]
async fn a_control_names_the_event_that_was_seen() {
    let problem = Problem::new(Code::Conflict).with("upgrade", "u1").with("expected", 17).with("found", 18);
    let server = StandIn::answering(vec![refusal(problem)]);
    let conflict = server.client().pause(&UpgradeId::from("u1"), Some(17)).await.unwrap_err();
    assert_eq!(conflict.code, Code::Conflict);
    assert!(server.heard()[0].to_lowercase().contains("if-match: \"17\""), "{:?}", server.heard());
}

#[test]
fn a_token_never_leaves_this_machine_in_the_clear() {
    for (server, allowed) in [
        ("https://shiplock.example:8443", true),
        ("http://127.0.0.1:8080", true),
        ("http://[::1]:8080", true),
        ("http://localhost:8080", true),
        ("/run/shiplock.sock", true),
        ("http://shiplock.example:8080", false),
        ("http://10.0.0.1", false),
    ] {
        let client = Client::new(Endpoint::parse(server).unwrap(), Some("secret".to_owned()), None);
        assert_eq!(client.is_ok(), allowed, "{server}");
    }
}

#[test]
fn endpoints_are_read_and_nonsense_is_refused() {
    for (text, shown) in [
        ("/run/s.sock", Some("unix:///run/s.sock")),
        ("unix:///run/s.sock", Some("unix:///run/s.sock")),
        ("https://h:1/", Some("https://h:1/")),
        ("ftp://h", None),
        ("h:8443", None),
        ("", None),
    ] {
        assert_eq!(Endpoint::parse(text).ok().map(|endpoint| endpoint.to_string()).as_deref(), shown, "{text}");
    }
}

#[tokio::test]
async fn the_feed_survives_cuts_repeats_and_holes_without_losing_or_repeating() {
    let server = StandIn::answering(vec![
        // Cut in the middle of event 3.
        stream(&(sse(1, "stage_started") + &sse(2, "stage_started") + "id: 3\ndata: {\"upg")),
        // The server is away for a moment.
        String::new(),
        // Repeats 2, then leaves 3 and 4 out.
        stream(&(sse(2, "stage_started") + &sse(5, "stage_started"))),
        // The hole is filled from pages, until there is no more.
        page(3..=4),
        page(5..=5),
        ok(&json!({"items": [], "next": null})),
        stream(&sse(6, "succeeded")),
    ]);
    assert_eq!(numbers(server.feed(0)).await.unwrap(), [1, 2, 3, 4, 5, 6]);
    let heard = server.heard();
    for (request, last) in [(0, 0), (1, 2), (2, 2), (6, 5)] {
        let expected = format!("last-event-id: {last}\r\n");
        assert!(heard[request].to_lowercase().contains(&expected), "request {request}: {}", heard[request]);
    }
}

#[tokio::test]
async fn the_feed_begins_where_the_reader_left() {
    let server = StandIn::answering(vec![stream(&(sse(8, "stage_started") + &sse(9, "cancelled")))]);
    assert_eq!(numbers(server.feed(7)).await.unwrap(), [8, 9]);
}

#[tokio::test]
async fn a_feed_that_has_nothing_to_come_ends() {
    let server = StandIn::answering(vec!["HTTP/1.1 204 No Content\r\n\r\n".to_owned()]);
    assert_eq!(numbers(server.feed(9)).await.unwrap(), [0; 0]);
}

#[tokio::test]
async fn where_there_is_no_stream_the_feed_reads_pages() {
    let end = ok(&json!({"items": [event(3, "expired")], "next": null}));
    for first in [answer("406 Not Acceptable", "text/plain", ""), page(1..=1)] {
        let server = StandIn::answering(vec![first, page(1..=2), ok(&json!({"items": [], "next": null})), end.clone()]);
        assert_eq!(numbers(server.feed(0)).await.unwrap(), [1, 2, 3]);
    }
}

#[tokio::test]
async fn a_stream_that_something_swallows_is_given_up_for_pages() {
    // The stream stays open and silent; its length promises more. The stand-in would close it, so two of them.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let standing = tokio::spawn(async move {
        let (mut silent, _) = listener.accept().await.unwrap();
        read_request(&mut silent).await;
        silent.write_all(stream("").as_bytes()).await.unwrap();
        let end = ok(&json!({"items": [event(2, "succeeded")], "next": null}));
        for canned in [page(1..=1), end] {
            let (mut connection, _) = listener.accept().await.unwrap();
            read_request(&mut connection).await;
            connection.write_all(canned.as_bytes()).await.unwrap();
        }
        drop(silent);
    });
    let options = FeedOptions { silence: Duration::from_millis(200), ..FeedOptions::default() };
    let client = Client::new(Endpoint::Socket(path), None, None).unwrap();
    assert_eq!(numbers(client.follow(&UpgradeId::from("u1"), 0, options)).await.unwrap(), [1, 2]);
    standing.await.unwrap();
}

#[tokio::test]
async fn a_refusal_and_a_log_with_a_hole_end_the_feed_with_the_problem() {
    let unknown = Problem::new(Code::UpgradeUnknown).with("upgrade", "u1");
    let server = StandIn::answering(vec![refusal(unknown.clone())]);
    assert_eq!(numbers(server.feed(0)).await.unwrap_err(), unknown);

    let server = StandIn::answering(vec![stream(&sse(5, "stage_started")), page(4..=5)]);
    let problem = numbers(server.feed(0)).await.unwrap_err();
    assert_eq!((problem.code, problem.parameters["number"].as_str()), (Code::LogUnreadable, "1"));
}

#[tokio::test]
async fn patience_ends() {
    let client = Client::new(Endpoint::parse("/nowhere/shiplock.sock").unwrap(), None, None).unwrap();
    let options = FeedOptions {
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(1),
        patience: Duration::from_millis(20),
        ..FeedOptions::default()
    };
    let mut feed = client.follow(&UpgradeId::from("u1"), 0, options);
    assert_eq!(feed.next().await.unwrap().unwrap_err().code, Code::ServerUnreachable);
    assert!(feed.next().await.is_none());
}
