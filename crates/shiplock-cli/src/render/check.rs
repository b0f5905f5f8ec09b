//! The report of `check` for people: by category, two lines for each thing that is wrong, one line when all is well.

use jiff::Timestamp;
use serde::Serialize;
use shiplock_api::check::{CheckFinding, CheckReportView};
use shiplock_check::catalogue::Category;
use shiplock_check::render::{Group, expired, left_out, outcome_word, sections, summary, verdict_word};
use shiplock_check::report::{Finding, Outcome, Report, Verdict};

use shiplock_core::id::{Actor, ClusterName, PlanId, UpgradeId};

use super::table::one_line;
use super::{Style, Tone};

/// A group names so many of its objects; the rest is counted.
const OBJECTS_SHOWN_MAX: usize = 5;
/// So many checks are named on one line.
const CHECKS_PER_LINE: usize = 10;
/// A finding shows so many pieces of evidence; the rest is counted.
const EVIDENCE_SHOWN_MAX: usize = 2;

/// The report as JSON has it: with the sentences in English beside codes and parameters.
#[derive(Debug, Serialize)]
pub struct Shown<'a> {
    report: &'a Report,
    sentences: Vec<Sentences>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<Kept<'a>>,
}

/// What the server keeps of a report, and how it compares with another one.
#[derive(Debug, Serialize)]
struct Kept<'a> {
    id: &'a str,
    cluster: &'a ClusterName,
    made_at: Timestamp,
    by: &'a Actor,
    upgrade: Option<&'a UpgradeId>,
    plan: Option<&'a PlanId>,
    compared_with: Option<&'a str>,
    /// Whether the other report had each finding already, in their order; null where there is no other.
    known: Vec<Option<bool>>,
    gone: &'a [CheckFinding],
}

#[derive(Debug, Serialize)]
struct Sentences {
    text: String,
    fix: String,
}

impl<'a> Shown<'a> {
    /// The report with its sentences, in the order of the findings.
    pub fn new(report: &'a Report) -> Self {
        let english = shiplock_core::language::Language::En;
        let sentences = |finding: &Finding| Sentences { text: finding.text(english), fix: finding.fix(english) };
        Self { report, sentences: report.findings.iter().map(sentences).collect(), kept: None }
    }

    /// The report of a view, beside what it was compared with.
    pub fn kept(report: &'a Report, view: &'a CheckReportView) -> Self {
        let kept = Kept {
            id: &view.id,
            cluster: &view.cluster,
            made_at: view.made_at,
            by: &view.by,
            upgrade: view.upgrade.as_ref(),
            plan: view.plan.as_ref(),
            compared_with: view.compared_with.as_deref(),
            known: view.findings.iter().map(|found| found.known).collect(),
            gone: &view.gone,
        };
        Self { kept: Some(kept), ..Self::new(report) }
    }
}

/// The report for a terminal.
pub fn report(report: &Report, style: &Style) -> String {
    let mut text = headline(report, style);
    let found = sections(report, style.language);
    let mut all_well = Vec::new();
    for category in Category::ALL {
        let failed = |id: &&String| report.findings.iter().any(|finding| finding.check == **id);
        let well = report.ran.iter().filter(|id| of(id, category)).filter(|id| !failed(id)).count();
        let section = found.iter().find(|section| section.category == Some(category));
        let [english, chinese] = category.title();
        let title = style.pick(english, chinese);
        let Some(section) = section else {
            if well > 0 {
                all_well.push(format!("{title} {well}"));
            }
            continue;
        };
        text.push_str(&format!("\n{}\n", style.tone(Tone::Strong, title)));
        if well > 0 {
            let line = if style.zh() { format!("{well} 项检查") } else { format!("{well} check{}", plural(well)) };
            text.push_str(&format!("  {}  {line}\n", word(Outcome::Pass, false, style)));
        }
        for one in &section.groups {
            text.push_str(&group(one, style));
        }
    }
    if let Some(unseen) = found.iter().find(|section| section.category.is_none()) {
        text.push_str(&format!("\n{}\n", style.tone(Tone::Strong, unseen.title(style.language))));
        for one in &unseen.groups {
            text.push_str(&group(one, style));
        }
    }
    if !all_well.is_empty() {
        text.push_str(&format!(
            "\n  {}  {}\n",
            word(Outcome::Pass, false, style),
            all_well.join(style.pick(", ", "、"))
        ));
    }
    for line in left_out(report, style.language) {
        text.push_str(&format!("\n{}\n", style.tone(Tone::Faint, &line)));
    }
    let expired: String =
        expired(report, style.language).iter().map(|line| style.tone(Tone::Notice, &one_line(line)) + "\n").collect();
    if !expired.is_empty() {
        text.push_str(&format!("\n{expired}"));
    }
    let verdict = verdict_word(report.verdict, style.language);
    let tone = match report.verdict {
        Verdict::Ready => Tone::Good,
        Verdict::Blocked => Tone::Bad,
        Verdict::Undecided => Tone::Notice,
    };
    text.push_str(&format!("\n{}: {}", style.tone(tone, verdict), summary(report, style.language)));
    if let Some(first) = report.findings.iter().find(|finding| finding.counts()) {
        text.push_str(&format!("        shiplock explain {}", first.check));
    }
    text.push('\n');
    text
}

fn headline(report: &Report, style: &Style) -> String {
    let count = |name: &str| report.read.get(name).copied().unwrap_or_default();
    let mut parts = Vec::new();
    match &report.current {
        Some(current) => parts.push(format!("{} -> {}", one_line(current), report.target)),
        None => parts.push(format!("{} {}", style.pick("for", "目标"), report.target)),
    }
    if count("files") > 0 {
        let (objects, files) = (count("objects"), count("files"));
        parts.push(if style.zh() {
            format!("{files} 个文件中的 {objects} 个对象")
        } else {
            format!("{objects} object{} in {files} file{}", plural(objects), plural(files))
        });
    }
    let checks = report.ran.len();
    parts.push(if style.zh() { format!("{checks} 项检查") } else { format!("{checks} check{}", plural(checks)) });
    parts.join("   ") + "\n"
}

fn group(group: &Group<'_>, style: &Style) -> String {
    let first = group.first();
    let accepted = first.accepted.is_some();
    let mut text = format!("  {}  ", word(first.outcome, accepted, style));
    let said = one_line(&group.text);
    let indent = " ".repeat(9);
    if group.checks.len() == 1 {
        text.push_str(&format!("{}  {said}\n", first.check));
    } else {
        text.push_str(&format!("{said}\n"));
        for ids in group.checks.chunks(CHECKS_PER_LINE) {
            text.push_str(&format!("{indent}{}\n", ids.join(" ")));
        }
    }
    for finding in group.findings.iter().take(OBJECTS_SHOWN_MAX) {
        let shown = object(finding, style);
        if !shown.is_empty() {
            text.push_str(&format!("{indent}{shown}\n"));
        }
    }
    if let Some(more) = group.findings.len().checked_sub(OBJECTS_SHOWN_MAX).filter(|more| *more > 0) {
        text.push_str(&format!("{indent}{}\n", style.tone(Tone::Faint, &and_more(more, style))));
    }
    if let Some(reason) = &first.accepted {
        let reason = one_line(reason);
        text.push_str(&format!("{indent}{} {reason}\n", style.tone(Tone::Faint, style.pick("accepted:", "已接受："))));
    }
    if let Some(fix) = &group.fix {
        let (word, fix) = (style.tone(Tone::Faint, style.pick("fix", "处理")), one_line(fix));
        let explain = style.tone(Tone::Faint, &format!("[explain {}]", first.check));
        text.push_str(&format!("{indent}{word} {fix}  {explain}\n"));
    }
    text
}

/// What a finding is about and what supports it, on one line.
fn object(finding: &Finding, style: &Style) -> String {
    let subject = match (&finding.place, finding.subject.kind.as_str()) {
        (Some(place), "File") => format!("{}:{}", place.file, place.line),
        (_, "Cluster") => String::new(),
        _ => finding.subject.to_string(),
    };
    let mut evidence: Vec<String> =
        finding.evidence.iter().take(EVIDENCE_SHOWN_MAX).map(|evidence| evidence.seen.clone()).collect();
    if let Some(more) = finding.evidence.len().checked_sub(EVIDENCE_SHOWN_MAX).filter(|more| *more > 0) {
        evidence.push(and_more(more, style));
    }
    let line = if evidence.is_empty() { subject } else { format!("{subject}  {}", evidence.join("; ")) };
    one_line(line.trim())
}

fn and_more(count: usize, style: &Style) -> String {
    if style.zh() { format!("以及另外 {count} 个") } else { format!("and {count} more") }
}

/// The word of an outcome, in four columns.
fn word(outcome: Outcome, accepted: bool, style: &Style) -> String {
    let word = outcome_word(outcome, style.language);
    let tone = match outcome {
        _ if accepted => Tone::Faint,
        Outcome::Pass => Tone::Good,
        Outcome::Skipped => Tone::Faint,
        Outcome::Warn | Outcome::Unknown => Tone::Notice,
        Outcome::Fail => Tone::Bad,
    };
    let padding = 5_usize.saturating_sub(unicode_width::UnicodeWidthStr::width(word));
    style.tone(tone, word) + &" ".repeat(padding)
}

fn of(id: &str, category: Category) -> bool {
    Category::of(id) == category
}

fn plural<N: PartialEq + From<u8>>(count: N) -> &'static str {
    if count == N::from(1) { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use jiff::Timestamp;
    use shiplock_check::report::Subject;
    use shiplock_check::run::{Assembly, Selection};
    use shiplock_core::language::Language;

    use super::*;

    fn shown(findings: Vec<Finding>, language: Language) -> String {
        let assembly = Assembly {
            target: "1.37".parse().unwrap(),
            current: Some("v1.36.3".to_owned()),
            selection: &Selection::default(),
            scopes: &BTreeSet::from(["cluster", "control-plane"]),
            collected: None,
            required: &[],
            acceptances: &[],
            baseline: None,
            blocks_on: Outcome::Fail,
            now: Timestamp::UNIX_EPOCH,
            read: BTreeMap::new(),
            of_the_plan: &[],
        };
        report(&assembly.report(findings), &Style::plain(language, Timestamp::UNIX_EPOCH))
    }

    #[test]
    fn a_cluster_that_is_well_takes_few_lines() {
        let text = shown(Vec::new(), Language::En);
        assert!(text.lines().count() <= 8, "{text}");
        assert!(
            text.contains("API lifecycle ") && text.contains("\nready: 0 blocking, 0 warnings, 0 unknown"),
            "{text}"
        );
        let chinese = shown(Vec::new(), Language::Zh);
        assert!(chinese.lines().count() <= 8 && chinese.contains("就绪"), "{chinese}");
        assert!(chinese.contains("项需要本机的 kubectl") && !chinese.contains("client"), "{chinese}");
    }

    #[test]
    fn a_finding_has_its_sentence_its_objects_and_its_fix_under_its_category() {
        let budget = |name: &str| {
            Finding::new("WL-001", "never", Outcome::Fail, Subject::new("PodDisruptionBudget", "shop", name))
                .with("says", "maxUnavailable 0")
                .with("expected", 3)
        };
        let skipped = Finding::skipped("CP-004", "absent:etcd");
        let text = shown(vec![budget("cart"), budget("web"), skipped], Language::En);
        let from = text.find("\nWorkloads\n").unwrap_or_else(|| panic!("{text}"));
        let lines: Vec<&str> = text[from..].lines().skip(1).take(6).collect();
        assert!(lines[1].trim_start().starts_with("ok "), "{text}");
        assert_eq!(lines[2], "  BLOCK  WL-001  maxUnavailable 0: 3 pods may never be evicted");
        assert_eq!(lines[3].trim(), "PodDisruptionBudget shop/cart");
        assert_eq!(lines[4].trim(), "PodDisruptionBudget shop/web");
        assert!(lines[5].contains("fix allow one disruption") && lines[5].ends_with("[explain WL-001]"), "{text}");
        assert!(text.contains("1 finds no etcd here") && text.contains("\nblocked: 2 blocking"), "{text}");
    }

    #[test]
    fn evidence_that_is_not_shown_is_counted() {
        let finding = |count: usize| {
            let finding =
                Finding::new("WL-001", "never", Outcome::Fail, Subject::new("PodDisruptionBudget", "shop", "a"));
            (1..=count).fold(finding, |finding, at| finding.seen("API-005", format!("release r{at}")))
        };
        let text = shown(vec![finding(7)], Language::En);
        assert!(text.contains("shop/a  release r1; release r2; and 5 more\n"), "{text}");
        assert!(shown(vec![finding(7)], Language::Zh).contains("release r2; 以及另外 5 个\n"));
        assert!(shown(vec![finding(2)], Language::En).contains("release r2\n"));
    }

    #[test]
    fn a_category_of_which_nothing_was_seen_is_not_called_well() {
        let why =
            "pods is forbidden: User \"dev\" cannot list resource \"pods\" in API group \"\" at the cluster scope";
        let workloads = shiplock_check::catalogue::all().iter().filter(|check| check.category() == Category::Workload);
        let findings: Vec<Finding> = workloads.clone().map(|check| Finding::unknown(check.id, why)).collect();
        let text = shown(findings, Language::En);
        assert!(!text.contains("Workloads"), "{text}");
        let from = text.find("\nWhat could not be seen\n").unwrap_or_else(|| panic!("{text}"));
        let lines: Vec<&str> = text[from..].lines().skip(2).collect();
        assert_eq!(lines[0].trim(), "?      dev may not list pods");
        assert!(lines[1].trim_start().starts_with("WL-001 WL-002 "), "{text}");
        assert_eq!(text.matches("fix ").count(), 1, "{text}");
    }
}
