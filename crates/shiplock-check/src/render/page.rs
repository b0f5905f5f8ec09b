//! The page of a check: `docs/checks/ID.md`, and what `explain` shows. English, then Chinese, parted by a line `---`.

use std::fmt::Write as _;

use shiplock_core::language::Language;

use crate::catalogue::{Check, Scope, Severity};

/// The page of a check in both languages.
pub fn page(check: &Check) -> String {
    format!("{}\n---\n\n{}", part(check, Language::En), part(check, Language::Zh))
}

fn part(check: &Check, language: Language) -> String {
    let say = |texts: [&'static str; 2]| language.pick(texts[0], texts[1]);
    let mut text = format!("# {}: {}\n\n{}\n", check.id, say(check.title), say(check.why));
    let _ = write!(text, "\n{}: {}\n", say(["Severity", "级别"]), say(severity(check.severity)));
    let _ = write!(text, "\n{}: {} ({})\n", say(["Reads", "读取"]), check.reads, say(scope(check.scope)));
    if let Some(reason) = check.not_built {
        let _ = write!(text, "\n{}: {}\n", say(["Not built", "尚未实现"]), say(reason));
    }
    if !check.sentences.is_empty() {
        let _ = write!(text, "\n## {}\n\n", say(["What it says", "检查结果"]));
        for sentence in check.sentences {
            let _ = writeln!(text, "- {}", say(sentence.text));
            if let Some(fix) = sentence.fix {
                let _ = writeln!(text, "  → {}", say(fix));
            }
        }
    }
    let _ = write!(text, "\n## {}\n\n{}\n", say(["What to do", "如何处理"]), say(check.fix));
    let _ = write!(text, "\n## {}\n\n{}\n", say(["Source", "依据"]), check.source);
    text
}

fn severity(severity: Severity) -> [&'static str; 2] {
    match severity {
        Severity::Advice => ["advice; it never stops an upgrade", "建议；不会阻止升级"],
        Severity::AdviceUnlessStrict => {
            ["advice; under the policy `strict` it stops an upgrade", "建议；在 `strict` 策略下会阻止升级"]
        }
        Severity::Blocking => ["it can stop an upgrade", "可能阻止升级"],
    }
}

fn scope(scope: Scope) -> [&'static str; 2] {
    match scope {
        Scope::Any => ["files or the cluster's API", "文件或集群 API"],
        Scope::File => ["files", "文件"],
        Scope::Cluster => ["the cluster's API", "集群 API"],
        Scope::ControlPlane => ["each API server", "每个 API server"],
        Scope::Node => ["the agent on each node", "每个节点上的 agent"],
        Scope::Plan => ["the plan", "升级计划"],
        Scope::Client => ["this machine", "本机"],
    }
}
