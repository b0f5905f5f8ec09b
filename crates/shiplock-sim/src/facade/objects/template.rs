//! The spec of a pod, from and to the world's template.

use std::sync::Arc;

use serde_json::{Value, json};

use super::metadata::{put, read_requirements, read_selector, read_strings, requirements, selector, strings};
use crate::world::{Behaviour, Effect, PodTemplate, PodTerm, Requirement, Resources, Spread, Text, Toleration};

fn tolerations(all: &[Toleration]) -> Value {
    let one = |toleration: &Toleration| {
        let mut value = json!({"operator": if toleration.value.is_some() { "Equal" } else { "Exists" }});
        if !toleration.key.is_empty() {
            value["key"] = (&*toleration.key).into();
        }
        put(&mut value, "value", toleration.value.as_deref().map_or(Value::Null, Value::from));
        put(&mut value, "effect", toleration.effect.map_or(Value::Null, |effect| effect.word().into()));
        put(&mut value, "tolerationSeconds", toleration.seconds.map_or(Value::Null, Value::from));
        value
    };
    if all.is_empty() { Value::Null } else { all.iter().map(one).collect() }
}

fn read_tolerations(value: &Value) -> Vec<Toleration> {
    let one = |value: &Value| {
        let effects = [Effect::NoSchedule, Effect::PreferNoSchedule, Effect::NoExecute];
        let text = |field: &str| value[field].as_str().unwrap_or_default();
        Toleration {
            key: text("key").into(),
            value: (text("operator") != "Exists").then(|| text("value").into()),
            effect: effects.into_iter().find(|effect| effect.word() == text("effect")),
            seconds: value["tolerationSeconds"].as_i64(),
        }
    };
    value.as_array().into_iter().flatten().map(one).collect()
}

fn terms(all: &[PodTerm]) -> Value {
    let one = |term: &PodTerm| json!({"labelSelector": selector(&term.selector), "topologyKey": &*term.topology_key});
    json!({"requiredDuringSchedulingIgnoredDuringExecution": all.iter().map(one).collect::<Vec<_>>()})
}

fn read_terms(value: &Value) -> Vec<PodTerm> {
    let one = |value: &Value| {
        let selector = read_selector(&value["labelSelector"])?;
        Some(PodTerm { selector, topology_key: value["topologyKey"].as_str()?.into() })
    };
    let required = &value["requiredDuringSchedulingIgnoredDuringExecution"];
    required.as_array().into_iter().flatten().filter_map(one).collect()
}

fn affinity(template: &PodTemplate) -> Value {
    let mut value = Value::Null;
    if !template.node_affinity.is_empty() {
        let one = |all: &Vec<Requirement>| json!({"matchExpressions": requirements(all)});
        let terms: Vec<Value> = template.node_affinity.iter().map(one).collect();
        value["nodeAffinity"] = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
    }
    if !template.pod_affinity.is_empty() {
        value["podAffinity"] = terms(&template.pod_affinity);
    }
    if !template.pod_anti_affinity.is_empty() {
        value["podAntiAffinity"] = terms(&template.pod_anti_affinity);
    }
    value
}

/// Renders `spec` of a pod or of its template.
pub(super) fn spec(template: &PodTemplate) -> Value {
    let mut containers = Vec::new();
    for (index, (name, image)) in template.containers.iter().enumerate() {
        let mut container = json!({"name": &**name, "image": &**image, "imagePullPolicy": "IfNotPresent"});
        // The world knows the sum: the first container carries it.
        if index == 0 {
            let mut asked = json!({});
            if template.requests.cpu_millis > 0 {
                asked["cpu"] = format!("{}m", template.requests.cpu_millis).into();
            }
            if template.requests.memory_bytes > 0 {
                asked["memory"] = template.requests.memory_bytes.to_string().into();
            }
            container["resources"] = json!({"requests": asked});
            let port = |port: &u16| json!({"containerPort": port, "hostPort": port, "protocol": "TCP"});
            if !template.host_ports.is_empty() {
                container["ports"] = template.host_ports.iter().map(port).collect();
            }
        }
        containers.push(container);
    }
    let mut volumes: Vec<Value> = template
        .claims
        .iter()
        .map(|claim| json!({"name": &**claim, "persistentVolumeClaim": {"claimName": &**claim}}))
        .collect();
    if template.local_storage {
        volumes.push(json!({"name": "scratch", "emptyDir": {}}));
    }
    let mut spec = json!({
        "containers": containers,
        "terminationGracePeriodSeconds": template.grace_seconds,
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "schedulerName": "default-scheduler",
        "serviceAccountName": "default",
        "securityContext": {},
    });
    if !volumes.is_empty() {
        spec["volumes"] = volumes.into();
    }
    if template.priority != 0 {
        spec["priority"] = template.priority.into();
    }
    put(&mut spec, "nodeSelector", strings(&template.node_selector));
    put(&mut spec, "affinity", affinity(template));
    put(&mut spec, "tolerations", tolerations(&template.tolerations));
    if !template.spread.is_empty() {
        let one = |spread: &Spread| {
            json!({
                "labelSelector": selector(&spread.selector),
                "topologyKey": &*spread.topology_key,
                "maxSkew": spread.max_skew,
                "whenUnsatisfiable": "DoNotSchedule",
            })
        };
        spec["topologySpreadConstraints"] = template.spread.iter().map(one).collect();
    }
    spec
}

/// Renders a template: metadata and spec.
pub(super) fn render(template: &PodTemplate) -> Value {
    let mut metadata = json!({"creationTimestamp": null});
    put(&mut metadata, "labels", strings(&template.labels));
    put(&mut metadata, "annotations", strings(&template.annotations));
    json!({"metadata": metadata, "spec": spec(template)})
}

/// A quantity: plain, with a decimal or binary suffix, in thousandths; in units of `one`.
fn quantity(text: &str, thousandths: bool) -> i64 {
    let end = text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().unwrap_or(0.0);
    let factor = match &text[end..] {
        "m" => 0.001,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => 1.0,
    };
    let value = number * factor * if thousandths { 1000.0 } else { 1.0 };
    #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
    {
        value.round() as i64
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => String::new(),
    }
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value[field].as_array().into_iter().flatten()
}

/// Reads a template. How its pods behave is no part of the API: that stays as given.
pub(super) fn read(value: &Value, behaviour: Behaviour) -> PodTemplate {
    let spec = &value["spec"];
    let owned = |value: &Value| Text::from(value.as_str().unwrap_or_default());
    let mut requests = Resources { cpu_millis: 0, memory_bytes: 0, pods: 1 };
    let (mut containers, mut host_ports) = (Vec::new(), Vec::new());
    for container in list(spec, "containers") {
        containers.push((owned(&container["name"]), owned(&container["image"])));
        let asked = &container["resources"]["requests"];
        requests.cpu_millis += quantity(&text(&asked["cpu"]), true);
        requests.memory_bytes += quantity(&text(&asked["memory"]), false);
        host_ports.extend(list(container, "ports").filter_map(|port| u16::try_from(port["hostPort"].as_u64()?).ok()));
    }
    let claims = list(spec, "volumes").filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str());
    let is_local = |volume: &Value| volume.get("emptyDir").is_some() || volume.get("hostPath").is_some();
    let spread = |value: &Value| {
        (value["whenUnsatisfiable"] == "DoNotSchedule").then_some(())?;
        Some(Spread {
            selector: read_selector(&value["labelSelector"])?,
            topology_key: owned(&value["topologyKey"]),
            max_skew: value["maxSkew"].as_i64().unwrap_or(1),
        })
    };
    let affinity = &spec["affinity"];
    let node_terms = &affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    PodTemplate {
        labels: read_strings(&value["metadata"]["labels"]),
        annotations: read_strings(&value["metadata"]["annotations"]),
        containers,
        requests,
        node_selector: read_strings(&spec["nodeSelector"]),
        node_affinity: node_terms
            .as_array()
            .into_iter()
            .flatten()
            .map(|term| read_requirements(&term["matchExpressions"]))
            .collect(),
        pod_affinity: read_terms(&affinity["podAffinity"]),
        pod_anti_affinity: read_terms(&affinity["podAntiAffinity"]),
        spread: list(spec, "topologySpreadConstraints").filter_map(spread).collect(),
        tolerations: read_tolerations(&spec["tolerations"]),
        host_ports,
        claims: claims.map(Text::from).collect(),
        local_storage: list(spec, "volumes").any(is_local),
        grace_seconds: spec["terminationGracePeriodSeconds"].as_i64().unwrap_or(30),
        priority: spec["priority"].as_i64().and_then(|priority| i32::try_from(priority).ok()).unwrap_or(0),
        behaviour,
    }
}

/// The template that is in force: the given one where it says nothing new, so that pods go on to share it.
pub(super) fn merged(found: &Arc<PodTemplate>, value: &Value) -> Arc<PodTemplate> {
    let next = read(value, found.behaviour);
    if next == **found { found.clone() } else { Arc::new(next) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Operator, Selector, labels};

    #[test]
    fn a_template_is_the_same_after_it_was_written_and_read() {
        let term = |app: &str| PodTerm { selector: Selector::of([("app", app)]), topology_key: "zone".into() };
        let full = PodTemplate {
            labels: labels([("app", "web")]),
            annotations: labels([("a", "b")]),
            containers: vec![("main".into(), "app:1".into()), ("side".into(), "side:2".into())],
            requests: Resources { cpu_millis: 250, memory_bytes: 64 << 20, pods: 1 },
            node_selector: labels([("disk", "ssd")]),
            node_affinity: vec![vec![Requirement {
                key: "zone".into(),
                operator: Operator::In,
                values: vec!["a".into(), "b".into()],
            }]],
            pod_affinity: vec![term("db")],
            pod_anti_affinity: vec![term("web")],
            spread: vec![Spread { selector: Selector::of([("app", "web")]), topology_key: "zone".into(), max_skew: 2 }],
            tolerations: vec![
                Toleration {
                    key: "k".into(),
                    value: Some("v".into()),
                    effect: Some(Effect::NoExecute),
                    seconds: Some(30),
                },
                Toleration { key: "".into(), value: None, effect: None, seconds: None },
            ],
            host_ports: vec![80],
            claims: vec!["data".into()],
            local_storage: true,
            grace_seconds: 5,
            priority: 10,
            behaviour: Behaviour::default(),
        };
        for template in [full, PodTemplate::default()] {
            assert_eq!(read(&render(&template), template.behaviour), template);
        }
    }

    #[test]
    fn quantities_are_read_in_every_form() {
        for (text, thousandths, expected) in [
            ("250m", true, 250),
            ("2", true, 2_000),
            ("0.5", true, 500),
            ("64Mi", false, 64 << 20),
            ("1G", false, 1_000_000_000),
            ("1024", false, 1_024),
            ("", false, 0),
            ("moon", false, 0),
        ] {
            assert_eq!(quantity(text, thousandths), expected, "{text}");
        }
    }
}
