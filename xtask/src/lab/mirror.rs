//! The mirror of artefacts: what an upgrade installs, in the official download site's layout.
//!
//! `artefacts.json` at its root lists every file and image with size and digest. It is written
//! for all releases that are built, sorted, and the same input gives the same bytes. Files are
//! hard links to the builds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::archive::archive_path;
use super::gobuild::KUBERNETES_COMMANDS;
use super::home::{Home, link, sha256, stamp, temporary, write};
use super::image::{image_id, manifest_digest};
use super::process::say;
use super::versions::{CNI, CONTAINERD, RELEASES, Release};

/// Schema of `artefacts.json`.
pub const SCHEMA: &str = "shiplock.dev/artefacts/v1";
const ARCHITECTURE: &str = "amd64";

/// `artefacts.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Artefacts {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The releases that the mirror has, oldest first.
    pub releases: Vec<ReleaseArtefacts>,
}

/// Everything that belongs to one Kubernetes version.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReleaseArtefacts {
    /// Version with `v`.
    pub kubernetes: String,
    /// Programs.
    pub files: Vec<FileArtefact>,
    /// Images.
    pub images: Vec<ImageArtefact>,
}

/// A program in the mirror.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileArtefact {
    /// Name of the program.
    pub role: String,
    /// Its own version with `v`.
    pub version: String,
    /// Always `amd64` here.
    pub architecture: String,
    /// Path below the mirror's root.
    pub path: String,
    /// Length.
    pub size_bytes: u64,
    /// Digest of the file as hex.
    pub sha256: String,
}

/// An image archive in the mirror.
#[derive(Debug, Serialize, Deserialize)]
pub struct ImageArtefact {
    /// Name of the component.
    pub role: String,
    /// Full reference with tag.
    pub reference: String,
    /// Always `amd64` here.
    pub architecture: String,
    /// Path below the mirror's root.
    pub path: String,
    /// Length of the archive.
    pub size_bytes: u64,
    /// Digest of the archive as hex.
    pub sha256: String,
    /// Digest of the image manifest, `sha256:…`.
    pub digest: String,
    /// Digest of the image configuration, `sha256:…`.
    pub image_id: String,
}

/// Whether everything of a release is built.
pub(crate) fn is_built(home: &Home, release: &Release) -> bool {
    home.bin("kubernetes", release.kubernetes).exists()
        && home.bin("etcd", release.etcd).exists()
        && release.images().iter().all(|image| archive_path(home, image).exists())
}

/// Puts the files in place and writes `artefacts.json`, unless nothing has changed.
pub(crate) fn build_mirror(home: &Home) -> Result<()> {
    let mirror = home.mirror();
    let mut digests = Digests::open(home)?;
    let mut releases = Vec::new();
    for release in RELEASES.iter().filter(|release| is_built(home, release)) {
        releases.push(ReleaseArtefacts {
            kubernetes: format!("v{}", release.kubernetes),
            files: files_of(home, release, &mut digests)?,
            images: images_of(home, release, &mut digests)?,
        });
    }
    link_all(&home.bin("cni-plugins", CNI), &mirror.join(format!("cni-plugins/v{CNI}/linux/{ARCHITECTURE}")))?;
    let artefacts = Artefacts { schema: SCHEMA.into(), releases };
    let text = format!("{}\n", serde_json::to_string_pretty(&artefacts)?);
    let place = mirror.join("artefacts.json");
    if fs::read_to_string(&place).is_ok_and(|now| now == text) {
        return Ok(());
    }
    let temporary = temporary(&mirror, "artefacts");
    write(&temporary, &text, 0o644)?;
    fs::rename(temporary, place)?;
    say(format!("mirror of {} releases in {}", artefacts.releases.len(), mirror.display()));
    Ok(())
}

fn files_of(home: &Home, release: &Release, digests: &mut Digests) -> Result<Vec<FileArtefact>> {
    let kubernetes = format!("release/v{}/bin/linux/{ARCHITECTURE}", release.kubernetes);
    let etcd = format!("etcd/v{}/linux/{ARCHITECTURE}", release.etcd);
    let containerd = format!("containerd/v{CONTAINERD}/linux/{ARCHITECTURE}");
    let sets: [(&str, &str, &str, &[&str]); 3] = [
        ("kubernetes", release.kubernetes, &kubernetes, &KUBERNETES_COMMANDS[..3]),
        ("etcd", release.etcd, &etcd, &["etcdctl", "etcdutl"]),
        ("containerd", CONTAINERD, &containerd, &["containerd", "containerd-shim-runc-v2", "ctr"]),
    ];
    let mut files = Vec::new();
    for (name, version, folder, roles) in sets {
        let built = home.bin(name, version);
        link_all(&built, &home.mirror().join(folder))?;
        for role in roles {
            let from = built.join(role);
            files.push(FileArtefact {
                role: (*role).to_owned(),
                version: format!("v{version}"),
                architecture: ARCHITECTURE.to_owned(),
                path: format!("{folder}/{role}"),
                size_bytes: fs::metadata(&from)?.len(),
                sha256: digests.of(&from)?,
            });
        }
    }
    files.sort_by(|a, b| a.role.cmp(&b.role));
    Ok(files)
}

fn images_of(home: &Home, release: &Release, digests: &mut Digests) -> Result<Vec<ImageArtefact>> {
    let mut images = Vec::new();
    for image in release.images() {
        let archive = archive_path(home, &image);
        let path = format!("images/{}", image.archive());
        let digest = manifest_digest(&archive)?;
        link_if_other(&archive, &home.mirror().join(&path))?;
        images.push(ImageArtefact {
            role: image.role.to_owned(),
            reference: image.reference.clone(),
            architecture: ARCHITECTURE.to_owned(),
            path,
            size_bytes: fs::metadata(&archive)?.len(),
            sha256: digests.of(&archive)?,
            image_id: image_id(&archive, &digest)?,
            digest,
        });
    }
    images.sort_by(|a, b| a.role.cmp(&b.role));
    Ok(images)
}

fn link_all(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        link_if_other(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// A file that is being served is replaced only where it really is another one.
fn link_if_other(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let same = match (fs::metadata(from), fs::metadata(to)) {
        (Ok(from), Ok(to)) => from.ino() == to.ino() || (from.len() == to.len() && from.mtime() == to.mtime()),
        _ => false,
    };
    if same { Ok(()) } else { link(from, to) }
}

/// Digests by path, length and time of change, so that 2 GB are read once only.
struct Digests {
    file: PathBuf,
    known: BTreeMap<String, String>,
}

impl Digests {
    fn open(home: &Home) -> Result<Self> {
        let file = home.root().join("images/digests.json");
        let known = fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str(&text).ok());
        Ok(Self { file, known: known.unwrap_or_default() })
    }

    fn of(&mut self, path: &Path) -> Result<String> {
        let key = stamp(path)?;
        if let Some(digest) = self.known.get(&key) {
            return Ok(digest.clone());
        }
        let digest = sha256(path)?;
        self.known.insert(key, digest.clone());
        let temporary = self.file.with_extension("new");
        fs::write(&temporary, serde_json::to_vec(&self.known)?)?;
        fs::rename(temporary, &self.file)?;
        Ok(digest)
    }
}
