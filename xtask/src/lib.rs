//! The developer tasks of Shiplock as a library, so that tests can call what `cargo xtask …` calls.

pub mod bench;
pub mod bench_precheck;
pub mod ci;
pub mod e2e;
pub mod fields;
pub mod lab;
pub mod lifecycle;
pub mod simulation;
