//! `upgrades list` and `upgrades show`, and which upgrade is meant where none is named.

use std::collections::BTreeMap;

use jiff::Timestamp;
use shiplock_api::client::UpgradeQuery;
use shiplock_api::rest::UpgradePage;
use shiplock_core::id::{NodeName, UpgradeId};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{Event, StepOutcome};

use super::Context;
use crate::arguments::{Format, UpgradesCommand};
use crate::exit::Exit;
use crate::render::{self, event, upgrade};
use crate::result;

/// How many active upgrades are looked at to find the one that is meant.
const ACTIVE_MAX: usize = 20;

/// The upgrade that was named, or the one active one.
pub(super) async fn meant(context: &Context<'_>, named: Option<&str>) -> Result<UpgradeId, Problem> {
    if let Some(named) = named {
        return Ok(named.into());
    }
    let query = UpgradeQuery { active: Some(true), ..UpgradeQuery::default() };
    let UpgradePage { items: active, unreadable, .. } = context.client.all_upgrades(query, ACTIVE_MAX).await?;
    match active.as_slice() {
        [] => Err(unreadable.into_iter().next().map_or(Problem::new(Code::NoActiveUpgrade), |first| first.problem)),
        [only] => {
            context.output.remark(&format!(
                "{} {} ({})",
                context.output.pick("upgrade", "升级"),
                only.id,
                only.cluster
            ));
            Ok(only.id.clone())
        }
        several => {
            let names: Vec<_> = several.iter().map(|upgrade| format!("{} ({})", upgrade.id, upgrade.cluster)).collect();
            let problem = Problem::new(Code::SeveralActiveUpgrades).with("count", several.len());
            Err(problem.with("upgrades", names.join(", ")))
        }
    }
}

/// As [`meant`]; where none is active the one that was begun last, which is what one wants to see after its end.
async fn to_show(context: &Context<'_>, named: Option<&str>) -> Result<UpgradeId, Problem> {
    let problem = match meant(context, named).await {
        Err(problem) if problem.code == Code::NoActiveUpgrade => problem,
        other => return other,
    };
    let newest = context.client.all_upgrades(UpgradeQuery::default(), 1).await?;
    newest.items.into_iter().next().map(|upgrade| upgrade.id).ok_or(problem)
}

pub(super) async fn run(command: UpgradesCommand, context: &Context<'_>) -> Result<Exit, Problem> {
    match command {
        UpgradesCommand::List { cluster, active, limit } => {
            let limit = limit.clamp(1, 10_000);
            let page = u32::try_from(limit.min(100)).ok();
            let cluster = cluster.map(Into::into);
            let query = UpgradeQuery { cluster, active: active.then_some(true), after: None, limit: page };
            let UpgradePage { items: upgrades, unreadable, .. } = context.client.all_upgrades(query, limit).await?;
            let listed = result::Upgrades { upgrades: upgrades.clone(), unreadable: unreadable.clone() };
            context.output.result(listed, |style| upgrade::list(&upgrades, &unreadable, style));
        }
        UpgradesCommand::Show { upgrade, events } => {
            let id = to_show(context, upgrade.as_deref()).await?;
            show(&id, events, context).await?;
        }
        UpgradesCommand::Logs { upgrade, node } => logs(&upgrade.into(), node.map(Into::into), context).await?,
    }
    Ok(Exit::Done)
}

/// The newest logs of a node that the upgrade collected.
async fn logs(id: &UpgradeId, wanted: Option<NodeName>, context: &Context<'_>) -> Result<(), Problem> {
    let events = context.client.all_events(id, 0).await?;
    let plan = events.iter().find_map(|record| match &record.event {
        Event::Planned { plan, .. } => Some(plan.as_ref()),
        _ => None,
    });
    let collected: BTreeMap<&NodeName, (Timestamp, &String)> = events
        .iter()
        .filter_map(|record| match &record.event {
            Event::StepSucceeded { step, outcome: StepOutcome::Logs { text }, .. } => {
                Some((plan?.step(*step)?.target.node()?, (record.at, text)))
            }
            _ => None,
        })
        .collect();
    let found = match &wanted {
        Some(node) => collected.get_key_value(node),
        None => collected.first_key_value().filter(|_| collected.len() == 1),
    };
    let (node, (at, text)) = found.ok_or_else(|| {
        let names: Vec<&str> = collected.keys().map(|node| node.as_str()).collect();
        let none = context.output.pick("none", "无");
        let names = if names.is_empty() { none.to_owned() } else { names.join(", ") };
        Problem::new(Code::NoLogs).with("upgrade", id).with("nodes", names)
    })?;
    let found = result::Logs { upgrade: id.clone(), node: (*node).clone(), at: *at, text: (*text).clone() };
    context.output.result(found, |_| format!("{}\n", text.trim_end()));
    Ok(())
}

async fn show(id: &UpgradeId, with_events: bool, context: &Context<'_>) -> Result<(), Problem> {
    let found = context.client.upgrade(id).await?;
    if !with_events {
        context.output.result(result::OneUpgrade { upgrade: found.clone(), detached: false }, |style| {
            upgrade::show(&found, style)
        });
        return Ok(());
    }
    let events = context.client.all_events(id, 0).await?;
    for record in &events {
        context.output.feed(result::Event { event: record.clone() });
    }
    if context.output.format() == Format::Ndjson {
        return Ok(());
    }
    let text = |style: &render::Style| {
        let plan = events.iter().find_map(|record| match &record.event {
            Event::Planned { plan, .. } => Some(plan.as_ref()),
            _ => None,
        });
        let lines: Vec<String> = events.iter().map(|record| event::line(record, plan, style) + "\n").collect();
        format!("{}\n{}", upgrade::show(&found, style), lines.concat())
    };
    context.output.result(result::UpgradeWithEvents { upgrade: found.clone(), events: events.clone() }, text);
    Ok(())
}
