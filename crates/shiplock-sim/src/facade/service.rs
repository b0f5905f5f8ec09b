//! The façade as a service: for `kube::Client` in the same process, or behind a listener.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, StreamBody};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::{BoxError, Service};

use super::discovery;
use super::disturb::Disturbance;
use super::objects;
use super::openapi;
use super::path::{Query, Route};
use super::shared::{DeprecatedRequests, Shared};
use super::status::Refusal;
use super::verbs::{Answer, Asked};
use super::watch::Watch;
use crate::world::World;

/// The largest body of a request; upstream's limit.
const BODY_BYTES_MAX: usize = 3 << 20;
/// How often a watch tells how far it is, where nothing changes.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// The last bookmark comes so long before the end of a watch.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

/// The body of a response.
pub type ResponseBody = UnsyncBoxBody<Bytes, BoxError>;

/// The API server of a simulated cluster, or one instance of it.
#[derive(Clone)]
pub struct Facade {
    shared: Arc<Shared>,
    /// The master whose instance this is; any that serves where it is none.
    instance: Option<Arc<str>>,
}

/// What is sent back.
enum Given {
    Answer(Answer),
    Text(String),
    /// Aggregated discovery, of a version; clients tell it from the old form by its content type.
    Discovery(&'static str, Value),
}

impl Facade {
    /// The instance on one master, or whichever instance answers.
    pub fn new(shared: Arc<Shared>, instance: Option<&str>) -> Self {
        Self { shared, instance: instance.map(Arc::from) }
    }

    /// A client of this API server, without a socket.
    pub fn client(&self) -> kube::Client {
        kube::Client::new(self.clone(), "default")
    }

    async fn answer<B>(self, request: Request<B>) -> Result<Response<ResponseBody>, BoxError>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let (parts, body) = request.into_parts();
        let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Ok(refusal(&Refusal::too_large(BODY_BYTES_MAX))),
            // It was cut off: nobody waits for an answer.
            Err(error) => return Err(error),
        };
        let disturbance = self.shared.disturbance(&parts.method, parts.uri.path());
        match disturbance {
            Disturbance::Lost => return Err(BoxError::from("connection reset")),
            Disturbance::Refused(code) => {
                return Ok(refusal(&Refusal::overloaded(code)));
            }
            Disturbance::None | Disturbance::AnswerLost | Disturbance::Meddled => {}
        }
        let given = self.shared.with(|world| {
            if disturbance == Disturbance::Meddled {
                meddle(world, parts.uri.path());
            }
            if !objects::is_serving(world, self.instance.as_deref()) {
                return Err(BoxError::from("connection refused: the API server is not running"));
            }
            Ok(self.look(world, &parts, &body))
        })?;
        if disturbance == Disturbance::AnswerLost {
            return Err(BoxError::from("connection reset"));
        }
        Ok(match given {
            Ok(Given::Answer(Answer::Document(code, body))) => document(code, &body),
            Ok(Given::Answer(Answer::Watch(watch))) => self.stream(*watch),
            Ok(Given::Discovery(form, body)) => {
                let content_type = format!("application/json;g=apidiscovery.k8s.io;v={form};as=APIGroupDiscoveryList");
                let mut response = document(200, &body);
                if let Ok(value) = http::HeaderValue::from_str(&content_type) {
                    response.headers_mut().insert(CONTENT_TYPE, value);
                }
                response
            }
            Ok(Given::Text(text)) => response(200, "text/plain; charset=utf-8", text.into_bytes()),
            Err(refused) => refusal(&refused),
        })
    }

    fn look(&self, world: &mut World, parts: &http::request::Parts, body: &[u8]) -> Result<Given, Refusal> {
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let accept = header(ACCEPT);
        let body = match Route::parse(parts.uri.path()) {
            Route::Objects(target) => {
                let query = &Query::parse(parts.uri.query());
                let (method, content_type) = (&parts.method, header(CONTENT_TYPE));
                let user_agent = header(USER_AGENT);
                let asked = Asked { method, target: &target, query, accept, content_type, user_agent, body };
                return asked.carry_out(world, &mut self.shared.versions()).map(Given::Answer);
            }
            Route::Health(what) => {
                let is_verbose = parts.uri.query().is_some_and(|query| query.contains("verbose"));
                let whole = format!("[+]ping ok\n[+]etcd ok\n{what} check passed\n");
                return Ok(Given::Text(if is_verbose { whole } else { "ok".to_owned() }));
            }
            Route::Metrics => return Ok(Given::Text(metrics(&self.shared.settings().deprecated))),
            Route::Version => version(&objects::api_server(world, self.instance.as_deref())),
            Route::CoreVersions => match discovery::aggregated(accept) {
                Some(form) => return Ok(Given::Discovery(form, discovery::aggregate(true, form))),
                None => discovery::core_versions("127.0.0.1:6443"),
            },
            Route::Groups => match discovery::aggregated(accept) {
                Some(form) => return Ok(Given::Discovery(form, discovery::aggregate(false, form))),
                None => discovery::groups(),
            },
            Route::Group(name) => discovery::group(&name)?,
            Route::Resources { group, version } => discovery::resources(&group, &version)?,
            Route::OpenApi => openapi::index(),
            Route::OpenApiOf { group, version } => openapi::document(&group, &version)?,
            Route::NotSimulated(resource, subresource) => return Err(Refusal::not_simulated(resource, &subresource)),
            Route::Unknown => return Err(Refusal::no_such_path()),
        };
        Ok(Given::Answer(Answer::Document(200, body)))
    }

    /// The events of a watch, for as long as it may go on and its instance serves.
    fn stream(&self, watch: Watch) -> Response<ResponseBody> {
        let now = Instant::now();
        let begun = Stream {
            changed: self.shared.changes(),
            facade: self.clone(),
            ends_at: now + watch.timeout,
            bookmark_at: bookmark_after(now, now + watch.timeout),
            watch,
            breaks: self.shared.breaks(),
            is_over: false,
        };
        let lines = futures::stream::unfold(begun, |mut stream| async {
            let line = stream.next().await?;
            Some((line.map(Frame::data), stream))
        });
        let mut response = Response::new(UnsyncBoxBody::new(StreamBody::new(lines)));
        response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json;stream=watch"));
        response
    }
}

fn bookmark_after(now: Instant, ends_at: Instant) -> Instant {
    let last = ends_at.checked_sub(BOOKMARK_BEFORE_END).unwrap_or(ends_at);
    if now < last { last.min(now + BOOKMARK_EVERY) } else { ends_at + BOOKMARK_EVERY }
}

/// A watch with its clock.
struct Stream {
    facade: Facade,
    changed: tokio::sync::watch::Receiver<u64>,
    watch: Watch,
    ends_at: Instant,
    bookmark_at: Instant,
    /// How often open watches had broken when it began.
    breaks: u64,
    is_over: bool,
}

impl Stream {
    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        loop {
            if self.is_over || Instant::now() >= self.ends_at {
                return None;
            }
            self.changed.mark_unchanged();
            let is_due = self.watch.wants_bookmarks && Instant::now() >= self.bookmark_at;
            let is_broken = self.facade.shared.breaks() != self.breaks;
            let (watch, instance) = (&mut self.watch, self.facade.instance.as_deref());
            let (events, is_over) = self.facade.shared.look(|world| {
                if is_broken || !objects::is_serving(world, instance) {
                    return (Err(BoxError::from("the API server went away")), true);
                }
                let mut events = watch.next(world);
                let is_over = watch.is_broken;
                if is_due && !is_over {
                    events.push(watch.bookmark(world, Value::Null));
                }
                (Ok(events), is_over)
            });
            self.is_over = is_over;
            if is_due {
                self.bookmark_at = bookmark_after(Instant::now(), self.ends_at);
            }
            match events {
                Ok(events) if events.is_empty() => {}
                Ok(events) => {
                    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
                    return Some(Ok(lines.into()));
                }
                Err(error) => return Some(Err(error)),
            }
            tokio::select! {
                // One order in every run.
                biased;
                _ = self.changed.changed() => {}
                () = tokio::time::sleep_until(self.ends_at) => {}
                () = tokio::time::sleep_until(self.bookmark_at), if self.watch.wants_bookmarks => {}
            }
        }
    }
}

/// Somebody writes the object that a request is about to write.
fn meddle(world: &mut World, path: &str) {
    let Some(name) = path.strip_prefix("/api/v1/nodes/") else { return };
    if let Some(id) = world.nodes().id("", name) {
        world.change_node(id, |_| {});
    }
}

impl<B> Service<Request<B>> for Facade
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.clone().answer(request).boxed()
    }
}

fn response(code: u16, content_type: &'static str, body: Vec<u8>) -> Response<ResponseBody> {
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {});
    let mut response = Response::new(UnsyncBoxBody::new(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

/// What is sent where something is refused.
pub(super) fn refusal(refusal: &Refusal) -> Response<ResponseBody> {
    let mut response = document(refusal.code, &refusal.body());
    if let Some(seconds) = refusal.retry_after_seconds {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn document(code: u16, body: &Value) -> Response<ResponseBody> {
    response(code, "application/json", body.to_string().into_bytes())
}

fn version(server: &objects::ApiServer) -> Value {
    let git_version = &server.git_version;
    let mut numbers = git_version.trim_start_matches('v').split('.');
    let mut document = json!({
        "major": numbers.next().unwrap_or_default(),
        "minor": numbers.next().unwrap_or_default(),
        "gitVersion": git_version,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "simulated",
        "compiler": "gc",
        "platform": "linux/amd64",
    });
    if let Some(emulates) = server.emulates {
        document["emulationMajor"] = emulates.major.to_string().into();
        document["emulationMinor"] = emulates.minor.to_string().into();
    }
    document
}

/// The metrics that checks ask for.
fn metrics(deprecated: &[DeprecatedRequests]) -> String {
    let mut text =
        "# HELP apiserver_requested_deprecated_apis Gauge of deprecated APIs that have been requested, broken \
        out by API group, version, resource, subresource, and removed_release.\n\
        # TYPE apiserver_requested_deprecated_apis gauge\n"
            .to_owned();
    for DeprecatedRequests { group, version, resource, removed_release } in deprecated {
        let labels = format!(
            "group=\"{group}\",removed_release=\"{removed_release}\",resource=\"{resource}\",subresource=\"\",version=\"{version}\""
        );
        text.push_str(&format!("apiserver_requested_deprecated_apis{{{labels}}} 1\n"));
    }
    text
}
