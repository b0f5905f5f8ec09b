//! Scenario `precheck`: who writes live objects through a version that goes away, on a real API server.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::lab::{Lab, UpOptions};

const OLD: &str = "storage.k8s.io/v1beta1";
const NEW: &str = "storage.k8s.io/v1";
const BOUND: Duration = Duration::from_secs(180);

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    lab.up(&UpOptions { workers: 1, from: "1.36".to_owned(), ..UpOptions::default() })?;
    serve_beta(lab)?;
    write_objects(lab)?;
    let found = check(&lab.kubeconfig_path().to_string_lossy(), &["--only", "API"])?;
    let expected: BTreeSet<String> = [
        "warn API-002 by-client-side-apply",
        "warn API-002 by-server-side-apply",
        "warn API-004 only-annotation",
        "unknown API-003 by-nobody",
        "warn API-008 of storage.k8s.io/v1beta1 volumeattributesclasses",
    ]
    .map(str::to_owned)
    .into();
    ensure!(found.1 == expected, "found {:#?}", found.1);
    ensure!(found.0 == 4, "exit code {}", found.0);

    // The scanner itself must leave no trace that it takes for a client's the next time.
    let again = check(&lab.kubeconfig_path().to_string_lossy(), &["--only", "API"])?;
    ensure!(again == found, "a second run found {:#?}", again.1);

    let limited = limited_kubeconfig(lab)?;
    let (exit, found) = check(&limited.to_string_lossy(), &["--only", "API-005,WL-009"])?;
    std::fs::remove_file(&limited)?;
    ensure!(exit == 4 && found.iter().any(|one| one.starts_with("unknown API-005")), "exit {exit}, {found:?}");
    Ok(())
}

/// Lets the API server serve the old version, which it does not by itself.
fn serve_beta(lab: &Lab) -> Result<()> {
    let edit = format!("s|^    - kube-apiserver$|&\\n    - --runtime-config={OLD}=true|");
    lab.exec_text("m1", &["sed", "-i", &edit, "/etc/kubernetes/manifests/kube-apiserver.yaml"])?;
    let begun = Instant::now();
    while !lab.kubectl(&["api-versions"]).is_ok_and(|versions| versions.lines().any(|line| line == OLD)) {
        ensure!(begun.elapsed() < BOUND, "the API server does not serve {OLD}");
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

fn class(name: &str, api_version: &str, round: &str) -> Value {
    json!({ "apiVersion": api_version, "kind": "VolumeAttributesClass",
        "metadata": { "name": name, "labels": { "round": round } }, "driverName": "example.com", "parameters": { "a": "b" } })
}

fn write_objects(lab: &Lab) -> Result<()> {
    let server_side = ["apply", "--server-side", "--field-manager=flux"];
    kubectl(lab, &["apply"], &class("by-client-side-apply", OLD, "1"))?;
    kubectl(lab, &["apply", "--server-side", "--field-manager=argocd"], &class("by-server-side-apply", OLD, "1"))?;
    kubectl(lab, &["apply"], &class("stale-annotation", OLD, "1"))?;
    kubectl(lab, &["create", "--field-manager=x"], &class("migrated", OLD, "1"))?;
    kubectl(lab, &server_side, &class("migrated-by-apply", OLD, "1"))?;
    kubectl(lab, &["apply"], &class("clean", NEW, "1"))?;
    // Times in managedFields have whole seconds: what comes later must be later there too.
    let begun = written_at(lab, "migrated-by-apply")?;
    for round in 2.. {
        kubectl(lab, &server_side, &class("migrated-by-apply", NEW, &round.to_string()))?;
        if written_at(lab, "migrated-by-apply")? > begun {
            break;
        }
    }
    let mut stale: Value =
        serde_json::from_str(&lab.kubectl(&["get", "volumeattributesclass", "stale-annotation", "-o", "json"])?)?;
    stale["metadata"]["labels"]["round"] = json!("2");
    kubectl(lab, &["replace", "--field-manager=kubectl-client-side-apply"], &stale)?;
    kubectl(lab, &["replace", "--field-manager=x"], &class("migrated", NEW, "2"))?;
    let annotated = "kapp.k14s.io/original={\"apiVersion\":\"storage.k8s.io/v1beta1\"}";
    for name in ["only-annotation", "by-nobody"] {
        kubectl(lab, &["create"], &class(name, NEW, "1"))?;
        if name == "only-annotation" {
            lab.kubectl(&["annotate", "volumeattributesclass", name, annotated])?;
        }
        let forget = "[{\"op\":\"replace\",\"path\":\"/metadata/managedFields\",\"value\":[{}]}]";
        lab.kubectl(&["patch", "volumeattributesclass", name, "--type=json", "-p", forget])?;
    }
    Ok(())
}

/// The newest time in the managed fields of a class.
fn written_at(lab: &Lab, name: &str) -> Result<String> {
    let text = lab.kubectl(&["get", "volumeattributesclass", name, "-o", "json", "--show-managed-fields"])?;
    let class: Value = serde_json::from_str(&text)?;
    let times = class["metadata"]["managedFields"].as_array().into_iter().flatten();
    Ok(times.filter_map(|entry| entry["time"].as_str()).max().unwrap_or_default().to_owned())
}

fn kubectl(lab: &Lab, words: &[&str], object: &Value) -> Result<()> {
    let mut command = lab.kubectl_command(&[words, &["-f", "-"]].concat())?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("stdin")?.write_all(object.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "kubectl {words:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A kubeconfig of an account that may list pods and nothing else.
fn limited_kubeconfig(lab: &Lab) -> Result<PathBuf> {
    lab.kubectl(&["create", "serviceaccount", "limited"])?;
    lab.kubectl(&["create", "clusterrole", "limited", "--verb=list", "--resource=pods"])?;
    lab.kubectl(&[
        "create",
        "clusterrolebinding",
        "limited",
        "--clusterrole=limited",
        "--serviceaccount=default:limited",
    ])?;
    let token = lab.kubectl(&["create", "token", "limited"])?;
    let whole = lab.kubectl(&["config", "view", "--raw", "--flatten", "-o", "json"])?;
    let mut kubeconfig: Value = serde_json::from_str(&whole)?;
    kubeconfig["users"][0]["user"] = json!({ "token": token.trim() });
    let path = std::env::temp_dir().join(format!("shiplock-limited-{}", std::process::id()));
    std::fs::write(&path, kubeconfig.to_string())?;
    Ok(path)
}

/// The `shiplock` that was built beside this program.
pub(super) fn program() -> Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("shiplock"))
}

/// The exit code, and outcome, check and name of each finding.
pub(super) fn check(kubeconfig: &str, words: &[&str]) -> Result<(i32, BTreeSet<String>)> {
    let program = program()?;
    let output = Command::new(&program)
        .args(["check", "--kubeconfig", kubeconfig, "--to", "1.37", "-o", "json"])
        .args(words)
        .output()
        .with_context(|| format!("{} cannot be started", program.display()))?;
    let report: Value =
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let findings = report["report"]["findings"].as_array().context("findings")?;
    let shown = findings.iter().map(|finding| {
        format!("{} {} {}", text(&finding["outcome"]), text(&finding["check"]), text(&finding["subject"]["name"]))
    });
    Ok((output.status.code().unwrap_or(-1), shown.collect()))
}
