//! The wall clock of a connection: this machine's, or in a simulation one that goes as tokio's does.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// A wall clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Which time it was at which moment; none for the machine's clock.
    simulated: Option<(Timestamp, Instant)>,
}

impl Clock {
    /// A clock that shows `at` now and goes on as tokio's clock does, which stands still where a runtime is paused. Must
    /// be called within a tokio runtime.
    pub fn simulated(at: Timestamp) -> Self {
        Self { simulated: Some((at, Instant::now())) }
    }

    /// What it shows.
    pub(crate) fn now(self) -> Timestamp {
        let Some((at, since)) = self.simulated else { return Timestamp::now() };
        let elapsed = SignedDuration::try_from(since.elapsed()).unwrap_or(SignedDuration::MAX);
        at.checked_add(elapsed).unwrap_or(Timestamp::MAX)
    }
}
