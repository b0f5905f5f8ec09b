//! Add-ons against the target, by the images that run and what their makers publish.

use std::collections::BTreeSet;

use shiplock_core::catalogue::Catalogue;
use shiplock_core::version::{KubernetesVersion, MinorVersion};

use super::{Look, image_name, image_tag, owner_of};
use crate::report::{Finding, Outcome, Subject};

/// What makers say which releases of Kubernetes a release of theirs was tested with.
struct Tested {
    /// The last part of the image's name.
    image: &'static str,
    /// A text that the whole name of the image holds, where the last part says too little.
    within: &'static str,
    name: &'static str,
    check: &'static str,
    /// Major and minor of the add-on, and the newest minor of Kubernetes that it was tested with. Releases that are
    /// older than the first are older than all that is listed; of newer ones than the last nothing is known.
    releases: &'static [(u32, u32, u32)],
    source: &'static str,
}

const TESTED: &[Tested] = &[
    Tested {
        image: "node",
        within: "calico/node",
        name: "Calico",
        check: "NET-005",
        releases: &[(3, 29, 32), (3, 31, 35), (3, 32, 36), (3, 33, 37)],
        source: "https://docs.tigera.io/calico/latest/getting-started/kubernetes/requirements",
    },
    Tested {
        image: "cilium",
        within: "cilium/cilium",
        name: "Cilium",
        check: "NET-005",
        releases: &[(1, 16, 30), (1, 17, 32), (1, 18, 33)],
        source: "https://docs.cilium.io/en/stable/network/kubernetes/compatibility/",
    },
    Tested {
        image: "cert-manager-controller",
        within: "",
        name: "cert-manager",
        check: "ADD-001",
        releases: &[(1, 18, 33), (1, 19, 35), (1, 20, 35), (1, 21, 36)],
        source: "https://cert-manager.io/docs/releases/",
    },
    Tested {
        image: "pilot",
        within: "istio",
        name: "Istio",
        check: "ADD-001",
        releases: &[(1, 26, 32), (1, 27, 33), (1, 28, 34), (1, 29, 35)],
        source: "https://istio.io/latest/docs/releases/supported-releases/",
    },
];

/// Cloud controller managers whose versions follow Kubernetes' own.
const CLOUD_MANAGERS: [&str; 4] = [
    "cloud-controller-manager",
    "openstack-cloud-controller-manager",
    "azure-cloud-controller-manager",
    "cloud-pv-vsphere",
];

/// Images whose makers have ended them: a text within the name, what it is, since when, what to use.
const ENDED: &[(&str, &str, &str, &str)] = &[
    ("kubernetes-helm/tiller", "Tiller of Helm 2", "2020-11", "Helm 3 or 4"),
    ("heapster", "Heapster", "2018-11", "metrics-server"),
    ("weaveworks/weave-kube", "Weave Net", "2024-06", "another network plugin"),
    ("kubernetesui/dashboard", "Kubernetes Dashboard", "2026-01", "Headlamp"),
    ("gcr.io/kubebuilder/kube-rbac-proxy", "kube-rbac-proxy of Kubebuilder", "2025-03", "the API server's own filters"),
    ("k8s.gcr.io/", "the registry k8s.gcr.io", "2023-04", "registry.k8s.io"),
    ("gcr.io/google-containers/", "the registry gcr.io/google-containers", "2023-04", "registry.k8s.io"),
];

/// Plugins that CoreDNS does not have any more, with the minor that lost them; the library that kubeadm migrates
/// Corefiles with says so: <https://github.com/coredns/corefile-migration>.
const GONE_PLUGINS: [(&str, &str); 2] = [("proxy", "1.5"), ("federation", "1.7")];

pub(super) fn judge(look: &mut Look<'_>) {
    support(look);
    images(look);
    configurations(look);
    let objects = look.objects;
    for operator in look.need(&objects.operators, &["ADD-007"]).into_iter().flatten() {
        let said = operator.status.conditions.iter().find(|condition| condition.r#type == "Upgradeable");
        if let Some(condition) = said.filter(|condition| condition.status == "False") {
            let message: String = condition.message.chars().take(200).collect();
            let subject = Subject::new("Operator", &operator.metadata.namespace, &operator.metadata.name);
            look.say(Finding::new("ADD-007", "no", Outcome::Fail, subject).with("message", message));
        }
    }
}

/// Whether the makers of Kubernetes still mend the target.
fn support(look: &mut Look<'_>) {
    let target = look.question.target;
    let catalogue = Catalogue::shipped();
    let Some(release) = catalogue.releases.iter().find(|release| release.minor == target) else {
        if let Some(oldest) = catalogue.releases.first().filter(|oldest| target < oldest.minor) {
            let finding = Finding::new("VER-008", "ended", Outcome::Warn, Subject::cluster());
            look.say(finding.with("target", target).with("oldest", oldest.minor));
        }
        return;
    };
    let today = look.question.now.to_zoned(jiff::tz::TimeZone::UTC).date();
    if let Some(end) = release.end_of_support.filter(|end| *end < today) {
        let finding = Finding::new("VER-008", "ended-on", Outcome::Warn, Subject::cluster());
        look.say(finding.with("target", target).with("end", end));
    }
}

fn images(look: &mut Look<'_>) {
    let objects = look.objects;
    let Some(pods) = look.need(&objects.pods, &["ADD-001", "ADD-002", "NET-005"]) else { return };
    let mut said = BTreeSet::new();
    for pod in pods.iter().filter(|pod| !pod.has_ended()) {
        for container in &pod.spec.containers {
            let image = container.image.as_str();
            if !said.insert((owner_of(pod), image)) {
                continue;
            }
            for tested in TESTED.iter().filter(|one| image_name(image) == one.image && image.contains(one.within)) {
                let newest = image_tag(image).and_then(|tag| newest_tested(tested, tag));
                if let Some(newest) = newest.filter(|newest| *newest < look.question.target) {
                    let finding = Finding::new(tested.check, "untested", Outcome::Warn, owner_of(pod));
                    look.say(
                        finding
                            .with("name", tested.name)
                            .with("version", image_tag(image).unwrap_or_default())
                            .with("newest", newest)
                            .with("target", look.question.target)
                            .with("page", tested.source),
                    );
                }
            }
            if CLOUD_MANAGERS.contains(&image_name(image)) {
                cloud_manager(look, image, owner_of(pod));
            }
            for (_, name, since, instead) in ENDED.iter().filter(|(text, ..)| image.contains(text)) {
                let finding = Finding::new("ADD-002", "ended", Outcome::Warn, owner_of(pod));
                look.say(finding.with("name", name).with("since", since).with("instead", instead));
            }
        }
    }
}

/// The newest minor of Kubernetes that a release of an add-on was tested with; none where that is not known.
fn newest_tested(tested: &Tested, tag: &str) -> Option<MinorVersion> {
    let mut parts = tag.trim_start_matches('v').split(['.', '-']);
    let version = (parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?);
    let of = |minor: u32| MinorVersion { major: 1, minor };
    let (first, exact) =
        (tested.releases.first()?, tested.releases.iter().find(|(major, minor, _)| (*major, *minor) == version));
    match exact {
        Some((.., newest)) => Some(of(*newest)),
        None => (version < (first.0, first.1)).then(|| of(first.2)),
    }
}

/// A cloud controller manager must not be newer than an API server, and at most one minor older.
fn cloud_manager(look: &mut Look<'_>, image: &str, subject: Subject) {
    let read = image_tag(image).map(KubernetesVersion::parse_reported);
    let (Some(Ok(version)), Some(current)) = (read, look.question.current) else {
        let why = format!("the version of the API server or that of its image is not known: {image}");
        return look.say(Finding { subject, ..Finding::unknown("ADD-001", why) });
    };
    // Before 1.20 makers counted on their own.
    if version.release.minor < 20 {
        return;
    }
    let target = look.question.target;
    let with = |sentence, outcome| {
        let finding = Finding::new("ADD-001", sentence, outcome, subject.clone()).with("version", version);
        finding.with("current", current).with("target", target)
    };
    if version.release > current {
        look.say(with("cloud-newer", Outcome::Fail));
    } else if version.release.minors_behind(target) > 1 {
        look.say(with("cloud-too-old", Outcome::Fail));
    }
}

fn configurations(look: &mut Look<'_>) {
    let objects = look.objects;
    let Some(read) = look.need(&objects.configuration, &["API-012", "NET-004", "NET-006"]) else { return };
    let subject = |name: &str| Subject::new("ConfigMap", "kube-system", name);
    let target = look.question.target;
    if target.minor >= 35 && read.proxy.as_ref().is_some_and(|proxy| proxy.mode == "ipvs") {
        look.say(Finding::new("NET-006", "ipvs", Outcome::Warn, subject("kube-proxy")));
    }
    for (plugin, since) in GONE_PLUGINS {
        if read.dns_plugins.iter().flatten().any(|used| used == plugin) {
            let finding = Finding::new("NET-004", "gone", Outcome::Warn, subject("coredns"));
            look.say(finding.with("plugin", plugin).with("since", since));
        }
    }
    for (name, check) in [("coredns", "NET-004"), ("kube-proxy", "NET-006")] {
        if let Some(why) = read.unreadable.get(name) {
            look.say(Finding { subject: subject(name), ..Finding::unknown(check, why) });
        }
    }
    if let Some(cluster) = &read.cluster
        && let Some((since, _)) = crate::api::files::removed_configuration(&cluster.api_version, target)
    {
        let finding = Finding::new("API-012", "kubeadm-uploaded", Outcome::Fail, subject("kubeadm-config"));
        let api = format!("{} ClusterConfiguration", cluster.api_version);
        look.say(finding.with("api", api).with("since", since));
    }
}
