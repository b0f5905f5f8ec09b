//! Scenario `precheck-faults`: what a fresh cluster shows and nothing else; then each fault made for real on nodes and in
//! the cluster is found and named, its remedy works, and the check shows what it showed before.
//!
//! One stand-in: swap cannot be switched on for one node of the lab alone (it is the whole machine's), so that the node
//! sees a `/proc/swaps` with an entry; its kubelet reads the same file.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::control_plane::obstacles::{Listener, apply, register_webhook};
use super::control_plane::old_cluster;
use super::installation::{CLUSTER, Installation};
use crate::lab::Lab;

/// PLEG is called ill after three minutes, and the node condition follows within a minute.
const BOUND: Duration = Duration::from_secs(420);
/// What a fresh cluster of one master and one worker shows, each line with why it is true.
const FRESH: &str = include_str!("golden/fresh-1-1.txt");
const FRESH_THREE: &str = include_str!("golden/fresh-3-2.txt");

/// The scenario.
pub(crate) fn run(lab: &Lab) -> Result<()> {
    old_cluster(lab, 1, 1)?;
    let mut installation = Installation::ready(lab)?;
    settled(lab)?;
    let fresh = found(&installation, &[])?;
    is_golden("1 + 1", &fresh, FRESH)?;
    let fresh = with_source(lab, &installation, fresh)?;
    faults_at_once(lab, &installation, &fresh)?;
    accepted(lab, &installation)?;
    pleg(lab, &mut installation)?;
    agent_stopped(lab, &mut installation)?;
    as_before(&installation, &fresh)?;
    kept(&installation)
}

/// The check shows what it showed of the fresh cluster. A pod that a webhook refused stays counted until the API server
/// starts again.
fn as_before(installation: &Installation<'_>, fresh: &BTreeSet<String>) -> Result<()> {
    let now = found(installation, &[])?;
    let is_counted = |line: &&String| line.starts_with("warn WHK-005 counted-before ApiServer ");
    let left: Vec<_> = now.symmetric_difference(fresh).filter(|line| !is_counted(line)).collect();
    ensure!(left.is_empty(), "after the remedies: {left:#?}");
    Ok(())
}

/// What a fresh cluster of three masters and two workers shows.
pub(crate) fn fresh_three(lab: &Lab) -> Result<()> {
    old_cluster(lab, 3, 2)?;
    let installation = Installation::ready(lab)?;
    settled(lab)?;
    is_golden("3 + 2", &found(&installation, &[])?, FRESH_THREE)
}

/// In its first half minute the pods of a cluster are not ready yet, which is found and is no fault.
fn settled(lab: &Lab) -> Result<()> {
    let ready = ["--namespace=kube-system", "wait", "pods", "--all", "--for=condition=Ready", "--timeout=180s"];
    lab.kubectl(&ready).map(drop)
}

/// Outcome, check, sentence and subject of each finding. How fast etcd's disk is (CP-006) depends on what else the machine
/// does that carries the lab, so that it belongs to no fault and no cluster here.
fn found(installation: &Installation<'_>, words: &[&str]) -> Result<BTreeSet<String>> {
    let output = installation.shiplock(&[&["check", CLUSTER, "--to", "1.36", "-o", "json"], words].concat())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value =
        serde_json::from_str(&text).with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))?;
    let findings = report["report"]["findings"].as_array().with_context(|| format!("no findings in {text}"))?;
    let part = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let line = |finding: &Value| {
        let subject = &finding["subject"];
        let subject = [part(&subject["kind"]), part(&subject["namespace"]), part(&subject["name"])];
        let subject: Vec<String> = subject.into_iter().filter(|word| !word.is_empty()).collect();
        let accepted = if finding["accepted"].is_string() { "accepted " } else { "" };
        let (outcome, check) = (part(&finding["outcome"]), part(&finding["check"]));
        format!("{accepted}{outcome} {check} {} {}", part(&finding["sentence"]), subject.join(" "))
    };
    Ok(findings.iter().filter(|finding| finding["check"] != "CP-006").map(line).collect())
}

/// Each line of a golden file is a finding, and after ` -- ` why it is true of that cluster.
fn is_golden(name: &str, found: &BTreeSet<String>, golden: &str) -> Result<()> {
    let golden: BTreeSet<String> = golden
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split(" -- ").next().unwrap_or_default().to_owned())
        .collect();
    let extra: Vec<_> = found.difference(&golden).collect();
    let missing: Vec<_> = golden.difference(found).collect();
    ensure!(extra.is_empty() && missing.is_empty(), "a fresh {name}: more {extra:#?}, less {missing:#?}");
    eprintln!("  a fresh {name} shows {} findings, as its golden file says", golden.len());
    Ok(())
}

fn on(lab: &Lab, node: &str, script: &str) -> Result<String> {
    lab.exec_text(node, &["sh", "-c", script]).with_context(|| format!("{node}: {script}"))
}

/// The package source of a fresh node is out of its reach. Given one that works, the finding goes, so that it is one of
/// the fault that is made later.
fn with_source(lab: &Lab, installation: &Installation<'_>, fresh: BTreeSet<String>) -> Result<BTreeSet<String>> {
    let source = "mkdir -p /srv/packages && : > /srv/packages/Packages && echo 'deb [trusted=yes] file:/srv/packages ./' > /etc/apt/sources.list";
    on(lab, "m1", source)?;
    let mut expected = fresh;
    ensure!(expected.remove("warn NODE-004 unusable Node m1"), "{expected:#?}");
    let well = found(installation, &[])?;
    ensure!(well == expected, "with a source: {:#?}", well.symmetric_difference(&expected).collect::<Vec<_>>());
    eprintln!("  a package source that works gives no finding");
    Ok(well)
}

/// A fault: what is done, the findings that name it, and the remedy.
struct Fault {
    name: &'static str,
    node: &'static str,
    make: &'static str,
    mend: &'static str,
    finding: &'static str,
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "swap on (a stand-in for /proc/swaps)",
        node: "w1",
        make: "printf 'Filename Type Size Used Priority\\n/swapfile file 1048572 0 -2\\n' > /run/swaps && mount --bind /run/swaps /proc/swaps",
        mend: "umount /proc/swaps",
        finding: "fail NODE-006 refused Node w1",
    },
    Fault {
        name: "kubelet configuration edited by hand",
        node: "w1",
        make: "echo 'maxPods: 99' >> /var/lib/kubelet/config.yaml",
        mend: "sed -i '/^maxPods: 99$/d' /var/lib/kubelet/config.yaml",
        finding: "fail NODE-007 edited Node w1",
    },
    Fault {
        name: "package source broken",
        node: "m1",
        make: "mkdir -p /etc/apt/sources.list.d && echo 'deb http://127.0.0.1:9/debian stable main' > /etc/apt/sources.list.d/broken.list",
        mend: "rm /etc/apt/sources.list.d/broken.list",
        finding: "warn NODE-004 unusable Node m1",
    },
    Fault {
        name: "a disk nearly full",
        node: "w1",
        make: "mkdir -p /var/lib/etcd && mount -t tmpfs -o size=32m tmpfs /var/lib/etcd && head -c 31m /dev/zero > /var/lib/etcd/full",
        mend: "umount /var/lib/etcd && rmdir /var/lib/etcd",
        finding: "fail NODE-008 full Node w1",
    },
    Fault {
        name: "a port of the scheduler in other hands",
        node: "w1",
        make: "perl -MIO::Socket::INET -e 'if (fork) { exit } my $s = IO::Socket::INET->new(Listen => 1, LocalPort => 10259, ReuseAddr => 1) or die; open my $f, \">\", \"/run/foreign.pid\"; print $f $$; close $f; close STDIN; close STDOUT; close STDERR; sleep 3600' && sleep 1",
        mend: "kill $(cat /run/foreign.pid)",
        finding: "fail NODE-020 foreign Node w1",
    },
];

fn objects() -> Value {
    let labels = json!({ "app": "shop" });
    let pod = json!({ "containers": [{ "name": "pause", "image": "registry.k8s.io/pause:3.10.1" }] });
    json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "shop" } },
        { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "cart", "namespace": "shop" },
          "spec": { "replicas": 1, "selector": { "matchLabels": labels },
                    "template": { "metadata": { "labels": labels }, "spec": pod } } },
        { "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": { "name": "cart", "namespace": "shop" },
          "spec": { "maxUnavailable": 0, "selector": { "matchLabels": labels } } },
        { "apiVersion": "v1", "kind": "Service", "metadata": { "name": "cart", "namespace": "shop" },
          "spec": { "type": "NodePort", "externalTrafficPolicy": "Local", "selector": labels,
                    "ports": [{ "port": 80, "targetPort": 80 }] } },
    ] })
}

/// What the objects of the cluster must give.
const OF_OBJECTS: [&str; 3] = [
    "fail WHK-001 no-san ValidatingWebhookConfiguration hook",
    "fail WL-001 never PodDisruptionBudget shop cart",
    "warn NET-001 one-node Service shop cart",
];

fn faults_at_once(lab: &Lab, installation: &Installation<'_>, fresh: &BTreeSet<String>) -> Result<()> {
    apply(lab, &objects())?;
    lab.kubectl(&["--namespace=shop", "wait", "deployment/cart", "--for=condition=Available", "--timeout=120s"])?;
    let (listener, authority) = Listener::start(lab)?;
    register_webhook(lab, &authority)?;
    for fault in FAULTS {
        on(lab, fault.node, fault.make)?;
    }
    let ill = found(installation, &[])?;
    let expected = FAULTS.iter().map(|fault| fault.finding).chain(OF_OBJECTS);
    for line in expected {
        ensure!(ill.contains(line), "`{line}` is not among {ill:#?}");
        eprintln!("  found: {line}");
    }
    // A file with a kind that is long gone needs no cluster at all.
    let manifest = lab.folder().join("psp.yaml");
    fs::write(&manifest, "apiVersion: policy/v1beta1\nkind: PodSecurityPolicy\nmetadata:\n  name: old\nspec: {}\n")?;
    let file = manifest.to_string_lossy();
    for (policy, exit) in [("default", 0), ("strict", 3)] {
        let output = installation.shiplock(&["check", "-f", &file, "--to", "1.36", "--policy", policy])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(text.contains("API-002  policy/v1beta1 PodSecurityPolicy"), "{policy}: {text}");
        ensure!(output.status.code() == Some(exit), "{policy}: {:?}: {text}", output.status);
    }
    for fault in FAULTS {
        on(lab, fault.node, fault.mend).with_context(|| format!("the remedy of: {}", fault.name))?;
    }
    lab.kubectl(&["delete", "validatingwebhookconfiguration/hook"])?;
    lab.kubectl(&["--namespace=default", "delete", "service/hook", "endpointslice/hook-1"])?;
    drop(listener);
    lab.kubectl(&["delete", "namespace", "shop", "--wait=true", "--timeout=120s"])?;
    as_before(installation, fresh)?;
    eprintln!("  after the remedies the check shows what it showed before");
    Ok(())
}

/// A finding is accepted by name, with reason and end.
fn accepted(lab: &Lab, installation: &Installation<'_>) -> Result<()> {
    let fault = &FAULTS[0];
    on(lab, fault.node, fault.make)?;
    let added = installation.json(&[
        "acceptances",
        "add",
        CLUSTER,
        "NODE-006",
        "--subject",
        "Node w1",
        "--reason",
        "a trial",
    ])?;
    let acceptance = added["acceptances"][0]["id"].as_str().context("the acceptance has an id")?.to_owned();
    let found = found(installation, &["--only", "NODE-006"])?;
    ensure!(found.contains("accepted fail NODE-006 refused Node w1"), "{found:#?}");
    installation.ok(&["acceptances", "remove", CLUSTER, &acceptance])?;
    on(lab, fault.node, fault.mend)?;
    eprintln!("  an acceptance by name lets NODE-006 pass");
    Ok(())
}

fn pleg(lab: &Lab, installation: &mut Installation<'_>) -> Result<()> {
    on(lab, "w1", "systemctl kill --kill-whom=main --signal=STOP containerd")?;
    let begun = Instant::now();
    let seen = installation.until("PLEG of w1 is named", BOUND, |installation| {
        let ill = found(installation, &["--only", "NODE"])?;
        Ok(ill.contains("fail NODE-002 pleg Node w1") && ill.contains("fail NODE-017 silent Node w1"))
    });
    on(lab, "w1", "systemctl kill --kill-whom=main --signal=CONT containerd")?;
    seen?;
    eprintln!("  PLEG of w1 was named after {} s", begun.elapsed().as_secs());
    lab.wait_ready("w1", BOUND)?;
    // The kubelet's complaints of the last minutes count too.
    installation.until("PLEG of w1 is well again", BOUND, |installation| {
        Ok(!found(installation, &["--only", "NODE"])?.iter().any(|line| line.contains("NODE-002")))
    })
}

fn agent_stopped(lab: &Lab, installation: &mut Installation<'_>) -> Result<()> {
    on(lab, "w1", "systemctl stop shiplock-agent")?;
    installation.until("the agent of w1 is missed", BOUND, |installation| {
        Ok(found(installation, &["--only", "NODE"])?.contains("fail NODE-003 silent Node w1"))
    })?;
    on(lab, "w1", "systemctl start shiplock-agent")?;
    installation.until("the agent of w1 is back", BOUND, |installation| {
        Ok(!found(installation, &["--only", "NODE"])?.iter().any(|line| line.contains("NODE-003")))
    })?;
    eprintln!("  found: a stopped agent; its restart command works");
    Ok(())
}

/// Reports are kept and compared.
fn kept(installation: &Installation<'_>) -> Result<()> {
    let listed = installation.json(&["reports", "list", CLUSTER])?;
    let reports = listed["reports"].as_array().context("reports are listed")?;
    ensure!(reports.len() > 5, "only {} reports are kept", reports.len());
    let id = |report: &Value| report["id"].as_str().map(str::to_owned).context("a report has an id");
    let (newest, oldest) = (id(&reports[0])?, id(&reports[reports.len() - 1])?);
    let output = installation.shiplock(&["reports", "show", &newest, "--with", &oldest])?;
    let compared = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && compared.contains(&oldest), "the comparison names {oldest}: {compared}");
    eprintln!("  {} reports are kept; the newest is compared with the first", reports.len());
    Ok(())
}
