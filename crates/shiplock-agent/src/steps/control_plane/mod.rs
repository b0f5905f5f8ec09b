//! Step `upgrade_control_plane`: the target's kubeadm renders the manifests beside the ones in force, and then kubelet
//! and manifests are swapped with one stop of the kubelet ([`crate::swap`]). What does not come up is swapped back.
//!
//! An etcd member and an API server are touched only when the others were seen well right before; etcd never goes back
//! over a minor version.

mod back;
mod ground;
mod guard;
mod prepare;
pub mod restore;
mod verify;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::{ControlPlaneMethod, ControlPlaneUpgrade, Emulation};
use shiplock_core::upgrade::StepOutcome;
use shiplock_core::version::MinorVersion;

use self::ground::Ground;
use self::prepare::Texts;
use self::verify::{Expected, Judge};
use super::{Failure, Step, with_role};
use crate::backup::Backup;
use crate::control_plane::manifest;
use crate::control_plane::{difference, kept};
use crate::host::Host;
use crate::swap::{SwapBegun, SwapPlan};

/// What is shown of differences, over all manifests.
const DIFFERENCE_BYTES_MAX: usize = 32 << 10;

/// A master in work.
pub(super) struct Master<'a, H> {
    step: &'a Step<H>,
    ground: Ground<'a, H>,
    upgrade: &'a ControlPlaneUpgrade,
    /// Where this attempt keeps what it rendered, what it replaces, and how far it is.
    folder: PathBuf,
}

/// Does the step.
pub async fn run<H: Host>(step: &Step<H>, upgrade: &ControlPlaneUpgrade) -> Result<StepOutcome, Failure> {
    let id = &step.assignment.id;
    let folder = kept::folder(&step.data_folder, &id.upgrade, id.step, id.generation.intent);
    let ground = Ground { step, is_only: upgrade.is_only };
    let master = Master { step, ground, upgrade, folder };
    match step.rolling_back.clone() {
        Some(problem) => Err(master.roll_back(problem).await),
        None => master.run().await,
    }
}

impl<H: Host> Master<'_, H> {
    async fn run(&self) -> Result<StepOutcome, Failure> {
        let step = self.step;
        step.progress("examining");
        self.ground.wait_for_runtime().await?;
        let expected = self.expected().await?;
        let forward = self.forward();
        if SwapPlan::find(&forward).is_none() {
            if self.is_at_target(&expected).await? {
                self.clean();
                return Ok(StepOutcome::AlreadyDone);
            }
            step.progress("preparing");
            self.prepare().await?;
        }
        let plan = SwapPlan::find(&forward)
            .ok_or_else(|| step.unusable(&forward, "read", &std::io::ErrorKind::NotFound.into()))?;

        step.permit("swap").await;
        if let Err(failure) = self.ground.guard(SwapBegun::find(&forward).is_some()).await {
            plan.discard(&*step.host, &forward);
            return Err(failure);
        }
        step.progress("swapping");
        let swapped = self.ground.swap("swap", &forward).await;

        step.progress("verifying");
        let begun = SwapBegun::find(&forward);
        let judge = Judge {
            step,
            expected: &expected,
            stopped: &plan.stopped,
            old: begun.as_ref().map(|begun| begun.old_containers.clone()).unwrap_or_default(),
            kubelet: self.kubelet_sha256()?,
            version: &self.upgrade.version.to_string(),
            behaves_like: self.behaves_like(),
        };
        let up_at = match judge.wait().await {
            Ok(up_at) => up_at,
            Err(mut problem) => {
                if let Err(error) = swapped {
                    problem = problem.because(&error);
                }
                return Err(self.roll_back(problem).await);
            }
        };
        let outcome = outcome(step, &self.old(), &judge, begun.map_or(up_at, |begun| begun.at), up_at).await;
        self.clean();
        Ok(outcome)
    }

    fn forward(&self) -> PathBuf {
        self.folder.join("forward")
    }

    fn old(&self) -> PathBuf {
        self.folder.join(kept::OLD)
    }

    /// What the API server answers that it behaves like, where the plan changes that.
    fn behaves_like(&self) -> Option<MinorVersion> {
        self.upgrade.emulation.map(|emulation| match emulation {
            Emulation::Begins { of } => of,
            Emulation::Ends { .. } => self.upgrade.version.release,
        })
    }

    /// The kubelet's digest, where it is swapped.
    fn kubelet_sha256(&self) -> Result<Option<&str>, Problem> {
        if !self.has_kubelet() {
            return Ok(None);
        }
        Ok(Some(&with_role(&self.upgrade.files, "kubelet")?.sha256))
    }

    fn has_kubelet(&self) -> bool {
        self.upgrade.files.iter().any(|file| file.role == "kubelet")
    }

    fn is_stopped_with_etcd(&self, component: ControlPlaneComponent) -> bool {
        component == ControlPlaneComponent::KubeApiserver
            && self.upgrade.components.contains(&ControlPlaneComponent::Etcd)
    }

    /// The components that are to run afterwards, with their images: those of the plan, and those that are stopped with
    /// them (by a new kubelet all), with the image that their manifest has.
    async fn expected(&self) -> Result<Vec<Expected>, Problem> {
        let known = super::prefetch::Known::read(self.step).await?;
        let mut expected = Vec::new();
        let manifests = self.ground.manifests()?;
        if let Some(missing) = self.upgrade.components.iter().find(|component| !manifests.contains_key(component)) {
            let path = self.step.host.at(&manifest::path(*missing));
            return Err(self.step.unusable(&path, "read", &std::io::ErrorKind::NotFound.into()));
        }
        for (component, manifest) in manifests {
            let reference = if self.upgrade.components.contains(&component) {
                let image = self.upgrade.images.iter().find(|image| image.role == component.name());
                let image = image.ok_or_else(|| {
                    Problem::new(Code::ArtefactMissing)
                        .with("role", component.name())
                        .with("version", self.upgrade.version)
                        .with("architecture", "this node")
                })?;
                if !known.has(image) {
                    return Err(match known.digest(&image.reference) {
                        Some(found) => super::mismatch(&image.reference, found, &image.digest),
                        None => self.ground.image_gone(&image.reference),
                    });
                }
                image.reference.clone()
            } else if self.has_kubelet() || self.is_stopped_with_etcd(component) {
                manifest.image.clone()
            } else {
                continue;
            };
            let image_id = self.ground.image_id(&reference).await?;
            expected.push(Expected { component, manifest, reference, image_id });
        }
        // The pause image is not compared, but without it no pod starts.
        for image in self.upgrade.images.iter().filter(|image| image.role == "pause") {
            self.ground.image_id(&image.reference).await?;
        }
        Ok(expected)
    }

    /// Whether everything runs as planned, from manifests that the target's kubeadm would render. Restarts nothing.
    async fn is_at_target(&self, expected: &[Expected]) -> Result<bool, Failure> {
        let judge = Judge {
            step: self.step,
            expected,
            stopped: &[],
            old: std::collections::BTreeSet::new(),
            kubelet: self.kubelet_sha256()?,
            version: &self.upgrade.version.to_string(),
            behaves_like: self.behaves_like(),
        };
        let images = expected.iter().all(|expected| expected.manifest.image == expected.reference);
        if !images || judge.look().await.is_err() {
            return Ok(false);
        }
        if self.upgrade.method == ControlPlaneMethod::Kubeadm {
            return Ok(true);
        }
        let Texts { rendered, in_force, .. } = self.render().await?;
        Ok(self.differing(&rendered, &in_force).is_empty())
    }

    /// The components of the plan whose manifest in force is not the rendered one.
    fn differing(
        &self,
        rendered: &BTreeMap<ControlPlaneComponent, String>,
        in_force: &BTreeMap<ControlPlaneComponent, String>,
    ) -> Vec<ControlPlaneComponent> {
        let differs = |component: &ControlPlaneComponent| match (rendered.get(component), in_force.get(component)) {
            (Some(rendered), Some(in_force)) => difference::unified("", ("", in_force), ("", rendered)).is_some(),
            _ => false,
        };
        self.upgrade.components.iter().copied().filter(differs).collect()
    }

    /// kubeadm stays: the phases of the cluster need it.
    fn clean(&self) {
        let placed: Vec<_> = self.upgrade.files.iter().filter(|file| file.role != "kubeadm").cloned().collect();
        self.step.clean_staging(&placed);
    }
}

/// What a swap did: how long it took, what runs now, and how the manifests differ from the copies of the old.
async fn outcome<H: Host>(
    step: &Step<H>,
    old: &Path,
    judge: &Judge<'_, H>,
    began: Timestamp,
    up: Timestamp,
) -> StepOutcome {
    let milliseconds = up.duration_since(began).as_millis();
    let mut text = String::new();
    for (target, kept) in Backup::find(old).iter().flat_map(Backup::kept) {
        let path = step.host.node_path(target);
        if !path.starts_with(manifest::FOLDER) {
            continue;
        }
        let old = fs::read_to_string(kept).unwrap_or_default();
        let new = fs::read_to_string(target).unwrap_or_default();
        let shown = difference::unified(&path, ("before", &old), ("in force", &new)).unwrap_or_default();
        if text.len() + shown.len() <= DIFFERENCE_BYTES_MAX {
            text.push_str(&shown);
        }
    }
    StepOutcome::Swapped {
        interrupted_milliseconds: u64::try_from(milliseconds).unwrap_or(0),
        components: judge.versions().await,
        difference: text,
    }
}
