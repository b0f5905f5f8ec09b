//! Flags, feature gates, admission plugins and API versions that the target's components refuse to start with.

use super::{Look, of};
use crate::components::{Components, GateFate};
use crate::object::{COMPONENTS, Container, Pod, image_name};
use crate::report::{Finding, Outcome, Subject};

const CHECK: &str = "API-013";

pub(super) fn judge(look: &mut Look<'_>) {
    let objects = look.objects;
    if let Some(pods) = look.need(&objects.pods, &[CHECK]) {
        for pod in pods.iter().filter(|pod| may_be_component(pod) && !pod.has_ended()) {
            for container in &pod.spec.containers {
                let component = image_name(&container.image);
                if component != "etcd" && COMPONENTS.contains(&component) {
                    container_flags(look, component, container, &of("Pod", &pod.metadata));
                }
            }
        }
    }
    let Some(configuration) = look.need(&objects.configuration, &[CHECK]) else { return };
    let subject = |name: &str| Subject::new("ConfigMap", "kube-system", name);
    for (name, value) in configuration.kubelet.iter().flat_map(|kubelet| &kubelet.feature_gates) {
        gate(look, "kubelet", name, *value, &subject("kubelet-config"));
    }
    for (name, value) in configuration.proxy.iter().flat_map(|proxy| &proxy.feature_gates) {
        gate(look, "kube-proxy", name, *value, &subject("kube-proxy"));
    }
    for (name, why) in &configuration.unreadable {
        if matches!(name.as_str(), "kubelet-config" | "kube-proxy") {
            look.say(Finding { subject: subject(name), ..Finding::unknown(CHECK, why) });
        }
    }
}

/// Whether it is where the components of Kubernetes run.
pub(super) fn may_be_component(pod: &Pod) -> bool {
    pod.metadata.namespace == "kube-system"
}

/// The flags of a container's command and arguments, with their values.
pub(super) fn flags(container: &Container) -> Vec<(&str, &str)> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    let mut words = container.command.iter().chain(&container.args).map(String::as_str).peekable();
    while let Some(word) = words.next() {
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else { continue };
        match flag.split_once('=') {
            Some(pair) => found.push(pair),
            None => {
                let value = words.next_if(|next| !next.starts_with('-')).unwrap_or_default();
                found.push((flag, value));
            }
        }
    }
    found
}

fn container_flags(look: &mut Look<'_>, component: &str, container: &Container, subject: &Subject) {
    let table = Components::shipped();
    let target = look.question.target;
    for (flag, value) in flags(container) {
        let mut say = |what: &str, sentence, name: &str| {
            if let Some(since) = table.gone(component, what, name, target) {
                let finding = Finding::new(CHECK, sentence, Outcome::Fail, subject.clone());
                look.say(finding.with("component", component).with("name", name).with("since", since));
            }
        };
        say("flag", "flag-gone", flag);
        let parts = value.split(',').map(str::trim).filter(|part| !part.is_empty());
        match flag {
            "enable-admission-plugins" | "disable-admission-plugins" => {
                parts.for_each(|plugin| say("plugin", "plugin-gone", plugin));
            }
            "runtime-config" => {
                for part in parts {
                    let version = part.split('=').next().unwrap_or_default();
                    // `group/version/resource` names a resource of a version.
                    let version = version.splitn(3, '/').take(2).collect::<Vec<_>>().join("/");
                    say("version", "version-gone", &version);
                }
            }
            "feature-gates" => {
                for part in parts {
                    // From 1.33 on a gate may be given for one component: `kube:Gate=true`.
                    let part = part.rsplit_once(':').map_or(part, |(_, gate)| gate);
                    let (name, value) = part.split_once('=').unwrap_or((part, "true"));
                    gate(look, component, name, value.eq_ignore_ascii_case("true"), subject);
                }
            }
            _ => {}
        }
    }
}

fn gate(look: &mut Look<'_>, component: &str, name: &str, value: bool, subject: &Subject) {
    let table = Components::shipped();
    let (oldest, newest) = table.span();
    let with = |finding: Finding| {
        finding.with("component", component).with("name", name).with("value", value).with("other", !value)
    };
    let new = |sentence, outcome| with(Finding::new(CHECK, sentence, outcome, subject.clone()));
    match table.gate(name, value, look.question.target) {
        GateFate::Taken => {}
        GateFate::Gone(since) => look.say(new("gate-gone", Outcome::Fail).with("since", since)),
        GateFate::Locked(since) => look.say(new("gate-locked", Outcome::Fail).with("since", since)),
        // What an older release knew and lost before the table begins cannot be told from what a vendor added.
        GateFate::Unheard => {
            look.say(new("gate-unheard", Outcome::Unknown).with("oldest", oldest).with("newest", newest));
        }
    }
}
