//! Preloaded image stores: a node's `/var/lib/containerd` with exactly the images it may have.
//!
//! Images are imported once into a store by a containerd on this machine. Each node then gets
//! hard links: snapshots and blobs are never changed in place, so nodes share them and the page
//! cache. Only the databases are copied.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::archive::{archive_path, short_digest};
use super::home::{Home, remove, stamp, temporary, write};
use super::process::{command, run, say, succeeds, wait_until};
use super::versions::{Image, Release};

/// The store for a node of a role, built where it is missing.
pub(crate) fn store_for(home: &Home, release: &Release, master: bool) -> Result<PathBuf> {
    let images = if master { release.master_images() } else { release.worker_images() };
    let mut key = String::new();
    for image in &images {
        key.push_str(&stamp(&archive_path(home, image)).with_context(|| {
            format!(
                "Kubernetes {} is not built; run `cargo xtask lab build --kubernetes {}`",
                release.kubernetes, release.minor
            )
        })?);
    }
    let role = if master { "master" } else { "worker" };
    let name = format!("{role}-{}-{}", release.kubernetes, short_digest(&key));
    let place = home.root().join("stores").join(&name);
    if !place.exists() {
        let _lock = home.lock("stores")?;
        home.make(&place, |folder| import(home, &images, folder))?;
        say(format!("image store of a {role} of {}: {} images", release.kubernetes, images.len()));
    }
    Ok(place)
}

fn import(home: &Home, images: &[Image], store: &Path) -> Result<()> {
    fs::create_dir_all(store)?;
    let run_folder = temporary(store.parent().unwrap_or(store), "run");
    fs::create_dir_all(&run_folder)?;
    let config = run_folder.join("config.toml");
    let optional = run_folder.join("opt");
    write(
        &config,
        &format!(
            "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = {optional:?}\n"
        ),
        0o644,
    )?;
    let socket = run_folder.join("socket");
    let log = fs::File::create(run_folder.join("log"))?;
    // Its mounts are in a namespace of its own and go with it.
    let mut daemon = command("unshare", &["--mount", "--propagation", "private", "containerd"])
        .arg("--config")
        .arg(&config)
        .arg("--root")
        .arg(store)
        .arg("--state")
        .arg(run_folder.join("state"))
        .arg("--address")
        .arg(&socket)
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start containerd")?;
    let ctr = |arguments: &[&str]| {
        let mut ctr = command("ctr", &["--namespace", "k8s.io", "--address"]);
        ctr.arg(&socket).args(arguments);
        ctr
    };
    let result = (|| {
        wait_until("containerd on this machine answers", Duration::from_secs(30), || {
            Ok(succeeds(&mut ctr(&["version"])))
        })?;
        for image in images {
            run(ctr(&["images", "import", "--snapshotter", "overlayfs"]).arg(archive_path(home, image)))?;
        }
        let listed = run(&mut ctr(&["images", "list", "-q"]))?;
        match images.iter().find(|image| !listed.lines().any(|line| line == image.reference)) {
            Some(image) => anyhow::bail!("{} was imported under another name:\n{listed}", image.reference),
            None => Ok(()),
        }
    })();
    super::process::send(i32::try_from(daemon.id())?, rustix::process::Signal::TERM);
    daemon.wait()?;
    remove(&run_folder)?;
    result
}

/// Fills a node's own folder from a store.
pub(crate) fn copy_store(store: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let mut tree = command("cp", &["--archive", "--link", "--"]);
    run(tree.arg(store.join(".")).arg(to))?;
    own_databases(store, to)
}

/// Fills a folder on another file system, where hard links do not reach.
pub(crate) fn copy_store_in_full(store: &Path, to: &Path) -> Result<()> {
    run(command("cp", &["--archive", "--"]).arg(store.join(".")).arg(to))?;
    Ok(())
}

fn own_databases(store: &Path, to: &Path) -> Result<()> {
    let found = run(command("find", &[]).arg(store).args(["-name", "*.db", "-printf", "%P\\n"]))?;
    for name in found.lines() {
        run(command("cp", &["--archive", "--remove-destination", "--"]).arg(store.join(name)).arg(to.join(name)))?;
    }
    Ok(())
}
