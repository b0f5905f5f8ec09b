//! Answers of the server: what was asked for, or the problem in place of it.

use reqwest::{RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use shiplock_core::problem::{Code, Problem};

use super::{Client, Endpoint};
use crate::rest::ProblemBody;

/// The largest answer that is read. A plan for thousands of nodes has some MiB.
pub(super) const ANSWER_BYTES_MAX: usize = 64 << 20;

/// No answer came.
#[derive(Debug)]
pub(super) struct Lost {
    /// What is told.
    pub(super) problem: Problem,
    /// Whether the server may have got the request all the same.
    pub(super) may_have_arrived: bool,
}

/// A whole answer.
pub(super) struct Answer {
    request: String,
    status: StatusCode,
    body: Vec<u8>,
}

impl Client {
    /// Sends a request and reads the whole answer.
    pub(super) async fn exchange(&self, request: RequestBuilder) -> Result<Answer, Lost> {
        let response = self.open(request).await?;
        self.finish(response).await
    }

    /// Sends a request and reads the head of the answer.
    pub(super) async fn open(&self, request: RequestBuilder) -> Result<Response, Lost> {
        request.send().await.map_err(|error| self.lost(&error))
    }

    /// Reads the rest of an answer.
    pub(super) async fn finish(&self, mut response: Response) -> Result<Answer, Lost> {
        let (status, request) = (response.status(), response.url().path().to_owned());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(&error))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                let problem = unreadable(&self.endpoint, &request).cause(format!("more than {ANSWER_BYTES_MAX} bytes"));
                return Err(Lost { problem, may_have_arrived: false });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { request, status, body })
    }

    fn lost(&self, error: &reqwest::Error) -> Lost {
        let problem = Problem::new(Code::ServerUnreachable).with("server", &self.endpoint).cause(chain(error));
        Lost { problem, may_have_arrived: !error.is_connect() && !error.is_builder() }
    }
}

impl Answer {
    /// The value of a good answer, the problem of a bad one.
    pub(super) fn read<T: DeserializeOwned>(self, endpoint: &Endpoint) -> Result<T, Problem> {
        let request = self.request.clone();
        let body = self.succeed(endpoint)?;
        serde_json::from_slice(&body).map_err(|error| unreadable(endpoint, &request).cause(error))
    }

    /// The body of a good answer, the problem of a bad one.
    pub(super) fn succeed(self, endpoint: &Endpoint) -> Result<Vec<u8>, Problem> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        if let Ok(body) = serde_json::from_slice::<ProblemBody>(&self.body) {
            return Err(match body.code.text().http_status {
                // Only these need the server's log, and only then is the id worth a line.
                500.. => body.problem.with("request_id", body.request_id),
                _ => body.problem,
            });
        }
        // Something else than our server answers, or a newer one with a code that is not known here.
        let text: String = String::from_utf8_lossy(&self.body).chars().take(2_000).collect();
        let ours = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        let problem = match self.status {
            StatusCode::UNAUTHORIZED => Problem::new(Code::Unauthorized),
            // A proxy speaks for a server that is away.
            status if status.is_server_error() && !ours => {
                Problem::new(Code::ServerUnreachable).with("server", endpoint)
            }
            _ => unreadable(endpoint, &self.request),
        };
        Err(problem.cause(format!("HTTP {}", self.status)).cause(text))
    }
}

/// The server answered, and the answer makes no sense here.
pub(super) fn unreadable(endpoint: &Endpoint, request: &str) -> Problem {
    Problem::new(Code::AnswerUnreadable).with("server", endpoint).with("request", request)
}

/// An error with all that lies beneath it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let line = error.to_string();
        if !text.contains(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        next = error.source();
    }
    text
}
