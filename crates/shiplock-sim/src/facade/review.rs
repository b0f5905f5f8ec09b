//! Reviews: who one is and what one may do. Whoever reaches a façade may do everything.

use serde_json::{Value, json};

use super::resource::Resource;

/// Answers a review.
pub(super) fn answer(resource: &Resource, mut asked: Value) -> Value {
    asked["apiVersion"] = resource.api_version().into();
    asked["kind"] = resource.kind.into();
    asked["status"] = match resource.kind {
        "SelfSubjectReview" => {
            json!({"userInfo": {"username": "kubernetes-admin", "groups": ["system:masters", "system:authenticated"]}})
        }
        "SelfSubjectRulesReview" => json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": false,
        }),
        _ => json!({"allowed": true, "reason": "simulated: everybody may do everything"}),
    };
    asked
}
