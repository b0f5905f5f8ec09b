//! The protocol between server and agents: HTTPS and JSON, spoken by the agent only.
//!
//! An agent is enrolled once with a one-time token ([`EnrolRequest`]) and gets a certificate bound to its
//! cluster and node; everything after that needs the certificate. It asks for work ([`PollRequest`], held by the
//! server up to [`POLL_HOLD_SECONDS`]), asks for a permit right before each acting phase ([`PermitRequest`]), and
//! reports ([`Report`]) until the server says that it took the report.
//!
//! No wall-clock time is sent: ages are monotonic seconds.

use serde::{Deserialize, Serialize};
use shiplock_core::facts::MachineFacts;
use shiplock_core::facts::examination::{NodeExamination, NodeQuestion};
use shiplock_core::id::{ClusterName, Generation, NodeName, StepNumber, UpgradeId};
use shiplock_core::problem::Problem;
use shiplock_core::step::Action;
use shiplock_core::upgrade::StepOutcome;

/// The version of the protocol that this build speaks. The server also takes the one before.
pub const PROTOCOL: u32 = 1;
/// How long the server holds a poll without work, in seconds.
pub const POLL_HOLD_SECONDS: u64 = 10;

/// `POST` here to enrol; TLS without a client certificate.
pub const ENROL_PATH: &str = "/agent/v1/enrol";
/// `POST` here for a new certificate, with the one in force.
pub const RENEW_PATH: &str = "/agent/v1/renew";
/// `POST` here to ask for work.
pub const POLL_PATH: &str = "/agent/v1/poll";
/// `POST` here to ask for a permit.
pub const PERMIT_PATH: &str = "/agent/v1/permit";
/// `POST` here what was found on the node ([`ExaminationReport`]).
pub const EXAMINATION_PATH: &str = "/agent/v1/examination";
/// `POST` here to report.
pub const REPORT_PATH: &str = "/agent/v1/report";
/// `POST` here to ask about the backup of an attempt ([`BackupQuestion`]), `PUT` here to hand it over: the snapshot as
/// the body, with its length, and a [`BackupOffer`] as JSON in the header [`BACKUP_HEADER`].
pub const BACKUP_PATH: &str = "/agent/v1/backup";
/// The header that describes the body of a `PUT` to [`BACKUP_PATH`].
pub const BACKUP_HEADER: &str = "shiplock-backup";

/// Enrols an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// The protocol that the agent speaks.
    pub protocol: u32,
    /// The one-time token of the join command.
    pub token: String,
    /// The node that the agent speaks for: its name in Kubernetes.
    pub node: NodeName,
    /// A certificate signing request, PEM. The server takes the key from it and nothing else.
    pub csr_pem: String,
    /// The machine.
    pub machine: MachineFacts,
}

/// The answer to [`EnrolRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnrolResponse {
    /// The cluster that the token was made for.
    pub cluster: ClusterName,
    /// The agent's certificate, PEM. Valid 90 days, bound to cluster and node, renewed at two thirds of that ([`RenewRequest`]).
    pub certificate_pem: String,
    /// The certificate authority of the installation, PEM.
    pub ca_pem: String,
    /// Whether the cluster has a node of that name; none where it could not be asked, or by an older server.
    #[serde(default)]
    pub cluster_has_node: Option<bool>,
}

/// Asks for a new certificate for the same node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenewRequest {
    /// The protocol that the agent speaks.
    pub protocol: u32,
    /// The node that the agent speaks for; must be the certificate's.
    pub node: NodeName,
    /// A certificate signing request, PEM. The server takes the key from it and nothing else.
    pub csr_pem: String,
}

/// The answer to [`RenewRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RenewResponse {
    /// The new certificate, PEM. It is in force, and the one before is not any more, from its first use on: an answer
    /// that is lost locks nobody out.
    pub certificate_pem: String,
}

/// Asks for work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PollRequest {
    /// The protocol that the agent speaks.
    pub protocol: u32,
    /// The node that the agent speaks for; must be the certificate's.
    pub node: NodeName,
    /// The machine, when it changed since the server last took it, and always in the first poll of a process.
    pub machine: Option<MachineFacts>,
    /// The assignment in work, so that the server does not offer it again.
    pub in_work: Option<AssignmentId>,
}

/// The answer to [`PollRequest`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PollResponse {
    /// Work, where there is any.
    pub assignment: Option<Assignment>,
    /// The server does not know the machine (it was restarted): send it with the next poll.
    pub send_machine: bool,
    /// A question about the node, where the pre-check has one. It is answered beside any work; an agent that does not
    /// know this field does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examine: Option<ExaminationRequest>,
}

/// Asks an agent to look at its node. Looking changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExaminationRequest {
    /// Names the question; the answer carries it.
    pub number: u64,
    /// What to look at.
    pub question: NodeQuestion,
}

/// What was found. The answer is [`ReportResponse`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExaminationReport {
    /// The question.
    pub number: u64,
    /// The node that the agent speaks for.
    pub node: NodeName,
    /// What was found.
    pub examination: Box<NodeExamination>,
}

/// Names one attempt of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignmentId {
    /// The upgrade.
    pub upgrade: UpgradeId,
    /// The step.
    pub step: StepNumber,
    /// The attempt's generation. A server that took over offers the same intent under a higher epoch.
    pub generation: Generation,
}

/// One step for an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Which attempt.
    #[serde(flatten)]
    pub id: AssignmentId,
    /// The node; the agent refuses another one's.
    pub node: NodeName,
    /// The machine id of the plan; the agent refuses on another machine.
    pub machine_id: String,
    /// What to do.
    pub action: Action,
    /// After this many seconds the agent gives up and reports.
    pub timeout_seconds: u32,
}

/// Asks whether an acting phase may begin, right before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitRequest {
    /// Which attempt.
    #[serde(flatten)]
    pub id: AssignmentId,
    /// The node that the agent speaks for.
    pub node: NodeName,
    /// The phase that is about to begin, a stable word.
    pub phase: String,
}

/// The answer to [`PermitRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "permit", rename_all = "snake_case")]
pub enum PermitResponse {
    /// Go on.
    Granted,
    /// Do not begin. The agent forgets the assignment; nothing was changed by this phase.
    Refused {
        /// Why.
        problem: Problem,
    },
}

/// Tells how an attempt goes or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which attempt.
    #[serde(flatten)]
    pub id: AssignmentId,
    /// The node that the agent speaks for.
    pub node: NodeName,
    /// How it goes.
    #[serde(flatten)]
    pub kind: ReportKind,
}

/// How an attempt goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum ReportKind {
    /// It goes on. May be dropped.
    Progress {
        /// A stable word: `downloading`, `importing`, `stopping`, `starting`.
        phase: String,
    },
    /// The goal is reached and was read back. Repeated until taken.
    Succeeded {
        /// What was found or done.
        outcome: StepOutcome,
        /// The machine after it.
        machine: Box<MachineFacts>,
    },
    /// The goal is not reached. Repeated until taken.
    Failed {
        /// Why.
        problem: Problem,
        /// Whether a further attempt may help without a person.
        retryable: bool,
    },
}

/// The answer to [`Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportResponse {
    /// Recorded (or recorded before): the agent may forget it.
    Taken,
    /// The server does not wait for this attempt (any more): the agent may forget it.
    NotWanted,
}

/// Asks whether the server keeps the backup of an attempt already, and whether it would take one. A server without
/// room refuses here, before a snapshot is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupQuestion {
    /// Which attempt.
    #[serde(flatten)]
    pub id: AssignmentId,
    /// The node that the agent speaks for.
    pub node: NodeName,
    /// About how large the snapshot will be, in bytes; 0 while that is not known.
    pub size_bytes: u64,
}

/// The answer to [`BackupQuestion`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupAnswer {
    /// What is kept of this attempt already; none: it is wanted.
    pub kept: Option<KeptBackup>,
}

/// Describes the snapshot that is handed over with it. The answer is a [`KeptBackup`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupOffer {
    /// Which attempt.
    #[serde(flatten)]
    pub id: AssignmentId,
    /// The node that the agent speaks for.
    pub node: NodeName,
    /// The snapshot.
    pub snapshot: EtcdSnapshot,
}

/// A backup that the server keeps: its file is whole and on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptBackup {
    /// The name under which the server keeps it.
    pub backup: String,
    /// The snapshot.
    pub snapshot: EtcdSnapshot,
}

/// A snapshot of etcd, as `etcdutl snapshot status` and a look at the file itself describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct EtcdSnapshot {
    /// The SHA-256 of the file.
    pub sha256: String,
    /// The size of the file in bytes.
    pub size_bytes: u64,
    /// etcd's own hash over all keys and values.
    pub hash: u32,
    /// The revision that it holds.
    pub revision: u64,
    /// How many keys it holds, as etcd counts them: every revision of a key that is not compacted away yet.
    pub keys: u64,
    /// The version of the member that it was taken from, such as `3.6.4`.
    pub etcd_version: String,
}

impl From<KeptBackup> for StepOutcome {
    fn from(kept: KeptBackup) -> Self {
        let KeptBackup { backup, snapshot } = kept;
        let EtcdSnapshot { sha256, size_bytes, revision, keys, .. } = snapshot;
        Self::BackedUp { backup, sha256, revision, keys, size_bytes }
    }
}
