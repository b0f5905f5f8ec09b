//! What the agent does where something is wrong: it says so by code, and what was there runs on.

use std::cell::Cell;
use std::rc::Rc;

use shiplock_api::agent::ReportKind;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::Action;
use shiplock_core::upgrade::StepOutcome;
use shiplock_core::version::KubernetesVersion;

use crate::fake::{CONFIGURATION, DROP_IN, FakeNode, OLD_CONFIGURATION, digest, file, image};
use crate::server::{FakeServer, Life, live};

async fn ended(node: &Rc<FakeNode>, action: Action) -> (Result<StepOutcome, (Problem, bool)>, Rc<FakeServer>) {
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

fn kubelet(content: &str, kubeadm: &str) -> Action {
    let files = vec![file("kubelet", content), file("kubeadm", kubeadm), file("kubectl", "kubectl")];
    Action::UpgradeKubelet { version: KubernetesVersion::new(1, 36, 3), files }
}

fn containerd(content: &str) -> Action {
    Action::UpgradeContainerRuntime {
        version: "v2.2.9".to_owned(),
        files: vec![file("containerd", content)],
        sandbox_image: Some("registry.k8s.io/pause:3.10.2".to_owned()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_does_not_come_up_is_put_back_with_its_configuration() {
    for (content, state) in [
        ("kubelet broken v1.36.3", "it ended "),
        ("kubelet refused v1.36.3", "the service manager does not start it again; failed"),
        ("kubelet sick v1.36.3", "active, but"),
    ] {
        let node = FakeNode::new();
        for content in [content, "kubeadm v1.36.3", "kubectl"] {
            node.stage(content);
        }
        let (result, server) = ended(&node, kubelet(content, "kubeadm v1.36.3")).await;
        let (problem, retryable) = result.unwrap_err();
        assert_eq!((problem.code, retryable), (Code::ServiceNotUp, false));
        assert!(problem.causes.iter().any(|cause| cause.contains("was put back and runs")), "{problem}");
        assert!(problem.causes.iter().any(|cause| cause.contains("last lines of kubelet")), "{problem}");
        assert!(problem.parameters["state"].starts_with(state), "what will not come up is not waited for: {problem}");
        assert_eq!(node.running("kubelet"), "kubelet v1.35.4");
        assert_eq!(node.read("/var/lib/kubelet/config.yaml"), "configuration v1.35.4\n");
        assert_eq!(node.restarts("kubelet"), 2);
        assert_eq!(*server.permits.borrow(), ["configure", "swap"], "putting back needs no permit");
    }
}

#[tokio::test(start_paused = true)]
async fn the_kubelet_step_replaces_what_the_node_has_and_installs_nothing_else() {
    let node = FakeNode::new();
    for content in ["kubelet v1.36.3", "kubeadm v1.36.3", "kubectl"] {
        node.stage(content);
    }
    let (result, _) = ended(&node, kubelet("kubelet v1.36.3", "kubeadm v1.36.3")).await;
    assert_eq!(result, Ok(StepOutcome::Done));
    assert_eq!(node.read("/usr/bin/kubeadm"), "kubeadm v1.36.3");
    assert!(!node.path("/usr/bin/kubectl").exists());
    assert_eq!(node.read("/var/lib/kubelet/config.yaml"), "configuration v1.36.3");
    assert_eq!(std::fs::read_dir(node.path("/data/staging")).unwrap().count(), 0, "staging is empty");
    let (again, server) = ended(&node, kubelet("kubelet v1.36.3", "kubeadm v1.36.3")).await;
    assert_eq!(server.permits.borrow().len(), 0);
    assert_eq!((again, node.restarts("kubelet")), (Ok(StepOutcome::AlreadyDone), 1));
}

#[tokio::test(start_paused = true)]
async fn what_was_mended_after_a_failure_before_the_swap_is_what_is_put_back_later() {
    let node = FakeNode::new();
    let broken = "kubelet broken v1.36.3";
    for content in [broken, "kubeadm broken", "kubeadm v1.36.3", "kubectl"] {
        node.stage(content);
    }
    let problem = ended(&node, kubelet(broken, "kubeadm broken")).await.0.unwrap_err().0;
    assert_eq!(problem.code, Code::ProgramFailed);
    let mended = "configuration v1.35.4\nmaxPods: 66\n";
    std::fs::write(node.path("/var/lib/kubelet/config.yaml"), mended).unwrap();
    let problem = ended(&node, kubelet(broken, "kubeadm v1.36.3")).await.0.unwrap_err().0;
    assert_eq!(problem.code, Code::ServiceNotUp, "{problem}");
    assert_eq!(node.read("/var/lib/kubelet/config.yaml"), mended);
}

#[tokio::test(start_paused = true)]
async fn a_new_kubelet_with_an_old_tool_beside_it_is_not_done() {
    let node = FakeNode::new();
    for content in ["kubelet v1.36.3", "kubeadm v1.36.3", "kubectl"] {
        node.stage(content);
    }
    assert_eq!(ended(&node, kubelet("kubelet v1.36.3", "kubeadm v1.36.3")).await.0, Ok(StepOutcome::Done));
    // As a way back leaves it that was cut off.
    std::fs::write(node.path("/usr/bin/kubeadm"), "kubeadm v1.35.4").unwrap();
    for content in ["kubelet v1.36.3", "kubeadm v1.36.3", "kubectl"] {
        node.stage(content);
    }
    assert_eq!(ended(&node, kubelet("kubelet v1.36.3", "kubeadm v1.36.3")).await.0, Ok(StepOutcome::Done));
    assert_eq!(node.read("/usr/bin/kubeadm"), "kubeadm v1.36.3");
}

#[tokio::test(start_paused = true)]
async fn a_refused_permit_leaves_everything_as_it_was() {
    let node = FakeNode::new();
    for content in ["kubelet v1.36.3", "kubeadm v1.36.3", "kubectl", "containerd v2.2.9"] {
        node.stage(content);
    }
    for action in [kubelet("kubelet v1.36.3", "kubeadm v1.36.3"), containerd("containerd v2.2.9")] {
        let server = FakeServer::offering(action);
        server.refuse.set(true);
        assert_eq!(live(&node, &server, &Rc::new(Cell::new(None))).await, Life::Settled);
        assert!(server.reports.borrow().is_empty());
        assert!(node.acts.borrow().is_empty());
        assert_eq!(node.read("/usr/bin/kubelet"), "kubelet v1.35.4");
        assert_eq!(node.read(CONFIGURATION), OLD_CONFIGURATION);
        assert!(!node.path(DROP_IN).exists());
    }
}

#[tokio::test(start_paused = true)]
async fn a_packaged_kubelet_and_a_missing_or_damaged_file_are_refused_before_any_permit() {
    for (what, code) in [
        ("package", Code::InstallNotSupported),
        ("missing", Code::FileUnusable),
        ("damaged", Code::DigestMismatch),
        ("configuration", Code::ProgramFailed),
    ] {
        let node = FakeNode::new();
        node.stage("kubelet v1.36.3");
        node.stage("kubectl");
        let kubeadm = if what == "configuration" { "kubeadm broken" } else { "kubeadm v1.36.3" };
        node.stage(kubeadm);
        match what {
            "package" => node.packaged_kubelet.set(true),
            "missing" => std::fs::remove_file(node.path(&format!("/data/staging/{}", digest(kubeadm)))).unwrap(),
            "damaged" => node.write(&format!("/data/staging/{}", digest("kubelet v1.36.3")), "something else"),
            _ => {}
        }
        let (result, server) = ended(&node, kubelet("kubelet v1.36.3", kubeadm)).await;
        assert_eq!(result.unwrap_err().0.code, code, "{what}");
        assert!(!server.permits.borrow().contains(&"swap".to_owned()), "{what}");
        assert_eq!((node.running("kubelet").as_str(), node.restarts("kubelet")), ("kubelet v1.35.4", 0), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_packaged_containerd_stays_in_place_and_the_new_one_runs_from_its_own_folder() {
    let node = FakeNode::new();
    node.stage("containerd v2.2.9");
    let (result, _) = ended(&node, containerd("containerd v2.2.9")).await;
    assert_eq!(result, Ok(StepOutcome::Done));
    assert_eq!(node.read("/usr/bin/containerd"), "containerd 1.6.20");
    assert_eq!(node.read("/usr/local/bin/containerd"), "containerd v2.2.9");
    let new = node.read(CONFIGURATION);
    assert!(new.contains("version = 3") && new.contains("pause:3.10.2"), "{new}");
    assert_eq!(node.read("/etc/containerd/config.toml.shiplock-1.6.20"), OLD_CONFIGURATION);
}

#[tokio::test(start_paused = true)]
async fn a_containerd_without_a_package_is_replaced_where_it_is() {
    let node = FakeNode::new();
    node.packaged.set(false);
    node.stage("containerd v2.2.9");
    let (result, _) = ended(&node, containerd("containerd v2.2.9")).await;
    assert_eq!(result, Ok(StepOutcome::Done));
    assert_eq!(node.read("/usr/bin/containerd"), "containerd v2.2.9");
    assert!(!node.path(DROP_IN).exists());
}

#[tokio::test(start_paused = true)]
async fn a_containerd_that_does_not_come_up_or_has_another_version_is_put_back() {
    for content in ["containerd broken", "containerd v2.2.8"] {
        let node = FakeNode::new();
        node.stage(content);
        let (result, _) = ended(&node, containerd(content)).await;
        let (problem, retryable) = result.unwrap_err();
        assert_eq!((problem.code, retryable), (Code::ServiceNotUp, false), "{problem}");
        assert_eq!(node.running("containerd"), "containerd 1.6.20");
        assert_eq!(node.read(CONFIGURATION), OLD_CONFIGURATION);
        assert!(!node.path(DROP_IN).exists() && !node.path("/usr/local/bin/containerd").exists());
    }
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_the_new_containerd_refuses_stays_in_use() {
    let node = FakeNode::new();
    node.stage("containerd v2.2.9 refuses");
    let (result, server) = ended(&node, containerd("containerd v2.2.9 refuses")).await;
    let (problem, _) = result.unwrap_err();
    assert_eq!(problem.code, Code::RuntimeConfigurationRefused);
    assert!(problem.causes.contains(&"unknown plugin".to_owned()), "{problem}");
    assert!(server.permits.borrow().is_empty());
    assert_eq!((node.read(CONFIGURATION).as_str(), node.restarts("containerd")), (OLD_CONFIGURATION, 0));
}

#[tokio::test(start_paused = true)]
async fn prefetch_names_a_full_disk_a_wrong_digest_and_a_missing_file() {
    let node = FakeNode::new();
    let mirror = node.path("/mirror").display().to_string();
    let files = vec![file("kubelet", "kubelet v1.36.3")];
    let action = || Action::Prefetch { mirror: mirror.clone(), files: files.clone(), images: Vec::new() };

    let (result, _) = ended(&node, action()).await;
    assert_eq!(result.unwrap_err().0.code, Code::DownloadFailed);

    node.write("/mirror/bin/kubelet", "kubelet v6.66.6");
    let (result, _) = ended(&node, action()).await;
    let (problem, _) = result.unwrap_err();
    assert_eq!(problem.code, Code::DigestMismatch);
    assert_eq!(problem.parameters["expected"], digest("kubelet v1.36.3"));
    assert_eq!(std::fs::read_dir(node.path("/data/staging")).unwrap().count(), 0, "what is wrong is deleted");

    node.free.set(1000);
    let (result, _) = ended(&node, action()).await;
    let (problem, retryable) = result.unwrap_err();
    assert_eq!((problem.code, retryable), (Code::DiskFull, false));
    assert_eq!(
        (problem.parameters["path"].as_str(), problem.parameters["free"].as_str()),
        ("/data/staging", "1000 bytes")
    );

    node.free.set(1 << 40);
    node.write("/mirror/bin/kubelet", "kubelet v1.36.3");
    assert_eq!(ended(&node, action()).await.0, Ok(StepOutcome::Done));
    assert_eq!(ended(&node, action()).await.0, Ok(StepOutcome::AlreadyDone));
}

#[tokio::test(start_paused = true)]
async fn an_image_counts_by_the_digest_that_the_runtime_has() {
    let node = FakeNode::new();
    let mirror = node.path("/mirror").display().to_string();
    let action = |content: &str| Action::Prefetch {
        mirror: mirror.clone(),
        files: Vec::new(),
        images: vec![image("pause", content)],
    };
    node.write("/mirror/images/pause.tar", "archive pause lies");
    let (result, _) = ended(&node, action("archive pause lies")).await;
    assert_eq!(result.unwrap_err().0.code, Code::DigestMismatch);
    node.write("/mirror/images/pause.tar", "archive pause");
    assert_eq!(ended(&node, action("archive pause")).await.0, Ok(StepOutcome::Done));
    assert_eq!(ended(&node, action("archive pause")).await.0, Ok(StepOutcome::AlreadyDone));
    assert_eq!(node.acts.borrow().len(), 2);
}
