//! A world that is shared between those who change it and those who watch it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

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
    changed: watch::Sender<u64>,
}

impl Shared {
    /// Shares a world.
    pub fn new(world: World, settings: Settings) -> Self {
        let changed = watch::Sender::new(world.version());
        Self { world: Mutex::new(world), settings, changed }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
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
