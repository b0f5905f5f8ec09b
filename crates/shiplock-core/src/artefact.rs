//! The artefact index: what a mirror holds for each Kubernetes version, with digests.
//!
//! `artefacts.json` lies at the mirror's root. It is read when a plan is made; the digests become part of the
//! plan, so that what is installed later is what was planned, whatever happens to the mirror in between.

use serde::{Deserialize, Serialize};

use crate::problem::{Code, Problem};
use crate::version::KubernetesVersion;

/// The only schema that this version reads.
pub const SCHEMA: &str = "shiplock.dev/artefacts/v1";

/// The content of `artefacts.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtefactIndex {
    /// Names the format; must be [`SCHEMA`].
    pub schema: String,
    /// One entry for each Kubernetes version.
    pub releases: Vec<ReleaseArtefacts>,
}

/// The artefacts that go with one Kubernetes version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseArtefacts {
    /// The Kubernetes version.
    pub kubernetes: KubernetesVersion,
    /// Plain files: executables.
    pub files: Vec<ArtefactFile>,
    /// Container images as OCI archives.
    pub images: Vec<ArtefactImage>,
}

/// A file of the mirror.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ArtefactFile {
    /// What it is: `kubelet`, `kubeadm`, `containerd` …
    pub role: String,
    /// The version of the component, such as `v1.36.3` or `v2.2.9`.
    pub version: String,
    /// The architecture as Kubernetes names it: `amd64`, `arm64`.
    pub architecture: String,
    /// The path below the mirror's root.
    pub path: String,
    /// The size in bytes.
    pub size_bytes: u64,
    /// The SHA-256 of the content, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// A container image of the mirror.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ArtefactImage {
    /// What it is: `pause`, `kube-proxy` …
    pub role: String,
    /// The full reference under which nodes know it.
    pub reference: String,
    /// The architecture as Kubernetes names it.
    pub architecture: String,
    /// The path of the OCI archive below the mirror's root.
    pub path: String,
    /// The size of the archive in bytes.
    pub size_bytes: u64,
    /// The SHA-256 of the archive, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The digest of the image's manifest, `sha256:…`.
    pub digest: String,
    /// The digest of the image's configuration, `sha256:…`, by which runtimes tell what a container runs; none in an
    /// index that does not hold it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_id: Option<String>,
}

impl ArtefactIndex {
    /// Reads an index and refuses paths that leave the mirror and digests that are none.
    pub fn parse(location: &str, text: &str) -> Result<Self, Problem> {
        let unreadable = || Problem::new(Code::ArtefactIndexUnreadable).with("location", location);
        let index: Self = serde_json::from_str(text).map_err(|error| unreadable().because(&error))?;
        if index.schema != SCHEMA {
            return Err(unreadable().cause(format!("schema is `{}`, `{SCHEMA}` is known", index.schema)));
        }
        for release in &index.releases {
            let files = release.files.iter().map(|file| (&file.path, &file.sha256));
            for (path, sha256) in files.chain(release.images.iter().map(|image| (&image.path, &image.sha256))) {
                if path.starts_with('/') || path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
                    return Err(unreadable().cause(format!("path `{path}` leaves the mirror")));
                }
                if sha256.len() != 64 || !sha256.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(unreadable().cause(format!("`{sha256}` of `{path}` is not a SHA-256")));
                }
            }
        }
        Ok(index)
    }

    /// Whether it holds anything for a Kubernetes version.
    pub fn holds(&self, version: KubernetesVersion) -> bool {
        self.release(version).is_some()
    }

    fn release(&self, version: KubernetesVersion) -> Option<&ReleaseArtefacts> {
        self.releases.iter().find(|release| release.kubernetes == version)
    }

    /// The file with a role for a Kubernetes version and architecture.
    pub fn file(&self, version: KubernetesVersion, role: &str, architecture: &str) -> Result<&ArtefactFile, Problem> {
        self.release(version)
            .and_then(|release| {
                release.files.iter().find(|file| file.role == role && file.architecture == architecture)
            })
            .ok_or_else(|| missing(version, role, architecture))
    }

    /// The image with a role for a Kubernetes version and architecture.
    pub fn image(&self, version: KubernetesVersion, role: &str, architecture: &str) -> Result<&ArtefactImage, Problem> {
        self.release(version)
            .and_then(|release| {
                release.images.iter().find(|image| image.role == role && image.architecture == architecture)
            })
            .ok_or_else(|| missing(version, role, architecture))
    }
}

fn missing(version: KubernetesVersion, role: &str, architecture: &str) -> Problem {
    Problem::new(Code::ArtefactMissing).with("version", version).with("role", role).with("architecture", architecture)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_leaves_the_mirror_or_lies_about_digests_is_refused() {
        let index = |path: &str, sha256: &str| {
            format!(
                r#"{{"schema":"{SCHEMA}","releases":[{{"kubernetes":"v1.36.3","images":[],"files":[
                {{"role":"kubelet","version":"v1.36.3","architecture":"amd64","path":"{path}","size_bytes":1,"sha256":"{sha256}"}}]}}]}}"#
            )
        };
        let good = "0".repeat(64);
        assert!(ArtefactIndex::parse("x", &index("a/b", &good)).is_ok());
        for path in ["/etc/passwd", "../x", "a/../b", "a//b", "a/./b", ""] {
            assert!(ArtefactIndex::parse("x", &index(path, &good)).is_err(), "{path}");
        }
        for digest in ["", "0", &"g".repeat(64), &"A".repeat(64)] {
            assert!(ArtefactIndex::parse("x", &index("a", digest)).is_err(), "{digest}");
        }
        assert!(ArtefactIndex::parse("x", "{").is_err());
        assert!(ArtefactIndex::parse("x", &index("a", &good).replace("/v1", "/v9")).is_err());
    }
}
