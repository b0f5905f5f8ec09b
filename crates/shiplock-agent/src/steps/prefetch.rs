//! Step `prefetch`: brings files to the staging folder and images into the runtime, each with the digest of the plan.
//! Changes nothing that runs.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use shiplock_core::artefact::{ArtefactFile, ArtefactImage};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::StepOutcome;

use super::{Failure, READ_LIMIT, Step, mismatch, readable_bytes};
use crate::download::{Mirror, Wanted};
use crate::files;
use crate::host::Host;

/// A staged file that no prefetch has named for so long belongs to no upgrade any more.
const KEEP_STAGED: Duration = Duration::from_secs(7 * 24 * 3600);
/// Left free on the file system besides what is fetched.
const RESERVE_BYTES: u64 = 64 << 20;

/// Does the step.
pub async fn run<H: Host>(
    step: &Step<H>,
    mirror: &str,
    artefacts: &[ArtefactFile],
    images: &[ArtefactImage],
) -> Result<StepOutcome, Failure> {
    let staging = step.staging();
    std::fs::create_dir_all(&staging).map_err(|error| step.unusable(&staging, "made", &error))?;

    remove_old(&staging, artefacts);

    let mut wanted = Vec::new();
    for file in artefacts {
        let found = step.host.file_digest(&staging.join(&file.sha256)).await?;
        if found.as_ref() != Some(&file.sha256) {
            wanted.push(Wanted { path: file.path.clone(), size_bytes: file.size_bytes, sha256: file.sha256.clone() });
        }
    }
    let known = if images.is_empty() { Known::default() } else { Known::read(step).await? };
    let missing: Vec<&ArtefactImage> = images.iter().filter(|image| !known.has(image)).collect();
    if wanted.is_empty() && missing.is_empty() {
        return Ok(StepOutcome::AlreadyDone);
    }
    check_space(step, &wanted, &missing)?;

    let mirror = Mirror::open(mirror, step.assignment.node.as_str())?;
    step.progress("downloading");
    for file in &wanted {
        fetch(step, &mirror, file).await?;
    }
    // The next archive is fetched while one is imported: at most two are there at once.
    let mut archives = missing.into_iter().peekable();
    if let Some(first) = archives.peek() {
        fetch_archive(step, &mirror, first).await?;
    }
    while let Some(image) = archives.next() {
        step.progress("importing");
        let next = async {
            match archives.peek() {
                Some(next) => fetch_archive(step, &mirror, next).await,
                None => Ok(()),
            }
        };
        let (imported, fetched) = tokio::join!(import(step, image), next);
        imported?;
        fetched?;
    }
    Ok(StepOutcome::Done)
}

/// The archive of an image, in the staging folder under its digest.
async fn fetch_archive<H: Host>(step: &Step<H>, mirror: &Mirror, image: &ArtefactImage) -> Result<(), Failure> {
    let path = step.staging().join(&image.sha256);
    if step.host.file_digest(&path).await?.as_ref() == Some(&image.sha256) {
        return Ok(());
    }
    let archive = Wanted { path: image.path.clone(), size_bytes: image.size_bytes, sha256: image.sha256.clone() };
    fetch(step, mirror, &archive).await
}

/// Brings a fetched archive into the runtime, and removes it.
async fn import<H: Host>(step: &Step<H>, image: &ArtefactImage) -> Result<(), Failure> {
    let path = step.staging().join(&image.sha256);
    let ctr = client(step)?;
    let location = step.host.node_path(&path);
    let command = [ctr.as_str(), "--namespace", "k8s.io", "images", "import", &location];
    // Named by content: what is missing may be less when the step is begun again.
    let phase = format!("import-{}", image.sha256.get(..12).unwrap_or(&image.sha256));
    step.program(&phase, &command).await?;
    // Only the archive's digest is the mirror's word; what counts is what the runtime has now.
    let known = Known::read(step).await?;
    if !known.has(image) {
        let found = known.digest(&image.reference).unwrap_or("nothing");
        return Err(mismatch(&image.reference, found, &image.digest).into());
    }
    files::remove(&path).map_err(|error| step.unusable(&path, "removed", &error).into())
}

/// Removes what upgrades that never came to their end left behind.
fn remove_old(staging: &Path, keep: &[ArtefactFile]) {
    for entry in std::fs::read_dir(staging).into_iter().flatten().flatten() {
        let kept = keep.iter().any(|file| entry.file_name().to_string_lossy().starts_with(&file.sha256));
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|modified| modified.elapsed().ok()).unwrap_or_default();
        if !kept && age > KEEP_STAGED {
            // A file that stays costs space and nothing else.
            let _ = files::remove(&entry.path());
        }
    }
}

fn check_space<H: Host>(step: &Step<H>, wanted: &[Wanted], missing: &[&ArtefactImage]) -> Result<(), Failure> {
    let staging = step.staging();
    // Each archive is removed once it is imported, while the next one is fetched.
    let files: u64 = wanted.iter().map(|file| file.size_bytes).sum();
    let sizes = missing.iter().map(|image| image.size_bytes);
    let archives = sizes.clone().zip(sizes.skip(1).chain([0])).map(|(one, next)| one.saturating_add(next)).max();
    let needed = files.saturating_add(archives.unwrap_or(0)).saturating_add(RESERVE_BYTES);
    let free = step.host.free_bytes(&staging)?;
    if free < needed {
        return Err(step.disk_full(&staging, free, readable_bytes(needed)).into());
    }
    Ok(())
}

async fn fetch<H: Host>(step: &Step<H>, mirror: &Mirror, file: &Wanted) -> Result<(), Failure> {
    let target = step.staging().join(&file.sha256);
    mirror
        .fetch(file, &target)
        .await
        .map_err(|error| error.into_failure(|path, error| step.unusable(path, "written", error)))
}

fn client<H: Host>(step: &Step<H>) -> Result<String, Problem> {
    step.host.find_program("ctr").ok_or_else(|| {
        Problem::new(Code::ProgramFailed)
            .with("program", "ctr")
            .with("node", &step.assignment.node)
            .with("result", "the node does not have it")
    })
}

/// The images that the runtime has: references with the digests on their lines.
#[derive(Default)]
pub(super) struct Known(BTreeSet<(String, String)>);

impl Known {
    pub(super) async fn read<H: Host>(step: &Step<H>) -> Result<Self, Problem> {
        let ctr = client(step)?;
        let output = step.host.output(&ctr, &["--namespace", "k8s.io", "images", "ls"], READ_LIMIT).await?;
        if !output.success {
            return Err(Problem::new(Code::ProgramFailed)
                .with("program", "ctr images ls")
                .with("node", &step.assignment.node)
                .with("result", "an error")
                .cause(output.error));
        }
        Ok(Self::parse(&output.text))
    }

    fn parse(text: &str) -> Self {
        let rows = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let reference = words.next()?;
            let digest = words.find(|word| word.starts_with("sha256:"))?;
            Some((reference.to_owned(), digest.to_owned()))
        });
        Self(rows.collect())
    }

    pub(super) fn has(&self, image: &ArtefactImage) -> bool {
        self.digest(&image.reference) == Some(&image.digest)
    }

    pub(super) fn digest(&self, reference: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == reference).map(|(_, digest)| digest.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_and_digests_are_read_from_the_runtimes_list() {
        let known = Known::parse(
            "REF TYPE DIGEST SIZE PLATFORMS LABELS\n\
             registry.k8s.io/pause:3.9 application/vnd.oci.image.manifest.v1+json sha256:aa 1.0 KiB linux/amd64 -\n\
             sha256:bb application/vnd.oci.image.manifest.v1+json sha256:aa 1.0 KiB linux/amd64 io.cri-containerd.image=managed\n",
        );
        assert_eq!(known.digest("registry.k8s.io/pause:3.9"), Some("sha256:aa"));
        assert_eq!(known.digest("registry.k8s.io/pause"), None);
    }
}
