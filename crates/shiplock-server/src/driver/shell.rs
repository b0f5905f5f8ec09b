//! The shell around the driver's machine: it carries inputs in from store, cluster, agents and clock, and outputs out.
//!
//! It holds the lease of one upgrade for as long as it runs. When it may have lost the lease it stops: what it still
//! sends fails a precondition. It decides nothing.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use shiplock_api::agent::{PermitResponse, ReportResponse};
use shiplock_cluster::port::{Claim, ClaimOutcome, Cluster};
use shiplock_core::facts::{Facts, Observed};
use shiplock_core::id::{ClusterName, UpgradeId};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{Event, EventRecord, Upgrade};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::lease::HeldLease;
use super::machine::{Input, Machine, Output, StepResult, Ticket};
use super::start_check::StartCheck;
use super::step::{StepContext, StepMachine};
use super::steps::{Progress, StepShell};
use super::supervisor::{Handle, Shared};
use super::takeover::{self, Taken, load, unreadable};
use crate::hub::AgentMessage;
use crate::store::{Store, StoreError};

/// The Lease in the cluster is refreshed this often at least.
const CLAIM_RENEWAL: Duration = Duration::from_secs(10);
/// Events read at once.
const EVENTS_PAGE: u32 = 1000;
/// After a failure of store or cluster the shell waits this long before it tries again.
const FAILURE_PAUSE: Duration = Duration::from_secs(1);

/// Why driving ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The upgrade ended.
    Finished,
    /// Somebody else drives it, or the store cannot be reached: look again later.
    Later,
    /// The log cannot be folded by this version: it stays as it is.
    Unreadable(Problem),
}

/// Drives one upgrade until it ends or the lease is lost. `taken` is what was taken over before, if it was.
pub(super) async fn drive(
    shared: &Arc<Shared>,
    handle: &Arc<Handle>,
    id: &UpgradeId,
    cluster_name: &ClusterName,
    taken: Option<Box<Taken>>,
) -> Ended {
    let taken = match taken {
        Some(taken) => taken,
        None => match take_one(shared, id).await {
            Ok(taken) => taken,
            Err(ended) => return ended,
        },
    };
    let Taken { lease, machine, waits } = *taken;
    handle.set_waits(waits);
    let messages = shared.hub.attach(id, cluster_name);
    let driver = Shell {
        shared: shared.clone(),
        handle: handle.clone(),
        id: id.clone(),
        cluster_name: cluster_name.clone(),
        lease: lease.clone(),
        machine,
        progress: Arc::new(Progress::default()),
        answers: HashMap::new(),
        tickets: 0,
        steps: JoinSet::new(),
        wake_at: None,
        unknown_since: None,
        start_check: StartCheck::default(),
        claimed: false,
    };
    let ended = driver.run(messages).await;
    shared.hub.detach(id);
    handle.set_waits(Vec::new());
    if let Err(error) = shared.store.release_lease(id, lease.epoch).await {
        tracing::debug!(upgrade = %id, %error, "the lease was not given back; it ends by itself");
    }
    ended
}

async fn take_one(shared: &Shared, id: &UpgradeId) -> Result<Box<Taken>, Ended> {
    let upgrade = match load(shared, id).await {
        Ok(upgrade) => upgrade,
        Err(StoreError::Refused(problem)) => return Err(Ended::Unreadable(problem)),
        Err(error) => return Err(later(id, &error)),
    };
    takeover::take(shared, vec![upgrade]).await.pop().unwrap_or(Err(Ended::Later))
}

pub(super) fn later(id: &UpgradeId, error: &StoreError) -> Ended {
    tracing::warn!(upgrade = %id, error = %Problem::new(Code::StoreFailed).with("operation", "drive").because(error), "the upgrade is not driven now");
    Ended::Later
}

struct Shell {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
    id: UpgradeId,
    cluster_name: ClusterName,
    lease: Arc<HeldLease>,
    machine: Machine,
    progress: Arc<Progress>,
    answers: HashMap<Ticket, Answer>,
    tickets: Ticket,
    steps: JoinSet<(shiplock_core::id::StepNumber, u32, StepResult)>,
    wake_at: Option<Timestamp>,
    unknown_since: Option<Timestamp>,
    start_check: StartCheck,
    /// The cluster has accepted us once.
    claimed: bool,
}

enum Answer {
    Permit(oneshot::Sender<PermitResponse>),
    Report(oneshot::Sender<Option<ReportResponse>>),
}

impl Shell {
    async fn run(mut self, mut messages: mpsc::Receiver<AgentMessage>) -> Ended {
        // Until the cluster answers nothing can be begun, but people must see why.
        let cluster = loop {
            tokio::select! {
                biased;
                () = self.lease.ended() => return Ended::Later,
                connected = self.shared.clusters.connect(&self.cluster_name) => match connected {
                    Ok(cluster) => break cluster,
                    Err(problem) => {
                        let facts = self.facts(Err(problem));
                        self.handle.set_waits(takeover::tell(&mut self.machine, facts, Timestamp::now()));
                    }
                },
            }
            tokio::time::sleep(FAILURE_PAUSE).await;
        };
        let (facts_sender, mut facts) =
            watch::channel::<Option<Result<Arc<shiplock_core::facts::ClusterFacts>, Problem>>>(None);
        let (claim_len, claim_watch) = watch::channel(self.machine.upgrade().len);
        let (claim_sender, mut claims) = watch::channel::<Option<Result<ClaimOutcome, Problem>>>(None);
        let mut watchers = JoinSet::new();
        let facts_wanted = Arc::new(Notify::new());
        watchers.spawn(watch_facts(cluster.clone(), facts_sender, facts_wanted.clone()));
        watchers.spawn(keep_claim(
            self.shared.store.clone(),
            cluster.clone(),
            self.shared.settings.installation.clone(),
            self.id.clone(),
            claim_watch,
            claim_sender,
        ));
        loop {
            if !self.lease.may_act() {
                // This process stood still, or the store does not renew: what it still sends would fail its fence.
                tracing::warn!(upgrade = %self.id, "the lease is about to end; this server begins anew");
                return Ended::Later;
            }
            self.start_check.keep(&self.shared.precheck, self.machine.upgrade());
            let sleep = self.sleep();
            let input = tokio::select! {
                biased;
                () = self.lease.ended() => return Ended::Later,
                Some(joined) = self.steps.join_next() => match joined {
                    Ok((step, attempt, result)) => Input::StepEnded { step, attempt, result },
                    Err(error) => {
                        tracing::error!(upgrade = %self.id, %error, "a step of the server ended without a result; it is examined again");
                        return Ended::Later;
                    }
                },
                message = messages.recv() => match message {
                    Some(message) => self.agent_message(message),
                    None => return Ended::Later,
                },
                () = self.handle.woken() => match self.grown().await {
                    Ok(records) => Input::Grown(records),
                    Err(ended) => return ended,
                },
                Ok(()) = claims.changed() => {
                    let claim = claims.borrow_and_update().clone();
                    match claim {
                        Some(Ok(outcome)) => {
                            let problem = claim_problem(outcome, self.machine.upgrade());
                            self.claimed |= problem.is_none();
                            if problem.is_some() {
                                // The cluster is not ours any more: what acts on it ends now.
                                self.steps.shutdown().await;
                            }
                            Input::Claim(problem)
                        }
                        // Why the first claim is not made must be seen: the cluster may be read and yet take nothing. One
                        // that stood goes on to stand.
                        Some(Err(problem)) if !self.claimed => Input::Claim(Some(problem)),
                        _ => Input::Tick,
                    }
                }
                Ok(()) = facts.changed() => Input::Tick,
                () = self.progress.changed() => Input::Tick,
                () = self.start_check.ended(&self.machine.upgrade().plan) => Input::Tick,
                () = sleep => Input::Tick,
            };
            let observed = facts.borrow().clone();
            if let Some(Err(_)) = &observed
                && self.has_newer_access(&cluster).await
            {
                tracing::info!(upgrade = %self.id, "the cluster has new credentials; the driver begins anew with them");
                return Ended::Later;
            }
            if let Some(observed) = observed {
                let gathered = self.facts(observed);
                if let Some(ended) = self.feed(Input::Facts(Box::new(gathered)), &cluster, &claim_len).await {
                    return self.finish(ended, &cluster).await;
                }
            }
            if let Some(ended) = self.feed(input, &cluster, &claim_len).await {
                return self.finish(ended, &cluster).await;
            }
            if matches!(&*facts.borrow(), Some(Ok(facts)) if self.machine.wants_newer(facts)) {
                facts_wanted.notify_one();
            }
        }
    }

    /// Whether somebody has given the cluster other credentials since this driver connected.
    async fn has_newer_access(&self, cluster: &Arc<dyn Cluster>) -> bool {
        self.shared.clusters.connect(&self.cluster_name).await.is_ok_and(|newest| !Arc::ptr_eq(&newest, cluster))
    }

    async fn finish(&self, ended: Ended, cluster: &Arc<dyn Cluster>) -> Ended {
        if matches!(ended, Ended::Finished)
            && let Err(problem) = cluster.release(&self.id).await
        {
            tracing::warn!(upgrade = %self.id, %problem, "the Lease in the cluster was not given back; it ends by itself");
        }
        ended
    }

    fn sleep(&self) -> impl Future<Output = ()> + use<> {
        let wait = self.wake_at.map_or(Duration::from_secs(5), |wake_at| {
            Duration::try_from(wake_at.duration_since(Timestamp::now())).unwrap_or_default()
        });
        tokio::time::sleep(wait.clamp(Duration::from_millis(10), Duration::from_secs(30)))
    }

    fn facts(&mut self, observed: Result<Arc<shiplock_core::facts::ClusterFacts>, Problem>) -> Facts {
        let cluster = match observed {
            Ok(facts) => {
                self.unknown_since = None;
                Observed::Known(facts)
            }
            Err(problem) => {
                let since = *self.unknown_since.get_or_insert_with(Timestamp::now);
                Observed::Unknown { problem, since }
            }
        };
        Facts {
            cluster,
            agents: self.shared.hub.agents(&self.cluster_name),
            progress: self.progress.all(),
            uptime_seconds: self.shared.started_at.elapsed().as_secs(),
            precheck: self.start_check.found(),
        }
    }

    fn agent_message(&mut self, message: AgentMessage) -> Input {
        self.tickets += 1;
        let ticket = self.tickets;
        match message {
            AgentMessage::Contact => Input::Tick,
            AgentMessage::Permit { request, answer } => {
                self.answers.insert(ticket, Answer::Permit(answer));
                Input::Permit { id: request.id, lease_holds: self.lease.may_act(), ticket }
            }
            AgentMessage::Report { report, answer } => {
                self.answers.insert(ticket, Answer::Report(answer));
                Input::Report { id: report.id, node: report.node, kind: report.kind, ticket }
            }
        }
    }

    /// What the log holds beyond the fold.
    async fn grown(&self) -> Result<Vec<EventRecord>, Ended> {
        match self.shared.store.events(&self.id, self.machine.upgrade().len, EVENTS_PAGE).await {
            Ok(records) => Ok(records),
            Err(StoreError::Refused(problem)) => Err(Ended::Unreadable(problem)),
            Err(error) => Err(later(&self.id, &error)),
        }
    }

    /// Feeds one input and carries out what comes of it, until nothing comes any more.
    async fn feed(
        &mut self,
        input: Input,
        cluster: &Arc<dyn Cluster>,
        claim_len: &watch::Sender<u64>,
    ) -> Option<Ended> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for output in self.machine.on(input, Timestamp::now()) {
                match output {
                    Output::Append { expected_len, events } => match self.append(expected_len, &events).await {
                        Ok(input) => inputs.push_back(input),
                        Err(ended) => return Some(ended),
                    },
                    Output::RunStep { step, attempt, since } => self.run_step(&step, attempt, since, cluster),
                    Output::Offer(assignment) => self.shared.hub.offer(&self.cluster_name, *assignment),
                    Output::Withdraw(node) => self.shared.hub.withdraw(&self.cluster_name, &node),
                    Output::AnswerPermit(ticket, response) => {
                        if let Some(Answer::Permit(answer)) = self.answers.remove(&ticket) {
                            // An agent that does not wait for the answer any more asks again.
                            let _ = answer.send(response);
                        }
                    }
                    Output::AnswerReport(ticket, response) => {
                        if let Some(Answer::Report(answer)) = self.answers.remove(&ticket) {
                            let _ = answer.send(response);
                        }
                    }
                    Output::Waits(waits) => self.handle.set_waits(waits),
                    Output::WakeAt(wake_at) => self.wake_at = Some(wake_at),
                    Output::Stop(None) => return Some(Ended::Finished),
                    Output::Stop(Some(illegal)) => return Some(Ended::Unreadable(unreadable(&self.id, &illegal))),
                }
            }
        }
        claim_len
            .send_if_modified(|len| std::mem::replace(len, self.machine.upgrade().len) != self.machine.upgrade().len);
        None
    }

    async fn append(&self, expected_len: u64, events: &[Event]) -> Result<Input, Ended> {
        match self.shared.store.append(&self.id, expected_len, self.lease.epoch, Timestamp::now(), events).await {
            Ok(records) => {
                self.shared.note_appended(&records);
                Ok(Input::Appended(records))
            }
            Err(StoreError::Conflict { .. }) => Ok(Input::Overtaken(self.grown().await?)),
            Err(error @ StoreError::LeaseLost { .. }) => Err(later(&self.id, &error)),
            Err(error) => {
                tracing::error!(upgrade = %self.id, %error, "nothing could be recorded, so nothing is done");
                if !self.lease.may_act() {
                    return Err(Ended::Later);
                }
                tokio::time::sleep(FAILURE_PAUSE).await;
                Ok(Input::AppendFailed)
            }
        }
    }

    fn run_step(
        &mut self,
        step: &shiplock_core::step::Step,
        attempt: u32,
        since: Timestamp,
        cluster: &Arc<dyn Cluster>,
    ) {
        let context = StepContext::of(self.machine.upgrade(), self.lease.epoch, step);
        let (cluster, hub, name) = (cluster.clone(), self.shared.hub.clone(), self.cluster_name.clone());
        let (lease, progress, number) = (self.lease.clone(), self.progress.clone(), step.number);
        let machine = StepMachine::new(step.clone(), context, since, Timestamp::now());
        // The set ends its tasks when it is dropped: with the lease everything that acts under it ends.
        self.steps.spawn(async move {
            let shell = StepShell {
                cluster: cluster.as_ref(),
                agent: &|node| hub.machine(&name, node),
                may_act: &|| lease.may_act(),
                progress: &|waits| progress.set(number, waits),
            };
            (number, attempt, shell.run(machine).await)
        });
    }
}

/// Why a claim that came out so does not let us act; none where it does.
pub fn claim_problem(outcome: ClaimOutcome, upgrade: &Upgrade) -> Option<Problem> {
    match outcome {
        ClaimOutcome::Ours => None,
        // The store lacks what the cluster asks for again.
        ClaimOutcome::Prove { event_number } => Some(
            Problem::new(Code::StoreOlderThanCluster)
                .with("cluster_event", event_number)
                .with("upgrade", &upgrade.id)
                .with("store_event", upgrade.len),
        ),
        ClaimOutcome::Unfinished { upgrade, event_number } => Some(
            Problem::new(Code::StoreOlderThanCluster)
                .with("cluster_event", event_number)
                .with("upgrade", upgrade)
                .with("store_event", 0),
        ),
        ClaimOutcome::HeldByOther { installation, upgrade: theirs, since } => Some(
            Problem::new(Code::OtherInstallation)
                .with("holder", installation)
                .with("upgrade", theirs)
                .with("since", format!("{since:.0}"))
                .with("waiting", &upgrade.id),
        ),
        ClaimOutcome::StoreOlder { cluster_event } => Some(
            Problem::new(Code::StoreOlderThanCluster)
                .with("cluster_event", cluster_event)
                .with("upgrade", &upgrade.id)
                .with("store_event", upgrade.len),
        ),
    }
}

/// Reads the cluster's facts whenever they change, and when they are wanted.
async fn watch_facts(
    cluster: Arc<dyn Cluster>,
    facts: watch::Sender<Option<Result<Arc<shiplock_core::facts::ClusterFacts>, Problem>>>,
    wanted: Arc<Notify>,
) {
    loop {
        let read = cluster.facts().await.map(Arc::new);
        let failed = read.is_err();
        if facts.send(Some(read)).is_err() {
            return;
        }
        if failed {
            tokio::time::sleep(FAILURE_PAUSE).await;
        } else {
            tokio::select! {
                () = cluster.changed() => {}
                () = wanted.notified() => {}
            }
            // Changes come in bursts; a short pause turns a burst into one look.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Claims the cluster, and proves from the store that its log is the one that the cluster has seen.
pub async fn claim_with_proof(
    store: &dyn Store,
    cluster: &dyn Cluster,
    installation: &str,
    upgrade: &UpgradeId,
    event_number: u64,
) -> Result<ClaimOutcome, Problem> {
    let mark = async |number: u64| {
        let found = store.events(upgrade, number.saturating_sub(1), 1).await.map_err(StoreError::into_problem)?;
        Ok::<_, Problem>(found.first().map(EventRecord::mark))
    };
    let mut claim = Claim {
        installation: installation.to_owned(),
        upgrade: upgrade.clone(),
        event_number,
        event_mark: mark(event_number).await?,
        proof: None,
        ended: None,
    };
    match cluster.claim(&claim).await? {
        ClaimOutcome::Prove { event_number } => {
            claim.proof = mark(event_number).await?.map(|mark| (event_number, mark));
        }
        ClaimOutcome::Unfinished { upgrade, .. } => {
            let known = store.upgrade(&upgrade).await.map_err(StoreError::into_problem)?;
            claim.ended = known.filter(|known| !known.active).map(|known| known.id);
        }
        outcome => return Ok(outcome),
    }
    cluster.claim(&claim).await
}

/// Keeps the Lease in the cluster ours and up to date with the log.
async fn keep_claim(
    store: Arc<dyn Store>,
    cluster: Arc<dyn Cluster>,
    installation: String,
    upgrade: UpgradeId,
    mut len: watch::Receiver<u64>,
    outcome: watch::Sender<Option<Result<ClaimOutcome, Problem>>>,
) {
    loop {
        let event_number = *len.borrow_and_update();
        let result = claim_with_proof(&*store, &*cluster, &installation, &upgrade, event_number).await;
        let settled = matches!(result, Ok(ClaimOutcome::Ours));
        if outcome.send(Some(result)).is_err() {
            return;
        }
        if !settled {
            tokio::time::sleep(FAILURE_PAUSE).await;
            continue;
        }
        // At most one write a second while events come fast.
        tokio::time::sleep(Duration::from_secs(1)).await;
        tokio::select! {
            changed = len.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(CLAIM_RENEWAL) => {}
        }
    }
}
