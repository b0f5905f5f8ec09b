//! A member of etcd and a server that keeps backups, in memory; and what becomes of a backup where something is wrong.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;

use sha2::{Digest as _, Sha256};
use shiplock_agent::gateway::GatewayError;
use shiplock_agent::host::ProgramOutput;
use shiplock_api::agent::{BackupAnswer, BackupOffer, BackupQuestion, KeptBackup, ReportKind};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::Action;
use shiplock_core::upgrade::StepOutcome;

use crate::fake::{FakeNode, file};
use crate::server::{FakeServer, Life, live};

const BODY: &[u8] = &[9; 20_480];
pub(crate) const ETCDCTL: &str = "etcdctl v3.6.8";
pub(crate) const ETCDUTL: &str = "etcdutl v3.6.8";
const PKI: &str = "/etc/kubernetes/pki/etcd";

/// The member on a master.
#[derive(Debug)]
pub(crate) struct FakeEtcd {
    healthy: Cell<bool>,
    learner: Cell<bool>,
    leader: Cell<u64>,
    /// How many bytes of a snapshot reach the disk.
    saved_bytes: Cell<usize>,
    /// It grows all the while.
    revision: Cell<u64>,
    saved_revision: Cell<u64>,
}

impl Default for FakeEtcd {
    fn default() -> Self {
        let saved_bytes = Cell::new(BODY.len() + 32);
        let (healthy, learner) = (Cell::new(true), Cell::new(false));
        Self {
            healthy,
            learner,
            leader: Cell::new(7),
            saved_bytes,
            revision: Cell::new(40),
            saved_revision: Cell::new(0),
        }
    }
}

impl FakeEtcd {
    /// What etcdctl and etcdutl say; none where it is none of their commands.
    pub(crate) fn output(&self, arguments: &[&str]) -> Option<ProgramOutput> {
        let said = |text: String| ProgramOutput { success: true, text, error: String::new() };
        match arguments {
            ["--endpoints=https://127.0.0.1:2379", _, _, _, "endpoint", "health"] => Some(ProgramOutput {
                success: self.healthy.get(),
                text: String::new(),
                error: "context deadline exceeded".to_owned(),
            }),
            [_, _, _, _, "endpoint", "status", "--write-out=json"] => {
                let (leader, learner) = (self.leader.get(), self.learner.get());
                let revision = self.revision.get() + 1;
                self.revision.set(revision);
                let size = BODY.len();
                Some(said(format!(
                    r#"[{{"Endpoint":"x","Status":{{"header":{{"revision":{revision}}},"version":"3.6.8","dbSize":{size},"leader":{leader},"isLearner":{learner}}}}}]"#
                )))
            }
            ["snapshot", "status", _, "--write-out=json"] => {
                let (revision, size) = (self.saved_revision.get(), BODY.len());
                Some(said(format!(
                    r#"{{"hash":5,"revision":{revision},"totalKey":3,"totalSize":{size},"version":"3.6.0"}}"#
                )))
            }
            _ => None,
        }
    }

    /// What `etcdctl snapshot save` writes.
    pub(crate) fn save(&self, path: &Path) {
        self.saved_revision.set(self.revision.get() + 1);
        let whole = [BODY, &Sha256::digest(BODY)].concat();
        std::fs::write(path, &whole[..self.saved_bytes.get()]).unwrap();
    }
}

/// What the server keeps, and what it answers first.
#[derive(Debug, Default)]
pub(crate) struct FakeVault {
    kept: RefCell<Option<(u64, KeptBackup)>>,
    /// Answers in place of the right ones.
    errors: RefCell<VecDeque<GatewayError>>,
    pub(crate) sent: Cell<u32>,
    /// The answers to this many backups are lost after they were kept.
    losing: Cell<u32>,
}

impl FakeVault {
    pub(crate) fn find(&self, question: &BackupQuestion) -> Result<BackupAnswer, GatewayError> {
        if let Some(error) = self.errors.borrow_mut().pop_front() {
            return Err(error);
        }
        let kept = self.kept.borrow().clone();
        let kept = kept.filter(|(intent, _)| *intent == question.id.generation.intent);
        Ok(BackupAnswer { kept: kept.map(|(_, kept)| kept) })
    }

    pub(crate) fn take(&self, offer: &BackupOffer, path: &Path) -> Result<KeptBackup, GatewayError> {
        let content = std::fs::read(path).unwrap();
        let found = shiplock_agent::files::hexadecimal(&Sha256::digest(&content));
        assert_eq!((found, content.len() as u64), (offer.snapshot.sha256.clone(), offer.snapshot.size_bytes));
        self.sent.set(self.sent.get() + 1);
        let kept = KeptBackup { backup: "u1-5-1".to_owned(), snapshot: offer.snapshot.clone() };
        *self.kept.borrow_mut() = Some((offer.id.generation.intent, kept.clone()));
        if self.losing.get() > 0 {
            self.losing.set(self.losing.get() - 1);
            return Err(GatewayError::Unreachable("the connection broke".to_owned()));
        }
        Ok(kept)
    }
}

/// A master with everything that a backup needs.
pub(crate) fn master() -> Rc<FakeNode> {
    let node = FakeNode::new();
    let flags = format!(
        "    - --listen-client-urls=https://127.0.0.1:2379,https://10.0.0.1:2379\n    - --trusted-ca-file={PKI}/ca.crt\n"
    );
    let manifest = format!("spec:\n  containers:\n  - name: etcd\n    image: etcd\n    command:\n    - etcd\n{flags}");
    node.write("/etc/kubernetes/manifests/etcd.yaml", &manifest);
    for name in ["ca.crt", "healthcheck-client.crt", "healthcheck-client.key"] {
        node.write(&format!("{PKI}/{name}"), "pem");
    }
    for content in [ETCDCTL, ETCDUTL] {
        node.stage(content);
    }
    node
}

pub(crate) fn backup() -> Action {
    Action::BackupEtcd { files: vec![file("etcdctl", ETCDCTL), file("etcdutl", ETCDUTL)] }
}

/// What is left of snapshots on the node.
pub(crate) fn left_over(node: &FakeNode) -> usize {
    std::fs::read_dir(node.path("/data/backup")).map_or(0, Iterator::count)
}

async fn run(node: &Rc<FakeNode>, server: &Rc<FakeServer>) -> Result<StepOutcome, (Problem, bool)> {
    assert_eq!(live(node, server, &Rc::new(Cell::new(None))).await, Life::Settled);
    assert_eq!(left_over(node), 0, "nothing of the cluster's secrets stays on the node");
    assert_eq!(*server.permits.borrow(), [""; 0], "it changes nothing that runs");
    match server.reports.borrow().last().unwrap().kind.clone() {
        ReportKind::Succeeded { outcome, .. } => Ok(outcome),
        ReportKind::Failed { problem, retryable } => Err((problem, retryable)),
        ReportKind::Progress { .. } => unreachable!("progress is not kept"),
    }
}

#[tokio::test(start_paused = true)]
async fn etcd_is_saved_checked_and_handed_over_and_the_report_tells_what_it_holds() {
    let (node, server) = (master(), FakeServer::offering(backup()));
    let outcome = run(&node, &server).await.unwrap();
    let whole = [BODY, &Sha256::digest(BODY)].concat();
    let sha256 = shiplock_agent::files::hexadecimal(&Sha256::digest(&whole));
    let backup = "u1-5-1".to_owned();
    assert_eq!(outcome, StepOutcome::BackedUp { backup, sha256, revision: 42, keys: 3, size_bytes: 20_512 });
    assert_eq!(*node.acts.borrow(), ["save"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_or_not_ready_yet_is_asked_again_and_a_lost_answer_costs_no_second_snapshot() {
    let (node, server) = (master(), FakeServer::offering(backup()));
    let refused = |code| GatewayError::Refused(Box::new(Problem::new(code)));
    let away = || GatewayError::Unreachable("connection refused".to_owned());
    let errors = [
        away(),
        refused(Code::PermitRefused),
        away(),
        refused(Code::StaleGeneration),
        refused(Code::CertificateUnknown),
    ];
    server.vault.errors.borrow_mut().extend(errors);
    server.vault.losing.set(1);
    run(&node, &server).await.unwrap();
    assert_eq!(*node.acts.borrow(), ["save"]);
    assert_eq!(server.vault.sent.get(), 1, "what is kept is asked for before it is sent again");
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_the_member_is_named_before_anything_is_saved() {
    type Harm = fn(&FakeNode);
    let table: [(&str, Harm, bool); 7] = [
        ("is not healthy", |node| node.etcd.healthy.set(false), true),
        ("is a learner", |node| node.etcd.learner.set(true), false),
        ("has no leader", |node| node.etcd.leader.set(0), true),
        (
            "there is no /etc/kubernetes/manifests/etcd.yaml",
            |node| remove(node, "/etc/kubernetes/manifests/etcd.yaml"),
            false,
        ),
        ("is not the YAML of a pod", |node| node.write("/etc/kubernetes/manifests/etcd.yaml", "{"), false),
        ("there is no /etc/kubernetes/pki/etcd/ca.crt", |node| remove(node, &format!("{PKI}/ca.crt")), false),
        (
            "there is no /etc/kubernetes/pki/etcd/healthcheck-client.key",
            |node| remove(node, &format!("{PKI}/healthcheck-client.key")),
            false,
        ),
    ];
    for (why, harm, retried) in table {
        let (node, server) = (master(), FakeServer::offering(backup()));
        harm(&node);
        let (problem, retryable) = run(&node, &server).await.unwrap_err();
        assert_eq!((problem.code, retryable), (Code::BackupFailed, retried), "{why}: {problem}");
        assert!(problem.parameters["why"].contains(why), "{problem}");
        assert_eq!(*node.acts.borrow(), [""; 0], "{why}");
    }
}

fn remove(node: &FakeNode, path: &str) {
    std::fs::remove_file(node.path(path)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_not_whole_is_never_handed_over() {
    for saved_bytes in [0, 10, 10_000, BODY.len(), BODY.len() + 31] {
        let (node, server) = (master(), FakeServer::offering(backup()));
        node.etcd.saved_bytes.set(saved_bytes);
        let (problem, retryable) = run(&node, &server).await.unwrap_err();
        assert_eq!((problem.code, retryable), (Code::BackupFailed, true), "{saved_bytes} bytes");
        assert!(problem.parameters["why"].contains("SHA-256 that etcd wrote at its end"), "{problem}");
        assert_eq!(server.vault.sent.get(), 0, "{saved_bytes} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn too_little_room_here_or_there_is_said_before_anything_is_saved() {
    let (node, server) = (master(), FakeServer::offering(backup()));
    node.free.set(100 << 20);
    let (problem, retryable) = run(&node, &server).await.unwrap_err();
    assert_eq!((problem.code, retryable), (Code::DiskFull, false));
    assert_eq!(problem.parameters["subject"], "w1");

    let (node, server) = (master(), FakeServer::offering(backup()));
    let full = Problem::new(Code::DiskFull).with("subject", "the Shiplock server");
    let away = GatewayError::Unreachable(String::new());
    server.vault.errors.borrow_mut().extend([away, GatewayError::Refused(Box::new(full.clone()))]);
    let (problem, retryable) = run(&node, &server).await.unwrap_err();
    assert_eq!((problem, retryable), (full, false));
    assert_eq!(*node.acts.borrow(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_on_refusing_ends_the_attempt() {
    let (node, server) = (master(), FakeServer::offering(backup()));
    let refused = || GatewayError::Refused(Box::new(Problem::new(Code::PermitRefused).with("why", "not in flight")));
    server.vault.errors.borrow_mut().extend((0..1_000).map(|_| refused()));
    let (problem, retryable) = run(&node, &server).await.unwrap_err();
    assert_eq!((problem.code, retryable), (Code::PermitRefused, true));
    assert!(server.vault.errors.borrow().len() > 900, "it did not ask for ever");
}
