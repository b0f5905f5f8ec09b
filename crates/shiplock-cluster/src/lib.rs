//! Kubernetes as Shiplock sees and touches it.
//!
//! [`port::Cluster`] is all that the rest of the product may ask of a cluster; the simulator takes its place.
//! Nothing here decides what to do next, and nothing acts without a precondition that fences it: node writes test
//! our ownership mark and the node's UID, evictions name the pod's UID.

mod answer;
mod cache;
mod clock;
pub mod collect;
mod connection;
pub mod drain;
pub mod fence;
pub mod kubeconfig;
pub mod kubernetes;
mod lease;
mod ownership;
mod pods;
pub mod port;
pub mod probe;
mod request;
pub mod role;
mod survey;
mod translation;
mod watching;

#[cfg(test)]
mod mock;

pub use clock::Clock;
pub use connection::ACT_TIMEOUT;
pub use kubeconfig::{InlinedKubeconfig, Kubeconfig, KubeconfigSource};
pub use kubernetes::KubernetesCluster;
