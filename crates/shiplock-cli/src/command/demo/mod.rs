//! `demo`: the production server with three simulated clusters, until it is told to end.

mod folder;

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shiplock_api::client::{Client, Endpoint};
use shiplock_api::rest::{ClusterAdd, PlanCreate, UpgradeCreate};
use shiplock_core::catalogue::VersionRequest;
use shiplock_core::id::{ClusterName, UpgradeId};
use shiplock_core::plan::{PlanOptions, PlanRequest};
use shiplock_core::problem::{Code, Problem};
use shiplock_server::clusters::KubernetesDialer;
use shiplock_server::serve::{ServeOptions, Server};
use shiplock_sim::demo::{Agents, Cluster, Joining, Standing, artefacts};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use self::folder::Folder;
use crate::arguments::DemoArguments;
use crate::attached::interrupted_or_left;
use crate::exit::Exit;
use crate::output::{self, Output, Progress};
use crate::render::demo as text;
use crate::result;
use crate::settings::SOCKET_NAME;

/// The minor that the upgrades go to.
const TARGET: &str = "1.36";

/// The interval between the batches of the upgrade that is under way, at the pace of a real cluster: at the speed that is
/// given by itself, whoever comes a minute later still finds it in the middle.
const UNDERWAY_INTERVAL_SECONDS: u32 = 600;

/// So many files may be open: 250 are when nobody asks, and every client of a cluster holds some.
const FILES_MIN: u64 = 512;
/// As many as are asked of the system, so that clients find room.
const FILES_WANTED: u64 = 4096;

/// Shows the demo until SIGINT or SIGTERM, or until its terminal is closed: nothing is left behind then either.
pub(super) async fn demo(options: DemoArguments, output: &Output) -> Result<Exit, Problem> {
    log(output);
    allow_files()?;
    let mut stop = pin!(interrupted_or_left());
    let folder = Folder::open(options.data_dir)?;
    let mut demo = Demo::default();
    let begun = tokio::select! {
        begun = demo.begin(&folder, options.speed, options.seed) => begun.map(Some),
        () = &mut stop => Ok(None),
    };
    let (is_begun, ended) = match begun {
        Ok(Some(shown)) => {
            output.result(&shown, |style| text::begin(&shown, style));
            // Nobody knows of a demo that could not say where it is.
            let unwritten = output::unwritten();
            if unwritten.is_none() {
                stop.await;
            }
            (unwritten.is_none(), unwritten.map_or(Ok(()), Err))
        }
        Ok(None) => (false, Ok(())),
        Err(problem) => (false, Err(problem)),
    };
    demo.end().await;
    if is_begun {
        drop(folder);
        output.remark(output.pick("The demo has ended.", "演示已结束。"));
    } else {
        folder.give_up();
    }
    ended.map(|()| Exit::Done)
}

/// Asks the system for room for open files, and refuses to begin without.
fn allow_files() -> Result<(), Problem> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(FILES_WANTED).min(FILES_WANTED);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= FILES_WANTED {
        return Ok(());
    }
    let raised = Rlimit { current: Some(wanted), ..limit };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { wanted.max(current) } else { current };
    if current >= FILES_MIN {
        return Ok(());
    }
    Err(Problem::new(Code::TooFewFiles).with("limit", current).with("needed", FILES_MIN))
}

/// The server's log is for who asks for it; warnings are for all.
fn log(output: &Output) {
    let filter = std::env::var("SHIPLOCK_LOG").unwrap_or_else(|_| "error".to_owned());
    let filter = tracing_subscriber::EnvFilter::new(filter);
    if output.progress() != Progress::None {
        let ansi = output.progress_style().colour;
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi).init();
    }
}

/// A demo at work, or as far as it has begun.
#[derive(Default)]
struct Demo {
    agents: Option<Agents>,
    /// Ends the server, which then returns.
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    /// The clusters' clocks and endpoints.
    clusters: JoinSet<()>,
}

impl Demo {
    async fn begin(&mut self, folder: &Folder, speed: u32, seed: u64) -> Result<result::DemoStarted, Problem> {
        let path = folder.path().to_owned();
        let mirror = path.join("mirror");
        let index =
            serde_json::to_string(&artefacts()).map_err(|error| internal("the index of the mirror").because(&error))?;
        fs::create_dir(&mirror)
            .and_then(|()| fs::write(mirror.join("artefacts.json"), index))
            .map_err(|error| unwritable(&mirror, &error))?;

        let mut serving = ServeOptions::new(path.join("server"));
        serving.socket = Some(path.join(SOCKET_NAME));
        // No port is fixed: two demos go side by side.
        serving.agent_listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Server::start(serving, Arc::new(KubernetesDialer)).await?;
        let socket = server.socket().to_owned();
        let (agent_url, ca_pin) = (server.agent_url().to_owned(), server.ca_pin().to_owned());
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        self.server = Some((stop, server));

        let client = Client::new(Endpoint::Socket(socket.clone()), None, None)?;
        let mut joining = Vec::new();
        let mut clusters = Vec::new();
        for cluster in Cluster::all(seed, speed) {
            let kubeconfig = cluster.open(&mut self.clusters).await?;
            let place = path.join(format!("{}.kubeconfig", cluster.name));
            write_secret(&place, &kubeconfig).map_err(|error| unwritable(&place, &error))?;
            let add = ClusterAdd {
                name: cluster.name.clone(),
                kubeconfig,
                allow: Vec::new(),
                mirror: Some(mirror.display().to_string()),
            };
            client.add_cluster(&add).await?;
            let mut tokens = Vec::new();
            for _ in 0..cluster.size.0 + cluster.size.1 {
                tokens.push(client.join_token(&cluster.name).await?.token);
            }
            let cluster = Arc::new(cluster);
            joining.push(Joining { cluster: cluster.clone(), tokens });
            clusters.push((cluster, place));
        }
        let scratch = path.join("agents");
        fs::create_dir(&scratch).map_err(|error| unwritable(&scratch, &error))?;
        self.agents = Some(Agents::join(joining, &agent_url, &ca_pin, scratch).await?);
        for (cluster, _) in &clusters {
            all_heard_of(&client, cluster).await?;
        }

        let mut shown = Vec::new();
        for (cluster, kubeconfig) in clusters {
            let upgrade = match cluster.standing {
                Standing::Ready => None,
                // Two at a time, so that there is something to see for a while.
                Standing::Underway => {
                    let interval = UNDERWAY_INTERVAL_SECONDS / speed.max(1);
                    let options =
                        PlanOptions { max_parallel: 2, batch_interval_seconds: interval, ..PlanOptions::default() };
                    Some(begin(&client, &cluster.name, options).await?)
                }
                Standing::Blocked => {
                    let options = PlanOptions { max_parallel: 1, ..PlanOptions::default() };
                    Some(begin(&client, &cluster.name, options).await?)
                }
            };
            let (masters, workers) = cluster.size;
            shown.push(result::DemoCluster {
                name: cluster.name.clone(),
                standing: text::word(cluster.standing).to_owned(),
                masters,
                workers,
                kubeconfig: kubeconfig.display().to_string(),
                upgrade,
            });
        }
        let program = std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default();
        Ok(result::DemoStarted {
            server: socket.display().to_string(),
            program,
            speed,
            folder: path.display().to_string(),
            folder_stays: folder.stays(),
            clusters: shown,
        })
    }

    /// Ends everything in order: agents first, then the server, then the clusters.
    async fn end(self) {
        let Self { agents, server, mut clusters } = self;
        // They wait for the end of their thread, which is no work for this one.
        let _ = tokio::task::spawn_blocking(move || drop(agents)).await;
        if let Some((stop, server)) = server {
            let _ = stop.send(());
            let _ = server.await;
        }
        clusters.shutdown().await;
    }
}

/// Returns when the server has heard of every agent of a cluster: nothing is started before.
async fn all_heard_of(client: &Client, cluster: &Cluster) -> Result<(), Problem> {
    let all = cluster.size.0 + cluster.size.1;
    loop {
        let agents = client.agents(&cluster.name).await?;
        if agents.iter().filter(|agent| agent.last_heard_at.is_some()).count() == all {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Plans and starts an upgrade as a person would.
async fn begin(client: &Client, cluster: &ClusterName, options: PlanOptions) -> Result<UpgradeId, Problem> {
    let to = VersionRequest::parse(TARGET).map_err(|error| internal("the version of the demo").because(&error))?;
    let request = PlanRequest {
        to,
        mode: shiplock_core::plan::Mode::Cluster,
        pools: Vec::new(),
        nodes: Vec::new(),
        exclude_nodes: Vec::new(),
        options,
    };
    let plan = client.make_plan(cluster, &PlanCreate { request, dry_run: false }).await?;
    let create = UpgradeCreate { plan: plan.id, plan_hash: plan.hash };
    Ok(client.start_upgrade(&create, &uuid::Uuid::new_v4().to_string()).await?.id)
}

fn internal(what: &str) -> Problem {
    Problem::new(Code::Internal).with("what", what)
}

fn unwritable(path: &Path, error: &std::io::Error) -> Problem {
    let problem = Problem::new(Code::FileUnusable).with("path", path.display()).with("subject", "this machine");
    problem.with("operation", "written").because(error)
}

fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
