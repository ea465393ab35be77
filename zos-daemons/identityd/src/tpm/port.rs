//! The way to a TPM: one command in, one answer out.
//!
//! ```text
//!  Tpm ── Port ──┬─ Stream<File>    /dev/tpmrm0, the kernel's resource manager
//!                └─ Stream<socket>  swtpm, in tests
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;

use zeroize::Zeroizing;

use super::wire::{HEADER, LONGEST};

/// Where the kernel offers a TPM 2.0 with a resource manager: what a process loads is gone when it closes this.
pub const DEVICE: &str = "/dev/tpmrm0";

/// A way to a TPM.
pub trait Port {
    /// Sends a command and waits for the answer to it.
    fn exchange(&mut self, command: &[u8]) -> io::Result<Zeroizing<Vec<u8>>>;
}

/// A TPM behind something to write to and to read from.
#[derive(Debug)]
pub struct Stream<T>(pub T);

impl Stream<File> {
    /// The machine's TPM; none where there is no such device.
    pub fn device(path: &Path) -> io::Result<Option<Self>> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok(Some(Self(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl<T: Read + Write> Port for Stream<T> {
    fn exchange(&mut self, command: &[u8]) -> io::Result<Zeroizing<Vec<u8>>> {
        // The device takes a command in one piece.
        if self.0.write(command)? != command.len() {
            return Err(io::Error::other("the TPM took a part of a command only"));
        }
        self.0.flush()?;
        let mut answer = Zeroizing::new(vec![0; LONGEST]);
        let mut length = 0;
        loop {
            match self.0.read(&mut answer[length..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => length += count,
            }
            let Some(size) = answer[..length].get(2..6) else { continue };
            let size = u32::from_be_bytes(size.try_into().expect("four bytes")) as usize;
            // What makes no sense is given on as it came, for the reader to refuse.
            if length >= size.max(HEADER) || size > LONGEST {
                answer.truncate(length);
                return Ok(answer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Takes anything, and answers in these pieces.
    struct Pieces(VecDeque<Vec<u8>>);

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(mut piece) = self.0.pop_front() else { return Ok(0) };
            let count = piece.len().min(buffer.len());
            buffer[..count].copy_from_slice(&piece[..count]);
            if count < piece.len() {
                self.0.push_front(piece.split_off(count));
            }
            Ok(count)
        }
    }

    #[test]
    fn an_answer_is_put_together() {
        let check = |pieces: &[&str], expected: Option<&str>| {
            let pieces = pieces.iter().map(|piece| hex::decode(piece).unwrap()).collect();
            let answer = Stream(Pieces(pieces)).exchange(b"command").ok();
            assert_eq!(answer.map(|answer| hex::encode(&*answer)).as_deref(), expected);
        };
        check(&["80010000000c000000000102"], Some("80010000000c000000000102"));
        check(&["80", "010000000c", "000000000102"], Some("80010000000c000000000102"));
        check(&["80010000000c0000000001"], None);
        check(&[], None);
        check(&["80010000", ""], None);
        // It says that it is longer or shorter than anything can be.
        check(&["8001ffffffff00000000"], Some("8001ffffffff00000000"));
        check(&["80010000000000000000"], Some("80010000000000000000"));
        check(&["80010000000000"], None);
    }

    #[test]
    fn a_machine_without_a_tpm_has_none() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Stream::device(&folder.path().join("tpmrm0")).unwrap().is_none());
    }
}
