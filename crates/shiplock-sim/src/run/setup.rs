//! What a simulated upgrade begins with: a cluster, what runs on it, a mirror's index, and the plan.

use std::collections::BTreeMap;
use std::time::Duration;

use shiplock_core::artefact::{ArtefactFile, ArtefactImage, ArtefactIndex, ReleaseArtefacts, SCHEMA};
use shiplock_core::catalogue::{Catalogue, VersionRequest};
use shiplock_core::estimate::MeasuredTimes;
use shiplock_core::facts::{
    AgentFacts, CertificateFacts, ComponentFacts, ControlPlaneComponent, ControlPlaneFacts, EtcdClusterFacts,
    EtcdFacts, EtcdMemberFacts, InstallMethod, MachineFacts, Observed, POOL_LABEL, RunningContainerFacts,
    StaticPodFacts,
};
use shiplock_core::id::{Actor, ClusterName, NodeName, PlanId};
use shiplock_core::plan::{Mode, Plan, PlanInput, PlanOptions, PlanRequest, make_plan};
use shiplock_core::problem::{Code, Problem};

use crate::world::{
    Installed, Keep, Moment, NodeSpec, Pace, PodTemplate, Selector, Share, WorkloadKind, WorkloadSpec, World, labels,
};

/// When simulated time begins.
pub const BEGIN: Moment = Moment(1_800_000_000_000);
/// The version before.
pub const FROM: &str = "v1.35.4";
/// The version after.
pub const TO: &str = "v1.36.3";
/// containerd before.
const RUNTIME_FROM: &str = "v1.6.20";
/// containerd after.
const RUNTIME_TO: &str = "v2.2.9";

/// A budget of a workload.
#[derive(Clone, Copy, Debug)]
pub enum BudgetSetup {
    /// There is none.
    None,
    /// It lets pods go one at a time.
    Loose,
    /// It allows no disruption until it is changed.
    Blocking,
}

/// The cluster of a simulation.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Masters, with an etcd member each.
    pub masters: usize,
    /// Workers, in pools of this many each.
    pub pools: Vec<(String, usize)>,
    /// Deployments: name, replicas, budget.
    pub workloads: Vec<(String, u32, BudgetSetup)>,
    /// The options of the plan.
    pub options: PlanOptions,
}

impl Setup {
    /// Masters, one pool of workers, two workloads with loose budgets.
    pub fn new(masters: usize, workers: usize) -> Self {
        Self {
            masters,
            pools: vec![("blue".to_owned(), workers)],
            workloads: vec![("cart".to_owned(), 4, BudgetSetup::Loose), ("search".to_owned(), 2, BudgetSetup::None)],
            options: PlanOptions::default(),
        }
    }

    /// The world at rest, before anything is done to it.
    pub fn world(&self, seed: u64) -> World {
        let mut world = World::new(seed, BEGIN, Pace::default(), 0);
        if self.masters == 0 {
            // Node pools are upgraded to what the control plane runs already.
            world.set_api_elsewhere(TO.parse().expect("a constant is well formed"));
        }
        let old = |component: ControlPlaneComponent| image_of(component, FROM);
        for index in 1..=self.masters {
            let images: Vec<_> =
                ControlPlaneComponent::ALL.into_iter().map(|component| (component, old(component))).collect();
            let images: Vec<_> = images.iter().map(|(component, image)| (*component, image.as_str())).collect();
            world.add_node(&NodeSpec::master(&format!("m{index}"), FROM, RUNTIME_FROM, &images));
        }
        for (pool, count) in &self.pools {
            for index in 1..=*count {
                let mut spec = NodeSpec::worker(&format!("{pool}-{index:02}"), FROM, RUNTIME_FROM);
                spec.labels.insert(POOL_LABEL.to_owned(), pool.clone());
                world.add_node(&spec);
            }
        }
        let addon = |kind, name: &str, replicas, image: &str| {
            let mut spec = WorkloadSpec::new(kind, "kube-system", name, replicas);
            spec.template.containers = vec![(name.into(), image.into())];
            if kind == WorkloadKind::DaemonSet {
                spec.template.tolerations.push(crate::world::Toleration {
                    key: "".into(),
                    value: None,
                    effect: None,
                    seconds: None,
                });
            }
            spec
        };
        if self.masters > 0 {
            world.add_workload(&addon(WorkloadKind::DaemonSet, "kube-proxy", 0, &proxy_image(FROM)));
            world.add_workload(&addon(WorkloadKind::Deployment, "coredns", 2, COREDNS_FROM));
        }
        for (name, replicas, budget) in &self.workloads {
            let mut spec = WorkloadSpec::new(WorkloadKind::Deployment, "shop", name, *replicas);
            spec.template = PodTemplate { labels: labels([("app", name.as_str())]), ..PodTemplate::default() };
            world.add_workload(&spec);
            let keep = match budget {
                BudgetSetup::None => continue,
                BudgetSetup::Loose => Keep::MaxUnavailable(Share::Count(1)),
                BudgetSetup::Blocking => Keep::MinAvailable(Share::Count(*replicas)),
            };
            world.add_budget("shop", name, Some(Selector::of([("app", name.as_str())])), keep);
        }
        world.settle(Duration::from_secs(120));
        world
    }

    /// The plan for a world, or why there is none.
    pub fn plan(&self, world: &World) -> Result<Plan, Problem> {
        let facts = world.cluster_facts(false);
        let now = world.now().timestamp();
        let agent = |id: u32| Some(AgentFacts { last_heard_at: now, machine: machine_facts(world, id)?.into() });
        let agents: BTreeMap<NodeName, AgentFacts> = world
            .nodes()
            .iter()
            .filter_map(|(id, node)| Some((NodeName::new(node.meta.name.to_string()), agent(id)?)))
            .collect();
        let to = VersionRequest::parse(TO)?;
        let request = PlanRequest {
            to,
            mode: if self.masters > 0 { Mode::Cluster } else { Mode::NodePools },
            pools: Vec::new(),
            nodes: Vec::new(),
            exclude_nodes: Vec::new(),
            options: self.options.clone(),
        };
        make_plan(&PlanInput {
            id: &PlanId::from("p1"),
            now,
            by: &Actor::from("operator"),
            cluster: &ClusterName::from(CLUSTER),
            request: &request,
            catalogue: &Catalogue::shipped(),
            facts: &facts,
            agents: &agents,
            mirror: "http://mirror",
            artefacts: &artefacts(),
            measured: &MeasuredTimes::default(),
        })
    }
}

/// The name of the simulated cluster.
pub const CLUSTER: &str = "sim";
const COREDNS_FROM: &str = "registry.k8s.io/coredns/coredns:v1.13.1";
const COREDNS_TO: &str = "registry.k8s.io/coredns/coredns:v1.14.2";

fn proxy_image(version: &str) -> String {
    format!("registry.k8s.io/kube-proxy:{version}")
}

fn image_of(component: ControlPlaneComponent, version: &str) -> String {
    let etcd = if version == FROM { "3.6.6-0" } else { "3.6.8-0" };
    let tag = if component == ControlPlaneComponent::Etcd { etcd } else { version };
    format!("registry.k8s.io/{}:{tag}", component.name())
}

/// Images of the add-ons at the target, by name.
pub(crate) fn addon_images() -> Vec<(crate::world::Text, crate::world::Text)> {
    vec![("kube-proxy".into(), proxy_image(TO).into()), ("coredns".into(), COREDNS_TO.into())]
}

/// The id of an image that follows from its reference.
pub(crate) fn image_id(reference: &str) -> String {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for byte in reference.bytes() {
        sum = (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("sha256:{}", format!("{sum:016x}").repeat(4))
}

/// What the mirror holds.
pub fn artefacts() -> ArtefactIndex {
    let file = |role: &str, version: &str, digit: &str| ArtefactFile {
        role: role.to_owned(),
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        path: format!("files/{role}"),
        size_bytes: 1 << 20,
        sha256: digit.repeat(64),
    };
    let image = |role: &str, reference: String| ArtefactImage {
        role: role.to_owned(),
        image_id: Some(image_id(&reference)),
        reference,
        architecture: "amd64".to_owned(),
        path: format!("images/{role}.tar"),
        size_bytes: 1 << 20,
        sha256: "3".repeat(64),
        digest: format!("sha256:{}", "4".repeat(64)),
    };
    let kubernetes = TO.parse().expect("a constant is well formed");
    let release = ReleaseArtefacts {
        kubernetes,
        files: vec![
            file("kubeadm", TO, "5"),
            file("kubelet", TO, "6"),
            file("kubectl", TO, "7"),
            file("etcdctl", "v3.6.8", "8"),
            file("etcdutl", "v3.6.8", "9"),
            file("containerd", RUNTIME_TO, "a"),
            file("containerd-shim-runc-v2", RUNTIME_TO, "b"),
            file("ctr", RUNTIME_TO, "c"),
        ],
        images: ControlPlaneComponent::ALL
            .into_iter()
            .map(|component| image(component.name(), image_of(component, TO)))
            .chain([
                image("kube-proxy", proxy_image(TO)),
                image("pause", "registry.k8s.io/pause:3.10.2".to_owned()),
                image("coredns", COREDNS_TO.to_owned()),
            ])
            .collect(),
    };
    ArtefactIndex { schema: SCHEMA.to_owned(), releases: vec![release] }
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
        agent_version: "sim".to_owned(),
        step_kinds: shiplock_agent::steps::KINDS.iter().map(|&kind| kind.to_owned()).collect(),
        machine_id: machine.machine_id.to_string(),
        boot_id: machine.boot_id.to_string(),
        architecture: machine.architecture.to_string(),
        kubelet: component(&machine.kubelet, "/usr/bin/kubelet"),
        container_runtime: component(&machine.runtime, "/usr/bin/containerd"),
        kubelet_edits: Some(Observed::Known(Vec::new())),
        staging_free_bytes: machine.disk_free_bytes,
        control_plane,
    })
}

fn control_plane(world: &World, id: u32, machine: &crate::world::Machine) -> ControlPlaneFacts {
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
        configured_version: None,
        certificates: CertificateFacts {
            first_to_end: "/etc/kubernetes/pki/apiserver.crt".to_owned(),
            ends_at: (BEGIN + Duration::from_secs(300 * 86_400)).timestamp(),
            external_ca: false,
        },
        kubelet_server: format!("https://{}:6443", machine.name),
        kubelet_server_is_local: true,
        refusing_webhook: None,
        kept: Vec::new(),
    }
}

/// etcd as the member on a master tells it.
pub(crate) fn etcd_facts(world: &World, id: u32) -> Observed<EtcdClusterFacts> {
    if !world.etcd_member_serves(id) {
        let problem = Problem::new(Code::EtcdNotWell).with("why", "its member does not answer");
        return Observed::Unknown { problem, since: BEGIN.timestamp() };
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
