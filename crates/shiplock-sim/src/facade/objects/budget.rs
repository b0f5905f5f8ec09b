//! PodDisruptionBudgets.

use serde_json::{Map, Value, json};

use super::metadata::{envelope, put, read_selector, read_strings, selector, time};
use crate::facade::resource::Resource;
use crate::facade::status::Refusal;
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
fn read_keep(resource: &Resource, object: &Value) -> Result<Keep, Refusal> {
    let spec = &object["spec"];
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let read = |field: &str| match &spec[field] {
        Value::Null => Ok(None),
        value => read_share(value).map(Some).ok_or_else(|| {
            Refusal::invalid(
                resource,
                name,
                &format!("spec.{field}"),
                "Invalid value: it is no number and no percentage",
            )
        }),
    };
    match (read("minAvailable")?, read("maxUnavailable")?) {
        (Some(_), Some(_)) => {
            Err(Refusal::invalid(resource, name, "spec", "minAvailable and maxUnavailable cannot be both set"))
        }
        (_, Some(most)) => Ok(Keep::MaxUnavailable(most)),
        (Some(kept), None) => Ok(Keep::MinAvailable(kept)),
        (None, None) => Ok(Keep::MinAvailable(Share::Count(1))),
    }
}

/// Makes a budget.
pub(super) fn create(world: &mut World, resource: &Resource, object: &Value) -> Result<Option<u32>, Refusal> {
    let keep = read_keep(resource, object)?;
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let id = world.add_budget(text("namespace"), text("name"), read_selector(&object["spec"]["selector"]), keep);
    if let Some(id) = id {
        replace(world, resource, id, object)?;
    }
    Ok(id)
}

/// Takes another spec.
pub(super) fn replace(world: &mut World, resource: &Resource, id: u32, object: &Value) -> Result<(), Refusal> {
    let keep = read_keep(resource, object)?;
    let selector = read_selector(&object["spec"]["selector"]);
    let labels = read_strings(&object["metadata"]["labels"]);
    let annotations = read_strings(&object["metadata"]["annotations"]);
    let always = object["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
    world.change_budget(id, |budget| {
        budget.keep = keep;
        budget.selector = selector;
        budget.meta.labels = labels;
        budget.meta.annotations = annotations;
        budget.always_allow_unhealthy = always;
    });
    Ok(())
}
