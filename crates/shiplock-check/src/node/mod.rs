//! Nodes as their agents found them: what only a look at the machine itself tells.
//!
//! What an agent could not read is unknown for its node. A node without an agent is told once, and nothing is said of it
//! that nobody looked at.

mod control_plane;
mod machine;
pub mod probe;
mod service;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shiplock_core::facts::MachineFacts;
use shiplock_core::facts::examination::NodeExamination;

use crate::catalogue::{self, Check, Scope};
use crate::question::{Profile, Question};
use crate::report::{Finding, Outcome, Subject};
use crate::snapshot::Snapshot;

/// A node, and what its agent told of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExaminedNode {
    /// The node's name.
    pub node: String,
    /// What came of the question.
    pub answer: Answer,
    /// What the agent tells at all times; none where it is not known.
    pub machine: Option<Box<MachineFacts>>,
}

/// What came of the question to an agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It looked.
    Examined {
        /// What it found.
        examination: Box<NodeExamination>,
        /// When the answer came, by the clock of whoever asked.
        at: Timestamp,
    },
    /// There is no agent, and a probe pod looked.
    Probed {
        /// What it found.
        examination: Box<NodeExamination>,
        /// When it ended, by the clock of whoever asked.
        at: Timestamp,
    },
    /// There is no agent, and a probe pod did not come to its end: the node does not take and start a pod.
    NotProbed {
        /// Why.
        why: String,
    },
    /// There is no agent, and no probe pod could be made or read, which says nothing of the node.
    Unseen {
        /// Why.
        why: String,
    },
    /// No agent is enrolled for the node.
    Missing,
    /// The agent was not heard of for this long.
    Silent {
        /// In seconds.
        seconds: i64,
    },
    /// The agent lives and does not answer.
    NoAnswer {
        /// Why, as far as that is known.
        why: String,
    },
}

/// Judges what agents found.
pub fn judge(snapshot: &Snapshot, question: &Question) -> Vec<Finding> {
    let mut findings = Vec::new();
    for examined in &snapshot.nodes {
        let mut look = NodeLook { snapshot, question, node: &examined.node, findings: &mut findings };
        match &examined.answer {
            Answer::Examined { examination, at } => {
                machine::judge(&mut look, examination, *at);
                service::judge(&mut look, examination);
                control_plane::judge(&mut look, examination, examined.machine.as_deref());
            }
            Answer::Probed { examination, at } => {
                machine::judge_probed(&mut look, examination, *at);
                control_plane::judge(&mut look, examination, None);
                for check in probe::NOT_LOOKED_AT {
                    look.say(Finding::skipped(check, "scope:agent"));
                }
            }
            Answer::NotProbed { why } => {
                look.say(look.about("CP-009", "not-run", Outcome::Fail).with("why", why));
            }
            Answer::Unseen { why } => {
                findings.extend(unprobed(&Subject::new("Node", "", &examined.node), why));
            }
            Answer::Missing => look.say(look.about("NODE-003", "missing", Outcome::Fail)),
            Answer::Silent { seconds } => {
                look.say(look.about("NODE-003", "silent", Outcome::Fail).with("seconds", seconds));
            }
            Answer::NoAnswer { why } => {
                look.say(look.about("NODE-003", "no-answer", Outcome::Unknown).with("why", why))
            }
        }
    }
    findings.extend(snapshot.nodes_unseen.iter().flat_map(|why| unprobed(&Subject::cluster(), why)));
    let is_probed = |node: &ExaminedNode| {
        matches!(node.answer, Answer::Probed { .. } | Answer::NotProbed { .. } | Answer::Unseen { .. })
    };
    if !snapshot.nodes.is_empty() && !snapshot.nodes.iter().any(is_probed) {
        findings.push(Finding::skipped("CP-009", "scope:probe"));
    }
    machine::compare_clocks(snapshot, &mut findings);
    findings
}

/// Every check that a probe answers is unknown for what none could look at.
fn unprobed(subject: &Subject, why: &str) -> Vec<Finding> {
    let of_nodes = catalogue::all().iter().filter(|check| check.scope == Scope::Node && check.not_built.is_none());
    let unknown = |check: &&'static Check| {
        if probe::NOT_LOOKED_AT.contains(&check.id) {
            return Finding::skipped(check.id, "scope:agent");
        }
        let unknown = Finding { subject: subject.clone(), ..Finding::unknown(check.id, why) };
        if subject.kind == "Node" { unknown.with("node", &subject.name) } else { unknown }
    };
    of_nodes.map(unknown).collect()
}

/// One look at one node.
struct NodeLook<'a> {
    snapshot: &'a Snapshot,
    question: &'a Question,
    node: &'a str,
    findings: &'a mut Vec<Finding>,
}

impl NodeLook<'_> {
    fn about(&self, check: &'static str, sentence: &'static str, outcome: Outcome) -> Finding {
        Finding::new(check, sentence, outcome, Subject::new("Node", "", self.node)).with("node", self.node)
    }

    fn say(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// What was seen; else the checks that read it are unknown for this node.
    fn need<'b, T>(&mut self, look: &'b Result<T, String>, checks: &[&'static str]) -> Option<&'b T> {
        match look {
            Ok(seen) => Some(seen),
            Err(why) => {
                for check in checks {
                    let subject = Subject::new("Node", "", self.node);
                    self.say(Finding { subject, ..Finding::unknown(check, why) }.with("node", self.node));
                }
                None
            }
        }
    }

    fn target_is_at_least(&self, minor: u32) -> bool {
        self.question.target.minor >= minor
    }

    fn is_strict(&self) -> bool {
        self.question.profile == Profile::Strict
    }
}

#[cfg(test)]
mod tests;
