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

use jiff::Timestamp;
use shiplock_check::copy::ClusterCopy;
use shiplock_check::snapshot::{Read, Snapshot};
use shiplock_core::artefact::ArtefactIndex;
use shiplock_core::catalogue::Catalogue;
use shiplock_core::check::{CheckResult, Finding};
use shiplock_core::facts::{AgentFacts, ClusterFacts, not_ready};
use shiplock_core::id::NodeName;
use shiplock_core::plan::{MAX_PARALLEL_LIMIT, Plan, PlanRequest, StageKind};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::Action;
use shiplock_core::version::KubernetesVersion;

pub use self::copy::world_of;
pub use self::report::{
    Advice, BatchLine, BatchNode, Because, HeldLine, HeldUntil, LeftOut, NodeLine, PauseLine, Range, Report, Risk,
    Setting, StageLine, StepLine, TooMuch, Unfinished, Unknown, UnplacedLine, WorkloadLine,
};
use self::run::{Held, Span, Trace};
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
    /// What stops the start and is not so in the world.
    findings: Vec<Finding>,
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
    /// What is left out that is usual, for the report.
    pub left_out: Option<LeftOut>,
    /// Whether other bounds on batches are tried.
    pub compare: bool,
    /// Workloads with fewer ready pods than this share of before are told, in hundredths; those without any always are.
    pub floor_percent: u32,
    /// Where drawn times begin.
    pub seed: u64,
    /// So many runs go at once.
    pub threads: usize,
}

/// Fewer drawn runs than this tell nothing of how runs spread.
const RUNS_OF_PERCENTILES_MIN: usize = 5;
/// Clocks of clusters are before this, and an upgrade that begins then still ends within what a time can be: the year 3000.
const TAKEN_BEFORE: Timestamp = Timestamp::constant(32_503_680_000, 0);
/// So much is told of why a node is not Ready.
const REASON_CHARS_MAX: usize = 200;
/// And of what is no version.
const VERSION_CHARS_MAX: usize = 40;

/// Makes a world of a snapshot and a plan for it.
pub fn prepare(snapshot: Snapshot, request: &PlanRequest, source: Source<'_>) -> Result<Prepared, Problem> {
    let mut copy = match snapshot.copy {
        Read::Seen(copy) => copy,
        Read::NotSeen(why) => return Err(Problem::new(Code::SnapshotWithoutCopy).cause(why)),
        Read::NotAsked => return Err(Problem::new(Code::SnapshotWithoutCopy)),
    };
    copy.check().map_err(|refusal| refused(refusal.what, refusal.why))?;
    if snapshot.taken_at >= TAKEN_BEFORE {
        return Err(refused("taken_at", format!("{} is no time of a cluster", snapshot.taken_at)));
    }
    for node in &copy.nodes {
        if KubernetesVersion::parse_reported(&node.kubelet).is_err() {
            let why = format!("'{}' is no version of a kubelet", excerpt(&node.kubelet));
            return Err(refused(format!("node {}", node.name), why));
        }
    }
    let version = KubernetesVersion::parse_reported(&snapshot.version)
        .map_err(|_| refused("version", format!("'{}' is no version of an API server", excerpt(&snapshot.version))))?;
    let not_ready = as_if_ready(&mut copy);
    let mut world = world_of(&copy, snapshot.taken_at);
    // Where masters are no nodes, this is what runs.
    world.set_api_elsewhere(version);
    let facts = world.cluster_facts(false);
    if !facts.api_servers.iter().any(|server| server.version.release == version.release) {
        let runs: Vec<String> = facts.api_servers.iter().map(|server| server.version.to_string()).collect();
        return Err(refused("version", format!("it is {version}, and its API servers run {}", runs.join(", "))));
    }
    let agents = plan::assumed_agents(&world);
    let mut unknown = vec![Unknown::Checks, Unknown::PodTimes, Unknown::Agents];
    if !not_ready.is_empty() {
        unknown.insert(0, Unknown::NotReady { nodes: not_ready.keys().map(ToString::to_string).collect() });
    }
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
            let known = Catalogue::shipped().release(version.release).is_some();
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
            let plan = plan::drains_only(&facts, request, version, now)?;
            (plan, Some(outside.cause(problem)))
        }
    };
    plan::without_image_ids(&mut plan);
    if let Some(folder) = &plan.options.kubeadm_patches {
        unknown.push(Unknown::Patches { folder: folder.clone() });
    }
    unknown.extend(never_measured(&plan));
    unknown.extend([Unknown::Scheduling, Unknown::UpdateStrategies]);
    let others = copy.pods.iter().filter(|pod| pod.other_owner.is_some()).count();
    if others > 0 {
        unknown.push(Unknown::OtherControllers { pods: others });
    }
    unknown.extend([Unknown::NewVersion, Unknown::Later]);
    Ok(Prepared {
        at_risk: at_risk(&copy, &not_ready, &plan),
        findings: findings(&facts, &not_ready, &plan),
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

fn refused(what: impl std::fmt::Display, why: impl std::fmt::Display) -> Problem {
    Problem::new(Code::SnapshotRefused).with("what", what).with("why", why)
}

/// The begin of a text that a file holds.
fn excerpt(text: &str) -> String {
    text.chars().take(VERSION_CHARS_MAX).collect()
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

/// Why nodes are not Ready, by name. From here on they are, and the pods on them run: a rehearsal without them would say
/// little, since what waits for a node waits until somebody has seen to it.
fn as_if_ready(copy: &mut ClusterCopy) -> BTreeMap<NodeName, String> {
    let mut found = BTreeMap::new();
    let mut places = BTreeSet::new();
    for (place, node) in copy.nodes.iter_mut().enumerate() {
        if let Some(why) = node.not_ready.take() {
            places.insert(place);
            let words = why.split_whitespace().collect::<Vec<_>>().join(" ");
            found.insert(NodeName::from(node.name.as_str()), words.chars().take(REASON_CHARS_MAX).collect());
        }
    }
    for pod in copy.pods.iter_mut().filter(|pod| pod.node.is_some_and(|node| places.contains(&node))) {
        pod.ready = true;
    }
    found
}

/// What the checks before the start would say of nodes that are not Ready, by the names under which it is accepted.
fn findings(cluster: &ClusterFacts, nodes: &BTreeMap<NodeName, String>, plan: &Plan) -> Vec<Finding> {
    let with_masters = plan.stages.iter().any(|stage| stage.kind == StageKind::ControlPlane);
    let mut found = Vec::new();
    for (name, why) in nodes {
        let is_master = cluster.nodes.get(name).is_some_and(|node| node.is_control_plane());
        let problem = not_ready(name, why);
        let check = match problem.code {
            _ if is_master && with_masters => "CP-002",
            // A node that the plan leaves alone stops nothing.
            _ if !plan.holds(name) => continue,
            Code::PlegNotHealthy => "NODE-002",
            _ => "NODE-001",
        };
        // No master may be away, whatever is accepted.
        if check == "CP-002" || !plan.options.accepts(check) {
            found.push(Finding {
                check: check.to_owned(),
                result: CheckResult::Fail,
                subject: format!("node {name}"),
                problem: Some(problem),
                accepted: false,
                accepted_by: None,
                repaired_by_stage: None,
            });
        }
    }
    found
}

/// What is at risk by the snapshot alone, on nodes that are drained.
fn at_risk(copy: &ClusterCopy, not_ready: &BTreeMap<NodeName, String>, plan: &Plan) -> BTreeMap<String, Vec<Risk>> {
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
        if let Some(why) = not_ready.get(node.name.as_str()) {
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
    jobs.extend((0..options.drawn_runs).map(|run| (Luck::Seed(options.seed.wrapping_add(u64::from(run))), asked)));
    if options.compare && prepared.drains_only.is_none() {
        jobs.extend(other_bounds(&prepared.plan).into_iter().map(|bound| (Luck::Nominal, bound)));
    }
    // Where there are fewer cores than the three, they share them: else one would wait for the others to end.
    let mut traces = run_all(prepared, &jobs, options.threads.max(3), progress);
    let nominal = traces.remove(0);
    let (best, worst) = (traces.remove(0), traces.remove(0));
    let others = traces.split_off(options.drawn_runs as usize);
    let mut settings = vec![setting(prepared, asked, &nominal)];
    let bounds = jobs.iter().skip(3 + traces.len()).map(|(_, bound)| *bound);
    settings.extend(bounds.zip(&others).map(|(bound, trace)| setting(prepared, bound, trace)));
    // What ended early says nothing of how long all of it takes, unless that is all that can be said.
    let is_whole = |trace: &&Trace| trace.ended_early.is_none() || nominal.ended_early.is_some();
    let mut drawn: Vec<u64> = traces.iter().filter(is_whole).map(|trace| milliseconds(trace.total)).collect();
    drawn.sort_unstable();
    // What was drawn may be outside of both ends: other drains wait for one another then.
    let ends: Vec<&Trace> = [&best, &worst].into_iter().chain(&traces).filter(is_whole).collect();
    let mut report = assemble(prepared, options, &nominal, &ends);
    let broken_off: Vec<&Trace> = [&best, &worst].into_iter().chain(&traces).filter(|trace| !is_whole(trace)).collect();
    report.unfinished = broken_off.first().and_then(|trace| {
        let (runs, of) = (broken_off.len(), traces.len() + 2);
        Some(Unfinished { runs, of, because: trace.ended_early.clone()? })
    });
    if drawn.len() >= RUNS_OF_PERCENTILES_MIN {
        report.percentiles = percentiles(&drawn);
    }
    report.drawn_runs = options.drawn_runs;
    report.whole_drawn_runs = drawn.len();
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
        blockers: trace.held.iter().filter(|held| held.until != HeldUntil::BudgetAllows).count(),
    }
}

fn span(of: Option<&Span>) -> Duration {
    of.map_or(Duration::ZERO, |span| span.end.saturating_sub(span.begin))
}

/// The nominal time, and how far it is from that in all other runs.
fn range(nominal: Duration, ends: &[&Trace], of: impl Fn(&Trace) -> Duration) -> Range {
    let nominal = milliseconds(nominal);
    let all = ends.iter().map(|end| milliseconds(of(end)));
    Range {
        nominal_milliseconds: nominal,
        lower_milliseconds: all.clone().fold(nominal, u64::min),
        upper_milliseconds: all.fold(nominal, u64::max),
    }
}

fn assemble(prepared: &Prepared, options: &Options, nominal: &Trace, ends: &[&Trace]) -> Report {
    let plan = &prepared.plan;
    let stages = plan.stages.iter().enumerate().filter_map(|(index, stage)| {
        let own = nominal.stages.get(&index)?;
        Some(StageLine {
            stage: stage.kind.word(),
            pool: stage.kind.pool().map(ToString::to_string),
            begin_milliseconds: milliseconds(own.begin),
            end_milliseconds: milliseconds(own.end),
            takes: range(span(Some(own)), ends, |end| span(end.stages.get(&index))),
            batches: batches(plan, index, nominal, ends),
        })
    });
    let held = |among: &[HeldUntil]| -> Vec<HeldLine> {
        let lines = nominal.held.iter().filter(|held| among.contains(&held.until));
        let line = |held: &Held| HeldLine {
            node: held.node.to_string(),
            fix: held.wait.fix(shiplock_core::language::Language::En),
            waiting_on: held.wait.clone(),
            begin_milliseconds: milliseconds(held.began),
            lasted_milliseconds: milliseconds(held.lasted),
            until: held.until,
        };
        lines.map(line).collect()
    };
    let of_stage = plan.stages.iter().flat_map(|stage| {
        stage.steps.iter().chain(stage.nodes.iter().flat_map(|node| &node.steps)).map(move |step| (stage, step))
    });
    let mut steps: Vec<StepLine> = of_stage
        .filter_map(|(stage, step)| {
            let span = nominal.steps.get(&step.number)?;
            Some(StepLine {
                step: step.number.0,
                stage: stage.kind.word(),
                pool: stage.kind.pool().map(ToString::to_string),
                kind: step.action.kind(),
                node: step.target.node().map(ToString::to_string),
                begin_milliseconds: milliseconds(span.begin),
                end_milliseconds: milliseconds(span.end),
            })
        })
        .collect();
    steps.sort_by_key(|step| (step.begin_milliseconds, step.step));
    let mut at_risk = prepared.at_risk.clone();
    for held in nominal.held.iter().filter(|held| held.until == HeldUntil::PersonActs) {
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
        total: range(nominal.total, ends, |end| end.total),
        percentiles: BTreeMap::new(),
        drawn_runs: 0,
        whole_drawn_runs: 0,
        left_out: options.left_out.map(|left_out| {
            // Where drains alone are rehearsed there are no other settings to try.
            LeftOut { settings: left_out.settings && prepared.drains_only.is_none(), ..left_out }
        }),
        unfinished: None,
        stages: stages.collect(),
        steps,
        findings: prepared.findings.iter().chain(&nominal.findings).cloned().collect(),
        blockers: held(&[HeldUntil::PersonActs]),
        timed_out: held(&[HeldUntil::NodeLeftOut, HeldUntil::PodDeleted]),
        held_up: held(&[HeldUntil::BudgetAllows]),
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

fn batches(plan: &Plan, stage: usize, nominal: &Trace, ends: &[&Trace]) -> Vec<BatchLine> {
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
        let drain = steps.iter().find(|(kind, _)| *kind == "drain").map(|(_, drain)| *drain);
        BatchNode {
            node: name.to_string(),
            begin_milliseconds: steps.first().map_or(0, |(_, span)| milliseconds(span.begin)),
            end_milliseconds: steps.last().map_or(0, |(_, span)| milliseconds(span.end)),
            drain_begin_milliseconds: drain.map(|drain| milliseconds(drain.begin)),
            drain_milliseconds: drain.map(|drain| milliseconds(span(Some(drain)))),
        }
    };
    let own = nominal.batches.iter().filter(|(of, ..)| *of == stage);
    own.map(|(_, ordinal, nodes, own)| BatchLine {
        batch: *ordinal,
        begin_milliseconds: milliseconds(own.begin),
        end_milliseconds: milliseconds(own.end),
        takes: range(span(Some(own)), ends, |end| of_stage(end, *ordinal)),
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
    let blocked: BTreeSet<&str> = report.blocked_nodes().collect();
    let pools = report.stages.iter().filter_map(|stage| Some((stage.pool.clone()?, stage)));
    let (then, first): (Vec<_>, Vec<_>) = pools.partition(|(_, stage)| {
        stage.batches.iter().flat_map(|batch| &batch.nodes).any(|node| blocked.contains(node.node.as_str()))
    });
    let names = |pools: Vec<(String, &StageLine)>| pools.into_iter().map(|(pool, _)| pool).collect::<Vec<_>>();
    let (pools, then) = (names(first), names(then));
    (!pools.is_empty() && !then.is_empty()).then_some(Advice::PoolsFirst { pools, then })
}
