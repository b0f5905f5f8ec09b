//! A master is swapped once, wherever the agent or the machine ends on the way; and what refuses it touches nothing.

use std::cell::Cell;
use std::rc::Rc;

use shiplock_agent::facts::FactsReader;
use shiplock_agent::swap::SwapPlan;
use shiplock_api::agent::ReportKind;
use shiplock_core::artefact::ArtefactImage;
use shiplock_core::facts::{ControlPlaneComponent, Observed};
use shiplock_core::id::{StepNumber, UpgradeId};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::{Action, ControlPlaneMethod, ControlPlaneUpgrade, Emulation};
use shiplock_core::upgrade::StepOutcome;
use shiplock_core::version::{KubernetesVersion, MinorVersion};

use crate::fake::{FakeNode, digest, file};
use crate::master::{manifest_path, reference};
use crate::server::{FakeServer, Life, live};

const VERSION: &str = "v1.36.3";
pub(crate) const KUBELET: &str = "kubelet v1.36.3";
const KUBEADM: &str = "kubeadm v1.36.3";
const ETCD: ControlPlaneComponent = ControlPlaneComponent::Etcd;
const API_SERVER: ControlPlaneComponent = ControlPlaneComponent::KubeApiserver;
const SCHEDULER: ControlPlaneComponent = ControlPlaneComponent::KubeScheduler;

fn image(component: ControlPlaneComponent) -> ArtefactImage {
    let reference = reference(component, VERSION);
    ArtefactImage {
        role: component.name().to_owned(),
        architecture: "amd64".to_owned(),
        path: format!("images/{}.tar", component.name()),
        size_bytes: 1,
        sha256: digest(&reference),
        digest: format!("sha256:{}", digest(&format!("manifest of {reference}"))),
        image_id: None,
        reference,
    }
}

fn upgrade(kubelet: &str, kubeadm: &str) -> ControlPlaneUpgrade {
    ControlPlaneUpgrade {
        version: KubernetesVersion::new(1, 36, 3),
        components: ControlPlaneComponent::ALL.to_vec(),
        images: ControlPlaneComponent::ALL.into_iter().map(image).collect(),
        files: vec![file("kubelet", kubelet), file("kubeadm", kubeadm)],
        method: ControlPlaneMethod::StagedSwap,
        is_first: true,
        is_only: false,
        etcd_minor_changes: false,
        renew_certificates: false,
        patches_folder: None,
        hand_edits_accepted: false,
        ignore_preflight_errors: Vec::new(),
        emulation: None,
    }
}

pub(crate) fn staged_swap() -> ControlPlaneUpgrade {
    upgrade(KUBELET, KUBEADM)
}

pub(crate) fn master(upgrade: &ControlPlaneUpgrade) -> Rc<FakeNode> {
    let node = FakeNode::new();
    node.become_master();
    for content in [KUBELET, KUBEADM, "kubelet broken v1.36.3", "kubeadm v1.36.3 broken-kube-scheduler"] {
        if upgrade.files.iter().any(|file| file.sha256 == digest(content)) {
            node.stage(content);
        }
    }
    node
}

async fn ended(
    node: &Rc<FakeNode>,
    upgrade: ControlPlaneUpgrade,
) -> (Result<StepOutcome, (Problem, bool)>, Rc<FakeServer>) {
    ended_with(node, Action::UpgradeControlPlane(Box::new(upgrade))).await
}

pub(crate) async fn ended_with(
    node: &Rc<FakeNode>,
    action: Action,
) -> (Result<StepOutcome, (Problem, bool)>, Rc<FakeServer>) {
    let server = FakeServer::offering(action);
    assert_eq!(live(node, &server, &Rc::new(Cell::new(None))).await, Life::Settled);
    let kind = server.reports.borrow().last().unwrap().kind.clone();
    let result = match kind {
        ReportKind::Succeeded { outcome, .. } => Ok(outcome),
        ReportKind::Failed { problem, retryable } => Err((problem, retryable)),
        ReportKind::Progress { .. } => unreachable!("progress is not kept"),
    };
    (result, server)
}

/// Everything is at the target and nothing is left lying about.
fn check_swapped(node: &FakeNode, when: &str) {
    assert_eq!(node.running("kubelet"), KUBELET, "{when}");
    for component in ControlPlaneComponent::ALL {
        assert_eq!(node.image_of(component), reference(component, VERSION), "{when}");
    }
    assert_eq!(node.leftovers(), [""; 0], "{when}");
    assert_eq!(node.units(), [""; 0], "{when}: no unit is left");
}

/// Everything is as it was.
fn check_untouched(node: &FakeNode, when: &str) {
    assert_eq!(node.running("kubelet"), "kubelet v1.35.4", "{when}");
    for component in ControlPlaneComponent::ALL {
        assert_eq!(node.image_of(component), reference(component, "v1.35.4"), "{when}");
        assert_eq!(node.made(component), 1, "{when}: no container was touched");
    }
    assert!(!node.acts.borrow().iter().any(|act| act.contains("kubelet")), "{when}: {:?}", node.acts.borrow());
}

#[tokio::test(start_paused = true)]
async fn a_master_is_swapped_with_one_stop_of_the_kubelet_and_every_component_is_read_back() {
    let node = master(&staged_swap());
    let (result, server) = ended(&node, staged_swap()).await;
    let Ok(StepOutcome::Swapped { components, difference, .. }) = result else { panic!("{result:?}") };
    assert_eq!(
        components,
        [
            "etcd 3.6.8-0",
            "kube-apiserver v1.36.3",
            "kube-controller-manager v1.36.3",
            "kube-scheduler v1.36.3",
            "kubelet v1.36.3"
        ]
    );
    assert!(difference.contains("+    - --new-default=1"), "{difference}");
    assert_eq!(*node.acts.borrow(), ["configure", "stop kubelet", "start kubelet"]);
    assert_eq!(*server.permits.borrow(), ["configure", "swap"]);
    check_swapped(&node, "swapped");
    for component in ControlPlaneComponent::ALL {
        assert_eq!(node.made(component), 2, "each was made once, by the new kubelet");
    }
    let (again, server) = ended(&node, staged_swap()).await;
    assert_eq!((again, server.permits.borrow().len()), (Ok(StepOutcome::AlreadyDone), 0));
}

#[test]
fn a_crash_of_the_agent_at_any_call_stops_the_kubelet_once() {
    runtime().block_on(async {
        let none = Rc::new(Cell::new(None));
        let action = || Action::UpgradeControlPlane(Box::new(staged_swap()));
        let node = master(&staged_swap());
        assert_eq!(live(&node, &FakeServer::offering(action()), &none).await, Life::Settled);
        let calls = node.calls.get();
        assert!(calls > 50, "{calls} calls");
        for call in 0..calls {
            let node = master(&staged_swap());
            let server = FakeServer::offering(action());
            node.fuse.set(Some(call));
            let first = live(&node, &server, &none).await;
            node.fuse.set(None);
            if first == Life::Crashed {
                live(&node, &server, &none).await;
            }
            let when = format!("crash at call {call}");
            check_swapped(&node, &when);
            assert_eq!(*node.acts.borrow(), ["configure", "stop kubelet", "start kubelet"], "{when}");
        }
    });
}

#[test]
fn a_power_cut_at_any_point_of_the_swap_is_brought_to_its_end() {
    runtime().block_on(async {
        let none = Rc::new(Cell::new(None));
        let action = || Action::UpgradeControlPlane(Box::new(staged_swap()));
        let node = master(&staged_swap());
        assert_eq!(live(&node, &FakeServer::offering(action()), &none).await, Life::Settled);
        let calls = node.unit_calls.get();
        assert!(calls >= 6, "{calls} calls");
        for call in 0..calls {
            let node = master(&staged_swap());
            let server = FakeServer::offering(action());
            node.power_fuse.set(Some(call));
            assert_eq!(live(&node, &server, &none).await, Life::Crashed);
            live(&node, &server, &none).await;
            let when = format!("power cut at call {call}: {:?}", node.acts.borrow());
            check_swapped(&node, &when);
            let stops = node.acts.borrow().iter().filter(|act| *act == "stop kubelet").count();
            assert!(stops <= 2, "{when}");
        }
    });
}

/// A kubelet that has just booted, or looks after a container that ended, may start one while it is being stopped: the old
/// API server would run on beside a newer kubelet.
#[tokio::test(start_paused = true)]
async fn a_static_pod_that_the_kubelet_starts_while_it_is_being_stopped_does_not_outlive_it() {
    for component in ControlPlaneComponent::ALL {
        let node = master(&staged_swap());
        node.master.made_last.set(Some(component));
        let (result, _) = ended(&node, staged_swap()).await;
        assert!(result.is_ok(), "{result:?}");
        check_swapped(&node, component.name());
        assert_eq!(*node.master.ran_at_start.borrow(), [], "ran when the new kubelet was started");
    }
}

/// Renames the first files of a swap as its unit would have, and boots. How many files the swap has.
fn cut_between_renames(node: &FakeNode, folder: &str, count: usize) -> usize {
    let attempts = std::fs::read_dir(node.path("/data/control-plane/u1")).unwrap();
    let attempt = attempts.map(|entry| entry.unwrap().path()).next().unwrap();
    let plan = SwapPlan::find(&attempt.join(folder)).unwrap();
    for file in plan.files.iter().take(count) {
        std::fs::rename(node.path(&file.place), node.path(&file.target)).unwrap();
    }
    node.boot();
    plan.files.len()
}

/// What a boot starts now keeps the rules of version skew on this master.
fn check_skew(node: &FakeNode, when: &str) {
    let is_new = |component| node.image_of(component).ends_with(VERSION);
    let api_server = is_new(API_SERVER);
    assert!(api_server || node.running("kubelet") != KUBELET, "{when}: the kubelet is newer than the API server");
    for component in [SCHEDULER, ControlPlaneComponent::KubeControllerManager] {
        assert!(api_server || !is_new(component), "{when}: {} is newer than the API server", component.name());
    }
}

#[test]
fn a_power_cut_between_any_two_files_leaves_versions_that_may_run_together() {
    runtime().block_on(async {
        let none = Rc::new(Cell::new(None));
        let whole = master(&staged_swap());
        assert!(ended(&whole, staged_swap()).await.0.is_ok());
        let forward_calls = whole.unit_calls.get();
        for (folder, kubeadm, power_fuse) in
            [("forward", KUBEADM, 0), ("back", "kubeadm v1.36.3 broken-kube-scheduler", forward_calls)]
        {
            let upgrade = upgrade(KUBELET, kubeadm);
            let (mut count, mut files) = (0, 1);
            while count <= files {
                let node = master(&upgrade);
                let server = FakeServer::offering(Action::UpgradeControlPlane(Box::new(upgrade.clone())));
                node.power_fuse.set(Some(power_fuse));
                let when = format!("{folder}, {count} files");
                assert_eq!(live(&node, &server, &none).await, Life::Crashed, "{when}");
                files = cut_between_renames(&node, folder, count);
                check_skew(&node, &when);
                live(&node, &server, &none).await;
                match folder {
                    "forward" => check_swapped(&node, &when),
                    _ => assert_eq!(node.running("kubelet"), "kubelet v1.35.4", "{when}"),
                }
                count += 1;
            }
            assert!(files >= 6, "two programs and four manifests: {files}");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn what_does_not_come_up_is_swapped_back_and_named_with_its_last_words() {
    for (kubelet, kubeadm, code) in [
        (KUBELET, "kubeadm v1.36.3 broken-kube-scheduler", Code::ControlPlaneNotUp),
        ("kubelet broken v1.36.3", KUBEADM, Code::ServiceNotUp),
    ] {
        let upgrade = upgrade(kubelet, kubeadm);
        let node = master(&upgrade);
        let before = node.manifests();
        let (result, server) = ended(&node, upgrade).await;
        let (problem, retryable) = result.unwrap_err();
        assert_eq!((problem.code, retryable), (code, false), "{problem}");
        if code == Code::ControlPlaneNotUp {
            assert_eq!(problem.parameters["component"], "kube-scheduler");
            assert!(problem.causes.iter().any(|cause| cause.contains("unknown flag: --not-known")), "{problem}");
        }
        assert!(problem.causes.iter().any(|cause| cause.contains("was put back and runs")), "{problem}");
        assert_eq!(node.manifests(), before);
        assert_eq!(node.running("kubelet"), "kubelet v1.35.4");
        assert_eq!(node.read("/var/lib/kubelet/config.yaml"), "configuration v1.35.4\n");
        assert_eq!(node.image_of(SCHEDULER), reference(SCHEDULER, "v1.35.4"));
        assert_eq!(*server.permits.borrow(), ["configure", "swap"], "putting back needs no permit");
    }
}

#[tokio::test(start_paused = true)]
async fn a_master_is_not_touched_while_etcd_or_the_other_api_servers_are_not_well() {
    for (what, code) in
        [("alarm", Code::EtcdNotWell), ("member down", Code::EtcdNotWell), ("api server down", Code::NoOtherApiServer)]
    {
        let node = master(&staged_swap());
        match what {
            "alarm" => node.master.alarm.set(true),
            "member down" => node.master.other_etcd_healthy.set(false),
            _ => node.master.other_ready.set(false),
        }
        let (result, _) = ended(&node, staged_swap()).await;
        let (problem, retryable) = result.unwrap_err();
        assert_eq!((problem.code, retryable), (code, true), "{what}: {problem}");
        check_untouched(&node, what);
        assert_eq!(node.leftovers(), [""; 0], "{what}");
    }
    // The only master asks for nobody else, and yet not while an alarm is raised.
    for (alarm, done) in [(false, true), (true, false)] {
        let only = ControlPlaneUpgrade { is_only: true, ..staged_swap() };
        let node = master(&only);
        node.master.masters.set(1);
        node.master.leader.set(1);
        node.master.alarm.set(alarm);
        assert_eq!(ended(&node, only).await.0.is_ok(), done);
    }
}

#[tokio::test(start_paused = true)]
async fn the_leadership_of_etcd_is_moved_away_first() {
    let node = master(&staged_swap());
    node.master.leader.set(1);
    assert!(ended(&node, staged_swap()).await.0.is_ok());
    assert_eq!(*node.acts.borrow(), ["configure", "move leader", "stop kubelet", "start kubelet"]);
}

#[tokio::test(start_paused = true)]
async fn edits_by_hand_a_missing_image_a_full_disk_a_newer_etcd_and_a_webhook_are_found_before_anything_is_touched() {
    let path = manifest_path(SCHEDULER);
    let edit = |node: &FakeNode| node.write(&path, &format!("{}    - --v=9\n", node.read(&path)));
    for (what, code) in [
        ("edit", Code::HandEdited),
        ("other kubeadm", Code::HandEdited),
        ("image", Code::ImageGone),
        ("disk", Code::DiskFull),
        ("newer etcd", Code::Downgrade),
        ("webhook", Code::WebhookRefuses),
    ] {
        let node = master(&staged_swap());
        match what {
            "edit" => edit(&node),
            "other kubeadm" => node.write("/usr/bin/kubeadm", "kubeadm v1.34.0"),
            "webhook" => node.master.webhook.set(true),
            "image" => node.remove_image(&reference(SCHEDULER, VERSION)),
            "newer etcd" => {
                let path = manifest_path(ETCD);
                node.write(&path, &node.read(&path).replace("3.6.6-0", "3.7.0-0"));
            }
            _ => node.free.set(1000),
        }
        let (result, server) = ended(&node, staged_swap()).await;
        let (problem, _) = result.unwrap_err();
        assert_eq!(problem.code, code, "{what}: {problem}");
        if what == "edit" {
            assert_eq!(problem.parameters["path"], path);
            assert!(problem.causes[0].contains("+    - --v=9"), "{problem}");
        }
        assert_eq!(*server.permits.borrow(), [""; 0], "{what}");
        check_untouched(&node, what);
    }
    let accepted = ControlPlaneUpgrade { hand_edits_accepted: true, ..staged_swap() };
    let node = master(&accepted);
    edit(&node);
    assert!(ended(&node, accepted).await.0.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_image_under_a_false_tag_is_found_by_read_back() {
    let node = master(&staged_swap());
    node.master.false_image.set(true);
    let (result, _) = ended(&node, staged_swap()).await;
    let (problem, _) = result.unwrap_err();
    assert_eq!(problem.code, Code::ControlPlaneNotUp);
    assert!(problem.parameters["state"].contains("it runs image"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn etcd_alone_is_swapped_alone_and_the_others_afterwards_without_it() {
    let alone = ControlPlaneUpgrade { components: vec![ETCD], files: vec![file("kubeadm", KUBEADM)], ..staged_swap() };
    let node = master(&staged_swap());
    assert!(ended(&node, alone).await.0.is_ok());
    assert_eq!(node.image_of(ETCD), reference(ETCD, VERSION));
    assert_eq!((node.image_of(SCHEDULER), node.made(SCHEDULER)), (reference(SCHEDULER, "v1.35.4"), 1));
    // An API server without its etcd would keep the kubelet waiting that is to start etcd.
    assert_eq!((node.image_of(API_SERVER), node.made(API_SERVER)), (reference(API_SERVER, "v1.35.4"), 2));
    assert_eq!(node.running("kubelet"), "kubelet v1.35.4");
    let rest = ControlPlaneUpgrade { components: ControlPlaneComponent::ALL[1..].to_vec(), ..staged_swap() };
    let (result, _) = ended(&node, rest).await;
    assert!(result.is_ok(), "what was rendered before is no edit by hand: {result:?}");
    check_swapped(&node, "both");
}

const EMULATED: MinorVersion = MinorVersion { major: 1, minor: 35 };

/// The two swaps of a soak: components that emulate, and then what they are with the kubelet.
fn soak_swaps() -> [ControlPlaneUpgrade; 2] {
    let begins = ControlPlaneUpgrade {
        files: vec![file("kubeadm", KUBEADM)],
        emulation: Some(Emulation::Begins { of: EMULATED }),
        ..staged_swap()
    };
    let ends = ControlPlaneUpgrade {
        components: ControlPlaneComponent::ALL[1..].to_vec(),
        emulation: Some(Emulation::Ends { of: EMULATED }),
        ..staged_swap()
    };
    [begins, ends]
}

#[tokio::test(start_paused = true)]
async fn components_emulate_until_they_step_up_and_both_are_read_from_what_runs() {
    let [begins, ends] = soak_swaps();
    let node = master(&staged_swap());
    let (result, _) = ended(&node, begins.clone()).await;
    let Ok(StepOutcome::Swapped { components, .. }) = result else { panic!("{result:?}") };
    let expected = ["etcd 3.6.8-0", "kube-apiserver v1.36.3 (emulates 1.35)"];
    assert_eq!(components[..2], expected);
    assert_eq!(node.running("kubelet"), "kubelet v1.35.4", "the kubelet stays");
    let emulates = || node.manifests().iter().filter(|text| text.contains("--emulated-version=1.35")).count();
    assert_eq!(emulates(), 3);
    assert_eq!(ended(&node, begins).await.0, Ok(StepOutcome::AlreadyDone));

    let (result, _) = ended(&node, ends.clone()).await;
    let Ok(StepOutcome::Swapped { difference, .. }) = result else { panic!("{result:?}") };
    assert!(difference.contains("-    - --emulated-version=1.35"), "{difference}");
    assert_eq!(emulates(), 0);
    check_swapped(&node, "stepped up");
    assert_eq!(ended(&node, ends).await.0, Ok(StepOutcome::AlreadyDone));
}

#[tokio::test(start_paused = true)]
async fn what_is_edited_during_a_soak_is_not_lost_unseen() {
    let [begins, ends] = soak_swaps();
    let node = master(&staged_swap());
    assert!(ended(&node, begins).await.0.is_ok());
    let path = crate::master::manifest_path(SCHEDULER);
    node.write(&path, &(node.read(&path) + "    - --v=1\n"));
    node.sync_pods();
    let (problem, _) = ended(&node, ends.clone()).await.0.unwrap_err();
    assert_eq!(problem.code, Code::HandEdited, "{problem}");
    let lost: Vec<_> = problem.causes[0].lines().skip(2).filter(|line| line.starts_with(['+', '-'])).collect();
    assert_eq!(lost, ["+    - --v=1"], "what emulates is no edit");
    let accepted = ControlPlaneUpgrade { hand_edits_accepted: true, ..ends };
    assert!(ended(&node, accepted).await.0.is_ok());
}

#[tokio::test(start_paused = true)]
async fn etcd_never_goes_back_over_a_minor_version() {
    let changes =
        ControlPlaneUpgrade { etcd_minor_changes: true, ..upgrade(KUBELET, "kubeadm v1.36.3 broken-kube-scheduler") };
    let node = master(&changes);
    let (result, _) = ended(&node, changes).await;
    let (problem, _) = result.unwrap_err();
    assert!(problem.causes.iter().any(|cause| cause.contains("etcd stays")), "{problem}");
    assert!(problem.causes.iter().any(|cause| cause.contains("was put back and runs")), "{problem}");
    assert_eq!(node.image_of(ETCD), reference(ETCD, VERSION));
    assert_eq!(node.image_of(SCHEDULER), reference(SCHEDULER, "v1.35.4"));
}

#[tokio::test(start_paused = true)]
async fn certificates_are_renewed_where_the_plan_says_so_and_kubeadms_own_way_ends_in_the_same_state() {
    let renewing = ControlPlaneUpgrade { renew_certificates: true, ..staged_swap() };
    let node = master(&renewing);
    assert!(ended(&node, renewing).await.0.is_ok());
    assert_eq!(*node.acts.borrow(), ["configure", "renew all", "stop kubelet", "start kubelet"]);

    let by_kubeadm = ControlPlaneUpgrade { method: ControlPlaneMethod::Kubeadm, ..staged_swap() };
    let node = master(&by_kubeadm);
    let (result, server) = ended(&node, by_kubeadm).await;
    assert!(matches!(result, Ok(StepOutcome::Swapped { .. })), "{result:?}");
    assert_eq!(
        *node.acts.borrow(),
        ["apply v1.36.3 --yes --certificate-renewal=false", "stop kubelet", "start kubelet"]
    );
    assert_eq!(*server.permits.borrow(), ["apply", "swap"]);
    check_swapped(&node, "kubeadm");
}

#[tokio::test(start_paused = true)]
async fn configuration_and_add_ons_are_brought_up_once() {
    let node = master(&staged_swap());
    let version = KubernetesVersion::new(1, 36, 3);
    let upload = || Action::UploadConfiguration { version, kubeadm: file("kubeadm", KUBEADM) };
    let addons = || Action::UpgradeAddons { version, kubeadm: file("kubeadm", KUBEADM) };
    let (result, _) = ended_with(&node, addons()).await;
    let (problem, retryable) = result.unwrap_err();
    assert_eq!((problem.code, retryable), (Code::ReadBackMismatch, true), "an API server is behind: {problem}");
    let (problem, retryable) = ended_with(&node, upload()).await.0.unwrap_err();
    assert_eq!((problem.code, retryable), (Code::ReadBackMismatch, false), "this master is old: {problem}");
    assert_eq!(*node.master.uploaded.borrow(), "v1.35.4");
    assert!(ended(&node, staged_swap()).await.0.is_ok());
    let mut reader = FactsReader::default();
    assert_eq!(configured(&mut reader, &node).await, "v1.35.4");
    assert_eq!(ended_with(&node, upload()).await.0, Ok(StepOutcome::Done));
    assert_eq!(*node.master.uploaded.borrow(), VERSION);
    node.write("/usr/bin/kubectl", "kubectl");
    let restore = || Action::RestoreConfiguration { upgrade: UpgradeId::from("u1"), step: StepNumber(5) };
    assert_eq!(ended_with(&node, restore()).await.0, Ok(StepOutcome::Done));
    assert_eq!(*node.master.uploaded.borrow(), "v1.35.4", "a way back brings what was there before");
    assert_eq!(ended_with(&node, restore()).await.0, Ok(StepOutcome::AlreadyDone));
    assert_eq!(ended_with(&node, upload()).await.0, Ok(StepOutcome::Done));
    assert_eq!(configured(&mut reader, &node).await, VERSION, "the next plan must not take it for stale");
    assert_eq!(ended_with(&node, upload()).await.0, Ok(StepOutcome::AlreadyDone));
    assert_eq!(ended_with(&node, addons()).await.0, Ok(StepOutcome::Done));
    assert_eq!(*node.master.addons.borrow(), (VERSION.to_owned(), "v1.14.2".to_owned()));
    assert_eq!(ended_with(&node, addons()).await.0, Ok(StepOutcome::AlreadyDone));
}

/// The version that ConfigMap `kubeadm-config` names, as the facts after a step have it.
async fn configured(reader: &mut FactsReader, node: &Rc<FakeNode>) -> String {
    let facts = reader.read(&**node, &node.path("/var/lib/shiplock-agent")).await;
    let Some(Observed::Known(version)) = facts.control_plane.unwrap().configured_version else { panic!("not read") };
    version
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}
