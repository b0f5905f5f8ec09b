//! Tables of objects: cheap to clone, read by namespace and name, with a bounded log of changes for watches.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::{Arc, OnceLock};

/// Text that many objects share.
pub type Text = Arc<str>;

/// What a table can hold.
pub trait Object: Clone {
    /// The namespace; empty for objects of the whole cluster.
    fn namespace(&self) -> &Text;
    /// The name.
    fn name(&self) -> &Text;
    /// Its resource version.
    fn version(&self) -> u64;
    /// Sets the resource version.
    fn set_version(&mut self, version: u64);
}

/// How an object changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was created.
    Added,
    /// It was changed.
    Modified,
    /// It was deleted; the object is as it was last, under the version of the deletion.
    Deleted,
}

/// One change of a table.
#[derive(Clone, Debug)]
pub struct Change<T> {
    /// The resource version that it made.
    pub version: u64,
    /// What happened.
    pub kind: ChangeKind,
    /// The object after it.
    pub object: Arc<T>,
}

/// The version that a watch wants to begin at is older than what is kept: list again (410).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOld;

const CHUNK: usize = 32;

/// The ids of the objects of one namespace by their names. Those of pods come and go all the time and are seldom asked for
/// in order, so they are brought into it where somebody does.
#[derive(Clone, Debug, Default)]
struct Names {
    /// The hasher has no luck of its own: a clone of a world goes on alike.
    ids: HashMap<Text, u32, BuildHasherDefault<DefaultHasher>>,
    ordered: OnceLock<Vec<u32>>,
}

impl Names {
    /// The ids in order of the names.
    fn ordered(&self) -> &[u32] {
        self.ordered.get_or_init(|| {
            let mut all: Vec<(&Text, u32)> = self.ids.iter().map(|(name, id)| (name, *id)).collect();
            all.sort_unstable();
            all.into_iter().map(|(_, id)| id).collect()
        })
    }
}

/// Objects of one kind. Ids are never given twice.
#[derive(Clone, Debug)]
pub struct Table<T> {
    chunks: Vec<Arc<Vec<Option<Arc<T>>>>>,
    count: usize,
    names: Arc<BTreeMap<Text, Arc<Names>>>,
    changes: VecDeque<Change<T>>,
    kept_max: usize,
    /// Changes up to this version were dropped.
    dropped: u64,
    /// The newest version in this table.
    newest: u64,
}

impl<T: Object> Table<T> {
    /// An empty table that keeps so many changes for watches.
    pub fn new(changes_kept_max: usize) -> Self {
        Self {
            chunks: Vec::new(),
            count: 0,
            names: Arc::default(),
            changes: VecDeque::new(),
            kept_max: changes_kept_max,
            dropped: 0,
            newest: 0,
        }
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.names.values().map(|names| names.ids.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// One more than the highest id that was given.
    pub fn ids_end(&self) -> u32 {
        u32::try_from(self.count).unwrap_or(u32::MAX)
    }

    /// The version of the newest change.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// The object with an id.
    pub fn get(&self, id: u32) -> Option<&Arc<T>> {
        self.chunks.get(id as usize / CHUNK)?.get(id as usize % CHUNK)?.as_ref()
    }

    /// The id of an object.
    pub fn id(&self, namespace: &str, name: &str) -> Option<u32> {
        self.names.get(namespace)?.ids.get(name).copied()
    }

    /// The object with a name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        self.get(self.id(namespace, name)?)
    }

    /// The namespaces that hold any.
    pub fn namespaces(&self) -> impl Iterator<Item = &Text> {
        self.names.keys()
    }

    /// All objects with their ids, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Arc<T>)> {
        self.held(self.names.values().flat_map(|names| names.ordered().iter().copied()))
    }

    /// The objects of a namespace with their ids, by name.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = (u32, &Arc<T>)> {
        self.held(self.names.get(namespace).into_iter().flat_map(|names| names.ordered().iter().copied()))
    }

    /// As [`Table::in_namespace`] without any order: for whoever counts.
    pub fn all_in_namespace(&self, namespace: &str) -> impl Iterator<Item = (u32, &Arc<T>)> {
        self.held(self.names.get(namespace).into_iter().flat_map(|names| names.ids.values().copied()))
    }

    /// The objects after a name, for paging: none begins at the first.
    pub fn after(&self, place: Option<(&str, &str)>) -> impl Iterator<Item = (u32, &Arc<T>)> {
        let place = place.map(|(namespace, name)| (Text::from(namespace), Text::from(name)));
        self.iter().filter(move |(_, object)| {
            place.as_ref().is_none_or(|(namespace, name)| (object.namespace(), object.name()) > (namespace, name))
        })
    }

    fn held(&self, ids: impl Iterator<Item = u32>) -> impl Iterator<Item = (u32, &Arc<T>)> {
        ids.filter_map(|id| Some((id, self.get(id)?)))
    }

    /// The changes after a version, oldest first.
    pub fn changes_since(&self, version: u64) -> Result<impl Iterator<Item = &Change<T>>, TooOld> {
        if version < self.dropped {
            return Err(TooOld);
        }
        let begin = self.changes.partition_point(|change| change.version <= version);
        Ok(self.changes.range(begin..))
    }

    /// Drops all changes that are kept, as a compaction does.
    pub fn compact(&mut self) {
        self.changes.clear();
        self.dropped = self.newest;
    }

    /// `object` gives the object where the change is kept.
    fn note(&mut self, version: u64, kind: ChangeKind, object: impl FnOnce(&Self) -> Option<Arc<T>>) {
        self.newest = version;
        if self.kept_max == 0 {
            self.dropped = version;
            return;
        }
        self.changes.extend(object(self).map(|object| Change { version, kind, object }));
        if self.changes.len() > self.kept_max
            && let Some(old) = self.changes.pop_front()
        {
            self.dropped = old.version;
        }
    }

    /// Adds an object; none where the name is taken.
    pub fn insert(&mut self, mut object: T, version: u64) -> Option<u32> {
        let id = u32::try_from(self.count).ok()?;
        let names = Arc::make_mut(&mut self.names).entry(object.namespace().clone()).or_default();
        let names = Arc::make_mut(names);
        match names.ids.entry(object.name().clone()) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(place) => _ = place.insert(id),
        }
        names.ordered.take();
        object.set_version(version);
        if self.count.is_multiple_of(CHUNK) {
            self.chunks.push(Arc::default());
        }
        Arc::make_mut(self.chunks.last_mut()?).push(Some(Arc::new(object)));
        self.count += 1;
        self.note(version, ChangeKind::Added, |table| table.get(id).cloned());
        Some(id)
    }

    /// Changes an object. Its name must stay.
    pub fn change(&mut self, id: u32, version: u64, change: impl FnOnce(&mut T)) -> bool {
        let Some(slot) = self.slot(id) else { return false };
        let Some(object) = slot else { return false };
        let held = Arc::make_mut(object);
        change(held);
        held.set_version(version);
        self.note(version, ChangeKind::Modified, |table| table.get(id).cloned());
        true
    }

    /// Changes what no watch tells of, without a new version.
    pub fn change_quietly(&mut self, id: u32, change: impl FnOnce(&mut T)) {
        if let Some(Some(object)) = self.slot(id) {
            change(Arc::make_mut(object));
        }
    }

    /// Removes an object.
    pub fn remove(&mut self, id: u32, version: u64) -> Option<Arc<T>> {
        let mut object = self.slot(id)?.take()?;
        Arc::make_mut(&mut object).set_version(version);
        let all = Arc::make_mut(&mut self.names);
        if let Some(names) = all.get_mut(object.namespace()) {
            let names = Arc::make_mut(names);
            names.ids.remove(object.name());
            names.ordered.take();
            if names.ids.is_empty() {
                all.remove(object.namespace());
            }
        }
        self.note(version, ChangeKind::Deleted, |_| Some(object.clone()));
        Some(object)
    }

    fn slot(&mut self, id: u32) -> Option<&mut Option<Arc<T>>> {
        Arc::make_mut(self.chunks.get_mut(id as usize / CHUNK)?).get_mut(id as usize % CHUNK)
    }
}
