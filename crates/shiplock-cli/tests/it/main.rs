//! The compiled `shiplock` against a real server on its local socket. Only the cluster behind the server is made up:
//! it answers with facts and does what it is told at once. There is no agent, so upgrades stop at the pre-check.

#![allow(clippy::unwrap_used)]

mod demo;
mod files;
mod forbidden;
mod forms;
mod standing;

use serde_json::Value;
use shiplock_core::check::{CheckReport, CheckResult, Finding};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{Event, PauseReason};

use self::standing::{Ended, Standing};

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(test);
}

/// The object that a command printed; whatever else it said must be on stderr.
fn json(ended: &Ended) -> Value {
    let object: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"));
    assert_eq!(object["schema"], "shiplock.dev/cli/v1", "{ended:?}");
    object
}

#[test]
fn a_person_registers_a_cluster_plans_starts_and_is_told_what_stops_the_start() {
    run(async {
        let standing = Standing::start().await;
        let added = standing.shiplock("cluster add prod --kubeconfig KUBECONFIG --mirror MIRROR").await;
        assert_eq!(added.code, 0, "{added:?}");
        assert!(
            added.stderr.contains("Context lab, API server https://10.0.0.1:6443: registering it as prod"),
            "{added:?}"
        );
        assert!(added.stdout.contains("pool blue  3 nodes") && added.stdout.contains("join-command prod"), "{added:?}");

        let list = standing.shiplock("cluster list -o json").await;
        assert_eq!(json(&list)["clusters"][0]["version"], "v1.36.3");
        assert!(standing.shiplock("cluster show prod").await.stdout.contains("blue-01"));
        assert!(
            standing.shiplock("agent join-command prod").await.stdout.contains("shiplock-agent join --server https://")
        );
        assert_eq!(json(&standing.shiplock("agent list prod -o json").await)["agents"], Value::Array(Vec::new()));
        assert_eq!(json(&standing.shiplock("version -o json").await)["server"]["version"], env!("CARGO_PKG_VERSION"));

        let plan = standing.shiplock("plan prod --to 1.36 --max-parallel 2").await;
        assert_eq!(plan.code, 0, "{plan:?}");
        assert!(
            plan.stdout.contains("batches 1 2") && plan.stdout.contains("next: shiplock upgrade --plan p"),
            "{plan:?}"
        );
        let refused = standing.shiplock("plan prod --to 1.36 --pool green -o json").await;
        assert_eq!((refused.code, &json(&refused)["error"]["code"]), (1, &Value::from("UPG0108")));

        // Without a terminal and without --yes nothing is started.
        let unasked = standing.shiplock("upgrade prod --to 1.36").await;
        assert_eq!(unasked.code, 2, "{unasked:?}");
        assert!(unasked.stderr.contains("UPG0803") && unasked.stdout.is_empty(), "{unasked:?}");

        let blocked = standing.shiplock("upgrade prod --to 1.36 --yes -o json").await;
        assert_eq!(blocked.code, 3, "{blocked:?}");
        let upgrade = &json(&blocked)["upgrade"];
        assert_eq!(
            (&upgrade["state"], &upgrade["findings"][0]["problem"]["code"]),
            (&"blocked".into(), &"UPG0405".into())
        );
        for said in ["API server https://fake:6443", "pre-check began", "pre-check stops the start"] {
            assert!(blocked.stderr.contains(said), "{said}: {blocked:?}");
        }

        // The only active upgrade needs no name.
        let watched = standing.shiplock("watch --lang zh").await;
        assert_eq!(watched.code, 3, "{watched:?}");
        assert!(
            watched.stdout.contains("受阻") && watched.stdout.contains("节点 blue-01 上没有注册 agent"),
            "{watched:?}"
        );
        let lines = standing.shiplock("watch --after 0 -o ndjson --progress none").await;
        let lines: Vec<Value> = lines.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (last, events) = lines.split_last().unwrap();
        let numbers: Vec<u64> = events.iter().map(|line| line["event"]["number"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (1..=last["upgrade"]["len"].as_u64().unwrap()).collect::<Vec<_>>());

        let set = standing.shiplock("set --max-parallel 1").await;
        assert!(set.code == 0 && set.stdout.contains("at most 1 at once"), "{set:?}");
        let paused = standing.shiplock("pause -o json").await;
        assert_eq!((paused.code, &json(&paused)["error"]["code"]), (1, &Value::from("UPG0305")));
        let again = standing.shiplock("continue --watch").await;
        assert!(again.code == 3 && again.stderr.contains("pre-check"), "{again:?}");
        assert_eq!(standing.shiplock("cluster remove prod --yes").await.code, 1);

        let cancelled = standing.shiplock("cancel --yes").await;
        assert!(
            cancelled.code == 0 && cancelled.stderr.contains("3 nodes are not started and stay as they are"),
            "{cancelled:?}"
        );
        let id = upgrade["id"].as_str().unwrap();
        let ended = standing.shiplock(&format!("watch {id} -o json")).await;
        assert_eq!((ended.code, &json(&ended)["upgrade"]["state"]), (6, &Value::from("cancelled")));

        let none = standing.shiplock("watch -o json").await;
        assert_eq!((none.code, &json(&none)["error"]["code"]), (2, &Value::from("UPG0801")));
        let shown = standing.shiplock(&format!("upgrades show {id} --events")).await;
        assert!(shown.stdout.contains("CANCELLED") && shown.stdout.contains("ended: cancelled"), "{shown:?}");
        assert_eq!(json(&standing.shiplock("upgrades list -o json").await)["upgrades"][0]["id"], id);
        assert_eq!(
            json(&standing.shiplock("upgrades list --active -o json").await)["upgrades"],
            Value::Array(Vec::new())
        );
        assert_eq!(json(&standing.shiplock("cluster remove prod --yes -o json").await)["removed"], "prod");
        standing.stop().await;
    });
}

#[test]
fn who_does_not_stay_is_told_that_the_start_is_blocked() {
    run(async {
        let standing = Standing::start().await;
        standing.shiplock("cluster add prod --kubeconfig KUBECONFIG --mirror MIRROR").await;
        let left = standing.shiplock("upgrade prod --to 1.36 --yes --detach -o json").await;
        assert_eq!((left.code, &json(&left)["upgrade"]["state"]), (3, &"blocked".into()), "{left:?}");
        assert_eq!(json(&left)["detached"], true);
        standing.stop().await;
    });
}

#[test]
fn ctrl_c_leaves_says_so_and_the_upgrade_goes_on() {
    run(async {
        let standing = Standing::start().await;
        standing.shiplock("cluster add prod --kubeconfig KUBECONFIG --mirror MIRROR").await;
        assert_eq!(standing.shiplock("upgrade prod --to 1.36 --yes --progress none").await.code, 3);
        let left = standing.interrupted("watch --stay -o json", "pre-check").await;
        assert_eq!(left.code, 130, "{left:?}");
        assert_eq!(json(&left)["detached"], true);
        assert!(left.stderr.contains("goes on. Watch it again: shiplock watch u"), "{left:?}");
        assert_eq!(standing.shiplock("watch --progress none").await.code, 3);
        standing.stop().await;
    });
}

#[test]
fn what_could_not_be_seen_before_a_start_ends_an_attached_command_with_4_and_a_failure_beside_it_with_3() {
    run(async {
        for (results, code) in
            [(&[CheckResult::Pass, CheckResult::Unknown][..], 4), (&[CheckResult::Unknown, CheckResult::Fail], 3)]
        {
            let mut standing = Standing::start().await;
            standing.shiplock("cluster add prod --kubeconfig KUBECONFIG --mirror MIRROR").await;
            let finding = |result: &CheckResult| Finding {
                check: "AGT-001".to_owned(),
                result: *result,
                subject: "node blue-01".to_owned(),
                problem: (*result != CheckResult::Pass)
                    .then(|| Problem::new(Code::AgentMissing).with("node", "blue-01").with("cluster", "prod")),
                accepted: false,
                accepted_by: None,
                repaired_by_stage: None,
            };
            let report = CheckReport { findings: results.iter().map(finding).collect() };
            standing.restart_with_upgrade(vec![Event::CheckStarted, Event::CheckFinished { report }]).await;
            let watched = standing.shiplock("watch").await;
            assert_eq!(watched.code, code, "{watched:?}");
            assert!(watched.stdout.contains("UNKNOWN  AGT-001  node blue-01: "), "{watched:?}");
            let chinese = standing.shiplock("watch --lang zh").await;
            assert!(chinese.stdout.contains("AGT-001  节点 blue-01："), "{chinese:?}");
            standing.stop().await;
        }
    });
}

/// The events of an upgrade that its gate has paused.
fn paused_by_a_gate() -> Vec<Event> {
    let problem =
        Problem::new(Code::ServiceNotUp).with("service", "kubelet").with("node", "blue-01").with("state", "failed");
    vec![
        Event::CheckStarted,
        Event::CheckFinished { report: CheckReport { findings: Vec::new() } },
        Event::Started,
        Event::PauseRequested { reason: PauseReason::Gate { problem }, by: "shiplock".into() },
        Event::Paused,
    ]
}

#[test]
fn keys_change_the_view_and_pause_and_continue_only_after_a_yes() {
    run(async {
        let mut standing = Standing::start().await;
        standing.shiplock("cluster add prod --kubeconfig KUBECONFIG --mirror MIRROR").await;
        standing.restart_with_upgrade(paused_by_a_gate()).await;
        let (code, screen) = standing
            .at_a_terminal(
                "watch --stay",
                &[
                    ("c continue", "n"),
                    ("blue-01  pool blue", "e"),
                    ("paused: nothing is in work", "c"),
                    ("continue?", "x"),
                    ("c continue", "c"),
                    ("continue?", "y"),
                    ("p pause", "p"),
                    ("pause?", "y"),
                    ("PAUS", "q"),
                ],
            )
            .await;
        assert_eq!(code, 130, "{screen}");
        assert!(screen.contains("goes on. Watch it again"), "{screen}");
        let events = json(&standing.shiplock("upgrades show useeded --events -o json").await);
        let kinds: Vec<&str> =
            events["events"].as_array().unwrap().iter().filter_map(|event| event["kind"].as_str()).collect();
        assert_eq!(kinds.iter().filter(|kind| **kind == "continued").count(), 1, "{events}");
        standing.stop().await;
    });
}

#[test]
fn a_paused_upgrade_ends_an_attached_command_with_5_the_reason_and_the_fix() {
    run(async {
        let mut standing = Standing::start().await;
        standing.shiplock("cluster add prod --kubeconfig KUBECONFIG --mirror MIRROR").await;
        standing.restart_with_upgrade(paused_by_a_gate()).await;
        let watched = standing.shiplock("watch").await;
        assert_eq!(watched.code, 5, "{watched:?}");
        for said in ["PAUSED", "kubelet on node blue-01 did not come up", "journalctl -u kubelet", "closes in "] {
            assert!(watched.stdout.contains(said), "{said}: {watched:?}");
        }
        let cancelled = standing.shiplock("cancel --yes --lang zh").await;
        assert!(cancelled.code == 0 && cancelled.stderr.contains("3 个节点未开始，保持原状"), "{cancelled:?}");
        assert_eq!(standing.shiplock("watch useeded --progress none").await.code, 6);
        standing.stop().await;
    });
}

#[test]
fn what_needs_no_server_works_without_one_and_the_rest_says_that_none_answers() {
    run(async {
        let standing = Standing::without_server().await;
        let explained = standing.shiplock("explain upg0407").await;
        assert!(explained.code == 0 && explained.stdout.contains("systemctl restart shiplock-agent"), "{explained:?}");
        assert!(standing.shiplock("explain UPG0407 --lang zh").await.stdout.contains("agent 无响应"));
        let check = standing.shiplock("explain nod-001 -o json").await;
        assert_eq!((check.code, &json(&check)["check"]), (0, &Value::from("NOD-001")));
        assert!(standing.shiplock("explain NOD-001 --lang zh").await.stdout.starts_with("NOD-001：每个节点"));
        assert_eq!(standing.shiplock("explain UPG9999").await.code, 2);
        assert!(standing.shiplock("explain").await.stdout.lines().count() > 70);
        assert!(standing.shiplock("completions bash").await.stdout.contains("complete"));
        assert!(standing.shiplock("cluster role").await.stdout.contains("pods/eviction"));
        assert!(standing.shiplock("--help").await.stdout.contains("Begin here"));
        let version = standing.shiplock("version").await;
        assert!(version.code == 0 && version.stdout.contains("no Shiplock server answers"), "{version:?}");
        for command in ["cluster list", "watch", "plan prod --to 1.36", "cancel u1 --yes", "upgrades list"] {
            let ended = standing.shiplock(&format!("{command} -o json")).await;
            assert_eq!((ended.code, &json(&ended)["error"]["code"]), (1, &Value::from("UPG0703")), "{command}");
            assert!(ended.stderr.contains("shiplock explain UPG0703"), "{ended:?}");
        }
        for command in ["plan -o json", "nonsense -o json", "plan prod --to x -o json"] {
            let ended = standing.shiplock(command).await;
            assert_eq!((ended.code, &json(&ended)["error"]["code"]), (2, &Value::from("UPG0806")), "{command}");
        }
    });
}

#[test]
fn a_backup_is_listed_verified_and_exported_for_its_owner_alone_and_never_over_another_file() {
    use std::os::unix::fs::PermissionsExt as _;
    run(async {
        let standing = Standing::start().await;
        let none = standing.shiplock("backup list").await;
        assert!(none.code == 0 && none.stdout.contains("No backup is kept"), "{none:?}");
        let content: &[u8] = &[9; 200_000];
        standing.keep_backup("u1-4-17", content).await;
        let list = standing.shiplock("backup list prod").await;
        assert!(list.stdout.contains("u1-4-17") && list.stdout.contains("195.3 KiB"), "{list:?}");
        let elsewhere = standing.shiplock("backup list other -o json").await;
        assert_eq!(json(&elsewhere)["backups"], Value::Array(Vec::new()));
        let verified = standing.shiplock("backup verify u1-4-17 -o json").await;
        assert_eq!(json(&verified)["verified"]["snapshot"]["revision"], 42, "{verified:?}");

        let exported = standing.shiplock("backup export u1-4-17 --file FOLDER/etcd.db").await;
        assert!(exported.code == 0 && exported.stdout.contains("etcdutl snapshot restore"), "{exported:?}");
        let file = standing.path("etcd.db");
        assert!(std::fs::read(&file).unwrap() == content);
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "precious").unwrap();
        let refused = standing.shiplock("backup export u1-4-17 --file FOLDER/etcd.db -o json").await;
        assert_eq!((refused.code, &json(&refused)["error"]["code"]), (2, &Value::from("UPG0114")), "{refused:?}");
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
        let forced = standing.shiplock("backup export u1-4-17 --file FOLDER/etcd.db --force -o json").await;
        assert_eq!(json(&forced)["exported"]["id"], "u1-4-17", "{forced:?}");
        assert!(std::fs::read(&file).unwrap() == content);

        let unknown = standing.shiplock("backup verify u9-9-9 -o json").await;
        assert_eq!((unknown.code, &json(&unknown)["error"]["code"]), (1, &Value::from("UPG0521")));
        let sealed = standing.path("data/backups/u1-4-17.backup");
        let mut damaged = std::fs::read(&sealed).unwrap();
        *damaged.last_mut().unwrap() ^= 1;
        std::fs::write(&sealed, damaged).unwrap();
        let verified = standing.shiplock("backup verify u1-4-17 --lang zh").await;
        assert!(verified.code == 1 && verified.stderr.contains("备份 u1-4-17 无法读回"), "{verified:?}");
        let names = || std::fs::read_dir(standing.path("")).unwrap().count();
        let before = names();
        let broken = standing.shiplock("backup export u1-4-17 --file FOLDER/broken.db").await;
        assert_eq!(broken.code, 1, "{broken:?}");
        assert_eq!(names(), before, "nothing is left of an export that broke off");
        standing.stop().await;
    });
}
