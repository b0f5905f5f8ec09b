//! Operators.

use std::collections::BTreeSet;
use std::time::Duration;

use shiplock_core::id::{Actor, ClusterName, NodeName, UpgradeId};
use shiplock_core::plan::Plan;
use shiplock_core::upgrade::{Event as LogEvent, State};
use shiplock_server::driver::machine::Input;
use shiplock_server::http::control::{Control, judge};
use shiplock_server::store::{NewUpgrade, Store as _};

use super::event::Event;
use super::server::now_or_never;
use super::{CLUSTER, Operation, Simulation};

/// After everything was mended a person looks this often.
pub(super) const TEND_EVERY: Duration = Duration::from_secs(40);
/// So often they continue what is paused; then they cancel, giving up the nodes that are waited for.
const CONTINUES_MAX: u32 = 8;

impl Simulation {
    pub(super) fn operator(&mut self, operation: &Operation) {
        let by = Actor::from("operator");
        let control = match operation {
            Operation::Pause => Control::Pause,
            Operation::Continue => Control::Continue,
            Operation::Cancel(abandon) => {
                Control::Cancel { abandon: abandon.iter().map(|node| NodeName::new(node.clone())).collect() }
            }
            Operation::MaxParallel(bound) => Control::ChangeMaxParallel { max_parallel: *bound },
            Operation::SecondUpgrade => return self.second_upgrade(),
        };
        let answer = judge(&self.log, &control, &by);
        let event = match answer {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(problem) => {
                let what = format!("operator: {operation:?} is refused: {problem}");
                return self.say(|| what);
            }
        };
        let (id, len, at) = (self.id.clone(), self.log.len, self.now.timestamp());
        let appended =
            self.store_writes().and_then(|()| now_or_never(self.store.append_request(&id, len, at, &[event])));
        match appended {
            Ok(records) => self.note(records),
            Err(error) => {
                let what = format!("operator: {operation:?} is not recorded: {}", error.into_problem());
                return self.say(|| what);
            }
        }
        // Whoever drives it is woken.
        for index in 0..self.servers.len() {
            if let Some(driver) = self.driver_id(index) {
                let known = self.servers[index].driver.as_ref().map_or(0, |driver| driver.machine.upgrade().len);
                if let Ok(records) = now_or_never(self.store.events(&id, known, 1000)) {
                    self.queue(
                        Duration::from_millis(1),
                        Event::Appended { driver, input: Some(Box::new(Input::Grown(records))) },
                    );
                }
            }
        }
    }

    /// A person continues what is paused, and gives up in the end.
    pub(super) fn tend(&mut self, times: u32) {
        // Agents are sent to the server that drives.
        if let Some(driving) = self.servers.iter().position(|server| server.driver.is_some()) {
            self.address = driving;
        }
        if matches!(self.log.state, State::Paused { .. } | State::Blocked) {
            if times <= CONTINUES_MAX {
                self.operator(&Operation::Continue);
            } else {
                let nodes: BTreeSet<String> =
                    self.log.in_flight().filter_map(|(step, ..)| step.target.node()).map(ToString::to_string).collect();
                self.operator(&Operation::Cancel(nodes.into_iter().collect()));
            }
        }
        self.queue(TEND_EVERY, Event::Tend(times + 1));
    }

    /// A second upgrade of the cluster must be refused while one is active.
    pub(super) fn second_upgrade(&mut self) {
        let event = LogEvent::Planned { plan: Box::new(Plan::clone(&self.log.plan)), by: Actor::from("another") };
        let new = NewUpgrade {
            id: UpgradeId::from("u2"),
            cluster: ClusterName::from(CLUSTER),
            event,
            now: self.now.timestamp(),
            idempotency_key: None,
        };
        let made = self.store_writes().and_then(|()| now_or_never(self.store.create_upgrade(&new)));
        if made.is_ok() && !self.log.state.is_terminal() {
            self.violate(17, "a second upgrade of the cluster was begun beside an active one".to_owned());
        }
    }
}
