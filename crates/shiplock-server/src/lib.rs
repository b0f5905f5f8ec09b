//! The server: it keeps the log ([`store`]), drives upgrades ([`driver`]), speaks to people ([`http`]) and to
//! agents ([`gateway`]).
//!
//! One process drives many clusters, with one task for each active upgrade. It must never act without an intent in
//! the store, nor on a lease that it may have lost.

pub mod authority;
pub mod backup;
pub mod clusters;
pub mod driver;
pub mod gateway;
pub mod http;
pub mod hub;
pub mod mirror;
pub mod precheck;
pub mod seal;
pub mod serve;
pub mod store;
