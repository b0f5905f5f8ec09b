//! Services and what leads to them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Field, Labels, Metadata, Selector, is_default, null_is_default};

objects! {
    /// A Service.
    Service {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: ServiceSpec,
        /// Its status.
        status: ServiceStatus,
    }
    /// The specification of a Service.
    ServiceSpec {
        /// `ClusterIP`, `NodePort`, `LoadBalancer`.
        r#type: String,
        /// Which pods.
        selector: Labels,
        /// `Cluster` or `Local`.
        external_traffic_policy: String,
        /// Its own addresses.
        #[serde(rename = "clusterIPs")]
        cluster_ips: Vec<String>,
        /// Its ports.
        ports: Vec<ServicePort>,
        /// Addresses from elsewhere.
        #[serde(rename = "externalIPs")]
        external_ips: Vec<String>,
        /// Labels of nodes that its traffic keeps to; Kubernetes knew them until 1.21.
        topology_keys: Vec<String>,
        /// The name that it stands for, where its type is `ExternalName`.
        external_name: String,
    }
    /// The status of a Service.
    ServiceStatus {
        /// Its load balancer.
        load_balancer: LoadBalancer,
    }
    /// A load balancer.
    LoadBalancer {
        /// Where it takes traffic.
        ingress: Vec<LoadBalancerAddress>,
    }
    /// Where a load balancer takes traffic.
    LoadBalancerAddress {
        /// Its address; empty where it has a name alone.
        ip: String,
        /// Its name; empty where it has an address alone.
        hostname: String,
    }
    /// An EndpointSlice.
    Slice {
        /// What it says of itself.
        metadata: Metadata,
        /// Its endpoints.
        endpoints: Vec<Endpoint>,
    }
    /// An endpoint.
    Endpoint {
        /// Its addresses.
        addresses: Vec<String>,
        /// Its state.
        conditions: EndpointConditions,
        /// Where it is.
        node_name: String,
    }
    /// The state of an endpoint.
    EndpointConditions {
        /// Whether it is ready; unknown counts as ready.
        ready: Option<bool>,
    }
    /// A port of a Service.
    ServicePort {
        /// The port.
        port: u16,
        /// The port of the pods: a number or a name; the same where it does not say.
        target_port: Option<Value>,
    }
    /// A NetworkPolicy.
    NetworkPolicy {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: NetworkPolicySpec,
    }
    /// The specification of a NetworkPolicy.
    NetworkPolicySpec {
        /// Which pods.
        pod_selector: Selector,
        /// `Ingress`, `Egress`; Ingress where it does not say.
        policy_types: Vec<String>,
        /// What may come in.
        ingress: Vec<IngressRule>,
    }
    /// What may come in.
    IngressRule {
        /// From where; from everywhere where it is empty.
        from: Vec<Peer>,
        /// To which ports; all where it is empty.
        ports: Vec<PolicyPort>,
    }
    /// From where.
    Peer {
        /// Addresses.
        ip_block: Option<AddressBlock>,
    }
    /// Addresses.
    AddressBlock {
        /// The range.
        cidr: String,
    }
    /// A port that is let in.
    PolicyPort {
        /// A number or a name; all where it does not say.
        port: Option<Value>,
        /// The end of a range.
        end_port: Option<i64>,
    }
    /// A ServiceCIDR.
    ServiceRange {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: ServiceRangeSpec,
    }
    /// The specification of a ServiceCIDR.
    ServiceRangeSpec {
        /// The ranges.
        cidrs: Vec<String>,
    }
}
