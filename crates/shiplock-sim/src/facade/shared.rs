//! A world that is shared between those who change it and those who watch it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use http::Method;
use tokio::sync::watch;

use super::disturb::{Disturbance, Trouble};
use super::list::Versions;
use crate::run::gateway::Weather;
use crate::world::World;

/// Requests to an API that goes away, as an API server counts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeprecatedRequests {
    /// The group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The resource, plural.
    pub resource: String,
    /// The first minor that does not serve it, such as `1.37`; empty where none is planned.
    pub removed_release: String,
}

/// What the façade tells that the world does not know.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What the API servers counted.
    pub deprecated: Vec<DeprecatedRequests>,
}

/// A world behind a lock that is held for moments only, and the word that it has changed.
pub struct Shared {
    world: Mutex<World>,
    settings: Settings,
    /// What requests meet on their way; none where all goes well.
    trouble: Mutex<Option<Trouble>>,
    changed: watch::Sender<u64>,
    /// For lists that are read in pages. Taken after the world, never before.
    versions: Mutex<Versions>,
}

impl Shared {
    /// Shares a world.
    pub fn new(world: World, settings: Settings) -> Self {
        let changed = watch::Sender::new(world.version());
        Self { world: Mutex::new(world), settings, trouble: Mutex::new(None), changed, versions: Mutex::default() }
    }

    /// The same with trouble on the way of requests, as much as [`Shared::set_weather`] says and a seed draws.
    pub fn in_trouble(world: World, seed: u64) -> Self {
        Self { trouble: Mutex::new(Some(Trouble::new(seed))), ..Self::new(world, Settings::default()) }
    }

    fn trouble<R>(&self, ask: impl FnOnce(&mut Trouble) -> R) -> Option<R> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(ask)
    }

    /// How much trouble there is from now on, and whether every open watch breaks.
    pub fn set_weather(&self, weather: Weather) {
        if self.trouble(|trouble| trouble.set(weather)) == Some(true) {
            self.world().compact();
        }
    }

    /// What happens to a request.
    pub(super) fn disturbance(&self, method: &Method, path: &str) -> Disturbance {
        self.trouble(|trouble| trouble.draw(method, path)).unwrap_or_default()
    }

    /// How often every open watch has broken.
    pub(super) fn breaks(&self) -> u64 {
        self.trouble(|trouble| trouble.breaks).unwrap_or_default()
    }

    /// Puts another world in place, and hands out the one before.
    #[cfg(feature = "seam")]
    pub(super) fn swap(&self, world: &mut World) {
        std::mem::swap(&mut *self.world(), world);
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn versions(&self) -> MutexGuard<'_, Versions> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Looks at the world.
    pub fn look<R>(&self, look: impl FnOnce(&World) -> R) -> R {
        look(&self.world())
    }

    /// Changes the world, and tells watches where it has changed.
    pub fn with<R>(&self, change: impl FnOnce(&mut World) -> R) -> R {
        let mut world = self.world();
        let result = change(&mut world);
        let version = world.version();
        drop(world);
        self.changed.send_if_modified(|before| std::mem::replace(before, version) != version);
        result
    }

    /// Wakes every watch, where something changed that has no version, such as that an instance went away.
    pub fn wake(&self) {
        self.changed.send_modify(|_| {});
    }

    /// Tells when the world has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
