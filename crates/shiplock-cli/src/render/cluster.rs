//! Clusters, nodes and agents as tables.

use shiplock_api::rest::{AgentView, ClusterView, JoinToken, NodeView};
use shiplock_core::facts::{ComponentFacts, Observed};

use super::table::{Table, one_line};
use super::{Style, Tone, problem, words};

/// The list of clusters.
pub fn list(clusters: &[ClusterView], style: &Style) -> String {
    if clusters.is_empty() {
        return format!(
            "{}\n",
            style.pick(
                "No cluster is registered. Register one: shiplock cluster add NAME --kubeconfig FILE",
                "尚未注册集群。注册：shiplock cluster add NAME --kubeconfig FILE"
            )
        );
    }
    let titles = [
        style.pick("NAME", "名称"),
        style.pick("VERSION", "版本"),
        style.pick("NEXT", "可升级到"),
        style.pick("SUPPORT", "支持剩余"),
        style.pick("NODES", "节点"),
        style.pick("AGENTS", "AGENT"),
        style.pick("UPGRADE", "升级"),
    ];
    let mut table = Table::new(titles);
    for cluster in clusters {
        let nodes = cluster.control_plane.iter().chain(cluster.pools.iter().flat_map(|pool| &pool.nodes));
        let (all, agents) = nodes.fold((0, 0), |(all, agents), node| (all + 1, agents + usize::from(node.agent)));
        table.row([
            cluster.name.to_string(),
            cluster
                .version
                .map_or_else(|| style.pick("unreachable", "无法读取").to_owned(), |version| version.to_string()),
            cluster.next_versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            support(cluster.support_days_left, style),
            all.to_string(),
            format!("{agents}/{all}"),
            cluster.upgrade.as_ref().map(ToString::to_string).unwrap_or_default(),
        ]);
    }
    let mut text = table.render();
    for (cluster, found) in clusters.iter().filter_map(|cluster| Some((cluster, cluster.problem.as_ref()?))) {
        text.push_str(&format!("\n{}  {}", cluster.name, problem::problem(found, style)));
    }
    text
}

fn support(days: Option<i64>, style: &Style) -> String {
    match days {
        None => String::new(),
        Some(days) if days < 0 && style.zh() => format!("已过期 {} 天", -days),
        Some(days) if days < 0 => format!("ended {}d ago", -days),
        Some(days) if style.zh() => format!("{days} 天"),
        Some(days) => format!("{days}d"),
    }
}

/// One cluster with its pools and nodes.
pub fn show(cluster: &ClusterView, style: &Style) -> String {
    let version =
        cluster.version.map_or_else(|| style.pick("unreachable", "无法读取").to_owned(), |version| version.to_string());
    let mut text =
        format!("{}  {version}  {}\n", style.tone(Tone::Strong, cluster.name.as_str()), one_line(&cluster.server));
    let next = cluster.next_versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let rows = [
        (style.pick("identity", "标识"), cluster.uid.to_string()),
        (style.pick("next versions", "可升级到"), next),
        (style.pick("support left", "支持剩余"), support(cluster.support_days_left, style)),
        (style.pick("mirror", "镜像站"), cluster.mirror.clone().unwrap_or_default()),
        (style.pick("upgrade", "升级"), cluster.upgrade.as_ref().map(ToString::to_string).unwrap_or_default()),
    ];
    for (name, value) in rows {
        let value = if value.is_empty() { "-".to_owned() } else { one_line(&value) };
        text.push_str(&format!("  {}{value}\n", super::table::pad(name, 15)));
    }
    if let Some(found) = &cluster.problem {
        text.push_str(&format!("\n{}", problem::problem(found, style)));
    }
    let masters = (words::stage("control_plane", None, style.language), &cluster.control_plane);
    let pools = cluster
        .pools
        .iter()
        .map(|pool| (words::stage("node_pool", Some(pool.name.as_str()), style.language), &pool.nodes));
    for (name, nodes) in std::iter::once(masters).chain(pools).filter(|(_, nodes)| !nodes.is_empty()) {
        let count = words::nodes(nodes.len(), style.language);
        text.push_str(&format!("\n{}  {count}\n{}", style.tone(Tone::Strong, &name), node_table(nodes, style)));
    }
    text
}

fn node_table(nodes: &[NodeView], style: &Style) -> String {
    let titles =
        [style.pick("NODE", "节点"), "KUBELET", style.pick("RUNTIME", "运行时"), style.pick("STATE", "状态"), "AGENT"];
    let mut table = Table::new(titles).indented(2);
    for node in nodes {
        let mut state =
            if node.ready { style.pick("Ready", "就绪") } else { style.pick("not Ready", "未就绪") }.to_owned();
        if node.cordoned {
            state.push_str(style.pick(", cordoned", "，不可调度"));
        }
        let agent = if node.agent { style.pick("ok", "正常") } else { style.pick("none", "无") };
        table.row([
            node.name.to_string(),
            node.kubelet.clone(),
            node.container_runtime.clone(),
            state,
            agent.to_owned(),
        ]);
    }
    table.render()
}

/// The agents of a cluster.
pub fn agents(agents: &[AgentView], style: &Style) -> String {
    if agents.is_empty() {
        let text = style.pick(
            "No agent is enrolled. On each node run the command of: shiplock agent join-command CLUSTER",
            "尚无 agent 注册。请在每个节点上运行此命令的输出：shiplock agent join-command CLUSTER",
        );
        return format!("{text}\n");
    }
    let titles = [
        style.pick("NODE", "节点"),
        style.pick("HEARD OF", "最近联系"),
        "AGENT",
        style.pick("ARCHITECTURE", "架构"),
        "KUBELET",
        style.pick("RUNTIME", "运行时"),
        style.pick("FREE", "可用空间"),
    ];
    let mut table = Table::new(titles);
    for agent in agents {
        let heard = match agent.last_heard_at {
            Some(at) if style.zh() => format!("{}前", style.since(at)),
            Some(at) => format!("{} ago", style.since(at)),
            None => style.pick("never", "从未").to_owned(),
        };
        table.row([
            agent.node.to_string(),
            heard,
            agent.machine.agent_version.clone(),
            agent.machine.architecture.clone(),
            component(&agent.machine.kubelet, style),
            component(&agent.machine.container_runtime, style),
            format!("{} MiB", agent.machine.staging_free_bytes >> 20),
        ]);
    }
    table.render()
}

fn component(observed: &Observed<ComponentFacts>, style: &Style) -> String {
    match observed {
        Observed::Known(facts) => format!("{} ({})", facts.version, facts.install.label()),
        Observed::Unknown { problem, .. } => format!("{}: {}", style.pick("unknown", "未知"), problem.code),
    }
}

/// The command that enrols an agent, and what it is good for.
pub fn join(token: &JoinToken, style: &Style) -> String {
    let until = style.until(token.expires_at);
    let explanation = if style.zh() {
        format!("在一个装有 shiplock-agent 程序的节点上以 root 运行（仅可使用一次，{until}后失效，此处仅显示一次）：")
    } else {
        format!(
            "Run on one node that has the program shiplock-agent, as root (good for one node, ends in {until}, shown only here):"
        )
    };
    format!("{explanation}\n\n  {}\n", token.command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;
    use shiplock_core::language::Language;

    #[test]
    fn clusters_and_agents_line_up_in_both_languages() {
        for (name, language) in [("en", Language::En), ("zh", Language::Zh)] {
            let style = sample::style(language);
            let clusters = sample::clusters();
            let text = [
                list(&clusters, &style),
                show(&clusters[0], &style),
                agents(&sample::agents(), &style),
                join(&sample::join_token(), &style),
            ];
            insta::assert_snapshot!(format!("cluster_{name}"), text.join("\n=====\n"));
        }
    }
}
