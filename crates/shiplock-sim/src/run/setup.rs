//! What a simulated upgrade begins with: a cluster, what runs on it, a mirror's index, and the plan.

use std::collections::BTreeMap;
use std::time::Duration;

use shiplock_core::catalogue::{Catalogue, VersionRequest};
use shiplock_core::estimate::MeasuredTimes;
use shiplock_core::facts::{AgentFacts, ControlPlaneComponent, POOL_LABEL};
use shiplock_core::id::{Actor, ClusterName, NodeName, PlanId};
use shiplock_core::plan::{Mode, Plan, PlanInput, PlanOptions, PlanRequest, make_plan};
use shiplock_core::problem::Problem;

use crate::machine::machine_facts;
use crate::release::{FROM, RUNTIME_FROM, TO, add_addons, artefacts, image_of};
use crate::world::{
    Keep, Moment, NodeSpec, Pace, PodTemplate, Selector, Share, WorkloadKind, WorkloadSpec, World, labels,
};

/// When simulated time begins.
pub const BEGIN: Moment = Moment(1_800_000_000_000);
/// A budget of a workload.
#[derive(Clone, Copy, Debug)]
pub enum BudgetSetup {
    /// There is none.
    None,
    /// It lets pods go one at a time.
    Loose,
    /// It allows no disruption until it is changed.
    Blocking,
}

/// A Deployment.
#[derive(Clone, Debug)]
pub struct WorkloadSetup {
    /// Its name.
    pub name: String,
    /// So many pods.
    pub replicas: u32,
    /// Its budget.
    pub budget: BudgetSetup,
    /// SIGTERM does nothing to its pods: SIGKILL ends them after so many seconds.
    pub ignores_sigterm: Option<i64>,
}

impl WorkloadSetup {
    /// A workload whose pods end when they are told to.
    pub fn new(name: &str, replicas: u32, budget: BudgetSetup) -> Self {
        Self { name: name.to_owned(), replicas, budget, ignores_sigterm: None }
    }
}

/// The cluster of a simulation.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Masters, with an etcd member each.
    pub masters: usize,
    /// Workers, in pools of this many each.
    pub pools: Vec<(String, usize)>,
    /// What runs in it.
    pub workloads: Vec<WorkloadSetup>,
    /// The options of the plan.
    pub options: PlanOptions,
}

impl Setup {
    /// Masters, one pool of workers, two workloads with loose budgets.
    pub fn new(masters: usize, workers: usize) -> Self {
        Self {
            masters,
            pools: vec![("blue".to_owned(), workers)],
            workloads: vec![
                WorkloadSetup::new("cart", 4, BudgetSetup::Loose),
                WorkloadSetup::new("search", 2, BudgetSetup::None),
            ],
            options: PlanOptions::default(),
        }
    }

    /// The world at rest, before anything is done to it.
    pub fn world(&self, seed: u64) -> World {
        let mut world = World::new(seed, BEGIN, Pace::default(), 0);
        if self.masters == 0 {
            // Node pools are upgraded to what the control plane runs already.
            world.set_api_elsewhere(TO.parse().expect("a constant is well formed"));
        }
        let old = |component: ControlPlaneComponent| image_of(component, FROM);
        for index in 1..=self.masters {
            let images: Vec<_> =
                ControlPlaneComponent::ALL.into_iter().map(|component| (component, old(component))).collect();
            let images: Vec<_> = images.iter().map(|(component, image)| (*component, image.as_str())).collect();
            world.add_node(&NodeSpec::master(&format!("m{index}"), FROM, RUNTIME_FROM, &images));
        }
        for (pool, count) in &self.pools {
            for index in 1..=*count {
                let mut spec = NodeSpec::worker(&format!("{pool}-{index:02}"), FROM, RUNTIME_FROM);
                spec.labels.insert(POOL_LABEL.to_owned(), pool.clone());
                world.add_node(&spec);
            }
        }
        if self.masters > 0 {
            add_addons(&mut world, FROM);
        }
        for WorkloadSetup { name, replicas, budget, ignores_sigterm } in &self.workloads {
            let mut spec = WorkloadSpec::new(WorkloadKind::Deployment, "shop", name, *replicas);
            spec.template = PodTemplate { labels: labels([("app", name.as_str())]), ..PodTemplate::default() };
            if let Some(seconds) = ignores_sigterm {
                spec.template.grace_seconds = *seconds;
                spec.template.behaviour.ignores_sigterm = true;
            }
            world.add_workload(&spec);
            let keep = match budget {
                BudgetSetup::None => continue,
                BudgetSetup::Loose => Keep::MaxUnavailable(Share::Count(1)),
                BudgetSetup::Blocking => Keep::MinAvailable(Share::Count(*replicas)),
            };
            world.add_budget("shop", name, Some(Selector::of([("app", name.as_str())])), keep);
        }
        world.settle(Duration::from_secs(120));
        world
    }

    /// The plan for a world, or why there is none.
    pub fn plan(&self, world: &World) -> Result<Plan, Problem> {
        let facts = world.cluster_facts(false);
        let now = world.now().timestamp();
        let agent = |id: u32| Some(AgentFacts { last_heard_at: now, machine: machine_facts(world, id)?.into() });
        let agents: BTreeMap<NodeName, AgentFacts> = world
            .nodes()
            .iter()
            .filter_map(|(id, node)| Some((NodeName::new(node.meta.name.clone()), agent(id)?)))
            .collect();
        let to = VersionRequest::parse(TO)?;
        let request = PlanRequest {
            to,
            mode: if self.masters > 0 { Mode::Cluster } else { Mode::NodePools },
            pools: Vec::new(),
            nodes: Vec::new(),
            exclude_nodes: Vec::new(),
            options: self.options.clone(),
        };
        make_plan(&PlanInput {
            id: &PlanId::from("p1"),
            now,
            by: &Actor::from("operator"),
            cluster: &ClusterName::from(CLUSTER),
            request: &request,
            catalogue: &Catalogue::shipped(),
            facts: &facts,
            agents: &agents,
            mirror: "http://mirror",
            artefacts: &artefacts(),
            measured: &MeasuredTimes::default(),
        })
    }
}

/// The name of the simulated cluster.
pub const CLUSTER: &str = "sim";
