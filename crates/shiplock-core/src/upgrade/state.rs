//! The state of an upgrade: nothing but what its log says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::check::CheckReport;
use crate::facts::WorkloadFacts;
use crate::id::{Actor, Epoch, NodeName, StepNumber, UpgradeId};
use crate::language::Language;
use crate::plan::{NodePlan, Plan, Stage, StageKind};
use crate::planted::{self, Bug};
use crate::problem::{Code, Problem};
use crate::step::{Action, Step};

use super::batch;
use super::event::{Event, EventRecord, PauseReason, StepOutcome};
use super::waiting::Waiting;

/// An upgrade, folded from its log.
#[derive(Clone, Debug, PartialEq)]
pub struct Upgrade {
    /// Its id.
    pub id: UpgradeId,
    /// The accepted plan, shared with whoever works on it: it never changes.
    pub plan: Arc<Plan>,
    /// Who accepted it.
    pub by: Actor,
    /// Where it stands.
    pub state: State,
    /// How many events were folded; the number of the newest event.
    pub len: u64,
    /// The epoch of the newest lease.
    pub epoch: Epoch,
    /// When the first event was appended.
    pub created_at: Timestamp,
    /// When the newest event was appended.
    pub updated_at: Timestamp,
    /// The bound on batches in force.
    pub max_parallel: u32,
    /// The newest pre-check.
    pub report: Option<CheckReport>,
    /// Stages that began, by index.
    pub stages_started: BTreeSet<usize>,
    /// Stages that ended, by index.
    pub stages_finished: BTreeSet<usize>,
    /// The batches of each stage, by index.
    pub batches: BTreeMap<usize, Vec<Batch>>,
    /// When the newest batch ended.
    pub batch_finished_at: Option<Timestamp>,
    /// The steps that were touched.
    pub steps: BTreeMap<StepNumber, StepProgress>,
    /// Nodes that were skipped, and why.
    pub skipped: BTreeMap<NodeName, Problem>,
    /// Nodes that are not waited for any more; their state is unknown.
    pub abandoned: BTreeSet<NodeName>,
    /// Whether a person has cancelled it: from then on it can only end, also after a pause in between.
    pub cancel_requested: bool,
    /// Nodes that failed before the newest continue; they go first, alone.
    pub retry_first: BTreeSet<NodeName>,
    /// When a person last continued it: silence before that was handled, and what was read before that tells nothing of what
    /// the person did.
    pub continued_at: Option<Timestamp>,
    /// Workloads before anything was touched.
    pub baseline: Option<Arc<Vec<WorkloadFacts>>>,
    /// When the expiry deadline was first seen to have passed.
    pub expiry_noticed_at: Option<Timestamp>,
    /// How the soak stands, while the masters soak.
    pub soak: Option<SoakProgress>,
    /// The steps in flight, kept so that no decision walks all steps.
    in_flight: BTreeSet<StepNumber>,
    /// What is left of the stage in work, kept so that no decision walks all nodes.
    left: Left,
}

/// What is left of a stage, by its place in the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Left {
    /// The stage's own steps that have not succeeded.
    steps: BTreeSet<usize>,
    /// Its nodes that no batch took.
    nodes: BTreeSet<usize>,
}

/// How a soak stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoakProgress {
    /// Its time counts from here: from its begin, and from the newest continue.
    pub since: Timestamp,
    /// Whether its time was told in the log.
    pub is_told: bool,
    /// Since when something is not as well as it was; the soak does not end then.
    pub unwell_since: Option<Timestamp>,
}

impl SoakProgress {
    fn begun(since: Timestamp) -> Self {
        Self { since, is_told: false, unwell_since: None }
    }
}

/// Where an upgrade stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Accepted, nothing done yet.
    Planned,
    /// The pre-check runs.
    Checking,
    /// Findings stop the start.
    Blocked,
    /// Checked and clear to start.
    Ready {
        /// When the check ended.
        checked_at: Timestamp,
    },
    /// At work.
    Running,
    /// What has started finishes; nothing new starts.
    Pausing {
        /// Why.
        because: PauseReason,
        /// Since when.
        since: Timestamp,
    },
    /// Nothing is in work.
    Paused {
        /// Why.
        because: PauseReason,
        /// Since when.
        since: Timestamp,
        /// When it is closed if nobody continues.
        expires_at: Timestamp,
    },
    /// What is ours is given back; then it ends.
    Cancelling,
    /// Ended by a person.
    Cancelled,
    /// What is ours is given back; then it ends.
    Expiring,
    /// Ended by expiry.
    Expired,
    /// Ended well.
    Succeeded,
}

impl State {
    /// The stable word, as in JSON.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Checking => "checking",
            Self::Blocked => "blocked",
            Self::Ready { .. } => "ready",
            Self::Running => "running",
            Self::Pausing { .. } => "pausing",
            Self::Paused { .. } => "paused",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
            Self::Expiring => "expiring",
            Self::Expired => "expired",
            Self::Succeeded => "succeeded",
        }
    }

    /// The word for it as people read it.
    pub fn label(&self, language: Language) -> &'static str {
        let chinese = match self {
            Self::Planned => "已计划",
            Self::Checking => "检查中",
            Self::Blocked => "受阻",
            Self::Ready { .. } => "就绪",
            Self::Running => "进行中",
            Self::Pausing { .. } => "暂停中",
            Self::Paused { .. } => "已暂停",
            Self::Cancelling => "取消中",
            Self::Cancelled => "已取消",
            Self::Expiring => "到期处理中",
            Self::Expired => "已过期",
            Self::Succeeded => "已成功",
        };
        language.pick(self.word(), chinese)
    }

    /// Whether it has ended.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Cancelled | Self::Expired | Self::Succeeded)
    }
}

/// A batch of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Batch {
    /// Its ordinal in the pool, from 1.
    pub ordinal: u32,
    /// Its nodes.
    pub nodes: Vec<NodeName>,
    /// When it began.
    pub started_at: Timestamp,
    /// Whether it ended.
    pub finished: bool,
}

/// How far a step is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepProgress {
    /// Attempts so far.
    pub attempts: u32,
    /// Attempts since the upgrade was last continued; the retry budget counts these.
    pub attempts_since_continue: u32,
    /// When the first attempt began.
    pub first_started_at: Timestamp,
    /// How the newest attempt stands.
    #[serde(flatten)]
    pub status: StepStatus,
}

/// How the newest attempt of a step stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum StepStatus {
    /// The intent is recorded, the outcome is not.
    InFlight {
        /// The number of the intent's event.
        intent: u64,
        /// When.
        since: Timestamp,
    },
    /// It failed.
    Failed {
        /// When.
        at: Timestamp,
        /// Why.
        problem: Problem,
        /// Whether a further attempt may help without a person.
        retryable: bool,
    },
    /// It succeeded.
    Succeeded {
        /// When.
        at: Timestamp,
        /// What was found or done.
        outcome: StepOutcome,
    },
    /// What it did was undone by somebody else: it is to be done again.
    Undone {
        /// Since when this is known.
        at: Timestamp,
    },
}

impl StepStatus {
    /// Whether it failed because somebody else had uncordoned the node.
    pub(super) fn is_uncordoned(&self) -> bool {
        matches!(self, Self::Failed { problem, .. } if problem.code == Code::Uncordoned)
    }
}

/// Where a node of the plan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NodeProgress {
    /// Not touched.
    Waiting,
    /// Started and not finished.
    InWork,
    /// A step failed and is not in flight.
    Failed,
    /// Left out.
    Skipped,
    /// Given up by a person; its state is unknown.
    Abandoned,
    /// All its steps succeeded.
    Done,
}

/// An event that does not fit the state: a bug or a damaged log. Nothing acts on such an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IllegalEvent {
    /// The number of the event.
    pub number: u64,
    /// What does not fit.
    pub why: String,
}

impl fmt::Display for IllegalEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {} does not fit: {}", self.number, self.why)
    }
}
impl std::error::Error for IllegalEvent {}

impl Upgrade {
    /// Begins the fold with the first event.
    pub fn begin(record: &EventRecord) -> Result<Self, IllegalEvent> {
        let Event::Planned { plan, by } = &record.event else {
            return Err(IllegalEvent { number: record.number, why: "the first event is not `planned`".to_owned() });
        };
        if record.number != 1 {
            return Err(IllegalEvent { number: record.number, why: "the first event is not number 1".to_owned() });
        }
        Ok(Self {
            id: record.upgrade.clone(),
            max_parallel: plan.options.max_parallel,
            plan: Arc::new(Plan::clone(plan)),
            by: by.clone(),
            state: State::Planned,
            len: 1,
            epoch: Epoch(0),
            created_at: record.at,
            updated_at: record.at,
            report: None,
            stages_started: BTreeSet::new(),
            stages_finished: BTreeSet::new(),
            batches: BTreeMap::new(),
            batch_finished_at: None,
            steps: BTreeMap::new(),
            skipped: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            cancel_requested: false,
            retry_first: BTreeSet::new(),
            continued_at: None,
            baseline: None,
            expiry_noticed_at: None,
            soak: None,
            in_flight: BTreeSet::new(),
            left: Left::default(),
        })
    }

    /// Folds a whole log.
    pub fn fold<'a>(records: impl IntoIterator<Item = &'a EventRecord>) -> Result<Self, IllegalEvent> {
        let mut records = records.into_iter();
        let first = records.next().ok_or(IllegalEvent { number: 0, why: "the log is empty".to_owned() })?;
        records.try_fold(Self::begin(first)?, Self::apply)
    }

    /// Folds one more event. Total: whatever does not fit is refused, naming state and event.
    pub fn apply(mut self, record: &EventRecord) -> Result<Self, IllegalEvent> {
        self.advance(record)?;
        Ok(self)
    }

    /// As [`Upgrade::apply`], in place. After an error the fold is not to be used any more.
    pub fn advance(&mut self, record: &EventRecord) -> Result<(), IllegalEvent> {
        let illegal = |why: String| IllegalEvent { number: record.number, why };
        if record.number != self.len + 1 {
            return Err(illegal(format!("number {} was expected", self.len + 1)));
        }
        if record.at < self.updated_at {
            return Err(illegal("it is older than the event ahead of it".to_owned()));
        }
        if let Some(epoch) = record.epoch
            && epoch < self.epoch
        {
            return Err(illegal(format!("epoch {epoch} is older than {}", self.epoch)));
        }
        self.apply_event(record).map_err(illegal)?;
        self.len = record.number;
        self.updated_at = record.at;
        Ok(())
    }

    fn apply_event(&mut self, record: &EventRecord) -> Result<(), String> {
        let at = record.at;
        let misfit = |state: &State| Err(format!("`{}` in state {}", event_word(&record.event), state.word()));
        match (&self.state, &record.event) {
            (_, Event::LeaseTaken { epoch, .. }) => {
                if *epoch <= self.epoch {
                    return Err(format!("epoch {epoch} is not newer than {}", self.epoch));
                }
                self.epoch = *epoch;
            }
            (state, _) if state.is_terminal() => return misfit(state),
            (_, Event::WaitingBegan { on }) => self.note_soak(&on.what, at),
            (_, Event::InterferenceNoticed { .. }) => {}

            (State::Planned | State::Blocked | State::Ready { .. }, Event::CheckStarted) => {
                self.state = State::Checking;
            }
            (State::Checking, Event::CheckFinished { report }) => {
                let blocked = report.blocking().next().is_some();
                self.state = if blocked { State::Blocked } else { State::Ready { checked_at: at } };
                self.report = Some(report.clone());
            }
            (State::Ready { .. }, Event::Started) => self.state = State::Running,
            (State::Blocked, Event::Continued { .. }) => {
                self.continued_at = Some(at);
                self.state = State::Planned;
            }
            (
                State::Planned
                | State::Checking
                | State::Blocked
                | State::Ready { .. }
                | State::Pausing { .. }
                | State::Paused { .. },
                Event::CancelRequested { abandon, .. },
            ) => {
                self.abandoned.extend(abandon.iter().cloned());
                self.cancel_requested = true;
                self.state = State::Cancelling;
            }

            (State::Running, Event::StageStarted { stage }) => {
                let next = (0..self.plan.stages.len()).find(|index| !self.stages_finished.contains(index));
                if next != Some(*stage) || !self.stages_started.insert(*stage) {
                    return Err(format!("stage {stage} is not the next one"));
                }
                let planned = &self.plan.stages[*stage];
                self.left =
                    Left { steps: (0..planned.steps.len()).collect(), nodes: (0..planned.nodes.len()).collect() };
                let soaks = matches!(planned.kind, StageKind::Soak { .. });
                self.soak = soaks.then(|| SoakProgress::begun(at));
            }
            (State::Running, Event::StageFinished { stage }) => {
                if !self.stages_started.contains(stage) || !self.stages_finished.insert(*stage) {
                    return Err(format!("stage {stage} is not in work"));
                }
                self.soak = None;
            }
            (State::Running, Event::BatchStarted { stage, batch, size_limit, nodes }) => {
                self.begin_batch(at, *stage, *batch, *size_limit, nodes)?;
            }
            (
                State::Running | State::Pausing { .. } | State::Cancelling | State::Expiring,
                Event::BatchFinished { stage, batch },
            ) => {
                let open = self.batches.get_mut(stage).and_then(|batches| batches.last_mut());
                match open.filter(|open| open.ordinal == *batch && !open.finished) {
                    Some(open) => open.finished = true,
                    None => return Err(format!("batch {batch} of stage {stage} is not in work")),
                }
                self.batch_finished_at = Some(at);
            }
            (
                State::Running | State::Pausing { .. } | State::Cancelling | State::Expiring,
                Event::StepStarted { step, attempt },
            ) => self.begin_step(record, *step, *attempt)?,
            // A step whose agent was silent may end while the upgrade is paused.
            (
                State::Running | State::Pausing { .. } | State::Paused { .. } | State::Cancelling | State::Expiring,
                Event::StepSucceeded { step, attempt, outcome },
            ) => self.end_step(*step, *attempt, StepStatus::Succeeded { at, outcome: outcome.clone() })?,
            (
                State::Running | State::Pausing { .. } | State::Paused { .. } | State::Cancelling | State::Expiring,
                Event::StepFailed { step, attempt, problem, retryable },
            ) => {
                let status = StepStatus::Failed { at, problem: problem.clone(), retryable: *retryable };
                self.end_step(*step, *attempt, status)?;
            }
            (
                State::Running | State::Pausing { .. } | State::Cancelling | State::Expiring,
                Event::NodeSkipped { node, problem },
            ) => {
                if !self.plan.holds(node) {
                    return Err(format!("node {node} is not in the plan"));
                }
                self.skipped.insert(node.clone(), problem.clone());
            }
            (
                State::Running
                | State::Pausing { .. }
                | State::Paused { .. }
                | State::Planned
                | State::Checking
                | State::Blocked
                | State::Ready { .. },
                Event::MaxParallelChanged { max_parallel, .. },
            ) => self.max_parallel = *max_parallel,

            (State::Running | State::Cancelling, Event::PauseRequested { reason, .. }) => {
                self.state = State::Pausing { because: reason.clone(), since: at };
            }
            (State::Pausing { because, .. }, Event::PauseRequested { reason, .. }) => {
                // A person's wish to pause does not hide that something failed; what was settled is not waited for any more.
                if because.is_a_wish() || reason.settles(because) {
                    self.state = State::Pausing { because: reason.clone(), since: at };
                }
            }
            // The wish is taken back before all that has started is finished: it goes on as if nothing had been asked.
            (State::Pausing { because, .. }, Event::Continued { .. }) if because.is_a_wish() => {
                self.state = if self.cancel_requested { State::Cancelling } else { State::Running };
            }
            (State::Pausing { because, .. }, Event::Paused) => {
                let expiry = SignedDuration::from_secs(i64::from(self.plan.options.expiry_seconds));
                let expires_at = at.checked_add(expiry).unwrap_or(Timestamp::MAX);
                self.state = State::Paused { because: because.clone(), since: at, expires_at };
                self.expiry_noticed_at = None;
            }
            (State::Paused { .. }, Event::Continued { .. }) => {
                for progress in self.steps.values_mut() {
                    progress.attempts_since_continue = 0;
                }
                self.retry_first = self.failed_nodes();
                self.continued_at = Some(at);
                self.soak = self.soak.map(|_| SoakProgress::begun(at));
                self.state = if self.cancel_requested { State::Cancelling } else { State::Running };
            }
            (State::Paused { .. }, Event::ExpiryNoticed) => self.expiry_noticed_at = Some(at),
            (State::Paused { .. }, Event::ExpiryBegan) => self.state = State::Expiring,
            (State::Cancelling, Event::Cancelled) => self.state = State::Cancelled,
            (State::Expiring, Event::Expired) => self.state = State::Expired,
            (State::Running, Event::Succeeded) => self.state = State::Succeeded,
            (state, _) => return misfit(state),
        }
        Ok(())
    }

    fn note_soak(&mut self, what: &Waiting, at: Timestamp) {
        let Some(soak) = &mut self.soak else { return };
        match what {
            Waiting::Soak { .. } => (soak.is_told, soak.unwell_since) = (true, None),
            Waiting::SoakUnwell { .. } => soak.unwell_since = soak.unwell_since.or(Some(at)),
            _ => {}
        }
    }

    fn begin_batch(
        &mut self,
        started_at: Timestamp,
        stage: usize,
        ordinal: u32,
        size_limit: u32,
        nodes: &[NodeName],
    ) -> Result<(), String> {
        let planned = self.plan.stages.get(stage).ok_or("no such stage")?;
        let in_work = self.stages_started.contains(&stage) && !self.stages_finished.contains(&stage);
        if !in_work || self.open_batch(stage).is_some() {
            return Err(format!("stage {stage} is not ready for a batch"));
        }
        let (expected, lawful) = self.next_batch(stage, planned);
        if ordinal != expected || size_limit != lawful || nodes.is_empty() || nodes.len() > lawful as usize {
            return Err(format!(
                "batch {ordinal} of {} nodes breaks the batch law: batch {expected}, at most {lawful}",
                nodes.len()
            ));
        }
        for node in nodes {
            let fresh = planned.place(node).is_some_and(|place| self.left.nodes.remove(&place));
            if !fresh {
                return Err(format!("node {node} is not to be taken in stage {stage}"));
            }
        }
        self.batches.entry(stage).or_default().push(Batch {
            ordinal,
            nodes: nodes.to_vec(),
            started_at,
            finished: false,
        });
        Ok(())
    }

    fn begin_step(&mut self, record: &EventRecord, number: StepNumber, attempt: u32) -> Result<(), String> {
        let Some(Step { action, .. }) = self.plan.step(number) else {
            return Err(format!("step {number} is not in the plan"));
        };
        let progress = self.steps.entry(number).or_insert_with(|| StepProgress {
            attempts: 0,
            attempts_since_continue: 0,
            first_started_at: record.at,
            status: StepStatus::InFlight { intent: 0, since: record.at },
        });
        let busy = match progress.status {
            StepStatus::InFlight { .. } => progress.attempts > 0,
            // Evidence is collected anew after each failure, and a cordon that somebody took off is put on again.
            StepStatus::Succeeded { .. } => !matches!(action, Action::CollectLogs | Action::Cordon),
            StepStatus::Failed { .. } | StepStatus::Undone { .. } => false,
        };
        if busy || attempt != progress.attempts + 1 {
            return Err(format!("attempt {attempt} of step {number} may not begin now"));
        }
        let is_cordon_again =
            *action == Action::Cordon && matches!(progress.status, StepStatus::Succeeded { .. }) && attempt > 1;
        progress.attempts = attempt;
        progress.attempts_since_continue += 1;
        progress.status = StepStatus::InFlight { intent: record.number, since: record.at };
        self.in_flight.insert(number);
        if is_cordon_again {
            self.note_uncordoned(number, record.at);
        }
        Ok(())
    }

    /// Pods may have come to a node that was uncordoned since its drain: they go once it is cordoned again. What was not
    /// begun for that reason is begun then.
    fn note_uncordoned(&mut self, cordon: StepNumber, at: Timestamp) {
        let plan = self.plan.clone();
        for step in plan.node_of_step(cordon).into_iter().flat_map(|node| &node.steps) {
            let Some(progress) = self.steps.get_mut(&step.number) else { continue };
            let is_drain = matches!(step.action, Action::Drain { .. });
            if progress.status.is_uncordoned() || (is_drain && !matches!(progress.status, StepStatus::InFlight { .. }))
            {
                progress.status = StepStatus::Undone { at };
            }
        }
    }

    fn end_step(&mut self, number: StepNumber, attempt: u32, status: StepStatus) -> Result<(), String> {
        let progress = self.steps.get_mut(&number).ok_or_else(|| format!("step {number} was not begun"))?;
        if !matches!(progress.status, StepStatus::InFlight { .. }) || progress.attempts != attempt {
            return Err(format!("attempt {attempt} of step {number} is not in flight"));
        }
        if let StepStatus::Succeeded { outcome: StepOutcome::Baseline { workloads }, .. } = &status {
            self.baseline = Some(Arc::new(workloads.clone()));
        }
        let succeeded = matches!(status, StepStatus::Succeeded { .. });
        progress.status = status;
        self.in_flight.remove(&number);
        if succeeded
            && let Some((_, stage)) = self.current_stage()
            && let Some(place) = stage.place_of_own_step(number)
        {
            self.left.steps.remove(&place);
        }
        Ok(())
    }

    fn failed_nodes(&self) -> BTreeSet<NodeName> {
        let failed = |node: &&NodePlan| self.node_progress(node) == NodeProgress::Failed;
        self.plan.nodes().filter(failed).map(|node| node.node.clone()).collect()
    }

    /// How a step stands; none when it was never begun.
    pub fn step_status(&self, step: &Step) -> Option<&StepStatus> {
        self.steps.get(&step.number).map(|progress| &progress.status)
    }

    /// Whether a step succeeded.
    pub fn has_succeeded(&self, step: &Step) -> bool {
        matches!(self.step_status(step), Some(StepStatus::Succeeded { .. }))
    }

    /// The steps with an intent and no outcome, by number.
    pub fn in_flight(&self) -> impl Iterator<Item = (&Step, u64, Timestamp)> {
        self.in_flight.iter().filter_map(|number| match self.steps.get(number)?.status {
            StepStatus::InFlight { intent, since } => Some((self.plan.step(*number)?, intent, since)),
            _ => None,
        })
    }

    /// The own steps of the stage in work that have not succeeded, in order.
    pub(super) fn own_steps_left<'a>(&'a self, stage: &'a Stage) -> impl Iterator<Item = &'a Step> {
        self.left.steps.iter().filter_map(|place| stage.steps.get(*place))
    }

    /// The nodes of the stage in work that no batch took, in order.
    pub(super) fn nodes_left<'a>(&'a self, stage: &'a Stage) -> impl Iterator<Item = &'a NodePlan> {
        self.left.nodes.iter().filter_map(|place| stage.nodes.get(*place))
    }

    /// Where a node stands.
    pub fn node_progress(&self, node: &NodePlan) -> NodeProgress {
        if self.abandoned.contains(&node.node) {
            return NodeProgress::Abandoned;
        }
        let mut started = false;
        let mut done = true;
        let mut failed = false;
        for step in &node.steps {
            match self.step_status(step) {
                None => done = false,
                Some(StepStatus::Succeeded { .. }) => started |= step.action.is_acting(),
                Some(StepStatus::InFlight { .. } | StepStatus::Undone { .. }) => {
                    started |= step.action.is_acting();
                    done = false;
                }
                Some(StepStatus::Failed { .. }) => {
                    started |= step.action.is_acting();
                    failed = true;
                    done = false;
                }
            }
        }
        match (self.skipped.contains_key(&node.node), done, failed, started) {
            (true, ..) => NodeProgress::Skipped,
            (_, true, ..) => NodeProgress::Done,
            (_, _, true, _) => NodeProgress::Failed,
            (_, _, _, true) => NodeProgress::InWork,
            _ => NodeProgress::Waiting,
        }
    }

    /// Whether a node was started: its first acting step has an intent.
    pub fn is_started(&self, node: &NodePlan) -> bool {
        node.steps.iter().any(|step| step.action.is_acting() && self.step_status(step).is_some())
    }

    /// Whether the node still carries our cordon as far as the log tells.
    pub fn holds_cordon(&self, node: &NodePlan) -> bool {
        let mut cordoned = false;
        for step in &node.steps {
            match (&step.action, self.step_status(step)) {
                (
                    Action::Cordon,
                    Some(StepStatus::Succeeded { outcome: StepOutcome::Cordoned { ours: false }, .. }),
                ) => {
                    cordoned = false;
                }
                (Action::Cordon, Some(_)) => cordoned = true,
                (Action::Uncordon, Some(StepStatus::Succeeded { .. })) => cordoned = false,
                _ => {}
            }
        }
        cordoned
    }

    /// The cordon of a node, and how it stands; none where the plan has none, or it was not begun.
    pub fn cordon_of<'a>(&'a self, node: &'a NodePlan) -> Option<(&'a Step, &'a StepProgress)> {
        let cordon = node.steps.iter().find(|step| step.action == Action::Cordon)?;
        Some((cordon, self.steps.get(&cordon.number)?))
    }

    /// The stage in work or next, with its index; none when all ended.
    pub fn current_stage(&self) -> Option<(usize, &Stage)> {
        self.plan.stages.iter().enumerate().find(|(index, _)| !self.stages_finished.contains(index))
    }

    /// The newest batch of a stage, if it has not ended.
    pub fn open_batch(&self, stage: usize) -> Option<&Batch> {
        self.batches.get(&stage).and_then(|batches| batches.last()).filter(|batch| !batch.finished)
    }

    /// Nodes whose steps all succeeded, and nodes of the plan.
    pub fn node_counts(&self) -> (usize, usize) {
        let nodes = self.plan.nodes_in_the_end();
        (nodes.iter().filter(|node| self.node_progress(node) == NodeProgress::Done).count(), nodes.len())
    }

    /// The ordinal of the next batch of a stage, and the most nodes that it may take.
    pub(super) fn next_batch(&self, index: usize, stage: &Stage) -> (u32, u32) {
        let begun = self.batches.get(&index).map_or(&[][..], Vec::as_slice);
        let next = |begun: usize| u32::try_from(begun).unwrap_or(u32::MAX).saturating_add(1);
        let counted = if planted::is(Bug::BatchLawRestarts) {
            begun.iter().filter(|batch| self.continued_at.is_none_or(|at| batch.started_at > at)).count()
        } else {
            begun.len()
        };
        (next(begun.len()), batch::size_limit(next(counted), stage.max_parallel(self.max_parallel)))
    }

    /// Whether the stage with an index is a node pool.
    pub fn is_pool(&self, stage: usize) -> bool {
        self.plan.stages.get(stage).is_some_and(|stage| matches!(stage.kind, StageKind::NodePool { .. }))
    }
}

fn event_word(event: &Event) -> String {
    serde_json::to_value(event)
        .ok()
        .and_then(|value| value.get("kind").and_then(|kind| kind.as_str().map(str::to_owned)))
        .unwrap_or_default()
}
