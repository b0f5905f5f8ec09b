//! Kubelets and machines: life of pods on a node, readiness of nodes, static pods, units, power.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::version::MinorVersion;

use super::build::runtime_version;
use super::machine::{Installed, Machine, Unit, UnitState, Work};
use super::object::{Phase, Pod, PodTemplate, labels};
use super::table::Text;
use super::{Event, World, uuid_text};

/// A pod tolerates an unreachable node for so long, unless it says otherwise.
const UNREACHABLE_SECONDS: u64 = 300;

impl World {
    // ---- pods ----

    fn kubelet_runs(&self, node: u32) -> bool {
        self.machine(node).is_some_and(|machine| machine.kubelet_runs())
    }

    pub(super) fn queue_start(&mut self, id: u32) {
        let Some(pod) = self.pods.get(id) else { return };
        let Some(node) = pod.node else { return };
        let (behaviour, life) = (pod.template.behaviour, pod.life);
        let pulled = self
            .machine(node)
            .is_some_and(|machine| pod.template.containers.iter().all(|(_, image)| machine.images.contains(image)));
        let after = if pulled { behaviour.start } else { behaviour.start + behaviour.pull };
        let after = after * self.pace.pod_start_percent / 100;
        self.queue(after, Event::PodStarts { pod: id, life });
    }

    pub(super) fn pod_starts(&mut self, id: u32, life: u32) {
        let Some(pod) = self.pods.get(id).filter(|pod| pod.life == life && pod.phase == Phase::Pending) else { return };
        let Some(node) = pod.node.filter(|node| self.kubelet_runs(*node)) else { return };
        let missing: Vec<Text> = self.machine(node).map_or_else(Vec::new, |machine| {
            pod.template
                .containers
                .iter()
                .map(|(_, image)| image)
                .filter(|image| !machine.images.contains(*image))
                .cloned()
                .collect()
        });
        let behaviour = pod.template.behaviour;
        if !missing.is_empty() {
            if self.machine(node).is_some_and(|machine| machine.faults.pulls_fail) {
                // Pulled again after a while.
                return self.queue(Duration::from_secs(20), Event::PodStarts { pod: id, life });
            }
            self.change_machine(node, |machine| Arc::make_mut(&mut machine.images).extend(missing));
        }
        let (version, now) = (self.next_version(), self.now);
        self.pods.change(id, version, |pod| {
            pod.phase = Phase::Running;
            pod.started_at = Some(now);
        });
        if !behaviour.crashes {
            let after = behaviour.ready * self.pace.pod_start_percent / 100;
            self.queue(after, Event::PodReady { pod: id, life });
        }
    }

    pub(super) fn pod_ready(&mut self, id: u32, life: u32) {
        let Some(pod) = self.pods.get(id).filter(|pod| pod.life == life && pod.deletion.is_none()) else { return };
        if pod.node.is_some_and(|node| self.kubelet_runs(node)) && pod.phase == Phase::Running {
            self.set_ready(id, true);
        }
    }

    pub(super) fn queue_end(&mut self, id: u32) {
        let Some(pod) = self.pods.get(id) else { return };
        let Some(deletion) = pod.deletion else { return };
        let (behaviour, life) = (pod.template.behaviour, pod.life);
        let grace = deletion.at.since(self.now);
        let top = |owner| self.workload(owner).and_then(|workload| workload.owner).unwrap_or(owner);
        let known = pod.owner.filter(|_| !self.ends.is_empty()).and_then(|owner| self.ends.get(&top(owner)));
        let after = match known {
            Some(takes) => (*takes).min(grace),
            None if behaviour.ignores_sigterm => grace,
            None => (behaviour.stop * self.pace.pod_stop_percent / 100).min(grace),
        };
        self.queue(after, Event::PodEnds { pod: id, life });
    }

    pub(super) fn pod_ends(&mut self, id: u32, life: u32) {
        let Some(pod) = self.pods.get(id).filter(|pod| pod.life == life) else { return };
        if !pod.node.is_some_and(|node| self.kubelet_runs(node)) {
            // Its kubelet ends it when it is there again.
            return;
        }
        let behaviour = pod.template.behaviour;
        let claims = self.claims_of(pod);
        self.killed_pods += u64::from(behaviour.ignores_sigterm);
        for claim in claims {
            self.claims.change_quietly(claim, |claim| claim.attached = None);
        }
        if behaviour.finalizer {
            self.set_ready(id, false);
            return;
        }
        self.remove_pod(id);
    }

    // ---- kubelets ----

    /// Starts or restarts the kubelet of a node with what is on its disk.
    pub fn start_kubelet(&mut self, node: u32) {
        let Some(machine) = self.machine(node).filter(|machine| machine.on).cloned() else { return };
        let comes_up = !machine.faults.kubelet_will_not_start;
        self.change_machine(node, |machine| {
            machine.kubelet_run += 1;
            machine.kubelet.running = comes_up.then(|| machine.kubelet.disk.clone());
        });
        let run = machine.kubelet_run + 1;
        if comes_up {
            let after = self.pace.kubelet_start;
            self.queue(after, Event::KubeletSpeaks { node, run });
            let after = self.pace.static_pod;
            for (component, _) in machine.static_pods.iter().filter(|(_, pod)| pod.running.as_ref() != Some(&pod.image))
            {
                self.queue(after, Event::StaticPodUp { node, component: *component, run });
            }
        }
        let silent = self.pace.node_monitor_grace;
        self.queue(silent, Event::NodeSilent { node, run });
    }

    /// Stops the kubelet of a node. Pods go on to run.
    pub fn stop_kubelet(&mut self, node: u32) {
        self.change_machine(node, |machine| {
            machine.kubelet_run += 1;
            machine.kubelet.running = None;
        });
        if let Some(run) = self.machine(node).map(|machine| machine.kubelet_run) {
            let silent = self.pace.node_monitor_grace;
            self.queue(silent, Event::NodeSilent { node, run });
        }
    }

    fn is_run(&self, node: u32, run: u32) -> bool {
        self.machine(node).is_some_and(|machine| machine.kubelet_run == run)
    }

    pub(super) fn kubelet_speaks(&mut self, node: u32, run: u32) {
        if !self.is_run(node, run) {
            return;
        }
        let Some(machine) = self.machine(node).cloned() else { return };
        if self.nodes.get(node).is_none() {
            self.rejoin(node);
            return;
        }
        let now = self.now;
        self.change_node(node, |node| {
            tell(node, &machine);
            node.ready = Some(false);
            node.ready_since = now;
            node.not_ready_why = "container runtime status check may not have completed yet".into();
        });
        let pods: Vec<(u32, Arc<Pod>)> =
            self.pods_on(node).filter_map(|pod| Some((pod, self.pods.get(pod)?.clone()))).collect();
        for (id, pod) in pods {
            if pod.deletion.is_some() {
                self.queue_end(id);
            } else if pod.phase == Phase::Pending {
                self.queue_start(id);
            } else if pod.ready && pod.template.behaviour.flaps {
                self.set_ready(id, false);
                self.queue(pod.template.behaviour.ready, Event::PodReady { pod: id, life: pod.life });
            } else if !pod.ready && pod.mirror.is_none() && !pod.template.behaviour.crashes {
                self.queue(pod.template.behaviour.ready, Event::PodReady { pod: id, life: pod.life });
            }
        }
        let after = self.pace.node_ready;
        self.queue(after, Event::KubeletReady { node, run });
    }

    /// The machine of a Node that was deleted joins again: a new Node of the same name under another UID, with the
    /// taints and labels that a kubelet brings. Gives its id; none where the Node is there or the machine is not.
    pub fn rejoin(&mut self, node: u32) -> Option<u32> {
        if self.nodes.get(node).is_some() {
            return None;
        }
        let machine = self.machines.get_mut(node as usize)?.take()?;
        let spec = super::NodeSpec {
            name: machine.name.to_string(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            unschedulable: false,
            allocatable: super::object::Resources { cpu_millis: 4_000, memory_bytes: 16 << 30, pods: 110 },
            kubelet: machine.kubelet.disk.clone(),
            runtime: machine.runtime.disk.clone(),
            architecture: machine.architecture.to_string(),
            control_plane: BTreeMap::new(),
            uid: None,
            machine_id: Some(machine.machine_id.to_string()),
            ready: false,
        };
        let id = self.add_node(&spec)?;
        for member in self.etcd.members.iter_mut().filter(|member| member.machine == node) {
            member.machine = id;
        }
        if let Some(master) = self.masters.get_mut(&machine.name) {
            *master = id;
        }
        if let Some(slot) = self.machines.get_mut(id as usize) {
            *slot = Some(machine);
        }
        self.start_kubelet(id);
        Some(id)
    }

    pub(super) fn kubelet_ready(&mut self, node: u32, run: u32) {
        if !self.is_run(node, run) || !self.kubelet_runs(node) {
            return;
        }
        let Some(machine) = self.machine(node).cloned() else { return };
        let now = self.now;
        self.change_node(node, |node| {
            tell(node, &machine);
            node.ready = Some(true);
            node.ready_since = now;
            node.not_ready_why = "".into();
        });
        let components: Vec<ControlPlaneComponent> = machine.static_pods.keys().copied().collect();
        for component in components {
            self.put_mirror(node, component);
        }
    }

    pub(super) fn node_silent(&mut self, node: u32, run: u32) {
        if !self.is_run(node, run) || self.kubelet_runs(node) {
            return;
        }
        let now = self.now;
        self.change_node(node, |node| {
            if node.ready.is_some() {
                node.ready = None;
                node.ready_since = now;
                node.not_ready_why = "Kubelet stopped posting node status.".into();
            }
        });
        let pods: Vec<u32> = self.pods_on(node).collect();
        for pod in pods {
            self.set_ready(pod, false);
        }
        self.queue(Duration::from_secs(UNREACHABLE_SECONDS), Event::NodeEvicts { node, run });
    }

    pub(super) fn node_evicts(&mut self, node: u32, run: u32) {
        if !self.is_run(node, run) || self.kubelet_runs(node) {
            return;
        }
        let pods: Vec<u32> = self.pods_on(node).collect();
        for id in pods {
            let Some(pod) = self.pods.get(id) else { continue };
            let stays = pod.template.tolerations.iter().any(|toleration| {
                toleration.seconds.is_none()
                    && (toleration.key.is_empty() || &*toleration.key == "node.kubernetes.io/unreachable")
            });
            if !stays {
                self.end_pod(id, None);
            }
        }
    }

    // ---- static pods ----

    /// The mirror of a static pod says what its manifest and its container are like.
    pub(super) fn put_mirror(&mut self, node: u32, component: ControlPlaneComponent) {
        let Some(machine) = self.machine(node).cloned() else { return };
        let Some(found) = machine.static_pods.get(&component) else { return };
        let name = format!("{}-{}", component.name(), machine.name);
        let ready = found.healthy && found.running.is_some();
        let image = found.image.clone();
        if let Some(id) = self.pods.id("kube-system", &name) {
            let held = self.pods.get(id).cloned();
            if held.as_ref().is_some_and(|pod| pod.template.containers.first().is_some_and(|(_, held)| *held == image))
            {
                return self.set_ready(id, ready);
            }
            // A new manifest is a new mirror.
            self.remove_pod(id);
        }
        let template = PodTemplate {
            labels: labels([("component", component.name()), ("tier", "control-plane")]),
            annotations: labels([("kubernetes.io/config.mirror", "static")]),
            containers: vec![(component.name().into(), image)],
            requests: super::object::Resources { cpu_millis: 100, memory_bytes: 100 << 20, pods: 1 },
            tolerations: vec![super::object::Toleration {
                key: "".into(),
                value: None,
                effect: Some(super::object::Effect::NoExecute),
                seconds: None,
            }],
            ..PodTemplate::default()
        };
        let template = Arc::new(template);
        let mut meta = self.new_meta("kube-system", &name, &template.labels);
        meta.annotations = template.annotations.clone();
        let pod = Pod {
            meta,
            template: template.clone(),
            owner: None,
            mirror: Some(component),
            node: None,
            phase: Phase::Running,
            ready: false,
            ready_since: self.now,
            started_at: Some(found.started_at),
            restarts: 0,
            deletion: None,
            unschedulable_why: None,
            life: 0,
        };
        let Some(id) = self.insert_pod(pod) else { return };
        let version = self.next_version();
        self.pods.change(id, version, |pod| pod.node = Some(node));
        self.note_move(Some(node));
        self.unbound.remove(&id);
        if let Some(pods) = self.pods_on.get_mut(node as usize) {
            pods.insert(id);
            let used = &mut self.used[node as usize];
            *used = used.plus(super::control::requests(&template), 1);
        }
        self.set_ready(id, ready);
    }

    /// The kubelet that began to start it has done so; one that was stopped meanwhile starts nothing.
    pub(super) fn static_pod_up(&mut self, node: u32, component: ControlPlaneComponent, run: u32) {
        if !self.is_run(node, run) || !self.kubelet_runs(node) {
            return;
        }
        let now = self.now;
        self.change_machine(node, |machine| {
            if let Some(pod) = machine.static_pods.get_mut(&component) {
                pod.running = Some(pod.image.clone());
                pod.started_at = now;
                pod.healthy = !pod.broken;
            }
        });
        self.elect();
        self.put_mirror(node, component);
    }

    fn stop_static_pods(&mut self, node: u32, which: &[ControlPlaneComponent]) {
        self.change_machine(node, |machine| {
            for component in which {
                if let Some(pod) = machine.static_pods.get_mut(component) {
                    pod.running = None;
                    pod.healthy = false;
                }
            }
        });
        self.elect();
    }

    // ---- etcd and API servers ----

    /// Whether the member on a machine serves.
    pub fn etcd_member_serves(&self, node: u32) -> bool {
        self.machine(node).is_some_and(|machine| {
            machine.on
                && !machine.faults.etcd_ill
                && machine.static_pods.get(&ControlPlaneComponent::Etcd).is_some_and(|pod| pod.healthy)
        })
    }

    /// Whether etcd has its quorum. A cluster without members of its own has one elsewhere.
    pub fn etcd_has_quorum(&self) -> bool {
        let voters: Vec<u32> =
            self.etcd.members.iter().filter(|member| !member.is_learner).map(|member| member.machine).collect();
        let serving = voters.iter().filter(|node| self.etcd_member_serves(**node)).count();
        voters.is_empty() || serving > voters.len() / 2
    }

    /// Whether the API server on a master answers.
    pub fn api_server_answers(&self, node: u32) -> bool {
        self.etcd_has_quorum()
            && self.machine(node).is_some_and(|machine| {
                machine.on
                    && machine.static_pods.get(&ControlPlaneComponent::KubeApiserver).is_some_and(|pod| pod.healthy)
            })
    }

    /// Whether any API server answers. A cluster without masters has its API elsewhere.
    pub fn api_answers(&self) -> bool {
        let mut any = false;
        for master in self.masters() {
            if self.api_server_answers(master) {
                return true;
            }
            any = true;
        }
        !any
    }

    /// etcd elects a leader where it has none and can.
    pub fn elect(&mut self) {
        let leads = self
            .etcd
            .members
            .iter()
            .find(|member| member.id == self.etcd.leader)
            .is_some_and(|member| self.etcd_member_serves(member.machine));
        if leads && self.etcd_has_quorum() {
            return;
        }
        let next = self
            .etcd
            .members
            .iter()
            .find(|member| !member.is_learner && self.etcd_member_serves(member.machine))
            .map_or(0, |member| member.id);
        self.etcd.leader = if self.etcd_has_quorum() { next } else { 0 };
    }

    /// Makes the etcd member on a machine ill or well.
    pub fn set_etcd_ill(&mut self, node: u32, ill: bool) {
        self.change_machine(node, |machine| machine.faults.etcd_ill = ill);
        self.elect();
    }

    // ---- units ----

    /// Starts a transient unit that takes so long; false where there is one of the name.
    pub fn start_unit(&mut self, node: u32, name: &str, work: Work, takes: Duration) -> bool {
        let Some(machine) = self.machine(node).filter(|machine| machine.on).cloned() else { return false };
        if machine.units.iter().any(|unit| &*unit.name == name) {
            return false;
        }
        if let Work::Swap { images, emulates, .. } = &work {
            let changed: Vec<ControlPlaneComponent> = changed(&machine, images, *emulates);
            self.stop_kubelet(node);
            self.stop_static_pods(node, &changed);
        }
        if let Some(started) = &mut self.started {
            started.push((node, name.into(), work.clone()));
        }
        let unit = Unit { name: name.into(), work, state: UnitState::Running };
        self.change_machine(node, |machine| machine.units.push(unit));
        self.queue(takes, Event::UnitEnds { node, unit: name.into(), boot: machine.boot });
        true
    }

    /// Forgets the units whose names begin so.
    pub fn clear_units(&mut self, node: u32, prefix: &str) {
        self.change_machine(node, |machine| machine.units.retain(|unit| !unit.name.starts_with(prefix)));
    }

    pub(super) fn unit_ends(&mut self, node: u32, name: &str, boot: u32) {
        let Some(machine) = self.machine(node).filter(|machine| machine.boot == boot && machine.on).cloned() else {
            return;
        };
        let Some(unit) =
            machine.units.iter().find(|unit| &*unit.name == name && unit.state == UnitState::Running).cloned()
        else {
            return;
        };
        let fails = machine.faults.units_fail > 0 || machine.faults.disk_full;
        self.change_machine(node, |machine| {
            machine.faults.units_fail = machine.faults.units_fail.saturating_sub(1);
            if let Some(unit) = machine.units.iter_mut().find(|unit| &*unit.name == name) {
                unit.state = if fails { UnitState::Failed } else { UnitState::Succeeded };
            }
        });
        self.work(node, &unit.work, fails);
    }

    /// What a program does; one that fails leaves all as it was.
    fn work(&mut self, node: u32, work: &Work, fails: bool) {
        match work {
            Work::Runtime(executable) => {
                if !fails {
                    self.change_machine(node, |machine| {
                        machine.runtime = Installed { disk: executable.clone(), running: Some(executable.clone()) };
                    });
                    let Some(machine) = self.machine(node).cloned() else { return };
                    if machine.kubelet_runs() {
                        self.change_node(node, |node| tell(node, &machine));
                    }
                }
            }
            Work::Kubelet(executable) => {
                if !fails {
                    self.change_machine(node, |machine| machine.kubelet.disk = executable.clone());
                    self.start_kubelet(node);
                }
            }
            Work::Swap { images, kubelet, emulates } => {
                if !fails {
                    self.change_machine(node, |machine| {
                        if images.iter().any(|(component, _)| can_emulate(*component)) {
                            machine.emulates = *emulates;
                        }
                        for (component, image) in images {
                            if let Some(pod) = machine.static_pods.get_mut(component) {
                                pod.image = image.clone();
                            }
                        }
                        if let Some(kubelet) = kubelet {
                            machine.kubelet.disk = kubelet.clone();
                        }
                    });
                }
                self.start_kubelet(node);
            }
            Work::UploadConfiguration => {}
            Work::AddOns(images) => {
                if !fails {
                    self.set_addon_images(images);
                }
            }
        }
    }

    /// Sets the images of add-ons, by the names of their workloads.
    pub fn set_addon_images(&mut self, images: &[(Text, Text)]) {
        let images: BTreeMap<&Text, &Text> = images.iter().map(|(name, image)| (name, image)).collect();
        for kind in super::WorkloadKind::ALL {
            let found: Vec<(u32, Text)> = self
                .workloads(kind)
                .in_namespace("kube-system")
                .filter_map(|(id, workload)| Some((id, (*images.get(&workload.meta.name)?).clone())))
                .collect();
            for (id, image) in found {
                self.change_workload(super::WorkloadId { kind, id }, |workload| {
                    let template = Arc::make_mut(&mut workload.template);
                    if let Some((_, held)) = template.containers.first_mut() {
                        *held = image;
                    }
                });
            }
        }
    }

    // ---- power ----

    /// Takes a machine's power, and gives it back after its time to boot unless its faults say otherwise.
    pub fn reboot(&mut self, node: u32) {
        self.power_off(node);
        let Some(machine) = self.machine(node).cloned() else { return };
        if !machine.faults.boot_hangs {
            self.power_on(node);
        }
    }

    /// Takes a machine's power.
    pub fn power_off(&mut self, node: u32) {
        let Some(machine) = self.machine(node).filter(|machine| machine.on).cloned() else { return };
        let components: Vec<ControlPlaneComponent> = machine.static_pods.keys().copied().collect();
        self.change_machine(node, |machine| {
            machine.on = false;
            machine.boot += 1;
            machine.units.clear();
        });
        self.stop_kubelet(node);
        self.stop_static_pods(node, &components);
    }

    /// Gives a machine power; it is there after its time to boot.
    pub fn power_on(&mut self, node: u32) {
        let Some(boot) = self.machine(node).filter(|machine| !machine.on).map(|machine| machine.boot) else { return };
        let after = self.pace.boot;
        self.queue(after, Event::Booted { node, boot });
    }

    pub(super) fn booted(&mut self, node: u32, boot: u32) {
        if !self.machine(node).is_some_and(|machine| machine.boot == boot && !machine.on) {
            return;
        }
        let boot_id: Text = uuid_text(self.new_uid()).into();
        self.change_machine(node, |machine| {
            machine.on = true;
            machine.boot_id = boot_id;
            machine.runtime.running = Some(machine.runtime.disk.clone());
        });
        // Containers did not survive.
        let pods: Vec<u32> = self.pods_on(node).collect();
        for id in pods {
            self.set_ready(id, false);
            let version = self.next_version();
            self.pods.change(id, version, |pod| {
                if pod.mirror.is_none() && !pod.is_finished() {
                    pod.phase = Phase::Pending;
                    pod.life += 1;
                    pod.restarts += 1;
                }
            });
        }
        self.start_kubelet(node);
    }
}

/// Whether `--emulated-version` is a flag of it.
fn can_emulate(component: ControlPlaneComponent) -> bool {
    component != ControlPlaneComponent::Etcd
}

fn changed(
    machine: &Machine,
    images: &[(ControlPlaneComponent, Text)],
    emulates: Option<MinorVersion>,
) -> Vec<ControlPlaneComponent> {
    let differs = |(component, image): &&(ControlPlaneComponent, Text)| {
        let told_otherwise = can_emulate(*component) && machine.emulates != emulates;
        let pod = machine.static_pods.get(component);
        pod.is_some_and(|pod| told_otherwise || pod.image != *image || pod.running.as_ref() != Some(image))
    };
    images.iter().filter(differs).map(|(component, _)| *component).collect()
}

/// What a kubelet tells of its machine.
fn tell(node: &mut super::object::Node, machine: &Machine) {
    node.info.boot_id = machine.boot_id.clone();
    node.info.machine_id = machine.machine_id.clone();
    if let Some(kubelet) = &machine.kubelet.running {
        node.info.kubelet_version = kubelet.version.clone();
    }
    if let Some(runtime) = &machine.runtime.running {
        node.info.container_runtime_version = runtime_version(&runtime.version);
    }
}
