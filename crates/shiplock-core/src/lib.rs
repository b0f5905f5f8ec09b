//! The pure heart of Shiplock: what a version is, which upgrade is allowed, what a plan holds, what
//! has happened, and what to do next.
//!
//! Start reading at [`upgrade::Upgrade`] (the fold of an event log) and [`upgrade::decide`] (what to do
//! now). [`plan::make_plan`] makes what both work on.
//!
//! This crate must never read a clock, do I/O, start a task or draw a random number: time, ids and facts
//! are arguments. That is what lets the same code run in production, in the simulator and in rehearsals.

#![warn(clippy::pedantic)]
#![allow(
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::doc_markdown,
    clippy::module_name_repetitions,
    clippy::must_use_candidate,
    clippy::too_many_lines,
    reason = "errors are `Problem`s whose codes document themselves; the rest is taste"
)]

pub mod artefact;
pub mod catalogue;
pub mod check;
pub mod estimate;
pub mod facts;
pub mod id;
pub mod join;
pub mod language;
pub mod plan;
pub mod planted;
pub mod problem;
pub mod size;
pub mod step;
pub mod upgrade;
pub mod version;

#[cfg(any(test, feature = "sample"))]
pub mod sample;
