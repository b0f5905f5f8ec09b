//! Checks of a dedicated control plane that is to be upgraded. Ids as in the catalogue of checks.

use std::collections::BTreeMap;

use super::{CheckResult, Finding, edits_unknown, finding};
use crate::facts::{AddonFacts, AgentFacts, ClusterFacts, EtcdFacts, Observed, Readiness, not_ready};
use crate::id::NodeName;
use crate::plan::{Mode, NewApiObjects, Note, Plan, StageKind};
use crate::problem::{Code, Problem};
use crate::step::{Action, ControlPlaneUpgrade};

/// Where static pods are.
const MANIFESTS: &str = "/etc/kubernetes/manifests";

type Outcome = Result<(), (CheckResult, Problem)>;

/// All checks; none where the plan does not touch the control plane.
pub(super) fn check(plan: &Plan, cluster: &ClusterFacts, agents: &BTreeMap<NodeName, AgentFacts>) -> Vec<Finding> {
    if !plan.stages.iter().any(|stage| stage.kind == StageKind::ControlPlane) {
        return Vec::new();
    }
    let mut findings = vec![finding("CP-003", format!("cluster {}", plan.cluster), check_count(plan))];
    if plan.mode == Mode::Rollback {
        findings.extend(
            check_new_apis(plan)
                .into_iter()
                .map(|outcome| finding("CP-015", format!("cluster {}", plan.cluster), outcome)),
        );
    }
    for (name, node) in cluster.nodes.iter().filter(|(_, node)| node.is_control_plane()) {
        let subject = || format!("node {name}");
        let ready = match &node.ready {
            Readiness::Ready => Ok(()),
            Readiness::NotReady { why } => Err((CheckResult::Fail, not_ready(name, why))),
        };
        findings.push(finding("CP-002", subject(), ready));
        findings.push(finding("CP-004", subject(), check_etcd(name, agents)));
        let told = agents.get(name).and_then(|agent| agent.machine.control_plane.as_deref());
        let webhook = told.and_then(|told| told.refusing_webhook.clone());
        findings.push(finding(
            "WHK-016",
            subject(),
            webhook.map_or(Ok(()), |problem| Err((CheckResult::Fail, problem))),
        ));
        if let Some(upgrade) = upgrade_of(plan, name) {
            findings.extend(
                check_hand_edits(name, upgrade, agents)
                    .into_iter()
                    .map(|outcome| finding("CP-008", subject(), outcome)),
            );
        }
    }
    let with_addons = plan.stages.iter().any(|stage| stage.kind == StageKind::AddOns);
    findings.extend(cluster.addons.iter().filter(|_| with_addons).map(|addon| {
        let object =
            format!("{} kube-system/{}", if addon.name == "coredns" { "Deployment" } else { "DaemonSet" }, addon.name);
        finding("ADD-008", object.clone(), check_addon(&object, addon))
    }));
    findings
}

/// kubeadm writes an add-on's object anew; what others have set in it is lost.
fn check_addon(object: &str, addon: &AddonFacts) -> Outcome {
    let Some(edit) = addon.edits.first() else { return Ok(()) };
    let edited = Problem::new(Code::AddonEdited).with("object", object).with("by", &edit.by);
    let edited = edited.with("fields", edit.fields.join(", "));
    let others = addon.edits.iter().skip(1);
    Err((
        CheckResult::Fail,
        others.fold(edited, |problem, edit| problem.cause(format!("{}: {}", edit.by, edit.fields.join(", ")))),
    ))
}

fn upgrade_of<'a>(plan: &'a Plan, node: &NodeName) -> Option<&'a ControlPlaneUpgrade> {
    plan.node(node)?.steps.iter().find_map(|step| match &step.action {
        Action::UpgradeControlPlane(upgrade) => Some(&**upgrade),
        _ => None,
    })
}

/// One master means an outage of the API, which is to be accepted.
fn check_count(plan: &Plan) -> Outcome {
    let away = plan.notes.iter().find_map(|note| match note {
        Note::ApiAway { node, seconds } => Some((node, seconds)),
        _ => None,
    });
    match away {
        Some((node, seconds)) => {
            Err((CheckResult::Fail, Problem::new(Code::SingleMaster).with("node", node).with("seconds", seconds)))
        }
        None => Ok(()),
    }
}

/// Objects that the older version does not serve would be out of sight, and what was not read counts as being there.
fn check_new_apis(plan: &Plan) -> Vec<Outcome> {
    let outcomes: Vec<Outcome> = plan
        .notes
        .iter()
        .filter_map(|note| match note {
            Note::NewApiObjects(NewApiObjects { api, count, names }) => {
                let problem = Problem::new(Code::ObjectsOfNewApis).with("count", count).with("api", api);
                Some(problem.with("names", names.join(", ")))
            }
            Note::NewApisUnknown { problem } => {
                Some(Problem::new(Code::NewApisUnknown).with("cluster", &plan.cluster).because(problem))
            }
            _ => None,
        })
        .map(|problem| Err((CheckResult::Fail, problem)))
        .collect();
    if outcomes.is_empty() { vec![Ok(())] } else { outcomes }
}

fn check_etcd(node: &NodeName, agents: &BTreeMap<NodeName, AgentFacts>) -> Outcome {
    let not_well = |why: String| Problem::new(Code::EtcdNotWell).with("node", node).with("why", why);
    let facts = agents.get(node).and_then(|agent| agent.machine.control_plane.as_deref());
    match facts.map(|facts| &facts.etcd) {
        None => Err((CheckResult::Unknown, not_well("no agent tells of it".to_owned()))),
        Some(EtcdFacts::External { .. }) => Ok(()),
        Some(EtcdFacts::Stacked { cluster: Observed::Unknown { problem, .. } }) => {
            Err((CheckResult::Unknown, not_well("it could not be read".to_owned()).because(problem)))
        }
        Some(EtcdFacts::Stacked { cluster: Observed::Known(etcd) }) => match etcd.why_untouchable() {
            None => Ok(()),
            Some(why) => Err((CheckResult::Fail, not_well(why))),
        },
    }
}

/// What kubeadm would not render is lost, unless it is given as patches: then the agent compares again.
fn check_hand_edits(
    node: &NodeName,
    upgrade: &ControlPlaneUpgrade,
    agents: &BTreeMap<NodeName, AgentFacts>,
) -> Vec<Outcome> {
    let facts = agents.get(node).and_then(|agent| agent.machine.control_plane.as_deref());
    let edited = |path: &str| Problem::new(Code::HandEdited).with("path", path).with("node", node);
    match facts.map(|facts| &facts.hand_edits) {
        None => vec![Err((CheckResult::Unknown, edits_unknown(MANIFESTS, node).cause("no agent tells of it")))],
        Some(Observed::Unknown { problem, .. }) => {
            // Unknown counts as edited, and may be let go like it: the node has no kubeadm that could tell.
            vec![Err((CheckResult::Fail, edits_unknown(MANIFESTS, node).because(problem)))]
        }
        Some(Observed::Known(edits)) if edits.is_empty() || upgrade.patches_folder.is_some() => vec![Ok(())],
        Some(Observed::Known(edits)) => {
            edits.iter().map(|edit| Err((CheckResult::Fail, edited(&edit.path).cause(&edit.difference)))).collect()
        }
    }
}
