//! What a unit prints: cut into lines, bounded and rate limited, never blocking the unit.
//!
//! ```text
//!  pipe ─▶ bytes ─▶ lines of at most 800 bytes ─▶ 200 at once, 20 a second ─▶ kernel log as `name: line`
//!                                                  └ the rest is counted; the count is told every 5 s
//! ```

use std::os::fd::OwnedFd;

use zos_host::kmsg::Level;

use crate::supervise::{Millis, UnitId};

/// Longest line, bytes; a longer one is cut into several.
const LINE: usize = 800;
/// Lines at once.
const BURST: u64 = 200;
/// Lines a second after that.
const RATE: u64 = 20;
/// Milliseconds between two lines that tell how many were dropped.
const TOLD: Millis = 5_000;

/// One process's output pipe.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) unit: UnitId,
    pub(super) name: String,
    pub(super) pipe: OwnedFd,
    pub(super) lines: Lines,
}

/// Bytes in, lines out; no I/O.
#[derive(Debug)]
pub(super) struct Lines {
    partial: Vec<u8>,
    /// Thousandths of lines that may still come now.
    allowance: u64,
    last: Millis,
    dropped: u64,
    /// When the number of dropped lines was told the last time.
    told: Millis,
}

impl Lines {
    pub(super) fn new(now: Millis) -> Self {
        Self { partial: Vec::new(), allowance: BURST * 1000, last: now, dropped: 0, told: now }
    }

    /// Takes bytes; gives the lines that are whole and allowed.
    pub(super) fn push(&mut self, now: Millis, bytes: &[u8]) -> Vec<(Level, String)> {
        let mut out = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            for piece in text.chunks(LINE) {
                if self.partial.len() + piece.len() > LINE {
                    self.emit(now, &mut out);
                }
                self.partial.extend_from_slice(piece);
            }
            if whole {
                self.emit(now, &mut out);
            }
        }
        out
    }

    /// The end of the stream: what was left without a newline, and what was dropped.
    pub(super) fn end(&mut self, now: Millis) -> Vec<(Level, String)> {
        let mut out = Vec::new();
        self.emit(now, &mut out);
        if self.dropped > 0 {
            out.push(self.tell(now));
        }
        out
    }

    fn emit(&mut self, now: Millis, out: &mut Vec<(Level, String)>) {
        let line = std::mem::take(&mut self.partial);
        if line.is_empty() {
            return;
        }
        let gained = now.saturating_sub(self.last).saturating_mul(RATE);
        self.allowance = self.allowance.saturating_add(gained).min(BURST * 1000);
        self.last = now;
        if self.allowance < 1000 {
            self.dropped += 1;
            return;
        }
        self.allowance -= 1000;
        if self.dropped > 0 && now >= self.told + TOLD {
            out.push(self.tell(now));
        }
        let line = String::from_utf8_lossy(&line);
        let (level, text) = Level::split(line.trim_end_matches('\r'));
        // A service can't shout over the kernel's own emergencies.
        out.push((level.max(Level::Critical), text.to_owned()));
    }

    fn tell(&mut self, now: Millis) -> (Level, String) {
        self.told = now;
        let dropped = std::mem::take(&mut self.dropped);
        (Level::Warning, format!("({dropped} lines came too fast and were dropped)"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_and_levels() {
        let mut lines = Lines::new(0);
        assert_eq!(lines.push(0, b"<4>warn\nhal"), [(Level::Warning, "warn".to_owned())]);
        assert_eq!(lines.push(0, b"f\r\n\n<0>x\n").len(), 2);
        assert_eq!(lines.push(0, b"tail"), []);
        assert_eq!(lines.end(0), [(Level::Info, "tail".to_owned())]);
    }

    #[test]
    fn a_flood_is_dropped_and_counted() {
        let mut lines = Lines::new(0);
        assert_eq!(lines.push(0, "x\n".repeat(1000).as_bytes()).len(), 200);
        assert_eq!(lines.push(100, "y\n".repeat(100).as_bytes()).len(), 2);
        let later = lines.push(5_000, "z\n".repeat(100).as_bytes());
        assert_eq!(later[0].1, "(898 lines came too fast and were dropped)");
        assert_eq!(later.len(), 1 + 98);
        let last = "(2 lines came too fast and were dropped)".to_owned();
        assert_eq!(lines.end(5_001), [(Level::Warning, last)]);
    }

    proptest! {
        #[test]
        fn nothing_grows(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 0..8)) {
            let mut lines = Lines::new(0);
            for (at, chunk) in chunks.iter().enumerate() {
                for (_, line) in lines.push(at as u64, chunk) {
                    // A broken byte becomes three.
                    prop_assert!(line.len() <= 3 * LINE);
                }
                prop_assert!(lines.partial.len() <= LINE);
            }
        }

        #[test]
        fn cuts_do_not_matter(text in "[a-z\\n]{0,100}", cut in 1_usize..10) {
            let mut whole = Lines::new(0);
            let mut expect = whole.push(0, text.as_bytes());
            expect.extend(whole.end(0));
            let mut parts = Lines::new(0);
            let mut got = Vec::new();
            for chunk in text.as_bytes().chunks(cut) {
                got.extend(parts.push(0, chunk));
            }
            got.extend(parts.end(0));
            prop_assert_eq!(got, expect);
        }
    }
}
