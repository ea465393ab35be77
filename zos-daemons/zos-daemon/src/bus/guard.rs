//! A socket that a peer can't use against us: messages are bounded, and so is patience.
//!
//! ```text
//!  read  ─▶ more than so many bytes or descriptors without an end? ─▶ the connection is closed
//!  write ─▶ not taken within so long?                              ─▶ the connection is closed
//! ```
//! So a connection holds at most one unfinished message and one unsent answer.

use std::os::fd::AsFd;
use std::time::Duration;

use tokio::net::UnixStream;
use zlink::Result;
use zlink::connection::PassedCredentials;
use zlink::connection::socket::{ReadHalf, ReadResult, Socket, WriteHalf};
use zlink::tokio::unix::Stream;

/// A deployment's body is at most 256 KiB, and some more in base64; nothing else comes near.
const CALL: usize = 1 << 20;
/// Descriptors that may come with one message.
const DESCRIPTORS: usize = 64;
/// Answers come from daemons of ours: this stops only what has gone mad.
const ANSWER: usize = 16 << 20;
/// How long a peer may take to take what it is sent.
const PATIENCE: Duration = Duration::from_secs(30);

/// A guarded socket.
#[derive(Debug)]
pub(super) struct Guarded {
    stream: Stream,
    most: usize,
}

impl Guarded {
    /// The socket of one who calls us.
    pub(super) fn caller(stream: UnixStream) -> Result<Self> {
        Ok(Self { stream: Stream::try_from(stream)?, most: CALL })
    }

    /// The socket of one whom we call.
    pub(super) fn called(stream: UnixStream) -> Result<Self> {
        Ok(Self { stream: Stream::try_from(stream)?, most: ANSWER })
    }
}

impl Socket for Guarded {
    type ReadHalf = Bounded<<Stream as Socket>::ReadHalf>;
    type WriteHalf = Timed<<Stream as Socket>::WriteHalf>;

    const CAN_TRANSFER_FDS: bool = true;

    fn split(self) -> (Self::ReadHalf, Self::WriteHalf) {
        let (read, write) = self.stream.split();
        (Bounded { inner: read, most: self.most, bytes: 0, fds: 0 }, Timed { inner: write })
    }
}

/// Counts what came since the last message's end.
#[derive(Debug)]
pub(super) struct Bounded<R> {
    inner: R,
    most: usize,
    bytes: usize,
    fds: usize,
}

impl<R: ReadHalf> ReadHalf for Bounded<R> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<ReadResult> {
        let read = self.inner.read(buffer).await?;
        let came = buffer.get(..read.bytes_read()).unwrap_or_default();
        match came.iter().rposition(|byte| *byte == 0) {
            Some(end) => (self.bytes, self.fds) = (came.len() - end - 1, read.fds().len()),
            None => {
                self.bytes += came.len();
                self.fds += read.fds().len();
            }
        }
        if self.bytes > self.most || self.fds > DESCRIPTORS {
            return Err(zlink::Error::BufferOverflow);
        }
        Ok(read)
    }
}

/// Gives up on a peer that takes nothing.
#[derive(Debug)]
pub(super) struct Timed<W> {
    inner: W,
}

impl<W: WriteHalf> WriteHalf for Timed<W> {
    async fn write(
        &mut self,
        buffer: &[u8],
        fds: &[impl AsFd],
        credentials: Option<&PassedCredentials>,
    ) -> Result<()> {
        let written = tokio::time::timeout(PATIENCE, self.inner.write(buffer, fds, credentials));
        written.await.map_err(|_| zlink::Error::SocketWrite)?
    }
}
