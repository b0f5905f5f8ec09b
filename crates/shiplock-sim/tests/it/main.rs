//! Whole upgrades in the simulated world: they succeed, faults are survived, stories read as they should, and planted
//! bugs are found.

mod planted;
mod story;

use std::time::Duration;

use shiplock_core::upgrade::State;
use shiplock_sim::facade::Seam;
use shiplock_sim::run::fault::Drawn;
use shiplock_sim::run::{Operation, Setup, Simulation};

/// No run takes longer in virtual time.
const VIRTUAL_MAX: Duration = Duration::from_secs(3 * 3600);

#[test]
fn a_whole_upgrade_of_3_masters_and_20_nodes_succeeds() {
    let mut simulation = Simulation::new(&Setup::new(3, 20), 1, 1).unwrap();
    simulation.keep_transcript();
    let result = simulation.run(VIRTUAL_MAX);
    if let Some(violation) = result.violation {
        panic!("{violation}\n{}", simulation.transcript().join("\n"));
    }
    assert_eq!(result.state, State::Succeeded);
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    let run = |seed| {
        let drawn = Drawn::of(7);
        let mut simulation = drawn.simulation(seed).unwrap();
        let result = simulation.run(VIRTUAL_MAX);
        (result.fingerprint, result.events)
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn the_same_seed_gives_the_same_trace_through_the_facade_too() {
    let run = |seed| {
        let mut simulation = Drawn::through_facade(7).simulation(seed).unwrap();
        Seam::put_before(&mut simulation, seed);
        let result = simulation.run(VIRTUAL_MAX);
        (result.fingerprint, result.events)
    };
    for seed in [7, 8] {
        assert_eq!(run(seed), run(seed));
    }
    assert_ne!(run(7), run(8));
}

#[test]
fn a_clone_made_in_the_middle_goes_on_alike() {
    let mut one = Simulation::new(&Setup::new(3, 4), 3, 2).unwrap();
    one.operate(Duration::from_secs(90), Operation::Pause);
    one.operate(Duration::from_secs(130), Operation::Continue);
    for _ in 0..2_000 {
        assert!(one.step());
    }
    let mut other = one.clone();
    let (one, other) = (one.run(VIRTUAL_MAX), other.run(VIRTUAL_MAX));
    assert_eq!((one.fingerprint, one.events), (other.fingerprint, other.events));
    assert_eq!(one.state, State::Succeeded);
}

/// The production client and its watches are in these, over HTTP that never leaves the process.
#[test]
fn faults_on_the_way_to_the_api_break_no_invariant() {
    for seed in 1..=8 {
        let Ok(mut simulation) = Drawn::through_facade(seed).simulation(seed) else { continue };
        Seam::put_before(&mut simulation, seed);
        let result = simulation.run(VIRTUAL_MAX);
        if let Some(violation) = result.violation {
            panic!("{violation}: reproduce with `cargo xtask sim --facade --seed {seed} --trace`");
        }
    }
}

/// A bounded number of seeds here, as many as are wanted in `cargo xtask sim`.
#[test]
fn faults_of_every_kind_break_no_invariant() {
    let (mut killed_pods, mut appends_on_full_disk) = (0, 0);
    for seed in 1..=100 {
        let Ok(mut simulation) = Drawn::of(seed).simulation(seed) else { continue };
        let result = simulation.run(VIRTUAL_MAX);
        if let Some(violation) = result.violation {
            panic!("{violation}: reproduce with `cargo xtask sim --seed {seed} --trace`");
        }
        killed_pods += result.killed_pods;
        appends_on_full_disk += result.appends_on_full_disk;
    }
    assert!(killed_pods > 0, "no pod ignored SIGTERM");
    assert!(appends_on_full_disk > 0, "the disk of no store was full when something was to be recorded");
}
