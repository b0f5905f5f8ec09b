//! `pause`, `continue`, `cancel`, `set`: each says what it does now, with counts and names.

use shiplock_api::rest::{CancelRequest, UpgradeChange, UpgradeView};
use shiplock_core::id::NodeName;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::State;

use super::Context;
use super::confirm::confirm;
use super::upgrades::meant;
use crate::arguments::{CancelArguments, ContinueArguments, ControlArguments, SetArguments};
use crate::attached::Attachment;
use crate::exit::Exit;
use crate::render::{Style, consequence, upgrade};
use crate::result;

/// Prints an upgrade after a control: where it stands, and what follows.
fn tell(context: &Context<'_>, after: &UpgradeView, consequence: impl FnOnce(&Style) -> String) {
    context.output.result(result::OneUpgrade { upgrade: after.clone(), detached: true }, |style| {
        format!("{}\n{}", upgrade::headline(after, style), consequence(style))
    });
}

/// Pauses. It does not wait until nothing is in work any more.
pub(super) async fn pause(options: ControlArguments, context: &Context<'_>) -> Result<Exit, Problem> {
    let id = meant(context, options.upgrade.as_deref()).await?;
    let after = context.client.pause(&id, None).await?;
    tell(context, &after, |style| {
        let mut text = consequence::pause(&after, style);
        text.push_str(&next_after_pause(&after, style));
        text
    });
    Ok(Exit::Done)
}

/// What can be done next. What pauses because something went wrong comes to rest before it can be continued.
fn next_after_pause(after: &UpgradeView, style: &Style) -> String {
    let id = &after.id;
    match &after.state {
        State::Pausing { because, .. } if because.is_older_store() => style
            .pick(
                "settle first which store is the newest: shiplock explain UPG0312\n",
                "请先确定哪个存储最新：shiplock explain UPG0312\n",
            )
            .to_owned(),
        State::Pausing { because, .. } if !because.is_a_wish() => match style.zh() {
            true => {
                format!("观看：shiplock watch {id}；暂停后可执行：shiplock continue {id}，或 shiplock cancel {id}\n")
            }
            false => {
                format!(
                    "watch: shiplock watch {id}; once it is paused: shiplock continue {id}, or shiplock cancel {id}\n"
                )
            }
        },
        _ if style.zh() => {
            format!("观看：shiplock watch {id}；继续：shiplock continue {id}；取消：shiplock cancel {id}\n")
        }
        _ => format!("watch: shiplock watch {id}; go on: shiplock continue {id}; end it: shiplock cancel {id}\n"),
    }
}

/// Continues.
pub(super) async fn resume(options: ContinueArguments, context: &Context<'_>) -> Result<Exit, Problem> {
    let id = meant(context, options.upgrade.as_deref()).await?;
    let after = context.client.continue_upgrade(&id, None).await?;
    if options.watch {
        let output = context.output;
        output.remark(&consequence::resume(&after, &output.progress_style()));
        // What came before was read before.
        let begin = Some(after.len.saturating_sub(1));
        return Attachment {
            client: &context.client,
            upgrade: &id,
            output,
            stay: false,
            after: begin,
            embedded: false,
        }
        .run()
        .await;
    }
    tell(context, &after, |style| consequence::resume(&after, style));
    Ok(Exit::Done)
}

/// How often a cancel is sent while the log moves on in ways that change nothing of what was said.
const CANCEL_ATTEMPTS_MAX: usize = 5;

/// Cancels what was seen: if what was said does not hold any more when the answer is given, nothing is cancelled.
pub(super) async fn cancel(options: CancelArguments, context: &Context<'_>) -> Result<Exit, Problem> {
    let Context { client, output } = context;
    let id = meant(context, options.upgrade.as_deref()).await?;
    let before = client.upgrade(&id).await?;
    let abandon: Vec<NodeName> = options.abandon.iter().map(|node| node.as_str().into()).collect();
    let request = CancelRequest { abandon };
    let said = |upgrade: &UpgradeView| consequence::cancel(upgrade, &request.abandon, &output.progress_style());
    // What cannot be cancelled now is not asked about: the server says why, and what to do first.
    if is_cancellable(&before.state) {
        output.remark(&said(&before));
        confirm(output, "cancel", before.cluster.as_str(), options.yes).await?;
    }
    let mut seen = before.clone();
    let mut attempt = 1;
    let after = loop {
        match client.cancel(&id, &request, Some(seen.len)).await {
            // A server that takes the lease, or a new wait, changes nothing of what was said.
            Err(conflict) if conflict.code == Code::Conflict && attempt < CANCEL_ATTEMPTS_MAX => {
                seen = client.upgrade(&id).await?;
                if is_cancellable(&seen.state) != is_cancellable(&before.state) || said(&seen) != said(&before) {
                    return Err(conflict);
                }
                attempt += 1;
            }
            answer => break answer?,
        }
    };
    tell(context, &after, |style| {
        if style.zh() { format!("观看：shiplock watch {id}\n") } else { format!("watch: shiplock watch {id}\n") }
    });
    Ok(Exit::Done)
}

fn is_cancellable(state: &State) -> bool {
    matches!(
        state,
        State::Planned
            | State::Checking
            | State::Blocked
            | State::Ready { .. }
            | State::Pausing { .. }
            | State::Paused { .. }
    )
}

/// Changes the bound on batches.
pub(super) async fn set(options: SetArguments, context: &Context<'_>) -> Result<Exit, Problem> {
    let id = meant(context, options.upgrade.as_deref()).await?;
    let change = UpgradeChange { max_parallel: Some(options.max_parallel) };
    let after = context.client.change_upgrade(&id, &change).await?;
    tell(context, &after, |style| {
        let bound = after.max_parallel;
        if style.zh() {
            format!("每批最多 {bound} 个节点，自下一批次生效\n")
        } else {
            format!("at most {bound} at once, from the next batch\n")
        }
    });
    Ok(Exit::Done)
}
