//! The checkers: every invariant of `ARCHITECTURE.md`, looked at from outside after each event.
//!
//! They share no code with what they check but the types: batches, sizes, states and intents are counted here anew from
//! the records of the log and from what happened to the world.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shiplock_api::agent::Assignment;
use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::id::{Generation, NodeName, StepNumber};
use shiplock_core::plan::{Plan, StageKind};
use shiplock_core::step::{Action, OnDrainTimeout, Step};
use shiplock_core::upgrade::{Event, EventRecord, StepStatus, Upgrade};
use shiplock_core::version::KubernetesVersion;
use shiplock_server::store::Store as _;

use super::server::now_or_never;
use super::{Act, Simulation};
use crate::world::{Moment, OWNER_ANNOTATION, UnitState, Work, uuid_number};

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its number in `ARCHITECTURE.md`.
    pub invariant: u8,
    /// What was seen.
    pub detail: String,
    /// When.
    pub at: Moment,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after = self.at.since(super::BEGIN);
        write!(
            f,
            "invariant {} after {}.{:03} s: {}",
            self.invariant,
            after.as_secs(),
            after.subsec_millis(),
            self.detail
        )
    }
}

/// How many invariants there are.
pub const INVARIANTS: u8 = 19;
/// An observation older than this is no knowledge any more.
const KNOWN_FOR: Duration = Duration::from_secs(8);
/// What broken watches told is given out for this long, as `shiplock_cluster` promises. Without watches nothing is.
const BROKEN_WATCHES_KNOWN_FOR: Duration = Duration::from_secs(15);

/// From the facts that a permit was given on to the act that it permits.
const PERMITTED_FOR: Duration = Duration::from_secs(2);

/// What was sent while a lease held has arrived after this time.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// All checkers, each of which can be taken away.
#[derive(Clone, Debug, Default)]
pub struct Checkers {
    off: BTreeSet<u8>,
    /// From the log.
    started: BTreeSet<String>,
    pausing: bool,
    cancelled: bool,
    max_parallel: u32,
    /// Of each stage, the newest batch and how many nodes batches took.
    batches: BTreeMap<usize, (u32, usize)>,
    open: Option<(usize, BTreeSet<String>)>,
    newest: BTreeSet<String>,
    abandoned: BTreeSet<String>,
    last_number: u64,
    last_position: u64,
    /// From the world.
    evicted: BTreeSet<u128>,
    epochs: BTreeMap<u32, u64>,
    generations: BTreeMap<u32, Generation>,
    /// When the lease in force was taken.
    leased_at: Option<Moment>,
    marked: BTreeSet<u32>,
    /// Since when nodes take new pods.
    schedulable_since: BTreeMap<u32, Moment>,
    api_away_since: Option<Moment>,
    /// The newest change of a Node and of a machine that were looked at.
    seen: (u64, u64),
    planned: BTreeMap<String, (u128, Arc<str>)>,
}

type Found = Option<(u8, String)>;

impl Checkers {
    pub(super) fn new(upgrade: &Upgrade) -> Self {
        let planned = upgrade.plan.nodes().map(|node| {
            (node.node.to_string(), (uuid_number(node.uid.as_str()).unwrap_or_default(), node.machine_id.clone()))
        });
        Self { max_parallel: upgrade.plan.options.max_parallel, planned: planned.collect(), ..Self::default() }
    }

    /// Takes the checker of an invariant away.
    pub fn take_away(&mut self, invariant: u8) {
        self.off.insert(invariant);
    }

    /// Whether an invariant is looked at.
    pub fn is_on(&self, invariant: u8) -> bool {
        !self.off.contains(&invariant)
    }

    /// Whether the world is as it was when it was last looked at. Most events change neither nodes nor machines.
    pub(super) fn have_seen(&self, simulation: &Simulation) -> bool {
        self.seen == newest(simulation) && self.api_away_since.is_some() == is_api_away(simulation)
    }

    /// Looks at what one event brought.
    pub(super) fn after(&mut self, simulation: &Simulation, fresh: &[EventRecord], acts: &[Act]) -> Option<Violation> {
        let api_away = is_api_away(simulation);
        self.api_away_since = if api_away { Some(self.api_away_since.unwrap_or(simulation.now)) } else { None };
        let mut found: Vec<(u8, String)> = Vec::new();
        for act in acts {
            found.extend(self.act(simulation, act));
        }
        for record in fresh {
            found.extend(self.record(simulation, record));
        }
        let seen = newest(simulation);
        if seen != self.seen || !fresh.is_empty() {
            self.seen = seen;
            found.extend(self.state(simulation));
        }
        let (invariant, detail) = found.into_iter().find(|(invariant, _)| self.is_on(*invariant))?;
        Some(Violation { invariant, detail, at: simulation.now })
    }

    // ---- acts ----

    fn act(&mut self, simulation: &Simulation, act: &Act) -> Vec<(u8, String)> {
        let mut found = Vec::new();
        if let Act::Begun { node, assignment } = act {
            return self.begun(simulation, *node, assignment);
        }
        let node = match act {
            Act::Begun { .. } => None,
            Act::Marked { node, .. } | Act::Unit { node, .. } => Some(*node),
            Act::Evicted { node, .. } => *node,
        };
        let name = node.map(|node| simulation.node_name(node)).unwrap_or_default();
        let in_flight = |kinds: &[&str]| {
            simulation.log.plan.steps().any(|step| {
                kinds.contains(&step.action.kind())
                    && step.target.node().map(NodeName::as_str) == Some(name.as_str())
                    && matches!(simulation.log.step_status(step), Some(StepStatus::InFlight { .. }))
            })
        };
        if let Some(node) = node {
            found.extend(self.right_machine(simulation, node, &name, act));
            found.extend(self.in_work(simulation, &name));
        }
        match act {
            Act::Marked { node, epoch, cordoned, others_before } => {
                if !in_flight(&["cordon", "uncordon"]) {
                    found.push((6, format!("the mark of node {name} was written without an intent")));
                }
                if *others_before {
                    found.push((7, format!("the cordon of somebody else on node {name} was taken for ours")));
                }
                if !cordoned && !self.marked.contains(node) {
                    found.push((7, format!("a cordon on node {name} that was not ours was taken off")));
                }
                found.extend(self.epoch(*node, *epoch, &name));
            }
            Act::Evicted { uid, node, forced, epoch } => {
                if !in_flight(&["drain"]) {
                    found.push((6, format!("a pod on node {name} was evicted without an intent")));
                }
                if !self.evicted.insert(*uid) {
                    found.push((6, format!("a pod of node {name} was evicted twice")));
                }
                if *forced && simulation.log.plan.options.on_drain_timeout != OnDrainTimeout::Force {
                    found.push((12, format!("a pod on node {name} was deleted, budgets notwithstanding")));
                }
                if let Some(node) = node {
                    found.extend(self.epoch(*node, *epoch, &name));
                    let drain = simulation.log.plan.steps().find(|step| {
                        matches!(step.action, Action::Drain { .. })
                            && step.target.node().map(NodeName::as_str) == Some(name.as_str())
                    });
                    found.extend(drain.and_then(|drain| self.takes_new_pods(simulation, *node, &name, drain)));
                }
                let held_for = self.leased_at.map_or(Duration::ZERO, |at| simulation.now.since(at));
                if *epoch < simulation.log.epoch.0 && held_for > REQUEST_LIMIT {
                    found.push((8, format!("a pod on node {name} was evicted under epoch {epoch}, which had ended")));
                }
            }
            Act::Begun { .. } => {}
            Act::Unit { node, name: unit, work } => found.extend(self.unit(simulation, *node, &name, unit, work)),
        }
        found
    }

    /// An agent takes up only what the plan has, and nothing older than what it took up before.
    fn begun(&mut self, simulation: &Simulation, node: u32, assignment: &Assignment) -> Vec<(u8, String)> {
        let mut found = Vec::new();
        let Assignment { id, node: name, action, .. } = assignment;
        let planned = simulation.log.plan.step(id.step);
        if !planned.is_some_and(|step| step.action == *action && step.target.node() == Some(name)) {
            found.push((16, format!("step {} that node {name} took up is not of the plan", id.step)));
        }
        let newest = self.generations.entry(node).or_insert(id.generation);
        if id.generation < *newest {
            found.push((8, format!("node {name} took up generation {} after {newest}", id.generation)));
        }
        *newest = id.generation.max(*newest);
        found
    }

    fn epoch(&mut self, node: u32, epoch: u64, name: &str) -> Found {
        let newest = self.epochs.entry(node).or_default();
        if epoch < *newest {
            return Some((8, format!("epoch {epoch} changed node {name} after epoch {newest}")));
        }
        *newest = epoch;
        None
    }

    fn right_machine(&self, simulation: &Simulation, node: u32, name: &str, act: &Act) -> Found {
        let (uid, machine_id) = self.planned.get(name)?;
        // Putting the old back ends an act that was permitted, and asks nobody.
        if matches!(act, Act::Unit { name, .. } if name.ends_with("roll-back")) || self.is_news(simulation, name) {
            return None;
        }
        let is_uncordon = matches!(act, Act::Marked { cordoned: false, .. });
        let found = simulation.world.nodes().find("", name);
        let machine = simulation.world.machine(node);
        let wrong_uid = found.is_some_and(|found| found.meta.uid != *uid);
        let wrong_machine = machine.is_some_and(|machine| *machine.machine_id != **machine_id);
        (wrong_uid || wrong_machine).then(|| {
            let what = if is_uncordon { "given back" } else { "acted on" };
            (14, format!("node {name} was {what} under another UID or machine id than the plan's"))
        })
    }

    /// A node that joined so shortly ago that no watch can have told of it, or while the API was away.
    fn is_news(&self, simulation: &Simulation, name: &str) -> bool {
        let known_after = PERMITTED_FOR + simulation.faults.watch_lag + simulation.faults.store_slow;
        let joined_at = simulation.world.nodes().find("", name).map(|node| node.meta.created_at);
        self.api_away_since.is_some() || joined_at.is_some_and(|at| simulation.now.since(at) <= known_after)
    }

    /// Only nodes of the batch in work are touched, or given back.
    fn in_work(&self, simulation: &Simulation, name: &str) -> Found {
        let planned = simulation
            .log
            .plan
            .nodes()
            .any(|node| node.node.as_str() == name && node.steps.iter().any(|step| step.action.is_acting()));
        let cluster_phase = simulation.log.in_flight().any(|(step, ..)| {
            matches!(step.action, Action::UploadConfiguration { .. } | Action::UpgradeAddons { .. })
                && step.target.node().map(NodeName::as_str) == Some(name)
        });
        (planned && !self.newest.contains(name) && !cluster_phase)
            .then(|| (5, format!("node {name} was touched and is not of the batch in work")))
    }

    fn unit(&self, simulation: &Simulation, node: u32, name: &str, unit: &str, work: &Work) -> Vec<(u8, String)> {
        let mut found = Vec::new();
        let log = &simulation.log;
        let number = unit
            .strip_prefix(&format!("shiplock-{}-", log.id))
            .and_then(|rest| rest.split('-').next())
            .and_then(|number| number.parse().ok());
        let is_back = unit.ends_with("roll-back");
        let Some(step) = number.and_then(|number| log.plan.step(StepNumber(number))) else {
            return vec![(16, format!("unit {unit} on node {name} is of no step of the plan"))];
        };
        if step.target.node().map(NodeName::as_str) != Some(name) {
            found.push((16, format!("unit {unit} ran on node {name}, which is not the step's")));
        }
        match log.step_status(step) {
            Some(StepStatus::InFlight { intent, .. }) => {
                let attempt = simulation
                    .agents
                    .get(node as usize)
                    .and_then(Option::as_ref)
                    .and_then(|agent| agent.machine.attempt());
                if attempt.is_some_and(|attempt| attempt.generation.intent != *intent) {
                    found.push((8, format!("unit {unit} was started for an attempt that is not in force")));
                }
            }
            _ => found.push((6, format!("unit {unit} was started without an intent in flight"))),
        }
        if !is_back && let Some(wrong) = wrong_digest(step, work) {
            found.push((15, format!("unit {unit} on node {name}: {wrong}")));
        }
        let machine = simulation.world.machine(node);
        let at_target = !is_back
            && match (work, machine) {
                (Work::Kubelet(executable), Some(machine)) => machine.kubelet.running.as_ref() == Some(executable),
                (Work::Runtime(executable), Some(machine)) => machine.runtime.running.as_ref() == Some(executable),
                _ => false,
            };
        if at_target {
            found.push((6, format!("unit {unit} restarts what is at its target on node {name}")));
        }
        if let Work::Swap { .. } = work {
            found.extend(self.quorum(simulation, node, name, is_back));
        }
        if let (false, Work::Swap { .. } | Work::Kubelet(_) | Work::Runtime(_)) = (is_back, work) {
            found.extend(self.takes_new_pods(simulation, node, name, step));
        }
        found
    }

    /// What pods stand on was just changed, or one was evicted: where the plan cordons the node, it takes no new ones, as
    /// far as anybody who watches could know.
    fn takes_new_pods(&self, simulation: &Simulation, node: u32, name: &str, step: &Step) -> Found {
        let planned = simulation.log.plan.node_of_step(step.number)?;
        let is_cordoned = planned.steps.iter().any(|step| step.action == Action::Cordon);
        let since = self.schedulable_since.get(&node).filter(|_| is_cordoned && self.api_away_since.is_none())?;
        let faults = &simulation.faults;
        let watches = if simulation.gateways.is_empty() { Duration::ZERO } else { BROKEN_WATCHES_KNOWN_FOR };
        let known_after = PERMITTED_FOR + watches + faults.watch_lag + faults.store_slow + faults.disk_slow;
        let taken_for = simulation.now.since(*since);
        let seconds = taken_for.as_secs();
        (taken_for > known_after)
            .then(|| (19, format!("node {name} was touched though it had been taking new pods for {seconds} s")))
    }

    /// The member on this node was just taken away: the others must carry the cluster.
    fn quorum(&self, simulation: &Simulation, node: u32, name: &str, is_back: bool) -> Found {
        let world = &simulation.world;
        let etcd = world.etcd();
        if etcd.members.len() <= 1 || is_back {
            return None;
        }
        let others = etcd
            .members
            .iter()
            .filter(|member| member.machine != node && !member.is_learner && world.etcd_member_serves(member.machine))
            .count();
        let quorum = etcd.members.len() / 2 + 1;
        if others < quorum {
            return Some((1, format!("etcd on master {name} was touched while {others} of {quorum} others were well")));
        }
        if etcd.members.iter().any(|member| member.is_learner) {
            return Some((1, format!("etcd on master {name} was touched while a learner was under way")));
        }
        if !etcd.alarms.is_empty() {
            return Some((1, format!("etcd on master {name} was touched while an alarm was raised")));
        }
        let another =
            etcd.members.iter().any(|member| member.machine != node && world.api_server_answers(member.machine));
        (!another).then(|| (1, format!("the API server on master {name} was touched while no other answered")))
    }

    // ---- records ----

    fn record(&mut self, simulation: &Simulation, record: &EventRecord) -> Vec<(u8, String)> {
        let mut found = Vec::new();
        if record.number != self.last_number + 1 || record.position <= self.last_position {
            found.push((
                10,
                format!(
                    "event {} at position {} follows event {} at {}",
                    record.number, record.position, self.last_number, self.last_position
                ),
            ));
        }
        self.last_number = record.number;
        self.last_position = record.position;
        let plan = &simulation.log.plan;
        match &record.event {
            Event::LeaseTaken { .. } => self.leased_at = Some(simulation.now),
            Event::PauseRequested { .. } => self.pausing = true,
            Event::Continued { .. } => self.pausing = false,
            Event::CancelRequested { abandon, .. } => {
                self.cancelled = true;
                self.abandoned.extend(abandon.iter().map(ToString::to_string));
            }
            Event::ExpiryBegan => self.cancelled = true,
            Event::MaxParallelChanged { max_parallel, .. } => self.max_parallel = *max_parallel,
            Event::StageStarted { .. } => found.extend(self.unknown(simulation, "a stage")),
            Event::BatchStarted { stage, batch, nodes, .. } => {
                if *batch > 1 {
                    found.extend(self.unknown(simulation, "a batch"));
                }
                found.extend(self.batch(plan, *stage, *batch, nodes));
                if self.pausing || self.cancelled {
                    found.push((13, format!("batch {batch} of stage {stage} began after pause or cancel")));
                }
            }
            Event::BatchFinished { .. } => self.open = None,
            Event::StepStarted { step, .. } => found.extend(self.step_started(simulation, *step)),
            Event::Succeeded => found.extend(self.succeeded(simulation)),
            _ => {}
        }
        found
    }

    /// Nothing new begins on what is not known.
    fn unknown(&self, simulation: &Simulation, what: &str) -> Found {
        let away = simulation.now.since(self.api_away_since?);
        let watches = if simulation.gateways.is_empty() { Duration::ZERO } else { BROKEN_WATCHES_KNOWN_FOR };
        let known_for = KNOWN_FOR + watches + simulation.faults.watch_lag + simulation.faults.store_slow;
        (away > known_for).then(|| (9, format!("{what} began though the API had been away for {} s", away.as_secs())))
    }

    fn batch(&mut self, plan: &Plan, stage: usize, batch: u32, nodes: &[NodeName]) -> Vec<(u8, String)> {
        let mut found = Vec::new();
        let (before, taken) = self.batches.get(&stage).copied().unwrap_or_default();
        let planned = plan.stages.get(stage);
        let masters = planned.is_some_and(|stage| matches!(stage.kind, StageKind::ControlPlane | StageKind::StepUp));
        let left = planned.map_or(0, |stage| stage.nodes.len()).saturating_sub(taken);
        // Neither more nodes than the law lets go together nor fewer: it does not begin again after a pause.
        let bound = if masters { 1 } else { self.max_parallel as usize };
        let lawful = 1usize.checked_shl(before).unwrap_or(usize::MAX).min(bound).min(left);
        if masters && nodes.len() > 1 {
            found.push((5, format!("{} masters go together", nodes.len())));
        } else if batch != before + 1 || nodes.len() != lawful || nodes.is_empty() {
            let nodes = nodes.len();
            found.push((4, format!("batch {batch} of {nodes} nodes follows batch {before}: the law says {lawful}")));
        }
        if let Some((other, _)) = &self.open {
            found.push((5, format!("a batch of stage {stage} began while one of stage {other} was in work")));
        }
        self.batches.insert(stage, (batch, taken + nodes.len()));
        let names: BTreeSet<String> = nodes.iter().map(ToString::to_string).collect();
        self.newest = names.clone();
        self.open = Some((stage, names));
        found
    }

    fn step_started(&mut self, simulation: &Simulation, number: StepNumber) -> Vec<(u8, String)> {
        let mut found = Vec::new();
        let Some(step) = simulation.log.plan.step(number) else {
            return vec![(16, format!("step {number} is not of the plan"))];
        };
        let Some(node) = step.target.node().filter(|_| step.action.is_acting()) else { return found };
        let is_first = self.started.insert(node.to_string());
        if is_first {
            found.extend(self.unknown(simulation, "a node"));
            if self.pausing || self.cancelled {
                found.push((13, format!("node {node} was started after pause or cancel")));
            }
        }
        found
    }

    /// Everything that is claimed runs.
    fn succeeded(&self, simulation: &Simulation) -> Vec<(u8, String)> {
        let mut found = Vec::new();
        let log = &simulation.log;
        for planned in log.plan.nodes() {
            if log.skipped.contains_key(&planned.node) || log.abandoned.contains(&planned.node) {
                continue;
            }
            let node = simulation.world.nodes().find("", planned.node.as_str());
            let told = node.map(|node| node.info.kubelet_version.to_string()).unwrap_or_default();
            if told != log.plan.to.to_string() {
                found.push((18, format!("node {} reports {told}", planned.node)));
            }
            let id = simulation.world.nodes().id("", planned.node.as_str());
            let Some(machine) = id.and_then(|id| simulation.world.machine(id)) else { continue };
            for step in &planned.steps {
                let (
                    Action::VerifyNode { kubelet_sha256, container_runtime_sha256, control_plane_images, .. },
                    running,
                ) = (&step.action, (&machine.kubelet.running, &machine.runtime.running))
                else {
                    continue;
                };
                for (expected, running) in [(kubelet_sha256, running.0), (container_runtime_sha256, running.1)] {
                    if let (Some(expected), Some(running)) = (expected, running)
                        && *running.sha256 != **expected
                    {
                        found.push((
                            15,
                            format!("node {} runs {} in place of {expected}", planned.node, running.sha256),
                        ));
                    }
                }
                for image in control_plane_images {
                    let component = ControlPlaneComponent::from_name(&image.role);
                    let pod = component.and_then(|component| machine.static_pods.get(&component));
                    if let Some(pod) = pod
                        && *pod.image != *image.reference
                    {
                        found.push((18, format!("{} on node {} is {}", image.role, planned.node, pod.image)));
                    }
                }
            }
        }
        found
    }

    // ---- the state of the world ----

    fn state(&mut self, simulation: &Simulation) -> Vec<(u8, String)> {
        let mut found = Vec::new();
        let world = &simulation.world;
        let ours = |annotations: &crate::world::Labels| annotations.contains_key(OWNER_ANNOTATION);
        self.marked = world.nodes().iter().filter(|(_, node)| ours(&node.meta.annotations)).map(|(id, _)| id).collect();
        for (id, node) in world.nodes().iter() {
            if node.unschedulable {
                self.schedulable_since.remove(&id);
            } else {
                self.schedulable_since.entry(id).or_insert(simulation.now);
            }
        }
        for id in &self.marked {
            let name = simulation.node_name(*id);
            if !self.newest.contains(&name) && !self.abandoned.contains(&name) {
                found.push((3, format!("node {name} is ours and not of the batch in work")));
            }
        }
        let bound = self.newest.len().max(1);
        let held = self.marked.iter().filter(|id| !self.abandoned.contains(&simulation.node_name(**id))).count();
        if held > bound {
            found.push((3, format!("{held} nodes are ours, the batch has {bound}")));
        }
        found.extend(self.skew(simulation));
        let swapping = world
            .etcd()
            .members
            .iter()
            .filter(|member| {
                let swaps = |unit: &crate::world::Unit| {
                    matches!(unit.work, Work::Swap { .. }) && unit.state == UnitState::Running
                };
                world.machine(member.machine).is_some_and(|machine| machine.units.iter().any(swaps))
            })
            .count();
        if swapping > 1 {
            found.push((5, format!("{swapping} masters are swapped at the same time")));
        }
        found
    }

    /// Kubelets against the API servers that they may meet, and API servers against each other.
    fn skew(&self, simulation: &Simulation) -> Found {
        let world = &simulation.world;
        let version = |text: &str| text.rsplit(':').next().and_then(|tag| tag.parse::<KubernetesVersion>().ok());
        let of = |member: u32| {
            let machine = world.machine(member)?;
            version(machine.static_pods.get(&ControlPlaneComponent::KubeApiserver)?.running.as_ref()?)
        };
        let servers: Vec<KubernetesVersion> =
            world.etcd().members.iter().filter_map(|member| of(member.machine)).collect();
        let (Some(oldest), Some(newest)) = (servers.iter().min(), servers.iter().max()) else { return None };
        if newest.release.minor > oldest.release.minor + 1 {
            return Some((2, format!("API servers of {oldest} and {newest} side by side")));
        }
        for (id, node) in world.nodes().iter() {
            let Some(machine) = world.machine(id) else { continue };
            let Some(kubelet) = machine.kubelet.running.as_ref().and_then(|running| version(&running.version)) else {
                continue;
            };
            // A master's kubelet speaks to the API server beside it.
            let against = if machine.static_pods.is_empty() { Some(*oldest) } else { of(id) };
            let Some(server) = against else { continue };
            if kubelet.release > server.release || kubelet.release.minor + 3 < server.release.minor {
                return Some((
                    2,
                    format!("kubelet {kubelet} of node {} may meet an API server {server}", node.meta.name),
                ));
            }
        }
        None
    }

    /// What must hold when it has ended.
    pub(super) fn at_end(&self, simulation: &Simulation) -> Option<Violation> {
        let violation =
            |invariant, detail| self.is_on(invariant).then_some(Violation { invariant, detail, at: simulation.now });
        if simulation.log.state.is_terminal() {
            for (id, node) in simulation.world.nodes().iter() {
                let name = simulation.node_name(id);
                if node.meta.annotations.contains_key(OWNER_ANNOTATION) && !self.abandoned.contains(&name) {
                    return violation(7, format!("node {name} still carries our mark at the end"));
                }
            }
        }
        // A reader that resumes after every few events loses and repeats none.
        let mut read = Vec::new();
        let mut position = 0;
        while let Ok(page) = now_or_never(simulation.store.events_since(position, 7)) {
            let Some(last) = page.last() else { break };
            position = last.position;
            let ours = page.iter().filter(|record| record.upgrade == simulation.id);
            read.extend(ours.map(|record| record.number));
        }
        let whole: Vec<u64> = (1..=simulation.log.len).collect();
        if read != whole {
            return violation(10, format!("a reader that resumes saw {} events of {}", read.len(), whole.len()));
        }
        None
    }
}

pub(super) fn is_api_away(simulation: &Simulation) -> bool {
    simulation.faults.api_down || !simulation.world.api_answers()
}

/// The newest change of a Node, and of a machine.
fn newest(simulation: &Simulation) -> (u64, u64) {
    (simulation.world.nodes().newest(), simulation.world.machines_version())
}

/// What is put in place must have the digest that the plan has.
fn wrong_digest(step: &Step, work: &Work) -> Option<String> {
    let files = match &step.action {
        Action::UpgradeContainerRuntime { files, .. } | Action::UpgradeKubelet { files, .. } => files,
        Action::UpgradeControlPlane(upgrade) => &upgrade.files,
        _ => return None,
    };
    let (role, found) = match work {
        Work::Runtime(executable) => ("containerd", executable),
        Work::Kubelet(executable) => ("kubelet", executable),
        Work::Swap { kubelet: Some(executable), .. } => ("kubelet", executable),
        _ => return None,
    };
    let planned = files.iter().find(|file| file.role == role).map(|file| file.sha256.as_str()).unwrap_or_default();
    (planned != &*found.sha256).then(|| format!("{role} {} in place of {planned}", found.sha256))
}
