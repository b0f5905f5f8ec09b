//! Lists in pages.
//!
//! The version of a list is that of its first page, so a watch that begins there misses nothing, though later pages
//! are read from the present.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::status::Refusal;

/// Where a list goes on, in the form of upstream's tokens.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    rv: u64,
    /// The last object that was given out, `namespace/name`.
    start: String,
}

/// What is asked.
pub(super) struct Asked<'a> {
    /// The most objects of the page; 0 for all.
    pub(super) limit: u64,
    pub(super) token: Option<&'a str>,
    /// Whether what is left is counted, which upstream does without selectors only.
    pub(super) counts_rest: bool,
}

/// One page.
pub(super) struct Page {
    pub(super) objects: Vec<Value>,
    /// The list's metadata.
    pub(super) metadata: Value,
}

fn key(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    format!("{}/{}", text("namespace"), text("name"))
}

/// A page of objects that are in order of namespace and name. Changes after a version that `is_forgotten` cannot be told
/// any more, so a list of it cannot go on.
pub(super) fn page(
    objects: Vec<Value>,
    asked: &Asked<'_>,
    version: u64,
    is_forgotten: impl Fn(u64) -> bool,
) -> Result<Page, Refusal> {
    let token = asked.token.map(|text| {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        serde_json::from_slice::<Token>(&bytes).ok().filter(|token| token.v == "meta.k8s.io/v1")
    });
    let token = match token {
        Some(None) => return Err(Refusal::bad_request("continue key is not valid")),
        Some(Some(token)) if is_forgotten(token.rv) => return Err(Refusal::continue_expired()),
        Some(Some(token)) => Some(token),
        None => None,
    };
    let version = token.as_ref().map_or(version, |token| token.rv);
    let mut left: Vec<Value> = match &token {
        Some(token) => objects.into_iter().filter(|object| key(object) > token.start).collect(),
        None => objects,
    };
    let mut metadata = json!({"resourceVersion": version.to_string()});
    let limit = usize::try_from(asked.limit).unwrap_or(usize::MAX);
    if limit > 0 && left.len() > limit {
        let rest = left.split_off(limit);
        let start = left.last().map(key).unwrap_or_default();
        let token = json!(Token { v: "meta.k8s.io/v1".to_owned(), rv: version, start }).to_string();
        metadata["continue"] = URL_SAFE_NO_PAD.encode(token).into();
        if asked.counts_rest {
            metadata["remainingItemCount"] = rest.len().into();
        }
    }
    Ok(Page { objects: left, metadata })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(names: &[&str]) -> Vec<Value> {
        names.iter().map(|name| json!({"metadata": {"namespace": "shop", "name": name}})).collect()
    }

    fn asked(limit: u64, token: Option<&str>) -> Asked<'_> {
        Asked { limit, token, counts_rest: true }
    }

    #[test]
    fn pages_hold_every_object_once_and_keep_the_version_of_the_first() {
        let all = ["a", "b", "c", "d", "e"];
        let first = page(objects(&all), &asked(2, None), 7, |_| false).unwrap();
        assert_eq!(first.metadata["remainingItemCount"], 3);
        let mut seen = first.objects;
        let mut token = first.metadata["continue"].as_str().map(str::to_owned);
        while let Some(text) = token {
            let next = page(objects(&all), &asked(2, Some(&text)), 9, |_| false).unwrap();
            assert_eq!(next.metadata["resourceVersion"], "7");
            seen.extend(next.objects);
            token = next.metadata["continue"].as_str().map(str::to_owned);
        }
        assert_eq!(seen, objects(&all));
    }

    #[test]
    fn a_token_that_is_too_old_or_none_is_refused() {
        let first = page(objects(&["a", "b"]), &asked(1, None), 7, |_| false).unwrap();
        let token = first.metadata["continue"].as_str().unwrap();
        assert_eq!(
            page(objects(&["a"]), &asked(1, Some(token)), 20, |version| version < 8).map(drop).unwrap_err().code,
            410
        );
        assert_eq!(
            page(objects(&["a"]), &asked(1, Some("moon")), 20, |version| version < 8).map(drop).unwrap_err().code,
            400
        );
    }
}
