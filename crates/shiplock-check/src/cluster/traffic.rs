//! Network and storage.

use std::collections::{BTreeMap, BTreeSet};

use super::{Look, image_name, of, owner_of};
use crate::object::{Slice, Volume};
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

pub(super) fn judge(look: &mut Look<'_>) {
    local_traffic(look);
    dns_and_ingress(look);
    volumes(look);
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
        if claim.status.phase == "Lost" {
            look.say(Finding::new("STO-006", "lost", Outcome::Warn, of("PersistentVolumeClaim", &claim.metadata)));
        }
    }
}

/// The nodes with ready endpoints of each Service, by namespace and name.
pub(super) fn ready_nodes(slices: &[Slice]) -> BTreeMap<(&str, &str), Vec<&str>> {
    let mut found: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for slice in slices {
        let Some(service) = slice.metadata.labels.get("kubernetes.io/service-name") else { continue };
        let nodes = found.entry((&slice.metadata.namespace, service)).or_default();
        // Not said means ready.
        let ready = slice.endpoints.iter().filter(|endpoint| endpoint.conditions.ready != Some(false));
        nodes.extend(ready.map(|endpoint| endpoint.node_name.as_str()));
    }
    found
}

fn local_traffic(look: &mut Look<'_>) {
    let objects = look.objects;
    let Some(services) = look.need(&objects.services, &["NET-001", "API-015"]) else { return };
    if look.question.target.minor >= 36 {
        for service in services.iter().filter(|service| !service.spec.external_ips.is_empty()) {
            look.say(Finding::new("API-015", "external-ips", Outcome::Warn, of("Service", &service.metadata)));
        }
    }
    let Some(slices) = look.need(&objects.slices, &["NET-001"]) else { return };
    let ready = ready_nodes(slices);
    let is_local = |kind: &str, policy: &str| matches!(kind, "LoadBalancer" | "NodePort") && policy == "Local";
    for service in
        services.iter().filter(|service| is_local(&service.spec.r#type, &service.spec.external_traffic_policy))
    {
        if service.spec.selector.is_empty() {
            continue;
        }
        let metadata = &service.metadata;
        let nodes =
            ready.get(&(metadata.namespace.as_str(), metadata.name.as_str())).map(Vec::as_slice).unwrap_or_default();
        let distinct: BTreeSet<&str> = nodes.iter().copied().collect();
        match distinct.len() {
            0 => look.say(Finding::new("NET-001", "none", Outcome::Warn, of("Service", metadata))),
            1 => {
                let node = distinct.first().copied().unwrap_or_default();
                look.say(
                    Finding::new("NET-001", "one-node", Outcome::Warn, of("Service", metadata)).with("node", node),
                );
            }
            _ => {}
        }
    }
}

fn dns_and_ingress(look: &mut Look<'_>) {
    let objects = look.objects;
    let Some(pods) = look.need(&objects.pods, &["NET-003", "NET-007"]) else { return };
    let dns: Vec<_> = pods
        .iter()
        .filter(|pod| pod.metadata.labels.get("k8s-app").is_some_and(|app| app == "kube-dns") && !pod.has_ended())
        .collect();
    let ready: Vec<_> = dns.iter().filter(|pod| pod.is_ready()).collect();
    let hosts: BTreeSet<&str> = ready.iter().map(|pod| pod.spec.node_name.as_str()).collect();
    let sentence = match (dns.len(), ready.len(), hosts.len()) {
        // Another name server may be at work: nothing is known of it.
        (0, ..) => None,
        (_, 0, _) => Some(("none", Outcome::Fail)),
        (_, 1, _) => Some(("single", Outcome::Warn)),
        (.., 1) => Some(("one-node", Outcome::Warn)),
        _ => None,
    };
    if let Some((sentence, outcome)) = sentence {
        look.say(Finding::new("NET-003", sentence, outcome, Subject::new("Deployment", "kube-system", "coredns")));
    }
    let mut said = BTreeSet::new();
    for pod in pods {
        let is_ingress = |image: &str| image_name(image) == "controller" && image.contains("ingress-nginx");
        if pod.spec.containers.iter().any(|container| is_ingress(&container.image)) && said.insert(owner_of(pod)) {
            look.say(Finding::new("NET-007", "ended", Outcome::Warn, owner_of(pod)));
        }
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
            let volume = Volume { source: (*field).to_owned(), detail: String::new() };
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
