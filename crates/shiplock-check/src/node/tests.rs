//! Each rule over what an agent found: a node that is well gives nothing, each fault its finding, and what could not be
//! read is unknown.

use std::collections::BTreeMap;

use shiplock_core::facts::examination::{
    CertificateEnd, FileSystem, ImageFound, Kernel, KubeletHealth, OperatingSystem, PackageSource, PacketFilter,
    PortOwner, ProxySetting, RuntimeHealth, TimeService,
};
use shiplock_core::facts::{
    CertificateFacts, ControlPlaneFacts, EtcdClusterFacts, EtcdFacts, EtcdMemberFacts, HandEdit, Observed,
};
use shiplock_core::language::Language;
use shiplock_core::problem::{Code, Problem};

use super::*;
use crate::object::Objects;
use crate::run::Selection;
use crate::snapshot::{Effort, Read, SNAPSHOT_SCHEMA};

const NOW: &str = "2026-11-24T00:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn disk(path: &str) -> FileSystem {
    FileSystem {
        path: path.to_owned(),
        size_bytes: 100 << 30,
        free_bytes: 50 << 30,
        inodes: 1000,
        free_inodes: 500,
        is_read_only: false,
    }
}

fn kubelet() -> KubeletHealth {
    KubeletHealth {
        ill: None,
        pleg: None,
        starts: 1,
        api_version: "kubelet.config.k8s.io/v1beta1".to_owned(),
        fails_on_swap: true,
        swap_behavior: None,
        fails_on_cgroup_v1: None,
        reserved: BTreeMap::from([("kubeReserved.memory".to_owned(), "1Gi".to_owned())]),
        feature_gates: BTreeMap::new(),
        flags: Vec::new(),
        edits: Ok(Vec::new()),
        api_server_host: "10.0.0.1".to_owned(),
    }
}

/// A node that is well.
fn well() -> NodeExamination {
    let end = |path: &str| CertificateEnd { path: path.to_owned(), ends_at: "2027-06-01T00:00:00Z".parse().unwrap() };
    NodeExamination {
        clock: now(),
        host_name: "w1".to_owned(),
        host_name_resolves: true,
        operating_system: Ok(OperatingSystem { id: "debian".to_owned(), ..OperatingSystem::default() }),
        kernel: Kernel { release: "6.1.0-18-amd64".to_owned(), missing_modules: Vec::new() },
        systemd_version: Ok("252.39-1~deb12u1".to_owned()),
        cgroup_version: Ok(2),
        file_systems: vec![disk("/")],
        file_system_errors: Ok(Vec::new()),
        swaps: Ok(Vec::new()),
        time: Ok(TimeService { is_synchronized: true, told_by: "timedatectl".to_owned() }),
        runtime: Ok(RuntimeHealth {
            version: "2.2.9".to_owned(),
            not_ready: Vec::new(),
            list_milliseconds: 12,
            tells_cgroup_driver: true,
        }),
        kubelet: Ok(kubelet()),
        package_source: Ok(PackageSource { manager: "apt-get".to_owned(), sources: 1, failure: None }),
        packet_filter: Ok(PacketFilter { backend: "nf_tables".to_owned(), other_tables: Vec::new() }),
        selinux_enforces: false,
        firewall: None,
        ports: Ok(vec![PortOwner { port: 10250, process: "kubelet".to_owned() }]),
        proxies: Vec::new(),
        certificates: vec![end("/var/lib/kubelet/pki/kubelet-client-current.pem"), end("/etc/kubernetes/pki/ca.crt")],
        mirror: Some(Ok(12)),
        images: vec![ImageFound { reference: "registry.k8s.io/pause:3.10".to_owned(), available: Ok(()) }],
        dialled: Vec::new(),
    }
}

fn examined(node: &str, examination: NodeExamination) -> ExaminedNode {
    let answer = Answer::Examined { examination: Box::new(examination), at: now() };
    ExaminedNode { node: node.to_owned(), answer, machine: None }
}

fn findings(nodes: Vec<ExaminedNode>, profile: Profile) -> Vec<String> {
    let snapshot = Snapshot {
        schema: SNAPSHOT_SCHEMA,
        taken_at: now(),
        server: "https://x".to_owned(),
        version: "v1.36.3".to_owned(),
        asked: Selection::default(),
        served: Read::NotAsked,
        written: Vec::new(),
        releases: Read::NotAsked,
        metrics: Vec::new(),
        objects: Objects::default(),
        nodes,
        nodes_unseen: None,
        dialled: Vec::new(),
        permissions: Vec::new(),
        copy: Read::NotAsked,
        effort: Effort::default(),
    };
    let question = Question {
        target: "1.37".parse().unwrap(),
        current: "1.36".parse().ok(),
        profile,
        now: snapshot.taken_at,
        max_parallel: 10,
    };
    let mut findings = judge(&snapshot, &question);
    findings.retain(|finding| finding.outcome != Outcome::Skipped);
    for finding in &findings {
        for language in [Language::En, Language::Zh] {
            let (text, fix) = (finding.text(language), finding.fix(language));
            assert!(!text.contains('{') && !fix.contains('{'), "{finding:?}: {text} | {fix}");
        }
    }
    findings.iter().map(|found| format!("{:?} {} {}", found.outcome, found.check, found.sentence)).collect()
}

fn found(examination: NodeExamination) -> Vec<String> {
    findings(vec![examined("w1", examination)], Profile::Default)
}

#[test]
fn a_probe_is_judged_by_what_it_looks_at_and_a_pod_that_does_not_run_is_told() {
    let probed = |examination: NodeExamination| {
        let answer = Answer::Probed { examination: Box::new(examination), at: now() };
        findings(vec![ExaminedNode { node: "w1".to_owned(), answer, machine: None }], Profile::Default)
    };
    let unseen = || "a probe does not look at it".to_owned();
    let seen =
        NodeExamination { runtime: Err(unseen()), ports: Err(unseen()), package_source: Err(unseen()), ..well() };
    assert_eq!(probed(seen.clone()), [""; 0]);
    let swap = NodeExamination { swaps: Ok(vec!["/swapfile".to_owned()]), ..seen };
    assert_eq!(probed(swap), ["Fail NODE-006 refused"]);
    let answer = Answer::NotProbed { why: "it had not run after 60 s".to_owned() };
    let not_run = ExaminedNode { node: "w1".to_owned(), answer, machine: None };
    assert_eq!(findings(vec![not_run], Profile::Default), ["Fail CP-009 not-run"]);
}

#[test]
fn a_node_that_is_well_gives_no_finding() {
    assert_eq!(found(well()), [""; 0]);
}

/// What is wrong, and what is said of it.
type Case = (&'static str, fn(&mut NodeExamination));
/// The same of the kubelet.
type OfKubelet = (&'static str, fn(&mut KubeletHealth));
/// The checks that are unknown then, and what could not be read.
type Unread = (&'static [&'static str], fn(&mut NodeExamination, String));

#[test]
fn each_fault_has_its_finding_and_nothing_else_is_said() {
    let with_kubelet = |change: fn(&mut KubeletHealth)| {
        let mut node = well();
        change(node.kubelet.as_mut().unwrap());
        node
    };
    let cases: &[Case] = &[
        ("Fail NODE-008 full", |node| node.file_systems[0].free_bytes = 4 << 30),
        ("Warn NODE-008 low", |node| node.file_systems[0].free_bytes = 9 << 30),
        ("Fail NODE-009 full", |node| node.file_systems[0].free_inodes = 49),
        ("Fail NODE-010 read-only", |node| node.file_systems[0].is_read_only = true),
        ("Fail NODE-010 errors", |node| node.file_system_errors = Ok(vec!["EXT4-fs error (device sda1)".to_owned()])),
        ("Fail NODE-006 refused", |node| node.swaps = Ok(vec!["/swap".to_owned()])),
        ("Fail NODE-012 refused", |node| node.cgroup_version = Ok(1)),
        ("Fail NODE-013 old", |node| node.kernel.release = "4.18.0-553.el8".to_owned()),
        ("Warn NODE-013 module", |node| node.kernel.missing_modules = vec!["br_netfilter".to_owned()]),
        ("Fail NODE-014 old", |node| node.systemd_version = Ok("219-62.el7".to_owned())),
        ("Warn NODE-015 unsynchronized", |node| node.time.as_mut().unwrap().is_synchronized = false),
        ("Warn NODE-015 differs", |node| node.clock = "2026-11-24T00:01:00Z".parse().unwrap()),
        ("Warn NODE-004 unusable", |node| node.package_source.as_mut().unwrap().failure = Some("no route".to_owned())),
        ("Warn NODE-004 none", |node| node.package_source.as_mut().unwrap().sources = 0),
        ("Warn NODE-005 custom", |node| {
            node.operating_system.as_mut().unwrap().custom_marks = vec!["IMAGE_ID=ours".to_owned()];
        }),
        ("Warn NODE-016 mixed", |node| {
            node.packet_filter.as_mut().unwrap().other_tables = vec!["nat".to_owned()];
        }),
        ("Fail NODE-017 silent", |node| node.runtime = Err("no answer within 5 s".to_owned())),
        ("Fail NODE-017 not-ready", |node| {
            node.runtime.as_mut().unwrap().not_ready = vec!["NetworkReady: cni plugin not initialized".to_owned()];
        }),
        ("Warn NODE-017 remarks", |node| {
            let told = "ContainerdHasNoDeprecationWarnings: ContainerdHasDeprecationWarnings cgroup v1";
            node.runtime.as_mut().unwrap().not_ready = vec![told.to_owned()];
        }),
        ("Warn NODE-017 slow", |node| node.runtime.as_mut().unwrap().list_milliseconds = 3_000),
        ("Fail NODE-017 slow", |node| node.runtime.as_mut().unwrap().list_milliseconds = 12_000),
        ("Fail NODE-019 mirror", |node| node.mirror = Some(Err("connection refused".to_owned()))),
        ("Fail NODE-019 image", |node| node.images[0].available = Err("404".to_owned())),
        ("Fail NODE-020 foreign", |node| {
            node.ports = Ok(vec![PortOwner { port: 10259, process: "python3".to_owned() }]);
        }),
        ("Warn NODE-021 differs", |node| node.host_name = "localhost".to_owned()),
        ("Warn NODE-021 unresolved", |node| node.host_name_resolves = false),
        ("Warn NODE-022 covers", |node| {
            node.proxies = vec![ProxySetting {
                service: "kubelet".to_owned(),
                variable: "HTTPS_PROXY".to_owned(),
                except: "localhost".to_owned(),
            }];
        }),
        ("Warn NODE-023 active", |node| node.firewall = Some("firewalld".to_owned())),
        ("Warn WHK-015 ends", |node| node.certificates[0].ends_at = "2026-12-01T00:00:00Z".parse().unwrap()),
        ("Fail WHK-015 ends", |node| node.certificates[0].ends_at = "2026-11-01T00:00:00Z".parse().unwrap()),
        ("Warn WHK-014 soon", |node| node.certificates[1].ends_at = "2026-12-01T00:00:00Z".parse().unwrap()),
        ("Fail WHK-014 soon", |node| node.certificates[1].ends_at = "2026-11-25T00:00:00Z".parse().unwrap()),
        ("Fail WHK-014 ended", |node| node.certificates[1].ends_at = "2026-11-23T00:00:00Z".parse().unwrap()),
    ];
    for (expected, change) in cases {
        let mut node = well();
        change(&mut node);
        assert_eq!(found(node), [*expected]);
    }
    let of_kubelets: &[OfKubelet] = &[
        ("Fail NODE-002 pleg", |kubelet| kubelet.pleg = Some("PLEG is not healthy: 4m".to_owned())),
        ("Fail NODE-018 ill", |kubelet| kubelet.ill = Some("its service is failed".to_owned())),
        ("Fail NODE-018 loop", |kubelet| kubelet.starts = 5),
        ("Fail NODE-007 edited", |kubelet| {
            let difference = "--- a\n+++ b\n+maxPods: 250\n".to_owned();
            kubelet.edits = Ok(vec![HandEdit { path: "/var/lib/kubelet/config.yaml".to_owned(), difference }]);
        }),
    ];
    for (expected, change) in of_kubelets {
        assert_eq!(found(with_kubelet(*change)), [*expected]);
    }
}

#[test]
fn what_the_kubelet_bears_is_no_failure_and_strict_lets_a_broken_source_block() {
    let mut node = well();
    node.swaps = Ok(vec!["/swap".to_owned()]);
    node.kubelet.as_mut().unwrap().fails_on_swap = false;
    assert_eq!(found(node), ["Warn NODE-006 borne"]);
    let mut node = well();
    node.cgroup_version = Ok(1);
    node.kubelet.as_mut().unwrap().fails_on_cgroup_v1 = Some(false);
    assert_eq!(found(node), ["Warn NODE-012 old"]);
    let mut node = well();
    node.package_source.as_mut().unwrap().failure = Some("no route".to_owned());
    assert_eq!(findings(vec![examined("w1", node)], Profile::Strict), ["Fail NODE-004 unusable"]);
}

#[test]
fn what_could_not_be_read_is_unknown_and_nothing_else_is() {
    let unread = || "it could not be read".to_owned();
    let cases: &[Unread] = &[
        (&["NODE-005"], |node, why| node.operating_system = Err(why)),
        (&["NODE-014"], |node, why| node.systemd_version = Err(why)),
        (&["NODE-012"], |node, why| node.cgroup_version = Err(why)),
        (&["NODE-010"], |node, why| node.file_system_errors = Err(why)),
        (&["NODE-008", "NODE-009"], |node, _| node.file_systems.clear()),
        (&["NODE-006"], |node, why| node.swaps = Err(why)),
        (&["NODE-013"], |node, _| node.kernel.release.clear()),
        (&["NODE-015"], |node, why| node.time = Err(why)),
        (&["NODE-004"], |node, why| node.package_source = Err(why)),
        (&["NODE-016"], |node, why| node.packet_filter = Err(why)),
        (&["NODE-020"], |node, why| node.ports = Err(why)),
        (&["NODE-002", "NODE-007", "NODE-018", "NODE-022"], |node, why| node.kubelet = Err(why)),
        (&["NODE-007"], |node, why| node.kubelet.as_mut().unwrap().edits = Err(why)),
    ];
    for (checks, change) in cases {
        let mut node = well();
        change(&mut node, unread());
        let expected: Vec<String> = checks.iter().map(|check| format!("Unknown {check} not-seen")).collect();
        assert_eq!(found(node), expected);
    }
}

#[test]
fn a_node_that_nobody_could_look_at_is_told_once() {
    let node = |answer| ExaminedNode { node: "w1".to_owned(), answer, machine: None };
    for (answer, expected) in [
        (Answer::Missing, "Fail NODE-003 missing"),
        (Answer::Silent { seconds: 90 }, "Fail NODE-003 silent"),
        (Answer::NoAnswer { why: "no answer within 90 s".to_owned() }, "Unknown NODE-003 no-answer"),
    ] {
        assert_eq!(findings(vec![node(answer)], Profile::Default), [expected]);
    }
}

#[test]
fn what_no_probe_could_be_made_for_makes_every_check_that_a_probe_answers_unknown() {
    let why = || "pods is forbidden".to_owned();
    let of_a_probe: Vec<&str> = {
        let of_nodes = catalogue::all().iter().filter(|check| check.scope == Scope::Node && check.not_built.is_none());
        of_nodes.map(|check| check.id).filter(|id| !probe::NOT_LOOKED_AT.contains(id)).collect()
    };
    assert!(of_a_probe.len() > 8 && of_a_probe.contains(&"NODE-006") && of_a_probe.contains(&"CP-009"));
    let w1 = ExaminedNode { node: "w1".to_owned(), answer: Answer::Unseen { why: why() }, machine: None };
    let expected: Vec<String> = of_a_probe.iter().map(|id| format!("Unknown {id} not-seen")).collect();
    assert_eq!(findings(vec![w1], Profile::Default), expected);
    let mut blind = Snapshot::blank("https://x", "v1.36.3", now());
    blind.nodes_unseen = Some(why());
    let question = Question {
        target: "1.37".parse().unwrap(),
        current: None,
        profile: Profile::Default,
        now: now(),
        max_parallel: 1,
    };
    let mut unknown = judge(&blind, &question);
    unknown.retain(|finding| finding.outcome == Outcome::Unknown && finding.subject == Subject::cluster());
    assert_eq!(unknown.iter().map(|finding| finding.check.as_str()).collect::<Vec<_>>(), of_a_probe);
}

fn master(etcd: Observed<EtcdClusterFacts>, hand_edits: Observed<Vec<HandEdit>>) -> Box<MachineFacts> {
    let nothing = || Observed::Unknown { problem: Problem::new(Code::Internal).with("what", "x"), since: now() };
    let control_plane = ControlPlaneFacts {
        components: Vec::new(),
        configured_version: None,
        etcd: EtcdFacts::Stacked { cluster: etcd },
        hand_edits,
        certificates: CertificateFacts { first_to_end: String::new(), ends_at: now(), external_ca: false },
        kubelet_server: String::new(),
        kubelet_server_is_local: true,
        refusing_webhook: None,
        kept: Vec::new(),
    };
    Box::new(MachineFacts {
        agent_version: "0".to_owned(),
        step_kinds: Vec::new(),
        machine_id: "m".into(),
        boot_id: "b".to_owned(),
        architecture: "amd64".to_owned(),
        kubelet: nothing(),
        container_runtime: nothing(),
        kubelet_edits: None,
        staging_free_bytes: 0,
        control_plane: Some(Box::new(control_plane)),
    })
}

fn member(healthy: bool) -> Observed<EtcdClusterFacts> {
    let healthy_version = healthy.then(|| "3.6.8".to_owned());
    let own = EtcdMemberFacts { id: 1, name: "m1".to_owned(), is_learner: false, healthy_version };
    Observed::Known(EtcdClusterFacts { own_id: 1, leader_id: 1, members: vec![own], alarms: Vec::new() })
}

#[test]
fn on_masters_etcd_and_manifests_are_judged_and_their_clocks_compared() {
    let unknown = || Problem::new(Code::EtcdNotWell).with("node", "m1").with("why", "it does not answer");
    let since = now();
    let edit = HandEdit { path: "/etc/kubernetes/manifests/etcd.yaml".to_owned(), difference: "+x".to_owned() };
    for (machine, expected) in [
        (master(member(true), Observed::Known(Vec::new())), &[][..]),
        (master(member(false), Observed::Known(Vec::new())), &["Fail CP-004 ill"]),
        (
            master(Observed::Unknown { problem: unknown(), since }, Observed::Known(Vec::new())),
            &["Unknown CP-004 not-seen"],
        ),
        (master(member(true), Observed::Known(vec![edit])), &["Fail CP-008 edited"]),
        (master(member(true), Observed::Unknown { problem: unknown(), since }), &["Unknown CP-008 not-seen"]),
    ] {
        let node = ExaminedNode { machine: Some(machine), ..examined("w1", well()) };
        assert_eq!(findings(vec![node], Profile::Default), expected);
    }
    let mut late = well();
    late.clock = "2026-11-24T00:00:07Z".parse().unwrap();
    let master = || Some(master(member(true), Observed::Known(Vec::new())));
    let nodes = vec![
        ExaminedNode { machine: master(), ..examined("w1", well()) },
        ExaminedNode { machine: master(), ..examined("w1", late) },
    ];
    assert_eq!(findings(nodes, Profile::Default), ["Warn NODE-015 differs", "Fail NODE-015 masters"]);
}
