//! Versions, skew, the control plane.

use std::collections::BTreeSet;

use shiplock_core::version::{KubernetesVersion, MinorVersion};

use super::{Look, image_name, image_tag, of};
use crate::report::{Finding, Outcome, Subject};
use crate::snapshot::Read;

/// Kubelets of 1.25 and newer may be three minors older than an API server, older ones two.
/// <https://kubernetes.io/releases/version-skew-policy/#kubelet>
fn older_max(kubelet: MinorVersion) -> u32 {
    if kubelet.minor >= 25 { 3 } else { 2 }
}

const MASTER_LABELS: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// What the version of a kubectl means, as `kubectl version --client` reports it.
pub fn client(reported: &str, question: &crate::question::Question) -> Option<Finding> {
    let subject = Subject::new("Client", "", "kubectl");
    let Ok(version) = KubernetesVersion::parse_reported(reported) else {
        return Some(Finding { subject, ..Finding::unknown("VER-007", format!("its version is `{reported}`")) });
    };
    let target = question.target;
    let is_near = version.release.major == target.major && version.release.minor.abs_diff(target.minor) <= 1;
    let finding = Finding::new("VER-007", "far", Outcome::Warn, subject).with("version", version);
    (!is_near).then(|| finding.with("target", target))
}

/// The begin of a text that was read and says nothing that is known.
fn excerpt(text: &str) -> String {
    text.chars().take(100).collect()
}

pub(super) fn judge(look: &mut Look<'_>) {
    path(look);
    kubelets(look);
    components(look);
    instances(look);
    masters(look);
    upgrade_before(look);
}

/// The checks that compare with the version of the API server.
const OF_CURRENT: [&str; 4] = ["VER-001", "VER-002", "VER-004", "VER-005"];

fn path(look: &mut Look<'_>) {
    let target = look.question.target;
    let Some(current) = look.question.current else {
        let why = format!("the API server's version is `{}`", excerpt(&look.snapshot.version));
        return look.findings.extend(OF_CURRENT.map(|check| Finding::unknown(check, &why)));
    };
    let hops = current.minors_behind(target);
    if target < current {
        let finding = Finding::new("VER-001", "backwards", Outcome::Fail, Subject::cluster());
        look.say(finding.with("current", current).with("target", target));
    } else if hops > 1 {
        let finding = Finding::new("VER-001", "several", Outcome::Fail, Subject::cluster());
        look.say(
            finding.with("current", current).with("target", target).with("hops", hops).with("next", current.next()),
        );
    }
}

fn kubelets(look: &mut Look<'_>) {
    let objects = look.objects;
    let Some(nodes) = look.need(&objects.nodes, &["VER-002", "VER-003", "VER-010", "VER-012"]) else { return };
    let (current, target) = (look.question.current, look.question.target);
    let mut minors = BTreeSet::new();
    for node in nodes {
        let info = &node.status.node_info;
        let subject = || of("Node", &node.metadata);
        runtime(look, &info.container_runtime_version, subject());
        let Ok(kubelet) = KubernetesVersion::parse_reported(&info.kubelet_version) else {
            let why = format!("kubelet version `{}`", excerpt(&info.kubelet_version));
            for check in ["VER-002", "VER-003"] {
                look.say(Finding { subject: subject(), ..Finding::unknown(check, &why) });
            }
            continue;
        };
        minors.insert(kubelet.release);
        let with = |finding: Finding| finding.with("kubelet", &info.kubelet_version);
        if let Some(current) = current.filter(|current| kubelet.release > *current) {
            look.say(with(Finding::new("VER-002", "newer", Outcome::Fail, subject())).with("current", current));
        }
        let allowed = older_max(kubelet.release);
        // The control plane of the first hop comes before any node; those of later hops after the pools of the hop before.
        let first = current.filter(|current| *current < target).map_or(target, |current| current.next());
        let at = MinorVersion { minor: kubelet.release.minor + allowed + 1, ..kubelet.release };
        if kubelet.release.minors_behind(first) > allowed {
            let finding = with(Finding::new("VER-003", "too-old", Outcome::Fail, subject()));
            look.say(finding.with("target", first).with("allowed", allowed));
        } else if kubelet.release.minors_behind(target) > allowed {
            let finding = with(Finding::new("VER-003", "between", Outcome::Warn, subject()));
            look.say(finding.with("target", target).with("at", at));
        }
    }
    if minors.len() > 2 {
        let all = minors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        look.say(Finding::new("VER-012", "mixed", Outcome::Warn, Subject::cluster()).with("minors", all));
    }
}

/// dockershim left with 1.24. Kubelets of 1.35 and 1.36 run with containerd 1.6, as was measured, by a fallback that the
/// sources of 1.37 keep: it is a warning until the runtime itself is asked.
fn runtime(look: &mut Look<'_>, reported: &str, subject: Subject) {
    let target = look.question.target.minor;
    let major = |version: &str| version.trim_start_matches('v').split('.').next()?.parse::<u32>().ok();
    match reported.split_once("://") {
        Some(("docker", _)) if target >= 24 => {
            look.say(Finding::new("VER-010", "docker", Outcome::Fail, subject).with("runtime", reported));
        }
        Some(("containerd", version)) if major(version) == Some(1) && target >= 36 => {
            look.say(Finding::new("VER-010", "containerd-1", Outcome::Warn, subject).with("runtime", reported));
        }
        Some((name, version)) if name != "containerd" || major(version).is_some() => {}
        _ => {
            let why = format!("the version of its runtime is `{}`", excerpt(reported));
            look.say(Finding { subject, ..Finding::unknown("VER-010", why) });
        }
    }
}

/// The components that must be near the API server, each with its check.
const SKEWED: [(&str, &str); 3] =
    [("kube-proxy", "VER-004"), ("kube-controller-manager", "VER-005"), ("kube-scheduler", "VER-005")];

fn components(look: &mut Look<'_>) {
    let objects = look.objects;
    let Some(pods) = look.need(&objects.pods, &["VER-004", "VER-005"]) else { return };
    // Without the version of the cluster they are unknown as a whole.
    let (Some(current), target) = (look.question.current, look.question.target) else { return };
    let (mut seen, mut unread) = (BTreeSet::new(), BTreeSet::new());
    for pod in pods.iter().filter(|pod| pod.metadata.namespace == "kube-system" && !pod.has_ended()) {
        for container in &pod.spec.containers {
            // Mirrors name images as they like; kubeadm and all others name the container so.
            let names = [image_name(&container.image), container.name.as_str()];
            let Some(&(name, check)) = SKEWED.iter().find(|(name, _)| names.contains(name)) else { continue };
            let subject = super::owner_of(pod);
            let Some(Ok(version)) = image_tag(&container.image).map(KubernetesVersion::parse_reported) else {
                if unread.insert((name, subject.clone())) {
                    let why = format!("the image of {name} names no version: {}", excerpt(&container.image));
                    look.say(Finding { subject, ..Finding::unknown(check, why) });
                }
                continue;
            };
            let is_proxy = check == "VER-004";
            let (allowed, at) = if is_proxy { (older_max(version.release), target) } else { (1, current) };
            let (sentence, outcome) = if version.release > current {
                ("newer", Outcome::Fail)
            } else if version.release.minors_behind(at) > allowed {
                // The plan brings those of masters up together with their API servers.
                ("too-old", if is_proxy { Outcome::Fail } else { Outcome::Warn })
            } else {
                continue;
            };
            if seen.insert((name, version, sentence)) {
                let finding = Finding::new(check, sentence, outcome, subject).with("component", name);
                look.say(finding.with("version", version).with("current", current).with("target", target));
            }
        }
    }
}

fn instances(look: &mut Look<'_>) {
    let mut minors = BTreeSet::new();
    for instance in &look.snapshot.metrics {
        let subject = || Subject::new("ApiServer", "", &instance.address);
        match &instance.version {
            Read::Seen(version) => match KubernetesVersion::parse_reported(version) {
                Ok(version) => {
                    minors.insert(version.release);
                }
                Err(_) => {
                    let why = format!("its version is `{}`", excerpt(version));
                    look.findings.push(Finding { subject: subject(), ..Finding::unknown("VER-006", why) });
                }
            },
            Read::NotSeen(why) => {
                look.findings.push(Finding { subject: subject(), ..Finding::unknown("VER-006", why) })
            }
            Read::NotAsked => {}
        }
        match &instance.not_ready {
            Read::Seen(failing) => {
                for what in failing {
                    let what: String =
                        what.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect();
                    look.findings
                        .push(Finding::new("CP-001", "not-ready", Outcome::Fail, subject()).with("what", what));
                }
            }
            Read::NotSeen(why) => look.findings.push(Finding { subject: subject(), ..Finding::unknown("CP-001", why) }),
            Read::NotAsked => {}
        }
        if let Read::Seen(metrics) = &instance.metrics {
            let is_past = crate::tls::are_all_seen(look.snapshot);
            let rejected: f64 =
                metrics.all("apiserver_flowcontrol_rejected_requests_total").map(|sample| sample.value).sum();
            if rejected > 0.0 {
                let finding = Finding::new("CP-011", "rejected", Outcome::Warn, subject());
                look.findings.push(finding.with("count", rejected));
            }
            for (check, names) in [
                (
                    "WHK-005",
                    ["apiserver_webhooks_x509_missing_san_total", "apiserver_kube_aggregator_x509_missing_san_total"],
                ),
                (
                    "WHK-004",
                    [
                        "apiserver_webhooks_x509_insecure_sha1_total",
                        "apiserver_kube_aggregator_x509_insecure_sha1_total",
                    ],
                ),
            ] {
                let count: f64 = names.iter().flat_map(|name| metrics.all(name)).map(|sample| sample.value).sum();
                if count > 0.0 {
                    // The counters begin anew only with the API server: where every certificate of now was judged by
                    // itself they tell of earlier ones.
                    let (sentence, outcome) =
                        if is_past { ("counted-before", Outcome::Warn) } else { ("counted", Outcome::Fail) };
                    let finding = Finding::new(check, sentence, outcome, subject());
                    look.findings.push(finding.with("count", count));
                }
            }
        } else if let Read::NotSeen(why) = &instance.metrics {
            for check in ["CP-011", "WHK-004", "WHK-005"] {
                look.findings.push(Finding { subject: subject(), ..Finding::unknown(check, why) });
            }
        }
    }
    if minors.len() > 1 && minors.first().zip(minors.last()).is_some_and(|(first, last)| first.minors_behind(*last) > 1)
    {
        let all = minors.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        look.say(Finding::new("VER-006", "apart", Outcome::Fail, Subject::cluster()).with("minors", all));
    }
}

/// Who claims the cluster and has been silent for longer is gone: claims of paused upgrades are renewed too.
const GONE_SECONDS: i64 = 600;

/// An upgrade that runs, is paused, or was left.
fn upgrade_before(look: &mut Look<'_>) {
    let objects = look.objects;
    let Some(Some(lease)) = look.need(&objects.upgrade_lease, &["VER-012"]) else { return };
    let Some(upgrade) = lease.upgrade_under_way() else { return };
    let renewed = lease.spec.renew_time;
    let is_gone = renewed.is_none() || look.age_seconds(renewed) > GONE_SECONDS;
    let (sentence, outcome) = if is_gone { ("left", Outcome::Warn) } else { ("under-way", Outcome::Fail) };
    let since = renewed.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let finding = Finding::new("VER-012", sentence, outcome, Subject::cluster());
    look.say(finding.with("upgrade", upgrade).with("since", since));
}

fn masters(look: &mut Look<'_>) {
    let objects = look.objects;
    let Some(nodes) = look.need(&objects.nodes, &["CP-002", "CP-003"]) else { return };
    let masters: Vec<_> = nodes
        .iter()
        .filter(|node| MASTER_LABELS.iter().any(|label| node.metadata.labels.contains_key(*label)))
        .collect();
    for node in &masters {
        if !super::node::is_ready(node) {
            look.say(Finding::new("CP-002", "not-ready", Outcome::Fail, of("Node", &node.metadata)));
        }
    }
    match masters.len() {
        // A control plane that runs elsewhere has no nodes here.
        0 => {}
        1 => look.say(Finding::new("CP-003", "one", Outcome::Warn, Subject::cluster())),
        even if even % 2 == 0 => {
            look.say(Finding::new("CP-003", "even", Outcome::Warn, Subject::cluster()).with("count", even));
        }
        _ => {}
    }
}
