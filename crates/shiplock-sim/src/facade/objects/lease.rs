//! Leases.

use serde_json::{Value, json};

use super::metadata::{envelope, micro_time, put, read_time, write};
use crate::world::{Lease, Text, World};

/// Renders a Lease.
pub(super) fn render(_: &World, _: u32, lease: &Lease) -> Value {
    let mut object = envelope("coordination.k8s.io/v1", "Lease", &lease.meta);
    let mut spec = json!({});
    put(&mut spec, "holderIdentity", lease.holder.as_deref().map_or(Value::Null, Value::from));
    put(&mut spec, "leaseDurationSeconds", lease.duration_seconds.map_or(Value::Null, Value::from));
    put(&mut spec, "acquireTime", lease.acquired_at.map_or(Value::Null, micro_time));
    put(&mut spec, "renewTime", lease.renewed_at.map_or(Value::Null, micro_time));
    put(&mut spec, "leaseTransitions", lease.transitions.map_or(Value::Null, Value::from));
    object["spec"] = spec;
    object
}

fn read_into(lease: &mut Lease, object: &Value) {
    let spec = &object["spec"];
    let number = |field: &str| spec[field].as_i64().and_then(|number| i32::try_from(number).ok());
    write(&mut lease.meta, object);
    lease.holder = spec["holderIdentity"].as_str().map(Text::from);
    lease.duration_seconds = number("leaseDurationSeconds");
    lease.acquired_at = read_time(&spec["acquireTime"]);
    lease.renewed_at = read_time(&spec["renewTime"]);
    lease.transitions = number("leaseTransitions");
}

/// Makes a Lease; none where the name is taken.
pub(super) fn create(world: &mut World, object: &Value) -> Option<u32> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let meta = world.new_meta(text("namespace"), text("name"), &crate::world::Labels::default());
    let (holder, duration_seconds, acquired_at, renewed_at, transitions) = (None, None, None, None, None);
    let mut lease = Lease { meta, holder, duration_seconds, acquired_at, renewed_at, transitions };
    read_into(&mut lease, object);
    world.create_lease(lease)
}

/// Takes another content; the version was compared before.
pub(super) fn replace(world: &mut World, id: u32, object: &Value) {
    world.replace_lease(id, None, |lease| read_into(lease, object));
}
