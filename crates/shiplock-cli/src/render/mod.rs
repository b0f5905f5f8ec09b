//! Typed values to text, in English and Chinese. Pure: no clock, no network, no terminal.
//!
//! Everything here comes from codes, kinds and parameters. It must never read meaning out of a sentence.

pub mod backup;
pub mod catalogue;
pub mod check;
pub mod cluster;
pub mod consequence;
pub(crate) mod demo;
pub mod event;
pub mod plan;
pub mod problem;
pub mod rehearsal;
pub(crate) mod report;
#[cfg(test)]
pub mod sample;
pub mod table;
pub mod time;
pub mod timeline;
pub mod upgrade;
pub mod words;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use shiplock_core::language::Language;

/// How text is to look, and when it is shown.
#[derive(Clone, Debug)]
pub struct Style {
    /// The language.
    pub language: Language,
    /// The zone that times are shown in.
    pub zone: TimeZone,
    /// The time that ages are counted to.
    pub now: Timestamp,
    /// Whether colours are allowed. A colour never says what a word does not.
    pub colour: bool,
}

/// What a colour stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// Well.
    Good,
    /// Wrong.
    Bad,
    /// A person should look.
    Notice,
    /// In work.
    Busy,
    /// Less important.
    Faint,
    /// A title.
    Strong,
}

impl Style {
    /// Without colours, in UTC.
    pub fn plain(language: Language, now: Timestamp) -> Self {
        Self { language, zone: TimeZone::UTC, now, colour: false }
    }

    /// The same at another time.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Self {
        Self { now, ..self.clone() }
    }

    /// Picks the text of the language.
    pub fn pick<'a>(&self, english: &'a str, chinese: &'a str) -> &'a str {
        self.language.pick(english, chinese)
    }

    /// Whether the language is Chinese.
    pub fn zh(&self) -> bool {
        self.language == Language::Zh
    }

    /// Colours a text.
    pub fn tone(&self, tone: Tone, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31;1",
            Tone::Notice => "33",
            Tone::Busy => "36",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}
