//! Values for tests of this crate and, with feature `sample`, of others: a cluster of pools, its agents, a mirror's
//! index, and plans made from them. Never part of a product build.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::artefact::{ArtefactFile, ArtefactImage, ArtefactIndex, ReleaseArtefacts, SCHEMA};
use crate::catalogue::{Catalogue, VersionRequest};
use crate::estimate::MeasuredTimes;
use crate::facts::{
    AddonFacts, AgentFacts, ApiServerFacts, CONTROL_PLANE_LABEL, CertificateFacts, ClusterFacts, ComponentFacts,
    ControlPlaneComponent, ControlPlaneFacts, ControlPlanePodFacts, EtcdClusterFacts, EtcdFacts, EtcdMemberFacts,
    InstallMethod, MachineFacts, NodeFacts, Observed, POOL_LABEL, Readiness, RunningContainerFacts, StaticPodFacts,
    WorkloadFacts,
};
use crate::id::{Actor, ClusterName, NodeName, PlanId};
use crate::plan::{Mode, Plan, PlanInput, PlanOptions, PlanRequest, make_plan};
use crate::problem::Problem;

/// A moment, in seconds after the beginning of all samples.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("samples are well formed")
}

/// A Ready worker.
pub fn node(name: &str, pool: &str, kubelet: &str) -> NodeFacts {
    NodeFacts {
        uid: format!("uid-{name}").into(),
        machine_id: format!("machine-{name}").into(),
        boot_id: "boot".to_owned(),
        architecture: "amd64".to_owned(),
        kubelet_version: kubelet.to_owned(),
        container_runtime_version: "containerd://1.6.20~ds1".to_owned(),
        ready: Readiness::Ready,
        unschedulable: false,
        owner: None,
        taints: Vec::new(),
        labels: BTreeMap::from([(POOL_LABEL.to_owned(), pool.to_owned())]),
    }
}

/// A 1.36 cluster with pools of 1.35 workers, named `POOL-01` and so on, and one workload.
pub fn cluster(pools: &[(&str, usize)]) -> ClusterFacts {
    let mut nodes = BTreeMap::new();
    for (pool, count) in pools {
        for index in 1..=*count {
            let name = format!("{pool}-{index:02}");
            nodes.insert(NodeName::from(name.as_str()), node(&name, pool, "v1.35.4"));
        }
    }
    ClusterFacts {
        uid: "cluster-uid".into(),
        observed_at: at(0),
        api_servers: vec![ApiServerFacts {
            address: "10.0.0.1:6443".to_owned(),
            version: "v1.36.3".parse().expect("samples are well formed"),
            emulates: None,
        }],
        nodes,
        pods: Vec::new(),
        budgets: Vec::new(),
        workloads: vec![WorkloadFacts {
            kind: "Deployment".into(),
            namespace: "shop".into(),
            name: "cart".into(),
            desired: 2,
            ready: 2,
        }],
        control_plane_pods: Vec::new(),
        addons: Vec::new(),
    }
}

/// A 1.35 cluster with masters `m1`, `m2` … and a pool `blue` of workers, all at v1.35.4.
pub fn cluster_with_masters(masters: u64, workers: usize) -> ClusterFacts {
    let mut cluster = cluster(&[("blue", workers)]);
    cluster.api_servers.clear();
    for index in 1..=masters {
        let name = format!("m{index}");
        let mut master = node(&name, "masters", "v1.35.4");
        master.labels = BTreeMap::from([(CONTROL_PLANE_LABEL.to_owned(), String::new())]);
        master.taints.push(CONTROL_PLANE_LABEL.to_owned());
        cluster.nodes.insert(NodeName::from(name.as_str()), master);
        let version = "v1.35.4".parse().expect("samples are well formed");
        cluster.api_servers.push(ApiServerFacts { address: format!("10.0.0.{index}:6443"), version, emulates: None });
        for component in ControlPlaneComponent::ALL {
            cluster.control_plane_pods.push(ControlPlanePodFacts {
                node: NodeName::from(name.as_str()),
                component,
                image: old_image(component),
                ready: true,
                restarts: 0,
            });
        }
    }
    let addon = |name: &str, image: &str| AddonFacts {
        name: name.to_owned(),
        image: image.to_owned(),
        rolled_out: true,
        edits: Vec::new(),
    };
    cluster.addons = vec![
        addon("kube-proxy", "registry.k8s.io/kube-proxy:v1.35.4"),
        addon("coredns", "registry.k8s.io/coredns/coredns:v1.13.1"),
    ];
    cluster
}

fn old_image(component: ControlPlaneComponent) -> String {
    let tag = if component == ControlPlaneComponent::Etcd { "3.6.6-0" } else { "v1.35.4" };
    format!("registry.k8s.io/{}:{tag}", component.name())
}

/// What the agent on a master tells: etcd of as many members as there are masters, all well, led by `m1`.
fn control_plane(masters: u64, own_id: u64) -> ControlPlaneFacts {
    let member = |id: u64| EtcdMemberFacts {
        id,
        name: format!("m{id}"),
        is_learner: false,
        healthy_version: Some("3.6.6".to_owned()),
    };
    let pod = |component: ControlPlaneComponent| StaticPodFacts {
        component,
        image: old_image(component),
        running: Some(RunningContainerFacts {
            image: old_image(component),
            image_id: format!("sha256:{}", "6".repeat(64)),
            started_at: at(-1_000),
        }),
        healthy: true,
    };
    ControlPlaneFacts {
        components: ControlPlaneComponent::ALL.into_iter().map(pod).collect(),
        etcd: EtcdFacts::Stacked {
            cluster: Observed::Known(EtcdClusterFacts {
                own_id,
                leader_id: 1,
                members: (1..=masters).map(member).collect(),
                alarms: Vec::new(),
            }),
        },
        hand_edits: Observed::Known(Vec::new()),
        configured_version: Some(Observed::Known("v1.35.4".to_owned())),
        certificates: CertificateFacts {
            first_to_end: "/etc/kubernetes/pki/apiserver.crt".to_owned(),
            ends_at: at(100 * 86_400),
            external_ca: false,
        },
        refusing_webhook: None,
        kubelet_server: format!("https://10.0.0.{own_id}:6443"),
        kubelet_server_is_local: true,
        kept: Vec::new(),
    }
}

/// A live agent for each node.
pub fn agents(cluster: &ClusterFacts, now: Timestamp) -> BTreeMap<NodeName, AgentFacts> {
    let component = |version: &str| {
        Observed::Known(ComponentFacts {
            path: "/usr/bin/kubelet".to_owned(),
            install: InstallMethod::Binary,
            version: version.to_owned(),
            sha256: "1".repeat(64),
            running_sha256: Some("1".repeat(64)),
        })
    };
    let masters = cluster.nodes.values().filter(|node| node.is_control_plane()).count() as u64;
    let agent = |name: &NodeName, node: &NodeFacts| AgentFacts {
        last_heard_at: now,
        machine: Arc::new(MachineFacts {
            agent_version: "0.1.0".to_owned(),
            step_kinds: [
                "prefetch",
                "upgrade_container_runtime",
                "upgrade_kubelet",
                "collect_logs",
                "backup_etcd",
                "upgrade_control_plane",
                "restore_control_plane",
                "upload_configuration",
                "restore_configuration",
                "upgrade_addons",
            ]
            .map(str::to_owned)
            .to_vec(),
            machine_id: node.machine_id.clone(),
            boot_id: node.boot_id.clone(),
            architecture: node.architecture.clone(),
            kubelet: component("v1.35.4"),
            container_runtime: component("v1.6.20"),
            kubelet_edits: None,
            staging_free_bytes: 1 << 40,
            control_plane: node.is_control_plane().then(|| {
                let id = name.as_str().trim_start_matches('m').parse().expect("samples are well formed");
                Box::new(control_plane(masters, id))
            }),
        }),
    };
    cluster.nodes.iter().map(|(name, node)| (name.clone(), agent(name, node))).collect()
}

/// A mirror's index for 1.36.3.
pub fn artefacts() -> ArtefactIndex {
    let file = |role: &str, version: &str| ArtefactFile {
        role: role.to_owned(),
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        path: format!("files/{role}"),
        size_bytes: 1 << 20,
        sha256: "2".repeat(64),
    };
    let image = |role: &str, tag: &str| ArtefactImage {
        role: role.to_owned(),
        reference: format!("registry.k8s.io/{role}:{tag}"),
        architecture: "amd64".to_owned(),
        path: format!("images/{role}.tar"),
        size_bytes: 1 << 20,
        sha256: "3".repeat(64),
        digest: format!("sha256:{}", "4".repeat(64)),
        image_id: None,
    };
    let release = |version: &str| ReleaseArtefacts {
        kubernetes: version.parse().expect("samples are well formed"),
        files: ["kubeadm", "kubelet", "kubectl"]
            .iter()
            .map(|role| file(role, version))
            .chain(["etcdctl", "etcdutl"].iter().map(|role| file(role, "v3.6.8")))
            .chain(["containerd", "containerd-shim-runc-v2", "ctr"].iter().map(|role| file(role, "v2.2.9")))
            .collect(),
        images: vec![
            image("kube-proxy", version),
            image("pause", "3.10.2"),
            image("kube-apiserver", version),
            image("kube-controller-manager", version),
            image("kube-scheduler", version),
            image("etcd", "3.6.8-0"),
            ArtefactImage {
                reference: "registry.k8s.io/coredns/coredns:v1.14.2".to_owned(),
                ..image("coredns", "v1.14.2")
            },
        ],
    };
    ArtefactIndex { schema: SCHEMA.to_owned(), releases: vec![release("v1.36.3")] }
}

/// A request for all pools, and nothing but pools.
pub fn request(to: &str, options: PlanOptions) -> PlanRequest {
    PlanRequest {
        to: VersionRequest::parse(to).expect("samples are well formed"),
        mode: Mode::NodePools,
        pools: Vec::new(),
        nodes: Vec::new(),
        exclude_nodes: Vec::new(),
        options,
    }
}

/// A request for the control plane and all pools.
pub fn request_for_all(to: &str, options: PlanOptions) -> PlanRequest {
    PlanRequest { mode: Mode::Cluster, ..request(to, options) }
}

/// A plan for a cluster `prod`, with an agent on each node.
pub fn plan_of(cluster: &ClusterFacts, request: &PlanRequest) -> Result<Plan, Problem> {
    plan_with(cluster, &agents(cluster, at(0)), request)
}

/// A plan for a cluster `prod` with these agents.
pub fn plan_with(
    cluster: &ClusterFacts,
    agents: &BTreeMap<NodeName, AgentFacts>,
    request: &PlanRequest,
) -> Result<Plan, Problem> {
    make_plan(&PlanInput {
        id: &PlanId::from("p1"),
        now: at(0),
        by: &Actor::from("tester"),
        cluster: &ClusterName::from("prod"),
        request,
        catalogue: &Catalogue::shipped(),
        facts: cluster,
        agents,
        mirror: "http://mirror",
        artefacts: &artefacts(),
        measured: &MeasuredTimes::default(),
    })
}
