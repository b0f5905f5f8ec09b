//! The binary `shiplock-agent`: one thread, started as a service or by hand.

use std::process::ExitCode;

use clap::Parser as _;
use shiplock_agent::commands::{CommandLine, carry_out};

fn main() -> ExitCode {
    let line = CommandLine::parse();
    match tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build() {
        Ok(runtime) => runtime.block_on(carry_out(line)),
        Err(error) => {
            eprintln!("error: the runtime cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}
