//! Faults between a client and the façade: what a request meets on its way, drawn by a seed.

use std::collections::BTreeMap;

use http::Method;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest as _, Sha256};

use crate::run::gateway::Weather;

/// What happens to one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Disturbance {
    /// Nothing.
    #[default]
    None,
    /// It does not arrive.
    Lost,
    /// It has its effect, and its answer does not arrive.
    AnswerLost,
    /// The API server refuses it with this code.
    Refused(u16),
    /// Somebody else writes what it writes just before.
    Meddled,
}

/// What requests and watches meet.
pub(super) struct Trouble {
    seed: u64,
    weather: Weather,
    /// How often each path was asked with each method, and how often the weather was set. What is drawn hangs on that
    /// alone: tasks that wake at the same moment may ask in any order.
    asked: BTreeMap<(String, String), u64>,
    /// How often every open watch has broken.
    pub(super) breaks: u64,
}

fn chance(luck: &mut ChaCha8Rng, thousandths: u32) -> bool {
    thousandths > 0 && luck.random_range(0..1000) < thousandths
}

impl Trouble {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, weather: Weather::default(), asked: BTreeMap::new(), breaks: 0 }
    }

    /// The luck of the next request of its kind.
    fn luck(&mut self, method: &str, path: &str) -> ChaCha8Rng {
        let count = self.asked.entry((method.to_owned(), path.to_owned())).or_default();
        *count += 1;
        let drawn = Sha256::new().chain_update(self.seed.to_be_bytes()).chain_update(count.to_be_bytes());
        ChaCha8Rng::from_seed(drawn.chain_update(method).chain_update(path).finalize().into())
    }

    /// Sets how much trouble there is, and draws what happens to watches. Whether history is forgotten.
    pub(super) fn set(&mut self, weather: Weather) -> bool {
        self.weather = weather;
        let mut luck = self.luck("", "");
        if weather.is_down || chance(&mut luck, weather.errors / 4) {
            self.breaks += 1;
        }
        chance(&mut luck, weather.errors / 16)
    }

    /// Draws what happens to a request.
    pub(super) fn draw(&mut self, method: &Method, path: &str) -> Disturbance {
        let Weather { is_down, errors } = self.weather;
        if is_down {
            return Disturbance::Lost;
        }
        if errors == 0 {
            return Disturbance::None;
        }
        let mut luck = self.luck(method.as_str(), path);
        if *method == Method::PATCH && chance(&mut luck, errors) {
            return Disturbance::Meddled;
        }
        if !chance(&mut luck, errors) {
            return Disturbance::None;
        }
        match luck.random_range(0..8) {
            0 | 1 => Disturbance::Lost,
            2..=4 => Disturbance::AnswerLost,
            5 => Disturbance::Refused(429),
            6 => Disturbance::Refused(500),
            _ => Disturbance::Refused(503),
        }
    }
}
