//! Bugs that are planted on purpose, so that the checkers of the simulator can be proved able to fail.
//!
//! Without feature `planted`, which no product build has, each of them is absent: [`is`] is the constant `false`.

/// A planted bug, by the invariant of `ARCHITECTURE.md` that it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// 1: whether the other members carry etcd is not looked at.
    QuorumNotRead,
    /// 1: whether the other members carry etcd is read before a master is begun with, and not again right before the act.
    QuorumReadEarly,
    /// 2: node pools are planned ahead of the control plane.
    PoolsFirst,
    /// 3: the batch goes on while a node that was left out still carries our cordon.
    CordonLeftBehind,
    /// 4: a batch takes as many nodes as the bound lets, from the first on.
    BatchLawForgotten,
    /// 4: the batch law begins again at its first size when a paused upgrade is continued.
    BatchLawRestarts,
    /// 5: masters go together like nodes of a pool.
    MastersTogether,
    /// 6: a step is begun before its intent is stored.
    IntentAfterEffect,
    /// 7: a cancelled upgrade keeps the cordons of nodes that failed.
    CancelKeepsCordons,
    /// 8: a driver acts on without its lease and against the claim in the cluster.
    LeaseIgnored,
    /// 8: an agent takes an assignment of an older generation.
    StaleGenerationAccepted,
    /// 9: a cluster that cannot be read passes gates.
    UnknownPasses,
    /// 10: two events get one position.
    PositionTwice,
    /// 11: an outcome whose append failed is forgotten.
    OutcomeForgotten,
    /// 12: a drain whose time is over deletes, whatever was chosen.
    AlwaysForce,
    /// 13: nodes of the batch are started after a pause.
    PauseStartsNodes,
    /// 14: the UID of a node is not compared.
    UidNotCompared,
    /// 15: executables are put in place without a look at their digest.
    DigestNotCompared,
    /// 16: a step that the plan does not have is offered.
    StepInvented,
    /// 17: a second upgrade of a cluster is begun.
    SecondUpgrade,
    /// 18: what is claimed is not read back.
    NotReadBack,
    /// 19: that somebody uncordoned a node in work is not noticed.
    UncordonNotNoticed,
}

impl Bug {
    /// Every bug, in the order of the invariants.
    pub const ALL: [Self; 22] = [
        Self::QuorumNotRead,
        Self::QuorumReadEarly,
        Self::PoolsFirst,
        Self::CordonLeftBehind,
        Self::BatchLawForgotten,
        Self::BatchLawRestarts,
        Self::MastersTogether,
        Self::IntentAfterEffect,
        Self::CancelKeepsCordons,
        Self::LeaseIgnored,
        Self::StaleGenerationAccepted,
        Self::UnknownPasses,
        Self::PositionTwice,
        Self::OutcomeForgotten,
        Self::AlwaysForce,
        Self::PauseStartsNodes,
        Self::UidNotCompared,
        Self::DigestNotCompared,
        Self::StepInvented,
        Self::SecondUpgrade,
        Self::NotReadBack,
        Self::UncordonNotNoticed,
    ];
}

#[cfg(feature = "planted")]
std::thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in this thread, or takes it away.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether a bug is planted.
#[cfg(feature = "planted")]
pub fn is(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether a bug is planted: never, in a build without feature `planted`.
#[cfg(not(feature = "planted"))]
#[inline]
pub const fn is(_: Bug) -> bool {
    false
}
