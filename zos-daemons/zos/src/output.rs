//! What goes to stdout: tables for people, JSON for programs.

use std::io::{self, Write};

use serde::Serialize;

/// How to answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// Shows a value: in JSON as it is, else as the text for people.
    pub(crate) fn show(
        self,
        value: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        let text = if self.json { serde_json::to_string_pretty(value)? + "\n" } else { text() };
        io::stdout().lock().write_all(text.as_bytes())?;
        Ok(())
    }
}

/// Rows in aligned columns, under a heading unless that is empty.
pub(crate) fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let heading = heading.map(str::to_owned);
    let headed = heading.iter().any(|cell| !cell.is_empty());
    let rows: Vec<&[String; N]> = headed.then_some(&heading).into_iter().chain(rows).collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row.iter()) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Text of a node as a terminal may show it: without control characters.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Thousandths, written as a number: `1500` is `1.5`.
pub(crate) fn milli(thousandths: u64) -> String {
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["web".to_owned(), "1".to_owned()], ["database".into(), "12".into()]];
        assert_eq!(table(["NAME", "N"], &rows), "NAME      N\nweb       1\ndatabase  12\n");
        assert_eq!(table(["", ""], &rows), "web       1\ndatabase  12\n");
        assert_eq!(table(["NAME", "N"], &[]), "NAME  N\n");
    }

    #[test]
    fn thousandths_are_written_short() {
        let check = |value: u64, text: &str| assert_eq!(milli(value), text);
        check(0, "0");
        check(1500, "1.5");
        check(12_000, "12");
        check(5, "0.005");
    }
}
