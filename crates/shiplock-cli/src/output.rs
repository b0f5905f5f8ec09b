//! Where results and progress go, and in which form. The one place that writes to stdout and stderr.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use shiplock_core::language::Language;
use shiplock_core::problem::Problem;

use crate::arguments::{Format, GlobalArguments, ProgressChoice};
use crate::exit::Exit;
use crate::render::{Style, problem};
use crate::result::{Envelope, Refused};

/// Longer lines are hard to read.
const READING_WIDTH_MAX: usize = 100;

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Redrawn in place.
    Tty,
    /// One line for each event.
    Plain,
    /// One JSON object for each event.
    Json,
    /// None.
    None,
}

/// The output of one command.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    format: Format,
    progress: Progress,
    language: Language,
    zone: TimeZone,
    colour_out: bool,
    colour_error: bool,
}

impl Output {
    pub(crate) fn new(arguments: &GlobalArguments) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) || dumb;
        Self {
            format: arguments.output,
            progress: progress(arguments.progress, on_terminal && !dumb),
            language: arguments.lang.unwrap_or_else(|| language_of(|name| std::env::var(name).ok())),
            zone: TimeZone::system(),
            colour_out: !no_colour && std::io::stdout().is_terminal(),
            colour_error: !no_colour && on_terminal,
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress
    }

    pub(crate) fn language(&self) -> Language {
        self.language
    }

    /// The style of results.
    pub(crate) fn style(&self) -> Style {
        Style { language: self.language, zone: self.zone.clone(), now: Timestamp::now(), colour: self.colour_out }
    }

    /// The style of what goes to stderr.
    pub(crate) fn progress_style(&self) -> Style {
        Style { colour: self.colour_error, ..self.style() }
    }

    /// How wide running text may be on stdout; none where it is no terminal.
    pub(crate) fn reading_width(&self) -> Option<usize> {
        let (terminal_size::Width(columns), _) = terminal_size::terminal_size_of(std::io::stdout())?;
        Some(usize::from(columns).clamp(20, READING_WIDTH_MAX))
    }

    /// Picks the text of the language.
    pub(crate) fn pick<'a>(&self, english: &'a str, chinese: &'a str) -> &'a str {
        self.language.pick(english, chinese)
    }

    /// Prints a result.
    pub(crate) fn result<T: Serialize>(&self, data: T, text: impl FnOnce(&Style) -> String) {
        match self.format {
            Format::Json => print_json(&data),
            Format::Ndjson => print_line(&data),
            // The other forms are printed by `check` itself.
            _ => print(&text(&self.style())),
        }
    }

    /// Prints a result that has its form already.
    pub(crate) fn raw(&self, text: &str) {
        print(text);
    }

    /// Prints an event of a feed, where each has its line.
    pub(crate) fn feed<T: Serialize>(&self, data: T) {
        if self.format == Format::Ndjson {
            print_line(&data);
        }
    }

    /// Says something beside the result.
    pub(crate) fn say(&self, text: &str) {
        // Nobody reads stderr any more: nothing is lost.
        let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end_matches('\n'));
    }

    /// Says something beside the result unless a program listens there.
    pub(crate) fn remark(&self, text: &str) {
        if self.progress != Progress::Json {
            self.say(text);
        }
    }

    /// Says something as a line of JSON beside the result.
    pub(crate) fn say_json<T: Serialize>(&self, data: T) {
        if let Ok(line) = serde_json::to_string(&Envelope::new(data)) {
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        }
    }

    /// Says what went wrong: for people on stderr, for programs on stdout.
    pub(crate) fn problem(&self, occurrence: &Problem) -> Exit {
        match self.format {
            Format::Json => print_json(&Refused::new(occurrence)),
            Format::Ndjson => print_line(&Refused::new(occurrence)),
            _ => {}
        }
        self.say(&problem::problem(occurrence, &self.progress_style()));
        Exit::of_problem(occurrence)
    }
}

fn progress(choice: ProgressChoice, on_terminal: bool) -> Progress {
    match choice {
        ProgressChoice::Auto if on_terminal => Progress::Tty,
        ProgressChoice::Auto | ProgressChoice::Plain => Progress::Plain,
        ProgressChoice::Tty => Progress::Tty,
        ProgressChoice::Json => Progress::Json,
        ProgressChoice::None => Progress::None,
    }
}

/// The language that the environment asks for, by the first variable that is set.
fn language_of(variable: impl Fn(&str) -> Option<String>) -> Language {
    let names = ["LC_ALL", "LC_MESSAGES", "LANG"];
    let asked = names.iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
    match asked {
        Some(locale) if locale.to_ascii_lowercase().starts_with("zh") => Language::Zh,
        _ => Language::En,
    }
}

/// Whether a command line that could not be read asks for JSON all the same.
pub(crate) fn asks_for_json(given: &[OsString]) -> bool {
    let given: Vec<_> = given.iter().map(|argument| argument.to_string_lossy()).collect();
    let is_json = |value: &str| matches!(value, "json" | "ndjson");
    given.iter().enumerate().any(|(index, argument)| match argument.as_ref() {
        "-o" | "--output" => given.get(index + 1).is_some_and(|value| is_json(value)),
        other => ["--output=", "-o=", "-o"].iter().any(|option| other.strip_prefix(option).is_some_and(is_json)),
    })
}

fn print(text: &str) {
    // A closed pipe (`| head`) is the reader's choice and no failure.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

pub(crate) fn print_json<T: Serialize>(data: &T) {
    if let Ok(text) = serde_json::to_string_pretty(&Envelope::new(data)) {
        print(&(text + "\n"));
    }
}

fn print_line<T: Serialize>(data: &T) {
    if let Ok(text) = serde_json::to_string(&Envelope::new(data)) {
        print(&(text + "\n"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_follows_the_first_variable_that_is_set() {
        for (variables, expected) in [
            (&[("LANG", "zh_CN.UTF-8")][..], Language::Zh),
            (&[("LANG", "en_US.UTF-8")], Language::En),
            (&[("LC_ALL", "C"), ("LANG", "zh_CN.UTF-8")], Language::En),
            (&[("LC_ALL", ""), ("LC_MESSAGES", "zh_TW"), ("LANG", "C")], Language::Zh),
            (&[], Language::En),
        ] {
            let variable =
                |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(language_of(variable), expected, "{variables:?}");
        }
    }

    #[test]
    fn json_is_recognised_in_a_command_line_that_cannot_be_read() {
        for (line, expected) in [
            ("shiplock plan -o json", true),
            ("shiplock plan --output json", true),
            ("shiplock plan --output=ndjson", true),
            ("shiplock plan -ojson", true),
            ("shiplock plan -o text", false),
            ("shiplock plan -o", false),
            ("shiplock json", false),
        ] {
            let given: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(asks_for_json(&given), expected, "{line}");
        }
    }

    #[test]
    fn progress_is_redrawn_on_a_terminal_only_unless_asked() {
        assert_eq!(progress(ProgressChoice::Auto, true), Progress::Tty);
        assert_eq!(progress(ProgressChoice::Auto, false), Progress::Plain);
        assert_eq!(progress(ProgressChoice::Json, true), Progress::Json);
        assert_eq!(progress(ProgressChoice::None, true), Progress::None);
    }
}
