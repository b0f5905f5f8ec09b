//! Every developer task of Shiplock is one `cargo xtask …`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{bench, ci, e2e, fields, lab, lifecycle, simulation};

/// Developer tasks of Shiplock.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Real Kubernetes clusters on this machine, for end-to-end tests
    Lab(lab::cli::LabArguments),
    /// The hermetic tests
    Test,
    /// Everything that must hold before a change lands, but the end-to-end tests
    Ci,
    /// Writes what is generated from the code: openapi/v1.json
    Codegen,
    /// The end-to-end tests, on real clusters
    E2e(e2e::Arguments),
    /// The table of API lifecycles, from Kubernetes' own sources
    Lifecycle(lifecycle::Arguments),
    /// The table of the fields of each kind, from Kubernetes' own sources
    Fields(fields::Arguments),
    /// Simulated upgrades with faults, by seed
    Sim(simulation::SimArguments),
    /// Simulated upgrades with faults, from random seeds, for some minutes
    Soak(simulation::SoakArguments),
    /// Measurements, with a peer or a limit beside them
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Lab(arguments) => lab::cli::run(arguments),
        Task::Test => ci::test().map(|()| ExitCode::SUCCESS),
        Task::Ci => ci::ci().map(|()| ExitCode::SUCCESS),
        Task::Codegen => ci::codegen().map(|()| ExitCode::SUCCESS),
        Task::Sim(arguments) => simulation::sim(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Soak(arguments) => simulation::soak(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Bench(arguments) => bench::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Lifecycle(arguments) => lifecycle::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::Fields(arguments) => fields::run(&arguments).map(|()| ExitCode::SUCCESS),
        Task::E2e(arguments) => e2e::run(&arguments).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn every_task_can_be_parsed() {
        super::Arguments::command().debug_assert();
    }
}
