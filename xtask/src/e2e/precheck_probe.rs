//! Scenario `precheck-probe`: nodes without agents are looked at by pods, which find what agents would find and are gone
//! again, however the command ends.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::precheck::{check, program};
use crate::lab::{Lab, UpOptions};

const BOUND: Duration = Duration::from_secs(60);

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    lab.up(&UpOptions { workers: 1, from: "1.36".to_owned(), ..UpOptions::default() })?;
    let ready = ["--namespace=kube-system", "wait", "pods", "--all", "--for=condition=Ready", "--timeout=180s"];
    lab.kubectl(&ready)?;
    let fresh = probed(lab)?;
    let unseen: Vec<&String> = fresh.iter().filter(|found| found.starts_with("unknown ")).collect();
    ensure!(unseen.is_empty(), "of a fresh cluster a probe does not see {unseen:?}");
    eprintln!("  probes of a fresh cluster find {fresh:?}");

    let fill = "mkdir -p /var/lib/etcd && mount -t tmpfs -o size=32m tmpfs /var/lib/etcd && head -c 31m /dev/zero > /var/lib/etcd/full";
    lab.exec_text("w1", &["sh", "-c", fill])?;
    let found = probed(lab)?;
    let more: Vec<&String> = found.difference(&fresh).collect();
    ensure!(more == ["fail NODE-008 w1"], "with a disk that is nearly full: {more:?}");
    lab.exec_text("w1", &["sh", "-c", "umount /var/lib/etcd && rmdir /var/lib/etcd"])?;
    let mended = probed(lab)?;
    ensure!(mended == fresh, "after the remedy: {:#?}", mended.symmetric_difference(&fresh).collect::<Vec<_>>());
    eprintln!("  a disk that is nearly full is found, and with the remedy it is not");

    swept_on_a_signal(lab)
}

fn probed(lab: &Lab) -> Result<BTreeSet<String>> {
    let words = ["--probe", "--require", "node", "--only", "NODE,WHK-014"];
    let (_, found) = check(&lab.kubeconfig_path().to_string_lossy(), &words)?;
    let left = pods(lab)?;
    ensure!(left.is_empty(), "probes are left: {left}");
    Ok(found)
}

fn pods(lab: &Lab) -> Result<String> {
    let names = ["get", "pods", "--all-namespaces", "-l", "shiplock.dev/probe", "-o", "name"];
    Ok(lab.kubectl(&names)?.trim().to_owned())
}

/// With its kubelet stopped a node's probe does not come to run, so that the command is still at it when the signal comes.
fn swept_on_a_signal(lab: &Lab) -> Result<()> {
    lab.exec_text("w1", &["systemctl", "stop", "kubelet"])?;
    for signal in ["TERM", "INT"] {
        let kubeconfig = lab.kubeconfig_path();
        let mut child = Command::new(program()?)
            .args(["check", "--probe", "--only", "NODE", "--to", "1.37", "--kubeconfig"])
            .arg(&kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("shiplock cannot be started")?;
        let begun = Instant::now();
        while pods(lab)?.is_empty() {
            ensure!(begun.elapsed() < BOUND && child.try_wait()?.is_none(), "no probe comes");
            std::thread::sleep(Duration::from_millis(100));
        }
        let sent = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status()?;
        ensure!(sent.success(), "the signal is not sent");
        let status = child.wait()?;
        ensure!(status.code() == Some(1), "after {signal}: {status}");
        let left = pods(lab)?;
        ensure!(left.is_empty(), "after {signal} probes are left: {left}");
        eprintln!("  after SIG{signal} no probe is left");
    }
    lab.exec_text("w1", &["systemctl", "start", "kubelet"])?;
    Ok(())
}
