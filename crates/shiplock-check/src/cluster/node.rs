//! Nodes as the API server knows them, and what is pending on them.

use std::collections::{BTreeMap, BTreeSet};

use super::quantity::milli;
use super::{Look, image_name, image_tag, of, owner_of};
use crate::object::{Node, UpgradeLease, Volume};
use crate::report::{Finding, Outcome, Subject};
use crate::snapshot::Read;

/// A node must have room for more pods than this.
const FREE_POD_SLOTS_MIN: i64 = 3;
/// A pod may be pending for so long.
const PENDING_SECONDS_MAX: i64 = 300;

/// Operating systems that their makers do not mend any more, by the beginning of what the node reports.
const OLD_SYSTEMS: [&str; 6] =
    ["CentOS Linux 7", "CentOS Linux 8", "Ubuntu 16.04", "Ubuntu 18.04", "Debian GNU/Linux 9", "Debian GNU/Linux 10"];

pub(super) fn is_ready(node: &Node) -> bool {
    node.status.conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True")
}

pub(super) fn judge(look: &mut Look<'_>) {
    let objects = look.objects;
    if let Some(nodes) = look.need(&objects.nodes, &["NODE-001", "NODE-002", "NODE-005", "NODE-011"]) {
        for node in nodes {
            judge_node(look, node);
        }
    }
    quotas(look);
    let nodes = look.need(&objects.nodes, &["NODE-024", "NODE-025"]);
    let checks = ["NODE-024", "NODE-025", "CAP-004", "CAP-006", "CAP-009"];
    let Some(pods) = look.need(&objects.pods, &checks) else { return };
    let target = look.question.target;
    // The nodes that leave Docker with this upgrade.
    let leaves_docker: BTreeSet<&str> = nodes
        .into_iter()
        .flatten()
        .filter(|node| target.minor >= 24 && node.status.node_info.container_runtime_version.starts_with("docker://"))
        .map(|node| node.metadata.name.as_str())
        .collect();
    let mut mounts: BTreeMap<Subject, Outcome> = BTreeMap::new();
    let mut autoscalers: BTreeSet<Subject> = BTreeSet::new();
    let mut running: BTreeMap<&str, i64> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pod.has_ended()) {
        *running.entry(&pod.spec.node_name).or_default() += 1;
        if pod.status.phase == "Pending" && look.age_seconds(pod.metadata.creation_timestamp) > PENDING_SECONDS_MAX {
            look.say(Finding::new("CAP-009", "pending", Outcome::Warn, of("Pod", &pod.metadata)));
        }
        if pod.spec.volumes.iter().any(is_docker_socket) {
            let is_left = leaves_docker.contains(pod.spec.node_name.as_str());
            let outcome = if is_left { Outcome::Fail } else { Outcome::Warn };
            let worst = mounts.entry(owner_of(pod)).or_insert(outcome);
            *worst = outcome.max(*worst);
        }
        for container in &pod.spec.containers {
            if image_name(&container.image) == "cluster-autoscaler" && autoscalers.insert(owner_of(pod)) {
                let tag = image_tag(&container.image).unwrap_or("?");
                if !tag.trim_start_matches('v').starts_with(&format!("{target}.")) {
                    let finding = Finding::new("CAP-004", "differs", Outcome::Warn, owner_of(pod));
                    look.say(finding.with("version", tag).with("target", target));
                }
                look.say(Finding::new("CAP-006", "runs", Outcome::Warn, owner_of(pod)));
            }
        }
    }
    for (subject, outcome) in mounts {
        look.say(Finding::new("NODE-025", "mounts", outcome, subject));
    }
    for node in nodes.into_iter().flatten() {
        let said = node.status.allocatable.get("pods");
        let Some(slots) = said.and_then(|slots| milli(slots)).map(|slots| slots / 1000) else {
            let why = match said {
                Some(said) => format!("the number of pods that it takes is `{}`", short(said)),
                None => "it does not tell how many pods it takes".to_owned(),
            };
            look.say(Finding { subject: of("Node", &node.metadata), ..Finding::unknown("NODE-024", why) });
            continue;
        };
        let free = slots - running.get(node.metadata.name.as_str()).copied().unwrap_or_default();
        if free < FREE_POD_SLOTS_MIN {
            look.say(Finding::new("NODE-024", "full", Outcome::Fail, of("Node", &node.metadata)).with("free", free));
        }
    }
}

/// Whether a volume is the socket of Docker, or of the kubelet's own way to it.
fn is_docker_socket(volume: &Volume) -> bool {
    let path = volume.detail.trim_end_matches('/');
    let path = path.strip_prefix("/var").unwrap_or(path);
    volume.source == "hostPath" && ["/run/docker.sock", "/run/dockershim.sock"].contains(&path)
}

/// Whether a quota of this resource can keep a new pod out; what claims take of it stays with them.
fn is_of_pods(resource: &str) -> bool {
    let begins = ["requests.", "limits.", "hugepages-"].iter().any(|begin| resource.starts_with(begin));
    let is_named = matches!(resource, "pods" | "count/pods" | "cpu" | "memory" | "ephemeral-storage");
    is_named || (begins && resource != "requests.storage")
}

fn quotas(look: &mut Look<'_>) {
    let objects = look.objects;
    let Some(quotas) = look.need(&objects.quotas, &["CAP-010"]) else { return };
    for quota in quotas {
        for (name, hard) in quota.status.hard.iter().filter(|(name, _)| is_of_pods(name)) {
            let subject = of("ResourceQuota", &quota.metadata);
            let used = quota.status.used.get(name).map_or("0", String::as_str);
            match (milli(used), milli(hard)) {
                // A quota of nothing was meant so.
                (Some(_), Some(0)) => {}
                (Some(spent), Some(bound)) if spent >= bound => {
                    let finding = Finding::new("CAP-010", "used-up", Outcome::Warn, subject);
                    look.say(finding.with("resource", name).with("hard", hard));
                }
                (Some(_), Some(_)) => {}
                _ => {
                    let why = format!("{name} is `{}` of `{}`", short(used), short(hard));
                    look.say(Finding { subject, ..Finding::unknown("CAP-010", why) });
                }
            }
        }
    }
}

fn judge_node(look: &mut Look<'_>, node: &Node) {
    let subject = || of("Node", &node.metadata);
    let ready = node.status.conditions.iter().find(|condition| condition.r#type == "Ready");
    match ready {
        Some(condition) if condition.status == "True" => {}
        Some(condition) if condition.message.contains("PLEG is not healthy") => {
            look.say(
                Finding::new("NODE-002", "pleg", Outcome::Fail, subject()).with("message", short(&condition.message)),
            );
        }
        Some(condition) => {
            let finding = Finding::new("NODE-001", "not-ready", Outcome::Fail, subject());
            look.say(finding.with("message", short(&condition.message)));
        }
        None => look
            .say(Finding { subject: subject(), ..Finding::unknown("NODE-001", "the node reports no condition Ready") }),
    }
    if node.spec.unschedulable {
        let owner = node.metadata.annotations.owner();
        let finding = |sentence| Finding::new("NODE-001", sentence, Outcome::Warn, subject());
        look.say(match (owner, &look.objects.upgrade_lease) {
            (None, _) => finding("cordoned"),
            (Some(owner), Read::Seen(lease))
                if lease.as_ref().and_then(UpgradeLease::upgrade_under_way) != Some(owner) =>
            {
                finding("left").with("upgrade", owner)
            }
            (Some(owner), _) => finding("in-work").with("upgrade", owner),
        });
    }
    for condition in &node.status.conditions {
        let is_pressure = matches!(condition.r#type.as_str(), "MemoryPressure" | "DiskPressure" | "PIDPressure");
        if is_pressure && condition.status == "True" {
            look.say(Finding::new("NODE-011", "pressure", Outcome::Fail, subject()).with("what", &condition.r#type));
        }
    }
    let image = &node.status.node_info.os_image;
    if OLD_SYSTEMS.iter().any(|old| image.starts_with(old)) {
        look.say(Finding::new("NODE-005", "old", Outcome::Warn, subject()).with("image", image));
    }
}

fn short(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(200).collect()
}
