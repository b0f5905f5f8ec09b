//! A plan as people read it before they accept it.

use std::collections::BTreeSet;

use shiplock_core::estimate::estimate;
use shiplock_core::plan::{DrainDecision, NewApiObjects, NodePlan, Note, Plan, Stage, StageKind};
use shiplock_core::step::Action;
use shiplock_core::upgrade::batch::size_limit;

use super::{Style, Tone, table, time, words};

/// How many nodes of a pool are shown.
const NODES_MAX: usize = 25;
/// How many notes are shown.
const NOTES_MAX: usize = 20;

/// The whole plan.
pub fn plan(plan: &Plan, style: &Style) -> String {
    let language = style.language;
    let mut text = format!(
        "{} {}  {}  {} → {}\n",
        style.pick("plan", "计划"),
        style.tone(Tone::Strong, plan.id.as_str()),
        plan.cluster,
        versions_before(plan, style),
        style.tone(Tone::Strong, &plan.to.to_string()),
    );
    text.push_str(&format!(
        "{}\n\n",
        style.tone(
            Tone::Faint,
            &if style.zh() {
                format!(
                    "控制面 {}   版本目录 {}   由 {} 于 {} 制定   哈希 {}",
                    plan.control_plane,
                    plan.catalogue,
                    plan.created_by,
                    style.date(plan.created_at),
                    short(&plan.hash)
                )
            } else {
                format!(
                    "control plane {}   catalogue {}   made {} by {}   hash {}",
                    plan.control_plane,
                    plan.catalogue,
                    style.date(plan.created_at),
                    plan.created_by,
                    short(&plan.hash)
                )
            }
        ),
    ));
    if let Some(upgrade) = plan.takes_back() {
        text.push_str(&if style.zh() {
            format!("回退升级 {upgrade}：后升级的控制面节点先回退\n\n")
        } else {
            format!("Takes back upgrade {upgrade}: the master that was swapped last goes first\n\n")
        });
    }
    let names: Vec<String> = plan.stages.iter().map(|stage| stage_name(stage, style)).collect();
    let width = names.iter().map(|name| unicode_width::UnicodeWidthStr::width(name.as_str())).max().unwrap_or_default();
    for (index, (stage, name)) in plan.stages.iter().zip(&names).enumerate() {
        let name = table::pad(name, width);
        text.push_str(&format!("{:>3}  {name}  {}\n", index + 1, stage_sentence(plan, stage, style)));
        if !stage.nodes.is_empty() {
            text.push_str(&nodes(plan, &stage.nodes, style));
        }
    }
    text.push_str(&format!("\n{}\n", expected(plan, style)));
    text.push_str(&format!("{}\n", options(plan, style)));
    if !plan.notes.is_empty() {
        text.push_str(&format!(
            "\n{}\n",
            style.tone(Tone::Strong, style.pick("To know before you accept", "接受前须知"))
        ));
        for note in plan.notes.iter().take(NOTES_MAX) {
            let way = asks_for(note).filter(|check| !plan.options.accepts(check)).map(|check| {
                if style.zh() {
                    format!("；用 --accept {check} 接受")
                } else {
                    format!("; accept that with --accept {check}")
                }
            });
            let sentence = note_sentence(note, style) + &way.unwrap_or_default();
            text.push_str(&format!("  - {}\n", table::one_line(&sentence)));
        }
        if let Some(more) = plan.notes.len().checked_sub(NOTES_MAX).filter(|more| *more > 0) {
            text.push_str(&if style.zh() {
                format!("  … 另有 {more} 条（-o json）\n")
            } else {
                format!("  … and {more} more (-o json)\n")
            });
        }
    }
    let nodes = words::nodes(plan.nodes_in_the_end().len(), language);
    text.push_str(&if style.zh() {
        format!("\n尚未做任何更改；将涉及 {nodes}。\n")
    } else {
        format!("\nNothing is touched yet; {nodes} would be.\n")
    });
    text
}

fn expected(plan: &Plan, style: &Style) -> String {
    let range = time::range(estimate(plan), style.language);
    match (style.zh(), plan.measured.is_empty()) {
        (true, true) => {
            format!("预计 {range}（默认值：该集群尚无测量记录）；不含等待人员或 PodDisruptionBudget 的时间")
        }
        (true, false) => format!("预计 {range}（依据该集群以往的升级）；不含等待人员或 PodDisruptionBudget 的时间"),
        (false, true) => {
            format!(
                "Expected {range} (defaults: nothing was measured on this cluster yet), waits for people and budgets not counted"
            )
        }
        (false, false) => {
            format!("Expected {range} (from this cluster's earlier upgrades), waits for people and budgets not counted")
        }
    }
}

/// The first digits of a hash, enough to compare by eye.
fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

fn versions_before(plan: &Plan, style: &Style) -> String {
    let versions: BTreeSet<_> = plan.nodes().map(|node| node.kubelet_from).collect();
    match (versions.first(), versions.last()) {
        (Some(first), Some(last)) if first != last => format!("{first} {} {last}", style.pick("to", "至")),
        (Some(only), _) => only.to_string(),
        _ => plan.control_plane.to_string(),
    }
}

fn stage_name(stage: &Stage, style: &Style) -> String {
    words::stage(stage.kind.word(), stage.kind.pool().map(|pool| pool.as_str()), style.language)
}

fn stage_sentence(plan: &Plan, stage: &Stage, style: &Style) -> String {
    match &stage.kind {
        StageKind::Preparation => {
            let fetching = stage.steps.iter().filter(|step| matches!(step.action, Action::Prefetch { .. })).count();
            let nodes = words::nodes(fetching, style.language);
            if fetching == 0 {
                style
                    .pick("baseline recorded; changes nothing that runs", "记录基线；不更改任何运行中的内容")
                    .to_owned()
            } else if style.zh() {
                format!("记录基线；向 {nodes}预取制品；不更改任何运行中的内容")
            } else {
                format!("baseline recorded, artefacts fetched to {nodes}; changes nothing that runs")
            }
        }
        StageKind::Verification => style
            .pick(
                "every node read back, every workload compared with the baseline",
                "回读每个节点，并与基线比较每个工作负载",
            )
            .to_owned(),
        StageKind::Backup => style
            .pick(
                "etcd saved through one of its members, checked, kept by the server",
                "通过一个成员备份 etcd，校验并由服务端保存",
            )
            .to_owned(),
        StageKind::ClusterConfiguration => style
            .pick(
                "what kubeadm keeps in the cluster for new nodes and kubelets",
                "kubeadm 保存在集群中、供新节点和 kubelet 使用的配置",
            )
            .to_owned(),
        StageKind::AddOns => style.pick("kube-proxy and CoreDNS", "kube-proxy 与 CoreDNS").to_owned(),
        StageKind::Soak { seconds, emulates } => {
            let time = time::duration((*seconds).into(), style.language);
            if style.zh() {
                format!("{time}：控制面运行 {} 并模拟 {emulates}，期间持续检查；随时可无损回退", plan.to)
            } else {
                format!(
                    "{time}: the masters run {} and emulate {emulates}, all is watched; going back loses nothing",
                    plan.to
                )
            }
        }
        StageKind::ControlPlane | StageKind::StepUp | StageKind::NodePool { .. } => {
            let (nodes, batches) = (
                words::nodes(stage.nodes.len(), style.language),
                batches(stage.nodes.len(), stage.max_parallel(plan.options.max_parallel)),
            );
            format!("{nodes}   {} {batches}", style.pick("batches", "批次"))
        }
    }
}

/// The sizes that batches will have if nothing goes wrong: `1 2 4 8 10 ×7`.
pub fn batches(nodes: usize, max_parallel: u32) -> String {
    let mut left = nodes;
    let mut sizes: Vec<(usize, usize)> = Vec::new();
    let mut ordinal = 1;
    while left > 0 {
        let size = left.min(size_limit(ordinal, max_parallel) as usize);
        match sizes.last_mut() {
            Some((last, times)) if *last == size => *times += 1,
            _ => sizes.push((size, 1)),
        }
        left -= size;
        ordinal = ordinal.saturating_add(1);
    }
    let shown = sizes.iter().map(|(size, times)| match times {
        1 => size.to_string(),
        2 => format!("{size} {size}"),
        _ => format!("{size} ×{times}"),
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn nodes(plan: &Plan, nodes: &[NodePlan], style: &Style) -> String {
    let titles = [
        style.pick("NODE", "节点"),
        "KUBELET",
        style.pick("RUNTIME", "运行时"),
        style.pick("DRAIN", "排空"),
        style.pick("NOTE", "备注"),
    ];
    let mut table = table::Table::new(titles).indented(7);
    for node in nodes.iter().take(NODES_MAX) {
        let kubelet = if node.drain == DrainDecision::SkippedKubeletStays {
            node.kubelet_from.to_string()
        } else if node.kubelet_from == plan.to {
            plan.to.to_string()
        } else {
            format!("{} → {}", node.kubelet_from, plan.to)
        };
        let before = node.container_runtime_from.trim_start_matches("containerd://");
        let runtime = node.steps.iter().find_map(|step| match &step.action {
            Action::UpgradeContainerRuntime { version, .. } => {
                Some(format!("{before} → {}", version.trim_start_matches('v')))
            }
            _ => None,
        });
        let drain = match node.drain {
            DrainDecision::Drain => style.pick("yes", "是"),
            DrainDecision::SkippedByOption => style.pick("no: --drain never", "否：--drain never"),
            DrainDecision::SkippedForPatch => style.pick("no: patch only", "否：仅补丁版本"),
            DrainDecision::SkippedKubeletStays => style.pick("no: kubelet stays", "否：kubelet 不变"),
            DrainDecision::SkippedNowhereToGo => style.pick("no: nowhere to go", "否：Pod 无处可去"),
        };
        let note = if node.cordoned_before { style.pick("stays cordoned", "保持不可调度") } else { "" };
        table.row([
            node.node.to_string(),
            kubelet,
            runtime.unwrap_or_else(|| before.to_owned()),
            drain.to_owned(),
            note.to_owned(),
        ]);
    }
    let mut text = table.render();
    if let Some(more) = nodes.len().checked_sub(NODES_MAX).filter(|more| *more > 0) {
        text.push_str(&if style.zh() {
            format!("       … 另有 {more} 个（-o json）\n")
        } else {
            format!("       … and {more} more (-o json)\n")
        });
    }
    text
}

fn options(plan: &Plan, style: &Style) -> String {
    let options = &plan.options;
    let seconds = |seconds: u32| time::duration(seconds.into(), style.language);
    let (drain, timeout) = (words::choice(&options.drain), seconds(options.drain_timeout_seconds));
    let then = words::choice(&options.on_drain_timeout);
    let (pause, runtime) = (words::choice(&options.pause_policy), words::choice(&options.container_runtime));
    let (parallel, interval) = (options.max_parallel, seconds(options.batch_interval_seconds));
    let (contact, ready, gate) = (
        seconds(options.contact_timeout_seconds),
        seconds(options.node_ready_timeout_seconds),
        seconds(options.gate_timeout_seconds),
    );
    let expiry = seconds(options.expiry_seconds);
    let mut text = if style.zh() {
        format!(
            "选项：每批最多 {parallel} 个节点；排空 {drain}，最长 {timeout}，超时则 {then}；暂停策略 {pause}；批次间隔 {interval}；容器运行时 {runtime}\n\
             时限：agent 失联 {contact}，节点就绪 {ready}，门禁 {gate}；暂停满 {expiry}后关闭"
        )
    } else {
        format!(
            "Options: at most {parallel} at once; drain {drain}, {timeout} at most, then {then}; pause policy {pause}; {interval} between batches; container runtime {runtime}\n\
             Limits: agent silent {contact}, node ready {ready}, gate {gate}; closed after {expiry} of pause"
        )
    };
    for (label, words) in [
        (style.pick("Accepted", "已接受"), options.accept.join(", ")),
        (style.pick("kubeadm ignores", "kubeadm 忽略"), options.ignore_preflight_errors.join(", ")),
        (style.pick("kubeadm patches", "kubeadm 补丁"), options.kubeadm_patches.clone().unwrap_or_default()),
    ] {
        if !words.is_empty() {
            text.push_str(&format!("\n{label}{}{words}", style.pick(": ", "：")));
        }
    }
    if !options.renew_certificates {
        text.push('\n');
        text.push_str(style.pick("Certificates: kept, not renewed", "证书：保留，不续期"));
    }
    text
}

/// The check whose finding must be let pass by name before what a note says is done.
fn asks_for(note: &Note) -> Option<&'static str> {
    match note {
        Note::ApiAway { .. } => Some("CP-003"),
        Note::NewApiObjects(_) | Note::NewApisUnknown { .. } => Some("CP-015"),
        _ => None,
    }
}

/// What a plan would be blocked for at its start until it is made again with it accepted.
pub fn to_accept(plan: &Plan) -> BTreeSet<&'static str> {
    plan.notes.iter().filter_map(asks_for).filter(|check| !plan.options.accepts(check)).collect()
}

/// A note in one sentence.
pub fn note_sentence(note: &Note, style: &Style) -> String {
    let zh = style.zh();
    match note {
        Note::NodeUpToDate { node } if zh => format!("节点 {node} 已是目标版本，不参与升级"),
        Note::NodeUpToDate { node } => format!("node {node} runs the target already and is left out"),
        Note::NodeNotReady { node, why } if zh => {
            format!("节点 {node} 未就绪且其 agent 无响应，不参与升级，保持原版本（{why}）")
        }
        Note::NodeNotReady { node, why } => {
            format!("node {node} is not Ready and its agent is silent: it is left out and stays at its version ({why})")
        }
        Note::ApiAway { node, seconds } if zh => {
            format!("集群只有一个控制面节点 {node}：改动该节点期间 API 约有 {seconds} 秒无响应")
        }
        Note::ApiAway { node, seconds } => {
            format!("{node} is the only master: the API does not answer for about {seconds} s while it is changed")
        }
        Note::Soak { emulates, seconds } => {
            let time = time::duration((*seconds).into(), style.language);
            if zh {
                format!(
                    "每个控制面节点切换两次：先换上新版本并模拟 {emulates}，试运行 {time}后再切换到新版本并升级 kubelet；在此之前可用 shiplock rollback 无损回退，此后不再提供回退"
                )
            } else {
                format!(
                    "each master is swapped twice: first to the new version that emulates {emulates}, and after a soak of {time} to what it is, with its kubelet; until then shiplock rollback loses nothing, after that there is no way back"
                )
            }
        }
        Note::EtcdMinorChanges { from, to } if zh => {
            format!("etcd 从 {from} 升级到 {to}（次版本变化）：之后回退控制面时 etcd 保持 {to}")
        }
        Note::EtcdMinorChanges { from, to } => {
            format!("etcd goes from {from} to {to}, another minor: a later way back leaves it there")
        }
        Note::ConfigurationStale { named, running } if zh => {
            format!("ConfigMap kubeadm-config 记录的版本是 {named}，实际运行 {running}：将会更新")
        }
        Note::ConfigurationStale { named, running } => {
            format!("ConfigMap kubeadm-config names {named} and {running} runs: it is brought up to date")
        }
        Note::CertificatesNotRenewed { ends_at } if zh => {
            format!("CA 私钥不在控制面节点上：证书不会续期，最早于 {ends_at} 到期")
        }
        Note::CertificatesNotRenewed { ends_at } => {
            format!("the key of the CA is not on the masters: certificates are not renewed, the first ends {ends_at}")
        }
        Note::MasterGoesBack { node, changes } if zh => format!("控制面节点 {node} 回退：{}", changes.join("，")),
        Note::MasterGoesBack { node, changes } => format!("master {node} goes back: {}", changes.join(", ")),
        Note::EtcdStays { version } if zh => format!("etcd 保持 {version}：旧的次版本不接受新版本的数据"),
        Note::EtcdStays { version } => {
            format!("etcd stays at {version}: the older minor version refuses the data of the newer one")
        }
        Note::NewApiObjects(NewApiObjects { api, count, names }) if zh => format!(
            "{count} 个 {api} 对象仅新版本提供（{}{}）：旧版本不显示也不处理它们",
            names.join("、"),
            if names.len() as u64 == *count { "" } else { " 等" }
        ),
        Note::NewApiObjects(NewApiObjects { api, count, names }) => format!(
            "{count} {} of {api}, which only the newer version serves ({}{}): the older one does not show them and nothing acts on them",
            if *count == 1 { "object" } else { "objects" },
            names.join(", "),
            if names.len() as u64 == *count { "" } else { ", …" }
        ),
        Note::NewApisUnknown { problem } if zh => {
            let why = problem.sentence(style.language);
            format!("未知是否存在仅新版本提供的对象（{why}）")
        }
        Note::NewApisUnknown { problem } => format!(
            "it is not known whether there are objects that only the newer version serves ({})",
            problem.sentence(style.language)
        ),
        Note::NodeCordonedByOthers { node } if zh => {
            format!("节点 {node} 已被他人设为不可调度；会被升级，并保持不可调度")
        }
        Note::NodeCordonedByOthers { node } => {
            format!("node {node} is cordoned by somebody else: it is upgraded and stays cordoned")
        }
        Note::BudgetAllowsNothing { budget } if zh => {
            format!("PodDisruptionBudget {budget} 当前不允许中断；排空将等待它")
        }
        Note::BudgetAllowsNothing { budget } => {
            format!("PodDisruptionBudget {budget} allows no disruption now; a drain will wait for it")
        }
        Note::PodsNotMadeAnew { count, names } => {
            let more = if names.len() == *count { "" } else { style.pick(", …", " 等") };
            if zh {
                format!("没有控制器的 Pod 会随排空结束，且不会重建（{count} 个）：{}{more}", names.join("、"))
            } else {
                format!(
                    "pods without a controller end with the drain and are not made anew ({count}): {}{more}",
                    names.join(", ")
                )
            }
        }
        Note::DrainSkipped { node } if zh => {
            format!("节点 {node} 不排空，因为没有其他节点可承接其 Pod；仅当运行时重启时 Pod 才会重启")
        }
        Note::DrainSkipped { node } => {
            format!(
                "node {node} is not drained since no other node could take its pods; they restart only if the runtime does"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;
    use shiplock_core::language::Language;

    #[test]
    fn a_plan_reads_well_in_both_languages() {
        for (name, language) in [("en", Language::En), ("zh", Language::Zh)] {
            let back = plan(&sample::rollback_plan(), &sample::style(language));
            insta::assert_snapshot!(format!("rollback_{name}"), back);
            insta::assert_snapshot!(format!("plan_{name}"), plan(&sample::plan(), &sample::style(language)));
        }
    }

    #[test]
    fn batches_are_foretold_by_the_batch_law() {
        for (nodes, max, expected) in [
            (0, 10, ""),
            (1, 10, "1"),
            (5, 10, "1 2 2"),
            (3, 1, "1 ×3"),
            (100, 10, "1 2 4 8 10 ×8 5"),
            (29, 10, "1 2 4 8 10 4"),
        ] {
            assert_eq!(batches(nodes, max), expected, "{nodes} nodes, {max} at once");
        }
    }
}
