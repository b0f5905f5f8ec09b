//! Puts the control plane of a master back as it was before an attempt, by the same swap.

use std::path::Path;

use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::problem::Problem;

use super::Master;
use super::verify::{Expected, Judge};
use crate::backup::Backup;
use crate::control_plane::manifest;
use crate::files;
use crate::host::Host;
use crate::steps::Failure;
use crate::swap::{SwapBegun, SwapPlan, SwappedFile};

impl<H: Host> Master<'_, H> {
    /// Puts kubelet, its configuration and the manifests back. etcd stays where its minor version changed: an older one
    /// refuses the data.
    pub(super) async fn roll_back(&self, problem: Problem) -> Failure {
        self.step.begin_roll_back(&problem).await;
        self.step.progress("rolling_back");
        let mut problem = problem;
        if self.etcd_stays() {
            problem = problem.cause("etcd stays at its new minor version, whose data the old one refuses");
        }
        let state = match self.swap_back().await {
            Ok(()) => "the old control plane was put back and runs".to_owned(),
            Err(why) => format!("the old control plane could not be put back: {why}"),
        };
        problem.cause(state).into()
    }

    fn etcd_stays(&self) -> bool {
        self.upgrade.etcd_minor_changes && self.upgrade.components.contains(&ControlPlaneComponent::Etcd)
    }

    async fn swap_back(&self) -> Result<(), String> {
        let step = self.step;
        self.wait_for_runtime().await.map_err(|problem| problem.to_string())?;
        let folder = self.folder.join("back");
        if SwapPlan::find(&folder).is_none() {
            let backup = Backup::find(&self.old()).ok_or("there is no copy of it")?;
            let plan = self.plan_back(&backup).map_err(|error| error.to_string())?;
            plan.write(&folder).map_err(|error| error.to_string())?;
        }
        let plan = SwapPlan::find(&folder).ok_or("its plan cannot be read")?;
        if plan.files.is_empty() {
            return Ok(());
        }
        self.swap("roll-back", &folder).await.map_err(|problem| problem.to_string())?;
        let mut expected = Vec::new();
        for (component, manifest) in self.manifests().map_err(|problem| problem.to_string())? {
            if !plan.stopped.contains(&component) {
                continue;
            }
            let reference = manifest.image.clone();
            let image_id = self.image_id(&reference).await.map_err(|problem| problem.to_string())?;
            expected.push(Expected { component, manifest, reference, image_id });
        }
        let api_server = expected.iter().find(|found| found.component == ControlPlaneComponent::KubeApiserver);
        let version =
            api_server.and_then(|found| found.reference.rsplit_once(':')).map_or("", |(_, tag)| tag).to_owned();
        let service = step.host.service("kubelet").await.map_err(|problem| problem.to_string())?;
        let kubelet = step.host.at(&service.command.first().cloned().unwrap_or_default());
        let kubelet = step.host.file_digest(&kubelet).await.ok().flatten();
        let judge = Judge {
            step,
            expected: &expected,
            stopped: &plan.stopped,
            old: SwapBegun::find(&folder).map(|begun| begun.old_containers).unwrap_or_default(),
            kubelet: kubelet.as_deref(),
            version: &version,
        };
        judge.wait().await.map(|_| ()).map_err(|problem| problem.to_string())
    }

    fn plan_back(&self, backup: &Backup) -> std::io::Result<SwapPlan> {
        let host = &*self.step.host;
        let etcd = host.at(&manifest::path(ControlPlaneComponent::Etcd));
        let mut files = Vec::new();
        for (target, kept) in backup.kept() {
            if self.etcd_stays() && *target == etcd {
                continue;
            }
            files.push(self.placed(&kept, target)?);
        }
        let mut stopped = ControlPlaneComponent::ALL.to_vec();
        if !self.has_kubelet() {
            stopped.retain(|component| self.upgrade.components.contains(component));
        }
        Ok(SwapPlan { files, stopped })
    }

    /// Copies a file beside its target.
    pub(super) fn placed(&self, source: &Path, target: &Path) -> std::io::Result<SwappedFile> {
        let place = files::place_beside(source, target)?;
        let host = &*self.step.host;
        Ok(SwappedFile { place: host.node_path(&place), target: host.node_path(target) })
    }
}
