//! The agents of simulated nodes: the production loop, machine, fence and way to the server; only what a step does happens
//! in the world.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use shiplock_agent::enrolment::enrol;
use shiplock_agent::gateway::{HttpsGateway, parse_pin};
use shiplock_agent::journal::{Record, RecordLog};
use shiplock_agent::machine::Machine;
use shiplock_agent::node_loop::{NodeLoop, Workplace};
use shiplock_agent::steps::backup_etcd::BackupMessage;
use shiplock_agent::steps::{Failure, StepEvent, unit_prefix};
use shiplock_api::agent::{Assignment, AssignmentId, EtcdSnapshot};
use shiplock_core::facts::examination::{NodeExamination, NodeQuestion};
use shiplock_core::facts::{ControlPlaneFacts, MachineFacts, Observed};
use shiplock_core::id::NodeName;
use shiplock_core::plan::hexadecimal;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::Action;
use shiplock_core::upgrade::StepOutcome;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;

use super::cluster::Cluster;
use super::examination::examine;
use crate::machine::etcd_facts;
use crate::step;
use crate::world::{UnitState, World};

/// All agents of a demo, on a thread of their own: like the agent's process, they are made for one thread.
#[derive(Debug)]
pub struct Agents {
    /// Dropped, it ends them.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// A node that is to join: its cluster, and the one-time token of its agent.
#[derive(Clone, Debug)]
pub struct Joining {
    /// The cluster.
    pub cluster: Arc<Cluster>,
    /// The tokens, one for each node.
    pub tokens: Vec<String>,
}

impl Agents {
    /// Enrols an agent for each node of the clusters at a server, and starts them. `folder` is for what they put down for
    /// a moment.
    pub async fn join(joining: Vec<Joining>, server: &str, ca_pin: &str, folder: PathBuf) -> Result<Self, Problem> {
        let pin = parse_pin(ca_pin).map_err(|why| Problem::new(Code::Internal).with("what", why))?;
        let server = server.to_owned();
        let (stop, stopped) = oneshot::channel();
        let (told, enrolled) = oneshot::channel();
        let internal = |error: io::Error| {
            Problem::new(Code::Internal).with("what", "the thread of the simulated agents").because(&error)
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(internal)?;
        let work = move || {
            let tasks = LocalSet::new();
            let begin = async {
                let mut starting = Vec::new();
                for Joining { cluster, tokens } in joining {
                    for ((id, node), token) in cluster.nodes().into_iter().zip(tokens) {
                        let (cluster, server, folder) = (cluster.clone(), server.clone(), folder.clone());
                        starting.push(async move { start(&cluster, id, node, &server, pin, &token, folder).await });
                    }
                }
                futures::future::try_join_all(starting).await.map(drop)
            };
            tasks.block_on(&runtime, async {
                // Whoever asked may have given up meanwhile.
                let _ = told.send(begin.await);
                let _ = stopped.await;
            });
            // A request that is cut off gives its connection back to the client, which asks for the runtime.
            let within = runtime.enter();
            drop(tasks);
            drop(within);
        };
        let thread = thread::Builder::new().name("simulated-agents".to_owned()).spawn(work).map_err(internal)?;
        let agents = Self { stop: Some(stop), thread: Some(thread) };
        let gone = || Problem::new(Code::Internal).with("what", "the simulated agents ended");
        enrolled.await.map_err(|_| gone())??;
        Ok(agents)
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn start(
    cluster: &Arc<Cluster>,
    id: u32,
    node: NodeName,
    server: &str,
    pin: [u8; 32],
    token: &str,
    folder: PathBuf,
) -> Result<(), Problem> {
    let unknown = || Problem::new(Code::Internal).with("what", "a simulated machine is off");
    let facts = cluster.machine_facts(id).ok_or_else(unknown)?;
    let (machine_id, boot_id) = (facts.machine_id.to_string(), facts.boot_id.clone());
    let identity = enrol(server, pin, token, &node, facts).await?;
    let gateway = Rc::new(HttpsGateway::enrolled(&identity)?);
    let machine = Machine::recover(node.clone(), machine_id, boot_id, Vec::new());
    let place = Rc::new(SimulatedPlace { cluster: cluster.clone(), id, folder });
    let agent = NodeLoop::new(place, gateway, Forgetful, machine, node);
    tokio::task::spawn_local(agent.run());
    Ok(())
}

/// Simulated agents live as long as their demo: nothing is recovered from a journal.
struct Forgetful;

impl RecordLog for Forgetful {
    fn append(&mut self, _: &Record) -> io::Result<()> {
        Ok(())
    }
}

/// A simulated machine.
struct SimulatedPlace {
    cluster: Arc<Cluster>,
    id: u32,
    folder: PathBuf,
}

impl SimulatedPlace {
    async fn after(&self, simulated: Duration) {
        tokio::time::sleep(self.cluster.clock.real(simulated)).await;
    }

    /// Sends an event with a way for its answer, and waits for that; without one the step is dropped.
    async fn ask<T>(
        &self,
        events: &mpsc::UnboundedSender<StepEvent>,
        event: impl FnOnce(oneshot::Sender<T>) -> StepEvent,
    ) -> T {
        let (answer, answered) = oneshot::channel();
        let _ = events.send(event(answer));
        match answered.await {
            Ok(answer) => answer,
            Err(_) => std::future::pending().await,
        }
    }

    /// A snapshot goes to the server as a real one does: announced, sealed there, kept. What is in it is made up.
    async fn back_up(
        &self,
        assignment: &Assignment,
        events: &mpsc::UnboundedSender<StepEvent>,
    ) -> Result<StepOutcome, Failure> {
        let find = BackupMessage::Find { size_bytes: 0 };
        let found = self.ask(events, |answer| StepEvent::Backup { message: find, answer }).await;
        if let Ok(Some(kept)) = found {
            return Ok(kept.into());
        }
        self.after(Duration::from_secs(3)).await;
        let (revision, keys) = self.cluster.shared.look(|world| (world.version(), world.pods().len() as u64));
        let content = format!("the simulated etcd of {} at revision {revision}\n", self.cluster.name).repeat(64);
        let failed = |why: &dyn Display| Failure {
            problem: Box::new(Problem::new(Code::BackupFailed).with("node", &assignment.node).with("why", why)),
            retryable: true,
        };
        let Some(etcd_version) = self.cluster.shared.look(|world| etcd_version(world, self.id)) else {
            return Err(failed(&"its member of etcd does not answer"));
        };
        let path = self.folder.join(format!("{}-{}.db", assignment.node, assignment.id.upgrade));
        std::fs::write(&path, &content).map_err(|error| failed(&error))?;
        let snapshot = EtcdSnapshot {
            sha256: hexadecimal(&Sha256::digest(&content)),
            size_bytes: content.len() as u64,
            hash: 1,
            revision,
            keys,
            etcd_version,
        };
        let send = BackupMessage::Send { snapshot, path: path.clone() };
        let sent = self.ask(events, |answer| StepEvent::Backup { message: send, answer }).await;
        let _ = std::fs::remove_file(path);
        match sent {
            Ok(Some(kept)) => Ok(kept.into()),
            Ok(None) => Err(failed(&"the server took it and does not have it")),
            Err(error) => Err(failed(&format!("{error:?}"))),
        }
    }
}

/// The version of the member on a master; none while it does not serve.
fn etcd_version(world: &World, id: u32) -> Option<String> {
    let Observed::Known(etcd) = etcd_facts(world, id) else { return None };
    etcd.members.into_iter().find(|member| member.id == etcd.own_id)?.healthy_version
}

impl SimulatedPlace {
    fn with<R>(&self, change: impl FnOnce(&mut World) -> R) -> R {
        self.cluster.shared.with(change)
    }

    /// Does a step in the world. One that was to go back after a restart of its agent cannot be: these are not restarted.
    async fn carry_out(
        &self,
        assignment: &Assignment,
        events: &mpsc::UnboundedSender<StepEvent>,
        rolling_back: Option<Problem>,
    ) -> Result<StepOutcome, Failure> {
        if let Some(problem) = rolling_back {
            return Err(problem.into());
        }
        let id = self.id;
        let tell = |phase| {
            let _ = events.send(StepEvent::Progress(phase));
        };
        let program = match &assignment.action {
            Action::RestoreControlPlane(restore) => self.with(|world| step::way_back(world, id, restore)),
            action => step::program(action),
        };
        let Some((program, takes)) = program else {
            tell("downloading");
            self.after(step::FETCH).await;
            return self.with(|world| step::fetched(world, id, assignment));
        };
        tell("preparing");
        if self.with(|world| step::is_reached(world, id, &program)) {
            return Ok(StepOutcome::AlreadyDone);
        }
        self.ask(events, |go| StepEvent::PermitWanted { phase: "swap", go }).await;
        self.with(|world| step::guard(world, id, assignment)).map_err(Failure::retryable)?;
        tell("restarting");
        let begun = tokio::time::Instant::now();
        let old = self.with(|world| {
            let old = step::before(world, id, &program);
            let kept = &assignment.id;
            let kept = step::kept_name(&kept.upgrade, kept.step, kept.generation.intent);
            if let Some(old) = &old {
                world.change_machine(id, |machine| machine.kept.push((kept.into(), old.clone())));
            }
            world.start_unit(id, &step::unit(assignment, "act"), program.clone(), takes);
            old
        });
        self.until_ended(&step::unit(assignment, "act")).await;
        tell("verifying");
        for _ in 0..step::LOOKS_MAX {
            if self.with(|world| step::is_done(world, id, assignment, &program)) {
                return Ok(step::outcome(&assignment.action, self.cluster.clock.simulated(begun.elapsed())));
            }
            self.after(step::LOOK_EVERY).await;
        }
        let problem = Problem::new(Code::ServiceNotUp)
            .with("service", assignment.action.kind())
            .with("node", &assignment.node)
            .with("state", "not up in the simulated machine");
        let Some(old) = old else { return Err(Failure::retryable(problem)) };
        let why = problem.clone();
        self.ask(events, |go| StepEvent::RollingBack { problem: why, go }).await;
        self.with(|world| world.start_unit(id, &step::unit(assignment, "roll-back"), old, step::BACK));
        self.until_ended(&step::unit(assignment, "roll-back")).await;
        Err(problem.into())
    }

    async fn until_ended(&self, unit: &str) {
        while self.with(|world| step::unit_state(world, self.id, unit)) == Some(UnitState::Running) {
            self.after(step::LOOK_EVERY).await;
        }
    }
}

impl Workplace for SimulatedPlace {
    async fn facts(&self) -> MachineFacts {
        loop {
            if let Some(facts) = self.cluster.machine_facts(self.id) {
                return facts;
            }
            self.after(Duration::from_secs(1)).await;
        }
    }

    async fn control_plane(&self) -> Option<Box<ControlPlaneFacts>> {
        self.facts().await.control_plane
    }

    async fn work(
        &self,
        assignment: Assignment,
        events: mpsc::UnboundedSender<StepEvent>,
        rolling_back: Option<Problem>,
    ) -> Result<StepOutcome, Failure> {
        if matches!(assignment.action, Action::BackupEtcd { .. }) {
            return self.back_up(&assignment, &events).await;
        }
        self.carry_out(&assignment, &events, rolling_back).await
    }

    async fn examine(&self, question: &NodeQuestion) -> Option<NodeExamination> {
        self.cluster.shared.look(|world| examine(world, self.id, question))
    }

    async fn clean(&self, id: &AssignmentId) {
        self.cluster.shared.with(|world| world.clear_units(self.id, &unit_prefix(id)));
    }

    async fn wait(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn note(&self, text: &dyn Display) {
        tracing::debug!(cluster = %self.cluster.name, machine = self.id, "{text}");
    }
}
