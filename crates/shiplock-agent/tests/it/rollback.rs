//! A master that an upgrade has swapped is put back once, wherever the agent or the machine ends on the way; and what
//! refuses the way back touches nothing.

use std::cell::Cell;
use std::rc::Rc;

use shiplock_agent::control_plane::kept;
use shiplock_agent::journal::{Journal, Record, RecordLog as _};
use shiplock_agent::put_back::{self, Wanted};
use shiplock_agent::steps::unit_prefix;
use shiplock_core::artefact::ArtefactImage;
use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::{Action, ControlPlaneRestore, ControlPlaneUpgrade};
use shiplock_core::upgrade::StepOutcome;
use shiplock_core::version::KubernetesVersion;

use crate::control_plane::{KUBELET, ended_with, master, runtime, staged_swap};
use crate::fake::{FakeNode, image};
use crate::master::reference;
use crate::server::{FakeServer, Life, assignment, live};

const OLD: &str = "v1.35.4";
const ETCD: ControlPlaneComponent = ControlPlaneComponent::Etcd;
const SCHEDULER: ControlPlaneComponent = ControlPlaneComponent::KubeScheduler;

/// A master after its upgrade, and the step that takes it back by what the master itself tells of its copies.
async fn swapped(upgrade: ControlPlaneUpgrade) -> (Rc<FakeNode>, ControlPlaneRestore) {
    let node = master(&upgrade);
    let etcd_stays = upgrade.etcd_minor_changes;
    let (result, _) = ended_with(&node, Action::UpgradeControlPlane(Box::new(upgrade))).await;
    assert!(result.is_ok(), "{result:?}");
    node.acts.borrow_mut().clear();
    node.calls.set(0);
    node.unit_calls.set(0);
    let copies = kept::read(&*node, &node.path("/data"));
    let [kept] = copies.as_slice() else { panic!("{copies:?}") };
    let images: Vec<&str> = kept.images.iter().map(|image| image.reference.as_str()).collect();
    let old = ControlPlaneComponent::ALL.map(|component| reference(component, OLD));
    assert_eq!(images, old.each_ref().map(String::as_str));
    let restore = ControlPlaneRestore {
        upgrade: kept.upgrade.clone(),
        step: kept.step,
        intent: kept.intent,
        version: KubernetesVersion::new(1, 35, 4),
        is_only: false,
        etcd_stays,
        mirror: None,
        images: Vec::new(),
    };
    (node, restore)
}

fn action(restore: &ControlPlaneRestore) -> Action {
    Action::RestoreControlPlane(Box::new(restore.clone()))
}

async fn ended(node: &Rc<FakeNode>, restore: &ControlPlaneRestore) -> Result<StepOutcome, (Problem, bool)> {
    ended_with(node, action(restore)).await.0
}

/// Everything is as it was before the upgrade, and nothing is left lying about.
fn check_back(node: &FakeNode, when: &str) {
    assert_eq!(node.running("kubelet"), "kubelet v1.35.4", "{when}");
    assert_eq!(node.read("/var/lib/kubelet/config.yaml"), "configuration v1.35.4\n", "{when}");
    for component in ControlPlaneComponent::ALL {
        assert_eq!(node.image_of(component), reference(component, OLD), "{when}");
    }
    assert_eq!((node.leftovers(), node.units()), (Vec::new(), Vec::new()), "{when}");
}

/// Everything is still as the upgrade left it.
fn check_untouched(node: &FakeNode, when: &str) {
    assert_eq!(node.running("kubelet"), KUBELET, "{when}");
    for component in ControlPlaneComponent::ALL {
        assert_eq!((node.image_of(component), node.made(component)), (reference(component, "v1.36.3"), 2), "{when}");
    }
    assert_eq!((node.leftovers(), node.acts.borrow().as_slice()), (Vec::new(), &[][..]), "{when}");
}

#[tokio::test(start_paused = true)]
async fn a_master_is_put_back_with_one_stop_of_the_kubelet_and_every_component_is_read_back() {
    let (node, restore) = swapped(staged_swap()).await;
    let (result, server) = ended_with(&node, action(&restore)).await;
    let Ok(StepOutcome::Swapped { components, .. }) = result else { panic!("{result:?}") };
    let expected = ["etcd 3.6.6-0", "kube-apiserver v1.35.4", "kube-controller-manager v1.35.4"];
    assert_eq!(components[..3], expected);
    assert_eq!(components[3..], ["kube-scheduler v1.35.4", "kubelet v1.35.4"]);
    assert_eq!(*node.acts.borrow(), ["stop kubelet", "start kubelet"]);
    assert_eq!(*server.permits.borrow(), ["swap"]);
    check_back(&node, "back");
    let (again, server) = ended_with(&node, action(&restore)).await;
    assert_eq!((again, server.permits.borrow().len()), (Ok(StepOutcome::AlreadyDone), 0));
}

#[test]
fn a_crash_of_the_agent_at_any_call_stops_the_kubelet_once() {
    runtime().block_on(async {
        let none = Rc::new(Cell::new(None));
        let (node, restore) = swapped(staged_swap()).await;
        assert_eq!(live(&node, &FakeServer::offering(action(&restore)), &none).await, Life::Settled);
        let calls = node.calls.get();
        assert!(calls > 30, "{calls} calls");
        for call in 0..calls {
            let (node, restore) = swapped(staged_swap()).await;
            let server = FakeServer::offering(action(&restore));
            node.fuse.set(Some(call));
            let first = live(&node, &server, &none).await;
            node.fuse.set(None);
            if first == Life::Crashed {
                live(&node, &server, &none).await;
            }
            let when = format!("crash at call {call}");
            check_back(&node, &when);
            assert_eq!(*node.acts.borrow(), ["stop kubelet", "start kubelet"], "{when}");
        }
    });
}

#[test]
fn a_power_cut_at_any_point_of_the_way_back_is_brought_to_its_end() {
    runtime().block_on(async {
        let none = Rc::new(Cell::new(None));
        let (node, restore) = swapped(staged_swap()).await;
        assert_eq!(live(&node, &FakeServer::offering(action(&restore)), &none).await, Life::Settled);
        let calls = node.unit_calls.get();
        assert!(calls >= 6, "{calls} calls");
        for call in 0..calls {
            let (node, restore) = swapped(staged_swap()).await;
            let server = FakeServer::offering(action(&restore));
            node.power_fuse.set(Some(call));
            assert_eq!(live(&node, &server, &none).await, Life::Crashed);
            live(&node, &server, &none).await;
            check_back(&node, &format!("power cut at call {call}: {:?}", node.acts.borrow()));
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_master_is_not_put_back_while_the_others_are_not_well_or_what_it_needs_is_not_there() {
    for (what, code, retryable) in [
        ("alarm", Code::EtcdNotWell, true),
        ("member down", Code::EtcdNotWell, true),
        ("api server down", Code::NoOtherApiServer, true),
        ("old image", Code::OldImageGone, false),
        ("copies", Code::FileUnusable, false),
        ("disk", Code::DiskFull, false),
    ] {
        let (node, restore) = swapped(staged_swap()).await;
        match what {
            "alarm" => node.master.alarm.set(true),
            "member down" => node.master.other_etcd_healthy.set(false),
            "api server down" => node.master.other_ready.set(false),
            "old image" => node.remove_image(&reference(SCHEDULER, OLD)),
            "copies" => std::fs::remove_dir_all(node.path("/data/control-plane")).unwrap(),
            _ => node.free.set(1000),
        }
        let (problem, again) = ended(&node, &restore).await.unwrap_err();
        assert_eq!((problem.code, again), (code, retryable), "{what}: {problem}");
        if what == "old image" {
            assert_eq!(problem.parameters["image"], reference(SCHEDULER, OLD));
        }
        check_untouched(&node, what);
    }
}

#[tokio::test(start_paused = true)]
async fn an_old_image_that_is_gone_comes_from_the_mirror() {
    let (node, restore) = swapped(staged_swap()).await;
    let archive = "archive kube-scheduler v1.35.4";
    node.remove_image(&reference(SCHEDULER, OLD));
    node.write("/mirror/images/kube-scheduler.tar", archive);
    let held = ArtefactImage { reference: reference(SCHEDULER, OLD), ..image(SCHEDULER.name(), archive) };
    let mirror = Some(node.path("/mirror").display().to_string());
    let result = ended(&node, &ControlPlaneRestore { mirror, images: vec![held], ..restore }).await;
    assert!(matches!(result, Ok(StepOutcome::Swapped { .. })), "{result:?}");
    assert_eq!(*node.acts.borrow(), ["import", "stop kubelet", "start kubelet"]);
    check_back(&node, "imported");
}

#[tokio::test(start_paused = true)]
async fn etcd_stays_where_its_minor_version_changed() {
    let (node, restore) = swapped(ControlPlaneUpgrade { etcd_minor_changes: true, ..staged_swap() }).await;
    assert!(matches!(ended(&node, &restore).await, Ok(StepOutcome::Swapped { .. })));
    assert_eq!(node.image_of(ETCD), reference(ETCD, "v1.36.3"));
    assert_eq!(node.image_of(SCHEDULER), reference(SCHEDULER, OLD));
    assert_eq!(node.running("kubelet"), "kubelet v1.35.4");
    assert_eq!(ended(&node, &restore).await, Ok(StepOutcome::AlreadyDone), "what stays is no work");
}

#[tokio::test(start_paused = true)]
async fn an_old_component_that_does_not_come_up_is_named() {
    let (node, restore) = swapped(staged_swap()).await;
    let old = kept::folder(&node.path("/data"), &restore.upgrade, restore.step, restore.intent).join(kept::OLD);
    let path = old.join("kube-scheduler.yaml");
    let broken = std::fs::read_to_string(&path).unwrap() + "    - --not-known\n";
    std::fs::write(&path, &broken).unwrap();
    let (problem, retryable) = ended(&node, &restore).await.unwrap_err();
    assert_eq!((problem.code, retryable), (Code::ControlPlaneNotUp, false));
    assert_eq!(problem.parameters["component"], "kube-scheduler");
    assert_eq!(problem.parameters["version"], OLD);
    assert!(path.exists(), "the copies stay for a further attempt");
}

#[tokio::test(start_paused = true)]
async fn the_only_master_goes_back_although_its_etcd_does_not_answer() {
    let (node, restore) = swapped(staged_swap()).await;
    node.master.new_etcd_silent.set(true);
    let (problem, _) = ended(&node, &restore).await.unwrap_err();
    assert_eq!(problem.code, Code::EtcdNotWell, "where there are others, nothing is done to what cannot be read");
    let result = ended(&node, &ControlPlaneRestore { is_only: true, ..restore }).await;
    assert!(matches!(result, Ok(StepOutcome::Swapped { .. })), "{result:?}");
    check_back(&node, "back");
}

/// What a way back by hand is asked with, by default.
fn wanted() -> Wanted {
    Wanted { node: "w1".into(), upgrade: None, only_master: false }
}

#[tokio::test(start_paused = true)]
async fn a_master_is_put_back_by_hand_as_a_rollback_would() {
    let (node, restore) = swapped(staged_swap()).await;
    let data = node.path("/data");
    let back = put_back::prepare(&*node, &data, &wanted()).await.unwrap();
    let Action::RestoreControlPlane(action) = &back.assignment.action else { panic!("{back:?}") };
    assert_eq!(**action, restore, "the very step of a rollback");
    let changes = back.changes.iter().map(|(component, now, after)| format!("{} {now} {after}", component.name()));
    assert_eq!(changes.collect::<Vec<_>>()[1], "kube-apiserver v1.36.3 v1.35.4");
    check_untouched(&node, "shown");
    assert!(matches!(ended(&node, action).await, Ok(StepOutcome::Swapped { .. })));
    check_back(&node, "back");

    // Asked again: the add-ons, which are as old as the API server now, are no sign that it went too far.
    back.forget(&data);
    let again = put_back::prepare(&*node, &data, &wanted()).await.unwrap();
    assert!(again.changes.iter().all(|(_, now, after)| now == after), "{again:?}");
}

/// The journal of an agent that was stopped in the middle of a step.
fn accept_step(node: &FakeNode) {
    let (mut journal, _) = Journal::open(&node.path("/data/journal"), |records| records).unwrap();
    let assignment = Box::new(assignment(Action::CollectLogs));
    journal.append(&Record::Accepted { assignment, boot_id: "b1".to_owned() }).unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_put_back_by_hand_beside_the_agent_or_on_a_guess() {
    for (what, why) in [
        ("service", "its agent is active: stop it first"),
        ("step", "step 5 of upgrade u1 has begun on it"),
        ("copies", "it keeps no copies"),
        ("beside", "it is being put back at this moment, by the unit shiplock-u1-"),
        ("another", "no copies of upgrade u9"),
        ("add-ons", "add-ons were upgraded"),
        ("etcd", "whether there are other masters cannot be read"),
    ] {
        let (node, _) = swapped(staged_swap()).await;
        let mut asked = wanted();
        match what {
            "service" => node.add_service("shiplock-agent"),
            "step" => accept_step(&node),
            "copies" => std::fs::remove_dir_all(node.path("/data/control-plane")).unwrap(),
            "add-ons" => node.master.addons.borrow_mut().0 = "v1.36.3".to_owned(),
            "another" => asked.upgrade = Some("u9".into()),
            "beside" => {
                let back = put_back::prepare(&*node, &node.path("/data"), &asked).await.unwrap();
                node.add_running_unit(&format!("{}swap", unit_prefix(&back.assignment.id)));
            }
            _ => node.master.new_etcd_silent.set(true),
        }
        let problem = put_back::prepare(&*node, &node.path("/data"), &asked).await.unwrap_err();
        assert_eq!(problem.code, Code::RestoreRefused, "{what}: {problem}");
        assert!(problem.parameters["why"].contains(why), "{what}: {problem}");
        check_untouched(&node, what);
        let alone = Wanted { only_master: true, ..asked };
        let result = put_back::prepare(&*node, &node.path("/data"), &alone).await;
        assert_eq!(result.is_ok(), what == "etcd", "{what}: only what nobody can read is taken on trust");
    }
}
