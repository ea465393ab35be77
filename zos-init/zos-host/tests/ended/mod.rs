//! How a child of a test ended, and what it said until then.

use std::io::{PipeReader, Read as _};
use std::time::{Duration, Instant};

use zos_host::process::{Child, Exit, Step, reap};

#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    pub(crate) output: String,
    pub(crate) failure: Option<Step>,
}

impl Ended {
    /// Reads to the end of its output, whose writing end must be the child's alone, and reaps it.
    pub(crate) fn of(child: &Child, mut reader: PipeReader) -> Self {
        let mut output = String::new();
        reader.read_to_string(&mut output).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let exit = loop {
            match reap() {
                Some((pid, exit)) if pid == child.pid => break exit,
                _ => assert!(Instant::now() < deadline, "it doesn't end"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        Self { exit, output, failure: child.failure().map(|(step, _)| step) }
    }
}
