//! The commands: each asks the server and hands the answer to the output.

mod backup;
mod check;
mod cluster;
mod confirm;
mod control;
mod demo;
mod explain;
mod plan;
mod rehearse;
mod rollback;
mod serve;
mod snapshot;
mod upgrades;

use shiplock_api::client::Client;
use shiplock_core::problem::Problem;

use crate::arguments::{Arguments, Command, WatchArguments};
use crate::attached::Attachment;
use crate::exit::Exit;
use crate::output::Output;
use crate::settings::Environment;

/// What every command that asks a server has.
struct Context<'a> {
    client: Client,
    output: &'a Output,
}

/// Runs a command.
pub(crate) async fn run(arguments: Arguments, output: &Output) -> Result<Exit, Problem> {
    let environment = Environment::of_process();
    let context = || environment.client(arguments.global.server.as_deref()).map(|client| Context { client, output });
    match arguments.command {
        Command::Serve(options) => serve::serve(options, &environment, output).await,
        Command::Demo(options) => demo::demo(options, output).await,
        Command::Cluster(command) => cluster::run(command, context, output).await,
        Command::Agent(command) => cluster::agent(command, &context()?).await,
        Command::Check(options) if options.cluster.is_some() => check::check_registered(options, &context()?).await,
        Command::Check(options) => check::check(options, output).await,
        Command::Snapshot(options) => snapshot::snapshot(options, output).await,
        Command::Rehearse(options) => rehearse::rehearse(*options, context, output).await,
        Command::Plan(options) => plan::plan(options, &context()?).await,
        Command::Upgrade(options) => plan::upgrade(options, &context()?).await,
        Command::Watch(options) => {
            let context = context()?;
            let upgrade = upgrades::meant(&context, options.upgrade.as_deref()).await?;
            let WatchArguments { stay, after, embedded, .. } = options;
            Attachment { client: &context.client, upgrade: &upgrade, output, stay, after, embedded }.run().await
        }
        Command::Pause(options) => control::pause(options, &context()?).await,
        Command::Continue(options) => control::resume(options, &context()?).await,
        Command::Cancel(options) => control::cancel(options, &context()?).await,
        Command::Rollback(options) => rollback::rollback(options, &context()?).await,
        Command::Set(options) => control::set(options, &context()?).await,
        Command::Upgrades(command) => upgrades::run(command, &context()?).await,
        Command::Reports(command) => check::reports(command, &context()?).await,
        Command::Acceptances(command) => check::accept(command, &context()?).await,
        Command::Backup(command) => backup::run(command, &context()?).await,
        Command::Explain { code } => explain::explain(code.as_deref(), output),
        Command::Catalogue => explain::catalogue(&context()?).await,
        Command::Version => explain::version(&context()?).await,
        Command::Completions { shell } => Ok(explain::completions(shell, output)),
    }
}
