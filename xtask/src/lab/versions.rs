//! Every version that the lab builds, in one place.
//!
//! A Kubernetes release is a set: `kubeadm config images list` names the etcd, CoreDNS and pause
//! that belong to it, and an upgrade changes them together. The Go module proxy has only some
//! patch releases of `k8s.io/kubernetes`, which is why these patches and no others.

use anyhow::{Context as _, Result};

/// A Kubernetes release with what belongs to it. All versions are without the leading `v`.
#[derive(Debug, PartialEq, Eq)]
pub struct Release {
    /// Minor version, the name used on the command line.
    pub minor: &'static str,
    /// Version of kubeadm, kubelet, kubectl and the components.
    pub kubernetes: &'static str,
    /// Version of etcd; the image tag is this with `-0` appended.
    pub etcd: &'static str,
    /// Version of CoreDNS.
    pub coredns: &'static str,
    /// Tag of the pause image.
    pub pause: &'static str,
}

/// All releases that the lab can build.
pub const RELEASES: &[Release] = &[
    Release { minor: "1.34", kubernetes: "1.34.4", etcd: "3.6.5", coredns: "1.12.1", pause: "3.10.1" },
    Release { minor: "1.35", kubernetes: "1.35.4", etcd: "3.6.6", coredns: "1.13.1", pause: "3.10.1" },
    Release { minor: "1.36", kubernetes: "1.36.3", etcd: "3.6.8", coredns: "1.14.2", pause: "3.10.2" },
    Release { minor: "1.37", kubernetes: "1.37.2", etcd: "3.7.0", coredns: "1.14.6", pause: "3.10.2" },
];

/// The versions of Kubernetes that the lab knows, oldest first.
pub(crate) fn kubernetes_versions() -> impl Iterator<Item = &'static str> {
    RELEASES.iter().map(|release| release.kubernetes)
}

/// What `lab build` builds where nothing else is asked for.
pub const DEFAULT_MINORS: [&str; 2] = ["1.35", "1.36"];

/// The containerd that nodes are upgraded to; they are born with Debian's 1.6.
pub const CONTAINERD: &str = "2.2.9";

/// Helm, once for each major: they store releases that the pre-check reads.
pub const HELM: &[&str] = &["3.22.0", "4.3.1"];

/// The CNI plugins.
pub const CNI: &str = "1.9.1";

/// The pause image that every node's containerd is configured with.
pub const SANDBOX_PAUSE: &str = "3.10.1";

/// The system of the nodes: Debian release, and a number that is raised when `PACKAGES` changes.
pub const SYSTEM: (&str, &str) = ("bookworm", "1");

/// Debian packages of a node's system disk.
pub const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "containerd",
    "runc",
    "iptables",
    "nftables",
    "ebtables",
    "ethtool",
    "conntrack",
    "socat",
    "iproute2",
    "iputils-ping",
    "procps",
    "kmod",
    "ca-certificates",
    "curl",
    "openssl",
    "util-linux-extra",
];

/// The image of the test application.
pub const WEB_IMAGE: &str = "docker.io/lab/web:1";

/// The prefix of all images that kubeadm wants.
pub const REGISTRY: &str = "registry.k8s.io";

/// One image that belongs to a release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    /// What it is for: `kube-apiserver`, …, `etcd`, `coredns`, `pause`, `web`.
    pub role: &'static str,
    /// Full reference with tag, as `kubeadm config images list` prints it.
    pub reference: String,
}

impl Image {
    /// File name of its archive: last part of the name, tag, architecture.
    pub fn archive(&self) -> String {
        let name = self.reference.rsplit('/').next().unwrap_or(&self.reference);
        format!("{}-amd64.tar", name.replace(':', "-"))
    }
}

impl Release {
    /// Finds `1.36`, `v1.36`, `1.36.3` or `v1.36.3`.
    pub fn find(name: &str) -> Result<&'static Self> {
        let wanted = name.trim_start_matches('v');
        RELEASES.iter().find(|release| release.minor == wanted || release.kubernetes == wanted).with_context(|| {
            let known: Vec<_> = RELEASES.iter().map(|release| release.kubernetes).collect();
            format!("no Kubernetes {name:?} in the lab; it has {}", known.join(", "))
        })
    }

    fn image(&self, role: &'static str) -> Image {
        let reference = match role {
            "etcd" => format!("{REGISTRY}/etcd:{}-0", self.etcd),
            "coredns" => format!("{REGISTRY}/coredns/coredns:v{}", self.coredns),
            "pause" => format!("{REGISTRY}/pause:{}", self.pause),
            component => format!("{REGISTRY}/{component}:v{}", self.kubernetes),
        };
        Image { role, reference }
    }

    /// The seven images that kubeadm wants for this release.
    pub fn images(&self) -> Vec<Image> {
        ["coredns", "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "pause"]
            .map(|role| self.image(role))
            .to_vec()
    }

    /// What a master of this release starts with, and nothing of any other release.
    pub fn master_images(&self) -> Vec<Image> {
        let mut images = self.images();
        images.extend([sandbox(), web()]);
        images.sort();
        images.dedup();
        images
    }

    /// What a worker starts with when the control plane has this release.
    pub fn worker_images(&self) -> Vec<Image> {
        vec![self.image("coredns"), self.image("kube-proxy"), sandbox(), web()]
    }
}

fn sandbox() -> Image {
    Image { role: "pause", reference: format!("{REGISTRY}/pause:{SANDBOX_PAUSE}") }
}

/// The test application's image.
pub fn web() -> Image {
    Image { role: "web", reference: WEB_IMAGE.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_found_by_each_of_its_names() {
        for name in ["1.36", "v1.36", "1.36.3", "v1.36.3"] {
            assert_eq!(Release::find(name).unwrap().kubernetes, "1.36.3");
        }
        assert!(Release::find("1.33").unwrap_err().to_string().contains("1.35.4"));
    }

    #[test]
    fn images_carry_the_names_that_kubeadm_prints() {
        let names: Vec<_> = Release::find("1.36").unwrap().images().into_iter().map(|image| image.reference).collect();
        assert!(names.contains(&"registry.k8s.io/etcd:3.6.8-0".to_owned()));
        assert!(names.contains(&"registry.k8s.io/coredns/coredns:v1.14.2".to_owned()));
        assert!(names.contains(&"registry.k8s.io/kube-proxy:v1.36.3".to_owned()));
    }

    #[test]
    fn a_worker_has_no_image_of_the_target() {
        let images = Release::find("1.35").unwrap().worker_images();
        assert!(images.iter().all(|image| !image.reference.contains("1.36") && !image.reference.contains("3.10.2")));
    }

    #[test]
    fn archives_are_named_by_name_and_tag() {
        let images = Release::find("1.36").unwrap().images();
        assert_eq!(images[0].archive(), "coredns-v1.14.2-amd64.tar");
    }
}
