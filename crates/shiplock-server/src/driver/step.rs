//! A step that the server does itself, as a machine without I/O: examine, act, verify through the Kubernetes API.
//!
//! `on(input, time)` gives what to ask of the cluster and what is waited for. Each step is safe to repeat and carries its
//! fence: the node's UID, our mark with the epoch, and the lease, which the shell looks at right before it sends what
//! [`Request::acts`].

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use shiplock_cluster::drain::{Act, DrainMachine};
use shiplock_cluster::port::{Cordon, DrainPod, Eviction, Uncordon};
use shiplock_core::artefact::ArtefactImage;
use shiplock_core::facts::{ClusterFacts, ComponentFacts, MachineFacts, NodeFacts, NodeOwner, Observed, WorkloadFacts};
use shiplock_core::id::{ClusterName, Epoch, NodeName, ObjectUid};
use shiplock_core::plan::{NodePlan, Plan};
use shiplock_core::planted::{self, Bug};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::{Action, Step};
use shiplock_core::upgrade::{
    StepOutcome, Upgrade, Waiting, WaitingOn, fewer_ready_pods, older_outside_plan, worse_than_baseline,
};
use shiplock_core::version::KubernetesVersion;

use super::machine::StepResult;
use super::read_back::{check_master, check_node, joined_again, kubelet_after, read_back};

/// What a step asks of the cluster: the port [`Cluster`](shiplock_cluster::port::Cluster) as values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The cluster as caches show it.
    Facts,
    /// One node, read now.
    Node(NodeName),
    /// The pods on a node, read now.
    PodsOn(NodeName),
    /// Mark a node unschedulable and ours.
    Cordon {
        /// The node.
        node: NodeName,
        /// Under this UID only.
        uid: ObjectUid,
        /// Our mark.
        owner: NodeOwner,
    },
    /// Take our mark and cordon off.
    Uncordon {
        /// The node.
        node: NodeName,
        /// Under this UID only.
        uid: ObjectUid,
        /// Our mark.
        owner: NodeOwner,
    },
    /// Evict a pod.
    Evict(Arc<DrainPod>),
    /// Delete a pod, budgets notwithstanding.
    Delete(Arc<DrainPod>),
}

impl Request {
    /// Whether it changes anything: it may be sent only while the lease outlives the request.
    pub fn acts(&self) -> bool {
        !matches!(self, Self::Facts | Self::Node(_) | Self::PodsOn(_))
    }
}

/// The answer to a [`Request`] of the same name.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The cluster.
    Facts(Result<Arc<ClusterFacts>, Problem>),
    /// The node; none where it is not there.
    Node(Result<Option<NodeFacts>, Problem>),
    /// The pods.
    PodsOn(Result<Vec<Arc<DrainPod>>, Problem>),
    /// How a cordon came out.
    Cordon(Result<Cordon, Problem>),
    /// How an uncordon came out.
    Uncordon(Result<Uncordon, Problem>),
    /// How an eviction or deletion came out.
    Eviction(Result<Eviction, Problem>),
    /// It was not sent: the lease might not have outlived it.
    HeldBack,
}

/// Names a request whose answer is awaited.
pub type RequestNumber = u64;

/// What goes into the machine.
#[derive(Clone, Debug)]
pub enum StepInput {
    /// It begins.
    Begin,
    /// A request was answered.
    Answered(RequestNumber, Box<Answer>),
    /// The rest that was asked for is over.
    Rested,
}

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum StepOutput {
    /// Send this and feed [`StepInput::Answered`].
    Ask(RequestNumber, Request),
    /// Show what is waited for.
    Waits(Vec<WaitingOn>),
    /// Once every request is answered: feed [`StepInput::Rested`] when the cluster has changed, but not before `at_least`,
    /// and after `at_most` in any case.
    Rest {
        /// So long in any case.
        at_least: Duration,
        /// No longer than this.
        at_most: Duration,
    },
    /// It ended.
    Ended(StepResult),
}

/// When an input is fed.
#[derive(Clone, Copy, Debug)]
pub struct StepTime {
    /// For people.
    pub now: Timestamp,
    /// Since the machine was begun, on a clock that never jumps. Only this decides.
    pub elapsed: Duration,
}

/// What is seen of a node while it is emptied: of the rest nothing is asked, however often it is looked at.
#[derive(Clone, Debug)]
pub struct SeenNode {
    /// Its UID.
    pub uid: ObjectUid,
    /// Whether it takes no new pods.
    pub unschedulable: bool,
}

impl From<NodeFacts> for SeenNode {
    fn from(node: NodeFacts) -> Self {
        Self { uid: node.uid, unschedulable: node.unschedulable }
    }
}

/// What a step may look at besides the cluster.
pub struct Outside<'a> {
    /// What the agent of a node last told.
    pub agent: &'a dyn Fn(&NodeName) -> Option<MachineFacts>,
    /// Whether a budget allows a disruption, where caches tell.
    pub budget_allows: &'a dyn Fn(&str) -> Option<bool>,
    /// A node, where caches tell.
    pub node: &'a dyn Fn(&NodeName) -> Option<SeenNode>,
}

impl std::fmt::Debug for Outside<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").finish_non_exhaustive()
    }
}

/// What is known of the upgrade when a step begins.
#[derive(Clone, Debug)]
pub struct StepContext {
    /// The cluster.
    pub cluster: ClusterName,
    /// The plan.
    pub plan: Arc<Plan>,
    /// Our mark on nodes.
    pub owner: NodeOwner,
    /// Workloads before anything was touched.
    pub baseline: Arc<Vec<WorkloadFacts>>,
    /// Nodes that are not claimed to be upgraded.
    pub left_out: Vec<NodeName>,
}

impl StepContext {
    /// What an upgrade tells a step that begins now, under the lease of this epoch.
    pub fn of(upgrade: &Upgrade, epoch: Epoch, step: &Step) -> Self {
        let cordon = upgrade.plan.node_of_step(step.number).and_then(|node| upgrade.cordon_of(node));
        let attempt = cordon.map_or(1, |(_, progress)| progress.attempts.max(1));
        Self {
            cluster: upgrade.plan.cluster.clone(),
            plan: upgrade.plan.clone(),
            owner: NodeOwner { upgrade: upgrade.id.clone(), epoch, attempt },
            baseline: upgrade.baseline.clone().unwrap_or_default(),
            left_out: upgrade.skipped.keys().chain(&upgrade.abandoned).cloned().collect(),
        }
    }
}

/// How often something that a watch may not tell is looked at again.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(300));
/// The same while a node is emptied.
const DRAIN_LOOK_AGAIN: (Duration, Duration) = (Duration::from_millis(120), Duration::from_millis(250));
/// So many evictions are asked for at once.
const EVICTIONS_AT_ONCE: usize = 16;

/// A step of the server in work.
#[derive(Clone, Debug)]
pub struct StepMachine {
    step: Step,
    context: StepContext,
    /// When this machine was begun.
    began_at: Timestamp,
    work: Work,
    asked: RequestNumber,
    /// Requests without an answer.
    open: Vec<(RequestNumber, Option<ObjectUid>)>,
    held_back: bool,
    ended: bool,
}

#[derive(Clone, Debug)]
enum Work {
    /// One request and its answer.
    Once,
    /// Looked at until it is as wanted.
    Until {
        /// How the step ends where workloads are still worse in the end, as of the newest look.
        worse: Option<StepOutcome>,
    },
    Drain(Box<DrainWork>),
}

#[derive(Clone, Debug)]
struct DrainWork {
    machine: DrainMachine,
    /// How long before this machine the step was begun for the first time.
    before: Duration,
    /// What is still to be sent in this round.
    to_send: Vec<Act>,
    /// Whether the node itself said in this attempt that it takes no new pods. Before that nothing is sent: what an older
    /// store calls cordoned may have been given back since.
    is_cordoned: bool,
    /// Whether caches have shown the node cordoned: only what they show after that tells that it is not any more.
    seen_cordoned: bool,
}

impl DrainWork {
    /// Takes what caches show of the node: whether somebody has uncordoned it since the drain began.
    fn was_uncordoned(&mut self, node: &SeenNode) -> bool {
        self.seen_cordoned |= node.unschedulable;
        self.seen_cordoned && !node.unschedulable && !planted::is(Bug::UncordonNotNoticed)
    }
}

impl StepMachine {
    /// A step whose intent was recorded at `since`.
    pub fn new(step: Step, context: StepContext, since: Timestamp, now: Timestamp) -> Self {
        let work = match (&step.action, step.target.node()) {
            (Action::Cordon | Action::Uncordon, _) => Work::Once,
            (Action::Drain { timeout_seconds, on_timeout }, Some(node)) => {
                let limit = Duration::from_secs(u64::from(*timeout_seconds));
                // The time counts from the intent: one that goes on after a crash gets no new time.
                let before = Duration::try_from(now.duration_since(since)).unwrap_or_default();
                let machine = DrainMachine::new(node.clone(), since, limit, *on_timeout);
                Work::Drain(Box::new(DrainWork {
                    machine,
                    before,
                    to_send: Vec::new(),
                    is_cordoned: false,
                    seen_cordoned: false,
                }))
            }
            _ => Work::Until { worse: None },
        };
        Self { step, context, began_at: now, work, asked: 0, open: Vec::new(), held_back: false, ended: false }
    }

    /// Takes one input and says what is to be done, in order.
    pub fn on(&mut self, input: StepInput, time: StepTime, outside: &Outside<'_>) -> Vec<StepOutput> {
        let mut outputs = Vec::new();
        if self.ended {
            return outputs;
        }
        match input {
            StepInput::Begin | StepInput::Rested => self.look(time, outside, &mut outputs),
            StepInput::Answered(number, answer) => {
                let Some(at) = self.open.iter().position(|(open, _)| *open == number) else { return outputs };
                let (_, pod) = self.open.remove(at);
                self.answered(pod, *answer, time, outside, &mut outputs);
            }
        }
        self.ended = outputs.iter().any(|output| matches!(output, StepOutput::Ended(_)));
        outputs
    }

    /// Whether a further look would have anything asked for, told or ended where nothing has changed of what it goes by
    /// since the one at `seen_at`: the node of a drain, the add-ons where they are read back. Of anything else that is not
    /// known.
    pub fn is_due(&self, seen_at: Duration, elapsed: Duration, allows: &dyn Fn(&str) -> Option<bool>) -> bool {
        match &self.work {
            Work::Drain(drain) if drain.is_cordoned => {
                drain.machine.is_due(drain.before + seen_at, drain.before + elapsed, allows)
            }
            _ if matches!(self.step.action, Action::VerifyAddons { .. }) => elapsed >= self.limit(),
            _ => true,
        }
    }

    fn ask(&mut self, request: Request, outputs: &mut Vec<StepOutput>) {
        self.asked += 1;
        let pod = match &request {
            Request::Evict(pod) | Request::Delete(pod) => Some(pod.uid.clone()),
            _ => None,
        };
        self.open.push((self.asked, pod));
        outputs.push(StepOutput::Ask(self.asked, request));
    }

    fn planned(&self) -> Option<&NodePlan> {
        self.context.plan.node_of_step(self.step.number)
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(u64::from(self.step.timeout_seconds))
    }

    /// Begins a look, or the act of a step that is one request.
    fn look(&mut self, time: StepTime, outside: &Outside<'_>, outputs: &mut Vec<StepOutput>) {
        let marked = |planned: &NodePlan| (planned.node.clone(), planned.uid.clone(), self.context.owner.clone());
        let request = match (&self.step.action, self.planned()) {
            (Action::CaptureBaseline | Action::VerifyAddons { .. } | Action::VerifyCluster { .. }, _) => Request::Facts,
            (Action::Cordon, Some(planned)) => {
                let (node, uid, owner) = marked(planned);
                Request::Cordon { node, uid, owner }
            }
            (Action::Uncordon, Some(planned)) => {
                let (node, uid, owner) = marked(planned);
                Request::Uncordon { node, uid, owner }
            }
            (Action::VerifyNode { .. }, Some(planned)) => Request::Node(planned.node.clone()),
            (Action::Drain { .. }, Some(planned)) => {
                let Work::Drain(drain) = &self.work else { return };
                if !drain.is_cordoned {
                    Request::Node(planned.node.clone())
                } else if drain.machine.wants_look(drain.before + time.elapsed) {
                    Request::PodsOn(planned.node.clone())
                } else {
                    return self.drain_on(time, outside, outputs);
                }
            }
            (action, _) => {
                let what = format!("step {} of kind {} is not the server's", self.step.number, action.kind());
                outputs.push(StepOutput::Ended(Err((Problem::new(Code::Internal).with("what", what), false))));
                return;
            }
        };
        self.ask(request, outputs);
    }

    fn answered(
        &mut self,
        pod: Option<ObjectUid>,
        answer: Answer,
        time: StepTime,
        outside: &Outside<'_>,
        outputs: &mut Vec<StepOutput>,
    ) {
        let result = match answer {
            Answer::HeldBack => {
                self.held_back = true;
                if self.open.is_empty() {
                    outputs.push(StepOutput::Ended(Err((self.lease_ending(), true))));
                }
                return;
            }
            Answer::Cordon(answer) => self.cordoned(answer),
            Answer::Uncordon(answer) => match answer.map_err(retryable) {
                Ok(Uncordon::Done) => Ok(StepOutcome::Done),
                // Somebody else's cordon stays; a node that is gone carries nothing of ours.
                Ok(Uncordon::NotOurs | Uncordon::NodeGone) => Ok(StepOutcome::AlreadyDone),
                Err(failure) => Err(failure),
            },
            Answer::PodsOn(pods) => return self.pods_seen(pods, time, outside, outputs),
            Answer::Eviction(answer) => return self.eviction(pod, answer, time, outputs),
            Answer::Node(node) if matches!(self.work, Work::Drain(_)) => {
                return self.drained_node_read(node, time, outside, outputs);
            }
            Answer::Node(Ok(_)) if planted::is(Bug::NotReadBack) => Ok(self.verified()),
            Answer::Node(node) => return self.node_read(node, time, outside, outputs),
            Answer::Facts(facts) => {
                let found = facts.and_then(|facts| self.judge(&facts, outside));
                return self.looked(found, time, outputs);
            }
        };
        outputs.push(StepOutput::Ended(result));
    }

    fn lease_ending(&self) -> Problem {
        let NodeOwner { upgrade, epoch, .. } = &self.context.owner;
        Problem::new(Code::LeaseEnding).with("upgrade", upgrade).with("epoch", epoch)
    }

    fn cordoned(&self, answer: Result<Cordon, Problem>) -> StepResult {
        match answer.map_err(retryable)? {
            Cordon::Done | Cordon::AlreadyOurs => Ok(StepOutcome::Cordoned { ours: true }),
            Cordon::CordonedByOthers => Ok(StepOutcome::Cordoned { ours: false }),
            Cordon::OwnedByAnotherUpgrade => {
                let node = self.step.target.node().map_or("", NodeName::as_str);
                let problem = Problem::new(Code::Interference).with("object", format!("node {node}"));
                Err((problem.with("what", "it carries the mark of another upgrade"), false))
            }
            Cordon::NodeGone => Err((self.gone(), false)),
        }
    }

    fn gone(&self) -> Problem {
        self.planned().map_or_else(|| Problem::new(Code::Internal), NodePlan::gone)
    }

    // ---- drain ----

    fn pods_seen(
        &mut self,
        pods: Result<Vec<Arc<DrainPod>>, Problem>,
        time: StepTime,
        outside: &Outside<'_>,
        outputs: &mut Vec<StepOutput>,
    ) {
        let planned = self.planned();
        let seen = planned.and_then(|planned| (outside.node)(&planned.node));
        if let Some((planned, seen)) = planned.zip(seen.as_ref())
            && seen.uid != planned.uid
            && !planted::is(Bug::UidNotCompared)
        {
            outputs.push(StepOutput::Ended(Err((joined_again(planned, &seen.uid), false))));
            return;
        }
        let Work::Drain(drain) = &mut self.work else { return };
        if seen.is_some_and(|seen| drain.was_uncordoned(&seen)) {
            // What landed meanwhile is emptied by the next attempt, once the node is cordoned again.
            outputs.push(StepOutput::Ended(Err((self.uncordoned(), true))));
            return;
        }
        let elapsed = drain.before + time.elapsed;
        match pods {
            Ok(pods) => drain.machine.seen(pods, elapsed),
            Err(problem) => drain.machine.not_seen(problem, elapsed),
        }
        self.drain_on(time, outside, outputs);
    }

    /// After a look: it has ended, or what is due is sent.
    fn drain_on(&mut self, time: StepTime, outside: &Outside<'_>, outputs: &mut Vec<StepOutput>) {
        let Work::Drain(drain) = &mut self.work else { return };
        let elapsed = drain.before + time.elapsed;
        match drain.machine.verdict(elapsed) {
            // Caches may be late, and what follows changes what pods stand on: the node itself is asked.
            Some(Ok(StepOutcome::Drained { .. })) => {
                if let Some(node) = self.planned().map(|planned| planned.node.clone()) {
                    self.ask(Request::Node(node), outputs);
                }
                return;
            }
            Some(verdict) => {
                outputs.push(StepOutput::Ended(verdict));
                return;
            }
            None => {}
        }
        drain.to_send = drain.machine.acts(elapsed, outside.budget_allows);
        drain.to_send.reverse();
        self.send(time, outputs);
    }

    /// The node itself, before the first pod is asked to go and after the last one went: both count only where it takes
    /// no new ones.
    fn drained_node_read(
        &mut self,
        node: Result<Option<NodeFacts>, Problem>,
        time: StepTime,
        outside: &Outside<'_>,
        outputs: &mut Vec<StepOutput>,
    ) {
        let (Some(planned), uncordoned) = (self.planned().cloned(), self.uncordoned()) else { return };
        let Work::Drain(drain) = &mut self.work else { return };
        let elapsed = drain.before + time.elapsed;
        let verdict = match node {
            Ok(None) => Err((planned.gone(), false)),
            Ok(Some(node)) if node.uid != planned.uid && !planted::is(Bug::UidNotCompared) => {
                Err((joined_again(&planned, &node.uid), false))
            }
            Ok(Some(node)) if !node.unschedulable && !planted::is(Bug::UncordonNotNoticed) => Err((uncordoned, true)),
            Ok(Some(_)) if !drain.is_cordoned => {
                drain.is_cordoned = true;
                return self.look(time, outside, outputs);
            }
            Ok(Some(_)) => match drain.machine.verdict(elapsed) {
                Some(verdict) => verdict,
                None => return self.rest(outputs),
            },
            Err(problem) if drain.machine.is_late(elapsed) => Err((problem, true)),
            Err(problem) => {
                drain.machine.not_seen(problem, elapsed);
                outputs.push(StepOutput::Waits(drain.machine.waits(elapsed)));
                return self.rest(outputs);
            }
        };
        outputs.push(StepOutput::Ended(verdict));
    }

    fn rest(&self, outputs: &mut Vec<StepOutput>) {
        let (at_least, at_most) = DRAIN_LOOK_AGAIN;
        outputs.push(StepOutput::Rest { at_least, at_most });
    }

    fn uncordoned(&self) -> Problem {
        let problem = Problem::new(Code::Uncordoned);
        self.planned().into_iter().fold(problem, |problem, planned| problem.with("node", &planned.node))
    }

    fn send(&mut self, time: StepTime, outputs: &mut Vec<StepOutput>) {
        while self.open.len() < EVICTIONS_AT_ONCE
            && let Work::Drain(drain) = &mut self.work
            && let Some(act) = drain.to_send.pop()
        {
            let request = match act {
                Act::Evict(pod) => Request::Evict(pod),
                Act::Delete(pod) => Request::Delete(pod),
            };
            self.ask(request, outputs);
        }
        if self.open.is_empty()
            && let Work::Drain(drain) = &self.work
        {
            outputs.push(StepOutput::Waits(drain.machine.waits(drain.before + time.elapsed)));
            self.rest(outputs);
        }
    }

    fn eviction(
        &mut self,
        pod: Option<ObjectUid>,
        answer: Result<Eviction, Problem>,
        time: StepTime,
        outputs: &mut Vec<StepOutput>,
    ) {
        if let (Work::Drain(drain), Some(pod)) = (&mut self.work, pod) {
            drain.machine.answered(&pod, answer, drain.before + time.elapsed);
        }
        if !self.held_back {
            self.send(time, outputs);
        } else if self.open.is_empty() {
            outputs.push(StepOutput::Ended(Err((self.lease_ending(), true))));
        }
    }

    // ---- looks ----

    fn node_read(
        &mut self,
        node: Result<Option<NodeFacts>, Problem>,
        time: StepTime,
        outside: &Outside<'_>,
        outputs: &mut Vec<StepOutput>,
    ) {
        let found = node.and_then(|node| node.ok_or_else(|| self.gone()));
        match found.and_then(|node| self.check_planned_node(&node, outside)) {
            Err(problem) => self.looked(Err(problem), time, outputs),
            Ok(Some(outcome)) => self.looked(Ok(outcome), time, outputs),
            Ok(None) => self.ask(Request::Facts, outputs),
        }
    }

    /// The node must be Ready and report what is claimed, and its agent must have read the digests of the executables
    /// that run. None: the cluster must be looked at too.
    fn check_planned_node(&self, node: &NodeFacts, outside: &Outside<'_>) -> Result<Option<StepOutcome>, Problem> {
        let Some(planned) = self.planned() else { return Err(self.gone()) };
        let Action::VerifyNode {
            kubelet,
            kubelet_sha256,
            container_runtime,
            container_runtime_sha256,
            control_plane_images,
        } = &self.step.action
        else {
            return Err(Problem::new(Code::Internal).with("what", "not a verification"));
        };
        if node.uid != planned.uid {
            return Err(joined_again(planned, &node.uid));
        }
        check_node(&planned.node, node, *kubelet)?;
        if let Some(runtime) = container_runtime {
            let expected = format!("containerd://{}", runtime.trim_start_matches('v'));
            read_back(&planned.node, "container runtime", &expected, &node.container_runtime_version)?;
        }
        let machine = (outside.agent)(&planned.node);
        let machine = machine.as_ref();
        let running = |component: Option<&Observed<ComponentFacts>>| match component {
            Some(Observed::Known(component)) => {
                component.running_sha256.clone().unwrap_or_else(|| "nothing".to_owned())
            }
            _ => "unknown".to_owned(),
        };
        if let Some(expected) = kubelet_sha256 {
            let found = running(machine.map(|machine| &machine.kubelet));
            read_back(&planned.node, "kubelet executable", expected, &found)?;
        }
        if let Some(expected) = container_runtime_sha256 {
            let found = running(machine.map(|machine| &machine.container_runtime));
            read_back(&planned.node, "containerd executable", expected, &found)?;
        }
        Ok(control_plane_images.is_empty().then(|| self.verified()))
    }

    fn verified(&self) -> StepOutcome {
        let Action::VerifyNode { kubelet, container_runtime, control_plane_images, .. } = &self.step.action else {
            return StepOutcome::Done;
        };
        let mut components = vec![format!("kubelet {kubelet}")];
        components.extend(container_runtime.iter().map(|runtime| format!("containerd {runtime}")));
        components.extend(control_plane_images.iter().map(|image| image.reference.clone()));
        StepOutcome::Verified { components }
    }

    /// Whether the cluster is as wanted.
    fn judge(&mut self, facts: &ClusterFacts, outside: &Outside<'_>) -> Result<StepOutcome, Problem> {
        match &self.step.action {
            Action::CaptureBaseline => Ok(StepOutcome::Baseline { workloads: facts.workloads.clone() }),
            Action::VerifyAddons { images } => self.judge_addons(images, facts),
            Action::VerifyNode { control_plane_images, .. } => {
                let Some(planned) = self.planned() else { return Err(self.gone()) };
                let machine = (outside.agent)(&planned.node);
                let control_plane = machine.as_ref().and_then(|machine| machine.control_plane.as_deref());
                check_master(&planned.node, control_plane_images, control_plane, facts)?;
                Ok(self.verified())
            }
            Action::VerifyCluster { .. } if planted::is(Bug::NotReadBack) => {
                Ok(StepOutcome::Compared { worse: Vec::new(), older_outside_plan: Vec::new() })
            }
            Action::VerifyCluster { kubelet } => {
                let kubelet = *kubelet;
                self.judge_cluster(kubelet, facts)
            }
            _ => Err(Problem::new(Code::Internal).with("what", "not a look at the cluster")),
        }
    }

    /// kube-proxy and CoreDNS run the target's images on every pod.
    fn judge_addons(&self, images: &[ArtefactImage], facts: &ClusterFacts) -> Result<StepOutcome, Problem> {
        let subject = format!("cluster {}", self.context.cluster);
        for image in images {
            let differs = |found: &str| {
                let problem = Problem::new(Code::ReadBackMismatch).with("component", &image.role);
                problem.with("subject", &subject).with("expected", &image.reference).with("found", found)
            };
            match facts.addons.iter().find(|addon| addon.name == image.role) {
                None => return Err(differs("nothing")),
                Some(addon) if addon.image != image.reference => return Err(differs(&addon.image)),
                Some(addon) if !addon.rolled_out => {
                    return Err(differs(&format!("pods of an older template, or not ready{}", facts.pressure())));
                }
                Some(_) => {}
            }
        }
        Ok(StepOutcome::Verified { components: images.iter().map(|image| image.reference.clone()).collect() })
    }

    /// Every node of the plan that was not left out is still that machine and Ready at the target, and no workload is worse than before.
    pub(super) fn judge_cluster(
        &mut self,
        kubelet: KubernetesVersion,
        facts: &ClusterFacts,
    ) -> Result<StepOutcome, Problem> {
        let context = &self.context;
        let planned = context.plan.nodes_in_the_end();
        for planned in planned.into_iter().filter(|node| !context.left_out.contains(&node.node)) {
            let node = planned.machine_in(facts)?;
            check_node(&planned.node, node, kubelet_after(planned).unwrap_or(kubelet))?;
        }
        let found = worse_than_baseline(&context.baseline, &facts.workloads);
        let problem = found.first().map(|first| fewer_ready_pods(first, &context.cluster, facts));
        let older_outside_plan = older_outside_plan(&context.plan, kubelet, facts);
        let outcome = StepOutcome::Compared { worse: found, older_outside_plan };
        let Some(problem) = problem else { return Ok(outcome) };
        if let Work::Until { worse } = &mut self.work {
            *worse = Some(outcome);
        }
        Err(problem)
    }

    /// It is as wanted, or the step's time is over, or what is not yet as wanted is shown and looked at again.
    fn looked(&mut self, found: Result<StepOutcome, Problem>, time: StepTime, outputs: &mut Vec<StepOutput>) {
        let problem = match found {
            Ok(outcome) => {
                outputs.push(StepOutput::Ended(Ok(outcome)));
                return;
            }
            Err(problem) => problem,
        };
        let limit = self.limit();
        if time.elapsed >= limit || matches!(problem.code, Code::WrongMachine | Code::NodeGone) {
            // Nodes must hold; a workload that is still worse at the end is named in the outcome.
            let result = match &self.work {
                Work::Until { worse: Some(outcome) } if problem.code == Code::FewerReadyPods => Ok(outcome.clone()),
                _ => Err((problem, false)),
            };
            outputs.push(StepOutput::Ended(result));
            return;
        }
        let node = self.step.target.node().cloned().unwrap_or_else(|| NodeName::from("cluster"));
        let until = SignedDuration::try_from(limit).unwrap_or_default();
        let until = self.began_at.checked_add(until).unwrap_or(Timestamp::MAX);
        let wait = WaitingOn::new(Waiting::NodeReadBack { node, problem }, self.began_at).until(until);
        outputs.push(StepOutput::Waits(vec![wait]));
        let (at_least, at_most) = LOOK_AGAIN;
        outputs.push(StepOutput::Rest { at_least, at_most });
    }
}

fn retryable(problem: Problem) -> (Problem, bool) {
    let temporary = matches!(problem.code, Code::ClusterUnreachable | Code::ClusterAnswer);
    (problem, temporary)
}
