//! Reports that the server keeps, compared and listed; and findings that may pass.

use jiff::tz::TimeZone;
use shiplock_api::check::{AcceptanceView, CheckReportRow, CheckReportView};
use shiplock_check::report::Report;

use super::Style;
use super::table::{Table, one_line};

/// The report of a view: its fields are those of the check crate's own form.
pub(crate) fn of(view: &CheckReportView) -> Result<Report, serde_json::Error> {
    serde_json::from_value(serde_json::to_value(view)?)
}

/// Which report this is, and what changed since the one before.
pub(crate) fn compared(view: &CheckReportView, style: &Style) -> String {
    let Some(before) = &view.compared_with else {
        let (english, chinese) = ("kept as report", "已保存为报告");
        return format!("{} {}", style.pick(english, chinese), view.id);
    };
    let new = view.findings.iter().filter(|found| found.known == Some(false)).count();
    let still = view.findings.len() - new;
    let gone = view.gone.len();
    let mut text = if style.zh() {
        format!("报告 {}，与 {before} 相比：新增 {new}，仍存在 {still}，已消失 {gone}", view.id)
    } else {
        format!("report {}, since {before}: {new} new, {still} still there, {gone} gone", view.id)
    };
    for found in view.findings.iter().filter(|found| found.known == Some(false)) {
        text.push_str(&line(style.pick("new", "新增"), found, style));
    }
    for found in &view.gone {
        text.push_str(&line(style.pick("gone", "消失"), found, style));
    }
    text
}

fn line(word: &str, found: &shiplock_api::check::CheckFinding, style: &Style) -> String {
    let text = style.pick(&found.text.en, &found.text.zh);
    let subject = [&found.subject.kind, &found.subject.namespace, &found.subject.name];
    let subject: Vec<&str> = subject.iter().map(|part| part.as_str()).filter(|part| !part.is_empty()).collect();
    format!("\n  {word}  {}  {}: {}", found.check, subject.join(" "), one_line(text))
}

/// Reports in rows.
pub(crate) fn list(reports: &[CheckReportRow], style: &Style) -> String {
    if reports.is_empty() {
        let none = style.pick(
            "No report is kept yet; make one with `shiplock check CLUSTER`.",
            "尚无报告；请用 `shiplock check CLUSTER` 生成。",
        );
        return format!("{none}\n");
    }
    let titles = [
        style.pick("REPORT", "报告"),
        style.pick("MADE", "时间"),
        style.pick("BY", "发起人"),
        style.pick("TARGET", "目标"),
        style.pick("VERDICT", "结论"),
        style.pick("FAIL", "失败"),
        style.pick("UNKNOWN", "未知"),
        style.pick("WARN", "警告"),
        style.pick("ACCEPTED", "已接受"),
    ];
    let mut table = Table::new(titles);
    for report in reports {
        table.row([
            report.id.clone(),
            style.date(report.made_at),
            one_line(report.by.as_str()),
            report.target.to_string(),
            report.verdict.clone(),
            report.failed.to_string(),
            report.unknown.to_string(),
            report.warned.to_string(),
            report.accepted.to_string(),
        ]);
    }
    table.render()
}

/// Acceptances in rows.
pub(crate) fn acceptances(acceptances: &[AcceptanceView], style: &Style) -> String {
    if acceptances.is_empty() {
        return format!("{}\n", style.pick("No finding is accepted.", "没有已接受的检查结果。"));
    }
    let titles = [
        style.pick("ACCEPTANCE", "接受项"),
        style.pick("CHECK", "检查项"),
        style.pick("SUBJECT", "对象"),
        style.pick("UNTIL", "有效期至"),
        style.pick("BY", "接受人"),
        style.pick("REASON", "原因"),
    ];
    let mut table = Table::new(titles);
    // Days end as in Greenwich: the server counts so too.
    let today = style.now.to_zoned(TimeZone::UTC).date();
    for one in acceptances {
        let over = if one.until < today { style.pick(" (expired)", "（已过期）") } else { "" };
        table.row([
            one.id.clone(),
            one.check.clone(),
            one_line(one.subject.as_deref().unwrap_or("*")),
            format!("{}{over}", one.until),
            one_line(one.by.as_str()),
            one_line(&one.reason),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use shiplock_core::id::Actor;
    use shiplock_core::language::Language;

    use super::*;

    #[test]
    fn an_acceptance_that_holds_no_more_is_marked() {
        let now: Timestamp = "2026-11-27T23:59:00Z".parse().unwrap();
        let until = |until: &str| AcceptanceView {
            id: "a".to_owned(),
            check: "NODE-004".to_owned(),
            subject: None,
            reason: "by design".to_owned(),
            by: Actor::from("ops"),
            given_at: now,
            until: until.parse().unwrap(),
        };
        let shown = |language| acceptances(&[until("2026-11-26"), until("2026-11-27")], &Style::plain(language, now));
        assert!(shown(Language::En).contains("2026-11-26 (expired)"), "{}", shown(Language::En));
        assert!(shown(Language::Zh).contains("2026-11-26（已过期）"), "{}", shown(Language::Zh));
        assert!(!shown(Language::En).contains("2026-11-27 ("), "its last day counts");
    }
}
