//! `check` by somebody who may do almost nothing: against an API server that tells its version and forbids all else.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

/// The words of Kubernetes for what a user may not do.
fn refusal(method: &str, path: &str) -> String {
    let parts: Vec<&str> = path.split('?').next().unwrap().split('/').skip(1).collect();
    let (group, mut rest) = match parts.as_slice() {
        ["api", _, rest @ ..] if !rest.is_empty() => ("", rest),
        ["apis", group, _, rest @ ..] if !rest.is_empty() => (*group, rest),
        _ => return format!("forbidden: User \"dev\" cannot get path \"/{}\"", parts.join("/")),
    };
    let mut place = "at the cluster scope".to_owned();
    if let ["namespaces", namespace, of_it @ ..] = rest
        && !of_it.is_empty()
    {
        (place, rest) = (format!("in the namespace \"{namespace}\""), of_it);
    }
    let verb = match (method, rest.len()) {
        ("POST", _) => "create",
        ("DELETE", 1) => "deletecollection",
        ("GET", 1) => "list",
        _ => "get",
    };
    let resource = rest[0];
    let full = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    format!("{full} is forbidden: User \"dev\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {place}")
}

fn answer(stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
    let words: Vec<&str> = first.split(' ').collect();
    let (status, body) = match words[..] {
        ["GET", "/version", _] => {
            let names = ["gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform"];
            let mut version: Value = names.iter().map(|name| ((*name).to_owned(), json!(""))).collect();
            (version["major"], version["minor"], version["gitVersion"]) = (json!("1"), json!("36"), json!("v1.36.3"));
            ("200 OK", version)
        }
        [method, path, _] => {
            let message = refusal(method, path);
            let body = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 403,
                "reason": "Forbidden", "message": message });
            ("403 Forbidden", body)
        }
        _ => return Ok(()),
    };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}", body.len());
    reader.get_mut().write_all(format!("{head}\r\nconnection: close\r\n\r\n{body}").as_bytes())
}

/// Runs the check against such an API server, which ends with the test.
fn check(folder: &Path, words: &[&str]) -> Output {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Who asked may have gone.
            std::thread::spawn(move || stream.and_then(answer));
        }
    });
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{ "name": "x", "cluster": { "server": server } }],
        "users": [{ "name": "x", "user": { "token": "t" } }],
        "contexts": [{ "name": "x", "context": { "cluster": "x", "user": "x" } }],
    });
    std::fs::write(folder.join("kubeconfig"), kubeconfig.to_string()).unwrap();
    Command::new(env!("CARGO_BIN_EXE_shiplock"))
        .args(["check", "--kubeconfig", "kubeconfig", "--progress", "none"])
        .args(words)
        .env("XDG_CACHE_HOME", folder)
        .env("PATH", folder)
        .current_dir(folder)
        .output()
        .unwrap()
}

#[test]
fn a_probe_that_is_forbidden_leaves_the_checks_of_nodes_unknown_and_the_rest_of_the_report_there() {
    let folder = tempfile::tempdir().unwrap();
    let output = check(folder.path(), &["--probe", "-o", "json"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["report"]["findings"].as_array().unwrap();
    let unknown = |check: &str| {
        let of_it: Vec<&Value> = findings.iter().filter(|finding| finding["check"] == check).collect();
        of_it.len() == 1
            && of_it[0]["outcome"] == "unknown"
            && of_it[0]["parameters"]["why"].as_str().unwrap().contains("cannot list resource \"nodes\"")
    };
    for check in ["NODE-006", "NODE-009", "NODE-012", "CP-008", "CP-009", "NODE-001"] {
        assert!(unknown(check), "{check}: {findings:#?}");
    }
    assert_eq!(report["report"]["skipped"]["NODE-004"], "scope:agent");
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("shiplock.dev/probe=") && !told.contains("delete"), "no pod was made: {told}");
}

#[test]
fn who_may_do_almost_nothing_reads_each_refusal_once_and_one_fix() {
    let folder = tempfile::tempdir().unwrap();
    let output = check(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.matches("dev may not list poddisruptionbudgets.policy\n").count(), 1, "{text}");
    assert_eq!(text.matches("shiplock cluster role | kubectl apply -f -").count(), 1, "{text}");
    assert!(text.lines().count() < 100, "{} lines:\n{text}", text.lines().count());
}
