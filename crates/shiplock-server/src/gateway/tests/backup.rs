//! Backups on their way in, as agents send them: over real TLS.

use axum::body::Bytes;
use sha2::{Digest as _, Sha256};
use shiplock_api::agent::{BACKUP_HEADER, BackupAnswer, EtcdSnapshot, KeptBackup};
use shiplock_core::plan::hexadecimal;
use tokio::sync::mpsc;

use super::*;

const CONTENT: &[u8] = &[3; 300_000];

fn snapshot() -> EtcdSnapshot {
    EtcdSnapshot {
        sha256: hexadecimal(&Sha256::digest(CONTENT)),
        size_bytes: CONTENT.len() as u64,
        hash: 5,
        revision: 42,
        keys: 7,
        etcd_version: "3.6.8".to_owned(),
    }
}

fn description(id: &AssignmentId, node: &str) -> Value {
    let mut offer = serde_json::to_value(id).unwrap();
    offer["node"] = json!(node);
    offer["snapshot"] = serde_json::to_value(snapshot()).unwrap();
    offer
}

fn question(id: &AssignmentId, node: &str, size_bytes: u64) -> String {
    let mut question = serde_json::to_value(id).unwrap();
    question["node"] = json!(node);
    question["size_bytes"] = json!(size_bytes);
    question.to_string()
}

fn offer(id: &AssignmentId, node: &str) -> Assignment {
    Assignment { id: id.clone(), action: Action::BackupEtcd { files: Vec::new() }, ..offer_to(node, &id.upgrade) }
}

/// A gateway and the agent of a master that is asked for a backup.
struct Asked {
    bench: Bench,
    agent: reqwest::Client,
    id: AssignmentId,
}

impl Asked {
    async fn new() -> Self {
        let bench = Bench::new().await;
        let agent = bench.agent(&bench.enrol("lab", "w1").await);
        let id = assignment_id(&bench.upgrade("lab").await);
        bench.hub.offer(&"lab".into(), offer(&id, "w1"));
        Self { bench, agent, id }
    }

    async fn ask(&self, id: &AssignmentId) -> Result<BackupAnswer, Refusal> {
        self.bench.post(&self.agent, BACKUP_PATH, question(id, "w1", 1_000)).await
    }

    async fn put(
        &self,
        client: &reqwest::Client,
        description: String,
        length: usize,
        body: impl Into<reqwest::Body>,
    ) -> Result<KeptBackup, Refusal> {
        let request = client.put(format!("https://{}{BACKUP_PATH}", self.bench.address));
        let request = request.header(BACKUP_HEADER, description).header("content-length", length).body(body);
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

    async fn kept(&self) -> usize {
        self.bench.backups.list(None).await.unwrap().len()
    }
}

#[tokio::test]
async fn a_backup_is_taken_once_and_its_name_is_told_as_often_as_it_is_asked_for() {
    let asked = Asked::new().await;
    assert_eq!(asked.ask(&asked.id).await.unwrap(), BackupAnswer { kept: None });
    let describe = || description(&asked.id, "w1").to_string();
    let kept = asked.put(&asked.agent, describe(), CONTENT.len(), CONTENT).await.unwrap();
    assert_eq!(kept, KeptBackup { backup: "ulab-2-5".to_owned(), snapshot: snapshot() });
    assert_eq!(asked.put(&asked.agent, describe(), CONTENT.len(), CONTENT).await.unwrap(), kept);
    let view = asked.bench.backups.verify("ulab-2-5").await.unwrap();
    assert_eq!((view.cluster.as_str(), view.upgrade.as_str(), view.node.as_str()), ("lab", "ulab", "w1"));

    // A server that took over offers the same attempt under a higher epoch.
    let generation = Generation { epoch: Epoch(2), ..asked.id.generation };
    let adopted = AssignmentId { generation, ..asked.id.clone() };
    asked.bench.hub.offer(&"lab".into(), offer(&adopted, "w1"));
    assert_eq!(asked.ask(&adopted).await.unwrap(), BackupAnswer { kept: Some(kept) });
    assert_eq!(asked.ask(&asked.id).await.unwrap_err(), (409, Code::StaleGeneration));
    assert_eq!(asked.kept().await, 1);
}

#[tokio::test]
async fn only_the_attempt_that_is_in_flight_on_the_node_of_the_certificate_is_heard() {
    let asked = Asked::new().await;
    let bench = &asked.bench;
    let stranger = bench.client(None);
    let neighbour = bench.agent(&bench.enrol("lab", "w2").await);
    let namesake = bench.agent(&bench.enrol("other", "w1").await);
    let with = |epoch, intent| {
        let generation = Generation { epoch: Epoch(epoch), intent };
        AssignmentId { generation, ..asked.id.clone() }
    };
    let other_step = AssignmentId { step: StepNumber(3), ..asked.id.clone() };
    let elsewhere = AssignmentId { upgrade: "unobody".into(), ..asked.id.clone() };
    let table = [
        ("nobody", &stranger, &asked.id, "w1", Code::CertificateUnknown),
        ("another node", &neighbour, &asked.id, "w1", Code::WrongCertificate),
        ("a node that is not asked", &neighbour, &asked.id, "w2", Code::PermitRefused),
        ("a namesake in another cluster", &namesake, &asked.id, "w1", Code::PermitRefused),
        ("an earlier attempt", &asked.agent, &with(1, 4), "w1", Code::StaleGeneration),
        ("an earlier epoch", &asked.agent, &with(0, 9), "w1", Code::StaleGeneration),
        ("an attempt that nobody began", &asked.agent, &with(1, 6), "w1", Code::PermitRefused),
        ("another step", &asked.agent, &other_step, "w1", Code::PermitRefused),
        ("an unknown upgrade", &asked.agent, &elsewhere, "w1", Code::PermitRefused),
    ];
    for (who, client, id, node, code) in table {
        let refused = bench.post::<BackupAnswer>(client, BACKUP_PATH, question(id, node, 1)).await.unwrap_err();
        assert_eq!(refused.1, code, "{who} asks");
        let sent = description(id, node).to_string();
        let refused = asked.put(client, sent, CONTENT.len(), CONTENT).await.unwrap_err();
        assert_eq!(refused.1, code, "{who} sends");
    }
    bench.hub.offer(&"lab".into(), offer_to("w1", &asked.id.upgrade));
    assert_eq!(asked.ask(&asked.id).await.unwrap_err().1, Code::PermitRefused, "a step of another kind");
    bench.hub.withdraw(&"lab".into(), &"w1".into());
    assert_eq!(asked.ask(&asked.id).await.unwrap_err().1, Code::PermitRefused, "nothing in flight");
    assert_eq!(asked.kept().await, 0);
}

#[tokio::test]
async fn what_is_described_wrongly_or_is_not_what_was_described_is_refused_and_not_kept() {
    let asked = Asked::new().await;
    let good = description(&asked.id, "w1");
    let with = |field: &str, value: Value| {
        let mut description = good.clone();
        description["snapshot"][field] = value;
        description.to_string()
    };
    let other = hexadecimal(&Sha256::digest("other"));
    let length = CONTENT.len();
    let table = [
        ("no JSON", "{".to_owned(), length, Code::BadRequest),
        ("no snapshot", json!({}).to_string(), length, Code::BadRequest),
        ("another digest", with("sha256", json!(other)), length, Code::DigestMismatch),
        ("no digest", with("sha256", json!("x")), length, Code::BadRequest),
        ("a digest that is a path", with("sha256", json!("../".repeat(22))), length, Code::BadRequest),
        ("another length", with("size_bytes", json!(length + 1)), length, Code::BadRequest),
        ("too large", with("size_bytes", json!(1_u64 << 60)), length, Code::TooLarge),
        ("a version that steers terminals", with("etcd_version", json!("\u{1b}[2J")), length, Code::BadRequest),
        ("a negative revision", with("revision", json!(-1)), length, Code::BadRequest),
    ];
    for (what, description, length, code) in table {
        let refused = asked.put(&asked.agent, description, length, CONTENT).await.unwrap_err();
        assert_eq!(refused.1, code, "{what}");
    }
    let too_large =
        asked.bench.post::<BackupAnswer>(&asked.agent, BACKUP_PATH, question(&asked.id, "w1", 1 << 60)).await;
    assert_eq!(too_large.unwrap_err().1, Code::TooLarge);
    assert_eq!(asked.kept().await, 0);
    asked.put(&asked.agent, good.to_string(), length, CONTENT).await.unwrap();
}

/// A body that is sent as the test says.
fn slow_body() -> (mpsc::Sender<Result<Bytes, std::io::Error>>, reqwest::Body) {
    let (sender, receiver) = mpsc::channel(1);
    let pieces = futures::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    (sender, reqwest::Body::wrap_stream(pieces))
}

#[tokio::test]
async fn an_attempt_that_is_given_up_while_its_backup_arrives_leaves_none() {
    let asked = Asked::new().await;
    let (sender, body) = slow_body();
    let (first, rest) = CONTENT.split_at(1_000);
    let sending = asked.put(&asked.agent, description(&asked.id, "w1").to_string(), CONTENT.len(), body);
    let giving_up = async {
        sender.send(Ok(Bytes::from_static(first))).await.unwrap();
        // It is being taken once there is a file.
        while !asked.bench.backups.folder().join("ulab-2-5.part").exists() {
            tokio::task::yield_now().await;
        }
        let second = asked.put(&asked.agent, description(&asked.id, "w1").to_string(), CONTENT.len(), CONTENT).await;
        assert_eq!(second, Err((409, Code::PermitRefused)), "one at a time");
        asked.bench.hub.withdraw(&"lab".into(), &"w1".into());
        sender.send(Ok(Bytes::from_static(rest))).await.unwrap();
        drop(sender);
    };
    let (answer, ()) = tokio::join!(sending, giving_up);
    assert_eq!(answer.unwrap_err(), (409, Code::PermitRefused));
    assert_eq!(asked.kept().await, 0);
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_nothing_and_the_backup_can_be_sent_again() {
    let asked = Asked::new().await;
    let (sender, body) = slow_body();
    let request = asked.agent.put(format!("https://{}{BACKUP_PATH}", asked.bench.address));
    let request = request.header(BACKUP_HEADER, description(&asked.id, "w1").to_string());
    let sending = request.header("content-length", CONTENT.len()).body(body).send();
    let breaking = async {
        sender.send(Ok(Bytes::from_static(&CONTENT[..1_000]))).await.unwrap();
        let _ = sender.send(Err(std::io::Error::other("cut"))).await;
    };
    let (answer, ()) = tokio::join!(sending, breaking);
    assert!(answer.is_err(), "{answer:?}");
    // The broken one is let go of in a moment.
    let kept = loop {
        match asked.put(&asked.agent, description(&asked.id, "w1").to_string(), CONTENT.len(), CONTENT).await {
            Err((409, Code::PermitRefused)) => tokio::task::yield_now().await,
            other => break other,
        }
    };
    kept.unwrap();
    assert_eq!(asked.kept().await, 1);
}
