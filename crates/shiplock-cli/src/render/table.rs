//! Columns that line up, also where characters are two cells wide.

use shiplock_core::language::misleads;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// A table without borders: easy to read, to copy and to cut with other tools.
#[derive(Debug)]
pub struct Table {
    indent: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a line of titles.
    pub fn new<const N: usize>(titles: [&str; N]) -> Self {
        Self { indent: 0, rows: vec![titles.map(str::to_owned).to_vec()] }
    }

    /// Puts blanks before each line.
    #[must_use]
    pub fn indented(mut self, indent: usize) -> Self {
        self.indent = indent;
        self
    }

    /// Adds a row. An empty cell is shown as `-`.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { one_line(&cell) };
        self.rows.push(cells.map(shown).to_vec());
    }

    /// The lines.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default()).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(self.indent);
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&pad(cell, *width));
                line.push_str("  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Fills a text with blanks up to a width in cells.
pub fn pad(text: &str, width: usize) -> String {
    format!("{text}{}", " ".repeat(width.saturating_sub(text.width())))
}

/// Cuts a text to a width in cells, with `…` where something is left out.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 0;
    for character in text.chars() {
        let cells = character.width().unwrap_or_default();
        if used + cells + 1 > width {
            break;
        }
        used += cells;
        kept.push(character);
    }
    kept.push('…');
    kept
}

/// The escape sequence that ends every colour.
const PLAIN: &str = "\u{1b}[0m";

/// Cuts a line that may hold our own colours.
pub fn cut_coloured(line: &str, width: usize) -> String {
    let mut kept = String::new();
    let mut used = 0;
    for piece in pieces(line) {
        let cells = piece.width;
        if used + cells > width {
            if kept.contains('\u{1b}') {
                kept.push_str(PLAIN);
            }
            break;
        }
        used += cells;
        kept.push_str(piece.text);
    }
    kept
}

/// Breaks a line that may hold our own colours at blanks and between Chinese characters, or anywhere where there is
/// neither. Further lines begin further right than the first one, and in its colour.
pub fn wrap(line: &str, width: usize) -> Vec<String> {
    let lead = lead(line);
    let hang = if lead + 30 < width { lead + if lead == 0 { 9 } else { 5 } } else { 0 };
    wrap_hanging(line, width, hang, lead)
}

/// Breaks a line of columns like [`wrap`]: further lines begin under its last column, or under its beginning where
/// that leaves little room.
fn wrap_columns(line: &str, width: usize) -> Vec<String> {
    let lead = lead(line);
    let (mut at, mut blanks, mut column) = (0, 0, lead);
    for piece in pieces(line).filter(|piece| !piece.is_colour) {
        if piece.text == " " {
            blanks += 1;
        } else {
            column = if blanks > 1 { at } else { column };
            blanks = 0;
        }
        at += piece.width;
    }
    let hang = [column, lead].into_iter().find(|hang| *hang <= width / 2).unwrap_or(0);
    wrap_hanging(line, width, hang, hang)
}

/// A text whose lines are broken like [`wrap_columns`] does.
pub fn wrapped(text: &str, width: usize) -> String {
    text.lines().flat_map(|line| wrap_columns(line, width)).map(|line| line + "\n").collect()
}

fn lead(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// Whether a line may be broken between two characters that no blank parts: beside a Chinese one, and so that no
/// punctuation is left alone.
fn may_part(before: char, after: char) -> bool {
    let is_wide = |character: char| character.width() == Some(2);
    (is_wide(before) || is_wide(after))
        && !" ，。；：、！？）》」…,.;:!?)]}>`'\"".contains(after)
        && !"（《「([{<`'\"".contains(before)
}

/// Breaks a line behind its column `begin`; further lines begin at the column `hang`.
fn wrap_hanging(line: &str, width: usize, hang: usize, begin: usize) -> Vec<String> {
    let (mut lines, mut current, mut used, mut colour) = (Vec::new(), String::new(), 0, String::new());
    // Where the current line may be broken last: the length in bytes, and the colour there.
    let mut gap: Option<(usize, String)> = None;
    let mut before = ' ';
    for piece in pieces(line) {
        let next = piece.text.chars().next().unwrap_or(' ');
        if !piece.is_colour && used > begin && may_part(before, next) {
            gap = Some((current.len(), colour.clone()));
        }
        if piece.is_colour {
            colour = if piece.text == PLAIN { String::new() } else { piece.text.to_owned() };
        } else if used + piece.width > width && used > hang {
            let (rest, begins_with) = match gap.take() {
                Some((at, colour)) => (current.split_off(at), colour),
                None => (String::new(), colour.clone()),
            };
            let mut full = current.trim_end().to_owned();
            if full.contains('\u{1b}') && !full.ends_with(PLAIN) {
                full.push_str(PLAIN);
            }
            lines.push(full);
            current = format!("{}{begins_with}{rest}", " ".repeat(hang));
            used = hang + pieces(&rest).map(|piece| piece.width).sum::<usize>();
        }
        if !piece.is_colour {
            before = next;
        }
        if piece.text == " " && used == hang && !lines.is_empty() {
            continue;
        }
        current.push_str(piece.text);
        used += piece.width;
        if piece.text == " " && used > begin {
            gap = Some((current.len(), colour.clone()));
        }
    }
    lines.push(current);
    lines
}

/// A character, or one of our colours.
struct Piece<'a> {
    text: &'a str,
    width: usize,
    is_colour: bool,
}

fn pieces(line: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let is_colour = first == '\u{1b}';
        let end = if is_colour { rest.find('m').map_or(rest.len(), |end| end + 1) } else { first.len_utf8() };
        let (text, behind) = rest.split_at(end);
        rest = behind;
        Some(Piece { text, width: if is_colour { 0 } else { first.width().unwrap_or_default() }, is_colour })
    })
}

/// A text of another program without what would break a line or steer a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().map(|character| if misleads(character) { ' ' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_with_wide_characters() {
        let mut table = Table::new(["节点", "STATE", "备注"]).indented(2);
        table.row(["w-1".to_owned(), "进行中".to_owned(), String::new()]);
        table.row(["很长的节点名".to_owned(), "ok".to_owned(), "x".to_owned()]);
        let text = table.render();
        assert_eq!(text, "  节点          STATE   备注\n  w-1           进行中  -\n  很长的节点名  ok      x\n");
        let column: Vec<usize> = ["STATE", "进行中", "ok"]
            .iter()
            .zip(text.lines())
            .map(|(cell, line)| line.split(cell).next().unwrap().width())
            .collect();
        assert_eq!(column, [16, 16, 16]);
    }

    #[test]
    fn a_cut_text_never_exceeds_its_width() {
        for (text, width, expected) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("集群升级", 5, "集群…"),
            ("集群升级", 4, "集…"),
            ("集群", 4, "集群"),
        ] {
            assert_eq!(cut(text, width), expected);
            assert!(cut(text, width).width() <= width);
        }
    }

    #[test]
    fn colours_are_cut_without_leaking() {
        assert_eq!(cut_coloured("\u{1b}[31mabcdef\u{1b}[0m", 3), "\u{1b}[31mabc\u{1b}[0m");
        assert_eq!(cut_coloured("\u{1b}[31mabc\u{1b}[0m", 3), "\u{1b}[31mabc\u{1b}[0m");
        assert_eq!(cut_coloured("集群升级", 5), "集群");
    }

    #[test]
    fn long_lines_are_broken_at_blanks_and_keep_their_colour() {
        for (line, width, expected) in [
            ("short", 10, &["short"][..]),
            ("one two three", 8, &["one two", "three"]),
            ("onetwothree", 4, &["onet", "woth", "ree"]),
            ("集群升级", 5, &["集群", "升级"]),
            ("请先升级控制面，然后继续", 15, &["请先升级控制", "面，然后继续"]),
            ("用 kubeadm 升级集群的全部节点", 16, &["用 kubeadm 升级", "集群的全部节点"]),
            ("  now   a long sentence that goes on", 24, &["  now   a long sentence", "that goes on"]),
            ("\u{1b}[31mone two\u{1b}[0m x", 4, &["\u{1b}[31mone\u{1b}[0m", "\u{1b}[31mtwo\u{1b}[0m", "x"]),
        ] {
            assert_eq!(wrap(line, width), expected, "{line}");
        }
        for width in 1..60 {
            let line = "  等待  w-2: pod pay/api-6f cannot be evicted，集群升级 (for 3m12s; attempt 9)";
            let wrapped = wrap(line, width);
            assert!(wrapped.iter().all(|line| line.width() <= width.max(2)), "{width} {wrapped:#?}");
            let letters = |text: &str| text.chars().filter(|letter| *letter != ' ').collect::<String>();
            assert_eq!(letters(&wrapped.concat()), letters(line), "{width}");
        }
    }

    #[test]
    fn a_line_of_columns_goes_on_under_its_last_column() {
        for (line, width, expected) in [
            ("  --to VERSION  目标版本，例如 1.36", 25, &["  --to VERSION  目标版", "  本，例如 1.36"][..]),
            ("  --to V  目标版本，例如 1.36", 22, &["  --to V  目标版本，例", "          如 1.36"]),
            ("    节点池依次升级", 14, &["    节点池依次", "    升级"]),
            (
                "  \u{1b}[1m-y\u{1b}[0m  不询问直接执行",
                14,
                &["  \u{1b}[1m-y\u{1b}[0m  不询问直\u{1b}[0m", "      接执行"],
            ),
        ] {
            assert_eq!(wrap_columns(line, width), expected, "{line}");
        }
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc\td"), "a [2Jb c d");
    }
}
