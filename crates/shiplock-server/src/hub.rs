//! The meeting point of agents and drivers: who was heard of when, what is offered to whom, and the questions of
//! agents on their way to the driver of the upgrade.
//!
//! It is memory only. After a restart agents tell their machine again and drivers offer the same intents again, so
//! nothing here needs to survive. It never decides: permits and reports are answered by the driver's machine.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use shiplock_api::agent::{
    Assignment, AssignmentId, ExaminationReport, ExaminationRequest, POLL_HOLD_SECONDS, PermitRequest, PermitResponse,
    Report, ReportResponse,
};
use shiplock_core::facts::examination::{NodeExamination, NodeQuestion};
use shiplock_core::facts::{AgentFacts, MachineFacts};
use shiplock_core::id::{ClusterName, NodeName, UpgradeId};
use shiplock_core::problem::{Code, Problem};
use tokio::sync::{Notify, mpsc, oneshot};

/// What an agent asks of or tells the driver of an upgrade.
#[derive(Debug)]
pub enum AgentMessage {
    /// It asks for a permit.
    Permit {
        /// The question.
        request: PermitRequest,
        /// Where the answer goes.
        answer: oneshot::Sender<PermitResponse>,
    },
    /// It reports.
    Report {
        /// The report.
        report: Report,
        /// Where the answer goes: none when the store failed, and the agent is to repeat the report.
        answer: oneshot::Sender<Option<ReportResponse>>,
    },
    /// An agent was heard of after a silence, or its machine changed.
    Contact,
}

/// Messages that may wait for a driver. A driver takes them at once unless its store is slow.
const MESSAGES_MAX: usize = 256;
/// How long an agent's question may take; the agent asks again after it.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// The hub of one server.
#[derive(Debug, Default)]
pub struct AgentHub {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seats: HashMap<ClusterName, BTreeMap<NodeName, Seat>>,
    drivers: HashMap<UpgradeId, (ClusterName, mpsc::Sender<AgentMessage>)>,
    questions: u64,
}

/// A question of the pre-check to an agent.
#[derive(Debug)]
struct OpenQuestion {
    request: ExaminationRequest,
    /// Whether the agent has it: then it is at work on it, and gets no other one.
    handed_out: bool,
    answer: oneshot::Sender<Box<NodeExamination>>,
}

/// What a poll brings home.
#[derive(Debug, Default)]
pub struct Offered {
    /// Work.
    pub assignment: Option<Assignment>,
    /// A question.
    pub examine: Option<ExaminationRequest>,
}

#[derive(Debug, Default)]
struct Seat {
    machine: Option<MachineFacts>,
    last_heard_at: Option<Timestamp>,
    offer: Option<Assignment>,
    questions: Vec<OpenQuestion>,
    changed: Arc<Notify>,
}

impl Seat {
    /// The next question, unless the agent is at work on one.
    fn next_question(&mut self) -> Option<ExaminationRequest> {
        self.questions.retain(|open| !open.answer.is_closed());
        let first = self.questions.first_mut().filter(|open| !open.handed_out)?;
        first.handed_out = true;
        Some(first.request.clone())
    }
}

impl AgentHub {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves plain data behind, which stays usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an agent was heard of. Returns whether its machine is wanted with the next poll.
    pub fn heard(&self, cluster: &ClusterName, node: &NodeName, machine: Option<MachineFacts>, now: Timestamp) -> bool {
        let mut state = self.state();
        let seat = state.seats.entry(cluster.clone()).or_default().entry(node.clone()).or_default();
        let was_silent = seat.last_heard_at.is_none_or(|last| now.as_second() - last.as_second() > 20);
        let news = was_silent || machine.as_ref().is_some_and(|machine| seat.machine.as_ref() != Some(machine));
        seat.last_heard_at = Some(now);
        if machine.is_some() {
            seat.machine = machine;
        }
        let send_machine = seat.machine.is_none();
        if news {
            for (of, driver) in state.drivers.values() {
                if of == cluster {
                    // A full queue means that the driver is about to look anyway.
                    let _ = driver.try_send(AgentMessage::Contact);
                }
            }
        }
        send_machine
    }

    /// The offer for a node that the agent does not work on yet, and a question for it; waits up to
    /// [`POLL_HOLD_SECONDS`] for either.
    pub async fn offered_to(&self, cluster: &ClusterName, node: &NodeName, in_work: Option<&AssignmentId>) -> Offered {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(POLL_HOLD_SECONDS);
        loop {
            let changed =
                self.state().seats.entry(cluster.clone()).or_default().entry(node.clone()).or_default().changed.clone();
            // Made before the offer is read, so that an offer made in between wakes it.
            let notified = changed.notified();
            let found = {
                let mut state = self.state();
                let seat = state.seats.get_mut(cluster).and_then(|seats| seats.get_mut(node));
                seat.map(|seat| {
                    let assignment = seat.offer.clone().filter(|offer| Some(&offer.id) != in_work);
                    Offered { assignment, examine: seat.next_question() }
                })
            };
            match found {
                Some(found) if found.assignment.is_some() || found.examine.is_some() => return found,
                _ => {}
            }
            if tokio::time::timeout_at(deadline, notified).await.is_err() {
                return Offered::default();
            }
        }
    }

    /// Asks the agent of a node to look at it. None where no answer came in time.
    pub async fn examine(
        &self,
        cluster: &ClusterName,
        node: &NodeName,
        question: NodeQuestion,
        within: Duration,
    ) -> Option<Box<NodeExamination>> {
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.state();
            state.questions += 1;
            let request = ExaminationRequest { number: state.questions, question };
            let seat = state.seats.entry(cluster.clone()).or_default().entry(node.clone()).or_default();
            seat.questions.push(OpenQuestion { request, handed_out: false, answer });
            seat.changed.notify_waiters();
        }
        // A question whose asker is gone is dropped with the next poll.
        tokio::time::timeout(within, answered).await.ok()?.ok()
    }

    /// Brings an answer to whoever asked. False: nobody waits for it any more.
    pub fn examined(&self, cluster: &ClusterName, report: ExaminationReport) -> bool {
        let mut state = self.state();
        let Some(seat) = state.seats.get_mut(cluster).and_then(|seats| seats.get_mut(&report.node)) else {
            return false;
        };
        let place = seat.questions.iter().position(|open| open.request.number == report.number);
        // The next question may go out now.
        seat.changed.notify_waiters();
        place.is_some_and(|place| seat.questions.remove(place).answer.send(report.examination).is_ok())
    }

    /// Asks the driver of the upgrade for a permit. No driver, no permit.
    pub async fn permit(&self, request: PermitRequest) -> PermitResponse {
        let refused =
            |why: &str| PermitResponse::Refused { problem: Problem::new(Code::PermitRefused).with("why", why) };
        let Some(driver) = self.driver(&request.id.upgrade) else {
            return refused("this server does not drive the upgrade");
        };
        let (answer, answered) = oneshot::channel();
        let ask = async {
            driver.send(AgentMessage::Permit { request, answer }).await.ok()?;
            answered.await.ok()
        };
        match tokio::time::timeout(ANSWER_WITHIN, ask).await {
            Ok(Some(response)) => response,
            _ => refused("the driver does not answer"),
        }
    }

    /// Brings a report to the driver of the upgrade. None: it could not be recorded, the agent is to repeat it.
    pub async fn report(&self, report: Report) -> Option<ReportResponse> {
        let driver = self.driver(&report.id.upgrade)?;
        let (answer, answered) = oneshot::channel();
        let tell = async {
            driver.send(AgentMessage::Report { report, answer }).await.ok()?;
            answered.await.ok().flatten()
        };
        tokio::time::timeout(ANSWER_WITHIN, tell).await.ok().flatten()
    }

    fn driver(&self, upgrade: &UpgradeId) -> Option<mpsc::Sender<AgentMessage>> {
        self.state().drivers.get(upgrade).map(|(_, driver)| driver.clone())
    }

    /// Makes a driver known; it gets the messages of its upgrade.
    pub fn attach(&self, upgrade: &UpgradeId, cluster: &ClusterName) -> mpsc::Receiver<AgentMessage> {
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        self.state().drivers.insert(upgrade.clone(), (cluster.clone(), sender));
        receiver
    }

    /// Forgets a driver and takes its offers back.
    pub fn detach(&self, upgrade: &UpgradeId) {
        let mut state = self.state();
        state.drivers.remove(upgrade);
        for seat in state.seats.values_mut().flat_map(BTreeMap::values_mut) {
            if seat.offer.as_ref().is_some_and(|offer| offer.id.upgrade == *upgrade) {
                seat.offer = None;
            }
        }
    }

    /// Offers work to the agent of a node, in place of an earlier offer.
    pub fn offer(&self, cluster: &ClusterName, assignment: Assignment) {
        let mut state = self.state();
        let seat = state.seats.entry(cluster.clone()).or_default().entry(assignment.node.clone()).or_default();
        seat.offer = Some(assignment);
        seat.changed.notify_waiters();
    }

    /// The work that a node is offered: what its agent does or is about to do.
    pub fn offered(&self, cluster: &ClusterName, node: &NodeName) -> Option<Assignment> {
        self.state().seats.get(cluster)?.get(node)?.offer.clone()
    }

    /// Takes an offer back.
    pub fn withdraw(&self, cluster: &ClusterName, node: &NodeName) {
        if let Some(seat) = self.state().seats.get_mut(cluster).and_then(|seats| seats.get_mut(node)) {
            seat.offer = None;
        }
    }

    /// The agents of a cluster that were heard of since the server was started.
    pub fn agents(&self, cluster: &ClusterName) -> BTreeMap<NodeName, AgentFacts> {
        let state = self.state();
        let seats = state.seats.get(cluster).into_iter().flatten();
        seats
            .filter_map(|(node, seat)| {
                let agent = AgentFacts { last_heard_at: seat.last_heard_at?, machine: seat.machine.clone()? };
                Some((node.clone(), agent))
            })
            .collect()
    }
}
