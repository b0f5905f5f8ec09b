//! How a server begins to drive: fold the log, take the lease, decide for the first time.
//!
//! One upgrade or a thousand are taken over in the same way, with one change of the store. The first decision is made
//! before the cluster was asked anything: it only tells what is waited for, and nothing comes of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use shiplock_core::facts::{Facts, Observed};
use shiplock_core::id::UpgradeId;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{EventRecord, IllegalEvent, Upgrade, WaitingOn};

use super::lease::{HeldLease, LEASE_SECONDS};
use super::machine::{Input, Machine, Output};
use super::shell::{Ended, later};
use super::supervisor::Shared;
use crate::store::{LeaseWanted, StoreError};

/// Events read at once.
const EVENTS_PAGE: u32 = 1000;

/// An upgrade that is ours to drive.
pub(super) struct Taken {
    pub(super) lease: Arc<HeldLease>,
    pub(super) machine: Machine,
    /// What the first decision waits for.
    pub(super) waits: Vec<WaitingOn>,
}

/// Takes the leases of folded upgrades; answers in their order, or how it ended before it began.
pub(super) async fn take(shared: &Shared, folded: Vec<Upgrade>) -> Vec<Result<Box<Taken>, Ended>> {
    let wanted: Vec<LeaseWanted> =
        folded.iter().map(|upgrade| LeaseWanted { upgrade: upgrade.id.clone(), expected_len: upgrade.len }).collect();
    let asked_at = Instant::now();
    let holder = &shared.settings.holder;
    let answers = match shared.store.take_leases(&wanted, holder, Timestamp::now(), LEASE_SECONDS).await {
        Ok(answers) => answers,
        Err(error) => return wanted.iter().map(|wanted| Err(later(&wanted.upgrade, &error))).collect(),
    };
    let begin = |(upgrade, answer): (Upgrade, Option<crate::store::LeaseTaken>)| {
        let taken = answer.ok_or(Ended::Later)?;
        shared.note_appended(std::slice::from_ref(&taken.record));
        let id = upgrade.id.clone();
        let upgrade = upgrade.apply(&taken.record).map_err(|illegal| Ended::Unreadable(unreadable(&id, &illegal)))?;
        let facts = unseen(shared, &upgrade);
        let mut machine = Machine::new(upgrade, shared.settings.policy);
        let waits = tell(&mut machine, facts, Timestamp::now());
        let lease = shared.leases.hold(&id, taken.lease.epoch, asked_at);
        Ok(Box::new(Taken { lease, machine, waits }))
    };
    folded.into_iter().zip(answers).map(begin).collect()
}

/// What is known before the cluster was read: nothing but the agents.
fn unseen(shared: &Shared, upgrade: &Upgrade) -> Facts {
    let since = Timestamp::now();
    let problem = Problem::new(Code::ClusterNotRead).with("cluster", &upgrade.plan.cluster).with("since", since);
    Facts {
        cluster: Observed::Unknown { problem, since },
        agents: shared.hub.agents(&upgrade.plan.cluster),
        progress: BTreeMap::new(),
        uptime_seconds: shared.started_at.elapsed().as_secs(),
        precheck: None,
    }
}

/// Decides on a cluster that has not accepted us yet: nothing comes of it but what is waited for.
pub fn tell(machine: &mut Machine, facts: Facts, now: Timestamp) -> Vec<WaitingOn> {
    let outputs = machine.on(Input::Facts(Box::new(facts)), now);
    let waits = |output| if let Output::Waits(waits) = output { Some(waits) } else { None };
    outputs.into_iter().rev().find_map(waits).unwrap_or_default()
}

/// Folds the whole log.
pub(super) async fn load(shared: &Shared, id: &UpgradeId) -> Result<Upgrade, StoreError> {
    let mut upgrade: Option<Upgrade> = None;
    loop {
        let after = upgrade.as_ref().map_or(0, |upgrade| upgrade.len);
        let page = shared.store.events(id, after, EVENTS_PAGE).await?;
        let full = page.len() == EVENTS_PAGE as usize;
        upgrade = fold_on(id, upgrade, &page)?;
        if !full {
            let missing = || StoreError::Refused(Problem::new(Code::UpgradeUnknown).with("upgrade", id));
            return upgrade.ok_or_else(missing);
        }
    }
}

/// Folds on from where the fold ends.
pub fn fold_on(
    id: &UpgradeId,
    mut upgrade: Option<Upgrade>,
    records: &[EventRecord],
) -> Result<Option<Upgrade>, Problem> {
    for record in records {
        let folded = match upgrade.take() {
            None => Upgrade::begin(record),
            Some(upgrade) => upgrade.apply(record),
        };
        upgrade = Some(folded.map_err(|illegal| unreadable(id, &illegal))?);
    }
    Ok(upgrade)
}

pub(super) fn unreadable(id: &UpgradeId, illegal: &IllegalEvent) -> Problem {
    Problem::new(Code::LogUnreadable).with("upgrade", id).with("number", illegal.number).with("why", &illegal.why)
}
