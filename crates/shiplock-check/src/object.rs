//! The objects that checks read, with only the fields that some check reads.
//!
//! Lists of thousands of pods are kept in memory: a field that no check reads has no place here. Values of Secrets,
//! ConfigMaps and environment variables are never among them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::snapshot::Read;

macro_rules! objects {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $($(#[$field_doc])* #[serde(deserialize_with = "null_is_default")] pub $field: $type,)* }
    )*};
}

/// Kubernetes writes `null` for empty lists in places.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Text by text, as labels are.
pub type Labels = BTreeMap<String, String>;

/// Everything that checks read, by kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Objects {
    /// Nodes.
    pub nodes: Read<Vec<Node>>,
    /// Pods.
    pub pods: Read<Vec<Pod>>,
    /// Deployments.
    pub deployments: Read<Vec<Workload>>,
    /// StatefulSets.
    pub stateful_sets: Read<Vec<Workload>>,
    /// DaemonSets.
    pub daemon_sets: Read<Vec<Workload>>,
    /// PodDisruptionBudgets.
    pub budgets: Read<Vec<Budget>>,
    /// Services.
    pub services: Read<Vec<Service>>,
    /// EndpointSlices.
    pub slices: Read<Vec<Slice>>,
    /// Namespaces.
    pub namespaces: Read<Vec<Namespace>>,
    /// ValidatingWebhookConfigurations.
    pub validating: Read<Vec<WebhookConfiguration>>,
    /// MutatingWebhookConfigurations.
    pub mutating: Read<Vec<WebhookConfiguration>>,
    /// APIServices.
    pub api_services: Read<Vec<ApiService>>,
    /// CustomResourceDefinitions.
    pub definitions: Read<Vec<Definition>>,
    /// PersistentVolumes.
    pub volumes: Read<Vec<PersistentVolume>>,
    /// PersistentVolumeClaims.
    pub claims: Read<Vec<Claim>>,
    /// StorageClasses.
    pub storage_classes: Read<Vec<StorageClass>>,
    /// CSIDrivers.
    pub csi_drivers: Read<Vec<Named>>,
    /// VolumeAttachments.
    pub attachments: Read<Vec<Attachment>>,
    /// Jobs.
    pub jobs: Read<Vec<Job>>,
    /// CertificateSigningRequests.
    pub signing_requests: Read<Vec<SigningRequest>>,
    /// ResourceQuotas.
    pub quotas: Read<Vec<Quota>>,
}

objects! {
    /// What every object says of itself.
    Metadata {
        /// The name.
        name: String,
        /// The namespace; empty where there is none.
        namespace: String,
        /// The UID.
        uid: String,
        /// The labels.
        labels: Labels,
        /// When it came to be.
        creation_timestamp: Option<Timestamp>,
        /// When its deletion was asked for.
        deletion_timestamp: Option<Timestamp>,
        /// What keeps it from being deleted.
        finalizers: Vec<String>,
        /// What owns it.
        owner_references: Vec<Owner>,
    }
    /// What owns an object.
    Owner {
        /// The kind.
        kind: String,
        /// The name.
        name: String,
        /// Whether it controls it.
        controller: bool,
    }
    /// An object of which only its existence is of interest.
    Named {
        /// What it says of itself.
        metadata: Metadata,
    }
    /// A condition.
    Condition {
        /// Which one.
        r#type: String,
        /// `True`, `False` or `Unknown`.
        status: String,
        /// Why, as a word.
        reason: String,
        /// Why, as a sentence.
        message: String,
    }
    /// A node.
    Node {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: NodeSpec,
        /// Its status.
        status: NodeStatus,
    }
    /// The specification of a node.
    NodeSpec {
        /// Whether it is cordoned.
        unschedulable: bool,
        /// Its taints.
        taints: Vec<Taint>,
    }
    /// A taint.
    Taint {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// The effect.
        effect: String,
    }
    /// The status of a node.
    NodeStatus {
        /// What pods may use.
        allocatable: Labels,
        /// What it has.
        capacity: Labels,
        /// Its conditions.
        conditions: Vec<Condition>,
        /// What it runs.
        node_info: NodeInfo,
    }
    /// What a node runs.
    NodeInfo {
        /// `v1.36.3`
        kubelet_version: String,
        /// `containerd://2.2.9`
        container_runtime_version: String,
        /// `Debian GNU/Linux 12 (bookworm)`
        os_image: String,
        /// `6.1.0-18-amd64`
        kernel_version: String,
    }
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
        /// The arguments: flags of Kubernetes' own components are read from them.
        command: Vec<String>,
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
    }
    /// Why a container waits.
    Waiting {
        /// `CrashLoopBackOff` …
        reason: String,
    }
    /// A Deployment, StatefulSet or DaemonSet.
    Workload {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: WorkloadSpec,
        /// Its status.
        status: WorkloadStatus,
    }
    /// The specification of a workload.
    WorkloadSpec {
        /// How many; 1 where it does not say.
        replicas: Option<i64>,
        /// Which pods are its own.
        selector: Selector,
        /// What its pods are made of.
        template: Template,
        /// How a DaemonSet or StatefulSet is renewed.
        update_strategy: Strategy,
    }
    /// How a workload is renewed.
    Strategy {
        /// `RollingUpdate` or `OnDelete`.
        r#type: String,
    }
    /// What pods are made of.
    Template {
        /// Their labels.
        metadata: Metadata,
        /// Their specification.
        spec: PodSpec,
    }
    /// The status of a workload.
    WorkloadStatus {
        /// How many are ready.
        ready_replicas: i64,
    }
    /// A selector.
    Selector {
        /// Labels that must be so.
        match_labels: Labels,
        /// Further conditions.
        match_expressions: Vec<Expression>,
    }
    /// A condition of a selector.
    Expression {
        /// The label.
        key: String,
        /// `In`, `NotIn`, `Exists`, `DoesNotExist`.
        operator: String,
        /// The values.
        values: Vec<String>,
    }
    /// A PodDisruptionBudget.
    Budget {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: BudgetSpec,
        /// Its status.
        status: BudgetStatus,
    }
    /// The specification of a budget.
    BudgetSpec {
        /// How many must stay: a number or a share.
        min_available: Option<Value>,
        /// How many may be away: a number or a share.
        max_unavailable: Option<Value>,
        /// Which pods; none selects nothing.
        selector: Option<Selector>,
        /// `IfHealthyBudget` or `AlwaysAllow`.
        unhealthy_pod_eviction_policy: String,
    }
    /// The status of a budget.
    BudgetStatus {
        /// How many may go now.
        disruptions_allowed: i64,
        /// How many are healthy.
        current_healthy: i64,
        /// How many must be.
        desired_healthy: i64,
        /// How many there should be.
        expected_pods: i64,
    }
    /// A Service.
    Service {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: ServiceSpec,
    }
    /// The specification of a Service.
    ServiceSpec {
        /// `ClusterIP`, `NodePort`, `LoadBalancer`.
        r#type: String,
        /// Which pods.
        selector: Labels,
        /// `Cluster` or `Local`.
        external_traffic_policy: String,
        /// Addresses from elsewhere.
        #[serde(rename = "externalIPs")]
        external_ips: Vec<String>,
    }
    /// An EndpointSlice.
    Slice {
        /// What it says of itself.
        metadata: Metadata,
        /// Its endpoints.
        endpoints: Vec<Endpoint>,
    }
    /// An endpoint.
    Endpoint {
        /// Its addresses.
        addresses: Vec<String>,
        /// Its state.
        conditions: EndpointConditions,
        /// Where it is.
        node_name: String,
    }
    /// The state of an endpoint.
    EndpointConditions {
        /// Whether it is ready; unknown counts as ready.
        ready: Option<bool>,
    }
    /// A Namespace.
    Namespace {
        /// What it says of itself.
        metadata: Metadata,
        /// Its status.
        status: PodStatus,
    }
    /// A configuration of webhooks.
    WebhookConfiguration {
        /// What it says of itself.
        metadata: Metadata,
        /// The webhooks.
        webhooks: Vec<Webhook>,
    }
    /// A webhook.
    Webhook {
        /// The name.
        name: String,
        /// Where it is.
        client_config: WebhookClient,
        /// `Fail` or `Ignore`.
        failure_policy: String,
        /// How long it may take.
        timeout_seconds: Option<i64>,
        /// The versions of reviews that it reads.
        admission_review_versions: Vec<String>,
        /// In which namespaces; none for all.
        namespace_selector: Selector,
        /// For which objects; none for all.
        object_selector: Selector,
        /// What it is asked about.
        rules: Vec<WebhookRule>,
    }
    /// What a webhook is asked about.
    WebhookRule {
        /// Groups.
        api_groups: Vec<String>,
        /// Resources.
        resources: Vec<String>,
        /// Operations.
        operations: Vec<String>,
        /// `Cluster`, `Namespaced` or `*`.
        scope: String,
    }
    /// Where a webhook is.
    WebhookClient {
        /// An address.
        url: String,
        /// A Service in the cluster.
        service: Option<ServiceReference>,
        /// What its certificate is verified with: PEM in base64.
        ca_bundle: String,
    }
    /// A Service that something is at.
    ServiceReference {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// The port; 443 where it does not say.
        port: Option<u16>,
    }
    /// An APIService.
    ApiService {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: ApiServiceSpec,
        /// Its status.
        status: ConditionStatus,
    }
    /// The specification of an APIService.
    ApiServiceSpec {
        /// Where it is; none for what the API server serves itself.
        service: Option<ServiceReference>,
        /// What its certificate is verified with.
        ca_bundle: String,
        /// Whether it is not verified.
        insecure_skip_tls_verify: bool,
    }
    /// A status of conditions alone.
    ConditionStatus {
        /// The conditions.
        conditions: Vec<Condition>,
    }
    /// A CustomResourceDefinition.
    Definition {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: DefinitionSpec,
        /// Its status.
        status: DefinitionStatus,
    }
    /// The specification of a definition.
    DefinitionSpec {
        /// The group.
        group: String,
        /// Its names.
        names: DefinitionNames,
        /// Its versions.
        versions: Vec<DefinitionVersion>,
        /// How versions are converted.
        conversion: Conversion,
        /// Whether unknown fields are kept, as only non-structural definitions may.
        preserve_unknown_fields: bool,
    }
    /// The names of a definition.
    DefinitionNames {
        /// The kind.
        kind: String,
        /// The plural name in paths.
        plural: String,
    }
    /// A version of a definition.
    DefinitionVersion {
        /// The name.
        name: String,
        /// Whether it is served.
        served: bool,
        /// Whether objects are stored so.
        storage: bool,
        /// Whether it is called deprecated.
        deprecated: bool,
    }
    /// How versions are converted.
    Conversion {
        /// `None` or `Webhook`.
        strategy: String,
        /// The webhook.
        webhook: Option<ConversionWebhook>,
    }
    /// A webhook that converts.
    ConversionWebhook {
        /// Where it is.
        client_config: WebhookClient,
    }
    /// The status of a definition.
    DefinitionStatus {
        /// The conditions.
        conditions: Vec<Condition>,
        /// The versions in which objects may be stored.
        stored_versions: Vec<String>,
    }
    /// A PersistentVolume.
    PersistentVolume {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: Volume,
    }
    /// A PersistentVolumeClaim.
    Claim {
        /// What it says of itself.
        metadata: Metadata,
        /// Its status.
        status: PodStatus,
    }
    /// A StorageClass.
    StorageClass {
        /// What it says of itself.
        metadata: Metadata,
        /// What makes its volumes.
        provisioner: String,
    }
    /// A VolumeAttachment.
    Attachment {
        /// What it says of itself.
        metadata: Metadata,
        /// Its status.
        status: AttachmentStatus,
    }
    /// The status of an attachment.
    AttachmentStatus {
        /// Whether it is attached.
        attached: bool,
        /// Why it cannot be attached.
        attach_error: Option<AttachmentError>,
        /// Why it cannot be detached.
        detach_error: Option<AttachmentError>,
    }
    /// Why a volume cannot be attached or detached.
    AttachmentError {
        /// In words.
        message: String,
    }
    /// A Job.
    Job {
        /// What it says of itself.
        metadata: Metadata,
        /// Its status.
        status: JobStatus,
    }
    /// The status of a Job.
    JobStatus {
        /// How many pods run.
        active: i64,
    }
    /// A CertificateSigningRequest.
    SigningRequest {
        /// What it says of itself.
        metadata: Metadata,
        /// Its specification.
        spec: SigningRequestSpec,
        /// Its status.
        status: SigningRequestStatus,
    }
    /// The specification of a signing request.
    SigningRequestSpec {
        /// Who shall sign.
        signer_name: String,
        /// Who asks.
        username: String,
    }
    /// The status of a signing request.
    SigningRequestStatus {
        /// The conditions.
        conditions: Vec<Condition>,
    }
    /// A ResourceQuota.
    Quota {
        /// What it says of itself.
        metadata: Metadata,
        /// Its status.
        status: QuotaStatus,
    }
    /// The status of a quota.
    QuotaStatus {
        /// What may be used.
        hard: Labels,
        /// What is used.
        used: Labels,
    }
}

/// A volume, of a pod or persistent: the kind of its source, and what checks read of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// The kind of source, such as `emptyDir` or `csi`; empty where it is none that is known.
    pub source: String,
    /// The driver of `csi` or `flexVolume`, the path of `hostPath`.
    pub detail: String,
}

/// Fields of volumes that are no sources.
const NOT_SOURCES: &[&str] = &[
    "name",
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

impl<'de> Deserialize<'de> for Volume {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Detail {
            driver: String,
            path: String,
        }
        struct Keys;
        impl<'de> serde::de::Visitor<'de> for Keys {
            type Value = Volume;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a volume")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Volume, A::Error> {
                let mut volume = Volume::default();
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        // The saved form.
                        "source" => volume.source = map.next_value()?,
                        "detail" => volume.detail = map.next_value()?,
                        other if NOT_SOURCES.contains(&other) => {
                            map.next_value::<serde::de::IgnoredAny>()?;
                        }
                        "csi" | "flexVolume" | "hostPath" => {
                            let detail: Detail = map.next_value()?;
                            volume.source = key;
                            volume.detail = if detail.driver.is_empty() { detail.path } else { detail.driver };
                        }
                        _ => {
                            map.next_value::<serde::de::IgnoredAny>()?;
                            volume.source = key;
                        }
                    }
                }
                Ok(volume)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

impl Selector {
    /// Whether labels fit; an empty selector fits everything.
    pub fn fits(&self, labels: &Labels) -> bool {
        let expression = |one: &Expression| {
            let value = labels.get(&one.key);
            match one.operator.as_str() {
                "In" => value.is_some_and(|value| one.values.contains(value)),
                "NotIn" => value.is_none_or(|value| !one.values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        };
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(expression)
    }

    /// Whether it fits everything.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }
}

impl ConditionStatus {
    /// The status of a condition.
    pub fn of(conditions: &[Condition], name: &str) -> Option<Condition> {
        conditions.iter().find(|condition| condition.r#type == name).cloned()
    }
}

impl Pod {
    /// What controls it.
    pub fn controller(&self) -> Option<&Owner> {
        self.metadata.owner_references.iter().find(|owner| owner.controller)
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
