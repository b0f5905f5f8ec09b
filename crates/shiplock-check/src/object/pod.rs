//! Pods.

use serde::{Deserialize, Serialize};

use super::{Condition, Expression, Field, Labels, Metadata, Owner, Selector, Volume, is_default, null_is_default};

objects! {
    /// A pod.
    Pod {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: PodSpec,
        /// Its status.
        status: PodStatus,
    }
    /// The specification of a pod.
    PodSpec {
        /// Where it runs.
        node_name: String,
        /// Its containers.
        containers: Vec<Container>,
        /// Its volumes.
        volumes: Vec<Volume>,
        /// How long it may take to end.
        termination_grace_period_seconds: Option<i64>,
        /// What it must run on.
        node_selector: Labels,
        /// What it stands.
        tolerations: Vec<Toleration>,
        /// What it must be near or far.
        affinity: Affinity,
        /// Containers that run before; those with restart policy Always go on.
        init_containers: Vec<InitContainer>,
        /// What its sandbox takes beside the containers.
        overhead: Labels,
        /// Addresses that it knows by names of its own.
        host_aliases: Vec<HostAlias>,
    }
    /// An address that a pod knows by names of its own.
    HostAlias {
        /// The address.
        ip: String,
    }
    /// A toleration.
    Toleration {
        /// The key; empty for any.
        key: String,
        /// `Exists` or `Equal`.
        operator: String,
        /// The value.
        value: String,
        /// The effect; empty for any.
        effect: String,
    }
    /// A container.
    Container {
        /// The name.
        name: String,
        /// The image.
        image: String,
        /// The command; kept of Kubernetes' own components only.
        command: Vec<String>,
        /// Its arguments; kept of Kubernetes' own components only.
        args: Vec<String>,
        /// `Never`, `IfNotPresent`, `Always`.
        image_pull_policy: String,
        /// Its probes.
        startup_probe: Option<Probe>,
        /// Its probes.
        readiness_probe: Option<Probe>,
        /// What it asks for.
        resources: Resources,
    }
    /// A probe.
    Probe {
        /// How long it waits first.
        initial_delay_seconds: Option<i64>,
        /// How often.
        period_seconds: Option<i64>,
    }
    /// What a container asks for.
    Resources {
        /// CPU and memory.
        requests: Labels,
    }
    /// The status of a pod.
    PodStatus {
        /// `Running`, `Pending` …
        phase: String,
        /// Its conditions.
        conditions: Vec<Condition>,
        /// Its containers.
        container_statuses: Vec<ContainerStatus>,
        /// Those of its containers that run before the others.
        init_container_statuses: Vec<ContainerStatus>,
    }
    /// The status of a container.
    ContainerStatus {
        /// The name.
        name: String,
        /// Whether it is ready.
        ready: bool,
        /// What it waits for.
        state: ContainerState,
    }
    /// The state of a container.
    ContainerState {
        /// Waiting, if it is.
        waiting: Option<Waiting>,
        /// Ended, if it is.
        terminated: Option<Terminated>,
    }
    /// Why a container waits.
    Waiting {
        /// `CrashLoopBackOff` …
        reason: String,
    }
    /// How a container ended.
    Terminated {
        /// `Completed`, `Error`, `OOMKilled` …
        reason: String,
        /// What its process said at its end: 0 where all was well.
        exit_code: i64,
    }
    /// A container that runs before the others.
    InitContainer {
        /// What it asks for.
        resources: Resources,
        /// `Always` where it goes on beside the others.
        restart_policy: String,
        /// Its probes, where it goes on.
        startup_probe: Option<Probe>,
        /// Its probes, where it goes on.
        readiness_probe: Option<Probe>,
    }
    /// What a pod must be near or far.
    Affinity {
        /// Which nodes.
        node_affinity: NodeAffinity,
        /// Which pods it must not be with.
        pod_anti_affinity: PodAntiAffinity,
    }
    /// Which nodes.
    NodeAffinity {
        /// What must hold.
        #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
        required: Option<NodeSelector>,
    }
    /// Nodes that fit one of the terms.
    NodeSelector {
        /// The terms.
        node_selector_terms: Vec<NodeSelectorTerm>,
    }
    /// A term.
    NodeSelectorTerm {
        /// Conditions on labels.
        match_expressions: Vec<Expression>,
        /// Conditions on fields, of which there is the name alone.
        match_fields: Vec<Expression>,
    }
    /// Which pods it must not be with.
    PodAntiAffinity {
        /// What must hold.
        #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
        required: Vec<PodAffinityTerm>,
    }
    /// Pods, and the label of nodes that tells what is together.
    PodAffinityTerm {
        /// Which pods.
        label_selector: Option<Selector>,
        /// Which label.
        topology_key: String,
        /// In which namespaces; its own where there are none.
        namespaces: Vec<String>,
    }
}

impl Pod {
    /// What controls it.
    pub fn controller(&self) -> Option<&Owner> {
        self.metadata.owner_references.iter().find(|owner| owner.controller)
    }

    /// Whether it is a static pod, which the kubelet of its node runs from a file.
    pub fn is_static(&self) -> bool {
        self.controller().is_some_and(|owner| owner.kind == "Node")
    }

    /// Whether it is ready.
    pub fn is_ready(&self) -> bool {
        self.status.conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True")
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }
}

impl NodeSelector {
    /// Whether a node fits.
    pub fn fits(&self, node: &super::Metadata) -> bool {
        self.node_selector_terms.iter().any(|term| {
            // A term without conditions fits nothing.
            !(term.match_expressions.is_empty() && term.match_fields.is_empty()) && {
                let fields = [("metadata.name".to_owned(), node.name.clone())].into();
                let holds = |expressions: &Vec<Expression>, labels: &Labels| {
                    let selector = Selector { match_labels: Labels::new(), match_expressions: expressions.clone() };
                    selector.fits(labels)
                };
                holds(&term.match_expressions, &node.labels) && holds(&term.match_fields, &fields)
            }
        })
    }
}
