//! `plan` and `upgrade`: what will be done is shown before anything is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use shiplock_api::client::Client;
use shiplock_api::rest::{PlanCreate, UpgradeCreate, UpgradeView};
use shiplock_core::check::Finding;
use shiplock_core::id::{ClusterName, NodeName};
use shiplock_core::plan::Plan;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{Event, EventRecord, State};

use super::Context;
use super::confirm::confirm;
use crate::arguments::{PlanArguments, UpgradeArguments};
use crate::attached::Attachment;
use crate::exit::Exit;
use crate::render::{self, upgrade};
use crate::result;

/// How long a command that does not stay waits for the checks before the start, and how often it looks.
const CHECKED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Makes a plan and shows it.
pub(super) async fn plan(options: PlanArguments, context: &Context<'_>) -> Result<Exit, Problem> {
    let asked = PlanCreate { request: options.options.request(options.to), dry_run: options.dry_run };
    let plan = context.client.make_plan(&options.cluster.as_str().into(), &asked).await?;
    let kept = !options.dry_run;
    let text = |style: &render::Style| {
        let mut text = render::plan::plan(&plan, style);
        // What was accepted is part of a plan.
        let accept: Vec<String> =
            render::plan::to_accept(&plan).into_iter().map(|check| format!("--accept {check}")).collect();
        if kept && !accept.is_empty() {
            let accept = accept.join(" ");
            text.push_str(&if style.zh() {
                format!("该计划会在开始时受阻：请先加上 {accept} 重新规划\n")
            } else {
                format!("As it is, its start will be blocked: first plan again with {accept}\n")
            });
        }
        text.push_str(&match (kept, style.zh()) {
            (true, true) => format!("下一步：shiplock upgrade --plan {}\n", plan.id),
            (true, false) => format!("next: shiplock upgrade --plan {}\n", plan.id),
            (false, true) => "试运行：计划未保存\n".to_owned(),
            (false, false) => "dry run: the plan was not kept\n".to_owned(),
        });
        text
    };
    context.output.result(result::Planned { plan: plan.clone(), kept }, text);
    // The plan itself stands; who wants to start it needs them.
    if let Ok(agents) = context.client.agents(&plan.cluster).await {
        let enrolled: BTreeSet<&NodeName> = agents.iter().map(|agent| &agent.node).collect();
        let missing = plan.nodes().map(|node| &node.node).filter(|node| !enrolled.contains(node)).map(NodeName::as_str);
        if let Some(remark) = without_agent(&missing.collect(), &plan.cluster, context.output.style().zh()) {
            context.output.remark(&remark);
        }
    }
    Ok(Exit::Done)
}

/// That nodes have no agent yet, with the first of them by name.
fn without_agent(missing: &BTreeSet<&str>, cluster: &ClusterName, zh: bool) -> Option<String> {
    const NAMED_MAX: usize = 5;
    if missing.is_empty() {
        return None;
    }
    let named: Vec<&str> = missing.iter().copied().take(NAMED_MAX).collect();
    let (count, named) = (missing.len(), named.join(", "));
    let more = count.saturating_sub(NAMED_MAX);
    Some(match (zh, more) {
        (true, 0) => format!("开始前还需注册 {count} 个节点的 agent：{named}（shiplock agent join-command {cluster}）"),
        (true, _) => {
            format!("开始前还需注册 {count} 个节点的 agent：{named} 等（shiplock agent join-command {cluster}）")
        }
        (false, 0) => {
            format!("Without an agent yet, which the start needs: {named} (shiplock agent join-command {cluster})")
        }
        (false, more) => format!(
            "Without an agent yet, which the start needs: {named} and {more} more (shiplock agent join-command {cluster})"
        ),
    })
}

/// Makes or takes a plan, shows it, asks, starts, stays.
pub(super) async fn upgrade(options: UpgradeArguments, context: &Context<'_>) -> Result<Exit, Problem> {
    let output = context.output;
    let plan = the_plan(&options, context).await?;
    output.remark(&render::plan::plan(&plan, &output.progress_style()));
    output.remark(&whereabouts(&plan.cluster, context).await?);
    confirm(output, "upgrade", plan.cluster.as_str(), options.yes).await?;
    let create = UpgradeCreate { plan: plan.id.clone(), plan_hash: plan.hash.clone() };
    start(create, options.detach, context).await
}

/// Starts a plan that was accepted, and stays.
pub(super) async fn start(create: UpgradeCreate, detach: bool, context: &Context<'_>) -> Result<Exit, Problem> {
    let Context { client, output } = context;
    let started = client.start_upgrade(&create, &uuid::Uuid::new_v4().to_string()).await?;
    let id = started.id.clone();
    output.remark(&if output.style().zh() {
        format!("升级 {id} 已开始。观看：shiplock watch {id}")
    } else {
        format!("Upgrade {id} is on its way. From anywhere: shiplock watch {id}")
    });
    if detach {
        let begun = checked(client, started).await;
        let found = client.all_events(&id, 0).await.map(|events| newest_report(&events)).unwrap_or_default();
        output.result(result::OneUpgrade { upgrade: begun.clone(), detached: true }, |style| {
            upgrade::begun(&begun, &found, style)
        });
        return Ok(Exit::of_upgrade(&begun).unwrap_or(Exit::Done));
    }
    Attachment { client, upgrade: &id, output, stay: false, after: Some(0), embedded: false }.run().await
}

/// Looks until the checks before the start are over, for a while: who does not stay sees their warnings, or what holds the
/// start.
async fn checked(client: &Client, mut found: UpgradeView) -> UpgradeView {
    let until = Instant::now() + CHECKED_WITHIN;
    while matches!(found.state, State::Planned | State::Checking | State::Ready { .. }) && Instant::now() < until {
        tokio::time::sleep(LOOK_EVERY).await;
        match client.upgrade(&found.id).await {
            Ok(newer) => found = newer,
            // It is on its way whether it is seen or not.
            Err(_) => break,
        }
    }
    found
}

/// What the newest checks before the start found and nobody let pass.
fn newest_report(events: &[EventRecord]) -> Vec<Finding> {
    let report = |record: &EventRecord| match &record.event {
        Event::CheckFinished { report } => {
            Some(report.findings.iter().filter(|finding| !finding.accepted).cloned().collect())
        }
        _ => None,
    };
    events.iter().rev().find_map(report).unwrap_or_default()
}

async fn the_plan(options: &UpgradeArguments, context: &Context<'_>) -> Result<Plan, Problem> {
    match (&options.plan, &options.cluster, options.to) {
        (Some(plan), ..) => context.client.plan(&plan.as_str().into()).await,
        (None, Some(cluster), Some(to)) => {
            let asked = PlanCreate { request: options.options.request(to), dry_run: false };
            context.client.make_plan(&cluster.as_str().into(), &asked).await
        }
        // The definition of the command line refuses this before.
        _ => Err(Problem::new(Code::BadCommandLine)
            .with("what", "CLUSTER --to VERSION, or --plan PLAN")
            .with("command", "shiplock upgrade")),
    }
}

/// Which cluster will be changed, at which address, through which server.
pub(super) async fn whereabouts(name: &ClusterName, context: &Context<'_>) -> Result<String, Problem> {
    let cluster = context.client.cluster(name).await?;
    let (server, through) = (render::table::one_line(&cluster.server), context.client.endpoint());
    Ok(if context.output.style().zh() {
        format!("将更改集群 {name}，API server {server}，经由 {through}")
    } else {
        format!("This changes cluster {name}, API server {server}, through {through}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_without_an_agent_are_named_and_many_are_counted() {
        let told = |count: usize, zh| {
            let names: Vec<String> = (1..=count).map(|number| format!("w-{number}")).collect();
            without_agent(&names.iter().map(String::as_str).collect(), &"prod".into(), zh)
        };
        assert_eq!(told(0, false), None);
        assert!(told(2, false).unwrap().contains(": w-1, w-2 (shiplock agent join-command prod)"));
        assert!(told(7, false).unwrap().contains("w-5 and 2 more"));
        assert!(told(7, true).unwrap().contains("7 个节点"));
    }
}
