//! `org.zos.Init` on `/run/zos/init.sock`: varlink without a runtime.
//!
//! ```text
//!  accept ─▶ Peer { connection, uid } ─ call ─▶ access (may this uid?) ─▶ methods ─▶ reply
//!   (server)                                                             └▶ Stream ─ news ─▶ reply, reply …
//! ```
//! - `server`: connections and their bounds; knows nothing of PID 1.
//! - `methods`: what each call does; `parameters`: its arguments, one by one.
//! - `stream`: what a caller that asked for more has been told already.

mod access;
mod interfaces;
mod methods;
mod parameters;
mod server;
mod stream;

pub(crate) use server::Server;

/// The socket.
pub(crate) const SOCKET: &str = "/run/zos/init.sock";
