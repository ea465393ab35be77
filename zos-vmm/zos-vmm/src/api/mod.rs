//! Cloud Hypervisor's REST interface over a Unix socket (its `docs/api.md`), as that VMM answers.
//!
//! ```text
//!  client ─ HTTP/1.1 ─▶ api thread                                  main thread
//!                        server: poll, a handful of connections
//!                        http ─▶ routes ─▶ Request ── channel ────▶ control::Vmm
//!  client ◀───────────── http ◀─────────── Reply ◀─── channel ──────┘
//! ```
//!
//! Requests and replies are values; the thread reads no file, and knows nothing of the machine.
//!
//! | A client may try | What happens |
//! |---|---|
//! | bytes that are no HTTP | 400, and the connection ends |
//! | more than 16 KiB of headers, or 4 MiB of body | 431, 413, and the connection ends |
//! | to send slowly or never, or to read never | it is dropped after a while; others are served meanwhile |
//! | more connections than there is room for | the one that was silent for longest makes room |
//! | chunked bodies | 501 with words |

mod config;
mod connection;
pub mod http;
mod known;
mod message;
#[cfg(test)]
mod openapi;
pub mod routes;
mod server;
pub mod translate;

pub use config::{
    Balloon, Console, ConsoleMode, Cpus, Disk, Fs, Memory, Net, Payload, RateLimiter, Rng,
    TokenBucket, VmConfig, Vsock,
};
pub use message::{Answer, Info, Node, Ping, Refusal, Reply, Request, Resize, State};
pub use server::{Calls, Limits, Server, Ticket};
