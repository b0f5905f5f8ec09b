//! Drives upgrades: one task for each active upgrade, so that a slow cluster holds up nobody else.
//!
//! [`machine`] is the sans-I/O heart: inputs and a time go in, outputs come out. [`shell`] feeds it from store,
//! cluster and agents and carries its outputs out. [`steps`] are the steps that the server does itself.
//! [`takeover`] is how an upgrade comes to be driven, [`lease`] keeps it ours. [`Supervisor`] finds active upgrades and keeps a task for each.
//!
//! A driver must never act without an intent in the store, and never once it may have lost its lease.

mod lease;
pub mod machine;
mod shell;
mod steps;
mod supervisor;
mod takeover;
#[cfg(test)]
mod tests;

pub use self::supervisor::{DriverSettings, Supervisor};
