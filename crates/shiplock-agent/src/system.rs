//! The real node: systemd, `/proc` and the files below `/`.
//!
//! Programs that change the node are started through `systemd-run`, so that they outlive this process and cannot run
//! twice at the same time; all others are bounded in time and output.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Duration;

use rustix::fs::StatVfsMountFlags;
use shiplock_core::facts::examination::{FileSystem, RuntimeHealth, TlsOutcome, TlsTarget};
use shiplock_core::problem::{Code, Problem};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::cri::{self, Container, ContainerDetails};
use crate::endpoint::{Answer, Clients, Question};
use crate::facts::FileKey;
use crate::files;
use crate::host::{Host, PROGRAM_FOLDERS, ProgramOutput, Service, UnitState};
use crate::steps::READ_LIMIT;
use crate::steps::logs::end_of;

const OUTPUT_BYTES_MAX: u64 = 4 << 20;
const ERROR_BYTES_MAX: usize = 4 << 10;
const JOURNAL_BYTES_MAX: usize = 64 << 10;
const HEALTH_LIMIT: Duration = Duration::from_secs(3);
const DIAL_LIMIT: Duration = Duration::from_secs(5);
/// Enough for a lost packet. A name server that does not answer would have the resolver wait for five seconds, and the start
/// of an upgrade with it.
const REACH_LIMIT: Duration = Duration::from_secs(2);
/// A transient unit that takes longer is stopped by the service manager.
const UNIT_LIMIT_SECONDS: u32 = 600;
/// More files than components, few enough to forget all of them.
const DIGESTS_MAX: usize = 64;

/// The node that this process runs on.
#[derive(Debug, Default)]
pub struct System {
    digests: Mutex<HashMap<FileKey, String>>,
    clients: Clients,
}

impl System {
    async fn systemctl(&self, arguments: &[&str]) -> Result<ProgramOutput, Problem> {
        self.output("systemctl", arguments, READ_LIMIT).await
    }

    async fn digest(&self, path: PathBuf) -> Result<Option<String>, Problem> {
        let subject = "this node";
        let unreadable = |error: &io::Error| files::unusable(&path, subject, "read", error);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unreadable(&error)),
        };
        let key = FileKey::of(&file.metadata().map_err(|error| unreadable(&error))?);
        if let Some(digest) = self.known_digests().get(&key) {
            return Ok(Some(digest.clone()));
        }
        let hashed = tokio::task::spawn_blocking(move || files::sha256(file)).await;
        let digest = hashed.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| unreadable(&error))?;
        let mut known = self.known_digests();
        if known.len() >= DIGESTS_MAX {
            known.clear();
        }
        known.insert(key, digest.clone());
        Ok(Some(digest))
    }

    fn known_digests(&self) -> std::sync::MutexGuard<'_, HashMap<FileKey, String>> {
        self.digests.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn failed(program: &str, result: impl std::fmt::Display, error: &str) -> Problem {
    Problem::new(Code::ProgramFailed)
        .with("program", program)
        .with("node", "this node")
        .with("result", result)
        .cause(error.trim())
}

async fn bounded(from: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(from) = from {
        // A pipe that breaks gives what came before.
        let _ = from.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).await;
    }
    bytes
}

impl Host for System {
    fn root(&self) -> &Path {
        Path::new("/")
    }

    async fn output(&self, program: &str, arguments: &[&str], limit: Duration) -> Result<ProgramOutput, Problem> {
        let mut command = Command::new(program);
        command.args(arguments).env("PATH", PROGRAM_FOLDERS.join(":")).env("LC_ALL", "C").env("SYSTEMD_COLORS", "0");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| failed(program, "an error", &error.to_string()))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let whole = async { tokio::join!(bounded(out), bounded(err), child.wait()) };
        let Ok((text, error, status)) = tokio::time::timeout(limit, whole).await else {
            return Err(failed(program, format!("no result within {} s", limit.as_secs()), ""));
        };
        let status = status.map_err(|error| failed(program, "an error", &error.to_string()))?;
        let error = String::from_utf8_lossy(&error);
        Ok(ProgramOutput {
            success: status.success(),
            text: String::from_utf8_lossy(&text).into_owned(),
            error: end_of(&error, ERROR_BYTES_MAX).to_owned(),
        })
    }

    async fn start_unit(&self, unit: &str, command: &[String]) -> Result<(), Problem> {
        let unit_option = format!("--unit={unit}");
        let limit = format!("--property=RuntimeMaxSec={UNIT_LIMIT_SECONDS}");
        let path = format!("--setenv=PATH={}", PROGRAM_FOLDERS.join(":"));
        // Type=exec: what cannot be executed is known at once. RemainAfterExit: the result stays to be read.
        let mut arguments = vec![
            &*unit_option,
            "--quiet",
            "--no-ask-password",
            "--property=Type=exec",
            "--property=RemainAfterExit=yes",
            &limit,
            &path,
            "--",
        ];
        arguments.extend(command.iter().map(String::as_str));
        let output = self.output("systemd-run", &arguments, READ_LIMIT).await?;
        // There is one of this name: it was started before, and its result is what counts.
        if !output.success && self.unit(unit).await? == UnitState::Absent {
            return Err(failed("systemd-run", "an error", &output.error));
        }
        Ok(())
    }

    async fn unit(&self, unit: &str) -> Result<UnitState, Problem> {
        let name = format!("{unit}.service");
        let properties = "--property=LoadState,ActiveState,SubState,Result,ExecMainStatus";
        let output = self.systemctl(&["show", properties, &name]).await?;
        if !output.success {
            return Err(failed("systemctl show", "an error", &output.error));
        }
        Ok(unit_state(&output.text))
    }

    async fn clear_units(&self, prefix: &str) -> Result<(), Problem> {
        let pattern = format!("{prefix}*.service");
        self.systemctl(&["stop", &pattern]).await?;
        // Fails where nothing of the name has failed, which is what is wanted.
        self.systemctl(&["reset-failed", &pattern]).await?;
        Ok(())
    }

    async fn reload_units(&self) -> Result<(), Problem> {
        let output = self.systemctl(&["daemon-reload"]).await?;
        if output.success { Ok(()) } else { Err(failed("systemctl daemon-reload", "an error", &output.error)) }
    }

    async fn forget_failures(&self, service: &str) -> Result<(), Problem> {
        // Fails where the unit is not loaded, which has not failed either.
        self.systemctl(&["reset-failed", &format!("{service}.service")]).await.map(drop)
    }

    async fn service(&self, name: &str) -> Result<Service, Problem> {
        let unit = format!("{name}.service");
        let output = self.systemctl(&["show", "--property=ActiveState,MainPID,NRestarts,ExecStart", &unit]).await?;
        if !output.success {
            return Err(failed("systemctl show", "an error", &output.error));
        }
        Ok(parse_service(&output.text))
    }

    async fn journal(&self, units: &[&str], lines: u32) -> String {
        let lines = format!("--lines={lines}");
        let mut arguments = vec!["--no-pager", "--quiet", "--output=short-iso", &lines];
        for unit in units {
            arguments.extend(["--unit", unit]);
        }
        match self.output("journalctl", &arguments, READ_LIMIT).await {
            Ok(output) => end_of(output.text.trim_end(), JOURNAL_BYTES_MAX).to_owned(),
            Err(problem) => problem.to_string(),
        }
    }

    async fn file_digest(&self, path: &Path) -> Result<Option<String>, Problem> {
        self.digest(path.to_owned()).await
    }

    async fn running_digest(&self, pid: u32) -> Result<Option<String>, Problem> {
        if pid == 0 { Ok(None) } else { self.digest(PathBuf::from(format!("/proc/{pid}/exe"))).await }
    }

    async fn runtime_version(&self) -> Result<String, Problem> {
        cri::runtime_version(Path::new(cri::SOCKET)).await.map_err(|why| failed("CRI Version", "an error", &why))
    }

    async fn containers(&self) -> Result<Vec<Container>, Problem> {
        cri::containers(Path::new(cri::SOCKET)).await.map_err(|why| failed("CRI ListContainers", "an error", &why))
    }

    async fn container_details(&self, id: &str) -> Result<ContainerDetails, Problem> {
        let details = cri::container_details(Path::new(cri::SOCKET), id).await;
        details.map_err(|why| failed("CRI ContainerStatus", "an error", &why))
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Problem> {
        let stopped = cri::stop_container(Path::new(cri::SOCKET), id, grace).await;
        stopped.map_err(|why| failed("CRI StopContainer", "an error", &why))
    }

    async fn image_id(&self, reference: &str) -> Result<Option<String>, Problem> {
        let image = cri::image_id(Path::new(cri::SOCKET), reference).await;
        image.map_err(|why| failed("CRI ImageStatus", "an error", &why))
    }

    async fn ask(&self, question: &Question<'_>) -> Result<Answer, String> {
        self.clients.ask(question).await
    }

    async fn is_healthy(&self, port: u16) -> bool {
        let ask = async {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.write_all(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n").await?;
            let mut answer = String::new();
            stream.take(4096).read_to_string(&mut answer).await?;
            io::Result::Ok(answer.starts_with("HTTP/1.0 200") || answer.starts_with("HTTP/1.1 200"))
        };
        matches!(tokio::time::timeout(HEALTH_LIMIT, ask).await, Ok(Ok(true)))
    }

    fn free_bytes(&self, path: &Path) -> Result<u64, Problem> {
        let stat = rustix::fs::statvfs(path)
            .map_err(|error| files::unusable(path, "this node", "looked at", &error.into()))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn space(&self, path: &Path) -> Result<(u64, FileSystem), Problem> {
        let unusable = |error: io::Error| files::unusable(path, "this node", "looked at", &error);
        let stat = rustix::fs::statvfs(path).map_err(|error| unusable(error.into()))?;
        let device = std::fs::metadata(path).map_err(unusable)?.dev();
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let space = FileSystem {
            path: path.display().to_string(),
            size_bytes: bytes(stat.f_blocks),
            free_bytes: bytes(stat.f_bavail),
            inodes: stat.f_files,
            free_inodes: stat.f_favail,
            is_read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
        };
        Ok((device, space))
    }

    async fn runtime_health(&self) -> Result<RuntimeHealth, Problem> {
        cri::health(Path::new(cri::SOCKET)).await.map_err(|why| failed("CRI Status", "an error", &why))
    }

    async fn reaches(&self, host: &str, port: u16) -> Result<(), String> {
        match tokio::time::timeout(REACH_LIMIT, TcpStream::connect((host, port))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no connection within {} s", REACH_LIMIT.as_secs())),
        }
    }

    async fn dial(&self, target: &TlsTarget) -> TlsOutcome {
        let connected = TcpStream::connect((target.host.as_str(), target.port));
        match tokio::time::timeout(DIAL_LIMIT, connected).await {
            Ok(Ok(stream)) => shiplock_handshake::handshake(stream, &target.server_name).await,
            Ok(Err(error)) => TlsOutcome::Failed { why: error.to_string() },
            Err(_) => TlsOutcome::Failed { why: format!("no connection within {} s", DIAL_LIMIT.as_secs()) },
        }
    }

    fn is_read_only(&self, path: &Path) -> bool {
        rustix::fs::statvfs(path).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::RDONLY))
    }

    async fn wait(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

fn property<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
}

fn unit_state(text: &str) -> UnitState {
    if property(text, "LoadState") == "not-found" {
        return UnitState::Absent;
    }
    let failed =
        || UnitState::Failed { result: format!("{} {}", property(text, "Result"), property(text, "ExecMainStatus")) };
    match (property(text, "ActiveState"), property(text, "SubState")) {
        ("failed", _) => failed(),
        ("active", "exited") => UnitState::Succeeded,
        ("inactive", _) if property(text, "Result") != "success" => failed(),
        ("inactive", _) => UnitState::Absent,
        _ => UnitState::Running,
    }
}

fn parse_service(text: &str) -> Service {
    // ExecStart={ path=/usr/bin/kubelet ; argv[]=/usr/bin/kubelet --x ; ignore_errors=no ; … }
    let start = property(text, "ExecStart");
    let part = |name: &str| {
        let from = start.find(name)? + name.len();
        start.get(from..)?.split(" ; ").next()
    };
    let mut command: Vec<String> =
        part("argv[]=").map(|words| words.split_whitespace().map(str::to_owned).collect()).unwrap_or_default();
    if let (Some(path), Some(first)) = (part("path="), command.first_mut()) {
        path.clone_into(first);
    }
    Service {
        state: property(text, "ActiveState").to_owned(),
        main_pid: property(text, "MainPID").parse().unwrap_or(0),
        restarts: property(text, "NRestarts").parse().unwrap_or(0),
        command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_a_transient_unit_is_read_from_its_properties() {
        let failed = |result: &str| UnitState::Failed { result: result.to_owned() };
        for (load, active, sub, result, status, expected) in [
            ("not-found", "inactive", "dead", "success", "0", UnitState::Absent),
            ("loaded", "active", "running", "success", "0", UnitState::Running),
            ("loaded", "activating", "start", "success", "0", UnitState::Running),
            ("loaded", "deactivating", "stop", "success", "0", UnitState::Running),
            ("loaded", "active", "exited", "success", "0", UnitState::Succeeded),
            ("loaded", "failed", "failed", "exit-code", "3", failed("exit-code 3")),
            ("loaded", "failed", "failed", "timeout", "15", failed("timeout 15")),
        ] {
            let text = format!(
                "Result={result}\nExecMainStatus={status}\nLoadState={load}\nActiveState={active}\nSubState={sub}\n"
            );
            assert_eq!(unit_state(&text), expected, "{text}");
        }
    }

    #[test]
    fn a_service_is_read_from_its_properties_and_one_that_is_not_there_has_no_command() {
        let text = "MainPID=245\nNRestarts=3\nActiveState=active\nExecStart={ path=/usr/bin/kubelet ; argv[]=/usr/bin/kubelet $A --x=y ; ignore_errors=no ; pid=245 ; status=0/0 }\n";
        let service = parse_service(text);
        assert_eq!((service.state.as_str(), service.main_pid, service.restarts), ("active", 245, 3));
        assert_eq!(service.command, ["/usr/bin/kubelet", "$A", "--x=y"]);
        assert_eq!(parse_service("MainPID=0\nActiveState=inactive\n").command, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_server_that_speaks_no_tls_or_is_not_there_fails_with_the_reason() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = TlsTarget { host: "127.0.0.1".to_owned(), port, server_name: "hook.shop.svc".to_owned() };
        let system = System::default();
        let (outcome, ()) = tokio::join!(system.dial(&target), async {
            use tokio::io::AsyncWriteExt as _;
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        });
        let TlsOutcome::Failed { why } = outcome else { panic!("plain text is no handshake: {outcome:?}") };
        assert!(why.starts_with("no TLS handshake"), "{why}");
        drop(listener);
        let TlsOutcome::Failed { why } = system.dial(&target).await else { panic!("nobody listens") };
        assert!(why.contains("refused"), "{why}");
    }
}
