//! Which certificate of which agent is in force, kept in memory beside the store.
//!
//! A certificate that was replaced by a later enrolment is not enrolled any more, though it is still valid in itself. One
//! that was renewed is replaced when its successor is first used.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shiplock_core::facts::MachineFacts;
use shiplock_core::id::{ClusterName, NodeName};

use crate::authority::AgentIdentity;
use crate::store::{AgentRecord, Store, StoreError};

/// The enrolled agents by cluster.
#[derive(Debug, Default)]
pub struct Enrolled {
    known: Mutex<HashMap<ClusterName, BTreeMap<NodeName, AgentRecord>>>,
    /// Held while an agent is written, so that an old certificate's facts never overwrite a new enrolment.
    writing: tokio::sync::Mutex<()>,
}

impl Enrolled {
    fn known(&self) -> MutexGuard<'_, HashMap<ClusterName, BTreeMap<NodeName, AgentRecord>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, identity: &AgentIdentity) -> Option<AgentRecord> {
        let known = self.known();
        let record = known.get(&identity.cluster)?.get(&identity.node)?;
        (record.serial == identity.serial).then(|| record.clone())
    }

    /// The machine that a certificate in force was enrolled for.
    pub(crate) fn machine_id(&self, identity: &AgentIdentity) -> Option<Arc<str>> {
        self.record(identity).map(|record| record.machine.machine_id)
    }

    /// Whether a certificate is the one in force. What is not known is looked up in the store. The successor of the one
    /// in force takes its place now.
    pub(crate) async fn is_enrolled(&self, store: &dyn Store, identity: &AgentIdentity) -> Result<bool, StoreError> {
        if self.record(identity).is_some() {
            return Ok(true);
        }
        // No enrolment may slip in between reading and keeping.
        let _writing = self.writing.lock().await;
        let agents = store.agents(&identity.cluster).await?;
        let mut agents: BTreeMap<_, _> = agents.into_iter().map(|agent| (agent.node.clone(), agent)).collect();
        if let Some(record) = agents.get_mut(&identity.node)
            && identity.succeeds.as_ref() == Some(&record.serial)
        {
            let renewed = AgentRecord { serial: identity.serial.clone(), ..record.clone() };
            store.put_agent(&renewed).await?;
            tracing::info!(cluster = %identity.cluster, node = %identity.node, before = record.serial,
                serial = renewed.serial, "an agent's renewed certificate is in force");
            *record = renewed;
        }
        self.known().insert(identity.cluster.clone(), agents);
        Ok(self.record(identity).is_some())
    }

    /// Keeps a newly enrolled agent, in place of an earlier one of its node.
    pub(crate) async fn enrol(&self, store: &dyn Store, record: &AgentRecord) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        store.put_agent(record).await?;
        self.keep(record);
        Ok(())
    }

    /// Forgets an agent: its certificate is not in force any more. False when there is none.
    pub(crate) async fn remove(
        &self,
        store: &dyn Store,
        cluster: &ClusterName,
        node: &NodeName,
    ) -> Result<bool, StoreError> {
        let _writing = self.writing.lock().await;
        let removed = store.remove_agent(cluster, node).await?;
        if let Some(agents) = self.known().get_mut(cluster) {
            agents.remove(node);
        }
        Ok(removed)
    }

    /// Keeps what an agent tells of its machine, if it changed.
    pub(crate) async fn keep_machine(
        &self,
        store: &dyn Store,
        identity: &AgentIdentity,
        machine: &MachineFacts,
    ) -> Result<(), StoreError> {
        if self.record(identity).is_none_or(|record| record.machine == *machine) {
            return Ok(());
        }
        let _writing = self.writing.lock().await;
        // Another certificate may have been enrolled meanwhile.
        let Some(mut record) = self.record(identity) else { return Ok(()) };
        record.machine = machine.clone();
        store.put_agent(&record).await?;
        self.keep(&record);
        Ok(())
    }

    fn keep(&self, record: &AgentRecord) {
        // A cluster that was not looked up yet stays so, or its other agents would seem unknown.
        if let Some(agents) = self.known().get_mut(&record.cluster) {
            agents.insert(record.node.clone(), record.clone());
        }
    }

    /// Forgets the agents of a cluster that is not registered any more.
    pub(crate) async fn forget(&self, cluster: &ClusterName) {
        // Whoever read the store before the removal has kept what it read by now.
        let _writing = self.writing.lock().await;
        self.known().remove(cluster);
    }
}
