//! What the world derives from its tables: ids in order, counts, and what hangs on each workload. Most of it is short, so
//! each is kept in one piece of memory: to walk trees for it would be most of the time of a large rehearsal.

use std::ops::Deref;
use std::sync::Arc;

use super::object::WorkloadId;

/// Ids in order, shared by clones until one of them changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Ids(Arc<Vec<u32>>);

impl Ids {
    /// Whether it is there.
    pub(super) fn holds(&self, id: u32) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    /// Adds one; false where it is there. The newest ids are the highest, so it is mostly the last.
    pub(super) fn insert(&mut self, id: u32) -> bool {
        let Err(place) = self.0.binary_search(&id) else { return false };
        Arc::make_mut(&mut self.0).insert(place, id);
        true
    }

    /// Takes one away; false where it is not there.
    pub(super) fn remove(&mut self, id: u32) -> bool {
        let Ok(place) = self.0.binary_search(&id) else { return false };
        Arc::make_mut(&mut self.0).remove(place);
        true
    }
}

impl Deref for Ids {
    type Target = [u32];
    fn deref(&self) -> &[u32] {
        &self.0
    }
}

/// How often each key was counted, shared by clones until one of them changes. What there is none of is not kept.
#[derive(Clone, Debug)]
pub(super) struct Counts<K>(Arc<Vec<(K, u32)>>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Copy + Ord> Counts<K> {
    fn place(&self, key: K) -> Result<usize, usize> {
        self.0.binary_search_by_key(&key, |(key, _)| *key)
    }

    /// How often a key was counted.
    pub(super) fn of(&self, key: K) -> u32 {
        self.place(key).map_or(0, |place| self.0[place].1)
    }

    /// The keys that were counted, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = K> + '_ {
        self.0.iter().map(|(key, _)| *key)
    }

    /// Counts one more.
    pub(super) fn up(&mut self, key: K) {
        let place = self.place(key);
        let counts = Arc::make_mut(&mut self.0);
        match place {
            Ok(place) => counts[place].1 += 1,
            Err(place) => counts.insert(place, (key, 1)),
        }
    }

    /// Counts one less.
    pub(super) fn down(&mut self, key: K) {
        let Ok(place) = self.place(key) else { return };
        let counts = Arc::make_mut(&mut self.0);
        counts[place].1 -= 1;
        if counts[place].1 == 0 {
            counts.remove(place);
        }
    }
}

/// What hangs on each workload, by its kind and its id; nothing hangs on one that was not asked for before.
#[derive(Clone, Debug, Default)]
pub(super) struct ByWorkload<T>([Vec<T>; 4]);

impl<T: Default> ByWorkload<T> {
    pub(super) fn get(&self, id: WorkloadId) -> Option<&T> {
        self.0[id.kind as usize].get(id.id as usize)
    }

    pub(super) fn get_mut(&mut self, id: WorkloadId) -> Option<&mut T> {
        self.0[id.kind as usize].get_mut(id.id as usize)
    }

    /// That of a workload, made where it is not there.
    pub(super) fn entry(&mut self, id: WorkloadId) -> &mut T {
        entry(&mut self.0[id.kind as usize], id.id)
    }
}

/// What hangs on an object with an id, made where it is not there.
pub(super) fn entry<T: Default>(all: &mut Vec<T>, id: u32) -> &mut T {
    let place = id as usize;
    if all.len() <= place {
        all.resize_with(place + 1, T::default);
    }
    &mut all[place]
}
