//! A store in memory: for simulations, demos and tests. It keeps every rule of a store but one: nothing survives the
//! process.
//!
//! A clone is a store of its own with the same content, so that a simulated world can be cloned in the middle.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;
use shiplock_core::id::{ClusterName, ClusterUid, Epoch, NodeName, PlanId, UpgradeId};
use shiplock_core::plan::Plan;
use shiplock_core::planted::{self, Bug};
use shiplock_core::upgrade::{Event, EventRecord};

use super::rule::{self, Author, LeaseRow, LogHead};
use super::{
    AcceptanceRecord, AgentRecord, ClusterRecord, Lease, LeaseTaken, LeaseWanted, NewUpgrade, ReportRecord, Store,
    StoreError, UpgradeFilter, UpgradeRow,
};

/// A store that lives as long as the process.
#[derive(Debug, Default)]
pub struct MemoryStore {
    tables: Mutex<Tables>,
}

#[derive(Clone, Debug, Default)]
struct Tables {
    settings: BTreeMap<String, Vec<u8>>,
    clusters: BTreeMap<ClusterName, ClusterRecord>,
    plans: BTreeMap<PlanId, Plan>,
    upgrades: BTreeMap<UpgradeId, Log>,
    /// The ids of upgrades, oldest first.
    order: Vec<UpgradeId>,
    /// Where the event with a position is: position 1 at index 0.
    feed: Vec<(UpgradeId, usize)>,
    idempotency_keys: BTreeMap<String, UpgradeId>,
    epochs: BTreeMap<ClusterUid, Epoch>,
    join_tokens: BTreeMap<String, (ClusterName, Timestamp)>,
    agents: BTreeMap<ClusterName, BTreeMap<NodeName, AgentRecord>>,
    /// Newest first.
    reports: BTreeMap<ClusterName, Vec<ReportRecord>>,
    acceptances: BTreeMap<ClusterName, BTreeMap<String, AcceptanceRecord>>,
}

#[derive(Clone, Debug)]
struct Log {
    cluster: ClusterName,
    cluster_uid: ClusterUid,
    /// Its index in the order of upgrades.
    ordinal: usize,
    /// Never empty.
    events: Vec<EventRecord>,
    created_at: Timestamp,
    newest_at: Timestamp,
    ended_as: Option<String>,
    lease: Option<LeaseRow>,
}

impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        Self { tables: Mutex::new(self.tables().clone()) }
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Every change is checked before it is begun, so a panic elsewhere leaves whole tables behind.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    fn active_upgrade(&self, cluster: &ClusterUid) -> Option<&UpgradeId> {
        self.upgrades.iter().find(|(_, log)| log.cluster_uid == *cluster && log.ended_as.is_none()).map(|(id, _)| id)
    }

    fn head(&self, upgrade: &UpgradeId) -> Result<LogHead, StoreError> {
        let log = self.upgrades.get(upgrade).ok_or_else(|| rule::upgrade_unknown(upgrade))?;
        Ok(LogHead {
            upgrade: upgrade.clone(),
            cluster_uid: log.cluster_uid.clone(),
            len: log.events.len() as u64,
            newest_at: log.newest_at,
            ended_as: log.ended_as.clone(),
            lease: log.lease.clone(),
        })
    }

    fn append(
        &mut self,
        upgrade: &UpgradeId,
        author: Author,
        expected_len: u64,
        now: Timestamp,
        events: &[Event],
    ) -> Result<Vec<EventRecord>, StoreError> {
        let head = self.head(upgrade)?;
        head.admit(author, expected_len, events)?;
        let at = head.event_time(now);
        let again = u64::from(planted::is(Bug::PositionTwice) && matches!(author, Author::Person));
        let first_position = self.feed.len() as u64 + 1 - again;
        let records: Vec<EventRecord> = (0u64..)
            .zip(events)
            .map(|(index, event)| EventRecord {
                upgrade: upgrade.clone(),
                number: head.len + 1 + index,
                position: first_position + index,
                at,
                epoch: author.epoch(),
                event: event.clone(),
            })
            .collect();
        let log = self.upgrades.get_mut(upgrade).ok_or_else(|| rule::upgrade_unknown(upgrade))?;
        for record in &records {
            self.feed.push((upgrade.clone(), log.events.len()));
            log.events.push(record.clone());
            log.newest_at = at;
            log.ended_as = rule::ending(&record.event).map(str::to_owned);
        }
        Ok(records)
    }

    fn row(&self, id: &UpgradeId) -> Option<UpgradeRow> {
        let log = self.upgrades.get(id)?;
        Some(UpgradeRow {
            id: id.clone(),
            cluster: log.cluster.clone(),
            len: log.events.len() as u64,
            active: log.ended_as.is_none(),
            created_at: log.created_at,
        })
    }

    fn take_lease(
        &mut self,
        wanted: &LeaseWanted,
        holder: &str,
        now: Timestamp,
        seconds: u32,
    ) -> Result<Option<LeaseTaken>, StoreError> {
        let head = self.head(&wanted.upgrade)?;
        if !head.may_take(holder, wanted.expected_len, now) {
            return Ok(None);
        }
        let newest = self.epochs.entry(head.cluster_uid).or_default();
        *newest = rule::next_epoch(*newest, now);
        let lease = Lease { holder: holder.to_owned(), epoch: *newest, expires_at: rule::lease_end(now, seconds) };
        self.put_lease(&wanted.upgrade, LeaseRow { lease: lease.clone(), released: false });
        let taken = [Event::LeaseTaken { epoch: lease.epoch, holder: holder.to_owned() }];
        let records = self.append(&wanted.upgrade, Author::Driver(lease.epoch), wanted.expected_len, now, &taken)?;
        Ok(records.into_iter().next().map(|record| LeaseTaken { lease, record }))
    }

    fn put_lease(&mut self, upgrade: &UpgradeId, row: LeaseRow) {
        if let Some(log) = self.upgrades.get_mut(upgrade) {
            log.lease = Some(row);
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn setting(&self, key: &str, value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        Ok(self.tables().settings.entry(key.to_owned()).or_insert(value).clone())
    }

    async fn add_cluster(&self, cluster: &ClusterRecord) -> Result<(), StoreError> {
        let mut tables = self.tables();
        if tables.clusters.contains_key(&cluster.name) {
            return Err(rule::name_taken(&cluster.name).into());
        }
        if let Some(other) = tables.clusters.values().find(|other| other.uid == cluster.uid) {
            return Err(rule::registered_twice(&other.name).into());
        }
        tables.clusters.insert(cluster.name.clone(), cluster.clone());
        Ok(())
    }

    async fn change_cluster(&self, cluster: &ClusterRecord) -> Result<(), StoreError> {
        let mut tables = self.tables();
        let kept = tables.clusters.get_mut(&cluster.name).filter(|kept| kept.uid == cluster.uid);
        let kept = kept.ok_or_else(|| rule::cluster_unknown(&cluster.name))?;
        kept.server.clone_from(&cluster.server);
        kept.sealed_kubeconfig.clone_from(&cluster.sealed_kubeconfig);
        kept.mirror.clone_from(&cluster.mirror);
        Ok(())
    }

    async fn clusters(&self) -> Result<Vec<ClusterRecord>, StoreError> {
        Ok(self.tables().clusters.values().cloned().collect())
    }

    async fn cluster(&self, name: &ClusterName) -> Result<Option<ClusterRecord>, StoreError> {
        Ok(self.tables().clusters.get(name).cloned())
    }

    async fn remove_cluster(&self, name: &ClusterName) -> Result<(), StoreError> {
        let mut tables = self.tables();
        let cluster = tables.clusters.get(name).ok_or_else(|| rule::cluster_unknown(name))?;
        if let Some(upgrade) = tables.active_upgrade(&cluster.uid) {
            return Err(rule::cluster_in_use(name, upgrade).into());
        }
        tables.clusters.remove(name);
        tables.agents.remove(name);
        tables.reports.remove(name);
        tables.acceptances.remove(name);
        tables.join_tokens.retain(|_, (cluster, _)| cluster != name);
        Ok(())
    }

    async fn add_plan(&self, plan: &Plan) -> Result<(), StoreError> {
        let mut tables = self.tables();
        if tables.plans.entry(plan.id.clone()).or_insert_with(|| plan.clone()) != plan {
            return Err(rule::made_twice("a plan").into());
        }
        Ok(())
    }

    async fn plan(&self, id: &PlanId) -> Result<Option<Plan>, StoreError> {
        Ok(self.tables().plans.get(id).cloned())
    }

    async fn create_upgrade(&self, new: &NewUpgrade) -> Result<EventRecord, StoreError> {
        let mut tables = self.tables();
        let known = new.idempotency_key.as_ref().and_then(|key| tables.idempotency_keys.get(key));
        if let Some(first) = known.and_then(|id| tables.upgrades.get(id)).and_then(|log| log.events.first()) {
            return Ok(first.clone());
        }
        rule::check_first_event(new)?;
        if tables.upgrades.contains_key(&new.id) {
            return Err(tables.head(&new.id)?.conflict(0));
        }
        let cluster = tables.clusters.get(&new.cluster).ok_or_else(|| rule::cluster_unknown(&new.cluster))?;
        let cluster_uid = cluster.uid.clone();
        if let Some(other) = tables.active_upgrade(&cluster_uid)
            && !planted::is(Bug::SecondUpgrade)
        {
            return Err(rule::upgrade_active(other).into());
        }
        let first = EventRecord {
            upgrade: new.id.clone(),
            number: 1,
            position: tables.feed.len() as u64 + 1,
            at: new.now,
            epoch: None,
            event: new.event.clone(),
        };
        let log = Log {
            cluster: new.cluster.clone(),
            cluster_uid,
            ordinal: tables.order.len(),
            events: vec![first.clone()],
            created_at: new.now,
            newest_at: new.now,
            ended_as: None,
            lease: None,
        };
        tables.feed.push((new.id.clone(), 0));
        tables.order.push(new.id.clone());
        tables.upgrades.insert(new.id.clone(), log);
        if let Some(key) = &new.idempotency_key {
            tables.idempotency_keys.insert(key.clone(), new.id.clone());
        }
        Ok(first)
    }

    async fn upgrades(&self, filter: &UpgradeFilter) -> Result<Vec<UpgradeRow>, StoreError> {
        let tables = self.tables();
        let end = match &filter.after {
            None => tables.order.len(),
            Some(after) => tables.upgrades.get(after).ok_or_else(|| rule::upgrade_unknown(after))?.ordinal,
        };
        let wanted = |row: &UpgradeRow| {
            (!filter.active || row.active) && filter.cluster.as_ref().is_none_or(|cluster| row.cluster == *cluster)
        };
        let newest_first = tables.order[..end].iter().rev();
        let rows = newest_first.filter_map(|id| tables.row(id)).filter(wanted);
        Ok(rows.take(rule::page(filter.limit) as usize).collect())
    }

    async fn upgrade(&self, id: &UpgradeId) -> Result<Option<UpgradeRow>, StoreError> {
        Ok(self.tables().row(id))
    }

    async fn events(&self, upgrade: &UpgradeId, after: u64, limit: u32) -> Result<Vec<EventRecord>, StoreError> {
        let tables = self.tables();
        let events = tables.upgrades.get(upgrade).map_or(&[][..], |log| &log.events);
        let skip = usize::try_from(after).unwrap_or(usize::MAX);
        Ok(events.iter().skip(skip).take(rule::page(limit) as usize).cloned().collect())
    }

    async fn events_since(&self, after: u64, limit: u32) -> Result<Vec<EventRecord>, StoreError> {
        let tables = self.tables();
        let skip = usize::try_from(after).unwrap_or(usize::MAX);
        let entries = tables.feed.iter().skip(skip).take(rule::page(limit) as usize);
        Ok(entries.filter_map(|(id, index)| tables.upgrades.get(id)?.events.get(*index).cloned()).collect())
    }

    async fn append_request(
        &self,
        upgrade: &UpgradeId,
        expected_len: u64,
        now: Timestamp,
        events: &[Event],
    ) -> Result<Vec<EventRecord>, StoreError> {
        self.tables().append(upgrade, Author::Person, expected_len, now, events)
    }

    async fn append(
        &self,
        upgrade: &UpgradeId,
        expected_len: u64,
        epoch: Epoch,
        now: Timestamp,
        events: &[Event],
    ) -> Result<Vec<EventRecord>, StoreError> {
        self.tables().append(upgrade, Author::Driver(epoch), expected_len, now, events)
    }

    async fn take_leases(
        &self,
        wanted: &[LeaseWanted],
        holder: &str,
        now: Timestamp,
        seconds: u32,
    ) -> Result<Vec<Option<LeaseTaken>>, StoreError> {
        rule::check_leases_at_once(wanted.len())?;
        let mut tables = self.tables();
        // Looked at before anything is changed: all or nothing.
        for LeaseWanted { upgrade, .. } in wanted {
            tables.head(upgrade)?;
        }
        wanted.iter().map(|wanted| tables.take_lease(wanted, holder, now, seconds)).collect()
    }

    async fn renew_leases(
        &self,
        held: &[(UpgradeId, Epoch)],
        now: Timestamp,
        seconds: u32,
    ) -> Result<Vec<Result<Lease, StoreError>>, StoreError> {
        rule::check_leases_at_once(held.len())?;
        let mut tables = self.tables();
        for (upgrade, _) in held {
            tables.head(upgrade)?;
        }
        let mut renew = |(upgrade, epoch): &(UpgradeId, Epoch)| {
            let lease = tables.head(upgrade)?.renewed(*epoch, now, seconds)?;
            tables.put_lease(upgrade, LeaseRow { lease: lease.clone(), released: false });
            Ok(lease)
        };
        Ok(held.iter().map(&mut renew).collect())
    }

    async fn release_lease(&self, upgrade: &UpgradeId, epoch: Epoch) -> Result<(), StoreError> {
        let mut tables = self.tables();
        if let Some(row) = tables.head(upgrade)?.given_back(epoch)? {
            tables.put_lease(upgrade, row);
        }
        Ok(())
    }

    async fn lease(&self, upgrade: &UpgradeId) -> Result<Option<Lease>, StoreError> {
        Ok(self.tables().upgrades.get(upgrade).and_then(|log| log.lease.as_ref()).map(|row| row.lease.clone()))
    }

    async fn add_join_token(&self, hash: &str, cluster: &ClusterName, expires_at: Timestamp) -> Result<(), StoreError> {
        let mut tables = self.tables();
        if !tables.clusters.contains_key(cluster) {
            return Err(rule::cluster_unknown(cluster).into());
        }
        if tables.join_tokens.contains_key(hash) {
            return Err(rule::made_twice("a join token").into());
        }
        tables.join_tokens.insert(hash.to_owned(), (cluster.clone(), expires_at));
        Ok(())
    }

    async fn join_token(&self, hash: &str, now: Timestamp) -> Result<Option<ClusterName>, StoreError> {
        let tables = self.tables();
        let token = tables.join_tokens.get(hash).filter(|(_, expires_at)| *expires_at > now);
        Ok(token.map(|(cluster, _)| cluster.clone()))
    }

    async fn use_join_token(&self, hash: &str, now: Timestamp) -> Result<Option<ClusterName>, StoreError> {
        let mut tables = self.tables();
        tables.join_tokens.retain(|_, (_, expires_at)| *expires_at > now);
        Ok(tables.join_tokens.remove(hash).map(|(cluster, _)| cluster))
    }

    async fn put_agent(&self, agent: &AgentRecord) -> Result<(), StoreError> {
        let mut tables = self.tables();
        if !tables.clusters.contains_key(&agent.cluster) {
            return Err(rule::cluster_unknown(&agent.cluster).into());
        }
        tables.agents.entry(agent.cluster.clone()).or_default().insert(agent.node.clone(), agent.clone());
        Ok(())
    }

    async fn remove_agent(&self, cluster: &ClusterName, node: &NodeName) -> Result<bool, StoreError> {
        let mut tables = self.tables();
        Ok(tables.agents.get_mut(cluster).and_then(|agents| agents.remove(node)).is_some())
    }

    async fn agents(&self, cluster: &ClusterName) -> Result<Vec<AgentRecord>, StoreError> {
        Ok(self.tables().agents.get(cluster).into_iter().flat_map(BTreeMap::values).cloned().collect())
    }

    async fn add_report(&self, report: &ReportRecord) -> Result<(), StoreError> {
        let mut tables = self.tables();
        if !tables.clusters.contains_key(&report.cluster) {
            return Err(rule::cluster_unknown(&report.cluster).into());
        }
        let kept = tables.reports.entry(report.cluster.clone()).or_default();
        kept.push(report.clone());
        kept.sort_by(|one, other| (other.made_at, &other.id).cmp(&(one.made_at, &one.id)));
        kept.truncate(rule::REPORTS_KEPT);
        Ok(())
    }

    async fn reports(&self, cluster: &ClusterName) -> Result<Vec<ReportRecord>, StoreError> {
        Ok(self.tables().reports.get(cluster).cloned().unwrap_or_default())
    }

    async fn report(&self, id: &str) -> Result<Option<ReportRecord>, StoreError> {
        Ok(self.tables().reports.values().flatten().find(|report| report.id == id).cloned())
    }

    async fn add_acceptance(&self, acceptance: &AcceptanceRecord) -> Result<(), StoreError> {
        let mut tables = self.tables();
        if !tables.clusters.contains_key(&acceptance.cluster) {
            return Err(rule::cluster_unknown(&acceptance.cluster).into());
        }
        let of_cluster = tables.acceptances.entry(acceptance.cluster.clone()).or_default();
        of_cluster.insert(acceptance.id.clone(), acceptance.clone());
        Ok(())
    }

    async fn acceptances(&self, cluster: &ClusterName) -> Result<Vec<AcceptanceRecord>, StoreError> {
        Ok(self.tables().acceptances.get(cluster).into_iter().flat_map(BTreeMap::values).cloned().collect())
    }

    async fn remove_acceptance(&self, cluster: &ClusterName, id: &str) -> Result<bool, StoreError> {
        let mut tables = self.tables();
        Ok(tables.acceptances.get_mut(cluster).is_some_and(|kept| kept.remove(id).is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{Fixture, suite};
    use super::*;

    async fn fresh() -> Fixture {
        Fixture::new(MemoryStore::new())
    }

    suite!(fresh);
}
