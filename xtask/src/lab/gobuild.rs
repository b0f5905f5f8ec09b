//! Building programs from published Go modules.
//!
//! `go install module/cmd@version` refuses modules with `replace` lines, and all of Kubernetes,
//! etcd and CoreDNS have some. So each build gets a go.mod of its own that requires the module,
//! and a file that imports the wanted main packages. Kubernetes needs more: its staging
//! repositories are replaced by their published versions, and every other requirement is copied,
//! or `go mod tidy` would pick newer ones.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::home::{Home, remove, temporary};
use super::process::{command, run, say};
use super::versions::{CNI, CONTAINERD, HELM, Release};

/// The commands of one Kubernetes release.
pub(crate) const KUBERNETES_COMMANDS: &[&str] =
    &["kubeadm", "kubelet", "kubectl", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"];

/// One or more programs of one module version.
#[derive(Debug)]
pub(crate) struct GoBuild {
    /// Name of the folder in `bin/`, with `version` appended.
    name: &'static str,
    version: String,
    module: String,
    /// Main package and the name of the program.
    packages: Vec<(String, String)>,
    linker_flags: String,
    tags: &'static str,
    /// Whether the module lives with staging repositories.
    kubernetes: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GoMod {
    go: String,
    #[serde(default)]
    require: Option<Vec<Requirement>>,
    #[serde(default)]
    replace: Option<Vec<Replacement>>,
    #[serde(default)]
    exclude: Option<Vec<Requirement>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Requirement {
    path: String,
    #[serde(default)]
    version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Replacement {
    old: Requirement,
    new: Requirement,
}

/// Everything that a release needs and that is written in Go, the slowest first.
pub(crate) fn builds_of(release: &Release) -> Vec<GoBuild> {
    vec![kubernetes(release), etcd(release, "server", "etcd"), coredns(release)]
}

/// What is needed once, whatever the release.
pub(crate) fn common_builds() -> Vec<GoBuild> {
    let plugins = "github.com/containernetworking/plugins";
    let containerd = "github.com/containerd/containerd/v2";
    let plugin = |path: &str| (format!("{plugins}/plugins/{path}"), path.rsplit('/').next().unwrap_or(path).to_owned());
    let program = |name: &str| (format!("{containerd}/cmd/{name}"), name.to_owned());
    vec![
        GoBuild {
            name: "cni-plugins",
            version: CNI.into(),
            module: plugins.into(),
            packages: ["main/bridge", "main/ptp", "main/loopback", "ipam/host-local", "meta/portmap"]
                .map(plugin)
                .into(),
            linker_flags: format!("-X {plugins}/pkg/utils/buildversion.BuildVersion=v{CNI}"),
            tags: "",
            kubernetes: false,
        },
        GoBuild {
            name: "containerd",
            version: CONTAINERD.into(),
            module: containerd.into(),
            packages: ["containerd", "containerd-shim-runc-v2", "ctr"].map(program).into(),
            linker_flags: format!("-X {containerd}/version.Version=v{CONTAINERD} -X {containerd}/version.Revision=lab"),
            tags: "no_btrfs no_devmapper no_zfs no_aufs",
            kubernetes: false,
        },
    ]
}

/// Programs that only measurements and comparisons need: Helm, whose releases the pre-check reads.
pub(crate) fn helm_builds() -> Vec<GoBuild> {
    HELM.iter()
        .map(|version| {
            let module = format!("helm.sh/helm/v{}", version.split('.').next().unwrap_or_default());
            GoBuild {
                name: "helm",
                version: (*version).into(),
                packages: vec![(format!("{module}/cmd/helm"), "helm".to_owned())],
                module,
                linker_flags: String::new(),
                tags: "",
                kubernetes: false,
            }
        })
        .collect()
}

fn kubernetes(release: &Release) -> GoBuild {
    let version = release.kubernetes;
    let minor = release.minor.rsplit('.').next().unwrap_or_default();
    let mut flags = String::new();
    // Without the stamp kubeadm takes itself for v0.0.0.
    for package in ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"] {
        for (name, value) in [
            ("gitVersion", format!("v{version}")),
            ("gitMajor", "1".to_owned()),
            ("gitMinor", minor.to_owned()),
            ("gitCommit", "lab".to_owned()),
            ("gitTreeState", "clean".to_owned()),
            ("buildDate", "2026-01-01T00:00:00Z".to_owned()),
        ] {
            let _ = write!(flags, "-X {package}.{name}={value} ");
        }
    }
    let package = |name: &&str| (format!("k8s.io/kubernetes/cmd/{name}"), (*name).to_owned());
    GoBuild {
        name: "kubernetes",
        version: version.into(),
        module: "k8s.io/kubernetes".into(),
        packages: KUBERNETES_COMMANDS.iter().map(package).collect(),
        linker_flags: flags,
        tags: "",
        kubernetes: true,
    }
}

/// etcd is three modules of one version; each is its own build into the same folder.
fn etcd(release: &Release, part: &str, program: &str) -> GoBuild {
    let module = format!("go.etcd.io/etcd/{part}/v3");
    GoBuild {
        name: "etcd",
        version: release.etcd.into(),
        packages: vec![(module.clone(), program.to_owned())],
        module,
        linker_flags: String::new(),
        tags: "",
        kubernetes: false,
    }
}

fn coredns(release: &Release) -> GoBuild {
    let module = "github.com/coredns/coredns";
    GoBuild {
        name: "coredns",
        version: release.coredns.into(),
        module: module.into(),
        packages: vec![(module.into(), "coredns".into())],
        linker_flags: String::new(),
        tags: "",
        kubernetes: false,
    }
}

impl GoBuild {
    /// Builds into `bin/NAME-VERSION` unless that is there.
    pub(crate) fn run(&self, home: &Home) -> Result<()> {
        home.make(&home.bin(self.name, &self.version), |folder| {
            fs::create_dir_all(folder)?;
            self.programs(home, folder)?;
            if self.name == "etcd" {
                let release = super::versions::RELEASES.iter().find(|release| release.etcd == self.version);
                let release = release.context("an etcd that belongs to no release")?;
                etcd(release, "etcdctl", "etcdctl").programs(home, folder)?;
                etcd(release, "etcdutl", "etcdutl").programs(home, folder)?;
            }
            Ok(())
        })
    }

    fn programs(&self, home: &Home, target: &Path) -> Result<()> {
        let work = temporary(home.root(), &self.module.replace('/', "_"));
        fs::create_dir_all(&work)?;
        let result = self.compile(&work, target);
        remove(&work)?;
        result.with_context(|| format!("cannot build {} v{}", self.module, self.version))
    }

    fn compile(&self, work: &Path, target: &Path) -> Result<()> {
        let wanted = format!("{}@v{}", self.module, self.version);
        say(format!("{wanted}: fetching"));
        // Any folder outside a module does; the answer is the path of the module's own go.mod.
        fs::write(work.join("go.mod"), "module lab\n")?;
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Download {
            go_mod: String,
        }
        let download: Download = serde_json::from_str(&run(go(work).args(["mod", "download", "-json", &wanted]))?)?;
        let text = run(go(work).args(["mod", "edit", "-json", &download.go_mod]))?;
        let own: GoMod = serde_json::from_str(&text)?;
        fs::write(work.join("go.mod"), self.go_mod(&own))?;
        let imports: String = self.packages.iter().map(|(package, _)| format!("import _ {package:?}\n")).collect();
        fs::write(work.join("tools.go"), format!("//go:build tools\n\npackage tools\n\n{imports}"))?;
        run(go(work).args(["mod", "tidy"]))?;
        for (package, program) in &self.packages {
            let start = Instant::now();
            run(go(work)
                .args(["build", "-trimpath", "-tags", self.tags, "-ldflags", &format!("-s -w {}", self.linker_flags)])
                .arg("-o")
                .arg(target.join(program))
                .arg(package))?;
            say(format!("{program} v{} built in {:.0} s", self.version, start.elapsed().as_secs_f32()));
        }
        Ok(())
    }

    fn go_mod(&self, own: &GoMod) -> String {
        let mut text = format!("module lab\n\ngo {}\n\nrequire {} v{}\n", own.go, self.module, self.version);
        for excluded in own.exclude.iter().flatten() {
            let _ = writeln!(text, "exclude {} {}", excluded.path, excluded.version);
        }
        if !self.kubernetes {
            return text;
        }
        // v1.36.3 of kubernetes belongs to v0.36.3 of its staging repositories.
        let staging_version = self.version.replacen("1.", "v0.", 1);
        let replaced = own.replace.iter().flatten().filter(|line| line.new.path.starts_with("./staging/"));
        let mut staging: BTreeSet<&str> = replaced.map(|line| line.old.path.as_str()).collect();
        let requirements: Vec<&Requirement> = own.require.iter().flatten().collect();
        staging.extend(requirements.iter().filter(|line| line.version == "v0.0.0").map(|line| line.path.as_str()));
        for line in requirements.iter().filter(|line| !staging.contains(line.path.as_str())) {
            let _ = writeln!(text, "require {} {}", line.path, line.version);
        }
        for name in staging {
            let _ = writeln!(text, "replace {name} => {name} {staging_version}");
        }
        text
    }
}

/// `go` in a folder, static and deaf to the caller's flags.
pub(crate) fn go(folder: &Path) -> Command {
    let mut go = command("go", &[]);
    go.current_dir(folder).env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=mod -buildvcs=false").env("GOWORK", "off");
    go
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_gets_its_staging_repositories_from_the_proxy() {
        let own: GoMod = serde_json::from_str(
            r#"{"Go":"1.26.0",
                "Require":[{"Path":"k8s.io/api","Version":"v0.0.0"},{"Path":"k8s.io/klog/v2","Version":"v2.130.1"}],
                "Replace":[{"Old":{"Path":"k8s.io/api"},"New":{"Path":"./staging/src/k8s.io/api"}}]}"#,
        )
        .unwrap();
        let text = kubernetes(Release::find("1.36").unwrap()).go_mod(&own);
        assert!(text.contains("require k8s.io/kubernetes v1.36.3\n"));
        assert!(text.contains("replace k8s.io/api => k8s.io/api v0.36.3\n"));
        assert!(text.contains("require k8s.io/klog/v2 v2.130.1\n"));
        assert!(!text.contains("require k8s.io/api "));
    }
}
