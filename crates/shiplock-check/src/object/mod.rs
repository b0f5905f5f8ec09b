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
    )*};
}

/// Kubernetes writes `null` for empty lists in places.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
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

/// Everything that checks read, by kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Objects {
    /// Nodes.
    pub nodes: Read<Vec<Node>>,
    /// Pods.
    pub pods: Read<Vec<Pod>>,
    /// Deployments.
    pub deployments: Read<Vec<Workload>>,
    /// StatefulSets.
    pub stateful_sets: Read<Vec<Workload>>,
    /// DaemonSets.
    pub daemon_sets: Read<Vec<Workload>>,
    /// PodDisruptionBudgets.
    pub budgets: Read<Vec<Budget>>,
    /// Services.
    pub services: Read<Vec<Service>>,
    /// EndpointSlices.
    pub slices: Read<Vec<Slice>>,
    /// Namespaces.
    pub namespaces: Read<Vec<Namespace>>,
    /// ValidatingWebhookConfigurations.
    pub validating: Read<Vec<WebhookConfiguration>>,
    /// MutatingWebhookConfigurations.
    pub mutating: Read<Vec<WebhookConfiguration>>,
    /// APIServices.
    pub api_services: Read<Vec<ApiService>>,
    /// CustomResourceDefinitions.
    pub definitions: Read<Vec<Definition>>,
    /// PersistentVolumes.
    pub volumes: Read<Vec<PersistentVolume>>,
    /// PersistentVolumeClaims.
    pub claims: Read<Vec<Claim>>,
    /// StorageClasses.
    pub storage_classes: Read<Vec<StorageClass>>,
    /// CSIDrivers.
    pub csi_drivers: Read<Vec<Named>>,
    /// VolumeAttachments.
    pub attachments: Read<Vec<Attachment>>,
    /// Jobs.
    pub jobs: Read<Vec<Job>>,
    /// CertificateSigningRequests.
    pub signing_requests: Read<Vec<SigningRequest>>,
    /// ResourceQuotas.
    pub quotas: Read<Vec<Quota>>,
    /// NetworkPolicies.
    pub network_policies: Read<Vec<NetworkPolicy>>,
    /// CSINodes.
    pub csi_nodes: Read<Vec<CsiNode>>,
    /// Ingresses, of which their metadata alone.
    pub ingresses: Read<Vec<Named>>,
    /// The Lease with which an installation of Shiplock claims the cluster, if there is one.
    pub upgrade_lease: Read<Option<UpgradeLease>>,
    /// ServiceCIDRs.
    pub service_ranges: Read<Vec<ServiceRange>>,
    /// Warnings about objects in kube-system.
    pub warnings: Read<Vec<Warning>>,
    /// What nodes use, as metrics.k8s.io tells it.
    pub node_usage: Read<Vec<NodeUsage>>,
    /// OperatorConditions of the Operator Lifecycle Manager, and ClusterOperators of OpenShift.
    pub operators: Read<Vec<Operator>>,
    /// What kubeadm keeps in ConfigMaps of kube-system.
    pub configuration: Read<Configuration>,
}

impl Objects {
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
