//! What a run did not look at, in words.

use std::collections::BTreeMap;

use shiplock_core::language::Language;

use crate::report::Report;

/// A line for the checks that did not run, each reason with their number, and one for the folders that were not gone into;
/// none where there is nothing of the kind.
pub fn left_out(report: &Report, language: Language) -> Vec<String> {
    let skipped = (!report.skipped.is_empty()).then(|| skipped(report, language));
    let count = folders(report);
    let folders = (count > 0).then(|| match language {
        Language::En => {
            let ending = if count == 1 { "" } else { "s" };
            format!("not gone into: {count} folder{ending} named .git or node_modules")
        }
        Language::Zh => format!("未进入 {count} 个名为 .git 或 node_modules 的目录"),
    });
    skipped.into_iter().chain(folders).collect()
}

/// How many folders were not gone into, by their names.
pub(super) fn folders(report: &Report) -> u64 {
    report.read.get("folders_left_out").copied().unwrap_or_default()
}

fn skipped(report: &Report, language: Language) -> String {
    let is_chinese = language == Language::Zh;
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in report.skipped.values() {
        *reasons.entry(reason.as_str()).or_default() += 1;
    }
    let parts: Vec<String> = reasons
        .into_iter()
        .map(|(reason, count)| match (reason.strip_prefix("scope:"), is_chinese) {
            (Some(scope), false) => format!("{count} need{} {}", third(count), scope_en(scope)),
            (Some(scope), true) => format!("{count} 项需要{}", scope_zh(scope)),
            (None, is_chinese) => match (reason.strip_prefix("absent:"), is_chinese) {
                (Some(what), false) => format!("{count} find{} no {what} here", third(count)),
                (Some(what), true) => format!("{count} 项在此找不到 {what}"),
                (None, is_chinese) if reason.starts_with("unseen:") => {
                    let source = reason.trim_start_matches("unseen:");
                    if is_chinese {
                        format!("{count} 项有待 {source}")
                    } else {
                        format!("{count} cannot be told without {source}")
                    }
                }
                (None, false) if reason == "not-collected" => format!("{count} {} not in the snapshot", are(count)),
                (None, true) if reason == "not-collected" => format!("{count} 项不在快照中"),
                (None, false) => format!("{count} {} not built", are(count)),
                (None, true) => format!("{count} 项尚未实现"),
            },
        })
        .collect();
    let parts = parts.join(language.pick(", ", "，"));
    format!("{}{parts}", language.pick("not asked: ", "未检查："))
}

/// A scope, by its word, as something that is needed.
fn scope_en(word: &str) -> &str {
    match word {
        "any" => "files or a cluster",
        "file" => "files",
        "audit-log" => "an audit log",
        "cluster" => "the cluster's API",
        "control-plane" => "each API server",
        "node" | "agent" => "the agent on each node",
        "probe" => "--probe",
        "plan" => "a plan",
        "client" => "kubectl of this machine",
        other => other,
    }
}

/// A scope, by its word.
fn scope_zh(word: &str) -> &str {
    match word {
        "any" => "文件或集群 API",
        "file" => "文件",
        "audit-log" => "审计日志",
        "cluster" => "集群 API",
        "control-plane" => "各 API server",
        "node" | "agent" => "节点上的 agent",
        "probe" => " --probe",
        "plan" => "升级计划",
        "client" => "本机的 kubectl",
        other => other,
    }
}

/// The ending of a verb of which so many are the subject.
fn third(count: usize) -> &'static str {
    if count == 1 { "s" } else { "" }
}

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}
