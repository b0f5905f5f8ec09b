//! One run: the driver that upgrades real clusters drives the copy, under virtual time.
//!
//! The driver's machine with `decide`, the fold and the batch law is the server's, and so are the machines of the steps
//! that the server does itself. What stands in for the rest: the log is a list that nobody reads again, agents always
//! answer, and a step of an agent takes a time from its range.

mod person;
mod trace;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use shiplock_api::agent::ReportKind;
use shiplock_core::check::check_plan;
use shiplock_core::facts::{AgentFacts, ClusterFacts, Facts, Observed, WorkloadFacts};
use shiplock_core::id::{Actor, Epoch, NodeName, StepNumber, UpgradeId};
use shiplock_core::plan::{Plan, StageKind};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{Event, EventRecord, Policy, State, StepOutcome, Upgrade, Waiting, WaitingOn};
use shiplock_server::driver::machine::{Input, Machine, Output};
use shiplock_server::driver::step::StepContext;

use self::person::PERSON;
use self::trace::Unplaced;
pub(super) use self::trace::{Held, Span, Trace};
use super::report::HeldUntil;
use super::time::{Luck, Times};
use super::work::{Ended, Work};
use crate::machine::machine_facts;
use crate::world::{Moment, Node, ReadinessChange, WorkloadId, WorkloadKind, World};

/// How often a gate is asked again.
const GATE_ASKED: Duration = Duration::from_millis(300);
/// A pod that found no place for so long is told.
const UNPLACED_TOLD: Duration = Duration::from_secs(10);
/// An eviction that a budget held up for so long is told.
const HELD_UP_TOLD: Duration = Duration::from_secs(5);
/// No rehearsal takes more decisions for a node than this.
const DECISIONS_PER_NODE_MAX: usize = 20_000;

/// Runs a plan on a world.
pub(super) fn run(
    world: World,
    plan: Plan,
    facts: ClusterFacts,
    agents: BTreeMap<NodeName, AgentFacts>,
    luck: Luck,
) -> Trace {
    let mut run = Run::new(world, plan, facts, agents, luck);
    if let Err(problem) = run.drive() {
        run.trace.ended_early = Some(problem);
    }
    run.finish()
}

/// What holds up a drain.
struct Holding {
    wait: WaitingOn,
    since: Moment,
    /// The same, as the report counts time.
    began: Duration,
    /// None while it does.
    until: Option<Moment>,
    /// The time of the drain ran out on it.
    timed_out: bool,
}

impl Holding {
    fn is_budget(&self) -> bool {
        matches!(self.wait.what, Waiting::PodDisruptionBudget { .. })
    }
}

/// A run in work.
struct Run {
    world: World,
    begin: Moment,
    driver: Machine,
    inputs: VecDeque<Input>,
    /// What the driver waits for, and when it wants to look again.
    waits: Vec<WaitingOn>,
    wake_at: Timestamp,
    ended: bool,
    times: Times,
    work: BTreeMap<StepNumber, Work>,
    trace: Trace,
    /// Time that passed while only people could act, in all; and how much of it there was from a moment on.
    blocked: Duration,
    jumps: Vec<(Moment, Duration)>,
    /// Since when no pod has changed while everything in work waits for pods, with the newest change of any.
    quiet: Option<(u64, Moment)>,
    /// What holds up drains now, by step and by what it is.
    holding: BTreeMap<StepNumber, BTreeMap<String, Holding>>,
    unplaced: BTreeMap<u32, Unplaced>,
    /// The newest change of a pod that it was found with.
    unplaced_as_of: Option<u64>,
    masters: Vec<NodeName>,
    read: ReadNodes,
    /// Where each workload is among the facts.
    places: BTreeMap<WorkloadId, usize>,
    /// Workloads with fewer ready pods than in the baseline, as far as the facts tell.
    behind: BTreeSet<WorkloadId>,
    pauses: usize,
    /// How often the read-back of add-ons failed since more of their pods were as they shall be than ever before.
    add_ons_failed: u32,
    add_on_progress: u32,
}

impl Run {
    fn new(
        mut world: World,
        mut plan: Plan,
        cluster: ClusterFacts,
        agents: BTreeMap<NodeName, AgentFacts>,
        luck: Luck,
    ) -> Self {
        let mut times = Times::new(luck);
        let pace = times.pace(world.pace());
        world.set_pace(pace);
        for (workload, takes) in times.pod_ends(&plan) {
            if let Some(id) = workload_of(&world, workload) {
                world.set_end(id, takes);
            }
        }
        world.record_readiness();
        let begin = world.now();
        let now = begin.timestamp();
        let mut trace = Trace::default();
        // What stops the start is told, and the rehearsal goes on as if it had been seen to.
        for finding in check_plan(&plan, &cluster, &agents, now).blocking() {
            plan.options.accept.push(finding.check.clone());
            trace.findings.push(finding.clone());
        }
        let record = |number, event| EventRecord {
            upgrade: UpgradeId::from("rehearsal"),
            number,
            position: number,
            at: now,
            epoch: None,
            event,
        };
        // A log that begins so always folds.
        let mut upgrade = Upgrade::begin(&record(1, Event::Planned { plan: Box::new(plan), by: Actor::from(PERSON) }))
            .unwrap_or_else(|illegal| unreachable!("{illegal}"));
        let lease = Event::LeaseTaken { epoch: Epoch(1), holder: PERSON.to_owned() };
        upgrade.advance(&record(2, lease)).unwrap_or_else(|illegal| unreachable!("{illegal}"));
        let masters = cluster.nodes.iter().filter(|(_, node)| node.is_control_plane()).map(|(name, _)| name.clone());
        let masters = masters.collect();
        let facts = Facts {
            cluster: Observed::Known(Arc::new(cluster)),
            agents,
            progress: BTreeMap::new(),
            uptime_seconds: 86_400,
            precheck: Some(Vec::new()),
        };
        Self {
            masters,
            begin,
            driver: Machine::new(upgrade, Policy::default()),
            inputs: [Input::Facts(Box::new(facts)), Input::Claim(None)].into(),
            waits: Vec::new(),
            wake_at: now,
            ended: false,
            times,
            work: BTreeMap::new(),
            trace,
            blocked: Duration::ZERO,
            jumps: Vec::new(),
            quiet: None,
            holding: BTreeMap::new(),
            unplaced: BTreeMap::new(),
            unplaced_as_of: None,
            read: ReadNodes::default(),
            places: world.workload_places(),
            behind: BTreeSet::new(),
            pauses: 0,
            add_ons_failed: 0,
            add_on_progress: 0,
            world,
        }
    }

    fn now(&self) -> Timestamp {
        self.world.now().timestamp()
    }

    /// Since the begin, without what waited for people.
    fn elapsed(&self) -> Duration {
        self.world.now().since(self.begin).saturating_sub(self.blocked)
    }

    fn drive(&mut self) -> Result<(), Problem> {
        let limit = DECISIONS_PER_NODE_MAX.saturating_mul(self.plan().nodes().count() + 10);
        for _ in 0..limit {
            while let Some(input) = self.inputs.pop_front() {
                let now = self.now();
                for output in self.driver.on(input, now) {
                    self.carry_out(output)?;
                }
            }
            if self.ended {
                return Ok(());
            }
            self.wait()?;
            self.refresh();
            if self.inputs.is_empty() {
                self.inputs.push_back(Input::Tick);
            }
        }
        Err(Problem::new(Code::Internal).with("what", "the rehearsal does not end"))
    }

    fn upgrade(&self) -> &Upgrade {
        self.driver.upgrade()
    }

    fn plan(&self) -> &Arc<Plan> {
        &self.upgrade().plan
    }

    /// What the store gives back for events that are appended now.
    fn records(&mut self, events: Vec<Event>) -> Vec<EventRecord> {
        let (upgrade, len, updated_at) = (self.upgrade().id.clone(), self.upgrade().len, self.upgrade().updated_at);
        let (at, since_begin) = (self.now().max(updated_at), self.elapsed());
        let mut records = Vec::new();
        for (number, event) in (len + 1..).zip(events) {
            self.trace.note(&event, since_begin);
            let (upgrade, epoch) = (upgrade.clone(), Some(Epoch(1)));
            records.push(EventRecord { upgrade, number, position: number, at, epoch, event });
        }
        records
    }

    fn carry_out(&mut self, output: Output) -> Result<(), Problem> {
        match output {
            Output::Append { events, .. } => {
                for event in &events {
                    if let Event::BatchStarted { nodes, .. } = event {
                        let nodes = ids(&self.world, nodes);
                        self.hear(&nodes, Extent { masters: true, workloads: false });
                    }
                }
                let records = self.records(events);
                self.inputs.push_front(Input::Appended(records));
            }
            Output::RunStep { step, attempt, .. } => {
                let context = StepContext::of(self.upgrade(), Epoch(1), &step);
                let takes = self.times.of(&context.plan, &step);
                let number = step.number;
                self.work.insert(number, Work::of_server(&self.world, *step, attempt, context, takes));
            }
            Output::Offer(assignment) => {
                let plan = self.plan().clone();
                let (number, node) = (assignment.id.step, assignment.node.clone());
                let attempt = self.upgrade().steps.get(&number).map_or(0, |progress| progress.attempts);
                let step = plan.step(number).cloned();
                let work = step.and_then(|step| {
                    let takes = self.times.of(&plan, &step);
                    Work::of_agent(&mut self.world, &plan, step, attempt, assignment, takes)
                });
                let gone = || Problem::new(Code::Internal).with("what", format!("no node {node} for step {number}"));
                self.work.insert(number, work.ok_or_else(gone)?);
            }
            Output::Withdraw(node) => {
                let is_its = |work: &Work| work.assignment().is_some_and(|assignment| assignment.node == node);
                self.work.retain(|_, work| !is_its(work));
            }
            Output::Waits(waits) => self.waits = waits,
            Output::WakeAt(at) => self.wake_at = at,
            Output::Stop(None) => self.ended = true,
            Output::Stop(Some(illegal)) => return Err(Problem::new(Code::Internal).with("what", illegal)),
            // Agents are not asked for permits, and their reports need no answer.
            Output::AnswerPermit(..) | Output::AnswerReport(..) => {}
        }
        Ok(())
    }

    /// Reads what may have changed of what decides: nodes in work, masters, workloads where a gate is near.
    fn refresh(&mut self) {
        let stage = self.upgrade().current_stage().map(|(index, _)| index);
        let batch = stage.and_then(|stage| self.upgrade().batches.get(&stage)).and_then(|batches| batches.last());
        let mut nodes = batch.map_or_else(BTreeSet::new, |batch| ids(&self.world, &batch.nodes));
        nodes.extend(self.work.values().filter_map(|work| work.node));
        let in_pool = stage.is_some_and(|stage| matches!(self.plan().stages[stage].kind, StageKind::NodePool { .. }));
        if !in_pool {
            nodes.extend(ids(&self.world, &self.masters));
        }
        self.hear(&nodes, Extent { masters: !in_pool, workloads: self.work.is_empty() });
    }

    /// Agents of these nodes are heard of now, and the nodes are observed.
    fn hear(&mut self, nodes: &BTreeSet<u32>, extent: Extent) {
        let now = self.now();
        if extent.workloads {
            self.hear_of_workloads();
        }
        let (world, read) = (&self.world, &mut self.read);
        let Some(facts) = self.driver.facts_mut() else { return };
        let Observed::Known(cluster) = &mut facts.cluster else { return };
        let cluster = Arc::make_mut(cluster);
        for id in nodes.iter().copied() {
            let Some(node) = world.nodes().get(id) else { continue };
            if let Some(agent) = facts.agents.get_mut(&*node.meta.name) {
                agent.last_heard_at = now;
                if (extent.masters || read.version(id) != Some(node.meta.version))
                    && let Some(machine) = machine_facts(world, id)
                {
                    agent.machine = machine.into();
                }
            }
            read.observe(world, cluster, id, node);
        }
        observe(world, cluster, extent);
    }

    /// Reads the workloads that have changed: of thousands few do.
    fn hear_of_workloads(&mut self) {
        let changed = self.world.take_changed_workloads();
        let baseline = self.upgrade().baseline.clone().unwrap_or_default();
        let Some(Observed::Known(cluster)) = self.driver.facts_mut().map(|facts| &mut facts.cluster) else { return };
        let cluster = Arc::make_mut(cluster);
        for workload in changed {
            let Some((place, fact)) = refresh_workload(&self.world, &self.places, workload, cluster) else { continue };
            // As the gate has it: nothing is added or deleted here, so that the baseline has the same places.
            if baseline.get(place).is_some_and(|before| fact.ready < fact.ready_wanted(before)) {
                self.behind.insert(workload);
            } else {
                self.behind.remove(&workload);
            }
        }
    }

    /// Lets time pass until something is to be decided again.
    fn wait(&mut self) -> Result<(), Problem> {
        match &self.upgrade().state {
            State::Paused { because, .. } => {
                let because = because.clone();
                return self.go_on(&because);
            }
            State::Blocked => return Err(Problem::new(Code::Internal).with("what", "the start is blocked")),
            _ => {}
        }
        if self.work.is_empty() {
            self.wait_at_gate();
            return Ok(());
        }
        loop {
            self.find_unplaced();
            if self.is_stuck() {
                self.run_out();
            } else {
                let next = self.work.values().map(|work| work.look_at).min().unwrap_or_else(|| self.world.now());
                self.world.advance(next.min(Moment::from(self.wake_at)).max(self.world.now()));
            }
            if self.look() || self.now() >= self.wake_at {
                return Ok(());
            }
        }
    }

    /// Looks at every step whose time has come; true where one ended.
    fn look(&mut self) -> bool {
        let now = self.world.now();
        let due: Vec<StepNumber> =
            self.work.iter().filter(|(_, work)| work.look_at <= now).map(|(number, _)| *number).collect();
        let mut ended: Vec<(StepNumber, Ended)> = Vec::new();
        for number in due {
            self.note_time_over(number);
            let Some(work) = self.work.get_mut(&number) else { continue };
            let (driver, read, places) = (&mut self.driver, &mut self.read, &self.places);
            let mut facts = |world: &World| {
                let known = driver.facts_mut().map(|facts| &mut facts.cluster);
                match known {
                    Some(Observed::Known(cluster)) => {
                        let facts = Arc::make_mut(cluster);
                        read.observe_all(world, facts);
                        for workload in world.changed_workloads() {
                            refresh_workload(world, places, workload, facts);
                        }
                        observe(world, facts, EVERYTHING);
                        cluster.clone()
                    }
                    _ => Arc::new(world.cluster_facts(false)),
                }
            };
            if let Some(result) = work.look(&mut self.world, &mut facts) {
                ended.push((number, result));
            }
            self.note_holding(number);
        }
        let newest = self.world.pods().newest();
        let quiet = self.quiet.filter(|(seen, _)| *seen == newest).or(Some((newest, now)));
        self.quiet = quiet.filter(|_| self.is_held());
        let any = !ended.is_empty();
        for (step, result) in ended {
            let Some(work) = self.work.remove(&step) else { continue };
            self.end_holding(step, &work, &result);
            self.inputs.push_back(match work.assignment() {
                None => Input::StepEnded { step, attempt: work.attempt, result },
                Some(assignment) => {
                    let node = assignment.node.clone();
                    let machine = self.world.nodes().id("", node.as_str());
                    let machine = machine.and_then(|node| machine_facts(&self.world, node));
                    let kind = match (result, machine) {
                        (Ok(outcome), Some(machine)) => ReportKind::Succeeded { outcome, machine: Box::new(machine) },
                        (Ok(_), None) => ReportKind::Failed {
                            problem: Problem::new(Code::Internal).with("what", "the machine is off"),
                            retryable: true,
                        },
                        (Err((problem, retryable)), _) => ReportKind::Failed { problem, retryable },
                    };
                    Input::Report { id: assignment.id.clone(), node, kind, ticket: 0 }
                }
            });
        }
        any
    }

    /// Notes what holds up a step that was looked at.
    fn note_holding(&mut self, number: StepNumber) {
        let (now, began) = (self.world.now(), self.elapsed());
        let Some(waits) = self.work.get_mut(&number).and_then(Work::new_waits) else { return };
        let held = waits
            .iter()
            .filter(|wait| matches!(wait.what, Waiting::PodDisruptionBudget { .. } | Waiting::PodTermination { .. }));
        let held: BTreeMap<String, &WaitingOn> = held.map(|wait| (wait.key(), wait)).collect();
        let holding = self.holding.entry(number).or_default();
        for (_, over) in holding.iter_mut().filter(|(key, of)| of.until.is_none() && !held.contains_key(*key)) {
            over.until = Some(now);
        }
        for (key, wait) in held {
            let new = || Holding { wait: wait.clone(), since: now, began, until: None, timed_out: false };
            holding.entry(key).or_insert_with(new).until = None;
        }
    }

    /// Notes what a drain waited for until its time was over, before it acts on that.
    fn note_time_over(&mut self, number: StepNumber) {
        let now = self.world.now();
        if self.work.get(&number).is_none_or(|work| now < work.deadline()) {
            return;
        }
        let holding = self.holding.get_mut(&number).into_iter().flat_map(BTreeMap::values_mut);
        for held in holding.filter(|held| held.until.is_none() && held.is_budget()) {
            held.timed_out = true;
        }
    }

    fn end_holding(&mut self, step: StepNumber, work: &Work, result: &Ended) {
        let now = self.world.now();
        for held in self.holding.remove(&step).unwrap_or_default().into_values() {
            let lasted = held.until.unwrap_or(now).since(held.since);
            let until = match result {
                Err(_) if held.until.is_none() => HeldUntil::PersonActs,
                Ok(StepOutcome::DrainSkipped { .. }) if held.until.is_none() => HeldUntil::NodeLeftOut,
                Ok(_) if held.timed_out => HeldUntil::PodDeleted,
                _ if held.is_budget() && lasted >= HELD_UP_TOLD => HeldUntil::BudgetAllows,
                _ => continue,
            };
            let node = work.step.target.node().cloned().unwrap_or_else(|| NodeName::from("?"));
            let Holding { wait, began, .. } = held;
            // What a person continues and meets again is one thing.
            let is_same = |told: &Held| told.until == until && told.wait.what == wait.what;
            if until != HeldUntil::PersonActs || !self.trace.held.iter().any(is_same) {
                self.trace.held.push(Held { node, wait, began, lasted, until });
            }
        }
    }

    /// Between batches and stages: the cluster must be as well as before.
    fn wait_at_gate(&mut self) {
        self.find_unplaced();
        if !self.waits.iter().any(|wait| matches!(wait.what, Waiting::Gate { .. })) {
            return self.world.advance(Moment::from(self.wake_at).max(self.world.now() + Duration::from_millis(1)));
        }
        let deadline = self.waits.iter().filter_map(|wait| wait.deadline).min();
        let nodes = self.world.nodes().newest();
        let by_workloads =
            |wait: &WaitingOn| matches!(&wait.what, Waiting::Gate { problem } if problem.code == Code::FewerReadyPods);
        let by_workloads = self.waits.iter().any(by_workloads);
        let mut changed = false;
        loop {
            if let Some(deadline) = deadline
                && self.world.next_at().is_none_or(|next| next.timestamp() > deadline)
            {
                return self.jump(self.world.now(), Moment::from(deadline));
            }
            self.world.advance(self.world.now() + GATE_ASKED);
            // Where neither a workload nor a node has changed it would be answered as before.
            changed |= self.world.workloads_changed() || self.world.nodes().newest() != nodes;
            // To ask it is dear, and while any workload is behind it holds until its time is over.
            if by_workloads {
                self.hear_of_workloads();
            }
            let is_behind = by_workloads && !self.behind.is_empty();
            let ask_at = deadline.filter(|_| is_behind).unwrap_or(self.wake_at);
            if (changed && !is_behind) || self.now() >= ask_at {
                return;
            }
            self.find_unplaced();
        }
    }

    fn find_unplaced(&mut self) {
        // Which pods have no place, and why, changes with a pod.
        let pods = self.world.pods().newest();
        if self.unplaced_as_of.replace(pods) == Some(pods) {
            return;
        }
        let at = self.elapsed();
        let mut now: BTreeSet<u32> = BTreeSet::new();
        let (world, unplaced) = (&self.world, &mut self.unplaced);
        let stuck = world
            .unbound()
            .filter_map(|id| Some((id, world.pods().get(id)?)))
            .filter(|(_, pod)| pod.unschedulable_why.is_some() && pod.meta.created_at >= self.begin);
        for (id, pod) in stuck {
            now.insert(id);
            let why = pod.unschedulable_why.as_deref().unwrap_or_default();
            let found = unplaced.entry(id).or_insert_with(|| Unplaced {
                pod: format!("{}/{}", pod.meta.namespace, pod.meta.name),
                owner: world.drain_pod(id, pod).owner,
                why: String::new(),
                since: at,
                until: None,
            });
            if found.why != why {
                why.clone_into(&mut found.why);
            }
        }
        let gone: Vec<u32> = self.unplaced.keys().filter(|id| !now.contains(id)).copied().collect();
        for id in gone {
            if let Some(mut found) = self.unplaced.remove(&id)
                && at.saturating_sub(found.since) >= UNPLACED_TOLD
            {
                let is_there = self.world.pods().get(id).is_some_and(|pod| pod.node.is_some());
                found.until = is_there.then_some(at);
                self.trace.unplaced.push(found);
            }
        }
    }

    fn finish(mut self) -> Trace {
        self.find_unplaced();
        self.trace.total = self.elapsed();
        if self.trace.ended_early.is_some() {
            self.trace.break_off(self.driver.upgrade());
        }
        self.trace.unplaced.extend(self.unplaced.into_values());
        // Both are in order of time, and in none of the jumps any pod has changed.
        let (begin, mut jumps) = (self.begin, self.jumps.iter().peekable());
        let mut blocked = Duration::ZERO;
        let change = |change: &ReadinessChange| {
            while let Some((_, in_all)) = jumps.next_if(|(ended, _)| *ended <= change.at) {
                blocked = *in_all;
            }
            (change.at.since(begin).saturating_sub(blocked), change.workload, change.ready)
        };
        self.trace.readiness = self.world.readiness_changes().iter().map(change).collect();
        self.trace
    }
}

/// The ids of nodes.
fn ids(world: &World, names: &[NodeName]) -> BTreeSet<u32> {
    names.iter().filter_map(|name| world.nodes().id("", name.as_str())).collect()
}

/// The workload of a name such as `Deployment shop/cart`.
fn workload_of(world: &World, name: &str) -> Option<WorkloadId> {
    let (kind, name) = name.split_once(' ')?;
    let (namespace, name) = name.split_once('/')?;
    let kind = WorkloadKind::ALL.into_iter().find(|known| known.word() == kind)?;
    Some(WorkloadId { kind, id: world.workloads(kind).id(namespace, name)? })
}

/// Brings a workload up to date among the facts; gives where it is, and what it is now.
fn refresh_workload<'a>(
    world: &World,
    places: &BTreeMap<WorkloadId, usize>,
    workload: WorkloadId,
    cluster: &'a mut ClusterFacts,
) -> Option<(usize, &'a WorkloadFacts)> {
    let place = places.get(&workload).copied()?;
    let fact = cluster.workloads.get_mut(place)?;
    world.refresh_workload_fact(workload, fact);
    Some((place, fact))
}

/// What is observed beside nodes.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// API servers, and static pods of masters.
    masters: bool,
    /// Add-ons, and the workloads that have changed.
    workloads: bool,
}

const EVERYTHING: Extent = Extent { masters: true, workloads: true };

/// Which version of each node was read last, by the ids of the nodes: names of thousands of them are dear to compare.
#[derive(Debug, Default)]
struct ReadNodes {
    versions: Vec<u64>,
    /// The newest change of any node when all of them were read.
    all_as_of: Option<u64>,
}

impl ReadNodes {
    fn version(&self, id: u32) -> Option<u64> {
        self.versions.get(id as usize).copied()
    }

    fn observe(&mut self, world: &World, cluster: &mut ClusterFacts, id: u32, node: &Node) {
        if self.version(id) == Some(node.meta.version) {
            return;
        }
        let place = id as usize;
        if self.versions.len() <= place {
            self.versions.resize(place + 1, 0);
        }
        self.versions[place] = node.meta.version;
        let mut facts = world.node_facts(node);
        match cluster.nodes.get_mut(&*node.meta.name) {
            Some(known) => {
                // The plan has this very text: what shares it is compared without a look.
                if known.uid == facts.uid {
                    facts.uid = known.uid.clone();
                }
                *known = facts;
            }
            None => _ = cluster.nodes.insert(NodeName::new(node.meta.name.clone()), facts),
        }
    }

    fn observe_all(&mut self, world: &World, cluster: &mut ClusterFacts) {
        let newest = world.nodes().newest();
        if self.all_as_of.replace(newest) == Some(newest) {
            return;
        }
        for (id, node) in world.nodes().iter() {
            self.observe(world, cluster, id, node);
        }
    }
}

/// Brings facts beside those of nodes and workloads up to date.
fn observe(world: &World, cluster: &mut ClusterFacts, extent: Extent) {
    cluster.observed_at = world.now().timestamp();
    if extent.masters {
        cluster.api_servers = world.api_servers();
        cluster.control_plane_pods = world.control_plane_pods();
    }
    if extent.workloads {
        cluster.addons = world.addons();
    }
}
