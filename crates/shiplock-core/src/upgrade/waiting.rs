//! Why nothing moves now: every "not yet" is a value that prints one sentence.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{NodeName, StepNumber};
use crate::language::Language;
use crate::problem::{Code, Problem};
use crate::version::MinorVersion;

use super::event::PauseReason;

/// One reason why something does not go on yet: what it is for, since when, until when, and who must act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WaitingOn {
    /// What is waited for.
    #[serde(flatten)]
    pub what: Waiting,
    /// Since when.
    pub since: Timestamp,
    /// When the upgrade stops waiting and pauses, or the step gives up; none where it waits as long as it takes.
    pub deadline: Option<Timestamp>,
    /// How often it was tried, and when next.
    pub retry: Option<Retry>,
}

/// How often something was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Retry {
    /// Attempts so far.
    pub attempts: u32,
    /// The next one.
    pub next_at: Timestamp,
}

/// Who must act before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WhoActs {
    /// Nobody: it goes on by itself.
    Nobody,
    /// The operator of the upgrade.
    Operator,
    /// The owner of the workload that is named.
    WorkloadOwner,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "waiting_on", rename_all = "snake_case")]
pub enum Waiting {
    /// A step that is in work.
    Step {
        /// The step.
        step: StepNumber,
        /// Its kind.
        kind: String,
        /// On what.
        subject: String,
        /// What its executor says of its progress, a stable word such as `downloading`.
        phase: Option<String>,
    },
    /// An eviction that a PodDisruptionBudget refuses.
    PodDisruptionBudget {
        /// The node to empty.
        node: NodeName,
        /// The pod as `namespace/name`.
        pod: String,
        /// The budget as `namespace/name`; several where upstream refuses any eviction.
        budgets: Vec<String>,
        /// The controller of the pod, as `Deployment web`.
        owner: Option<String>,
    },
    /// A pod that was told to end and has not yet.
    PodTermination {
        /// The node to empty.
        node: NodeName,
        /// The pod as `namespace/name`.
        pod: String,
        /// The controller of the pod.
        owner: Option<String>,
        /// Its grace period in seconds.
        grace_seconds: i64,
    },
    /// An eviction that the API server refuses for another reason.
    EvictionRefused {
        /// The node to empty.
        node: NodeName,
        /// The pod as `namespace/name`.
        pod: String,
        /// The answer.
        problem: Problem,
    },
    /// A node that is to be Ready and read back.
    NodeReadBack {
        /// The node.
        node: NodeName,
        /// What is not yet as claimed.
        problem: Problem,
    },
    /// An agent that is needed and silent.
    AgentContact {
        /// Its node.
        node: NodeName,
    },
    /// Another attempt of a step that failed.
    StepRetry {
        /// The step.
        step: StepNumber,
        /// On what.
        subject: String,
        /// Why it failed.
        problem: Problem,
    },
    /// A gate before the next batch or stage.
    Gate {
        /// Why it holds.
        problem: Problem,
    },
    /// The cluster cannot be read.
    ClusterFacts {
        /// Why.
        problem: Problem,
    },
    /// The interval between batches.
    BatchInterval,
    /// The masters soak: they emulate the minor version before.
    Soak {
        /// What they emulate.
        emulates: MinorVersion,
    },
    /// The masters soak, and something is not as well as it was.
    SoakUnwell {
        /// What.
        problem: Problem,
    },
    /// The checks of the whole catalogue, which read the cluster and ask every agent.
    Checks,
    /// A person: the pre-check found what must be handled.
    Findings {
        /// How many findings stop the start.
        blocking: usize,
        /// How many of them a person may let pass.
        #[serde(default)]
        acceptable: usize,
    },
    /// A person: the upgrade is paused.
    Continue {
        /// Why it is paused.
        reason: PauseReason,
        /// Whether that is over by itself: contact was lost, and the agent was heard of again.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_over: bool,
    },
}

impl WaitingOn {
    /// Something waited for, with neither deadline nor retry.
    pub fn new(what: Waiting, since: Timestamp) -> Self {
        Self { what, since, deadline: None, retry: None }
    }

    /// Sets when it stops waiting.
    #[must_use]
    pub fn until(mut self, deadline: Timestamp) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Sets the retry.
    #[must_use]
    pub fn retrying(mut self, attempts: u32, next_at: Timestamp) -> Self {
        self.retry = Some(Retry { attempts, next_at });
        self
    }

    /// Who must act.
    pub fn who_acts(&self) -> WhoActs {
        match &self.what {
            Waiting::Step { .. }
            | Waiting::StepRetry { .. }
            | Waiting::BatchInterval
            | Waiting::Soak { .. }
            | Waiting::Checks
            | Waiting::NodeReadBack { .. } => WhoActs::Nobody,
            Waiting::PodDisruptionBudget { .. } | Waiting::PodTermination { .. } => WhoActs::WorkloadOwner,
            Waiting::EvictionRefused { .. }
            | Waiting::AgentContact { .. }
            | Waiting::Gate { .. }
            | Waiting::SoakUnwell { .. }
            | Waiting::ClusterFacts { .. }
            | Waiting::Findings { .. }
            | Waiting::Continue { .. } => WhoActs::Operator,
        }
    }

    /// The sentence: subject and cause.
    pub fn sentence(&self, language: Language) -> String {
        let zh = language == Language::Zh;
        match &self.what {
            Waiting::Step { kind, subject, phase, .. } => {
                let name = step_name(kind, language);
                let (subject, phase) =
                    (language.subject(subject), phase.as_deref().map(|phase| phase_name(phase, language)));
                match (phase, zh) {
                    (None, true) => format!("{subject}：{name}"),
                    (Some(phase), true) => format!("{subject}：{name}（{phase}）"),
                    (None, false) => format!("{subject}: {name}"),
                    (Some(phase), false) => format!("{subject}: {name} ({phase})"),
                }
            }
            Waiting::PodDisruptionBudget { node, pod, budgets, owner } => {
                let owner = owner_text(owner.as_deref(), language);
                let budgets = budgets.join(", ");
                if zh {
                    format!("{node}：Pod {pod}{owner}不能被驱逐：PodDisruptionBudget {budgets} 当前不允许中断")
                } else {
                    format!(
                        "{node}: pod {pod}{owner} cannot be evicted: PodDisruptionBudget {budgets} allows no disruption now"
                    )
                }
            }
            Waiting::PodTermination { node, pod, owner, grace_seconds } => {
                let owner = owner_text(owner.as_deref(), language);
                if zh {
                    format!("{node}：Pod {pod}{owner}已被要求结束，尚未退出（宽限期 {grace_seconds} 秒）")
                } else {
                    format!("{node}: pod {pod}{owner} was told to end and has not yet (grace period {grace_seconds} s)")
                }
            }
            Waiting::EvictionRefused { node, pod, problem } => {
                let sentence = problem.sentence(language);
                if zh {
                    format!("{node}：驱逐 Pod {pod} 被拒绝：{sentence}")
                } else {
                    format!("{node}: the eviction of pod {pod} is refused: {sentence}")
                }
            }
            Waiting::NodeReadBack { problem, .. } | Waiting::Gate { problem } | Waiting::ClusterFacts { problem } => {
                problem.sentence(language)
            }
            Waiting::AgentContact { node } => {
                if zh {
                    format!("{node}：等待 agent 的消息")
                } else {
                    format!("{node}: the agent is silent")
                }
            }
            Waiting::StepRetry { subject, problem, .. } => {
                let (subject, sentence) = (language.subject(subject), problem.sentence(language));
                if zh {
                    format!("{subject}：将重试：{sentence}")
                } else {
                    format!("{subject}: will be tried again: {sentence}")
                }
            }
            Waiting::BatchInterval => language.pick("the interval between batches", "批次间隔").to_owned(),
            Waiting::Soak { emulates } => {
                if zh {
                    format!("控制面试运行中：已运行目标版本，并模拟 {emulates}")
                } else {
                    format!("the masters soak: they run the target and emulate {emulates}")
                }
            }
            Waiting::SoakUnwell { problem } => {
                let sentence = problem.sentence(language);
                if zh {
                    format!("控制面试运行期间有异常，试运行不会结束：{sentence}")
                } else {
                    format!("the soak does not end while something is not well: {sentence}")
                }
            }
            Waiting::Checks => language.pick("the checks before the start", "开始前的检查").to_owned(),
            Waiting::Findings { blocking, .. } => {
                if zh {
                    format!("有 {blocking} 项检查结果必须先处理")
                } else if *blocking == 1 {
                    "1 finding must be handled first".to_owned()
                } else {
                    format!("{blocking} findings must be handled first")
                }
            }
            Waiting::Continue { reason: PauseReason::ContactLost { node, .. }, is_over: true } => {
                if zh {
                    format!("已暂停：节点 {node} 的 agent 曾失去联系，现已恢复")
                } else {
                    format!("paused: the agent of node {node} was silent for too long, and is heard of again")
                }
            }
            Waiting::Continue { reason, .. } => match (reason.problem(), reason) {
                (Some(problem), _) => problem.sentence(language),
                (None, PauseReason::PausePolicy) => {
                    language.pick("paused by the plan's pause policy", "按计划的暂停策略暂停").to_owned()
                }
                (None, PauseReason::Window) => {
                    language.pick("paused: the maintenance window closed", "维护窗口已关闭，暂停").to_owned()
                }
                (None, _) => language.pick("paused by the operator", "由操作者暂停").to_owned(),
            },
        }
    }

    /// What to do about it; none where it goes on by itself.
    pub fn fix(&self, language: Language) -> Option<String> {
        let zh = language == Language::Zh;
        Some(match &self.what {
            Waiting::Step { .. } | Waiting::StepRetry { .. } | Waiting::BatchInterval | Waiting::Checks => return None,
            Waiting::Soak { .. } => {
                language.pick("to go back: shiplock rollback UPGRADE", "如需回退：shiplock rollback UPGRADE").to_owned()
            }
            Waiting::SoakUnwell { problem } => {
                let fix = fix_and_then(problem, false, language);
                if zh {
                    format!("{fix}；或回退：shiplock rollback UPGRADE")
                } else {
                    format!("{fix}; or go back: shiplock rollback UPGRADE")
                }
            }
            Waiting::PodDisruptionBudget { budgets, .. } => {
                let (namespace, budget) =
                    budgets.first().and_then(|name| name.split_once('/')).unwrap_or(("NAMESPACE", "NAME"));
                if let [_, further @ ..] = &budgets[..]
                    && !further.is_empty()
                {
                    // Any eviction of such a pod is refused, whatever the budgets allow:
                    // https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
                    let further: Vec<&str> =
                        further.iter().map(|name| name.split_once('/').map_or(name.as_str(), |(_, name)| name)).collect();
                    let further = further.join(" ");
                    return Some(if zh {
                        format!("Kubernetes 拒绝驱逐有多个预算的 Pod：只保留一个，例如 kubectl -n {namespace} delete pdb {further}；之后会自动继续")
                    } else {
                        format!("Kubernetes refuses to evict a pod with several budgets: keep one, for example kubectl -n {namespace} delete pdb {further}; it goes on by itself then")
                    });
                }
                if zh {
                    format!("使其未就绪的 Pod 就绪，或增加副本（若预算为 minAvailable），或放宽预算：kubectl -n {namespace} edit pdb {budget}；之后会自动继续")
                } else {
                    format!(
                        "get its unready pods ready, add a replica (where it says minAvailable), or loosen the budget: kubectl -n {namespace} edit pdb {budget}; it goes on by itself then"
                    )
                }
            }
            Waiting::PodTermination { pod, .. } => {
                let (namespace, name) = pod.split_once('/').unwrap_or(("NAMESPACE", pod));
                if zh {
                    format!(
                        "宽限期后 kubelet 会终止它；如需立即终止：kubectl -n {namespace} delete pod {name} --grace-period=1"
                    )
                } else {
                    format!(
                        "the kubelet ends it after its grace period; to end it now: kubectl -n {namespace} delete pod {name} --grace-period=1"
                    )
                }
            }
            Waiting::AgentContact { node } => {
                if zh {
                    format!("在 {node} 上执行 systemctl restart shiplock-agent")
                } else {
                    format!("on {node}: systemctl restart shiplock-agent")
                }
            }
            Waiting::EvictionRefused { problem, .. }
            | Waiting::NodeReadBack { problem, .. }
            | Waiting::Gate { problem }
            | Waiting::ClusterFacts { problem } => fix_and_then(problem, false, language),
            Waiting::Findings { acceptable: 0, .. } => {
                language.pick("handle them, then: shiplock continue UPGRADE", "处理后执行：shiplock continue UPGRADE").to_owned()
            }
            Waiting::Findings { .. } => language
                .pick("handle them, then: shiplock continue UPGRADE; to let one pass, first: shiplock acceptances add CLUSTER CHECK --reason WHY", "处理后执行：shiplock continue UPGRADE；若要放行某项，先执行：shiplock acceptances add CLUSTER CHECK --reason WHY")
                .to_owned(),
            Waiting::Continue { reason, is_over } => match reason.problem() {
                Some(problem) if !is_over => fix_and_then(problem, true, language),
                _ => language.pick("shiplock continue UPGRADE", "shiplock continue UPGRADE").to_owned(),
            },
        })
    }

    /// What stays equal while the same thing is waited for: everything but times and attempts.
    pub fn key(&self) -> String {
        match &self.what {
            Waiting::Step { step, phase, .. } => format!("step {step} {}", phase.as_deref().unwrap_or_default()),
            Waiting::PodDisruptionBudget { node, pod, .. } => format!("budget {node} {pod}"),
            Waiting::PodTermination { node, pod, .. } => format!("termination {node} {pod}"),
            Waiting::EvictionRefused { node, pod, .. } => format!("refused {node} {pod}"),
            Waiting::NodeReadBack { node, problem } => format!("read back {node} {}", problem.code),
            Waiting::AgentContact { node } => format!("agent {node}"),
            Waiting::StepRetry { step, .. } => format!("retry {step}"),
            Waiting::Gate { problem } => format!("gate {}", problem.code),
            Waiting::ClusterFacts { problem } => format!("facts {}", problem.code),
            Waiting::BatchInterval => "interval".to_owned(),
            Waiting::Soak { .. } => "soak".to_owned(),
            Waiting::SoakUnwell { problem } => format!("soak {}", problem.code),
            Waiting::Checks => "checks".to_owned(),
            Waiting::Findings { .. } => "findings".to_owned(),
            Waiting::Continue { reason, .. } => format!("continue {}", reason.word()),
        }
    }
}

/// What is looked at time and again while it is waited for: once it is mended an upgrade goes on by itself, and one that it
/// has paused goes on when a person continues it.
const LOOKED_AT_AGAIN: [Code; 9] = [
    Code::KubeletNewerThanApiServer,
    Code::ClusterNotRead,
    Code::NodeNotReady,
    Code::PlegNotHealthy,
    Code::EtcdNotWell,
    Code::NoOtherApiServer,
    Code::CordonForgotten,
    Code::FewerReadyPods,
    Code::WebhookRefuses,
];

/// The fix of a problem, and how it goes on after that.
fn fix_and_then(problem: &Problem, is_paused: bool, language: Language) -> String {
    let fix = problem.fix(language);
    if !LOOKED_AT_AGAIN.contains(&problem.code) {
        return fix;
    }
    match (is_paused, language) {
        (true, Language::En) => format!("{fix}; then: shiplock continue UPGRADE"),
        (true, Language::Zh) => format!("{fix}；然后执行：shiplock continue UPGRADE"),
        (false, Language::En) => format!("{fix}; it goes on by itself then"),
        (false, Language::Zh) => format!("{fix}；之后会自动继续"),
    }
}

/// Who owns a pod, behind its name. In Chinese with the space that follows a name, but not a full-width bracket.
fn owner_text(owner: Option<&str>, language: Language) -> String {
    match (owner, language) {
        (Some(owner), Language::Zh) => format!("（{owner}）"),
        (None, Language::Zh) => " ".to_owned(),
        (Some(owner), Language::En) => format!(" ({owner})"),
        (None, Language::En) => String::new(),
    }
}

/// The words for what an executor says of its progress. A word of a newer agent is shown as it is.
pub fn phase_name(phase: &str, language: Language) -> &str {
    match phase {
        "examining" => language.pick("examining", "检视"),
        "preparing" => language.pick("preparing", "准备"),
        "downloading" => language.pick("downloading", "下载"),
        "importing" => language.pick("importing images", "导入镜像"),
        "configuring" => language.pick("writing the configuration", "写入配置"),
        "applying" => language.pick("kubeadm upgrade", "kubeadm upgrade"),
        "moving_leader" => language.pick("moving etcd's leadership", "转移 etcd 领导者"),
        "swapping" => language.pick("swapping", "切换"),
        "saving" => language.pick("saving", "保存快照"),
        "checking" => language.pick("checking the copy", "校验副本"),
        "sending" => language.pick("sending", "发送"),
        "uploading" => language.pick("uploading", "上传"),
        "waiting_for_api_servers" => language.pick("waiting until all API servers are seen", "等待识别全部 API server"),
        "upgrading_addons" => language.pick("upgrading", "升级"),
        "restarting" => language.pick("restarting", "重启"),
        "verifying" => language.pick("verifying", "验证"),
        "rolling_back" => language.pick("rolling back", "回滚"),
        other => other,
    }
}

/// The words for a kind of step.
pub fn step_name(kind: &str, language: Language) -> &str {
    match kind {
        "capture_baseline" => language.pick("recording the baseline", "记录基线"),
        "prefetch" => language.pick("fetching artefacts", "预取制品"),
        "cordon" => language.pick("cordoning", "设为不可调度"),
        "drain" => language.pick("draining", "排空"),
        "upgrade_container_runtime" => language.pick("upgrading the container runtime", "升级容器运行时"),
        "upgrade_kubelet" => language.pick("upgrading the kubelet", "升级 kubelet"),
        "backup_etcd" => language.pick("saving etcd", "备份 etcd"),
        "upgrade_control_plane" => language.pick("swapping the control plane", "切换控制面"),
        "restore_configuration" => language.pick("putting the configuration back", "恢复集群配置"),
        "upload_configuration" => language.pick("uploading the configuration", "上传集群配置"),
        "upgrade_addons" => language.pick("upgrading the add-ons", "升级附加组件"),
        "verify_addons" => language.pick("reading back the add-ons", "回读附加组件"),
        "restore_control_plane" => language.pick("putting the control plane back", "恢复控制面"),
        "verify_node" => language.pick("reading back", "回读验证"),
        "uncordon" => language.pick("uncordoning", "恢复调度"),
        "verify_cluster" => language.pick("verifying the cluster", "验证集群"),
        "collect_logs" => language.pick("collecting logs", "收集日志"),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_goes_on_by_itself_and_a_pause_by_it_when_a_person_continues() {
        for code in LOOKED_AT_AGAIN {
            let problem = Problem::new(code).with("node", "w-2");
            let gate = WaitingOn::new(Waiting::Gate { problem: problem.clone() }, Timestamp::UNIX_EPOCH);
            let reason = PauseReason::Gate { problem };
            let pause = WaitingOn::new(Waiting::Continue { reason, is_over: false }, Timestamp::UNIX_EPOCH);
            for (language, by_itself, continued) in [
                (Language::En, "goes on by itself", "then: shiplock continue UPGRADE"),
                (Language::Zh, "自动继续", "然后执行：shiplock continue UPGRADE"),
            ] {
                let (gate, pause) = (gate.fix(language).unwrap(), pause.fix(language).unwrap());
                assert!(gate.contains(by_itself) && !gate.contains(continued), "{gate}");
                assert!(pause.contains(continued) && !pause.contains(by_itself), "{pause}");
            }
        }
    }

    #[test]
    fn a_wait_is_said_in_the_readers_words_and_number() {
        let step = |phase: Option<&str>| Waiting::Step {
            step: StepNumber(1),
            kind: "prefetch".to_owned(),
            subject: "node w-2".to_owned(),
            phase: phase.map(str::to_owned),
        };
        for (what, english, chinese) in [
            (step(None), "node w-2: fetching artefacts", "节点 w-2：预取制品"),
            (step(Some("downloading")), "node w-2: fetching artefacts (downloading)", "节点 w-2：预取制品（下载）"),
            (step(Some("new")), "node w-2: fetching artefacts (new)", "节点 w-2：预取制品（new）"),
            (
                Waiting::Findings { blocking: 1, acceptable: 0 },
                "1 finding must be handled first",
                "有 1 项检查结果必须先处理",
            ),
            (
                Waiting::Findings { blocking: 2, acceptable: 1 },
                "2 findings must be handled first",
                "有 2 项检查结果必须先处理",
            ),
        ] {
            let wait = WaitingOn::new(what, Timestamp::UNIX_EPOCH);
            assert_eq!(wait.sentence(Language::En), english);
            assert_eq!(wait.sentence(Language::Zh), chinese);
        }
    }
}
