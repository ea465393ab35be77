//! A TOML file as a form with known fields: each is taken once, what remains is refused by line. A table inside it is
//! a form of its own, whose problems are the file's.

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zos_host::cmdline::nearest;

use super::Problem;

/// The file while it is read; problems gather.
pub(super) struct Form<'a> {
    file: &'a str,
    text: &'a str,
    /// Where it begins: 0 for the file itself.
    line: usize,
    /// `cgroup.` inside the table of that name.
    prefix: String,
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
                line: 0,
                prefix: String::new(),
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
                Some(known) => format!("; did you mean `{}`?", self.named(known)),
                None => format!("; known are {}", self.known.join(", ")),
            };
            let what = format!("unknown key `{}`{meant}", self.named(name));
            self.refuse(line(self.text, key.span().start), what);
        }
        self.problems.sort_by_key(|problem| problem.line);
        self.problems
    }

    /// Notes a problem at a line.
    pub(super) fn refuse(&mut self, line: usize, what: String) {
        self.problems.push(Problem { file: self.file.to_owned(), line, what });
    }

    /// Notes that something is missing, or doesn't fit together.
    pub(super) fn refuse_as_a_whole(&mut self, what: String) {
        self.refuse(self.line, what);
    }

    /// A key with the name of its table.
    pub(super) fn named(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Reads a table inside this one; `None` when it is absent or no table. What `read` leaves is refused.
    pub(super) fn within<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        let (at, value) = self.take(key)?;
        let DeValue::Table(table) = value else {
            let what = format!("`{}` is a {}, not a table", self.named(key), value.type_str());
            self.refuse(at, what);
            return None;
        };
        let mut inner = Self {
            file: self.file,
            text: self.text,
            line: at,
            prefix: format!("{}.", self.named(key)),
            table,
            known: Vec::new(),
            problems: Vec::new(),
        };
        let read = read(&mut inner);
        self.problems.extend(inner.close());
        Some(read)
    }

    /// The file has this key.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
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
                let what = format!("`{}` is a {}, not a text", self.named(key), other.type_str());
                self.refuse(line, what);
                None
            }
        }
    }

    /// A list of texts, each with its line; empty when it is absent.
    pub(super) fn texts(&mut self, key: &'static str) -> Vec<(usize, String)> {
        let Some((at, value)) = self.take(key) else { return Vec::new() };
        let DeValue::Array(values) = value else {
            let what =
                format!("`{}` is a {}, not a list of texts", self.named(key), value.type_str());
            self.refuse(at, what);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for value in values {
            let at = line(self.text, value.span().start);
            match value.into_inner() {
                DeValue::String(text) => texts.push((at, text.into_owned())),
                other => {
                    let what =
                        format!("`{}` holds a {}, not a text", self.named(key), other.type_str());
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
            self.refuse(line, format!("`{}` must be a number, 0 or more", self.named(key)));
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

    /// A number within bounds.
    pub(super) fn number_in(
        &mut self,
        key: &'static str,
        bounds: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let (line, value) = self.take(key)?;
        let number = number(&value).filter(|number| bounds.contains(number));
        if number.is_none() {
            let (least, most) = (bounds.start(), bounds.end());
            let what = format!("`{}` must be a number, {least} to {most}", self.named(key));
            self.refuse(line, what);
        }
        number
    }

    /// Yes or no.
    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let (line, value) = self.take(key)?;
        if let DeValue::Boolean(flag) = value {
            return Some(flag);
        }
        self.refuse(line, format!("`{}` must be true or false", self.named(key)));
        None
    }

    /// A duration such as `"90s"`, `"500ms"`, `"2min"` or `"1h"`, in milliseconds.
    pub(super) fn millis(&mut self, key: &'static str) -> Option<u64> {
        let (line, text) = self.text(key)?;
        let millis = millis(&text);
        if millis.is_none() {
            self.refuse_millis(line, key, &text, "");
        }
        millis
    }

    /// A duration that isn't 0.
    pub(super) fn positive_millis(&mut self, key: &'static str) -> Option<u64> {
        let (line, text) = self.text(key)?;
        let millis = millis(&text);
        match millis {
            None => self.refuse_millis(line, key, &text, ""),
            Some(0) => {
                let what = format!("`{}` must be longer than 0", self.named(key));
                self.refuse(line, what);
            }
            Some(_) => {}
        }
        millis.filter(|millis| *millis > 0)
    }

    /// A duration, or `"never"`: `Some(None)`.
    pub(super) fn millis_or_never(&mut self, key: &'static str) -> Option<Option<u64>> {
        let (line, text) = self.text(key)?;
        if text == "never" {
            return Some(None);
        }
        let millis = millis(&text);
        if millis.is_none() {
            self.refuse_millis(line, key, &text, " or \"never\"");
        }
        millis.map(Some)
    }

    fn refuse_millis(&mut self, line: usize, key: &str, text: &str, more: &str) {
        let key = self.named(key);
        let what = format!("`{key}` = \"{text}\": write \"500ms\", \"90s\" or \"2min\"{more}");
        self.refuse(line, what);
    }

    /// A size such as `"64MiB"`, or a number of bytes.
    pub(super) fn bytes(&mut self, key: &'static str) -> Option<u64> {
        let (line, value) = self.take(key)?;
        let bytes = match &value {
            DeValue::String(text) => scaled(
                text,
                &[("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("TiB", 1 << 40)],
            ),
            other => number(other),
        };
        if bytes.is_none() {
            let what = format!("`{}`: write \"64MiB\" or a number of bytes", self.named(key));
            self.refuse(line, what);
        }
        bytes
    }

    /// A share such as `"50%"`; 100 is one processor.
    pub(super) fn percent(&mut self, key: &'static str) -> Option<u64> {
        let (line, text) = self.text(key)?;
        let percent = scaled(&text, &[("%", 1)]).filter(|percent| (1..=100_000).contains(percent));
        if percent.is_none() {
            let what = format!(
                "`{}` = \"{text}\": write \"50%\"; \"200%\" is two processors",
                self.named(key)
            );
            self.refuse(line, what);
        }
        percent
    }

    /// One of these words, as the value beside it.
    pub(super) fn word<T: Copy>(&mut self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let (line, text) = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let what =
                format!("`{}` = \"{text}\" is not one of {}", self.named(key), words.join(", "));
            self.refuse(line, what);
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

fn millis(text: &str) -> Option<u64> {
    scaled(text, &[("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000)])
}

/// A number and one of these units right behind it.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at(end);
    let (_, scale) = units.iter().find(|(word, _)| *word == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*scale)
}

/// The line of a byte, from 1.
fn line(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}
