//! A lab: a whole cluster with a number, from its birth to its end. The API that tests use.
//!
//! Everything about a lab is in its folder, so any process can go on with it. Every change that
//! makes or removes a lab holds the lab's lock.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::cgroup::Cgroup;
use super::home::{Home, remove, write};
use super::host;
use super::janitor::Janitor;
use super::kubeadm;
use super::layer::{Containerd, Disk};
use super::mirror_server::MirrorService;
use super::network::{Balancer, MASTERS, MIRROR_PORT, Network, WORKERS};
use super::node::{Node, NodeStatus, Stop};
use super::process::{command, elapsed, output, run, say, wait_until};
use super::versions::Release;

/// What a cluster is born as.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// 1 or 3 (up to 5).
    pub masters: u8,
    /// 0 to 9.
    pub workers: u8,
    /// Version of the control plane and, unless `workers_at` is given, of the workers.
    pub from: String,
    /// Version of the workers' kubelets.
    pub workers_at: Option<String>,
    /// Container runtime of all nodes.
    pub containerd: Containerd,
    /// Label `shiplock.dev/pool=NAME` for these nodes.
    pub pools: BTreeMap<String, Vec<String>>,
    /// Nodes with a small real disk for images and containers, in GiB (3 or more).
    pub small_disks: BTreeMap<String, u32>,
    /// Leaves a cluster that failed to come up as it is.
    pub keep_failed: bool,
}

impl Default for UpOptions {
    fn default() -> Self {
        Self {
            masters: 1,
            workers: 1,
            from: "1.35".into(),
            workers_at: None,
            containerd: Containerd::default(),
            pools: BTreeMap::new(),
            small_disks: BTreeMap::new(),
            keep_failed: false,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// Tells one cluster from the next with the same number.
    birth: String,
    /// False while `up` works on it.
    risen: bool,
    /// Version of the control plane at birth.
    kubernetes: String,
    containerd: Containerd,
}

/// One cluster, up or not.
#[derive(Debug, Clone)]
pub struct Lab {
    home: Home,
    id: u8,
}

impl Lab {
    /// The lab with this number, 0 to 31. It need not be up.
    pub fn open(id: u8) -> Result<Self> {
        if id > 31 {
            bail!("a lab's number is 0 to 31, not {id}");
        }
        Ok(Self { home: Home::open()?, id })
    }

    /// Its number.
    pub fn id(&self) -> u8 {
        self.id
    }

    /// Where builds and labs are kept.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// Its own folder: kubeconfig, logs, disks.
    pub fn folder(&self) -> PathBuf {
        self.home.lab(self.id)
    }

    fn network(&self) -> Network {
        Network::of(self.id)
    }

    fn node(&self, name: &str) -> Result<Node> {
        Node::of(&self.home, self.id, name)
    }

    fn state(&self) -> Option<State> {
        serde_json::from_str(&fs::read_to_string(self.folder().join("state.json")).ok()?).ok()
    }

    fn write_state(&self, state: &State) -> Result<()> {
        let temporary = self.folder().join("state.new");
        write(&temporary, &serde_json::to_string(state)?, 0o644)?;
        Ok(fs::rename(temporary, self.folder().join("state.json"))?)
    }

    /// Whether a cluster is up.
    pub fn is_up(&self) -> bool {
        self.state().is_some_and(|state| state.risen)
    }

    fn lock(&self) -> Result<super::home::Lock> {
        self.home.lock(&format!("lab-{}", self.id))
    }

    /// Makes a cluster: nodes booted and Ready, CoreDNS up, the mirror served.
    /// A failed or interrupted one is taken down again.
    pub fn up(&self, options: &UpOptions) -> Result<()> {
        let kubernetes = Release::find(&options.from)?.kubernetes;
        check(options)?;
        host::prepare_run(&self.home)?;
        let _lock = self.lock()?;
        match self.state() {
            Some(State { risen: true, .. }) => {
                bail!("lab {} is up; take it down first with `cargo xtask lab --id {0} down`", self.id)
            }
            Some(_) => say(format!("lab {}: an earlier up was interrupted, cleaning up", self.id)),
            None => {}
        }
        self.take_down()?;
        let birth = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().to_owned();
        fs::create_dir_all(self.folder())?;
        let mut state =
            State { birth: birth.clone(), risen: false, kubernetes: kubernetes.into(), containerd: options.containerd };
        self.write_state(&state)?;
        let janitor = Janitor::start(self, &birth)?;
        let result = self.rise(options, kubernetes);
        let result = match result {
            Ok(()) => {
                state.risen = true;
                self.write_state(&state)
            }
            Err(error) if options.keep_failed => {
                say(format!("lab {} failed and is kept in {}", self.id, self.folder().display()));
                Err(error)
            }
            Err(error) => match self.take_down() {
                Ok(()) => Err(error),
                Err(second) => Err(error.context(format!("and it cannot be taken down: {second:#}"))),
            },
        };
        janitor.dismiss();
        result
    }

    fn rise(&self, options: &UpOptions, kubernetes: &str) -> Result<()> {
        let start = elapsed();
        let since = || (elapsed() - start).as_secs_f32();
        let network = self.network();
        network.create()?;
        let masters: Vec<String> = (1..=options.masters).map(|number| format!("m{number}")).collect();
        let workers: Vec<String> = (1..=options.workers).map(|number| format!("w{number}")).collect();
        let worker_version = options.workers_at.as_deref().unwrap_or(&options.from);
        let kubelet = Release::find(worker_version)?.kubernetes;

        // One after another: each is a few hard links, and a store may have to be made first.
        for name in masters.iter().chain(&workers) {
            let master = masters.contains(name);
            let disk = Disk {
                kubelet: if master { kubernetes } else { kubelet }.to_owned(),
                kubeadm: kubernetes.to_owned(),
                containerd: options.containerd,
                images: kubernetes.to_owned(),
                master,
            };
            let node = self.node(name)?;
            node.prepare(&disk, options.small_disks.get(name).copied())?;
            node.boot()?;
        }
        self.mirror_service().start(&self.home.mirror())?;
        Balancer { folder: &self.folder(), network }.start(&masters)?;
        for name in masters.iter().chain(&workers) {
            self.node(name)?.wait_booted()?;
        }
        say(format!("lab {}: {} nodes booted after {:.1} s", self.id, masters.len() + workers.len(), since()));

        let first = self.node("m1")?;
        kubeadm::init(network, &first, kubernetes, masters.len() > 1)?;
        let kubeconfig = first.run(&["cat", "/etc/kubernetes/admin.conf"])?;
        write(&self.kubeconfig_path(), &kubeconfig, 0o600)?;
        let digest = kubeadm::ca_digest(&first)?;
        self.set_pod_net("m1")?;
        say(format!("lab {}: kubeadm init done after {:.1} s", self.id, since()));

        std::thread::scope(|scope| {
            let digest = &digest;
            let joins: Vec<_> = workers.iter().map(|name| scope.spawn(move || self.join_with(name, digest))).collect();
            // Masters one after another: each is a new member of etcd.
            let mut result = masters.iter().skip(1).try_for_each(|name| self.join_with(name, digest));
            for join in joins {
                let joined = join.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a join panicked")));
                result = result.and(joined);
            }
            result
        })?;
        say(format!("lab {}: all joined after {:.1} s", self.id, since()));

        for (pool, nodes) in &options.pools {
            for name in nodes {
                self.kubectl(&["label", "node", name, &format!("shiplock.dev/pool={pool}")])?;
            }
        }
        self.kubectl(&["wait", "node", "--all", "--for=condition=Ready", "--timeout=180s"])?;
        say(format!("lab {}: all Ready after {:.1} s", self.id, since()));
        self.kubectl(&["--namespace=kube-system", "rollout", "status", "deployment/coredns", "--timeout=180s"])?;
        say(format!("lab {}: CoreDNS up after {:.1} s", self.id, since()));
        // A static pod of a master may be reported Ready well after its node is: who upgrades at once would be told so.
        self.kubectl(&["--namespace=kube-system", "wait", "pods", "--all", "--for=condition=Ready", "--timeout=180s"])?;
        say(format!("lab {}: all of kube-system is Ready after {:.1} s", self.id, since()));
        Ok(())
    }

    fn join_with(&self, name: &str, ca_digest: &str) -> Result<()> {
        kubeadm::join(self.network(), &self.node(name)?, ca_digest)?;
        self.set_pod_net(name)
    }

    /// Pod networks are not handed out by the controller manager, so the Node object gets its own.
    pub(crate) fn set_pod_net(&self, name: &str) -> Result<()> {
        let net = Network::pod_net(name)?;
        let patch = format!(r#"{{"spec":{{"podCIDR":"{net}","podCIDRs":["{net}"]}}}}"#);
        let mut said = String::new();
        let patched = wait_until(&format!("the Node {name} takes its pod network"), Duration::from_secs(60), || {
            match self.kubectl(&["patch", "node", name, "--patch", &patch]) {
                Ok(_) => Ok(true),
                Err(error) => {
                    said = format!("{error:#}");
                    Ok(false)
                }
            }
        });
        patched.with_context(|| said)
    }

    fn mirror_service(&self) -> MirrorService {
        MirrorService { folder: self.folder(), address: format!("{}:{MIRROR_PORT}", self.bridge_address()) }
    }

    /// Takes the cluster down and removes everything of it, whatever state it is in.
    pub fn down(&self) -> Result<()> {
        host::require_root()?;
        let _lock = self.lock()?;
        self.take_down()
    }

    /// `down`, but only if the lab is still the half-made one with this birth number.
    pub(crate) fn take_down_if_born(&self, birth: &str) -> Result<bool> {
        let _lock = self.lock()?;
        let ours = self.state().is_some_and(|state| state.birth == birth && !state.risen);
        if ours {
            self.take_down()?;
        }
        Ok(ours)
    }

    /// The lock must be held. Needs no state: what exists is found by name.
    fn take_down(&self) -> Result<()> {
        let folder = self.folder();
        self.mirror_service().stop();
        Balancer { folder: &folder, network: self.network() }.stop();
        let nodes = self.node_names()?.iter().map(|name| self.node(name)).collect::<Result<Vec<_>>>()?;
        std::thread::scope(|scope| {
            let stops: Vec<_> = nodes.iter().map(|node| scope.spawn(|| node.stop(Stop::PowerCut))).collect();
            let results = stops.into_iter().map(|stop| stop.join().unwrap_or_else(|_| Ok(())));
            results.collect::<Result<()>>()
        })?;
        Cgroup::of_lab(self.id).destroy()?;
        self.network().destroy()?;
        remove(&folder)
    }

    /// Names of all nodes, masters first.
    pub fn node_names(&self) -> Result<Vec<String>> {
        let Ok(entries) = fs::read_dir(self.folder().join("nodes")) else { return Ok(Vec::new()) };
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| Network::index(name).is_ok());
        names.sort();
        Ok(names)
    }

    /// All nodes with their state.
    pub fn nodes(&self) -> Result<Vec<NodeStatus>> {
        let names = self.node_names()?;
        let nodes = names.iter().map(|name| self.node(name)).collect::<Result<Vec<_>>>()?;
        nodes.iter().filter(|node| node.exists()).map(Node::status).collect()
    }

    /// A node's address on the bridge.
    pub fn node_ip(&self, node: &str) -> Result<String> {
        self.network().address(node)
    }

    /// This machine's address on the bridge: where nodes reach servers of a test.
    pub fn bridge_address(&self) -> String {
        self.network().gateway()
    }

    /// The mirror as nodes see it.
    pub fn mirror_url(&self) -> String {
        format!("http://{}:{MIRROR_PORT}", self.bridge_address())
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.folder().join("kubeconfig")
    }

    /// A command in a node, to run, to spawn, or to give a stdin.
    pub fn command(&self, node: &str, words: &[&str]) -> Result<Command> {
        self.node(node)?.command(words)
    }

    /// Runs a command in a node and hands back whatever it ended with.
    pub fn exec(&self, node: &str, words: &[&str]) -> Result<Output> {
        output(&mut self.command(node, words)?)
    }

    /// Runs a command in a node that must succeed; its stdout.
    pub fn exec_text(&self, node: &str, words: &[&str]) -> Result<String> {
        self.node(node)?.run(words)
    }

    /// kubectl with the administrator's kubeconfig, to run or to spawn.
    pub fn kubectl_command(&self, words: &[&str]) -> Result<Command> {
        let state = self.state().with_context(|| format!("lab {} is not up", self.id))?;
        let mut kubectl = command(self.home.bin("kubernetes", &state.kubernetes).join("kubectl"), words);
        kubectl.env("KUBECONFIG", self.kubeconfig_path());
        Ok(kubectl)
    }

    /// Runs kubectl, which must succeed; its stdout.
    pub fn kubectl(&self, words: &[&str]) -> Result<String> {
        run(&mut self.kubectl_command(words)?)
    }

    /// Copies a file into a node, beside its place and then renamed.
    pub fn copy_into(&self, node: &str, from: &Path, to: &str, mode: u32) -> Result<()> {
        self.node(node)?.copy_into(from, to, mode)
    }

    /// Stops a node; its disk stays.
    pub fn stop(&self, node: &str, how: Stop) -> Result<()> {
        let node = self.node(node)?;
        node.disk()?;
        node.stop(how)
    }

    /// Starts a stopped node and waits until it has booted.
    pub fn start(&self, node: &str) -> Result<()> {
        self.network().create()?;
        let node = self.node(node)?;
        node.boot()?;
        node.wait_booted()
    }

    /// Gives a worker a fresh system disk of a version (kubelet, kubeadm, that version's images)
    /// and boots it. It is not joined: see [`Self::join`], and delete its Node object before.
    pub fn replace_disk(&self, node: &str, version: &str) -> Result<()> {
        let release = Release::find(version)?;
        let node = self.node(node)?;
        let old = node.disk()?;
        if old.master {
            bail!("{} is a master: its etcd data would be lost with its disk", node.name());
        }
        node.stop(Stop::Clean)?;
        node.wipe()?;
        let version = release.kubernetes.to_owned();
        let disk = Disk { kubelet: version.clone(), kubeadm: version.clone(), images: version, ..old };
        node.prepare(&disk, None)?;
        node.boot()?;
        node.wait_booted()
    }

    /// Joins a booted node to the cluster and gives its Node object its pod network.
    pub fn join(&self, node: &str) -> Result<()> {
        let digest = kubeadm::ca_digest(&self.node("m1")?)?;
        self.join_with(node, &digest)
    }

    /// Waits until the Node object says Ready *in this boot*: after a power cut it says Ready of
    /// the last one for another 40 s.
    pub fn wait_ready(&self, node: &str, bound: Duration) -> Result<()> {
        let boot = self.exec_text(node, &["cat", "/proc/sys/kernel/random/boot_id"])?;
        let wanted = format!("{} True", boot.trim());
        let query = r#"jsonpath={.status.nodeInfo.bootID} {.status.conditions[?(@.type=="Ready")].status}"#;
        let mut seen = String::new();
        let ready = wait_until(&format!("{node} is Ready"), bound, || {
            // The API may be away for a moment, with the node that is waited for.
            seen = self.kubectl(&["get", "node", node, "-o", query]).unwrap_or_else(|error| format!("{error:#}"));
            Ok(seen.trim() == wanted)
        });
        ready.with_context(|| format!("seen last (boot and readiness, wanted {wanted}): {seen}"))
    }

    /// Whether the lab's own processes run: balancer, mirror.
    pub fn services(&self) -> (bool, bool) {
        (super::network::balancer_runs(&self.folder(), self.network()), self.mirror_service().runs())
    }

    /// Whether any trace of this lab is on the machine.
    pub fn is_clean(&self) -> bool {
        !self.folder().exists()
            && !Path::new("/sys/class/net").join(self.network().bridge()).exists()
            && Cgroup::of_lab(self.id).processes().is_ok_and(|left| left.is_empty())
    }
}

fn check(options: &UpOptions) -> Result<()> {
    if !(1..=MASTERS).contains(&options.masters) || options.masters.is_multiple_of(2) {
        bail!("{} masters: etcd wants an odd number, 1, 3 or 5", options.masters);
    }
    if options.workers > WORKERS {
        bail!("{} workers: there are addresses for {WORKERS}", options.workers);
    }
    let exists = |name: &str| match name.as_bytes() {
        [b'm', ..] => Network::index(name).is_ok_and(|index| index - 10 <= options.masters),
        _ => Network::index(name).is_ok_and(|index| index - 20 <= options.workers),
    };
    let named = options.pools.values().flatten().chain(options.small_disks.keys());
    for name in named {
        if !exists(name) {
            bail!("{name} is named in a pool or disk, but this cluster has no such node");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_cannot_work_are_refused() {
        assert!(check(&UpOptions::default()).is_ok());
        assert!(check(&UpOptions { masters: 2, ..UpOptions::default() }).is_err());
        assert!(check(&UpOptions { workers: 10, ..UpOptions::default() }).is_err());
        let pools = BTreeMap::from([("a".to_owned(), vec!["w2".to_owned()])]);
        assert!(check(&UpOptions { pools: pools.clone(), ..UpOptions::default() }).is_err());
        assert!(check(&UpOptions { pools, workers: 2, ..UpOptions::default() }).is_ok());
    }
}
