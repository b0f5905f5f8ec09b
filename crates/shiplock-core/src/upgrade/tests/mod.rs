//! What an upgrade promises, shown by driving `decide` and `apply` against a small model of executors: steps succeed,
//! fail or hang as drawn, people pause, continue and cancel at any moment, and rules are checked after every event.
//! The model stands in for cluster and agents; real behaviour is shown by the end-to-end tests.

mod agents;
mod control;
mod cordons;
mod failures;
mod gates;
mod identity;
mod law;
mod masters;
mod pools;
mod property;
mod start;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::state::NodeProgress;
use super::{
    Command, Decision, Event, EventRecord, Outcome, PauseReason, Policy, State, StepOutcome, StepStatus, Upgrade,
    Waiting, WaitingOn, decide,
};
use crate::facts::{ClusterFacts, EtcdFacts, EtcdMemberFacts, Facts, NodeOwner, Observed, Readiness};
use crate::id::{Epoch, NodeName, StepNumber};
use crate::plan::{PausePolicy, Plan, PlanOptions, PlanRequest, StageKind};
use crate::problem::{Code, Problem};
use crate::sample::{agents, at, cluster, cluster_with_masters, plan_of, request, request_for_all};
use crate::step::{Action, Emulation, Executor, Step};

/// A log with its fold, a clock and the facts.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) upgrade: Upgrade,
    pub(crate) log: Vec<EventRecord>,
    pub(crate) now: i64,
    pub(crate) cluster: ClusterFacts,
    silent: BTreeSet<NodeName>,
    /// Nodes whose agents this server never heard of.
    unheard: BTreeSet<NodeName>,
    /// Members of etcd that are not healthy, by the node's name.
    ill_members: BTreeSet<NodeName>,
    cluster_known: bool,
    uptime_seconds: u64,
}

impl World {
    fn new(pools: &[(&str, usize)], options: PlanOptions) -> Self {
        Self::of(cluster(pools), &request("1.36", options))
    }

    /// Masters and a pool of workers, all of which are upgraded.
    pub(crate) fn with_masters(masters: u64, workers: usize, options: PlanOptions) -> Self {
        let accept = vec!["CP-003".to_owned()];
        Self::of(cluster_with_masters(masters, workers), &request_for_all("1.36", PlanOptions { accept, ..options }))
    }

    fn of(facts: ClusterFacts, request: &PlanRequest) -> Self {
        let plan = plan_of(&facts, request).unwrap();
        Self::over(facts, plan)
    }

    pub(crate) fn over(facts: ClusterFacts, plan: Plan) -> Self {
        let plan = Box::new(plan);
        let first = record(1, 0, Event::Planned { plan, by: "tester".into() });
        let upgrade = Upgrade::begin(&first).unwrap();
        Self {
            upgrade,
            log: vec![first],
            now: 0,
            cluster: facts,
            silent: BTreeSet::new(),
            unheard: BTreeSet::new(),
            ill_members: BTreeSet::new(),
            cluster_known: true,
            uptime_seconds: 0,
        }
    }

    pub(crate) fn append(&mut self, event: Event) {
        let record = record(self.upgrade.len + 1, self.now, event);
        self.upgrade = self.upgrade.clone().apply(&record).unwrap();
        self.log.push(record);
        self.check_rules();
    }

    fn facts(&self) -> Facts {
        let mut cluster = self.cluster.clone();
        cluster.observed_at = at(self.now);
        let mut agents = agents(&cluster, at(self.now));
        for node in &self.silent {
            agents.get_mut(node).unwrap().last_heard_at = at(0);
        }
        agents.retain(|node, _| !self.unheard.contains(node));
        for agent in agents.values_mut() {
            let facts = std::sync::Arc::make_mut(&mut agent.machine).control_plane.as_deref_mut();
            if let Some(EtcdFacts::Stacked { cluster: Observed::Known(etcd) }) = facts.map(|facts| &mut facts.etcd) {
                let ill =
                    |member: &&mut EtcdMemberFacts| self.ill_members.iter().any(|node| node.as_str() == member.name);
                etcd.members.iter_mut().filter(ill).for_each(|member| member.healthy_version = None);
            }
        }
        let cluster = if self.cluster_known {
            Observed::Known(cluster.into())
        } else {
            Observed::Unknown { problem: Problem::new(Code::ClusterUnreachable), since: at(self.now) }
        };
        Facts {
            cluster,
            agents,
            progress: BTreeMap::new(),
            uptime_seconds: self.uptime_seconds,
            precheck: Some(Vec::new()),
        }
    }

    fn decide(&self) -> Decision {
        decide(&self.upgrade, &self.facts(), &Policy::default(), at(self.now))
    }

    /// Records what `decide` wants until it waits or finishes. Returns that decision.
    pub(crate) fn settle(&mut self) -> Decision {
        for _ in 0..10_000 {
            match self.decide() {
                Decision::Issue(commands) => {
                    for command in commands {
                        self.append(match command {
                            Command::Record(event) => event,
                            Command::Run { step, attempt } => Event::StepStarted { step, attempt },
                        });
                    }
                }
                other => return other,
            }
        }
        panic!("decide never comes to rest in state {:?}", self.upgrade.state);
    }

    pub(crate) fn in_flight(&self) -> Vec<StepNumber> {
        self.upgrade.in_flight().map(|(step, ..)| step.number).collect()
    }

    pub(crate) fn succeed(&mut self, number: StepNumber) {
        let step = self.upgrade.plan.step(number).unwrap().clone();
        let outcome = match &step.action {
            Action::CaptureBaseline => StepOutcome::Baseline { workloads: self.cluster.workloads.clone() },
            Action::Cordon => StepOutcome::Cordoned { ours: true },
            _ => StepOutcome::Done,
        };
        if let (Action::UpgradeControlPlane(swap), Some(node)) = (&step.action, step.target.node()) {
            let master = node.as_str().strip_prefix('m').unwrap().parse::<usize>().unwrap();
            let emulates = match swap.emulation {
                Some(Emulation::Begins { of }) => Some(of),
                _ => None,
            };
            let server = &mut self.cluster.api_servers[master - 1];
            (server.version, server.emulates) = (swap.version, emulates);
        }
        let attempt = self.upgrade.steps[&number].attempts;
        let marks = matches!(step.action, Action::Cordon | Action::Uncordon);
        if let Some(node) = step.target.node().filter(|_| marks).and_then(|node| self.cluster.nodes.get_mut(node)) {
            node.unschedulable = step.action == Action::Cordon;
            let owner = || NodeOwner { upgrade: self.upgrade.id.clone(), epoch: self.upgrade.epoch, attempt };
            node.owner = node.unschedulable.then(owner);
        }
        self.append(Event::StepSucceeded { step: number, attempt, outcome });
    }

    pub(crate) fn fail(&mut self, number: StepNumber, retryable: bool) {
        self.fail_with(number, retryable, Code::ProgramFailed);
    }

    fn fail_with(&mut self, number: StepNumber, retryable: bool, code: Code) {
        let attempt = self.upgrade.steps[&number].attempts;
        let problem = Problem::new(code);
        self.append(Event::StepFailed { step: number, attempt, problem, retryable });
    }

    /// Lets everything succeed until nothing is in flight and nothing more begins.
    pub(crate) fn run_out(&mut self) -> Decision {
        for _ in 0..10_000 {
            let decision = self.settle();
            let in_flight = self.in_flight();
            if in_flight.is_empty() {
                let Decision::Wait { wake_at, .. } = &decision else { return decision };
                if matches!(self.upgrade.state, State::Paused { .. } | State::Blocked) || self.now > 100_000 {
                    return decision;
                }
                self.now = self.now.max(wake_at.as_second() - at(0).as_second());
            }
            for number in in_flight {
                self.succeed(number);
            }
        }
        panic!("it never ends");
    }

    pub(crate) fn batches(&self, stage: usize) -> Vec<Vec<&str>> {
        self.upgrade
            .batches
            .get(&stage)
            .into_iter()
            .flatten()
            .map(|batch| batch.nodes.iter().map(NodeName::as_str).collect())
            .collect()
    }

    fn started_nodes(&self) -> BTreeSet<NodeName> {
        // A master that steps up is begun with a second time.
        let name = |node: &crate::plan::NodePlan| match self.upgrade.plan.node_of_step(node.steps[0].number) {
            Some(_) if is_second(&self.upgrade.plan, node) => format!("{}-again", node.node).as_str().into(),
            _ => node.node.clone(),
        };
        self.upgrade.plan.nodes().filter(|node| self.upgrade.is_started(node)).map(name).collect()
    }

    /// Rules that hold after every event, whatever came before.
    fn check_rules(&self) {
        let upgrade = &self.upgrade;
        assert_eq!(Upgrade::fold(&self.log).as_ref(), Ok(upgrade), "the log folds to the state");
        let at_work = |node: &&crate::plan::NodePlan| {
            matches!(upgrade.node_progress(node), NodeProgress::InWork | NodeProgress::Failed)
        };
        let pools_at_work = upgrade.plan.stages.iter().filter(|stage| stage.nodes.iter().any(|node| at_work(&node)));
        assert!(pools_at_work.count() <= 1, "at most one pool is in work");
        for stage in 0..upgrade.plan.stages.len() {
            let open = upgrade.open_batch(stage);
            let limit = open.map_or(0, |batch| batch.nodes.len());
            let count = upgrade.plan.stages[stage].nodes.iter().filter(at_work).count();
            assert!(count <= limit, "nodes in work are of the open batch");
            for batch in upgrade.batches.get(&stage).into_iter().flatten() {
                let masters = matches!(upgrade.plan.stages[stage].kind, StageKind::ControlPlane | StageKind::StepUp);
                let most = if masters { 1 } else { super::batch::size_limit(batch.ordinal, 100) };
                assert!(batch.nodes.len() <= most as usize, "the batch law");
            }
        }
        for node in upgrade.plan.nodes() {
            let flying =
                node.steps.iter().filter(|step| matches!(upgrade.step_status(step), Some(StepStatus::InFlight { .. })));
            // The lost step of a node that a person gave up is not waited for when its cordon is given back.
            assert!(flying.count() <= 1 || upgrade.abandoned.contains(&node.node), "one step of a node at a time");
            let mut earlier_done = true;
            // What came after a drain is not undone with it, and waits until the node is empty again.
            let is_cordoned_again = upgrade.cordon_of(node).is_some_and(|(_, cordon)| cordon.attempts > 1);
            for step in &node.steps {
                let gives_back = step.action == Action::Uncordon;
                let is_next = earlier_done || !self.upgrade.in_flight().any(|(flying, ..)| flying == step);
                assert!(
                    earlier_done || gives_back || upgrade.step_status(step).is_none() || (is_cordoned_again && is_next),
                    "steps go in order"
                );
                earlier_done &= upgrade.has_succeeded(step);
            }
        }
        if upgrade.state.is_terminal() {
            for node in upgrade.plan.nodes() {
                assert!(
                    !upgrade.holds_cordon(node) || upgrade.abandoned.contains(&node.node),
                    "{} keeps a cordon of ours",
                    node.node
                );
            }
        }
        if upgrade.state == State::Succeeded {
            for node in upgrade.plan.nodes().filter(|node| !upgrade.skipped.contains_key(&node.node)) {
                let verified = node
                    .steps
                    .iter()
                    .any(|step| matches!(step.action, Action::VerifyNode { .. }) && upgrade.has_succeeded(step));
                assert!(verified, "success without a read-back of {}", node.node);
            }
        }
    }
}

fn is_second(plan: &Plan, node: &crate::plan::NodePlan) -> bool {
    plan.nodes()
        .find(|other| other.node == node.node)
        .is_some_and(|first| first.steps[0].number != node.steps[0].number)
}

fn record(number: u64, second: i64, event: Event) -> EventRecord {
    EventRecord { upgrade: "u1".into(), number, position: number, at: at(second), epoch: None, event }
}

fn options() -> PlanOptions {
    PlanOptions { max_parallel: 4, ..PlanOptions::default() }
}

pub(crate) fn seed() -> proptest::test_runner::RngSeed {
    let given = std::env::var("PROPTEST_RNG_SEED").ok().and_then(|text| text.parse().ok());
    proptest::test_runner::RngSeed::Fixed(given.unwrap_or(20_261_123))
}

/// A node of a pool whose runtime step is in flight.
fn with_a_step_in_flight() -> (World, StepNumber, NodeName) {
    let mut world = World::new(&[("blue", 2)], options());
    loop {
        let _ = world.settle();
        let of_an_agent =
            |step: &Step| step.action.executor() == Executor::Agent && !matches!(step.action, Action::Prefetch { .. });
        let found = world.upgrade.in_flight().find(|(step, ..)| of_an_agent(step));
        if let Some((step, node)) = found.map(|(step, ..)| (step.number, step.target.node().unwrap().clone())) {
            return (world, step, node);
        }
        for number in world.in_flight() {
            world.succeed(number);
        }
    }
}

fn waited_on(decision: &Decision) -> &Waiting {
    let Decision::Wait { on, .. } = decision else { panic!("it waits: {decision:?}") };
    &on[0].what
}
