//! Tables without lines, as `docker ps` has them, that fit the terminal.
//!
//! A table that is too wide wraps its cells. If even that does not fit, each row becomes a block of lines. Where stdout
//! is no terminal a row is always one line, so that `grep` and `awk` work.
use super::{clean, style};
use comfy_table::{ColumnConstraint, ContentArrangement, Width, presets};

/// Spaces between two columns.
const GAP: u16 = 2;
/// Columns that the last column of a table needs at least.
const LAST: u16 = 12;

/// Rows with a title for each column.
pub(in crate::cli) struct Table {
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    empty: String,
}

impl Table {
    pub(in crate::cli) fn new<const N: usize>(header: [&'static str; N]) -> Self {
        Self { header: header.to_vec(), rows: vec![], empty: String::new() }
    }
    /// Names and values, one pair a line.
    pub(in crate::cli) fn facts() -> Self {
        Self { header: vec![], rows: vec![], empty: String::new() }
    }
    /// What is shown instead of a table without rows.
    pub(in crate::cli) fn or_empty(mut self, text: impl Into<String>) -> Self {
        self.empty = text.into();
        self
    }
    pub(in crate::cli) fn row<const N: usize>(mut self, cells: [String; N]) -> Self {
        // A cell is one line: a line feed in an error's text would look like another row.
        self.rows.push(cells.iter().map(|cell| clean(cell).replace('\n', " ")).collect());
        self
    }
    pub(in crate::cli) fn rows<const N: usize>(self, rows: impl IntoIterator<Item = [String; N]>) -> Self {
        rows.into_iter().fold(self, Self::row)
    }
    /// A row of [`facts`](Self::facts).
    pub(in crate::cli) fn fact(self, name: &str, value: impl Into<String>) -> Self {
        self.row([name.to_owned(), value.into()])
    }
    /// A row of [`facts`](Self::facts), if there is a value.
    pub(in crate::cli) fn fact_if(self, name: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.fact(name, value),
            None => self,
        }
    }

    /// The text with its line feeds. `width`: columns of the terminal.
    pub(super) fn render(&self, width: Option<u16>) -> String {
        if self.rows.is_empty() {
            return if self.empty.is_empty() { String::new() } else { format!("{}\n", self.empty) };
        }
        let mut table = self.build();
        let full: Vec<u16> = table.column_max_content_widths();
        let Some(width) = width.filter(|width| total(&full) > *width) else { return self.lines(&table) };
        let words = self.longest_words();
        if total(&words) > width {
            return self.blocks();
        }
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        for (column, word) in table.column_iter_mut().zip(words) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(word + GAP)));
        }
        self.lines(&table)
    }

    fn build(&self) -> comfy_table::Table {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        if !self.header.is_empty() {
            table.set_header(self.header.clone());
        }
        table.add_rows(self.rows.clone());
        table.column_iter_mut().for_each(|column| {
            column.set_padding((0, GAP));
        });
        table
    }

    /// The lines of the table, the titles in bold.
    fn lines(&self, table: &comfy_table::Table) -> String {
        let titles = usize::from(!self.header.is_empty());
        let lines = table.lines().enumerate().map(|(at, line)| match at < titles {
            true => format!("{}\n", style::heading(line.trim_end())),
            false => format!("{}\n", line.trim_end()),
        });
        lines.collect()
    }

    /// Columns that each column needs at least: its longest word.
    fn longest_words(&self) -> Vec<u16> {
        let rows = || self.rows.iter().map(|row| row.iter().map(String::as_str).collect::<Vec<_>>());
        let all = rows().chain((!self.header.is_empty()).then(|| self.header.clone()));
        let mut longest = vec![];
        for row in all {
            longest.resize(longest.len().max(row.len()), 0);
            for (at, cell) in row.iter().enumerate() {
                let word = cell.split(' ').map(|word| word.chars().count()).max().unwrap_or_default();
                longest[at] = longest[at].max(u16::try_from(word).unwrap_or(u16::MAX));
            }
        }
        // A long word of the last column may be broken. It is a text or the name of a step, never an id.
        if let Some(last) = longest.last_mut() {
            *last = (*last).min(LAST);
        }
        longest
    }

    /// Each row as lines of title and value, with an empty line between rows.
    fn blocks(&self) -> String {
        if self.header.is_empty() {
            return self.rows.iter().map(|row| format!("{}\n", row.join(": "))).collect();
        }
        let title_width = self.header.iter().map(|title| title.len()).max().unwrap_or_default();
        let block = |row: &Vec<String>| -> String {
            let cells = self.header.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
            cells
                .map(|(title, cell)| format!("{}  {cell}\n", style::heading(&format!("{title:title_width$}"))))
                .collect()
        };
        self.rows.iter().map(block).collect::<Vec<_>>().join("\n")
    }
}

/// Columns of the table without the gap after its last column.
fn total(columns: &[u16]) -> u16 {
    let gaps = GAP.saturating_mul(u16::try_from(columns.len().saturating_sub(1)).unwrap_or(u16::MAX));
    columns.iter().fold(gaps, |sum, column| sum.saturating_add(*column))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let long = "the server refused the connection because its limit was reached";
        let id = "0198f1c2-0000-7000-8000-000000000000";
        Table::new(["ID", "STATUS", "ERROR"]).row([id.into(), "parked".into(), long.into()])
    }

    #[test]
    fn table_without_a_terminal_has_one_line_for_each_row() {
        assert_eq!(table().render(None).lines().count(), 2);
    }

    #[test]
    fn table_never_exceeds_the_width_that_its_longest_words_allow() {
        for width in [60, 70, 80, 100] {
            let text = anstream::adapter::strip_str(&table().render(Some(width))).to_string();
            let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(longest <= usize::from(width), "{longest} columns in a terminal of {width}:\n{text}");
            assert!(text.contains("0198f1c2-0000-7000-8000-000000000000"), "an id was cut:\n{text}");
        }
    }

    #[test]
    fn control_characters_of_a_database_do_not_reach_the_terminal() {
        let text = Table::new(["NAME"]).row(["a\u{1b}[31mb\nc".into()]).render(None);
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(!text.contains('\u{1b}') && text.lines().count() == 2, "{text:?}");
    }
}
