//! What a control will do now, said before it is done: counts and names.

use std::collections::BTreeMap;

use shiplock_api::rest::{NodeProgressView, UpgradeView};
use shiplock_core::id::NodeName;
use shiplock_core::upgrade::{NodeProgress, State};

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
    point(
        &mut text,
        style.pick(
            "every cordon that Shiplock set is given back; then the upgrade ends for good",
            "归还 Shiplock 设置的所有不可调度标记，之后升级永久结束",
        ),
    );
    text
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

    #[test]
    fn controls_say_what_they_will_do_with_counts_and_names() {
        for (name, language) in [("en", Language::En), ("zh", Language::Zh)] {
            let (style, upgrade) = (sample::style(language), sample::upgrade_paused());
            let text = [pause(&upgrade, &style), cancel(&upgrade, &["w-3".into()], &style), resume(&upgrade, &style)];
            insta::assert_snapshot!(format!("consequence_{name}"), text.join("=====\n"));
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
