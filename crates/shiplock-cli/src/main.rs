//! The `shiplock` command.

use std::process::ExitCode;

/// A rehearsal and a check of a large cluster hold some hundred thousand small texts; the C library's allocator takes a
/// fifth more time for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    shiplock_cli::run(std::env::args_os())
}
