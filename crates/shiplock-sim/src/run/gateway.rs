//! Ways of a server's requests to the API server, where they do not go straight to the world.

use std::fmt::Debug;
use std::time::Duration;

use shiplock_cluster::port::ClaimOutcome;
use shiplock_core::facts::ClusterFacts;
use shiplock_core::id::UpgradeId;
use shiplock_core::problem::Problem;
use shiplock_server::driver::step::{Answer, Request};
use shiplock_server::store::MemoryStore;

use crate::world::World;

/// What requests meet on their way now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weather {
    /// The API server answers nobody.
    pub is_down: bool,
    /// Requests that fail before or after their effect, and writes that meet another one, in thousandths each.
    pub errors: u32,
}

/// The API server as one server process reaches it, with what the watches of that process remember. The world is lent for
/// the time of a call, at whose end it is as old as before.
pub trait Gateway: Debug + Send + Sync {
    /// What watches tell, with the time of the world until which it is known to be so.
    fn facts(&mut self, world: &mut World, weather: Weather) -> Result<ClusterFacts, Problem>;

    /// What a step asks, and how long the answer took.
    fn carry_out(&mut self, world: &mut World, weather: Weather, request: Request) -> (Answer, Duration);

    /// Claims the cluster for an upgrade whose log in the store has so many events.
    fn claim(
        &mut self,
        world: &mut World,
        weather: Weather,
        store: &MemoryStore,
        upgrade: &UpgradeId,
        len: u64,
    ) -> Result<ClaimOutcome, Problem>;

    /// Gives the cluster free.
    fn release(&mut self, world: &mut World, weather: Weather, upgrade: &UpgradeId);

    /// The process has ended: its watches are gone.
    fn forget(&mut self, world: &mut World);

    /// The same way for a copy of the simulation. It has watched nothing yet.
    fn begin_anew(&self) -> Box<dyn Gateway>;
}

impl Clone for Box<dyn Gateway> {
    fn clone(&self) -> Self {
        self.begin_anew()
    }
}
