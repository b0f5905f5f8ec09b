//! `cluster` and `agent`.

use std::path::Path;

use shiplock_api::rest::{ClusterAdd, ClusterChange};
use shiplock_cluster::kubeconfig::{InlinedKubeconfig, Kubeconfig, KubeconfigSource};
use shiplock_cluster::role::ROLE_MANIFEST;
use shiplock_core::id::ClusterName;
use shiplock_core::problem::Problem;

use super::Context;
use super::confirm::confirm;
use crate::arguments::{AgentCommand, ClusterAddArguments, ClusterCommand, ClusterUpdateArguments};
use crate::exit::Exit;
use crate::output::Output;
use crate::render::{cluster, table::one_line};
use crate::result;

pub(super) async fn run<'a>(
    command: ClusterCommand,
    context: impl FnOnce() -> Result<Context<'a>, Problem>,
    output: &Output,
) -> Result<Exit, Problem> {
    match command {
        ClusterCommand::Add(options) => return add(options, &context()?).await,
        ClusterCommand::List => {
            let clusters = context()?.client.clusters().await?;
            output.result(result::Clusters { clusters: clusters.clone() }, |style| cluster::list(&clusters, style));
        }
        ClusterCommand::Show { cluster: name } => {
            let found = context()?.client.cluster(&name.as_str().into()).await?;
            output.result(result::Cluster { cluster: found.clone() }, |style| cluster::show(&found, style));
        }
        ClusterCommand::JoinInstructions { cluster: name, architecture } => {
            let found = context()?.client.join_instructions(&name.as_str().into(), &architecture).await?;
            let script = found.script(output.language());
            let data = result::JoinScript { join_instructions: found, script: script.clone() };
            output.result(data, |_| script);
        }
        ClusterCommand::Update(options) => return update(options, &context()?).await,
        ClusterCommand::Remove { cluster: name, yes } => return remove(&name.as_str().into(), yes, &context()?).await,
        ClusterCommand::Role => {
            output.result(result::Role { manifest: ROLE_MANIFEST.to_owned() }, |_| ROLE_MANIFEST.to_owned());
        }
    }
    Ok(Exit::Done)
}

async fn add(options: ClusterAddArguments, context: &Context<'_>) -> Result<Exit, Problem> {
    let Context { client, output } = context;
    let InlinedKubeconfig { text, context: named, server } =
        inlined(options.kubeconfig.as_deref(), options.context.as_deref(), &options.allow)?;
    let (name, named, server, through) = (&options.name, one_line(&named), one_line(&server), client.endpoint());
    output.remark(&if output.style().zh() {
        format!("上下文 {named}，API server {server}：注册为 {name}，经由 {through}")
    } else {
        format!("Context {named}, API server {server}: registering it as {name} through {through}")
    });
    let asked =
        ClusterAdd { name: name.as_str().into(), kubeconfig: text, allow: options.allow, mirror: options.mirror };
    let added = client.add_cluster(&asked).await?;
    output.result(result::Cluster { cluster: added.clone() }, |style| {
        let mut text = cluster::show(&added, style);
        text.push('\n');
        if added.mirror.is_none() {
            text.push_str(
                style
                    .pick(
                        "A plan needs a mirror: shiplock cluster update NAME --mirror URL when you have one.\n",
                        "制定计划需要镜像站：准备好后执行 shiplock cluster update NAME --mirror URL。\n",
                    )
                    .replace("NAME", added.name.as_str())
                    .as_str(),
            );
        }
        text.push_str(&format!("{} shiplock agent join-command {}\n", style.pick("next:", "下一步："), added.name));
        text
    });
    Ok(Exit::Done)
}

fn inlined(file: Option<&Path>, context: Option<&str>, allow: &[String]) -> Result<InlinedKubeconfig, Problem> {
    let (variable, home) = (std::env::var_os("KUBECONFIG"), std::env::var_os("HOME"));
    let source = KubeconfigSource::choose(file, variable.as_deref(), home.as_deref().map(Path::new));
    Kubeconfig::inline(&source, context, allow)
}

async fn update(options: ClusterUpdateArguments, context: &Context<'_>) -> Result<Exit, Problem> {
    let Context { client, output } = context;
    let mut change = ClusterChange { mirror: options.mirror, ..ClusterChange::default() };
    if let Some(file) = &options.kubeconfig {
        let InlinedKubeconfig { text, context: named, server } =
            inlined(Some(file), options.context.as_deref(), &options.allow)?;
        let (named, server) = (one_line(&named), one_line(&server));
        output.remark(&if output.style().zh() {
            format!("上下文 {named}，API server {server}：先试用，再用作 {} 的凭据", options.cluster)
        } else {
            format!("Context {named}, API server {server}: trying it as the credentials of {}", options.cluster)
        });
        (change.kubeconfig, change.allow) = (Some(text), options.allow);
    }
    let changed = client.change_cluster(&options.cluster.as_str().into(), &change).await?;
    output.result(result::Cluster { cluster: changed.clone() }, |style| cluster::show(&changed, style));
    Ok(Exit::Done)
}

async fn remove(name: &ClusterName, yes: bool, context: &Context<'_>) -> Result<Exit, Problem> {
    let Context { client, output } = context;
    let found = client.cluster(name).await?;
    let server = one_line(&found.server);
    output.remark(&if output.style().zh() {
        format!("移除集群 {name}（API server {server}）：其凭据、agent 注册和令牌将被删除；集群本身不变，升级日志保留")
    } else {
        format!("Forgetting cluster {name} (API server {server}): its credentials, agents and tokens go; the cluster itself is not touched, logs of upgrades stay")
    });
    confirm(output, "cluster remove", name.as_str(), yes).await?;
    client.remove_cluster(name).await?;
    output.result(result::Removed { removed: name.clone() }, |style| {
        if style.zh() { format!("集群 {name} 已移除\n") } else { format!("cluster {name} is forgotten\n") }
    });
    Ok(Exit::Done)
}

pub(super) async fn agent(command: AgentCommand, context: &Context<'_>) -> Result<Exit, Problem> {
    let Context { client, output } = context;
    match command {
        AgentCommand::JoinCommand { cluster: name } => {
            let token = client.join_token(&name.as_str().into()).await?;
            output.result(result::Join { join_token: token.clone() }, |style| cluster::join(&token, style));
        }
        AgentCommand::List { cluster: name } => {
            let agents = client.agents(&name.as_str().into()).await?;
            output.result(result::Agents { agents: agents.clone() }, |style| cluster::agents(&agents, style));
        }
        AgentCommand::Remove { cluster: name, node, yes } => {
            output.remark(&if output.style().zh() {
                format!("遗忘节点 {node} 的 agent：其注册和证书失效，在重新注册之前该节点不能升级；节点本身及其上运行的内容不变")
            } else {
                format!("Forgetting the agent of node {node}: its enrolment and certificate end, and the node cannot be upgraded until one is enrolled anew; the node and what runs on it are not touched")
            });
            confirm(output, "agent remove", &node, yes).await?;
            client.remove_agent(&name.as_str().into(), &node.as_str().into()).await?;
            output.result(result::AgentRemoved { agent_removed: node.as_str().into() }, |style| {
                let (node, name) = (one_line(&node), one_line(&name));
                if style.zh() {
                    format!("节点 {node} 的 agent 已被遗忘。要停止它：在该节点上执行 systemctl disable --now shiplock-agent；重新注册：shiplock agent join-command {name}\n")
                } else {
                    format!("The agent of node {node} is forgotten. To stop it, on the node: systemctl disable --now shiplock-agent. To enrol it anew: shiplock agent join-command {name}\n")
                }
            });
        }
    }
    Ok(Exit::Done)
}
