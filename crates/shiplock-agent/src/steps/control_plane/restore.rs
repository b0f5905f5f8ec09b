//! Step `restore_control_plane`: kubelet and manifests that an upgrade replaced go back from the copies that it kept, with
//! one stop of the kubelet ([`crate::swap`]).
//!
//! Nothing is touched before every copy and every old image is there, and the guards of the way forward hold on the way
//! back too. There is no way back from the way back: what does not come up is named and stays, to be tried again.

use std::fs;

use shiplock_core::problem::{Code, Problem};
use shiplock_core::size::readable_bytes;
use shiplock_core::step::ControlPlaneRestore;
use shiplock_core::upgrade::StepOutcome;

use super::back::Back;
use super::ground::Ground;
use super::outcome;
use super::verify::Judge;
use crate::backup::Backup;
use crate::control_plane::kept;
use crate::host::Host;
use crate::steps::{Failure, Step, prefetch};
use crate::swap::{SwapBegun, SwapPlan};

/// Left free on every file system that is written to.
const RESERVE_BYTES: u64 = 64 << 20;

/// Does the step.
pub async fn run<H: Host>(step: &Step<H>, restore: &ControlPlaneRestore) -> Result<StepOutcome, Failure> {
    let id = &step.assignment.id;
    let folder = kept::folder(&step.data_folder, &id.upgrade, id.step, id.generation.intent);
    let old = kept::folder(&step.data_folder, &restore.upgrade, restore.step, restore.intent).join(kept::OLD);
    let backup = Backup::find(&old).ok_or_else(|| {
        step.unusable(&old, "read", &std::io::ErrorKind::NotFound.into()).cause("the copies are gone")
    })?;
    let ground = Ground { step, is_only: restore.is_only };
    let back = Back { ground: &ground, backup: &backup, etcd_stays: restore.etcd_stays };

    step.progress("examining");
    ground.wait_for_runtime().await?;
    fetch_missing(&back, restore).await?;
    let expected = back.expected().await?;
    let (version, kubelet) = back.identity(&expected).await?;
    let judge = |stopped, old| Judge {
        step,
        expected: &expected,
        stopped,
        old,
        kubelet: kubelet.as_deref(),
        version: &version,
        behaves_like: None,
    };
    if SwapPlan::find(&folder).is_none() {
        if is_in_force(&back).await? && judge(&[], Default::default()).look().await.is_ok() {
            return Ok(StepOutcome::AlreadyDone);
        }
        step.progress("preparing");
        check_space(&back)?;
        ground.check_admission().await?;
        let plan = back.plan().map_err(|error| step.unusable(&old, "placed", &error))?;
        plan.write(&folder).map_err(|error| step.unusable(&folder, "written", &error))?;
    }
    let plan =
        SwapPlan::find(&folder).ok_or_else(|| step.unusable(&folder, "read", &std::io::ErrorKind::NotFound.into()))?;

    step.permit("swap").await;
    // On the only master an etcd or an API server that is down is what the way back mends: it makes nothing worse.
    let begun = SwapBegun::find(&folder).is_some() || restore.is_only;
    if let Err(failure) = ground.guard(begun).await {
        plan.discard(&*step.host, &folder);
        return Err(failure);
    }
    step.progress("swapping");
    let swapped = ground.swap("swap", &folder).await;

    step.progress("verifying");
    let begun = SwapBegun::find(&folder);
    let containers = begun.as_ref().map(|begun| begun.old_containers.clone()).unwrap_or_default();
    let judge = judge(&plan.stopped, containers);
    let up_at = match (judge.wait().await, swapped) {
        (Ok(up_at), _) => up_at,
        (Err(problem), Ok(())) => return Err(problem.into()),
        (Err(problem), Err(error)) => return Err(problem.because(&error).into()),
    };
    Ok(outcome(step, &old, &judge, begun.map_or(up_at, |begun| begun.at), up_at).await)
}

/// Old images that the node does not have any more come from the mirror; one that is nowhere refuses the step by name.
async fn fetch_missing<H: Host>(back: &Back<'_, H>, restore: &ControlPlaneRestore) -> Result<(), Failure> {
    let step = back.ground.step;
    let (mut wanted, mut nowhere) = (Vec::new(), None);
    for (_, manifest) in back.manifests()? {
        if step.host.image_id(&manifest.image).await?.is_some() {
            continue;
        }
        match restore.images.iter().find(|image| image.reference == manifest.image) {
            Some(image) => wanted.push(image.clone()),
            None => nowhere = nowhere.or(Some(manifest.image)),
        }
    }
    if let Some(image) = nowhere {
        let problem = Problem::new(Code::OldImageGone).with("image", image).with("node", &step.assignment.node);
        return Err(problem.into());
    }
    match (&restore.mirror, wanted.is_empty()) {
        (Some(mirror), false) => prefetch::run(step, mirror, &[], &wanted).await.map(drop),
        _ => Ok(()),
    }
}

/// Whether every copy is what its target is already.
async fn is_in_force<H: Host>(back: &Back<'_, H>) -> Result<bool, Problem> {
    let host = &*back.ground.step.host;
    for (target, kept) in back.copies() {
        if host.file_digest(target).await? != host.file_digest(&kept).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn check_space<H: Host>(back: &Back<'_, H>) -> Result<(), Problem> {
    let step = back.ground.step;
    let bytes: u64 = back.copies().filter_map(|(_, kept)| Some(fs::metadata(kept).ok()?.len())).sum();
    for (target, _) in back.copies() {
        let folder = target.parent().unwrap_or(target);
        let (free, needed) = (step.host.free_bytes(folder)?, bytes + RESERVE_BYTES);
        if free < needed {
            return Err(step.disk_full(folder, free, readable_bytes(needed)));
        }
    }
    Ok(())
}
