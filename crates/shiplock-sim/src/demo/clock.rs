//! The clock of a demo: a world's time is real time, from which clients tell ages; what happens in it is so many times as
//! fast as in a real cluster.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::facade::Shared;
use crate::world::{Moment, World};

/// The longest between two looks at a world. What a client asked for may be due sooner than anything before it.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// The time of a world, and how fast everything is in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    from: Moment,
    begun: Instant,
    speed: f64,
}

impl Clock {
    /// A clock that begins at the world's present.
    pub(super) fn start(world: &World, speed: u32) -> Self {
        Self { from: world.now(), begun: Instant::now(), speed: f64::from(speed) }
    }

    fn now(self) -> Moment {
        self.from + self.begun.elapsed()
    }

    /// How long something takes here that takes so long in a real cluster.
    pub(super) fn real(self, simulated: Duration) -> Duration {
        simulated.div_f64(self.speed)
    }

    /// How long something takes in a real cluster that takes so long here.
    pub(super) fn simulated(self, real: Duration) -> Duration {
        real.mul_f64(self.speed)
    }

    /// Lets the world's time go for as long as it is polled.
    pub(super) async fn run(self, shared: Arc<Shared>) {
        let mut serving = serving(&shared);
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            shared.with(|world| world.advance(self.now()));
            // An API server that comes or goes is no change of an object, and ends watches all the same.
            let now = self::serving(&shared);
            if now != serving {
                serving = now;
                shared.wake();
            }
        }
    }
}

/// Which masters' API servers answer.
fn serving(shared: &Shared) -> Vec<u32> {
    shared.look(|world| (0..world.nodes().ids_end()).filter(|id| world.api_server_answers(*id)).collect())
}
