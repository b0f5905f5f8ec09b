//! What extends the API, and what operators say.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Condition, ConditionStatus, Field, Metadata, Selector, is_default, null_is_default};

objects! {
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
        /// What must be so besides.
        match_conditions: Vec<MatchCondition>,
    }
    /// What must be so of a request for a webhook to be asked about it.
    MatchCondition {
        /// In CEL.
        expression: String,
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
        #[serde(rename = "insecureSkipTLSVerify")]
        insecure_skip_tls_verify: bool,
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
    /// A Warning of Kubernetes about an object.
    Warning {
        /// About what.
        involved_object: Involved,
        /// Why, as a word.
        reason: String,
        /// How often.
        count: i64,
        /// When last.
        last_timestamp: Option<Timestamp>,
        /// When, where it came once.
        event_time: Option<Timestamp>,
        /// How often and when last, where it came in a series.
        series: Option<Series>,
    }
    /// What a warning is about.
    Involved {
        /// The kind.
        kind: String,
        /// The name.
        name: String,
    }
    /// How often and when last.
    Series {
        /// How often.
        count: i64,
        /// When last.
        last_observed_time: Option<Timestamp>,
    }
    /// The Lease of an installation of Shiplock that upgrades the cluster.
    UpgradeLease {
        /// What it says of itself.
        metadata: UpgradeLeaseMetadata,
        /// Its specification.
        spec: UpgradeLeaseSpec,
    }
    /// What such a Lease says of itself.
    UpgradeLeaseMetadata {
        /// Its annotations.
        annotations: UpgradeLeaseAnnotations,
    }
    /// The annotations of such a Lease.
    UpgradeLeaseAnnotations {
        /// The upgrade; empty where it is no such Lease.
        #[serde(rename = "shiplock.dev/upgrade")]
        upgrade: String,
        /// Says that the upgrade has ended; empty while it has not.
        #[serde(rename = "shiplock.dev/ended")]
        ended: String,
    }
    /// The specification of such a Lease.
    UpgradeLeaseSpec {
        /// When it was last renewed.
        renew_time: Option<Timestamp>,
    }
    /// Something that says whether it may be upgraded.
    Operator {
        /// What it says of itself.
        metadata: Metadata,
        /// Its status.
        status: ConditionStatus,
    }
}

impl UpgradeLease {
    /// The upgrade that has not ended; none where there is none.
    pub fn upgrade_under_way(&self) -> Option<&str> {
        let annotations = &self.metadata.annotations;
        Some(annotations.upgrade.as_str()).filter(|upgrade| !upgrade.is_empty() && annotations.ended.is_empty())
    }
}

impl Definition {
    /// What converts its objects; none where nothing is ever converted.
    pub fn converter(&self) -> Option<&WebhookClient> {
        let conversion = &self.spec.conversion;
        let webhook = conversion.webhook.as_ref().filter(|_| conversion.strategy == "Webhook")?;
        let is_only =
            |version: &DefinitionVersion| self.status.stored_versions.iter().all(|name| *name == version.name);
        let has_one = matches!(self.spec.versions.as_slice(), [version] if is_only(version));
        (!has_one).then_some(&webhook.client_config)
    }
}
