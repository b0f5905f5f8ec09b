use super::*;
use crate::facts::{NodeFacts, Readiness};
use crate::problem::Code;
use crate::sample::{agents, at, cluster, cluster_with_masters, plan_of, request, request_for_all};

/// What `NOD-002` says of a plan, where it stops the start.
fn stopped(plan: &Plan, cluster: &ClusterFacts) -> Vec<String> {
    let report = check_plan(plan, cluster, &agents(cluster, at(0)), at(0));
    let told = |finding: &Finding| {
        let problem = finding.problem.clone().unwrap();
        assert_eq!(problem.code, Code::PlanStale);
        problem.parameters["what"].clone()
    };
    report.blocking().filter(|finding| finding.check == "NOD-002").map(told).collect()
}

#[test]
fn a_drain_whose_pods_have_no_other_node_any_more_stops_the_start_by_name() {
    let planned_for = cluster(&[("blue", 2)]);
    let plan = plan_of(&planned_for, &request("1.36", crate::plan::PlanOptions::default())).unwrap();
    assert_eq!(stopped(&plan, &planned_for), [""; 0]);
    let other = planned_for.nodes["blue-02"].clone();
    let changes = [
        (
            "blue-02 has the taint example.com/busy",
            NodeFacts { taints: vec!["example.com/busy".to_owned()], ..other.clone() },
        ),
        ("blue-02 is cordoned", NodeFacts { unschedulable: true, ..other.clone() }),
        ("blue-02 is not Ready", NodeFacts { ready: Readiness::NotReady { why: "silent".to_owned() }, ..other }),
    ];
    for (why, changed) in changes {
        let mut now = planned_for.clone();
        now.nodes.insert("blue-02".into(), changed);
        let stopped = stopped(&plan, &now);
        let of_the_first = format!("it drains node blue-01, and no other node takes its pods now: {why}");
        assert!(stopped.contains(&of_the_first), "{why}: {stopped:?}");
    }
}

#[test]
fn a_node_that_is_not_drained_for_want_of_another_stops_the_start_once_there_is_one() {
    let alone = cluster(&[("blue", 1)]);
    let plan = plan_of(&alone, &request("1.36", crate::plan::PlanOptions::default())).unwrap();
    assert_eq!(stopped(&plan, &alone), [""; 0]);
    let stopped = stopped(&plan, &cluster(&[("blue", 2)]));
    assert_eq!(stopped, ["it does not drain node blue-01, since no other node took its pods, and now one does"]);
}

#[test]
fn a_node_that_joined_after_the_plan_stops_the_start_where_add_ons_will_run_on_it() {
    let masters = |workers| cluster_with_masters(1, workers);
    let options = || crate::plan::PlanOptions { accept: vec!["CP-003".to_owned()], ..Default::default() };
    let plan = plan_of(&masters(2), &request_for_all("1.36", options())).unwrap();
    assert_eq!(stopped(&plan, &masters(2)), [""; 0]);
    let joined: Vec<NodeName> =
        masters(3).nodes.into_keys().filter(|node| !masters(2).nodes.contains_key(node)).collect();
    assert_eq!(
        stopped(&plan, &masters(3)),
        [format!("it fetches no images of add-ons to node {}, which is new", joined[0])]
    );

    let pools = plan_of(&cluster(&[("blue", 2)]), &request("1.36", options())).unwrap();
    assert_eq!(stopped(&pools, &cluster(&[("blue", 3)])), [""; 0]);
}
