//! The vectors of authorship and of TLS on a real API server: what is planted is known, and so is what must be said.
//!
//! Three of the twenty cannot be made on a server that is supported, since their kinds are gone or their server is too old:
//! S10 and S19, and S20 for every target. Tests of `shiplock-check` have them.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::live::release;
use super::server::{Server, free_port, wait};
use super::{Said, check};

const OLD: &str = "storage.k8s.io/v1beta1";
const NEW: &str = "storage.k8s.io/v1";
const THROUGH_OLD: &str = "volumeattributesclasses.v1beta1.storage.k8s.io";
/// Objects of Helm and of namespaces are here.
const NAMESPACE: &str = "default";

/// Plants everything on one server and compares.
pub(super) fn measure(shiplock: &Path, folder: &Path) -> Result<()> {
    let folder = folder.join("vectors");
    fs::create_dir_all(&folder)?;
    let (policy, log) = (folder.join("audit.yaml"), folder.join("audit.log"));
    fs::write(&policy, "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n")?;
    let beta = "--runtime-config=storage.k8s.io/v1beta1=true,networking.k8s.io/v1beta1=true";
    let (policy, file) = (format!("--audit-policy-file={}", policy.display()), log.to_string_lossy().into_owned());
    let server = Server::start(&folder.join("server"), "1.36", &[beta, &policy, &format!("--audit-log-path={file}")])?;
    authorship(&server)?;
    let kubeconfig = server.kubeconfig().to_string_lossy().into_owned();
    let cluster = ["--kubeconfig", &kubeconfig, "--to", "1.37"];
    let said = check(shiplock, &[&cluster[..], &["--only", "API,ADD-004", "--skip", "API-008"]].concat())?;
    compare(
        "authorship",
        &said,
        4,
        &[
            "unknown API-003 nobody VolumeAttributesClass s9-nothing-at-all",
            "warn ADD-004 deprecated CustomResourceDefinition carts.shop.example",
            "warn API-002 removed VolumeAttributesClass another-manager-later",
            "warn API-002 removed VolumeAttributesClass s1-client-side-apply",
            "warn API-002 removed-in-release VolumeAttributesClass s11-in-secret",
            "warn API-002 removed-in-release VolumeAttributesClass s12-in-config-map",
            "warn API-002 removed VolumeAttributesClass s2-server-side-apply",
            "warn API-004 only-trace VolumeAttributesClass s8-kapp-alone",
            "warn API-005 not-deployed HelmRelease s13-failed",
        ],
    )?;
    let counted = ["ipaddresses", "servicecidrs"].map(|kind| format!("networking.k8s.io/v1beta1 {kind}"));
    let counted = counted.into_iter().chain([format!("{OLD} volumeattributesclasses")]);
    let counted: Vec<String> = counted.map(|api| format!("warn API-008 requested Client of {api}")).collect();
    let counted: Vec<&str> = counted.iter().map(String::as_str).collect();
    compare(
        "requests that were counted",
        &check(shiplock, &[&cluster[..], &["--only", "API-008"]].concat())?,
        0,
        &counted,
    )?;
    // The garbage collector is not among them.
    let said = check(shiplock, &["--audit-log", &file, "--to", "1.37"])?;
    let callers = ["admin", "system:serviceaccount:default:s15-only-asks"];
    let callers = callers.map(|caller| format!("warn API-009 called Client {caller}"));
    compare("callers", &said, 0, &callers.each_ref().map(String::as_str))?;
    forbidden(shiplock, &server, &folder)?;
    tls(shiplock, &server, &folder)
}

fn class(name: &str, api_version: &str) -> Value {
    json!({ "apiVersion": api_version, "kind": "VolumeAttributesClass", "metadata": { "name": name },
        "driverName": "x", "parameters": { "a": "b" } })
}

fn authorship(server: &Server) -> Result<()> {
    let create = |object: &Value, manager: &str| {
        server.kubectl_with(&["create", &format!("--field-manager={manager}"), "-f", "-"], object)
    };
    let label = |resource: &str, name: &str, manager: &str| {
        let patch = json!({ "metadata": { "labels": { "round": "2" } } }).to_string();
        let manager = format!("--field-manager={manager}");
        server.kubectl(&["patch", resource, name, "--type=merge", &manager, "-p", &patch])
    };
    let (s1, s2, s3) = ("s1-client-side-apply", "s2-server-side-apply", "s3-migrated-stale-annotation");
    server.kubectl_with(&["apply", "-f", "-"], &class(s1, OLD))?;
    server.kubectl_with(&["apply", "--server-side", "--field-manager=argocd", "-f", "-"], &class(s2, OLD))?;
    server.kubectl_with(&["apply", "-f", "-"], &class(s3, OLD))?;
    create(&class("s4-same-manager-later", OLD), "x")?;
    create(&class("another-manager-later", OLD), "x")?;
    let ranges = json!({ "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": { "name": "s5-status-alone" }, "spec": { "cidrs": ["10.99.0.0/24"] } });
    create(&ranges, "x")?;
    create(&class("s6-the-api-server", OLD), "kube-apiserver")?;
    let applied = class("x", OLD).to_string();
    let annotated = |name: &str, annotation: &str| {
        let mut object = class(name, OLD);
        object["metadata"]["annotations"] = json!({ annotation: applied });
        object
    };
    create(&annotated("s8-kapp-alone", "kapp.k14s.io/original"), "x")?;
    create(&class("s9-nothing-at-all", OLD), "x")?;
    let set = json!({ "apiVersion": "extensions/v1beta1", "kind": "DaemonSet", "metadata": { "name": "logs" } });
    let revision = json!({ "apiVersion": "apps/v1", "kind": "ControllerRevision", "revision": 1, "data": {},
        "metadata": { "name": "s7-of-a-daemon-set", "namespace": NAMESPACE,
            "annotations": { "kubectl.kubernetes.io/last-applied-configuration": set.to_string() } } });
    create(&revision, "kube-controller-manager")?;
    // Times in managedFields have whole seconds.
    std::thread::sleep(Duration::from_millis(1500));
    label("volumeattributesclasses", s3, "kubectl-client-side-apply")?;
    label("volumeattributesclasses", "s4-same-manager-later", "x")?;
    label("volumeattributesclasses", "another-manager-later", "y")?;
    let condition = json!({ "type": "Ready", "status": "True", "reason": "x", "message": "x", "lastTransitionTime": "2026-01-01T00:00:00Z" });
    let status = json!({ "status": { "conditions": [condition] } }).to_string();
    let of_old = ["patch", "servicecidrs.v1beta1.networking.k8s.io", "s5-status-alone", "--subresource=status"];
    server.kubectl(&[&of_old[..], &["--type=merge", "--field-manager=y", "-p", &status]].concat())?;
    for name in ["s8-kapp-alone", "s9-nothing-at-all"] {
        let reset = json!([{ "op": "replace", "path": "/metadata/managedFields", "value": [{}] }]).to_string();
        server.kubectl(&["patch", THROUGH_OLD, name, "--type=json", "-p", &reset])?;
    }

    let manifest = |name: &str, api_version: &str| class(name, api_version).to_string();
    let secret = |name: &str, revision: u32, status: &str, api_version: &str| {
        release(NAMESPACE, name, revision, status, &manifest(name, api_version))
    };
    let mut in_map = secret("s12-in-config-map", 1, "deployed", OLD)?;
    let packed = STANDARD.decode(in_map["data"]["release"].as_str().context("a release")?)?;
    in_map["kind"] = json!("ConfigMap");
    in_map["data"]["release"] = json!(String::from_utf8(packed)?);
    if let Some(map) = in_map.as_object_mut() {
        map.remove("type");
    }
    for object in [
        secret("s11-in-secret", 1, "deployed", OLD)?,
        in_map,
        secret("s13-failed", 1, "deployed", NEW)?,
        secret("s13-failed", 2, "failed", OLD)?,
        secret("s14-two-deployed", 1, "deployed", OLD)?,
        secret("s14-two-deployed", 2, "deployed", NEW)?,
    ] {
        create(&object, "helm")?;
    }

    // S15: a client that only asks. S16: what the garbage collector asks is nobody's use.
    asks(server, NAMESPACE, "s15-only-asks", "/apis/networking.k8s.io/v1beta1/ipaddresses")?;
    asks(server, "kube-system", "generic-garbage-collector", "/apis/networking.k8s.io/v1beta1/servicecidrs")?;

    // S17: a version of a CustomResourceDefinition that its author calls deprecated.
    let schema = json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    let version = |name: &str, is_stored: bool, is_deprecated: bool| json!({ "name": name, "served": true, "storage": is_stored, "deprecated": is_deprecated, "schema": schema });
    let definition = json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "carts.shop.example" },
        "spec": { "group": "shop.example", "scope": "Cluster",
            "names": { "kind": "Cart", "plural": "carts", "singular": "cart" },
            "versions": [version("v1", true, false), version("v1beta1", false, true)] } });
    create(&definition, "x")?;
    server.kubectl(&["wait", "--for=condition=Established", "customresourcedefinition/carts.shop.example"])?;
    create(&json!({ "apiVersion": "shop.example/v1beta1", "kind": "Cart", "metadata": { "name": "s17-cart" } }), "x")
}

/// Asks as a service account, which is made first.
fn asks(server: &Server, namespace: &str, account: &str, path: &str) -> Result<()> {
    let token = account_token(server, namespace, account)?;
    let of = format!("--serviceaccount={namespace}:{account}");
    server.kubectl(&["create", "clusterrolebinding", account, "--clusterrole=cluster-admin", &of])?;
    server.kubectl(&[&format!("--token={token}"), "get", "--raw", path])?;
    Ok(())
}

fn account_token(server: &Server, namespace: &str, account: &str) -> Result<String> {
    server.kubectl(&["create", "serviceaccount", account, "-n", namespace])?;
    server.kubectl(&["create", "token", account, "-n", namespace])
}

/// S18: who may list nothing learns nothing, and is told so.
fn forbidden(shiplock: &Path, server: &Server, folder: &Path) -> Result<()> {
    let token = account_token(server, NAMESPACE, "limited")?;
    let mut kubeconfig: Value = serde_json::from_str(&fs::read_to_string(server.kubeconfig())?)?;
    kubeconfig["users"][0]["user"] = json!({ "token": token });
    let path = folder.join("limited");
    fs::write(&path, kubeconfig.to_string())?;
    let words = ["--kubeconfig", &path.to_string_lossy(), "--to", "1.37", "--only", "API-003,API-005"];
    let unseen = ["IPAddress", "ServiceCIDR", "VolumeAttributesClass"];
    let unseen = unseen.map(|kind| format!("unknown API-003 not-seen {kind} "));
    let unseen: Vec<&str> = unseen.iter().map(String::as_str).chain(["unknown API-005 not-seen Cluster "]).collect();
    compare("S18: whoever may list nothing", &check(shiplock, &words)?, 4, &unseen)
}

/// What a TLS server shows, or does.
#[derive(Clone, Copy)]
enum Shows {
    /// A certificate with these alternative names, from and until days from now, signed with this digest; and options of
    /// the server.
    Certificate(&'static str, [i64; 2], &'static str, &'static [&'static str]),
    /// One that no authority signed.
    SelfSigned(&'static str),
    /// Text that is no TLS.
    Text,
    /// Nothing, for ever.
    Nothing,
    /// Nobody listens.
    Nobody,
}
use Shows::{Certificate, Nobody, Nothing, SelfSigned, Text};

const LASTING: [i64; 2] = [-1, 365];
const HOST: &str = "DNS:localhost";
/// Ciphers and digests that are refused by default.
const WEAK: &[&str] = &["-cipher", "DEFAULT@SECLEVEL=0"];
const TLS10: &[&str] = &["-tls1", "-cipher", "DEFAULT@SECLEVEL=0"];

/// Name of the vector and of its configuration, what is shown, whose authority `caBundle` is, failurePolicy, what must be said.
type Vector = (&'static str, Shows, &'static str, &'static str, &'static [&'static str]);

const VECTORS: &[Vector] = &[
    ("well", Certificate(HOST, LASTING, "sha256", &[]), "authority", "Fail", &[]),
    ("address", Certificate("IP:127.0.0.1", LASTING, "sha256", &[]), "authority", "Fail", &[]),
    ("self-signed", SelfSigned(HOST), "itself", "Fail", &[]),
    ("common-name-only", Certificate("", LASTING, "sha256", &[]), "authority", "Fail", &["fail WHK-001 no-san"]),
    ("other-name", Certificate("DNS:other", LASTING, "sha256", &[]), "authority", "Fail", &["fail WHK-001 wrong-san"]),
    (
        "wildcard",
        Certificate("DNS:*.localhost", LASTING, "sha256", &[]),
        "authority",
        "Fail",
        &["fail WHK-001 wrong-san"],
    ),
    (
        "an-address",
        Certificate("IP:127.0.0.1", LASTING, "sha256", &[]),
        "authority",
        "Fail",
        &["fail WHK-001 wrong-san"],
    ),
    ("expired", Certificate(HOST, [-9, -2], "sha256", &[]), "authority", "Fail", &["fail WHK-002 ended"]),
    ("expired-ignored", Certificate(HOST, [-9, -2], "sha256", &[]), "authority", "Ignore", &["warn WHK-002 ended"]),
    ("not-yet-valid", Certificate(HOST, [2, 365], "sha256", &[]), "authority", "Fail", &["fail WHK-002 not-yet"]),
    ("ends-soon", Certificate(HOST, [-1, 9], "sha256", &[]), "authority", "Fail", &["warn WHK-002 soon"]),
    ("other-authority", Certificate(HOST, LASTING, "sha256", &[]), "other", "Fail", &["fail WHK-003 untrusted"]),
    ("self-signed-untrusted", SelfSigned(HOST), "authority", "Fail", &["fail WHK-003 untrusted"]),
    ("no-bundle", Certificate(HOST, LASTING, "sha256", &[]), "", "Fail", &["unknown WHK-003 not-seen"]),
    ("sha1", Certificate(HOST, LASTING, "sha1", WEAK), "authority", "Fail", &["fail WHK-004 signed"]),
    ("tls-1.0", Certificate(HOST, LASTING, "sha256", TLS10), "authority", "Fail", &["fail WHK-001 no-handshake"]),
    ("plain-text", Text, "authority", "Fail", &["fail WHK-001 no-handshake"]),
    ("hangs", Nothing, "authority", "Fail", &["fail WHK-001 no-handshake"]),
    ("nobody", Nobody, "authority", "Fail", &["unknown WHK-001 not-seen", "unknown WHK-002 not-seen"]),
];

/// Webhooks at addresses of this machine, each with a fault, beside those that are well.
fn tls(shiplock: &Path, server: &Server, folder: &Path) -> Result<()> {
    let (authority, other) = (Authority::make(folder, "authority")?, Authority::make(folder, "other")?);
    let mut listeners = Vec::new();
    let mut expected = Vec::new();
    for (name, shows, trusts, policy, said) in VECTORS {
        let (listener, certificate) = Listener::start(&authority, name, *shows)?;
        let bundle = match *trusts {
            "authority" => fs::read(authority.certificate())?,
            "other" => fs::read(other.certificate())?,
            "itself" => fs::read(&certificate)?,
            _ => Vec::new(),
        };
        let host = if *name == "address" { "127.0.0.1" } else { "localhost" };
        let mut client = json!({ "url": format!("https://{host}:{}/validate", listener.port) });
        if !bundle.is_empty() {
            client["caBundle"] = json!(STANDARD.encode(bundle));
        }
        let webhook = json!({ "name": "hook.shop.example", "clientConfig": client, "failurePolicy": policy,
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
            "rules": [{ "apiGroups": ["nobody.example"], "apiVersions": ["v1"], "resources": ["things"], "operations": ["CREATE"] }] });
        let configuration = json!({ "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration", "metadata": { "name": name }, "webhooks": [webhook] });
        server.kubectl_with(&["create", "-f", "-"], &configuration)?;
        expected.extend(said.iter().map(|said| format!("{said} ValidatingWebhookConfiguration {name}")));
        listeners.push(listener);
    }
    let kubeconfig = server.kubeconfig().to_string_lossy().into_owned();
    let words = ["--kubeconfig", &kubeconfig, "--to", "1.37", "--only", "WHK-001,WHK-002,WHK-003"];
    let sha1 = ["--kubeconfig", &kubeconfig, "--to", "1.37", "--only", "WHK-004"];
    let that =
        |holds: fn(&str) -> bool| expected.iter().map(String::as_str).filter(|line| holds(line)).collect::<Vec<_>>();
    let of_names = that(|line| !line.contains("WHK-004"));
    // Where no certificate was seen that is told too: nothing is known of its digest.
    let of_digests =
        that(|line| line.contains("WHK-004") || line.contains("no-handshake") || line.contains("unknown WHK-001"));
    compare("certificates of webhooks", &check(shiplock, &words)?, 3, &of_names)?;
    compare("certificates signed with SHA-1", &check(shiplock, &sha1)?, 3, &of_digests)
}

/// A certificate authority of `openssl ca`, which alone can write both ends of a certificate.
struct Authority {
    folder: PathBuf,
}

impl Authority {
    fn make(folder: &Path, name: &str) -> Result<Self> {
        let folder = folder.join(name);
        fs::create_dir_all(&folder)?;
        let path = folder.display();
        fs::write(folder.join("index.txt"), "")?;
        fs::write(folder.join("index.txt.attr"), "unique_subject = no\n")?;
        let text = format!(
            "[ca]\ndefault_ca = own\n[own]\ndatabase = {path}/index.txt\nnew_certs_dir = {path}\nrand_serial = yes\n\
             certificate = {path}/ca.pem\nprivate_key = {path}/ca.key\npolicy = any\ndefault_md = sha256\n\
             [any]\ncommonName = supplied\n"
        );
        fs::write(folder.join("ca.conf"), text)?;
        let made = Self { folder };
        self_signed(&format!("/CN={name}"), "3650", &[], &made.path("ca.key"), &made.certificate())?;
        Ok(made)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn certificate(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// Signs a certificate; its path and that of its key.
    fn sign(&self, name: &str, names: &str, [from, until]: [i64; 2], digest: &str) -> Result<[PathBuf; 2]> {
        let [request, key, certificate, extensions] =
            ["csr", "key", "pem", "ext"].map(|kind| self.path(&format!("{name}.{kind}")));
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let key_path = text(&key);
        openssl(&[
            "req",
            "-new",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-keyout",
            &key_path,
            "-out",
            &text(&request),
        ])?;
        let alternative = if names.is_empty() { String::new() } else { format!("subjectAltName = {names}\n") };
        fs::write(&extensions, format!("basicConstraints = CA:FALSE\n{alternative}"))?;
        let now = jiff::Timestamp::now();
        let day = |days: i64| -> Result<String> {
            Ok((now + jiff::SignedDuration::from_hours(24 * days)).strftime("%Y%m%d%H%M%SZ").to_string())
        };
        let configuration = text(&self.path("ca.conf"));
        let (request, certificate_path, extensions) = (text(&request), text(&certificate), text(&extensions));
        let (from, until) = (day(from)?, day(until)?);
        openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-config",
            &configuration,
            "-in",
            &request,
            "-out",
            &certificate_path,
            "-extfile",
            &extensions,
            "-startdate",
            &from,
            "-enddate",
            &until,
            "-md",
            digest,
        ])?;
        Ok([certificate, key])
    }
}

/// A new key and a certificate that it signs itself.
fn self_signed(subject: &str, days: &str, options: &[&str], key: &Path, certificate: &Path) -> Result<()> {
    let (key, certificate) = (key.to_string_lossy(), certificate.to_string_lossy());
    let request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-days", days];
    openssl(&[&request, options, &["-keyout", &key, "-out", &certificate]].concat())
}

fn openssl(words: &[&str]) -> Result<()> {
    let output = Command::new("openssl").args(words).stdin(Stdio::null()).output().context("openssl")?;
    ensure!(output.status.success(), "openssl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What listens on a port, until it is dropped.
struct Listener {
    port: u16,
    child: Option<Child>,
}

impl Listener {
    fn start(authority: &Authority, name: &str, shows: Shows) -> Result<(Self, PathBuf)> {
        let port = free_port()?;
        match shows {
            Certificate(names, lasting, digest, options) => {
                let [certificate, key] = authority.sign(name, names, lasting, digest)?;
                return Self::serve(port, certificate, &key, options);
            }
            SelfSigned(names) => {
                let [certificate, key] = ["pem", "key"].map(|kind| authority.path(&format!("{name}.{kind}")));
                let names = format!("subjectAltName = {names}");
                self_signed("/CN=localhost", "365", &["-addext", &names], &key, &certificate)?;
                return Self::serve(port, certificate, &key, &[]);
            }
            Text | Nothing | Nobody => {}
        }
        if !matches!(shows, Nobody) {
            let listener = TcpListener::bind(("127.0.0.1", port))?;
            // It lasts as long as this program.
            std::thread::spawn(move || {
                let mut kept = Vec::new();
                for mut stream in listener.incoming().flatten() {
                    if matches!(shows, Text) {
                        let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\n\r\n");
                    }
                    kept.push(stream);
                }
            });
        }
        Ok((Self { port, child: None }, PathBuf::new()))
    }

    fn serve(port: u16, certificate: PathBuf, key: &Path, options: &[&str]) -> Result<(Self, PathBuf)> {
        let child = Command::new("openssl")
            .args(["s_server", "-quiet", "-accept", &format!("127.0.0.1:{port}"), "-cert"])
            .arg(&certificate)
            .arg("-key")
            .arg(key)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("openssl s_server cannot be started")?;
        let listener = Self { port, child: Some(child) };
        wait("a TLS server", || Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()))?;
        Ok((listener, certificate))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Compares what was said with what is true: every line, no other, and the exit code.
fn compare(what: &str, said: &Said, exit: i32, expected: &[&str]) -> Result<()> {
    let findings = said.report["findings"].as_array().context("findings")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let found: BTreeSet<String> = findings
        .iter()
        .map(|one| {
            let (subject, words) = (&one["subject"], ["outcome", "check", "sentence"].map(|name| text(&one[name])));
            format!("{} {} {}", words.join(" "), text(&subject["kind"]), text(&subject["name"]))
        })
        .collect();
    let expected: BTreeSet<String> = expected.iter().map(|line| (*line).to_owned()).collect();
    let right = found.intersection(&expected).count();
    println!("  {what}: {right} of {} said, {} besides, exit code {}", expected.len(), found.len() - right, said.exit);
    for line in found.symmetric_difference(&expected) {
        println!("    {} {line}", if found.contains(line) { "said besides:" } else { "not said:" });
    }
    ensure!(found == expected && said.exit == exit, "{what}: not as it is");
    Ok(())
}
