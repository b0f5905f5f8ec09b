//! Fills a data directory with running upgrades, for measurements: `fill_store DIRECTORY UPGRADES`.
//!
//! Each log is what the driver would have written: `decide` was asked for every event. The clusters are at an address
//! where nobody answers, as after a power cut that took them too. It must never be given the data directory of a real
//! server.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};
use shiplock_core::facts::{Facts, NodeOwner, Observed};
use shiplock_core::plan::{Plan, PlanOptions};
use shiplock_core::sample::{agents, cluster, plan_of, request};
use shiplock_core::step::Action;
use shiplock_core::upgrade::{Command, Decision, Event, EventRecord, Policy, State, StepOutcome, Upgrade, decide};
use shiplock_server::clusters::sealed_access;
use shiplock_server::seal::Seal;
use shiplock_server::store::{ClusterRecord, LeaseWanted, NewUpgrade, SqliteStore, Store};

/// The pools of each cluster: ten nodes.
const POOLS: &[(&str, usize)] = &[("blue", 6), ("green", 4)];
/// A log that does not grow for so many seconds has come to rest where it should not.
const QUIET_SECONDS_MAX: u32 = 600;
/// Nobody answers here.
const SERVER: &str = "https://127.0.0.1:9";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(count)) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        return Err("give a directory and a number of upgrades".into());
    };
    let count: usize = count.parse()?;
    std::fs::create_dir_all(&directory)?;
    let store = SqliteStore::open(&directory.join("shiplock.db")).await?;
    let seal = Seal::open_or_create(&directory.join("seal.key"))?;
    let kubeconfig = kubeconfig()?;
    let begun = Timestamp::now() - SignedDuration::from_hours(2);
    let (mut events_total, mut events_max) = (0, 0);
    for index in 0..count {
        let (name, uid) = (format!("cluster-{index:04}"), format!("uid-{index:04}"));
        let sealed_kubeconfig = sealed_access(&seal, &name.as_str().into(), &kubeconfig, &[])?;
        let record = ClusterRecord {
            name: name.as_str().into(),
            uid: uid.as_str().into(),
            server: SERVER.to_owned(),
            sealed_kubeconfig,
            mirror: Some("https://mirror.example".to_owned()),
            added_at: begun,
        };
        store.add_cluster(&record).await?;
        let id = format!("u-{index:04}");
        let plan = plan(&name, &uid)?;
        let event = Event::Planned { plan: Box::new(plan.clone()), by: "fill".into() };
        let new = NewUpgrade { id: id.as_str().into(), cluster: record.name, event, now: begun, idempotency_key: None };
        let first = store.create_upgrade(&new).await?;
        let wanted = [LeaseWanted { upgrade: new.id.clone(), expected_len: 1 }];
        // A lease of fifteen seconds two hours ago: its holder is gone.
        let taken = store.take_leases(&wanted, "a server that is gone", begun, 15).await?;
        let taken = taken.into_iter().flatten().next().ok_or("the lease is free")?;
        // Upgrades stand at every point of their way.
        let length = 12 + index * 37 % 110;
        let events = events(&[first, taken.record.clone()], begun, length)?;
        store.append(&new.id, 2, taken.lease.epoch, begun, &events).await?;
        events_total += events.len() + 2;
        events_max = events_max.max(events.len() + 2);
    }
    store.close().await;
    println!("{count} running upgrades, {} events each on average, {events_max} at most", events_total / count.max(1));
    Ok(())
}

fn plan(name: &str, uid: &str) -> Result<Plan, Box<dyn Error>> {
    let mut plan = plan_of(&cluster(POOLS), &request("1.36", PlanOptions::default()))?;
    plan.cluster = name.into();
    plan.cluster_uid = uid.into();
    plan.hash = plan.content_hash();
    Ok(plan)
}

/// What the driver appends when every step succeeds at once, up to this many events and then to the next intent.
fn events(before: &[EventRecord], begun: Timestamp, length: usize) -> Result<Vec<Event>, Box<dyn Error>> {
    let mut upgrade = Upgrade::fold(before)?;
    let mut events = Vec::new();
    let (mut now, mut quiet) = (begun, 0);
    loop {
        now += SignedDuration::from_secs(1);
        let facts = facts(&upgrade, now);
        let mut next: Vec<Event> = match decide(&upgrade, &facts, &Policy::default(), now) {
            Decision::Issue(commands) => commands.into_iter().map(event).collect(),
            Decision::Wait { .. } => upgrade
                .in_flight()
                .map(|(step, ..)| Event::StepSucceeded {
                    step: step.number,
                    attempt: 1,
                    outcome: outcome(&step.action),
                })
                .collect(),
            Decision::Finish(outcome) => return Err(format!("it came to an end: {outcome:?}").into()),
        };
        quiet = if next.is_empty() { quiet + 1 } else { 0 };
        if quiet > QUIET_SECONDS_MAX {
            return Err(format!("it came to rest as {}", upgrade.state.word()).into());
        }
        let intent = next.iter().position(|event| matches!(event, Event::StepStarted { .. }));
        let last = intent.filter(|_| events.len() + next.len() >= length && upgrade.state == State::Running);
        if let Some(last) = last {
            next.truncate(last + 1);
        }
        for event in next {
            let number = upgrade.len + 1;
            let (id, epoch) = (upgrade.id.clone(), Some(upgrade.epoch));
            let record = EventRecord { upgrade: id, number, position: number, at: now, epoch, event: event.clone() };
            upgrade.advance(&record)?;
            events.push(event);
        }
        if last.is_some() {
            return Ok(events);
        }
    }
}

fn event(command: Command) -> Event {
    match command {
        Command::Record(event) => event,
        Command::Run { step, attempt } => Event::StepStarted { step, attempt },
    }
}

/// The cluster as the upgrade has left it: a node that it holds is cordoned, or it would be cordoned again.
fn facts(upgrade: &Upgrade, now: Timestamp) -> Facts {
    let mut facts = cluster(POOLS);
    facts.uid = upgrade.plan.cluster_uid.clone();
    facts.observed_at = now;
    for held in upgrade.plan.nodes().filter(|node| upgrade.holds_cordon(node)) {
        let node = facts.nodes.get_mut(&held.node).expect("the plan is of this cluster");
        node.unschedulable = true;
        node.owner = Some(NodeOwner { upgrade: upgrade.id.clone(), epoch: upgrade.epoch, attempt: 1 });
    }
    let agents = agents(&facts, now);
    Facts {
        cluster: Observed::Known(facts.into()),
        agents,
        progress: BTreeMap::new(),
        uptime_seconds: 60,
        precheck: Some(Vec::new()),
    }
}

fn outcome(action: &Action) -> StepOutcome {
    match action {
        Action::CaptureBaseline => StepOutcome::Baseline { workloads: cluster(POOLS).workloads },
        Action::Cordon => StepOutcome::Cordoned { ours: true },
        Action::Drain { .. } => StepOutcome::Drained {
            evicted: 11,
            relanded: Vec::new(),
            arrived: Vec::new(),
            ended: BTreeMap::new(),
            held_milliseconds: 0,
        },
        _ => StepOutcome::Done,
    }
}

fn kubeconfig() -> Result<String, Box<dyn Error>> {
    let authority = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let authority = base64::engine::general_purpose::STANDARD.encode(authority.cert.pem());
    Ok(format!(
        "apiVersion: v1
kind: Config
current-context: away
contexts: [{{name: away, context: {{cluster: away, user: away}}}}]
clusters: [{{name: away, cluster: {{server: {SERVER}, certificate-authority-data: {authority}}}}}]
users: [{{name: away, user: {{token: a-token-that-nobody-asks-for}}}}]
"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiplock_core::id::Epoch;

    #[test]
    fn a_log_stands_at_every_point_of_the_way() {
        let plan = plan("cluster", "uid").unwrap();
        let begun = Timestamp::UNIX_EPOCH;
        let record = |number, epoch, event| EventRecord {
            upgrade: "u".into(),
            number,
            position: number,
            at: begun,
            epoch,
            event,
        };
        let before = [
            record(1, None, Event::Planned { plan: Box::new(plan.clone()), by: "fill".into() }),
            record(2, Some(Epoch(1)), Event::LeaseTaken { epoch: Epoch(1), holder: "gone".to_owned() }),
        ];
        for length in 12..122 {
            let events = events(&before, begun, length).unwrap_or_else(|error| panic!("{length}: {error}"));
            assert!(matches!(events.last(), Some(Event::StepStarted { .. })), "{length}: a step is in flight");
        }
    }
}
