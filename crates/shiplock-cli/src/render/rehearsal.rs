//! The report of a rehearsal, for people.

use shiplock_core::estimate::Estimate;
use shiplock_sim::rehearsal::{HeldLine, HeldUntil, Range, Report, StageLine};

use super::table::{Table, one_line};
use super::{Style, Tone, time, words};

/// More lines of one list are counted and not shown; -o json has them all.
const LINES_MAX: usize = 20;
/// Batches of one stage that are shown at each end.
const BATCHES_SHOWN: usize = 6;

/// All of it.
pub fn report(report: &Report, style: &Style) -> String {
    let mut text = head(report, style);
    if let Some(problem) = &report.ended_early {
        text.push_str(&line(
            style,
            Tone::Bad,
            "the rehearsal ends here",
            "演练到此为止",
            &problem.sentence(style.language),
        ));
    }
    text.push_str(&timeline(report, style));
    text.push_str(&trouble(report, style));
    text.push_str(&better(report, style));
    text.push_str(&title(style, "What it does not know", "无法得知"));
    for unknown in &report.unknown {
        text.push_str(&format!("  - {}\n", one_line(&unknown.text(style.language))));
    }
    text
}

fn title(style: &Style, english: &str, chinese: &str) -> String {
    format!("\n{}\n", style.tone(Tone::Strong, style.pick(english, chinese)))
}

fn line(style: &Style, tone: Tone, english: &str, chinese: &str, what: &str) -> String {
    format!("{}{}{what}\n", style.tone(tone, style.pick(english, chinese)), style.pick(": ", "："))
}

fn seconds(milliseconds: u64) -> i64 {
    i64::try_from(milliseconds.div_ceil(1_000)).unwrap_or(i64::MAX)
}

fn takes(range: Range, style: &Style) -> String {
    let estimate =
        Estimate { lower_milliseconds: range.lower_milliseconds, upper_milliseconds: range.upper_milliseconds };
    let nominal = time::duration(seconds(range.nominal_milliseconds), style.language);
    let between = time::range(estimate, style.language);
    if style.zh() { format!("约 {nominal}（{between}）") } else { format!("about {nominal} ({between})") }
}

fn head(report: &Report, style: &Style) -> String {
    let to = report.to.map_or_else(String::new, |to| format!(" → {to}"));
    let (taken, version) = (style.date(report.taken_at), one_line(&report.version));
    let mut text = if style.zh() {
        format!(
            "演练 {version}{to}：{} 个节点，{} 个 Pod，快照时间 {taken}，每批最多 {} 个节点\n",
            report.nodes, report.pods, report.max_parallel
        )
    } else {
        format!(
            "Rehearsal of {version}{to}: {}, {} {} as of {taken}, at most {} in a batch\n",
            words::nodes(report.nodes, style.language),
            report.pods,
            if report.pods == 1 { "pod" } else { "pods" },
            words::nodes(report.max_parallel as usize, style.language)
        )
    };
    if let Some(problem) = &report.drains_only {
        text.push_str(&format!(
            "{}\n{}\n",
            style.tone(Tone::Bad, &problem.sentence(style.language)),
            problem.fix(style.language)
        ));
    }
    // One run has one draw for each node, and a batch waits for its slowest: the middle of the drawn runs is the honest
    // headline, while the timeline shows one run with every time in the middle of its range.
    let drawn = ["p10", "p50", "p90"].map(|name| report.percentiles.get(name).copied());
    let headline =
        Range { nominal_milliseconds: drawn[1].unwrap_or(report.total.nominal_milliseconds), ..report.total };
    let (label, of_it) = match report.ended_early {
        None => ("Takes", "用时"),
        Some(_) => ("Takes until it ends early", "提前结束前用时"),
    };
    text.push_str(&line(style, Tone::Strong, label, of_it, &takes(headline, style)));
    if let [Some(p10), Some(p50), Some(p90)] = drawn {
        let [p10, p50, p90, middle] = [p10, p50, p90, report.total.nominal_milliseconds]
            .map(|milliseconds| time::duration(seconds(milliseconds), style.language));
        text.push_str(&if style.zh() {
            format!(
                "  {} 次抽样：P10 {p10}，P50 {p50}，P90 {p90}；各项用时均取区间中值时 {middle}，如下所示\n",
                report.whole_drawn_runs
            )
        } else {
            format!(
                "  {} drawn runs: P10 {p10}, P50 {p50}, P90 {p90}; with every time in the middle of its range {middle}, as below\n",
                report.whole_drawn_runs
            )
        });
    }
    text.push_str(&left_out(report, style));
    if let Some(unfinished) = &report.unfinished {
        let (runs, of, why) = (unfinished.runs, unfinished.of, unfinished.because.sentence(style.language));
        text.push_str(&if style.zh() {
            format!("  另外 {of} 轮中有 {runs} 轮未能完成，不计入任何用时：{why}\n")
        } else {
            format!("  {runs} of the {of} other runs do not come to their end and are in none of these times: {why}\n")
        });
    }
    if !report.blockers.is_empty() || !report.pauses.is_empty() {
        text.push_str(style.pick(
            "  What waits for a person is not in it; the rehearsal goes on as if it had been seen to.\n",
            "  不含等待人工处理的时间；演练假定问题已处理并继续。\n",
        ));
    }
    text
}

/// That less was done than is usual, why, and how to have it all.
fn left_out(report: &Report, style: &Style) -> String {
    let Some(left_out) = report.left_out else { return String::new() };
    let (drawn, pods) = (report.drawn_runs, report.pods);
    match (left_out.drawn_runs_usual, left_out.settings, style.zh()) {
        (Some(usual), true, false) => format!(
            "  {drawn} of the usual {usual} drawn runs, and no other settings tried: with {pods} pods that would take long; --runs {usual} and --compare do it all\n"
        ),
        (Some(usual), true, true) => format!(
            "  抽样 {drawn} 次而非通常的 {usual} 次，也未尝试其他设置：{pods} 个 Pod 耗时过长；用 --runs {usual} 和 --compare 全部执行\n"
        ),
        (Some(usual), false, false) => format!(
            "  {drawn} of the usual {usual} drawn runs: with {pods} pods all would take long; --runs {usual} makes them all\n"
        ),
        (Some(usual), false, true) => {
            format!("  抽样 {drawn} 次而非通常的 {usual} 次：{pods} 个 Pod 耗时过长；用 --runs {usual} 全部执行\n")
        }
        (None, true, false) => {
            format!("  No other settings tried: with {pods} pods that would take long; --compare tries them\n")
        }
        (None, true, true) => format!("  未尝试其他设置：{pods} 个 Pod 耗时过长；用 --compare 尝试\n"),
        (None, false, _) => String::new(),
    }
}

fn stage_name(stage: &StageLine, style: &Style) -> String {
    words::stage(stage.stage, stage.pool.as_deref(), style.language)
}

fn timeline(report: &Report, style: &Style) -> String {
    let mut text = title(style, "Timeline", "时间线");
    let mut table = if style.zh() {
        Table::new(["开始", "阶段", "用时", "节点"])
    } else {
        Table::new(["AT", "STAGE", "TAKES", "NODES"])
    }
    .indented(2);
    let at = |milliseconds: u64| time::duration(seconds(milliseconds), style.language);
    for stage in &report.stages {
        let nodes: usize = stage.batches.iter().map(|batch| batch.nodes.len()).sum();
        let nodes = if nodes > 0 { nodes.to_string() } else { String::new() };
        table.row([at(stage.begin_milliseconds), stage_name(stage, style), takes(stage.takes, style), nodes]);
        let count = stage.batches.len();
        for (place, batch) in stage.batches.iter().enumerate() {
            if place >= BATCHES_SHOWN && place + BATCHES_SHOWN < count {
                if place == BATCHES_SHOWN {
                    let left = count - 2 * BATCHES_SHOWN;
                    let more = if style.zh() {
                        format!("  … 另有 {left} 批")
                    } else {
                        format!("  … {left} more batches")
                    };
                    table.row([String::new(), more, String::new(), String::new()]);
                }
                continue;
            }
            let name =
                if style.zh() { format!("  第 {} 批", batch.batch) } else { format!("  batch {}", batch.batch) };
            let shown: Vec<&str> = batch.nodes.iter().take(4).map(|node| node.node.as_str()).collect();
            let more = batch.nodes.len().saturating_sub(shown.len());
            let more = if more > 0 { format!(" +{more}") } else { String::new() };
            table.row([at(batch.begin_milliseconds), name, takes(batch.takes, style), shown.join(", ") + &more]);
        }
    }
    text.push_str(&table.render());
    text
}

/// A list that is cut where it is long; nothing where it is empty.
fn list<T>(style: &Style, english: &str, chinese: &str, all: &[T], show: impl Fn(&T) -> String) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{} ({})\n", style.tone(Tone::Bad, style.pick(english, chinese)), all.len());
    for one in all.iter().take(LINES_MAX) {
        text.push_str(&show(one));
    }
    if all.len() > LINES_MAX {
        let more = all.len() - LINES_MAX;
        text.push_str(&if style.zh() {
            format!("  … 另有 {more} 项，见 -o json\n")
        } else {
            format!("  … {more} more, see -o json\n")
        });
    }
    text
}

fn held(held: &HeldLine, style: &Style) -> String {
    let at = time::duration(seconds(held.begin_milliseconds), style.language);
    let mut text = format!("  {at}  {}\n", held.waiting_on.sentence(style.language));
    if let Some(fix) = held.waiting_on.fix(style.language) {
        text.push_str(&format!("        → {fix}\n"));
    }
    text
}

fn trouble(report: &Report, style: &Style) -> String {
    let language = style.language;
    let at = |milliseconds: u64| time::duration(seconds(milliseconds), language);
    let mut text = list(style, "Stops the start", "阻止开始", &report.findings, |finding| {
        let (sentence, fix) = finding
            .problem
            .as_ref()
            .map_or_else(Default::default, |problem| (problem.sentence(language), problem.fix(language)));
        format!("  {}  {}\n        → {fix}\n", finding.check, one_line(&sentence))
    });
    text.push_str(&list(
        style,
        "Drains that block until a person acts",
        "需要人工处理的排空阻塞",
        &report.blockers,
        |one| held(one, style),
    ));
    text.push_str(&list(
        style,
        "Drains that take all of their time",
        "耗尽时限的排空",
        &report.timed_out,
        |one| {
            let lasted = at(one.lasted_milliseconds);
            let then = match one.until {
                HeldUntil::NodeLeftOut => style.pick("then its node is left out", "随后跳过该节点"),
                _ => style.pick("then the pod is deleted, whatever its budget says", "随后不顾 PDB 删除该 Pod"),
            };
            let fix = one.waiting_on.fix(language).map_or_else(String::new, |fix| format!("        → {fix}\n"));
            let sentence = one.waiting_on.sentence(language);
            format!("  {}  {lasted}  {sentence}{}{then}\n{fix}", at(one.begin_milliseconds), style.pick("; ", "；"))
        },
    ));
    text.push_str(&list(
        style,
        "Evictions that a budget holds up for a while",
        "被 PDB 暂时延迟的驱逐",
        &report.held_up,
        |one| {
            let lasted = at(one.lasted_milliseconds);
            format!("  {}  {lasted}  {}\n", at(one.begin_milliseconds), one.waiting_on.sentence(language))
        },
    ));
    text.push_str(&list(
        style,
        "Workloads that lose ready pods",
        "就绪 Pod 减少的工作负载",
        &report.workloads,
        |one| {
            let (lowest, before, when) = (one.lowest, one.ready_before, at(one.lowest_at_milliseconds));
            let zero = at(one.at_zero_milliseconds);
            match (lowest, style.zh()) {
                (0, false) => format!("  {}: none of {before} ready at {when}, for {zero} in all\n", one.workload),
                (0, true) => format!("  {}：{when} 时 {before} 个 Pod 全部未就绪，共 {zero}\n", one.workload),
                (_, false) => format!("  {}: {lowest} of {before} ready at {when}\n", one.workload),
                (_, true) => format!("  {}：{when} 时仅 {lowest}/{before} 就绪\n", one.workload),
            }
        },
    ));
    text.push_str(&list(style, "Pods that find no place", "无处可去的 Pod", &report.unplaced, |one| {
        let since = at(one.begin_milliseconds);
        let until = one.end_milliseconds.map(|end| at(end.saturating_sub(one.begin_milliseconds)));
        let owner = one.owner.as_ref().map_or_else(String::new, |owner| format!(" ({owner})"));
        let lasts = match (until, style.zh()) {
            (Some(until), false) => format!("for {until}"),
            (Some(until), true) => format!("持续 {until}"),
            (None, false) => "until the end".to_owned(),
            (None, true) => "直到结束".to_owned(),
        };
        format!("  {since}  {}{owner}, {lasts}: {}\n", one.pod, one.why)
    }));
    text.push_str(&list(style, "Nodes at risk", "有风险的节点", &report.nodes_at_risk, |one| {
        let risks: Vec<String> = one.risks.iter().map(|risk| one_line(&risk.text(language))).collect();
        format!("  {}{}{}\n", one.node, style.pick(": ", "："), risks.join(style.pick("; ", "；")))
    }));
    text.push_str(&list(style, "It pauses", "会暂停", &report.pauses, |one| {
        let why = one.because.problem().map_or_else(
            || words::pause_reason(&one.because, language).to_owned(),
            |problem| problem.sentence(language),
        );
        format!("  {}  {why}\n", at(one.at_milliseconds))
    }));
    if text.is_empty() {
        text = format!(
            "\n{}\n",
            style.tone(
                Tone::Good,
                style.pick("Nothing blocks and nothing is hurt.", "没有阻塞，也没有工作负载受影响。")
            )
        );
    }
    text
}

fn better(report: &Report, style: &Style) -> String {
    let mut text = String::new();
    if report.settings.len() > 1 {
        text.push_str(&title(style, "Other settings", "其他设置"));
        let titles = if style.zh() {
            ["最大并行", "用时", "归零的工作负载", "无处可去的 Pod", "阻塞的排空"]
        } else {
            ["MAX PARALLEL", "TAKES", "WORKLOADS AT ZERO", "PODS WITHOUT A PLACE", "DRAINS BLOCKED"]
        };
        let mut table = Table::new(titles).indented(2);
        for setting in &report.settings {
            let asked =
                if setting.max_parallel == report.max_parallel { style.pick(" (asked)", "（当前）") } else { "" };
            table.row([
                format!("{}{asked}", setting.max_parallel),
                time::duration(seconds(setting.nominal_milliseconds), style.language),
                setting.workloads_at_zero.to_string(),
                setting.unplaced.to_string(),
                setting.blockers.to_string(),
            ]);
        }
        text.push_str(&table.render());
    }
    for advice in &report.advice {
        text.push_str(&line(style, Tone::Good, "Better", "更好的设置", &one_line(&advice.text(style.language))));
    }
    text
}

#[cfg(test)]
pub(super) mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};
    use shiplock_check::snapshot::Snapshot;
    use shiplock_core::catalogue::VersionRequest;
    use shiplock_core::facts::not_ready;
    use shiplock_core::language::Language;
    use shiplock_core::plan::{Mode, PlanOptions, PlanRequest};
    use shiplock_core::step::OnDrainTimeout;
    use shiplock_sim::rehearsal::{self, Advice, LeftOut, Options, Risk, Source, TooMuch};

    use super::*;

    /// A master, three workers, and two Deployments: one of two pods whose budget allows nothing, one of a single pod.
    fn snapshot() -> Snapshot {
        let labels = |name: &str| json!({"kubernetes.io/hostname": name, "shiplock.dev/pool": "blue"});
        let node = |name: &str, labels: Value, taints: Value| {
            json!({"name": name, "uid": format!("uid-{name}"), "machine_id": format!("machine-{name}"),
                "architecture": "amd64", "kubelet": "v1.35.4", "runtime": "containerd://2.1.4", "labels": labels,
                "taints": taints, "allocatable": {"cpu_millis": 4_000, "memory_bytes": 16_i64 << 30, "pods": 110}})
        };
        let taint = json!([{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]);
        let mut nodes = vec![node("m1", json!({"node-role.kubernetes.io/control-plane": ""}), taint)];
        nodes.extend(["w1", "w2", "w3"].map(|name| node(name, labels(name), json!([]))));
        let (mut templates, mut pods, mut workloads) = (Vec::new(), Vec::new(), Vec::new());
        for component in ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            let tag = if component == "etcd" { "3.6.6-0" } else { "v1.35.4" };
            templates.push(json!({"containers": [[component, format!("registry.k8s.io/{component}:{tag}")]]}));
            let name = format!("{component}-m1");
            pods.push(json!({"namespace": "kube-system", "name": name, "uid": format!("uid-{name}"), "node": 0,
                "template": templates.len() - 1, "ready": true, "is_mirror": true}));
        }
        for (name, replicas) in [("shop", 2), ("till", 1)] {
            let selector = json!({"labels": {"app": name}});
            templates.push(json!({"labels": {"app": name}, "containers": [["main", "registry.example/shop:1"]],
                "requests": {"cpu_millis": 100, "memory_bytes": 64 << 20, "pods": 1}}));
            let template = templates.len() - 1;
            let workload = |kind: &str, name: &str, owner: Value| {
                json!({"kind": kind, "namespace": "shop", "name": name, "uid": format!("uid-{kind}-{name}"),
                    "replicas": replicas, "template": template, "selector": selector, "owner": owner})
            };
            let deployment = workloads.len();
            workloads.push(workload("Deployment", name, Value::Null));
            workloads.push(workload("ReplicaSet", &format!("{name}-7c9"), deployment.into()));
            pods.extend((0..replicas).map(|pod| {
                json!({"namespace": "shop", "name": format!("{name}-7c9-{pod}"), "uid": format!("uid-{name}-{pod}"),
                    "owner": deployment + 1, "node": 1 + pod, "template": template, "ready": true})
            }));
        }
        let budgets = json!([{"namespace": "shop", "name": "shop", "selector": {"labels": {"app": "shop"}},
            "max_unavailable": "0"}]);
        let copy = json!({"cluster_uid": "c", "nodes": nodes, "templates": templates, "workloads": workloads,
            "pods": pods, "budgets": budgets});
        let document = json!({"schema": 1, "taken_at": "2026-11-27T08:00:00Z", "server": "https://shop:6443",
            "version": "v1.35.4", "served": "not_asked", "written": [], "releases": "not_asked", "metrics": [],
            "objects": {}, "copy": {"seen": copy},
            "effort": {"requests": 0, "bytes": 0, "in_flight_max": 0, "milliseconds": 0}});
        serde_json::from_value(document).unwrap()
    }

    /// A rehearsal with something of everything: it blocks, a workload falls to zero, and other settings are compared.
    pub(in crate::render) fn rehearsed() -> Report {
        rehearsed_with(PlanOptions { max_parallel: 2, ..PlanOptions::default() })
    }

    fn rehearsed_with(options: PlanOptions) -> Report {
        let request = PlanRequest {
            to: VersionRequest::parse("1.36").unwrap(),
            mode: Mode::Cluster,
            pools: Vec::new(),
            nodes: Vec::new(),
            exclude_nodes: Vec::new(),
            options,
        };
        let prepared = rehearsal::prepare(snapshot(), &request, Source::Nothing).unwrap();
        let options = Options { drawn_runs: 5, left_out: None, compare: true, floor_percent: 60, seed: 1, threads: 1 };
        rehearsal::rehearse(&prepared, &options, &|_, _| {})
    }

    #[test]
    fn the_report_tells_what_blocks_what_falls_and_what_would_be_better() {
        let told = rehearsed();
        for (name, language) in [("rehearsal_en", Language::En), ("rehearsal_zh", Language::Zh)] {
            insta::assert_snapshot!(name, report(&told, &Style::plain(language, Timestamp::UNIX_EPOCH)));
        }
    }

    #[test]
    fn a_drain_that_takes_all_of_its_time_says_what_is_done_then() {
        for (on_drain_timeout, english, chinese) in [
            (OnDrainTimeout::Skip, "then its node is left out", "随后跳过该节点"),
            (OnDrainTimeout::Force, "then the pod is deleted", "随后不顾 PDB 删除该 Pod"),
        ] {
            let told = rehearsed_with(PlanOptions { on_drain_timeout, ..PlanOptions::default() });
            for (language, expected) in [(Language::En, english), (Language::Zh, chinese)] {
                let text = report(&told, &Style::plain(language, Timestamp::UNIX_EPOCH));
                assert!(text.contains(expected) && text.contains("edit pdb shop"), "{text}");
            }
        }
    }

    #[test]
    fn what_was_left_out_is_told_with_its_reason_and_how_to_have_it() {
        let mut told = rehearsed();
        let mut text = |drawn_runs_usual, settings, language| {
            told.left_out = Some(LeftOut { because: TooMuch::Pods, pods_max: 6, drawn_runs_usual, settings });
            report(&told, &Style::plain(language, Timestamp::UNIX_EPOCH))
        };
        let both = text(Some(20), true, Language::En);
        assert!(both.contains("5 of the usual 20 drawn runs, and no other settings tried: with 7 pods"), "{both}");
        assert!(both.contains("--runs 20 and --compare"), "{both}");
        assert!(text(Some(20), false, Language::En).contains("--runs 20 makes them all"));
        assert!(text(None, true, Language::En).contains("--compare tries them"));
        assert!(text(Some(20), true, Language::Zh).contains("抽样 5 次而非通常的 20 次，也未尝试其他设置"));
    }

    #[test]
    fn text_of_a_file_that_anybody_wrote_commands_no_terminal() {
        let mut told = rehearsed();
        let escape = "\u{1b}[2J\nOK";
        told.stages[0].pool = Some(escape.to_owned());
        told.version = escape.to_owned();
        told.nodes_at_risk[0].risks.push(Risk::NotReady { why: escape.to_owned() });
        told.advice.push(Advice::PoolsFirst { pools: vec![escape.to_owned()], then: vec![escape.to_owned()] });
        told.findings[0].problem = Some(not_ready(&"w1".into(), escape));
        for language in [Language::En, Language::Zh] {
            let text = report(&told, &Style::plain(language, Timestamp::UNIX_EPOCH));
            assert!(!text.contains('\u{1b}') && !text.lines().any(|line| line == "OK"), "{text}");
        }
    }
}
