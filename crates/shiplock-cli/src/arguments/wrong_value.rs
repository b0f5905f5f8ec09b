//! What is wrong with a value of the command line, for people of both languages.

use std::fmt;

/// Why a value is not taken. clap shows the English sentence; the Chinese one is found again as the source of its error.
#[derive(Clone, Debug)]
pub(crate) struct WrongValue {
    pub(crate) english: String,
    pub(crate) chinese: String,
}

impl fmt::Display for WrongValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.english)
    }
}

impl std::error::Error for WrongValue {}
