//! Requests that the client library does not make as they are needed here.
//!
//! Its eviction writes the options under a name that no API server knows, so the UID would not be tested. And every
//! request that changes something tells the server when to give up, so that none takes effect long after it was sent.

use http::{Method, Request, header};
use kube::Error;
use serde_json::Value;

use crate::connection::ACT_TIMEOUT;

/// Who writes, in `managedFields`.
const FIELD_MANAGER: &str = "shiplock";
/// JSON patch, RFC 6902.
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";
/// Plain JSON.
pub(crate) const JSON: &str = "application/json";

/// A request that changes something.
pub(crate) fn write(method: Method, path: &str, content_type: &str, body: &Value) -> Result<Request<Vec<u8>>, Error> {
    let uri = format!("{path}?fieldManager={FIELD_MANAGER}&timeout={}s", ACT_TIMEOUT.as_secs());
    let body = serde_json::to_vec(body).map_err(Error::SerdeError)?;
    Request::builder()
        .method(method)
        .uri(uri)
        .header(header::CONTENT_TYPE, content_type)
        .body(body)
        .map_err(Error::HttpError)
}

/// The path of a node.
pub(crate) fn node_path(name: &str) -> String {
    format!("/api/v1/nodes/{}", segment(name))
}

/// The path of a pod.
pub(crate) fn pod_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", segment(namespace), segment(name))
}

/// Names of objects need no escapes. What would leave its place in the path becomes a name that no object has.
fn segment(name: &str) -> String {
    let fits = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_' | ':');
    if name.is_empty() || name.starts_with('.') {
        "-".to_owned()
    } else {
        name.chars().map(|c| if fits(c) { c } else { '-' }).collect()
    }
}
