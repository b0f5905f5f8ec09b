//! What older versions wrote is read, and what newer ones wrote is refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::json;
use shiplock_core::upgrade::{State, Upgrade};

use super::super::sample;
use super::*;

fn stored(kind: &str, v: u32, data: &str) -> StoredEvent {
    StoredEvent { v, kind: kind.to_owned(), data: data.to_owned() }
}

fn every_event() -> Vec<Event> {
    let rest = sample::logs().into_iter().flat_map(|(_, _, events)| events).map(|(_, event)| event);
    std::iter::once(sample::planned()).chain(rest).collect()
}

/// Fails to compile when a kind is added, so that nobody forgets [`KINDS`] and the samples.
fn position_in_kinds(event: &Event) -> usize {
    match event {
        Event::Planned { .. } => 0,
        Event::LeaseTaken { .. } => 1,
        Event::CheckStarted => 2,
        Event::CheckFinished { .. } => 3,
        Event::Started => 4,
        Event::StageStarted { .. } => 5,
        Event::StageFinished { .. } => 6,
        Event::BatchStarted { .. } => 7,
        Event::BatchFinished { .. } => 8,
        Event::StepStarted { .. } => 9,
        Event::StepSucceeded { .. } => 10,
        Event::StepFailed { .. } => 11,
        Event::NodeSkipped { .. } => 12,
        Event::WaitingBegan { .. } => 13,
        Event::InterferenceNoticed { .. } => 14,
        Event::PauseRequested { .. } => 15,
        Event::Paused => 16,
        Event::Continued { .. } => 17,
        Event::MaxParallelChanged { .. } => 18,
        Event::CancelRequested { .. } => 19,
        Event::Cancelled => 20,
        Event::ExpiryNoticed => 21,
        Event::ExpiryBegan => 22,
        Event::Expired => 23,
        Event::Succeeded => 24,
    }
}

#[test]
fn every_kind_reads_back_as_it_was_written() {
    let mut seen = BTreeSet::new();
    for event in every_event() {
        let stored = StoredEvent::encode(&event).unwrap();
        assert_eq!(stored.kind, KINDS[position_in_kinds(&event)]);
        assert_eq!(stored.v, FORM);
        seen.insert(stored.kind.clone());
        assert_eq!(stored.decode().unwrap(), event);
    }
    assert_eq!(seen, KINDS.iter().map(|kind| (*kind).to_owned()).collect(), "the samples hold every kind");
}

#[test]
fn what_a_newer_version_wrote_is_refused_by_name() {
    let cases = [
        (stored("node_replaced", 1, "{}"), "unknown kind `node_replaced`"),
        (stored("started", 2, "null"), "kind `started` has the unknown form 2"),
        (stored("started", 0, "null"), "kind `started` has the unknown form 0"),
        (stored("stage_started", 1, "{}"), "kind `stage_started`, form 1: missing field `stage`"),
        (stored("stage_started", 1, r#"{"stage":"#), "kind `stage_started`, form 1: "),
        (
            stored("stage_started", 1, r#"{"stage":1},"data":{"stage":2}"#),
            "kind `stage_started`, form 1: duplicate field",
        ),
        (stored(r#"x","kind":"started"#, 1, "null"), "unknown kind"),
    ];
    for (stored, why) in cases {
        let found = stored.clone().decode().unwrap_err();
        assert!(found.starts_with(why), "{stored:?}: {found}");
    }
}

#[test]
fn an_unreadable_event_names_upgrade_number_and_kind() {
    let line = json!({
        "upgrade": "u1", "number": 7, "position": 9, "at": "2026-01-02T03:04:05Z", "epoch": null,
        "v": 1, "kind": "node_replaced", "data": {}
    });
    let problem = serde_json::from_value::<StoredRecord>(line).unwrap().decode().unwrap_err();
    assert_eq!(problem.code, Code::LogUnreadable);
    let parameters = BTreeMap::from([("upgrade", "u1"), ("number", "7"), ("why", "unknown kind `node_replaced`")]);
    let parameters = parameters.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(problem.parameters, parameters);
}

#[test]
fn upcasts_lead_from_removed_kinds_and_old_forms_to_the_newest_one() {
    let upcasts = [
        Upcast {
            kind: "phase_begun",
            v: 1,
            to_kind: "phase_begun",
            to_v: 2,
            turn: |data| Ok(json!({ "phase": data.get("name").ok_or("no name")? })),
        },
        Upcast {
            kind: "phase_begun",
            v: 2,
            to_kind: "stage_started",
            to_v: 1,
            turn: |data| Ok(json!({ "stage": data.get("phase").ok_or("no phase")? })),
        },
    ];
    let event = stored("phase_begun", 1, r#"{"name":3}"#).decode_with(&upcasts);
    assert_eq!(event, Ok(Event::StageStarted { stage: 3 }));
    let refused = stored("phase_begun", 1, "{}").decode_with(&upcasts);
    assert_eq!(refused, Err("kind `phase_begun`, form 1: no name".to_owned()));
}

#[test]
fn upcasts_in_a_circle_are_refused() {
    let upcasts = [Upcast { kind: "a", v: 1, to_kind: "a", to_v: 1, turn: Ok }];
    assert_eq!(stored("a", 1, "{}").decode_with(&upcasts), Err("kind `a`, form 1: its upcasts do not end".to_owned()));
}

/// A line of a golden file: an entry of a log, or what a log folds to.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum GoldenLine {
    Record(StoredRecord),
    Fold { upgrade: UpgradeId, state: State, len: u64, epoch: Epoch, max_parallel: u32, nodes_done: usize },
}

fn fold_line(upgrade: &Upgrade) -> GoldenLine {
    GoldenLine::Fold {
        upgrade: upgrade.id.clone(),
        state: upgrade.state.clone(),
        len: upgrade.len,
        epoch: upgrade.epoch,
        max_parallel: upgrade.max_parallel,
        nodes_done: upgrade.node_counts().0,
    }
}

fn golden_file(release: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/log-{release}.jsonl"))
}

/// The logs of the present release as their stores would hold them.
fn present_log() -> Vec<EventRecord> {
    let mut position = 0;
    let mut records = Vec::new();
    for (upgrade, _, events) in sample::logs() {
        let events = std::iter::once((None, sample::planned())).chain(events);
        for (number, (epoch, event)) in (1u64..).zip(events) {
            position += 1;
            let at = sample::at(i64::try_from(number).unwrap());
            records.push(EventRecord { upgrade: upgrade.into(), number, position, at, epoch, event });
        }
    }
    records
}

fn by_upgrade(records: Vec<EventRecord>) -> BTreeMap<UpgradeId, Vec<EventRecord>> {
    let mut logs: BTreeMap<UpgradeId, Vec<EventRecord>> = BTreeMap::new();
    for record in records {
        logs.entry(record.upgrade.clone()).or_default().push(record);
    }
    logs
}

#[test]
fn the_sample_logs_fold_to_their_states() {
    let logs = by_upgrade(present_log());
    for (upgrade, state, _) in sample::logs() {
        assert_eq!(Upgrade::fold(&logs[upgrade]).unwrap().state.word(), state);
    }
}

/// Run by hand before a release, and never again for it: `cargo test -p shiplock-server -- --ignored write_the_golden_log`.
#[test]
#[ignore = "writes the golden file of the present release"]
fn write_the_golden_log() {
    let mut lines = String::new();
    for log in by_upgrade(present_log()).into_values() {
        let records = log.iter().map(|record| GoldenLine::Record(StoredRecord::encode(record).unwrap()));
        for line in records.chain([fold_line(&Upgrade::fold(&log).unwrap())]) {
            lines.push_str(&serde_json::to_string(&line).unwrap());
            lines.push('\n');
        }
    }
    std::fs::write(golden_file("v0.1"), lines).unwrap();
}

#[test]
fn logs_of_every_release_still_decode_and_fold_to_the_state_that_they_had() {
    for release in ["v0.1"] {
        let text = std::fs::read_to_string(golden_file(release)).unwrap();
        let mut log: Vec<EventRecord> = Vec::new();
        let mut kinds = BTreeSet::new();
        let mut folds = 0;
        for line in text.lines() {
            match serde_json::from_str(line).unwrap() {
                GoldenLine::Record(record) => {
                    kinds.insert(record.kind.clone());
                    log.push(record.decode().unwrap());
                }
                told @ GoldenLine::Fold { .. } => {
                    let found = fold_line(&Upgrade::fold(&std::mem::take(&mut log)).unwrap());
                    assert_eq!(serde_json::to_value(found).unwrap(), serde_json::to_value(told).unwrap(), "{release}");
                    folds += 1;
                }
            }
        }
        assert!(log.is_empty() && folds >= 3, "{release}: each log ends with what it folds to");
        assert!(kinds.len() >= 25, "{release}: the golden file holds every kind that the release had");
    }
}
