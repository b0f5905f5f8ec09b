//! The page of a check: `docs/checks/ID.md`, and what `explain` shows. English, then Chinese, parted by a line `---`.

use std::fmt::Write as _;

use shiplock_core::language::Language;

use crate::catalogue::{self, Category, Check, Scope, Severity};

/// The page of a check in both languages.
pub fn page(check: &Check) -> String {
    format!("{}\n---\n\n{}", part(check, Language::En), part(check, Language::Zh))
}

/// The checks that only the start of a plan asks, by the titles of their pages, which are written by hand.
pub(super) const OF_PLANS: &[(&str, [&str; 2])] = &[
    ("ADD-008", ["kube-proxy and CoreDNS are as kubeadm made them", "kube-proxy 与 CoreDNS 与 kubeadm 生成的一致"]),
    ("AGT-001", ["the agent of each node is there and can do its steps", "每个节点的 agent 在线且能执行其步骤"]),
    ("AGT-002", ["there is room for what is fetched", "有足够空间存放预取的内容"]),
    ("CLU-001", ["the cluster is the one that was planned for", "集群就是计划所针对的那一个"]),
    ("CP-015", ["a way back hides no objects", "回退不会隐藏对象"]),
    ("NOD-001", ["each node is the very machine that was planned for", "每个节点都是计划所针对的那台机器"]),
    ("NOD-002", ["what the plan decided about drains still holds", "计划对排空的决定仍然成立"]),
    ("VER-014", ["no kubelet becomes newer than an API server", "任何 kubelet 都不会比 API server 更新"]),
    ("WHK-016", ["the API takes the static pods of the masters", "API 接受控制面节点的静态 Pod"]),
];

/// The list of all checks in both languages: what each is about, and which are not built, with the reason and what
/// stands in.
pub fn index() -> String {
    format!("{}\n---\n\n{}", list(Language::En), list(Language::Zh))
}

fn list(language: Language) -> String {
    let say = |texts: [&'static str; 2]| language.pick(texts[0], texts[1]);
    let (missing, built): (Vec<&Check>, Vec<&Check>) =
        catalogue::all().iter().partition(|check| check.not_built.is_some());
    let mut text = format!("# {}\n\n", say(["Checks", "检查项"]));
    let count = [built.len() + missing.len(), built.len(), missing.len()];
    let _ = match language {
        Language::En => {
            writeln!(text, "The catalogue has {} checks: {} are built, {} are not.", count[0], count[1], count[2])
        }
        Language::Zh => writeln!(text, "目录共 {} 项检查：已实现 {} 项，未实现 {} 项。", count[0], count[1], count[2]),
    };
    for category in Category::ALL {
        let _ = write!(text, "\n## {}\n\n", say(category.title()));
        for check in built.iter().filter(|check| check.category() == category) {
            let _ = writeln!(text, "- [{0}]({0}.md) {1} ({2})", check.id, say(check.title), say(scope(check.scope)));
        }
    }
    let _ = write!(text, "\n## {}\n\n", say(["Asked of a plan alone, at its start", "仅在开始时针对计划的检查"]));
    for (id, title) in OF_PLANS {
        let _ = writeln!(text, "- [{id}]({id}.md) {}", say(*title));
    }
    let _ = write!(text, "\n## {}\n\n", say(["Not built, and what stands in", "未实现的检查与替代方式"]));
    for check in missing {
        let reason = say(check.not_built.unwrap_or_default());
        let _ = writeln!(text, "- [{0}]({0}.md) {1}: {reason}", check.id, say(check.title));
    }
    text
}

fn part(check: &Check, language: Language) -> String {
    let say = |texts: [&'static str; 2]| language.pick(texts[0], texts[1]);
    let mut text = format!("# {}: {}\n\n{}\n", check.id, say(check.title), say(check.why));
    let _ = write!(text, "\n{}: {}\n", say(["Severity", "级别"]), say(severity(check.severity)));
    let _ = write!(text, "\n{}: {} ({})\n", say(["Reads", "读取"]), say(check.reads), say(scope(check.scope)));
    if let Some(reason) = check.not_built {
        let _ = write!(text, "\n{}: {}\n", say(["Not built", "尚未实现"]), say(reason));
    }
    if !check.sentences.is_empty() {
        let _ = write!(text, "\n## {}\n\n", say(["What it says", "检查结果"]));
        for sentence in check.sentences {
            let _ = writeln!(text, "- {}", of_many(say(sentence.text)));
            if let Some(fix) = sentence.fix {
                let _ = writeln!(text, "  → {}", say(fix));
            }
        }
    }
    let _ = write!(text, "\n## {}\n\n{}\n", say(["What to do", "如何处理"]), say(check.fix));
    let _ = write!(text, "\n## {}\n\n{}\n", say(["Source", "依据"]), check.source);
    text
}

/// A sentence as it is said of many: `{days:day|days}` is `{days} days`.
fn of_many(text: &str) -> String {
    let piece =
        |piece: &str| match piece.rsplit_once(':').and_then(|(name, words)| Some((name, words.split_once('|')?.1))) {
            Some((name, many)) => format!("{name}}} {}", many.trim_end_matches('}')),
            None => piece.to_owned(),
        };
    text.split_inclusive('}').map(piece).collect()
}

fn severity(severity: Severity) -> [&'static str; 2] {
    match severity {
        Severity::Advice => [
            "advice; what it finds never stops an upgrade; what could not be seen leaves the check undecided (exit code 4)",
            "建议；其发现不会阻止升级；无法得知的内容会使预检无法判定（退出码 4）",
        ],
        Severity::AdviceUnlessStrict => [
            "advice; under the policy `strict` what it finds stops an upgrade; what could not be seen leaves the check undecided (exit code 4)",
            "建议；在 `strict` 策略下其发现会阻止升级；无法得知的内容会使预检无法判定（退出码 4）",
        ],
        Severity::Blocking => ["it can stop an upgrade", "可能阻止升级"],
    }
}

fn scope(scope: Scope) -> [&'static str; 2] {
    match scope {
        Scope::Any => ["files or the cluster's API", "文件或集群 API"],
        Scope::File => ["files", "文件"],
        Scope::AuditLog => ["an audit log", "审计日志"],
        Scope::Cluster => ["the cluster's API", "集群 API"],
        Scope::ControlPlane => ["each API server", "每个 API server"],
        Scope::Node => ["the agent on each node", "每个节点上的 agent"],
        Scope::Plan => ["the plan", "升级计划"],
        Scope::Client => ["this machine", "本机"],
    }
}
