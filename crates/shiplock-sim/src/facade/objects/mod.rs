//! The world's objects as JSON, and writes of JSON as operations of the world.
//!
//! Kinds that the world models are rendered when they are asked for; of writes to them only what the world knows is
//! taken. Every other kind is kept as it came.

mod budget;
mod lease;
mod metadata;
mod node;
mod pod;
mod service;
mod template;
mod validation;
mod volume;
mod workload;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::version::MinorVersion;

use self::metadata::envelope;
use super::resource::{RESOURCES, Resource};
use super::status::Refusal;
use crate::world::{
    Change, ChangeKind, DeleteAnswer, EvictAnswer, JsonObject, Labels, Object, Table, Text, WorkloadId, WorkloadKind,
    World, uuid_number, uuid_text,
};

/// One change of one object.
#[derive(Clone, Debug)]
pub(super) struct Changed {
    /// The object after it, or as it was last where it is gone.
    pub(super) object: Value,
    pub(super) kind: ChangeKind,
}

/// The changes after a version that a watch wants are not kept any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Forgotten;

/// What a resource is in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Nodes,
    Pods,
    Workloads(WorkloadKind),
    Budgets,
    Leases,
    Services,
    Claims,
    /// Computed of claims.
    Volumes,
    /// Computed of Services, beside those that are kept.
    Slices,
    /// Computed of what lies in them, beside those that are kept.
    Namespaces,
    Kept,
}

fn place(resource: &Resource) -> Place {
    match (resource.group, resource.kind) {
        ("", "Node") => Place::Nodes,
        ("", "Pod") => Place::Pods,
        ("", "Service") => Place::Services,
        ("", "PersistentVolumeClaim") => Place::Claims,
        ("", "PersistentVolume") => Place::Volumes,
        ("", "Namespace") => Place::Namespaces,
        ("apps", "Deployment") => Place::Workloads(WorkloadKind::Deployment),
        ("apps", "ReplicaSet") => Place::Workloads(WorkloadKind::ReplicaSet),
        ("apps", "StatefulSet") => Place::Workloads(WorkloadKind::StatefulSet),
        ("apps", "DaemonSet") => Place::Workloads(WorkloadKind::DaemonSet),
        ("policy", "PodDisruptionBudget") => Place::Budgets,
        ("coordination.k8s.io", "Lease") => Place::Leases,
        ("discovery.k8s.io", "EndpointSlice") => Place::Slices,
        _ => Place::Kept,
    }
}

/// Calls a generic function with the table of a place and its renderer; `$none` for what has no table.
macro_rules! with_table {
    ($world:expr, $resource:expr, $place:expr, $call:ident ( $($more:expr),* ), $none:expr) => {
        match $place {
            Place::Nodes => $call($world, $world.nodes(), node::render, $($more),*),
            Place::Pods => $call($world, $world.pods(), pod::render, $($more),*),
            Place::Workloads(kind) => $call($world, $world.workloads(kind), workload::render, $($more),*),
            Place::Budgets => $call($world, $world.budgets(), budget::render, $($more),*),
            Place::Leases => $call($world, $world.leases(), lease::render, $($more),*),
            Place::Services => $call($world, $world.services(), service::render, $($more),*),
            Place::Claims => $call($world, $world.claims(), volume::render, $($more),*),
            Place::Volumes => $none,
            Place::Slices | Place::Namespaces | Place::Kept => match $world.others(&$resource.qualified()) {
                Some(table) => $call($world, table, kept, $($more),*),
                None => $none,
            },
        }
    };
}

/// How an object of a table is rendered.
type Render<T> = fn(&World, u32, &T) -> Value;

fn one<T: Object>(world: &World, table: &Table<T>, render: Render<T>, namespace: &str, name: &str) -> Option<Value> {
    let id = table.id(namespace, name)?;
    Some(render(world, id, table.get(id)?))
}

fn all<T: Object>(world: &World, table: &Table<T>, render: Render<T>, namespace: Option<&str>) -> Vec<Value> {
    match namespace {
        Some(namespace) => table.in_namespace(namespace).map(|(id, object)| render(world, id, object)).collect(),
        None => table.iter().map(|(id, object)| render(world, id, object)).collect(),
    }
}

fn since<T: Object>(
    world: &World,
    table: &Table<T>,
    render: Render<T>,
    version: u64,
    current: u64,
) -> Result<Vec<Changed>, Forgotten> {
    // Nothing has changed since the world's newest version, whatever the table has dropped.
    if version >= current {
        return Ok(Vec::new());
    }
    let changed = |change: &Change<T>| {
        let object = &change.object;
        let id = table.id(object.namespace(), object.name()).unwrap_or(u32::MAX);
        Changed { object: render(world, id, object), kind: change.kind }
    };
    Ok(table.changes_since(version).map_err(|_| Forgotten)?.map(changed).collect())
}

fn kept(_: &World, _: u32, object: &JsonObject) -> Value {
    let meta = &object.meta;
    let mut value = (*object.value).clone();
    let rendered = envelope("", "", meta);
    for (name, field) in rendered["metadata"].as_object().into_iter().flatten() {
        value["metadata"][name] = field.clone();
    }
    if meta.generation > 0 && value.get("spec").is_some() {
        value["metadata"]["generation"] = meta.generation.into();
    }
    value
}

/// Where kubelets renew their Leases.
const NODE_LEASES: &str = "kube-node-lease";
/// Namespaces that every cluster has.
const NAMESPACES: [&str; 4] = ["default", NODE_LEASES, "kube-public", "kube-system"];

fn namespace(world: &World, name: &str) -> Value {
    let uid = if name == "kube-system" {
        world.cluster_uid()
    } else {
        // Always the same, and unlike those of other objects.
        name.bytes().fold(world.cluster_uid() ^ 1, |uid, byte| uid.rotate_left(7) ^ u128::from(byte))
    };
    let mut object = json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "uid": uuid_text(uid),
            "resourceVersion": "1",
            "creationTimestamp": metadata::time(world.nodes().iter().map(|(_, node)| node.meta.created_at).min().unwrap_or_default()),
        },
    });
    complete_namespace(&mut object, name);
    object
}

fn computed_namespaces(world: &World) -> BTreeSet<Text> {
    let mut names: BTreeSet<Text> = NAMESPACES.iter().map(|name| Text::from(*name)).collect();
    names.extend(world.pods().namespaces().cloned());
    names.extend(world.budgets().namespaces().cloned());
    names.extend(world.services().namespaces().cloned());
    for kind in WorkloadKind::ALL {
        names.extend(world.workloads(kind).namespaces().cloned());
    }
    names
}

/// Objects in order of namespace and name.
fn sorted(mut objects: Vec<Value>) -> Vec<Value> {
    let key = |object: &Value| {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        (text("namespace"), text("name"))
    };
    objects.sort_by_cached_key(key);
    objects.dedup_by_key(|object| key(object));
    objects
}

/// One object.
pub(super) fn get(world: &World, resource: &Resource, namespace: &str, name: &str) -> Option<Value> {
    let place = place(resource);
    let found: Option<Value> = with_table!(world, resource, place, one(namespace, name), None);
    found.or_else(|| match place {
        Place::Namespaces => computed_namespaces(world).contains(name).then(|| self::namespace(world, name)),
        Place::Slices => Some(service::slice(world, world.services().find(namespace, name)?)),
        Place::Volumes => {
            let claims = world.claims().iter();
            claims.map(|(_, claim)| volume::volume(claim)).find(|volume| volume["metadata"]["name"] == name)
        }
        Place::Leases if namespace == NODE_LEASES => node::lease(world, name),
        _ => None,
    })
}

/// Objects of one namespace or of all, in order of namespace and name.
pub(super) fn list(world: &World, resource: &Resource, namespace: Option<&str>) -> Vec<Value> {
    let place = place(resource);
    let mut found: Vec<Value> = with_table!(world, resource, place, all(namespace), Vec::new());
    let is_wanted = |other: &str| namespace.is_none_or(|namespace| namespace == other);
    match place {
        Place::Namespaces => found.extend(computed_namespaces(world).iter().map(|name| self::namespace(world, name))),
        Place::Slices => {
            let services = world.services().iter().filter(|(_, service)| is_wanted(&service.meta.namespace));
            found.extend(services.map(|(_, service)| service::slice(world, service)));
        }
        Place::Volumes => found.extend(world.claims().iter().map(|(_, claim)| volume::volume(claim))),
        Place::Leases if is_wanted(NODE_LEASES) => {
            found.extend(world.nodes().iter().filter_map(|(_, kept)| node::lease(world, &kept.meta.name)));
        }
        _ => return found,
    }
    sorted(found)
}

/// The pods on one node, without looking at the others.
pub(super) fn pods_on(world: &World, node: &str) -> Vec<Value> {
    let Some(id) = world.nodes().id("", node) else { return Vec::new() };
    let pods = world.pods_on(id).filter_map(|id| Some(pod::render(world, id, world.pods().get(id)?)));
    sorted(pods.collect())
}

/// Changes of a resource after a version, oldest first. What is computed has none.
pub(super) fn changes(world: &World, resource: &Resource, version: u64) -> Result<Vec<Changed>, Forgotten> {
    let current = world.version();
    with_table!(world, resource, place(resource), since(version, current), Ok(Vec::new()))
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// What an API server adds to a Namespace.
fn complete_namespace(object: &mut Value, name: &str) {
    if !object["metadata"]["labels"].is_object() {
        object["metadata"]["labels"] = json!({});
    }
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name.into();
    object["spec"] = json!({"finalizers": ["kubernetes"]});
    object["status"] = json!({"phase": "Active"});
}

/// What nobody may write, in words.
fn not_writable(resource: &Resource, name: &str) -> Refusal {
    let message = format!(
        "{} \"{name}\" is forbidden: a simulated cluster does not take this write of {}",
        resource.qualified(),
        resource.plural
    );
    Refusal::new(403, "Forbidden", message)
}

/// What is kept of an object of a kind that is not modelled.
fn content(object: Value) -> Arc<Value> {
    let mut value = object;
    if let Some(metadata) = value["metadata"].as_object_mut() {
        // What every object has is kept beside it.
        for field in
            ["uid", "resourceVersion", "creationTimestamp", "generation", "labels", "annotations", "managedFields"]
        {
            metadata.remove(field);
        }
    }
    Arc::new(value)
}

/// Makes an object; its metadata is whole but for UID, version and time.
pub(super) fn create(world: &mut World, resource: &'static Resource, mut object: Value) -> Result<Value, Refusal> {
    let (namespace, name) = (text(&object, "namespace").to_owned(), text(&object, "name").to_owned());
    validation::check(resource, &object, None)?;
    let made = match place(resource) {
        Place::Workloads(kind) => workload::create(world, kind, &object),
        Place::Budgets => budget::create(world, &object),
        Place::Leases => lease::create(world, &object),
        Place::Pods => pod::create(world, &object),
        Place::Services => service::create(world, &object),
        Place::Claims => world.add_claim(&namespace, &name, None, None),
        Place::Nodes | Place::Volumes => return Err(not_writable(resource, &name)),
        Place::Slices | Place::Namespaces | Place::Kept => {
            if place(resource) == Place::Namespaces {
                complete_namespace(&mut object, &name);
            }
            let mut meta = world.new_meta(namespace.as_str(), &name, &Labels::default());
            metadata::write(&mut meta, &object);
            world.create_other(&resource.qualified(), JsonObject { meta, value: content(object) })
        }
    };
    made.and_then(|_| get(world, resource, &namespace, &name)).ok_or_else(|| Refusal::already_exists(resource, &name))
}

/// Takes an object in place of the one of its name; of a status nothing is taken where the world makes it.
pub(super) fn replace(
    world: &mut World,
    resource: &'static Resource,
    object: Value,
    is_status: bool,
) -> Result<Value, Refusal> {
    let (namespace, name) = (text(&object, "namespace").to_owned(), text(&object, "name").to_owned());
    let gone = || Refusal::not_found(resource, &name);
    let before = get(world, resource, &namespace, &name).ok_or_else(gone)?;
    validation::check(resource, &object, Some(&before))?;
    let place = place(resource);
    match place {
        _ if is_status && place != Place::Kept => {}
        Place::Nodes => {
            let id = world.nodes().id("", &name).ok_or_else(gone)?;
            node::replace(world, id, &object);
        }
        Place::Pods => {
            let id = world.pods().id(&namespace, &name).ok_or_else(gone)?;
            pod::replace(world, id, &object);
        }
        Place::Workloads(kind) => {
            let id = world.workloads(kind).id(&namespace, &name).ok_or_else(gone)?;
            workload::replace(world, WorkloadId { kind, id }, &object);
        }
        Place::Budgets => {
            let id = world.budgets().id(&namespace, &name).ok_or_else(gone)?;
            budget::replace(world, id, &object);
        }
        Place::Leases => {
            let id = world.leases().id(&namespace, &name).ok_or_else(gone)?;
            lease::replace(world, id, &object);
        }
        Place::Services => {
            let id = world.services().id(&namespace, &name).ok_or_else(gone)?;
            service::replace(world, id, &object);
        }
        Place::Claims | Place::Volumes => return Err(not_writable(resource, &name)),
        Place::Slices | Place::Namespaces | Place::Kept => {
            let key = resource.qualified();
            let kept = world.others(&key).and_then(|table| table.id(&namespace, &name));
            let Some(id) =
                kept.or_else(|| (place == Place::Namespaces).then(|| keep_namespace(world, resource, &before))?)
            else {
                return Err(not_writable(resource, &name));
            };
            let written = object.clone();
            let value = content(object);
            world.change_other(&key, id, |kept| {
                if kept.value["spec"] != value["spec"] {
                    kept.meta.generation += 1;
                }
                metadata::write(&mut kept.meta, &written);
                kept.value = value;
            });
        }
    }
    get(world, resource, &namespace, &name).ok_or_else(gone)
}

/// Deletes an object, or has it end: the object where it is still there.
pub(super) fn delete(
    world: &mut World,
    resource: &Resource,
    namespace: &str,
    name: &str,
    grace_seconds: Option<u32>,
) -> Result<Option<Value>, Refusal> {
    let gone = || Refusal::not_found(resource, name);
    let is_done = match place(resource) {
        Place::Nodes => world.nodes().id("", name).is_some_and(|id| world.delete_node(id)),
        Place::Pods => {
            let answer = world.delete_pod(namespace, name, None, grace_seconds.map(i64::from));
            if answer != DeleteAnswer::Accepted {
                return Err(gone());
            }
            return Ok(get(world, resource, namespace, name));
        }
        Place::Workloads(kind) => {
            world.workloads(kind).id(namespace, name).is_some_and(|id| world.delete_workload(WorkloadId { kind, id }))
        }
        Place::Budgets => world.budgets().id(namespace, name).is_some_and(|id| world.delete_budget(id)),
        Place::Leases => world.leases().id(namespace, name).is_some_and(|id| world.delete_lease(id)),
        Place::Services => world.services().id(namespace, name).is_some_and(|id| world.delete_service(id)),
        Place::Claims => world.claims().id(namespace, name).is_some_and(|id| world.delete_claim(id)),
        Place::Volumes => return Err(not_writable(resource, name)),
        Place::Namespaces => return delete_namespace(world, resource, name).map(|()| None),
        Place::Slices | Place::Kept => {
            let key = resource.qualified();
            match world.others(&key).and_then(|table| table.id(namespace, name)) {
                Some(id) => world.delete_other(&key, id),
                None => return Err(not_writable(resource, name)),
            }
        }
    };
    if is_done { Ok(None) } else { Err(gone()) }
}

/// Keeps a namespace that was computed, so that it can be written.
fn keep_namespace(world: &mut World, resource: &Resource, computed: &Value) -> Option<u32> {
    let mut meta = world.new_meta("", text(computed, "name"), &Labels::default());
    meta.uid = uuid_number(text(computed, "uid"))?;
    meta.created_at = metadata::read_time(&computed["metadata"]["creationTimestamp"])?;
    world.create_other(&resource.qualified(), JsonObject { meta, value: content(computed.clone()) })
}

/// Deletes everything in a namespace, and it. Pods end by themselves; until then it is there, as it is computed of them.
fn delete_namespace(world: &mut World, resource: &Resource, name: &str) -> Result<(), Refusal> {
    if NAMESPACES.contains(&name) {
        let message = format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted");
        return Err(Refusal::new(403, "Forbidden", message));
    }
    let order = |inner: &&'static Resource| place(inner) == Place::Pods;
    let mut inside: Vec<&'static Resource> = RESOURCES.iter().filter(|one| one.namespaced).collect();
    // Pods last: nobody makes them anew.
    inside.sort_by_key(order);
    for inner in inside {
        for object in list(world, inner, Some(name)) {
            // What is computed goes with what it is computed of.
            let _ = delete(world, inner, name, text(&object, "name"), None);
        }
    }
    if let Some(id) = world.others(&resource.qualified()).and_then(|table| table.id("", name)) {
        world.delete_other(&resource.qualified(), id);
    }
    Ok(())
}

/// Evicts a pod: budgets are asked and charged.
pub(super) fn evict(
    world: &mut World,
    resource: &Resource,
    namespace: &str,
    name: &str,
    grace_seconds: Option<u32>,
) -> Result<(), Refusal> {
    match world.evict(namespace, name, None) {
        EvictAnswer::Accepted => {
            if let Some(seconds) = grace_seconds {
                world.delete_pod(namespace, name, None, Some(i64::from(seconds)));
            }
            Ok(())
        }
        EvictAnswer::NotFound | EvictAnswer::WrongUid => Err(Refusal::not_found(resource, name)),
        EvictAnswer::Refused { budget, desired, healthy } => Err(Refusal::disruption_budget(&format!(
            "The disruption budget {budget} needs {desired} healthy pods and has {healthy} currently"
        ))),
        EvictAnswer::SeveralBudgets => Err(Refusal::new(
            500,
            "",
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        )),
    }
}

/// What an API server says of itself.
pub(super) struct ApiServer {
    /// Its version.
    pub(super) git_version: String,
    /// The older minor version that it emulates.
    pub(super) emulates: Option<MinorVersion>,
}

/// An instance of the API server, or any where none is named.
pub(super) fn api_server(world: &World, instance: Option<&str>) -> ApiServer {
    let version = |id: u32| {
        let machine = world.machine(id)?;
        let pod = machine.static_pods.get(&ControlPlaneComponent::KubeApiserver)?;
        let (_, tag) = pod.running.as_ref()?.rsplit_once(':')?;
        let server = || ApiServer { git_version: tag.to_owned(), emulates: machine.emulates };
        world.api_server_answers(id).then(server)
    };
    let found = match instance {
        Some(name) => world.nodes().id("", name).and_then(version),
        None => world.nodes().iter().find_map(|(id, _)| version(id)),
    };
    // Without masters among its nodes a cluster has its API elsewhere, not older than its kubelets.
    found.unwrap_or_else(|| {
        let kubelets = world.nodes().iter().map(|(_, node)| node.info.kubelet_version.to_string());
        ApiServer { git_version: kubelets.max().unwrap_or_else(|| "v1.35.4".to_owned()), emulates: None }
    })
}

/// Whether an instance answers, or any where none is named.
pub(super) fn is_serving(world: &World, instance: Option<&str>) -> bool {
    match instance {
        Some(name) => world.nodes().id("", name).is_some_and(|id| world.api_server_answers(id)),
        None => world.api_answers(),
    }
}
