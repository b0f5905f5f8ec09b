//! Container images without a container engine: OCI image-layout archives with one layer.
//!
//! The same content gives the same bytes (no times, sorted, owned by root), so digests stay the
//! same from build to build and from machine to machine as long as the programs do.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::home::sha256;

/// kubeadm's manifests call `etcd`, `kube-apiserver`, … by their bare names.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/";
const PASSWD: &str = "root:x:0:0:root:/root:/sbin/nologin\n\
    nobody:x:65534:65534:nobody:/:/sbin/nologin\n\
    nonroot:x:65532:65532:nonroot:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n";

/// What goes into an image. Folders on the way are made.
#[derive(Debug, Default)]
pub(crate) struct ImageContent {
    pub(crate) entrypoint: Vec<&'static str>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
enum Entry {
    Folder(u32),
    Text(String),
    File(PathBuf, u32),
    Link(String),
}

impl ImageContent {
    /// An image with the files that every program expects.
    pub(crate) fn new() -> Self {
        let mut content = Self::default();
        for (path, mode) in [("tmp", 0o1777), ("run", 0o755), ("usr/local/bin", 0o755)] {
            content.put(path, Entry::Folder(mode));
        }
        content.put("etc/passwd", Entry::Text(PASSWD.into()));
        content.put("etc/group", Entry::Text(GROUP.into()));
        content
    }

    /// Adds a program.
    pub(crate) fn program(mut self, from: impl Into<PathBuf>, at: &str) -> Self {
        self.put(at, Entry::File(from.into(), 0o755));
        self
    }

    /// Adds an ordinary file.
    pub(crate) fn file(mut self, from: impl Into<PathBuf>, at: &str) -> Self {
        self.put(at, Entry::File(from.into(), 0o644));
        self
    }

    /// Adds a symbolic link.
    pub(crate) fn link(mut self, at: &str, to: &str) -> Self {
        self.put(at, Entry::Link(to.to_owned()));
        self
    }

    /// Sets the program that runs where the pod names none.
    pub(crate) fn entrypoint(mut self, program: &'static str) -> Self {
        self.entrypoint = vec![program];
        self
    }

    fn put(&mut self, path: &str, entry: Entry) {
        let path = path.trim_matches('/');
        for (end, _) in path.match_indices('/') {
            self.entries.entry(path[..end].to_owned()).or_insert(Entry::Folder(0o755));
        }
        self.entries.insert(path.to_owned(), entry);
    }

    fn write_layer(&self, to: &Path) -> Result<()> {
        let mut layer = Builder::new(BufWriter::with_capacity(1 << 20, File::create(to)?));
        for (path, entry) in &self.entries {
            match entry {
                Entry::Folder(mode) => {
                    let mut header = header(EntryType::Directory, 0, *mode);
                    layer.append_data(&mut header, format!("{path}/"), io::empty())?;
                }
                Entry::Text(text) => {
                    layer.append_data(
                        &mut header(EntryType::Regular, text.len() as u64, 0o644),
                        path,
                        text.as_bytes(),
                    )?;
                }
                Entry::Link(target) => layer.append_link(&mut header(EntryType::Symlink, 0, 0o777), path, target)?,
                Entry::File(from, mode) => {
                    let file = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
                    let size = file.metadata()?.len();
                    layer.append_data(&mut header(EntryType::Regular, size, *mode), path, file)?;
                }
            }
        }
        layer.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(())
    }

    /// Writes the archive. `to` must be a temporary name.
    pub(crate) fn write(&self, reference: &str, to: &Path) -> Result<()> {
        let layer_file = to.with_extension("layer");
        self.write_layer(&layer_file)?;
        let layer_digest = sha256(&layer_file)?;
        let layer_size = fs::metadata(&layer_file)?.len();

        let config = to_bytes(&json!({
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": { "Env": [PATH], "Entrypoint": self.entrypoint, "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
            "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "lab" }],
        }));
        let config_digest = digest(&config);
        let manifest = to_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": format!("sha256:{config_digest}"),
                "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": format!("sha256:{layer_digest}"),
                "size": layer_size,
            }],
        }));
        let manifest_digest = digest(&manifest);
        let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let index = to_bytes(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": format!("sha256:{manifest_digest}"),
                "size": manifest.len(),
                "platform": { "architecture": "amd64", "os": "linux" },
                "annotations": {
                    "io.containerd.image.name": reference,
                    "org.opencontainers.image.ref.name": tag,
                },
            }],
        }));

        let mut archive = Builder::new(BufWriter::with_capacity(1 << 20, File::create(to)?));
        let mut add = |path: String, size: u64, data: &mut dyn Read| {
            archive.append_data(&mut header(EntryType::Regular, size, 0o644), path, data)
        };
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        add("oci-layout".into(), layout.len() as u64, &mut layout.as_slice())?;
        add("index.json".into(), index.len() as u64, &mut index.as_slice())?;
        add(format!("blobs/sha256/{manifest_digest}"), manifest.len() as u64, &mut manifest.as_slice())?;
        add(format!("blobs/sha256/{config_digest}"), config.len() as u64, &mut config.as_slice())?;
        add(format!("blobs/sha256/{layer_digest}"), layer_size, &mut File::open(&layer_file)?)?;
        archive.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::remove_file(layer_file)?;
        Ok(())
    }
}

/// The digest of the image manifest (`sha256:…`) that an archive of ours holds.
pub(crate) fn manifest_digest(archive: &Path) -> Result<String> {
    let index = json_entry(archive, "index.json")?;
    let digest = index["manifests"][0]["digest"].as_str();
    digest.map(str::to_owned).with_context(|| format!("{} names no manifest", archive.display()))
}

/// The digest of the configuration that a manifest in an archive of ours names.
pub(crate) fn image_id(archive: &Path, manifest: &str) -> Result<String> {
    let manifest = json_entry(archive, &format!("blobs/{}", manifest.replace(':', "/")))?;
    let digest = manifest["config"]["digest"].as_str();
    digest.map(str::to_owned).with_context(|| format!("{} names no configuration", archive.display()))
}

fn json_entry(archive: &Path, name: &str) -> Result<Value> {
    let mut entries = tar::Archive::new(File::open(archive)?);
    for entry in entries.entries()? {
        let mut entry = entry?;
        if entry.path()?.as_ref() == Path::new(name) {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            return Ok(serde_json::from_str(&text)?);
        }
    }
    anyhow::bail!("{} has no {name}", archive.display())
}

fn header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn to_bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, "#!/bin/sh\n").unwrap();
        let write = |name: &str| {
            let to = folder.path().join(name);
            let content = ImageContent::new().program(&program, "/usr/local/bin/program").link("bin/p", "/program");
            content.entrypoint("/program").write("registry.k8s.io/program:v1", &to).unwrap();
            fs::read(to).unwrap()
        };
        assert_eq!(write("one.tar"), write("two.tar"));
        let digest = manifest_digest(&folder.path().join("one.tar")).unwrap();
        assert!(digest.starts_with("sha256:") && digest.len() == 71);
    }

    #[test]
    fn the_layout_names_the_image_for_containerd() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("image.tar");
        ImageContent::new().write("docker.io/lab/web:1", &to).unwrap();
        let mut names = Vec::new();
        for entry in tar::Archive::new(File::open(&to).unwrap()).entries().unwrap() {
            names.push(entry.unwrap().path().unwrap().to_string_lossy().into_owned());
        }
        assert_eq!(names[..2], ["oci-layout", "index.json"]);
        assert_eq!(names.iter().filter(|name| name.starts_with("blobs/sha256/")).count(), 3);
    }
}
