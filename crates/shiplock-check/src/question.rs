//! What is asked: the target, and how strict to be.

use jiff::Timestamp;
use shiplock_core::version::MinorVersion;

/// What is asked of all checks of a run.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The minor to upgrade to.
    pub target: MinorVersion,
    /// The minor that runs; none where only files are checked.
    pub current: Option<MinorVersion>,
    /// Which severity the policy gives.
    pub profile: Profile,
    /// The time of the run.
    pub now: Timestamp,
    /// How many nodes of a pool go at once at most.
    pub max_parallel: u32,
}

/// The policy for checks whose severity a policy may choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Deprecated and removed APIs advise.
    #[default]
    Default,
    /// Removed APIs block.
    Strict,
}
