use super::*;

fn pod(name: &str) -> DrainPod {
    DrainPod {
        namespace: "shop".into(),
        name: name.into(),
        uid: ObjectUid::new(format!("uid-{name}")),
        owner: Some("Deployment web".to_owned()),
        is_mirror: false,
        is_daemon: false,
        tolerates_unschedulable: false,
        is_terminating: false,
        grace_seconds: 30,
        budgets: vec!["shop/web".to_owned()],
        admitted_at: None,
    }
}

fn ending(name: &str) -> DrainPod {
    DrainPod { is_terminating: true, ..pod(name) }
}

/// A look at a node.
trait Look {
    fn look(&mut self, pods: Vec<DrainPod>, now: Duration);
}

impl Look for DrainMachine {
    fn look(&mut self, pods: Vec<DrainPod>, now: Duration) {
        self.seen(pods.into_iter().map(Arc::new).collect(), now);
    }
}

fn machine(on_timeout: OnDrainTimeout) -> DrainMachine {
    DrainMachine::new(NodeName::from("w1"), "2026-01-01T00:00:00Z".parse().unwrap(), seconds(60.0), on_timeout)
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn unknown(_: &str) -> Option<bool> {
    None
}

/// What is sent, as `evict a`.
fn acts(machine: &mut DrainMachine, at: f64) -> Vec<String> {
    acts_with(machine, at, &unknown)
}

fn acts_with(machine: &mut DrainMachine, at: f64, allows: &dyn Fn(&str) -> Option<bool>) -> Vec<String> {
    let written = |act: &Act| match act {
        Act::Evict(pod) => format!("evict {}", pod.name),
        Act::Delete(pod) => format!("delete {}", pod.name),
    };
    machine.acts(seconds(at), allows).iter().map(written).collect()
}

fn answer(machine: &mut DrainMachine, name: &str, answer: Result<Eviction, Problem>, at: f64) {
    machine.answered(&ObjectUid::new(format!("uid-{name}")), answer, seconds(at));
}

fn drained(machine: &DrainMachine, at: f64) -> Option<(u32, Vec<String>)> {
    match machine.verdict(seconds(at)) {
        Some(Ok(StepOutcome::Drained { evicted, relanded, arrived, .. })) => {
            let came = |pods: Vec<String>, how: &'static str| pods.into_iter().map(move |pod| format!("{pod} {how}"));
            Some((evicted, came(relanded, "tolerates").chain(came(arrived, "arrived")).collect()))
        }
        _ => None,
    }
}

#[test]
fn an_empty_node_is_drained_at_once_and_mirrors_and_daemons_stay() {
    let mut machine = machine(OnDrainTimeout::Pause);
    assert!(machine.verdict(seconds(0.0)).is_none(), "nothing is known before the first look");
    let daemon = DrainPod { is_daemon: true, ..pod("daemon") };
    let mirror = DrainPod { is_mirror: true, ..pod("mirror") };
    machine.look(vec![daemon, mirror], seconds(0.0));
    assert!(acts(&mut machine, 0.0).is_empty());
    assert_eq!(drained(&machine, 0.0), Some((0, vec![])));
}

#[test]
fn all_pods_are_asked_at_once_and_each_only_once() {
    let mut machine = machine(OnDrainTimeout::Pause);
    machine.look(vec![pod("a"), pod("b")], seconds(0.0));
    assert_eq!(acts(&mut machine, 0.0), ["evict a", "evict b"]);
    answer(&mut machine, "a", Ok(Eviction::Accepted), 0.1);
    answer(&mut machine, "b", Ok(Eviction::Accepted), 0.1);
    // The list may be a little behind: an accepted eviction is not asked for again whatever it shows.
    for at in [0.3, 5.0, 30.0] {
        machine.look(vec![pod("a"), ending("b")], seconds(at));
        assert!(acts(&mut machine, at).is_empty(), "{at}");
    }
    machine.look(vec![ending("a")], seconds(31.0));
    assert!(machine.verdict(seconds(31.0)).is_none());
    machine.look(vec![], seconds(32.0));
    assert_eq!(drained(&machine, 32.0), Some((2, vec![])));
}

#[test]
fn a_pod_that_ends_already_is_only_waited_for() {
    let mut machine = machine(OnDrainTimeout::Pause);
    machine.look(vec![ending("a")], seconds(0.0));
    assert!(acts(&mut machine, 0.0).is_empty());
    assert!(machine.waits(seconds(2.9)).is_empty(), "it is not worth a word yet");
    let waits = machine.waits(seconds(3.0));
    assert!(matches!(&waits[0].what, Waiting::PodTermination { pod, grace_seconds: 30, .. } if pod == "shop/a"));
    machine.look(vec![], seconds(4.0));
    assert_eq!(drained(&machine, 4.0), Some((0, vec![])));
}

#[test]
fn a_refused_eviction_is_repeated_with_growing_waits_and_named() {
    let mut machine = machine(OnDrainTimeout::Pause);
    machine.look(vec![pod("a")], seconds(0.0));
    let (mut at, mut gaps) = (0.0, Vec::new());
    for _ in 0..7 {
        assert_eq!(acts(&mut machine, at), ["evict a"]);
        answer(&mut machine, "a", Ok(Eviction::RefusedByBudget), at);
        let waits = machine.waits(seconds(at));
        let next = waits[0].retry.unwrap().next_at;
        let gap = next.duration_since(machine.at(seconds(at))).as_secs_f64();
        assert!(acts(&mut machine, at + gap - 0.01).is_empty());
        gaps.push((gap * 1000.0).round() / 1000.0);
        at += gap;
    }
    assert_eq!(gaps, [1.0, 1.5, 2.25, 3.375, 5.0, 5.0, 5.0]);
    let waits = machine.waits(seconds(at));
    let Waiting::PodDisruptionBudget { node, pod, budgets, owner } = &waits[0].what else { panic!("{waits:?}") };
    assert_eq!((node.as_str(), pod.as_str(), owner.as_deref()), ("w1", "shop/a", Some("Deployment web")));
    assert_eq!(budgets, &["shop/web"]);
    assert_eq!(waits[0].since, machine.at(seconds(0.0)));
    assert_eq!(waits[0].deadline, Some(machine.at(seconds(60.0))));
    assert_eq!(waits[0].retry.unwrap().attempts, 7);
}

#[test]
fn an_eviction_that_was_admitted_and_broke_off_is_told_with_the_time_at_which_its_budget_forgets_it() {
    let admitted_at = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut machine = machine(OnDrainTimeout::Pause);
    machine.look(vec![DrainPod { admitted_at: Some(admitted_at), ..pod("a") }], seconds(0.0));
    acts(&mut machine, 0.0);
    answer(&mut machine, "a", Ok(Eviction::RefusedByBudget), 0.0);
    let waits = machine.waits(seconds(0.0));
    let Waiting::EvictionRefused { problem, .. } = &waits[0].what else { panic!("{waits:?}") };
    assert_eq!((problem.code, problem.parameters["until"].as_str()), (Code::EvictionBrokenOff, "2026-01-01T00:02:00Z"));
    // Forgotten: the budget itself is what stands against it.
    machine.look(vec![pod("a")], seconds(1.0));
    assert!(matches!(machine.waits(seconds(1.0))[0].what, Waiting::PodDisruptionBudget { .. }));
}

#[test]
fn when_caches_say_that_the_budget_allows_it_the_eviction_is_repeated_soon() {
    let cases = [(Some(true), true), (Some(false), false), (None, false)];
    for (allowed, expected) in cases {
        let mut machine = machine(OnDrainTimeout::Pause);
        machine.look(vec![pod("a")], seconds(0.0));
        acts(&mut machine, 0.0);
        answer(&mut machine, "a", Ok(Eviction::RefusedByBudget), 0.0);
        assert!(acts_with(&mut machine, 0.1, &|_| allowed).is_empty(), "not at once");
        let sent = acts_with(&mut machine, 0.3, &|budget| (budget == "shop/web").then_some(allowed).flatten());
        assert_eq!(!sent.is_empty(), expected, "{allowed:?}");
    }
}

#[test]
fn other_refusals_and_errors_are_shown_with_their_answer() {
    let problem = Problem::new(Code::ClusterAnswer).with("verb", "create").with("resource", "pods/eviction");
    for told in [Ok(Eviction::Refused(problem.clone())), Err(problem.clone())] {
        let mut machine = machine(OnDrainTimeout::Pause);
        machine.look(vec![pod("a")], seconds(0.0));
        acts(&mut machine, 0.0);
        answer(&mut machine, "a", told, 0.0);
        let waits = machine.waits(seconds(0.5));
        assert!(matches!(&waits[0].what, Waiting::EvictionRefused { problem: shown, .. } if *shown == problem));
        assert_eq!(acts(&mut machine, 1.0), ["evict a"]);
    }
}

#[test]
fn a_pod_that_is_gone_counts_as_gone() {
    let mut machine = machine(OnDrainTimeout::Pause);
    machine.look(vec![pod("a")], seconds(0.0));
    acts(&mut machine, 0.0);
    answer(&mut machine, "a", Ok(Eviction::Gone), 0.1);
    assert_eq!(drained(&machine, 0.1), Some((0, vec![])));
}

#[test]
fn a_pod_that_tolerates_the_cordon_and_comes_back_is_named_and_left() {
    let stubborn = |name: &str| DrainPod { tolerates_unschedulable: true, ..pod(name) };
    let mut machine = machine(OnDrainTimeout::Pause);
    machine.look(vec![stubborn("a")], seconds(0.0));
    assert_eq!(acts(&mut machine, 0.0), ["evict a"]);
    answer(&mut machine, "a", Ok(Eviction::Accepted), 0.0);
    machine.look(vec![stubborn("a2")], seconds(1.0));
    assert!(acts(&mut machine, 1.0).is_empty());
    assert_eq!(drained(&machine, 1.0), Some((1, vec!["shop/a2 (Deployment web) tolerates".to_owned()])));
}

#[test]
fn a_pod_that_was_on_its_way_when_the_node_was_cordoned_belongs_to_the_goal() {
    let mut machine = machine(OnDrainTimeout::Pause);
    machine.look(vec![ending("a")], seconds(0.0));
    machine.look(vec![ending("a"), pod("late")], seconds(2.0));
    assert_eq!(acts(&mut machine, 2.0), ["evict late"]);
    answer(&mut machine, "late", Ok(Eviction::Gone), 2.0);
    // Much later it is somebody who puts pods there on purpose: no race without an end.
    machine.look(vec![ending("a"), pod("placed")], seconds(20.0));
    assert!(acts(&mut machine, 20.0).is_empty());
    machine.look(vec![pod("placed")], seconds(21.0));
    assert_eq!(drained(&machine, 21.0), Some((0, vec!["shop/placed (Deployment web) arrived".to_owned()])));
}

#[test]
fn after_the_time_is_over_it_pauses_skips_or_forces() {
    let blocked = |on_timeout| {
        let mut machine = machine(on_timeout);
        machine.look(vec![pod("a"), ending("b")], seconds(0.0));
        acts(&mut machine, 0.0);
        answer(&mut machine, "a", Ok(Eviction::RefusedByBudget), 0.0);
        machine.look(vec![pod("a"), ending("b")], seconds(60.0));
        machine
    };
    let blockers = "shop/a (PodDisruptionBudget shop/web), shop/b (terminating)";

    let pausing = blocked(OnDrainTimeout::Pause);
    assert!(pausing.verdict(seconds(59.9)).is_none());
    let Some(Err((problem, false))) = pausing.verdict(seconds(60.0)) else { panic!("a pause was expected") };
    assert_eq!(problem.code, Code::DrainTimedOut);
    assert_eq!((problem.parameters["blockers"].as_str(), problem.parameters["limit"].as_str()), (blockers, "60 s"));

    let skipping = blocked(OnDrainTimeout::Skip);
    let expected = StepOutcome::DrainSkipped { blockers: blockers.split(", ").map(str::to_owned).collect() };
    assert_eq!(skipping.verdict(seconds(60.0)), Some(Ok(expected)));

    let mut forcing = blocked(OnDrainTimeout::Force);
    assert!(forcing.verdict(seconds(60.0)).is_none());
    assert_eq!(acts(&mut forcing, 60.0), ["delete a"], "what ends already is not deleted again");
    answer(&mut forcing, "a", Ok(Eviction::Accepted), 60.0);
    assert!(acts(&mut forcing, 70.0).is_empty());
    assert!(forcing.verdict(seconds(149.0)).is_none(), "grace period and a minute");
    assert!(
        matches!(forcing.verdict(seconds(150.0)), Some(Err((problem, false))) if problem.code == Code::DrainTimedOut)
    );
    forcing.look(vec![], seconds(80.0));
    assert_eq!(drained(&forcing, 80.0), Some((1, vec![])));
}

#[test]
fn a_refused_force_is_repeated() {
    let mut machine = machine(OnDrainTimeout::Force);
    machine.look(vec![pod("a")], seconds(60.0));
    assert_eq!(acts(&mut machine, 60.0), ["delete a"]);
    answer(&mut machine, "a", Err(Problem::new(Code::ClusterUnreachable)), 60.0);
    assert!(acts(&mut machine, 60.5).is_empty());
    assert_eq!(acts(&mut machine, 61.0), ["delete a"]);
}

#[test]
fn while_the_node_cannot_be_seen_nothing_is_sent_and_it_is_said() {
    let mut machine = machine(OnDrainTimeout::Pause);
    machine.not_seen(Problem::new(Code::ClusterUnreachable), seconds(0.0));
    machine.not_seen(Problem::new(Code::ClusterUnreachable), seconds(1.0));
    let waits = machine.waits(seconds(1.0));
    assert!(matches!(waits[0].what, Waiting::ClusterFacts { .. }));
    assert_eq!((waits[0].since, waits[0].retry.unwrap().attempts), (machine.at(seconds(0.0)), 2));
    assert!(
        matches!(machine.verdict(seconds(60.0)), Some(Err((problem, true))) if problem.code == Code::ClusterUnreachable)
    );

    machine.look(vec![pod("a")], seconds(2.0));
    assert!(machine.waits(seconds(2.0)).is_empty());
    assert_eq!(acts(&mut machine, 2.0), ["evict a"]);
    answer(&mut machine, "a", Ok(Eviction::RefusedByBudget), 2.0);
    machine.not_seen(Problem::new(Code::ClusterUnreachable), seconds(3.0));
    assert!(acts(&mut machine, 10.0).is_empty());
    let Some(Err((problem, false))) = machine.verdict(seconds(60.0)) else { panic!("a pause was expected") };
    assert_eq!((problem.code, problem.causes.len()), (Code::DrainTimedOut, 1));
}

#[test]
fn a_blocked_node_is_looked_at_less_often_than_one_that_empties() {
    let mut machine = machine(OnDrainTimeout::Pause);
    assert!(machine.wants_look(seconds(0.0)));
    machine.look(vec![pod("a")], seconds(0.0));
    acts(&mut machine, 0.0);
    answer(&mut machine, "a", Ok(Eviction::RefusedByBudget), 0.0);
    assert!(!machine.wants_look(seconds(0.5)));
    assert!(machine.wants_look(seconds(1.0)));
    machine.look(vec![ending("a")], seconds(1.0));
    assert!(machine.wants_look(seconds(1.1)));
}

#[test]
fn many_blockers_are_counted() {
    let mut machine = machine(OnDrainTimeout::Pause);
    machine.look((0..15).map(|number| ending(&format!("p{number:02}"))).collect(), seconds(0.0));
    let Some(Err((problem, _))) = machine.verdict(seconds(60.0)) else { panic!("a pause was expected") };
    assert!(problem.parameters["blockers"].ends_with("shop/p09 (terminating), +5"));
}

#[test]
fn a_drain_tells_how_long_the_pods_of_each_workload_took_to_end_and_for_how_long_evictions_were_refused() {
    let mut machine = machine(OnDrainTimeout::Pause);
    let other = DrainPod { owner: Some("StatefulSet db".to_owned()), budgets: Vec::new(), ..pod("db-0") };
    machine.look(vec![pod("a"), pod("b"), other.clone()], seconds(0.0));
    assert_eq!(acts(&mut machine, 0.0).len(), 3);
    answer(&mut machine, "db-0", Ok(Eviction::Accepted), 0.0);
    answer(&mut machine, "a", Ok(Eviction::Accepted), 0.0);
    answer(&mut machine, "b", Ok(Eviction::RefusedByBudget), 0.5);
    machine.look(vec![pod("b"), DrainPod { is_terminating: true, ..other }], seconds(2.0));
    // Whoever has it end, it is not held from then on.
    machine.look(vec![ending("b")], seconds(9.0));
    machine.look(vec![], seconds(12.0));
    let Some(Ok(StepOutcome::Drained { ended, held_milliseconds, .. })) = machine.verdict(seconds(12.0)) else {
        panic!("not drained")
    };
    let expected = [("Deployment shop/web", 3_000), ("StatefulSet shop/db", 9_000)];
    assert_eq!(ended, expected.map(|(workload, took)| (workload.to_owned(), took)).into());
    assert_eq!(held_milliseconds, 8_500);
}
