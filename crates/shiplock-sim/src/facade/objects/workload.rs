//! Deployments, ReplicaSets, StatefulSets and DaemonSets.

use std::sync::Arc;

use serde_json::{Value, json};

use super::metadata::{envelope, owner, put, read_selector, selector, time, write};
use super::template;
use crate::world::{Behaviour, Meta, Workload, WorkloadId, WorkloadKind, WorkloadSpec, World};

/// Which template of its Deployment a ReplicaSet is of, and the one that a Deployment has now: `kubectl rollout undo` goes by
/// it.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// Takes of an object what its writer may say of its metadata; the revision is the controller's to say.
fn write_metadata(meta: &mut Meta, object: &Value) {
    write(meta, object);
    Arc::make_mut(&mut meta.annotations).remove(REVISION);
}

/// Renders a workload.
pub(super) fn render(world: &World, _: u32, workload: &Workload) -> Value {
    let mut object = envelope("apps/v1", workload.kind.word(), &workload.meta);
    object["metadata"]["generation"] = workload.meta.generation.into();
    if let Some(id) = workload.owner {
        put(&mut object["metadata"], "ownerReferences", owner(world, id));
    }
    if workload.kind == WorkloadKind::Deployment || workload.owner.is_some() {
        object["metadata"]["annotations"][REVISION] = workload.revision.to_string().into();
    }
    let mut spec = json!({
        "selector": selector(&workload.selector),
        "template": template::render(&workload.template),
    });
    let (surge, unavailable) = workload.surge_and_unavailable;
    let status = workload.status;
    match workload.kind {
        WorkloadKind::Deployment => {
            spec["replicas"] = workload.replicas.into();
            spec["revisionHistoryLimit"] = 10.into();
            spec["strategy"] = json!({
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable},
            });
        }
        WorkloadKind::ReplicaSet => spec["replicas"] = workload.replicas.into(),
        WorkloadKind::StatefulSet => {
            spec["replicas"] = workload.replicas.into();
            spec["serviceName"] = (&*workload.meta.name).into();
            spec["podManagementPolicy"] = if workload.parallel { "Parallel" } else { "OrderedReady" }.into();
            spec["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
        }
        WorkloadKind::DaemonSet => {
            spec["updateStrategy"] = json!({"type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}});
        }
    }
    object["spec"] = spec;
    object["status"] = if workload.kind == WorkloadKind::DaemonSet {
        json!({
            "currentNumberScheduled": status.replicas,
            "desiredNumberScheduled": status.desired,
            "numberReady": status.ready,
            "numberAvailable": status.ready,
            "numberUnavailable": status.desired.saturating_sub(status.ready),
            "updatedNumberScheduled": status.updated,
            "numberMisscheduled": 0,
            "observedGeneration": status.observed_generation,
        })
    } else {
        json!({
            "replicas": status.replicas,
            "readyReplicas": status.ready,
            "availableReplicas": status.ready,
            "updatedReplicas": status.updated,
            "observedGeneration": status.observed_generation,
        })
    };
    if workload.kind == WorkloadKind::Deployment {
        let is_available = status.ready + unavailable >= workload.replicas;
        object["status"]["unavailableReplicas"] = workload.replicas.saturating_sub(status.ready).into();
        object["status"]["conditions"] = json!([{
            "type": "Available",
            "status": if is_available { "True" } else { "False" },
            "reason": if is_available { "MinimumReplicasAvailable" } else { "MinimumReplicasUnavailable" },
            "message": "",
            "lastTransitionTime": time(workload.meta.created_at),
            "lastUpdateTime": time(workload.meta.created_at),
        }]);
    }
    object
}

fn replicas(object: &Value) -> u32 {
    object["spec"]["replicas"].as_u64().map_or(1, |count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// Makes a workload; none where the name is taken.
pub(super) fn create(world: &mut World, kind: WorkloadKind, object: &Value) -> Option<u32> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let spec = WorkloadSpec {
        kind,
        namespace: text("namespace"),
        name: text("name"),
        replicas: replicas(object),
        selector: read_selector(&object["spec"]["selector"]),
        template: template::read(&object["spec"]["template"], Behaviour::default()),
        uid: None,
    };
    let id = world.add_workload(&spec)?;
    world.change_workload(id, |workload| write_metadata(&mut workload.meta, object));
    Some(id.id)
}

/// Takes what may be changed of a workload: replicas, template, labels, annotations.
pub(super) fn replace(world: &mut World, id: WorkloadId, object: &Value) {
    let Some(found) = world.workload(id).cloned() else { return };
    let mut meta = found.meta.clone();
    write_metadata(&mut meta, object);
    let count = if id.kind == WorkloadKind::DaemonSet { found.replicas } else { replicas(object) };
    let template = template::merged(&found.template, &object["spec"]["template"]);
    if found.meta.labels == meta.labels
        && found.meta.annotations == meta.annotations
        && found.replicas == count
        && found.template == template
    {
        return;
    }
    world.change_workload(id, |workload| {
        write_metadata(&mut workload.meta, object);
        workload.replicas = count;
        workload.template = template;
    });
}
