//! The control plane and etcd, as far as pods, metrics and events show them.

use std::collections::BTreeMap;

use shiplock_core::catalogue::Catalogue;
use shiplock_core::version::KubernetesVersion;

use super::components::flags;
use super::{Look, of};
use crate::object::{Container, Pod, image_name, image_tag};
use crate::report::{Finding, Outcome, Subject};
use crate::snapshot::Read;

/// etcd 3.5 before this patch may not go to 3.6: <https://etcd.io/blog/2025/upgrade_from_3.5_to_3.6_issue/>.
const ETCD_3_5_PATCH_MIN: u32 = 26;
/// What etcd allows where no flag says otherwise: 2 GiB.
const ETCD_QUOTA_BYTES_DEFAULT: f64 = 2_147_483_648.0;
/// Shares of the quota from which on it is told, and from which on it blocks.
const ETCD_SHARES: (f64, f64) = (0.80, 0.95);
/// Writes to etcd should take no longer, in 99 of 100 cases; the alarm of etcd's own mixin.
const ETCD_SECONDS_MAX: f64 = 0.15;
/// Fewer writes say nothing about latency.
const ETCD_WRITES_MIN: f64 = 1000.0;
/// So many warnings about one object within an hour are more than the noise of a healthy cluster.
const WARNINGS_MIN: i64 = 20;
const WARNINGS_SECONDS: i64 = 3600;

pub(super) fn judge(look: &mut Look<'_>) {
    etcd(look);
    encryption(look);
    storage_versions(look);
    warnings(look);
}

/// The containers of a component in kube-system that run from its image, with their pods.
fn component<'a>(pods: &'a [Pod], name: &'a str) -> impl Iterator<Item = (&'a Pod, &'a Container)> {
    pods.iter()
        .filter(|pod| pod.metadata.namespace == "kube-system" && pod.is_static() && !pod.has_ended())
        .flat_map(|pod| pod.spec.containers.iter().map(move |container| (pod, container)))
        .filter(move |(_, container)| image_name(&container.image) == name)
}

fn etcd(look: &mut Look<'_>) {
    let objects = look.objects;
    let pods = look.need(&objects.pods, &["CP-004", "CP-005", "VER-009"]);
    let members: Vec<_> = pods.map(|pods| component(pods, "etcd").collect()).unwrap_or_default();
    if pods.is_some() && members.is_empty() {
        for check in ["CP-004", "VER-009"] {
            look.skip(check, "absent:etcd");
        }
    }
    for (pod, container) in &members {
        if !pod.is_ready() {
            look.say(Finding::new("CP-004", "not-ready", Outcome::Fail, of("Pod", &pod.metadata)));
        }
        etcd_version(look, pod, container);
    }
    let quota = members.iter().find_map(|(_, container)| {
        let text = flags(container).into_iter().find(|(flag, _)| *flag == "quota-backend-bytes")?.1;
        text.parse::<f64>().ok().filter(|quota| *quota > 0.0)
    });
    etcd_metrics(look, quota.unwrap_or(ETCD_QUOTA_BYTES_DEFAULT), !members.is_empty());
}

fn etcd_version(look: &mut Look<'_>, pod: &Pod, container: &Container) {
    let catalogue = Catalogue::shipped();
    let wanted = catalogue.releases.iter().find(|release| release.minor == look.question.target);
    let Some(wanted) = wanted.map(|release| release.components.etcd.as_str()) else { return };
    let subject = of("Pod", &pod.metadata);
    let tag = image_tag(&container.image).unwrap_or_default();
    let parsed = |text: &str| KubernetesVersion::parse_reported(text).ok();
    // `3.6.5-0`: the number after the dash is the image's own.
    let number = tag.split('-').next().unwrap_or_default();
    let (Some(runs), Some(goes)) = (parsed(number), parsed(wanted)) else {
        let why = format!("the tag `{tag}` of its image is no version");
        return look.say(Finding { subject, ..Finding::unknown("VER-009", why) });
    };
    let with = |finding: Finding| finding.with("version", number).with("wanted", wanted);
    if runs.release.major != goes.release.major || runs.release.minors_behind(goes.release) > 1 {
        look.say(with(Finding::new("VER-009", "several", Outcome::Fail, subject)));
    } else if runs.release < goes.release && runs.release.minor == 5 && runs.patch < ETCD_3_5_PATCH_MIN {
        let least = format!("3.5.{ETCD_3_5_PATCH_MIN}");
        look.say(with(Finding::new("VER-009", "patch", Outcome::Fail, subject)).with("least", least));
    }
}

fn etcd_metrics(look: &mut Look<'_>, quota: f64, is_quota_known: bool) {
    for instance in &look.snapshot.metrics {
        let subject = || Subject::new("ApiServer", "", &instance.address);
        let metrics = match &instance.metrics {
            Read::Seen(metrics) => metrics,
            Read::NotSeen(why) => {
                for check in ["CP-005", "CP-006"] {
                    look.findings.push(Finding { subject: subject(), ..Finding::unknown(check, why) });
                }
                continue;
            }
            Read::NotAsked => continue,
        };
        let size = metrics.all("apiserver_storage_size_bytes").map(|sample| sample.value).fold(0.0, f64::max);
        let share = size / quota;
        if share >= ETCD_SHARES.0 {
            let outcome = if share >= ETCD_SHARES.1 && is_quota_known { Outcome::Fail } else { Outcome::Warn };
            let mebibytes = |bytes: f64| format!("{:.0} MiB", bytes / 1_048_576.0);
            let finding = Finding::new("CP-005", "large", outcome, subject());
            look.findings.push(finding.with("size", mebibytes(size)).with("quota", mebibytes(quota)));
        }
        if let Some(seconds) = slowest_of_100(metrics) {
            let finding = Finding::new("CP-006", "slow", Outcome::Warn, subject());
            look.findings.push(finding.with("milliseconds", format!("{:.0}", seconds * 1000.0)));
        }
    }
}

/// The bound below which 99 of 100 writes stay, where that is too long.
fn slowest_of_100(metrics: &crate::api::metrics::Metrics) -> Option<f64> {
    let mut buckets: Vec<(f64, f64)> = metrics
        .all(crate::api::metrics::ETCD_WRITES)
        .filter_map(|sample| Some((sample.labels.get("le")?.replace("+Inf", "inf").parse().ok()?, sample.value)))
        .collect();
    buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
    let all = buckets.last()?.1;
    if all < ETCD_WRITES_MIN {
        return None;
    }
    let bound = buckets.iter().find(|(_, count)| *count >= all * 0.99)?.0;
    (bound > ETCD_SECONDS_MAX).then_some(if bound.is_finite() { bound } else { 60.0 })
}

/// KMS version 1 is off from 1.29 on unless a gate says otherwise, and goes with that gate.
fn encryption(look: &mut Look<'_>) {
    let objects = look.objects;
    let Some(pods) = look.need(&objects.pods, &["CP-012"]) else { return };
    let servers: Vec<_> = component(pods, "kube-apiserver").collect();
    if servers.is_empty() {
        return look.skip("CP-012", "absent:API server");
    }
    for (pod, container) in servers {
        let flags = flags(container);
        let value = |name: &str| flags.iter().find(|(flag, _)| *flag == name).map(|(_, value)| *value);
        if value("encryption-provider-config").is_none() {
            continue;
        }
        let subject = of("Pod", &pod.metadata);
        if value("feature-gates").is_some_and(|gates| gates.split(',').any(|gate| gate.trim() == "KMSv1=true")) {
            look.say(Finding::new("CP-012", "kms-1", Outcome::Warn, subject));
        } else if look.question.target.minor >= 29 {
            match look.question.current {
                Some(current) if current.minor >= 29 => {}
                Some(_) => look.say(Finding::new("CP-012", "kms-1-off", Outcome::Warn, subject)),
                None => {
                    look.say(Finding { subject, ..Finding::unknown("CP-012", "the API server's version is not known") })
                }
            }
        }
    }
}

fn storage_versions(look: &mut Look<'_>) {
    let objects = look.objects;
    for definition in look.need(&objects.definitions, &["CP-013"]).into_iter().flatten() {
        let stored = &definition.status.stored_versions;
        let storage = definition.spec.versions.iter().find(|version| version.storage).map(|version| &version.name);
        // What the definition does not have any more is ADD-003's.
        let has = |name: &String| definition.spec.versions.iter().any(|version| version.name == *name);
        let old: Vec<&str> =
            stored.iter().filter(|name| Some(*name) != storage && has(name)).map(String::as_str).collect();
        if let (Some(storage), false) = (storage, old.is_empty()) {
            let subject = of("CustomResourceDefinition", &definition.metadata);
            let finding = Finding::new("CP-013", "old", Outcome::Warn, subject);
            look.say(finding.with("versions", old.join(", ")).with("storage", storage));
        }
    }
}

fn warnings(look: &mut Look<'_>) {
    let objects = look.objects;
    let mut counts: BTreeMap<(Subject, &str), i64> = BTreeMap::new();
    for warning in look.need(&objects.warnings, &["CP-014"]).into_iter().flatten() {
        let series = warning.series.as_ref();
        let last =
            series.and_then(|series| series.last_observed_time).or(warning.last_timestamp).or(warning.event_time);
        if last.is_some() && look.age_seconds(last) <= WARNINGS_SECONDS {
            let object = &warning.involved_object;
            let subject = Subject::new(&object.kind, "kube-system", &object.name);
            let count = series.map_or(warning.count, |series| series.count).max(1);
            *counts.entry((subject, warning.reason.as_str())).or_default() += count;
        }
    }
    for ((subject, reason), count) in counts.into_iter().filter(|(_, count)| *count >= WARNINGS_MIN) {
        let finding = Finding::new("CP-014", "many", Outcome::Warn, subject);
        look.say(finding.with("reason", reason).with("count", count));
    }
}
