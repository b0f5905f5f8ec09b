//! `check CLUSTER`, `reports` and `acceptances`: pre-checks that the server runs and keeps.

use shiplock_api::check::{AcceptanceCreate, CheckCreate, CheckPolicy, CheckReportView};
use shiplock_check::report::{Finding, Outcome, Report, Verdict};
use shiplock_core::problem::Problem;

use super::Context;
use crate::arguments::{AcceptancesCommand, CheckArguments, Policy, ReportsCommand};
use crate::exit::Exit;
use crate::output::Output;
use crate::render::report as rendered;
use crate::result;

/// Has the server run the pre-check, with every agent asked about its node.
pub(super) async fn check(cluster: &str, options: &CheckArguments, context: &Context<'_>) -> Result<Exit, Problem> {
    let Context { client, output } = context;
    let asked = CheckCreate {
        to: options.to,
        policy: if options.policy == Policy::Strict { CheckPolicy::Strict } else { CheckPolicy::Default },
        only: options.only.clone(),
        skip: options.skip.clone(),
        plan: options.plan.as_ref().map(|plan| plan.as_str().into()),
    };
    let asking = output.pick("checking cluster", "正在检查集群");
    output.remark(&format!("{asking} {cluster} ({})", client.endpoint()));
    let view = client.run_checks(&cluster.into(), &asked).await?;
    Ok(exit(show(&view, Some(options), options.todo, output)?))
}

/// What follows for who asked: the server does not know how strict that one is.
fn verdict(report: &Report, options: &CheckArguments) -> Verdict {
    // Against a plan the server says what stops its start.
    let verdict = match options.plan {
        Some(_) => report.verdict,
        None => Report::verdict_of(report.findings.iter(), super::blocks_on(options)),
    };
    let reached = |scope: &String| !report.skipped.values().any(|why| *why == format!("scope:{scope}"));
    match verdict {
        Verdict::Ready if !options.require.iter().all(reached) => Verdict::Undecided,
        verdict => verdict,
    }
}

fn exit(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Ready => Exit::Done,
        Verdict::Blocked => Exit::Blocked,
        Verdict::Undecided => Exit::Undecided,
    }
}

/// Shows a report with the verdict for who asked, or what of it must be handled. A report that was kept is shown as it is.
fn show(
    view: &CheckReportView,
    asked: Option<&CheckArguments>,
    only_todo: bool,
    output: &Output,
) -> Result<Verdict, Problem> {
    let unreadable = |error: serde_json::Error| super::internal("the server's report").cause(error);
    let mut report = rendered::of(view).map_err(unreadable)?;
    let blocks_on = asked.map_or(Outcome::Fail, super::blocks_on);
    if let Some(options) = asked {
        report.verdict = verdict(&report, options);
    }
    let mut shown = view.clone();
    if only_todo {
        let is_todo = |found: &Finding| {
            found.counts() && (matches!(found.outcome, Outcome::Fail | Outcome::Unknown) || found.outcome == blocks_on)
        };
        let mut todo = report.findings.iter().map(is_todo);
        shown.findings.retain(|_| todo.next() == Some(true));
        report.findings.retain(is_todo);
        report.skipped.clear();
    }
    super::show(&report, Some(&shown), blocks_on, output)?;
    output.remark(&rendered::compared(view, &output.style()));
    Ok(report.verdict)
}

pub(crate) async fn reports(command: ReportsCommand, context: &Context<'_>) -> Result<Exit, Problem> {
    let Context { client, output } = context;
    match command {
        ReportsCommand::List { cluster } => {
            let reports = client.reports(&cluster.into()).await?;
            output.result(result::Reports { reports: reports.clone() }, |style| rendered::list(&reports, style));
        }
        ReportsCommand::Show(options) => {
            let view = client.report(&options.report, options.with.as_deref()).await?;
            show(&view, None, options.todo, output)?;
        }
    }
    Ok(Exit::Done)
}

pub(crate) async fn accept(command: AcceptancesCommand, context: &Context<'_>) -> Result<Exit, Problem> {
    let Context { client, output } = context;
    match command {
        AcceptancesCommand::Add(options) => {
            let asked = AcceptanceCreate {
                check: options.check,
                subject: options.subject,
                reason: options.reason,
                until: options.until,
            };
            let added = client.add_acceptance(&options.cluster.into(), &asked).await?;
            output.result(result::Acceptances { acceptances: vec![added.clone()] }, |style| {
                rendered::acceptances(std::slice::from_ref(&added), style)
            });
        }
        AcceptancesCommand::List { cluster } => {
            let all = client.acceptances(&cluster.into()).await?;
            output.result(result::Acceptances { acceptances: all.clone() }, |style| rendered::acceptances(&all, style));
        }
        AcceptancesCommand::Remove { cluster, acceptance } => {
            client.remove_acceptance(&cluster.into(), &acceptance).await?;
            output.result(result::Acceptances { acceptances: Vec::new() }, |style| {
                format!("{}\n", style.pick("It is taken back.", "已撤回。"))
            });
        }
    }
    Ok(Exit::Done)
}
