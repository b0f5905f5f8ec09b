//! A world of API server, nodes, agents, network and clock in memory.
//!
//! [`world::World`] is the typed, cloneable seam: objects, controllers, kubelets and machines under a virtual clock and a
//! seed. [`run`] puts servers, agents, network and faults around it. It reads no clock, starts no task and does no I/O.
//! [`rehearsal`] runs an upgrade on a copy of a cluster there.

pub mod demo;
pub mod facade;
mod machine;
pub mod rehearsal;
mod release;
pub mod run;
mod step;
pub mod story;
pub mod world;
