//! Storage: volumes that the target cannot mount, and drivers that are missing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Look, of, owner_of};
use crate::object::Volume;
use crate::report::{Finding, Outcome, Subject};

/// Volumes that were taken out of Kubernetes, or handed to a CSI driver: field, provisioner, minor, driver. Sources: the
/// changelogs, and the list of volume types at <https://kubernetes.io/docs/concepts/storage/volumes/>.
const IN_TREE: &[(&str, &str, u32, Option<&str>)] = &[
    ("scaleIO", "kubernetes.io/scaleio", 22, None),
    ("flocker", "kubernetes.io/flocker", 25, None),
    ("quobyte", "kubernetes.io/quobyte", 25, None),
    ("storageos", "kubernetes.io/storageos", 25, None),
    ("glusterfs", "kubernetes.io/glusterfs", 26, None),
    ("cephfs", "", 31, None),
    ("rbd", "kubernetes.io/rbd", 31, None),
    ("gitRepo", "", 33, None),
    ("cinder", "kubernetes.io/cinder", 26, Some("cinder.csi.openstack.org")),
    ("awsElasticBlockStore", "kubernetes.io/aws-ebs", 27, Some("ebs.csi.aws.com")),
    ("azureDisk", "kubernetes.io/azure-disk", 27, Some("disk.csi.azure.com")),
    ("gcePersistentDisk", "kubernetes.io/gce-pd", 28, Some("pd.csi.storage.gke.io")),
    ("vsphereVolume", "kubernetes.io/vsphere-volume", 29, Some("csi.vsphere.vmware.com")),
    ("azureFile", "kubernetes.io/azure-file", 30, Some("file.csi.azure.com")),
    ("portworxVolume", "kubernetes.io/portworx-volume", 36, Some("pxd.portworx.com")),
];
/// An attachment may be on its way for so long.
const DETACHING_SECONDS_MAX: i64 = 360;
/// A claim may wait for its volume for so long.
const PENDING_SECONDS_MAX: i64 = 300;

pub(super) fn judge(look: &mut Look<'_>) {
    volumes(look);
    drivers(look);
    let objects = look.objects;
    for attachment in look.need(&objects.attachments, &["STO-005"]).into_iter().flatten() {
        let status = &attachment.status;
        let error = status.attach_error.as_ref().or(status.detach_error.as_ref());
        let since = attachment.metadata.deletion_timestamp;
        let is_late = since.is_some() && look.age_seconds(since) > DETACHING_SECONDS_MAX;
        if error.is_some() || is_late {
            let finding = Finding::new("STO-005", "stuck", Outcome::Fail, of("VolumeAttachment", &attachment.metadata));
            let message = error.map_or("it is being detached for too long", |error| error.message.as_str());
            look.say(finding.with("message", message.chars().take(200).collect::<String>()));
        }
    }
    for claim in look.need(&objects.claims, &["STO-006"]).into_iter().flatten() {
        let since = claim.metadata.creation_timestamp;
        let sentence = match claim.status.phase.as_str() {
            "Lost" => "lost",
            // One that was made just now may still get its volume.
            "Pending" if since.is_none() || look.age_seconds(since) > PENDING_SECONDS_MAX => "pending",
            _ => continue,
        };
        look.say(Finding::new("STO-006", sentence, Outcome::Warn, of("PersistentVolumeClaim", &claim.metadata)));
    }
}

/// Drivers that pods on a node need and that do not run there.
fn drivers(look: &mut Look<'_>) {
    let objects = look.objects;
    let check = ["STO-004"];
    let lists = (
        look.need(&objects.pods, &check),
        look.need(&objects.claims, &check),
        look.need(&objects.volumes, &check),
        look.need(&objects.csi_nodes, &check),
    );
    let (Some(pods), Some(claims), Some(volumes), Some(nodes)) = lists else { return };
    let driver_of: HashMap<&str, &str> = volumes
        .iter()
        .filter(|volume| volume.spec.source == "csi")
        .map(|volume| (volume.metadata.name.as_str(), volume.spec.detail.as_str()))
        .collect();
    let claimed: HashMap<(&str, &str), &str> = claims
        .iter()
        .filter_map(|claim| {
            let driver = driver_of.get(claim.spec.volume_name.as_str())?;
            Some(((claim.metadata.namespace.as_str(), claim.metadata.name.as_str()), *driver))
        })
        .collect();
    let registered: HashMap<&str, BTreeSet<&str>> = nodes
        .iter()
        .map(|node| {
            let drivers = node.spec.drivers.iter().map(|driver| driver.name.as_str());
            (node.metadata.name.as_str(), drivers.collect())
        })
        .collect();
    let mut missing: BTreeMap<(&str, &str), &crate::object::Pod> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pod.has_ended() && !pod.spec.node_name.is_empty()) {
        let of_claims = pod.spec.volumes.iter().filter(|volume| volume.source == "persistentVolumeClaim");
        let of_claims = of_claims
            .filter_map(|volume| claimed.get(&(pod.metadata.namespace.as_str(), volume.detail.as_str())).copied());
        let own = pod.spec.volumes.iter().filter(|volume| volume.source == "csi").map(|volume| volume.detail.as_str());
        for driver in of_claims.chain(own) {
            let node = pod.spec.node_name.as_str();
            if !registered.get(node).is_some_and(|drivers| drivers.contains(driver)) {
                missing.entry((node, driver)).or_insert(pod);
            }
        }
    }
    for ((node, driver), pod) in missing {
        let finding = Finding::new("STO-004", "missing", Outcome::Fail, Subject::new("Node", "", node));
        look.say(
            finding.with("driver", driver).with("pod", format!("{}/{}", pod.metadata.namespace, pod.metadata.name)),
        );
    }
}

fn volumes(look: &mut Look<'_>) {
    let objects = look.objects;
    let checks = ["STO-001", "STO-002", "STO-003"];
    let pods = look.need(&objects.pods, &checks);
    let persistent = look.need(&objects.volumes, &["STO-001", "STO-002", "STO-003", "STO-007"]);
    let drivers = look.need(&objects.csi_drivers, &["STO-003"]);
    let classes = look.need(&objects.storage_classes, &["STO-002", "STO-003"]);
    let drivers: Option<BTreeSet<&str>> =
        drivers.map(|drivers| drivers.iter().map(|driver| driver.metadata.name.as_str()).collect());
    let mut said = BTreeSet::new();
    let of_pods = pods.into_iter().flatten().filter(|pod| !pod.has_ended());
    let of_pods = of_pods.flat_map(|pod| pod.spec.volumes.iter().map(move |volume| (owner_of(pod), volume)));
    let of_cluster =
        persistent.into_iter().flatten().map(|volume| (of("PersistentVolume", &volume.metadata), &volume.spec));
    for (subject, volume) in of_pods.chain(of_cluster) {
        if said.insert((subject.clone(), volume.source.as_str())) {
            judge_volume(look, subject, volume, drivers.as_ref());
        }
    }
    for class in classes.into_iter().flatten() {
        let found =
            IN_TREE.iter().find(|(_, provisioner, ..)| !provisioner.is_empty() && *provisioner == class.provisioner);
        if let Some((field, ..)) = found {
            let volume = Volume { source: (*field).to_owned(), ..Volume::default() };
            judge_volume(look, of("StorageClass", &class.metadata), &volume, drivers.as_ref());
        }
    }
    for volume in persistent.into_iter().flatten().filter(|volume| volume.spec.source == "local") {
        look.say(Finding::new("STO-007", "local", Outcome::Warn, of("PersistentVolume", &volume.metadata)));
    }
}

fn judge_volume(look: &mut Look<'_>, subject: Subject, volume: &Volume, drivers: Option<&BTreeSet<&str>>) {
    if volume.source == "flexVolume" {
        look.say(Finding::new("STO-001", "flex", Outcome::Warn, subject).with("driver", &volume.detail));
        return;
    }
    let Some((field, _, minor, driver)) = IN_TREE.iter().find(|(field, ..)| *field == volume.source) else { return };
    if look.question.target.minor < *minor {
        return;
    }
    match driver {
        None => {
            let finding = Finding::new("STO-002", "removed", Outcome::Fail, subject);
            look.say(finding.with("volume", field).with("since", format!("1.{minor}")));
        }
        Some(driver) if drivers.is_some_and(|drivers| !drivers.contains(driver)) => {
            let finding = Finding::new("STO-003", "no-driver", Outcome::Fail, subject);
            look.say(finding.with("volume", field).with("driver", driver).with("since", format!("1.{minor}")));
        }
        Some(_) => {}
    }
}
