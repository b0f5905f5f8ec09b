//! The scheduler: binds pods to nodes by resources, selectors, affinity, taints, spread, ports and volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::object::{CORDON_TAINT, Effect, Node, Pod, PodTemplate};
use super::table::Text;
use super::{Event, World};

/// Why a node does not take a pod, as the scheduler says it.
type Why = &'static str;

impl World {
    pub(super) fn wake_scheduler(&mut self) {
        if !self.scheduling && !self.unbound.is_empty() {
            self.scheduling = true;
            let after = self.pace.scheduler;
            self.queue(after, Event::Schedule);
        }
    }

    pub(super) fn schedule(&mut self) {
        self.scheduling = false;
        let mut waiting: Vec<(i32, u32)> = self
            .unbound
            .iter()
            .filter_map(|id| Some((-self.pods.get(*id).filter(|pod| pod.deletion.is_none())?.template.priority, *id)))
            .collect();
        waiting.sort_unstable();
        // Pods of one template that found no place fail together.
        let mut hopeless: Vec<Arc<PodTemplate>> = Vec::new();
        for (_, id) in waiting {
            let Some(pod) = self.pods.get(id).cloned() else { continue };
            if hopeless.iter().any(|template| Arc::ptr_eq(template, &pod.template)) && pod.unschedulable_why.is_some() {
                continue;
            }
            match self.place(&pod) {
                Ok(node) => {
                    // What somebody else holds is copied before it is changed.
                    drop(pod);
                    self.bind(id, node);
                }
                Err(why) => {
                    hopeless.push(pod.template.clone());
                    if pod.unschedulable_why.as_deref() != Some(&*why) {
                        let version = self.next_version();
                        self.pods.change(id, version, |pod| pod.unschedulable_why = Some(why));
                    }
                }
            }
        }
    }

    /// The best node for a pod among the first that take it, or why none does.
    fn place(&mut self, pod: &Pod) -> Result<u32, Text> {
        let end = self.nodes.ids_end();
        if end == 0 {
            return Err("no nodes available".into());
        }
        let spread = SpreadCounts::of(self, pod);
        let siblings = pod.owner.and_then(|owner| self.pods_of.get(owner)).map(|controlled| &controlled.on);
        let siblings = |node: u32| siblings.map_or(0, |on| on.of(node));
        let mut whys: BTreeMap<Why, usize> = BTreeMap::new();
        let mut best: Option<(i64, u32)> = None;
        let mut found = 0;
        let mut at = self.scheduler_at;
        for _ in 0..end {
            at = (at + 1) % end;
            let Some(node) = self.nodes.get(at) else { continue };
            match self.takes(pod, at, node, &spread) {
                Ok(()) => {
                    found += 1;
                    let score = self.score(pod, at, node) - 150 * i64::from(siblings(at));
                    if best.is_none_or(|(best, _)| score > best) {
                        best = Some((score, at));
                    }
                    if found >= self.pace.scheduler_candidates {
                        break;
                    }
                }
                Err(why) => *whys.entry(why).or_default() += 1,
            }
        }
        self.scheduler_at = at;
        best.map(|(_, node)| node).ok_or_else(|| {
            let whys = whys.iter().map(|(why, count)| format!("{count} {why}")).collect::<Vec<_>>().join(", ");
            format!("0/{} nodes are available: {whys}.", self.nodes.len()).into()
        })
    }

    fn takes(&self, pod: &Pod, id: u32, node: &Node, spread: &SpreadCounts) -> Result<(), Why> {
        let template = &pod.template;
        if node.unschedulable && !template.tolerates_cordon() {
            return Err("node(s) were unschedulable");
        }
        if !taints_allow(template, node) {
            return Err("node(s) had untolerated taints");
        }
        if !selected(template, node) {
            return Err("node(s) didn't match Pod's node affinity/selector");
        }
        if !self.used(id).fits(super::control::requests(template), node.allocatable) {
            return Err("node(s) had too few resources");
        }
        if !template.host_ports.is_empty()
            && self
                .pods_on(id)
                .filter_map(|other| self.pods.get(other))
                .any(|other| other.template.host_ports.iter().any(|port| template.host_ports.contains(port)))
        {
            return Err("node(s) didn't have free ports for the requested pod ports");
        }
        self.volumes_allow(pod, id, node)?;
        spread.allow(node)?;
        self.anti_affinity_allows(pod, id, node)
    }

    fn volumes_allow(&self, pod: &Pod, id: u32, node: &Node) -> Result<(), Why> {
        for claim in &pod.template.claims {
            let Some(claim) = self.claims.find(&pod.meta.namespace, claim) else { continue };
            if claim.zone.as_ref().is_some_and(|zone| node.zone() != Some(zone))
                || claim.node.as_ref().is_some_and(|name| *name != node.meta.name)
            {
                return Err("node(s) had volume node affinity conflict");
            }
            if claim.attached.is_some_and(|attached| attached != id) {
                return Err("node(s) could not attach a volume that is attached elsewhere");
            }
        }
        Ok(())
    }

    /// Required anti-affinity, ours against the others and theirs against us.
    fn anti_affinity_allows(&self, pod: &Pod, id: u32, node: &Node) -> Result<(), Why> {
        let here = |term: &super::object::PodTerm, other: &Pod| {
            other.meta.namespace == pod.meta.namespace && term.selector.matches(&other.meta.labels)
        };
        for term in &pod.template.pod_anti_affinity {
            let clash = if &*term.topology_key == "kubernetes.io/hostname" {
                self.pods_on(id).filter_map(|other| self.pods.get(other)).any(|other| here(term, other))
            } else {
                let place = node.meta.labels.get(&term.topology_key);
                place.is_some()
                    && self.pods.all_in_namespace(&pod.meta.namespace).any(|(_, other)| {
                        other
                            .node
                            .and_then(|node| self.nodes.get(node))
                            .and_then(|node| node.meta.labels.get(&term.topology_key))
                            == place
                            && here(term, other)
                    })
            };
            if clash {
                return Err("node(s) didn't match pod anti-affinity rules");
            }
        }
        let repels = |other: &Arc<Pod>| {
            other.meta.namespace == pod.meta.namespace
                && other.template.pod_anti_affinity.iter().any(|term| term.selector.matches(&pod.meta.labels))
        };
        let any_repels = self.repelling.get(id as usize).is_some_and(|count| *count > 0);
        if any_repels && self.pods_on(id).filter_map(|other| self.pods.get(other)).any(repels) {
            return Err("node(s) didn't satisfy existing pods anti-affinity rules");
        }
        for term in &pod.template.pod_affinity {
            let place = node.meta.labels.get(&term.topology_key);
            let mut any = false;
            let near = self.pods.all_in_namespace(&pod.meta.namespace).any(|(_, other)| {
                let matches = other.node.is_some() && term.selector.matches(&other.meta.labels);
                any |= matches;
                matches
                    && other
                        .node
                        .and_then(|node| self.nodes.get(node))
                        .and_then(|node| node.meta.labels.get(&term.topology_key))
                        == place
            });
            // The first pod of a group that asks for itself may go anywhere.
            if !near && (any || !term.selector.matches(&pod.meta.labels)) {
                return Err("node(s) didn't match pod affinity rules");
            }
        }
        Ok(())
    }

    /// Counts what a bound pod does to others; `by` is 1 or -1.
    pub(super) fn note_repelling(&mut self, node: Option<u32>, template: &PodTemplate, by: i32) {
        if !template.pod_anti_affinity.is_empty()
            && let Some(count) = node.and_then(|node| self.repelling.get_mut(node as usize))
        {
            *count = count.saturating_add_signed(by);
        }
    }

    /// Higher is better: free room, no taint that would rather have it elsewhere.
    fn score(&self, pod: &Pod, id: u32, node: &Node) -> i64 {
        let used = self.used(id);
        let free =
            |used: i64, of: i64| if of > 0 { of.saturating_sub(used).max(0).saturating_mul(100) / of } else { 0 };
        let room = free(used.cpu_millis, node.allocatable.cpu_millis)
            + free(used.memory_bytes, node.allocatable.memory_bytes)
            + free(used.pods, node.allocatable.pods);
        let rather_not = node
            .taints
            .iter()
            .any(|taint| taint.effect == Effect::PreferNoSchedule && !pod.template.tolerates(taint.parts()));
        room - if rather_not { 1_000 } else { 0 }
    }

    /// Binds a pod to a node, whatever speaks against it.
    pub fn bind(&mut self, id: u32, node: u32) {
        let version = self.next_version();
        let Some(pod) = self.pods.get(id) else { return };
        if (node as usize) >= self.pods_on.len() {
            return;
        }
        let (owner, template, claims) = (pod.owner, pod.template.clone(), self.claims_of(pod));
        self.pods.change(id, version, |pod| {
            pod.node = Some(node);
            pod.unschedulable_why = None;
        });
        self.note_repelling(Some(node), &template, 1);
        self.note_move(Some(node));
        self.unbound.remove(&id);
        if let Some(controlled) = owner.and_then(|owner| self.pods_of.get_mut(owner)) {
            controlled.on.up(node);
        }
        self.note_daemon(owner, Some(node));
        self.pods_on[node as usize].insert(id);
        let used = &mut self.used[node as usize];
        *used = used.plus(super::control::requests(&template), 1);
        for claim in claims {
            self.claims.change_quietly(claim, |claim| claim.attached = Some(node));
        }
        self.queue_start(id);
        self.evict_by_taint(node, id);
    }

    /// The claims of a pod that are there.
    pub(super) fn claims_of(&self, pod: &Pod) -> Vec<u32> {
        pod.template.claims.iter().filter_map(|claim| self.claims.id(&pod.meta.namespace, claim)).collect()
    }
}

/// How many matching pods there are in each place, for each constraint.
struct SpreadCounts(Vec<(Text, i64, BTreeMap<Text, i64>, i64)>);

impl SpreadCounts {
    fn of(world: &World, pod: &Pod) -> Self {
        let constraints = pod.template.spread.iter().map(|constraint| {
            let mut counts: BTreeMap<Text, i64> = BTreeMap::new();
            for (_, node) in world.nodes.iter() {
                if let Some(place) =
                    node.meta.labels.get(&constraint.topology_key).filter(|_| selected(&pod.template, node))
                {
                    counts.entry(place.clone()).or_default();
                }
            }
            for (_, other) in world.pods.all_in_namespace(&pod.meta.namespace) {
                if other.deletion.is_none()
                    && constraint.selector.matches(&other.meta.labels)
                    && let Some(place) = other
                        .node
                        .and_then(|node| world.nodes.get(node))
                        .and_then(|node| node.meta.labels.get(&constraint.topology_key))
                    && let Some(count) = counts.get_mut(place)
                {
                    *count += 1;
                }
            }
            let least = counts.values().copied().min().unwrap_or(0);
            (constraint.topology_key.clone(), constraint.max_skew, counts, least)
        });
        Self(constraints.collect())
    }

    fn allow(&self, node: &Node) -> Result<(), Why> {
        for (key, max_skew, counts, least) in &self.0 {
            let Some(place) = node.meta.labels.get(key) else {
                return Err("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            if counts.get(place).copied().unwrap_or(0) + 1 - least > *max_skew {
                return Err("node(s) didn't match pod topology spread constraints");
            }
        }
        Ok(())
    }
}

fn taints_allow(template: &PodTemplate, node: &Node) -> bool {
    node.all_taints()
        .filter(|(key, _, effect)| *effect != Effect::PreferNoSchedule && *key != CORDON_TAINT)
        .all(|taint| template.tolerates(taint))
}

fn selected(template: &PodTemplate, node: &Node) -> bool {
    template.node_selector.iter().all(|(key, value)| node.meta.labels.get(key) == Some(value))
        && (template.node_affinity.is_empty()
            || template
                .node_affinity
                .iter()
                .any(|term| term.iter().all(|requirement| requirement.matches(&node.meta.labels))))
}

/// Whether a DaemonSet wants a pod on a node.
pub(super) fn daemon_belongs(template: &PodTemplate, node: &Node) -> bool {
    selected(template, node) && taints_allow(template, node)
}

/// Whether a pod of a DaemonSet that is there stays: only taints that evict take it.
pub(super) fn daemon_stays(template: &PodTemplate, node: &Node) -> bool {
    selected(template, node)
        && node.all_taints().filter(|(.., effect)| *effect == Effect::NoExecute).all(|taint| template.tolerates(taint))
}
