//! The collector against API servers that refuse, cut off, repeat themselves, lie or stay silent.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use shiplock_check::cluster::{READS, judge};
use shiplock_check::object::Objects;
use shiplock_check::question::{Profile, Question};
use shiplock_check::report::Outcome;

use super::*;
use crate::mock::{Answer, Asked, Log, api, status};

/// How an API server stands whose lists are followed.
#[derive(Clone)]
struct Served {
    version: &'static str,
    /// Lines of its metrics.
    counters: Vec<&'static str>,
    /// How its pods are called.
    pods: &'static str,
    /// Whether its cache of pods reaches the newest revision.
    catches_up: bool,
    is_ready: bool,
}

/// The same process as before, in whose cache of pods nothing changed.
fn quiet() -> Served {
    let counters = vec![
        "process_start_time_seconds 1.76412345678e+09",
        "apiserver_watch_cache_initializations_total{group=\"\",resource=\"pods\"} 1",
        "apiserver_watch_cache_events_received_total{group=\"\",resource=\"pods\"} 700",
        "apiserver_watch_cache_initializations_total{group=\"\",resource=\"nodes\"} 1",
        "apiserver_watch_cache_events_received_total{group=\"apps\",resource=\"deployments\"} 9",
    ];
    Served { version: "v1.36.3", counters, pods: "old", catches_up: true, is_ready: true }
}

impl Served {
    /// With one line of its metrics instead of another.
    fn with(mut self, before: &str, after: &'static str) -> Self {
        let line = self.counters.iter_mut().find(|line| line.contains(before)).unwrap();
        *line = after;
        self
    }

    fn answer(&self, asked: &Asked) -> Answer {
        let pods = |count: usize| -> Vec<Value> {
            (0..count)
                .map(|at| json!({ "metadata": { "namespace": "n", "name": format!("{}-{at}", self.pods) } }))
                .collect()
        };
        match asked.path.as_str() {
            "/version" => Answer::Json(
                200,
                json!({ "major": "1", "minor": "36", "gitVersion": self.version, "gitCommit": "",
                "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": "" }),
            ),
            "/metrics" => Answer::Text(self.counters.join("\n") + "\n"),
            "/readyz" if !self.is_ready => status(500, "InternalError", "etcd failed"),
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices" => Answer::Json(
                200,
                json!({ "kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1", "metadata": {}, "items": [{
                    "metadata": { "name": "kubernetes" }, "addressType": "IPv4",
                    "endpoints": [{ "addresses": ["10.0.0.1"] }], "ports": [{ "name": "https", "port": 6443 }] }] }),
            ),
            "/api/v1/pods" if asked.query.contains("NotOlderThan") && !self.catches_up => {
                status(504, "Timeout", "Too large resource version: 41, current: 40")
            }
            "/api/v1/pods" if asked.query.contains("limit=1&") || asked.query == "limit=1" => Answer::Json(
                200,
                json!({ "kind": "PodList", "metadata": { "resourceVersion": "41" }, "items": pods(1) }),
            ),
            "/api/v1/pods" => Answer::Json(200, json!({ "kind": "PodList", "metadata": {}, "items": pods(501) })),
            _ => healthy(asked),
        }
    }
}

/// Reads such an API server; what it says, what may be kept, and how often its pods were listed whole.
async fn read_again(served: &Served, only: &[&str], known: Known) -> (Snapshot, Marks, usize) {
    let served = served.clone();
    let (connection, log) = api(move |asked| served.answer(asked));
    let selection = Selection { only: only.iter().map(|&word| word.to_owned()).collect(), skip: Vec::new() };
    let collection = Collection { target: None, selection: &selection, for_start: false, with_copy: false };
    let (snapshot, marks) = Box::pin(again(&connection, &collection, Some(known), &|_| ())).await.unwrap();
    let asked = log.lock().unwrap();
    let lists = asked.iter().filter(|asked| asked.path == "/api/v1/pods" && asked.query == "limit=500").count();
    (snapshot, marks, lists)
}

/// What is kept of a run, as a later one reads it.
fn kept(snapshot: &Snapshot, marks: &Marks) -> Known {
    let mut lists = KnownLists::default();
    for list in marks.keys() {
        parts(list, &snapshot.objects, |part| {
            let part: Objects = serde_json::from_slice(part)?;
            lists.add(list, std::future::ready(part));
            Ok(())
        })
        .unwrap();
    }
    Known { releases: Vec::new(), lists, marks: marks.clone() }
}

/// The lists that are followed.
fn large(marks: &Marks) -> Vec<&str> {
    marks.iter().filter(|(_, marks)| !marks.is_empty()).map(|(list, _)| list.as_str()).collect()
}

fn first_pod(snapshot: &Snapshot) -> &str {
    &snapshot.objects.pods.seen().unwrap()[0].metadata.name
}

#[tokio::test]
async fn a_large_list_that_no_api_server_has_seen_change_is_not_read_again_and_is_what_it_was() {
    let (first, marks, lists) = read_again(&quiet(), &[], Known::default()).await;
    assert_eq!(lists, 1);
    let followed: Vec<&str> = large(&marks);
    assert_eq!(followed, ["/api/v1/pods", "/api/v1/pods?of=apis"], "one page is as soon read as asked about");
    assert!(marks.contains_key("/api/v1/nodes"), "that a list is small is known too");
    let (second, again, lists) = read_again(&quiet(), &[], kept(&first, &marks)).await;
    assert_eq!(lists, 0);
    assert_eq!(second.objects.pods, first.objects.pods);
    assert_eq!(again, marks);
}

#[tokio::test]
async fn a_part_of_a_large_list_is_kept_too_from_the_whole_or_alone_and_is_never_taken_for_the_whole() {
    let (whole, marks, _) = read_again(&quiet(), &[], Known::default()).await;
    let (part, of_part, lists) = read_again(&quiet(), &["API"], kept(&whole, &marks)).await;
    assert_eq!((lists, part.objects.pods.seen().unwrap().len()), (0, 0));
    assert_eq!(large(&of_part), ["/api/v1/pods?of=apis"]);
    let (alone, of_alone, lists) = read_again(&quiet(), &["API"], Known::default()).await;
    assert_eq!((lists, alone.objects.pods.seen().unwrap().len()), (1, 0));
    assert_eq!(of_alone, of_part, "it is large by what was read, not by what is held");
    let (again, _, lists) = read_again(&quiet(), &["API"], kept(&alone, &of_alone)).await;
    assert_eq!((lists, again.objects.pods), (0, alone.objects.pods.clone()));
    let (second, _, lists) = read_again(&quiet(), &[], kept(&alone, &of_alone)).await;
    assert_eq!((lists, second.objects.pods.seen().unwrap().len()), (1, 501));
}

#[tokio::test]
async fn a_list_that_was_small_is_kept_from_the_second_time_on_that_it_is_large() {
    let small = Marks::from([("/api/v1/pods".to_owned(), [].into())]);
    let (first, marks, _) = read_again(&quiet(), &[], Known { marks: small, ..Known::default() }).await;
    assert_eq!(large(&marks), [""; 0], "nobody knew its marks before it was read");
    let (second, marks, lists) = read_again(&quiet(), &[], kept(&first, &marks)).await;
    assert_eq!((lists, large(&marks).len()), (1, 2));
    let (_, _, lists) = read_again(&quiet(), &[], kept(&second, &marks)).await;
    assert_eq!(lists, 0);
}

#[tokio::test]
async fn whatever_may_have_changed_a_list_has_it_read_again() {
    let (first, marks, _) = read_again(&quiet(), &[], Known::default()).await;
    let pods = "events_received_total{group=\"\",resource=\"pods\"}";
    let changed = |served: Served| Served { pods: "new", ..served };
    let all_others_are_silent = "apiserver_watch_cache_events_received_total_x 1";
    for (what, served) in [
        (
            "a pod came, changed or went",
            quiet().with(pods, "apiserver_watch_cache_events_received_total{group=\"\",resource=\"pods\"} 701"),
        ),
        (
            "its cache was filled anew",
            quiet().with(
                "initializations_total{group=\"\",resource=\"pods\"}",
                "apiserver_watch_cache_initializations_total{group=\"\",resource=\"pods\"} 2",
            ),
        ),
        ("another process", quiet().with("process_start", "process_start_time_seconds 1.76412345679e+09")),
        ("a process that does not say since when it runs", quiet().with("process_start", "x 1")),
        (
            "an API server that counts no fillings",
            quiet().with("initializations_total{group=\"\",resource=\"pods\"}", "x 1"),
        ),
        (
            "an API server that counts no changes",
            quiet().with(pods, all_others_are_silent).with("deployments", all_others_are_silent),
        ),
        ("a cache that does not catch up with etcd", Served { catches_up: false, ..quiet() }),
        ("an API server that is not ready", Served { is_ready: false, ..quiet() }),
        ("an API server whose lists do not come from its cache", Served { version: "v1.33.9", ..quiet() }),
    ] {
        let (second, _, lists) = read_again(&changed(served), &[], kept(&first, &marks)).await;
        assert_eq!((lists, first_pod(&second)), (1, "new-0"), "{what}");
    }
    // What was kept of another instance, or not at all, says nothing.
    let other = marks.iter().map(|(path, marks)| {
        (path.clone(), marks.values().map(|mark| ("10.0.0.2:6443".to_owned(), mark.clone())).collect())
    });
    let known = Known { marks: other.collect(), ..kept(&first, &marks) };
    let (second, _, lists) = read_again(&changed(quiet()), &[], known).await;
    assert_eq!((lists, first_pod(&second)), (1, "new-0"));
    let known = Known { lists: KnownLists::default(), ..kept(&first, &marks) };
    let (second, _, lists) = read_again(&changed(quiet()), &[], known).await;
    assert_eq!((lists, first_pod(&second)), (1, "new-0"));
}

#[tokio::test]
async fn who_may_not_list_is_not_told_what_another_account_saw() {
    let (first, marks, _) = read_again(&quiet(), &[], Known::default()).await;
    let (connection, _) =
        api(|asked| if asked.path == "/api/v1/pods" { status(403, "Forbidden", "no") } else { quiet().answer(asked) });
    let selection = Selection::default();
    let collection = Collection { target: None, selection: &selection, for_start: false, with_copy: false };
    let (second, again) = again(&connection, &collection, Some(kept(&first, &marks)), &|_| ()).await.unwrap();
    assert_eq!(second.objects.pods, Read::NotSeen("no".to_owned()));
    assert_eq!(large(&again), [""; 0]);
}

/// What an API server of 1.36 serves, as far as checks read it.
fn discovery(is_core: bool) -> Value {
    let mut groups: Vec<Value> = Vec::new();
    for (path, _) in READS {
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let (group, version) = match parts.as_slice() {
            ["api", version, ..] => ("", *version),
            ["apis", group, version, ..] => (*group, *version),
            _ => continue,
        };
        if group.is_empty() == is_core {
            let resource = parts.last().unwrap();
            groups.push(json!({ "metadata": { "name": group }, "versions": [{ "version": version,
                "resources": [{ "resource": resource, "responseKind": { "kind": "K" }, "verbs": ["list"] }] }] }));
        }
    }
    if !is_core {
        // Kinds that go away beside versions that stay: who wrote their objects is asked too.
        for (group, version, resource, kind) in [
            ("networking.k8s.io", "v1beta1", "servicecidrs", "ServiceCIDR"),
            ("networking.k8s.io", "v1", "ipaddresses", "IPAddress"),
            ("networking.k8s.io", "v1beta1", "ipaddresses", "IPAddress"),
        ] {
            groups.push(json!({ "metadata": { "name": group }, "versions": [{ "version": version,
                "resources": [{ "resource": resource, "responseKind": { "kind": kind }, "verbs": ["list"] }] }] }));
        }
    }
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "items": groups })
}

fn healthy(asked: &Asked) -> Answer {
    match asked.path.as_str() {
        "/version" => Answer::Json(
            200,
            json!({ "major": "1", "minor": "36", "gitVersion": "v1.36.3", "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": "" }),
        ),
        "/api" => Answer::Json(200, discovery(true)),
        "/apis" => Answer::Json(200, discovery(false)),
        path if path.contains("/configmaps/") => status(404, "NotFound", "not found"),
        _ => Answer::Json(200, json!({ "kind": "KList", "items": [] })),
    }
}

/// The checks that come out unknown, and what was asked.
async fn unknown(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (BTreeSet<String>, Snapshot, Log) {
    let (connection, log) = api(answer);
    let selection = Selection::default();
    let collection = Collection { target: None, selection: &selection, for_start: false, with_copy: false };
    let snapshot = over(&connection, &collection, &|_| ()).await.unwrap();
    let question = Question {
        target: "1.37".parse().unwrap(),
        current: "1.36".parse().ok(),
        profile: Profile::Default,
        now: snapshot.taken_at,
        max_parallel: 10,
    };
    let findings = judge(&snapshot, &question).into_iter();
    let findings = findings.chain(shiplock_check::api::live::judge(&snapshot, &question).1);
    let unknown = findings.filter(|finding| finding.outcome == Outcome::Unknown).map(|finding| finding.check).collect();
    (unknown, snapshot, log)
}

/// Checks that ask each API server at its own address, which a made-up connection has not.
fn without_instances(mut checks: BTreeSet<String>) -> BTreeSet<String> {
    checks.retain(|check| !instance::CHECKS.contains(&check.as_str()));
    checks
}

#[tokio::test]
async fn every_resource_is_listed_once_and_nothing_that_is_deprecated_is_asked_for() {
    let (unknown, snapshot, log) = unknown(healthy).await;
    assert_eq!(without_instances(unknown), BTreeSet::new());
    let asked: Vec<String> =
        log.lock().unwrap().iter().map(|asked| format!("{}?{}", asked.path, asked.query)).collect();
    let mut requests: BTreeMap<&str, usize> = BTreeMap::new();
    for line in &asked {
        *requests.entry(line.split('?').next().unwrap()).or_default() += 1;
    }
    // Whatever is asked for besides: with other words, or for its metadata alone.
    requests.retain(|_, count| *count > 1);
    assert_eq!(requests, BTreeMap::new(), "{asked:#?}");
    let is_asked = |path: &str| asked.iter().any(|line| line.split('?').next() == Some(path));
    for (path, _) in READS.iter().filter(|(path, _)| !path.ends_with("/configmaps")) {
        assert!(is_asked(path), "{path}");
    }
    assert!(is_asked("/apis/networking.k8s.io/v1/ipaddresses"), "{asked:#?}");
    assert!(asked.iter().all(|line| !line.contains("beta") || line.contains("metrics.k8s.io")), "{asked:#?}");
    // A snapshot for rehearsals takes its copy of the same lists, and one more.
    let (connection, log_with_copy) = api(healthy);
    let selection = Selection::default();
    let collection = Collection { target: None, selection: &selection, for_start: false, with_copy: true };
    let with_copy = over(&connection, &collection, &|_| ()).await.unwrap();
    assert!(with_copy.copy.seen().is_some());
    let more: Vec<String> = log_with_copy.lock().unwrap().iter().map(|asked| asked.path.clone()).collect();
    let more: Vec<&String> =
        more.iter().filter(|path| !asked.iter().any(|line| line.split('?').next() == Some(path))).collect();
    assert_eq!(more, ["/apis/apps/v1/replicasets"]);
    assert_eq!(log_with_copy.lock().unwrap().len(), asked.len() + 1);
    assert!(snapshot.effort.in_flight_max <= 6 && snapshot.effort.requests as usize >= asked.len() - 5);
}

#[tokio::test]
async fn one_list_says_both_what_the_objects_are_and_who_wrote_them_and_where_it_is_refused_both_are_unknown() {
    let range = json!({ "metadata": { "name": "kubernetes", "managedFields": [
        { "manager": "kubectl", "operation": "Update", "apiVersion": "networking.k8s.io/v1beta1", "time": "2026-01-01T00:00:00Z" }] },
        "spec": { "cidrs": ["10.96.0.0/12"] } });
    let path = "/apis/networking.k8s.io/v1/servicecidrs";
    let answer = move |asked: &Asked| {
        if asked.path == path {
            Answer::Json(200, json!({ "kind": "ServiceCIDRList", "items": [range] }))
        } else {
            healthy(asked)
        }
    };
    let (_, snapshot, _) = unknown(answer).await;
    let kind = snapshot.written.iter().find(|kind| kind.resource == "servicecidrs").unwrap();
    assert_eq!(kind.objects.seen().unwrap()[0].entries[0].manager, "kubectl");
    assert_eq!(snapshot.objects.service_ranges.seen().unwrap()[0].spec.cidrs, ["10.96.0.0/12"]);
    let (unknown, ..) =
        unknown(move |asked| if asked.path == path { status(403, "Forbidden", "no") } else { healthy(asked) }).await;
    assert_eq!(without_instances(unknown).into_iter().collect::<Vec<_>>(), ["API-003", "NET-009"]);
}

#[test]
fn whatever_is_dialled_for_a_check_is_listed_where_that_check_alone_is_asked_for() {
    let lists_of = |check: &str| -> Vec<&str> {
        let readers = READS.iter().filter(|(_, checks)| checks.contains(&check));
        readers.map(|(path, _)| path.rsplit('/').next().unwrap_or_default()).collect()
    };
    for check in dial::CHECKS {
        let wanted: &[&str] = match *check {
            "WHK-012" => &["apiservices"],
            "WHK-013" => &["customresourcedefinitions"],
            _ => &["validatingwebhookconfigurations", "mutatingwebhookconfigurations"],
        };
        let lists = lists_of(check);
        assert!(wanted.iter().all(|list| lists.contains(list)), "{check}: {lists:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_refused_cut_off_endless_wrong_or_never_comes_makes_only_its_own_checks_unknown() {
    type Fault = fn(&Asked) -> Answer;
    let faults: [(&str, Fault); 7] = [
        ("forbidden", |_| status(403, "Forbidden", "no")),
        ("broken off", |_| Answer::Broken),
        ("silent", |_| Answer::Silence),
        ("no list", |_| Answer::Json(200, json!({ "kind": "Pod", "items": [] }))),
        ("no object", |_| Answer::Json(200, json!([1, 2]))),
        ("its pages do not end", |_| {
            Answer::Json(200, json!({ "kind": "KList", "metadata": { "continue": "again" }, "items": [] }))
        }),
        ("always expired", |asked| {
            if asked.query.contains("continue=") {
                status(410, "Expired", "too old")
            } else {
                Answer::Json(200, json!({ "kind": "KList", "metadata": { "continue": "x" }, "items": [] }))
            }
        }),
    ];
    let paths = ["/api/v1/nodes", "/api/v1/pods", "/apis/policy/v1/poddisruptionbudgets", "/api/v1/persistentvolumes"];
    for (name, fault) in faults {
        for path in paths {
            let (unknown, ..) =
                unknown(move |asked| if asked.path == path { fault(asked) } else { healthy(asked) }).await;
            let unknown = without_instances(unknown);
            let readers = READS.iter().find(|(known, _)| *known == path).unwrap().1;
            assert!(!unknown.is_empty(), "{path} {name}");
            assert!(unknown.iter().all(|check| readers.contains(&check.as_str())), "{path} {name}: {unknown:?}");
        }
    }
}

#[tokio::test]
async fn an_account_that_may_read_nothing_leaves_no_check_of_a_list_that_passes() {
    // Without policies there is nothing that closes a webhook; requests stand in for what nodes use; what is dialled
    // says itself whether somebody is there.
    let is_spared = |path: Option<&str>, check: &str| {
        path.is_some_and(|path| {
            let is_dialled = dial::CHECKS.contains(&check) && check != "WHK-013";
            check == "NET-008"
                // Without a load balancer nobody can call a Service by it.
                || (check == "NET-001" && (path.ends_with("/pods") || path.contains("webhookconfigurations")))
                || (check == "CAP-001" && path.contains("metrics"))
                // Of a node that nobody has cordoned it is not asked whose cordon it is.
                || (check == "NODE-001" && path.ends_with("/leases/shiplock"))
                || (is_dialled && path.ends_with("/endpointslices"))
        })
    };
    let mut passed = Vec::new();
    for path in READS.iter().map(|(path, _)| Some(*path)).chain([None]) {
        let (unknown, ..) = unknown(move |asked| {
            let is_list = READS.iter().any(|(known, _)| asked.path.starts_with(known));
            if is_list && path.is_none_or(|path| asked.path.starts_with(path)) {
                status(403, "Forbidden", "no")
            } else {
                healthy(asked)
            }
        })
        .await;
        let readers = READS.iter().filter(|(known, _)| path.is_none_or(|path| *known == path));
        let silent: Vec<&str> = readers
            .flat_map(|(_, checks)| checks.iter().copied())
            .filter(|check| !unknown.contains(*check) && !is_spared(path, check))
            .collect();
        if !silent.is_empty() {
            passed.push((path, silent));
        }
    }
    assert_eq!(passed, []);
}

#[tokio::test]
async fn objects_of_wrong_shapes_never_pass_for_good_ones() {
    for item in [json!(1), json!("x"), json!({ "metadata": 7 }), json!({ "spec": 5 }), json!(null)] {
        let odd = item.clone();
        let (unknown, ..) = unknown(move |asked| {
            if asked.path == "/api/v1/pods" {
                Answer::Json(200, json!({ "kind": "PodList", "items": [odd] }))
            } else {
                healthy(asked)
            }
        })
        .await;
        assert!(unknown.contains("WL-001") || unknown.contains("WL-003"), "{item}: {unknown:?}");
    }
}

#[tokio::test]
async fn releases_and_configurations_are_read_without_anything_secret() {
    let (_, snapshot, log) = unknown(|asked| {
        let release = "e30="; // {}
        match (asked.path.as_str(), asked.query.contains("owner%3Dhelm")) {
            ("/api/v1/secrets", true) => Answer::Json(
                200,
                json!({ "kind": "SecretList", "items": [
                    { "metadata": { "namespace": "n", "name": "sh.helm.release.v1.a.v1", "labels": { "owner": "helm", "name": "a", "version": "1", "status": "deployed" } }, "data": { "release": "ZTMwPQ==", "password": "c2VjcmV0" } },
                    { "metadata": { "namespace": "n", "name": "sh.helm.release.v1.a.v2", "labels": { "owner": "helm", "name": "a", "version": "2", "status": "failed" } }, "data": { "release": "%%%" } },
                    { "metadata": { "namespace": "n", "name": "sh.helm.release.v1.c.v1", "labels": { "owner": "helm", "version": "1", "status": "deployed" } }, "data": { "release": "ZTMwPQ==" } },
                    { "metadata": { "namespace": "n", "name": "sh.helm.release.v1.d.vx", "labels": { "owner": "helm", "name": "a", "version": "x", "status": "deployed" } }, "data": { "release": "ZTMwPQ==" } },
                    { "metadata": { "namespace": "n", "name": "settings", "labels": { "owner": "helm" } } },
                ] }),
            ),
            ("/api/v1/configmaps", true) => Answer::Json(
                200,
                json!({ "kind": "ConfigMapList", "items": [
                    { "metadata": { "namespace": "n", "name": "b.v1", "labels": { "owner": "helm", "name": "b", "version": "1", "status": "deployed" } }, "data": { "release": release } },
                ] }),
            ),
            ("/api/v1/namespaces/kube-system/configmaps/kubelet-config", _) => Answer::Json(
                200,
                json!({ "data": { "kubelet": "featureGates: {A: true}\n", "other": "a secret" } }),
            ),
            _ => healthy(asked),
        }
    })
    .await;
    let releases = snapshot.releases.seen().unwrap();
    let shown: Vec<String> = releases
        .iter()
        .map(|one| format!("{} {} {}", one.id.release, one.id.revision, one.unreadable.is_some()))
        .collect();
    let expected =
        ["a 1 false", "a 2 true", "b 1 false", "sh.helm.release.v1.c.v1 0 true", "sh.helm.release.v1.d.vx 0 true"];
    assert_eq!(shown, expected);
    let saved = serde_json::to_string(&snapshot).unwrap();
    assert!(!saved.contains("secret") && !saved.contains("c2VjcmV0"), "{saved}");
    let asked = log.lock().unwrap();
    assert!(asked.iter().any(|one| one.path.contains("/namespaces/n/secrets") && one.query.contains("superseded")));
    assert!(asked.iter().all(|one| one.method == "GET"));
}

#[tokio::test]
async fn a_release_that_did_not_change_is_not_read_again_and_one_that_did_is() {
    let secret = |name: &str, version: &str, resource_version: &str| {
        json!({ "metadata": { "namespace": "n", "name": format!("sh.helm.release.v1.{name}.v{version}"), "uid": format!("uid-{name}"), "resourceVersion": resource_version,
            "labels": { "owner": "helm", "name": name, "version": version, "status": "deployed" } }, "data": { "release": "ZTMwPQ==" } })
    };
    let answer = move |second: bool| {
        move |asked: &Asked| {
            let all = [secret("a", "1", "5"), secret("b", "1", if second { "7" } else { "6" })];
            if asked.path == "/api/v1/secrets" {
                Answer::Json(200, json!({ "kind": "SecretList", "items": all }))
            } else if asked.path.starts_with("/api/v1/namespaces/n/secrets/") {
                let found = all.iter().find(|one| asked.path.ends_with(one["metadata"]["name"].as_str().unwrap()));
                Answer::Json(200, found.unwrap().clone())
            } else {
                healthy(asked)
            }
        }
    };
    let selection = Selection { only: vec!["API-005".into()], skip: Vec::new() };
    let collection = Collection { target: None, selection: &selection, for_start: false, with_copy: false };
    let (connection, _) = api(answer(false));
    let first = over(&connection, &collection, &|_| ()).await.unwrap().releases.seen().unwrap().clone();
    assert_eq!(first.len(), 2);
    let (connection, log) = api(answer(true));
    let known_before = first.clone();
    let known = Known { releases: first, ..Known::default() };
    let (second, _) = again(&connection, &collection, Some(known), &|_| ()).await.unwrap();
    let second = second.releases.seen().unwrap();
    assert_eq!(second.len(), 2);
    let asked: Vec<String> = log.lock().unwrap().iter().map(|asked| asked.path.clone()).collect();
    let got: Vec<&String> = asked.iter().filter(|path| path.contains("/namespaces/n/secrets/")).collect();
    assert_eq!(got, ["/api/v1/namespaces/n/secrets/sh.helm.release.v1.b.v1"], "{asked:?}");
    // Who may list and not get has what changed listed with all others.
    let served = answer(true);
    let (connection, _) = api(move |asked| match asked.path.starts_with("/api/v1/namespaces/n/secrets/") {
        true => status(403, "Forbidden", "no"),
        false => served(asked),
    });
    let known = Known { releases: known_before, ..Known::default() };
    let (third, _) = again(&connection, &collection, Some(known), &|_| ()).await.unwrap();
    assert_eq!(third.releases.seen(), Some(second));
}

#[tokio::test]
async fn checks_of_apis_alone_hold_no_pod_that_they_do_not_read() {
    let pods = json!([
        { "metadata": { "namespace": "shop", "name": "plain" } },
        { "metadata": { "namespace": "kube-system", "name": "kube-apiserver-m1" } },
        { "metadata": { "namespace": "shop", "name": "seccomp",
            "annotations": { "seccomp.security.alpha.kubernetes.io/pod": "runtime/default" } } },
        { "metadata": { "namespace": "shop", "name": "master" },
          "spec": { "nodeSelector": { "node-role.kubernetes.io/master": "" } } },
    ]);
    for (only, expected) in [
        ("API", &["kube-apiserver-m1", "seccomp", "master"][..]),
        ("WL-009", &["plain", "kube-apiserver-m1", "seccomp", "master"]),
    ] {
        let pods = pods.clone();
        let (connection, _) = api(move |asked| {
            if asked.path == "/api/v1/pods" {
                Answer::Json(200, json!({ "kind": "PodList", "items": pods }))
            } else {
                healthy(asked)
            }
        });
        let selection = Selection { only: vec![only.into()], skip: Vec::new() };
        let collection = Collection { target: None, selection: &selection, for_start: false, with_copy: false };
        let snapshot = over(&connection, &collection, &|_| ()).await.unwrap();
        let names: Vec<&str> =
            snapshot.objects.pods.seen().unwrap().iter().map(|pod| pod.metadata.name.as_str()).collect();
        assert_eq!(names, expected);
        // Whoever checks it later knows that it is not whole.
        assert_eq!(snapshot.asked, selection);
    }
}
