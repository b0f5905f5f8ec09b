//! Answers that are errors: every one has the same body, the status of its code and the id of its request.
//!
//! Handlers return a [`Failure`]; the body is rendered at the edge ([`name_requests`]), where the request's id is
//! known. What went wrong inside the server is logged there and told by code only.

use axum::Json;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use shiplock_api::rest::ProblemBody;
use shiplock_core::problem::{Code, Problem};

use super::name::random_name;
use crate::store::StoreError;

/// The header that names a request in answers.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// An answer that is an error.
#[derive(Clone, Debug)]
pub(crate) struct Failure(pub(crate) Problem);

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error.into_problem())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.text().http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl StoreError {
    /// The problem that a person is told.
    pub fn into_problem(self) -> Problem {
        match self {
            Self::Refused(problem) => problem,
            Self::Conflict { upgrade, expected, found } => {
                Problem::new(Code::Conflict).with("upgrade", upgrade).with("expected", expected).with("found", found)
            }
            Self::LeaseLost { upgrade, epoch } => {
                Problem::new(Code::LeaseLost).with("upgrade", upgrade).with("epoch", epoch)
            }
            Self::Failed { operation, source } => {
                Problem::new(Code::StoreFailed).with("operation", operation).because(&*source)
            }
        }
    }
}

/// Gives each request an id and each error its body.
pub(crate) async fn name_requests(request: Request, next: Next) -> Response {
    let id = random_name("r", 16);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = next.run(request).await;
    if let Some(Failure(problem)) = response.extensions_mut().remove::<Failure>() {
        if response.status().is_server_error() {
            tracing::error!(request = id, %method, path, %problem, "a request failed");
        } else {
            tracing::debug!(request = id, %method, path, %problem, "a request was refused");
        }
        response = (response.status(), Json(ProblemBody::new(problem, id.clone()))).into_response();
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The answer where there is nothing.
pub(crate) async fn nothing_here(uri: Uri) -> Failure {
    Failure(Problem::new(Code::NotFound).with("path", shown(uri.path())))
}

/// The answer where there is something, but not for this method.
pub(crate) async fn nothing_for_method(method: Method, uri: Uri) -> Failure {
    Failure(Problem::new(Code::NotFound).with("path", format!("{method} {}", shown(uri.path()))))
}

fn shown(text: &str) -> String {
    text.chars().take(256).collect()
}

/// A request that cannot be read.
pub(crate) fn unreadable(what: impl std::fmt::Display) -> Failure {
    Failure(Problem::new(Code::BadRequest).with("what", shown(&what.to_string())))
}
