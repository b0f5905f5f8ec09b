//! Steps of the server through their shell, against a cluster in memory and a paused clock.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use shiplock_cluster::port::{Claim, ClaimOutcome, Cluster, Cordon, DrainPod, Eviction, Uncordon};
use shiplock_core::facts::{ClusterFacts, NodeFacts, NodeOwner};
use shiplock_core::id::{Epoch, NodeName, ObjectUid, UpgradeId};
use shiplock_core::plan::{DrainPolicy, NewApiObjects, Plan, PlanOptions};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::sample::{cluster, plan_of, request};
use shiplock_core::step::{Action, OnDrainTimeout};
use shiplock_core::upgrade::{StepOutcome, Waiting, WaitingOn};
use shiplock_core::version::MinorVersion;
use tokio::time::Instant;

use super::machine::StepResult;
use super::step::{StepContext, StepMachine};
use super::steps::StepShell;

/// A cluster whose pods end some time after they were told to, and whose budget can be opened.
struct FakeCluster {
    pods: Mutex<BTreeMap<String, FakePod>>,
    budget_open: AtomicBool,
    ends_after: Duration,
    sent: Mutex<Vec<String>>,
    lists: Mutex<u32>,
    /// The UID under which the node is seen, if it is seen.
    /// The node, as caches show it, and as it is.
    seen: Mutex<NodeFacts>,
    node: Mutex<NodeFacts>,
}

#[derive(Clone)]
struct FakePod {
    pod: DrainPod,
    ends_at: Option<Instant>,
}

/// The node that is emptied, cordoned.
fn cordoned() -> NodeFacts {
    NodeFacts { unschedulable: true, ..cluster(&[("blue", 2)]).nodes["blue-01"].clone() }
}

impl FakeCluster {
    fn new(names: &[&str], ends_after: Duration) -> Self {
        let fake = |name: &&str| {
            let pod = DrainPod {
                namespace: "shop".into(),
                name: (*name).into(),
                uid: ObjectUid::from(*name),
                owner: None,
                is_mirror: false,
                is_daemon: false,
                tolerates_unschedulable: false,
                is_terminating: false,
                grace_seconds: 30,
                budgets: Vec::new(),
                admitted_at: None,
            };
            ((*name).to_owned(), FakePod { pod, ends_at: None })
        };
        Self {
            pods: Mutex::new(names.iter().map(fake).collect()),
            budget_open: AtomicBool::new(true),
            ends_after,
            sent: Mutex::default(),
            lists: Mutex::default(),
            seen: Mutex::new(cordoned()),
            node: Mutex::new(cordoned()),
        }
    }

    fn end(&self, verb: &str, pod: &DrainPod) -> Eviction {
        self.sent.lock().unwrap().push(format!("{verb} {}", pod.name));
        if verb == "evict" && !self.budget_open.load(Ordering::SeqCst) {
            return Eviction::RefusedByBudget;
        }
        let mut pods = self.pods.lock().unwrap();
        let Some(found) = pods.get_mut(&*pod.name) else { return Eviction::Gone };
        found.pod.is_terminating = true;
        found.ends_at = Some(Instant::now() + self.ends_after);
        Eviction::Accepted
    }

    fn sent(&self) -> Vec<String> {
        self.sent.lock().unwrap().clone()
    }
}

#[async_trait]
impl Cluster for FakeCluster {
    async fn objects_of_new_apis(&self, _: MinorVersion) -> Result<Vec<NewApiObjects>, Problem> {
        Ok(Vec::new())
    }
    async fn facts(&self) -> Result<ClusterFacts, Problem> {
        unreachable!("a drain needs no facts")
    }
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
    async fn node(&self, _: &NodeName) -> Result<Option<NodeFacts>, Problem> {
        Ok(Some(self.node.lock().unwrap().clone()))
    }
    async fn cordon(&self, _: &NodeName, _: &ObjectUid, _: &NodeOwner) -> Result<Cordon, Problem> {
        unreachable!("a drain does not cordon")
    }
    async fn uncordon(&self, _: &NodeName, _: &ObjectUid, _: &NodeOwner) -> Result<Uncordon, Problem> {
        unreachable!("a drain does not uncordon")
    }
    async fn pods_on(&self, _: &NodeName) -> Result<Vec<DrainPod>, Problem> {
        *self.lists.lock().unwrap() += 1;
        let mut pods = self.pods.lock().unwrap();
        pods.retain(|_, found| found.ends_at.is_none_or(|at| Instant::now() < at));
        Ok(pods.values().map(|found| found.pod.clone()).collect())
    }
    async fn evict(&self, pod: &DrainPod) -> Result<Eviction, Problem> {
        Ok(self.end("evict", pod))
    }
    async fn delete_pod(&self, pod: &DrainPod) -> Result<Eviction, Problem> {
        Ok(self.end("delete", pod))
    }
    fn seen_node(&self, _: &NodeName) -> Option<NodeFacts> {
        Some(self.seen.lock().unwrap().clone())
    }
    async fn claim(&self, _: &Claim) -> Result<ClaimOutcome, Problem> {
        unreachable!("a drain claims nothing")
    }
    async fn release(&self, _: &UpgradeId) -> Result<(), Problem> {
        unreachable!("a drain releases nothing")
    }
}

async fn run(cluster: &FakeCluster, on_timeout: OnDrainTimeout, may_act: bool) -> StepResult {
    go_on(cluster, Timestamp::now(), on_timeout, may_act).await
}

/// A drain with 60 seconds from `began_at` on.
async fn go_on(cluster: &FakeCluster, began_at: Timestamp, on_timeout: OnDrainTimeout, may_act: bool) -> StepResult {
    drain(cluster, began_at, on_timeout, &|| may_act, &|_| {}).await
}

/// What a step of the plan's first upgrade acts by: nothing is left out, and no workload was there before.
fn context_of(plan: Plan) -> StepContext {
    StepContext {
        cluster: plan.cluster.clone(),
        plan: plan.into(),
        owner: NodeOwner { upgrade: "u1".into(), epoch: Epoch(7), attempt: 1 },
        baseline: std::sync::Arc::default(),
        left_out: Vec::new(),
    }
}

async fn drain(
    fake: &FakeCluster,
    began_at: Timestamp,
    on_drain_timeout: OnDrainTimeout,
    may_act: &(dyn Fn() -> bool + Send + Sync),
    progress: &(dyn Fn(Vec<WaitingOn>) + Send + Sync),
) -> StepResult {
    let options = PlanOptions {
        drain: DrainPolicy::Always,
        drain_timeout_seconds: 60,
        on_drain_timeout,
        ..PlanOptions::default()
    };
    let plan = plan_of(&cluster(&[("blue", 2)]), &request("1.36", options)).unwrap();
    let step = plan.steps().find(|step| matches!(step.action, Action::Drain { .. })).unwrap().clone();
    let machine = StepMachine::new(step, context_of(plan), began_at, Timestamp::now());
    StepShell { cluster: fake, agent: &|_| None, may_act, progress }.run(machine).await
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_soon_after_the_last_pod() {
    let cluster = FakeCluster::new(&["a", "b", "c"], Duration::from_secs(5));
    let begun = Instant::now();
    let outcome = run(&cluster, OnDrainTimeout::Pause, true).await;
    assert!(is_drained(&outcome, 3), "{outcome:?}");
    assert!(
        begun.elapsed() >= Duration::from_secs(5) && begun.elapsed() <= Duration::from_millis(5300),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(cluster.sent().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_that_joined_again_under_another_uid_are_left_alone() {
    let cluster = FakeCluster::new(&["a"], Duration::ZERO);
    cluster.seen.lock().unwrap().uid = "another".into();
    let (problem, retryable) = run(&cluster, OnDrainTimeout::Force, true).await.unwrap_err();
    assert_eq!((problem.code, problem.parameters["found"].as_str()), (Code::WrongMachine, "another"));
    assert!(!retryable && cluster.sent().is_empty());
}

#[test]
fn the_end_of_an_upgrade_takes_no_machine_for_another_one_of_its_name() {
    let plan = plan_of(&cluster(&[("blue", 2)]), &request("1.36", PlanOptions::default())).unwrap();
    let step = plan.steps().find(|step| matches!(step.action, Action::VerifyCluster { .. })).unwrap().clone();
    let to = plan.to;
    let mut facts = cluster(&[("blue", 2)]);
    facts.nodes.values_mut().for_each(|node| node.kubelet_version = to.to_string());
    let mut machine = StepMachine::new(step, context_of(plan), Timestamp::now(), Timestamp::now());
    assert!(machine.judge_cluster(to, &facts).is_ok());
    let replacements: [fn(&mut NodeFacts); 2] =
        [|node| node.uid = "another".into(), |node| node.machine_id = "another".into()];
    for (what, replace) in ["uid", "machine id"].into_iter().zip(replacements) {
        let mut replaced = facts.clone();
        replace(replaced.nodes.get_mut("blue-01").unwrap());
        let problem = machine.judge_cluster(to, &replaced).unwrap_err();
        assert_eq!((problem.code, problem.parameters["what"].as_str()), (Code::WrongMachine, what));
    }
    facts.nodes.remove("blue-01");
    assert_eq!(machine.judge_cluster(to, &facts).unwrap_err().code, Code::NodeGone);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_uncordoned_in_mid_drain_ends_the_drain_before_anything_else_is_sent() {
    let cluster = FakeCluster::new(&["a", "b"], Duration::from_secs(30));
    let uncordons = |_: Vec<WaitingOn>| cluster.seen.lock().unwrap().unschedulable = false;
    let outcome = drain(&cluster, Timestamp::now(), OnDrainTimeout::Pause, &|| true, &uncordons).await;
    let (problem, retryable) = outcome.unwrap_err();
    assert_eq!((problem.code, problem.parameters["node"].as_str(), retryable), (Code::Uncordoned, "blue-01", true));
    assert_eq!(cluster.sent().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_never_showed_the_cordon_ends_no_drain_and_the_node_itself_decides() {
    let cluster = FakeCluster::new(&["a"], Duration::from_secs(5));
    cluster.seen.lock().unwrap().unschedulable = false;
    let outcome = run(&cluster, OnDrainTimeout::Pause, true).await;
    assert!(is_drained(&outcome, 1), "{outcome:?}");
    let cluster = FakeCluster::new(&["a"], Duration::from_secs(5));
    cluster.node.lock().unwrap().unschedulable = false;
    let (problem, retryable) = run(&cluster, OnDrainTimeout::Pause, true).await.unwrap_err();
    assert_eq!((problem.code, retryable), (Code::Uncordoned, true), "a cache that is late hides nothing");
    assert!(cluster.sent().is_empty(), "no pod is asked to go from a node that takes new ones");
}

#[tokio::test(start_paused = true)]
async fn without_the_lease_nothing_is_sent() {
    let cluster = FakeCluster::new(&["a"], Duration::ZERO);
    let (problem, retryable) = run(&cluster, OnDrainTimeout::Force, false).await.unwrap_err();
    let expected = Problem::new(Code::LeaseEnding).with("upgrade", "u1").with("epoch", 7);
    assert_eq!((problem, retryable), (expected, true));
    assert!(cluster.sent().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_goes_on_after_a_crash_gets_no_new_time() {
    // Since the first begin so many seconds have passed, and so many are left of 60.
    for (passed, left) in [(0, 60), (50, 10), (600, 0)] {
        let cluster = FakeCluster::new(&["a"], Duration::ZERO);
        cluster.budget_open.store(false, Ordering::SeqCst);
        let began_at = Timestamp::now() - jiff::SignedDuration::from_secs(passed);
        let begun = Instant::now();
        let (problem, _) = go_on(&cluster, began_at, OnDrainTimeout::Pause, true).await.unwrap_err();
        assert_eq!((problem.code, problem.parameters["limit"].as_str()), (Code::DrainTimedOut, "60 s"));
        let took = begun.elapsed().as_secs();
        assert!(took <= left && took + 1 >= left, "{passed} s after the begin it took {took} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_whose_time_passed_during_a_crash_ends_well_where_the_pods_are_gone_and_forces_where_that_was_chosen() {
    let began_at = Timestamp::now() - jiff::SignedDuration::from_secs(600);
    let empty = FakeCluster::new(&[], Duration::ZERO);
    let outcome = go_on(&empty, began_at, OnDrainTimeout::Pause, true).await;
    assert!(is_drained(&outcome, 0), "{outcome:?}");
    let blocked = FakeCluster::new(&["a"], Duration::from_secs(2));
    blocked.budget_open.store(false, Ordering::SeqCst);
    let outcome = go_on(&blocked, began_at, OnDrainTimeout::Force, true).await;
    assert!(is_drained(&outcome, 1), "{outcome:?}");
    assert_eq!(blocked.sent(), ["delete a"]);
}

#[tokio::test(start_paused = true)]
async fn a_closed_budget_is_shown_until_it_opens() {
    let cluster = FakeCluster::new(&["a"], Duration::from_secs(1));
    cluster.budget_open.store(false, Ordering::SeqCst);
    let shown = Mutex::new(0);
    let progress = |waits: Vec<WaitingOn>| {
        if waits.iter().any(|wait| matches!(wait.what, Waiting::PodDisruptionBudget { .. })) {
            *shown.lock().unwrap() += 1;
            if *shown.lock().unwrap() == 20 {
                cluster.budget_open.store(true, Ordering::SeqCst);
            }
        }
    };
    let outcome = drain(&cluster, Timestamp::now(), OnDrainTimeout::Pause, &|| true, &progress).await;
    assert!(is_drained(&outcome, 1), "{outcome:?}");
    assert!(*shown.lock().unwrap() >= 20 && cluster.sent().len() <= 6);
}

#[tokio::test(start_paused = true)]
async fn force_deletes_what_budgets_hold_back_and_only_after_the_time_is_over() {
    let cluster = FakeCluster::new(&["a"], Duration::from_secs(2));
    cluster.budget_open.store(false, Ordering::SeqCst);
    let begun = Instant::now();
    let outcome = run(&cluster, OnDrainTimeout::Force, true).await;
    assert!(is_drained(&outcome, 1), "{outcome:?}");
    assert!(begun.elapsed() >= Duration::from_secs(62));
    let sent = cluster.sent();
    assert_eq!(sent.iter().filter(|line| line.starts_with("delete")).count(), 1);
    assert_eq!(sent.last().map(String::as_str), Some("delete a"));
}

#[tokio::test(start_paused = true)]
async fn a_blocked_drain_times_out_and_asks_seldom() {
    let cluster = FakeCluster::new(&["a"], Duration::ZERO);
    cluster.budget_open.store(false, Ordering::SeqCst);
    let (problem, retryable) = run(&cluster, OnDrainTimeout::Pause, true).await.unwrap_err();
    assert_eq!((problem.code, retryable), (Code::DrainTimedOut, false));
    assert!(cluster.sent().len() <= 16, "{}", cluster.sent().len());
    assert!(*cluster.lists.lock().unwrap() <= 80, "{}", cluster.lists.lock().unwrap());
}

/// Whether a node was drained with so many evictions, and nothing came back.
fn is_drained(outcome: &Result<StepOutcome, (Problem, bool)>, expected: u32) -> bool {
    matches!(outcome, Ok(StepOutcome::Drained { evicted, relanded, .. }) if *evicted == expected && relanded.is_empty())
}
