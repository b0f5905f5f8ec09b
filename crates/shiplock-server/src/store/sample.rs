//! Values for the tests of stores: a cluster, a plan, and logs in which every kind of event occurs.
//!
//! The plan has one pool of two nodes. All values are fixed, so that two runs make the same bytes.

use jiff::Timestamp;
use shiplock_core::artefact::{ArtefactFile, ArtefactImage};
use shiplock_core::catalogue::Hop;
use shiplock_core::check::{CheckReport, CheckResult, Finding};
use shiplock_core::facts::{ComponentFacts, InstallMethod, MachineFacts, Observed, WorkloadFacts};
use shiplock_core::id::{Epoch, NodeName, StepNumber};
use shiplock_core::plan::{DrainDecision, Mode, NodePlan, Note, Plan, PlanOptions, Stage, StageKind};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::{Action, OnDrainTimeout, Step, Target};
use shiplock_core::upgrade::{Event, PauseReason, StepOutcome, Waiting, WaitingOn};
use shiplock_core::version::KubernetesVersion;

use super::{AgentRecord, ClusterRecord, NewUpgrade};

/// So many seconds after the begin of all tests.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

pub(super) fn cluster(name: &str, uid: &str) -> ClusterRecord {
    ClusterRecord {
        name: name.into(),
        uid: uid.into(),
        server: "https://192.0.2.10:6443".to_owned(),
        sealed_kubeconfig: vec![0, 159, 146, 150],
        mirror: Some("https://mirror.example/kubernetes".to_owned()),
        added_at: at(0),
    }
}

pub(super) fn new_upgrade(id: &str, cluster: &str) -> NewUpgrade {
    NewUpgrade { id: id.into(), cluster: cluster.into(), event: planned(), now: at(0), idempotency_key: None }
}

pub(super) fn planned() -> Event {
    Event::Planned { plan: Box::new(plan("p1")), by: "ops".into() }
}

pub(super) fn agent(cluster: &str, node: &str, serial: &str) -> AgentRecord {
    let kubelet = ComponentFacts {
        path: "/usr/bin/kubelet".to_owned(),
        install: InstallMethod::Package { manager: "dpkg".to_owned(), package: "kubelet".to_owned() },
        version: "v1.35.4".to_owned(),
        sha256: "ab".repeat(32),
        running_sha256: Some("ab".repeat(32)),
    };
    let unknown = Problem::new(Code::ServiceNotUp).with("service", "containerd");
    AgentRecord {
        cluster: cluster.into(),
        node: node.into(),
        serial: serial.to_owned(),
        machine: MachineFacts {
            agent_version: "0.1.0".to_owned(),
            step_kinds: vec!["prefetch".to_owned(), "upgrade_kubelet".to_owned()],
            machine_id: format!("machine-{node}").into(),
            boot_id: "boot-1".to_owned(),
            architecture: "amd64".to_owned(),
            kubelet: Observed::Known(kubelet),
            container_runtime: Observed::Unknown { problem: unknown, since: at(0) },
            kubelet_edits: None,
            staging_free_bytes: 10 << 30,
            control_plane: None,
        },
        enrolled_at: at(0),
    }
}

pub(super) fn plan(id: &str) -> Plan {
    let from = KubernetesVersion::new(1, 35, 4);
    let to = KubernetesVersion::new(1, 36, 3);
    let cluster =
        |number, action| Step { number: StepNumber(number), action, target: Target::Cluster, timeout_seconds: 300 };
    let nodes = vec![node_plan("node-a", 3), node_plan("node-b", 9)];
    let prefetch = |number, node: &str| Step {
        number: StepNumber(number),
        action: Action::Prefetch {
            mirror: "https://mirror.example/kubernetes".to_owned(),
            files: vec![file("kubelet", "v1.36.3")],
            images: vec![ArtefactImage {
                role: "pause".to_owned(),
                reference: "registry.example/pause:3.10.2".to_owned(),
                architecture: "amd64".to_owned(),
                path: "images/pause.tar".to_owned(),
                size_bytes: 320_000,
                sha256: "cd".repeat(32),
                digest: format!("sha256:{}", "ef".repeat(32)),
                image_id: None,
            }],
        },
        target: Target::Node(node.into()),
        timeout_seconds: 1_800,
    };
    let mut plan = Plan {
        id: id.into(),
        hash: String::new(),
        created_at: at(-60),
        created_by: "ops".into(),
        cluster: "prod".into(),
        cluster_uid: "uid-prod".into(),
        catalogue: "2026-07".to_owned(),
        mode: Mode::NodePools,
        control_plane: to,
        to,
        hops: vec![Hop { from, to }],
        stages: vec![
            Stage {
                kind: StageKind::Preparation,
                steps: vec![cluster(1, Action::CaptureBaseline), prefetch(2, "node-a")],
                nodes: Vec::new(),
            },
            Stage { kind: StageKind::NodePool { pool: "web".into() }, steps: Vec::new(), nodes },
            Stage {
                kind: StageKind::Verification,
                steps: vec![cluster(15, Action::VerifyCluster { kubelet: to })],
                nodes: Vec::new(),
            },
        ],
        options: PlanOptions::default(),
        notes: vec![Note::NodeNotReady {
            node: "node-c".into(),
            why: "Kubelet stopped posting node status.".to_owned(),
        }],
        measured: std::collections::BTreeMap::new(),
    };
    plan.hash = plan.content_hash();
    plan
}

fn node_plan(node: &str, first_step: u32) -> NodePlan {
    let to = KubernetesVersion::new(1, 36, 3);
    let actions = [
        Action::Cordon,
        Action::Drain { timeout_seconds: 1_800, on_timeout: OnDrainTimeout::Skip },
        Action::UpgradeContainerRuntime {
            version: "v2.2.9".to_owned(),
            files: vec![file("containerd", "v2.2.9")],
            sandbox_image: Some("registry.example/pause:3.10.2".to_owned()),
        },
        Action::UpgradeKubelet { version: to, files: vec![file("kubelet", "v1.36.3")] },
        Action::VerifyNode {
            kubelet: to,
            kubelet_sha256: Some("ab".repeat(32)),
            container_runtime: Some("v2.2.9".to_owned()),
            container_runtime_sha256: None,
            control_plane_images: Vec::new(),
        },
        Action::Uncordon,
    ];
    let step = |(number, action)| Step {
        number: StepNumber(number),
        action,
        target: Target::Node(node.into()),
        timeout_seconds: 600,
    };
    NodePlan {
        node: node.into(),
        uid: format!("uid-{node}").into(),
        machine_id: format!("machine-{node}").into(),
        kubelet_from: KubernetesVersion::new(1, 35, 4),
        container_runtime_from: "containerd://1.7.29".to_owned(),
        cordoned_before: false,
        drain: DrainDecision::Drain,
        steps: (first_step..).zip(actions).map(step).collect(),
        evidence: None,
    }
}

fn file(role: &str, version: &str) -> ArtefactFile {
    ArtefactFile {
        role: role.to_owned(),
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        path: format!("release/{version}/bin/linux/amd64/{role}"),
        size_bytes: 58_000_000,
        sha256: "ab".repeat(32),
    }
}

fn problem() -> Problem {
    Problem::new(Code::ServiceNotUp)
        .with("service", "containerd")
        .with("node", "node-a")
        .with("state", "failed")
        .cause("containerd.service: Main process exited, code=exited, status=1/FAILURE")
}

fn started(step: u32, attempt: u32) -> Event {
    Event::StepStarted { step: StepNumber(step), attempt }
}

fn succeeded(step: u32, attempt: u32, outcome: StepOutcome) -> Event {
    Event::StepSucceeded { step: StepNumber(step), attempt, outcome }
}

/// The pre-check and the start.
fn checked_and_started(result: CheckResult) -> Vec<Event> {
    let problem = (result != CheckResult::Pass).then(problem);
    let finding = Finding {
        check: "NOD-001".to_owned(),
        result,
        subject: "node node-a".to_owned(),
        problem,
        accepted: false,
        accepted_by: None,
        repaired_by_stage: None,
    };
    vec![Event::CheckStarted, Event::CheckFinished { report: CheckReport { findings: vec![finding] } }]
}

/// A log: its upgrade, the state that it folds to, and the events after the first with the epochs of the driver.
type SampleLog = (&'static str, &'static str, Vec<(Option<Epoch>, Event)>);

pub(super) fn logs() -> Vec<SampleLog> {
    let driver = |epoch: u64| move |event: Event| (Some(Epoch(epoch)), event);
    let person = |event: Event| (None, event);
    let taken =
        |epoch: u64| (Some(Epoch(epoch)), Event::LeaseTaken { epoch: Epoch(epoch), holder: "server-1".to_owned() });

    let mut succeeded_log = vec![taken(1)];
    succeeded_log.extend(checked_and_started(CheckResult::Fail).into_iter().map(driver(1)));
    succeeded_log.push(person(Event::Continued { by: "ops".into() }));
    succeeded_log.extend(checked_and_started(CheckResult::Pass).into_iter().map(driver(1)));
    succeeded_log.extend(until_the_failure().into_iter().map(driver(1)));
    succeeded_log.push(taken(2));
    succeeded_log.push(person(Event::Continued { by: "ops".into() }));
    succeeded_log.push(person(Event::MaxParallelChanged { max_parallel: 2, by: "ops".into() }));
    succeeded_log.extend(after_the_failure().into_iter().map(driver(2)));

    let cancelled_log = vec![
        person(Event::CancelRequested { by: "ops".into(), abandon: vec!["node-b".into()] }),
        taken(3),
        (Some(Epoch(3)), Event::Cancelled),
    ];

    let mut expired_log = vec![taken(4)];
    expired_log.extend(checked_and_started(CheckResult::Pass).into_iter().map(driver(4)));
    expired_log.push((Some(Epoch(4)), Event::Started));
    expired_log
        .extend(pause_reasons().into_iter().map(|reason| person(Event::PauseRequested { reason, by: "ops".into() })));
    let end = [Event::Paused, Event::ExpiryNoticed, Event::ExpiryBegan, Event::Expired];
    expired_log.extend(end.into_iter().map(driver(4)));

    vec![("u1", "succeeded", succeeded_log), ("u2", "cancelled", cancelled_log), ("u3", "expired", expired_log)]
}

fn pause_reasons() -> Vec<PauseReason> {
    vec![
        PauseReason::Operator,
        PauseReason::PausePolicy,
        PauseReason::Gate { problem: problem() },
        PauseReason::Window,
        PauseReason::ContactLost { node: "node-a".into(), problem: problem() },
        PauseReason::Interference { problem: problem() },
        PauseReason::InvariantBroken { problem: problem() },
    ]
}

fn until_the_failure() -> Vec<Event> {
    let workload = WorkloadFacts {
        kind: "Deployment".into(),
        namespace: "shop".into(),
        name: "cart".into(),
        desired: 2,
        ready: 2,
    };
    let budget = Waiting::PodDisruptionBudget {
        node: "node-a".into(),
        pod: "shop/cart-1".to_owned(),
        budgets: vec!["shop/cart".to_owned()],
        owner: Some("Deployment cart".to_owned()),
    };
    let reason = PauseReason::StepFailed { step: StepNumber(5), problem: problem() };
    vec![
        Event::Started,
        Event::StageStarted { stage: 0 },
        started(1, 1),
        succeeded(1, 1, StepOutcome::Baseline { workloads: vec![workload] }),
        started(2, 1),
        succeeded(2, 1, StepOutcome::Done),
        Event::StageFinished { stage: 0 },
        Event::StageStarted { stage: 1 },
        Event::BatchStarted { stage: 1, batch: 1, size_limit: 1, nodes: vec!["node-a".into()] },
        started(3, 1),
        succeeded(3, 1, StepOutcome::Cordoned { ours: true }),
        started(4, 1),
        Event::WaitingBegan { on: WaitingOn::new(budget, at(20)).until(at(1_820)).retrying(3, at(30)) },
        succeeded(
            4,
            1,
            StepOutcome::Drained {
                evicted: 7,
                relanded: vec!["kube-system/log-1".to_owned()],
                arrived: Vec::new(),
                ended: std::collections::BTreeMap::new(),
                held_milliseconds: 0,
            },
        ),
        started(5, 1),
        Event::StepFailed { step: StepNumber(5), attempt: 1, problem: problem(), retryable: false },
        Event::PauseRequested { reason, by: "shiplock".into() },
        Event::Paused,
    ]
}

fn after_the_failure() -> Vec<Event> {
    let node_b: NodeName = "node-b".into();
    vec![
        started(5, 2),
        succeeded(5, 2, StepOutcome::Done),
        started(6, 1),
        succeeded(6, 1, StepOutcome::AlreadyDone),
        started(7, 1),
        succeeded(7, 1, StepOutcome::Verified { components: vec!["kubelet v1.36.3".to_owned()] }),
        started(8, 1),
        succeeded(8, 1, StepOutcome::Done),
        Event::BatchFinished { stage: 1, batch: 1 },
        Event::BatchStarted { stage: 1, batch: 2, size_limit: 2, nodes: vec![node_b.clone()] },
        Event::InterferenceNoticed { problem: problem() },
        started(9, 1),
        succeeded(9, 1, StepOutcome::Cordoned { ours: true }),
        started(10, 1),
        succeeded(10, 1, StepOutcome::DrainSkipped { blockers: vec!["shop/cart-2".to_owned()] }),
        Event::NodeSkipped { node: node_b, problem: problem() },
        started(14, 1),
        succeeded(14, 1, StepOutcome::Logs { text: "kubelet[812]: \"ready\"\n".to_owned() }),
        Event::BatchFinished { stage: 1, batch: 2 },
        Event::StageFinished { stage: 1 },
        Event::StageStarted { stage: 2 },
        started(15, 1),
        succeeded(
            15,
            1,
            StepOutcome::Compared { worse: vec!["Deployment shop/cart 1/2".to_owned()], older_outside_plan: vec![] },
        ),
        Event::StageFinished { stage: 2 },
        Event::Succeeded,
    ]
}
