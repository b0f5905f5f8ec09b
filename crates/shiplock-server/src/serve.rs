//! Start and stop of the server: puts store, authority, clusters, drivers and listeners together.
//!
//! Everything that can be refused is refused before the first listener is open and before anything is driven.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use shiplock_core::catalogue::Catalogue;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::Policy;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::authority::Authority;
use crate::backup::Backups;
use crate::clusters::{ClusterPool, Dialer, KubernetesDialer};
use crate::driver::{DriverSettings, Supervisor};
use crate::gateway::{AgentEntrance, Enrolled, Gateway};
use crate::http::connection::{Limits, serve as serve_connections};
use crate::http::entrance::{LocalEntrance, NetworkEntrance, listen};
use crate::http::{NetworkOptions, Site};
use crate::hub::AgentHub;
use crate::seal::Seal;
use crate::store::{MemoryStore, SqliteStore, Store, StoreError};

/// The most connections of people and programs, for each way in.
const REST_CONNECTIONS_MAX: usize = 500;
/// The most connections of agents.
const AGENT_CONNECTIONS_MAX: usize = 2_000;
/// A cluster that nobody used for this long, and at most twice as long, rests.
const REST_AFTER: Duration = Duration::from_secs(30);
/// The most bytes of a catalogue file.
const CATALOGUE_BYTES_MAX: u64 = 1 << 20;

/// How a server is started.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where store, keys and the local socket are.
    pub data_dir: PathBuf,
    /// The local socket; `shiplock.sock` in the data directory when not given.
    pub socket: Option<PathBuf>,
    /// REST over TCP, beside the local socket.
    pub listen: Option<NetworkOptions>,
    /// Where agents are served.
    pub agent_listen: SocketAddr,
    /// The URL under which agents reach that; made from host name and port when not given.
    pub agent_url: Option<String>,
    /// Further host names and addresses for the gateway's certificate.
    pub agent_names: Vec<String>,
    /// A catalogue in place of the shipped one.
    pub catalogue: Option<PathBuf>,
    /// Names this process in leases.
    pub holder: String,
    /// Where everything is kept.
    pub store: StoreChoice,
    /// Bounds for all upgrades.
    pub policy: Policy,
}

/// Where everything is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StoreChoice {
    /// In `shiplock.db` in the data directory.
    #[default]
    Sqlite,
    /// In memory: gone with the process.
    Memory,
}

impl ServeOptions {
    /// What suits a single server with this data directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            socket: None,
            listen: None,
            agent_listen: SocketAddr::from(([0, 0, 0, 0], 7443)),
            agent_url: None,
            agent_names: Vec::new(),
            catalogue: None,
            holder: format!("{}-{}", host_name(), std::process::id()),
            store: StoreChoice::default(),
            policy: Policy::default(),
        }
    }
}

/// Serves until `shutdown` is done, then lets requests in work end within some seconds.
pub async fn serve(options: ServeOptions, shutdown: impl Future<Output = ()>) -> Result<(), Problem> {
    let server = Server::start(options, Arc::new(KubernetesDialer)).await?;
    server.run(shutdown).await;
    Ok(())
}

/// A server that listens.
pub struct Server {
    socket: PathBuf,
    rest_address: Option<SocketAddr>,
    agent_address: SocketAddr,
    agent_url: String,
    ca_pin: String,
    closing: watch::Sender<bool>,
    supervisor: Arc<Supervisor>,
    clusters: Arc<ClusterPool>,
    local: LocalEntrance,
    network: Option<NetworkEntrance>,
    agents: AgentEntrance,
    rest: axum::Router,
    gateway: axum::Router,
}

impl Server {
    /// Opens the store and the listeners. Nothing is answered or driven before [`Self::run`].
    pub async fn start(options: ServeOptions, dialer: Arc<dyn Dialer>) -> Result<Self, Problem> {
        crate::gateway::install_tls_provider();
        let now = Timestamp::now();
        let catalogue = read_catalogue(options.catalogue.as_deref()).await?;
        make_data_directory(&options.data_dir)?;
        let (store, seal) = open_store(&options).await?;
        let authority = Arc::new(Authority::open(&*store, &seal, now).await?);
        let seal = Arc::new(seal);
        let backups = Arc::new(match options.store {
            StoreChoice::Sqlite => Backups::open(options.data_dir.join("backups"), seal.clone())?,
            StoreChoice::Memory => Backups::temporary(&options.data_dir, seal.clone())?,
        });
        let fresh = uuid::Uuid::new_v4().to_string().into_bytes();
        let installation = store.setting("installation", fresh).await.map_err(StoreError::into_problem)?;

        let socket = options.socket.clone().unwrap_or_else(|| options.data_dir.join("shiplock.sock"));
        let local = LocalEntrance::bind(&socket).await?;
        let (mut network, mut tokens) = (None, Vec::new());
        if let Some(listen) = &options.listen {
            network = Some(NetworkEntrance::bind(listen).await?);
            tokens.clone_from(&listen.tokens);
        }
        let listener = listen(options.agent_listen, "--agent-listen").await?;
        let agent_address = bound_address(&listener)?;
        let agent_url = match &options.agent_url {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => default_agent_url(agent_address),
        };
        let names = agent_names(&agent_url, agent_address, &options.agent_names)?;
        let agents = AgentEntrance::new(listener, &authority, &names, now)?;

        let (closing, closed) = watch::channel(false);
        let hub = Arc::new(AgentHub::default());
        let enrolled = Arc::new(Enrolled::default());
        let clusters = Arc::new(ClusterPool::new(store.clone(), seal, dialer));
        let installation = String::from_utf8_lossy(&installation).into_owned();
        let settings = DriverSettings {
            // A file store lets one process in at a time, so whoever has it open is the one holder there is: after a
            // crash its successor takes the lease at once, under a higher epoch, and does not wait for its end.
            holder: installation.clone(),
            installation,
            policy: options.policy,
        };
        let supervisor = Supervisor::new(store.clone(), hub.clone(), clusters.clone(), settings);
        let gateway = crate::gateway::router(Arc::new(Gateway {
            store: store.clone(),
            hub: hub.clone(),
            enrolled: enrolled.clone(),
            authority: authority.clone(),
            clusters: clusters.clone(),
            backups: backups.clone(),
            closing: closed.clone(),
        }));
        let ca_pin = authority.ca_pin().to_owned();
        let site = Site {
            store,
            hub,
            clusters: clusters.clone(),
            drivers: Arc::new(supervisor.clone()),
            enrolled,
            authority,
            backups,
            precheck: supervisor.precheck(),
            catalogue,
            holder: options.holder,
            agent_url: agent_url.clone(),
            closing: closed,
            folds: crate::http::Folds::default(),
        };
        let rest = crate::http::router(Arc::new(site), &tokens);
        let rest_address = network.as_ref().and_then(|network| network.address().ok());
        Ok(Self {
            socket,
            rest_address,
            agent_address,
            agent_url,
            ca_pin,
            closing,
            supervisor,
            clusters,
            local,
            network,
            agents,
            rest,
            gateway,
        })
    }

    /// The local socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where REST is served over TCP.
    pub fn rest_address(&self) -> Option<SocketAddr> {
        self.rest_address
    }

    /// Where agents are served.
    pub fn agent_address(&self) -> SocketAddr {
        self.agent_address
    }

    /// The URL that join commands name.
    pub fn agent_url(&self) -> &str {
        &self.agent_url
    }

    /// The pin of the certificate authority.
    pub fn ca_pin(&self) -> &str {
        &self.ca_pin
    }

    /// Answers and drives until `shutdown` is done, then lets requests in work end within some seconds.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { closing, supervisor, clusters, local, network, agents, rest, gateway, .. } = self;
        tracing::info!(
            socket = %self.socket.display(),
            rest = ?self.rest_address,
            agents = %self.agent_address,
            agent_url = self.agent_url,
            "the server is ready"
        );
        let (people, machines) = (Limits::new(REST_CONNECTIONS_MAX), Limits::new(AGENT_CONNECTIONS_MAX));
        let mut listeners = JoinSet::new();
        match network {
            Some(NetworkEntrance::Plain(plain)) => {
                listeners.spawn(serve_connections(plain, rest.clone(), people, closing.subscribe()));
            }
            Some(NetworkEntrance::Tls(tls)) => {
                listeners.spawn(serve_connections(tls, rest.clone(), people, closing.subscribe()));
            }
            None => {}
        }
        listeners.spawn(serve_connections(local, rest, people, closing.subscribe()));
        listeners.spawn(serve_connections(agents, gateway, machines, closing.subscribe()));
        let driving = tokio::spawn(async move { tokio::join!(supervisor.run(), rest_unused(&clusters)) });
        shutdown.await;
        tracing::info!("the server stops");
        let _ = closing.send(true);
        // The drivers go on meanwhile, so that the reports in work are recorded.
        while listeners.join_next().await.is_some() {}
        driving.abort();
        let _ = driving.await;
    }
}

/// Lets clusters rest that nobody uses, for as long as it is polled.
async fn rest_unused(clusters: &ClusterPool) {
    loop {
        tokio::time::sleep(REST_AFTER).await;
        clusters.rest_unused();
    }
}

fn make_data_directory(path: &Path) -> Result<(), Problem> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
        let problem = Problem::new(Code::FileUnusable).with("path", path.display()).with("subject", "this server");
        problem.with("operation", "made").because(&error)
    })
}

async fn open_store(options: &ServeOptions) -> Result<(Arc<dyn Store>, Seal), Problem> {
    match options.store {
        StoreChoice::Memory => Ok((Arc::new(MemoryStore::new()), Seal::ephemeral())),
        StoreChoice::Sqlite => {
            // The store first: it refuses a second process, which could make a second key.
            let store = SqliteStore::open(&options.data_dir.join("shiplock.db")).await;
            let store = store.map_err(StoreError::into_problem)?;
            let key = options.data_dir.join("seal.key");
            if !key.exists() && !store.clusters().await.map_err(StoreError::into_problem)?.is_empty() {
                // A new key could open nothing of what is there, and would hide that the right one is missing.
                let problem =
                    Problem::new(Code::FileUnusable).with("path", key.display()).with("subject", "this server");
                let problem = problem.with("operation", "used");
                return Err(problem.cause("it is missing, and the store holds what it has sealed: put it back"));
            }
            let seal = Seal::open_or_create(&key)?;
            Ok((Arc::new(store), seal))
        }
    }
}

async fn read_catalogue(path: Option<&Path>) -> Result<Catalogue, Problem> {
    let Some(path) = path else { return Ok(Catalogue::shipped()) };
    let read = async {
        if tokio::fs::metadata(path).await?.len() > CATALOGUE_BYTES_MAX {
            return Err(io::Error::other(format!("it is larger than {CATALOGUE_BYTES_MAX} bytes")));
        }
        tokio::fs::read_to_string(path).await
    };
    let text = read.await.map_err(|error| {
        let problem = Problem::new(Code::FileUnusable).with("path", path.display()).with("subject", "this server");
        problem.with("operation", "read").because(&error)
    })?;
    Catalogue::parse(&text)
}

fn bound_address(listener: &TcpListener) -> Result<SocketAddr, Problem> {
    listener
        .local_addr()
        .map_err(|error| Problem::new(Code::Internal).with("what", "a listener has no address").because(&error))
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn default_agent_url(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("https://{}:{}", host_name(), address.port())
    } else {
        format!("https://{address}")
    }
}

/// The names of the gateway's certificate: what agents are told, what it listens at, and this machine's own.
fn agent_names(url: &str, address: SocketAddr, further: &[String]) -> Result<Vec<String>, Problem> {
    let bad = |value: &str, why: &str| {
        Problem::new(Code::BadOption).with("option", "--agent-url").with("value", value).with("why", why)
    };
    let authority = url.strip_prefix("https://").ok_or_else(|| bad(url, "it does not begin with https://"))?;
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    };
    let mut names = vec![host.to_owned()];
    if !address.ip().is_unspecified() {
        names.push(address.ip().to_string());
    }
    names.extend(further.iter().cloned());
    for name in &names {
        let character = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-' | '*');
        if name.parse::<IpAddr>().is_err() && (name.is_empty() || name.len() > 253 || !name.chars().all(character)) {
            return Err(bad(name, "it is neither a host name nor an address"));
        }
    }
    names.extend([host_name(), "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]);
    // A certificate names each once, in this order.
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use shiplock_api::rest::{ProblemBody, ServerView};
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::http::ApiToken;
    use crate::http::sample::FakeDialer;

    #[test]
    fn the_gateways_certificate_names_what_agents_are_told_and_what_it_listens_at() {
        let address: SocketAddr = "10.0.0.5:7443".parse().unwrap();
        for (url, expected) in [
            ("https://shiplock.example:7443", Some("shiplock.example")),
            ("https://10.0.0.9", Some("10.0.0.9")),
            ("https://[fd00::1]:7443", Some("fd00::1")),
            ("http://shiplock.example", None),
            ("https://", None),
            ("https://a/b", None),
            ("https://a b", None),
        ] {
            let names = agent_names(url, address, &["extra".to_owned(), "localhost".to_owned()]);
            match expected {
                None => assert_eq!(names.unwrap_err().code, Code::BadOption, "{url}"),
                Some(host) => {
                    let names = names.unwrap();
                    assert_eq!(names[0], host);
                    for name in ["10.0.0.5", "extra", "localhost", "127.0.0.1", "::1"] {
                        assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name} in {names:?}");
                    }
                }
            }
        }
        assert_eq!(default_agent_url(address), "https://10.0.0.5:7443");
    }

    fn options(directory: &Path) -> ServeOptions {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let tokens = vec![ApiToken::new("ci", "the-secret-of-ci")];
        ServeOptions {
            listen: Some(NetworkOptions { address: loopback, tls: None, tokens }),
            agent_listen: loopback,
            ..ServeOptions::new(directory)
        }
    }

    /// A server that runs until it is told to stop.
    struct Running {
        socket: PathBuf,
        rest: String,
        ca_pin: String,
        stop: oneshot::Sender<()>,
        task: JoinHandle<()>,
    }

    async fn run(options: ServeOptions) -> Result<Running, Problem> {
        let server = Server::start(options, Arc::new(FakeDialer::default())).await?;
        let socket = server.socket().to_owned();
        let rest = format!("http://{}", server.rest_address().unwrap());
        let ca_pin = server.ca_pin().to_owned();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Ok(Running { socket, rest, ca_pin, stop, task })
    }

    impl Running {
        fn local(&self) -> reqwest::Client {
            reqwest::Client::builder().unix_socket(self.socket.clone()).tls_certs_only([]).build().unwrap()
        }

        async fn stop(self) {
            self.stop.send(()).unwrap();
            self.task.await.unwrap();
            assert!(!self.socket.exists());
        }
    }

    #[tokio::test]
    async fn a_server_answers_on_its_ways_in_and_keeps_its_authority_over_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let running = run(options(directory.path())).await.unwrap();
        let view: ServerView =
            running.local().get("http://shiplock/api/v1/server").send().await.unwrap().json().await.unwrap();
        assert_eq!(view.version, env!("CARGO_PKG_VERSION"));
        assert!(view.agent_url.starts_with("https://127.0.0.1:"), "{}", view.agent_url);

        let network = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let url = format!("{}/api/v1/server", running.rest);
        let refused = network.get(&url).send().await.unwrap();
        assert_eq!(refused.status(), 401);
        assert_eq!(refused.json::<ProblemBody>().await.unwrap().code, Code::Unauthorized);
        assert_eq!(network.get(&url).bearer_auth("the-secret-of-ci").send().await.unwrap().status(), 200);

        let second = run(options(directory.path())).await.err().unwrap();
        assert_eq!(second.code, Code::StoreInUse, "one process at a time");
        let pin = running.ca_pin.clone();
        running.stop().await;
        let again = run(options(directory.path())).await.unwrap();
        assert_eq!(again.ca_pin, pin);
        again.stop().await;
    }

    #[tokio::test]
    async fn a_server_stops_in_bounded_time_though_feeds_and_silent_clients_are_there() {
        let directory = tempfile::tempdir().unwrap();
        let running = run(ServeOptions { store: StoreChoice::Memory, ..options(directory.path()) }).await.unwrap();
        let feed = running.local().get("http://shiplock/api/v1/events").header("accept", "text/event-stream");
        let mut feed = feed.send().await.unwrap();
        assert_eq!(feed.headers()["content-type"], "text/event-stream");
        let _silent = tokio::net::UnixStream::connect(&running.socket).await.unwrap();
        tokio::time::timeout(Duration::from_secs(30), running.stop()).await.unwrap();
        while let Ok(Some(_)) = feed.chunk().await {}
    }

    #[tokio::test]
    async fn what_cannot_be_served_is_refused_before_anything_listens() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        let memory = || ServeOptions { store: StoreChoice::Memory, ..options(here) };
        let catalogue = here.join("catalogue.json");
        std::fs::write(&catalogue, "{}").unwrap();
        let file = here.join("file");
        std::fs::write(&file, "").unwrap();
        let table = [
            (ServeOptions { catalogue: Some(catalogue), ..memory() }, Code::BadOption),
            (ServeOptions { catalogue: Some(here.join("missing")), ..memory() }, Code::FileUnusable),
            (ServeOptions { data_dir: file.join("below"), ..memory() }, Code::FileUnusable),
            (ServeOptions { agent_url: Some("http://plain".to_owned()), ..memory() }, Code::BadOption),
            (ServeOptions { agent_names: vec!["no name".to_owned()], ..memory() }, Code::BadOption),
        ];
        for (options, code) in table {
            let shown = format!("{options:?}");
            assert_eq!(run(options).await.err().unwrap().code, code, "{shown}");
            assert!(!here.join("shiplock.sock").exists(), "{shown}");
        }
    }
}
