//! What a drain asks and what it waits for, without I/O and clock: time is what has passed since its begin.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use shiplock_core::id::{NodeName, ObjectUid};
use shiplock_core::planted::{self, Bug};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::OnDrainTimeout;
use shiplock_core::upgrade::{StepOutcome, Waiting, WaitingOn};

use crate::port::{DrainPod, Eviction};

/// An eviction that was refused is asked for again after the first of these; the wait grows by half up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// Where caches say that the budget allows it now, it is asked for again this soon.
const RETRY_WHEN_ALLOWED: Duration = Duration::from_millis(250);
/// A pod that was told to end is not worth a word before this time.
const ENDING_QUIET: Duration = Duration::from_secs(3);
/// A pod that the scheduler had in hand when the node was cordoned shows up within this time. It belongs to the goal.
const LATE_ARRIVALS: Duration = Duration::from_secs(10);
/// While nothing is about to end the node is looked at this often.
const LOOK_WHEN_BLOCKED: Duration = Duration::from_secs(1);
/// After force, pods may take this much longer than their grace period.
const FORCE_MARGIN: Duration = Duration::from_secs(60);
/// The longest that is waited after force.
const FORCE_MAX: Duration = Duration::from_secs(3600);
/// The disruption controller holds an admitted eviction against its budget for so long where the pod does not end:
/// `DeletionTimeout` in Kubernetes' `pkg/controller/disruption`.
const BUDGET_REMEMBERS: SignedDuration = SignedDuration::from_mins(2);
/// More blockers than this are counted and not named.
const BLOCKERS_NAMED_MAX: usize = 10;

/// Something to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Ask for an eviction.
    Evict(Arc<DrainPod>),
    /// Delete, budgets notwithstanding.
    Delete(Arc<DrainPod>),
}

/// The drain of one node.
///
/// Its goal is that the pods found at its begin are gone. Pods of DaemonSets and mirrors of static pods stay. A pod
/// that tolerates a cordoned node and comes back under a new UID is named, and not evicted again. Who drains must see to
/// it that the node stays cordoned: what lands on a node that was uncordoned is a matter for another drain.
#[derive(Clone, Debug)]
pub struct DrainMachine {
    node: NodeName,
    began_at: Timestamp,
    timeout: Duration,
    on_timeout: OnDrainTimeout,
    /// The pods that are to go; none before the first look.
    goal: Option<BTreeMap<ObjectUid, Tracked>>,
    relanded: BTreeSet<String>,
    arrived: BTreeSet<String>,
    /// How many we told to end.
    evicted: u32,
    looked_at: Option<Duration>,
    /// Why the node cannot be looked at: since when, how often, and the answer.
    blind: Option<(Duration, u32, Problem)>,
    /// Until when what was forced may take.
    forced_until: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Tracked {
    pod: Arc<DrainPod>,
    /// Whether the newest look showed it.
    is_there: bool,
    /// Since when it is known to have been told to end, by anybody.
    ending_since: Option<Duration>,
    /// When it was first known to be gone.
    gone_at: Option<Duration>,
    attempts: u32,
    last_attempt: Duration,
    retry_after: Duration,
    refusal: Option<Refusal>,
}

#[derive(Clone, Debug)]
struct Refusal {
    since: Duration,
    /// None where a budget stands against it.
    problem: Option<Problem>,
}

impl Tracked {
    fn new(pod: Arc<DrainPod>, now: Duration) -> Self {
        let ending_since = pod.is_terminating.then_some(now);
        Self {
            pod,
            is_there: true,
            ending_since,
            gone_at: None,
            attempts: 0,
            last_attempt: now,
            retry_after: RETRY.0,
            refusal: None,
        }
    }

    fn is_wanted(&self) -> bool {
        self.gone_at.is_none() && self.ending_since.is_none()
    }

    fn next_attempt(&self) -> Duration {
        if self.attempts == 0 { self.last_attempt } else { self.last_attempt + self.retry_after }
    }

    fn is_due(&self, now: Duration, allows: &dyn Fn(&str) -> Option<bool>) -> bool {
        let by_budget = || self.refusal.as_ref().is_some_and(|refusal| refusal.problem.is_none());
        let allowed = || match self.pod.budgets.as_slice() {
            [budget] if by_budget() => allows(budget) == Some(true),
            _ => false,
        };
        now >= self.next_attempt() || (now >= self.last_attempt + RETRY_WHEN_ALLOWED && allowed())
    }

    fn blocker(&self) -> String {
        let label = self.pod.label();
        match &self.refusal {
            _ if self.ending_since.is_some() => format!("{label} (terminating)"),
            Some(Refusal { problem: None, .. }) => {
                format!("{label} (PodDisruptionBudget {})", self.pod.budgets.join(", "))
            }
            Some(Refusal { problem: Some(problem), .. }) => format!("{label} ({})", problem.code),
            None => label,
        }
    }
}

impl DrainMachine {
    /// A drain that begins now. `began_at` only serves to render times.
    pub fn new(node: NodeName, began_at: Timestamp, timeout: Duration, on_timeout: OnDrainTimeout) -> Self {
        Self {
            node,
            began_at,
            timeout,
            on_timeout,
            goal: None,
            relanded: BTreeSet::new(),
            arrived: BTreeSet::new(),
            evicted: 0,
            looked_at: None,
            blind: None,
            forced_until: None,
        }
    }

    /// Whether the pods on the node should be read now.
    pub fn wants_look(&self, now: Duration) -> bool {
        let ending = self.left().any(|tracked| tracked.ending_since.is_some());
        let due = self.left().any(|tracked| tracked.is_wanted() && now >= tracked.next_attempt());
        let old = self.looked_at.is_none_or(|at| now >= at + LOOK_WHEN_BLOCKED);
        ending || due || old || now >= self.timeout
    }

    /// Whether a further look at the very pods that were seen at `seen_at` would have anything asked for, told or ended.
    pub fn is_due(&self, seen_at: Duration, now: Duration, allows: &dyn Fn(&str) -> Option<bool>) -> bool {
        let passed = |at: Duration| seen_at < at && at <= now;
        passed(self.timeout)
            || self.forced_until.is_some_and(passed)
            || self.left().any(|tracked| match tracked.ending_since {
                Some(since) => passed(since + ENDING_QUIET),
                None => tracked.is_due(now, allows),
            })
    }

    /// Takes the pods that are on the node.
    pub fn seen(&mut self, pods: Vec<Arc<DrainPod>>, now: Duration) {
        self.looked_at = Some(now);
        self.blind = None;
        let is_first = self.goal.is_none();
        let goal = self.goal.get_or_insert_with(BTreeMap::new);
        goal.values_mut().for_each(|tracked| tracked.is_there = false);
        for pod in pods.into_iter().filter(|pod| !pod.is_mirror && !pod.is_daemon) {
            if let Some(tracked) = goal.get_mut(&pod.uid) {
                tracked.is_there = true;
                tracked.gone_at = None;
                if pod.is_terminating {
                    tracked.ending_since.get_or_insert(now);
                }
                tracked.pod = pod;
            } else if is_first || (!pod.tolerates_unschedulable && now <= LATE_ARRIVALS) {
                goal.insert(pod.uid.clone(), Tracked::new(pod, now));
            } else {
                let owner = pod.owner.as_ref().map(|owner| format!(" ({owner})")).unwrap_or_default();
                let late = if pod.tolerates_unschedulable { &mut self.relanded } else { &mut self.arrived };
                late.insert(pod.label() + &owner);
            }
        }
        for tracked in goal.values_mut().filter(|tracked| !tracked.is_there) {
            tracked.gone_at.get_or_insert(now);
        }
    }

    /// Takes that the node could not be looked at.
    pub fn not_seen(&mut self, problem: Problem, now: Duration) {
        self.looked_at = Some(now);
        let (since, times, _) = self.blind.take().unwrap_or((now, 0, problem.clone()));
        self.blind = Some((since, times.saturating_add(1), problem));
    }

    /// What is to be sent now. `allows` tells whether a budget allows a disruption, where that is known.
    pub fn acts(&mut self, now: Duration, allows: &dyn Fn(&str) -> Option<bool>) -> Vec<Act> {
        // What is on the node is not known: nothing is asked for on an old view.
        if self.blind.is_some() {
            return Vec::new();
        }
        let forces = self.on_timeout == OnDrainTimeout::Force || planted::is(Bug::AlwaysForce);
        let limit = if planted::is(Bug::AlwaysForce) { self.timeout / 2 } else { self.timeout };
        if now >= limit && forces && self.forced_until.is_none() {
            self.force(now);
        }
        let forced = self.forced_until.is_some();
        let mut acts = Vec::new();
        for tracked in self.goal.iter_mut().flat_map(BTreeMap::values_mut) {
            if tracked.is_wanted() && tracked.is_due(now, allows) {
                tracked.attempts = tracked.attempts.saturating_add(1);
                tracked.last_attempt = now;
                acts.push(if forced { Act::Delete(tracked.pod.clone()) } else { Act::Evict(tracked.pod.clone()) });
            }
        }
        acts
    }

    /// From now on what is left is deleted.
    fn force(&mut self, now: Duration) {
        let graces = self.left().map(|tracked| Duration::from_secs(tracked.pod.grace_seconds.try_into().unwrap_or(0)));
        let longest = graces.max().unwrap_or_default().min(FORCE_MAX);
        self.forced_until = Some(now + longest + FORCE_MARGIN);
        for tracked in self.goal.iter_mut().flat_map(BTreeMap::values_mut) {
            tracked.attempts = 0;
            tracked.last_attempt = now;
            tracked.retry_after = RETRY.0;
            tracked.refusal = None;
        }
    }

    /// Takes the answer to what was sent about a pod. An error means that it is not known whether it arrived: the next
    /// look shows it.
    pub fn answered(&mut self, uid: &ObjectUid, answer: Result<Eviction, Problem>, now: Duration) {
        let Some(tracked) = self.goal.as_mut().and_then(|goal| goal.get_mut(uid)) else { return };
        let problem = match answer {
            Ok(Eviction::Accepted) => {
                self.evicted = self.evicted.saturating_add(1);
                tracked.ending_since = Some(now);
                return;
            }
            Ok(Eviction::Gone) => {
                tracked.gone_at = Some(now);
                return;
            }
            Ok(Eviction::RefusedByBudget) => None,
            Ok(Eviction::Refused(problem)) | Err(problem) => Some(problem),
        };
        if tracked.attempts > 1 {
            tracked.retry_after = (tracked.retry_after * 3 / 2).min(RETRY.1);
        }
        // The same kind of refusal goes on; another kind begins anew.
        let same = tracked.refusal.take().filter(|before| before.problem.is_some() == problem.is_some());
        tracked.refusal = Some(Refusal { since: same.map_or(now, |before| before.since), problem });
    }

    /// How it ended, if it has.
    pub fn verdict(&self, now: Duration) -> Option<Result<StepOutcome, (Problem, bool)>> {
        if self.goal.is_some() && self.blind.is_none() && self.left().next().is_none() {
            let (relanded, arrived) = (self.relanded.iter().cloned().collect(), self.arrived.iter().cloned().collect());
            let (ended, held_milliseconds) = (self.ended(), milliseconds(self.held()));
            let drained = StepOutcome::Drained { evicted: self.evicted, relanded, arrived, ended, held_milliseconds };
            return Some(Ok(drained));
        }
        if now < self.timeout {
            return None;
        }
        if let (None, Some((_, _, problem))) = (&self.goal, &self.blind) {
            return Some(Err((problem.clone(), true)));
        }
        match (self.on_timeout, self.forced_until) {
            (OnDrainTimeout::Skip, _) => Some(Ok(StepOutcome::DrainSkipped { blockers: self.blockers() })),
            // Force begins with the next acts, also where the time was over before this process looked; while the node
            // cannot be seen it waits its time out all the same.
            (OnDrainTimeout::Force, None) if self.blind.is_none() || now < self.timeout + FORCE_MARGIN => None,
            (OnDrainTimeout::Force, Some(until)) if now < until => None,
            _ => Some(Err((self.timed_out(now), false))),
        }
    }

    /// Whether its time is over.
    pub fn is_late(&self, now: Duration) -> bool {
        now >= self.timeout
    }

    /// How long the slowest pod of each workload took to end.
    fn ended(&self) -> BTreeMap<String, u64> {
        let mut slowest: BTreeMap<String, u64> = BTreeMap::new();
        for tracked in self.goal.iter().flat_map(BTreeMap::values) {
            if let (Some(workload), Some(since), Some(gone_at)) =
                (tracked.pod.workload(), tracked.ending_since, tracked.gone_at)
            {
                let took = slowest.entry(workload).or_default();
                *took = milliseconds(gone_at.saturating_sub(since)).max(*took);
            }
        }
        slowest
    }

    /// From the first refused eviction to the end of the last refusal.
    fn held(&self) -> Duration {
        let refused = self.goal.iter().flat_map(BTreeMap::values).filter_map(|tracked| {
            let until = tracked.ending_since.or(tracked.gone_at)?;
            Some((tracked.refusal.as_ref()?.since, until))
        });
        let span = refused.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        span.map_or(Duration::ZERO, |(since, until)| until.saturating_sub(since))
    }

    fn timed_out(&self, now: Duration) -> Problem {
        let limit = if self.forced_until.is_some() { now } else { self.timeout };
        let mut problem =
            Problem::new(Code::DrainTimedOut).with("node", &self.node).with("limit", format!("{} s", limit.as_secs()));
        let mut blockers = self.blockers();
        let more = blockers.len().saturating_sub(BLOCKERS_NAMED_MAX);
        blockers.truncate(BLOCKERS_NAMED_MAX);
        if more > 0 {
            blockers.push(format!("+{more}"));
        }
        problem = problem.with("blockers", blockers.join(", "));
        let answers = self.left().filter_map(|tracked| tracked.refusal.as_ref()?.problem.as_ref());
        for cause in self.blind.iter().map(|(_, _, problem)| problem).chain(answers.take(BLOCKERS_NAMED_MAX)) {
            problem = problem.cause(cause);
        }
        problem
    }

    fn blockers(&self) -> Vec<String> {
        self.left().map(Tracked::blocker).collect()
    }

    /// What is waited for, worth a word.
    pub fn waits(&self, now: Duration) -> Vec<WaitingOn> {
        let deadline = self.at(self.forced_until.unwrap_or(self.timeout));
        let blind = self.blind.iter().map(|(since, times, problem)| {
            let next = self.looked_at.unwrap_or(now) + LOOK_WHEN_BLOCKED;
            let wait = WaitingOn::new(Waiting::ClusterFacts { problem: problem.clone() }, self.at(*since));
            wait.retrying(*times, self.at(next))
        });
        let pods = self.left().filter_map(|tracked| self.wait(tracked, now));
        blind.chain(pods).map(|wait| wait.until(deadline)).collect()
    }

    fn wait(&self, tracked: &Tracked, now: Duration) -> Option<WaitingOn> {
        let names = || (self.node.clone(), tracked.pod.label(), tracked.pod.owner.clone());
        if let Some(since) = tracked.ending_since {
            return (now >= since + ENDING_QUIET).then(|| {
                let (node, pod, owner) = names();
                let what = Waiting::PodTermination { node, pod, owner, grace_seconds: tracked.pod.grace_seconds };
                WaitingOn::new(what, self.at(since))
            });
        }
        let refusal = tracked.refusal.as_ref()?;
        let (node, pod, owner) = names();
        let what = match (&refusal.problem, tracked.pod.admitted_at) {
            (None, Some(at)) => {
                let forgotten_at = at.saturating_add(BUDGET_REMEMBERS).unwrap_or(at);
                let problem = Problem::new(Code::EvictionBrokenOff).with("pod", &pod).with("at", at);
                let problem = problem.with("budgets", tracked.pod.budgets.join(", ")).with("until", forgotten_at);
                Waiting::EvictionRefused { node, pod, problem }
            }
            (None, None) => Waiting::PodDisruptionBudget { node, pod, budgets: tracked.pod.budgets.clone(), owner },
            (Some(problem), _) => Waiting::EvictionRefused { node, pod, problem: problem.clone() },
        };
        let wait = WaitingOn::new(what, self.at(refusal.since));
        Some(wait.retrying(tracked.attempts, self.at(tracked.next_attempt().max(now))))
    }

    fn left(&self) -> impl Iterator<Item = &Tracked> {
        self.goal.iter().flat_map(BTreeMap::values).filter(|tracked| tracked.gone_at.is_none())
    }

    fn at(&self, elapsed: Duration) -> Timestamp {
        let elapsed = SignedDuration::try_from(elapsed).unwrap_or(SignedDuration::MAX);
        self.began_at.checked_add(elapsed).unwrap_or(Timestamp::MAX)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
