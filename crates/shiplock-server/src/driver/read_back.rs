//! Whether what runs is what the plan claims, read from facts.

use shiplock_core::artefact::ArtefactImage;
use shiplock_core::facts::{ClusterFacts, ControlPlaneFacts, EtcdFacts, NodeFacts, Observed, Readiness, not_ready};
use shiplock_core::id::{NodeName, ObjectUid};
use shiplock_core::plan::NodePlan;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::Action;
use shiplock_core::version::KubernetesVersion;

/// What the node's own steps claim of its kubelet. After a rollback masters may differ, as they did before.
pub(super) fn kubelet_after(planned: &NodePlan) -> Option<KubernetesVersion> {
    planned.steps.iter().find_map(|step| match &step.action {
        Action::VerifyNode { kubelet, .. } => Some(*kubelet),
        _ => None,
    })
}

/// A node that has another UID than planned.
pub(super) fn joined_again(node: &NodePlan, found: &ObjectUid) -> Problem {
    node.wrong_machine("uid", &node.uid, found)
}

pub(super) fn check_node(name: &NodeName, node: &NodeFacts, kubelet: KubernetesVersion) -> Result<(), Problem> {
    read_back(name, "kubelet", &kubelet.to_string(), &node.kubelet_version)?;
    match &node.ready {
        Readiness::Ready => Ok(()),
        Readiness::NotReady { why } => Err(not_ready(name, why)),
    }
}

/// Each component on a master runs the planned image by the runtime's word, its own endpoint answers, its mirror pod is
/// Ready with that image, and etcd is well as a whole: a kubelet of a new version starts the static pods anew after the
/// node is Ready, so the node alone proves nothing.
pub(super) fn check_master(
    node: &NodeName,
    images: &[ArtefactImage],
    control_plane: Option<&ControlPlaneFacts>,
    cluster: &ClusterFacts,
) -> Result<(), Problem> {
    let Some(control_plane) = control_plane else {
        return read_back(node, "control plane", "static pods", "unknown");
    };
    for image in images {
        let found = control_plane.components.iter().find(|found| found.component.name() == image.role);
        let running = found.and_then(|found| found.running.as_ref());
        let reference = running.map_or("nothing", |running| running.image.as_str());
        read_back(node, &image.role, &image.reference, reference)?;
        // Without the id in the index, the agent's own comparison of manifest and running image stands.
        if let Some(expected) = &image.image_id {
            let found = running.map_or("", |running| &running.image_id);
            read_back(node, &format!("{} image id", image.role), expected, found)?;
        }
        if !found.is_some_and(|found| found.healthy) {
            return read_back(node, &image.role, "healthy", "no good answer from its own endpoint");
        }
        let mirror =
            cluster.control_plane_pods.iter().find(|pod| pod.node == *node && pod.component.name() == image.role);
        read_back(
            node,
            &format!("pod {}-{node}", image.role),
            &image.reference,
            mirror.map_or("no pod", |pod| &pod.image),
        )?;
        if !mirror.is_some_and(|pod| pod.ready) {
            return read_back(node, &format!("pod {}-{node}", image.role), "Ready", "not Ready");
        }
    }
    match &control_plane.etcd {
        EtcdFacts::External { .. } => Ok(()),
        EtcdFacts::Stacked { cluster: Observed::Unknown { problem, .. } } => Err(problem.clone()),
        EtcdFacts::Stacked { cluster: Observed::Known(etcd) } => {
            match etcd.members.iter().find(|member| member.healthy_version.is_none()) {
                None => Ok(()),
                Some(ill) => read_back(node, &format!("etcd member {}", ill.name), "healthy", "no good answer"),
            }
        }
    }
}

pub(super) fn read_back(node: &NodeName, component: &str, expected: &str, found: &str) -> Result<(), Problem> {
    if expected == found {
        return Ok(());
    }
    let problem =
        Problem::new(Code::ReadBackMismatch).with("component", component).with("subject", format!("node {node}"));
    Err(problem.with("expected", expected).with("found", found))
}
