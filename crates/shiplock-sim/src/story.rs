//! Stories: scripts of plain commands whose transcripts are kept, and the standard upgrade of `crash-everywhere`.
//!
//! A script has one command a line; `#` begins a comment. `cluster MASTERS WORKERS`, `option NAME VALUE`, `budget
//! blocking|loose|none`, `ignores-sigterm SECONDS` and `servers N` set up; `at SECONDS COMMAND` says what happens when:
//! `pause`, `continue`, `cancel [NODE …]`, `max-parallel N`, `mend`, and faults by their names, such as `kubelet-broken N`;
//! `until SECONDS` bounds the run.

use std::time::Duration;

use shiplock_core::problem::{Code, Problem};
use shiplock_core::step::OnDrainTimeout;

use crate::run::fault::Fault;
use crate::run::{BudgetSetup, Operation, Setup, Simulation};

/// The standard upgrade: 3 masters, 4 workers, a budget that blocks until it is mended, and one pause.
pub fn standard(seed: u64) -> Result<Simulation, Problem> {
    let mut setup = Setup::new(3, 4);
    setup.workloads[0].budget = BudgetSetup::Blocking;
    setup.options.max_parallel = 2;
    let mut simulation = Simulation::new(&setup, seed, 1)?;
    simulation.operate(Duration::from_secs(170), Operation::Pause);
    simulation.operate(Duration::from_secs(230), Operation::Continue);
    simulation.heal(Duration::from_secs(260));
    Ok(simulation)
}

fn wrong(line: &str, why: &str) -> Problem {
    Problem::new(Code::BadOption).with("option", "script").with("value", line).with("why", why)
}

/// Runs a script and gives its transcript.
pub fn tell(script: &str) -> Result<String, Problem> {
    let mut setup = Setup::new(3, 3);
    let (mut servers, mut until, mut seed) = (1, 7_200, 1);
    let mut later = Vec::new();
    for line in
        script.lines().map(|line| line.split('#').next().unwrap_or_default().trim()).filter(|line| !line.is_empty())
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| {
            words.get(at).and_then(|word| word.parse::<u64>().ok()).ok_or_else(|| wrong(line, "a number is missing"))
        };
        match words[0] {
            "cluster" => {
                setup = Setup {
                    workloads: setup.workloads,
                    options: setup.options,
                    ..Setup::new(number(1)? as usize, number(2)? as usize)
                }
            }
            "servers" => servers = number(1)? as usize,
            "seed" => seed = number(1)?,
            "until" => until = number(1)?,
            "budget" => {
                setup.workloads[0].budget = match words.get(1) {
                    Some(&"blocking") => BudgetSetup::Blocking,
                    Some(&"loose") => BudgetSetup::Loose,
                    Some(&"none") => BudgetSetup::None,
                    _ => return Err(wrong(line, "blocking, loose or none")),
                }
            }
            "ignores-sigterm" => {
                let seconds = i64::try_from(number(1)?).map_err(|_| wrong(line, "so long a time there is not"))?;
                setup.workloads[0].ignores_sigterm = Some(seconds);
            }
            "option" => option(&mut setup, line, &words)?,
            "at" => later.push((number(1)?, command(line, &words[2..])?)),
            _ => return Err(wrong(line, "no such command")),
        }
    }
    let mut simulation = Simulation::new(&setup, seed, servers)?;
    simulation.keep_transcript();
    for (at, command) in later {
        let at = Duration::from_secs(at);
        match command {
            Some(fault) => simulation.fault(at, fault),
            None => simulation.heal(at),
        }
    }
    let result = simulation.run(Duration::from_secs(until));
    let mut text: String = simulation.transcript().iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    text.push_str(&format!("{} after {} s\n", result.state.word(), result.took.as_secs()));
    Ok(text)
}

fn option(setup: &mut Setup, line: &str, words: &[&str]) -> Result<(), Problem> {
    let value = *words.get(2).ok_or_else(|| wrong(line, "a value is missing"))?;
    let number = || value.parse::<u32>().map_err(|_| wrong(line, "a number is missing"));
    let options = &mut setup.options;
    match words.get(1).copied().unwrap_or_default() {
        "max-parallel" => options.max_parallel = number()?,
        "drain-timeout" => options.drain_timeout_seconds = number()?,
        "contact-timeout" => options.contact_timeout_seconds = number()?,
        "expiry" => options.expiry_seconds = number()?,
        "accept" => options.accept.push(value.to_owned()),
        "on-drain-timeout" => {
            options.on_drain_timeout = match value {
                "pause" => OnDrainTimeout::Pause,
                "skip" => OnDrainTimeout::Skip,
                "force" => OnDrainTimeout::Force,
                _ => return Err(wrong(line, "pause, skip or force")),
            }
        }
        _ => return Err(wrong(line, "no such option")),
    }
    Ok(())
}

/// A command as a fault; none: everything is mended.
fn command(line: &str, words: &[&str]) -> Result<Option<Fault>, Problem> {
    let number = |at: usize| {
        words.get(at).and_then(|word| word.parse::<u32>().ok()).ok_or_else(|| wrong(line, "a number is missing"))
    };
    Ok(Some(match words.first().copied().unwrap_or_default() {
        "pause" => Fault::Operator(Operation::Pause),
        "continue" => Fault::Operator(Operation::Continue),
        "cancel" => Fault::Operator(Operation::Cancel(words[1..].iter().map(|&word| word.to_owned()).collect())),
        "max-parallel" => Fault::Operator(Operation::MaxParallel(number(1)?)),
        "second-upgrade" => Fault::Operator(Operation::SecondUpgrade),
        "kubelet-broken" => Fault::KubeletBroken(number(1)?),
        "agent-cut-off" => Fault::AgentCutOff(number(1)?),
        "node-removed" => Fault::NodeRemoved(number(1)?),
        "node-crash" => Fault::NodeCrash(number(1)?),
        "server-crash" => Fault::ServerCrash(0, u64::from(number(1)?)),
        "server-suspend" => Fault::ServerSuspend(0, u64::from(number(1)?)),
        "address-moves" => Fault::AddressMoves(number(1)? as usize),
        "agent-crash" => Fault::AgentCrash(number(1)?, u64::from(number(2)?)),
        "store-down" => Fault::StoreDown(u64::from(number(1)?)),
        "store-full" => Fault::StoreFull(u64::from(number(1)?)),
        "node-rejoins" => Fault::NodeRejoins(number(1)?),
        "etcd-ill" => Fault::EtcdIll(number(1)?),
        "api-down" => Fault::ApiDown(u64::from(number(1)?)),
        "mend" => return Ok(None),
        _ => return Err(wrong(line, "no such command")),
    }))
}
