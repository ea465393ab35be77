//! What services print: each has a bounded ring of lines, filled by the thread that it runs on.
//!
//! ```text
//!  tracing ── "<4>…" ──▶ this thread's Log ──▶ ReadLog, as a stream too
//! ```

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use zos_api::local::init::{LogEntries, LogEntry};
use zos_host::clock::boottime_millis;

/// Bytes of text that a log holds.
const HELD: usize = 64 * 1024;

thread_local! {
    static HERE: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// Starts the log of the process: each line goes to its thread's log, and with `debug` to stderr too.
pub(crate) fn start_log(debug: bool) {
    zos_daemon::log_to(debug, move |line| {
        let line = String::from_utf8_lossy(line);
        HERE.with_borrow(|here| {
            if let Some(log) = here {
                log.add(boottime_millis(), &line);
            }
        });
        if debug {
            let thread = std::thread::current();
            eprint!("{} {line}", thread.name().unwrap_or_default());
        }
        Ok(())
    });
}

/// From now on, what this thread logs goes here.
pub(crate) fn route_logs(log: &Log) {
    HERE.with_borrow_mut(|here| *here = Some(log.clone()));
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<LogEntry>,
    bytes: usize,
    cursor: u64,
}

/// A service's log. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    ring: Arc<Mutex<Ring>>,
    grown: Arc<watch::Sender<u64>>,
}

impl Log {
    /// Adds a line with its level prefix.
    pub(crate) fn add(&self, now: u64, line: &str) {
        let line = line.trim_end_matches('\n');
        let (level, text) = level(line);
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.cursor += 1;
        ring.bytes += text.len();
        let cursor = ring.cursor;
        ring.entries.push_back(LogEntry { cursor, time_ms: now, level, text: text.to_owned() });
        while ring.bytes > HELD {
            let Some(gone) = ring.entries.pop_front() else { break };
            ring.bytes -= gone.text.len();
        }
        drop(ring);
        self.grown.send_replace(cursor);
    }

    /// What comes after a cursor, as far as it is held. A cursor that this log never came to is of an
    /// earlier boot: all is new then.
    pub(crate) fn read(&self, after: u64) -> LogEntries {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let after = if after > ring.cursor { 0 } else { after };
        let entries: Vec<LogEntry> =
            ring.entries.iter().filter(|entry| entry.cursor > after).cloned().collect();
        let first = entries.first().map_or(ring.cursor + 1, |entry| entry.cursor);
        LogEntries { missed: first.saturating_sub(after + 1), entries }
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).bytes as u64
    }

    /// Tells each time that it has grown.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.grown.subscribe()
    }
}

/// `<4>text`: the level and the rest.
fn level(line: &str) -> (u8, &str) {
    match line.as_bytes() {
        [b'<', digit @ b'0'..=b'7', b'>', ..] => (digit - b'0', &line[3..]),
        _ => (6, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_the_oldest_go_first() {
        let log = Log::default();
        log.add(5, "<4>it fails\n");
        log.add(6, "plain");
        let LogEntries { entries, missed } = log.read(0);
        assert_eq!((entries.len(), missed), (2, 0));
        assert_eq!((entries[0].level, entries[0].text.as_str()), (4, "it fails"));
        assert_eq!((entries[1].level, entries[1].cursor), (6, 2));
        assert_eq!(log.read(2), LogEntries::default());
        assert_eq!(log.read(u64::MAX), log.read(0));
        for _ in 0..100 {
            log.add(7, &"x".repeat(1000));
        }
        let LogEntries { entries, missed } = log.read(1);
        assert_eq!((entries.len() as u64 + missed, entries.len()), (101, HELD / 1000));
        assert_eq!(log.bytes(), 65_000);
    }
}
