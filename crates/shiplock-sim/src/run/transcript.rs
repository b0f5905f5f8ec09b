//! What people would see of a run, line by line.

use shiplock_core::id::{NodeName, StepNumber};
use shiplock_core::upgrade::{Event as LogEvent, EventRecord, Upgrade};

use super::{BEGIN, Simulation};

impl Simulation {
    /// Keeps a line for each thing that people would see.
    pub fn keep_transcript(&mut self) {
        self.transcript = Some(Vec::new());
    }

    /// The lines that were kept.
    pub fn transcript(&self) -> &[String] {
        self.transcript.as_deref().unwrap_or_default()
    }

    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        let at = self.now.since(BEGIN);
        if let Some(transcript) = &mut self.transcript {
            transcript.push(format!("{:>7}.{:03} {}", at.as_secs(), at.subsec_millis(), line()));
        }
    }
}

/// A record as people read it in a transcript.
pub(super) fn line_of(record: &EventRecord, upgrade: &Upgrade) -> String {
    let step = |number: &StepNumber| {
        upgrade.plan.step(*number).map_or_else(String::new, |step| {
            format!("{} {}", step.action.kind(), step.target.node().map_or("cluster", NodeName::as_str))
        })
    };
    match &record.event {
        LogEvent::Planned { .. } => "planned".to_owned(),
        LogEvent::LeaseTaken { epoch, .. } => format!("lease taken, epoch {epoch}"),
        LogEvent::StageStarted { stage } => format!("stage {stage} started"),
        LogEvent::StageFinished { stage } => format!("stage {stage} finished"),
        LogEvent::BatchStarted { stage, batch, nodes, .. } => {
            let nodes = nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
            format!("stage {stage} batch {batch}: {nodes}")
        }
        LogEvent::BatchFinished { stage, batch } => format!("stage {stage} batch {batch} finished"),
        LogEvent::StepStarted { step: number, attempt } => format!("{} started, attempt {attempt}", step(number)),
        LogEvent::StepSucceeded { step: number, .. } => format!("{} done", step(number)),
        LogEvent::StepFailed { step: number, problem, .. } => format!("{} failed: {problem}", step(number)),
        LogEvent::NodeSkipped { node, problem } => format!("node {node} is left out: {problem}"),
        LogEvent::WaitingBegan { on } => format!("waits: {}", on.key()),
        LogEvent::InterferenceNoticed { problem } => format!("interference: {problem}"),
        LogEvent::PauseRequested { reason, .. } => match reason.problem() {
            Some(problem) => format!("pause: {}, {problem}", reason.word()),
            None => format!("pause: {}", reason.word()),
        },
        LogEvent::MaxParallelChanged { max_parallel, .. } => format!("max parallel {max_parallel}"),
        LogEvent::CancelRequested { abandon, .. } if !abandon.is_empty() => {
            format!("cancel, given up: {}", abandon.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", "))
        }
        LogEvent::CancelRequested { .. } => "cancel".to_owned(),
        LogEvent::CheckStarted => "check started".to_owned(),
        LogEvent::CheckFinished { report } => {
            let mut blocking: Vec<String> = report.blocking().map(|finding| finding.check.to_string()).collect();
            blocking.dedup();
            format!("check finished, blocked by [{}]", blocking.join(", "))
        }
        LogEvent::Started => "started".to_owned(),
        LogEvent::Paused => "paused".to_owned(),
        LogEvent::Continued { .. } => "continued".to_owned(),
        LogEvent::Cancelled => "cancelled".to_owned(),
        LogEvent::ExpiryNoticed => "expiry noticed".to_owned(),
        LogEvent::ExpiryBegan => "expiry began".to_owned(),
        LogEvent::Expired => "expired".to_owned(),
        LogEvent::Succeeded => "succeeded".to_owned(),
    }
}
