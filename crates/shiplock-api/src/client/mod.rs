//! The typed client of REST v1: what the command line and other programs use to speak to a server.
//!
//! Everything is bounded: connects, answers, retries. What goes wrong comes back as a [`Problem`]: the server's own,
//! or [`Code::ServerUnreachable`] where none answers. It must never repeat a request that may have acted, but for
//! the start of an upgrade, which carries an idempotency key.

mod answer;
mod backup;
mod check;
mod endpoint;
mod feed;
mod sse;
#[cfg(test)]
mod tests;

use std::time::Duration;

use reqwest::{Method, RequestBuilder, Url};
use serde::de::DeserializeOwned;
use shiplock_core::id::{ClusterName, NodeName, PlanId, UpgradeId};
use shiplock_core::join::JoinInstructions;
use shiplock_core::plan::Plan;
use shiplock_core::problem::{Code, Problem};

pub use self::backup::BackupContent;
pub use self::endpoint::Endpoint;
pub use self::feed::{EventFeed, FeedOptions};
use crate::rest::{
    AgentView, CancelRequest, ClusterAdd, ClusterChange, ClusterView, EventPage, JoinToken, Page, PlanCreate,
    RollbackCreate, ServerView, UpgradeChange, UpgradeCreate, UpgradePage, UpgradeView, VersionView,
};

/// How long the connect may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long an answer may take that the server has at hand.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long an answer may take for which the server first reads a cluster or a mirror.
const WORK_WITHIN: Duration = Duration::from_secs(180);
/// How often the start of an upgrade is sent when the answer is lost.
const START_ATTEMPTS_MAX: u32 = 3;
/// How many rows a page holds.
const PAGE_LIMIT: u32 = 500;
/// How many pages of a list are read before the server is thought to go round in circles.
const PAGES_MAX: usize = 1_000;

/// A connection to a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    endpoint: Endpoint,
    token: Option<String>,
}

/// Which upgrades are wanted: `GET /api/v1/upgrades`.
#[derive(Clone, Debug, Default)]
pub struct UpgradeQuery {
    /// Only those of this cluster.
    pub cluster: Option<ClusterName>,
    /// Only those that have not ended, or only those that have.
    pub active: Option<bool>,
    /// The `next` of the page before.
    pub after: Option<String>,
    /// The most rows.
    pub limit: Option<u32>,
}

/// Either form of a short list: a page, or the bare rows.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Rows<T> {
    Page(Page<T>),
    Bare(Vec<T>),
}

impl<T> Rows<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::Page(page) => page.items,
            Self::Bare(rows) => rows,
        }
    }
}

impl Client {
    /// A client for a server. `authority` is a certificate (PEM) that is trusted besides those of the system.
    ///
    /// Nothing is sent yet. A token is refused for plain HTTP beyond this machine, where anybody could read it.
    pub fn new(endpoint: Endpoint, token: Option<String>, authority: Option<&[u8]>) -> Result<Self, Problem> {
        let bad = |why: String| {
            Problem::new(Code::BadOption).with("option", "--server").with("value", &endpoint).with("why", why)
        };
        let base: Url = match &endpoint {
            // The name is never looked up; it only fills the Host header.
            Endpoint::Socket(_) => "http://shiplock.localhost/",
            Endpoint::Url(url) => url.as_str(),
        }
        .parse()
        .map_err(|error| bad(format!("{error}")))?;
        if token.is_some() && !endpoint.is_private() {
            return Err(bad("a token is sent over https only; plain http is for this machine".to_owned()));
        }
        // reqwest was built without a cryptography provider of its own. Whoever installed one first wins.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            // A redirect could carry the token elsewhere.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("shiplock/", env!("CARGO_PKG_VERSION")));
        if base.scheme() == "https" {
            if let Some(pem) = authority {
                let certificates =
                    reqwest::Certificate::from_pem_bundle(pem).map_err(|error| bad(error.to_string()))?;
                builder = builder.tls_certs_merge(certificates);
            }
        } else {
            // The system's certificates are not needed, and a machine may have none.
            builder = builder.tls_certs_only([]);
        }
        if let Endpoint::Socket(path) = &endpoint {
            builder = builder.unix_socket(path.as_path());
        }
        let http = builder.build().map_err(|error| bad(answer::chain(&error)))?;
        Ok(Self { http, base, endpoint, token })
    }

    /// Which server this client speaks to, for people.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// `GET /api/v1/server`.
    pub async fn server(&self) -> Result<ServerView, Problem> {
        self.get(&["server"], ANSWER_WITHIN).await
    }

    /// `GET /api/v1/versions`.
    pub async fn versions(&self) -> Result<Vec<VersionView>, Problem> {
        self.get::<Page<VersionView>>(&["versions"], ANSWER_WITHIN).await.map(|page| page.items)
    }

    /// Registers a cluster.
    pub async fn add_cluster(&self, cluster: &ClusterAdd) -> Result<ClusterView, Problem> {
        self.send(self.request(Method::POST, &["clusters"], WORK_WITHIN).json(cluster)).await
    }

    /// All registered clusters.
    pub async fn clusters(&self) -> Result<Vec<ClusterView>, Problem> {
        Ok(self.get::<Rows<ClusterView>>(&["clusters"], WORK_WITHIN).await?.into_vec())
    }

    /// One registered cluster.
    pub async fn cluster(&self, name: &ClusterName) -> Result<ClusterView, Problem> {
        self.get(&["clusters", name.as_str()], WORK_WITHIN).await
    }

    /// Changes the credentials or the mirror of a cluster.
    pub async fn change_cluster(&self, name: &ClusterName, change: &ClusterChange) -> Result<ClusterView, Problem> {
        self.send(self.request(Method::PATCH, &["clusters", name.as_str()], WORK_WITHIN).json(change)).await
    }

    /// Forgets a cluster.
    pub async fn remove_cluster(&self, name: &ClusterName) -> Result<(), Problem> {
        let request = self.request(Method::DELETE, &["clusters", name.as_str()], ANSWER_WITHIN);
        self.send_for_nothing(request).await
    }

    /// Forgets an agent.
    pub async fn remove_agent(&self, cluster: &ClusterName, node: &NodeName) -> Result<(), Problem> {
        let path = ["clusters", cluster.as_str(), "agents", node.as_str()];
        self.send_for_nothing(self.request(Method::DELETE, &path, ANSWER_WITHIN)).await
    }

    /// The enrolled agents of a cluster.
    pub async fn agents(&self, cluster: &ClusterName) -> Result<Vec<AgentView>, Problem> {
        let path = ["clusters", cluster.as_str(), "agents"];
        Ok(self.get::<Rows<AgentView>>(&path, ANSWER_WITHIN).await?.into_vec())
    }

    /// Makes a one-time join token.
    pub async fn join_token(&self, cluster: &ClusterName) -> Result<JoinToken, Problem> {
        let path = ["clusters", cluster.as_str(), "join-tokens"];
        self.send(self.request(Method::POST, &path, ANSWER_WITHIN).json(&serde_json::json!({}))).await
    }

    /// How a new node joins a cluster.
    pub async fn join_instructions(
        &self,
        cluster: &ClusterName,
        architecture: &str,
    ) -> Result<JoinInstructions, Problem> {
        let path = ["clusters", cluster.as_str(), "join-instructions"];
        let pairs = [("architecture", Some(architecture.to_owned()))];
        self.send(with_query(self.request(Method::GET, &path, WORK_WITHIN), &self.url(&path), pairs)).await
    }

    /// Makes a plan.
    pub async fn make_plan(&self, cluster: &ClusterName, plan: &PlanCreate) -> Result<Plan, Problem> {
        let path = ["clusters", cluster.as_str(), "plans"];
        self.send(self.request(Method::POST, &path, WORK_WITHIN).json(plan)).await
    }

    /// One plan.
    pub async fn plan(&self, id: &PlanId) -> Result<Plan, Problem> {
        self.get(&["plans", id.as_str()], ANSWER_WITHIN).await
    }

    /// Starts an upgrade. The same `idempotency_key` never starts a second one, so a lost answer is asked for again.
    pub async fn start_upgrade(&self, upgrade: &UpgradeCreate, idempotency_key: &str) -> Result<UpgradeView, Problem> {
        let mut attempt = 1;
        loop {
            let request = self.request(Method::POST, &["upgrades"], WORK_WITHIN).json(upgrade);
            match self.exchange(request.header("Idempotency-Key", idempotency_key)).await {
                Err(lost) if lost.may_have_arrived && attempt < START_ATTEMPTS_MAX => {
                    tokio::time::sleep(Duration::from_millis(500) * attempt).await;
                    attempt += 1;
                }
                Err(lost) => return Err(lost.problem),
                Ok(answer) => return answer.read(&self.endpoint),
            }
        }
    }

    /// A page of upgrades, newest first.
    pub async fn upgrades(&self, query: &UpgradeQuery) -> Result<UpgradePage, Problem> {
        let mut request = self.request(Method::GET, &["upgrades"], ANSWER_WITHIN);
        let pairs = [
            ("cluster", query.cluster.as_ref().map(ToString::to_string)),
            ("active", query.active.map(|active| active.to_string())),
            ("after", query.after.clone()),
            ("limit", query.limit.map(|limit| limit.to_string())),
        ];
        request = with_query(request, &self.url(&["upgrades"]), pairs);
        self.send(request).await
    }

    /// All upgrades that a query names, page after page as one, at most `most` of each kind.
    pub async fn all_upgrades(&self, mut query: UpgradeQuery, most: usize) -> Result<UpgradePage, Problem> {
        let mut all = UpgradePage { items: Vec::new(), unreadable: Vec::new(), next: None };
        for _ in 0..PAGES_MAX {
            let page = self.upgrades(&query).await?;
            all.items.extend(page.items);
            all.unreadable.extend(page.unreadable);
            query.after = page.next;
            if query.after.is_none() || all.items.len() + all.unreadable.len() >= most {
                break;
            }
        }
        all.items.truncate(most);
        all.unreadable.truncate(most);
        Ok(all)
    }

    /// One upgrade. Its `len` is what `seen` of the controls takes.
    pub async fn upgrade(&self, id: &UpgradeId) -> Result<UpgradeView, Problem> {
        self.get(&["upgrades", id.as_str()], ANSWER_WITHIN).await
    }

    /// Changes an upgrade in work.
    pub async fn change_upgrade(&self, id: &UpgradeId, change: &UpgradeChange) -> Result<UpgradeView, Problem> {
        self.send(self.request(Method::PATCH, &["upgrades", id.as_str()], ANSWER_WITHIN).json(change)).await
    }

    /// Pauses. With `seen` only if nothing happened since.
    pub async fn pause(&self, id: &UpgradeId, seen: Option<u64>) -> Result<UpgradeView, Problem> {
        self.control(id, "pause", seen, &serde_json::json!({})).await
    }

    /// Continues. With `seen` only if nothing happened since.
    pub async fn continue_upgrade(&self, id: &UpgradeId, seen: Option<u64>) -> Result<UpgradeView, Problem> {
        self.control(id, "continue", seen, &serde_json::json!({})).await
    }

    /// Cancels. With `seen` only if nothing happened since.
    pub async fn cancel(
        &self,
        id: &UpgradeId,
        request: &CancelRequest,
        seen: Option<u64>,
    ) -> Result<UpgradeView, Problem> {
        self.control(id, "cancel", seen, request).await
    }

    /// Makes the plan that takes an upgrade back.
    pub async fn make_rollback(&self, id: &UpgradeId, rollback: &RollbackCreate) -> Result<Plan, Problem> {
        let path = ["upgrades", id.as_str(), "rollback"];
        self.send(self.request(Method::POST, &path, WORK_WITHIN).json(rollback)).await
    }

    /// A page of events with a number above `after`.
    pub async fn events(&self, id: &UpgradeId, after: u64, limit: u32) -> Result<EventPage, Problem> {
        let path = ["upgrades", id.as_str(), "events"];
        let pairs = [("after", Some(after.to_string())), ("limit", Some(limit.to_string()))];
        let request = self.request(Method::GET, &path, ANSWER_WITHIN).header("Accept", "application/json");
        self.send(with_query(request, &self.url(&path), pairs)).await
    }

    /// Every event with a number above `after` that there is now.
    pub async fn all_events(
        &self,
        id: &UpgradeId,
        mut after: u64,
    ) -> Result<Vec<shiplock_core::upgrade::EventRecord>, Problem> {
        let mut events = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = self.events(id, after, PAGE_LIMIT).await?;
            let Some(last) = page.items.last() else { break };
            after = last.number;
            events.extend(page.items);
        }
        Ok(events)
    }

    /// Follows the events of an upgrade from the one after `after` on, until the upgrade ends.
    pub fn follow(&self, id: &UpgradeId, after: u64, options: FeedOptions) -> EventFeed {
        EventFeed::new(self.clone(), id.clone(), after, options)
    }

    async fn control<B: serde::Serialize>(
        &self,
        id: &UpgradeId,
        control: &str,
        seen: Option<u64>,
        body: &B,
    ) -> Result<UpgradeView, Problem> {
        let mut request = self.request(Method::POST, &["upgrades", id.as_str(), control], ANSWER_WITHIN).json(body);
        if let Some(seen) = seen {
            request = request.header("If-Match", format!("\"{seen}\""));
        }
        self.send(request).await
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // Each part is escaped, so that a name can never reach another resource.
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        url
    }

    fn request(&self, method: Method, path: &[&str], within: Duration) -> RequestBuilder {
        let request = self.http.request(method, self.url(path)).timeout(within);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], within: Duration) -> Result<T, Problem> {
        self.send(self.request(Method::GET, path, within)).await
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, Problem> {
        self.exchange(request).await.map_err(|lost| lost.problem)?.read(&self.endpoint)
    }

    async fn send_for_nothing(&self, request: RequestBuilder) -> Result<(), Problem> {
        self.exchange(request).await.map_err(|lost| lost.problem)?.succeed(&self.endpoint).map(|_| ())
    }
}

/// Puts the pairs that have a value into the query.
fn with_query<const N: usize>(
    request: RequestBuilder,
    url: &Url,
    pairs: [(&str, Option<String>); N],
) -> RequestBuilder {
    let mut url = url.clone();
    {
        let mut query = url.query_pairs_mut();
        for (name, value) in pairs {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        }
    }
    let (client, built) = request.build_split();
    match built {
        Ok(mut built) => {
            *built.url_mut() = url;
            RequestBuilder::from_parts(client, built)
        }
        // The error comes out again when the request is sent.
        Err(_) => client.get(url),
    }
}
