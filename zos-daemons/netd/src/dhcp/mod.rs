//! DHCPv4 for the node's own links (RFC 2131, 2132).
//!
//! ```text
//!  socket ── frame ──▶ Datagram ── lease::judge ──▶ Answer ──▶ Client ──▶ Send | Configure | Deconfigure
//!  AF_PACKET           payload      hostile until           sans-IO        (the uplink does them)
//!                                   it is judged
//! ```
//! The packet socket works before an address exists, and past the firewall, which therefore opens
//! no port for it.

pub mod client;
pub mod frame;
pub mod lease;
pub mod socket;

pub use client::{Action, Client, Event};
pub use lease::Lease;
