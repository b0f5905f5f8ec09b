//! Pre-checks over REST: run with an agent that answers, kept, compared; acceptances by name, with reason and end.

use axum::http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use shiplock_api::agent::ExaminationReport;
use shiplock_api::check::{AcceptanceView, CheckReportRow, CheckReportView};
use shiplock_api::rest::Page;
use shiplock_core::check::{CheckReport, CheckResult};
use shiplock_core::facts::examination::{EXAMINE_KIND, NodeExamination};
use shiplock_core::plan::Mode;
use shiplock_core::problem::Code;
use shiplock_core::upgrade::State;

use super::super::sample::{self, Bench};
use crate::driver::StartCheck;
use crate::store::{AcceptanceRecord, AgentRecord, Store};

/// What an agent finds on a node that has swap on.
fn examination(swap: bool) -> NodeExamination {
    let disk = json!({ "path": "/", "size_bytes": 100, "free_bytes": 50, "inodes": 0, "free_inodes": 0, "is_read_only": false });
    let kubelet = json!({ "ill": null, "pleg": null, "starts": 1, "api_version": "", "fails_on_swap": true,
        "swap_behavior": null, "fails_on_cgroup_v1": null, "reserved": { "kubeReserved.cpu": "1" }, "feature_gates": {},
        "flags": [], "edits": { "Ok": [] }, "api_server_host": "" });
    let swaps: &[&str] = if swap { &["/swapfile"] } else { &[] };
    serde_json::from_value(json!({
        "clock": Timestamp::now(), "host_name": "blue-01", "host_name_resolves": true,
        "operating_system": { "Ok": { "id": "debian", "version_id": "12", "name": "Debian", "custom_marks": [] } },
        "kernel": { "release": "6.1.0", "missing_modules": [] }, "systemd_version": { "Ok": "252" },
        "cgroup_version": { "Ok": 2 }, "file_systems": [disk], "file_system_errors": { "Ok": [] },
        "swaps": { "Ok": swaps }, "time": { "Ok": { "is_synchronized": true, "told_by": "timedatectl" } },
        "runtime": { "Ok": { "version": "2", "not_ready": [], "list_milliseconds": 1, "tells_cgroup_driver": true } },
        "kubelet": { "Ok": kubelet },
        "package_source": { "Ok": { "manager": "", "sources": 0, "failure": null } },
        "packet_filter": { "Ok": { "backend": "", "other_tables": [] } }, "selinux_enforces": false, "firewall": null,
        "ports": { "Ok": [] }, "proxies": [], "certificates": [], "mirror": null, "images": [],
    }))
    .unwrap()
}

impl Bench {
    /// A bench with one node whose agent answers each question.
    async fn with_agent(swap: bool) -> Self {
        let bench = Self::new().await;
        assert_eq!(bench.add_cluster().await.status, StatusCode::CREATED);
        let cluster = bench.cluster();
        let facts = super::super::sample::facts("uid-lab");
        let node = facts.nodes.keys().next().unwrap().clone();
        let told = shiplock_core::sample::agents(&facts, Timestamp::now()).remove(&node).unwrap();
        let mut machine = (*told.machine).clone();
        machine.step_kinds.push(EXAMINE_KIND.to_owned());
        let record = AgentRecord {
            cluster: cluster.clone(),
            node: node.clone(),
            serial: "0a".to_owned(),
            machine: machine.clone(),
            enrolled_at: Timestamp::now(),
        };
        bench.store.put_agent(&record).await.unwrap();
        bench.site.hub.heard(&cluster, &node, Some(machine), Timestamp::now());
        let hub = bench.site.hub.clone();
        tokio::spawn(async move {
            loop {
                if let Some(request) = hub.offered_to(&cluster, &node, None).await.examine {
                    let examination = Box::new(NodeExamination { host_name: node.to_string(), ..examination(swap) });
                    hub.examined(
                        &cluster,
                        ExaminationReport { number: request.number, node: node.clone(), examination },
                    );
                }
            }
        });
        bench
    }

    async fn run_checks(&self, body: Value) -> CheckReportView {
        let answer = self.ask(Method::POST, "/api/v1/clusters/lab/checks", Some(body)).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", String::from_utf8_lossy(&answer.body));
        answer.read()
    }
}

fn outcomes(report: &CheckReportView, check: &str) -> Vec<String> {
    report.findings.iter().filter(|found| found.check == check).map(|found| found.outcome.clone()).collect()
}

#[tokio::test]
async fn a_node_is_looked_at_by_its_agent_and_one_without_an_agent_is_named() {
    let bench = Bench::with_agent(true).await;
    let report = bench.run_checks(json!({})).await;
    assert_eq!(report.verdict, "blocked");
    assert_eq!(outcomes(&report, "NODE-006"), ["fail"]);
    // The other nodes of the cluster have no agent.
    assert!(!outcomes(&report, "NODE-003").is_empty());
    let found = report.findings.iter().find(|found| found.check == "NODE-006").unwrap();
    assert!(found.text.en.contains("/swapfile") && found.text.zh.contains("/swapfile"), "{found:?}");
    assert!(found.fix.en.contains("swapoff"), "{found:?}");
}

#[tokio::test]
async fn reports_are_kept_listed_and_compared_with_the_one_before() {
    let bench = Bench::with_agent(true).await;
    let first = bench.run_checks(json!({ "only": ["NODE"] })).await;
    assert_eq!(first.compared_with, None);
    let second = bench.run_checks(json!({ "only": ["NODE"] })).await;
    assert_eq!(second.compared_with.as_deref(), Some(first.id.as_str()));
    assert!(second.findings.iter().all(|found| found.known == Some(true)) && second.gone.is_empty());
    // What was not asked this time is not gone.
    let third = bench.run_checks(json!({ "only": ["NODE-008"] })).await;
    assert!(third.gone.is_empty(), "{:?}", third.gone);
    let listed: Page<CheckReportRow> = bench.get("/api/v1/clusters/lab/checks").await.read();
    let ids: Vec<&str> = listed.items.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, [third.id.as_str(), second.id.as_str(), first.id.as_str()]);
    let shown: CheckReportView = bench.get(&format!("/api/v1/checks/{}?with={}", third.id, first.id)).await.read();
    assert_eq!(shown.compared_with, Some(first.id));
    assert_eq!(bench.get("/api/v1/checks/none").await.code(), Code::ReportUnknown);
    assert_eq!(bench.get("/api/v1/clusters/none/checks").await.code(), Code::ClusterUnknown);
    let wrong = bench.ask(Method::POST, "/api/v1/clusters/lab/checks", Some(json!({ "only": ["NOPE"] }))).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_finding_is_accepted_by_name_with_a_reason_and_an_end_and_taken_back() {
    let bench = Bench::with_agent(true).await;
    let path = "/api/v1/clusters/lab/acceptances";
    for wrong in [
        json!({ "check": "*", "reason": "all" }),
        json!({ "check": "NODE", "reason": "a category" }),
        json!({ "check": "NODE-006", "reason": " " }),
        json!({ "check": "NODE-006", "reason": "x", "until": "2020-01-01" }),
        json!({ "check": "NODE-006", "reason": "x", "until": "2999-01-01" }),
    ] {
        let answer = bench.ask(Method::POST, path, Some(wrong.clone())).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let answer = bench.ask(Method::POST, path, Some(json!({ "check": "node-006", "reason": "goes soon" }))).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let added: AcceptanceView = answer.read();
    assert_eq!((added.check.as_str(), added.reason.as_str()), ("NODE-006", "goes soon"));
    assert!(!added.by.as_str().is_empty());
    let report = bench.run_checks(json!({ "only": ["NODE-006"] })).await;
    assert_eq!(report.verdict, "ready");
    let accepted = report.findings[0].accepted.as_deref().unwrap();
    assert!(accepted.contains("goes soon") && accepted.contains(added.by.as_str()), "{accepted}");
    let listed: Page<AcceptanceView> = bench.get(path).await.read();
    assert_eq!(listed.items, std::slice::from_ref(&added));
    let removed = bench.ask(Method::DELETE, &format!("{path}/{}", added.id), None).await;
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    let again = bench.ask(Method::DELETE, &format!("{path}/{}", added.id), None).await;
    assert_eq!(again.code(), Code::AcceptanceUnknown);
    assert_eq!(bench.run_checks(json!({ "only": ["NODE-006"] })).await.verdict, "blocked");
}

#[tokio::test]
async fn an_acceptance_that_ended_is_named_in_the_report_and_a_target_that_is_not_known_cannot_be_accepted() {
    let bench = Bench::with_agent(true).await;
    let ended = json!({ "id": "a-old", "check": "NODE-006", "subject": null, "reason": "known", "by": "li",
        "given_at": "2020-01-01T00:00:00Z", "until": "2020-01-31" });
    let record = AcceptanceRecord { id: "a-old".to_owned(), cluster: bench.cluster(), data: ended.to_string() };
    bench.store.add_acceptance(&record).await.unwrap();
    let report = bench.run_checks(json!({ "only": ["NODE-006"] })).await;
    let told: Vec<(&str, &str, String)> = report
        .expired
        .iter()
        .map(|one| (one.check.as_str(), one.author.as_str(), one.until.unwrap().to_string()))
        .collect();
    assert_eq!(told, [("NODE-006", "li", "2020-01-31".to_owned())]);
    assert!(report.findings.iter().all(|found| found.accepted.is_none()), "{report:?}");

    let body = json!({ "check": "API-014", "reason": "we looked" });
    let answer = bench.ask(Method::POST, "/api/v1/clusters/lab/acceptances", Some(body)).await;
    assert_eq!(answer.code(), Code::BadOption);
}

#[tokio::test]
async fn the_whole_catalogue_guards_a_start_until_what_it_found_is_accepted_and_never_a_way_back() {
    let bench = Bench::with_agent(true).await;
    let mut upgrade = sample::upgrade();
    upgrade.state = State::Checking;
    std::sync::Arc::make_mut(&mut upgrade.plan).cluster = bench.cluster();
    let blocking = async |upgrade: &shiplock_core::upgrade::Upgrade| {
        let mut check = StartCheck::default();
        check.keep(&bench.site.precheck, upgrade);
        if check.found().is_none() {
            check.ended(&upgrade.plan).await;
        }
        let report = CheckReport { findings: check.found().unwrap() };
        report.blocking().map(|found| (found.check.clone(), found.result)).collect::<Vec<_>>()
    };
    assert_eq!(blocking(&upgrade).await, [("NODE-006".to_owned(), CheckResult::Fail)]);
    // It is kept as a report of this upgrade.
    let listed: Page<CheckReportRow> = bench.get("/api/v1/clusters/lab/checks").await.read();
    assert_eq!(listed.items.len(), 1);
    let body = json!({ "check": "NODE-006", "subject": "Node blue-0*", "reason": "goes soon" });
    let answer = bench.ask(Method::POST, "/api/v1/clusters/lab/acceptances", Some(body)).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(blocking(&upgrade).await, []);

    let other = Bench::with_agent(true).await;
    let mut check = StartCheck::default();
    std::sync::Arc::make_mut(&mut upgrade.plan).mode = Mode::Rollback;
    check.keep(&other.site.precheck, &upgrade);
    assert_eq!(check.found(), Some(Vec::new()));
}
