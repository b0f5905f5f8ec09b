//! Reading of requests: bounded in size and time, and refused with the common error body.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use shiplock_core::problem::{Code, Problem};

use super::failure::{Failure, unreadable};

/// The most bytes of a body.
pub(crate) const BODY_BYTES_MAX: usize = 256 * 1024;
/// How long a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(20);

/// A JSON body. An empty one is read as `{}`.
pub(crate) struct Input<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Input<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        parse(&read_json(request).await?).map(Self)
    }
}

/// Reads a body that is said to be JSON.
pub(crate) async fn read_json(request: Request) -> Result<Vec<u8>, Failure> {
    let (parts, body) = request.into_parts();
    let announced = header(&parts.headers, CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    if announced.is_some_and(|length| length > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    let bytes = tokio::time::timeout(BODY_WITHIN, collect(body))
        .await
        .map_err(|_| unreadable(format!("the body did not arrive within {} s", BODY_WITHIN.as_secs())))??;
    if bytes.is_empty() {
        return Ok(b"{}".to_vec());
    }
    // A page of another origin can send anything but this without asking first.
    match header(&parts.headers, CONTENT_TYPE).and_then(|kind| kind.split(';').next()) {
        Some(kind) if kind.trim().eq_ignore_ascii_case("application/json") => Ok(bytes),
        _ => Err(unreadable("its Content-Type is not application/json")),
    }
}

/// Reads JSON.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(unreadable)
}

async fn collect(body: Body) -> Result<Vec<u8>, Failure> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| unreadable("the connection broke while the body was sent"))?;
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn too_large() -> Failure {
    Failure(Problem::new(Code::TooLarge).with("limit", format!("{} KiB", BODY_BYTES_MAX / 1024)))
}

/// The name in the path of a request.
pub(crate) struct Named<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let named = Path::from_request_parts(parts, state).await;
        named.map(|Path(name)| Self(name)).map_err(|error| unreadable(error.body_text()))
    }
}

/// The query of a request.
pub(crate) struct Asked<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        Query::try_from_uri(&parts.uri).map(|Query(query)| Self(query)).map_err(|error| unreadable(error.body_text()))
    }
}

/// A header as text; none where it is absent or no text.
pub(crate) fn header(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
