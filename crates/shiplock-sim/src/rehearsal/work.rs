//! A step in work. What the server does itself is done by its own step machine, which is asked as the server's shell asks
//! it and answered by the world. Of what an agent does the effect is the world's, and the time is one from its range.

use std::sync::Arc;
use std::time::Duration;

use shiplock_api::agent::Assignment;
use shiplock_cluster::fence::{self, Wanted};
use shiplock_cluster::port::{Cordon, DrainPod, Eviction, Uncordon};
use shiplock_core::facts::{AddonFacts, ClusterFacts, NodeOwner};
use shiplock_core::id::{NodeName, ObjectUid};
use shiplock_core::plan::Plan;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::{Action, Step};
use shiplock_core::upgrade::{StepOutcome, Waiting, WaitingOn};
use shiplock_server::driver::step::{
    Answer, Outside, Request, SeenNode, StepContext, StepInput, StepMachine, StepOutput, StepTime,
};

use crate::machine::machine_facts;
use crate::step as acts;
use crate::world::{DrainPods, Moment, OWNER_ANNOTATION, Text, Work as Program, World, object_uid, uuid_number};

/// How often what an agent put in place is looked at.
const LOOKS: Duration = Duration::from_millis(300);
/// Where nothing happens in the world a look would show nothing new; so long may one be left out.
const LOOKS_LEFT_OUT: Duration = Duration::from_secs(5);
/// From the end of a program that replaced the kubelet to the kubelet's first words.
const KUBELET_SPEAKS: Duration = Duration::from_millis(1_500);

/// How a step ended.
pub(super) type Ended = Result<StepOutcome, (Problem, bool)>;

/// A step in work.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) step: Step,
    pub(super) attempt: u32,
    /// Its node, where it has one.
    pub(super) node: Option<u32>,
    began_at: Moment,
    /// When it is looked at next.
    pub(super) look_at: Moment,
    by: By,
    waits: Vec<WaitingOn>,
    /// Its waits may differ from what they were when this was last asked.
    has_looked: bool,
}

/// Who does it.
#[derive(Debug)]
enum By {
    Server {
        machine: Box<StepMachine>,
        /// When its machine was last fed, and what had moved on its node until then; none before it was told to begin.
        fed: Option<Fed>,
        /// What it saw of pods.
        pods: DrainPods,
    },
    Agent {
        assignment: Box<Assignment>,
        node: u32,
        program: Option<Program>,
    },
}

/// When the machine of a step of the server was last fed.
#[derive(Debug)]
struct Fed {
    at: Moment,
    seen: Option<Seen>,
    rest: Duration,
}

/// What a step goes by: another one after each change.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// A drain: its node, and the pods there.
    Node { moves: u64, version: u64 },
    /// The read-back of add-ons, which roll out over every node of the cluster.
    AddOns(Vec<AddonFacts>),
}

impl Seen {
    fn of(world: &World, step: &Step, node: Option<u32>) -> Option<Self> {
        match (&step.action, node) {
            (Action::VerifyAddons { .. }, _) => Some(Self::AddOns(world.addons())),
            (_, Some(id)) => {
                Some(Self::Node { moves: world.moves_on(id), version: world.nodes().get(id)?.meta.version })
            }
            _ => None,
        }
    }
}

impl Work {
    /// A step of the server that takes so long beside what it waits for.
    pub(super) fn of_server(world: &World, step: Step, attempt: u32, context: StepContext, takes: Duration) -> Self {
        let now = world.now();
        // What a drain takes comes from its pods alone.
        let begins_at = if matches!(step.action, Action::Drain { .. }) { now } else { now + takes };
        let machine = StepMachine::new(step.clone(), context, begins_at.timestamp(), begins_at.timestamp());
        let node = step.target.node().and_then(|node| world.nodes().id("", node.as_str()));
        let by = By::Server { machine: Box::new(machine), fed: None, pods: DrainPods::new() };
        Self { step, attempt, node, began_at: begins_at, look_at: begins_at, by, waits: Vec::new(), has_looked: false }
    }

    /// A step of an agent that takes so long. None where its node is not in the world.
    pub(super) fn of_agent(
        world: &mut World,
        plan: &Plan,
        step: Step,
        attempt: u32,
        assignment: Box<Assignment>,
        takes: Duration,
    ) -> Option<Self> {
        let node = world.nodes().id("", assignment.node.as_str())?;
        let program = program(plan, &assignment.action);
        if let Some(program) = &program {
            // What starts anew afterwards does so within the step's time.
            let ahead = takes.saturating_sub(KUBELET_SPEAKS).max(takes / 3);
            world.start_unit(node, &acts::unit(&assignment, "act"), program.clone(), ahead);
        }
        let began_at = world.now();
        let by = By::Agent { assignment, node, program };
        let look_at = began_at + takes;
        Some(Self { step, attempt, node: Some(node), began_at, look_at, by, waits: Vec::new(), has_looked: false })
    }

    /// What it waits for, where that may have changed since this was last asked.
    pub(super) fn new_waits(&mut self) -> Option<&[WaitingOn]> {
        std::mem::take(&mut self.has_looked).then_some(self.waits.as_slice())
    }

    /// The assignment of a step of an agent.
    pub(super) fn assignment(&self) -> Option<&Assignment> {
        match &self.by {
            By::Agent { assignment, .. } => Some(assignment),
            By::Server { .. } => None,
        }
    }

    /// Whether a budget, or a pod that has not ended, holds it up.
    pub(super) fn is_held_by_pods(&self) -> bool {
        self.waits.iter().any(|wait| {
            matches!(
                wait.what,
                Waiting::PodDisruptionBudget { .. } | Waiting::PodTermination { .. } | Waiting::EvictionRefused { .. }
            )
        })
    }

    /// When its own time is over.
    pub(super) fn deadline(&self) -> Moment {
        let seconds = match &self.step.action {
            Action::Drain { timeout_seconds, .. } => *timeout_seconds,
            _ => self.step.timeout_seconds,
        };
        self.began_at + Duration::from_secs(u64::from(seconds))
    }

    /// Looks at it, now that its time has come. `facts` gives the cluster as it is now.
    pub(super) fn look(
        &mut self,
        world: &mut World,
        facts: &mut dyn FnMut(&World) -> Arc<ClusterFacts>,
    ) -> Option<Ended> {
        let ended = match &mut self.by {
            By::Server { machine, fed, pods } => {
                let now = world.now();
                let seen = Seen::of(world, &self.step, self.node);
                match fed {
                    // It would see what it saw.
                    Some(Fed { at, seen: before, rest })
                        if seen == *before
                            && !machine.is_due(at.since(self.began_at), now.since(self.began_at), &allows(world)) =>
                    {
                        Looked::AgainAfter(*rest)
                    }
                    _ => {
                        let input = if fed.is_some() { StepInput::Rested } else { StepInput::Begin };
                        let looked = drive(machine, input, self.began_at, world, facts, pods, &mut self.waits);
                        self.has_looked = true;
                        let rest = if let Looked::AgainAfter(rest) = looked { rest } else { LOOKS };
                        *fed = Some(Fed { at: now, seen, rest });
                        looked
                    }
                }
            }
            By::Agent { assignment, node, program } => look_at_agent(world, *node, assignment, program.as_ref()),
        };
        match ended {
            Looked::Ended(ended) => Some(ended),
            Looked::AgainAfter(_) if world.now() >= self.deadline() && self.assignment().is_some() => {
                let problem = Problem::new(Code::StepTimedOut)
                    .with("step", self.step.number)
                    .with(
                        "subject",
                        self.step.target.node().map_or_else(|| "cluster".to_owned(), |node| format!("node {node}")),
                    )
                    .with("limit", format!("{} s", self.step.timeout_seconds));
                Some(Err((problem, false)))
            }
            Looked::AgainAfter(rest) => {
                let now = world.now();
                let next = world.next_at().map_or(LOOKS_LEFT_OUT, |at| at.since(now).min(LOOKS_LEFT_OUT));
                self.look_at = (now + rest.max(next)).min(self.deadline().max(now + rest));
                None
            }
        }
    }
}

enum Looked {
    Ended(Ended),
    AgainAfter(Duration),
}

/// Feeds a machine of the server until it rests or has ended. The world answers at once: how long requests take is in the
/// time of the step.
fn drive(
    machine: &mut StepMachine,
    first: StepInput,
    began_at: Moment,
    world: &mut World,
    facts: &mut dyn FnMut(&World) -> Arc<ClusterFacts>,
    pods: &mut DrainPods,
    waits: &mut Vec<WaitingOn>,
) -> Looked {
    let mut inputs = vec![first];
    let mut rest = LOOKS;
    while let Some(input) = inputs.pop() {
        let now = world.now();
        let time = StepTime { now: now.timestamp(), elapsed: now.since(began_at) };
        let outputs = {
            let world = &*world;
            let agent = |name: &NodeName| machine_facts(world, world.nodes().id("", name.as_str())?);
            let budget_allows = allows(world);
            let node = |name: &NodeName| {
                let node = world.nodes().find("", name.as_str())?;
                Some(SeenNode { uid: object_uid(node.meta.uid), unschedulable: node.unschedulable })
            };
            machine.on(input, time, &Outside { agent: &agent, budget_allows: &budget_allows, node: &node })
        };
        for output in outputs {
            match output {
                StepOutput::Ask(number, request) => {
                    let answer = answer(world, facts, pods, request);
                    inputs.push(StepInput::Answered(number, Box::new(answer)));
                }
                StepOutput::Waits(what) => *waits = what,
                StepOutput::Rest { at_most, .. } => rest = at_most,
                StepOutput::Ended(result) => return Looked::Ended(result),
            }
        }
    }
    Looked::AgainAfter(rest)
}

/// Whether a budget allows a disruption.
fn allows(world: &World) -> impl Fn(&str) -> Option<bool> {
    |budget| {
        let (namespace, name) = budget.split_once('/')?;
        world.budgets().find(namespace, name).map(|budget| budget.allowed > 0)
    }
}

/// What the API server of the world answers.
fn answer(
    world: &mut World,
    facts: &mut dyn FnMut(&World) -> Arc<ClusterFacts>,
    pods: &mut DrainPods,
    request: Request,
) -> Answer {
    match request {
        Request::Facts => Answer::Facts(Ok(facts(world))),
        Request::Node(node) => {
            Answer::Node(Ok(world.nodes().find("", node.as_str()).map(|node| world.node_facts(node))))
        }
        Request::PodsOn(node) => {
            let node = world.nodes().id("", node.as_str());
            Answer::PodsOn(Ok(node.map(|node| world.drain_pods_again(node, pods)).unwrap_or_default()))
        }
        Request::Cordon { node, uid, owner } => {
            Answer::Cordon(mark(world, &node, &uid, &owner, Cordon::NodeGone, |mark, unschedulable| {
                fence::cordon(mark, unschedulable, &owner)
            }))
        }
        Request::Uncordon { node, uid, owner } => {
            Answer::Uncordon(mark(world, &node, &uid, &owner, Uncordon::NodeGone, |mark, _| {
                fence::uncordon(mark, &owner)
            }))
        }
        Request::Evict(pod) => Answer::Eviction(Ok(take(world, pods, &pod, false))),
        Request::Delete(pod) => Answer::Eviction(Ok(take(world, pods, &pod, true))),
    }
}

/// Evicts or deletes a pod that a drain saw.
fn take(world: &mut World, pods: &mut DrainPods, pod: &Arc<DrainPod>, forced: bool) -> Eviction {
    match pods.iter_mut().find(|(_, seen)| Arc::ptr_eq(&seen.pod, pod)) {
        Some((id, seen)) => {
            let answer = world.take_pod_by_id(*id, forced);
            seen.ended |= answer == Eviction::Accepted;
            answer
        }
        None => world.take_pod(pod, forced),
    }
}

/// Writes mark and cordon of a node as the fence has it.
fn mark<T>(
    world: &mut World,
    name: &NodeName,
    uid: &ObjectUid,
    owner: &NodeOwner,
    gone: T,
    wanted: impl Fn(Option<&str>, bool) -> Wanted<T>,
) -> Result<T, Problem> {
    let Some(id) = world.nodes().id("", name.as_str()) else { return Ok(gone) };
    let Some(node) = world.nodes().get(id).filter(|node| uuid_number(uid.as_str()) == Some(node.meta.uid)) else {
        return Ok(gone);
    };
    let mark = node.meta.annotations.get(OWNER_ANNOTATION).map(|text| &**text);
    match wanted(mark, node.unschedulable) {
        Wanted::Nothing(result) => Ok(result),
        Wanted::Overtaken(epoch) => {
            Err(Problem::new(Code::LeaseLost).with("upgrade", &owner.upgrade).with("epoch", epoch))
        }
        Wanted::Write(write, result) => {
            world.write_mark(id, &write);
            Ok(result)
        }
    }
}

/// What the program of a step does in the world.
fn program(plan: &Plan, action: &Action) -> Option<Program> {
    if !matches!(action, Action::UpgradeAddons { .. }) {
        return acts::program(action).map(|(program, _)| program);
    }
    // kubeadm puts what the plan reads back.
    let images = plan.steps().find_map(|step| match &step.action {
        Action::VerifyAddons { images } => Some(images),
        _ => None,
    })?;
    Some(Program::AddOns(
        images.iter().map(|image| (Text::from(image.role.as_str()), image.reference.as_str().into())).collect(),
    ))
}

fn look_at_agent(world: &mut World, node: u32, assignment: &Assignment, program: Option<&Program>) -> Looked {
    match program {
        Some(program) if !acts::is_done(world, node, assignment, program) => Looked::AgainAfter(LOOKS),
        Some(_) => Looked::Ended(Ok(acts::outcome(&assignment.action, Duration::ZERO))),
        None if matches!(assignment.action, Action::Prefetch { .. } | Action::CollectLogs) => Looked::Ended(
            acts::fetched(world, node, assignment).map_err(|failure| (*failure.problem, failure.retryable)),
        ),
        None => Looked::Ended(Ok(StepOutcome::Done)),
    }
}
