//! Step `collect_logs`: the last lines of kubelet and containerd. Changes nothing.

use shiplock_core::upgrade::StepOutcome;

use super::{Failure, Step};
use crate::host::Host;

const LINES: u32 = 200;
const BYTES_MAX: usize = 32 << 10;

/// Gathers the lines; of too many, the newest stay.
pub async fn run<H: Host>(step: &Step<H>) -> Result<StepOutcome, Failure> {
    let text = step.host.journal(&["kubelet", "containerd"], LINES).await;
    Ok(StepOutcome::Logs { text: end_of(&text, BYTES_MAX).to_owned() })
}

/// The end of a text, at most so many bytes, from the begin of a character.
pub(crate) fn end_of(text: &str, bytes: usize) -> &str {
    let mut from = text.len().saturating_sub(bytes);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_text_never_cuts_a_character() {
        assert_eq!(end_of("节点", 3), "点");
        assert_eq!(end_of("节点", 4), "点");
        assert_eq!(end_of("节点", 2), "");
        assert_eq!(end_of("node", 100), "node");
    }
}
