//! What a host and PID 1 of a micro-VM say to each other, over vsock.
//!
//! ```text
//!  host ── connect to port 1024 ──▶ guest      a connection is one call
//!
//!  frame:  length u32 LE | kind u8 | body       length counts kind and body: 1 to 65,536
//!
//!  host ─ Request ─────────────▶ guest
//!       ◀──────────── Answer ──                 an error, or what was asked; most calls end here
//!       ─ Stdin, Signal, Resize ▶               of a process that runs
//!       ◀── Stdout, Stderr, Exit                Exit is the last
//! ```
//!
//! | The other side may try | What happens |
//! |---|---|
//! | a frame of 4 GiB, of nothing | an error before a byte of it is kept |
//! | a kind that isn't there, words that make no sense | an error that names it |
//! | frames in another order | the caller's to refuse: [`Host::event`] and the guest's loop do |
//! | answers without end | each is read when it is asked for; a reader that stops, stops the process |
//!
//! Each side holds the other for hostile. Nothing here touches a machine.
#![forbid(unsafe_code)]

mod call;
mod frame;
mod host;

pub use call::{
    Answer, Description, Exec, Exit, Interface, Mount, Power, Refusal, Request, Stats, Terminal,
    User,
};
pub use frame::{Decoder, Frame, FrameError, LONGEST};
pub use host::{Event, Host, HostError};

/// The port on which the guest listens.
pub const PORT: u32 = 1024;
