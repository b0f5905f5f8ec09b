//! The kubectl of this machine.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::known;

/// How long it may take to tell its version; it asks no cluster.
const LIMIT: Duration = Duration::from_secs(5);
/// Where the version of a kubectl is kept, among what checks keep.
const KEPT: &str = "kubectl.json";
/// What is kept is not longer.
const KEPT_BYTES_MAX: u64 = 64 << 10;

/// A program file, as far as it tells whether it is still the same.
#[derive(PartialEq, Serialize, Deserialize)]
struct Program {
    path: PathBuf,
    state: String,
}

/// What a program reported.
#[derive(Serialize, Deserialize)]
struct Kept {
    program: Program,
    version: String,
}

/// The version of a kubectl, and what of it is to be kept, if that is new.
pub(super) struct Kubectl {
    pub(super) version: String,
    new: Option<(PathBuf, Program)>,
}

/// The version that it reports; none where there is none, or where it does not tell. It takes a quarter of a second of a
/// processor to start: the same program is asked once, but for `fresh`.
pub(super) async fn kubectl(fresh: bool) -> Option<Kubectl> {
    let path = known::folder().filter(|_| !fresh).map(|folder| folder.join(KEPT));
    let program = std::env::var_os("PATH").and_then(|path| kubectl_of(&path));
    let new = path.zip(program);
    if let Some((path, program)) = &new
        && let Some(kept) = kept(path).filter(|kept| kept.program == *program)
    {
        return Some(Kubectl { version: kept.version, new: None });
    }
    Some(Kubectl { version: ask().await?, new })
}

impl Kubectl {
    /// Keeps it for the next check, where anything is kept: of a small cluster nothing is, and nothing is left at home.
    pub(super) fn keep(self) {
        let Some((path, program)) = self.new else { return };
        if path.parent().is_some_and(Path::is_dir) {
            let kept = Kept { program, version: self.version };
            known::replace(&path, |file| Ok(serde_json::to_writer(file, &kept)?));
        }
    }
}

/// The kubectl that a search path leads to; none where it is not the program itself but something that chooses one, such as a
/// script, or a link to a version manager.
fn kubectl_of(search_path: &std::ffi::OsStr) -> Option<Program> {
    let path =
        std::env::split_paths(search_path).map(|folder| folder.join("kubectl")).find(|path| is_executable(path))?;
    let path = std::fs::canonicalize(path).ok()?;
    let mut file = std::fs::File::open(&path).ok()?;
    let mut begin = [0; 4];
    file.read_exact(&mut begin).ok()?;
    if begin != *b"\x7fELF" || !path.file_name()?.to_str()?.starts_with("kubectl") {
        return None;
    }
    Some(Program { state: known::state(&path)?, path })
}

/// Whether a search path leads to it: a file that may be run.
fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

fn kept(path: &Path) -> Option<Kept> {
    let file = known::open(path)?;
    serde_json::from_reader(std::io::BufReader::new(file.take(KEPT_BYTES_MAX))).ok()
}

async fn ask() -> Option<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        client_version: Version,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Version {
        git_version: String,
    }
    let mut command = tokio::process::Command::new("kubectl");
    command.args(["version", "--client", "-o", "json"]).stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    // Whatever the caller's kubeconfig holds, it is not asked.
    command.env("KUBECONFIG", "/dev/null");
    let output = tokio::time::timeout(LIMIT, command.output()).await.ok()?.ok()?;
    let answer: Answer = serde_json::from_slice(&output.stdout).ok()?;
    Some(answer.client_version.git_version)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn only_a_kubectl_that_is_the_program_itself_is_known_again_and_another_file_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let of = || kubectl_of(folder.path().as_os_str());
        let program = |name: &str, content: &[u8]| {
            std::fs::write(at(name), content).unwrap();
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        assert!(of().is_none(), "there is none");
        program("kubectl", b"#!/bin/sh\nexec kubectl-1.36 \"$@\"\n");
        assert!(of().is_none(), "a script may choose another each time");
        std::fs::remove_file(at("kubectl")).unwrap();
        program("manager", b"\x7fELF and so on");
        symlink(at("manager"), at("kubectl")).unwrap();
        assert!(of().is_none(), "so may a version manager");
        std::fs::remove_file(at("kubectl")).unwrap();
        program("kubectl-1.36", b"\x7fELF one");
        symlink(at("kubectl-1.36"), at("kubectl")).unwrap();
        let first = of().unwrap();
        assert!(of().unwrap() == first);
        program("kubectl-1.36", b"\x7fELF another");
        assert!(of().unwrap() != first);
        std::fs::set_permissions(at("kubectl-1.36"), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(of().is_none(), "what may not be run is passed over");
    }

    #[test]
    fn what_is_kept_is_read_again_and_what_is_no_such_file_is_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shiplock").join(KEPT);
        let program = || Program { path: "/usr/bin/kubectl".into(), state: "1 bytes at 2".to_owned() };
        let asked = || Kubectl { version: "v1.36.3".to_owned(), new: Some((path.clone(), program())) };
        asked().keep();
        assert!(kept(&path).is_none() && !folder.path().join("shiplock").exists(), "nothing else is kept");
        std::fs::create_dir(folder.path().join("shiplock")).unwrap();
        asked().keep();
        let read = kept(&path).unwrap();
        assert!(read.program == program() && read.version == "v1.36.3");
        std::fs::write(&path, "{").unwrap();
        assert!(kept(&path).is_none());
    }
}
