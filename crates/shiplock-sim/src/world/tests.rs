//! What the world promises.

use std::time::Duration;

use rand::Rng as _;

use super::*;

pub(super) fn world(seed: u64, nodes: usize) -> World {
    let mut world = World::new(seed, Moment(1_800_000_000_000), Pace::default(), 1_000);
    for index in 1..=nodes {
        world.add_node(&NodeSpec::worker(&format!("n{index}"), "v1.35.4", "v1.6.20")).unwrap();
    }
    world
}

fn ready(world: &World, id: WorkloadId) -> u32 {
    world.workload(id).unwrap().status.ready
}

#[test]
fn a_deployment_comes_up_survives_a_drain_and_rolls_out_a_new_image() {
    let mut world = world(1, 3);
    let id = world.add_workload(&WorkloadSpec::new(WorkloadKind::Deployment, "shop", "cart", 4)).unwrap();
    world.settle(Duration::from_secs(60));
    assert_eq!(ready(&world, id), 4);
    world.change_node(0, |node| node.unschedulable = true);
    for pod in world.drain_pods(0) {
        assert_eq!(world.evict(&pod.namespace, &pod.name, uuid_number(pod.uid.as_str())), EvictAnswer::Accepted);
    }
    world.settle(Duration::from_secs(60));
    assert_eq!((ready(&world, id), world.pods_on(0).count()), (4, 0));
    world.change_workload(id, |workload| {
        std::sync::Arc::make_mut(&mut workload.template).containers[0].1 = "registry.example/app:2".into();
    });
    world.settle(Duration::from_secs(300));
    assert_eq!(ready(&world, id), 4);
    let new = world.pods().iter().filter(|(_, pod)| &*pod.template.containers[0].1 == "registry.example/app:2").count();
    assert_eq!((new, world.pods().len()), (4, 4));
}

#[test]
fn a_budget_counts_as_upstream_does_and_refuses_the_second_eviction_until_the_first_pod_is_replaced() {
    let mut world = world(2, 3);
    let id = world.add_workload(&WorkloadSpec::new(WorkloadKind::Deployment, "shop", "cart", 3)).unwrap();
    let keep = Keep::MinAvailable(Share::Count(2));
    let budget = world.add_budget("shop", "cart", Some(Selector::of([("app", "cart")])), keep).unwrap();
    world.settle(Duration::from_secs(60));
    let held = world.budgets().get(budget).unwrap();
    assert_eq!((held.healthy, held.desired_healthy, held.expected, held.allowed), (3, 2, 3, 1));
    let names: Vec<_> = world.pods().iter().map(|(_, pod)| pod.meta.name.clone()).collect();
    assert_eq!(world.evict("shop", &names[0], None), EvictAnswer::Accepted);
    assert!(matches!(world.evict("shop", &names[1], None), EvictAnswer::Refused { .. }), "at once");
    world.advance(world.now() + Duration::from_secs(2));
    assert!(matches!(world.evict("shop", &names[1], None), EvictAnswer::Refused { .. }), "not ready yet");
    world.settle(Duration::from_secs(60));
    assert_eq!(ready(&world, id), 3);
    assert_eq!(world.evict("shop", &names[1], None), EvictAnswer::Accepted);
}

#[test]
fn a_pod_of_a_deployment_that_was_told_to_end_is_not_counted_as_ready_while_it_takes_its_time() {
    let mut world = world(5, 2);
    let id = world.add_workload(&WorkloadSpec::new(WorkloadKind::Deployment, "shop", "till", 1)).unwrap();
    world.settle(Duration::from_secs(60));
    assert_eq!(ready(&world, id), 1);
    let name = world.pods().iter().map(|(_, pod)| pod.meta.name.clone()).next().unwrap();
    assert_eq!(world.evict("shop", &name, None), EvictAnswer::Accepted);
    assert_eq!((ready(&world, id), world.pods().len()), (0, 1), "it is still there");
    world.settle(Duration::from_secs(60));
    assert_eq!((ready(&world, id), world.pods().len()), (1, 1));
}

#[test]
fn the_same_seed_gives_the_same_world_and_a_clone_goes_on_alike() {
    let trace = |mut world: World| {
        world.add_workload(&WorkloadSpec::new(WorkloadKind::StatefulSet, "shop", "db", 3)).unwrap();
        world.settle(Duration::from_secs(100));
        let changes = world.pods().changes_since(0).unwrap();
        changes
            .map(|change| format!("{} {:?} {}", change.version, change.kind, change.object.meta.name))
            .collect::<Vec<_>>()
    };
    let one = world(7, 4);
    assert_eq!(trace(one.clone()), trace(world(7, 4)));
    assert_eq!(trace(one.clone()), trace(one));
}

#[test]
fn a_watch_from_a_version_that_is_not_kept_any_more_must_list_again() {
    let mut world = World::new(1, Moment(0), Pace::default(), 3);
    for index in 0..6 {
        world.add_node(&NodeSpec::worker(&format!("n{index}"), "v1.35.4", "v1.6.20")).unwrap();
    }
    assert!(matches!(world.nodes().changes_since(1).map(Iterator::count), Err(TooOld)));
    let newest = world.nodes().newest();
    assert_eq!(world.nodes().changes_since(newest).map(Iterator::count), Ok(0));
    assert_eq!(world.nodes().changes_since(newest - 1).map(Iterator::count), Ok(1));
}

#[test]
fn a_node_without_its_kubelet_is_not_ready_after_the_grace_and_loses_its_pods_in_the_end() {
    let mut world = world(3, 2);
    let id = world.add_workload(&WorkloadSpec::new(WorkloadKind::Deployment, "shop", "cart", 2)).unwrap();
    world.settle(Duration::from_secs(60));
    world.stop_kubelet(0);
    world.advance(world.now() + Duration::from_secs(60));
    assert!(!world.nodes().get(0).unwrap().is_ready());
    world.advance(world.now() + Duration::from_secs(600));
    assert_eq!(ready(&world, id), 2, "they run elsewhere");
    world.start_kubelet(0);
    world.settle(Duration::from_secs(60));
    assert!(world.nodes().get(0).unwrap().is_ready());
}

#[test]
fn a_world_of_5000_nodes_and_150000_pods_is_cheap_to_clone() {
    let mut world = World::new(1, Moment(0), Pace::default(), 0);
    let nodes: Vec<u32> = (0..5_000)
        .map(|index| world.add_node(&NodeSpec::worker(&format!("n{index}"), "v1.35.4", "v1.6.20")).unwrap())
        .collect();
    let template = std::sync::Arc::new(PodTemplate { labels: labels([("app", "a")]), ..PodTemplate::default() });
    for index in 0..150_000 {
        let namespace = format!("team-{}", index % 500);
        world.add_pod(&namespace, &format!("a-{index}"), &template, None, Some(nodes[index % 5_000])).unwrap();
    }
    let mut other = world.clone();
    other.change_node(0, |node| node.unschedulable = true);
    assert!(!world.nodes().get(0).unwrap().unschedulable);
    assert_eq!(other.pods().len(), 150_000);
}

/// Everything that is counted as it changes, counted anew.
fn check_counts(world: &World) {
    let pods = || world.pods().iter();
    let all =
        WorkloadKind::ALL.into_iter().flat_map(|kind| world.workloads(kind).iter().map(move |(id, _)| (kind, id)));
    for workload in all.map(|(kind, id)| WorkloadId { kind, id }) {
        let controlled = world.pods_of.get(workload).unwrap();
        let own: Vec<_> = pods().filter(|(_, pod)| pod.owner == Some(workload)).collect();
        let ids: BTreeSet<u32> = own.iter().map(|(id, _)| *id).collect();
        let live = own.iter().filter(|(_, pod)| pod.is_live()).count();
        let mut on: BTreeMap<u32, u32> = BTreeMap::new();
        own.iter().filter_map(|(_, pod)| pod.node).for_each(|node| *on.entry(node).or_default() += 1);
        let counted: BTreeMap<u32, u32> = controlled.on.keys().map(|node| (node, controlled.on.of(node))).collect();
        let pods: BTreeSet<u32> = controlled.pods.iter().copied().collect();
        assert_eq!((pods, controlled.live as usize, counted), (ids, live, on), "{workload:?}");
    }
    for (id, budget) in world.budgets().iter() {
        let selects = |pod: &Pod| {
            pod.meta.namespace == budget.meta.namespace
                && budget.selector.as_ref().is_some_and(|selector| selector.matches(&pod.meta.labels))
        };
        let own: Vec<_> = pods().filter(|(_, pod)| selects(pod)).collect();
        let ids: BTreeSet<u32> = own.iter().map(|(id, _)| *id).collect();
        let healthy = own.iter().filter(|(_, pod)| pod.is_healthy()).count();
        let mut owners: BTreeMap<WorkloadId, u32> = BTreeMap::new();
        own.iter().filter_map(|(_, pod)| pod.owner).for_each(|owner| *owners.entry(owner).or_default() += 1);
        let selected = &world.pods_in[id as usize];
        let counted: BTreeMap<WorkloadId, u32> =
            selected.owners.keys().map(|owner| (owner, selected.owners.of(owner))).collect();
        let pods: BTreeSet<u32> = selected.pods.iter().copied().collect();
        assert_eq!((&pods, selected.healthy as usize, counted), (&ids, healthy, owners), "{id}");
        assert!(ids.iter().all(|pod| world.budgets_of(*pod).contains(&id)));
    }
}

#[test]
fn what_is_counted_is_what_is_there_whatever_happens() {
    for seed in 0..20 {
        let mut world = world(seed, 6);
        let kinds = [WorkloadKind::Deployment, WorkloadKind::StatefulSet, WorkloadKind::DaemonSet];
        let workloads = kinds.map(|kind| world.add_workload(&WorkloadSpec::new(kind, "shop", kind.word(), 5)).unwrap());
        let keep = Keep::MaxUnavailable(Share::Count(2));
        let of = |kind: WorkloadKind| Some(Selector::of([("app", kind.word())]));
        let budget = world.add_budget("shop", "one", of(kinds[0]), keep).unwrap();
        world.add_budget("shop", "all", Some(Selector::default()), keep).unwrap();
        for _ in 0..60 {
            let pods: Vec<u32> = world.pods().iter().map(|(id, _)| id).collect();
            let pod = (!pods.is_empty()).then(|| pods[world.luck.random_range(0..pods.len())]);
            let (namespace, name) = pod
                .and_then(|pod| world.pods().get(pod))
                .map(|pod| (pod.meta.namespace.clone(), pod.meta.name.clone()))
                .unwrap_or_default();
            let (node, workload) = (world.luck.random_range(0..6), workloads[world.luck.random_range(0..3)]);
            match (world.luck.random_range(0..10), pod) {
                (0..3, _) => _ = world.evict(&namespace, &name, None),
                (3, _) => _ = world.delete_pod(&namespace, &name, None, Some(0)),
                (4, Some(pod)) => {
                    world.change_pod(pod, |pod| pod.meta.labels = labels([("app", "Deployment"), ("odd", "yes")]));
                }
                (5, _) => {
                    let replicas = world.luck.random_range(0..8);
                    world.change_workload(workload, |workload| workload.replicas = replicas);
                }
                (6, _) => {
                    let kind = kinds[world.luck.random_range(0..3)];
                    world.change_budget(budget, |budget| budget.selector = of(kind));
                }
                (7, _) => _ = world.change_node(node, |node| node.unschedulable = !node.unschedulable),
                (8, _) => world.reboot(node),
                _ => world.stop_kubelet(node),
            }
            check_counts(&world);
            for _ in 0..world.luck.random_range(0..40) {
                world.step();
                check_counts(&world);
            }
        }
    }
}

#[test]
fn a_taint_that_evicts_ends_the_pods_that_do_not_tolerate_it_and_others_after_their_time() {
    let mut world = world(1, 1);
    world.set_pace(Pace { jitter_percent: 0, ..Pace::default() });
    let tolerating = |seconds| Toleration { key: "spot".into(), value: None, effect: None, seconds };
    let mut add = |name: &str, tolerations: Vec<Toleration>| {
        let mut spec = WorkloadSpec::new(WorkloadKind::Deployment, "shop", name, 1);
        spec.template.tolerations = tolerations;
        world.add_workload(&spec).unwrap();
    };
    add("plain", Vec::new());
    add("stays", vec![tolerating(None)]);
    add("leaves", vec![tolerating(Some(600))]);
    world.settle(Duration::from_secs(60));
    let taint = Taint { key: "spot".into(), value: "".into(), effect: Effect::NoExecute };
    world.change_node(0, |node| node.taints = Arc::new(vec![taint]));
    let bound = |world: &World| {
        let pods = world.pods_on(0).filter_map(|pod| world.pods().get(pod));
        pods.map(|pod| pod.meta.name.split('-').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    world.advance(world.now() + Duration::from_secs(300));
    assert_eq!(bound(&world), ["stays", "leaves"]);
    // What is made anew tolerates it for as long again.
    world.advance(world.now() + Duration::from_secs(600));
    assert_eq!(bound(&world), ["stays", "leaves"]);
    let old = Duration::from_secs(400);
    let leaves = world.pods().iter().find(|(_, pod)| pod.meta.name.starts_with("leaves")).unwrap().1;
    assert!(world.now().since(leaves.meta.created_at) < old, "{leaves:?}");
    let first = leaves.meta.name.clone();
    world.advance(world.now() + Duration::from_secs(900));
    let leaves = world.pods().iter().find(|(_, pod)| pod.meta.name.starts_with("leaves")).unwrap().1;
    assert_ne!(leaves.meta.name, first);
}

#[test]
fn a_world_that_is_ten_times_as_fast_does_everything_in_a_tenth_of_the_time() {
    let took = |speed| {
        let mut world = world(1, 3);
        world.set_pace(Pace { jitter_percent: 0, speed, ..Pace::default() });
        let id = world.add_workload(&WorkloadSpec::new(WorkloadKind::Deployment, "shop", "cart", 4)).unwrap();
        let begun = world.now();
        world.settle(Duration::from_secs(60));
        assert_eq!(ready(&world, id), 4);
        world.now().since(begun)
    };
    assert_eq!(took(1), took(10) * 10);
}

#[test]
fn a_daemon_set_that_is_rolled_out_never_misses_more_than_one_pod() {
    let mut world = world(1, 9);
    let id = world.add_workload(&WorkloadSpec::new(WorkloadKind::DaemonSet, "shop", "agent", 1)).unwrap();
    world.settle(Duration::from_secs(300));
    assert_eq!(ready(&world, id), 9);
    world.change_workload(id, |set| {
        Arc::make_mut(&mut set.template).containers = vec![("main".into(), "agent:2".into())];
    });
    let end = world.now() + Duration::from_secs(600);
    while world.now() < end && world.step() {
        assert!(ready(&world, id) >= 8, "{:?}", world.workload(id).unwrap().status);
    }
    let status = world.workload(id).unwrap().status;
    assert_eq!((status.updated, status.ready), (9, 9));
}

#[test]
fn a_pod_that_a_taint_told_to_end_before_it_was_seen_ends_after_its_grace() {
    let mut world = world(1, 1);
    let taint = Taint { key: "spot".into(), value: "".into(), effect: Effect::NoExecute };
    world.change_node(0, |node| node.taints = Arc::new(vec![taint]));
    let template = WorkloadSpec::new(WorkloadKind::Deployment, "shop", "cart", 1).template;
    let pod = world.add_pod("shop", "cart", &Arc::new(template), None, Some(0)).unwrap();
    world.settle(Duration::from_secs(120));
    assert!(world.pods().get(pod).is_none());
}
