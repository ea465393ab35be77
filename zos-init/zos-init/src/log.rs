//! PID 1's own lines: to the kernel log, and to the console while there is no kernel log.

use std::sync::OnceLock;

use zos_host::kmsg::{Kmsg, Level};

/// Under this name PID 1's lines stand in the log.
const TAG: &str = "zos-init";

static KMSG: OnceLock<Kmsg> = OnceLock::new();

/// Uses the kernel log from now on; before `/dev` is there this does nothing.
pub(crate) fn open() {
    if let Ok(kmsg) = Kmsg::open() {
        let _ = KMSG.set(kmsg);
    }
}

/// A line of PID 1.
pub(crate) fn line(level: Level, text: &str) {
    tagged(level, TAG, text);
}

/// A line of somebody else.
pub(crate) fn tagged(level: Level, tag: &str, text: &str) {
    match KMSG.get() {
        Some(kmsg) => kmsg.write(level, tag, text),
        None => eprintln!("{tag}: {text}"),
    }
}
