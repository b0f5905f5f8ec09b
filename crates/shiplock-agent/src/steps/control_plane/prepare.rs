//! Everything that can be done ahead of the swap, and everything that can refuse it: space, images, edits by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::size::readable_bytes;
use shiplock_core::step::{ControlPlaneMethod, Emulation};
use shiplock_core::version::MinorVersion;

use super::Master;
use super::back::placed_beside;
use crate::backup::Backup;
use crate::control_plane::kubeadm::{self, ClusterConfiguration, Rendering};
use crate::control_plane::manifest::{self, Manifest};
use crate::control_plane::{certificates, written};
use crate::files;
use crate::host::Host;
use crate::steps::{Failure, kubelet, with_role};
use crate::swap::SwapPlan;

/// Left free on every file system that is written to.
const RESERVE_BYTES: u64 = 64 << 20;
/// kubeadm keeps copies there, where it is.
const KUBEADM_COPIES: &str = "/etc/kubernetes/tmp";

/// Manifests as texts.
pub(super) struct Texts {
    pub(super) rendered: BTreeMap<ControlPlaneComponent, String>,
    pub(super) in_force: BTreeMap<ControlPlaneComponent, String>,
    configuration: ClusterConfiguration,
}

impl<H: Host> Master<'_, H> {
    /// Makes everything ready, until one swap is all that is left; writes its plan last.
    pub(super) async fn prepare(&self) -> Result<(), Failure> {
        let step = self.step;
        let targets = if self.has_kubelet() { kubelet::targets(step, &self.upgrade.files).await? } else { Vec::new() };
        self.check_space(targets.iter().map(|(_, target)| target.as_path()))?;
        self.remove_older();
        let by_kubeadm = self.upgrade.method == ControlPlaneMethod::Kubeadm;
        let texts = self.render().await?;
        let differing = self.differing(&texts.rendered, &texts.in_force);
        let old = self.old();
        // With a copy of the old, this attempt has looked before, and what is in force may be half new.
        if Backup::find(&old).is_none() {
            self.check_downgrade(&texts)?;
            self.check_hand_edits(&texts, &differing).await?;
            self.ground.check_admission().await?;
        }

        let mut kept: Vec<PathBuf> = targets.iter().map(|(_, target)| target.clone()).collect();
        let mut flags = None;
        if self.has_kubelet() {
            kept.push(step.host.at(kubelet::CONFIGURATION));
            flags = kubelet::accepted_flags(step, self.upgrade.version.release);
            kept.extend(flags.iter().map(|_| step.host.at(kubelet::FLAGS)));
        }
        kept.extend(differing.iter().map(|component| step.host.at(&manifest::path(*component))));
        Backup::take_beside(&old, &kept).map_err(|error| step.unusable(&old, "written", &error))?;

        let (mut binaries, mut placed) = (Vec::new(), Vec::new());
        for (artefact, target) in &targets {
            let staged = step.tool(artefact).await?;
            let binary =
                placed_beside(step, &staged, target).map_err(|error| step.unusable(target, "placed", &error))?;
            binaries.push(binary);
        }
        if by_kubeadm {
            step.permit("apply").await;
            self.ground.guard(false).await?;
            step.progress("applying");
            self.apply().await?;
        } else {
            if self.has_kubelet() || self.upgrade.renew_certificates {
                step.permit("configure").await;
                step.progress("configuring");
                self.configure(&texts).await?;
            }
            if let Some(flags) = &flags {
                kubelet::write_flags(step, flags)?;
            }
            for component in &differing {
                let (Some(text), target) = (texts.rendered.get(component), step.host.at(&manifest::path(*component)))
                else {
                    continue;
                };
                let place = files::write_beside(text, &target, 0o600)
                    .map_err(|error| step.unusable(&target, "placed", &error))?;
                let (place, target) = (step.host.node_path(&place), step.host.node_path(&target));
                placed.push(crate::swap::SwappedFile { place, target });
            }
            if self.upgrade.patches_folder.is_none() {
                let ours = differing.iter().filter_map(|component| texts.rendered.get(component));
                written::remember(&step.data_folder, ours)
                    .map_err(|error| step.unusable(&step.data_folder, "written", &error))?;
            }
        }
        // A power cut may come between two of them, and what is in place then is started: a kubelet must not be newer than
        // the API server beside it.
        placed.extend(binaries);
        // A new kubelet starts every static pod anew, since it reckons their identity in another way.
        let stopped = if self.has_kubelet() { texts.in_force.keys().copied().collect() } else { differing };
        let forward = self.forward();
        let plan = SwapPlan::new(placed, stopped);
        plan.write(&forward).map_err(|error| step.unusable(&forward, "written", &error).into())
    }

    /// The manifests that the target's kubeadm writes, and those in force.
    pub(super) async fn render(&self) -> Result<Texts, Failure> {
        let emulates = match self.upgrade.emulation {
            Some(Emulation::Begins { of }) => Some(of),
            Some(Emulation::Ends { .. }) | None => None,
        };
        self.render_into("rendered", emulates).await
    }

    async fn render_into(&self, folder: &str, emulates: Option<MinorVersion>) -> Result<Texts, Failure> {
        let step = self.step;
        let kubeadm = step.host.node_path(&step.tool(with_role(&self.upgrade.files, "kubeadm")?).await?);
        let configuration = kubeadm::cluster_configuration(&*step.host).await.map_err(Failure::retryable)?;
        let version = self.upgrade.version.to_string();
        let in_force = crate::control_plane::manifests(&*step.host);
        let api_server = self.api_server()?;
        let rendering = Rendering {
            kubeadm: &kubeadm,
            version: &version,
            node: step.assignment.node.as_str(),
            patches: self.upgrade.patches_folder.as_deref(),
            emulates,
        };
        let folder = self.folder.join(folder);
        let rendered = kubeadm::render(&*step.host, &folder, rendering, &configuration.document, &api_server).await?;
        Ok(Texts { rendered, in_force, configuration })
    }

    fn api_server(&self) -> Result<Manifest, Problem> {
        let path = self.step.host.at(&manifest::path(ControlPlaneComponent::KubeApiserver));
        let manifest = self.ground.manifests()?.remove(&ControlPlaneComponent::KubeApiserver);
        manifest.ok_or_else(|| self.step.unusable(&path, "read", &std::io::ErrorKind::NotFound.into()))
    }

    fn check_space<'p>(&self, targets: impl Iterator<Item = &'p Path>) -> Result<(), Problem> {
        let step = self.step;
        let binaries: u64 = self.upgrade.files.iter().map(|file| file.size_bytes).sum();
        let mut wanted: BTreeMap<PathBuf, u64> = BTreeMap::new();
        for target in targets {
            wanted.insert(target.parent().unwrap_or(target).to_owned(), binaries + RESERVE_BYTES);
        }
        // A copy of the old beside the agent's own files.
        wanted.insert(step.data_folder.clone(), binaries + RESERVE_BYTES);
        for folder in [manifest::FOLDER, certificates::FOLDER, KUBEADM_COPIES, "/var/lib/kubelet", "/var/lib/etcd"] {
            wanted.entry(step.host.at(folder)).or_insert(RESERVE_BYTES);
        }
        for (folder, needed) in wanted.into_iter().filter(|(folder, _)| folder.exists()) {
            let free = step.host.free_bytes(&folder)?;
            if free < needed {
                return Err(step.disk_full(&folder, free, readable_bytes(needed)));
            }
        }
        Ok(())
    }

    /// Removes what other upgrades and earlier attempts of this step kept.
    fn remove_older(&self) {
        let Some(upgrade) = self.folder.parent() else { return };
        let step = format!("{}-", self.step.assignment.id.step);
        let entries = |folder: Option<&Path>| {
            let entries = folder.and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let others = entries(upgrade.parent()).into_iter().filter(|path| path != upgrade);
        let earlier = entries(Some(upgrade)).into_iter().filter(|path| {
            *path != self.folder && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&step))
        });
        for path in others.chain(earlier) {
            // What stays costs space and nothing else.
            let _ = fs::remove_dir_all(path);
        }
    }

    /// etcd is never taken to an older version: it would refuse its data.
    fn check_downgrade(&self, texts: &Texts) -> Result<(), Problem> {
        let version = |text: Option<&String>| {
            let manifest = Manifest::parse(ControlPlaneComponent::Etcd, text?).ok()?;
            let tag = manifest.image.rsplit_once(':')?.1.to_owned();
            let numbers: Option<Vec<u32>> =
                tag.trim_start_matches('v').split('-').next()?.split('.').map(|part| part.parse().ok()).collect();
            Some((numbers?, tag))
        };
        if !self.upgrade.components.contains(&ControlPlaneComponent::Etcd) {
            return Ok(());
        }
        let etcd = &ControlPlaneComponent::Etcd;
        match (version(texts.in_force.get(etcd)), version(texts.rendered.get(etcd))) {
            (Some((from, old)), Some((to, new))) if from > to => Err(Problem::new(Code::Downgrade)
                .with("subject", format!("etcd on {}", self.step.assignment.node))
                .with("from", old)
                .with("to", new)),
            _ => Ok(()),
        }
    }

    /// What the installed kubeadm would not render, with the patches that were given, is lost.
    async fn check_hand_edits(&self, texts: &Texts, differing: &[ControlPlaneComponent]) -> Result<(), Failure> {
        let step = self.step;
        if self.upgrade.hand_edits_accepted {
            return Ok(());
        }
        let touched: BTreeMap<_, _> = texts
            .in_force
            .iter()
            .filter(|(component, text)| differing.contains(component) && !written::is_ours(&step.data_folder, text))
            .map(|(component, text)| (*component, text.clone()))
            .collect();
        if touched.is_empty() {
            return Ok(());
        }
        let edited = |path: &str| Problem::new(Code::HandEdited).with("path", path).with("node", &step.assignment.node);
        let lost = |rendered: &BTreeMap<ControlPlaneComponent, String>| match kubeadm::hand_edits(rendered, &touched)
            .into_iter()
            .next()
        {
            Some(edit) => Err(edited(&edit.path).cause(edit.difference).into()),
            None => Ok(()),
        };
        if let Some(Emulation::Ends { of }) = self.upgrade.emulation {
            // The swap before this one rendered what is in force; the installed kubeadm is still the old one.
            return lost(&self.render_into("compared", Some(of)).await?.rendered);
        }
        let api_server = self.api_server()?;
        let running = api_server.image.rsplit_once(':').map_or("", |(_, tag)| tag);
        let installed = step.host.find_program("kubeadm");
        let found = match &installed {
            Some(program) => kubeadm::version(&*step.host, program).await?,
            None => "nothing".to_owned(),
        };
        let Some(installed) = installed.filter(|_| found == running) else {
            let why = format!("the installed kubeadm is {found}, {running} runs: it cannot tell what was edited");
            return Err(edited(manifest::FOLDER).cause(why).into());
        };
        let rendering = Rendering {
            kubeadm: &installed,
            version: running,
            node: step.assignment.node.as_str(),
            patches: self.upgrade.patches_folder.as_deref(),
            emulates: None,
        };
        let folder = self.folder.join("compared");
        let document = &texts.configuration.document;
        let rendered = kubeadm::render(&*step.host, &folder, rendering, document, &api_server).await?;
        lost(&rendered)
    }

    /// The kubelet's configuration, and certificates, as kubeadm's own upgrade writes them.
    async fn configure(&self, texts: &Texts) -> Result<(), Failure> {
        let step = self.step;
        let kubeadm = step.host.node_path(&step.tool(with_role(&self.upgrade.files, "kubeadm")?).await?);
        if self.has_kubelet() {
            let mut words = vec![&*kubeadm, "upgrade", "node", "phase", "kubelet-config"];
            if let Some(patches) = &self.upgrade.patches_folder {
                words.extend(["--patches", patches]);
            }
            step.program("configure", &words).await?;
        }
        if !self.upgrade.renew_certificates {
            return Ok(());
        }
        let old = self.folder.join("old-certificates");
        Backup::take_beside(&old, &certificates::renewed_files(&*step.host))
            .map_err(|error| step.unusable(&old, "written", &error))?;
        let file = self.folder.join("certificates.yaml");
        let version = self.upgrade.version.to_string();
        let rendering = Rendering {
            kubeadm: &kubeadm,
            version: &version,
            node: step.assignment.node.as_str(),
            patches: None,
            emulates: None,
        };
        let documents = kubeadm::documents(&texts.configuration.document, rendering, &self.api_server()?);
        let documents = documents.map_err(|why| step.unusable(&file, "written", &std::io::Error::other(why)))?;
        files::replace(&file, &documents, 0o600).map_err(|error| step.unusable(&file, "written", &error))?;
        let file = step.host.node_path(&file);
        for name in renewed(&self.upgrade.components) {
            step.program(&format!("renew-{name}"), &[&kubeadm, "certs", "renew", name, "--config", &file]).await?;
        }
        Ok(())
    }

    /// kubeadm's own way.
    async fn apply(&self) -> Result<(), Failure> {
        let step = self.step;
        let kubeadm = step.host.node_path(&step.tool(with_role(&self.upgrade.files, "kubeadm")?).await?);
        let version = self.upgrade.version.to_string();
        let mut words = vec![&*kubeadm, "upgrade"];
        if self.upgrade.is_first {
            words.extend(["apply", &version, "--yes"]);
        } else {
            words.push("node");
        }
        let renew = format!("--certificate-renewal={}", self.upgrade.renew_certificates);
        words.push(&renew);
        let ignored = self.upgrade.ignore_preflight_errors.join(",");
        if !ignored.is_empty() {
            words.extend(["--ignore-preflight-errors", &ignored]);
        }
        if let Some(patches) = &self.upgrade.patches_folder {
            words.extend(["--patches", patches]);
        }
        Ok(step.program("apply", &words).await?)
    }
}

/// What kubeadm's own upgrade renews with each component, by the names of `kubeadm certs renew`:
/// `renewCertsByComponent` in
/// <https://github.com/kubernetes/kubernetes/blob/v1.36.3/cmd/kubeadm/app/phases/upgrade/staticpods.go>.
fn renewed(components: &[ControlPlaneComponent]) -> Vec<&'static str> {
    if ControlPlaneComponent::ALL.iter().all(|component| components.contains(component)) {
        return vec!["all"];
    }
    let of_component = |component: &ControlPlaneComponent| -> &'static [&'static str] {
        match component {
            ControlPlaneComponent::Etcd => &["etcd-server", "etcd-peer", "etcd-healthcheck-client"],
            // The administrator's is renewed once, with the last of them that is always there.
            ControlPlaneComponent::KubeApiserver => &[
                "apiserver",
                "apiserver-kubelet-client",
                "front-proxy-client",
                "apiserver-etcd-client",
                "admin.conf",
                "super-admin.conf",
            ],
            ControlPlaneComponent::KubeControllerManager => &["controller-manager.conf"],
            ControlPlaneComponent::KubeScheduler => &["scheduler.conf"],
        }
    };
    components.iter().flat_map(of_component).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_renewed_with_the_components_that_use_them_and_all_at_once_with_all() {
        assert_eq!(renewed(&ControlPlaneComponent::ALL), ["all"]);
        assert_eq!(renewed(&[ControlPlaneComponent::Etcd]), ["etcd-server", "etcd-peer", "etcd-healthcheck-client"]);
        let rest = renewed(&ControlPlaneComponent::ALL[1..]);
        assert!(rest.contains(&"apiserver") && rest.contains(&"admin.conf") && !rest.contains(&"etcd-peer"));
    }
}
