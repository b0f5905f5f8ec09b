//! The plan that is rehearsed where no server made one, and what stands in for what only a server knows.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use shiplock_core::artefact::{ArtefactFile, ArtefactImage, ArtefactIndex, ReleaseArtefacts, SCHEMA};
use shiplock_core::catalogue::Catalogue;
use shiplock_core::estimate::MeasuredTimes;
use shiplock_core::facts::{AgentFacts, ClusterFacts, NodeFacts};
use shiplock_core::id::{Actor, ClusterName, NodeName, PlanId, StepNumber};
use shiplock_core::plan::{DrainDecision, Mode, NodePlan, Plan, PlanInput, PlanRequest, Stage, StageKind, make_plan};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::{Action, Step, Target};
use shiplock_core::version::KubernetesVersion;

use crate::machine::machine_facts;
use crate::world::World;

/// The room that agents are assumed to find for what they fetch.
const ROOM_BYTES: u64 = 1 << 40;
/// About what the files and images of a release weigh, in bytes: what a prefetch is estimated with.
const FILE_BYTES: u64 = 60 << 20;
const IMAGE_BYTES: u64 = 30 << 20;

/// Makes the plan. Without the index of a mirror one is assumed that holds the target and leaves runtimes as they are.
pub(super) fn plan_of(
    facts: &ClusterFacts,
    agents: &BTreeMap<NodeName, AgentFacts>,
    request: &PlanRequest,
    index: Option<(&str, &ArtefactIndex)>,
    now: Timestamp,
) -> Result<Plan, Problem> {
    let catalogue = Catalogue::shipped();
    let assumed;
    let (mirror, artefacts) = match index {
        Some(given) => given,
        None => {
            assumed = assumed_index(facts, &catalogue, request)?;
            ("/assumed", &assumed)
        }
    };
    make_plan(&PlanInput {
        id: &PlanId::from("rehearsal"),
        now,
        by: &Actor::from("rehearsal"),
        cluster: &ClusterName::from("snapshot"),
        request,
        catalogue: &catalogue,
        facts,
        agents,
        mirror,
        artefacts,
        measured: &MeasuredTimes::default(),
    })
}

/// Cordon, drain and give back, node after node: what can be answered without knowing the versions.
pub(super) fn drains_only(
    facts: &ClusterFacts,
    request: &PlanRequest,
    version: KubernetesVersion,
    now: Timestamp,
) -> Result<Plan, Problem> {
    request.options.check()?;
    let options = &request.options;
    let mut number = 0;
    let mut pools: BTreeMap<_, Vec<NodePlan>> = BTreeMap::new();
    let mut step = |action: Action, node: Option<&NodeName>, timeout_seconds: u32| {
        number += 1;
        let target = node.map_or(Target::Cluster, |node| Target::Node(node.clone()));
        Step { number: StepNumber(number), action, target, timeout_seconds }
    };
    let baseline = step(Action::CaptureBaseline, None, 120);
    // Steps are numbered in the order of work: pool after pool.
    let mut by_pool: BTreeMap<_, Vec<(&NodeName, &NodeFacts)>> = BTreeMap::new();
    for (name, node) in facts.nodes.iter().filter(|(_, node)| !node.is_control_plane()) {
        by_pool.entry(node.pool()).or_default().push((name, node));
    }
    for (pool, nodes) in by_pool {
        for (name, node) in nodes {
            let timeout_seconds = options.drain_timeout_seconds;
            let drain = Action::Drain { timeout_seconds, on_timeout: options.on_drain_timeout };
            let steps = vec![
                step(Action::Cordon, Some(name), 60),
                step(drain, Some(name), timeout_seconds.saturating_add(60)),
                step(Action::Uncordon, Some(name), 60),
            ];
            pools.entry(pool.clone()).or_default().push(NodePlan {
                node: name.clone(),
                uid: node.uid.clone(),
                machine_id: node.machine_id.clone(),
                kubelet_from: node.kubelet().unwrap_or(version),
                container_runtime_from: node.container_runtime_version.clone(),
                cordoned_before: node.unschedulable,
                drain: DrainDecision::Drain,
                steps,
                evidence: None,
            });
        }
    }
    if pools.is_empty() {
        return Err(Problem::new(Code::NoWorkers));
    }
    let first = Stage { kind: StageKind::Preparation, steps: vec![baseline], nodes: Vec::new() };
    let rest =
        pools.into_iter().map(|(pool, nodes)| Stage { kind: StageKind::NodePool { pool }, steps: Vec::new(), nodes });
    Ok(Plan {
        id: PlanId::from("rehearsal"),
        hash: String::new(),
        created_at: now,
        created_by: Actor::from("rehearsal"),
        cluster: ClusterName::from("snapshot"),
        cluster_uid: facts.uid.clone(),
        catalogue: String::new(),
        mode: Mode::NodePools,
        control_plane: version,
        to: version,
        hops: Vec::new(),
        stages: std::iter::once(first).chain(rest).collect(),
        options: request.options.clone(),
        notes: Vec::new(),
        measured: BTreeMap::new(),
    })
}

/// An agent on every node, alive and with room: a snapshot does not tell of agents.
pub(super) fn assumed_agents(world: &World) -> BTreeMap<NodeName, AgentFacts> {
    let last_heard_at = world.now().timestamp();
    let agent = |id: u32| {
        let mut machine = machine_facts(world, id)?;
        machine.staging_free_bytes = ROOM_BYTES;
        Some(AgentFacts { last_heard_at, machine: machine.into() })
    };
    let nodes = world.nodes().iter();
    nodes.filter_map(|(id, node)| Some((NodeName::new(node.meta.name.clone()), agent(id)?))).collect()
}

/// The images that a plan names have the ids that images of the world have: those of the real ones are in no snapshot.
pub(super) fn without_image_ids(plan: &mut Plan) {
    for step in plan.stages.iter_mut().flat_map(|stage| &mut stage.nodes).flat_map(|node| &mut node.steps) {
        if let Action::VerifyNode { control_plane_images, .. } = &mut step.action {
            for image in control_plane_images {
                image.image_id = None;
            }
        }
    }
}

/// A mirror that holds the target for every architecture. Whoever asks for the minor version that runs means the very version
/// that runs, so that this is there too.
fn assumed_index(facts: &ClusterFacts, catalogue: &Catalogue, request: &PlanRequest) -> Result<ArtefactIndex, Problem> {
    let versions = BTreeSet::from([catalogue.resolve(request.to)?, facts.control_plane_version()?]);
    let releases = versions.into_iter().map(|version| assumed_release(facts, catalogue, version)).collect();
    Ok(ArtefactIndex { schema: SCHEMA.to_owned(), releases })
}

/// A release under the names of images that run.
fn assumed_release(facts: &ClusterFacts, catalogue: &Catalogue, to: KubernetesVersion) -> ReleaseArtefacts {
    let architectures: BTreeSet<&str> = facts.nodes.values().map(|node| node.architecture.as_str()).collect();
    let version = to.to_string();
    let components = catalogue.release(to.release).map(|release| release.components.clone());
    let digest = |what: &str| shiplock_core::plan::hexadecimal(&what.bytes().cycle().take(32).collect::<Vec<u8>>());
    let repository = |role: &str, usual: &str| {
        let of_pods = facts.control_plane_pods.iter().find(|pod| pod.component.name() == role).map(|pod| &pod.image);
        let found = of_pods.or_else(|| facts.addons.iter().find(|addon| addon.name == role).map(|addon| &addon.image));
        let name = found.and_then(|image| image.split('@').next()?.rsplit_once(':')).map(|(name, _)| name.to_owned());
        name.unwrap_or_else(|| format!("registry.k8s.io/{usual}"))
    };
    let (etcd, coredns, pause) = components.map_or_else(
        || ("0".to_owned(), "v0".to_owned(), "0".to_owned()),
        |found| (format!("{}-0", found.etcd), format!("v{}", found.coredns.trim_start_matches('v')), found.pause),
    );
    let (mut files, mut images) = (Vec::new(), Vec::new());
    for architecture in architectures {
        let roles =
            ["kubeadm", "kubelet", "kubectl", "etcdctl", "etcdutl", "containerd", "containerd-shim-runc-v2", "ctr"];
        files.extend(roles.map(|role| ArtefactFile {
            role: role.to_owned(),
            // A runtime of version 0 is never newer than what runs.
            version: if role.starts_with("kube") { version.clone() } else { "v0".to_owned() },
            architecture: architecture.to_owned(),
            path: role.to_owned(),
            size_bytes: FILE_BYTES,
            sha256: digest(role),
        }));
        let all = [
            ("kube-proxy", "kube-proxy", &version),
            ("pause", "pause", &pause),
            ("kube-apiserver", "kube-apiserver", &version),
            ("kube-controller-manager", "kube-controller-manager", &version),
            ("kube-scheduler", "kube-scheduler", &version),
            ("etcd", "etcd", &etcd),
            ("coredns", "coredns/coredns", &coredns),
        ];
        images.extend(all.map(|(role, usual, tag)| ArtefactImage {
            role: role.to_owned(),
            reference: format!("{}:{tag}", repository(role, usual)),
            architecture: architecture.to_owned(),
            path: role.to_owned(),
            size_bytes: IMAGE_BYTES,
            sha256: digest(role),
            digest: format!("sha256:{}", digest(role)),
            image_id: None,
        }));
    }
    ReleaseArtefacts { kubernetes: to, files, images }
}
