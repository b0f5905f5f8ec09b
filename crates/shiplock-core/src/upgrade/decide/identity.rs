//! Whether what has a node's name is still the machine of the plan: asked before the first act on a node and before each
//! one that follows.

use super::{Hold, View};
use crate::facts::Observed;
use crate::plan::{NodePlan, StageKind};

use super::super::event::PauseReason;

impl View<'_> {
    /// Whether a started node may be acted on further: another try of a step, or the next step. A pool's node waits while
    /// the cluster cannot be read; a master does not, since the API may be away because of the very step.
    pub(super) fn may_go_on(&self, node: &NodePlan) -> Result<(), Hold> {
        match self.cluster() {
            Ok(cluster) => match node.machine_in(cluster) {
                Ok(_) => Ok(()),
                Err(problem) => Err(Hold::Pause(Box::new(PauseReason::Interference { problem }))),
            },
            Err(_) if self.is_master(node) && matches!(self.facts.cluster, Observed::Unknown { .. }) => Ok(()),
            Err(wait) => Err(Hold::Wait(wait)),
        }
    }

    /// Whether another machine, or none, is seen under the name of a node.
    pub(super) fn is_another_machine(&self, node: &NodePlan) -> bool {
        self.cluster().is_ok_and(|cluster| node.machine_in(cluster).is_err())
    }

    fn is_master(&self, node: &NodePlan) -> bool {
        let of_masters = |stage: &&crate::plan::Stage| stage.kind == StageKind::ControlPlane;
        self.upgrade.plan.stages.iter().filter(of_masters).any(|stage| stage.node(&node.node).is_some())
    }
}
