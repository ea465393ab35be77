//! A TOML file as a form with known fields: each is taken once, what remains is refused by line.

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zos_host::cmdline::nearest;

use super::Problem;

/// The file while it is read; problems gather.
pub(super) struct Form<'a> {
    file: &'a str,
    text: &'a str,
    table: DeTable<'a>,
    known: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl<'a> Form<'a> {
    pub(super) fn open(file: &'a str, text: &'a str) -> Result<Self, Vec<Problem>> {
        match DeTable::parse(text) {
            Ok(table) => Ok(Self {
                file,
                text,
                table: table.into_inner(),
                known: Vec::new(),
                problems: Vec::new(),
            }),
            Err(error) => {
                let line = error.span().map_or(0, |span| line(text, span.start));
                let what = error.message().to_owned();
                Err(vec![Problem { file: file.to_owned(), line, what }])
            }
        }
    }

    /// The problems so far, those of unknown keys included; empty: the file is good.
    pub(super) fn close(mut self) -> Vec<Problem> {
        let rest = std::mem::take(&mut self.table);
        for key in rest.keys() {
            let name: &str = key.get_ref();
            let meant = match nearest(name, self.known.iter().copied()) {
                Some(known) => format!("; did you mean `{known}`?"),
                None => format!("; known are {}", self.known.join(", ")),
            };
            self.refuse(line(self.text, key.span().start), format!("unknown key `{name}`{meant}"));
        }
        self.problems.sort_by_key(|problem| problem.line);
        self.problems
    }

    /// Notes a problem at a line.
    pub(super) fn refuse(&mut self, line: usize, what: String) {
        self.problems.push(Problem { file: self.file.to_owned(), line, what });
    }

    /// Takes a field's value with its line.
    fn take(&mut self, key: &'static str) -> Option<(usize, DeValue<'a>)> {
        self.known.push(key);
        let value: Spanned<DeValue<'a>> = self.table.remove(key)?;
        Some((line(self.text, value.span().start), value.into_inner()))
    }

    /// A text and its line; `None` when it is absent or was refused.
    pub(super) fn text(&mut self, key: &'static str) -> Option<(usize, String)> {
        let (line, value) = self.take(key)?;
        match value {
            DeValue::String(text) => Some((line, text.into_owned())),
            other => {
                self.refuse(line, format!("`{key}` is a {}, not a text", other.type_str()));
                None
            }
        }
    }

    /// A list of texts, each with its line; empty when it is absent.
    pub(super) fn texts(&mut self, key: &'static str) -> Vec<(usize, String)> {
        let Some((at, value)) = self.take(key) else { return Vec::new() };
        let DeValue::Array(values) = value else {
            self.refuse(at, format!("`{key}` is a {}, not a list of texts", value.type_str()));
            return Vec::new();
        };
        let mut texts = Vec::new();
        for value in values {
            let at = line(self.text, value.span().start);
            match value.into_inner() {
                DeValue::String(text) => texts.push((at, text.into_owned())),
                other => {
                    let what = format!("`{key}` holds a {}, not a text", other.type_str());
                    self.refuse(at, what);
                }
            }
        }
        texts
    }

    /// A number that isn't negative.
    pub(super) fn number(&mut self, key: &'static str) -> Option<u64> {
        let (line, value) = self.take(key)?;
        let number = number(&value);
        if number.is_none() {
            self.refuse(line, format!("`{key}` must be a number, 0 or more"));
        }
        number
    }

    /// A table of texts or numbers, each with its line; empty when it is absent.
    pub(super) fn pairs(&mut self, key: &'static str) -> Vec<(usize, String, Value)> {
        let Some((at, value)) = self.take(key) else { return Vec::new() };
        let DeValue::Table(table) = value else {
            self.refuse(at, format!("`{key}` is a {}, not a table", value.type_str()));
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for (name, value) in table {
            let at = line(self.text, name.span().start);
            let name = name.into_inner().into_owned();
            let value = value.into_inner();
            match (number(&value), value) {
                (Some(number), _) => pairs.push((at, name, Value::Number(number))),
                (None, DeValue::String(text)) => {
                    pairs.push((at, name, Value::Text(text.into_owned())));
                }
                (None, _) => self.refuse(at, format!("`{key}.{name}` must be a text or a number")),
            }
        }
        pairs
    }

    /// A duration such as `"90s"`, `"500ms"` or `"2min"`, in milliseconds.
    pub(super) fn millis(&mut self, key: &'static str) -> Option<u64> {
        let (line, text) = self.text(key)?;
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "ms" => Some(1),
            "s" => Some(1000),
            "min" => Some(60_000),
            _ => None,
        };
        let millis = digits.parse::<u64>().ok().zip(unit).and_then(|(n, unit)| n.checked_mul(unit));
        if millis.is_none() {
            self.refuse(
                line,
                format!("`{key}` = \"{text}\": write \"500ms\", \"90s\" or \"2min\""),
            );
        }
        millis
    }

    /// One of these words, as the value beside it.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let (line, text) = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.refuse(line, format!("`{key}` = \"{text}\" is not one of {}", words.join(", ")));
        }
        found
    }
}

/// A value of a table.
pub(super) enum Value {
    Text(String),
    Number(u64),
}

fn number(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::Integer(integer) = value else { return None };
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// The line of a byte, from 1.
fn line(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}
