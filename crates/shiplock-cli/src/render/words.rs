//! The words for states, stages and choices in both languages; the same ones in every text.

use serde::Serialize;
use shiplock_core::check::CheckResult;
use shiplock_core::id::NodeName;
use shiplock_core::language::Language;
use shiplock_core::plan::stage_name;
use shiplock_core::upgrade::{NodeProgress, PauseReason, State};

use super::Tone;

/// The tone of a state.
pub fn state_tone(state: &State) -> Tone {
    match state {
        State::Succeeded => Tone::Good,
        State::Blocked => Tone::Bad,
        State::Paused { because, .. } | State::Pausing { because, .. } if because.problem().is_some() => Tone::Bad,
        State::Paused { .. } | State::Pausing { .. } | State::Cancelled | State::Expired => Tone::Notice,
        State::Cancelling | State::Expiring => Tone::Notice,
        State::Planned | State::Checking | State::Ready { .. } | State::Running => Tone::Busy,
    }
}

/// The word for how a node stands.
pub fn progress(progress: NodeProgress, language: Language) -> &'static str {
    match progress {
        NodeProgress::Waiting => language.pick("waiting", "未开始"),
        NodeProgress::InWork => language.pick("in work", "进行中"),
        NodeProgress::Failed => language.pick("failed", "失败"),
        NodeProgress::Skipped => language.pick("skipped", "已跳过"),
        NodeProgress::Abandoned => language.pick("abandoned", "已放弃"),
        NodeProgress::Done => language.pick("done", "完成"),
    }
}

/// The tone of how a node stands.
pub fn progress_tone(progress: NodeProgress) -> Tone {
    match progress {
        NodeProgress::Waiting => Tone::Faint,
        NodeProgress::InWork => Tone::Busy,
        NodeProgress::Failed => Tone::Bad,
        NodeProgress::Skipped | NodeProgress::Abandoned => Tone::Notice,
        NodeProgress::Done => Tone::Good,
    }
}

/// The name of a stage by its kind and pool.
pub fn stage(kind: &str, pool: Option<&str>, language: Language) -> String {
    let name = stage_name(kind, language);
    pool.map_or_else(|| name.to_owned(), |pool| format!("{name} {pool}"))
}

/// The word for the result of a check.
pub fn result(result: CheckResult, language: Language) -> &'static str {
    match result {
        CheckResult::Pass => language.pick("pass", "通过"),
        CheckResult::Warn => language.pick("warn", "警告"),
        CheckResult::Fail => language.pick("FAIL", "失败"),
        CheckResult::Unknown => language.pick("UNKNOWN", "未知"),
    }
}

/// Why an upgrade pauses, in a few words.
pub fn pause_reason(reason: &PauseReason, language: Language) -> &'static str {
    match reason {
        PauseReason::Operator => language.pick("a person asked for it", "操作者要求"),
        PauseReason::PausePolicy => language.pick("the plan's pause policy", "计划的暂停策略"),
        PauseReason::StepFailed { .. } => language.pick("a step failed", "步骤失败"),
        PauseReason::Gate { .. } => language.pick("a gate held too long", "门禁未通过"),
        PauseReason::Window => language.pick("the maintenance window closed", "维护窗口已关闭"),
        PauseReason::ContactLost { .. } => language.pick("contact to an agent is lost", "与 agent 失去联系"),
        PauseReason::Interference { .. } => language.pick("somebody else changed something", "他人做了更改"),
        PauseReason::InvariantBroken { .. } => {
            language.pick("a rule that must always hold does not", "必须成立的规则被破坏")
        }
    }
}

/// `1 node`, `5 nodes`; `5 个节点`.
pub fn nodes(count: usize, language: Language) -> String {
    match (language, count) {
        (Language::En, 1) => "1 node".to_owned(),
        (Language::En, _) => format!("{count} nodes"),
        (Language::Zh, _) => format!("{count} 个节点"),
    }
}

/// `1 pod`, `5 pods`, evicted; English, where the number changes the word.
pub fn pods_evicted(count: u32) -> String {
    if count == 1 { "1 pod evicted".to_owned() } else { format!("{count} pods evicted") }
}

/// How many names of a list are shown.
const NAMES_MAX: usize = 12;

/// Names in one line; of many the first, and how many more.
pub fn names<'a>(names: impl IntoIterator<Item = &'a NodeName>, language: Language) -> String {
    let all: Vec<&str> = names.into_iter().map(NodeName::as_str).collect();
    let separator = language.pick(", ", "、");
    let shown = all[..all.len().min(NAMES_MAX)].join(separator);
    match all.len().checked_sub(NAMES_MAX) {
        None | Some(0) => shown,
        Some(more) if language == Language::Zh => format!("{shown} 等另外 {more} 个"),
        Some(more) => format!("{shown} and {more} more"),
    }
}

/// The word of a choice as the command line has it: `after-first-batch`.
pub fn choice<T: Serialize>(choice: &T) -> String {
    match serde_json::to_value(choice) {
        Ok(serde_json::Value::String(word)) => word.replace('_', "-"),
        _ => "?".to_owned(),
    }
}
