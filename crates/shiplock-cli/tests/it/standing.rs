//! A server with a made-up cluster, and the command that speaks to it.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use shiplock_api::agent::EtcdSnapshot;
use shiplock_api::rest::BackupView;
use shiplock_cluster::port::{Claim, ClaimOutcome, Cluster, Cordon, DrainPod, Eviction, Uncordon};
use shiplock_core::facts::{ClusterFacts, NodeFacts, NodeOwner};
use shiplock_core::id::{NodeName, ObjectUid, UpgradeId};
use shiplock_core::plan::NewApiObjects;
use shiplock_core::plan::{PlanOptions, hexadecimal};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::sample;
use shiplock_core::upgrade::Event;
use shiplock_core::version::MinorVersion;
use shiplock_server::backup::Backups;
use shiplock_server::clusters::{Dialer, Dialled};
use shiplock_server::seal::Seal;
use shiplock_server::serve::{ServeOptions, Server};
use shiplock_server::store::{NewUpgrade, SqliteStore, Store as _, StoreError};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// No command of these tests may take longer; a slow machine needs far less.
const COMMAND_WITHIN: Duration = Duration::from_secs(120);

const KUBECONFIG: &str = r#"
apiVersion: v1
kind: Config
current-context: lab
clusters: [{name: lab, cluster: {server: "https://10.0.0.1:6443"}}]
users: [{name: li, user: {token: not-a-secret}}]
contexts: [{name: lab, context: {cluster: lab, user: li}}]
"#;

fn facts() -> ClusterFacts {
    sample::cluster(&[("blue", 3)])
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A server, its data directory, and where the command finds both.
pub(crate) struct Standing {
    folder: tempfile::TempDir,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Standing {
    pub(crate) async fn without_server() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kubeconfig"), KUBECONFIG).unwrap();
        std::fs::create_dir(folder.path().join("mirror")).unwrap();
        let index = serde_json::to_string(&sample::artefacts()).unwrap();
        std::fs::write(folder.path().join("mirror/artefacts.json"), index).unwrap();
        Self { folder, server: None }
    }

    pub(crate) async fn start() -> Self {
        let mut standing = Self::without_server().await;
        standing.serve().await;
        standing
    }

    async fn serve(&mut self) {
        let mut options = ServeOptions::new(self.data());
        options.agent_listen = "127.0.0.1:0".parse().unwrap();
        let server = let_go(async || Server::start(options.clone(), Arc::new(FakeDialer)).await).await;
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(server.run(async move {
            let _ = stopped.await;
        }));
        self.server = Some((stop, running));
    }

    pub(crate) async fn stop(mut self) {
        self.halt().await;
    }

    async fn halt(&mut self) {
        if let Some((stop, running)) = self.server.take() {
            let _ = stop.send(());
            running.await.unwrap();
        }
    }

    /// Puts an upgrade with these events after its first into the store, while no server runs on it.
    pub(crate) async fn restart_with_upgrade(&mut self, events: Vec<Event>) {
        self.halt().await;
        let path = self.data().join("shiplock.db");
        let store = let_go(async || SqliteStore::open(&path).await.map_err(StoreError::into_problem)).await;
        let plan = Box::new(sample::plan_of(&facts(), &sample::request("v1.36.3", PlanOptions::default())).unwrap());
        let event = Event::Planned { plan, by: "li".into() };
        let id = UpgradeId::from("useeded");
        let now = Timestamp::now();
        let new = NewUpgrade { id: id.clone(), cluster: "prod".into(), event, now, idempotency_key: None };
        store.create_upgrade(&new).await.unwrap();
        store.append_request(&id, 1, now, &events).await.unwrap();
        store.close().await;
        self.serve().await;
    }

    /// Has the server keep a backup, as if an upgrade had made it.
    pub(crate) async fn keep_backup(&self, id: &str, content: &'static [u8]) {
        let seal = Seal::open_or_create(&self.data().join("seal.key")).unwrap();
        let backups = Arc::new(Backups::open(self.data().join("backups"), Arc::new(seal)).unwrap());
        let snapshot = EtcdSnapshot {
            sha256: hexadecimal(&Sha256::digest(content)),
            size_bytes: content.len() as u64,
            hash: 5,
            revision: 42,
            keys: 7,
            etcd_version: "3.6.8".to_owned(),
        };
        let view = BackupView {
            id: id.to_owned(),
            cluster: "prod".into(),
            upgrade: "u1".into(),
            node: "m1".into(),
            created_at: Timestamp::now(),
            snapshot,
        };
        let pieces = futures::stream::iter([Ok(content.into())]);
        backups.receive(view, pieces).await.unwrap().keep().await.unwrap();
    }

    /// A path in the folder of this test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, line: &str) -> Command {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let line = line.replace("FOLDER", &self.folder.path().display().to_string());
        let line = line.replace("KUBECONFIG", &path("kubeconfig")).replace("MIRROR", &path("mirror"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_shiplock"));
        command.args(line.split_whitespace()).env_clear().env("TZ", "UTC").env("HOME", self.folder.path());
        command.env("SHIPLOCK_SERVER", self.data().join("shiplock.sock"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn shiplock(&self, line: &str) -> Ended {
        let output = tokio::time::timeout(COMMAND_WITHIN, self.command(line).output());
        let output = output.await.unwrap_or_else(|_| panic!("`{line}` does not end")).unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command at a terminal of its own and types each text once the screen has shown, since the text before,
    /// what stands beside it. Gives how the command ended and all that the screen was sent.
    pub(crate) async fn at_a_terminal(&self, line: &str, typed: &[(&str, &str)]) -> (i32, String) {
        let plain = self.command(line);
        // `script` of util-linux gives the command a terminal, and what it is told itself to the command.
        let mut command = Command::new("script");
        let arguments = plain.as_std().get_args().map(|argument| argument.to_str().unwrap());
        let shell = std::iter::once(env!("CARGO_BIN_EXE_shiplock")).chain(arguments).collect::<Vec<_>>().join(" ");
        command.args(["--quiet", "--return", "--flush", "--command"]).arg(&shell).arg("/dev/null");
        command
            .envs(plain.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))))
            .env("TERM", "xterm")
            .env("NO_COLOR", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("`script` of package bsdutils starts");
        let (mut keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut shown = Vec::new();
        let talk = async {
            let mut seen = 0;
            for (expected, text) in typed {
                while !String::from_utf8_lossy(&shown[seen..]).contains(expected) {
                    let read = screen.read_buf(&mut shown).await.unwrap();
                    assert_ne!(read, 0, "it ended before {expected:?}: {}", String::from_utf8_lossy(&shown));
                }
                seen = shown.len();
                keys.write_all(text.as_bytes()).await.unwrap();
                keys.flush().await.unwrap();
            }
            screen.read_to_end(&mut shown).await.unwrap();
            child.wait().await.unwrap().code().unwrap_or(-1)
        };
        let talked = tokio::time::timeout(COMMAND_WITHIN, talk).await;
        let shown = String::from_utf8_lossy(&shown).into_owned();
        (talked.unwrap_or_else(|_| panic!("`{line}` does not end: {shown}")), shown)
    }

    /// Runs a command, and interrupts it once it has said something on stderr.
    pub(crate) async fn interrupted(&self, line: &str, said: &str) -> Ended {
        let mut child = self.command(line).spawn().unwrap();
        let mut reader = BufReader::new(child.stderr.take().unwrap());
        let mut stderr = String::new();
        let mut stdout = String::new();
        let wait = async {
            while !stderr.contains(said) {
                assert_ne!(reader.read_line(&mut stderr).await.unwrap(), 0, "it ended: {stderr}");
            }
            let pid = child.id().and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).unwrap())).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            reader.read_to_string(&mut stderr).await.unwrap();
            child.stdout.take().unwrap().read_to_string(&mut stdout).await.unwrap();
            child.wait().await.unwrap().code().unwrap_or(-1)
        };
        let code = tokio::time::timeout(COMMAND_WITHIN, wait).await.unwrap_or_else(|_| panic!("`{line}` does not end"));
        Ended { code, stdout, stderr }
    }
}

/// Opens a store once it is let go. Another test of this process may be starting a child right now, which holds every
/// open file, and with it the lock on the store, for a moment.
async fn let_go<T>(open: impl AsyncFn() -> Result<T, Problem>) -> T {
    let waited = tokio::time::timeout(COMMAND_WITHIN, async {
        loop {
            match open().await {
                Err(problem) if problem.code == Code::StoreInUse => tokio::task::yield_now().await,
                opened => return opened.unwrap(),
            }
        }
    });
    waited.await.unwrap_or_else(|_| panic!("the store is never let go"))
}

struct FakeDialer;

#[async_trait]
impl Dialer for FakeDialer {
    async fn dial(&self, _kubeconfig: &str, _allow: &[String]) -> Result<Dialled, Problem> {
        Ok(Dialled { cluster: Arc::new(FakeCluster), server: "https://fake:6443".to_owned() })
    }
}

/// Answers with its facts and does nothing.
struct FakeCluster;

#[async_trait]
impl Cluster for FakeCluster {
    async fn objects_of_new_apis(&self, _: MinorVersion) -> Result<Vec<NewApiObjects>, Problem> {
        Ok(Vec::new())
    }
    async fn facts(&self) -> Result<ClusterFacts, Problem> {
        Ok(ClusterFacts { observed_at: Timestamp::now(), ..facts() })
    }
    async fn changed(&self) {
        std::future::pending().await
    }
    async fn node(&self, node: &NodeName) -> Result<Option<NodeFacts>, Problem> {
        Ok(facts().nodes.get(node).cloned())
    }
    async fn cordon(&self, _: &NodeName, _: &ObjectUid, _: &NodeOwner) -> Result<Cordon, Problem> {
        Ok(Cordon::Done)
    }
    async fn uncordon(&self, _: &NodeName, _: &ObjectUid, _: &NodeOwner) -> Result<Uncordon, Problem> {
        Ok(Uncordon::Done)
    }
    async fn pods_on(&self, _: &NodeName) -> Result<Vec<DrainPod>, Problem> {
        Ok(Vec::new())
    }
    async fn evict(&self, _: &DrainPod) -> Result<Eviction, Problem> {
        Ok(Eviction::Gone)
    }
    async fn delete_pod(&self, _: &DrainPod) -> Result<Eviction, Problem> {
        Ok(Eviction::Gone)
    }
    async fn claim(&self, _: &Claim) -> Result<ClaimOutcome, Problem> {
        Ok(ClaimOutcome::Ours)
    }
    async fn release(&self, _: &UpgradeId) -> Result<(), Problem> {
        Ok(())
    }
}
