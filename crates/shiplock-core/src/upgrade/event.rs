//! What happened, as facts in the past tense. Events are forever: kinds are only added.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::check::CheckReport;
use crate::facts::WorkloadFacts;
use crate::id::{Actor, Epoch, NodeName, StepNumber, UpgradeId};
use crate::plan::Plan;
use crate::problem::{Code, Problem};

use super::waiting::WaitingOn;

/// One entry of an upgrade's log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EventRecord {
    /// The upgrade.
    pub upgrade: UpgradeId,
    /// Its number in the upgrade's log, from 1 without gaps.
    pub number: u64,
    /// Its position in the whole store, rising over all upgrades, with gaps.
    pub position: u64,
    /// When it was appended; never before the event ahead of it.
    pub at: Timestamp,
    /// The epoch of the lease under which it was appended; none for requests by people.
    pub epoch: Option<Epoch>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

impl EventRecord {
    /// Tells this event from any other that could have its number, in a copy of the store that went another way. It is
    /// written into the cluster and compared by later versions: its form never changes.
    pub fn mark(&self) -> String {
        let epoch = self.epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
        format!("{} {epoch}", self.at)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", content = "data", rename_all = "snake_case")]
pub enum Event {
    /// A plan was accepted. Always the first event.
    Planned {
        /// The plan, whole: the log alone tells everything.
        plan: Box<Plan>,
        /// Who accepted it.
        by: Actor,
    },
    /// A server took the lease.
    LeaseTaken {
        /// Its fencing number.
        epoch: Epoch,
        /// Which server.
        holder: String,
    },
    /// The pre-check began.
    CheckStarted,
    /// The pre-check ended.
    CheckFinished {
        /// What it found.
        report: CheckReport,
    },
    /// The work began.
    Started,
    /// A stage began.
    StageStarted {
        /// Its index in the plan, from 0.
        stage: usize,
    },
    /// A stage ended.
    StageFinished {
        /// Its index in the plan, from 0.
        stage: usize,
    },
    /// A batch of a pool began.
    BatchStarted {
        /// The stage.
        stage: usize,
        /// Its ordinal in the pool, from 1.
        batch: u32,
        /// The size that the batch law allowed.
        size_limit: u32,
        /// Its nodes.
        nodes: Vec<NodeName>,
    },
    /// A batch ended.
    BatchFinished {
        /// The stage.
        stage: usize,
        /// Its ordinal in the pool.
        batch: u32,
    },
    /// An act is about to begin: the intent.
    StepStarted {
        /// The step.
        step: StepNumber,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// A step reached its goal, and that was read back.
    StepSucceeded {
        /// The step.
        step: StepNumber,
        /// The attempt.
        attempt: u32,
        /// What was found or done.
        outcome: StepOutcome,
    },
    /// A step did not reach its goal.
    StepFailed {
        /// The step.
        step: StepNumber,
        /// The attempt.
        attempt: u32,
        /// Why.
        problem: Problem,
        /// Whether a further attempt may help without a person.
        retryable: bool,
    },
    /// A node was left out.
    NodeSkipped {
        /// The node.
        node: NodeName,
        /// Why.
        problem: Problem,
    },
    /// Something waits, and for what. Appended when it changes, so that the feed tells why nothing moves.
    WaitingBegan {
        /// For what.
        on: WaitingOn,
    },
    /// Something that only the upgrade should change was changed by somebody else.
    InterferenceNoticed {
        /// What was changed, and how.
        problem: Problem,
    },
    /// A pause was asked for, by a person or by the upgrade itself.
    PauseRequested {
        /// Why.
        reason: PauseReason,
        /// Who.
        by: Actor,
    },
    /// Nothing is in work any more.
    Paused,
    /// A person continued it.
    Continued {
        /// Who.
        by: Actor,
    },
    /// The most nodes of a batch were changed; it holds from the next batch.
    MaxParallelChanged {
        /// The new bound.
        max_parallel: u32,
        /// Who.
        by: Actor,
    },
    /// A person cancelled it.
    CancelRequested {
        /// Who.
        by: Actor,
        /// Nodes that are not waited for any more; their state is unknown.
        abandon: Vec<NodeName>,
    },
    /// It ended by cancel.
    Cancelled,
    /// The expiry deadline was seen to have passed, for the first time.
    ExpiryNoticed,
    /// The expiry began: what is ours is given back.
    ExpiryBegan,
    /// It ended by expiry.
    Expired,
    /// It ended well.
    Succeeded,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What a step found or did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum StepOutcome {
    /// It was done.
    Done,
    /// Nothing had to be done: the goal was reached already.
    AlreadyDone,
    /// The baseline was recorded.
    Baseline {
        /// The workloads before anything was touched.
        workloads: Vec<WorkloadFacts>,
    },
    /// A node was cordoned.
    Cordoned {
        /// False where somebody else had cordoned it before: their cordon, not ours.
        ours: bool,
    },
    /// A node was drained.
    Drained {
        /// How many pods were evicted by us.
        evicted: u32,
        /// Pods that tolerate a cordoned node and came back, as `namespace/name (Deployment NAME)`.
        relanded: Vec<String>,
        /// Pods that came though they do not tolerate a cordoned node, and stay: somebody bound them to it by name.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        arrived: Vec<String>,
        /// How long the slowest pod of each workload took to end once it was told to, in milliseconds, by workload such
        /// as `Deployment shop/cart`. Empty in logs of older releases.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        ended: BTreeMap<String, u64>,
        /// For how long evictions were refused, in milliseconds.
        #[serde(default, skip_serializing_if = "is_zero")]
        held_milliseconds: u64,
    },
    /// Versions were read back.
    Verified {
        /// One line for each component: `kubelet v1.36.3`.
        components: Vec<String>,
    },
    /// etcd was saved, and the copy was checked.
    BackedUp {
        /// The name under which the server keeps it.
        backup: String,
        /// The SHA-256 of the snapshot.
        sha256: String,
        /// The revision that it holds.
        revision: u64,
        /// How many keys it holds.
        keys: u64,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// The control plane on a master was swapped.
    Swapped {
        /// From the stop of the old to the last component read back, in milliseconds. With kubeadm's own method the stop
        /// of the old kubelet: kubeadm does not tell when it stopped a component.
        interrupted_milliseconds: u64,
        /// One line for each component: `kube-apiserver v1.36.3`.
        components: Vec<String>,
        /// What the manifests in force have that the ones before had not, and the other way round: unified differences.
        difference: String,
    },
    /// Everything was compared with the baseline.
    Compared {
        /// Workloads with fewer ready pods than before, as `Deployment shop/cart 1/2`.
        worse: Vec<String>,
        /// Nodes outside the plan whose kubelet was not seen at the target or newer. None in logs of older releases.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        older_outside_plan: Vec<NodeName>,
    },
    /// Logs were collected.
    Logs {
        /// The last lines.
        text: String,
    },
    /// The node was skipped after its drain took too long; it was given back.
    DrainSkipped {
        /// What blocked.
        blockers: Vec<String>,
    },
}

/// Why an upgrade is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum PauseReason {
    /// A person asked.
    Operator,
    /// The plan's pause policy.
    PausePolicy,
    /// A step failed.
    StepFailed {
        /// The step.
        step: StepNumber,
        /// Why.
        problem: Problem,
    },
    /// A gate held too long.
    Gate {
        /// Why.
        problem: Problem,
    },
    /// A maintenance window closed.
    Window,
    /// An agent that is needed is silent.
    ContactLost {
        /// Its node.
        node: NodeName,
        /// The sentence and the fix.
        problem: Problem,
    },
    /// Somebody else changed what the plan stands on.
    Interference {
        /// What.
        problem: Problem,
    },
    /// A rule that must always hold did not.
    InvariantBroken {
        /// Which.
        problem: Problem,
    },
}

impl PauseReason {
    /// The stable word, as in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::PausePolicy => "pause_policy",
            Self::StepFailed { .. } => "step_failed",
            Self::Gate { .. } => "gate",
            Self::Window => "window",
            Self::ContactLost { .. } => "contact_lost",
            Self::Interference { .. } => "interference",
            Self::InvariantBroken { .. } => "invariant_broken",
        }
    }

    /// Whether it is a wish, of a person or of the plan, and nothing that went wrong.
    pub fn is_a_wish(&self) -> bool {
        matches!(self, Self::Operator | Self::PausePolicy)
    }

    /// Whether the store is older than the cluster, which only a person can settle: until then nothing is done.
    pub fn is_older_store(&self) -> bool {
        self.problem().is_some_and(|problem| problem.code == Code::StoreOlderThanCluster)
    }

    /// Whether it tells that the other reason holds no longer.
    pub fn settles(&self, other: &Self) -> bool {
        other.is_older_store() && self.problem().is_some_and(|problem| problem.code == Code::StoreSettled)
    }

    /// The problem behind it, where there is one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Operator | Self::PausePolicy | Self::Window => None,
            Self::StepFailed { problem, .. }
            | Self::Gate { problem }
            | Self::ContactLost { problem, .. }
            | Self::Interference { problem }
            | Self::InvariantBroken { problem } => Some(problem),
        }
    }
}
