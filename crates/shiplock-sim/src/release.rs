//! The releases of simulated clusters, and the mirror that holds those that can be gone to.

use std::sync::LazyLock;

use shiplock_core::artefact::{ArtefactFile, ArtefactImage, ArtefactIndex, ReleaseArtefacts, SCHEMA};
use shiplock_core::catalogue::{Catalogue, Components};
use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::version::KubernetesVersion;

use crate::world::{Text, Toleration, WorkloadKind, WorkloadSpec, World};

/// The version before.
pub const FROM: &str = "v1.35.4";
/// The version after.
pub const TO: &str = "v1.36.3";
/// The version after that, for who goes on.
const NEXT: &str = "v1.37.2";
/// containerd before.
pub(crate) const RUNTIME_FROM: &str = "v1.6.20";
/// containerd after.
pub(crate) const RUNTIME_TO: &str = "v2.2.9";

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(Catalogue::shipped);

fn read(version: &str) -> KubernetesVersion {
    version.parse().expect("a constant is well formed")
}

/// What goes with a version.
fn components(version: &str) -> &'static Components {
    let release = CATALOGUE.release(read(version).release);
    &release.expect("the catalogue has the releases of this file").components
}

fn proxy_image(version: &str) -> String {
    format!("registry.k8s.io/kube-proxy:{version}")
}

fn coredns_image(version: &str) -> String {
    format!("registry.k8s.io/coredns/coredns:v{}", components(version).coredns)
}

/// The image of a component at a version.
pub(crate) fn image_of(component: ControlPlaneComponent, version: &str) -> String {
    let tag = match component {
        ControlPlaneComponent::Etcd => format!("{}-0", components(version).etcd),
        _ => version.to_owned(),
    };
    format!("registry.k8s.io/{}:{tag}", component.name())
}

/// Images of the add-ons at a version, by name.
pub(crate) fn addon_images(version: KubernetesVersion) -> Vec<(Text, Text)> {
    let version = version.to_string();
    vec![
        ("kube-proxy".into(), proxy_image(&version).as_str().into()),
        ("coredns".into(), coredns_image(&version).as_str().into()),
    ]
}

/// Adds kube-proxy and CoreDNS as kubeadm of a version puts them.
pub(crate) fn add_addons(world: &mut World, version: &str) {
    let addon = |kind, name: &str, replicas, image: &str| {
        let mut spec = WorkloadSpec::new(kind, "kube-system", name, replicas);
        spec.template.containers = vec![(name.into(), image.into())];
        if kind == WorkloadKind::DaemonSet {
            spec.template.tolerations.push(Toleration { key: "".into(), value: None, effect: None, seconds: None });
        }
        spec
    };
    world.add_workload(&addon(WorkloadKind::DaemonSet, "kube-proxy", 0, &proxy_image(version)));
    world.add_workload(&addon(WorkloadKind::Deployment, "coredns", 2, &coredns_image(version)));
}

/// A digest that follows from a text.
fn digest(text: &str) -> String {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        sum = (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{sum:016x}").repeat(4)
}

/// The id of an image that follows from its reference.
pub(crate) fn image_id(reference: &str) -> String {
    format!("sha256:{}", digest(reference))
}

/// What the mirror holds. Nobody fetches from it: what a step does is simulated.
pub fn artefacts() -> ArtefactIndex {
    ArtefactIndex { schema: SCHEMA.to_owned(), releases: [TO, NEXT].map(release).into() }
}

fn release(kubernetes: &str) -> ReleaseArtefacts {
    let Components { etcd, pause, .. } = components(kubernetes);
    let etcd = format!("v{etcd}");
    let file = |role: &str, version: &str| ArtefactFile {
        role: role.to_owned(),
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        path: format!("files/{version}/{role}"),
        size_bytes: 1 << 20,
        sha256: digest(&format!("{role} {version}")),
    };
    let image = |role: &str, reference: String| ArtefactImage {
        role: role.to_owned(),
        image_id: Some(image_id(&reference)),
        architecture: "amd64".to_owned(),
        path: format!("images/{kubernetes}/{role}.tar"),
        size_bytes: 1 << 20,
        sha256: digest(&format!("archive {reference}")),
        digest: format!("sha256:{}", digest(&format!("digest {reference}"))),
        reference,
    };
    ReleaseArtefacts {
        kubernetes: read(kubernetes),
        files: vec![
            file("kubeadm", kubernetes),
            file("kubelet", kubernetes),
            file("kubectl", kubernetes),
            file("etcdctl", &etcd),
            file("etcdutl", &etcd),
            file("containerd", RUNTIME_TO),
            file("containerd-shim-runc-v2", RUNTIME_TO),
            file("ctr", RUNTIME_TO),
        ],
        images: ControlPlaneComponent::ALL
            .into_iter()
            .map(|component| image(component.name(), image_of(component, kubernetes)))
            .chain([
                image("kube-proxy", proxy_image(kubernetes)),
                image("pause", format!("registry.k8s.io/pause:{pause}")),
                image("coredns", coredns_image(kubernetes)),
            ])
            .collect(),
    }
}
