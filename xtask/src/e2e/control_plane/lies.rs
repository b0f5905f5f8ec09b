//! Scenario `master-lies`: a mirror whose files agree with its index, and yet are another version than it says. Digests
//! cannot tell; what runs can.

use std::fs::{self, hard_link};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{old_cluster, only_master};
use crate::e2e::installation::{CLUSTER, Installation};
use crate::lab::{Lab, MirrorService, image};

const BOUND: Duration = Duration::from_secs(600);
const TARGET: &str = "v1.36.3";
const OLD: &str = "v1.35.4";

/// A mirror that is being served, until it is dropped.
struct FalseMirror(MirrorService);

impl FalseMirror {
    /// The lab's mirror with other entries in its index; `falsify` gets the entries of the target and its folder.
    fn serve(
        lab: &Lab,
        port: u16,
        falsify: impl Fn(&mut Value, &std::path::Path) -> Result<()>,
    ) -> Result<(Self, String)> {
        let (real, root) = (lab.home().mirror(), lab.folder().join(format!("false-mirror-{port}")));
        fs::create_dir_all(root.join("false"))?;
        for entry in fs::read_dir(&real)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                copy_links(&entry.path(), &root.join(entry.file_name()))?;
            }
        }
        let mut index: Value = serde_json::from_str(&fs::read_to_string(real.join("artefacts.json"))?)?;
        let releases = index["releases"].as_array_mut().context("the index has releases")?;
        let target =
            releases.iter_mut().find(|release| release["kubernetes"] == TARGET).context("the target is there")?;
        falsify(target, &root)?;
        fs::write(root.join("artefacts.json"), index.to_string())?;
        let address = format!("{}:{port}", lab.bridge_address());
        let service = MirrorService { folder: root.clone(), address: address.clone() };
        service.start(&root)?;
        Ok((Self(service), format!("http://{address}")))
    }
}

impl Drop for FalseMirror {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The same files under another folder.
fn copy_links(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_links(&entry.path(), &target)?;
        } else {
            hard_link(entry.path(), target)?;
        }
    }
    Ok(())
}

fn entry<'a>(release: &'a mut Value, kind: &str, role: &str) -> Result<&'a mut Value> {
    let entries = release[kind].as_array_mut().context("a list")?;
    entries.iter_mut().find(|entry| entry["role"] == role).with_context(|| role.to_owned())
}

/// Under the name of the target's image, the API server of the old version.
fn false_image(release: &mut Value, root: &std::path::Path) -> Result<()> {
    let role = "kube-apiserver";
    let program = root.join(format!("release/{OLD}/bin/linux/amd64/{role}"));
    let path = format!("false/{role}.tar");
    let archive = root.join(&path);
    let found = entry(release, "images", role)?;
    let reference = found["reference"].as_str().context("a reference")?.to_owned();
    image::ImageContent::new().program(program, &format!("usr/local/bin/{role}")).write(&reference, &archive)?;
    let digest = image::manifest_digest(&archive)?;
    let image_id = image::image_id(&archive, &digest)?;
    let (size, sha256) = (fs::metadata(&archive)?.len(), crate::lab::sha256(&archive)?);
    *found = json!({
        "role": role, "reference": reference, "architecture": "amd64", "path": path, "size_bytes": size,
        "sha256": sha256, "digest": digest, "image_id": image_id,
    });
    Ok(())
}

/// Under the name of the target's kubelet, the old one.
fn false_kubelet(release: &mut Value, root: &std::path::Path) -> Result<()> {
    let path = format!("release/{OLD}/bin/linux/amd64/kubelet");
    let (size, sha256) = (fs::metadata(root.join(&path))?.len(), crate::lab::sha256(&root.join(&path))?);
    let found = entry(release, "files", "kubelet")?;
    found["path"] = path.into();
    found["size_bytes"] = size.into();
    found["sha256"] = sha256.into();
    Ok(())
}

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    old_cluster(lab, 1, 0)?;
    let mut installation = Installation::ready(lab)?;
    let kubeconfig = lab.kubeconfig_path();
    let kubeconfig = kubeconfig.to_string_lossy();
    let register = |installation: &mut Installation<'_>, mirror: &str| -> Result<()> {
        installation.ok(&["cluster", "remove", CLUSTER, "--yes"])?;
        installation.ok(&["cluster", "add", CLUSTER, "--kubeconfig", &kubeconfig, "--mirror", mirror])?;
        installation.join("m1")?;
        installation.until("the agent is heard of", BOUND, |installation| {
            Ok(!installation.json(&["agent", "list", CLUSTER])?["agents"][0]["machine"]["control_plane"].is_null())
        })
    };

    let (mirror, url) = FalseMirror::serve(lab, 8481, false_image)?;
    register(&mut installation, &url)?;
    let id = installation.begin(&only_master())?;
    let paused = installation.until_state(&id, "paused", BOUND)?;
    let shown = installation.ok(&["upgrades", "show", &id])?;
    eprintln!("{shown}");
    ensure!(shown.contains("it answers version v1.35.4"), "the false image is not found: {paused}");
    ensure!(shown.contains("put back and runs"), "it was not put back: {shown}");
    installation.ok(&["cancel", &id, "--yes"])?;
    installation.until_state(&id, "cancelled", BOUND)?;
    drop(mirror);

    // The image of the false tag is still on the node: the digest of the true one is fetched over it.
    let (mirror, url) = FalseMirror::serve(lab, 8482, false_kubelet)?;
    register(&mut installation, &url)?;
    let id = installation.begin(&[only_master().as_slice(), &["--node-ready-timeout", "20s"]].concat())?;
    let paused = installation.until_state(&id, "paused", BOUND)?;
    let shown = installation.ok(&["upgrades", "show", &id])?;
    eprintln!("{shown}");
    ensure!(shown.contains("kubelet") && shown.contains(OLD), "the false kubelet is not found: {paused}");
    drop(mirror);
    Ok(())
}
