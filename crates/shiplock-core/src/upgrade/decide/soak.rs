//! The soak: the masters run the target and behave like the version before. Nothing is done; it ends when its time is
//! over and everything is as well as it was before the upgrade, read anew.

use super::{Decision, View, later, pause_for, record};
use crate::facts::{ClusterFacts, EtcdFacts, Observed};
use crate::plan::{NodePlan, StageKind};
use crate::problem::{Code, Problem};
use crate::version::MinorVersion;

use super::super::event::{Event, PauseReason};
use super::super::state::{NodeProgress, SoakProgress};
use super::super::waiting::{Waiting, WaitingOn};

impl View<'_> {
    pub(super) fn soak(&self, stage: usize, seconds: u32, emulates: MinorVersion) -> Decision {
        let begun = SoakProgress { since: self.upgrade.updated_at, is_told: false, unwell_since: None };
        let soak = self.upgrade.soak.unwrap_or(begun);
        let until = later(soak.since, seconds);
        let told = || WaitingOn::new(Waiting::Soak { emulates }, soak.since).until(until);
        let cluster = match self.cluster() {
            Ok(cluster) => cluster,
            Err(wait) => return self.wait(vec![*wait]),
        };
        let Err(problem) = self.soaks_well(cluster, emulates) else {
            return match soak.unwell_since {
                None if soak.is_told && self.now >= until => record(Event::StageFinished { stage }),
                None if soak.is_told => self.wait(vec![told()]),
                _ => record(Event::WaitingBegan { on: told() }),
            };
        };
        let since = soak.unwell_since.unwrap_or(self.now);
        let deadline = later(since, self.upgrade.plan.options.gate_timeout_seconds);
        if self.now >= deadline {
            return pause_for(PauseReason::Gate { problem });
        }
        let held = WaitingOn::new(Waiting::SoakUnwell { problem }, since).until(deadline);
        match soak.unwell_since {
            None => record(Event::WaitingBegan { on: held }),
            Some(_) => self.wait(vec![held]),
        }
    }

    /// Nodes and workloads are as well as before, the components of every master that was swapped answer, etcd is well
    /// as a whole, and every API server of the new version emulates the old one.
    fn soaks_well(&self, cluster: &ClusterFacts, emulates: MinorVersion) -> Result<(), Problem> {
        if let Some(problem) = self.unwell(cluster) {
            return Err(problem);
        }
        let stages = self.upgrade.plan.stages.iter().filter(|stage| stage.kind == StageKind::ControlPlane);
        let swapped = stages.flat_map(|stage| &stage.nodes);
        for master in swapped.filter(|node| self.upgrade.node_progress(node) == NodeProgress::Done) {
            self.components_answer(master)?;
        }
        let wrong = |server: &&crate::facts::ApiServerFacts| server.behaves_like() != emulates;
        match cluster.api_servers.iter().find(wrong) {
            None => Ok(()),
            Some(server) => Err(Problem::new(Code::ReadBackMismatch)
                .with("component", "kube-apiserver")
                .with("subject", &server.address)
                .with("found", server.described())
                .with("expected", format!("one that behaves like {emulates}"))),
        }
    }

    fn components_answer(&self, master: &NodePlan) -> Result<(), Problem> {
        let node = &master.node;
        let silent = || Problem::new(Code::ContactLost).with("node", node).with("upgrade", &self.upgrade.id);
        let agent = self.facts.agents.get(node).ok_or_else(|| silent().with("since", self.upgrade.updated_at))?;
        if self.older_than(agent.last_heard_at, super::AGENT_LIVE_SECONDS) {
            return Err(silent().with("since", agent.last_heard_at));
        }
        let wrong = |component: &str, found: &str| {
            let problem = Problem::new(Code::ReadBackMismatch).with("component", component);
            problem.with("subject", format!("node {node}")).with("found", found).with("expected", "healthy")
        };
        let told = agent.machine.control_plane.as_deref();
        let told = told.ok_or_else(|| wrong("control plane", "no static pods"))?;
        if let Some(pod) = told.components.iter().find(|pod| !pod.healthy || pod.running.is_none()) {
            return Err(wrong(pod.component.name(), "no good answer from its own endpoint"));
        }
        match &told.etcd {
            EtcdFacts::External { .. } => Ok(()),
            EtcdFacts::Stacked { cluster: Observed::Unknown { problem, .. } } => Err(problem.clone()),
            EtcdFacts::Stacked { cluster: Observed::Known(etcd) } => match etcd.why_untouchable() {
                None => Ok(()),
                Some(why) => Err(Problem::new(Code::EtcdNotWell).with("node", node).with("why", why)),
            },
        }
    }
}
