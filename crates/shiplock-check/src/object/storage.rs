//! Volumes and what makes them.

use serde::{Deserialize, Deserializer, Serialize};

use super::{Field, Metadata, NodeSelector, PodStatus, is_default, null_is_default};

objects! {
    /// A PersistentVolume.
    PersistentVolume {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: Volume,
    }
    /// A PersistentVolumeClaim.
    Claim {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: ClaimSpec,
        /// Its status.
        status: PodStatus,
    }
    /// A StorageClass.
    StorageClass {
        /// What it says of itself.
        metadata: Metadata,
        /// What makes its volumes.
        provisioner: String,
    }
    /// A VolumeAttachment.
    Attachment {
        /// What it says of itself.
        metadata: Metadata,
        /// Its status.
        status: AttachmentStatus,
    }
    /// The status of an attachment.
    AttachmentStatus {
        /// Whether it is attached.
        attached: bool,
        /// Why it cannot be attached.
        attach_error: Option<AttachmentError>,
        /// Why it cannot be detached.
        detach_error: Option<AttachmentError>,
    }
    /// Why a volume cannot be attached or detached.
    AttachmentError {
        /// In words.
        message: String,
    }
    /// The specification of a claim.
    ClaimSpec {
        /// The volume that it is bound to.
        volume_name: String,
    }
    /// A CSINode.
    CsiNode {
        /// What it says of itself; its name is the node's.
        metadata: Metadata,
        /// Its specification.
        spec: CsiNodeSpec,
    }
    /// The specification of a CSINode.
    CsiNodeSpec {
        /// The drivers that run on the node.
        drivers: Vec<CsiNodeDriver>,
    }
    /// A driver that runs on a node.
    CsiNodeDriver {
        /// The name.
        name: String,
    }
}

/// A volume, of a pod or persistent: the kind of its source, and what checks read of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Volume {
    /// The kind of source, such as `emptyDir` or `csi`; empty where it is none that is known.
    pub source: String,
    /// The driver of `csi` or `flexVolume`, the path of `hostPath`, the name of a claim, the medium of `emptyDir`.
    pub detail: String,
    /// The nodes that a persistent volume can be used on; none for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeSelector>,
}

/// Fields of volumes that are no sources.
const NOT_SOURCES: &[&str] = &[
    "name",
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

impl<'de> Deserialize<'de> for Volume {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Detail {
            driver: String,
            path: String,
            #[serde(rename = "claimName")]
            claim_name: String,
            medium: String,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct NodeAffinity {
            required: Option<NodeSelector>,
        }
        struct Keys;
        impl<'de> serde::de::Visitor<'de> for Keys {
            type Value = Volume;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a volume")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Volume, A::Error> {
                let mut volume = Volume::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        // The saved form.
                        "source" => volume.source = map.next_value()?,
                        "detail" => volume.detail = map.next_value()?,
                        "nodes" => volume.nodes = map.next_value()?,
                        "nodeAffinity" => {
                            volume.nodes =
                                map.next_value::<Option<NodeAffinity>>()?.and_then(|affinity| affinity.required);
                        }
                        other if NOT_SOURCES.contains(&other) => {
                            map.next_value::<serde::de::IgnoredAny>()?;
                        }
                        "csi" | "flexVolume" | "hostPath" | "persistentVolumeClaim" | "emptyDir" => {
                            let detail = map.next_value::<Option<Detail>>()?.unwrap_or_default();
                            volume.source = key;
                            let all = [detail.driver, detail.path, detail.claim_name, detail.medium];
                            volume.detail = all.into_iter().find(|text| !text.is_empty()).unwrap_or_default();
                        }
                        _ => {
                            map.next_value::<serde::de::IgnoredAny>()?;
                            volume.source = key;
                        }
                    }
                }
                Ok(volume)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}
