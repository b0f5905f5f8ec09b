//! What the agent on a simulated machine tells of it.

use std::time::Duration;

use shiplock_core::facts::{
    CertificateFacts, ComponentFacts, ControlPlaneComponent, ControlPlaneFacts, EtcdClusterFacts, EtcdFacts,
    EtcdMemberFacts, InstallMethod, MachineFacts, Observed, RunningContainerFacts, StaticPodFacts,
};
use shiplock_core::problem::{Code, Problem};

use crate::release::image_id;
use crate::step::kept_control_planes;
use crate::world::{Installed, Machine, World};

/// The certificate of a master that ends first.
pub(crate) const API_SERVER_CERTIFICATE: &str = "/etc/kubernetes/pki/apiserver.crt";

/// When it ends.
pub(crate) fn certificates_end_at(world: &World) -> jiff::Timestamp {
    (world.made_at() + Duration::from_secs(300 * 86_400)).timestamp()
}

/// What the agent on a node tells of its machine.
pub(crate) fn machine_facts(world: &World, id: u32) -> Option<MachineFacts> {
    let machine = world.machine(id).filter(|machine| machine.on)?;
    let component = |installed: &Installed, path: &str| {
        Observed::Known(ComponentFacts {
            path: path.to_owned(),
            install: InstallMethod::Binary,
            version: installed.disk.version.to_string(),
            sha256: installed.disk.sha256.to_string(),
            running_sha256: installed.running.as_ref().map(|running| running.sha256.to_string()),
        })
    };
    let control_plane = (!machine.static_pods.is_empty()).then(|| Box::new(control_plane(world, id, machine)));
    Some(MachineFacts {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        step_kinds: shiplock_agent::steps::KINDS.iter().map(|&kind| kind.to_owned()).collect(),
        machine_id: machine.machine_id.clone(),
        boot_id: machine.boot_id.to_string(),
        architecture: machine.architecture.to_string(),
        kubelet: component(&machine.kubelet, "/usr/bin/kubelet"),
        container_runtime: component(&machine.runtime, "/usr/bin/containerd"),
        kubelet_edits: Some(Observed::Known(Vec::new())),
        staging_free_bytes: machine.disk_free_bytes,
        control_plane,
    })
}

fn control_plane(world: &World, id: u32, machine: &Machine) -> ControlPlaneFacts {
    let components = machine.static_pods.iter().map(|(component, pod)| StaticPodFacts {
        component: *component,
        image: pod.image.to_string(),
        running: pod.running.as_ref().map(|image| RunningContainerFacts {
            image: image.to_string(),
            image_id: image_id(image),
            started_at: pod.started_at.timestamp(),
        }),
        healthy: pod.healthy,
    });
    ControlPlaneFacts {
        components: components.collect(),
        etcd: EtcdFacts::Stacked { cluster: etcd_facts(world, id) },
        hand_edits: Observed::Known(Vec::new()),
        certificates: CertificateFacts {
            first_to_end: API_SERVER_CERTIFICATE.to_owned(),
            ends_at: certificates_end_at(world),
            external_ca: false,
        },
        kubelet_server: format!("https://{}:6443", machine.name),
        kubelet_server_is_local: true,
        refusing_webhook: None,
        kept: kept_control_planes(machine),
        configured_version: None,
    }
}

/// etcd as the member on a master tells it.
pub(crate) fn etcd_facts(world: &World, id: u32) -> Observed<EtcdClusterFacts> {
    if !world.etcd_member_serves(id) {
        let problem = Problem::new(Code::EtcdNotWell).with("why", "its member does not answer");
        return Observed::Unknown { problem, since: world.made_at().timestamp() };
    }
    let etcd = world.etcd();
    let members = etcd.members.iter().map(|member| {
        let machine = world.machine(member.machine);
        let image = machine
            .and_then(|machine| machine.static_pods.get(&ControlPlaneComponent::Etcd))
            .map(|pod| pod.image.to_string());
        let version = image.and_then(|image| Some(image.rsplit_once(':')?.1.split('-').next()?.to_owned()));
        EtcdMemberFacts {
            id: member.id,
            name: machine.map(|machine| machine.name.to_string()).unwrap_or_default(),
            is_learner: member.is_learner,
            healthy_version: version.filter(|_| world.etcd_member_serves(member.machine)),
        }
    });
    Observed::Known(EtcdClusterFacts {
        own_id: etcd.members.iter().find(|member| member.machine == id).map_or(0, |member| member.id),
        leader_id: etcd.leader,
        members: members.collect(),
        alarms: etcd.alarms.iter().map(ToString::to_string).collect(),
    })
}
