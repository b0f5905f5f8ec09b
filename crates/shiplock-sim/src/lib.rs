//! A world of API server, nodes, agents, network and clock in memory.
//!
//! [`world::World`] is the typed, cloneable seam: objects, controllers, kubelets and machines under a virtual clock and a
//! seed. It reads no clock, starts no task and does no I/O.

pub mod demo;
pub mod facade;
pub mod world;
