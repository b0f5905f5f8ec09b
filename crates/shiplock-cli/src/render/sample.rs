//! Values for tests: one plan of five nodes, its upgrade in several states, and every kind of event.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use shiplock_api::agent::EtcdSnapshot;
use shiplock_api::rest::{
    AgentView, BackupView, ClusterView, JoinToken, NodeView, PoolView, UnreadableUpgrade, UpgradeView, VersionView,
};
use shiplock_core::catalogue::Catalogue;
use shiplock_core::check::{CheckReport, CheckResult, Finding};
use shiplock_core::facts::{ComponentFacts, InstallMethod, MachineFacts, Observed};
use shiplock_core::id::{Actor, Epoch, StepNumber};
use shiplock_core::join::JoinInstructions;
use shiplock_core::language::Language;
use shiplock_core::plan::{DrainDecision, Mode, NewApiObjects, NodePlan, Note, Plan, PlanOptions, Stage, StageKind};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::{Action, ControlPlaneRestore, OnDrainTimeout, Step, Target};
use shiplock_core::upgrade::{Event, EventRecord, PauseReason, StepOutcome, Upgrade, Waiting, WaitingOn};
use shiplock_core::version::KubernetesVersion;

use super::Style;

/// The time at which the samples are looked at.
pub fn now() -> Timestamp {
    "2026-11-23T14:42:00Z".parse().unwrap()
}

/// How the samples are shown.
pub fn style(language: Language) -> Style {
    Style::plain(language, now())
}

fn ago(seconds: i64) -> Timestamp {
    now() - SignedDuration::from_secs(seconds)
}

const TO: KubernetesVersion = KubernetesVersion::new(1, 36, 3);
const NODES: [&str; 5] = ["w-1", "w-2", "w-3", "w-4", "w-5"];
const STEPS_OF_NODE: u32 = 6;

fn steps(node: &str, first: u32) -> Vec<Step> {
    let drain = Action::Drain { timeout_seconds: 1_800, on_timeout: OnDrainTimeout::Pause };
    let runtime = Action::UpgradeContainerRuntime { version: "v2.2.9".to_owned(), files: vec![], sandbox_image: None };
    let verify = Action::VerifyNode {
        kubelet: TO,
        kubelet_sha256: None,
        container_runtime: Some("v2.2.9".to_owned()),
        container_runtime_sha256: None,
        control_plane_images: Vec::new(),
    };
    let kubelet = Action::UpgradeKubelet { version: TO, files: vec![] };
    let actions = [Action::Cordon, drain, runtime, kubelet, verify, Action::Uncordon];
    let step = |(index, action): (usize, Action)| Step {
        number: StepNumber(first + u32::try_from(index).unwrap()),
        action,
        target: Target::Node(node.into()),
        timeout_seconds: 600,
    };
    actions.into_iter().enumerate().map(step).collect()
}

/// Steps: 1 baseline, 2 to 6 prefetch, then six of each node, at last the verification.
fn first_step(node: usize) -> u32 {
    7 + u32::try_from(node).unwrap() * STEPS_OF_NODE
}

/// A plan that takes the upgrade of two masters back.
pub fn rollback_plan() -> Plan {
    let old = KubernetesVersion::new(1, 35, 6);
    let restore = |intent| {
        Action::RestoreControlPlane(Box::new(ControlPlaneRestore {
            upgrade: "u3fx9".into(),
            step: StepNumber(9),
            intent,
            version: old,
            is_only: false,
            etcd_stays: true,
            mirror: None,
            images: vec![],
        }))
    };
    let nodes = ["m-3", "m-2"].map(|node| NodePlan {
        node: node.into(),
        uid: format!("uid-{node}").into(),
        machine_id: format!("machine-{node}").into(),
        kubelet_from: TO,
        container_runtime_from: "containerd://2.2.9".to_owned(),
        cordoned_before: false,
        drain: DrainDecision::Drain,
        steps: vec![Step {
            number: StepNumber(2),
            action: restore(31),
            target: Target::Node(node.into()),
            timeout_seconds: 600,
        }],
        evidence: None,
    });
    let mut plan = plan();
    plan.mode = Mode::Rollback;
    plan.to = old;
    plan.stages[0].steps.truncate(1);
    plan.stages[1] = Stage { kind: StageKind::ControlPlane, steps: vec![], nodes: nodes.to_vec() };
    let change = |component: &str| format!("{component} v1.36.3 → v1.35.6");
    let changes = vec![change("kubelet"), change("kube-apiserver"), change("kube-scheduler")];
    let objects = NewApiObjects {
        api: "admissionregistration.k8s.io/v1 MutatingAdmissionPolicy".to_owned(),
        count: 7,
        names: vec!["defaults".to_owned(), "limits".to_owned()],
    };
    let unknown = Problem::new(Code::ClusterForbidden).with("verb", "list").with("resource", "workloads");
    plan.notes = vec![
        Note::EtcdStays { version: "3.7.0-0".to_owned() },
        Note::MasterGoesBack { node: "m-3".into(), changes: changes.clone() },
        Note::MasterGoesBack { node: "m-2".into(), changes },
        Note::NewApiObjects(objects),
        Note::NewApisUnknown { problem: unknown },
    ];
    plan
}

/// Backups of two clusters.
pub fn backups() -> Vec<BackupView> {
    let backup = |id: &str, cluster: &str, seconds, size_bytes| BackupView {
        id: id.to_owned(),
        cluster: cluster.into(),
        upgrade: id.split('-').next().unwrap().into(),
        node: "m-1".into(),
        created_at: ago(seconds),
        snapshot: EtcdSnapshot {
            sha256: "5b2e8a41".repeat(8),
            size_bytes,
            hash: 4_037_281_481,
            revision: 1_840_213,
            keys: 9_120,
            etcd_version: "3.6.8".to_owned(),
        },
    };
    vec![backup("u3fx9-4-17", "prod-hz", 3_000, 1_610_612_768), backup("u7a2c-4-12", "staging", 86_400, 20_512)]
}

/// A plan of one pool with five nodes.
pub fn plan() -> Plan {
    let nodes = NODES.iter().enumerate().map(|(index, node)| NodePlan {
        node: (*node).into(),
        uid: format!("uid-{node}").into(),
        machine_id: format!("machine-{node}").into(),
        kubelet_from: KubernetesVersion::new(1, 35, 6),
        container_runtime_from: "containerd://1.6.20".to_owned(),
        cordoned_before: index == 4,
        drain: if index == 3 { DrainDecision::SkippedNowhereToGo } else { DrainDecision::Drain },
        steps: steps(node, first_step(index)),
        evidence: None,
    });
    let prefetch = NODES.iter().enumerate().map(|(index, node)| Step {
        number: StepNumber(2 + u32::try_from(index).unwrap()),
        action: Action::Prefetch { mirror: "https://mirror.example".to_owned(), files: vec![], images: vec![] },
        target: Target::Node((*node).into()),
        timeout_seconds: 1_800,
    });
    let cluster =
        |number, action| Step { number: StepNumber(number), action, target: Target::Cluster, timeout_seconds: 120 };
    let stages = vec![
        Stage {
            kind: StageKind::Preparation,
            steps: std::iter::once(cluster(1, Action::CaptureBaseline)).chain(prefetch).collect(),
            nodes: vec![],
        },
        Stage { kind: StageKind::NodePool { pool: "web".into() }, steps: vec![], nodes: nodes.collect() },
        Stage {
            kind: StageKind::Verification,
            steps: vec![cluster(first_step(NODES.len()), Action::VerifyCluster { kubelet: TO })],
            nodes: vec![],
        },
    ];
    Plan {
        id: "p7k2m".into(),
        hash: "3fe2a1b09c44d5e6f708192a3b4c5d6e".to_owned(),
        created_at: ago(3_900),
        created_by: "li.wei".into(),
        cluster: "prod-hz".into(),
        cluster_uid: "c-uid".into(),
        catalogue: "2026-11".to_owned(),
        mode: Mode::NodePools,
        control_plane: TO,
        to: TO,
        hops: vec![],
        stages,
        options: PlanOptions::default(),
        notes: vec![
            Note::NodeUpToDate { node: "w-9".into() },
            Note::NodeNotReady { node: "w-8".into(), why: "Kubelet stopped posting node status.".to_owned() },
            Note::NodeCordonedByOthers { node: "w-5".into() },
            Note::BudgetAllowsNothing { budget: "pay/api".to_owned() },
            Note::PodsNotMadeAnew { count: 12, names: vec!["dev/shell".to_owned(), "ops/debug".to_owned()] },
            Note::DrainSkipped { node: "w-4".into() },
        ],
        measured: std::collections::BTreeMap::new(),
    }
}

fn record(number: u64, seconds_ago: i64, event: Event) -> EventRecord {
    EventRecord {
        upgrade: "u3fx9".into(),
        number,
        position: number * 2,
        at: ago(seconds_ago),
        epoch: Some(Epoch(1)),
        event,
    }
}

fn numbered(events: Vec<Event>) -> Vec<EventRecord> {
    let all = i64::try_from(events.len()).unwrap();
    let numbered = events
        .into_iter()
        .zip(1..)
        .map(|(event, number)| record(u64::try_from(number).unwrap(), (all - number) * 20 + 12, event));
    numbered.collect()
}

fn refused() -> Problem {
    Problem::new(Code::ServiceNotUp)
        .with("service", "kubelet")
        .with("node", "w-2")
        .with("state", "failed")
        .cause("line 1\nflag --x is unknown\n")
}

fn contact_lost() -> PauseReason {
    let problem = Problem::new(Code::ContactLost)
        .with("node", "w-2")
        .with("since", "2026-11-23T14:30:00Z")
        .with("upgrade", "u3fx9");
    PauseReason::ContactLost { node: "w-2".into(), problem }
}

/// One waiting of each kind.
pub fn waits() -> Vec<WaitingOn> {
    let kinds = [
        Waiting::Step {
            step: StepNumber(14),
            kind: "drain".to_owned(),
            subject: "node w-2".to_owned(),
            phase: Some("downloading".to_owned()),
        },
        Waiting::PodDisruptionBudget {
            node: "w-2".into(),
            pod: "pay/api-6f".to_owned(),
            budgets: vec!["pay/api".to_owned()],
            owner: Some("Deployment api".to_owned()),
        },
        Waiting::AgentContact { node: "w-3".into() },
        Waiting::BatchInterval,
    ];
    let mut waits: Vec<_> = kinds.into_iter().map(|what| WaitingOn::new(what, ago(192))).collect();
    waits[1] = waits[1]
        .clone()
        .until(now() + SignedDuration::from_secs(1_560))
        .retrying(9, now() + SignedDuration::from_secs(15));
    waits[2] = waits[2].clone().until(ago(30));
    waits
}

/// Every kind of event, without being a legal log.
pub fn events() -> Vec<EventRecord> {
    let by = || Actor::from("li.wei");
    let first = first_step(0);
    let done = |step, outcome| Event::StepSucceeded { step: StepNumber(step), attempt: 1, outcome };
    let drained = |relanded, arrived| StepOutcome::Drained {
        evicted: 7,
        relanded,
        arrived,
        ended: BTreeMap::from([("Deployment shop/cart".to_owned(), 5_200)]),
        held_milliseconds: 900,
    };
    let finding = |result| Finding {
        check: "NOD-001".to_owned(),
        result,
        subject: "node w-1".to_owned(),
        problem: Some(refused()),
        accepted: false,
        accepted_by: None,
        repaired_by_stage: None,
    };
    let skipped =
        Problem::new(Code::DrainTimedOut).with("node", "w-4").with("limit", "1800 s").with("blockers", "pay/api-6f");
    numbered(vec![
        Event::Planned { plan: Box::new(plan()), by: by() },
        Event::LeaseTaken { epoch: Epoch(1), holder: "server-a".to_owned() },
        Event::CheckStarted,
        Event::CheckFinished { report: CheckReport { findings: vec![finding(CheckResult::Pass)] } },
        Event::CheckFinished {
            report: CheckReport { findings: vec![finding(CheckResult::Pass), finding(CheckResult::Fail)] },
        },
        Event::Started,
        Event::StageStarted { stage: 0 },
        Event::StageFinished { stage: 0 },
        Event::BatchStarted { stage: 1, batch: 2, size_limit: 2, nodes: vec!["w-2".into(), "w-3".into()] },
        Event::StepStarted { step: StepNumber(first), attempt: 1 },
        Event::StepStarted { step: StepNumber(first + 1), attempt: 3 },
        done(1, StepOutcome::Baseline { workloads: vec![] }),
        done(2, StepOutcome::Done),
        done(3, StepOutcome::AlreadyDone),
        done(first, StepOutcome::Cordoned { ours: true }),
        done(first, StepOutcome::Cordoned { ours: false }),
        done(first + 1, drained(vec![], vec![])),
        done(first + 1, drained(vec!["shop/cart-1".to_owned()], vec![])),
        done(first + 1, drained(vec![], vec!["shop/cart-2".to_owned()])),
        done(first + 1, StepOutcome::DrainSkipped { blockers: vec!["pay/api-6f".to_owned()] }),
        done(
            first + 4,
            StepOutcome::Verified { components: vec!["kubelet v1.36.3".to_owned(), "containerd v2.2.9".to_owned()] },
        ),
        done(first_step(5), StepOutcome::Compared { worse: vec![], older_outside_plan: vec![] }),
        done(
            first_step(5),
            StepOutcome::Compared { worse: vec!["Deployment shop/cart 1/2".to_owned()], older_outside_plan: vec![] },
        ),
        done(first + 3, StepOutcome::Logs { text: "a\nb\n".to_owned() }),
        Event::StepFailed { step: StepNumber(first + 9), attempt: 1, problem: refused(), retryable: true },
        Event::StepFailed { step: StepNumber(first + 9), attempt: 3, problem: refused(), retryable: false },
        Event::NodeSkipped { node: "w-4".into(), problem: skipped },
        Event::WaitingBegan { on: waits().remove(1) },
        Event::InterferenceNoticed {
            problem: Problem::new(Code::Interference).with("object", "node w-2").with("what", "uncordoned"),
        },
        Event::PauseRequested { reason: PauseReason::Operator, by: by() },
        Event::PauseRequested { reason: contact_lost(), by: "shiplock".into() },
        Event::Paused,
        Event::Continued { by: by() },
        Event::MaxParallelChanged { max_parallel: 3, by: by() },
        Event::CancelRequested { by: by(), abandon: vec![] },
        Event::CancelRequested { by: by(), abandon: vec!["w-2".into()] },
        Event::Cancelled,
        Event::ExpiryNoticed,
        Event::ExpiryBegan,
        Event::Expired,
        Event::BatchFinished { stage: 1, batch: 2 },
        Event::Succeeded,
    ])
}

/// A legal log up to the second batch: w-1 is done, w-2 and w-3 are in work.
fn log_in_work() -> Vec<Event> {
    let plan = plan();
    let mut events = vec![
        Event::Planned { plan: Box::new(plan.clone()), by: "li.wei".into() },
        Event::CheckStarted,
        Event::CheckFinished { report: CheckReport { findings: vec![] } },
        Event::Started,
        Event::StageStarted { stage: 0 },
    ];
    events.extend((1..=6).flat_map(|step| whole(&plan, step)));
    events.extend([Event::StageFinished { stage: 0 }, Event::StageStarted { stage: 1 }]);
    events.push(Event::BatchStarted { stage: 1, batch: 1, size_limit: 1, nodes: vec!["w-1".into()] });
    events.extend((first_step(0)..first_step(1)).flat_map(|step| whole(&plan, step)));
    events.push(Event::BatchFinished { stage: 1, batch: 1 });
    events.push(Event::BatchStarted { stage: 1, batch: 2, size_limit: 2, nodes: vec!["w-2".into(), "w-3".into()] });
    for node in [1, 2] {
        events.extend(whole(&plan, first_step(node)));
        events.push(Event::StepStarted { step: StepNumber(first_step(node) + 1), attempt: 1 });
    }
    events
}

/// A step from its begin to its end, with the outcome of its kind.
fn whole(plan: &Plan, step: u32) -> [Event; 2] {
    let step = StepNumber(step);
    let outcome = match plan.step(step).map(|step| &step.action) {
        Some(Action::CaptureBaseline) => {
            StepOutcome::Baseline { workloads: shiplock_core::sample::cluster(&[]).workloads }
        }
        Some(Action::VerifyNode { .. }) => {
            StepOutcome::Verified { components: vec!["kubelet v1.36.3".to_owned(), "containerd v2.2.9".to_owned()] }
        }
        Some(Action::VerifyCluster { .. }) => StepOutcome::Compared { worse: vec![], older_outside_plan: vec![] },
        _ => StepOutcome::Done,
    };
    [Event::StepStarted { step, attempt: 1 }, Event::StepSucceeded { step, attempt: 1, outcome }]
}

/// An upgrade that ended well: the rest of the second batch, a third one, and the verification.
fn upgrade_succeeded() -> UpgradeView {
    let plan = plan();
    let mut events = log_in_work();
    for node in [1, 2] {
        let step = first_step(node) + 1;
        events.push(whole(&plan, step)[1].clone());
        events.extend((step + 1..first_step(node + 1)).flat_map(|step| whole(&plan, step)));
    }
    events.push(Event::BatchFinished { stage: 1, batch: 2 });
    events.push(Event::BatchStarted { stage: 1, batch: 3, size_limit: 4, nodes: vec!["w-4".into(), "w-5".into()] });
    events.extend((first_step(3)..first_step(5)).flat_map(|step| whole(&plan, step)));
    events.push(Event::BatchFinished { stage: 1, batch: 3 });
    events.extend([Event::StageFinished { stage: 1 }, Event::StageStarted { stage: 2 }]);
    events.extend(whole(&plan, first_step(5)));
    events.extend([Event::StageFinished { stage: 2 }, Event::Succeeded]);
    // What was waited for last is kept a moment longer than the upgrade runs.
    view(events, waits())
}

fn view(events: Vec<Event>, waits: Vec<WaitingOn>) -> UpgradeView {
    UpgradeView::new(&Upgrade::fold(&numbered(events)).unwrap(), waits, now())
}

/// An upgrade at work on its second batch.
pub fn upgrade_running() -> UpgradeView {
    view(log_in_work(), waits())
}

/// Why an upgrade pauses whose node failed, and its log until then; another node is in flight.
fn log_of_a_failed_node() -> (PauseReason, Vec<Event>) {
    let step = StepNumber(first_step(1) + 1);
    let reason = PauseReason::StepFailed { step, problem: refused() };
    let mut events = log_in_work();
    events.extend([
        Event::StepFailed { step, attempt: 1, problem: refused(), retryable: false },
        Event::PauseRequested { reason: reason.clone(), by: "shiplock".into() },
    ]);
    (reason, events)
}

/// An upgrade that is about to pause since a node failed.
pub fn upgrade_pausing() -> UpgradeView {
    view(log_of_a_failed_node().1, vec![])
}

/// An upgrade that paused since a node failed; another is in flight.
pub fn upgrade_paused() -> UpgradeView {
    let (reason, mut events) = log_of_a_failed_node();
    events.push(Event::Paused);
    view(events, vec![WaitingOn::new(Waiting::Continue { reason, is_over: false }, ago(12))])
}

/// An upgrade that paused since the agent of a node was silent, which is back.
pub fn upgrade_paused_and_heard_again() -> UpgradeView {
    let problem = Problem::new(Code::ContactLost).with("node", "w-2").with("since", ago(300)).with("upgrade", "u7k2m");
    let reason = PauseReason::ContactLost { node: "w-2".into(), problem };
    let mut events = log_in_work();
    events.extend([Event::PauseRequested { reason: reason.clone(), by: "shiplock".into() }, Event::Paused]);
    view(events, vec![WaitingOn::new(Waiting::Continue { reason, is_over: true }, ago(12))])
}

/// An upgrade whose start is stopped.
pub fn upgrade_blocked(result: CheckResult) -> UpgradeView {
    let missing = Problem::new(Code::AgentMissing).with("node", "w-2").with("cluster", "prod-hz");
    let finding = Finding {
        check: "AGT-001".to_owned(),
        result,
        subject: "node w-2".to_owned(),
        problem: Some(missing),
        accepted: false,
        accepted_by: None,
        repaired_by_stage: None,
    };
    let events = vec![
        Event::Planned { plan: Box::new(plan()), by: "li.wei".into() },
        Event::CheckStarted,
        Event::CheckFinished { report: CheckReport { findings: vec![finding] } },
    ];
    view(events, vec![WaitingOn::new(Waiting::Findings { blocking: 1, acceptable: 1 }, ago(12))])
}

/// An upgrade that was cancelled, with a node skipped and one abandoned.
pub fn upgrade_cancelled() -> UpgradeView {
    let problem =
        Problem::new(Code::DrainTimedOut).with("node", "w-2").with("limit", "1800 s").with("blockers", "pay/api-6f");
    let mut events = log_in_work();
    events.extend([
        Event::NodeSkipped { node: "w-2".into(), problem },
        Event::PauseRequested { reason: PauseReason::Operator, by: "li.wei".into() },
        Event::Paused,
        Event::CancelRequested { by: "li.wei".into(), abandon: vec!["w-3".into()] },
        Event::Cancelled,
    ]);
    view(events, vec![])
}

/// An upgrade whose log a newer version wrote.
pub fn unreadable() -> UnreadableUpgrade {
    let problem = Problem::new(Code::LogUnreadable).with("upgrade", "u-9").with("number", 31);
    UnreadableUpgrade {
        id: "u-9".into(),
        cluster: "prod-sh".into(),
        created_at: ago(7_200),
        len: 40,
        problem: problem.with("why", "unknown kind `node_replaced`"),
    }
}

/// Upgrades in several states.
pub fn upgrades() -> Vec<UpgradeView> {
    vec![
        upgrade_running(),
        upgrade_pausing(),
        upgrade_paused(),
        upgrade_paused_and_heard_again(),
        upgrade_blocked(CheckResult::Fail),
        upgrade_cancelled(),
        upgrade_succeeded(),
    ]
}

fn node(name: &str, ready: bool, cordoned: bool) -> NodeView {
    NodeView {
        name: name.into(),
        kubelet: "v1.35.6".to_owned(),
        container_runtime: "containerd://1.6.20".to_owned(),
        ready,
        cordoned,
        agent: ready,
    }
}

/// The shipped catalogue.
pub fn versions() -> Vec<VersionView> {
    VersionView::of_catalogue(&Catalogue::shipped())
}

/// A cluster that can be read, and one that cannot.
pub fn clusters() -> Vec<ClusterView> {
    let nodes = vec![node("w-1", true, false), node("w-2", true, true), node("w-8", false, false)];
    let problem =
        Problem::new(Code::ClusterUnreachable).with("server", "https://10.0.0.9:6443").cause("connection refused");
    vec![
        ClusterView {
            name: "prod-hz".into(),
            uid: "8a1f".into(),
            server: "https://10.0.0.1:6443".to_owned(),
            mirror: Some("https://mirror.example".to_owned()),
            version: Some(TO),
            next_versions: vec![KubernetesVersion::new(1, 37, 1)],
            support_days_left: Some(212),
            control_plane: vec![node("m-1", true, false)],
            pools: vec![PoolView { name: "web".into(), nodes }],
            upgrade: Some("u3fx9".into()),
            problem: None,
        },
        ClusterView {
            name: "测试集群".into(),
            uid: "77".into(),
            server: "https://10.0.0.9:6443".to_owned(),
            mirror: None,
            version: None,
            next_versions: vec![],
            support_days_left: Some(-12),
            control_plane: vec![],
            pools: vec![],
            upgrade: None,
            problem: Some(problem),
        },
    ]
}

/// An agent that was heard of, and one that was not since the server's start.
pub fn agents() -> Vec<AgentView> {
    let component = |version: &str, install| {
        Observed::Known(ComponentFacts {
            path: "/usr/bin/x".to_owned(),
            install,
            version: version.to_owned(),
            sha256: "0".to_owned(),
            running_sha256: None,
        })
    };
    let package = InstallMethod::Package { manager: "dpkg".to_owned(), package: "containerd".to_owned() };
    let machine = MachineFacts {
        agent_version: "0.1.0".to_owned(),
        step_kinds: vec![],
        machine_id: "m".into(),
        boot_id: "b".to_owned(),
        architecture: "amd64".to_owned(),
        kubelet: component("v1.35.6", InstallMethod::Binary),
        container_runtime: component("1.6.20", package),
        kubelet_edits: None,
        staging_free_bytes: 5 << 30,
        control_plane: None,
    };
    let unknown = Observed::Unknown { problem: refused(), since: now() };
    vec![
        AgentView { node: "w-1".into(), last_heard_at: Some(ago(3)), machine: machine.clone() },
        AgentView { node: "w-2".into(), last_heard_at: None, machine: MachineFacts { kubelet: unknown, ..machine } },
    ]
}

/// How a new node joins.
pub fn join_instructions() -> JoinInstructions {
    let facts = shiplock_core::sample::cluster(&[("blue", 1)]);
    let artefacts = shiplock_core::sample::artefacts();
    JoinInstructions::of(&"prod".into(), &facts, "https://mirror.example", &artefacts, "amd64").unwrap()
}

/// A join token.
pub fn join_token() -> JoinToken {
    JoinToken {
        token: "t".to_owned(),
        ca_pin: "sha256:ab".to_owned(),
        server: "https://s:7443".to_owned(),
        expires_at: now() + SignedDuration::from_secs(3_600),
        command: "shiplock-agent join --server https://s:7443 --token t --ca-pin sha256:ab".to_owned(),
    }
}
