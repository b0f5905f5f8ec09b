//! etcd over its JSON gateway, with the certificate that the API server has for it.
//!
//! One act only: the leadership is moved away. Source of all paths and fields:
//! <https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/>.

use std::fs;
use std::time::Duration;

use futures::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use shiplock_core::facts::{EtcdClusterFacts, EtcdMemberFacts};
use shiplock_core::problem::{Code, Problem};

use super::manifest::Manifest;
use crate::endpoint::{Question, Trust};
use crate::host::Host;

/// A member that is well answers in milliseconds; one that is away must not hold up the look at the others.
const ANSWER_LIMIT: Duration = Duration::from_millis(1500);
const LEADER_LIMIT: Duration = Duration::from_secs(5);

/// The way to this master's member.
#[derive(Clone, Debug)]
pub struct Etcd {
    url: String,
    trust: Trust,
}

#[derive(Deserialize)]
struct Header {
    member_id: String,
}

#[derive(Deserialize)]
struct Status {
    header: Header,
    #[serde(default)]
    version: String,
    #[serde(default)]
    leader: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Member {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(rename = "clientURLs", default)]
    client_urls: Vec<String>,
    #[serde(default)]
    is_learner: bool,
}

#[derive(Deserialize)]
struct Members {
    #[serde(default)]
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Alarms {
    #[serde(default)]
    alarms: Vec<Alarm>,
}

#[derive(Deserialize)]
struct Alarm {
    #[serde(default)]
    alarm: String,
}

impl Etcd {
    /// The way to the member that runs beside an API server, with the API server's files.
    pub fn beside<H: Host>(host: &H, api_server: &Manifest, etcd: &Manifest) -> Result<Self, Problem> {
        let urls = etcd.list("listen-client-urls");
        let local = urls.iter().find(|url| url.contains("//127.0.0.1:") || url.contains("//[::1]:"));
        let url = local.or(urls.first()).map_or("https://127.0.0.1:2379", |url| url.trim_end_matches('/'));
        let read = |flag: &str| {
            let path = api_server.flag(flag).unwrap_or_default();
            fs::read(host.at(path)).map_err(|error| {
                Problem::new(Code::FileUnusable)
                    .with("path", path)
                    .with("subject", "this node")
                    .with("operation", "read")
                    .because(&error)
            })
        };
        let authority_pem = read("etcd-cafile")?;
        let mut identity_pem = read("etcd-certfile")?;
        identity_pem.push(b'\n');
        identity_pem.extend(read("etcd-keyfile")?);
        Ok(Self { url: url.to_owned(), trust: Trust::Authority { authority_pem, identity_pem } })
    }

    async fn post<H: Host, T: serde::de::DeserializeOwned>(
        &self,
        host: &H,
        url: &str,
        path: &str,
        body: &Value,
    ) -> Result<T, String> {
        let url = format!("{}{path}", url.trim_end_matches('/'));
        let question = Question { url: &url, trust: &self.trust, body: Some(body), limit: ANSWER_LIMIT };
        let answer = host.ask(&question).await?;
        if answer.status != 200 {
            let text: String = answer.body.chars().take(200).collect();
            return Err(format!("it answers {}: {text}", answer.status));
        }
        serde_json::from_str(&answer.body).map_err(|error| error.to_string())
    }

    /// The whole cluster, as this member tells it, with every member's own word for its health.
    pub async fn cluster<H: Host>(&self, host: &H) -> Result<EtcdClusterFacts, Problem> {
        let unreadable = |why: String| {
            Problem::new(Code::EtcdNotWell).with("node", "this node").with("why", "it does not answer").cause(why)
        };
        let nothing = json!({});
        let alarm = json!({ "action": "GET" });
        let (status, members, alarms) = futures::join!(
            self.post::<_, Status>(host, &self.url, "/v3/maintenance/status", &nothing),
            self.post::<_, Members>(host, &self.url, "/v3/cluster/member/list", &nothing),
            self.post::<_, Alarms>(host, &self.url, "/v3/maintenance/alarm", &alarm),
        );
        let status = status.map_err(unreadable)?;
        let members = members.map_err(unreadable)?.members;
        let alarms = alarms.map_err(unreadable)?.alarms;
        let own = &status.header.member_id;
        let versions = join_all(members.iter().map(|member| async {
            // This member is asked where it surely listens; others where they say that they do.
            let url = if member.id == *own { Some(&self.url) } else { member.client_urls.first() };
            match url {
                Some(url) => self.healthy_version(host, url).await,
                None => None,
            }
        }))
        .await;
        let mut found: Vec<EtcdMemberFacts> = members
            .into_iter()
            .zip(versions)
            .map(|(member, healthy_version)| EtcdMemberFacts {
                id: number(&member.id),
                name: member.name,
                is_learner: member.is_learner,
                healthy_version,
            })
            .collect();
        found.sort_by_key(|member| member.id);
        let mut alarms: Vec<String> = alarms.into_iter().map(|alarm| alarm.alarm).collect();
        alarms.sort();
        alarms.dedup();
        Ok(EtcdClusterFacts { own_id: number(own), leader_id: number(&status.leader), members: found, alarms })
    }

    /// The version of a member that says that it is healthy.
    async fn healthy_version<H: Host>(&self, host: &H, url: &str) -> Option<String> {
        let health = format!("{}/health", url.trim_end_matches('/'));
        let question = Question { url: &health, trust: &self.trust, body: None, limit: ANSWER_LIMIT };
        let answer = host.ask(&question).await.ok()?;
        let said: Value = serde_json::from_str(&answer.body).ok()?;
        if answer.status != 200 || said.get("health").and_then(Value::as_str) != Some("true") {
            return None;
        }
        let status: Status = self.post(host, url, "/v3/maintenance/status", &json!({})).await.ok()?;
        Some(status.version)
    }

    /// Moves the leadership to another healthy voter where this member has it. Gives the cluster as it is then.
    pub async fn give_leadership_away<H: Host>(&self, host: &H) -> Result<EtcdClusterFacts, Problem> {
        let mut cluster = self.cluster(host).await?;
        let mut waited = Duration::ZERO;
        while cluster.leader_id == cluster.own_id {
            let heir = cluster
                .members
                .iter()
                .find(|member| member.id != cluster.own_id && !member.is_learner && member.healthy_version.is_some());
            // A single member keeps it.
            let Some(heir) = heir else { break };
            if waited >= LEADER_LIMIT {
                return Err(Problem::new(Code::EtcdNotWell)
                    .with("node", "this node")
                    .with("why", format!("its leadership does not move to member {}", heir.name)));
            }
            let target = json!({ "targetID": heir.id.to_string() });
            // What it says does not matter: the next look tells who leads.
            let _ = self.post::<_, Value>(host, &self.url, "/v3/maintenance/transfer-leadership", &target).await;
            host.wait(LEADER_LIMIT / 20).await;
            waited += LEADER_LIMIT / 20;
            cluster = self.cluster(host).await?;
        }
        Ok(cluster)
    }
}

/// Numbers of 64 bits are texts in JSON.
fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}
