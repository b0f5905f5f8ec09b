//! Which control is allowed when: pure rules over a folded upgrade.
//!
//! The log itself refuses what does not fit ([`Upgrade::apply`]); these rules say it before anything is appended, in
//! words, with the next step. They must never allow what the log would refuse.

use std::collections::BTreeSet;

use shiplock_core::id::{Actor, NodeName};
use shiplock_core::language::Language;
use shiplock_core::plan::MAX_PARALLEL_LIMIT;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{Event, PauseReason, State, Upgrade};

/// What a person asks of an upgrade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Start nothing new.
    Pause,
    /// Go on.
    Continue,
    /// End it.
    Cancel {
        /// Nodes that are not waited for any more.
        abandon: Vec<NodeName>,
    },
    /// Change the bound on batches.
    ChangeMaxParallel {
        /// The new bound.
        max_parallel: u32,
    },
}

/// The event that a control becomes; none where the upgrade is already as asked.
pub fn judge(upgrade: &Upgrade, control: &Control, by: &Actor) -> Result<Option<Event>, Problem> {
    let by = by.clone();
    let state = &upgrade.state;
    match control {
        Control::Pause => match state {
            State::Running => Ok(Some(Event::PauseRequested { reason: PauseReason::Operator, by })),
            State::Pausing { .. } => Ok(None),
            _ => Err(refused(upgrade, control)),
        },
        Control::Continue => match state {
            State::Paused { .. } | State::Blocked => Ok(Some(Event::Continued { by })),
            // A wish to pause is taken back. What failed has to come to rest first: a person must see it.
            State::Pausing { because, .. } if because.is_a_wish() => Ok(Some(Event::Continued { by })),
            _ => Err(refused(upgrade, control)),
        },
        Control::Cancel { abandon } => match state {
            State::Planned | State::Checking | State::Blocked | State::Ready { .. } | State::Paused { .. } => {
                Ok(Some(Event::CancelRequested { by, abandon: abandonable(upgrade, abandon)? }))
            }
            // What has started finishes all the same. Whom nobody waits for any more is known once it is paused.
            State::Pausing { .. } if abandon.is_empty() => Ok(Some(Event::CancelRequested { by, abandon: Vec::new() })),
            _ => Err(refused(upgrade, control)),
        },
        Control::ChangeMaxParallel { max_parallel } => {
            if !(1..=MAX_PARALLEL_LIMIT).contains(max_parallel) {
                return Err(Problem::new(Code::BadOption)
                    .with("option", "max_parallel")
                    .with("value", max_parallel)
                    .with("why", format!("it must be 1 to {MAX_PARALLEL_LIMIT}")));
            }
            // An upgrade that is being ended starts no further batch.
            if state.is_terminal() || matches!(state, State::Cancelling | State::Expiring) {
                return Err(refused(upgrade, control));
            }
            let change = *max_parallel != upgrade.max_parallel;
            Ok(change.then_some(Event::MaxParallelChanged { max_parallel: *max_parallel, by }))
        }
    }
}

/// Only a node that is waited for can be given up.
fn abandonable(upgrade: &Upgrade, abandon: &[NodeName]) -> Result<Vec<NodeName>, Problem> {
    let waited_for: BTreeSet<&NodeName> = upgrade.in_flight().filter_map(|(step, ..)| step.target.node()).collect();
    let asked: BTreeSet<&NodeName> = abandon.iter().collect();
    if let Some(node) = asked.iter().find(|node| !waited_for.contains(**node)) {
        return Err(Problem::new(Code::NotAbandonable).with("node", node).with("upgrade", &upgrade.id));
    }
    Ok(asked.into_iter().cloned().collect())
}

fn refused(upgrade: &Upgrade, control: &Control) -> Problem {
    let id = &upgrade.id;
    let (refused, refused_zh) = match control {
        Control::Pause => ("paused", "暂停"),
        Control::Continue => ("continued", "继续"),
        Control::Cancel { .. } => ("cancelled", "取消"),
        Control::ChangeMaxParallel { .. } => ("changed", "更改"),
    };
    let (next, next_zh) = match (&upgrade.state, control) {
        (State::Running, Control::Cancel { .. }) => (
            format!("shiplock pause {id}, then shiplock cancel {id}"),
            format!("先 shiplock pause {id}，再 shiplock cancel {id}"),
        ),
        (State::Running, _) => (format!("to stop it: shiplock pause {id}"), format!("要让它停下：shiplock pause {id}")),
        (State::Pausing { because, .. }, _) if because.is_older_store() => (
            "settle first which store is the newest: shiplock explain UPG0312".to_owned(),
            "请先确定哪个存储是最新的：shiplock explain UPG0312".to_owned(),
        ),
        (State::Pausing { .. }, _) => {
            (format!("wait until it is paused: shiplock watch {id}"), format!("请等待其暂停：shiplock watch {id}"))
        }
        (State::Paused { .. }, _) => (
            format!("shiplock continue {id}, or shiplock cancel {id}"),
            format!("shiplock continue {id}，或 shiplock cancel {id}"),
        ),
        (State::Blocked, _) => (
            format!("handle its findings, then shiplock continue {id}, or shiplock cancel {id}"),
            format!("请先处理检查结果，再 shiplock continue {id}，或 shiplock cancel {id}"),
        ),
        (State::Planned | State::Checking | State::Ready { .. }, _) => (
            format!(
                "it has not begun, and does so by itself as soon as nothing holds it; to end it: shiplock cancel {id}"
            ),
            format!("它尚未开始，一旦没有阻碍便会自行开始；要结束它：shiplock cancel {id}"),
        ),
        (State::Cancelling | State::Expiring, _) => (
            format!("wait until it has ended: shiplock upgrades show {id}"),
            format!("请等待其结束：shiplock upgrades show {id}"),
        ),
        (State::Cancelled | State::Expired | State::Succeeded, _) => {
            let plan = format!("shiplock plan {}", upgrade.plan.cluster);
            (format!("it has ended; plan again: {plan}"), format!("它已结束；请重新规划：{plan}"))
        }
    };
    Problem::new(Code::ControlNotAllowed)
        .with("state", upgrade.state.word())
        .with("state_zh", upgrade.state.label(Language::Zh))
        .with("control", refused)
        .with("control_zh", refused_zh)
        .with("next", next)
        .with("next_zh", next_zh)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use shiplock_core::id::StepNumber;
    use shiplock_core::upgrade::EventRecord;

    use super::*;
    use crate::http::sample;

    /// An upgrade in each state, by its word.
    fn in_state(word: &str) -> Upgrade {
        let mut upgrade = sample::upgrade();
        let at = Timestamp::UNIX_EPOCH;
        let because = PauseReason::Operator;
        upgrade.state = match word {
            "planned" => State::Planned,
            "checking" => State::Checking,
            "blocked" => State::Blocked,
            "ready" => State::Ready { checked_at: at },
            "running" => State::Running,
            "pausing" => State::Pausing { because, since: at },
            "paused" => State::Paused { because, since: at, expires_at: at },
            "cancelling" => State::Cancelling,
            "cancelled" => State::Cancelled,
            "expiring" => State::Expiring,
            "expired" => State::Expired,
            "succeeded" => State::Succeeded,
            other => panic!("{other} is no state"),
        };
        assert_eq!(upgrade.state.word(), word);
        upgrade
    }

    fn next_record(upgrade: &Upgrade, event: Event) -> EventRecord {
        let (upgrade, number, at) = (upgrade.id.clone(), upgrade.len + 1, upgrade.updated_at);
        EventRecord { upgrade, number, position: number, at, epoch: None, event }
    }

    #[test]
    fn each_control_is_allowed_in_its_states_and_the_log_takes_what_is_allowed() {
        // P pause, C continue, X cancel, M change of the bound; lower case: nothing to do.
        let table = [
            ("planned", "XM"),
            ("checking", "XM"),
            ("blocked", "CXM"),
            ("ready", "XM"),
            ("running", "PM"),
            ("pausing", "pCXM"),
            ("paused", "CXM"),
            ("cancelling", ""),
            ("cancelled", ""),
            ("expiring", ""),
            ("expired", ""),
            ("succeeded", ""),
        ];
        let controls = [
            ('P', Control::Pause),
            ('C', Control::Continue),
            ('X', Control::Cancel { abandon: vec![] }),
            ('M', Control::ChangeMaxParallel { max_parallel: 3 }),
        ];
        for (state, allowed) in table {
            for (letter, control) in &controls {
                let upgrade = in_state(state);
                match judge(&upgrade, control, &"somebody".into()) {
                    Ok(Some(event)) => {
                        assert!(allowed.contains(*letter), "{control:?} was allowed in {state}");
                        let record = next_record(&upgrade, event);
                        upgrade.apply(&record).unwrap_or_else(|error| panic!("{control:?} in {state}: {error}"));
                    }
                    Ok(None) => assert!(allowed.contains(letter.to_ascii_lowercase()), "{control:?} in {state}"),
                    Err(problem) => {
                        assert!(!allowed.to_uppercase().contains(*letter), "{control:?} was refused in {state}");
                        assert_eq!(problem.code, Code::ControlNotAllowed);
                        assert_eq!(problem.parameters["state"], state);
                        assert!(problem.parameters["next"].contains("shiplock "), "a next step is named");
                    }
                }
            }
        }
    }

    #[test]
    fn a_running_upgrade_is_not_cancelled_and_the_way_is_told() {
        let problem = judge(&in_state("running"), &Control::Cancel { abandon: vec![] }, &"a".into()).unwrap_err();
        let id = sample::upgrade().id;
        assert_eq!(problem.parameters["next"], format!("shiplock pause {id}, then shiplock cancel {id}"));
    }

    #[test]
    fn a_pause_for_a_failure_is_not_taken_back_before_it_has_come_to_rest_and_nobody_is_abandoned_before_either() {
        let mut upgrade = in_state("pausing");
        let abandon = Control::Cancel { abandon: vec!["w1".into()] };
        assert_eq!(judge(&upgrade, &abandon, &"a".into()).unwrap_err().code, Code::ControlNotAllowed);
        let because = PauseReason::Gate { problem: Problem::new(Code::NodeNotReady) };
        upgrade.state = State::Pausing { because, since: upgrade.updated_at };
        assert_eq!(judge(&upgrade, &Control::Continue, &"a".into()).unwrap_err().code, Code::ControlNotAllowed);
        assert!(judge(&upgrade, &Control::Cancel { abandon: vec![] }, &"a".into()).is_ok());
    }

    #[test]
    fn the_bound_on_batches_is_1_to_100_and_the_one_in_force_changes_nothing() {
        let upgrade = in_state("running");
        let ask = |max_parallel| judge(&upgrade, &Control::ChangeMaxParallel { max_parallel }, &"a".into());
        for (bound, good) in [(0, false), (1, true), (100, true), (101, false), (u32::MAX, false)] {
            assert_eq!(ask(bound).is_ok(), good, "{bound}");
        }
        assert_eq!(ask(upgrade.max_parallel).unwrap(), None);
    }

    #[test]
    fn only_nodes_in_flight_can_be_abandoned() {
        let mut upgrade = sample::upgrade_in_work();
        let step = upgrade.in_flight().next().map(|(step, ..)| step.clone()).unwrap();
        let node = step.target.node().unwrap().clone();
        let at = upgrade.updated_at;
        upgrade.state = State::Paused { because: PauseReason::Operator, since: at, expires_at: at };
        let ask = |upgrade: &Upgrade, nodes: &[&NodeName]| {
            let abandon = nodes.iter().map(|node| (*node).clone()).collect();
            judge(upgrade, &Control::Cancel { abandon }, &"a".into())
        };
        let event = ask(&upgrade, &[&node, &node]).unwrap().unwrap();
        assert!(matches!(&event, Event::CancelRequested { abandon, .. } if *abandon == [node.clone()]));
        assert!(upgrade.clone().apply(&next_record(&upgrade, event)).is_ok());
        let problem = ask(&upgrade, &[&node, &"elsewhere".into()]).unwrap_err();
        assert_eq!((problem.code, problem.parameters["node"].as_str()), (Code::NotAbandonable, "elsewhere"));
        upgrade.steps.remove(&StepNumber(step.number.0));
        assert_eq!(ask(&upgrade, &[&node]).unwrap_err().code, Code::NotAbandonable);
    }
}
