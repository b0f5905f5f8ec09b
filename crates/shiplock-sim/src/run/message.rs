//! Messages between agents and servers, on a network that loses, doubles and delays them.

use std::sync::Arc;
use std::time::Duration;

use shiplock_server::driver::machine::Input;

use super::Simulation;
use super::agent::{self, Line, Message, Reply};
use super::event::Event;
use super::server::Exchange;

impl Simulation {
    pub(super) fn delay(&mut self) -> Duration {
        let (least, most) = self.network.delay_milliseconds;
        let late = if self.chance(self.network.late) { self.between(100, 40_000) } else { 0 };
        Duration::from_millis(self.between(u64::from(least), u64::from(most)) + late)
    }

    pub(super) fn send(&mut self, node: u32, life: u32, line: Line, message: Message) {
        self.exchanges += 1;
        let exchange = Exchange { node, life, number: self.exchanges };
        if let Some(Some(agent)) = self.agents.get_mut(node as usize) {
            agent.open.insert(line, exchange.number);
        }
        let server = self.address;
        if line != Line::Tell {
            self.queue(agent::ANSWER_LIMIT, Event::Unanswered { exchange, line, message: Box::new(message.clone()) });
        }
        let lost = self.chance(self.network.loss) || self.faults.cut_off.contains(&node);
        if lost {
            return;
        }
        let after = self.delay();
        if self.chance(self.network.twice) {
            let again = self.delay();
            self.queue(again, Event::ToServer { server, exchange, line, message: Box::new(message.clone()) });
        }
        self.queue(after, Event::ToServer { server, exchange, line, message: Box::new(message) });
    }

    pub(super) fn send_reply(&mut self, exchange: Exchange, reply: Reply) {
        let lost = self.chance(self.network.loss) || self.faults.cut_off.contains(&exchange.node);
        if lost {
            return;
        }
        let line = match &reply {
            Reply::Poll { .. } => Line::Poll,
            Reply::Permit { .. } => Line::Permit,
            Reply::Report { .. } => Line::Report,
        };
        let after = self.delay();
        let sent_machine = self.told.remove(&exchange.number);
        self.queue(after, Event::ToAgent { exchange, line, reply: Box::new(reply), sent_machine });
    }

    pub(super) fn server_receives(&mut self, index: usize, exchange: Exchange, line: Line, message: Message) {
        let Some(node) =
            self.agents.get(exchange.node as usize).and_then(Option::as_ref).map(|agent| agent.name.clone())
        else {
            return;
        };
        if !self.servers[index].up {
            // The connection is refused: the agent knows at once.
            return self
                .queue(Duration::from_millis(1), Event::Unanswered { exchange, line, message: Box::new(message) });
        }
        let clock = self.servers[index].clock(self.now);
        match message {
            Message::Poll { machine, in_work } => {
                let sent = machine.is_some();
                let heard = self.servers[index].seats.heard(&node, machine, clock);
                self.servers[index].agents_changed();
                if heard.is_news {
                    self.feed(index, Input::Tick);
                }
                if sent {
                    self.told.insert(exchange.number);
                }
                if heard.send_machine {
                    return self.send_reply(exchange, Reply::Poll { assignment: None, send_machine: true });
                }
                let life = self.servers[index].life;
                self.servers[index].polls.insert(node.clone(), (exchange, in_work));
                let mut wishes = Vec::new();
                self.servers[index].answer_poll(&node, &mut wishes);
                if wishes.is_empty() {
                    let hold = Duration::from_secs(shiplock_api::agent::POLL_HOLD_SECONDS);
                    self.queue(hold, Event::PollEnds { server: index, life, exchange, node });
                }
                self.grant(index, wishes);
            }
            Message::Permit(request) => {
                self.servers[index].seats.heard(&node, None, clock);
                let now = self.now;
                let wishes = self.servers[index].permit(exchange, request, now);
                self.grant(index, wishes);
            }
            Message::Report(report) => {
                let machine = match &report.kind {
                    shiplock_api::agent::ReportKind::Succeeded { machine, .. } => Some(Arc::new((**machine).clone())),
                    _ => None,
                };
                self.say(|| format!("agent {node} reports step {}: {}", report.id.step, agent::word(&report.kind)));
                self.servers[index].seats.heard(&node, machine, clock);
                let now = self.now;
                let wishes = self.servers[index].report(exchange, report, now);
                self.grant(index, wishes);
            }
        }
    }

    /// Closes a line of an agent, where it lives still and waits for this very exchange on it.
    fn closes(&mut self, exchange: &Exchange, line: &Line) -> bool {
        if self.agent(exchange.node, exchange.life).is_none() {
            return false;
        }
        let Some(Some(agent)) = self.agents.get_mut(exchange.node as usize) else { return false };
        if agent.open.get(line) != Some(&exchange.number) {
            return false;
        }
        agent.open.remove(line);
        true
    }

    pub(super) fn agent_receives(&mut self, exchange: Exchange, line: Line, reply: Reply, sent_machine: bool) {
        if !self.closes(&exchange, &line) {
            return;
        }
        let node = exchange.node;
        self.with_agent(node, |agent, world| agent.reply(reply, sent_machine, world, node));
    }

    pub(super) fn unanswered(&mut self, exchange: Exchange, line: Line, message: &Message) {
        if !self.closes(&exchange, &line) {
            return;
        }
        let node = exchange.node;
        self.with_agent(node, |agent, world| agent.unanswered(line, message, world, node));
    }
}
