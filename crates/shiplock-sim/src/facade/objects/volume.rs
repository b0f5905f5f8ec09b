//! PersistentVolumeClaims, and the volumes that are bound to them.

use serde_json::{Value, json};

use super::metadata::envelope;
use crate::world::{VolumeClaim, World, uuid_text};

const CAPACITY: &str = "10Gi";

fn volume_name(claim: &VolumeClaim) -> String {
    format!("pvc-{}", uuid_text(claim.meta.uid))
}

/// Renders a claim.
pub(super) fn render(_: &World, _: u32, claim: &VolumeClaim) -> Value {
    let mut object = envelope("v1", "PersistentVolumeClaim", &claim.meta);
    object["spec"] = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": CAPACITY}},
        "storageClassName": "simulated",
        "volumeMode": "Filesystem",
        "volumeName": volume_name(claim),
    });
    object["status"] = json!({"phase": "Bound", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": CAPACITY}});
    object
}

/// Renders the volume of a claim.
pub(super) fn volume(claim: &VolumeClaim) -> Value {
    let mut object = envelope("v1", "PersistentVolume", &claim.meta);
    object["metadata"]["name"] = volume_name(claim).into();
    object["metadata"]["namespace"] = Value::Null;
    let term = |key: &str, value: &str| json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": key, "operator": "In", "values": [value]}]}]}});
    object["spec"] = json!({
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": CAPACITY},
        "claimRef": {"kind": "PersistentVolumeClaim", "namespace": &*claim.meta.namespace, "name": &*claim.meta.name},
        "persistentVolumeReclaimPolicy": "Delete",
        "storageClassName": "simulated",
        "volumeMode": "Filesystem",
    });
    match (&claim.zone, &claim.node) {
        (_, Some(node)) => {
            object["spec"]["local"] = json!({"path": "/mnt/disk"});
            object["spec"]["nodeAffinity"] = term("kubernetes.io/hostname", node);
        }
        (Some(zone), None) => object["spec"]["nodeAffinity"] = term("topology.kubernetes.io/zone", zone),
        (None, None) => {}
    }
    object["status"] = json!({"phase": "Bound"});
    object
}
