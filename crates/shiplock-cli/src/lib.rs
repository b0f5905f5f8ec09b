//! The `shiplock` command: it asks a server and shows the answer, in English or Chinese, for people or for programs.
//!
//! Results go to stdout, progress and logs to stderr. Every decision is the server's; nothing here decides what may be
//! done to a cluster, and nothing is changed without saying first what and where.

pub mod arguments;
mod attached;
mod command;
mod duration;
mod exit;
mod keyboard;
mod output;
mod pages;
pub mod render;
mod result;
mod settings;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

use shiplock_core::language::Language;
use shiplock_core::problem::{Code, Problem};

pub use self::exit::Exit;
use self::output::Output;

/// Runs the command line and says how it ended.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let given: Vec<OsString> = arguments.into_iter().collect();
    let parsed = match arguments::parse(&given) {
        Ok(parsed) => parsed,
        Err(refusal) => return refuse(&given, &refusal).into(),
    };
    let output = Output::new(&parsed.global);
    // As a variable that is not set leaves it in a script. No argument means anything when it is empty.
    if given.iter().skip(1).any(|argument| argument.is_empty()) {
        let what =
            output.pick("an argument is empty, as by a variable that is not set", "有一个参数为空，可能是变量未设置");
        return output
            .problem(&Problem::new(Code::BadCommandLine).with("what", what).with("command", "shiplock"))
            .into();
    }
    let ended = runtime(&parsed.command).and_then(|runtime| {
        let ended = runtime.block_on(command::run(parsed, &output));
        // A read of stdin may still wait for a person; it must not hold the process.
        runtime.shutdown_background();
        ended
    });
    match ended.and_then(|exit| output::unwritten().map_or(Ok(exit), Err)) {
        Ok(exit) => exit,
        Err(problem) => output.problem(&problem),
    }
    .into()
}

/// Says help and version on stdout, and what is wrong with a command line where its reader looks for it.
fn refuse(given: &[OsString], refusal: &clap::Error) -> Exit {
    use clap::error::ErrorKind;
    let chinese =
        (output::asked_language(given) == Language::Zh).then(|| arguments::chinese::of(given, refusal)).flatten();
    match &chinese {
        Some(said) => output::say_styled(&said.text, refusal.use_stderr()),
        None => {
            let _ = refusal.print();
        }
    }
    if !refusal.use_stderr() {
        return Exit::Done;
    }
    if output::asks_for_json(given) && refusal.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let what = what_is_wrong(&refusal.render().to_string());
        let mut problem = Problem::new(Code::BadCommandLine).with("what", what).with("command", "shiplock");
        if let Some(what) = chinese.and_then(|said| said.what_is_wrong) {
            problem = problem.with("what_zh", what);
        }
        output::print_json(&result::Refused::new(&problem));
    }
    Exit::Usage
}

/// What is wrong, in one line: names that are missing stand on lines of their own, hints and usage after an empty one.
pub(crate) fn what_is_wrong(rendered: &str) -> String {
    let lines = rendered.lines().map(str::trim).take_while(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_owned()
}

fn runtime(command: &arguments::Command) -> Result<tokio::runtime::Runtime, Problem> {
    let mut builder = match command {
        arguments::Command::Serve(_) | arguments::Command::Demo(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    builder
        .enable_all()
        .build()
        .map_err(|error| Problem::new(Code::Internal).with("what", "the runtime cannot be started").because(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_command_line_names_all_that_is_missing_in_one_line() {
        let given = ["shiplock", "agent", "remove", "-o", "json"].map(OsString::from);
        let refusal = arguments::parse(&given).unwrap_err();
        assert_eq!(
            what_is_wrong(&refusal.render().to_string()),
            "the following required arguments were not provided: <CLUSTER> <NODE>"
        );
    }
}
