//! A node in memory. The node's files are real, in a folder; its services are a few words of state.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use futures::FutureExt as _;
use sha2::{Digest as _, Sha256};
use shiplock_agent::cri::{Container, ContainerDetails};
use shiplock_agent::endpoint::{Answer, Question};
use shiplock_agent::files::{hexadecimal, sha256};
use shiplock_agent::host::{Host, ProgramOutput, Service, UnitState};
use shiplock_core::artefact::{ArtefactFile, ArtefactImage};
use shiplock_core::facts::examination::{FileSystem, RuntimeHealth, TlsOutcome, TlsTarget};
use shiplock_core::problem::{Code, Problem};
use tokio::sync::Notify;

use crate::etcd::FakeEtcd;
use crate::master::{FakeMaster, image_id};

pub(crate) const OLD_CONFIGURATION: &str =
    "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"registry.k8s.io/pause:3.9\"\n";
pub(crate) const CONFIGURATION: &str = "/etc/containerd/config.toml";
pub(crate) const DROP_IN: &str = "/etc/systemd/system/containerd.service.d/50-shiplock.conf";

pub(crate) fn digest(text: &str) -> String {
    hexadecimal(&Sha256::digest(text))
}

pub(crate) fn file(role: &str, content: &str) -> ArtefactFile {
    ArtefactFile {
        role: role.to_owned(),
        version: "v1".to_owned(),
        architecture: "amd64".to_owned(),
        path: format!("bin/{role}"),
        size_bytes: content.len() as u64,
        sha256: digest(content),
    }
}

pub(crate) fn image(role: &str, content: &str) -> ArtefactImage {
    ArtefactImage {
        role: role.to_owned(),
        reference: format!("registry.k8s.io/{role}:v1"),
        architecture: "amd64".to_owned(),
        path: format!("images/{role}.tar"),
        size_bytes: content.len() as u64,
        sha256: digest(content),
        digest: format!("sha256:{}", digest(&format!("manifest of {content}"))),
        image_id: None,
    }
}

/// A process is the content of its executable: `kubelet v1.36.3`, or one with `broken` in it, which does not
/// come up; with `refused` the service manager does not try for long.
#[derive(Debug, Default, Clone)]
struct Running {
    content: String,
    restarts: u32,
}

/// What survives a crash of the agent.
#[derive(Debug)]
pub(crate) struct FakeNode {
    folder: tempfile::TempDir,
    services: RefCell<BTreeMap<String, Running>>,
    units: RefCell<BTreeMap<String, UnitState>>,
    images: RefCell<BTreeMap<String, String>>,
    /// Every program that changed something, in order.
    pub(crate) acts: RefCell<Vec<String>>,
    pub(crate) free: Cell<u64>,
    pub(crate) packaged: Cell<bool>,
    pub(crate) packaged_kubelet: Cell<bool>,
    /// Calls until the crash.
    pub(crate) fuse: Cell<Option<u32>>,
    pub(crate) calls: Cell<u32>,
    /// How often a broken service ended.
    ended: Cell<u32>,
    pub(crate) crashed: Notify,
    pub(crate) etcd: FakeEtcd,
    pub(crate) master: FakeMaster,
    kubelet_stopped: Cell<bool>,
    /// A transient unit is at work: it outlives the agent.
    in_unit: Cell<bool>,
    /// Calls of such a unit until the power is cut.
    pub(crate) power_fuse: Cell<Option<u32>>,
    pub(crate) unit_calls: Cell<u32>,
    power_cut: Notify,
    /// What programs say that a look at the node asks, by the begin of their command lines.
    pub(crate) sayings: RefCell<BTreeMap<String, ProgramOutput>>,
    /// Hosts that can be reached.
    pub(crate) reachable: RefCell<Vec<String>>,
    /// What the file systems have free, in per cent.
    pub(crate) free_per_cent: Cell<u64>,
    pub(crate) runtime: RefCell<Result<RuntimeHealth, String>>,
}

impl FakeNode {
    pub(crate) fn new() -> Rc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let node = Self {
            folder,
            services: RefCell::default(),
            units: RefCell::default(),
            images: RefCell::default(),
            acts: RefCell::default(),
            free: Cell::new(1 << 40),
            packaged: Cell::new(true),
            packaged_kubelet: Cell::new(false),
            fuse: Cell::new(None),
            calls: Cell::new(0),
            ended: Cell::new(0),
            crashed: Notify::new(),
            etcd: FakeEtcd::default(),
            master: FakeMaster::default(),
            kubelet_stopped: Cell::new(false),
            in_unit: Cell::new(false),
            power_fuse: Cell::new(None),
            unit_calls: Cell::new(0),
            power_cut: Notify::new(),
            sayings: RefCell::default(),
            reachable: RefCell::default(),
            free_per_cent: Cell::new(50),
            runtime: RefCell::new(Err("nobody has asked".to_owned())),
        };
        for (path, content) in [
            ("/usr/bin/kubelet", "kubelet v1.35.4"),
            ("/usr/bin/kubeadm", "kubeadm v1.35.4"),
            ("/usr/bin/containerd", "containerd 1.6.20"),
            ("/usr/bin/ctr", "ctr 1.6.20"),
            ("/usr/bin/dpkg", "dpkg"),
            ("/var/lib/kubelet/config.yaml", "configuration v1.35.4\n"),
            (CONFIGURATION, OLD_CONFIGURATION),
            ("/etc/machine-id", "m1\n"),
        ] {
            node.write(path, content);
        }
        for service in ["kubelet", "containerd"] {
            let content = node.read(&node.program_of(service));
            node.services.borrow_mut().insert(service.to_owned(), Running { content, restarts: 0 });
        }
        Rc::new(node)
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path.trim_start_matches('/'))
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Puts a file where prefetch would have put it.
    pub(crate) fn stage(&self, content: &str) {
        self.write(&format!("/data/staging/{}", digest(content)), content);
    }

    pub(crate) fn running(&self, service: &str) -> String {
        self.services.borrow()[service].content.clone()
    }

    /// A service that runs.
    pub(crate) fn add_service(&self, name: &str) {
        self.services.borrow_mut().insert(name.to_owned(), Running { content: name.to_owned(), restarts: 0 });
    }

    pub(crate) fn restarts(&self, service: &str) -> u32 {
        self.services.borrow()[service].restarts
    }

    pub(crate) fn add_running_unit(&self, name: &str) {
        self.units.borrow_mut().insert(name.to_owned(), UnitState::Running);
    }

    pub(crate) fn units(&self) -> Vec<String> {
        self.units.borrow().keys().cloned().collect()
    }

    fn program_of(&self, service: &str) -> String {
        let drop_in = if service == "containerd" { self.read(DROP_IN) } else { String::new() };
        let own = drop_in.lines().filter_map(|line| line.strip_prefix("ExecStart=")).find(|line| !line.is_empty());
        own.and_then(|line| line.split(' ').next()).map_or_else(|| format!("/usr/bin/{service}"), str::to_owned)
    }

    /// The agent may end here. The world stays as it is.
    async fn moment(&self) {
        if self.in_unit.get() {
            self.unit_calls.set(self.unit_calls.get() + 1);
            match self.power_fuse.get() {
                Some(0) => {
                    self.power_cut.notify_one();
                    std::future::pending::<()>().await;
                }
                Some(left) => self.power_fuse.set(Some(left - 1)),
                None => {}
            }
            return tokio::task::yield_now().await;
        }
        self.calls.set(self.calls.get() + 1);
        match self.fuse.get() {
            Some(0) => {
                self.crashed.notify_one();
                std::future::pending::<()>().await;
            }
            Some(left) => self.fuse.set(Some(left - 1)),
            None => {}
        }
        tokio::task::yield_now().await;
    }

    pub(crate) fn add_image(&self, reference: &str, digest: &str) {
        self.images.borrow_mut().insert(reference.to_owned(), digest.to_owned());
    }

    pub(crate) fn remove_image(&self, reference: &str) {
        self.images.borrow_mut().remove(reference);
    }

    /// The unit of a swap: the real one, on this node. It ends by itself or with the power.
    async fn swap(&self, folder: &str) -> UnitState {
        self.in_unit.set(true);
        let folder = self.path(folder);
        let swapped = tokio::select! {
            swapped = shiplock_agent::swap::perform(self, &folder) => swapped,
            () = self.power_cut.notified() => {
                // Calls in parallel may each have told of it.
                let _ = self.power_cut.notified().now_or_never();
                self.in_unit.set(false);
                self.power_fuse.set(None);
                self.boot();
                self.crashed.notify_one();
                std::future::pending().await
            }
        };
        self.in_unit.set(false);
        match swapped {
            Ok(()) => UnitState::Succeeded,
            Err(_) => UnitState::Failed { result: "exit-code 1".to_owned() },
        }
    }

    /// After a power cut nothing runs but what starts by itself, from what is on disk.
    pub(crate) fn boot(&self) {
        self.acts.borrow_mut().push("power cut".to_owned());
        self.units.borrow_mut().clear();
        self.end_pods();
        self.kubelet_stopped.set(false);
        let content = self.read(&self.program_of("kubelet"));
        self.services.borrow_mut().get_mut("kubelet").unwrap().content = content;
        self.sync_pods();
    }

    fn kubelet(&self, verb: &str) {
        if (verb == "start") != self.kubelet_stopped.get() {
            return;
        }
        self.acts.borrow_mut().push(format!("{verb} kubelet"));
        if verb == "stop" {
            self.kubelet_stops();
        }
        self.kubelet_stopped.set(verb == "stop");
        if verb == "start" {
            let content = self.read(&self.program_of("kubelet"));
            let mut services = self.services.borrow_mut();
            let running = services.get_mut("kubelet").unwrap();
            *running = Running { content, restarts: running.restarts + 1 };
            self.kubelet_started();
        }
    }

    fn execute(&self, command: &[String]) -> UnitState {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let program = words[0].rsplit('/').next().unwrap();
        let failed = UnitState::Failed { result: "exit-code 1".to_owned() };
        match (program, &words[1..]) {
            ("systemctl", ["restart", "--no-block", service]) => {
                self.acts.borrow_mut().push(format!("restart {service}"));
                let content = self.read(&self.program_of(service));
                let mut services = self.services.borrow_mut();
                let running = services.get_mut(*service).unwrap();
                *running = Running { content, restarts: running.restarts + 1 };
                UnitState::Succeeded
            }
            (_, ["upgrade", "apply", words @ ..]) => {
                self.acts.borrow_mut().push(format!("apply {}", words[..words.len().min(3)].join(" ")));
                self.fake_upgrade(&command[0], words);
                UnitState::Succeeded
            }
            ("kubectl", words) => {
                self.acts.borrow_mut().push("patch".to_owned());
                self.fake_patch(words);
                UnitState::Succeeded
            }
            (_, ["certs", "renew", name, "--config", _]) => {
                self.acts.borrow_mut().push(format!("renew {name}"));
                UnitState::Succeeded
            }
            (_, ["upgrade", "node", "phase", "kubelet-config"]) => {
                self.acts.borrow_mut().push("configure".to_owned());
                let kubeadm = self.read(words[0]);
                if kubeadm.ends_with("broken") {
                    return failed;
                }
                self.write("/var/lib/kubelet/config.yaml", &kubeadm.replace("kubeadm", "configuration"));
                UnitState::Succeeded
            }
            ("ctr", ["--namespace", "k8s.io", "images", "import", path]) => {
                self.acts.borrow_mut().push("import".to_owned());
                let content = self.read(path);
                let tag = content.split(' ').nth(2).filter(|word| word.starts_with('v')).unwrap_or("v1");
                let reference = format!("registry.k8s.io/{}:{tag}", content.split(' ').nth(1).unwrap());
                let manifest = format!("sha256:{}", digest(&format!("manifest of {}", content.replace(" lies", ""))));
                let manifest = if content.contains("lies") { format!("{manifest}0") } else { manifest };
                self.images.borrow_mut().insert(reference, manifest);
                UnitState::Succeeded
            }
            (_, [_, _, _, _, "snapshot", "save", path]) => {
                self.acts.borrow_mut().push("save".to_owned());
                self.etcd.save(&self.path(path));
                UnitState::Succeeded
            }
            other => panic!("the node does not know {other:?}"),
        }
    }
}

impl Host for FakeNode {
    fn root(&self) -> &Path {
        self.folder.path()
    }

    async fn output(&self, program: &str, arguments: &[&str], _: Duration) -> Result<ProgramOutput, Problem> {
        self.moment().await;
        let said = |text: &str| Ok(ProgramOutput { success: true, text: text.to_owned(), error: String::new() });
        let line = format!("{program} {}", arguments.join(" "));
        if let Some((_, said)) = self.sayings.borrow().iter().find(|(begin, _)| line.starts_with(begin.as_str())) {
            return Ok(said.clone());
        }
        let content = self.read(program);
        match arguments {
            [verb @ ("stop" | "start"), "kubelet"] => {
                self.kubelet(verb);
                said("")
            }
            [folder, kubeadm, "init", "phase", phase, ..] => {
                self.fake_render(folder.split_once('=').unwrap().1, kubeadm, phase);
                said("")
            }
            ["version", "--output", "short"] => said(content.split(' ').nth(1).unwrap()),
            ["config", "images", "list", ..] => said("registry.k8s.io/coredns/coredns:v1.14.2\n"),
            ["-S", path] => {
                let owned = (self.packaged.get() && path.starts_with("/usr/bin/containerd"))
                    || (self.packaged_kubelet.get() && *path == "/usr/bin/kubelet");
                Ok(ProgramOutput { success: owned, text: format!("package: {path}\n"), error: String::new() })
            }
            ["--version"] if content.starts_with("kubelet") => said(&content.replace("kubelet", "Kubernetes")),
            ["--version"] => said(&content.replace("containerd ", "containerd github.com/containerd ")),
            ["--config", _, "config", "migrate"] if content.contains("refuses") => {
                Ok(ProgramOutput { success: false, text: String::new(), error: "unknown plugin".to_owned() })
            }
            ["--config", path, "config", "migrate"] => said(
                &self
                    .read(path)
                    .replace("version = 2", "version = 3")
                    .replace("grpc.v1.cri\"", "cri.v1.images\".pinned_images")
                    .replace("sandbox_image", "sandbox"),
            ),
            ["--config", _, "config", "dump"] => said(""),
            ["--namespace", "k8s.io", "images", "ls"] => {
                let rows: Vec<String> = self
                    .images
                    .borrow()
                    .iter()
                    .map(|(name, digest)| format!("{name} type {digest} 1 KiB linux/amd64 -"))
                    .collect();
                said(&rows.join("\n"))
            }
            other => {
                Ok(self.etcd.output(other).unwrap_or_else(|| panic!("the node does not know {program} {other:?}")))
            }
        }
    }

    async fn start_unit(&self, unit: &str, command: &[String]) -> Result<(), Problem> {
        self.moment().await;
        if !self.units.borrow().contains_key(unit) {
            let state = match command {
                [_, verb, folder] if verb == "swap" => self.swap(folder).await,
                _ => self.execute(command),
            };
            self.units.borrow_mut().insert(unit.to_owned(), state);
        }
        // The program was started and this agent may not live to know it.
        self.moment().await;
        Ok(())
    }

    async fn unit(&self, unit: &str) -> Result<UnitState, Problem> {
        self.moment().await;
        Ok(self.units.borrow().get(unit).cloned().unwrap_or(UnitState::Absent))
    }

    async fn clear_units(&self, prefix: &str) -> Result<(), Problem> {
        self.moment().await;
        self.units.borrow_mut().retain(|name, _| !name.starts_with(prefix));
        Ok(())
    }

    async fn reload_units(&self) -> Result<(), Problem> {
        self.moment().await;
        Ok(())
    }

    async fn forget_failures(&self, _: &str) -> Result<(), Problem> {
        self.moment().await;
        Ok(())
    }

    async fn service(&self, name: &str) -> Result<Service, Problem> {
        self.moment().await;
        if !self.services.borrow().contains_key(name) {
            return Ok(Service { state: "inactive".to_owned(), main_pid: 0, restarts: 0, command: Vec::new() });
        }
        let refused = self.running(name).contains("refused");
        let broken = self.running(name).contains("broken") || (name == "kubelet" && self.kubelet_stopped.get());
        let main_pid = if broken || refused { 0 } else { 1 + u32::from(name == "kubelet") };
        let state = if refused {
            "failed"
        } else if broken {
            "activating"
        } else {
            "active"
        };
        // It ended often in an earlier life; a restart by hand begins to count anew.
        let restarts = if self.restarts(name) == 0 {
            50
        } else if broken {
            self.ended.get()
        } else {
            0
        };
        self.ended.set(self.ended.get() + u32::from(broken));
        Ok(Service { state: state.to_owned(), main_pid, restarts, command: vec![self.program_of(name)] })
    }

    async fn journal(&self, units: &[&str], _: u32) -> String {
        format!("last lines of {}", units.join(" "))
    }

    async fn file_digest(&self, path: &Path) -> Result<Option<String>, Problem> {
        self.moment().await;
        Ok(fs::File::open(path).ok().map(|file| sha256(file).unwrap()))
    }

    async fn running_digest(&self, pid: u32) -> Result<Option<String>, Problem> {
        self.moment().await;
        let name = match pid {
            1 => "containerd",
            2 => "kubelet",
            _ => return Ok(None),
        };
        Ok(Some(digest(&self.running(name))))
    }

    async fn runtime_version(&self) -> Result<String, Problem> {
        self.moment().await;
        Ok(self.running("containerd").split(' ').nth(1).unwrap_or_default().to_owned())
    }

    async fn containers(&self) -> Result<Vec<Container>, Problem> {
        self.moment().await;
        Ok(self.fake_containers())
    }

    async fn container_details(&self, id: &str) -> Result<ContainerDetails, Problem> {
        Ok(self.fake_details(id))
    }

    async fn stop_container(&self, id: &str, _: Duration) -> Result<(), Problem> {
        self.moment().await;
        self.fake_stop(id);
        Ok(())
    }

    async fn image_id(&self, reference: &str) -> Result<Option<String>, Problem> {
        self.moment().await;
        Ok(self.images.borrow().contains_key(reference).then(|| image_id(reference)))
    }

    async fn ask(&self, question: &Question<'_>) -> Result<Answer, String> {
        self.moment().await;
        self.fake_answer(question)
    }

    async fn is_healthy(&self, _: u16) -> bool {
        self.moment().await;
        !self.running("kubelet").contains("sick")
    }

    fn free_bytes(&self, _: &Path) -> Result<u64, Problem> {
        Ok(self.free.get())
    }

    fn space(&self, path: &Path) -> Result<(u64, FileSystem), Problem> {
        let (size_bytes, inodes) = (100 << 30, 1_000_000);
        let space = FileSystem {
            path: path.display().to_string(),
            size_bytes,
            free_bytes: size_bytes / 100 * self.free_per_cent.get(),
            inodes,
            free_inodes: inodes / 2,
            is_read_only: false,
        };
        // etcd has a disk of its own.
        Ok((u64::from(path.ends_with("etcd")), space))
    }

    async fn runtime_health(&self) -> Result<RuntimeHealth, Problem> {
        self.moment().await;
        let health = self.runtime.borrow().clone();
        health.map_err(|why| Problem::new(Code::ProgramFailed).with("program", "CRI Status").cause(why))
    }

    async fn reaches(&self, host: &str, port: u16) -> Result<(), String> {
        let known = format!("{host}:{port}");
        if self.reachable.borrow().contains(&known) { Ok(()) } else { Err("no route to host".to_owned()) }
    }

    async fn dial(&self, target: &TlsTarget) -> TlsOutcome {
        TlsOutcome::Presented { chain: vec![target.server_name.clone()] }
    }

    fn is_read_only(&self, _: &Path) -> bool {
        false
    }

    async fn wait(&self, _: Duration) {
        tokio::task::yield_now().await;
    }
}
