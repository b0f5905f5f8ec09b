//! The page of a check: `docs/checks/ID.md`, and what `explain` shows. English, then Chinese, parted by a line `---`.

use std::fmt::Write as _;

use shiplock_core::language::Language;

use crate::catalogue::{self, Category, Check, Scope, Severity};

/// The page of a check in both languages.
pub fn page(check: &Check) -> String {
    format!("{}\n---\n\n{}", part(check, Language::En), part(check, Language::Zh))
}

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
