//! The objects that checks read, with only the fields that some check reads.
//!
//! Lists of thousands of pods are kept in memory: a field that no check reads has no place here. Values of Secrets,
//! ConfigMaps and environment variables are never among them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::snapshot::Read;

macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $(
            $(#[$field_doc])*
            #[serde(deserialize_with = "null_is_default", skip_serializing_if = "is_default")]
            pub $field: $type,
        )* }
        impl Field for $name {}
    )*};
}

/// A field of an object.
trait Field {
    /// Gives up the room that was taken beyond what it holds: most lists hold one thing, and have room for four.
    fn fit(&mut self) {}
}

impl<T> Field for Vec<T> {
    fn fit(&mut self) {
        self.shrink_to_fit();
    }
}

impl<T: Field> Field for Option<T> {
    fn fit(&mut self) {
        if let Some(field) = self {
            field.fit();
        }
    }
}

macro_rules! fields_without_room {
    ($($type:ty)*) => { $(impl Field for $type {})* };
}

fields_without_room!(bool i32 i64 u16 u32 String Marks Volume jiff::Timestamp serde_json::Value);

impl<T> Field for BTreeMap<String, T> {}

/// Kubernetes writes `null` for empty lists in places.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de> + Field,
{
    let mut field: T = Option::deserialize(deserializer)?.unwrap_or_default();
    field.fit();
    Ok(field)
}

/// What a field is without being written is not written: most fields of most objects are so.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

mod configuration;
mod extension;
mod meta;
mod network;
mod node;
mod pod;
mod storage;
mod workload;

pub use self::configuration::*;
pub use self::extension::*;
pub use self::meta::*;
pub use self::network::*;
pub use self::node::*;
pub use self::pod::*;
pub use self::storage::*;
pub use self::workload::*;

/// Text by text, as labels are.
pub type Labels = BTreeMap<String, String>;

macro_rules! lists {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        /// Everything that checks read, by kind. A list that is not in a file was not seen: it is no empty one.
        #[derive(Clone, Debug, Default, Serialize, Deserialize)]
        pub struct Objects { $(
            $(#[$doc])*
            #[serde(default = "not_held")]
            pub $name: Read<$type>,
        )* }
    };
}

fn not_held<T>() -> Read<T> {
    Read::NotSeen("its list is not in the snapshot".to_owned())
}

lists! {
    /// Nodes.
    nodes: Vec<Node>,
    /// Pods.
    pods: Vec<Pod>,
    /// Deployments.
    deployments: Vec<Workload>,
    /// StatefulSets.
    stateful_sets: Vec<Workload>,
    /// DaemonSets.
    daemon_sets: Vec<Workload>,
    /// PodDisruptionBudgets.
    budgets: Vec<Budget>,
    /// Services.
    services: Vec<Service>,
    /// EndpointSlices.
    slices: Vec<Slice>,
    /// Namespaces.
    namespaces: Vec<Namespace>,
    /// ValidatingWebhookConfigurations.
    validating: Vec<WebhookConfiguration>,
    /// MutatingWebhookConfigurations.
    mutating: Vec<WebhookConfiguration>,
    /// APIServices.
    api_services: Vec<ApiService>,
    /// CustomResourceDefinitions.
    definitions: Vec<Definition>,
    /// PersistentVolumes.
    volumes: Vec<PersistentVolume>,
    /// PersistentVolumeClaims.
    claims: Vec<Claim>,
    /// StorageClasses.
    storage_classes: Vec<StorageClass>,
    /// CSIDrivers.
    csi_drivers: Vec<Named>,
    /// VolumeAttachments.
    attachments: Vec<Attachment>,
    /// Jobs.
    jobs: Vec<Job>,
    /// CertificateSigningRequests.
    signing_requests: Vec<SigningRequest>,
    /// ResourceQuotas.
    quotas: Vec<Quota>,
    /// NetworkPolicies.
    network_policies: Vec<NetworkPolicy>,
    /// CSINodes.
    csi_nodes: Vec<CsiNode>,
    /// Ingresses, of which their metadata alone.
    ingresses: Vec<Named>,
    /// The Lease with which an installation of Shiplock claims the cluster, if there is one.
    upgrade_lease: Option<UpgradeLease>,
    /// ServiceCIDRs.
    service_ranges: Vec<ServiceRange>,
    /// Warnings about objects in kube-system.
    warnings: Vec<Warning>,
    /// What nodes use, as metrics.k8s.io tells it.
    node_usage: Vec<NodeUsage>,
    /// OperatorConditions of the Operator Lifecycle Manager, and ClusterOperators of OpenShift.
    operators: Vec<Operator>,
    /// What kubeadm keeps in ConfigMaps of kube-system.
    configuration: Configuration,
}

impl Objects {
    /// The name of the first list that holds an object without a name, which no API server has.
    pub(crate) fn nameless(&self) -> Option<&'static str> {
        macro_rules! first {
            ($($list:ident)*) => {
                None$(.or_else(|| {
                    let mut objects = self.$list.seen().into_iter().flatten();
                    objects.any(|object| object.metadata.name.is_empty()).then_some(stringify!($list))
                }))*
            };
        }
        first!(
            nodes pods deployments stateful_sets daemon_sets budgets services slices namespaces validating mutating
            api_services definitions volumes claims storage_classes csi_drivers attachments jobs signing_requests quotas
            network_policies csi_nodes ingresses service_ranges node_usage operators
        )
    }

    /// Forgets the words of every command but those of Kubernetes' own components in kube-system: what people write
    /// there may be secret.
    #[must_use]
    pub fn without_commands(mut self) -> Self {
        if let Read::Seen(pods) = &mut self.pods {
            for pod in pods {
                let is_own = pod.metadata.namespace == "kube-system";
                for container in &mut pod.spec.containers {
                    if !(is_own && COMPONENTS.contains(&image_name(&container.image))) {
                        container.command = Vec::new();
                        container.args = Vec::new();
                    }
                }
            }
        }
        for list in [&mut self.deployments, &mut self.stateful_sets, &mut self.daemon_sets] {
            if let Read::Seen(workloads) = list {
                for container in workloads.iter_mut().flat_map(|workload| &mut workload.spec.template.spec.containers) {
                    container.command = Vec::new();
                    container.args = Vec::new();
                }
            }
        }
        self
    }
}

/// The last part of an image's name: no registry, no tag, no digest.
pub fn image_name(image: &str) -> &str {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split(':').next().unwrap_or(last)
}

/// The tag of an image: no port of a registry, no digest.
pub fn image_tag(image: &str) -> Option<&str> {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split_once(':').map(|(_, tag)| tag)
}

/// Kubernetes' own components, by the last part of their images' names.
pub const COMPONENTS: [&str; 5] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "etcd"];
