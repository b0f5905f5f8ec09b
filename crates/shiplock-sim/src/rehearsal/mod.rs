//! Rehearsal: an upgrade on a copy of a cluster, in virtual time, before the real one.
//!
//! [`prepare`] makes a world of a snapshot and a plan for it, [`rehearse`] runs the plan there: once with times in the
//! middle of their ranges, once with all at each end, and as often as wanted with drawn ones.

mod copy;
mod plan;
mod report;
mod run;
#[cfg(test)]
mod tests;
mod time;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shiplock_check::copy::ClusterCopy;
use shiplock_check::snapshot::{Read, Snapshot};
use shiplock_core::artefact::ArtefactIndex;
use shiplock_core::catalogue::Catalogue;
use shiplock_core::facts::{AgentFacts, ClusterFacts};
use shiplock_core::id::NodeName;
use shiplock_core::plan::{MAX_PARALLEL_LIMIT, Plan, PlanRequest};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::Action;
use shiplock_core::version::KubernetesVersion;

pub use self::copy::world_of;
pub use self::report::{
    Advice, BatchLine, BatchNode, Because, HeldLine, NodeLine, PauseLine, Range, Report, Risk, Setting, StageLine,
    StepLine, Unknown, UnplacedLine, WorkloadLine,
};
use self::run::{Span, Trace};
use self::time::Luck;
use crate::world::{WorkloadKind, World};

/// What a server knows of a registered cluster, or a mirror holds.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// A plan that a server made.
    Plan(&'a Plan),
    /// A mirror's root and its index.
    Mirror(&'a str, &'a ArtefactIndex),
    /// The snapshot alone.
    Nothing,
}

/// A snapshot that is ready to be rehearsed on.
#[derive(Debug)]
pub struct Prepared {
    world: World,
    facts: ClusterFacts,
    agents: BTreeMap<NodeName, AgentFacts>,
    plan: Plan,
    drains_only: Option<Problem>,
    unknown: Vec<Unknown>,
    at_risk: BTreeMap<String, Vec<Risk>>,
    taken_at: jiff::Timestamp,
    server: String,
    version: String,
    pods: usize,
}

impl Prepared {
    /// How many pods there are.
    pub fn pods(&self) -> usize {
        self.pods
    }
}

/// How it is rehearsed.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Runs with drawn times.
    pub drawn_runs: u32,
    /// Whether other bounds on batches are tried.
    pub compare: bool,
    /// Workloads with fewer ready pods than this share of before are told, in hundredths; those without any always are.
    pub floor_percent: u32,
    /// Where drawn times begin.
    pub seed: u64,
    /// So many runs go at once.
    pub threads: usize,
}

/// Makes a world of a snapshot and a plan for it.
pub fn prepare(snapshot: Snapshot, request: &PlanRequest, source: Source<'_>) -> Result<Prepared, Problem> {
    let copy = match snapshot.copy {
        Read::Seen(copy) => copy,
        Read::NotSeen(why) => return Err(Problem::new(Code::SnapshotWithoutCopy).cause(why)),
        Read::NotAsked => return Err(Problem::new(Code::SnapshotWithoutCopy)),
    };
    copy.check()
        .map_err(|refusal| Problem::new(Code::SnapshotRefused).with("what", refusal.what).with("why", refusal.why))?;
    let mut world = world_of(&copy, snapshot.taken_at);
    let version = KubernetesVersion::parse_reported(&snapshot.version);
    if let Ok(version) = &version {
        // Where masters are no nodes, this is what runs.
        world.set_api_elsewhere(*version);
    }
    let facts = world.cluster_facts(false);
    let agents = plan::assumed_agents(&world);
    let mut unknown = vec![Unknown::Checks, Unknown::PodTimes, Unknown::Agents];
    let now = facts.observed_at;
    let made = match source {
        Source::Plan(plan) => Ok(plan.clone()),
        Source::Mirror(root, index) => plan::plan_of(&facts, &agents, request, Some((root, index)), now),
        Source::Nothing => {
            unknown.push(Unknown::Mirror);
            plan::plan_of(&facts, &agents, request, None, now)
        }
    };
    let (mut plan, drains_only) = match made {
        Ok(plan) => (plan, None),
        Err(problem) => {
            // Where the catalogue does not know the versions, what pods and budgets do can be answered all the same.
            let known = version.as_ref().is_ok_and(|version| Catalogue::shipped().release(version.release).is_some());
            let about_versions = matches!(
                problem.code,
                Code::BelowSupportedRange
                    | Code::VersionNotInCatalogue
                    | Code::NoEdge
                    | Code::SkewTooWide
                    | Code::NotAVersion
                    | Code::Downgrade
            );
            if known || !about_versions {
                return Err(problem);
            }
            let outside = Problem::new(Code::SnapshotVersionUnknown).with("version", &snapshot.version);
            let version = version.ok().or(facts.api_servers.first().map(|server| server.version));
            let Some(version) = version else { return Err(outside.cause(problem)) };
            let plan = plan::drains_only(&facts, request, version, now)?;
            (plan, Some(outside.cause(problem)))
        }
    };
    plan::without_image_ids(&mut plan);
    unknown.extend(never_measured(&plan));
    unknown.push(Unknown::Scheduling);
    let others = copy.pods.iter().filter(|pod| pod.other_owner.is_some()).count();
    if others > 0 {
        unknown.push(Unknown::OtherControllers { pods: others });
    }
    unknown.extend([Unknown::NewVersion, Unknown::Later]);
    Ok(Prepared {
        at_risk: at_risk(&copy, &plan),
        pods: copy.pods.len(),
        world,
        facts,
        agents,
        plan,
        drains_only,
        unknown,
        taken_at: snapshot.taken_at,
        server: snapshot.server,
        version: snapshot.version,
    })
}

fn never_measured(plan: &Plan) -> Option<Unknown> {
    let mut kinds: Vec<String> = Vec::new();
    for step in plan.steps() {
        let kind = step.action.kind();
        if !plan.measured.contains_key(kind) && !kinds.iter().any(|known| known == kind) {
            kinds.push(kind.to_owned());
        }
    }
    (!kinds.is_empty()).then_some(Unknown::NeverMeasured { kinds })
}

/// What is at risk by the snapshot alone, on nodes that are drained.
fn at_risk(copy: &ClusterCopy, plan: &Plan) -> BTreeMap<String, Vec<Risk>> {
    let drained: BTreeSet<&str> = plan
        .steps()
        .filter(|step| matches!(step.action, Action::Drain { .. }))
        .filter_map(|step| step.target.node().map(NodeName::as_str))
        .collect();
    let local: BTreeSet<(&str, &str)> = copy
        .claims
        .iter()
        .filter(|claim| claim.node.is_some())
        .map(|claim| (claim.namespace.as_str(), claim.name.as_str()))
        .collect();
    let mut bare: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    let mut bound: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for pod in copy.pods.iter().filter(|pod| !pod.is_mirror) {
        let Some(node) = pod.node else { continue };
        let label = || format!("{}/{}", pod.namespace, pod.name);
        if pod.owner.is_none() && pod.other_owner.is_none() {
            bare.entry(node).or_default().push(label());
        }
        let template = copy.templates.get(pod.template);
        let claims = template.into_iter().flat_map(|template| &template.claims);
        if claims.into_iter().any(|claim| local.contains(&(pod.namespace.as_str(), claim.as_str()))) {
            bound.entry(node).or_default().push(label());
        }
    }
    let mut found: BTreeMap<String, Vec<Risk>> = BTreeMap::new();
    for (place, node) in copy.nodes.iter().enumerate() {
        let mut risks = Vec::new();
        if let Some(why) = &node.not_ready {
            risks.push(Risk::NotReady { why: why.clone() });
        }
        if drained.contains(node.name.as_str()) {
            let first = |pods: &BTreeMap<usize, Vec<String>>| {
                let pods = pods.get(&place)?;
                Some((pods.len(), pods.first()?.clone()))
            };
            risks.extend(first(&bare).map(|(count, example)| Risk::BarePods { count, example }));
            risks.extend(first(&bound).map(|(count, example)| Risk::LocalVolumes { count, example }));
        }
        if !risks.is_empty() {
            found.insert(node.name.clone(), risks);
        }
    }
    found
}

/// Rehearses. `progress` is told how many runs of how many are done, at the begin and after each.
pub fn rehearse(prepared: &Prepared, options: &Options, progress: &(dyn Fn(usize, usize) + Sync)) -> Report {
    let asked = prepared.plan.options.max_parallel;
    let mut jobs: Vec<(Luck, u32)> = vec![(Luck::Nominal, asked), (Luck::Best, asked), (Luck::Worst, asked)];
    jobs.extend((0..options.drawn_runs).map(|run| (Luck::Seed(options.seed + u64::from(run)), asked)));
    if options.compare && prepared.drains_only.is_none() {
        jobs.extend(other_bounds(&prepared.plan).into_iter().map(|bound| (Luck::Nominal, bound)));
    }
    // Where there are fewer cores than the three, they share them: else one would wait for the others to end.
    let mut traces = run_all(prepared, &jobs, options.threads.max(3), progress);
    let nominal = traces.remove(0);
    let (best, worst) = (traces.remove(0), traces.remove(0));
    let drawn_runs = options.drawn_runs as usize;
    let mut drawn: Vec<u64> = traces.iter().take(drawn_runs).map(|trace| milliseconds(trace.total)).collect();
    drawn.sort_unstable();
    let mut settings = vec![setting(prepared, asked, &nominal)];
    let compared = jobs.iter().zip(std::iter::once(None).chain([None, None]).chain(traces.iter().map(Some)));
    settings.extend(
        compared.skip(3 + drawn_runs).filter_map(|((_, bound), trace)| Some(setting(prepared, *bound, trace?))),
    );
    let mut report = assemble(prepared, options, &nominal, [&best, &worst]);
    report.percentiles = percentiles(&drawn);
    report.drawn_runs = options.drawn_runs;
    report.advice = Setting::advice(&settings);
    report.advice.extend(pools_first(&report));
    settings.sort_by_key(|setting| setting.max_parallel);
    report.settings = settings;
    report
}

/// Bounds on batches that are worth a try: one, half, double, and as many as the largest pool has.
fn other_bounds(plan: &Plan) -> Vec<u32> {
    let largest = plan.stages.iter().map(|stage| stage.nodes.len()).max().unwrap_or(1);
    let largest = u32::try_from(largest).unwrap_or(u32::MAX).clamp(1, MAX_PARALLEL_LIMIT);
    let asked = plan.options.max_parallel.min(largest);
    let bounds: BTreeSet<u32> =
        [1, asked / 2, asked.saturating_mul(2)].into_iter().map(|bound| bound.clamp(1, largest)).collect();
    bounds.into_iter().filter(|bound| *bound != asked).collect()
}

fn run_all(
    prepared: &Prepared,
    jobs: &[(Luck, u32)],
    threads: usize,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Vec<Trace> {
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    progress(0, jobs.len());
    let traces: Mutex<BTreeMap<usize, Trace>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, jobs.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let job = next.fetch_add(1, Ordering::Relaxed);
                    let Some((luck, max_parallel)) = jobs.get(job) else { return };
                    let mut plan = prepared.plan.clone();
                    plan.options.max_parallel = *max_parallel;
                    let world = prepared.world.clone();
                    let trace = run::run(world, plan, prepared.facts.clone(), prepared.agents.clone(), *luck);
                    traces.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(job, trace);
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1, jobs.len());
                }
            });
        }
    });
    traces.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).into_values().collect()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// By nearest rank.
fn percentiles(sorted: &[u64]) -> BTreeMap<&'static str, u64> {
    let rank = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
    [("p10", 10), ("p50", 50), ("p90", 90)]
        .into_iter()
        .filter_map(|(name, percent)| Some((name, rank(percent)?)))
        .collect()
}

fn setting(prepared: &Prepared, max_parallel: u32, trace: &Trace) -> Setting {
    Setting {
        max_parallel,
        nominal_milliseconds: milliseconds(trace.total),
        workloads_at_zero: workloads(prepared, trace, 0).len(),
        unplaced: trace.unplaced.iter().filter(|pod| pod.until.is_none()).count(),
        blockers: trace.held.iter().filter(|held| held.is_for_ever).count(),
    }
}

fn span(of: Option<&Span>) -> Duration {
    of.map_or(Duration::ZERO, |span| span.end.saturating_sub(span.begin))
}

fn range(nominal: Duration, ends: [Duration; 2]) -> Range {
    let all = [nominal, ends[0], ends[1]].map(milliseconds);
    Range {
        nominal_milliseconds: all[0],
        lower_milliseconds: all.into_iter().min().unwrap_or(0),
        upper_milliseconds: all.into_iter().max().unwrap_or(0),
    }
}

fn assemble(prepared: &Prepared, options: &Options, nominal: &Trace, ends: [&Trace; 2]) -> Report {
    let plan = &prepared.plan;
    let stages = plan.stages.iter().enumerate().filter_map(|(index, stage)| {
        let own = nominal.stages.get(&index)?;
        Some(StageLine {
            stage: stage.kind.word(),
            pool: stage.kind.pool().map(ToString::to_string),
            begin_milliseconds: milliseconds(own.begin),
            end_milliseconds: milliseconds(own.end),
            takes: range(span(Some(own)), ends.map(|end| span(end.stages.get(&index)))),
            batches: batches(plan, index, nominal, ends),
        })
    });
    let held = |is_for_ever: bool| {
        let lines = nominal.held.iter().filter(move |held| held.is_for_ever == is_for_ever);
        lines.map(|held| HeldLine {
            node: held.node.to_string(),
            fix: held.wait.fix(shiplock_core::language::Language::En),
            waiting_on: held.wait.clone(),
            begin_milliseconds: milliseconds(held.began),
            lasted_milliseconds: milliseconds(held.lasted),
        })
    };
    let mut steps: Vec<StepLine> = nominal
        .steps
        .iter()
        .filter_map(|(number, span)| {
            let step = plan.step(*number)?;
            Some(StepLine {
                step: number.0,
                kind: step.action.kind(),
                node: step.target.node().map(ToString::to_string),
                begin_milliseconds: milliseconds(span.begin),
                end_milliseconds: milliseconds(span.end),
            })
        })
        .collect();
    steps.sort_by_key(|step| (step.begin_milliseconds, step.step));
    let mut at_risk = prepared.at_risk.clone();
    for held in nominal.held.iter().filter(|held| held.is_for_ever) {
        let risks = at_risk.entry(held.node.to_string()).or_default();
        if !risks.contains(&Risk::DrainBlocks) {
            risks.push(Risk::DrainBlocks);
        }
    }
    for node in nominal.skipped.keys() {
        at_risk.entry(node.to_string()).or_default().push(Risk::LeftOut);
    }
    Report {
        taken_at: prepared.taken_at,
        server: prepared.server.clone(),
        version: prepared.version.clone(),
        to: prepared.drains_only.is_none().then_some(plan.to),
        drains_only: prepared.drains_only.clone(),
        nodes: prepared.facts.nodes.len(),
        pods: prepared.pods,
        max_parallel: plan.options.max_parallel,
        total: range(nominal.total, ends.map(|end| end.total)),
        percentiles: BTreeMap::new(),
        drawn_runs: 0,
        stages: stages.collect(),
        steps,
        findings: nominal.findings.clone(),
        blockers: held(true).collect(),
        held_up: held(false).collect(),
        workloads: workloads(prepared, nominal, options.floor_percent),
        floor_percent: options.floor_percent,
        unplaced: nominal
            .unplaced
            .iter()
            .map(|pod| UnplacedLine {
                pod: pod.pod.clone(),
                owner: pod.owner.clone(),
                why: pod.why.clone(),
                begin_milliseconds: milliseconds(pod.since),
                end_milliseconds: pod.until.map(milliseconds),
            })
            .collect(),
        nodes_at_risk: at_risk.into_iter().map(|(node, risks)| NodeLine { node, risks }).collect(),
        pauses: nominal
            .pauses
            .iter()
            .map(|(at, because)| PauseLine { at_milliseconds: milliseconds(*at), because: because.clone() })
            .collect(),
        ended_early: nominal.ended_early.clone(),
        settings: Vec::new(),
        advice: Vec::new(),
        unknown: prepared.unknown.clone(),
    }
}

fn batches(plan: &Plan, stage: usize, nominal: &Trace, ends: [&Trace; 2]) -> Vec<BatchLine> {
    let of_stage = |trace: &'_ Trace, ordinal: u32| {
        let found = trace.batches.iter().find(|(of, batch, ..)| (*of, *batch) == (stage, ordinal));
        found.map_or(Duration::ZERO, |(.., own)| span(Some(own)))
    };
    let planned = &plan.stages[stage];
    let node = |name: &NodeName| {
        let steps: Vec<(&'static str, &Span)> = planned
            .node(name)
            .into_iter()
            .flat_map(|node| &node.steps)
            .filter_map(|step| Some((step.action.kind(), nominal.steps.get(&step.number)?)))
            .collect();
        BatchNode {
            node: name.to_string(),
            begin_milliseconds: steps.first().map_or(0, |(_, span)| milliseconds(span.begin)),
            end_milliseconds: steps.last().map_or(0, |(_, span)| milliseconds(span.end)),
            drain_milliseconds: steps
                .iter()
                .find(|(kind, _)| *kind == "drain")
                .map(|(_, own)| milliseconds(span(Some(own)))),
        }
    };
    let own = nominal.batches.iter().filter(|(of, ..)| *of == stage);
    own.map(|(_, ordinal, nodes, own)| BatchLine {
        batch: *ordinal,
        begin_milliseconds: milliseconds(own.begin),
        end_milliseconds: milliseconds(own.end),
        takes: range(span(Some(own)), ends.map(|end| of_stage(end, *ordinal))),
        nodes: nodes.iter().map(node).collect(),
    })
    .collect()
}

/// Workloads whose ready pods fall to zero or below a share of what they were.
fn workloads(prepared: &Prepared, trace: &Trace, floor_percent: u32) -> Vec<WorkloadLine> {
    let mut all: BTreeMap<_, (WorkloadLine, Option<Duration>)> = BTreeMap::new();
    for (at, id, ready) in &trace.readiness {
        if id.kind == WorkloadKind::DaemonSet {
            continue;
        }
        let Some(workload) = prepared.world.workload(*id) else { continue };
        let (line, zero_since) = all.entry(*id).or_insert_with(|| {
            let before = workload.status.ready;
            let line = WorkloadLine {
                workload: format!("{} {}/{}", id.kind.word(), workload.meta.namespace, workload.meta.name),
                ready_before: before,
                lowest: before,
                lowest_at_milliseconds: 0,
                at_zero_milliseconds: 0,
            };
            (line, None)
        });
        if *ready < line.lowest {
            line.lowest = *ready;
            line.lowest_at_milliseconds = milliseconds(*at);
        }
        match (*ready, zero_since.take()) {
            (0, since) => *zero_since = since.or(Some(*at)),
            (_, Some(since)) => line.at_zero_milliseconds += milliseconds(at.saturating_sub(since)),
            (_, None) => {}
        }
    }
    let end = trace.total;
    let mut lines: Vec<WorkloadLine> = all
        .into_values()
        .map(|(mut line, since)| {
            line.at_zero_milliseconds += since.map_or(0, |since| milliseconds(end.saturating_sub(since)));
            line
        })
        .filter(|line| {
            let floor = u64::from(line.ready_before) * u64::from(floor_percent);
            line.ready_before > 0 && (line.lowest == 0 || u64::from(line.lowest) * 100 < floor)
        })
        .collect();
    lines.sort_by(|one, other| (one.lowest, &one.workload).cmp(&(other.lowest, &other.workload)));
    lines
}

/// Where drains block in some pools alone, the others can go first.
fn pools_first(report: &Report) -> Option<Advice> {
    let blocked: BTreeSet<&str> = report.blockers.iter().map(|held| held.node.as_str()).collect();
    let pools = report.stages.iter().filter_map(|stage| Some((stage.pool.clone()?, stage)));
    let (then, first): (Vec<_>, Vec<_>) = pools.partition(|(_, stage)| {
        stage.batches.iter().flat_map(|batch| &batch.nodes).any(|node| blocked.contains(node.node.as_str()))
    });
    let names = |pools: Vec<(String, &StageLine)>| pools.into_iter().map(|(pool, _)| pool).collect::<Vec<_>>();
    let (pools, then) = (names(first), names(then));
    (!pools.is_empty() && !then.is_empty()).then_some(Advice::PoolsFirst { pools, then })
}
