//! The checks that guard the start of an upgrade: pure functions over facts, asked against the plan.
//!
//! Each finding has a stable id, says what it saw and what to do. What could not be seen is `unknown`, and an
//! unknown on a blocking check stops the start just as a failure does.

mod control_plane;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::facts::{AgentFacts, ApiServerFacts, ClusterFacts, InstallMethod, Observed};
use crate::id::NodeName;
use crate::plan::{DrainDecision, Mode, NodePlan, Plan, StageKind, another_node_takes_pods};
use crate::problem::{Code, Problem};
use crate::step::{Action, Executor, Step};

/// One run of all checks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CheckReport {
    /// The results, in the order of the checks.
    pub findings: Vec<Finding>,
}

/// One result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    /// The id of the check, such as `NOD-001`.
    pub check: String,
    /// The result.
    pub result: CheckResult,
    /// The object or node concerned.
    pub subject: String,
    /// What is wrong, and what to do; none for a pass.
    pub problem: Option<Problem>,
    /// Whether somebody lets this finding pass: by the plan, or by an acceptance that the server keeps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
    /// Who let it pass and why, where an acceptance did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_by: Option<String>,
    /// The stage of the plan, from 1, that repairs it before it matters; it is a pass then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired_by_stage: Option<usize>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum CheckResult {
    /// All is well.
    Pass,
    /// It should be looked at; the start is not stopped.
    Warn,
    /// The start is stopped.
    Fail,
    /// It could not be seen; the start is stopped.
    Unknown,
}

impl CheckReport {
    /// The findings that stop the start.
    pub fn blocking(&self) -> impl Iterator<Item = &Finding> {
        let stops = |finding: &&Finding| matches!(finding.result, CheckResult::Fail | CheckResult::Unknown);
        self.findings.iter().filter(stops).filter(|finding| !finding.accepted)
    }

    /// Adds what the catalogue of checks found. What a check of the plan says of the same outranks it; but where it is
    /// the same finding, and somebody let that one pass who may, it passes.
    pub fn join(&mut self, found: impl IntoIterator<Item = Finding>) {
        let ran: BTreeSet<String> = self.findings.iter().map(|finding| finding.check.clone()).collect();
        for finding in found {
            if !ran.contains(&finding.check) {
                self.findings.push(finding);
            } else if finding.accepted && ACCEPTABLE.contains(&finding.check.as_str()) {
                let is_same = |own: &&mut Finding| {
                    own.result == CheckResult::Fail && own.check == finding.check && own.subject == finding.subject
                };
                for own in self.findings.iter_mut().filter(is_same) {
                    own.accepted = true;
                    own.accepted_by.clone_from(&finding.accepted_by);
                }
            }
        }
    }
}

/// An agent that was not heard of for this long is not relied on for a start.
const AGENT_SILENCE_SECONDS_MAX: i64 = 60;
/// A finding names so many other nodes.
const OTHERS_NAMED_MAX: usize = 5;
/// Room that a node must keep beside what is fetched to it.
const STAGING_RESERVE_BYTES: u64 = 256 << 20;

/// Runs all checks of a plan against the cluster and the agents as they are now.
pub fn check_plan(
    plan: &Plan,
    cluster: &ClusterFacts,
    agents: &BTreeMap<NodeName, AgentFacts>,
    now: Timestamp,
) -> CheckReport {
    let mut findings = vec![check_identity(plan, cluster), check_skew(plan, cluster)];
    let mut steps_on: HashMap<&NodeName, Vec<&Step>> = HashMap::new();
    for step in plan.steps() {
        if let Some(node) = step.target.node() {
            steps_on.entry(node).or_default().push(step);
        }
    }
    for node in plan.nodes_in_the_end() {
        let steps = steps_on.get(&node.node).map_or(&[][..], Vec::as_slice);
        let subject = format!("node {}", node.node);
        let checks = [
            ("NOD-001", check_node(plan, node, cluster)),
            ("NOD-002", check_drain(plan, node, cluster)),
            ("AGT-001", check_agent(plan, node, steps, agents, now)),
            ("AGT-002", check_staging_space(node, steps, agents)),
            ("NODE-007", check_kubelet_configuration(node, agents)),
        ];
        findings.extend(checks.into_iter().map(|(check, outcome)| finding(check, subject.clone(), outcome)));
    }
    findings.extend(check_joined(plan, cluster, agents));
    findings.extend(control_plane::check(plan, cluster, agents));
    for finding in &mut findings {
        // A person may let go what costs an outage or an edit, and never what would break the cluster.
        finding.accepted = finding.result == CheckResult::Fail
            && ACCEPTABLE.contains(&finding.check.as_str())
            && plan.options.accepts(&finding.check);
    }
    CheckReport { findings }
}

/// Of [`CHECKS`] those whose findings a person may let pass by name.
pub const ACCEPTABLE: &[&str] = &["ADD-008", "CP-003", "CP-008", "CP-015", "NODE-007"];

/// Whether a person may let findings of a check pass by name: those of the catalogue, and of a plan's own some.
pub fn is_acceptable(check: &str) -> bool {
    ACCEPTABLE.contains(&check) || !CHECKS.contains(&check)
}

/// The ids of all checks. Each has a page `docs/checks/ID.md`; an id is never given another meaning.
pub const CHECKS: &[&str] = &[
    "ADD-008", "AGT-001", "AGT-002", "CLU-001", "CP-002", "CP-003", "CP-004", "CP-008", "CP-015", "NOD-001", "NOD-002",
    "NODE-007", "VER-014", "WHK-016",
];

fn finding(check: &str, subject: String, outcome: Result<(), (CheckResult, Problem)>) -> Finding {
    debug_assert!(CHECKS.contains(&check), "{check} is not in the list of checks");
    let (result, problem) = match outcome {
        Ok(()) => (CheckResult::Pass, None),
        Err((result, problem)) => (result, Some(problem)),
    };
    let check = check.to_owned();
    Finding { check, result, subject, problem, accepted: false, accepted_by: None, repaired_by_stage: None }
}

fn check_identity(plan: &Plan, cluster: &ClusterFacts) -> Finding {
    let outcome = if plan.cluster_uid == cluster.uid {
        Ok(())
    } else {
        let problem = Problem::new(Code::ClusterChanged).with("cluster", &plan.cluster);
        Err((CheckResult::Fail, problem.with("expected", &plan.cluster_uid).with("found", &cluster.uid)))
    };
    finding("CLU-001", format!("cluster {}", plan.cluster), outcome)
}

/// The kubelet's configuration is written anew with its upgrade; what only this node has is lost, unless kubeadm gets it
/// as patches.
fn check_kubelet_configuration(
    planned: &NodePlan,
    agents: &BTreeMap<NodeName, AgentFacts>,
) -> Result<(), (CheckResult, Problem)> {
    let patched = planned.steps.iter().any(|step| match &step.action {
        Action::UpgradeControlPlane(upgrade) => upgrade.patches_folder.is_some(),
        _ => false,
    });
    let edited = |path: &str| Problem::new(Code::HandEdited).with("path", path).with("node", &planned.node);
    match agents.get(&planned.node).and_then(|agent| agent.machine.kubelet_edits.as_ref()) {
        _ if !planned.steps.iter().any(|step| step.action.writes_kubelet_configuration()) => Ok(()),
        Some(Observed::Known(edits)) => match edits.first() {
            Some(edit) if !patched => Err((CheckResult::Fail, edited(&edit.path).cause(&edit.difference))),
            _ => Ok(()),
        },
        Some(Observed::Unknown { problem, .. }) => {
            Err((CheckResult::Unknown, edits_unknown("/var/lib/kubelet/config.yaml", &planned.node).because(problem)))
        }
        // The agent is of a version that does not compare, or there is none: AGT-001 says that.
        None => Ok(()),
    }
}

fn edits_unknown(path: &str, node: &NodeName) -> Problem {
    Problem::new(Code::EditsUnknown).with("path", path).with("node", node)
}

/// No kubelet may become newer than any API server, see <https://kubernetes.io/releases/version-skew-policy/#kubelet>.
fn check_skew(plan: &Plan, cluster: &ClusterFacts) -> Finding {
    let oldest = cluster.api_servers.iter().map(|server| server.version).min();
    let emulates = cluster.api_servers.iter().find(|server| server.behaves_like() < plan.to.release);
    let raises_control_plane = plan.stages.iter().any(|stage| stage.kind == StageKind::ControlPlane);
    let outcome = match oldest {
        Some(oldest) if raises_control_plane && oldest != plan.control_plane => Err((
            CheckResult::Fail,
            stale(plan, format!("the control plane was {} and is {oldest}", plan.control_plane)),
        )),
        Some(_) if plan.mode == Mode::Rollback => check_kubelets_after(plan, cluster),
        Some(_) if raises_control_plane => Ok(()),
        None => Err((CheckResult::Unknown, stale(plan, "no API server's version could be read".to_owned()))),
        Some(oldest) if oldest < plan.to || emulates.is_some() => Err((
            CheckResult::Fail,
            Problem::new(Code::KubeletNewerThanApiServer)
                .with("kubelet", plan.to)
                .with("nodes", plan.nodes().map(|node| node.node.as_str()).collect::<Vec<_>>().join(", "))
                .with("api_server", emulates.map_or_else(|| oldest.to_string(), ApiServerFacts::described)),
        )),
        Some(_) => Ok(()),
    };
    finding("VER-014", format!("cluster {}", plan.cluster), outcome)
}

/// After a rollback no kubelet of a node that stays as it is may be newer than the API servers.
fn check_kubelets_after(plan: &Plan, cluster: &ClusterFacts) -> Result<(), (CheckResult, Problem)> {
    let newer = cluster.nodes.iter().find_map(|(name, node)| {
        let kubelet = node.kubelet().filter(|kubelet| *kubelet > plan.to && !plan.holds(name))?;
        Some((name, kubelet))
    });
    match newer {
        None => Ok(()),
        Some((name, kubelet)) => Err((
            CheckResult::Fail,
            Problem::new(Code::KubeletNewerThanApiServer)
                .with("kubelet", kubelet)
                .with("nodes", name)
                .with("api_server", plan.to),
        )),
    }
}

fn stale(plan: &Plan, what: String) -> Problem {
    Problem::new(Code::PlanStale).with("plan", &plan.id).with("what", what)
}

/// The node must be the very machine that was planned for.
fn check_node(plan: &Plan, planned: &NodePlan, cluster: &ClusterFacts) -> Result<(), (CheckResult, Problem)> {
    let node = planned.machine_in(cluster).map_err(|problem| (CheckResult::Fail, problem))?;
    if node.kubelet() == Some(planned.kubelet_from) {
        return Ok(());
    }
    let NodePlan { node: name, kubelet_from, .. } = planned;
    let what = format!("the kubelet of node {name} was {kubelet_from} and is {}", node.kubelet_version);
    Err((CheckResult::Fail, stale(plan, what)))
}

/// Whether a node is drained was decided by what the others took when the plan was made. Where that has changed, its pods
/// would have no place, or would live through what they could have been moved away from.
fn check_drain(plan: &Plan, planned: &NodePlan, cluster: &ClusterFacts) -> Result<(), (CheckResult, Problem)> {
    let node = &planned.node;
    let what = match (planned.drain, another_node_takes_pods(&cluster.nodes, node)) {
        (DrainDecision::Drain, Err(others)) => {
            let named = others.iter().take(OTHERS_NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
            let why = if others.is_empty() { "there is no other node".to_owned() } else { named };
            format!("it drains node {node}, and no other node takes its pods now: {why}")
        }
        (DrainDecision::SkippedNowhereToGo, Ok(())) => {
            format!("it does not drain node {node}, since no other node took its pods, and now one does")
        }
        _ => return Ok(()),
    };
    Err((CheckResult::Fail, stale(plan, what)))
}

/// Add-ons run on nodes that joined since, too, and the plan fetches their images only to those that it knew. Nodes without
/// an agent pull as they always do.
fn check_joined(plan: &Plan, cluster: &ClusterFacts, agents: &BTreeMap<NodeName, AgentFacts>) -> Vec<Finding> {
    if !plan.stages.iter().any(|stage| stage.kind == StageKind::AddOns) {
        return Vec::new();
    }
    let prefetch = plan.steps().filter(|step| matches!(step.action, Action::Prefetch { .. }));
    let fetched: BTreeSet<&NodeName> = prefetch.filter_map(|step| step.target.node()).collect();
    let joined = cluster.nodes.keys().filter(|node| agents.contains_key(*node) && !fetched.contains(node));
    let stale = |node: &NodeName| stale(plan, format!("it fetches no images of add-ons to node {node}, which is new"));
    joined.map(|node| finding("NOD-002", format!("node {node}"), Err((CheckResult::Fail, stale(node))))).collect()
}

fn check_agent(
    plan: &Plan,
    planned: &NodePlan,
    steps: &[&Step],
    agents: &BTreeMap<NodeName, AgentFacts>,
    now: Timestamp,
) -> Result<(), (CheckResult, Problem)> {
    let node = &planned.node;
    let Some(agent) = agents.get(node) else {
        let problem = Problem::new(Code::AgentMissing).with("node", node).with("cluster", &plan.cluster);
        return Err((CheckResult::Fail, problem));
    };
    if now.as_second() - agent.last_heard_at.as_second() > AGENT_SILENCE_SECONDS_MAX {
        let problem = Problem::new(Code::ContactLost).with("node", node).with("since", agent.last_heard_at);
        return Err((CheckResult::Fail, problem.with("upgrade", "UPGRADE")));
    }
    let machine = &agent.machine;
    if machine.machine_id != planned.machine_id {
        let problem = planned.wrong_machine("machine id of the agent", &planned.machine_id, &machine.machine_id);
        return Err((CheckResult::Fail, problem));
    }
    for step in steps {
        let kind = step.action.kind();
        if step.action.executor() == Executor::Agent && !machine.step_kinds.iter().any(|known| known == kind) {
            let problem =
                Problem::new(Code::StepKindMissing).with("node", node).with("version", &machine.agent_version);
            return Err((CheckResult::Fail, problem.with("kind", kind).with("cluster", &plan.cluster)));
        }
        let (component, observed) = match &step.action {
            Action::UpgradeKubelet { .. } => ("kubelet", &machine.kubelet),
            Action::UpgradeControlPlane(upgrade) if upgrade.files.iter().any(|file| file.role == "kubelet") => {
                ("kubelet", &machine.kubelet)
            }
            Action::UpgradeContainerRuntime { .. } => ("containerd", &machine.container_runtime),
            _ => continue,
        };
        match observed {
            Observed::Unknown { problem, .. } => return Err((CheckResult::Unknown, problem.clone())),
            // Debian's containerd package owns the old executable; the new one is laid beside it, see the agent.
            Observed::Known(facts) => match &facts.install {
                InstallMethod::Binary => {}
                InstallMethod::Package { .. } if component == "containerd" => {}
                other => {
                    let problem = Problem::new(Code::InstallNotSupported).with("component", component);
                    return Err((CheckResult::Fail, problem.with("node", node).with("method", other.label())));
                }
            },
        }
    }
    Ok(())
}

fn check_staging_space(
    planned: &NodePlan,
    steps: &[&Step],
    agents: &BTreeMap<NodeName, AgentFacts>,
) -> Result<(), (CheckResult, Problem)> {
    let Some(agent) = agents.get(&planned.node) else { return Ok(()) };
    let needed: u64 = steps
        .iter()
        .map(|step| match &step.action {
            Action::Prefetch { files, images, .. } => {
                let images: u64 = images.iter().map(|image| image.size_bytes).sum();
                // An image is on the disk twice for a moment: the archive, and what the runtime keeps of it.
                files.iter().map(|file| file.size_bytes).sum::<u64>().saturating_add(images.saturating_mul(2))
            }
            _ => 0,
        })
        .sum();
    let free = agent.machine.staging_free_bytes;
    if free < needed.saturating_add(STAGING_RESERVE_BYTES) {
        let problem = Problem::new(Code::DiskFull).with("path", "the staging directory");
        let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
        let problem = problem.with("subject", format!("node {}", planned.node)).with("free", mebibytes(free));
        return Err((CheckResult::Fail, problem.with("needed", mebibytes(needed + STAGING_RESERVE_BYTES))));
    }
    Ok(())
}
