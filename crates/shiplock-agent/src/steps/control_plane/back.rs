//! Puts the control plane of a master back from copies of it, by the same swap.

use std::fs;
use std::path::{Path, PathBuf};

use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::problem::Problem;

use super::Master;
use super::ground::Ground;
use super::verify::{Expected, Judge};
use crate::backup::Backup;
use crate::control_plane::manifest::{self, Manifest};
use crate::files;
use crate::host::Host;
use crate::steps::{Failure, Step};
use crate::swap::{SwapBegun, SwapPlan, SwappedFile};

impl<H: Host> Master<'_, H> {
    /// Puts kubelet, its configuration and the manifests back. etcd stays where its minor version changed: an older one
    /// refuses the data.
    pub(super) async fn roll_back(&self, problem: Problem) -> Failure {
        self.step.begin_roll_back(&problem).await;
        self.step.progress("rolling_back");
        let mut problem = problem;
        let etcd_stays =
            self.upgrade.etcd_minor_changes && self.upgrade.components.contains(&ControlPlaneComponent::Etcd);
        if etcd_stays {
            problem = problem.cause("etcd stays at its new minor version, whose data the old one refuses");
        }
        let state = match self.swap_back(etcd_stays).await {
            Ok(true) => "the old control plane was put back and runs".to_owned(),
            Ok(false) => {
                "nothing of this step can be put back: what does not run is to be mended where it is".to_owned()
            }
            Err(why) => format!("the old control plane could not be put back: {why}"),
        };
        problem.cause(state).into()
    }

    /// False where nothing was replaced that could be put back.
    async fn swap_back(&self, etcd_stays: bool) -> Result<bool, String> {
        self.ground.wait_for_runtime().await.map_err(|problem| problem.to_string())?;
        let folder = self.folder.join("back");
        let backup = Backup::find(&self.old()).ok_or("there is no copy of it")?;
        let back = Back { ground: &self.ground, backup: &backup, etcd_stays };
        if SwapPlan::find(&folder).is_none() {
            let plan = back.plan().map_err(|error| error.to_string())?;
            plan.write(&folder).map_err(|error| error.to_string())?;
        }
        let plan = SwapPlan::find(&folder).ok_or("its plan cannot be read")?;
        if plan.files.is_empty() {
            return Ok(false);
        }
        let swap = async {
            self.ground.swap("roll-back", &folder).await?;
            let mut expected = back.expected().await?;
            expected.retain(|expected| plan.stopped.contains(&expected.component));
            let (version, kubelet) = back.identity(&expected).await?;
            let old = SwapBegun::find(&folder).map(|begun| begun.old_containers).unwrap_or_default();
            let (step, kubelet) = (self.step, kubelet.as_deref());
            Judge {
                step,
                expected: &expected,
                stopped: &plan.stopped,
                old,
                kubelet,
                version: &version,
                behaves_like: None,
            }
            .wait()
            .await
        };
        swap.await.map(|_| true).map_err(|problem: Problem| problem.to_string())
    }
}

/// The way back to what was kept.
pub(super) struct Back<'a, H> {
    pub(super) ground: &'a Ground<'a, H>,
    pub(super) backup: &'a Backup,
    /// Whether etcd's manifest stays as it is.
    pub(super) etcd_stays: bool,
}

impl<H: Host> Back<'_, H> {
    /// The copies that are put back: where each goes, and where it is kept.
    pub(super) fn copies(&self) -> impl Iterator<Item = (&PathBuf, PathBuf)> {
        let etcd = self.ground.step.host.at(&manifest::path(ControlPlaneComponent::Etcd));
        self.backup.kept().filter(move |(target, _)| !self.etcd_stays || **target != etcd)
    }

    /// The kept kubelet; none where it was not replaced.
    fn kubelet(&self) -> Option<PathBuf> {
        let is_kubelet = |target: &Path| target.file_name().is_some_and(|name| name == "kubelet");
        self.copies().find(|(target, _)| is_kubelet(target)).map(|(_, kept)| kept)
    }

    /// Lays the copies beside their targets. A power cut may come between two of them, and what is in place then is
    /// started: first goes the kubelet, which must not be newer than the API server, and last what others must not be
    /// newer than.
    pub(super) fn plan(&self) -> std::io::Result<SwapPlan> {
        let step = self.ground.step;
        let is_manifest = |target: &Path| target.starts_with(step.host.at(manifest::FOLDER));
        let (manifests, others): (Vec<_>, Vec<_>) = self.copies().partition(|(target, _)| is_manifest(target));
        let ordered = others.into_iter().chain(manifests.into_iter().rev());
        let files = ordered.map(|(target, kept)| placed_beside(step, &kept, target));
        let files: Vec<SwappedFile> = files.collect::<Result<_, _>>()?;
        let mut stopped = ControlPlaneComponent::ALL.to_vec();
        if self.kubelet().is_none() {
            let goes_back = |component: &ControlPlaneComponent| {
                let path = step.host.at(&manifest::path(*component));
                self.copies().any(|(target, _)| *target == path)
            };
            stopped.retain(goes_back);
        }
        Ok(SwapPlan::new(files, stopped))
    }

    /// What runs afterwards: the components by the kept manifests, and by those in force where none was kept.
    pub(super) async fn expected(&self) -> Result<Vec<Expected>, Problem> {
        let mut expected = Vec::new();
        for (component, manifest) in self.manifests()? {
            let reference = manifest.image.clone();
            let image_id = self.ground.image_id(&reference).await?;
            expected.push(Expected { component, manifest, reference, image_id });
        }
        Ok(expected)
    }

    /// The manifests as they are afterwards, in order.
    pub(super) fn manifests(&self) -> Result<Vec<(ControlPlaneComponent, Manifest)>, Problem> {
        let step = self.ground.step;
        let mut manifests = Vec::new();
        for component in ControlPlaneComponent::ALL {
            let path = step.host.at(&manifest::path(component));
            let place = self.copies().find(|(target, _)| **target == path).map_or(path, |(_, kept)| kept);
            let unusable = |error: &std::io::Error| step.unusable(&place, "read", error);
            let text = fs::read_to_string(&place).map_err(|error| unusable(&error))?;
            let manifest = Manifest::parse(component, &text)
                .map_err(|why| unusable(&std::io::ErrorKind::InvalidData.into()).cause(why))?;
            manifests.push((component, manifest));
        }
        Ok(manifests)
    }

    /// The version that the API server answers afterwards, and the digest of the kubelet that runs.
    pub(super) async fn identity(&self, expected: &[Expected]) -> Result<(String, Option<String>), Problem> {
        let api_server = expected.iter().find(|found| found.component == ControlPlaneComponent::KubeApiserver);
        let version = api_server.and_then(|found| found.reference.rsplit_once(':')).map_or("", |(_, tag)| tag);
        let host = &*self.ground.step.host;
        let kubelet = match self.kubelet() {
            Some(kept) => kept,
            None => host.at(&host.service("kubelet").await?.command.first().cloned().unwrap_or_default()),
        };
        let kubelet = host.file_digest(&kubelet).await?;
        Ok((version.to_owned(), kubelet))
    }
}

/// Copies a file beside its target.
pub(super) fn placed_beside<H: Host>(step: &Step<H>, source: &Path, target: &Path) -> std::io::Result<SwappedFile> {
    let place = files::place_beside(source, target)?;
    Ok(SwappedFile { place: step.host.node_path(&place), target: step.host.node_path(target) })
}
