//! A look at the node for the pre-check: it reads what is there, changes nothing, and goes on beside any work.

use std::cell::Cell;
use std::rc::Rc;

use shiplock_agent::examination::examine;
use shiplock_agent::host::ProgramOutput;
use shiplock_api::agent::ExaminationRequest;
use shiplock_core::facts::examination::{NodeExamination, NodeQuestion, RuntimeHealth, TlsTarget, WantedImage};
use shiplock_core::step::Action;

use crate::fake::FakeNode;
use crate::server::{FakeServer, Life, live};

fn says(node: &FakeNode, line: &str, text: &str, success: bool) {
    let said = ProgramOutput { success, text: text.to_owned(), error: String::new() };
    node.sayings.borrow_mut().insert(line.to_owned(), said);
}

/// A node that is well.
fn well() -> Rc<FakeNode> {
    let node = FakeNode::new();
    for (path, content) in [
        ("/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"),
        ("/proc/sys/kernel/osrelease", "6.1.0-18-amd64\n"),
        ("/proc/sys/kernel/hostname", "w1\n"),
        ("/proc/filesystems", "nodev\toverlay\n"),
        ("/sys/module/br_netfilter/version", ""),
        ("/sys/module/nf_conntrack/version", ""),
        ("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n"),
        ("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n"),
        ("/proc/net/tcp", "  sl local rem st\n"),
        ("/proc/2/cmdline", "kubelet\0--config=/var/lib/kubelet/config.yaml\0--v=2\0"),
        ("/proc/2/environ", "HTTPS_PROXY=http://user:secret@proxy:3128\0NO_PROXY=10.0.0.0/8\0"),
        ("/var/lib/kubelet/config.yaml", "apiVersion: kubelet.config.k8s.io/v1beta1\nkubeReserved: {memory: 1Gi}\n"),
        ("/usr/bin/apt-get", "apt-get"),
        ("/etc/apt/sources.list", "deb http://deb.example/debian stable main\n"),
    ] {
        node.write(path, content);
    }
    node.reachable.borrow_mut().push("deb.example:80".to_owned());
    *node.runtime.borrow_mut() = Ok(RuntimeHealth {
        version: "2.2.9".to_owned(),
        not_ready: Vec::new(),
        list_milliseconds: 3,
        tells_cgroup_driver: true,
    });
    says(&node, "systemctl --version", "systemd 252 (252.39-1~deb12u1)\n+PAM\n", true);
    says(&node, "journalctl --dmesg", "usb 1-1: new device\n", true);
    says(&node, "journalctl --unit=kubelet", "all is well\n", true);
    says(
        &node,
        "journalctl _PID=1",
        // Started twice by people or upgrades, and twice since it had ended.
        "Started kubelet.service\nStopped kubelet.service\nStarted kubelet.service\n\
         kubelet.service: Main process exited, code=exited, status=1/FAILURE\n\
         kubelet.service: Scheduled restart job, restart counter is at 1.\nStarted kubelet.service\n\
         kubelet.service: Scheduled restart job, restart counter is at 2.\nStarted kubelet.service\n",
        true,
    );
    says(&node, "timedatectl", "yes\n", true);
    says(&node, "getent ahosts w1", "10.0.0.2 STREAM w1\n", true);
    says(&node, "/usr/bin/apt-get update", "", true);
    node
}

async fn look(node: &FakeNode, question: &NodeQuestion) -> NodeExamination {
    examine(node, &node.path("/data"), question).await
}

#[tokio::test]
async fn a_node_is_read_as_it_is() {
    let node = well();
    let dial = vec![TlsTarget { host: "10.96.0.9".to_owned(), port: 443, server_name: "hook.shop.svc".to_owned() }];
    let found = look(&node, &NodeQuestion { dial, ..NodeQuestion::default() }).await;
    assert_eq!(found.operating_system.as_ref().unwrap().id, "debian");
    assert_eq!((found.kernel.release.as_str(), found.kernel.missing_modules.len()), ("6.1.0-18-amd64", 0));
    assert_eq!(found.systemd_version.as_deref(), Ok("252.39-1~deb12u1"));
    assert_eq!(found.cgroup_version, Ok(2));
    assert_eq!(found.swaps, Ok(Vec::new()));
    assert!(found.time.as_ref().unwrap().is_synchronized && found.host_name_resolves);
    let kubelet = found.kubelet.as_ref().unwrap();
    assert_eq!((kubelet.ill.as_ref(), kubelet.pleg.as_ref(), kubelet.starts), (None, None, 2));
    assert_eq!(kubelet.reserved["kubeReserved.memory"], "1Gi");
    assert_eq!(kubelet.flags, ["config", "v"]);
    let source = found.package_source.as_ref().unwrap();
    assert_eq!((source.manager.as_str(), source.sources, source.failure.as_ref()), ("apt-get", 1, None));
    assert_eq!(found.proxies.len(), 1);
    assert_eq!(found.proxies[0].except, "10.0.0.0/8");
    assert!(!serde_json::to_string(&found).unwrap().contains("secret"), "a proxy's password is not told");
    assert_eq!(found.dialled.len(), 1);
    assert_eq!(node.acts.borrow().len(), 0, "nothing was changed");
    assert!(!node.path("/data/package-source").exists(), "nothing is left");
}

#[tokio::test]
async fn a_module_is_there_where_it_is_loaded_built_in_or_can_be_loaded() {
    let node = well();
    let missing = async |node: &FakeNode| look(node, &NodeQuestion::default()).await.kernel.missing_modules;
    std::fs::remove_dir_all(node.path("/sys/module/br_netfilter")).unwrap();
    assert_eq!(missing(&node).await, ["br_netfilter"]);
    node.write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1\n");
    assert_eq!(missing(&node).await, [""; 0], "built in: no module of that name is listed");
    std::fs::remove_dir_all(node.path("/sys/module/nf_conntrack")).unwrap();
    assert_eq!(missing(&node).await, ["nf_conntrack"]);
    node.write("/usr/sbin/modprobe", "modprobe");
    says(&node, "/usr/sbin/modprobe --dry-run", "", true);
    assert_eq!(missing(&node).await, [""; 0], "it can be loaded");
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_reason() {
    let node = well();
    node.write("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/swapfile file 1 0 -2\n");
    node.reachable.borrow_mut().clear();
    *node.runtime.borrow_mut() = Err("no answer within 5 s".to_owned());
    says(&node, "journalctl --unit=kubelet", "E1 PLEG is not healthy: pleg was last seen active 4m ago\n", true);
    says(&node, "journalctl --dmesg", "EXT4-fs error (device sda1): bad\nother\n", true);
    let found = look(&node, &NodeQuestion::default()).await;
    assert_eq!(found.swaps, Ok(vec!["/swapfile".to_owned()]));
    let failure = found.package_source.unwrap().failure.unwrap();
    assert_eq!(failure, "deb.example:80: no route to host");
    assert!(found.runtime.unwrap_err().contains("no answer within 5 s"));
    assert!(found.kubelet.unwrap().pleg.unwrap().starts_with("PLEG is not healthy"));
    assert_eq!(found.file_system_errors, Ok(vec!["EXT4-fs error (device sda1): bad".to_owned()]));
    assert_eq!(found.mirror, None, "no mirror was asked about");
}

#[tokio::test]
async fn a_source_that_its_package_manager_refuses_is_told_in_its_words() {
    let node = well();
    says(&node, "/usr/bin/apt-get update", "Hit:1\nE: The repository has no Release file.\n", false);
    let found = look(&node, &NodeQuestion::default()).await;
    assert_eq!(found.package_source.unwrap().failure.unwrap(), "E: The repository has no Release file.");
}

#[tokio::test]
async fn images_are_to_be_had_from_the_runtime_or_from_the_mirror() {
    let node = well();
    let mirror = tempfile::tempdir().unwrap();
    std::fs::write(mirror.path().join("there.tar"), "x").unwrap();
    let index = serde_json::json!({ "schema": "shiplock.dev/artefacts/v1", "releases": [] });
    std::fs::write(mirror.path().join("artefacts.json"), index.to_string()).unwrap();
    node.add_image("registry.k8s.io/here:v1", "sha256:0");
    let wanted = |reference: &str, path: &str| WantedImage { reference: reference.to_owned(), path: path.to_owned() };
    let question = NodeQuestion {
        mirror: Some(mirror.path().display().to_string()),
        images: vec![
            wanted("registry.k8s.io/here:v1", "gone.tar"),
            wanted("registry.k8s.io/there:v1", "there.tar"),
            wanted("registry.k8s.io/away:v1", "away.tar"),
        ],
        ..NodeQuestion::default()
    };
    let found = look(&node, &question).await;
    assert_eq!(found.mirror, Some(Ok(0)));
    let available: Vec<bool> = found.images.iter().map(|image| image.available.is_ok()).collect();
    assert_eq!(available, [true, true, false]);
    let away = NodeQuestion { mirror: Some("/no/such/folder".to_owned()), ..question };
    let found = look(&node, &away).await;
    assert!(found.mirror.unwrap().unwrap_err().contains("/no/such/folder"));
}

#[tokio::test]
async fn a_question_is_answered_beside_a_step_in_work() {
    let node = well();
    let server = FakeServer::offering(Action::CollectLogs);
    *server.question.borrow_mut() = Some(ExaminationRequest { number: 7, question: NodeQuestion::default() });
    let life = live(&node, &server, &Rc::new(Cell::new(None))).await;
    assert_eq!(life, Life::Settled);
    assert_eq!(server.reports.borrow().len(), 1, "the step was done");
    let examined = server.examined.borrow();
    assert_eq!(examined.iter().map(|report| (report.number, report.node.as_str())).collect::<Vec<_>>(), [(7, "w1")]);
}
