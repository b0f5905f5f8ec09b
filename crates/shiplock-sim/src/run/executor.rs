//! The stand-in for an agent's executors.
//!
//! A step is modelled as phases: examine, fetch, permit, act as a transient unit that outlives the agent, verify, and where
//! what was put in place does not come up, back. The executors themselves are tested at every call of their host in
//! `crates/shiplock-agent/tests`.

use std::time::Duration;

use shiplock_agent::steps::Failure;
use shiplock_api::agent::Assignment;
use shiplock_core::planted::{self, Bug};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::Action;
use shiplock_core::upgrade::StepOutcome;

use super::agent::Wish;
use crate::step;
use crate::world::{Text, UnitState, Work, World};

/// How long a swap interrupts a master.
const INTERRUPTED: Duration = Duration::from_secs(3);

/// An executor at work.
#[derive(Clone, Debug)]
pub(super) struct Executing {
    pub(super) assignment: Box<Assignment>,
    pub(super) phase: Phase,
    pub(super) run: u32,
    pub(super) looks: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Examining,
    Fetching,
    Permit,
    /// The guard found why the act may not begin.
    HeldBack(Problem),
    Unit,
    Verifying,
    /// Asked to write down that the old is put back.
    GoingBack(Problem),
    Back(Problem),
    BackUp(Problem),
}

/// What an executor wants next.
pub(super) enum Next {
    Nothing,
    After(Duration),
    Permit(&'static str),
    RollingBack(Problem),
    Ended(Box<Result<StepOutcome, Failure>>),
}

fn ended(result: Result<StepOutcome, Failure>) -> Next {
    Next::Ended(Box::new(result))
}

impl Executing {
    fn unit(&self, phase: &str) -> String {
        step::unit(&self.assignment, phase)
    }

    /// Where this attempt keeps what it replaces.
    fn kept(&self) -> String {
        let id = &self.assignment.id;
        step::kept_name(&id.upgrade, id.step, id.generation.intent)
    }

    /// What its program does and how long it takes; none for steps that only fetch or read.
    fn program(&self) -> Option<(Work, Duration)> {
        let (mut work, takes) = step::program(&self.assignment.action)?;
        if planted::is(Bug::DigestNotCompared)
            && let Work::Runtime(executable) | Work::Kubelet(executable) | Work::Swap { kubelet: Some(executable), .. } =
                &mut work
        {
            executable.sha256 = "f".repeat(64).into();
        }
        Some((work, takes))
    }

    /// The program is started, at most once in an attempt.
    pub(super) fn act(&mut self, world: &mut World, id: u32) -> Option<Wish> {
        let (program, takes) = self.program()?;
        if !planted::is(Bug::QuorumNotRead)
            && !planted::is(Bug::QuorumReadEarly)
            && let Err(why) = step::guard(world, id, &self.assignment)
        {
            self.phase = Phase::HeldBack(why);
            return None;
        }
        if let Some(old) = step::before(world, id, &program) {
            let kept = Text::from(self.kept());
            world.change_machine(id, |machine| {
                if !machine.kept.iter().any(|(name, _)| *name == kept) {
                    machine.kept.push((kept, old));
                }
            });
        }
        world.start_unit(id, &self.unit("act"), program, takes);
        self.phase = Phase::Unit;
        Some(Wish::Work(Duration::from_millis(250)))
    }

    pub(super) fn go_on(&mut self, world: &mut World, id: u32) -> Next {
        let Some(machine) = world.machine(id).cloned() else { return Next::Nothing };
        if !machine.on {
            return Next::Nothing;
        }
        match self.phase.clone() {
            Phase::Examining => self.examine(world, id),
            Phase::Fetching => self.fetched(world, id),
            Phase::Permit | Phase::GoingBack(_) => Next::Nothing,
            Phase::HeldBack(problem) => ended(Err(Failure::retryable(problem))),
            Phase::Unit => match step::unit_state(world, id, &self.unit("act")) {
                Some(UnitState::Running) => Next::After(Duration::from_millis(250)),
                _ => {
                    self.phase = Phase::Verifying;
                    self.looks = 0;
                    Next::After(Duration::from_secs(1))
                }
            },
            Phase::Verifying => self.verify(world, id),
            Phase::Back(problem) => {
                let name = self.unit("roll-back");
                match step::unit_state(world, id, &name) {
                    None => {
                        let kept = self.kept();
                        let Some(old) =
                            machine.kept.iter().find(|(name, _)| **name == *kept).map(|(_, old)| old.clone())
                        else {
                            return ended(Err(Failure::from(problem)));
                        };
                        world.start_unit(id, &name, old, Duration::from_secs(2));
                        Next::After(Duration::from_millis(500))
                    }
                    Some(UnitState::Running) => Next::After(Duration::from_millis(250)),
                    Some(_) => {
                        self.phase = Phase::BackUp(problem);
                        Next::After(Duration::from_secs(5))
                    }
                }
            }
            Phase::BackUp(problem) => ended(Err(Failure::from(problem))),
        }
    }

    fn examine(&mut self, world: &mut World, id: u32) -> Next {
        let Some((program, _)) = self.program() else {
            self.phase = Phase::Fetching;
            let takes = if matches!(self.assignment.action, Action::Prefetch { .. }) { 8 } else { 3 };
            return Next::After(Duration::from_secs(takes));
        };
        if step::unit_state(world, id, &self.unit("act")).is_some() {
            // The agent was restarted meanwhile: its result is read back.
            self.phase = Phase::Unit;
            return Next::After(Duration::ZERO);
        }
        if step::is_reached(world, id, &program) {
            return ended(Ok(StepOutcome::AlreadyDone));
        }
        self.phase = Phase::Permit;
        Next::Permit("swap")
    }

    fn fetched(&mut self, world: &mut World, id: u32) -> Next {
        let faults = world.machine(id).map(|machine| machine.faults.clone()).unwrap_or_default();
        ended(match &self.assignment.action {
            Action::Prefetch { .. } if faults.disk_full => Err(Failure::from(
                Problem::new(Code::DiskFull).with("path", "/var/lib/shiplock").with("subject", &self.assignment.node),
            )),
            Action::Prefetch { .. } if faults.pulls_fail => {
                Err(Failure::retryable(Problem::new(Code::DownloadFailed).with("node", &self.assignment.node)))
            }
            Action::BackupEtcd { .. } => Ok(StepOutcome::BackedUp {
                backup: "b1".to_owned(),
                sha256: "d".repeat(64),
                revision: world.version(),
                keys: 100,
                size_bytes: 1 << 20,
            }),
            _ => step::fetched(world, id, &self.assignment),
        })
    }

    fn verify(&mut self, world: &mut World, id: u32) -> Next {
        let Some((program, _)) = self.program() else { return ended(Ok(StepOutcome::Done)) };
        let state = step::unit_state(world, id, &self.unit("act"));
        if step::is_done(world, id, &self.assignment, &program) {
            return ended(Ok(step::outcome(&self.assignment.action, INTERRUPTED)));
        }
        self.looks += 1;
        if self.looks < 30
            && state != Some(UnitState::Failed)
            && matches!(program, Work::Kubelet(_) | Work::Swap { .. } | Work::Runtime(_))
        {
            return Next::After(Duration::from_secs(1));
        }
        let problem = Problem::new(Code::ServiceNotUp)
            .with("service", self.assignment.action.kind())
            .with("node", &self.assignment.node);
        if matches!(program, Work::UploadConfiguration | Work::AddOns(_)) {
            return ended(Err(Failure::retryable(problem)));
        }
        self.phase = Phase::GoingBack(problem.clone());
        Next::RollingBack(problem)
    }
}
