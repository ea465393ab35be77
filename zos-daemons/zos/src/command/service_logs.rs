//! `zos service logs NAME [-f] [--level LEVEL] [--since AGO]`
//!
//! ```text
//!  GET log?after=cursor ─▶ record … record ─┬─ end, without -f ─▶ done
//!         ▲                                 └─ broke off, with -f ─▶ wait, with the last cursor
//!         └──────────────────────────────────────────────────────────────┘
//! ```

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde_json::{Map, Value};
use zos_api::client::{Client, ClientError, ServiceLog};
use zos_api::node::farmer::{LogGap, LogLine, LogRecord};

use super::patience::{ask_until_answered, passes, tell};
use crate::cli::{Level, ServiceLogs};
use crate::output::{Output, escaped, json_line};

pub(super) async fn run(client: &Client, logs: &ServiceLogs, output: Output) -> anyhow::Result<()> {
    let mut printer = Printer::new(client, logs, output).await?;
    let mut log = client.service_log(&logs.name, None, logs.follow).await?;
    loop {
        let ended = read(&mut log, &mut printer).await?;
        match ended {
            Some(error) if !logs.follow => return Err(error.into()),
            None if !logs.follow => return Ok(()),
            _ => {}
        }
        tell();
        let after = printer.cursor.as_deref();
        let ask = async || client.service_log(&logs.name, after, true).await;
        log = ask_until_answered(ask, |error, _| passes(error)).await?;
    }
}

/// Prints what comes; the error that ended it, if it was one.
async fn read(log: &mut ServiceLog, printer: &mut Printer) -> anyhow::Result<Option<ClientError>> {
    while let Some(record) = log.next().await {
        match record {
            Ok(record) => printer.print(&record)?,
            Err(error) => return Ok(Some(error)),
        }
    }
    Ok(None)
}

/// Shows records, as far as they are wanted.
struct Printer {
    json: bool,
    colour: bool,
    level: Level,
    /// Milliseconds since the kernel's start; what came before is not wanted.
    from_ms: u64,
    /// Whether nothing was seen yet of a log of which only the end is wanted.
    skipping: bool,
    /// The last line seen.
    cursor: Option<String>,
}

impl Printer {
    async fn new(client: &Client, logs: &ServiceLogs, output: Output) -> Result<Self, ClientError> {
        let from_ms = match logs.since {
            None => 0,
            Some(since) => {
                let uptime = Duration::from_secs(client.node().await?.uptime);
                u64::try_from(uptime.saturating_sub(since).as_millis()).unwrap_or(u64::MAX)
            }
        };
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Ok(Self {
            json: output.json,
            colour,
            level: logs.level,
            from_ms,
            skipping: logs.since.is_some(),
            cursor: None,
        })
    }

    fn print(&mut self, record: &LogRecord) -> anyhow::Result<()> {
        let wanted = self.wants(record);
        if let LogRecord::Line(line) = record {
            self.cursor = Some(line.cursor.clone());
        }
        if !wanted {
            return Ok(());
        }
        let text = match record {
            record if self.json => json_line(record)?,
            LogRecord::Line(line) => text(line, self.colour),
            LogRecord::Gap(gap) => gap_text(*gap),
        };
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")?;
        stdout.flush()?;
        Ok(())
    }

    fn wants(&mut self, record: &LogRecord) -> bool {
        match record {
            LogRecord::Gap(gap) => {
                if gap.rebooted {
                    self.from_ms = 0;
                }
                !std::mem::take(&mut self.skipping)
            }
            LogRecord::Line(line) => {
                self.skipping = false;
                Self::level_of(line) <= self.level && line.time_ms >= self.from_ms
            }
        }
    }

    fn level_of(line: &LogLine) -> Level {
        Level::ALL.get(usize::from(line.level)).copied().unwrap_or(Level::Debug)
    }
}

fn gap_text(LogGap { missed, rebooted }: LogGap) -> String {
    let lines = if missed == 1 { "line is" } else { "lines are" };
    match (rebooted, missed) {
        (true, 0) => "-- the node was booted; the log begins anew --".to_owned(),
        (true, _) => format!("-- the node was booted; {missed} {lines} no longer there --"),
        (false, _) => format!("-- {missed} {lines} no longer there --"),
    }
}

/// `TIME LEVEL message key=value`; what is no line of ours stands as it is. Nothing of it steers a terminal.
fn text(line: &LogLine, colour: bool) -> String {
    let level = Printer::level_of(line);
    let (word, code) = match level {
        Level::Emergency => ("emerg", "31;1"),
        Level::Alert => ("alert", "31;1"),
        Level::Critical => ("crit", "31;1"),
        Level::Error => ("error", "31"),
        Level::Warning => ("warning", "33"),
        Level::Notice => ("notice", "1"),
        Level::Info => ("info", ""),
        Level::Debug => ("debug", "2"),
    };
    let word = format!("{word:<7}");
    let word = match code {
        "" => word,
        code if colour => format!("\u{1b}[{code}m{word}\u{1b}[0m"),
        _ => word,
    };
    format!("{:.3} {word} {}", line.time, message(&line.text))
}

/// The message and its fields, without the program's part that it came from.
fn message(text: &str) -> String {
    let parsed = serde_json::from_str::<Map<String, Value>>(text).ok();
    let Some((mut fields, Value::String(message))) =
        parsed.and_then(|mut fields| fields.remove("msg").map(|message| (fields, message)))
    else {
        return escaped(text);
    };
    fields.remove("target");
    let mut shown = escaped(&message);
    for (key, value) in &fields {
        let value = match value {
            Value::String(text) if is_word(text) => text.clone(),
            value => value.to_string(),
        };
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(&format!("{}={}", escaped(key), escaped(&value)));
    }
    shown
}

/// Whether a text needs no quotes.
fn is_word(text: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\');
    !text.is_empty() && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: u8, text: &str) -> LogLine {
        let time = "2026-01-02T03:04:05.678Z".parse().unwrap();
        LogLine { cursor: "a.1".into(), time, time_ms: 9_000, level, text: text.into() }
    }

    #[test]
    fn lines_are_shown_for_people() {
        let check = |level: u8, given: &str, shown: &str| {
            assert_eq!(
                text(&line(level, given), false),
                format!("2026-01-02T03:04:05.678Z {shown}")
            );
        };
        check(6, r#"{"msg":"up","target":"vmd::life"}"#, "info    up");
        check(
            4,
            r#"{"msg":"it fails","target":"x","disk":"vda","tries":3,"why":"no such file","ok":false}"#,
            r#"warning it fails disk=vda ok=false tries=3 why="no such file""#,
        );
        check(6, r#"{"msg":"","x":"Some(1)"}"#, "info    x=Some(1)");
        check(3, "thread 'main' panicked", "error   thread 'main' panicked");
        check(3, r#"{"msg": 7}"#, r#"error   {"msg": 7}"#);
        check(7, r#"{"no":"message"}"#, r#"debug   {"no":"message"}"#);
        check(7, "{broken", "debug   {broken");
        check(200, "x", "debug   x");
    }

    /// Whatever a service logs, and a guest or a twin may have put in its mouth.
    #[test]
    fn a_log_can_not_steer_the_terminal() {
        let check = |given: &str, shown: &str| {
            let text = text(&line(6, given), false);
            assert!(!text.chars().any(char::is_control), "{text:?}");
            assert!(text.ends_with(shown), "{text:?}");
        };
        check("\u{1b}]0;title\u{7}x", "\\u{1b}]0;title\\u{7}x");
        check("a\rb", "a\\rb");
        check(r#"{"msg":"\u001b[2J\nfake line"}"#, "\\u{1b}[2J\\nfake line");
        check(r#"{"msg":"m","\u001b[1m":"\u009b"}"#, "m \\u{1b}[1m=\"\\u{9b}\"");
        check(r#"{"msg":"m","k":["\u202e"]}"#, "m k=[\"\\u{202e}\"]");
        let coloured = text(&line(4, "\u{1b}[31mx"), true);
        assert_eq!(coloured, "2026-01-02T03:04:05.678Z \u{1b}[33mwarning\u{1b}[0m \\u{1b}[31mx");
    }

    #[test]
    fn only_what_is_wanted_is_shown() {
        let printer = |level, from_ms, skipping| Printer {
            json: false,
            colour: false,
            level,
            from_ms,
            skipping,
            cursor: None,
        };
        let record = |level| LogRecord::Line(line(level, "x"));
        let gap = |rebooted| LogRecord::Gap(LogGap { missed: 1, rebooted });
        let check = |mut printer: Printer, records: &[LogRecord], wanted: &[bool]| {
            let seen: Vec<bool> = records.iter().map(|record| printer.wants(record)).collect();
            assert_eq!(seen, wanted);
        };
        let all = || printer(Level::Debug, 0, false);
        check(all(), &[gap(false), record(7), record(0)], &[true, true, true]);
        let warnings = printer(Level::Warning, 0, false);
        check(warnings, &[record(3), record(4), record(5), gap(false)], &[true, true, false, true]);
        // lines of 9 s after the start; what was lost before the last while is of no interest
        check(printer(Level::Debug, 9_001, true), &[gap(false), record(6)], &[false, false]);
        check(printer(Level::Debug, 9_000, true), &[record(6), gap(false)], &[true, true]);
        // of another boot all is new
        let late = printer(Level::Debug, 99_000, false);
        check(late, &[record(6), gap(true), record(6)], &[false, true, true]);
    }
}
