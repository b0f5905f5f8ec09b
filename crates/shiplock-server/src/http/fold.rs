//! The folds of upgrades that were looked at, kept so that a look reads only what is new in the log.
//!
//! A fold is never trusted beyond the log: each look reads on from where the fold ends.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use shiplock_core::id::UpgradeId;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{EventRecord, IllegalEvent, Upgrade};

use crate::store::{PAGE_MAX, Store, StoreError};

/// The most folds that are kept.
const FOLDS_MAX: usize = 128;

/// Folds by upgrade.
#[derive(Debug, Default)]
pub struct Folds {
    kept: Mutex<HashMap<UpgradeId, Arc<Upgrade>>>,
}

impl Folds {
    /// The upgrade as its log is now.
    pub(crate) async fn upgrade(&self, store: &dyn Store, id: &UpgradeId) -> Result<Arc<Upgrade>, Problem> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned();
        let mut upgrade: Option<Upgrade> = None;
        loop {
            let len = upgrade.as_ref().or(kept.as_deref()).map_or(0, |upgrade| upgrade.len);
            let records = store.events(id, len, PAGE_MAX).await.map_err(StoreError::into_problem)?;
            let full = records.len() >= PAGE_MAX as usize;
            for record in &records {
                let next = match upgrade.take().or_else(|| kept.as_deref().cloned()) {
                    Some(upgrade) => upgrade.apply(record),
                    None => Upgrade::begin(record),
                };
                upgrade = Some(next.map_err(|error| unreadable(id, &error))?);
            }
            if !full {
                break;
            }
        }
        let Some(upgrade) = upgrade.map(Arc::new) else {
            return kept.ok_or_else(|| Problem::new(Code::UpgradeUnknown).with("upgrade", id));
        };
        self.keep(upgrade.clone());
        Ok(upgrade)
    }

    /// The fold of what a request appended.
    pub(crate) fn advance(&self, upgrade: &Upgrade, records: &[EventRecord]) -> Result<Arc<Upgrade>, Problem> {
        let next = records.iter().try_fold(upgrade.clone(), Upgrade::apply);
        let next = Arc::new(next.map_err(|error| unreadable(&upgrade.id, &error))?);
        self.keep(next.clone());
        Ok(next)
    }

    fn keep(&self, upgrade: Arc<Upgrade>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= FOLDS_MAX && !kept.contains_key(&upgrade.id) {
            // Which one goes does not matter much: it is folded again when somebody looks.
            if let Some(id) = kept.keys().next().cloned() {
                kept.remove(&id);
            }
        }
        match kept.get(&upgrade.id) {
            Some(newer) if newer.len > upgrade.len => {}
            _ => {
                kept.insert(upgrade.id.clone(), upgrade);
            }
        }
    }
}

fn unreadable(id: &UpgradeId, error: &IllegalEvent) -> Problem {
    Problem::new(Code::LogUnreadable).with("upgrade", id).with("number", error.number).with("why", &error.why)
}
