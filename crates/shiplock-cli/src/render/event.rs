//! Events as sentences of one line.

use shiplock_core::check::CheckResult;
use shiplock_core::id::StepNumber;
use shiplock_core::language::Language;
use shiplock_core::plan::Plan;
use shiplock_core::problem::Problem;
use shiplock_core::step::{ControlPlaneMethod, Target};
use shiplock_core::upgrade::waiting::step_name;
use shiplock_core::upgrade::{Event, EventRecord, PauseReason, StepOutcome};

use super::{Style, Tone, table, words};

/// The line of an event: when, and what. The plan names the steps; without it they have numbers only.
pub fn line(record: &EventRecord, plan: Option<&Plan>, style: &Style) -> String {
    let text = table::one_line(&sentence(&record.event, plan, style.language));
    let text = match tone(&record.event) {
        Some(tone) => style.tone(tone, &text),
        None => text,
    };
    format!("{}  {text}", style.tone(Tone::Faint, &style.clock(record.at)))
}

/// What an event is to the reader.
pub fn tone(event: &Event) -> Option<Tone> {
    match event {
        Event::Succeeded | Event::BatchFinished { .. } | Event::StageFinished { .. } => Some(Tone::Good),
        Event::StepFailed { .. } | Event::InterferenceNoticed { .. } => Some(Tone::Bad),
        Event::PauseRequested { reason, .. } if reason.problem().is_some() => Some(Tone::Bad),
        Event::CheckFinished { report } if report.blocking().next().is_some() => Some(Tone::Bad),
        Event::NodeSkipped { .. }
        | Event::PauseRequested { .. }
        | Event::Paused
        | Event::CancelRequested { .. }
        | Event::Cancelled
        | Event::ExpiryNoticed
        | Event::ExpiryBegan
        | Event::Expired => Some(Tone::Notice),
        Event::WaitingBegan { .. } | Event::LeaseTaken { .. } => Some(Tone::Faint),
        _ => None,
    }
}

/// What happened, in one sentence.
pub fn sentence(event: &Event, plan: Option<&Plan>, language: Language) -> String {
    let zh = language == Language::Zh;
    let teller = Teller { plan, language };
    match event {
        Event::Planned { plan, by } => {
            let nodes = words::nodes(plan.nodes_in_the_end().len(), language);
            let (id, to) = (&plan.id, plan.to);
            if zh {
                format!("{by} 接受了计划 {id}：{nodes}升级到 {to}")
            } else {
                format!("plan {id} accepted by {by}: {nodes} to {to}")
            }
        }
        Event::LeaseTaken { epoch, holder } => {
            if zh {
                format!("服务端 {holder} 接管（epoch {epoch}）")
            } else {
                format!("server {holder} drives it (epoch {epoch})")
            }
        }
        Event::CheckStarted => language.pick("pre-check began", "前置检查开始").to_owned(),
        Event::CheckFinished { report } => {
            let (all, blocking) = (report.findings.len(), report.blocking().count());
            let warned = report.findings.iter().filter(|finding| finding.result == CheckResult::Warn).count();
            match (blocking, zh) {
                (0, true) if warned > 0 => format!("前置检查通过，共 {all} 项，其中 {warned} 项警告"),
                (0, false) if warned > 0 => format!("pre-check passed: {all} of {all}, {warned} with a warning"),
                (0, true) => format!("前置检查通过，共 {all} 项"),
                (0, false) => format!("pre-check passed: {all} of {all}"),
                (_, true) => format!("前置检查未通过：{all} 项中有 {blocking} 项必须处理"),
                (_, false) => format!("pre-check stops the start: {blocking} of {all} must be handled"),
            }
        }
        Event::Started => language.pick("the work began", "开始升级").to_owned(),
        Event::StageStarted { stage } => {
            let name = teller.stage(*stage);
            if zh { format!("阶段“{name}”开始") } else { format!("{name} began") }
        }
        Event::StageFinished { stage } => {
            let name = teller.stage(*stage);
            if zh { format!("阶段“{name}”完成") } else { format!("{name} done") }
        }
        Event::BatchStarted { stage, batch, nodes, .. } => {
            let (name, nodes) = (teller.stage(*stage), words::names(nodes, language));
            if zh {
                format!("{name} 批次 {batch} 开始：{nodes}")
            } else {
                format!("{name}: batch {batch} began: {nodes}")
            }
        }
        Event::BatchFinished { stage, batch } => {
            let name = teller.stage(*stage);
            if zh { format!("{name} 批次 {batch} 完成") } else { format!("{name}: batch {batch} done") }
        }
        Event::StepStarted { step, attempt } => {
            let attempt = teller.attempt(*attempt);
            match teller.subject(*step) {
                Some((subject, kind)) if zh => format!("{subject}：开始{}{attempt}", step_name(kind, language)),
                _ if zh => format!("步骤 {step} 开始{attempt}"),
                _ => format!("{} began{attempt}", teller.step(*step)),
            }
        }
        Event::StepSucceeded { step, outcome, .. } => teller.outcome(*step, outcome),
        Event::StepFailed { step, attempt, problem, retryable } => {
            let (step, attempt) = (teller.step(*step), teller.attempt(*attempt));
            let why = reason(problem, language);
            match (zh, retryable) {
                (true, true) => format!("{step}失败{attempt}，将重试：{why}"),
                (true, false) => format!("{step}失败{attempt}：{why}"),
                (false, true) => format!("{step} failed{attempt}, will be tried again: {why}"),
                (false, false) => format!("{step} failed{attempt}: {why}"),
            }
        }
        Event::NodeSkipped { node, problem } => {
            let why = reason(problem, language);
            if zh { format!("{node}：已跳过：{why}") } else { format!("{node}: skipped: {why}") }
        }
        Event::WaitingBegan { on } => {
            let what = on.sentence(language);
            match (on.fix(language), zh) {
                (Some(fix), true) => format!("等待：{what}。处理：{fix}"),
                (Some(fix), false) => format!("waiting: {what}. Fix: {fix}"),
                (None, true) => format!("等待：{what}"),
                (None, false) => format!("waiting: {what}"),
            }
        }
        Event::InterferenceNoticed { problem } => {
            let why = reason(problem, language);
            if zh { format!("发现干预：{why}") } else { format!("interference: {why}") }
        }
        Event::PauseRequested { reason: why, by } => {
            let short = words::pause_reason(why, language);
            let detail = why.problem().map(|problem| reason(problem, language));
            match (zh, detail) {
                (true, Some(detail)) => format!("即将暂停（{short}）：{detail}"),
                (true, None) if *why == PauseReason::Operator => format!("{by} 要求暂停"),
                (true, None) => format!("即将暂停：{short}"),
                (false, Some(detail)) => format!("pausing, since {short}: {detail}"),
                (false, None) if *why == PauseReason::Operator => format!("{by} asked to pause"),
                (false, None) => format!("pausing: {short}"),
            }
        }
        Event::Paused => language.pick("paused: nothing is in work", "已暂停：没有进行中的操作").to_owned(),
        Event::Continued { by } => {
            if zh {
                format!("{by} 继续升级")
            } else {
                format!("continued by {by}")
            }
        }
        Event::MaxParallelChanged { max_parallel, by } => {
            if zh {
                format!("{by} 将最大并行数改为 {max_parallel}，自下一批次生效")
            } else {
                format!("max parallel set to {max_parallel} by {by}, from the next batch")
            }
        }
        Event::CancelRequested { by, abandon } => {
            let abandoned = words::names(abandon, language);
            match (zh, abandon.is_empty()) {
                (true, true) => format!("{by} 取消升级"),
                (true, false) => format!("{by} 取消升级，并放弃节点 {abandoned}"),
                (false, true) => format!("cancelled by {by}"),
                (false, false) => format!("cancelled by {by}, abandoned: {abandoned}"),
            }
        }
        Event::Cancelled => language.pick("ended: cancelled", "已结束：已取消").to_owned(),
        Event::ExpiryNoticed => language
            .pick(
                "the deadline of the pause has passed; it is looked at again before it closes",
                "暂停期限已过；关闭前会再次确认",
            )
            .to_owned(),
        Event::ExpiryBegan => language.pick("paused for too long: it is being closed", "暂停过久：正在关闭").to_owned(),
        Event::Expired => language.pick("ended: expired", "已结束：已过期").to_owned(),
        Event::Succeeded => {
            language.pick("ended: succeeded, everything was read back", "已结束：成功，所有版本均已回读确认").to_owned()
        }
    }
}

/// A problem with its innermost cause: the sentence says what, the cause what another program said.
fn reason(problem: &Problem, language: Language) -> String {
    let sentence = problem.sentence(language);
    match problem.causes.last() {
        // Of a program's output the last line tells most.
        Some(cause) => match cause.lines().rev().find(|line| !line.trim().is_empty()) {
            Some(line) => format!("{} {sentence}: {}", problem.code, table::cut(line.trim(), 160)),
            None => format!("{} {sentence}", problem.code),
        },
        None => format!("{} {sentence}", problem.code),
    }
}

struct Teller<'a> {
    plan: Option<&'a Plan>,
    language: Language,
}

impl Teller<'_> {
    fn zh(&self) -> bool {
        self.language == Language::Zh
    }

    fn stage(&self, index: usize) -> String {
        match self.plan.and_then(|plan| plan.stages.get(index)).map(|stage| &stage.kind) {
            Some(kind) => words::stage(kind.word(), kind.pool().map(|pool| pool.as_str()), self.language),
            None => format!("{} {}", self.language.pick("stage", "阶段"), index + 1),
        }
    }

    /// `w-1`, or the cluster.
    fn subject(&self, number: StepNumber) -> Option<(String, &'static str)> {
        let step = self.plan?.step(number)?;
        let subject = match &step.target {
            Target::Node(node) => node.to_string(),
            Target::Cluster => self.language.pick("cluster", "集群").to_owned(),
        };
        Some((subject, step.action.kind()))
    }

    /// `w-1: draining`.
    fn step(&self, number: StepNumber) -> String {
        match self.subject(number) {
            Some((subject, kind)) => self.about(&subject, step_name(kind, self.language)),
            None if self.zh() => format!("步骤 {number} "),
            None => format!("step {number}"),
        }
    }

    fn about(&self, subject: &str, text: &str) -> String {
        if self.zh() { format!("{subject}：{text}") } else { format!("{subject}: {text}") }
    }

    /// A first attempt needs no word.
    fn attempt(&self, attempt: u32) -> String {
        match (attempt, self.language) {
            (0 | 1, _) => String::new(),
            (_, Language::En) => format!(" (attempt {attempt})"),
            (_, Language::Zh) => format!("（第 {attempt} 次）"),
        }
    }

    fn outcome(&self, number: StepNumber, outcome: &StepOutcome) -> String {
        let zh = self.zh();
        let subject = self.subject(number).map_or_else(
            || if zh { format!("步骤 {number}") } else { format!("step {number}") },
            |(subject, _)| subject,
        );
        let text = match outcome {
            StepOutcome::Done => {
                let step = self.step(number);
                let gap = if step.ends_with(|last: char| last.is_ascii()) { " " } else { "" };
                return if zh { format!("{step}{gap}完成") } else { format!("{step} done") };
            }
            StepOutcome::AlreadyDone => {
                let step = self.step(number);
                return if zh { format!("{step}：无需操作") } else { format!("{step}: nothing to do") };
            }
            StepOutcome::Baseline { workloads } => {
                let count = workloads.len();
                if zh {
                    format!("已记录 {count} 个工作负载的基线")
                } else {
                    format!("baseline of {count} workloads recorded")
                }
            }
            StepOutcome::Cordoned { ours: true } => self.language.pick("cordoned", "已设为不可调度").to_owned(),
            StepOutcome::Cordoned { ours: false } => self
                .language
                .pick("was cordoned by somebody else, and stays so", "此前已被他人设为不可调度，将保持不变")
                .to_owned(),
            StepOutcome::Drained { evicted, relanded, arrived, .. } => {
                let mut text = if zh {
                    format!("已排空，驱逐 {evicted} 个 Pod")
                } else {
                    format!("drained, {}", words::pods_evicted(*evicted))
                };
                let mut tell = |why: &str, pods: &[String]| {
                    if !pods.is_empty() {
                        text = format!("{text}{why}{}", pods.join(self.language.pick(", ", "、")));
                    }
                };
                tell(
                    self.language.pick(
                        "; came back, since they tolerate a cordon (take that toleration away to keep them off): ",
                        "；因容忍不可调度而又回来（去掉该容忍即可避免）：",
                    ),
                    relanded,
                );
                tell(
                    self.language.pick(
                        "; came though the node takes no new pods, and stay (somebody binds them to it by name): ",
                        "；尽管节点不可调度仍被放上来并保留（有人按名称绑定到该节点）：",
                    ),
                    arrived,
                );
                text
            }
            StepOutcome::Verified { components } => {
                let components = components.join(self.language.pick(", ", "、"));
                if zh { format!("回读确认：{components}") } else { format!("read back: {components}") }
            }
            StepOutcome::BackedUp { backup, revision, keys, size_bytes, .. } => {
                let mebibytes = size_bytes.div_ceil(1 << 20);
                if zh {
                    format!("etcd 已备份为 {backup}：修订版本 {revision}，{keys} 个键，{mebibytes} MiB")
                } else {
                    format!("etcd saved as {backup}: revision {revision}, {keys} keys, {mebibytes} MiB")
                }
            }
            StepOutcome::Swapped { interrupted_milliseconds, components, .. } => {
                let seconds =
                    format!("{}.{}", interrupted_milliseconds / 1_000, interrupted_milliseconds % 1_000 / 100);
                let components = components.join(self.language.pick(", ", "、"));
                // kubeadm restarts one component after the other and says when of none of them.
                let by_kubeadm =
                    self.plan.is_some_and(|plan| plan.options.control_plane_method == ControlPlaneMethod::Kubeadm);
                match (zh, by_kubeadm) {
                    (true, false) => format!("已切换，{seconds} 秒后全部回读确认：{components}"),
                    (false, false) => format!("swapped, all read back after {seconds} s: {components}"),
                    (true, true) => format!("已由 kubeadm 升级，kubelet 重启 {seconds} 秒后全部回读确认：{components}"),
                    (false, true) => {
                        format!(
                            "changed by kubeadm, all read back {seconds} s after its kubelet's restart: {components}"
                        )
                    }
                }
            }
            StepOutcome::Compared { worse, .. } if worse.is_empty() => {
                self.language.pick("every workload is as well as before", "所有工作负载与升级前一样健康").to_owned()
            }
            StepOutcome::Compared { worse, .. } => {
                let worse = worse.join(self.language.pick(", ", "、"));
                if zh {
                    format!("就绪 Pod 少于升级前：{worse}")
                } else {
                    format!("fewer ready pods than before: {worse}")
                }
            }
            StepOutcome::Logs { text } => {
                let lines = text.lines().count();
                let last = text.lines().last().unwrap_or_default();
                if zh {
                    format!("已收集日志 {lines} 行，最后一行：{last}")
                } else {
                    format!("{lines} lines of logs collected, the last one: {last}")
                }
            }
            StepOutcome::DrainSkipped { blockers } => {
                let blockers = blockers.join(self.language.pick(", ", "、"));
                if zh {
                    format!("未能按时排空，已归还：{blockers}")
                } else {
                    format!("not drained in time, given back: {blockers}")
                }
            }
        };
        self.about(&subject, &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;

    #[test]
    fn every_kind_of_event_is_one_line_in_both_languages() {
        let plan = sample::plan();
        for (name, language) in [("en", Language::En), ("zh", Language::Zh)] {
            let style = sample::style(language);
            let lines: Vec<String> = sample::events().iter().map(|record| line(record, Some(&plan), &style)).collect();
            assert!(lines.iter().all(|line| !line.contains('\n')), "{lines:#?}");
            insta::assert_snapshot!(format!("events_{name}"), lines.join("\n"));
        }
    }

    #[test]
    fn without_the_plan_steps_and_stages_have_their_numbers() {
        let event = Event::StepStarted { step: StepNumber(7), attempt: 2 };
        assert_eq!(sentence(&event, None, Language::En), "step 7 began (attempt 2)");
        assert_eq!(sentence(&event, None, Language::Zh), "步骤 7 开始（第 2 次）");
        assert_eq!(sentence(&Event::StageStarted { stage: 1 }, None, Language::En), "stage 2 began");
    }

    #[test]
    fn a_program_cannot_steer_the_terminal_through_an_event() {
        let mut record = sample::events().remove(0);
        let problem = Problem::new(shiplock_core::problem::Code::Internal).with("what", "x\u{1b}[2J\ny");
        record.event = Event::NodeSkipped { node: "w-1".into(), problem };
        let line = line(&record, None, &sample::style(Language::En));
        assert!(!line.contains('\u{1b}') && !line.contains('\n'), "{line:?}");
    }
}
