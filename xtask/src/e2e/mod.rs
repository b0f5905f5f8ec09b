//! `cargo xtask e2e`: Shiplock against real clusters of the [lab].
//!
//! Each scenario boots its own cluster, shows one promise of the product and leaves nothing behind. What it claims it
//! measures from outside: by the API server, by units and processes on the nodes, by an application that is asked all
//! the while. Nothing is skipped silently: what is not there is an error. An interrupted run is cleaned up behind
//! ([`custody`]).

mod backup;
mod blockers;
pub(crate) mod control_plane;
pub(crate) mod controls;
mod crashes;
mod credentials;
pub(crate) mod custody;
mod demo;
mod fencing;
mod from_1_34;
pub(crate) mod installation;
mod new_node;
pub(crate) mod pools;
mod precheck;
mod precheck_faults;
mod precheck_probe;
mod refusals;
mod rehearse;
mod rollback;
pub(crate) mod samples;
mod soak;
mod two_hops;

use std::time::Instant;

use anyhow::{Result, bail};

use self::custody::Custody;
use crate::lab::{self, Lab};

/// Arguments of `cargo xtask e2e`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Runs these scenarios only; without names, those of the gate
    names: Vec<String>,
    /// Runs every scenario
    #[arg(long)]
    all: bool,
    /// Lists the scenarios
    #[arg(long)]
    list: bool,
    /// The lab to use
    #[arg(long, default_value_t = 0, env = "SHIPLOCK_LAB_ID")]
    id: u8,
    /// Leaves the cluster of a failed scenario running
    #[arg(long)]
    keep: bool,
    /// Clean up behind a run that is interrupted (used by runs)
    #[arg(long, hide = true)]
    watch_run: Option<String>,
}

/// One scenario.
struct Scenario {
    name: &'static str,
    /// The promise, as a sentence.
    promise: &'static str,
    /// Whether it belongs to the gate.
    in_gate: bool,
    run: fn(&Lab) -> Result<()>,
}

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "pools",
        promise: "two pools are upgraded in growing batches while their application loses no request",
        in_gate: true,
        run: pools::run,
    },
    Scenario {
        name: "controls",
        promise: "pause, continue and cancel do what they say; a cordon of the operator stays",
        in_gate: true,
        run: controls::run,
    },
    Scenario {
        name: "crashes",
        promise: "kill -9 of server, agent and machine: it goes on by itself and nothing acts twice",
        in_gate: true,
        run: crashes::run,
    },
    Scenario {
        name: "agent-lost",
        promise: "an agent that stays down pauses the upgrade with node and fix; continue and abandon end it",
        in_gate: false,
        run: crashes::agent_lost,
    },
    Scenario {
        name: "blockers",
        promise: "what holds up a drain is named with owner and remedy, and the upgrade goes on by itself",
        in_gate: true,
        run: blockers::run,
    },
    Scenario {
        name: "fencing",
        promise: "a thawed server and an older store change nothing; let go on, the older store evicts from no node that takes pods",
        in_gate: false,
        run: fencing::run,
    },
    Scenario {
        name: "whole",
        promise: "control plane, add-ons and pools of a cluster with one master are upgraded as one upgrade",
        in_gate: false,
        run: control_plane::whole,
    },
    Scenario {
        name: "three-masters",
        promise: "three masters are upgraded one by one: never two away, the API answers, no request is lost",
        in_gate: false,
        run: control_plane::three_masters,
    },
    Scenario {
        name: "master-crashes",
        promise: "kill -9 of the server around every step of the only master: it goes on by itself and nothing acts twice",
        in_gate: true,
        run: control_plane::crashes::one_master,
    },
    Scenario {
        name: "masters-crashes",
        promise: "kill -9 of server, agent and machine around the swaps of three masters: never two away",
        in_gate: false,
        run: control_plane::crashes::three_masters,
    },
    Scenario {
        name: "master-faults",
        promise: "a component that does not come up is swapped back and named; so are a lost image and a full disk",
        in_gate: false,
        run: control_plane::faults::faults,
    },
    Scenario {
        name: "masters-guards",
        promise: "while etcd is ill no master is touched, before the start and in the middle",
        in_gate: false,
        run: control_plane::guards::run,
    },
    Scenario {
        name: "master-lies",
        promise: "a kubelet of a false version and an image under a false tag are found by what runs",
        in_gate: false,
        run: control_plane::lies::run,
    },
    Scenario {
        name: "master-obstacles",
        promise: "a webhook without SAN and edits by hand stop the start by name; kubeadm's own method does the rest",
        in_gate: false,
        run: control_plane::obstacles::run,
    },
    Scenario {
        name: "master-patches",
        promise: "edits given as kubeadm patches are kept, others stop the master untouched; certificates as planned",
        in_gate: false,
        run: control_plane::patches::run,
    },
    Scenario {
        name: "rollback",
        promise: "one master goes back before add-ons are touched: all old and well, nothing lost; refused afterwards",
        in_gate: false,
        run: rollback::one_master,
    },
    Scenario {
        name: "rollback-late",
        promise: "one master goes back from right before the add-ons, by hand where its API is away; configuration too",
        in_gate: false,
        run: rollback::late_and_by_hand,
    },
    Scenario {
        name: "rollback-three",
        promise: "three masters go back from the middle of their stage, while server and agent are killed",
        in_gate: false,
        run: rollback::three_masters,
    },
    Scenario {
        name: "soak",
        promise: "one master emulates the old version and goes back without a loss; stepped up, there is no way back",
        in_gate: false,
        run: soak::one_master,
    },
    Scenario {
        name: "soak-three",
        promise: "three masters go back from their soak while server and agent are killed, and step up the next time",
        in_gate: false,
        run: soak::three_masters,
    },
    Scenario {
        name: "from-1.34",
        promise: "a cluster of 1.34, whose kubelets have a flag that 1.35 refuses, goes to 1.35, back, and to 1.35 again",
        in_gate: false,
        run: from_1_34::run,
    },
    Scenario {
        name: "two-hops",
        promise: "control plane today, pools later, the next hop when skew allows it: etcd 3.7 stays on the way back",
        in_gate: false,
        run: two_hops::run,
    },
    Scenario {
        name: "demo",
        promise: "the demo is up at once, kubectl works on its clusters, every control is real, and nothing is left",
        in_gate: false,
        run: demo::run,
    },
    Scenario {
        name: "precheck",
        promise: "who writes through a version that goes away is found, and nothing else is",
        in_gate: true,
        run: precheck::run,
    },
    Scenario {
        name: "new-node",
        promise: "a machine that joins by the printed instructions is born at the version of the control plane",
        in_gate: false,
        run: new_node::run,
    },
    Scenario {
        name: "precheck-faults",
        promise: "each real fault is found and named, its remedy works, and a fresh cluster shows its golden file",
        in_gate: false,
        run: precheck_faults::run,
    },
    Scenario {
        name: "precheck-probe",
        promise: "nodes without agents are looked at by pods that find a fault and are gone, however the command ends",
        in_gate: false,
        run: precheck_probe::run,
    },
    Scenario {
        name: "precheck-fresh",
        promise: "a fresh cluster of three masters shows what its golden file says and nothing else",
        in_gate: false,
        run: precheck_faults::fresh_three,
    },
    Scenario {
        name: "rehearse",
        promise: "what a rehearsal says is what then happens: steps, blockers, workloads at zero, time",
        in_gate: false,
        run: rehearse::run,
    },
    Scenario {
        name: "rehearse-whole",
        promise: "the stages and steps of a whole cluster, its master too, are those of its rehearsal, in the same order",
        in_gate: false,
        run: rehearse::whole,
    },
    Scenario {
        name: "refusals",
        promise: "bad input gets its own error and nothing is changed",
        in_gate: false,
        run: refusals::run,
    },
];

/// The last lines that a server of the lab said, as far as there was one.
fn end_of_server_log(lab: &Lab) -> String {
    const LAST_LINES: usize = 60;
    let log = std::fs::read(lab.folder().join("server.log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    format!("the last {} of {} lines of its server:\n{}", last.len(), lines.len(), last.join("\n"))
}

/// Runs scenarios, all of them also when one fails, and says how each came out.
pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        for scenario in SCENARIOS {
            println!("{:<24} {}", scenario.name, scenario.promise);
        }
        return Ok(());
    }
    let lab = Lab::open(arguments.id)?;
    if let Some(run) = &arguments.watch_run {
        return custody::watch(&lab, run);
    }
    let named = |scenario: &&Scenario| arguments.names.iter().any(|name| name == scenario.name);
    if let Some(unknown) = arguments.names.iter().find(|name| SCENARIOS.iter().all(|scenario| scenario.name != **name))
    {
        bail!("there is no scenario {unknown}: see `cargo xtask e2e --list`");
    }
    let chosen: Vec<&Scenario> = SCENARIOS
        .iter()
        .filter(|scenario| if arguments.names.is_empty() { arguments.all || scenario.in_gate } else { named(scenario) })
        .collect();
    lab::build_where_missing()?;
    let custody = Custody::begin(&lab)?;
    let (mut passed, mut failed) = (0, 0);
    for scenario in &chosen {
        let begun = Instant::now();
        eprintln!("e2e {}: {}", scenario.name, scenario.promise);
        let result = (scenario.run)(&lab);
        let seconds = begun.elapsed().as_secs();
        match &result {
            Ok(()) => {
                passed += 1;
                eprintln!("e2e {}: passed in {seconds} s", scenario.name);
            }
            Err(error) => {
                failed += 1;
                eprintln!("e2e {}: FAILED after {seconds} s: {error:#}", scenario.name);
                eprintln!("{}", end_of_server_log(&lab));
                if arguments.keep {
                    custody.end();
                    bail!("{} failed; its cluster was left running", scenario.name);
                }
            }
        }
        custody::clean(&lab)?;
    }
    custody.end();
    println!("{passed} passed, {failed} failed");
    if failed > 0 { bail!("{failed} of {} scenarios failed", chosen.len()) } else { Ok(()) }
}
