//! Whether a node may be touched for the first time: what holds before the first act on it and is not asked again.

use jiff::{SignedDuration, Timestamp};

use super::{AGENT_LIVE_SECONDS, Hold, View, later};
use crate::facts::{
    ApiServerFacts, ClusterFacts, ControlPlaneComponent, ControlPlaneFacts, EtcdFacts, Observed, Readiness,
    StaticPodFacts, not_ready,
};
use crate::id::NodeName;
use crate::plan::NodePlan;
use crate::planted::{self, Bug};
use crate::problem::{Code, Problem};
use crate::step::Action;

use super::super::event::PauseReason;
use super::super::waiting::{Waiting, WaitingOn};

impl View<'_> {
    /// Whether a node may be touched for the first time: it is there, it is the planned machine, its agent answers.
    pub(super) fn may_start(&self, node: &NodePlan) -> Result<(), Hold> {
        if planted::is(Bug::UnknownPasses) && self.cluster().is_err() {
            return Ok(());
        }
        let cluster = self.cluster().map_err(Hold::Wait)?;
        let pause = |problem| Hold::Pause(Box::new(PauseReason::Interference { problem }));
        if let Err(problem) = node.machine_in(cluster) {
            let is_gone = problem.code == Code::NodeGone;
            return Err(if is_gone { Hold::Skip(Box::new(problem)) } else { pause(problem) });
        }
        // Since when somebody could have heard of it: not before this server was started, and not from the newest event,
        // or its silence would begin anew with each of them.
        let uptime_seconds = i64::try_from(self.facts.uptime_seconds).unwrap_or(i64::MAX);
        let started_at = self.now.checked_sub(SignedDuration::from_secs(uptime_seconds)).unwrap_or(Timestamp::MIN);
        let since = self.batch_wanted_since().max(started_at);
        match self.facts.agents.get(&node.node) {
            Some(agent) if !self.older_than(agent.last_heard_at, AGENT_LIVE_SECONDS) => {
                if agent.machine.machine_id == node.machine_id {
                    self.may_touch_master(node, cluster)?;
                    self.may_raise_kubelet(node, cluster)
                } else {
                    Err(pause(node.wrong_machine(
                        "machine id of the agent",
                        &node.machine_id,
                        &agent.machine.machine_id,
                    )))
                }
            }
            agent => {
                let needed_since = agent.map_or(since, |agent| agent.last_heard_at);
                if let Some(reason) = self.silent(&node.node, needed_since) {
                    return Err(Hold::Pause(Box::new(reason)));
                }
                let deadline = later(needed_since, self.upgrade.plan.options.contact_timeout_seconds);
                let wait =
                    WaitingOn::new(Waiting::AgentContact { node: node.node.clone() }, needed_since).until(deadline);
                Err(Hold::Wait(Box::new(wait)))
            }
        }
    }

    /// A master is begun with only where the others carry the cluster: etcd keeps its quorum without this member, the
    /// other masters are Ready and one of their API servers answers. The agent reads the same again right before the act.
    fn may_touch_master(&self, node: &NodePlan, cluster: &ClusterFacts) -> Result<(), Hold> {
        if !node
            .steps
            .iter()
            .any(|step| matches!(step.action, Action::UpgradeControlPlane(_) | Action::RestoreControlPlane(_)))
        {
            return Ok(());
        }
        let Err(problem) = self.others_carry(node, cluster) else { return Ok(()) };
        if planted::is(Bug::QuorumNotRead) {
            return Ok(());
        }
        Err(self.hold(problem, self.batch_wanted_since(), |problem| PauseReason::Gate { problem }))
    }

    /// No kubelet may become newer than any API server, see
    /// <https://kubernetes.io/releases/version-skew-policy/#kubelet>. The start was checked; since then, over a pause say,
    /// somebody may have put a master back.
    fn may_raise_kubelet(&self, node: &NodePlan, cluster: &ClusterFacts) -> Result<(), Hold> {
        let kubelet = node.steps.iter().find_map(|step| match step.action {
            Action::UpgradeKubelet { version, .. } => Some(version),
            _ => None,
        });
        let Some(kubelet) = kubelet else { return Ok(()) };
        let older = |server: &&ApiServerFacts| server.version < kubelet || server.behaves_like() < kubelet.release;
        let Some(server) = cluster.api_servers.iter().find(older).filter(|_| !planted::is(Bug::PoolsFirst)) else {
            return Ok(());
        };
        let problem = Problem::new(Code::KubeletNewerThanApiServer)
            .with("kubelet", kubelet)
            .with("nodes", &node.node)
            .with("api_server", server.described());
        Err(self.hold(problem, self.batch_wanted_since(), |problem| PauseReason::InvariantBroken { problem }))
    }

    /// When the open batch was begun, or continued.
    fn batch_wanted_since(&self) -> Timestamp {
        let batch = self.upgrade.current_stage().and_then(|(index, _)| self.upgrade.open_batch(index));
        self.since_continued(batch.map_or(self.upgrade.created_at, |batch| batch.started_at))
    }

    fn others_carry(&self, node: &NodePlan, cluster: &ClusterFacts) -> Result<(), Problem> {
        let not_well = |why: &str| Problem::new(Code::EtcdNotWell).with("node", &node.node).with("why", why);
        let master = |name: &NodeName| {
            let agent = self.facts.agents.get(name)?;
            let fresh = !self.older_than(agent.last_heard_at, AGENT_LIVE_SECONDS);
            agent.machine.control_plane.as_deref().filter(|_| fresh)
        };
        match master(&node.node).map(|facts| &facts.etcd) {
            Some(EtcdFacts::Stacked { cluster: Observed::Known(etcd) }) => {
                if let Some(why) = etcd.why_untouchable() {
                    return Err(not_well(&why));
                }
            }
            Some(EtcdFacts::Stacked { cluster: Observed::Unknown { problem, .. } }) => {
                return Err(not_well("it could not be read").because(problem));
            }
            Some(EtcdFacts::External { .. }) | None => return Err(not_well("no agent tells of it")),
        }
        let mut others =
            cluster.nodes.iter().filter(|(name, other)| other.is_control_plane() && **name != node.node).peekable();
        if others.peek().is_none() {
            return Ok(());
        }
        let mut another_answers = false;
        for (name, other) in others {
            if let Readiness::NotReady { why } = &other.ready {
                return Err(not_ready(name, why));
            }
            let api_server = |facts: &ControlPlaneFacts| {
                let found = |pod: &&StaticPodFacts| pod.component == ControlPlaneComponent::KubeApiserver;
                facts.components.iter().find(found).is_some_and(|pod| pod.healthy)
            };
            another_answers |= master(name).is_some_and(api_server);
        }
        if another_answers { Ok(()) } else { Err(Problem::new(Code::NoOtherApiServer).with("node", &node.node)) }
    }
}
