//! Downloads: streamed to disk with a running digest, from a mirror over HTTP(S) or in a folder.
//!
//! Mirrors are reached directly and never through a proxy: an air-gapped mirror that is suddenly asked for through
//! one is a riddle, and the digests make the way irrelevant otherwise.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use shiplock_core::artefact::ArtefactIndex;
use shiplock_core::problem::{Code, Problem};
use tokio::fs::{File, OpenOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufWriter};

use crate::files::hexadecimal;
use crate::steps::{Failure, mismatch};

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A mirror that sends nothing for so long has gone.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
const COPY_BYTES: usize = 64 << 10;
/// Pieces come in some KiB each, and each write to the file wakes another thread.
const WRITE_BYTES: usize = 1 << 20;
/// How long a question may take that fetches nothing.
const ASK_LIMIT: Duration = Duration::from_secs(15);
const INDEX: &str = "artefacts.json";
const INDEX_BYTES_MAX: usize = 16 << 20;

/// A file of the mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The path below the mirror's root.
    pub path: String,
    /// The size in bytes.
    pub size_bytes: u64,
    /// The SHA-256 of the content.
    pub sha256: String,
}

/// Where artefacts come from.
#[derive(Debug)]
pub struct Mirror {
    root: Root,
    subject: String,
}

#[derive(Debug)]
enum Root {
    Folder(PathBuf),
    Web { client: reqwest::Client, root: String },
}

/// Why a file was not fetched.
#[derive(Debug)]
pub enum FetchError {
    /// The mirror's side.
    Mirror(Failure),
    /// The disk's side.
    Disk(PathBuf, io::Error),
}

impl FetchError {
    /// The failure; `disk` gives the problem for a path of ours.
    pub fn into_failure(self, disk: impl FnOnce(&Path, &io::Error) -> Problem) -> Failure {
        match self {
            Self::Mirror(failure) => failure,
            Self::Disk(path, error) => disk(&path, &error).into(),
        }
    }
}

impl Mirror {
    /// Makes ready to fetch for a node.
    pub fn open(root: &str, subject: &str) -> Result<Self, Problem> {
        let root = if root.starts_with("http://") || root.starts_with("https://") {
            // An error would only mean that there is a provider already.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let client = reqwest::Client::builder()
                .no_proxy()
                .connect_timeout(CONNECT_LIMIT)
                .read_timeout(SILENCE_LIMIT)
                .pool_max_idle_per_host(1)
                .build()
                .map_err(|error| failed(root, subject).because(&error))?;
            Root::Web { client, root: root.trim_end_matches('/').to_owned() }
        } else if root.starts_with('/') {
            Root::Folder(PathBuf::from(root))
        } else {
            return Err(failed(root, subject).cause("a mirror is http://…, https://… or an absolute path on the node"));
        };
        Ok(Self { root, subject: subject.to_owned() })
    }

    /// How many artefacts the mirror's index names. The error is in words.
    pub async fn index_size(&self) -> Result<u64, String> {
        let text = match &self.root {
            Root::Folder(folder) => {
                let path = folder.join(INDEX);
                tokio::fs::read(&path).await.map_err(|error| format!("{}: {error}", path.display()))?
            }
            Root::Web { client, root } => {
                let location = format!("{root}/{INDEX}");
                let lost =
                    |error: reqwest::Error| format!("{location}: {}", crate::gateway::in_full(&error.without_url()));
                let mut response = client.get(&location).timeout(ASK_LIMIT).send().await.map_err(lost)?;
                if !response.status().is_success() {
                    return Err(format!("{location}: the mirror answers {}", response.status()));
                }
                let mut text = Vec::new();
                while let Some(piece) = response.chunk().await.map_err(lost)? {
                    text.extend_from_slice(&piece);
                    if text.len() > INDEX_BYTES_MAX {
                        return Err(format!("{location} is larger than {INDEX_BYTES_MAX} bytes"));
                    }
                }
                text
            }
        };
        let index: ArtefactIndex = serde_json::from_slice(&text).map_err(|error| format!("{INDEX}: {error}"))?;
        let artefacts = index.releases.iter().map(|release| release.files.len() + release.images.len());
        Ok(artefacts.sum::<usize>() as u64)
    }

    /// Whether the mirror has a file; its content is not read. The error is in words.
    pub async fn has(&self, path: &str) -> Result<(), String> {
        match &self.root {
            Root::Folder(folder) => {
                let path = folder.join(path);
                tokio::fs::metadata(&path).await.map(drop).map_err(|error| format!("{}: {error}", path.display()))
            }
            Root::Web { client, root } => {
                let location = format!("{root}/{path}");
                let asked = client.get(&location).header("range", "bytes=0-0").timeout(ASK_LIMIT).send().await;
                let lost =
                    |error: reqwest::Error| format!("{location}: {}", crate::gateway::in_full(&error.without_url()));
                let status = asked.map_err(lost)?.status();
                if status.is_success() { Ok(()) } else { Err(format!("{location}: the mirror answers {status}")) }
            }
        }
    }

    /// Fetches a file. A part from before is continued; what does not have the digest is deleted.
    pub async fn fetch(&self, file: &Wanted, target: &Path) -> Result<(), FetchError> {
        let part = target.with_extension("part");
        let disk = |error| FetchError::Disk(part.clone(), error);
        let mut out = OpenOptions::new().create(true).read(true).append(true).open(&part).await.map_err(disk)?;
        let (mut digest, mut length) = digest_of(&mut out).await.map_err(disk)?;
        if length > file.size_bytes {
            out.set_len(0).await.map_err(disk)?;
            (digest, length) = (Sha256::new(), 0);
        }
        let mut out = BufWriter::with_capacity(WRITE_BYTES, out);
        if length < file.size_bytes {
            match &self.root {
                Root::Folder(folder) => {
                    let source = folder.join(&file.path);
                    let location = source.display().to_string();
                    let unreadable =
                        |error: io::Error| FetchError::Mirror(failed(&location, &self.subject).because(&error).into());
                    let mut from = File::open(&source).await.map_err(unreadable)?;
                    out.get_mut().set_len(0).await.map_err(disk)?;
                    (digest, length) = (Sha256::new(), 0);
                    let mut buffer = vec![0; COPY_BYTES];
                    loop {
                        let read = from.read(&mut buffer).await.map_err(unreadable)?;
                        if read == 0 || length > file.size_bytes {
                            break;
                        }
                        digest.update(&buffer[..read]);
                        out.write_all(&buffer[..read]).await.map_err(disk)?;
                        length += read as u64;
                    }
                }
                Root::Web { client, root } => {
                    let location = format!("{root}/{}", file.path);
                    let lost = |error: reqwest::Error| {
                        FetchError::Mirror(Failure::retryable(
                            failed(&location, &self.subject).because(&error.without_url()),
                        ))
                    };
                    let mut request = client.get(&location);
                    if length > 0 {
                        request = request.header("range", format!("bytes={length}-"));
                    }
                    let mut response = request.send().await.map_err(lost)?;
                    let status = response.status();
                    if !status.is_success() {
                        let problem = failed(&location, &self.subject).cause(format!("the mirror answers {status}"));
                        // A server that is in trouble may be well in a while; a file that is not there stays away.
                        let retryable = status.is_server_error();
                        return Err(FetchError::Mirror(Failure { problem: Box::new(problem), retryable }));
                    }
                    if status.as_u16() != 206 && length > 0 {
                        out.get_mut().set_len(0).await.map_err(disk)?;
                        (digest, length) = (Sha256::new(), 0);
                    }
                    let ended = loop {
                        let piece = match response.chunk().await {
                            Ok(Some(piece)) => piece,
                            Ok(None) => break Ok(()),
                            Err(error) => break Err(lost(error)),
                        };
                        length += piece.len() as u64;
                        if length > file.size_bytes {
                            break Ok(());
                        }
                        digest.update(&piece);
                        out.write_all(&piece).await.map_err(disk)?;
                    };
                    if length < file.size_bytes {
                        // What came is kept for the next attempt.
                        out.flush().await.map_err(disk)?;
                        ended?;
                        let why = format!("it ended after {length} of {} bytes", file.size_bytes);
                        return Err(FetchError::Mirror(Failure::retryable(
                            failed(&location, &self.subject).cause(why),
                        )));
                    }
                }
            }
        }
        let found = hexadecimal(&digest.finalize());
        if length != file.size_bytes || found != file.sha256 {
            let _ = tokio::fs::remove_file(&part).await;
            let found =
                if length == file.size_bytes { found } else { format!("another size than {}", file.size_bytes) };
            return Err(FetchError::Mirror(mismatch(&file.path, &found, &file.sha256).into()));
        }
        let done = async {
            out.flush().await?;
            let out = out.into_inner();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            out.set_permissions(mode).await?;
            out.sync_all().await?;
            tokio::fs::rename(&part, target).await?;
            match target.parent() {
                Some(folder) => File::open(folder).await?.sync_all().await,
                None => Ok(()),
            }
        };
        done.await.map_err(disk)
    }
}

async fn digest_of(file: &mut File) -> io::Result<(Sha256, u64)> {
    let (mut digest, mut length) = (Sha256::new(), 0);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        match file.read(&mut buffer).await? {
            0 => return Ok((digest, length)),
            read => {
                digest.update(&buffer[..read]);
                length += read as u64;
            }
        }
    }
}

fn failed(location: &str, subject: &str) -> Problem {
    Problem::new(Code::DownloadFailed).with("location", location).with("subject", subject)
}
