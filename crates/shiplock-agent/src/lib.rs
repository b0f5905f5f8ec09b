//! The node agent: does the typed steps that a server assigns to its node, and nothing else.
//!
//! Start reading at [`machine`] (what is accepted, fenced, journaled and reported; it does no I/O) and [`steps`] (how
//! each step is examined, done and read back). [`node_loop`] is the thin shell around both.
//!
//! This crate must never depend on the Kubernetes client, the store or the HTTP server: it runs as root on every node.

#![allow(async_fn_in_trait, reason = "the traits are used through generics on one thread; nobody needs Send")]

pub mod backup;
pub mod commands;
pub mod containerd_config;
pub mod control_plane;
pub mod cri;
pub mod download;
pub mod endpoint;
pub mod enrolment;
pub mod examination;
pub mod facts;
pub mod files;
pub mod gateway;
pub mod host;
pub mod identity;
pub mod journal;
pub mod kubelet_configuration;
pub mod machine;
pub mod node_loop;
pub mod put_back;
pub mod renewal;
pub mod steps;
pub mod swap;
pub mod system;
mod upload;
