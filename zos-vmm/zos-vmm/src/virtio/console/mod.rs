//! virtio-console (virtio 1.2, 5.3): one port, `hvc0` for Linux, on a [`Console`] like the serial
//! port's.
//!
//! ```text
//!  queue 0, input:  session (socket, terminal) ── typed ──▶ chain
//!  queue 1, output: chain ──▶ Console ─▶ ring, file, session ...
//! ```
//!
//! | A guest may try | What happens |
//! |---|---|
//! | a request of gigabytes | its first 64 KiB go out, the rest is dropped and counted |
//! | flood | the console's rate drops it; other devices of the thread have their turns |
//! | leave input unread | 4 KiB are held, the client's socket holds the rest |
//! | buffers for output to be written, or the other way | given back with nothing in them |
//!
//! Absent: further ports and emergency writes, since no guest that we know needs them.

use super::{
    Activation, ActiveQueue, Backend, Broken, Chain, ConfigSpace, Counters, F_RING, Interrupt,
    Profile, SHARE, Share, Waits,
};
use crate::console::{Console, ConsoleEnds, Session};
use crate::memory::GuestMemory;
use std::io::Write;
use std::sync::Arc;

const KIND: u16 = 3;
/// A simple communication controller, as its predecessors said too.
const CLASS: u32 = 0x07_8000;
/// The configuration tells columns and rows.
const F_SIZE: u64 = 1 << 0;
const INPUT: usize = 0;
/// Most bytes of one request, in steps of this many.
const MOST: usize = 64 << 10;
const STEP: usize = 4 << 10;

/// Counters by their indices.
const COUNTERS: &[&str] = &["input_bytes", "output_bytes", "cut_bytes"];
const INPUT_BYTES: usize = 0;
const OUTPUT_BYTES: usize = 1;
const CUT_BYTES: usize = 2;

/// A console of the guest.
#[derive(Debug)]
pub struct VirtioConsole {
    console: Console,
    session: Option<Session>,
    size: Option<(u16, u16)>,
    counters: Counters,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    memory: GuestMemory,
    interrupt: Arc<Interrupt>,
    input: ActiveQueue,
    output: ActiveQueue,
    chain: Chain,
}

impl VirtioConsole {
    /// On an open console.
    #[must_use]
    pub fn new(ends: ConsoleEnds) -> Self {
        let ConsoleEnds { console, session, size } = ends;
        Self { console, session, size, counters: Counters::new(COUNTERS), active: None }
    }

    /// What the guest reads of it.
    #[must_use]
    pub fn profile(&self) -> Profile {
        let (columns, rows) = self.size.unwrap_or_default();
        let mut config = [columns.to_le_bytes(), rows.to_le_bytes()].concat();
        // One port; no emergency write.
        config.extend(1u32.to_le_bytes());
        config.extend(0u32.to_le_bytes());
        Profile {
            kind: KIND,
            class: CLASS,
            features: F_RING | self.size.map_or(0, |_| F_SIZE),
            queues: vec![64, 64],
            config: ConfigSpace::new(config),
            counters: self.counters.clone(),
        }
    }

    /// Gives the guest what is typed, as far as it has room.
    fn type_in(&mut self) -> Result<(), Broken> {
        let (Some(active), Some(session)) = (&mut self.active, &mut self.session) else {
            return Ok(());
        };
        let Active { memory, interrupt, input, chain, .. } = active;
        while !session.typed().is_empty() {
            match input.next(memory, chain)? {
                Some(loaded) => {
                    let right = loaded.is_ok() && chain.readable.bytes() == 0;
                    let count = if right { chain.writable.fill(session.typed()) } else { 0 };
                    session.taken(count);
                    self.counters.add(INPUT_BYTES, count as u64);
                    input.give_back(memory, chain.head, count)?;
                }
                // The next kick tells of room.
                None if input.listen(memory)? => {}
                None => break,
            }
        }
        input.notify(memory, interrupt)
    }

    /// Takes a share of what the guest writes.
    fn put_out(&mut self) -> Result<Share, Broken> {
        let Some(active) = &mut self.active else { return Ok(Share::Done) };
        let Active { memory, interrupt, output, chain, .. } = active;
        output.quiet(memory)?;
        for _ in 0..SHARE {
            let Some(loaded) = output.next(memory, chain)? else { break };
            if loaded.is_ok() && chain.writable.bytes() == 0 {
                let mut done = 0;
                while done < MOST && chain.readable.bytes() > 0 {
                    let mut bytes = [0; STEP];
                    let count = chain.readable.take(&mut bytes);
                    // A file or terminal that takes no more loses it; the guest goes on.
                    let _ = self.console.write_all(&bytes[..count]);
                    done += count;
                }
                self.counters.add(OUTPUT_BYTES, done as u64);
                self.counters.add(CUT_BYTES, chain.readable.bytes() as u64);
            }
            output.give_back(memory, chain.head, 0)?;
        }
        let _ = self.console.flush();
        output.notify(memory, interrupt)?;
        Ok(if output.listen(memory)? { Share::More } else { Share::Done })
    }
}

impl Backend for VirtioConsole {
    fn activate(&mut self, mut activation: Activation) -> Result<(), Broken> {
        let (input, output) = (activation.take(0)?, activation.take(1)?);
        let Activation { memory, interrupt, .. } = activation;
        let chain = Chain::new(&memory);
        self.active = Some(Active { memory, interrupt, input, output, chain });
        Ok(())
    }

    fn kicked(&mut self, queue: usize) -> Result<Share, Broken> {
        if queue == INPUT { self.type_in().map(|()| Share::Done) } else { self.put_out() }
    }

    fn outside<'a>(&'a self, waits: &mut Waits<'a>) {
        self.session.iter().for_each(|session| session.outside(waits));
    }

    fn ready(&mut self, token: u32) -> Result<(), Broken> {
        self.session.iter_mut().for_each(|session| session.ready(token));
        self.type_in()
    }

    fn reset(&mut self) {
        // The VM may end: the guest's last words go out.
        self.session.iter_mut().for_each(Session::flush);
        self.active = None;
    }
}

#[cfg(test)]
mod tests;
