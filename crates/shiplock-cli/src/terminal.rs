//! A picture that is redrawn in place on stderr. Its last frame stays; nothing above it is touched.

use std::io::Write as _;

use terminal_size::{Height, Width};

/// The picture.
#[derive(Debug, Default)]
pub(crate) struct Picture {
    /// How many lines the last frame has.
    drawn: usize,
    last: Vec<String>,
}

impl Picture {
    /// The size of the terminal: columns, lines.
    pub(crate) fn size() -> (usize, usize) {
        match terminal_size::terminal_size_of(std::io::stderr()) {
            Some((Width(columns), Height(lines))) if columns > 0 && lines > 0 => (columns.into(), lines.into()),
            _ => (80, 24),
        }
    }

    /// Draws a frame over the last one.
    pub(crate) fn draw(&mut self, lines: Vec<String>) {
        if lines == self.last {
            return;
        }
        let text = redraw(self.drawn, &lines);
        // One write, so that no half frame is seen. Nobody reads stderr any more: nothing is lost.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        self.drawn = lines.len();
        self.last = lines;
    }
}

/// What moves the cursor to the begin of the last frame and replaces it line by line.
fn redraw(drawn: usize, lines: &[String]) -> String {
    let mut text = String::new();
    if drawn > 0 {
        text.push_str(&format!("\u{1b}[{drawn}A\r"));
    }
    for line in lines {
        text.push_str(line);
        // What is left of the old line goes.
        text.push_str("\u{1b}[K\n");
    }
    text.push_str("\u{1b}[J");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_replaces_the_one_before_and_nothing_above_it() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(redraw(0, &lines("a\nb")), "a\u{1b}[K\nb\u{1b}[K\n\u{1b}[J");
        assert_eq!(redraw(2, &lines("c")), "\u{1b}[2A\rc\u{1b}[K\n\u{1b}[J");
    }
}
