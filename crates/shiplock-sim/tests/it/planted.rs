//! Planted bugs: each is found by the checker of its invariant within a stated number of seeds, and where that checker is
//! taken away by no other, but for those that break another invariant later on.

use std::collections::BTreeSet;
use std::time::Duration;

use shiplock_core::plan::DrainPolicy;
use shiplock_core::planted::{Bug, plant};
use shiplock_core::step::OnDrainTimeout;
use shiplock_sim::run::check::INVARIANTS;
use shiplock_sim::run::fault::{Drawn, Fault};
use shiplock_sim::run::{BudgetSetup, Operation, Setup, WorkloadSetup};

const VIRTUAL_MAX: Duration = Duration::from_secs(3 * 3600);

/// Every bug of [`Bug::ALL`], its invariant, and within how many seeds it is found.
const BUGS: &[(Bug, u8, u64)] = &[
    (Bug::QuorumNotRead, 1, 20),
    (Bug::QuorumReadEarly, 1, 20),
    (Bug::PoolsFirst, 2, 5),
    (Bug::CordonLeftBehind, 3, 20),
    (Bug::BatchLawForgotten, 4, 5),
    (Bug::BatchLawRestarts, 4, 5),
    (Bug::MastersTogether, 5, 5),
    (Bug::IntentAfterEffect, 6, 5),
    (Bug::CancelKeepsCordons, 7, 40),
    (Bug::LeaseIgnored, 8, 10),
    (Bug::StaleGenerationAccepted, 8, 10),
    (Bug::UnknownPasses, 9, 5),
    (Bug::PositionTwice, 10, 5),
    (Bug::OutcomeForgotten, 11, 40),
    (Bug::AlwaysForce, 12, 5),
    (Bug::PauseStartsNodes, 13, 5),
    (Bug::UidNotCompared, 14, 20),
    (Bug::DigestNotCompared, 15, 5),
    (Bug::StepInvented, 16, 5),
    (Bug::SecondUpgrade, 17, 5),
    (Bug::NotReadBack, 18, 40),
    (Bug::UncordonNotNoticed, 19, 20),
];

/// Bugs that break another invariant later in the run in which they are found: a cordon that was left behind is given back
/// out of its turn, and an upgrade whose step nobody reports does not end.
const FOUND_BY_OTHERS: &[(Bug, u8)] = &[(Bug::CordonLeftBehind, 5), (Bug::StepInvented, 11)];

/// Runs in which something goes wrong that the bug needs: the moment and the seed are drawn.
fn provoked(bug: Bug, seed: u64) -> Drawn {
    let mut setup = Setup::new(3, 4);
    setup.options.max_parallel = 4;
    let at = |least: u64, step: u64| least + seed * step;
    let mut faults = Vec::new();
    let (mut servers, mut heal_at) = (1, 900);
    match bug {
        Bug::QuorumNotRead => faults.push((at(5, 3), Fault::EtcdIll(2))),
        Bug::QuorumReadEarly => {
            // Time passes between the look at etcd and the act.
            faults.push((5, Fault::DiskSlow(2_000)));
            faults.push((at(20, 3), Fault::EtcdIll(2)));
        }
        Bug::BatchLawRestarts => {
            setup = Setup::new(0, 7);
            setup.options.max_parallel = 4;
            faults.push((at(25, 3), Fault::Operator(Operation::Pause)));
            faults.push((at(150, 3), Fault::Operator(Operation::Continue)));
        }
        Bug::PauseStartsNodes => {
            // A master of the batch is held back, and could be begun with once etcd is well again.
            faults.push((10, Fault::EtcdIll(2)));
            faults.push((at(60, 2), Fault::Operator(Operation::Pause)));
            heal_at = at(90, 2);
        }
        Bug::CordonLeftBehind => {
            setup.workloads[0].budget = BudgetSetup::Blocking;
            setup.options.on_drain_timeout = OnDrainTimeout::Skip;
            setup.options.drain_timeout_seconds = 60;
        }
        Bug::AlwaysForce => {
            setup.workloads[0].budget = BudgetSetup::Blocking;
            setup.options.drain_timeout_seconds = 60;
        }
        Bug::CancelKeepsCordons => {
            faults.push((at(10, 2), Fault::KubeletBroken(0)));
            faults.push((at(60, 8), Fault::Operator(Operation::Pause)));
            faults.push((at(160, 8), Fault::Operator(Operation::Cancel(Vec::new()))));
            faults.push((at(260, 8), Fault::Operator(Operation::Cancel(Vec::new()))));
        }
        Bug::LeaseIgnored => {
            // A drain that takes long: the budget lets one pod go at a time.
            setup = Setup::new(0, 4);
            setup.workloads = vec![WorkloadSetup::new("cart", 32, BudgetSetup::Loose)];
            servers = 2;
            faults.push((at(25, 2), Fault::ServerFreeze(0, 20)));
        }
        Bug::StaleGenerationAccepted => {
            // A server that was suspended still has offers of its old epoch, and agents come to it.
            setup = Setup::new(0, 6);
            setup.workloads.clear();
            setup.options.max_parallel = 2;
            servers = 2;
            let begin = at(25, 3);
            faults.push((begin, Fault::ServerSuspend(0, 60)));
            faults.push((begin + 1, Fault::AddressMoves(1)));
            // Neither the store nor the Lease in the cluster tells it at once that it was replaced.
            faults.push((begin + 59, Fault::StoreDown(8)));
            faults.push((begin + 59, Fault::ApiDown(8)));
            faults.push((begin + 60, Fault::AddressMoves(0)));
            faults.extend((0..6).map(|node| (begin + 61, Fault::AgentCrash(node, 1))));
        }
        Bug::UnknownPasses => {
            setup = Setup::new(0, 5);
            setup.options.max_parallel = 2;
            setup.options.batch_interval_seconds = 60;
            faults.push((at(60, 4), Fault::ApiDown(100)));
        }
        Bug::OutcomeForgotten => faults.push((at(30, 3), Fault::StoreDown(3))),
        Bug::UidNotCompared => faults.push((at(20, 5), Fault::NodeRejoins(3))),
        Bug::UncordonNotNoticed => {
            // Somebody takes every cordon off, time and again.
            setup = Setup::new(0, 4);
            setup.options.drain = DrainPolicy::Always;
            let uncordons = (0..40u64).flat_map(|round| (0..4).map(move |node| (round, node)));
            faults.extend(uncordons.map(|(round, node)| (at(20, 1) + 6 * round, Fault::OthersUncordon(node))));
        }
        Bug::SecondUpgrade => faults.push((at(30, 5), Fault::Operator(Operation::SecondUpgrade))),
        Bug::PositionTwice => faults.push((at(30, 5), Fault::Operator(Operation::MaxParallel(2)))),
        _ => {}
    }
    Drawn { setup, servers, faults, heal_at }
}

/// The invariant that a run with a bug breaks first, by the checkers but one.
fn broken(bug: Bug, seed: u64, taken_away: Option<u8>) -> Option<u8> {
    let mut simulation = provoked(bug, seed).simulation(seed).ok()?;
    if let Some(invariant) = taken_away {
        simulation.checkers_mut().take_away(invariant);
    }
    simulation.run(VIRTUAL_MAX).violation.map(|violation| violation.invariant)
}

/// Where a checker is taken away, the others do not stand in for it but in the cases that are named.
#[test]
fn each_planted_bug_is_found_by_the_checker_of_its_invariant_and_where_that_is_taken_away_by_no_other() {
    let (mut missed, mut found_by_others) = (Vec::new(), Vec::new());
    for (bug, invariant, seeds) in BUGS {
        plant(Some(*bug));
        match (1..=*seeds).find(|seed| broken(*bug, *seed, None) == Some(*invariant)) {
            Some(seed) => {
                println!("{bug:?}: invariant {invariant}, seed {seed} of {seeds}");
                found_by_others.extend(broken(*bug, seed, Some(*invariant)).map(|other| (*bug, other)));
            }
            None => missed.push(format!("{bug:?} was not found by invariant {invariant} within {seeds} seeds")),
        }
        plant(None);
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    assert_eq!(found_by_others, FOUND_BY_OTHERS);
}

#[test]
fn every_bug_is_looked_for_and_every_invariant_has_one() {
    let looked_for: Vec<Bug> = BUGS.iter().map(|(bug, ..)| *bug).collect();
    assert_eq!(looked_for, Bug::ALL);
    let invariants: BTreeSet<u8> = BUGS.iter().map(|(_, invariant, _)| *invariant).collect();
    assert_eq!(invariants, (1..=INVARIANTS).collect());
}

#[test]
fn without_a_planted_bug_the_same_runs_break_nothing() {
    for (bug, ..) in BUGS {
        for seed in 1..=2 {
            let Ok(mut simulation) = provoked(*bug, seed).simulation(seed) else { continue };
            let result = simulation.run(VIRTUAL_MAX);
            assert_eq!(result.violation.map(|violation| violation.to_string()), None, "{bug:?}, seed {seed}");
        }
    }
}
