//! What a control will do now, said before it is done: counts and names.

use std::collections::BTreeMap;

use shiplock_api::rest::{NodeProgressView, UpgradeView};
use shiplock_core::id::NodeName;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{NodeProgress, State, Waiting};

use super::{Style, words};

/// A master that soaks is in two stages: it counts once, as it is in the first of them that is not done.
fn nodes(upgrade: &UpgradeView, wanted: NodeProgress) -> Vec<&NodeName> {
    let all = || upgrade.stages.iter().flat_map(|stage| &stage.nodes);
    let mut counted: BTreeMap<&NodeName, NodeProgress> = BTreeMap::new();
    for node in all().filter(|node| !upgrade.abandoned.contains(&node.node)) {
        let progress = counted.entry(&node.node).or_insert(node.progress);
        if *progress == NodeProgress::Done {
            *progress = node.progress;
        }
    }
    let mut picked: Vec<&NodeName> = Vec::new();
    for NodeProgressView { node, .. } in all() {
        if counted.get(node) == Some(&wanted) && !picked.contains(&node) {
            picked.push(node);
        }
    }
    picked
}

fn point(text: &mut String, sentence: &str) {
    text.push_str(&format!("  - {sentence}\n"));
}

/// One line about nodes, if there are any.
fn about(text: &mut String, nodes: &[&NodeName], style: &Style, english: [&str; 2], chinese: &str) {
    if nodes.is_empty() {
        return;
    }
    let (count, names) =
        (words::nodes(nodes.len(), style.language), words::names(nodes.iter().copied(), style.language));
    let verb = if nodes.len() == 1 { english[0] } else { english[1] };
    point(text, &if style.zh() { format!("{count}{chinese}：{names}") } else { format!("{count} {verb}: {names}") });
}

/// What a pause does.
pub fn pause(upgrade: &UpgradeView, style: &Style) -> String {
    let mut text = String::new();
    let finishes = ["is in work and finishes", "are in work and finish"];
    about(&mut text, &nodes(upgrade, NodeProgress::InWork), style, finishes, "正在进行，将完成");
    about(
        &mut text,
        &nodes(upgrade, NodeProgress::Waiting),
        style,
        ["is not started and stays as it is", "are not started and stay as they are"],
        "未开始，保持原状",
    );
    text
}

/// What a cancel does. `abandon` are the nodes that are not waited for any more.
pub fn cancel(upgrade: &UpgradeView, abandon: &[NodeName], style: &Style) -> String {
    let mut text = match style.zh() {
        true => format!("取消升级 {}（{}）：\n", upgrade.id, upgrade.cluster),
        false => format!("Cancelling upgrade {} of {}:\n", upgrade.id, upgrade.cluster),
    };
    let waited = |wanted| nodes(upgrade, wanted).into_iter().filter(|node| !abandon.contains(node)).collect::<Vec<_>>();
    let done = ["is done and stays as it is now", "are done and stay as they are now"];
    about(&mut text, &waited(NodeProgress::Done), style, done, "已完成，保持现状");
    let finishes =
        ["has started and finishes; it is not rolled back", "have started and finish; they are not rolled back"];
    about(&mut text, &waited(NodeProgress::InWork), style, finishes, "已开始，将完成，不会回滚");
    let failed = [
        "has failed: its cordon is given back, the rest stays as it is now",
        "have failed: their cordons are given back, the rest stays as it is now",
    ];
    about(&mut text, &waited(NodeProgress::Failed), style, failed, "已失败：归还其调度状态，其余保持现状");
    let waiting = ["is not started and stays as it is", "are not started and stay as they are"];
    about(&mut text, &waited(NodeProgress::Waiting), style, waiting, "未开始，保持原状");
    let abandoned: Vec<_> = abandon.iter().collect();
    let given_up = [
        "is abandoned: not waited for any more, listed as state unknown",
        "are abandoned: not waited for any more, listed as state unknown",
    ];
    about(&mut text, &abandoned, style, given_up, "被放弃：不再等待，列为状态未知");
    let Some(held) = held_by_other(upgrade) else {
        point(
            &mut text,
            style.pick(
                "every cordon that Shiplock set is given back; then the upgrade ends for good",
                "归还 Shiplock 设置的所有不可调度标记，之后升级永久结束",
            ),
        );
        return text;
    };
    if upgrade.stages.iter().any(|stage| stage.started) {
        let held = held.sentence(style.language);
        point(
            &mut text,
            &if style.zh() {
                format!(
                    "须先等待该集群的 Lease：{held}；之前不会归还任何内容，升级也不会结束。详情：shiplock explain UPG0311"
                )
            } else {
                format!(
                    "it waits for the Lease of the cluster first: {held}; until then nothing is given back and the upgrade does not end; more: shiplock explain UPG0311"
                )
            },
        );
    } else {
        point(
            &mut text,
            style.pick(
                "nothing was begun: the upgrade ends at once and for good, and nothing is written to the cluster",
                "尚未开始任何操作：升级立即永久结束，不向集群写入任何内容",
            ),
        );
    }
    text
}

/// That another installation upgrades the cluster, where that is waited for.
fn held_by_other(upgrade: &UpgradeView) -> Option<&Problem> {
    upgrade.waiting_on.iter().find_map(|wait| match &wait.what {
        Waiting::Gate { problem } if problem.code == Code::OtherInstallation => Some(problem),
        _ => None,
    })
}

/// What a continue does.
pub fn resume(upgrade: &UpgradeView, style: &Style) -> String {
    let mut text = String::new();
    if matches!(upgrade.state, State::Planned | State::Checking) {
        point(&mut text, style.pick("the pre-check runs again", "重新运行前置检查"));
    }
    let failed = ["failed and is tried again first, alone", "failed and are tried again first, one by one"];
    about(&mut text, &nodes(upgrade, NodeProgress::Failed), style, failed, "此前失败，将最先单独重试");
    let unfinished = ["is in work and is finished first", "are in work and are finished first"];
    about(&mut text, &nodes(upgrade, NodeProgress::InWork), style, unfinished, "正在进行，将先完成");
    let next = ["follows", "follow"];
    about(&mut text, &nodes(upgrade, NodeProgress::Waiting), style, next, "随后进行");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;
    use shiplock_core::language::Language;
    use shiplock_core::upgrade::WaitingOn;

    #[test]
    fn controls_say_what_they_will_do_with_counts_and_names() {
        for (name, language) in [("en", Language::En), ("zh", Language::Zh)] {
            let (style, upgrade) = (sample::style(language), sample::upgrade_paused());
            let text = [pause(&upgrade, &style), cancel(&upgrade, &["w-3".into()], &style), resume(&upgrade, &style)];
            insta::assert_snapshot!(format!("consequence_{name}"), text.join("=====\n"));
        }
    }

    #[test]
    fn a_cancel_while_another_installation_upgrades_says_that_it_ends_at_once_or_what_it_waits_for() {
        let problem = Problem::new(Code::OtherInstallation)
            .with("holder", "inst-b")
            .with("upgrade", "up9")
            .with("since", "2026-11-23T14:30:00Z")
            .with("waiting", "u3fx9");
        let mut upgrade = sample::upgrade_paused();
        upgrade.waiting_on = vec![WaitingOn::new(Waiting::Gate { problem }, upgrade.updated_at)];
        let said = |upgrade: &UpgradeView, language| cancel(upgrade, &[], &sample::style(language));
        for (language, words) in [(Language::En, "nothing is given back"), (Language::Zh, "须先等待该集群的 Lease")]
        {
            let text = said(&upgrade, language);
            assert!(text.contains(words) && text.contains("inst-b") && text.contains("UPG0311"), "{text}");
        }
        upgrade.stages.iter_mut().for_each(|stage| stage.started = false);
        for (language, words) in [(Language::En, "ends at once"), (Language::Zh, "立即永久结束")] {
            let text = said(&upgrade, language);
            assert!(text.contains(words) && !text.contains("UPG0311"), "{text}");
        }
    }

    #[test]
    fn a_master_that_is_in_two_stages_counts_once() {
        let mut upgrade = sample::upgrade_paused();
        let count = |upgrade: &UpgradeView| {
            [NodeProgress::Done, NodeProgress::InWork, NodeProgress::Waiting].map(|wanted| nodes(upgrade, wanted).len())
        };
        let before = count(&upgrade);
        // What is in work here waits in a later stage.
        let mut later = upgrade.stages.last().unwrap().clone();
        let all = upgrade.stages.iter().flat_map(|stage| &stage.nodes);
        later.nodes = all.filter(|node| node.progress == NodeProgress::InWork).cloned().collect();
        assert!(!later.nodes.is_empty());
        later.nodes.iter_mut().for_each(|node| node.progress = NodeProgress::Waiting);
        upgrade.stages.push(later);
        assert_eq!(count(&upgrade), before);
    }

    #[test]
    fn of_many_nodes_the_first_are_named_and_the_rest_counted() {
        let names: Vec<NodeName> = (1..=40).map(|number| NodeName::new(format!("w-{number}"))).collect();
        assert!(words::names(&names, Language::En).ends_with("w-12 and 28 more"));
        assert!(words::names(&names, Language::Zh).ends_with("w-12 等另外 28 个"));
    }
}
