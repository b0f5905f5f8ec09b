//! The whole agent on a node in memory, with a server in memory: crashes, faults and a mirror over HTTP.

#![allow(clippy::unwrap_used, reason = "tests")]

mod control_plane;
mod crash;
mod etcd;
mod examination;
mod fake;
mod faults;
mod master;
mod mirror;
mod rollback;
mod server;
