//! Asks a person before something is changed for good. Without a terminal nothing is assumed.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use shiplock_core::problem::{Code, Problem};

use crate::output::Output;

/// The longest line that is read.
const LINE_BYTES_MAX: u64 = 4_096;

/// Has a person type a word. `yes` stands for it.
pub(super) async fn confirm(output: &Output, action: &str, word: &str, yes: bool) -> Result<(), Problem> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Problem::new(Code::ConfirmationNeeded).with("action", action));
    }
    let question = output.pick("Type this name to go on", "请输入该名称以继续");
    let mut terminal = std::io::stderr();
    let _ = write!(terminal, "{question} ({word}): ");
    let _ = terminal.flush();
    let typed = tokio::task::spawn_blocking(|| {
        use std::io::Read as _;
        let mut line = String::new();
        std::io::stdin().lock().take(LINE_BYTES_MAX).read_line(&mut line).map(|_| line)
    });
    let typed = typed.await.ok().and_then(Result::ok).unwrap_or_default();
    agrees(typed.trim(), word)
}

fn agrees(typed: &str, word: &str) -> Result<(), Problem> {
    if typed == word {
        return Ok(());
    }
    let typed: String = typed.chars().take(64).collect();
    Err(Problem::new(Code::ConfirmationDiffers).with("typed", typed).with("expected", word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_word_agrees() {
        assert!(agrees("prod", "prod").is_ok());
        for typed in ["", "y", "yes", "PROD", "prod2"] {
            assert_eq!(agrees(typed, "prod").unwrap_err().code, Code::ConfirmationDiffers, "{typed}");
        }
    }
}
