//! vhost-user's messages over a Unix socket, each exchange with a bound on its time.
//!
//! ```text
//!  request (u32)  flags (u32: version 1, reply, need_reply)  size (u32)  body   + descriptors
//! ```
//!
//! The crate `vhost` has the forms of the messages. Its own connection waits for a silent peer
//! without end (a time-out of the socket it takes for an interruption, and tries again), so the
//! exchange is ours.
//!
//! | A back-end may try | What happens |
//! |---|---|
//! | say nothing, a byte at a time, read nothing | the time is up for the exchange as a whole |
//! | answer another request, another length, another version | the connection is over |
//! | pass descriptors | the kernel closes them: we never take any |
//! | speak unasked | the connection is over |

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;
use vhost::vhost_user::message::FrontendReq;

const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;
const HEADER: usize = 12;
/// Descriptors of one message: the guest's memory has at most so many regions.
pub(super) const MOST_FDS: usize = 8;

/// Why an exchange failed. The connection is then of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// The socket.
    #[error("talk to the back-end")]
    Socket(#[from] io::Error),
    /// It is gone.
    #[error("the back-end is gone")]
    Gone,
    /// It is silent.
    #[error("the back-end didn't answer in time")]
    Late,
    /// An answer that is none.
    #[error("the back-end's answer to {request:?} is wrong")]
    Wrong {
        /// What was asked.
        request: FrontendReq,
    },
    /// It refuses.
    #[error("the back-end refuses {request:?}")]
    Refused {
        /// What was asked.
        request: FrontendReq,
    },
}

/// A connected back-end.
#[derive(Debug)]
pub(super) struct Connection {
    socket: UnixStream,
    /// It says of each request whether it was done (`REPLY_ACK`).
    acknowledges: bool,
}

impl Connection {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self { socket, acknowledges: false }
    }

    pub(super) fn set_acknowledges(&mut self) {
        self.acknowledges = true;
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// A request without an answer of its own.
    pub(super) fn tell(
        &self,
        request: FrontendReq,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
        until: Instant,
    ) -> Result<(), TalkError> {
        let flags = if self.acknowledges { VERSION | NEED_REPLY } else { VERSION };
        self.send(request, flags, body, fds, until)?;
        if self.acknowledges && self.answer::<8>(request, until)? != [0; 8] {
            return Err(TalkError::Refused { request });
        }
        Ok(())
    }

    /// A request with an answer of exactly this length.
    pub(super) fn ask<const N: usize>(
        &self,
        request: FrontendReq,
        body: &[u8],
        until: Instant,
    ) -> Result<[u8; N], TalkError> {
        self.send(request, VERSION, body, &[], until)?;
        self.answer(request, until)
    }

    fn send(
        &self,
        request: FrontendReq,
        flags: u32,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
        until: Instant,
    ) -> Result<(), TalkError> {
        let size = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        for word in [u32::from(request), flags, size] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(body);
        let mut done = 0;
        while done < bytes.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            // They go along with the first byte.
            if done == 0 && !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(TalkError::Wrong { request });
            }
            let rest = [IoSlice::new(&bytes[done..])];
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.socket, &rest, &mut control, flags) {
                Ok(count) => done += count,
                Err(error) => self.wait(error, PollFlags::OUT, until)?,
            }
        }
        Ok(())
    }

    fn answer<const N: usize>(
        &self,
        request: FrontendReq,
        until: Instant,
    ) -> Result<[u8; N], TalkError> {
        let header: [u8; HEADER] = self.receive(until)?;
        let word = |at: usize| {
            u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let right = (word(0), word(4) & 7) == (u32::from(request), VERSION | REPLY)
            && usize::try_from(word(8)) == Ok(N);
        if right { self.receive(until) } else { Err(TalkError::Wrong { request }) }
    }

    fn receive<const N: usize>(&self, until: Instant) -> Result<[u8; N], TalkError> {
        let mut bytes = [0; N];
        let mut done = 0;
        while done < N {
            match recv(&self.socket, &mut bytes[done..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(TalkError::Gone),
                Ok((_, count)) => done += count,
                Err(error) => self.wait(error, PollFlags::IN, until)?,
            }
        }
        Ok(bytes)
    }

    /// Waits for the socket where that was what was missing.
    fn wait(&self, missing: Errno, what: PollFlags, until: Instant) -> Result<(), TalkError> {
        match missing {
            Errno::INTR => {}
            Errno::AGAIN => {
                let left = until.saturating_duration_since(Instant::now());
                let left = Timespec::try_from(left).map_err(|_| TalkError::Late)?;
                match poll(&mut [PollFd::new(&self.socket, what)], Some(&left)) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(TalkError::Socket(error.into())),
                }
            }
            Errno::PIPE | Errno::CONNRESET => return Err(TalkError::Gone),
            error => return Err(TalkError::Socket(error.into())),
        }
        // Also a peer that always has one more byte comes to an end.
        if Instant::now() >= until { Err(TalkError::Late) } else { Ok(()) }
    }
}
