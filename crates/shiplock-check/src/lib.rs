//! The pre-check: what will break in an upgrade, who must act, and silence otherwise.
//!
//! Everything here is pure: bytes and snapshots come in, a [`report::Report`] goes out. Reading files and asking
//! clusters is done outside. Start reading at [`catalogue`] (what there is to check) and [`api`] (the five sources of
//! deprecated APIs).
//!
//! It must never answer a check that it could not ask: that is [`report::Outcome::Unknown`]. And no value of a Secret
//! may get into a finding.

pub mod api;
pub mod catalogue;
pub mod cluster;
pub mod components;
pub mod copy;
pub mod lifecycle;
pub mod manifest;
pub mod named;
pub mod node;
pub mod object;
pub mod question;
pub mod render;
pub mod report;
pub mod run;
pub mod snapshot;
pub mod tls;
