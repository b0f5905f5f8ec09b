//! `rollback`: takes an upgrade back, after showing what that means.

use std::ops::ControlFlow;
use std::time::Duration;

use shiplock_api::rest::{CancelRequest, RollbackCreate, UpgradeCreate, UpgradeView};
use shiplock_core::id::UpgradeId;
use shiplock_core::language::Language;
use shiplock_core::plan::Plan;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::State;

use super::Context;
use super::confirm::confirm;
use super::plan::{start, whereabouts};
use super::upgrades::meant;
use crate::arguments::RollbackArguments;
use crate::attached::interrupted_or_left;
use crate::exit::Exit;
use crate::output::Output;
use crate::render::{self, upgrade};
use crate::result;

/// How often the state is looked at while the upgrade is ended.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Shows, asks, ends the upgrade where it is still in work, then goes back. Who leaves before that is told what is not done,
/// at whatever point: once signals are listened to they end nothing by themselves any more.
pub(super) async fn rollback(options: RollbackArguments, context: &Context<'_>) -> Result<Exit, Problem> {
    let id = meant(context, options.upgrade.as_deref()).await?;
    let prepared = tokio::select! {
        biased;
        () = interrupted_or_left() => return Err(Problem::new(Code::RollbackLeft).with("upgrade", &id)),
        prepared = prepare(&id, &options, context) => prepared?,
    };
    match prepared {
        ControlFlow::Break(exit) => Ok(exit),
        ControlFlow::Continue(upgrade) => start(upgrade, options.detach, context).await,
    }
}

/// All that comes before the way back begins: what is to be started, or how the command ends without one.
async fn prepare(
    id: &UpgradeId,
    options: &RollbackArguments,
    context: &Context<'_>,
) -> Result<ControlFlow<Exit, UpgradeCreate>, Problem> {
    let Context { client, output } = context;
    let asked = |dry_run| RollbackCreate { accept: options.accept.clone(), dry_run, must_start: false };
    let preview = match client.make_rollback(id, &asked(true)).await {
        Err(problem) if problem.code == Code::NothingToTakeBack => {
            let found = client.upgrade(id).await?;
            match found.state.clone() {
                State::Paused { .. } if options.dry_run => {
                    let text = format!("{}\n", nothing_to_take_back(id, output));
                    output.result(result::OneUpgrade { upgrade: found, detached: true }, |_| text);
                    return Ok(ControlFlow::Break(Exit::Done));
                }
                state if options.dry_run => return Err(if moves(&state) { not_yet(id, &state) } else { problem }),
                // A master in work counts as begun, and may still be as it was before: what goes back is known when it is
                // done.
                state if moves(&state) => pause_first(id, options.yes, context).await?,
                // Put back by hand, or paused before its first master: what is left is to end it.
                State::Paused { .. } => return end_only(id, options.yes, context).await.map(ControlFlow::Break),
                _ => return Err(problem),
            }
            client.make_rollback(id, &asked(true)).await?
        }
        preview => preview?,
    };
    if options.dry_run {
        let text = |style: &render::Style| {
            let mut text = render::plan::plan(&preview, style);
            text.push_str(style.pick("dry run: the plan was not kept\n", "试运行：计划未保存\n"));
            text
        };
        output.result(result::Planned { plan: preview.clone(), kept: false }, text);
        return Ok(ControlFlow::Break(Exit::Done));
    }
    let before = client.upgrade(id).await?;
    output.remark(&render::plan::plan(&preview, &output.progress_style()));
    if !before.state.is_terminal() {
        output.remark(&if output.style().zh() {
            format!("升级 {id} 仍在进行：会先暂停并取消它。已开始的节点会先完成，然后也会回退。")
        } else {
            format!("Upgrade {id} is still going on: it is paused and cancelled first. Nodes that have started finish, and go back too.")
        });
    }
    output.remark(&whereabouts(&preview.cluster, context).await?);
    confirm(output, "rollback", preview.cluster.as_str(), options.yes).await?;
    let ended = end(id, &RollbackCreate { must_start: true, ..asked(true) }, context).await?;
    if !ended.state.is_terminal() {
        output.result(result::OneUpgrade { upgrade: ended.clone(), detached: false }, |style| {
            upgrade::outcome(&ended, style)
        });
        return Ok(ControlFlow::Break(Exit::of_upgrade(&ended).unwrap_or(Exit::Failed)));
    }
    let plan = client.make_rollback(id, &asked(false)).await?;
    if masters(&plan) != masters(&preview) {
        output.remark(&render::plan::plan(&plan, &output.progress_style()));
    }
    Ok(ControlFlow::Continue(UpgradeCreate { plan: plan.id.clone(), plan_hash: plan.hash.clone() }))
}

/// What would go back is not known while the first master may be in work.
fn not_yet(id: &UpgradeId, state: &State) -> Problem {
    let again = format!("shiplock rollback {id} --dry-run");
    let (next, next_zh) = match state {
        State::Running => (
            format!("pause it, and ask again when it is paused: shiplock pause {id}, then {again}"),
            format!("请先暂停，待其暂停后再查询：shiplock pause {id}，然后 {again}"),
        ),
        _ => (format!("ask again when it is paused: {again}"), format!("待其暂停后再查询：{again}")),
    };
    Problem::new(Code::ControlNotAllowed)
        .with("state", state.word())
        .with("state_zh", state.label(Language::Zh))
        .with("control", "taken back yet")
        .with("control_zh", "现在回退")
        .with("next", next)
        .with("next_zh", next_zh)
}

/// Pauses an upgrade that nothing of can be taken back yet, and waits until what has started is finished.
async fn pause_first(id: &UpgradeId, yes: bool, context: &Context<'_>) -> Result<(), Problem> {
    let Context { client, output } = context;
    let cluster = client.upgrade(id).await?.cluster;
    output.remark(&if output.style().zh() {
        format!("升级 {id} 尚无可回退的内容：首个控制面节点可能正在进行。会先暂停它，待已开始的部分完成后再显示回退内容。不回退时：shiplock continue {id}。")
    } else {
        format!("Upgrade {id} has nothing to take back yet; its first master may be in work. It is paused first, and what goes back is shown when what has started is finished. To go on instead: shiplock continue {id}.")
    });
    confirm(output, "rollback", cluster.as_str(), yes).await?;
    let found = client.upgrade(id).await?;
    let found = if found.state == State::Running { client.pause(id, None).await? } else { found };
    output.remark(waiting(output));
    rest(found, context).await.map(drop)
}

/// Ends a paused upgrade of which nothing is to be taken back.
async fn end_only(id: &UpgradeId, yes: bool, context: &Context<'_>) -> Result<Exit, Problem> {
    let Context { client, output } = context;
    let found = client.upgrade(id).await?;
    output.remark(&nothing_to_take_back(id, output));
    confirm(output, "rollback", found.cluster.as_str(), yes).await?;
    let cancelled = client.cancel(id, &CancelRequest::default(), Some(found.len)).await?;
    let ended = rest(cancelled, context).await?;
    output.result(result::OneUpgrade { upgrade: ended.clone(), detached: false }, |style| {
        upgrade::outcome(&ended, style)
    });
    Ok(if ended.state == State::Cancelled { Exit::Done } else { Exit::of_upgrade(&ended).unwrap_or(Exit::Failed) })
}

fn nothing_to_take_back(id: &UpgradeId, output: &Output) -> String {
    if output.style().zh() {
        format!("升级 {id} 没有可回退的内容：所有控制面节点已是原版本。回退只会取消该升级。")
    } else {
        format!(
            "Nothing of upgrade {id} is to be taken back: every master runs what it ran before. A rollback only cancels it."
        )
    }
}

fn waiting(output: &Output) -> &'static str {
    output.pick(
        "Waiting until what has started is finished. Until then nothing is taken back: whoever leaves here leaves a paused upgrade, and runs the command again.",
        "等待已开始的部分完成。在此之前不会回退任何内容：若现在离开，升级将保持暂停，需再次运行该命令。",
    )
}

fn masters(plan: &Plan) -> Vec<&str> {
    plan.nodes().map(|node| node.node.as_str()).collect()
}

/// Pauses and cancels; the upgrade as it came to rest, which is another pause where something of it failed.
async fn end(id: &UpgradeId, preview: &RollbackCreate, context: &Context<'_>) -> Result<UpgradeView, Problem> {
    let Context { client, output } = context;
    let mut found = client.upgrade(id).await?;
    if found.state == State::Running {
        found = client.pause(id, None).await?;
        output.remark(waiting(output));
    }
    found = rest(found, context).await?;
    if found.state.is_terminal() {
        return Ok(found);
    }
    // What finished meanwhile may have gone too far, and its own checks may not let a way back start: then it stays paused,
    // and nothing is cancelled.
    client.make_rollback(id, preview).await?;
    let cancelled = client.cancel(id, &CancelRequest::default(), Some(found.len)).await?;
    rest(cancelled, context).await
}

fn moves(state: &State) -> bool {
    matches!(state, State::Running | State::Pausing { .. } | State::Cancelling | State::Expiring)
}

/// Looks until nothing of an upgrade moves by itself any more.
async fn rest(mut found: UpgradeView, context: &Context<'_>) -> Result<UpgradeView, Problem> {
    while moves(&found.state) {
        tokio::time::sleep(LOOK_EVERY).await;
        found = context.client.upgrade(&found.id).await?;
    }
    Ok(found)
}
