//! The façade's seam for fault simulation: the production code of `shiplock-cluster` with its watches, over a world that is
//! lent to it for the time of a call.
//!
//! Its runtime has one thread and a clock that goes on only when every task rests: no time passes but what the world's does,
//! and the same calls give the same answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use shiplock_cluster::port::{ClaimOutcome, Cluster as _};
use shiplock_cluster::{Clock, KubernetesCluster};
use shiplock_core::facts::ClusterFacts;
use shiplock_core::id::UpgradeId;
use shiplock_core::problem::Problem;
use shiplock_server::driver::step::{Answer, Request};
use shiplock_server::driver::{carry_out, claim_with_proof};
use shiplock_server::store::MemoryStore;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::service::Facade;
use super::shared::Shared;
use crate::run::Simulation;
use crate::run::gateway::{Gateway, Weather};
use crate::world::{Moment, Pace, World};

/// Every watch has taken in what there is once the clock has gone on by this time.
const REST: Duration = Duration::from_millis(1);
/// The installation of the simulated servers.
const INSTALLATION: &str = "sim";

/// One server's client of a world, through production code.
pub struct Seam {
    seed: u64,
    runtime: Runtime,
    shared: Arc<Shared>,
    cluster: KubernetesCluster,
    /// Which time it was in the world at which moment of the runtime.
    begun: (Moment, Instant),
    /// The time of the world at the newest call.
    seen: Moment,
}

impl fmt::Debug for Seam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seam({})", self.seed)
    }
}

impl Seam {
    /// A client that begins now. Nothing is sent yet.
    ///
    /// # Panics
    /// Where the system gives no runtime of one thread.
    fn new(now: Moment, seed: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime of one thread needs nothing of the system");
        let (cluster, shared, begun) = runtime.block_on(async {
            let shared = Arc::new(Shared::in_trouble(World::new(0, now, Pace::default(), 0), seed));
            let client = Facade::new(shared.clone(), None).client();
            let cluster = KubernetesCluster::with_client(client, "https://simulated:6443");
            (cluster.with_clock(Clock::simulated(now.timestamp())), shared, Instant::now())
        });
        Self { seed, runtime, shared, cluster, begun: (now, begun), seen: now }
    }

    /// Has every server of a simulation reach the API through the façade. Faults on the way are drawn by the seed.
    pub fn put_before(simulation: &mut Simulation, seed: u64) {
        let now = simulation.now();
        let seams = (0..simulation.server_count()).map(|index| {
            let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index as u64;
            Box::new(Self::new(now, seed)) as Box<dyn Gateway>
        });
        let seams = seams.collect();
        simulation.reach_api_through(seams);
    }

    /// Makes a call. How long it took goes by in the runtime and not in the world.
    fn call<R>(
        &mut self,
        world: &mut World,
        weather: Weather,
        call: impl AsyncFnOnce(&KubernetesCluster) -> R,
    ) -> (R, Duration) {
        let passed = world.now().since(self.seen);
        self.seen = world.now();
        self.shared.swap(world);
        self.shared.set_weather(weather);
        let result = self.runtime.block_on(async {
            self.shared.wake();
            tokio::time::sleep(passed.max(REST)).await;
            let begun = Instant::now();
            let result = call(&self.cluster).await;
            (result, begun.elapsed())
        });
        self.shared.swap(world);
        result
    }

    /// Facts whose time is the world's: the runtime's may be ahead.
    fn in_world_time(&self, facts: ClusterFacts) -> ClusterFacts {
        let (from, begun) = self.begun;
        let ahead = self.runtime.block_on(async { begun.elapsed() }).saturating_sub(self.seen.since(from));
        let ahead = SignedDuration::try_from(ahead).unwrap_or(SignedDuration::MAX);
        let observed_at = facts.observed_at.checked_sub(ahead).unwrap_or(facts.observed_at);
        ClusterFacts { observed_at: observed_at.min(self.seen.timestamp()), ..facts }
    }
}

impl Gateway for Seam {
    fn facts(&mut self, world: &mut World, weather: Weather) -> Result<ClusterFacts, Problem> {
        let (facts, _) = self.call(world, weather, async |cluster| cluster.facts().await);
        facts.map(|facts| self.in_world_time(facts))
    }

    fn carry_out(&mut self, world: &mut World, weather: Weather, request: Request) -> (Answer, Duration) {
        let (answer, took) = self.call(world, weather, async |cluster| carry_out(cluster, request).await);
        match answer {
            Answer::Facts(Ok(facts)) => (Answer::Facts(Ok(Arc::new(self.in_world_time((*facts).clone())))), took),
            answer => (answer, took),
        }
    }

    fn claim(
        &mut self,
        world: &mut World,
        weather: Weather,
        store: &MemoryStore,
        upgrade: &UpgradeId,
        len: u64,
    ) -> Result<ClaimOutcome, Problem> {
        let claim =
            async |cluster: &KubernetesCluster| claim_with_proof(store, cluster, INSTALLATION, upgrade, len).await;
        self.call(world, weather, claim).0
    }

    fn release(&mut self, world: &mut World, weather: Weather, upgrade: &UpgradeId) {
        // It is not tried again: who takes the cluster next finds an upgrade that has ended.
        let _ = self.call(world, weather, async |cluster| cluster.release(upgrade).await);
    }

    fn forget(&mut self, world: &mut World) {
        self.call(world, Weather::default(), async |cluster| cluster.rest());
    }

    fn begin_anew(&self) -> Box<dyn Gateway> {
        Box::new(Self::new(self.seen, self.seed))
    }
}
