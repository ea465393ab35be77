//! The pipes that units print into: read whenever something is there, so that no unit ever waits for its reader.

use std::os::fd::OwnedFd;

use zos_host::kmsg::Level;
use zos_host::poll::Interest;
use zos_host::{Result, clock, process};

use super::{Node, Token};
use crate::journal::{Lines, Rules};
use crate::log;
use crate::supervise::UnitId;

/// Bytes of output that are taken from one pipe before others get their turn.
const TURN: usize = 64 << 10;
/// Bytes that are read at once.
const BUFFER: usize = 16 << 10;

/// One process's output pipe.
#[derive(Debug)]
pub(super) struct Output {
    unit: UnitId,
    pipe: OwnedFd,
    lines: Lines,
}

impl Node {
    /// Reads what a process of the unit prints, from now on.
    pub(super) fn listen_to(
        &mut self,
        unit: UnitId,
        name: String,
        rules: &Rules,
        pipe: OwnedFd,
    ) -> Result<()> {
        let number = self.next_output;
        self.next_output = self.next_output.wrapping_add(1);
        self.poll.add(&pipe, Token::Output(number).number(), Interest::READ)?;
        self.journal.open(clock::boottime_millis(), unit, name, rules);
        self.outputs.insert(number, Output { unit, pipe, lines: Lines::default() });
        Ok(())
    }

    /// Takes what a process printed.
    pub(super) fn output(&mut self, number: u32) {
        let Some(Output { unit, pipe, lines }) = self.outputs.get_mut(&number) else { return };
        let kernel = &mut |level: Level, tag: &str, text: &str| log::tagged(level, tag, text);
        let mut buffer = [0; BUFFER];
        let mut taken = 0;
        while taken < TURN {
            let Some(length) = process::read_into(pipe, &mut buffer) else { return };
            let now = clock::boottime_millis();
            if length == 0 {
                self.journal.end(now, *unit, lines, kernel);
                self.outputs.remove(&number);
                return;
            }
            taken += length;
            self.journal.take(now, *unit, lines, &buffer[..length], kernel);
        }
    }

    /// Takes what a process printed before it ended.
    pub(super) fn drain(&mut self, unit: UnitId) {
        let of_unit = |(number, output): (&u32, &Output)| (output.unit == unit).then_some(*number);
        let numbers: Vec<u32> = self.outputs.iter().filter_map(of_unit).collect();
        for number in numbers {
            self.output(number);
        }
    }
}
