//! The log: warnings and errors as lines on stderr, and not without end, since a guest causes them.

use log::{LevelFilter, Log, Metadata, Record};
use std::sync::atomic::{AtomicU32, Ordering};

/// Lines of a life.
const MOST: u32 = 200;

struct Lines(AtomicU32);

static LINES: Lines = Lines(AtomicU32::new(0));

/// From now on the log goes to stderr.
pub(crate) fn install() {
    // Only a second one is refused.
    if log::set_logger(&LINES).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // It counts on past the most; wrapping takes longer than any life.
        match self.0.fetch_add(1, Ordering::Relaxed) {
            line if line < MOST => eprintln!("zos-virtiofsd: {}", record.args()),
            MOST => eprintln!("zos-virtiofsd: no more lines, {MOST} were enough"),
            _ => {}
        }
    }

    fn flush(&self) {}
}
