//! What is to happen, and when.

use std::sync::Arc;

use shiplock_cluster::fence::MarkWrite;
use shiplock_core::id::{Epoch, NodeName, StepNumber};
use shiplock_core::upgrade::Event as LogEvent;
use shiplock_server::driver::machine::Input;
use shiplock_server::driver::step::{Answer, Request, RequestNumber};

use super::Operation;
use super::agent::{Line, Message, Reply};
use super::fault::Fault;
use super::server::Exchange;
use crate::world::Moment;

/// Names an agent or server process whose message is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    /// A server, by its index.
    Server(usize),
    /// The agent of a node, by the id of the node.
    Agent(u32),
}

#[derive(Clone, Debug)]
pub(super) struct Queued {
    pub(super) at: Moment,
    pub(super) sequence: u64,
    pub(super) event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}
impl Eq for Queued {}
impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// Which driver of which life of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DriverId {
    pub(super) server: usize,
    pub(super) life: u32,
    pub(super) number: u32,
}

#[derive(Clone, Debug)]
pub(super) enum Event {
    ServerStarts(usize),
    Supervise {
        server: usize,
        life: u32,
    },
    Renew {
        server: usize,
        life: u32,
    },
    /// An append reaches the store.
    Append {
        driver: DriverId,
        expected_len: u64,
        events: Vec<LogEvent>,
    },
    /// The store's answer reaches the driver.
    Appended {
        driver: DriverId,
        input: Option<Box<Input>>,
    },
    Observe(DriverId),
    /// The driver looks at watches that may have broken or come back.
    Look(DriverId),
    Claim(DriverId),
    ClaimAgain(DriverId),
    Wakes {
        driver: DriverId,
        wake: u64,
    },
    Rested {
        driver: DriverId,
        step: StepNumber,
        attempt: u32,
        rest: u64,
    },
    /// A request reaches the API server.
    Api {
        ask: Box<Ask>,
        write: Option<Box<Write>>,
    },
    /// The answer reaches the driver.
    Answered {
        ask: Box<Ask>,
        answer: Box<Answer>,
    },
    /// A message of an agent reaches a server.
    ToServer {
        server: usize,
        exchange: Exchange,
        line: Line,
        message: Box<Message>,
    },
    /// A reply reaches an agent.
    ToAgent {
        exchange: Exchange,
        line: Line,
        reply: Box<Reply>,
        sent_machine: bool,
    },
    /// No reply came.
    Unanswered {
        exchange: Exchange,
        line: Line,
        message: Box<Message>,
    },
    PollEnds {
        server: usize,
        life: u32,
        exchange: Exchange,
        node: NodeName,
    },
    AgentStarts(u32),
    AgentLine {
        node: u32,
        life: u32,
        line: Line,
    },
    AgentWorks {
        node: u32,
        life: u32,
        run: u32,
    },
    AgentTick {
        node: u32,
        life: u32,
    },
    /// A record is on disk.
    Journal {
        node: u32,
        life: u32,
        bytes: Arc<Vec<u8>>,
    },
    Operator(Operation),
    Fault(Box<Fault>),
    FaultEnds(Box<Fault>),
    Heal,
    /// A person looks after what is mended, for the so many-th time.
    Tend(u32),
}

#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) driver: DriverId,
    /// The epoch that the driver had: the request is on its way also when the driver is no more.
    pub(super) epoch: Epoch,
    pub(super) step: StepNumber,
    pub(super) attempt: u32,
    pub(super) number: RequestNumber,
    pub(super) request: Request,
    /// How often a patch found the node changed.
    pub(super) rounds: u32,
}

/// A patch on its way.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) node: u32,
    pub(super) uid: u128,
    pub(super) version: u64,
    pub(super) write: MarkWrite,
    pub(super) answer: Answer,
}

/// For the fingerprint.
pub(super) fn kind_of(event: &Event) -> u8 {
    match event {
        Event::ServerStarts(_) => 1,
        Event::Supervise { .. } => 2,
        Event::Renew { .. } => 3,
        Event::Append { .. } => 4,
        Event::Appended { .. } => 5,
        Event::Observe(_) => 6,
        Event::Claim(_) | Event::ClaimAgain(_) => 7,
        Event::Wakes { .. } => 8,
        Event::Rested { .. } => 9,
        Event::Api { .. } => 10,
        Event::Answered { .. } => 11,
        Event::ToServer { .. } => 12,
        Event::ToAgent { .. } => 13,
        Event::Unanswered { .. } => 14,
        Event::PollEnds { .. } => 15,
        Event::AgentStarts(_) => 16,
        Event::AgentLine { .. } => 17,
        Event::AgentWorks { .. } => 18,
        Event::AgentTick { .. } => 19,
        Event::Journal { .. } => 20,
        Event::Operator(_) => 21,
        Event::Fault(_) | Event::FaultEnds(_) => 22,
        Event::Heal | Event::Tend(_) => 23,
        Event::Look(_) => 24,
    }
}
