//! Requests of the collector: bounded in number, in flight, in time and in size.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use shiplock_check::snapshot::{Read, ServedResource};
use shiplock_core::problem::Problem;
use tokio::sync::Semaphore;

use crate::answer::{Ask, bounded};
use crate::connection::Connection;

/// So many requests at once; a scanner must not press the API server.
const IN_FLIGHT_MAX: usize = 6;
/// No run sends more.
const REQUESTS_MAX: u64 = 5_000;
/// No answer may be larger.
const ANSWER_BYTES_MAX: usize = 128 << 20;
/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(60);
/// No list has more objects.
const OBJECTS_MAX: usize = 1_000_000;
/// Objects on one page.
pub(super) const PAGE: u32 = 500;
/// Metadata alone.
pub(super) const METADATA: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
/// Discovery in one answer.
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
const JSON: &str = "application/json";

/// All requests of one run.
pub(super) struct Requests<'a> {
    connection: &'a Connection,
    permits: Semaphore,
    sent: AtomicU64,
    bytes: AtomicU64,
    in_flight: AtomicU64,
    in_flight_max: AtomicU64,
}

/// How a list is asked for.
#[derive(Clone, Copy)]
pub(super) struct List<'a> {
    pub(super) path: &'a str,
    /// A selector in the form of a query, or nothing.
    pub(super) query: &'a str,
    pub(super) metadata_only: bool,
    pub(super) page: u32,
}

impl<'a> List<'a> {
    pub(super) const fn of(path: &'a str) -> Self {
        Self { path, query: "", metadata_only: false, page: PAGE }
    }
}

#[derive(Deserialize)]
struct Page<T> {
    #[serde(default)]
    kind: String,
    // An empty list of metadata has none.
    items: Option<Vec<T>>,
}

#[derive(Default, Deserialize)]
struct PageMetadata {
    #[serde(default, rename = "continue")]
    token: Option<String>,
}

/// The objects of a page.
pub(super) fn items<T: DeserializeOwned>(body: &[u8]) -> Result<Vec<T>, String> {
    let page: Page<T> = serde_json::from_slice(body)
        .map_err(|error| format!("the answer is no list: line {}, column {}", error.line(), error.column()))?;
    if !page.kind.ends_with("List") {
        return Err("the answer is no list: its kind says so".to_owned());
    }
    Ok(page.items.unwrap_or_default())
}

/// Why something was not seen.
pub(super) struct NotSeen {
    pub(super) status: u16,
    pub(super) why: String,
}

impl<'a> Requests<'a> {
    pub(super) fn new(connection: &'a Connection) -> Self {
        Self {
            connection,
            permits: Semaphore::new(IN_FLIGHT_MAX),
            sent: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            in_flight: AtomicU64::new(0),
            in_flight_max: AtomicU64::new(0),
        }
    }

    /// Requests, bytes, the most at once.
    pub(super) fn effort(&self) -> (u64, u64, u64) {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (read(&self.sent), read(&self.bytes), read(&self.in_flight_max))
    }

    /// The version that the API server reports.
    pub(super) async fn version(&self) -> Result<String, Problem> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        let ask = Ask::new("get", "/version");
        let info = bounded(&self.connection.server, ask, LIMIT, self.connection.client.apiserver_version()).await?;
        Ok(info.git_version)
    }

    /// Gets a path of the configured server.
    pub(super) async fn get(&self, path: &str, accept: &str) -> Result<Vec<u8>, NotSeen> {
        self.get_from(self.connection, path, accept).await
    }

    /// Gets a path of one instance, or of the configured server.
    pub(super) async fn get_from(&self, from: &Connection, path: &str, accept: &str) -> Result<Vec<u8>, NotSeen> {
        let mut body = Vec::new();
        self.stream(from, path, accept, |chunk| {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(format!("the answer is larger than {ANSWER_BYTES_MAX} bytes"));
            }
            body.extend_from_slice(chunk);
            Ok(())
        })
        .await?;
        Ok(body)
    }

    /// Gets a path and hands on each part of the answer.
    pub(super) async fn stream(
        &self,
        from: &Connection,
        path: &str,
        accept: &str,
        mut take: impl FnMut(&[u8]) -> Result<(), String>,
    ) -> Result<(), NotSeen> {
        let not_seen = |why: String| NotSeen { status: 0, why };
        if self.sent.fetch_add(1, Ordering::Relaxed) >= REQUESTS_MAX {
            return Err(not_seen(format!("the budget of {REQUESTS_MAX} requests is used up")));
        }
        let request = Request::get(path).header(header::ACCEPT, accept).header(header::USER_AGENT, "shiplock-check");
        let request = request.body(Body::empty()).map_err(|error| not_seen(error.to_string()))?;
        let _permit = self.permits.acquire().await.map_err(|error| not_seen(error.to_string()))?;
        let in_flight = self.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
        self.in_flight_max.fetch_max(in_flight, Ordering::Relaxed);
        let work = async {
            let response = from.client.send(request).await.map_err(|error| not_seen(unreached(&error)))?;
            let status = response.status();
            let mut body = response.into_body();
            let mut refusal = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| not_seen(format!("the answer was cut off: {error}")))?;
                let Some(chunk) = frame.data_ref() else { continue };
                self.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                if !status.is_success() {
                    refusal.extend_from_slice(&chunk[..chunk.len().min(4096_usize.saturating_sub(refusal.len()))]);
                } else if let Err(why) = take(chunk) {
                    return Err(not_seen(why));
                }
            }
            if status.is_success() {
                Ok(())
            } else {
                Err(NotSeen { status: status.as_u16(), why: refused(status, &refusal) })
            }
        };
        let outcome = tokio::time::timeout(LIMIT, work).await;
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        outcome.unwrap_or_else(|_| Err(not_seen(format!("no whole answer within {LIMIT:?}"))))
    }

    /// Gets a list, page by page, and hands on each object.
    pub(super) async fn each<T: DeserializeOwned>(
        &self,
        list: List<'_>,
        mut take: impl FnMut(T),
    ) -> Result<(), NotSeen> {
        let mut count = 0_usize;
        let mut failure = None;
        self.pages(list, async |body| {
            match items::<T>(&body) {
                Ok(items) => {
                    count += items.len();
                    items.into_iter().for_each(&mut take);
                }
                Err(why) => failure = Some(why),
            }
            count <= OBJECTS_MAX && failure.is_none()
        })
        .await?;
        match failure {
            Some(why) => Err(NotSeen { status: 0, why }),
            None if count > OBJECTS_MAX => {
                Err(NotSeen { status: 0, why: format!("there are more than {OBJECTS_MAX} objects") })
            }
            None => Ok(()),
        }
    }

    /// Gets a list and hands on each page as it came, until there are no more or the taker wants none.
    pub(super) async fn pages(
        &self,
        list: List<'_>,
        mut take: impl AsyncFnMut(Vec<u8>) -> bool,
    ) -> Result<(), NotSeen> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(default)]
            metadata: PageMetadata,
        }
        let accept = if list.metadata_only { METADATA } else { JSON };
        let mut token = String::new();
        loop {
            let mut path = format!("{}?limit={}", list.path, list.page);
            if !list.query.is_empty() {
                path = format!("{path}&{}", list.query);
            }
            if !token.is_empty() {
                path = format!("{path}&continue={}", escape(&token));
            }
            let body = self.get(&path, accept).await?;
            let unreadable = |why: String| NotSeen { status: 0, why: format!("the answer is no list: {why}") };
            let head: Head = serde_json::from_slice(&body)
                .map_err(|error| unreadable(format!("line {}, column {}", error.line(), error.column())))?;
            if !take(body).await {
                return Ok(());
            }
            match head.metadata.token.filter(|token| !token.is_empty()) {
                // The same token again would never end.
                Some(next) if next != token => token = next,
                Some(_) => return Err(unreadable("its pages do not end".to_owned())),
                None => return Ok(()),
            }
        }
    }

    /// Gets a whole list.
    pub(super) async fn list<T: DeserializeOwned>(&self, list: List<'_>) -> Read<Vec<T>> {
        self.list_where(list, |_| true).await
    }

    /// Gets a whole list, of which only what `keep` wants is held.
    pub(super) async fn list_where<T: DeserializeOwned>(
        &self,
        list: List<'_>,
        keep: impl Fn(&T) -> bool,
    ) -> Read<Vec<T>> {
        // A token can expire while pages are read; once more from the start is enough.
        for attempt in 0..2 {
            let mut objects = Vec::new();
            match self
                .each(list, |object: T| {
                    if keep(&object) {
                        objects.push(object)
                    }
                })
                .await
            {
                Ok(()) => return Read::Seen(objects),
                Err(NotSeen { status: 410, .. }) if attempt == 0 => {}
                // The API is not there, so there are no objects.
                Err(NotSeen { status: 404, .. }) => return Read::Seen(Vec::new()),
                Err(failure) => return Read::NotSeen(failure.why),
            }
        }
        Read::NotSeen("its pages expired twice while they were read".to_owned())
    }

    /// What the API server serves.
    pub(super) async fn served(&self) -> Read<Vec<ServedResource>> {
        let (core, groups) = futures::join!(self.get("/api", DISCOVERY), self.get("/apis", DISCOVERY));
        let mut served = Vec::new();
        for answer in [core, groups] {
            let read = answer.map_err(|failure| failure.why).and_then(|body| {
                serde_json::from_slice::<Discovery>(&body)
                    .map_err(|_| "the API server has no aggregated discovery (it came with 1.26)".to_owned())
            });
            match read {
                Ok(discovery) => discovery.resources(&mut served),
                Err(why) => return Read::NotSeen(why),
            }
        }
        Read::Seen(served)
    }
}

/// What an answer that is no success says.
fn refused(status: http::StatusCode, body: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    struct Status {
        #[serde(default)]
        message: String,
    }
    let said: Status = serde_json::from_slice(body).unwrap_or_default();
    let said: String = said.message.chars().take(300).collect();
    if said.is_empty() { format!("the API server answered {status}") } else { said }
}

/// Why no answer came, with the innermost cause.
fn unreached(error: &kube::Error) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    source.to_string()
}

/// A token within a query.
fn escape(token: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    token.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[derive(Deserialize)]
struct Discovery {
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: GroupName,
    #[serde(default)]
    versions: Vec<GroupVersion>,
}

#[derive(Default, Deserialize)]
struct GroupName {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    resource: String,
    #[serde(default)]
    response_kind: Option<ResponseKind>,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct ResponseKind {
    #[serde(default)]
    kind: String,
}

impl Discovery {
    fn resources(self, served: &mut Vec<ServedResource>) {
        for group in self.items {
            for version in group.versions {
                served.extend(version.resources.into_iter().map(|resource| ServedResource {
                    group: group.metadata.name.clone(),
                    version: version.version.clone(),
                    kind: resource.response_kind.map(|kind| kind.kind).unwrap_or_default(),
                    resource: resource.resource,
                    is_listable: resource.verbs.iter().any(|verb| verb == "list"),
                }));
            }
        }
    }
}
