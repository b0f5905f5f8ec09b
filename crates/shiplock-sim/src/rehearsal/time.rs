//! How long a step takes in one run: somewhere in its range.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use shiplock_core::estimate::{Estimate, pod_ends, range};
use shiplock_core::plan::Plan;
use shiplock_core::step::Step;

use crate::world::Pace;

/// Where in their ranges the times of one run lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Luck {
    /// In the middle.
    Nominal,
    /// At the lower ends.
    Best,
    /// At the upper ends.
    Worst,
    /// Drawn: one place for each kind of step, since what makes one slow makes all of them slow, and a little for each.
    Seed(u64),
}

/// Times lie unevenly in their ranges, with few long ones: the middle is the geometric one, for which no time is less than
/// this.
const LEAST_MILLISECONDS: f64 = 50.0;
/// From SIGTERM to the end of a pod whose workload was not measured: a well-behaved one, and one that takes its usual
/// grace.
const POD_STOPS: Estimate = Estimate { lower_milliseconds: 300, upper_milliseconds: 30_000 };
/// How far a step of a drawn run lies from the place of its kind, as a part of the range.
const SPREAD: f64 = 0.15;

/// The times of one run.
#[derive(Clone, Debug)]
pub(super) struct Times {
    luck: Luck,
    generator: ChaCha8Rng,
    places: BTreeMap<&'static str, f64>,
}

impl Times {
    /// Of a run.
    pub(super) fn new(luck: Luck) -> Self {
        let seed = if let Luck::Seed(seed) = luck { seed } else { 0 };
        Self { luck, generator: ChaCha8Rng::seed_from_u64(seed), places: BTreeMap::new() }
    }

    /// The time of a step.
    pub(super) fn of(&mut self, plan: &Plan, step: &Step) -> Duration {
        let place = self.place(step.action.kind(), true);
        within(range(plan, &step.action), place)
    }

    /// How long the pods of workloads take to end that were measured, by workload such as `Deployment shop/cart`. How long
    /// a drain took says nothing of the next one: that depends on the pods that are there.
    pub(super) fn pod_ends<'a>(&mut self, plan: &'a Plan) -> Vec<(&'a str, Duration)> {
        pod_ends(plan).map(|(workload, range)| (workload, within(range, self.place("pod_end", true)))).collect()
    }

    /// How pods end that were not measured, and how pods start, in this run.
    pub(super) fn pace(&mut self, base: &Pace) -> Pace {
        let (stop, start) = (self.place("drain", false), self.place("pod_start", false));
        // Templates say one second.
        let percent = u32::try_from(within(POD_STOPS, stop).as_millis() / 10).unwrap_or(u32::MAX).max(1);
        let start = within(Estimate { lower_milliseconds: 400, upper_milliseconds: 2_500 }, start);
        let start = u32::try_from(start.as_millis() / 10).unwrap_or(100);
        Pace { pod_stop_percent: percent, pod_start_percent: start, ..base.clone() }
    }

    fn place(&mut self, kind: &'static str, with_spread: bool) -> f64 {
        match self.luck {
            Luck::Nominal => 0.5,
            Luck::Best => 0.0,
            Luck::Worst => 1.0,
            Luck::Seed(_) => {
                let place = match self.places.get(kind) {
                    Some(place) => *place,
                    None => {
                        let place = self.generator.random::<f64>();
                        self.places.insert(kind, place);
                        place
                    }
                };
                let spread = if with_spread { self.generator.random_range(-SPREAD..=SPREAD) } else { 0.0 };
                (place + spread).clamp(0.0, 1.0)
            }
        }
    }
}

/// A place in a range, in equal ratios.
#[expect(clippy::cast_precision_loss, reason = "milliseconds of an upgrade are far below 2^52")]
fn within(range: Estimate, place: f64) -> Duration {
    let lower = (range.lower_milliseconds as f64).max(LEAST_MILLISECONDS);
    let upper = (range.upper_milliseconds as f64).max(lower);
    Duration::from_secs_f64(lower * (upper / lower).powf(place) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_lies_within_its_ranges_and_the_nominal_one_in_the_middle() {
        let range = Estimate { lower_milliseconds: 1_000, upper_milliseconds: 9_000 };
        assert_eq!(within(range, 0.5), Duration::from_secs(3), "the geometric middle");
        for place in [0.0, 0.3, 1.0] {
            let found = within(range, place).as_millis();
            assert!((1_000..=9_000).contains(&found), "{found}");
        }
    }
}
