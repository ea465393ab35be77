//! The host's side of a call, over anything that reads and writes: a Unix socket to a VM's vsock.
//!
//! ```text
//!  Host::connect("CONNECT 1024\n" ▶, ◀ "OK n\n") ─▶ call(request) ─▶ Answer
//!                                                └▶ exec ─▶ event() ─▶ Stdout, Stderr ... Exit
//! ```
//! A deadline is the stream's: set its read timeout.

use crate::call::{Answer, Exec, Exit, Request};
use crate::frame::{Decoder, Frame, FrameError};
use std::io::{self, Read, Write};

/// Longest line that a VMM answers `CONNECT` with.
const LONGEST_LINE: usize = 32;

/// A connection to a guest's PID 1.
#[derive(Debug)]
pub struct Host<S> {
    stream: S,
    decoder: Decoder,
}

/// What a process does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It wrote this.
    Stdout(Vec<u8>),
    /// It wrote this to its second output.
    Stderr(Vec<u8>),
    /// It ended; nothing follows.
    Exit(Exit),
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The connection.
    #[error("speak to the guest")]
    Io(#[from] io::Error),
    /// The VMM has nobody at that port.
    #[error("nobody in the guest listens on port {0}: is zos-guest its PID 1, and up?")]
    Nobody(u32),
    /// No frame.
    #[error("the guest speaks nonsense")]
    Frame(#[from] FrameError),
    /// A frame at the wrong moment.
    #[error("the guest says what has no place here: {0}")]
    Order(&'static str),
    /// The guest says no.
    #[error("the guest refuses: {0}")]
    Refused(String),
    /// It hung up.
    #[error("the guest hung up")]
    Closed,
}

impl<S: Read + Write> Host<S> {
    /// Over a stream that leads to the agent already.
    pub fn new(stream: S) -> Self {
        Self { stream, decoder: Decoder::default() }
    }

    /// Over the Unix socket of a VM's vsock device: asks it for the agent's port.
    ///
    /// # Errors
    /// Nobody listens there, or the socket fails.
    pub fn connect(mut stream: S) -> Result<Self, HostError> {
        let port = crate::PORT;
        writeln!(stream, "CONNECT {port}")?;
        let mut line = Vec::new();
        // A byte at a time: what follows the line is the guest's.
        while !line.ends_with(b"\n") {
            let mut byte = [0];
            if line.len() == LONGEST_LINE || stream.read(&mut byte)? == 0 {
                return Err(HostError::Nobody(port));
            }
            line.push(byte[0]);
        }
        if line.starts_with(b"OK ") { Ok(Self::new(stream)) } else { Err(HostError::Nobody(port)) }
    }

    /// Asks, and waits for the answer. What was refused is an error.
    ///
    /// # Errors
    /// As told.
    pub fn call(&mut self, request: Request) -> Result<Answer, HostError> {
        self.send(&Frame::Request(request))?;
        match self.frame()? {
            Frame::Answer(Answer::Refused(refusal)) => Err(HostError::Refused(refusal.reason)),
            Frame::Answer(answer) => Ok(answer),
            _ => Err(HostError::Order("no answer where one is due")),
        }
    }

    /// Runs a process; then [`Host::event`] tells what it does.
    ///
    /// # Errors
    /// As told.
    pub fn exec(&mut self, exec: Exec) -> Result<(), HostError> {
        match self.call(Request::Exec(exec))? {
            Answer::Done => Ok(()),
            _ => Err(HostError::Order("an answer to something else")),
        }
    }

    /// What the process does next.
    ///
    /// # Errors
    /// As told.
    pub fn event(&mut self) -> Result<Event, HostError> {
        match self.frame()? {
            Frame::Stdout(bytes) => Ok(Event::Stdout(bytes)),
            Frame::Stderr(bytes) => Ok(Event::Stderr(bytes)),
            Frame::Exit(exit) => Ok(Event::Exit(exit)),
            _ => Err(HostError::Order("a frame that no process makes")),
        }
    }

    /// Says something to the process: input, a signal, its terminal's size.
    ///
    /// # Errors
    /// The connection fails, or the frame is too long.
    pub fn send(&mut self, frame: &Frame) -> Result<(), HostError> {
        Ok(self.stream.write_all(&frame.encode()?)?)
    }

    /// The stream, to wait for it or to clone it.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    fn frame(&mut self) -> Result<Frame, HostError> {
        let mut piece = [0; 8192];
        loop {
            if let Some(frame) = self.decoder.take()? {
                return Ok(frame);
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(HostError::Closed),
                Ok(count) => self.decoder.feed(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Refusal;
    use std::os::unix::net::UnixStream;

    /// Runs a host against a guest that says this, whatever it hears.
    fn against(said: Vec<u8>) -> Host<UnixStream> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let _ = theirs.write_all(&said);
            let _ = theirs.shutdown(std::net::Shutdown::Write);
            let _ = io::copy(&mut theirs, &mut io::sink());
        });
        Host::new(ours)
    }

    fn said(frames: &[Frame]) -> Vec<u8> {
        frames.iter().flat_map(|frame| frame.encode().unwrap()).collect()
    }

    #[test]
    fn a_process_speaks_and_ends() {
        let frames = [
            Frame::Answer(Answer::Done),
            Frame::Stdout(b"out".to_vec()),
            Frame::Stderr(b"err".to_vec()),
            Frame::Exit(Exit::Code(3)),
        ];
        let mut host = against(said(&frames));
        host.exec(Exec { arguments: vec!["x".into()], ..Exec::default() }).unwrap();
        assert_eq!(host.event().unwrap(), Event::Stdout(b"out".to_vec()));
        assert_eq!(host.event().unwrap(), Event::Stderr(b"err".to_vec()));
        assert_eq!(host.event().unwrap(), Event::Exit(Exit::Code(3)));
        assert!(matches!(host.event(), Err(HostError::Closed)));
    }

    #[test]
    fn a_guest_that_breaks_a_rule_is_told_apart() {
        let refused = Answer::Refused(Refusal { reason: "no such program".into() });
        for (bytes, word) in [
            (said(&[Frame::Answer(refused)]), "no such program"),
            (said(&[Frame::Stdout(Vec::new())]), "no answer where one is due"),
            (said(&[Frame::Request(Request::Describe)]), "no answer where one is due"),
            (vec![0xff; 8], "nonsense"),
            (Vec::new(), "hung up"),
            (vec![9, 0], "hung up"),
        ] {
            let error = against(bytes).call(Request::Describe).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let mut host = against(said(&[Frame::Answer(Answer::Done), Frame::Answer(Answer::Done)]));
        host.exec(Exec::default()).unwrap();
        assert!(matches!(host.event(), Err(HostError::Order(_))));
    }

    #[test]
    fn nobody_at_the_port_is_said_so() {
        for (line, right) in [
            (&b"OK 1073741824\n"[..], true),
            (b"", false),
            (b"NO\n", false),
            (b"OK 11111111111111111111111111111111111111111111\n", false),
        ] {
            let stream = against(line.to_vec()).stream;
            assert_eq!(Host::connect(stream).is_ok(), right, "{line:?}");
        }
    }
}
