//! What an API server counts of itself, as far as checks ask for it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shiplock_core::version::MinorVersion;

use super::succeeded_by;
use crate::lifecycle::Table;
use crate::question::Question;
use crate::report::{Finding, Outcome, Subject};

/// The metrics that are kept; every other line is passed over.
const KEPT: &[&str] = &[
    "apiserver_requested_deprecated_apis",
    "apiserver_webhooks_x509_missing_san_total",
    "apiserver_webhooks_x509_insecure_sha1_total",
    "apiserver_kube_aggregator_x509_missing_san_total",
    "apiserver_kube_aggregator_x509_insecure_sha1_total",
    "apiserver_flowcontrol_rejected_requests_total",
    "apiserver_storage_objects",
    "apiserver_resource_objects",
    "apiserver_storage_size_bytes",
    "process_start_time_seconds",
    CACHE_FILLED,
    CACHE_TAKES_IN,
];
/// How often the cache of a resource was filled.
const CACHE_FILLED: &str = "apiserver_watch_cache_initializations_total";
/// How many changes the cache of a resource took in since the process started.
const CACHE_TAKES_IN: &str = "apiserver_watch_cache_events_received_total";
/// How long writes to etcd take, over all resources: bucket by bucket, by its bound.
pub const ETCD_WRITES: &str = "etcd_request_duration_seconds_bucket";
/// The requests to etcd that write.
const WRITES: [&str; 3] = ["operation=\"create\"", "operation=\"update\"", "operation=\"delete\""];
/// No API server has more lines of the metrics that are kept.
const SAMPLES_MAX: usize = 20_000;

/// The metrics of one instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The address of the instance.
    pub address: String,
    /// Name, labels, value.
    pub samples: Vec<Sample>,
}

/// One value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The name of the metric.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

impl Metrics {
    /// Takes a line of the text format if a check asks for it.
    pub fn take(&mut self, line: &str) {
        let end = line.find(['{', ' ']).unwrap_or(line.len());
        if &line[..end] == ETCD_WRITES {
            return self.take_etcd(line);
        }
        if !KEPT.contains(&&line[..end]) || self.samples.len() >= SAMPLES_MAX {
            return;
        }
        let (labels, rest) = match line[end..].strip_prefix('{').and_then(|rest| rest.rsplit_once('}')) {
            Some((labels, rest)) => (read_labels(labels), rest),
            None => (BTreeMap::new(), &line[end..]),
        };
        if let Some(Ok(value)) = rest.split_whitespace().next().map(str::parse) {
            self.samples.push(Sample { name: line[..end].to_owned(), labels, value });
        }
    }

    /// Adds a bucket of one resource to those of all: there are thousands.
    fn take_etcd(&mut self, line: &str) {
        if !WRITES.iter().any(|operation| line.contains(operation)) {
            return;
        }
        let Some((labels, rest)) = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')) else { return };
        let bound = read_labels(labels).remove("le").filter(|bound| bound == "+Inf" || bound.parse::<f64>().is_ok());
        let (Some(bound), Some(Ok(value))) = (bound, rest.split_whitespace().next().map(str::parse::<f64>)) else {
            return;
        };
        let is_it = |sample: &&mut Sample| sample.name == ETCD_WRITES && sample.labels.get("le") == Some(&bound);
        if let Some(known) = self.samples.iter_mut().find(is_it) {
            known.value += value;
        } else if self.samples.len() < SAMPLES_MAX {
            let labels = BTreeMap::from([("le".to_owned(), bound)]);
            self.samples.push(Sample { name: ETCD_WRITES.to_owned(), labels, value });
        }
    }

    /// The values of a metric.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }

    /// The values of a metric for one resource. Its group is a label of its own, or part of the name, as in older API
    /// servers.
    pub fn of_resource<'a>(
        &'a self,
        name: &'a str,
        group: &'a str,
        resource: &'a str,
    ) -> impl Iterator<Item = &'a Sample> {
        let whole = format!("{resource}.{group}");
        self.all(name).filter(move |sample| {
            let label = |name: &str| sample.labels.get(name).map_or("", String::as_str);
            label("resource") == whole || (label("resource") == resource && label("group") == group)
        })
    }

    /// Where the API server's own cache of a resource stands: the same text twice means that the same process took in
    /// nothing of the resource in between. None where it has no cache of it, or does not tell.
    pub fn cache_mark(&self, group: &str, resource: &str) -> Option<String> {
        let value = |name| self.of_resource(name, group, resource).next().map(|sample| sample.value);
        // Without a change a resource is not among those that are counted; none of them is where nothing is counted.
        let counts = self.samples.len() < SAMPLES_MAX && self.all(CACHE_TAKES_IN).next().is_some();
        let started = self.all("process_start_time_seconds").next().filter(|_| counts)?.value;
        let (filled, taken_in) = (value(CACHE_FILLED)?, value(CACHE_TAKES_IN).unwrap_or(0.0));
        Some(format!("{started} {filled} {taken_in}"))
    }

    /// When the process started.
    pub fn started(&self) -> Option<Timestamp> {
        #[expect(clippy::cast_possible_truncation, reason = "a time in seconds")]
        let second = |sample: &Sample| Timestamp::from_second(sample.value as i64).ok();
        self.all("process_start_time_seconds").find_map(second)
    }
}

/// `a="b",c="d"`; what is escaped is of no interest here and stays so.
fn read_labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let Some((value, after)) = after.split_once('"') else { break };
        labels.insert(name.trim_start_matches(',').to_owned(), value.to_owned());
        rest = after;
    }
    labels
}

/// Requests to versions that are gone at the target or one release later.
pub fn judge(metrics: &Metrics, question: &Question) -> Vec<Finding> {
    let table = Table::shipped();
    let since = metrics.started();
    let sentence = if since.is_some() { "requested" } else { "requested-since-start" };
    let mut findings = Vec::new();
    for sample in metrics.all("apiserver_requested_deprecated_apis").filter(|sample| sample.value > 0.0) {
        let label = |name: &str| sample.labels.get(name).map_or("", String::as_str);
        let Ok(removed) = label("removed_release").parse::<MinorVersion>() else { continue };
        if removed > question.target.next() {
            continue;
        }
        let (group, version, resource) = (label("group"), label("version"), label("resource"));
        let life = table.find_resource(group, version, resource);
        let successor = life.and_then(|life| table.successor(life, question.target.max(removed)));
        let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let subject = Subject::new("Client", "", &format!("of {group_version} {resource}"));
        let finding = Finding::new("API-008", sentence, Outcome::Warn, subject)
            .with("api", format!("{group_version} {resource}"))
            .with("removed", removed);
        let finding = since.into_iter().fold(finding, |finding, since| finding.with("since", since));
        let finding = succeeded_by(finding, successor.map(|found| found.api_version));
        findings.push(finding.seen("API-008", format!("API server {}", metrics.address)));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_that_checks_ask_for_are_kept() {
        let mut metrics = Metrics::default();
        for line in [
            "# HELP apiserver_requested_deprecated_apis x",
            "apiserver_requested_deprecated_apis{group=\"storage.k8s.io\",removed_release=\"1.37\",resource=\"volumeattributesclasses\",subresource=\"\",version=\"v1beta1\"} 1",
            "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"\",resource=\"endpoints\",subresource=\"\",version=\"v1\"} 1",
            "apiserver_requested_deprecated_apis_other 1",
            "process_start_time_seconds 1.7e+09",
            "apiserver_storage_objects{resource=\"x",
            "",
        ] {
            metrics.take(line);
        }
        assert_eq!(metrics.samples.len(), 3);
        assert_eq!(metrics.started().unwrap().as_second(), 1_700_000_000);
        let question = |minor| Question {
            target: MinorVersion { major: 1, minor },
            current: None,
            profile: crate::question::Profile::Default,
            now: Timestamp::UNIX_EPOCH,
            max_parallel: 10,
        };
        assert_eq!(judge(&metrics, &question(37)).len(), 1);
        assert_eq!(judge(&metrics, &question(36)).len(), 1);
        assert_eq!(judge(&metrics, &question(35)).len(), 0);
        // Where an API server does not tell when it started, no words stand in for a time.
        metrics.samples.retain(|sample| sample.name != "process_start_time_seconds");
        let [finding] = &judge(&metrics, &question(37))[..] else { panic!() };
        let text = finding.text(shiplock_core::language::Language::Zh);
        assert!(text.starts_with("自该 API server 启动以来有人请求过 storage.k8s.io/v1beta1"), "{text}");
    }

    #[test]
    fn a_cache_is_where_it_was_only_in_the_same_process_with_the_same_filling_and_the_same_changes() {
        let mark = |lines: &[&str], group: &str, resource: &str| {
            let mut metrics = Metrics::default();
            lines.iter().for_each(|line| metrics.take(line));
            metrics.cache_mark(group, resource)
        };
        let lines = [
            "process_start_time_seconds 1.7e+09",
            "apiserver_watch_cache_initializations_total{group=\"\",resource=\"pods\"} 1",
            "apiserver_watch_cache_events_received_total{group=\"\",resource=\"pods\"} 12",
            "apiserver_watch_cache_initializations_total{group=\"apps\",resource=\"deployments\"} 2",
            // Older API servers name the group within the resource.
            "apiserver_watch_cache_initializations_total{resource=\"jobs.batch\"} 1",
        ];
        assert_eq!(mark(&lines, "", "pods").as_deref(), Some("1700000000 1 12"));
        assert_eq!(mark(&lines, "apps", "deployments").as_deref(), Some("1700000000 2 0"), "nothing changed yet");
        assert_eq!(mark(&lines, "batch", "jobs").as_deref(), Some("1700000000 1 0"));
        assert_eq!(mark(&lines, "", "deployments"), None, "another group");
        assert_eq!(mark(&lines, "", "events"), None, "it has no cache");
        assert_eq!(mark(&lines[1..], "", "pods"), None, "since when it runs is not known");
        let uncounted = [lines[0], lines[1], lines[3]];
        assert_eq!(mark(&uncounted, "", "pods"), None, "no change of anything is counted");
    }
}
