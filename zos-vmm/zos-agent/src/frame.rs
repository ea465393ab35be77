//! Frames: bytes with a length before them.

use crate::call::{Answer, Exit, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most bytes of a frame behind its length.
pub const LONGEST: usize = 64 << 10;
const LENGTH_BYTES: usize = 4;

/// What can be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Host: what it wants. The first frame of a connection, and the only one of its kind.
    Request(Request),
    /// Host: input of the process; without bytes: its end.
    Stdin(Vec<u8>),
    /// Host: a signal by its number, for the process.
    Signal(u8),
    /// Host: the terminal has other dimensions now.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters in a line.
        columns: u16,
    },
    /// Guest: what came of the request.
    Answer(Answer),
    /// Guest: the process wrote this.
    Stdout(Vec<u8>),
    /// Guest: the process wrote this to its second output.
    Stderr(Vec<u8>),
    /// Guest: the process ended. The last frame.
    Exit(Exit),
}

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Its length.
    #[error("a frame of {0} bytes: it must have 1 to 65536")]
    Length(u32),
    /// Its kind.
    #[error("a frame of the unknown kind {0}")]
    Kind(u8),
    /// Its words.
    #[error("a frame of kind {kind} that makes no sense")]
    Words {
        /// Its kind.
        kind: u8,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Its size, for a kind of fixed size.
    #[error("a frame of kind {kind} with {bytes} bytes")]
    Size {
        /// Its kind.
        kind: u8,
        /// Bytes behind the kind.
        bytes: usize,
    },
}

mod kind {
    pub(super) const REQUEST: u8 = 1;
    pub(super) const STDIN: u8 = 2;
    pub(super) const SIGNAL: u8 = 3;
    pub(super) const RESIZE: u8 = 4;
    pub(super) const ANSWER: u8 = 129;
    pub(super) const STDOUT: u8 = 130;
    pub(super) const STDERR: u8 = 131;
    pub(super) const EXIT: u8 = 132;
}

impl Frame {
    /// As bytes with their length.
    ///
    /// # Errors
    /// It is longer than a frame may be.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let mut bytes = vec![0; LENGTH_BYTES];
        match self {
            Frame::Request(request) => words(&mut bytes, kind::REQUEST, request)?,
            Frame::Stdin(body) => raw(&mut bytes, kind::STDIN, body),
            Frame::Signal(number) => raw(&mut bytes, kind::SIGNAL, &[*number]),
            Frame::Resize { rows, columns } => {
                raw(&mut bytes, kind::RESIZE, &rows.to_le_bytes());
                bytes.extend_from_slice(&columns.to_le_bytes());
            }
            Frame::Answer(answer) => words(&mut bytes, kind::ANSWER, answer)?,
            Frame::Stdout(body) => raw(&mut bytes, kind::STDOUT, body),
            Frame::Stderr(body) => raw(&mut bytes, kind::STDERR, body),
            Frame::Exit(exit) => words(&mut bytes, kind::EXIT, exit)?,
        }
        let length = u32::try_from(bytes.len() - LENGTH_BYTES).unwrap_or(u32::MAX);
        check(length)?;
        bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        Ok(bytes)
    }

    fn decode(kind: u8, body: &[u8]) -> Result<Self, FrameError> {
        let size = || FrameError::Size { kind, bytes: body.len() };
        Ok(match kind {
            kind::REQUEST => Frame::Request(parse(kind, body)?),
            kind::STDIN => Frame::Stdin(body.to_vec()),
            kind::SIGNAL => {
                let &[number] = body else { return Err(size()) };
                Frame::Signal(number)
            }
            kind::RESIZE => {
                let &[a, b, c, d] = body else { return Err(size()) };
                let (rows, columns) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
                Frame::Resize { rows, columns }
            }
            kind::ANSWER => Frame::Answer(parse(kind, body)?),
            kind::STDOUT => Frame::Stdout(body.to_vec()),
            kind::STDERR => Frame::Stderr(body.to_vec()),
            kind::EXIT => Frame::Exit(parse(kind, body)?),
            _ => return Err(FrameError::Kind(kind)),
        })
    }
}

fn parse<T: DeserializeOwned>(kind: u8, body: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(body).map_err(|source| FrameError::Words { kind, source })
}

fn check(length: u32) -> Result<usize, FrameError> {
    let bytes = usize::try_from(length).unwrap_or(usize::MAX);
    if (1..=LONGEST).contains(&bytes) { Ok(bytes) } else { Err(FrameError::Length(length)) }
}

fn words(bytes: &mut Vec<u8>, kind: u8, words: &impl Serialize) -> Result<(), FrameError> {
    bytes.push(kind);
    serde_json::to_writer(bytes, words).map_err(|source| FrameError::Words { kind, source })
}

fn raw(bytes: &mut Vec<u8>, kind: u8, body: &[u8]) {
    bytes.push(kind);
    bytes.extend_from_slice(body);
}

/// Bytes as they come, to frames. It keeps at most one frame, and whatever was given at once with it.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
}

impl Decoder {
    /// Takes bytes, in pieces of any size.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame. After an error the connection is of no more use.
    ///
    /// # Errors
    /// The bytes are no frame.
    pub fn take(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((length, rest)) = self.bytes.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = check(u32::from_le_bytes(*length))?;
        let Some((kind, body)) = rest.get(..length).and_then(<[u8]>::split_first) else {
            return Ok(None);
        };
        let frame = Frame::decode(*kind, body)?;
        self.bytes.drain(..LENGTH_BYTES + length);
        Ok(Some(frame))
    }

    /// Whether it stands between two frames.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{Exec, Refusal};
    use proptest::prelude::*;

    fn some() -> Vec<Frame> {
        let exec = Exec { arguments: vec!["/bin/ls".into(), "-l".into()], ..Exec::default() };
        vec![
            Frame::Request(Request::Exec(exec)),
            Frame::Stdin(Vec::new()),
            Frame::Signal(15),
            Frame::Resize { rows: 24, columns: 80 },
            Frame::Answer(Answer::Refused(Refusal { reason: "no".into() })),
            Frame::Stdout(vec![0xff; LONGEST - 1]),
            Frame::Stderr(b"oh".to_vec()),
            Frame::Exit(Exit::Signal(9)),
        ]
    }

    #[test]
    fn what_is_too_long_is_not_sent() {
        let error = Frame::Stdout(vec![0; LONGEST]).encode().unwrap_err();
        assert!(matches!(error, FrameError::Length(65_537)));
    }

    #[test]
    fn bytes_that_are_no_frame_are_refused() {
        for (bytes, word) in [
            (&[0, 0, 0, 0][..], "0 bytes"),
            (&[0xff; 4], "4294967295 bytes"),
            (&[1, 0, 1, 0], "65537 bytes"),
            (&[1, 0, 0, 0, 0], "unknown kind 0"),
            (&[3, 0, 0, 0, 3, 1, 1], "kind 3 with 2 bytes"),
            (&[2, 0, 0, 0, 4, 1], "kind 4 with 1 bytes"),
            (b"\x03\0\0\0\x01{}", "kind 1 that makes no sense"),
        ] {
            let mut decoder = Decoder::default();
            decoder.feed(bytes);
            let error = decoder.take().unwrap_err().to_string();
            assert!(error.contains(word), "{bytes:?}: {error}");
        }
    }

    proptest! {
        /// However the bytes are cut, the same frames come out.
        #[test]
        fn frames_survive_any_cut(cuts in prop::collection::vec(1usize..70_000, 1..40)) {
            let bytes: Vec<u8> =
                some().iter().flat_map(|frame| frame.encode().unwrap()).collect();
            let (mut decoder, mut rest, mut found) = (Decoder::default(), &bytes[..], Vec::new());
            for cut in cuts.iter().chain(std::iter::repeat(&70_000)) {
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                decoder.feed(piece);
                while let Some(frame) = decoder.take().unwrap() {
                    found.push(frame);
                }
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, some());
            prop_assert!(decoder.is_empty());
        }

        /// Anything else: an error or a frame, never a panic.
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.feed(&bytes);
            while let Ok(Some(frame)) = decoder.take() {
                prop_assert!(frame.encode().is_ok());
            }
        }
    }
}
