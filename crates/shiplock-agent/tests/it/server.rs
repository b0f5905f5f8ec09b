//! A server in memory, and lives of an agent between the two.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt as _;
use shiplock_agent::gateway::{Gateway, GatewayError};
use shiplock_agent::journal::{Journal, Record, RecordLog};
use shiplock_agent::machine::Machine;
use shiplock_agent::node_loop::{HostWorkplace, NodeLoop};
use shiplock_api::agent::{
    Assignment, AssignmentId, BackupAnswer, BackupOffer, BackupQuestion, ExaminationReport, ExaminationRequest,
    KeptBackup, PermitRequest, PermitResponse, PollRequest, PollResponse, Report, ReportKind, ReportResponse,
};
use shiplock_core::id::{Epoch, Generation, NodeName, StepNumber, UpgradeId};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::Action;
use tokio::sync::Notify;

use crate::etcd::FakeVault;
use crate::fake::FakeNode;

/// The server: offers one assignment until its report is taken.
#[derive(Debug)]
pub(crate) struct FakeServer {
    pub(crate) offer: RefCell<Option<Assignment>>,
    pub(crate) refuse: Cell<bool>,
    pub(crate) permits: RefCell<Vec<String>>,
    pub(crate) reports: RefCell<Vec<Report>>,
    /// A question for the agent, once.
    pub(crate) question: RefCell<Option<ExaminationRequest>>,
    pub(crate) examined: RefCell<Vec<ExaminationReport>>,
    /// Whether a question is out and not answered.
    pub(crate) awaits: Cell<bool>,
    pub(crate) vault: FakeVault,
    pub(crate) changed: Notify,
}

impl FakeServer {
    pub(crate) fn offering(action: Action) -> Rc<Self> {
        let assignment = assignment(action);
        Rc::new(Self {
            offer: RefCell::new(Some(assignment)),
            refuse: Cell::new(false),
            permits: RefCell::default(),
            reports: RefCell::default(),
            question: RefCell::default(),
            examined: RefCell::default(),
            awaits: Cell::new(false),
            vault: FakeVault::default(),
            changed: Notify::new(),
        })
    }
}

/// No two attempts share an intent.
static INTENTS: AtomicU64 = AtomicU64::new(1);

pub(crate) fn assignment(action: Action) -> Assignment {
    Assignment {
        id: AssignmentId {
            upgrade: UpgradeId::from("u1"),
            step: StepNumber(5),
            generation: Generation { epoch: Epoch(1), intent: INTENTS.fetch_add(1, Ordering::Relaxed) },
        },
        node: NodeName::from("w1"),
        machine_id: "m1".to_owned(),
        action,
        timeout_seconds: 600,
    }
}

impl Gateway for FakeServer {
    async fn poll(&self, request: &PollRequest) -> Result<PollResponse, GatewayError> {
        loop {
            let changed = self.changed.notified();
            if let examine @ Some(_) = self.question.take() {
                self.awaits.set(true);
                return Ok(PollResponse { assignment: None, send_machine: false, examine });
            }
            let offer = self.offer.borrow().clone();
            match offer {
                Some(offer) if Some(&offer.id) != request.in_work.as_ref() => {
                    return Ok(PollResponse { assignment: Some(offer), send_machine: false, examine: None });
                }
                _ => changed.await,
            }
        }
    }

    async fn permit(&self, request: &PermitRequest) -> Result<PermitResponse, GatewayError> {
        self.permits.borrow_mut().push(request.phase.clone());
        if self.refuse.get() {
            *self.offer.borrow_mut() = None;
            self.changed.notify_waiters();
            return Ok(PermitResponse::Refused { problem: Problem::new(Code::PermitRefused).with("why", "paused") });
        }
        Ok(PermitResponse::Granted)
    }

    async fn report(&self, report: &Report) -> Result<ReportResponse, GatewayError> {
        if matches!(report.kind, ReportKind::Progress { .. }) {
            return Ok(ReportResponse::Taken);
        }
        *self.offer.borrow_mut() = None;
        self.reports.borrow_mut().push(report.clone());
        self.changed.notify_waiters();
        Ok(ReportResponse::Taken)
    }

    async fn examined(&self, report: &ExaminationReport) -> Result<ReportResponse, GatewayError> {
        self.examined.borrow_mut().push(report.clone());
        self.awaits.set(false);
        self.changed.notify_waiters();
        Ok(ReportResponse::Taken)
    }

    async fn find_backup(&self, question: &BackupQuestion) -> Result<BackupAnswer, GatewayError> {
        self.vault.find(question)
    }

    async fn send_backup(&self, offer: &BackupOffer, path: &Path) -> Result<KeptBackup, GatewayError> {
        self.vault.take(offer, path)
    }
}

/// A journal that fails before or after a write, as a crash there would look.
#[derive(Debug)]
pub(crate) struct FusedLog {
    pub(crate) journal: Journal,
    pub(crate) left: Rc<Cell<Option<u32>>>,
}

impl RecordLog for FusedLog {
    fn append(&mut self, record: &Record) -> io::Result<()> {
        let moment = || match self.left.get() {
            Some(0) => Err(io::Error::other("crash")),
            Some(left) => {
                self.left.set(Some(left - 1));
                Ok(())
            }
            None => Ok(()),
        };
        moment()?;
        self.journal.append(record)?;
        moment()
    }
}

/// How a life of the agent ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Crashed,
    Settled,
}

/// One life of the agent: until it crashes, or until the server has nothing more to give or to hear.
pub(crate) async fn live(node: &Rc<FakeNode>, server: &Rc<FakeServer>, journal_fuse: &Rc<Cell<Option<u32>>>) -> Life {
    // Calls in parallel may each have told of the same crash.
    let _ = node.crashed.notified().now_or_never();
    let path = node.path("/data/journal");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let machine = |records| Machine::recover(NodeName::from("w1"), "m1".to_owned(), "b1".to_owned(), records);
    let (journal, records) = Journal::open(&path, |records| machine(records).essence()).unwrap();
    let log = FusedLog { journal, left: journal_fuse.clone() };
    let place = Rc::new(HostWorkplace::new(node.clone(), node.path("/data")));
    let agent = NodeLoop::new(place, server.clone(), log, machine(records), NodeName::from("w1"));
    let settled = async {
        loop {
            let changed = server.changed.notified();
            if server.offer.borrow().is_none() && !server.awaits.get() {
                break;
            }
            changed.await;
        }
        // The answer to the report is on its way into the journal.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        _ = agent.run() => Life::Crashed,
        () = node.crashed.notified() => Life::Crashed,
        () = settled => Life::Settled,
    }
}
