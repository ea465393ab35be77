//! The file of a twin's buckets: made by `vmd`, mapped by every VM of the twin, drawn from by all.
//!
//! ```text
//!  0            8          12        128 + 128 n                                       4096
//!  | ZOSRATES   | version  | count   | bucket n                               ...      |
//!                 u32 = 1    u32 = 6
//!  bucket:  0 per_second u64   8 burst u64   16 mark u64   64 epochs 8 x u64
//! ```
//!
//! Numbers are little-endian, as are the hosts that it is shared on. Bucket n is [`Flow`] n / 2's:
//! bytes when n is even, operations when it is odd; `per_second` 0: unlimited. The rest of a bucket
//! is its state, zero in a new file, and described where it is drawn from (`zos-vmm`, `rate`).
//!
//! Rates are read when a VM starts: to change them, make a new file. Make it a memfd that can't
//! shrink (`F_SEAL_SHRINK`), or one VM could end the others by cutting it.
//!
//! A VM's process that was broken into can write the file, and so lift or block what its own twin
//! shares; other twins have other files. What must hold even then is the cgroup's to hold.

use crate::{Bucket, Rate};

/// First bytes of the file.
pub const MAGIC: [u8; 8] = *b"ZOSRATES";
/// The version that this describes.
pub const VERSION: u32 = 1;
/// Bytes of the file.
pub const FILE_BYTES: usize = 4096;
/// Where bucket 0 stands, and how far it is to the next.
pub const BUCKET_BYTES: usize = 128;
/// Within a bucket: where its state begins, a word and then, from [`EPOCHS_AT`] on, its epochs.
pub const MARK_AT: usize = 16;
/// Within a bucket: its [`EPOCHS`] epochs.
pub const EPOCHS_AT: usize = 64;
/// Epochs of a bucket.
pub const EPOCHS: usize = 8;
/// Most tokens a second, and in a burst: more is the same as unlimited.
pub const MOST: u64 = 1 << 46;

const VERSION_AT: usize = 8;
const COUNT_AT: usize = 12;
const BUCKETS: u32 = 6;

/// What a twin's VMs share a rate of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Reads and writes of disks.
    Disk,
    /// Frames that guests receive.
    Receive,
    /// Frames that guests send.
    Transmit,
}

/// A twin's rates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TwinRates {
    /// Of [`Flow::Disk`].
    pub disk: Rate,
    /// Of [`Flow::Receive`].
    pub receive: Rate,
    /// Of [`Flow::Transmit`].
    pub transmit: Rate,
}

/// A file that isn't one of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a file of a twin's rates: {0}")]
pub struct NotRates(&'static str);

impl TwinRates {
    /// A new file's bytes: every bucket is full.
    #[must_use]
    pub fn file(&self) -> Vec<u8> {
        let mut bytes = vec![0; FILE_BYTES];
        bytes[..MAGIC.len()].copy_from_slice(&MAGIC);
        bytes[VERSION_AT..COUNT_AT].copy_from_slice(&VERSION.to_le_bytes());
        bytes[COUNT_AT..COUNT_AT + 4].copy_from_slice(&BUCKETS.to_le_bytes());
        for (flow, rate) in [
            (Flow::Disk, self.disk),
            (Flow::Receive, self.receive),
            (Flow::Transmit, self.transmit),
        ] {
            for (at, bucket) in flow.places().into_iter().zip([rate.bytes, rate.operations]) {
                let Some(Bucket { per_second, burst }) = bucket else { continue };
                bytes[at..at + 8].copy_from_slice(&per_second.to_le_bytes());
                bytes[at + 8..at + 16].copy_from_slice(&burst.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads the rates of a file, whatever its state is.
    ///
    /// # Errors
    /// It is too short, or no file of this version.
    pub fn read(bytes: &[u8]) -> Result<Self, NotRates> {
        let word = |at: usize| {
            let word = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>());
            word.map_or(0, |word| u64::from_le_bytes(*word))
        };
        if bytes.len() < FILE_BYTES {
            return Err(NotRates("shorter than 4096 bytes"));
        }
        if !bytes.starts_with(&MAGIC) {
            return Err(NotRates("another magic"));
        }
        if word(VERSION_AT) != u64::from(VERSION) | u64::from(BUCKETS) << 32 {
            return Err(NotRates("another version"));
        }
        let bucket = |at: usize| {
            let (per_second, burst) = (word(at), word(at + 8).max(1));
            (per_second > 0).then_some(Bucket { per_second, burst })
        };
        let rate = |flow: Flow| {
            let [bytes, operations] = flow.places().map(bucket);
            Rate { bytes, operations }
        };
        Ok(Self {
            disk: rate(Flow::Disk),
            receive: rate(Flow::Receive),
            transmit: rate(Flow::Transmit),
        })
    }

    /// One flow's rate.
    #[must_use]
    pub fn of(&self, flow: Flow) -> Rate {
        match flow {
            Flow::Disk => self.disk,
            Flow::Receive => self.receive,
            Flow::Transmit => self.transmit,
        }
    }
}

impl Flow {
    /// Where its two buckets stand in the file: that of bytes, that of operations.
    #[must_use]
    pub fn places(self) -> [usize; 2] {
        let first = match self {
            Flow::Disk => 0,
            Flow::Receive => 2,
            Flow::Transmit => 4,
        };
        [first, first + 1].map(|index| (index + 1) * BUCKET_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let bucket = |per_second, burst| Some(Bucket { per_second, burst });
        let rates = TwinRates {
            disk: Rate { bytes: bucket(u64::MAX, 1), operations: None },
            receive: Rate { bytes: None, operations: bucket(5, 6) },
            transmit: Rate { bytes: bucket(1, 2), operations: bucket(3, 4) },
        };
        assert_eq!(TwinRates::read(&rates.file()), Ok(rates));
        assert_eq!(TwinRates::read(&TwinRates::default().file()), Ok(TwinRates::default()));
        assert_eq!(rates.of(Flow::Receive), rates.receive);
    }

    #[test]
    fn other_files_are_refused() {
        let file = TwinRates::default().file();
        assert!(TwinRates::read(&file[1..]).is_err());
        assert!(TwinRates::read(&[]).is_err());
        for at in [0, 7, 8, 11, 12, 15] {
            let mut other = file.clone();
            other[at] ^= 1;
            assert!(TwinRates::read(&other).is_err(), "byte {at}");
        }
    }

    #[test]
    fn buckets_stand_apart_and_fit() {
        let places = [Flow::Disk, Flow::Receive, Flow::Transmit].map(Flow::places).concat();
        assert_eq!(places, [128, 256, 384, 512, 640, 768]);
        assert_eq!(EPOCHS_AT + EPOCHS * 8, BUCKET_BYTES);
    }
}
