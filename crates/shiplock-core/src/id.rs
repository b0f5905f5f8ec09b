//! Typed names and ids, so that a node name can never be passed where an upgrade id is wanted.
//!
//! Copies share their text: plans, facts and events of thousands of nodes hold the same few names, and what is the same
//! copy is known to be equal without a look at it.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Whether two texts are equal; what is the same copy is, without a look at it.
pub(crate) fn same_text(one: &Arc<str>, other: &Arc<str>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

macro_rules! text_id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps the text as it is.
            pub fn new(text: impl Into<Arc<str>>) -> Self { Self(text.into()) }
            /// The text.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(&self.0) }
        }
        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool { same_text(&self.0, &other.0) }
        }
        impl Hash for $name {
            fn hash<H: Hasher>(&self, state: &mut H) { self.0.hash(state); }
        }
        impl Borrow<str> for $name { fn borrow(&self) -> &str { &self.0 } }
        impl From<&str> for $name { fn from(text: &str) -> Self { Self(text.into()) } }
        impl From<String> for $name { fn from(text: String) -> Self { Self(text.into()) } }
        impl From<Arc<str>> for $name { fn from(text: Arc<str>) -> Self { Self(text) } }
    )*};
}

text_id! {
    /// Names a registered cluster in this installation (what the operator typed at `cluster add`).
    ClusterName;
    /// The UID of namespace `kube-system`: the identity of a Kubernetes cluster, whoever registered it.
    ClusterUid;
    /// Names one plan. Unique in an installation.
    PlanId;
    /// Names one upgrade. Unique in an installation, lower-case letters and digits only, since it is part of unit names.
    UpgradeId;
    /// The name of a Kubernetes Node.
    NodeName;
    /// The name of a node pool.
    PoolName;
    /// The UID of a Kubernetes object.
    ObjectUid;
    /// Who did something: a user, a token or a component of Shiplock.
    Actor;
}

impl NodeName {
    /// Whether the other one is the same copy: then it is equal, and else it may be.
    pub(crate) fn shares(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The number of a step in its plan, from 1, unique over all stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct StepNumber(pub u32);

impl fmt::Display for StepNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The fencing number of a lease: each taking of a cluster's lease gets a higher one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Orders assignments: first by epoch, then by the number of the event that recorded the intent.
///
/// An agent stores the highest generation that it has seen and refuses every lower one. The event number
/// grows with each attempt, so two attempts of one step never share a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Generation {
    /// The epoch of the lease under which the intent was recorded.
    pub epoch: Epoch,
    /// The number of the intent's event in the upgrade's log.
    pub intent: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.intent)
    }
}
