//! virtio-blk (virtio 1.2, 5.2) over a raw file or block device.
//!
//! ```text
//!  chain = [ type u32 | reserved u32 | sector u64 | data out ... ][ data in ... | status u8 ]
//! ```
//!
//! The worker reads and writes straight between the file and the guest's memory.

mod request;

use super::{
    Activation, ActiveQueue, Backend, Broken, Chain, ConfigSpace, Counters, F_RING, Interrupt,
    Profile, SHARE, Share,
};
use crate::memory::GuestMemory;
use request::Executor;
use rustix::fs::{SeekFrom, seek};
use std::fs::File;
use std::io;
use std::sync::Arc;

const KIND: u16 = 2;
const CLASS: u32 = 0x01_8000;
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
const SECTOR: u64 = 512;
const QUEUE: u16 = 256;
/// Bytes of `struct virtio_blk_config` up to `blk_size`.
const CONFIG_BYTES: usize = 24;

/// A disk of the guest.
#[derive(Debug)]
pub struct Blk {
    executor: Executor,
    active: Option<Active>,
}

#[derive(Debug)]
struct Active {
    memory: GuestMemory,
    queue: ActiveQueue,
    interrupt: Arc<Interrupt>,
    chain: Chain,
}

impl Blk {
    /// A disk over this file; its size is what the file has now, in whole sectors.
    ///
    /// # Errors
    /// The file's size can't be told.
    pub fn new(file: File, readonly: bool, serial: [u8; 20]) -> io::Result<Self> {
        // Seeking tells the size of files and block devices alike; nobody uses the offset.
        let sectors = seek(&file, SeekFrom::End(0))? / SECTOR;
        Ok(Self { executor: Executor { file, readonly, sectors, serial }, active: None })
    }

    /// What the guest reads of it.
    #[must_use]
    pub fn profile(&self) -> Profile {
        let mut config = vec![0; CONFIG_BYTES];
        config[..8].copy_from_slice(&self.executor.sectors.to_le_bytes());
        config[12..16].copy_from_slice(&u32::from(QUEUE - 2).to_le_bytes());
        config[20..24].copy_from_slice(&512u32.to_le_bytes());
        let readonly = if self.executor.readonly { F_RO } else { 0 };
        Profile {
            kind: KIND,
            class: CLASS,
            features: F_RING | F_SEG_MAX | F_BLK_SIZE | F_FLUSH | readonly,
            queues: vec![QUEUE],
            config: ConfigSpace::new(config),
            counters: Counters::default(),
        }
    }
}

impl Backend for Blk {
    fn activate(&mut self, mut activation: Activation) -> Result<(), Broken> {
        let queue = activation.take(0)?;
        let Activation { memory, interrupt, .. } = activation;
        self.active = Some(Active { chain: Chain::new(&memory), memory, queue, interrupt });
        Ok(())
    }

    fn kicked(&mut self, _: usize) -> Result<Share, Broken> {
        let Some(active) = &mut self.active else { return Ok(Share::Done) };
        let Active { memory, queue, interrupt, chain } = active;
        queue.quiet(memory)?;
        for _ in 0..SHARE {
            let Some(loaded) = queue.next(memory, chain)? else { break };
            // A chain without a status byte can't even be refused: it goes back empty.
            let written = if loaded.is_ok() { self.executor.execute(chain) } else { 0 };
            queue.give_back(memory, chain.head, written)?;
            queue.notify(memory, interrupt)?;
        }
        Ok(if queue.listen(memory)? { Share::More } else { Share::Done })
    }

    fn reset(&mut self) {
        self.active = None;
    }
}

#[cfg(test)]
mod tests;
