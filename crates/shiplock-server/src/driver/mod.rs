//! Drives upgrades: one task for each active upgrade, so that a slow cluster holds up nobody else.
//!
//! [`machine`] is the sans-I/O heart: inputs and a time go in, outputs come out. [`shell`] feeds it from store,
//! cluster and agents and carries its outputs out. [`step`] is
//! one step that the server does itself, sans-I/O too; [`steps`] is the shell around it.
//! [`start_check`] asks the whole catalogue of checks before a start. [`takeover`] is how an upgrade comes to be driven, [`lease`] keeps it ours. [`Supervisor`] finds active upgrades and keeps a task for each.
//!
//! A driver must never act without an intent in the store, and never once it may have lost its lease.

mod lease;
pub mod machine;
mod read_back;
mod shell;
mod start_check;
pub mod step;
#[cfg(test)]
mod step_tests;
mod steps;
mod supervisor;
mod takeover;
#[cfg(test)]
mod tests;

pub use self::lease::{LEASE_RENEWAL, LEASE_SECONDS, holds_until, outlasts_a_request};
pub use self::shell::{claim_problem, claim_with_proof};
#[cfg(test)]
pub(crate) use self::start_check::StartCheck;
pub use self::steps::carry_out;
pub use self::supervisor::{DriverSettings, Supervisor};
pub use self::takeover::{fold_on, tell};
