//! What a step does on a simulated machine, and how long it takes there. The order is that of the real executors: examine,
//! permit, act as a program that outlives the agent, verify, and where what was put in place does not come up, back.

use std::time::Duration;

use shiplock_agent::steps::{Failure, unit_prefix};
use shiplock_api::agent::Assignment;
use shiplock_core::artefact::ArtefactFile;
use shiplock_core::facts::{ControlPlaneComponent, KeptControlPlane, KeptImage, Observed};
use shiplock_core::id::{StepNumber, UpgradeId};
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::{Action, ControlPlaneRestore, ControlPlaneUpgrade, Emulation};
use shiplock_core::upgrade::StepOutcome;
use shiplock_core::version::MinorVersion;

use crate::machine::etcd_facts;
use crate::release::addon_images;
use crate::world::{Executable, Machine, Text, UnitState, Work, WorkloadKind, World};

/// How long fetching takes.
pub(crate) const FETCH: Duration = Duration::from_secs(8);
/// How often a program and what it put in place are looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So many looks are made at what was put in place.
pub(crate) const LOOKS_MAX: u32 = 120;
/// How long putting the old back takes.
pub(crate) const BACK: Duration = Duration::from_secs(2);

/// How long a swap takes.
const SWAP: Duration = Duration::from_secs(3);

/// The name under which an attempt keeps what it replaces.
pub(crate) fn kept_name(upgrade: &UpgradeId, step: StepNumber, intent: u64) -> String {
    format!("{upgrade}-{step}-{intent}")
}

/// What the swaps of a master kept there, as its agent tells it.
pub(crate) fn kept_control_planes(machine: &Machine) -> Vec<KeptControlPlane> {
    let of_swap = |(name, kept): &(Text, Work)| {
        let Work::Swap { images, .. } = kept else { return None };
        let mut parts = name.rsplitn(3, '-');
        let (intent, step) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let image = |(component, image): &(ControlPlaneComponent, Text)| KeptImage {
            component: *component,
            reference: image.to_string(),
        };
        let images = images.iter().map(image).collect();
        Some(KeptControlPlane {
            upgrade: UpgradeId::new(parts.next()?.to_owned()),
            step: StepNumber(step),
            intent,
            images,
        })
    };
    machine.kept.iter().filter_map(of_swap).collect()
}

/// What the way back of a master does, and how long it takes: what an upgrade kept there goes back, but for etcd where that
/// stays.
pub(crate) fn way_back(world: &World, id: u32, restore: &ControlPlaneRestore) -> Option<(Work, Duration)> {
    let name = kept_name(&restore.upgrade, restore.step, restore.intent);
    let (_, kept) = world.machine(id)?.kept.iter().find(|(held, _)| **held == *name)?;
    let Work::Swap { images, kubelet, emulates } = kept.clone() else { return None };
    let goes_back = |component| !(restore.etcd_stays && component == ControlPlaneComponent::Etcd);
    let images = images.into_iter().filter(|(component, _)| goes_back(*component)).collect();
    Some((Work::Swap { images, kubelet, emulates }, SWAP))
}

/// The name of the unit of a phase.
pub(crate) fn unit(assignment: &Assignment, phase: &str) -> String {
    format!("{}{phase}", unit_prefix(&assignment.id))
}

/// What the program of a step does, and how long it takes; none for steps that only fetch or read.
pub(crate) fn program(action: &Action) -> Option<(Work, Duration)> {
    let executable = |files: &[ArtefactFile], role: &str| {
        let file = files.iter().find(|file| file.role == role)?;
        Some(Executable { version: file.version.as_str().into(), sha256: file.sha256.as_str().into() })
    };
    let (work, seconds) = match action {
        Action::UpgradeContainerRuntime { files, .. } => (Work::Runtime(executable(files, "containerd")?), 6),
        Action::UpgradeKubelet { files, .. } => (Work::Kubelet(executable(files, "kubelet")?), 4),
        Action::UpgradeControlPlane(upgrade) => {
            let image = |component: &ControlPlaneComponent| {
                let found = upgrade.images.iter().find(|image| image.role == component.name())?;
                Some((*component, Text::from(found.reference.as_str())))
            };
            let images = upgrade.components.iter().filter_map(image).collect();
            let kubelet = executable(&upgrade.files, "kubelet");
            return Some((Work::Swap { images, kubelet, emulates: emulated_after(upgrade) }, SWAP));
        }
        Action::UploadConfiguration { .. } | Action::RestoreConfiguration { .. } => (Work::UploadConfiguration, 5),
        Action::UpgradeAddons { version, .. } => (Work::AddOns(addon_images(*version)), 5),
        _ => return None,
    };
    Some((work, Duration::from_secs(seconds)))
}

/// The minor version that a swap leaves the components emulating.
pub(crate) fn emulated_after(upgrade: &ControlPlaneUpgrade) -> Option<MinorVersion> {
    match upgrade.emulation {
        Some(Emulation::Begins { of }) => Some(of),
        Some(Emulation::Ends { .. }) | None => None,
    }
}

/// Whether the goal of a swap is reached, read from what runs.
pub(crate) fn is_swapped(
    machine: &Machine,
    images: &[(ControlPlaneComponent, Text)],
    kubelet: Option<&Executable>,
    emulates: Option<MinorVersion>,
) -> bool {
    let runs = |(component, image): &(ControlPlaneComponent, Text)| {
        let pod = machine.static_pods.get(component);
        pod.is_some_and(|pod| pod.running.as_ref() == Some(image) && pod.healthy && pod.image == *image)
    };
    let swaps_api_server = images.iter().any(|(component, _)| *component == ControlPlaneComponent::KubeApiserver);
    images.iter().all(runs)
        && kubelet.is_none_or(|kubelet| machine.kubelet.running.as_ref() == Some(kubelet))
        && (!swaps_api_server || machine.emulates == emulates)
}

/// Whether the goal of a program is reached, read from what runs.
pub(crate) fn is_reached(world: &World, id: u32, program: &Work) -> bool {
    let Some(machine) = world.machine(id) else { return false };
    match program {
        Work::Runtime(executable) => machine.runtime.running.as_ref() == Some(executable),
        Work::Kubelet(executable) => machine.kubelet.running.as_ref() == Some(executable),
        Work::Swap { images, kubelet, emulates } => is_swapped(machine, images, kubelet.as_ref(), *emulates),
        // kubeadm writes the same again without harm.
        Work::UploadConfiguration => false,
        Work::AddOns(images) => images.iter().all(|(name, image)| {
            let found = WorkloadKind::ALL.iter().filter_map(|kind| world.workloads(*kind).find("kube-system", name));
            found.flat_map(|workload| workload.template.containers.first()).all(|(_, held)| held == image)
        }),
    }
}

/// Whether a program ended well and what it put in place is there.
pub(crate) fn is_done(world: &World, id: u32, assignment: &Assignment, program: &Work) -> bool {
    match program {
        Work::UploadConfiguration => unit_state(world, id, &unit(assignment, "act")) == Some(UnitState::Succeeded),
        _ => is_reached(world, id, program),
    }
}

/// How a unit stands; none where there is none.
pub(crate) fn unit_state(world: &World, id: u32, name: &str) -> Option<UnitState> {
    world.machine(id)?.units.iter().find(|unit| &*unit.name == name).map(|unit| unit.state)
}

/// Why a master may not be touched now, looked at right before the act, as the real executor does.
pub(crate) fn guard(world: &World, id: u32, assignment: &Assignment) -> Result<(), Problem> {
    let is_only = match &assignment.action {
        Action::UpgradeControlPlane(upgrade) => upgrade.is_only,
        Action::RestoreControlPlane(restore) => restore.is_only,
        _ => return Ok(()),
    };
    let not_well = |why: &str| Problem::new(Code::EtcdNotWell).with("node", &assignment.node).with("why", why);
    match etcd_facts(world, id) {
        Observed::Known(etcd) => etcd.why_untouchable().map_or(Ok(()), |why| Err(not_well(&why)))?,
        Observed::Unknown { problem, .. } => return Err(not_well("it could not be read").because(&problem)),
    }
    let another = world.nodes().iter().any(|(other, _)| {
        let is_master = world.machine(other).is_some_and(|machine| !machine.static_pods.is_empty());
        other != id && is_master && world.api_server_answers(other)
    });
    if is_only || another { Ok(()) } else { Err(Problem::new(Code::NoOtherApiServer).with("node", &assignment.node)) }
}

/// The work that puts back what is there now.
pub(crate) fn before(world: &World, id: u32, program: &Work) -> Option<Work> {
    let machine = world.machine(id)?;
    Some(match program {
        Work::Runtime(_) => Work::Runtime(machine.runtime.disk.clone()),
        Work::Kubelet(_) => Work::Kubelet(machine.kubelet.disk.clone()),
        Work::Swap { images, kubelet, .. } => {
            let old = |component: &ControlPlaneComponent| {
                Some((*component, machine.static_pods.get(component)?.image.clone()))
            };
            Work::Swap {
                images: images.iter().filter_map(|(component, _)| old(component)).collect(),
                kubelet: kubelet.as_ref().map(|_| machine.kubelet.disk.clone()),
                emulates: machine.emulates,
            }
        }
        Work::UploadConfiguration | Work::AddOns(_) => return None,
    })
}

/// What a step that was done reports.
pub(crate) fn outcome(action: &Action, interrupted: Duration) -> StepOutcome {
    let components = match action {
        Action::UpgradeControlPlane(upgrade) => {
            let tag = |component: &ControlPlaneComponent| {
                let image = upgrade.images.iter().find(|image| image.role == component.name());
                let tag = image.and_then(|image| Some(image.reference.rsplit_once(':')?.1.to_owned()));
                tag.unwrap_or_else(|| upgrade.version.to_string())
            };
            upgrade.components.iter().map(|one| format!("{} {}", one.name(), tag(one))).collect()
        }
        Action::RestoreControlPlane(restore) => {
            vec![format!("{} {}", ControlPlaneComponent::KubeApiserver.name(), restore.version)]
        }
        _ => return StepOutcome::Done,
    };
    StepOutcome::Swapped {
        interrupted_milliseconds: u64::try_from(interrupted.as_millis()).unwrap_or(u64::MAX),
        components,
        difference: String::new(),
    }
}

/// A step without a program: it fetches or reads.
pub(crate) fn fetched(world: &mut World, id: u32, assignment: &Assignment) -> Result<StepOutcome, Failure> {
    match &assignment.action {
        Action::Prefetch { files, images, .. } => {
            let images: Vec<Text> = images.iter().map(|image| image.reference.as_str().into()).collect();
            let files: Vec<Text> = files.iter().map(|file| file.sha256.as_str().into()).collect();
            world.stage(id, images, files);
            Ok(StepOutcome::Done)
        }
        Action::CollectLogs => Ok(StepOutcome::Logs { text: "a simulated machine keeps no journal\n".to_owned() }),
        other => Err(Failure::from(
            Problem::new(Code::StepKindMissing)
                .with("node", &assignment.node)
                .with("version", env!("CARGO_PKG_VERSION"))
                .with("kind", other.kind()),
        )),
    }
}
