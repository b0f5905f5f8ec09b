//! REST as a client sees it, over a store in memory and a made-up cluster.

mod backup;
mod check;
mod rollback;

use axum::body::Body;
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use futures::StreamExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use shiplock_api::rest::{ClusterView, JoinToken, Page, ProblemBody, UpgradePage, UpgradeView};
use shiplock_core::id::UpgradeId;
use shiplock_core::plan::Plan;
use shiplock_core::problem::Code;
use shiplock_core::upgrade::{Event, EventRecord, PauseReason, State};
use tower::ServiceExt;

use super::access::token_hash;
use super::entrance::Peer;
use super::sample::{self, Bench};
use crate::clusters::Connector;
use crate::store::{AgentRecord, Store};

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn read<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The code of an error, after looking at all that every error has.
    fn code(&self) -> Code {
        let body: ProblemBody = self.read();
        assert_eq!(self.status.as_u16(), body.code.text().http_status, "the status is the code's");
        assert_eq!(self.headers["x-request-id"], body.request_id);
        assert!(!body.message.is_empty() && !body.hints.is_empty());
        body.code
    }
}

impl Bench {
    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 22).await.unwrap().to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        self.ask_with(method, path, body, &[]).await
    }

    async fn ask_with(&self, method: Method, path: &str, body: Option<Value>, headers: &[(&str, &str)]) -> Answer {
        self.send(local(method, path, body, headers)).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(Method::GET, path, None).await
    }

    async fn add_cluster(&self) -> Answer {
        let body = json!({"name": "lab", "kubeconfig": "uid-lab", "mirror": self.mirror_root()});
        self.ask(Method::POST, "/api/v1/clusters", Some(body)).await
    }

    async fn plan(&self) -> Plan {
        let body = serde_json::to_value(sample::request()).unwrap();
        let answer = self.ask(Method::POST, "/api/v1/clusters/lab/plans", Some(body)).await;
        assert_eq!(answer.status, StatusCode::CREATED);
        answer.read()
    }

    async fn create(&self, plan: &Plan, hash: &str, key: &str) -> Answer {
        let body = json!({"plan": plan.id, "plan_hash": hash});
        self.ask_with(Method::POST, "/api/v1/upgrades", Some(body), &[("idempotency-key", key)]).await
    }

    /// A registered cluster with an upgrade, brought to work.
    async fn running(&self) -> UpgradeId {
        self.add_cluster().await;
        let plan = self.plan().await;
        let id = self.create(&plan, &plan.hash, "key").await.read::<UpgradeView>().id;
        self.append(&id, &sample::events_to_running()).await;
        id
    }

    async fn control(&self, id: &UpgradeId, control: &str, headers: &[(&str, &str)]) -> Answer {
        self.ask_with(Method::POST, &format!("/api/v1/upgrades/{id}/{control}"), None, headers).await
    }

    async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Stream {
        let mut headers = headers.to_vec();
        headers.push((ACCEPT.as_str(), "text/event-stream"));
        let response = self.router.clone().oneshot(local(Method::GET, path, None, &headers)).await.unwrap();
        let status = response.status();
        Stream { status, body: Box::pin(response.into_body().into_data_stream()), text: String::new() }
    }
}

fn local(method: Method, path: &str, body: Option<Value>, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = match body {
        Some(body) => {
            request = request.header(CONTENT_TYPE, "application/json");
            Body::from(body.to_string())
        }
        None => Body::empty(),
    };
    request.extension(Peer::Local { uid: 0 }).body(body).unwrap()
}

/// The reading end of server-sent events.
struct Stream {
    status: StatusCode,
    body: std::pin::Pin<Box<axum::body::BodyDataStream>>,
    text: String,
}

impl Stream {
    /// The next event's id, kind and data; none at the end of the stream.
    async fn next(&mut self) -> Option<(u64, String, EventRecord)> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let event = field("id:").map(|id| {
                    let record = serde_json::from_str(field("data:").unwrap()).unwrap();
                    (id.parse().unwrap(), field("event:").unwrap().to_owned(), record)
                });
                self.text = rest.to_owned();
                if event.is_some() {
                    return event;
                }
                continue;
            }
            let chunk = self.body.next().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn rest(&mut self) -> Vec<u64> {
        let mut ids = Vec::new();
        while let Some((id, ..)) = self.next().await {
            ids.push(id);
        }
        ids
    }
}

#[tokio::test]
async fn every_error_has_the_same_body_and_every_answer_names_its_request() {
    let bench = Bench::new().await;
    bench.add_cluster().await;
    let text = |method: Method, path: &str, kind: &str, body: String| {
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, kind);
        request.extension(Peer::Local { uid: 0 }).body(Body::from(body)).unwrap()
    };
    let json = "application/json";
    let table = [
        (text(Method::GET, "/nowhere", json, String::new()), Code::NotFound),
        (text(Method::GET, "/api/v1/nowhere", json, String::new()), Code::NotFound),
        (text(Method::DELETE, "/api/v1/server", json, String::new()), Code::NotFound),
        (text(Method::POST, "/api/v1/clusters", json, "{".to_owned()), Code::BadRequest),
        (text(Method::POST, "/api/v1/clusters", json, "{}".to_owned()), Code::BadRequest),
        (text(Method::POST, "/api/v1/clusters", json, "\u{0}\u{1}".to_owned()), Code::BadRequest),
        (text(Method::POST, "/api/v1/clusters", "text/plain", "{}".to_owned()), Code::BadRequest),
        (text(Method::POST, "/api/v1/clusters", json, "x".repeat(300_000)), Code::TooLarge),
        (text(Method::GET, "/api/v1/clusters/other", json, String::new()), Code::ClusterUnknown),
        (text(Method::DELETE, "/api/v1/clusters/other", json, String::new()), Code::ClusterUnknown),
        (text(Method::GET, "/api/v1/clusters/other/agents", json, String::new()), Code::ClusterUnknown),
        (text(Method::POST, "/api/v1/clusters/other/join-tokens", json, String::new()), Code::ClusterUnknown),
        (text(Method::GET, "/api/v1/plans/p1", json, String::new()), Code::PlanUnknown),
        (text(Method::GET, "/api/v1/upgrades/u1", json, String::new()), Code::UpgradeUnknown),
        (text(Method::GET, "/api/v1/upgrades/u1/events", json, String::new()), Code::UpgradeUnknown),
        (text(Method::POST, "/api/v1/upgrades/u1/pause", json, String::new()), Code::UpgradeUnknown),
        (text(Method::PATCH, "/api/v1/upgrades/u1", json, "{}".to_owned()), Code::BadRequest),
        (text(Method::GET, "/api/v1/upgrades?limit=many", json, String::new()), Code::BadRequest),
        (text(Method::GET, "/api/v1/events?after=-1", json, String::new()), Code::BadRequest),
        (text(Method::GET, "/api/v1/clusters/%FF", json, String::new()), Code::BadRequest),
    ];
    for (request, code) in table {
        let what = format!("{} {}", request.method(), request.uri());
        assert_eq!(bench.send(request).await.code(), code, "{what}");
    }
    let good = bench.get("/api/v1/server").await;
    assert_eq!(good.status, StatusCode::OK);
    assert!(good.headers.contains_key("x-request-id"));
}

#[tokio::test]
async fn the_network_needs_a_token_and_events_record_whose_it_was() {
    let bench = Bench::new().await;
    let id = bench.running().await;
    let network = |path: &str, method: Method, authorization: Option<&str>| {
        let mut request = Request::builder().method(method).uri(path).extension(Peer::Network);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.body(Body::empty()).unwrap()
    };
    for refused in
        [None, Some("Bearer wrong"), Some("Bearer "), Some("the-secret-of-ci"), Some("Basic the-secret-of-ci")]
    {
        for path in ["/api/v1/server", "/nowhere"] {
            let answer = bench.send(network(path, Method::GET, refused)).await;
            assert_eq!(answer.code(), Code::Unauthorized, "{refused:?}");
        }
    }
    let nobody = Request::builder().uri("/api/v1/server").body(Body::empty()).unwrap();
    assert_eq!(bench.send(nobody).await.code(), Code::Unauthorized);

    let pause = network(&format!("/api/v1/upgrades/{id}/pause"), Method::POST, Some("Bearer the-secret-of-ci"));
    assert_eq!(bench.send(pause).await.status, StatusCode::OK);
    let by = |records: Vec<EventRecord>| match records.into_iter().next().unwrap().event {
        Event::PauseRequested { by, .. } | Event::Planned { by, .. } => by,
        other => panic!("{other:?}"),
    };
    assert_eq!(by(bench.store.events(&id, 4, 1).await.unwrap()).as_str(), "ci");
    assert_eq!(by(bench.store.events(&id, 0, 1).await.unwrap()).as_str(), "uid 0 (local)");
}

#[tokio::test]
async fn a_cluster_is_verified_before_it_is_registered_and_only_once() {
    let bench = Bench::new().await;
    let add = async |name: &str, kubeconfig: &str, mirror: Option<&str>| {
        let body = json!({"name": name, "kubeconfig": kubeconfig, "mirror": mirror});
        bench.ask(Method::POST, "/api/v1/clusters", Some(body)).await
    };
    assert_eq!(add("down", "down", None).await.code(), Code::ClusterUnreachable);
    assert_eq!(add("Not/AName", "uid-lab", None).await.code(), Code::BadOption);
    assert_eq!(add("lab", "uid-lab", Some("relative/path")).await.code(), Code::BadOption);
    assert!(bench.get("/api/v1/clusters").await.read::<Page<ClusterView>>().items.is_empty());

    let added = bench.add_cluster().await;
    assert_eq!(added.status, StatusCode::CREATED);
    let view: ClusterView = added.read();
    assert_eq!((view.uid.as_str(), view.server.as_str()), ("uid-lab", "https://uid-lab:6443"));
    assert_eq!(view.pools.len(), 1);
    assert_eq!(view.pools[0].nodes.len(), 2);
    assert_eq!(add("lab", "uid-other", None).await.code(), Code::ClusterNameTaken);
    assert_eq!(add("lab2", "uid-lab", None).await.code(), Code::ClusterRegisteredTwice);

    let record = bench.store.cluster(&bench.cluster()).await.unwrap().unwrap();
    assert!(!record.sealed_kubeconfig.windows(7).any(|window| window == b"uid-lab"), "the kubeconfig is sealed");
    // What was dialled for the registration is used further.
    let dials = bench.dialer.dials.lock().unwrap().len();
    bench.site.clusters.connect(&bench.cluster()).await.unwrap();
    assert_eq!(bench.dialer.dials.lock().unwrap().len(), dials);

    assert_eq!(bench.ask(Method::DELETE, "/api/v1/clusters/lab", None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(bench.get("/api/v1/clusters/lab").await.code(), Code::ClusterUnknown);
    // The name now belongs to another cluster: no old connection is handed out.
    assert_eq!(add("lab", "uid-other", None).await.status, StatusCode::CREATED);
    let facts = bench.site.clusters.connect(&bench.cluster()).await.unwrap().facts().await.unwrap();
    assert_eq!(facts.uid.as_str(), "uid-other");
}

#[tokio::test]
async fn a_cluster_takes_new_credentials_and_another_mirror_and_stays_the_same_cluster() {
    let bench = Bench::new().await;
    bench.add_cluster().await;
    let change = async |body: Value| bench.ask(Method::PATCH, "/api/v1/clusters/lab", Some(body)).await;
    assert_eq!(change(json!({"kubeconfig": "uid-other"})).await.code(), Code::ClusterChanged);
    assert_eq!(change(json!({"kubeconfig": "down"})).await.code(), Code::ClusterUnreachable);
    assert_eq!(change(json!({"mirror": "relative/path"})).await.code(), Code::BadOption);
    assert_eq!(change(json!({"server": "https://other:6443"})).await.code(), Code::BadRequest);
    let before = bench.store.cluster(&bench.cluster()).await.unwrap().unwrap();
    let old = bench.site.clusters.connect(&bench.cluster()).await.unwrap();

    assert_eq!(change(json!({"mirror": "/nowhere/to/be/found"})).await.code(), Code::ArtefactIndexUnreadable);
    let mirror = format!("{}/", bench.mirror_root());
    let view: ClusterView = change(json!({"kubeconfig": "uid-lab", "mirror": mirror})).await.read();
    assert_eq!(view.mirror, Some(mirror));
    let after = bench.store.cluster(&bench.cluster()).await.unwrap().unwrap();
    assert_ne!(after.sealed_kubeconfig, before.sealed_kubeconfig);
    assert_eq!((&after.uid, after.added_at), (&before.uid, before.added_at));
    let new = bench.site.clusters.connect(&bench.cluster()).await.unwrap();
    assert!(!std::sync::Arc::ptr_eq(&old, &new), "who connects from now on has the new credentials");
    let gone = bench.ask(Method::PATCH, "/api/v1/clusters/other", Some(json!({}))).await;
    assert_eq!(gone.code(), Code::ClusterUnknown);
}

#[tokio::test]
async fn only_versions_that_the_mirror_holds_are_offered() {
    let bench = Bench::new().await;
    let view: ClusterView = bench.add_cluster().await.read();
    // The mirror holds what the cluster runs and nothing newer.
    assert!(view.next_versions.is_empty() && view.problem.is_none(), "{view:?}");
    let without = json!({"name": "lab2", "kubeconfig": "uid-lab2"});
    let other: ClusterView = bench.ask(Method::POST, "/api/v1/clusters", Some(without)).await.read();
    assert_eq!(other.next_versions.iter().map(|next| next.release.to_string()).collect::<Vec<_>>(), ["1.36", "1.37"]);
    let missing = json!({"name": "lab3", "kubeconfig": "uid-lab3", "mirror": "/nowhere/to/be/found"});
    let view: ClusterView = bench.ask(Method::POST, "/api/v1/clusters", Some(missing)).await.read();
    assert!(view.next_versions.is_empty() && view.version.is_some());
    assert_eq!(view.problem.unwrap().code, Code::ArtefactIndexUnreadable);
}

#[tokio::test]
async fn a_forgotten_agent_is_not_listed_and_never_while_its_cluster_is_upgraded() {
    let bench = Bench::new().await;
    bench.add_cluster().await;
    let remove =
        async |node: &str| bench.ask(Method::DELETE, &format!("/api/v1/clusters/lab/agents/{node}"), None).await;
    assert_eq!(remove("w9").await.code(), Code::AgentUnknown);
    let machine = shiplock_core::sample::agents(&sample::facts("uid-lab"), Timestamp::now());
    let machine = machine.into_values().next().unwrap().machine;
    let (cluster, enrolled_at) = (bench.cluster(), Timestamp::now());
    let agent =
        AgentRecord { cluster, node: "w9".into(), serial: "0a".to_owned(), machine: (*machine).clone(), enrolled_at };
    bench.store.put_agent(&agent).await.unwrap();
    assert_eq!(remove("w9").await.status, StatusCode::NO_CONTENT);
    assert!(bench.store.agents(&bench.cluster()).await.unwrap().is_empty());
    bench.store.put_agent(&agent).await.unwrap();
    bench.running().await;
    assert_eq!(remove("w9").await.code(), Code::ClusterInUse);
}

#[tokio::test]
async fn a_join_token_is_kept_as_a_hash_and_comes_with_the_whole_command() {
    let bench = Bench::new().await;
    bench.add_cluster().await;
    let answer = bench.ask(Method::POST, "/api/v1/clusters/lab/join-tokens", None).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let token: JoinToken = answer.read();
    let pin = bench.site.authority.ca_pin();
    let expected =
        format!("shiplock-agent join --server https://shiplock.example:7443 --token {} --ca-pin {pin}", token.token);
    assert_eq!(token.command, expected);
    let hours = token.expires_at.duration_since(Timestamp::now()).as_hours();
    assert!((23..=24).contains(&hours), "{hours}");
    let now = Timestamp::now();
    assert_eq!(bench.store.use_join_token(&token.token, now).await.unwrap(), None);
    assert_eq!(bench.store.use_join_token(&token_hash(&token.token), now).await.unwrap(), Some(bench.cluster()));
}

#[tokio::test]
async fn a_plan_that_was_only_tried_is_not_kept_and_one_that_was_made_can_be_started_once() {
    let bench = Bench::new().await;
    bench.add_cluster().await;
    let mut body = serde_json::to_value(sample::request()).unwrap();
    body["dry_run"] = json!(true);
    let tried: Plan = bench.ask(Method::POST, "/api/v1/clusters/lab/plans", Some(body)).await.read();
    assert_eq!(bench.get(&format!("/api/v1/plans/{}", tried.id)).await.code(), Code::PlanUnknown);

    let plan = bench.plan().await;
    assert_eq!(plan.hash, tried.hash, "equal plans have equal hashes");
    assert_eq!(bench.get(&format!("/api/v1/plans/{}", plan.id)).await.read::<Plan>(), plan);
    assert_eq!(bench.create(&plan, "another", "key").await.code(), Code::PlanStale);
    assert_eq!(bench.create(&plan, &plan.hash, "").await.code(), Code::BadRequest);

    let created = bench.create(&plan, &plan.hash, "key").await;
    assert_eq!((created.status, created.headers[ETAG].to_str().unwrap()), (StatusCode::CREATED, "\"1\""));
    let view: UpgradeView = created.read();
    assert_eq!(view.state, State::Planned);
    assert_eq!(*bench.drivers.woken.lock().unwrap(), std::slice::from_ref(&view.id));

    let again = bench.create(&plan, &plan.hash, "key").await;
    assert_eq!((again.status, again.read::<UpgradeView>().id), (StatusCode::OK, view.id.clone()));
    assert_eq!(bench.create(&plan, &plan.hash, "other-key").await.code(), Code::UpgradeActive);
    let other = bench.plan().await;
    assert_eq!(bench.create(&other, &other.hash, "key").await.code(), Code::BadRequest, "the key was for another plan");

    assert_eq!(bench.ask(Method::DELETE, "/api/v1/clusters/lab", None).await.code(), Code::ClusterInUse);
    let cluster: ClusterView = bench.get("/api/v1/clusters/lab").await.read();
    assert_eq!(cluster.upgrade, Some(view.id));
}

#[tokio::test]
async fn a_request_for_a_plan_with_a_field_that_is_not_known_is_refused() {
    let bench = Bench::new().await;
    bench.add_cluster().await;
    let mut body = serde_json::to_value(sample::request()).unwrap();
    body["options"]["max_paralel"] = json!(3);
    let answer = bench.ask(Method::POST, "/api/v1/clusters/lab/plans", Some(body)).await;
    assert_eq!(answer.code(), Code::BadRequest);
}

#[tokio::test]
async fn a_control_that_was_made_for_an_older_state_is_refused_and_one_without_a_state_is_not() {
    let bench = Bench::new().await;
    let id = bench.running().await;
    let shown = bench.get(&format!("/api/v1/upgrades/{id}")).await;
    assert_eq!(shown.headers[ETAG], "\"4\"");
    let if_match = |len: &'static str| [(IF_MATCH.as_str(), len)];
    for stale in ["\"3\"", "\"5\""] {
        let answer = bench.control(&id, "pause", &if_match(stale)).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::PRECONDITION_FAILED, Code::Conflict));
    }
    assert_eq!(bench.control(&id, "pause", &if_match("four")).await.code(), Code::BadRequest);
    assert_eq!(bench.store.upgrade(&id).await.unwrap().unwrap().len, 4, "nothing was appended");

    bench.drivers.woken.lock().unwrap().clear();
    let paused = bench.control(&id, "pause", &if_match("\"4\"")).await;
    assert_eq!((paused.status, paused.headers[ETAG].to_str().unwrap()), (StatusCode::OK, "\"5\""));
    let because = PauseReason::Operator;
    assert!(matches!(paused.read::<UpgradeView>().state, State::Pausing { because: found, .. } if found == because));
    assert_eq!(*bench.drivers.woken.lock().unwrap(), std::slice::from_ref(&id));

    // Asked twice is asked once.
    assert_eq!(bench.control(&id, "pause", &[]).await.headers[ETAG], "\"5\"");
    assert_eq!(bench.control(&id, "continue", &[]).await.read::<UpgradeView>().state, State::Running, "taken back");
    assert_eq!(bench.control(&id, "continue", &[]).await.code(), Code::ControlNotAllowed);
    bench.control(&id, "pause", &[]).await;
    bench.append(&id, &[Event::Paused]).await;
    assert_eq!(bench.control(&id, "continue", &[]).await.read::<UpgradeView>().state, State::Running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn controls_that_race_are_all_recorded_once() {
    let bench = std::sync::Arc::new(Bench::new().await);
    let id = bench.running().await;
    // Each loses to each other one at most once, which is below the bound on attempts.
    let changes = (1..=9).map(|max_parallel| {
        let (bench, path) = (bench.clone(), format!("/api/v1/upgrades/{id}"));
        tokio::spawn(async move {
            bench.ask(Method::PATCH, &path, Some(json!({"max_parallel": max_parallel}))).await.status
        })
    });
    for status in futures::future::join_all(changes).await {
        assert_eq!(status.unwrap(), StatusCode::OK);
    }
    let records = bench.store.events(&id, 4, 100).await.unwrap();
    let mut bounds: Vec<u32> = records
        .iter()
        .map(|record| match record.event {
            Event::MaxParallelChanged { max_parallel, .. } => max_parallel,
            ref other => panic!("{other:?}"),
        })
        .collect();
    bounds.sort_unstable();
    assert_eq!(bounds, (1..=9).collect::<Vec<_>>());
}

#[tokio::test]
async fn upgrades_are_listed_newest_first_in_pages() {
    let bench = Bench::new().await;
    let first = bench.running().await;
    bench.append(&first, &[Event::Succeeded]).await;
    let plan = bench.plan().await;
    let second = bench.create(&plan, &plan.hash, "second").await.read::<UpgradeView>().id;
    let list = async |query: &str| {
        let page: UpgradePage = bench.get(&format!("/api/v1/upgrades{query}")).await.read();
        (page.items.into_iter().map(|view| view.id).collect::<Vec<_>>(), page.next)
    };
    assert_eq!(list("").await, (vec![second.clone(), first.clone()], None));
    assert_eq!(list("?active=true").await.0, std::slice::from_ref(&second));
    assert_eq!(list("?active=false").await.0, std::slice::from_ref(&first));
    assert_eq!(list("?cluster=other").await.0, []);
    let (page, next) = list("?limit=1").await;
    assert_eq!((page, next.as_deref()), (vec![second.clone()], Some(second.as_str())));
    assert_eq!(list(&format!("?limit=1&after={second}")).await.0, [first]);
}

#[tokio::test]
async fn an_unreadable_log_is_listed_with_its_code_and_hides_no_other() {
    let bench = Bench::new().await;
    let broken = bench.running().await;
    // No version can fold a second begin; what a newer version wrote is refused by the store with the same code.
    let plan = bench.plan().await;
    let again = Event::Planned { plan: Box::new(plan.clone()), by: "somebody".into() };
    bench.append(&broken, &[again, Event::Succeeded]).await;
    let good = bench.create(&plan, &plan.hash, "second").await.read::<UpgradeView>().id;
    let page: UpgradePage = bench.get("/api/v1/upgrades").await.read();
    assert_eq!(page.items.iter().map(|view| &view.id).collect::<Vec<_>>(), [&good]);
    let [unreadable] = &page.unreadable[..] else { panic!("{:?}", page.unreadable) };
    assert_eq!((&unreadable.id, &unreadable.cluster), (&broken, &bench.cluster()));
    assert_eq!((unreadable.problem.code, unreadable.len), (Code::LogUnreadable, 6));
    assert_eq!(bench.get(&format!("/api/v1/upgrades/{broken}")).await.code(), Code::LogUnreadable);
}

#[tokio::test]
async fn events_come_in_pages_that_meet() {
    let bench = Bench::new().await;
    let id = bench.running().await;
    let mut numbers = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let page: Page<EventRecord> =
            bench.get(&format!("/api/v1/upgrades/{id}/events?limit=3&after={after}")).await.read();
        numbers.extend(page.items.iter().map(|record| record.number));
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(numbers, [1, 2, 3, 4]);
    let all: Page<EventRecord> = bench.get("/api/v1/events?after=2").await.read();
    assert_eq!(all.items.iter().map(|record| record.position).collect::<Vec<_>>(), [3, 4]);
}

#[tokio::test]
async fn a_stream_resumes_without_losing_or_repeating_and_ends_with_the_upgrade() {
    let bench = Bench::new().await;
    let id = bench.running().await;
    let path = format!("/api/v1/upgrades/{id}/events");
    let mut stream = bench.stream(&path, &[]).await;
    let (number, kind, record) = stream.next().await.unwrap();
    assert_eq!((number, kind.as_str(), record.number), (1, "planned", 1));
    assert_eq!(stream.next().await.unwrap().0, 2);
    drop(stream);

    // The header, which a browser sends by itself, is newer than the address.
    let mut stream = bench.stream(&format!("{path}?after=1"), &[("last-event-id", "2")]).await;
    assert_eq!(stream.next().await.unwrap().0, 3);
    assert_eq!(stream.next().await.unwrap().0, 4);
    let change = Event::MaxParallelChanged { max_parallel: 3, by: "somebody".into() };
    let (event, ()) = tokio::join!(stream.next(), async {
        bench.append(&id, &[change]).await;
    });
    assert_eq!(event.map(|(number, kind, _)| (number, kind)), Some((5, "max_parallel_changed".to_owned())));
    bench.append(&id, &[Event::Succeeded]).await;
    assert_eq!(stream.rest().await, [6], "the stream ends after the last event");

    let mut whole = bench.stream(&path, &[]).await;
    assert_eq!(whole.rest().await, [1, 2, 3, 4, 5, 6]);
    let over = bench.stream(&path, &[("last-event-id", "6")]).await;
    assert_eq!(over.status, StatusCode::NO_CONTENT, "a browser is told not to come back");
    let bad =
        bench.ask_with(Method::GET, &path, None, &[("accept", "text/event-stream"), ("last-event-id", "x")]).await;
    assert_eq!(bad.code(), Code::BadRequest);
}

#[tokio::test]
async fn the_feed_of_all_upgrades_goes_by_position_and_ends_when_the_server_stops() {
    let bench = Bench::new().await;
    let first = bench.running().await;
    let mut stream = bench.stream("/api/v1/events", &[("last-event-id", "3")]).await;
    let (position, _, record) = stream.next().await.unwrap();
    assert_eq!((position, record.upgrade), (4, first.clone()));
    bench.append(&first, &[Event::Succeeded]).await;
    assert_eq!(stream.next().await.unwrap().0, 5);
    let plan = bench.plan().await;
    let second = bench.create(&plan, &plan.hash, "second").await.read::<UpgradeView>().id;
    let (position, _, record) = stream.next().await.unwrap();
    assert_eq!((position, record.upgrade, record.number), (6, second, 1));
    bench.closing.send(true).unwrap();
    assert_eq!(stream.rest().await, [0; 0]);
}

#[tokio::test]
async fn every_route_is_in_the_openapi_document_and_everything_in_it_is_served() {
    let document: Value = serde_json::from_str(include_str!("../../../../openapi/v1.json")).unwrap();
    let mut documented = std::collections::BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        documented.extend(methods.as_object().unwrap().keys().map(|method| (path.clone(), method.to_uppercase())));
    }
    let bench = Bench::new().await;
    let paths: std::collections::BTreeSet<_> = documented.iter().map(|(path, _)| path.clone()).collect();
    for path in paths {
        let asked = path.replace("{name}", "lab").replace("{id}", "u1");
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let answer = bench.ask(method.clone(), &asked, None).await;
            // What is there may well not know the cluster or upgrade; only what is not there has this code.
            let served = answer.status.is_success() || answer.code() != Code::NotFound;
            let in_document = documented.contains(&(path.clone(), method.to_string()));
            assert_eq!(served, in_document, "{method} {path}: served {served}, in the document {in_document}");
        }
    }
    // A route can be added through the list of operations only; the document has all of it.
    let operations = shiplock_api::operation::Operation::ALL.iter();
    let listed = operations.map(|operation| {
        (format!("{}{}", shiplock_api::operation::ROOT, operation.path()), operation.method().word().to_owned())
    });
    assert_eq!(documented, listed.collect());
}
