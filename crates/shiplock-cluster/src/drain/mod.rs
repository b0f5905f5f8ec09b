//! Emptying a node: every pod that is there at the begin is asked to go, and waited for.
//!
//! [`DrainMachine`] decides what to ask and what to wait for; the server's step carries its wishes out. A
//! PodDisruptionBudget is passed over only where the operator chose force.

mod machine;

pub use machine::{Act, DrainMachine};
