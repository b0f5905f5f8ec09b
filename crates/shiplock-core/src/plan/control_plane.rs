//! The part of a plan that touches a dedicated control plane, which kubeadm made and whose masters are nodes.
//!
//! What cannot be upgraded in place is refused here by name, before anything is touched: it must never be found out
//! on the second master.

use std::collections::BTreeSet;

use super::make::{
    Builder, COMPONENT_TIMEOUT_SECONDS, CONTAINERD_ROLES, CORDON_TIMEOUT_SECONDS, KUBELET_ROLES, PlanInput,
    runtime_needs_work, runtime_target,
};
use super::{DrainDecision, NodePlan, Note, Stage, StageKind};
use crate::artefact::{ArtefactFile, ArtefactImage};
use crate::facts::{ControlPlaneComponent, ControlPlaneFacts, EtcdFacts, NodeFacts, Observed};
use crate::id::NodeName;
use crate::problem::{Code, Problem};
use crate::step::{Action, ControlPlaneMethod, ControlPlaneUpgrade, Emulation, Target};
use crate::version::{KubernetesVersion, MinorVersion};

/// The check whose finding is about edits made by hand.
const HAND_EDITS_CHECK: &str = "CP-008";
/// Executables that go with a backup of etcd.
const BACKUP_ROLES: &[&str] = &["etcdctl", "etcdutl"];
const BACKUP_TIMEOUT_SECONDS: u32 = 30 * 60;
const CLUSTER_PHASE_TIMEOUT_SECONDS: u32 = 5 * 60;
/// About how long one master's API is away in a staged swap: measured 2 to 9 seconds, rounded up.
pub(super) const API_AWAY_SECONDS: u32 = 15;
/// The same by kubeadm's own commands, which restart the component several times: measured.
const API_AWAY_BY_KUBEADM_SECONDS: u32 = 120;

/// A master with work to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Master<'a> {
    pub(super) name: &'a NodeName,
    node: &'a NodeFacts,
    facts: &'a ControlPlaneFacts,
    pub(super) kubelet: KubernetesVersion,
    /// Components that do not run the target's image.
    pub(super) components_behind: bool,
    etcd_minor_changes: bool,
    leads_etcd: bool,
}

impl Master<'_> {
    /// The version that ConfigMap `kubeadm-config` names, where it is not the one that this master's API server runs.
    fn stale_configuration(&self) -> Option<(String, KubernetesVersion)> {
        let Some(Observed::Known(named)) = &self.facts.configured_version else { return None };
        let mut components = self.facts.components.iter();
        let api_server = components.find(|found| found.component == ControlPlaneComponent::KubeApiserver)?;
        let running: KubernetesVersion = tag(&api_server.image).parse().ok()?;
        (named.parse() != Ok(running)).then(|| (named.clone(), running))
    }
}

pub(super) fn refused(input: &PlanInput<'_>, why: impl Into<String>) -> Problem {
    Problem::new(Code::ControlPlaneRefused).with("cluster", input.cluster).with("why", why.into())
}

/// The masters that are not at the target, in the order in which they are to be touched: etcd's leader last, so that
/// it moves once.
pub(super) fn select<'a>(
    input: &PlanInput<'a>,
    control_plane: KubernetesVersion,
    to: KubernetesVersion,
) -> Result<Vec<Master<'a>>, Problem> {
    let all: Vec<_> = input.facts.nodes.iter().filter(|(_, node)| node.is_control_plane()).collect();
    if all.is_empty() {
        if control_plane == to {
            return Ok(Vec::new());
        }
        let why = "none of its nodes is a master (label node-role.kubernetes.io/control-plane); a hosted control plane is upgraded by who hosts it";
        return Err(refused(input, why));
    }
    let nobody_behind = control_plane == to
        && all.iter().try_fold(true, |so_far, (_, node)| {
            Ok::<_, Problem>(so_far && node.kubelet() == Some(to) && !runtime_needs_work(input, node, to)?)
        })?
        && input.facts.control_plane_pods.iter().all(|pod| tag(&pod.image) == target_tag(input, pod.component, to));
    if nobody_behind {
        // Also where no agent runs on the masters: pools alone need none there.
        return Ok(Vec::new());
    }
    let mut masters = Vec::new();
    for (name, node) in all {
        let master = examine(input, name, node, to)?;
        if master.components_behind || master.kubelet != to || runtime_needs_work(input, node, to)? {
            masters.push(master);
        }
    }
    masters.sort_by_key(|master| (master.leads_etcd, master.name));
    Ok(masters)
}

fn examine<'a>(
    input: &PlanInput<'a>,
    name: &'a NodeName,
    node: &'a NodeFacts,
    to: KubernetesVersion,
) -> Result<Master<'a>, Problem> {
    let agent = input
        .agents
        .get(name)
        .ok_or_else(|| Problem::new(Code::AgentMissing).with("node", name).with("cluster", input.cluster))?;
    let Some(facts) = agent.machine.control_plane.as_deref() else {
        let why = format!("master {name} has no static pods of a control plane in /etc/kubernetes/manifests");
        return Err(refused(input, why));
    };
    let etcd = match &facts.etcd {
        EtcdFacts::External { endpoints } => {
            let why = format!("its etcd is external ({}), and is not upgraded here yet", endpoints.join(", "));
            return Err(refused(input, why));
        }
        EtcdFacts::Stacked { cluster: Observed::Unknown { problem, .. } } => {
            let named = problem.clone().with("node", name);
            return Err(refused(input, format!("etcd on master {name} does not answer")).because(&named));
        }
        EtcdFacts::Stacked { cluster: Observed::Known(etcd) } => etcd,
    };
    if let Some(Observed::Unknown { problem, .. }) = &facts.configured_version {
        // A time without an API server says nothing of what it will answer.
        if problem.code == Code::ClusterUnreachable {
            return Err(problem.clone());
        }
        let why = format!("master {name} cannot read ConfigMap kubeadm-config, from which kubeadm renders manifests");
        return Err(refused(input, why).because(problem));
    }
    let mut components_behind = false;
    let mut etcd_minor_changes = false;
    for component in ControlPlaneComponent::ALL {
        let Some(found) = facts.components.iter().find(|found| found.component == component) else {
            return Err(refused(input, format!("master {name} has no manifest of {}", component.name())));
        };
        let image = input.artefacts.image(to, component.name(), &node.architecture)?;
        if repository(&found.image) != repository(&image.reference) {
            return Err(refused(
                input,
                format!(
                    "{} on master {name} comes from {}, the mirror's image is named {}; give the mirror images of that name (imageRepository)",
                    component.name(),
                    found.image,
                    image.reference
                ),
            ));
        }
        components_behind |= tag(&found.image) != tag(&image.reference);
        if component == ControlPlaneComponent::Etcd {
            etcd_minor_changes = minor(tag(&found.image)) != minor(tag(&image.reference));
        }
    }
    let kubelet = node.kubelet().ok_or_else(|| {
        Problem::new(Code::NotAVersion).with("text", &node.kubelet_version).cause(format!("kubelet of node {name}"))
    })?;
    if kubelet > to {
        let subject = format!("node {name}");
        return Err(Problem::new(Code::Downgrade).with("subject", subject).with("from", kubelet).with("to", to));
    }
    if !facts.kubelet_server_is_local && input.facts.nodes.values().filter(|node| node.is_control_plane()).count() > 1 {
        let why = format!(
            "the kubelet of master {name} talks to {} and may meet an API server that is older than it; point server: in /etc/kubernetes/kubelet.conf to the master's own API server",
            facts.kubelet_server
        );
        return Err(refused(input, why));
    }
    let leads_etcd = etcd.leader_id == etcd.own_id;
    Ok(Master { name, node, facts, kubelet, components_behind, etcd_minor_changes, leads_etcd })
}

/// The name of an image without its tag and digest.
fn repository(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    // A colon ahead of the last slash belongs to a port.
    match name.rsplit_once(':') {
        Some((before, after)) if !after.contains('/') => before,
        _ => name,
    }
}

/// The tag of an image; empty where there is none.
pub(super) fn tag(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    name.strip_prefix(repository(reference)).unwrap_or_default().trim_start_matches(':')
}

fn target_tag<'a>(input: &PlanInput<'a>, component: ControlPlaneComponent, to: KubernetesVersion) -> &'a str {
    let images = input.artefacts.releases.iter().filter(|release| release.kubernetes == to);
    images
        .flat_map(|release| &release.images)
        .find(|image| image.role == component.name())
        .map(|image| tag(&image.reference))
        .unwrap_or_default()
}

/// `3.6` of `3.6.8-0`.
fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split(['.', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether kube-proxy or CoreDNS, where the cluster has them, run another image than the target's.
pub(super) fn addons_behind(input: &PlanInput<'_>, to: KubernetesVersion) -> Result<bool, Problem> {
    let Some(architecture) = input.facts.nodes.values().map(|node| node.architecture.as_str()).next() else {
        return Ok(false);
    };
    for addon in &input.facts.addons {
        if tag(&addon.image) != tag(&input.artefacts.image(to, &addon.name, architecture)?.reference) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Every kubelet of the cluster, also of nodes that are left out, must be legal against the API servers afterwards.
pub(super) fn check_skew_after(input: &PlanInput<'_>, to: KubernetesVersion) -> Result<(), Problem> {
    for (name, node) in &input.facts.nodes {
        let Some(kubelet) = node.kubelet() else {
            return Err(Problem::new(Code::NotAVersion)
                .with("text", &node.kubelet_version)
                .cause(format!("kubelet of node {name}")));
        };
        if kubelet > to {
            return Err(Problem::new(Code::KubeletNewerThanApiServer)
                .with("kubelet", kubelet)
                .with("nodes", name)
                .with("api_server", to));
        }
        if !input.catalogue.kubelet_skew_legal(kubelet, to) {
            let pool = if node.is_control_plane() { "masters".to_owned() } else { node.pool().to_string() };
            return Err(Problem::new(Code::SkewTooWide)
                .with("kubelet", kubelet)
                .with("nodes", name)
                .with("pool", pool)
                .with("allowed", input.catalogue.kubelet_minors_older_max(kubelet.release))
                .with("api_server", to));
        }
    }
    Ok(())
}

/// What a person should know of the masters before accepting.
pub(super) fn notes(
    input: &PlanInput<'_>,
    to: KubernetesVersion,
    masters: &[Master<'_>],
    soak: Option<MinorVersion>,
) -> Vec<Note> {
    let mut notes = Vec::new();
    if let Some(emulates) = soak {
        notes.push(Note::Soak { emulates, seconds: input.request.options.soak_seconds });
    }
    let count = input.facts.nodes.values().filter(|node| node.is_control_plane()).count();
    if let ([master], 1) = (masters, count) {
        let seconds = match input.request.options.control_plane_method {
            ControlPlaneMethod::StagedSwap => API_AWAY_SECONDS,
            ControlPlaneMethod::Kubeadm => API_AWAY_BY_KUBEADM_SECONDS,
        };
        notes.push(Note::ApiAway { node: master.name.clone(), seconds });
    }
    for master in masters.iter().filter(|master| master.etcd_minor_changes).take(1) {
        let from = master.facts.components.iter().find(|found| found.component == ControlPlaneComponent::Etcd);
        let from = from.map(|found| tag(&found.image).to_owned()).unwrap_or_default();
        let to = target_tag(input, ControlPlaneComponent::Etcd, to).to_owned();
        notes.push(Note::EtcdMinorChanges { from, to });
    }
    for (named, running) in masters.iter().filter_map(Master::stale_configuration).take(1) {
        notes.push(Note::ConfigurationStale { named, running });
    }
    let ends = masters.iter().filter(|master| master.facts.certificates.external_ca);
    if let Some(ends_at) = ends.map(|master| master.facts.certificates.ends_at).min() {
        notes.push(Note::CertificatesNotRenewed { ends_at });
    }
    notes
}

impl Builder<'_> {
    /// What is fetched to the masters with work.
    pub(super) fn prefetch_to_masters(&self, masters: &[Master<'_>]) -> Result<Vec<(NodeName, Action)>, Problem> {
        let mut prefetches = Vec::new();
        for (index, master) in masters.iter().enumerate() {
            if master.kubelet != self.to {
                self.check_install(master.name, master.kubelet)?;
            }
            let architecture = &master.node.architecture;
            let mut files = self.files(KUBELET_ROLES, architecture)?;
            if index == 0 {
                files.extend(self.files(BACKUP_ROLES, architecture)?);
            }
            if runtime_target(self.input, master.node, self.to)?.is_some() {
                files.extend(self.files(CONTAINERD_ROLES, architecture)?);
            }
            let mut images = self.component_images(architecture)?;
            images.push(self.input.artefacts.image(self.to, "pause", architecture)?.clone());
            images.extend(self.addon_images(architecture)?);
            let mirror = self.input.mirror.to_owned();
            prefetches.push((master.name.clone(), Action::Prefetch { mirror, files, images }));
        }
        Ok(prefetches)
    }

    /// What is fetched to nodes that are not upgraded themselves: kube-proxy runs on every node and CoreDNS on any, and
    /// one of them may need `kubeadm` for the phases of the cluster. Nodes without an agent pull as they always do.
    pub(super) fn prefetch_to_others(
        &self,
        planned: &BTreeSet<&NodeName>,
        with_kubeadm: bool,
    ) -> Result<Vec<(NodeName, Action)>, Problem> {
        let place = self.worker_of_cluster_phases().filter(|_| with_kubeadm).map(|(name, _)| name);
        let mut prefetches = Vec::new();
        for (name, node) in &self.input.facts.nodes {
            if planned.contains(name) || !self.input.agents.contains_key(name) {
                continue;
            }
            let files = if place == Some(name) { self.files(&["kubeadm"], &node.architecture)? } else { Vec::new() };
            let images = self.addon_images(&node.architecture)?;
            let mirror = self.input.mirror.to_owned();
            prefetches.push((name.clone(), Action::Prefetch { mirror, files, images }));
        }
        Ok(prefetches)
    }

    /// The images of the add-ons that the cluster has.
    pub(super) fn addon_images(&self, architecture: &str) -> Result<Vec<ArtefactImage>, Problem> {
        ["kube-proxy", "coredns"]
            .into_iter()
            .filter(|name| self.input.facts.addons.iter().any(|addon| addon.name == *name))
            .map(|role| self.input.artefacts.image(self.to, role, architecture).cloned())
            .collect()
    }

    /// The master on which kubeadm works for the cluster as a whole, where none is to be upgraded.
    fn worker_of_cluster_phases(&self) -> Option<(&NodeName, &NodeFacts)> {
        self.input
            .facts
            .nodes
            .iter()
            .find(|(name, node)| node.is_control_plane() && self.input.agents.contains_key(*name))
    }

    fn component_images(&self, architecture: &str) -> Result<Vec<ArtefactImage>, Problem> {
        let image = |component: ControlPlaneComponent| {
            self.input.artefacts.image(self.to, component.name(), architecture).cloned()
        };
        ControlPlaneComponent::ALL.into_iter().map(image).collect()
    }

    /// Backup, masters, configuration of the cluster and add-ons; nothing where the control plane is at the target.
    pub(super) fn control_plane_stages(
        &mut self,
        masters: &[Master<'_>],
        addons_behind: bool,
        soak: Option<MinorVersion>,
    ) -> Result<Vec<Stage>, Problem> {
        let mut stages = Vec::new();
        if let Some(first) = masters.first() {
            let files = self.files(BACKUP_ROLES, &first.node.architecture)?;
            let backup = Action::BackupEtcd { files };
            let backup = self.step(backup, Target::Node(first.name.clone()), BACKUP_TIMEOUT_SECONDS);
            stages.push(Stage { kind: StageKind::Backup, steps: vec![backup], nodes: Vec::new() });
            let seconds = self.input.request.options.soak_seconds;
            let swaps = match soak {
                None => vec![(StageKind::ControlPlane, None)],
                Some(of) => vec![
                    (StageKind::ControlPlane, Some(Emulation::Begins { of })),
                    (StageKind::Soak { seconds, emulates: of }, None),
                    (StageKind::StepUp, Some(Emulation::Ends { of })),
                ],
            };
            for (kind, emulation) in swaps {
                let mut nodes = Vec::new();
                for (index, master) in masters.iter().enumerate().filter(|_| !matches!(kind, StageKind::Soak { .. })) {
                    nodes.push(self.master(master, index == 0, emulation)?);
                }
                stages.push(Stage { kind, steps: Vec::new(), nodes });
            }
        } else if !addons_behind {
            return Ok(stages);
        }
        let place = masters.first().map(|master| (master.name.clone(), master.node.architecture.clone()));
        let place = place
            .or_else(|| self.worker_of_cluster_phases().map(|(name, node)| (name.clone(), node.architecture.clone())));
        let Some((name, architecture)) = place else {
            return Err(refused(self.input, "no agent is enrolled on any of its masters"));
        };
        let version = self.to;
        let kubeadm = self.input.artefacts.file(version, "kubeadm", &architecture)?.clone();
        let target = Target::Node(name);
        let upload = Action::UploadConfiguration { version, kubeadm: kubeadm.clone() };
        let upload = self.step(upload, target.clone(), CLUSTER_PHASE_TIMEOUT_SECONDS);
        stages.push(Stage { kind: StageKind::ClusterConfiguration, steps: vec![upload], nodes: Vec::new() });
        let addons = Action::UpgradeAddons { version, kubeadm };
        let addons = self.step(addons, target, CLUSTER_PHASE_TIMEOUT_SECONDS);
        let images = self.addon_images(&architecture)?;
        let limit = self.input.request.options.gate_timeout_seconds;
        let verify = self.step(Action::VerifyAddons { images }, Target::Cluster, limit);
        stages.push(Stage { kind: StageKind::AddOns, steps: vec![addons, verify], nodes: Vec::new() });
        Ok(stages)
    }

    /// One swap of a master. With a soak there are two: the first brings the components, which emulate, and the second
    /// ends that and brings the kubelet, with all that a kubelet's upgrade asks for.
    fn master(
        &mut self,
        master: &Master<'_>,
        is_first: bool,
        emulation: Option<Emulation>,
    ) -> Result<NodePlan, Problem> {
        let Master { name, node, facts, kubelet, .. } = *master;
        let options = &self.input.request.options;
        let masters = self.input.facts.nodes.values().filter(|node| node.is_control_plane()).count();
        let target = Target::Node(name.clone());
        let kubelet_stays = matches!(emulation, Some(Emulation::Begins { .. }));
        let (drain, runtime, mut steps) = if kubelet_stays {
            let cordon = self.step(Action::Cordon, target.clone(), CORDON_TIMEOUT_SECONDS);
            (DrainDecision::SkippedKubeletStays, None, vec![cordon])
        } else {
            self.emptied_with_runtime(name, node, kubelet)?
        };
        let swaps_etcd = !matches!(emulation, Some(Emulation::Ends { .. }));
        let architecture = &node.architecture;
        let images = self.component_images(architecture)?;
        let pause = self.input.artefacts.image(self.to, "pause", architecture)?.clone();
        let upgrade = |components: &[ControlPlaneComponent], files: Vec<ArtefactFile>| {
            let wanted =
                images.iter().filter(|image| components.iter().any(|component| component.name() == image.role));
            Action::UpgradeControlPlane(Box::new(ControlPlaneUpgrade {
                version: self.to,
                components: components.to_vec(),
                images: wanted.cloned().chain([pause.clone()]).collect(),
                files,
                method: options.control_plane_method,
                is_first,
                is_only: masters == 1,
                etcd_minor_changes: master.etcd_minor_changes,
                // Once: the first swap has renewed them.
                renew_certificates: options.renew_certificates && swaps_etcd && !facts.certificates.external_ca,
                patches_folder: options.kubeadm_patches.clone(),
                hand_edits_accepted: options.accepts(HAND_EDITS_CHECK),
                ignore_preflight_errors: options.ignore_preflight_errors.clone(),
                emulation: emulation.filter(|_| components != [ControlPlaneComponent::Etcd]),
            }))
        };
        let roles: &[&str] = if kubelet_stays { &["kubeadm"] } else { KUBELET_ROLES };
        let mut actions = Vec::new();
        // Over a minor version etcd goes alone and first: it cannot go back, and what fails must be named as etcd.
        // kubeadm's own commands have an order of their own.
        let etcd_alone = master.etcd_minor_changes && options.control_plane_method == ControlPlaneMethod::StagedSwap;
        if etcd_alone && swaps_etcd {
            actions.push(upgrade(&[ControlPlaneComponent::Etcd], self.files(&["kubeadm"], architecture)?));
        }
        let together =
            if etcd_alone || !swaps_etcd { &ControlPlaneComponent::ALL[1..] } else { &ControlPlaneComponent::ALL };
        actions.push(upgrade(together, self.files(roles, architecture)?));
        for action in actions {
            steps.push(self.step(action, target.clone(), COMPONENT_TIMEOUT_SECONDS));
        }
        let kubelet_file = self.input.artefacts.file(self.to, "kubelet", architecture)?;
        let verify = Action::VerifyNode {
            kubelet: if kubelet_stays { kubelet } else { self.to },
            kubelet_sha256: (kubelet != self.to && !kubelet_stays).then(|| kubelet_file.sha256.clone()),
            container_runtime: runtime.as_ref().map(|file| file.version.clone()),
            container_runtime_sha256: runtime.map(|file| file.sha256),
            control_plane_images: images,
        };
        let limit = options.node_ready_timeout_seconds;
        steps.push(self.step(verify, target.clone(), limit));
        steps.push(self.step(Action::Uncordon, target, CORDON_TIMEOUT_SECONDS));
        Ok(NodePlan {
            node: name.clone(),
            uid: node.uid.clone(),
            machine_id: node.machine_id.clone(),
            kubelet_from: kubelet,
            container_runtime_from: node.container_runtime_version.clone(),
            cordoned_before: node.unschedulable && node.owner.is_none(),
            drain,
            steps,
            evidence: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_taken_apart_also_with_a_port_and_a_digest() {
        for (reference, name, version) in [
            ("registry.k8s.io/etcd:3.6.8-0", "registry.k8s.io/etcd", "3.6.8-0"),
            ("mirror:5000/kube-apiserver:v1.36.3", "mirror:5000/kube-apiserver", "v1.36.3"),
            ("mirror:5000/pause", "mirror:5000/pause", ""),
            ("pause:3.10@sha256:00", "pause", "3.10"),
        ] {
            assert_eq!((repository(reference), tag(reference)), (name, version));
        }
        assert_eq!(minor("3.6.8-0"), Some((3, 6)));
        assert_ne!(minor("3.6.8-0"), minor("3.7.0-0"));
    }
}
