//! One connection: messages and descriptors in both directions.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
};
use serde::Serialize;

use super::{Decoder, MAX_MESSAGE};
use crate::error::{Context, Error, Result};

/// Descriptors in one message: what the ancillary buffers hold.
pub const MAX_FDS: usize = 32;
/// Descriptors that may wait for their call; more than that is an attack or a mistake.
const MAX_QUEUED_FDS: usize = 2 * MAX_FDS;

/// What a read brought.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Received {
    /// Bytes came; ask [`Connection::message`] for messages.
    Some,
    /// Nothing now (non-blocking sockets).
    Nothing,
    /// The peer has closed.
    Closed,
}

/// Who is at the other end, as the kernel knows it since `connect`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process id, in our pid namespace.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Who connected this Unix socket.
pub fn peer_credentials(socket: &impl AsFd) -> Result<PeerCredentials> {
    let peer = sockopt::socket_peercred(socket).during("read credentials of", "peer")?;
    Ok(PeerCredentials {
        pid: peer.pid.as_raw_nonzero().get(),
        uid: peer.uid.as_raw(),
        gid: peer.gid.as_raw(),
    })
}

/// A connected socket with what came and was not read, and what is to be sent and didn't fit.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    decoder: Decoder,
    fds: VecDeque<OwnedFd>,
    max_fds: usize,
    out: VecDeque<Outgoing>,
    out_bytes: usize,
}

#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

impl Connection {
    /// Over a connected Unix stream socket; whether calls block is the socket's own flag.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self::bounded(socket, MAX_MESSAGE, MAX_QUEUED_FDS)
    }

    /// The same for a peer that may send messages of so many bytes, and so many descriptors beside them.
    #[must_use]
    pub fn bounded(socket: OwnedFd, max_message: usize, max_fds: usize) -> Self {
        Self {
            socket,
            decoder: Decoder::new(max_message),
            fds: VecDeque::new(),
            max_fds,
            out: VecDeque::new(),
            out_bytes: 0,
        }
    }

    /// Reads once. An error (a message too long, too many descriptors, a reset) means: drop the connection.
    pub fn receive(&mut self) -> Result<Received> {
        let mut buffer = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut slices = [IoSliceMut::new(&mut buffer)];
            match recvmsg(&self.socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(error) => return Err(error).during("receive from", "peer"),
            }
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                self.fds.extend(fds);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) || self.fds.len() > self.max_fds {
            return Err(Error::invalid("receive from", "peer", "too many descriptors"));
        }
        if received.bytes == 0 {
            return Ok(Received::Closed);
        }
        self.decoder
            .push(&buffer[..received.bytes])
            .map_err(|error| Error::invalid("receive from", "peer", error))?;
        Ok(Received::Some)
    }

    /// The next whole message. When the last one is out and nothing of another has come, descriptors
    /// that no call took are closed.
    pub fn message(&mut self) -> Option<Vec<u8>> {
        let message = self.decoder.message();
        if message.is_none() && self.decoder.is_empty() {
            self.fds.clear();
        }
        message
    }

    /// The first `count` descriptors that came; `None` (and none taken) if fewer did.
    pub fn take_fds(&mut self, count: usize) -> Option<Vec<OwnedFd>> {
        (self.fds.len() >= count).then(|| self.fds.drain(..count).collect())
    }

    /// Queues a message and sends as much as goes now; [`Connection::flush`] sends the rest.
    pub fn send<T: Serialize>(&mut self, message: &T, fds: Vec<OwnedFd>) -> Result<()> {
        if fds.len() > MAX_FDS {
            return Err(Error::invalid("send to", "peer", "too many descriptors"));
        }
        let bytes = super::encode(message).during("encode for", "peer")?;
        self.out_bytes += bytes.len();
        self.out.push_back(Outgoing { bytes, sent: 0, fds });
        self.flush().map(|_| ())
    }

    /// Sends what is queued; true when all is out, false when the socket is full.
    pub fn flush(&mut self) -> Result<bool> {
        while let Some(first) = self.out.front_mut() {
            let rest = IoSlice::new(&first.bytes[first.sent..]);
            let borrowed: Vec<BorrowedFd<'_>> = first.fds.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !borrowed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
                return Err(Error::invalid("send to", "peer", "too many descriptors"));
            }
            match sendmsg(&self.socket, &[rest], &mut ancillary, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    first.sent += sent;
                    self.out_bytes -= sent;
                    first.fds.clear();
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error).during("send to", "peer"),
            }
            if self.out.front().is_some_and(|first| first.sent == first.bytes.len()) {
                self.out.pop_front();
            }
        }
        Ok(true)
    }

    /// Bytes that wait for the peer to read.
    #[must_use]
    pub fn unsent(&self) -> usize {
        self.out_bytes
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Result<PeerCredentials> {
        peer_credentials(&self.socket)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
