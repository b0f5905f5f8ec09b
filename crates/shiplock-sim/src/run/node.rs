//! Agent processes and their machines: they start, write their journals and are killed.

use std::sync::Arc;
use std::time::Duration;

use super::agent::{self, Agent, Line};
use super::event::Event;
use super::{Act, Simulation};
use crate::world::World;

impl Simulation {
    pub(super) fn agent(&self, node: u32, life: u32) -> Option<&Agent> {
        self.agents.get(node as usize)?.as_ref().filter(|agent| agent.up && agent.life == life)
    }

    pub(super) fn agent_starts(&mut self, node: u32) {
        let slots = node as usize + 1;
        if self.agents.len() < slots {
            self.agents.resize(slots, None);
        }
        if self.agents[node as usize].as_ref().is_some_and(|agent| agent.up) {
            return;
        }
        let life = self.agents[node as usize].as_ref().map_or(0, |agent| agent.life) + 1;
        // As the journal's file is opened: a torn tail is cut off.
        if let Some(machine) = self.world.machine(node) {
            let (_, whole) = shiplock_agent::journal::read_records(&machine.journal);
            if whole < machine.journal.len() {
                self.world.change_machine(node, |machine| Arc::make_mut(&mut machine.journal).truncate(whole));
            }
        }
        let Some(agent) = Agent::new(&self.world, node, life) else {
            // Without power it comes with the next boot.
            return self.queue(Duration::from_secs(5), Event::AgentStarts(node));
        };
        self.agents[node as usize] = Some(agent);
        self.with_agent(node, |agent, world| agent.start(world, node));
    }

    pub(super) fn with_agent(&mut self, node: u32, act: impl FnOnce(&mut Agent, &mut World) -> Vec<agent::Wish>) {
        let Some(mut agent) = self.agents.get_mut(node as usize).and_then(Option::take) else { return };
        let run_before = agent.work.as_ref().map(|work| work.run);
        let wishes = act(&mut agent, &mut self.world);
        if let Some(work) = agent.work.as_ref().filter(|work| Some(work.run) != run_before) {
            self.acts.push(Act::Begun { node, assignment: work.assignment.clone() });
        }
        let life = agent.life;
        let run = agent.work.as_ref().map_or(0, |work| work.run);
        self.agents[node as usize] = Some(agent);
        for wish in wishes {
            match wish {
                agent::Wish::Send(line, message) => self.send(node, life, line, message),
                agent::Wish::Journal(bytes) => {
                    let Some(machine) = self.world.machine(node) else { continue };
                    if machine.faults.disk_full {
                        // What cannot be written down is not done: the agent ends and is started again.
                        self.crash_agent(node, Duration::from_secs(10));
                        return;
                    }
                    let after = machine.disk_sync + self.faults.disk_slow;
                    self.queue(after, Event::Journal { node, life, bytes: Arc::new(bytes) });
                }
                agent::Wish::Work(after) => self.queue(after, Event::AgentWorks { node, life, run }),
                agent::Wish::Again(line, after) => self.queue(after, Event::AgentLine { node, life, line }),
                agent::Wish::Tick(at) => self.queue_at(at, Event::AgentTick { node, life }),
            }
        }
    }

    pub(super) fn agent_line(&mut self, node: u32, life: u32, line: Line) {
        if self.agent(node, life).is_none() {
            return;
        }
        let Some(Some(agent)) = self.agents.get_mut(node as usize) else { return };
        if let Some(message) = agent.again(line, &self.world, node) {
            self.send(node, life, line, message);
        }
    }

    /// Ends an agent process. Its units go on; it is started again after a while.
    pub fn crash_agent(&mut self, node: u32, back_after: Duration) {
        self.torn(node, false);
        if let Some(Some(agent)) = self.agents.get_mut(node as usize) {
            agent.up = false;
            agent.life += 1;
        }
        self.queue(back_after, Event::AgentStarts(node));
    }

    /// A machine loses its power and boots again.
    pub fn crash_node(&mut self, node: u32) {
        self.torn(node, true);
        self.world.reboot(node);
        if let Some(Some(agent)) = self.agents.get_mut(node as usize) {
            agent.up = false;
            agent.life += 1;
        }
        self.queue(Duration::from_secs(5), Event::AgentStarts(node));
    }

    /// A record that was being written is on disk in part: a process that ends leaves all or nothing of it, a machine
    /// without power any number of its sectors.
    pub(super) fn torn(&mut self, node: u32, power: bool) {
        let Some(life) = self.agents.get(node as usize).and_then(Option::as_ref).map(|agent| agent.life) else {
            return;
        };
        let pending = self.queue.iter().find_map(|queued| match &queued.0.event {
            Event::Journal { node: of, life: held, bytes } if *of == node && *held == life => Some(bytes.clone()),
            _ => None,
        });
        let Some(bytes) = pending else { return };
        const SECTOR: usize = 512;
        let sectors = bytes.len().div_ceil(SECTOR);
        let kept = if power {
            self.between(0, sectors as u64) as usize * SECTOR
        } else if self.chance(500) {
            bytes.len()
        } else {
            0
        };
        let kept = kept.min(bytes.len());
        self.keep_of_journal(node, &bytes[..kept]);
    }

    pub(super) fn keep_of_journal(&mut self, node: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.world.change_machine(node, |machine| Arc::make_mut(&mut machine.journal).extend_from_slice(bytes));
        }
    }

    /// The names of nodes by id.
    pub(crate) fn node_name(&self, node: u32) -> String {
        self.world.machine(node).map(|machine| machine.name.to_string()).unwrap_or_default()
    }
}
