//! `snapshot`: a cluster in a file, to rehearse on and to check.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;

use serde::Serialize;
use shiplock_check::run::Selection;
use shiplock_check::snapshot::{Read, Snapshot};
use shiplock_cluster::collect::{self, Collection};
use shiplock_cluster::{InlinedKubeconfig, Kubeconfig, KubeconfigSource};
use shiplock_core::problem::{Code, Problem};

use super::check::{bad_option, unread};
use crate::arguments::{ClusterAccess, Format, SnapshotArguments};
use crate::exit::Exit;
use crate::output::{Output, Progress};
use crate::render::table::Table;

/// No snapshot is larger: one of 5,000 nodes and 150,000 pods has some hundred megabytes.
const BYTES_MAX: u64 = 4 << 30;
/// In place of the name of a file: standard input or output.
pub(super) const STREAM: &str = "-";

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    path: String,
    bytes: usize,
    server: String,
    version: String,
    /// How many objects of each kind are in it.
    holds: BTreeMap<&'static str, usize>,
    /// What could not be read, and why.
    not_seen: BTreeMap<&'static str, String>,
}

/// Writes a snapshot and says what is in it.
pub(super) async fn snapshot(options: SnapshotArguments, output: &Output) -> Result<Exit, Problem> {
    let to_stdout = options.file == Path::new(STREAM);
    if to_stdout && output.format() != Format::Text {
        let why = "the snapshot itself goes to standard output, so that what is in it cannot be told there too";
        return Err(bad_option("--file", STREAM, why));
    }
    let selection = Selection::default();
    let snapshot = read(
        &options.access,
        &Collection { target: None, selection: &selection, for_start: false, with_copy: true },
        output,
    )
    .await?;
    let document = serde_json::to_string(&snapshot).map_err(|error| {
        Problem::new(Code::Internal).with("what", "a snapshot cannot be written as JSON").cause(error)
    })?;
    let result = if to_stdout { output.document(&document) } else { write(&options.file, document.as_bytes()) };
    result.map_err(|error| unusable(&options.file, "written").cause(error))?;
    let (holds, not_seen) = contents(&snapshot);
    let written = Written {
        path: options.file.display().to_string(),
        bytes: document.len(),
        server: snapshot.server.clone(),
        version: snapshot.version.clone(),
        holds,
        not_seen,
    };
    let is_whole = written.not_seen.is_empty();
    let zh = output.style().zh();
    let mut table = Table::new(if zh { ["内容", "数量"] } else { ["HOLDS", "COUNT"] });
    for (what, count) in &written.holds {
        table.row([(*what).to_owned(), count.to_string()]);
    }
    let mut text = table.render();
    for (what, why) in &written.not_seen {
        text.push_str(&if zh {
            format!("未能读取 {what}：{why}\n")
        } else {
            format!("not read: {what}: {why}\n")
        });
    }
    text.push_str(output.pick(
        "Not in it: values of Secrets, environments, commands of containers but Kubernetes' own, and of ConfigMaps \
         anything but what kubeadm keeps in kube-system.\n",
        "不包含：Secret 的值、环境变量、除 Kubernetes 自身组件外的容器命令，以及除 kubeadm 在 kube-system 中保存的内容外的 ConfigMap。\n",
    ));
    let path = if to_stdout { output.pick("standard output", "标准输出") } else { &*written.path };
    text.push_str(&format!("{path}  {}\n", shiplock_core::size::readable_bytes(written.bytes as u64)));
    if to_stdout {
        output.remark(&text);
    } else {
        output.result(written, |_| text);
    }
    Ok(if is_whole { Exit::Done } else { Exit::Undecided })
}

fn contents(snapshot: &Snapshot) -> (BTreeMap<&'static str, usize>, BTreeMap<&'static str, String>) {
    let (mut holds, mut not_seen) = (BTreeMap::new(), BTreeMap::new());
    match &snapshot.copy {
        Read::Seen(copy) => {
            holds.insert("nodes", copy.nodes.len());
            holds.insert("pods", copy.pods.len());
            holds.insert("pod templates", copy.templates.len());
            holds.insert("workloads", copy.workloads.len());
            holds.insert("budgets", copy.budgets.len());
            holds.insert("claims bound to a place", copy.claims.len());
        }
        Read::NotSeen(why) => {
            not_seen.insert("copy for rehearsal", why.clone());
        }
        Read::NotAsked => {}
    }
    match &snapshot.served {
        Read::Seen(served) => {
            holds.insert("served resources", served.len());
        }
        Read::NotSeen(why) => {
            not_seen.insert("served resources", why.clone());
        }
        Read::NotAsked => {}
    }
    if let Read::Seen(releases) = &snapshot.releases {
        holds.insert("Helm releases", releases.len());
    }
    holds.insert("API servers' metrics", snapshot.metrics.len());
    holds.insert("kinds with objects of old APIs", snapshot.written.len());
    // What the pre-check reads of each kind, as it stands in the file.
    let lists = serde_json::to_value(&snapshot.objects).unwrap_or_default();
    let count = |list: &serde_json::Value| list.get("seen").and_then(|seen| seen.as_array()).map_or(0, Vec::len);
    holds.insert("objects for the pre-check", lists.as_object().map_or(0, |lists| lists.values().map(count).sum()));
    (holds, not_seen)
}

/// Only its owner may read it: names and labels tell much of a company. What has the name is never half of a snapshot.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // A pipe or a device is written to, and not replaced by a file.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return std::fs::OpenOptions::new().write(true).open(path)?.write_all(bytes);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Reads a snapshot from a file, or from standard input as `-`.
pub(super) fn load(path: &Path) -> Result<Snapshot, Problem> {
    let unreadable = |why: String| Problem::new(Code::SnapshotUnreadable).with("path", path.display()).with("why", why);
    let mut bytes = Vec::new();
    if path == Path::new(STREAM) {
        let read = std::io::stdin().lock().take(BYTES_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| unreadable(error.to_string()))?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(unreadable("it is larger than any snapshot".to_owned()));
        }
    } else {
        let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => unread("--snapshot", path, error),
            _ => unreadable(error.to_string()),
        })?;
        if !metadata.is_file() || metadata.len() > BYTES_MAX {
            return Err(unreadable("it is no regular file, or larger than any snapshot".to_owned()));
        }
        bytes = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    }
    Snapshot::parse(&path.to_string_lossy(), &bytes)
}

/// Opens a kubeconfig and says which cluster is read.
pub(super) fn open(access: &ClusterAccess, output: &Output) -> Result<InlinedKubeconfig, Problem> {
    let (variable, home) = (std::env::var_os("KUBECONFIG"), std::env::home_dir());
    if let Some(path) = &access.kubeconfig
        && let Err(error) = std::fs::metadata(path)
        && error.kind() == std::io::ErrorKind::NotFound
    {
        return Err(unread("--kubeconfig", path, error));
    }
    let source = KubeconfigSource::choose(access.kubeconfig.as_deref(), variable.as_deref(), home.as_deref());
    let kubeconfig = Kubeconfig::inline(&source, access.context.as_deref(), &access.allow)?;
    output.remark(&format!("{} {} ({})", reading(output), kubeconfig.context, kubeconfig.server));
    Ok(kubeconfig)
}

fn reading(output: &Output) -> &'static str {
    output.pick("reading", "正在读取")
}

/// Tells on a terminal what is being read, in a line that is empty again at the end.
pub(super) async fn telling<T>(output: &Output, work: impl AsyncFnOnce(collect::Progress<'_>) -> T) -> T {
    let on_terminal = output.progress() == Progress::Tty;
    let reading = reading(output);
    let is_chinese = output.style().zh();
    let progress = |what: &str| {
        let what = match what {
            "version" if is_chinese => "版本",
            "APIs" if is_chinese => "API",
            "Helm releases" if is_chinese => "Helm release",
            "certificates of webhooks" if is_chinese => "webhook 证书",
            other => other,
        };
        if on_terminal {
            eprint!("\r\u{1b}[2K{reading} {what}");
        }
    };
    let result = work(&progress).await;
    if on_terminal {
        eprint!("\r\u{1b}[2K");
    }
    result
}

/// Reads the cluster of a kubeconfig.
pub(super) async fn read(
    access: &ClusterAccess,
    collection: &Collection<'_>,
    output: &Output,
) -> Result<Snapshot, Problem> {
    let kubeconfig = open(access, output)?;
    telling(output, async |progress| collect::collect(&kubeconfig, collection, progress).await).await
}

fn unusable(path: &Path, operation: &str) -> Problem {
    let problem = Problem::new(Code::FileUnusable).with("path", path.display());
    problem.with("subject", "this machine").with("operation", operation)
}

/// Writes a file of text for its reader.
pub(super) fn write_text(path: &Path, text: &str) -> Result<(), Problem> {
    std::fs::write(path, text).map_err(|error| unusable(path, "written").cause(error))
}
