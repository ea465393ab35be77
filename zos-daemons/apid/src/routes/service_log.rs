//! A service's log: a line of JSON each, and a cursor to go on from.
//!
//! A cursor names the boot and the line, so one of an earlier boot is noticed: PID 1 counts each
//! boot's lines from 1 again.

use std::fmt::{self, Write};
use std::str::FromStr;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use bytes::Bytes;
use serde::Deserialize;
use utoipa::IntoParams;
use zos_api::local::init::{LogEntries, LogEntry};
use zos_api::node::farmer::{LogGap, LogLine, LogRecord};
use zos_types::{Name, Problem};

use super::services::absent;
use super::{name, query, stream};
use crate::caller::ByFarmer;
use crate::clock::Clocks;
use crate::problem::Refused;
use crate::{Api, clock};

/// What part of the log is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct LogQuery {
    /// Only what comes after this cursor; else all that is held.
    #[param(required = false)]
    after: Option<String>,
    /// Wait for more, until the client leaves.
    #[serde(default)]
    #[param(default = false, required = false)]
    follow: bool,
}

/// A service's log
///
/// A line of JSON (NDJSON) for each line that the service printed, as far as the node still holds them, oldest
/// first. Where lines are missing, a record says so. When the answer breaks off, ask again with the last cursor:
/// nothing is lost then that the node still holds.
#[utoipa::path(
    get, path = "/v1/services/{name}/log", tag = "farmer", security(("signature" = [])),
    params(("name" = Name, Path, description = "Its name."), LogQuery),
    responses(
        (status = 200, description = "Records, one a line.", body = LogRecord, content_type = "application/x-ndjson"),
        (status = 400, description = "`invalid`: `after` is no cursor.", body = Problem,
            content_type = "application/problem+json"),
        (status = 401, description = "The signature; see GET /v1/deployments.", body = Problem,
            content_type = "application/problem+json"),
        (status = 403, description = "Not the farmer; see GET /v1/services.", body = Problem,
            content_type = "application/problem+json"),
        (status = 404, description = "There is no such service.", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "PID 1 does not answer.", body = Problem,
            content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get_log(
    State(api): State<Arc<Api>>,
    Path(text): Path<String>,
    uri: Uri,
    _farmer: ByFarmer,
) -> Result<Response, Refused> {
    let name = name(&text)?.to_string();
    let LogQuery { after, follow } = query(&uri)?;
    let after = after.map(|text| text.parse::<Cursor>()).transpose().map_err(|why| {
        let detail = format!("`after` is no cursor: {why}");
        Refused::new(StatusCode::BAD_REQUEST, "invalid", detail)
    })?;
    let (line, rebooted) = match after {
        Some(Cursor { boot, line }) if boot == api.boot => (line, false),
        after => (0, after.is_some()),
    };
    let lines = api.services.read_lines(name.clone(), line, follow).await;
    let stream = lines.map_err(|error| absent(&name, error))?;
    let mut writer = Writer { boot: api.boot.clone(), rebooted };
    let write = move |entries| writer.write(entries, clock::now());
    let (first, stream) = stream::begin(stream).await?;
    Ok(stream::answer(first, stream, "application/x-ndjson", write, &api.shutdown))
}

/// A place in a log.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Cursor {
    boot: String,
    line: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.boot, self.line)
    }
}

impl FromStr for Cursor {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (boot, line) = text.split_once('.').ok_or("it has no dot")?;
        let fits = (1..=32).contains(&boot.len()) && boot.bytes().all(|b| b.is_ascii_hexdigit());
        if !fits || !line.bytes().all(|b| b.is_ascii_digit()) {
            return Err("it is none that a node gave");
        }
        let line = line.parse().map_err(|_| "its number is none")?;
        Ok(Self { boot: boot.to_owned(), line })
    }
}

/// Writes PID 1's lines as ours.
struct Writer {
    boot: String,
    /// To be told before the first line.
    rebooted: bool,
}

impl Writer {
    fn write(&mut self, lines: LogEntries, now: Clocks) -> Bytes {
        let LogEntries { entries, missed } = lines;
        let rebooted = std::mem::take(&mut self.rebooted);
        let gap = (missed > 0 || rebooted).then_some(LogRecord::Gap(LogGap { missed, rebooted }));
        let lines = entries.into_iter().map(|entry| {
            let LogEntry { cursor, time_ms, level, text } = entry;
            let cursor = Cursor { boot: self.boot.clone(), line: cursor }.to_string();
            LogRecord::Line(LogLine { cursor, time: now.date(time_ms), time_ms, level, text })
        });
        let mut text = String::new();
        for record in gap.into_iter().chain(lines) {
            let record = serde_json::to_string(&record).unwrap_or_default(); // strings and numbers only
            let _ = writeln!(text, "{record}"); // a String takes everything
        }
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_written() {
        let check = |text: &str, fits: bool| {
            let cursor = text.parse::<Cursor>();
            assert_eq!(cursor.as_ref().is_ok_and(|c| c.to_string() == text), fits, "{cursor:?}");
        };
        check("1f3a9c20aa00.117", true);
        check("a.0", true);
        check("a.18446744073709551615", true);
        check("a.18446744073709551616", false);
        check("117", false);
        check(".117", false);
        check("a.", false);
        check("a.+1", false);
        check("a b.1", false);
        check("", false);
    }

    #[test]
    fn a_gap_comes_before_its_lines() {
        let entry = LogEntry { cursor: 9, time_ms: 1_000, level: 4, text: "\u{1b}[2J".into() };
        let now = Clocks { wall_millis: 10_000, boot_millis: 3_000 };
        let mut writer = Writer { boot: "ab".into(), rebooted: true };
        let mut check = |missed: u64, expected: &[&str]| {
            let lines = LogEntries { entries: vec![entry.clone()], missed };
            let bytes = writer.write(lines, now);
            let text = std::str::from_utf8(&bytes).unwrap();
            assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        };
        let line = r#"{"cursor":"ab.9","time":"1970-01-01T00:00:08Z","time_ms":1000,"level":4,"text":"\u001b[2J"}"#;
        check(0, &[r#"{"missed":0,"rebooted":true}"#, line]);
        check(0, &[line]);
        check(3, &[r#"{"missed":3,"rebooted":false}"#, line]);
    }
}
