//! Fault simulation on the World seam: servers, agents, network and disks under one queue of virtual time.
//!
//! What is production code here and what stands in for something is listed in `docs/simulator.md`.

mod agent;
mod api;
pub mod check;
mod drive;
mod event;
pub mod everywhere;
mod executor;
pub mod fault;
pub mod gateway;
mod message;
mod node;
mod operate;
mod server;
mod setup;
mod transcript;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use shiplock_agent::machine::Input as AgentInput;
use shiplock_api::agent::Assignment;
use shiplock_core::id::{Actor, ClusterName, ClusterUid, UpgradeId};
use shiplock_core::problem::Problem;
use shiplock_core::upgrade::{Event as LogEvent, EventRecord, Policy, State, Upgrade};
use shiplock_server::driver::machine::Input;
use shiplock_server::driver::step::StepInput;
use shiplock_server::store::{ClusterRecord, MemoryStore, NewUpgrade, Store as _, StoreError};

use self::agent::{Agent, Reply};
use self::check::{Checkers, Violation};
pub use self::event::Process;
use self::event::{Ask, DriverId, Event, Queued, Write, kind_of};
use self::fault::{Fault, Faults};
use self::gateway::Gateway;
use self::operate::TEND_EVERY;
use self::server::{Server, now_or_never};
pub use self::setup::{BEGIN, BudgetSetup, CLUSTER, Setup, WorkloadSetup};
pub use crate::release::{FROM, TO, artefacts};
use crate::world::{Moment, Text, Work, World, uuid_text};

/// A server looks at its watches this often, whether they tell of anything or not.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What an operator does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Pause.
    Pause,
    /// Continue.
    Continue,
    /// Cancel, giving up nodes by name.
    Cancel(Vec<String>),
    /// Change the bound on batches.
    MaxParallel(u32),
    /// Ask for a second upgrade of the cluster.
    SecondUpgrade,
}

/// What was done to the cluster or a node by us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// A mark and cordon was written, or taken off.
    Marked {
        /// The node.
        node: u32,
        /// Under this epoch.
        epoch: u64,
        /// Cordoned, or given back.
        cordoned: bool,
        /// It was unschedulable before without our mark.
        others_before: bool,
    },
    /// A pod was told to end.
    Evicted {
        /// Its UID.
        uid: u128,
        /// Its node.
        node: Option<u32>,
        /// By deletion, budgets notwithstanding.
        forced: bool,
        /// The epoch of the driver.
        epoch: u64,
    },
    /// An agent took work up.
    Begun {
        /// The node.
        node: u32,
        /// The work.
        assignment: Box<Assignment>,
    },
    /// A program of an agent was started.
    Unit {
        /// The node.
        node: u32,
        /// The unit.
        name: Text,
        /// What it does.
        work: Work,
    },
}

/// The network between agents and servers, and the way to the API.
#[derive(Clone, Debug)]
pub struct Network {
    /// One way takes at least and at most so many milliseconds.
    pub delay_milliseconds: (u32, u32),
    /// Messages lost, in thousandths.
    pub loss: u32,
    /// Messages that come twice, in thousandths.
    pub twice: u32,
    /// Messages that come up to 40 seconds late, in thousandths.
    pub late: u32,
}

impl Default for Network {
    fn default() -> Self {
        Self { delay_milliseconds: (1, 4), loss: 0, twice: 0, late: 0 }
    }
}

/// A simulated upgrade.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// The cluster.
    pub world: World,
    store: MemoryStore,
    servers: Vec<Server>,
    agents: Vec<Option<Agent>>,
    queue: BinaryHeap<Reverse<Queued>>,
    sequence: u64,
    exchanges: u64,
    now: Moment,
    luck: ChaCha8Rng,
    policy: Policy,
    id: UpgradeId,
    /// The fold of the log, kept by the observer and not by any server.
    log: Upgrade,
    /// Records that the checkers have not seen.
    fresh: Vec<EventRecord>,
    acts: Vec<Act>,
    faults: Faults,
    network: Network,
    /// Which server agents reach.
    address: usize,
    checkers: Checkers,
    violation: Option<Violation>,
    fingerprint: u64,
    handled: u64,
    appends_on_full_disk: u64,
    transcript: Option<Vec<String>>,
    /// No server looks for the upgrade before: an operator begins one once agents were heard of.
    opens_at: Moment,
    /// Every server has stopped driving.
    stopped: bool,
    seen_world: u64,
    /// Polls on their way that carried a machine.
    told: BTreeSet<u64>,
    /// The ways of the servers to the API; none where requests go to the world itself.
    gateways: Vec<Box<dyn Gateway>>,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct RunResult {
    /// The state at the end.
    pub state: State,
    /// What broke, if anything did.
    pub violation: Option<Violation>,
    /// When, in virtual time since the begin.
    pub took: Duration,
    /// Events that were handled.
    pub events: u64,
    /// Over everything that happened: equal for equal seeds.
    pub fingerprint: u64,
    /// Pods that did not end before SIGKILL.
    pub killed_pods: u64,
    /// Appends for which the store had no room.
    pub appends_on_full_disk: u64,
}

impl Simulation {
    /// An upgrade that was just created, with servers and agents about to start. Refused where there is no plan.
    pub fn new(setup: &Setup, seed: u64, servers: usize) -> Result<Self, Problem> {
        Self::over(setup.world(seed), setup, seed, servers)
    }

    /// The same over a world that is at rest.
    pub fn over(mut world: World, setup: &Setup, seed: u64, servers: usize) -> Result<Self, Problem> {
        let plan = setup.plan(&world)?;
        let store = MemoryStore::new();
        let uid = ClusterUid::new(uuid_text(world.cluster_uid()));
        let name = ClusterName::from(CLUSTER);
        let record = ClusterRecord {
            name: name.clone(),
            uid,
            server: "https://sim:6443".to_owned(),
            sealed_kubeconfig: Vec::new(),
            mirror: None,
            added_at: world.now().timestamp(),
        };
        let refused = |error: StoreError| match error {
            StoreError::Refused(problem) => problem,
            other => Problem::new(shiplock_core::problem::Code::StoreFailed).with("operation", "begin").because(&other),
        };
        now_or_never(store.add_cluster(&record)).map_err(refused)?;
        let id = UpgradeId::from("u1");
        let event = LogEvent::Planned { plan: Box::new(plan), by: Actor::from("operator") };
        let new =
            NewUpgrade { id: id.clone(), cluster: name, event, now: world.now().timestamp(), idempotency_key: None };
        let first = now_or_never(store.create_upgrade(&new)).map_err(refused)?;
        let log = Upgrade::begin(&first)
            .map_err(|illegal| Problem::new(shiplock_core::problem::Code::Internal).because(&illegal))?;
        world.record_units();
        let now = world.now();
        let checkers = Checkers::new(&log);
        let mut simulation = Self {
            servers: (0..servers).map(|_| Server::new(0, now)).collect(),
            agents: Vec::new(),
            queue: BinaryHeap::new(),
            sequence: 0,
            exchanges: 0,
            now,
            luck: ChaCha8Rng::seed_from_u64(seed ^ 0x5eed_5eed),
            policy: Policy::default(),
            id,
            log,
            fresh: vec![first],
            acts: Vec::new(),
            faults: Faults::default(),
            network: Network::default(),
            address: 0,
            checkers,
            violation: None,
            fingerprint: 0xcbf2_9ce4_8422_2325,
            handled: 0,
            appends_on_full_disk: 0,
            transcript: None,
            opens_at: now + Duration::from_secs(5),
            stopped: false,
            seen_world: 0,
            told: BTreeSet::new(),
            gateways: Vec::new(),
            store,
            world,
        };
        for index in 0..servers {
            simulation.servers[index].up = false;
            simulation.queue(Duration::from_millis(10 + 700 * index as u64), Event::ServerStarts(index));
        }
        let nodes: Vec<u32> = simulation.world.nodes().iter().map(|(id, _)| id).collect();
        for node in nodes {
            let after = simulation.between(1, 200);
            simulation.queue(Duration::from_millis(after), Event::AgentStarts(node));
        }
        Ok(simulation)
    }

    /// The time.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// How many servers there are.
    pub fn server_count(&self) -> usize {
        self.servers.len()
    }

    /// Servers reach the API in these ways from now on: one for each.
    pub fn reach_api_through(&mut self, gateways: Vec<Box<dyn Gateway>>) {
        self.gateways = gateways;
    }

    /// The upgrade, as its log tells.
    pub fn upgrade(&self) -> &Upgrade {
        &self.log
    }

    /// Why the upgrade does not move, as a server shows it.
    pub fn waits(&self) -> Vec<shiplock_core::upgrade::WaitingOn> {
        self.servers
            .iter()
            .filter_map(|server| server.driver.as_ref())
            .map(|driver| driver.waits.clone())
            .next()
            .unwrap_or_default()
    }

    /// What broke, if anything did.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// The checkers.
    pub fn checkers_mut(&mut self) -> &mut Checkers {
        &mut self.checkers
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        self.luck.random_range(least..=most)
    }

    fn chance(&mut self, thousandths: u32) -> bool {
        thousandths > 0 && self.luck.random_range(0..1000) < thousandths
    }

    fn queue(&mut self, after: Duration, event: Event) {
        self.queue_at(self.now + after, event);
    }

    fn queue_at(&mut self, at: Moment, event: Event) {
        self.sequence += 1;
        self.queue.push(Reverse(Queued { at: at.max(self.now), sequence: self.sequence, event }));
    }

    /// An operator does this after a while.
    pub fn operate(&mut self, after: Duration, operation: Operation) {
        self.queue(after, Event::Operator(operation));
    }

    /// A fault comes after a while.
    pub fn fault(&mut self, after: Duration, fault: Fault) {
        self.queue(after, Event::Fault(Box::new(fault)));
    }

    /// Everything is mended after a while; from then on it must end in bounded time.
    pub fn heal(&mut self, after: Duration) {
        self.queue(after, Event::Heal);
    }

    /// Lets the next thing happen. False when nothing will, the upgrade has ended, or something broke.
    pub fn step(&mut self) -> bool {
        if self.violation.is_some() || self.stopped {
            return false;
        }
        let ours = self.queue.peek().map(|queued| queued.0.at);
        let theirs = self.world.next_at();
        match (ours, theirs) {
            (None, None) => return false,
            (Some(at), theirs) if theirs.is_none_or(|theirs| at <= theirs) => {
                let Some(Reverse(queued)) = self.queue.pop() else { return false };
                self.now = at;
                self.world.advance(at);
                self.mark(u64::from(kind_of(&queued.event)));
                self.handle(queued.event);
            }
            (_, Some(at)) => {
                self.now = self.now.max(at);
                self.world.step();
                self.mark(99);
            }
            (Some(_), None) => return false,
        }
        self.handled += 1;
        self.notice_world();
        self.check();
        true
    }

    fn mark(&mut self, number: u64) {
        for part in [number, self.now.0 as u64, self.world.version()] {
            self.fingerprint = (self.fingerprint ^ part).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Watches tell of a changed world after a moment.
    fn notice_world(&mut self) {
        if self.seen_world == self.world.version() {
            return;
        }
        self.seen_world = self.world.version();
        for index in 0..self.servers.len() {
            self.queue_observation(index);
        }
    }

    fn queue_observation(&mut self, index: usize) {
        let lag = self.faults.watch_lag;
        let server = &mut self.servers[index];
        let life = server.life;
        let Some(driver) = server.driver.as_mut().filter(|driver| !driver.look_queued) else { return };
        driver.look_queued = true;
        let id = DriverId { server: index, life, number: driver.number };
        self.queue(Duration::from_millis(60) + lag, Event::Observe(id));
    }

    fn check(&mut self) {
        for (node, name, work) in self.world.take_started() {
            self.acts.push(Act::Unit { node, name, work });
        }
        if self.fresh.is_empty() && self.acts.is_empty() && self.checkers.have_seen(self) {
            return;
        }
        let fresh = std::mem::take(&mut self.fresh);
        let acts = std::mem::take(&mut self.acts);
        let mut checkers = std::mem::take(&mut self.checkers);
        let found = checkers.after(self, &fresh, &acts);
        self.checkers = checkers;
        if let Some(violation) = found {
            self.say(|| format!("VIOLATION {violation}"));
            self.violation = Some(violation);
        }
    }

    /// An invariant does not hold, unless its checker was taken away.
    fn violate(&mut self, invariant: u8, detail: String) {
        if self.checkers.is_on(invariant) {
            self.violation = Some(Violation { invariant, detail, at: self.now });
        }
    }

    /// Runs until it ends, or until so much virtual time has passed.
    pub fn run(&mut self, at_most: Duration) -> RunResult {
        let limit = BEGIN + at_most;
        while self.now < limit && self.step() {}
        if self.violation.is_none() && !self.log.state.is_terminal() {
            let waits = self.waits().iter().map(|wait| wait.key()).collect::<Vec<_>>().join("; ");
            let detail = format!(
                "it is {} after {} s and waits for: {waits}",
                self.log.state.word(),
                self.now.since(BEGIN).as_secs()
            );
            self.violate(11, detail);
        }
        if self.violation.is_none() {
            let checkers = std::mem::take(&mut self.checkers);
            self.violation = checkers.at_end(self);
            self.checkers = checkers;
        }
        RunResult {
            state: self.log.state.clone(),
            violation: self.violation.clone(),
            took: self.now.since(BEGIN),
            events: self.handled,
            fingerprint: self.fingerprint,
            killed_pods: self.world.killed_pods(),
            appends_on_full_disk: self.appends_on_full_disk,
        }
    }

    fn is_current(&self, driver: DriverId) -> bool {
        self.servers.get(driver.server).is_some_and(|server| {
            server.up
                && server.life == driver.life
                && server.driver.as_ref().is_some_and(|held| held.number == driver.number)
        })
    }

    fn driver_id(&self, server: usize) -> Option<DriverId> {
        let held = self.servers.get(server)?;
        Some(DriverId { server, life: held.life, number: held.driver.as_ref()?.number })
    }

    /// The server whose process an event needs.
    fn server_of(event: &Event) -> Option<usize> {
        match event {
            Event::Appended { driver, .. }
            | Event::Observe(driver)
            | Event::Look(driver)
            | Event::Claim(driver)
            | Event::ClaimAgain(driver)
            | Event::Wakes { driver, .. }
            | Event::Rested { driver, .. } => Some(driver.server),
            Event::Answered { ask, .. } => Some(ask.driver.server),
            Event::ToServer { server, .. }
            | Event::PollEnds { server, .. }
            | Event::Supervise { server, .. }
            | Event::Renew { server, .. } => Some(*server),
            _ => None,
        }
    }

    fn handle(&mut self, event: Event) {
        if !self.faults.server_frozen.is_empty()
            && Self::server_of(&event).is_some_and(|server| self.faults.server_frozen.contains(&server))
        {
            // A process that stands still goes on where it stood.
            return self.queue(Duration::from_millis(500), event);
        }
        match event {
            Event::ServerStarts(index) => self.server_starts(index),
            Event::Supervise { server, life } => self.supervise(server, life),
            Event::Renew { server, life } => self.renew(server, life),
            Event::Append { driver, expected_len, events } => self.append(driver, expected_len, &events),
            Event::Appended { driver, input } => {
                if !self.is_current(driver) {
                    return;
                }
                match input {
                    None => self.later(driver.server),
                    Some(input) => self.feed(driver.server, *input),
                }
                self.claim_moves(driver);
            }
            Event::Observe(driver) => self.observe(driver),
            Event::Look(driver) => {
                if self.is_current(driver) {
                    // Without a gateway changes are told by themselves; that nothing can be told any more is seen here.
                    if !self.gateways.is_empty() || check::is_api_away(self) {
                        self.queue_observation(driver.server);
                    }
                    self.queue(LOOK_EVERY, Event::Look(driver));
                }
            }
            Event::Claim(driver) => self.claim(driver),
            Event::ClaimAgain(driver) => {
                if self.is_current(driver) {
                    self.claim(driver);
                }
            }
            Event::Wakes { driver, wake } => {
                if self.is_current(driver)
                    && self.servers[driver.server].driver.as_ref().is_some_and(|held| held.wake == wake)
                {
                    self.servers[driver.server].agents_changed();
                    self.feed(driver.server, Input::Tick);
                }
            }
            Event::Rested { driver, step, attempt, rest } => {
                if !self.is_current(driver) {
                    return;
                }
                let server = &mut self.servers[driver.server];
                let running = server.driver.as_mut().and_then(|driver| driver.steps.get_mut(&step));
                if let Some(running) =
                    running.filter(|running| running.attempt == attempt && running.rest == rest && running.is_resting)
                {
                    running.is_resting = false;
                    self.feed_step(driver, step, attempt, StepInput::Rested);
                }
            }
            Event::Api { ask, write } => self.api(*ask, write),
            Event::Answered { ask, answer } => {
                if self.is_current(ask.driver) {
                    self.feed_step(ask.driver, ask.step, ask.attempt, StepInput::Answered(ask.number, answer));
                }
            }
            Event::ToServer { server, exchange, line, message } => {
                self.server_receives(server, exchange, line, *message)
            }
            Event::ToAgent { exchange, line, reply, sent_machine } => {
                self.agent_receives(exchange, line, *reply, sent_machine)
            }
            Event::Unanswered { exchange, line, message } => self.unanswered(exchange, line, &message),
            Event::PollEnds { server, life, exchange, node } => {
                let held = &mut self.servers[server];
                if held.up && held.life == life && held.polls.get(&node).is_some_and(|(open, _)| *open == exchange) {
                    held.polls.remove(&node);
                    self.send_reply(exchange, Reply::Poll { assignment: None, send_machine: false });
                }
            }
            Event::AgentStarts(node) => self.agent_starts(node),
            Event::AgentLine { node, life, line } => self.agent_line(node, life, line),
            Event::AgentWorks { node, life, run } => {
                let current =
                    self.agent(node, life).is_some_and(|agent| agent.work.as_ref().is_some_and(|work| work.run == run));
                if current {
                    self.with_agent(node, |agent, world| agent.work(world, node));
                }
            }
            Event::AgentTick { node, life } => {
                if self.agent(node, life).is_some() {
                    self.with_agent(node, |agent, world| {
                        let mut wishes = Vec::new();
                        agent.input(AgentInput::Tick, world, node, &mut wishes);
                        wishes
                    });
                }
            }
            Event::Journal { node, life, bytes } => {
                if self.agent(node, life).is_some() {
                    self.world
                        .change_machine(node, |machine| Arc::make_mut(&mut machine.journal).extend_from_slice(&bytes));
                    self.with_agent(node, |agent, world| agent.written(world, node));
                }
            }
            Event::Operator(operation) => self.operator(&operation),
            Event::Fault(fault) => self.strike(&fault),
            Event::FaultEnds(fault) => self.fault_ends(&fault),
            Event::Heal => {
                self.mend();
                self.queue(TEND_EVERY, Event::Tend(1));
            }
            Event::Tend(times) => self.tend(times),
        }
    }
}
