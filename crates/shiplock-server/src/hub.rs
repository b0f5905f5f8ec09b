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
    seats: HashMap<ClusterName, Seats>,
    doors: HashMap<(ClusterName, NodeName), Door>,
    drivers: HashMap<UpgradeId, (ClusterName, mpsc::Sender<AgentMessage>)>,
    questions: u64,
}

impl State {
    fn door(&mut self, cluster: &ClusterName, node: &NodeName) -> &mut Door {
        self.doors.entry((cluster.clone(), node.clone())).or_default()
    }
}

/// Where the agent of a node is answered.
#[derive(Debug, Default)]
struct Door {
    questions: Vec<OpenQuestion>,
    /// Wakes the poll that is held.
    changed: Arc<Notify>,
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

/// The agents of one cluster as a server knows them: who was heard of when, and what each is offered. No I/O.
#[derive(Clone, Debug, Default)]
pub struct Seats {
    seats: BTreeMap<NodeName, Seat>,
}

#[derive(Clone, Debug, Default)]
struct Seat {
    machine: Option<Arc<MachineFacts>>,
    last_heard_at: Option<Timestamp>,
    offer: Option<Assignment>,
}

/// What follows from a word of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Drivers should look: it was silent, or its machine changed.
    pub is_news: bool,
    /// Its machine is wanted with the next poll.
    pub send_machine: bool,
}

impl Seats {
    /// Notes that an agent was heard of.
    pub fn heard(&mut self, node: &NodeName, machine: Option<Arc<MachineFacts>>, now: Timestamp) -> Heard {
        let seat = self.seats.entry(node.clone()).or_default();
        let was_silent = seat.last_heard_at.is_none_or(|last| now.as_second() - last.as_second() > 20);
        let is_news = was_silent || machine.as_ref().is_some_and(|machine| seat.machine.as_ref() != Some(machine));
        seat.last_heard_at = Some(now);
        if machine.is_some() {
            seat.machine = machine;
        }
        Heard { is_news, send_machine: seat.machine.is_none() }
    }

    /// Offers work to the agent of a node, in place of an earlier offer.
    pub fn offer(&mut self, assignment: Assignment) {
        let seat = self.seats.entry(assignment.node.clone()).or_default();
        seat.offer = Some(assignment);
    }

    /// Takes an offer back.
    pub fn withdraw(&mut self, node: &NodeName) {
        if let Some(seat) = self.seats.get_mut(node) {
            seat.offer = None;
        }
    }

    /// Takes every offer of an upgrade back.
    pub fn withdraw_all(&mut self, upgrade: &UpgradeId) {
        for seat in
            self.seats.values_mut().filter(|seat| seat.offer.as_ref().is_some_and(|offer| offer.id.upgrade == *upgrade))
        {
            seat.offer = None;
        }
    }

    /// The work that a node is offered: what its agent does or is about to do.
    pub fn offered(&self, node: &NodeName) -> Option<&Assignment> {
        self.seats.get(node)?.offer.as_ref()
    }

    /// The offer for a node that its agent does not work on yet.
    pub fn news(&self, node: &NodeName, in_work: Option<&AssignmentId>) -> Option<&Assignment> {
        self.offered(node).filter(|offer| Some(&offer.id) != in_work)
    }

    /// What the agent of a node told of its machine.
    pub fn machine(&self, node: &NodeName) -> Option<&MachineFacts> {
        self.seats.get(node)?.machine.as_deref()
    }

    /// The agents that were heard of and have told their machine.
    pub fn agents(&self) -> BTreeMap<NodeName, AgentFacts> {
        let agent = |(node, seat): (&NodeName, &Seat)| {
            let machine = seat.machine.clone()?;
            Some((node.clone(), AgentFacts { last_heard_at: seat.last_heard_at?, machine }))
        };
        self.seats.iter().filter_map(agent).collect()
    }
}

impl Door {
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
        let seats = state.seats.entry(cluster.clone()).or_default();
        let heard = seats.heard(node, machine.map(Arc::new), now);
        if heard.is_news {
            for (of, driver) in state.drivers.values() {
                if of == cluster {
                    // A full queue means that the driver is about to look anyway.
                    let _ = driver.try_send(AgentMessage::Contact);
                }
            }
        }
        heard.send_machine
    }

    /// The offer for a node that the agent does not work on yet, and a question for it; waits up to
    /// [`POLL_HOLD_SECONDS`] for either.
    pub async fn offered_to(&self, cluster: &ClusterName, node: &NodeName, in_work: Option<&AssignmentId>) -> Offered {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(POLL_HOLD_SECONDS);
        loop {
            let changed = self.state().door(cluster, node).changed.clone();
            // Made before the offer is read, so that an offer made in between wakes it.
            let notified = changed.notified();
            let found = {
                let mut state = self.state();
                let assignment = state.seats.get(cluster).and_then(|seats| seats.news(node, in_work)).cloned();
                Offered { assignment, examine: state.door(cluster, node).next_question() }
            };
            if found.assignment.is_some() || found.examine.is_some() {
                return found;
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
            let door = state.door(cluster, node);
            door.questions.push(OpenQuestion { request, handed_out: false, answer });
            door.changed.notify_waiters();
        }
        // A question whose asker is gone is dropped with the next poll.
        tokio::time::timeout(within, answered).await.ok()?.ok()
    }

    /// Brings an answer to whoever asked. False: nobody waits for it any more.
    pub fn examined(&self, cluster: &ClusterName, report: ExaminationReport) -> bool {
        let mut state = self.state();
        let door = state.door(cluster, &report.node);
        let place = door.questions.iter().position(|open| open.request.number == report.number);
        // The next question may go out now.
        door.changed.notify_waiters();
        place.is_some_and(|place| door.questions.remove(place).answer.send(report.examination).is_ok())
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
        state.seats.values_mut().for_each(|seats| seats.withdraw_all(upgrade));
    }

    /// Offers work to the agent of a node, in place of an earlier offer.
    pub fn offer(&self, cluster: &ClusterName, assignment: Assignment) {
        let mut state = self.state();
        let changed = state.door(cluster, &assignment.node).changed.clone();
        state.seats.entry(cluster.clone()).or_default().offer(assignment);
        changed.notify_waiters();
    }

    /// The work that a node is offered: what its agent does or is about to do.
    pub fn offered(&self, cluster: &ClusterName, node: &NodeName) -> Option<Assignment> {
        self.state().seats.get(cluster)?.offered(node).cloned()
    }

    /// Takes an offer back.
    pub fn withdraw(&self, cluster: &ClusterName, node: &NodeName) {
        if let Some(seats) = self.state().seats.get_mut(cluster) {
            seats.withdraw(node);
        }
    }

    /// What the agent of a node told of its machine.
    pub fn machine(&self, cluster: &ClusterName, node: &NodeName) -> Option<MachineFacts> {
        self.state().seats.get(cluster)?.machine(node).cloned()
    }

    /// Forgets what was heard of the agent of a node, and what it is offered.
    pub fn forget(&self, cluster: &ClusterName, node: &NodeName) {
        if let Some(seats) = self.state().seats.get_mut(cluster) {
            seats.seats.remove(node);
        }
    }

    /// The agents of a cluster that were heard of since the server was started.
    pub fn agents(&self, cluster: &ClusterName) -> BTreeMap<NodeName, AgentFacts> {
        self.state().seats.get(cluster).map(Seats::agents).unwrap_or_default()
    }
}
