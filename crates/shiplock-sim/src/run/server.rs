//! A server in the simulation: the production driver machine, step machines, seats of agents and lease rules, under a
//! loop that stands in for tokio's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use shiplock_api::agent::{PermitResponse, ReportResponse};
use shiplock_core::facts::{ClusterFacts, Facts, NodeFacts, Observed};
use shiplock_core::id::{Epoch, NodeName, StepNumber, UpgradeId};
use shiplock_core::planted::{self, Bug};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{Event, EventRecord, Policy, WaitingOn};
use shiplock_server::driver::machine::{Input, Machine, Output, Ticket};
use shiplock_server::driver::step::{
    Answer, Outside, Request, RequestNumber, SeenNode, StepContext, StepInput, StepMachine, StepOutput, StepTime,
};
use shiplock_server::driver::{LEASE_SECONDS, fold_on, holds_until, outlasts_a_request, tell};
use shiplock_server::hub::Seats;
use shiplock_server::store::{LeaseWanted, MemoryStore, Store as _, StoreError};

use super::agent::Reply;
use crate::world::{Moment, World};

/// Names an exchange of an agent with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Exchange {
    pub(super) node: u32,
    pub(super) life: u32,
    pub(super) number: u64,
}

/// A server process.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) up: bool,
    pub(super) life: u32,
    pub(super) started_at: Moment,
    /// Its wall clock is so far off.
    pub(super) skew: SignedDuration,
    pub(super) seats: Seats,
    pub(super) driver: Option<Driver>,
    pub(super) polls: BTreeMap<NodeName, (Exchange, Option<shiplock_api::agent::AssignmentId>)>,
    pub(super) drivers: u32,
}

/// The driver of the upgrade in a server.
#[derive(Clone, Debug)]
pub(super) struct Driver {
    pub(super) number: u32,
    pub(super) machine: Machine,
    pub(super) epoch: Epoch,
    pub(super) lease_until: Duration,
    pub(super) steps: BTreeMap<StepNumber, RunningStep>,
    progress: BTreeMap<StepNumber, Vec<WaitingOn>>,
    pub(super) waits: Vec<WaitingOn>,
    pub(super) wake: u64,
    observed: Option<Observed<Arc<ClusterFacts>>>,
    /// The version of the world that was observed.
    pub(super) seen_version: u64,
    pub(super) look_queued: bool,
    facts_changed: bool,
    pub(super) claimed: bool,
    pub(super) claim_len: u64,
    pub(super) claim_resting: bool,
    tickets: BTreeMap<Ticket, (Exchange, Asked)>,
    next_ticket: Ticket,
}

#[derive(Clone, Debug)]
enum Asked {
    Permit(shiplock_api::agent::PermitRequest),
    Report(shiplock_api::agent::AssignmentId),
}

/// A step of the server in work.
#[derive(Clone, Debug)]
pub(super) struct RunningStep {
    pub(super) attempt: u32,
    machine: StepMachine,
    began_at: Moment,
    pub(super) rest: u64,
    pub(super) is_resting: bool,
    at_least_until: Moment,
}

/// What a server wants of the simulation.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Append {
        expected_len: u64,
        events: Vec<Event>,
    },
    Ask {
        step: StepNumber,
        attempt: u32,
        number: RequestNumber,
        request: Request,
    },
    Rest {
        step: StepNumber,
        attempt: u32,
        rest: u64,
        at: Moment,
    },
    WakeAt(Moment, u64),
    Reply(Exchange, Reply),
    /// The upgrade ended, or its log cannot be read.
    Stop(Option<String>),
    /// Its own loop ends: the lease may be lost. Look again later.
    Later,
}

/// Runs a future of a store that never waits.
pub(super) fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a store in memory answers at once")
}

impl Server {
    pub(super) fn new(life: u32, now: Moment) -> Self {
        Self {
            up: true,
            life,
            started_at: now,
            skew: SignedDuration::ZERO,
            seats: Seats::default(),
            driver: None,
            polls: BTreeMap::new(),
            drivers: 0,
        }
    }

    /// What its wall clock shows.
    pub(super) fn clock(&self, now: Moment) -> Timestamp {
        now.timestamp().checked_add(self.skew).unwrap_or(Timestamp::MAX)
    }

    /// Its monotonic clock.
    pub(super) fn monotonic(&self, now: Moment) -> Duration {
        now.since(self.started_at)
    }

    fn uptime(&self, now: Moment) -> u64 {
        self.monotonic(now).as_secs()
    }

    /// Takes the upgrade over if it may, as `takeover` and the supervisor do. The records that it appended.
    pub(super) fn take_over(
        &mut self,
        index: usize,
        store: &MemoryStore,
        id: &UpgradeId,
        policy: Policy,
        now: Moment,
    ) -> Option<Vec<EventRecord>> {
        let row = now_or_never(store.upgrade(id)).ok()??;
        if !row.active || self.driver.is_some() {
            return None;
        }
        let holder = format!("server-{index}-{}", self.life);
        let held = now_or_never(store.lease(id)).ok()?;
        if held.is_some_and(|lease| lease.holder != holder && lease.expires_at > self.clock(now)) {
            // Folding the log would be in vain.
            return None;
        }
        let mut events = Vec::new();
        loop {
            let page = now_or_never(store.events(id, events.len() as u64, 1000)).ok()?;
            let full = page.len() == 1000;
            events.extend(page);
            if !full {
                break;
            }
        }
        let upgrade = fold_on(id, None, &events).ok()??;
        let wanted = [LeaseWanted { upgrade: id.clone(), expected_len: upgrade.len }];
        let taken = now_or_never(store.take_leases(&wanted, &holder, self.clock(now), LEASE_SECONDS)).ok()?.pop()??;
        let upgrade = upgrade.apply(&taken.record).ok()?;
        let since = self.clock(now);
        let problem = Problem::new(Code::ClusterNotRead).with("cluster", &upgrade.plan.cluster).with("since", since);
        let facts = Facts {
            cluster: Observed::Unknown { problem, since },
            agents: self.seats.agents(),
            progress: BTreeMap::new(),
            uptime_seconds: self.uptime(now),
            precheck: Some(Vec::new()),
        };
        let claim_len = upgrade.len;
        let mut machine = Machine::new(upgrade, policy);
        let waits = tell(&mut machine, facts, self.clock(now));
        self.drivers += 1;
        self.driver = Some(Driver {
            number: self.drivers,
            machine,
            epoch: taken.lease.epoch,
            lease_until: holds_until(self.monotonic(now)),
            steps: BTreeMap::new(),
            progress: BTreeMap::new(),
            waits,
            wake: 0,
            observed: None,
            seen_version: 0,
            look_queued: false,
            facts_changed: true,
            claimed: false,
            claim_len,
            claim_resting: false,
            tickets: BTreeMap::new(),
            next_ticket: 0,
        });
        Some(vec![taken.record])
    }

    pub(super) fn may_act(&self, now: Moment) -> bool {
        self.driver.as_ref().is_some_and(|driver| outlasts_a_request(driver.lease_until, self.monotonic(now)))
    }

    /// Renews the lease; the driver ends where that is refused or comes too late.
    pub(super) fn renew(&mut self, store: &MemoryStore, id: &UpgradeId, now: Moment) -> bool {
        let (monotonic, clock) = (self.monotonic(now), self.clock(now));
        let may_act = self.may_act(now);
        let Some(driver) = &mut self.driver else { return true };
        if planted::is(Bug::LeaseIgnored) {
            return true;
        }
        if !may_act {
            return false;
        }
        match now_or_never(store.renew_leases(&[(id.clone(), driver.epoch)], clock, LEASE_SECONDS)) {
            Ok(answers) => match answers.into_iter().next() {
                Some(Ok(_)) => {
                    driver.lease_until = holds_until(monotonic);
                    true
                }
                Some(Err(StoreError::LeaseLost { .. })) => false,
                _ => true,
            },
            Err(_) => true,
        }
    }

    pub(super) fn drop_driver(&mut self, id: &UpgradeId) {
        self.driver = None;
        self.seats.withdraw_all(id);
    }

    /// What the cluster shows to its watches.
    pub(super) fn observe(&mut self, observed: Result<ClusterFacts, Problem>, version: u64, now: Moment) {
        let since = self.clock(now);
        let Some(driver) = &mut self.driver else { return };
        driver.seen_version = version;
        driver.observed = Some(match observed {
            Ok(facts) => {
                let observed_at = facts.observed_at.checked_add(self.skew).unwrap_or(since);
                Observed::Known(Arc::new(ClusterFacts { observed_at, ..facts }))
            }
            Err(problem) => {
                let since = match &driver.observed {
                    Some(Observed::Unknown { since, .. }) => *since,
                    _ => since,
                };
                Observed::Unknown { problem, since }
            }
        });
        driver.facts_changed = true;
    }

    /// Whether the machine waits for a newer look at the cluster.
    pub(super) fn wants_newer(&self) -> bool {
        self.driver.as_ref().is_some_and(|driver| match &driver.observed {
            Some(Observed::Known(facts)) => driver.machine.wants_newer(facts),
            _ => false,
        })
    }

    pub(super) fn agents_changed(&mut self) {
        if let Some(driver) = &mut self.driver {
            driver.facts_changed = true;
        }
    }

    /// Whether caches say that a budget allows a disruption.
    fn budget_allows(&self, budget: &str) -> Option<bool> {
        let driver = self.driver.as_ref()?;
        let Some(Observed::Known(facts)) = &driver.observed else { return None };
        let found = facts.budgets.iter().find(|found| {
            budget.strip_prefix(found.namespace.as_str()).and_then(|rest| rest.strip_prefix('/'))
                == Some(found.name.as_str())
        })?;
        Some(found.disruptions_allowed > 0)
    }

    /// A node as caches show it.
    fn seen_node(&self, node: &NodeName) -> Option<NodeFacts> {
        let Some(Observed::Known(facts)) = &self.driver.as_ref()?.observed else { return None };
        facts.nodes.get(node).cloned()
    }

    /// Feeds one input as the shell does: facts first.
    pub(super) fn feed(&mut self, input: Input, now: Moment) -> Vec<Wish> {
        let mut wishes = Vec::new();
        if !self.may_act(now) {
            if self.driver.is_some() {
                wishes.push(Wish::Later);
            }
            return wishes;
        }
        let clock = self.clock(now);
        let uptime_seconds = self.uptime(now);
        let agents = self.driver.as_ref().filter(|driver| driver.facts_changed).map(|_| self.seats.agents());
        let Some(driver) = &mut self.driver else { return wishes };
        let mut outputs = Vec::new();
        if let (Some(observed), Some(agents)) = (&driver.observed, agents) {
            let facts = Facts {
                cluster: observed.clone(),
                agents,
                progress: driver.progress.clone(),
                uptime_seconds,
                precheck: Some(Vec::new()),
            };
            driver.facts_changed = false;
            outputs.extend(driver.machine.on(Input::Facts(Box::new(facts)), clock));
        }
        outputs.extend(driver.machine.on(input, clock));
        for output in outputs {
            self.carry_out(output, now, &mut wishes);
        }
        wishes
    }

    fn carry_out(&mut self, output: Output, now: Moment, wishes: &mut Vec<Wish>) {
        let clock = self.clock(now);
        match output {
            Output::Append { expected_len, events } => wishes.push(Wish::Append { expected_len, events }),
            Output::RunStep { step, attempt, since } => {
                let Some(driver) = &mut self.driver else { return };
                let context = StepContext::of(driver.machine.upgrade(), driver.epoch, &step);
                let number = step.number;
                let machine = StepMachine::new(*step, context, since, clock);
                driver.steps.insert(
                    number,
                    RunningStep { attempt, machine, began_at: now, rest: 0, is_resting: false, at_least_until: now },
                );
                self.feed_step(number, attempt, StepInput::Begin, now, wishes);
            }
            Output::Offer(assignment) => {
                let node = assignment.node.clone();
                self.seats.offer(*assignment);
                self.answer_poll(&node, wishes);
            }
            Output::Withdraw(node) => self.seats.withdraw(&node),
            Output::AnswerPermit(ticket, response) => {
                if let Some((exchange, Asked::Permit(request))) =
                    self.driver.as_mut().and_then(|driver| driver.tickets.remove(&ticket))
                {
                    wishes.push(Wish::Reply(exchange, Reply::Permit { request, response }));
                }
            }
            Output::AnswerReport(ticket, response) => {
                if let Some((exchange, Asked::Report(id))) =
                    self.driver.as_mut().and_then(|driver| driver.tickets.remove(&ticket))
                {
                    wishes.push(Wish::Reply(exchange, Reply::Report { id, response }));
                }
            }
            Output::Waits(waits) => {
                if let Some(driver) = &mut self.driver {
                    driver.waits = waits;
                }
            }
            Output::WakeAt(at) => {
                if let Some(driver) = &mut self.driver {
                    driver.wake += 1;
                    let after = Duration::try_from(at.duration_since(clock)).unwrap_or_default();
                    let after = after.clamp(Duration::from_millis(10), Duration::from_secs(30));
                    wishes.push(Wish::WakeAt(now + after, driver.wake));
                }
            }
            Output::Stop(illegal) => wishes.push(Wish::Stop(illegal.map(|illegal| illegal.to_string()))),
        }
    }

    /// Feeds a step of the server, and the driver with its end.
    pub(super) fn feed_step(
        &mut self,
        number: StepNumber,
        attempt: u32,
        input: StepInput,
        now: Moment,
        wishes: &mut Vec<Wish>,
    ) {
        let clock = self.clock(now);
        let Some(mut running) = self.driver.as_mut().and_then(|driver| driver.steps.remove(&number)) else { return };
        if running.attempt != attempt {
            if let Some(driver) = &mut self.driver {
                driver.steps.insert(number, running);
            }
            return;
        }
        let time = StepTime { now: clock, elapsed: now.since(running.began_at) };
        let outputs = {
            let agent = |node: &NodeName| self.seats.machine(node).cloned();
            let budget_allows = |budget: &str| self.budget_allows(budget);
            let node = |node: &NodeName| self.seen_node(node).map(SeenNode::from);
            let outside = Outside { agent: &agent, budget_allows: &budget_allows, node: &node };
            running.machine.on(input, time, &outside)
        };
        let mut ended = None;
        for output in outputs {
            match output {
                StepOutput::Ask(request_number, request) => {
                    wishes.push(Wish::Ask { step: number, attempt, number: request_number, request })
                }
                StepOutput::Waits(waits) => self.set_progress(number, waits),
                StepOutput::Rest { at_least, at_most } => {
                    running.rest += 1;
                    running.is_resting = true;
                    running.at_least_until = now + at_least;
                    wishes.push(Wish::Rest { step: number, attempt, rest: running.rest, at: now + at_most });
                }
                StepOutput::Ended(result) => ended = Some(result),
            }
        }
        match ended {
            None => {
                if let Some(driver) = &mut self.driver {
                    driver.steps.insert(number, running);
                }
            }
            Some(result) => {
                self.set_progress(number, Vec::new());
                wishes.extend(self.feed(Input::StepEnded { step: number, attempt, result }, now));
            }
        }
    }

    fn set_progress(&mut self, step: StepNumber, waits: Vec<WaitingOn>) {
        let Some(driver) = &mut self.driver else { return };
        let before =
            if waits.is_empty() { driver.progress.remove(&step) } else { driver.progress.insert(step, waits.clone()) };
        let keys = |waits: &[WaitingOn]| waits.iter().map(WaitingOn::key).collect::<Vec<_>>();
        if keys(before.as_deref().unwrap_or_default()) != keys(&waits) {
            driver.facts_changed = true;
        }
    }

    /// The answer of caches to a request for facts; none where the API server must be asked.
    pub(super) fn cached_answer(&self, request: &Request) -> Option<Answer> {
        if *request != Request::Facts {
            return None;
        }
        let driver = self.driver.as_ref()?;
        match &driver.observed {
            Some(Observed::Known(facts)) => Some(Answer::Facts(Ok(facts.clone()))),
            Some(Observed::Unknown { problem, .. }) => Some(Answer::Facts(Err(problem.clone()))),
            None => Some(Answer::Facts(Err(Problem::new(Code::ClusterNotRead)))),
        }
    }

    /// What an append came to: the input that follows, or the driver ends.
    pub(super) fn appended(
        &self,
        result: Result<Vec<EventRecord>, StoreError>,
        store: &MemoryStore,
        id: &UpgradeId,
    ) -> Option<Input> {
        let driver = self.driver.as_ref()?;
        match result {
            Ok(records) => Some(Input::Appended(records)),
            Err(StoreError::Conflict { .. }) => {
                Some(Input::Overtaken(now_or_never(store.events(id, driver.machine.upgrade().len, 1000)).ok()?))
            }
            Err(StoreError::LeaseLost { .. }) => None,
            Err(_) => Some(Input::AppendFailed),
        }
    }

    // ---- agents ----

    pub(super) fn answer_poll(&mut self, node: &NodeName, wishes: &mut Vec<Wish>) {
        let Some((exchange, in_work)) = self.polls.get(node).cloned() else { return };
        if let Some(offer) = self.seats.news(node, in_work.as_ref()).cloned() {
            self.polls.remove(node);
            let reply = Reply::Poll { assignment: Some(Box::new(offer)), send_machine: false };
            wishes.push(Wish::Reply(exchange, reply));
        }
    }

    /// A permit is asked for, or a report comes.
    pub(super) fn permit(
        &mut self,
        exchange: Exchange,
        request: shiplock_api::agent::PermitRequest,
        now: Moment,
    ) -> Vec<Wish> {
        let lease_holds = self.may_act(now);
        let Some(driver) = self.driver.as_mut().filter(|driver| driver.machine.upgrade().id == request.id.upgrade)
        else {
            let problem = Problem::new(Code::PermitRefused).with("why", "this server does not drive the upgrade");
            return vec![Wish::Reply(
                exchange,
                Reply::Permit { request, response: PermitResponse::Refused { problem } },
            )];
        };
        driver.next_ticket += 1;
        let ticket = driver.next_ticket;
        let id = request.id.clone();
        driver.tickets.insert(ticket, (exchange, Asked::Permit(request)));
        self.feed(Input::Permit { id, lease_holds, ticket }, now)
    }

    pub(super) fn report(&mut self, exchange: Exchange, report: shiplock_api::agent::Report, now: Moment) -> Vec<Wish> {
        let Some(driver) = self.driver.as_mut().filter(|driver| driver.machine.upgrade().id == report.id.upgrade)
        else {
            let response: Option<ReportResponse> = None;
            return vec![Wish::Reply(exchange, Reply::Report { id: report.id, response })];
        };
        driver.next_ticket += 1;
        let ticket = driver.next_ticket;
        driver.tickets.insert(ticket, (exchange, Asked::Report(report.id.clone())));
        self.feed(Input::Report { id: report.id, node: report.node, kind: report.kind, ticket }, now)
    }

    /// Rests that news from the cluster cuts short.
    pub(super) fn cut_rests(&mut self, now: Moment, wishes: &mut Vec<Wish>) {
        let Some(driver) = &mut self.driver else { return };
        for (step, running) in &mut driver.steps {
            if running.is_resting {
                let at = running.at_least_until.max(now);
                wishes.push(Wish::Rest { step: *step, attempt: running.attempt, rest: running.rest, at });
            }
        }
    }
}

/// An answer that says that the API does not answer.
pub(super) fn no_answer(request: &Request, world: &World, code: Code) -> Answer {
    let problem = Problem::new(code).with("cluster", "sim").with("at", world.now().timestamp());
    match request {
        Request::Facts => Answer::Facts(Err(problem)),
        Request::Node(_) => Answer::Node(Err(problem)),
        Request::PodsOn(_) => Answer::PodsOn(Err(problem)),
        Request::Cordon { .. } => Answer::Cordon(Err(problem)),
        Request::Uncordon { .. } => Answer::Uncordon(Err(problem)),
        Request::Evict(_) | Request::Delete(_) => Answer::Eviction(Err(problem)),
    }
}
