//! Step `backup_etcd`: a snapshot of etcd through the member on this master, checked, and handed to the server. Changes
//! nothing that runs, so it needs no permit.
//!
//! The snapshot is everything that the cluster holds, its Secrets too: on this node it lies in a folder of root alone,
//! and it is gone when the attempt ends, however that comes ([`remove`]).

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use shiplock_api::agent::{AssignmentId, EtcdSnapshot, KeptBackup};
use shiplock_core::artefact::ArtefactFile;
use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::size::readable_bytes;
use shiplock_core::upgrade::StepOutcome;
use tokio::sync::oneshot;

use super::{Failure, READ_LIMIT, Step, StepEvent, with_role};
use crate::control_plane::manifest::{self, Manifest};
use crate::files::{self, hexadecimal};
use crate::gateway::GatewayError;
use crate::host::Host;

/// Left free on the file system besides the snapshot: etcd itself may be on it.
const RESERVE_BYTES: u64 = 512 << 20;
/// `etcdutl snapshot status` reads the whole file.
const STATUS_LIMIT: Duration = Duration::from_secs(300);
/// After so long the server is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// A server that was just started offers the step anew before it takes a backup, one whose connection broke lets go of
/// it after a while, and a certificate may have been replaced meanwhile; who refuses longer than this means it.
const REFUSALS_MAX: u32 = 60;
/// etcd appends the SHA-256 of all that comes before to the snapshots that it sends:
/// <https://github.com/etcd-io/etcd/blob/v3.6.0/server/etcdserver/api/v3rpc/maintenance.go>.
const TRAILER_BYTES: u64 = 32;

/// What the step asks of the server. The node loop asks under the id that the attempt has then.
#[derive(Clone, Debug)]
pub enum BackupMessage {
    /// Whether the server keeps the backup of this attempt already, and whether it has room for one of this size.
    Find {
        /// 0 while it is not known.
        size_bytes: u64,
    },
    /// Here it is.
    Send {
        /// What it is.
        snapshot: EtcdSnapshot,
        /// Where it is.
        path: PathBuf,
    },
}

/// The answer to a [`BackupMessage`]: what the server keeps, if it keeps anything.
pub type BackupReply = Result<Option<KeptBackup>, GatewayError>;

/// Does the step.
pub async fn run<H: Host>(step: &Step<H>, artefacts: &[ArtefactFile]) -> Result<StepOutcome, Failure> {
    step.progress("examining");
    if let Some(kept) = ask(step, BackupMessage::Find { size_bytes: 0 }).await? {
        return Ok(kept.into());
    }
    let etcdctl = step.staged(with_role(artefacts, "etcdctl")?).await?;
    let etcdutl = step.staged(with_role(artefacts, "etcdutl")?).await?;
    let member = Member::of(step)?;
    let status = member.status(step, &etcdctl).await?;
    let folder = folder(&step.data_folder, &step.assignment.id);
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
    made.map_err(|error| step.unusable(&folder, "made", &error))?;
    check_space(step, &folder, status.db_size)?;
    ask(step, BackupMessage::Find { size_bytes: status.db_size }).await?;

    step.progress("saving");
    let path = folder.join("etcd.db");
    let place = step.host.node_path(&path);
    let program = step.host.node_path(&etcdctl);
    let arguments = member.arguments();
    let command: Vec<&str> = std::iter::once(&*program)
        .chain(arguments.iter().map(String::as_str))
        .chain(["snapshot", "save", &place])
        .collect();
    step.program("save", &command)
        .await
        .map_err(|problem| Failure::retryable(failed(step, "etcdctl did not save it").because(&problem)))?;

    step.progress("checking");
    let snapshot = check(step, &path, &etcdutl, status.version).await?;
    step.progress("sending");
    let sent = ask(step, BackupMessage::Send { snapshot, path }).await?;
    let kept = sent.ok_or_else(|| failed(step, "the server took it and does not have it"))?;
    step.clean_staging(artefacts);
    Ok(kept.into())
}

/// Where an attempt has its snapshot.
fn folder(data_folder: &Path, id: &AssignmentId) -> PathBuf {
    data_folder.join("backup").join(format!("{}-{}-{}", id.upgrade, id.step, id.generation.intent))
}

/// Removes the snapshot of an attempt that has ended, if it made one.
pub(crate) fn remove(data_folder: &Path, id: &AssignmentId) -> io::Result<()> {
    match fs::remove_dir_all(folder(data_folder, id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Asks the server until it answers. It may be away for long; the time of the step is the bound.
async fn ask<H: Host>(step: &Step<H>, message: BackupMessage) -> Result<Option<KeptBackup>, Failure> {
    let mut refusals = 0;
    loop {
        let (answer, answered) = oneshot::channel();
        let _ = step.events.send(StepEvent::Backup { message: message.clone(), answer });
        let Ok(reply) = answered.await else {
            // Nobody listens any more: the step is being dropped.
            return std::future::pending().await;
        };
        match reply {
            Ok(kept) => return Ok(kept),
            Err(GatewayError::Unreachable(_)) => {}
            Err(GatewayError::Refused(problem)) => {
                let passes =
                    matches!(problem.code, Code::PermitRefused | Code::StaleGeneration | Code::CertificateUnknown);
                refusals += 1;
                if !passes || refusals > REFUSALS_MAX {
                    let retryable = passes || problem.code == Code::DigestMismatch;
                    return Err(Failure { problem, retryable });
                }
            }
        }
        step.host.wait(ASK_AGAIN).await;
    }
}

fn failed<H: Host>(step: &Step<H>, why: impl std::fmt::Display) -> Problem {
    Problem::new(Code::BackupFailed).with("node", &step.assignment.node).with("why", why)
}

fn check_space<H: Host>(step: &Step<H>, folder: &Path, size: u64) -> Result<(), Problem> {
    // It grows while it is being saved.
    let needed = size.saturating_add(size / 5).saturating_add(RESERVE_BYTES);
    let free = step.host.free_bytes(folder)?;
    if free >= needed { Ok(()) } else { Err(step.disk_full(folder, free, readable_bytes(needed))) }
}

/// How the member on this master is reached, as its own flags tell.
struct Member {
    endpoint: String,
    authority: String,
    certificate: String,
    key: String,
}

/// What `etcdctl endpoint status` says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemberStatus {
    version: String,
    db_size: u64,
    #[serde(default)]
    leader: u64,
    #[serde(default)]
    is_learner: bool,
}

impl Member {
    fn of<H: Host>(step: &Step<H>) -> Result<Self, Problem> {
        let manifest = manifest::path(ControlPlaneComponent::Etcd);
        let path = step.host.at(&manifest);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(failed(step, format!("no member of etcd runs on it: there is no {manifest}")));
            }
            Err(error) => return Err(step.unusable(&path, "read", &error)),
        };
        let member = Self::parse(&text).map_err(|why| failed(step, format!("{manifest}: {why}")))?;
        for file in [&member.authority, &member.certificate, &member.key] {
            if !step.host.at(file).is_file() {
                return Err(failed(step, format!("there is no {file}")));
            }
        }
        Ok(member)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let manifest = Manifest::parse(ControlPlaneComponent::Etcd, text)?;
        let mut urls = manifest.list("listen-client-urls");
        // The loopback address works whatever becomes of the node's others.
        urls.sort_by_key(|url| !(url.contains("//127.") || url.contains("//localhost") || url.contains("//[::1]")));
        let endpoint = urls.into_iter().find(|url| url.starts_with("https://"));
        let endpoint = endpoint.ok_or("it serves no clients over https (--listen-client-urls)")?.to_owned();
        let authority = manifest.flag("trusted-ca-file").ok_or("it has no --trusted-ca-file")?.to_owned();
        // kubeadm makes this client certificate beside the authority, for the probes of the member.
        let beside = |name: &str| Path::new(&authority).with_file_name(name).display().to_string();
        let (certificate, key) = (beside("healthcheck-client.crt"), beside("healthcheck-client.key"));
        Ok(Self { endpoint, authority, certificate, key })
    }

    fn arguments(&self) -> [String; 4] {
        [
            format!("--endpoints={}", self.endpoint),
            format!("--cacert={}", self.authority),
            format!("--cert={}", self.certificate),
            format!("--key={}", self.key),
        ]
    }

    /// What the member says, if it is well: it answers, a read goes through the whole of etcd, and it votes.
    async fn status<H: Host>(&self, step: &Step<H>, etcdctl: &Path) -> Result<MemberStatus, Failure> {
        let program = step.host.node_path(etcdctl);
        let arguments = self.arguments();
        let question = |words: &[&'static str]| -> Vec<String> {
            arguments.iter().cloned().chain(words.iter().map(|&word| word.to_owned())).collect()
        };
        let health = question(&["endpoint", "health"]);
        let health: Vec<&str> = health.iter().map(String::as_str).collect();
        let output = step.host.output(&program, &health, READ_LIMIT).await?;
        if !output.success {
            let problem = failed(step, "its member is not healthy").cause(output.error.trim());
            return Err(Failure::retryable(problem));
        }
        let status = question(&["endpoint", "status", "--write-out=json"]);
        let status: Vec<&str> = status.iter().map(String::as_str).collect();
        let output = step.host.output(&program, &status, READ_LIMIT).await?;
        let status = parse_status(&output.text).ok_or_else(|| {
            Failure::retryable(failed(step, "its member does not tell its status").cause(output.error.trim()))
        })?;
        if status.is_learner {
            return Err(failed(step, "its member is a learner, which may lag behind").into());
        }
        if status.leader == 0 {
            return Err(Failure::retryable(failed(step, "etcd has no leader")));
        }
        Ok(status)
    }
}

fn parse_status(text: &str) -> Option<MemberStatus> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Endpoint {
        status: MemberStatus,
    }
    let endpoints: Vec<Endpoint> = serde_json::from_str(text).ok()?;
    endpoints.into_iter().next().map(|endpoint| endpoint.status)
}

/// What `etcdutl snapshot status` says.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SnapshotStatus {
    hash: u32,
    revision: u64,
    total_key: u64,
    total_size: u64,
}

/// Looks at the snapshot from every side. etcdutl alone does not see that its end is missing.
async fn check<H: Host>(
    step: &Step<H>,
    path: &Path,
    etcdutl: &Path,
    etcd_version: String,
) -> Result<EtcdSnapshot, Failure> {
    let wrong = |why: String| Failure::retryable(failed(step, why));
    let place = step.host.node_path(path);
    let arguments = ["snapshot", "status", &place, "--write-out=json"];
    let output = step.host.output(&step.host.node_path(etcdutl), &arguments, STATUS_LIMIT).await?;
    let status: Option<SnapshotStatus> = serde_json::from_str(&output.text).ok().filter(|_| output.success);
    let status = status.ok_or_else(|| {
        Failure::retryable(failed(step, "etcdutl cannot read the snapshot").cause(output.error.trim()))
    })?;
    let read = path.to_owned();
    let content = tokio::task::spawn_blocking(move || Content::read(&read)).await;
    let content = content.unwrap_or_else(|error| Err(io::Error::other(error)));
    let content = content.map_err(|error| step.unusable(path, "read", &error))?;
    if !content.has_own_digest {
        return Err(wrong("the snapshot does not have the SHA-256 that etcd wrote at its end".to_owned()));
    }
    if content.size_bytes != status.total_size + TRAILER_BYTES {
        let (found, expected) = (content.size_bytes, status.total_size + TRAILER_BYTES);
        return Err(wrong(format!("the snapshot has {found} bytes, {expected} were expected")));
    }
    Ok(EtcdSnapshot {
        sha256: content.sha256,
        size_bytes: content.size_bytes,
        hash: status.hash,
        revision: status.revision,
        keys: status.total_key,
        etcd_version,
    })
}

/// A snapshot as its bytes tell.
struct Content {
    sha256: String,
    size_bytes: u64,
    /// Whether it ends with the SHA-256 of all that comes before.
    has_own_digest: bool,
}

impl Content {
    fn read(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let size_bytes = file.metadata()?.len();
        let mut digest = Sha256::new();
        let body = (&mut file).take(size_bytes.saturating_sub(TRAILER_BYTES));
        files::copy(body, |piece| {
            digest.update(piece);
            Ok(())
        })?;
        let own = digest.clone().finalize();
        let mut trailer = Vec::new();
        file.take(TRAILER_BYTES).read_to_end(&mut trailer)?;
        digest.update(&trailer);
        Ok(Self { sha256: hexadecimal(&digest.finalize()), size_bytes, has_own_digest: *own == *trailer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(flags: &[&str]) -> String {
        let flags: String = flags.iter().map(|flag| format!("    - {flag}\n")).collect();
        let image = "registry.k8s.io/etcd:3.6.8-0";
        format!(
            "kind: Pod\nspec:\n  containers:\n  - name: etcd\n    image: {image}\n    command:\n    - etcd\n{flags}"
        )
    }

    #[test]
    fn the_member_is_reached_on_loopback_with_the_certificate_of_its_probes() {
        let text = manifest(&[
            "--listen-client-urls=https://10.0.0.1:2379,https://127.0.0.1:2379",
            "--trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt",
        ]);
        let member = Member::parse(&text).unwrap();
        let expected = [
            "--endpoints=https://127.0.0.1:2379",
            "--cacert=/etc/kubernetes/pki/etcd/ca.crt",
            "--cert=/etc/kubernetes/pki/etcd/healthcheck-client.crt",
            "--key=/etc/kubernetes/pki/etcd/healthcheck-client.key",
        ];
        assert_eq!(member.arguments(), expected);
        let text = manifest(&["--listen-client-urls=https://10.0.0.1:2379", "--trusted-ca-file=/pki/ca.crt"]);
        assert_eq!(Member::parse(&text).unwrap().endpoint, "https://10.0.0.1:2379");
    }

    #[test]
    fn a_manifest_that_does_not_say_how_to_reach_the_member_is_refused_in_words() {
        for (text, why) in [
            ("{".to_owned(), "not the YAML of a pod"),
            ("spec: {containers: []}".to_owned(), "no container"),
            (manifest(&[]), "no clients over https"),
            (manifest(&["--listen-client-urls=http://127.0.0.1:2379"]), "no clients over https"),
            (manifest(&["--listen-client-urls=https://127.0.0.1:2379"]), "no --trusted-ca-file"),
        ] {
            let found = Member::parse(&text).err().unwrap();
            assert!(found.contains(why), "{found}");
        }
    }

    #[test]
    fn the_status_of_a_member_is_read_as_etcdctl_writes_it() {
        let text = r#"[{"Endpoint":"https://127.0.0.1:2379","Status":{"header":{"cluster_id":14841639068965178418,"member_id":10276657743932975437,"revision":2,"raft_term":2},"version":"3.6.8","dbSize":20480,"leader":10276657743932975437,"raftIndex":5,"raftTerm":2,"raftAppliedIndex":5,"dbSizeInUse":16384,"storageVersion":"3.6.0","dbSizeQuota":2147483648,"downgradeInfo":{}}}]"#;
        let status = parse_status(text).unwrap();
        assert_eq!((status.version.as_str(), status.db_size), ("3.6.8", 20480));
        assert!(status.leader != 0 && !status.is_learner);
        assert!(parse_status(&text.replace("\"raftTerm\"", "\"isLearner\":true,\"raftTerm\"")).unwrap().is_learner);
        for unreadable in ["null", "[]", "", "Error: unhealthy cluster"] {
            assert!(parse_status(unreadable).is_none(), "{unreadable}");
        }
    }

    #[test]
    fn a_snapshot_without_its_end_or_with_a_changed_byte_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("etcd.db");
        let body = vec![5; 200_000];
        let whole = [&body[..], &Sha256::digest(&body)].concat();
        let mut changed = whole.clone();
        changed[7] ^= 1;
        for (content, sound) in
            [(&whole[..], true), (&whole[..199_000], false), (&changed, false), (&whole[..20], false), (b"", false)]
        {
            fs::write(&path, content).unwrap();
            let found = Content::read(&path).unwrap();
            assert_eq!(found.has_own_digest, sound, "{} bytes", content.len());
            assert_eq!(found.size_bytes, content.len() as u64);
            assert_eq!(found.sha256, hexadecimal(&Sha256::digest(content)));
        }
    }
}
