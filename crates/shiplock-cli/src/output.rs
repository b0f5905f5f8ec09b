//! Where results and progress go, and in which form. The one place that writes to stdout and stderr.

use std::ffi::OsString;
use std::io::{IsTerminal, Write as _};
use std::sync::OnceLock;

use clap::builder::StyledStr;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use shiplock_core::language::Language;
use shiplock_core::problem::{Code, Problem};

use crate::arguments::{Format, GlobalArguments, ProgressChoice, parse_language};
use crate::exit::Exit;
use crate::render::{Style, problem, table};
use crate::result::{Envelope, Refused};

/// The most columns that help takes, and the columns where there is no terminal; the same as of English help.
const HELP_WIDTH_MAX: usize = 120;
const HELP_WIDTH_DEFAULT: usize = 100;
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
    colour_out: bool,
    colour_error: bool,
}

impl Output {
    pub(crate) fn new(arguments: &GlobalArguments) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        Self {
            format: arguments.output,
            progress: progress(arguments.progress, on_terminal && !is_dumb()),
            language: arguments.lang.unwrap_or_else(|| language_of(|name| std::env::var(name).ok())),
            colour_out: may_be_coloured(&std::io::stdout()),
            colour_error: may_be_coloured(&std::io::stderr()),
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

    /// The style of results. To find the zone of this machine every folder of its zones is opened, the first time: a result
    /// for a program needs none.
    pub(crate) fn style(&self) -> Style {
        let zone = TimeZone::system();
        Style { language: self.language, zone, now: Timestamp::now(), colour: self.colour_out }
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

    /// Prints a document that is of use only whole.
    pub(crate) fn document(&self, text: &str) -> std::io::Result<()> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
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

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb")
}

fn may_be_coloured(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) || is_dumb();
    !refused && stream.is_terminal()
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
    values(given, &["-o", "--output"]).iter().any(|value| matches!(value.as_str(), "json" | "ndjson"))
}

/// The language of a command line that was not read, by the rules for one that was.
pub(crate) fn asked_language(given: &[OsString]) -> Language {
    asked_language_among(given, |name| std::env::var(name).ok())
}

fn asked_language_among(given: &[OsString], variable: impl Fn(&str) -> Option<String>) -> Language {
    let mut named = values(given, &["--lang"]);
    named.extend(variable("SHIPLOCK_LANG"));
    named.iter().find_map(|name| parse_language(name).ok()).unwrap_or_else(|| language_of(variable))
}

/// The values of an option in a command line that was not read.
fn values(given: &[OsString], names: &[&str]) -> Vec<String> {
    let given: Vec<_> = given.iter().map(|argument| argument.to_string_lossy()).take_while(|it| it != "--").collect();
    let value = |(index, argument): (usize, &std::borrow::Cow<'_, str>)| {
        let (name, behind) = names.iter().find_map(|name| Some((*name, argument.strip_prefix(*name)?)))?;
        if behind.is_empty() {
            return given.get(index + 1).map(|value| value.to_string());
        }
        let joined = behind.strip_prefix('=');
        joined.or((!name.starts_with("--")).then_some(behind)).map(str::to_owned)
    };
    given.iter().enumerate().filter_map(value).collect()
}

/// Says help, or what is wrong with a command line, in lines that fit the terminal.
pub(crate) fn say_styled(text: &StyledStr, to_stderr: bool) {
    let coloured = if to_stderr { may_be_coloured(&std::io::stderr()) } else { may_be_coloured(&std::io::stdout()) };
    let text = if coloured { text.ansi().to_string() } else { text.to_string() };
    let columns = terminal_size::terminal_size().map(|(terminal_size::Width(columns), _)| usize::from(columns));
    let width = columns.map_or(HELP_WIDTH_DEFAULT, |columns| columns.clamp(20, HELP_WIDTH_MAX));
    let text = table::wrapped(&text, width);
    if to_stderr {
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    } else {
        print(&text);
    }
}

/// Why something could not be written to stdout, where it was so.
static UNWRITTEN: OnceLock<std::io::Error> = OnceLock::new();

fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A closed pipe (`| head`) is the reader's choice and no failure.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let _ = UNWRITTEN.set(error);
        }
        _ => {}
    }
}

/// The problem that the result could not be written, as to a full disk; none where it could.
pub(crate) fn unwritten() -> Option<Problem> {
    let error = UNWRITTEN.get()?;
    let problem = Problem::new(Code::FileUnusable).with("path", "/dev/stdout").with("subject", "this machine");
    Some(problem.with("operation", "written").because(error))
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
    fn the_language_of_a_command_line_that_cannot_be_read_is_the_one_that_it_asks_for() {
        for (line, variables, expected) in [
            ("shiplock plan --lang zh --help", &[][..], Language::Zh),
            ("shiplock --lang=zh nonsense", &[], Language::Zh),
            ("shiplock --lang en", &[("SHIPLOCK_LANG", "zh")], Language::En),
            ("shiplock --lang fr", &[("LANG", "zh_CN.UTF-8")], Language::Zh),
            ("shiplock --lang", &[], Language::En),
            ("shiplock --language=zh", &[], Language::En),
            ("shiplock plan -- --lang zh", &[], Language::En),
            ("shiplock", &[("SHIPLOCK_LANG", "zh"), ("LC_ALL", "en_US.UTF-8")], Language::Zh),
            ("shiplock", &[("SHIPLOCK_LANG", "en"), ("LC_ALL", "zh_CN.UTF-8")], Language::En),
            ("shiplock", &[("LC_ALL", "zh_CN.UTF-8")], Language::Zh),
        ] {
            let given: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            let variable =
                |name: &str| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(asked_language_among(&given, variable), expected, "{line} {variables:?}");
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
