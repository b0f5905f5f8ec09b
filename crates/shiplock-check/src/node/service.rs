//! Kubelet, runtime, ports, proxies, mirror, certificates of the kubelet.

use std::net::IpAddr;

use shiplock_core::facts::examination::{KubeletHealth, NodeExamination};

use super::NodeLook;
use crate::report::Outcome;

/// A runtime that lists slower than this is told; one that takes so much longer is on its way to a PLEG that is not
/// healthy.
const LIST_WARN_MILLISECONDS: u64 = 2_000;
const LIST_FAIL_MILLISECONDS: u64 = 10_000;
/// The conditions without which a kubelet holds its runtime for not ready, see
/// <https://github.com/kubernetes/kubernetes/blob/v1.36.0/pkg/kubelet/kubelet.go> (`updateRuntimeUp`). What else a runtime
/// tells, such as deprecation warnings of containerd 2, is no illness.
const CONDITIONS_REQUIRED: [&str; 2] = ["RuntimeReady", "NetworkReady"];
/// A kubelet that ends and is started again so often in 20 minutes is in a loop.
const STARTS_MAX: u32 = 5;
/// Who may listen where; names of processes have at most 15 characters.
const OWNERS: [(u16, &str); 5] =
    [(2379, "etcd"), (2380, "etcd"), (10250, "kubelet"), (10257, "kube-controller"), (10259, "kube-scheduler")];
/// A kubelet renews its certificates long before this many days are left.
const CERTIFICATE_DAYS_MIN: i64 = 30;

pub(super) fn judge(look: &mut NodeLook<'_>, found: &NodeExamination) {
    match &found.runtime {
        Err(why) => look.say(look.about("NODE-017", "silent", Outcome::Fail).with("why", why)),
        Ok(runtime) => {
            for why in &runtime.not_ready {
                let is_ill = CONDITIONS_REQUIRED.iter().any(|required| why.split(':').next() == Some(required));
                let finding = if is_ill {
                    look.about("NODE-017", "not-ready", Outcome::Fail)
                } else {
                    look.about("NODE-017", "remarks", Outcome::Warn)
                };
                look.say(finding.with("why", why));
            }
            if runtime.list_milliseconds > LIST_WARN_MILLISECONDS {
                let is_ill = runtime.list_milliseconds > LIST_FAIL_MILLISECONDS;
                let finding = look.about("NODE-017", "slow", if is_ill { Outcome::Fail } else { Outcome::Warn });
                look.say(finding.with("milliseconds", runtime.list_milliseconds));
            }
        }
    }
    let checks = ["NODE-002", "NODE-007", "NODE-018", "NODE-022"];
    if let Some(kubelet) = look.need(&found.kubelet, &checks) {
        judge_kubelet(look, kubelet);
        proxies(look, found, &kubelet.api_server_host);
    }
    for owner in look.need(&found.ports, &["NODE-020"]).into_iter().flatten() {
        let expected = OWNERS.iter().find(|(port, _)| *port == owner.port).map(|(_, name)| *name);
        if expected.is_some_and(|expected| expected != owner.process) {
            let finding = look.about("NODE-020", "foreign", Outcome::Fail).with("port", owner.port);
            look.say(finding.with("process", &owner.process));
        }
    }
    if let Some(Err(why)) = &found.mirror {
        look.say(look.about("NODE-019", "mirror", Outcome::Fail).with("why", why));
    }
    for image in &found.images {
        // Where the mirror itself is away that is said once.
        if let (Err(why), Some(Ok(_))) = (&image.available, &found.mirror) {
            let finding = look.about("NODE-019", "image", Outcome::Fail).with("image", &image.reference);
            look.say(finding.with("why", why));
        }
    }
    let now = look.question.now.as_second();
    for certificate in found.certificates.iter().filter(|found| found.path.starts_with("/var/lib/kubelet/")) {
        let days = (certificate.ends_at.as_second() - now).div_euclid(86400);
        if days < CERTIFICATE_DAYS_MIN {
            let outcome = if days < 0 { Outcome::Fail } else { Outcome::Warn };
            let finding = look.about("WHK-015", "ends", outcome).with("path", &certificate.path);
            look.say(finding.with("days", days));
        }
    }
}

fn judge_kubelet(look: &mut NodeLook<'_>, kubelet: &KubeletHealth) {
    if let Some(message) = kubelet.pleg.as_ref().filter(|_| !is_told_by_the_cluster(look)) {
        look.say(look.about("NODE-002", "pleg", Outcome::Fail).with("message", message));
    }
    if let Some(why) = &kubelet.ill {
        look.say(look.about("NODE-018", "ill", Outcome::Fail).with("why", why));
    }
    if kubelet.starts >= STARTS_MAX {
        look.say(look.about("NODE-018", "loop", Outcome::Fail).with("starts", kubelet.starts));
    }
    for edit in look.need(&kubelet.edits, &["NODE-007"]).into_iter().flatten() {
        let finding = look.about("NODE-007", "edited", Outcome::Fail).with("path", &edit.path);
        look.say(finding.with("fields", changed_lines(&edit.difference)));
    }
}

/// The node's own condition says it already.
fn is_told_by_the_cluster(look: &NodeLook<'_>) -> bool {
    let nodes = look.snapshot.objects.nodes.seen().into_iter().flatten();
    nodes
        .filter(|node| node.metadata.name == look.node)
        .any(|node| node.status.conditions.iter().any(|condition| condition.message.contains("PLEG is not healthy")))
}

/// The lines that a difference adds, without its heads.
pub(super) fn changed_lines(difference: &str) -> String {
    let added = difference.lines().filter(|line| line.starts_with('+') && !line.starts_with("+++"));
    let lines: Vec<&str> = added.map(|line| line[1..].trim()).collect();
    lines.join(", ").chars().take(300).collect()
}

fn proxies(look: &mut NodeLook<'_>, found: &NodeExamination, api_server_host: &str) {
    if api_server_host.is_empty() {
        return;
    }
    for proxy in found.proxies.iter().filter(|proxy| !goes_around(&proxy.except, api_server_host)) {
        let finding = look.about("NODE-022", "covers", Outcome::Warn).with("service", &proxy.service);
        look.say(finding.with("variable", &proxy.variable).with("host", api_server_host));
    }
}

/// Whether `NO_PROXY` names a host: itself, a domain that it is in, or a range of addresses.
fn goes_around(except: &str, host: &str) -> bool {
    let address: Option<IpAddr> = host.parse().ok();
    except.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let in_range = || {
            let (network, length) = entry.split_once('/')?;
            let (network, length): (IpAddr, u32) = (network.parse().ok()?, length.parse().ok()?);
            let same = |one: u128, other: u128, bits: u32| {
                length <= bits && (length == 0 || one >> (bits - length) == other >> (bits - length))
            };
            match (network, address?) {
                (IpAddr::V4(network), IpAddr::V4(own)) => {
                    Some(same(network.to_bits().into(), own.to_bits().into(), 32))
                }
                (IpAddr::V6(network), IpAddr::V6(own)) => Some(same(network.to_bits(), own.to_bits(), 128)),
                _ => Some(false),
            }
        };
        let domain = entry.trim_start_matches('.');
        entry == "*" || host == domain || host.ends_with(&format!(".{domain}")) || in_range().unwrap_or(false)
    })
}

#[cfg(test)]
mod tests {
    use super::goes_around;

    #[test]
    fn no_proxy_names_hosts_domains_and_ranges() {
        for (except, host, expected) in [
            ("", "10.0.0.1", false),
            ("*", "10.0.0.1", true),
            ("localhost, 10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/16", "10.1.2.3", false),
            ("0.0.0.0/0", "10.1.2.3", true),
            ("fd00::/8", "fd00::1", true),
            ("10.0.0.0/99", "10.0.0.1", false),
            (".example.com", "api.example.com", true),
            ("example.com", "badexample.com", false),
            ("api.example.com", "api.example.com", true),
        ] {
            assert_eq!(goes_around(except, host), expected, "{except} {host}");
        }
    }
}
