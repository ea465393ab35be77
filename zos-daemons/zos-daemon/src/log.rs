//! The log: a line of JSON on stderr for each event, behind the level prefix of sd-daemon(3).
//!
//! ```text
//!  warn!(disk = "vda", "it fails")  ─▶  <4>{"msg":"it fails","target":"storaged::life","disk":"vda"}
//! ```
//! PID 1 holds the other end. It reads the prefix alone, and adds time and service. The message
//! comes first, since warnings are also shown raw on the console and in the kernel's log.

use std::fmt;
use std::io::Write;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::Settings;
use crate::metrics::LogLines;

/// Numbers of syslog(3).
pub(crate) const CRITICAL: u8 = 2;
pub(crate) const ERROR: u8 = 3;

/// How fine the log is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Verbosity(Level);

impl Verbosity {
    /// `zos.debug`, or a word of `zos.log` that asks for more. Less than info is never logged: what
    /// PID 1 keeps costs little, and what it shows on the console it chooses by the same words (and
    /// tells if one of them makes no sense).
    pub(crate) fn of(settings: &Settings) -> Self {
        match (settings.get("log"), settings.get("debug")) {
            (Some("trace"), _) => Self(Level::TRACE),
            (Some("debug" | "7"), _) | (_, Some("" | "1")) => Self(Level::DEBUG),
            _ => Self(Level::INFO),
        }
    }
}

/// Starts the process's log. A second start changes nothing.
pub(crate) fn start(verbosity: Verbosity, lines: LogLines) {
    let write = |line: &[u8]| std::io::stderr().write_all(line);
    let _ = tracing::subscriber::set_global_default(Log { verbosity, lines, write });
}

/// The same for a process of many simulated daemons: each line goes to `write`, on the thread that
/// logged it.
pub fn log_to(debug: bool, write: impl Fn(&[u8]) -> std::io::Result<()> + Send + Sync + 'static) {
    let verbosity = Verbosity(if debug { Level::DEBUG } else { Level::INFO });
    let lines = LogLines::default();
    let _ = tracing::subscriber::set_global_default(Log { verbosity, lines, write });
}

/// A line behind its level prefix.
pub(crate) fn line(priority: u8, message: &str, target: &str, fields: &[(&str, Value)]) -> String {
    let (message, target) = (Value::from(message), Value::from(target));
    let mut line = format!("<{priority}>{{\"msg\":{message},\"target\":{target}");
    for (name, value) in fields {
        line += &format!(",{}:{value}", Value::from(*name));
    }
    line + "}\n"
}

/// Writes events as lines, each with one write, so that lines never mix. Spans are not told: a
/// daemon does one thing at a time, and an event names what it is about.
struct Log<W> {
    verbosity: Verbosity,
    lines: LogLines,
    write: W,
}

impl<W> Subscriber for Log<W>
where
    W: Fn(&[u8]) -> std::io::Result<()> + 'static,
{
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.verbosity.0
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::from_level(self.verbosity.0))
    }

    fn event(&self, event: &Event<'_>) {
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        self.lines.count(level);
        let mut said = Said::default();
        event.record(&mut said);
        let line = line(priority(level), &said.message, target, &said.fields);
        // Nobody is left to tell when stderr is gone.
        let _ = (self.write)(line.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Said {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        match (field.name(), value.into()) {
            ("message", Value::String(text)) => self.message = text,
            ("message", other) => self.message = other.to_string(),
            field => self.fields.push(field),
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }
}

/// The same for events.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => ERROR,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What is written when events are logged at most at a level.
    fn written(verbosity: Verbosity, log_some: impl FnOnce()) -> (String, LogLines) {
        let (text, lines) = (Arc::new(Mutex::new(Vec::new())), LogLines::default());
        let sink = Arc::clone(&text);
        let write = move |line: &[u8]| sink.lock().unwrap().write_all(line);
        let log = Log { verbosity, lines: lines.clone(), write };
        tracing::subscriber::with_default(log, log_some);
        let text = std::mem::take(&mut *text.lock().unwrap());
        (String::from_utf8(text).unwrap(), lines)
    }

    #[test]
    fn a_line_is_its_level_and_json_with_the_message_first() {
        let check = |log: fn(), expected: &str| {
            let (text, _) = written(Verbosity(Level::TRACE), log);
            assert_eq!(text.replace(module_path!(), "here"), format!("{expected}\n"));
            let (_, json) = text.split_once('>').unwrap();
            serde_json::from_str::<Value>(json).expect("JSON");
        };
        check(|| tracing::error!("bad"), r#"<3>{"msg":"bad","target":"here"}"#);
        check(
            || tracing::warn!(disk = "vda", tries = 3, left = -1, ok = false, "{} fails", "it"),
            r#"<4>{"msg":"it fails","target":"here","disk":"vda","tries":3,"left":-1,"ok":false}"#,
        );
        check(|| tracing::info!(x = ?Some(1)), r#"<6>{"msg":"","target":"here","x":"Some(1)"}"#);
        check(|| tracing::debug!("a\nb\"c\u{1}"), r#"<7>{"msg":"a\nb\"c\u0001","target":"here"}"#);
    }

    #[test]
    fn what_is_too_fine_is_neither_written_nor_counted() {
        let (text, lines) = written(Verbosity(Level::WARN), || {
            tracing::info!("small talk");
            tracing::warn!("a word");
        });
        assert_eq!(text.lines().count(), 1);
        assert_eq!(lines.total(), 1);
    }

    #[test]
    fn a_farmer_asks_for_more_and_never_gets_less() {
        let check = |key: &str, value: &str, level| {
            let settings = [(key.to_owned(), value.to_owned())].into_iter().collect();
            assert_eq!(Verbosity::of(&settings), Verbosity(level), "{key}={value}");
        };
        check("debug", "1", Level::DEBUG);
        check("debug", "0", Level::INFO);
        check("log", "debug", Level::DEBUG);
        check("log", "trace", Level::TRACE);
        check("log", "error", Level::INFO);
        check("farm", "7", Level::INFO);
    }
}
