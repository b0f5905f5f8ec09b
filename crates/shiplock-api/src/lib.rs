//! What goes over wires: REST v1 ([`rest`]), the protocol between server and agents ([`agent`]), the error body.
//!
//! Types here change only by addition. The crate does no I/O but in feature `client`.

pub mod agent;
pub mod check;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "schema")]
pub mod openapi;
pub mod operation;
pub mod rest;
