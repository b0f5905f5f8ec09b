//! Releases made by real Helm 3 and 4, in Secrets and in ConfigMaps, read by the pre-check.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use super::check;
use super::server::Server;
use crate::lab::gobuild::helm_builds;
use crate::lab::home::Home;
use crate::lab::versions::HELM;

const OLD: &str = "storage.k8s.io/v1beta1";
const NEW: &str = "storage.k8s.io/v1";

/// Installs, upgrades and breaks releases; what is found must be what is true.
pub(super) fn measure(shiplock: &Path, folder: &Path) -> Result<()> {
    let home = Home::open()?;
    for build in helm_builds() {
        build.run(&home)?;
    }
    let server = Server::start(&folder.join("helm-server"), "1.36", &["--runtime-config=storage.k8s.io/v1beta1=true"])?;
    let kubeconfig = server.kubeconfig();
    let charts = folder.join("charts");
    let mut expected = BTreeSet::new();
    for (index, version) in HELM.iter().enumerate() {
        let program = home.bin("helm", version).join("helm");
        let helm = |driver: &str, words: &[&str]| -> Result<Output> {
            Ok(Command::new(&program)
                .args(words)
                .env("KUBECONFIG", &kubeconfig)
                .env("HELM_DRIVER", driver)
                .env("HOME", folder)
                .output()?)
        };
        let done = |driver: &str, words: &[&str]| -> Result<()> {
            let output = helm(driver, words)?;
            ensure!(output.status.success(), "helm {version} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        };
        let name = |what: &str| format!("{what}-{index}");
        let chart = |name: &str, api_version: &str, more: &str| chart(&charts, name, api_version, more);
        // Deployed with the version that goes.
        let deployed = name("deployed");
        done("secret", &["install", &deployed, &chart(&deployed, OLD, "")?])?;
        expected.insert(format!("API-002 {deployed}"));
        // The same in a ConfigMap.
        let in_map = name("in-map");
        done("configmap", &["install", &in_map, &chart(&in_map, OLD, "")?])?;
        expected.insert(format!("API-002 {in_map}"));
        // Moved to the version that stays: what was before does not count, nor does the object itself.
        let moved = name("moved");
        done("secret", &["install", &moved, &chart(&moved, NEW, "")?])?;
        done("secret", &["upgrade", &moved, &chart(&moved, NEW, "# changed\n")?])?;
        // A revision that failed brings the version that goes: its other object is refused.
        let failed = name("failed");
        done("secret", &["install", &failed, &chart(&failed, NEW, "")?])?;
        let broken = "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: Not_A_Name\n---\napiVersion: storage.k8s.io/v1beta1\nkind: VolumeAttributesClass\nmetadata:\n  name: never\ndriverName: x\nparameters: {a: b}\n";
        let refused = helm("secret", &["upgrade", &failed, &chart(&failed, NEW, broken)?])?;
        ensure!(!refused.status.success(), "helm {version} took a name that no ConfigMap can have");
        expected.insert(format!("API-005 {failed}"));
    }
    let arguments =
        ["--kubeconfig", &kubeconfig.to_string_lossy(), "--to", "1.37", "--only", "API", "--skip", "API-008"];
    let said = check(shiplock, &arguments)?;
    let findings = said.report["findings"].as_array().context("findings")?;
    let found: BTreeSet<String> = findings
        .iter()
        .map(|finding| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            format!("{} {}", text(&finding["check"]), text(&finding["subject"]["name"]))
        })
        .collect();
    println!(
        "  releases of Helm {}: {} of {} found, {} false",
        HELM.join(" and "),
        found.intersection(&expected).count(),
        expected.len(),
        found.difference(&expected).count()
    );
    ensure!(found == expected, "found {found:#?}, not {expected:#?}");
    Ok(())
}

/// Writes a chart with one cluster-wide object of a version.
fn chart(charts: &Path, name: &str, api_version: &str, more: &str) -> Result<String> {
    let root = charts.join(name);
    std::fs::create_dir_all(root.join("templates"))?;
    std::fs::write(root.join("Chart.yaml"), format!("apiVersion: v2\nname: {name}\nversion: 1.0.0\n"))?;
    let text = format!(
        "apiVersion: {api_version}\nkind: VolumeAttributesClass\nmetadata:\n  name: {{{{ .Release.Name }}}}\ndriverName: x\nparameters: {{a: b}}\n{more}"
    );
    std::fs::write(root.join("templates/class.yaml"), text)?;
    Ok(root.to_string_lossy().into_owned())
}
