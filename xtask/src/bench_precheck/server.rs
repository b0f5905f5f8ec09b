//! A real API server with its etcd on this machine, without nodes: the programs that the lab builds.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::lab::home::Home;
use crate::lab::versions::Release;

/// The API server tells its clients an address that is no loopback address; this one is put on the loopback interface.
const ADDRESS: &str = "10.98.76.1";
const TOKEN: &str = "bench";
const BOUND: Duration = Duration::from_secs(180);

/// A running API server. It ends with this value.
pub(super) struct Server {
    folder: PathBuf,
    children: Vec<Child>,
    bin: PathBuf,
    proxy_port: u16,
    pub(super) api_server_pid: u32,
}

impl Server {
    /// Starts one of a minor; `flags` are further flags of the API server.
    pub(super) fn start(folder: &Path, minor: &str, flags: &[&str]) -> Result<Self> {
        let release = Release::find(minor)?;
        let home = Home::open()?;
        let bin = home.bin("kubernetes", release.kubernetes);
        let etcd = home.bin("etcd", release.etcd).join("etcd");
        ensure!(bin.join("kube-apiserver").exists(), "Kubernetes {minor} is not built: cargo xtask lab build");
        fs::create_dir_all(folder)?;
        // Two at once would share the address; it stays until the last one ends.
        let _ = Command::new("ip").args(["address", "add", &format!("{ADDRESS}/32"), "dev", "lo"]).output()?;
        let (client, peer, secure, proxy_port) = (free_port()?, free_port()?, free_port()?, free_port()?);
        let mut server =
            Self { folder: folder.to_owned(), children: Vec::new(), bin: bin.clone(), proxy_port, api_server_pid: 0 };
        server.run(
            Command::new(etcd)
                .arg(format!("--data-dir={}", folder.join("etcd").display()))
                .arg(format!("--listen-client-urls=http://127.0.0.1:{client}"))
                .arg(format!("--advertise-client-urls=http://127.0.0.1:{client}"))
                .arg(format!("--listen-peer-urls=http://127.0.0.1:{peer}"))
                .args(["--unsafe-no-fsync", "--quota-backend-bytes=8589934592", "--log-level=error"]),
            "etcd",
        )?;
        let key = folder.join("accounts.key");
        let made = Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048").output()?;
        ensure!(made.status.success(), "openssl cannot make a key");
        fs::write(folder.join("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n"))?;
        let child = server.run(
            Command::new(bin.join("kube-apiserver"))
                .arg(format!("--etcd-servers=http://127.0.0.1:{client}"))
                .arg(format!("--cert-dir={}", folder.join("certificates").display()))
                .arg(format!("--secure-port={secure}"))
                .args([&format!("--bind-address={ADDRESS}"), &format!("--advertise-address={ADDRESS}")])
                .arg(format!("--token-auth-file={}", folder.join("tokens.csv").display()))
                .arg(format!("--service-account-key-file={}", key.display()))
                .arg(format!("--service-account-signing-key-file={}", key.display()))
                .args(["--service-account-issuer=https://bench", "--authorization-mode=RBAC"])
                .args(["--service-cluster-ip-range=10.96.0.0/12", "--disable-admission-plugins=ServiceAccount"])
                .args(flags),
            "kube-apiserver",
        )?;
        server.api_server_pid = child;
        let certificate = folder.join("certificates/apiserver.crt");
        wait("the API server's certificate", || Ok(certificate.exists()))?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{ "name": "bench", "cluster": { "server": format!("https://{ADDRESS}:{secure}"), "certificate-authority": certificate } }],
            "users": [{ "name": "bench", "user": { "token": TOKEN } }],
            "contexts": [{ "name": "bench", "context": { "cluster": "bench", "user": "bench" } }],
        });
        fs::write(server.kubeconfig(), kubeconfig.to_string())?;
        wait("the API server", || Ok(server.kubectl(&["get", "--raw", "/readyz"]).is_ok_and(|said| said == "ok")))?;
        let proxy = server.kubectl_command(&["proxy", &format!("--port={proxy_port}")]);
        server.run_command(proxy, "kubectl-proxy")?;
        wait("kubectl proxy", || Ok(TcpStream::connect(("127.0.0.1", proxy_port)).is_ok()))?;
        Ok(server)
    }

    fn run(&mut self, command: &mut Command, name: &str) -> Result<u32> {
        let log = fs::File::create(self.folder.join(format!("{name}.log")))?;
        let child =
            command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context(name.to_owned())?;
        let pid = child.id();
        self.children.push(child);
        Ok(pid)
    }

    fn run_command(&mut self, mut command: Command, name: &str) -> Result<u32> {
        self.run(&mut command, name)
    }

    /// The administrator's kubeconfig.
    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    pub(super) fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.bin.join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments);
        command
    }

    /// Runs kubectl; its output.
    pub(super) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.kubectl_command(arguments).stdin(Stdio::null()).output()?;
        ensure!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs kubectl with an object on its standard input.
    pub(super) fn kubectl_with(&self, arguments: &[&str], object: &Value) -> Result<()> {
        let mut command = self.kubectl_command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("stdin")?.write_all(object.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "kubectl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Creates objects, through a few connections at once.
    pub(super) fn create(&self, path: &str, objects: &[Value]) -> Result<()> {
        self.send("POST", path, objects)
    }

    /// Writes the status of objects that are there.
    pub(super) fn set_status(&self, path: &str, objects: &[Value]) -> Result<()> {
        self.send("PATCH", path, objects)
    }

    fn send(&self, method: &str, path: &str, objects: &[Value]) -> Result<()> {
        let next = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| -> Result<()> {
                        let mut plain = Plain::connect(self.proxy_port)?;
                        while let Some(object) = objects.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                            let namespace = object["metadata"]["namespace"].as_str();
                            let path = match namespace {
                                Some(namespace) => {
                                    let (root, resource) = path.rsplit_once('/').context("a path")?;
                                    format!("{root}/namespaces/{namespace}/{resource}")
                                }
                                None => path.to_owned(),
                            };
                            let path = match (method, object["metadata"]["name"].as_str()) {
                                ("PATCH", Some(name)) => format!("{path}/{name}/status"),
                                _ => path,
                            };
                            plain.send(method, &path, &object.to_string())?;
                        }
                        Ok(())
                    })
                })
                .collect();
            for worker in workers {
                worker.join().map_err(|_| anyhow::anyhow!("a thread broke down"))??;
            }
            Ok(())
        })
    }

    /// Seconds of processor time that the API server has used.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.api_server_pid))?;
        let after = text.rsplit(')').next().unwrap_or_default();
        let ticks: Vec<f64> = after.split_whitespace().skip(11).take(2).filter_map(|part| part.parse().ok()).collect();
        Ok(ticks.iter().sum::<f64>() / 100.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = Command::new("ip").args(["address", "delete", &format!("{ADDRESS}/32"), "dev", "lo"]).output();
    }
}

/// One plain connection to `kubectl proxy`.
struct Plain {
    stream: BufReader<TcpStream>,
}

impl Plain {
    fn connect(port: u16) -> Result<Self> {
        Ok(Self { stream: BufReader::new(TcpStream::connect(("127.0.0.1", port))?) })
    }

    fn send(&mut self, method: &str, path: &str, body: &str) -> Result<()> {
        let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = format!(
            "{method} {path}?fieldManager=bench HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (mut length, mut is_chunked) = (0, false);
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "the connection was closed");
            let lower = line.trim().to_ascii_lowercase();
            if lower.is_empty() {
                break;
            }
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            is_chunked |= lower == "transfer-encoding: chunked";
        }
        let mut answer = Vec::new();
        if is_chunked {
            loop {
                line.clear();
                self.stream.read_line(&mut line)?;
                let size = usize::from_str_radix(line.trim(), 16).context("a chunk")?;
                let begin = answer.len();
                answer.resize(begin + size + 2, 0);
                self.stream.read_exact(&mut answer[begin..])?;
                if size == 0 {
                    break;
                }
            }
        } else {
            answer.resize(length, 0);
            self.stream.read_exact(&mut answer)?;
        }
        if !status.starts_with('2') {
            bail!("{method} {path}: {status} {}", String::from_utf8_lossy(&answer[..answer.len().min(400)]));
        }
        Ok(())
    }
}

pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

pub(super) fn wait(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !holds()? {
        ensure!(begun.elapsed() < BOUND, "{what} does not come up");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
