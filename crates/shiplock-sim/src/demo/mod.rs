//! The demo's side of the world: three simulated clusters behind real API endpoints, and the agents of their nodes.
//!
//! Everything else of `shiplock demo` is the production server. It reaches the clusters by kubeconfigs, over TLS, as it
//! reaches any cluster; agents are enrolled through the real gateway and speak to it over mutual TLS. Simulated are the
//! clusters, their machines and what steps do on them.

mod agent;
mod clock;
mod cluster;
mod examination;

pub use self::agent::{Agents, Joining};
pub use self::cluster::{Cluster, Standing};
pub use crate::release::artefacts;
