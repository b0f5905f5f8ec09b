//! What the façade refuses, in the words and with the codes of an API server. Clients build on both.

use serde_json::{Value, json};

use super::path::Target;
use super::resource::Resource;

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
    details: Value,
    /// A token with which a list that cannot go on as it was goes on from the present.
    continues: Option<String>,
    /// Said in the header `Retry-After`, too.
    pub(super) retry_after_seconds: Option<u32>,
}

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cause {
    /// Such as `FieldValueInvalid`.
    reason: &'static str,
    field: String,
    /// Such as `Required value`.
    text: String,
}

impl Cause {
    pub(super) fn new(reason: &'static str, field: &str, text: impl Into<String>) -> Self {
        Self { reason, field: field.to_owned(), text: text.into() }
    }

    /// A value that cannot be taken, and why.
    pub(super) fn invalid(field: &str, why: impl Into<String>) -> Self {
        Self::new("FieldValueInvalid", field, why)
    }
}

impl Refusal {
    pub(super) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: json!({}), continues: None, retry_after_seconds: None }
    }

    fn about(mut self, resource: &Resource, name: &str) -> Self {
        self.details = json!({"name": name, "kind": resource.plural});
        if !resource.group.is_empty() {
            self.details["group"] = resource.group.into();
        }
        self
    }

    /// The `Status` that is sent.
    pub(super) fn body(&self) -> Value {
        let mut details = self.details.clone();
        if let Some(seconds) = self.retry_after_seconds {
            details["retryAfterSeconds"] = seconds.into();
        }
        let mut body = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if let Some(token) = &self.continues {
            body["metadata"]["continue"] = token.as_str().into();
        }
        if !self.reason.is_empty() {
            body["reason"] = self.reason.into();
        }
        if details.as_object().is_some_and(|details| !details.is_empty()) {
            body["details"] = details;
        }
        body
    }

    /// Nothing is served under this path.
    pub(super) fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(super) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", resource.qualified())).about(resource, name)
    }

    pub(super) fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.qualified());
        Self::new(409, "AlreadyExists", message).about(resource, name)
    }

    fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", resource.qualified());
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// The object has another version than the writer knew.
    pub(super) fn modified(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// A precondition does not hold: `what` is `UID` or `ResourceVersion`.
    pub(super) fn precondition(resource: &Resource, name: &str, what: &str, wanted: &str, found: &str) -> Self {
        let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
        Self::conflict(resource, name, &why)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// An object that cannot be, with everything that is wrong with it.
    pub(super) fn invalid(resource: &Resource, name: &str, causes: Vec<Cause>) -> Self {
        let kind = if resource.group.is_empty() {
            resource.kind.to_owned()
        } else {
            format!("{}.{}", resource.kind, resource.group)
        };
        Self::invalid_kind(&kind, name, causes).of(resource)
    }

    fn of(mut self, resource: &Resource) -> Self {
        self.details["kind"] = resource.kind.into();
        self.details["group"] = resource.group.into();
        self
    }

    /// The same of what is no resource, such as options.
    pub(super) fn invalid_kind(kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let said: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.text)).collect();
        let said = if let [one] = said.as_slice() { one.clone() } else { format!("[{}]", said.join(", ")) };
        let mut refusal = Self::new(422, "Invalid", format!("{kind} \"{name}\" is invalid: {said}"));
        let cause = |cause: &Cause| json!({"reason": cause.reason, "message": cause.text, "field": cause.field});
        refusal.details = json!({"name": name, "kind": kind, "causes": causes.iter().map(cause).collect::<Vec<_>>()});
        refusal
    }

    /// A JSON patch that cannot be applied; a failed `test` among them.
    pub(super) fn patch_failed(why: impl Into<String>) -> Self {
        Self::new(422, "Invalid", why)
    }

    pub(super) fn method_not_allowed(target: &Target) -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message).about(target.resource, target.name.as_deref().unwrap_or_default())
    }

    pub(super) fn unsupported_media_type() -> Self {
        let message = "the body of the request was in an unknown format - accepted media types include: \
            application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json-patch+json, application/merge-patch+json, \
            application/strategic-merge-patch+json, application/apply-patch+yaml";
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// A watch that begins at a version whose successors are forgotten.
    pub(super) fn expired(wanted: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {wanted} ({oldest})"))
    }

    /// A list as it was is forgotten; with a token to go on from the present.
    pub(super) fn continue_expired(token: String) -> Self {
        let message = "The provided continue parameter is too old to display a consistent list result. You can start \
            a new list without the continue parameter, or use the continue token in this response to retrieve the remainder \
            of the results. Continuing with the provided token results in an inconsistent list - objects that were created, \
            modified, or deleted between the time the first chunk was returned and now may show up in the list.";
        Self { continues: Some(token), ..Self::new(410, "Expired", message) }
    }

    /// A list of a version that is not there yet.
    pub(super) fn too_large_version(wanted: u64, newest: u64) -> Self {
        let message = format!("Too large resource version: {wanted}, current: {newest}");
        let mut refusal = Self::new(504, "Timeout", format!("Timeout: {message}"));
        let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        refusal.details = json!({"causes": [cause]});
        refusal.retry_after_seconds = Some(1);
        refusal
    }

    /// A body beyond the bound.
    pub(super) fn too_large(bytes_max: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {bytes_max}"))
    }

    /// A way to what runs in a pod, such as its log.
    pub(super) fn not_simulated(resource: &Resource, subresource: &str) -> Self {
        let name = format!("{}/{subresource}", resource.plural);
        let message = format!("{name} is not served: this cluster is simulated, and nothing runs in its pods");
        Self::new(405, "MethodNotAllowed", message)
    }

    /// It cannot answer now: 429, or a failure of its own.
    pub(super) fn overloaded(code: u16) -> Self {
        let reason = match code {
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            _ => "InternalError",
        };
        Self::new(code, reason, "the API server cannot answer now")
    }

    /// A budget stands against an eviction.
    pub(super) fn disruption_budget(cause: &str) -> Self {
        let mut refusal =
            Self::new(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.");
        refusal.details = json!({"causes": [{"reason": "DisruptionBudget", "message": cause}]});
        refusal
    }
}
