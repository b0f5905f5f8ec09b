//! An API server for tests: a function from request to answer, over the real client.

use std::sync::{Arc, Mutex};

use futures::{StreamExt as _, TryStreamExt as _};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::connection::Connection;

/// One request as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: Value,
}

impl Asked {
    /// `GET /api/v1/nodes/w1`.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// How it is answered.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A status and a body.
    Json(u16, Value),
    /// A text.
    Text(String),
    /// A watch: these lines, then the stream ends.
    Lines(Vec<Value>),
    /// A watch that stays open after these lines.
    Open(Vec<Value>),
    /// The connection breaks.
    Broken,
    /// Nothing comes.
    Silence,
}

/// What arrived.
pub(crate) type Log = Arc<Mutex<Vec<Asked>>>;

/// A connection to an API server that answers by a function.
pub(crate) fn api(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (Connection, Log) {
    let log: Log = Arc::default();
    let (answer, seen) = (Arc::new(answer), log.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answer, seen) = (answer.clone(), seen.clone());
        async move {
            let (parts, body) = request.into_parts();
            let bytes = body.collect().await.unwrap().to_bytes();
            let asked = Asked {
                method: parts.method.to_string(),
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            };
            seen.lock().unwrap().push(asked.clone());
            let lines =
                |lines: Vec<Value>| lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes();
            let whole = |bytes: Vec<u8>| Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed_unsync();
            let (status, body) = match answer(&asked) {
                Answer::Json(status, body) => (status, whole(serde_json::to_vec(&body).unwrap())),
                Answer::Text(text) => (200, whole(text.into_bytes())),
                Answer::Lines(all) => (200, whole(lines(all))),
                Answer::Open(all) => {
                    let first = futures::stream::iter([Ok::<_, std::io::Error>(lines(all))]);
                    let frames =
                        first.chain(futures::stream::pending()).map_ok(|bytes| Frame::data(Bytes::from(bytes)));
                    (200, StreamBody::new(frames).boxed_unsync())
                }
                Answer::Broken => return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)),
                Answer::Silence => std::future::pending().await,
            };
            Ok::<_, std::io::Error>(Response::builder().status(status).body(body).unwrap())
        }
    });
    (Connection::over(Client::new(service, "default"), "https://api.test:6443"), log)
}

/// A Status object.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> Answer {
    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message});
    Answer::Json(code, body)
}
