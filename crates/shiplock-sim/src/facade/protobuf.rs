//! Bodies in Kubernetes' protobuf form, which clients made from Go types send. Options of a deletion are read; whole objects in
//! that form are not, and are refused by the caller.
//!
//! Source: <https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding> and
//! `k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto`.

use prost::Message;
use serde_json::{Value, json};

/// What such a body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// `k8s.io.apimachinery.pkg.runtime.Unknown`.
#[derive(Clone, PartialEq, Message)]
struct Unknown {
    #[prost(message, optional, tag = "1")]
    type_meta: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

/// `k8s.io.apimachinery.pkg.runtime.TypeMeta`.
#[derive(Clone, PartialEq, Message)]
struct TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

/// `k8s.io.apimachinery.pkg.apis.meta.v1.DeleteOptions`.
#[derive(Clone, PartialEq, Message)]
struct DeleteOptions {
    #[prost(int64, optional, tag = "1")]
    grace_period_seconds: Option<i64>,
    #[prost(message, optional, tag = "2")]
    preconditions: Option<Preconditions>,
    #[prost(string, optional, tag = "4")]
    propagation_policy: Option<String>,
    #[prost(string, repeated, tag = "5")]
    dry_run: Vec<String>,
}

/// `k8s.io.apimachinery.pkg.apis.meta.v1.Preconditions`.
#[derive(Clone, PartialEq, Message)]
struct Preconditions {
    #[prost(string, optional, tag = "1")]
    uid: Option<String>,
    #[prost(string, optional, tag = "2")]
    resource_version: Option<String>,
}

/// The options of a deletion as their JSON would be; none where the body is anything else.
pub(super) fn delete_options(body: &[u8]) -> Option<Value> {
    let unknown = Unknown::decode(body.strip_prefix(MAGIC)?).ok()?;
    if unknown.type_meta?.kind != "DeleteOptions" {
        return None;
    }
    let options = DeleteOptions::decode(unknown.raw.as_slice()).ok()?;
    let preconditions = options.preconditions.unwrap_or_default();
    Some(json!({
        "gracePeriodSeconds": options.grace_period_seconds,
        "preconditions": {"uid": preconditions.uid, "resourceVersion": preconditions.resource_version},
        "propagationPolicy": options.propagation_policy,
        "dryRun": options.dry_run,
    }))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A body as a Go client sends it.
    pub(in crate::facade) fn body(kind: &str, uid: &str) -> Vec<u8> {
        let options = DeleteOptions {
            grace_period_seconds: Some(30),
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            propagation_policy: None,
            dry_run: Vec::new(),
        };
        let type_meta = TypeMeta { api_version: "policy/v1".to_owned(), kind: kind.to_owned() };
        let unknown = Unknown { type_meta: Some(type_meta), raw: options.encode_to_vec() };
        [MAGIC, &unknown.encode_to_vec()].concat()
    }

    #[test]
    fn options_of_a_deletion_are_read_and_nothing_else_is() {
        let read = delete_options(&body("DeleteOptions", "u-1")).unwrap();
        assert_eq!(read["gracePeriodSeconds"], 30);
        assert_eq!(read["preconditions"], json!({"uid": "u-1", "resourceVersion": null}));
        for other in [body("ConfigMap", "u-1"), b"k8s\0\xff\xff".to_vec(), b"{}".to_vec(), Vec::new()] {
            assert_eq!(delete_options(&other), None);
        }
    }
}
