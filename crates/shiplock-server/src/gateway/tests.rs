//! The gateway as agents meet it: real TLS over loopback.

mod backup;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rcgen::KeyPair;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use shiplock_api::agent::{
    Assignment, AssignmentId, ENROL_PATH, EnrolResponse, PERMIT_PATH, POLL_PATH, PermitResponse, PollResponse,
    REPORT_PATH, ReportResponse,
};
use shiplock_api::rest::ProblemBody;
use shiplock_core::facts::MachineFacts;
use shiplock_core::id::{ClusterName, Epoch, Generation, NodeName, StepNumber, UpgradeId};
use shiplock_core::problem::Code;
use shiplock_core::step::Action;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;
use crate::http::connection::{Limits, serve};
use crate::http::sample;
use crate::hub::AgentMessage;
use crate::seal::Seal;
use crate::store::{ClusterRecord, MemoryStore, NewUpgrade};

/// A gateway that listens.
struct Bench {
    address: SocketAddr,
    store: Arc<MemoryStore>,
    hub: Arc<AgentHub>,
    authority: Arc<Authority>,
    backups: Arc<Backups>,
    closing: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

/// Cluster `lab` has a node `known` whose machine is another one than every agent here; cluster `other` is away.
struct Clusters;

#[async_trait]
impl Connector for Clusters {
    async fn connect(&self, cluster: &ClusterName) -> Result<Arc<dyn shiplock_cluster::port::Cluster>, Problem> {
        if cluster.as_str() != "lab" {
            return Err(Problem::new(Code::ClusterUnreachable).with("server", "https://other:6443"));
        }
        let mut facts = sample::facts("uid-lab");
        let (_, mut node) = facts.nodes.pop_first().unwrap();
        node.machine_id = "another".into();
        facts.nodes = [("known".into(), node)].into();
        Ok(Arc::new(sample::FakeCluster { facts, rests: Arc::default() }))
    }
}

/// What an agent has after its enrolment.
struct Enrolment {
    answer: EnrolResponse,
    key: KeyPair,
}

/// A refusal: the status and the code.
type Refusal = (u16, Code);

impl Bench {
    async fn new() -> Self {
        Self::with_limits(Limits::new(100)).await
    }

    async fn with_limits(limits: Limits) -> Self {
        Self::with(limits, SignedDuration::from_hours(90 * 24)).await
    }

    async fn with(limits: Limits, agent_life: SignedDuration) -> Self {
        let store = Arc::new(MemoryStore::new());
        for name in ["lab", "other"] {
            let record = ClusterRecord {
                name: name.into(),
                uid: format!("uid-{name}").as_str().into(),
                server: String::new(),
                sealed_kubeconfig: Vec::new(),
                mirror: None,
                added_at: Timestamp::now(),
            };
            store.add_cluster(&record).await.unwrap();
        }
        let seal = Arc::new(Seal::ephemeral());
        let authority = Authority::open(&*store, &seal, Timestamp::now()).await.unwrap();
        let authority = Arc::new(authority.with_agent_life(agent_life));
        let backups = Arc::new(Backups::temporary(&std::env::temp_dir(), seal).unwrap());
        let hub = Arc::new(AgentHub::default());
        let (closing, closed) = watch::channel(false);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let entrance = AgentEntrance::new(listener, &authority, &["127.0.0.1".to_owned()], Timestamp::now()).unwrap();
        let router = router(Arc::new(Gateway {
            store: store.clone(),
            hub: hub.clone(),
            enrolled: Arc::new(Enrolled::default()),
            authority: authority.clone(),
            clusters: Arc::new(Clusters),
            backups: backups.clone(),
            closing: closed.clone(),
        }));
        let serving = tokio::spawn(serve(entrance, router, limits, closed));
        Self { address, store, hub, authority, backups, closing, serving }
    }

    fn client(&self, identity: Option<(&str, &KeyPair)>) -> reqwest::Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate().clone()).unwrap();
        let builder =
            ClientConfig::builder_with_provider(tls_provider()).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let configuration = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        reqwest::Client::builder().tls_backend_preconfigured(configuration).no_proxy().build().unwrap()
    }

    async fn post<T: serde::de::DeserializeOwned>(
        &self,
        client: &reqwest::Client,
        path: &str,
        body: impl Into<reqwest::Body>,
    ) -> Result<T, Refusal> {
        let url = format!("https://{}{path}", self.address);
        let request = client.post(url).header("content-type", "application/json").body(body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let body = response.bytes().await.unwrap();
        if status == 200 {
            return Ok(serde_json::from_slice(&body).unwrap());
        }
        let body: ProblemBody = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, body.code.text().http_status);
        Err((status, body.code))
    }

    async fn token(&self, cluster: &str) -> String {
        let token = crate::http::name::random_name("", 20);
        let expires_at = Timestamp::now() + Duration::from_secs(3600);
        self.store.add_join_token(&token_hash(&token), &cluster.into(), expires_at).await.unwrap();
        token
    }

    async fn enrol(&self, cluster: &str, node: &str) -> Enrolment {
        let key = KeyPair::generate().unwrap();
        let request = enrol_request(&self.token(cluster).await, node, &key);
        let answer = self.post(&self.client(None), ENROL_PATH, request.to_string()).await.unwrap();
        Enrolment { answer, key }
    }

    fn agent(&self, enrolment: &Enrolment) -> reqwest::Client {
        self.client(Some((&enrolment.answer.certificate_pem, &enrolment.key)))
    }

    async fn poll(&self, client: &reqwest::Client, node: &str) -> Result<PollResponse, Refusal> {
        self.post(client, POLL_PATH, poll_request(node, Some("v1")).to_string()).await
    }

    /// An upgrade of a cluster, so that its agents have one to speak of.
    async fn upgrade(&self, cluster: &str) -> UpgradeId {
        let plan = shiplock_core::plan::Plan { cluster: cluster.into(), ..(*sample::upgrade().plan).clone() };
        let id = UpgradeId::new(format!("u{cluster}"));
        let event = shiplock_core::upgrade::Event::Planned { plan: Box::new(plan), by: "somebody".into() };
        let (cluster, now) = (ClusterName::from(cluster), Timestamp::now());
        let new = NewUpgrade { id: id.clone(), cluster, event, now, idempotency_key: None };
        self.store.create_upgrade(&new).await.unwrap();
        id
    }

    async fn end(&self, upgrade: &UpgradeId) {
        let now = Timestamp::now();
        let by = "somebody".into();
        let cancel = shiplock_core::upgrade::Event::CancelRequested { by, abandon: Vec::new() };
        self.store.append_request(upgrade, 1, now, &[cancel]).await.unwrap();
        let wanted = [crate::store::LeaseWanted { upgrade: upgrade.clone(), expected_len: 2 }];
        let taken = self.store.take_leases(&wanted, "a driver", now, 15).await.unwrap().remove(0).unwrap();
        let ended = [shiplock_core::upgrade::Event::Cancelled];
        self.store.append(upgrade, 3, taken.lease.epoch, now, &ended).await.unwrap();
    }
}

fn enrol_request(token: &str, node: &str, key: &KeyPair) -> Value {
    let csr = rcgen::CertificateParams::default().serialize_request(key).unwrap().pem().unwrap();
    json!({"protocol": 1, "token": token, "node": node, "csr_pem": csr, "machine": machine_of(node, "v1")})
}

/// Each node is a machine of its own.
fn machine_of(node: &str, version: &str) -> MachineFacts {
    MachineFacts { machine_id: format!("machine of {node}").into(), ..sample::machine(version) }
}

fn poll_request(node: &str, machine: Option<&str>) -> Value {
    json!({"protocol": 1, "node": node, "machine": machine.map(|version| machine_of(node, version)), "in_work": null})
}

fn assignment_id(upgrade: &UpgradeId) -> AssignmentId {
    let generation = Generation { epoch: Epoch(1), intent: 5 };
    AssignmentId { upgrade: upgrade.clone(), step: StepNumber(2), generation }
}

fn permit_request(upgrade: &UpgradeId, node: &str) -> String {
    let mut request = serde_json::to_value(assignment_id(upgrade)).unwrap();
    request["node"] = json!(node);
    request["phase"] = json!("installing");
    request.to_string()
}

fn report(upgrade: &UpgradeId, node: &str) -> String {
    let mut report = serde_json::to_value(assignment_id(upgrade)).unwrap();
    report["node"] = json!(node);
    report["report"] = json!("progress");
    report["phase"] = json!("downloading");
    report.to_string()
}

#[tokio::test]
async fn an_agent_is_enrolled_and_then_gets_work_asks_for_permits_and_reports() {
    let bench = Bench::new().await;
    let enrolment = bench.enrol("lab", "w1").await;
    assert_eq!(enrolment.answer.cluster.as_str(), "lab");
    assert_eq!(enrolment.answer.ca_pem, bench.authority.certificate_pem());
    let record = bench.store.agents(&"lab".into()).await.unwrap().remove(0);
    assert_eq!((record.node.as_str(), &record.machine), ("w1", &machine_of("w1", "v1")));
    let agent = bench.agent(&enrolment);

    // After a restart of the server the hub knows no machine; the agent is told at once.
    let nothing: PollResponse = bench.post(&agent, POLL_PATH, poll_request("w1", None).to_string()).await.unwrap();
    assert!(nothing.send_machine && nothing.assignment.is_none());

    let upgrade = bench.upgrade("lab").await;
    let offer = offer_to("w1", &upgrade);
    bench.hub.offer(&"lab".into(), offer.clone());
    let work: PollResponse = bench.post(&agent, POLL_PATH, poll_request("w1", Some("v2")).to_string()).await.unwrap();
    assert_eq!(work.assignment, Some(offer));
    assert!(!work.send_machine);
    let record = bench.store.agents(&"lab".into()).await.unwrap().remove(0);
    assert_eq!(record.machine, machine_of("w1", "v2"), "a changed machine is kept");

    // Without a driver there is no permit, and a report is to be repeated.
    let refused: PermitResponse = bench.post(&agent, PERMIT_PATH, permit_request(&upgrade, "w1")).await.unwrap();
    assert!(matches!(refused, PermitResponse::Refused { problem } if problem.code == Code::PermitRefused));
    let repeat = bench.post::<ReportResponse>(&agent, REPORT_PATH, report(&upgrade, "w1")).await;
    assert_eq!(repeat.unwrap_err(), (503, Code::ReportNotRecorded));

    let mut messages = bench.hub.attach(&upgrade, &"lab".into());
    let driver = tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            match message {
                AgentMessage::Permit { answer, .. } => answer.send(PermitResponse::Granted).unwrap(),
                AgentMessage::Report { answer, .. } => answer.send(Some(ReportResponse::Taken)).unwrap(),
                AgentMessage::Contact => {}
            }
        }
    });
    let granted: PermitResponse = bench.post(&agent, PERMIT_PATH, permit_request(&upgrade, "w1")).await.unwrap();
    assert_eq!(granted, PermitResponse::Granted);
    let taken: ReportResponse = bench.post(&agent, REPORT_PATH, report(&upgrade, "w1")).await.unwrap();
    assert_eq!(taken, ReportResponse::Taken);
    driver.abort();

    // A node that comes back late must not repeat for ever what nobody waits for.
    bench.hub.detach(&upgrade);
    bench.end(&upgrade).await;
    let late: ReportResponse = bench.post(&agent, REPORT_PATH, report(&upgrade, "w1")).await.unwrap();
    assert_eq!(late, ReportResponse::NotWanted);
}

#[tokio::test]
async fn a_token_enrols_once_and_is_not_used_up_by_a_request_that_is_wrong() {
    let bench = Bench::new().await;
    let stranger = bench.client(None);
    let token = bench.token("lab").await;
    let key = KeyPair::generate().unwrap();
    let good = enrol_request(&token, "w1", &key);
    let with = |field: &str, value: Value| {
        let mut request = good.clone();
        request[field] = value;
        request.to_string()
    };
    let table = [
        ("{".to_owned(), Code::BadRequest),
        ("{}".to_owned(), Code::BadRequest),
        ("[]".to_owned(), Code::BadRequest),
        ("\u{0}".to_owned(), Code::BadRequest),
        (json!({"protocol": 99, "of": "the future"}).to_string(), Code::ProtocolUnsupported),
        (with("protocol", json!(0)), Code::ProtocolUnsupported),
        (with("protocol", json!(-1)), Code::BadRequest),
        (with("node", json!("../w1")), Code::BadRequest),
        (with("node", json!("W1")), Code::BadRequest),
        (with("node", json!("")), Code::BadRequest),
        (with("csr_pem", json!("garbage")), Code::BadRequest),
        (with("machine", json!({})), Code::BadRequest),
        (with("token", json!("unknown")), Code::TokenRefused),
        (with("token", json!(token_hash(&token))), Code::TokenRefused),
        ("x".repeat(300 * 1024), Code::TooLarge),
    ];
    for (request, code) in table {
        let shown: String = request.chars().take(60).collect();
        let answer = bench.post::<EnrolResponse>(&stranger, ENROL_PATH, request).await;
        assert_eq!(answer.unwrap_err().1, code, "{shown}");
    }
    assert!(bench.store.agents(&"lab".into()).await.unwrap().is_empty());
    bench.post::<EnrolResponse>(&stranger, ENROL_PATH, good.to_string()).await.unwrap();
    let again = bench.post::<EnrolResponse>(&stranger, ENROL_PATH, good.to_string()).await;
    assert_eq!(again.unwrap_err(), (401, Code::TokenRefused));

    let over = "over-already";
    let before = Timestamp::now() - Duration::from_secs(1);
    bench.store.add_join_token(&token_hash(over), &"lab".into(), before).await.unwrap();
    let late = bench.post::<EnrolResponse>(&stranger, ENROL_PATH, enrol_request(over, "w1", &key).to_string()).await;
    assert_eq!(late.unwrap_err().1, Code::TokenRefused);
}

#[tokio::test]
async fn an_agent_speaks_for_its_own_node_with_the_certificate_in_force_only() {
    let bench = Bench::new().await;
    let first = bench.enrol("lab", "w1").await;
    let (w1, w2) = (bench.agent(&first), bench.agent(&bench.enrol("lab", "w2").await));
    let upgrade = bench.upgrade("lab").await;
    let wrong = (403, Code::WrongCertificate);
    assert_eq!(bench.poll(&w1, "w2").await.unwrap_err(), wrong);
    let permit = bench.post::<PermitResponse>(&w1, PERMIT_PATH, permit_request(&upgrade, "w2")).await;
    assert_eq!(permit.unwrap_err(), wrong);
    let told = bench.post::<ReportResponse>(&w1, REPORT_PATH, report(&upgrade, "w2")).await;
    assert_eq!(told.unwrap_err(), wrong);

    let unknown = (401, Code::CertificateUnknown);
    for path in [POLL_PATH, PERMIT_PATH, REPORT_PATH] {
        let nobody = bench.post::<Value>(&bench.client(None), path, poll_request("w1", None).to_string()).await;
        assert_eq!(nobody.unwrap_err(), unknown, "{path}");
    }
    // The node is enrolled again: the first certificate is valid in itself and yet not in force.
    let second = bench.enrol("lab", "w1").await;
    assert_eq!(bench.poll(&w1, "w1").await.unwrap_err(), unknown);
    bench.hub.offer(&"lab".into(), offer_to("w1", &upgrade));
    assert!(bench.poll(&bench.agent(&second), "w1").await.unwrap().assignment.is_some());
    bench.hub.offer(&"lab".into(), offer_to("w2", &upgrade));
    assert!(bench.poll(&w2, "w2").await.unwrap().assignment.is_some(), "the other node is as it was");
    let kept = bench.store.agents(&"lab".into()).await.unwrap();
    assert_eq!(kept.iter().filter(|agent| agent.node.as_str() == "w1").count(), 1);

    // Signed by our authority, but never enrolled.
    let key = KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let csr = AgentSigningRequest::parse(&csr).unwrap();
    let never = bench.authority.sign_agent(&csr, &"lab".into(), &"w3".into(), Timestamp::now()).unwrap();
    let never = bench.client(Some((&never.pem, &key)));
    assert_eq!(bench.poll(&never, "w3").await.unwrap_err(), unknown);
}

fn offer_to(node: &str, upgrade: &UpgradeId) -> Assignment {
    Assignment {
        id: assignment_id(upgrade),
        node: node.into(),
        machine_id: "machine".to_owned(),
        action: Action::CollectLogs,
        timeout_seconds: 60,
    }
}

#[tokio::test]
async fn a_node_of_the_same_name_in_another_cluster_has_no_say() {
    let bench = Bench::new().await;
    let upgrade = bench.upgrade("lab").await;
    let mut messages = bench.hub.attach(&upgrade, &"lab".into());
    let impostor = bench.agent(&bench.enrol("other", "w1").await);
    let permit: PermitResponse = bench.post(&impostor, PERMIT_PATH, permit_request(&upgrade, "w1")).await.unwrap();
    assert!(matches!(permit, PermitResponse::Refused { .. }));
    let told: ReportResponse = bench.post(&impostor, REPORT_PATH, report(&upgrade, "w1")).await.unwrap();
    assert_eq!(told, ReportResponse::NotWanted);
    assert!(messages.try_recv().is_err(), "the driver is not even asked");
}

#[tokio::test]
async fn a_certificate_of_another_authority_does_not_get_through_the_handshake() {
    let bench = Bench::new().await;
    let elsewhere = Bench::new().await;
    let foreign = elsewhere.enrol("lab", "w1").await;
    let client = bench.agent(&foreign);
    let url = format!("https://{}{POLL_PATH}", bench.address);
    let sent = client.post(url).body(poll_request("w1", None).to_string()).send().await;
    assert!(sent.is_err(), "{sent:?}");
    // And an agent does not speak to a gateway of another authority.
    let mistaken = format!("https://{}{POLL_PATH}", elsewhere.address);
    assert!(bench.client(None).post(mistaken).send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn a_cluster_name_or_node_in_a_certificate_is_looked_up_and_not_believed() {
    let bench = Bench::new().await;
    bench.enrol("lab", "w1").await;
    let key = KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let csr = AgentSigningRequest::parse(&csr).unwrap();
    for (cluster, node) in [("gone", "w1"), ("lab", "w1")] {
        let (cluster, node): (ClusterName, NodeName) = (cluster.into(), node.into());
        let signed = bench.authority.sign_agent(&csr, &cluster, &node, Timestamp::now()).unwrap();
        let client = bench.client(Some((&signed.pem, &key)));
        let refused = bench.poll(&client, "w1").await.unwrap_err();
        assert_eq!(refused, (401, Code::CertificateUnknown), "{cluster}");
    }
    // One that was valid once.
    let long_ago = Timestamp::now() - Duration::from_secs(100 * 86_400);
    let expired = bench.authority.sign_agent(&csr, &"lab".into(), &"w1".into(), long_ago).unwrap();
    let client = bench.client(Some((&expired.pem, &key)));
    assert!(client.post(format!("https://{}{POLL_PATH}", bench.address)).send().await.is_err());
}

#[tokio::test]
async fn silent_clients_are_closed_and_hold_up_nobody() {
    let limits = Limits { connections: 3, handshake: Duration::from_millis(200), ..Limits::new(3) };
    let bench = Bench::with_limits(limits).await;
    // More than there are places for, none of which says anything.
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(TcpStream::connect(bench.address).await.unwrap());
    }
    let mut garbled = TcpStream::connect(bench.address).await.unwrap();
    garbled.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    bench.enrol("lab", "w1").await;
    for stream in &mut silent {
        // Closed by the gateway: the end of the stream, or a reset.
        assert!(matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn a_held_poll_is_answered_when_the_server_stops() {
    let bench = Bench::new().await;
    let agent = bench.agent(&bench.enrol("lab", "w1").await);
    let poll = bench.poll(&agent, "w1");
    let stop = async {
        // The hub hears of the agent right before it holds the poll.
        while bench.hub.agents(&"lab".into()).is_empty() {
            tokio::task::yield_now().await;
        }
        bench.closing.send(true).unwrap();
    };
    let (answer, ()) = tokio::join!(poll, stop);
    assert!(answer.unwrap().assignment.is_none());
    bench.serving.await.unwrap();
    assert!(TcpStream::connect(bench.address).await.is_err(), "nobody listens any more");
}

/// Waits until something holds, looking at it again and again.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waited).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn an_agent_renews_its_certificate_in_time_and_the_old_one_is_retired() {
    use shiplock_agent::gateway::{Gateway as _, HttpsGateway};
    use shiplock_agent::identity::Identity;
    use shiplock_agent::renewal::keep_certificate;
    let bench = Bench::with(Limits::new(100), SignedDuration::from_secs(6)).await;
    let first = bench.enrol("lab", "w1").await;
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity {
        server: format!("https://{}", bench.address),
        cluster: "lab".into(),
        node: "w1".into(),
        key_pem: first.key.serialize_pem(),
        certificate_pem: first.answer.certificate_pem.clone(),
        ca_pem: first.answer.ca_pem.clone(),
    };
    identity.store(folder.path()).unwrap();
    let upgrade = bench.upgrade("lab").await;
    let serial = async || bench.store.agents(&"lab".into()).await.unwrap().remove(0).serial;
    let before = serial().await;

    let agent = std::rc::Rc::new(HttpsGateway::enrolled(&identity).unwrap());
    let renewing = keep_certificate(identity, agent.clone(), folder.path().to_owned());
    let working = async {
        let request: PermitRequest = serde_json::from_str(&permit_request(&upgrade, "w1")).unwrap();
        // Longer than the first certificate lives; not one question of the agent is refused on the way.
        until("the first renewal", async || {
            agent.permit(&request).await.unwrap();
            let stored = Identity::load(folder.path()).unwrap();
            stored.certificate_pem != first.answer.certificate_pem && serial().await != before
        })
        .await;
        let second = serial().await;
        let retired = bench.poll(&bench.agent(&first), "w1").await;
        assert_eq!(retired.unwrap_err(), (401, Code::CertificateUnknown));
        until("a second renewal", async || {
            agent.permit(&request).await.unwrap();
            serial().await != second
        })
        .await;
    };
    tokio::select! {
        never = renewing => match never {},
        () = working => {}
    }
    let stored = Identity::load(folder.path()).unwrap();
    let pem = CertificateDer::from_pem_slice(stored.certificate_pem.as_bytes()).unwrap();
    assert_eq!(AgentIdentity::of(&pem).unwrap().serial, serial().await, "what is on disk is what is in force");
}

fn renew_request(node: &str, key: &KeyPair) -> String {
    let csr = rcgen::CertificateParams::default().serialize_request(key).unwrap().pem().unwrap();
    json!({"protocol": 1, "node": node, "csr_pem": csr}).to_string()
}

#[tokio::test]
async fn a_lost_renewal_locks_nobody_out_and_only_the_first_that_is_used_succeeds() {
    let bench = Bench::new().await;
    let first = bench.enrol("lab", "w1").await;
    let old = bench.agent(&first);
    let renew = async |client: &reqwest::Client, node: &str| {
        let key = KeyPair::generate().unwrap();
        let answer = bench.post::<RenewResponse>(client, RENEW_PATH, renew_request(node, &key)).await;
        answer.map(|answer| bench.client(Some((&answer.certificate_pem, &key))))
    };
    let lost = renew(&old, "w1").await.unwrap();
    let upgrade = bench.upgrade("lab").await;
    let permit = async |client: &reqwest::Client| {
        bench.post::<PermitResponse>(client, PERMIT_PATH, permit_request(&upgrade, "w1")).await.map(drop)
    };
    permit(&old).await.unwrap();
    let used = renew(&old, "w1").await.unwrap();
    let unknown = Err((401, Code::CertificateUnknown));
    permit(&used).await.unwrap();
    assert_eq!((permit(&old).await, permit(&lost).await), (unknown, unknown));
    permit(&used).await.unwrap();

    // Nobody renews for another node, without a certificate, or with one that an enrolment has replaced.
    assert_eq!(renew(&used, "w2").await.unwrap_err(), (403, Code::WrongCertificate));
    assert_eq!(renew(&bench.client(None), "w1").await.unwrap_err().1, Code::CertificateUnknown);
    let pending = renew(&used, "w1").await.unwrap();
    bench.enrol("lab", "w1").await;
    assert_eq!((permit(&used).await, permit(&pending).await), (unknown, unknown));
}

#[tokio::test]
async fn an_agent_on_another_machine_than_its_nodes_is_refused() {
    let bench = Bench::new().await;
    let enrol = async |token: &str, node: &str| {
        let request = enrol_request(token, node, &KeyPair::generate().unwrap());
        bench.post::<EnrolResponse>(&bench.client(None), ENROL_PATH, request.to_string()).await
    };
    let (lab, other) = (bench.token("lab").await, bench.token("other").await);
    for _ in 0..2 {
        assert_eq!(enrol(&lab, "known").await.unwrap_err(), (403, Code::MachineDiffers));
    }
    assert!(bench.store.agents(&"lab".into()).await.unwrap().is_empty());
    // Where there is nothing to compare with, it is enrolled: a cluster that is away, a node that is to join. What was
    // refused has not used the token up.
    assert_eq!(enrol(&other, "known").await.unwrap().cluster_has_node, None);
    assert_eq!(enrol(&lab, "to-join").await.unwrap().cluster_has_node, Some(false));
    assert_eq!(enrol(&lab, "to-join").await.unwrap_err(), (401, Code::TokenRefused));

    // A machine that is known takes no other name that the cluster does not have.
    bench.enrol("lab", "w1").await;
    let again = bench.token("lab").await;
    let mut mistaken: Value =
        serde_json::from_str(&enrol_request(&again, "zzz", &KeyPair::generate().unwrap()).to_string()).unwrap();
    mistaken["machine"]["machine_id"] = json!("machine of w1");
    let refused = bench.post::<EnrolResponse>(&bench.client(None), ENROL_PATH, mistaken.to_string()).await;
    assert_eq!(refused.unwrap_err(), (403, Code::MachineDiffers));

    // A copy of an agent's data on a second machine.
    let agent = bench.agent(&bench.enrol("lab", "w1").await);
    let mut request: Value = serde_json::from_str(&poll_request("w1", Some("v1")).to_string()).unwrap();
    request["machine"]["machine_id"] = json!("a copy");
    let copied = bench.post::<PollResponse>(&agent, POLL_PATH, request.to_string()).await;
    assert_eq!(copied.unwrap_err(), (403, Code::MachineDiffers));
    let kept = bench.store.agents(&"lab".into()).await.unwrap();
    assert!(kept.iter().all(|agent| &*agent.machine.machine_id != "a copy"));
}
