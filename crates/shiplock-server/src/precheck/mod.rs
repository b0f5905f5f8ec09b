//! The pre-check as the server runs it: the cluster is read, every agent is asked about its node at once, and all of it
//! is judged by the same checks as on the command line.
//!
//! It changes nothing in the cluster. [`guard`] says what a report means for the start of an upgrade.

pub(crate) mod guard;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use shiplock_api::check::{AcceptanceView, CheckPolicy, CheckReportView};
use shiplock_check::node::{Answer, ExaminedNode};
use shiplock_check::question::{Profile, Question};
use shiplock_check::report::{Outcome, Report};
use shiplock_check::run::{Acceptance, Assembly, Selection, judge};
use shiplock_check::snapshot::{Read, Snapshot};
use shiplock_check::tls::Dialled;
use shiplock_cluster::collect::{Collection, scopes};
use shiplock_core::check::check_plan;
use shiplock_core::facts::examination::{EXAMINE_KIND, NodeQuestion, TlsOutcome, TlsTarget, WantedImage};
use shiplock_core::facts::{AgentFacts, ClusterFacts, NodeFacts};
use shiplock_core::id::{Actor, ClusterName, NodeName, UpgradeId};
use shiplock_core::plan::{Plan, PlanOptions};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::Action;
use shiplock_core::version::MinorVersion;

use tokio::sync::Semaphore;

use crate::clusters::{Connector, facts_within};
use crate::http::name::random_name;
use crate::hub::AgentHub;
use crate::store::{ReportRecord, Store, StoreError};

/// Clusters that are checked at once: each is held in memory whole, and fleets start together.
const AT_ONCE: usize = 4;
/// How long the facts of the cluster may take.
const FACTS_WITHIN: Duration = Duration::from_secs(15);
/// How long reading the cluster may take.
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(120);
/// How long an agent may take to look at its node: its package manager alone may take half a minute. A connection on which
/// nothing moves is closed after 75 s, and whoever asked is to hear of an agent that does not answer.
const EXAMINATION_WITHIN: Duration = Duration::from_secs(45);
/// An agent that was not heard of for this long is not asked.
const SILENCE_SECONDS_MAX: i64 = 60;
/// A server that was just started waits for its agents for so long after the start: they come back within seconds.
const COME_BACK_WITHIN: Duration = Duration::from_secs(30);
/// How often it looks whether they are back.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Runs pre-checks.
pub struct Precheck {
    store: Arc<dyn Store>,
    hub: Arc<AgentHub>,
    clusters: Arc<dyn Connector>,
    started_at: Instant,
    turns: Semaphore,
}

/// What is asked.
pub(crate) struct Asked<'a> {
    pub(crate) cluster: &'a ClusterName,
    pub(crate) target: Option<MinorVersion>,
    pub(crate) policy: CheckPolicy,
    pub(crate) selection: &'a Selection,
    pub(crate) plan: Option<&'a Plan>,
    pub(crate) upgrade: Option<&'a UpgradeId>,
    pub(crate) by: &'a Actor,
}

impl Precheck {
    /// Pre-checks of the clusters of a store.
    pub fn new(store: Arc<dyn Store>, hub: Arc<AgentHub>, clusters: Arc<dyn Connector>) -> Self {
        Self { store, hub, clusters, started_at: Instant::now(), turns: Semaphore::new(AT_ONCE) }
    }

    /// Runs one. Its report is not kept yet.
    pub(crate) async fn run(&self, asked: &Asked<'_>) -> Result<Report, Problem> {
        // It is never closed.
        let _turn = self.turns.acquire().await;
        let connection = self.clusters.connect(asked.cluster).await?;
        let facts = facts_within(&*connection, FACTS_WITHIN).await?;
        let target = asked.target.or(asked.plan.map(|plan| plan.to.release));
        let collection =
            Collection { target, selection: asked.selection, for_start: asked.plan.is_some(), with_copy: false };
        let read = match tokio::time::timeout(SNAPSHOT_WITHIN, connection.precheck(&collection)).await {
            Ok(read) => read?,
            Err(elapsed) => {
                return Err(Problem::new(Code::ClusterUnreachable).with("server", asked.cluster).because(&elapsed));
            }
        };
        let oldest = facts.api_servers.iter().map(|server| server.version).min();
        let mut snapshot = match read {
            Some(snapshot) => snapshot,
            // A cluster in memory has nothing besides its facts.
            None => {
                let version = oldest.map(|version| version.to_string()).unwrap_or_default();
                Snapshot::blank(asked.cluster.as_str(), &version, Timestamp::now())
            }
        };
        snapshot.nodes = self.examine(asked, &facts, &snapshot.dialled).await?;
        take_over(&mut snapshot);
        // The upgrade that is about to start is none before.
        if let Read::Seen(lease) = &mut snapshot.objects.upgrade_lease {
            let own = asked.upgrade.map(UpgradeId::as_str);
            lease.take_if(|lease| own.is_some() && lease.upgrade_under_way() == own);
        }
        let now = Timestamp::now();
        let current = oldest.map(|version| version.release);
        let Some(target) = target.or(current.map(MinorVersion::next)) else {
            return Err(Problem::new(Code::NotAVersion).with("text", &snapshot.version));
        };
        let profile = match asked.policy {
            CheckPolicy::Default => Profile::Default,
            CheckPolicy::Strict => Profile::Strict,
        };
        let options = asked.plan.map(|plan| &plan.options);
        let max_parallel = options.map_or(PlanOptions::default().max_parallel, |options| options.max_parallel);
        let question = Question { target, current, profile, now, max_parallel };
        let acceptances = self.acceptances(asked.cluster).await.map_err(StoreError::into_problem)?;
        let acceptances: Vec<Acceptance> = acceptances.into_iter().map(acceptance).collect();
        let of_the_plan =
            asked.plan.map(|plan| check_plan(plan, &facts, &self.hub.agents(asked.cluster), now).findings);
        let of_the_plan = of_the_plan.unwrap_or_default();
        let ran: Vec<String> = of_the_plan.iter().map(|found| found.check.clone()).collect();
        let effort = &snapshot.effort;
        let read = [
            ("requests", effort.requests),
            ("bytes", effort.bytes),
            ("in_flight_max", effort.in_flight_max),
            ("milliseconds", effort.milliseconds),
            ("nodes_examined", snapshot.nodes.len() as u64),
        ];
        let assembly = Assembly {
            target,
            current: Some(snapshot.version.clone()),
            selection: asked.selection,
            scopes: &scopes(&snapshot),
            collected: None,
            required: &[],
            acceptances: &acceptances,
            baseline: None,
            blocks_on: Outcome::Fail,
            now,
            read: read.into_iter().map(|(name, number)| (name.to_owned(), number)).collect(),
            of_the_plan: &ran,
        };
        let mut findings = judge(&snapshot, &question);
        findings.extend(of_the_plan.iter().filter_map(guard::of_the_plan));
        let mut report = assembly.report(findings);
        if let Some(plan) = asked.plan {
            report.verdict = guard::verdict(&report, plan);
        }
        Ok(report)
    }

    /// What the server keeps of acceptances; those that cannot be read accept nothing.
    pub(crate) async fn acceptances(&self, cluster: &ClusterName) -> Result<Vec<AcceptanceView>, StoreError> {
        let kept = self.store.acceptances(cluster).await?;
        Ok(kept.iter().filter_map(|record| serde_json::from_str(&record.data).ok()).collect())
    }

    /// Keeps a report; as it is shown.
    pub(crate) async fn keep(&self, asked: &Asked<'_>, report: &Report) -> Result<CheckReportView, StoreError> {
        let now = Timestamp::now();
        let view = view::report(random_name("c", 8), asked, report, now);
        let failed = |error: serde_json::Error| StoreError::Failed { operation: "keep a report", source: error.into() };
        let data = serde_json::to_string(&view).map_err(failed)?;
        let record = ReportRecord { id: view.id.clone(), cluster: asked.cluster.clone(), made_at: now, data };
        self.store.add_report(&record).await?;
        self.beside(view, None).await
    }

    /// A report, compared with another one, or with the one before it.
    pub(crate) async fn beside(
        &self,
        mut view: CheckReportView,
        with: Option<&str>,
    ) -> Result<CheckReportView, StoreError> {
        let kept = self.store.reports(&view.cluster).await?;
        let before = match with {
            Some(id) => kept.into_iter().find(|record| record.id == id),
            None => kept.into_iter().find(|record| record.made_at < view.made_at),
        };
        if let Some(before) = before.and_then(|record| serde_json::from_str::<CheckReportView>(&record.data).ok()) {
            view.compare(&before);
        }
        Ok(view)
    }

    /// Asks the agents of all nodes, or of the plan's, at once. Without any agent nobody is asked.
    async fn examine(
        &self,
        asked: &Asked<'_>,
        facts: &ClusterFacts,
        dialled: &[Dialled],
    ) -> Result<Vec<ExaminedNode>, Problem> {
        let enrolled = self.store.agents(asked.cluster).await.map_err(StoreError::into_problem)?;
        if enrolled.is_empty() {
            return Ok(Vec::new());
        }
        let record = self.store.cluster(asked.cluster).await.map_err(StoreError::into_problem)?;
        let mirror = record.and_then(|record| record.mirror);
        let names: Vec<NodeName> = match asked.plan {
            Some(plan) => plan.nodes().map(|node| node.node.clone()).collect(),
            None => facts.nodes.keys().cloned().collect(),
        };
        let heard = self
            .heard(asked.cluster, names.iter().filter(|name| enrolled.iter().any(|agent| agent.node == **name)))
            .await;
        let now = Timestamp::now();
        // A master dials what the API server beside it calls; where none has an agent, any node does.
        let is_heard = |node: &&NodeName| heard.contains_key(*node);
        let is_master = |node: &&NodeName| facts.nodes.get(*node).is_some_and(NodeFacts::is_control_plane);
        let dials = names.iter().filter(is_heard).find(is_master).or(names.iter().find(is_heard)).cloned();
        let answers: Vec<_> = names
            .into_iter()
            .map(|node| {
                let dial = if dials.as_ref() == Some(&node) { to_dial(dialled) } else { Vec::new() };
                let question = NodeQuestion { mirror: mirror.clone(), images: images(asked.plan, &node), dial };
                let agent = heard.get(&node).cloned();
                let is_enrolled = enrolled.iter().any(|agent| agent.node == node);
                async move {
                    let answer = match &agent {
                        None if !is_enrolled => Answer::Missing,
                        None => {
                            Answer::NoAnswer { why: "it was not heard of since this server was started".to_owned() }
                        }
                        Some(agent) if now.as_second() - agent.last_heard_at.as_second() > SILENCE_SECONDS_MAX => {
                            Answer::Silent { seconds: now.as_second() - agent.last_heard_at.as_second() }
                        }
                        Some(agent) if !agent.machine.step_kinds.iter().any(|kind| kind == EXAMINE_KIND) => {
                            let why = format!("its version {} cannot; replace it", agent.machine.agent_version);
                            Answer::NoAnswer { why }
                        }
                        Some(_) => match self.hub.examine(asked.cluster, &node, question, EXAMINATION_WITHIN).await {
                            Some(examination) => Answer::Examined { examination, at: Timestamp::now() },
                            None => {
                                Answer::NoAnswer { why: format!("no answer within {} s", EXAMINATION_WITHIN.as_secs()) }
                            }
                        },
                    };
                    let machine = agent.map(|agent| Box::new((*agent.machine).clone()));
                    ExaminedNode { node: node.to_string(), answer, machine }
                }
            })
            .collect();
        Ok(futures::future::join_all(answers).await)
    }
}

impl Precheck {
    /// The agents that were heard of. Right after the start of the server the enrolled ones are waited for.
    async fn heard(
        &self,
        cluster: &ClusterName,
        enrolled: impl Iterator<Item = &NodeName> + Clone,
    ) -> BTreeMap<NodeName, AgentFacts> {
        loop {
            let heard = self.hub.agents(cluster);
            if self.started_at.elapsed() > COME_BACK_WITHIN || enrolled.clone().all(|node| heard.contains_key(node)) {
                return heard;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// What could not be dialled from here, and perhaps can from a node.
fn to_dial(dialled: &[Dialled]) -> Vec<TlsTarget> {
    let open = dialled.iter().filter(|one| matches!(one.outcome, TlsOutcome::NotSeen { .. }));
    open.filter_map(|one| Some(TlsTarget { host: one.address.clone()?, ..one.target.clone() })).collect()
}

/// What agents dialled in the place of whoever could not.
fn take_over(snapshot: &mut Snapshot) {
    for examined in &snapshot.nodes {
        let Answer::Examined { examination, .. } = &examined.answer else { continue };
        for found in &examination.dialled {
            let same = |one: &&mut Dialled| {
                one.address.as_ref() == Some(&found.target.host)
                    && (one.target.port, &one.target.server_name) == (found.target.port, &found.target.server_name)
            };
            if let Some(open) = snapshot.dialled.iter_mut().find(same) {
                open.outcome = found.outcome.clone();
                open.via = format!("the agent on {}", examined.node);
            }
        }
    }
}

/// The images that a plan fetches to a node.
fn images(plan: Option<&Plan>, node: &NodeName) -> Vec<WantedImage> {
    let mut wanted: BTreeMap<String, WantedImage> = BTreeMap::new();
    for step in plan.into_iter().flat_map(Plan::steps).filter(|step| step.target.node() == Some(node)) {
        if let Action::Prefetch { images, .. } = &step.action {
            for image in images {
                let (reference, path) = (image.reference.clone(), image.path.clone());
                wanted.insert(reference.clone(), WantedImage { reference, path });
            }
        }
    }
    wanted.into_values().collect()
}

fn acceptance(view: AcceptanceView) -> Acceptance {
    Acceptance {
        check: view.check,
        subject: view.subject,
        reason: format!("{} (until {})", view.reason, view.until),
        author: view.by.to_string(),
        until: Some(view.until),
    }
}
