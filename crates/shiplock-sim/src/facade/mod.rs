//! The Kubernetes façade: a simulated cluster as real clients see an API server.
//!
//! A [`Facade`] is a tower service. Behind `kube::Client::new` it serves the production code of `shiplock-cluster` in the
//! same process; behind a listener it serves kubectl. It renders the typed world as JSON when asked and translates
//! writes into the world's operations; it decides nothing of its own.

mod discovery;
mod disturb;
mod fields;
mod list;
pub mod listener;
mod objects;
mod openapi;
mod patch;
mod path;
mod protobuf;
mod resource;
mod review;
#[cfg(feature = "seam")]
mod seam;
mod selector;
mod service;
mod shared;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod typed;
mod verbs;
mod watch;

#[cfg(feature = "seam")]
pub use self::seam::Seam;
pub use self::service::{Facade, ResponseBody};
pub use self::shared::{DeprecatedRequests, Settings, Shared};
