//! What commands print with `-o json`: one object, its schema named, its keys nouns. Changed by addition only.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shiplock_api::check::{AcceptanceView, CheckReportRow};
use shiplock_api::rest::{
    AgentView, BackupView, ClusterView, JoinToken, ServerView, UnreadableUpgrade, UpgradeView, VersionView,
};
use shiplock_core::id::{ClusterName, NodeName, UpgradeId};
use shiplock_core::join::JoinInstructions;
use shiplock_core::language::Language;
use shiplock_core::plan::Plan;
use shiplock_core::problem::Problem;
use shiplock_core::upgrade::EventRecord;

/// The schema of everything that is printed as JSON.
pub(crate) const SCHEMA: &str = "shiplock.dev/cli/v1";

/// A result with its schema.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope<T> {
    schema: String,
    #[serde(flatten)]
    data: T,
}

impl<T> Envelope<T> {
    pub(crate) fn new(data: T) -> Self {
        Self { schema: SCHEMA.to_owned(), data }
    }
}

macro_rules! results {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Serialize, Deserialize)]
        pub(crate) struct $name { $(pub(crate) $field: $type),* }
    )*};
}

results! {
    /// `catalogue`.
    Catalogue { versions: Vec<VersionView> }
    /// `cluster list`.
    Clusters { clusters: Vec<ClusterView> }
    /// `cluster add`, `cluster show`.
    Cluster { cluster: ClusterView }
    /// `cluster remove`.
    Removed { removed: ClusterName }
    /// `agent remove`.
    AgentRemoved { agent_removed: NodeName }
    /// `cluster role`.
    Role { manifest: String }
    /// `agent list`.
    Agents { agents: Vec<AgentView> }
    /// `agent join-command`.
    Join { join_token: JoinToken }
    /// `cluster join-instructions`.
    JoinScript { join_instructions: JoinInstructions, script: String }
    /// `plan`.
    Planned { plan: Plan, kept: bool }
    /// `upgrade`, `watch` and the controls. `detached`: the command did not wait for its end.
    OneUpgrade { upgrade: UpgradeView, detached: bool }
    /// `upgrade` and `watch`, left by Ctrl-C.
    Left { upgrade_id: UpgradeId, detached: bool }
    /// `upgrades list`.
    Upgrades { upgrades: Vec<UpgradeView>, unreadable: Vec<UnreadableUpgrade> }
    /// `upgrades show --events`.
    UpgradeWithEvents { upgrade: UpgradeView, events: Vec<EventRecord> }
    /// `upgrades logs`: what a node logged, its newest lines, and when they were collected.
    Logs { upgrade: UpgradeId, node: NodeName, at: Timestamp, text: String }
    /// One event of a feed.
    Event { event: EventRecord }
    /// `reports list`.
    Reports { reports: Vec<CheckReportRow> }
    /// `acceptances`.
    Acceptances { acceptances: Vec<AcceptanceView> }
    /// `backup list`.
    Backups { backups: Vec<BackupView> }
    /// `backup verify`: it was read back whole.
    BackupVerified { verified: BackupView }
    /// `backup export`: the snapshot is in the file.
    BackupExported { exported: BackupView, path: String }
    /// `demo`, once it is up. `server` is what `SHIPLOCK_SERVER` takes; `folder_stays`: it is not removed at the end.
    DemoStarted {
        server: String,
        program: String,
        speed: u32,
        folder: String,
        folder_stays: bool,
        clusters: Vec<DemoCluster>,
    }
    /// One cluster of `demo`. `standing` is `ready`, `underway` or `blocked`.
    DemoCluster {
        name: ClusterName,
        standing: String,
        masters: usize,
        workers: usize,
        kubeconfig: String,
        upgrade: Option<UpgradeId>,
    }
    /// `explain CODE`.
    Explained { code: String, http_status: u16, sentence: String, fix: String, page: String }
    /// `explain NOD-001`.
    ExplainedCheck { check: String, title: String, page: String }
    /// `explain`.
    Codes { codes: Vec<CodeLine> }
    /// One line of `explain`.
    CodeLine { code: String, sentence: String }
    /// `version`.
    Versions { version: String, server: Option<ServerView>, endpoint: String }
    /// `completions`.
    Completions { shell: String, script: String }
    /// Any command that met a problem.
    Refused { error: ErrorBody }
    /// The problem, rendered and typed.
    ErrorBody { code: String, message: String, causes: Vec<String>, hints: Vec<String>, problem: Problem }
}

impl Refused {
    /// The problem as programs read it; texts are English as everywhere in JSON.
    pub(crate) fn new(problem: &Problem) -> Self {
        Self {
            error: ErrorBody {
                code: problem.code.id().to_owned(),
                message: problem.sentence(Language::En),
                causes: problem.causes.clone(),
                hints: vec![problem.fix(Language::En)],
                problem: problem.clone(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample;
    use serde::de::DeserializeOwned;
    use shiplock_core::problem::Code;

    fn survives<T: Serialize + DeserializeOwned>(data: T) {
        let text = serde_json::to_string(&Envelope::new(data)).unwrap();
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["schema"], SCHEMA);
        let back: Envelope<T> = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_value(&back).unwrap(), object);
    }

    #[test]
    fn the_result_of_every_command_is_one_object_with_a_schema_that_reads_back() {
        let cluster = || sample::clusters().remove(0);
        let upgrade = sample::upgrade_running;
        survives(Catalogue { versions: sample::versions() });
        survives(Clusters { clusters: sample::clusters() });
        survives(Cluster { cluster: cluster() });
        survives(Removed { removed: "prod".into() });
        survives(AgentRemoved { agent_removed: "w1".into() });
        survives(Role { manifest: "kind: List".to_owned() });
        survives(Agents { agents: sample::agents() });
        survives(Join { join_token: sample::join_token() });
        survives(JoinScript { join_instructions: sample::join_instructions(), script: "x".to_owned() });
        survives(Planned { plan: sample::plan(), kept: true });
        for upgrade in sample::upgrades() {
            survives(OneUpgrade { upgrade, detached: false });
        }
        survives(Left { upgrade_id: "u1".into(), detached: true });
        survives(Upgrades { upgrades: sample::upgrades(), unreadable: vec![sample::unreadable()] });
        survives(UpgradeWithEvents { upgrade: upgrade(), events: sample::events() });
        for event in sample::events() {
            survives(Event { event });
        }
        survives(Backups { backups: sample::backups() });
        survives(BackupVerified { verified: sample::backups().remove(0) });
        survives(BackupExported { exported: sample::backups().remove(0), path: "etcd.db".to_owned() });
        survives(Codes { codes: vec![CodeLine { code: "UPG0101".to_owned(), sentence: "x".to_owned() }] });
        survives(Versions { version: "0".to_owned(), server: None, endpoint: "unix:///x".to_owned() });
        survives(Completions { shell: "bash".to_owned(), script: "x".to_owned() });
        survives(Refused::new(&Problem::new(Code::ServerUnreachable).with("server", "unix:///x").cause("gone")));
        let text = "x".to_owned();
        survives(ExplainedCheck { check: "NOD-001".to_owned(), title: text.clone(), page: text });
        let page = String::new();
        survives(Explained {
            code: "UPG0101".to_owned(),
            http_status: 400,
            sentence: page.clone(),
            fix: page.clone(),
            page,
        });
    }
}
