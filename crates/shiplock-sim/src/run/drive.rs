//! Server processes: they start, take the lease, drive and are killed.

use std::time::Duration;

use shiplock_core::id::StepNumber;
use shiplock_core::planted::{self, Bug};
use shiplock_core::upgrade::{Event as LogEvent, EventRecord};
use shiplock_server::driver::machine::Input;
use shiplock_server::driver::step::StepInput;
use shiplock_server::driver::{LEASE_RENEWAL, claim_problem};
use shiplock_server::store::{Store as _, StoreError};

use super::event::{DriverId, Event};
use super::server::{self, Server, now_or_never};
use super::transcript::line_of;
use super::{LOOK_EVERY, Simulation};

/// Writes that still fit on a full disk, in thousandths.
const FITS_ON_A_FULL_DISK: u32 = 125;

impl Simulation {
    pub(super) fn server_starts(&mut self, index: usize) {
        let life = self.servers[index].life + 1;
        let skew = self.servers[index].skew;
        self.servers[index] = Server::new(life, self.now);
        self.servers[index].skew = skew;
        self.say(|| format!("server {index} starts"));
        self.supervise(index, life);
        self.queue(LEASE_RENEWAL, Event::Renew { server: index, life });
    }

    pub(super) fn supervise(&mut self, index: usize, life: u32) {
        if !self.servers[index].up || self.servers[index].life != life || self.stopped {
            return;
        }
        if self.now >= self.opens_at && self.servers[index].driver.is_none() && self.store_writes().is_ok() {
            let (now, policy) = (self.now, self.policy);
            let id = self.id.clone();
            if let Some(records) = self.servers[index].take_over(index, &self.store, &id, policy, now) {
                self.note(records);
                self.say(|| format!("server {index} takes the lease"));
                if let Some(driver) = self.driver_id(index) {
                    self.queue_observation(index);
                    self.queue(Duration::from_millis(5), Event::Claim(driver));
                    self.queue(LOOK_EVERY, Event::Look(driver));
                }
            }
        }
        self.queue(Duration::from_secs(2), Event::Supervise { server: index, life });
    }

    pub(super) fn renew(&mut self, index: usize, life: u32) {
        if !self.servers[index].up || self.servers[index].life != life {
            return;
        }
        if self.store_writes().is_ok() {
            let (id, now) = (self.id.clone(), self.now);
            if !self.servers[index].renew(&self.store, &id, now) {
                self.later(index);
            }
        }
        self.queue(LEASE_RENEWAL, Event::Renew { server: index, life });
    }

    /// The driver's loop ends; the supervisor looks again.
    pub(super) fn later(&mut self, index: usize) {
        let id = self.id.clone();
        if let Some(epoch) = self.servers[index].driver.as_ref().map(|driver| driver.epoch)
            && self.store_writes().is_ok()
        {
            // Refused where another has taken it.
            let _ = now_or_never(self.store.release_lease(&id, epoch));
        }
        self.servers[index].drop_driver(&id);
        self.say(|| format!("server {index} stops driving"));
    }

    pub(super) fn feed(&mut self, index: usize, input: Input) {
        let now = self.now;
        let wishes = self.servers[index].feed(input, now);
        self.grant(index, wishes);
        if self.servers[index].wants_newer() {
            self.queue_observation(index);
        }
    }

    pub(super) fn feed_step(&mut self, driver: DriverId, step: StepNumber, attempt: u32, input: StepInput) {
        let mut wishes = Vec::new();
        let now = self.now;
        self.servers[driver.server].feed_step(step, attempt, input, now, &mut wishes);
        self.grant(driver.server, wishes);
    }

    pub(super) fn grant(&mut self, index: usize, wishes: Vec<server::Wish>) {
        for wish in wishes {
            let Some(driver) = self.driver_id(index) else {
                if let server::Wish::Reply(exchange, reply) = wish {
                    self.send_reply(exchange, reply);
                }
                continue;
            };
            match wish {
                server::Wish::Append { expected_len, events } => {
                    let after = self.store_delay();
                    self.queue(after, Event::Append { driver, expected_len, events });
                }
                server::Wish::Ask { step, attempt, number, request } => {
                    self.ask(driver, step, attempt, number, request)
                }
                server::Wish::Rest { step, attempt, rest, at } => {
                    self.queue_at(at, Event::Rested { driver, step, attempt, rest })
                }
                server::Wish::WakeAt(at, wake) => self.queue_at(at, Event::Wakes { driver, wake }),
                server::Wish::Reply(exchange, reply) => self.send_reply(exchange, reply),
                server::Wish::Later => self.later(index),
                server::Wish::Stop(None) => {
                    let id = self.id.clone();
                    let epoch = self.servers[index].driver.as_ref().map(|driver| driver.epoch);
                    self.release_claim(index);
                    self.servers[index].drop_driver(&id);
                    if let Some(epoch) = epoch {
                        let _ = now_or_never(self.store.release_lease(&id, epoch));
                    }
                    self.stopped = true;
                }
                server::Wish::Stop(Some(why)) => self.violate(10, format!("the log cannot be folded: {why}")),
            }
        }
    }

    pub(super) fn store_delay(&mut self) -> Duration {
        let slow = self.faults.store_slow;
        Duration::from_millis(self.between(1, 3)) + slow
    }

    /// Whether the store can write now. As SQLite does, it refuses what a full disk has no room for and goes on reading;
    /// what fits where the write-ahead log was written before is taken still.
    pub(super) fn store_writes(&mut self) -> Result<(), StoreError> {
        let failed = |why: &'static str| Err(StoreError::Failed { operation: "write", source: why.into() });
        if self.faults.store_down {
            return failed("the disk does not answer");
        }
        if self.faults.store_full && !self.chance(FITS_ON_A_FULL_DISK) {
            return failed("database or disk is full");
        }
        Ok(())
    }

    pub(super) fn append(&mut self, driver: DriverId, expected_len: u64, events: &[LogEvent]) {
        let held = &self.servers[driver.server];
        // A server that was ended before its append reached the store sent nothing.
        if held.life != driver.life {
            return;
        }
        let Some(epoch) = held.driver.as_ref().filter(|held| held.number == driver.number).map(|held| held.epoch)
        else {
            return;
        };
        let clock = held.clock(self.now);
        let id = self.id.clone();
        let result =
            self.store_writes().and_then(|()| now_or_never(self.store.append(&id, expected_len, epoch, clock, events)));
        if let Ok(records) = &result {
            self.note(records.clone());
        }
        let failed = matches!(result, Err(StoreError::Failed { .. }));
        self.appends_on_full_disk += u64::from(failed && self.faults.store_full);
        let input = self.servers[driver.server].appended(result, &self.store, &id).map(Box::new);
        let after = if failed { Duration::from_secs(1) } else { Duration::from_millis(self.between(0, 1)) };
        self.queue(after, Event::Appended { driver, input });
    }

    /// Records were appended by anybody: the observer's fold follows, and each must fit.
    pub(super) fn note(&mut self, records: Vec<EventRecord>) {
        for record in records {
            self.fingerprint = (self.fingerprint ^ record.number).wrapping_mul(0x0100_0000_01b3);
            if let Err(illegal) = self.log.advance(&record) {
                self.violate(10, illegal.to_string());
            }
            if self.transcript.is_some() {
                let line = line_of(&record, &self.log);
                self.say(|| line);
            }
            self.fresh.push(record);
        }
    }

    pub(super) fn observe(&mut self, driver: DriverId) {
        if !self.is_current(driver) {
            return;
        }
        if let Some(held) = self.servers[driver.server].driver.as_mut() {
            held.look_queued = false;
        }
        let observed = self.observed(driver.server);
        let failed = observed.as_ref().map_or(true, |facts| facts.observed_at < self.world.now().timestamp());
        let (version, now) = (self.world.version(), self.now);
        let server = &mut self.servers[driver.server];
        server.observe(observed, version, now);
        let mut wishes = Vec::new();
        server.cut_rests(now, &mut wishes);
        self.grant(driver.server, wishes);
        self.feed(driver.server, Input::Tick);
        if failed
            && self.is_current(driver)
            && let Some(held) = self.servers[driver.server].driver.as_mut()
            && !held.look_queued
        {
            held.look_queued = true;
            self.queue(Duration::from_secs(1), Event::Observe(driver));
        }
    }

    /// The claim is refreshed when the log has grown.
    pub(super) fn claim_moves(&mut self, driver: DriverId) {
        if !self.is_current(driver) {
            return;
        }
        let Some(held) = self.servers[driver.server].driver.as_mut() else { return };
        let len = held.machine.upgrade().len;
        if held.claimed && !held.claim_resting && held.claim_len != len {
            held.claim_resting = true;
            self.queue(Duration::from_secs(1), Event::Claim(driver));
        }
    }

    pub(super) fn claim(&mut self, driver: DriverId) {
        if !self.is_current(driver) {
            return;
        }
        let Some(held) = self.servers[driver.server].driver.as_mut() else { return };
        held.claim_resting = false;
        let len = held.machine.upgrade().len;
        held.claim_len = len;
        let upgrade = held.machine.upgrade().id.clone();
        let claimed = held.claimed;
        let clock = self.servers[driver.server].clock(self.now);
        let outcome = self.claim_cluster(driver.server, &upgrade, len, clock);
        let input = match outcome {
            Ok(outcome) => {
                let Some(held) = self.servers[driver.server].driver.as_mut() else { return };
                let problem =
                    claim_problem(outcome, held.machine.upgrade()).filter(|_| !planted::is(Bug::LeaseIgnored));
                held.claimed |= problem.is_none();
                if problem.is_some() {
                    held.steps.clear();
                }
                let after = if problem.is_none() { 10 } else { 1 };
                self.queue(Duration::from_secs(after), Event::ClaimAgain(driver));
                Input::Claim(problem)
            }
            Err(problem) => {
                self.queue(Duration::from_secs(1), Event::ClaimAgain(driver));
                if claimed { Input::Tick } else { Input::Claim(Some(problem)) }
            }
        };
        self.feed(driver.server, input);
    }

    /// Ends a server process; it is started again after a while.
    pub fn crash_server(&mut self, index: usize, back_after: Duration) {
        self.servers[index].up = false;
        self.servers[index].life += 1;
        self.servers[index].driver = None;
        self.servers[index].polls.clear();
        if let Some(gateway) = self.gateways.get_mut(index) {
            gateway.forget(&mut self.world);
        }
        self.say(|| format!("server {index} is killed"));
        self.queue(back_after, Event::ServerStarts(index));
    }
}
