//! The forms of a patch: JSON patch, merge patch, strategic merge patch, and what server-side apply asks for.

mod apply;
mod strategic;

use serde_json::Value;

pub(super) use self::apply::{Applied, Writer, apply, book};
use super::resource::Resource;
use super::status::{Cause, Refusal};

/// The form of a patch, by the content type of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl Form {
    /// The form that a content type names.
    pub(super) fn of(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            "application/apply-patch+yaml" => Some(Self::Apply),
            _ => None,
        }
    }
}

/// The object after a patch of any form but [`Form::Apply`].
pub(super) fn patched(resource: &Resource, object: &Value, form: Form, body: &Value) -> Result<Value, Refusal> {
    let mut next = object.clone();
    match form {
        Form::Json => {
            let operations: json_patch::Patch = serde_json::from_value(body.clone())
                .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
            // Upstream gives a failed test and a missing path the same code.
            json_patch::patch(&mut next, &operations).map_err(|error| {
                Refusal::patch_failed(format!(
                    "the server rejected our request due to an error in our request: {error}"
                ))
            })?;
        }
        Form::Merge => json_patch::merge(&mut next, body),
        Form::Strategic => strategic::merge(&mut next, body)?,
        Form::Apply => return Err(Refusal::unsupported_media_type()),
    }
    if !next.is_object() {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Refusal::invalid(resource, name, vec![Cause::invalid("patch", "the patch leaves no object")]));
    }
    Ok(next)
}

#[cfg(test)]
mod tests;
