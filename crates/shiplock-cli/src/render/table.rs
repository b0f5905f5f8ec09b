//! Columns that line up, also where characters are two cells wide.

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

/// A text of another program without what would break a line or steer a terminal.
pub fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
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
        let column: Vec<usize> =
            ["STATE", "进行中", "ok"].iter().zip(text.lines()).map(|(cell, line)| line.split(cell).next().unwrap().width()).collect();
        assert_eq!(column, [16, 16, 16]);
    }

    #[test]
    fn a_cut_text_never_exceeds_its_width() {
        for (text, width, expected) in
            [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("集群升级", 5, "集群…"), ("集群升级", 4, "集…"), ("集群", 4, "集群")]
        {
            assert_eq!(cut(text, width), expected);
            assert!(cut(text, width).width() <= width);
        }
    }

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(one_line("a\u{1b}[2Jb\nc\td"), "a [2Jb c d");
    }
}
