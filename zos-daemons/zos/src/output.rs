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
        let text =
            if self.json { steady(&serde_json::to_string_pretty(value)?) + "\n" } else { text() };
        io::stdout().lock().write_all(text.as_bytes())?;
        Ok(())
    }
}

/// JSON on one line.
pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(steady(&serde_json::to_string(value)?))
}

/// The same JSON, with what could steer a terminal written as `\u009b`: it stands in strings only.
fn steady(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\n' => shown.push('\n'),
            c if c.is_control() || turns(c) => shown.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => shown.push(c),
        }
    }
    shown
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

/// The same where each byte counts: control characters, and those that turn the order of the
/// others, are written as Rust would (`\u{1b}`), so that no text can move the cursor, change a colour or hide a part.
pub(crate) fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => shown.push('\t'),
            c if c.is_control() || turns(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

/// Marks of direction, line and paragraph separators, and what takes no room (Unicode 15, section 23.2).
fn turns(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
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
    fn no_text_steers_a_terminal() {
        let check = |text: &str, shown: &str| {
            assert_eq!(escaped(text), shown);
            assert!(!plain(text).chars().any(char::is_control), "{text:?}");
        };
        check("plain Größe ✓\tx", "plain Größe ✓\tx");
        check("\u{1b}[31mred\u{1b}[0m", "\\u{1b}[31mred\\u{1b}[0m");
        check("a\rb\nc\u{8}\u{7}\0", "a\\rb\\nc\\u{8}\\u{7}\\u{0}");
        check("\u{9b}2J \u{7f}", "\\u{9b}2J \\u{7f}"); // C1: one-character CSI
        check("\u{202e}txt.exe", "\\u{202e}txt.exe");
        check("\u{2066}\u{2028}\u{feff}", "\\u{2066}\\u{2028}\\u{feff}");
    }

    #[test]
    fn json_is_the_same_and_steers_no_terminal() {
        for text in ["a\u{9b}2J\u{7f}\u{202e}b", "\u{1b}[0m\n", "Größe ✓"] {
            let json = json_line(&text).unwrap();
            assert!(!json.chars().any(|c| c.is_control() || turns(c)), "{json}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
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
