//! An upgrade as people read it: where it stands, why nothing moves, how far each stage is.

use std::collections::BTreeMap;

use shiplock_api::rest::{NodeProgressView, StageView, UnreadableUpgrade, UpgradeView};
use shiplock_core::check::{CheckResult, Finding};
use shiplock_core::estimate::Pace;
use shiplock_core::id::NodeName;
use shiplock_core::plan::Plan;
use shiplock_core::problem::Code;
use shiplock_core::upgrade::waiting::{WaitingOn, WhoActs, step_name};
use shiplock_core::upgrade::{Batch, NodeProgress, State, Waiting};

use super::{Style, Tone, table, time, words};

/// How many rows of a kind are shown before the rest is counted.
const ROWS_MAX: usize = 8;

/// The table of many upgrades.
pub fn list(upgrades: &[UpgradeView], unreadable: &[UnreadableUpgrade], style: &Style) -> String {
    if upgrades.is_empty() && unreadable.is_empty() {
        return format!(
            "{}\n",
            style.pick(
                "There is no upgrade. Begin with: shiplock plan CLUSTER --to VERSION",
                "没有升级。从这里开始：shiplock plan CLUSTER --to VERSION"
            )
        );
    }
    let titles = [
        "ID",
        style.pick("CLUSTER", "集群"),
        style.pick("TO", "目标"),
        style.pick("STATE", "状态"),
        style.pick("NODES", "节点"),
        style.pick("BEGUN", "开始于"),
        style.pick("BY", "操作者"),
        style.pick("WHY", "原因"),
    ];
    let mut table = table::Table::new(titles);
    for upgrade in upgrades {
        table.row([
            upgrade.id.to_string(),
            upgrade.cluster.to_string(),
            upgrade.to.to_string(),
            upgrade.state.label(style.language).to_owned(),
            format!("{}/{}", upgrade.nodes_done, upgrade.nodes_total),
            style.date(upgrade.created_at),
            upgrade.by.to_string(),
            table::cut(&why(upgrade, style).unwrap_or_default(), 60),
        ]);
    }
    for upgrade in unreadable {
        let unknown = || "?".to_owned();
        let why = format!("{} {}", upgrade.problem.code, upgrade.problem.sentence(style.language));
        table.row([
            upgrade.id.to_string(),
            upgrade.cluster.to_string(),
            unknown(),
            style.pick("unreadable", "无法读取").to_owned(),
            unknown(),
            style.date(upgrade.created_at),
            unknown(),
            table::cut(&why, 60),
        ]);
    }
    table.render()
}

/// Everything about one upgrade.
pub fn show(upgrade: &UpgradeView, style: &Style) -> String {
    let mut lines = head(upgrade, style);
    lines.extend(findings(upgrade, style));
    lines.push(String::new());
    lines.extend(stages(upgrade, style, usize::MAX));
    lines.extend(report(upgrade, style));
    lines.extend(leftovers(upgrade, style));
    lines.join("\n") + "\n"
}

/// How it ended, or why it needs a person: what an attached command leaves behind.
pub fn outcome(upgrade: &UpgradeView, style: &Style) -> String {
    let mut lines = head(upgrade, style);
    lines.extend(findings(upgrade, style));
    lines.extend(report(upgrade, style));
    lines.extend(leftovers(upgrade, style));
    lines.join("\n") + "\n"
}

/// What whoever leaves an upgrade sees: the first line, and what the checks before the start found.
pub fn begun(upgrade: &UpgradeView, found: &[Finding], style: &Style) -> String {
    let mut lines = vec![headline(upgrade, style)];
    lines.extend(told(upgrade, found, style));
    lines.join("\n") + "\n"
}

/// The first line: what, how far, since when.
pub fn headline(upgrade: &UpgradeView, style: &Style) -> String {
    let state = upgrade.state.label(style.language).to_uppercase();
    let until = if upgrade.state.is_terminal() { upgrade.updated_at } else { style.now };
    let elapsed = style.at(until).since(upgrade.created_at);
    let (done, total) = (upgrade.nodes_done, upgrade.nodes_total);
    let last = style.since(upgrade.updated_at);
    let mut line = format!(
        "{}  {}  → {}   {}   {}   {elapsed}",
        style.tone(Tone::Strong, upgrade.id.as_str()),
        upgrade.cluster,
        upgrade.to,
        style.tone(words::state_tone(&upgrade.state), &state),
        if style.zh() { format!("{done}/{total} 个节点") } else { format!("{done}/{total} nodes") },
    );
    if let Some(remaining) = &upgrade.remaining {
        let range = time::range(remaining.estimate, style.language);
        line.push_str(&if style.zh() { format!("   剩余 {range}") } else { format!("   {range} left") });
        let pace = match remaining.pace {
            Pace::Expected => None,
            Pace::Slow => Some(style.pick("slow", "偏慢")),
            Pace::Stalled => Some(style.pick("stalled", "停滞")),
        };
        if let Some(pace) = pace {
            line.push_str(&format!("   {}", style.tone(Tone::Notice, pace)));
        }
    }
    if !upgrade.state.is_terminal() {
        let act = if style.zh() { format!("   最近事件 {last}前") } else { format!("   last event {last} ago") };
        line.push_str(&style.tone(Tone::Faint, &act));
    }
    line
}

/// The first lines: where it stands, and why nothing moves.
pub fn head(upgrade: &UpgradeView, style: &Style) -> Vec<String> {
    let mut lines = vec![headline(upgrade, style)];
    let (label, blank) = (style.pick("waits  ", "等待  "), style.pick("       ", "      "));
    lines.extend(pausing(upgrade, blank, style));
    let (now, waiting): (Vec<_>, Vec<_>) = waits(upgrade).into_iter().partition(is_work);
    let what = |wait: &WaitingOn| wait_sentence(wait, upgrade, style);
    for (index, wait) in now.iter().take(ROWS_MAX).enumerate() {
        let label = if index == 0 { style.pick("now    ", "当前  ") } else { blank };
        lines.push(format!("{label}{}", what(wait)));
    }
    lines.extend(more(now.len(), ROWS_MAX, blank, style));
    for (index, wait) in waiting.iter().take(ROWS_MAX).enumerate() {
        let tone = if wait.who_acts() == WhoActs::Nobody { Tone::Busy } else { Tone::Notice };
        lines.push(format!("{}{}", if index == 0 { label } else { blank }, style.tone(tone, &what(wait))));
        lines.extend(remedy(wait, upgrade, blank, style));
    }
    lines.extend(more(waiting.len(), ROWS_MAX, blank, style));
    if let State::Paused { expires_at, .. } = &upgrade.state {
        let (until, date) = (style.until(*expires_at), style.date(*expires_at));
        lines.push(if style.zh() {
            format!("{blank}若无人继续，将在 {until}后（{date}）关闭。继续：shiplock continue {}", upgrade.id)
        } else {
            format!("{blank}closes in {until} ({date}) unless continued: shiplock continue {}", upgrade.id)
        });
    }
    lines
}

/// Why an upgrade is about to pause, and what to do about it: what is still in work may take its time.
fn pausing(upgrade: &UpgradeView, blank: &str, style: &Style) -> Vec<String> {
    let State::Pausing { because, since } = &upgrade.state else { return Vec::new() };
    let label = style.pick("pauses ", "暂停  ");
    if because.problem().is_none() {
        return vec![format!("{label}{}", words::pause_reason(because, style.language))];
    }
    let wait = WaitingOn::new(Waiting::Continue { reason: because.clone(), is_over: false }, *since);
    let mut lines = vec![format!("{label}{}", style.tone(Tone::Bad, &wait_sentence(&wait, upgrade, style)))];
    lines.extend(remedy(&wait, upgrade, blank, style));
    lines
}

/// Below a wait: what to do about it, the causes of its problem, and where more is said of that.
fn remedy(wait: &WaitingOn, upgrade: &UpgradeView, blank: &str, style: &Style) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(fix) = wait.fix(style.language) {
        // The domain does not know under which names people see them here; the placeholders are its own.
        let fix = fix.replace("UPGRADE", upgrade.id.as_str()).replace("CLUSTER", upgrade.cluster.as_str());
        let fix = table::one_line(&fix);
        lines.push(format!("{blank}  {}  {fix}", style.tone(Tone::Strong, style.pick("fix", "处理"))));
    }
    let problem = match &wait.what {
        Waiting::Continue { reason, is_over: false } => reason.problem(),
        Waiting::Gate { problem } | Waiting::NodeReadBack { problem, .. } => Some(problem),
        _ => None,
    };
    if let Some(problem) = problem {
        let causes = problem.causes.iter().flat_map(|cause| cause.lines()).filter(|line| !line.trim().is_empty());
        for cause in causes.take(CAUSE_LINES_MAX) {
            lines.push(format!("{blank}  {}", style.tone(Tone::Faint, &table::one_line(cause))));
        }
        lines.push(format!("{blank}  {}  shiplock explain {}", style.pick("more", "详情"), problem.code));
    }
    lines
}

/// What is waited for. A server that was just started may not have looked yet; that an upgrade is paused, and why, its
/// state tells all the same.
fn waits(upgrade: &UpgradeView) -> Vec<WaitingOn> {
    let mut waits = upgrade.waiting_on.clone();
    if let State::Paused { because, since, .. } = &upgrade.state
        && !waits.iter().any(|wait| matches!(wait.what, Waiting::Continue { .. }))
    {
        waits.push(WaitingOn::new(Waiting::Continue { reason: because.clone(), is_over: false }, *since));
    }
    waits
}

/// Steps in work are no reason to worry; everything else is a wait.
fn is_work(wait: &WaitingOn) -> bool {
    matches!(wait.what, Waiting::Step { .. })
}

fn more(all: usize, shown: usize, blank: &str, style: &Style) -> Option<String> {
    let more = all.checked_sub(shown).filter(|more| *more > 0)?;
    Some(if style.zh() { format!("{blank}… 另有 {more} 项") } else { format!("{blank}… and {more} more") })
}

/// The sentence of a wait with since, attempt and deadline.
pub fn wait_sentence(wait: &WaitingOn, upgrade: &UpgradeView, style: &Style) -> String {
    let mut text = wait.sentence(style.language).replace("UPGRADE", upgrade.id.as_str());
    let since = style.since(wait.since);
    let mut parts = vec![if style.zh() { format!("已 {since}") } else { format!("for {since}") }];
    if let Some(retry) = wait.retry {
        let (attempts, next) = (retry.attempts, style.until(retry.next_at));
        parts.push(if style.zh() {
            format!("已尝试 {attempts} 次，{next}后重试")
        } else {
            format!("attempt {attempts}, next in {next}")
        });
    }
    // When a paused upgrade is closed has a line of its own.
    let closes = matches!(wait.what, Waiting::Continue { .. });
    if let Some(deadline) = wait.deadline.filter(|_| !closes) {
        if deadline < style.now {
            let late = style.since(deadline);
            parts.push(if style.zh() { format!("已超时 {late}") } else { format!("late by {late}") });
        } else {
            let left = style.until(deadline);
            parts.push(if style.zh() { format!("最多再等 {left}") } else { format!("at most {left} more") });
        }
    }
    text.push_str(&if style.zh() {
        format!("（{}）", parts.join("，"))
    } else {
        format!(" ({})", parts.join("; "))
    });
    table::one_line(&text)
}

/// Why it does not move, in one sentence; none while it works or has ended.
fn why(upgrade: &UpgradeView, style: &Style) -> Option<String> {
    let sentence = match &upgrade.state {
        State::Pausing { because, .. } => match because.problem() {
            Some(problem) => problem.sentence(style.language),
            None => words::pause_reason(because, style.language).to_owned(),
        },
        _ => waits(upgrade).into_iter().find(|wait| !is_work(wait))?.sentence(style.language),
    };
    Some(table::one_line(&sentence))
}

/// The stages with their batches, and the nodes in work; at most `rows_max` nodes of a stage.
pub fn stages(upgrade: &UpgradeView, style: &Style, rows_max: usize) -> Vec<String> {
    let language = style.language;
    let name = |stage: &StageView| words::stage(&stage.stage, stage.pool.as_ref().map(|pool| pool.as_str()), language);
    let width = |text: &str| unicode_width::UnicodeWidthStr::width(text);
    let widest = upgrade.stages.iter().map(|stage| width(&name(stage))).max().unwrap_or_default();
    let mut lines = Vec::new();
    for stage in &upgrade.stages {
        let failed = stage.nodes.iter().any(|node| node.progress == NodeProgress::Failed);
        let cut = upgrade.state.is_terminal() && stage.started && !stage.finished;
        let (word, tone) = match (failed && !stage.finished, stage.finished, stage.started) {
            _ if cut => (style.pick("cut", "中断"), Tone::Notice),
            (true, ..) => (style.pick("FAILED", "失败"), Tone::Bad),
            (_, true, _) => (style.pick("done", "完成"), Tone::Good),
            (_, _, true) => (style.pick("work", "进行"), Tone::Busy),
            _ => ("-", Tone::Faint),
        };
        let mut line = format!("  {}  {}", style.tone(tone, &table::pad(word, 6)), table::pad(&name(stage), widest));
        if !stage.nodes.is_empty() {
            let done = stage.nodes.iter().filter(|node| node.progress == NodeProgress::Done).count();
            line.push_str(&format!("  {:>7}", format!("{done}/{}", stage.nodes.len())));
            for batch in &stage.batches {
                line.push_str(&format!("  {}", batch_cell(batch, stage, style)));
            }
        }
        lines.push(line.trim_end().to_owned());
        lines.extend(nodes_in_work(stage, style, rows_max));
    }
    lines
}

/// `[4: 3 done, 1 in work]`; a batch that ended well is `[4 ok]`.
fn batch_cell(batch: &Batch, stage: &StageView, style: &Style) -> String {
    let states: BTreeMap<&NodeName, NodeProgress> =
        stage.nodes.iter().map(|node| (&node.node, node.progress)).collect();
    let mut counts: BTreeMap<NodeProgress, usize> = BTreeMap::new();
    for node in &batch.nodes {
        *counts.entry(states.get(node).copied().unwrap_or(NodeProgress::Waiting)).or_default() += 1;
    }
    let size = batch.nodes.len();
    if batch.finished && counts.get(&NodeProgress::Done) == Some(&size) {
        return style.tone(Tone::Good, &format!("[{size} {}]", style.pick("ok", "完成")));
    }
    let separator = style.pick(", ", "，");
    let parts: Vec<String> = counts
        .iter()
        .map(|(progress, count)| format!("{count} {}", words::progress(*progress, style.language)))
        .collect();
    format!("[{size}{}{}]", style.pick(": ", "："), parts.join(separator))
}

fn nodes_in_work(stage: &StageView, style: &Style, rows_max: usize) -> Vec<String> {
    let moving = |node: &&NodeProgressView| !matches!(node.progress, NodeProgress::Waiting | NodeProgress::Done);
    let nodes: Vec<_> = stage.nodes.iter().filter(moving).collect();
    let names = nodes.iter().map(|node| unicode_width::UnicodeWidthStr::width(node.node.as_str()));
    let widest = names.max().unwrap_or_default();
    let mut lines: Vec<String> = nodes
        .iter()
        .take(rows_max)
        .map(|node| {
            let word = style.tone(words::progress_tone(node.progress), words::progress(node.progress, style.language));
            let at_step = matches!(node.progress, NodeProgress::InWork | NodeProgress::Failed);
            let step = node.step.as_deref().filter(|_| at_step).map(|step| step_name(step, style.language));
            let step = step.map(|step| format!("{}{step}", style.pick(": ", "："))).unwrap_or_default();
            format!("            {}  {word}{step}", table::pad(node.node.as_str(), widest))
        })
        .collect();
    lines.extend(more(nodes.len(), rows_max, "            ", style));
    lines
}

/// Lines of the causes of one finding: a difference of files may be long.
const CAUSE_LINES_MAX: usize = 40;

/// What stops the start.
fn findings(upgrade: &UpgradeView, style: &Style) -> Vec<String> {
    if matches!(upgrade.state, State::Blocked) { told(upgrade, &upgrade.findings, style) } else { Vec::new() }
}

/// Every finding that is no pass, with its fix; nothing where there is none.
fn told(upgrade: &UpgradeView, findings: &[Finding], style: &Style) -> Vec<String> {
    let told: Vec<_> = findings.iter().filter(|finding| finding.result != CheckResult::Pass).collect();
    if told.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![String::new()];
    for finding in told {
        let tone = if finding.result == CheckResult::Fail { Tone::Bad } else { Tone::Notice };
        let word = style.tone(tone, &table::pad(words::result(finding.result, style.language), 7));
        let problem = finding.problem.as_ref();
        let sentence = problem.map(|problem| problem.sentence(style.language)).unwrap_or_default();
        lines.push(format!(
            "  {word}  {}  {}{}{}",
            finding.check,
            style.language.subject(&finding.subject),
            style.pick(": ", "："),
            table::one_line(&sentence)
        ));
        if let Some(problem) = problem {
            let causes: Vec<&str> = problem.causes.iter().flat_map(|cause| cause.lines()).collect();
            let shown = causes.iter().filter(|line| !line.trim().is_empty()).take(CAUSE_LINES_MAX);
            lines.extend(shown.map(|line| format!("           {}", style.tone(Tone::Faint, &table::one_line(line)))));
            let fix = problem.fix(style.language).replace("UPGRADE", upgrade.id.as_str());
            lines.push(format!("           {}  {}", style.pick("fix", "处理"), table::one_line(&fix)));
        }
    }
    lines
}

/// What an upgrade that has ended left: the versions that were read from what runs, and the workloads beside the
/// baseline.
fn report(upgrade: &UpgradeView, style: &Style) -> Vec<String> {
    if !upgrade.state.is_terminal() {
        return Vec::new();
    }
    // A master that soaked was read back twice: what was read last of each component stands.
    let mut newest: BTreeMap<&NodeName, Vec<&str>> = BTreeMap::new();
    for node in upgrade.stages.iter().flat_map(|stage| &stage.nodes) {
        for line in &node.read_back {
            let component = |line: &str| line.split(' ').next().map(str::to_owned);
            let held = newest.entry(&node.node).or_default();
            match held.iter_mut().find(|held| component(held) == component(line)) {
                Some(held) => *held = line,
                None => held.push(line),
            }
        }
    }
    let mut alike: BTreeMap<Vec<&str>, Vec<NodeName>> = BTreeMap::new();
    for (node, components) in newest {
        alike.entry(components).or_default().push(node.clone());
    }
    let separator = style.pick(", ", "，");
    let mut lines: Vec<String> = alike
        .into_iter()
        .map(|(components, nodes)| {
            let (components, count) = (components.join(separator), words::nodes(nodes.len(), style.language));
            let names = words::names(&nodes, style.language);
            if style.zh() {
                format!("已从运行中的进程回读：{components}：{count}（{names}）")
            } else {
                format!("read back from what runs: {components}: {count} ({names})")
            }
        })
        .collect();
    if let Some(workloads) = &upgrade.workloads {
        let (all, worse) = (workloads.compared, workloads.worse.len());
        let (text, tone) = match (workloads.worse.is_empty(), style.zh()) {
            (true, true) => (format!("工作负载：已比较 {all} 个，均不差于升级前"), Tone::Good),
            (true, false) => (format!("workloads: {all} compared, none worse than before"), Tone::Good),
            (false, true) => (
                format!("工作负载：{all} 个中有 {worse} 个就绪 Pod 少于升级前：{}", workloads.worse.join(separator)),
                Tone::Bad,
            ),
            (false, false) => (
                format!(
                    "workloads: {worse} of {all} have fewer ready pods than before: {}",
                    workloads.worse.join(separator)
                ),
                Tone::Bad,
            ),
        };
        lines.push(style.tone(tone, &table::one_line(&text)));
    }
    if !lines.is_empty() {
        lines.insert(0, String::new());
    }
    lines
}

/// Nodes that were left out or given up, and older ones that the plan does not hold, said at the end so that nobody
/// overlooks them.
fn leftovers(upgrade: &UpgradeView, style: &Style) -> Vec<String> {
    let mut lines = Vec::new();
    let (gone, left_out): (Vec<_>, Vec<_>) =
        upgrade.skipped.iter().partition(|skipped| skipped.problem.code == Code::NodeGone);
    if !gone.is_empty() {
        let names = words::names(gone.iter().map(|skipped| &skipped.node), style.language);
        let text = if style.zh() {
            format!("升级期间已离开集群，因此未升级：{names}")
        } else {
            format!("left the cluster during the upgrade, so not upgraded: {names}")
        };
        lines.push(style.tone(Tone::Notice, &text));
    }
    for skipped in left_out {
        let sentence = table::one_line(&skipped.problem.sentence(style.language));
        let text = if style.zh() {
            format!("未升级：{}：{sentence}", skipped.node)
        } else {
            format!("not upgraded: {}: {sentence}", skipped.node)
        };
        lines.push(style.tone(Tone::Notice, &text));
    }
    if !upgrade.abandoned.is_empty() {
        let names = words::names(&upgrade.abandoned, style.language);
        let text = if style.zh() {
            format!("状态未知（已放弃）：{names}")
        } else {
            format!("state unknown (abandoned): {names}")
        };
        lines.push(style.tone(Tone::Bad, &text));
    }
    if !upgrade.older_outside_plan.is_empty() {
        let (names, to) = (words::names(&upgrade.older_outside_plan, style.language), upgrade.to);
        let plan = format!("shiplock plan {} --to {to}", upgrade.cluster);
        let text = if style.zh() {
            format!("不在计划中，kubelet 未见达到 {to}：{names}；如需升级：{plan}")
        } else {
            format!("not in the plan, and the kubelet was not seen at {to}: {names}; to upgrade them: {plan}")
        };
        lines.push(style.tone(Tone::Notice, &text));
    }
    if !lines.is_empty() {
        lines.insert(0, String::new());
    }
    lines
}

/// What fills a live view below its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The stages, and below them the newest events.
    Stages,
    /// The newest events alone.
    Events,
    /// Every node: those that need a person first, then those in work, those to come and those that are done.
    Nodes,
}

/// The last line of a live view.
#[derive(Clone, Debug)]
pub enum Foot {
    /// Which keys there are.
    Keys(String),
    /// What a person is asked.
    Question(String),
}

/// What a live view shows.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// The upgrade.
    pub upgrade: &'a UpgradeView,
    /// Its plan, for the names of steps.
    pub plan: Option<&'a Plan>,
    /// The newest events, oldest first.
    pub events: &'a [shiplock_core::upgrade::EventRecord],
    /// Something about the view itself: that the server does not answer, say.
    pub notice: Option<&'a str>,
    /// The size of the terminal: columns, lines.
    pub size: (usize, usize),
    /// What fills it.
    pub view: View,
    /// The last line. The last frame stays and has none.
    pub foot: Option<Foot>,
}

impl Frame<'_> {
    fn newest_events(&self, count: usize, style: &Style) -> impl Iterator<Item = String> {
        let newest = &self.events[self.events.len().saturating_sub(count)..];
        newest.iter().map(|record| super::event::line(record, self.plan, style))
    }

    /// The lines of the frame; never more or wider than the terminal.
    pub fn lines(&self, style: &Style) -> Vec<String> {
        let (columns, rows) = self.size;
        let width = columns.saturating_sub(1).max(1);
        let mut told = Vec::new();
        if let Some(notice) = self.notice {
            told.push(style.tone(Tone::Bad, notice));
        }
        told.extend(head(self.upgrade, style));
        told.extend(findings(self.upgrade, style));
        // What a person must read is wrapped, the rest is cut.
        let mut lines: Vec<String> = told.iter().flat_map(|line| table::wrap(line, width)).collect();
        lines.push(String::new());
        // The foot, and one line less than the terminal has, so that nothing scrolls while it is redrawn.
        let rows_max = rows.saturating_sub(1 + usize::from(self.foot.is_some())).max(1);
        let room = |lines: &Vec<String>| rows_max.saturating_sub(lines.len());
        match self.view {
            View::Stages => {
                lines.extend(stages(self.upgrade, style, ROWS_MAX));
                lines.extend(report(self.upgrade, style));
                lines.extend(leftovers(self.upgrade, style));
                if room(&lines) > 1 && !self.events.is_empty() {
                    lines.push(String::new());
                    lines.extend(self.newest_events(room(&lines), style));
                }
            }
            View::Events => lines.extend(self.newest_events(room(&lines), style)),
            View::Nodes => lines.extend(nodes(self.upgrade, style, room(&lines))),
        }
        lines.truncate(rows_max);
        match &self.foot {
            Some(Foot::Keys(keys)) => lines.push(style.tone(Tone::Faint, keys)),
            Some(Foot::Question(question)) => lines.push(style.tone(Tone::Notice, question)),
            None => {}
        }
        lines.truncate(rows.saturating_sub(1).max(1));
        lines.iter().map(|line| table::cut_coloured(line, width)).collect()
    }
}

/// Every node with its stage, at most `rows_max` lines.
fn nodes(upgrade: &UpgradeView, style: &Style, rows_max: usize) -> Vec<String> {
    let rank = |progress: NodeProgress| match progress {
        NodeProgress::Waiting => 2,
        NodeProgress::Done => 3,
        NodeProgress::InWork => 1,
        _ => 0,
    };
    let mut rows: Vec<(&StageView, &NodeProgressView)> =
        upgrade.stages.iter().flat_map(|stage| stage.nodes.iter().map(move |node| (stage, node))).collect();
    rows.sort_by_key(|(_, node)| rank(node.progress));
    let width = |text: &str| unicode_width::UnicodeWidthStr::width(text);
    let widest = rows.iter().map(|(_, node)| width(node.node.as_str())).max().unwrap_or_default();
    let shown = if rows.len() > rows_max { rows_max.saturating_sub(1) } else { rows.len() };
    let mut lines: Vec<String> = rows
        .iter()
        .take(shown)
        .map(|(stage, node)| {
            let word = words::progress(node.progress, style.language);
            let step = node.step.as_deref().filter(|_| rank(node.progress) < 2);
            let doing = step.map(|step| format!("{}{}", style.pick(": ", "："), step_name(step, style.language)));
            let pool = stage.pool.as_ref().map(|pool| pool.as_str());
            format!(
                "  {}  {}  {}{}",
                table::pad(node.node.as_str(), widest),
                style.tone(Tone::Faint, &words::stage(&stage.stage, pool, style.language)),
                style.tone(words::progress_tone(node.progress), word),
                doing.unwrap_or_default()
            )
        })
        .collect();
    lines.extend(more(rows.len(), shown, "  ", style));
    lines
}

/// The line that plain progress prints when nothing happened for a while.
pub fn heartbeat(upgrade: &UpgradeView, style: &Style) -> String {
    let waits: Vec<String> = waits(upgrade).iter().take(3).map(|wait| wait_sentence(wait, upgrade, style)).collect();
    let state = upgrade.state.label(style.language);
    let elapsed = time::duration(style.now.as_second() - upgrade.created_at.as_second(), style.language);
    let (done, total) = (upgrade.nodes_done, upgrade.nodes_total);
    format!("{}  {state} {done}/{total} {elapsed}: {}", style.clock(style.now), waits.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;
    use shiplock_api::rest::SkippedView;
    use shiplock_core::language::Language;
    use shiplock_core::problem::Problem;
    use unicode_width::UnicodeWidthStr as _;

    #[test]
    fn an_upgrade_reads_well_in_every_state_and_both_languages() {
        for (name, language) in [("en", Language::En), ("zh", Language::Zh)] {
            let style = sample::style(language);
            let upgrades = sample::upgrades();
            let mut text = vec![list(&upgrades, &[sample::unreadable()], &style)];
            text.extend(upgrades.iter().map(|upgrade| show(upgrade, &style)));
            insta::assert_snapshot!(format!("upgrade_{name}"), text.join("=====\n"));
        }
    }

    #[test]
    fn a_pause_says_why_also_before_the_server_has_looked() {
        let upgrade = UpgradeView { waiting_on: Vec::new(), ..sample::upgrade_paused() };
        let text = outcome(&upgrade, &sample::style(Language::En));
        assert!(
            text.contains("kubelet on node w-2 did not come up") && text.contains("journalctl -u kubelet"),
            "{text}"
        );
    }

    #[test]
    fn nodes_that_left_the_cluster_are_named_at_the_end_as_gone() {
        let gone =
            |node: &str| SkippedView { node: node.into(), problem: Problem::new(Code::NodeGone).with("node", node) };
        let succeeded = sample::upgrades().into_iter().find(|upgrade| upgrade.state == State::Succeeded).unwrap();
        let upgrade = UpgradeView { skipped: vec![gone("w-4"), gone("w-5")], ..succeeded };
        for (language, said) in [
            (Language::En, "left the cluster during the upgrade, so not upgraded: w-4, w-5"),
            (Language::Zh, "升级期间已离开集群，因此未升级：w-4、w-5"),
        ] {
            let style = sample::style(language);
            for text in [outcome(&upgrade, &style), show(&upgrade, &style)] {
                assert!(text.lines().any(|line| line == said), "{text}");
            }
        }
    }

    #[test]
    fn nodes_outside_the_plan_that_are_older_are_named_at_the_end_with_what_to_do() {
        let succeeded = sample::upgrades().into_iter().find(|upgrade| upgrade.state == State::Succeeded).unwrap();
        let upgrade = UpgradeView { older_outside_plan: vec!["w-9".into()], ..succeeded };
        let text = outcome(&upgrade, &sample::style(Language::En));
        let said = "not in the plan, and the kubelet was not seen at v1.36.3: w-9; to upgrade them: shiplock plan ";
        assert!(text.lines().any(|line| line.starts_with(said)), "{text}");
    }

    #[test]
    fn a_frame_fits_its_terminal_whatever_happens() {
        let (plan, events) = (sample::plan(), sample::events());
        for language in [Language::En, Language::Zh] {
            for upgrade in sample::upgrades() {
                for size in [(200, 60), (80, 24), (40, 10), (20, 3), (1, 1)] {
                    for view in [View::Stages, View::Events, View::Nodes] {
                        let frame = Frame {
                            upgrade: &upgrade,
                            plan: Some(&plan),
                            events: &events,
                            notice: Some("x"),
                            size,
                            view,
                            foot: Some(Foot::Question("pause?".to_owned())),
                        };
                        let plain = frame.lines(&sample::style(language));
                        let coloured = frame.lines(&Style { colour: true, ..sample::style(language) });
                        assert!(plain.len() < size.1.max(2), "{size:?}");
                        assert!(plain.iter().all(|line| line.width() < size.0.max(2)), "{size:?} {plain:#?}");
                        assert_eq!(plain.len(), coloured.len());
                        if size.1 > 3 {
                            assert_eq!(plain.last().map(String::as_str), Some("pause?"), "what is asked is never cut");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_frame_shows_head_stages_and_the_newest_events() {
        let (plan, events, upgrade) = (sample::plan(), sample::events(), sample::upgrade_running());
        for (name, language) in [("en", Language::En), ("zh", Language::Zh)] {
            let views = [View::Stages, View::Events, View::Nodes].map(|view| {
                let foot = Some(Foot::Keys("keys".to_owned()));
                let (plan, size) = (Some(&plan), (100, 24));
                let frame = Frame { upgrade: &upgrade, plan, events: &events, notice: None, size, view, foot };
                frame.lines(&sample::style(language)).join("\n")
            });
            insta::assert_snapshot!(format!("frame_{name}"), views.join("\n=====\n"));
        }
    }
}
