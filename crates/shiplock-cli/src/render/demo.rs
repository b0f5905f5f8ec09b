//! What `demo` says when it is up: what there is, and what to try next.

use shiplock_sim::demo::Standing;

use super::{Style, Tone};
use crate::result::{DemoCluster, DemoStarted};

/// The stable word for how a cluster stands, as in JSON.
pub(crate) fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Ready => "ready",
        Standing::Underway => "underway",
        Standing::Blocked => "blocked",
    }
}

/// What is said at the begin.
pub(crate) fn begin(started: &DemoStarted, style: &Style) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    let speed = started.speed;
    line(style.tone(
        Tone::Strong,
        &if style.zh() {
            format!("Shiplock 演示：一个真实的服务器，三个模拟集群，集群内的一切快 {speed} 倍。")
        } else {
            format!(
                "Shiplock demo: one real server, three simulated clusters. Everything in them is {speed} times as fast."
            )
        },
    ));
    line(if started.folder_stays {
        style.pick("Ctrl-C ends it; its directory stays.", "Ctrl-C 结束，数据目录保留。").to_owned()
    } else {
        style.pick("Ctrl-C ends it and leaves nothing behind.", "Ctrl-C 结束，不留下任何东西。").to_owned()
    });
    line(String::new());
    for cluster in &started.clusters {
        line(format!("  {:<8} {}  {}", cluster.name.as_str(), size(cluster, style), standing(cluster, style)));
    }
    line(String::new());
    line(style.pick("In another terminal:", "在另一个终端中：").to_owned());
    line(String::new());
    line(format!("  export SHIPLOCK_SERVER={}", started.server));
    line(format!("  alias shiplock={}", started.program));
    for (command, english, chinese) in tries(started) {
        let said = style.tone(Tone::Faint, &format!("# {}", style.pick(english, chinese)));
        line(format!("  {command:<42} {said}"));
    }
    text
}

fn size(cluster: &DemoCluster, style: &Style) -> String {
    let DemoCluster { masters, workers, .. } = cluster;
    if style.zh() {
        format!("{masters} 个控制面节点，{workers:>2} 个工作节点")
    } else {
        format!("{masters} {:<8} {workers:>2} workers", if *masters == 1 { "master," } else { "masters," })
    }
}

fn standing(cluster: &DemoCluster, style: &Style) -> String {
    let upgrade = cluster.upgrade.as_ref().map(ToString::to_string).unwrap_or_default();
    let (tone, english, chinese) = match cluster.standing.as_str() {
        "ready" => (Tone::Good, "ready for 1.36".to_owned(), "可升级到 1.36".to_owned()),
        "underway" => (
            Tone::Busy,
            format!("in the middle of upgrade {upgrade} to 1.36"),
            format!("升级 {upgrade} 到 1.36 进行中"),
        ),
        _ => (
            Tone::Bad,
            format!("upgrade {upgrade} is stopped by the pre-check, and a budget would hold its drains"),
            format!("升级 {upgrade} 被升级前检查拦下，且有 PodDisruptionBudget 会阻止排空"),
        ),
    };
    style.tone(tone, if style.zh() { &chinese } else { &english })
}

/// Commands to try, with what they show.
fn tries(started: &DemoStarted) -> Vec<(String, &'static str, &'static str)> {
    let find = |standing: &str| started.clusters.iter().find(|cluster| cluster.standing == standing);
    let mut tries = vec![("shiplock cluster list".to_owned(), "what there is", "有哪些集群")];
    if let Some(upgrade) = find("underway").and_then(|cluster| cluster.upgrade.as_ref()) {
        tries.push((
            format!("shiplock watch {upgrade}"),
            "live; Ctrl-C leaves it going",
            "实时观看；Ctrl-C 离开，升级继续",
        ));
        tries.push((
            format!("shiplock pause {upgrade}"),
            "what has started finishes; then: continue",
            "已开始的做完；之后用 continue",
        ));
    }
    if let Some(cluster) = find("ready") {
        let name = &cluster.name;
        tries.push((format!("shiplock plan {name} --to 1.36"), "touches nothing", "不改动任何东西"));
        tries.push((
            format!("shiplock upgrade {name} --to 1.36"),
            "shows the plan, asks, stays attached",
            "显示计划，询问，然后跟随",
        ));
        tries.push((
            format!("kubectl --kubeconfig {} get nodes -w", cluster.kubeconfig),
            "any Kubernetes client",
            "任何 Kubernetes 客户端",
        ));
    }
    if let Some(cluster) = find("blocked") {
        if let Some(upgrade) = &cluster.upgrade {
            tries.push((
                format!("shiplock upgrades show {upgrade}"),
                "what stops it, and how to let it pass",
                "被什么拦下，如何放行",
            ));
            tries.push((
                format!("shiplock cancel {upgrade}"),
                "then again with --accept CP-003,CP-008,WHK-006,WL-001",
                "之后加 --accept CP-003,CP-008,WHK-006,WL-001 再来",
            ));
        }
        tries.push((
            format!("shiplock check --kubeconfig {}", cluster.kubeconfig),
            "what an upgrade would break",
            "升级会破坏什么",
        ));
    }
    tries.push((
        "shiplock explain UPG0407".to_owned(),
        "every problem has a page, offline",
        "每个问题都有说明，离线可读",
    ));
    tries
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use shiplock_core::language::Language;

    use super::*;

    #[test]
    fn what_the_demo_says_teaches_the_next_steps_in_both_languages() {
        let cluster = |name: &str, standing: Standing, masters, workers, upgrade: Option<&str>| DemoCluster {
            name: name.into(),
            standing: word(standing).to_owned(),
            masters,
            workers,
            kubeconfig: format!("/tmp/shiplock-demo-x/{name}.kubeconfig"),
            upgrade: upgrade.map(Into::into),
        };
        let started = DemoStarted {
            server: "/tmp/shiplock-demo-x/shiplock.sock".to_owned(),
            program: "/usr/bin/shiplock".to_owned(),
            speed: 10,
            folder: "/tmp/shiplock-demo-x".to_owned(),
            folder_stays: false,
            clusters: vec![
                cluster("museum", Standing::Blocked, 1, 3, Some("ub10c")),
                cluster("bakery", Standing::Ready, 3, 6, None),
                cluster("harbour", Standing::Underway, 3, 16, Some("uha1f")),
            ],
        };
        for (name, language) in [("demo_en", Language::En), ("demo_zh", Language::Zh)] {
            insta::assert_snapshot!(name, begin(&started, &Style::plain(language, Timestamp::UNIX_EPOCH)));
        }
    }
}
