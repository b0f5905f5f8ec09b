//! What must hold before the next batch or stage begins: the cluster is as well as it was, the batch before has had its time.
//! What cannot be read holds.

use jiff::Timestamp;

use super::{Decision, View, later, pause_for};
use crate::facts::{ClusterFacts, NodeFacts, Readiness, not_ready};
use crate::plan::NodePlan;
use crate::planted::{self, Bug};
use crate::problem::{Code, Problem};

use super::super::event::PauseReason;
use super::super::state::NodeProgress;
use super::super::waiting::{Waiting, WaitingOn};
use super::super::{fewer_ready_pods, worse_than_baseline};

/// Why a node or a batch does not begin.
pub(super) enum Hold {
    Wait(Box<WaitingOn>),
    Pause(Box<PauseReason>),
    Skip(Box<Problem>),
}

impl View<'_> {
    pub(super) fn gate_before_batch(&self) -> Result<(), Hold> {
        if let Some(finished_at) = self.upgrade.batch_finished_at {
            let next_at = later(finished_at, self.upgrade.plan.options.batch_interval_seconds);
            if self.now < next_at {
                let wait = WaitingOn::new(Waiting::BatchInterval, finished_at).until(next_at);
                return Err(Hold::Wait(Box::new(wait)));
            }
        }
        self.gate_before_stage()
    }

    /// The cluster must be as well as it was before: the nodes that we finished are still those machines and Ready, and no workload
    /// has fewer ready pods than in the baseline. What cannot be read holds.
    pub(super) fn gate_before_stage(&self) -> Result<(), Hold> {
        if planted::is(Bug::UnknownPasses) {
            return Ok(());
        }
        let cluster = self.cluster().map_err(Hold::Wait)?;
        let Some(finished_at) = self.upgrade.batch_finished_at else { return Ok(()) };
        let problem = if cluster.observed_at < finished_at {
            // Older than the batch: it cannot tell how the batch left the cluster.
            None
        } else {
            match self.unwell(cluster) {
                None => return Ok(()),
                problem => problem,
            }
        };
        let problem = problem.unwrap_or_else(|| self.not_read_since(finished_at));
        let since = self.since_continued(finished_at);
        Err(self.hold(problem, since, |problem| PauseReason::Gate { problem }))
    }

    /// Holds for what must be otherwise before it goes on; pauses when that takes longer than a gate may hold.
    pub(super) fn hold(
        &self,
        problem: Problem,
        since: Timestamp,
        because: impl FnOnce(Problem) -> PauseReason,
    ) -> Hold {
        let deadline = later(since, self.upgrade.plan.options.gate_timeout_seconds);
        if self.now >= deadline {
            return Hold::Pause(Box::new(because(problem)));
        }
        Hold::Wait(Box::new(WaitingOn::new(Waiting::Gate { problem }, since).until(deadline)))
    }

    /// From when on a time counts that began at `begun`: a person who continues gives it the whole of it again.
    pub(super) fn since_continued(&self, begun: Timestamp) -> Timestamp {
        self.upgrade.continued_at.map_or(begun, |continued| continued.max(begun))
    }

    pub(super) fn unwell(&self, cluster: &ClusterFacts) -> Option<Problem> {
        if let Some(wrong) = self.finished_node_unwell(cluster) {
            return Some(wrong);
        }
        let baseline = self.upgrade.baseline.as_deref().map_or(&[][..], Vec::as_slice);
        let worse = worse_than_baseline(baseline, &cluster.workloads);
        let forgotten = || {
            let forgotten = self.forgotten_cordons();
            self.upgrade.plan.nodes().find(|node| forgotten(node))
        };
        if !worse.is_empty()
            && let Some(node) = forgotten()
        {
            let problem = Problem::new(Code::CordonForgotten).with("node", &node.node);
            return Some(problem.with("upgrade", &self.upgrade.id).cause(worse.join(", ")));
        }
        worse.first().map(|first| fewer_ready_pods(first, &self.upgrade.plan.cluster, cluster))
    }

    /// Why a node that is done is not the machine of the plan any more or not Ready, of the first one in order of the plan.
    fn finished_node_unwell(&self, cluster: &ClusterFacts) -> Option<Problem> {
        // Nothing was finished in a stage that has not begun. Pools are planned by name, as facts are kept: all stages are
        // walked along with the facts, and none of thousands of nodes is searched for.
        let begun = self.upgrade.stages_started.iter().filter_map(|index| self.upgrade.plan.stages.get(*index));
        let mut along: Vec<_> = begun.enumerate().map(|(turn, stage)| (turn, stage.nodes.iter().peekable())).collect();
        let mut unwell: Vec<(usize, &NodePlan, Problem)> = Vec::new();
        let mut look = |turn, node, seen| unwell.extend(why_unwell(node, seen).map(|wrong| (turn, node, wrong)));
        for (name, seen) in &cluster.nodes {
            let is_next = |node: &&NodePlan| node.node.shares(name);
            let planned = match along.iter_mut().find_map(|(turn, nodes)| Some((*turn, nodes.next_if(is_next)?))) {
                Some(shared) => Some(shared),
                None => {
                    along.iter_mut().find_map(|(turn, nodes)| Some((*turn, nodes.next_if(|node| node.node == *name)?)))
                }
            };
            if let Some((turn, node)) = planned {
                look(turn, node, Some(seen));
            }
        }
        // Those that are gone, that are in another order, or in two stages.
        for (turn, nodes) in along {
            nodes.for_each(|node| look(turn, node, cluster.nodes.get(&node.node)));
        }
        unwell.sort_by_key(|(turn, ..)| *turn);
        // Asked of few: most nodes are Ready, and the machines of the plan.
        let is_done = |node: &NodePlan| self.upgrade.node_progress(node) == NodeProgress::Done;
        unwell.into_iter().find(|(_, node, _)| is_done(node)).map(|(.., wrong)| wrong)
    }

    pub(super) fn held(&self, hold: Hold) -> Decision {
        match hold {
            Hold::Wait(wait) => self.wait(vec![*wait]),
            Hold::Pause(reason) => pause_for(*reason),
            Hold::Skip(problem) => pause_for(PauseReason::Gate { problem: *problem }),
        }
    }
}

/// Why what has a node's name is not the machine of the plan, or not Ready.
fn why_unwell(node: &NodePlan, seen: Option<&NodeFacts>) -> Option<Problem> {
    match node.machine(seen).map(|machine| &machine.ready) {
        Ok(Readiness::Ready) => None,
        Ok(Readiness::NotReady { why }) => Some(not_ready(&node.node, why)),
        Err(problem) => Some(problem),
    }
}
