//! What a rehearsal promises.

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use shiplock_check::copy::{
    ClusterCopy, CopyBudget, CopyClaim, CopyNode, CopyPod, CopyResources, CopySelector, CopyTaint, CopyTemplate,
    CopyWorkload,
};
use shiplock_core::catalogue::VersionRequest;
use shiplock_core::estimate::Estimate;
use shiplock_core::facts::{CONTROL_PLANE_LABEL, ControlPlaneComponent};
use shiplock_core::plan::{Mode, PlanOptions};
use shiplock_core::step::OnDrainTimeout;
use shiplock_core::upgrade::Waiting;

use super::*;

/// A cluster of 1.35 with masters, workers in pool `blue`, and one Deployment of two pods for each worker.
struct Cluster {
    copy: ClusterCopy,
    version: &'static str,
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// All masters and nodes, to the next minor.
fn for_all(options: PlanOptions) -> PlanRequest {
    PlanRequest {
        to: VersionRequest::parse("1.36").unwrap(),
        mode: Mode::Cluster,
        pools: Vec::new(),
        nodes: Vec::new(),
        exclude_nodes: Vec::new(),
        options,
    }
}

impl Cluster {
    fn new(masters: usize, workers: usize) -> Self {
        let mut cluster =
            Self { copy: ClusterCopy { cluster_uid: "c".into(), ..ClusterCopy::default() }, version: "v1.35.4" };
        for index in 0..masters {
            let node = cluster.node(&format!("m{index}"));
            let held = &mut cluster.copy.nodes[node];
            held.labels = labels(&[(CONTROL_PLANE_LABEL, "")]);
            held.taints = vec![CopyTaint {
                key: CONTROL_PLANE_LABEL.into(),
                effect: "NoSchedule".into(),
                ..CopyTaint::default()
            }];
            for component in ControlPlaneComponent::ALL {
                let tag = if component == ControlPlaneComponent::Etcd { "3.6.6-0" } else { "v1.35.4" };
                let image = format!("registry.k8s.io/{}:{tag}", component.name());
                let template =
                    cluster.template(CopyTemplate { containers: vec![("c".into(), image)], ..CopyTemplate::default() });
                let name = format!("{}-m{index}", component.name());
                cluster.pod("kube-system", &name, None, Some(node), template);
                if let Some(pod) = cluster.copy.pods.last_mut() {
                    pod.is_mirror = true;
                }
            }
        }
        for index in 0..workers {
            cluster.node(&format!("w{index:02}"));
        }
        cluster
    }

    fn node(&mut self, name: &str) -> usize {
        self.copy.nodes.push(CopyNode {
            name: name.into(),
            uid: format!("uid-{name}"),
            machine_id: format!("machine-{name}"),
            architecture: "amd64".into(),
            kubelet: "v1.35.4".into(),
            runtime: "containerd://2.1.4".into(),
            labels: labels(&[("shiplock.dev/pool", "blue")]),
            allocatable: CopyResources { cpu_millis: 4_000, memory_bytes: 16 << 30, pods: 110 },
            ..CopyNode::default()
        });
        self.copy.nodes.len() - 1
    }

    fn template(&mut self, template: CopyTemplate) -> usize {
        self.copy.templates.push(template);
        self.copy.templates.len() - 1
    }

    fn pod(&mut self, namespace: &str, name: &str, owner: Option<usize>, node: Option<usize>, template: usize) {
        self.copy.pods.push(CopyPod {
            namespace: namespace.into(),
            name: name.into(),
            uid: format!("uid-{namespace}-{name}"),
            owner,
            node,
            template,
            ready: true,
            ..CopyPod::default()
        });
    }

    /// A Deployment whose pods are on the workers from the first on.
    fn deployment(mut self, name: &str, replicas: usize, cpu_millis: i64) -> Self {
        let template = self.template(CopyTemplate {
            labels: labels(&[("app", name)]),
            requests: CopyResources { cpu_millis, memory_bytes: 64 << 20, pods: 1 },
            ..CopyTemplate::default()
        });
        let selector = CopySelector { labels: labels(&[("app", name)]), ..CopySelector::default() };
        let workload = |kind: &str, name: String, owner| CopyWorkload {
            kind: kind.into(),
            namespace: "shop".into(),
            uid: format!("uid-{kind}-{name}"),
            name,
            replicas: i64::try_from(replicas).unwrap(),
            template,
            selector: selector.clone(),
            owner,
            ..CopyWorkload::default()
        };
        self.copy.workloads.push(workload("Deployment", name.to_owned(), None));
        let deployment = self.copy.workloads.len() - 1;
        self.copy.workloads.push(workload("ReplicaSet", format!("{name}-7c9"), Some(deployment)));
        let workers: Vec<usize> =
            (0..self.copy.nodes.len()).filter(|node| !self.copy.nodes[*node].is_master()).collect();
        for index in 0..replicas {
            let node = workers[index % workers.len()];
            self.pod("shop", &format!("{name}-7c9-{index}"), Some(deployment + 1), Some(node), template);
        }
        self
    }

    /// kube-proxy, on each worker.
    fn kube_proxy(mut self) -> Self {
        let own = labels(&[("k8s-app", "kube-proxy")]);
        let template = self.template(CopyTemplate {
            labels: own.clone(),
            containers: vec![("kube-proxy".into(), "registry.k8s.io/kube-proxy:v1.35.4".into())],
            ..CopyTemplate::default()
        });
        self.copy.workloads.push(CopyWorkload {
            kind: "DaemonSet".into(),
            namespace: "kube-system".into(),
            name: "kube-proxy".into(),
            uid: "uid-kube-proxy".into(),
            template,
            selector: CopySelector { labels: own, ..CopySelector::default() },
            ..CopyWorkload::default()
        });
        let owner = self.copy.workloads.len() - 1;
        for node in (0..self.copy.nodes.len()).filter(|node| !self.copy.nodes[*node].is_master()).collect::<Vec<_>>() {
            self.pod("kube-system", &format!("kube-proxy-{node}"), Some(owner), Some(node), template);
        }
        self
    }

    fn budget(mut self, name: &str, min_available: &str) -> Self {
        self.copy.budgets.push(CopyBudget {
            namespace: "shop".into(),
            name: name.into(),
            selector: Some(CopySelector { labels: labels(&[("app", name)]), ..CopySelector::default() }),
            min_available: Some(min_available.into()),
            ..CopyBudget::default()
        });
        self
    }

    fn snapshot(&self) -> Snapshot {
        let taken_at = "2026-11-27T08:00:00Z".parse().unwrap();
        let copy = Read::Seen(self.copy.clone());
        Snapshot { copy, ..Snapshot::blank("https://x:6443", self.version, taken_at) }
    }

    fn prepare(&self, options: PlanOptions) -> Result<Prepared, Problem> {
        let request = for_all(options);
        prepare(self.snapshot(), &request, Source::Nothing)
    }

    fn rehearse(&self, options: PlanOptions) -> Report {
        rehearse(&self.prepare(options).unwrap(), &plainly(), &|_, _| {})
    }
}

fn plainly() -> Options {
    Options { drawn_runs: 0, left_out: None, compare: false, floor_percent: 50, seed: 1, threads: 2 }
}

fn nodes(report: &Report, batch: usize) -> Vec<Vec<&str>> {
    let stage = report.stages.iter().filter(|stage| stage.pool.is_some()).nth(batch).unwrap();
    stage.batches.iter().map(|batch| batch.nodes.iter().map(|node| node.node.as_str()).collect()).collect()
}

#[test]
fn an_upgrade_is_rehearsed_to_its_end_by_the_batch_law() {
    let report = Cluster::new(3, 8).deployment("cart", 8, 100).rehearse(PlanOptions::default());
    assert!(report.ended_early.is_none(), "{:?}", report.ended_early);
    let words: Vec<&str> = report.stages.iter().map(|stage| stage.stage).collect();
    assert_eq!(
        words,
        ["preparation", "backup", "control_plane", "cluster_configuration", "add_ons", "node_pool", "verification"]
    );
    let sizes: Vec<usize> = nodes(&report, 0).iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 2, 4, 1]);
    assert!(report.blockers.is_empty() && report.unplaced.is_empty(), "{:?}", report.blockers);
    let Range { nominal_milliseconds, lower_milliseconds, upper_milliseconds } = report.total;
    assert!(
        lower_milliseconds < nominal_milliseconds && nominal_milliseconds < upper_milliseconds,
        "{:?}",
        report.total
    );
    assert!(report.stages.windows(2).all(|two| two[0].end_milliseconds <= two[1].begin_milliseconds));
}

#[test]
fn a_budget_that_allows_nothing_is_named_with_pod_owner_and_fix_and_is_not_counted_as_time() {
    let free = Cluster::new(1, 3).deployment("cart", 1, 100).rehearse(PlanOptions::default());
    let cluster = Cluster::new(1, 3).deployment("cart", 1, 100).budget("cart", "1");
    let report = cluster.rehearse(PlanOptions::default());
    // The person loosens the budget: what is made anew goes to a node that is yet to be drained, and does not block there.
    let [held] = &report.blockers[..] else { panic!("{:?}", report.blockers) };
    assert!(held.node == "w00" && held.begin_milliseconds > 0 && held.until == HeldUntil::PersonActs, "{held:?}");
    let Waiting::PodDisruptionBudget { pod, budgets, owner, .. } = &held.waiting_on.what else { panic!("{held:?}") };
    assert_eq!((pod.as_str(), budgets.as_slice()), ("shop/cart-7c9-0", &["shop/cart".to_owned()][..]));
    assert_eq!(owner.as_deref(), Some("Deployment cart"));
    assert!(held.fix.as_ref().is_some_and(|fix| fix.contains("edit pdb cart")), "{held:?}");
    assert!(report.nodes_at_risk.iter().any(|node| node.node == "w00" && node.risks.contains(&Risk::DrainBlocks)));
    assert_eq!(report.pauses.len(), 1, "{:?}", report.pauses);
    assert!(report.needs_a_person() && report.timed_out.is_empty(), "{:?}", report.timed_out);
    // The 30 minutes of the drain are not in it; some seconds until it was known to block are.
    let more = report.total.nominal_milliseconds.saturating_sub(free.total.nominal_milliseconds);
    assert!(more < 60_000, "{more} ms more");
}

#[test]
fn drains_of_one_batch_that_block_together_are_counted_once_whatever_is_drawn() {
    let on_second_and_third = |mut cluster: Cluster| {
        for (pod, node) in cluster.copy.pods.iter_mut().filter(|pod| pod.namespace == "shop").zip([2, 3]) {
            pod.node = Some(node);
        }
        cluster
    };
    let options = Options { drawn_runs: 20, ..plainly() };
    let rehearsed = |cluster: &Cluster| {
        rehearse(
            &cluster.prepare(PlanOptions { max_parallel: 2, ..PlanOptions::default() }).unwrap(),
            &options,
            &|_, _| {},
        )
    };
    let free = rehearsed(&on_second_and_third(Cluster::new(1, 4).deployment("cart", 2, 100)));
    let report = rehearsed(&on_second_and_third(Cluster::new(1, 4).deployment("cart", 2, 100).budget("cart", "2")));
    let blocked: Vec<&str> = report.blocked_nodes().collect();
    assert_eq!(blocked, ["w01", "w02"], "{:?}", report.blockers);
    let percentiles = &report.percentiles;
    assert!(percentiles["p10"] >= free.total.lower_milliseconds, "{percentiles:?} {:?}", free.total);
    for (name, percentile) in percentiles {
        let range = report.total.lower_milliseconds..=report.total.upper_milliseconds;
        assert!(range.contains(percentile), "{name}: {percentile} {range:?}");
    }
}

#[test]
fn few_runs_have_no_percentiles() {
    let prepared = Cluster::new(1, 3).prepare(PlanOptions::default()).unwrap();
    for (drawn_runs, have) in [(0, false), (4, false), (5, true)] {
        let report = rehearse(&prepared, &Options { drawn_runs, ..plainly() }, &|_, _| {});
        assert_eq!((report.percentiles.len() == 3, report.whole_drawn_runs), (have, drawn_runs as usize));
    }
}

/// One node after another, and a pod on the first whose budget allows nothing; and how much longer that takes.
fn timed_out(on_drain_timeout: OnDrainTimeout) -> (Report, u64) {
    let options = PlanOptions {
        on_drain_timeout,
        drain_timeout_seconds: 600,
        max_parallel: 1,
        accept: vec!["CP-003".into()],
        ..PlanOptions::default()
    };
    let free = Cluster::new(1, 3).deployment("cart", 1, 100).rehearse(options.clone());
    let report = Cluster::new(1, 3).deployment("cart", 1, 100).budget("cart", "1").rehearse(options);
    assert!(report.ended_early.is_none() && report.pauses.is_empty(), "{:?} {:?}", report.ended_early, report.pauses);
    assert!(report.blockers.is_empty() && !report.needs_a_person(), "{:?}", report.blockers);
    let more = report.total.nominal_milliseconds.saturating_sub(free.total.nominal_milliseconds);
    (report, more)
}

#[test]
fn a_drain_whose_node_is_left_out_after_its_time_takes_that_time() {
    let (report, more) = timed_out(OnDrainTimeout::Skip);
    let [held] = &report.timed_out[..] else { panic!("{:?}", report.timed_out) };
    assert!(held.node == "w00" && held.until == HeldUntil::NodeLeftOut, "{held:?}");
    assert!((590_000..=600_000).contains(&held.lasted_milliseconds), "{held:?}");
    // What the other steps of the node take is saved.
    assert!((570_000..605_000).contains(&more), "{more} ms more");
    let risks = &report.nodes_at_risk;
    assert!(risks.iter().any(|node| node.node == "w00" && node.risks == [Risk::LeftOut]), "{risks:?}");
    let batch = report.stages.iter().find(|stage| stage.pool.is_some()).map(|stage| &stage.batches[0]).unwrap();
    assert!(batch.end_milliseconds - batch.begin_milliseconds > 600_000, "{batch:?}");
}

#[test]
fn a_drain_that_forces_after_its_time_takes_that_time_wherever_the_pod_goes() {
    let (report, more) = timed_out(OnDrainTimeout::Force);
    let nodes: Vec<&str> = report.timed_out.iter().map(|held| held.node.as_str()).collect();
    assert!(nodes.len() >= 2 && nodes[0] == "w00", "where the pod is, and where it goes: {:?}", report.timed_out);
    for held in &report.timed_out {
        assert!(held.until == HeldUntil::PodDeleted && held.lasted_milliseconds > 590_000, "{held:?}");
    }
    let expected = 600_000 * report.timed_out.len() as u64;
    assert!((expected - 10_000..expected + 60_000).contains(&more), "{more} ms more, not {expected}");
    // It is gone only while it is made anew, not for the time in which its budget held it.
    let line = report.workloads.iter().find(|line| line.workload.ends_with("cart")).unwrap();
    assert!((1_000..120_000).contains(&line.at_zero_milliseconds), "{line:?}");
}

#[test]
fn several_budgets_of_one_pod_are_seen_to_as_the_remedy_has_it() {
    let mut cluster = Cluster::new(1, 3).deployment("cart", 2, 100).budget("cart", "0");
    let mut further = cluster.copy.budgets[0].clone();
    further.name = "more".into();
    cluster.copy.budgets.push(further);
    let report = cluster.rehearse(PlanOptions { max_parallel: 1, ..PlanOptions::default() });
    let [held] = &report.blockers[..] else { panic!("{:?}", report.blockers) };
    assert!(held.fix.as_ref().is_some_and(|fix| fix.contains("delete pdb more")), "{held:?}");
    assert!(report.ended_early.is_none(), "{:?}", report.ended_early);
}

#[test]
fn what_ends_and_comes_back_beside_a_pod_that_blocks_is_away_for_its_time() {
    // On the node of the one that blocks is the only pod of another: it ends and is made anew while the drain is held.
    let cluster = Cluster::new(1, 3).deployment("cart", 1, 100).budget("cart", "1").deployment("till", 1, 100);
    let report = cluster.rehearse(PlanOptions::default());
    assert_eq!(report.blockers.len(), 1, "{:?}", report.blockers);
    let free = Cluster::new(1, 3).deployment("till", 1, 100).rehearse(PlanOptions::default());
    let away = |report: &Report| {
        let till = report.workloads.iter().find(|line| line.workload.ends_with("till")).unwrap();
        (till.lowest, till.at_zero_milliseconds)
    };
    assert_eq!(away(&report), away(&free), "{:?}", report.workloads);
    assert!(away(&free).1 > 1_000, "{:?}", free.workloads);
}

#[test]
fn a_workload_of_one_pod_falls_to_zero_and_one_of_many_does_not() {
    let report =
        Cluster::new(1, 4).deployment("one", 1, 100).deployment("many", 8, 100).rehearse(PlanOptions::default());
    let hurt: Vec<&str> = report.workloads.iter().map(|line| line.workload.as_str()).collect();
    assert!(hurt.contains(&"Deployment shop/one"), "{hurt:?}");
    let one = report.workloads.iter().find(|line| line.workload.ends_with("one")).unwrap();
    assert!(one.lowest == 0 && one.ready_before == 1 && one.at_zero_milliseconds > 1_000, "{one:?}");
    assert!(
        report.workloads.iter().all(|line| !line.workload.ends_with("many") || line.lowest > 0),
        "{:?}",
        report.workloads
    );
}

#[test]
fn pods_for_which_there_is_no_room_are_told_and_a_smaller_bound_is_advised() {
    // Each node is three quarters full: one node's pods fit nowhere once two are away.
    let cluster = Cluster::new(1, 4).deployment("fat", 4, 3_000);
    let report = cluster.rehearse(PlanOptions::default());
    assert!(!report.unplaced.is_empty());
    assert!(report.unplaced[0].why.contains("too few resources"), "{:?}", report.unplaced);
}

#[test]
fn an_add_on_that_never_gets_ready_is_told_once_and_ends_the_rehearsal_where_it_is() {
    let mut cluster = Cluster::new(1, 3).kube_proxy();
    let template = cluster.copy.workloads.last().unwrap().template;
    cluster.copy.templates[template].ready_delay_seconds = 30 * 86_400;
    let report = cluster.rehearse(PlanOptions::default());
    assert!(report.ended_early.is_some(), "{:?}", report.pauses);
    assert_eq!(report.pauses.len(), 1, "{:?}", report.pauses);
    assert!(report.total.nominal_milliseconds < 1_800_000, "{:?}", report.total);
    let last = report.stages.last().unwrap();
    assert!(last.stage == "add_ons" && last.end_milliseconds == report.total.nominal_milliseconds, "{last:?}");
    assert!(last.takes.nominal_milliseconds > 0, "{last:?}");
}

#[test]
fn an_add_on_that_gets_ready_node_by_node_is_waited_for_however_many_there_are() {
    let mut cluster = Cluster::new(1, 60).kube_proxy();
    let template = cluster.copy.workloads.last().unwrap().template;
    let limit = cluster.prepare(PlanOptions::default()).unwrap().plan;
    let limit = limit.steps().find(|step| matches!(step.action, Action::VerifyAddons { .. })).unwrap().timeout_seconds;
    // Sixty such pods one after another take more attempts than a pod that never gets ready is given.
    cluster.copy.templates[template].ready_delay_seconds = i64::from(limit);
    let report = cluster.rehearse(PlanOptions::default());
    assert!(report.ended_early.is_none() && report.unfinished.is_none(), "{:?}", report.ended_early);
    assert!(report.total.nominal_milliseconds > 24_000 * u64::from(limit), "{:?}", report.total);
}

#[test]
fn nodes_that_are_not_ready_would_stop_the_start_and_are_rehearsed_as_if_they_were() {
    let ready = Cluster::new(3, 3).kube_proxy().deployment("cart", 6, 100);
    let mut cluster = Cluster::new(3, 3).kube_proxy().deployment("cart", 6, 100);
    for name in ["m1", "w02"] {
        let place = cluster.copy.nodes.iter().position(|node| node.name == name).unwrap();
        cluster.copy.nodes[place].not_ready = Some("its kubelet is silent".into());
        // As the node lifecycle controller has it.
        cluster.copy.pods.iter_mut().filter(|pod| pod.node == Some(place)).for_each(|pod| pod.ready = false);
    }
    let (report, expected) = (cluster.rehearse(PlanOptions::default()), ready.rehearse(PlanOptions::default()));
    let found: Vec<(&str, &str, Option<Code>)> = report
        .findings
        .iter()
        .map(|found| (&*found.check, &*found.subject, found.problem.as_ref().map(|problem| problem.code)))
        .collect();
    let not_ready = Some(Code::NodeNotReady);
    assert_eq!(found, [("CP-002", "node m1", not_ready), ("NODE-001", "node w02", not_ready)]);
    assert!(report.needs_a_person() && report.ended_early.is_none(), "{:?}", report.ended_early);
    assert_eq!(report.total, expected.total, "all the rest is answered");
    assert_eq!(nodes(&report, 0), nodes(&expected, 0));
    let nodes = ["m1".to_owned(), "w02".to_owned()].to_vec();
    assert!(report.unknown.contains(&Unknown::NotReady { nodes }), "{:?}", report.unknown);
    let at_risk: Vec<&str> = report.nodes_at_risk.iter().map(|line| line.node.as_str()).collect();
    assert_eq!(at_risk, ["m1", "w02"]);
    // A worker may be let pass, a master never.
    let accept = vec!["NODE-001".to_owned(), "CP-002".to_owned()];
    let report = cluster.rehearse(PlanOptions { accept, ..PlanOptions::default() });
    assert_eq!(report.findings.iter().map(|found| found.check.as_str()).collect::<Vec<_>>(), ["CP-002"]);
}

#[test]
fn a_run_that_does_not_come_to_its_end_is_told_and_is_in_no_time() {
    // A pod that takes the longest to be ready is so after all attempts to read it back.
    let mut cluster = Cluster::new(1, 3).kube_proxy();
    let template = cluster.copy.workloads.last().unwrap().template;
    let limit = cluster.prepare(PlanOptions::default()).unwrap().plan;
    let limit = limit.steps().find(|step| matches!(step.action, Action::VerifyAddons { .. })).unwrap().timeout_seconds;
    cluster.copy.templates[template].ready_delay_seconds = i64::from(limit) * 7;
    let report = cluster.rehearse(PlanOptions::default());
    assert!(report.ended_early.is_none(), "{:?}", report.ended_early);
    let unfinished = report.unfinished.unwrap();
    assert_eq!((unfinished.runs, unfinished.of), (1, 2));
    assert!(report.total.upper_milliseconds >= report.total.nominal_milliseconds, "{:?}", report.total);
}

#[test]
fn a_cluster_of_masters_alone_and_one_of_a_single_node_are_rehearsed() {
    for (masters, taints) in [(3, true), (1, true), (1, false)] {
        let mut cluster = Cluster::new(masters, 0);
        if !taints {
            cluster.copy.nodes[0].taints.clear();
            let template = cluster.template(CopyTemplate::default());
            cluster.pod("shop", "bare", None, Some(0), template);
        }
        let report = cluster.rehearse(PlanOptions::default());
        assert!(report.ended_early.is_none(), "{masters}: {:?}", report.ended_early);
        assert!(report.stages.iter().any(|stage| stage.stage == "control_plane") && report.blockers.is_empty());
        assert!(report.stages.iter().all(|stage| stage.pool.is_none()), "{:?}", report.stages);
    }
}

#[test]
fn a_soak_is_rehearsed_with_its_time() {
    let cluster = Cluster::new(3, 2).deployment("shop", 4, 100);
    let report = cluster.rehearse(PlanOptions { soak_seconds: 7_200, ..PlanOptions::default() });
    assert!(report.ended_early.is_none(), "{:?}", report.ended_early);
    assert!(report.total.nominal_milliseconds > 7_200_000, "{:?}", report.total);
}

#[test]
fn bare_pods_and_volumes_of_one_node_are_at_risk() {
    let mut cluster = Cluster::new(1, 2);
    let template = cluster.template(CopyTemplate { claims: vec!["data".into()], ..CopyTemplate::default() });
    cluster.pod("shop", "bare", None, Some(1), template);
    cluster.copy.claims.push(CopyClaim {
        namespace: "shop".into(),
        name: "data".into(),
        node: Some("w00".into()),
        ..CopyClaim::default()
    });
    let report = cluster.rehearse(PlanOptions::default());
    let expected = [
        Risk::BarePods { count: 1, example: "shop/bare".into() },
        Risk::LocalVolumes { count: 1, example: "shop/bare".into() },
    ];
    assert_eq!(report.nodes_at_risk, [NodeLine { node: "w00".into(), risks: expected.to_vec() }]);
}

#[test]
fn the_same_seed_gives_the_same_report_whatever_runs_beside() {
    let prepared = Cluster::new(1, 5).deployment("cart", 5, 100).prepare(PlanOptions::default()).unwrap();
    let report = |threads| {
        let options = Options { drawn_runs: 6, compare: true, threads, seed: u64::MAX, ..plainly() };
        serde_json::to_string(&rehearse(&prepared, &options, &|_, _| {})).unwrap()
    };
    assert_eq!(report(1), report(3));
}

#[test]
fn a_cluster_whose_version_is_outside_the_catalogue_has_its_drains_answered() {
    let mut cluster = Cluster::new(0, 3).deployment("cart", 1, 100).budget("cart", "1");
    cluster.version = "v1.99.0";
    for node in &mut cluster.copy.nodes {
        node.kubelet = "v1.99.0".into();
    }
    let report = cluster.rehearse(PlanOptions::default());
    assert_eq!(report.drains_only.as_ref().map(|problem| problem.code), Some(Code::SnapshotVersionUnknown));
    assert_eq!((report.to, report.blockers.len()), (None, 1), "{:?}", report.blockers);
}

#[test]
fn a_cluster_that_has_the_version_has_nothing_to_rehearse() {
    let request = PlanRequest { to: VersionRequest::parse("1.35").unwrap(), ..for_all(PlanOptions::default()) };
    let refused = prepare(Cluster::new(1, 3).snapshot(), &request, Source::Nothing).unwrap_err();
    assert_eq!(refused.code, Code::NothingToDo);
}

#[test]
fn a_snapshot_without_a_copy_or_with_an_impossible_one_is_refused_with_a_code() {
    let request = |snapshot| {
        let request = for_all(PlanOptions::default());
        prepare(snapshot, &request, Source::Nothing).unwrap_err().code
    };
    let mut snapshot = Cluster::new(1, 1).snapshot();
    snapshot.copy = Read::NotAsked;
    assert_eq!(request(snapshot.clone()), Code::SnapshotWithoutCopy);
    let mut cluster = Cluster::new(1, 1).deployment("cart", 1, 100);
    cluster.copy.workloads[0].owner = Some(0);
    assert_eq!(request(cluster.snapshot()), Code::SnapshotRefused);
    let cluster = Cluster::new(1, 1);
    let far = Snapshot { taken_at: "9999-12-30T22:00:00Z".parse().unwrap(), ..cluster.snapshot() };
    assert_eq!(request(far), Code::SnapshotRefused);
    for version in ["banana", "", "v99999999999999999999.1.1", "v1.99.0"] {
        let other = Snapshot { version: version.to_owned(), ..cluster.snapshot() };
        assert_eq!(request(other), Code::SnapshotRefused, "{version}: its API server runs 1.35");
    }
    for kubelet in ["", "0", "-1"] {
        let mut cluster = Cluster::new(1, 1);
        cluster.copy.nodes[1].kubelet = kubelet.to_owned();
        assert_eq!(request(cluster.snapshot()), Code::SnapshotRefused, "{kubelet}");
    }
}

/// Whoever wrote the file: what is accepted is rehearsed, to an end that is told.
#[test]
fn a_copy_of_odd_numbers_that_is_accepted_is_rehearsed_and_never_a_panic() {
    let mut accepted = 0;
    for seed in 0..60 {
        let mut luck = ChaCha8Rng::seed_from_u64(seed);
        let (masters, workers) = (luck.random_range(0..3), luck.random_range(1..5));
        let mut cluster = Cluster::new(masters, workers).deployment("cart", 3, 100).budget("cart", "200%");
        let odd = [0, 1, 7, 50, 31_000_000, i64::from(i32::MAX), 1 << 60];
        let odd = |luck: &mut ChaCha8Rng| odd[luck.random_range(0..odd.len())];
        for template in &mut cluster.copy.templates {
            template.grace_seconds = luck.random_bool(0.5).then(|| odd(&mut luck));
            template.ready_delay_seconds = odd(&mut luck);
            template.priority = if luck.random_bool(0.5) { -odd(&mut luck) } else { odd(&mut luck) };
            template.requests.cpu_millis = odd(&mut luck);
        }
        for node in &mut cluster.copy.nodes {
            node.allocatable.cpu_millis = odd(&mut luck);
            node.unschedulable = luck.random_bool(0.2);
            node.not_ready = luck.random_bool(0.2).then(|| "off".to_owned());
            if luck.random_bool(0.1) {
                node.kubelet = "no version".into();
            }
        }
        for workload in &mut cluster.copy.workloads {
            workload.replicas = luck.random_range(0..40);
        }
        for pod in cluster.copy.pods.iter_mut().filter(|pod| !pod.is_mirror) {
            (pod.ready, pod.node) = (luck.random_bool(0.7), pod.node.filter(|_| luck.random_bool(0.8)));
            pod.owner = pod.owner.filter(|_| luck.random_bool(0.8));
        }
        let options = PlanOptions { on_drain_timeout: OnDrainTimeout::Skip, ..PlanOptions::default() };
        if let Ok(prepared) = cluster.prepare(options) {
            accepted += 1;
            rehearse(&prepared, &plainly(), &|_, _| {});
        }
    }
    assert!(accepted > 0);
}

#[test]
fn pods_whose_end_was_measured_end_so_and_others_do_not_follow_the_drains_that_were() {
    let cluster = Cluster::new(1, 2).deployment("slow", 1, 100);
    let mut prepared = cluster.prepare(PlanOptions { max_parallel: 1, ..PlanOptions::default() }).unwrap();
    let drains = |prepared: &Prepared| {
        let report = rehearse(prepared, &plainly(), &|_, _| {});
        let drains = report.steps.into_iter().filter(|step| step.kind == "drain");
        drains.map(|step| step.end_milliseconds - step.begin_milliseconds).collect::<Vec<_>>()
    };
    let range = |milliseconds| Estimate { lower_milliseconds: milliseconds, upper_milliseconds: milliseconds };
    prepared.plan.measured.insert("drain".into(), range(29_000));
    assert!(drains(&prepared).iter().all(|took| *took < 10_000), "{:?}", drains(&prepared));
    prepared.plan.measured.insert("pod_end Deployment shop/slow".into(), range(20_000));
    assert!(drains(&prepared).iter().any(|took| (20_000..21_000).contains(took)), "{:?}", drains(&prepared));
}

#[test]
fn a_better_setting_harms_fewer_or_is_much_faster() {
    let setting = |max_parallel, nominal_milliseconds, workloads_at_zero| Setting {
        max_parallel,
        nominal_milliseconds,
        workloads_at_zero,
        unplaced: 0,
        blockers: 0,
    };
    let cases = [
        (vec![setting(10, 1_000, 2), setting(5, 1_500, 1), setting(1, 9_000, 1)], Some((5, Because::FewerAtZero))),
        (vec![setting(10, 1_000, 1), setting(20, 600, 1)], Some((20, Because::Faster))),
        (vec![setting(10, 1_000, 1), setting(20, 950, 1), setting(40, 500, 2)], None),
    ];
    for (settings, expected) in cases {
        let expected: Vec<Advice> =
            expected.map(|(max_parallel, because)| Advice::MaxParallel { max_parallel, because }).into_iter().collect();
        assert_eq!(Setting::advice(&settings), expected);
    }
}
