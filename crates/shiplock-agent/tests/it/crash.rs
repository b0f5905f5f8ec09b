//! The agent crashes at every journal write and at every call of the node, and every act happens once.

use std::cell::Cell;
use std::rc::Rc;

use shiplock_api::agent::ReportKind;
use shiplock_core::step::Action;
use shiplock_core::version::KubernetesVersion;

use crate::etcd::{backup, left_over, master};
use crate::fake::{FakeNode, file, image};
use crate::server::{FakeServer, Life, live};

const KUBELET: &str = "kubelet v1.36.3";
const KUBEADM: &str = "kubeadm v1.36.3";
const CONTAINERD: &str = "containerd v2.2.9";
const SHIM: &str = "shim v2.2.9";
const PAUSE: &str = "archive pause";

fn kubelet() -> Action {
    Action::UpgradeKubelet {
        version: KubernetesVersion::new(1, 36, 3),
        files: vec![file("kubelet", KUBELET), file("kubeadm", KUBEADM)],
    }
}

fn containerd() -> Action {
    Action::UpgradeContainerRuntime {
        version: "v2.2.9".to_owned(),
        files: vec![file("containerd", CONTAINERD), file("containerd-shim-runc-v2", SHIM)],
        sandbox_image: Some("registry.k8s.io/pause:3.10.2".to_owned()),
    }
}

/// A node with everything staged, and a mirror folder.
fn node() -> Rc<FakeNode> {
    let node = master();
    for content in [KUBELET, KUBEADM, CONTAINERD, SHIM] {
        node.stage(content);
    }
    node.write("/mirror/bin/kubelet", KUBELET);
    node.write("/mirror/images/pause.tar", PAUSE);
    node
}

fn prefetch(node: &FakeNode) -> Action {
    Action::Prefetch {
        mirror: node.path("/mirror").display().to_string(),
        files: vec![file("kubelet", KUBELET)],
        images: vec![image("pause", PAUSE)],
    }
}

/// What must hold at the end, whatever happened on the way.
fn check(kind: &str, node: &FakeNode, server: &FakeServer, when: &str) {
    let reports = server.reports.borrow();
    assert!(matches!(reports.last().unwrap().kind, ReportKind::Succeeded { .. }), "{when}: {reports:?}");
    let acts = node.acts.borrow().clone();
    let expected: &[&str] = match kind {
        "kubelet" => &["configure", "restart kubelet"],
        "containerd" => &["restart containerd"],
        "backup" => &["save"],
        _ => &["import"],
    };
    assert_eq!(acts, expected, "{when}: each act once");
    match kind {
        "kubelet" => assert_eq!(node.running("kubelet"), KUBELET, "{when}"),
        "containerd" => assert_eq!(node.running("containerd"), CONTAINERD, "{when}"),
        "backup" => assert_eq!((server.vault.sent.get(), left_over(node)), (1, 0), "{when}: sent once, nothing stays"),
        _ => assert!(node.path(&format!("/data/staging/{}", file("kubelet", KUBELET).sha256)).exists(), "{when}"),
    }
    assert_eq!(node.units(), [""; 0], "{when}: no unit is left");
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

fn action(kind: &str, node: &FakeNode) -> Action {
    match kind {
        "kubelet" => kubelet(),
        "containerd" => containerd(),
        "backup" => backup(),
        _ => prefetch(node),
    }
}

#[test]
fn a_crash_at_any_journal_write_or_node_call_repeats_no_act() {
    for kind in ["kubelet", "containerd", "prefetch", "backup"] {
        runtime().block_on(async {
            // Without a crash first: how many moments there are.
            let (node_, none) = (node(), Rc::new(Cell::new(None)));
            let server = FakeServer::offering(action(kind, &node_));
            let written = Rc::new(Cell::new(Some(u32::MAX)));
            assert_eq!(live(&node_, &server, &written).await, Life::Settled);
            check(kind, &node_, &server, kind);
            let (calls, writes) = (node_.calls.get(), u32::MAX - written.get().unwrap());
            assert!(calls > 10 && writes >= 4, "{kind}: {calls} calls, {writes} moments at the journal");

            for call in 0..calls {
                let node = node();
                let server = FakeServer::offering(action(kind, &node));
                node.fuse.set(Some(call));
                // The last calls may come after everything has ended.
                let first = live(&node, &server, &none).await;
                node.fuse.set(None);
                if first == Life::Crashed {
                    live(&node, &server, &none).await;
                }
                check(kind, &node, &server, &format!("{kind}, crash at call {call}"));
            }
            for write in 0..writes {
                let node = node();
                let server = FakeServer::offering(action(kind, &node));
                live(&node, &server, &Rc::new(Cell::new(Some(write)))).await;
                live(&node, &server, &none).await;
                check(kind, &node, &server, &format!("{kind}, crash at journal moment {write}"));
            }
        });
    }
}
