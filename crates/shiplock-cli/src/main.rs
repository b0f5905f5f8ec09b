//! The `shiplock` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    shiplock_cli::run(std::env::args_os())
}
