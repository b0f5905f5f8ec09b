//! The audit log: the only source that names the caller.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Deserialize;

use shiplock_core::version::{KubernetesVersion, MinorVersion};

use super::succeeded_by;
use crate::lifecycle::{Standing, Table};
use crate::question::{Profile, Question};
use crate::report::{Finding, Outcome, Subject};

/// Kubernetes' own controllers that touch every version that is served; they follow the cluster by themselves.
const OWN_USERS: &[&str] = &[
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
    "system:serviceaccount:kube-system:resourcequota-controller",
    "system:serviceaccount:openshift-kube-controller-manager:cluster-policy-controller",
];
/// No log names more callers that must be told apart.
const CALLERS_MAX: usize = 10_000;
/// A caller that was last seen so long before the check does not block under the strict profile.
const RECENT_SECONDS: i64 = 24 * 3600;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(borrow, default)]
    stage: Cow<'a, str>,
    #[serde(borrow, default)]
    verb: Cow<'a, str>,
    #[serde(borrow, default)]
    user: User<'a>,
    #[serde(borrow, default)]
    impersonated_user: Option<User<'a>>,
    #[serde(borrow, default, rename = "sourceIPs")]
    source_ips: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow, default)]
    user_agent: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    object_ref: Option<ObjectReference<'a>>,
    #[serde(default)]
    request_received_timestamp: Option<Timestamp>,
}

/// What an API server sends to an audit webhook.
#[derive(Deserialize)]
struct EventList<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    items: Vec<Event<'a>>,
}

/// A line of output as Docker keeps it.
#[derive(Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow)]
    log: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
struct User<'a> {
    #[serde(borrow, default)]
    username: Cow<'a, str>,
}

impl Event<'_> {
    /// Who asked, and as whom where that is somebody else.
    fn caller(&self) -> Cow<'_, str> {
        match &self.impersonated_user {
            Some(user) => Cow::Owned(format!("{} acting as {}", self.user.username, user.username)),
            None => Cow::Borrowed(self.user.username.as_ref()),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectReference<'a> {
    #[serde(borrow, default)]
    resource: Cow<'a, str>,
    #[serde(borrow, default)]
    api_group: Cow<'a, str>,
    #[serde(borrow, default)]
    api_version: Cow<'a, str>,
}

#[derive(Debug, Default)]
struct Calls {
    count: u64,
    verbs: BTreeSet<String>,
    last: Option<Timestamp>,
    address: String,
}

/// Beginnings of the names of users that are Kubernetes' own; their watches begin anew by themselves.
const OWN_WATCHERS: [&str; 4] =
    ["system:apiserver", "system:kube-", "system:node:", "system:serviceaccount:kube-system:"];
/// A finding names so many programs.
const WATCHERS_NAMED_MAX: usize = 5;

/// What a log says, line by line.
#[derive(Debug, Default)]
pub struct AuditLog {
    /// Position of the kind in the table, user, user agent.
    callers: BTreeMap<(usize, String, String), Calls>,
    /// Version of a kubectl, and who uses it.
    kubectls: BTreeMap<(MinorVersion, String), u64>,
    /// User and program that watch.
    watchers: BTreeMap<(String, String), u64>,
    lines: u64,
    events: u64,
    bad: Option<(u64, String)>,
}

impl AuditLog {
    /// How many lines were read.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Takes a line.
    pub fn take(&mut self, line: &[u8], question: &Question) {
        self.lines += 1;
        let line = line.trim_ascii();
        if line.is_empty() {
            return;
        }
        if line.first() != Some(&b'{') || line.last() != Some(&b'}') {
            self.note_bad("it is not a JSON object");
            return;
        }
        let has = |text: &[u8], word: &str| memchr::memmem::find(text, word.as_bytes()).is_some();
        // An event of somebody who listed events holds this word too.
        if has(line, "\"EventList\"")
            && let Ok(list) = serde_json::from_slice::<EventList<'_>>(line)
            && list.kind == "EventList"
        {
            self.events += list.items.len() as u64;
            return list.items.iter().for_each(|event| self.count(event, question));
        }
        // Every event has a stage.
        let stage = "\"stage\"";
        if has(line, stage) {
            return self.take_event(line, question);
        }
        match serde_json::from_slice::<Wrapped<'_>>(line) {
            Ok(Wrapped { log }) if has(log.as_bytes(), stage) => self.take_event(log.trim().as_bytes(), question),
            _ => self.note_bad("it is no audit event"),
        }
    }

    fn take_event(&mut self, line: &[u8], question: &Question) {
        self.events += 1;
        // Most lines are of versions that stay.
        let may_matter = ["beta", "alpha", "k8s.io/deprecated", "\"verb\":\"watch\"", "\"userAgent\":\"kubectl/v"];
        if !may_matter.iter().any(|word| memchr::memmem::find(line, word.as_bytes()).is_some()) {
            return;
        }
        match serde_json::from_slice::<Event<'_>>(line) {
            Ok(event) => self.count(&event, question),
            Err(error) => self.note_bad(&format!("column {} is not as an audit event has it", error.column())),
        }
    }

    fn note_bad(&mut self, why: &str) {
        self.bad.get_or_insert((self.lines, why.to_owned()));
    }

    fn count(&mut self, event: &Event<'_>, question: &Question) {
        self.count_program(event);
        let Some(reference) = &event.object_ref else { return };
        // A request has several stages; this one is there once, and only when it was served.
        if event.stage != "ResponseComplete" || OWN_USERS.contains(&event.caller().as_ref()) {
            return;
        }
        let table = Table::shipped();
        let same = |life: &crate::lifecycle::KindLifecycle<'_>| {
            life.group == reference.api_group
                && life.version == reference.api_version
                && life.resource == Some(&*reference.resource)
        };
        let Some(position) = table.kinds().iter().position(same) else { return };
        let standing = table.kinds()[position].standing(question.target);
        if !matches!(standing, Standing::Removed { .. } | Standing::Deprecated { removed: Some(_), .. }) {
            return;
        }
        let agent = event.user_agent.as_deref().unwrap_or("-").to_owned();
        let key = (position, event.caller().into_owned(), agent);
        if self.callers.len() >= CALLERS_MAX && !self.callers.contains_key(&key) {
            return;
        }
        let calls = self.callers.entry(key).or_default();
        calls.count += 1;
        calls.verbs.insert(event.verb.clone().into_owned());
        if calls.last <= event.request_received_timestamp {
            calls.last = event.request_received_timestamp;
            calls.address = event.source_ips.iter().flatten().next().cloned().unwrap_or_default().into_owned();
        }
    }

    /// Counts who watches, and who uses which kubectl.
    fn count_program(&mut self, event: &Event<'_>) {
        let user = event.caller();
        let agent = event.user_agent.as_deref().unwrap_or("-");
        let (name, rest) = agent.split_once('/').unwrap_or((agent, ""));
        let word = rest.split(' ').next().unwrap_or_default();
        if name == "kubectl"
            && let Ok(version) = KubernetesVersion::parse_reported(word)
            && self.kubectls.len() < CALLERS_MAX
        {
            *self.kubectls.entry((version.release, user.clone().into_owned())).or_default() += 1;
        }
        let is_own = OWN_WATCHERS.iter().any(|begin| user.starts_with(begin));
        if event.verb == "watch" && !is_own && name != "kubectl" && self.watchers.len() < CALLERS_MAX {
            *self.watchers.entry((user.into_owned(), name.to_owned())).or_default() += 1;
        }
    }

    /// What the log means at the target.
    pub fn judge(&self, file: &str, question: &Question) -> Vec<Finding> {
        let table = Table::shipped();
        let mut findings = Vec::new();
        if self.events == 0 && self.bad.is_none() {
            findings.push(Finding::new("API-009", "empty", Outcome::Unknown, Subject::new("File", "", file)));
        }
        for ((position, user, agent), calls) in &self.callers {
            let life = &table.kinds()[*position];
            let is_recent =
                calls.last.is_some_and(|last| question.now.as_second() - last.as_second() <= RECENT_SECONDS);
            let blocks = question.profile == Profile::Strict && is_recent;
            let successor = table.successor(life, question.target);
            let (sentence, since, outcome) = match life.standing(question.target) {
                Standing::Removed { since } if blocks => ("called", since, Outcome::Fail),
                Standing::Removed { since } => ("called", since, Outcome::Warn),
                Standing::Deprecated { removed: Some(since), .. } => ("called-deprecated", since, Outcome::Warn),
                Standing::Deprecated { .. } | Standing::Served => continue,
            };
            let finding = Finding::new("API-009", sentence, outcome, Subject::new("Client", "", user))
                .with("api", format!("{} {}", life.api_version(), life.kind))
                .with("user", user)
                .with("agent", agent)
                .with("count", calls.count)
                .with("last", calls.last.map_or_else(|| "-".to_owned(), |last| last.to_string()))
                .with("address", &calls.address)
                .with("verbs", calls.verbs.iter().cloned().collect::<Vec<_>>().join(", "))
                .with("removed", since);
            let finding = succeeded_by(finding, successor.map(|found| found.api_version));
            findings.push(finding.seen("API-009", file));
        }
        for ((minor, user), count) in &self.kubectls {
            // kubectl goes with API servers of its own minor and of the ones beside it.
            if minor.minor.abs_diff(question.target.minor) > 1 || minor.major != question.target.major {
                let finding = Finding::new("VER-011", "kubectl", Outcome::Warn, Subject::new("Client", "", user));
                let finding = finding.with("version", minor).with("user", user).with("count", count);
                findings.push(finding.with("target", question.target).seen("VER-011", file));
            }
        }
        if !self.watchers.is_empty() {
            let names: BTreeSet<String> =
                self.watchers.keys().map(|(user, program)| format!("{program} ({user})")).collect();
            let named: Vec<String> = names.iter().take(WATCHERS_NAMED_MAX).cloned().collect();
            let finding = Finding::new("CP-010", "watch", Outcome::Warn, Subject::new("File", "", file));
            findings.push(finding.with("count", names.len()).with("names", named.join(", ")));
        }
        if let Some((line, why)) = &self.bad {
            let finding = Finding::new("API-009", "unreadable", Outcome::Unknown, Subject::new("File", "", file));
            findings.push(finding.with("line", line).with("why", why));
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question {
            target: MinorVersion { major: 1, minor: 37 },
            current: None,
            profile: Profile::Default,
            now: "2026-11-27T00:00:00Z".parse().unwrap(),
            max_parallel: 10,
        }
    }

    fn found(lines: &[String]) -> Vec<String> {
        let question = question();
        let mut log = AuditLog::default();
        lines.iter().for_each(|line| log.take(line.as_bytes(), &question));
        log.judge("audit.log", &question)
            .iter()
            .map(|finding| format!("{:?} {} {}", finding.outcome, finding.check, finding.subject.name))
            .collect()
    }

    fn event(user: &str, agent: &str, verb: &str, version: &str) -> String {
        format!(
            "{{\"kind\":\"Event\",\"stage\":\"ResponseComplete\",\"verb\":\"{verb}\",\"user\":{{\"username\":\"{user}\"}},\"userAgent\":\"{agent}\",\"objectRef\":{{\"resource\":\"volumeattributesclasses\",\"apiGroup\":\"storage.k8s.io\",\"apiVersion\":\"{version}\"}},\"requestReceivedTimestamp\":\"2026-11-26T23:00:00.000000Z\"}}"
        )
    }

    #[test]
    fn callers_old_kubectls_and_programs_that_watch_are_named_and_kubernetes_own_are_not() {
        let old = "kubectl/v1.30.1 (linux/amd64) kubernetes/abc";
        let lines = [
            event("ci", "argo/v2.9", "update", "v1beta1"),
            event("system:serviceaccount:kube-system:generic-garbage-collector", "kcm/v1.36", "list", "v1beta1"),
            event("dev", old, "get", "v1"),
            event("ops", "kubectl/v1.36.1 (linux/amd64)", "get", "v1"),
            event("system:serviceaccount:shop:cache", "cache/v0.0.0", "watch", "v1"),
            event("system:node:w1", "kubelet/v1.36.3", "watch", "v1"),
        ];
        assert_eq!(found(&lines), ["Warn API-009 ci", "Warn VER-011 dev", "Warn CP-010 audit.log"]);
        assert_eq!(found(&lines[1..2]), [""; 0]);
    }

    #[test]
    fn a_caller_without_a_user_agent_is_told_by_its_account() {
        use shiplock_core::language::Language;
        let line = event("alice", "x", "update", "v1beta1").replace("\"userAgent\":\"x\",", "");
        let mut log = AuditLog::default();
        log.take(line.as_bytes(), &question());
        let [finding] = &log.judge("audit.log", &question())[..] else { panic!() };
        let fix = finding.fix(Language::En);
        assert!(fix.starts_with("upgrade whatever uses the account alice (user agent: -) to a version"), "{fix}");
        assert!(finding.fix(Language::Zh).starts_with("请将使用账号 alice 的程序（user agent：-）升级到"));
    }

    #[test]
    fn who_is_acted_for_is_named_with_who_acts() {
        let line = event("ops", "kubectl/v1.37.1 (linux/amd64)", "update", "v1beta1")
            .replace("\"userAgent\"", "\"impersonatedUser\":{\"username\":\"ci\"},\"userAgent\"");
        // Who acts as a part of Kubernetes is none.
        let node = event("ops", "spy/v1", "watch", "v1")
            .replace("\"userAgent\"", "\"impersonatedUser\":{\"username\":\"system:node:w1\"},\"userAgent\"");
        assert_eq!(found(&[node]), ["Warn CP-010 audit.log"]);
        assert_eq!(found(&[line]), ["Warn API-009 ops acting as ci"]);
    }

    #[test]
    fn a_call_of_an_api_that_the_target_still_serves_and_calls_deprecated_is_told_as_such() {
        let called = |resource: &str, group: &str, version: &str, minor: u32, profile: Profile| {
            let question = Question { target: MinorVersion { major: 1, minor }, profile, ..question() };
            let line = event("ci", "argo/v2.9", "list", version)
                .replace("volumeattributesclasses", resource)
                .replace("storage.k8s.io", group);
            let mut log = AuditLog::default();
            log.take(line.as_bytes(), &question);
            let found = log.judge("audit.log", &question).into_iter();
            found
                .map(|found| format!("{:?} {} {}", found.outcome, found.sentence, found.parameters["removed"]))
                .collect::<Vec<_>>()
        };
        let addresses = |minor, profile| called("ipaddresses", "networking.k8s.io", "v1beta1", minor, profile);
        assert_eq!(addresses(33, Profile::Strict), [""; 0]);
        assert_eq!(addresses(36, Profile::Default), ["Warn called-deprecated 1.37"]);
        assert_eq!(addresses(36, Profile::Strict), ["Warn called-deprecated 1.37"]);
        assert_eq!(addresses(37, Profile::Default), ["Warn called 1.37"]);
        assert_eq!(addresses(37, Profile::Strict), ["Fail called 1.37"]);
        // Of what no release removes everybody is a caller.
        assert_eq!(called("endpoints", "", "v1", 37, Profile::Strict), [""; 0]);
    }

    #[test]
    fn events_in_lists_and_in_the_lines_of_a_container_runtime_count_and_other_lines_are_told() {
        let call = || event("ci", "argo/v2.9", "update", "v1beta1");
        let wrap = |text: &str| serde_json::json!({ "log": format!("{text}\n"), "stream": "stdout" }).to_string();
        let list = |items: &[String]| {
            format!("{{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"items\":[{}]}}", items.join(","))
        };
        let (told, bad) = ("Warn API-009 ci", "Unknown API-009 audit.log");
        for (line, expected) in [
            (call(), &[told][..]),
            (list(&[call(), call()]), &[told]),
            (list(&[]), &[bad]),
            ("  ".to_owned(), &[bad]),
            (list(&["7".to_owned()]), &[bad]),
            (wrap(&call()), &[told]),
            (wrap("I1127 12:00:00.000000 1 server.go:1] started"), &[bad]),
            ("{\"foo\":1}".to_owned(), &[bad]),
            ("{\"log\":\"\"}".to_owned(), &[bad]),
            ("{}".to_owned(), &[bad]),
        ] {
            assert_eq!(found(std::slice::from_ref(&line)), expected, "{line}");
        }
    }

    #[test]
    fn a_line_that_is_no_event_is_unknown_and_the_good_ones_beside_it_count() {
        let lines = ["{\"verb\":\"watch\",".to_owned(), event("ci", "argo/v2.9", "update", "v1beta1"), "x".to_owned()];
        assert_eq!(found(&lines), ["Warn API-009 ci", "Unknown API-009 audit.log"]);
        assert_eq!(found(&[]), ["Unknown API-009 audit.log"], "nothing at all says nothing");
    }
}
