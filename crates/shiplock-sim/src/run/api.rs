//! The API server as a server of ours reaches it: requests that take time, fail, and meet other writers.

use std::time::Duration;

use jiff::Timestamp;
use shiplock_cluster::fence::{self, HeldClaim, Wanted};
use shiplock_cluster::port::{Claim, ClaimOutcome, DrainPod, Eviction};
use shiplock_core::facts::{ClusterFacts, NodeOwner};
use shiplock_core::id::{NodeName, UpgradeId};
use shiplock_core::planted::{self, Bug};
use shiplock_core::problem::{Code, Problem};
use shiplock_server::driver::step::{Answer, Request};

use super::gateway::Weather;
use super::server::no_answer;
use super::{Act, Ask, DriverId, Event, Simulation, Write};
use crate::world::{Lease, Moment, OWNER_ANNOTATION, Text, World, uuid_number};

/// A patch may find the node changed this often, as in `shiplock_cluster::ownership`.
const ROUNDS_MAX: u32 = 5;
const NAMESPACE: &str = "kube-upgrade";
const NAME: &str = "shiplock";
const UPGRADE: &str = "shiplock.dev/upgrade";
const EVENT: &str = "shiplock.dev/event";
const ENDED: &str = "shiplock.dev/ended";
/// The installation of the simulated servers.
const INSTALLATION: &str = "sim";

/// What a request may change, before it is made.
enum Touched {
    Node { id: u32, mark: Option<Text>, unschedulable: bool },
    Pod { uid: u128, namespace: String, name: String, node: Option<u32>, forced: bool },
}

impl Touched {
    /// None where it changes nothing, or there is nothing to be changed.
    fn of(request: &Request, world: &World) -> Option<Self> {
        match request {
            Request::Cordon { node, .. } | Request::Uncordon { node, .. } => {
                let id = world.nodes().id("", node.as_str())?;
                let (mark, unschedulable) = mark_of(id, world)?;
                Some(Self::Node { id, mark, unschedulable })
            }
            Request::Evict(pod) | Request::Delete(pod) => {
                let found = world.pods().find(&pod.namespace, &pod.name)?;
                let forced = matches!(request, Request::Delete(_));
                let (namespace, name) = (pod.namespace.to_string(), pod.name.to_string());
                let (uid, node) = (found.meta.uid, found.node);
                found.deletion.is_none().then_some(Self::Pod { uid, namespace, name, node, forced })
            }
            Request::Facts | Request::Node(_) | Request::PodsOn(_) => None,
        }
    }

    /// What was done, if anything was.
    fn act(self, ask: &Ask, world: &World) -> Option<Act> {
        let epoch = ask.epoch.0;
        match self {
            Self::Node { id, mark, unschedulable } => {
                let (mark_now, cordoned) = mark_of(id, world)?;
                let others_before = mark.is_none() && unschedulable;
                let changed = mark_now != mark || cordoned != unschedulable;
                changed.then_some(Act::Marked { node: id, epoch, cordoned, others_before })
            }
            Self::Pod { uid, namespace, name, node, forced } => {
                let stays = world
                    .pods()
                    .find(&namespace, &name)
                    .is_some_and(|pod| pod.meta.uid == uid && pod.deletion.is_none());
                (!stays).then_some(Act::Evicted { uid, node, forced, epoch })
            }
        }
    }
}

fn mark_of(node: u32, world: &World) -> Option<(Option<Text>, bool)> {
    let node = world.nodes().get(node)?;
    Some((node.meta.annotations.get(OWNER_ANNOTATION).cloned(), node.unschedulable))
}

impl Simulation {
    /// Whether the API answers a request now, by its luck.
    fn api_fault(&mut self) -> Option<Code> {
        if self.faults.api_down || !self.world.api_answers() {
            return Some(Code::ClusterUnreachable);
        }
        let thousandths = self.faults.api_errors;
        self.chance(thousandths).then_some(Code::ClusterAnswer)
    }

    fn weather(&self) -> Weather {
        Weather { is_down: self.faults.api_down, errors: self.faults.api_errors }
    }

    pub(super) fn observed(&mut self, server: usize) -> Result<ClusterFacts, Problem> {
        let weather = self.weather();
        if let Some(gateway) = self.gateways.get_mut(server) {
            return gateway.facts(&mut self.world, weather);
        }
        match self.api_fault() {
            Some(code) => Err(Problem::new(code).with("cluster", "sim")),
            None => Ok(self.world.cluster_facts(false)),
        }
    }

    /// A step of the server asks: what caches know is answered at once, everything else travels.
    pub(super) fn ask(
        &mut self,
        driver: DriverId,
        step: shiplock_core::id::StepNumber,
        attempt: u32,
        number: u64,
        request: Request,
    ) {
        let Some(epoch) = self.servers[driver.server].driver.as_ref().map(|held| held.epoch) else { return };
        let ask = Ask { driver, epoch, step, attempt, number, request, rounds: 0 };
        let cached = self.servers[driver.server].cached_answer(&ask.request).filter(|_| self.gateways.is_empty());
        if let Some(answer) = cached {
            return self.queue(Duration::ZERO, Event::Answered { ask: Box::new(ask), answer: Box::new(answer) });
        }
        if ask.request.acts() && !self.servers[driver.server].may_act(self.now) {
            return self
                .queue(Duration::ZERO, Event::Answered { ask: Box::new(ask), answer: Box::new(Answer::HeldBack) });
        }
        let after = Duration::from_millis(self.between(1, 5)) + self.faults.api_slow;
        self.queue(after, Event::Api { ask: Box::new(ask), write: None });
    }

    fn answer(&mut self, ask: Ask, answer: Answer) {
        // An answer may be lost on its way: the request has had its effect, and the client is told of a broken connection.
        let thousandths = self.faults.api_errors / 2;
        let answer = if self.chance(thousandths) {
            no_answer(&ask.request, &self.world, Code::ClusterUnreachable)
        } else {
            answer
        };
        let after = Duration::from_millis(self.between(1, 5));
        self.queue(after, Event::Answered { ask: Box::new(ask), answer: Box::new(answer) });
    }

    pub(super) fn api(&mut self, ask: Ask, write: Option<Box<Write>>) {
        if !self.gateways.is_empty() {
            return self.api_through_gateway(ask);
        }
        if let Some(code) = self.api_fault() {
            let answer = no_answer(&ask.request, &self.world, code);
            return self.answer(ask, answer);
        }
        if let Some(write) = write {
            return self.patch(ask, *write);
        }
        match ask.request.clone() {
            Request::Facts => {
                let facts = self.world.cluster_facts(false);
                self.answer(ask, Answer::Facts(Ok(std::sync::Arc::new(facts))));
            }
            Request::Node(node) => {
                let found = self.world.nodes().find("", node.as_str()).map(|node| self.world.node_facts(node));
                self.answer(ask, Answer::Node(Ok(found)));
            }
            Request::PodsOn(node) => {
                let pods = self.world.nodes().id("", node.as_str()).map(|node| self.world.drain_pods(node));
                self.answer(ask, Answer::PodsOn(Ok(pods.unwrap_or_default())));
            }
            Request::Cordon { node, uid, owner } => self.mark_node(ask, &node, uid.as_str(), &owner, true),
            Request::Uncordon { node, uid, owner } => self.mark_node(ask, &node, uid.as_str(), &owner, false),
            Request::Evict(pod) => {
                let answer = self.evict(&ask, &pod, false);
                self.answer(ask, Answer::Eviction(Ok(answer)));
            }
            Request::Delete(pod) => {
                let answer = self.evict(&ask, &pod, true);
                self.answer(ask, Answer::Eviction(Ok(answer)));
            }
        }
    }

    /// The production client does the request, and the checkers are told what it came to.
    fn api_through_gateway(&mut self, ask: Ask) {
        let weather = self.weather();
        let skew = self.servers[ask.driver.server].skew;
        let before = Touched::of(&ask.request, &self.world);
        let Some(gateway) = self.gateways.get_mut(ask.driver.server) else { return };
        let (mut answer, took) = gateway.carry_out(&mut self.world, weather, ask.request.clone());
        if let Some(before) = before {
            self.acts.extend(before.act(&ask, &self.world));
        }
        if let Answer::Facts(Ok(facts)) = &mut answer {
            let facts = std::sync::Arc::make_mut(facts);
            facts.observed_at = facts.observed_at.checked_add(skew).unwrap_or(facts.observed_at);
        }
        let after = Duration::from_millis(self.between(1, 5)) + took;
        self.queue(after, Event::Answered { ask: Box::new(ask), answer: Box::new(answer) });
    }

    fn evict(&mut self, ask: &Ask, pod: &DrainPod, forced: bool) -> Eviction {
        let uid = uuid_number(pod.uid.as_str());
        let found = self.world.pods().find(&pod.namespace, &pod.name).cloned();
        let node = found.as_ref().and_then(|found| found.node);
        let fresh = found.as_ref().is_some_and(|found| found.deletion.is_none());
        let answer = self.world.take_pod(pod, forced);
        if answer == Eviction::Accepted && fresh {
            let uid = uid.unwrap_or_default();
            self.acts.push(Act::Evicted { uid, node, forced, epoch: ask.epoch.0 });
        }
        answer
    }

    /// Reads the node and decides what to write, as `ownership` does.
    fn mark_node(&mut self, ask: Ask, name: &NodeName, uid: &str, owner: &NodeOwner, cordons: bool) {
        use shiplock_cluster::port::{Cordon, Uncordon};
        let gone =
            if cordons { Answer::Cordon(Ok(Cordon::NodeGone)) } else { Answer::Uncordon(Ok(Uncordon::NodeGone)) };
        let Some(id) = self.world.nodes().id("", name.as_str()) else { return self.answer(ask, gone) };
        let Some(node) = self.world.nodes().get(id).cloned() else { return self.answer(ask, gone) };
        if uuid_number(uid) != Some(node.meta.uid) && !planted::is(Bug::UidNotCompared) {
            return self.answer(ask, gone);
        }
        let mark = node.meta.annotations.get(OWNER_ANNOTATION).map(|text| &**text);
        let lost = |epoch| Problem::new(Code::LeaseLost).with("upgrade", &owner.upgrade).with("epoch", epoch);
        let (write, answer) = if cordons {
            match fence::cordon(mark, node.unschedulable, owner) {
                Wanted::Nothing(result) => return self.answer(ask, Answer::Cordon(Ok(result))),
                Wanted::Overtaken(epoch) => return self.answer(ask, Answer::Cordon(Err(lost(epoch)))),
                Wanted::Write(write, result) => (write, Answer::Cordon(Ok(result))),
            }
        } else {
            match fence::uncordon(mark, owner) {
                Wanted::Nothing(result) => return self.answer(ask, Answer::Uncordon(Ok(result))),
                Wanted::Overtaken(epoch) => return self.answer(ask, Answer::Uncordon(Err(lost(epoch)))),
                Wanted::Write(write, result) => (write, Answer::Uncordon(Ok(result))),
            }
        };
        let write = Write { node: id, uid: node.meta.uid, version: node.meta.version, write, answer };
        let after = Duration::from_millis(self.between(1, 5)) + self.faults.api_slow;
        self.queue(after, Event::Api { ask: Box::new(ask), write: Some(Box::new(write)) });
    }

    /// A patch arrives: it passes if its tests do.
    fn patch(&mut self, mut ask: Ask, write: Write) {
        let node = self.world.nodes().get(write.node).cloned();
        let mark = node.as_ref().and_then(|node| node.meta.annotations.get(OWNER_ANNOTATION).cloned());
        let holds = node.as_ref().is_some_and(|node| {
            node.meta.uid == write.uid
                && match &write.write.test_mark {
                    Some(test) => mark.as_deref() == Some(test.as_str()),
                    None => node.meta.version == write.version,
                }
        });
        if holds {
            let others_before = mark.is_none() && node.as_ref().is_some_and(|node| node.unschedulable);
            let cordoned = write.write.unschedulable;
            self.world.write_mark(write.node, &write.write);
            self.acts.push(Act::Marked { node: write.node, epoch: ask.epoch.0, cordoned, others_before });
            return self.answer(ask, write.answer);
        }
        ask.rounds += 1;
        if ask.rounds >= ROUNDS_MAX {
            let answer = no_answer(&ask.request, &self.world, Code::ClusterAnswer);
            return self.answer(ask, answer);
        }
        self.api(ask, None);
    }

    // ---- the Lease in the cluster ----

    pub(super) fn claim_cluster(
        &mut self,
        server: usize,
        upgrade: &UpgradeId,
        event_number: u64,
        now: Timestamp,
    ) -> Result<ClaimOutcome, Problem> {
        let weather = self.weather();
        if let Some(gateway) = self.gateways.get_mut(server) {
            let outcome = gateway.claim(&mut self.world, weather, &self.store, upgrade, event_number);
            self.seen_world = self.world.version();
            return outcome;
        }
        if let Some(code) = self.api_fault() {
            return Err(Problem::new(code).with("cluster", "sim"));
        }
        let (event_mark, proof, ended) = (None, None, None);
        let installation = INSTALLATION.to_owned();
        let claim = Claim { installation, upgrade: upgrade.clone(), event_number, event_mark, proof, ended };
        let found = self.world.leases().id(NAMESPACE, NAME);
        if let Some(lease) = found.and_then(|id| self.world.leases().get(id)) {
            let annotation = |key: &str| lease.meta.annotations.get(key).map(|text| &**text);
            if let Some(upgrade) = annotation(UPGRADE) {
                let held = HeldClaim {
                    upgrade: UpgradeId::from(upgrade),
                    installation: lease.holder.as_deref().unwrap_or_default().to_owned(),
                    has_ended: annotation(ENDED).is_some(),
                    event_number: annotation(EVENT).and_then(|text| text.parse().ok()).unwrap_or(0),
                    event_mark: None,
                    acquired_at: lease.acquired_at.map(Moment::timestamp),
                    renewed_at: lease.renewed_at.map(Moment::timestamp),
                };
                if let Some(refused) = fence::claim_refused(&held, &claim, now) {
                    return Ok(refused);
                }
            }
        }
        let change = |lease: &mut Lease| {
            lease.holder = Some(INSTALLATION.into());
            lease.renewed_at = Some(now.into());
            let annotations = std::sync::Arc::make_mut(&mut lease.meta.annotations);
            annotations.remove(ENDED);
            annotations.insert(UPGRADE.into(), claim.upgrade.as_str().into());
            annotations.insert(EVENT.into(), claim.event_number.to_string().into());
        };
        match found {
            Some(id) => {
                self.world.replace_lease(id, None, change);
            }
            None => {
                let meta = self.world.new_meta(NAMESPACE, NAME, &crate::world::Labels::default());
                let mut lease = Lease {
                    meta,
                    holder: None,
                    duration_seconds: Some(60),
                    acquired_at: Some(now.into()),
                    renewed_at: None,
                    transitions: None,
                };
                change(&mut lease);
                self.world.create_lease(lease);
            }
        }
        // Nothing that decides follows from this write: watches need not wake for it.
        self.seen_world = self.world.version();
        Ok(ClaimOutcome::Ours)
    }

    pub(super) fn release_claim(&mut self, server: usize) {
        let (weather, id) = (self.weather(), self.id.clone());
        if let Some(gateway) = self.gateways.get_mut(server) {
            return gateway.release(&mut self.world, weather, &id);
        }
        if let Some(id) = self.world.leases().id(NAMESPACE, NAME) {
            self.world.replace_lease(id, None, |lease| {
                std::sync::Arc::make_mut(&mut lease.meta.annotations).insert(ENDED.into(), "true".into());
            });
        }
    }
}
