//! What a backup is worth: it is taken out of the server, restored by etcd's own tools, and read.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::installation::{CLUSTER, Installation};
use crate::lab::Lab;
use crate::lab::versions::Release;

/// A key that every cluster has; its value names the cluster.
const IDENTITY_KEY: &str = "/registry/namespaces/kube-system";

/// The newest backup of the lab's cluster is sealed on the server, and an etcd that is restored from it by `etcdutl` of
/// a release knows the very cluster.
pub(crate) fn restores(installation: &Installation<'_>, release: &str) -> Result<()> {
    let lab = installation.lab;
    let listed = installation.json(&["backup", "list", CLUSTER])?;
    let backup = &listed["backups"][0];
    let id = backup["id"].as_str().with_context(|| format!("no backup is kept: {listed}"))?;
    let sealed = fs::read(installation.data_directory().join(format!("backups/{id}.backup")))?;
    ensure!(!contains(&sealed, IDENTITY_KEY.as_bytes()), "the backup lies on the server as it is");
    drop(sealed);
    installation.ok(&["backup", "verify", id])?;

    let folder = lab.folder().join("restored");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let snapshot = folder.join("etcd.db");
    installation.ok(&["backup", "export", id, "--file", &snapshot.to_string_lossy()])?;
    let metadata = fs::metadata(&snapshot)?;
    ensure!(metadata.permissions().mode() & 0o777 == 0o600, "others can read the snapshot");
    ensure!(Some(metadata.len()) == backup["snapshot"]["size_bytes"].as_u64(), "{backup}");

    let etcd = RestoredEtcd::start(lab, release, &snapshot, &folder)?;
    let uid = lab.kubectl(&["get", "namespace", "kube-system", "--output=jsonpath={.metadata.uid}"])?;
    let value = etcd.get(IDENTITY_KEY)?;
    ensure!(contains(&value, uid.as_bytes()), "the restored etcd holds another cluster than {uid}");
    let revision = etcd.revision()?;
    ensure!(Some(revision) >= backup["snapshot"]["revision"].as_u64(), "revision {revision}: {backup}");
    eprintln!("  backup {id}: restored, revision {revision}, it holds cluster {uid}");
    Ok(())
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// An etcd on loopback with the data of a snapshot. It ends with this value.
struct RestoredEtcd {
    child: Child,
    etcdctl: PathBuf,
    endpoint: String,
}

impl RestoredEtcd {
    fn start(lab: &Lab, release: &str, snapshot: &Path, folder: &Path) -> Result<Self> {
        let programs = lab.home().bin("etcd", Release::find(release)?.etcd);
        let data = folder.join("data");
        let restored = Command::new(programs.join("etcdutl"))
            .args(["snapshot", "restore", "--data-dir"])
            .args([&*data, snapshot])
            .output()
            .context("etcdutl cannot be started")?;
        let said = String::from_utf8_lossy(&restored.stderr);
        ensure!(restored.status.success(), "etcdutl restores nothing: {said}");
        let (clients, peers) = (free_address()?, free_address()?);
        let log = fs::File::create(folder.join("etcd.log"))?;
        let child = Command::new(programs.join("etcd"))
            .arg("--data-dir")
            .arg(&data)
            .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients, "--listen-peer-urls", &peers])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("etcd cannot be started")?;
        let mut etcd = Self { child, etcdctl: programs.join("etcdctl"), endpoint: clients };
        let begun = Instant::now();
        while etcd.ask(&["endpoint", "health"]).is_err() {
            if let Some(status) = etcd.child.try_wait()? {
                bail!("the restored etcd ended with {status}: see {}", folder.join("etcd.log").display());
            }
            ensure!(begun.elapsed() < Duration::from_secs(60), "the restored etcd does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(etcd)
    }

    fn ask(&self, words: &[&str]) -> Result<Vec<u8>> {
        let output = Command::new(&self.etcdctl).arg("--endpoints").arg(&self.endpoint).args(words).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`etcdctl {}`: {said}", words.join(" "));
        Ok(output.stdout)
    }

    fn get(&self, key: &str) -> Result<Vec<u8>> {
        self.ask(&["get", key, "--print-value-only"])
    }

    fn revision(&self) -> Result<u64> {
        let status: serde_json::Value =
            serde_json::from_slice(&self.ask(&["endpoint", "status", "--write-out=json"])?)?;
        status[0]["Status"]["header"]["revision"].as_u64().with_context(|| format!("no revision in {status}"))
    }
}

impl Drop for RestoredEtcd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_address() -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    Ok(format!("http://{}", listener.local_addr()?))
}
