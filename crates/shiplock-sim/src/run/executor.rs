//! The stand-in for an agent's executors.
//!
//! A step is modelled as phases: examine, fetch, permit, act as a transient unit that outlives the agent, verify, and where
//! what was put in place does not come up, back. The executors themselves are tested at every call of their host in
//! `crates/shiplock-agent/tests`.

use std::time::Duration;

use shiplock_agent::steps::{Failure, unit_prefix};
use shiplock_api::agent::Assignment;
use shiplock_core::facts::ControlPlaneComponent;
use shiplock_core::planted::{self, Bug};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::{Action, ControlPlaneUpgrade};
use shiplock_core::upgrade::StepOutcome;

use super::agent::Wish;
use crate::demo::step::{emulated_after, is_swapped};
use crate::machine::etcd_facts;
use crate::release::addon_images;
use crate::world::{Executable, Text, UnitState, Work, World};

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
        format!("{}{phase}", unit_prefix(&self.assignment.id))
    }

    /// Where this attempt keeps what it replaces.
    fn kept(&self) -> String {
        let id = &self.assignment.id;
        format!("{}-{}-{}", id.upgrade, id.step, id.generation.intent)
    }

    /// What its program does; none for steps that only fetch or read.
    fn program(&self) -> Option<Work> {
        let executable = |files: &[shiplock_core::artefact::ArtefactFile], role: &str| {
            let file = files.iter().find(|file| file.role == role)?;
            let sha256 =
                if planted::is(Bug::DigestNotCompared) { "f".repeat(64).into() } else { file.sha256.as_str().into() };
            Some(Executable { version: file.version.as_str().into(), sha256 })
        };
        match &self.assignment.action {
            Action::UpgradeContainerRuntime { files, .. } => Some(Work::Runtime(executable(files, "containerd")?)),
            Action::UpgradeKubelet { files, .. } => Some(Work::Kubelet(executable(files, "kubelet")?)),
            Action::UpgradeControlPlane(upgrade) => {
                let kubelet = executable(&upgrade.files, "kubelet");
                Some(Work::Swap { images: images_of(upgrade), kubelet, emulates: emulated_after(upgrade) })
            }
            Action::UploadConfiguration { .. } => Some(Work::UploadConfiguration),
            Action::UpgradeAddons { .. } => Some(Work::AddOns(addon_images())),
            _ => None,
        }
    }

    /// Whether its goal is reached, read from what runs.
    fn is_reached(&self, world: &World, id: u32, program: &Work) -> bool {
        let Some(machine) = world.machine(id) else { return false };
        match program {
            Work::Runtime(executable) => machine.runtime.running.as_ref() == Some(executable),
            Work::Kubelet(executable) => machine.kubelet.running.as_ref() == Some(executable),
            Work::Swap { images, kubelet, emulates } => is_swapped(machine, images, kubelet.as_ref(), *emulates),
            // kubeadm writes the same again without harm.
            Work::UploadConfiguration => false,
            Work::AddOns(images) => images.iter().all(|(name, image)| {
                crate::world::WorkloadKind::ALL
                    .iter()
                    .filter_map(|kind| world.workloads(*kind).find("kube-system", name))
                    .all(|workload| workload.template.containers.first().is_none_or(|(_, held)| held == image))
            }),
        }
    }

    /// The program is started, at most once in an attempt.
    pub(super) fn act(&mut self, world: &mut World, id: u32) -> Option<Wish> {
        let program = self.program()?;
        if let Some(why) = self.guard(world, id) {
            self.phase = Phase::HeldBack(why);
            return None;
        }
        let takes = match &program {
            Work::Runtime(_) => Duration::from_secs(6),
            Work::Kubelet(_) => Duration::from_secs(4),
            Work::Swap { .. } => Duration::from_secs(3),
            Work::UploadConfiguration | Work::AddOns(_) => Duration::from_secs(5),
        };
        if let Some(old) = before(world, id, &program) {
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

    /// Why a master may not be touched now, looked at right before the act.
    fn guard(&self, world: &World, id: u32) -> Option<Problem> {
        let Action::UpgradeControlPlane(upgrade) = &self.assignment.action else { return None };
        if planted::is(Bug::QuorumNotRead) {
            return None;
        }
        let node = self.assignment.node.clone();
        let not_well = |why: String| Problem::new(Code::EtcdNotWell).with("node", &node).with("why", why);
        match etcd_facts(world, id) {
            shiplock_core::facts::Observed::Known(etcd) => {
                if let Some(why) = etcd.why_untouchable() {
                    return Some(not_well(why));
                }
            }
            shiplock_core::facts::Observed::Unknown { problem, .. } => {
                return Some(not_well("unknown".to_owned()).because(&problem));
            }
        }
        let another = world.nodes().iter().any(|(other, _)| {
            other != id
                && world.machine(other).is_some_and(|machine| !machine.static_pods.is_empty())
                && world.api_server_answers(other)
        });
        (!upgrade.is_only && !another).then(|| Problem::new(Code::NoOtherApiServer).with("node", &node))
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
            Phase::Unit => match unit_state(&machine, &self.unit("act")) {
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
                match unit_state(&machine, &name) {
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
        let Some(program) = self.program() else {
            self.phase = Phase::Fetching;
            let takes = if matches!(self.assignment.action, Action::Prefetch { .. }) { 8 } else { 3 };
            return Next::After(Duration::from_secs(takes));
        };
        let started = world.machine(id).is_some_and(|machine| unit_state(machine, &self.unit("act")).is_some());
        if started {
            // The agent was restarted meanwhile: its result is read back.
            self.phase = Phase::Unit;
            return Next::After(Duration::ZERO);
        }
        if self.is_reached(world, id, &program) {
            return ended(Ok(StepOutcome::AlreadyDone));
        }
        self.phase = Phase::Permit;
        Next::Permit("swap")
    }

    fn fetched(&mut self, world: &mut World, id: u32) -> Next {
        let outcome = match &self.assignment.action {
            Action::Prefetch { files, images, .. } => {
                if world.machine(id).is_some_and(|machine| machine.faults.disk_full) {
                    let problem = Problem::new(Code::DiskFull)
                        .with("path", "/var/lib/shiplock")
                        .with("subject", &self.assignment.node);
                    return ended(Err(Failure::from(problem)));
                }
                if world.machine(id).is_some_and(|machine| machine.faults.pulls_fail) {
                    let problem = Problem::new(Code::DownloadFailed).with("node", &self.assignment.node);
                    return ended(Err(Failure::retryable(problem)));
                }
                let text = |text: &String| Text::from(text.as_str());
                let images: Vec<Text> = images.iter().map(|image| text(&image.reference)).collect();
                let files: Vec<Text> = files.iter().map(|file| text(&file.sha256)).collect();
                world.stage(id, images, files);
                StepOutcome::Done
            }
            Action::BackupEtcd { .. } => StepOutcome::BackedUp {
                backup: "b1".to_owned(),
                sha256: "d".repeat(64),
                revision: world.version(),
                keys: 100,
                size_bytes: 1 << 20,
            },
            Action::CollectLogs => StepOutcome::Logs { text: String::new() },
            other => {
                let problem =
                    Problem::new(Code::StepKindMissing).with("node", &self.assignment.node).with("kind", other.kind());
                return ended(Err(Failure::from(problem)));
            }
        };
        ended(Ok(outcome))
    }

    fn verify(&mut self, world: &mut World, id: u32) -> Next {
        let Some(program) = self.program() else { return ended(Ok(StepOutcome::Done)) };
        let machine = world.machine(id).cloned();
        let state = machine.as_ref().and_then(|machine| unit_state(machine, &self.unit("act")));
        let done = match program {
            Work::UploadConfiguration => state == Some(UnitState::Succeeded),
            _ => self.is_reached(world, id, &program),
        };
        if done {
            let outcome = match &self.assignment.action {
                Action::UpgradeControlPlane(upgrade) => StepOutcome::Swapped {
                    interrupted_milliseconds: 3_000,
                    components: upgrade.images.iter().map(|image| image.reference.clone()).collect(),
                    difference: String::new(),
                },
                _ => StepOutcome::Done,
            };
            return ended(Ok(outcome));
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

fn unit_state(machine: &crate::world::Machine, name: &str) -> Option<UnitState> {
    machine.units.iter().find(|unit| &*unit.name == name).map(|unit| unit.state)
}

fn images_of(upgrade: &ControlPlaneUpgrade) -> Vec<(ControlPlaneComponent, Text)> {
    let image = |component: &ControlPlaneComponent| {
        let found = upgrade.images.iter().find(|image| image.role == component.name())?;
        Some((*component, Text::from(found.reference.as_str())))
    };
    upgrade.components.iter().filter_map(image).collect()
}

/// The work that puts back what is there now.
fn before(world: &World, id: u32, program: &Work) -> Option<Work> {
    let machine = world.machine(id)?;
    Some(match program {
        Work::Runtime(_) => Work::Runtime(machine.runtime.disk.clone()),
        Work::Kubelet(_) => Work::Kubelet(machine.kubelet.disk.clone()),
        Work::Swap { images, kubelet, .. } => Work::Swap {
            images: images
                .iter()
                .filter_map(|(component, _)| Some((*component, machine.static_pods.get(component)?.image.clone())))
                .collect(),
            kubelet: kubelet.as_ref().map(|_| machine.kubelet.disk.clone()),
            emulates: machine.emulates,
        },
        Work::UploadConfiguration | Work::AddOns(_) => return None,
    })
}
