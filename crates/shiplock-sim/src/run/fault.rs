//! Faults: what can go wrong, drawn by a seed, and how it is mended.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::SignedDuration;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::plan::PausePolicy;
use shiplock_core::problem::Problem;
use shiplock_core::step::OnDrainTimeout;

use super::{BudgetSetup, Operation, Setup, Simulation};
use crate::world::{Effect, Keep, Share, Taint};

/// What is wrong now, for as long as it is not mended.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) api_down: bool,
    /// Requests that fail before or after their effect, in thousandths.
    pub(super) api_errors: u32,
    pub(super) api_slow: Duration,
    pub(super) watch_lag: Duration,
    pub(super) store_down: bool,
    pub(super) store_full: bool,
    pub(super) store_slow: Duration,
    pub(super) disk_slow: Duration,
    /// Nodes whose agents reach nobody.
    pub(super) cut_off: BTreeSet<u32>,
    /// Servers whose process stands still: timers do not run, messages are not read.
    pub(super) server_frozen: BTreeSet<usize>,
}

/// One fault. Nodes are numbers that are taken modulo how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A server process is killed and started again after so many seconds.
    ServerCrash(usize, u64),
    /// A server process stands still for so many seconds.
    ServerFreeze(usize, u64),
    /// The machine of a server is suspended for so many seconds: its process stands still, and so does the clock that its
    /// lease counts on. Not drawn: nothing but that clock fences what a drain sends.
    ServerSuspend(usize, u64),
    /// Agents reach another server from now on: two servers at once.
    AddressMoves(usize),
    /// A server's wall clock jumps by so many seconds.
    ClockJump(usize, i64),
    /// An agent is killed and started again after so many seconds.
    AgentCrash(u32, u64),
    /// A machine loses power and boots again.
    NodeCrash(u32),
    /// A machine loses power and does not come back until it is mended.
    NodeDead(u32),
    /// An agent reaches nobody until it is mended.
    AgentCutOff(u32),
    /// A kubelet stops for so many seconds.
    KubeletFlap(u32, u64),
    /// The next kubelet that is put in place does not come up.
    KubeletBroken(u32),
    /// So many programs of an agent end badly.
    UnitsFail(u32, u32),
    /// The disk of a machine is full.
    DiskFull(u32),
    /// A machine pulls no images.
    PullsFail(u32),
    /// The etcd member on a master is ill.
    EtcdIll(u32),
    /// A member of etcd is a learner that does not catch up.
    EtcdLearner,
    /// An alarm is raised in etcd.
    EtcdAlarm,
    /// The leader of etcd moves.
    EtcdLeaderMoves,
    /// The API answers nobody for so many seconds.
    ApiDown(u64),
    /// So many thousandths of requests fail.
    ApiErrors(u32),
    /// Each request takes so many milliseconds longer.
    ApiSlow(u64),
    /// Watches lag so many milliseconds.
    WatchLag(u64),
    /// The store fails for so many seconds.
    StoreDown(u64),
    /// The disk of the store is full for so many seconds.
    StoreFull(u64),
    /// Each append takes so many milliseconds longer.
    StoreSlow(u64),
    /// Each write of a journal takes so many milliseconds longer.
    DiskSlow(u64),
    /// Messages are lost, come twice and late, each in so many thousandths.
    Network(u32, u32, u32),
    /// Somebody else cordons a node.
    OthersCordon(u32),
    /// Somebody else takes a cordon off, whosever it is.
    OthersUncordon(u32),
    /// A Node is deleted.
    NodeRemoved(u32),
    /// A Node is deleted and joins again under another UID.
    NodeRejoins(u32),
    /// A node comes that was not there.
    NodeAdded,
    /// Somebody taints a node.
    OthersTaint(u32),
    /// A budget allows nothing until it is mended.
    BudgetBlocks,
    /// Somebody deletes a pod.
    PodDeleted(u32),
    /// A workload's pods crash.
    WorkloadCrashes,
    /// What an operator does.
    Operator(Operation),
}

impl Simulation {
    fn nth_node(&self, number: u32) -> Option<u32> {
        let nodes: Vec<u32> = self.world.nodes().iter().map(|(id, _)| id).collect();
        nodes.get(number as usize % nodes.len().max(1)).copied()
    }

    fn nth_worker(&self, number: u32) -> Option<u32> {
        let worker = |id: &u32| self.world.machine(*id).is_some_and(|machine| machine.static_pods.is_empty());
        let nodes: Vec<u32> = self.world.nodes().iter().map(|(id, _)| id).filter(worker).collect();
        nodes.get(number as usize % nodes.len().max(1)).copied()
    }

    fn nth_master(&self, number: u32) -> Option<u32> {
        let members = &self.world.etcd().members;
        members.get(number as usize % members.len().max(1)).map(|member| member.machine)
    }

    /// A fault strikes.
    pub(super) fn strike(&mut self, fault: &Fault) {
        self.say(|| format!("fault: {fault:?}"));
        let servers = self.servers.len();
        match fault {
            Fault::ServerCrash(index, seconds) => {
                if self.servers[index % servers].up {
                    self.crash_server(index % servers, Duration::from_secs(*seconds));
                }
            }
            Fault::ServerFreeze(index, seconds) | Fault::ServerSuspend(index, seconds) => {
                self.faults.server_frozen.insert(index % servers);
                self.ends_later(fault, *seconds);
            }
            Fault::AddressMoves(index) => self.address = index % servers,
            Fault::ClockJump(index, seconds) => {
                let server = &mut self.servers[index % servers];
                server.skew = server.skew.saturating_add(SignedDuration::from_secs(*seconds));
            }
            Fault::AgentCrash(node, seconds) => {
                if let Some(node) = self.nth_node(*node) {
                    self.crash_agent(node, Duration::from_secs(*seconds));
                }
            }
            Fault::NodeCrash(node) => {
                if let Some(node) = self.nth_worker(*node) {
                    self.crash_node(node);
                }
            }
            Fault::NodeDead(node) => {
                if let Some(node) = self.nth_worker(*node) {
                    self.world.change_machine(node, |machine| machine.faults.boot_hangs = true);
                    self.crash_node(node);
                }
            }
            Fault::AgentCutOff(node) => {
                if let Some(node) = self.nth_node(*node) {
                    self.faults.cut_off.insert(node);
                }
            }
            Fault::KubeletFlap(node, seconds) => {
                if let Some(node) = self.nth_worker(*node) {
                    self.world.stop_kubelet(node);
                    self.ends_later(fault, *seconds);
                }
            }
            Fault::KubeletBroken(node) => {
                if let Some(node) = self.nth_worker(*node) {
                    self.world.change_machine(node, |machine| machine.faults.kubelet_will_not_start = true);
                }
            }
            Fault::UnitsFail(node, times) => {
                if let Some(node) = self.nth_node(*node) {
                    self.world.change_machine(node, |machine| machine.faults.units_fail = *times);
                }
            }
            Fault::DiskFull(node) => {
                if let Some(node) = self.nth_worker(*node) {
                    self.world.change_machine(node, |machine| machine.faults.disk_full = true);
                }
            }
            Fault::PullsFail(node) => {
                if let Some(node) = self.nth_node(*node) {
                    self.world.change_machine(node, |machine| machine.faults.pulls_fail = true);
                }
            }
            Fault::EtcdIll(number) => {
                if let Some(node) = self.nth_master(*number) {
                    self.world.set_etcd_ill(node, true);
                }
            }
            Fault::EtcdLearner => self.world.change_etcd(|etcd| {
                if let Some(member) = etcd.members.last_mut() {
                    member.is_learner = true;
                }
            }),
            Fault::EtcdAlarm => self.world.change_etcd(|etcd| etcd.alarms = vec!["NOSPACE".into()]),
            Fault::EtcdLeaderMoves => {
                self.world.change_etcd(|etcd| etcd.leader = 0);
                self.world.elect();
            }
            Fault::ApiDown(seconds) => {
                self.faults.api_down = true;
                // Watches that break tell of it, also where nothing in the cluster changes.
                for index in 0..servers {
                    self.queue_observation(index);
                }
                self.ends_later(fault, *seconds);
            }
            Fault::ApiErrors(thousandths) => self.faults.api_errors = *thousandths,
            Fault::ApiSlow(milliseconds) => self.faults.api_slow = Duration::from_millis(*milliseconds),
            Fault::WatchLag(milliseconds) => self.faults.watch_lag = Duration::from_millis(*milliseconds),
            Fault::StoreDown(seconds) => {
                self.faults.store_down = true;
                self.ends_later(fault, *seconds);
            }
            Fault::StoreFull(seconds) => {
                self.faults.store_full = true;
                self.ends_later(fault, *seconds);
            }
            Fault::StoreSlow(milliseconds) => self.faults.store_slow = Duration::from_millis(*milliseconds),
            Fault::DiskSlow(milliseconds) => self.faults.disk_slow = Duration::from_millis(*milliseconds),
            Fault::Network(loss, twice, late) => {
                self.network.loss = *loss;
                self.network.twice = *twice;
                self.network.late = *late;
            }
            Fault::OthersCordon(node) => {
                if let Some(node) = self.nth_worker(*node) {
                    self.world.change_node(node, |node| node.unschedulable = true);
                }
            }
            Fault::OthersUncordon(node) => {
                if let Some(node) = self.nth_worker(*node) {
                    self.world.change_node(node, |node| node.unschedulable = false);
                }
            }
            Fault::NodeRemoved(node) => {
                if let Some(node) = self.nth_worker(*node) {
                    self.world.power_off(node);
                    self.world.delete_node(node);
                    self.lose_agent(node);
                }
            }
            Fault::NodeRejoins(node) => {
                if let Some(node) = self.nth_worker(*node) {
                    self.world.delete_node(node);
                    self.lose_agent(node);
                    if let Some(new) = self.world.rejoin(node) {
                        self.queue(Duration::from_secs(3), super::Event::AgentStarts(new));
                    }
                }
            }
            Fault::NodeAdded => {
                let name = format!("new-{:02}", self.world.nodes().ids_end());
                let spec = crate::world::NodeSpec::worker(&name, super::FROM, "v1.6.20");
                self.world.add_node(&spec);
            }
            Fault::OthersTaint(node) => {
                if let Some(node) = self.nth_worker(*node) {
                    let taint = Taint { key: "example.com/busy".into(), value: "".into(), effect: Effect::NoSchedule };
                    self.world.change_node(node, |node| std::sync::Arc::make_mut(&mut node.taints).push(taint));
                }
            }
            Fault::BudgetBlocks => self.set_budgets(Keep::MinAvailable(Share::Percent(100))),
            Fault::PodDeleted(number) => {
                let pods: Vec<_> =
                    self.world.pods().in_namespace("shop").map(|(_, pod)| pod.meta.name.clone()).collect();
                if let Some(name) = pods.get(*number as usize % pods.len().max(1)) {
                    self.world.delete_pod("shop", name, None, None);
                }
            }
            Fault::WorkloadCrashes => self.set_crashes(true),
            Fault::Operator(operation) => self.queue(Duration::ZERO, super::Event::Operator(operation.clone())),
        }
    }

    fn ends_later(&mut self, fault: &Fault, seconds: u64) {
        self.queue(Duration::from_secs(seconds), super::Event::FaultEnds(Box::new(fault.clone())));
    }

    /// A fault with a time of its own is over.
    pub(super) fn fault_ends(&mut self, fault: &Fault) {
        match fault {
            Fault::ServerFreeze(index, _) => {
                self.faults.server_frozen.remove(&(index % self.servers.len()));
            }
            Fault::ServerSuspend(index, seconds) => {
                let index = index % self.servers.len();
                self.faults.server_frozen.remove(&index);
                let server = &mut self.servers[index];
                server.started_at = server.started_at + Duration::from_secs(*seconds);
            }
            Fault::ApiDown(_) => self.faults.api_down = false,
            Fault::StoreDown(_) => self.faults.store_down = false,
            Fault::StoreFull(_) => self.faults.store_full = false,
            Fault::KubeletFlap(node, _) => {
                if let Some(node) = self.nth_worker(*node)
                    && self.world.machine(node).is_some_and(|machine| machine.on && machine.kubelet.running.is_none())
                {
                    self.world.start_kubelet(node);
                }
            }
            _ => {}
        }
    }

    fn lose_agent(&mut self, node: u32) {
        if let Some(Some(agent)) = self.agents.get_mut(node as usize) {
            agent.up = false;
            agent.life += 1;
        }
    }

    fn set_budgets(&mut self, keep: Keep) {
        let budgets: Vec<u32> = self.world.budgets().iter().map(|(id, _)| id).collect();
        for budget in budgets {
            self.world.change_budget(budget, |budget| budget.keep = keep);
        }
    }

    fn set_crashes(&mut self, crashes: bool) {
        let all: Vec<u32> = self
            .world
            .workloads(crate::world::WorkloadKind::Deployment)
            .in_namespace("shop")
            .map(|(id, _)| id)
            .collect();
        for id in all.into_iter().take(1) {
            let workload = crate::world::WorkloadId { kind: crate::world::WorkloadKind::Deployment, id };
            self.world.change_workload(workload, |workload| {
                std::sync::Arc::make_mut(&mut workload.template).behaviour.crashes = crashes;
            });
        }
    }

    /// Everything is mended; what was cut off comes back.
    pub(super) fn mend(&mut self) {
        self.say(|| "everything is mended".to_owned());
        self.faults = Faults::default();
        self.network = super::Network::default();
        for server in &mut self.servers {
            server.skew = SignedDuration::ZERO;
        }
        let nodes: Vec<u32> = (0..self.world.nodes().ids_end()).collect();
        for node in nodes {
            let Some(machine) = self.world.machine(node).cloned() else { continue };
            self.world.change_machine(node, |machine| machine.faults = crate::world::MachineFaults::default());
            if self.world.nodes().get(node).is_none() {
                continue;
            }
            if !machine.on {
                self.world.power_on(node);
            } else if machine.kubelet.running.is_none()
                && !machine.units.iter().any(|unit| unit.state == crate::world::UnitState::Running)
            {
                self.world.start_kubelet(node);
            }
            for component in ControlPlaneComponent::ALL {
                let broken = machine.static_pods.get(&component).is_some_and(|pod| pod.broken);
                if broken {
                    self.world.change_machine(node, |machine| {
                        if let Some(pod) = machine.static_pods.get_mut(&component) {
                            pod.broken = false;
                        }
                    });
                }
            }
        }
        self.world.change_etcd(|etcd| {
            etcd.alarms.clear();
            for member in &mut etcd.members {
                member.is_learner = false;
            }
        });
        self.world.elect();
        self.set_budgets(Keep::MaxUnavailable(Share::Count(1)));
        self.set_crashes(false);
    }
}

/// A run that a seed draws: the cluster, options, faults and operators.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// The cluster.
    pub setup: Setup,
    /// How many servers there are.
    pub servers: usize,
    /// What strikes when, in seconds since the begin.
    pub faults: Vec<(u64, Fault)>,
    /// When everything is mended, in seconds.
    pub heal_at: u64,
}

impl Drawn {
    /// What a seed draws.
    pub fn of(seed: u64) -> Self {
        let mut luck = ChaCha8Rng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xfa17);
        let masters = *[0, 1, 3, 3].get(luck.random_range(0..4usize)).unwrap_or(&3);
        let mut setup = Setup::new(masters, luck.random_range(2..=6));
        if luck.random_range(0..3) == 0 {
            setup.pools.push(("green".to_owned(), luck.random_range(1..=3)));
        }
        if luck.random_range(0..4) == 0 {
            setup.workloads[0].budget = BudgetSetup::Blocking;
        }
        if luck.random_range(0..4) == 0 {
            let which = luck.random_range(0..setup.workloads.len());
            setup.workloads[which].ignores_sigterm = Some(luck.random_range(30..=180));
        }
        let options = &mut setup.options;
        options.accept = vec!["CP-003".to_owned()];
        options.max_parallel = luck.random_range(1..=4);
        options.drain_timeout_seconds = luck.random_range(60..=300);
        options.on_drain_timeout =
            [OnDrainTimeout::Pause, OnDrainTimeout::Skip, OnDrainTimeout::Force][luck.random_range(0..3usize)];
        options.pause_policy =
            [PausePolicy::Never, PausePolicy::Never, PausePolicy::AfterFirstBatch, PausePolicy::AfterEveryBatch]
                [luck.random_range(0..4usize)];
        options.batch_interval_seconds = if luck.random_range(0..4) == 0 { 20 } else { 0 };
        let servers = luck.random_range(1..=2);
        let count = luck.random_range(0..=6);
        let mut faults: Vec<(u64, Fault)> = (0..count).map(|_| (luck.random_range(1..500), draw(&mut luck))).collect();
        faults.sort_by_key(|(at, _)| *at);
        Self { setup, servers, faults, heal_at: luck.random_range(520..700) }
    }

    /// What a seed draws for a run whose servers reach the API through the façade: the same, with more trouble on that way.
    pub fn through_facade(seed: u64) -> Self {
        let mut drawn = Self::of(seed);
        let mut luck = ChaCha8Rng::seed_from_u64(seed ^ 0xfaca_de00);
        for _ in 0..luck.random_range(1..=3) {
            let fault = match luck.random_range(0..6) {
                0 => Fault::ApiDown(luck.random_range(1..60)),
                1 => Fault::WatchLag(luck.random_range(100..8000)),
                2 => Fault::ApiSlow(luck.random_range(50..4000)),
                _ => Fault::ApiErrors(luck.random_range(10..300)),
            };
            drawn.faults.push((luck.random_range(1..500), fault));
        }
        drawn.faults.sort_by_key(|(at, _)| *at);
        drawn
    }

    /// The simulation, about to begin.
    pub fn simulation(&self, seed: u64) -> Result<Simulation, Problem> {
        let mut simulation = Simulation::new(&self.setup, seed, self.servers)?;
        for (at, fault) in &self.faults {
            simulation.fault(Duration::from_secs(*at), fault.clone());
        }
        simulation.heal(Duration::from_secs(self.heal_at));
        Ok(simulation)
    }
}

fn draw(luck: &mut ChaCha8Rng) -> Fault {
    let node = luck.random_range(0..64u32);
    let server = luck.random_range(0..2usize);
    let seconds = luck.random_range(1..60u64);
    match luck.random_range(0..46) {
        0..=3 => Fault::ServerCrash(server, seconds),
        4 => Fault::ServerFreeze(server, seconds),
        5 | 6 => Fault::AddressMoves(server),
        7 => Fault::ClockJump(server, luck.random_range(-7200..7200)),
        8..=10 => Fault::AgentCrash(node, luck.random_range(1..20)),
        11 | 12 => Fault::NodeCrash(node),
        13 => Fault::NodeDead(node),
        14 => Fault::AgentCutOff(node),
        15 => Fault::KubeletFlap(node, seconds),
        16 => Fault::KubeletBroken(node),
        17 | 18 => Fault::UnitsFail(node, luck.random_range(1..4)),
        19 => Fault::DiskFull(node),
        20 => Fault::PullsFail(node),
        21 | 22 => Fault::EtcdIll(node),
        23 => Fault::EtcdLearner,
        24 => Fault::EtcdAlarm,
        25 => Fault::EtcdLeaderMoves,
        26 => Fault::ApiDown(seconds),
        27 => Fault::ApiErrors(luck.random_range(10..300)),
        28 => Fault::ApiSlow(luck.random_range(50..4000)),
        29 => Fault::WatchLag(luck.random_range(100..8000)),
        30 => Fault::StoreDown(seconds),
        31 => Fault::StoreSlow(luck.random_range(10..2000)),
        32 => Fault::DiskSlow(luck.random_range(10..1000)),
        33 | 34 => Fault::Network(luck.random_range(0..200), luck.random_range(0..200), luck.random_range(0..200)),
        35 => [Fault::OthersCordon(node), Fault::OthersUncordon(node), Fault::OthersTaint(node)]
            [luck.random_range(0..3usize)]
        .clone(),
        36 => {
            [Fault::NodeRemoved(node), Fault::NodeRejoins(node), Fault::NodeAdded][luck.random_range(0..3usize)].clone()
        }
        37 => Fault::BudgetBlocks,
        38 => Fault::PodDeleted(node),
        39 => Fault::WorkloadCrashes,
        40 => Fault::Operator(Operation::Pause),
        41 => Fault::Operator(Operation::Cancel(Vec::new())),
        42 => Fault::Operator(Operation::MaxParallel(luck.random_range(1..8))),
        43 | 44 => Fault::StoreFull(2 * seconds),
        _ => Fault::Operator(if luck.random() { Operation::SecondUpgrade } else { Operation::Continue }),
    }
}
