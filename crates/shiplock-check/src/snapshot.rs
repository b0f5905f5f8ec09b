//! What was read of a cluster: enough for every check, without anything that is secret.
//!
//! A snapshot can be saved and checked later, elsewhere, for another target. What could not be read is in it too, with
//! the reason, so that only the checks that need it are unknown.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shiplock_core::problem::{Code, Problem};

use crate::api::authorship::Written;
use crate::api::helm::Release;
use crate::api::metrics::Metrics;
use crate::cluster::permission::Permission;
use crate::copy::ClusterCopy;
use crate::node::ExaminedNode;
use crate::object;
use crate::run::Selection;
use crate::tls::Dialled;

/// The schema of [`Snapshot`].
pub const SNAPSHOT_SCHEMA: u32 = 1;

/// What was read of a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The schema of this form.
    pub schema: u32,
    /// When it was read.
    pub taken_at: Timestamp,
    /// The address of the API server.
    pub server: String,
    /// The version that the API server reports, such as `v1.36.3`.
    pub version: String,
    /// The checks that it was read for: of others it may hold nothing, or a part.
    #[serde(default)]
    pub asked: Selection,
    /// What the API server serves.
    pub served: Read<Vec<ServedResource>>,
    /// The writing of objects of kinds that later releases deprecate or remove.
    pub written: Vec<WrittenKind>,
    /// The newest revisions of Helm releases.
    pub releases: Read<Vec<Release>>,
    /// The metrics of each instance of the API server.
    pub metrics: Vec<Instance>,
    /// The objects that other checks need.
    pub objects: object::Objects,
    /// The nodes, as their agents found them; none where no agent was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<ExaminedNode>,
    /// Why no node could be looked at, where a probe was asked for; none where one was or nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes_unseen: Option<String>,
    /// TLS servers that the API server calls, as they were dialled; none where nobody dialled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dialled: Vec<Dialled>,
    /// What whoever read it may do in the cluster; none where nobody is about to act.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub permissions: Vec<Permission>,
    /// The copy on which an upgrade can be rehearsed.
    #[serde(default)]
    pub copy: Read<ClusterCopy>,
    /// How it was read.
    pub effort: Effort,
}

impl Snapshot {
    /// A snapshot for which nothing was asked.
    pub fn blank(server: &str, version: &str, taken_at: Timestamp) -> Self {
        Self {
            schema: SNAPSHOT_SCHEMA,
            taken_at,
            server: server.to_owned(),
            version: version.to_owned(),
            asked: Selection::default(),
            served: Read::NotAsked,
            written: Vec::new(),
            releases: Read::NotAsked,
            metrics: Vec::new(),
            objects: object::Objects::default(),
            nodes: Vec::new(),
            nodes_unseen: None,
            dialled: Vec::new(),
            permissions: Vec::new(),
            copy: Read::NotAsked,
            effort: Effort::default(),
        }
    }

    /// Reads the content of a file, whoever wrote it: nothing is taken from one that is cut off, of another format, or
    /// that describes no cluster. What it does not hold was not seen.
    pub fn parse(location: &str, bytes: &[u8]) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Format {
            schema: Option<serde_json::Number>,
        }
        let unreadable = |error: serde_json::Error| {
            let why = match error.classify() {
                serde_json::error::Category::Eof => {
                    format!("it ends too early, at line {} column {}", error.line(), error.column())
                }
                _ => error.to_string().chars().filter(|character| !character.is_control()).take(200).collect(),
            };
            Problem::new(Code::SnapshotUnreadable).with("path", location).with("why", why)
        };
        // The format is told before anything is taken for what this version means by it.
        let format: Format = serde_json::from_slice(bytes).map_err(unreadable)?;
        match &format.schema {
            Some(found) if found.as_u64() == Some(u64::from(SNAPSHOT_SCHEMA)) => {}
            found => {
                let found = found.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
                let problem = Problem::new(Code::SnapshotFormat).with("path", location);
                return Err(problem.with("found", found).with("known", SNAPSHOT_SCHEMA));
            }
        }
        let mut snapshot: Self = serde_json::from_slice(bytes).map_err(unreadable)?;
        if let Some(list) = snapshot.objects.nameless() {
            let problem = Problem::new(Code::SnapshotUnreadable).with("path", location);
            return Err(problem.with("why", format!("an object in its list `{list}` has no name")));
        }
        // Of a cluster without nodes nothing would be wrong.
        if snapshot.objects.nodes.seen().is_some_and(Vec::is_empty) {
            snapshot.objects.nodes = Read::NotSeen("the snapshot holds no node".to_owned());
        }
        if let Read::Seen(copy) = &snapshot.copy {
            copy.check().map_err(|refusal| {
                Problem::new(Code::SnapshotRefused).with("what", refusal.what).with("why", refusal.why)
            })?;
        }
        Ok(snapshot)
    }
}

/// Something that was read, or the reason why it was not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Read<T> {
    /// It was read whole.
    Seen(T),
    /// It could not be read.
    NotSeen(String),
    /// No check that was asked for needs it.
    #[default]
    NotAsked,
}

impl<T> Read<T> {
    /// The value, if it was read.
    pub fn seen(&self) -> Option<&T> {
        match self {
            Self::Seen(value) => Some(value),
            Self::NotSeen(_) | Self::NotAsked => None,
        }
    }

    /// The value, or the reason why there is none; nothing where it was not asked for.
    pub fn judged(&self) -> Option<Result<&T, &str>> {
        match self {
            Self::Seen(value) => Some(Ok(value)),
            Self::NotSeen(why) => Some(Err(why)),
            Self::NotAsked => None,
        }
    }
}

/// One resource that the API server serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedResource {
    /// The group; empty for the core group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind.
    pub kind: String,
    /// The plural name in paths.
    pub resource: String,
    /// Whether its objects can be listed.
    pub is_listable: bool,
}

/// The writing of the objects of one kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WrittenKind {
    /// The group.
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The plural name in paths.
    pub resource: String,
    /// The versions that are asked about: those that are served and go away.
    pub versions: Vec<String>,
    /// The version through which they were listed.
    pub listed_through: String,
    /// The objects.
    pub objects: Read<Vec<Written>>,
}

/// An instance of the API server.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Instance {
    /// Its address.
    pub address: String,
    /// What it counts.
    pub metrics: Read<Metrics>,
    /// The version that it reports.
    pub version: Read<String>,
    /// What its `/readyz` says is not ready; nothing where all is.
    pub not_ready: Read<Vec<String>>,
}

/// How a snapshot was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effort {
    /// Requests that were sent.
    pub requests: u64,
    /// Bytes of answers.
    pub bytes: u64,
    /// The most requests in flight at once.
    pub in_flight_max: u64,
    /// How long it took.
    pub milliseconds: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_list_that_a_file_does_not_hold_was_not_seen_and_is_no_empty_one() {
        let whole = serde_json::to_value(Snapshot::blank("https://x", "v1.36.3", Timestamp::UNIX_EPOCH)).unwrap();
        let parse = |document: &Value| Snapshot::parse("x", document.to_string().as_bytes());
        let lists: Vec<String> = whole["objects"].as_object().unwrap().keys().cloned().collect();
        assert!(lists.len() > 25, "{lists:?}");
        for list in &lists {
            let mut without = whole.clone();
            without["objects"].as_object_mut().unwrap().remove(list);
            let read = serde_json::to_value(parse(&without).unwrap().objects).unwrap();
            assert!(read[list]["not_seen"].is_string(), "{list}: {read}");
        }
        let mut of_no_node = whole.clone();
        of_no_node["objects"]["nodes"] = json!({ "seen": [] });
        assert!(matches!(parse(&of_no_node).unwrap().objects.nodes, Read::NotSeen(_)));
        let mut nameless = whole;
        nameless["objects"]["pods"] = json!({ "seen": [{ "x": 1 }] });
        let problem = parse(&nameless).unwrap_err();
        assert!(problem.code == Code::SnapshotUnreadable && problem.to_string().contains("`pods`"), "{problem}");
    }
}
