//! The swap itself: kubelet and static pods stopped once, files renamed into place, the kubelet started.
//!
//! It runs as one transient unit and outlives the agent. It may be begun again at any point, after a power cut too:
//! what is in place already is left alone, and a kubelet that has everything is not stopped again.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::problem::{Code, Problem};

use crate::files;
use crate::host::Host;

const PLAN: &str = "swap.json";
const BEGUN: &str = "begun.json";
const SERVICE: &str = "kubelet";
/// What the service manager gives the kubelet to end, and a little.
const SERVICE_LIMIT: Duration = Duration::from_secs(100);
/// The kubelet itself gives the containers of a static pod that was replaced no more when it is started:
/// <https://github.com/kubernetes/kubernetes/blob/v1.36.3/pkg/kubelet/kuberuntime/kuberuntime_container.go>.
const GRACE: Duration = Duration::from_secs(2);
/// So often containers are stopped that a kubelet started while it was being stopped; what it began last may yet come up.
const STOPS_MAX: u32 = 3;

/// What is to be swapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapPlan {
    /// The files.
    pub files: Vec<SwappedFile>,
    /// The static pods that are stopped with the kubelet. Left to itself, a new kubelet starts the new ones before it
    /// ends the old, and they collide over ports and locks.
    pub stopped: Vec<ControlPlaneComponent>,
}

/// A file that goes into place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwappedFile {
    /// Where it waits, as a path of the node.
    pub place: String,
    /// Where it goes.
    pub target: String,
}

/// What was written down when a swap began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwapBegun {
    /// When.
    pub at: Timestamp,
    /// The containers that ran before it.
    pub old_containers: BTreeSet<String>,
}

impl SwapPlan {
    /// A plan that stops these static pods, and with etcd the API server that asks it: left alone, it would let a
    /// kubelet that is being started wait a minute for each answer, before that has started etcd.
    pub fn new(files: Vec<SwappedFile>, mut stopped: Vec<ControlPlaneComponent>) -> Self {
        let api_server = ControlPlaneComponent::KubeApiserver;
        if stopped.contains(&ControlPlaneComponent::Etcd) && !stopped.contains(&api_server) {
            stopped.push(api_server);
        }
        Self { files, stopped }
    }

    /// Writes it into a folder, from which [`perform`] takes it.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        files::replace(&folder.join(PLAN), &serde_json::to_string(self)?, 0o600)
    }

    /// The plan in a folder.
    pub fn find(folder: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(folder.join(PLAN)).ok()?).ok()
    }

    /// Takes back what was prepared. Not for a swap that has begun.
    pub fn discard<H: Host>(&self, host: &H, folder: &Path) {
        // What stays is found and replaced by the next attempt.
        let _ = files::remove(&folder.join(PLAN));
        for file in &self.files {
            let _ = files::remove(&host.at(&file.place));
        }
    }
}

impl SwapBegun {
    /// What was written down in a folder; none before the begin.
    pub fn find(folder: &Path) -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(folder.join(BEGUN)).ok()?).ok()
    }

    fn write(&self, folder: &Path) -> Result<(), Problem> {
        let file = folder.join(BEGUN);
        let text = serde_json::to_string(self).map_err(|error| unusable(&file, error.into()))?;
        files::replace(&file, &text, 0o600).map_err(|error| unusable(&file, error))
    }
}

/// Carries out the plan in a folder.
pub async fn perform<H: Host>(host: &H, folder: &Path) -> Result<(), Problem> {
    let plan = SwapPlan::find(folder).ok_or_else(|| unusable(&folder.join(PLAN), io::ErrorKind::InvalidData.into()))?;
    let begun = SwapBegun::find(folder);
    let waiting: Vec<(PathBuf, PathBuf)> = plan
        .files
        .iter()
        .map(|file| (host.at(&file.place), host.at(&file.target)))
        .filter(|(place, _)| place.exists())
        .collect();
    let mut renamed = Ok(());
    if begun.is_none() || !waiting.is_empty() {
        let mut stopped = running(host, &plan).await?;
        let mut begun = begun.unwrap_or_else(|| SwapBegun { at: Timestamp::now(), old_containers: BTreeSet::new() });
        begun.old_containers.extend(stopped.iter().cloned());
        begun.write(folder)?;
        service(host, "stop").await?;
        for _ in 0..STOPS_MAX {
            // One that cannot be stopped is stopped by the kubelet, later.
            let _ = join_all(stopped.iter().map(|id| host.stop_container(id, GRACE))).await;
            // Until it had stopped, the kubelet may have started more, as right after a boot.
            stopped = running(host, &plan).await.unwrap_or_default();
            if stopped.is_empty() {
                break;
            }
            begun.old_containers.extend(stopped.iter().cloned());
            renamed = renamed.and_then(|()| begun.write(folder));
        }
    }
    for (place, target) in waiting {
        // The kubelet is started whatever happens: a node without one helps nobody.
        renamed = renamed.and_then(|()| files::rename(&place, &target).map_err(|error| unusable(&target, error)));
    }
    service(host, "start").await?;
    renamed
}

fn unusable(path: &Path, error: io::Error) -> Problem {
    files::unusable(path, "this node", "used", &error)
}

/// The containers of the static pods that are to be stopped, as far as they run.
async fn running<H: Host>(host: &H, plan: &SwapPlan) -> Result<Vec<String>, Problem> {
    let containers = host.containers().await?;
    let is_stopped = |name: &str| plan.stopped.iter().any(|component| component.name() == name);
    let running = containers.into_iter().filter(|container| container.running && is_stopped(&container.name));
    Ok(running.map(|container| container.id).collect())
}

async fn service<H: Host>(host: &H, verb: &str) -> Result<(), Problem> {
    let output = host.output("systemctl", &[verb, SERVICE], SERVICE_LIMIT).await?;
    if output.success {
        return Ok(());
    }
    Err(Problem::new(Code::ProgramFailed)
        .with("program", format!("systemctl {verb} {SERVICE}"))
        .with("node", "this node")
        .with("result", "an error")
        .cause(output.error))
}
