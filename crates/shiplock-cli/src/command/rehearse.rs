//! `rehearse`: an upgrade on a copy of the cluster, before the real one.

use std::path::Path;

use shiplock_api::rest::PlanCreate;
use shiplock_check::named;
use shiplock_check::run::Selection;
use shiplock_cluster::collect::Collection;
use shiplock_core::problem::{Code, Problem};
use shiplock_sim::rehearsal::{self, LeftOut, Options, Source, TooMuch};

use super::Context;
use super::check::bad_option;
use super::snapshot;
use crate::arguments::RehearseArguments;
use crate::exit::Exit;
use crate::output::{Output, Progress};
use crate::render;

/// Without --runs and --compare so many pods are moved in all runs together: about ten seconds of work.
const PODS_OF_ALL_RUNS: usize = 60_000;
const DRAWN_RUNS: u32 = 20;

/// What is printed as JSON.
#[derive(Debug, serde::Serialize)]
struct Rehearsed {
    rehearsal: rehearsal::Report,
}

/// Rehearses and shows the report.
pub(super) async fn rehearse<'a>(
    options: RehearseArguments,
    context: impl FnOnce() -> Result<Context<'a>, Problem>,
    output: &Output,
) -> Result<Exit, Problem> {
    let mut request = options.options.request(options.to);
    // Before anything is read, as a server has it.
    for word in &mut request.options.accept {
        *word = named::acceptable(word).map_err(|why| bad_option("--accept", word, &why))?.to_owned();
    }
    request.options.check()?;
    if options.svg.as_deref() == Some(Path::new(snapshot::STREAM)) {
        return Err(bad_option("--svg", snapshot::STREAM, "the report goes to standard output; name a file"));
    }
    let plan = match &options.cluster {
        Some(cluster) => {
            let asked = PlanCreate { request: request.clone(), dry_run: true };
            Some(context()?.client.make_plan(&cluster.as_str().into(), &asked).await?)
        }
        None => None,
    };
    let index = match &options.mirror {
        Some(root) => Some(shiplock_server::mirror::read_artefacts(root).await?),
        None => None,
    };
    let copy = match &options.snapshot {
        Some(path) => snapshot::load(path)?,
        None => {
            // Nothing for checks, all for the copy.
            let skip = shiplock_check::catalogue::all().iter().map(|check| check.id.to_owned()).collect();
            let selection = Selection { only: Vec::new(), skip };
            snapshot::read(
                &options.access,
                &Collection { target: None, selection: &selection, for_start: false, with_copy: true },
                output,
            )
            .await?
        }
    };
    if let (Some(plan), Some(copy)) = (&plan, copy.copy.seen())
        && plan.cluster_uid.as_str() != copy.cluster_uid
    {
        let problem = Problem::new(Code::ClusterChanged).with("cluster", &plan.cluster);
        return Err(problem.with("expected", &plan.cluster_uid).with("found", &copy.cluster_uid));
    }
    let source = match (&plan, &options.mirror, &index) {
        (Some(plan), ..) => Source::Plan(plan),
        (None, Some(root), Some(index)) => Source::Mirror(root, index),
        _ => Source::Nothing,
    };
    let prepared = rehearsal::prepare(copy, &request, source)?;
    let affordable = u32::try_from(PODS_OF_ALL_RUNS / prepared.pods().max(1)).unwrap_or(u32::MAX);
    let drawn_runs = options.runs.unwrap_or(affordable.min(DRAWN_RUNS));
    let compare = options.compare || affordable >= DRAWN_RUNS;
    let fewer_runs = options.runs.is_none() && drawn_runs < DRAWN_RUNS;
    let chosen = Options {
        drawn_runs,
        left_out: (fewer_runs || !compare).then_some(LeftOut {
            because: TooMuch::Pods,
            pods_max: PODS_OF_ALL_RUNS,
            drawn_runs_usual: fewer_runs.then_some(DRAWN_RUNS),
            settings: !compare,
        }),
        compare,
        floor_percent: options.floor,
        seed: options.seed,
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    };
    let on_terminal = output.progress() == Progress::Tty;
    let running = output.pick("rehearsing, runs done", "演练中，已完成轮数");
    let progress = |done: usize, of: usize| {
        if on_terminal {
            eprint!("\r\u{1b}[2K{running} {done}/{of}");
        }
    };
    let report = rehearsal::rehearse(&prepared, &chosen, &progress);
    // The command is about to end: to free a world pod by pod would be time that somebody waits.
    std::mem::forget(prepared);
    if on_terminal {
        eprint!("\r\u{1b}[2K");
    }
    if let Some(path) = &options.svg {
        snapshot::write_text(path, &render::timeline::svg(&report, output.language()))?;
    }
    let blocks = report.needs_a_person();
    let text = render::rehearsal::report(&report, &output.style());
    output.result(Rehearsed { rehearsal: report }, |_| text);
    Ok(if blocks { Exit::Blocked } else { Exit::Done })
}
