//! The two releases of simulated clusters, and the mirror that holds the newer one.

use shiplock_core::artefact::{ArtefactFile, ArtefactImage, ArtefactIndex, ReleaseArtefacts, SCHEMA};
use shiplock_core::facts::ControlPlaneComponent;

use crate::world::{Text, Toleration, WorkloadKind, WorkloadSpec, World};

/// The version before.
pub const FROM: &str = "v1.35.4";
/// The version after.
pub const TO: &str = "v1.36.3";
/// containerd before.
pub(crate) const RUNTIME_FROM: &str = "v1.6.20";
/// containerd after.
pub(crate) const RUNTIME_TO: &str = "v2.2.9";
const COREDNS_FROM: &str = "registry.k8s.io/coredns/coredns:v1.13.1";
const COREDNS_TO: &str = "registry.k8s.io/coredns/coredns:v1.14.2";

fn proxy_image(version: &str) -> String {
    format!("registry.k8s.io/kube-proxy:{version}")
}

/// The image of a component at a version.
pub(crate) fn image_of(component: ControlPlaneComponent, version: &str) -> String {
    let etcd = if version == FROM { "3.6.6-0" } else { "3.6.8-0" };
    let tag = if component == ControlPlaneComponent::Etcd { etcd } else { version };
    format!("registry.k8s.io/{}:{tag}", component.name())
}

/// Images of the add-ons at the target, by name.
pub(crate) fn addon_images() -> Vec<(Text, Text)> {
    vec![("kube-proxy".into(), proxy_image(TO).as_str().into()), ("coredns".into(), COREDNS_TO.into())]
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
    let coredns = if version == FROM { COREDNS_FROM } else { COREDNS_TO };
    world.add_workload(&addon(WorkloadKind::DaemonSet, "kube-proxy", 0, &proxy_image(version)));
    world.add_workload(&addon(WorkloadKind::Deployment, "coredns", 2, coredns));
}

/// The id of an image that follows from its reference.
pub(crate) fn image_id(reference: &str) -> String {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for byte in reference.bytes() {
        sum = (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("sha256:{}", format!("{sum:016x}").repeat(4))
}

/// What the mirror holds. Nobody fetches from it: what a step does is simulated.
pub fn artefacts() -> ArtefactIndex {
    let file = |role: &str, version: &str, digit: &str| ArtefactFile {
        role: role.to_owned(),
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        path: format!("files/{role}"),
        size_bytes: 1 << 20,
        sha256: digit.repeat(64),
    };
    let image = |role: &str, reference: String| ArtefactImage {
        role: role.to_owned(),
        image_id: Some(image_id(&reference)),
        reference,
        architecture: "amd64".to_owned(),
        path: format!("images/{role}.tar"),
        size_bytes: 1 << 20,
        sha256: "3".repeat(64),
        digest: format!("sha256:{}", "4".repeat(64)),
    };
    let kubernetes = TO.parse().expect("a constant is well formed");
    let release = ReleaseArtefacts {
        kubernetes,
        files: vec![
            file("kubeadm", TO, "5"),
            file("kubelet", TO, "6"),
            file("kubectl", TO, "7"),
            file("etcdctl", "v3.6.8", "8"),
            file("etcdutl", "v3.6.8", "9"),
            file("containerd", RUNTIME_TO, "a"),
            file("containerd-shim-runc-v2", RUNTIME_TO, "b"),
            file("ctr", RUNTIME_TO, "c"),
        ],
        images: ControlPlaneComponent::ALL
            .into_iter()
            .map(|component| image(component.name(), image_of(component, TO)))
            .chain([
                image("kube-proxy", proxy_image(TO)),
                image("pause", "registry.k8s.io/pause:3.10.2".to_owned()),
                image("coredns", COREDNS_TO.to_owned()),
            ])
            .collect(),
    };
    ArtefactIndex { schema: SCHEMA.to_owned(), releases: vec![release] }
}
