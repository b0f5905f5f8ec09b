//! What a rehearsal tells: for programs as it is, for people rendered by the command line.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use shiplock_core::check::Finding;
use shiplock_core::language::Language;
use shiplock_core::problem::Problem;
use shiplock_core::upgrade::{PauseReason, WaitingOn};
use shiplock_core::version::KubernetesVersion;

/// How an upgrade would go. Times are milliseconds since its begin; what waits for a person is not in them.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// When the snapshot was taken.
    pub taken_at: Timestamp,
    /// The API server that it was taken from.
    pub server: String,
    /// The version that it reported.
    pub version: String,
    /// The target; none where only drains could be rehearsed.
    pub to: Option<KubernetesVersion>,
    /// Why only drains could be rehearsed.
    pub drains_only: Option<Problem>,
    /// Nodes in the snapshot.
    pub nodes: usize,
    /// Pods in the snapshot.
    pub pods: usize,
    /// The most nodes in one batch.
    pub max_parallel: u32,
    /// How long it takes.
    pub total: Range,
    /// How long the drawn runs took that came to their end, by percentile; empty where they are fewer than five.
    pub percentiles: BTreeMap<&'static str, u64>,
    /// How many runs with drawn times.
    pub drawn_runs: u32,
    /// How many of them came to their end.
    pub whole_drawn_runs: usize,
    /// What was left out; none where all was done that is usual or was asked for.
    pub left_out: Option<LeftOut>,
    /// The runs that did not come to their end though the nominal one did. They are not in any time.
    pub unfinished: Option<Unfinished>,
    /// The stages in order.
    pub stages: Vec<StageLine>,
    /// Every step of the nominal run, in the order in which it began.
    pub steps: Vec<StepLine>,
    /// What would stop the start.
    pub findings: Vec<Finding>,
    /// Drains that block until a person acts.
    pub blockers: Vec<HeldLine>,
    /// Drains that take all of their time, after which the plan says what is done.
    pub timed_out: Vec<HeldLine>,
    /// Evictions that a budget holds up for a while.
    pub held_up: Vec<HeldLine>,
    /// Workloads whose ready pods fall to zero, or below the floor.
    pub workloads: Vec<WorkloadLine>,
    /// The floor, in hundredths of the pods that were ready before.
    pub floor_percent: u32,
    /// Pods that find no place, or none for a while.
    pub unplaced: Vec<UnplacedLine>,
    /// Nodes with something that is lost or in the way.
    pub nodes_at_risk: Vec<NodeLine>,
    /// When the upgrade pauses, and why. The rehearsal goes on as if a person had seen to it.
    pub pauses: Vec<PauseLine>,
    /// Why the rehearsal ended before everything was done.
    pub ended_early: Option<Problem>,
    /// How it would go with other settings.
    pub settings: Vec<Setting>,
    /// Which of them would be better.
    pub advice: Vec<Advice>,
    /// What it does not know.
    pub unknown: Vec<Unknown>,
}

impl Report {
    /// Whether a person will be needed for more than the pauses that were asked for.
    pub fn needs_a_person(&self) -> bool {
        !self.blockers.is_empty()
            || !self.findings.is_empty()
            || self.ended_early.is_some()
            || self.pauses.iter().any(|pause| !pause.because.is_a_wish())
            || self.unplaced.iter().any(|pod| pod.end_milliseconds.is_none())
            || self.unfinished.is_some()
    }

    /// The nodes whose drain does not end before its time is over.
    pub fn blocked_nodes(&self) -> impl Iterator<Item = &str> {
        self.blockers.iter().chain(&self.timed_out).map(|held| held.node.as_str())
    }
}

/// What was left out of a rehearsal, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// What there is too much of.
    pub because: TooMuch,
    /// All drawn runs together move about so many pods at most, unless more runs are asked for.
    pub pods_max: usize,
    /// How many drawn runs are usual, where fewer were made.
    pub drawn_runs_usual: Option<u32>,
    /// Whether other settings were not tried.
    pub settings: bool,
}

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TooMuch {
    /// Pods in the snapshot.
    Pods,
}

/// Runs that did not come to their end.
#[derive(Clone, Debug, Serialize)]
pub struct Unfinished {
    /// How many.
    pub runs: usize,
    /// Of how many beside the nominal one.
    pub of: usize,
    /// Why the first of them ended.
    pub because: Problem,
}

/// How long something takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Range {
    /// As rehearsed with times in the middle of their ranges.
    pub nominal_milliseconds: u64,
    /// The shortest of all runs, among them one with every time at its lower end.
    pub lower_milliseconds: u64,
    /// The longest of all runs, among them one with every time at its upper end.
    pub upper_milliseconds: u64,
}

/// A stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageLine {
    /// Its stable word.
    pub stage: &'static str,
    /// Its pool.
    pub pool: Option<String>,
    /// When it begins.
    pub begin_milliseconds: u64,
    /// When it ends.
    pub end_milliseconds: u64,
    /// How long it takes.
    pub takes: Range,
    /// Its batches in order.
    pub batches: Vec<BatchLine>,
}

/// A batch.
#[derive(Clone, Debug, Serialize)]
pub struct BatchLine {
    /// Its ordinal, from 1.
    pub batch: u32,
    /// When it begins.
    pub begin_milliseconds: u64,
    /// When it ends.
    pub end_milliseconds: u64,
    /// How long it takes.
    pub takes: Range,
    /// Its nodes.
    pub nodes: Vec<BatchNode>,
}

/// A node of a batch.
#[derive(Clone, Debug, Serialize)]
pub struct BatchNode {
    /// Its name.
    pub node: String,
    /// When its first step begins.
    pub begin_milliseconds: u64,
    /// When its last step ends.
    pub end_milliseconds: u64,
    /// When its drain begins; none where it is not drained.
    pub drain_begin_milliseconds: Option<u64>,
    /// How long its drain takes; none where it is not drained.
    pub drain_milliseconds: Option<u64>,
}

/// A step.
#[derive(Clone, Debug, Serialize)]
pub struct StepLine {
    /// Its number in the plan.
    pub step: u32,
    /// The stable word of its stage.
    pub stage: &'static str,
    /// The pool of its stage.
    pub pool: Option<String>,
    /// Its kind.
    pub kind: &'static str,
    /// Its node.
    pub node: Option<String>,
    /// When it begins.
    pub begin_milliseconds: u64,
    /// When it ends.
    pub end_milliseconds: u64,
}

/// A pod that holds up a drain.
#[derive(Clone, Debug, Serialize)]
pub struct HeldLine {
    /// The node.
    pub node: String,
    /// The pod, its owner, the budgets.
    pub waiting_on: WaitingOn,
    /// What to do, in English.
    pub fix: Option<String>,
    /// When it begins to hold.
    pub begin_milliseconds: u64,
    /// How long it held; until the drain gave up where it holds until a person acts.
    pub lasted_milliseconds: u64,
    /// What ends it.
    pub until: HeldUntil,
}

/// What ends it that a pod holds up a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldUntil {
    /// A person: the upgrade pauses where the time of the drain is over before.
    PersonActs,
    /// The time of the drain is over, and its node is left out.
    NodeLeftOut,
    /// The time of the drain is over, and the pod is deleted, budgets notwithstanding.
    PodDeleted,
    /// Its budget allows it after a while.
    BudgetAllows,
}

/// A workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WorkloadLine {
    /// Such as `Deployment shop/cart`.
    pub workload: String,
    /// Pods that were ready before.
    pub ready_before: u32,
    /// The fewest that were ready.
    pub lowest: u32,
    /// When there were so few.
    pub lowest_at_milliseconds: u64,
    /// How long none was ready, in all.
    pub at_zero_milliseconds: u64,
}

/// A pod that finds no place.
#[derive(Clone, Debug, Serialize)]
pub struct UnplacedLine {
    /// `namespace/name`.
    pub pod: String,
    /// Its owner.
    pub owner: Option<String>,
    /// What the scheduler says.
    pub why: String,
    /// Since when.
    pub begin_milliseconds: u64,
    /// Until when; none where it finds none until the end.
    pub end_milliseconds: Option<u64>,
}

/// A node with something that is lost or in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeLine {
    /// The node.
    pub node: String,
    /// What.
    pub risks: Vec<Risk>,
}

/// Why a node is at risk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "risk", rename_all = "snake_case")]
pub enum Risk {
    /// Its drain blocks until a person acts.
    DrainBlocks,
    /// Pods that nothing makes again.
    BarePods {
        /// How many.
        count: usize,
        /// The first of them.
        example: String,
    },
    /// Pods whose volume is on this node alone: they wait for it to come back.
    LocalVolumes {
        /// How many.
        count: usize,
        /// The first of them.
        example: String,
    },
    /// It was not Ready when the snapshot was taken.
    NotReady {
        /// Why.
        why: String,
    },
    /// It is left out after its drain took too long.
    LeftOut,
}

impl Risk {
    /// In words.
    pub fn text(&self, language: Language) -> String {
        let zh = language == Language::Zh;
        match self {
            Self::DrainBlocks if zh => "排空会被阻塞".to_owned(),
            Self::DrainBlocks => "its drain blocks".to_owned(),
            Self::BarePods { count, example } if zh => format!("{count} 个无控制器的 Pod 将永久消失，如 {example}"),
            Self::BarePods { count: 1, example } => format!("a pod without a controller is lost: {example}"),
            Self::BarePods { count, example } => {
                format!("{count} pods without a controller are lost, such as {example}")
            }
            Self::LocalVolumes { count, example } if zh => format!("{count} 个 Pod 的卷只在该节点上，如 {example}"),
            Self::LocalVolumes { count: 1, example } => format!("the volume of a pod is on this node alone: {example}"),
            Self::LocalVolumes { count, example } => {
                format!("the volumes of {count} pods are on this node alone, such as {example}")
            }
            Self::NotReady { why } if zh => format!("快照中未就绪：{why}"),
            Self::NotReady { why } => format!("not Ready in the snapshot: {why}"),
            Self::LeftOut if zh => "排空超时后被跳过".to_owned(),
            Self::LeftOut => "left out after its drain took too long".to_owned(),
        }
    }
}

/// A pause.
#[derive(Clone, Debug, Serialize)]
pub struct PauseLine {
    /// When.
    pub at_milliseconds: u64,
    /// Why.
    #[serde(flatten)]
    pub because: PauseReason,
}

/// How it would go with another bound on batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The most nodes in one batch.
    pub max_parallel: u32,
    /// How long it takes.
    pub nominal_milliseconds: u64,
    /// Workloads without a ready pod at some time.
    pub workloads_at_zero: usize,
    /// Pods that find no place until the end.
    pub unplaced: usize,
    /// Drains that block.
    pub blockers: usize,
}

impl Setting {
    /// What it costs others.
    fn harm(self) -> (usize, usize, usize) {
        (self.unplaced, self.workloads_at_zero, self.blockers)
    }

    /// The better ones among settings, of which the first is the one that was asked for.
    pub(super) fn advice(all: &[Self]) -> Vec<Advice> {
        let Some((asked, others)) = all.split_first() else { return Vec::new() };
        let kinder = others.iter().filter(|other| other.harm() < asked.harm());
        if let Some(kinder) = kinder.min_by_key(|other| (other.harm(), other.nominal_milliseconds)) {
            let because = match (kinder.harm(), asked.harm()) {
                ((kinder, ..), (asked, ..)) if kinder < asked => Because::FewerUnplaced,
                ((_, kinder, _), (_, asked, _)) if kinder < asked => Because::FewerAtZero,
                _ => Because::FewerBlocked,
            };
            return vec![Advice::MaxParallel { max_parallel: kinder.max_parallel, because }];
        }
        // One that saves less than a tenth is not worth a word.
        let faster = others.iter().filter(|other| {
            other.harm() <= asked.harm() && other.nominal_milliseconds < asked.nominal_milliseconds / 10 * 9
        });
        let faster = faster.min_by_key(|other| other.nominal_milliseconds);
        let advice =
            faster.map(|faster| Advice::MaxParallel { max_parallel: faster.max_parallel, because: Because::Faster });
        advice.into_iter().collect()
    }
}

/// A setting that would be better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "advice", rename_all = "snake_case")]
pub enum Advice {
    /// Another bound on batches.
    MaxParallel {
        /// Which.
        max_parallel: u32,
        /// Why.
        because: Because,
    },
    /// Pools in which nothing blocks go first, by upgrades of their own.
    PoolsFirst {
        /// Those pools.
        pools: Vec<String>,
        /// The others.
        then: Vec<String>,
    },
}

/// Why a setting is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// Fewer pods find no place.
    FewerUnplaced,
    /// Fewer workloads fall to zero.
    FewerAtZero,
    /// Fewer drains block.
    FewerBlocked,
    /// It is faster and harms no more.
    Faster,
}

impl Advice {
    /// In words.
    pub fn text(&self, language: Language) -> String {
        let zh = language == Language::Zh;
        match self {
            Self::MaxParallel { max_parallel, because } => {
                let (english, chinese) = match because {
                    Because::FewerUnplaced => ("fewer pods find no place", "无法调度的 Pod 更少"),
                    Because::FewerAtZero => ("fewer workloads fall to zero", "就绪数降为零的工作负载更少"),
                    Because::FewerBlocked => ("fewer drains block", "受阻的排空更少"),
                    Because::Faster => ("faster, and nothing more is hurt", "更快，且影响不增加"),
                };
                format!("--max-parallel {max_parallel}{}", language.pick(": ", "：")) + language.pick(english, chinese)
            }
            Self::PoolsFirst { pools, then } => {
                let first: Vec<String> = pools.iter().map(|pool| format!("--pool {pool}")).collect();
                let (first, then) = (first.join(" "), then.join(", "));
                if zh {
                    format!("先升级不会阻塞的节点池：{first}；处理好阻塞后再升级 {then}")
                } else {
                    format!(
                        "nothing blocks in some pools, so they can go first: {first}; then {then}, once what blocks is seen to"
                    )
                }
            }
        }
    }
}

/// What a rehearsal does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "unknown", rename_all = "snake_case")]
pub enum Unknown {
    /// Times of these kinds of steps were never measured on this cluster: they have wide default ranges.
    NeverMeasured {
        /// The kinds.
        kinds: Vec<String>,
    },
    /// What the whole catalogue of checks would stop the start for.
    Checks,
    /// How fast pods end when they are told to, and how fast they are ready.
    PodTimes,
    /// Agents are assumed on every node, alive and with room.
    Agents,
    /// How it goes on with nodes that are not Ready: they are rehearsed as if they were.
    NotReady {
        /// The nodes.
        nodes: Vec<String>,
    },
    /// What kubeadm patches change: they are on the masters.
    Patches {
        /// The folder.
        folder: String,
    },
    /// What the mirror holds: sizes are assumed, and runtimes stay as they are.
    Mirror,
    /// Preferences of the scheduler, preemption, autoscalers.
    Scheduling,
    /// How workloads want to be rolled out.
    UpdateStrategies,
    /// What makes pods of other controllers anew.
    OtherControllers {
        /// How many such pods there are.
        pods: usize,
    },
    /// Whether the new version starts and works at all.
    NewVersion,
    /// What changes after the snapshot was taken.
    Later,
}

impl Unknown {
    /// In words.
    pub fn text(&self, language: Language) -> String {
        let zh = language == Language::Zh;
        match self {
            Self::NeverMeasured { kinds } if zh => {
                format!("以下步骤从未在该集群上测量过，使用较宽的默认范围：{}", kinds.join("、"))
            }
            Self::NeverMeasured { kinds } => {
                format!(
                    "these steps were never measured on this cluster and have wide default ranges: {}",
                    kinds.join(", ")
                )
            }
            Self::Checks if zh => {
                "预检会因什么阻止开始：此处只评估计划自身的检查；请运行 shiplock check，或对同一快照运行 shiplock check --snapshot FILE".to_owned()
            }
            Self::Checks => "what the pre-check would stop the start for: only the plan's own checks are asked here; run \
                shiplock check, or shiplock check --snapshot FILE on the same copy"
                .to_owned(),
            Self::PodTimes if zh => "Pod 收到结束信号后多久退出、启动后多久就绪：快照中没有".to_owned(),
            Self::PodTimes => {
                "how fast pods end once they are told to, and how fast new ones are ready: no snapshot tells".to_owned()
            }
            Self::Agents if zh => "假定每个节点上都有在线且空间充足的 agent".to_owned(),
            Self::Agents => "agents are assumed on every node, alive and with room".to_owned(),
            Self::NotReady { nodes } if zh => {
                format!(
                    "未就绪的节点：{} 按已就绪演练，其上的 Pod 视为在运行；现状下升级不会开始，或会在读回附加组件时等待这些节点",
                    some(nodes, "、")
                )
            }
            Self::NotReady { nodes } => {
                format!(
                    "nodes that are not Ready: {} rehearsed as if Ready and with pods that run; as it is, the upgrade would not start, or wait for them where add-ons are read back",
                    some(nodes, ", ") + if nodes.len() == 1 { " is" } else { " are" }
                )
            }
            Self::Patches { folder } if zh => {
                format!("{folder} 中的 kubeadm 补丁：它们位于各控制面节点上，快照不含它们，也不知道该目录是否存在")
            }
            Self::Patches { folder } => {
                format!(
                    "the kubeadm patches in {folder}: they are on the masters, and a snapshot tells neither what they change nor whether they are there"
                )
            }
            Self::Mirror if zh => "镜像站的内容：大小为假定值，容器运行时视为不升级（用 --mirror 提供）".to_owned(),
            Self::Mirror => {
                "what the mirror holds: sizes are assumed and runtimes stay as they are (give it with --mirror)"
                    .to_owned()
            }
            Self::Scheduling if zh => "调度器的偏好、抢占以及自动伸缩".to_owned(),
            Self::Scheduling => "preferences of the scheduler, preemption and autoscalers".to_owned(),
            Self::UpdateStrategies if zh => {
                "更新策略：各工作负载按默认策略滚动更新，DaemonSet（如 kube-proxy）每次更新一个 Pod".to_owned()
            }
            Self::UpdateStrategies => "update strategies: workloads are rolled out as by default, a DaemonSet such as \
                kube-proxy one pod at a time"
                .to_owned(),
            Self::OtherControllers { pods } if zh => {
                format!("其他控制器（如 Job、operator）的 {pods} 个 Pod 被驱逐后如何重建")
            }
            Self::OtherControllers { pods } => {
                format!("how {pods} pods of other controllers (Jobs, operators) are made again once they are evicted")
            }
            Self::NewVersion if zh => "新版本能否启动并正常工作".to_owned(),
            Self::NewVersion => "whether the new version starts and works".to_owned(),
            Self::Later if zh => "快照之后集群的变化".to_owned(),
            Self::Later => "what changes in the cluster after the snapshot".to_owned(),
        }
    }
}

/// As many names as a line bears.
fn some(names: &[String], between: &str) -> String {
    const NAMED_MAX: usize = 10;
    let named = names.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(between);
    let more = names.len().saturating_sub(NAMED_MAX);
    if more > 0 { format!("{named} +{more}") } else { named }
}
