//! How long it will take: a range before the start, and what is left while it goes.
//!
//! Times of a cluster's own earlier upgrades come first; kinds of steps that were never measured there have the ranges of
//! a table. It never claims more than a range, and it decides nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::plan::{NodePlan, Plan, Stage, StageKind};
use crate::step::{Action, Step};
use crate::upgrade::batch::size_limit;
use crate::upgrade::{State, StepOutcome, StepStatus, Upgrade};

/// A range of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Estimate {
    /// It hardly takes less, in milliseconds.
    pub lower_milliseconds: u64,
    /// It rarely takes more, in milliseconds; what waits for a person or a PodDisruptionBudget is not in it.
    pub upper_milliseconds: u64,
}

impl Estimate {
    const fn seconds(lower: u64, upper: u64) -> Self {
        Self { lower_milliseconds: lower * 1_000, upper_milliseconds: upper * 1_000 }
    }

    fn then(self, next: Self) -> Self {
        Self {
            lower_milliseconds: self.lower_milliseconds.saturating_add(next.lower_milliseconds),
            upper_milliseconds: self.upper_milliseconds.saturating_add(next.upper_milliseconds),
        }
    }

    fn beside(self, other: Self) -> Self {
        Self {
            lower_milliseconds: self.lower_milliseconds.max(other.lower_milliseconds),
            upper_milliseconds: self.upper_milliseconds.max(other.upper_milliseconds),
        }
    }

    fn less(self, spent_milliseconds: u64) -> Self {
        Self {
            lower_milliseconds: self.lower_milliseconds.saturating_sub(spent_milliseconds),
            upper_milliseconds: self.upper_milliseconds.saturating_sub(spent_milliseconds),
        }
    }
}

/// How an upgrade keeps to what was expected of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// Every step in work is within its range.
    Expected,
    /// A step in work takes longer than such steps rarely do.
    Slow,
    /// Nothing was begun or ended for much longer than that.
    Stalled,
}

/// What is left of an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Remaining {
    /// How long it will take from now, while nobody pauses it and nothing blocks it.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// How it keeps to what was expected.
    pub pace: Pace,
}

/// Times of steps that were done on a cluster, by kind, and of pods that ended in drains, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeasuredTimes {
    by_kind: BTreeMap<&'static str, Vec<u64>>,
    by_workload: BTreeMap<String, Vec<u64>>,
}

/// The newest times of a kind that are kept.
const MEASURES_MAX: usize = 64;
/// Of so many workloads it is kept how long their pods take to end.
const WORKLOADS_MAX: usize = 2_000;
/// How the end of the pods of a workload is called among the measured times of a plan, ahead of the workload.
const POD_END: &str = "pod_end ";
/// A range is widened by this part of the measured values, since the next run is not the last one.
const WIDENING_PERCENT: u64 = 25;
/// As many times its upper bound without any event, and an upgrade has stalled.
const STALLED_FACTOR: u64 = 3;
/// But never before this long, in milliseconds.
const STALLED_MILLISECONDS_MIN: u64 = 60_000;

impl MeasuredTimes {
    /// Adds what an upgrade measured. Give the newest upgrade first: older times beyond a bound are left out.
    pub fn add(&mut self, upgrade: &Upgrade) {
        for step in upgrade.plan.steps() {
            let Some(progress) = upgrade.steps.get(&step.number) else { continue };
            // A step that was tried again or cut by a pause tells of the trouble, not of the step.
            let (StepStatus::Succeeded { at, outcome }, 1) = (&progress.status, progress.attempts) else { continue };
            let mut took = milliseconds_between(progress.first_started_at, *at);
            if let StepOutcome::Drained { ended, held_milliseconds, .. } = outcome {
                // What waited for a budget tells of that hour, not of the pods.
                took = took.saturating_sub(*held_milliseconds);
                self.add_ended(ended);
            }
            let times = self.by_kind.entry(step.action.kind()).or_default();
            if times.len() < MEASURES_MAX {
                times.push(took);
            }
        }
    }

    fn add_ended(&mut self, ended: &BTreeMap<String, u64>) {
        for (workload, took) in ended {
            let has_room = self.by_workload.len() < WORKLOADS_MAX;
            if has_room || self.by_workload.contains_key(workload) {
                let times = self.by_workload.entry(workload.clone()).or_default();
                if times.len() < MEASURES_MAX {
                    times.push(*took);
                }
            }
        }
    }

    /// The range of each kind that was measured, and that of the end of each workload's pods, see [`pod_ends`].
    pub fn ranges(&self) -> BTreeMap<String, Estimate> {
        let range = |times: &[u64]| {
            let widened = |value: u64| value.saturating_mul(WIDENING_PERCENT) / 100;
            let (least, most) = (times.iter().min().copied().unwrap_or(0), times.iter().max().copied().unwrap_or(0));
            Estimate {
                lower_milliseconds: least.saturating_sub(widened(least)),
                upper_milliseconds: most.saturating_add(widened(most)).max(1_000),
            }
        };
        let kinds = self.by_kind.iter().map(|(kind, times)| ((*kind).to_owned(), range(times)));
        let workloads = self.by_workload.iter();
        kinds.chain(workloads.map(|(workload, times)| (format!("{POD_END}{workload}"), range(times)))).collect()
    }
}

/// The range for a step: as measured on the cluster before the plan was made, else of the table.
pub fn range(plan: &Plan, action: &Action) -> Estimate {
    plan.measured.get(action.kind()).copied().unwrap_or_else(|| table(action))
}

/// How long the pods of workloads took to end on the cluster before the plan was made, by workload such as
/// `Deployment shop/cart`.
pub fn pod_ends(plan: &Plan) -> impl Iterator<Item = (&str, Estimate)> {
    plan.measured.iter().filter_map(|(what, range)| Some((what.strip_prefix(POD_END)?, *range)))
}

/// Ranges for kinds that were never measured on a cluster: from runs on small clusters, with room for slower disks,
/// networks and applications.
fn table(action: &Action) -> Estimate {
    match action {
        Action::CaptureBaseline => Estimate::seconds(0, 3),
        Action::Prefetch { files, images, .. } => {
            let files: u64 = files.iter().map(|file| file.size_bytes).sum();
            let images: u64 = images.iter().map(|image| image.size_bytes).sum();
            // 200 MB/s where the mirror is near and the disk is fast, 10 MB/s where they are not.
            Estimate::seconds((files + images) / 200_000_000, (files + images) / 10_000_000 + 10)
        }
        Action::Cordon | Action::Uncordon => Estimate::seconds(0, 2),
        Action::Drain { .. } | Action::VerifyAddons { .. } => Estimate::seconds(1, 120),
        Action::UpgradeContainerRuntime { .. } => Estimate::seconds(1, 20),
        Action::UpgradeKubelet { .. } | Action::UpgradeAddons { .. } => Estimate::seconds(1, 30),
        Action::VerifyNode { control_plane_images, .. } if !control_plane_images.is_empty() => Estimate::seconds(1, 60),
        Action::VerifyNode { .. } => Estimate::seconds(1, 45),
        Action::VerifyCluster { .. } => Estimate::seconds(0, 30),
        Action::CollectLogs | Action::RestoreConfiguration { .. } => Estimate::seconds(0, 5),
        Action::BackupEtcd { .. } => Estimate::seconds(1, 60),
        Action::UpgradeControlPlane(upgrade) => match upgrade.method {
            crate::step::ControlPlaneMethod::StagedSwap => Estimate::seconds(6, 60),
            crate::step::ControlPlaneMethod::Kubeadm => Estimate::seconds(90, 300),
        },
        Action::RestoreControlPlane(_) => Estimate::seconds(6, 60),
        Action::UploadConfiguration { .. } => Estimate::seconds(0, 15),
    }
}

/// The range for a whole plan.
pub fn estimate(plan: &Plan) -> Estimate {
    let stages = plan.stages.iter().enumerate();
    stages.fold(Estimate::default(), |total, (index, stage)| {
        let nodes: Vec<&NodePlan> = stage.nodes.iter().collect();
        total.then(stage_estimate(plan, index, stage, &nodes, 0, plan.options.max_parallel, |step| {
            range(plan, &step.action)
        }))
    })
}

/// What is left of an upgrade that is not paused; none where it is, or has ended.
pub fn remaining(upgrade: &Upgrade, now: Timestamp) -> Option<Remaining> {
    if !matches!(
        upgrade.state,
        State::Planned | State::Checking | State::Ready { .. } | State::Running | State::Pausing { .. }
    ) {
        return None;
    }
    let left = |step: &Step| match upgrade.step_status(step) {
        Some(StepStatus::Succeeded { .. }) => Estimate::default(),
        Some(StepStatus::InFlight { since, .. }) => {
            range(&upgrade.plan, &step.action).less(milliseconds_between(*since, now))
        }
        _ => range(&upgrade.plan, &step.action),
    };
    let mut total = Estimate::default();
    for (index, stage) in upgrade.plan.stages.iter().enumerate() {
        if upgrade.stages_finished.contains(&index) {
            continue;
        }
        let batches = upgrade.batches.get(&index).map_or(&[][..], Vec::as_slice);
        let open = batches.last().filter(|batch| !batch.finished);
        let in_open = stage.nodes.iter().filter(|node| open.is_some_and(|batch| batch.nodes.contains(&node.node)));
        let open = in_open.map(|node| sum(&node.steps, left)).fold(Estimate::default(), Estimate::beside);
        let untouched: Vec<&NodePlan> = stage
            .nodes
            .iter()
            .filter(|node| !batches.iter().any(|batch| batch.nodes.contains(&node.node)))
            .filter(|node| !upgrade.skipped.contains_key(&node.node) && !upgrade.abandoned.contains(&node.node))
            .collect();
        let rest = stage_estimate(&upgrade.plan, index, stage, &untouched, batches.len(), upgrade.max_parallel, left);
        let soaked = upgrade.soak.filter(|_| upgrade.stages_started.contains(&index));
        let rest = rest.less(soaked.map_or(0, |soak| milliseconds_between(soak.since, now)));
        total = total.then(open).then(rest);
    }
    Some(Remaining { estimate: total, pace: pace(upgrade, now) })
}

fn pace(upgrade: &Upgrade, now: Timestamp) -> Pace {
    // Nothing is to happen in a soak.
    if upgrade.soak.is_some_and(|soak| soak.unwell_since.is_none()) {
        return Pace::Expected;
    }
    let upper = |step: &Step| range(&upgrade.plan, &step.action).upper_milliseconds;
    let quiet = milliseconds_between(upgrade.updated_at, now);
    let longest = upgrade.in_flight().map(|(step, ..)| upper(step)).max().unwrap_or(0);
    if quiet > longest.saturating_mul(STALLED_FACTOR).max(STALLED_MILLISECONDS_MIN) {
        return Pace::Stalled;
    }
    let mut in_flight = upgrade.in_flight();
    if in_flight.any(|(step, _, since)| milliseconds_between(since, now) > upper(step)) {
        return Pace::Slow;
    }
    Pace::Expected
}

/// The stage's own steps, of which those on nodes go beside each other, and then its nodes in batches.
fn stage_estimate(
    plan: &Plan,
    index: usize,
    stage: &Stage,
    nodes: &[&NodePlan],
    batches_begun: usize,
    max_parallel: u32,
    of: impl Fn(&Step) -> Estimate,
) -> Estimate {
    let (fetches, others): (Vec<&Step>, Vec<&Step>) =
        stage.steps.iter().partition(|step| matches!(step.action, Action::Prefetch { .. }));
    let waves = fetches.chunks(PREFETCH_PARALLEL);
    let fetching = waves.fold(Estimate::default(), |total, wave| {
        total.then(wave.iter().map(|step| of(step)).fold(Estimate::default(), Estimate::beside))
    });
    let soak = match stage.kind {
        StageKind::Soak { seconds, .. } => Estimate::seconds(seconds.into(), seconds.into()),
        _ => Estimate::default(),
    };
    let own = others.iter().fold(fetching.then(soak), |total, step| total.then(of(step)));
    let interval = u64::from(plan.options.batch_interval_seconds);
    let mut total = own;
    let mut rest = nodes;
    let mut ordinal = u32::try_from(batches_begun).unwrap_or(u32::MAX);
    while !rest.is_empty() {
        ordinal = ordinal.saturating_add(1);
        let size = size_limit(ordinal, stage.max_parallel(max_parallel)) as usize;
        let (batch, later) = rest.split_at(size.min(rest.len()));
        let batch = batch.iter().map(|node| sum(&node.steps, &of)).fold(Estimate::default(), Estimate::beside);
        total = total.then(batch);
        if !later.is_empty() || index + 1 < plan.stages.len() && !stage.nodes.is_empty() {
            total = total.then(Estimate::seconds(interval, interval));
        }
        rest = later;
    }
    total
}

/// How many nodes fetch at once, as the driver's default policy has it.
const PREFETCH_PARALLEL: usize = 10;

fn sum(steps: &[Step], of: impl Fn(&Step) -> Estimate) -> Estimate {
    steps.iter().fold(Estimate::default(), |total, step| total.then(of(step)))
}

fn milliseconds_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_millisecond().saturating_sub(from.as_millisecond())).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PlanOptions;
    use crate::sample::{cluster, cluster_with_masters, plan_of, request, request_for_all};

    fn upper(pools: &[(&str, usize)], options: PlanOptions) -> u64 {
        let plan = plan_of(&cluster(pools), &request("1.36", options)).unwrap();
        estimate(&plan).upper_milliseconds
    }

    #[test]
    fn nodes_of_a_batch_go_beside_each_other_and_batches_one_after_another() {
        let with = |max_parallel| PlanOptions { max_parallel, ..PlanOptions::default() };
        let (three, five, seven) =
            (upper(&[("blue", 3)], with(10)), upper(&[("blue", 5)], with(10)), upper(&[("blue", 7)], with(10)));
        assert!(three < five);
        assert_eq!(five, seven, "a batch of four takes as long as a batch of two");
        assert!(upper(&[("blue", 7)], with(1)) > 2 * seven);
        let waits = PlanOptions { batch_interval_seconds: 600, ..PlanOptions::default() };
        assert!(upper(&[("blue", 3)], waits) >= three + 600_000);
    }

    #[test]
    fn masters_add_up_and_kubeadm_by_itself_takes_far_longer() {
        let of = |masters, control_plane_method| {
            let options = PlanOptions { control_plane_method, ..PlanOptions::default() };
            let plan = plan_of(&cluster_with_masters(masters, 1), &request_for_all("1.36", options)).unwrap();
            estimate(&plan).lower_milliseconds
        };
        let staged = crate::step::ControlPlaneMethod::StagedSwap;
        assert!(of(3, staged) > of(1, staged));
        assert!(of(3, crate::step::ControlPlaneMethod::Kubeadm) > 200_000 + of(3, staged));
    }

    #[test]
    fn what_was_measured_on_the_cluster_replaces_the_table() {
        let mut measured = MeasuredTimes::default();
        measured.by_kind.insert("drain", vec![4_000, 8_000]);
        let drain = Action::Drain { timeout_seconds: 1_800, on_timeout: crate::step::OnDrainTimeout::Pause };
        let mut plan = plan_of(&cluster(&[("blue", 1)]), &request("1.36", PlanOptions::default())).unwrap();
        assert_eq!(range(&plan, &drain), Estimate::seconds(1, 120));
        plan.measured = measured.ranges();
        assert_eq!(range(&plan, &drain), Estimate { lower_milliseconds: 3_000, upper_milliseconds: 10_000 });
    }
}
