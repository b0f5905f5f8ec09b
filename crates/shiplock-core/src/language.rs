//! The languages that people read. Codes, ids and JSON never change with the language.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A language of user text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Chinese, simplified.
    Zh,
}

impl Language {
    /// Picks the text of this language.
    pub fn pick<'a>(self, english: &'a str, chinese: &'a str) -> &'a str {
        match self {
            Self::En => english,
            Self::Zh => chinese,
        }
    }

    /// A subject as people read it. Subjects are kept as `node NAME`, `cluster NAME`, `pool NAME` or a bare `cluster`.
    pub fn subject(self, subject: &str) -> Cow<'_, str> {
        let words = [("node", "节点"), ("cluster", "集群"), ("pool", "节点池")];
        let (kind, name) = subject.split_once(' ').unwrap_or((subject, ""));
        match words.iter().find(|(english, _)| *english == kind) {
            Some((_, chinese)) if self == Self::Zh && name.is_empty() => Cow::Borrowed(chinese),
            Some((_, chinese)) if self == Self::Zh => Cow::Owned(format!("{chinese} {name}")),
            _ => Cow::Borrowed(subject),
        }
    }
}

/// Whether a character in a name steers a terminal, or makes text read in another order than it is written.
pub fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_said_in_the_readers_words() {
        for (subject, chinese) in [
            ("node w-2", "节点 w-2"),
            ("cluster prod", "集群 prod"),
            ("pool blue", "节点池 blue"),
            ("cluster", "集群"),
            ("nodes", "nodes"),
            ("", ""),
        ] {
            assert_eq!(Language::Zh.subject(subject), chinese);
            assert_eq!(Language::En.subject(subject), subject);
        }
    }
}
