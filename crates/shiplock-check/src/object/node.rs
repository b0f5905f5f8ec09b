//! Nodes.

use serde::{Deserialize, Serialize};

use super::{Condition, Field, Labels, Metadata, is_default, null_is_default};

objects! {
    /// A node.
    Node {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: NodeSpec,
        /// Its status.
        status: NodeStatus,
    }
    /// The specification of a node.
    NodeSpec {
        /// Whether it is cordoned.
        unschedulable: bool,
        /// Its taints.
        taints: Vec<Taint>,
    }
    /// A taint.
    Taint {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// The effect.
        effect: String,
    }
    /// The status of a node.
    NodeStatus {
        /// What pods may use.
        allocatable: Labels,
        /// What it has.
        capacity: Labels,
        /// Its conditions.
        conditions: Vec<Condition>,
        /// What it runs.
        node_info: NodeInfo,
    }
    /// What a node runs.
    NodeInfo {
        /// `v1.36.3`
        kubelet_version: String,
        /// `containerd://2.2.9`
        container_runtime_version: String,
        /// `Debian GNU/Linux 12 (bookworm)`
        os_image: String,
        /// `6.1.0-18-amd64`
        kernel_version: String,
    }
    /// What a node uses.
    NodeUsage {
        /// What it says of itself.
        metadata: Metadata,
        /// CPU and memory.
        usage: Labels,
    }
}
