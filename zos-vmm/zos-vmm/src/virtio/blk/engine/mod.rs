//! How requests reach the disk: io_uring, or one call after another.
//!
//! ```text
//!  part ── start(request) ──▶ engine          the request, its buffers' memory with it, is the
//!       ◀─ finished() ─ (request, result)      engine's as long as anything may touch them
//! ```

mod blocking;
mod uring;

pub(super) use blocking::Blocking;
pub(super) use uring::Uring;

use super::disk::{Clear, Range};
use super::request::Request;
use std::io;
use std::os::fd::BorrowedFd;

/// One call of a request: what isn't done by it is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    /// Into the request's pieces, from this byte on.
    Read(u64),
    /// From the request's pieces, from this byte on.
    Write {
        at: u64,
        /// On the disk when it is done: the driver knows no flush.
        durable: bool,
    },
    /// Everything that was written is on the disk afterwards.
    Flush,
    /// A range loses its content.
    Clear(Clear, Range),
}

/// Does requests.
pub(super) trait Engine: Send + std::fmt::Debug {
    /// How many it takes at once.
    fn depth(&self) -> usize;

    /// Takes a request and begins, or notes down, the operation that it says.
    fn start(&mut self, request: Box<Request>);

    /// Hands on what was noted down; what the kernel doesn't take now it is told again by `wait` or
    /// the next call. Tells whether all went.
    fn submit(&mut self) -> bool;

    /// The next request whose operation is done, and how: bytes of a transfer, else 0.
    fn finished(&mut self) -> Option<(Box<Request>, io::Result<usize>)>;

    /// Waits until one more is done; only to be called while it holds some.
    fn wait(&mut self);

    /// Requests that it holds.
    fn holds(&self) -> usize;

    /// What tells by being readable that something is done.
    fn fd(&self) -> Option<BorrowedFd<'_>>;
}
