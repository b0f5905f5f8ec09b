//! PodDisruptionBudgets.

use serde_json::{Map, Value, json};

use super::metadata::{envelope, put, read_selector, selector, time, write};
use crate::world::{Budget, Keep, Share, World};

fn share(share: Share) -> Value {
    match share {
        Share::Count(count) => count.into(),
        Share::Percent(percent) => format!("{percent}%").into(),
    }
}

fn read_share(value: &Value) -> Option<Share> {
    match value {
        Value::Number(number) => u32::try_from(number.as_u64()?).ok().map(Share::Count),
        Value::String(text) => match text.strip_suffix('%') {
            Some(percent) => percent.parse().ok().map(Share::Percent),
            None => text.parse().ok().map(Share::Count),
        },
        _ => None,
    }
}

/// Renders a budget.
pub(super) fn render(_: &World, _: u32, budget: &Budget) -> Value {
    let mut object = envelope("policy/v1", "PodDisruptionBudget", &budget.meta);
    object["metadata"]["generation"] = budget.meta.generation.into();
    let mut spec = json!({});
    match budget.keep {
        Keep::MinAvailable(kept) => spec["minAvailable"] = share(kept),
        Keep::MaxUnavailable(most) => spec["maxUnavailable"] = share(most),
    }
    put(&mut spec, "selector", budget.selector.as_ref().map_or(Value::Null, selector));
    if budget.always_allow_unhealthy {
        spec["unhealthyPodEvictionPolicy"] = "AlwaysAllow".into();
    }
    object["spec"] = spec;
    let disrupted: Map<String, Value> = budget.disrupted.iter().map(|(pod, at)| (pod.to_string(), time(*at))).collect();
    object["status"] = json!({
        "currentHealthy": budget.healthy,
        "desiredHealthy": budget.desired_healthy,
        "expectedPods": budget.expected,
        "disruptionsAllowed": budget.allowed,
        "observedGeneration": budget.meta.generation,
        "conditions": [{
            "type": "DisruptionAllowed",
            "status": if budget.allowed > 0 { "True" } else { "False" },
            "reason": if budget.allowed > 0 { "SufficientPods" } else { "InsufficientPods" },
            "message": "",
            "lastTransitionTime": time(budget.meta.created_at),
            "observedGeneration": budget.meta.generation,
        }],
    });
    if !disrupted.is_empty() {
        object["status"]["disruptedPods"] = disrupted.into();
    }
    object
}

/// What a budget says it keeps; without a word nothing may be disrupted beyond one pod, as upstream has it.
fn read_keep(spec: &Value) -> Keep {
    match (read_share(&spec["minAvailable"]), read_share(&spec["maxUnavailable"])) {
        (_, Some(most)) => Keep::MaxUnavailable(most),
        (Some(kept), None) => Keep::MinAvailable(kept),
        (None, None) => Keep::MinAvailable(Share::Count(1)),
    }
}

/// Makes a budget; none where the name is taken.
pub(super) fn create(world: &mut World, object: &Value) -> Option<u32> {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let (spec, selector) = (&object["spec"], read_selector(&object["spec"]["selector"]));
    let id = world.add_budget(text("namespace"), text("name"), selector, read_keep(spec))?;
    replace(world, id, object);
    Some(id)
}

/// Takes another spec.
pub(super) fn replace(world: &mut World, id: u32, object: &Value) {
    let keep = read_keep(&object["spec"]);
    let selector = read_selector(&object["spec"]["selector"]);
    let always = object["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
    world.change_budget(id, |budget| {
        budget.keep = keep;
        budget.selector = selector;
        write(&mut budget.meta, object);
        budget.always_allow_unhealthy = always;
    });
}
